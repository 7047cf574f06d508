//! The tree with its services behind it: makes listings fresh, renews URLs, finds Runflow assets,
//! and remembers what was learnt.
//!
//! Promises: nothing here waits for the network on the caller's thread; whoever must wait leaves a
//! closure that is called exactly once, on another thread, or at once where the answer is known.
//! Concurrent callers of one listing, asset or URL share one request. A listing replaces the older
//! one whole or not at all; while a service is unwell, the older one stands in for up to
//! [`listing::MAX_STALE`], with a warning.
//!
//! Locks: `writing` before `state`; `state` is never held while a provider, the store, the kernel or
//! a closure is called.

mod early;
pub(in crate::fs) mod listing;
mod runflow;
pub(in crate::fs) mod urls;

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use early::Early;
pub use early::Learner;
use listing::Waiter;

use super::Done;
use super::error::FsError;
use super::kernel::{Forget, KernelCache};
use super::memory;
use crate::clock::Clock;
use crate::provider::{Asset, AssetId, Library, Provider, ProviderError, Service};
use crate::reader::{AssetKey, ObjectInfo, UrlDone};
use crate::store::{Store, StoredObject};
use crate::tree::{AssetNode, Changes, Kept, Tree, inode};
use crate::workers::Workers;

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
    learner: OnceLock<Arc<dyn Learner>>,
    /// Held while what was learnt is stored, so that a shutdown waits for it.
    writing: Mutex<()>,
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
    loading: HashMap<Library, Vec<Waiter>>,
    early: HashMap<AssetKey, Early>,
    /// Assets whose bytes are compared, though they may stand in no listing yet.
    pub(super) compared: HashMap<AssetKey, Asset>,
    finding: HashMap<AssetId, Vec<Ready>>,
    renewing: HashMap<AssetKey, Vec<UrlDone>>,
    not_before: HashMap<Library, Instant>,
    complained: HashMap<Library, String>,
    /// Whose listing counts as old, whatever its age, until it is made anew.
    distrusted: HashSet<Library>,
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
            early: HashMap::new(),
            compared: HashMap::new(),
            finding: HashMap::new(),
            renewing: HashMap::new(),
            not_before: HashMap::new(),
            complained: HashMap::new(),
            distrusted: HashSet::new(),
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
            learner: OnceLock::new(),
            writing: Mutex::new(()),
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

    /// Deletes an asset at its service and, once that is done, from its directory.
    pub fn delete(&self, ino: u64, ready: Ready) {
        let Some(asset) = self.lock().tree.asset(ino).map(|node| node.asset.clone()) else {
            return ready(Err(FsError::NotFound));
        };
        let service = asset.library.service();
        self.on_worker(service, move |catalog| {
            match catalog.ask(service, |provider| provider.delete(&asset)) {
                Ok(()) | Err(ProviderError::NotFound) => {
                    let at = catalog.now();
                    let changes = catalog.lock().tree.remove_asset(ino, at);
                    log::info!("{}: deleted asset {}", asset.library, asset.id);
                    catalog.announce(asset.library, changes);
                    ready(Ok(()));
                }
                Err(error) => {
                    log::error!("{}: cannot delete {}: {error}", asset.library, asset.id);
                    ready(Err(error.into()));
                }
            }
        });
    }

    /// Keeps what the asset host said of an object, in memory and, where the API does not say it,
    /// across mounts.
    pub fn learn(&self, key: &AssetKey, info: &ObjectInfo) {
        let mut changes = Changes::default();
        let mut state = self.lock();
        let begins = state.learn(key, info, &mut changes);
        let library = state.library_of(key);
        drop(state);
        self.begin_storing(begins);
        self.announce_in(library, changes);
    }

    /// As [`Self::learn`], where the asset host has other bytes than those that are open under
    /// `ino`.
    pub fn learn_revision(&self, ino: u64, key: &AssetKey, info: &ObjectInfo) {
        self.revise(ino, |state, changes| state.learn(key, info, changes));
    }

    /// Other bytes than those that are open under `ino` are about to be opened: they get a number
    /// of their own.
    pub fn renumber(&self, ino: u64) {
        self.revise(ino, |_, _| None);
    }

    fn revise(&self, ino: u64, learn: impl FnOnce(&mut State, &mut Changes) -> Option<Service>) {
        let mut changes = Changes::default();
        let mut state = self.lock();
        let library = state.tree.asset(ino).map(|node| node.asset.library);
        if state.tree.is_outdated(ino) {
            return;
        }
        state.tree.revise(ino, &mut changes);
        let begins = learn(&mut state, &mut changes);
        drop(state);
        self.begin_storing(begins);
        self.announce_in(library, changes);
    }

    fn announce_in(&self, library: Option<Library>, changes: Changes) {
        if let Some(library) = library {
            self.announce(library, changes);
        }
    }

    fn begin_storing(&self, service: Option<Service>) {
        if let Some(service) = service {
            self.on_worker(service, move |catalog| catalog.store_learnt(service));
        }
    }

    /// Stores what was learnt, and what is learnt meanwhile: one transaction for many.
    fn store_learnt(&self, service: Service) {
        loop {
            self.store_batch(service);
            let mut state = self.lock();
            if state.unstored.get(&service).is_none_or(Vec::is_empty) {
                state.storing.remove(&service);
                return;
            }
        }
    }

    /// Stores what was learnt before this call, also what a worker is storing, before it returns:
    /// what the next mount would else have to learn again.
    pub fn store_all_learnt(&self) {
        for service in self.services.keys() {
            self.store_batch(*service);
        }
    }

    fn store_batch(&self, service: Service) {
        let _writing = self.writing.lock().unwrap_or_else(|e| e.into_inner());
        let batch = self.lock().unstored.remove(&service).unwrap_or_default();
        if batch.is_empty() {
            return;
        }
        if let Err(error) = self.store.put_object_infos(service, &batch) {
            log::warn!("{service}: sizes can't be remembered: {error}");
        }
    }

    pub fn listing_ttl(&self) -> Duration {
        self.listing_ttl
    }

    /// Makes the kernel forget, where there is one.
    pub fn tell_kernel(&self, what: Vec<Forget>) {
        if let Some(kernel) = self.kernel.get() {
            kernel.forget(what);
        }
    }

    /// An answer that is given once the kernel forgot what it was told to forget until then: whoever
    /// asks for a name next must get the new version. See [`super::kernel::KernelCache::after`].
    pub fn after_told<T: Send + 'static>(self: &Arc<Self>, done: Done<T>) -> Done<T> {
        let catalog = Arc::clone(self);
        Box::new(move |outcome| {
            let answer: Box<dyn FnOnce() + Send> = Box::new(move || done(outcome));
            match catalog.kernel.get() {
                Some(kernel) => kernel.after(answer),
                None => answer(),
            }
        })
    }

    /// Tells the kernel of `changes`.
    pub fn announce(&self, library: Library, changes: Changes) {
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
        self.tell_kernel(forget);
    }

    /// Remembers what the user gave an uploaded asset, for this mount's later listings.
    pub fn keep(&self, id: AssetId, kept: Kept) {
        self.lock().kept.insert(id, kept);
    }

    /// Asks a service. A provider that panics has failed, like one that answers nonsense: whoever
    /// waits for its answer is told so, or a directory would wait for ever.
    fn ask<T>(
        &self,
        service: Service,
        call: impl FnOnce(&dyn Provider) -> Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        let behind = self.services.get(&service);
        let provider = &behind.ok_or(ProviderError::Unsupported)?.provider;
        catch_unwind(AssertUnwindSafe(|| call(&**provider))).unwrap_or_else(|_| {
            let bug = "reading it met a bug in reelfs; the log has more";
            Err(ProviderError::Malformed(bug.to_string()))
        })
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
}

