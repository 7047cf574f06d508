//! The tree with its services behind it: makes listings fresh, renews URLs, finds Runflow assets,
//! and remembers what was learnt.
//!
//! Promises: nothing here waits for the network on the caller's thread; whoever must wait leaves a
//! closure that is called exactly once, on another thread, or at once where the answer is known.
//! Concurrent callers of one listing, asset or URL share one request. A listing replaces the older
//! one whole or not at all; while a service is unwell, the older one stands in for up to
//! [`MAX_STALE`], with a warning.
//!
//! Locks: `state` alone, never held while a provider, the store, the kernel or a closure is called.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::error::FsError;
use super::kernel::{Forget, KernelCache};
use super::memory;
use crate::clock::Clock;
use crate::http::{SignedUrl, TransportError};
use crate::provider::{Asset, AssetId, Library, Provider, ProviderError, Service};
use crate::reader::{AssetKey, ObjectInfo, UrlDone, UrlSource};
use crate::store::{Store, StoredObject};
use crate::tree::{Changes, Kept, Tree, inode};
use crate::workers::Workers;

/// How long an older listing stands in for a service that is unwell. Long enough for a restart of
/// the service or a night train, short enough that nobody works on last week's directory.
pub const MAX_STALE: Duration = Duration::from_secs(3_600);
/// After a failed refresh the older listing stands this long before the service is asked again,
/// so that each `ls` does not wait out a deadline.
const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// A URL that expires within this is renewed before it is used: a connect and a first byte.
const URL_MARGIN: Duration = Duration::from_secs(5);
/// Calls at once to one service. The largest wave of pages has threads of its own.
const CALLS_PER_SERVICE: usize = 16;

/// Called once when what was waited for is there or has failed.
pub type Ready = Box<dyn FnOnce(Result<(), FsError>) + Send>;

/// See the module's head.
pub struct Catalog {
    this: Weak<Catalog>,
    clock: Arc<dyn Clock>,
    listing_ttl: Duration,
    services: HashMap<Service, Behind>,
    store: Arc<Store>,
    kernel: OnceLock<Arc<dyn KernelCache>>,
    state: Mutex<State>,
}

struct Behind {
    provider: Arc<dyn Provider>,
    workers: Workers,
}

/// What one lock guards.
pub struct State {
    pub tree: Tree,
    kept: HashMap<AssetId, Kept>,
    /// Learnt and not yet stored, by service; a service in `storing` has a worker at it.
    unstored: HashMap<Service, Vec<(AssetId, StoredObject)>>,
    storing: HashSet<Service>,
    loading: HashMap<Library, Vec<Ready>>,
    finding: HashMap<AssetId, Vec<Ready>>,
    renewing: HashMap<AssetKey, Vec<UrlDone>>,
    not_before: HashMap<Library, Instant>,
    complained: HashMap<Library, String>,
}

