//! Bytes: which revision a handle reads, and what becomes of it when the asset changes.

use super::world::*;
use crate::emulator::{Content, Effect, HostKind, LtxAsset, RunwayAsset};
use crate::fs::kernel::Forget;
use crate::fs::{FsError, Library};
use serde_json::json;
use std::ffi::OsStr;
use std::time::Duration;

const MIB: u64 = 1 << 20;

#[test]
fn a_file_reads_whole_in_pieces_and_not_beyond_its_end() {
    let world = World::new();
    let content = Content::synthetic(3 * MIB + 7, 1);
    world.add("a.mp4", content.clone());
    assert!(content.verify(0, &world.cat(VIDEO, "a.mp4").unwrap()));
    let fh = world.open_now(world.ino(VIDEO, "a.mp4")).unwrap().fh;
    let tail = world.read_now(fh, 3 * MIB, 4096).unwrap();
    assert_eq!(tail.len(), 7);
    assert!(content.verify(3 * MIB, &tail));
    for offset in [3 * MIB + 7, 1 << 40] {
        assert!(world.read_now(fh, offset, 4096).unwrap().is_empty());
    }
}

#[test]
fn an_open_asks_nobody() {
    let world = World::new();
    world.add("a.mp4", text("bytes"));
    let ino = world.ino(VIDEO, "a.mp4");
    let asked = world.emulator.requests().len();
    world.open_now(ino).unwrap();
    assert_eq!(world.emulator.requests().len(), asked);
}

#[test]
fn the_second_open_of_the_same_bytes_keeps_the_kernels_pages() {
    let world = World::new();
    world.add("a.mp4", text("bytes"));
    let ino = world.ino(VIDEO, "a.mp4");
    let first = world.open_now(ino).unwrap();
    assert!(!first.keep_cache, "nobody knows what the kernel has");
    world.read_all(first.fh).unwrap();
    world.release(first.fh);
    let asked = world.asset_requests();
    let second = world.open_now(ino).unwrap();
    assert!(second.keep_cache);
    assert_eq!(world.read_all(second.fh).unwrap(), b"bytes");
    assert_eq!(world.asset_requests(), asked, "from memory");
}

#[test]
fn an_update_that_left_the_bytes_alone_keeps_what_is_cached() {
    let world = World::new();
    let one_tag = Effect::SetHeader("etag".into(), "\"same\"".into());
    world.fault(HostKind::Asset, one_tag);
    let content = Content::synthetic(MIB, 5);
    let id = world.add("a.mp4", content.clone());
    let ino = world.ino(VIDEO, "a.mp4");
    let reading = world.open_now(ino).unwrap();
    world.read_all(reading.fh).unwrap();
    world.release(reading.fh);
    world.let_listings_age();
    world.emulator.replace_content(&id, content.clone());
    world.ls(VIDEO).unwrap();
    let asked = world.asset_requests();
    let again = world.open_now(ino).unwrap();
    assert!(again.keep_cache);
    assert!(content.verify(0, &world.read_all(again.fh).unwrap()));
    assert_eq!(world.asset_requests(), asked + 1, "one question, no bytes");
}

#[test]
fn other_bytes_end_older_handles_and_are_what_newer_ones_read() {
    let world = World::new();
    let (old, new) = (Content::synthetic(MIB, 1), Content::synthetic(MIB, 2));
    let id = world.add("a.mp4", old.clone());
    let ino = world.ino(VIDEO, "a.mp4");
    let reading = world.open_now(ino).unwrap().fh;
    assert!(old.verify(0, &world.read_now(reading, 0, 4096).unwrap()));
    world.let_listings_age();
    world.emulator.replace_content(&id, new.clone());
    let newer = world.ino(VIDEO, "a.mp4");
    assert_ne!(newer, ino);
    let refused = world.open_now(ino);
    assert_eq!(refused, Err(FsError::Stale), "the kernel looks it up again");
    let opened = world.open_now(newer).unwrap();
    assert!(!opened.keep_cache && !opened.direct_io);
    assert!(new.verify(0, &world.read_all(opened.fh).unwrap()));
    assert!(
        old.verify(0, &world.read_now(reading, 0, 4096).unwrap()),
        "cached"
    );
    assert_eq!(world.read_now(reading, MIB - 1, 1), Err(FsError::Stale));
}

