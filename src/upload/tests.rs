//! A service on the local disk, stricter than the real one, and a world to mount over it.

mod crash;
mod failing;
mod files;
mod never_twice;
mod order;
#[cfg(feature = "emulator")]
mod web;

use std::collections::VecDeque;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Instant, SystemTime};

use sha2::{Digest as _, Sha256};

use super::*;
use crate::clock::{ManualClock, SystemClock};
use crate::http::TransportError;
use crate::provider::{ProviderError, Service, Upload};

pub(super) const VIDEO: Library = Library::RunwayVideo;

/// Long enough for the slowest machine; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the service does with one upload.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// Takes it as it should.
    None,
    /// Answers this and does nothing.
    Answer(ProviderError),
    /// Reads half the body; the connection breaks.
    LostHalfway,
    /// Makes the asset; the connection breaks.
    LostAfter,
    /// Taken, and made into something shorter.
    EncodedAnew,
    /// As the first two that lose the answer, and this process is killed.
    DieHalfway,
    DieAfter,
}

/// Sends the name of every upload that begins, then waits for a word.
#[derive(Clone)]
struct Gate {
    began: Sender<String>,
    go: Arc<Mutex<Receiver<()>>>,
}

/// A service whose assets are files of a directory, so that it outlives the process.
pub(super) struct FakeService {
    directory: PathBuf,
    clock: Arc<dyn Clock>,
    pub faults: Mutex<VecDeque<Fault>>,
    pub list_faults: Mutex<VecDeque<ProviderError>>,
    /// So many more listings don't show assets that were made since this was set.
    lag: Mutex<(usize, Vec<AssetId>)>,
    making: Mutex<()>,
    gate: Mutex<Option<Gate>>,
    pub uploads: AtomicUsize,
    pub listings: AtomicUsize,
    pub at_once: AtomicUsize,
    pub most_at_once: AtomicUsize,
}

impl FakeService {
    fn open(directory: PathBuf, clock: Arc<dyn Clock>) -> Arc<Self> {
        fs::create_dir_all(&directory).unwrap();
        Arc::new(Self {
            directory,
            clock,
            faults: Mutex::default(),
            list_faults: Mutex::default(),
            lag: Mutex::default(),
            making: Mutex::default(),
            gate: Mutex::default(),
            uploads: AtomicUsize::new(0),
            listings: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
        })
    }

