//! Taking a mount out of the tree: umount2(2) where the kernel lets us, else through fusermount3,
//! which is set-uid root for this.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::error::MountError;
use super::mountinfo::{self, DeviceId};

/// What to do about open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Fail with [`MountError::Busy`].
    WhenIdle,
    /// Take the mount out of the tree now; its files die with the process that serves them.
    Lazily,
    /// As `Lazily`, and end every request that waits there: whoever holds a directory while it waits
    /// for a process that can't answer any more lets go. Who isn't root may do that only where the
    /// kernel's control files for FUSE are mounted, as systemd does; else `Lazily` has to do.
    AtOnce,
}

/// No more names than a person reads.
const MAX_HOLDERS: usize = 5;

/// Some 50 us a process and descriptor: thousands of processes are looked at in this time.
const HOLDERS_PATIENCE: Duration = Duration::from_secs(2);

/// Unmounts what is on top at `path` (absolute, without symbolic links).
pub fn unmount(path: &Path, urgency: Urgency) -> Result<(), MountError> {
    let flags = match urgency {
        Urgency::WhenIdle => UnmountFlags::NOFOLLOW,
        Urgency::Lazily => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
        Urgency::AtOnce => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH | UnmountFlags::FORCE,
    };
    match rustix::mount::unmount(path, flags) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => through_fusermount(path, urgency),
        Err(Errno::BUSY) => Err(busy(path)),
        Err(Errno::INVAL | Errno::NOENT) => Err(MountError::NotMounted(path.to_path_buf())),
        Err(errno) => Err(cannot(path, io::Error::from(errno).to_string())),
    }
}

/// Detaches the mount of `device` at `path`; does nothing where it is already gone, so that
/// whoever mounted there since is left alone.
pub fn detach_ours(path: &Path, device: DeviceId) -> Result<(), MountError> {
    match mountinfo::mount_at(path) {
        Ok(Some(mount)) if mount.device == device => match unmount(path, Urgency::Lazily) {
            Err(MountError::NotMounted(_)) => Ok(()),
            done => done,
        },
        Ok(_) => Ok(()),
        Err(error) => Err(cannot(path, error.to_string())),
    }
}

fn through_fusermount(path: &Path, urgency: Urgency) -> Result<(), MountError> {
    let program = fusermount().ok_or(MountError::NoFusermount)?;
    let mount = mountinfo::mount_at(path).ok().flatten();
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").arg("-u");
    if urgency != Urgency::WhenIdle {
        command.arg("-z");
    }
    let output = command
        .arg("--")
        .arg(path)
        .output()
        .map_err(|error| cannot(path, error.to_string()))?;
    if output.status.success() {
        if let Some(mount) = mount.filter(|_| urgency == Urgency::AtOnce) {
            // Its owner may write there.
            let abort = format!("/sys/fs/fuse/connections/{}/abort", mount.device.minor);
            if let Err(error) = std::fs::write(&abort, "1") {
                log::debug!("what waits at the mount isn't ended: {abort}: {error}");
            }
        }
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
    if said.contains("busy") {
        return Err(busy(path));
    }
    Err(cannot(path, said))
}

/// fusermount3, where fuser too looks for it.
pub fn fusermount() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("FUSERMOUNT_PATH").filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(OsString::from(":/usr/bin:/bin:/usr/sbin:/sbin"));
    std::env::split_paths(&path)
        .map(|directory| directory.join("fusermount3"))
        .find(|program| program.is_file())
}

fn cannot(path: &Path, reason: String) -> MountError {
    MountError::CannotUnmount {
        path: path.to_path_buf(),
        reason,
    }
}

fn busy(path: &Path) -> MountError {
    let names = holders(path);
    MountError::Busy {
        path: path.to_path_buf(),
        holders: if names.is_empty() {
            String::new()
        } else {
            format!(" by {}", names.join(", "))
        },
    }
}

/// [`find_holders`], or nobody where that takes too long: reading a link of a process waits while
/// the process is in execve(2), which itself may wait for a mount that does not answer.
fn holders(path: &Path) -> Vec<String> {
    let (send, found) = mpsc::channel();
    let path = path.to_path_buf();
    let looking = thread::Builder::new()
        .name("holders".to_string())
        .spawn(move || {
            // Nobody listens any more where it took too long.
            let _ = send.send(find_holders(&path));
        });
    looking
        .ok()
        .and_then(|_| found.recv_timeout(HOLDERS_PATIENCE).ok())
        .unwrap_or_default()
}

/// Programs with a file or their working directory below `path`, as far as we may look. Reads
/// only the links in /proc, never the mount.
fn find_holders(path: &Path) -> Vec<String> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter(|entry| entry.file_name().as_bytes().iter().all(u8::is_ascii_digit))
        .filter(|entry| holds(&entry.path(), path))
        .take(MAX_HOLDERS)
        .map(|entry| {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            let pid = entry.file_name();
            format!("{} ({})", name.trim(), pid.to_string_lossy())
        })
        .collect()
}

fn holds(process: &Path, path: &Path) -> bool {
    let below = |link: PathBuf| std::fs::read_link(link).is_ok_and(|to| to.starts_with(path));
    below(process.join("cwd"))
        || std::fs::read_dir(process.join("fd"))
            .is_ok_and(|links| links.flatten().any(|link| below(link.path())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        assert_eq!(holders(&path), Vec::<String>::new());
        let _open = std::fs::File::create(path.join("file")).unwrap();
        let holders = holders(&path);
        let me = format!("({})", std::process::id());
        assert!(
            holders.iter().any(|name| name.ends_with(&me)),
            "{holders:?}"
        );
    }

    #[test]
    fn unmounting_what_is_no_mount_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let error = unmount(&path, Urgency::WhenIdle).unwrap_err();
        assert!(matches!(error, MountError::NotMounted(_)), "{error:?}");
    }
}
