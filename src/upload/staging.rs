//! Staged files: real files under `<state_dir>/staging`, one for each file that stands in a
//! directory of the mount but is not an asset yet.
//!
//! Promise: a file is 0600 and held by an exclusive `flock` for as long as its owner lives, so
//! that another process can tell a file in use from one left behind. Writes, truncation and sync
//! are the disk's own, and so are its errors: a full disk fails the write, and a file one of whose
//! writes failed is never taken for whole. While a file is being sent, and once it is an asset,
//! its bytes don't change: such a write is refused as [`UploadError::Busy`]. A write to a file
//! that was whole makes the journal say so first.
//!
//! Lock order: `transition`, then `facts`, then the store's. `transition` is held for reading by
//! writers of bytes, for writing by changes of state, and across local disk I/O but never the
//! network. `facts` is held for moments only.

mod directories;
mod state;
mod transitions;

pub(super) use directories::{Directories, label, own, sync_directory};
use directories::{new_file, set_label};
pub use state::UploadState;
pub(super) use transitions::{Prepared, Sending};

use std::fmt;
use std::fs::{File, FileTimes, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::SystemTime;

use rustix::fs::FallocateFlags;
use uuid::Uuid;

use super::error::UploadError;
use crate::provider::{AssetId, Library};
use crate::store::{Digest, Stage, StagedRecord, Store};

/// Told the outcome of a submission, once, on a thread of the upload layer.
pub type SubmitDone = Box<dyn FnOnce(Result<(), UploadError>) + Send>;

/// What [`StagedFile::allocate`] does to the size of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocate {
    /// A range beyond the end makes the file longer.
    Grow,
    /// `FALLOC_FL_KEEP_SIZE`.
    KeepSize,
}

/// A file's times, as its staged file has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub atime: SystemTime,
    /// Of the last write, or what the user set since.
    pub mtime: SystemTime,
}

/// A file that stands in a directory of the mount and lives on this machine.
pub struct StagedFile {
    id: Uuid,
    ino: u64,
    file: File,
    directories: Arc<Directories>,
    store: Arc<Store>,
    transition: RwLock<()>,
    facts: Mutex<Facts>,
    changes: AtomicU64,
}

struct Facts {
    library: Library,
    name: String,
    mode: u32,
    state: State,
    intent: Intent,
    /// The journal has an entry.
    journaled: bool,
    /// A write failed, so that the bytes are not what the writer meant.
    broken: Option<UploadError>,
    waiters: Vec<SubmitDone>,
    /// The digest of the bytes as of this count of changes.
    digest: Option<(u64, Digest)>,
}

#[derive(Clone)]
enum State {
    Open,
    Local,
    Queued,
    Sending {
        size_bytes: u64,
        sent_bytes: Arc<AtomicU64>,
    },
    Uploaded(AssetId),
    Failed(String),
    Removed,
}

/// What the user wants with the bytes as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intent {
    /// They are not whole.
    Write,
    /// They were closed whole.
    Keep,
}

impl StagedFile {
    /// A new empty file, locked.
    pub(super) fn create(
        directories: &Arc<Directories>,
        store: &Arc<Store>,
        place: (Library, &str),
        ino: u64,
        mode: u32,
    ) -> Result<Arc<Self>, UploadError> {
        let (id, file) = new_file(directories)
            .map_err(|error| UploadError::at("stage a file in", &directories.staging, &error))?;
        let record = StagedRecord {
            id,
            library: place.0,
            name: place.1.to_string(),
            ino,
            mode,
            stage: Stage::Open,
            reason: None,
        };
        let staged = Self::over(directories, store, file, record, State::Open);
        staged.facts().journaled = false;
        staged.write_label();
        Ok(Arc::new(staged))
    }

    /// A file that was left behind, locked by the caller, in the stage that its entry gives it.
    pub(super) fn adopt(
        directories: &Arc<Directories>,
        store: &Arc<Store>,
        file: File,
        record: StagedRecord,
    ) -> Arc<Self> {
        let state = match record.stage {
            Stage::Local | Stage::Open => State::Local,
            Stage::Queued | Stage::Failed => State::Queued,
        };
        Arc::new(Self::over(directories, store, file, record, state))
    }

