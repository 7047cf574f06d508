//! `reelfs retry`: asks a running mount, by the extended attribute that shows an upload's state, to
//! try again what it gave up.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::error::MountError;
use super::mountinfo::{self, DeviceId};

/// Has the upload of the file at `path` tried again, or every failed one of the mount that `path`
/// is a directory of.
pub fn retry(path: &Path) -> Result<(), MountError> {
    let unreachable = |error: io::Error| MountError::Unreachable {
        path: path.to_path_buf(),
        reason: error.to_string(),
    };
    let device = DeviceId::of(path.metadata().map_err(unreachable)?.dev());
    let mount = mountinfo::mount_of(device).map_err(unreachable)?;
    // Another file system would keep the attribute.
    if !mount.is_some_and(|mount| mount.is_reelfs()) {
        return Err(MountError::NotInAMount(path.to_path_buf()));
    }
    let asked = rustix::fs::setxattr(path, "user.reelfs.upload", b"retry", XattrFlags::empty());
    asked.map_err(|errno| match errno {
        Errno::ROFS => MountError::NotInAMount(path.to_path_buf()),
        other => unreachable(other.into()),
    })
}
