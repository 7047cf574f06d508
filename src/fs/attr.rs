//! What `stat` shows, in the file system's own terms. Pure.

use std::time::{Duration, SystemTime};

/// Permission bits of every directory, and of every file that the user gave none: also of those that
/// take no change. The kernel compares them before it asks us, and its EACCES would stand where
/// EROFS or EPERM says what is the matter.
pub const DIRECTORY_MODE: u16 = 0o755;
/// As [`DIRECTORY_MODE`], of a file.
pub const FILE_MODE: u16 = 0o644;

/// What stands behind a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
}

/// The attributes of one file or directory; owner and group are the mount's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    pub ino: u64,
    pub kind: Kind,
    pub size_bytes: u64,
    pub mtime: SystemTime,
    /// Permission bits only.
    pub mode: u16,
    /// How long the kernel may go by this without asking again.
    pub ttl: Duration,
}

impl Attr {
    /// A directory; its time is fixed for the mount, so that nothing seems to change.
    pub fn directory(ino: u64, mtime: SystemTime, ttl: Duration) -> Self {
        Self {
            ino,
            kind: Kind::Directory,
            size_bytes: 0,
            mtime,
            mode: DIRECTORY_MODE,
            ttl,
        }
    }
}
