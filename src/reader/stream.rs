//! One stream's bookkeeping: where it is, the block it fills, and the cache as its file sees it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::ReadError;
use super::buffer::{Block, Pool};
use super::lock::Lock;
use crate::cache::{BlockCache, Piece, SLOT_BYTES, Touch};
use crate::http::asset::RECEIVE_BYTES;
use crate::range::ByteRange;

/// The cache as one revision sees it.
#[derive(Clone, Copy)]
pub(super) struct Shelf<'a> {
    pub cache: &'a Lock<BlockCache>,
    pub pool: &'a Pool,
    pub revision: u64,
}

/// A block where memory is tight: what a connection receives at a time. The arithmetic: larger blocks
/// have a half of the cache at most, the reads of one service a quarter, what connections receive an
/// eighth, and as many tight blocks as there are connections another.
const TIGHT_BLOCK_BYTES: u64 = RECEIVE_BYTES as u64;

impl Shelf<'_> {
    /// The cached parts of a range.
    pub fn pieces(&self, range: &ByteRange, touch: Touch) -> Vec<Piece> {
        self.cache.lock().pieces(self.revision, range, touch)
    }

    /// Promises memory to a buffer.
    pub fn reserve(&self, bytes: u64) {
        self.cache.lock().reserve(bytes);
    }

    /// Promises memory to the next `bytes` of a stream, or to their beginning where half of the cache
    /// is promised already; how much.
    pub fn reserve_block(&self, bytes: u64) -> u64 {
        let mut cache = self.cache.lock();
        let bytes = match cache.reserved_bytes() + bytes <= cache.capacity_bytes() / 2 {
            true => bytes,
            false => bytes.min(TIGHT_BLOCK_BYTES),
        };
        cache.reserve(bytes);
        bytes
    }

    /// Takes such a promise back.
    pub fn release(&self, bytes: u64) {
        self.cache.lock().release(bytes);
    }

    /// A filled buffer becomes an entry.
    pub fn fill(&self, reserved: u64, start: u64, data: Bytes) {
        let mut cache = self.cache.lock();
        cache.release(reserved);
        cache.insert(self.revision, start, data);
    }
}

/// Counts the memory in which a connection receives, for as long as a request is under way.
pub(super) struct Receiving<'a>(Shelf<'a>);

impl<'a> Receiving<'a> {
    /// Promises the memory; dropping it takes the promise back.
    pub fn begin(shelf: Shelf<'a>) -> Self {
        shelf.reserve(RECEIVE_BYTES as u64);
        Self(shelf)
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.0.release(RECEIVE_BYTES as u64);
    }
}

/// Whether a stream was started for a read that waits or ahead of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Demand,
    Ahead,
}

/// What a stream reads from: a part as asked, or the whole object because the host ignores ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Range,
    Whole,
}

/// A host that brings less than this is as good as silent: a read of 128 KiB would take minutes, and
/// one byte now and then would keep it from its deadline for ever. A modem of 1994 brings more.
const LEAST_BYTES_PER_S: f64 = 1024.0;

/// What a stream does while no bytes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for its turn among the connections.
    Queued,
    Running,
    /// Ahead of every reader: does not read its body for now.
    Paused,
}

/// One ranged GET, resumed as often as needed, that fills block after block up to `end`.
pub(super) struct Stream {
    pub id: u64,
    pub source: Source,
    pub phase: Phase,
    pub block_start: u64,
    pub block: Block,
    /// The size that the block will have, reserved in the cache; 0 between blocks.
    pub block_len: u64,
    pub end: u64,
    /// The furthest byte reached, over all attempts: only what is beyond counts as progress.
    pub high: u64,
    /// When so much had come since the time before that it counted; see [`Stream::note_progress`].
    pub last_progress: Instant,
    /// What came since then.
    uncounted: u64,
    pub last_error: Option<ReadError>,
    pub task: Option<AbortHandle>,
    pub wake: Arc<Notify>,
}

impl Stream {
    pub fn new(id: u64, range: ByteRange, now: Instant) -> Self {
        Self {
            id,
            source: Source::Range,
            phase: Phase::Queued,
            block_start: range.start,
            block: Block::default(),
            block_len: 0,
            end: range.end,
            high: range.start,
            last_progress: now,
            uncounted: 0,
            last_error: None,
            task: None,
            wake: Arc::new(Notify::new()),
        }
    }

