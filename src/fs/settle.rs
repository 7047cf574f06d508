//! What the uploads tell and ask: a staged file that became an asset takes its place in the tree.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, Weak};

use sha2::{Digest as _, Sha256};

use super::copy_up::PIECE_BYTES;
use super::{FsError, LibraryFs, SetAttr, kept_from, lock};
use crate::health::Label;
use crate::provider::{Asset, AssetId, Library, Service};
use crate::reader::AssetKey;
use crate::store::{AssetMeta, Digest};
use crate::tree::{Kept, Node};
use crate::upload::{StagedFile, UploadError, UploadEvents, same_name};

/// Stands between the uploads, which are opened first and may finish one at once, and the file
/// system, which needs them: what happens before [`UploadRelay::connect`] is kept and told then.
#[derive(Default)]
pub struct UploadRelay {
    state: Mutex<Relay>,
}

#[derive(Default)]
struct Relay {
    fs: Weak<LibraryFs>,
    early: Vec<(Arc<StagedFile>, Asset)>,
}

impl UploadRelay {
    /// Tells `fs` from now on, and of what happened before.
    pub fn connect(&self, fs: &Arc<LibraryFs>) {
        let early = {
            let mut state = lock(&self.state);
            state.fs = Arc::downgrade(fs);
            std::mem::take(&mut state.early)
        };
        for (file, asset) in early {
            fs.settle(&file, &asset);
        }
    }

    fn fs(&self) -> Option<Arc<LibraryFs>> {
        lock(&self.state).fs.upgrade()
    }
}

impl UploadEvents for UploadRelay {
    fn uploaded(&self, file: &Arc<StagedFile>, asset: &Asset) {
        let fs = {
            let mut state = lock(&self.state);
            let fs = state.fs.upgrade();
            if fs.is_none() {
                state.early.push((Arc::clone(file), asset.clone()));
            }
            fs
        };
        if let Some(fs) = fs {
            fs.settle(file, asset);
            fs.tell_watcher(file, Ok(()));
        }
    }

    /// The uploads log it, and the file stands where it stood.
    fn failed(&self, file: &Arc<StagedFile>, error: &UploadError) {
        if let Some(fs) = self.fs() {
            let label = Label {
                service: file.library().service().name(),
                kind: "upload_failed",
            };
            let place = format_args!("{}/{} was not uploaded", file.library(), file.name());
            fs.about.health.trouble(label, &place, error);
            fs.tell_watcher(file, Err(error.clone().into()));
        }
    }

    fn newest_named(&self, library: Library, name: &str) -> Option<Asset> {
        let fs = self.fs()?;
        fs.list_once(library);
        fs.newest_named(library, name)
    }

    fn ids_named(&self, library: Library, name: &str) -> Option<Vec<AssetId>> {
        self.fs()?.ids_named(library, name)
    }

    fn digest_of(&self, asset: &Asset) -> Option<Digest> {
        self.fs()?.digest_of(asset)
    }
}

impl LibraryFs {
    fn tell_watcher(&self, file: &StagedFile, outcome: Result<(), FsError>) {
        let watcher = lock(&self.watched).remove(&file.id());
        if let Some(watcher) = watcher {
            // Gone, if its patience ended just now.
            let _ = watcher.try_send(outcome);
        }
    }

    /// The staged file is this asset now.
    fn settle(&self, file: &Arc<StagedFile>, asset: &Asset) {
        let meta = self.meta_of(file, asset);
        let kept = self.kept_for(file, asset, meta.as_ref());
        self.catalog.keep(asset.id.clone(), kept.clone());
        let now = self.catalog.now();
        let changes = {
            let mut state = self.catalog.lock();
            let kept = kept.clone();
            state.tree.promote(file.ino(), asset.clone(), kept, now)
        };
        let promoted = matches!(
            self.catalog.lock().tree.node(file.ino()),
            Some(Node::Asset(_))
        );
        if promoted {
            lock(&self.staged).remove(&file.ino());
        }
        self.catalog.announce(asset.library, changes);
        // Set since they were looked at, when there was no asset yet to show them.
        let set = self.meta_of(file, asset).map(|meta| SetAttr {
            mode: meta.mode.filter(|mode| Some(*mode) != kept.mode),
            mtime: meta.mtime.filter(|mtime| Some(*mtime) != kept.mtime),
            ..SetAttr::default()
        });
        let is_late = |set: &SetAttr| *set != SetAttr::default();
        if let Some((set, ino)) = set.filter(is_late).zip(self.asset_of(file))
            && let Err(error) = self.set_asset(ino, set)
        {
            log::warn!("{}: its times and mode are not kept: {error}", file.name());
        }
    }

