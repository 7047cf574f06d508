//! A mounted library without a mount: every operation is called as the kernel would and waited
//! for. Ages go by a clock that stands still; network deadlines by the machine's.

use std::ffi::OsStr;
use std::ops::Deref;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tempfile::TempDir;

use super::super::kernel::{Forget, KernelCache};
use super::super::*;
use crate::clock::{ManualClock, SystemClock};
use crate::emulator::{
    Content, Effect, Emulator, EmulatorConfig, Fault, HostKind, LoggedRequest, RunwayAsset,
};
use crate::health::Health;
use crate::http::{ApiClient, ApiToken, Deadlines};
use crate::provider::ltx::LtxProvider;
use crate::provider::runflow::RunflowProvider;
use crate::provider::runway::RunwayProvider;
use crate::provider::{AssetId, Provider};
use crate::reader::ReaderConfig;
use crate::store::Store;
use crate::upload::UploadConfig;

pub const VIDEO: Library = Library::RunwayVideo;
pub const IMAGE: Library = Library::RunwayImage;
pub const LISTING_TTL: Duration = Duration::from_secs(30);
/// Long enough for a loaded machine; an operation that takes longer hangs.
const HANG: Duration = Duration::from_secs(60);
/// The process that opens, writes and closes unless a test says otherwise.
pub const WRITER: u32 = 100;

/// How a world is mounted.
#[derive(Clone)]
pub struct Settings {
    pub allow_delete: bool,
    pub read_only: bool,
    pub write_back: bool,
    pub rename_wait: Duration,
    pub total: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow_delete: false,
            read_only: false,
            write_back: false,
            rename_wait: HANG,
            total: Duration::from_secs(8),
        }
    }
}

/// What the kernel was told to forget.
#[derive(Default)]
pub struct RecordingKernel(Mutex<Vec<Forget>>);

impl RecordingKernel {
    pub fn take(&self) -> Vec<Forget> {
        std::mem::take(&mut lock(&self.0))
    }
}

impl KernelCache for RecordingKernel {
    fn forget(&self, what: Vec<Forget>) {
        lock(&self.0).extend(what);
    }

    fn after(&self, then: Box<dyn FnOnce() + Send>) {
        then();
    }
}

pub struct World {
    pub clock: Arc<ManualClock>,
    pub emulator: Arc<Emulator>,
    pub kernel: Arc<RecordingKernel>,
    pub uploads: Arc<Uploads>,
    fs: Arc<LibraryFs>,
    settings: Settings,
    state_dir: Arc<TempDir>,
}

impl Deref for World {
    type Target = Arc<LibraryFs>;

    fn deref(&self) -> &Arc<LibraryFs> {
        &self.fs
    }
}

/// The outcome of an operation that may still be under way.
pub struct Pending<T>(Receiver<Result<T, FsError>>);

impl<T> Pending<T> {
    pub fn wait(self) -> Result<T, FsError> {
        self.0.recv_timeout(HANG).expect("an answer, exactly one")
    }

    pub fn is_waiting(&self) -> bool {
        matches!(self.0.try_recv(), Err(mpsc::TryRecvError::Empty))
    }
}

pub fn start<T: Send + 'static>(operation: impl FnOnce(Done<T>)) -> Pending<T> {
    let (send, receive) = mpsc::channel();
    operation(Box::new(move |outcome| {
        let _ = send.send(outcome);
    }));
    Pending(receive)
}

pub fn now<T: Send + 'static>(operation: impl FnOnce(Done<T>)) -> Result<T, FsError> {
    start(operation).wait()
}

