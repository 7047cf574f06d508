//! Changing, renaming and removing what stands in a directory.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use super::write::OpenMode;
use super::{Attr, Done, FsError, LibraryFs, Place, Ready, control, lock};
use crate::provider::Service;
use crate::tree::{LocalNode, Node};
use crate::upload::{StagedFile, UploadState, is_local_name, same_name};

const NOT_DELETABLE: FsError =
    FsError::NotPermitted("assets are deleted only by a mount with --allow-delete");
const NOT_RENAMABLE: FsError =
    FsError::NotPermitted("assets are moved only by a mount with --allow-delete");

/// What `setattr` asks for; `None` leaves a thing as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub size_bytes: Option<u64>,
    pub mtime: Option<SystemTime>,
    /// Owner, group or access time were given; they are accepted and not kept.
    pub other: bool,
}

impl LibraryFs {
    /// Changes what the user may change. On directories this succeeds and changes nothing, because
    /// `rsync -a` and `cp -a` do it at their end and would fail otherwise.
    pub fn setattr(self: &Arc<Self>, ino: u64, fh: Option<u64>, set: SetAttr, done: Done<Attr>) {
        match self.place(ino) {
            None => return done(Err(FsError::NotFound)),
            Some(Place::File) => {}
            Some(Place::Control | Place::ControlFile(_)) => {
                return done(Err(control::UNCHANGEABLE));
            }
            Some(_) if set.size_bytes.is_some() => return done(Err(FsError::IsDirectory)),
            Some(_) => return self.getattr(ino, done),
        }
        let (fs, rest) = (
            Arc::clone(self),
            SetAttr {
                size_bytes: None,
                ..set
            },
        );
        let finish: Ready = Box::new(move |resized| {
            let set = resized.and_then(|()| fs.set_times_and_mode(ino, fh, rest));
            match set {
                Ok(()) => fs.getattr(ino, done),
                Err(error) => done(Err(error)),
            }
        });
        match set.size_bytes {
            Some(size_bytes) => self.resize(ino, fh, size_bytes, finish),
            None => finish(Ok(())),
        }
    }

    /// Renames a file that only this machine has; one that gets a real name is uploaded. Waits for
    /// that for [`super::Options::rename_wait`] at most, because the kernel holds the directory.
    pub fn rename(
        self: &Arc<Self>,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        replace: bool,
        done: Done<()>,
    ) {
        let renamed = self.rename_now(from, to, replace);
        match renamed {
            Err(error) => done(Err(error)),
            Ok(None) => done(Ok(())),
            Ok(Some(file)) => self.submit_within(&file, self.options.rename_wait, done),
        }
    }

    /// Removes a file: at once where only this machine has it, at its service where that was
    /// allowed at mount.
    pub fn unlink(self: &Arc<Self>, parent: u64, name: &OsStr, done: Done<()>) {
        let found = self.library_of(parent).and_then(|library| {
            if !self.takes_files(library) {
                return Err(FsError::ReadOnly);
            }
            let name = name.to_str().ok_or(FsError::NotFound)?;
            let state = self.catalog.lock();
            let ino = state.tree.lookup(library, name).ok_or(FsError::NotFound)?;
            Ok((ino, matches!(state.tree.node(ino), Some(Node::Local(_)))))
        });
        match found {
            Err(error) => done(Err(error)),
            Ok((ino, true)) => done(self.remove_staged(ino)),
            Ok((ino, false)) if self.options.allow_delete => {
                if self.may_be_an_upload_under_way(ino) {
                    log::warn!(
                        "{}: not deleted now: it may be what is being uploaded",
                        self.name_for_log(ino)
                    );
                    return done(Err(FsError::Busy));
                }
                let fs = Arc::clone(self);
                self.catalog.delete(
                    ino,
                    Box::new(move |deleted| {
                        if deleted.is_ok() {
                            fs.revisions.forget(ino);
                        }
                        done(deleted);
                    }),
                );
            }
            Ok((ino, false)) => {
                log::warn!(
                    "{}: not deleted: mount with --allow-delete to delete assets at the service",
                    self.name_for_log(ino)
                );
                done(Err(NOT_DELETABLE));
            }
        }
    }

