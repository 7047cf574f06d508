//! Opening for reading, reading and closing.

use std::sync::Arc;

use bytes::Bytes;

use super::ahead::Progress;
use super::local::LocalBytes;
use super::revision::{Claim, Found, Revision};
use super::write::{Target, WriteHandle};
use super::{Done, FsError, LibraryFs, Place};
use crate::health::Label;
use crate::reader::{AssetKey, ObjectInfo, ReadError};
use crate::tree::{AssetNode, Node};

/// An open file.
pub(super) enum FileHandle {
    /// Reads an asset from its host.
    Asset {
        ino: u64,
        revision: Arc<Revision>,
        progress: Progress,
    },
    /// Reads what this machine has.
    Local {
        ino: u64,
        bytes: LocalBytes,
    },
    Write(WriteHandle),
}

impl FileHandle {
    /// The number the kernel opened.
    fn ino(&self) -> u64 {
        match self {
            FileHandle::Asset { ino, .. } | FileHandle::Local { ino, .. } => *ino,
            FileHandle::Write(writing) => writing.ino,
        }
    }
}

/// The answer to an open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    pub fh: u64,
    /// The kernel's pages of this file are of these bytes.
    pub keep_cache: bool,
    /// The kernel's pages of this file are not for this handle.
    pub direct_io: bool,
    /// A close must be told to us.
    pub flushes: bool,
}

impl Opened {
    fn for_reading(fh: u64, keep_cache: bool) -> Self {
        Self {
            fh,
            keep_cache,
            direct_io: false,
            flushes: false,
        }
    }
}

impl LibraryFs {
    /// Opens a file for reading. Asks nobody, but where the API's word about the asset changed
    /// since its pages were cached: then the asset host says first whether the bytes did.
    pub fn open_to_read(self: &Arc<Self>, ino: u64, done: Done<Opened>) {
        match self.place(ino) {
            Some(Place::File) => {}
            Some(Place::ControlFile(file)) => return done(self.open_control(file)),
            Some(_) => return done(Err(FsError::IsDirectory)),
            None => return done(Err(FsError::NotFound)),
        }
        self.open_file(ino, done);
        self.fetch_next_files(ino);
    }

    fn open_file(self: &Arc<Self>, ino: u64, done: Done<Opened>) {
        if let Err(error) = self.refuse_outdated(ino) {
            return done(Err(error));
        }
        if let Some(bytes) = self.local_bytes(ino) {
            return done(self.opened_local(ino, bytes));
        }
        let Some((key, claim)) = self.claim(ino) else {
            let fs = Arc::clone(self);
            return self.learn(
                ino,
                Box::new(move |learned| match (learned, fs.claim(ino)) {
                    (Ok(()), Some((key, claim))) => fs.open_asset(ino, key, claim, done),
                    (Ok(()), None) => done(Err(FsError::NotFound)),
                    (Err(error), _) => done(Err(error)),
                }),
            );
        };
        self.open_asset(ino, key, claim, done);
    }

    /// Nothing is opened by an older revision's number: at ESTALE the kernel looks the name up again,
    /// unseen, and opens what stands there.
    pub(super) fn refuse_outdated(&self, ino: u64) -> Result<(), FsError> {
        match self.catalog.lock().tree.is_outdated(ino) {
            true => Err(FsError::Stale),
            false => Ok(()),
        }
    }

    /// Reads `len` bytes at `offset`, fewer only at the end of the file.
    pub fn read(self: &Arc<Self>, fh: u64, offset: u64, len: u32, done: Done<Bytes>) {
        let Some(handle) = self.files.get(fh) else {
            return done(Err(FsError::BadHandle));
        };
        match &*handle {
            FileHandle::Asset {
                ino,
                revision,
                progress,
            } => {
                for end in progress.on_read(offset, len).into_iter().flatten() {
                    // Refused where much is under way: it is fetched when it is read.
                    self.reader.prefetch(&revision.file, end);
                }
                self.read_asset(*ino, Arc::clone(revision), offset, len, done);
            }
            FileHandle::Local { bytes, .. } => done(bytes.read(offset, len)),
            FileHandle::Write(writing) => match writing.target() {
                Target::Staged(file) => done(LocalBytes::Staged(file).read(offset, len)),
                Target::Unchanged(source) => {
                    self.read_source(writing.ino, &source, offset, len, done);
                }
                Target::Closed => done(Err(FsError::BadHandle)),
            },
        }
    }

