//! Pictures for file managers without a download: fills the desktop's thumbnail cache from the small
//! previews that the services have, so that nobody opens a video to make one.
//!
//! Promises: nothing here is done on the caller's thread but to leave work; the asset itself is never
//! asked for; what has a valid thumbnail is not fetched; a few previews are fetched at a time
//! ([`FETCHES_AT_ONCE`]), [`MOST_A_PASS`] for one opening of a directory, each of
//! [`MAX_PREVIEW_BYTES`] at most. A preview that fails is left alone for [`FAILURE_PAUSE`]; hosts that
//! fail [`MOST_FAILURES`] times in a row are left alone for [`HOST_PAUSE`].
//!
//! It fails quietly: a file without a thumbnail is what it was before. Knows no FUSE and no service.
//!
//! Locks: `Shared::state` and `Shared::decoding`, never both; the first is not held across I/O.

mod folder;
mod label;
mod picture;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use crate::clock::Clock;
use crate::http::{PreviewClient, SignedUrl, TransportError};
use crate::provider::Details;
use crate::workers::Workers;
use folder::{Folder, Size};
use label::Label;

/// Previews fetched at once: the reads of people come first.
pub const FETCHES_AT_ONCE: usize = 4;
/// Previews fetched for one opening of a directory; the next opening goes on. A hundred screens of a
/// file manager.
pub const MOST_A_PASS: usize = 1_000;
/// The largest preview. They are some tens of kilobytes.
pub const MAX_PREVIEW_BYTES: u64 = 4 << 20;
/// How long a preview that failed is not asked for again.
pub const FAILURE_PAUSE: Duration = Duration::from_secs(600);
/// Failures of hosts in a row after which all are left alone.
pub const MOST_FAILURES: u32 = 8;
/// How long.
pub const HOST_PAUSE: Duration = Duration::from_secs(60);
/// Failures remembered; then all are forgotten.
const MOST_REMEMBERED: usize = 10_000;
/// A URL that expires within this is not asked.
const URL_MARGIN: Duration = Duration::from_secs(5);

/// A file that may have a thumbnail.
#[derive(Debug, Clone)]
pub struct Pictured {
    /// Below the mount point.
    pub path: PathBuf,
    /// As the mount shows it.
    pub mtime: SystemTime,
    pub size_bytes: u64,
    pub mime_type: Option<String>,
    /// Whose preview is its picture.
    pub details: Arc<Details>,
}

/// How many previews one opening of a directory may still fetch.
#[derive(Debug, Clone)]
pub struct Pass(Arc<AtomicUsize>);

impl Default for Pass {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(MOST_A_PASS)))
    }
}

impl Pass {
    /// Whether it has used up what it may.
    pub fn is_spent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn take(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok()
    }
}

/// See the module's head.
pub struct Thumbnails {
    shared: Arc<Shared>,
    /// Looks at what is there.
    walker: Workers,
    /// Fetches what isn't.
    fetchers: Workers,
}

struct Shared {
    folder: Folder,
    mountpoint: PathBuf,
    client: PreviewClient,
    clock: Arc<dyn Clock>,
    is_over: AtomicBool,
    state: Mutex<State>,
    /// One picture is decoded at a time, which bounds the memory.
    decoding: Mutex<()>,
}

#[derive(Default)]
struct State {
    /// URIs that are being fetched or will be.
    pending: HashSet<String>,
    /// URIs of previews that failed, with the file's time then and when it may be tried again.
    failed: HashMap<String, (u64, Instant)>,
    failures_in_a_row: u32,
    quiet_until: Option<Instant>,
}