    pub fn next_uploads(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    pub fn next_listings_fail(&self, times: usize) {
        let faults = std::iter::repeat_n(unavailable(), times);
        self.list_faults.lock().unwrap().extend(faults);
    }

    pub fn next_listings_lag(&self, times: usize) {
        let shown = self.assets().into_iter().map(|asset| asset.id).collect();
        *self.lag.lock().unwrap() = (times, shown);
    }

    /// From now on every upload waits; the first value names those that began, a word through the
    /// second lets one go on.
    pub fn hold_uploads(&self) -> (Receiver<String>, Sender<()>) {
        let (began, names) = mpsc::channel();
        let (word, go) = mpsc::channel();
        let go = Arc::new(Mutex::new(go));
        *self.gate.lock().unwrap() = Some(Gate { began, go });
        (names, word)
    }

    /// Everything the service has, in the order of its making.
    pub fn assets(&self) -> Vec<Asset> {
        let mut assets: Vec<(u64, Asset)> = fs::read_dir(&self.directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .map(|path| {
                let facts: serde_json::Value =
                    serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                let created = Duration::from_nanos(facts["created_ns"].as_u64().unwrap());
                let created_at = Some(SystemTime::UNIX_EPOCH + created);
                let asset = Asset {
                    created_at,
                    updated_at: created_at,
                    ..asset(
                        facts["id"].as_str().unwrap(),
                        facts["name"].as_str().unwrap(),
                        facts["size"].as_u64(),
                    )
                };
                (facts["nth"].as_u64().unwrap(), asset)
            })
            .collect();
        assets.sort_by_key(|(nth, _)| *nth);
        assets.into_iter().map(|(_, asset)| asset).collect()
    }

    pub fn bytes(&self, id: &AssetId) -> Vec<u8> {
        fs::read(self.directory.join(format!("{id}.bin"))).unwrap()
    }

    /// Makes an asset as another client would.
    pub fn make(&self, name: &str, bytes: &[u8], created_at: SystemTime) -> Asset {
        let _one_at_a_time = self.making.lock().unwrap();
        let id = Uuid::new_v4().to_string();
        let created = created_at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let facts = serde_json::json!({
            "id": id, "name": name, "size": bytes.len(), "nth": self.assets().len(),
            "created_ns": created.as_nanos() as u64,
        });
        let path = |extension| self.directory.join(format!("{id}.{extension}"));
        fs::write(path("bin"), bytes).unwrap();
        fs::write(path("new"), facts.to_string()).unwrap();
        fs::rename(path("new"), path("json")).unwrap();
        Asset {
            created_at: Some(created_at),
            updated_at: Some(created_at),
            ..asset(&id, name, Some(bytes.len() as u64))
        }
    }

    fn take(&self, upload: Upload<'_>, fault: Fault) -> Result<Asset, ProviderError> {
        let mut body = upload.body;
        let mut bytes = Vec::new();
        let half = upload.size_bytes / 2;
        (&mut body).take(half).read_to_end(&mut bytes).unwrap();
        upload.sent_bytes.fetch_add(half, Ordering::Relaxed);
        match fault {
            Fault::LostHalfway => return Err(lost()),
            Fault::DieHalfway => die(),
            _ => {}
        }
        body.read_to_end(&mut bytes).unwrap();
        upload
            .sent_bytes
            .store(bytes.len() as u64, Ordering::Relaxed);
        assert_eq!(
            bytes.len() as u64,
            upload.size_bytes,
            "the announced length"
        );
        if matches!(fault, Fault::EncodedAnew) {
            bytes.pop();
        }
        let asset = self.make(upload.name, &bytes, self.clock.now());
        match fault {
            Fault::LostAfter => Err(lost()),
            Fault::DieAfter => die(),
            _ => Ok(asset),
        }
    }
}

impl Provider for FakeService {
    fn service(&self) -> Service {
        Service::Runway
    }

    fn list(&self, library: Library) -> Result<Vec<Asset>, ProviderError> {
        assert_eq!(library, VIDEO);
        self.listings.fetch_add(1, Ordering::Relaxed);
        if let Some(error) = self.list_faults.lock().unwrap().pop_front() {
            return Err(error);
        }
        let mut assets = self.assets();
        let mut lag = self.lag.lock().unwrap();
        if lag.0 > 0 {
            lag.0 -= 1;
            assets.retain(|asset| lag.1.contains(&asset.id));
        }
        Ok(assets)
    }

    fn refresh(&self, asset: &Asset) -> Result<Asset, ProviderError> {
        let found = self.assets().into_iter().find(|a| a.id == asset.id);
        found.ok_or(ProviderError::NotFound)
    }

    fn upload(&self, upload: Upload<'_>) -> Result<Asset, ProviderError> {
        assert!(upload.size_bytes > 0, "an empty file was sent");
        assert!(!is_local_name(upload.name), "{} was sent", upload.name);
        assert_eq!(upload.content_type, "video/mp4");
        self.uploads.fetch_add(1, Ordering::Relaxed);
        let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.began.send(upload.name.to_string()).unwrap();
            let _ = gate.go.lock().unwrap().recv();
        }
        let fault = self.faults.lock().unwrap().pop_front();
        let answer = match fault.unwrap_or(Fault::None) {
            Fault::Answer(error) => Err(error),
            fault => self.take(upload, fault),
        };
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        answer
    }
}

fn asset(id: &str, name: &str, size_bytes: Option<u64>) -> Asset {
    Asset {
        locator: id.to_string(),
        name: Some(name.to_string()),
        extension: Some("mp4".to_string()),
        size_bytes,
        ..Asset::bare(VIDEO, id)
    }
}

fn die() -> ! {
    let pid = rustix::process::getpid();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    loop {
        thread::park();
    }
}

pub(super) fn lost() -> ProviderError {
    ProviderError::AnswerLost(TransportError::Broken {
        host: "api".to_string(),
        reason: "reset".to_string(),
    })
}

pub(super) fn unavailable() -> ProviderError {
    ProviderError::Unavailable {
        service: Service::Runway,
        source: TransportError::Timeout {
            host: "api".to_string(),
        },
    }
}

pub(super) fn denied() -> ProviderError {
    ProviderError::Denied("set USEAPI_TOKEN".to_string())
}

pub(super) fn refused() -> ProviderError {
    ProviderError::Refused {
        status: 400,
        message: "no".to_string(),
    }
}

/// What the file system would do: a directory that always knows what the service has.
pub(super) struct FakeDirectory {
    service: Arc<FakeService>,
    pub uploaded: Mutex<Vec<(Uuid, AssetId)>>,
    pub failed: Mutex<Vec<String>>,
    /// Whether it has listed the library.
    pub listed: AtomicBool,
}

impl UploadEvents for FakeDirectory {
    fn uploaded(&self, file: &Arc<StagedFile>, asset: &Asset) {
        let mut uploaded = self.uploaded.lock().unwrap();
        uploaded.push((file.id(), asset.id.clone()));
    }

