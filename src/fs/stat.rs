//! What `stat` shows, and for how long the kernel may believe it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Attr, Done, FsError, Kind, LibraryFs, Listed, Place, attr, lock};
use crate::provider::{Library, Service};
use crate::tree::{AssetNode, Node, inode};
use crate::upload::StagedFile;

/// How long the kernel may believe what only this program changes.
const OWN_TTL: Duration = Duration::from_secs(1);
/// Directories are fixed for the mount; a minute spares the kernel most questions.
pub(super) const DIRECTORY_TTL: Duration = Duration::from_secs(60);

impl LibraryFs {
    /// What `stat` shows. Waits where only the asset host knows.
    pub fn getattr(self: &Arc<Self>, ino: u64, done: Done<Attr>) {
        match self.place(ino) {
            Some(Place::Root) => done(Ok(self.root_attr())),
            Some(Place::Service(service)) => done(Ok(self.service_attr(service))),
            Some(Place::Library(library)) => done(Ok(self.library_attr(library))),
            Some(Place::Control) => done(Ok(self.control_attr())),
            Some(Place::ControlFile(file)) => done(Ok(self.control_file_attr(file))),
            Some(Place::File) => match self.written_attr(ino) {
                Some(attr) => done(Ok(attr)),
                None => self.file_attr_or_learn(ino, done),
            },
            None => done(Err(FsError::NotFound)),
        }
    }

    /// As [`Self::getattr`], by the handle `fh` or, without one, for the process `asker`. While an
    /// asset is written over, whoever writes sees what is written, and everybody else the asset: a
    /// reader that took the new size for the old one's would end early.
    pub fn getattr_for(
        self: &Arc<Self>,
        ino: u64,
        fh: Option<u64>,
        asker: impl FnOnce() -> u32,
        done: Done<Attr>,
    ) {
        let by_handle = fh.and_then(|fh| self.files.get(fh));
        let writes = || match by_handle {
            Some(handle) => handle.writing().is_some(),
            None => self.is_writer(ino, asker()),
        };
        match self.place(ino) {
            Some(Place::File) if self.is_written_over(ino) && !writes() => {
                self.file_attr_or_learn(ino, done);
            }
            _ => self.getattr(ino, done),
        }
    }

    /// Attributes of an entry where they are known without waiting.
    pub fn known_attr(&self, ino: u64) -> Option<Attr> {
        match self.place(ino)? {
            Place::Root => Some(self.root_attr()),
            Place::Service(service) => Some(self.service_attr(service)),
            Place::Library(library) => Some(self.library_attr(library)),
            Place::Control => Some(self.control_attr()),
            Place::ControlFile(file) => Some(self.control_file_attr(file)),
            Place::File => self.file_attr(ino),
        }
    }

    /// As [`Self::known_attr`], of many entries under one lock, in their order.
    pub fn known_attrs(&self, entries: &[Listed]) -> Vec<Option<Attr>> {
        let written: HashSet<u64> = {
            let overlays = lock(&self.overlays);
            let numbers = overlays.iter();
            numbers.flat_map(|(ino, file)| [*ino, file.ino()]).collect()
        };
        let state = self.catalog.lock();
        let mut fresh: Option<(Library, Duration)> = None;
        let mut known = Vec::with_capacity(entries.len());
        for entry in entries {
            let asset = state.tree.asset(entry.ino);
            let asset = asset.filter(|_| !written.contains(&entry.ino));
            let attr = asset.map(|node| {
                let library = node.asset.library;
                let ttl = match fresh {
                    Some((of, ttl)) if of == library => ttl,
                    _ => self.catalog.fresh_for(&state, library),
                };
                fresh = Some((library, ttl));
                self.asset_attr(entry.ino, node, ttl)
            });
            known.push(attr);
        }
        drop(state);
        let with_rest = entries.iter().zip(known);
        with_rest
            .map(|(entry, known)| known.unwrap_or_else(|| self.known_attr(entry.ino)))
            .collect()
    }

