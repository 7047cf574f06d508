//! The operations of the file system, without a kernel: every one takes numbers, names and a
//! closure, and calls the closure exactly once, at once where memory or the local disk can answer,
//! else from the thread that brings the answer. No operation blocks its caller on the network.
//!
//! How they fail: with an [`FsError`], one kind for each errno.
//!
//! Lock order: `Catalog::state`, `local`, `overlays`, `follows`, `Revisions::current`,
//! `Pictures::openings` and the handle tables
//! are leaves: none is held while another is taken, and none while a closure, the reader, the
//! store or the uploads are called.

mod accept;
mod ahead;
pub mod attr;
mod catalog;
mod change;
pub mod control;
mod copy_up;
mod directory;
pub mod error;
mod follow;
mod handles;
pub mod kernel;
mod learn;
mod local;
mod lookup;
mod memory;
mod pictures;
mod read;
pub mod refresh;
mod revision;
mod settle;
mod stat;
pub mod status;
#[cfg(all(test, feature = "emulator"))]
mod tests;
mod write;
pub mod xattr;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use uuid::Uuid;

use crate::clock::Clock;
use crate::provider::{Library, Service};
use crate::reader::AssetReader;
use crate::store::AssetMeta;
use crate::tree::Kept;
use crate::tree::inode::{self, ControlFile, Fixed};
use crate::upload::{StagedFile, Uploads};

pub use attr::{Attr, Kind};
pub use catalog::{Catalog, Ready};
pub use change::SetAttr;
use directory::DirHandle;
pub use directory::Listed;
pub use error::FsError;
use handles::Handles;
use kernel::Forget;
pub use read::Opened;
use revision::Revisions;
pub use settle::UploadRelay;
use status::About;
pub use write::{Closer, OpenMode, WrittenBy};

/// Called once with an operation's outcome.
pub type Done<T> = Box<dyn FnOnce(Result<T, FsError>) + Send>;

/// What the mount allows.
#[derive(Debug, Clone)]
pub struct Options {
    pub read_only: bool,
    pub allow_delete: bool,
    /// How long a rename that starts an upload waits for it. The kernel holds the directory
    /// meanwhile, so `ls` waits as long.
    pub rename_wait: Duration,
    /// Where free space is measured.
    pub state_dir: PathBuf,
}

/// What a number in the kernel's hands stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Service(Service),
    Library(Library),
    File,
    Control,
    ControlFile(ControlFile),
}

/// Free and total space and inodes, for `statfs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub block_bytes: u64,
    pub blocks: u64,
    pub free: u64,
    pub available: u64,
    /// Inodes: all, and those that are free. Zero where the disk counts none.
    pub files: u64,
    pub files_free: u64,
}

/// See the module's head.
pub struct LibraryFs {
    catalog: Arc<Catalog>,
    reader: Arc<AssetReader>,
    uploads: OnceLock<Arc<Uploads>>,
    options: Options,
    about: About,
    mounted_at: SystemTime,
    files: Handles<read::FileHandle>,
    directories: Handles<DirHandle>,
    revisions: Revisions,
    /// Staged files by their numbers.
    staged: Mutex<HashMap<u64, Arc<StagedFile>>>,
    /// Assets opened for writing: what is written so far, shown until the handle is closed.
    overlays: Mutex<HashMap<u64, Arc<StagedFile>>>,
    read_directories: Mutex<HashMap<Library, Instant>>,
    follows: Mutex<HashMap<Library, follow::Follow>>,
    /// For which listing connections were last made.
    prepared: Mutex<HashMap<Library, Option<Instant>>>,
    /// Who waits for a while for the upload of a staged file, by its id.
    watched: Mutex<HashMap<Uuid, SyncSender<Result<(), FsError>>>>,
    /// Whom directories that are read are offered to.
    pictures: OnceLock<pictures::Pictures>,
    /// Order of local files and uploads; see [`LocalNode::sequence`].
    sequence: AtomicU64,
}