impl Catalog {
    /// A catalog of `providers`, each shown in the tree.
    pub fn new(
        providers: Vec<Arc<dyn Provider>>,
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        listing_ttl: Duration,
    ) -> Arc<Self> {
        let shown: Vec<Service> = providers.iter().map(|p| p.service()).collect();
        let state = State {
            tree: Tree::new(&shown),
            kept: memory::uploads(&store),
            unstored: HashMap::new(),
            storing: HashSet::new(),
            loading: HashMap::new(),
            finding: HashMap::new(),
            renewing: HashMap::new(),
            not_before: HashMap::new(),
            complained: HashMap::new(),
        };
        let behind = |provider: Arc<dyn Provider>| {
            let workers = Workers::new(provider.service().name(), CALLS_PER_SERVICE);
            (provider.service(), Behind { provider, workers })
        };
        let catalog = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            clock,
            listing_ttl,
            services: providers.into_iter().map(behind).collect(),
            store,
            kernel: OnceLock::new(),
            state: Mutex::new(state),
        });
        catalog.recall_runflow();
        catalog
    }

    /// Tells whom to notify of changes; before this nobody is.
    pub fn set_kernel(&self, kernel: Arc<dyn KernelCache>) {
        let _ = self.kernel.set(kernel);
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn now(&self) -> Instant {
        self.clock.monotonic()
    }

    pub fn wall_now(&self) -> SystemTime {
        self.clock.now()
    }

    /// The greatest sequence number of an upload from here.
    pub fn last_sequence(&self) -> u64 {
        let state = self.lock();
        state
            .kept
            .values()
            .filter_map(|k| k.sequence)
            .max()
            .unwrap_or(0)
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// How much longer the directory's listing may be believed.
    pub fn fresh_for(&self, state: &State, library: Library) -> Duration {
        let now = self.now();
        let listed = state.tree.listed_at(library);
        let by_age = listed.map_or(Duration::ZERO, |at| {
            (at + self.listing_ttl).saturating_duration_since(now)
        });
        let by_pause = state.not_before.get(&library);
        let by_pause = by_pause.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        by_age.max(by_pause)
    }

    /// Calls `ready` once the listing of `library` is fresh, or can't be made so.
    pub fn ensure_listed(&self, library: Library, ready: Ready) {
        let mut state = self.lock();
        if library == Library::Runflow || !self.fresh_for(&state, library).is_zero() {
            drop(state);
            return ready(Ok(()));
        }
        let waiting = state.loading.entry(library).or_default();
        waiting.push(ready);
        if waiting.len() > 1 {
            return;
        }
        drop(state);
        self.on_worker(library.service(), move |catalog| catalog.load(library));
    }

    /// Forgets how old the listings are, so that the next look asks the services.
    pub fn expire(&self, library: Library) {
        let mut state = self.lock();
        state.not_before.remove(&library);
        state.tree.expire_listing(library);
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
        let fresh = seen.and_then(|node| node.seen_at);
        if fresh.is_some_and(|at| self.now() < at + self.listing_ttl) {
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

    /// Deletes an asset at its service and, once that is done, from its directory.
    pub fn delete(&self, ino: u64, ready: Ready) {
        let Some(asset) = self.lock().tree.asset(ino).map(|node| node.asset.clone()) else {
            return ready(Err(FsError::NotFound));
        };
        let service = asset.library.service();
        self.on_worker(service, move |catalog| {
            let deleted = catalog.provider(service).map(|p| p.delete(&asset));
            match deleted {
                Some(Ok(()) | Err(ProviderError::NotFound)) => {
                    let at = catalog.now();
                    let changes = catalog.lock().tree.remove_asset(ino, at);
                    log::info!("{}: deleted asset {}", asset.library, asset.id);
                    catalog.announce(asset.library, changes);
                    ready(Ok(()));
                }
                Some(Err(error)) => {
                    log::error!("{}: cannot delete {}: {error}", asset.library, asset.id);
                    ready(Err(error.into()));
                }
                None => ready(Err(FsError::NotFound)),
            }
        });
    }

    /// Keeps what the asset host said of an object, in memory and, where the API does not say it,
    /// across mounts.
    pub fn learn(&self, key: &AssetKey, info: &ObjectInfo) {
        let mut state = self.lock();
        let ino = state.tree.ino_of(key);
        let Some(node) = ino.and_then(|ino| state.tree.asset_mut(ino)) else {
            return;
        };
        let before = node.learned.replace(info.clone());
        let api_says_it = node.asset.size_bytes.is_some() && node.asset.created_at.is_some();
        // An emptiness may be a host's passing trouble: it is not for the next mount.
        if api_says_it || info.size_bytes == 0 || before.as_ref() == Some(info) {
            return;
        }
        let unstored = state.unstored.entry(key.service).or_default();
        unstored.push((key.id.clone(), memory::stored(info)));
        if state.storing.insert(key.service) {
            drop(state);
            let service = key.service;
            self.on_worker(service, move |catalog| catalog.store_learnt(service));
        }
    }

    /// Stores what was learnt, and what is learnt meanwhile: one transaction for many.
    fn store_learnt(&self, service: Service) {
        loop {
            let batch = {
                let mut state = self.lock();
                let batch = state.unstored.remove(&service).unwrap_or_default();
                if batch.is_empty() {
                    state.storing.remove(&service);
                    return;
                }
                batch
            };
            if let Err(error) = self.store.put_object_infos(service, &batch) {
                log::warn!("{service}: sizes can't be remembered: {error}");
            }
        }
    }

    pub fn listing_ttl(&self) -> Duration {
        self.listing_ttl
    }

    /// Makes the kernel forget, where there is one; then runs `then`.
    pub fn tell_kernel(&self, what: Vec<Forget>, then: Option<Box<dyn FnOnce() + Send>>) {
        match (self.kernel.get(), then) {
            (Some(kernel), then) => kernel.forget(what, then),
            (None, Some(then)) => then(),
            (None, None) => {}
        }
    }

    /// Tells the kernel of `changes`.
    pub fn announce(&self, library: Library, changes: Changes) {
        self.announce_then(library, changes, None);
    }

    /// As [`Self::announce`]; `then` runs after the kernel knows, at once where there is none.
    pub fn announce_then(
        &self,
        library: Library,
        changes: Changes,
        then: Option<Box<dyn FnOnce() + Send>>,
    ) {
        let parent = inode::of_library(library);
        let mut forget: Vec<Forget> = changes
            .names
            .into_iter()
            .map(|name| Forget::Name { parent, name })
            .collect();
        if changes.directory {
            forget.push(Forget::Data { ino: parent });
        }
        forget.extend(changes.revised.into_iter().map(|ino| Forget::Data { ino }));
        self.tell_kernel(forget, then);
    }

    /// Remembers what the user gave an uploaded asset, for this mount's later listings.
    pub fn keep(&self, id: AssetId, kept: Kept) {
        self.lock().kept.insert(id, kept);
    }

    fn provider(&self, service: Service) -> Option<Arc<dyn Provider>> {
        let behind = self.services.get(&service)?;
        Some(Arc::clone(&behind.provider))
    }

    /// Runs `job` on a thread of the service's pool.
    pub fn on_worker(&self, service: Service, job: impl FnOnce(Arc<Catalog>) + Send + 'static) {
        let this = self.this.clone();
        if let Some(behind) = self.services.get(&service) {
            behind.workers.run(move || {
                if let Some(catalog) = this.upgrade() {
                    job(catalog);
                }
            });
        }
    }

    fn load(&self, library: Library) {
        let asked_at = self.now();
        let listed = match self.provider(library.service()) {
            Some(provider) => provider.list(library),
            None => Err(ProviderError::Unsupported),
        };
        let listed = listed.map(|assets| {
            let remembered = memory::objects(&self.store, &assets);
            (assets, remembered)
        });
        let mut state = self.lock();
        let (answer, changes) = match listed {
            Ok((assets, remembered)) => {
                state.not_before.remove(&library);
                if state.complained.remove(&library).is_some() {
                    log::info!("{library}: listed again");
                }
                (
                    Ok(()),
                    state.take_listing(library, assets, remembered, asked_at),
                )
            }
            Err(error) => (
                self.fall_back(&mut state, library, error.into()),
                Changes::default(),
            ),
        };
        let waiting = state.loading.remove(&library).unwrap_or_default();
        drop(state);
        self.announce(library, changes);
        for ready in waiting {
            ready(answer.clone());
        }
    }

    /// Lets the older listing stand where the service is unwell; logs each reason once.
    fn fall_back(
        &self,
        state: &mut State,
        library: Library,
        error: FsError,
    ) -> Result<(), FsError> {
        let now = self.now();
        let listed_at = state.tree.listed_at(library);
        let usable = listed_at.is_some_and(|at| now < at + MAX_STALE) && error.is_transient();
        let reason = error.to_string();
        if state.complained.get(&library) != Some(&reason) {
            if usable {
                log::warn!("{library}: showing an older listing, because {reason}");
            } else {
                log::error!("{library}: cannot be listed: {reason}");
            }
            state.complained.insert(library, reason);
        }
        if !usable {
            return Err(match error {
                // For a directory that exists, ENOENT would be a lie.
                FsError::NotFound => FsError::Io("the service has no such listing".to_string()),
                other => other,
            });
        }
        state.not_before.insert(library, now + RETRY_AFTER_FAILURE);
        Ok(())
    }

    fn find(&self, id: AssetId) {
        let asked_at = self.now();
        let found = match self.provider(Service::Runflow) {
            Some(provider) => provider.find(&id),
            None => Err(ProviderError::Unsupported),
        };
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
                self.remember_runflow(&asset);
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
                    self.forget_runflow(&id);
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
        let provider = self.provider(key.service);
        let provider = provider.ok_or(ProviderError::Unsupported)?;
        let (fresh, others) = provider.refresh_with_others(stale)?;
        let url = fresh.url.clone();
        let mut state = self.lock();
        for asset in others.into_iter().chain([fresh]) {
            state.take_url(asset);
        }
        url.ok_or_else(|| no_url(key.service))
    }

    fn recall_runflow(&self) {
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
        self.on_worker(Service::Runflow, move |catalog| {
            if let Err(error) = catalog.store.put_runflow_seen(&seen) {
                log::warn!("runflow: {} can't be remembered: {error}", seen.id);
            }
        });
    }

    fn forget_runflow(&self, id: &AssetId) {
        let id = id.clone();
        self.on_worker(Service::Runflow, move |catalog| {
            if let Err(error) = catalog.store.forget_runflow_seen(&id) {
                log::warn!("runflow: {id} can't be forgotten: {error}");
            }
        });
    }
}

impl State {
    fn take_listing(
        &mut self,
        library: Library,
        assets: Vec<Asset>,
        remembered: HashMap<AssetId, ObjectInfo>,
        asked_at: Instant,
    ) -> Changes {
        let kept = &self.kept;
        let keep = |id: &AssetId| kept.get(id).cloned();
        let changes = self.tree.apply_listing(library, assets, asked_at, &keep);
        if !remembered.is_empty() {
            for entry in self.tree.entries(library).iter() {
                self.recall(entry.ino, &remembered);
            }
        }
        changes
    }

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

    /// Gives a node what was learnt of its object earlier.
    fn recall(&mut self, ino: u64, remembered: &HashMap<AssetId, ObjectInfo>) {
        if let Some(node) = self.tree.asset_mut(ino)
            && !node.attributes_known()
            && let Some(info) = remembered.get(&node.asset.id)
        {
            node.learned = Some(info.clone());
        }
    }
}

impl UrlSource for Catalog {
    fn url(&self, key: &AssetKey, rejected: Option<SignedUrl>, done: UrlDone) {
        let mut state = self.lock();
        let node = state.tree.ino_of(key).and_then(|ino| state.tree.asset(ino));
        let Some(node) = node else {
            drop(state);
            return done(Err(ProviderError::NotFound));
        };
        let now = self.clock.now();
        let usable = node
            .asset
            .url
            .as_ref()
            .filter(|url| !url.expired(now, URL_MARGIN) && rejected.as_ref() != Some(*url));
        if let Some(url) = usable.cloned() {
            drop(state);
            return done(Ok(url));
        }
        let asset = node.asset.clone();
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
