//! The life of a mount, with real mounts of a file system that holds one file: mounting,
//! answering, stopping, draining, crashing, unmounting. Needs /dev/fuse.
//!
//! A test that needs a process of its own (signals, kill -9, the background process) starts this
//! test binary again for itself alone, with [`ROLE`] in its environment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::exit)]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, Request,
};
use reelfs::cli::Settings;
use reelfs::config::{Config, Purpose};
use reelfs::mount::{self, Events, MountError, Stack, Stopper, Urgency};

/// Longer than anything here takes on a busy machine; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

const ROLE: &str = "REELFS_TEST_ROLE";
const WORDS: &[u8] = b"one file\n";

// ---- the file system ----

struct OneFile;

fn attr(ino: INodeNo) -> FileAttr {
    let root = ino == INodeNo::ROOT;
    FileAttr {
        ino,
        size: WORDS.len() as u64,
        blocks: 1,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if root {
            FileType::Directory
        } else {
            FileType::RegularFile
        },
        perm: if root { 0o755 } else { 0o644 },
        nlink: 1,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for OneFile {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name == "file" {
            true => reply.entry(&Duration::ZERO, &attr(INodeNo(2)), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::ZERO, &attr(ino));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        _: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(WORDS.get(offset as usize..).unwrap_or_default());
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        if offset == 0 {
            let _ = reply.add(INodeNo(2), 1, FileType::RegularFile, "file");
        }
        reply.ok();
    }
}

/// A stack whose shutdown tells that it began and returns when it may.
struct TestStack {
    began: Sender<()>,
    may_end: Mutex<Receiver<()>>,
}

impl Stack for TestStack {
    type Fs = OneFile;

    fn filesystem(&mut self) -> OneFile {
        OneFile
    }

    fn mounted(&self, _: fuser::Notifier) {}

    fn shutdown(&self, _: Duration) -> Vec<String> {
        let _ = self.began.send(());
        // An error means that the test dropped its end: go on.
        let _ = self.may_end.lock().unwrap().recv();
        Vec::new()
    }
}

/// A stack for a process of its own: its shutdown takes as long as the file `uploading` is there.
struct UploadingStack(PathBuf);

impl Stack for UploadingStack {
    type Fs = OneFile;

    fn filesystem(&mut self) -> OneFile {
        OneFile
    }

    fn mounted(&self, _: fuser::Notifier) {}

    fn shutdown(&self, _: Duration) -> Vec<String> {
        fs::write(self.0.join("draining"), "").unwrap();
        until("the upload ends", || !self.0.join("uploading").exists());
        fs::write(self.0.join("drained"), "").unwrap();
        Vec::new()
    }
}

// ---- the vocabulary ----

/// A directory with a mount point and a state directory; unmounts whatever is left at the end.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        assert!(
            Path::new("/dev/fuse").exists(),
            "these tests need /dev/fuse: run `modprobe fuse`"
        );
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        Self { dir }
    }

    fn point(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("mnt")
    }

    fn config(&self) -> Config {
        config_in(self.dir.path(), Settings::default())
    }

    fn serve(&self) -> Served {
        self.serve_with(self.config())
    }

    /// Serves in a thread and returns when the mount answers.
    fn serve_with(&self, config: Config) -> Served {
        let (began_send, began) = channel();
        let (may_end, may_end_receive) = channel();
        let stack = TestStack {
            began: began_send,
            may_end: Mutex::new(may_end_receive),
        };
        let events = Events::new();
        let stopper = events.stopper();
        let point = mount::check(&self.point(), &config).unwrap();
        let (ready_send, ready) = channel();
        let (done_send, done) = channel();
        let thread = thread::spawn(move || {
            let ready = || ready_send.send(()).unwrap();
            let _ = done_send.send(mount::serve(&config, &point, stack, events, ready));
        });
        ready.recv_timeout(PATIENCE).expect("the mount answers");
        Served {
            stopper,
            began,
            may_end,
            done,
            thread,
        }
    }

    fn is_mounted(&self) -> bool {
        !self.mountinfo_line().is_empty()
    }

    fn mountinfo_line(&self) -> String {
        let point = format!(" {} ", self.point().display());
        let list = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = list.lines().find(|line| line.contains(&point));
        line.unwrap_or_default().to_string()
    }

    fn unmount(&self, urgency: Urgency) -> Result<(), MountError> {
        mount::unmount(&self.point(), urgency, &self.state(), &mut |_| ())
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Starts this test binary again for `test` alone.
    fn respawn(&self, test: &str, role: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([test, "--exact", "--nocapture", "--quiet"])
            .env(ROLE, role)
            .env("REELFS_TEST_DIR", self.dir.path());
        command
    }

    /// A process that serves the mount point in its foreground; returns when it answers.
    fn serving_process(&self, test: &str) -> Child {
        let child = self
            .respawn(test, "foreground")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("the process serves", || self.point().join("file").exists());
        child
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A failed test must not leave a mount, or the directory can't be removed.
        if self.is_mounted() {
            let _ = Command::new("umount").arg("-l").arg(self.point()).status();
        }
    }
}

