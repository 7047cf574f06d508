//! The namespace: which file stands in which directory under which name and number. Pure state:
//! no I/O, no locks, no clock; whoever owns it locks it and tells it the time.
//!
//! Promises: a directory's entries are those of its last whole listing, plus files that were
//! uploaded or are on their way, minus deleted ones. Numbers are stable while the identity is, but
//! for an asset whose bytes are replaced while it is open: it gets a new number, and the older one
//! stays with what was opened, because the kernel keeps one size and one set of pages a number.
//! A file that left its directory stays as long as the kernel or a handle knows it.

mod directory;
pub mod inode;
mod lifetime;
pub mod name;
mod node;
mod revise;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::provider::{Asset, AssetId, Library, Service};
use crate::reader::AssetKey;

pub use directory::DirEntry;
use directory::Directory;
use node::wanted_name;
pub use node::{AssetNode, Kept, LocalNode, Node};

/// How long a service's listing may lag behind an upload or a deletion of our own before the
/// listing is believed. Nothing documents a lag; a minute covers a cached list page.
pub const LISTING_LAG: Duration = Duration::from_secs(60);

struct Held {
    node: Node,
    /// How often the kernel was given this number and has not forgotten it.
    lookups: u64,
    /// Handles that are open on this number.
    opens: u32,
    /// Whether its directory has it.
    linked: bool,
}

/// What a new listing changed, for the kernel's caches and our own.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Names that now mean another file or none.
    pub names: Vec<String>,
    /// Files whose bytes are others now, under the number that they had.
    pub revised: Vec<u64>,
    /// Names came or went.
    pub directory: bool,
}

/// See the module's head.
pub struct Tree {
    services: Vec<Service>,
    files: HashMap<u64, Held>,
    by_asset: HashMap<AssetKey, u64>,
    directories: HashMap<Library, Directory>,
    /// Files that are gone from memory since they were last asked for.
    dropped: Vec<u64>,
}

impl Tree {
    /// A tree that shows `services`.
    pub fn new(services: &[Service]) -> Self {
        let libraries = services.iter().flat_map(|s| s.libraries());
        Self {
            services: services.to_vec(),
            files: HashMap::new(),
            by_asset: HashMap::new(),
            directories: libraries.map(|l| (*l, Directory::default())).collect(),
            dropped: Vec::new(),
        }
    }

    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// What stands behind a number.
    pub fn node(&self, ino: u64) -> Option<&Node> {
        self.files.get(&ino).map(|held| &held.node)
    }

    /// The asset of a number, if it is one.
    pub fn asset(&self, ino: u64) -> Option<&AssetNode> {
        match self.node(ino)? {
            Node::Asset(node) => Some(node),
            Node::Local(_) => None,
        }
    }

    /// As [`Self::asset`], to change what is known of it.
    pub fn asset_mut(&mut self, ino: u64) -> Option<&mut AssetNode> {
        match &mut self.files.get_mut(&ino)?.node {
            Node::Asset(node) => Some(node),
            Node::Local(_) => None,
        }
    }

    /// The number of an asset's newest revision.
    pub fn ino_of(&self, key: &AssetKey) -> Option<u64> {
        self.by_asset.get(key).copied()
    }

    /// Whether the file stands in its directory (else only handles and the kernel know it).
    pub fn is_linked(&self, ino: u64) -> bool {
        self.files.get(&ino).is_some_and(|held| held.linked)
    }

    /// The file of this name, among those of the last listing.
    pub fn lookup(&self, library: Library, name: &str) -> Option<u64> {
        self.directories.get(&library)?.lookup(name)
    }

    /// The name under which a file stands in its directory; for an older revision of an asset that
    /// of the newest.
    pub fn name_of(&self, ino: u64) -> Option<&str> {
        let directory = self.directories.get(&self.node(ino)?.library())?;
        let newest = self.asset(ino).and_then(|node| self.ino_of(&node.key()));
        directory.name_of(newest.unwrap_or(ino))
    }

