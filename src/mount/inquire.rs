//! Asking running mounts how they are: which there are, and what each says of itself.
//!
//! Promise: every answer comes within [`PATIENCE`], also from a mount whose process is dead, stopped
//! or another user's; why there is none is one sentence with what to do.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::error::MountError;
use super::mountinfo::{self, DeviceId, Mount};
use super::preflight;
use crate::fs::control;
use crate::fs::status::Status;

/// A status is made from memory, within milliseconds; a machine under load takes longer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What one mount said of itself.
pub struct Told {
    pub status: Status,
    /// As it was served, with what this program doesn't know.
    pub json: String,
}

/// A mount of this machine, and what it said.
pub struct Asked {
    pub mount_point: PathBuf,
    pub told: Result<Told, MountError>,
}

/// The mount that `path` is in.
pub fn one(path: &Path) -> Result<Asked, MountError> {
    let asked = path.to_path_buf();
    let mount_point = within(path, move || mount_point_of(&asked))?;
    let told = ask(&mount_point);
    Ok(Asked { mount_point, told })
}

/// Every mount of reelfs on this machine, by place; none is an error.
pub fn all() -> Result<Vec<Asked>, MountError> {
    let mut points: Vec<PathBuf> = mountinfo::all_mounts()
        .map_err(|error| unreachable(Path::new("/proc/self/mountinfo"), &error))?
        .into_iter()
        .filter(Mount::is_reelfs)
        .map(|mount| mount.mount_point)
        .collect();
    points.sort();
    points.dedup();
    if points.is_empty() {
        return Err(MountError::NoMounts);
    }
    let asking: Vec<_> = points
        .into_iter()
        .map(|mount_point| {
            let asked = mount_point.clone();
            (mount_point, thread::spawn(move || ask(&asked)))
        })
        .collect();
    let answered = asking.into_iter().map(|(mount_point, asking)| Asked {
        told: asking
            .join()
            .unwrap_or_else(|_| Err(MountError::Silent(mount_point.clone()))),
        mount_point,
    });
    Ok(answered.collect())
}

/// The mount point above `path`, which must be in a mount of reelfs.
pub fn mount_point_of(path: &Path) -> Result<PathBuf, MountError> {
    if let Some(mount_point) = by_name(path) {
        return Ok(mount_point);
    }
    let path = match preflight::resolve(path) {
        Err(MountError::NoPermission(path)) => return Err(not_let_in(&path)),
        resolved => resolved?,
    };
    let at = mountinfo::mount_at(&path).map_err(|error| unreachable(&path, &error))?;
    let mount = match at {
        Some(mount) => Some(mount),
        None => {
            use std::os::unix::fs::MetadataExt;
            let metadata = path
                .metadata()
                .map_err(|error| unreachable(&path, &error))?;
            let device = DeviceId::of(metadata.dev());
            let found = mountinfo::mount_of(device);
            let found = found.map_err(|error| unreachable(&path, &error))?;
            found.filter(Mount::is_reelfs)
        }
    };
    match mount {
        None => Err(MountError::NotMounted(path)),
        Some(mount) if !mount.is_reelfs() => Err(MountError::NotReelfs {
            path,
            fs_type: mount.fs_type,
        }),
        Some(mount) => Ok(mount.mount_point),
    }
}

/// The mount of ours that the path is in by its words alone: looking at it could wait for ever.
fn by_name(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let plain = path.components().all(|part| part != Component::ParentDir);
    let above = mountinfo::all_mounts().ok()?.into_iter().filter(|mount| {
        let point = &mount.mount_point;
        plain && path.starts_with(point)
    });
    let nearest = above.max_by_key(|mount| mount.mount_point.components().count())?;
    nearest.is_reelfs().then_some(nearest.mount_point)
}

/// Another user's mount lets nobody look even at its root.
fn not_let_in(path: &Path) -> MountError {
    let whole = preflight::resolve_by_parent(path);
    let mount = whole.and_then(|whole| mountinfo::mount_at(&whole));
    match mount {
        Ok(Some(mount)) if mount.is_reelfs() => MountError::NotYours(mount.mount_point),
        _ => unreachable(path, &io::ErrorKind::PermissionDenied.into()),
    }
}

/// Reads the status in a process of its own: a thread that waits for a request which a mount has
/// taken and doesn't answer can't be ended, and would keep this process from ending.
pub(super) fn ask(mount_point: &Path) -> Result<Told, MountError> {
    let file = mount_point.join(control::NAME).join("status.json");
    let reading = Command::new("cat")
        .arg("--")
        .arg(file)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| unreachable(mount_point, &error))?;
    let read = within(mount_point, move || Ok(reading.wait_with_output()))?;
    let read = read.map_err(|error| unreachable(mount_point, &error))?;
    if !read.status.success() {
        let said = String::from_utf8_lossy(&read.stderr);
        return Err(refused(mount_point, &said));
    }
    let json = String::from_utf8_lossy(&read.stdout).into_owned();
    let status = serde_json::from_str(&json).map_err(|error| MountError::Unreachable {
        path: mount_point.to_path_buf(),
        reason: format!("its status can't be read: {error}"),
    })?;
    Ok(Told { status, json })
}

/// By what the C library calls the errors.
fn refused(mount_point: &Path, said: &str) -> MountError {
    let path = mount_point.to_path_buf();
    let says = |words: &str| said.contains(words);
    if says("not connected") || says("connection abort") {
        MountError::Dead(path)
    } else if says("Permission denied") || says("not permitted") {
        MountError::NotYours(path)
    } else if says("No such file") || says("Not a directory") {
        MountError::NoStatus(path)
    } else {
        let reason = said.trim().to_string();
        MountError::Unreachable { path, reason }
    }
}

/// Does `work` on a thread of its own, which is left behind if it takes too long: a process that
/// waits for a mount that doesn't answer can only be left.
fn within<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, MountError> + Send + 'static,
) -> Result<T, MountError> {
    let (send, done) = mpsc::channel();
    let spawned = thread::Builder::new().spawn(move || {
        // Nobody listens any more where it took too long.
        let _ = send.send(work());
    });
    spawned.map_err(|error| unreachable(path, &error))?;
    done.recv_timeout(PATIENCE)
        .unwrap_or_else(|_| Err(MountError::Silent(path.to_path_buf())))
}

fn unreachable(path: &Path, error: &io::Error) -> MountError {
    MountError::Unreachable {
        path: path.to_path_buf(),
        reason: error.to_string(),
    }
}
