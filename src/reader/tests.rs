//! The engine against a real host on loopback: exact bytes, requests counted, every fault.

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

mod connections;
mod memory;

mod bytes_and_requests {
    use super::*;

    #[test]
    fn reading_in_order_gives_every_byte_once() {
        for step in [128 * KIB, MIB, 777_777] {
            let rig = Rig::new();
            let (file, data) = rig.file("a", 24 * MIB + 4321);
            rig.expect_in_order(&file, &data, step);
            rig.settle();
            assert_eq!(rig.host.sent_bytes(), data.len() as u64, "step {step}");
        }
    }

    #[test]
    fn reads_beyond_the_end_are_empty_and_across_it_cut() {
        let rig = Rig::new();
        let (file, data) = rig.file("a", 100_000);
        assert_eq!(rig.read(&file, 99_999, 10).unwrap(), data[99_999..]);
        for offset in [100_000, 100_001, u64::MAX] {
            assert!(rig.read(&file, offset, 10).unwrap().is_empty());
        }
        let (empty, _) = rig.file("empty", 0);
        assert!(rig.read(&empty, 0, 10).unwrap().is_empty());
        assert_eq!(rig.host.hits().len(), 1);
    }

    #[test]
    fn random_reads_are_exact_and_cost_at_most_twice_the_bytes() {
        let rig = Rig::new();
        let (file, data) = rig.file("a", 48 * MIB + 17);
        let (mut random, mut asked) = (Random::new(), 0);
        for _ in 0..150 {
            let offset = random.below(data.len() as u64);
            let len = 64 * KIB;
            assert_eq!(
                rig.read(&file, offset, len).unwrap(),
                part(&data, offset, len)
            );
            asked += len;
        }
        rig.settle();
        assert!(rig.host.sent_bytes() <= 2 * asked + MIB);
    }

    #[test]
    fn many_readers_of_all_kinds_at_once_get_their_own_bytes() {
        let rig = Rig::with(16 * MIB, patient());
        let files: Vec<_> = ["a", "bb", "ccc"]
            .iter()
            .map(|name| rig.file(name, 20 * MIB + 99))
            .collect();
        let mut random = Random::new();
        let seeds: Vec<u64> = (0..12).map(|_| random.below(u64::MAX) | 1).collect();
        std::thread::scope(|scope| {
            for (number, seed) in seeds.into_iter().enumerate() {
                let (rig, (file, data)) = (&rig, &files[number % 3]);
                scope.spawn(move || {
                    let mut random = Random(seed);
                    let mut at = random.below(data.len() as u64);
                    for _ in 0..60 {
                        let len = 1 + random.below(MIB);
                        let got = rig.read(file, at, len).unwrap();
                        assert_eq!(got, part(data, at, len), "at {at}, {len} bytes");
                        at += len;
                        if random.below(8) == 0 || at >= data.len() as u64 {
                            at = random.below(data.len() as u64);
                        }
                    }
                });
            }
        });
        rig.settle();
        assert!(rig.reader.stats().cached_bytes <= 16 * MIB);
    }

    #[test]
    fn two_interleaved_readers_fetch_nothing_twice() {
        let rig = Rig::new();
        let (file, data) = rig.file("a", 40 * MIB);
        for step in 0..64 {
            for start in [0, 20 * MIB] {
                let at = start + step * 128 * KIB;
                assert_eq!(
                    rig.read(&file, at, 128 * KIB).unwrap(),
                    part(&data, at, 128 * KIB)
                );
            }
        }
        rig.settle();
        let sent = rig.host.sent_bytes();
        assert!(sent <= data.len() as u64, "{sent}: {:?}", rig.host.hits());
    }

    #[test]
    fn readers_of_the_same_bytes_share_one_flight() {
        let rig = Rig::new();
        let (file, data) = rig.file("a", 8 * MIB);
        rig.host.hold();
        let reads: Vec<_> = (0..50)
            .map(|i| rig.start(&file, 4096 * i, 4096 * (60 - i)))
            .collect();
        rig.until_hits(1);
        rig.host.release();
        for (i, read) in (0..).zip(&reads) {
            assert_eq!(wait(read).unwrap(), part(&data, 4096 * i, 4096 * (60 - i)));
        }
        rig.settle();
        assert_eq!(rig.host.sent_bytes(), 256 * KIB, "what a head brings");
    }

    #[test]
    fn what_was_read_is_answered_again_without_a_request_or_another_thread() {
        let rig = Rig::new();
        let (file, data) = rig.file("a", 3 * MIB);
        rig.expect_in_order(&file, &data, MIB);
        rig.settle();
        rig.reader.close(&file);
        let before = rig.host.hits().len();
        let (send, answered) = mpsc::channel();
        let caller = std::thread::current().id();
        let done = move |result: Result<Bytes, ReadError>| {
            send.send((result.unwrap(), std::thread::current().id() == caller))
                .unwrap();
        };
        rig.reader.read(&file, MIB / 2, MIB as u32, Box::new(done));
        assert_eq!(
            answered.try_recv().unwrap(),
            (part(&data, MIB / 2, MIB), true)
        );
        assert_eq!(rig.host.hits().len(), before);
    }

