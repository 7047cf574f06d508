//! What stands in the directories, and how `stat` shows it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reelfs::emulator::{
    ABSENT, Content, Effect, EmulatorConfig, Fault, HostKind, LtxAsset, RunflowAsset, RunwayAsset,
};
use serde_json::json;

use crate::support::{Studio, errno, names, until};

const UUID: &str = "3c90c3cc-0d44-4b50-8888-8dd25736052a";

fn small(seed: u64) -> Content {
    Content::synthetic(1_000 + seed, seed)
}

/// Seconds since 1970, for `stat`.
fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn ls_shows_the_services_and_their_directories() {
    let studio = Studio::new();
    assert_eq!(studio.sh("ls $MNT"), "ltx\nrunflow\nrunway");
    assert_eq!(studio.sh("ls $MNT/runway"), "audio\nimage\nvideo");
    assert_eq!(studio.sh("ls $MNT/ltx"), "audio\nimages\nother\nvideos");
}

#[test]
fn a_service_without_a_token_is_not_shown() {
    let studio = Studio::unmounted(EmulatorConfig::default()).environment("USEAPI_TOKEN", "");
    studio.mount();
    assert_eq!(studio.sh("ls $MNT"), "runflow");
}

#[test]
fn empty_libraries_are_empty_directories() {
    let studio = Studio::new();
    assert_eq!(studio.sh("find $MNT -type f"), "");
    assert_eq!(studio.sh("ls -la $MNT/runway/video | wc -l"), "3");
}

#[test]
fn a_library_of_several_pages_is_listed_whole() {
    let studio = Studio::new();
    for n in 0..120 {
        let name = format!("Take {n:03}.mp4");
        studio
            .services
            .add_runway(RunwayAsset::named(&name, small(n)));
    }
    for n in 0..230 {
        studio
            .services
            .add_ltx(LtxAsset::new("image/png", small(n)));
    }
    assert_eq!(studio.sh("ls $MNT/runway/video | wc -l"), "120");
    assert_eq!(
        studio.sh("ls $MNT/runway/video | sed -n '1p;$p'"),
        "Take 000.mp4\nTake 119.mp4"
    );
    assert_eq!(
        studio.sh("find $MNT/ltx -type f -name '*.png' | wc -l"),
        "230"
    );
}

#[test]
fn a_page_that_fails_fails_the_listing() {
    let studio = Studio::with(&["--deadline", "2s"]);
    for n in 0..120 {
        let name = format!("{n}.mp4");
        studio
            .services
            .add_runway(RunwayAsset::named(&name, small(n)));
    }
    let later_pages = Fault::at(HostKind::Useapi).path("mediaType=video").skip(1);
    studio
        .services
        .add_fault(later_pages.does(Effect::status(500)));
    let said = studio.sh_fails("ls $MNT/runway/video");
    assert!(said.contains("Input/output error"), "{said}");
    studio.services.clear_faults();
    assert_eq!(studio.sh("ls $MNT/runway/video | wc -l"), "120");
}

#[test]
fn ls_l_shows_sizes_and_creation_times() {
    let studio = Studio::new();
    let clip = RunwayAsset::named("clip.mp4", small(7)).created_at(at(1_700_000_000));
    studio.services.add_runway(clip);
    let shown = studio.sh("TZ=UTC ls -l --time-style=full-iso $MNT/runway/video/clip.mp4");
    assert!(shown.contains(" 1007 2023-11-14 22:13:20"), "{shown}");
}

#[test]
fn assets_of_the_other_account_are_not_shown() {
    let config = EmulatorConfig {
        accounts: vec!["a@studio.example".into(), "b@studio.example".into()],
        ..EmulatorConfig::default()
    };
    let studio = Studio::unmounted(config);
    for (name, email) in [("a.mp4", "a@studio.example"), ("b.mp4", "b@studio.example")] {
        let asset = RunwayAsset::named(name, small(1)).in_account(email);
        studio.services.add_runway(asset);
    }
    let ltx = LtxAsset::new("video/mp4", small(3)).in_account("b@studio.example");
    let id = studio.services.add_ltx(ltx);
    let emails = [
        "--runway-email",
        "b@studio.example",
        "--ltx-email",
        "b@studio.example",
    ];
    studio.mount_with(&emails);
    assert_eq!(studio.sh("ls $MNT/runway/video"), "b.mp4");
    assert_eq!(studio.sh("ls $MNT/ltx/videos"), format!("{id}.mp4"));
}