/// Waits for what another thread is about to do.
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let limit = Instant::now() + HANG;
    while !is_so() {
        assert!(Instant::now() < limit, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn text(bytes: &str) -> Content {
    Content::stored(Bytes::copy_from_slice(bytes.as_bytes()))
}

pub fn write_mode() -> OpenMode {
    OpenMode {
        truncate: false,
        append: false,
        exclusive: false,
        opener: WRITER,
    }
}

pub fn truncating() -> OpenMode {
    OpenMode {
        truncate: true,
        ..write_mode()
    }
}

pub fn appending() -> OpenMode {
    OpenMode {
        append: true,
        ..write_mode()
    }
}

impl World {
    pub fn new() -> Self {
        Self::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Self {
        let clock = Arc::new(ManualClock::at(SystemTime::now()));
        let emulator = Emulator::start(EmulatorConfig {
            clock: Arc::clone(&clock) as _,
            ..EmulatorConfig::default()
        });
        let state_dir = Arc::new(tempfile::tempdir().unwrap());
        Self::mount(clock, Arc::new(emulator.unwrap()), state_dir, settings)
    }

    fn mount(
        clock: Arc<ManualClock>,
        emulator: Arc<Emulator>,
        state_dir: Arc<TempDir>,
        settings: Settings,
    ) -> Self {
        let deadlines = Deadlines {
            connect: Duration::from_secs(4),
            stall: settings.total / 2,
            total: settings.total,
        };
        let providers = providers(&emulator, deadlines);
        let runway = Arc::clone(&providers[0]);
        let store = Arc::new(Store::open(state_dir.path()).unwrap());
        let catalog = Catalog::new(
            providers,
            Arc::clone(&store),
            Arc::clone(&clock) as _,
            LISTING_TTL,
        );
        let reader_config = ReaderConfig {
            cache_bytes: 16 << 20,
            deadlines,
        };
        let urls = Arc::clone(&catalog) as _;
        let reader = AssetReader::new(reader_config, urls, Arc::new(SystemClock)).unwrap();
        let about = About {
            mount_point: "/mnt".into(),
            accounts: Default::default(),
            health: Health::new(Arc::clone(&clock) as _, str::to_string),
        };
        let options = Options {
            read_only: settings.read_only,
            allow_delete: settings.allow_delete,
            rename_wait: settings.rename_wait,
            state_dir: state_dir.path().to_path_buf(),
        };
        let fs = LibraryFs::new(catalog, Arc::new(reader), &*clock, options, about);
        let kernel = Arc::new(RecordingKernel::default());
        fs.catalog().set_kernel(Arc::clone(&kernel) as _);
        let uploads = take_uploads(&fs, state_dir.path(), store, runway, &settings);
        Self {
            clock,
            emulator,
            kernel,
            uploads,
            fs,
            settings,
            state_dir,
        }
    }

    /// Unmounts and mounts again over the same state and services.
    pub fn remount(self) -> Self {
        let staged: Vec<Weak<StagedFile>> =
            self.uploads.staged().iter().map(Arc::downgrade).collect();
        let fs = Arc::downgrade(&self.fs);
        let (clock, emulator) = (self.clock, self.emulator);
        drop((self.fs, self.uploads, self.kernel));
        until("the mount is gone", || {
            fs.strong_count() == 0 && staged.iter().all(|file| file.strong_count() == 0)
        });
        Self::mount(clock, emulator, self.state_dir, self.settings)
    }

    // Time and the services.

    pub fn advance_s(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Makes every listing due.
    pub fn let_listings_age(&self) {
        self.clock.advance(LISTING_TTL);
    }

    pub fn add(&self, name: &str, content: Content) -> String {
        self.emulator.add_runway(RunwayAsset::named(name, content))
    }

    pub fn fault(&self, host: HostKind, effect: Effect) {
        self.emulator.add_fault(Fault::at(host).does(effect));
    }

    pub fn fault_once(&self, host: HostKind, method: &str, effect: Effect) {
        let fault = Fault::at(host).method(method).times(1);
        self.emulator.add_fault(fault.does(effect));
    }

    fn requests(&self, is: impl Fn(&LoggedRequest) -> bool) -> usize {
        self.emulator.requests().iter().filter(|r| is(r)).count()
    }

    pub fn listings_asked(&self, library: Library) -> usize {
        let wanted = match library.service() {
            // The first page: a listing may ask for others.
            Service::Runway => format!("offset=0&limit=50&mediaType={}", library.name()),
            _ => format!("filter={}", library.name()),
        };
        // Not the look behind a short first page, which asks for one asset.
        let whole = |query: &str| !query.contains("limit=1&") && !query.ends_with("limit=1");
        self.requests(|r| {
            r.method == "GET" && r.path_and_query.contains(&wanted) && whole(&r.path_and_query)
        })
    }

    /// What a next mount would know of an LTX asset's size if this one ended now.
    pub fn size_after_shutdown(&self, id: &str) -> Option<u64> {
        let (catalog, id) = (self.fs.catalog(), AssetId::new(id));
        catalog.store_all_learnt();
        let ids = std::slice::from_ref(&id);
        let stored = catalog.store().object_infos(Service::Ltx, ids).unwrap();
        stored.get(&id).map(|object| object.size_bytes)
    }

    pub fn asset_requests(&self) -> usize {
        self.requests(|r| r.host == HostKind::Asset)
    }

    pub fn api_requests(&self) -> usize {
        self.requests(|r| r.host != HostKind::Asset)
    }

    pub fn uploads_sent(&self) -> usize {
        self.requests(|r| r.method == "POST")
    }

    /// Content of the newest asset of this name at the service.
    pub fn at_service(&self, name: &str) -> Option<Vec<u8>> {
        let assets = self.emulator.runway_assets();
        let newest = assets.iter().find(|a| a.name.as_deref() == Some(name))?;
        Some(newest.content.read(0, u64::MAX))
    }

    // The operations, waited for.

    pub fn directory(&self, library: Library) -> u64 {
        inode::of_library(library)
    }

    pub fn start_lookup(&self, library: Library, name: &str) -> Pending<Attr> {
        start(|done| {
            let fs = Arc::clone(&self.fs);
            let counted: Done<Attr> = Box::new(move |found| {
                if let Ok(attr) = &found {
                    fs.remember(attr.ino);
                }
                done(found);
            });
            self.fs
                .lookup(self.directory(library), OsStr::new(name), counted);
        })
    }

    /// Learns what the API doesn't say of a file, as whoever found it unknown does.
    pub fn learn(&self, ino: u64) -> Result<(), FsError> {
        now(|ready| self.fs.learn(ino, ready))
    }

    pub fn lookup_now(&self, library: Library, name: &str) -> Result<Attr, FsError> {
        self.start_lookup(library, name).wait()
    }

    /// The number of a file that is there.
    pub fn ino(&self, library: Library, name: &str) -> u64 {
        self.lookup_now(library, name).expect(name).ino
    }

    pub fn getattr_for_now(&self, ino: u64, asker: u32) -> Result<Attr, FsError> {
        now(|done| self.fs.getattr_for(ino, None, || asker, done))
    }

    pub fn getattr_by_now(&self, ino: u64, fh: u64) -> Result<Attr, FsError> {
        now(|done| self.fs.getattr_for(ino, Some(fh), || WRITER, done))
    }

    pub fn getattr_now(&self, ino: u64) -> Result<Attr, FsError> {
        now(|done| self.fs.getattr(ino, done))
    }

    pub fn start_ls(&self, library: Library) -> (u64, Pending<Arc<[Listed]>>) {
        let fh = self.opendir(self.directory(library)).unwrap();
        (fh, start(|done| self.readdir(fh, true, done)))
    }

    /// Names in the directory, without `.` and `..`.
    pub fn ls(&self, library: Library) -> Result<Vec<String>, FsError> {
        let (fh, listed) = self.start_ls(library);
        let listed = listed.wait();
        self.releasedir(fh);
        let names = listed?.iter().map(|e| e.name.to_string()).collect();
        let names: Vec<String> = names;
        assert_eq!(names[..2], [".", ".."]);
        Ok(names[2..].to_vec())
    }

    pub fn open_now(&self, ino: u64) -> Result<Opened, FsError> {
        now(|done| self.fs.open_to_read(ino, done))
    }

    pub fn open_to_write_now(&self, ino: u64, how: OpenMode) -> Result<Opened, FsError> {
        now(|done| self.fs.open_to_write(ino, how, done))
    }

    pub fn read_now(&self, fh: u64, offset: u64, len: u32) -> Result<Bytes, FsError> {
        now(|done| self.fs.read(fh, offset, len, done))
    }

    /// All bytes behind a handle.
    pub fn read_all(&self, fh: u64) -> Result<Vec<u8>, FsError> {
        let mut bytes = Vec::new();
        loop {
            let piece = self.read_now(fh, bytes.len() as u64, 1 << 20)?;
            if piece.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(&piece);
        }
    }

    /// What `cat` shows.
    pub fn cat(&self, library: Library, name: &str) -> Result<Vec<u8>, FsError> {
        let fh = self.open_now(self.lookup_now(library, name)?.ino)?.fh;
        let bytes = self.read_all(fh);
        self.release(fh);
        bytes
    }

    pub fn create_with(
        &self,
        library: Library,
        name: &str,
        how: OpenMode,
    ) -> Result<(Attr, Opened), FsError> {
        let parent = self.directory(library);
        // As the kernel does, which asks for the name first.
        let _ = self.lookup_now(library, name);
        let made = now(|done| {
            self.fs.create(parent, OsStr::new(name), 0o644, how, done);
        });
        if let Ok((attr, _)) = &made {
            self.remember(attr.ino);
        }
        made
    }

    /// Creates or opens and empties a file; its handle.
    pub fn create_now(&self, library: Library, name: &str) -> u64 {
        self.create_with(library, name, truncating()).unwrap().1.fh
    }

    pub fn write_now(&self, fh: u64, offset: u64, data: &[u8]) -> Result<u32, FsError> {
        now(|done| self.fs.write(fh, offset, data, WrittenBy::Descriptor, done))
    }

    pub fn flush_as(&self, fh: u64, process: u32, killed: bool) -> Result<(), FsError> {
        now(|done| self.fs.flush(fh, Closer { process, killed }, done))
    }

    /// `close(2)` by the writer and the release that follows.
    pub fn close_now(&self, fh: u64) -> Result<(), FsError> {
        let flushed = self.flush_as(fh, WRITER, false);
        self.release(fh);
        flushed
    }

    /// What `cp` does.
    pub fn copy_in(&self, library: Library, name: &str, bytes: &[u8]) -> Result<(), FsError> {
        let (_, opened) = self.create_with(library, name, truncating())?;
        self.write_now(opened.fh, 0, bytes)?;
        self.close_now(opened.fh)
    }

    pub fn start_rename(&self, from: (Library, &str), to: (Library, &str)) -> Pending<()> {
        let from = (self.directory(from.0), OsStr::new(from.1));
        let to = (self.directory(to.0), OsStr::new(to.1));
        start(|done| self.fs.rename(from, to, true, done))
    }

    pub fn rename_now(&self, from: &str, to: &str) -> Result<(), FsError> {
        self.start_rename((VIDEO, from), (VIDEO, to)).wait()
    }

    pub fn rename_noreplace(&self, from: &str, to: &str) -> Result<(), FsError> {
        let parent = self.directory(VIDEO);
        let (from, to) = ((parent, OsStr::new(from)), (parent, OsStr::new(to)));
        now(|done| self.fs.rename(from, to, false, done))
    }

    pub fn unlink_now(&self, library: Library, name: &str) -> Result<(), FsError> {
        let parent = self.directory(library);
        now(|done| self.fs.unlink(parent, OsStr::new(name), done))
    }

    pub fn setattr_now(&self, ino: u64, fh: Option<u64>, set: SetAttr) -> Result<Attr, FsError> {
        now(|done| self.fs.setattr(ino, fh, set, done))
    }

    pub fn truncate_now(&self, ino: u64, fh: Option<u64>, size: u64) -> Result<Attr, FsError> {
        let set = SetAttr {
            size_bytes: Some(size),
            ..SetAttr::default()
        };
        self.setattr_now(ino, fh, set)
    }

    /// Waits until nothing is on its way.
    pub fn drain(&self) {
        let left = self.uploads.drain(HANG);
        assert!(left.is_empty(), "not uploaded: {left:?}");
    }
}

fn providers(emulator: &Emulator, deadlines: Deadlines) -> Vec<Arc<dyn Provider>> {
    let client = |url: String, token: String| {
        let token = ApiToken::new(&token).unwrap();
        ApiClient::new(
            url.parse().unwrap(),
            token,
            deadlines,
            Arc::new(SystemClock),
        )
        .unwrap()
    };
    let useapi = client(emulator.useapi_url(), emulator.useapi_token());
    let runflow = client(emulator.runflow_url(), emulator.runflow_token());
    vec![
        Arc::new(RunwayProvider::new(useapi.clone(), None)),
        Arc::new(LtxProvider::new(useapi, None)),
        Arc::new(RunflowProvider::new(runflow, None)),
    ]
}

fn take_uploads(
    fs: &Arc<LibraryFs>,
    state_dir: &Path,
    store: Arc<Store>,
    runway: Arc<dyn Provider>,
    settings: &Settings,
) -> Arc<Uploads> {
    let config = UploadConfig {
        write_back: settings.write_back,
        deadline: settings.total,
        ..UploadConfig::new(state_dir)
    };
    let relay = Arc::new(UploadRelay::default());
    let events = Arc::clone(&relay) as _;
    let uploads = Uploads::open(config, store, runway, events, Arc::new(SystemClock));
    let uploads = Arc::new(uploads.unwrap());
    fs.set_uploads(Arc::clone(&uploads));
    relay.connect(fs);
    uploads
}
