//! A byte-bounded cache of blocks, least recently used first out. Pure: no I/O, no locks.
//!
//! A file is cut into slots of [`SLOT_BYTES`]. An entry holds what is known of one slot as disjoint
//! pieces, each in an allocation of exactly its size, so that a random read of 64 KiB costs 64 KiB
//! and not a slot, and small requests that end out of order push nothing out. Pieces are joined
//! only when a slot has more than [`MAX_PIECES`].
//!
//! Promise: entries and reservations together stay within the capacity, except while the
//! reservations alone exceed it (they are memory already promised to somebody; the caller bounds
//! them). Whatever does not fit is not kept; nothing fails.

use bytes::Bytes;
use lru::LruCache;

use crate::range::ByteRange;

/// The size of an aligned slot: the largest read that the kernel sends (256 pages of 4 KiB).
pub const SLOT_BYTES: u64 = 1024 * 1024;

/// Pieces in one slot: as many as random reads of 64 KiB fit in.
const MAX_PIECES: usize = 16;

/// What a piece costs beside its bytes: the key, the LRU's links and the allocator's header,
/// rounded up, so that a million tiny entries are counted too.
const ENTRY_OVERHEAD_BYTES: u64 = 256;

/// Whether a look-up counts as a use. A reader that goes forward once leaves its blocks to age, so
/// that what was fetched ahead always outlives what was already read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    Use,
    Peek,
}

/// Bytes of a file: `data` starts at `start`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub start: u64,
    pub data: Bytes,
}

impl Piece {
    pub fn range(&self) -> ByteRange {
        ByteRange::at(self.start, self.data.len() as u64)
    }

    /// The part of the piece inside `range`, sharing its memory; `None` where there is none.
    fn within(&self, range: &ByteRange) -> Option<Piece> {
        let part = self.range().intersect(range);
        if part.is_empty() {
            return None;
        }
        let from = (part.start - self.start) as usize;
        let data = self.data.slice(from..from + part.len() as usize);
        Some(Piece {
            start: part.start,
            data,
        })
    }
}

/// One revision of one file, and a slot's number in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Slot {
    revision: u64,
    index: u64,
}

/// See the module's head.
pub struct BlockCache {
    entries: LruCache<Slot, Vec<Piece>>,
    capacity_bytes: u64,
    entry_bytes: u64,
    reserved_bytes: u64,
}

impl BlockCache {
    pub fn new(capacity_bytes: u64) -> Self {
        Self {
            entries: LruCache::unbounded(),
            capacity_bytes,
            entry_bytes: 0,
            reserved_bytes: 0,
        }
    }

    /// Bytes held by entries, their overhead included.
    pub fn entry_bytes(&self) -> u64 {
        self.entry_bytes
    }

    /// Bytes promised by [`BlockCache::reserve`] and not yet released.
    pub fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes
    }

    /// The cached parts of `range`, in order and disjoint, sharing the cache's memory.
    pub fn pieces(&mut self, revision: u64, range: &ByteRange, touch: Touch) -> Vec<Piece> {
        if range.is_empty() {
            return Vec::new();
        }
        let slots = range.start / SLOT_BYTES..=(range.end - 1) / SLOT_BYTES;
        let mut found = Vec::new();
        for index in slots {
            let slot = Slot { revision, index };
            let entry = match touch {
                Touch::Use => self.entries.get(&slot),
                Touch::Peek => self.entries.peek(&slot),
            };
            let pieces = entry.into_iter().flatten();
            found.extend(pieces.filter_map(|piece| piece.within(range)));
        }
        found
    }

    /// Keeps `data`, which starts at `start` and must lie in one slot, as the newest entry.
    pub fn insert(&mut self, revision: u64, start: u64, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let index = start / SLOT_BYTES;
        assert!(
            start + data.len() as u64 <= (index + 1) * SLOT_BYTES,
            "a block must not straddle two slots"
        );
        let slot = Slot { revision, index };
        let mut pieces = self.entries.pop(&slot).unwrap_or_default();
        self.entry_bytes -= cost(&pieces);
        add(&mut pieces, Piece { start, data });
        if pieces.len() > MAX_PIECES {
            pieces = joined(pieces);
        }
        self.entry_bytes += cost(&pieces);
        self.entries.put(slot, pieces);
        self.shrink();
    }

    /// What entries and reservations may be together.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// Counts `bytes` that are about to be allocated outside, making room for them first.
    pub fn reserve(&mut self, bytes: u64) {
        self.reserved_bytes += bytes;
        self.shrink();
    }

    /// Gives back what [`BlockCache::reserve`] took.
    pub fn release(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.reserved_bytes, "released more than reserved");
        self.reserved_bytes = self.reserved_bytes.saturating_sub(bytes);
    }

    fn shrink(&mut self) {
        while self.entry_bytes + self.reserved_bytes > self.capacity_bytes {
            let Some((_, oldest)) = self.entries.pop_lru() else {
                return;
            };
            self.entry_bytes -= cost(&oldest);
        }
    }
}

