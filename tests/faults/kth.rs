//! Fail the k-th: a fixed day's work costs N requests; it is done again N times for each kind of
//! failure, each time with another of its requests failing. SQLite is tested so.
//!
//! What may pass must not be seen at all. What is a refusal may be an error of the one operation that
//! met it, and the same operation succeeds when it is done again. In the end the services hold what
//! the day's work makes, each upload once.

use std::collections::HashMap;
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use reelfs::emulator::{
    Content, Effect, Emulator, EmulatorConfig, Fault, HostKind, LtxAsset, RunflowAsset, RunwayAsset,
};
use reelfs::fs::FsError;
use reelfs::provider::Library;
use tempfile::TempDir;

use crate::bench::{Bench, HANG, Settings, errno_name};
use crate::support::noise;

const UUID: &str = "3c90c3cc-0d44-4b50-8888-8dd25736052a";
const VIDEO: Library = Library::RunwayVideo;
const IMAGE: Library = Library::RunwayImage;
/// Days at once; they mostly wait.
const AT_ONCE: usize = 16;
/// Far beyond what one failure costs.
const TOTAL: Duration = Duration::from_secs(40);

/// Which request fails: the so many-th of a host and a method.
#[derive(Debug, Clone)]
struct Kth {
    host: HostKind,
    method: String,
    nth: u64,
}

/// How it fails, and whether the operation may show it.
#[derive(Debug, Clone)]
struct Failure {
    effect: Effect,
    is_refusal: bool,
}

fn failures() -> Vec<Failure> {
    let passing = |effect| Failure {
        effect,
        is_refusal: false,
    };
    let refusal = |effect| Failure {
        effect,
        is_refusal: true,
    };
    vec![
        passing(Effect::DropBeforeAnswer),
        passing(Effect::AnswerLostAfterWork),
        passing(Effect::CutBodyAfter(1)),
        passing(Effect::html(502)),
        passing(Effect::Silent),
        refusal(Effect::status(401)),
        refusal(Effect::status(422)),
    ]
}

/// The services and one mount after the other over one state directory.
struct Day {
    emulator: Emulator,
    state: TempDir,
    settings: Settings,
    bench: Option<Bench>,
    old: Content,
    ltx: String,
}

impl Day {
    fn new() -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
        let old = Content::synthetic(100_000, 1);
        for name in ["old.mp4", "second.mp4"] {
            emulator.add_runway(RunwayAsset::named(name, old.clone()));
        }
        let ltx = emulator.add_ltx(LtxAsset::new("video/mp4", old.clone()));
        let runflow = RunflowAsset::new("a.mp4", "video/mp4", old.clone()).with_id(UUID);
        emulator.add_runflow(runflow);
        let mut settings = Settings::of(&emulator, TOTAL);
        settings.allow_delete = true;
        Self {
            emulator,
            state: tempfile::tempdir().unwrap(),
            settings,
            bench: None,
            old,
            ltx: format!("{ltx}.mp4"),
        }
    }

    fn mount(&mut self) {
        if let Some(bench) = self.bench.take() {
            bench.end();
        }
        self.bench = Some(Bench::mount(&self.emulator, &self.state, &self.settings));
    }

    fn bench(&self) -> &Bench {
        self.bench.as_ref().expect("it is mounted")
    }

    fn lists(&self, library: Library, wanted: &[&str]) -> Result<(), FsError> {
        let mut names = self.bench().ls(library)?;
        names.sort();
        assert_eq!(names, wanted, "{library}");
        Ok(())
    }

    fn reads(&self, library: Library, name: &str) -> Result<(), FsError> {
        let ino = self.bench().lookup(library, name)?.ino;
        let bytes = self.bench().read_part(ino, 0, 200_000)?;
        assert_eq!(bytes.len() as u64, self.old.len(), "{library}/{name}");
        assert!(self.old.verify(0, &bytes), "{library}/{name}");
        Ok(())
    }

    /// As an editor saves: under a name that stays here, then under the real one.
    fn saves(&self, name: &str, bytes: &[u8]) -> Result<(), FsError> {
        if self.bench().lookup(VIDEO, name).is_ok() {
            // The rename was done and told of its upload's failure.
            return self.bench().copy_in(VIDEO, name, bytes);
        }
        self.bench().copy_in(VIDEO, ".saving.mp4", bytes)?;
        self.bench().rename(VIDEO, ".saving.mp4", name)
    }

    fn deletes(&self, name: &str) -> Result<(), FsError> {
        match self.bench().unlink(VIDEO, name) {
            Err(FsError::NotFound) => Ok(()),
            other => other,
        }
    }

    /// The whole day. `step` does an operation as often as it is entitled to.
    fn work(&mut self, step: impl Fn(&str, &Bench, &dyn Fn() -> Result<(), FsError>)) {
        self.mount();
        step("ls runway", self.bench(), &|| {
            self.lists(VIDEO, &["old.mp4", "second.mp4"])
        });
        step("ls ltx", self.bench(), &|| {
            self.lists(Library::LtxVideos, &[&self.ltx])
        });
        step("ls audio", self.bench(), &|| {
            self.lists(Library::RunwayAudio, &[])
        });
        step("ls ltx images", self.bench(), &|| {
            self.lists(Library::LtxImages, &[])
        });
        step("read runway", self.bench(), &|| {
            self.reads(VIDEO, "old.mp4")
        });
        step("read ltx", self.bench(), &|| {
            self.reads(Library::LtxVideos, &self.ltx)
        });
        step("read runflow", self.bench(), &|| {
            self.reads(Library::Runflow, UUID)
        });
        step("copy", self.bench(), &|| {
            self.bench().copy_in(IMAGE, "new.png", &noise(30_000, 2))
        });
        step("save", self.bench(), &|| {
            self.saves("saved.mp4", &noise(40_000, 3))
        });
        step("delete", self.bench(), &|| self.deletes("second.mp4"));
        self.mount();
        // What the mount before could not send is sent now. While it is on its way, a listing may have
        // it already, beside the file here.
        self.until_sent();
        step("ls again", self.bench(), &|| {
            self.lists(VIDEO, &["old.mp4", "saved.mp4"])
        });
        step("ls images", self.bench(), &|| {
            self.lists(IMAGE, &["new.png"])
        });
        step("ls ltx again", self.bench(), &|| {
            self.lists(Library::LtxVideos, &[&self.ltx])
        });
        step("read ltx again", self.bench(), &|| {
            self.reads(Library::LtxVideos, &self.ltx)
        });
        step("read again", self.bench(), &|| self.reads(VIDEO, "old.mp4"));
        step("copy again", self.bench(), &|| {
            self.bench().copy_in(IMAGE, "new.png", &noise(30_000, 4))
        });
        step("read runflow again", self.bench(), &|| {
            self.reads(Library::Runflow, UUID)
        });
    }

    fn until_sent(&self) {
        let uploads = &self.bench().uploads;
        let limit = Instant::now() + HANG;
        // Until the file system has heard of the last one, too.
        while !uploads.staged().is_empty() {
            assert!(Instant::now() < limit, "{:?}", uploads.statuses());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What the services hold is what the day made, each once.
    fn check(&self) {
        self.bench().uploads.retry_failed();
        self.until_sent();
        let mut held: Vec<(String, Vec<u8>)> = self
            .emulator
            .runway_assets()
            .into_iter()
            .map(|asset| (asset.name.unwrap(), asset.content.read(0, u64::MAX)))
            .collect();
        held.sort();
        let mut wanted = vec![
            ("new.png".to_string(), noise(30_000, 2)),
            ("new.png".to_string(), noise(30_000, 4)),
            ("old.mp4".to_string(), self.old.read(0, self.old.len())),
            ("saved.mp4".to_string(), noise(40_000, 3)),
        ];
        wanted.sort();
        let names = |held: &[(String, Vec<u8>)]| -> Vec<String> {
            held.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&held), names(&wanted));
        assert!(held == wanted, "other bytes");
        assert_eq!(self.emulator.refusals().tokens, 0);
    }
}