    fn over(
        directories: &Arc<Directories>,
        store: &Arc<Store>,
        file: File,
        record: StagedRecord,
        state: State,
    ) -> Self {
        let intent = match state {
            State::Open => Intent::Write,
            _ => Intent::Keep,
        };
        Self {
            id: record.id,
            ino: record.ino,
            file,
            directories: Arc::clone(directories),
            store: Arc::clone(store),
            transition: RwLock::new(()),
            facts: Mutex::new(Facts {
                library: record.library,
                name: record.name,
                mode: record.mode,
                state,
                intent,
                journaled: true,
                broken: None,
                waiters: Vec::new(),
                digest: None,
            }),
            changes: AtomicU64::new(0),
        }
    }

    /// The name of the file below `<state_dir>/staging`, then `kept`.
    pub fn id(&self) -> Uuid {
        self.id
    }

    pub fn ino(&self) -> u64 {
        self.ino
    }

    pub fn library(&self) -> Library {
        self.facts().library
    }

    pub fn name(&self) -> String {
        self.facts().name.clone()
    }

    pub fn state(&self) -> UploadState {
        match &self.facts().state {
            State::Open | State::Removed => UploadState::Open,
            State::Local => UploadState::Local,
            State::Queued => UploadState::Queued,
            State::Sending {
                size_bytes,
                sent_bytes,
            } => UploadState::Sending {
                percent: percent(sent_bytes.load(Ordering::Relaxed), *size_bytes),
            },
            State::Uploaded(id) => UploadState::Uploaded { id: id.clone() },
            State::Failed(reason) => UploadState::Failed {
                reason: reason.clone(),
            },
        }
    }

    /// Whether the bytes changed since they were last submitted.
    pub fn is_dirty(&self) -> bool {
        self.facts().intent == Intent::Write
    }