#[test]
fn what_replaces_open_bytes_has_a_number_of_its_own() {
    let world = World::new();
    let id = world.add("a.mp4", text("much longer"));
    let ino = world.ino(VIDEO, "a.mp4");
    let reading = world.open_now(ino).unwrap().fh;
    assert_eq!(world.read_all(reading).unwrap(), b"much longer");
    world.let_listings_age();
    world.kernel.take();
    world.emulator.replace_content(&id, text("short"));
    let newer = world.lookup_now(VIDEO, "a.mp4").unwrap();
    assert_ne!(newer.ino, ino);
    assert_eq!(newer.size_bytes, 5);
    let parent = world.directory(VIDEO);
    let name = "a.mp4".to_string();
    let told = world.kernel.take();
    assert!(told.contains(&Forget::Name { parent, name }), "{told:?}");
    assert!(!told.contains(&Forget::Data { ino }), "its pages are right");
    assert_eq!(world.getattr_now(ino).unwrap().size_bytes, 11);
    assert_eq!(world.read_all(reading).unwrap(), b"much longer");
    assert_eq!(world.open_now(ino), Err(FsError::Stale));
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"short");
    world.release(reading);
    assert_eq!(world.ino(VIDEO, "a.mp4"), newer.ino, "it keeps it");
    let world = world.remount();
    assert_eq!(world.ino(VIDEO, "a.mp4"), ino);
}

#[test]
fn what_replaces_bytes_that_nobody_has_open_takes_their_number() {
    let world = World::new();
    let id = world.add("a.mp4", text("much longer"));
    let ino = world.ino(VIDEO, "a.mp4");
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"much longer");
    world.let_listings_age();
    world.emulator.replace_content(&id, text("short"));
    let found = world.lookup_now(VIDEO, "a.mp4").unwrap();
    assert_eq!((found.ino, found.size_bytes), (ino, 5));
    let opened = world.open_now(ino).unwrap();
    assert!(!opened.keep_cache, "the pages are still of the older bytes");
    assert_eq!(world.read_all(opened.fh).unwrap(), b"short");
}

#[test]
fn a_read_that_finds_other_bytes_gives_them_a_number_of_their_own() {
    let world = World::new();
    let (old, new) = (
        Content::synthetic(8 * MIB, 1),
        Content::synthetic(5 * MIB, 2),
    );
    let id = world.add("a.mp4", old.clone());
    let ino = world.ino(VIDEO, "a.mp4");
    let reading = world.open_now(ino).unwrap().fh;
    assert!(old.verify(0, &world.read_now(reading, 0, 4096).unwrap()));
    world.emulator.replace_content(&id, new.clone());
    assert_eq!(world.read_all(reading), Err(FsError::Stale));
    let newer = world.lookup_now(VIDEO, "a.mp4").unwrap();
    assert_ne!(newer.ino, ino, "no new listing was needed");
    assert_eq!(newer.size_bytes, 5 * MIB);
    assert_eq!(world.getattr_now(ino).unwrap().size_bytes, 8 * MIB);
    assert!(new.verify(0, &world.cat(VIDEO, "a.mp4").unwrap()));
}

#[test]
fn a_file_that_was_empty_when_it_was_opened_and_is_not_now_has_another_number() {
    let world = World::new();
    let told = json!({"updatedAt": "2026-01-02T03:04:05.678Z"});
    let asset = LtxAsset::new("image/png", text("")).with_json_patch(told);
    let id = world.emulator.add_ltx(asset);
    let name = format!("{id}.png");
    let ino = world.ino(Library::LtxImages, &name);
    let reading = world.open_now(ino).unwrap().fh;
    world.emulator.replace_content(&id, text("made now"));
    world.let_listings_age();
    assert_eq!(
        world.ino(Library::LtxImages, &name),
        ino,
        "nobody knows yet"
    );
    let refused = world.open_now(ino);
    assert_eq!(refused, Err(FsError::Stale), "the kernel looks it up again");
    assert_ne!(world.ino(Library::LtxImages, &name), ino);
    assert_eq!(world.cat(Library::LtxImages, &name).unwrap(), b"made now");
    assert_eq!(world.read_all(reading), Err(FsError::Stale));
}

#[test]
fn an_upload_that_is_open_here_and_replaced_at_the_service_reads_on() {
    let world = World::new();
    world.copy_in(VIDEO, "a.mp4", b"mine").unwrap();
    let ino = world.ino(VIDEO, "a.mp4");
    let reading = world.open_now(ino).unwrap().fh;
    world.let_listings_age();
    let id = world.emulator.runway_assets()[0].id.clone();
    world.emulator.replace_content(&id, text("them"));
    world.ls(VIDEO).unwrap();
    assert_eq!(world.open_now(ino), Err(FsError::Stale));
    assert_ne!(world.ino(VIDEO, "a.mp4"), ino);
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"them");
    assert_eq!(world.read_all(reading).unwrap(), b"mine");
}

