//! Against a scripted host: what is fetched, when, and what becomes of it.

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::UNIX_EPOCH;

use tempfile::TempDir;

use super::*;
use crate::clock::ManualClock;
use crate::http::test_server::{Reply, Seen, TestServer, html};
use crate::http::{AssetClient, Deadlines, UrlPolicy};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    home: TempDir,
    server: TestServer,
    clock: Arc<ManualClock>,
    thumbnails: Thumbnails,
}

impl World {
    fn new(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let home = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(SystemTime::now()));
        let deadlines = Deadlines {
            connect: Duration::from_secs(5),
            stall: Duration::from_secs(30),
            total: Duration::from_secs(30),
        };
        let client = AssetClient::new(deadlines, clock.clone()).unwrap();
        let client = PreviewClient::new(client, deadlines).unwrap();
        let root = home.path().join("thumbnails");
        let thumbnails = Thumbnails::new(&root, Path::new("/m"), client, clock.clone()).unwrap();
        Self {
            home,
            server: TestServer::start(script),
            clock,
            thumbnails,
        }
    }

    fn file(&self, name: &str, mtime_s: u64) -> Pictured {
        let url = self
            .server
            .url()
            .join(&format!("{name}.png?sig=1"))
            .unwrap();
        let policy = UrlPolicy::for_api(&self.server.url());
        let preview = SignedUrl::parse(url.as_str(), None, &policy).ok();
        Pictured {
            path: PathBuf::from(format!("runway/video/{name}.mp4")),
            mtime: UNIX_EPOCH + Duration::from_secs(mtime_s),
            size_bytes: 7,
            mime_type: None,
            details: Arc::new(Details {
                preview,
                ..Details::default()
            }),
        }
    }

    /// Offers the files and waits until all that came of it is done.
    fn offer(&self, files: Vec<Pictured>) {
        let pass = Pass::default();
        for file in files {
            self.thumbnails.offer(file, &pass);
        }
        let limit = Instant::now() + PATIENCE;
        while !self.thumbnails.shared.lock().pending.is_empty() {
            assert!(Instant::now() < limit, "it is never done");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn made(&self, size: &str) -> usize {
        let directory = self.home.path().join("thumbnails").join(size);
        fs::read_dir(directory).unwrap().count()
    }
}

fn picture() -> Reply {
    let mut body = io::Cursor::new(Vec::new());
    let picture = image::RgbaImage::from_pixel(300, 200, image::Rgba([5, 6, 7, 255]));
    picture
        .write_to(&mut body, image::ImageFormat::Png)
        .unwrap();
    Reply::Answer {
        status: 200,
        headers: Vec::new(),
        body: body.into_inner(),
    }
}

#[test]
fn a_preview_makes_both_sizes_and_is_fetched_once() {
    let world = World::new(|_| picture());
    world.offer(vec![world.file("a", 1), world.file("a", 1)]);
    world.offer(vec![world.file("a", 1)]);
    assert_eq!((world.made("normal"), world.made("large")), (1, 1));
    assert_eq!(world.server.count(), 1);
}

#[test]
fn a_file_that_changed_gets_a_new_one_in_the_old_ones_place() {
    let world = World::new(|_| picture());
    world.offer(vec![world.file("a", 1)]);
    world.offer(vec![world.file("a", 2)]);
    assert_eq!((world.made("normal"), world.server.count()), (1, 2));
}

#[test]
fn only_the_size_that_is_missing_is_made() {
    let world = World::new(|_| picture());
    world.offer(vec![world.file("a", 1)]);
    let normal = world.home.path().join("thumbnails/normal");
    let of_another = fs::read_dir(&normal).unwrap().next().unwrap().unwrap();
    let before = fs::metadata(of_another.path()).unwrap().modified().unwrap();
    let large = world.home.path().join("thumbnails/large");
    fs::remove_dir_all(&large).unwrap();
    world.offer(vec![world.file("a", 1)]);
    assert_eq!(world.made("large"), 1);
    let after = fs::metadata(of_another.path()).unwrap().modified().unwrap();
    assert_eq!(before, after);
}

#[test]
fn a_preview_that_fails_is_left_alone_for_a_while() {
    let world = World::new(|_| html(404));
    world.offer(vec![world.file("a", 1)]);
    world.offer(vec![world.file("a", 1)]);
    assert_eq!(world.server.count(), 1);
    world.clock.advance(FAILURE_PAUSE);
    world.offer(vec![world.file("a", 1)]);
    assert_eq!(world.server.count(), 2);
    world.offer(vec![world.file("a", 2)]);
    assert_eq!(world.server.count(), 3, "another version of the file");
    assert_eq!((world.made("normal"), world.made("large")), (0, 0));
}

#[test]
fn what_is_no_picture_makes_no_thumbnail() {
    let world = World::new(|_| html(200));
    world.offer(vec![world.file("a", 1)]);
    assert_eq!((world.made("normal"), world.made("large")), (0, 0));
}

#[test]
fn hosts_that_fail_again_and_again_are_left_alone_and_tried_later() {
    let world = World::new(|_| html(503));
    let files = |from: usize| (from..from + 100).map(|n| world.file(&n.to_string(), 1));
    world.offer(files(0).collect());
    // Those under way when the last failure was counted may still end.
    let most = MOST_FAILURES as usize + FETCHES_AT_ONCE;
    let asked = world.server.count();
    assert!((MOST_FAILURES as usize..=most).contains(&asked), "{asked}");
    world.offer(files(100).collect());
    assert_eq!(world.server.count(), asked);
    world.clock.advance(HOST_PAUSE);
    world.offer(vec![world.file("later", 1)]);
    assert_eq!(world.server.count(), asked + 1);
}

#[test]
fn one_opening_fetches_so_many_and_the_next_goes_on() {
    let world = World::new(|_| html(404));
    let files = || (0..MOST_A_PASS + 5).map(|n| world.file(&n.to_string(), 1));
    world.offer(files().collect());
    assert_eq!(world.server.count(), MOST_A_PASS);
    world.offer(files().collect());
    assert_eq!(world.server.count(), MOST_A_PASS + 5);
}

#[test]
fn a_few_are_fetched_at_a_time() {
    let (began, count) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let world = World::new(move |_| {
        let _ = began.send(());
        let _ = gate.lock().unwrap().recv_timeout(PATIENCE);
        picture()
    });
    let pass = Pass::default();
    for n in 0..FETCHES_AT_ONCE + 3 {
        world.thumbnails.offer(world.file(&n.to_string(), 1), &pass);
    }
    for _ in 0..FETCHES_AT_ONCE {
        count.recv_timeout(PATIENCE).unwrap();
    }
    assert!(count.recv_timeout(Duration::from_millis(100)).is_err());
    for _ in 0..FETCHES_AT_ONCE + 3 {
        go.send(()).unwrap();
    }
    world.offer(Vec::new());
    assert_eq!(world.made("normal"), FETCHES_AT_ONCE + 3);
}

#[test]
fn nothing_is_fetched_after_the_end() {
    let world = World::new(|_| picture());
    let shared = Arc::clone(&world.thumbnails.shared);
    let task = shared.task(world.file("a", 1)).unwrap();
    drop(world.thumbnails);
    shared.carry_out(&task);
    assert_eq!(world.server.count(), 0);
}

#[test]
fn a_url_that_has_expired_is_not_asked() {
    let world = World::new(|_| picture());
    let url = world.server.url().join("a.png").unwrap();
    let policy = UrlPolicy::for_api(&world.server.url());
    let expiry = Some(world.clock.now());
    let details = Details {
        preview: SignedUrl::parse(url.as_str(), expiry, &policy).ok(),
        ..Details::default()
    };
    let file = Pictured {
        details: Arc::new(details),
        ..world.file("a", 1)
    };
    world.offer(vec![file]);
    assert_eq!(world.server.count(), 0);
}
