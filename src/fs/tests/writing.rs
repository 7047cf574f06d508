//! Creating, writing and closing, up to the asset that comes of it.

use super::world::*;
use crate::emulator::{Content, Effect, Fault, HostKind};
use crate::fs::{FsError, Library, OpenMode, WrittenBy, lock};
use crate::upload::Allocate;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// A process that inherited the descriptor.
const CHILD: u32 = 200;

#[test]
fn a_copied_file_stands_at_once_and_is_an_asset_when_its_close_returns() {
    let world = World::new();
    let fh = world.create_now(VIDEO, "a.mp4");
    assert_eq!(world.ls(VIDEO).unwrap(), ["a.mp4"]);
    let ino = world.ino(VIDEO, "a.mp4");
    world.write_now(fh, 0, b"hello ").unwrap();
    world.write_now(fh, 6, b"world").unwrap();
    assert_eq!(world.getattr_now(ino).unwrap().size_bytes, 11);
    assert_eq!(
        world.uploads_sent(),
        0,
        "nothing is sent before it is whole"
    );
    world.close_now(fh).unwrap();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"hello world");
    assert_eq!(world.ino(VIDEO, "a.mp4"), ino);
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"hello world");
    assert_eq!(world.asset_requests(), 0, "read from the kept copy");
}

#[test]
fn an_uploaded_file_is_the_same_after_a_remount() {
    let world = World::new();
    world.copy_in(VIDEO, "a.mp4", b"bytes").unwrap();
    let before = world.lookup_now(VIDEO, "a.mp4").unwrap();
    let world = world.remount();
    let after = world.lookup_now(VIDEO, "a.mp4").unwrap();
    assert_eq!(
        (after.ino, after.size_bytes, after.mtime, after.mode),
        (before.ino, before.size_bytes, before.mtime, before.mode)
    );
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"bytes");
}

#[test]
fn a_close_returns_the_uploads_error_and_the_file_stays() {
    let world = World::new();
    world.fault_once(HostKind::Useapi, "POST", Effect::status(400));
    let failed = world.copy_in(VIDEO, "a.mp4", b"bytes");
    assert!(matches!(failed, Err(FsError::Io(_))), "{failed:?}");
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"bytes");
    world.copy_in(VIDEO, "a.mp4", b"again").unwrap();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"again");
    assert_eq!(world.ls(VIDEO).unwrap(), ["a.mp4"]);
}

#[test]
fn an_empty_file_is_kept_aside_until_it_has_bytes() {
    let world = World::new();
    let fh = world.create_now(VIDEO, "a.mp4");
    world.close_now(fh).unwrap();
    assert_eq!(world.uploads_sent(), 0);
    let world = world.remount();
    let ino = world.ino(VIDEO, "a.mp4");
    let fh = world.open_to_write_now(ino, write_mode()).unwrap().fh;
    world.write_now(fh, 0, b"bytes").unwrap();
    world.close_now(fh).unwrap();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"bytes");
}

#[test]
fn a_type_that_the_directory_does_not_take_is_refused_at_its_creation() {
    let world = World::new();
    for (library, name) in [
        (VIDEO, "a.png"),
        (IMAGE, "a.mp4"),
        (VIDEO, "a.txt"),
        (IMAGE, ".a.txt.Ab12Cd"),
    ] {
        let made = world.create_with(library, name, truncating());
        let error = made.map(|(attr, _)| attr.ino).unwrap_err();
        assert!(matches!(error, FsError::UnsupportedType(_)), "{name}");
    }
    assert!(world.ls(VIDEO).unwrap().is_empty());
}

#[test]
fn libraries_that_take_nothing_are_read_only() {
    let world = World::new();
    for library in [Library::LtxImages, Library::Runflow] {
        let made = world.create_with(library, "a.png", truncating());
        assert_eq!(made.map(|(a, _)| a.ino), Err(FsError::ReadOnly));
    }
    let read_only = World::with(Settings {
        read_only: true,
        ..Settings::default()
    });
    let made = read_only.create_with(VIDEO, "a.mp4", truncating());
    assert_eq!(made.map(|(a, _)| a.ino), Err(FsError::ReadOnly));
}

