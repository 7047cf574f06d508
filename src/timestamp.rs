//! Points in time as the services write them. Pure.
//!
//! Promise: what can't be read as a time is `None`, never a panic and never a time that is made up.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// What jiff reads of a second's fraction; the services may write more.
const MAX_FRACTION_DIGITS: usize = 9;

/// Reads RFC 3339, in its extended and its basic form (`20240801T010203Z`), with a fraction of any
/// length. A time without an offset is UTC.
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let text = shorten_fraction(text.trim());
    let timestamp = text.parse::<Timestamp>().ok().or_else(|| {
        let local = text.parse::<DateTime>().ok()?;
        Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })?;
    Some(SystemTime::from(timestamp))
}

/// RFC 3339 in UTC, with as many digits of the second's fraction as it needs.
pub fn to_rfc3339(time: SystemTime) -> Option<String> {
    Some(Timestamp::try_from(time).ok()?.to_string())
}

/// `ms` milliseconds after 1970.
pub fn from_epoch_ms(ms: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms))
}

/// `seconds` after 1970.
pub fn from_epoch_seconds(seconds: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Drops the digits of a fraction that are finer than a nanosecond.
fn shorten_fraction(text: &str) -> String {
    let Some(dot) = text.find('.') else {
        return text.to_string();
    };
    let fraction = &text[dot + 1..];
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    let kept = digits.min(MAX_FRACTION_DIGITS);
    format!("{}{}", &text[..dot + 1 + kept], &fraction[digits..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> Option<u128> {
        let since = parse_rfc3339(text)?.duration_since(SystemTime::UNIX_EPOCH);
        since.ok().map(|d| d.as_millis())
    }

    #[test]
    fn the_pages_times_are_read() {
        assert_eq!(ms("2024-08-01T01:02:03.456Z"), Some(1_722_474_123_456));
        assert_eq!(ms("2023-11-07T05:31:56Z"), Some(1_699_335_116_000));
    }

    #[test]
    fn an_offset_counts_and_none_means_utc() {
        assert_eq!(ms("2023-11-07T06:31:56+01:00"), Some(1_699_335_116_000));
        assert_eq!(ms("2023-11-07T05:31:56"), Some(1_699_335_116_000));
        assert_eq!(ms("2023-11-07 05:31:56.5"), Some(1_699_335_116_500));
        assert_eq!(ms("20231107T053156Z"), Some(1_699_335_116_000));
    }

    #[test]
    fn a_fraction_may_have_any_length() {
        assert_eq!(ms("2023-11-07T05:31:56.1Z"), Some(1_699_335_116_100));
        assert_eq!(
            ms("2023-11-07T05:31:56.123456789012345+00:00"),
            Some(1_699_335_116_123)
        );
        assert_eq!(ms("2023-11-07T05:31:56.123456"), Some(1_699_335_116_123));
    }

    #[test]
    fn rubbish_is_no_time() {
        for text in [
            "",
            "yesterday",
            "2023-13-40T00:00:00Z",
            "1748919477350",
            "2023-11-07T",
            ".",
            "é.1",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
        assert!(from_epoch_seconds(u64::MAX).is_none());
    }
}
