//! Reading directories. A handle keeps what it gave first, so that a program that reads in pieces
//! sees one state of the directory.

use std::sync::{Arc, Mutex};

use super::{Done, FsError, Kind, LibraryFs, Place, lock};
use crate::provider::Library;
use crate::tree::inode;

/// An entry of a directory as `readdir` gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub ino: u64,
    pub name: Arc<str>,
    pub kind: Kind,
}

/// An open directory.
pub(super) struct DirHandle {
    place: Place,
    snapshot: Mutex<Option<Arc<[Listed]>>>,
}

impl LibraryFs {
    /// A handle for reading a directory; its entries are asked for by [`Self::readdir`].
    pub fn opendir(&self, ino: u64) -> Result<u64, FsError> {
        match self.place(ino) {
            Some(Place::File | Place::ControlFile(_)) => Err(FsError::NotDirectory),
            None => Err(FsError::NotFound),
            Some(place) => Ok(self.directories.insert(DirHandle {
                place,
                snapshot: Mutex::new(None),
            })),
        }
    }

    /// The directory's entries, `.` and `..` first. Asked from the start (`rewind`), they are what
    /// the directory has now; after that the handle goes on with the same ones, so that no entry
    /// is given twice or left out while the directory changes.
    pub fn readdir(self: &Arc<Self>, fh: u64, rewind: bool, done: Done<Arc<[Listed]>>) {
        let Some(handle) = self.directories.get(fh) else {
            return done(Err(FsError::BadHandle));
        };
        let snapshot = lock(&handle.snapshot).clone();
        if let (Some(snapshot), false) = (snapshot, rewind) {
            return done(Ok(snapshot));
        }
        let Place::Library(library) = handle.place else {
            let entries = self.fixed_entries(handle.place);
            *lock(&handle.snapshot) = Some(Arc::clone(&entries));
            return done(Ok(entries));
        };
        lock(&self.read_directories).insert(library, self.catalog.now());
        let fs = Arc::clone(self);
        self.catalog.ensure_listed(
            library,
            Box::new(move |listed| {
                done(listed.map(|()| {
                    fs.prepare_connections(library);
                    let entries = fs.library_entries(library);
                    *lock(&handle.snapshot) = Some(Arc::clone(&entries));
                    entries
                }));
                fs.picture_directory(library);
            }),
        );
    }

    /// Ends a handle of [`Self::opendir`].
    pub fn releasedir(&self, fh: u64) {
        self.directories.remove(fh);
    }

    fn fixed_entries(&self, place: Place) -> Arc<[Listed]> {
        let directory = |ino, name: &str| Listed {
            ino,
            name: name.into(),
            kind: Kind::Directory,
        };
        let here = match place {
            Place::Service(service) => inode::of_service(service),
            Place::Control => inode::CONTROL,
            _ => inode::ROOT,
        };
        let mut entries = vec![directory(here, "."), directory(inode::ROOT, "..")];
        match place {
            Place::Service(service) => {
                let libraries = service.libraries().iter();
                entries.extend(libraries.map(|l| directory(inode::of_library(*l), l.name())));
            }
            Place::Control => entries.extend(self.control_entries()),
            _ => {
                let services = self.catalog.lock().tree.services().to_vec();
                let named = services.iter();
                entries.extend(named.map(|s| directory(inode::of_service(*s), s.name())));
            }
        }
        entries.into()
    }

    fn library_entries(&self, library: Library) -> Arc<[Listed]> {
        let files = self.catalog.lock().tree.entries(library);
        let parent = match library {
            Library::Runflow => inode::ROOT,
            _ => inode::of_service(library.service()),
        };
        let directory = |ino, name: &str| Listed {
            ino,
            name: name.into(),
            kind: Kind::Directory,
        };
        let mut entries = Vec::with_capacity(files.len() + 2);
        entries.push(directory(inode::of_library(library), "."));
        entries.push(directory(parent, ".."));
        entries.extend(files.iter().map(|entry| Listed {
            ino: entry.ino,
            name: Arc::clone(&entry.name),
            kind: Kind::File,
        }));
        entries.into()
    }
}
