//! Half-open byte ranges and the two HTTP headers that speak of them. Pure.

use std::fmt;

/// The bytes `start..end` of a file; `end` is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteRange {
    pub start: u64,
    pub end: u64,
}

impl ByteRange {
    /// `start..end`; an `end` before `start` makes an empty range at `start`.
    pub fn new(start: u64, end: u64) -> Self {
        Self {
            start,
            end: end.max(start),
        }
    }

    /// `len` bytes from `start`, ending at `u64::MAX` at the latest.
    pub fn at(start: u64, len: u64) -> Self {
        Self::new(start, start.saturating_add(len))
    }

    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether all bytes of `other` are within this.
    pub fn contains(&self, other: &ByteRange) -> bool {
        other.is_empty() || (self.start <= other.start && other.end <= self.end)
    }

    /// The bytes both ranges have; empty where there are none.
    pub fn intersect(&self, other: &ByteRange) -> ByteRange {
        ByteRange::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// What is left of the range without `other`: nothing, one range or two.
    pub fn minus(&self, other: &ByteRange) -> impl Iterator<Item = ByteRange> + use<> {
        let (before, after) = if self.intersect(other).is_empty() {
            (*self, ByteRange::new(self.end, self.end))
        } else {
            (
                ByteRange::new(self.start, other.start),
                ByteRange::new(other.end.max(self.start), self.end),
            )
        };
        [before, after]
            .into_iter()
            .filter(|range| !range.is_empty())
    }

    /// What is left of the range in a file of `size_bytes`.
    pub fn clamp_to(&self, size_bytes: u64) -> ByteRange {
        ByteRange::new(self.start.min(size_bytes), self.end.min(size_bytes))
    }

    /// The value of a `Range` header for a range that isn't empty.
    pub fn to_header(&self) -> String {
        format!("bytes={}-{}", self.start, self.end.saturating_sub(1))
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// A `Content-Range` header: what part was sent (none for an unsatisfied `bytes */N`), and of how
/// many bytes (none for `*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    pub sent: Option<ByteRange>,
    pub total_bytes: Option<u64>,
}

impl ContentRange {
    /// Reads `bytes 0-99/1234`, `bytes 0-99/*` and `bytes */1234`; anything else, and a part that
    /// does not lie within its own total, is `None`.
    pub fn parse(header: &str) -> Option<Self> {
        let rest = header.trim().strip_prefix("bytes")?.trim_start();
        let (part, total) = rest.split_once('/')?;
        let total_bytes = match total.trim() {
            "*" => None,
            digits => Some(decimal(digits)?),
        };
        let sent = match part.trim() {
            "*" => None,
            span => {
                let (first, last) = span.split_once('-')?;
                let (first, last) = (decimal(first)?, decimal(last)?);
                if last < first || total_bytes.is_some_and(|total| last >= total) {
                    return None;
                }
                Some(ByteRange::new(first, last.checked_add(1)?))
            }
        };
        if sent.is_none() && total_bytes.is_none() {
            return None;
        }
        Some(Self { sent, total_bytes })
    }
}

fn decimal(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_the_last_byte_inclusively() {
        assert_eq!(ByteRange::at(10, 5).to_header(), "bytes=10-14");
    }

    #[test]
    fn clamping_a_range_beyond_the_end_leaves_nothing() {
        assert!(ByteRange::at(100, 5).clamp_to(50).is_empty());
        assert_eq!(ByteRange::at(48, 5).clamp_to(50), ByteRange::new(48, 50));
    }

    #[test]
    fn subtracting_leaves_nothing_one_part_or_two() {
        let range = ByteRange::new(10, 20);
        for ((start, end), left) in [
            ((0, 10), vec![(10, 20)]),
            ((15, 15), vec![(10, 20)]),
            ((0, 12), vec![(12, 20)]),
            ((18, 30), vec![(10, 18)]),
            ((12, 18), vec![(10, 12), (18, 20)]),
            ((10, 20), vec![]),
            ((0, 30), vec![]),
        ] {
            let rest: Vec<_> = range.minus(&ByteRange::new(start, end)).collect();
            let left: Vec<_> = left.iter().map(|(a, b)| ByteRange::new(*a, *b)).collect();
            assert_eq!(rest, left, "{start}..{end}");
        }
    }

    #[test]
    fn a_content_range_is_read_in_its_three_forms() {
        let parse = ContentRange::parse;
        assert_eq!(
            parse("bytes 0-99/1234"),
            Some(ContentRange {
                sent: Some(ByteRange::new(0, 100)),
                total_bytes: Some(1234)
            })
        );
        assert_eq!(parse("bytes 5-5/*").unwrap().total_bytes, None);
        assert_eq!(parse("bytes */0").unwrap().sent, None);
    }

    #[test]
    fn a_content_range_that_contradicts_itself_is_refused() {
        for bad in [
            "bytes 9-3/20",
            "bytes 0-20/20",
            "bytes */*",
            "items 0-1/2",
            "bytes 0-/5",
            "bytes -1-2/5",
            "bytes 0-18446744073709551615/*",
            "",
        ] {
            assert_eq!(ContentRange::parse(bad), None, "{bad}");
        }
    }
}
