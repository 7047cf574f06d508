//! How far to read ahead: pure arithmetic on the reads that came, no I/O, no time but what is
//! passed in.
//!
//! Every file has up to [`MAX_CURSORS`] cursors, one for each place where somebody reads in order
//! (a player has two: picture and sound). A read that continues a cursor grows its window in
//! proportion to what was read in order so far; any other read makes a new cursor without a
//! window, so a random read fetches what was asked and nothing more.
//!
//! The arithmetic: whoever read `n` bytes in order has a window of `2n`, or `24n` beyond
//! [`TRUSTED_BYTES`], and none before [`PROBE_BYTES`]. As long as `n` is small the latest read does not
//! count: it may be the kernel's guess, four times as much as the program took. (Whoever reads 64 KiB
//! in small pieces makes it ask for 32, 128 and 512 KiB.) So a look at the first bytes pulls about a
//! megabyte, and each round trip brings three times what the one before did to whoever goes on.
//!
//! The kernel sends its read-ahead several at a time and out of order, so a read a little behind a
//! cursor, or ahead of it within its window, still belongs to it.

mod budget;

pub use budget::Budget;

use crate::range::ByteRange;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Places in one file that are read in order at the same time.
pub const MAX_CURSORS: usize = 8;
/// The first window, and the least that is worth a request.
pub const MIN_WINDOW_BYTES: u64 = 256 * KIB;
/// The largest window of one cursor: each connection has a stripe of 6 MiB under way, which takes
/// 252 ms at 25 MB/s, so that a round trip of 40 ms between two requests costs a seventh. On the
/// simulated link 512 MiB come in 1,784 ms with 64 MiB, in 1,664 with 96, and no sooner with more.
pub const MAX_WINDOW_BYTES: u64 = 96 * MIB;
/// Streams that carry one file's bytes ahead of its readers, each on a connection of its own.
/// More would be faster; each costs its host a connection.
pub const MAX_STREAMS: usize = 16;
/// One request's part of a large window, in whole blocks.
const MAX_STRIPE_BYTES: u64 = MAX_WINDOW_BYTES / MAX_STREAMS as u64 / MIB * MIB;
/// The last parts of a file are this exact: in whole blocks, 67 MiB would be 13 parts for 16 connections.
const LAST_STEP_BYTES: u64 = 256 * KIB;
/// A look at the head of a file is no longer than this.
const PROBE_BYTES: u64 = 128 * KIB;
/// Bytes read in order after which a reader is believed to go on to the end.
const TRUSTED_BYTES: u64 = MIB;
/// The window of a trusted reader, for each byte that it read in order. The kernel's first two
/// megabytes then give each connection three: with 8 they gave it one, behind which it idled a round
/// trip while it could have carried (128 MiB over new connections in 618 ms instead of 507).
const TRUSTED_GROWTH: u64 = 24;
/// A connection is opened for so much of a file that is read through.
const CONNECTION_BYTES: u64 = 4 * MIB;
/// How far behind its cursor a late read still belongs to it, at least and at most.
const BEHIND_BYTES: (u64, u64) = (MIB, 8 * MIB);
/// A cursor without a read while the file had this many times as many reads as it has cursors is
/// no longer fetched for.
const LIVE_ROUNDS: u64 = 8;

/// How a read relates to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// It moves a cursor forward.
    Continues,
    /// It lies just behind a cursor: late or repeated.
    Near,
    /// A seek, or the first read.
    Jump,
}

/// The cursors of one file, the one of the latest read last.
#[derive(Debug, Default)]
pub struct Windows {
    cursors: Vec<Cursor>,
    reads: u64,
}

#[derive(Debug, Clone, Copy)]
struct Cursor {
    /// Where it began.
    start: u64,
    /// The end of what was read in order.
    pos: u64,
    /// Up to here everything was asked for already.
    planned: u64,
    /// Bytes read in order since `start`.
    consumed: u64,
    /// The same before the latest read.
    consumed_before: u64,
    window: u64,
    /// Whether it is read in order and so has a claim to a window, even if there was no memory.
    in_order: bool,
    /// The number of the latest read.
    last_read: u64,
}

impl Cursor {
    fn new(range: &ByteRange, number: u64) -> Self {
        Self {
            start: range.start,
            pos: range.end,
            planned: range.end,
            consumed: range.len(),
            consumed_before: 0,
            window: 0,
            in_order: false,
            last_read: number,
        }
    }

    fn behind(&self) -> u64 {
        self.window.clamp(BEHIND_BYTES.0, BEHIND_BYTES.1)
    }

