//! Why an operation failed, in the file system's own words. `fuse::errno` turns each into the one
//! errno that `docs/SEMANTICS.md` names for it.

use std::io;
use std::time::Duration;

use crate::provider::ProviderError;
use crate::reader::ReadError;
use crate::store::StoreError;
use crate::upload::UploadError;

/// One kind for each thing a program can learn from an errno.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FsError {
    #[error("there is no such file")]
    NotFound,
    #[error("{0}")]
    Denied(String),
    #[error("{0}")]
    Quota(String),
    #[error("{0}")]
    UnsupportedType(String),
    #[error("this directory can only be read")]
    ReadOnly,
    #[error("the asset changed while it was read")]
    Stale,
    #[error("{}", rate_limit(.retry_after))]
    RateLimited { retry_after: Option<Duration> },
    #[error("{0}")]
    Io(String),
    #[error("the local disk is full")]
    NoSpace,
    #[error("{0}")]
    NotPermitted(&'static str),
    #[error("the name is taken")]
    Exists,
    #[error("the file is being uploaded")]
    Busy,
    #[error("interrupted")]
    Interrupted,
    #[error("{0}")]
    Invalid(&'static str),
    #[error("the name is not valid UTF-8, which the service needs")]
    BadName,
    #[error("the name is longer than 255 bytes")]
    NameTooLong,
    #[error("it is a directory")]
    IsDirectory,
    #[error("it is not a directory")]
    NotDirectory,
    #[error("an asset is moved by copying and deleting it")]
    CrossDevice,
    #[error("the handle is not open for this")]
    BadHandle,
    #[error("there is no such attribute")]
    NoAttribute,
    #[error("the buffer is too small")]
    Range,
    #[error("this is not supported")]
    NotSupported,
}

fn rate_limit(retry_after: &Option<Duration>) -> String {
    match retry_after {
        Some(after) => format!(
            "the service's rate limit holds for another {} s",
            after.as_secs().max(1)
        ),
        None => "the service's rate limit outlasted the deadline".to_string(),
    }
}

impl FsError {
    /// Whether an older whole listing may stand in: the service is unwell rather than refusing.
    pub fn is_transient(&self) -> bool {
        matches!(self, FsError::Io(_) | FsError::RateLimited { .. })
    }
}

impl From<ProviderError> for FsError {
    fn from(error: ProviderError) -> Self {
        let text = error.to_string();
        match error {
            ProviderError::NotFound => FsError::NotFound,
            ProviderError::Denied(_) => FsError::Denied(text),
            ProviderError::Quota(_) => FsError::Quota(text),
            ProviderError::RateLimited { retry_after } => FsError::RateLimited { retry_after },
            ProviderError::Unsupported => FsError::NotSupported,
            ProviderError::Refused { status: 415, .. } => FsError::UnsupportedType(text),
            ProviderError::Refused { .. }
            | ProviderError::Unavailable { .. }
            | ProviderError::AnswerLost(_)
            | ProviderError::Malformed(_)
            | ProviderError::LocalFile(_) => FsError::Io(text),
        }
    }
}

impl From<ReadError> for FsError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Changed(_) => FsError::Stale,
            ReadError::NotFound => FsError::NotFound,
            ReadError::Denied(why) => FsError::Denied(why),
            ReadError::Quota(why) => FsError::Quota(why),
            ReadError::RateLimited => FsError::RateLimited { retry_after: None },
            ReadError::Unavailable(why) => FsError::Io(why.to_string()),
        }
    }
}

impl From<UploadError> for FsError {
    fn from(error: UploadError) -> Self {
        let text = error.to_string();
        match error {
            UploadError::DiskFull | UploadError::Store(StoreError::DiskFull { .. }) => {
                FsError::NoSpace
            }
            UploadError::Busy => FsError::Busy,
            UploadError::Type { .. } => FsError::UnsupportedType(text),
            UploadError::Provider(error) => error.into(),
            UploadError::Local(_)
            | UploadError::NotWhole(_)
            | UploadError::Store(_)
            | UploadError::NotSent(_) => FsError::Io(text),
        }
    }
}

impl From<io::Error> for FsError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FsError::NoSpace,
            io::ErrorKind::FileTooLarge => FsError::NoSpace,
            io::ErrorKind::InvalidInput => FsError::Invalid("the argument is out of range"),
            _ => FsError::Io(format!("the staging directory: {error}")),
        }
    }
}
