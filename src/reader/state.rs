//! What is known and under way for one revision of one asset: its streams, the reads that wait,
//! the pinned identity. Moves bytes in memory; starts nothing and talks to nobody.
//!
//! Invariant, which the engine upholds with [`FileState::uncovered`]: every byte that a waiter
//! misses lies ahead in some stream, or in the block that it fills, so whoever ends a stream
//! answers or re-covers its waiters.

use std::time::Instant;

use bytes::Bytes;

use super::stream::{Shelf, Source, Stream};
use super::waiter::{Outbox, Waiter, subtract};
use super::window::{MAX_STREAMS, Windows};
use super::{ObjectInfo, ReadError};
use crate::cache::{SLOT_BYTES, Touch};
use crate::http::SignedUrl;
use crate::range::ByteRange;

/// What a stream that nobody wants any more may have left and still be read out: less than what a
/// new connection costs.
const READ_OUT_BYTES: u64 = 64 * 1024;

/// Parts of one file that are promised at a time; older promises are kept no longer.
const MAX_PROMISES: usize = 4;

/// Bytes that a stream brought: its block will span `span`, is filled as far as `block` goes, and
/// what lies from `from` on is new.
struct News<'a> {
    span: ByteRange,
    from: u64,
    block: &'a [u8],
}

/// What a stream's task does after bytes were delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    /// It has all its bytes.
    Done,
    /// The body held more than the stream's range.
    Excess,
    /// The stream was dropped meanwhile.
    Gone,
    /// Further than anybody wants; wait for [`Stream::wake`].
    Pause,
    /// Somebody waits for bytes that a whole-body stream has passed: begin again.
    Restart,
}

/// The mutable part of a `RemoteFile`.
#[derive(Default)]
pub(super) struct FileState {
    pub etag: Option<String>,
    /// What the first answer said.
    pub info: Option<ObjectInfo>,
    /// Set once, when the host has another object: every read that needs the host fails with it.
    pub changed: Option<Box<ObjectInfo>>,
    pub url: Option<SignedUrl>,
    pub ignores_ranges: bool,
    pub windows: Windows,
    pub streams: Vec<Stream>,
    pub waiters: Vec<Waiter>,
    /// Fetched ahead of any reader, and kept on until the file is closed.
    pub promised: Vec<ByteRange>,
    streams_made: u64,
}

impl FileState {
    pub fn new(etag: Option<String>) -> Self {
        Self {
            etag,
            ..Self::default()
        }
    }

