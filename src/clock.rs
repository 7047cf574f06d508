//! Time as a dependency, so that expiry, listing ages and backoff are tested without sleeping.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

/// Where the program reads the time. Everything that compares times asks this, nothing else.
pub trait Clock: Send + Sync {
    /// Wall-clock time, for what the services say (expiry, creation times).
    fn now(&self) -> SystemTime;
    /// Monotonic time, for ages, deadlines and backoff.
    fn monotonic(&self) -> Instant;
}

/// The machine's own clocks.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

/// A clock that moves only when a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    started: (SystemTime, Instant),
    elapsed: Mutex<Duration>,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn at(now: SystemTime) -> Self {
        Self {
            started: (now, Instant::now()),
            elapsed: Mutex::new(Duration::ZERO),
        }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        *self.elapsed.lock().unwrap_or_else(|e| e.into_inner()) += by;
    }

    fn elapsed(&self) -> Duration {
        *self.elapsed.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        self.started.0 + self.elapsed()
    }

    fn monotonic(&self) -> Instant {
        self.started.1 + self.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        let start = clock.monotonic();
        assert_eq!(clock.now(), SystemTime::UNIX_EPOCH);
        clock.advance(Duration::from_secs(3));
        assert_eq!(clock.monotonic() - start, Duration::from_secs(3));
        assert_eq!(clock.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(3));
    }
}
