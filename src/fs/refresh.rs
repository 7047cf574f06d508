//! Forgetting what was listed, by the user's order: `reelfs refresh`.
//!
//! The order is a look at the attribute `user.reelfs.refresh` of a directory (or of a file, for the
//! directory it stands in; of the root, for all). It is read and not set, because a mount with
//! `--read-only` lets nothing be set, and needs it most; it is in no list of attributes, so nothing
//! reads it by chance. Setting it changes nothing: the kernel then tells programs that watch the
//! file or directory that its attributes changed, which is the one event that a program can cause
//! for a change at a service.
//!
//! Promise: the next look at such a directory asks the service. If that fails because the service
//! is unwell, the older listing stands in as it always does. Waits for nobody.

use super::catalog::Catalog;
use super::kernel::Forget;
use super::{FsError, LibraryFs, Place};
use crate::provider::{Library, Service};
use crate::tree::{inode, name};

/// See the module's head.
pub const REFRESH: &str = "user.reelfs.refresh";

impl LibraryFs {
    /// Forgets the listings of the directory `ino`, or of what is below it. The value of the
    /// attribute: the directories, below the mount point, each on a line.
    pub(super) fn refresh(&self, ino: u64) -> Result<Vec<u8>, FsError> {
        let services = self.catalog.lock().tree.services().to_vec();
        let of_services = |services: &[Service]| -> Vec<Library> {
            services
                .iter()
                .flat_map(|s| s.libraries())
                .copied()
                .collect()
        };
        let libraries = match self.place(ino).ok_or(FsError::NotFound)? {
            Place::Root => of_services(&services),
            Place::Service(service) => of_services(&[service]),
            Place::Library(library) => vec![library],
            Place::File => {
                let state = self.catalog.lock();
                let node = state.tree.node(ino).ok_or(FsError::NotFound)?;
                vec![node.library()]
            }
            Place::Control | Place::ControlFile(_) => return Err(FsError::NoAttribute),
        };
        for library in &libraries {
            self.catalog.distrust(*library);
        }
        let lines = libraries.iter().map(|library| format!("{library}\n"));
        Ok(lines.collect::<String>().into_bytes())
    }
}

impl Catalog {
    /// Lets no listing of `library` from before this call be taken for fresh.
    fn distrust(&self, library: Library) {
        let mut forget = vec![Forget::Data {
            ino: inode::of_library(library),
        }];
        let mut state = self.lock();
        state.distrust(library);
        if library == Library::Runflow {
            for entry in state.tree.entries(library).iter() {
                if let Some(node) = state.tree.asset_mut(entry.ino) {
                    node.seen_at = None;
                }
                // Both names that a look-up may have had.
                let (stem, _) = name::split_extension(&entry.name);
                let names = [stem.to_string(), entry.name.to_string()];
                let parent = inode::of_library(library);
                forget.extend(names.map(|name| Forget::Name { parent, name }));
            }
        }
        drop(state);
        self.tell_kernel(forget);
    }
}
