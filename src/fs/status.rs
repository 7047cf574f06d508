//! How the mount is doing, as its control directory tells and `reelfs status` shows.
//!
//! Promises: made from memory and the local disk alone, so it is there while every service is
//! silent; no token and no signed URL is in it, because nothing here holds one and every error's
//! text has passed the filter of [`Health`]; an account is named only as the user configured it.
//! Each part is true of its own moment: nothing is locked over all of them.
//!
//! The types are the format of `status.json`. Fields are added, never changed in meaning; a reader
//! must pass over those that it doesn't know. Times are RFC 3339 in UTC; sizes are bytes.

pub mod metrics;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::LibraryFs;
use super::read::FileHandle;
use super::revision::Revision;
use crate::health::{Health, Record};
use crate::provider::{Library, Service};
use crate::tree::Node;
use crate::upload::{UploadState, UploadStatus};

/// What a mount says of itself, as it was mounted.
#[derive(Clone)]
pub struct About {
    /// Absolute.
    pub mount_point: PathBuf,
    /// As configured; `None` where the user named none.
    pub accounts: BTreeMap<Service, Option<String>>,
    pub health: Arc<Health>,
}

/// Everything; see the module's head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub process_id: u32,
    pub mount_point: PathBuf,
    pub mounted_at: String,
    pub read_only: bool,
    pub services: Vec<ServiceStatus>,
    pub libraries: Vec<LibraryStatus>,
    pub cache: CacheStatus,
    pub streams: StreamStatus,
    pub uploads: Vec<UploadLine>,
    /// The newest first, at most [`crate::health::MOST_TROUBLES`].
    pub errors: Vec<ErrorLine>,
    /// Since it was mounted, also of those that are no longer listed.
    pub error_counts: Vec<ErrorCount>,
}

/// Whether a service answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reachable {
    Yes,
    No,
    /// Nobody asked it yet.
    Unknown,
}

/// One service, as its last calls went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    pub account: Option<String>,
    pub reachable: Reachable,
    pub last_success: Option<String>,
    pub last_failure: Option<String>,
    pub failure: Option<String>,
}

/// One directory of assets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LibraryStatus {
    /// Below the mount point.
    pub path: String,
    pub entries: usize,
    /// `None` where it was not listed yet, and for Runflow, which has no listing.
    pub listing_age_seconds: Option<f64>,
    /// It is shown without asking the service.
    pub fresh: bool,
    /// An older listing stands in, because the service is unwell.
    pub stale: bool,
    /// Why the last listing failed.
    pub problem: Option<String>,
}

/// What the cache of assets' bytes does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheStatus {
    pub capacity_bytes: u64,
    pub used_bytes: u64,
    /// Reads that memory answered.
    pub hits: u64,
    /// Reads that waited for a host.
    pub misses: u64,
    /// Of all reads; `None` before the first.
    pub hit_rate: Option<f64>,
}

/// What goes on between the mount and the asset hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamStatus {
    /// Requests to asset hosts that are under way.
    pub active: u64,
    /// Requests to asset hosts since it was mounted.
    pub requests: u64,
    /// Bytes of assets that came over the network since it was mounted.
    pub fetched_bytes: u64,
    pub open_files: Vec<OpenFile>,
}

/// A file that a program has open for reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFile {
    pub path: String,
    pub size_bytes: u64,
    pub handles: usize,
    /// Bytes given to the kernel since the file was first opened; two looks make a rate.
    pub served_bytes: u64,
}

/// A file that isn't an asset yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UploadLine {
    pub path: String,
    /// `open`, `local`, `queued`, `sending` or `failed`.
    pub state: String,
    pub size_bytes: u64,
    /// Of the attempt that runs.
    pub sent_bytes: u64,
    /// Attempts that failed since it was closed.
    pub failures: u32,
    pub next_try_seconds: Option<f64>,
    pub error: Option<String>,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorLine {
    pub at: String,
    pub place: String,
    pub text: String,
    pub times: u64,
}

/// How much of one kind went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCount {
    pub service: String,
    pub kind: String,
    pub count: u64,
}

impl LibraryFs {
    /// How the mount is doing now. Waits for nobody.
    pub fn status(&self) -> Status {
        let record = self.about.health.record();
        Status {
            version: env!("CARGO_PKG_VERSION").to_string(),
            process_id: std::process::id(),
            mount_point: self.about.mount_point.clone(),
            mounted_at: time(self.mounted_at),
            read_only: self.options.read_only,
            services: self.service_statuses(&record),
            libraries: self.library_statuses(),
            cache: self.cache_status(),
            streams: self.stream_status(),
            uploads: self.upload_lines(),
            errors: error_lines(&record),
            error_counts: error_counts(&record),
        }
    }

