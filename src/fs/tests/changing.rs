//! Renaming, removing, and changing what `stat` shows.

use super::world::*;
use crate::emulator::{Content, Effect, Fault, HostKind, LtxAsset};
use crate::fs::{FsError, Library, SetAttr};
use std::ffi::OsStr;
use std::time::{Duration, SystemTime};

fn deleting() -> World {
    World::with(Settings {
        allow_delete: true,
        ..Settings::default()
    })
}

fn write_back() -> World {
    World::with(Settings {
        write_back: true,
        rename_wait: Duration::ZERO,
        ..Settings::default()
    })
}

/// A world in which `a.mp4` is being sent for a while.
fn sending() -> World {
    let world = write_back();
    let post = Fault::at(HostKind::Useapi).method("POST").times(1);
    let slow = Effect::Delay(Duration::from_millis(700));
    world.emulator.add_fault(post.does(slow));
    world.copy_in(VIDEO, "a.mp4", b"on its way").unwrap();
    until("it is on its way", || world.uploads_sent() == 1);
    world
}

#[test]
fn a_temporary_file_is_uploaded_by_its_rename_to_a_real_name() {
    let world = World::new();
    world.copy_in(VIDEO, ".a.mp4.Ab12Cd", b"bytes").unwrap();
    assert_eq!(world.uploads_sent(), 0);
    let ino = world.ino(VIDEO, ".a.mp4.Ab12Cd");
    world.rename_now(".a.mp4.Ab12Cd", "a.mp4").unwrap();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"bytes");
    assert_eq!(world.ls(VIDEO).unwrap(), ["a.mp4"]);
    assert_eq!(world.ino(VIDEO, "a.mp4"), ino);
}

#[test]
fn a_rename_before_the_kernel_released_the_closed_file_uploads_it() {
    let world = World::new();
    let fh = world.create_now(VIDEO, ".a.mp4.Ab12Cd");
    world.write_now(fh, 0, b"bytes").unwrap();
    world.flush_as(fh, WRITER, false).unwrap();
    world.rename_now(".a.mp4.Ab12Cd", "a.mp4").unwrap();
    world.release(fh);
    assert_eq!(world.at_service("a.mp4").unwrap(), b"bytes");
}

#[test]
fn a_file_renamed_while_it_is_written_is_uploaded_when_it_is_closed() {
    let world = World::new();
    let fh = world.create_now(VIDEO, ".a.mp4.Ab12Cd");
    world.write_now(fh, 0, b"half").unwrap();
    world.rename_now(".a.mp4.Ab12Cd", "a.mp4").unwrap();
    assert_eq!(world.uploads_sent(), 0);
    world.write_now(fh, 4, b" whole").unwrap();
    world.close_now(fh).unwrap();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"half whole");
}

#[test]
fn a_local_file_may_move_to_another_name_or_directory() {
    let world = World::new();
    world.copy_in(VIDEO, ".a", b"bytes").unwrap();
    let ino = world.ino(VIDEO, ".a");
    world.rename_now(".a", ".b").unwrap();
    assert_eq!(world.ls(VIDEO).unwrap(), [".b"]);
    let moved = world.start_rename((VIDEO, ".b"), (IMAGE, ".c"));
    moved.wait().unwrap();
    assert!(world.ls(VIDEO).unwrap().is_empty());
    assert_eq!(world.ino(IMAGE, ".c"), ino);
    assert_eq!(world.cat(IMAGE, ".c").unwrap(), b"bytes");
    let refused = world.start_rename((IMAGE, ".c"), (IMAGE, "c.mp4")).wait();
    assert!(matches!(refused, Err(FsError::UnsupportedType(_))));
    let away = world.start_rename((IMAGE, ".c"), (Library::LtxImages, "c.png"));
    assert_eq!(away.wait(), Err(FsError::ReadOnly));
    assert_eq!(world.rename_now(".absent", ".b"), Err(FsError::NotFound));
}

