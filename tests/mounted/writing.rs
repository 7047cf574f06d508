//! Files copied in: each arrives once, whole, with its name and type, or the program is told.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};

use reelfs::emulator::{
    Content, Effect, EmulatorConfig, Fault, HostKind, LtxAsset, RunwayAsset, SAMPLE_FILES,
};
use rustix::process::Signal;

use crate::support::{Studio, errno, names, noise, until};

/// A studio with `$HERE/a.png`, and its bytes.
fn with_picture(flags: &[&str]) -> (Studio, Vec<u8>) {
    let studio = Studio::with(flags);
    let bytes = noise(70_001, 1);
    studio.make("a.png", &bytes);
    (studio, bytes)
}

fn posts(effect: Effect) -> Fault {
    Fault::at(HostKind::Useapi).method("POST").does(effect)
}

fn post_count(studio: &Studio) -> usize {
    let all = studio.requests(HostKind::Useapi);
    all.iter().filter(|r| r.starts_with("POST")).count()
}

fn arrived(studio: &Studio, name: &str, bytes: &[u8]) {
    let asset = studio.uploaded(name);
    assert_eq!(asset.size_bytes(), bytes.len() as u64, "{name}");
    assert!(asset.content.verify(0, bytes), "{name} differs");
    assert!(asset.is_user_upload);
}

/// What Runway has is what the directory shows.
fn nothing_arrived(studio: &Studio) {
    let assets = studio.services.runway_assets();
    let names: Vec<_> = assets.iter().map(|asset| &asset.name).collect();
    assert!(names.is_empty(), "{names:?}");
}

// ---- programs that write ----

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

// ---- rsync ----

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

// ---- editors and other ways ----

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

// ---- refused ----

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

// ---- failures ----

/// `cp` into a service that answers uploads with `status`; what it said.
fn cp_refused_with(status: u16) -> (Studio, String) {
    let (studio, _) = with_picture(&[]);
    studio.services.add_fault(posts(Effect::status(status)));
    let said = studio.sh_fails("cp a.png $MNT/runway/image/");
    nothing_arrived(&studio);
    (studio, said)
}

#[test]
fn a_refused_upload_fails_the_cp() {
    let (studio, said) = cp_refused_with(400);
    assert!(said.contains("Input/output error"), "{said}");
    let state = studio.sh("getfattr --only-values -n user.reelfs.upload $MNT/runway/image/a.png");
    assert!(state.starts_with("failed: "), "{state}");
    studio.sh("cmp a.png $MNT/runway/image/a.png");
}

#[test]
fn an_exhausted_subscription_is_a_quota_error() {
    let (_studio, said) = cp_refused_with(402);
    assert!(said.contains("Disk quota exceeded"), "{said}");
}

#[test]
fn a_refused_token_fails_the_cp() {
    let (_studio, said) = cp_refused_with(401);
    assert!(said.contains("Permission denied"), "{said}");
}

#[test]
fn a_failed_upload_succeeds_when_the_file_is_copied_again() {
    let (studio, bytes) = with_picture(&[]);
    studio
        .services
        .add_fault(posts(Effect::status(400)).times(1));
    studio.sh_fails("cp a.png $MNT/runway/image/");
    studio.sh("cp a.png $MNT/runway/image/");
    arrived(&studio, "a.png", &bytes);
    assert_eq!(studio.sh("ls -A $MNT/runway/image"), "a.png");
}

#[test]
fn a_failed_upload_is_sent_again_by_retry() {
    let (studio, bytes) = with_picture(&[]);
    studio
        .services
        .add_fault(posts(Effect::status(400)).times(1));
    studio.sh_fails("cp a.png $MNT/runway/image/");
    studio.sh("$REELFS retry $MNT/runway/image/a.png");
    until("it is sent", || !studio.services.runway_assets().is_empty());
    arrived(&studio, "a.png", &bytes);
}

#[test]
fn a_failed_upload_can_be_removed() {
    let (studio, _) = with_picture(&[]);
    studio
        .services
        .add_fault(posts(Effect::status(400)).times(1));
    studio.sh_fails("cp a.png $MNT/runway/image/");
    studio.sh("rm $MNT/runway/image/a.png");
    assert_eq!(studio.sh("ls -A $MNT/runway/image"), "");
    studio.remount();
    assert_eq!(studio.sh("ls -A $MNT/runway/image"), "");
    nothing_arrived(&studio);
}

