//! Where staged files lie, how a process owns one, and the label that names it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, XattrFlags};
use uuid::Uuid;

use crate::store::private_directory;
use crate::upload::error::UploadError;

/// The extended attribute that names a staged file's place, so that it can be told without the
/// database. Best effort: not every file system has them.
const LABEL: &str = "user.reelfs.name";

/// The directories below `<state_dir>`.
#[derive(Debug)]
pub(in crate::upload) struct Directories {
    /// Files that are not assets yet.
    pub staging: PathBuf,
    /// Files that the service confirmed, for reading. Anything here may be deleted.
    pub kept: PathBuf,
    /// Files that a crash left unfinished. Nothing here is ever deleted or shown.
    pub recovered: PathBuf,
}

impl Directories {
    pub(in crate::upload) fn open(state_dir: &Path) -> Result<Self, UploadError> {
        let make = |name: &str| -> Result<PathBuf, UploadError> {
            let path = state_dir.join(name);
            private_directory(&path)
                .map_err(|error| UploadError::at("make the directory", &path, &error))?;
            Ok(path)
        };
        Ok(Self {
            staging: make("staging")?,
            kept: make("kept")?,
            recovered: make("recovered")?,
        })
    }

    pub(in crate::upload) fn staged(&self, id: Uuid) -> PathBuf {
        self.staging.join(id.to_string())
    }

    pub(in crate::upload) fn kept(&self, id: Uuid) -> PathBuf {
        self.kept.join(id.to_string())
    }
}

/// Makes the names in a directory survive a power cut.
pub(in crate::upload) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Takes the lock that says that a process owns the file; `false` if another one does.
pub(in crate::upload) fn own(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The name under which a file was staged, where the file system kept the label.
pub(in crate::upload) fn label(file: &File) -> Option<String> {
    let mut text = [0u8; 512];
    let length = rustix::fs::fgetxattr(file, LABEL, &mut text[..]).ok()?;
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    let name = text.rsplit('/').next()?;
    (!name.is_empty()).then(|| name.to_string())
}

/// Labels a file with its place, `runway/video/clip.mp4`.
pub(super) fn set_label(file: &File, place: &str) {
    let set = rustix::fs::fsetxattr(file, LABEL, place.as_bytes(), XattrFlags::empty());
    if let Err(error) = set {
        log::debug!("the state directory keeps no labels: {error}");
    }
}

/// A new file that this process owns.
pub(super) fn new_file(directories: &Directories) -> io::Result<(Uuid, File)> {
    for _ in 0..8 {
        let id = Uuid::new_v4();
        let path = directories.staged(id);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        // Between these two calls another mount's recovery may take the empty file for one left
        // behind and delete it; then this one makes another.
        if own(&file)? && path.exists() {
            return Ok((id, file));
        }
    }
    Err(io::Error::other("another mount keeps taking new files"))
}
