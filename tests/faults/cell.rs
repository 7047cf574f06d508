//! One cell of the matrix, in a process of its own: what threads, memory and log lines it leaves
//! behind can be counted there.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use log::Level;
use reelfs::emulator::{
    Content, Effect, Emulator, EmulatorConfig, Fault, HostKind, LtxAsset, RunflowAsset, RunwayAsset,
};
use reelfs::fs::FsError;
use reelfs::provider::Library;
use reelfs::upload::UploadState;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::bench::{Bench, Settings, errno_name, outcome_of};
use crate::doors::{Certificates, Door, Way};
use crate::kinds::{self, MOMENT, Request, Trouble};
use crate::logged;
use crate::support::until;

const UUID: &str = "3c90c3cc-0d44-4b50-8888-8dd25736052a";
/// Where a retry can help, it has this long.
const LONG: Duration = Duration::from_secs(30);
/// Where none can, a few attempts are enough.
const SHORT: Duration = Duration::from_secs(2);
/// Beyond the deadline, for a busy machine; only a hang is longer.
const SLACK: Duration = Duration::from_secs(25);
/// Requests that one operation may cost: 18 attempts fit into 30 s, over three pages.
const MOST_REQUESTS: usize = 80;
/// Lines of warnings and errors that one failed operation may cost.
const MOST_LINES: usize = 2;
/// The process at its largest: 8 MiB of cache, one 16 MiB answer, the emulator and its assets.
const MOST_MEMORY_BYTES: u64 = 160 << 20;

const READ_BYTES: u32 = 160_000;
const SMALL_BYTES: u64 = 200_000;
const LARGE_BYTES: u64 = 24 << 20;
const LATER: u64 = 20 << 20;
/// More than what the sockets of a silent host take.
const LARGE_UPLOAD_BYTES: u64 = 12 << 20;

/// How often the trouble happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Times {
    Once,
    Always,
}

/// A service in trouble and what the asset's bytes are.
struct Scene {
    _runtime: Runtime,
    emulator: Emulator,
    doors: Option<[Door; 3]>,
    state: TempDir,
    settings: Settings,
    content: Content,
    /// The name to look up.
    name: String,
}

/// What came of a cell, and what else was seen that must not be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub outcome: String,
    pub complaints: Vec<String>,
}

/// Plays one cell. Writes `outcome` and complaints, a line each, into `report`.
pub fn play(row: usize, column: usize, times: Times, certificates: &Path, report: &Path) {
    logged::keep();
    let threads_before = threads();
    let stray = TcpListener::bind("127.0.0.1:0").unwrap();
    stray.set_nonblocking(true).unwrap();
    let elsewhere = format!("http://{}/stray", stray.local_addr().unwrap());
    let fault = kinds::faults(&elsewhere).swap_remove(row);
    let request = Request::ALL[column];
    let mut seen = Report::default();
    {
        let scene = Scene::set(request, &fault, times, certificates);
        scene.play(request, &fault, times, &mut seen);
    }
    if stray.accept().is_ok() {
        seen.complain("another host was asked");
    }
    let limit = Instant::now() + SLACK;
    while threads() > threads_before && Instant::now() < limit {
        thread::sleep(Duration::from_millis(5));
    }
    if threads() > threads_before {
        seen.complain(&format!("threads stay: {}", thread_names()));
    }
    let largest = largest_memory_bytes();
    if largest > MOST_MEMORY_BYTES {
        seen.complain(&format!("it took {} MiB", largest >> 20));
    }
    let lines = [vec![seen.outcome], seen.complaints].concat();
    fs::write(report, lines.join("\n")).unwrap();
}

impl Report {
    fn complain(&mut self, what: &str) {
        self.complaints.push(what.replace('\n', " "));
    }
}