    /// Until the answer to an upload is there, a listing may show its asset beside the file, as what
    /// looks like another version. Whoever clears the directory (`rsync --delete`) must not take it.
    fn may_be_an_upload_under_way(&self, ino: u64) -> bool {
        let Some(asset) = self.catalog.lock().tree.asset(ino).map(|n| n.asset.clone()) else {
            return false;
        };
        let is_it = |file: &Arc<StagedFile>| {
            let is_sent = matches!(
                file.state(),
                UploadState::Queued | UploadState::Sending { .. }
            );
            let name = asset.name.as_deref().unwrap_or("");
            let size_bytes = asset.size_bytes;
            is_sent
                && file.library() == asset.library
                && same_name(&file.name(), name)
                && size_bytes.is_none_or(|size| file.size_bytes().is_ok_and(|own| own == size))
        };
        let uploads = self.uploads.get();
        uploads.is_some_and(|uploads| uploads.staged().iter().any(is_it))
    }

    fn resize(self: &Arc<Self>, ino: u64, fh: Option<u64>, size_bytes: u64, ready: Ready) {
        let Some(handle) = fh.and_then(|fh| self.files.get(fh)) else {
            return self.resize_by_path(ino, size_bytes, ready);
        };
        let Some(writing) = handle.writing() else {
            return ready(Err(FsError::BadHandle));
        };
        if let Some(file) = writing.to_change() {
            return ready(file.truncate(size_bytes).map_err(FsError::from));
        }
        let resizing = Arc::clone(&handle);
        self.copy_up(
            handle,
            size_bytes,
            Box::new(move |copied| {
                ready(copied.and_then(|()| {
                    let writing = resizing.writing().ok_or(FsError::BadHandle)?;
                    let file = writing.staged().ok_or(FsError::BadHandle)?;
                    Ok(file.truncate(size_bytes)?)
                }));
            }),
        );
    }

    /// `truncate(2)`: opens, resizes and closes in one.
    fn resize_by_path(self: &Arc<Self>, ino: u64, size_bytes: u64, ready: Ready) {
        // Its time stays, as on tmpfs.
        let is_so = |file: Arc<StagedFile>| {
            !file.is_broken() && file.size_bytes().is_ok_and(|size| size == size_bytes)
        };
        let here = self.version_of(ino).or_else(|| self.staged_file(ino));
        if here.is_some_and(is_so) {
            return ready(Ok(()));
        }
        let how = OpenMode {
            truncate: size_bytes == 0,
            append: false,
            exclusive: false,
            opener: 0,
        };
        let fs = Arc::clone(self);
        self.open_to_write(
            ino,
            how,
            Box::new(move |opened| match opened {
                Err(error) => ready(Err(error)),
                Ok(opened) => {
                    let closing = Arc::clone(&fs);
                    fs.resize(
                        ino,
                        Some(opened.fh),
                        size_bytes,
                        Box::new(move |resized| {
                            closing.release(opened.fh);
                            closing.catalog.after_told(ready)(resized);
                        }),
                    );
                }
            }),
        );
    }

    fn set_times_and_mode(&self, ino: u64, fh: Option<u64>, set: SetAttr) -> Result<(), FsError> {
        let by_handle = fh.and_then(|fh| self.files.get(fh));
        let by_handle = by_handle.and_then(|handle| handle.writing()?.staged());
        let written = by_handle.or_else(|| lock(&self.overlays).get(&ino).cloned());
        if let Some(file) = written {
            // An uploaded one is an asset, which other numbers show too.
            return match self.asset_of(&file) {
                Some(asset) => self.set_asset(asset, set),
                None => self.set_staged(&file, set),
            };
        }
        let state = self.catalog.lock();
        match state.tree.node(ino).ok_or(FsError::NotFound)? {
            Node::Local(_) => {
                drop(state);
                let file = self.staged_file(ino).ok_or(FsError::NotFound)?;
                self.set_staged(&file, set)
            }
            Node::Asset(node) if !self.takes_files(node.asset.library) => Err(FsError::ReadOnly),
            Node::Asset(_) => {
                drop(state);
                self.set_asset(ino, set)
            }
        }
    }

    fn set_staged(&self, file: &StagedFile, set: SetAttr) -> Result<(), FsError> {
        if let Some(mode) = set.mode {
            file.set_mode(mode)?;
        }
        if let Some(mtime) = set.mtime {
            file.set_times(None, Some(mtime))?;
        }
        // It may have become an asset meanwhile, with the times and mode of before.
        match self.asset_of(file) {
            Some(asset) => self.set_asset(asset, set),
            None => Ok(()),
        }
    }

