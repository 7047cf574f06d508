//! The host behind the signed URLs: another origin than the APIs, in the manner of CloudFront,
//! Google Cloud Storage and R2.
//!
//! Stricter than they are: HEAD is 403 (and counted), a request that carries a token is 400 (and
//! counted), a Range header that isn't one plain range is 400. Expired URLs answer as each host
//! does; tampered ones are 403.

use std::sync::atomic::Ordering;

use hyper::Method;
use hyper::header::{self, HeaderMap};

use super::answer::Answer;
use super::library::Object;
use super::shared::Shared;
use super::sign::{Manner, Refusal};

/// Where the files stand openly, if they do.
const OPEN: &str = "/open/";

/// The whole answer to a request of this path, query and headers.
pub(super) fn answer(
    shared: &Shared,
    method: &Method,
    path: &str,
    query: &str,
    headers: &HeaderMap,
) -> Answer {
    if let Some(name) = path.strip_prefix(OPEN).filter(|_| shared.open_listing) {
        return open(shared, name, headers);
    }
    if headers.contains_key(header::AUTHORIZATION) {
        shared
            .counters
            .tokens_refused
            .fetch_add(1, Ordering::Relaxed);
        let message = "Only one auth mechanism allowed.";
        return Answer::xml(400, "InvalidArgument", message);
    }
    if method == Method::HEAD {
        shared
            .counters
            .heads_refused
            .fetch_add(1, Ordering::Relaxed);
        return Answer::empty(403);
    }
    if method != Method::GET {
        let answer = Answer::xml(405, "MethodNotAllowed", "The method is not allowed.");
        return answer.with(header::ALLOW, "GET");
    }
    if let Err(refusal) = shared.signer.check(path, query, shared.now()) {
        return refused(Manner::of_path(path), refusal);
    }
    let Some(object) = shared.library().object(path) else {
        return Answer::xml(404, "NoSuchKey", "The specified key does not exist.");
    };
    let range = headers
        .get(header::RANGE)
        .map(|value| value.to_str().unwrap_or("?"));
    part(&object, range)
}

/// A plain file server over Runway's videos: an index, and each under its name. HEAD is answered,
/// too (the server leaves the body out).
fn open(shared: &Shared, name: &str, headers: &HeaderMap) -> Answer {
    let library = shared.library();
    let named = library
        .runway
        .iter()
        .filter(|held| held.asset.content_type.starts_with("video/"))
        .filter_map(|held| Some((held.asset.name.as_deref()?, held)));
    let plain = |name: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        name.bytes().all(plain)
    };
    if name.is_empty() {
        let links: String = named
            .filter(|(name, _)| plain(name))
            .map(|(name, _)| format!("<a href=\"{name}\">{name}</a>\n"))
            .collect();
        return Answer::html(200).with_body(format!("<html><body>{links}</body></html>"));
    }
    let mut found = named.filter(|(other, _)| *other == name);
    let object = found
        .next()
        .and_then(|(_, held)| library.object(&held.path));
    match object {
        Some(object) => {
            let range = headers.get(header::RANGE);
            part(&object, range.map(|value| value.to_str().unwrap_or("?")))
        }
        None => Answer::empty(404),
    }
}

fn refused(manner: Option<Manner>, refusal: Refusal) -> Answer {
    match (manner, refusal) {
        (Some(Manner::Ltx), Refusal::Expired) => {
            Answer::xml(400, "ExpiredToken", "The provided token has expired.")
        }
        (Some(Manner::Runflow), Refusal::Expired) => {
            Answer::xml(403, "AccessDenied", "Request has expired")
        }
        (Some(Manner::Runway), Refusal::Expired) => Answer::html(403),
        (_, Refusal::Tampered) => Answer::xml(
            403,
            "SignatureDoesNotMatch",
            "The request signature does not match the signature provided.",
        ),
        (None, Refusal::Expired) => Answer::empty(403),
    }
}

fn part(object: &Object, range: Option<&str>) -> Answer {
    let size_bytes = object.content.len();
    let described = |answer: Answer| {
        answer
            .with(header::ETAG, &object.etag)
            .with(
                header::LAST_MODIFIED,
                &httpdate::fmt_http_date(object.last_modified),
            )
            .with(header::ACCEPT_RANGES, "bytes")
    };
    let whole = |status| {
        described(Answer::of(
            status,
            &object.content_type,
            object.content.clone(),
        ))
    };
    let Some(range) = range else {
        return whole(200);
    };
    match Span::parse(range) {
        None => Answer::xml(
            400,
            "InvalidArgument",
            "The Range header is not one plain range.",
        ),
        Some(span) => match span.within(size_bytes) {
            Some((start, end)) => {
                let sent = format!("bytes {start}-{}/{size_bytes}", end - 1);
                let mut answer = whole(206).with(header::CONTENT_RANGE, &sent);
                (answer.start, answer.end) = (start, end);
                answer
            }
            None => Answer::xml(
                416,
                "InvalidRange",
                "The requested range cannot be satisfied.",
            )
            .with(header::CONTENT_RANGE, &format!("bytes */{size_bytes}")),
        },
    }
}

/// One range of RFC 9110, section 14.1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Span {
    /// First byte, and last byte inclusive if given.
    From(u64, Option<u64>),
    /// The last so many bytes.
    Suffix(u64),
}

impl Span {
    fn parse(header: &str) -> Option<Self> {
        let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten()
        };
        match (first, last) {
            ("", last) => Some(Span::Suffix(number(last)?)),
            (first, "") => Some(Span::From(number(first)?, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Span::From(first, Some(last)))
            }
        }
    }

    /// Start and exclusive end of what is there of it; `None` if nothing is.
    fn within(self, size_bytes: u64) -> Option<(u64, u64)> {
        let (start, end) = match self {
            Span::Suffix(length) => (size_bytes.saturating_sub(length), size_bytes),
            Span::From(first, None) => (first, size_bytes),
            Span::From(first, Some(last)) => (first, size_bytes.min(last.saturating_add(1))),
        };
        (start < end).then_some((start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_in_its_three_forms_and_no_other() {
        assert_eq!(Span::parse("bytes=3-9"), Some(Span::From(3, Some(9))));
        assert_eq!(Span::parse("bytes=3-"), Some(Span::From(3, None)));
        assert_eq!(Span::parse("bytes=-9"), Some(Span::Suffix(9)));
        for bad in [
            "bytes=9-3",
            "bytes=-",
            "bytes=1-2,4-5",
            "items=1-2",
            "bytes 1-2",
            "1-2",
            "",
        ] {
            assert_eq!(Span::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_range_is_cut_at_the_end_and_none_beyond_it() {
        let within = |header: &str, size| Span::parse(header).unwrap().within(size);
        assert_eq!(within("bytes=3-99", 10), Some((3, 10)));
        assert_eq!(within("bytes=0-0", 10), Some((0, 1)));
        assert_eq!(within("bytes=-99", 10), Some((0, 10)));
        assert_eq!(within("bytes=10-", 10), None);
        assert_eq!(within("bytes=0-0", 0), None);
        assert_eq!(within("bytes=-0", 10), None);
    }
}
