//! Sizes and times that the API does not give: learnt from the asset host, many at a time, kept.

use std::time::Duration;

use super::world::*;
use crate::emulator::{Effect, Fault, HostKind, LtxAsset};
use crate::fs::{FsError, Library};

const IMAGES: Library = Library::LtxImages;

fn with_images(count: usize) -> (World, Vec<String>) {
    let world = World::with(Settings {
        total: Duration::from_secs(30),
        ..Settings::default()
    });
    let add = |n: usize| {
        let content = text(&"x".repeat(n + 1));
        world.emulator.add_ltx(LtxAsset::new("image/png", content))
    };
    let names = (0..count).map(|n| format!("{}.png", add(n))).collect();
    (world, names)
}

#[test]
fn a_directory_that_is_read_learns_its_sizes_while_its_pages_come() {
    let (world, names) = with_images(120);
    // It is asked for again and again until it comes.
    let last_page = Fault::at(HostKind::Useapi).path("page=3");
    world
        .emulator
        .add_fault(last_page.does(Effect::status(503)));
    let (fh, listed) = world.start_ls(IMAGES);
    until("the sizes of two pages are asked for", || {
        world.asset_requests() == 100
    });
    assert!(listed.is_waiting(), "nothing is shown before all is there");
    world.emulator.clear_faults();
    let entries = listed.wait().unwrap();
    assert_eq!(entries.len(), 2 + names.len());
    world.releasedir(fh);
    until("all sizes are known", || {
        world.known_attrs(&entries).iter().all(Option::is_some)
    });
    for (n, name) in names.iter().enumerate() {
        let found = world.lookup_now(IMAGES, name).unwrap();
        assert_eq!(found.size_bytes, n as u64 + 1);
    }
    assert_eq!(world.asset_requests(), 120, "each once");
}

#[test]
fn what_was_learnt_for_a_listing_that_failed_is_not_shown() {
    let (world, names) = with_images(120);
    let last_page = Fault::at(HostKind::Useapi).path("page=3");
    world
        .emulator
        .add_fault(last_page.does(Effect::status(400)));
    assert!(world.ls(IMAGES).is_err());
    assert!(world.catalog().lock().tree.entries(IMAGES).is_empty());
    world.emulator.clear_faults();
    assert_eq!(world.ls(IMAGES).unwrap().len(), names.len());
    let found = world.lookup_now(IMAGES, &names[7]).unwrap();
    assert_eq!(found.size_bytes, 8);
}

#[test]
fn a_library_whose_api_tells_sizes_asks_no_host_when_it_is_read() {
    let world = World::new();
    world.add("a.mp4", text("asset"));
    assert_eq!(world.ls(VIDEO).unwrap().len(), 1);
    assert_eq!(world.asset_requests(), 0);
}

#[test]
fn one_lookup_learns_one_size() {
    let (world, names) = with_images(20);
    let found = world.lookup_now(IMAGES, &names[7]).unwrap();
    assert_eq!(found.size_bytes, 8);
    assert_eq!(world.asset_requests(), 1);
}

#[test]
fn the_first_stat_after_a_listing_learns_the_whole_directory() {
    let (world, names) = with_images(20);
    world.ls(IMAGES).unwrap();
    world.lookup_now(IMAGES, &names[0]).unwrap();
    let is_known = |name: &String| {
        let state = world.catalog().lock();
        let ino = state.tree.lookup(IMAGES, name);
        ino.is_some_and(|ino| state.tree.asset(ino).unwrap().attributes_known())
    };
    until("every size is learnt", || names.iter().all(is_known));
    for (n, name) in names.iter().enumerate() {
        let found = world.lookup_now(IMAGES, name).unwrap();
        assert_eq!(found.size_bytes, n as u64 + 1);
    }
    // One that is asked for between another's answer and its being kept is asked for once more.
    let requests = world.asset_requests();
    assert!((20..=22).contains(&requests), "each once, not {requests}");
}

#[test]
fn what_another_learnt_since_somebody_looked_is_not_asked_again() {
    let (world, names) = with_images(2);
    let ino = world.ino(IMAGES, &names[0]);
    assert_eq!(world.asset_requests(), 1);
    world.learn(ino).unwrap();
    assert_eq!(world.asset_requests(), 1);
}

#[test]
fn learnt_sizes_survive_a_remount() {
    let (world, names) = with_images(5);
    let before: Vec<_> = names
        .iter()
        .map(|name| world.lookup_now(IMAGES, name).unwrap())
        .collect();
    let stored = || {
        let ids = names.iter().map(|n| n.trim_end_matches(".png"));
        let ids: Vec<_> = ids.map(crate::provider::AssetId::new).collect();
        let store = world.catalog().store();
        store
            .object_infos(crate::provider::Service::Ltx, &ids)
            .unwrap()
            .len()
    };
    until("all are stored", || stored() == names.len());
    let world = world.remount();
    let asked = world.asset_requests();
    for (name, before) in names.iter().zip(before) {
        let after = world.lookup_now(IMAGES, name).unwrap();
        assert_eq!(
            (after.ino, after.size_bytes, after.mtime),
            (before.ino, before.size_bytes, before.mtime)
        );
    }
    assert_eq!(world.asset_requests(), asked);
}

#[test]
fn a_size_that_cannot_be_learnt_is_an_error_and_never_zero() {
    let (world, names) = with_images(1);
    let gone = Fault::at(HostKind::Asset).does(Effect::status(403));
    world.emulator.add_fault(gone);
    let found = world.lookup_now(IMAGES, &names[0]);
    assert!(matches!(found, Err(FsError::Denied(_))), "{found:?}");
    let ino = {
        let listed = world.catalog().lock().tree.entries(IMAGES);
        listed[0].ino
    };
    assert_eq!(world.known_attr(ino), None);
    world.emulator.clear_faults();
    let found = world.lookup_now(IMAGES, &names[0]).unwrap();
    assert_eq!(found.size_bytes, 1);
}

#[test]
fn attributes_of_many_entries_are_those_of_each() {
    let (world, names) = with_images(3);
    world.lookup_now(IMAGES, &names[1]).unwrap();
    let (fh, listed) = world.start_ls(IMAGES);
    let entries = listed.wait().unwrap();
    world.releasedir(fh);
    let together = world.known_attrs(&entries);
    let one_by_one: Vec<_> = entries.iter().map(|e| world.known_attr(e.ino)).collect();
    assert_eq!(together, one_by_one);
    assert_eq!(
        together.iter().flatten().count(),
        2 + 1,
        "`.`, `..` and one"
    );
}

#[test]
fn a_mounts_own_files_are_among_the_known_attributes() {
    let world = World::new();
    world.add("a.mp4", text("asset"));
    let fh = world.create_now(VIDEO, "b.mp4");
    world.write_now(fh, 0, b"being written").unwrap();
    let (listing, listed) = world.start_ls(VIDEO);
    let entries = listed.wait().unwrap();
    world.releasedir(listing);
    let sizes: Vec<_> = world.known_attrs(&entries)[2..]
        .iter()
        .map(|attr| attr.unwrap().size_bytes)
        .collect();
    assert_eq!(sizes, [5, 13]);
}

#[test]
fn what_was_learnt_is_stored_before_a_shutdown_ends() {
    let world = World::new();
    for n in 0..20 {
        let asset = LtxAsset::new("video/mp4", text("bytes"));
        let id = world.emulator.add_ltx(asset);
        world.let_listings_age();
        world
            .lookup_now(Library::LtxVideos, &format!("{id}.mp4"))
            .unwrap();
        assert_eq!(world.size_after_shutdown(&id), Some(5), "asset {n}");
    }
}
