//! Staged files as files, and what happens to them at a close.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::*;

#[test]
fn a_closed_file_becomes_an_asset_with_its_name_and_bytes() {
    let world = World::new();
    let bytes = sample(300_000, 1);
    let file = world.copy_in("clip.mp4", &bytes).unwrap();
    let (asset, stored) = world.only_asset();
    assert_eq!(asset.name.as_deref(), Some("clip.mp4"));
    assert!(stored == bytes);
    assert_eq!(
        file.state(),
        UploadState::Uploaded {
            id: asset.id.clone()
        }
    );
    assert_eq!(
        *world.directory.uploaded.lock().unwrap(),
        [(file.id(), asset.id)]
    );
    assert!(world.uploads.staged().is_empty());
}

#[test]
fn an_uploaded_file_is_read_back_without_a_download_also_after_a_remount() {
    let world = World::new();
    let bytes = sample(10_000, 2);
    let file = world.copy_in("clip.mp4", &bytes).unwrap();
    let mut read = vec![0; 20_000];
    assert_eq!(file.read_at(&mut read, 1).unwrap(), 9_999);
    assert!(read[..9_999] == bytes[1..]);
    let (asset, _) = world.only_asset();
    let again = World::mount(&world.root, world.service.clone(), None, |_| {});
    let mut copy = Vec::new();
    let mut kept = again.uploads.local_copy(&asset.id).unwrap();
    kept.read_to_end(&mut copy).unwrap();
    assert!(copy == bytes);
}

#[test]
fn what_the_user_set_goes_with_the_file_to_its_asset() {
    let world = World::new();
    let set = SystemTime::UNIX_EPOCH + Duration::from_millis(1_600_000_000_123);
    let file = world.write("clip.mp4", b"bytes");
    file.set_times(None, Some(set)).unwrap();
    file.set_mode(0o600).unwrap();
    outcome(&world.close(&file)).unwrap();
    let (asset, _) = world.only_asset();
    let meta = || {
        world
            .store
            .asset_meta(Service::Runway, &asset.id)
            .unwrap()
            .unwrap()
    };
    assert_eq!(meta().mtime, Some(set));
    assert_eq!(meta().mode, Some(0o600));
    assert_eq!((meta().ino, meta().size_bytes), (7, Some(5)));
    assert_eq!(meta().display_name.as_deref(), Some("clip.mp4"));
    let later = set + Duration::from_secs(9);
    file.set_times(None, Some(later)).unwrap();
    file.set_mode(0o640).unwrap();
    assert_eq!(meta().mtime, Some(later));
    assert_eq!(meta().mode, Some(0o640));
}

#[test]
fn random_writes_and_truncation_are_what_is_uploaded() {
    let world = World::new();
    let file = world.write("clip.mp4", &[1; 10]);
    file.write_at(&[2; 4], 20).unwrap();
    file.write_at(&[3; 2], 4).unwrap();
    file.truncate(22).unwrap();
    file.allocate(0, 30, Allocate::KeepSize).unwrap();
    assert_eq!(file.size_bytes().unwrap(), 22);
    file.allocate(0, 23, Allocate::Grow).unwrap();
    assert!(file.is_dirty());
    outcome(&world.close(&file)).unwrap();
    assert!(!file.is_dirty());
    let wanted = [&[1; 4][..], &[3; 2], &[1; 4], &[0; 10], &[2; 2], &[0]].concat();
    assert_eq!(world.only_asset().1, wanted);
}

#[test]
fn an_empty_file_is_kept_here_until_it_has_bytes() {
    let world = World::new();
    let file = world.copy_in("clip.mp4", b"").unwrap();
    assert_eq!(file.state(), UploadState::Local);
    assert_eq!(world.uploads.staged().len(), 1);
    file.write_at(b"now it has", 0).unwrap();
    outcome(&world.close(&file)).unwrap();
    assert_eq!(world.only_asset().1, b"now it has");
    assert_eq!(world.uploads_tried(), 1);
}

#[test]
fn a_temporary_name_is_uploaded_once_it_is_renamed_to_a_real_one() {
    let world = World::new();
    let file = world.copy_in(".clip.mp4.Ab12Cd", b"bytes").unwrap();
    assert_eq!(file.state(), UploadState::Local);
    assert!(world.service.assets().is_empty());
    world.uploads.rename(&file, VIDEO, "clip.mp4").unwrap();
    outcome(&world.close(&file)).unwrap();
    assert_eq!(world.only_asset().0.name.as_deref(), Some("clip.mp4"));
}

#[test]
fn a_queued_file_renamed_to_a_backup_stays_here() {
    let world = World::new();
    world.uploads.pause();
    let file = world.write("clip.mp4", b"bytes");
    let closed = world.close(&file);
    world.until(|| file.state() == UploadState::Queued);
    world.uploads.rename(&file, VIDEO, "clip.mp4~").unwrap();
    outcome(&closed).unwrap();
    assert_eq!(file.state(), UploadState::Local);
    world.uploads.resume();
    world.drained();
    assert_eq!(world.uploads_tried(), 0);
}

