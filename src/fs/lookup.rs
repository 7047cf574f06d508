//! From names to numbers: directories are fixed, files come from listings, Runflow assets are asked
//! for one by one.

use std::ffi::OsStr;
use std::sync::Arc;

use super::{Attr, Done, FsError, LibraryFs, Place, control};
use crate::provider::{AssetId, Library, Service, media_type};
use crate::reader::AssetKey;
use crate::tree::Node;
use crate::tree::name::{self, MAX_NAME_BYTES};

impl LibraryFs {
    /// The file or directory called `name` in `parent`. Counted for [`Self::forget`] once it is
    /// handed to the kernel: see [`Self::remember`].
    pub fn lookup(self: &Arc<Self>, parent: u64, name: &OsStr, done: Done<Attr>) {
        // The kernel hands on up to 1,024 bytes.
        if name.len() > MAX_NAME_BYTES {
            return done(Err(FsError::NameTooLong));
        }
        let Some(name) = name.to_str() else {
            return done(Err(FsError::NotFound));
        };
        match self.place(parent) {
            Some(Place::Root) if name == control::NAME => done(Ok(self.control_attr())),
            Some(Place::Root) => done(self.service_named(name).ok_or(FsError::NotFound)),
            Some(Place::Service(service)) => {
                let library = service.libraries().iter().find(|l| l.name() == name);
                done(
                    library
                        .map(|l| self.library_attr(*l))
                        .ok_or(FsError::NotFound),
                );
            }
            Some(Place::Library(Library::Runflow)) => self.lookup_runflow(name, done),
            Some(Place::Library(library)) => self.lookup_file(library, name, done),
            Some(Place::Control) => done(self.control_lookup(name)),
            Some(Place::File | Place::ControlFile(_)) => done(Err(FsError::NotDirectory)),
            None => done(Err(FsError::NotFound)),
        }
    }

    /// The number of an asset that stands in `parent` by what its service said lately, whether or
    /// not its size is known. Waits for nothing.
    pub fn listed_number(&self, parent: u64, name: &OsStr) -> Option<u64> {
        let name = name.to_str()?;
        let Some(Place::Library(library)) = self.place(parent) else {
            return None;
        };
        let state = self.catalog.lock();
        let ino = match library {
            Library::Runflow => state.tree.ino_of(&AssetKey {
                service: Service::Runflow,
                id: runflow_id(name)?,
            }),
            _ => state.tree.lookup(library, name),
        }?;
        let seen_at = state.tree.asset(ino)?.seen_at;
        let ttl = self.catalog.listing_ttl();
        let seen_lately = seen_at.is_some_and(|at| self.catalog.now() < at + ttl);
        let listed_lately = !self.catalog.fresh_for(&state, library).is_zero();
        (seen_lately || listed_lately).then_some(ino)
    }

    fn service_named(&self, name: &str) -> Option<Attr> {
        let state = self.catalog.lock();
        let service = state.tree.services().iter().copied();
        let service = service.into_iter().find(|s| s.name() == name);
        drop(state);
        service.map(|service| self.service_attr(service))
    }

    fn lookup_file(self: &Arc<Self>, library: Library, name: &str, done: Done<Attr>) {
        let state = self.catalog.lock();
        let here = state.tree.lookup(library, name);
        let is_local = here.is_some_and(|ino| matches!(state.tree.node(ino), Some(Node::Local(_))));
        drop(state);
        if let (Some(ino), true) = (here, is_local) {
            return self.file_attr_or_learn(ino, done);
        }
        let (fs, name) = (Arc::clone(self), name.to_string());
        self.catalog.ensure_listed(
            library,
            Box::new(move |listed| {
                let found = listed.and_then(|()| {
                    let ino = fs.catalog.lock().tree.lookup(library, &name);
                    ino.ok_or(FsError::NotFound)
                });
                match found {
                    Ok(ino) => fs.file_attr_or_learn(ino, done),
                    Err(error) => done(Err(error)),
                }
            }),
        );
    }

    /// `<uuid>` or `<uuid>.<ext>`, where the extension fits the asset's type.
    fn lookup_runflow(self: &Arc<Self>, name: &str, done: Done<Attr>) {
        let (stem, extension) = name::split_extension(name);
        let Some(id) = runflow_id(stem) else {
            return done(Err(FsError::NotFound));
        };
        let extension = extension.map(str::to_ascii_lowercase);
        let fs = Arc::clone(self);
        let asked = id.clone();
        self.catalog.ensure_found(
            id,
            Box::new(move |found| {
                let ino = found.and_then(|()| fs.runflow_file(&asked, extension.as_deref()));
                match ino {
                    Ok(ino) => fs.file_attr_or_learn(ino, done),
                    Err(error) => done(Err(error)),
                }
            }),
        );
    }

    fn runflow_file(&self, id: &AssetId, extension: Option<&str>) -> Result<u64, FsError> {
        let key = AssetKey {
            service: Service::Runflow,
            id: id.clone(),
        };
        let state = self.catalog.lock();
        let ino = state.tree.ino_of(&key).ok_or(FsError::NotFound)?;
        let node = state.tree.asset(ino).ok_or(FsError::NotFound)?;
        let fits = extension.is_none_or(|asked| {
            let named = node.asset.name.as_deref().map(name::split_extension);
            let named = named.and_then(|(_, extension)| extension.map(str::to_ascii_lowercase));
            let own = name::extension_of(&node.asset).or(named);
            own.is_some_and(|own| media_type::same_type(asked, &own))
        });
        fits.then_some(ino).ok_or(FsError::NotFound)
    }
}

/// A Runflow id as the service spells it, or nothing for what isn't a UUID.
fn runflow_id(text: &str) -> Option<AssetId> {
    let hyphenated = text.len() == 36;
    let uuid = uuid::Uuid::try_parse(text).ok().filter(|_| hyphenated)?;
    Some(AssetId::new(uuid.to_string()))
}
