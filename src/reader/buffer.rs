//! Memory for blocks, used again and again.
//!
//! A cache that is full gives up one block for each that comes. Through the general allocator that
//! costs up to a half more memory than is asked for (measured: 174 to 220 MiB resident where 128 were
//! cached), because blocks and small pieces share its arenas and leave holes. So whatever is worth a
//! few pages is a mapping of its own, which goes back to the [`Pool`] when the last reader is done
//! with it, and to the system beyond a few spare ones.
//!
//! Promise: a block that was filled in order shows only what was written into it since it was taken. Where the system
//! grants no mapping (`vm.max_map_count`), ordinary memory serves.
//!
//! Lock order: the list of spare mappings is innermost, below the cache: a block may be dropped
//! under any lock.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use memmap2::MmapMut;

use super::lock::Lock;

/// Less is left to the general allocator.
const MAPPED_BYTES: usize = 32 * 1024;
const PAGE_BYTES: usize = 4096;
/// Spare memory at most: what twelve streams drop and take again between two evictions is less.
const MOST_SPARE_BYTES: u64 = 8 * 1024 * 1024;

/// Hands out blocks. Clones share the spare ones.
#[derive(Clone)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    spare: Lock<Spare>,
    most_spare_bytes: u64,
    /// Bytes of all blocks that were taken and not dropped, and of the spare ones.
    held_bytes: AtomicU64,
}

/// The one that was given back last is used first: it may still be in a processor's cache.
#[derive(Default)]
struct Spare {
    mappings: Vec<MmapMut>,
    bytes: u64,
}

impl Shared {
    fn take_spare(&self, len: usize) -> Option<MmapMut> {
        let mut spare = self.spare.lock();
        let index = spare.mappings.iter().rposition(|m| m.len() == len)?;
        spare.bytes -= len as u64;
        Some(spare.mappings.remove(index))
    }

    fn give_back(&self, mapping: MmapMut) {
        let len = mapping.len() as u64;
        let mut dropped = vec![mapping];
        {
            let mut spare = self.spare.lock();
            spare.mappings.append(&mut dropped);
            spare.bytes += len;
            while spare.bytes > self.most_spare_bytes {
                let oldest = spare.mappings.remove(0);
                spare.bytes -= oldest.len() as u64;
                dropped.push(oldest);
            }
        }
        let freed: u64 = dropped.iter().map(|m| m.len() as u64).sum();
        self.held_bytes.fetch_sub(freed, Ordering::Relaxed);
    }
}

impl Pool {
    /// A pool beside a cache of `cache_bytes`, a sixteenth of which may lie spare.
    pub fn new(cache_bytes: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                spare: Lock::default(),
                most_spare_bytes: (cache_bytes / 16).min(MOST_SPARE_BYTES),
                held_bytes: AtomicU64::new(0),
            }),
        }
    }

    /// An empty block with room for `len` bytes.
    pub fn take(&self, len: usize) -> Block {
        let mapped = (len >= MAPPED_BYTES).then(|| self.mapping(len)).flatten();
        let memory = mapped.unwrap_or_else(|| {
            let held = &self.shared.held_bytes;
            held.fetch_add(len as u64, Ordering::Relaxed);
            Memory::Heap(vec![0; len])
        });
        Block {
            memory,
            filled: 0,
            shared: Some(Arc::clone(&self.shared)),
        }
    }

    fn mapping(&self, len: usize) -> Option<Memory> {
        let len = len.next_multiple_of(PAGE_BYTES);
        if let Some(spare) = self.shared.take_spare(len) {
            return Some(Memory::Mapped(spare));
        }
        let mapping = MmapMut::map_anon(len).ok()?;
        let held = &self.shared.held_bytes;
        held.fetch_add(len as u64, Ordering::Relaxed);
        Some(Memory::Mapped(mapping))
    }

    /// `bytes` in memory of their own.
    pub fn copy(&self, bytes: &[u8]) -> Bytes {
        let mut block = self.take(bytes.len());
        block.extend(bytes);
        block.freeze()
    }

    /// Memory of all blocks that are in use, by whomever, and of the spare ones.
    pub fn held_bytes(&self) -> u64 {
        self.shared.held_bytes.load(Ordering::Relaxed)
    }
}

enum Memory {
    Mapped(MmapMut),
    Heap(Vec<u8>),
}

impl Memory {
    fn bytes(&self) -> &[u8] {
        match self {
            Memory::Mapped(mapping) => mapping,
            Memory::Heap(heap) => heap,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Memory::Mapped(mapping) => mapping,
            Memory::Heap(heap) => heap,
        }
    }
}

/// Memory that is filled from its start. The default one has room for nothing.
pub(super) struct Block {
    memory: Memory,
    filled: usize,
    shared: Option<Arc<Shared>>,
}

impl Default for Block {
    fn default() -> Self {
        Self {
            memory: Memory::Heap(Vec::new()),
            filled: 0,
            shared: None,
        }
    }
}

impl Block {
    /// Appends `bytes`, which must fit.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.write(self.filled, bytes);
    }

    /// Writes `bytes` at `at`; they must fit. The block then counts as filled up to their end at
    /// least, so whoever writes out of order must write every byte before it is frozen.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        self.memory.bytes_mut()[at..end].copy_from_slice(bytes);
        self.filled = self.filled.max(end);
    }

    /// What was filled, without a copy; the memory goes back when the last part of it is dropped.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory.bytes()[..self.filled]
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else {
            return;
        };
        match std::mem::replace(&mut self.memory, Memory::Heap(Vec::new())) {
            Memory::Mapped(mapping) => shared.give_back(mapping),
            Memory::Heap(heap) => {
                let len = heap.len() as u64;
                shared.held_bytes.fetch_sub(len, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn pool() -> Pool {
        Pool::new(64 * MIB as u64)
    }

    #[test]
    fn a_block_shows_only_what_was_written_into_it() {
        let pool = pool();
        drop(pool.copy(&[7; MIB]));
        let mut block = pool.take(MIB);
        assert_eq!(&*block, &[0; 0]);
        block.extend(b"ab");
        block.extend(b"c");
        assert_eq!(block.freeze(), Bytes::from_static(b"abc"));
    }

    #[test]
    fn a_few_blocks_are_kept_to_be_used_again_and_the_others_given_back() {
        let pool = pool();
        let held_mib = || pool.held_bytes() / MIB as u64;
        let blocks: Vec<Block> = (0..20).map(|_| pool.take(MIB)).collect();
        assert_eq!(held_mib(), 20);
        drop(blocks);
        assert_eq!(held_mib(), 4);
        let again = pool.take(MIB - 5);
        assert_eq!(held_mib(), 4);
        let other = pool.take(2 * MIB);
        assert_eq!(held_mib(), 6);
        drop((again, other));
        assert_eq!(held_mib(), 4);
    }

    #[test]
    fn what_is_small_is_counted_too() {
        let pool = pool();
        let small = pool.copy(&[1; 1000]);
        assert_eq!(pool.held_bytes(), 1000);
        drop(small);
        assert_eq!(pool.held_bytes(), 0);
    }

    #[test]
    fn a_part_of_a_block_keeps_it_from_being_used_again() {
        let pool = pool();
        let part = pool.copy(&[1; MIB]).slice(5..10);
        let other = pool.copy(&[2; MIB]);
        assert_eq!(part, Bytes::from_static(&[1; 5]));
        drop((part, other));
    }
}
