//! Why a staged file could not be written, kept or sent.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::provider::{Library, ProviderError};
use crate::store::StoreError;

/// See the module's head. Cloned to every close that waited; messages carry no secret.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UploadError {
    /// ENOSPC, EDQUOT or EFBIG (a limit on one file) under the state directory.
    #[error("the local disk is full; free some space where the state directory lies")]
    DiskFull,
    /// The file is being sent or is an asset already; change a clone of it.
    #[error("the file is being sent")]
    Busy,
    /// A local operation failed; the words say which.
    #[error("{0}")]
    Local(String),
    /// A write failed before the file was closed, so it isn't whole.
    #[error("the file is not whole: a write to it failed ({0}); write it again")]
    NotWhole(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directory does not take files with this extension.
    #[error("{library} does not take files named like {name:?}")]
    Type { library: Library, name: String },
    /// What the service said.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The queue stood still for this long, and no attempt of this file has failed.
    #[error("nothing could be sent within {} s", .0.as_secs())]
    NotSent(Duration),
}

impl UploadError {
    /// For an operation on a file below the state directory, named in words.
    pub(super) fn local(what: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => UploadError::DiskFull,
            _ => UploadError::Local(format!("cannot {what}: {error}")),
        }
    }

    pub(super) fn at(what: &str, path: &Path, error: &io::Error) -> Self {
        Self::local(&format!("{what} {}", path.display()), error)
    }
}