#[test]
fn a_rename_replaces_a_local_file() {
    let world = World::new();
    world.copy_in(VIDEO, ".a", b"new").unwrap();
    world.copy_in(VIDEO, ".b", b"old").unwrap();
    world.rename_now(".a", ".b").unwrap();
    assert_eq!(world.ls(VIDEO).unwrap(), [".b"]);
    assert_eq!(world.cat(VIDEO, ".b").unwrap(), b"new");
    assert_eq!(world.uploads.staged().len(), 1);
    world.rename_now(".b", ".b").unwrap();
    assert_eq!(world.cat(VIDEO, ".b").unwrap(), b"new");
}

#[test]
fn a_rename_over_an_asset_makes_the_new_version() {
    let world = World::new();
    let id = world.add("a.mp4", text("older"));
    world.copy_in(VIDEO, ".tmp", b"newer").unwrap();
    world.rename_now(".tmp", "a.mp4").unwrap();
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"newer");
    assert_eq!(world.at_service("a.mp4").unwrap(), b"newer");
    let older = format!("a ({}).mp4", &id[..8]);
    assert_eq!(world.cat(VIDEO, &older).unwrap(), b"older");
}

#[test]
fn a_rename_that_must_not_replace_does_not() {
    let world = World::new();
    world.add("a.mp4", text("older"));
    world.copy_in(VIDEO, ".tmp", b"newer").unwrap();
    world.copy_in(VIDEO, ".other", b"other").unwrap();
    let asset = world.rename_noreplace(".tmp", "a.mp4");
    assert_eq!(asset, Err(FsError::Exists));
    let local = world.rename_noreplace(".tmp", ".other");
    assert_eq!(local, Err(FsError::Exists));
    world.rename_noreplace(".tmp", ".free").unwrap();
    assert_eq!(world.cat(VIDEO, ".free").unwrap(), b"newer");
}

#[test]
fn an_asset_is_not_renamed_but_copied_and_deleted_where_that_is_allowed() {
    let world = World::new();
    world.add("a.mp4", text("a"));
    world.ls(VIDEO).unwrap();
    let refused = world.rename_now("a.mp4", "b.mp4");
    assert!(matches!(refused, Err(FsError::NotPermitted(_))));
    let world = deleting();
    world.add("a.mp4", text("a"));
    world.ls(VIDEO).unwrap();
    let moved = world.rename_now("a.mp4", "b.mp4");
    assert_eq!(moved, Err(FsError::CrossDevice));
}

#[test]
fn a_file_on_its_way_is_neither_renamed_nor_removed() {
    let world = sending();
    assert_eq!(world.rename_now("a.mp4", "b.mp4"), Err(FsError::Busy));
    assert_eq!(world.unlink_now(VIDEO, "a.mp4"), Err(FsError::Busy));
    world.drain();
    assert_eq!(world.ls(VIDEO).unwrap(), ["a.mp4"]);
    assert_eq!(world.at_service("a.mp4").unwrap(), b"on its way");
}

#[test]
fn a_rename_over_a_file_on_its_way_comes_after_it() {
    let world = sending();
    world.copy_in(VIDEO, ".tmp", b"the next").unwrap();
    world.rename_now(".tmp", "a.mp4").unwrap();
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"the next");
    world.drain();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"the next");
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"the next");
    let names = world.ls(VIDEO).unwrap();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn a_file_that_waits_can_be_renamed_and_arrives_under_the_new_name() {
    let world = write_back();
    world.uploads.pause();
    world.copy_in(VIDEO, "a.mp4", b"bytes").unwrap();
    world.rename_now("a.mp4", "b.mp4").unwrap();
    world.uploads.resume();
    world.drain();
    assert_eq!(world.ls(VIDEO).unwrap(), ["b.mp4"]);
    assert_eq!(world.at_service("b.mp4").unwrap(), b"bytes");
    assert_eq!(world.at_service("a.mp4"), None);
}

