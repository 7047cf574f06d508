//! Random operations against a plain model in memory: what a program sees through the file system
//! is at every step what the model says. See `cases` for how to repeat a run.

use std::collections::BTreeMap;

use super::cases::{self, Case, Dice, Story};
use super::world::*;
use crate::fs::{FsError, OpenMode};
use crate::tree::LISTING_LAG;

const STEPS: u64 = 2_000;
/// A whole look at every file after so many steps.
const CHECK_EVERY: usize = 40;
const NAMES: [&str; 5] = ["a.mp4", "b.mp4", "c.mov", "d.webm", "e e.mp4"];
const TEMPORARY: [&str; 3] = [".t", ".a.mp4.Ab12Cd", "u.part"];
/// Assets of one name; more are removed at the service.
const MOST_VERSIONS: usize = 4;
/// Descriptors that read through what happens.
const MOST_KEPT: usize = 4;
/// A process that inherited the descriptor.
const CHILD: u32 = 200;

#[derive(Clone)]
struct Version {
    id: String,
    bytes: Vec<u8>,
    /// Uploaded from here, so that the same bytes are not sent again.
    ours: bool,
    /// How often the service put other bytes in its place.
    replaced: u32,
}

impl Version {
    fn new(id: String, bytes: Vec<u8>, ours: bool) -> Self {
        Self {
            id,
            bytes,
            ours,
            replaced: 0,
        }
    }
}

/// Everything that asks for one name.
#[derive(Default)]
struct Family {
    /// Oldest first.
    assets: Vec<Version>,
    local: Option<Vec<u8>>,
}

impl Family {
    fn shown(&self) -> Option<&Vec<u8>> {
        let newest = self.assets.last().map(|version| &version.bytes);
        self.local.as_ref().or(newest)
    }
}

struct Open {
    fh: u64,
    append: bool,
    bytes: Vec<u8>,
    changed: bool,
}

/// A descriptor that reads an asset, and what it must give whatever happens to its file.
struct Kept {
    fh: u64,
    name: String,
    id: String,
    replaced: u32,
    bytes: Vec<u8>,
}

struct Model<'a> {
    seed: u64,
    dice: Dice,
    world: Option<World>,
    families: BTreeMap<String, Family>,
    open: BTreeMap<String, Open>,
    kept: Vec<Kept>,
    story: &'a Story,
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

fn is_temporary(name: &str) -> bool {
    TEMPORARY.contains(&name)
}

impl<'a> Model<'a> {
    fn new(seed: u64, story: &'a Story) -> Self {
        let world = World::with(Settings {
            allow_delete: true,
            // No fault is injected: on a loaded machine a listing must be late rather than stale.
            total: std::time::Duration::from_secs(120),
            ..Settings::default()
        });
        Self {
            seed,
            dice: Dice::of(seed, 0),
            world: Some(world),
            families: BTreeMap::new(),
            open: BTreeMap::new(),
            kept: Vec::new(),
            story,
        }
    }

    fn world(&self) -> &World {
        self.world.as_ref().expect("mounted")
    }

    fn family(&mut self, name: &str) -> &mut Family {
        self.families.entry(name.to_string()).or_default()
    }

    fn shown(&self, name: &str) -> Option<Vec<u8>> {
        self.families.get(name)?.shown().cloned()
    }

    fn note(&self, step: String) {
        self.story.note(step);
    }

    /// Few values, so that the same bytes come again.
    fn bytes(&mut self) -> Vec<u8> {
        let length = self.dice.among(&[0, 1, 3, 3, 7, 5_000]);
        vec![b'a' + self.dice.below(3) as u8; length]
    }

    fn any_name(&mut self) -> String {
        match self.dice.below(3) {
            0 => self.dice.among(&TEMPORARY).to_string(),
            _ => self.dice.among(&NAMES).to_string(),
        }
    }

