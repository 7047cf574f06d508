//! Which failures are worth another attempt, and when. Pure: no clock is read, nothing sleeps.
//!
//! Promise: a retry is never planned past the budget it was given, so a call ends by its deadline;
//! a wait that a server asked for is kept in full or the call gives up at once.

use std::time::{Duration, SystemTime};

use super::TransportError;
use crate::timestamp::parse_rfc3339;

/// The first wait; each further one is twice the last ...
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// ... up to this. 0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 2 + 2 + ...: about 18 attempts in 30 s.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// How often an answer that can't be read is asked for again. A gateway's passing fault page goes
/// away; a service that changed its format doesn't.
const MALFORMED_RETRIES: u32 = 2;

/// Longest wait believed when a server names one: a wrong date must not silence an account for
/// a year. It is far beyond any deadline, so it only bounds the pause shared between calls.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Whether the same request may succeed later: 408, 425, 429, 500, 502, 503, 504 and the
/// gateways' 520 to 530. Not 501 (will not be there later either) and not 596 (the account must
/// be mended by hand).
pub fn is_passing_status(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504 | 520..=530)
}

/// The wait before attempt `attempt + 2`; `jitter` in `0.0..=1.0` spreads it over half to all of
/// itself, so that calls that failed together don't return together.
pub fn backoff(attempt: u32, jitter: f64) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(2u32.saturating_pow(attempt));
    let jitter = if jitter.is_finite() {
        jitter.clamp(0.0, 1.0)
    } else {
        1.0
    };
    doubled.min(LONGEST_WAIT).mul_f64(0.5 + jitter / 2.0)
}

/// A `Retry-After` value: whole seconds or an HTTP date; also the RFC 3339 date that some bodies
/// carry as `retryAfter`. A date that passed is zero; an hour at most; rubbish is `None`.
pub fn parse_retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = httpdate::parse_http_date(text)
                .ok()
                .or_else(|| parse_rfc3339(text))?;
            at.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

/// The attempts of one call.
#[derive(Debug, Default)]
pub struct Attempts {
    failed: u32,
    malformed: u32,
    waited: Duration,
}

impl Attempts {
    /// Waits already planned, a lower bound of the time the call has taken.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// How long to wait before the next attempt, or `None` where there should be none.
    /// `remaining` is what is left of the call's deadline.
    pub fn next(
        &mut self,
        error: &TransportError,
        remaining: Duration,
        jitter: f64,
    ) -> Option<Duration> {
        let asked = match error {
            TransportError::Connect { .. }
            | TransportError::Timeout { .. }
            | TransportError::Broken { .. } => None,
            TransportError::Status {
                status,
                retry_after,
                ..
            } if is_passing_status(*status) => *retry_after,
            TransportError::Malformed { .. } if self.malformed < MALFORMED_RETRIES => {
                self.malformed += 1;
                None
            }
            TransportError::Status { .. }
            | TransportError::Malformed { .. }
            | TransportError::TooLarge { .. }
            | TransportError::ForbiddenTarget { .. } => return None,
        };
        let wait = backoff(self.failed, jitter).max(asked.unwrap_or_default());
        if wait >= remaining {
            return None;
        }
        self.failed = self.failed.saturating_add(1);
        self.waited += wait;
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(1000);

    fn status(status: u16, retry_after_s: Option<u64>) -> TransportError {
        TransportError::Status {
            host: "api.example".into(),
            status,
            message: String::new(),
            retry_after: retry_after_s.map(Duration::from_secs),
        }
    }

    fn retried(error: &TransportError) -> bool {
        Attempts::default().next(error, LONG, 0.0).is_some()
    }

    #[test]
    fn passing_statuses_are_retried_and_verdicts_are_not() {
        for code in [408, 425, 429, 500, 502, 503, 504, 520, 522, 524, 530] {
            assert!(retried(&status(code, None)), "{code}");
        }
        for code in [
            400, 401, 402, 403, 404, 409, 410, 413, 415, 422, 501, 505, 596, 302,
        ] {
            assert!(!retried(&status(code, None)), "{code}");
        }
    }

    #[test]
    fn network_trouble_is_retried_and_forbidden_or_oversized_answers_are_not() {
        let host = || "h".to_string();
        let reason = String::new;
        assert!(retried(&TransportError::Connect {
            host: host(),
            reason: reason()
        }));
        assert!(retried(&TransportError::Broken {
            host: host(),
            reason: reason()
        }));
        assert!(retried(&TransportError::Timeout { host: host() }));
        assert!(!retried(&TransportError::TooLarge {
            host: host(),
            limit_bytes: 1
        }));
        assert!(!retried(&TransportError::ForbiddenTarget {
            host: host(),
            target: host()
        }));
    }

    #[test]
    fn an_unreadable_answer_is_asked_for_twice_more() {
        let html = TransportError::Malformed {
            host: "h".into(),
            what: "HTML".into(),
        };
        let mut attempts = Attempts::default();
        assert!(attempts.next(&html, LONG, 0.0).is_some());
        assert!(attempts.next(&html, LONG, 0.0).is_some());
        assert!(attempts.next(&html, LONG, 0.0).is_none());
    }

    #[test]
    fn waits_double_up_to_two_seconds() {
        let ms: Vec<_> = (0..7).map(|n| backoff(n, 1.0).as_millis()).collect();
        assert_eq!(ms, [100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(backoff(u32::MAX, 0.0), Duration::from_secs(1));
        assert_eq!(backoff(0, f64::NAN), FIRST_WAIT);
    }

    #[test]
    fn a_servers_wait_is_kept_in_full_or_the_call_gives_up() {
        let mut attempts = Attempts::default();
        let wait = attempts.next(&status(429, Some(7)), Duration::from_secs(8), 0.5);
        assert_eq!(wait, Some(Duration::from_secs(7)));
        assert_eq!(attempts.waited(), Duration::from_secs(7));
        assert_eq!(
            attempts.next(&status(429, Some(7)), Duration::from_secs(7), 0.5),
            None
        );
    }

    #[test]
    fn no_wait_goes_past_the_deadline() {
        let mut attempts = Attempts::default();
        let mut remaining = Duration::from_secs(30);
        let mut tries = 1;
        while let Some(wait) = attempts.next(&status(503, None), remaining, 1.0) {
            assert!(wait < remaining);
            remaining -= wait;
            tries += 1;
        }
        assert_eq!(tries, 19);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = parse_rfc3339("2024-08-01T00:00:00Z").unwrap();
        let parse = |text| parse_retry_after(text, now).map(|d| d.as_secs());
        assert_eq!(parse(" 12 "), Some(12));
        assert_eq!(parse("Thu, 01 Aug 2024 00:01:00 GMT"), Some(60));
        assert_eq!(parse("2024-08-01T00:00:30.000Z"), Some(30));
        assert_eq!(parse("Wed, 31 Jul 2024 00:00:00 GMT"), Some(0));
        assert_eq!(parse("99999999999"), Some(3600));
        assert_eq!(parse("-1"), None);
        assert_eq!(parse("soon"), None);
    }
}
