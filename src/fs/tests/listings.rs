//! When a service is asked, what stands in for its answer, and who waits for it.

use super::super::catalog::listing::{MAX_STALE, RETRY_AFTER_FAILURE};
use super::world::*;
use crate::clock::SystemClock;
use crate::emulator::{Effect, Fault, HostKind, RunflowAsset};
use crate::fs::{Catalog, FsError, Kind, Library};
use crate::provider::{Asset, Provider, ProviderError, Service};
use crate::store::Store;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

const UUID: &str = "3c90c3cc-0d44-4b50-8888-8dd25736052a";

fn a_slow_answer() -> Fault {
    Fault::at(HostKind::Useapi).does(Effect::Delay(Duration::from_millis(200)))
}

#[test]
fn concurrent_listings_share_one_request() {
    let world = World::new();
    world.add("a.mp4", text("a"));
    world.emulator.add_fault(a_slow_answer());
    let asked: Vec<_> = (0..8).map(|_| world.start_ls(VIDEO)).collect();
    for (fh, listed) in asked {
        assert_eq!(listed.wait().unwrap().len(), 3);
        world.releasedir(fh);
    }
    assert_eq!(world.listings_asked(VIDEO), 1);
}

#[test]
fn who_comes_when_a_listing_was_under_way_for_too_long_gets_a_newer_one() {
    let world = World::new();
    world.add("a.mp4", text("a"));
    world.emulator.add_fault(a_slow_answer().times(1));
    let (first, listed) = world.start_ls(VIDEO);
    until("it is asked for", || world.listings_asked(VIDEO) == 1);
    world.clock.advance(LISTING_TTL);
    let (second, in_time) = world.start_ls(VIDEO);
    world.advance_s(1);
    let (third, late) = world.start_ls(VIDEO);
    for listed in [listed, in_time, late] {
        assert_eq!(listed.wait().unwrap().len(), 3);
    }
    assert_eq!(world.listings_asked(VIDEO), 2, "once more for the last");
    for fh in [first, second, third] {
        world.releasedir(fh);
    }
}

#[test]
fn lookups_that_wait_are_each_answered_by_the_one_listing() {
    let world = World::new();
    world.add("a.mp4", text("a"));
    world.emulator.add_fault(a_slow_answer());
    let found: Vec<_> = (0..8).map(|_| world.start_lookup(VIDEO, "a.mp4")).collect();
    let absent = world.start_lookup(VIDEO, "b.mp4");
    let numbers: Vec<u64> = found.into_iter().map(|l| l.wait().unwrap().ino).collect();
    assert!(numbers.iter().all(|ino| *ino == numbers[0]));
    assert_eq!(absent.wait(), Err(FsError::NotFound));
    assert_eq!(world.listings_asked(VIDEO), 1);
}

#[test]
fn a_directory_is_listed_again_once_its_listing_is_old() {
    let world = World::new();
    world.add("a.mp4", text("a"));
    assert_eq!(world.ls(VIDEO).unwrap(), ["a.mp4"]);
    world.add("b.mp4", text("b"));
    world.advance_s(29);
    assert_eq!(world.ls(VIDEO).unwrap(), ["a.mp4"]);
    world.advance_s(1);
    assert_eq!(world.ls(VIDEO).unwrap(), ["a.mp4", "b.mp4"]);
    assert_eq!(world.listings_asked(VIDEO), 2);
}

#[test]
fn a_listing_in_use_is_renewed_before_it_ends_and_nobody_waits_for_that() {
    let world = World::new();
    world.add("a.mp4", text("a"));
    world.ls(VIDEO).unwrap();
    world.ls(IMAGE).unwrap();
    world.advance_s(22);
    world.ls(VIDEO).unwrap();
    assert_eq!(
        world.listings_asked(VIDEO),
        1,
        "not before its last quarter"
    );
    world.advance_s(1);
    world.add("b.mp4", text("b"));
    assert_eq!(world.ls(VIDEO).unwrap(), ["a.mp4"]);
    until("the new listing stands", || {
        world.catalog().lock().tree.entries(VIDEO).len() == 2
    });
    // The old one would have ended by now.
    world.advance_s(15);
    world.fault(HostKind::Useapi, Effect::Silent);
    assert_eq!(world.ls(VIDEO).unwrap(), ["a.mp4", "b.mp4"]);
    assert_eq!(world.listings_asked(VIDEO), 2);
    assert_eq!(world.listings_asked(IMAGE), 1, "nobody used it since");
}

