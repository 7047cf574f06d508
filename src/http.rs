//! The web, as far as reelfs speaks it. Two clients: [`ApiClient`] (blocking: a few JSON calls
//! with the token, and uploads) and [`AssetClient`] (async: thousands of waiting range requests
//! without the token, on connections that may be opened ahead), with [`PreviewClient`] as a blocking
//! face for small pictures. Retry and error policy is shared and pure (`retry`).

pub mod api;
pub mod asset;
mod connect;
pub mod expiry;
pub mod glance;
pub(crate) mod json;
pub mod message;
pub mod origin;
pub mod preview;
pub mod redact;
pub mod request;
pub mod retry;
pub mod secret;
mod spare;
#[cfg(test)]
pub(crate) mod test_server;
pub mod upload;

pub use api::ApiClient;
pub use asset::AssetClient;
pub use origin::UrlPolicy;
pub use preview::PreviewClient;
pub use request::ApiRequest;
pub use secret::{ApiToken, SignedUrl};
pub use upload::{ApiUpload, UploadError};

use std::sync::Once;
use std::time::Duration;

/// Makes *ring* the process's TLS provider, once. Both clients call it before they are built:
/// reqwest is compiled without a provider of its own (`rustls-no-provider`).
pub fn install_tls() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        if rustls::crypto::ring::default_provider()
            .install_default()
            .is_err()
        {
            log::debug!("another TLS provider was installed before; it is used");
        }
    });
}

/// Time limits of every request. All are per mount.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// To connect, TLS included.
    pub connect: Duration,
    /// Without a single byte of progress, before an attempt is given up.
    pub stall: Duration,
    /// For a whole operation with all its retries.
    pub total: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            stall: Duration::from_secs(10),
            total: Duration::from_secs(30),
        }
    }
}

/// How soon a connection counts as dead whose host acknowledges nothing of what was sent: as after a
/// change of network, where nobody says so and each request over an old connection would wait for
/// its stall limit. Only what *we* sent counts, so a slow answer is none of it.
const DEAD_AFTER: Duration = Duration::from_secs(5);
/// After such a silence an idle connection is asked whether it still is one, and how often then. It is
/// gone in seven seconds, before a reader's patience ends who would try one dead one after another.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(2));

/// For the APIs' requests; the asset hosts' connections are made in `connect`.
fn noticing_dead_connections(client: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    let (idle, interval) = KEEPALIVE;
    client
        .tcp_keepalive(idle)
        .tcp_keepalive_interval(interval)
        .tcp_user_timeout(DEAD_AFTER)
}

/// What servers see of us in `User-Agent`.
pub const USER_AGENT: &str = concat!("reelfs/", env!("CARGO_PKG_VERSION"));

/// A client that could not be set up: no threads, no TLS roots.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot set up the HTTP client: {0}")]
pub struct ClientError(pub String);

/// Why a request got no usable answer. Never carries a URL's query or a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Refused, DNS failure, TLS failure: the request was not sent.
    #[error("cannot connect to {host}: {reason}")]
    Connect { host: String, reason: String },
    /// No byte for longer than [`Deadlines::stall`], or [`Deadlines::total`] passed.
    #[error("{host} did not answer in time")]
    Timeout { host: String },
    /// The connection ended before the answer did.
    #[error("the connection to {host} broke: {reason}")]
    Broken { host: String, reason: String },
    /// A status that isn't a success; `message` is the service's own, shortened.
    #[error("{host} answered {status}: {message}")]
    Status {
        host: String,
        status: u16,
        message: String,
        retry_after: Option<Duration>,
    },
    /// The answer breaks HTTP's or the page's rules (HTML for JSON, a wrong Content-Range, ...).
    #[error("{host} answered nonsense: {what}")]
    Malformed { host: String, what: String },
    /// The answer exceeds a limit.
    #[error("{host} answered more than {limit_bytes} bytes")]
    TooLarge { host: String, limit_bytes: u64 },
    /// A redirect or URL that leads where the API didn't send us.
    #[error("refused to follow {host} to {target}")]
    ForbiddenTarget { host: String, target: String },
}
