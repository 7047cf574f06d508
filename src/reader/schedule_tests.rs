//! The engine under a schedule explorer: readers, hosts, closes, prefetches and the end of the
//! program on threads whose every switch, at each [`Lock`](super::lock::Lock), is chosen at random.
//!
//! All of the engine runs as it is but for the streams' tasks, which need a network: the hosts here
//! call what those call, chunk by chunk, so tokio's runtime is never driven. Two thirds of the
//! schedules are uniform; those of PCT, the others, have few switches (depth 3), but at any place.
//!
//! A failure prints its seed, and `SHUTTLE_RANDOM_SEED` begins with the schedule of that seed.

mod invariants;

use std::cell::Cell;
use std::collections::HashSet;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::mpsc::{Receiver, channel};
use shuttle::{Config, MaxSteps, Runner, thread};

use super::engine::Engine;
use super::lane::{Admission, Queued};
use super::state::Flow;
use super::stream::Source;
use super::waiter::{Outbox, Reply, subtract};
use super::{
    AssetKey, Bytes, ObjectInfo, ReadError, ReaderConfig, RemoteFile, UrlDone, UrlSource, fetch,
};
use crate::clock::ManualClock;
use crate::http::{AssetClient, Deadlines, SignedUrl};
use crate::provider::{AssetId, Service};
use crate::range::ByteRange;

thread_local! {
    /// Whether this thread, on which shuttle runs all of its own, explores schedules.
    static EXPLORING: Cell<bool> = const { Cell::new(false) };
}

/// Whose turn it is to have a lock: asked of shuttle while it explores, else nobody's business.
pub(super) struct Turn(Option<shuttle::sync::Mutex<()>>);

impl Default for Turn {
    fn default() -> Self {
        Self(EXPLORING.get().then(|| shuttle::sync::Mutex::new(())))
    }
}

impl Turn {
    pub fn take(&self) -> TurnGuard<'_> {
        let turn = self.0.as_ref();
        TurnGuard {
            _held: turn.map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

pub(super) struct TurnGuard<'a> {
    _held: Option<shuttle::sync::MutexGuard<'a, ()>>,
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// Two files of two and a half slots, of which the cache holds a fifth: evictions are the rule.
const FILE_BYTES: u64 = 5 * MIB / 2 - 777;
const CACHE_BYTES: u64 = MIB;
/// What a lane admits at the least, 4 MiB, but for 300 KiB: two reads fit, the third waits.
const BALLAST_BYTES: u64 = 4 * MIB - 300 * KIB;
const READERS: usize = 3;
const READS: usize = 3;
const SERVICE: Service = Service::Ltx;
/// Ten times what the longest run takes: beyond it somebody waits for what never comes.
const MOST_STEPS: usize = 100_000;

/// What goes on beside the readers.
#[derive(Clone, Copy, Default)]
struct Play {
    /// Streams break, are resumed, and find another object.
    breaks: bool,
    /// The host ignores ranges.
    whole: bool,
    /// The program ends meanwhile.
    ends: bool,
}

/// Never answers: a stream's task that runs, at the end of a play, waits here.
#[derive(Default)]
struct NoUrls(Mutex<Vec<UrlDone>>);

impl UrlSource for NoUrls {
    fn url(&self, _: &AssetKey, _: Option<SignedUrl>, done: UrlDone) {
        self.0.lock().unwrap().push(done);
    }
}

/// What was asked of a file, so far as to know that its close was the last of it.
#[derive(Clone, Copy, Default)]
struct Calls {
    under_way: u32,
    begun: u32,
    /// How many had begun, and ended, when it was closed.
    begun_at_close: u32,
}

impl Calls {
    /// Whether no call that may want bytes came, or was under way, since the latest close.
    fn is_closed(self) -> bool {
        self.begun == self.begun_at_close
    }
}

/// The bytes of both files.
fn samples() -> &'static [Vec<u8>; 2] {
    static SAMPLES: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        [3u64, 5].map(|file| {
            let word = |at: u64| (at + file).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            (0..FILE_BYTES).map(|at| word(at) as u8).collect()
        })
    })
}

/// One for all schedules: it is slow to make and nobody calls it.
fn client(deadlines: Deadlines, clock: &Arc<ManualClock>) -> AssetClient {
    static CLIENT: OnceLock<AssetClient> = OnceLock::new();
    let make = || AssetClient::new(deadlines, Arc::clone(clock) as _).unwrap();
    CLIENT.get_or_init(make).clone()
}

fn chance(one_of: u32) -> bool {
    thread_rng().gen_range(0..one_of) == 0
}

/// Which file, and which stream of it.
type Talk = (usize, u64);

