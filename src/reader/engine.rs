//! The engine behind `AssetReader`: admits reads, starts streams for what is missing and for what
//! lies ahead, ends those that nobody wants.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::buffer::Pool;
use super::lane::{Admission, Common, Lane, Queued};
use super::lock::Lock;
use super::state::{FileState, Flow, answer};
use super::stream::Shelf;
use super::waiter::{Outbox, Reply, Waiter, unmounted};
use super::window::{Budget, Order as ReadOrder};
use super::{
    AssetKey, ProbeDone, ReadError, ReaderConfig, ReaderStats, RemoteFile, UrlSource, fetch, plan,
};
use crate::cache::{BlockCache, Touch};
use crate::clock::Clock;
use crate::http::asset::RECEIVE_BYTES;
use crate::http::{AssetClient, Deadlines, SignedUrl};
use crate::provider::Service;
use crate::range::ByteRange;

const MIB: u64 = 1024 * 1024;
/// The least that the reads of one service may hold: four of the kernel's largest.
const MIN_LANE_BYTES: u64 = 4 * MIB;
/// Connections of one service that carry demanded bytes, at most and at least.
const CONNECTIONS: (usize, usize) = (64, 8);
/// Streams ahead of all readers of all files, at most and at least. They never wait for a
/// connection: where there is none left, nothing is read ahead.
const AHEAD_STREAMS: (usize, usize) = (48, 4);

/// As many connections as an eighth of the memory has receive buffers for.
fn affordable(cache_bytes: u64, (most, least): (usize, usize)) -> usize {
    let buffers = cache_bytes / 8 / RECEIVE_BYTES as u64;
    usize::try_from(buffers).unwrap_or(most).clamp(least, most)
}

/// What memory for fetching ahead is counted in.
const PREFETCH_UNIT_BYTES: u64 = 64 * 1024;

/// The units of `bytes`, rounded up.
pub(super) fn prefetch_units(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(PREFETCH_UNIT_BYTES)).unwrap_or(Semaphore::MAX_PERMITS)
}

#[derive(Default)]
pub(super) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    pub requests: AtomicU64,
    pub fetched_bytes: AtomicU64,
    pub streams: AtomicU64,
}

pub(super) struct Engine {
    pub urls: Arc<dyn UrlSource>,
    pub clock: Arc<dyn Clock>,
    pub client: AssetClient,
    pub deadlines: Deadlines,
    pub counters: Counters,
    pub runtime: Handle,
    /// Those who wait for a probe that is under way.
    pub probes: Lock<HashMap<AssetKey, Vec<ProbeDone>>>,
    cache: Lock<BlockCache>,
    pool: Pool,
    budget: Lock<Budget>,
    lanes: [Lane; Service::ALL.len()],
    pub cache_bytes: u64,
    pub ahead: Arc<Semaphore>,
    /// Memory for what [`Engine::prefetch`] has under way, in [`PREFETCH_UNIT_BYTES`].
    pub prefetching: Arc<Semaphore>,
    closed: AtomicBool,
    revisions: AtomicU64,
    files: Lock<Vec<Weak<RemoteFile>>>,
}

impl Engine {
    pub fn new(
        config: ReaderConfig,
        client: AssetClient,
        urls: Arc<dyn UrlSource>,
        clock: Arc<dyn Clock>,
        runtime: Handle,
    ) -> Self {
        let now = clock.monotonic();
        // A read that waits holds its length twice (its own buffer and the block that is filled
        // for it). One service may have a quarter of the cache and the two others their twelfth
        // each: 2 x (3 + 2) / 12 are ten twelfths. An eighth is for what connections receive.
        // Windows may take three quarters: what came in for them gives way where all of that is
        // needed, all but the blocks that are being filled, which are small then.
        let connections = affordable(config.cache_bytes, CONNECTIONS);
        let share_bytes = (config.cache_bytes / 12).max(MIN_LANE_BYTES);
        let common = Common::new(config.cache_bytes / 4);
        Self {
            urls,
            client,
            clock,
            deadlines: config.deadlines,
            counters: Counters::default(),
            runtime,
            probes: Lock::new(HashMap::new()),
            cache: Lock::new(BlockCache::new(config.cache_bytes)),
            pool: Pool::new(config.cache_bytes),
            budget: Lock::new(Budget::new(config.cache_bytes / 4 * 3)),
            lanes: std::array::from_fn(|_| Lane::new(share_bytes, &common, connections, now)),
            cache_bytes: config.cache_bytes,
            ahead: Arc::new(Semaphore::new(affordable(
                config.cache_bytes,
                AHEAD_STREAMS,
            ))),
            prefetching: Arc::new(Semaphore::new(prefetch_units(config.cache_bytes / 8))),
            closed: AtomicBool::new(false),
            revisions: AtomicU64::new(0),
            files: Lock::new(Vec::new()),
        }
    }

