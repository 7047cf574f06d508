//! Creating, writing and closing: everything that ends as an upload.
//!
//! A file that is written stands in its directory as a local file of its own from the first
//! moment; an asset that is opened for writing keeps its number and its bytes, and the new version
//! gets a number of its own, so that readers of the old one never see a mix. Until the writer
//! closes, `stat` by the old number shows what is written (`overlays`), because that is the number
//! the writer's descriptor has.
//!
//! Only a close by the process that opened the file submits it: a child that inherited the
//! descriptor has not finished the file by exiting. A process that a signal killed has not
//! finished it either. The last release is the net under both: it submits what was written and not
//! yet submitted, but for a killed writer.

use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::copy_up::Source;
use super::local::LocalBytes;
use super::read::{FileHandle, Opened};
use super::{Attr, Done, FsError, LibraryFs, attr, lock};
use crate::provider::Library;
use crate::tree::LocalNode;
use crate::upload::{Allocate, StagedFile, UploadState, Uploads};

/// How a file is opened for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenMode {
    pub truncate: bool,
    pub append: bool,
    pub exclusive: bool,
    /// The thread group of the process that opens.
    pub opener: u32,
}

/// Who closes a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closer {
    /// The thread group.
    pub process: u32,
    /// The kernel closes for a process that a signal killed.
    pub killed: bool,
}

/// A descriptor open for writing.
pub(super) struct WriteHandle {
    /// The number the kernel knows.
    pub(super) ino: u64,
    pub(super) target: Mutex<Target>,
    opener: u32,
    append: bool,
    killed: AtomicBool,
}

/// Where the bytes of a write go.
#[derive(Clone)]
pub(super) enum Target {
    Staged(Arc<StagedFile>),
    /// Nothing was changed yet, and these bytes must stay as they are.
    Unchanged(Source),
    /// The handle is gone; an operation that was given up may still be working for it.
    Closed,
}

/// What sends the bytes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrittenBy {
    /// A program, by its descriptor.
    Descriptor,
    /// The kernel, from pages that a program changed by mapping the file. It takes any handle that
    /// it has: also one that appends, which these bytes do not.
    Pages,
}

impl WriteHandle {
    /// The offset of a write, or `None` for the end of the file.
    fn place(&self, offset: u64, by: WrittenBy) -> Option<u64> {
        (!self.append || by == WrittenBy::Pages).then_some(offset)
    }

    pub(super) fn target(&self) -> Target {
        lock(&self.target).clone()
    }

    pub(super) fn staged(&self) -> Option<Arc<StagedFile>> {
        match self.target() {
            Target::Staged(file) => Some(file),
            Target::Unchanged(_) | Target::Closed => None,
        }
    }

    /// The staged file if it can be written to now. One that was submitted meanwhile becomes the
    /// version to copy from.
    pub(super) fn to_change(&self) -> Option<Arc<StagedFile>> {
        let mut target = lock(&self.target);
        let Target::Staged(file) = &*target else {
            return None;
        };
        let file = Arc::clone(file);
        if accepts_writes(&file) {
            return Some(file);
        }
        *target = Target::Unchanged(Source::Local(LocalBytes::Staged(file)));
        None
    }
}

impl LibraryFs {
    /// Creates a file, or opens the one that is there.
    pub fn create(
        self: &Arc<Self>,
        parent: u64,
        name: &OsStr,
        mode: u32,
        how: OpenMode,
        done: Done<(Attr, Opened)>,
    ) {
        let made = self.library_of(parent).and_then(|library| {
            let name = self.name_to_write(library, name)?;
            let here = self.catalog.lock().tree.lookup(library, &name);
            match here {
                Some(_) if how.exclusive => Err(FsError::Exists),
                Some(ino) => Ok((ino, None)),
                None => {
                    let file = self.new_staged(library, &name, mode)?;
                    self.stand(&file);
                    Ok((file.ino(), Some(file)))
                }
            }
        });
        let fs = Arc::clone(self);
        match made {
            Err(error) => done(Err(error)),
            Ok((ino, Some(file))) => {
                let opened = self.open_staged(ino, file, how);
                let attr = self.known_attr(ino).ok_or(FsError::NotFound);
                done(attr.map(|attr| (attr, opened)));
            }
            Ok((ino, None)) => self.open_to_write(
                ino,
                how,
                Box::new(move |opened| match opened {
                    Err(error) => done(Err(error)),
                    Ok(opened) => {
                        let closing = Arc::clone(&fs);
                        let with_attr: Done<Attr> = Box::new(move |attr| {
                            if attr.is_err() {
                                closing.release(opened.fh);
                            }
                            done(attr.map(|attr| (attr, opened)));
                        });
                        fs.getattr(ino, with_attr);
                    }
                }),
            ),
        }
    }

