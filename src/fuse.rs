//! The fuser adapter: unpacks a request, calls the operation, sends the reply. It decides nothing
//! but what the protocol asks of it: flags, lifetimes and which requests may wait (`parking`).

pub mod errno;
mod negotiate;
mod notify;
pub mod parking;
mod process;
mod reply;

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, KernelConfig, LockOwner,
    OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};

use crate::fs::refresh::REFRESH;
use crate::fs::xattr::is_order;
use crate::fs::{Attr, Closer, FsError, LibraryFs, OpenMode, Opened, SetAttr, WrittenBy};
use errno::errno;
pub use notify::KernelNotifier;
use parking::ParkingLot;
pub use reply::Owner;
use reply::{
    BLOCK_BYTES, GENERATION, answer, answer_attr, answer_xattr, known_entry, moment, open_flags,
};

/// The file system as fuser serves it.
pub struct FuseAdapter {
    fs: Arc<LibraryFs>,
    lot: Arc<ParkingLot>,
    owner: Owner,
}

impl FuseAdapter {
    /// Serves `fs`; every file belongs to `owner`.
    pub fn new(fs: Arc<LibraryFs>, lot: Arc<ParkingLot>, owner: Owner) -> Self {
        Self { fs, lot, owner }
    }
}

fn open_mode(req: &Request, flags: i32) -> OpenMode {
    OpenMode {
        truncate: flags & libc::O_TRUNC != 0,
        append: flags & libc::O_APPEND != 0,
        exclusive: flags & libc::O_EXCL != 0,
        opener: thread_group(req),
    }
}

/// The process behind a request; the thread's own number where `/proc` doesn't tell, so that at
/// least a thread that opens and closes is itself.
fn thread_group(req: &Request) -> u32 {
    process::thread_group(req.pid()).unwrap_or(req.pid())
}

