//! What becomes of a number when its asset's bytes are replaced.
//!
//! The kernel keeps one size and one set of pages a number. While nobody has the asset open, the newer
//! bytes take over the number. While somebody has, they get one of their own: else the older
//! descriptor would end early where the newer bytes are fewer, and read them where the kernel has
//! their pages.

use std::time::UNIX_EPOCH;

use super::{Changes, Held, Node, Tree, inode};
use crate::provider::Asset;

impl Tree {
    /// Whether this is the number of an asset's older revision, which only handles and the kernel
    /// know.
    pub fn is_outdated(&self, ino: u64) -> bool {
        let node = self.asset(ino);
        node.is_some_and(|node| self.ino_of(&node.key()) != Some(ino))
    }

    /// The bytes of the asset `ino` are others from now on. Answers the number that they have.
    pub fn revise(&mut self, ino: u64, changes: &mut Changes) -> u64 {
        let newest = self.part(ino, changes);
        if newest == ino {
            changes.revised.push(ino);
        }
        newest
    }

    /// As [`Self::revise`], by what the service says now. Bytes that may be the same count as others:
    /// to find out later, when they are opened, would be too late for who has looked at the number
    /// by then (`cp` stops where it changes). A size that is told for the first time is no change.
    pub(super) fn revise_to(&mut self, ino: u64, asset: &Asset, changes: &mut Changes) -> u64 {
        let (shown, is_updated) = match self.asset(ino) {
            Some(node) => (node.size_bytes(), node.asset.updated_at != asset.updated_at),
            None => (None, false),
        };
        if is_updated || shown.is_some_and(|shown| asset.size_bytes != Some(shown)) {
            return self.revise(ino, changes);
        }
        changes.revised.push(ino);
        ino
    }

    /// Leaves a number that is open to the handles that have it, and gives its asset another.
    fn part(&mut self, ino: u64, changes: &mut Changes) -> u64 {
        let is_open = self.files.get(&ino).is_some_and(|held| held.opens > 0);
        let Some(node) = self.asset(ino).filter(|_| is_open) else {
            return ino;
        };
        let (newest, key, library) = (node.clone(), node.key(), node.asset.library);
        let mut free = inode::next(ino);
        while self.files.contains_key(&free) {
            free = inode::next(free);
        }
        if let Some(older) = self.asset_mut(ino)
            && older.mtime().is_none()
        {
            // Nobody can be asked for it any more.
            older.kept.mtime = older.asset.updated_at.or(Some(UNIX_EPOCH));
        }
        let linked = self.is_linked(ino);
        if let Some(held) = self.files.get_mut(&ino) {
            held.linked = false;
        }
        let held = Held {
            node: Node::Asset(Box::new(newest)),
            lookups: 0,
            opens: 0,
            linked,
        };
        self.files.insert(free, held);
        self.by_asset.insert(key, free);
        if let Some(directory) = self.directories.get_mut(&library) {
            directory.renumber(ino, free, changes);
        }
        free
    }
}
