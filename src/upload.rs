//! Staged files become assets: each exactly once, whatever ends in between.
//!
//! # The protocol, and what a crash after each step means
//! 1. **Write.** [`Uploads::create`] makes a file below `<state_dir>/staging`, locked by this
//!    process. *Crash: the next mount moves it to `recovered/`; nothing is uploaded.*
//! 2. **Submit.** When the file is closed whole: fsync of the file, then of its directory, then a
//!    journal entry `queued`; only then is it called queued. *Crash before the entry: as after 1.
//!    Crash after it: the next mount sends the file.*
//! 3. **Hash.** SHA-256 of the bytes. If the newest asset of this name was uploaded from here with
//!    the same digest, go to 6 with that asset. *Crash: as after 2.*
//! 4. **Record the attempt**: time, name, size, digest and the ids that the service has under this
//!    name now. *Crash: the next mount looks before it sends (below), finds nothing and sends.*
//! 5. **Send.** *Crash: the next mount looks. If the service has an asset of this name and size,
//!    made since the attempt and not among the noted ids, it is this one: go to 6. If not, also
//!    not after a few looks, go to 4.* An answer that was lost is treated in the same way. If the
//!    listing fails, nothing is sent until it succeeds.
//! 6. **Confirm**, in one transaction: what is known of the asset (inode, names, times, mode,
//!    digest) is stored, the journal entry goes. Then the file moves to `kept/` for reading, the
//!    file system is told, then those who wait. *Crash after the transaction: the next mount moves
//!    the file; the asset has its attributes.*
//! 7. **Recover**, at [`Uploads::open`]: as said above, for every staged file that no living
//!    process has locked, so that two mounts on one state directory never send a file twice.
//!
//! # Failure
//! A service that can't be reached is tried again, 1 s to 60 s apart. A rate limit pauses every
//! upload for as long as it says. A refused account (401, 402, 403) stops every upload but one
//! probe a minute. A submission that somebody waits for fails at once when the service refuses
//! it, and when nothing could be done for [`UploadConfig::deadline`]; its file then stays, readable,
//! as `Failed`, until it is submitted again, [`Uploads::retry_failed`], or the next mount. One that
//! nobody waits for, and every one with [`UploadConfig::write_back`], is tried for ever.
//!
//! # Locks
//! In this order: `line`, `files`, then a file's own (`staging.rs`), then the store's. `line` is
//! held for moments, never across disk or network.

mod crash;
mod engine;
mod error;
mod name;
mod queue;
mod recovery;
mod sender;
mod staging;

pub use error::UploadError;
pub use name::{is_local_name, same_name};
pub use staging::{Allocate, StagedFile, SubmitDone, Times, UploadState};

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use uuid::Uuid;

use crate::clock::Clock;
use crate::provider::{Asset, AssetId, Library, Provider, media_type};
use crate::store::{Digest, Store};
use crate::workers::Workers;
use queue::{Queue, Waiting};
use staging::Directories;

/// Threads that sync and journal closed files: as many as a disk has use for.
const PREPARING_THREADS: usize = 2;

/// How uploads are done.
#[derive(Debug, Clone)]
pub struct UploadConfig {
    /// Holds `staging/`, `kept/` and `recovered/`; the store's directory.
    pub state_dir: PathBuf,
    /// Files sent at once, at least 1.
    pub max_concurrent: usize,
    /// How long a submission that somebody waits for may go without success.
    pub deadline: Duration,
    /// Report success as soon as a file is safe in the journal.
    pub write_back: bool,
    /// How many bytes of uploaded files are kept for reading; the newest file is kept whatever its
    /// size, unless this is 0.
    pub keep_bytes: u64,
    /// The content type for an extension in a library; `None` where it isn't taken.
    pub content_types: fn(Library, &str) -> Option<&'static str>,
}

impl UploadConfig {
    /// Four at once, a deadline of 60 s, closes wait, 1 GiB kept.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            max_concurrent: 4,
            deadline: Duration::from_secs(60),
            write_back: false,
            keep_bytes: 1 << 30,
            content_types: media_type::for_upload,
        }
    }
}

/// What the upload layer tells and asks the file system. Called on threads of this layer, without
/// a lock of this layer.
pub trait UploadEvents: Send + Sync {
    /// The file is this asset now. Called before those who wait for the upload are told.
    fn uploaded(&self, file: &Arc<StagedFile>, asset: &Asset);

    /// The file's upload was given up; it stays as it is.
    fn failed(&self, file: &Arc<StagedFile>, error: &UploadError);

    /// The asset that the directory has under this name now; of several, the newest.
    fn newest_named(&self, library: Library, name: &str) -> Option<Asset>;

