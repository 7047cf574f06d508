//! What stops the queue, for how long, and what those who wait are told.

use super::*;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl World {
    /// Waits until an upload was tried `times` times and its outcome is noted.
    fn tried(&self, times: usize) {
        self.until(|| self.uploads_tried() == times);
        self.until(|| self.uploads.shared.line().queue.is_resting());
    }

    /// Submits a file that nobody waits for.
    fn submit_quietly(&self, name: &str) -> Arc<StagedFile> {
        let file = self.write(name, name.as_bytes());
        self.uploads.submit(&file, None);
        file
    }
}

#[test]
fn a_refused_account_stops_the_queue_and_one_probe_a_minute_finds_it_mended() {
    for refusal in [denied(), ProviderError::Quota("spent".to_string())] {
        let world = World::timeless(|config| config.max_concurrent = 1);
        world
            .service
            .next_uploads([Fault::Answer(refusal.clone()), Fault::Answer(refusal)]);
        world.submit_quietly("a.mp4");
        world.tried(1);
        for name in ["b.mp4", "c.mp4"] {
            let file = world.submit_quietly(name);
            world.until(|| file.state() == UploadState::Queued);
        }
        world.pass(seconds(59));
        world.tried(1);
        world.pass(seconds(1));
        world.tried(2);
        world.pass(seconds(59));
        world.tried(2);
        world.pass(seconds(1));
        world.until(|| world.service.assets().len() == 3);
    }
}

#[test]
fn who_waits_for_a_refused_account_is_told_at_once() {
    let world = World::timeless(|_| {});
    world.service.next_uploads([Fault::Answer(denied())]);
    for name in ["a.mp4", "b.mp4"] {
        let error = world.copy_in(name, b"bytes").unwrap_err();
        assert!(
            matches!(error, UploadError::Provider(ProviderError::Denied(_))),
            "{error}"
        );
    }
    assert_eq!(world.uploads_tried(), 1);
    assert_eq!(world.uploads.retry_failed(), 2);
    world.drained();
    assert_eq!(world.service.assets().len(), 2);
}

#[test]
fn a_rate_limit_pauses_every_upload_for_as_long_as_it_says() {
    let world = World::timeless(|config| config.max_concurrent = 1);
    world
        .service
        .next_uploads([Fault::Answer(ProviderError::RateLimited {
            retry_after: Some(seconds(30)),
        })]);
    let files = ["a.mp4", "b.mp4", "c.mp4"].map(|name| world.write(name, b"bytes"));
    let closed = files.each_ref().map(|file| world.close(file));
    world.tried(1);
    world.pass(seconds(29));
    world.tried(1);
    assert!(closed.iter().all(is_pending));
    world.pass(seconds(1));
    for closed in &closed {
        outcome(closed).unwrap();
    }
    assert_eq!(world.uploads_tried(), 4);
}

#[test]
fn an_unreachable_service_is_tried_again_and_a_close_that_waits_ends_at_the_deadline() {
    let world = World::timeless(|_| {});
    world
        .service
        .next_uploads(vec![Fault::Answer(unavailable()); 100]);
    let file = world.write("clip.mp4", b"bytes");
    let closed = world.close(&file);
    for (wait, tries) in [(0, 1), (1, 2), (2, 3), (4, 4), (8, 5), (16, 6)] {
        world.pass(seconds(wait));
        world.tried(tries);
        assert!(is_pending(&closed));
    }
    world.pass(seconds(28));
    assert!(is_pending(&closed));
    world.pass(seconds(1));
    let error = outcome(&closed).unwrap_err();
    assert!(
        matches!(
            error,
            UploadError::Provider(ProviderError::Unavailable { .. })
        ),
        "{error}"
    );
    let tries = world.uploads_tried();
    assert!(matches!(file.state(), UploadState::Failed { .. }));
    let mut read = [0; 5];
    assert_eq!(file.read_at(&mut read, 0).unwrap(), 5);
    world.service.faults.lock().unwrap().clear();
    world.pass(seconds(3_600));
    assert_eq!(
        world.uploads_tried(),
        tries,
        "a failed file was sent unasked"
    );
    assert_eq!(world.uploads.retry_failed(), 1);
    world.until(|| world.service.assets().len() == 1);
}

#[test]
fn what_nobody_waits_for_is_tried_for_ever() {
    let world = World::timeless(|config| config.write_back = true);
    world
        .service
        .next_uploads(vec![Fault::Answer(unavailable()); 20]);
    let file = world.write("clip.mp4", b"bytes");
    outcome(&world.close(&file)).unwrap();
    assert_eq!(world.store.journal().unwrap().len(), 1);
    for tries in 1..=20 {
        world.tried(tries);
        assert_eq!(file.state(), UploadState::Queued);
        world.pass(seconds(60));
    }
    world.until(|| world.service.assets().len() == 1);
}

#[test]
fn who_waits_behind_a_standstill_is_told_at_the_deadline() {
    let world = World::timeless(|_| {});
    world.uploads.pause();
    let file = world.write("clip.mp4", b"bytes");
    let closed = world.close(&file);
    world.until(|| file.state() == UploadState::Queued);
    world.pass(seconds(60));
    let error = outcome(&closed).unwrap_err();
    assert!(matches!(error, UploadError::NotSent(_)), "{error}");
}

#[test]
fn a_refused_file_fails_alone() {
    let world = World::new();
    world.service.next_uploads([Fault::Answer(refused())]);
    let error = world.copy_in("a.mp4", b"bytes").unwrap_err();
    assert!(
        matches!(error, UploadError::Provider(ProviderError::Refused { .. })),
        "{error}"
    );
    world.copy_in("b.mp4", b"bytes").unwrap();
    assert_eq!(*world.directory.failed.lock().unwrap(), ["a.mp4"]);
    let states: Vec<String> = world
        .uploads
        .statuses()
        .iter()
        .map(|status| status.state.to_string())
        .collect();
    assert_eq!(states, ["failed: the service refused it: no (status 400)"]);
}

#[test]
fn draining_names_what_remains_and_does_not_wait_for_a_refused_account() {
    let world = World::timeless(|_| {});
    assert!(world.uploads.drain(seconds(0)).is_empty());
    world.service.next_uploads([Fault::Answer(denied())]);
    world.submit_quietly("clip.mp4");
    world.tried(1);
    assert_eq!(world.uploads.drain(seconds(300)), ["clip.mp4"]);
    world.uploads.resume();
    world.drained();
    world.only_asset();
}

#[test]
fn draining_ends_at_its_timeout() {
    let world = World::new();
    let (began, go) = world.service.hold_uploads();
    world.submit_quietly("clip.mp4");
    began.recv_timeout(PATIENCE).unwrap();
    assert_eq!(world.uploads.drain(Duration::from_millis(1)), ["clip.mp4"]);
    go.send(()).unwrap();
    world.drained();
}

#[test]
fn progress_is_a_percentage() {
    let world = World::new();
    let file = world.write("clip.mp4", &sample(1_000, 1));
    let (began, go) = world.service.hold_uploads();
    let closed = world.close(&file);
    began.recv_timeout(PATIENCE).unwrap();
    assert_eq!(file.state().to_string(), "sending 0%");
    let job = Arc::clone(&file);
    assert_eq!(job.sent_bytes(), 0);
    go.send(()).unwrap();
    outcome(&closed).unwrap();
    assert_eq!(file.state().to_string(), "done");
}
