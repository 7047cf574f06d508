//! How far a staged file has come, as the user sees it.

use std::fmt;

use crate::provider::AssetId;

/// How far a staged file has come. Displayed as the value of `user.reelfs.upload`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadState {
    /// Being written; not closed whole since.
    Open,
    /// Whole and kept on this machine: a temporary name, or an empty file.
    Local,
    /// Whole and safe on the local disk, to be sent.
    Queued,
    Sending {
        percent: u8,
    },
    Uploaded {
        id: AssetId,
    },
    /// Given up until it is submitted again, `retry_failed`, or the next mount.
    Failed {
        reason: String,
    },
}

impl fmt::Display for UploadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UploadState::Open => f.write_str("open"),
            UploadState::Local => f.write_str("local"),
            UploadState::Queued => f.write_str("queued"),
            UploadState::Sending { percent } => write!(f, "sending {percent}%"),
            UploadState::Uploaded { .. } => f.write_str("done"),
            UploadState::Failed { reason } => write!(f, "failed: {reason}"),
        }
    }
}
