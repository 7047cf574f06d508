//! URLs for the reader: the one that was listed while it is good, then one renewed by the service.

use std::time::Duration;

use super::{Catalog, State};
use crate::http::{SignedUrl, TransportError};
use crate::provider::{Asset, ProviderError, Service};
use crate::reader::{AssetKey, UrlDone, UrlSource};

/// A URL that expires within this is renewed before it is used: a connect and a first byte.
pub(in crate::fs) const URL_MARGIN: Duration = Duration::from_secs(5);

impl Catalog {
    fn renew(&self, key: AssetKey, asset: Asset) {
        let answer = match self.renewed_meanwhile(&key, &asset) {
            Some(url) => Ok(url),
            None => self.ask_for_url(&key, &asset),
        };
        if let Err(error) = &answer {
            log::error!("{}: no fresh URL for {}: {error}", key.service, key.id);
        }
        let waiting = self.lock().renewing.remove(&key).unwrap_or_default();
        for done in waiting {
            done(answer.clone());
        }
    }

    /// A URL that came along with another asset's while this renewal waited for its turn.
    fn renewed_meanwhile(&self, key: &AssetKey, stale: &Asset) -> Option<SignedUrl> {
        let state = self.lock();
        let node = state.tree.asset(state.tree.ino_of(key)?)?;
        let url = node.asset.url.as_ref()?;
        let fresh = Some(url) != stale.url.as_ref() && !url.expired(self.clock.now(), URL_MARGIN);
        fresh.then(|| url.clone())
    }

    fn ask_for_url(&self, key: &AssetKey, stale: &Asset) -> Result<SignedUrl, ProviderError> {
        let (fresh, others) =
            self.ask(key.service, |provider| provider.refresh_with_others(stale))?;
        let url = fresh.url.clone();
        let mut state = self.lock();
        for asset in others.into_iter().chain([fresh]) {
            state.take_url(asset);
        }
        url.ok_or_else(|| no_url(key.service))
    }
}

impl State {
    /// Gives a node the URL that its service names now, and where to ask for the next one.
    fn take_url(&mut self, asset: Asset) {
        let key = AssetKey {
            service: asset.library.service(),
            id: asset.id,
        };
        let ino = self.tree.ino_of(&key);
        if let Some(node) = ino.and_then(|ino| self.tree.asset_mut(ino)) {
            node.asset.url = asset.url;
            if !asset.locator.is_empty() {
                node.asset.locator = asset.locator;
            }
        }
    }
}

impl UrlSource for Catalog {
    fn url(&self, key: &AssetKey, rejected: Option<SignedUrl>, done: UrlDone) {
        let mut state = self.lock();
        let node = state.tree.ino_of(key).and_then(|ino| state.tree.asset(ino));
        let listed = node.map(|node| &node.asset);
        let early = || state.early.get(key).map(|early| &early.asset);
        let compared = || state.compared.get(key);
        let Some(asset) = listed.or_else(early).or_else(compared) else {
            drop(state);
            return done(Err(ProviderError::NotFound));
        };
        let now = self.clock.now();
        let usable = asset
            .url
            .as_ref()
            .filter(|url| !url.expired(now, URL_MARGIN) && rejected.as_ref() != Some(*url));
        if let Some(url) = usable.cloned() {
            drop(state);
            return done(Ok(url));
        }
        let asset = asset.clone();
        let waiting = state.renewing.entry(key.clone()).or_default();
        waiting.push(done);
        if waiting.len() > 1 {
            return;
        }
        drop(state);
        let key = key.clone();
        self.on_worker(key.service, move |catalog| catalog.renew(key, asset));
    }
}

fn no_url(service: Service) -> ProviderError {
    ProviderError::Unavailable {
        service,
        source: TransportError::Malformed {
            host: service.to_string(),
            what: "it names no URL for this asset; it may still be in the making".to_string(),
        },
    }
}
