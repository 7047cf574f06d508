//! The first change to bytes that must stay as they are (an asset's, or ones that are being sent):
//! they are copied to staging, where they become the next version. Only what the change leaves is
//! copied: `truncate` to 0 copies nothing. The copy stands in its directory once it is complete.

use std::sync::Arc;

use bytes::Bytes;

use super::local::LocalBytes;
use super::read::FileHandle;
use super::revision::Revision;
use super::write::{Target, WriteHandle};
use super::{Done, FsError, LibraryFs, Ready, attr, lock};
use crate::provider::Library;
use crate::reader::AssetKey;
use crate::upload::{StagedFile, UploadState};

/// One piece of a copy: the largest read the kernel makes.
pub(super) const PIECE_BYTES: u32 = 1 << 20;

/// Where the bytes of the older version are.
#[derive(Clone)]
pub(super) enum Source {
    Remote(Arc<Revision>),
    Local(LocalBytes),
}

impl Source {
    fn size_bytes(&self) -> Result<u64, FsError> {
        match self {
            Source::Remote(revision) => Ok(revision.file.size_bytes()),
            Source::Local(bytes) => bytes.size_bytes(),
        }
    }
}

struct Copy {
    fs: Arc<LibraryFs>,
    handle: Arc<FileHandle>,
    ino: u64,
    library: Library,
    source: Source,
    file: Arc<StagedFile>,
    size_bytes: u64,
}

impl LibraryFs {
    /// Gives the handle a staged file with the first `limit_bytes` of what it was opened on. The
    /// kernel writes to one file by one request at a time, so no two copies meet.
    pub(super) fn copy_up(
        self: &Arc<Self>,
        handle: Arc<FileHandle>,
        limit_bytes: u64,
        ready: Ready,
    ) {
        let begun = handle
            .writing()
            .ok_or(FsError::BadHandle)
            .and_then(|writing| {
                let Target::Unchanged(source) = writing.target() else {
                    return Ok(None);
                };
                let (library, name) = self.place_of_next(writing.ino, &source)?;
                let version = self.version_of(writing.ino);
                let version = version.filter(|v| v.library() == library && v.name() == name);
                if let Some(version) = version {
                    self.join_version(writing, &source, version);
                    return Ok(None);
                }
                let size_bytes = source.size_bytes()?.min(limit_bytes);
                let mode = self.mode_of_next(writing.ino, &source);
                let file = self.new_staged(library, &name, mode)?;
                Ok(Some(Copy {
                    fs: Arc::clone(self),
                    handle: Arc::clone(&handle),
                    ino: writing.ino,
                    library,
                    source,
                    file,
                    size_bytes,
                }))
            });
        match begun {
            Ok(Some(copy)) => copy.go_on(0, ready),
            Ok(None) => ready(Ok(())),
            Err(error) => ready(Err(error)),
        }
    }

    /// Where the version after `source` stands: where the handle's own last version is, else where
    /// the file is that was opened.
    fn place_of_next(&self, ino: u64, source: &Source) -> Result<(Library, String), FsError> {
        let Source::Local(LocalBytes::Staged(last)) = source else {
            let (library, name, _) = self.writable(ino)?;
            return Ok((library, name));
        };
        let stands = self.number_of(last).is_some();
        let place = (last.library(), last.name());
        stands.then_some(place).ok_or(FsError::Stale)
    }

    /// Permission bits of the version after `source`: what they are now, not when it was opened.
    fn mode_of_next(&self, ino: u64, source: &Source) -> u32 {
        if let Source::Local(LocalBytes::Staged(last)) = source {
            let now = self
                .number_of(last)
                .and_then(|number| self.known_attr(number));
            return now.map_or_else(|| last.mode(), |attr| attr.mode.into());
        }
        let now = self.written_attr(ino).or_else(|| self.known_attr(ino));
        now.map_or(attr::FILE_MODE, |attr| attr.mode).into()
    }