/// A mount in this process.
struct Served {
    stopper: Stopper,
    began: Receiver<()>,
    may_end: Sender<()>,
    done: Receiver<Result<(), MountError>>,
    thread: JoinHandle<()>,
}

impl Served {
    fn await_shutdown(&self) {
        self.began
            .recv_timeout(PATIENCE)
            .expect("shutdown is called");
    }

    fn finish(self) -> Result<(), MountError> {
        drop(self.may_end);
        let result = self.done.recv_timeout(PATIENCE).expect("serve returns");
        self.thread.join().unwrap();
        result
    }
}

fn config_in(dir: &Path, mut settings: Settings) -> Config {
    settings.state_dir = Some(dir.join("state"));
    let home = dir.as_os_str().to_os_string();
    let environment = move |name: &str| (name == "HOME").then(|| home.clone());
    Config::resolve(&settings, &environment, Purpose::Demo).unwrap()
}

/// Looks again and again, for what another process does.
fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < limit, "waited too long until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}

fn exits_0(child: &mut Child) {
    let mut status = None;
    until("the process ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success(), "{status:?}");
}

/// umount(8), again while it is busy: another test's fork holds our files until its exec.
fn umount(path: &Path) {
    until("umount succeeds", || {
        let output = Command::new("umount").arg(path).output().unwrap();
        output.status.success()
    });
}

/// In a process that [`World::respawn`] started: plays its role and returns true.
fn plays_role() -> bool {
    let Ok(role) = std::env::var(ROLE) else {
        return false;
    };
    let dir = PathBuf::from(std::env::var_os("REELFS_TEST_DIR").unwrap());
    let (point, config) = (dir.join("mnt"), config_in(&dir, Settings::default()));
    let build = |_: &Config, _: &Path| Ok(UploadingStack(dir.clone()));
    if mount::is_child() {
        match role.as_str() {
            "fails" => {
                let build = |_: &Config, _: &Path| anyhow::bail!("no\nluck today");
                let failed: anyhow::Result<()> =
                    mount::run_as_child::<UploadingStack>(&point, &config, build);
                assert!(failed.is_err());
            }
            "dies" => std::process::exit(7),
            _ => mount::run_as_child(&point, &config, build).unwrap(),
        }
        return true;
    }
    match role.as_str() {
        "foreground" => mount::run_in_foreground(&point, &config, build).unwrap(),
        _ => match mount::run_in_background(&point, &config) {
            Ok(log) => println!("\nMOUNTED {}", log.display()),
            Err(error) => println!("\nREFUSED {error}"),
        },
    }
    true
}

/// What the launching process printed after `word`.
fn printed(output: &std::process::Output, word: &str) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(word));
    line.unwrap_or_else(|| panic!("no {word} in {text}"))
        .trim()
        .to_string()
}

// ---- in this process ----

#[test]
fn a_ready_mount_lists_and_reads_and_ends_when_unmounted_from_outside() {
    let world = World::new();
    let served = world.serve();
    assert_eq!(fs::read(world.point().join("file")).unwrap(), WORDS);
    assert_eq!(fs::read_dir(world.point()).unwrap().count(), 1);
    umount(&world.point());
    served.await_shutdown();
    served.finish().unwrap();
    assert!(!world.is_mounted());
}

#[test]
fn a_stop_lets_the_shutdown_finish_before_the_mount_goes() {
    let world = World::new();
    let served = world.serve();
    served.stopper.stop("test");
    served.await_shutdown();
    assert_eq!(fs::read(world.point().join("file")).unwrap(), WORDS);
    served.finish().unwrap();
    assert!(!world.is_mounted());
}

#[test]
fn a_second_stop_does_not_wait_for_the_shutdown() {
    let world = World::new();
    let served = world.serve();
    served.stopper.stop("test");
    served.await_shutdown();
    served.stopper.stop("test");
    let result = served.done.recv_timeout(PATIENCE).expect("serve returns");
    result.unwrap();
    assert!(!world.is_mounted());
}