    /// Notes how far the stream has come with the bytes that were just received. It is progress
    /// where at least [`LEAST_BYTES_PER_S`] came on average since it last was.
    pub fn note_progress(&mut self, received_bytes: u64, now: Instant) {
        if self.pos() <= self.high {
            return;
        }
        // Not more than came: what is forgotten of the progress did not come just now.
        self.uncounted += (self.pos() - self.high).min(received_bytes);
        self.high = self.pos();
        let elapsed = now.saturating_duration_since(self.last_progress);
        let least = elapsed.as_secs_f64() * LEAST_BYTES_PER_S;
        if self.uncounted as f64 >= least || self.remaining().is_empty() {
            (self.uncounted, self.last_progress) = (0, now);
        }
    }

    /// The next byte to come.
    pub fn pos(&self) -> u64 {
        self.block_start + self.block.len() as u64
    }

    pub fn remaining(&self) -> ByteRange {
        ByteRange::new(self.pos(), self.end)
    }

    /// The buffered bytes and those to come.
    pub fn covers(&self) -> ByteRange {
        ByteRange::new(self.block_start, self.end)
    }

    pub fn block_range(&self) -> ByteRange {
        ByteRange::at(self.block_start, self.block_len)
    }

    /// Begins the next block where none is open.
    pub fn open_block(&mut self, shelf: Shelf<'_>) {
        if self.block_len == 0 {
            let slot_end = (self.block_start / SLOT_BYTES + 1) * SLOT_BYTES;
            self.block_len = shelf.reserve_block(slot_end.min(self.end) - self.block_start);
            self.block = shelf.pool.take(self.block_len as usize);
        }
    }

    /// Puts what is buffered of an unfinished block into the cache and goes on at `next`.
    pub fn shelve(&mut self, shelf: Shelf<'_>, next: u64) {
        let partial = shelf.pool.copy(&self.block);
        shelf.fill(self.block_len, self.block_start, partial);
        self.block = Block::default();
        self.block_len = 0;
        self.block_start = next;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MEMORY_BYTES: u64 = 32 * SLOT_BYTES;

    /// A stream over ten whole slots that has opened its first block.
    fn begun(shelf: Shelf<'_>) -> Stream {
        let mut stream = Stream::new(1, ByteRange::new(0, 10 * SLOT_BYTES), Instant::now());
        stream.open_block(shelf);
        stream
    }

    fn with_shelf(test: impl FnOnce(Shelf<'_>)) {
        test(Shelf {
            cache: &Lock::new(BlockCache::new(MEMORY_BYTES)),
            pool: &Pool::new(0),
            revision: 1,
        });
    }

    #[test]
    fn a_block_on_each_connection_leaves_memory_for_reads_and_for_what_is_received() {
        with_shelf(|shelf| {
            let connections = MEMORY_BYTES / 8 / RECEIVE_BYTES as u64;
            assert!(connections * SLOT_BYTES >= MEMORY_BYTES, "or they all fit");
            (0..connections).for_each(|_| drop(begun(shelf)));
            let (reads, received) = (MEMORY_BYTES / 4, MEMORY_BYTES / 8);
            let blocks = shelf.cache.lock().reserved_bytes();
            assert!(blocks + reads + received <= MEMORY_BYTES, "{blocks}");
        });
    }

    #[test]
    fn blocks_are_small_only_while_half_of_the_memory_is_promised() {
        with_shelf(|shelf| {
            let mut stream = begun(shelf);
            assert_eq!(stream.block_range(), ByteRange::at(0, SLOT_BYTES));
            stream.shelve(shelf, SLOT_BYTES);
            shelf.reserve(MEMORY_BYTES / 2);
            stream.open_block(shelf);
            let small = ByteRange::at(SLOT_BYTES, TIGHT_BLOCK_BYTES);
            assert_eq!(stream.block_range(), small);
            stream.shelve(shelf, small.end);
            shelf.release(MEMORY_BYTES / 2);
            stream.open_block(shelf);
            let rest_of_slot = ByteRange::new(small.end, 2 * SLOT_BYTES);
            assert_eq!(stream.block_range(), rest_of_slot);
        });
    }

    #[test]
    fn a_host_that_brings_less_than_1_kib_a_second_makes_no_progress() {
        let began = Instant::now();
        let mut stream = Stream::new(1, ByteRange::new(0, 1 << 30), began);
        let mut bring = |bytes: u64, after_s| {
            let now = began + Duration::from_secs(after_s);
            stream.block_start += bytes;
            stream.note_progress(bytes, now);
            (stream.last_progress - began).as_secs()
        };
        // A byte now and then is none; with the last byte of 1 KiB for each second it is.
        assert_eq!(bring(1, 1_800), 0);
        assert_eq!(bring(1, 3_600), 0);
        assert_eq!(bring(3_600 * 1_024 - 3, 3_600), 0);
        assert_eq!(bring(1, 3_600), 3_600);
        assert_eq!(bring(1_023, 3_601), 3_600);
        assert_eq!(bring(1_025, 3_602), 3_602);
    }
}
