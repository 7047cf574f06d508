//! What an asset consists of: stored bytes, or synthetic ones computed from their position.
//!
//! Promise: cloning is free, any part can be had without the rest, and no byte is copied on its
//! way to the socket. Synthetic content of any size costs no memory. Its bytes depend on the seed
//! and the position, so that a byte from another asset or another place is noticed by `verify`.

use std::fmt::Write as _;
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

/// The largest piece handed out at once: big enough that a system call costs little.
pub(super) const PIECE_BYTES: u64 = 256 * 1024;
/// Each synthetic piece starts with this many bytes that name its seed and its place; the rest is
/// a part of [`TABLE`], from a place that they decide.
const STAMP_BYTES: u64 = 16;
const TABLE_BYTES: u64 = 4 * 1024 * 1024;

static TABLE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut table = BytesMut::with_capacity(TABLE_BYTES as usize);
    for word in 0..TABLE_BYTES / 8 {
        table.extend_from_slice(&mix(word).to_le_bytes());
    }
    table.freeze()
});

/// The bytes of an asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Stored(Bytes),
    Synthetic { seed: u64, size_bytes: u64 },
}

impl Content {
    /// These very bytes.
    pub fn stored(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Stored(bytes.into()))
    }

    /// `size_bytes` pseudo-random bytes, the same for the same seed, computed when asked for.
    pub fn synthetic(size_bytes: u64, seed: u64) -> Self {
        Self(Kind::Synthetic { seed, size_bytes })
    }

    pub fn len(&self) -> u64 {
        match &self.0 {
            Kind::Stored(bytes) => bytes.len() as u64,
            Kind::Synthetic { size_bytes, .. } => *size_bytes,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes from `offset` on: at least one if `offset` is before `end` and the content's end, at
    /// most [`PIECE_BYTES`], none at or beyond `end`.
    pub fn piece(&self, offset: u64, end: u64) -> Bytes {
        let end = end.min(self.len());
        if offset >= end {
            return Bytes::new();
        }
        let wanted = (end - offset).min(PIECE_BYTES);
        match &self.0 {
            Kind::Stored(bytes) => bytes.slice(offset as usize..(offset + wanted) as usize),
            Kind::Synthetic { seed, .. } => synthetic_piece(*seed, offset, wanted),
        }
    }

    /// The bytes `offset..end`, cut at the content's end.
    pub fn read(&self, offset: u64, end: u64) -> Vec<u8> {
        self.pieces(offset, end).flatten().collect()
    }

    /// Whether `bytes` are what stands at `offset`, all of them within the content.
    pub fn verify(&self, offset: u64, bytes: &[u8]) -> bool {
        let Some(end) = offset.checked_add(bytes.len() as u64) else {
            return false;
        };
        let mut rest = bytes;
        end <= self.len()
            && self.pieces(offset, end).all(|piece| {
                let (head, tail) = rest.split_at(piece.len());
                rest = tail;
                head == piece
            })
    }

    /// SHA-256 in lower-case hexadecimal.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        self.pieces(0, self.len())
            .for_each(|piece| hash.update(&piece));
        hex(&hash.finalize())
    }

    /// The hash where it costs no generating: `None` for synthetic content.
    pub(super) fn stored_sha256(&self) -> Option<String> {
        matches!(self.0, Kind::Stored(_)).then(|| self.sha256())
    }

    fn pieces(&self, offset: u64, end: u64) -> impl Iterator<Item = Bytes> {
        let mut position = offset;
        std::iter::from_fn(move || {
            let piece = self.piece(position, end);
            position += piece.len() as u64;
            (!piece.is_empty()).then_some(piece)
        })
    }
}

fn synthetic_piece(seed: u64, offset: u64, wanted: u64) -> Bytes {
    let (number, within) = (offset / PIECE_BYTES, offset % PIECE_BYTES);
    let place = mix(mix(seed) ^ number);
    if within < STAMP_BYTES {
        let mut stamp = [0; STAMP_BYTES as usize];
        stamp[..8].copy_from_slice(&mix(place).to_le_bytes());
        stamp[8..].copy_from_slice(&place.to_le_bytes());
        let end = (within + wanted).min(STAMP_BYTES);
        return Bytes::copy_from_slice(&stamp[within as usize..end as usize]);
    }
    let start = place % (TABLE_BYTES - PIECE_BYTES) + within;
    let length = wanted.min(PIECE_BYTES - within);
    TABLE.slice(start as usize..(start + length) as usize)
}

/// SplitMix64's output function: every input bit reaches every output bit.
pub(super) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synthetic_bytes_do_not_depend_on_how_they_are_asked_for() {
        let content = Content::synthetic(2 * PIECE_BYTES + 100, 7);
        let whole = content.read(0, content.len());
        assert_eq!(whole.len() as u64, content.len());
        for (offset, end) in [
            (0, 1),
            (3, 20),
            (15, 17),
            (PIECE_BYTES - 1, PIECE_BYTES + 18),
            (2 * PIECE_BYTES, u64::MAX),
        ] {
            let part = content.read(offset, end);
            let expected = &whole[offset as usize..(end.min(content.len())) as usize];
            assert_eq!(part, expected, "{offset}..{end}");
            assert!(content.verify(offset, &part));
        }
    }

    #[test]
    fn a_byte_from_elsewhere_is_noticed() {
        let content = Content::synthetic(8 * PIECE_BYTES, 1);
        let part = content.read(100, 164);
        assert!(!content.verify(101, &part));
        assert!(!content.verify(100 + PIECE_BYTES, &part));
        assert!(!Content::synthetic(8 * PIECE_BYTES, 2).verify(100, &part));
        assert!(!content.verify(content.len() - 10, &part));
        assert!(!content.verify(u64::MAX, &part));
    }

    #[test]
    fn the_hash_is_that_of_the_bytes() {
        assert_eq!(
            Content::stored("abc").sha256(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let synthetic = Content::synthetic(PIECE_BYTES + 5, 3);
        assert_eq!(
            synthetic.sha256(),
            Content::stored(synthetic.read(0, u64::MAX)).sha256()
        );
    }
}
