//! How far to read ahead: pure arithmetic on the reads that came, no I/O, no time but what is
//! passed in.
//!
//! Every file has up to [`MAX_CURSORS`] cursors, one for each place where somebody reads in order
//! (a player has two: picture and sound). A read that continues a cursor grows its window in
//! proportion to what was read in order so far; any other read makes a new cursor without a
//! window, so a random read fetches what was asked and nothing more.
//!
//! The arithmetic: whoever read `n` bytes in order has a window of `2n`, or `8n` beyond
//! [`TRUSTED_BYTES`], and none before [`PROBE_BYTES`]. As long as `n` is small the latest read does not
//! count: it may be the kernel's guess, four times as much as the program took. (Whoever reads 64 KiB
//! in small pieces makes it ask for 32, 128 and 512 KiB.) So a look at the first bytes pulls about a
//! megabyte, and each round trip brings three times what the one before did to whoever goes on.
//!
//! The kernel sends its read-ahead several at a time and out of order, so a read a little behind a
//! cursor, or ahead of it within its window, still belongs to it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::range::ByteRange;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Places in one file that are read in order at the same time.
pub const MAX_CURSORS: usize = 8;
/// The first window, and the least that is worth a request.
pub const MIN_WINDOW_BYTES: u64 = 256 * KIB;
/// The largest window of one cursor: each connection has a stripe of 4 MiB under way, which takes
/// 168 ms at 25 MB/s, so that a round trip of 40 ms between two requests costs a fifth.
pub const MAX_WINDOW_BYTES: u64 = 64 * MIB;
/// Streams that carry one file's bytes ahead of its readers, each on a connection of its own. On the
/// simulated link 12 bring 128 MiB in 664 ms, 14 in 580, 16 in 538; each costs its host a connection.
pub const MAX_STREAMS: usize = 16;
/// One request's part of a large window, in whole blocks.
const MAX_STRIPE_BYTES: u64 = MAX_WINDOW_BYTES / MAX_STREAMS as u64 / MIB * MIB;
/// A look at the head of a file is no longer than this.
const PROBE_BYTES: u64 = 128 * KIB;
/// Bytes read in order after which a reader is believed to go on to the end.
const TRUSTED_BYTES: u64 = MIB;
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
            _ => 8 * self.consumed,
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
        let aligned = if stripe >= MIB { end - end % MIB } else { end };
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
    left.div_ceil(MAX_STREAMS as u64).next_multiple_of(MIB)
}

/// The connections that reading a file of `size_bytes` from its start to its end will use, to be
/// opened at its first touch: the second request would else wait for them as long as for its bytes.
pub fn connections_for(size_bytes: u64) -> usize {
    let stripes = usize::try_from(size_bytes / MAX_STRIPE_BYTES).unwrap_or(MAX_STREAMS);
    stripes.clamp(1, MAX_STREAMS)
}

/// The memory that all windows of all files share. Each holder gets an equal part at least; one
/// that did not read for [`Budget::IDLE`] gives its part back.
#[derive(Debug)]
pub struct Budget {
    total: u64,
    holders: HashMap<u64, (u64, Instant)>,
}

impl Budget {
    /// After so long without a read, a holder's share is free for others.
    pub const IDLE: Duration = Duration::from_secs(5);

    pub fn new(total: u64) -> Self {
        Self {
            total,
            holders: HashMap::new(),
        }
    }

    /// What `holder` may have from now on if it wants `wish` bytes. Never makes the sum exceed
    /// the total.
    pub fn grant(&mut self, holder: u64, wish: u64, now: Instant) -> u64 {
        self.holders
            .retain(|id, (_, at)| *id == holder || now.duration_since(*at) < Self::IDLE);
        self.holders.entry(holder).or_insert((0, now));
        let share = self.total / self.holders.len() as u64;
        let others: u64 = self
            .holders
            .iter()
            .filter(|(id, _)| **id != holder)
            .map(|(_, (bytes, _))| *bytes)
            .sum();
        let granted = wish.min(share).min(self.total.saturating_sub(others));
        self.holders.insert(holder, (granted, now));
        granted
    }

    /// Gives back all that `holder` has.
    pub fn release(&mut self, holder: u64) {
        self.holders.remove(&holder);
    }
}

