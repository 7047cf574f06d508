//! Asking the asset host what the API doesn't say: one file at a time, or a whole directory at once
//! where a `stat` of each is to come.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{FsError, LibraryFs, Ready, lock};
use crate::health::Label;
use crate::provider::Library;

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
        let read_at = lock(&self.read_directories).remove(&library);
        if read_at.is_none_or(|at| self.catalog.now() >= at + READDIR_RECENT) {
            return;
        }
        let state = self.catalog.lock();
        let entries = state.tree.entries(library);
        let unknown: Vec<_> = entries
            .iter()
            .filter_map(|entry| Some((entry.ino, state.tree.asset(entry.ino)?)))
            .filter(|(_, node)| !node.attributes_known())
            .map(|(ino, node)| (ino, node.key()))
            .collect();
        drop(state);
        for (ino, key) in unknown {
            let (catalog, this) = (Arc::clone(&self.catalog), Arc::downgrade(self));
            let asked = key.clone();
            self.reader.probe(
                key,
                Box::new(move |probed| {
                    if let Ok(info) = probed {
                        catalog.learn(&asked, &info);
                        picture(&this, ino);
                    }
                }),
            );
        }
    }
}

/// A probe may outlive the file system, and must not keep it.
fn picture(fs: &Weak<LibraryFs>, ino: u64) {
    if let Some(fs) = fs.upgrade() {
        fs.picture_file(ino);
    }
}