#[test]
fn an_upload_that_was_replaced_while_unmounted_is_read_from_the_service() {
    let world = World::new();
    world.copy_in(VIDEO, "a.mp4", b"mine").unwrap();
    world.copy_in(VIDEO, "b.mp4", b"mine too").unwrap();
    let replaced = world.emulator.runway_assets();
    let replaced = replaced.iter().find(|a| a.name.as_deref() == Some("a.mp4"));
    let id = replaced.unwrap().id.clone();
    world.advance_s(1);
    world.emulator.replace_content(&id, text("them"));
    let world = world.remount();
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"them");
    let asked = world.asset_requests();
    assert_eq!(world.cat(VIDEO, "b.mp4").unwrap(), b"mine too");
    assert_eq!(world.asset_requests(), asked, "from this machine");
    world.copy_in(VIDEO, "a.mp4", b"mine").unwrap();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"mine", "sent again");
}

#[test]
fn an_upload_that_the_service_changed_but_for_its_bytes_is_not_sent_again() {
    let world = World::new();
    let bytes = vec![7; 3 << 20];
    world.copy_in(VIDEO, "a.mp4", &bytes).unwrap();
    world.advance_s(1);
    let id = world.emulator.runway_assets()[0].id.clone();
    let same = Content::stored(bytes.clone());
    world.emulator.replace_content(&id, same);
    let world = world.remount();
    let (sent, asked) = (world.uploads_sent(), world.asset_requests());
    world.copy_in(VIDEO, "a.mp4", &bytes).unwrap();
    assert_eq!(world.uploads_sent(), sent);
    assert!(world.asset_requests() > asked, "it was looked at");
    let asked = world.asset_requests();
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), bytes);
    assert_eq!(world.asset_requests(), asked, "from this machine again");
}

#[test]
fn the_number_of_replaced_bytes_goes_when_its_last_descriptor_does() {
    let world = World::new();
    let id = world.add("a.mp4", text("first"));
    let ino = world.ino(VIDEO, "a.mp4");
    let reading = world.open_now(ino).unwrap().fh;
    world.let_listings_age();
    world.emulator.replace_content(&id, text("second one"));
    let newer = world.ino(VIDEO, "a.mp4");
    assert_ne!(newer, ino);
    world.forget(ino, 1);
    assert_eq!(world.read_all(reading).unwrap_err(), FsError::Stale);
    world.release(reading);
    assert_eq!(world.getattr_now(ino), Err(FsError::NotFound));
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"second one");
    assert_eq!(world.ino(VIDEO, "a.mp4"), newer);
}

#[test]
fn a_descriptor_that_writes_goes_on_while_its_asset_is_replaced() {
    let world = World::new();
    let id = world.add("a.mp4", text("theirs"));
    let ino = world.ino(VIDEO, "a.mp4");
    let fh = world.open_to_write_now(ino, write_mode()).unwrap().fh;
    assert_eq!(world.write_now(fh, 0, b"H"), Ok(1));
    world.let_listings_age();
    world.emulator.replace_content(&id, text("another"));
    world.ls(VIDEO).unwrap();
    assert_eq!(world.write_now(fh, 1, b"H"), Ok(1));
    assert_eq!(world.getattr_by_now(ino, fh).unwrap().size_bytes, 6);
    world.close_now(fh).unwrap();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"HHeirs");
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"HHeirs");
    let older = format!("a ({}).mp4", &id[..8]);
    assert_eq!(world.cat(VIDEO, &older).unwrap(), b"another");
}

#[test]
fn bytes_that_change_between_two_listings_are_never_mixed() {
    let world = World::new();
    let (old, new) = (
        Content::synthetic(8 * MIB, 1),
        Content::synthetic(8 * MIB, 2),
    );
    let id = world.add("a.mp4", old.clone());
    let ino = world.ino(VIDEO, "a.mp4");
    let fh = world.open_now(ino).unwrap().fh;
    let first = world.read_now(fh, 0, 4096).unwrap();
    assert!(old.verify(0, &first));
    world.release(fh);
    world.emulator.replace_content(&id, new.clone());
    // The API's older word still stands. Whatever comes is all of one revision or an error.
    let fh = world.open_now(ino).unwrap().fh;
    match world.read_all(fh) {
        Ok(bytes) => assert!(old.verify(0, &bytes)),
        Err(error) => assert_eq!(error, FsError::Stale),
    }
    assert!(new.verify(0, &world.cat(VIDEO, "a.mp4").unwrap()));
}