    /// The number under which a staged file stands in its directory: its own, or that of the asset
    /// which has its bytes.
    pub(super) fn number_of(&self, file: &StagedFile) -> Option<u64> {
        let uploaded = file.state();
        let state = self.catalog.lock();
        let asset = match uploaded {
            UploadState::Uploaded { id } => state.tree.ino_of(&AssetKey {
                service: file.library().service(),
                id,
            }),
            _ => None,
        };
        let mut numbers = [Some(file.ino()), asset].into_iter().flatten();
        numbers.find(|number| state.tree.is_linked(*number))
    }

    /// As [`Self::number_of`], if an asset stands there.
    pub(super) fn asset_of(&self, file: &StagedFile) -> Option<u64> {
        let number = self.number_of(file)?;
        let state = self.catalog.lock();
        state.tree.asset(number).map(|_| number)
    }

    /// Another handle on this file made a new version first: this one writes to the same, as two
    /// descriptors of one file do.
    fn join_version(&self, writing: &WriteHandle, source: &Source, version: Arc<StagedFile>) {
        *lock(&writing.target) = Target::Staged(version);
        if let Source::Remote(revision) = source {
            self.asset_closed(revision);
        }
    }

    /// Reads from wherever the bytes are.
    pub(super) fn read_source(
        self: &Arc<Self>,
        ino: u64,
        source: &Source,
        offset: u64,
        len: u32,
        done: Done<Bytes>,
    ) {
        match source {
            Source::Local(bytes) => done(bytes.read(offset, len)),
            Source::Remote(revision) => {
                self.read_asset(ino, Arc::clone(revision), offset, len, done);
            }
        }
    }
}

impl Copy {
    /// Copies from `offset` on. Each piece is written on a worker: the thread that brings bytes
    /// from the network must not wait for the disk.
    fn go_on(self, offset: u64, ready: Ready) {
        if offset >= self.size_bytes {
            return self.finish(ready);
        }
        let len = (self.size_bytes - offset).min(PIECE_BYTES.into()) as u32;
        let fs = Arc::clone(&self.fs);
        let source = self.source.clone();
        let ino = self.ino;
        let store = move |bytes: Result<Bytes, FsError>| {
            let catalog = Arc::clone(self.fs.catalog());
            catalog.on_worker(self.library.service(), move |_| {
                let copied = bytes.and_then(|bytes| {
                    self.file.write_at(&bytes, offset)?;
                    Ok(bytes.len() as u64)
                });
                match copied {
                    Ok(0) => self.give_up(FsError::Io("the file ended early".to_string()), ready),
                    Ok(count) => self.go_on(offset + count, ready),
                    Err(error) => self.give_up(error, ready),
                }
            });
        };
        fs.read_source(ino, &source, offset, len, Box::new(store));
    }

    fn finish(self, ready: Ready) {
        let Some(writing) = self.handle.writing() else {
            return self.give_up(FsError::BadHandle, ready);
        };
        self.fs.show_version(self.ino, &self.file);
        {
            let mut target = lock(&writing.target);
            if matches!(*target, Target::Closed) {
                drop(target);
                return self.withdraw(ready);
            }
            *target = Target::Staged(Arc::clone(&self.file));
        }
        if let Source::Remote(revision) = &self.source {
            self.fs.asset_closed(revision);
        }
        ready(Ok(()));
    }

    /// The writer was killed while it waited for the copy, which nobody changed.
    fn withdraw(self, ready: Ready) {
        self.fs.hide_version(self.ino, &self.file);
        let removed = self.fs.remove_staged(self.file.ino());
        ready(removed.and(Err(FsError::BadHandle)));
    }

    fn give_up(self, error: FsError, ready: Ready) {
        log::error!(
            "{}: cannot be changed: {error}",
            self.fs.name_for_log(self.ino)
        );
        self.fs.discard(&self.file);
        ready(Err(error));
    }
}

impl FileHandle {
    pub(super) fn writing(&self) -> Option<&WriteHandle> {
        match self {
            FileHandle::Write(writing) => Some(writing),
            FileHandle::Asset { .. } | FileHandle::Local { .. } => None,
        }
    }
}
