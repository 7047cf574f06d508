//! What was asked, in the order of arrival, kept for tests, benchmarks and `--log-requests`.
//!
//! Bounded: the oldest entries go. One lock, held for no I/O; an entry's own numbers are atomic,
//! since a body goes on being counted while the log is read.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::HostKind;
use super::sign::epoch_ms;

/// Entries kept at most.
const LIMIT: usize = 200_000;

/// One request as the emulator saw it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoggedRequest {
    /// By the emulator's clock, to the millisecond in JSON.
    #[serde(rename = "at_ms", serialize_with = "as_epoch_ms")]
    pub at: SystemTime,
    pub host: HostKind,
    pub method: String,
    /// As it stood in the request line, a signed URL's query included.
    pub path_and_query: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// `None` where nothing was answered, or not yet.
    pub status: Option<u16>,
    /// Of the answer's body, as handed to the connection so far.
    pub bytes_sent: u64,
    /// Counts connections from 1, over all hosts.
    pub connection_id: u64,
}

fn as_epoch_ms<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(epoch_ms(*at))
}

impl LoggedRequest {
    pub fn path(&self) -> &str {
        self.path_and_query.split('?').next().unwrap_or_default()
    }
}

/// Told of each request when its answer begins or its connection was dropped. Must not block.
pub type RequestWatch = Arc<dyn Fn(&LoggedRequest) + Send + Sync>;

/// An entry that is still being written.
#[derive(Debug)]
pub(super) struct Entry {
    request: LoggedRequest,
    status: AtomicU16,
    bytes_sent: AtomicU64,
}

impl Entry {
    pub fn new(request: LoggedRequest) -> Self {
        Self {
            request,
            status: AtomicU16::new(0),
            bytes_sent: AtomicU64::new(0),
        }
    }

    /// Notes the status that the answer begins with.
    pub fn answered(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// Counts bytes of the body handed to the connection.
    pub fn sent(&self, bytes: u64) {
        self.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn snapshot(&self) -> LoggedRequest {
        let status = self.status.load(Ordering::Relaxed);
        LoggedRequest {
            status: (status != 0).then_some(status),
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
            ..self.request.clone()
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct RequestLog(Mutex<VecDeque<Arc<Entry>>>);

impl RequestLog {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Entry>>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Notes a request as it arrives.
    pub fn begin(&self, request: LoggedRequest) -> Arc<Entry> {
        let entry = Arc::new(Entry::new(request));
        let mut entries = self.lock();
        if entries.len() == LIMIT {
            entries.pop_front();
        }
        entries.push_back(Arc::clone(&entry));
        entry
    }

    pub fn snapshot(&self) -> Vec<LoggedRequest> {
        self.lock().iter().map(|entry| entry.snapshot()).collect()
    }

    /// Begins anew.
    pub fn clear(&self) {
        self.lock().clear();
    }
}
