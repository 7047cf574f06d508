//! Which bytes a file has now, as far as handles and the kernel's page cache are concerned.
//!
//! Promises: all handles of one revision share one `RemoteFile` and so one set of cached blocks.
//! Once a newer revision is known, reads by handles of the older one fail with ESTALE: the kernel
//! keeps one page cache a file, and an older block must not get into it.
//!
//! Locks: `current` alone, held for look-ups only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use crate::reader::{ObjectInfo, RemoteFile};

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
}

impl Revision {
    pub fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Acquire)
    }

    pub fn opened(&self) {
        self.handles.fetch_add(1, Ordering::AcqRel);
    }

    /// True for the last handle.
    pub fn closed(&self) -> bool {
        self.handles.fetch_sub(1, Ordering::AcqRel) == 1
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

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Lets go of a file that left the tree.
    pub fn forget(&self, ino: u64) {
        self.lock().remove(&ino);
    }
}