    pub fn now(&self) -> Instant {
        self.clock.monotonic()
    }

    /// The lane of a service.
    pub fn lane(&self, service: Service) -> &Lane {
        match service {
            Service::Runway => &self.lanes[0],
            Service::Ltx => &self.lanes[1],
            Service::Runflow => &self.lanes[2],
        }
    }

    /// The cache of one revision.
    pub fn shelf(&self, file: &RemoteFile) -> Shelf<'_> {
        Shelf {
            cache: &self.cache,
            pool: &self.pool,
            revision: file.revision,
        }
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// See [`super::AssetReader::remote_file`].
    pub fn remote_file(
        &self,
        key: AssetKey,
        size_bytes: u64,
        etag: Option<String>,
    ) -> Arc<RemoteFile> {
        let file = Arc::new(RemoteFile {
            key,
            size_bytes,
            revision: self.revisions.fetch_add(1, Ordering::Relaxed),
            state: Lock::new(FileState::new(etag)),
        });
        let mut files = self.files.lock();
        // Swept each time the list would grow, so its cost is spread over the files.
        if files.len() == files.capacity() {
            files.retain(|file| file.strong_count() > 0);
        }
        files.push(Arc::downgrade(&file));
        file
    }

    /// A read of a range that lies within the file and is not empty.
    pub fn read(self: &Arc<Self>, file: &Arc<RemoteFile>, range: ByteRange, reply: Reply) {
        let mut out = Outbox::default();
        {
            let mut state = file.lock();
            let order = state.windows.on_read(&range);
            if order == ReadOrder::Continues {
                self.grow(file, &mut state);
            }
            self.answer_or_admit(file, &mut state, range, order, reply, &mut out);
            self.top_up(file, &mut state);
            state.prune(self.shelf(file));
            plan::wake_whole(&state);
        }
        self.send(file, out);
    }

    fn grow(&self, file: &RemoteFile, state: &mut FileState) {
        let (others, wish) = (state.windows.others(), state.windows.wish());
        let granted = self
            .budget
            .lock()
            .grant(file.revision, others + wish, self.now());
        let part = state.windows.part_of(granted);
        state.windows.set_window(part);
    }

    fn answer_or_admit(
        self: &Arc<Self>,
        file: &Arc<RemoteFile>,
        state: &mut FileState,
        range: ByteRange,
        order: ReadOrder,
        reply: Reply,
        out: &mut Outbox,
    ) {
        let touch = match order {
            ReadOrder::Continues => Touch::Peek,
            ReadOrder::Near | ReadOrder::Jump => Touch::Use,
        };
        let pieces = self.shelf(file).pieces(&range, touch);
        if pieces.iter().map(|piece| piece.range().len()).sum::<u64>() == range.len() {
            self.counters.hits.fetch_add(1, Ordering::Relaxed);
            return out.push_pieces(reply, range, pieces, &self.pool);
        }
        if let Some(info) = &state.changed {
            return out.push(reply, Err(ReadError::Changed(info.clone())));
        }
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        let read = Queued {
            file: Arc::clone(file),
            range,
            since: self.now(),
            reply,
        };
        match self.lane(file.key.service).admit(read) {
            Admission::Admitted(read) => self.wait(state, read, Some(order), out),
            Admission::Queued { watch: false } => {}
            Admission::Queued { watch: true } => {
                let (engine, service) = (Arc::clone(self), file.key.service);
                self.runtime.spawn(fetch::watch_queue(engine, service));
            }
            Admission::Closed(read) => out.push(read.reply, Err(unmounted())),
        }
    }

    /// Makes an admitted read a waiter and starts what it needs. `order` is what the windows said
    /// of it if it is the latest read.
    fn wait(
        self: &Arc<Self>,
        state: &mut FileState,
        read: Queued,
        order: Option<ReadOrder>,
        out: &mut Outbox,
    ) {
        let Queued {
            file,
            range,
            since,
            reply,
        } = read;
        let shelf = self.shelf(&file);
        shelf.reserve(range.len());
        let mut waiter = Waiter::new(range, since, reply, &self.pool);
        state.feed(&mut waiter, shelf);
        if waiter.complete() {
            return answer(waiter, shelf, out);
        }
        state.waiters.push(waiter);
        if self.is_closed() {
            return state.fail(|_| true, &unmounted(), shelf, out);
        }
        if let Some(info) = state.changed.clone() {
            return state.fail(|_| true, &ReadError::Changed(info), shelf, out);
        }
        self.cover(&file, state, range, order);
    }