    fn order_of(&self, range: &ByteRange) -> Order {
        if range.end + self.behind() < self.pos || range.start > self.pos + self.window {
            return Order::Jump;
        }
        if range.end > self.pos {
            Order::Continues
        } else {
            Order::Near
        }
    }

    fn wish(&self) -> u64 {
        let wish = match self.consumed_before {
            ..PROBE_BYTES => return 0,
            before @ ..TRUSTED_BYTES => 2 * before,
            _ => TRUSTED_GROWTH * self.consumed,
        };
        wish.clamp(MIN_WINDOW_BYTES, MAX_WINDOW_BYTES)
    }

    fn wanted(&self) -> ByteRange {
        let ahead = self.pos + self.window;
        ByteRange::new(
            self.pos.saturating_sub(self.behind()),
            ahead.max(self.planned),
        )
    }

    /// The next part of the window to ask for, in a file of `size_bytes` of which `under_way` are
    /// still to come in by requests that were made.
    fn next_stripe(&self, size_bytes: u64, under_way: u64) -> Option<ByteRange> {
        let target = (self.pos + self.window).min(size_bytes);
        let from = self.planned.max(self.pos);
        let left = size_bytes.saturating_sub(from);
        let stripe = stripe_bytes(self.window).min(last_stripes_bytes(left + under_way));
        if target <= from || (target - from < stripe && target < size_bytes) {
            return None;
        }
        let end = from + stripe;
        let step = match stripe {
            ..MIB => 1,
            _ if stripe.is_multiple_of(MIB) => MIB,
            _ => LAST_STEP_BYTES,
        };
        let aligned = end - end % step;
        Some(ByteRange::new(from, aligned.max(from + 1).min(target)))
    }
}

impl Windows {
    /// Takes note of a read. Where it [`Order::Continues`], [`Windows::set_window`] is expected
    /// next with what the budget allows of [`Windows::wish`].
    pub fn on_read(&mut self, range: &ByteRange) -> Order {
        self.reads += 1;
        let (index, order) = self.find(range);
        let mut cursor = match index {
            Some(index) => self.cursors.remove(index),
            None => Cursor::new(range, self.reads),
        };
        cursor.last_read = self.reads;
        if order == Order::Continues {
            cursor.consumed_before = cursor.consumed;
            cursor.consumed += range.end - cursor.pos.max(range.start);
            cursor.pos = range.end;
            self.absorb_into(&mut cursor);
        }
        cursor.planned = cursor.planned.max(cursor.pos);
        self.forget_one_if_full();
        self.retire_idle();
        self.cursors.push(cursor);
        order
    }

    /// The best match: a cursor that the read continues, the nearest one first, else one that it
    /// is near to.
    fn find(&self, range: &ByteRange) -> (Option<usize>, Order) {
        let best = self
            .cursors
            .iter()
            .enumerate()
            .map(|(index, cursor)| (index, cursor.order_of(range), cursor.pos))
            .filter(|(_, order, _)| *order != Order::Jump)
            .min_by_key(|(_, order, pos)| (*order == Order::Near, pos.abs_diff(range.start)));
        match best {
            Some((index, order, _)) => (Some(index), order),
            None => (None, Order::Jump),
        }
    }

    /// A cursor that began where another has now arrived was a part of it, read out of order.
    fn absorb_into(&mut self, cursor: &mut Cursor) {
        self.cursors.retain(|other| {
            let inside = other.start <= cursor.pos && other.pos > cursor.pos;
            let joins = inside && other.start >= cursor.start;
            if joins {
                cursor.consumed += other.pos - cursor.pos.max(other.start);
                cursor.pos = other.pos;
                cursor.planned = cursor.planned.max(other.planned);
            }
            !joins
        });
    }

    /// Makes room for one more: cursors that were never continued go first, then the idlest.
    fn forget_one_if_full(&mut self) {
        if self.cursors.len() < MAX_CURSORS {
            return;
        }
        let oldest = self
            .cursors
            .iter()
            .enumerate()
            .min_by_key(|(_, c)| (c.window > 0, c.last_read))
            .map(|(index, _)| index);
        if let Some(index) = oldest {
            self.cursors.remove(index);
        }
    }

    fn retire_idle(&mut self) {
        let limit = LIVE_ROUNDS * (self.cursors.len() as u64 + 1);
        for cursor in &mut self.cursors {
            if self.reads - cursor.last_read > limit && cursor.in_order {
                cursor.window = 0;
                cursor.in_order = false;
                cursor.planned = cursor.pos;
                cursor.consumed = cursor.consumed.min(TRUSTED_BYTES);
            }
        }
    }