#[test]
fn a_size_that_the_api_lied_about_is_an_error_once_and_then_right() {
    let world = World::new();
    let lie = RunwayAsset::named("a.mp4", text("eleven long"));
    world
        .emulator
        .add_runway(lie.with_json_patch(json!({"fileSize": 5})));
    assert_eq!(world.lookup_now(VIDEO, "a.mp4").unwrap().size_bytes, 5);
    assert_eq!(world.cat(VIDEO, "a.mp4"), Err(FsError::Stale));
    assert_eq!(world.lookup_now(VIDEO, "a.mp4").unwrap().size_bytes, 11);
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"eleven long");
    world.let_listings_age();
    assert_eq!(world.lookup_now(VIDEO, "a.mp4").unwrap().size_bytes, 11);
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"eleven long");
}

#[test]
fn a_url_about_to_expire_is_renewed_before_it_is_used() {
    let world = World::new();
    world.emulator.set_url_lifetime(Duration::from_secs(60));
    world.add("a.mp4", text("bytes"));
    world.add("b.mp4", text("bytes"));
    let (a, b) = (world.ino(VIDEO, "a.mp4"), world.ino(VIDEO, "b.mp4"));
    let asked = world.api_requests();
    world.advance_s(50);
    let fh = world.open_now(a).unwrap().fh;
    assert_eq!(world.read_all(fh).unwrap(), b"bytes");
    assert_eq!(world.api_requests(), asked, "good for another ten seconds");
    world.advance_s(6);
    let fh = world.open_now(b).unwrap().fh;
    assert_eq!(world.read_all(fh).unwrap(), b"bytes");
    assert_eq!(world.api_requests(), asked + 1, "four seconds are too few");
}

#[test]
fn readers_of_one_expired_url_share_its_renewal() {
    let world = World::new();
    world.emulator.set_url_lifetime(Duration::from_secs(60));
    let content = Content::synthetic(8 * MIB, 3);
    world.add("a.mp4", content.clone());
    let ino = world.ino(VIDEO, "a.mp4");
    let asked = world.api_requests();
    world.advance_s(120);
    let slow = Effect::Delay(Duration::from_millis(200));
    world.fault(HostKind::Useapi, slow);
    let fh = world.open_now(ino).unwrap().fh;
    let reads: Vec<_> = (0..8u64)
        .map(|n| start(|done| world.read(fh, n * MIB, 4096, done)))
        .collect();
    for (n, read) in (0..).zip(reads) {
        assert!(content.verify(n * MIB, &read.wait().unwrap()));
    }
    assert_eq!(world.api_requests(), asked + 1);
}

#[test]
fn an_open_file_reads_on_after_its_asset_left_the_listing() {
    let world = World::new();
    let content = Content::synthetic(MIB, 4);
    let id = world.add("a.mp4", content.clone());
    let ino = world.ino(VIDEO, "a.mp4");
    let fh = world.open_now(ino).unwrap().fh;
    assert!(content.verify(0, &world.read_all(fh).unwrap()));
    world.emulator.remove(&id);
    world.let_listings_age();
    assert!(world.ls(VIDEO).unwrap().is_empty());
    assert!(content.verify(0, &world.read_all(fh).unwrap()));
    assert_eq!(world.getattr_now(ino).unwrap().size_bytes, MIB);
}

#[test]
fn an_asset_without_a_url_is_asked_for_before_it_is_read() {
    let world = World::new();
    let asset = RunwayAsset::named("a.mp4", text("bytes")).without_url();
    world.emulator.add_runway(asset);
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"bytes");
}

#[test]
fn directories_are_not_read_and_files_are_not_listed() {
    let world = World::new();
    world.add("a.mp4", text("a"));
    let ino = world.ino(VIDEO, "a.mp4");
    let directory = world.directory(VIDEO);
    assert_eq!(world.open_now(directory), Err(FsError::IsDirectory));
    assert_eq!(world.open_now(1), Err(FsError::IsDirectory));
    assert_eq!(world.opendir(ino), Err(FsError::NotDirectory));
    assert_eq!(world.open_now(1 << 40), Err(FsError::NotFound));
    assert_eq!(world.opendir(1 << 40), Err(FsError::NotFound));
    assert_eq!(world.read_now(99, 0, 1), Err(FsError::BadHandle));
    let below = start(|done| world.lookup(ino, OsStr::new("x"), done));
    assert_eq!(below.wait(), Err(FsError::NotDirectory));
}

