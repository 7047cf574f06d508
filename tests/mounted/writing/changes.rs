//! Changes of files and assets that are there: by editors, `touch`, truncation, mappings.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;

use reelfs::emulator::{Content, RunwayAsset};

use super::*;
use crate::support::until;

#[test]
fn an_editor_that_saves_by_rename_makes_a_new_version() {
    let (studio, _) = with_picture(&[]);
    studio.sh("cp a.png $MNT/runway/image/");
    let edited = noise(60_000, 9);
    studio.make("edited", &edited);
    studio.sh("cd $MNT/runway/image; cat $HERE/edited > .a.png.swp");
    assert_eq!(
        studio.services.runway_assets().len(),
        1,
        "a temporary name stays here"
    );
    studio.sh("cd $MNT/runway/image; mv .a.png.swp a.png; cmp a.png $HERE/edited");
    assert_eq!(studio.sh("ls -A $MNT/runway/image | grep -v '('"), "a.png");
    let versions = studio.uploads_named("a.png");
    assert_eq!(versions.len(), 2);
    assert!(versions[0].content.verify(0, &edited));
}

#[test]
fn hidden_files_stay_here_and_can_be_removed() {
    let (studio, _) = with_picture(&[]);
    studio.sh("cd $MNT/runway/image; cp $HERE/a.png .DS_Store; cp $HERE/a.png ._a.png");
    nothing_arrived(&studio);
    studio.sh("cd $MNT/runway/image; cmp .DS_Store $HERE/a.png; rm .DS_Store ._a.png");
    assert_eq!(studio.sh("ls -A $MNT/runway/image"), "");
}

#[test]
fn touch_makes_an_empty_file_that_is_not_uploaded_until_it_has_bytes() {
    let (studio, bytes) = with_picture(&[]);
    studio.sh("touch $MNT/runway/image/new.png");
    nothing_arrived(&studio);
    assert_eq!(studio.sh("stat -c %s $MNT/runway/image/new.png"), "0");
    studio.sh("cat a.png > $MNT/runway/image/new.png");
    arrived(&studio, "new.png", &bytes);
}

#[test]
fn touching_an_asset_changes_its_time_and_uploads_nothing() {
    let (studio, _) = with_picture(&[]);
    studio.sh("cp a.png $MNT/runway/image/; touch -d @1500000000 $MNT/runway/image/a.png");
    assert_eq!(
        studio.sh("stat -c %Y $MNT/runway/image/a.png"),
        "1500000000"
    );
    studio.remount();
    assert_eq!(
        studio.sh("stat -c %Y $MNT/runway/image/a.png"),
        "1500000000"
    );
    assert_eq!(post_count(&studio), 1);
}

#[test]
fn appending_to_an_asset_makes_a_new_version_of_the_whole() {
    let studio = Studio::new();
    let old = Content::synthetic(3 << 20, 1);
    studio
        .services
        .add_runway(RunwayAsset::named("clip.mp4", old.clone()));
    studio.sh("printf END >> $MNT/runway/video/clip.mp4");
    let versions = studio.uploads_named("clip.mp4");
    assert_eq!(versions.len(), 2);
    let mut expected = old.read(0, old.len());
    expected.extend_from_slice(b"END");
    assert_eq!(versions[0].size_bytes(), expected.len() as u64);
    assert!(versions[0].content.verify(0, &expected));
    assert_eq!(
        fs::read(studio.at("runway/video/clip.mp4")).unwrap(),
        expected
    );
}

#[test]
fn truncating_an_asset_makes_a_shorter_version() {
    let studio = Studio::new();
    let old = Content::synthetic(100_000, 1);
    studio
        .services
        .add_runway(RunwayAsset::named("clip.mp4", old.clone()));
    studio.sh("truncate -s 60000 $MNT/runway/video/clip.mp4");
    until("the shorter version arrives", || {
        studio.uploads_named("clip.mp4").len() == 2
    });
    let version = &studio.uploads_named("clip.mp4")[0];
    assert_eq!(version.size_bytes(), 60_000);
    assert!(old.verify(0, &version.content.read(0, 60_000)));
    assert_eq!(studio.sh("stat -c %s $MNT/runway/video/clip.mp4"), "60000");
}

