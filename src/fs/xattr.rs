//! Extended attributes: what the mount knows of a file beyond what `stat` shows. Nothing here asks
//! a service.

use std::ffi::OsStr;

use super::{FsError, LibraryFs, Place};
use crate::tree::Node;
use crate::upload::UploadState;

const ID: &str = "user.reelfs.id";
const PROVIDER: &str = "user.reelfs.provider";
const UPLOAD: &str = "user.reelfs.upload";
const RETRY: &[u8] = b"retry";
const MIME_TYPE: &str = "user.mime_type";

impl LibraryFs {
    /// The value of one attribute.
    pub fn getxattr(&self, ino: u64, name: &OsStr) -> Result<Vec<u8>, FsError> {
        let all = self.attributes(ino)?;
        let found = all.into_iter().find(|(key, _)| OsStr::new(key) == name);
        found
            .map(|(_, value)| value.into_bytes())
            .ok_or(FsError::NoAttribute)
    }

    /// The names of all attributes, each ended by NUL.
    pub fn listxattr(&self, ino: u64) -> Result<Vec<u8>, FsError> {
        let mut names = Vec::new();
        for (name, _) in self.attributes(ino)? {
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        }
        Ok(names)
    }

    /// The one thing that can be set: `user.reelfs.upload` to `retry`, on a file whose upload was
    /// given up, or on a directory for every such file of the mount.
    pub fn setxattr(&self, ino: u64, name: &OsStr, value: &[u8]) -> Result<(), FsError> {
        if OsStr::new(UPLOAD) != name {
            return Err(FsError::NotSupported);
        }
        if value != RETRY {
            return Err(FsError::Invalid(
                "the upload state can only be set to retry",
            ));
        }
        let uploads = self.uploads()?;
        match self.place(ino).ok_or(FsError::NotFound)? {
            Place::File => match self.staged_file(ino) {
                Some(file) if matches!(file.state(), UploadState::Failed { .. }) => {
                    uploads.submit(&file, None);
                    uploads.resume();
                }
                _ => {}
            },
            _ => {
                let count = uploads.retry_failed();
                log::info!("{count} uploads are tried again");
            }
        }
        Ok(())
    }

    fn attributes(&self, ino: u64) -> Result<Vec<(&'static str, String)>, FsError> {
        let state = self.catalog.lock();
        let mut found = Vec::new();
        match state.tree.node(ino) {
            None => {
                drop(state);
                return self.place(ino).map(|_| found).ok_or(FsError::NotFound);
            }
            Some(Node::Local(_)) => {}
            Some(Node::Asset(node)) => {
                found.push((ID, node.asset.id.to_string()));
                found.push((PROVIDER, node.asset.library.service().to_string()));
                let learned = node.learned.as_ref();
                let learned = learned.and_then(|info| info.content_type.clone());
                found.extend(
                    node.asset
                        .mime_type
                        .clone()
                        .or(learned)
                        .map(|mime| (MIME_TYPE, mime)),
                );
                if node.kept.sequence.is_some() {
                    let id = node.asset.id.clone();
                    found.push((UPLOAD, UploadState::Uploaded { id }.to_string()));
                }
            }
        }
        drop(state);
        if let Some(file) = self.staged_file(ino) {
            found.push((UPLOAD, file.state().to_string()));
        }
        Ok(found)
    }
}