#[test]
fn xattrs_say_what_stat_does_not() {
    let world = World::new();
    let id = world.add("a.mp4", text("a"));
    let ltx = LtxAsset::new("image/png", text("png"));
    let ltx = world.emulator.add_ltx(ltx);
    let get = |ino, name: &str| world.getxattr(ino, OsStr::new(name));
    let ino = world.ino(VIDEO, "a.mp4");
    assert_eq!(get(ino, "user.reelfs.id").unwrap(), id.as_bytes());
    assert_eq!(get(ino, "user.reelfs.provider").unwrap(), b"runway");
    assert_eq!(get(ino, "user.other"), Err(FsError::NoAttribute));
    assert_eq!(get(ino, "user.reelfs.upload"), Err(FsError::NoAttribute));
    let png = world.ino(Library::LtxImages, &format!("{ltx}.png"));
    assert_eq!(get(png, "user.mime_type").unwrap(), b"image/png");
    let names = world.listxattr(png).unwrap();
    assert_eq!(
        names,
        b"user.reelfs.id\0user.reelfs.provider\0user.reelfs.task_id\0user.reelfs.preview_url\0\
          user.reelfs.json\0user.mime_type\0"
    );
    assert!(world.listxattr(world.directory(VIDEO)).unwrap().is_empty());
    assert_eq!(world.listxattr(1 << 40), Err(FsError::NotFound));

    world.copy_in(VIDEO, "mine.mp4", b"mine").unwrap();
    let mine = world.ino(VIDEO, "mine.mp4");
    assert_eq!(get(mine, "user.reelfs.upload").unwrap(), b"done");
    assert_eq!(get(mine, "user.mime_type").unwrap(), b"video/mp4");
    world.copy_in(VIDEO, ".hidden", b"mine").unwrap();
    let hidden = world.ino(VIDEO, ".hidden");
    assert_eq!(get(hidden, "user.reelfs.upload").unwrap(), b"local");
}

#[test]
fn foreign_xattrs_are_taken_and_not_kept_where_files_are_taken() {
    let world = World::new();
    let ltx = LtxAsset::new("image/png", text("png"));
    let ltx = world.emulator.add_ltx(ltx);
    let png = world.ino(Library::LtxImages, &format!("{ltx}.png"));
    world.copy_in(VIDEO, "mine.mp4", b"mine").unwrap();
    let mine = world.ino(VIDEO, "mine.mp4");
    let set = |ino, name: &str, value: &[u8]| world.setxattr(ino, OsStr::new(name), value);
    let remove = |ino, name: &str| world.removexattr(ino, OsStr::new(name));
    for ino in [mine, world.directory(VIDEO), crate::tree::inode::ROOT] {
        assert_eq!(set(ino, "user.comment", b"a"), Ok(()));
        assert_eq!(remove(ino, "user.comment"), Err(FsError::NoAttribute));
    }
    assert_eq!(set(mine, "user.reelfs.id", b"another"), Ok(()));
    assert_eq!(set(mine, "user.reelfs.upload", b"sending 5%"), Ok(()));
    assert_eq!(remove(mine, "user.reelfs.upload"), Ok(()));
    let state = world.getxattr(mine, OsStr::new("user.reelfs.upload"));
    assert_eq!(state.unwrap(), b"done");
    let typo = set(mine, "user.reelfs.upload", b"Retry");
    assert!(matches!(typo, Err(FsError::Invalid(_))));
    assert_eq!(set(png, "user.comment", b"a"), Err(FsError::ReadOnly));
    assert_eq!(remove(png, "user.reelfs.id"), Err(FsError::ReadOnly));
    let denied = Err(FsError::NotSupported);
    assert_eq!(set(mine, "security.capability", b"a"), denied);
    assert_eq!(set(mine, "system.posix_acl_access", b"a"), denied);
    assert_eq!(remove(mine, "trusted.a"), denied);
    for other in ["security.capability", "system.posix_acl_access"] {
        let absent = world.getxattr(mine, OsStr::new(other));
        assert_eq!(absent, Err(FsError::NotSupported));
    }
}
