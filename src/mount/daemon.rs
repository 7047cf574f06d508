//! The background process of `reelfs mount`.
//!
//! The command starts itself again with [`CHILD_VARIABLE`] set and waits for one line on the
//! child's stdout: `reelfs: ready`, or `reelfs: error: ` and a sentence. The child is a session of its own, reads
//! /dev/null and logs to a file: it keeps nothing of its caller's terminal or pipes, so a program
//! that collects the command's output sees it end. Settings and tokens reach the child as they
//! reached the command: by its arguments, environment and configuration file.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::error::MountError;
use super::private_dir;

/// Set in the background process, to anything.
const CHILD_VARIABLE: &str = "REELFS_BACKGROUND_CHILD";

/// More than the child's own limits together: the last mount's claim (10 s), the answer (20 s),
/// and opening its stores.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// What begins the child's line, so that nothing else on its stdout is taken for it.
const PREFIX: &str = "reelfs: ";
const READY: &str = "ready";
const ERROR: &str = "error: ";

/// The most that is read from the child: a sentence with two paths (4 KiB each) and some noise.
const MAX_SAID_BYTES: u64 = 64 << 10;

const KEPT_LOGS: usize = 10;

/// Whether this is the background process.
pub fn is_child() -> bool {
    std::env::var_os(CHILD_VARIABLE).is_some()
}

/// Starts the background process for `mountpoint` and waits until the mount answers. Returns the
/// path of its log.
pub fn launch(mountpoint: &Path, state_dir: &Path) -> Result<PathBuf, MountError> {
    let (log, mut log_path) = create_log(mountpoint, state_dir)?;
    let spawn_failed = |error: std::io::Error| MountError::Spawn(error.to_string());
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "reelfs".into());
    let mut child = Command::new(std::env::current_exe().map_err(spawn_failed)?)
        // As `mount.reelfs` it reads its arguments in another way.
        .arg0(name)
        .args(arguments)
        .env(CHILD_VARIABLE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(spawn_failed)?;
    let final_path =
        state_dir
            .join("log")
            .join(format!("{}-{}.log", log_stem(mountpoint), child.id()));
    if fs::rename(&log_path, &final_path).is_ok() {
        log_path = final_path;
    }
    match said(&mut child) {
        Some(line) if line == READY => Ok(log_path),
        Some(line) => {
            let sentence = line.strip_prefix(ERROR).unwrap_or(&line);
            let _ = child.wait();
            Err(MountError::Reported(sentence.to_string()))
        }
        None => Err(MountError::Died {
            status: ended(&mut child),
            log: log_path,
        }),
    }
}

/// What the child says, if it says it in time.
fn said(child: &mut Child) -> Option<String> {
    let pipe = child.stdout.take()?;
    let (send, receive) = channel();
    thread::spawn(move || {
        let line = BufReader::new(pipe.take(MAX_SAID_BYTES))
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix(PREFIX).map(str::to_string));
        let _ = send.send(line);
    });
    receive.recv_timeout(READY_LIMIT).ok().flatten()
}

/// How a silent child ended. One that is only slow is asked to stop, and unmounts.
fn ended(child: &mut Child) -> String {
    let word = |status: ExitStatus| status.to_string();
    match child.try_wait() {
        Ok(Some(status)) => word(status),
        Ok(None) => {
            if let Some(pid) = i32::try_from(child.id())
                .ok()
                .and_then(rustix::process::Pid::from_raw)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            child.wait().map_or_else(|error| error.to_string(), word)
        }
        Err(error) => error.to_string(),
    }
}

/// The child's end of the pipe.
pub struct Readiness(());

/// Called first in the background process: leaves the caller's session and working directory.
/// Every path must be absolute by now.
pub fn become_background() -> Result<Readiness, MountError> {
    let failed = |error: std::io::Error| MountError::Spawn(error.to_string());
    // Fails only for the leader of a group, which is a session of its own making already.
    let _ = rustix::process::setsid();
    std::env::set_current_dir("/").map_err(failed)?;
    Ok(Readiness(()))
}

impl Readiness {
    /// Tells the command that the mount answers, and lets its pipe go.
    pub fn ready(self) {
        self.say(READY);
    }

    /// Tells the command why there is no mount.
    pub fn failed(self, sentence: &str) {
        self.say(&format!("{ERROR}{}", sentence.replace(['\n', '\r'], " ")));
    }

    /// An error here means that the command is gone; the mount stays, as it would have.
    fn say(self, line: &str) {
        let mut out = std::io::stdout();
        let _ = writeln!(out, "{PREFIX}{line}").and_then(|()| out.flush());
        match OpenOptions::new().write(true).open("/dev/null") {
            Ok(null) => drop(rustix::stdio::dup2_stdout(&null)),
            Err(error) => log::warn!("cannot open /dev/null: {error}"),
        }
    }
}

/// Makes the log of a process that has no id yet, and deletes the oldest of this mount point.
fn create_log(mountpoint: &Path, state_dir: &Path) -> Result<(File, PathBuf), MountError> {
    let dir = state_dir.join("log");
    private_dir(&dir)?;
    let stem = log_stem(mountpoint);
    // Makes room for the new one.
    delete_oldest(&dir, &stem, KEPT_LOGS - 1);
    let path = dir.join(format!("{stem}-starting-{}.log", std::process::id()));
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| MountError::StateDir {
            path: path.clone(),
            reason: error.to_string(),
        })?;
    Ok((file, path))
}

/// The mount point's own name with what is odd in it replaced.
fn log_stem(mountpoint: &Path) -> String {
    let name = mountpoint.file_name().unwrap_or_default().to_string_lossy();
    let safe = |c: char| if c.is_alphanumeric() { c } else { '_' };
    let stem: String = name.chars().take(40).map(safe).collect();
    if stem.is_empty() {
        "mount".to_string()
    } else {
        stem
    }
}

/// Keeps the `keep` newest logs of `stem` in `dir`. Best effort.
fn delete_oldest(dir: &Path, stem: &str, keep: usize) {
    let is_log = |path: &Path| {
        path.file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| {
                name.strip_prefix(stem)?
                    .strip_prefix('-')?
                    .strip_suffix(".log")
            })
            .is_some_and(|pid| {
                pid.trim_start_matches("starting-")
                    .bytes()
                    .all(|b| b.is_ascii_digit())
            })
    };
    let mut logs: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_log(path))
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .collect();
    logs.sort();
    let surplus = logs.len().saturating_sub(keep);
    for (_, path) in logs.into_iter().take(surplus) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn only_the_newest_logs_of_a_mount_point_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for age in 1..=12u64 {
            let file = File::create(dir.path().join(format!("studio-{age}.log"))).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - age);
            file.set_modified(time).unwrap();
        }
        File::create(dir.path().join("studio-two-1.log")).unwrap();
        delete_oldest(dir.path(), "studio", 9);
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut expected: Vec<_> = (1..=9).map(|age| format!("studio-{age}.log")).collect();
        expected.push("studio-two-1.log".to_string());
        assert_eq!(left, expected);
    }

    #[test]
    fn a_log_is_private_and_named_after_the_mount_point() {
        use std::os::unix::fs::PermissionsExt;
        let state = tempfile::tempdir().unwrap();
        let (file, path) = create_log(Path::new("/mnt/my films"), state.path()).unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("my_films-"), "{name}");
        assert_eq!(log_stem(Path::new("/")), "mount");
    }
}
