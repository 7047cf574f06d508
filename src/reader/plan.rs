//! Which streams run: those that waiting reads need, those ahead of readers, and the single one of
//! a host that ignores ranges. Called with the file's state locked; starting a task is all that
//! happens outside of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;

use super::engine::Engine;
use super::engine::prefetch_units;
use super::state::FileState;
use super::stream::{Purpose, Source};
use super::waiter::Outbox;
use super::window::Order as ReadOrder;
use super::{Prefetch, RemoteFile, fetch};
use crate::cache::SLOT_BYTES;
use crate::range::ByteRange;

const MIB: u64 = 1024 * 1024;
/// Random reads are fetched in whole pages of the kernel's, so that its neighbours' next reads of
/// the same page are hits.
const PAGE_BYTES: u64 = 4096;
/// A jump into the last part of a file that is worth it reads on to the end: there lies the index
/// of an MP4 or MOV that has none at its head.
const TAIL_BYTES: u64 = MIB;
const TAIL_FILE_BYTES: u64 = 4 * MIB;

/// The first read of a head brings so much: `file`, a thumbnailer and the kernel's first small
/// reads are served by one request, and more than that is not pulled for a look.
const HEAD_BYTES: u64 = 256 * 1024;
/// Counts a stream for as long as its task lives, and holds the memory it was granted.
struct StreamCount {
    engine: Arc<Engine>,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.engine.counters.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Engine {
    /// Starts streams for the bytes of `range` that nothing brings yet.
    pub fn cover(
        self: &Arc<Self>,
        file: &Arc<RemoteFile>,
        state: &mut FileState,
        range: ByteRange,
        order: Option<ReadOrder>,
    ) {
        if state.ignores_ranges {
            return self.cover_whole(file, state);
        }
        let pages = ByteRange::new(
            range.start - range.start % PAGE_BYTES,
            range.end.next_multiple_of(PAGE_BYTES),
        );
        let pages = pages.clamp_to(file.size_bytes);
        let tail = file.size_bytes.saturating_sub(TAIL_BYTES);
        let wanted = match order {
            Some(ReadOrder::Continues) => state.windows.extend(&pages, file.size_bytes),
            Some(ReadOrder::Jump) if pages.start >= tail && file.size_bytes >= TAIL_FILE_BYTES => {
                ByteRange::new(pages.start, file.size_bytes)
            }
            Some(ReadOrder::Jump) if pages.start == 0 => {
                ByteRange::new(0, pages.end.max(HEAD_BYTES)).clamp_to(file.size_bytes)
            }
            _ => pages,
        };
        if order == Some(ReadOrder::Jump) && wanted != pages {
            // Whoever reads one end goes on to the other and comes back.
            state.promise(wanted);
        }
        for gap in state.uncovered(wanted, self.shelf(file)) {
            let purpose = match gap.intersect(&range).is_empty() {
                true => Purpose::Ahead,
                false => Purpose::Demand,
            };
            self.launch(file, state, gap, purpose, None);
        }
    }

    /// See [`super::AssetReader::prefetch`].
    pub fn prefetch(self: &Arc<Self>, file: &Arc<RemoteFile>, range: ByteRange) -> Prefetch {
        let mut state = file.lock();
        if self.is_closed() || state.changed.is_some() || state.ignores_ranges {
            return Prefetch::Taken;
        }
        for gap in state.uncovered(range, self.shelf(file)) {
            // A stream holds one block at a time; what is filled is the cache's.
            let units = prefetch_units(gap.len().min(SLOT_BYTES));
            let units = u32::try_from(units).unwrap_or(u32::MAX);
            let memory = Arc::clone(&self.prefetching).try_acquire_many_owned(units);
            let (Ok(memory), 1..) = (memory, self.ahead.available_permits()) else {
                return Prefetch::Refused;
            };
            state.promise(gap);
            self.launch(file, &mut state, gap, Purpose::Ahead, Some(memory));
        }
        Prefetch::Taken
    }

    /// For a host that ignores ranges: one stream at a time, from the first byte that is missing.
    fn cover_whole(self: &Arc<Self>, file: &Arc<RemoteFile>, state: &mut FileState) {
        if !state.streams.is_empty() {
            return wake_whole(state);
        }
        if let Some(first) = state.first_missing() {
            let rest = ByteRange::new(first, file.size_bytes);
            let id = self.launch(file, state, rest, Purpose::Demand, None);
            if let Some(stream) = state.stream(id) {
                stream.source = Source::Whole;
            }
            state.forget_progress(id);
        }
    }

    /// Starts streams again for whatever waiters miss.
    pub fn cover_waiters(self: &Arc<Self>, file: &Arc<RemoteFile>, state: &mut FileState) {
        let missing: Vec<ByteRange> = state
            .waiters
            .iter()
            .flat_map(|waiter| waiter.missing().iter().copied())
            .collect();
        for range in missing {
            self.cover(file, state, range, None);
        }
    }

    /// Starts the streams ahead that the windows ask for and the limits allow.
    pub fn top_up(self: &Arc<Self>, file: &Arc<RemoteFile>, state: &mut FileState) {
        if self.is_closed() || state.changed.is_some() || state.ignores_ranges {
            return;
        }
        let next = |state: &FileState| {
            let under_way = state.under_way();
            state.windows.next_stripe(file.size_bytes, under_way)
        };
        while let Some(stripe) = next(state) {
            for gap in state.uncovered(stripe, self.shelf(file)) {
                if state.busy() || self.ahead.available_permits() == 0 {
                    let begun = ByteRange::new(stripe.start, gap.start);
                    return state.windows.planned(&begun);
                }
                self.launch(file, state, gap, Purpose::Ahead, None);
            }
            state.windows.planned(&stripe);
        }
    }

    fn launch(
        self: &Arc<Self>,
        file: &Arc<RemoteFile>,
        state: &mut FileState,
        range: ByteRange,
        purpose: Purpose,
        memory: Option<OwnedSemaphorePermit>,
    ) -> u64 {
        let permit = match purpose {
            Purpose::Ahead => Arc::clone(&self.ahead).try_acquire_owned().ok(),
            Purpose::Demand => None,
        };
        let id = state.add_stream(range, self.now());
        log::trace!(
            "{}: stream {id} brings {}..{}",
            file.key.id,
            range.start,
            range.end
        );
        self.counters.streams.fetch_add(1, Ordering::Relaxed);
        let count = StreamCount {
            engine: Arc::clone(self),
            _memory: memory,
        };
        let (engine, file) = (Arc::clone(self), Arc::clone(file));
        let task = self.runtime.spawn(async move {
            let _count = count;
            fetch::run(engine, file, id, permit).await;
        });
        if let Some(stream) = state.stream(id) {
            stream.task = Some(task.abort_handle());
        }
        id
    }

    /// The host answered with the whole object: this stream is the only one from now on. False if
    /// another one is that already, or this one was dropped meanwhile, and it should end.
    pub fn became_whole(self: &Arc<Self>, file: &Arc<RemoteFile>, id: u64) -> bool {
        let mut out = Outbox::default();
        let shelf = self.shelf(file);
        let sole = {
            let mut state = file.lock();
            if state.stream(id).is_none() {
                // Its task outlives it for a moment. The others are for those who wait now.
                return false;
            }
            let first = !state.ignores_ranges;
            state.ignores_ranges = true;
            let other = state
                .streams
                .iter()
                .any(|s| s.id != id && s.source == Source::Whole);
            if !other {
                let rest: Vec<u64> = state.streams.iter().map(|s| s.id).collect();
                for stream in rest.into_iter().filter(|stream| *stream != id) {
                    state.remove_stream(stream, shelf);
                }
                state.rewind(id, 0, shelf);
                if let Some(stream) = state.stream(id) {
                    stream.source = Source::Whole;
                    stream.end = file.size_bytes;
                }
                if first {
                    state.forget_progress(id);
                }
            }
            state.answer_complete(shelf, &mut out);
            !other
        };
        self.send(file, out);
        sole
    }
}

/// A whole-body stream that pauses looks again who waits.
pub(super) fn wake_whole(state: &FileState) {
    for stream in &state.streams {
        if stream.source == Source::Whole {
            stream.wake.notify_one();
        }
    }
}