#[test]
fn the_kernel_may_believe_attributes_as_long_as_the_listing_they_come_from() {
    let world = World::new();
    world.add("a.mp4", text("a"));
    let first = world.lookup_now(VIDEO, "a.mp4").unwrap();
    assert_eq!(first.ttl, LISTING_TTL);
    world.advance_s(20);
    let later = world.getattr_now(first.ino).unwrap();
    assert_eq!(later.ttl, Duration::from_secs(10));
    world.advance_s(20);
    assert_eq!(world.getattr_now(first.ino).unwrap().ttl, Duration::ZERO);
}

#[test]
fn a_first_listing_that_fails_is_an_error_and_no_empty_directory() {
    let world = World::new();
    world.add("a.mp4", text("a"));
    world.fault(HostKind::Useapi, Effect::MalformedJson);
    assert!(matches!(world.ls(VIDEO), Err(FsError::Io(_))));
    assert!(matches!(
        world.lookup_now(VIDEO, "a.mp4"),
        Err(FsError::Io(_))
    ));
    world.emulator.clear_faults();
    assert_eq!(world.ls(VIDEO).unwrap(), ["a.mp4"]);
}

#[test]
fn an_older_listing_stands_while_the_service_is_unwell_and_is_retried_after_a_pause() {
    let world = World::new();
    world.add("a.mp4", text("a"));
    world.ls(VIDEO).unwrap();
    world.fault(HostKind::Useapi, Effect::MalformedJson);
    world.let_listings_age();
    assert_eq!(world.ls(VIDEO).unwrap(), ["a.mp4"]);
    let asked = world.listings_asked(VIDEO);
    world
        .clock
        .advance(RETRY_AFTER_FAILURE - Duration::from_secs(1));
    assert_eq!(world.ls(VIDEO).unwrap(), ["a.mp4"]);
    assert_eq!(world.listings_asked(VIDEO), asked, "within the pause");
    world.emulator.clear_faults();
    world.add("b.mp4", text("b"));
    world.advance_s(1);
    assert_eq!(world.ls(VIDEO).unwrap(), ["a.mp4", "b.mp4"]);
}

#[test]
fn an_older_listing_does_not_stand_in_for_ever() {
    let world = World::new();
    world.add("a.mp4", text("a"));
    world.ls(VIDEO).unwrap();
    world.fault(HostKind::Useapi, Effect::MalformedJson);
    world.clock.advance(MAX_STALE - Duration::from_secs(1));
    assert_eq!(world.ls(VIDEO).unwrap(), ["a.mp4"]);
    world.clock.advance(RETRY_AFTER_FAILURE);
    assert!(matches!(world.ls(VIDEO), Err(FsError::Io(_))));
}

#[test]
fn a_refused_account_is_told_and_no_older_listing_hides_it() {
    let world = World::new();
    world.add("a.mp4", text("a"));
    world.ls(VIDEO).unwrap();
    world.fault(HostKind::Useapi, Effect::status(401));
    world.let_listings_age();
    assert!(matches!(world.ls(VIDEO), Err(FsError::Denied(_))));
}

#[test]
fn one_broken_page_fails_the_whole_listing() {
    let world = World::new();
    for n in 0..120 {
        world.add(&format!("{n}.mp4"), text("x"));
    }
    assert_eq!(world.ls(VIDEO).unwrap().len(), 120);
    for n in 120..140 {
        world.add(&format!("{n}.mp4"), text("x"));
    }
    let later_pages = Fault::at(HostKind::Useapi).skip(1);
    world
        .emulator
        .add_fault(later_pages.does(Effect::MalformedJson));
    world.let_listings_age();
    assert_eq!(
        world.ls(VIDEO).unwrap().len(),
        120,
        "the older one, not a part of the newer"
    );
}