    /// Opens a file for writing (and reading). Copies nothing before the first change.
    pub fn open_to_write(self: &Arc<Self>, ino: u64, how: OpenMode, done: Done<Opened>) {
        let writable = self.refuse_outdated(ino).and_then(|()| self.writable(ino));
        let (library, name, is_asset) = match writable {
            Ok(file) => file,
            Err(error) => return done(Err(error)),
        };
        // What another handle writes under this number is the file's content for this one too.
        let being_written = match is_asset {
            true => self.version_of(ino),
            false => self.staged_file(ino).filter(|file| accepts_writes(file)),
        };
        if let Some(file) = being_written {
            let emptied = match how.truncate {
                true => file.truncate(0),
                false => Ok(()),
            };
            let opened = emptied.map(|()| match is_asset {
                true => self.open_over(ino, Target::Staged(file), how),
                false => self.open_staged(ino, file, how),
            });
            return done(opened.map_err(FsError::from));
        }
        if how.truncate {
            let mode = self.known_attr(ino).map_or(attr::FILE_MODE, |a| a.mode);
            let version = self.new_staged(library, &name, mode.into());
            return done(version.map(|file| {
                self.show_version(ino, &file);
                self.open_over(ino, Target::Staged(file), how)
            }));
        }
        let fs = Arc::clone(self);
        self.open_to_read(
            ino,
            Box::new(move |opened| {
                done(opened.and_then(|opened| fs.reopen_to_write(ino, opened, how)));
            }),
        );
    }

    /// Writes all of `data`, at `offset` or, for an appending handle, at the end. `by` says whether
    /// the handle counts.
    pub fn write(
        self: &Arc<Self>,
        fh: u64,
        offset: u64,
        data: &[u8],
        by: WrittenBy,
        done: Done<u32>,
    ) {
        let Some(handle) = self.files.get(fh) else {
            return done(Err(FsError::BadHandle));
        };
        let Some(writing) = handle.writing() else {
            return done(Err(FsError::BadHandle));
        };
        if let Some(file) = writing.to_change() {
            return done(put(&file, writing.place(offset, by), data));
        }
        let data = Bytes::copy_from_slice(data);
        let writer = Arc::clone(&handle);
        self.copy_up(
            handle,
            u64::MAX,
            Box::new(move |copied| {
                done(copied.and_then(|()| {
                    let writing = writer.writing().ok_or(FsError::BadHandle)?;
                    let file = writing.staged().ok_or(FsError::BadHandle)?;
                    put(&file, writing.place(offset, by), &data)
                }));
            }),
        );
    }

    /// A descriptor is closed. Where that finishes the file, answers when the upload has ended (at
    /// once under write-back) and with its error.
    pub fn flush(self: &Arc<Self>, fh: u64, closer: Closer, done: Done<()>) {
        let Some(handle) = self.files.get(fh) else {
            return done(Err(FsError::BadHandle));
        };
        let Some((writing, file)) = handle.writing().and_then(|w| Some((w, w.staged()?))) else {
            return done(Ok(()));
        };
        if closer.process != writing.opener || !file.is_dirty() {
            return done(Ok(()));
        }
        if closer.killed {
            writing.killed.store(true, Ordering::Release);
            log::warn!(
                "{}/{}: not uploaded, because the program that wrote it was killed; write it \
                 again, or remove it",
                file.library(),
                file.name()
            );
            return done(Ok(()));
        }
        match file.ino() == writing.ino {
            true => self.submit(&file, done),
            false => self.submit(&file, self.catalog.after_told(done)),
        }
    }

    /// The last descriptor of a handle is closed.
    pub fn release(self: &Arc<Self>, fh: u64) {
        let Some(handle) = self.remove(fh) else {
            return;
        };
        match &*handle {
            FileHandle::Asset {
                ino,
                revision,
                progress,
            } => {
                self.asset_closed(revision);
                self.note_close(*ino, revision.file.size_bytes(), progress);
            }
            FileHandle::Local { .. } => {}
            FileHandle::Write(writing) => self.release_writer(writing),
        }
    }

