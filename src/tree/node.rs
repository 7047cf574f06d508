//! What stands behind a number: an asset with what is known of it, or a file of this machine. Pure.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::name;
use crate::provider::{Asset, Library};
use crate::reader::{AssetKey, ObjectInfo};

/// What the user gave an asset by copying it in; kept across mounts by the store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// Number that the file had before it was an asset.
    pub ino: Option<u64>,
    /// The name it was copied to, and the name the service gave it then: while the service still
    /// has that name, the user's stands.
    pub name: Option<String>,
    pub service_name: Option<String>,
    pub mtime: Option<SystemTime>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Order of uploads from this machine, to tell apart equal creation times.
    pub sequence: Option<u64>,
    pub uploaded_at: Option<SystemTime>,
    /// When the service had last changed it by then.
    pub updated_at: Option<SystemTime>,
}

/// A file that is an asset.
#[derive(Debug, Clone)]
pub struct AssetNode {
    pub asset: Asset,
    /// What the asset host said, where the API did not or was wrong.
    pub learned: Option<ObjectInfo>,
    pub kept: Kept,
    /// The service told of other bytes since this mount first knew it, or since it was uploaded from
    /// here.
    pub is_revised: bool,
    /// When the service last told us of it; `None` where only an earlier mount knew it.
    pub seen_at: Option<Instant>,
    pub(super) wanted: Arc<str>,
}

impl AssetNode {
    pub(super) fn new(asset: Asset, kept: Kept, seen_at: Option<Instant>) -> Self {
        let wanted = wanted_name(&asset, &kept);
        let is_ours = kept.sequence.is_some();
        Self {
            is_revised: is_ours && kept.updated_at != asset.updated_at,
            asset,
            learned: None,
            kept,
            seen_at,
            wanted,
        }
    }

    pub fn key(&self) -> AssetKey {
        AssetKey {
            service: self.asset.library.service(),
            id: self.asset.id.clone(),
        }
    }

    /// The size to report; `None` until it is learnt.
    pub fn size_bytes(&self) -> Option<u64> {
        let learned = self.learned.as_ref().map(|info| info.size_bytes);
        learned.or(self.asset.size_bytes)
    }

    /// The time to report; `None` where only the asset host can tell and hasn't been asked.
    pub fn mtime(&self) -> Option<SystemTime> {
        let told = self.kept.mtime.or(self.asset.created_at);
        let learned = self.learned.as_ref();
        told.or_else(|| {
            let info = learned?;
            let fallback = self.asset.updated_at.unwrap_or(SystemTime::UNIX_EPOCH);
            Some(info.last_modified.unwrap_or(fallback))
        })
    }

    /// Whether size and time are known without asking the asset host.
    pub fn attributes_known(&self) -> bool {
        self.size_bytes().is_some() && self.mtime().is_some()
    }

    pub(super) fn newness(&self) -> impl Ord + use<> {
        (
            self.asset.created_at.or(self.kept.uploaded_at),
            self.asset.updated_at,
            self.kept.sequence,
            self.asset.id.clone(),
        )
    }

    /// Whether `asset`, the same one listed later, has other bytes than this.
    pub(super) fn is_revised_by(&self, asset: &Asset) -> bool {
        let resized = self.asset.size_bytes != asset.size_bytes;
        let updated = self.asset.updated_at != asset.updated_at;
        resized || updated
    }
}

/// The name that an asset asks for: the user's while the service has not given it another.
pub(super) fn wanted_name(asset: &Asset, kept: &Kept) -> Arc<str> {
    match &kept.name {
        _ if asset.library == Library::Runflow => asset.id.as_str().into(),
        Some(name) if kept.service_name == asset.name => name.as_str().into(),
        _ => name::wanted_name(asset).into(),
    }
}

/// A file that only this machine has: being written, kept aside or on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalNode {
    pub library: Library,
    pub name: String,
    /// Order of creation: the newest of a name keeps it.
    pub sequence: u64,
}

/// What stands behind a file's number.
#[derive(Debug, Clone)]
pub enum Node {
    Asset(Box<AssetNode>),
    Local(LocalNode),
}

impl Node {
    pub fn library(&self) -> Library {
        match self {
            Node::Asset(node) => node.asset.library,
            Node::Local(node) => node.library,
        }
    }
}
