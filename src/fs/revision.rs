//! Which bytes a file has now, as far as handles and the kernel's page cache are concerned.
//!
//! Promises: all handles of one revision share one `RemoteFile` and so one set of cached blocks.
//! Once the host is known to have a newer one, reads by handles of the older one fail with ESTALE.
//! The kernel keeps one page cache a number, and only one revision is ever open under a number: see
//! `LibraryFs::opened_asset`.
//!
//! A read that failed after waiting is answered the same for a moment: the kernel asks for the first
//! page of a failed read-ahead once more, and nobody should wait out the deadline twice.
//!
//! Locks: `current` and those within a revision, each held for look-ups only.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use super::FsError;
use crate::reader::{ObjectInfo, RemoteFile};

/// How long a failed read stands for the kernel's second try, which comes within milliseconds,
/// later on a busy machine. Shorter than anybody's patience to try again by hand.
const FAILURE_STANDS: Duration = Duration::from_secs(1);

/// What the API says that changes when the bytes do (and, for the time, sometimes when they
/// don't).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    pub size_bytes: u64,
    pub updated_at: Option<SystemTime>,
}

/// One revision of one file.
pub struct Revision {
    pub file: Arc<RemoteFile>,
    claim: Mutex<Claim>,
    superseded: AtomicBool,
    handles: AtomicUsize,
    /// Whether any handle was ever given out.
    was_opened: AtomicBool,
    pub failure: LastFailure,
    /// Given to the kernel so far.
    pub served_bytes: AtomicU64,
}

/// The last read that failed, for the kernel's second try.
#[derive(Default)]
pub struct LastFailure(Mutex<Option<Failure>>);

struct Failure {
    bytes: Range<u64>,
    at: Instant,
    error: FsError,
}

impl LastFailure {
    /// Remembers that reading `bytes` failed.
    pub fn note(&self, bytes: Range<u64>, at: Instant, error: FsError) {
        let mut failure = self.0.lock().unwrap_or_else(|e| e.into_inner());
        *failure = Some(Failure { bytes, at, error });
    }

    /// Why the byte at `offset` could not be read a moment ago.
    pub fn lately(&self, offset: u64, now: Instant) -> Option<FsError> {
        let failure = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let failure = failure.as_ref()?;
        let stands = failure.bytes.contains(&offset) && now < failure.at + FAILURE_STANDS;
        stands.then(|| failure.error.clone())
    }
}

impl Revision {
    pub fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Acquire)
    }

    /// Counts a handle. True where it is not the first: only then are the kernel's pages of these
    /// bytes (a revision may be installed to be fetched ahead, without an opening).
    pub fn opened(&self) -> bool {
        self.handles.fetch_add(1, Ordering::AcqRel);
        self.was_opened.swap(true, Ordering::AcqRel)
    }

    /// True for the last handle.
    pub fn closed(&self) -> bool {
        self.handles.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Counts bytes that a read was answered with.
    pub fn served(&self, bytes: usize) {
        self.served_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Whether `info` describes the bytes of this revision.
    pub fn matches(&self, info: &ObjectInfo) -> bool {
        let same_tag = self.file.etag() == info.etag;
        same_tag && self.file.size_bytes() == info.size_bytes
    }

    /// The API's word changed but the bytes proved the same.
    pub fn confirm(&self, claim: Claim) {
        *self.claim.lock().unwrap_or_else(|e| e.into_inner()) = claim;
    }
}

/// What to do with an open.
pub enum Found {
    /// The revision is current, and so is the kernel's page cache.
    Current(Arc<Revision>),
    /// The API's word changed; the asset host must say whether the bytes did.
    Suspect(Arc<Revision>),
    Unknown,
}

/// The current revision of every file that was opened.
#[derive(Default)]
pub struct Revisions {
    current: Mutex<HashMap<u64, Arc<Revision>>>,
}

impl Revisions {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Revision>>> {
        self.current.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Finds the revision for an open under `claim`. One that can't be the same any more is
    /// superseded on the way.
    pub fn find(&self, ino: u64, claim: Claim) -> Found {
        let mut current = self.lock();
        let Some(revision) = current.get(&ino).cloned() else {
            return Found::Unknown;
        };
        let before = *revision.claim.lock().unwrap_or_else(|e| e.into_inner());
        if before == claim {
            return Found::Current(revision);
        }
        if before.size_bytes == claim.size_bytes && revision.file.etag().is_some() {
            return Found::Suspect(revision);
        }
        revision.superseded.store(true, Ordering::Release);
        current.remove(&ino);
        Found::Unknown
    }

    /// Installs a revision, unless another open was faster: then that one is the answer.
    pub fn install(&self, ino: u64, claim: Claim, file: Arc<RemoteFile>) -> Arc<Revision> {
        let mut current = self.lock();
        let revision = current.entry(ino).or_insert_with(|| {
            Arc::new(Revision {
                file,
                claim: Mutex::new(claim),
                superseded: AtomicBool::new(false),
                handles: AtomicUsize::new(0),
                was_opened: AtomicBool::new(false),
                failure: LastFailure::default(),
                served_bytes: AtomicU64::new(0),
            })
        });
        Arc::clone(revision)
    }

    /// Ends a revision: its bytes are no longer the file's.
    pub fn supersede(&self, ino: u64, revision: &Arc<Revision>) {
        revision.superseded.store(true, Ordering::Release);
        let mut current = self.lock();
        if current
            .get(&ino)
            .is_some_and(|other| Arc::ptr_eq(other, revision))
        {
            current.remove(&ino);
        }
    }

    #[cfg(all(test, feature = "emulator"))]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Lets go of a file that left the tree.
    pub fn forget(&self, ino: u64) {
        self.lock().remove(&ino);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_read_stands_for_its_own_bytes_and_a_moment_only() {
        let failure = LastFailure::default();
        let start = Instant::now();
        assert_eq!(failure.lately(0, start), None);
        failure.note(100..200, start, FsError::BadHandle);
        assert_eq!(failure.lately(100, start), Some(FsError::BadHandle));
        assert_eq!(failure.lately(199, start), Some(FsError::BadHandle));
        assert_eq!(failure.lately(99, start), None);
        assert_eq!(failure.lately(200, start), None);
        assert_eq!(failure.lately(100, start + FAILURE_STANDS), None);
    }
}