#[test]
fn a_shutdown_that_outlasts_the_unmount_timeout_is_not_waited_for() {
    let world = World::new();
    let mut config = world.config();
    config.unmount_timeout = Duration::ZERO;
    let served = world.serve_with(config);
    served.stopper.stop("test");
    let result = served.done.recv_timeout(PATIENCE).expect("serve returns");
    result.unwrap();
    assert!(!world.is_mounted());
}

#[test]
fn a_stop_frees_the_mount_point_even_while_a_file_is_open() {
    let world = World::new();
    let served = world.serve();
    let _open = fs::File::open(world.point().join("file")).unwrap();
    served.stopper.stop("test");
    served.finish().unwrap();
    assert!(!world.is_mounted());
}

#[test]
fn the_mount_has_the_options_that_were_asked_for() {
    let world = World::new();
    let settings = Settings {
        read_only: Some("true".into()),
        ..Settings::default()
    };
    let served = world.serve_with(config_in(world.dir.path(), settings));
    let line = world.mountinfo_line();
    for option in [
        " ro,",
        "nosuid",
        "nodev",
        "noatime",
        "default_permissions",
        " reelfs ",
    ] {
        assert!(line.contains(option), "{option}: {line}");
    }
    let error = fs::write(world.point().join("new"), "x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    served.stopper.stop("test");
    served.finish().unwrap();
}

#[test]
fn others_are_let_in_or_the_line_that_fuse_conf_lacks_is_named() {
    let world = World::new();
    let settings = Settings {
        allow_other: Some("true".into()),
        ..Settings::default()
    };
    let config = config_in(world.dir.path(), settings);
    let fuse_conf = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    let allowed = rustix::process::geteuid().is_root()
        || fuse_conf.lines().any(|line| line == "user_allow_other");
    if !allowed {
        let error = mount::check(&world.point(), &config).unwrap_err();
        assert!(error.to_string().contains("`user_allow_other`"), "{error}");
        return;
    }
    let served = world.serve_with(config);
    assert!(world.mountinfo_line().contains("allow_other"));
    served.stopper.stop("test");
    served.finish().unwrap();
}

#[test]
fn a_mount_point_in_use_by_reelfs_is_refused_with_the_command_that_frees_it() {
    let world = World::new();
    let served = world.serve();
    let error = mount::check(&world.point(), &world.config()).unwrap_err();
    let remedy = format!("reelfs unmount {}", world.point().display());
    assert!(error.to_string().ends_with(&remedy), "{error}");
    served.stopper.stop("test");
    served.finish().unwrap();
}

#[test]
fn unmounting_a_busy_mount_names_who_holds_it_and_force_detaches_it() {
    let world = World::new();
    let served = world.serve();
    let open = fs::File::open(world.point().join("file")).unwrap();
    let error = world.unmount(Urgency::WhenIdle).unwrap_err().to_string();
    let me = format!("({})", std::process::id());
    assert!(error.contains(&me) && error.contains("--force"), "{error}");
    assert!(world.is_mounted());
    world.unmount(Urgency::Lazily).unwrap();
    assert!(!world.is_mounted());
    drop(open);
    served.finish().unwrap();
}

#[test]
fn unmounting_what_is_not_mounted_or_not_ours_is_refused() {
    let world = World::new();
    let error = world.unmount(Urgency::WhenIdle).unwrap_err();
    assert!(matches!(error, MountError::NotMounted(_)), "{error}");
    let proc = mount::unmount(
        Path::new("/proc"),
        Urgency::WhenIdle,
        &world.state(),
        &mut |_| (),
    );
    assert!(matches!(proc, Err(MountError::NotOurs { .. })), "{proc:?}");
}

// ---- in processes of their own ----

#[test]
fn sigterm_unmounts_and_exits_0() {
    if plays_role() {
        return;
    }
    let world = World::new();
    let mut child = world.serving_process("sigterm_unmounts_and_exits_0");
    signal(&child, rustix::process::Signal::TERM);
    exits_0(&mut child);
    assert!(!world.is_mounted());
}

#[test]
fn sigint_waits_for_uploads_and_a_second_one_does_not() {
    if plays_role() {
        return;
    }
    let world = World::new();
    fs::write(world.dir.path().join("uploading"), "").unwrap();
    let mut child = world.serving_process("sigint_waits_for_uploads_and_a_second_one_does_not");
    signal(&child, rustix::process::Signal::INT);
    until("the shutdown begins", || {
        world.dir.path().join("draining").exists()
    });
    assert!(world.point().join("file").exists());
    signal(&child, rustix::process::Signal::INT);
    exits_0(&mut child);
    assert!(!world.is_mounted());
    assert!(!world.dir.path().join("drained").exists());
}

#[test]
fn a_killed_process_leaves_a_dead_mount_that_unmount_clears() {
    if plays_role() {
        return;
    }
    let world = World::new();
    let mut child =
        world.serving_process("a_killed_process_leaves_a_dead_mount_that_unmount_clears");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(world.is_mounted());
    assert!(fs::read_dir(world.point()).is_err());
    world.unmount(Urgency::WhenIdle).unwrap();
    assert!(!world.is_mounted());
}

#[test]
fn a_killed_process_leaves_a_dead_mount_that_the_next_mount_clears() {
    if plays_role() {
        return;
    }
    let world = World::new();
    let mut child =
        world.serving_process("a_killed_process_leaves_a_dead_mount_that_the_next_mount_clears");
    child.kill().unwrap();
    child.wait().unwrap();
    let served = world.serve();
    assert_eq!(fs::read(world.point().join("file")).unwrap(), WORDS);
    served.stopper.stop("test");
    served.finish().unwrap();
    assert!(!world.is_mounted());
}

#[test]
fn unmount_returns_when_the_uploads_are_done() {
    if plays_role() {
        return;
    }
    let world = World::new();
    let uploading = world.dir.path().join("uploading");
    fs::write(&uploading, "").unwrap();
    let mut child = world.serving_process("unmount_returns_when_the_uploads_are_done");
    let (point, state) = (world.point(), world.state());
    let unmounting = Arc::new(thread::spawn(move || {
        mount::unmount(&point, Urgency::WhenIdle, &state, &mut |_| ()).unwrap();
    }));
    until("the mount is gone", || !world.is_mounted());
    assert!(!unmounting.is_finished());
    assert!(child.try_wait().unwrap().is_none());
    fs::remove_file(&uploading).unwrap();
    Arc::into_inner(unmounting).unwrap().join().unwrap();
    assert!(world.dir.path().join("drained").exists());
    exits_0(&mut child);
}

#[test]
fn the_background_process_keeps_no_pipe_of_its_caller_and_logs_to_a_private_file() {
    const NAME: &str =
        "the_background_process_keeps_no_pipe_of_its_caller_and_logs_to_a_private_file";
    if plays_role() {
        return;
    }
    let world = World::new();
    // `output` returns when both pipes are closed, so it hangs if the process kept one.
    let output = world.respawn(NAME, "background").output().unwrap();
    let log = PathBuf::from(printed(&output, "MOUNTED"));
    assert_eq!(fs::read(world.point().join("file")).unwrap(), WORDS);
    assert!(log.starts_with(world.state().join("log")));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        fs::metadata(&log).unwrap().permissions().mode() & 0o777,
        0o600
    );
    world.unmount(Urgency::WhenIdle).unwrap();
    assert!(world.dir.path().join("drained").exists());
}

