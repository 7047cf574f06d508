//! Thumbnails from the services' previews, judged by GLib, which file managers ask.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, UNIX_EPOCH};

use reelfs::emulator::{
    Content, Effect, EmulatorConfig, Fault, HostKind, LtxAsset, RunwayAsset, SAMPLE_RUNFLOW_IDS,
};

use crate::support::{Studio, until};

fn small(seed: u64) -> Content {
    Content::synthetic(1_000 + seed, seed)
}

fn studio(flags: &[&str]) -> Studio {
    let studio = Studio::unmounted(EmulatorConfig::default());
    studio.mount_with(&[&["--thumbnails"], flags].concat());
    studio
}

/// What GLib says of the thumbnail of a file below the mount point.
fn told(studio: &Studio, path: &str) -> String {
    studio.sh(&format!("gio info -a 'thumbnail::*' \"$MNT/{path}\""))
}

fn is_valid(studio: &Studio, path: &str) -> bool {
    let told = told(studio, path);
    told.contains("thumbnail::path") && told.contains("thumbnail::is-valid: TRUE")
}

fn until_valid(studio: &Studio, path: &str) {
    until(&format!("{path} has a valid thumbnail"), || {
        is_valid(studio, path)
    });
}

/// Requests at the asset host for anything but previews.
fn downloads(studio: &Studio) -> Vec<String> {
    let all = studio.requests(HostKind::Asset).into_iter();
    all.filter(|request| !request.contains("/previews/") && !request.contains("/thumbnails/"))
        .collect()
}

/// Requests at the asset host for previews.
fn previews(studio: &Studio) -> usize {
    studio.requests(HostKind::Asset).len() - downloads(studio).len()
}

/// How many thumbnails the cache holds.
fn made(studio: &Studio) -> usize {
    let count = studio.sh("find $HERE/../.cache -name '*.png' 2>/dev/null | wc -l || true");
    count.parse().unwrap()
}

#[test]
fn opening_a_directory_gives_every_file_a_thumbnail_and_downloads_none() {
    let studio = Studio::sampled();
    studio.mount_with(&["--thumbnails"]);
    let names = studio.sh("ls $MNT/runway/video $MNT/runway/image $MNT/runway/audio");
    assert!(names.lines().count() >= 12, "{names}");
    for directory in ["video", "image", "audio"] {
        for name in studio.sh(&format!("ls $MNT/runway/{directory}")).lines() {
            until_valid(&studio, &format!("runway/{directory}/{name}"));
        }
    }
    assert_eq!(downloads(&studio), [""; 0]);
    assert_eq!(previews(&studio), 12, "one request for each file");
    assert_eq!(studio.services.refusals().tokens, 0);
    assert_eq!(studio.services.refusals().heads, 0);
    let told = told(&studio, "runway/video/Sunset in motion.mp4");
    let path = told.split("thumbnail::path: ").nth(1).unwrap();
    let path = path.lines().next().unwrap();
    let size = studio.sh(&format!(
        "ffprobe -v error -show_entries stream=width,height -of csv=p=0 {path}"
    ));
    assert_eq!(size, "256,144");
    let normal = path.replace("/large/", "/normal/");
    let size = studio.sh(&format!(
        "ffprobe -v error -show_entries stream=width,height -of csv=p=0 {normal}"
    ));
    assert_eq!(size, "128,72");
    let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path), 0o600);
}

/// Asks tumbler, as Thunar does, for the thumbnails of the files that stand in `uris`, and waits
/// until it has finished with them.
const ASK_TUMBLER: &str = r#"
name=org.freedesktop.thumbnails.Thumbnailer1
path=/org/freedesktop/thumbnails/Thumbnailer1
says() {
    n=0
    until grep -q "$1" said; do
        n=$((n + 1))
        test $n -lt 1000
        sleep 0.05
    done
}
# Its signals go to who asked alone; a monitor sees them. It loses its name when it is one.
dbus-monitor --session "interface='$name'" > said &
monitor=$!
says NameLost
gdbus wait --session --activate $name --timeout 50 $name
gdbus call --session --dest $name --object-path $path --method $name.Queue \
    "$(cat uris)" "$(cat types)" normal default 'uint32 0' > asked
says member=Finished
kill $monitor
"#;

