//! `rsync`: a second run moves nothing.

use std::fs;

use super::*;
use crate::support::{names, until};

/// The files that an `rsync` said it transferred. Directories have no times of their own to keep.
fn rsync(studio: &Studio) -> Vec<String> {
    rsync_by(studio, "")
}

fn rsync_by(studio: &Studio, options: &str) -> Vec<String> {
    let command = format!("rsync -a {options} --itemize-changes src/ $MNT/runway/image/");
    let said = studio.sh(&command);
    let lines = said
        .lines()
        .filter(|line| line.starts_with(['<', '>', 'c']));
    lines.map(|line| line[12..].to_string()).collect()
}

#[test]
fn a_second_rsync_transfers_nothing_also_after_a_remount() {
    let studio = Studio::new();
    for n in 0..5 {
        studio.make(&format!("src/{n}.png"), &noise(30_000 + n, n));
    }
    studio.sh("touch -d '2021-01-02 03:04:05.678' src/*");
    assert_eq!(
        rsync(&studio),
        ["0.png", "1.png", "2.png", "3.png", "4.png"]
    );
    assert_eq!(names(&studio.at("runway/image")).len(), 5);
    for n in 0..5 {
        arrived(&studio, &format!("{n}.png"), &noise(30_000 + n, n));
    }
    assert_eq!(rsync(&studio), [""; 0]);
    studio.remount();
    assert_eq!(rsync(&studio), [""; 0]);
    assert_eq!(studio.services.runway_assets().len(), 5);
    assert_eq!(rsync_by(&studio, "--checksum"), [""; 0]);
}

#[test]
fn a_changed_source_becomes_the_new_version_under_its_name() {
    let studio = Studio::new();
    studio.make("src/a.png", &noise(30_000, 1));
    studio.make("src/b.png", &noise(30_000, 2));
    assert_eq!(rsync(&studio), ["a.png", "b.png"]);
    let older = studio.uploaded("a.png").id;
    studio.make("src/a.png", &noise(31_000, 3));
    assert_eq!(rsync(&studio), ["a.png"]);
    assert_eq!(rsync(&studio), [""; 0]);
    assert_eq!(studio.uploads_named("a.png").len(), 2);
    studio.sh("cmp src/a.png $MNT/runway/image/a.png");
    studio.remount();
    studio.sh("cmp src/a.png $MNT/runway/image/a.png");
    assert_eq!(rsync(&studio), [""; 0]);
    let kept = studio.at(&format!("runway/image/a ({}).png", &older[..8]));
    assert_eq!(fs::read(kept).unwrap(), noise(30_000, 1));
}

#[test]
fn rsync_of_a_refused_type_fails_before_the_copy() {
    let studio = Studio::new();
    studio.make("src/notes.txt", b"not a picture");
    let said = studio.sh_fails("rsync -a src/ $MNT/runway/image/");
    assert!(said.contains("Operation not supported"), "{said}");
    nothing_arrived(&studio);
    assert_eq!(studio.sh("ls -A $MNT/runway/image"), "");
}

#[test]
fn rsync_delete_is_refused_and_destroys_nothing() {
    let (studio, _) = with_picture(&[]);
    studio.sh("cp a.png $MNT/runway/image/; mkdir empty");
    studio.sh_fails("rsync -a --delete empty/ $MNT/runway/image/");
    assert_eq!(studio.sh("ls $MNT/runway/image"), "a.png");
    assert_eq!(studio.services.runway_assets().len(), 1);
}

#[test]
fn rsync_inplace_makes_a_new_version() {
    let (studio, mut bytes) = with_picture(&[]);
    studio.sh("cp -p a.png $MNT/runway/image/");
    bytes[1_000] ^= 0xff;
    studio.make("a.png", &bytes);
    studio.sh("rsync -a --inplace --no-whole-file --ignore-times a.png $MNT/runway/image/");
    studio.sh("cmp a.png $MNT/runway/image/a.png");
    assert_eq!(studio.uploads_named("a.png").len(), 2);
    assert!(studio.uploads_named("a.png")[0].content.verify(0, &bytes));
}

#[test]
fn rsync_through_faults_sends_every_file_once() {
    let studio = Studio::with(&["--write-back"]);
    for n in 0..1_000 {
        studio.make(&format!("src/{n:04}.png"), &noise(3_000 + n, n));
    }
    let effects = [
        Effect::html(503),
        Effect::DropBeforeAnswer,
        Effect::DropWhileReceiving(1_000),
        Effect::AnswerLostAfterWork,
    ];
    for (seed, effect) in (1..).zip(effects) {
        // Each of 20 requests in 1,000: of all together nearly 8 %.
        let fault = Fault::at(HostKind::Useapi).chance(20, seed);
        studio.services.add_fault(fault.does(effect));
    }
    rsync(&studio);
    studio.unmount();
    let requests = studio.requests(HostKind::Useapi).len();
    let failed = studio.services.fault_hits() as usize;
    assert!(failed * 100 >= requests * 5, "{failed} of {requests}");
    studio.services.clear_faults();
    studio.mount();
    until("all are sent", || {
        studio.services.runway_assets().len() >= 1_000
    });
    assert_eq!(rsync(&studio), [""; 0]);
    for n in 0..1_000 {
        arrived(&studio, &format!("{n:04}.png"), &noise(3_000 + n, n));
    }
    assert_eq!(studio.services.runway_assets().len(), 1_000);
}
