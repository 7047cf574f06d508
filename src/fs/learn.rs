//! Asking the asset host what the API doesn't say: one file at a time, or a whole directory at once
//! where a `stat` of each is to come. Whoever reads a directory mostly looks at its files next (`ls`
//! with colours, `ls -l`, file managers, rsync), so a directory that is listed because it is read is
//! asked about as its pages come.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::catalog::Learner;
use super::{FsError, LibraryFs, Ready, lock};
use crate::health::Label;
use crate::provider::Library;
use crate::reader::AssetKey;

/// A directory was read this recently: a `stat` of one of its files is one of many to come.
const READDIR_RECENT: Duration = Duration::from_secs(10);

impl LibraryFs {
    /// Asks the asset host what the API doesn't say of a file; where its directory was just read,
    /// of every file there, because a `stat` of each is to come.
    pub(super) fn learn(self: &Arc<Self>, ino: u64, ready: Ready) {
        let state = self.catalog.lock();
        let Some(node) = state.tree.asset(ino) else {
            drop(state);
            return ready(Err(FsError::NotFound));
        };
        if node.attributes_known() {
            // Learnt for another since the caller looked.
            drop(state);
            return ready(Ok(()));
        }
        let (key, library) = (node.key(), node.asset.library);
        drop(state);
        let (catalog, this) = (Arc::clone(&self.catalog), Arc::downgrade(self));
        let asked = key.clone();
        let health = Arc::clone(&self.about.health);
        self.reader.probe(
            key,
            Box::new(move |probed| {
                ready(match probed {
                    Ok(info) => {
                        catalog.learn(&asked, &info);
                        picture(&this, ino);
                        Ok(())
                    }
                    Err(error) => {
                        log::error!("{library}: the size of {} is unknown: {error}", asked.id);
                        let label = Label {
                            service: asked.service.name(),
                            kind: error.kind(),
                        };
                        let place = format_args!("the size of {} in {library}", asked.id);
                        health.trouble(label, &place, &error);
                        Err(error.into())
                    }
                });
            }),
        );
        self.learn_directory(library);
    }

    fn learn_directory(self: &Arc<Self>, library: Library) {
        if !self.was_read_lately(library) {
            return;
        }
        lock(&self.read_directories).remove(&library);
        let state = self.catalog.lock();
        let entries = state.tree.entries(library);
        let unknown: Vec<_> = entries
            .iter()
            .filter_map(|entry| state.tree.asset(entry.ino))
            .filter(|node| !node.attributes_known())
            .map(|node| node.key())
            .collect();
        drop(state);
        self.probe_all(unknown);
    }

    fn was_read_lately(&self, library: Library) -> bool {
        let read_at = lock(&self.read_directories).get(&library).copied();
        read_at.is_some_and(|at| self.catalog.now() < at + READDIR_RECENT)
    }

    /// Whether another asked meanwhile, and was answered.
    fn is_known(&self, key: &AssetKey) -> bool {
        let state = self.catalog.lock();
        let node = state.tree.ino_of(key).and_then(|ino| state.tree.asset(ino));
        node.is_some_and(|node| node.attributes_known())
    }

    fn probe_all(self: &Arc<Self>, keys: Vec<AssetKey>) {
        for key in keys {
            if self.is_known(&key) {
                continue;
            }
            let (catalog, this) = (Arc::clone(&self.catalog), Arc::downgrade(self));
            let asked = key.clone();
            self.reader.probe(
                key,
                Box::new(move |probed| {
                    let Ok(info) = probed else { return };
                    catalog.learn(&asked, &info);
                    // Without a number its listing is still to come, and is walked then.
                    let ino = catalog.lock().tree.ino_of(&asked);
                    if let Some(ino) = ino {
                        picture(&this, ino);
                    }
                }),
            );
        }
    }
}

/// Learns the sizes of a directory that is being read while its listing comes.
pub(super) struct EarlyLearner(pub Weak<LibraryFs>);

impl Learner for EarlyLearner {
    fn is_wanted(&self, library: Library) -> bool {
        let fs = self.0.upgrade();
        fs.is_some_and(|fs| fs.was_read_lately(library))
    }

    fn learn(&self, keys: Vec<AssetKey>) {
        if let Some(fs) = self.0.upgrade() {
            fs.probe_all(keys);
        }
    }
}

/// A probe may outlive the file system, and must not keep it.
fn picture(fs: &Weak<LibraryFs>, ino: u64) {
    if let Some(fs) = fs.upgrade() {
        fs.picture_file(ino);
    }
}