    pub(super) fn root_attr(&self) -> Attr {
        self.directory_attr(inode::ROOT)
    }

    pub(super) fn service_attr(&self, service: Service) -> Attr {
        match service {
            Service::Runflow => self.library_attr(Library::Runflow),
            _ => self.directory_attr(inode::of_service(service)),
        }
    }

    pub(super) fn library_attr(&self, library: Library) -> Attr {
        self.directory_attr(inode::of_library(library))
    }

    fn directory_attr(&self, ino: u64) -> Attr {
        Attr::directory(ino, self.mounted_at, DIRECTORY_TTL)
    }

    pub(super) fn file_attr_or_learn(self: &Arc<Self>, ino: u64, done: Done<Attr>) {
        if let Some(attr) = self.file_attr(ino) {
            return done(Ok(attr));
        }
        let fs = Arc::clone(self);
        self.learn(
            ino,
            Box::new(move |learned| {
                done(learned.and_then(|()| fs.file_attr(ino).ok_or(FsError::NotFound)));
            }),
        );
    }

    /// Attributes of a file where they are known.
    fn file_attr(&self, ino: u64) -> Option<Attr> {
        // The kernel sees no change by the older asset's number as one of the version's, nor the
        // other way.
        let shared = self.is_written_over(ino) || self.is_written_elsewhere(ino);
        let ttl_or = |own| if shared { Duration::ZERO } else { own };
        let state = self.catalog.lock();
        if let Node::Asset(node) = state.tree.node(ino)? {
            let ttl = ttl_or(self.catalog.fresh_for(&state, node.asset.library));
            return self.asset_attr(ino, node, ttl);
        }
        drop(state);
        let ttl = ttl_or(OWN_TTL);
        staged_attr(ino, &*self.staged_file(ino)?, ttl)
    }

    /// What is written over an asset, under the asset's number.
    pub(super) fn written_attr(&self, ino: u64) -> Option<Attr> {
        let written = lock(&self.overlays).get(&ino).cloned()?;
        let staged = staged_attr(ino, &written, Duration::ZERO)?;
        let asset = self
            .asset_of(&written)
            .and_then(|asset| self.file_attr(asset));
        // Once it is uploaded, its times and mode are the asset's; its bytes are the writer's.
        Some(match asset {
            Some(asset) => Attr {
                mtime: asset.mtime,
                mode: asset.mode,
                ..staged
            },
            None => staged,
        })
    }

    fn is_written_over(&self, ino: u64) -> bool {
        lock(&self.overlays).contains_key(&ino)
    }

    /// Whether a staged file is a new version that is written by its older asset's number.
    pub(super) fn is_written_elsewhere(&self, ino: u64) -> bool {
        let overlays = lock(&self.overlays);
        overlays.values().any(|version| version.ino() == ino)
    }

    /// `fresh` is how long the listing of the asset's directory may be believed.
    fn asset_attr(&self, ino: u64, node: &AssetNode, fresh: Duration) -> Option<Attr> {
        let library = node.asset.library;
        let kept = node.kept.mode.map(|mode| (mode & 0o777) as u16);
        let mode = kept.unwrap_or(attr::FILE_MODE);
        let ttl = match library {
            Library::Runflow => self.catalog.seen_for(node),
            _ => fresh,
        };
        Some(Attr {
            ino,
            kind: Kind::File,
            size_bytes: node.size_bytes()?,
            mtime: self.shown_mtime(node)?,
            mode,
            ttl,
        })
    }
}

fn staged_attr(ino: u64, staged: &StagedFile, ttl: Duration) -> Option<Attr> {
    Some(Attr {
        ino,
        kind: Kind::File,
        size_bytes: staged.size_bytes().ok()?,
        mtime: staged.times().ok()?.mtime,
        mode: (staged.mode() & 0o777) as u16,
        ttl,
    })
}
