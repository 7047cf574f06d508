//! Ranged GETs to the hosts behind signed URLs.
//!
//! Promise: an answer is what the request asked for, or an error. The status, `Content-Range`,
//! `Content-Length` and `Content-Encoding` are checked here; whether the object is still the same
//! one (ETag, size) is the caller's to say. Nothing but the URL is a credential: no
//! `Authorization`, no cookie, no `Referer`, since S3-like hosts answer 400 to two credentials and
//! the API's token is none of their business. Never HEAD: hosts that signed for GET refuse it.
//!
//! HTTP/1.1 only: HTTP/2 would put all streams on one TCP connection and so under one rate cap.
//! No total timeout, since a body may rightly take hours: the caller watches its progress.
//!
//! A name is connected to at public addresses only, unless the API is local ([`super::origin`]).
//! Redirects stay on the host that the API named (same scheme, host and port, at most
//! [`MAX_REDIRECTS`]); anything else is [`TransportError::ForbiddenTarget`]: a signed URL is a secret
//! between us and the host that it names, and a host must not choose whom else we ask.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy;
use url::Url;

pub use super::connect::RECEIVE_BYTES;
use super::connect::{Hosts, NoBody, Reach};
use super::origin::host_of;
use super::{Deadlines, SignedUrl, TransportError, USER_AGENT};
use crate::clock::Clock;
use crate::range::{ByteRange, ContentRange};

/// Redirects that are followed on one host before it counts as nonsense.
pub const MAX_REDIRECTS: usize = 3;
/// What is read out of a body that nobody wants, so that its connection can be used again: less
/// than a round trip's worth on most links, where a new connection costs two or three.
const MAX_DRAIN_BYTES: u64 = 64 * 1024;
/// The longest `Retry-After` that is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// One client for all asset hosts; cheap to clone.
#[derive(Clone)]
pub struct AssetClient {
    /// Connects to public addresses only.
    public: Hosts,
    /// For the URLs of an API that is on a private network itself.
    local: Hosts,
    deadlines: Deadlines,
    clock: Arc<dyn Clock>,
}

/// Which bytes an answer's body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// 206: the bytes `sent`, which start where asked and end there at the latest.
    /// A host may leave open how many there are in all (`bytes 0-9/*`).
    Range {
        sent: ByteRange,
        total_bytes: Option<u64>,
    },
    /// 200: the whole object from byte 0; the host did not look at the range.
    Whole { total_bytes: Option<u64> },
    /// 416: the object has no byte in the range. The body is not the object's.
    Beyond { total_bytes: u64 },
}

/// An answer without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub part: Part,
    pub etag: Option<String>,
    pub last_modified: Option<SystemTime>,
    pub content_type: Option<String>,
}

/// An answer whose body is still to be read.
pub struct Answer {
    pub head: Head,
    host: String,
    body: Incoming,
}

impl AssetClient {
    /// Fails only where TLS can't be set up (no root certificates, for instance).
    pub fn new(deadlines: Deadlines, clock: Arc<dyn Clock>) -> Result<Self, TransportError> {
        let hosts = |reach| {
            Hosts::new(reach, deadlines.connect).map_err(|error| TransportError::Connect {
                host: "any asset host".to_string(),
                reason: error.to_string(),
            })
        };
        Ok(Self {
            public: hosts(Reach::Public)?,
            local: hosts(Reach::Anywhere)?,
            deadlines,
            clock,
        })
    }

    /// Sees to it that `connections` to the URL's host are open, so that the next requests need
    /// not connect. Asks the host for nothing. Must be called inside a runtime; waits for nothing.
    pub fn prepare(&self, url: &SignedUrl, connections: usize) {
        let root = url.expose().join("/");
        if let Some(uri) = root.ok().and_then(|root| root.as_str().parse().ok()) {
            self.hosts_of(url).prepare(&uri, connections);
        }
    }

    fn hosts_of(&self, url: &SignedUrl) -> &Hosts {
        match url.policy().allows_local_hosts() {
            true => &self.local,
            false => &self.public,
        }
    }

