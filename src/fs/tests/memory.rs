//! What the kernel has given back is gone from memory.

use super::world::*;
use crate::fs::lock;

impl World {
    /// The kernel gives back every number it was given of this file.
    fn forget_now(&self, ino: u64) {
        self.forget(ino, u64::MAX);
    }

    fn knows(&self, ino: u64) -> bool {
        self.catalog().lock().tree.node(ino).is_some()
    }
}

#[test]
fn a_file_that_left_stays_until_the_kernel_has_given_back_every_number() {
    let world = World::new();
    let id = world.add("a.mp4", text("a"));
    let ino = world.ino(VIDEO, "a.mp4");
    assert_eq!(world.ino(VIDEO, "a.mp4"), ino);
    world.emulator.remove(&id);
    world.let_listings_age();
    world.ls(VIDEO).unwrap();
    world.forget(ino, 1);
    assert!(world.knows(ino));
    world.forget(ino, 1);
    assert!(!world.knows(ino));
    assert!(world.getattr_now(ino).is_err());
}

#[test]
fn a_file_that_stands_stays_whatever_the_kernel_forgets() {
    let world = World::new();
    world.add("a.mp4", text("a"));
    let ino = world.ino(VIDEO, "a.mp4");
    world.forget_now(ino);
    assert!(world.knows(ino));
    assert_eq!(world.ino(VIDEO, "a.mp4"), ino);
}

#[test]
fn what_is_kept_of_a_revision_goes_with_its_file() {
    let world = World::new();
    let ids = [world.add("a.mp4", text("a")), world.add("b.mp4", text("b"))];
    let (a, b) = (world.ino(VIDEO, "a.mp4"), world.ino(VIDEO, "b.mp4"));
    for ino in [a, b] {
        let fh = world.open_now(ino).unwrap().fh;
        world.release(fh);
    }
    assert_eq!(world.revisions.count(), 2);
    // One is forgotten before it leaves its directory, one after.
    world.forget_now(a);
    for id in ids {
        world.emulator.remove(&id);
    }
    world.let_listings_age();
    world.ls(VIDEO).unwrap();
    world.forget_now(b);
    assert_eq!(world.revisions.count(), 0);
}

#[test]
fn handles_and_staged_files_go_when_they_are_closed_and_removed() {
    let world = World::new();
    world.add("a.mp4", text("a"));
    let ino = world.ino(VIDEO, "a.mp4");
    let (reading, writing) = (
        world.open_now(ino).unwrap().fh,
        world.open_to_write_now(ino, write_mode()).unwrap().fh,
    );
    let hidden = world.create_now(VIDEO, ".hidden");
    assert_eq!(world.files.count(), 3);
    world.release(reading);
    world.close_now(writing).unwrap();
    world.close_now(hidden).unwrap();
    assert_eq!(world.files.count(), 0);
    let ino = world.ino(VIDEO, ".hidden");
    world.unlink_now(VIDEO, ".hidden").unwrap();
    world.forget_now(ino);
    assert!(lock(&world.staged).is_empty());
    assert!(lock(&world.overlays).is_empty());
    assert!(!world.knows(ino));
}

#[test]
fn an_uploaded_file_is_an_asset_and_no_staged_file_any_more() {
    let world = World::new();
    world.copy_in(VIDEO, "a.mp4", b"bytes").unwrap();
    assert!(lock(&world.staged).is_empty());
    assert!(world.uploads.staged().is_empty());
}
