//! Turns (asset, range) into bytes: ranged requests to signed URLs, a byte-bounded cache of
//! blocks, read-ahead windows, one flight for the same bytes however many readers.
//!
//! (The design and the promises are written at this head by the reader's author.)

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::http::SignedUrl;
use crate::provider::{AssetId, ProviderError, Service};

/// An asset's identity across services; never its URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AssetKey {
    pub service: Service,
    pub id: AssetId,
}

/// Where the reader gets signed URLs. Implemented by the file system over the providers.
pub trait UrlSource: Send + Sync {
    /// Calls `done` with a URL for the asset, later and on any thread, or at once where one is
    /// known. `rejected` is a URL that the asset host refused (or that expired): the answer is
    /// then a fresh one from the API, and concurrent calls for one asset make one API request.
    fn url(&self, key: &AssetKey, rejected: Option<SignedUrl>, done: UrlDone);
}

pub type UrlDone = Box<dyn FnOnce(Result<SignedUrl, ProviderError>) + Send>;

/// What the asset host said of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    pub size_bytes: u64,
    /// Strong or weak, as sent, with its quotes.
    pub etag: Option<String>,
    pub last_modified: Option<SystemTime>,
    pub content_type: Option<String>,
}

pub type ReadDone = Box<dyn FnOnce(Result<Bytes, ReadError>) + Send>;
pub type ProbeDone = Box<dyn FnOnce(Result<ObjectInfo, ReadError>) + Send>;

/// Why bytes could not be had. Cloned to every reader that waited for them.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The object at the host is not the one that was opened: other ETag or other size.
    /// Carries what the host has now.
    #[error("the asset changed while it was read")]
    Changed(Box<ObjectInfo>),
    /// The asset is gone, also by a fresh URL.
    #[error("the asset is gone")]
    NotFound,
    /// The API refused to renew the URL, or the host refused a fresh one.
    #[error("access was refused: {0}")]
    Denied(String),
    #[error("{0}")]
    Quota(String),
    /// 429 past the deadline.
    #[error("the rate limit outlasted the deadline")]
    RateLimited,
    /// Unreachable, 5xx, broken or malformed answers past the deadline.
    #[error("the asset can't be read: {0}")]
    Unavailable(Arc<str>),
}
