//! Runflow has no listing: its assets are found one by one, by id, and remembered across mounts.

use std::time::Duration;

use super::super::memory;
use super::{Catalog, Ready};
use crate::provider::{Asset, AssetId, Library, ProviderError, Service};
use crate::reader::AssetKey;
use crate::tree::{AssetNode, Changes, Kept};

impl Catalog {
    /// How much longer what the service said of one asset may be believed.
    pub fn seen_for(&self, node: &AssetNode) -> Duration {
        node.seen_at.map_or(Duration::ZERO, |at| {
            (at + self.listing_ttl).saturating_duration_since(self.now())
        })
    }

    /// Calls `ready` once the Runflow asset `id` is known as the service has it now.
    pub fn ensure_found(&self, id: AssetId, ready: Ready) {
        let mut state = self.lock();
        let key = AssetKey {
            service: Service::Runflow,
            id: id.clone(),
        };
        let seen = state
            .tree
            .ino_of(&key)
            .and_then(|ino| state.tree.asset(ino));
        if seen.is_some_and(|node| !self.seen_for(node).is_zero()) {
            drop(state);
            return ready(Ok(()));
        }
        let waiting = state.finding.entry(id.clone()).or_default();
        waiting.push(ready);
        if waiting.len() > 1 {
            return;
        }
        drop(state);
        self.on_worker(Service::Runflow, move |catalog| catalog.find(id));
    }

    fn find(&self, id: AssetId) {
        let asked_at = self.now();
        let found = self.ask(Service::Runflow, |provider| provider.find(&id));
        // Before anybody is told, so that the next mount knows of it however soon it comes.
        match &found {
            Ok(asset) => self.remember_runflow(asset),
            Err(ProviderError::NotFound) => self.forget_runflow(&id),
            Err(_) => {}
        }
        let found = found.map(|asset| {
            let remembered = memory::objects(&self.store, std::slice::from_ref(&asset));
            (asset, remembered)
        });
        let key = AssetKey {
            service: Service::Runflow,
            id: id.clone(),
        };
        let mut state = self.lock();
        let (answer, changes) = match found {
            Ok((asset, remembered)) => {
                let (ino, changes) = state.tree.put_asset(asset, Kept::default(), asked_at);
                state.recall(ino, &remembered);
                (Ok(()), changes)
            }
            Err(error) => {
                let mut changes = Changes::default();
                if matches!(error, ProviderError::NotFound) {
                    if let Some(ino) = state.tree.ino_of(&key) {
                        changes = state.tree.remove_asset(ino, asked_at);
                    }
                } else {
                    log::error!("runflow: cannot look up {id}: {error}");
                }
                (Err(error.into()), changes)
            }
        };
        let waiting = state.finding.remove(&id).unwrap_or_default();
        drop(state);
        self.announce(Library::Runflow, changes);
        for ready in waiting {
            ready(answer.clone());
        }
    }

    pub(super) fn recall_runflow(&self) {
        if !self.services.contains_key(&Service::Runflow) {
            return;
        }
        let seen = memory::runflow(&self.store);
        let remembered = memory::objects(&self.store, &seen);
        let mut state = self.lock();
        for asset in seen {
            let ino = state.tree.recall_asset(asset);
            state.recall(ino, &remembered);
        }
    }

    fn remember_runflow(&self, asset: &Asset) {
        let seen = memory::seen(asset, self.clock.now());
        if let Err(error) = self.store.put_runflow_seen(&seen) {
            log::warn!("runflow: {} can't be remembered: {error}", seen.id);
        }
    }

    fn forget_runflow(&self, id: &AssetId) {
        if let Err(error) = self.store.forget_runflow_seen(id) {
            log::warn!("runflow: {id} can't be forgotten: {error}");
        }
    }
}