#[test]
fn tumbler_takes_the_thumbnails_for_its_own_and_opens_no_asset() {
    let studio = Studio::sampled();
    studio.mount_with(&["--thumbnails"]);
    let names = ["Fractal, poster frame.png", "Life.gif", "Sunset.jpg"];
    studio.sh("ls $MNT/runway/image");
    for name in names {
        until_valid(&studio, &format!("runway/image/{name}"));
    }
    let list = |items: Vec<String>| format!("['{}']", items.join("','"));
    let uri = |name: &&str| {
        let path = studio.at("runway/image").join(name);
        format!("file://{}", path.display()).replace(' ', "%20")
    };
    studio.make("uris", list(names.iter().map(uri).collect()).as_bytes());
    let types = ["image/png", "image/gif", "image/jpeg"].map(str::to_string);
    studio.make("types", list(types.to_vec()).as_bytes());
    studio.make("ask", ASK_TUMBLER.as_bytes());
    studio.sh("dbus-run-session -- sh -e ask");
    let said = studio.sh("cat said");
    let signals = said
        .split("\nsignal ")
        .filter(|text| text.contains("member=Ready"));
    let ready: String = signals.collect();
    for name in names {
        assert!(ready.contains(&name.replace(' ', "%20")), "{name}: {said}");
    }
    assert!(!said.contains("member=Error"), "{said}");
    assert_eq!(downloads(&studio), [""; 0]);
}

#[test]
fn with_thumbnails_a_services_time_is_shown_to_the_second_and_a_users_to_the_nanosecond() {
    let studio = studio(&[]);
    let created = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let asset = RunwayAsset::named("a.mp4", small(1)).created_at(created);
    studio.services.add_runway(asset);
    let time = |name: &str| studio.sh(&format!("stat -c %.9Y $MNT/runway/video/{name}"));
    assert_eq!(time("a.mp4"), "1700000000.000000000");
    studio.sh("echo bytes > b.mp4; touch -d @1600000000.123456789 b.mp4");
    studio.sh("cp -p b.mp4 $MNT/runway/video/");
    assert_eq!(time("b.mp4"), "1600000000.123456789");
}

#[test]
fn thumbnails_are_made_only_when_asked_for() {
    let studio = Studio::sampled();
    studio.mount();
    studio.sh("ls -l $MNT/runway/video; stat $MNT/runway/video/*");
    studio.unmount();
    assert_eq!(previews(&studio), 0);
    studio.sh("! test -e $HERE/../.cache");
}

#[test]
fn names_are_escaped_as_glib_escapes_them() {
    let studio = Studio::unmounted(EmulatorConfig::default());
    let names = [
        "a !\"#$%&'()*+,-.:;<=>?@.mp4",
        "[\\]^_`{|}~.mp4",
        "Ünï 映像 🎬.mp4",
        "50% off?.mp4",
    ];
    for name in names {
        studio
            .services
            .add_runway(RunwayAsset::named(name, small(1)));
    }
    studio.mount_with(&["--thumbnails"]);
    studio.sh("ls $MNT/runway/video");
    until("all have thumbnails", || {
        let valid =
            "cd $MNT/runway/video; gio info -a 'thumbnail::is-valid' * | grep -c TRUE || true";
        studio.sh(valid) == names.len().to_string()
    });
}

#[test]
fn ltx_files_get_thumbnails_once_their_times_are_known() {
    let studio = studio(&[]);
    let id = studio
        .services
        .add_ltx(LtxAsset::new("video/mp4", small(3)));
    studio.sh("ls -l $MNT/ltx/videos");
    until_valid(&studio, &format!("ltx/videos/{id}.mp4"));
    // Its size and time, as without thumbnails.
    assert_eq!(downloads(&studio).len(), 1);
}

#[test]
fn a_runflow_asset_that_was_looked_up_gets_a_thumbnail() {
    let studio = Studio::sampled();
    studio.mount_with(&["--thumbnails"]);
    let id = SAMPLE_RUNFLOW_IDS[0];
    studio.sh(&format!("stat $MNT/runflow/{id}; ls $MNT/runflow"));
    until_valid(&studio, &format!("runflow/{id}"));
    assert_eq!(downloads(&studio), [""; 0]);
}

#[test]
fn a_mount_by_a_symbolic_link_has_the_thumbnails_of_where_it_leads() {
    let studio = Studio::unmounted(EmulatorConfig::default());
    studio
        .services
        .add_runway(RunwayAsset::named("a.mp4", small(1)));
    studio.configure();
    studio.sh("ln -s $MNT link; $REELFS mount --thumbnails link; ls link/runway/video");
    until_valid(&studio, "runway/video/a.mp4");
    studio.sh("$REELFS unmount $MNT");
}

#[test]
fn what_has_a_valid_thumbnail_is_not_fetched_again_also_after_a_remount() {
    let studio = studio(&["--listing-ttl", "0s"]);
    studio
        .services
        .add_runway(RunwayAsset::named("a.mp4", small(1)));
    studio.sh("ls $MNT/runway/video");
    until_valid(&studio, "runway/video/a.mp4");
    assert_eq!(previews(&studio), 1);
    studio.remount();
    studio.sh("ls $MNT/runway/video");
    // Shows that the pass that would have fetched it is over.
    studio
        .services
        .add_runway(RunwayAsset::named("b.mp4", small(2)));
    studio.sh("ls $MNT/runway/video");
    until_valid(&studio, "runway/video/b.mp4");
    assert_eq!(previews(&studio), 2);
}