impl LibraryFs {
    /// The file system over a catalog and a reader. It takes no files before
    /// [`Self::set_uploads`].
    pub fn new(
        catalog: Arc<Catalog>,
        reader: Arc<AssetReader>,
        clock: &dyn Clock,
        options: Options,
        about: About,
    ) -> Arc<Self> {
        let fs = Arc::new(Self {
            sequence: AtomicU64::new(catalog.last_sequence()),
            catalog,
            reader,
            uploads: OnceLock::new(),
            options,
            about,
            mounted_at: clock.now(),
            files: Handles::default(),
            directories: Handles::default(),
            revisions: Revisions::default(),
            staged: Mutex::new(HashMap::new()),
            overlays: Mutex::new(HashMap::new()),
            read_directories: Mutex::new(HashMap::new()),
            follows: Mutex::new(HashMap::new()),
            prepared: Mutex::new(HashMap::new()),
            watched: Mutex::new(HashMap::new()),
            pictures: OnceLock::new(),
        });
        let learner = learn::EarlyLearner(Arc::downgrade(&fs));
        fs.catalog.set_learner(Arc::new(learner));
        fs
    }

    /// From here on files can be copied in. Those that earlier mounts left stand in their
    /// directories again.
    pub fn set_uploads(self: &Arc<Self>, uploads: Arc<Uploads>) {
        let staged = uploads.staged();
        if self.uploads.set(uploads).is_ok() {
            for file in staged {
                self.stand(&file);
            }
        }
    }

    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Counts a number that a reply gives to the kernel. Before the reply is sent: the kernel may
    /// give it back at once.
    pub fn remember(&self, ino: u64) {
        self.remember_all(&[ino]);
    }

    /// As [`Self::remember`], for a reply with many.
    pub fn remember_all(&self, numbers: &[u64]) {
        let mut state = self.catalog.lock();
        for ino in numbers {
            state.tree.remember(*ino);
        }
    }

    /// The kernel gave back `count` of the numbers it was given.
    pub fn forget(&self, ino: u64, count: u64) {
        let dropped = {
            let mut state = self.catalog.lock();
            state.tree.forget(ino, count);
            state.tree.take_dropped()
        };
        for ino in dropped {
            self.revisions.forget(ino);
            lock(&self.staged).remove(&ino);
        }
    }

    /// Space on the staging disk: what can be copied in.
    pub fn statfs(&self) -> Result<Space, FsError> {
        let space = rustix::fs::statvfs(&self.options.state_dir)
            .map_err(|errno| FsError::from(std::io::Error::from(errno)))?;
        Ok(Space {
            block_bytes: space.f_frsize,
            blocks: space.f_blocks,
            free: space.f_bfree,
            available: space.f_bavail,
            files: space.f_files,
            files_free: space.f_ffree,
        })
    }

    fn place(&self, ino: u64) -> Option<Place> {
        let state = self.catalog.lock();
        let shown = |service: Service| state.tree.services().contains(&service);
        match inode::directory(ino) {
            None => state.tree.node(ino).map(|_| Place::File),
            Some(Fixed::Root) => Some(Place::Root),
            Some(Fixed::Service(service)) => shown(service).then_some(Place::Service(service)),
            Some(Fixed::Library(library)) => {
                shown(library.service()).then_some(Place::Library(library))
            }
            Some(Fixed::Control) => Some(Place::Control),
            Some(Fixed::ControlFile(file)) => Some(Place::ControlFile(file)),
        }
    }

    fn library_of(&self, ino: u64) -> Result<Library, FsError> {
        match self.place(ino) {
            Some(Place::Library(library)) => Ok(library),
            Some(Place::Root | Place::Service(_) | Place::Control) => Err(FsError::NotPermitted(
                "files stand in the directories of a service only",
            )),
            Some(Place::File | Place::ControlFile(_)) => Err(FsError::NotDirectory),
            None => Err(FsError::NotFound),
        }
    }

    fn takes_files(&self, library: Library) -> bool {
        library.takes_uploads() && self.uploads.get().is_some() && !self.options.read_only
    }

    fn staged_file(&self, ino: u64) -> Option<Arc<StagedFile>> {
        lock(&self.staged).get(&ino).cloned()
    }

    fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Makes the kernel forget a file's pages and attributes.
    fn forget_data(&self, ino: u64) {
        self.catalog.tell_kernel(vec![Forget::Data { ino }]);
    }
}

/// What the store keeps of an upload, in the tree's terms.
fn kept_from(meta: &AssetMeta) -> Kept {
    Kept {
        ino: Some(meta.ino),
        name: meta.display_name.clone(),
        service_name: meta.service_name.clone(),
        mtime: meta.mtime,
        mode: meta.mode,
        sequence: (meta.sequence > 0).then_some(meta.sequence),
        uploaded_at: None,
        updated_at: meta.updated_at,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
