//! What is not taken, and what a mount must be told to allow.

use std::fs::{self, File, OpenOptions};

use reelfs::emulator::{Content, LtxAsset, RunwayAsset};

use super::*;
use crate::support::errno;

#[test]
fn a_type_that_the_directory_does_not_take_is_refused_at_open() {
    let (studio, _) = with_picture(&[]);
    for name in [
        "video/a.png",
        "image/notes.txt",
        "image/no-extension",
        "audio/a.mp4",
    ] {
        let created = File::create(studio.at("runway").join(name));
        assert_eq!(errno(created), libc::EOPNOTSUPP, "{name}");
    }
    let said = studio.sh_fails("cp a.png $MNT/runway/video/");
    assert!(said.contains("Operation not supported"), "{said}");
    assert!(
        studio.log().contains("takes files that end in"),
        "{}",
        studio.log()
    );
    nothing_arrived(&studio);
    assert_eq!(studio.sh("find $MNT -type f"), "");
}

#[test]
fn ltx_and_runflow_are_read_only() {
    let studio = Studio::new();
    let asset = LtxAsset::new("image/png", Content::synthetic(10, 1));
    let id = studio.services.add_ltx(asset);
    let picture = studio.at(&format!("ltx/images/{id}.png"));
    assert_eq!(
        errno(File::create(studio.at("ltx/images/a.png"))),
        libc::EROFS
    );
    assert_eq!(errno(File::create(studio.at("runflow/a.png"))), libc::EROFS);
    assert_eq!(
        errno(OpenOptions::new().write(true).open(&picture)),
        libc::EROFS
    );
    assert_eq!(errno(fs::remove_file(&picture)), libc::EROFS);
    assert_eq!(
        errno(fs::rename(&picture, studio.at("ltx/images/b.png"))),
        libc::EROFS
    );
}

#[test]
fn a_read_only_mount_takes_nothing() {
    let (studio, _) = with_picture(&["--read-only"]);
    let asset = RunwayAsset::named("b.png", Content::synthetic(10, 1));
    studio.services.add_runway(asset);
    let said = studio.sh_fails("cp a.png $MNT/runway/image/");
    assert!(said.contains("Read-only file system"), "{said}");
    assert_eq!(
        errno(fs::remove_file(studio.at("runway/image/b.png"))),
        libc::EROFS
    );
    studio.sh("cat $MNT/runway/image/b.png > b.png");
}

#[test]
fn removing_moving_and_making_directories_is_not_permitted() {
    let (studio, _) = with_picture(&[]);
    studio.sh("cp a.png $MNT/runway/image/");
    let asset = studio.at("runway/image/a.png");
    assert_eq!(errno(fs::remove_file(&asset)), libc::EPERM);
    assert_eq!(
        errno(fs::rename(&asset, studio.at("runway/image/b.png"))),
        libc::EPERM
    );
    assert_eq!(
        errno(fs::create_dir(studio.at("runway/image/sub"))),
        libc::EPERM
    );
    assert_eq!(errno(fs::create_dir(studio.at("ltx/sub"))), libc::EPERM);
    assert_eq!(
        errno(fs::remove_dir(studio.at("runway/image"))),
        libc::EPERM
    );
    let link = std::os::unix::fs::symlink("a.png", studio.at("runway/image/link.png"));
    assert_eq!(errno(link), libc::EPERM);
    assert_eq!(
        errno(fs::hard_link(&asset, studio.at("runway/image/link.png"))),
        libc::EPERM
    );
    arrived(&studio, "a.png", &noise(70_001, 1));
    assert!(studio.log().contains("--allow-delete"), "{}", studio.log());
}

#[test]
fn allow_delete_deletes_at_the_service() {
    let (studio, bytes) = with_picture(&["--allow-delete"]);
    let other = RunwayAsset::named("b.png", Content::synthetic(10, 1));
    studio.services.add_runway(other);
    studio.sh("cp a.png $MNT/runway/image/; rm $MNT/runway/image/a.png");
    assert_eq!(studio.sh("ls $MNT/runway/image"), "b.png");
    assert!(studio.uploads_named("a.png").is_empty());
    studio.sh("mv $MNT/runway/image/b.png .; test $(stat -c %s b.png) = 10");
    assert_eq!(studio.sh("ls $MNT/runway/image"), "");
    nothing_arrived(&studio);
    studio.sh("cp a.png $MNT/runway/image/");
    arrived(&studio, "a.png", &bytes);
}