#[test]
fn an_asset_that_vanished_leaves_and_comes_back_under_its_number() {
    let world = World::new();
    let id = world.add("a.mp4", text("a"));
    let ino = world.ino(VIDEO, "a.mp4");
    world.emulator.remove(&id);
    world.let_listings_age();
    assert_eq!(world.ls(VIDEO).unwrap(), Vec::<String>::new());
    assert_eq!(world.lookup_now(VIDEO, "a.mp4"), Err(FsError::NotFound));
    let again = crate::emulator::RunwayAsset::named("a.mp4", text("a")).with_id(&id);
    world.emulator.add_runway(again);
    world.let_listings_age();
    assert_eq!(world.ino(VIDEO, "a.mp4"), ino);
}

#[test]
fn the_kernel_is_told_which_names_mean_something_else_now() {
    let world = World::new();
    let id = world.add("a.mp4", text("a"));
    world.add("b.mp4", text("b"));
    world.ls(VIDEO).unwrap();
    world.kernel.take();
    world.emulator.remove(&id);
    world.let_listings_age();
    world.ls(VIDEO).unwrap();
    let parent = world.directory(VIDEO);
    let told = world.kernel.take();
    let name = |name: &str| crate::fs::kernel::Forget::Name {
        parent,
        name: name.to_string(),
    };
    assert!(told.contains(&name("a.mp4")), "{told:?}");
    assert!(!told.contains(&name("b.mp4")), "{told:?}");
}

#[test]
fn a_directory_handle_goes_on_with_what_it_gave_first() {
    let world = World::new();
    world.add("a.mp4", text("a"));
    let (fh, listed) = world.start_ls(VIDEO);
    assert_eq!(listed.wait().unwrap().len(), 3);
    world.add("b.mp4", text("b"));
    world.let_listings_age();
    assert_eq!(world.ls(VIDEO).unwrap().len(), 2);
    let rest = start(|done| world.readdir(fh, false, done));
    assert_eq!(rest.wait().unwrap().len(), 3);
    let rewound = start(|done| world.readdir(fh, true, done));
    assert_eq!(rewound.wait().unwrap().len(), 4);
}

#[test]
fn runflow_assets_are_found_by_id_and_then_listed() {
    let world = World::new();
    let asset = RunflowAsset::new("reel.mp4", "video/mp4", text("bytes")).with_id(UUID);
    world.emulator.add_runflow(asset);
    assert_eq!(world.ls(Library::Runflow).unwrap(), Vec::<String>::new());
    assert_eq!(world.cat(Library::Runflow, UUID).unwrap(), b"bytes");
    assert_eq!(world.ls(Library::Runflow).unwrap(), [UUID]);
    let asked = world.api_requests();
    world.lookup_now(Library::Runflow, UUID).unwrap();
    assert_eq!(world.api_requests(), asked, "known for a while");

    let world = world.remount();
    assert_eq!(world.ls(Library::Runflow).unwrap(), [UUID]);
    assert_eq!(world.cat(Library::Runflow, UUID).unwrap(), b"bytes");
}

#[test]
fn a_runflow_name_may_carry_an_extension_that_fits() {
    let world = World::new();
    let asset = RunflowAsset::new("reel.mp4", "video/mp4", text("bytes")).with_id(UUID);
    world.emulator.add_runflow(asset);
    let lookup = |name: &str| world.lookup_now(Library::Runflow, name);
    let plain = lookup(UUID).unwrap().ino;
    assert_eq!(lookup(&format!("{UUID}.mp4")).unwrap().ino, plain);
    assert_eq!(lookup(&format!("{UUID}.MP4")).unwrap().ino, plain);
    assert_eq!(lookup(&format!("{UUID}.png")), Err(FsError::NotFound));
    assert_eq!(lookup(&UUID.to_uppercase()).unwrap().ino, plain);
}

#[test]
fn what_is_no_uuid_is_absent_from_runflow_without_a_request() {
    let world = World::new();
    for name in ["autorun.inf", "3c90c3cc", &UUID.replace('-', ""), ""] {
        let found = world.lookup_now(Library::Runflow, name);
        assert_eq!(found, Err(FsError::NotFound), "{name}");
    }
    assert_eq!(world.api_requests(), 0);
}