    /// Connections that are open or being opened.
    pub fn connections(&self) -> u64 {
        self.public.open() + self.local.open()
    }

    /// Asks for `range`, which must not be empty. Statuses other than 200, 206 and 416 are
    /// [`TransportError::Status`]; an answer takes [`Deadlines::connect`] + [`Deadlines::stall`]
    /// at most to begin.
    pub async fn get(&self, url: &SignedUrl, range: ByteRange) -> Result<Answer, TransportError> {
        let mut target = url.expose().clone();
        let hosts = self.hosts_of(url);
        for _ in 0..=MAX_REDIRECTS {
            let host = host_of(&target);
            let response = self.send(hosts, &target, &host, range).await?;
            if !response.status().is_redirection() {
                return self.accept(host, response, range).await;
            }
            target = redirect_target(&target, response.headers())?;
            self.drain(response).await;
        }
        Err(TransportError::Malformed {
            host: host_of(&target),
            what: "a redirect that leads in circles".to_string(),
        })
    }

    async fn send(
        &self,
        hosts: &Hosts,
        url: &Url,
        host: &str,
        range: ByteRange,
    ) -> Result<Response<Incoming>, TransportError> {
        let unusable = || TransportError::Malformed {
            host: host.to_string(),
            what: "an address that can't be asked for".to_string(),
        };
        let uri: Uri = url.as_str().parse().map_err(|_| unusable())?;
        let mut request = Request::get(&uri)
            .header(header::RANGE, range.to_header())
            .header(header::ACCEPT, "*/*")
            .header(header::ACCEPT_ENCODING, "identity")
            .header(header::USER_AGENT, USER_AGENT);
        if let Some(proxy) = hosts.proxy_authorization(&uri) {
            request = request.header(header::PROXY_AUTHORIZATION, proxy);
        }
        let request = request.body(NoBody::new()).map_err(|_| unusable())?;
        let limit = self.deadlines.connect + self.deadlines.stall;
        match tokio::time::timeout(limit, hosts.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(failed_request(host, &error)),
            Err(_) => Err(TransportError::Timeout {
                host: host.to_string(),
            }),
        }
    }

    async fn accept(
        &self,
        host: String,
        response: Response<Incoming>,
        asked: ByteRange,
    ) -> Result<Answer, TransportError> {
        let (status, headers) = (response.status(), response.headers());
        match classify(&host, status, headers, asked, self.clock.now()) {
            Ok(head) => Ok(Answer {
                head,
                host,
                body: response.into_body(),
            }),
            Err(error) => {
                self.drain(response).await;
                Err(error)
            }
        }
    }

    /// Reads a short body out, so that the connection goes back to the pool.
    async fn drain(&self, response: Response<Incoming>) {
        let mut body = response.into_body();
        let length = body.size_hint().exact();
        if length.is_none_or(|length| length > MAX_DRAIN_BYTES) {
            return;
        }
        let read_out = async { while let Some(Ok(_)) = body.frame().await {} };
        let _ =
            tokio::time::timeout(self.deadlines.stall.min(Duration::from_secs(1)), read_out).await;
    }
}

impl Answer {
    /// The next bytes of the body; `None` at its end. No deadline of its own.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, TransportError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| self.broken(&reason_of(&error)))?;
            // Trailers say nothing of the bytes.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The host that answered, safe to print.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// An answer of this host that can't be used.
    pub fn malformed(&self, what: &str) -> TransportError {
        TransportError::Malformed {
            host: self.host.clone(),
            what: what.to_string(),
        }
    }

    /// A body of this host that ended early or came out of step.
    pub fn broken(&self, reason: &str) -> TransportError {
        TransportError::Broken {
            host: self.host.clone(),
            reason: reason.to_string(),
        }
    }
}