#[test]
fn a_rename_that_starts_an_upload_does_not_wait_for_ever_and_the_file_arrives() {
    let world = World::with(Settings {
        rename_wait: Duration::from_millis(1),
        ..Settings::default()
    });
    world.copy_in(VIDEO, ".a.mp4.Ab12Cd", b"bytes").unwrap();
    world.uploads.pause();
    world.rename_now(".a.mp4.Ab12Cd", "a.mp4").unwrap();
    assert_eq!(world.at_service("a.mp4"), None);
    world.uploads.resume();
    world.drain();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"bytes");
}

#[test]
fn a_rename_reports_an_upload_that_is_refused_meanwhile() {
    let world = World::new();
    world.copy_in(VIDEO, ".a.mp4.Ab12Cd", b"bytes").unwrap();
    let post = Fault::at(HostKind::Useapi).method("POST");
    world.emulator.add_fault(post.does(Effect::status(422)));
    let renamed = world.rename_now(".a.mp4.Ab12Cd", "a.mp4");
    assert!(matches!(renamed, Err(FsError::Io(_))), "{renamed:?}");
    assert_eq!(
        world.cat(VIDEO, "a.mp4").unwrap(),
        b"bytes",
        "it stays readable"
    );
}

#[test]
fn setting_the_upload_state_to_retry_sends_what_was_given_up() {
    let world = World::new();
    let post = Fault::at(HostKind::Useapi).method("POST");
    world.emulator.add_fault(post.does(Effect::status(422)));
    world.copy_in(VIDEO, "a.mp4", b"bytes").unwrap_err();
    world.emulator.clear_faults();
    let state = OsStr::new("user.reelfs.upload");
    let root = crate::tree::inode::ROOT;
    let set = |value: &[u8]| world.setxattr(root, state, value);
    assert!(matches!(set(b"done"), Err(FsError::Invalid(_))));
    set(b"retry").unwrap();
    world.drain();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"bytes");
}

#[test]
fn a_local_file_is_removed_at_once() {
    let world = World::new();
    world.copy_in(VIDEO, ".a", b"bytes").unwrap();
    world.unlink_now(VIDEO, ".a").unwrap();
    assert!(world.ls(VIDEO).unwrap().is_empty());
    assert_eq!(world.unlink_now(VIDEO, ".a"), Err(FsError::NotFound));
    let world = world.remount();
    assert!(world.ls(VIDEO).unwrap().is_empty());
}

#[test]
fn a_removed_file_is_readable_by_the_handle_that_has_it_and_not_uploaded() {
    let world = World::new();
    let fh = world.create_now(VIDEO, "a.mp4");
    world.write_now(fh, 0, b"bytes").unwrap();
    world.unlink_now(VIDEO, "a.mp4").unwrap();
    assert_eq!(world.read_all(fh).unwrap(), b"bytes");
    world.write_now(fh, 5, b" more").unwrap();
    world.close_now(fh).unwrap();
    world.drain();
    assert_eq!(world.uploads_sent(), 0);
    assert!(world.ls(VIDEO).unwrap().is_empty());
}

#[test]
fn an_asset_is_deleted_only_where_that_was_allowed() {
    let world = World::new();
    world.add("a.mp4", text("a"));
    world.ls(VIDEO).unwrap();
    let refused = world.unlink_now(VIDEO, "a.mp4");
    assert!(matches!(refused, Err(FsError::NotPermitted(_))));
    assert_eq!(world.emulator.runway_assets().len(), 1);

    let world = deleting();
    world.add("a.mp4", text("a"));
    world.ls(VIDEO).unwrap();
    world.unlink_now(VIDEO, "a.mp4").unwrap();
    assert!(world.ls(VIDEO).unwrap().is_empty());
    assert!(world.emulator.runway_assets().is_empty());
    let ltx = LtxAsset::new("image/png", text("png"));
    let name = format!("{}.png", world.emulator.add_ltx(ltx));
    let refused = world.unlink_now(Library::LtxImages, &name);
    assert_eq!(refused, Err(FsError::ReadOnly));
}

