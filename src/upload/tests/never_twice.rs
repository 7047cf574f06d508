//! Every file is at the service once, whatever happens to the answers.

use super::*;

#[test]
fn an_upload_whose_answer_was_lost_is_found_and_not_sent_again() {
    let world = World::new();
    world.service.next_uploads([Fault::LostAfter]);
    let file = world.copy_in("clip.mp4", b"bytes").unwrap();
    let (asset, _) = world.only_asset();
    assert_eq!(file.state(), UploadState::Uploaded { id: asset.id });
    assert_eq!(world.uploads_tried(), 1);
}

#[test]
fn an_older_asset_of_a_like_name_is_not_taken_for_the_upload() {
    for (listed, older) in [(true, "clip"), (false, "clip"), (true, "CLIP.mp4")] {
        let world = World::timeless(|_| {});
        world.directory.listed.store(listed, Ordering::Relaxed);
        let old = world.service.make(older, b"other", SystemTime::now());
        world.service.next_uploads([Fault::LostHalfway]);
        let file = world.write("clip.mp4", b"bytes");
        world.uploads.submit(&file, None);
        world.finish();
        assert_eq!(world.service.assets().len(), 2);
        assert_ne!(file.state(), UploadState::Uploaded { id: old.id });
    }
}

#[test]
fn an_upload_that_never_arrived_is_sent_again() {
    let world = World::timeless(|_| {});
    world.service.next_uploads([Fault::LostHalfway]);
    let file = world.write("clip.mp4", &sample(1_000, 1));
    let closed = world.close(&file);
    for (looks, wait) in [(1, 1), (2, 3), (3, 6)] {
        world.until(|| world.service.listings.load(Ordering::Relaxed) == looks);
        world.until(|| file.state() == UploadState::Queued);
        assert_eq!(world.uploads_tried(), 1);
        settle(&world);
        world.pass(Duration::from_secs(wait));
    }
    outcome(&closed).unwrap();
    assert!(world.only_asset().1 == sample(1_000, 1));
    assert_eq!(world.uploads_tried(), 2);
}

/// Waits until no upload thread has a turn, so that its wait has begun.
fn settle(world: &World) {
    world.until(|| world.uploads.shared.line().queue.is_resting());
}

#[test]
fn a_listing_that_lags_is_looked_at_again_before_anything_is_sent() {
    let world = World::timeless(|_| {});
    world.service.next_listings_lag(3);
    world.service.next_uploads([Fault::LostAfter]);
    let file = world.write("clip.mp4", b"bytes");
    let closed = world.close(&file);
    for looks in [1, 2, 3] {
        world.until(|| world.service.listings.load(Ordering::Relaxed) == looks);
        settle(&world);
        assert!(is_pending(&closed));
        world.pass(Duration::from_secs(6));
    }
    outcome(&closed).unwrap();
    world.only_asset();
    assert_eq!(world.uploads_tried(), 1);
}

#[test]
fn nothing_is_sent_while_the_listing_fails_after_a_lost_answer() {
    let world = World::timeless(|_| {});
    world.service.next_uploads([Fault::LostAfter]);
    world.service.next_listings_fail(3);
    let file = world.write("clip.mp4", b"bytes");
    let closed = world.close(&file);
    for looks in 1..=3 {
        world.until(|| world.service.listings.load(Ordering::Relaxed) == looks);
        settle(&world);
        assert!(is_pending(&closed));
        world.pass(Duration::from_secs(10));
    }
    outcome(&closed).unwrap();
    world.only_asset();
    assert_eq!(world.uploads_tried(), 1);
}

#[test]
fn an_older_asset_of_the_same_name_and_size_is_not_taken_for_the_upload() {
    for listed in [true, false] {
        let world = World::timeless(|_| {});
        world.directory.listed.store(listed, Ordering::Relaxed);
        let old = world.service.make("clip.mp4", b"other", SystemTime::now());
        world.service.next_uploads([Fault::LostHalfway]);
        let file = world.write("clip.mp4", b"bytes");
        world.uploads.submit(&file, None);
        world.finish();
        assert_eq!(world.service.assets().len(), 2);
        assert_ne!(file.state(), UploadState::Uploaded { id: old.id });
    }
}

#[test]
fn an_asset_from_long_before_the_attempt_is_not_taken_for_the_upload() {
    let world = World::timeless(|_| {});
    let long_ago = SystemTime::now() - Duration::from_secs(3 * 86_400);
    let (began, go) = world.service.hold_uploads();
    world.service.next_uploads([Fault::LostHalfway]);
    let file = world.write("clip.mp4", b"bytes");
    world.uploads.submit(&file, None);
    began.recv_timeout(PATIENCE).unwrap();
    // It shows only now, so that its id was not noted.
    world.service.make("clip.mp4", b"other", long_ago);
    go.send(()).unwrap();
    go.send(()).unwrap();
    world.finish();
    assert_eq!(world.uploads_tried(), 2);
}

