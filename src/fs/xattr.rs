//! Extended attributes: what the mount knows of a file beyond what `stat` shows. Nothing here asks
//! a service, and nothing that opens an asset is shown: of a signed URL no more than its place.

use std::ffi::OsStr;

use super::refresh::REFRESH;
use super::{FsError, LibraryFs, Place};
use crate::http::SignedUrl;
use crate::provider::{Details, media_type};
use crate::timestamp;
use crate::tree::{AssetNode, Node, name};
use crate::upload::UploadState;

/// The namespace of users, and the only one here. Of the others (`security.selinux`,
/// `system.posix_acl_access`) `ls -l` asks for two of each file, unless it is told once that there
/// are none: then 10,000 files cost 20,000 requests less.
const NAMESPACE: &str = "user.";
const UPLOAD: &str = "user.reelfs.upload";
const RETRY: &[u8] = b"retry";

/// An attribute of an asset, where it is known.
type Shown = (&'static str, fn(&AssetNode) -> Option<String>);

const SHOWN: [Shown; 15] = [
    ("user.reelfs.id", |node| Some(node.asset.id.to_string())),
    ("user.reelfs.provider", |node| {
        Some(node.asset.library.service().to_string())
    }),
    ("user.reelfs.created", |node| {
        timestamp::to_rfc3339(node.asset.created_at?)
    }),
    ("user.reelfs.favorite", |node| text(details(node)?.favorite)),
    ("user.reelfs.duration", |node| {
        text(details(node)?.duration_s)
    }),
    ("user.reelfs.width", |node| text(details(node)?.width_px)),
    ("user.reelfs.height", |node| text(details(node)?.height_px)),
    ("user.reelfs.frame_rate", |node| {
        text(details(node)?.frame_rate)
    }),
    ("user.reelfs.has_audio", |node| {
        text(details(node)?.has_audio)
    }),
    ("user.reelfs.task_id", |node| {
        text(details(node)?.task_id.as_ref())
    }),
    ("user.reelfs.preview_url", |node| {
        let preview = details(node)?.preview.as_ref()?;
        Some(preview.place().0)
    }),
    ("user.reelfs.json", |node| {
        text(details(node)?.record.as_ref())
    }),
    (UPLOAD, |node| {
        let id = node.asset.id.clone();
        let is_from_here = node.kept.sequence.is_some();
        is_from_here.then(|| UploadState::Uploaded { id }.to_string())
    }),
    ("user.mime_type", mime_type),
    ("user.xdg.origin.url", |node| {
        stable(node.asset.url.as_ref()?)
    }),
];

fn details(node: &AssetNode) -> Option<&Details> {
    node.asset.details.as_deref()
}

fn text(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
}

/// The URL, where it is the asset's for ever: one that isn't signed.
fn stable(url: &SignedUrl) -> Option<String> {
    let (place, is_cut) = url.place();
    (!is_cut).then_some(place)
}

/// What the API says, what the asset host said, or what the extension, told or the name's, means at
/// the service.
pub(super) fn mime_type(node: &AssetNode) -> Option<String> {
    let learned = node.learned.as_ref();
    let told = node.asset.mime_type.clone();
    told.or_else(|| learned?.content_type.clone()).or_else(|| {
        let named = || name::split_extension(node.asset.name.as_deref()?).1;
        let extension = name::extension_of(&node.asset).or_else(|| named().map(str::to_string))?;
        let known = media_type::for_upload(node.asset.library, &extension);
        known.map(str::to_string)
    })
}

/// Whether setting this attribute to this orders something that concerns the whole mount: for its owner
/// alone, whatever the modes allow.
pub fn is_order(name: &OsStr, value: &[u8]) -> bool {
    name == UPLOAD && value == RETRY || name == REFRESH
}

impl LibraryFs {
    /// The value of one attribute.
    pub fn getxattr(&self, ino: u64, name: &OsStr) -> Result<Vec<u8>, FsError> {
        let name = name.to_str().filter(|name| name.starts_with(NAMESPACE));
        let name = name.ok_or(FsError::NotSupported)?;
        if name == REFRESH {
            return self.refresh(ino);
        }
        let found = match self.staged_state(ino) {
            Some(state) if name == UPLOAD => Some(state),
            _ => self.shown(ino, |node| {
                let (_, value) = SHOWN.iter().find(|(other, _)| *other == name)?;
                value(node)
            })?,
        };
        found.map(String::into_bytes).ok_or(FsError::NoAttribute)
    }

    /// The names of all attributes that there are, each ended by NUL.
    pub fn listxattr(&self, ino: u64) -> Result<Vec<u8>, FsError> {
        let staged = self.staged_state(ino);
        let names = self.shown(ino, |node| {
            let known = SHOWN.iter().filter(|(_, value)| value(node).is_some());
            Some(known.map(|(name, _)| *name).collect::<Vec<_>>())
        })?;
        let mut names = names.unwrap_or_default();
        if staged.is_some() && !names.contains(&UPLOAD) {
            names.push(UPLOAD);
        }
        Ok(names
            .iter()
            .flat_map(|name| [name, "\0"].concat().into_bytes())
            .collect())
    }

    /// The one thing that can be set (but for [`REFRESH`], which changes nothing): `user.reelfs.upload` to `retry`, on a file whose upload was
    /// given up, or on a directory for every such file of the mount. Any other `user.` attribute is
    /// taken and not kept, where files are taken: else a copy with its attributes would fail for
    /// them.
    pub fn setxattr(&self, ino: u64, name: &OsStr, value: &[u8]) -> Result<(), FsError> {
        let place = self.place(ino).ok_or(FsError::NotFound)?;
        if OsStr::new(REFRESH) == name {
            return Ok(());
        }
        if OsStr::new(UPLOAD) != name || place == Place::File && is_state(value) {
            return self.ignore_attribute(ino, place, name);
        }
        if value != RETRY {
            return Err(FsError::Invalid(
                "the upload state can only be set to retry",
            ));
        }
        let uploads = self.uploads()?;
        match place {
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

    /// Changes nothing, as [`Self::setxattr`] of most names: what a copy finds here and its source
    /// doesn't have, it removes. An attribute that isn't there can't be removed.
    pub fn removexattr(&self, ino: u64, name: &OsStr) -> Result<(), FsError> {
        let place = self.place(ino).ok_or(FsError::NotFound)?;
        self.ignore_attribute(ino, place, name)?;
        self.getxattr(ino, name).map(drop)
    }

    fn ignore_attribute(&self, ino: u64, place: Place, name: &OsStr) -> Result<(), FsError> {
        if !name
            .to_str()
            .is_some_and(|name| name.starts_with(NAMESPACE))
        {
            return Err(FsError::NotSupported);
        }
        let library = match place {
            Place::Root | Place::Service(_) => return Ok(()),
            Place::Control | Place::ControlFile(_) => return Err(super::control::UNCHANGEABLE),
            Place::Library(library) => library,
            Place::File => {
                let state = self.catalog.lock();
                let node = state.tree.node(ino).ok_or(FsError::NotFound)?;
                node.library()
            }
        };
        match self.takes_files(library) {
            true => Ok(()),
            false => Err(FsError::ReadOnly),
        }
    }

    fn staged_state(&self, ino: u64) -> Option<String> {
        Some(self.staged_file(ino)?.state().to_string())
    }

    /// What `read` makes of the asset; nothing for other files and for directories.
    fn shown<T>(
        &self,
        ino: u64,
        read: impl FnOnce(&AssetNode) -> Option<T>,
    ) -> Result<Option<T>, FsError> {
        let state = self.catalog.lock();
        match state.tree.node(ino) {
            Some(Node::Asset(node)) => Ok(read(node)),
            Some(Node::Local(_)) => Ok(None),
            None => {
                drop(state);
                self.place(ino).map(|_| None).ok_or(FsError::NotFound)
            }
        }
    }
}

/// Whether a copier brings along a state that was shown for another file.
fn is_state(value: &[u8]) -> bool {
    let starts: [&[u8]; 6] = [
        b"open",
        b"local",
        b"queued",
        b"sending ",
        b"done",
        b"failed: ",
    ];
    starts.iter().any(|start| value.starts_with(start))
}