    /// The stream of this number, if it is still there.
    pub fn stream(&mut self, id: u64) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.id == id)
    }

    /// Adds a stream over `range`, without a task yet, and tells its id.
    pub fn add_stream(&mut self, range: ByteRange, now: Instant) -> u64 {
        self.streams_made += 1;
        let id = self.streams_made;
        self.streams.push(Stream::new(id, range, now));
        id
    }

    /// The parts of `range` that are neither cached nor under way.
    pub fn uncovered(&self, range: ByteRange, shelf: Shelf<'_>) -> Vec<ByteRange> {
        let mut gaps = vec![range];
        for stream in &self.streams {
            gaps = subtract(&gaps, &stream.covers());
        }
        if !gaps.is_empty() {
            for piece in shelf.pieces(&range, Touch::Peek) {
                gaps = subtract(&gaps, &piece.range());
            }
        }
        gaps
    }

    /// Gives `waiter` what is in memory already.
    pub fn feed(&self, waiter: &mut Waiter, shelf: Shelf<'_>) {
        for piece in shelf.pieces(&waiter.range, Touch::Peek) {
            waiter.copy_in(piece.start, &piece.data);
        }
        for stream in &self.streams {
            let soon_whole = waiter.untouched()
                && stream.block_range().contains(&waiter.range)
                && stream.pos() < waiter.range.end;
            if !soon_whole {
                waiter.copy_in(stream.block_start, &stream.block);
            }
        }
    }

    /// Appends `chunk` to the stream's blocks and answers the waiters whose bytes are complete.
    pub fn deliver(
        &mut self,
        id: u64,
        mut chunk: &[u8],
        now: Instant,
        shelf: Shelf<'_>,
        out: &mut Outbox,
    ) -> Flow {
        let Some(index) = self.streams.iter().position(|s| s.id == id) else {
            return Flow::Gone;
        };
        let received_bytes = chunk.len() as u64;
        while !chunk.is_empty() {
            if self.streams[index].remaining().is_empty() {
                return Flow::Excess;
            }
            let taken = self.fill_block(index, chunk, shelf, out);
            chunk = &chunk[taken..];
        }
        self.streams[index].note_progress(received_bytes, now);
        self.prune_if_closed(shelf);
        self.flow(id)
    }

    /// Copies the head of `chunk` into the stream's block and serves its waiters.
    fn fill_block(
        &mut self,
        index: usize,
        chunk: &[u8],
        shelf: Shelf<'_>,
        out: &mut Outbox,
    ) -> usize {
        let stream = &mut self.streams[index];
        stream.open_block(shelf);
        let room = stream.block_len as usize - stream.block.len();
        let taken = room.min(chunk.len());
        let from = stream.pos();
        stream.block.extend(&chunk[..taken]);
        if taken < room {
            let span = stream.block_range();
            let block = std::mem::take(&mut stream.block);
            let news = News {
                span,
                from,
                block: &block,
            };
            self.serve(news, shelf, out, |part| shelf.pool.copy(part));
            self.streams[index].block = block;
            return taken;
        }
        let span = stream.block_range();
        let block = std::mem::take(&mut stream.block).freeze();
        stream.block_start = span.end;
        stream.block_len = 0;
        let keep = stream.source == Source::Range || self.worth_keeping(span);
        if keep {
            shelf.fill(span.len(), span.start, block.clone());
        } else {
            shelf.release(span.len());
        }
        let news = News {
            span,
            from,
            block: &block,
        };
        self.serve(news, shelf, out, |part| block.slice_ref(part));
        taken
    }

    /// A whole body that is only passed through on the way to somebody's bytes must not push
    /// everything else out of the cache.
    fn worth_keeping(&self, block: ByteRange) -> bool {
        let near = ByteRange::new(block.start, block.end + SLOT_BYTES);
        self.windows.wants(&near)
            || self.is_promised(&near)
            || self.waiters.iter().any(|w| w.waits_for(&near))
    }

    /// Keeps what is fetched of `range` going, whoever reads elsewhere.
    pub fn promise(&mut self, range: ByteRange) {
        if self.promised.len() == MAX_PROMISES {
            self.promised.remove(0);
        }
        self.promised.push(range);
    }

    fn is_promised(&self, range: &ByteRange) -> bool {
        let mut promised = self.promised.iter();
        promised.any(|part| !part.intersect(range).is_empty())
    }

    fn furthest_wanted(&self) -> u64 {
        let promised = self.promised.iter().map(|part| part.end).max();
        self.windows.furthest().max(promised.unwrap_or(0))
    }

    /// Hands new bytes to those who wait for them. A reader whose bytes all lie in this block is
    /// answered from it in one go (`whole` makes the answer); others copy as bytes come.
    fn serve(
        &mut self,
        news: News<'_>,
        shelf: Shelf<'_>,
        out: &mut Outbox,
        whole: impl Fn(&[u8]) -> Bytes,
    ) {
        let News { span, from, block } = news;
        let end = span.start + block.len() as u64;
        let fresh = ByteRange::new(from, end);
        let mut index = 0;
        while index < self.waiters.len() {
            let waiter = &mut self.waiters[index];
            let in_one_go = waiter.untouched() && span.contains(&waiter.range);
            if !waiter.waits_for(&fresh) || (in_one_go && waiter.range.end > end) {
                index += 1;
            } else if in_one_go {
                let waiter = self.waiters.swap_remove(index);
                let at = (waiter.range.start - span.start) as usize;
                let bytes = whole(&block[at..at + waiter.range.len() as usize]);
                settle(waiter.range, shelf, out);
                out.push(waiter.reply, Ok(bytes));
            } else {
                waiter.copy_in(from, &block[(from - span.start) as usize..]);
                if waiter.complete() {
                    answer(self.waiters.swap_remove(index), shelf, out);
                } else {
                    index += 1;
                }
            }
        }
    }

    /// What the stream's task should do next.
    pub fn flow(&self, id: u64) -> Flow {
        let Some(stream) = self.streams.iter().find(|s| s.id == id) else {
            return Flow::Gone;
        };
        let complete = stream.remaining().is_empty();
        match stream.source {
            Source::Whole => self.flow_of_whole(stream),
            Source::Range if complete => Flow::Done,
            Source::Range => Flow::Continue,
        }
    }

    /// A whole body goes on for those who wait ahead of it, begins again for those behind it, and
    /// otherwise keeps within the windows.
    fn flow_of_whole(&self, stream: &Stream) -> Flow {
        let waits = |range| self.waiters.iter().any(|w| w.waits_for(&range));
        let complete = stream.remaining().is_empty();
        if waits(stream.covers()) {
            return if complete { Flow::Done } else { Flow::Continue };
        }
        if waits(ByteRange::new(0, stream.block_start)) {
            return Flow::Restart;
        }
        match complete {
            true => Flow::Done,
            // As in `prune`: a short rest that paused would be woken by nobody once all have closed.
            false if stream.remaining().len() <= READ_OUT_BYTES => Flow::Continue,
            false if stream.pos() >= self.furthest_wanted() => Flow::Pause,
            false => Flow::Continue,
        }
    }

    /// Takes the stream out, its task aborted, its unfinished block kept. Its waiters keep what
    /// it brought and must be failed or covered again.
    pub fn remove_stream(&mut self, id: u64, shelf: Shelf<'_>) -> Option<Stream> {
        let index = self.streams.iter().position(|s| s.id == id)?;
        let mut stream = self.streams.swap_remove(index);
        if let Some(task) = stream.task.take() {
            task.abort();
        }
        for waiter in &mut self.waiters {
            waiter.copy_in(stream.block_start, &stream.block);
        }
        let next = stream.pos();
        stream.shelve(shelf, next);
        Some(stream)
    }

    /// Makes the stream begin again at `pos`, keeping what it buffered.
    pub fn rewind(&mut self, id: u64, pos: u64, shelf: Shelf<'_>) {
        let Some(index) = self.streams.iter().position(|s| s.id == id) else {
            return;
        };
        let stream = &mut self.streams[index];
        for waiter in &mut self.waiters {
            waiter.copy_in(stream.block_start, &stream.block);
        }
        stream.shelve(shelf, pos);
    }

    /// Forgets how far the stream ever was: what follows counts as progress.
    pub fn forget_progress(&mut self, id: u64) {
        if let Some(stream) = self.stream(id) {
            stream.high = 0;
        }
    }

    /// The first byte that any waiter misses.
    pub fn first_missing(&self) -> Option<u64> {
        self.waiters
            .iter()
            .filter_map(|w| w.missing().first().map(|part| part.start))
            .min()
    }

    /// Drops the streams that neither a waiter nor a window wants, but for short remainders.
    pub fn prune(&mut self, shelf: Shelf<'_>) {
        let idle: Vec<u64> = self
            .streams
            .iter()
            .filter(|s| s.remaining().len() > READ_OUT_BYTES)
            .filter(|s| !self.windows.wants(&s.remaining()) && !self.is_promised(&s.remaining()))
            .filter(|s| match s.source {
                Source::Range => !self.waiters.iter().any(|w| w.waits_for(&s.covers())),
                // Whoever waits for bytes behind it is served when it begins again.
                Source::Whole => self.waiters.is_empty(),
            })
            .map(|s| s.id)
            .collect();
        for id in idle {
            self.remove_stream(id, shelf);
        }
    }

    /// Where nobody has the file open, the last read that still waited took its stream along.
    fn prune_if_closed(&mut self, shelf: Shelf<'_>) {
        if self.windows.is_empty() && self.promised.is_empty() {
            self.prune(shelf);
        }
    }

    /// Whether one more stream ahead of the readers would be one too many.
    pub fn busy(&self) -> bool {
        self.streams.len() >= MAX_STREAMS
    }

    /// Bytes that streams are still to bring.
    pub fn under_way(&self) -> u64 {
        self.streams.iter().map(|s| s.remaining().len()).sum()
    }

    /// Answers waiters that became complete by other means than a delivery.
    pub fn answer_complete(&mut self, shelf: Shelf<'_>, out: &mut Outbox) {
        while let Some(index) = self.waiters.iter().position(Waiter::complete) {
            answer(self.waiters.swap_remove(index), shelf, out);
        }
        self.prune_if_closed(shelf);
    }

    /// Fails the waiters that `doomed` picks.
    pub fn fail(
        &mut self,
        doomed: impl Fn(&Waiter) -> bool,
        error: &ReadError,
        shelf: Shelf<'_>,
        out: &mut Outbox,
    ) {
        while let Some(index) = self.waiters.iter().position(&doomed) {
            let waiter = self.waiters.swap_remove(index);
            settle(waiter.range, shelf, out);
            out.push(waiter.reply, Err(error.clone()));
        }
        self.prune_if_closed(shelf);
    }
}

/// Answers a complete waiter.
pub(super) fn answer(waiter: Waiter, shelf: Shelf<'_>, out: &mut Outbox) {
    settle(waiter.range, shelf, out);
    let (reply, bytes) = waiter.into_answer();
    out.push(reply, Ok(bytes));
}

/// Gives back what an admitted read held: its memory and its admission.
fn settle(range: ByteRange, shelf: Shelf<'_>, out: &mut Outbox) {
    shelf.release(range.len());
    out.admitted_bytes += range.len();
}
