//! Turns (asset, range) into bytes: ranged requests to signed URLs, a byte-bounded cache of
//! blocks, read-ahead windows, one flight for the same bytes however many readers.
//!
//! # Promises
//! - Bytes are the asset's or an error. The first answer of a [`RemoteFile`] pins the object (ETag,
//!   size); an answer about another object is [`ReadError::Changed`] for every read that needs the
//!   host from then on, and what is cached stays readable.
//! - A byte that a stream is about to bring is never asked for again. A reader is answered as soon
//!   as its own bytes are there.
//! - Nothing here blocks its caller. Every callback is called exactly once, with no lock held, by
//!   the time [`Deadlines::total`] passed without a byte of progress, and also when the reader is
//!   dropped (`unmounted`).
//! - Memory: the cache with all buffers in flight, those of the connections included, and all reads
//!   that wait stays within [`ReaderConfig::cache_bytes`] (or what a few reads need where that is
//!   tiny); more reads than fit wait their turn. Answers on their way to their readers come on top.
//! - [`AssetReader::prepare`] opens connections and asks for nothing.
//!
//! # How
//! A *stream* is one ranged GET, resumed where it broke, that fills block after block. A *window*
//! ([`window`]) says how far ahead of a reader streams may be. A *waiter* is a read that misses
//! bytes. A *lane* is what one service shares: admission, connections, Retry-After.
//!
//! The streams run on one small tokio runtime, unlike the API calls and uploads, which block a
//! worker thread each: thousands of reads may wait at once and must cost no threads, a host that is
//! silent must not starve the others, and to cancel is to drop a future.
//!
//! # Lock order
//! A file's state → (budget | cache | lane), of which no two are held together → the spare blocks
//! ([`buffer`]) and the connections that stand ready; the list of files and the probes under way are
//! locked alone. Callbacks happen with none held. No lock is held across I/O; the longest work under a
//! file's lock is copying one chunk, or what is buffered of one block.

mod backoff;
mod buffer;
mod engine;
mod fetch;
mod lane;
mod lock;
mod plan;
mod probe;
#[cfg(test)]
mod schedule_tests;
mod state;
mod stream;
mod waiter;
pub mod window;

#[cfg(all(test, feature = "emulator"))]
mod test_host;
#[cfg(all(test, feature = "emulator"))]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::clock::Clock;
use crate::http::{AssetClient, Deadlines, SignedUrl, TransportError};
use crate::provider::{AssetId, ProviderError, Service};
use crate::range::ByteRange;
use engine::Engine;
use lock::{Guard, Lock};
use state::FileState;
use waiter::Reply;

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

/// Called once with a URL or with why there is none.
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

/// Called once with the bytes of a read.
pub type ReadDone = Box<dyn FnOnce(Result<Bytes, ReadError>) + Send>;
/// Called once with what the host said of an object.
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

impl ReadError {
    /// The kind as one word, for counting.
    pub fn kind(&self) -> &'static str {
        match self {
            ReadError::Changed(_) => "changed",
            ReadError::NotFound => "not_found",
            ReadError::Denied(_) => "denied",
            ReadError::Quota(_) => "quota",
            ReadError::RateLimited => "rate_limited",
            ReadError::Unavailable(_) => "unavailable",
        }
    }
}

/// Why a reader could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("cannot start the threads that fetch assets: {0}")]
    Runtime(std::io::Error),
    #[error("cannot set up connections to asset hosts: {0}")]
    Client(TransportError),
}

/// Limits of an [`AssetReader`].
#[derive(Debug, Clone, Copy)]
pub struct ReaderConfig {
    /// Memory for blocks, for buffers that are being filled and for reads that wait.
    pub cache_bytes: u64,
    pub deadlines: Deadlines,
}

/// What became of a wish to fetch ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefetch {
    /// It is there, on its way, or can't be had ahead.
    Taken,
    /// Enough is on its way already; ask again later.
    Refused,
}

/// Counts since the reader was made, and what it holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReaderStats {
    /// Bytes that the cache holds or has promised to streams and waiting reads.
    pub cached_bytes: u64,
    /// Reads that memory answered at once.
    pub hits: u64,
    /// Reads that had to wait for a host.
    pub misses: u64,
    /// GETs sent to asset hosts, retries and probes included.
    pub requests: u64,
    /// Body bytes that asset hosts sent.
    pub fetched_bytes: u64,
    pub active_streams: u64,
    /// To asset hosts, whatever they do; also those that are being opened.
    pub connections: u64,
    /// Memory of whole blocks and of blocks and answers that are being filled, also of those that
    /// the cache gave up while an answer was still on its way.
    pub held_bytes: u64,
}