#[test]
fn a_second_background_process_is_refused_with_the_firsts_remedy() {
    if plays_role() {
        return;
    }
    let world = World::new();
    let again = || {
        let name = "a_second_background_process_is_refused_with_the_firsts_remedy";
        world.respawn(name, "background").output().unwrap()
    };
    printed(&again(), "MOUNTED");
    let refusal = printed(&again(), "REFUSED");
    assert!(refusal.contains("already mounted"), "{refusal}");
    world.unmount(Urgency::WhenIdle).unwrap();
}

#[test]
fn a_background_process_that_fails_tells_its_caller_in_one_line() {
    if plays_role() {
        return;
    }
    let world = World::new();
    let name = "a_background_process_that_fails_tells_its_caller_in_one_line";
    let output = world.respawn(name, "fails").output().unwrap();
    assert_eq!(printed(&output, "REFUSED"), "no luck today");
    assert!(!world.is_mounted());
}

#[test]
fn a_background_process_that_dies_silently_is_reported_with_its_log() {
    if plays_role() {
        return;
    }
    let world = World::new();
    let name = "a_background_process_that_dies_silently_is_reported_with_its_log";
    let output = world.respawn(name, "dies").output().unwrap();
    let refusal = printed(&output, "REFUSED");
    assert!(refusal.contains("status: 7"), "{refusal}");
    assert!(
        refusal.contains(&world.state().join("log").display().to_string()),
        "{refusal}"
    );
}
