//! Who serves a mount point: a file in the state directory that its process holds locked.
//!
//! Promise: the lock lives exactly as long as the process, also when it is killed, and longer than
//! the mount: it is held while uploads finish after unmounting. So `reelfs unmount` can wait for
//! that, and a second `reelfs mount` does not start beside it. The file holds the process id, which
//! means something only while the lock is held. It is never deleted, or two processes could lock
//! two files of one name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};

use super::error::MountError;
use super::private_dir;
use crate::config;

/// How long a new mount waits for the last one to end: a drain without uploads takes less.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a long wait is explained.
const EXPLAIN_EVERY: Duration = Duration::from_secs(5);

/// A mount point claimed by this process.
#[derive(Debug)]
pub struct Claim(#[expect(dead_code, reason = "held for its lock")] File);

impl Claim {
    /// Claims `mount_point` (absolute, without symbolic links), waiting a little for a process
    /// that is about to end.
    pub fn take(state_dir: &Path, mount_point: &Path) -> Result<Self, MountError> {
        Self::take_within(state_dir, mount_point, PATIENCE)
    }

    fn take_within(
        state_dir: &Path,
        mount_point: &Path,
        patience: Duration,
    ) -> Result<Self, MountError> {
        let path = file_of(state_dir, mount_point);
        let failed = |error: std::io::Error| MountError::StateDir {
            path: path.clone(),
            reason: error.to_string(),
        };
        private_dir(&state_dir.join("run"))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let still_served = || MountError::StillServed {
            path: mount_point.to_path_buf(),
            pid: pid_in(&path).unwrap_or(0),
        };
        let mut file = lock(file, Some(patience), &mut || ())
            .map_err(failed)?
            .ok_or_else(still_served)?;
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed)?;
        Ok(Self(file))
    }
}

/// Waits until no process serves `mount_point` any more; at once where none does. Every few
/// seconds `explain` is told the process that is waited for. `false` if nobody ever claimed it
/// here, so that there was nothing to wait for.
pub fn await_release(
    state_dir: &Path,
    mount_point: &Path,
    explain: &mut dyn FnMut(u32),
) -> Result<bool, MountError> {
    let path = file_of(state_dir, mount_point);
    let failed = |error: std::io::Error| MountError::StateDir {
        path: path.clone(),
        reason: error.to_string(),
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    let mut tell = || explain(pid_in(&path).unwrap_or(0));
    lock(file, None, &mut tell).map_err(failed)?;
    Ok(true)
}

/// Sends SIGTERM to the process that serves `mount_point`, if there is one.
pub fn stop_holder(state_dir: &Path, mount_point: &Path) -> Result<(), MountError> {
    let path = file_of(state_dir, mount_point);
    let failed = |error: std::io::Error| MountError::StateDir {
        path: path.clone(),
        reason: error.to_string(),
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    // Its number means a process only while the lock is held.
    if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        return Ok(());
    }
    let pid = pid_in(&path).and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    match pid.map(|pid| kill_process(pid, Signal::TERM)) {
        None | Some(Ok(()) | Err(Errno::SRCH)) => Ok(()),
        Some(Err(errno)) => Err(failed(errno.into())),
    }
}

/// Whether the process that claimed `mount_point` was killed and can't end: a thread of it waits in
/// the kernel for whoever waits for the mount. Until somebody ends that, the lock is held and
/// nobody who asks the mount is answered.
pub fn holder_is_dying(state_dir: &Path, mount_point: &Path) -> bool {
    let path = file_of(state_dir, mount_point);
    let locked = File::open(&path)
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)));
    // Not `stat`, which may wait for a lock of the process.
    let status = pid_in(&path)
        .filter(|_| locked)
        .and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
    status.is_some_and(|status| status.lines().any(|line| line.starts_with("State:\tZ")))
}

fn file_of(state_dir: &Path, mount_point: &Path) -> PathBuf {
    let hash = Sha256::digest(mount_point.as_os_str().as_bytes());
    let name = format!("{}.pid", config::short_hex(&hash));
    state_dir.join("run").join(name)
}

fn pid_in(path: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(path)
        .ok()?
        .take(32)
        .read_to_string(&mut text)
        .ok()?;
    text.trim().parse().ok()
}

/// Locks `file`; `None` if that takes longer than `patience`. flock(2) has no timeout, so a thread
/// waits; it is left behind, and ends with the lock's holder, where we lose patience.
fn lock(
    file: File,
    patience: Option<Duration>,
    explain: &mut dyn FnMut(),
) -> std::io::Result<Option<File>> {
    match file.try_lock() {
        Ok(()) => return Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let (send, receive) = channel();
    thread::Builder::new()
        .name("reelfs-claim".to_string())
        .spawn(move || send.send(file.lock().map(|()| file)))?;
    let limit = patience.map(|patience| Instant::now() + patience);
    loop {
        let left = limit.map_or(EXPLAIN_EVERY, |limit| {
            limit.saturating_duration_since(Instant::now())
        });
        match receive.recv_timeout(left) {
            Ok(locked) => return locked.map(Some),
            Err(RecvTimeoutError::Timeout) if limit.is_none() => explain(),
            Err(_) => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_mount_point_is_not_claimed_twice_until_it_is_released() {
        let state = tempfile::tempdir().unwrap();
        let take = |point: &str| {
            Claim::take_within(state.path(), Path::new(point), Duration::from_millis(1))
        };
        let claim = take("/a").unwrap();
        let error = take("/a").unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        take("/b").unwrap();
        drop(claim);
        take("/a").unwrap();
    }

    #[test]
    fn waiting_ends_when_the_claim_does() {
        let state = tempfile::tempdir().unwrap();
        let (dir, point) = (state.path().to_path_buf(), Path::new("/a"));
        assert!(!await_release(&dir, point, &mut |_| ()).unwrap(), "nobody");
        let claim = Claim::take(&dir, point).unwrap();
        let (done, waited) = channel();
        thread::spawn(move || done.send(await_release(&dir, point, &mut |_| ()).unwrap()));
        assert!(waited.recv_timeout(Duration::from_millis(50)).is_err());
        drop(claim);
        assert!(waited.recv_timeout(Duration::from_secs(10)).unwrap());
    }
}