    /// Grows with every write, truncation and allocation.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub fn size_bytes(&self) -> Result<u64, UploadError> {
        self.file
            .metadata()
            .map(|metadata| metadata.len())
            .map_err(|error| UploadError::local("look at the staged file", &error))
    }

    pub fn times(&self) -> Result<Times, UploadError> {
        self.file
            .metadata()
            .and_then(|metadata| {
                Ok(Times {
                    atime: metadata.accessed()?,
                    mtime: metadata.modified()?,
                })
            })
            .map_err(|error| UploadError::local("look at the staged file", &error))
    }

    /// Permission bits.
    pub fn mode(&self) -> u32 {
        self.facts().mode
    }

    /// Sets times; they go with the file to the asset that it becomes.
    pub fn set_times(
        &self,
        atime: Option<SystemTime>,
        mtime: Option<SystemTime>,
    ) -> Result<(), UploadError> {
        let _still = self.hold_transition();
        let mut times = FileTimes::new();
        times = atime.map_or(times, |time| times.set_accessed(time));
        times = mtime.map_or(times, |time| times.set_modified(time));
        self.file
            .set_times(times)
            .map_err(|error| UploadError::local("set the times of the staged file", &error))?;
        self.tell_asset(atime, mtime, None)
    }

    /// Sets the permission bits; they go with the file to the asset that it becomes.
    pub fn set_mode(&self, mode: u32) -> Result<(), UploadError> {
        let _still = self.hold_transition();
        let (library, name, journaled) = {
            let mut facts = self.facts();
            facts.mode = mode;
            (facts.library, facts.name.clone(), facts.journaled)
        };
        if journaled {
            self.store.rename_staged(self.id, library, &name, mode)?;
        }
        self.tell_asset(None, None, Some(mode))
    }

    /// Fills `buffer` from `offset`; fewer bytes only at the end of the file.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, UploadError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self
                .file
                .read_at(&mut buffer[filled..], offset.saturating_add(filled as u64))
            {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(UploadError::local("read the staged file", &error)),
            }
        }
        Ok(filled)
    }

    /// Writes all of `data` at `offset`.
    pub fn write_at(&self, data: &[u8], offset: u64) -> Result<(), UploadError> {
        self.change("write the staged file", |file| {
            file.write_all_at(data, offset)
        })
    }

    /// Makes the file this long. A file made empty is as good as new, whatever failed before.
    pub fn truncate(&self, size_bytes: u64) -> Result<(), UploadError> {
        self.change("change the size of the staged file", |file| {
            file.set_len(size_bytes)
        })?;
        if size_bytes == 0 {
            self.facts().broken = None;
        }
        Ok(())
    }

    /// Reserves room for the range; the error is [`UploadError::DiskFull`] where there is none.
    pub fn allocate(&self, offset: u64, length: u64, size: Allocate) -> Result<(), UploadError> {
        let flags = match size {
            Allocate::Grow => FallocateFlags::empty(),
            Allocate::KeepSize => FallocateFlags::KEEP_SIZE,
        };
        self.begin_change(|file| {
            rustix::fs::fallocate(file, flags, offset, length).map_err(io::Error::from)
        })?
        .map_err(|error| UploadError::local("reserve room for the staged file", &error))
    }

    /// Puts the bytes on the disk.
    pub fn sync(&self) -> Result<(), UploadError> {
        self.file
            .sync_all()
            .map_err(|error| UploadError::local("sync the staged file", &error))
    }

    /// Changes bytes; a failure marks the file as not whole.
    fn change(
        &self,
        what: &str,
        work: impl Fn(&File) -> io::Result<()>,
    ) -> Result<(), UploadError> {
        self.begin_change(work)?.map_err(|error| {
            let error = UploadError::local(what, &error);
            self.facts().broken = Some(error.clone());
            error
        })
    }

    /// Runs `work` while no change of state is possible, after the journal knows that the file is
    /// no longer whole.
    fn begin_change(
        &self,
        work: impl Fn(&File) -> io::Result<()>,
    ) -> Result<io::Result<()>, UploadError> {
        loop {
            {
                let _shared = self.share_transition();
                let writable = {
                    let mut facts = self.facts();
                    match facts.state {
                        State::Open | State::Removed => {
                            facts.intent = Intent::Write;
                            true
                        }
                        State::Sending { .. } | State::Uploaded(_) => {
                            return Err(UploadError::Busy);
                        }
                        State::Local | State::Queued | State::Failed(_) => false,
                    }
                };
                if writable {
                    self.changes.fetch_add(1, Ordering::AcqRel);
                    return Ok(work(&self.file));
                }
            }
            self.reopen_for_change()?;
        }
    }

    fn reopen_for_change(&self) -> Result<(), UploadError> {
        let _still = self.hold_transition();
        let state = self.facts().state.clone();
        if matches!(state, State::Local | State::Queued | State::Failed(_)) {
            self.journal(Stage::Open, None)?;
            let mut facts = self.facts();
            facts.state = State::Open;
            facts.intent = Intent::Write;
        }
        Ok(())
    }

    /// Another handle on the same bytes, at byte 0, for reading; works for a deleted file too.
    pub(super) fn reader(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// As [`StagedFile::reader`], for writing.
    pub(super) fn writer(&self) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    fn journal(&self, stage: Stage, reason: Option<String>) -> Result<(), UploadError> {
        if self.facts().journaled {
            self.store.put_staged(&self.record(stage, reason))?;
        }
        Ok(())
    }

    fn record(&self, stage: Stage, reason: Option<String>) -> StagedRecord {
        let facts = self.facts();
        StagedRecord {
            id: self.id,
            library: facts.library,
            name: facts.name.clone(),
            ino: self.ino,
            mode: facts.mode,
            stage,
            reason,
        }
    }

    fn tell_asset(
        &self,
        atime: Option<SystemTime>,
        mtime: Option<SystemTime>,
        mode: Option<u32>,
    ) -> Result<(), UploadError> {
        let (state, library) = {
            let facts = self.facts();
            (facts.state.clone(), facts.library)
        };
        if let State::Uploaded(id) = state {
            let service = library.service();
            self.store
                .set_asset_attributes(service, &id, self.ino, mtime, atime, mode)?;
        }
        Ok(())
    }

    fn write_label(&self) {
        let place = {
            let facts = self.facts();
            format!("{}/{}", facts.library, facts.name)
        };
        set_label(&self.file, &place);
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn share_transition(&self) -> RwLockReadGuard<'_, ()> {
        self.transition.read().unwrap_or_else(|e| e.into_inner())
    }

    fn hold_transition(&self) -> RwLockWriteGuard<'_, ()> {
        self.transition.write().unwrap_or_else(|e| e.into_inner())
    }
}

impl fmt::Debug for StagedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StagedFile")
            .field("id", &self.id)
            .field("name", &self.name())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

fn percent(sent_bytes: u64, size_bytes: u64) -> u8 {
    let share = u128::from(sent_bytes.min(size_bytes)) * 100 / u128::from(size_bytes.max(1));
    u8::try_from(share).unwrap_or(100)
}