    fn step(&mut self, number: u64) {
        self.dice = Dice::of(self.seed, number);
        // Assets made one after the other are told apart by their times.
        self.world().advance_s(1);
        let name = self.any_name();
        match self.dice.below(20) {
            0..=3 => self.create(&name),
            4 | 5 => self.open_existing(&name),
            6 | 7 => self.write(&name),
            8 => self.truncate(&name),
            9 | 10 => self.close(&name),
            11 => self.rename(&name),
            12 => self.unlink(&name),
            13 => self.change_at_service(),
            14 => self.look(&name),
            15 => self.open_to_read(&name),
            16 | 17 => self.read_what_is_kept(),
            18 => self.expire_urls(),
            _ if self.dice.below(12) == 0 => self.remount(),
            _ => self.truncate_by_name(&name),
        }
    }

    fn create(&mut self, name: &str) {
        if self.open.contains_key(name) {
            return self.close(name);
        }
        self.note(format!("create {name}"));
        // The kernel looks a name up before it creates it.
        let _ = self.world().lookup_now(VIDEO, name);
        let made = self.world().create_with(VIDEO, name, truncating());
        let fh = made.unwrap().1.fh;
        let bytes = self.bytes();
        self.family(name).local = Some(Vec::new());
        let open = Open {
            fh,
            append: false,
            bytes: Vec::new(),
            changed: true,
        };
        self.open.insert(name.to_string(), open);
        self.put(name, 0, &bytes);
        if self.dice.below(3) > 0 {
            self.close(name);
        }
    }

    fn open_existing(&mut self, name: &str) {
        let Some(bytes) = self.shown(name) else {
            let found = self.world().lookup_now(VIDEO, name);
            return assert_eq!(found, Err(FsError::NotFound), "{name}");
        };
        if self.open.contains_key(name) {
            return;
        }
        let append = self.dice.below(2) == 0;
        self.note(format!("open {name}, append: {append}"));
        let how = OpenMode {
            append,
            ..write_mode()
        };
        let ino = self.world().ino(VIDEO, name);
        let fh = self.world().open_to_write_now(ino, how).unwrap().fh;
        let open = Open {
            fh,
            append,
            bytes,
            changed: false,
        };
        self.open.insert(name.to_string(), open);
    }

    fn write(&mut self, name: &str) {
        let Some(open) = self.open.get(name) else {
            return;
        };
        let most = open.bytes.len() + 3;
        let offset = self.dice.below(most);
        let bytes = self.bytes();
        self.put(name, offset, &bytes);
    }

    fn put(&mut self, name: &str, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.note(format!("write {name} {} bytes at {offset}", bytes.len()));
        let open = self.open.get_mut(name).unwrap();
        let at = if open.append {
            open.bytes.len()
        } else {
            offset
        };
        let end = at + bytes.len();
        open.bytes.resize(open.bytes.len().max(end), 0);
        open.bytes[at..end].copy_from_slice(bytes);
        open.changed = true;
        let (fh, shown) = (open.fh, open.bytes.clone());
        self.family(name).local = Some(shown);
        let written = self.world().write_now(fh, offset as u64, bytes);
        assert_eq!(written, Ok(bytes.len() as u32));
    }

    fn truncate(&mut self, name: &str) {
        let Some(open) = self.open.get_mut(name) else {
            return;
        };
        let size = self.dice.below(open.bytes.len() + 5);
        open.bytes.resize(size, 0);
        open.changed = true;
        let (fh, shown) = (open.fh, open.bytes.clone());
        self.note(format!("truncate {name} to {size} by its handle"));
        self.family(name).local = Some(shown);
        let ino = self.world().ino(VIDEO, name);
        let attr = self.world().truncate_now(ino, Some(fh), size as u64);
        assert_eq!(attr.unwrap().size_bytes, size as u64);
    }

    fn truncate_by_name(&mut self, name: &str) {
        let Some(mut bytes) = self.shown(name) else {
            return;
        };
        if self.open.contains_key(name) {
            return;
        }
        let size = self.dice.below(bytes.len() + 5);
        self.note(format!("truncate {name} to {size}"));
        bytes.resize(size, 0);
        let ino = self.world().ino(VIDEO, name);
        self.world().truncate_now(ino, None, size as u64).unwrap();
        self.world().drain();
        self.family(name).local = Some(bytes);
        self.arrive(name);
    }

    fn close(&mut self, name: &str) {
        let Some(open) = self.open.remove(name) else {
            return;
        };
        let by_child = self.dice.below(4) == 0;
        self.note(format!("close {name}, by a child: {by_child}"));
        let world = self.world();
        if by_child {
            world.flush_as(open.fh, CHILD, false).unwrap();
            world.release(open.fh);
            world.drain();
        } else {
            world.close_now(open.fh).unwrap();
        }
        if open.changed {
            self.arrive(name);
        }
    }