#[test]
fn exclusive_creation_refuses_what_is_there() {
    let world = World::new();
    world.add("a.mp4", text("a"));
    let how = OpenMode {
        exclusive: true,
        ..write_mode()
    };
    let again = world.create_with(VIDEO, "a.mp4", how);
    assert_eq!(again.map(|(a, _)| a.ino), Err(FsError::Exists));
    let (_, opened) = world.create_with(VIDEO, "b.mp4", how).unwrap();
    world.release(opened.fh);
}

#[test]
fn appending_writes_at_the_end_whatever_the_offset_says() {
    let world = World::new();
    world.copy_in(VIDEO, "a.mp4", b"one").unwrap();
    let ino = world.ino(VIDEO, "a.mp4");
    let fh = world.open_to_write_now(ino, appending()).unwrap().fh;
    world.write_now(fh, 0, b" two").unwrap();
    world.write_now(fh, 0, b" three").unwrap();
    world.close_now(fh).unwrap();
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"one two three");
    assert_eq!(world.at_service("a.mp4").unwrap(), b"one two three");
}

#[test]
fn opening_with_truncation_downloads_nothing() {
    let world = World::new();
    let id = world.add("a.mp4", Content::synthetic(4 * MIB, 1));
    let ino = world.ino(VIDEO, "a.mp4");
    let fh = world.open_to_write_now(ino, truncating()).unwrap().fh;
    world.write_now(fh, 0, b"new").unwrap();
    world.close_now(fh).unwrap();
    assert_eq!(world.asset_requests(), 0);
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"new");
    let older = format!("a ({}).mp4", &id[..8]);
    assert_eq!(world.ls(VIDEO).unwrap(), [older.as_str(), "a.mp4"]);
}

#[test]
fn the_first_change_of_an_asset_makes_a_new_version_with_the_rest_of_its_bytes() {
    let world = World::new();
    let content = Content::synthetic(3 * MIB + 5, 1);
    world.add("a.mp4", content.clone());
    let ino = world.ino(VIDEO, "a.mp4");
    let opened = world.open_to_write_now(ino, write_mode()).unwrap();
    assert!(opened.direct_io && opened.flushes);
    assert_eq!(world.asset_requests(), 0, "nothing is copied for an open");
    let before = world.read_now(opened.fh, MIB, 10).unwrap();
    assert!(content.verify(MIB, &before), "reading before the change");
    world.write_now(opened.fh, MIB, b"CHANGED").unwrap();
    let mut expected = content.read(0, u64::MAX);
    expected[MIB as usize..MIB as usize + 7].copy_from_slice(b"CHANGED");
    assert!(world.read_all(opened.fh).unwrap() == expected);
    world.close_now(opened.fh).unwrap();
    assert!(world.at_service("a.mp4").unwrap() == expected);
    assert!(world.cat(VIDEO, "a.mp4").unwrap() == expected);
}

#[test]
fn a_reader_of_the_older_version_goes_on_with_it() {
    let world = World::new();
    let content = Content::synthetic(MIB, 1);
    world.add("a.mp4", content.clone());
    let ino = world.ino(VIDEO, "a.mp4");
    let reading = world.open_now(ino).unwrap().fh;
    world.copy_in(VIDEO, "a.mp4", b"other").unwrap();
    assert!(content.verify(0, &world.read_all(reading).unwrap()));
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"other");
}

#[test]
fn opening_for_writing_without_a_change_uploads_nothing() {
    let world = World::new();
    world.add("a.mp4", text("bytes"));
    let ino = world.ino(VIDEO, "a.mp4");
    let fh = world.open_to_write_now(ino, write_mode()).unwrap().fh;
    assert_eq!(world.read_all(fh).unwrap(), b"bytes");
    world.close_now(fh).unwrap();
    assert_eq!(world.uploads_sent(), 0);
    assert_eq!(world.ino(VIDEO, "a.mp4"), ino);
}