    #[test]
    fn a_reader_is_answered_before_its_block_is_full() {
        let rig = Rig::new();
        let (file, data) = rig.file("a", 4 * MIB);
        rig.host.fault(Fault::SilentAfter(128 * KIB as usize));
        let whole = rig.start(&file, 0, MIB);
        let head = rig.start(&file, 4096, 64 * KIB);
        assert_eq!(wait(&head).unwrap(), part(&data, 4096, 64 * KIB));
        assert!(whole.try_recv().is_err());
    }

    #[test]
    fn looking_at_the_head_does_not_pull_megabytes() {
        let rig = Rig::new();
        let (file, _) = rig.file("a", 40 * MIB);
        for i in 0..4 {
            rig.read(&file, i * 64 * KIB, 64 * KIB).unwrap();
        }
        rig.settle();
        assert!(rig.host.sent_bytes() <= MIB, "{}", rig.host.sent_bytes());
        assert!(rig.host.hits().len() <= 4, "{:?}", rig.host.hits());
    }

    #[test]
    fn one_small_read_is_one_small_request() {
        let rig = Rig::new();
        let (file, _) = rig.file("a", 40 * MIB);
        rig.read(&file, 5_000_001, 100).unwrap();
        rig.settle();
        let hits = rig.host.hits();
        assert_eq!(hits.len(), 1);
        assert_eq!(hits[0].range, ByteRange::at(4_997_120, 4096));
    }

    #[test]
    fn reading_in_order_uses_several_connections_and_few_requests() {
        let rig = Rig::with(256 * MIB, patient());
        let (file, data) = rig.file("a", 96 * MIB);
        rig.expect_in_order(&file, &data, MIB);
        rig.settle();
        let hits = rig.host.hits().len();
        assert!(hits <= 72, "{hits} requests for 96 MiB");
        assert!((4..=16).contains(&rig.host.connections()));
    }

    #[test]
    fn head_then_tail_is_two_requests() {
        let rig = Rig::new();
        let (file, data) = rig.file("a", 40 * MIB);
        rig.read(&file, 0, 64 * KIB).unwrap();
        rig.settle();
        let tail = 40 * MIB - 300 * KIB;
        for i in 0..3 {
            let at = tail + i * 100 * KIB;
            assert_eq!(
                rig.read(&file, at, 100 * KIB).unwrap(),
                part(&data, at, 100 * KIB)
            );
        }
        assert_eq!(rig.host.hits().len(), 2);
    }

    #[test]
    fn closing_ends_what_was_read_ahead_but_not_a_waiting_read() {
        let rig = Rig::new();
        let (file, data) = rig.file("a", 40 * MIB);
        for i in 0..2 {
            rig.read(&file, i * MIB, MIB).unwrap();
        }
        rig.settle();
        rig.host.always(Some(Fault::Silent));
        rig.read(&file, 2 * MIB, MIB).unwrap();
        let waiting = rig.start(&file, 38 * MIB, 64 * KIB);
        until(|| {
            rig.host
                .hits()
                .iter()
                .any(|hit| hit.range.start == 38 * MIB)
        });
        assert!(rig.reader.stats().active_streams > 1);
        rig.reader.close(&file);
        rig.until_streams(1);
        rig.host.always(None);
        let far = rig.read(&file, 30 * MIB, 64 * KIB);
        assert_eq!(far.unwrap(), part(&data, 30 * MIB, 64 * KIB));
        assert!(waiting.try_recv().is_err());
    }

    #[test]
    fn more_reads_than_memory_wait_their_turn() {
        let rig = Rig::with(4 * MIB, patient());
        let (file, data) = rig.file("a", 64 * MIB);
        rig.host.hold();
        let reads: Vec<_> = (0..48)
            .map(|i| (i * MIB + 4096, rig.start(&file, i * MIB + 4096, 512 * KIB)))
            .collect();
        rig.until_hits(8);
        assert!(rig.reader.stats().cached_bytes <= 12 * MIB);
        rig.host.release();
        for (at, read) in &reads {
            assert_eq!(wait(read).unwrap(), part(&data, *at, 512 * KIB));
        }
        rig.settle();
        assert!(rig.reader.stats().cached_bytes <= 4 * MIB);
    }

    #[test]
    fn a_cache_of_nothing_still_reads() {
        let rig = Rig::with(0, patient());
        let (file, data) = rig.file("a", 5 * MIB + 1);
        rig.expect_in_order(&file, &data, 300 * KIB);
        rig.settle();
        assert_eq!(rig.reader.stats().cached_bytes, 0);
    }
}

mod faults {
    use super::*;