    /// What was closed whole under a real name, and isn't empty, is an asset now.
    fn arrive(&mut self, name: &str) {
        let bytes = self.family(name).local.clone().unwrap();
        if is_temporary(name) || bytes.is_empty() {
            return;
        }
        let known = self.family(name).assets.last();
        let sent_before = known.is_some_and(|newest| newest.ours && newest.bytes == bytes);
        self.family(name).local = None;
        if sent_before {
            return;
        }
        let newest = self.world().emulator.runway_assets();
        let newest = newest.first().expect("an asset");
        assert_eq!(newest.name.as_deref(), Some(name), "the newest asset");
        assert!(newest.content.read(0, u64::MAX) == bytes, "{name} arrived");
        let id = newest.id.clone();
        let ours = true;
        self.family(name).assets.push(Version::new(id, bytes, ours));
    }

    fn rename(&mut self, from: &str) {
        let to = self.any_name();
        if self.open.contains_key(&to) || to == from {
            return;
        }
        self.note(format!("rename {from} to {to}"));
        // The kernel looks both names up before it renames.
        for name in [from, &to] {
            let _ = self.world().lookup_now(VIDEO, name);
        }
        let renamed = self.world().rename_now(from, &to);
        let Some(family) = self.families.get_mut(from) else {
            return assert_eq!(renamed, Err(FsError::NotFound));
        };
        let Some(bytes) = family.local.clone() else {
            let expected = match family.assets.is_empty() {
                true => FsError::NotFound,
                false => FsError::CrossDevice,
            };
            return assert_eq!(renamed, Err(expected));
        };
        assert_eq!(renamed, Ok(()));
        family.local = None;
        self.family(&to).local = Some(bytes);
        let open = self.open.remove(from);
        let still_written = open.as_ref().is_some_and(|open| open.changed);
        self.open.extend(open.map(|open| (to.clone(), open)));
        if !still_written {
            self.arrive(&to);
        }
    }

    fn unlink(&mut self, name: &str) {
        if self.open.contains_key(name) {
            return;
        }
        self.note(format!("unlink {name}"));
        // The kernel looks a name up before it removes it.
        let _ = self.world().lookup_now(VIDEO, name);
        let removed = self.world().unlink_now(VIDEO, name);
        let family = self.family(name);
        let was_there = family.local.take().is_some() || family.assets.pop().is_some();
        let expected = if was_there {
            Ok(())
        } else {
            Err(FsError::NotFound)
        };
        assert_eq!(removed, expected);
    }

    fn change_at_service(&mut self) {
        let name = self.dice.among(&NAMES);
        if self.open.contains_key(name) {
            return;
        }
        let versions = self.family(name).assets.len();
        let which = self.dice.below(versions);
        if versions > 0 && self.dice.below(3) == 0 {
            self.replace_at_service(name, which);
        } else if versions > 0 && (versions >= MOST_VERSIONS || self.dice.below(2) == 0) {
            let gone = self.family(name).assets.remove(which);
            self.note(format!("{name} ({}) vanishes", &gone.id[..8]));
            assert!(self.world().emulator.remove(&gone.id));
        } else {
            let bytes = self.bytes();
            let content = crate::emulator::Content::stored(bytes.clone());
            let id = self.world().add(name, content);
            self.note(format!("{name} ({}) appears", &id[..8]));
            let ours = false;
            self.family(name).assets.push(Version::new(id, bytes, ours));
        }
        // An upload that no listing has shown yet is believed in for a while.
        self.world().clock.advance(LISTING_LAG);
    }

    /// The service puts other bytes in an asset's place.
    fn replace_at_service(&mut self, name: &str, which: usize) {
        let bytes = self.bytes();
        let content = crate::emulator::Content::stored(bytes.clone());
        let version = &mut self.family(name).assets[which];
        version.bytes = bytes;
        version.ours = false;
        version.replaced += 1;
        let id = version.id.clone();
        self.note(format!("{name} ({}) is replaced", &id[..8]));
        assert!(self.world().emulator.replace_content(&id, content));
    }