#[test]
fn a_change_in_the_middle_of_an_asset_keeps_the_rest() {
    let studio = Studio::new();
    let old = Content::synthetic(2 << 20, 1);
    studio
        .services
        .add_runway(RunwayAsset::named("clip.mp4", old.clone()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(studio.at("runway/video/clip.mp4"))
        .unwrap();
    file.write_all_at(b"changed", 1 << 20).unwrap();
    let mut seen = [0; 7];
    file.read_exact_at(&mut seen, 1 << 20).unwrap();
    assert_eq!(&seen, b"changed");
    drop(file);
    let mut expected = old.read(0, old.len());
    expected[1 << 20..][..7].copy_from_slice(b"changed");
    assert!(
        studio.uploads_named("clip.mp4")[0]
            .content
            .verify(0, &expected)
    );
    assert_eq!(studio.uploads_named("clip.mp4").len(), 2);
}

#[test]
fn the_same_bytes_copied_again_are_not_sent_again() {
    let (studio, _) = with_picture(&[]);
    studio.sh("cp a.png $MNT/runway/image/; cp a.png $MNT/runway/image/");
    assert_eq!(studio.uploads_named("a.png").len(), 1);
    assert_eq!(studio.sh("ls $MNT/runway/image"), "a.png");
}

#[test]
fn cp_a_of_a_directorys_content_succeeds_to_its_end() {
    let (studio, bytes) = with_picture(&[]);
    studio.sh("mkdir src; mv a.png src; cp -a src/. $MNT/runway/image/");
    arrived(&studio, "a.png", &bytes);
    studio.sh("chmod 700 $MNT/runway/image; chown $(id -u) $MNT/runway/image; touch $MNT/runway");
}

#[test]
fn bytes_written_through_mmap_arrive() {
    let studio = Studio::new();
    studio.sh("python3 -c '
import mmap, sys
with open(sys.argv[1], \"w+b\") as clip:
    clip.truncate(100000)
    with mmap.mmap(clip.fileno(), 100000) as pages:
        pages[50000:50004] = b\"here\"
' $MNT/runway/video/clip.mp4");
    let mut expected = vec![0; 100_000];
    expected[50_000..50_004].copy_from_slice(b"here");
    arrived(&studio, "clip.mp4", &expected);
}

#[test]
fn a_copy_within_the_mount_is_an_upload_of_the_same_bytes() {
    let studio = Studio::new();
    let content = Content::synthetic(3 << 20, 4);
    studio
        .services
        .add_runway(RunwayAsset::named("clip.mp4", content.clone()));
    studio.sh("cd $MNT/runway/video; cp clip.mp4 copy.mp4; cmp clip.mp4 copy.mp4");
    arrived(&studio, "copy.mp4", &content.read(0, content.len()));
}

#[test]
fn a_reader_of_the_old_version_never_gets_a_mix_or_an_early_end() {
    let studio = Studio::new();
    let old = Content::synthetic(6 << 20, 1);
    studio
        .services
        .add_runway(RunwayAsset::named("clip.mp4", old.clone()));
    studio.make("clip.mp4", &noise(1 << 20, 2));
    let reader = File::open(studio.at("runway/video/clip.mp4")).unwrap();
    let mut start = vec![0; 64 << 10];
    reader.read_exact_at(&mut start, 0).unwrap();
    studio.sh("cp clip.mp4 $MNT/runway/video/");
    for at in [0, 64 << 10, 1 << 20, 5 << 20] {
        let mut part = vec![0; 64 << 10];
        match reader.read_exact_at(&mut part, at) {
            Ok(()) => assert!(old.verify(at, &part), "other bytes at {at}"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "at {at}"),
        }
    }
    studio.sh("cmp clip.mp4 $MNT/runway/video/clip.mp4");
}

#[test]
fn xattrs_tell_the_id_the_type_and_the_state_of_an_upload() {
    let (studio, _) = with_picture(&[]);
    studio.sh("cp a.png $MNT/runway/image/");
    let value = |name: &str| {
        studio.sh(&format!(
            "getfattr --only-values -n {name} $MNT/runway/image/a.png"
        ))
    };
    assert_eq!(value("user.reelfs.id"), studio.uploaded("a.png").id);
    assert_eq!(value("user.reelfs.provider"), "runway");
    assert_eq!(value("user.reelfs.upload"), "done");
}
