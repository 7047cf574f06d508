//! When to try again: pure arithmetic.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);

/// The wait before try number `tries` + 1: 100 ms, doubled each time up to 2 s, of which `jitter`
/// (0 to 1) takes away up to a half; never less than the service's `retry_after`.
pub(super) fn delay(tries: u32, jitter: f64, retry_after: Option<Duration>) -> Duration {
    let doubled = FIRST.saturating_mul(1 << tries.min(10)).min(LONGEST);
    let own = doubled.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0);
    own.max(retry_after.unwrap_or_default())
}

/// A random number from 0 to 1, from the keys that the standard library draws for its hash maps.
pub(super) fn jitter() -> f64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u8(0);
    (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_two_seconds_and_obey_the_service() {
        let millis: Vec<_> = (0..7).map(|n| delay(n, 0.0, None).as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(delay(u32::MAX, 1.0, None).as_millis(), 1000);
        let asked = Some(Duration::from_secs(7));
        assert_eq!(delay(0, 0.5, asked), Duration::from_secs(7));
        assert_eq!(
            delay(0, 0.0, Some(Duration::ZERO)),
            Duration::from_millis(100)
        );
    }

    #[test]
    fn jitter_spreads_over_its_range() {
        let drawn: Vec<f64> = (0..200).map(|_| jitter()).collect();
        assert!(drawn.iter().all(|j| (0.0..=1.0).contains(j)));
        assert!(drawn.iter().any(|j| *j < 0.3) && drawn.iter().any(|j| *j > 0.7));
    }
}
