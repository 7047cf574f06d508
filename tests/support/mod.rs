//! A studio on this machine: the emulated services, a home directory, and the real program
//! mounted in the foreground, driven by real programs. Needs /dev/fuse.
//!
//! `studio.sh("cp a.png $MNT/runway/image/")` runs a shell script in `$HERE`, a directory of
//! local files. Nothing is skipped: a program that is missing fails the test and is named with
//! its package. Everything ends with the [`Studio`]; a test that fails prints the mount's log.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use reelfs::emulator::{Content, Emulator, EmulatorConfig, HostKind, StoredAsset};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Longer than anything here takes on a busy machine; only a failure waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often another process is looked at.
const GLANCE: Duration = Duration::from_millis(3);

/// Programs that the tests drive, with their Debian packages.
const PACKAGES: &[(&str, &str)] = &[
    ("rsync", "rsync"),
    ("ffprobe", "ffmpeg"),
    ("ffmpeg", "ffmpeg"),
    ("mpv", "mpv"),
    ("gio", "libglib2.0-bin"),
    ("gdbus", "libglib2.0-bin"),
    ("dbus-run-session", "dbus-daemon"),
    ("dbus-monitor", "dbus-bin"),
    ("getfattr", "attr"),
    ("setfattr", "attr"),
    ("python3", "python3"),
    ("tar", "tar"),
    ("cmp", "diffutils"),
    ("ps", "procps"),
    ("findmnt", "mount"),
    ("unshare", "util-linux"),
    ("ip", "iproute2"),
    ("setpriv", "util-linux"),
    ("systemd-analyze", "systemd"),
    ("fusermount3", "fuse3"),
];

/// See the module's head.
pub struct Studio {
    pub services: Emulator,
    home: tempfile::TempDir,
    flags: Mutex<Vec<String>>,
    environment: Vec<(String, String)>,
    daemon: Mutex<Option<Child>>,
}

impl Studio {
    /// Empty libraries, mounted.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// Empty libraries, mounted with these flags.
    pub fn with(flags: &[&str]) -> Self {
        let studio = Self::unmounted(EmulatorConfig::default());
        studio.mount_with(flags);
        studio
    }

    /// Services with a configuration of their own; nothing mounted yet.
    pub fn unmounted(config: EmulatorConfig) -> Self {
        Self::over(Emulator::start(config).expect("the services start"))
    }

    /// The demo's library; nothing mounted yet.
    pub fn sampled() -> Self {
        let services = Emulator::with_sample_library(EmulatorConfig::default());
        Self::over(services.expect("the services start"))
    }

    fn over(services: Emulator) -> Self {
        let home = tempfile::Builder::new()
            .prefix("reelfs-studio-")
            .tempdir()
            .expect("a temporary directory");
        for directory in ["mnt", "here", "state", "config"] {
            fs::create_dir(home.path().join(directory)).unwrap();
        }
        let environment = [
            ("USEAPI_TOKEN", services.useapi_token()),
            ("RUNFLOW_TOKEN", services.runflow_token()),
            ("REELFS_USEAPI_URL", services.useapi_url()),
            ("REELFS_RUNFLOW_URL", services.runflow_url()),
            ("REELFS_UNMOUNT_TIMEOUT", "20s".to_string()),
        ];
        Self {
            services,
            home,
            flags: Mutex::new(Vec::new()),
            environment: environment
                .map(|(name, value)| (name.to_string(), value))
                .to_vec(),
            daemon: Mutex::new(None),
        }
    }