#[test]
fn a_queued_file_that_is_renamed_is_uploaded_under_its_new_name() {
    let world = World::new();
    world.uploads.pause();
    let file = world.write("a.mp4", b"bytes");
    let closed = world.close(&file);
    world.until(|| file.state() == UploadState::Queued);
    world.uploads.rename(&file, VIDEO, "b.mp4").unwrap();
    world.uploads.resume();
    outcome(&closed).unwrap();
    assert_eq!(world.only_asset().0.name.as_deref(), Some("b.mp4"));
}

#[test]
fn a_file_deleted_before_it_was_sent_is_never_sent() {
    let world = World::new();
    world.uploads.pause();
    let file = world.write("clip.mp4", b"bytes");
    let closed = world.close(&file);
    world.until(|| file.state() == UploadState::Queued);
    world.uploads.remove(&file).unwrap();
    outcome(&closed).unwrap();
    world.uploads.resume();
    world.drained();
    outcome(&world.close(&file)).unwrap();
    assert_eq!(world.uploads_tried(), 0);
    assert!(world.files_in("staging").is_empty());
    assert!(world.store.journal().unwrap().is_empty());
}

#[test]
fn a_queued_file_that_is_written_again_is_sent_whole_after_its_next_close() {
    let world = World::new();
    world.uploads.pause();
    let file = world.write("clip.mp4", b"first");
    let closed = world.close(&file);
    world.until(|| file.state() == UploadState::Queued);
    file.write_at(b"second", 0).unwrap();
    assert_eq!(file.state(), UploadState::Open);
    world.uploads.resume();
    outcome(&closed).unwrap();
    assert_eq!(world.uploads_tried(), 0);
    outcome(&world.close(&file)).unwrap();
    assert_eq!(world.only_asset().1, b"second");
}

#[test]
fn a_file_that_is_being_sent_is_changed_in_a_clone() {
    let world = World::new();
    let (began, go) = world.service.hold_uploads();
    let file = world.write("clip.mp4", b"first bytes");
    file.set_mode(0o600).unwrap();
    let first = world.close(&file);
    began.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(file.state(), UploadState::Sending { .. }));
    assert!(matches!(file.write_at(b"x", 0), Err(UploadError::Busy)));
    assert!(matches!(file.truncate(0), Err(UploadError::Busy)));
    assert!(matches!(
        world.uploads.rename(&file, VIDEO, "b.mp4"),
        Err(UploadError::Busy)
    ));
    assert!(matches!(
        world.uploads.remove(&file),
        Err(UploadError::Busy)
    ));
    let copy = world.uploads.clone_for_write(&file).unwrap();
    assert_eq!(
        (copy.ino(), copy.mode(), copy.name()),
        (7, 0o600, file.name())
    );
    assert_eq!(copy.times().unwrap().mtime, file.times().unwrap().mtime);
    copy.write_at(b"other", 0).unwrap();
    let second = world.close(&copy);
    go.send(()).unwrap();
    outcome(&first).unwrap();
    go.send(()).unwrap();
    outcome(&second).unwrap();
    let assets = world.service.assets();
    assert_eq!(world.service.bytes(&assets[0].id), b"first bytes");
    assert_eq!(world.service.bytes(&assets[1].id), b"other bytes");
}

#[test]
fn an_uploaded_file_is_changed_in_a_clone() {
    let world = World::new();
    let file = world.copy_in("clip.mp4", b"first bytes").unwrap();
    assert!(matches!(file.write_at(b"x", 0), Err(UploadError::Busy)));
    let copy = world.uploads.clone_for_write(&file).unwrap();
    copy.write_at(b"!", 11).unwrap();
    outcome(&world.close(&copy)).unwrap();
    assert_eq!(
        world.service.bytes(&world.service.assets()[1].id),
        b"first bytes!"
    );
}

#[test]
fn a_type_that_is_not_taken_is_refused_and_the_file_stays() {
    let world = World::new();
    let error = world.copy_in("notes.txt", b"text").unwrap_err();
    assert!(matches!(error, UploadError::Type { .. }), "{error}");
    let file = &world.uploads.staged()[0];
    assert_eq!(file.state().to_string(), format!("failed: {error}"));
    assert_eq!(*world.directory.failed.lock().unwrap(), ["notes.txt"]);
    assert_eq!(world.uploads_tried(), 0);
}

#[test]
fn only_the_owner_can_read_staged_and_kept_files() {
    let world = World::new();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for directory in ["staging", "kept", "recovered"] {
        assert_eq!(mode(world.state().join(directory)), 0o700, "{directory}");
    }
    let file = world.write("clip.mp4", b"bytes");
    assert_eq!(
        mode(world.state().join(format!("staging/{}", file.id()))),
        0o600
    );
    outcome(&world.close(&file)).unwrap();
    world.until(|| !world.files_in("kept").is_empty());
    assert_eq!(
        mode(world.state().join(format!("kept/{}", file.id()))),
        0o600
    );
}