    /// Puts a file's bytes on the local disk for good.
    pub fn fsync(&self, fh: u64) -> Result<(), FsError> {
        let handle = self.files.get(fh).ok_or(FsError::BadHandle)?;
        match handle.writing().and_then(WriteHandle::staged) {
            Some(file) => Ok(file.sync()?),
            None => Ok(()),
        }
    }

    /// Makes room on the local disk for a file that is being written.
    pub fn fallocate(&self, fh: u64, offset: u64, len: u64, mode: i32) -> Result<(), FsError> {
        let size = match mode {
            0 => Allocate::Grow,
            libc::FALLOC_FL_KEEP_SIZE => Allocate::KeepSize,
            _ => return Err(FsError::NotSupported),
        };
        let handle = self.files.get(fh).ok_or(FsError::BadHandle)?;
        let writing = handle.writing().ok_or(FsError::BadHandle)?;
        match writing.to_change() {
            Some(file) => Ok(file.allocate(offset, len, size)?),
            None => Err(FsError::NotSupported),
        }
    }

    /// Hands a whole file to the uploads and answers when they are done with it.
    pub(super) fn submit(self: &Arc<Self>, file: &Arc<StagedFile>, done: Done<()>) {
        match self.uploads() {
            Ok(uploads) => {
                let sent = Box::new(move |sent: Result<(), _>| done(sent.map_err(FsError::from)));
                uploads.submit(file, Some(sent));
            }
            Err(error) => done(Err(error)),
        }
    }

    /// Hands a whole file to the uploads when nobody is left to hear of a failure: it is tried
    /// until the service takes it or refuses it.
    pub(super) fn submit_unattended(&self, file: &Arc<StagedFile>) {
        match self.uploads() {
            Ok(uploads) => uploads.submit(file, None),
            Err(error) => log::error!("{}: not uploaded: {error}", file.name()),
        }
    }

    pub(super) fn uploads(&self) -> Result<&Arc<Uploads>, FsError> {
        self.uploads.get().ok_or(FsError::ReadOnly)
    }

    /// A new empty file that does not stand in its directory yet.
    pub(super) fn new_staged(
        &self,
        library: Library,
        name: &str,
        mode: u32,
    ) -> Result<Arc<StagedFile>, FsError> {
        let identity = uuid::Uuid::new_v4().to_string();
        let ino = self.catalog.lock().tree.free_ino(&identity);
        Ok(self.uploads()?.create(library, name, ino, mode & 0o777)?)
    }

    /// Puts a staged file in its directory, above every asset of its name.
    pub(super) fn stand(&self, file: &Arc<StagedFile>) {
        lock(&self.staged).insert(file.ino(), Arc::clone(file));
        let node = LocalNode {
            library: file.library(),
            name: file.name(),
            sequence: self.next_sequence(),
        };
        let library = node.library;
        let changes = self.catalog.lock().tree.add_local(file.ino(), node);
        self.catalog.announce(library, changes);
    }

    /// Puts a new version of `ino` in its directory and shows it under that number too.
    pub(super) fn show_version(&self, ino: u64, file: &Arc<StagedFile>) {
        lock(&self.overlays).insert(ino, Arc::clone(file));
        self.stand(file);
    }

    /// The new version that is being written under the number of an asset.
    pub(super) fn version_of(&self, ino: u64) -> Option<Arc<StagedFile>> {
        let version = lock(&self.overlays).get(&ino).cloned();
        version.filter(|file| accepts_writes(file))
    }

    /// Shows `ino` as it is again, unless a newer version than `file` is being written.
    pub(super) fn hide_version(&self, ino: u64, file: &Arc<StagedFile>) {
        let mut overlays = lock(&self.overlays);
        if overlays
            .get(&ino)
            .is_some_and(|shown| Arc::ptr_eq(shown, file))
        {
            overlays.remove(&ino);
            drop(overlays);
            self.forget_data(ino);
        }
    }

    /// A new version left the place of its asset, which shows as it is again.
    pub(super) fn part_version(&self, file: &Arc<StagedFile>) {
        let shown: Vec<u64> = {
            let overlays = lock(&self.overlays);
            let of_file = overlays
                .iter()
                .filter(|(_, other)| Arc::ptr_eq(other, file));
            of_file.map(|(ino, _)| *ino).collect()
        };
        for ino in shown {
            self.hide_version(ino, file);
        }
    }

