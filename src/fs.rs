//! The operations of the file system, without a kernel: every one takes numbers, names and a
//! closure, and calls the closure exactly once, at once where memory or the local disk can answer,
//! else from the thread that brings the answer. No operation blocks its caller on the network.
//!
//! How they fail: with an [`FsError`], one kind for each errno.
//!
//! Lock order: `Catalog::state`, `local`, `overlays`, `Revisions::current` and the handle tables
//! are leaves: none is held while another is taken, and none while a closure, the reader, the
//! store or the uploads are called.

pub mod attr;
mod catalog;
mod change;
mod copy_up;
pub mod error;
mod handles;
pub mod kernel;
mod local;
mod memory;
mod read;
mod revision;
mod settle;
mod write;
mod xattr;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use crate::clock::Clock;
use crate::provider::{AssetId, Library, Service, media_type};
use crate::reader::AssetReader;
use crate::store::AssetMeta;
use crate::tree::{Kept, Node, inode, name};
use crate::upload::{StagedFile, Uploads};

pub use attr::{Attr, Kind};
pub use catalog::{Catalog, Ready};
pub use change::SetAttr;
pub use error::FsError;
use handles::Handles;
use kernel::Forget;
pub use read::Opened;
use revision::Revisions;
pub use settle::UploadRelay;
pub use write::{Closer, OpenMode};

/// Called once with an operation's outcome.
pub type Done<T> = Box<dyn FnOnce(Result<T, FsError>) + Send>;

/// How long the kernel may believe what only this program changes.
const OWN_TTL: Duration = Duration::from_secs(1);
/// A directory was read this recently: a `stat` of one of its files is one of many to come.
const READDIR_RECENT: Duration = Duration::from_secs(10);

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
}

/// An entry of a directory as `readdir` gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub ino: u64,
    pub name: Arc<str>,
    pub kind: Kind,
}

/// Free and total space, for `statfs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub block_bytes: u64,
    pub blocks: u64,
    pub free: u64,
    pub available: u64,
}

struct DirHandle {
    place: Place,
    snapshot: Mutex<Option<Arc<[Listed]>>>,
}

