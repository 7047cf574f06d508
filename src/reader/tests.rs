//! The engine against a real host on loopback: exact bytes, requests counted, every fault. Here is the
//! vocabulary; each file below holds the behaviours of one subject.

mod addresses;
mod ahead_of_any_reader;
mod bytes_and_requests;
mod connections;
mod faults;
mod hosts_that_ignore_ranges;
mod identity;
mod memory;
mod probes;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime};

use url::Url;

use super::test_host::{Fault, TestHost, sample};
use super::*;
use crate::clock::{ManualClock, SystemClock};
use crate::http::UrlPolicy;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// Longer than anything here takes; only a hang gets here.
const PATIENCE: Duration = Duration::from_secs(60);

type Pending<T> = Receiver<Result<T, ReadError>>;

/// Signs URLs with a growing number.
struct Signer {
    base: String,
    signature: AtomicU64,
    asked: AtomicU64,
    renewed: AtomicU64,
    /// What renewal answers instead of a URL.
    refusal: Mutex<Option<ProviderError>>,
    expires_at: Mutex<Option<SystemTime>>,
}

impl UrlSource for Signer {
    fn url(&self, key: &AssetKey, rejected: Option<SignedUrl>, done: UrlDone) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut expires_at = *self.expires_at.lock().unwrap();
        if rejected.is_some() {
            self.renewed.fetch_add(1, Ordering::SeqCst);
            if let Some(refusal) = self.refusal.lock().unwrap().clone() {
                return done(Err(refusal));
            }
            self.signature.fetch_add(1, Ordering::SeqCst);
            expires_at = None;
        }
        let signature = self.signature.load(Ordering::SeqCst);
        let text = format!("{}/{}?sig={signature}", self.base, key.id);
        let policy = UrlPolicy::for_api(&Url::parse(&self.base).unwrap());
        done(Ok(SignedUrl::parse(&text, expires_at, &policy).unwrap()));
    }
}

struct Rig {
    host: TestHost,
    urls: Arc<Signer>,
    reader: AssetReader,
}

fn patient() -> Deadlines {
    Deadlines {
        connect: Duration::from_secs(10),
        stall: Duration::from_secs(20),
        total: Duration::from_secs(40),
    }
}

/// For tests that wait for a deadline to pass.
fn hasty() -> Deadlines {
    Deadlines {
        connect: Duration::from_millis(500),
        stall: Duration::from_millis(300),
        total: Duration::from_millis(900),
    }
}

impl Rig {
    fn new() -> Self {
        Self::with(64 * MIB, patient())
    }

    fn hasty() -> Self {
        Self::with(64 * MIB, hasty())
    }

    fn with(cache_bytes: u64, deadlines: Deadlines) -> Self {
        Self::at(cache_bytes, deadlines, Arc::new(SystemClock))
    }

    fn at(cache_bytes: u64, deadlines: Deadlines, clock: Arc<dyn Clock>) -> Self {
        let host = TestHost::start();
        let urls = Arc::new(Signer {
            base: format!("http://{}", host.address),
            signature: AtomicU64::new(1),
            asked: AtomicU64::new(0),
            renewed: AtomicU64::new(0),
            refusal: Mutex::default(),
            expires_at: Mutex::default(),
        });
        let config = ReaderConfig {
            cache_bytes,
            deadlines,
        };
        let reader = AssetReader::new(config, Arc::clone(&urls) as _, clock).unwrap();
        Self { host, urls, reader }
    }

    /// Serves `len` bytes as `name` and opens them.
    fn file(&self, name: &str, len: u64) -> (Arc<RemoteFile>, Bytes) {
        let data = sample(name.len() as u64, len as usize);
        self.host.put(name, data.clone());
        (self.open(name, len), data)
    }

    fn open(&self, name: &str, len: u64) -> Arc<RemoteFile> {
        self.reader.remote_file(key(name), len, None)
    }

    fn start(&self, file: &Arc<RemoteFile>, offset: u64, len: u64) -> Pending<Bytes> {
        let (send, receive) = mpsc::channel();
        // A test that does not wait for the answer has dropped the receiver.
        let done = Box::new(move |result| drop(send.send(result)));
        self.reader.read(file, offset, len as u32, done);
        receive
    }

    fn read(&self, file: &Arc<RemoteFile>, offset: u64, len: u64) -> Result<Bytes, ReadError> {
        wait(&self.start(file, offset, len))
    }

    fn start_probe(&self, name: &str) -> Pending<ObjectInfo> {
        let (send, receive) = mpsc::channel();
        // A test that does not wait for the answer has dropped the receiver.
        let done = Box::new(move |result| drop(send.send(result)));
        self.reader.probe(key(name), done);
        receive
    }

    fn probe(&self, name: &str) -> Result<ObjectInfo, ReadError> {
        wait(&self.start_probe(name))
    }

    /// Reads the file in order and compares it.
    fn expect_in_order(&self, file: &Arc<RemoteFile>, data: &Bytes, step: u64) {
        let mut at = 0;
        while at < data.len() as u64 {
            let got = self.read(file, at, step).unwrap();
            assert_eq!(got, part(data, at, step), "at {at}");
            at += got.len() as u64;
        }
    }

    /// Waits until no stream runs.
    fn settle(&self) {
        self.until_streams(0);
    }

    fn until_streams(&self, count: u64) {
        until(|| self.reader.stats().active_streams == count);
    }

    /// Waits until the host has seen `count` requests.
    fn until_hits(&self, count: usize) {
        until(|| self.host.hits().len() >= count);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.host.crimes(), [""; 0], "requests no host should see");
        }
    }
}

fn key(name: &str) -> AssetKey {
    AssetKey {
        service: Service::Runway,
        id: AssetId::new(name),
    }
}

fn wait<T>(pending: &Pending<T>) -> Result<T, ReadError> {
    let result = pending.recv_timeout(PATIENCE).expect("never answered");
    assert_eq!(
        pending.recv_timeout(PATIENCE).err(),
        Some(RecvTimeoutError::Disconnected),
        "the callback is gone after its one call"
    );
    result
}

fn until(happened: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !happened() {
        assert!(begun.elapsed() < PATIENCE, "it never happened");
        std::thread::yield_now();
    }
}

fn part(data: &Bytes, offset: u64, len: u64) -> Bytes {
    let range = ByteRange::at(offset, len).clamp_to(data.len() as u64);
    data.slice(range.start as usize..range.end as usize)
}

/// A small generator whose seed is printed, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