#[test]
fn a_clock_that_is_hours_or_days_ahead_does_not_send_a_file_twice() {
    for hours in [9, 30, 9_000] {
        let temporary = tempfile::TempDir::new().unwrap();
        let service = FakeService::open(temporary.path().join("service"), Arc::new(SystemClock));
        let ahead = SystemTime::now() + Duration::from_secs(hours * 3_600);
        let clock = Arc::new(ManualClock::at(ahead));
        let world = World::mount(temporary.path(), service, Some(clock), |_| {});
        world.service.next_uploads([Fault::LostAfter]);
        world.copy_in("clip.mp4", b"bytes").unwrap();
        world.only_asset();
    }
}

#[test]
fn two_versions_whose_answers_were_both_lost_are_told_apart() {
    let world = World::new();
    world
        .service
        .next_uploads([Fault::LostAfter, Fault::LostAfter]);
    let first = world.copy_in("clip.mp4", b"aaaaa").unwrap();
    let second = world.copy_in("clip.mp4", b"bbbbb").unwrap();
    assert_eq!(world.service.assets().len(), 2);
    assert_ne!(first.state(), second.state());
    assert_eq!(world.uploads_tried(), 2);
}

#[test]
fn the_same_bytes_under_the_same_name_are_not_sent_again() {
    let world = World::new();
    world.copy_in("clip.mp4", b"bytes").unwrap();
    let (asset, _) = world.only_asset();
    let again = world.write("clip.mp4", b"bytes");
    let set = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    again.set_times(None, Some(set)).unwrap();
    again.set_mode(0o600).unwrap();
    outcome(&world.close(&again)).unwrap();
    assert_eq!(world.uploads_tried(), 1);
    assert_eq!(
        again.state(),
        UploadState::Uploaded {
            id: asset.id.clone()
        }
    );
    let meta = world
        .store
        .asset_meta(Service::Runway, &asset.id)
        .unwrap()
        .unwrap();
    assert_eq!((meta.mtime, meta.mode), (Some(set), Some(0o600)));
    assert_eq!(world.files_in("kept").len(), 1);
    assert!(world.files_in("staging").is_empty());
}

#[test]
fn the_same_bytes_are_not_sent_again_where_the_service_encoded_them_anew() {
    let world = World::new();
    world.service.next_uploads([Fault::EncodedAnew]);
    world.copy_in("clip.mp4", b"bytes").unwrap();
    world.copy_in("clip.mp4", b"bytes").unwrap();
    world.only_asset();
    assert_eq!(world.uploads_tried(), 1);
    world.copy_in("clip.mp4", b"other").unwrap();
    assert_eq!(world.uploads_tried(), 2);
}

#[test]
fn the_same_bytes_are_sent_when_another_version_stands_under_the_name_now() {
    let world = World::new();
    world.copy_in("clip.mp4", b"bytes").unwrap();
    world.copy_in("clip.mp4", b"other").unwrap();
    world.copy_in("clip.mp4", b"bytes").unwrap();
    assert_eq!(world.service.assets().len(), 3);
}

#[test]
fn an_upload_that_failed_after_a_lost_answer_is_looked_for_when_it_is_retried() {
    let world = World::timeless(|_| {});
    world.service.next_uploads([Fault::LostAfter]);
    world.service.next_listings_fail(100);
    let file = world.write("clip.mp4", b"bytes");
    let closed = world.close(&file);
    let failed = || matches!(file.state(), UploadState::Failed { .. });
    world.until(|| {
        world.pass(Duration::from_secs(5));
        failed()
    });
    assert!(outcome(&closed).is_err());
    world.service.list_faults.lock().unwrap().clear();
    outcome(&world.close(&file)).unwrap();
    world.only_asset();
    assert_eq!(world.uploads_tried(), 1);
}

#[test]
fn a_second_copy_of_a_file_whose_first_copy_failed_makes_one_asset() {
    let world = World::new();
    world.service.next_uploads([Fault::Answer(refused())]);
    let file = world.write("clip.mp4", b"bytes");
    assert!(outcome(&world.close(&file)).is_err());
    file.truncate(0).unwrap();
    file.write_at(b"bytes", 0).unwrap();
    outcome(&world.close(&file)).unwrap();
    world.only_asset();
}

#[test]
fn closing_twice_sends_once() {
    let world = World::new();
    let (began, go) = world.service.hold_uploads();
    let file = world.write("clip.mp4", b"bytes");
    let first = world.close(&file);
    began.recv_timeout(PATIENCE).unwrap();
    let second = world.close(&file);
    go.send(()).unwrap();
    outcome(&first).unwrap();
    outcome(&second).unwrap();
    outcome(&world.close(&file)).unwrap();
    world.only_asset();
    assert_eq!(world.uploads_tried(), 1);
}