#[test]
fn stat_by_the_older_number_shows_what_is_written_until_the_close() {
    let world = World::new();
    world.add("a.mp4", text("older bytes"));
    let ino = world.ino(VIDEO, "a.mp4");
    let fh = world.open_to_write_now(ino, truncating()).unwrap().fh;
    assert_eq!(world.getattr_now(ino).unwrap().size_bytes, 0);
    world.write_now(fh, 0, b"new").unwrap();
    let shown = world.getattr_now(ino).unwrap();
    assert_eq!((shown.size_bytes, shown.ttl), (3, Duration::ZERO));
    assert_eq!(world.lookup_now(VIDEO, "a.mp4").unwrap().size_bytes, 3);
    world.close_now(fh).unwrap();
    assert_eq!(world.getattr_now(ino).unwrap().size_bytes, 11);
    assert_eq!(world.lookup_now(VIDEO, "a.mp4").unwrap().size_bytes, 3);
}

#[test]
fn only_the_writer_sees_what_is_written_over_an_asset_by_its_number() {
    let world = World::new();
    world.add("a.mp4", text("older bytes"));
    let ino = world.ino(VIDEO, "a.mp4");
    let reader = world.open_now(ino).unwrap().fh;
    let fh = world.open_to_write_now(ino, truncating()).unwrap().fh;
    let size_by = |fh| world.getattr_by_now(ino, fh).unwrap().size_bytes;
    assert_eq!((size_by(fh), size_by(reader)), (0, 11));
    let size_for = |asker| world.getattr_for_now(ino, asker).unwrap().size_bytes;
    assert_eq!((size_for(WRITER), size_for(WRITER + 1)), (0, 11));
    world.close_now(fh).unwrap();
    assert_eq!(size_for(WRITER), 11);
}

#[test]
fn two_writers_of_one_asset_write_to_one_new_version() {
    let world = World::new();
    world.add("a.mp4", text("0123456789"));
    let ino = world.ino(VIDEO, "a.mp4");
    let first = world.open_to_write_now(ino, write_mode()).unwrap().fh;
    let second = world.open_to_write_now(ino, write_mode()).unwrap().fh;
    world.write_now(first, 0, b"AA").unwrap();
    let third = world.open_to_write_now(ino, write_mode()).unwrap().fh;
    world.write_now(second, 8, b"BB").unwrap();
    world.write_now(third, 4, b"CC").unwrap();
    for fh in [first, second, third] {
        assert_eq!(world.read_all(fh).unwrap(), b"AA23CC67BB");
    }
    world.release(first);
    world.release(third);
    assert_eq!(
        world.getattr_now(ino).unwrap().size_bytes,
        10,
        "one still writes"
    );
    assert!(lock(&world.overlays).contains_key(&ino));
    world.close_now(second).unwrap();
    assert!(lock(&world.overlays).is_empty());
    assert_eq!(world.at_service("a.mp4").unwrap(), b"AA23CC67BB");
    assert_eq!(world.uploads_sent(), 1);
}

#[test]
fn the_end_of_one_writer_does_not_hide_a_later_ones_version() {
    let world = World::with(Settings {
        write_back: true,
        ..Settings::default()
    });
    world.uploads.pause();
    world.add("a.mp4", text("older"));
    let ino = world.ino(VIDEO, "a.mp4");
    let first = world.open_to_write_now(ino, truncating()).unwrap().fh;
    world.write_now(first, 0, b"first").unwrap();
    world.flush_as(first, WRITER, false).unwrap();
    world.uploads.resume();
    world.drain();
    // The first version is an asset now; the next change makes another.
    let second = world.open_to_write_now(ino, truncating()).unwrap().fh;
    world.write_now(second, 0, b"the second").unwrap();
    world.release(first);
    assert_eq!(world.getattr_now(ino).unwrap().size_bytes, 10);
    world.close_now(second).unwrap();
    world.drain();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"the second");
}

