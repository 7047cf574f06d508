//! Finds out before mounting what would make the mount fail, because the kernel and fusermount3
//! only say "Operation not permitted". It changes one thing: a dead mount of ours at the mount
//! point (left by a crash) is detached, with a line in the log.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::detach::{self, Urgency};
use super::error::MountError;
use super::mountinfo::{self, Mount};
use super::{claim, inquire};
use crate::config::Config;

/// A directory that was fit to be mounted on when it was checked. Absolute, no symbolic links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint(PathBuf);

impl MountPoint {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Checks the machine, then the directory.
pub fn check(mountpoint: &Path, config: &Config) -> Result<MountPoint, MountError> {
    device()?;
    if !rustix::process::geteuid().is_root() {
        detach::fusermount().ok_or(MountError::NoFusermount)?;
        if config.allow_other && !others_may_be_allowed() {
            return Err(MountError::AllowOther);
        }
    }
    directory(mountpoint, &config.state_dir)
}

/// Whether the FUSE device is there and may be opened.
pub fn device() -> Result<(), MountError> {
    match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Ok(()),
        Err(error) => Err(device_error(&error)),
    }
}

fn device_error(error: &io::Error) -> MountError {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => MountError::NoDevice,
        _ => MountError::DeviceDenied(error.to_string()),
    }
}

/// Whether ordinary users may open their mounts to others on this machine.
pub fn others_may_be_allowed() -> bool {
    let fuse_conf = std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    user_allow_other(&fuse_conf)
}

/// Whether /etc/fuse.conf lets ordinary users open their mounts to others.
fn user_allow_other(fuse_conf: &str) -> bool {
    fuse_conf
        .lines()
        .any(|line| line.trim() == "user_allow_other")
}

fn directory(path: &Path, state_dir: &Path) -> Result<MountPoint, MountError> {
    let path = resolve(path)?;
    if let Some(mount) = mounted(&path)? {
        clear(&mount, state_dir)?;
    }
    let metadata = std::fs::metadata(&path).map_err(|error| unreachable(&path, &error))?;
    if !metadata.is_dir() {
        return Err(MountError::NotADirectory(path));
    }
    if rustix::fs::access(&path, rustix::fs::Access::WRITE_OK).is_err() {
        return Err(MountError::NoPermission(path));
    }
    let mut entries = std::fs::read_dir(&path).map_err(|error| unreachable(&path, &error))?;
    match entries.next() {
        None => Ok(MountPoint(path)),
        Some(_) => Err(MountError::NotEmpty(path)),
    }
}

fn mounted(path: &Path) -> Result<Option<Mount>, MountError> {
    mountinfo::mount_at(path).map_err(|error| unreachable(path, &error))
}

/// Detaches a dead mount of ours; anything else FUSE in the way is an error. A mount of another
/// kind (a disk, a volume) may be mounted over like any empty directory.
fn clear(mount: &Mount, state_dir: &Path) -> Result<(), MountError> {
    let path = mount.mount_point.clone();
    if !mount.is_fuse() {
        return Ok(());
    }
    if !mount.is_reelfs() {
        return Err(MountError::MountedByOther {
            path,
            source_name: mount.source.clone(),
        });
    }
    if !claim::holder_is_dying(state_dir, &path) && !is_dead(&path) {
        return Err(MountError::AlreadyMounted(path));
    }
    let me = rustix::process::geteuid();
    if !me.is_root() && mount.user_id != Some(me.as_raw()) {
        return Err(MountError::DeadMount(path));
    }
    log::warn!("detaching what a crash left mounted on {}", path.display());
    detach::unmount(&path, Urgency::AtOnce)?;
    match mounted(&path)? {
        Some(under) if under.is_fuse() => clear(&under, state_dir),
        _ => Ok(()),
    }
}

/// Whether the process behind a mount is gone. One that doesn't answer may come to itself.
fn is_dead(path: &Path) -> bool {
    matches!(inquire::ask(path), Err(MountError::Dead(_)))
}

/// The absolute path without symbolic links, also of a dead mount.
pub fn resolve(path: &Path) -> Result<PathBuf, MountError> {
    match std::fs::canonicalize(path) {
        Ok(path) => Ok(path),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOTCONN) => {
            resolve_by_parent(path).map_err(|error| unreachable(path, &error))
        }
        Err(error) => Err(unreachable(path, &error)),
    }
}

/// As [`resolve`], without looking at the last part of the path.
pub fn resolve_by_parent(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Ok(path),
    }
}

fn unreachable(path: &Path, error: &io::Error) -> MountError {
    let path = path.to_path_buf();
    match error.kind() {
        ErrorKind::NotFound => MountError::Absent(path),
        ErrorKind::PermissionDenied => MountError::NoPermission(path),
        ErrorKind::NotADirectory => MountError::NotADirectory(path),
        _ => MountError::Unreachable {
            path,
            reason: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_directory_is_fit_and_its_links_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        let point = directory(&dir.path().join("link"), dir.path()).unwrap();
        assert_eq!(point.path(), real);
    }

    #[test]
    fn an_unfit_mount_point_is_named_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let refusal = |path: &Path| directory(path, dir.path()).unwrap_err().to_string();
        let absent = dir.path().join("absent");
        assert!(refusal(&absent).ends_with(&format!("mkdir -p {}", absent.display())));
        assert!(refusal(&file).contains("is not a directory"));
        assert!(refusal(&file.join("below")).contains("is not a directory"));
        assert!(refusal(dir.path()).contains("is not empty"));
    }

    #[test]
    fn the_device_errors_are_told_apart() {
        let text = |errno: Errno| device_error(&errno.into()).to_string();
        assert!(text(Errno::NOENT).contains("modprobe fuse"));
        assert!(text(Errno::NODEV).contains("modprobe fuse"));
        assert!(text(Errno::ACCESS).contains("may not be opened"));
    }

    #[test]
    fn fuse_conf_allows_others_only_by_a_whole_uncommented_line() {
        assert!(user_allow_other("# no\nuser_allow_other\n"));
        assert!(!user_allow_other("#user_allow_other\nmount_max = 9\n"));
    }
}