    /// A variable of the program's environment from the next mount on; empty means unset.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_string(), value.to_string()));
        self
    }

    /// Writes the settings into the configuration file too, so that scripts can run `$REELFS`.
    pub fn configure(&self) {
        use std::os::unix::fs::PermissionsExt;
        let services = &self.services;
        let settings = [
            ("useapi_token", services.useapi_token()),
            ("runflow_token", services.runflow_token()),
            ("useapi_url", services.useapi_url()),
            ("runflow_url", services.runflow_url()),
        ];
        let lines = settings.map(|(name, value)| format!("{name} = \"{value}\"\n"));
        let path = self.home.path().join("config/reelfs/config.toml");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, lines.concat()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    // ---- places ----

    /// `$MNT/...`
    pub fn at(&self, inside: &str) -> PathBuf {
        self.home.path().join("mnt").join(inside)
    }

    /// `$HERE/...`
    pub fn here(&self, name: &str) -> PathBuf {
        self.home.path().join("here").join(name)
    }

    pub fn state_dir(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// Puts a file into `$HERE`.
    pub fn make(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.here(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    // ---- the mount ----

    /// Mounts with these flags, which later mounts have too.
    pub fn mount_with(&self, flags: &[&str]) {
        let flags = flags.iter().map(|flag| flag.to_string()).collect();
        *self.flags.lock().unwrap() = flags;
        self.mount();
    }

    /// Mounts and returns when the mount answers.
    pub fn mount(&self) {
        self.start();
        until("the mount answers", || {
            assert!(self.daemon_runs(), "the mount ended: {}", self.log());
            // Not empty: between a dead mount and the new one the bare directory shows.
            let shown = fs::read_dir(self.at(""));
            self.is_mounted() && shown.is_ok_and(|mut names| names.next().is_some())
        });
    }

    /// Starts the program and waits for nothing.
    pub fn start(&self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let child = self
            .program()
            .args(["mount", "-f"])
            .arg(self.at(""))
            .args(&*self.flags.lock().unwrap())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        *self.daemon.lock().unwrap() = Some(child);
    }

    /// Ends the mount as `kill` does, and waits for it.
    pub fn unmount(&self) {
        self.signal(Signal::TERM);
        let mut daemon = self.daemon.lock().unwrap();
        let child = daemon.as_mut().expect("mounted");
        let mut status = None;
        until("the mount ends", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        *daemon = None;
        assert!(status.unwrap().success(), "{}", self.log());
        assert!(!self.is_mounted());
    }

    pub fn remount(&self) {
        self.unmount();
        self.mount();
    }

    /// As `kill -9` does; leaves a dead mount.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        let mut child = self.daemon.lock().unwrap().take().expect("mounted");
        assert!(ends_within(&mut child, PATIENCE), "it can't be killed");
    }

    pub fn signal(&self, signal: Signal) {
        let daemon = self.daemon.lock().unwrap();
        let child = daemon.as_ref().expect("mounted");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    pub fn daemon_runs(&self) -> bool {
        let mut daemon = self.daemon.lock().unwrap();
        daemon
            .as_mut()
            .is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Whether a thread of the program waits in a function of the kernel whose name begins so.
    pub fn daemon_waits_in(&self, function: &str) -> bool {
        let daemon = self.daemon.lock().unwrap();
        let id = daemon.as_ref().expect("mounted").id();
        let threads = fs::read_dir(format!("/proc/{id}/task"));
        threads.into_iter().flatten().flatten().any(|thread| {
            let place = fs::read_to_string(thread.path().join("wchan"));
            place.is_ok_and(|place| place.starts_with(function))
        })
    }

    pub fn is_mounted(&self) -> bool {
        let point = self.home.path().join("mnt");
        let point = format!(" {} ", point.display());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.lines().any(|line| line.contains(&point))
    }

    /// What the mounts of this studio logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("log")
    }

    // ---- programs ----

    /// The real program with this studio's environment and nothing else.
    pub fn program(&self) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_reelfs"));
        let given = self.environment.iter();
        for (name, value) in given {
            match value.is_empty() {
                true => command.env_remove(name),
                false => command.env(name, value),
            };
        }
        command
    }

    /// Runs the program; what it said and its exit code.
    pub fn reelfs(&self, arguments: &[&str]) -> Output {
        let program = self.program().args(arguments).output();
        program.expect("the program starts")
    }

    /// Runs the program, which must fail with exit code 1; the one line that it said.
    pub fn reelfs_fails(&self, arguments: &[&str]) -> String {
        let output = self.reelfs(arguments);
        assert_eq!(output.status.code(), Some(1), "{}", describe(&output));
        let said = text(&output.stderr);
        assert_eq!(said.lines().count(), 1, "{said}");
        said.trim_end().to_string()
    }

    /// Runs a shell script that must succeed; what it printed, without the last line's end.
    pub fn sh(&self, script: &str) -> String {
        let output = self.spawn(script).output();
        assert!(output.status.success(), "{script}: {}", describe(&output));
        text(&output.stdout).trim_end().to_string()
    }

    /// Runs a shell script that must fail; what it said on stderr.
    pub fn sh_fails(&self, script: &str) -> String {
        let output = self.spawn(script).output();
        let failed = output.status.code().is_some_and(|code| code != 0);
        assert!(failed, "{script} did not fail: {}", describe(&output));
        text(&output.stderr).trim_end().to_string()
    }

    /// Starts a shell script. `exec` in it makes the program itself what signals reach.
    pub fn spawn(&self, script: &str) -> Running {
        use std::os::unix::process::CommandExt;
        let child = self
            .command("/bin/sh")
            .args(["-c", &format!("set -e; {script}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("sh starts");
        Running::new(child, script)
    }

    fn command(&self, program: &str) -> Command {
        let home = self.home.path();
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", home)
            .env("XDG_STATE_HOME", home.join("state"))
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("GIO_USE_VFS", "local")
            .env("RUST_LOG", "warn,reelfs=debug")
            .env("REELFS", env!("CARGO_BIN_EXE_reelfs"))
            .env("MNT", home.join("mnt"))
            .env("HERE", home.join("here"))
            .current_dir(home.join("here"));
        command
    }

    // ---- what the services saw ----

    /// Requests so far, as `GET /v1/runwayml/assets/?offset=0...`.
    pub fn requests(&self, host: HostKind) -> Vec<String> {
        let all = self.services.requests().into_iter();
        all.filter(|request| request.host == host)
            .map(|request| format!("{} {}", request.method, request.path_and_query))
            .collect()
    }

    /// What Runway holds under this name, whichever order.
    pub fn uploads_named(&self, name: &str) -> Vec<StoredAsset> {
        let assets = self.services.runway_assets().into_iter();
        assets
            .filter(|asset| asset.name.as_deref() == Some(name))
            .collect()
    }

    /// The one asset of this name.
    pub fn uploaded(&self, name: &str) -> StoredAsset {
        let mut found = self.uploads_named(name);
        assert_eq!(found.len(), 1, "assets named {name}");
        found.remove(0)
    }
}

impl Drop for Studio {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("---- the mount's log ----\n{}", self.log());
        }
        let Some(mut child) = self.daemon.lock().unwrap_or_else(|e| e.into_inner()).take() else {
            return self.detach();
        };
        // A second signal does not wait for uploads; a test may have left one that can't end.
        for signal in [Signal::TERM, Signal::TERM, Signal::KILL] {
            let _ = kill_process(Pid::from_child(&child), signal);
            if ends_within(&mut child, Duration::from_secs(3)) {
                break;
            }
        }
        // Before it is waited for, which a thread that waits for the mount would keep from ending.
        self.detach();
        let _ = child.wait();
    }
}

impl Studio {
    /// Or the directory can't be removed.
    fn detach(&self) {
        if self.is_mounted() {
            let point = self.home.path().join("mnt");
            let _ = Command::new("umount").arg("-fl").arg(point).status();
        }
    }
}

fn ends_within(child: &mut Child, limit: Duration) -> bool {
    let limit = Instant::now() + limit;
    while Instant::now() < limit {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        thread::sleep(GLANCE);
    }
    false
}

/// A script that runs, in a process group of its own, until it is dropped.
pub struct Running {
    pid: Pid,
    script: String,
    ended: Receiver<Output>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // What still runs would run on after the test.
        if matches!(self.ended.try_recv(), Err(TryRecvError::Empty)) {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }
}

impl Running {
    fn new(child: Child, script: &str) -> Self {
        let pid = Pid::from_child(&child);
        let (send, ended) = mpsc::channel();
        thread::spawn(move || {
            let _ = send.send(child.wait_with_output().expect("its pipes can be read"));
        });
        Self {
            pid,
            script: script.to_string(),
            ended,
        }
    }

    /// Waits for its end.
    pub fn output(self) -> Output {
        let output = match self.ended.recv_timeout(PATIENCE) {
            Ok(output) => output,
            Err(RecvTimeoutError::Timeout) => {
                let _ = kill_process_group(self.pid, Signal::KILL);
                panic!("{}: still runs after {PATIENCE:?}", self.script);
            }
            Err(RecvTimeoutError::Disconnected) => panic!("{}: lost", self.script),
        };
        require_installed(&output);
        output
    }

    /// Waits for a success.
    pub fn succeeds(self) -> String {
        let script = self.script.clone();
        let output = self.output();
        assert!(output.status.success(), "{script}: {}", describe(&output));
        text(&output.stdout).trim_end().to_string()
    }

    /// The signal that ended it.
    pub fn ended_by(self) -> Option<i32> {
        self.output().status.signal()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("it runs");
    }

    /// Whether its first thread sleeps until the mount answers it.
    pub fn waits_for_the_mount(&self) -> bool {
        waits_for_a_mount(&self.pid.as_raw_nonzero().to_string())
    }

    /// How many processes that the script started, and left in its group, sleep until the mount
    /// answers them.
    pub fn waiting(&self) -> usize {
        let group = self.pid.as_raw_nonzero().to_string();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter_map(|process| process.file_name().into_string().ok())
            .filter(|process| process.bytes().all(|b| b.is_ascii_digit()))
            .filter(|process| group_of(process).as_deref() == Some(&group))
            .filter(|process| waits_for_a_mount(process))
            .count()
    }

    /// Signals every process of the script.
    pub fn signal_all(&self, signal: Signal) {
        kill_process_group(self.pid, signal).expect("it runs");
    }

    pub fn is_running(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.pid.as_raw_nonzero()))
            .is_ok_and(|stat| !stat.contains(") Z"))
    }
}

fn waits_for_a_mount(process: &str) -> bool {
    let place = fs::read_to_string(format!("/proc/{process}/wchan")).unwrap_or_default();
    let places = [
        "folio_wait",
        "folio_lock",
        "request_wait_answer",
        "fuse_get_req",
    ];
    places.iter().any(|known| place.contains(known))
}

/// The process group of a process that runs.
fn group_of(process: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, behind_name) = stat.rsplit_once(") ")?;
    behind_name.split(' ').nth(2).map(str::to_string)
}

/// A shell says 127 for what it doesn't find.
fn require_installed(output: &Output) {
    let said = text(&output.stderr);
    for (program, package) in PACKAGES {
        if said.contains(&format!("{program}: not found")) {
            panic!("{program} is missing: apt-get install {package}");
        }
    }
    if said.contains("No module named 'prometheus_client'") {
        panic!("a module is missing: apt-get install python3-prometheus-client");
    }
}

fn describe(output: &Output) -> String {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    format!("{}\n{stdout}\n{stderr}", output.status)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Looks again and again, for what another process does.
pub fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < limit, "waited too long until {what}");
        thread::sleep(GLANCE);
    }
}

/// `size_bytes` pseudo-random bytes, the same for the same seed.
pub fn noise(size_bytes: u64, seed: u64) -> Vec<u8> {
    Content::synthetic(size_bytes, seed).read(0, size_bytes)
}

/// The errno of an operation that must fail.
pub fn errno<T>(outcome: std::io::Result<T>) -> i32 {
    match outcome {
        Ok(_) => panic!("it did not fail"),
        Err(error) => error.raw_os_error().expect("an errno"),
    }
}

/// The names in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("the directory can be read");
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