impl State {
    /// See [`Catalog::learn`]. Answers the service whose learning is to be stored and whom no worker
    /// is at yet.
    fn learn(
        &mut self,
        key: &AssetKey,
        info: &ObjectInfo,
        changes: &mut Changes,
    ) -> Option<Service> {
        let shown = |ino| self.tree.asset(ino).and_then(AssetNode::size_bytes);
        let ino = match self.tree.ino_of(key) {
            Some(ino) if shown(ino).is_some_and(|size| size != info.size_bytes) => {
                Some(self.tree.revise(ino, changes))
            }
            known => known,
        };
        let Some(node) = ino.and_then(|ino| self.tree.asset_mut(ino)) else {
            self.learn_early(key, info);
            return None;
        };
        let before = node.learned.replace(info.clone());
        let api_says_it = node.asset.size_bytes.is_some() && node.asset.created_at.is_some();
        // An emptiness may be a host's passing trouble: it is not for the next mount.
        if api_says_it || info.size_bytes == 0 || before.as_ref() == Some(info) {
            return None;
        }
        let unstored = self.unstored.entry(key.service).or_default();
        unstored.push((key.id.clone(), memory::stored(info)));
        self.storing.insert(key.service).then_some(key.service)
    }

    fn library_of(&self, key: &AssetKey) -> Option<Library> {
        let node = self.tree.asset(self.tree.ino_of(key)?)?;
        Some(node.asset.library)
    }

    /// Why the last listing of a library failed; `None` where it did not.
    pub fn complaint(&self, library: Library) -> Option<&str> {
        self.complained.get(&library).map(String::as_str)
    }

    /// Gives a node what was learnt of its object earlier.
    fn recall(&mut self, ino: u64, remembered: &HashMap<AssetId, ObjectInfo>) {
        if let Some(node) = self.tree.asset_mut(ino)
            && !node.attributes_known()
            && !node.is_revised
            && let Some(info) = remembered.get(&node.asset.id)
        {
            node.learned = Some(info.clone());
        }
    }
}