/// Reads an answer's status and headers. Pure.
fn classify(
    host: &str,
    status: StatusCode,
    headers: &HeaderMap,
    asked: ByteRange,
    now: SystemTime,
) -> Result<Head, TransportError> {
    let malformed = |what: &str| TransportError::Malformed {
        host: host.to_string(),
        what: what.to_string(),
    };
    let part = match status.as_u16() {
        206 => partial(headers, asked),
        200 => whole(headers),
        416 => beyond(headers),
        _ => return Err(status_error(host, status, headers, now)),
    }
    .map_err(malformed)?;
    Ok(Head {
        part,
        etag: text(headers, header::ETAG),
        last_modified: text(headers, header::LAST_MODIFIED)
            .and_then(|date| httpdate::parse_http_date(&date).ok()),
        content_type: text(headers, header::CONTENT_TYPE),
    })
}

fn partial(headers: &HeaderMap, asked: ByteRange) -> Result<Part, &'static str> {
    let content_range =
        text(headers, header::CONTENT_RANGE).ok_or("a part without a Content-Range")?;
    let content_range =
        ContentRange::parse(&content_range).ok_or("a Content-Range that can't be read")?;
    let sent = content_range.sent.ok_or("a part without bytes")?;
    check_encoding(headers)?;
    if sent.start != asked.start || sent.end > asked.end {
        return Err("another part than was asked for");
    }
    if length(headers)?.is_some_and(|len| len != sent.len()) {
        return Err("a Content-Length that contradicts its Content-Range");
    }
    Ok(Part::Range {
        sent,
        total_bytes: content_range.total_bytes,
    })
}

fn whole(headers: &HeaderMap) -> Result<Part, &'static str> {
    check_encoding(headers)?;
    Ok(Part::Whole {
        total_bytes: length(headers)?,
    })
}

fn beyond(headers: &HeaderMap) -> Result<Part, &'static str> {
    let total_bytes = text(headers, header::CONTENT_RANGE)
        .and_then(|value| ContentRange::parse(&value))
        .filter(|range| range.sent.is_none())
        .and_then(|range| range.total_bytes)
        .ok_or("a refused range without the object's size")?;
    Ok(Part::Beyond { total_bytes })
}

fn check_encoding(headers: &HeaderMap) -> Result<(), &'static str> {
    let identity = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .all(|value| value.as_bytes().eq_ignore_ascii_case(b"identity") || value.is_empty());
    match identity {
        true => Ok(()),
        false => Err("an encoded body where none was accepted"),
    }
}

fn length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    text(headers, header::CONTENT_LENGTH)
        .map(|value| {
            value
                .parse()
                .map_err(|_| "a Content-Length that is no number")
        })
        .transpose()
}

fn status_error(
    host: &str,
    status: StatusCode,
    headers: &HeaderMap,
    now: SystemTime,
) -> TransportError {
    // Not the body: an S3-like host's explanation repeats the signature.
    TransportError::Status {
        host: host.to_string(),
        status: status.as_u16(),
        message: status.canonical_reason().unwrap_or("unknown").to_string(),
        retry_after: text(headers, header::RETRY_AFTER).and_then(|value| retry_after(&value, now)),
    }
}

/// Seconds or a date; a date in the past is no wait, a far one [`MAX_RETRY_AFTER`].
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let wait = match value.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = httpdate::parse_http_date(value.trim()).ok()?;
            at.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

fn redirect_target(from: &Url, headers: &HeaderMap) -> Result<Url, TransportError> {
    let malformed = || TransportError::Malformed {
        host: host_of(from),
        what: "a redirect without a usable target".to_string(),
    };
    let location = text(headers, header::LOCATION).ok_or_else(malformed)?;
    let target = from.join(&location).map_err(|_| malformed())?;
    let credentials = !target.username().is_empty() || target.password().is_some();
    if target.origin() != from.origin() || credentials {
        return Err(TransportError::ForbiddenTarget {
            host: host_of(from),
            target: format!("{}://{}", target.scheme(), host_of(&target)),
        });
    }
    Ok(target)
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_string)
}

fn failed_request(host: &str, error: &legacy::Error) -> TransportError {
    let (host, reason) = (host.to_string(), reason_of(error));
    match error.is_connect() {
        true => TransportError::Connect { host, reason },
        false => TransportError::Broken { host, reason },
    }
}