#[test]
fn an_email_that_the_service_asks_for_is_named_in_the_log() {
    let studio = Studio::unmounted(EmulatorConfig {
        accounts: vec!["a@studio.example".into(), "b@studio.example".into()],
        ..EmulatorConfig::default()
    });
    studio.mount();
    studio.sh_fails("ls $MNT/runway/video");
    studio.sh_fails("ls $MNT/ltx/videos");
    let log = studio.log();
    assert!(log.contains("RUNWAY_EMAIL"), "{log}");
    assert!(log.contains("LTX_EMAIL"), "{log}");
}

#[test]
fn odd_names_become_names_that_a_directory_can_hold() {
    let studio = Studio::new();
    let add = |asset| studio.services.add_runway(asset);
    let named = |name: &str| RunwayAsset::named(name, small(1));
    add(named("Takes/Scene 1: \"slow\".mp4"));
    add(named("bell\u{7}.mp4"));
    let dots = add(named(".."));
    add(named("Ünï 映像 🎬.mp4"));
    add(named("no extension"));
    let nameless = add(named("x.mp4").without_name());
    add(RunwayAsset::named("Race car.jpg", small(2)));
    let long = format!("{}.mp4", "é".repeat(200));
    add(named(&long));
    let mut expected = vec![
        "Takes_Scene 1: \"slow\".mp4".to_string(),
        "bell_.mp4".to_string(),
        "Ünï 映像 🎬.mp4".to_string(),
        "no extension.mp4".to_string(),
        format!("{dots}.mp4"),
        format!("{nameless}.mp4"),
        format!("{}.mp4", "é".repeat(125)),
    ];
    expected.sort();
    assert_eq!(names(&studio.at("runway/video")), expected);
    assert_eq!(names(&studio.at("runway/image")), ["Race car.jpg"]);
    studio.sh("cat $MNT/runway/video/* > /dev/null");
}

#[test]
fn of_one_name_the_newest_keeps_it_and_the_older_ones_carry_their_ids() {
    let studio = Studio::new();
    let take = |seed, seconds| RunwayAsset::named("take.mp4", small(seed)).created_at(at(seconds));
    let oldest = studio.services.add_runway(take(1, 1_000));
    studio.services.add_runway(take(3, 3_000));
    let middle = studio.services.add_runway(take(2, 2_000));
    let mut expected = vec![
        "take.mp4".to_string(),
        format!("take ({}).mp4", &oldest[..8]),
        format!("take ({}).mp4", &middle[..8]),
    ];
    expected.sort();
    assert_eq!(names(&studio.at("runway/video")), expected);
    assert_eq!(
        fs::read(studio.at("runway/video/take.mp4")).unwrap(),
        small(3).read(0, 2_000)
    );
}

#[test]
fn fields_that_are_null_missing_or_unknown_hide_nothing() {
    let studio = Studio::new();
    let add = |name: &str, patch| {
        let asset = RunwayAsset::named(name, small(5)).with_json_patch(patch);
        studio.services.add_runway(asset);
    };
    add("null size.mp4", json!({"fileSize": null}));
    add(
        "no size.mp4",
        json!({"fileSize": ABSENT, "metadata": ABSENT}),
    );
    add("no time.mp4", json!({"createdAt": null, "updatedAt": null}));
    add(
        "from the future.mp4",
        json!({"nobodyKnows": {"this": [1, 2]}}),
    );
    let urlless = RunwayAsset::named("null url.mp4", small(5)).without_url();
    studio.services.add_runway(urlless);
    let listed = studio.sh("cd $MNT/runway/video; stat -c '%s %n' *");
    let expected = "1005 from the future.mp4\n1005 no size.mp4\n1005 no time.mp4\n\
                    1005 null size.mp4\n1005 null url.mp4";
    assert_eq!(listed, expected);
    studio.sh("cat $MNT/runway/video/* > all; test $(stat -c %s all) = 5025");
}

#[test]
fn a_listing_is_believed_for_its_ttl_and_not_longer() {
    let patient = Studio::with(&["--listing-ttl", "1h"]);
    patient
        .services
        .add_runway(RunwayAsset::named("a.mp4", small(1)));
    assert_eq!(patient.sh("ls $MNT/runway/video"), "a.mp4");
    patient.services.clear_requests();
    patient
        .services
        .add_runway(RunwayAsset::named("b.mp4", small(2)));
    assert_eq!(patient.sh("ls $MNT/runway/video"), "a.mp4");
    assert!(patient.services.requests().is_empty());

    let eager = Studio::with(&["--listing-ttl", "0s"]);
    let gone = eager
        .services
        .add_runway(RunwayAsset::named("a.mp4", small(1)));
    assert_eq!(eager.sh("ls $MNT/runway/video"), "a.mp4");
    eager
        .services
        .add_runway(RunwayAsset::named("b.mp4", small(2)));
    assert_eq!(eager.sh("ls $MNT/runway/video"), "a.mp4\nb.mp4");
    eager.services.remove(&gone);
    assert_eq!(eager.sh("ls $MNT/runway/video"), "b.mp4");
    assert_eq!(
        errno(fs::metadata(eager.at("runway/video/a.mp4"))),
        libc::ENOENT
    );
}

