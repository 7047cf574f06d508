//! What is fetched before anybody asks: the next files of a copy, the end of a video with its head.

use super::world::*;
use crate::emulator::Content;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn clip(n: u64) -> String {
    format!("clip {n:03}.mp4")
}

/// A directory of `count` clips, already listed.
fn world_of(count: u64, size: u64) -> World {
    let world = World::new();
    for n in 0..count {
        world.add(&clip(n), Content::synthetic(size, n));
    }
    world.ls(VIDEO).unwrap();
    world
}

fn copy_out(world: &World, n: u64, size: u64) {
    let bytes = world.cat(VIDEO, &clip(n)).unwrap();
    assert_eq!(bytes.len() as u64, size);
    assert!(Content::synthetic(size, n).verify(0, &bytes));
}

/// Waits until nothing is under way any more.
fn settle(world: &World) {
    until("all streams ended", || {
        world.reader.stats().active_streams == 0
    });
}

#[test]
fn a_copy_in_order_finds_the_next_files_fetched_and_asks_once_for_each() {
    let size = 100 * KIB;
    let world = world_of(60, size);
    copy_out(&world, 0, size);
    settle(&world);
    assert_eq!(world.asset_requests(), 1, "one file tells nothing");
    copy_out(&world, 1, size);
    settle(&world);
    assert_eq!(world.asset_requests(), 4);
    let waited = world.reader.stats().misses;
    copy_out(&world, 2, size);
    assert_eq!(
        world.reader.stats().misses,
        waited,
        "it was there when it was opened"
    );
    for n in 3..60 {
        copy_out(&world, n, size);
    }
    settle(&world);
    assert_eq!(world.asset_requests(), 60);
}

#[test]
fn files_opened_out_of_order_fetch_nothing_else() {
    let size = 10 * KIB;
    let world = world_of(40, size);
    for n in [20, 3] {
        copy_out(&world, n, size);
    }
    settle(&world);
    assert_eq!(world.asset_requests(), 2);
}

#[test]
fn a_program_that_looks_at_heads_fetches_no_other_files() {
    let world = world_of(20, 3 * MIB);
    for n in 0..20 {
        let fh = world.open_now(world.ino(VIDEO, &clip(n))).unwrap().fh;
        world.read_now(fh, 0, 64 * 1024).unwrap();
        world.release(fh);
    }
    settle(&world);
    assert_eq!(world.asset_requests(), 20);
    let fetched = world.reader.stats().fetched_bytes;
    assert!(fetched <= 20 * 256 * KIB, "{fetched}");
}

#[test]
fn a_file_that_was_only_fetched_ahead_does_not_keep_the_kernels_pages() {
    let size = 10 * KIB;
    let world = world_of(10, size);
    copy_out(&world, 0, size);
    copy_out(&world, 1, size);
    settle(&world);
    let ahead = world.ino(VIDEO, &clip(2));
    assert!(
        !world.open_now(ahead).unwrap().keep_cache,
        "nobody opened it yet"
    );
    assert!(world.open_now(ahead).unwrap().keep_cache);
}

#[test]
fn what_is_fetched_ahead_stays_within_a_quarter_of_the_memory() {
    let size = 3 * MIB;
    let world = world_of(30, size);
    for n in 0..8 {
        copy_out(&world, n, size);
        settle(&world);
        let fetched = world.reader.stats().fetched_bytes;
        let ahead = fetched - (n + 1) * size;
        assert!(ahead <= world.reader.cache_bytes() / 4, "{ahead}");
    }
}

#[test]
fn both_ends_of_a_video_come_at_the_first_touch() {
    let size = 12 * MIB;
    let world = world_of(1, size);
    let fh = world.open_now(world.ino(VIDEO, &clip(0))).unwrap().fh;
    let head = world.read_now(fh, 0, 4096).unwrap();
    assert!(Content::synthetic(size, 0).verify(0, &head));
    settle(&world);
    assert_eq!(world.asset_requests(), 2);
    assert_eq!(world.reader.stats().fetched_bytes, 896 * KIB);
    for at in [size - 200 * KIB, 600 * KIB] {
        let read = world.read_now(fh, at, 4096).unwrap();
        assert!(Content::synthetic(size, 0).verify(at, &read));
    }
    assert_eq!(world.asset_requests(), 2, "from memory");
}

#[test]
fn a_video_read_in_the_middle_does_not_fetch_its_ends() {
    let world = world_of(1, 12 * MIB);
    let fh = world.open_now(world.ino(VIDEO, &clip(0))).unwrap().fh;
    world.read_now(fh, 5 * MIB, 4096).unwrap();
    settle(&world);
    assert_eq!(world.asset_requests(), 1);
    assert_eq!(world.reader.stats().fetched_bytes, 4096);
}

#[test]
fn a_listing_connects_to_the_asset_host_and_asks_it_for_nothing() {
    let world = world_of(3, MIB);
    until("connections stand ready", || {
        world.reader.stats().connections == 4
    });
    world.ls(VIDEO).unwrap();
    assert_eq!(world.reader.stats().connections, 4);
    assert_eq!(world.asset_requests(), 0);
    assert_eq!(world.reader.stats().fetched_bytes, 0);
}