#[test]
fn a_child_that_inherited_the_descriptor_does_not_finish_the_file() {
    let world = World::new();
    let fh = world.create_now(VIDEO, "a.mp4");
    world.write_now(fh, 0, b"half").unwrap();
    world.flush_as(fh, CHILD, false).unwrap();
    assert_eq!(world.uploads_sent(), 0);
    world.write_now(fh, 4, b" and whole").unwrap();
    world.close_now(fh).unwrap();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"half and whole");
    assert_eq!(world.uploads_sent(), 1);
}

#[test]
fn a_file_that_only_a_child_closed_is_uploaded_with_its_last_release() {
    let world = World::new();
    let fh = world.create_now(VIDEO, "a.mp4");
    world.write_now(fh, 0, b"by a shell").unwrap();
    world.flush_as(fh, CHILD, false).unwrap();
    world.release(fh);
    until("it is uploaded", || world.at_service("a.mp4").is_some());
    world.drain();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"by a shell");
}

#[test]
fn what_a_killed_writer_left_is_not_uploaded() {
    let world = World::new();
    let fh = world.create_now(VIDEO, "a.mp4");
    world.write_now(fh, 0, b"torso").unwrap();
    world.flush_as(fh, WRITER, true).unwrap();
    world.release(fh);
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"torso");
    world.drain();
    assert_eq!(world.uploads_sent(), 0);
    world.copy_in(VIDEO, "a.mp4", b"whole").unwrap();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"whole");
}

#[test]
fn a_copy_that_outlived_its_killed_writer_leaves_nothing() {
    let world = World::new();
    world.add("a.mp4", text("bytes"));
    let ino = world.ino(VIDEO, "a.mp4");
    let fh = world.open_to_write_now(ino, write_mode()).unwrap().fh;
    let slow = Effect::Delay(Duration::from_millis(300));
    world.fault(HostKind::Asset, slow);
    let writing = start(|done| world.write(fh, 0, b"B", WrittenBy::Descriptor, done));
    assert!(writing.is_waiting());
    world.flush_as(fh, WRITER, true).unwrap();
    world.release(fh);
    assert_eq!(writing.wait(), Err(FsError::BadHandle));
    assert!(lock(&world.overlays).is_empty());
    assert_eq!(world.ls(VIDEO).unwrap(), ["a.mp4"]);
    assert_eq!(world.getattr_now(ino).unwrap().size_bytes, 5);
    assert_eq!(world.uploads_sent(), 0);
}

#[test]
fn the_same_bytes_again_are_not_sent_again() {
    let world = World::new();
    world.copy_in(VIDEO, "a.mp4", b"bytes").unwrap();
    let ino = world.ino(VIDEO, "a.mp4");
    world.copy_in(VIDEO, "a.mp4", b"bytes").unwrap();
    assert_eq!(world.uploads_sent(), 1);
    assert_eq!(world.ls(VIDEO).unwrap(), ["a.mp4"]);
    assert_eq!(world.ino(VIDEO, "a.mp4"), ino);
    let world = world.remount();
    world.copy_in(VIDEO, "a.mp4", b"bytes").unwrap();
    assert_eq!(world.uploads_sent(), 1);
    world.copy_in(VIDEO, "a.mp4", b"other").unwrap();
    assert_eq!(world.uploads_sent(), 2);
    assert_eq!(world.at_service("a.mp4").unwrap(), b"other");
}

#[test]
fn a_change_after_the_close_makes_the_next_version() {
    let world = World::new();
    let fh = world.create_now(VIDEO, "a.mp4");
    world.write_now(fh, 0, b"first").unwrap();
    world.flush_as(fh, WRITER, false).unwrap();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"first");
    world.write_now(fh, 5, b" and second").unwrap();
    world.close_now(fh).unwrap();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"first and second");
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"first and second");
}