    /// Whether `process` opened the file for writing and has not closed it.
    pub(super) fn is_writer(&self, ino: u64, process: u32) -> bool {
        self.files.any(|handle| {
            let writing = handle.writing().filter(|writing| writing.ino == ino);
            writing.is_some_and(|writing| writing.opener == process)
        })
    }

    /// Whether a handle on `ino` writes to `file`.
    fn is_written_under(&self, ino: u64, file: &Arc<StagedFile>) -> bool {
        self.files.any(|handle| {
            let writing = handle.writing().filter(|writing| writing.ino == ino);
            let open = writing.and_then(WriteHandle::staged);
            open.is_some_and(|open| Arc::ptr_eq(&open, file))
        })
    }

    /// Removes a staged file that nobody will miss.
    pub(super) fn discard(&self, file: &Arc<StagedFile>) {
        if let Ok(uploads) = self.uploads()
            && let Err(error) = uploads.remove(file)
        {
            log::warn!("cannot remove the staged file of {}: {error}", file.name());
        }
    }

    pub(super) fn is_open_for_writing(&self, file: &Arc<StagedFile>) -> bool {
        self.files.any(|handle| {
            let open = handle.writing().and_then(WriteHandle::staged);
            open.is_some_and(|open| Arc::ptr_eq(&open, file))
        })
    }

    fn open_staged(&self, ino: u64, file: Arc<StagedFile>, how: OpenMode) -> Opened {
        let direct_io = self.is_written_elsewhere(ino);
        Opened {
            direct_io,
            keep_cache: !direct_io,
            ..self.open_over(ino, Target::Staged(file), how)
        }
    }

    fn open_over(&self, ino: u64, target: Target, how: OpenMode) -> Opened {
        let fh = self.insert(FileHandle::Write(WriteHandle {
            ino,
            target: Mutex::new(target),
            opener: how.opener,
            append: how.append,
            killed: AtomicBool::new(false),
        }));
        Opened {
            fh,
            keep_cache: false,
            // The number is the older version's, and so are its pages.
            direct_io: true,
            flushes: true,
        }
    }

    fn reopen_to_write(&self, ino: u64, reading: Opened, how: OpenMode) -> Result<Opened, FsError> {
        let handle = self.files.get(reading.fh).ok_or(FsError::BadHandle)?;
        let source = match &*handle {
            FileHandle::Asset { revision, .. } => Source::Remote(Arc::clone(revision)),
            FileHandle::Local { bytes, .. } => Source::Local(bytes.clone()),
            FileHandle::Write(_) => return Err(FsError::BadHandle),
        };
        let opened = self.open_over(ino, Target::Unchanged(source), how);
        // Only now, so that the number is open all the time.
        self.remove(reading.fh);
        Ok(opened)
    }

    fn release_writer(self: &Arc<Self>, writing: &WriteHandle) {
        let target = std::mem::replace(&mut *lock(&writing.target), Target::Closed);
        let file = match target {
            Target::Staged(file) => file,
            Target::Unchanged(Source::Remote(revision)) => return self.asset_closed(&revision),
            Target::Unchanged(Source::Local(_)) | Target::Closed => return,
        };
        if file.ino() != writing.ino && !self.is_written_under(writing.ino, &file) {
            self.hide_version(writing.ino, &file);
        }
        let killed = writing.killed.load(Ordering::Acquire);
        if file.is_dirty() && !killed && !self.is_open_for_writing(&file) {
            self.submit_unattended(&file);
        }
    }
}

fn put(file: &StagedFile, offset: Option<u64>, data: &[u8]) -> Result<u32, FsError> {
    let offset = offset.map_or_else(|| file.size_bytes(), Ok)?;
    file.write_at(data, offset)?;
    u32::try_from(data.len()).map_err(|_| FsError::Invalid("the write is too long"))
}

fn accepts_writes(file: &StagedFile) -> bool {
    match file.state() {
        UploadState::Open
        | UploadState::Local
        | UploadState::Queued
        | UploadState::Failed { .. } => true,
        UploadState::Sending { .. } | UploadState::Uploaded { .. } => false,
    }
}