/// See the module's head.
pub struct LibraryFs {
    catalog: Arc<Catalog>,
    reader: Arc<AssetReader>,
    uploads: OnceLock<Arc<Uploads>>,
    options: Options,
    mounted_at: SystemTime,
    files: Handles<read::FileHandle>,
    directories: Handles<DirHandle>,
    revisions: Revisions,
    /// Staged files by their numbers.
    staged: Mutex<HashMap<u64, Arc<StagedFile>>>,
    /// Assets opened for writing: what is written so far, shown until the handle is closed.
    overlays: Mutex<HashMap<u64, Arc<StagedFile>>>,
    read_directories: Mutex<HashMap<Library, Instant>>,
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
    ) -> Arc<Self> {
        Arc::new(Self {
            sequence: AtomicU64::new(catalog.last_sequence()),
            catalog,
            reader,
            uploads: OnceLock::new(),
            options,
            mounted_at: clock.now(),
            files: Handles::default(),
            directories: Handles::default(),
            revisions: Revisions::default(),
            staged: Mutex::new(HashMap::new()),
            overlays: Mutex::new(HashMap::new()),
            read_directories: Mutex::new(HashMap::new()),
        })
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

    /// The file or directory called `name` in `parent`. Counted for [`Self::forget`] once it is
    /// handed to the kernel: see [`Self::remember`].
    pub fn lookup(self: &Arc<Self>, parent: u64, name: &OsStr, done: Done<Attr>) {
        let Some(name) = name.to_str() else {
            return done(Err(FsError::NotFound));
        };
        match self.place(parent) {
            Some(Place::Root) => done(self.service_named(name).ok_or(FsError::NotFound)),
            Some(Place::Service(service)) => {
                let library = service.libraries().iter().find(|l| l.name() == name);
                done(
                    library
                        .map(|l| self.library_attr(*l))
                        .ok_or(FsError::NotFound),
                );
            }
            Some(Place::Library(Library::Runflow)) => self.lookup_runflow(name, done),
            Some(Place::Library(library)) => self.lookup_file(library, name, done),
            Some(Place::File) => done(Err(FsError::NotDirectory)),
            None => done(Err(FsError::NotFound)),
        }
    }

    /// The number of an asset that stands in `parent` by what its service said lately, whether or
    /// not its size is known. Waits for nothing.
    pub fn listed_number(&self, parent: u64, name: &OsStr) -> Option<u64> {
        let name = name.to_str()?;
        let Some(Place::Library(library)) = self.place(parent) else {
            return None;
        };
        let state = self.catalog.lock();
        let ino = match library {
            Library::Runflow => {
                let id = runflow_id(name)?;
                state.tree.ino_of(&crate::reader::AssetKey {
                    service: Service::Runflow,
                    id,
                })
            }
            _ => state.tree.lookup(library, name),
        }?;
        let seen_at = state.tree.asset(ino)?.seen_at;
        let ttl = self.catalog.listing_ttl();
        let seen_lately = seen_at.is_some_and(|at| self.catalog.now() < at + ttl);
        let listed_lately = !self.catalog.fresh_for(&state, library).is_zero();
        (seen_lately || listed_lately).then_some(ino)
    }

    /// Counts a number that a reply gives to the kernel.
    pub fn remember(&self, ino: u64) {
        self.catalog.lock().tree.remember(ino);
    }

    /// The kernel gave back `count` of the numbers it was given.
    pub fn forget(&self, ino: u64, count: u64) {
        let gone = self.catalog.lock().tree.forget(ino, count);
        if gone {
            self.revisions.forget(ino);
            lock(&self.staged).remove(&ino);
        }
    }

    /// What `stat` shows. Waits where only the asset host knows.
    pub fn getattr(self: &Arc<Self>, ino: u64, done: Done<Attr>) {
        match self.place(ino) {
            Some(Place::Root) => done(Ok(self.root_attr())),
            Some(Place::Service(service)) => done(Ok(self.service_attr(service))),
            Some(Place::Library(library)) => done(Ok(self.library_attr(library))),
            Some(Place::File) => self.file_attr_or_learn(ino, done),
            None => done(Err(FsError::NotFound)),
        }
    }

    /// Attributes of an entry where they are known without waiting.
    pub fn known_attr(&self, ino: u64) -> Option<Attr> {
        match self.place(ino)? {
            Place::Root => Some(self.root_attr()),
            Place::Service(service) => Some(self.service_attr(service)),
            Place::Library(library) => Some(self.library_attr(library)),
            Place::File => self.file_attr(ino),
        }
    }

    pub fn opendir(&self, ino: u64) -> Result<u64, FsError> {
        match self.place(ino) {
            Some(Place::File) => Err(FsError::NotDirectory),
            None => Err(FsError::NotFound),
            Some(place) => Ok(self.directories.insert(DirHandle {
                place,
                snapshot: Mutex::new(None),
            })),
        }
    }

    /// The directory's entries, `.` and `..` first. Asked from the start (`rewind`), they are what
    /// the directory has now; after that the handle goes on with the same ones, so that no entry
    /// is given twice or left out while the directory changes.
    pub fn readdir(self: &Arc<Self>, fh: u64, rewind: bool, done: Done<Arc<[Listed]>>) {
        let Some(handle) = self.directories.get(fh) else {
            return done(Err(FsError::BadHandle));
        };
        let snapshot = lock(&handle.snapshot).clone();
        if let (Some(snapshot), false) = (snapshot, rewind) {
            return done(Ok(snapshot));
        }
        let Place::Library(library) = handle.place else {
            let entries = self.fixed_entries(handle.place);
            *lock(&handle.snapshot) = Some(Arc::clone(&entries));
            return done(Ok(entries));
        };
        lock(&self.read_directories).insert(library, self.catalog.now());
        let fs = Arc::clone(self);
        self.catalog.ensure_listed(
            library,
            Box::new(move |listed| {
                done(listed.map(|()| {
                    let entries = fs.library_entries(library);
                    *lock(&handle.snapshot) = Some(Arc::clone(&entries));
                    entries
                }));
            }),
        );
    }

    pub fn releasedir(&self, fh: u64) {
        self.directories.remove(fh);
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
        })
    }

    fn place(&self, ino: u64) -> Option<Place> {
        let state = self.catalog.lock();
        if ino == inode::ROOT {
            return Some(Place::Root);
        }
        for service in state.tree.services() {
            let library = service.libraries().iter();
            if let Some(library) = library.copied().find(|l| inode::of_library(*l) == ino) {
                return Some(Place::Library(library));
            }
            if inode::of_service(*service) == ino {
                return Some(Place::Service(*service));
            }
        }
        state.tree.node(ino).map(|_| Place::File)
    }

    fn library_of(&self, ino: u64) -> Result<Library, FsError> {
        match self.place(ino) {
            Some(Place::Library(library)) => Ok(library),
            Some(Place::Root | Place::Service(_)) => Err(FsError::NotPermitted(
                "files stand in the directories of a service only",
            )),
            Some(Place::File) => Err(FsError::NotDirectory),
            None => Err(FsError::NotFound),
        }
    }

    fn takes_files(&self, library: Library) -> bool {
        library.takes_uploads() && self.uploads.get().is_some() && !self.options.read_only
    }

    fn root_attr(&self) -> Attr {
        let ttl = self.listing_ttl();
        Attr::directory(inode::ROOT, attr::READ_ONLY_DIRECTORY, self.mounted_at, ttl)
    }

    fn service_attr(&self, service: Service) -> Attr {
        match service {
            Service::Runflow => self.library_attr(Library::Runflow),
            _ => Attr::directory(
                inode::of_service(service),
                attr::READ_ONLY_DIRECTORY,
                self.mounted_at,
                self.listing_ttl(),
            ),
        }
    }

    fn library_attr(&self, library: Library) -> Attr {
        let mode = if self.takes_files(library) {
            attr::WRITABLE_DIRECTORY
        } else {
            attr::READ_ONLY_DIRECTORY
        };
        let ino = inode::of_library(library);
        Attr::directory(ino, mode, self.mounted_at, self.listing_ttl())
    }

    /// Directories are fixed for the mount; a minute spares the kernel most questions.
    fn listing_ttl(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn service_named(&self, name: &str) -> Option<Attr> {
        let state = self.catalog.lock();
        let service = state.tree.services().iter().copied();
        let service = service.into_iter().find(|s| s.name() == name);
        drop(state);
        service.map(|service| self.service_attr(service))
    }

    fn lookup_file(self: &Arc<Self>, library: Library, name: &str, done: Done<Attr>) {
        let state = self.catalog.lock();
        let here = state.tree.lookup(library, name);
        let is_local = here.is_some_and(|ino| matches!(state.tree.node(ino), Some(Node::Local(_))));
        drop(state);
        if let (Some(ino), true) = (here, is_local) {
            return self.file_attr_or_learn(ino, done);
        }
        let (fs, name) = (Arc::clone(self), name.to_string());
        self.catalog.ensure_listed(
            library,
            Box::new(move |listed| {
                let found = listed.and_then(|()| {
                    let ino = fs.catalog.lock().tree.lookup(library, &name);
                    ino.ok_or(FsError::NotFound)
                });
                match found {
                    Ok(ino) => fs.file_attr_or_learn(ino, done),
                    Err(error) => done(Err(error)),
                }
            }),
        );
    }

    /// `<uuid>` or `<uuid>.<ext>`, where the extension fits the asset's type.
    fn lookup_runflow(self: &Arc<Self>, name: &str, done: Done<Attr>) {
        let (stem, extension) = name::split_extension(name);
        let Some(id) = runflow_id(stem) else {
            return done(Err(FsError::NotFound));
        };
        let extension = extension.map(str::to_ascii_lowercase);
        let fs = Arc::clone(self);
        let asked = id.clone();
        self.catalog.ensure_found(
            id,
            Box::new(move |found| {
                let ino = found.and_then(|()| fs.runflow_file(&asked, extension.as_deref()));
                match ino {
                    Ok(ino) => fs.file_attr_or_learn(ino, done),
                    Err(error) => done(Err(error)),
                }
            }),
        );
    }

    fn runflow_file(&self, id: &AssetId, extension: Option<&str>) -> Result<u64, FsError> {
        let key = crate::reader::AssetKey {
            service: Service::Runflow,
            id: id.clone(),
        };
        let state = self.catalog.lock();
        let ino = state.tree.ino_of(&key).ok_or(FsError::NotFound)?;
        let node = state.tree.asset(ino).ok_or(FsError::NotFound)?;
        let fits = extension.is_none_or(|asked| {
            let named = node.asset.name.as_deref().map(name::split_extension);
            let named = named.and_then(|(_, extension)| extension.map(str::to_ascii_lowercase));
            let own = name::extension_of(&node.asset).or(named);
            own.is_some_and(|own| media_type::same_type(asked, &own))
        });
        fits.then_some(ino).ok_or(FsError::NotFound)
    }

    fn file_attr_or_learn(self: &Arc<Self>, ino: u64, done: Done<Attr>) {
        if let Some(attr) = self.file_attr(ino) {
            return done(Ok(attr));
        }
        let fs = Arc::clone(self);
        self.learn(
            ino,
            Box::new(move |learned| {
                done(learned.and_then(|()| fs.file_attr(ino).ok_or(FsError::NotFound)));
            }),
        );
    }

    /// Attributes of a file where they are known.
    fn file_attr(&self, ino: u64) -> Option<Attr> {
        if let Some(written) = lock(&self.overlays).get(&ino).cloned() {
            return self.staged_attr(ino, &written, Duration::ZERO);
        }
        let state = self.catalog.lock();
        let node = match state.tree.node(ino)? {
            Node::Local(_) => {
                drop(state);
                return self.staged_attr(ino, &*self.staged_file(ino)?, OWN_TTL);
            }
            Node::Asset(node) => node,
        };
        let library = node.asset.library;
        let mode = match (self.takes_files(library), node.kept.mode) {
            (true, Some(mode)) => (mode & 0o777) as u16,
            (true, None) => attr::WRITABLE_FILE,
            (false, _) => attr::READ_ONLY_FILE,
        };
        let ttl = match library {
            Library::Runflow => {
                let age = node.seen_at.map(|at| self.catalog.now() - at);
                age.map_or(Duration::ZERO, |age| {
                    self.catalog.listing_ttl().saturating_sub(age)
                })
            }
            _ => self.catalog.fresh_for(&state, library),
        };
        Some(Attr {
            ino,
            kind: Kind::File,
            size_bytes: node.size_bytes()?,
            mtime: node.mtime()?,
            mode,
            ttl,
        })
    }

    fn staged_attr(&self, ino: u64, staged: &StagedFile, ttl: Duration) -> Option<Attr> {
        Some(Attr {
            ino,
            kind: Kind::File,
            size_bytes: staged.size_bytes().ok()?,
            mtime: staged.times().ok()?.mtime,
            mode: (staged.mode() & 0o777) as u16,
            ttl,
        })
    }

    fn staged_file(&self, ino: u64) -> Option<Arc<StagedFile>> {
        lock(&self.staged).get(&ino).cloned()
    }

    fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Asks the asset host what the API doesn't say of a file; where its directory was just read,
    /// of every file there, because a `stat` of each is to come.
    fn learn(self: &Arc<Self>, ino: u64, ready: Ready) {
        let state = self.catalog.lock();
        let Some(node) = state.tree.asset(ino) else {
            drop(state);
            return ready(Err(FsError::NotFound));
        };
        let (key, library) = (node.key(), node.asset.library);
        drop(state);
        let catalog = Arc::clone(&self.catalog);
        let asked = key.clone();
        self.reader.probe(
            key,
            Box::new(move |probed| {
                ready(match probed {
                    Ok(info) => {
                        catalog.learn(&asked, &info);
                        Ok(())
                    }
                    Err(error) => {
                        log::error!("{library}: the size of {} is unknown: {error}", asked.id);
                        Err(error.into())
                    }
                });
            }),
        );
        self.learn_directory(library);
    }

    fn learn_directory(self: &Arc<Self>, library: Library) {
        let read_at = lock(&self.read_directories).remove(&library);
        if !read_at.is_some_and(|at| self.catalog.now() < at + READDIR_RECENT) {
            return;
        }
        let state = self.catalog.lock();
        let entries = state.tree.entries(library);
        let unknown: Vec<_> = entries
            .iter()
            .filter_map(|entry| state.tree.asset(entry.ino))
            .filter(|node| !node.attributes_known())
            .map(|node| node.key())
            .collect();
        drop(state);
        for key in unknown {
            let (catalog, asked) = (Arc::clone(&self.catalog), key.clone());
            self.reader.probe(
                key,
                Box::new(move |probed| {
                    if let Ok(info) = probed {
                        catalog.learn(&asked, &info);
                    }
                }),
            );
        }
    }

    fn fixed_entries(&self, place: Place) -> Arc<[Listed]> {
        let directory = |ino, name: &str| Listed {
            ino,
            name: name.into(),
            kind: Kind::Directory,
        };
        let here = match place {
            Place::Service(service) => inode::of_service(service),
            _ => inode::ROOT,
        };
        let mut entries = vec![directory(here, "."), directory(inode::ROOT, "..")];
        match place {
            Place::Service(service) => {
                let libraries = service.libraries().iter();
                entries.extend(libraries.map(|l| directory(inode::of_library(*l), l.name())));
            }
            _ => {
                let services = self.catalog.lock().tree.services().to_vec();
                let named = services.iter();
                entries.extend(named.map(|s| directory(inode::of_service(*s), s.name())));
            }
        }
        entries.into()
    }

    fn library_entries(&self, library: Library) -> Arc<[Listed]> {
        let files = self.catalog.lock().tree.entries(library);
        let parent = match library {
            Library::Runflow => inode::ROOT,
            _ => inode::of_service(library.service()),
        };
        let directory = |ino, name: &str| Listed {
            ino,
            name: name.into(),
            kind: Kind::Directory,
        };
        let mut entries = Vec::with_capacity(files.len() + 2);
        entries.push(directory(inode::of_library(library), "."));
        entries.push(directory(parent, ".."));
        entries.extend(files.iter().map(|entry| Listed {
            ino: entry.ino,
            name: Arc::clone(&entry.name),
            kind: Kind::File,
        }));
        entries.into()
    }

    /// Makes the kernel forget a file's pages and attributes.
    fn forget_data(&self, ino: u64) {
        self.catalog.tell_kernel(vec![Forget::Data { ino }], None);
    }
}

/// A Runflow id as the service spells it, or nothing for what isn't a UUID.
fn runflow_id(text: &str) -> Option<AssetId> {
    let hyphenated = text.len() == 36;
    let uuid = uuid::Uuid::try_parse(text).ok().filter(|_| hyphenated)?;
    Some(AssetId::new(uuid.to_string()))
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
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