impl Filesystem for FuseAdapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate::settle(config);
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let fs = Arc::clone(&self.fs);
        let owner = self.owner;
        let answer = move |found: Result<Attr, FsError>| match found {
            Ok(attr) => {
                fs.remember(attr.ino);
                let shown = owner.show(&attr);
                reply.entry(&attr.ttl, &shown, GENERATION);
            }
            Err(error) => reply.error(errno(&error)),
        };
        let lesser = || Some(known_entry(&self.fs, parent.0, name));
        self.lot.run_patiently(req.pid(), answer, lesser, |done| {
            self.fs.lookup(parent.0, name, done);
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.fs.forget(ino.0, nlookup);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let answer = answer_attr(reply, self.owner);
        self.lot.run(req.pid(), answer, |done| {
            let fh = fh.map(|fh| fh.0);
            self.fs.getattr_for(ino.0, fh, || thread_group(req), done);
        });
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttr {
            mode: mode.map(|mode| mode & 0o777),
            size_bytes: size,
            mtime: mtime.map(moment),
            other: uid.is_some() || gid.is_some() || atime.is_some(),
        };
        let answer = answer_attr(reply, self.owner);
        self.lot.run(req.pid(), answer, |done| {
            self.fs.setattr(ino.0, fh.map(|fh| fh.0), set, done);
        });
    }

    fn mkdir(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn rmdir(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        if mode & libc::S_IFMT != libc::S_IFREG {
            return reply.error(Errno::EPERM);
        }
        let how = open_mode(req, libc::O_EXCL);
        let fs = Arc::clone(&self.fs);
        let owner = self.owner;
        let answer = move |made: Result<(Attr, Opened), FsError>| match made {
            Ok((attr, opened)) => {
                fs.release(opened.fh);
                fs.remember(attr.ino);
                reply.entry(&attr.ttl, &owner.show(&attr), GENERATION);
            }
            Err(error) => reply.error(errno(&error)),
        };
        self.lot.run(req.pid(), answer, |done| {
            self.fs.create(parent.0, name, mode, how, done);
        });
    }

    fn symlink(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _link_name: &OsStr,
        _target: &Path,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn link(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _newparent: INodeNo,
        _newname: &OsStr,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.lot.run(req.pid(), answer(reply), |done| {
            self.fs.unlink(parent.0, name, done);
        });
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !RenameFlags::RENAME_NOREPLACE.contains(flags) {
            return reply.error(Errno::EINVAL);
        }
        let replace = flags.is_empty();
        self.lot.run(req.pid(), answer(reply), |done| {
            let (from, to) = ((parent.0, name), (newparent.0, newname));
            self.fs.rename(from, to, replace, done);
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let answer = move |opened: Result<Opened, FsError>| match opened {
            Ok(opened) => reply.opened(FileHandle(opened.fh), open_flags(&opened)),
            Err(error) => reply.error(errno(&error)),
        };
        let how = open_mode(req, flags.0);
        self.lot.run(req.pid(), answer, |done| {
            match flags.acc_mode() {
                // With O_TRUNC it changes the file; Linux' file systems truncate, so this one does.
                OpenAccMode::O_RDONLY if !how.truncate => self.fs.open_to_read(ino.0, done),
                _ => self.fs.open_to_write(ino.0, how, done),
            }
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let fs = Arc::clone(&self.fs);
        let owner = self.owner;
        let answer = move |made: Result<(Attr, Opened), FsError>| match made {
            Ok((attr, opened)) => {
                fs.remember(attr.ino);
                let flags = open_flags(&opened);
                let shown = owner.show(&attr);
                reply.created(&attr.ttl, &shown, GENERATION, FileHandle(opened.fh), flags);
            }
            Err(error) => reply.error(errno(&error)),
        };
        let how = open_mode(req, flags);
        self.lot.run(req.pid(), answer, |done| {
            self.fs.create(parent.0, name, mode & !umask, how, done);
        });
    }

    fn read(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let answer = move |bytes: Result<bytes::Bytes, FsError>| match bytes {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(&error)),
        };
        self.lot.run(req.pid(), answer, |done| {
            self.fs.read(fh.0, offset, size, done);
        });
    }

    fn write(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let answer = move |written: Result<u32, FsError>| match written {
            Ok(count) => reply.written(count),
            Err(error) => reply.error(errno(&error)),
        };
        let by = match write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            true => WrittenBy::Pages,
            false => WrittenBy::Descriptor,
        };
        self.lot.run(req.pid(), answer, |done| {
            self.fs.write(fh.0, offset, data, by, done);
        });
    }

    fn flush(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let closer = Closer {
            process: thread_group(req),
            killed: process::was_killed(req.pid()),
        };
        self.lot.run(req.pid(), answer(reply), |done| {
            self.fs.flush(fh.0, closer, done);
        });
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.fs.release(fh.0);
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        answer(reply)(self.fs.fsync(fh.0));
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answer(reply)(self.fs.fallocate(fh.0, offset, length, mode));
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.fs.opendir(ino.0) {
            Ok(fh) => reply.opened(FileHandle(fh), FopenFlags::empty()),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdir(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let answer = move |entries: Result<Arc<[crate::fs::Listed]>, FsError>| match entries {
            Err(error) => reply.error(errno(&error)),
            Ok(entries) => {
                reply::add_names(&entries, offset, &mut reply);
                reply.ok();
            }
        };
        self.lot.run(req.pid(), answer, |done| {
            self.fs.readdir(fh.0, offset == 0, done);
        });
    }

    fn readdirplus(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let (fs, owner) = (Arc::clone(&self.fs), self.owner);
        let answer = move |entries: Result<Arc<[crate::fs::Listed]>, FsError>| match entries {
            Err(error) => reply.error(errno(&error)),
            Ok(entries) => {
                let given = reply::add_with_attrs(&fs, owner, &entries, offset, &mut reply);
                fs.remember_all(&given);
                reply.ok();
            }
        };
        self.lot.run(req.pid(), answer, |done| {
            self.fs.readdir(fh.0, offset == 0, done);
        });
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.fs.releasedir(fh.0);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.fs.statfs() {
            Ok(space) => {
                let block_bytes = u32::try_from(space.block_bytes).unwrap_or(BLOCK_BYTES);
                reply.statfs(
                    space.blocks,
                    space.free,
                    space.available,
                    space.files,
                    space.files_free,
                    block_bytes,
                    crate::tree::name::MAX_NAME_BYTES as u32,
                    block_bytes,
                );
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        if is_order(name, value) && !self.owner.is(req.uid()) {
            return reply.error(Errno::EPERM);
        }
        answer(reply)(self.fs.setxattr(ino.0, name, value));
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply)(self.fs.removexattr(ino.0, name));
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if name == REFRESH && !self.owner.is(req.uid()) {
            return reply.error(Errno::EPERM);
        }
        answer_xattr(reply, size, self.fs.getxattr(ino.0, name));
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        answer_xattr(reply, size, self.fs.listxattr(ino.0));
    }
}