#[test]
fn a_changed_asset_gets_a_new_thumbnail() {
    let studio = studio(&["--listing-ttl", "0s"]);
    let asset = RunwayAsset::named("a.mp4", small(1));
    let asset = asset.created_at(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let id = studio.services.add_runway(asset);
    studio.sh("ls $MNT/runway/video");
    until_valid(&studio, "runway/video/a.mp4");
    studio.services.replace_content(&id, small(100));
    studio.sh("ls $MNT/runway/video");
    until("the new size is shown", || {
        studio.sh("stat -c %s $MNT/runway/video/a.mp4") == "1100"
    });
    until_valid(&studio, "runway/video/a.mp4");
    assert_eq!((made(&studio), previews(&studio)), (2, 2));
}

/// A PNG header of so many pixels, and nothing behind it.
fn bomb(side_px: u32) -> Content {
    let mut body = Vec::new();
    let mut encoder = png::Encoder::new(&mut body, side_px, side_px);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    writer
        .write_chunk(png::chunk::IDAT, &[0x78, 0x9c, 0x63, 0, 0, 0, 1, 0, 1])
        .unwrap();
    drop(writer);
    Content::stored(body)
}

#[test]
fn bad_previews_harm_nothing_and_are_asked_for_once() {
    let studio = studio(&["--listing-ttl", "0s"]);
    let add = |name: &str, mime: &str, preview: Content| {
        let asset = RunwayAsset::named(name, small(1)).with_preview(mime, preview);
        studio.services.add_runway(asset)
    };
    add("bomb.mp4", "image/png", bomb(60_000));
    add(
        "html.mp4",
        "image/png",
        Content::stored("<html><body>no</body></html>"),
    );
    // A terabyte.
    add("endless.mp4", "image/png", Content::synthetic(1 << 40, 1));
    add("garbage.mp4", "image/jpeg", Content::synthetic(50_000, 2));
    let fault = |id: &str, effect: Effect| {
        let preview = Fault::at(HostKind::Asset).path(&format!("/previews/{id}"));
        studio.services.add_fault(preview.does(effect));
    };
    let missing = add("missing.mp4", "image/png", Content::stored("x"));
    fault(&missing, Effect::status(404));
    let whole = add("whole.mp4", "image/png", Content::synthetic(1 << 40, 3));
    fault(&whole, Effect::IgnoreRange);
    let chunked = add("chunked.mp4", "image/png", Content::synthetic(3 << 20, 4));
    fault(&chunked, Effect::Chunked);
    add("good.mp4", "image/png", small(9));
    studio
        .services
        .add_runway(RunwayAsset::named("fine.mp4", small(1)));
    studio.sh("ls $MNT/runway/video");
    until_valid(&studio, "runway/video/fine.mp4");
    until("all were asked for", || previews(&studio) == 9);
    studio.sh(
        "ls $MNT/runway/video; cat $MNT/runway/video/*.mp4 > all; test $(stat -c %s all) = 9009",
    );
    assert_eq!(made(&studio), 2, "both sizes of the good one");
    assert_eq!(studio.services.fault_hits(), 3);
    assert_eq!(previews(&studio), 9, "none is asked for twice");
    for request in studio.services.requests() {
        assert!(request.bytes_sent < 16 << 20, "{request:?}");
    }
    let log = studio.log();
    assert!(!log.contains("panic") && !log.contains("_jwt"), "{log}");
}

#[test]
fn a_silent_preview_host_does_not_hold_up_the_mount() {
    let studio = studio(&["--deadline", "2s"]);
    for n in 0..20 {
        let name = format!("{n}.mp4");
        studio
            .services
            .add_runway(RunwayAsset::named(&name, small(n)));
    }
    let silent = Fault::at(HostKind::Asset).path("/previews/");
    studio.services.add_fault(silent.does(Effect::Silent));
    studio.sh("ls -l $MNT/runway/video; cat $MNT/runway/video/3.mp4 > copy; df $MNT");
    studio.unmount();
}

#[test]
fn a_cache_that_cannot_be_used_is_told_and_the_mount_works() {
    let studio = Studio::unmounted(EmulatorConfig::default());
    let blocked = studio.make("file", b"");
    let studio = studio.environment("XDG_CACHE_HOME", blocked.to_str().unwrap());
    studio.mount_with(&["--thumbnails"]);
    studio
        .services
        .add_runway(RunwayAsset::named("a.mp4", small(1)));
    assert_eq!(studio.sh("ls $MNT/runway/video"), "a.mp4");
    assert!(studio.log().contains("no thumbnails"), "{}", studio.log());
    assert_eq!(previews(&studio), 0);
}