    fn service_statuses(&self, record: &Record) -> Vec<ServiceStatus> {
        let services = self.catalog.lock().tree.services().to_vec();
        let status = |service: Service| {
            let contact = record.contacts.get(service.name());
            let contact = contact.cloned().unwrap_or_default();
            let (failed_at, failure) = contact.last_failure.unzip();
            ServiceStatus {
                name: service.to_string(),
                account: self.about.accounts.get(&service).cloned().flatten(),
                reachable: match contact.reachable {
                    Some(true) => Reachable::Yes,
                    Some(false) => Reachable::No,
                    None => Reachable::Unknown,
                },
                last_success: contact.last_success.map(time),
                last_failure: failed_at.map(time),
                failure,
            }
        };
        services.into_iter().map(status).collect()
    }

    fn library_statuses(&self) -> Vec<LibraryStatus> {
        let now = self.catalog.now();
        let state = self.catalog.lock();
        let services = state.tree.services().iter();
        let libraries = services.flat_map(|service| service.libraries());
        libraries
            .map(|library| {
                let listed_at = state.tree.listed_at(*library);
                let listed_at = listed_at.filter(|_| *library != Library::Runflow);
                let problem = state.complaint(*library).map(|why| self.filtered(why));
                LibraryStatus {
                    path: library.to_string(),
                    entries: state.tree.entries(*library).len(),
                    listing_age_seconds: listed_at
                        .map(|at| seconds(now.saturating_duration_since(at))),
                    fresh: listed_at.is_some()
                        && !self.catalog.fresh_for(&state, *library).is_zero(),
                    stale: listed_at.is_some() && problem.is_some(),
                    problem,
                }
            })
            .collect()
    }

    fn cache_status(&self) -> CacheStatus {
        let stats = self.reader.stats();
        let reads = stats.hits + stats.misses;
        CacheStatus {
            capacity_bytes: self.reader.cache_bytes(),
            used_bytes: stats.cached_bytes,
            hits: stats.hits,
            misses: stats.misses,
            hit_rate: (reads > 0).then(|| stats.hits as f64 / reads as f64),
        }
    }

    fn stream_status(&self) -> StreamStatus {
        let stats = self.reader.stats();
        StreamStatus {
            active: stats.active_streams,
            requests: stats.requests,
            fetched_bytes: stats.fetched_bytes,
            open_files: self.open_files(),
        }
    }

    fn open_files(&self) -> Vec<OpenFile> {
        let mut open: HashMap<u64, (Arc<Revision>, usize)> = HashMap::new();
        for handle in self.files.all() {
            if let FileHandle::Asset { ino, revision, .. } = &*handle {
                let entry = open.entry(*ino);
                entry.or_insert_with(|| (Arc::clone(revision), 0)).1 += 1;
            }
        }
        let state = self.catalog.lock();
        let mut files: Vec<OpenFile> = open
            .into_iter()
            .map(|(ino, (revision, handles))| OpenFile {
                path: match (
                    state.tree.node(ino).map(Node::library),
                    state.tree.name_of(ino),
                ) {
                    (Some(library), Some(name)) => format!("{library}/{name}"),
                    _ => "a file that left its directory".to_string(),
                },
                size_bytes: revision.file.size_bytes(),
                handles,
                served_bytes: revision.served_bytes.load(Ordering::Relaxed),
            })
            .collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    }

    fn upload_lines(&self) -> Vec<UploadLine> {
        let uploads = self.uploads.get().map(|uploads| uploads.statuses());
        let line = |status: UploadStatus| UploadLine {
            path: format!("{}/{}", status.library, status.name),
            state: state_word(&status.state).to_string(),
            size_bytes: status.size_bytes,
            sent_bytes: status.sent_bytes,
            failures: status.failures,
            next_try_seconds: status.next_try.map(seconds),
            error: status.error.map(|error| self.filtered(&error)),
        };
        uploads.into_iter().flatten().map(line).collect()
    }

    fn filtered(&self, text: &str) -> String {
        self.about.health.filtered(text)
    }
}

/// One word for a state, also a metric's label.
fn state_word(state: &UploadState) -> &'static str {
    match state {
        UploadState::Open => "open",
        UploadState::Local => "local",
        UploadState::Queued => "queued",
        UploadState::Sending { .. } => "sending",
        UploadState::Failed { .. } => "failed",
        // It is an asset a moment later.
        UploadState::Uploaded { .. } => "sending",
    }
}

fn error_lines(record: &Record) -> Vec<ErrorLine> {
    let line = |trouble: &crate::health::Trouble| ErrorLine {
        at: time(trouble.at),
        place: trouble.place.clone(),
        text: trouble.text.clone(),
        times: trouble.times,
    };
    record.troubles.iter().map(line).collect()
}

fn error_counts(record: &Record) -> Vec<ErrorCount> {
    let counts = record.counts.iter();
    counts
        .map(|(label, count)| ErrorCount {
            service: label.service.to_string(),
            kind: label.kind.to_string(),
            count: *count,
        })
        .collect()
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

/// To the millisecond: a clock's noise is not worth its digits.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