    #[test]
    fn a_body_that_breaks_is_resumed_at_the_byte_reached() {
        let rig = Rig::new();
        let (file, data) = rig.file("a", 4 * MIB);
        rig.host.fault(Fault::CutAfter(100_000));
        rig.host.fault(Fault::Drop);
        rig.host.fault(Fault::Short(50_000));
        assert_eq!(rig.read(&file, 0, MIB).unwrap(), part(&data, 0, MIB));
        let starts: Vec<u64> = rig.host.hits().iter().map(|h| h.range.start).collect();
        assert_eq!(starts[0], 0);
        assert!(starts[1] <= 100_000 && starts[2] == starts[1]);
        assert_eq!(starts[3], starts[2] + 50_000);
    }

    #[test]
    fn passing_troubles_are_not_seen_by_the_reader() {
        for fault in [
            Fault::Status(408, None),
            Fault::Status(429, Some(0)),
            Fault::Status(500, None),
            Fault::Status(503, Some(1)),
            Fault::Drop,
            Fault::Html,
            Fault::HtmlChunked,
            Fault::Empty,
            Fault::Header("content-range", ""),
            Fault::Header("content-range", "bytes 0-9/2097152"),
            Fault::Header("content-encoding", "gzip"),
            Fault::Header("etag", ""),
            Fault::Redirect(""),
        ] {
            let rig = Rig::new();
            let (file, data) = rig.file("a", 2 * MIB);
            rig.read(&file, 0, 10).unwrap();
            rig.host.fault(fault.clone());
            let got = rig.read(&file, MIB, 64 * KIB);
            assert_eq!(got.unwrap(), part(&data, MIB, 64 * KIB), "{fault:?}");
            assert_eq!(rig.host.hits().len(), 3, "{fault:?}");
        }
    }

    #[test]
    fn a_part_of_a_whole_whose_size_the_host_leaves_open_is_taken() {
        let rig = Rig::new();
        let (file, data) = rig.file("a", 2 * MIB);
        rig.read(&file, 0, 10).unwrap();
        let part_of_unknown = Fault::Header("content-range", "bytes 1048576-1114111/*");
        rig.host.fault(part_of_unknown);
        let got = rig.read(&file, MIB, 64 * KIB);
        assert_eq!(got.unwrap(), part(&data, MIB, 64 * KIB));
        assert_eq!(rig.host.hits().len(), 2);
    }

    #[test]
    fn a_host_that_sends_short_parts_is_asked_for_the_rest() {
        let rig = Rig::new();
        let (file, data) = rig.file("a", 2 * MIB);
        rig.host.always(Some(Fault::Short(100_000)));
        assert_eq!(rig.read(&file, 0, MIB).unwrap(), part(&data, 0, MIB));
        assert_eq!(rig.host.hits().len(), MIB.div_ceil(100_000) as usize);
    }

    #[test]
    fn a_silent_host_is_given_up_and_asked_again() {
        for fault in [Fault::Silent, Fault::SilentAfter(70_000)] {
            let mut deadlines = patient();
            (deadlines.connect, deadlines.stall) =
                (Duration::from_millis(200), Duration::from_millis(200));
            let rig = Rig::with(64 * MIB, deadlines);
            let (file, data) = rig.file("a", 2 * MIB);
            rig.host.fault(fault);
            assert_eq!(rig.read(&file, 0, MIB).unwrap(), part(&data, 0, MIB));
        }
    }