    fn meta_of(&self, file: &StagedFile, asset: &Asset) -> Option<AssetMeta> {
        let meta = self
            .catalog
            .store()
            .asset_meta(Service::Runway, &asset.id)
            .inspect_err(|error| log::warn!("{}: its name and times: {error}", file.name()));
        meta.ok().flatten()
    }

    fn kept_for(&self, file: &StagedFile, asset: &Asset, meta: Option<&AssetMeta>) -> Kept {
        let known = meta.map(kept_from).unwrap_or_default();
        let mtime = file.times().ok().map(|times| times.mtime);
        Kept {
            ino: known.ino.or(Some(file.ino())),
            name: known.name.or_else(|| Some(file.name())),
            service_name: known.service_name.or_else(|| asset.name.clone()),
            mtime: known.mtime.or(mtime),
            mode: known.mode.or(Some(file.mode())),
            sequence: known.sequence.or_else(|| Some(self.next_sequence())),
            uploaded_at: Some(self.catalog.wall_now()),
            updated_at: known.updated_at.or(asset.updated_at),
        }
    }

    /// Waits for the first listing of a directory that nobody looked into yet, or for its failure:
    /// without it, bytes that the service has would be sent again.
    fn list_once(&self, library: Library) {
        if self.catalog.lock().tree.listed_at(library).is_some() {
            return;
        }
        let (send, listed) = mpsc::sync_channel(1);
        let ready = move |outcome| {
            let _ = send.send(outcome);
        };
        self.catalog.ensure_listed(library, Box::new(ready));
        // Dropped unanswered where the mount ends: as good as a failure.
        let _ = listed.recv();
    }

    /// The asset that would have this name if nothing local stood above it.
    fn newest_named(&self, library: Library, name: &str) -> Option<Asset> {
        let state = self.catalog.lock();
        let asset = state.tree.newest_asset_named(library, name)?;
        Some(asset.asset.clone())
    }

    fn digest_of(&self, asset: &Asset) -> Option<Digest> {
        let key = AssetKey {
            service: asset.library.service(),
            id: asset.id.clone(),
        };
        let size_bytes = asset.size_bytes?;
        let mut state = self.catalog.lock();
        state.compared.insert(key.clone(), asset.clone());
        drop(state);
        let file = self.reader.remote_file(key.clone(), size_bytes, None);
        let mut hasher = Sha256::new();
        let mut offset = 0;
        while offset < size_bytes {
            let (send, read) = mpsc::sync_channel(1);
            let done = Box::new(move |bytes| drop(send.send(bytes)));
            self.reader.read(&file, offset, PIECE_BYTES, done);
            let Ok(Ok(bytes)) = read.recv() else { break };
            hasher.update(&bytes);
            offset += bytes.len() as u64;
        }
        self.reader.close(&file);
        self.catalog.lock().compared.remove(&key);
        (offset == size_bytes).then(|| hasher.finalize().into())
    }

    fn ids_named(&self, library: Library, name: &str) -> Option<Vec<AssetId>> {
        let state = self.catalog.lock();
        state.tree.listed_at(library)?;
        // As the uploads will look for it: an older asset that goes by a like name must be known, or
        // it could be taken for the upload.
        let is_meant = |shown: &str| same_name(name, shown);
        Some(state.tree.ids_named(library, is_meant))
    }
}
