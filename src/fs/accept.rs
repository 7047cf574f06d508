//! Which names a directory takes.

use std::ffi::OsStr;

use super::{FsError, LibraryFs, Place, control, lock};
use crate::provider::{Library, media_type};
use crate::tree::Node;
use crate::tree::name::{MAX_NAME_BYTES, split_extension};
use crate::upload::is_local_name;

/// Characters that rsync adds to the name of a file it is writing: `.clip.mp4.Ab12Cd`.
const RSYNC_SUFFIX_CHARS: usize = 6;

impl LibraryFs {
    /// The name of a file to be made, if the directory takes it.
    pub(super) fn name_to_write(&self, library: Library, name: &OsStr) -> Result<String, FsError> {
        if !self.takes_files(library) {
            return Err(FsError::ReadOnly);
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(FsError::NameTooLong);
        }
        let name = name.to_str().ok_or(FsError::BadName)?;
        check_type(library, name)?;
        Ok(name.to_string())
    }

    /// Library, name and whether it is an asset, of a file that can be written to.
    pub(super) fn writable(&self, ino: u64) -> Result<(Library, String, bool), FsError> {
        let state = self.catalog.lock();
        let Some(node) = state.tree.node(ino) else {
            drop(state);
            return Err(match self.place(ino) {
                Some(Place::ControlFile(_)) => control::UNCHANGEABLE,
                Some(_) => FsError::IsDirectory,
                None => FsError::NotFound,
            });
        };
        let library = node.library();
        let is_asset = matches!(node, Node::Asset(_));
        let name = state.tree.name_of(ino).map(str::to_string);
        drop(state);
        // Under an asset's number its new version shows, and has the name.
        let version = lock(&self.overlays).get(&ino).cloned();
        let name = version.map(|file| file.name()).or(name);
        if !self.takes_files(library) {
            return Err(FsError::ReadOnly);
        }
        // A file that left its directory has no name to upload a new version under.
        let name = name.ok_or(FsError::Stale)?;
        check_type(library, &name)?;
        Ok((library, name, is_asset))
    }
}

/// Refuses a name whose type the service doesn't take there. Temporary names are taken as they
/// come, but for rsync's, which show the final one: a copy that would be refused at its end is
/// refused at its beginning.
fn check_type(library: Library, name: &str) -> Result<(), FsError> {
    let named = match rsync_target(name) {
        Some(target) => target,
        None if is_local_name(name) => return Ok(()),
        None => name,
    };
    let (_, extension) = split_extension(named);
    let taken = extension.and_then(|extension| media_type::for_upload(library, extension));
    if taken.is_some() {
        return Ok(());
    }
    let accepted = media_type::accepted_extensions(library).join(", ");
    let why = format!("{library} takes files that end in {accepted}; {named:?} does not");
    log::warn!("{why}");
    Err(FsError::UnsupportedType(why))
}

/// `clip.mp4` for `.clip.mp4.Ab12Cd`, where what is between has an extension.
fn rsync_target(name: &str) -> Option<&str> {
    let (target, suffix) = name.strip_prefix('.')?.rsplit_once('.')?;
    let random = suffix.len() == RSYNC_SUFFIX_CHARS;
    let random = random && suffix.bytes().all(|b| b.is_ascii_alphanumeric());
    (random && split_extension(target).1.is_some()).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_the_service_does_not_take_is_refused_by_its_name() {
        let refused = |name| check_type(Library::RunwayImage, name).is_err();
        for name in ["notes.txt", "clip.mp4", "no extension", ".notes.txt.Ab12Cd"] {
            assert!(refused(name), "{name}");
        }
        for name in [
            "a.png",
            "A.PNG",
            ".a.png.Ab12Cd",
            ".DS_Store",
            "._a.png",
            "a.png~",
        ] {
            assert!(!refused(name), "{name}");
        }
    }

    #[test]
    fn rsyncs_temporary_names_show_the_final_one() {
        assert_eq!(rsync_target(".clip.mp4.Ab12Cd"), Some("clip.mp4"));
        for other in [
            ".goutputstream-W3OB01",
            ".clip.mp4",
            "clip.mp4.Ab12Cd",
            ".a.backup",
        ] {
            assert_eq!(rsync_target(other), None, "{other}");
        }
    }
}