    /// The ids of every asset that the service has under this name, as far as a listing of this
    /// mount says; `None` where the library hasn't been listed, and the service is then asked.
    fn ids_named(&self, library: Library, name: &str) -> Option<Vec<AssetId>> {
        let _ = (library, name);
        None
    }

    /// SHA-256 of the bytes that the service has of an asset now, which are downloaded for it; `None`
    /// where they can't be. Blocks until then.
    fn digest_of(&self, asset: &Asset) -> Option<Digest> {
        let _ = asset;
        None
    }
}

/// One line of [`Uploads::statuses`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadStatus {
    pub library: Library,
    pub name: String,
    pub size_bytes: u64,
    pub state: UploadState,
    /// Bytes of the attempt that runs, handed to the network.
    pub sent_bytes: u64,
    /// Attempts that failed since it was submitted.
    pub failures: u32,
    /// Until the next attempt; `None` where one runs or none is planned.
    pub next_try: Option<Duration>,
    /// Why the last attempt failed, or why it was given up.
    pub error: Option<String>,
}

/// See the module's head. Dropping it lets running uploads end and starts no others.
pub struct Uploads {
    shared: Arc<Shared>,
}

struct Shared {
    config: UploadConfig,
    directories: Arc<Directories>,
    store: Arc<Store>,
    provider: Arc<dyn Provider>,
    events: Arc<dyn UploadEvents>,
    clock: Arc<dyn Clock>,
    line: Mutex<Line>,
    /// Signalled when anything in `line` changes.
    wake: Condvar,
    /// Every file that isn't an asset yet.
    files: Mutex<HashMap<Uuid, Arc<StagedFile>>>,
    stopping: AtomicBool,
    preparing: Workers,
}

struct Line {
    queue: Queue,
    /// Files in their turn, to see whether bytes go out.
    sending: Vec<Arc<StagedFile>>,
    /// How many of their bytes had gone out when last looked.
    sent_bytes: u64,
}

impl Uploads {
    /// Takes over what earlier mounts left and begins to send it.
    pub fn open(
        config: UploadConfig,
        store: Arc<Store>,
        provider: Arc<dyn Provider>,
        events: Arc<dyn UploadEvents>,
        clock: Arc<dyn Clock>,
    ) -> Result<Uploads, UploadError> {
        let queue = Queue::new(config.max_concurrent, config.deadline);
        let threads = config.max_concurrent.max(1);
        let shared = Arc::new(Shared {
            directories: Arc::new(Directories::open(&config.state_dir)?),
            config,
            store,
            provider,
            events,
            clock,
            line: Mutex::new(Line {
                queue,
                sending: Vec::new(),
                sent_bytes: 0,
            }),
            wake: Condvar::new(),
            files: Mutex::new(HashMap::new()),
            stopping: AtomicBool::new(false),
            preparing: Workers::new("staging", PREPARING_THREADS),
        });
        let uploads = Uploads { shared };
        uploads.enqueue_recovered(uploads.shared.recover()?);
        for _ in 0..threads {
            let shared = Arc::clone(&uploads.shared);
            thread::Builder::new()
                .name("upload".to_string())
                .spawn(move || shared.serve())
                .map_err(|error| UploadError::local("start an upload thread", &error))?;
        }
        Ok(uploads)
    }

    fn enqueue_recovered(&self, files: Vec<Arc<StagedFile>>) {
        let now = self.shared.clock.monotonic();
        for file in files {
            if file.state() == UploadState::Queued {
                let mut line = self.shared.line();
                line.queue
                    .submit(file.id(), key(&file), Waiting::Nobody, now);
                line.queue.ready(file.id());
            }
            self.shared.files().insert(file.id(), file);
        }
    }

    /// Everything local that stands in a directory now, in no order.
    pub fn staged(&self) -> Vec<Arc<StagedFile>> {
        self.shared.files().values().cloned().collect()
    }

    /// A new empty file that stands in `library` as `name`.
    pub fn create(
        &self,
        library: Library,
        name: &str,
        ino: u64,
        mode: u32,
    ) -> Result<Arc<StagedFile>, UploadError> {
        let shared = &self.shared;
        let file = StagedFile::create(
            &shared.directories,
            &shared.store,
            (library, name),
            ino,
            mode,
        )?;
        shared.files().insert(file.id(), Arc::clone(&file));
        Ok(file)
    }

    /// The file was closed whole: it is made safe and sent. Never blocks; `done` is called once,
    /// on another thread, when the upload ended (with write-back: when the file is safe). For a
    /// file that is under way already, `done` waits for that.
    pub fn submit(&self, file: &Arc<StagedFile>, done: Option<SubmitDone>) {
        file.submitted(done);
        self.shared.enqueue(file);
    }

