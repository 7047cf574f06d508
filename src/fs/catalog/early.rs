//! Sizes that are learnt while their listing is still under way: an API that tells no sizes tells
//! pages, and the asset host can be asked about the first page while the next ones come.
//!
//! Promise: nothing of it is shown before the listing is whole. What was learnt of an asset that the
//! whole listing then doesn't have, or of a listing that failed, is dropped.

use std::sync::Arc;

use super::super::memory;
use super::{Catalog, State};
use crate::provider::{Asset, Library, Service};
use crate::reader::{AssetKey, ObjectInfo};
use crate::tree::Changes;

/// Assets asked about ahead of their listing, at most: 40 pages of 50. The rest of a larger library
/// is learnt when its first file is looked at.
const MOST: usize = 2_000;

/// Asks the asset host about assets.
pub trait Learner: Send + Sync {
    /// Whether a `stat` of each of this directory's files is to come.
    fn is_wanted(&self, library: Library) -> bool;
    /// Asks, and tells [`Catalog::learn`]. Returns at once.
    fn learn(&self, keys: Vec<AssetKey>);
}

/// An asset of a listing that is under way, and what was learnt of it.
pub(super) struct Early {
    pub asset: Asset,
    pub info: Option<ObjectInfo>,
}

impl Catalog {
    /// Tells who learns sizes early; before this nobody does.
    pub fn set_learner(&self, learner: Arc<dyn Learner>) {
        let _ = self.learner.set(learner);
    }

    /// Some assets of a listing came.
    pub(super) fn note_arrival(&self, library: Library, assets: &[Asset]) {
        let Some(learner) = self.learner.get() else {
            return;
        };
        if !learner.is_wanted(library) {
            return;
        }
        let remembered = memory::objects(&self.store, assets);
        let unknown = assets.iter().filter(|asset| {
            let untold = asset.size_bytes.is_none() && asset.url.is_some();
            untold && !remembered.contains_key(&asset.id)
        });
        let unknown: Vec<&Asset> = unknown.collect();
        let keys = self.lock().take_early(&unknown);
        learner.learn(keys);
    }
}

impl State {
    /// Holds those that nothing is known of, so that the reader finds their URLs.
    fn take_early(&mut self, assets: &[&Asset]) -> Vec<AssetKey> {
        let mut keys = Vec::new();
        for &asset in assets.iter().take(MOST.saturating_sub(self.early.len())) {
            let key = AssetKey {
                service: asset.library.service(),
                id: asset.id.clone(),
            };
            let node = self.tree.ino_of(&key).and_then(|ino| self.tree.asset(ino));
            if node.is_some_and(|node| node.attributes_known()) || self.early.contains_key(&key) {
                continue;
            }
            let early = Early {
                asset: asset.clone(),
                info: None,
            };
            self.early.insert(key.clone(), early);
            keys.push(key);
        }
        keys
    }

    pub(super) fn learn_early(&mut self, key: &AssetKey, info: &ObjectInfo) {
        if let Some(early) = self.early.get_mut(key) {
            early.info = Some(info.clone());
        }
    }

    /// Gives what was learnt early to the assets of a listing that has ended; see [`State::learn`].
    pub(super) fn end_early(&mut self, library: Library, changes: &mut Changes) -> Option<Service> {
        let of_library = |_: &AssetKey, early: &mut Early| early.asset.library == library;
        let ended: Vec<_> = self.early.extract_if(of_library).collect();
        let mut begins = None;
        for (key, early) in ended {
            if let Some(info) = early.info
                && self.tree.ino_of(&key).is_some()
            {
                begins = begins.or(self.learn(&key, &info, changes));
            }
        }
        begins
    }
}
