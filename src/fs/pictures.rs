//! Offers what a directory shows to the desktop's thumbnail cache: when the directory was read, and
//! when what was missing of a file has been learnt. All of it on threads of the thumbnails' own, a
//! few files under one lock.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::catalog::State;
use super::{LibraryFs, lock, xattr};
use crate::provider::Library;
use crate::thumbnail::{Pass, Pictured, Thumbnails};
use crate::tree::{AssetNode, Node};

/// Files looked at under one lock.
const FILES_AT_ONCE: usize = 64;

/// Whom pictures are offered to, and how far each directory was.
pub(super) struct Pictures {
    thumbnails: Thumbnails,
    openings: Mutex<HashMap<Library, Opening>>,
}

/// The last opening of a directory.
#[derive(Default)]
struct Opening {
    /// What it may fetch.
    pass: Pass,
    is_walked: bool,
    /// The listing that was offered whole.
    offered: Option<Instant>,
}

impl LibraryFs {
    /// From here on directories that are read are offered to `thumbnails`.
    pub fn set_thumbnails(&self, thumbnails: Thumbnails) {
        let pictures = Pictures {
            thumbnails,
            openings: Mutex::default(),
        };
        if self.pictures.set(pictures).is_err() {
            log::debug!("there are thumbnails already");
        }
    }

    /// The time that `stat` shows. Where there are thumbnails, a service's is cut to its second: a
    /// thumbnail's time is whole seconds for GLib, while tumbler compares the fraction and would
    /// open the asset to make another. A user's time stays as it was given.
    pub(super) fn shown_mtime(&self, node: &AssetNode) -> Option<SystemTime> {
        let mtime = node.mtime()?;
        if self.pictures.get().is_none() || node.kept.mtime.is_some() {
            return Some(mtime);
        }
        let since = mtime.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(mtime - Duration::from_nanos(since.subsec_nanos().into()))
    }

    /// Offers every file of a directory, once for each listing of it.
    pub(super) fn picture_directory(self: &Arc<Self>, library: Library) {
        let Some(pictures) = self.pictures.get() else {
            return;
        };
        let listed_at = self.catalog.lock().tree.listed_at(library);
        let pass = Pass::default();
        {
            let mut openings = lock(&pictures.openings);
            let opening = openings.entry(library).or_default();
            let is_offered = opening.offered.is_some() && opening.offered == listed_at;
            if opening.is_walked || is_offered {
                return;
            }
            opening.is_walked = true;
            opening.pass = pass.clone();
        }
        let this = Arc::downgrade(self);
        pictures.thumbnails.walk(move || {
            let Some(fs) = this.upgrade() else {
                return;
            };
            let entries = fs.catalog.lock().tree.entries(library);
            drop(fs);
            for entries in entries.chunks(FILES_AT_ONCE) {
                let Some(fs) = this.upgrade().filter(|_| !pass.is_spent()) else {
                    break;
                };
                fs.offer_pictures(entries.iter().map(|entry| entry.ino), &pass);
            }
            if let Some(fs) = this.upgrade() {
                fs.end_walk(library, listed_at.filter(|_| !pass.is_spent()));
            }
        });
    }

    /// Offers a file whose size and time have just become known, if its directory was opened.
    pub(super) fn picture_file(self: &Arc<Self>, ino: u64) {
        let Some(pictures) = self.pictures.get() else {
            return;
        };
        let Some(library) = self.catalog.lock().tree.node(ino).map(Node::library) else {
            return;
        };
        let pass = lock(&pictures.openings)
            .get(&library)
            .map(|o| o.pass.clone());
        let Some(pass) = pass.filter(|pass| !pass.is_spent()) else {
            return;
        };
        let this = Arc::downgrade(self);
        pictures.thumbnails.walk(move || {
            if let Some(fs) = this.upgrade() {
                fs.offer_pictures([ino], &pass);
            }
        });
    }

    fn offer_pictures(&self, numbers: impl IntoIterator<Item = u64>, pass: &Pass) {
        let Some(pictures) = self.pictures.get() else {
            return;
        };
        let written = lock(&self.overlays).clone();
        let state = self.catalog.lock();
        let numbers = numbers.into_iter().filter(|ino| !written.contains_key(ino));
        let files: Vec<Pictured> = numbers.filter_map(|ino| pictured(&state, ino)).collect();
        drop(state);
        for file in files {
            pictures.thumbnails.offer(file, pass);
        }
    }

    /// `offered` is the listing that was offered whole, if it was.
    fn end_walk(&self, library: Library, offered: Option<Instant>) {
        if let Some(pictures) = self.pictures.get() {
            let mut openings = lock(&pictures.openings);
            let opening = openings.entry(library).or_default();
            opening.is_walked = false;
            opening.offered = offered;
        }
    }
}

/// The file as it stands in its directory, where its size and time are known and it has a preview.
fn pictured(state: &State, ino: u64) -> Option<Pictured> {
    let node = state.tree.asset(ino)?;
    let details = node.asset.details.as_ref();
    let details = details.filter(|details| details.preview.is_some())?;
    let name = state.tree.name_of(ino)?;
    Some(Pictured {
        path: Path::new(&node.asset.library.to_string()).join(name),
        mtime: node.mtime()?,
        size_bytes: node.size_bytes()?,
        mime_type: xattr::mime_type(node),
        details: Arc::clone(details),
    })
}