#[test]
fn a_deletion_that_the_service_refuses_leaves_the_asset() {
    let world = deleting();
    world.add("a.mp4", text("a"));
    world.ls(VIDEO).unwrap();
    world.fault_once(HostKind::Useapi, "DELETE", Effect::status(403));
    let refused = world.unlink_now(VIDEO, "a.mp4");
    assert!(matches!(refused, Err(FsError::Denied(_))), "{refused:?}");
    assert_eq!(world.ls(VIDEO).unwrap(), ["a.mp4"]);
    world.unlink_now(VIDEO, "a.mp4").unwrap();
}

#[test]
fn the_older_version_takes_the_name_of_a_deleted_one() {
    let world = deleting();
    world.add("a.mp4", text("older"));
    world.advance_s(1);
    world.add("a.mp4", text("newer"));
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"newer");
    world.unlink_now(VIDEO, "a.mp4").unwrap();
    assert_eq!(world.ls(VIDEO).unwrap(), ["a.mp4"]);
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"older");
}

#[test]
fn attributes_of_directories_can_be_set_and_do_not_change() {
    let world = World::new();
    for ino in [1, world.directory(VIDEO), world.directory(Library::Runflow)] {
        let before = world.getattr_now(ino).unwrap();
        let set = SetAttr {
            mode: Some(0o700),
            mtime: Some(SystemTime::UNIX_EPOCH),
            other: true,
            size_bytes: None,
        };
        assert_eq!(world.setattr_now(ino, None, set).unwrap(), before);
        assert_eq!(world.truncate_now(ino, None, 0), Err(FsError::IsDirectory));
    }
}

#[test]
fn times_and_mode_of_an_asset_can_be_set_and_are_kept() {
    let world = World::new();
    world.add("a.mp4", text("a"));
    let ino = world.ino(VIDEO, "a.mp4");
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let set = SetAttr {
        mode: Some(0o640),
        mtime: Some(old),
        ..SetAttr::default()
    };
    let shown = world.setattr_now(ino, None, set).unwrap();
    assert_eq!((shown.mtime, shown.mode), (old, 0o640));
    world.let_listings_age();
    let listed = world.lookup_now(VIDEO, "a.mp4").unwrap();
    assert_eq!((listed.mtime, listed.mode), (old, 0o640));
    let world = world.remount();
    let shown = world.lookup_now(VIDEO, "a.mp4").unwrap();
    assert_eq!((shown.ino, shown.mtime, shown.mode), (ino, old, 0o640));
    assert_eq!(world.uploads_sent(), 0);
}

const OLD: SystemTime = SystemTime::UNIX_EPOCH;

/// What `chmod(2)` and `utimensat(2)` ask for; the kernel names no handle, also for a descriptor.
fn chmod_and_age(world: &World, ino: u64, mode: u32) {
    let set = SetAttr {
        mode: Some(mode),
        mtime: Some(OLD),
        ..SetAttr::default()
    };
    let shown = world.setattr_now(ino, None, set).unwrap();
    assert_eq!((u32::from(shown.mode), shown.mtime), (mode, OLD));
}

fn mode_of(world: &World, name: &str) -> u16 {
    world.lookup_now(VIDEO, name).unwrap().mode
}

#[test]
fn a_mode_that_was_set_before_an_upload_is_that_of_the_version_after_it() {
    let world = World::new();
    let fh = world.create_now(VIDEO, "a.mp4");
    let ino = world.ino(VIDEO, "a.mp4");
    world.write_now(fh, 0, b"first").unwrap();
    chmod_and_age(&world, ino, 0o640);
    // A copy of the descriptor is closed: the end of a mapping is one.
    world.flush_as(fh, WRITER, false).unwrap();
    assert_eq!(world.uploads_sent(), 1);
    world.truncate_now(ino, Some(fh), 1).unwrap();
    assert_eq!(world.getattr_by_now(ino, fh).unwrap().mode, 0o640);
    assert_eq!(mode_of(&world, "a.mp4"), 0o640);
    world.close_now(fh).unwrap();
    assert_eq!(mode_of(&world.remount(), "a.mp4"), 0o640);
}