    fn look(&mut self, name: &str) {
        let expected = self.shown(name);
        let found = self.world().lookup_now(VIDEO, name);
        let Some(expected) = expected else {
            return assert_eq!(found, Err(FsError::NotFound), "{name}");
        };
        assert_eq!(found.unwrap().size_bytes, expected.len() as u64, "{name}");
        // A new version that is still written is read by its own descriptor.
        let bytes = match self.open.get(name) {
            Some(open) => self.world().read_all(open.fh),
            None => self.world().cat(VIDEO, name),
        };
        assert!(bytes.unwrap() == expected, "the bytes of {name}");
    }

    fn open_to_read(&mut self, name: &str) {
        if self.open.contains_key(name) || self.kept.len() == MOST_KEPT {
            if let Some(oldest) = self.kept.pop() {
                self.world().release(oldest.fh);
            }
            return;
        }
        // A file on this machine is written in place, before its readers' eyes.
        let family = self.families.get(name).filter(|f| f.local.is_none());
        let Some(version) = family.and_then(|family| family.assets.last()) else {
            return;
        };
        let Version {
            id,
            bytes,
            replaced,
            ..
        } = version.clone();
        self.note(format!("open {name} to read"));
        let ino = self.world().ino(VIDEO, name);
        let fh = self.world().open_now(ino).unwrap().fh;
        let name = name.to_string();
        let kept = Kept {
            fh,
            name,
            id,
            replaced,
            bytes,
        };
        self.kept.push(kept);
    }

    /// The bytes of the time when it was opened, or an error where they are gone.
    fn read_what_is_kept(&mut self) {
        if self.kept.is_empty() {
            return;
        }
        let which = self.dice.below(self.kept.len());
        let length = self.kept[which].bytes.len();
        let (from, wanted) = (self.dice.below(length + 3), self.dice.among(&[1, 4_096]));
        let kept = &self.kept[which];
        self.note(format!("read {wanted} at {from} of {}", kept.name));
        let expected = &kept.bytes[from.min(length)..(from + wanted).min(length)];
        match self.world().read_now(kept.fh, from as u64, wanted as u32) {
            Ok(bytes) => assert!(bytes == expected, "{} as it was", kept.name),
            Err(error) => {
                let mut assets = self.families[&kept.name].assets.iter();
                let is_there = assets.any(|v| v.id == kept.id && v.replaced == kept.replaced);
                assert!(!is_there, "{}: {error}", kept.name);
                let gone = self.kept.swap_remove(which);
                self.world().release(gone.fh);
            }
        }
    }

    fn expire_urls(&self) {
        self.note("the URLs expire".to_string());
        self.world().advance_s(25 * 60 * 60);
    }

    fn remount(&mut self) {
        for kept in std::mem::take(&mut self.kept) {
            self.world().release(kept.fh);
        }
        let open: Vec<String> = self.open.keys().cloned().collect();
        for name in open {
            self.close(&name);
        }
        self.note("remount".to_string());
        self.world = self.world.take().map(World::remount);
    }

    /// Every file there is, by every name it has.
    fn check(&mut self) {
        let mut expected: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (name, family) in &self.families {
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
        let names: Vec<String> = expected.keys().cloned().collect();
        assert_eq!(self.world().ls(VIDEO).unwrap(), names);
        for (name, bytes) in expected {
            let attr = self.world().lookup_now(VIDEO, &name).unwrap();
            // By the number of an asset that is written over, the new version's size shows.
            let marked = |open: &String| name.starts_with(&format!("{} (", stem(open)));
            if !self.open.keys().any(marked) {
                assert_eq!(attr.size_bytes, bytes.len() as u64, "{name}");
            }
            assert!(self.world().cat(VIDEO, &name).unwrap() == bytes, "{name}");
        }
    }
}

fn run(case: &Case, story: &Story) {
    let mut model = Model::new(case.seed, story);
    for (count, step) in case.steps.iter().enumerate() {
        model.step(*step);
        if (count + 1) % CHECK_EVERY == 0 {
            model.check();
        }
    }
    model.remount();
    model.check();
}

#[test]
fn random_operations_do_what_a_plain_model_does() {
    cases::check(include_str!("model.cases"), STEPS, run);
}