#[test]
fn a_full_disk_is_enospc_at_the_write_and_never_a_short_upload() {
    let studio = Studio::unmounted(EmulatorConfig::default());
    studio.make("large.mp4", &noise(3 << 20, 1));
    studio.make("small.mp4", &noise(1_000, 2));
    studio.configure();
    // No file of the program's may be larger than 1 MiB; a trap that ignores is inherited.
    studio.sh("trap '' XFSZ; ulimit -f 2048; $REELFS mount $MNT");
    let said = studio.sh_fails("cp large.mp4 $MNT/runway/video/");
    assert!(said.contains("No space left on device"), "{said}");
    studio.sh("rm $MNT/runway/video/large.mp4; cp small.mp4 $MNT/runway/video/");
    studio.sh("$REELFS unmount $MNT");
    assert_eq!(studio.services.runway_assets().len(), 1);
    arrived(&studio, "small.mp4", &noise(1_000, 2));
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
        // Each of 20 requests in 1,000 uploads; 5 % and more of all together.
        let fault = Fault::at(HostKind::Useapi).chance(20, seed);
        studio.services.add_fault(fault.does(effect));
    }
    rsync(&studio);
    studio.unmount();
    assert!(
        studio.services.fault_hits() > 3,
        "{}",
        studio.services.fault_hits()
    );
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

#[test]
fn an_answer_that_was_lost_leaves_one_asset() {
    let (studio, bytes) = with_picture(&[]);
    studio
        .services
        .add_fault(posts(Effect::AnswerLostAfterWork).times(1));
    studio.sh("cp a.png $MNT/runway/image/");
    arrived(&studio, "a.png", &bytes);
    assert_eq!(post_count(&studio), 1);
    assert_eq!(studio.sh("ls $MNT/runway/image"), "a.png");
}

#[test]
fn a_connection_that_breaks_while_sending_is_not_seen() {
    let (studio, bytes) = with_picture(&[]);
    studio
        .services
        .add_fault(posts(Effect::DropWhileReceiving(30_000)).times(1));
    studio.sh("cp a.png $MNT/runway/image/");
    arrived(&studio, "a.png", &bytes);
}

#[test]
fn a_rate_limit_is_waited_for() {
    let (studio, bytes) = with_picture(&[]);
    studio
        .services
        .add_fault(posts(Effect::retry_after(429, 1)).times(1));
    studio.sh("cp a.png $MNT/runway/image/");
    arrived(&studio, "a.png", &bytes);
}

// ---- when a file counts as whole ----

#[test]
fn close_waits_for_the_upload() {
    let (studio, _) = with_picture(&[]);
    studio.services.add_fault(posts(Effect::Silent).times(1));
    let copy = studio.spawn("exec cp a.png $MNT/runway/image/");
    until("the upload is under way", || post_count(&studio) == 1);
    until("cp waits in its close", || copy.waits_for_the_mount());
    studio.sh(
        "ls -l $MNT/runway/image; stat $MNT/runway/image/a.png; cmp a.png $MNT/runway/image/a.png",
    );
    let state = studio.sh("getfattr --only-values -n user.reelfs.upload $MNT/runway/image/a.png");
    assert!(state.starts_with("sending") || state == "queued", "{state}");
    copy.signal(Signal::KILL);
    assert_eq!(copy.ended_by(), Some(Signal::KILL.as_raw()));
}

#[test]
fn write_back_returns_at_once_and_unmount_waits() {
    let (studio, bytes) = with_picture(&["--write-back"]);
    studio.services.add_fault(posts(Effect::html(503)).times(1));
    studio.sh("cp a.png $MNT/runway/image/; cmp a.png $MNT/runway/image/a.png");
    studio.unmount();
    arrived(&studio, "a.png", &bytes);
}

#[test]
fn a_killed_copy_uploads_nothing() {
    let (studio, _) = with_picture(&[]);
    studio.sh("mkfifo pipe");
    let copy = studio.spawn("exec cat pipe > $MNT/runway/image/a.png");
    let mut pipe = OpenOptions::new()
        .write(true)
        .open(studio.here("pipe"))
        .unwrap();
    pipe.write_all(&noise(50_000, 1)).unwrap();
    until("the bytes are written", || {
        fs::metadata(studio.at("runway/image/a.png")).is_ok_and(|file| file.size() == 50_000)
    });
    copy.signal(Signal::KILL);
    assert_eq!(copy.ended_by(), Some(Signal::KILL.as_raw()));
    drop(pipe);
    studio.unmount();
    nothing_arrived(&studio);
    assert_eq!(post_count(&studio), 0);
}