#[test]
fn a_new_asset_is_found_by_name_without_an_ls() {
    let studio = Studio::with(&["--listing-ttl", "0s"]);
    studio.sh("ls $MNT/runway/video; ! test -e $MNT/runway/video/new.mp4");
    studio
        .services
        .add_runway(RunwayAsset::named("new.mp4", small(4)));
    assert_eq!(studio.sh("stat -c %s $MNT/runway/video/new.mp4"), "1004");
}

#[test]
fn an_open_handle_reads_on_after_its_asset_left_the_listing() {
    let studio = Studio::with(&["--listing-ttl", "0s"]);
    let content = Content::synthetic(3 << 20, 9);
    let asset = RunwayAsset::named("a.mp4", content.clone());
    let id = studio.services.add_runway(asset);
    let file = fs::File::open(studio.at("runway/video/a.mp4")).unwrap();
    let mut start = vec![0; 100];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut start, 0).unwrap();
    // It leaves the list, not the asset host: the service forgets it later.
    let hidden = Fault::at(HostKind::Useapi).path("mediaType=video");
    studio
        .services
        .add_fault(hidden.does(Effect::Json(json!([]))));
    assert_eq!(studio.sh("ls $MNT/runway/video"), "", "{id} left");
    let mut rest = vec![0; (3 << 20) - 100];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut rest, 100).unwrap();
    assert!(content.verify(100, &rest));
}

// ---- Runflow ----

fn with_runflow_asset() -> Studio {
    let studio = Studio::new();
    let asset = RunflowAsset::new("Sunset.mp4", "video/mp4", small(11)).with_id(UUID);
    studio.services.add_runflow(asset);
    studio
}

#[test]
fn a_runflow_asset_is_found_by_its_uuid() {
    let studio = with_runflow_asset();
    assert_eq!(studio.sh("ls $MNT/runflow"), "");
    assert_eq!(
        studio.sh(&format!("stat -c %s $MNT/runflow/{UUID}")),
        "1011"
    );
    assert_eq!(studio.sh("ls $MNT/runflow"), UUID);
    let bytes = fs::read(studio.at(&format!("runflow/{UUID}"))).unwrap();
    assert!(small(11).verify(0, &bytes) && bytes.len() == 1011);
}

#[test]
fn a_runflow_asset_has_its_extension_too_and_no_other() {
    let studio = with_runflow_asset();
    let ino = |name: &str| studio.sh(&format!("stat -c %i $MNT/runflow/{name}"));
    assert_eq!(ino(UUID), ino(&format!("{UUID}.mp4")));
    let wrong = studio.at(&format!("runflow/{UUID}.png"));
    assert_eq!(errno(fs::metadata(wrong)), libc::ENOENT);
}

#[test]
fn what_is_no_uuid_is_absent_in_runflow_without_a_request() {
    let studio = with_runflow_asset();
    for name in [
        "hello",
        ".hidden",
        "clip.mp4",
        "3c90c3cc",
        "3c90c3cc0d444b5088888dd25736052a",
    ] {
        let path = studio.at("runflow").join(name);
        assert_eq!(errno(fs::metadata(path)), libc::ENOENT, "{name}");
    }
    assert_eq!(studio.requests(HostKind::Runflow), [""; 0]);
}

#[test]
fn an_unknown_or_deleted_runflow_asset_is_absent() {
    let studio = Studio::new();
    let gone = "0b9d1f5e-7a64-4c1b-9a53-5a8f0c6f2d11";
    let asset = RunflowAsset::new("a.mp4", "video/mp4", small(1)).with_id(gone);
    studio.services.add_runflow(asset.deleted());
    for id in [UUID, gone] {
        let path = studio.at("runflow").join(id);
        assert_eq!(errno(fs::metadata(path)), libc::ENOENT, "{id}");
    }
}

#[test]
fn the_runflow_ids_seen_so_far_are_listed_after_a_remount() {
    let studio = with_runflow_asset();
    let before = studio.sh(&format!("stat -c '%i %s %Y' $MNT/runflow/{UUID}"));
    studio.remount();
    assert_eq!(studio.sh("ls $MNT/runflow"), UUID);
    let after = studio.sh(&format!("stat -c '%i %s %Y' $MNT/runflow/{UUID}"));
    assert_eq!(after, before);
}

