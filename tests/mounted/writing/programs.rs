//! Programs that write a file from its beginning to its end.

use reelfs::emulator::{Content, SAMPLE_FILES};

use super::*;
use crate::support::names;

#[test]
fn cp_uploads_with_name_type_and_bytes_before_it_returns() {
    let (studio, bytes) = with_picture(&[]);
    studio.sh("cp a.png $MNT/runway/image/");
    arrived(&studio, "a.png", &bytes);
    let asset = studio.uploaded("a.png");
    assert_eq!(asset.content_type, "image/png");
    assert_eq!(asset.media_type, "image");
    assert_eq!(studio.sh("ls $MNT/runway/image"), "a.png");
    assert_eq!(studio.sh("stat -c %s $MNT/runway/image/a.png"), "70001");
}

#[test]
fn every_sample_arrives_under_its_type_and_reads_back_without_a_download() {
    let studio = Studio::new();
    for file in SAMPLE_FILES {
        studio.make(file.name, file.bytes);
        let library = file.mime_type.split('/').next().unwrap();
        studio.sh(&format!("cp {0} $MNT/runway/{library}/", file.name));
        arrived(&studio, file.name, file.bytes);
        assert_eq!(studio.uploaded(file.name).content_type, file.mime_type);
        studio.sh(&format!("cmp {0} $MNT/runway/{library}/{0}", file.name));
    }
    assert_eq!(studio.requests(HostKind::Asset), [""; 0]);
}

#[test]
fn webm_and_ogg_are_video_or_audio_by_their_directory() {
    let studio = Studio::new();
    studio.make("a.webm", &noise(1_000, 1));
    studio.make("b.webm", &noise(1_001, 2));
    studio.make("c.ogg", &noise(1_002, 3));
    studio.make("d.ogv", &noise(1_003, 4));
    studio.sh("cp a.webm d.ogv $MNT/runway/video/; cp b.webm c.ogg $MNT/runway/audio/");
    let content_type = |name| studio.uploaded(name).content_type;
    assert_eq!(content_type("a.webm"), "video/webm");
    assert_eq!(content_type("b.webm"), "audio/webm");
    assert_eq!(content_type("c.ogg"), "audio/ogg");
    assert_eq!(content_type("d.ogv"), "video/ogg");
    assert_eq!(studio.sh("ls $MNT/runway/video"), "a.webm\nd.ogv");
    assert_eq!(studio.sh("ls $MNT/runway/audio"), "b.webm\nc.ogg");
}

#[test]
fn cp_p_keeps_the_time_and_mode_across_a_remount() {
    let (studio, bytes) = with_picture(&[]);
    studio.sh("touch -d '2020-02-03 04:05:06.789 UTC' a.png; chmod 640 a.png");
    studio.sh("cp -p a.png $MNT/runway/image/");
    arrived(&studio, "a.png", &bytes);
    let shown = "TZ=UTC stat -c '%y %a %s' $MNT/runway/image/a.png";
    let expected = "2020-02-03 04:05:06.789000000 +0000 640 70001";
    assert_eq!(studio.sh(shown), expected);
    studio.remount();
    assert_eq!(studio.sh(shown), expected);
}

#[test]
fn cat_and_dd_upload_at_their_close() {
    let (studio, bytes) = with_picture(&[]);
    studio.sh("cat a.png > $MNT/runway/image/cat.png");
    arrived(&studio, "cat.png", &bytes);
    studio.sh("dd if=a.png of=$MNT/runway/image/dd.png bs=3001 status=none");
    arrived(&studio, "dd.png", &bytes);
    studio.sh("dd if=a.png of=$MNT/runway/image/synced.png bs=64K conv=fsync status=none");
    arrived(&studio, "synced.png", &bytes);
}

#[test]
fn tar_extracts_into_a_directory_and_keeps_times() {
    let (studio, bytes) = with_picture(&[]);
    studio.make("b.jpg", &noise(2_000, 2));
    studio.sh("touch -d @1600000000 a.png b.jpg; tar -cf pictures.tar a.png b.jpg");
    studio.sh("tar -xf pictures.tar -C $MNT/runway/image");
    arrived(&studio, "a.png", &bytes);
    arrived(&studio, "b.jpg", &noise(2_000, 2));
    assert_eq!(
        studio.sh("stat -c %Y $MNT/runway/image/*"),
        "1600000000\n1600000000"
    );
}

#[test]
fn mv_into_a_directory_uploads_and_removes_the_source() {
    let (studio, bytes) = with_picture(&[]);
    studio.sh("mv a.png $MNT/runway/image/moved.png");
    arrived(&studio, "moved.png", &bytes);
    assert!(!studio.here("a.png").exists());
}

#[test]
fn gio_copy_uploads_once() {
    let (studio, bytes) = with_picture(&[]);
    studio.sh("gio copy $HERE/a.png $MNT/runway/image/");
    arrived(&studio, "a.png", &bytes);
    assert_eq!(studio.sh("ls -A $MNT/runway/image"), "a.png");
}

#[test]
fn names_arrive_as_they_are() {
    let studio = Studio::new();
    let odd = [
        "two words.png",
        "Ünï 映像 🎬.png",
        "100% & more?.png",
        "it's \"quoted\" <x>.png",
        "a+b=c#d.png",
        "back\\slash.png",
    ];
    for (seed, name) in (1..).zip(odd) {
        studio.make(name, &noise(1_000 + seed, seed));
    }
    studio.sh("cp *.png $MNT/runway/image/");
    for (seed, name) in (1..).zip(odd) {
        arrived(&studio, name, &noise(1_000 + seed, seed));
    }
    let mut expected = odd.to_vec();
    expected.sort();
    assert_eq!(names(&studio.at("runway/image")), expected);
    studio.remount();
    assert_eq!(names(&studio.at("runway/image")), expected);
}

#[test]
fn many_files_at_once_all_arrive_once() {
    let studio = Studio::new();
    for n in 0..60 {
        studio.make(&format!("many/{n:02}.png"), &noise(20_000 + n, n));
    }
    studio.sh("ls many | xargs -P 8 -I{} cp many/{} $MNT/runway/image/");
    for n in 0..60 {
        arrived(&studio, &format!("{n:02}.png"), &noise(20_000 + n, n));
    }
    studio.sh("diff -r many $MNT/runway/image");
}

#[test]
fn a_large_file_arrives_whole() {
    let studio = Studio::new();
    let content = Content::synthetic(48 << 20, 5);
    studio.make("large.mp4", &content.read(0, content.len()));
    studio.sh("cp large.mp4 $MNT/runway/video/; cmp large.mp4 $MNT/runway/video/large.mp4");
    assert_eq!(studio.uploaded("large.mp4").sha256(), content.sha256());
}