#[test]
fn kept_copies_stay_within_their_limit_and_the_newest_stays_always() {
    let world = World::with(|config| config.keep_bytes = 2_500);
    for (name, length) in [("a.mp4", 1_000), ("b.mp4", 1_000), ("c.mp4", 1_000)] {
        world.copy_in(name, &sample(length, 3)).unwrap();
    }
    let kept = |name: &str| {
        let asset = world.directory.newest_named(VIDEO, name).unwrap();
        world.uploads.local_copy(&asset.id).is_some()
    };
    assert_eq!(
        (kept("a.mp4"), kept("b.mp4"), kept("c.mp4")),
        (false, true, true)
    );
    world.copy_in("large.mp4", &sample(9_000, 3)).unwrap();
    assert_eq!((kept("c.mp4"), kept("large.mp4")), (false, true));
    assert_eq!(world.files_in("kept").len(), 1);
}

#[test]
fn nothing_is_kept_where_nothing_is_to_be_kept() {
    let world = World::with(|config| config.keep_bytes = 0);
    world.copy_in("a.mp4", b"bytes").unwrap();
    assert!(world.files_in("kept").is_empty() && world.files_in("staging").is_empty());
}

/// A file system of 1 MiB that is unmounted in the end.
struct TinyDisk(tempfile::TempDir);

impl TinyDisk {
    fn mount() -> Self {
        let disk = Self(tempfile::TempDir::new().unwrap());
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "reelfs-test"])
            .arg(disk.0.path())
            .status()
            .expect("`mount` (Debian package mount) runs");
        assert!(status.success(), "this test mounts a tmpfs: run it as root");
        disk
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_fails_the_write_and_never_shortens_an_upload() {
    let disk = TinyDisk::mount();
    let world = World::at(disk.0.path(), None, |_| {});
    let file = world.uploads.create(VIDEO, "clip.mp4", 7, 0o644).unwrap();
    let block = sample(64 << 10, 5);
    let error = (0..64)
        .find_map(|n| file.write_at(&block, n * (64 << 10)).err())
        .expect("4 MiB do not fit in 1 MiB");
    assert!(matches!(error, UploadError::DiskFull), "{error}");
    let error = outcome(&world.close(&file)).unwrap_err();
    assert!(matches!(error, UploadError::DiskFull), "{error}");
    assert_eq!(world.uploads.retry_failed(), 0);
    file.truncate(0).unwrap();
    file.write_at(b"fits", 0).unwrap();
    outcome(&world.close(&file)).unwrap();
    assert_eq!(world.only_asset().1, b"fits");
}

#[test]
fn room_that_is_not_there_can_not_be_reserved() {
    let disk = TinyDisk::mount();
    let world = World::at(disk.0.path(), None, |_| {});
    let file = world.uploads.create(VIDEO, "clip.mp4", 7, 0o644).unwrap();
    let error = file.allocate(0, 4 << 20, Allocate::Grow).unwrap_err();
    assert!(matches!(error, UploadError::DiskFull), "{error}");
}

#[test]
fn a_file_whose_entry_cannot_be_read_stays_and_keeps_no_other_from_its_upload() {
    let attempt = "began_ns = 1, attempt_name = 'spoilt.mp4', attempt_size_bytes = 10, \
                   attempt_sha256 = zeroblob(32)";
    for (column, value) in [
        ("known_ids", "'not a list'"),
        ("mode", "'rw'"),
        ("stage", "''"),
    ] {
        let root = tempfile::TempDir::new().unwrap();
        let world = World::at(root.path(), None, |_| {});
        world.uploads.pause();
        let files = ["spoilt.mp4", "whole.mp4"].map(|name| world.write(name, name.as_bytes()));
        let closed = [0, 1].map(|n| world.close(&files[n]));
        world.until(|| files.iter().all(|f| f.state() == UploadState::Queued));
        let (spoilt, state) = (files[0].id(), world.state());
        drop((files, closed));
        world.end();
        let set = format!("UPDATE uploads SET {attempt}, {column} = {value} WHERE id = ?1");
        let journal = rusqlite::Connection::open(state.join("state.db")).unwrap();
        assert_eq!(journal.execute(&set, [spoilt.to_string()]), Ok(1));
        // Every mount finds it so.
        for _ in 0..2 {
            let world = World::at(root.path(), None, |_| {});
            world.drained();
            assert_eq!(world.only_asset().1, b"whole.mp4", "{column}");
            let kept = (spoilt.to_string(), b"spoilt.mp4".to_vec());
            assert_eq!(world.files_in("staging"), [kept]);
            assert!(world.files_in("recovered").is_empty());
            world.end();
        }
    }
}
