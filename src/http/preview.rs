//! Small pictures from the hosts that an API named: fetched whole, held to a size, without a token.
//!
//! Promises: a call blocks its thread and ends by [`Deadlines::total`]; no more than the limit is
//! read, however long the body is; redirects stay on the host (as [`AssetClient`] has it). No
//! retries: a picture that did not come is not worth a second request now. Must not be called from
//! within an async runtime.

use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::asset::Part;
use super::{AssetClient, ClientError, Deadlines, SignedUrl, TransportError};
use crate::range::ByteRange;

/// See the module's head.
pub struct PreviewClient {
    client: AssetClient,
    deadlines: Deadlines,
    /// Taken in drop only.
    runtime: Option<Runtime>,
}

impl PreviewClient {
    /// Fetches through `client`, on a thread of its own.
    pub fn new(client: AssetClient, deadlines: Deadlines) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("reelfs-preview")
            .enable_all()
            .build()
            .map_err(|e| ClientError(format!("no thread for the network: {e}")))?;
        Ok(Self {
            client,
            deadlines,
            runtime: Some(runtime),
        })
    }

    /// The whole body, of `most_bytes` at most.
    pub fn get(&self, url: &SignedUrl, most_bytes: u64) -> Result<Vec<u8>, TransportError> {
        let too_slow = || TransportError::Timeout { host: url.host() };
        let runtime = self.runtime.as_ref().ok_or_else(too_slow)?;
        let limit = self.deadlines.total;
        // A timer is made within the runtime that drives it.
        let fetched =
            runtime.block_on(async { timeout(limit, whole(&self.client, url, most_bytes)).await });
        fetched.unwrap_or_else(|_| Err(too_slow()))
    }
}

async fn whole(
    client: &AssetClient,
    url: &SignedUrl,
    most_bytes: u64,
) -> Result<Vec<u8>, TransportError> {
    let too_large = || TransportError::TooLarge {
        host: url.host(),
        limit_bytes: most_bytes,
    };
    // One byte more than is wanted: a host that looks at the range tells what is there.
    let mut answer = client.get(url, ByteRange::new(0, most_bytes + 1)).await?;
    let total_bytes = match answer.head.part {
        Part::Range { total_bytes, .. } | Part::Whole { total_bytes } => total_bytes,
        Part::Beyond { .. } => return Err(answer.malformed("an empty picture")),
    };
    if total_bytes.is_some_and(|total| total > most_bytes) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if (body.len() + chunk.len()) as u64 > most_bytes {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    match total_bytes {
        Some(total) if total != body.len() as u64 => Err(answer.broken("it ended early")),
        _ => Ok(body),
    }
}

impl Drop for PreviewClient {
    /// Without waiting: the last owner may be a thread that must not block.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::clock::SystemClock;
    use crate::http::UrlPolicy;
    use crate::http::test_server::{Reply, TestServer, html};

    fn get(server: &TestServer, most_bytes: u64) -> Result<Vec<u8>, TransportError> {
        let deadlines = Deadlines {
            connect: Duration::from_secs(1),
            stall: Duration::from_secs(2),
            total: Duration::from_secs(3),
        };
        let client = AssetClient::new(deadlines, Arc::new(SystemClock)).unwrap();
        let client = PreviewClient::new(client, deadlines).unwrap();
        let url = server.url().join("p.png?sig=1").unwrap();
        let policy = UrlPolicy::for_api(&server.url());
        let url = SignedUrl::parse(url.as_str(), None, &policy).unwrap();
        client.get(&url, most_bytes)
    }

    fn body(bytes: &[u8]) -> Reply {
        Reply::Answer {
            status: 200,
            headers: Vec::new(),
            body: bytes.to_vec(),
        }
    }

    #[test]
    fn a_picture_comes_whole_and_the_request_carries_no_token() {
        let server = TestServer::replying(vec![body(b"picture")]);
        assert_eq!(get(&server, 7).unwrap(), b"picture");
        let seen = server.seen();
        assert_eq!((seen.len(), seen[0].method.as_str()), (1, "GET"));
        for name in ["authorization", "cookie", "referer"] {
            assert_eq!(seen[0].header(name), None);
        }
    }

    #[test]
    fn what_says_that_it_is_too_long_is_not_read() {
        let server = TestServer::replying(vec![body(b"pictures")]);
        let error = get(&server, 7).unwrap_err();
        assert!(matches!(
            error,
            TransportError::TooLarge { limit_bytes: 7, .. }
        ));
    }

    #[test]
    fn an_endless_body_is_cut_at_the_limit() {
        let endless = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 1 << 20]].concat();
        let server = TestServer::replying(vec![Reply::Raw(endless)]);
        let error = get(&server, 10_000).unwrap_err();
        assert!(matches!(error, TransportError::TooLarge { .. }), "{error}");
    }

    #[test]
    fn a_silent_host_is_given_up_and_an_error_is_asked_for_once() {
        let server = TestServer::replying(vec![Reply::Silence]);
        assert!(matches!(
            get(&server, 9),
            Err(TransportError::Timeout { .. })
        ));
        let server = TestServer::replying(vec![html(503)]);
        let error = get(&server, 9).unwrap_err();
        assert!(matches!(error, TransportError::Status { status: 503, .. }));
        assert_eq!(server.count(), 1);
    }

    #[test]
    fn a_body_that_ends_early_is_an_error() {
        let short = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".to_vec();
        let server = TestServer::replying(vec![Reply::Raw(short)]);
        assert!(matches!(
            get(&server, 9),
            Err(TransportError::Broken { .. })
        ));
    }
}
