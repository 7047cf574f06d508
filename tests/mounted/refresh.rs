//! `reelfs refresh`: what is new at a service shows at once, whatever `--listing-ttl` says.

use std::fs;

use reelfs::emulator::{
    Content, Effect, EmulatorConfig, Fault, HostKind, RunflowAsset, RunwayAsset,
};

use crate::support::{Studio, until};

fn add(studio: &Studio, name: &str) {
    let asset = RunwayAsset::named(name, Content::synthetic(1_000, 1));
    studio.services.add_runway(asset);
}

/// One video, listed, with listings that are believed for an hour.
fn listed(flags: &[&str]) -> Studio {
    let studio = Studio::unmounted(EmulatorConfig::default());
    add(&studio, "old.mp4");
    let flags = [&["--listing-ttl", "1h"], flags].concat();
    studio.mount_with(&flags);
    assert_eq!(studio.sh("ls $MNT/runway/video"), "old.mp4");
    studio
}

#[test]
fn a_refreshed_directory_shows_what_is_new_whatever_the_ttl() {
    let studio = listed(&[]);
    add(&studio, "new.mp4");
    assert_eq!(studio.sh("ls $MNT/runway/video"), "old.mp4");
    let said = studio.sh("$REELFS refresh $MNT/runway/video");
    assert!(said.ends_with("runway/video: 2 files, 1 new"), "{said}");
    assert_eq!(studio.sh("ls $MNT/runway/video"), "new.mp4\nold.mp4");
}

#[test]
fn a_mount_point_and_a_file_are_refreshed_too_and_nothing_beside_them() {
    let studio = listed(&[]);
    add(&studio, "second.mp4");
    studio.sh("$REELFS refresh $MNT");
    assert_eq!(studio.sh("ls $MNT/runway/video"), "old.mp4\nsecond.mp4");
    add(&studio, "third.mp4");
    add(&studio, "picture.png");
    let said = studio.sh("$REELFS refresh $MNT/runway/video/old.mp4");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(studio.sh("ls $MNT/runway/video | wc -l"), "3");
    assert_eq!(studio.sh("ls $MNT/runway/image"), "");
}

#[test]
fn a_mount_that_is_read_only_is_refreshed_too() {
    let studio = listed(&["--read-only"]);
    add(&studio, "new.mp4");
    studio.sh("$REELFS refresh $MNT/runway");
    assert_eq!(studio.sh("ls $MNT/runway/video"), "new.mp4\nold.mp4");
}

#[test]
fn a_runflow_asset_is_asked_for_again_after_a_refresh() {
    let studio = Studio::unmounted(EmulatorConfig::default());
    let asset = RunflowAsset::new("cats", "video/mp4", Content::synthetic(10, 1));
    let id = studio.services.add_runflow(asset);
    studio.mount_with(&["--listing-ttl", "1h"]);
    studio.sh(&format!("stat $MNT/runflow/{id}; stat $MNT/runflow/{id}"));
    let asked = || studio.requests(HostKind::Runflow).len();
    assert_eq!(asked(), 1);
    studio.sh("$REELFS refresh $MNT/runflow");
    until("it is asked for again", || {
        studio.sh(&format!("stat $MNT/runflow/{id}"));
        asked() == 2
    });
}

#[test]
fn a_refresh_that_fails_says_why_and_the_older_listing_stands() {
    let studio = listed(&["--deadline", "1s"]);
    add(&studio, "new.mp4");
    let fault = Fault::at(HostKind::Useapi).does(Effect::status(500));
    studio.services.add_fault(fault);
    let directory = studio.at("runway/video");
    let said = studio.reelfs_fails(&["refresh", directory.to_str().unwrap()]);
    assert!(
        said.contains("not listed anew") && said.contains("500"),
        "{said}"
    );
    assert_eq!(studio.sh("ls $MNT/runway/video"), "old.mp4");
    studio.services.clear_faults();
    studio.sh("$REELFS refresh $MNT/runway/video");
    assert_eq!(studio.sh("ls $MNT/runway/video"), "new.mp4\nold.mp4");
}

#[test]
fn who_watches_a_directory_hears_of_what_a_refresh_found() {
    let studio = listed(&[]);
    let watching = studio.spawn("exec gio monitor -d $MNT/runway/video > heard");
    let heard = || fs::read_to_string(studio.here("heard")).unwrap_or_default();
    until("it watches", || {
        studio.sh("setfattr -n user.reelfs.refresh -v x $MNT/runway/video");
        heard().contains("attributes changed")
    });
    add(&studio, "new.mp4");
    studio.sh("$REELFS refresh $MNT/runway/video");
    until("it heard", || {
        heard().contains("new.mp4: attributes changed")
    });
    watching.signal(rustix::process::Signal::TERM);
    watching.output();
}

#[test]
fn only_the_owner_of_a_mount_gives_it_orders() {
    let studio = listed(&["--allow-other", "--umask", "0"]);
    if !rustix::process::getuid().is_root() {
        let said = studio.reelfs_fails(&["refresh", "/proc"]);
        assert!(said.contains("not in a mount of reelfs"), "{said}");
        return;
    }
    let as_nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    for order in [
        "getfattr -n user.reelfs.refresh $MNT/runway/video",
        "setfattr -n user.reelfs.refresh -v x $MNT/runway/video",
        "setfattr -n user.reelfs.upload -v retry $MNT/runway/video",
    ] {
        let said = studio.sh_fails(&format!("{as_nobody} {order}"));
        assert!(said.contains("Operation not permitted"), "{order}: {said}");
    }
    studio.sh("setfattr -n user.reelfs.upload -v retry $MNT/runway/video");
}

#[test]
fn refreshing_what_is_no_mount_is_one_sentence() {
    let studio = Studio::new();
    let here = studio.here("");
    let said = studio.reelfs_fails(&["refresh", here.to_str().unwrap()]);
    assert!(said.contains("nothing is mounted on"), "{said}");
    let control = studio.at(".reelfs");
    let said = studio.reelfs_fails(&["refresh", control.to_str().unwrap()]);
    assert!(
        said.contains("name a directory or file of a library"),
        "{said}"
    );
}