    pub(super) fn read_asset(
        self: &Arc<Self>,
        ino: u64,
        revision: Arc<Revision>,
        offset: u64,
        len: u32,
        done: Done<Bytes>,
    ) {
        if revision.is_superseded() {
            return done(Err(FsError::Stale));
        }
        if let Some(error) = revision.failure.lately(offset, self.catalog.now()) {
            return done(Err(error));
        }
        let fs = Arc::clone(self);
        let file = Arc::clone(&revision.file);
        self.reader.read(
            &file,
            offset,
            len,
            Box::new(move |bytes| {
                done(match bytes {
                    // Superseded while the bytes were on their way: they must not get into the
                    // pages of the newer revision.
                    Ok(_) if revision.is_superseded() => Err(FsError::Stale),
                    Ok(bytes) => {
                        revision.served(bytes.len());
                        Ok(bytes)
                    }
                    Err(error) => {
                        let error = fs.read_failed(ino, &revision, error);
                        let bytes = offset..offset.saturating_add(u64::from(len));
                        revision
                            .failure
                            .note(bytes, fs.catalog.now(), error.clone());
                        Err(error)
                    }
                });
            }),
        );
    }

    fn read_failed(&self, ino: u64, revision: &Arc<Revision>, error: ReadError) -> FsError {
        let name = self.name_for_log(ino);
        log::error!("{name}: {error}");
        let label = Label {
            service: revision.file.key().service.name(),
            kind: error.kind(),
        };
        self.about.health.trouble(label, &name, &error);
        if let ReadError::Changed(info) = &error {
            self.supersede(ino, revision, info);
        }
        error.into()
    }

    /// The asset host has other bytes than `revision`: later opens get those.
    fn supersede(&self, ino: u64, revision: &Arc<Revision>, info: &ObjectInfo) {
        self.revisions.supersede(ino, revision);
        self.catalog.learn_revision(ino, revision.file.key(), info);
    }

    fn open_asset(self: &Arc<Self>, ino: u64, key: AssetKey, claim: Claim, done: Done<Opened>) {
        match self.revisions.find(ino, claim) {
            Found::Current(revision) => done(self.opened_asset(ino, revision)),
            Found::Unknown => done(self.open_new_revision(ino, key, claim)),
            Found::Suspect(revision) => {
                let fs = Arc::clone(self);
                let asked = key.clone();
                self.reader.probe(
                    key,
                    Box::new(move |probed| match probed {
                        Ok(info) if revision.matches(&info) => {
                            revision.confirm(claim);
                            done(fs.opened_asset(ino, revision));
                        }
                        Ok(info) => {
                            fs.supersede(ino, &revision, &info);
                            let claim = Claim {
                                size_bytes: info.size_bytes,
                                ..claim
                            };
                            done(fs.open_new_revision(ino, asked, claim));
                        }
                        Err(error) => done(Err(fs.read_failed(ino, &revision, error))),
                    }),
                );
            }
        }
    }

    fn open_new_revision(&self, ino: u64, key: AssetKey, claim: Claim) -> Result<Opened, FsError> {
        let revision = self.new_revision(ino, key, claim);
        self.opened_asset(ino, revision)
    }

    pub(super) fn new_revision(&self, ino: u64, key: AssetKey, claim: Claim) -> Arc<Revision> {
        let known_etag = self.catalog.lock().tree.asset(ino).and_then(|node| {
            let info = node.learned.as_ref()?;
            info.etag.clone()
        });
        let file = self.reader.remote_file(key, claim.size_bytes, known_etag);
        self.revisions.install(ino, claim, file)
    }

    fn opened_asset(&self, ino: u64, revision: Arc<Revision>) -> Result<Opened, FsError> {
        let size_bytes = revision.file.size_bytes();
        let keep_cache = revision.opened();
        let handle = FileHandle::of_asset(self, ino, Arc::clone(&revision));
        let fh = self.insert(handle);
        // Only now that the handle is counted does its number keep its size, and only now does
        // every other opening see it.
        let is_current = self.is_as_opened(ino, size_bytes) && !revision.is_superseded();
        let is_shared = self.is_open_with_other_bytes(ino, &revision);
        if is_current && !is_shared {
            return Ok(Opened::for_reading(fh, keep_cache));
        }
        if is_shared {
            self.catalog.renumber(ino);
        }
        self.remove(fh);
        self.asset_closed(&revision);
        Err(FsError::Stale)
    }