impl Scene {
    fn set(request: Request, fault: &kinds::Fault, times: Times, certificates: &Path) -> Self {
        let runtime = Runtime::new().unwrap();
        let tls = matches!(fault.trouble, Trouble::Door(Way::PlainText | Way::Stranger));
        let certificates = tls.then(|| Certificates::read(certificates));
        let has_doors = matches!(fault.trouble, Trouble::Door(_));
        let doors = has_doors.then(|| [(); 3].map(|()| Door::new(&runtime, certificates.clone())));
        let scheme = if tls { "https" } else { "http" };
        let origin = |door: &Door| format!("{scheme}://{}", door.address);
        let nowhere = || "http://reelfs-test.invalid".to_string();
        let mut config = EmulatorConfig {
            asset_origin: doors.as_ref().map(|[.., asset]| origin(asset)),
            ..EmulatorConfig::default()
        };
        let unknown = matches!(fault.trouble, Trouble::UnknownHost);
        let (host, ..) = request.place();
        if unknown && host == HostKind::Asset {
            config.asset_origin = Some(nowhere());
        }
        let emulator = Emulator::start(config).unwrap();
        let total = match times {
            Times::Once if !fault.outlasts => LONG,
            _ => SHORT,
        };
        let mut settings = Settings::of(&emulator, total);
        if let Some([useapi, runflow, asset]) = &doors {
            useapi.leads_to(&emulator.useapi_url());
            runflow.leads_to(&emulator.runflow_url());
            asset.leads_to(&emulator.asset_host());
            (settings.useapi, settings.runflow) = (origin(useapi), origin(runflow));
        }
        match host {
            HostKind::Useapi if unknown => settings.useapi = nowhere(),
            HostKind::Runflow if unknown => settings.runflow = nowhere(),
            _ => {}
        }
        let size_bytes = match request {
            Request::LaterRange => LARGE_BYTES,
            Request::Upload if matches!(fault.trouble, Trouble::Effect(Effect::Silent)) => {
                LARGE_UPLOAD_BYTES
            }
            _ => SMALL_BYTES,
        };
        let mut scene = Self {
            _runtime: runtime,
            emulator,
            doors,
            state: tempfile::tempdir().unwrap(),
            settings,
            content: Content::synthetic(size_bytes, 7),
            name: String::new(),
        };
        scene.name = scene.furnish(request);
        scene
    }

    /// Puts in what is asked for; its name.
    fn furnish(&self, request: Request) -> String {
        let content = self.content.clone();
        match request {
            Request::ListRunway => {
                for name in ["a.mp4", "b.mp4", "c.mp4"] {
                    let asset = RunwayAsset::named(name, content.clone());
                    self.emulator.add_runway(asset);
                }
                String::new()
            }
            Request::ListLtx | Request::SizeLtx => {
                let asset = LtxAsset::new("video/mp4", content);
                format!("{}.mp4", self.emulator.add_ltx(asset))
            }
            Request::AssetRunflow => {
                let asset = RunflowAsset::new("a.mp4", "video/mp4", content).with_id(UUID);
                self.emulator.add_runflow(asset);
                UUID.to_string()
            }
            Request::Upload => "a.mp4".to_string(),
            Request::AssetRunway | Request::FirstRange | Request::LaterRange => {
                let asset = RunwayAsset::named("a.mp4", content);
                self.emulator.add_runway(asset);
                "a.mp4".to_string()
            }
        }
    }

    fn play(&self, request: Request, fault: &kinds::Fault, times: Times, seen: &mut Report) {
        let bench = Bench::mount(&self.emulator, &self.state, &self.settings);
        let prepared = self.prepare(&bench, request);
        logged::take();
        let asked_before = self.emulator.requests().len();
        let opened = self.trouble(request, fault, times);
        let began = Instant::now();
        let outcome = self.act(&bench, request, prepared.as_ref());
        if began.elapsed() > self.settings.deadlines.total + SLACK {
            seen.complain(&format!("it took {:?}", began.elapsed()));
        }
        if let Some(opened) = opened {
            opened.join().unwrap();
        }
        let asked = self.emulator.requests().len() - asked_before;
        if asked > MOST_REQUESTS {
            seen.complain(&format!("it asked {asked} times"));
        }
        self.look_at_log(&outcome, seen);
        if !fault.outlasts && !matches!(fault.trouble, Trouble::UnknownHost) {
            self.mend();
            self.recovers(&bench, request, &outcome, seen);
        }
        seen.outcome = outcome;
        if let Some((_, fh)) = prepared {
            bench.fs.release(fh);
        }
        let reader = bench.reader.clone();
        bench.end();
        drop(reader);
    }