#[test]
fn a_runflow_asset_that_was_deleted_is_absent_and_leaves_the_list() {
    let world = World::new();
    let asset = || RunflowAsset::new("reel.mp4", "video/mp4", text("bytes")).with_id(UUID);
    world.emulator.add_runflow(asset());
    world.lookup_now(Library::Runflow, UUID).unwrap();
    world.emulator.remove(UUID);
    world.emulator.add_runflow(asset().deleted());
    world.let_listings_age();
    let found = world.lookup_now(Library::Runflow, UUID);
    assert_eq!(found, Err(FsError::NotFound));
    assert_eq!(world.ls(Library::Runflow).unwrap(), Vec::<String>::new());
    let world = world.remount();
    assert_eq!(world.ls(Library::Runflow).unwrap(), Vec::<String>::new());
}

#[test]
fn concurrent_lookups_of_one_runflow_id_share_one_request() {
    let world = World::new();
    let asset = RunflowAsset::new("reel.mp4", "video/mp4", text("bytes")).with_id(UUID);
    world.emulator.add_runflow(asset);
    let slow = Effect::Delay(Duration::from_millis(200));
    world.fault(HostKind::Runflow, slow);
    let found: Vec<_> = (0..6)
        .map(|_| world.start_lookup(Library::Runflow, UUID))
        .collect();
    for found in found {
        assert_eq!(found.wait().unwrap().kind, Kind::File);
    }
    assert_eq!(world.api_requests(), 1);
}

#[test]
fn the_fixed_directories_are_there_without_a_request() {
    let world = World::new();
    let root = world.opendir(1).unwrap();
    let listed = start(|done| world.readdir(root, true, done));
    let names: Vec<_> = listed
        .wait()
        .unwrap()
        .iter()
        .map(|e| e.name.to_string())
        .collect();
    assert_eq!(names, [".", "..", "runway", "ltx", "runflow"]);
    let runway = start(|done| world.lookup(1, OsStr::new("runway"), done));
    let runway = runway.wait().unwrap();
    assert_eq!(runway.kind, Kind::Directory);
    let video = start(|done| world.lookup(runway.ino, OsStr::new("video"), done));
    assert_eq!(video.wait().unwrap().ino, world.directory(VIDEO));
    let absent = start(|done| world.lookup(1, OsStr::new("nothing"), done));
    assert_eq!(absent.wait(), Err(FsError::NotFound));
    assert_eq!(world.api_requests(), 0);
}

/// A provider with a bug.
struct Panicking;

impl Provider for Panicking {
    fn service(&self) -> Service {
        Service::Runway
    }

    fn list(&self, _library: Library) -> Result<Vec<Asset>, ProviderError> {
        panic!("on purpose")
    }

    fn refresh(&self, _asset: &Asset) -> Result<Asset, ProviderError> {
        panic!("on purpose")
    }
}

#[test]
fn a_bug_in_a_provider_is_an_error_and_holds_up_nobody() {
    let state_dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(state_dir.path()).unwrap());
    let clock = Arc::new(SystemClock);
    let catalog = Catalog::new(vec![Arc::new(Panicking)], store, clock, LISTING_TTL);
    // Twice: the second must not wait for the first for ever.
    for _ in 0..2 {
        let listed = now(|done| catalog.ensure_listed(VIDEO, done));
        assert!(matches!(listed, Err(FsError::Io(_))), "{listed:?}");
    }
}

#[test]
fn a_refresh_while_a_listing_is_under_way_is_answered_by_a_newer_one() {
    let world = World::new();
    world.add("old.mp4", text("a"));
    let slow = Fault::at(HostKind::Useapi).times(1);
    let slow = slow.does(Effect::Delay(Duration::from_secs(2)));
    world.emulator.add_fault(slow);
    let (fh, listed) = world.start_ls(VIDEO);
    until("the service is asked", || world.listings_asked(VIDEO) == 1);
    let directory = world.directory(VIDEO);
    let refreshed = world.getxattr(directory, OsStr::new("user.reelfs.refresh"));
    assert_eq!(refreshed.unwrap(), b"runway/video\n");
    world.add("new.mp4", text("b"));
    assert_eq!(listed.wait().unwrap().len(), 4, "both, and the dots");
    assert_eq!(world.listings_asked(VIDEO), 2);
    assert_eq!(world.ls(VIDEO).unwrap(), ["new.mp4", "old.mp4"]);
    assert_eq!(world.listings_asked(VIDEO), 2, "it is believed again");
    world.releasedir(fh);
}
