//! Reads that wait for bytes, and the replies that leave once no lock is held.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::buffer::{Block, Pool};
use super::{ReadDone, ReadError};
use crate::cache::Piece;
use crate::range::ByteRange;

/// What readers are told that still waited when the reader was dropped.
pub(super) fn unmounted() -> ReadError {
    ReadError::Unavailable(Arc::from("unmounted"))
}

/// A callback that is called exactly once: with an answer, or when it is dropped without one.
pub(super) struct Reply(Option<ReadDone>);

impl Reply {
    pub fn new(done: ReadDone) -> Self {
        Self(Some(done))
    }

    /// A callback that panics must not take the stream with it that others wait for.
    pub fn send(mut self, result: Result<Bytes, ReadError>) {
        if let Some(done) = self.0.take()
            && catch_unwind(AssertUnwindSafe(|| done(result))).is_err()
        {
            log::error!("a reader panicked when it was answered");
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(unmounted()));
        }
    }
}

/// Answers collected under a lock and sent after it.
#[derive(Default)]
pub(super) struct Outbox {
    answers: Vec<(Reply, Result<Bytes, ReadError>)>,
    hits: Vec<(Reply, ByteRange, Vec<Piece>, Pool)>,
    /// Bytes of admission that the answered reads no longer need.
    pub admitted_bytes: u64,
}

impl Outbox {
    /// Adds an answer, to be sent once no lock is held.
    pub fn push(&mut self, reply: Reply, result: Result<Bytes, ReadError>) {
        self.answers.push((reply, result));
    }

    /// An answer made of cached pieces that cover `range`; they are joined outside the lock.
    pub fn push_pieces(&mut self, reply: Reply, range: ByteRange, pieces: Vec<Piece>, pool: &Pool) {
        self.hits.push((reply, range, pieces, pool.clone()));
    }

    /// Calls every callback. No lock may be held.
    pub fn send(self) {
        for (reply, result) in self.answers {
            reply.send(result);
        }
        for (reply, range, pieces, pool) in self.hits {
            reply.send(Ok(join(range, pieces, &pool)));
        }
    }
}

/// Pieces that cover `range` as one; a single piece is passed on without a copy.
fn join(range: ByteRange, mut pieces: Vec<Piece>, pool: &Pool) -> Bytes {
    if pieces.len() == 1 {
        return pieces.remove(0).data;
    }
    let mut joined = pool.take(range.len() as usize);
    for piece in pieces {
        joined.extend(&piece.data);
    }
    joined.freeze()
}

/// A read that waits. It owns what it has got so far, so that no eviction can take it away.
pub(super) struct Waiter {
    pub range: ByteRange,
    /// What has not been copied in yet; in order, disjoint.
    missing: Vec<ByteRange>,
    /// As long as the range; there is none before the first piece is copied in.
    joined: Option<Block>,
    pool: Pool,
    pub since: Instant,
    pub reply: Reply,
}

impl Waiter {
    pub fn new(range: ByteRange, since: Instant, reply: Reply, pool: &Pool) -> Self {
        Self {
            range,
            missing: vec![range],
            joined: None,
            pool: pool.clone(),
            since,
            reply,
        }
    }

    pub fn missing(&self) -> &[ByteRange] {
        &self.missing
    }

    /// Whether nothing was copied in: the answer may still be a slice of one block.
    pub fn untouched(&self) -> bool {
        self.joined.is_none()
    }

    /// Whether it still misses any byte of `range`.
    pub fn waits_for(&self, range: &ByteRange) -> bool {
        self.missing
            .iter()
            .any(|part| !part.intersect(range).is_empty())
    }

    /// Copies what is missing out of `data`, which starts at `start`.
    pub fn copy_in(&mut self, start: u64, data: &[u8]) {
        let given = ByteRange::at(start, data.len() as u64);
        if !self.waits_for(&given) {
            return;
        }
        let len = self.range.len() as usize;
        let joined = self.joined.get_or_insert_with(|| self.pool.take(len));
        for part in &self.missing {
            let part = part.intersect(&given);
            let to = (part.start - self.range.start) as usize;
            let from = (part.start.max(start) - start) as usize;
            let len = part.len() as usize;
            if len > 0 {
                joined.write(to, &data[from..from + len]);
            }
        }
        self.missing = subtract(&self.missing, &given);
    }

    pub fn complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// The bytes of a complete waiter.
    pub fn into_answer(self) -> (Reply, Bytes) {
        debug_assert!(self.missing.is_empty());
        (
            self.reply,
            self.joined.map(Block::freeze).unwrap_or_default(),
        )
    }
}

/// `ranges` without `taken`.
pub(super) fn subtract(ranges: &[ByteRange], taken: &ByteRange) -> Vec<ByteRange> {
    ranges.iter().flat_map(|range| range.minus(taken)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn waiter(start: u64, end: u64) -> (Waiter, mpsc::Receiver<Result<Bytes, ReadError>>) {
        let (send, receive) = mpsc::channel();
        let reply = Reply::new(Box::new(move |result| send.send(result).unwrap()));
        let range = ByteRange::new(start, end);
        (
            Waiter::new(range, Instant::now(), reply, &Pool::new(0)),
            receive,
        )
    }

    #[test]
    fn pieces_in_any_order_make_the_answer() {
        let (mut waiter, _answer) = waiter(100, 110);
        waiter.copy_in(105, b"fgh");
        waiter.copy_in(90, b"----------abc");
        waiter.copy_in(101, b"BCdeFGH");
        assert_eq!(waiter.missing(), [ByteRange::new(108, 110)]);
        waiter.copy_in(108, b"ij----");
        assert!(waiter.complete());
        let (_reply, bytes) = waiter.into_answer();
        assert_eq!(bytes, "abcdefghij".as_bytes());
    }

    #[test]
    fn a_dropped_waiter_is_answered_once() {
        let (waiter, answer) = waiter(0, 10);
        drop(waiter);
        assert!(matches!(
            answer.recv().unwrap(),
            Err(ReadError::Unavailable(why)) if &*why == "unmounted"
        ));
        assert!(answer.recv().is_err());
    }

    #[test]
    fn a_callback_that_panics_is_contained() {
        Reply::new(Box::new(|_| panic!("on purpose"))).send(Ok(Bytes::new()));
    }

    #[test]
    fn subtracting_cuts_splits_and_removes() {
        let ranges = [ByteRange::new(0, 10), ByteRange::new(20, 30)];
        let cases = [
            ((3, 5), vec![(0, 3), (5, 10), (20, 30)]),
            ((5, 25), vec![(0, 5), (25, 30)]),
            ((0, 30), vec![]),
            ((10, 20), vec![(0, 10), (20, 30)]),
            ((12, 12), vec![(0, 10), (20, 30)]),
        ];
        for ((start, end), left) in cases {
            let left: Vec<_> = left.iter().map(|(a, b)| ByteRange::new(*a, *b)).collect();
            assert_eq!(subtract(&ranges, &ByteRange::new(start, end)), left);
        }
    }
}