    /// The window that the latest read's cursor should have.
    pub fn wish(&self) -> u64 {
        self.cursors.last().map_or(0, Cursor::wish)
    }

    /// The windows of all cursors but the latest read's.
    pub fn others(&self) -> u64 {
        let before = self.cursors.len().saturating_sub(1);
        self.cursors[..before].iter().map(|c| c.window).sum()
    }

    /// What the latest read's cursor may have of the `granted` bytes that all cursors share: what
    /// the others leave, and an equal part at most.
    pub fn part_of(&self, granted: u64) -> u64 {
        let before = self.cursors.len().saturating_sub(1);
        let active = self.cursors[..before].iter().filter(|c| c.in_order);
        let part = granted / (active.count() as u64 + 1);
        part.min(granted.saturating_sub(self.others()))
    }

    /// Sets the window of the latest read's cursor; less than [`MIN_WINDOW_BYTES`] is none.
    pub fn set_window(&mut self, bytes: u64) {
        if let Some(cursor) = self.cursors.last_mut() {
            cursor.in_order = true;
            cursor.window = if bytes < MIN_WINDOW_BYTES { 0 } else { bytes };
        }
    }

    /// Up to where one request should go that must bring `range`, the latest read: a part of the
    /// window, so that the reader's own bytes and those after them share a round trip.
    pub fn extend(&mut self, range: &ByteRange, size_bytes: u64) -> ByteRange {
        let Some(cursor) = self.cursors.last_mut().filter(|c| c.window > 0) else {
            return *range;
        };
        let ahead = (cursor.pos + cursor.window).min(size_bytes);
        let end = if cursor.window <= MIB {
            ahead
        } else {
            let end = range.start + stripe_bytes(cursor.window);
            (end - end % MIB).min(ahead)
        };
        let whole = ByteRange::new(range.start, range.end.max(end));
        cursor.planned = cursor.planned.max(whole.end);
        whole
    }

    /// The next request ahead of any reader, the latest reader's first, in a file of `size_bytes`
    /// of which `under_way` are still to come in by requests that were made. Call
    /// [`Windows::planned`] when it was made.
    pub fn next_stripe(&self, size_bytes: u64, under_way: u64) -> Option<ByteRange> {
        self.cursors
            .iter()
            .rev()
            .find_map(|cursor| cursor.next_stripe(size_bytes, under_way))
    }

    /// Notes that `stripe`, from [`Windows::next_stripe`], was asked for or is there.
    pub fn planned(&mut self, stripe: &ByteRange) {
        for cursor in &mut self.cursors {
            if cursor.planned.max(cursor.pos) == stripe.start {
                cursor.planned = stripe.end;
            }
        }
    }

    /// Whether some reader is about to want bytes of `range`.
    pub fn wants(&self, range: &ByteRange) -> bool {
        self.cursors
            .iter()
            .any(|cursor| !cursor.wanted().intersect(range).is_empty())
    }

    /// The end of the furthest window.
    pub fn furthest(&self) -> u64 {
        self.cursors
            .iter()
            .map(|c| c.wanted().end)
            .max()
            .unwrap_or(0)
    }

    /// Whether nobody has read since all were forgotten.
    pub fn is_empty(&self) -> bool {
        self.cursors.is_empty()
    }

    /// Forgets all readers.
    pub fn clear(&mut self) {
        self.cursors.clear();
    }
}

/// The size of one request of a window: an equal part of it, so that the window is spread over
/// [`MAX_STREAMS`] connections, in whole blocks, 1 MiB at least where the window has several.
fn stripe_bytes(window: u64) -> u64 {
    if window < 2 * MIB {
        return window / 2;
    }
    let part = window / MAX_STREAMS as u64;
    (part - part % MIB).clamp(MIB, MAX_STRIPE_BYTES)
}

/// The largest request with `left` bytes still to come before the file's end, so that all
/// connections finish at about the same time, and no bytes wait for a second request in a row.
fn last_stripes_bytes(left: u64) -> u64 {
    let equal = left.div_ceil(MAX_STREAMS as u64);
    equal.next_multiple_of(LAST_STEP_BYTES).max(MIB)
}

/// The connections that reading a file of `size_bytes` from its start to its end will use, to be
/// opened at its first touch: the second request would else wait for them as long as for its bytes.
pub fn connections_for(size_bytes: u64) -> usize {
    let stripes = usize::try_from(size_bytes / CONNECTION_BYTES).unwrap_or(MAX_STREAMS);
    stripes.clamp(1, MAX_STREAMS)
}

#[cfg(test)]
mod link;
#[cfg(test)]
mod tests;