    /// The directory's entries, in a stable order.
    pub fn entries(&self, library: Library) -> Arc<[DirEntry]> {
        match self.directories.get(&library) {
            Some(directory) => directory.entries(),
            None => Arc::from([]),
        }
    }

    /// When the listing that stands was asked for; `None` before the first.
    pub fn listed_at(&self, library: Library) -> Option<Instant> {
        self.directories.get(&library)?.listed_at
    }

    /// Takes a whole listing that was asked for at `asked_at`.
    pub fn apply_listing(
        &mut self,
        library: Library,
        assets: Vec<Asset>,
        asked_at: Instant,
        kept: &dyn Fn(&AssetId) -> Option<Kept>,
    ) -> Changes {
        let mut changes = Changes::default();
        let mut listed = Vec::with_capacity(assets.len());
        for asset in assets {
            let ino = self.put(asset, Some(asked_at), kept, &mut changes);
            listed.push(ino);
        }
        let Some(directory) = self.directories.get_mut(&library) else {
            return changes;
        };
        let files = &self.files;
        let unseen = listed.clone();
        directory.take_listing(listed, asked_at, |ino| {
            Some(&asset_of(files, ino)?.asset.id)
        });
        self.rebuild(library, &mut changes);
        for ino in unseen {
            self.drop_if_unused(ino);
        }
        changes
    }

    /// Takes one asset outside of a listing: one that was just uploaded, or looked up by its id.
    pub fn put_asset(&mut self, asset: Asset, kept: Kept, at: Instant) -> (u64, Changes) {
        let library = asset.library;
        let mut changes = Changes::default();
        let given = Some(kept);
        let ino = self.put(asset, Some(at), &|_| given.clone(), &mut changes);
        if let Some(directory) = self.directories.get_mut(&library) {
            directory.add_beside_listing(ino, at);
        }
        self.rebuild(library, &mut changes);
        (ino, changes)
    }

    /// Takes an asset that an earlier mount knew, until the service is asked for it again.
    pub fn recall_asset(&mut self, asset: Asset) -> u64 {
        let library = asset.library;
        let mut changes = Changes::default();
        let ino = self.put(asset, None, &|_| None, &mut changes);
        if let Some(directory) = self.directories.get_mut(&library) {
            directory.recall(ino);
        }
        self.rebuild(library, &mut changes);
        ino
    }

    /// Forgets an asset that was deleted at `at`; a listing made before does not bring it back.
    pub fn remove_asset(&mut self, ino: u64, at: Instant) -> Changes {
        let mut changes = Changes::default();
        let Some(node) = self.asset(ino) else {
            return changes;
        };
        let (library, id) = (node.asset.library, node.asset.id.clone());
        if let Some(directory) = self.directories.get_mut(&library) {
            directory.remove_asset(ino, id, at);
        }
        self.rebuild(library, &mut changes);
        changes
    }

    /// Puts a local file in its directory, above every asset of its name. `ino` must be free.
    pub fn add_local(&mut self, ino: u64, node: LocalNode) -> Changes {
        let mut changes = Changes::default();
        let library = node.library;
        let name = node.name.clone();
        let mut held = Held {
            node: Node::Local(node),
            lookups: 0,
            opens: 0,
            linked: false,
        };
        let Some(directory) = self.directories.get_mut(&library) else {
            return changes;
        };
        directory.locals.push(ino);
        if directory.lookup(&name).is_none() {
            directory.add_entry(&name, ino);
            changes.directory = true;
            held.linked = true;
            self.files.insert(ino, held);
        } else {
            self.files.insert(ino, held);
            self.rebuild(library, &mut changes);
        }
        changes
    }

    /// Takes a local file out of its directory: it was removed, or replaced by another.
    pub fn remove_local(&mut self, ino: u64) -> Changes {
        let mut changes = Changes::default();
        if let Some(Node::Local(node)) = self.node(ino) {
            let library = node.library;
            if let Some(directory) = self.directories.get_mut(&library) {
                directory.locals.retain(|other| *other != ino);
            }
            self.rebuild(library, &mut changes);
        }
        changes
    }