#[test]
fn a_child_that_inherited_the_descriptor_and_exits_uploads_nothing() {
    let studio = Studio::new();
    // The writer goes on when somebody opens the other end.
    studio.sh("mkfifo go-on");
    let writer = studio.spawn(
        "exec python3 -c '
import os, subprocess, sys
clip = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o644)
os.set_inheritable(clip, True)
os.write(clip, b\"first half, \")
subprocess.run([\"true\"], close_fds=False, check=True)
open(\"child-has-exited\", \"w\").close()
open(\"go-on\").close()
os.write(clip, b\"second half\")
os.close(clip)
' $MNT/runway/video/clip.mp4",
    );
    until("the child has exited", || {
        studio.here("child-has-exited").exists()
    });
    nothing_arrived(&studio);
    assert_eq!(post_count(&studio), 0);
    studio.sh(": > go-on");
    writer.succeeds();
    arrived(&studio, "clip.mp4", b"first half, second half");
    assert_eq!(post_count(&studio), 1);
}

#[test]
fn a_descriptor_that_outlives_its_opener_uploads_at_its_last_close() {
    let studio = Studio::new();
    studio.sh("exec 9> $MNT/runway/video/clip.mp4; (printf child >&9); printf ' and parent' >&9; exec 9>&-");
    until("the whole arrives", || {
        !studio.uploads_named("clip.mp4").is_empty()
    });
    arrived(&studio, "clip.mp4", b"child and parent");
}

#[test]
fn a_file_closed_by_another_thread_of_its_opener_is_uploaded() {
    let studio = Studio::new();
    studio.sh("python3 -c '
import sys, threading
clip = open(sys.argv[1], \"wb\")
clip.write(b\"by one thread\")
closer = threading.Thread(target=clip.close)
closer.start()
closer.join()
' $MNT/runway/video/clip.mp4");
    arrived(&studio, "clip.mp4", b"by one thread");
}

#[test]
fn a_file_that_is_being_written_can_be_read() {
    let (studio, bytes) = with_picture(&[]);
    let mut writer = File::create(studio.at("runway/image/a.png")).unwrap();
    writer.write_all(&bytes[..1_000]).unwrap();
    assert_eq!(
        fs::read(studio.at("runway/image/a.png")).unwrap(),
        &bytes[..1_000]
    );
    writer.write_all(&bytes[1_000..]).unwrap();
    drop(writer);
    arrived(&studio, "a.png", &bytes);
}

// ---- crashes ----

#[test]
fn a_closed_file_survives_kill_9_and_is_sent_exactly_once_by_the_next_mount() {
    let (studio, bytes) = with_picture(&["--write-back"]);
    studio.sh("ls $MNT/runway/image");
    studio.services.add_fault(posts(Effect::DropBeforeAnswer));
    studio.sh("cp -p a.png $MNT/runway/image/");
    until("it was tried", || post_count(&studio) > 0);
    studio.kill();
    nothing_arrived(&studio);
    studio.services.clear_faults();
    studio.mount();
    assert_eq!(studio.sh("ls $MNT/runway/image"), "a.png");
    studio.sh("cmp a.png $MNT/runway/image/a.png");
    until("it is sent", || !studio.services.runway_assets().is_empty());
    studio.remount();
    arrived(&studio, "a.png", &bytes);
    assert_eq!(studio.sh("ls $MNT/runway/image"), "a.png");
    let times = "stat -c %.9Y a.png $MNT/runway/image/a.png | sort -u | wc -l";
    assert_eq!(studio.sh(times), "1");
}

#[test]
fn kill_9_after_the_service_took_the_file_sends_it_no_second_time() {
    let (studio, bytes) = with_picture(&["--write-back"]);
    studio
        .services
        .add_fault(posts(Effect::AnswerLostAfterWork));
    let later = Fault::at(HostKind::Useapi).method("GET").skip(1);
    studio
        .services
        .add_fault(later.does(Effect::DropBeforeAnswer));
    studio.sh("cp a.png $MNT/runway/image/");
    until("the service has it", || {
        !studio.services.runway_assets().is_empty()
    });
    studio.kill();
    studio.services.clear_faults();
    studio.mount();
    until("the asset is known", || {
        let state =
            studio.spawn("getfattr --only-values -n user.reelfs.upload $MNT/runway/image/a.png");
        String::from_utf8_lossy(&state.output().stdout).starts_with("done")
    });
    arrived(&studio, "a.png", &bytes);
    assert_eq!(post_count(&studio), 1);
    assert_eq!(studio.sh("ls $MNT/runway/image"), "a.png");
}

#[test]
fn kill_9_while_a_file_is_written_uploads_nothing() {
    let (studio, bytes) = with_picture(&[]);
    let mut writer = File::create(studio.at("runway/image/a.png")).unwrap();
    writer.write_all(&bytes[..40_000]).unwrap();
    studio.kill();
    assert!(writer.write_all(b"more").is_err());
    drop(writer);
    studio.mount();
    assert_eq!(studio.sh("ls -A $MNT/runway/image"), "");
    studio.unmount();
    nothing_arrived(&studio);
    assert_eq!(post_count(&studio), 0);
}

#[test]
fn the_second_accounts_mount_does_not_take_the_firsts_files() {
    let (studio, _) = with_picture(&["--write-back"]);
    studio.services.add_fault(posts(Effect::DropBeforeAnswer));
    studio.sh("cp a.png $MNT/runway/image/");
    studio.kill();
    studio.services.clear_faults();
    let other = Studio::unmounted(EmulatorConfig::default());
    let other = other.environment("REELFS_STATE_DIR", studio.state_dir().to_str().unwrap());
    other.mount();
    assert_eq!(other.sh("ls -A $MNT/runway/image"), "");
    other.unmount();
    nothing_arrived(&other);
}