#[test]
fn a_file_that_waits_to_be_sent_can_still_be_changed() {
    let world = World::with(Settings {
        write_back: true,
        ..Settings::default()
    });
    world.uploads.pause();
    world.copy_in(VIDEO, "a.mp4", b"first").unwrap();
    let ino = world.ino(VIDEO, "a.mp4");
    let fh = world.open_to_write_now(ino, appending()).unwrap().fh;
    world.write_now(fh, 0, b" and second").unwrap();
    world.close_now(fh).unwrap();
    world.uploads.resume();
    world.drain();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"first and second");
    assert_eq!(world.uploads_sent(), 1);
}

#[test]
fn a_file_on_its_way_is_changed_as_a_new_version() {
    let world = World::with(Settings {
        write_back: true,
        ..Settings::default()
    });
    let slow = Effect::Delay(Duration::from_millis(500));
    let post = Fault::at(HostKind::Useapi).method("POST").times(1);
    world.emulator.add_fault(post.does(slow));
    world.copy_in(VIDEO, "a.mp4", b"first").unwrap();
    until("it is on its way", || world.uploads_sent() == 1);
    let ino = world.ino(VIDEO, "a.mp4");
    let fh = world.open_to_write_now(ino, appending()).unwrap().fh;
    world.write_now(fh, 0, b" and second").unwrap();
    world.close_now(fh).unwrap();
    world.drain();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"first and second");
    assert_eq!(world.emulator.runway_assets().len(), 2);
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"first and second");
}

#[test]
fn the_times_and_mode_that_the_copier_set_go_with_the_asset() {
    let world = World::new();
    let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let fh = world.create_now(VIDEO, "a.mp4");
    let ino = world.ino(VIDEO, "a.mp4");
    world.write_now(fh, 0, b"bytes").unwrap();
    let set = crate::fs::SetAttr {
        mtime: Some(old),
        mode: Some(0o600),
        ..Default::default()
    };
    world.setattr_now(ino, Some(fh), set).unwrap();
    world.close_now(fh).unwrap();
    let shown = world.lookup_now(VIDEO, "a.mp4").unwrap();
    assert_eq!((shown.mtime, shown.mode), (old, 0o600));
    let world = world.remount();
    let shown = world.lookup_now(VIDEO, "a.mp4").unwrap();
    assert_eq!((shown.mtime, shown.mode), (old, 0o600));
}

#[test]
fn room_can_be_made_only_by_a_writer() {
    let world = World::new();
    world.add("a.mp4", text("bytes"));
    let ino = world.ino(VIDEO, "a.mp4");
    let reading = world.open_now(ino).unwrap().fh;
    assert_eq!(world.fallocate(reading, 0, 10, 0), Err(FsError::BadHandle));
    assert_eq!(world.write_now(reading, 0, b"x"), Err(FsError::BadHandle));
    let fh = world.create_now(VIDEO, "b.mp4");
    world.fallocate(fh, 0, 4096, 0).unwrap();
    let b = world.ino(VIDEO, "b.mp4");
    assert_eq!(world.getattr_now(b).unwrap().size_bytes, 4096);
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    assert_eq!(
        world.fallocate(fh, 0, 10, punch),
        Err(FsError::NotSupported)
    );
    world.fsync(fh).unwrap();
    let staged = lock(&world.staged).get(&b).cloned().unwrap();
    staged.allocate(0, 8192, Allocate::KeepSize).unwrap();
    assert_eq!(world.getattr_now(b).unwrap().size_bytes, 4096);
}

#[test]
fn the_kept_copy_of_an_upload_is_not_read_once_the_service_has_other_bytes() {
    let world = World::new();
    world.copy_in(VIDEO, "a.mp4", b"mine").unwrap();
    let id = world.emulator.runway_assets()[0].id.clone();
    world.let_listings_age();
    world.emulator.replace_content(&id, text("ours"));
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"ours");
    let world = world.remount();
    world.let_listings_age();
    world.emulator.replace_content(&id, text("longer"));
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"longer");
}