// ---- what survives ----

#[test]
fn inode_numbers_and_times_survive_a_remount() {
    let studio = Studio::sampled();
    studio.mount();
    let everything = "cd $MNT; find runway ltx -type f -exec stat -c '%n %i %s %.9Y' {} + | sort";
    let before = studio.sh(everything);
    assert_eq!(before.lines().count(), 12 + 10);
    studio.remount();
    assert_eq!(studio.sh(everything), before);
}

#[test]
fn ltx_sizes_are_right_at_the_first_stat_and_cost_nothing_after_a_remount() {
    let studio = Studio::new();
    let ids: Vec<String> = (0..40)
        .map(|n| {
            studio
                .services
                .add_ltx(LtxAsset::new("video/mp4", small(n)))
        })
        .collect();
    let first = fs::metadata(studio.at(&format!("ltx/videos/{}.mp4", ids[7]))).unwrap();
    assert_eq!(first.size(), 1_007);
    let long = "cd $MNT/ltx/videos; ls -ln --time-style=+%s";
    let before = studio.sh(long);
    for size in 1_000..1_040 {
        assert!(before.contains(&format!(" {size} ")), "{size}: {before}");
    }
    studio.remount();
    studio.services.clear_requests();
    assert_eq!(studio.sh(long), before);
    assert_eq!(studio.requests(HostKind::Asset), [""; 0]);
    assert_eq!(studio.services.refusals().heads, 0);
}

#[test]
fn reading_a_directory_learns_the_sizes_that_its_api_does_not_tell() {
    let studio = Studio::new();
    for n in 0..70 {
        let asset = LtxAsset::new("video/mp4", small(n));
        studio.services.add_ltx(asset);
    }
    assert_eq!(names(&studio.at("ltx/videos")).len(), 70);
    until("each is asked for", || {
        studio.requests(HostKind::Asset).len() == 70
    });
    let sizes = studio.sh("cd $MNT/ltx/videos; stat -c %s * | sort -n | sed -n '1p;$p'");
    assert_eq!(sizes, "1000\n1069");
}

#[test]
fn a_runway_asset_has_the_time_of_its_creation() {
    let studio = Studio::new();
    let created = at(1_650_000_000) + Duration::from_millis(123);
    let asset = RunwayAsset::named("a.mp4", small(1)).created_at(created);
    studio.services.add_runway(asset);
    let time = studio.sh("stat -c %.9Y $MNT/runway/video/a.mp4");
    assert_eq!(time, "1650000000.123000000");
}

#[test]
fn an_ltx_asset_has_the_time_of_its_object() {
    let studio = Studio::new();
    let asset = LtxAsset::new("image/png", small(1)).created_at(at(1_650_000_000));
    let id = studio.services.add_ltx(asset);
    let time = studio.sh(&format!("stat -c %Y $MNT/ltx/images/{id}.png"));
    assert_eq!(time, "1650000000");
}

/// Else the kernel says EACCES, to all but root, where EROFS and EPERM are promised.
#[test]
fn modes_let_every_request_through_to_the_program() {
    let studio = Studio::new();
    let id = studio
        .services
        .add_ltx(LtxAsset::new("image/png", small(1)));
    let modes =
        format!("stat -c %a . runway ltx runway/image ltx/images runflow ltx/images/{id}.png");
    let expected = "755\n755\n755\n755\n755\n755\n644";
    assert_eq!(studio.sh(&format!("cd $MNT; {modes}")), expected);
}

#[test]
fn an_older_listing_stands_in_while_the_service_is_unwell() {
    let studio = Studio::with(&["--listing-ttl", "0s", "--deadline", "1s"]);
    studio
        .services
        .add_runway(RunwayAsset::named("a.mp4", small(1)));
    assert_eq!(studio.sh("ls $MNT/runway/video"), "a.mp4");
    studio
        .services
        .add_fault(Fault::at(HostKind::Useapi).does(Effect::html(502)));
    assert_eq!(studio.sh("ls $MNT/runway/video"), "a.mp4");
    assert!(studio.log().contains("older listing"));
}

#[test]
fn a_refused_token_is_permission_denied() {
    let config = EmulatorConfig::default();
    let studio = Studio::unmounted(config).environment("USEAPI_TOKEN", "user:1-wrong");
    studio.mount();
    let said = studio.sh_fails("ls $MNT/runway/video");
    assert!(said.contains("Permission denied"), "{said}");
}