    #[test]
    fn troubles_that_stay_end_at_the_deadline_with_their_reason() {
        for (fault, words) in [
            (Fault::Status(500, None), "answered 500"),
            (Fault::Drop, "broke"),
            (Fault::Silent, "did not answer in time"),
            (Fault::SilentAfter(0), "did not answer in time"),
            (Fault::HtmlChunked, "a page of text"),
            (Fault::Empty, "nothing where an asset was expected"),
            (
                Fault::Header("content-range", "bytes 9-9/2097152"),
                "another part",
            ),
        ] {
            let rig = Rig::hasty();
            let (file, _) = rig.file("a", 2 * MIB);
            rig.host.always(Some(fault.clone()));
            match rig.read(&file, 0, MIB) {
                Err(ReadError::Unavailable(why)) => assert!(why.contains(words), "{why}"),
                other => panic!("{fault:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_host_that_cannot_be_reached_is_unavailable() {
        let rig = Rig::hasty();
        let (file, _) = rig.file("a", 2 * MIB);
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = format!("http://{}/a?sig=secret", nobody.local_addr().unwrap());
        drop(nobody);
        let policy = UrlPolicy::for_api(&Url::parse(&rig.urls.base).unwrap());
        file.lock().url = Some(SignedUrl::parse(&target, None, &policy).unwrap());
        match rig.read(&file, 0, 10) {
            Err(ReadError::Unavailable(why)) => {
                assert!(
                    why.contains("cannot connect") && !why.contains("secret"),
                    "{why}"
                );
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_rate_limit_that_stays_is_told_apart() {
        let rig = Rig::hasty();
        let (file, _) = rig.file("a", 2 * MIB);
        rig.host.always(Some(Fault::Status(429, Some(1))));
        let result = rig.read(&file, 0, 10);
        assert!(matches!(result, Err(ReadError::RateLimited)), "{result:?}");
        assert!(rig.host.hits().len() <= 2, "Retry-After was obeyed");
    }

    #[test]
    fn after_a_failure_the_next_read_tries_again() {
        let rig = Rig::hasty();
        let (file, data) = rig.file("a", 2 * MIB);
        rig.host.always(Some(Fault::Status(500, None)));
        rig.read(&file, 0, 10).unwrap_err();
        rig.host.always(None);
        assert_eq!(rig.read(&file, 0, 10).unwrap(), part(&data, 0, 10));
    }

    #[test]
    fn reads_that_are_not_admitted_end_at_the_deadline_too() {
        let rig = Rig::with(4 * MIB, hasty());
        let (file, _) = rig.file("a", 64 * MIB);
        rig.host.hold();
        let reads: Vec<_> = (0..30)
            .map(|i| rig.start(&file, i * 2 * MIB, MIB))
            .collect();
        for read in &reads {
            assert!(matches!(wait(read), Err(ReadError::Unavailable(_))));
        }
        rig.host.release();
    }

    #[test]
    fn one_service_that_hangs_does_not_hold_up_another() {
        let rig = Rig::with(4 * MIB, patient());
        let (stuck, _) = rig.file("stuck", 64 * MIB);
        rig.host.always(Some(Fault::Silent));
        let reads: Vec<_> = (0..30)
            .map(|i| rig.start(&stuck, i * 2 * MIB, MIB))
            .collect();
        rig.until_hits(4);
        rig.host.always(None);
        let data = sample(1, MIB as usize);
        rig.host.put("other", data.clone());
        let other = AssetKey {
            service: Service::Ltx,
            id: AssetId::new("other"),
        };
        let other = rig.reader.remote_file(other, MIB, None);
        assert_eq!(rig.read(&other, 0, MIB).unwrap(), data);
        assert!(reads.iter().all(|read| read.try_recv().is_err()));
    }

    #[test]
    fn dropping_the_reader_answers_everybody_once() {
        let rig = Rig::with(4 * MIB, patient());
        let (file, _) = rig.file("a", 64 * MIB);
        rig.host.hold();
        let reads: Vec<_> = (0..30)
            .map(|i| rig.start(&file, i * 2 * MIB, MIB))
            .collect();
        let probe = rig.start_probe("a");
        rig.until_hits(5);
        let Rig { reader, .. } = &rig;
        reader.owner.engine.shut_down();
        let unmounted = |error: ReadError| match error {
            ReadError::Unavailable(why) => assert_eq!(&*why, "unmounted"),
            other => panic!("{other:?}"),
        };
        reads
            .iter()
            .for_each(|read| unmounted(wait(read).unwrap_err()));
        unmounted(wait(&probe).unwrap_err());
        unmounted(rig.read(&file, 0, 10).unwrap_err());
        unmounted(rig.probe("a").unwrap_err());
        rig.settle();
        assert_eq!(rig.reader.stats().cached_bytes, 0);
    }

    #[test]
    fn the_last_reader_may_be_dropped_by_a_callback() {
        let rig = Rig::new();
        rig.host.put("a", sample(1, MIB as usize));
        let config = ReaderConfig {
            cache_bytes: MIB,
            deadlines: patient(),
        };
        let reader =
            AssetReader::new(config, Arc::clone(&rig.urls) as _, Arc::new(SystemClock)).unwrap();
        // A file belongs to the reader that made it, and so does the memory it counts.
        let file = reader.remote_file(key("a"), MIB, None);
        let (send, receive) = mpsc::channel();
        let last = reader.clone();
        let done = move |result: Result<Bytes, ReadError>| {
            drop(last);
            send.send(result.map(|bytes| bytes.len())).unwrap();
        };
        rig.host.hold();
        reader.read(&file, 0, 10, Box::new(done));
        drop(reader);
        rig.host.release();
        assert_eq!(receive.recv_timeout(PATIENCE).unwrap().unwrap(), 10);
    }
}

mod identity {
    use super::*;

    fn changed(result: Result<Bytes, ReadError>) -> ObjectInfo {
        match result {
            Err(ReadError::Changed(info)) => *info,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn another_etag_fails_every_read_but_what_is_cached() {
        let rig = Rig::new();
        let (file, data) = rig.file("a", 4 * MIB);
        rig.read(&file, 0, 64 * KIB).unwrap();
        assert_eq!(file.etag().as_deref(), Some("\"v1\""));
        rig.settle();
        rig.host.change("a", |object| {
            object.etag = Some("\"v2\"");
            object.data = sample(9, 4 * MIB as usize);
        });
        let info = changed(rig.read(&file, 2 * MIB, 10));
        assert_eq!(info.etag.as_deref(), Some("\"v2\""));
        assert_eq!(
            rig.read(&file, 0, 64 * KIB).unwrap(),
            part(&data, 0, 64 * KIB)
        );
        let before = rig.host.hits().len();
        changed(rig.read(&file, 3 * MIB, 10));
        assert_eq!(rig.host.hits().len(), before);
        let reopened = rig.open("a", 4 * MIB);
        assert_eq!(rig.read(&reopened, 0, 10).unwrap(), sample(9, 10));
    }

    #[test]
    fn a_change_in_the_middle_of_a_resumed_body_mixes_nothing() {
        let rig = Rig::new();
        let (file, _) = rig.file("a", 4 * MIB);
        rig.host.fault(Fault::SilentAfter(100_000));
        rig.host.hold();
        let read = rig.start(&file, 0, MIB);
        rig.until_hits(1);
        rig.host.change("a", |object| object.etag = Some("\"v2\""));
        rig.host.release();
        // The first answer pins v2 and goes silent; another request then meets v3.
        let small = rig.start(&file, 0, 50_000);
        wait(&small).unwrap();
        rig.host.change("a", |object| object.etag = Some("\"v3\""));
        changed(rig.read(&file, 2 * MIB, 10));
        changed(wait(&read));
    }

    #[test]
    fn an_expected_etag_is_compared_with_the_first_answer() {
        let rig = Rig::new();
        rig.file("a", MIB);
        let expecting = |etag: &str| {
            let file = rig
                .reader
                .remote_file(key("a"), MIB, Some(etag.to_string()));
            rig.read(&file, 0, 10)
        };
        expecting("\"v1\"").unwrap();
        changed(expecting("\"v0\""));
    }

    #[test]
    fn another_size_is_another_object() {
        let rig = Rig::new();
        let (_, _) = rig.file("a", MIB);
        for (wrong, offset) in [(2 * MIB, 0), (MIB / 2, 0), (2 * MIB, MIB + 5)] {
            let file = rig.open("a", wrong);
            assert_eq!(changed(rig.read(&file, offset, 10)).size_bytes, MIB);
        }
    }

    #[test]
    fn without_etags_another_last_modified_is_another_object() {
        let rig = Rig::new();
        let (file, _) = rig.file("a", 4 * MIB);
        rig.host.change("a", |object| object.etag = None);
        rig.read(&file, 0, 10).unwrap();
        rig.read(&file, 2 * MIB, 10).unwrap();
        rig.host.change("a", |object| {
            object.last_modified = "Mon, 07 Nov 1994 08:49:37 GMT";
        });
        changed(rig.read(&file, 3 * MIB, 10));
    }

    #[test]
    fn the_first_answer_is_remembered() {
        let rig = Rig::new();
        let (file, _) = rig.file("a", MIB);
        assert_eq!(file.info(), None);
        rig.read(&file, 0, 10).unwrap();
        let info = file.info().unwrap();
        assert_eq!(info.size_bytes, MIB);
        assert_eq!(info.content_type.as_deref(), Some("video/mp4"));
        assert!(info.last_modified.is_some());
    }
}

mod addresses {
    use super::*;

    #[test]
    fn a_refused_url_is_renewed_and_no_reader_sees_it() {
        for status in [400, 401, 403, 404, 410] {
            let rig = Rig::new();
            let (file, data) = rig.file("a", 32 * MIB);
            rig.read(&file, 0, MIB).unwrap();
            rig.host.refuse_below(2, status);
            rig.urls.renewed.store(0, Ordering::SeqCst);
            for i in 1..32 {
                assert_eq!(
                    rig.read(&file, i * MIB, MIB).unwrap(),
                    part(&data, i * MIB, MIB)
                );
            }
            // At most by each stream that was under way with the old one.
            let renewed = rig.urls.renewed.load(Ordering::SeqCst);
            assert!((1..=10).contains(&renewed), "{status}: {renewed}");
        }
    }

    #[test]
    fn a_fresh_url_that_is_refused_too_is_the_end() {
        for status in [400, 401, 403, 404, 410] {
            let rig = Rig::new();
            let (file, _) = rig.file("a", MIB);
            rig.host.refuse_below(u64::MAX, status);
            let result = rig.read(&file, 0, 10);
            match (status, result) {
                (404 | 410, Err(ReadError::NotFound)) => {}
                (400 | 401 | 403, Err(ReadError::Denied(why))) => {
                    assert!(why.contains(&status.to_string()), "{why}");
                }
                (_, other) => panic!("{status}: {other:?}"),
            }
            assert_eq!(rig.host.hits().len(), 2);
            assert_eq!(rig.urls.renewed.load(Ordering::SeqCst), 1);
        }
    }

    #[test]
    fn a_url_about_to_expire_is_renewed_before_it_is_used() {
        let clock = Arc::new(ManualClock::at(SystemTime::UNIX_EPOCH));
        let rig = Rig::at(16 * MIB, patient(), Arc::clone(&clock) as _);
        let (file, _) = rig.file("a", 4 * MIB);
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        *rig.urls.expires_at.lock().unwrap() = Some(at);
        rig.read(&file, 0, 10).unwrap();
        clock.advance(Duration::from_secs(54));
        rig.read(&file, MIB, 10).unwrap();
        assert_eq!(rig.urls.renewed.load(Ordering::SeqCst), 0);
        clock.advance(Duration::from_secs(1));
        rig.read(&file, 2 * MIB, 10).unwrap();
        assert_eq!(rig.urls.renewed.load(Ordering::SeqCst), 1);
        assert_eq!(rig.host.hits().len(), 3);
    }

    #[test]
    fn what_the_service_says_to_a_renewal_reaches_the_reader() {
        let rig = Rig::new();
        rig.host.refuse_below(u64::MAX, 403);
        let answer = |error: ProviderError| {
            *rig.urls.refusal.lock().unwrap() = Some(error);
            let (file, _) = rig.file("a", MIB);
            rig.read(&file, 0, 10).unwrap_err()
        };
        let gone = answer(ProviderError::NotFound);
        assert!(matches!(gone, ReadError::NotFound), "{gone:?}");
        let denied = answer(ProviderError::Denied("set USEAPI_TOKEN".into()));
        assert!(matches!(denied, ReadError::Denied(why) if why.contains("USEAPI_TOKEN")));
        let limited = answer(ProviderError::RateLimited { retry_after: None });
        assert!(matches!(limited, ReadError::RateLimited), "{limited:?}");
        let quota = answer(ProviderError::Quota("expired".into()));
        assert!(matches!(quota, ReadError::Quota(_)), "{quota:?}");
    }

    #[test]
    fn redirects_on_the_same_host_are_followed_three_times() {
        let rig = Rig::new();
        let (file, data) = rig.file("a", MIB);
        for _ in 0..3 {
            rig.host.fault(Fault::Redirect("/a?sig=1"));
        }
        assert_eq!(rig.read(&file, 0, 10).unwrap(), data[..10]);
        assert_eq!(rig.host.hits().len(), 4);
    }

    #[test]
    fn a_redirect_to_another_host_is_followed_with_the_same_range() {
        let rig = Rig::new();
        let (file, data) = rig.file("a", MIB);
        let elsewhere = TestHost::start();
        elsewhere.put("b", data.clone());
        let to = format!("http://{}/b?sig=1", elsewhere.address);
        rig.host.always(Some(Fault::Redirect(to.leak())));
        assert_eq!(
            rig.read(&file, 700_000, 10).unwrap(),
            data[700_000..700_010]
        );
        assert!(elsewhere.crimes().is_empty());
        assert_eq!(rig.host.hits().len(), elsewhere.hits().len());
    }

    #[test]
    fn a_redirect_where_no_url_may_lead_is_refused_at_once() {
        let rig = Rig::new();
        let (file, _) = rig.file("a", MIB);
        rig.host
            .fault(Fault::Redirect("http://me:pw@127.0.0.1:1/steal?sig=1"));
        match rig.read(&file, 0, 10) {
            Err(ReadError::Unavailable(why)) => {
                assert!(
                    why.contains("refused to follow") && !why.contains("sig"),
                    "{why}"
                );
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(rig.host.hits().len(), 1);
    }
}

mod hosts_that_ignore_ranges {
    use super::*;

    fn rig(len: u64, tells_length: bool) -> (Rig, Arc<RemoteFile>, Bytes) {
        let rig = Rig::with(16 * MIB, patient());
        let (file, data) = rig.file("a", len);
        rig.host.change("a", |object| {
            object.ignores_ranges = true;
            object.tells_length = tells_length;
        });
        (rig, file, data)
    }

    #[test]
    fn reading_in_order_is_one_request() {
        for tells_length in [true, false] {
            let (rig, file, data) = rig(24 * MIB + 7, tells_length);
            rig.expect_in_order(&file, &data, 512 * KIB);
            assert_eq!(rig.host.hits().len(), 1);
        }
    }

    #[test]
    fn a_body_that_nobody_reads_on_is_paused() {
        let (rig, file, data) = rig(200 * MIB, true);
        assert_eq!(rig.read(&file, 0, MIB).unwrap(), part(&data, 0, MIB));
        let fetched = rig.reader.stats().fetched_bytes;
        assert!(fetched < 8 * MIB, "{fetched}");
        assert_eq!(
            rig.read(&file, 9 * MIB, MIB).unwrap(),
            part(&data, 9 * MIB, MIB)
        );
        assert_eq!(rig.host.hits().len(), 1);
        rig.reader.close(&file);
        rig.settle();
        assert!(rig.host.sent_bytes() < 100 * MIB);
    }

    #[test]
    fn reads_all_over_the_file_are_right_with_one_stream_at_a_time() {
        let (rig, file, data) = rig(30 * MIB, true);
        let mut random = Random::new();
        for _ in 0..6 {
            let places: Vec<u64> = (0..4).map(|_| random.below(30 * MIB)).collect();
            let reads: Vec<_> = places
                .iter()
                .map(|at| rig.start(&file, *at, 100_000))
                .collect();
            for (at, read) in places.iter().zip(&reads) {
                assert_eq!(wait(read).unwrap(), part(&data, *at, 100_000), "at {at}");
            }
            assert!(rig.reader.stats().active_streams <= 1);
        }
    }

    #[test]
    fn a_broken_whole_body_is_gone_through_again() {
        let (rig, file, data) = rig(4 * MIB, false);
        rig.host.fault(Fault::CutAfter(MIB as usize));
        rig.host.fault(Fault::Drop);
        assert_eq!(
            rig.read(&file, 2 * MIB, MIB).unwrap(),
            part(&data, 2 * MIB, MIB)
        );
    }

    #[test]
    fn a_whole_body_that_always_breaks_before_the_bytes_ends_at_the_deadline() {
        let rig = Rig::hasty();
        let (file, _) = rig.file("a", 4 * MIB);
        rig.host.change("a", |object| object.ignores_ranges = true);
        rig.host.always(Some(Fault::CutAfter(MIB as usize)));
        let result = rig.read(&file, 2 * MIB, MIB);
        assert!(
            matches!(result, Err(ReadError::Unavailable(_))),
            "{result:?}"
        );
    }

    #[test]
    fn a_whole_body_of_another_length_is_another_object() {
        for len in [MIB - 1, MIB + 1] {
            let (rig, _, _) = rig(MIB, true);
            let file = rig.open("a", len);
            let result = rig.read(&file, 0, len);
            assert!(matches!(result, Err(ReadError::Changed(_))), "{result:?}");
        }
    }
}

mod probes {
    use super::*;

    #[test]
    fn a_probe_tells_size_etag_and_time_for_one_byte() {
        let rig = Rig::new();
        rig.file("a", 3 * MIB + 1);
        let info = rig.probe("a").unwrap();
        assert_eq!(info.size_bytes, 3 * MIB + 1);
        assert_eq!(info.etag.as_deref(), Some("\"v1\""));
        assert!(info.last_modified.is_some());
        assert_eq!(rig.host.sent_bytes(), 1);
    }

    #[test]
    fn probes_of_one_asset_are_one_request() {
        let rig = Rig::new();
        rig.file("a", MIB);
        rig.host.hold();
        let probes: Vec<_> = (0..20).map(|_| rig.start_probe("a")).collect();
        rig.until_hits(1);
        rig.host.release();
        for probe in &probes {
            assert_eq!(wait(probe).unwrap().size_bytes, MIB);
        }
        assert_eq!(rig.host.hits().len(), 1);
        rig.probe("a").unwrap();
        assert_eq!(rig.host.hits().len(), 2);
    }

    #[test]
    fn a_thousand_probes_share_a_bounded_number_of_connections() {
        let rig = Rig::new();
        let names: Vec<String> = (0..1000).map(|i| format!("asset-{i}")).collect();
        for (size, name) in (1..).zip(&names) {
            rig.host.put(name, sample(1, size));
        }
        let probes: Vec<_> = names.iter().map(|name| rig.start_probe(name)).collect();
        for (size, probe) in (1..).zip(&probes) {
            assert_eq!(wait(probe).unwrap().size_bytes, size);
        }
        assert_eq!(rig.host.hits().len(), 1000);
        let connections = rig.host.connections();
        assert!(connections <= 512, "{connections}");
    }

    #[test]
    fn an_empty_object_is_empty() {
        let rig = Rig::new();
        rig.file("a", 0);
        assert_eq!(rig.probe("a").unwrap().size_bytes, 0);
    }

    #[test]
    fn a_host_that_ignores_ranges_is_asked_for_no_more_than_it_must_send() {
        for tells_length in [true, false] {
            let rig = Rig::new();
            rig.file("a", 3 * MIB);
            rig.host.change("a", |object| {
                object.ignores_ranges = true;
                object.tells_length = tells_length;
            });
            assert_eq!(rig.probe("a").unwrap().size_bytes, 3 * MIB);
            let counted = rig.reader.stats().fetched_bytes;
            assert_eq!(counted, if tells_length { 0 } else { 3 * MIB });
        }
    }

    #[test]
    fn troubles_of_a_probe_are_retried_renewed_or_told() {
        let rig = Rig::new();
        rig.file("a", MIB);
        for fault in [
            Fault::Status(503, None),
            Fault::Drop,
            Fault::HtmlChunked,
            Fault::Header("content-range", "bytes 0-0/*"),
        ] {
            rig.host.fault(fault);
            assert_eq!(rig.probe("a").unwrap().size_bytes, MIB);
        }
        rig.host.refuse_below(2, 403);
        assert_eq!(rig.probe("a").unwrap().size_bytes, MIB);
        rig.host.remove("a");
        assert!(matches!(rig.probe("a"), Err(ReadError::NotFound)));
    }

    #[test]
    fn a_probe_of_a_silent_host_ends_at_the_deadline() {
        let rig = Rig::hasty();
        rig.file("a", MIB);
        rig.host.always(Some(Fault::Silent));
        assert!(matches!(rig.probe("a"), Err(ReadError::Unavailable(_))));
    }
}
mod ahead_of_any_reader {
    use super::*;

    fn whole(file: &RemoteFile) -> ByteRange {
        ByteRange::new(0, file.size_bytes())
    }

    #[test]
    fn what_was_fetched_ahead_is_read_without_a_request() {
        let rig = Rig::new();
        let (file, data) = rig.file("a", 3 * MIB + 5);
        assert_eq!(rig.reader.prefetch(&file, whole(&file)), Prefetch::Taken);
        rig.settle();
        rig.expect_in_order(&file, &data, 128 * KIB);
        assert_eq!(rig.host.hits().len(), 1);
        assert_eq!(rig.reader.stats().misses, 0);
    }

    #[test]
    fn a_read_shares_what_is_on_its_way_and_does_not_end_it() {
        let rig = Rig::new();
        let (file, data) = rig.file("a", 2 * MIB);
        rig.host.hold();
        rig.reader.prefetch(&file, whole(&file));
        let first = rig.start(&file, 0, 64 * KIB);
        let again = rig.reader.prefetch(&file, whole(&file));
        assert_eq!(again, Prefetch::Taken);
        rig.host.release();
        assert_eq!(wait(&first).unwrap(), part(&data, 0, 64 * KIB));
        rig.settle();
        assert_eq!(rig.read(&file, MIB, MIB).unwrap(), part(&data, MIB, MIB));
        assert_eq!(rig.host.hits().len(), 1);
    }

    #[test]
    fn closing_the_file_ends_it() {
        let rig = Rig::new();
        let (file, _) = rig.file("a", 4 * MIB);
        rig.host.hold();
        rig.reader.prefetch(&file, whole(&file));
        rig.until_streams(1);
        rig.reader.close(&file);
        rig.settle();
        rig.host.release();
    }

    #[test]
    fn an_eighth_of_the_memory_is_under_way_at_most() {
        let rig = Rig::with(16 * MIB, patient());
        let files: Vec<_> = (0..3)
            .map(|n| rig.file(&format!("{n}"), 4 * MIB).0)
            .collect();
        rig.host.hold();
        let taken: Vec<_> = files
            .iter()
            .map(|file| rig.reader.prefetch(file, whole(file)))
            .collect();
        assert_eq!(taken, [Prefetch::Taken, Prefetch::Taken, Prefetch::Refused]);
        rig.host.release();
        rig.settle();
        let now = rig.reader.prefetch(&files[2], whole(&files[2]));
        assert_eq!(now, Prefetch::Taken);
        rig.settle();
        assert_eq!(rig.host.hits().len(), 3);
    }

    #[test]
    fn a_host_that_ignores_ranges_is_read_ahead_too() {
        let rig = Rig::new();
        let (file, data) = rig.file("a", 2 * MIB);
        rig.host.change("a", |object| object.ignores_ranges = true);
        rig.reader.prefetch(&file, whole(&file));
        rig.settle();
        rig.expect_in_order(&file, &data, MIB);
        assert_eq!(rig.host.hits().len(), 1);
    }

    #[test]
    fn a_failure_is_left_to_the_read() {
        let rig = Rig::new();
        let (file, data) = rig.file("a", MIB);
        rig.host.fault(Fault::Status(404, None));
        rig.host.fault(Fault::Status(404, None));
        rig.reader.prefetch(&file, whole(&file));
        rig.settle();
        assert_eq!(rig.read(&file, 0, 4096).unwrap(), part(&data, 0, 4096));
    }

    #[test]
    fn the_first_read_of_a_head_brings_256_kib_and_one_elsewhere_what_it_asks() {
        let rig = Rig::new();
        let (file, _) = rig.file("a", 32 * MIB);
        rig.read(&file, 0, 4096).unwrap();
        rig.settle();
        assert_eq!(rig.host.sent_bytes(), 256 * KIB);
        rig.read(&file, 9 * MIB, 4096).unwrap();
        rig.settle();
        assert_eq!(rig.host.sent_bytes(), 260 * KIB);
    }

    #[test]
    fn whoever_looks_at_the_other_end_does_not_lose_the_head() {
        let rig = Rig::new();
        let (file, data) = rig.file("a", 32 * MIB);
        rig.host.hold();
        let head = rig.start(&file, 0, 4096);
        let tail = rig.start(&file, 32 * MIB - 4096, 4096);
        let middle = rig.start(&file, 9 * MIB, 4096);
        rig.host.release();
        for (read, at) in [(&head, 0), (&tail, 32 * MIB - 4096), (&middle, 9 * MIB)] {
            assert_eq!(wait(read).unwrap(), part(&data, at, 4096));
        }
        rig.settle();
        let rest = rig.read(&file, 64 * KIB, 192 * KIB).unwrap();
        assert_eq!(rest, part(&data, 64 * KIB, 192 * KIB));
        assert_eq!(rig.host.hits().len(), 3);
    }
}
