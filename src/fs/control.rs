//! The control directory `.reelfs` in the mount's root: how the mount is doing, for people and
//! programs of its owner.
//!
//! Promises: it is found by name and never listed, so no copy, no `find` and no `ls -a` meets it;
//! its files can be read by the mount's owner alone, whatever modes the mount shows elsewhere; what
//! a handle reads is one snapshot, made when it was opened, from memory alone (`status`). The size
//! that `stat` shows is 0, as in `/proc`, and reads go past the page cache, because the content is
//! another at every opening. Nothing in it can be changed.

use bytes::Bytes;

use super::local::LocalBytes;
use super::read::{FileHandle, Opened};
use super::status::metrics;
use super::{Attr, FsError, Kind, LibraryFs, Listed};
use crate::tree::inode::{self, ControlFile};

/// The directory's name in the root. No service is called so.
pub const NAME: &str = ".reelfs";

/// Also root, whom modes don't stop, changes nothing here.
pub(super) const UNCHANGEABLE: FsError =
    FsError::NotPermitted("the control directory can't be changed");

/// Reading and searching, for the owner.
const DIRECTORY_MODE: u16 = 0o500;
/// Reading, for the owner.
const FILE_MODE: u16 = 0o400;

impl ControlFile {
    fn name(self) -> &'static str {
        match self {
            ControlFile::Status => "status.json",
            ControlFile::Metrics => "metrics",
        }
    }
}

/// Whether this is the number of the control directory or of something in it: its mode is as it
/// is, whatever the mount's options say of other files.
pub fn is_control(ino: u64) -> bool {
    use inode::Fixed;
    matches!(
        inode::directory(ino),
        Some(Fixed::Control | Fixed::ControlFile(_))
    )
}

impl LibraryFs {
    pub(super) fn control_attr(&self) -> Attr {
        Attr {
            mode: DIRECTORY_MODE,
            ..Attr::directory(inode::CONTROL, self.mounted_at, super::stat::DIRECTORY_TTL)
        }
    }

    pub(super) fn control_file_attr(&self, file: ControlFile) -> Attr {
        Attr {
            ino: inode::of_control_file(file),
            kind: Kind::File,
            size_bytes: 0,
            mtime: self.catalog.wall_now(),
            mode: FILE_MODE,
            ttl: std::time::Duration::ZERO,
        }
    }

    pub(super) fn control_lookup(&self, name: &str) -> Result<Attr, FsError> {
        let mut files = ControlFile::ALL.into_iter();
        let file = files.find(|file| file.name() == name);
        file.map(|file| self.control_file_attr(file))
            .ok_or(FsError::NotFound)
    }

    /// What stands in the directory, for whoever knows of it.
    pub(super) fn control_entries(&self) -> impl Iterator<Item = Listed> {
        ControlFile::ALL.into_iter().map(|file| Listed {
            ino: inode::of_control_file(file),
            name: file.name().into(),
            kind: Kind::File,
        })
    }

    /// Opens a snapshot.
    pub(super) fn open_control(&self, file: ControlFile) -> Result<Opened, FsError> {
        let status = self.status();
        let text = match file {
            ControlFile::Metrics => metrics::text(&status),
            ControlFile::Status => {
                let json = serde_json::to_string_pretty(&status);
                json.map_err(|error| FsError::Io(format!("the status: {error}")))? + "\n"
            }
        };
        let bytes = LocalBytes::Made(Bytes::from(text));
        let ino = inode::of_control_file(file);
        Ok(Opened {
            fh: self.insert(FileHandle::Local { ino, bytes }),
            keep_cache: false,
            direct_io: true,
            flushes: false,
        })
    }
}
