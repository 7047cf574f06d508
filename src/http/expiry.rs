//! When a signed URL stops working, by its own parameters. Pure.
//!
//! Promise: what isn't one of the four known forms, or contradicts itself, is `None`: an expiry
//! that is guessed wrong would renew a good URL at every read.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::GeneralPurposeConfig;
use url::Url;

use crate::timestamp::{from_epoch_seconds, parse_rfc3339};

/// Seconds since 1970 below this (September 2001) are no time of expiry but a duration or rubbish.
const FIRST_PLAUSIBLE_SECONDS: u64 = 1_000_000_000;

/// Longest token payload that is looked at; real ones are a few hundred bytes.
const MAX_JWT_BYTES: usize = 16 * 1024;

/// `_jwt` payloads are base64url, with or without padding.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

/// The parameters that tell an expiry; of each the first counts.
const PARAMETERS: [&str; 6] = [
    "_jwt",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Goog-Date",
    "X-Goog-Expires",
    "Expires",
];

/// The time given by `_jwt` (its payload's `exp`), `X-Amz-Date` + `X-Amz-Expires`, `X-Goog-Date` +
/// `X-Goog-Expires` or `Expires` (seconds since 1970); the earliest where several are there.
pub fn of_url(url: &Url) -> Option<SystemTime> {
    // One pass: a listing has thousands of these, and each decodes its whole query.
    let mut values: [Option<String>; PARAMETERS.len()] = Default::default();
    for (key, value) in url.query_pairs() {
        let named = |name: &&str| key.eq_ignore_ascii_case(name);
        if let Some(at) = PARAMETERS.iter().position(named) {
            values[at].get_or_insert_with(|| value.into_owned());
        }
    }
    let [jwt, amz_date, amz_expires, goog_date, goog_expires, expires] = values;
    [
        jwt.and_then(|jwt| jwt_expiry(&jwt)),
        signed_at_plus(amz_date, amz_expires),
        signed_at_plus(goog_date, goog_expires),
        expires.and_then(|at| plausible(at.parse().ok()?)),
    ]
    .into_iter()
    .flatten()
    .min()
}

fn jwt_expiry(jwt: &str) -> Option<SystemTime> {
    let payload = jwt.split('.').nth(1)?;
    if payload.len() > MAX_JWT_BYTES {
        return None;
    }
    let json = BASE64URL.decode(payload).ok()?;
    let exp = serde_json::from_slice::<serde_json::Value>(&json).ok()?["exp"].as_f64()?;
    // Whole seconds are enough; the cast saturates and makes NaN 0.
    plausible(exp as u64)
}

fn signed_at_plus(date: Option<String>, lifetime: Option<String>) -> Option<SystemTime> {
    let lifetime_seconds: u64 = lifetime?.parse().ok()?;
    parse_rfc3339(&date?)?.checked_add(Duration::from_secs(lifetime_seconds))
}

fn plausible(seconds: u64) -> Option<SystemTime> {
    (seconds >= FIRST_PLAUSIBLE_SECONDS)
        .then(|| from_epoch_seconds(seconds))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(query: &str) -> Option<u64> {
        let url = Url::parse(&format!("https://cdn.example/a.mp4?{query}")).unwrap();
        let since = of_url(&url)?.duration_since(SystemTime::UNIX_EPOCH);
        since.ok().map(|d| d.as_secs())
    }

    #[test]
    fn the_four_forms_are_read() {
        // {"keyHash":"x","exp":1748919477} and the same with a fraction and padding.
        assert_eq!(
            seconds("_jwt=eyJhbGciOiJIUzI1NiJ9.eyJrZXlIYXNoIjoieCIsImV4cCI6MTc0ODkxOTQ3N30.c2ln"),
            Some(1_748_919_477)
        );
        assert_eq!(
            seconds("_jwt=h.eyJleHAiOjE3NDg5MTk0NzcuNX0%3D.s"),
            Some(1_748_919_477)
        );
        assert_eq!(
            seconds("X-Amz-Date=20250603T025757Z&X-Amz-Expires=3600&X-Amz-Signature=ab"),
            Some(1_748_919_477 + 3600)
        );
        assert_eq!(
            seconds("X-Goog-Date=20250603T025757Z&X-Goog-Expires=900"),
            Some(1_748_919_477 + 900)
        );
        assert_eq!(
            seconds("GoogleAccessId=a&Expires=1748919477&Signature=b"),
            Some(1_748_919_477)
        );
    }

    #[test]
    fn the_earliest_of_several_counts() {
        assert_eq!(
            seconds("Expires=1748919999&X-Goog-Date=20250603T025757Z&X-Goog-Expires=1"),
            Some(1_748_919_478)
        );
    }

    #[test]
    fn what_is_malformed_says_nothing() {
        for query in [
            "",
            "_jwt=",
            "_jwt=a.b.c",
            "_jwt=h.eyJleHAiOiJzb29uIn0.s",
            "_jwt=h.eyJleHAiOi0xfQ.s",
            "X-Amz-Date=20250603T025757Z",
            "X-Amz-Expires=3600",
            "X-Amz-Date=soon&X-Amz-Expires=3600",
            "X-Amz-Date=20250603T025757Z&X-Amz-Expires=-1",
            "X-Amz-Date=20250603T025757Z&X-Amz-Expires=18446744073709551615",
            "Expires=3600",
            "Expires=Tue",
            "Expires=99999999999999999999999",
        ] {
            assert_eq!(seconds(query), None, "{query}");
        }
    }
}