#[test]
fn a_mode_that_was_set_after_an_upload_is_that_of_the_version_after_it() {
    let world = World::new();
    let fh = world.create_now(VIDEO, "a.mp4");
    let ino = world.ino(VIDEO, "a.mp4");
    world.write_now(fh, 0, b"first").unwrap();
    world.flush_as(fh, WRITER, false).unwrap();
    chmod_and_age(&world, ino, 0o640);
    world.write_now(fh, 5, b" and second").unwrap();
    assert_eq!(world.getattr_by_now(ino, fh).unwrap().mode, 0o640);
    world.close_now(fh).unwrap();
    assert_eq!(mode_of(&world, "a.mp4"), 0o640);
}

#[test]
fn a_mode_that_was_set_on_an_open_asset_is_that_of_its_next_version() {
    let world = World::new();
    world.add("a.mp4", text("older"));
    let ino = world.ino(VIDEO, "a.mp4");
    let fh = world.open_to_write_now(ino, write_mode()).unwrap().fh;
    chmod_and_age(&world, ino, 0o640);
    world.write_now(fh, 0, b"newer").unwrap();
    assert_eq!(world.getattr_by_now(ino, fh).unwrap().mode, 0o640);
    world.close_now(fh).unwrap();
    assert_eq!(mode_of(&world, "a.mp4"), 0o640);
}

#[test]
fn an_uploaded_version_has_one_mode_by_its_own_number_and_by_its_writers() {
    let world = World::new();
    world.add("a.mp4", text("older"));
    let written = world.ino(VIDEO, "a.mp4");
    let fh = world.open_to_write_now(written, truncating()).unwrap().fh;
    world.write_now(fh, 0, b"newer").unwrap();
    world.flush_as(fh, WRITER, false).unwrap();
    let named = world.ino(VIDEO, "a.mp4");
    assert_ne!(named, written);
    for (set_by, mode) in [(written, 0o640), (named, 0o600)] {
        chmod_and_age(&world, set_by, mode);
        for shown_by in [written, named] {
            let shown = world.getattr_now(shown_by).unwrap();
            assert_eq!((u32::from(shown.mode), shown.mtime), (mode, OLD));
            assert_eq!(shown.ttl, Duration::ZERO, "the kernel has two numbers");
        }
    }
    world.write_now(fh, 0, b"newest").unwrap();
    assert_eq!(world.getattr_by_now(written, fh).unwrap().mode, 0o600);
    world.close_now(fh).unwrap();
    assert_eq!(mode_of(&world.remount(), "a.mp4"), 0o600);
}

#[test]
fn assets_of_read_only_services_cannot_be_changed() {
    let world = World::new();
    let ltx = LtxAsset::new("image/png", text("png"));
    let name = format!("{}.png", world.emulator.add_ltx(ltx));
    let ino = world.ino(Library::LtxImages, &name);
    let set = SetAttr {
        mode: Some(0o600),
        ..SetAttr::default()
    };
    assert_eq!(world.setattr_now(ino, None, set), Err(FsError::ReadOnly));
    assert_eq!(world.truncate_now(ino, None, 0), Err(FsError::ReadOnly));
    let opened = world.open_to_write_now(ino, write_mode());
    assert_eq!(opened, Err(FsError::ReadOnly));
}

#[test]
fn truncation_by_handle_changes_what_is_written() {
    let world = World::new();
    let fh = world.create_now(VIDEO, "a.mp4");
    let ino = world.ino(VIDEO, "a.mp4");
    world.write_now(fh, 0, b"0123456789").unwrap();
    let shown = world.truncate_now(ino, Some(fh), 4).unwrap();
    assert_eq!(shown.size_bytes, 4);
    let shown = world.truncate_now(ino, Some(fh), 6).unwrap();
    assert_eq!(shown.size_bytes, 6);
    world.close_now(fh).unwrap();
    assert_eq!(world.at_service("a.mp4").unwrap(), b"0123\0\0");
}