    fn failed(&self, file: &Arc<StagedFile>, _: &UploadError) {
        self.failed.lock().unwrap().push(file.name());
    }

    fn newest_named(&self, _: Library, name: &str) -> Option<Asset> {
        let mut assets = self.service.assets().into_iter().rev();
        assets.find(|asset| asset.name.as_deref() == Some(name))
    }

    fn digest_of(&self, asset: &Asset) -> Option<Digest> {
        Some(Sha256::digest(self.service.bytes(&asset.id)).into())
    }

    fn ids_named(&self, _: Library, name: &str) -> Option<Vec<AssetId>> {
        let named = |asset: &Asset| same_name(name, asset.name.as_deref().unwrap_or(""));
        let assets = self.service.assets().into_iter().filter(named);
        let listed = self.listed.load(Ordering::Relaxed);
        listed.then(|| assets.map(|asset| asset.id).collect())
    }
}

/// A state directory, a service, and the uploads of one mount over them.
pub(super) struct World {
    pub root: PathBuf,
    _temporary: Option<tempfile::TempDir>,
    pub clock: Option<Arc<ManualClock>>,
    pub service: Arc<FakeService>,
    pub store: Arc<Store>,
    pub directory: Arc<FakeDirectory>,
    pub uploads: Uploads,
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut UploadConfig)) -> Self {
        let temporary = tempfile::TempDir::new().unwrap();
        let mut world = Self::at(temporary.path(), None, change);
        world._temporary = Some(temporary);
        world
    }

    /// A world in which time stands still until [`World::pass`].
    pub fn timeless(change: impl FnOnce(&mut UploadConfig)) -> Self {
        let temporary = tempfile::TempDir::new().unwrap();
        let clock = Arc::new(ManualClock::at(SystemTime::now()));
        let mut world = Self::at(temporary.path(), Some(clock), change);
        world._temporary = Some(temporary);
        world
    }

    pub fn at(
        root: &Path,
        manual: Option<Arc<ManualClock>>,
        change: impl FnOnce(&mut UploadConfig),
    ) -> Self {
        let clock: Arc<dyn Clock> = match &manual {
            Some(clock) => clock.clone(),
            None => Arc::new(SystemClock),
        };
        let service = FakeService::open(root.join("service"), clock);
        Self::mount(root, service, manual, change)
    }

    /// Mounts over a service that is there already.
    pub fn mount(
        root: &Path,
        service: Arc<FakeService>,
        manual: Option<Arc<ManualClock>>,
        change: impl FnOnce(&mut UploadConfig),
    ) -> Self {
        let state = root.join("state");
        let store = Arc::new(Store::open(&state).unwrap());
        let directory = Arc::new(FakeDirectory {
            service: Arc::clone(&service),
            uploaded: Mutex::default(),
            failed: Mutex::default(),
            listed: AtomicBool::new(true),
        });
        let mut config = UploadConfig::new(&state);
        change(&mut config);
        let clock: Arc<dyn Clock> = match &manual {
            Some(clock) => clock.clone(),
            None => Arc::new(SystemClock),
        };
        let uploads = Uploads::open(
            config,
            Arc::clone(&store),
            service.clone(),
            directory.clone(),
            clock,
        )
        .unwrap();
        Self {
            root: root.to_path_buf(),
            _temporary: None,
            clock: manual,
            service,
            store,
            directory,
            uploads,
        }
    }

    /// Ends the mount without waiting for its queue. Its locks end with its last thread, as they
    /// would with its process: that much is waited for.
    pub fn end(self) -> (Arc<FakeService>, Option<tempfile::TempDir>) {
        let shared = Arc::downgrade(&self.uploads.shared);
        // The next mount leaves alone what a thread of this one still holds.
        let staged: Vec<_> = self.uploads.staged().iter().map(Arc::downgrade).collect();
        drop((self.uploads, self.directory));
        let gives_up = Instant::now() + PATIENCE;
        while shared.strong_count() > 0 || staged.iter().any(|file| file.strong_count() > 0) {
            assert!(Instant::now() < gives_up, "a thread stays");
            thread::park_timeout(Duration::from_micros(200));
        }
        (self.service, self._temporary)
    }

    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// A file of these bytes, not closed yet.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Arc<StagedFile> {
        let file = self.uploads.create(VIDEO, name, 7, 0o644).unwrap();
        file.write_at(bytes, 0).unwrap();
        file
    }

    /// Closes a file; the value is the outcome, when there is one.
    pub fn close(&self, file: &Arc<StagedFile>) -> Receiver<Result<(), UploadError>> {
        let (send, outcome) = mpsc::channel();
        let caller = thread::current().id();
        let done = move |result| {
            assert_ne!(
                thread::current().id(),
                caller,
                "done on the caller's thread"
            );
            send.send(result).unwrap();
        };
        self.uploads.submit(file, Some(Box::new(done)));
        outcome
    }

    /// `cp`: writes, closes, and waits for the outcome.
    pub fn copy_in(&self, name: &str, bytes: &[u8]) -> Result<Arc<StagedFile>, UploadError> {
        let file = self.write(name, bytes);
        outcome(&self.close(&file)).map(|()| file)
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        self.clock.as_ref().unwrap().advance(time);
        let _line = self.uploads.shared.line();
        self.uploads.shared.wake.notify_all();
    }

    /// Waits, however long it takes, until `what` holds; for states that other threads reach.
    pub fn until(&self, what: impl Fn() -> bool) {
        let gives_up = Instant::now() + PATIENCE;
        while !what() {
            assert!(Instant::now() < gives_up, "it did not come to pass");
            thread::park_timeout(Duration::from_micros(200));
        }
    }

    /// Lets time fly until nothing is left to send.
    pub fn finish(&self) {
        self.until(|| {
            self.pass(Duration::from_millis(100));
            self.uploads.shared.line().queue.ids().is_empty()
        });
    }

    pub fn drained(&self) {
        assert_eq!(self.uploads.drain(PATIENCE), Vec::<String>::new());
    }

    /// The one asset that the service has.
    pub fn only_asset(&self) -> (Asset, Vec<u8>) {
        let mut assets = self.service.assets();
        assert_eq!(assets.len(), 1, "{assets:?}");
        let asset = assets.remove(0);
        let bytes = self.service.bytes(&asset.id);
        (asset, bytes)
    }

    pub fn uploads_tried(&self) -> usize {
        self.service.uploads.load(Ordering::Relaxed)
    }

    /// The names and bytes below one of the state's directories.
    pub fn files_in(&self, directory: &str) -> Vec<(String, Vec<u8>)> {
        fs::read_dir(self.state().join(directory))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|e| {
                (
                    e.file_name().into_string().unwrap(),
                    fs::read(e.path()).unwrap(),
                )
            })
            .collect()
    }
}

pub(super) fn outcome(of: &Receiver<Result<(), UploadError>>) -> Result<(), UploadError> {
    of.recv_timeout(PATIENCE).expect("an outcome")
}

pub(super) fn is_pending(of: &Receiver<Result<(), UploadError>>) -> bool {
    matches!(of.try_recv(), Err(mpsc::TryRecvError::Empty))
}

/// Bytes that differ at every offset.
pub(super) fn sample(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|n| (n as u8).wrapping_mul(31).wrapping_add((n >> 8) as u8) ^ seed)
        .collect()
}

/// A small generator, so that a failure can be repeated from its seed.
pub(super) struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % sides
    }
}

/// `REELFS_TEST_SEED`, or another one each time; tests print it.
pub(super) fn seed() -> u64 {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    std::env::var("REELFS_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(nanos.unwrap().as_nanos() as u64)
}