    /// What comes before the trouble; a number and a handle where the request needs them.
    fn prepare(&self, bench: &Bench, request: Request) -> Option<(u64, u64)> {
        match request {
            Request::AssetRunway => {
                self.emulator.set_url_lifetime(Duration::ZERO);
                let ino = bench.lookup(Library::RunwayVideo, &self.name).unwrap().ino;
                self.emulator.set_url_lifetime(Duration::from_secs(3600));
                let fh = bench.open(ino).unwrap();
                Some((ino, fh))
            }
            Request::FirstRange | Request::LaterRange => {
                let ino = bench.lookup(Library::RunwayVideo, &self.name).unwrap().ino;
                let fh = bench.open(ino).unwrap();
                if request == Request::LaterRange {
                    let start = bench.read(fh, 0, READ_BYTES).unwrap();
                    assert!(self.content.verify(0, &start));
                    self.wait_until_quiet();
                }
                Some((ino, fh))
            }
            Request::SizeLtx => {
                // Listed, but not read: a directory that is read learns its sizes at once, before the
                // trouble begins.
                bench.lookup(Library::LtxVideos, "absent").unwrap_err();
                None
            }
            Request::ListRunway | Request::ListLtx | Request::AssetRunflow | Request::Upload => {
                None
            }
        }
    }

    /// Until no request has come for a while.
    fn wait_until_quiet(&self) {
        let mut quiet = (0, Instant::now());
        until("the reader has what it wants", || {
            let sent: u64 = self.emulator.requests().iter().map(|r| r.bytes_sent).sum();
            if sent != quiet.0 {
                quiet = (sent, Instant::now());
            }
            quiet.1.elapsed() > Duration::from_millis(200)
        });
    }

    /// Lets it go wrong from now on; the thread that ends what happens once.
    fn trouble(
        &self,
        request: Request,
        fault: &kinds::Fault,
        times: Times,
    ) -> Option<thread::JoinHandle<()>> {
        let (host, method, path) = request.place();
        match &fault.trouble {
            Trouble::UnknownHost => None,
            Trouble::Effect(effect) => {
                let fault = Fault::at(host).method(method).path(path);
                let fault = match times {
                    Times::Once => fault.times(1),
                    Times::Always => fault,
                };
                self.emulator.add_fault(fault.does(effect.clone()));
                None
            }
            Trouble::Door(way) => {
                let door = self.door(host);
                door.set(*way);
                let reopen = door.handle();
                (times == Times::Once).then(|| {
                    thread::spawn(move || {
                        thread::sleep(MOMENT);
                        reopen.open();
                    })
                })
            }
        }
    }

    fn door(&self, host: HostKind) -> &Door {
        let [useapi, runflow, asset] = self.doors.as_ref().expect("a scene with doors");
        match host {
            HostKind::Useapi => useapi,
            HostKind::Runflow => runflow,
            HostKind::Asset => asset,
        }
    }

    fn mend(&self) {
        self.emulator.clear_faults();
        for door in self.doors.iter().flatten() {
            door.set(Way::Open);
        }
    }

    /// What a program would do, and what it would see.
    fn act(&self, bench: &Bench, request: Request, prepared: Option<&(u64, u64)>) -> String {
        let is = |right: Result<bool, FsError>| match right {
            Ok(true) => "ok".to_string(),
            Ok(false) => "WRONG".to_string(),
            Err(error) => errno_name(&error),
        };
        match request {
            Request::ListRunway => {
                let listed = bench.ls(Library::RunwayVideo);
                is(listed.map(|names| {
                    names == ["c.mp4", "b.mp4", "a.mp4"] || names == ["a.mp4", "b.mp4", "c.mp4"]
                }))
            }
            Request::ListLtx => {
                let listed = bench.ls(Library::LtxVideos);
                is(listed.map(|names| names == [self.name.as_str()]))
            }
            Request::SizeLtx => {
                let found = bench.lookup(Library::LtxVideos, &self.name);
                is(found.map(|attr| attr.size_bytes == self.content.len()))
            }
            Request::AssetRunflow => {
                let read = bench
                    .lookup(Library::Runflow, &self.name)
                    .and_then(|attr| bench.read_part(attr.ino, 0, READ_BYTES));
                outcome_of(&read, &self.content, 0)
            }
            Request::Upload => {
                let bytes = self.content.read(0, self.content.len());
                is(bench
                    .copy_in(Library::RunwayVideo, &self.name, &bytes)
                    .map(|()| self.is_uploaded_once()))
            }
            Request::AssetRunway | Request::FirstRange => {
                let (_, fh) = prepared.expect("an open file");
                outcome_of(&bench.read(*fh, 0, READ_BYTES), &self.content, 0)
            }
            Request::LaterRange => {
                let (_, fh) = prepared.expect("an open file");
                let read = bench.read(*fh, LATER, READ_BYTES);
                outcome_of(&read, &self.content, LATER)
            }
        }
    }