    /// Gives a file that isn't an asset another place. [`UploadError::Busy`] while it is sent. A
    /// file renamed from a temporary to a real name is sent once it is submitted.
    pub fn rename(
        &self,
        file: &Arc<StagedFile>,
        library: Library,
        name: &str,
    ) -> Result<(), UploadError> {
        let stays = is_local_name(name);
        if library != file.library() && self.shared.may_have_arrived(file)? {
            return Err(UploadError::Busy);
        }
        file.rename(library, name, stays)?;
        let mut line = self.shared.line();
        line.queue.rename(file.id(), key(file));
        if file.state() == UploadState::Local {
            line.queue.leave(file.id());
            drop(line);
            self.shared.release(file);
        }
        self.shared.wake.notify_all();
        Ok(())
    }

    /// The user deleted a file that isn't an asset. [`UploadError::Busy`] while it is sent. A close
    /// that waits for it succeeds.
    pub fn remove(&self, file: &Arc<StagedFile>) -> Result<(), UploadError> {
        file.remove()?;
        self.shared.line().queue.leave(file.id());
        self.shared.files().remove(&file.id());
        self.shared.release(file);
        self.shared.wake.notify_all();
        Ok(())
    }

    /// A copy of a file, open for change, with its place, inode number, mode and times. Shares
    /// blocks with the original where the disk can.
    pub fn clone_for_write(&self, file: &Arc<StagedFile>) -> Result<Arc<StagedFile>, UploadError> {
        let copy = self.create(file.library(), &file.name(), file.ino(), file.mode())?;
        let filled = file
            .reader()
            .map_err(|error| UploadError::local("read the staged file", &error))
            .and_then(|mut from| copy.fill_from(&mut from))
            .and_then(|()| file.times())
            .and_then(|times| copy.set_times(Some(times.atime), Some(times.mtime)));
        match filled {
            Ok(()) => Ok(copy),
            Err(error) => {
                self.remove(&copy)?;
                Err(error)
            }
        }
    }

    /// The bytes of an asset that was uploaded from here, if they are still kept.
    pub fn local_copy(&self, id: &AssetId) -> Option<File> {
        self.shared.local_copy(id)
    }

    /// Waits until everything queued is sent, `timeout` passed, or nothing more can be sent
    /// without the user. Returns the names that remain.
    pub fn drain(&self, timeout: Duration) -> Vec<String> {
        let until = self.shared.clock.monotonic() + timeout;
        let mut line = self.shared.line();
        loop {
            let ids = line.queue.ids();
            let now = self.shared.clock.monotonic();
            if ids.is_empty() || now >= until || line.queue.stuck() {
                drop(line);
                let files = self.shared.files();
                return ids
                    .iter()
                    .filter_map(|id| files.get(id))
                    .map(|file| file.name())
                    .collect();
            }
            line = self.shared.wait(line, Some(until), now);
        }
    }

    /// Starts no uploads until [`Uploads::resume`].
    pub fn pause(&self) {
        self.shared.line().queue.hold();
    }

    /// Ends a pause, and every wait after an error.
    pub fn resume(&self) {
        let now = self.shared.clock.monotonic();
        self.shared.line().queue.resume(now);
        self.shared.wake.notify_all();
    }

    /// Queues every file whose upload was given up, and ends every wait after an error. Returns how
    /// many files there were.
    pub fn retry_failed(&self) -> usize {
        let failed: Vec<_> = self
            .staged()
            .into_iter()
            .filter(|file| matches!(file.state(), UploadState::Failed { .. }) && !file.is_broken())
            .collect();
        for file in &failed {
            self.submit(file, None);
        }
        self.resume();
        failed.len()
    }

    /// Every local file and how far it has come, by place.
    pub fn statuses(&self) -> Vec<UploadStatus> {
        let mut statuses: Vec<UploadStatus> = self
            .staged()
            .into_iter()
            .map(|file| self.shared.status(&file))
            .collect();
        statuses.sort_by(|a, b| (a.library, &a.name).cmp(&(b.library, &b.name)));
        statuses
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        // Under the lock, so that no thread is between looking at the flag and waiting.
        let _line = self.shared.line();
        self.shared.wake.notify_all();
    }
}

impl StagedFile {
    fn fill_from(&self, from: &mut File) -> Result<(), UploadError> {
        let mut to = self
            .writer()
            .map_err(|error| UploadError::local("open the copy", &error))?;
        // Between two files this is copy_file_range, which shares blocks where the disk can.
        io::copy(from, &mut to)
            .map(drop)
            .map_err(|error| UploadError::local("copy the file to change it", &error))
    }
}

fn key(file: &StagedFile) -> (Library, String) {
    (file.library(), file.name())
}

#[cfg(test)]
mod tests;