/// One revision of one asset, with what is known and under way for it.
pub struct RemoteFile {
    key: AssetKey,
    size_bytes: u64,
    revision: u64,
    state: Lock<FileState>,
}

impl RemoteFile {
    pub fn key(&self) -> &AssetKey {
        &self.key
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The pinned ETag: the expected one, else the first answer's.
    pub fn etag(&self) -> Option<String> {
        self.lock().etag.clone()
    }

    /// What the first answer said; `None` before it.
    pub fn info(&self) -> Option<ObjectInfo> {
        self.lock().info.clone()
    }

    fn lock(&self) -> Guard<'_, FileState> {
        self.state.lock()
    }
}

/// See the module's head. Clones share everything; dropping the last one fails what still waits.
#[derive(Clone)]
pub struct AssetReader {
    owner: Arc<Owner>,
}

/// Ends the engine and its runtime with the last [`AssetReader`].
struct Owner {
    engine: Arc<Engine>,
    runtime: Option<tokio::runtime::Runtime>,
}

/// What one video needs at its first touch (head, end) and two more.
const LIKELY_CONNECTIONS: usize = 4;
/// Threads that copy and answer; waiting costs none.
const FETCH_THREADS: usize = 2;

impl AssetReader {
    /// Starts the fetching threads. `clock` is asked for every expiry and deadline.
    pub fn new(
        config: ReaderConfig,
        urls: Arc<dyn UrlSource>,
        clock: Arc<dyn Clock>,
    ) -> Result<AssetReader, SetupError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(FETCH_THREADS)
            .thread_name("reelfs-fetch")
            .enable_io()
            .enable_time()
            .build()
            .map_err(SetupError::Runtime)?;
        let client =
            AssetClient::new(config.deadlines, Arc::clone(&clock)).map_err(SetupError::Client)?;
        let engine = Engine::new(config, client, urls, clock, runtime.handle().clone());
        Ok(AssetReader {
            owner: Arc::new(Owner {
                engine: Arc::new(engine),
                runtime: Some(runtime),
            }),
        })
    }

    /// One revision of one asset. `expected_etag` is what an earlier probe or read saw. Keep the
    /// `Arc` for as long as the revision is current: a new one starts with an empty cache.
    pub fn remote_file(
        &self,
        key: AssetKey,
        size_bytes: u64,
        expected_etag: Option<String>,
    ) -> Arc<RemoteFile> {
        self.owner
            .engine
            .remote_file(key, size_bytes, expected_etag)
    }

    /// Calls `done` with the bytes `offset..offset + len`, cut at the file's end: at once where
    /// memory has them all, else later on another thread. Never blocks.
    pub fn read(&self, file: &Arc<RemoteFile>, offset: u64, len: u32, done: ReadDone) {
        let range = ByteRange::at(offset, u64::from(len)).clamp_to(file.size_bytes);
        let reply = Reply::new(done);
        if range.is_empty() {
            reply.send(Ok(Bytes::new()));
            return;
        }
        self.owner.engine.read(file, range, reply);
    }

    /// Asks the host for an object's size, ETag and times by a ranged GET of one byte. Concurrent
    /// probes of one key are one request. Never blocks.
    pub fn probe(&self, key: AssetKey, done: ProbeDone) {
        self.owner.engine.probe(key, done);
    }

    /// The last handle of this file closed: its streams end, its cached blocks stay, and reads
    /// that still wait are served.
    pub fn close(&self, file: &Arc<RemoteFile>) {
        self.owner.engine.close(file);
    }

    /// Fetches `range` into the cache, for a read that is to come, behind all reads that wait.
    /// Bytes that are cached or on their way are not asked for again, and a read that comes
    /// meanwhile shares them. Never blocks, and fails silently: then the read itself asks.
    pub fn prefetch(&self, file: &Arc<RemoteFile>, range: ByteRange) -> Prefetch {
        let range = range.clamp_to(file.size_bytes);
        self.owner.engine.prefetch(file, range)
    }

    /// Files at the host of `url` are likely to be read soon: a few connections to it are opened,
    /// where there are none, and closed if nobody needs them. Nothing is asked of the host.
    pub fn prepare(&self, url: &SignedUrl) {
        self.owner.engine.prepare(url, LIKELY_CONNECTIONS);
    }

    /// The memory that blocks may take.
    pub fn cache_bytes(&self) -> u64 {
        self.owner.engine.cache_bytes
    }

    pub fn stats(&self) -> ReaderStats {
        self.owner.engine.stats()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.engine.shut_down();
        if let Some(runtime) = self.runtime.take() {
            // Not waited for: the last reader may be dropped by a callback on that very runtime.
            runtime.shutdown_background();
        }
    }
}