/// The innermost cause, which names neither URL nor header.
fn reason_of(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                let name: HeaderName = name.parse().unwrap();
                (name, value.parse().unwrap())
            })
            .collect()
    }

    fn answer(status: u16, pairs: &[(&str, &str)]) -> Result<Head, TransportError> {
        let status = StatusCode::from_u16(status).unwrap();
        classify(
            "host",
            status,
            &headers(pairs),
            ByteRange::new(100, 200),
            SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770),
        )
    }

    #[test]
    fn a_part_that_starts_where_asked_is_taken_even_if_it_is_short() {
        for end in [101, 200] {
            let range = format!("bytes 100-{}/500", end - 1);
            let head = answer(206, &[("content-range", &range), ("etag", "\"a\"")]).unwrap();
            assert_eq!(
                head.part,
                Part::Range {
                    sent: ByteRange::new(100, end),
                    total_bytes: Some(500)
                }
            );
            assert_eq!(head.etag.as_deref(), Some("\"a\""));
        }
    }

    #[test]
    fn answers_that_are_not_what_was_asked_are_malformed() {
        for (status, pairs) in [
            (206, vec![]),
            (206, vec![("content-range", "bytes 0-99/500")]),
            (206, vec![("content-range", "bytes 100-200/500")]),
            (206, vec![("content-range", "bytes */500")]),
            (206, vec![("content-range", "bytes 100-199/150")]),
            (206, vec![("content-type", "multipart/byteranges")]),
            (
                206,
                vec![
                    ("content-range", "bytes 100-199/500"),
                    ("content-length", "99"),
                ],
            ),
            (
                206,
                vec![
                    ("content-range", "bytes 100-199/500"),
                    ("content-encoding", "gzip"),
                ],
            ),
            (200, vec![("content-encoding", "br")]),
            (416, vec![]),
            (416, vec![("content-range", "bytes 0-1/500")]),
        ] {
            let result = answer(status, &pairs);
            assert!(
                matches!(result, Err(TransportError::Malformed { .. })),
                "{status} {pairs:?}: {result:?}"
            );
        }
    }

    #[test]
    fn a_whole_body_and_a_refused_range_tell_the_size() {
        assert_eq!(
            answer(200, &[("content-length", "7")]).unwrap().part,
            Part::Whole {
                total_bytes: Some(7)
            }
        );
        assert_eq!(
            answer(200, &[("content-encoding", "identity")])
                .unwrap()
                .part,
            Part::Whole { total_bytes: None }
        );
        assert_eq!(
            answer(416, &[("content-range", "bytes */0")]).unwrap().part,
            Part::Beyond { total_bytes: 0 }
        );
    }

    #[test]
    fn a_status_carries_its_retry_after_in_either_form() {
        let wait = |value: &str| match answer(429, &[("retry-after", value)]) {
            Err(TransportError::Status { retry_after, .. }) => retry_after,
            other => panic!("{other:?}"),
        };
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        let date = |second: u32| wait(&format!("Sun, 06 Nov 1994 08:49:{second} GMT"));
        assert_eq!(date(37), Some(Duration::from_secs(7)));
        assert_eq!(date(10), Some(Duration::ZERO));
        assert_eq!(wait("18446744073709551615"), Some(MAX_RETRY_AFTER));
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn a_redirect_never_leaves_the_host() {
        let from = Url::parse("https://cdn.example/a?sig=1").unwrap();
        let to = |location: &str| redirect_target(&from, &headers(&[("location", location)]));
        assert_eq!(
            to("/b?sig=2").unwrap().as_str(),
            "https://cdn.example/b?sig=2"
        );
        for location in [
            "http://cdn.example/b",
            "https://cdn.example:444/b",
            "https://evil.example/b?sig=1",
            "https://me:pw@cdn.example/b",
            "file:///etc/passwd",
        ] {
            match to(location) {
                Err(TransportError::ForbiddenTarget { target, .. }) => {
                    assert!(!target.contains("sig=") && !target.contains("pw"));
                }
                other => panic!("{location}: {other:?}"),
            }
        }
    }
}
