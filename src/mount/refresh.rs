//! `reelfs refresh`: has a running mount forget its listings (`fs/refresh.rs` says how), lists the
//! directories anew, and tells programs that watch them.
//!
//! Programs that watch a directory (inotify) hear of what the kernel itself does, never of what
//! changed at a service, whatever a FUSE server tells the kernel. So this program sets an attribute,
//! which changes nothing, on the directory and on each new file: watchers get "attributes changed"
//! for them. On a mount with `--read-only` that is not possible either.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::error::MountError;
use super::inquire;
use super::mountinfo::{self, Mount};
use crate::fs::refresh::REFRESH;

/// Names of all directories in the attribute's value: 8 of 15 bytes at most.
const MAX_VALUE_BYTES: usize = 1024;
/// New files that watchers are told of one by one; with more, they do better to look again.
const MOST_TOLD: usize = 1000;

/// A directory that was listed anew.
pub struct Refreshed {
    pub directory: PathBuf,
    /// Files it has, and how many of them it hadn't before; or why it can't be listed.
    pub outcome: Result<(usize, usize), io::Error>,
}

/// Refreshes the directory `path`, what is below it, or the directory of the file `path`; without a
/// path every mount of this user.
pub fn refresh(path: Option<&Path>) -> Result<Vec<Refreshed>, MountError> {
    match path {
        Some(path) => refresh_at(path),
        None => {
            let mut done = Vec::new();
            for mount_point in own_mounts()? {
                done.extend(refresh_at(&mount_point)?);
            }
            Ok(done)
        }
    }
}

fn own_mounts() -> Result<Vec<PathBuf>, MountError> {
    let mounts = mountinfo::all_mounts().map_err(|error| MountError::Unreachable {
        path: "/proc/self/mountinfo".into(),
        reason: error.to_string(),
    })?;
    let me = rustix::process::geteuid().as_raw();
    let own = |mount: &Mount| mount.is_reelfs() && mount.user_id == Some(me);
    let points: Vec<PathBuf> = mounts
        .into_iter()
        .filter(own)
        .map(|mount| mount.mount_point)
        .collect();
    match points.is_empty() {
        true => Err(MountError::NoMounts),
        false => Ok(points),
    }
}

fn refresh_at(path: &Path) -> Result<Vec<Refreshed>, MountError> {
    let asked = inquire::one(path)?;
    let status = asked.told?.status;
    // Only what is shown without asking the service: else it would be asked twice.
    let fresh: HashSet<String> = status
        .libraries
        .into_iter()
        .filter(|library| library.fresh)
        .map(|library| library.path)
        .collect();
    let inside = inside(path, &asked.mount_point)?;
    let is_meant = |library: &&String| {
        let library = Path::new(library);
        library.starts_with(&inside) || inside.starts_with(library)
    };
    let known: HashMap<&String, HashSet<OsString>> = fresh
        .iter()
        .filter(is_meant)
        .filter_map(|library| Some((library, names(&asked.mount_point.join(library)).ok()?)))
        .collect();
    let directories = forget(path, &asked.mount_point)?;
    // Each waits for its service: at once, so that a silent one holds up no other.
    let mut done: Vec<Refreshed> = thread::scope(|scope| {
        let listing = directories.iter().map(|directory| {
            let before = known.get(directory);
            let path = asked.mount_point.join(directory);
            (path.clone(), scope.spawn(move || list(&path, before)))
        });
        let listing: Vec<_> = listing.collect();
        let done = listing.into_iter().map(|(directory, listing)| Refreshed {
            directory,
            outcome: listing
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("listing it met a bug"))),
        });
        done.collect()
    });
    let after = inquire::one(&asked.mount_point)?.told?.status;
    for library in after.libraries {
        let Some(problem) = library.problem else {
            continue;
        };
        let directory = asked.mount_point.join(&library.path);
        // Also where an older listing stands in: that is not what was asked for.
        let refreshed = done.iter_mut().find(|done| done.directory == directory);
        if let Some(refreshed) = refreshed {
            refreshed.outcome = Err(io::Error::other(problem));
        }
    }
    Ok(done)
}

/// `path` below the mount point, empty for the mount point itself.
fn inside(path: &Path, mount_point: &Path) -> Result<PathBuf, MountError> {
    let whole = super::preflight::resolve(path)?;
    let inside = whole.strip_prefix(mount_point);
    Ok(inside.map(Path::to_path_buf).unwrap_or_default())
}

fn names(directory: &Path) -> io::Result<HashSet<OsString>> {
    let entries = std::fs::read_dir(directory)?;
    entries.map(|entry| Ok(entry?.file_name())).collect()
}

/// Lists a directory, and tells its watchers: how many files it has, and how many are new.
fn list(directory: &Path, before: Option<&HashSet<OsString>>) -> io::Result<(usize, usize)> {
    let now = names(directory)?;
    let new: Vec<&OsString> = match before {
        Some(before) => now.difference(before).collect(),
        None => Vec::new(),
    };
    tell_watchers(directory);
    for name in new.iter().take(MOST_TOLD) {
        tell_watchers(&directory.join(name));
    }
    Ok((now.len(), new.len()))
}

/// Best done and no more: nobody may be watching, and a mount may be read-only.
fn tell_watchers(path: &Path) {
    let told = rustix::fs::setxattr(path, REFRESH, b"done", XattrFlags::empty());
    if let Err(errno) = told {
        log::debug!("{}: who watches it is not told: {errno}", path.display());
    }
}

/// Orders the refresh; the directories that it concerns, below the mount point.
fn forget(path: &Path, mount_point: &Path) -> Result<Vec<String>, MountError> {
    let mut value = [0u8; MAX_VALUE_BYTES];
    let len = match rustix::fs::getxattr(path, REFRESH, &mut value) {
        Ok(len) => len,
        Err(Errno::PERM | Errno::ACCESS) => {
            return Err(MountError::NotYours(mount_point.to_path_buf()));
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => {
            return Err(MountError::NothingToRefresh(path.to_path_buf()));
        }
        Err(errno) => {
            return Err(MountError::Unreachable {
                path: path.to_path_buf(),
                reason: errno.to_string(),
            });
        }
    };
    let text = String::from_utf8_lossy(&value[..len]);
    Ok(text.lines().map(str::to_string).collect())
}