#[test]
fn truncation_by_name_to_the_size_that_it_has_leaves_the_time() {
    let world = World::new();
    let fh = world.create_now(VIDEO, ".a");
    let ino = world.ino(VIDEO, ".a");
    for size in [0, 6] {
        world.truncate_now(ino, Some(fh), size).unwrap();
        chmod_and_age(&world, ino, 0o600);
        assert_eq!(world.truncate_now(ino, None, size).unwrap().mtime, OLD);
    }
    let shown = world.truncate_now(ino, None, 5).unwrap();
    assert!(shown.size_bytes == 5 && shown.mtime != OLD);
    world.close_now(fh).unwrap();
}

#[test]
fn truncation_of_an_open_asset_copies_only_what_stays() {
    let world = World::new();
    let content = Content::synthetic(8 << 20, 1);
    world.add("a.mp4", content.clone());
    let ino = world.ino(VIDEO, "a.mp4");
    let fh = world.open_to_write_now(ino, write_mode()).unwrap().fh;
    let shown = world.truncate_now(ino, Some(fh), 10).unwrap();
    assert_eq!(shown.size_bytes, 10);
    world.close_now(fh).unwrap();
    assert_eq!(world.at_service("a.mp4").unwrap(), content.read(0, 10));
}

#[test]
fn truncation_by_name_makes_a_version_and_uploads_it() {
    let world = World::new();
    world.add("a.mp4", text("0123456789"));
    let ino = world.ino(VIDEO, "a.mp4");
    world.truncate_now(ino, None, 4).unwrap();
    until("it is uploaded", || {
        world
            .at_service("a.mp4")
            .is_some_and(|bytes| bytes == b"0123")
    });
    world.drain();
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"0123");
    world
        .truncate_now(world.ino(VIDEO, "a.mp4"), None, 0)
        .unwrap();
    assert_eq!(world.cat(VIDEO, "a.mp4").unwrap(), b"");
    world.drain();
    assert_eq!(world.uploads_sent(), 1, "an empty file is kept aside");
}

#[test]
fn a_mode_that_is_set_while_the_upload_ends_is_shown() {
    let world = write_back();
    for round in 0..40 {
        let name = format!("{round}.mp4");
        let fh = world.create_now(VIDEO, &name);
        let ino = world.ino(VIDEO, &name);
        world.write_now(fh, 0, b"first").unwrap();
        world.close_now(fh).unwrap();
        // Until after the last moment at which the file is none of an asset's.
        let mut mode = 0o600;
        let mut is_last = false;
        while !is_last {
            is_last = world.uploads_sent() > round && world.uploads.staged().is_empty();
            mode ^= 0o077;
            let set = SetAttr {
                mode: Some(mode),
                ..SetAttr::default()
            };
            world.setattr_now(ino, None, set).unwrap();
        }
        world.drain();
        assert_eq!(u32::from(mode_of(&world, &name)), mode, "{name}");
    }
}

#[test]
fn what_may_be_the_upload_under_way_is_not_deleted() {
    let world = World::with(Settings {
        allow_delete: true,
        write_back: true,
        ..Settings::default()
    });
    world.uploads.pause();
    world.copy_in(VIDEO, "a.mp4", b"first").unwrap();
    // The service has it, and has not answered yet; and an older version of another size.
    let arrived = world.add("a.mp4", text("first"));
    let older = world.add("a.mp4", text("an older one"));
    world.let_listings_age();
    let delete = |id: &str| {
        let shown = format!("a ({}).mp4", &id[..8]);
        world.lookup_now(VIDEO, &shown)?;
        world.unlink_now(VIDEO, &shown)
    };
    assert_eq!(delete(&arrived), Err(FsError::Busy));
    assert_eq!(delete(&older), Ok(()));
    world.uploads.resume();
    world.drain();
    let held = world.emulator.runway_assets();
    assert!(held.iter().any(|asset| asset.id == arrived));
    assert_eq!(delete(&arrived), Ok(()), "it was another");
}
