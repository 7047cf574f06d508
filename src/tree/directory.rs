//! One directory of assets: its last listing, what stands beside it, and the names of both.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::{Changes, LISTING_LAG};
use crate::provider::AssetId;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    pub ino: u64,
    pub name: Arc<str>,
}

#[derive(Default)]
pub(super) struct Directory {
    /// When the listing that stands was asked for.
    pub(super) listed_at: Option<Instant>,
    pub(super) locals: Vec<u64>,
    listed: Vec<u64>,
    /// Assets that the service has by our own doing but may not list yet, with the time.
    beside: Vec<(u64, Instant)>,
    /// Assets deleted by us that a listing may still show, with the time.
    deleted: HashMap<AssetId, Instant>,
    names: BTreeMap<Arc<str>, u64>,
    by_ino: HashMap<u64, Arc<str>>,
    /// Made when it is asked for after a change.
    snapshot: OnceLock<Arc<[DirEntry]>>,
}

impl Directory {
    pub(super) fn lookup(&self, name: &str) -> Option<u64> {
        self.names.get(name).copied()
    }

    pub(super) fn name_of(&self, ino: u64) -> Option<&str> {
        self.by_ino.get(&ino).map(|name| &**name)
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.by_ino.keys().copied()
    }

    /// Sorted by name, so that a copy of the directory walks it in the order people see.
    pub(super) fn entries(&self) -> Arc<[DirEntry]> {
        let entry = |(name, ino): (&Arc<str>, &u64)| DirEntry {
            ino: *ino,
            name: Arc::clone(name),
        };
        let snapshot = self
            .snapshot
            .get_or_init(|| self.names.iter().map(entry).collect());
        Arc::clone(snapshot)
    }

    /// Adds an entry whose name nobody has: no other name changes by it.
    pub(super) fn add_entry(&mut self, name: &str, ino: u64) {
        let name: Arc<str> = name.into();
        self.by_ino.insert(ino, Arc::clone(&name));
        self.names.insert(name, ino);
        self.snapshot.take();
    }

    /// Every asset once: listed ones, then those beside the listing.
    pub(super) fn assets(&self) -> impl Iterator<Item = u64> {
        let beside = self.beside.iter().map(|(ino, _)| *ino);
        self.listed.iter().copied().chain(beside)
    }

    pub(super) fn take_listing<'a>(
        &mut self,
        listed: Vec<u64>,
        asked_at: Instant,
        id_of: impl Fn(u64) -> Option<&'a AssetId>,
    ) {
        self.deleted.retain(|_, at| asked_at < *at + LISTING_LAG);
        let deleted = &self.deleted;
        let mut seen = HashSet::new();
        self.listed = listed
            .into_iter()
            .filter(|ino| id_of(*ino).is_none_or(|id| !deleted.contains_key(id)))
            .filter(|ino| seen.insert(*ino))
            .collect();
        self.beside
            .retain(|(ino, at)| !seen.contains(ino) && asked_at < *at + LISTING_LAG);
        self.listed_at = Some(asked_at);
    }

    pub(super) fn add_beside_listing(&mut self, ino: u64, at: Instant) {
        if !self.listed.contains(&ino) && !self.beside.iter().any(|(other, _)| *other == ino) {
            self.beside.push((ino, at));
        }
    }

    pub(super) fn recall(&mut self, ino: u64) {
        self.listed.push(ino);
    }

    /// An asset goes by another number from now on.
    pub(super) fn renumber(&mut self, from: u64, to: u64, changes: &mut Changes) {
        let beside = self.beside.iter_mut().map(|(ino, _)| ino);
        let numbers = self.listed.iter_mut().chain(beside);
        for ino in numbers.filter(|ino| **ino == from) {
            *ino = to;
        }
        if let Some(name) = self.by_ino.remove(&from) {
            changes.names.push(name.to_string());
            changes.directory = true;
            self.names.insert(Arc::clone(&name), to);
            self.by_ino.insert(to, name);
            self.snapshot.take();
        }
    }

    pub(super) fn remove_asset(&mut self, ino: u64, id: AssetId, at: Instant) {
        self.listed.retain(|other| *other != ino);
        self.beside.retain(|(other, _)| *other != ino);
        self.deleted.insert(id, at);
    }

    /// Replaces the names; answers the numbers that no longer stand here.
    pub(super) fn set_entries(
        &mut self,
        entries: impl Iterator<Item = (String, u64)>,
        changes: &mut Changes,
    ) -> Vec<u64> {
        let names: BTreeMap<Arc<str>, u64> =
            entries.map(|(name, ino)| (Arc::from(name), ino)).collect();
        if names == self.names {
            return Vec::new();
        }
        changes.directory = true;
        for (name, ino) in &self.names {
            if names.get(name) != Some(ino) {
                changes.names.push(name.to_string());
            }
        }
        let by_ino: HashMap<u64, Arc<str>> = names
            .iter()
            .map(|(name, ino)| (*ino, Arc::clone(name)))
            .collect();
        let gone = |ino: &&u64| !by_ino.contains_key(*ino);
        let unlinked = self.by_ino.keys().filter(gone).copied().collect();
        self.snapshot.take();
        self.names = names;
        self.by_ino = by_ino;
        unlinked
    }
}