struct Stage {
    play: Play,
    engine: Arc<Engine>,
    files: Vec<Arc<RemoteFile>>,
    calls: Mutex<[Calls; 2]>,
    permits: [usize; 3],
    /// Requests that the host has begun to answer.
    begun: Mutex<HashSet<Talk>>,
    /// Bodies that wait for their stream's `wake`.
    paused: Mutex<HashSet<Talk>>,
    over: AtomicBool,
}

impl Stage {
    fn new(play: Play, runtime: tokio::runtime::Handle) -> Self {
        let patience = Duration::from_secs(3600);
        let deadlines = Deadlines {
            connect: patience,
            stall: patience,
            total: patience,
        };
        let config = ReaderConfig {
            cache_bytes: CACHE_BYTES,
            deadlines,
        };
        let clock = Arc::new(ManualClock::at(SystemTime::UNIX_EPOCH));
        let client = client(deadlines, &clock);
        let engine = Arc::new(Engine::new(
            config,
            client,
            Arc::new(NoUrls::default()),
            clock,
            runtime,
        ));
        let files = ["one", "two"].map(|name| {
            let key = AssetKey {
                service: SERVICE,
                id: AssetId::new(name),
            };
            engine.remote_file(key, FILE_BYTES, None)
        });
        Self {
            play,
            permits: permits(&engine),
            engine,
            files: files.into(),
            calls: Mutex::default(),
            begun: Mutex::default(),
            paused: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    fn ask(&self, number: usize, range: ByteRange) -> Receiver<Result<Bytes, ReadError>> {
        let (send, receive) = channel();
        let (engine, file) = (Arc::clone(&self.engine), Arc::clone(&self.files[number]));
        let reply = Reply::new(Box::new(move |result| {
            // A deadlock unless no lock is held.
            drop(file.lock());
            drop(engine.shelf(&file).cache.lock());
            let _ = engine.lane(SERVICE).last_progress();
            send.send(result).unwrap();
        }));
        self.wanting(number, |file| self.engine.read(file, range, reply));
        self.check(number);
        receive
    }

    /// Makes a call that may want bytes of a file.
    fn wanting<R>(&self, number: usize, call: impl FnOnce(&Arc<RemoteFile>) -> R) -> R {
        let count = |by: fn(&mut Calls)| by(&mut self.calls.lock().unwrap()[number]);
        count(|calls| {
            calls.begun += 1;
            calls.under_way += 1;
        });
        let result = call(&self.files[number]);
        count(|calls| calls.under_way -= 1);
        result
    }

    fn close(&self, number: usize) {
        let before = self.calls.lock().unwrap()[number];
        self.engine.close(&self.files[number]);
        if before.under_way == 0 {
            self.calls.lock().unwrap()[number].begun_at_close = before.begun;
        }
    }

    fn judge(&self, number: usize, range: ByteRange, answer: &Receiver<Result<Bytes, ReadError>>) {
        match answer.recv().expect("an answer") {
            Ok(bytes) => {
                let right = &samples()[number][range.start as usize..range.end as usize];
                assert!(*bytes == *right, "wrong bytes for {range}");
            }
            Err(ReadError::Unavailable(why)) if &*why == "unmounted" => assert!(self.play.ends),
            Err(ReadError::Unavailable(why)) if &*why == "broken" => assert!(self.play.breaks),
            Err(ReadError::Changed(_)) => assert!(self.play.breaks),
            Err(error) => panic!("{error}"),
        }
        assert!(answer.recv().is_err(), "a second answer");
    }

    /// Reads in order mostly, now and then two at once, as the kernel does.
    fn reader(&self) {
        let mut number = thread_rng().gen_range(0..self.files.len());
        let mut at = 0;
        for _ in 0..READS {
            if chance(3) {
                number = thread_rng().gen_range(0..self.files.len());
                at = thread_rng().gen_range(0..FILE_BYTES);
            }
            let mut asked = Vec::new();
            for _ in 0..thread_rng().gen_range(1..=2) {
                let len = thread_rng().gen_range(1..=160 * KIB);
                let range = ByteRange::at(at, len).clamp_to(FILE_BYTES);
                at = range.end % FILE_BYTES;
                asked.push((range, self.ask(number, range)));
            }
            for (range, answer) in asked {
                self.judge(number, range, &answer);
            }
        }
    }

    /// Closes files, fetches ahead, and at some time makes room for the reads that wait.
    fn others(&self) {
        for _ in 0..2 {
            let number = thread_rng().gen_range(0..self.files.len());
            if chance(2) {
                self.close(number);
            } else {
                let from = thread_rng().gen_range(0..FILE_BYTES);
                let ahead = ByteRange::at(from, 128 * KIB).clamp_to(FILE_BYTES);
                let _ = self.wanting(number, |file| self.engine.prefetch(file, ahead));
            }
            self.check(number);
        }
        let mut out = Outbox::default();
        out.admitted_bytes = BALLAST_BYTES;
        self.engine.send(&self.files[0], out);
    }

    /// One of two hosts: each stream has its own, as each has one task.
    fn host(&self, parity: u64) {
        while !self.over.load(Ordering::SeqCst) {
            if !self.bring(|id| id % 2 == parity) {
                thread::yield_now();
            }
        }
    }

    /// Goes on with some stream of those that `mine` picks; false where none goes on.
    fn bring(&self, mine: impl Fn(u64) -> bool) -> bool {
        let mut ready: Vec<Talk> = Vec::new();
        for (number, file) in self.files.iter().enumerate() {
            let state = file.lock();
            let ids = state.streams.iter().map(|s| s.id).filter(|id| mine(*id));
            let talks = ids.map(|id| (number, id));
            let paused = self.paused.lock().unwrap();
            ready.extend(talks.filter(|talk| !paused.contains(talk) || woken(&state, talk.1)));
        }
        if ready.is_empty() {
            return false;
        }
        let talk = ready[thread_rng().gen_range(0..ready.len())];
        for woken in ready {
            if self.paused.lock().unwrap().remove(&woken) {
                let flow = self.files[woken.0].lock().flow(woken.1);
                self.follow(woken, flow);
            }
        }
        self.go_on(talk);
        self.check(talk.0);
        true
    }

    fn go_on(&self, talk: Talk) {
        let (file, id) = (&self.files[talk.0], talk.1);
        if self.play.breaks && chance(8) {
            return self.go_wrong(talk);
        }
        if self.paused.lock().unwrap().contains(&talk) {
            return;
        }
        if self.play.whole
            && self.begun.lock().unwrap().insert(talk)
            && !self.engine.became_whole(file, id)
        {
            return self.engine.finish(file, id, Ok(()));
        }
        let Some(rest) = file.lock().stream(id).map(|s| s.remaining()) else {
            return;
        };
        let part = ByteRange::at(rest.start, thread_rng().gen_range(1..=200 * KIB));
        let part = part.intersect(&rest);
        let chunk = &samples()[talk.0][part.start as usize..part.end as usize];
        self.follow(talk, self.engine.deliver(file, id, chunk));
    }

    fn go_wrong(&self, talk: Talk) {
        let (file, id) = (&self.files[talk.0], talk.1);
        let error = match thread_rng().gen_range(0..6) {
            0 => ReadError::Changed(Box::new(ObjectInfo {
                size_bytes: 1,
                etag: None,
                last_modified: None,
                content_type: None,
            })),
            1..=3 => ReadError::Unavailable(Arc::from("broken")),
            // Asked again for what is left.
            _ => {
                self.begun.lock().unwrap().remove(&talk);
                return;
            }
        };
        self.engine.finish(file, id, Err(error));
    }

    /// As `fetch::body` does.
    fn follow(&self, talk: Talk, flow: Flow) {
        let (file, id) = (&self.files[talk.0], talk.1);
        match flow {
            Flow::Continue | Flow::Gone => {}
            Flow::Done => self.engine.finish(file, id, Ok(())),
            Flow::Excess => panic!("more than was asked for"),
            Flow::Pause => {
                self.paused.lock().unwrap().insert(talk);
            }
            Flow::Restart => {
                fetch::restart(&self.engine, file, id);
                self.begun.lock().unwrap().remove(&talk);
            }
        }
    }

    /// Takes what the lane has for a read of this length.
    fn admit(&self, len: u64) -> Admission {
        self.engine.lane(SERVICE).admit(Queued {
            file: Arc::clone(&self.files[0]),
            range: ByteRange::at(0, len),
            since: self.engine.now(),
            reply: Reply::new(Box::new(drop)),
        })
    }

    /// When all was answered, what is under way is what open files may keep: the body of a host that
    /// ignores ranges, which waits for its reader. When all are closed it is nothing.
    fn finale(&self, runtime: &tokio::runtime::Runtime) {
        while self.bring(|_| true) {}
        self.expect_at_rest(runtime);
        for number in 0..self.files.len() {
            self.close(number);
        }
        while self.bring(|_| true) {}
        self.expect_at_rest(runtime);
    }
}

/// What is free of all that streams share.
fn permits(engine: &Engine) -> [usize; 3] {
    let connections = &engine.lane(SERVICE).streams;
    [&engine.ahead, &engine.prefetching, connections].map(|all| all.available_permits())
}

/// Whether a paused stream was woken: one that nobody wakes stays as it is.
fn woken(state: &super::FileState, id: u64) -> bool {
    let wake = state.streams.iter().find(|s| s.id == id).map(|s| &s.wake);
    wake.is_some_and(|wake| {
        let waking = pin!(wake.notified());
        let mut context = Context::from_waker(Waker::noop());
        waking.poll(&mut context).is_ready()
    })
}

fn perform(play: Play) {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_time().build().unwrap();
    let stage = Arc::new(Stage::new(play, runtime.handle().clone()));
    assert!(matches!(stage.admit(BALLAST_BYTES), Admission::Admitted(_)));
    let on = |act: fn(&Stage)| {
        let stage = Arc::clone(&stage);
        thread::spawn(move || act(&stage))
    };
    let mut players: Vec<_> = (0..READERS).map(|_| on(Stage::reader)).collect();
    players.push(on(Stage::others));
    if play.ends {
        players.push(on(|stage| {
            for _ in 0..thread_rng().gen_range(0..40) {
                thread::yield_now();
            }
            stage.engine.shut_down();
            // The runtime goes with it, and so do the streams' tasks.
            stage.over.store(true, Ordering::SeqCst);
        }));
    }
    let hosts = [on(|stage| stage.host(0)), on(|stage| stage.host(1))];
    for player in players {
        player.join().unwrap();
    }
    stage.over.store(true, Ordering::SeqCst);
    for host in hosts {
        host.join().unwrap();
    }
    stage.finale(&runtime);
}

/// Until it is dropped, new locks are shuttle's.
struct Exploring;

impl Exploring {
    fn begin() -> Self {
        EXPLORING.set(true);
        Self
    }
}

impl Drop for Exploring {
    fn drop(&mut self) {
        EXPLORING.set(false);
    }
}

fn explore(scheduler: impl Scheduler + 'static, play: Play) {
    let mut config = Config::new();
    config.stack_size = 256 * 1024;
    config.max_steps = MaxSteps::FailAfter(MOST_STEPS);
    let _exploring = Exploring::begin();
    Runner::new(scheduler, config).run(move || perform(play));
}

/// Plays 400 random schedules, or `REELFS_SCHEDULES`, and a half as many of PCT.
fn explore_both(play: Play) {
    let wished = std::env::var("REELFS_SCHEDULES").ok();
    let schedules = wished.map_or(400, |wished| wished.parse().unwrap());
    explore(RandomScheduler::new(schedules), play);
    explore(PctScheduler::new(3, schedules / 2), play);
}

#[test]
fn in_any_order_readers_get_their_bytes_once_and_all_that_was_taken_comes_back() {
    explore_both(Play::default());
}

#[test]
fn in_any_order_a_stream_that_breaks_leaves_nobody_waiting() {
    let breaks = true;
    explore_both(Play {
        breaks,
        ..Play::default()
    });
}

#[test]
fn in_any_order_a_host_that_ignores_ranges_serves_all_by_one_stream() {
    let whole = true;
    explore_both(Play {
        whole,
        ..Play::default()
    });
}

#[test]
fn in_any_order_the_end_of_the_program_answers_all() {
    let ends = true;
    explore_both(Play {
        ends,
        ..Play::default()
    });
    let (breaks, whole) = (true, true);
    explore_both(Play {
        breaks,
        whole,
        ends,
    });
}

/// Found by the explorer: the read waited for ever.
#[test]
fn the_answer_to_a_stream_that_was_dropped_ends_no_other() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().unwrap();
    let stage = Stage::new(Play::default(), runtime.handle().clone());
    let file = &stage.files[0];
    let _ = stage.engine.prefetch(file, ByteRange::new(0, 128 * KIB));
    let dropped = file.lock().streams[0].id;
    stage.engine.close(file);
    let reply = Reply::new(Box::new(drop));
    stage.engine.read(file, ByteRange::new(0, 10), reply);
    assert!(!stage.engine.became_whole(file, dropped));
    assert_eq!(file.lock().streams.len(), 1);
    stage.check(0);
}

/// Found by the explorer: it went on to the end of its range.
#[test]
fn a_stream_of_a_closed_file_ends_with_the_last_read_that_waits_for_it() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().unwrap();
    let stage = Stage::new(Play::default(), runtime.handle().clone());
    let (file, read) = (&stage.files[0], ByteRange::new(0, 128 * KIB));
    let (send, answer) = std::sync::mpsc::channel();
    let reply = Reply::new(Box::new(move |result| send.send(result).unwrap()));
    stage.engine.read(file, read, reply);
    let stream = file.lock().streams[0].id;
    assert!(
        file.lock().streams[0].end > read.end,
        "it brings more than is read"
    );
    stage.engine.close(file);
    let chunk = &samples()[0][..read.end as usize];
    assert_eq!(stage.engine.deliver(file, stream, chunk), Flow::Gone);
    assert_eq!(answer.recv().unwrap().unwrap(), chunk);
    assert!(file.lock().streams.is_empty());
}