    /// Moves a local file; it becomes the newest of its new name.
    pub fn rename_local(&mut self, ino: u64, to: LocalNode) -> Changes {
        let mut changes = Changes::default();
        let library = to.library;
        let Some(held) = self.files.get_mut(&ino) else {
            return changes;
        };
        if matches!(held.node, Node::Asset(_)) {
            // Its upload ended meanwhile, under the new name.
            return changes;
        }
        let from = held.node.library();
        held.node = Node::Local(to);
        if from != library {
            for directory in [from, library] {
                if let Some(directory) = self.directories.get_mut(&directory) {
                    directory.locals.retain(|other| *other != ino);
                }
            }
            if let Some(directory) = self.directories.get_mut(&library) {
                directory.locals.push(ino);
            }
            // The old directory lets go first; the reference keeps the file meanwhile.
            self.remember(ino);
            self.rebuild(from, &mut changes);
            self.rebuild(library, &mut changes);
            self.forget(ino, 1);
            return changes;
        }
        self.rebuild(library, &mut changes);
        changes
    }

    /// Turns the local file `ino` into the asset it was uploaded as, under the same number. An
    /// asset that stands already (the same bytes were there, or a listing was faster) keeps its
    /// own, and the local file leaves.
    pub fn promote(&mut self, ino: u64, asset: Asset, kept: Kept, at: Instant) -> Changes {
        let library = asset.library;
        let mut changes = Changes::default();
        let node = AssetNode::new(asset, kept, Some(at));
        let keeps_its_place = self.is_alone(library, ino, &node.wanted);
        for directory in self.directories.values_mut() {
            directory.locals.retain(|other| *other != ino);
        }
        let stands = self.by_asset.get(&node.key()).copied();
        match stands.and_then(|ino| self.asset_mut(ino)) {
            Some(known) => {
                known.kept = Kept {
                    ino: known.kept.ino,
                    ..node.kept
                };
                known.is_revised &= known.kept.updated_at != known.asset.updated_at;
                known.wanted = wanted_name(&known.asset, &known.kept);
            }
            None => {
                self.become_asset(ino, node, at);
                if keeps_its_place {
                    self.link(ino);
                    return changes;
                }
            }
        }
        self.rebuild(library, &mut changes);
        changes
    }

    /// Whether a file has this name and no other asks for it, so that no name changes when its
    /// rank among those of its name does.
    fn is_alone(&self, library: Library, ino: u64, name: &str) -> bool {
        let Some(directory) = self.directories.get(&library) else {
            return false;
        };
        let locals = directory.locals.iter().filter(|other| **other != ino);
        let mut locals = locals.filter_map(|other| local_of(&self.files, *other));
        directory.lookup(name) == Some(ino)
            && locals.all(|other| other.name != name)
            && self.assets(library).all(|other| &*other.wanted != name)
    }

    fn link(&mut self, ino: u64) {
        if let Some(held) = self.files.get_mut(&ino) {
            held.linked = true;
        }
    }

    fn become_asset(&mut self, ino: u64, node: AssetNode, at: Instant) {
        let library = node.asset.library;
        self.by_asset.insert(node.key(), ino);
        let before = self.files.get(&ino);
        let held = Held {
            node: Node::Asset(Box::new(node)),
            lookups: before.map_or(0, |held| held.lookups),
            opens: before.map_or(0, |held| held.opens),
            linked: false,
        };
        self.files.insert(ino, held);
        if let Some(directory) = self.directories.get_mut(&library) {
            directory.add_beside_listing(ino, at);
        }
    }

    /// The newest asset that asks for this name, whatever local file stands above it.
    pub fn newest_asset_named(&self, library: Library, name: &str) -> Option<&AssetNode> {
        self.assets(library)
            .filter(|node| &*node.wanted == name)
            .max_by_key(|node| node.newness())
    }

    /// The assets whose name at the service is one of these.
    pub fn ids_named(&self, library: Library, is_meant: impl Fn(&str) -> bool) -> Vec<AssetId> {
        self.assets(library)
            .filter(|node| node.asset.name.as_deref().is_some_and(&is_meant))
            .map(|node| node.asset.id.clone())
            .collect()
    }

