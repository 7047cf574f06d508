//! What the two random games hold a library against: every file there is, by the names that it has,
//! in plain memory.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Names under which files are uploaded, and such that stay on this machine.
pub const NAMES: [&str; 5] = ["a.mp4", "b.mp4", "c.mov", "d.webm", "e e.mp4"];
pub const TEMPORARY: [&str; 3] = [".t", ".a.mp4.Ab12Cd", "u.part"];

pub type Bytes = Arc<Vec<u8>>;

/// An asset.
#[derive(Clone)]
pub struct Version {
    pub id: String,
    pub bytes: Bytes,
    /// What it was uploaded from here with: while it has these bytes, they are not sent again.
    pub sent: Option<Bytes>,
    /// How often the service put other bytes in its place.
    pub replaced: u32,
}

/// Everything that asks for one name.
#[derive(Default)]
pub struct Family {
    /// Oldest first.
    pub assets: Vec<Version>,
    pub local: Option<Bytes>,
}

impl Family {
    fn shown(&self) -> Option<&Bytes> {
        let newest = self.assets.last().map(|version| &version.bytes);
        self.local.as_ref().or(newest)
    }

    /// The service puts `bytes` in the place of an asset.
    pub fn replace(&mut self, which: usize, bytes: Bytes) -> String {
        let version = &mut self.assets[which];
        version.bytes = bytes;
        version.replaced += 1;
        version.id.clone()
    }

    /// What stood under the name is removed; whether anything did.
    pub fn remove_shown(&mut self) -> bool {
        self.local.take().is_some() || self.assets.pop().is_some()
    }
}

/// All files of a directory.
#[derive(Default)]
pub struct Families(BTreeMap<String, Family>);

impl Families {
    pub fn get(&self, name: &str) -> Option<&Family> {
        self.0.get(name)
    }

    pub fn of(&mut self, name: &str) -> &mut Family {
        self.0.entry(name.to_string()).or_default()
    }

    pub fn shown(&self, name: &str) -> Option<Bytes> {
        self.0.get(name)?.shown().cloned()
    }

    /// A file of this name stands on this machine, with these bytes.
    pub fn put(&mut self, name: &str, bytes: impl Into<Bytes>) {
        self.of(name).local = Some(bytes.into());
    }

    /// An asset of this name came, from here or not.
    pub fn add(&mut self, name: &str, id: String, bytes: impl Into<Bytes>, ours: bool) {
        let bytes = bytes.into();
        let version = Version {
            id,
            sent: ours.then(|| bytes.clone()),
            bytes,
            replaced: 0,
        };
        self.of(name).assets.push(version);
    }

    /// Whether the asset is still there with the bytes that it had as `version`.
    pub fn has(&self, name: &str, version: &Version) -> bool {
        let assets = self.0.get(name).map(|family| &family.assets);
        let is_it = |v: &Version| v.id == version.id && v.replaced == version.replaced;
        assets.is_some_and(|assets| assets.iter().any(is_it))
    }

    /// The local file of this name was closed whole: the bytes that are sent. None are of an empty
    /// or a temporary file, which stays here, nor of what the service has by our own doing.
    pub fn sends(&mut self, name: &str) -> Option<Bytes> {
        let family = self.of(name);
        let bytes = family.local.clone()?;
        if TEMPORARY.contains(&name) || bytes.is_empty() {
            return None;
        }
        family.local = None;
        let newest = family.assets.last();
        let is_there = newest
            .is_some_and(|newest| newest.bytes == bytes && newest.sent.as_ref() == Some(&bytes));
        (!is_there).then_some(bytes)
    }

    /// Every file there is, by every name it has.
    pub fn expected(&self) -> BTreeMap<String, Bytes> {
        let mut expected = BTreeMap::new();
        for (name, family) in &self.0 {
            let newest = family.assets.len().saturating_sub(1);
            for (at, version) in family.assets.iter().enumerate() {
                let plain = at == newest && family.local.is_none();
                let shown = match (plain, name.rsplit_once('.')) {
                    (false, Some((stem, extension))) => {
                        format!("{stem} ({}).{extension}", &version.id[..8])
                    }
                    _ => name.clone(),
                };
                expected.insert(shown, version.bytes.clone());
            }
            let local = family.local.iter();
            expected.extend(local.map(|bytes| (name.clone(), bytes.clone())));
        }
        expected
    }
}

/// Whether `name` is that of an older version of what stands under `newest`.
pub fn is_older(name: &str, newest: &str) -> bool {
    let stem = newest.rsplit_once('.').map_or(newest, |(stem, _)| stem);
    name.starts_with(&format!("{stem} ("))
}