#[test]
fn a_change_after_the_close_of_an_assets_new_version_keeps_the_name() {
    let world = World::new();
    world.add("a.mp4", text("older"));
    let ino = world.ino(VIDEO, "a.mp4");
    let fh = world.open_to_write_now(ino, truncating()).unwrap().fh;
    world.write_now(fh, 0, b"first").unwrap();
    world.flush_as(fh, WRITER, false).unwrap();
    world.write_now(fh, 5, b" and second").unwrap();
    world.close_now(fh).unwrap();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"first and second");
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"first and second");
}

#[test]
fn a_version_that_was_renamed_away_is_no_longer_the_assets() {
    let world = World::new();
    world.add("a.mp4", text("older bytes"));
    let ino = world.ino(VIDEO, "a.mp4");
    let away = world.open_to_write_now(ino, truncating()).unwrap().fh;
    world.write_now(away, 0, b"new").unwrap();
    world.rename_now("a.mp4", ".aside").unwrap();
    assert_eq!(world.lookup_now(VIDEO, "a.mp4").unwrap().size_bytes, 11);
    world.copy_in(VIDEO, "a.mp4", b"another").unwrap();
    world.write_now(away, 3, b" still").unwrap();
    world.close_now(away).unwrap();
    assert_eq!(world.cat(VIDEO, ".aside").unwrap(), b"new still");
    assert_eq!(world.at_service("a.mp4").unwrap(), b"another");
}

#[test]
fn a_handle_on_a_deleted_asset_does_not_bring_it_back() {
    let world = World::with(Settings {
        allow_delete: true,
        ..Settings::default()
    });
    let fh = world.create_now(VIDEO, "a.mp4");
    world.write_now(fh, 0, b"bytes").unwrap();
    world.flush_as(fh, WRITER, false).unwrap();
    world.unlink_now(VIDEO, "a.mp4").unwrap();
    assert_eq!(world.write_now(fh, 0, b"again"), Err(FsError::Stale));
    world.close_now(fh).unwrap();
    assert!(world.ls(VIDEO).unwrap().is_empty());
    assert_eq!(world.uploads_sent(), 1);
}

#[test]
fn pages_of_a_mapping_go_where_they_belong_also_by_a_handle_that_appends() {
    let world = World::new();
    world.copy_in(VIDEO, "a.mp4", b"abcdef").unwrap();
    let ino = world.ino(VIDEO, "a.mp4");
    let fh = world.open_to_write_now(ino, appending()).unwrap().fh;
    let page =
        |offset, bytes| now(|done| world.write(fh, offset, bytes, WrittenBy::Pages, done)).unwrap();
    // The first change copies the asset; the second finds the copy.
    page(1, b"B");
    page(3, b"D");
    world.write_now(fh, 0, b"!").unwrap();
    world.close_now(fh).unwrap();
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"aBcDef!");
}

#[test]
fn the_kernel_caches_nothing_of_a_version_that_is_written_by_its_assets_number() {
    let world = World::new();
    world.add("a.mp4", text("older"));
    let asset = world.ino(VIDEO, "a.mp4");
    let fh = world.open_to_write_now(asset, truncating()).unwrap().fh;
    let version = world.ino(VIDEO, "a.mp4");
    assert_ne!(version, asset);
    let shown = world.lookup_now(VIDEO, "a.mp4").unwrap();
    assert_eq!((shown.size_bytes, shown.ttl), (0, Duration::ZERO));
    let reader = world.open_now(version).unwrap();
    assert!(reader.direct_io && !reader.keep_cache);
    world.write_now(fh, 0, b"newer").unwrap();
    assert_eq!(world.read_all(reader.fh).unwrap(), b"newer");
    world.close_now(fh).unwrap();
    let shown = world.lookup_now(VIDEO, "a.mp4").unwrap();
    assert!(shown.size_bytes == 5 && !shown.ttl.is_zero());
}