    fn assets(&self, library: Library) -> impl Iterator<Item = &AssetNode> {
        let directory = self.directories.get(&library).into_iter();
        directory
            .flat_map(Directory::assets)
            .filter_map(|ino| self.asset(ino))
    }

    fn put(
        &mut self,
        asset: Asset,
        at: Option<Instant>,
        kept: &dyn Fn(&AssetId) -> Option<Kept>,
        changes: &mut Changes,
    ) -> u64 {
        let key = AssetKey {
            service: asset.library.service(),
            id: asset.id.clone(),
        };
        let known = self.by_asset.get(&key).copied();
        let is_revised = |node: &AssetNode| node.is_revised_by(&asset);
        let revised = known.filter(|ino| self.asset(*ino).is_some_and(is_revised));
        let known = match revised {
            Some(ino) => Some(self.revise_to(ino, &asset, changes)),
            None => known,
        };
        if let Some(ino) = known
            && let Some(node) = self.asset_mut(ino)
        {
            if revised.is_some() {
                node.learned = None;
                node.is_revised = true;
            }
            if node
                .learned
                .as_ref()
                .is_some_and(|info| info.size_bytes == 0)
            {
                // A host in trouble says so too: ask again.
                node.learned = None;
            }
            node.wanted = wanted_name(&asset, &node.kept);
            let url = asset.url.clone().or_else(|| node.asset.url.take());
            node.asset = Asset { url, ..asset };
            node.seen_at = at.or(node.seen_at);
            return ino;
        }
        let kept = kept(&asset.id).unwrap_or_default();
        let mut ino = kept
            .ino
            .unwrap_or_else(|| inode::of_asset(key.service, &key.id));
        while self.files.contains_key(&ino) {
            ino = inode::next(ino);
        }
        let held = Held {
            node: Node::Asset(Box::new(AssetNode::new(asset, kept, at))),
            lookups: 0,
            opens: 0,
            linked: false,
        };
        self.files.insert(ino, held);
        self.by_asset.insert(key, ino);
        ino
    }

    /// Names every file of a directory anew.
    fn rebuild(&mut self, library: Library, changes: &mut Changes) {
        let Some(directory) = self.directories.get_mut(&library) else {
            return;
        };
        let files = &self.files;
        let mut locals: Vec<(u64, &LocalNode)> = directory
            .locals
            .iter()
            .filter_map(|ino| Some((*ino, local_of(files, *ino)?)))
            .collect();
        locals.sort_by_key(|(_, node)| std::cmp::Reverse(node.sequence));
        let mut assets: Vec<(u64, &AssetNode)> = directory
            .assets()
            .filter_map(|ino| Some((ino, asset_of(files, ino)?)))
            .collect();
        assets.sort_by_cached_key(|(_, node)| std::cmp::Reverse(node.newness()));

        let wanted = locals
            .iter()
            .map(|(_, node)| (node.name.as_str(), "local"))
            .chain(
                assets
                    .iter()
                    .map(|(_, node)| (&*node.wanted, node.asset.id.as_str())),
            );
        let names = name::unique_names(wanted);
        let numbers = locals
            .iter()
            .map(|(ino, _)| *ino)
            .chain(assets.iter().map(|(ino, _)| *ino));
        let unlinked = directory.set_entries(names.into_iter().zip(numbers), changes);
        for ino in directory.numbers() {
            if let Some(held) = self.files.get_mut(&ino) {
                held.linked = true;
            }
        }
        for ino in unlinked {
            if let Some(held) = self.files.get_mut(&ino) {
                held.linked = false;
            }
            self.drop_if_unused(ino);
        }
    }
}

fn asset_of(files: &HashMap<u64, Held>, ino: u64) -> Option<&AssetNode> {
    match &files.get(&ino)?.node {
        Node::Asset(node) => Some(node),
        Node::Local(_) => None,
    }
}

fn local_of(files: &HashMap<u64, Held>, ino: u64) -> Option<&LocalNode> {
    match &files.get(&ino)?.node {
        Node::Local(node) => Some(node),
        Node::Asset(_) => None,
    }
}

#[cfg(test)]
mod tests;