    /// Bytes that a stream's request brought.
    pub fn deliver(self: &Arc<Self>, file: &Arc<RemoteFile>, id: u64, chunk: &[u8]) -> Flow {
        let now = self.now();
        let mut out = Outbox::default();
        self.counters
            .fetched_bytes
            .fetch_add(chunk.len() as u64, Ordering::Relaxed);
        let (flow, progressed) = {
            let mut state = file.lock();
            let flow = state.deliver(id, chunk, now, self.shelf(file), &mut out);
            let progressed = state.stream(id).is_some_and(|s| s.last_progress == now);
            (flow, progressed)
        };
        if progressed {
            self.lane(file.key.service).note_progress(now);
        }
        self.send(file, out);
        flow
    }

    /// A stream's task has ended: takes the stream out and settles its waiters.
    pub fn finish(
        self: &Arc<Self>,
        file: &Arc<RemoteFile>,
        id: u64,
        result: Result<(), ReadError>,
    ) {
        let mut out = Outbox::default();
        let shelf = self.shelf(file);
        {
            let mut state = file.lock();
            let Some(stream) = state.remove_stream(id, shelf) else {
                return;
            };
            log::trace!("{}: stream {id} ended", file.key.id);
            state.answer_complete(shelf, &mut out);
            match &result {
                Ok(()) => {}
                Err(error @ ReadError::Changed(info)) => {
                    state.changed = Some(info.clone());
                    state.fail(|_| true, error, shelf, &mut out);
                    state.windows.clear();
                    state.prune(shelf);
                }
                Err(error) => {
                    let rest = stream.remaining();
                    state.fail(|w| w.waits_for(&rest), error, shelf, &mut out);
                }
            }
            self.cover_waiters(file, &mut state);
            self.top_up(file, &mut state);
        }
        self.send(file, out);
    }

    /// Sends answers, then admits the reads that they made room for, and so on.
    pub fn send(self: &Arc<Self>, file: &RemoteFile, out: Outbox) {
        let lane = self.lane(file.key.service);
        let mut out = out;
        loop {
            let released = out.admitted_bytes;
            out.send();
            if released == 0 {
                return;
            }
            out = Outbox::default();
            for read in lane.release(released) {
                let file = Arc::clone(&read.file);
                let mut state = file.lock();
                self.wait(&mut state, read, None, &mut out);
            }
        }
    }

    /// Opens connections to the host of `url` until there are so many, in use or not.
    pub fn prepare(&self, url: &SignedUrl, connections: usize) {
        if !self.is_closed() {
            let _runtime = self.runtime.enter();
            self.client.prepare(url, connections);
        }
    }

    /// What the windows of a file may take.
    #[cfg(test)]
    pub fn window_bytes(&self, file: &RemoteFile) -> u64 {
        self.budget.lock().held(file.revision)
    }

    /// See [`super::AssetReader::close`].
    pub fn close(&self, file: &RemoteFile) {
        let mut state = file.lock();
        state.windows.clear();
        state.promised.clear();
        state.prune(self.shelf(file));
        self.budget.lock().release(file.revision);
    }

    /// Fails everything that waits and lets nothing new begin.
    pub fn shut_down(self: &Arc<Self>) {
        self.closed.store(true, Ordering::SeqCst);
        for lane in &self.lanes {
            for read in lane.close() {
                read.reply.send(Err(unmounted()));
            }
        }
        let files: Vec<Arc<RemoteFile>> =
            self.files.lock().iter().filter_map(Weak::upgrade).collect();
        for file in files {
            let mut out = Outbox::default();
            let shelf = self.shelf(&file);
            {
                let mut state = file.lock();
                state.fail(|_| true, &unmounted(), shelf, &mut out);
                state.windows.clear();
                while let Some(id) = state.streams.first().map(|stream| stream.id) {
                    state.remove_stream(id, shelf);
                }
            }
            self.send(&file, out);
        }
        self.fail_probes();
    }

    pub fn stats(&self) -> ReaderStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let cached_bytes = {
            let cache = self.cache.lock();
            cache.entry_bytes() + cache.reserved_bytes()
        };
        ReaderStats {
            cached_bytes,
            hits: load(&self.counters.hits),
            misses: load(&self.counters.misses),
            requests: load(&self.counters.requests),
            fetched_bytes: load(&self.counters.fetched_bytes),
            active_streams: load(&self.counters.streams),
            connections: self.client.connections(),
            held_bytes: self.pool.held_bytes(),
        }
    }
}