/// Why a file got no thumbnail.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Transport(#[from] TransportError),
    #[error("{0}")]
    Picture(#[from] picture::PictureError),
    #[error("it can't be stored: {0}")]
    Disk(#[from] io::Error),
}

impl Failure {
    /// Whether the host is unwell, rather than this preview.
    fn is_the_hosts(&self) -> bool {
        match self {
            Failure::Transport(TransportError::Status { status, .. }) => {
                *status >= 500 || *status == 429
            }
            Failure::Transport(TransportError::TooLarge { .. }) => false,
            Failure::Transport(_) => true,
            Failure::Picture(_) => false,
            // A full disk is no reason to fetch more.
            Failure::Disk(_) => true,
        }
    }
}

impl Thumbnails {
    /// Fills the folder at `root` for the files below `mountpoint`, which is absolute. Fails where
    /// the folder can't be used.
    pub fn new(
        root: &Path,
        mountpoint: &Path,
        client: PreviewClient,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared {
                folder: Folder::open(root)?,
                mountpoint: mountpoint.to_path_buf(),
                client,
                clock,
                is_over: AtomicBool::new(false),
                state: Mutex::default(),
                decoding: Mutex::default(),
            }),
            walker: Workers::new("thumb-walk", 1),
            fetchers: Workers::new("thumb-fetch", FETCHES_AT_ONCE),
        })
    }

    /// Runs `walk` on a thread of its own; it offers files.
    pub fn walk(&self, walk: impl FnOnce() + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        self.walker.run(move || {
            if !shared.is_over() {
                walk();
            }
        });
    }

    /// Has a file's thumbnail made in the background, where it has a preview and no valid one.
    /// Looks at the disk, so it is for [`Self::walk`].
    pub fn offer(&self, file: Pictured, pass: &Pass) {
        let shared = Arc::clone(&self.shared);
        if let Some(task) = shared.task(file)
            && shared.begin(&task.label, pass)
        {
            self.fetchers.run(move || shared.carry_out(&task));
        }
    }
}

impl Drop for Thumbnails {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

/// A thumbnail to be made.
struct Task {
    label: Label,
    /// Those that aren't there or are out of date.
    sizes: Vec<Size>,
    details: Arc<Details>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn task(&self, file: Pictured) -> Option<Task> {
        let preview = file.details.preview.as_ref()?;
        if preview.expired(self.clock.now(), URL_MARGIN) {
            return None;
        }
        let path = self.mountpoint.join(&file.path);
        let label = Label::new(&path, file.mtime, file.size_bytes, file.mime_type)?;
        let mut sizes = Size::ALL.to_vec();
        sizes.retain(|size| !self.folder.is_valid(*size, &label));
        (!sizes.is_empty()).then_some(Task {
            label,
            sizes,
            details: file.details,
        })
    }

    /// Whether the file is to be fetched now; it counts as pending then.
    fn begin(&self, label: &Label, pass: &Pass) -> bool {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        if state.quiet_until.is_some_and(|until| now < until) {
            return false;
        }
        let failed = state.failed.get(&label.uri);
        if failed.is_some_and(|(mtime_s, until)| *mtime_s == label.mtime_s && now < *until) {
            return false;
        }
        !state.pending.contains(&label.uri)
            && pass.take()
            && state.pending.insert(label.uri.clone())
    }

    fn carry_out(&self, task: &Task) {
        let _pending = Pending(self, &task.label.uri);
        let now = self.clock.monotonic();
        let quiet_until = self.lock().quiet_until;
        if self.is_over() || quiet_until.is_some_and(|until| now < until) {
            return;
        }
        let Some(preview) = &task.details.preview else {
            return;
        };
        match self.make(task, preview) {
            Ok(()) => self.lock().failures_in_a_row = 0,
            Err(failure) => self.note(&failure, preview, &task.label),
        }
    }

    fn make(&self, task: &Task, preview: &SignedUrl) -> Result<(), Failure> {
        let body = self.client.get(preview, MAX_PREVIEW_BYTES)?;
        let pictures = {
            let _one = self.decoding.lock().unwrap_or_else(|e| e.into_inner());
            let picture = picture::decode(&body)?;
            let fitted = |size: &Size| (*size, picture::fit(&picture, size.side_px()));
            task.sizes.iter().map(fitted).collect::<Vec<_>>()
        };
        for (size, picture) in pictures {
            self.folder.put(size, &task.label, &picture)?;
        }
        Ok(())
    }

    fn note(&self, failure: &Failure, preview: &SignedUrl, label: &Label) {
        log::debug!("no thumbnail from {}: {failure}", preview.host());
        let now = self.clock.monotonic();
        let mut state = self.lock();
        if state.failed.len() >= MOST_REMEMBERED {
            state.failed.clear();
        }
        let again = (label.mtime_s, now + FAILURE_PAUSE);
        state.failed.insert(label.uri.clone(), again);
        if !failure.is_the_hosts() {
            return;
        }
        state.failures_in_a_row += 1;
        if state.failures_in_a_row >= MOST_FAILURES {
            state.failures_in_a_row = 0;
            state.quiet_until = Some(now + HOST_PAUSE);
            drop(state);
            log::warn!(
                "thumbnails wait for a minute, because of {MOST_FAILURES} failures in a row: {failure}"
            );
        }
    }
}

/// Ends a URI's being pending, also where its making panicked.
struct Pending<'a>(&'a Shared, &'a str);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.lock().pending.remove(self.1);
    }
}

#[cfg(test)]
mod tests;