fn cost(pieces: &[Piece]) -> u64 {
    pieces
        .iter()
        .map(|piece| piece.data.len() as u64 + ENTRY_OVERHEAD_BYTES)
        .sum()
}

/// Adds what `new` has beyond `pieces`, which stay sorted and disjoint. Where both have a byte they
/// have the same: one revision.
fn add(pieces: &mut Vec<Piece>, new: Piece) {
    let range = new.range();
    pieces.retain(|old| !range.contains(&old.range()));
    let mut gaps = vec![range];
    for old in pieces.iter() {
        gaps = gaps
            .iter()
            .flat_map(|gap| gap.minus(&old.range()))
            .collect();
    }
    for gap in gaps {
        let Some(mut part) = new.within(&gap) else {
            continue;
        };
        if part.data.len() < new.data.len() {
            // A slice would keep the whole allocation alive.
            part.data = Bytes::copy_from_slice(&part.data);
        }
        let index = pieces.partition_point(|old| old.start < part.start);
        pieces.insert(index, part);
    }
}

/// `pieces` with neighbours that touch made one, and without the smallest if that was not enough.
fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
    for piece in pieces {
        match runs.last_mut() {
            Some((start, run)) if *start + run.len() as u64 == piece.start => {
                run.extend_from_slice(&piece.data);
            }
            _ => runs.push((piece.start, piece.data.to_vec())),
        }
    }
    if runs.len() > MAX_PIECES
        && let Some(smallest) = (0..runs.len()).min_by_key(|index| runs[*index].1.len())
    {
        runs.remove(smallest);
    }
    runs.into_iter()
        .map(|(start, run)| Piece {
            start,
            data: Bytes::from(run.into_boxed_slice()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// The byte that every test file has at `offset`.
    fn byte_at(offset: u64) -> u8 {
        (offset.wrapping_mul(2_654_435_761) >> 13) as u8
    }

    fn data(start: u64, len: u64) -> Bytes {
        (start..start + len).map(byte_at).collect()
    }

    fn put(cache: &mut BlockCache, start: u64, len: u64) {
        cache.insert(1, start, data(start, len));
    }

    fn cached(cache: &mut BlockCache, start: u64, end: u64) -> Vec<(u64, u64)> {
        cache
            .pieces(1, &ByteRange::new(start, end), Touch::Peek)
            .iter()
            .map(|p| (p.range().start, p.range().end))
            .collect()
    }

    #[test]
    fn a_part_of_a_block_is_found_without_copying_it() {
        let mut cache = BlockCache::new(4 * MIB);
        let block = data(0, 1000);
        cache.insert(1, 0, block.clone());
        let found = cache.pieces(1, &ByteRange::new(10, 20), Touch::Use);
        assert_eq!(found[0].data, data(10, 10));
        assert_eq!(found[0].data.as_ptr(), block[10..].as_ptr());
    }

    #[test]
    fn a_range_over_several_slots_finds_what_each_has() {
        let mut cache = BlockCache::new(8 * MIB);
        put(&mut cache, MIB / 2, MIB / 2);
        put(&mut cache, 2 * MIB, 100);
        assert_eq!(
            cached(&mut cache, 0, 3 * MIB),
            [(MIB / 2, MIB), (2 * MIB, 2 * MIB + 100)]
        );
    }

    #[test]
    fn revisions_do_not_see_each_other() {
        let mut cache = BlockCache::new(MIB);
        put(&mut cache, 0, 10);
        assert!(
            cache
                .pieces(2, &ByteRange::new(0, 10), Touch::Use)
                .is_empty()
        );
    }

    #[test]
    fn only_the_new_part_of_an_overlapping_insert_is_kept() {
        for (start, len, parts) in [
            (200, 100, vec![(100, 200), (200, 300)]),
            (150, 100, vec![(100, 200), (200, 250)]),
            (0, 100, vec![(0, 100), (100, 200)]),
            (50, 100, vec![(50, 100), (100, 200)]),
            (120, 10, vec![(100, 200)]),
            (50, 300, vec![(50, 350)]),
            (300, 10, vec![(100, 200), (300, 310)]),
        ] {
            let mut cache = BlockCache::new(MIB);
            put(&mut cache, 100, 100);
            put(&mut cache, start, len);
            assert_eq!(cached(&mut cache, 0, MIB), parts, "{start}+{len}");
            for piece in cache.pieces(1, &ByteRange::new(0, MIB), Touch::Use) {
                assert_eq!(piece.data, data(piece.start, piece.data.len() as u64));
            }
        }
    }

    #[test]
    fn an_insert_over_several_pieces_fills_the_gaps_between_them() {
        let mut cache = BlockCache::new(MIB);
        for start in [100, 300, 500] {
            put(&mut cache, start, 100);
        }
        put(&mut cache, 50, 500);
        assert_eq!(
            cached(&mut cache, 0, MIB),
            [(50, 500), (500, 600)],
            "pieces inside the new one give way to it"
        );
    }

    #[test]
    fn a_slot_in_many_pieces_is_joined_where_they_touch() {
        let mut cache = BlockCache::new(MIB);
        for piece in 0..=MAX_PIECES as u64 {
            put(&mut cache, piece * 100, 100);
        }
        assert_eq!(cached(&mut cache, 0, MIB), [(0, 1700)]);
        assert_eq!(cache.entry_bytes(), 1700 + ENTRY_OVERHEAD_BYTES);
    }

    #[test]
    fn a_slot_in_too_many_pieces_loses_the_smallest() {
        let mut cache = BlockCache::new(MIB);
        for piece in 0..=MAX_PIECES as u64 {
            put(&mut cache, piece * 1000, if piece == 3 { 50 } else { 100 });
        }
        let pieces = cached(&mut cache, 0, MIB);
        assert_eq!(pieces.len(), MAX_PIECES);
        assert!(!pieces.contains(&(3000, 3050)));
    }

    #[test]
    fn the_least_recently_used_entry_leaves_first_and_a_peek_is_no_use() {
        let mut cache = BlockCache::new(3 * (MIB + ENTRY_OVERHEAD_BYTES));
        for slot in 0..3 {
            put(&mut cache, slot * MIB, MIB);
        }
        cache.pieces(1, &ByteRange::new(0, 1), Touch::Use);
        cache.pieces(1, &ByteRange::new(MIB, MIB + 1), Touch::Peek);
        put(&mut cache, 3 * MIB, MIB);
        let starts: Vec<u64> = cached(&mut cache, 0, 4 * MIB)
            .iter()
            .map(|p| p.0 / MIB)
            .collect();
        assert_eq!(starts, [0, 2, 3]);
    }

    #[test]
    fn a_reservation_makes_room_and_counts_until_it_is_released() {
        let mut cache = BlockCache::new(2 * (MIB + ENTRY_OVERHEAD_BYTES));
        put(&mut cache, 0, MIB);
        put(&mut cache, MIB, MIB);
        cache.reserve(MIB);
        assert_eq!(cached(&mut cache, 0, 2 * MIB).len(), 1);
        cache.reserve(5 * MIB);
        assert_eq!(cache.entry_bytes(), 0);
        put(&mut cache, 0, MIB);
        assert_eq!(cached(&mut cache, 0, MIB), []);
        cache.release(6 * MIB);
        put(&mut cache, 0, MIB);
        assert_eq!(cached(&mut cache, 0, MIB).len(), 1);
    }

    #[test]
    fn a_block_larger_than_the_cache_is_not_kept() {
        let mut cache = BlockCache::new(1000);
        put(&mut cache, 0, 2000);
        assert_eq!(cached(&mut cache, 0, MIB), []);
        assert_eq!(cache.entry_bytes(), 0);
    }

    #[test]
    #[should_panic(expected = "straddle")]
    fn a_block_over_two_slots_is_a_programming_error() {
        put(&mut BlockCache::new(4 * MIB), MIB - 1, 2);
    }

    #[test]
    fn random_inserts_never_exceed_the_capacity_nor_return_a_wrong_byte() {
        let capacity = 2 * MIB;
        let mut cache = BlockCache::new(capacity);
        let (mut seed, mut held) = (0x9e37_79b9_7f4a_7c15_u64, 0);
        println!("seed {seed}");
        let mut next = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        for _ in 0..2000 {
            let slot = next(8) * MIB;
            let from = next(MIB);
            let len = (1 + next(300_000)).min(MIB - from);
            put(&mut cache, slot + from, len);
            if next(4) == 0 {
                cache.release(held);
                held = next(MIB);
                cache.reserve(held);
            }
            assert!(cache.entry_bytes() + cache.reserved_bytes() <= capacity);
            let asked = ByteRange::at(next(8 * MIB), 1 + next(3 * MIB));
            let mut at = asked.start;
            for piece in cache.pieces(1, &asked, Touch::Use) {
                assert!(piece.start >= at && piece.range().end <= asked.end);
                at = piece.range().end;
                let last = piece.data.len() - 1;
                for i in [0, last / 3, last / 2, last] {
                    assert_eq!(piece.data[i], byte_at(piece.start + i as u64));
                }
            }
        }
        let real: u64 = cache.entries.iter().map(|(_, p)| cost(p)).sum();
        assert_eq!(real, cache.entry_bytes());
    }
}
