//! Random operations against a plain model in memory: what a program sees through the file system
//! is at every step what the model says. See `cases` for how to repeat a run.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cases::{self, Case, Dice, Story};
use super::families::{Families, NAMES, TEMPORARY, Version, is_older};
use super::world::*;
use crate::fs::{FsError, OpenMode};
use crate::tree::LISTING_LAG;

const STEPS: u64 = 2_000;
/// A whole look at every file after so many steps.
const CHECK_EVERY: usize = 40;
/// Assets of one name; more are removed at the service.
const MOST_VERSIONS: usize = 4;
/// The same, when everything is looked at: a long game would come to more assets than Runway lists.
const MOST_KEPT_VERSIONS: usize = 50;
/// Descriptors that read through what happens.
const MOST_KEPT: usize = 4;
/// A process that inherited the descriptor.
const CHILD: u32 = 200;

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
    version: Version,
}

struct Model<'a> {
    seed: u64,
    dice: Dice,
    world: Option<World>,
    families: Families,
    open: BTreeMap<String, Open>,
    kept: Vec<Kept>,
    story: &'a Story,
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
            families: Families::default(),
            open: BTreeMap::new(),
            kept: Vec::new(),
            story,
        }
    }

    fn world(&self) -> &World {
        self.world.as_ref().expect("mounted")
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
        self.families.put(name, Vec::new());
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
        let Some(bytes) = self.families.shown(name).map(Arc::unwrap_or_clone) else {
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
        self.families.put(name, shown);
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
        self.families.put(name, shown);
        let ino = self.world().ino(VIDEO, name);
        let attr = self.world().truncate_now(ino, Some(fh), size as u64);
        assert_eq!(attr.unwrap().size_bytes, size as u64);
    }

    fn truncate_by_name(&mut self, name: &str) {
        let Some(mut bytes) = self.families.shown(name).map(Arc::unwrap_or_clone) else {
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
        self.families.put(name, bytes);
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
        let Some(bytes) = self.families.sends(name) else {
            return;
        };
        let newest = self.world().emulator.runway_assets();
        let newest = newest.first().expect("an asset");
        assert_eq!(newest.name.as_deref(), Some(name), "the newest asset");
        assert!(newest.content.read(0, u64::MAX) == *bytes, "{name} arrived");
        self.families.add(name, newest.id.clone(), bytes, true);
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
        let Some(family) = self.families.get(from) else {
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
        self.families.of(from).local = None;
        self.families.put(&to, bytes);
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
        let expected = match self.families.of(name).remove_shown() {
            true => Ok(()),
            false => Err(FsError::NotFound),
        };
        assert_eq!(removed, expected);
    }

    fn change_at_service(&mut self) {
        let name = self.dice.among(&NAMES);
        if self.open.contains_key(name) {
            return;
        }
        let versions = self.families.of(name).assets.len();
        let which = self.dice.below(versions);
        if versions > 0 && self.dice.below(3) == 0 {
            self.replace_at_service(name, which);
        } else if versions > 0 && (versions >= MOST_VERSIONS || self.dice.below(2) == 0) {
            let gone = self.families.of(name).assets.remove(which);
            self.note(format!("{name} ({}) vanishes", &gone.id[..8]));
            assert!(self.world().emulator.remove(&gone.id));
        } else {
            let bytes = self.bytes();
            let content = crate::emulator::Content::stored(bytes.clone());
            let id = self.world().add(name, content);
            self.note(format!("{name} ({}) appears", &id[..8]));
            self.families.add(name, id, bytes, false);
        }
        // An upload that no listing has shown yet is believed in for a while.
        self.world().clock.advance(LISTING_LAG);
    }

    /// The service puts other bytes in an asset's place.
    fn replace_at_service(&mut self, name: &str, which: usize) {
        let bytes = self.bytes();
        let content = crate::emulator::Content::stored(bytes.clone());
        let id = self.families.of(name).replace(which, bytes.into());
        self.note(format!("{name} ({}) is replaced", &id[..8]));
        assert!(self.world().emulator.replace_content(&id, content));
    }

    fn look(&mut self, name: &str) {
        let expected = self.families.shown(name);
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
        assert!(bytes.unwrap() == *expected, "the bytes of {name}");
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
        let version = version.clone();
        self.note(format!("open {name} to read"));
        let ino = self.world().ino(VIDEO, name);
        let fh = self.world().open_now(ino).unwrap().fh;
        let name = name.to_string();
        let kept = Kept { fh, name, version };
        self.kept.push(kept);
    }

    /// The bytes of the time when it was opened, or an error where they are gone.
    fn read_what_is_kept(&mut self) {
        if self.kept.is_empty() {
            return;
        }
        let which = self.dice.below(self.kept.len());
        let length = self.kept[which].version.bytes.len();
        let (from, wanted) = (self.dice.below(length + 3), self.dice.among(&[1, 4_096]));
        let kept = &self.kept[which];
        self.note(format!("read {wanted} at {from} of {}", kept.name));
        let expected = &kept.version.bytes[from.min(length)..(from + wanted).min(length)];
        match self.world().read_now(kept.fh, from as u64, wanted as u32) {
            Ok(bytes) => assert!(bytes == expected, "{} as it was", kept.name),
            Err(error) => {
                let is_there = self.families.has(&kept.name, &kept.version);
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

    /// The service lets the oldest versions go.
    fn prune(&mut self) {
        for name in NAMES {
            let assets = &mut self.families.of(name).assets;
            let many = assets.len().saturating_sub(MOST_KEPT_VERSIONS);
            for gone in assets.drain(..many) {
                let world = self.world.as_ref().expect("mounted");
                assert!(world.emulator.remove(&gone.id));
                world.clock.advance(LISTING_LAG);
            }
        }
    }

    fn check(&mut self) {
        self.prune();
        let expected = self.families.expected();
        let names: Vec<String> = expected.keys().cloned().collect();
        assert_eq!(self.world().ls(VIDEO).unwrap(), names);
        for (name, bytes) in expected {
            let attr = self.world().lookup_now(VIDEO, &name).unwrap();
            // By the number of an asset that is written over, the new version's size shows.
            if !self.open.keys().any(|open| is_older(&name, open)) {
                assert_eq!(attr.size_bytes, bytes.len() as u64, "{name}");
            }
            assert!(self.world().cat(VIDEO, &name).unwrap() == *bytes, "{name}");
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
