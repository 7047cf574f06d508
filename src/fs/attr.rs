//! What `stat` shows, in the file system's own terms. Pure.

use std::time::{Duration, SystemTime};

/// Permission bits of a directory that takes files, of one that doesn't, and of files alike.
pub const WRITABLE_DIRECTORY: u16 = 0o755;
/// Permission bits of a directory that takes none.
pub const READ_ONLY_DIRECTORY: u16 = 0o555;
/// Permission bits of a file in a directory that takes files.
pub const WRITABLE_FILE: u16 = 0o644;
/// Permission bits of any other file.
pub const READ_ONLY_FILE: u16 = 0o444;

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
    pub fn directory(ino: u64, mode: u16, mtime: SystemTime, ttl: Duration) -> Self {
        Self {
            ino,
            kind: Kind::Directory,
            size_bytes: 0,
            mtime,
            mode,
            ttl,
        }
    }
}