/// The requests of a day on which nothing fails.
fn requests() -> Vec<Kth> {
    let mut day = Day::new();
    day.work(|what, _, operation| {
        operation().unwrap_or_else(|error| panic!("{what}: {error}"));
    });
    day.check();
    let mut seen: HashMap<(HostKind, String), u64> = HashMap::new();
    let requests = day.emulator.requests().into_iter();
    requests
        .map(|request| {
            let (host, method) = (request.host, request.method);
            let nth = seen.entry((host, method.clone())).or_default();
            *nth += 1;
            let nth = *nth;
            Kth { host, method, nth }
        })
        .collect()
}

fn fail(kth: &Kth, failure: &Failure) {
    let what = format!("{kth:?}, {:?}", failure.effect);
    let mut day = Day::new();
    let fault = Fault::at(kth.host).method(&kth.method);
    let fault = fault.skip(kth.nth - 1).times(1);
    day.emulator.add_fault(fault.does(failure.effect.clone()));
    day.work(|step, bench, operation| {
        let Err(error) = operation() else {
            return;
        };
        let errno = errno_name(&error);
        assert!(failure.is_refusal, "{what}: {step} is {errno}: {error}");
        let allowed = ["EACCES", "EIO"].contains(&errno.as_str());
        assert!(allowed, "{what}: {step} is {errno}: {error}");
        // Uploads of a refused account are asked for once a minute, or now: `reelfs retry`.
        bench.uploads.resume();
        // A failed read stands for a second, for the kernel's second try.
        let limit = Instant::now() + HANG;
        while let Err(error) = operation() {
            assert!(Instant::now() < limit, "{what}: {step} stays {error}");
            thread::sleep(Duration::from_millis(20));
        }
    });
    day.check();
    assert_eq!(day.emulator.fault_hits(), 1, "{what}: it never came to it");
    if let Some(bench) = day.bench.take() {
        bench.end();
    }
}

#[test]
fn whichever_one_request_fails_the_days_work_is_done() {
    let requests = requests();
    let mut runs: Vec<(Kth, Failure)> = Vec::new();
    for failure in failures() {
        for kth in &requests {
            // An upload that was sent whole is given two minutes for its answer, as gateways take
            // them; `matrix` has a silent host that does not take the whole.
            if !(kth.method == "POST" && failure.effect == Effect::Silent) {
                runs.push((kth.clone(), failure.clone()));
            }
        }
    }
    println!("{} requests, {} runs", requests.len(), runs.len());
    assert!(requests.len() > 20, "the day is a full one");
    let left = Mutex::new(runs);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some((kth, failure)) = left.lock().unwrap().pop() else {
                        return;
                    };
                    let what = format!("{kth:?}: {:?}", failure.effect);
                    let failed = catch_unwind(|| fail(&kth, &failure)).is_err();
                    assert!(!failed, "{what}");
                }
            });
        }
    });
}
