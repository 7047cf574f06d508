//! System calls answer as on Linux' own file systems: the same calls on the mount and on a tmpfs, or
//! on a directory that is mounted read-only. The differences that are meant stand in the scripts,
//! each with its reason, and in `docs/SEMANTICS.md`.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use reelfs::emulator::{Content, LtxAsset, RunwayAsset};
use tempfile::TempDir;

use crate::support::{Studio, names, noise};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mounted");

/// The directory that the mount is compared with.
fn tmpfs() -> TempDir {
    TempDir::new_in("/dev/shm").expect("/dev/shm is a tmpfs")
}

/// `REELFS_SEED` or another one every time.
fn seed() -> String {
    std::env::var("REELFS_SEED").unwrap_or_else(|_| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_micros().to_string()
    })
}

/// The same files in Runway and in a tmpfs.
fn with_assets(studio: &Studio, count: u64) -> TempDir {
    let there = tmpfs();
    for number in 0..count {
        let name = format!("{number}.mp4");
        let bytes = noise(100 + number * 331, number);
        fs::write(there.path().join(&name), &bytes).unwrap();
        studio
            .services
            .add_runway(RunwayAsset::named(&name, Content::stored(bytes)));
    }
    there
}

#[test]
fn every_flag_of_open_does_on_a_staged_file_what_it_does_on_tmpfs() {
    let (studio, there) = (Studio::new(), tmpfs());
    let said = studio.sh(&format!(
        "python3 -B {SCRIPTS}/flags.py staged $MNT/runway/video {} {} 1",
        there.path().display(),
        seed(),
    ));
    println!("{said}");
}

#[test]
fn every_flag_of_open_does_on_an_asset_what_it_does_on_tmpfs() {
    let studio = Studio::unmounted(Default::default());
    let there = with_assets(&studio, 30);
    studio.mount_with(&["--allow-delete"]);
    let said = studio.sh(&format!(
        "python3 -B {SCRIPTS}/flags.py asset $MNT/runway/video {} {} 1",
        there.path().display(),
        seed(),
    ));
    println!("{said}");
    // What a reader sees is what the service has.
    let assets = studio.services.runway_assets();
    for name in names(there.path()) {
        let bytes = fs::read(there.path().join(&name)).unwrap();
        let mut of_name = assets.iter().filter(|a| a.name.as_deref() == Some(&name));
        let newest = of_name.next().expect("an asset");
        let kept_here = bytes.is_empty();
        assert!(
            kept_here || newest.content.read(0, u64::MAX) == bytes,
            "{name}"
        );
    }
}

#[test]
fn every_flag_of_open_does_on_ltx_what_it_does_where_nothing_can_be_written() {
    let studio = Studio::unmounted(Default::default());
    for number in 0..10 {
        let content = Content::synthetic(100 + number * 997, number);
        studio.services.add_ltx(LtxAsset::new("video/mp4", content));
    }
    studio.mount();
    let readonly = tmpfs();
    let readonly = readonly.path().display();
    let as_root = if rustix::process::getuid().is_root() {
        ""
    } else {
        "r"
    };
    let said = studio.sh(&format!(
        "cp $MNT/ltx/videos/* {readonly}/; chmod 644 {readonly}/*; \
         exec unshare -{as_root}m sh -ec 'mount --bind {readonly} {readonly}; \
         mount -o remount,bind,ro {readonly}; \
         exec python3 -B {SCRIPTS}/flags.py readonly $MNT/ltx/videos {readonly} {} 1'",
        seed(),
    ));
    println!("{said}");
}

#[test]
fn calls_by_name_and_by_descriptor_answer_as_on_tmpfs() {
    let (studio, there) = (Studio::new(), tmpfs());
    fs::create_dir(there.path().join("video")).unwrap();
    let there = there.path().display();
    println!(
        "{}",
        studio.sh(&format!(
            "python3 -B {SCRIPTS}/calls.py $MNT/runway {there}"
        ))
    );
}