    fn is_uploaded_once(&self) -> bool {
        let stored = self.emulator.runway_assets();
        stored.len() == 1
            && stored[0].name.as_deref() == Some(&self.name)
            && stored[0].size_bytes() == self.content.len()
            && stored[0].content.read(0, u64::MAX) == self.content.read(0, self.content.len())
    }

    /// Once nothing goes wrong any more, the same succeeds, without a remount.
    fn recovers(&self, bench: &Bench, request: Request, outcome: &str, seen: &mut Report) {
        let limit = Instant::now() + SLACK;
        if request == Request::Upload {
            // Never lost, and never twice, whatever the first close said.
            if bench.uploads.staged().is_empty() && !self.is_uploaded_once() {
                // It was refused before there was a file.
                self.act(bench, request, None);
            }
            bench.uploads.retry_failed();
            let all_sent = || {
                let staged = bench.uploads.staged();
                let sent = |state| matches!(state, UploadState::Uploaded { .. });
                staged.iter().all(|file| sent(file.state())) && self.is_uploaded_once()
            };
            while !all_sent() && Instant::now() < limit {
                thread::sleep(Duration::from_millis(5));
            }
            if !all_sent() {
                let held = self.emulator.runway_assets().len();
                seen.complain(&format!("afterwards the service has the file {held} times"));
            }
            return;
        }
        if outcome == "ok" {
            return;
        }
        loop {
            let again = match request {
                // What changed under an open file is for the next one.
                Request::AssetRunway | Request::FirstRange | Request::LaterRange => {
                    let read = bench
                        .lookup(Library::RunwayVideo, &self.name)
                        .and_then(|attr| bench.read_part(attr.ino, 0, READ_BYTES));
                    outcome_of(&read, &self.content, 0)
                }
                _ => self.act(bench, request, None),
            };
            if again == "ok" {
                return;
            }
            if Instant::now() > limit {
                return seen.complain(&format!("afterwards it is {again}"));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// A failure is told once, in words; nothing is a secret.
    fn look_at_log(&self, outcome: &str, seen: &mut Report) {
        let lines = logged::take();
        let secrets = self.secrets();
        for (_, line) in &lines {
            if secrets.iter().any(|secret| line.contains(secret)) {
                seen.complain("a secret is in the log");
            }
        }
        let told: Vec<&String> = lines
            .iter()
            .filter(|(level, _)| *level <= Level::Warn)
            .map(|(_, line)| line)
            .collect();
        // That something is not there is no failure.
        let failed = outcome != "ok" && outcome != "ENOENT";
        if failed && told.is_empty() {
            seen.complain("nothing is in the log");
        }
        if told.len() > MOST_LINES {
            seen.complain(&format!("{} lines in the log: {told:?}", told.len()));
        }
    }

    fn secrets(&self) -> Vec<String> {
        let mut secrets = vec![self.emulator.useapi_token(), self.emulator.runflow_token()];
        for request in self.emulator.requests() {
            if let (HostKind::Asset, Some((_, query))) =
                (request.host, request.path_and_query.split_once('?'))
            {
                secrets.push(query.to_string());
                let values = query.split('&').filter_map(|pair| pair.split_once('='));
                let long = values.filter(|(_, value)| value.len() >= 32);
                secrets.extend(long.map(|(_, value)| value.to_string()));
            }
        }
        secrets
    }
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

fn thread_names() -> String {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.collect::<Vec<_>>().join(" ")
}

fn largest_memory_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.unwrap().parse::<u64>().unwrap() << 10
}