#[cfg(test)]
mod link;

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 30;

    /// Plays reads with all the budget there is and tells what was asked for in total.
    struct Reader {
        windows: Windows,
    }

    impl Reader {
        fn new() -> Self {
            Self {
                windows: Windows::default(),
            }
        }

        fn read(&mut self, start: u64, len: u64) -> Order {
            let order = self.windows.on_read(&ByteRange::at(start, len));
            if order == Order::Continues {
                self.windows.set_window(self.windows.wish());
            }
            while let Some(stripe) = self.windows.next_stripe(SIZE, 0) {
                self.windows.planned(&stripe);
            }
            order
        }

        fn latest(&self) -> &Cursor {
            self.windows.cursors.last().unwrap()
        }
    }

    #[test]
    fn a_first_read_and_random_reads_want_nothing_ahead() {
        let mut reader = Reader::new();
        for start in [0, 500 * MIB, 20 * MIB, 900 * MIB, 100 * MIB] {
            assert_eq!(reader.read(start, 64 * KIB), Order::Jump);
            assert_eq!(reader.latest().window, 0);
            assert_eq!(reader.latest().planned, start + 64 * KIB);
        }
    }

    #[test]
    fn the_window_grows_with_what_was_read_in_order() {
        let mut reader = Reader::new();
        let mut windows = Vec::new();
        for i in 0..14 {
            reader.read(i * MIB, MIB);
            windows.push(reader.latest().window / MIB);
        }
        assert_eq!(windows[..5], [0, 16, 24, 32, 40]);
        assert_eq!(windows[13], 64);
    }

    #[test]
    fn looking_at_the_head_pulls_less_than_a_megabyte() {
        for (read, head) in [
            (64, 64),
            (64, 128),
            (64, 256),
            (128, 256),
            (16, 256),
            (4, 64),
        ] {
            let mut reader = Reader::new();
            for i in 0..head / read {
                reader.read(i * read * KIB, read * KIB);
            }
            let planned = reader.latest().planned;
            assert!(
                planned <= 768 * KIB,
                "{head} KiB by {read} KiB pulled {planned}"
            );
        }
    }

    #[test]
    fn reads_that_the_kernel_reordered_stay_one_reader() {
        for order in [
            [0, 1, 2, 3, 4, 5],
            [0, 2, 1, 3, 5, 4],
            [1, 0, 2, 4, 3, 5],
            [0, 2, 1, 4, 3, 5],
        ] {
            let mut reader = Reader::new();
            for block in order {
                reader.read(block * MIB, MIB);
            }
            let live: Vec<_> = reader.windows.cursors.iter().collect();
            assert_eq!(live.len(), 1, "{order:?}: {live:?}");
            assert_eq!(live[0].pos, 6 * MIB);
            assert!(live[0].window >= 12 * MIB, "{order:?}");
        }
    }

    #[test]
    fn eight_interleaved_readers_have_a_window_each() {
        let mut reader = Reader::new();
        for step in 0..20 {
            for place in 0..8 {
                let order = reader.read(place * 100 * MIB + step * 128 * KIB, 128 * KIB);
                assert_eq!(order == Order::Jump, step == 0);
            }
        }
        assert_eq!(reader.windows.cursors.len(), 8);
        assert!(reader.windows.cursors.iter().all(|c| c.window >= 2 * MIB));
    }

    #[test]
    fn random_reads_do_not_push_a_reader_in_order_out() {
        let mut reader = Reader::new();
        for step in 0..40 {
            reader.read(step * MIB, MIB);
            reader.read((500 + step * 37 % 400) * MIB + 4 * KIB, 4 * KIB);
        }
        assert!(reader.windows.cursors.iter().any(|c| c.pos == 40 * MIB));
    }

    #[test]
    fn a_place_that_was_left_is_no_longer_wanted() {
        let mut reader = Reader::new();
        for step in 0..8 {
            reader.read(step * MIB, MIB);
        }
        assert!(reader.windows.wants(&ByteRange::at(20 * MIB, MIB)));
        for step in 0..30 {
            reader.read(500 * MIB + step * MIB, MIB);
        }
        assert!(!reader.windows.wants(&ByteRange::at(20 * MIB, MIB)));
    }

    #[test]
    fn a_large_window_is_cut_into_aligned_stripes_for_all_connections() {
        let mut windows = Windows::default();
        windows.on_read(&ByteRange::at(0, 12 * MIB));
        windows.on_read(&ByteRange::at(12 * MIB, 100 * KIB));
        windows.set_window(windows.wish());
        let mut stripes = Vec::new();
        while let Some(stripe) = windows.next_stripe(SIZE, 0) {
            windows.planned(&stripe);
            stripes.push(stripe);
        }
        assert_eq!(stripes[0].start, 12 * MIB + 100 * KIB);
        assert_eq!(stripes[0].end, 16 * MIB);
        assert!(stripes.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert!(stripes[1..].iter().all(|s| s.len() == 4 * MIB));
        let planned: u64 = stripes.iter().map(ByteRange::len).sum();
        assert!(planned <= MAX_WINDOW_BYTES);
    }

    #[test]
    fn the_window_ends_with_the_file() {
        let mut windows = Windows::default();
        windows.on_read(&ByteRange::at(0, 8 * MIB));
        windows.on_read(&ByteRange::at(8 * MIB, MIB));
        windows.set_window(windows.wish());
        let size = 9 * MIB + 5;
        let stripe = windows.next_stripe(size, 0).unwrap();
        assert_eq!(stripe, ByteRange::new(9 * MIB, size));
        windows.planned(&stripe);
        assert_eq!(windows.next_stripe(size, 0), None);
    }

    #[test]
    fn the_last_stripes_are_equal_so_that_no_connection_is_left_alone() {
        let mut windows = Windows::default();
        windows.on_read(&ByteRange::at(0, 12 * MIB));
        windows.on_read(&ByteRange::at(12 * MIB, 4 * MIB));
        windows.set_window(windows.wish());
        let mut lengths: Vec<u64> = Vec::new();
        while let Some(stripe) = windows.next_stripe(48 * MIB, lengths.iter().sum()) {
            windows.planned(&stripe);
            lengths.push(stripe.len());
        }
        assert_eq!(lengths, [2 * MIB; 16]);
    }

    #[test]
    fn a_reader_that_found_no_memory_gets_its_part_from_those_that_have_all() {
        let mut windows = Windows::default();
        let granted = 16 * MIB;
        let mut read = |place: u64, step: u64| {
            if windows.on_read(&ByteRange::at(place + step * MIB, MIB)) == Order::Continues {
                windows.set_window(windows.part_of(granted));
            }
            windows.cursors.last().unwrap().window
        };
        (0..4).for_each(|step| assert!(read(0, step) <= granted));
        read(500 * MIB, 0);
        assert_eq!(read(500 * MIB, 1), 0, "the first has all of it");
        assert_eq!(read(0, 4), 8 * MIB);
        assert_eq!(read(500 * MIB, 2), 8 * MIB);
    }

    #[test]
    fn a_miss_in_a_small_window_takes_the_window_along() {
        let mut windows = Windows::default();
        windows.on_read(&ByteRange::at(0, 128 * KIB));
        let second = ByteRange::at(128 * KIB, 128 * KIB);
        assert_eq!(windows.on_read(&second), Order::Continues);
        windows.set_window(windows.wish());
        let whole = windows.extend(&second, SIZE);
        assert_eq!(whole, ByteRange::new(128 * KIB, (256 + 256) * KIB));
        assert_eq!(windows.next_stripe(SIZE, 0), None);
    }

    #[test]
    fn the_cursors_of_one_file_share_what_it_was_granted() {
        let mut windows = Windows::default();
        let (granted, mut parts) = (16 * MIB, Vec::new());
        for step in 0..12 {
            for place in [0, 500 * MIB] {
                let order = windows.on_read(&ByteRange::at(place + step * MIB, MIB));
                if order == Order::Continues {
                    let part = windows.part_of(granted.min(windows.others() + windows.wish()));
                    windows.set_window(part);
                    parts.push(part);
                }
            }
        }
        assert!(
            parts.iter().rev().take(4).all(|part| *part == 8 * MIB),
            "{parts:?}"
        );
    }

    #[test]
    fn the_budget_is_shared_equally_and_never_exceeded() {
        let start = Instant::now();
        let mut budget = Budget::new(100);
        assert_eq!(budget.grant(1, 500, start), 100);
        assert_eq!(budget.grant(2, 500, start), 0);
        assert_eq!(budget.grant(1, 500, start), 50);
        assert_eq!(budget.grant(2, 30, start), 30);
        assert_eq!(budget.grant(3, 500, start), 20);
    }

    #[test]
    fn an_idle_or_closed_holder_gives_its_share_back() {
        let start = Instant::now();
        let mut budget = Budget::new(100);
        budget.grant(1, 500, start);
        budget.grant(2, 500, start);
        assert_eq!(budget.grant(2, 500, start + Budget::IDLE), 100);
        budget.release(2);
        assert_eq!(budget.grant(3, 500, start + Budget::IDLE), 100);
    }
}