    pub(super) fn set_asset(&self, ino: u64, set: SetAttr) -> Result<(), FsError> {
        let mut state = self.catalog.lock();
        if state.tree.is_outdated(ino) {
            return Err(FsError::Stale);
        }
        let node = state.tree.asset_mut(ino).ok_or(FsError::NotFound)?;
        node.kept.mtime = set.mtime.or(node.kept.mtime);
        node.kept.mode = set.mode.or(node.kept.mode);
        node.kept.ino = Some(ino);
        let (key, kept) = (node.key(), node.kept.clone());
        drop(state);
        self.catalog.keep(key.id.clone(), kept);
        let stored = self.catalog.store().set_asset_attributes(
            key.service,
            &key.id,
            ino,
            set.mtime,
            None,
            set.mode,
        );
        stored.map_err(|error| {
            log::error!("cannot keep the times and mode of {}: {error}", key.id);
            FsError::Io(error.to_string())
        })
    }

    fn rename_now(
        &self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        replace: bool,
    ) -> Result<Option<Arc<StagedFile>>, FsError> {
        let (from_library, to_library) = (self.library_of(from.0)?, self.library_of(to.0)?);
        if !self.takes_files(from_library) {
            return Err(FsError::ReadOnly);
        }
        let to_name = self.name_to_write(to_library, to.1)?;
        let from_name = from.1.to_str().ok_or(FsError::NotFound)?;
        let state = self.catalog.lock();
        let ino = state.tree.lookup(from_library, from_name);
        let ino = ino.ok_or(FsError::NotFound)?;
        let is_asset = matches!(state.tree.node(ino), Some(Node::Asset(_)));
        let there = state.tree.lookup(to_library, &to_name);
        let replaced = there.filter(|other| *other != ino);
        let replaces_local =
            replaced.filter(|other| matches!(state.tree.node(*other), Some(Node::Local(_))));
        drop(state);
        if is_asset {
            return Err(self.cannot_rename_asset(ino));
        }
        if there == Some(ino) {
            return Ok(None);
        }
        if replaced.is_some() && !replace {
            return Err(FsError::Exists);
        }
        let file = self.staged_file(ino).ok_or(FsError::NotFound)?;
        self.uploads()?.rename(&file, to_library, &to_name)?;
        if let Some(other) = replaces_local {
            match self.remove_staged(other) {
                // On its way or just arrived: it stays as the older asset of this name.
                Err(FsError::Busy) => {}
                removed => removed?,
            }
        }
        self.part_version(&file);
        let node = LocalNode {
            library: to_library,
            name: to_name.clone(),
            sequence: self.next_sequence(),
        };
        let mut changes = self.catalog.lock().tree.rename_local(ino, node);
        // The kernel moves these two names itself, under the lock that telling it would wait for.
        changes
            .names
            .retain(|name| name != from_name && *name != to_name);
        self.catalog.announce(to_library, changes);
        // One that was closed whole is sent although the kernel may not have released it yet.
        let is_whole = !file.is_dirty() || !self.is_open_for_writing(&file);
        let to_be_sent = !is_local_name(&to_name) && is_whole;
        Ok(to_be_sent.then_some(file))
    }

    fn cannot_rename_asset(&self, ino: u64) -> FsError {
        if self.options.allow_delete {
            // `mv` copies and deletes when it is told this.
            return FsError::CrossDevice;
        }
        log::warn!(
            "{}: not renamed: mount with --allow-delete to move assets at the service",
            self.name_for_log(ino)
        );
        NOT_RENAMABLE
    }

    pub(super) fn remove_staged(&self, ino: u64) -> Result<(), FsError> {
        let file = self.staged_file(ino).ok_or(FsError::NotFound)?;
        self.uploads()?.remove(&file)?;
        self.part_version(&file);
        let mut changes = self.catalog.lock().tree.remove_local(ino);
        // The kernel drops the name itself.
        changes.names.retain(|name| *name != file.name());
        self.catalog.announce(file.library(), changes);
        Ok(())
    }

    /// Submits `file` and answers with the outcome, or with success once `patience` is over: whoever
    /// renamed the file was told that it is safe, so it is tried for as long as it takes.
    fn submit_within(self: &Arc<Self>, file: &Arc<StagedFile>, patience: Duration, done: Done<()>) {
        // An empty file is kept aside: nothing is sent that could be waited for.
        let is_empty = file.size_bytes().is_ok_and(|size| size == 0);
        if patience.is_zero() || is_empty {
            self.submit_unattended(file);
            return done(Ok(()));
        }
        let (send, outcome) = mpsc::sync_channel(1);
        let id = file.id();
        lock(&self.watched).insert(id, send);
        self.submit_unattended(file);
        let fs = Arc::clone(self);
        self.catalog.on_worker(Service::Runway, move |_| {
            let outcome = outcome.recv_timeout(patience).unwrap_or(Ok(()));
            lock(&fs.watched).remove(&id);
            done(outcome);
        });
    }
}