    fn opened_local(&self, ino: u64, bytes: LocalBytes) -> Result<Opened, FsError> {
        let is_asset = self.catalog.lock().tree.asset(ino).is_some();
        let size_bytes = bytes.size_bytes()?;
        let fh = self.insert(FileHandle::Local { ino, bytes });
        if is_asset && !self.is_as_opened(ino, size_bytes) {
            self.remove(fh);
            return Err(FsError::Stale);
        }
        // What is written by another number never reaches the pages of this one.
        let direct_io = self.is_written_elsewhere(ino);
        Ok(Opened {
            direct_io,
            ..Opened::for_reading(fh, !direct_io)
        })
    }

    /// Whether this is still the asset's number, and its size the one that was opened; also where
    /// the size is unknown: what was learnt of an empty one does not stand for long.
    fn is_as_opened(&self, ino: u64, size_bytes: u64) -> bool {
        let state = self.catalog.lock();
        let shown = state.tree.asset(ino).and_then(AssetNode::size_bytes);
        !state.tree.is_outdated(ino) && shown.is_none_or(|shown| shown == size_bytes)
    }

    /// Whether a descriptor has this number for other bytes than `revision`. The kernel's pages are
    /// of one of them: the newer ones get a number of their own.
    fn is_open_with_other_bytes(&self, ino: u64, revision: &Arc<Revision>) -> bool {
        let is_revised = {
            let state = self.catalog.lock();
            state.tree.asset(ino).is_some_and(|node| node.is_revised)
        };
        self.files.any(|handle| match handle {
            FileHandle::Asset {
                ino: other,
                revision: opened,
                ..
            } => *other == ino && !Arc::ptr_eq(opened, revision),
            FileHandle::Local { ino: other, .. } => *other == ino && is_revised,
            FileHandle::Write(_) => false,
        })
    }

    /// Opens a handle: from here on the size by its number stays what it is.
    pub(super) fn insert(&self, handle: FileHandle) -> u64 {
        let ino = handle.ino();
        let fh = self.files.insert(handle);
        self.catalog.lock().tree.opened(ino);
        fh
    }

    /// Closes a handle.
    pub(super) fn remove(&self, fh: u64) -> Option<Arc<FileHandle>> {
        let handle = self.files.remove(fh)?;
        self.catalog.lock().tree.closed(handle.ino());
        Some(handle)
    }

    pub(super) fn asset_closed(&self, revision: &Arc<Revision>) {
        if revision.closed() {
            self.reader.close(&revision.file);
        }
    }

    /// What the tree says the bytes are, once the size is known.
    pub(super) fn claim(&self, ino: u64) -> Option<(AssetKey, Claim)> {
        let state = self.catalog.lock();
        let node = state.tree.asset(ino)?;
        let claim = Claim {
            size_bytes: node.size_bytes()?,
            updated_at: node.asset.updated_at,
        };
        Some((node.key(), claim))
    }

    /// The file's bytes on this machine: staged, or kept since it was uploaded from here.
    pub(super) fn local_bytes(&self, ino: u64) -> Option<LocalBytes> {
        let state = self.catalog.lock();
        let (id, told) = match state.tree.node(ino)? {
            Node::Local(_) => {
                drop(state);
                return self.staged_file(ino).map(LocalBytes::Staged);
            }
            Node::Asset(node) if node.is_revised => return None,
            Node::Asset(node) => (node.asset.id.clone(), node.size_bytes()),
        };
        drop(state);
        let kept = self.uploads.get()?.local_copy(&id)?;
        let kept = LocalBytes::Kept(Arc::new(kept));
        let is_same = told.is_none_or(|told| kept.size_bytes() == Ok(told));
        is_same.then_some(kept)
    }

    pub(super) fn name_for_log(&self, ino: u64) -> String {
        let state = self.catalog.lock();
        let library = state.tree.node(ino).map(Node::library);
        match (library, state.tree.name_of(ino)) {
            (Some(library), Some(name)) => format!("{library}/{name}"),
            (Some(library), None) => format!("{library}: a file that left its directory"),
            (None, _) => "a file that is gone".to_string(),
        }
    }
}
