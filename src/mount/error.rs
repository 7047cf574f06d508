//! Everything that can go wrong between the command and the mount, each as one sentence with
//! what to do about it.

use std::path::PathBuf;
use std::time::Duration;

/// Why nothing was mounted, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error(
        "this machine has no /dev/fuse; run `modprobe fuse` as root, or start the container with \
         --device /dev/fuse --cap-add SYS_ADMIN"
    )]
    NoDevice,
    #[error(
        "/dev/fuse may not be opened ({0}); ask for access to it (group fuse), or start the \
         container with --device /dev/fuse --cap-add SYS_ADMIN"
    )]
    DeviceDenied(String),
    #[error(
        "fusermount3 is missing, which users other than root mount with; run: apt install fuse3"
    )]
    NoFusermount,
    #[error("{path} does not exist; run: mkdir -p {path}", path = .0.display())]
    Absent(PathBuf),
    #[error("{} is not a directory; name an empty directory", .0.display())]
    NotADirectory(PathBuf),
    #[error(
        "{} is not empty, and a mount would hide what is in it; name an empty directory", .0.display()
    )]
    NotEmpty(PathBuf),
    #[error("reelfs is already mounted on {path}; run: reelfs unmount {path}", path = .0.display())]
    AlreadyMounted(PathBuf),
    #[error("{path} is already a mount of {source_name}; name another directory", path = .path.display())]
    MountedByOther { path: PathBuf, source_name: String },
    #[error("the mount on {path} is dead and belongs to someone else; its owner or root can run: reelfs unmount {path}", path = .0.display())]
    DeadMount(PathBuf),
    #[error(
        "you may not mount on {}; name a directory that is yours to write", .0.display()
    )]
    NoPermission(PathBuf),
    #[error(
        "--allow-other needs the line `user_allow_other` in /etc/fuse.conf; add it as root, or \
         leave --allow-other out"
    )]
    AllowOther,
    #[error(
        "the kernel refused the mount on {}: {reason}; in a container, start it with \
         --device /dev/fuse --cap-add SYS_ADMIN", path.display()
    )]
    Refused { path: PathBuf, reason: String },
    #[error(
        "process {pid} still serves {} or finishes its uploads; wait until it has ended, or end it \
         with: kill {pid}", path.display()
    )]
    StillServed { path: PathBuf, pid: u32 },
    #[error("the mount on {} does not answer after {}; see the log", path.display(), humantime::format_duration(*waited))]
    NoAnswer { path: PathBuf, waited: Duration },
    #[error("serving {} ended early: {reason}", path.display())]
    Session { path: PathBuf, reason: String },
    #[error("cannot find {} ({reason}); check the path", path.display())]
    Unreachable { path: PathBuf, reason: String },
    #[error("nothing is mounted on {}; `findmnt -t fuse,fuse.reelfs` lists what is", .0.display())]
    NotMounted(PathBuf),
    #[error("{} is not in a reelfs mount that takes files; name a file or directory in one", .0.display())]
    NotInAMount(PathBuf),
    #[error("{} is in a file system of type {fs_type}, not in a mount of reelfs; `findmnt -t fuse,fuse.reelfs` lists those", path.display())]
    NotReelfs { path: PathBuf, fs_type: String },
    #[error("reelfs has nothing mounted on this machine; run: reelfs mount DIRECTORY")]
    NoMounts,
    #[error("the mount on {path} is dead: its process has ended; run: reelfs unmount {path}", path = .0.display())]
    Dead(PathBuf),
    #[error("the mount on {} belongs to another user, who alone may ask it; run this as that user", .0.display())]
    NotYours(PathBuf),
    #[error("the mount on {} does not answer; its process may be stopped, and its log may say why", .0.display())]
    Silent(PathBuf),
    #[error("the mount on {} is of an older reelfs, which tells no status; unmount it and mount it again", .0.display())]
    NoStatus(PathBuf),
    #[error("{} is not something that a service lists; name a directory or file of a library", .0.display())]
    NothingToRefresh(PathBuf),
    #[error("{} is a mount of {source_name}, not of reelfs; use umount", path.display())]
    NotOurs { path: PathBuf, source_name: String },
    #[error(
        "{path} is in use{holders}; close the files, or detach it at once with: \
         reelfs unmount --force {path}", path = .path.display()
    )]
    Busy { path: PathBuf, holders: String },
    #[error("cannot unmount {}: {reason}; try as the user who mounted it, or as root", path.display())]
    CannotUnmount { path: PathBuf, reason: String },
    #[error("cannot use {}: {reason}; choose another with --state-dir", path.display())]
    StateDir { path: PathBuf, reason: String },
    #[error("cannot start the background process: {0}")]
    Spawn(String),
    #[error("the background process ended without a word ({status}); its log is {}", log.display())]
    Died { status: String, log: PathBuf },
    /// What the background process said.
    #[error("{0}")]
    Reported(String),
    #[error("signals can't be handled: {0}")]
    Signals(String),
}
