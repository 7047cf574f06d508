//! From the file system's terms to the protocol's.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    FileAttr, FileType, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyXattr, TimeOrNow,
};

use super::errno::errno;
use super::parking::Lesser;
use crate::fs::control::is_control;
use crate::fs::{Attr, FsError, Kind, LibraryFs, Listed, Opened};

/// What `stat` names as the good size of a read. Programs make buffers of it, and a probe of a
/// header should not pull more.
pub(super) const BLOCK_BYTES: u32 = 4096;
/// Numbers are never used for another file.
pub(super) const GENERATION: Generation = Generation(0);
/// Entries looked at under one lock. A page of the kernel's takes about 20 of them, and those that
/// don't fit were looked at for nothing.
const ENTRIES_AT_ONCE: usize = 32;

/// Whom every file belongs to, and who else may do what with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
    /// Permission bits that nobody has. Once given, everybody has all others, whatever mode a file
    /// was given: who shares a mount among a group wants files that the group can replace.
    pub umask: Option<u16>,
}

impl Owner {
    /// Whether `uid` may give orders to the mount: the owner as shown, who serves it, and root.
    pub(super) fn is(&self, uid: u32) -> bool {
        uid == self.uid || uid == 0 || uid == rustix::process::geteuid().as_raw()
    }

    fn permissions(&self, attr: &Attr) -> u16 {
        let umask = self.umask.filter(|_| !is_control(attr.ino));
        match (umask, attr.kind) {
            (None, _) => attr.mode,
            (Some(umask), Kind::Directory) => 0o777 & !umask,
            (Some(umask), Kind::File) => 0o666 & !umask,
        }
    }

    pub(super) fn show(&self, attr: &Attr) -> FileAttr {
        let nlink = match attr.kind {
            Kind::Directory => 2,
            Kind::File => 1,
        };
        FileAttr {
            ino: INodeNo(attr.ino),
            size: attr.size_bytes,
            blocks: attr.size_bytes.div_ceil(512),
            atime: attr.mtime,
            mtime: attr.mtime,
            ctime: attr.mtime,
            crtime: attr.mtime,
            kind: file_type(attr.kind),
            perm: self.permissions(attr),
            nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        }
    }
}

/// What a lookup may say of a listed asset before its size is known. Until a lookup is answered,
/// the kernel lets no readdirplus past its name: an asset host that is silent about a size must
/// not hold up an `ls`. Only what `stat` and `open` ask next waits.
pub(super) fn known_entry(fs: &Arc<LibraryFs>, parent: u64, name: &OsStr) -> Lesser<Attr> {
    let (fs, name) = (Arc::clone(fs), name.to_os_string());
    Box::new(move || {
        let ino = fs.listed_number(parent, &name)?;
        Some(fs.known_attr(ino).unwrap_or_else(|| unknown_attr(ino)))
    })
}

/// An entry of a directory whose size and times are still to be learnt: the kernel gets the number
/// and is told to believe nothing, so that a `stat` asks and waits.
fn unknown_attr(ino: u64) -> Attr {
    Attr {
        ino,
        kind: Kind::File,
        size_bytes: 0,
        mtime: SystemTime::UNIX_EPOCH,
        mode: crate::fs::attr::FILE_MODE,
        ttl: Duration::ZERO,
    }
}

pub(super) fn open_flags(opened: &Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct_io);
    flags.set(FopenFlags::FOPEN_NOFLUSH, !opened.flushes);
    flags
}

pub(super) fn answer(reply: ReplyEmpty) -> impl FnOnce(Result<(), FsError>) {
    move |outcome| match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn answer_attr(reply: ReplyAttr, owner: Owner) -> impl FnOnce(Result<Attr, FsError>) {
    move |found| match found {
        Ok(attr) => reply.attr(&attr.ttl, &owner.show(&attr)),
        Err(error) => reply.error(errno(&error)),
    }
}

/// Size 0 asks how large a buffer must be.
pub(super) fn answer_xattr(reply: ReplyXattr, size: u32, value: Result<Vec<u8>, FsError>) {
    match value {
        Err(error) => reply.error(errno(&error)),
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(errno(&FsError::Range)),
        Ok(value) => reply.data(&value),
    }
}

/// A time as the user gave it.
pub(super) fn moment(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => with_forward_nanoseconds(time),
        TimeOrNow::Now => SystemTime::now(),
    }
}

/// The kernel counts nanoseconds forward from a second, also before 1970; fuser 0.18 takes them for
/// more of the past: -2.5 s comes as -3 s and half a second, and is read as -3.5 s.
fn with_forward_nanoseconds(time: SystemTime) -> SystemTime {
    match UNIX_EPOCH.duration_since(time) {
        Err(_) => time,
        Ok(before) => time + 2 * Duration::from_nanos(before.subsec_nanos().into()),
    }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
    }
}

/// Adds the entries from `offset` on, as many as fit.
pub(super) fn add_names(entries: &[Listed], offset: u64, reply: &mut ReplyDirectory) {
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    for (next, entry) in (1u64..).zip(entries).skip(from) {
        let kind = file_type(entry.kind);
        if reply.add(INodeNo(entry.ino), next, kind, &*entry.name) {
            return;
        }
    }
}

/// As [`add_names`], with attributes; answers the numbers that the kernel will count.
pub(super) fn add_with_attrs(
    fs: &LibraryFs,
    owner: Owner,
    entries: &[Listed],
    offset: u64,
    reply: &mut ReplyDirectoryPlus,
) -> Vec<u64> {
    let mut given = Vec::new();
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    let rest = entries.get(from..).unwrap_or_default();
    let mut next = offset;
    for some in rest.chunks(ENTRIES_AT_ONCE) {
        for (entry, attr) in some.iter().zip(fs.known_attrs(some)) {
            next += 1;
            let attr = attr.unwrap_or_else(|| unknown_attr(entry.ino));
            let shown = owner.show(&attr);
            let ino = INodeNo(entry.ino);
            if reply.add(ino, next, &*entry.name, &attr.ttl, &shown, GENERATION) {
                return given;
            }
            if !matches!(&*entry.name, "." | "..") {
                given.push(entry.ino);
            }
        }
    }
    given
}
