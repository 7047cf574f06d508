//! The control directory, and what the program makes of it: status, metrics, refresh.

use std::fs;
use std::os::unix::fs::MetadataExt;

use reelfs::emulator::{Content, Effect, EmulatorConfig, Fault, HostKind, RunwayAsset};
use serde_json::Value;

use crate::support::{Studio, errno, names, noise, until};

const MIB: u64 = 1 << 20;

fn status(studio: &Studio) -> Value {
    let text = fs::read_to_string(studio.at(".reelfs/status.json")).expect("the status");
    serde_json::from_str(&text).expect("JSON")
}

fn service<'a>(status: &'a Value, name: &str) -> &'a Value {
    let services = status["services"].as_array().unwrap().iter();
    services.into_iter().find(|s| s["name"] == name).unwrap()
}

fn library<'a>(status: &'a Value, path: &str) -> &'a Value {
    let libraries = status["libraries"].as_array().unwrap().iter();
    libraries.into_iter().find(|l| l["path"] == path).unwrap()
}

#[test]
fn the_control_directory_is_found_by_name_and_never_listed() {
    let studio = Studio::new();
    assert_eq!(names(&studio.at("")), ["ltx", "runflow", "runway"]);
    assert_eq!(studio.sh("ls -A $MNT"), "ltx\nrunflow\nrunway");
    assert_eq!(studio.sh("find $MNT -name '*reelfs*'"), "");
    studio.sh("cp -r $MNT copied; rsync -a $MNT/ synced; tar cf all.tar -C $MNT .");
    assert_eq!(studio.sh("find copied synced -name '.reelfs'"), "");
    assert!(!studio.sh("tar tf all.tar").contains("reelfs"));
    assert_eq!(studio.sh("ls $MNT/.reelfs"), "metrics\nstatus.json");
}

#[test]
fn the_control_directory_is_for_the_mounts_owner_and_cannot_be_changed() {
    let studio = Studio::with(&["--allow-other", "--umask", "0"]);
    for (path, mode) in [
        (".reelfs", 0o500),
        (".reelfs/status.json", 0o400),
        (".reelfs/metrics", 0o400),
    ] {
        let metadata = fs::metadata(studio.at(path)).unwrap();
        assert_eq!(metadata.mode() & 0o777, mode, "{path}");
        assert_eq!(metadata.uid(), rustix::process::getuid().as_raw());
    }
    assert_eq!(
        fs::metadata(studio.at("ltx")).unwrap().mode() & 0o777,
        0o777
    );
    let file = studio.at(".reelfs/status.json");
    assert_eq!(
        errno(fs::OpenOptions::new().write(true).open(&file)),
        libc::EPERM
    );
    assert_eq!(errno(fs::remove_file(&file)), libc::EPERM);
    assert_eq!(errno(fs::write(studio.at(".reelfs/new"), "x")), libc::EPERM);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    assert_eq!(errno(fs::set_permissions(&file, mode)), libc::EPERM);
    if rustix::process::getuid().is_root() {
        let said = studio.sh_fails(
            "setpriv --reuid 65534 --regid 65534 --clear-groups cat $MNT/.reelfs/status.json",
        );
        assert!(said.contains("Permission denied"), "{said}");
        studio.sh("setpriv --reuid 65534 --regid 65534 --clear-groups ls $MNT/runway");
    }
}

#[test]
fn the_status_tells_of_services_libraries_cache_and_open_files() {
    let studio = Studio::unmounted(EmulatorConfig::default());
    studio.services.add_runway(RunwayAsset::named(
        "clip.mp4",
        Content::synthetic(2 * MIB, 1),
    ));
    studio.mount_with(&["--cache-size", "64M", "--listing-ttl", "1h"]);
    let before = status(&studio);
    assert_eq!(before["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        before["mount_point"],
        studio.at("").to_str().unwrap().trim_end_matches('/')
    );
    assert_eq!(service(&before, "runway")["reachable"], "unknown");
    assert_eq!(
        library(&before, "runway/video")["listing_age_seconds"],
        Value::Null
    );

    studio.sh("cat $MNT/runway/video/clip.mp4 > clip.mp4");
    let open = studio.spawn("exec tail -f $MNT/runway/video/clip.mp4 > /dev/null");
    let path = "runway/video/clip.mp4";
    until("tail has it open", || {
        let files = &status(&studio)["streams"]["open_files"];
        files
            .as_array()
            .unwrap()
            .iter()
            .any(|file| file["path"] == path)
    });
    open.signal(rustix::process::Signal::KILL);
    let after = status(&studio);
    assert_eq!(service(&after, "runway")["reachable"], "yes");
    assert!(service(&after, "runway")["last_success"].is_string());
    assert_eq!(service(&after, "ltx")["reachable"], "unknown");
    let video = library(&after, "runway/video");
    assert_eq!(video["entries"], 1);
    assert!(video["listing_age_seconds"].as_f64().unwrap() < 3600.0);
    assert_eq!(video["stale"], false);
    assert_eq!(after["cache"]["capacity_bytes"], 64 * MIB);
    assert!(
        after["cache"]["used_bytes"].as_u64().unwrap() >= 2 * MIB,
        "{after:#}"
    );
    assert!(after["cache"]["hit_rate"].is_f64());
    assert_eq!(after["streams"]["fetched_bytes"], 2 * MIB);
    assert_eq!(after["errors"], Value::Array(Vec::new()));
}

#[test]
fn the_status_is_read_while_every_service_is_silent() {
    let studio = Studio::unmounted(EmulatorConfig::default());
    studio
        .services
        .add_runway(RunwayAsset::named("clip.mp4", Content::synthetic(MIB, 1)));
    studio.mount_with(&["--deadline", "1h"]);
    for host in [HostKind::Useapi, HostKind::Runflow, HostKind::Asset] {
        studio
            .services
            .add_fault(Fault::at(host).does(Effect::Silent));
    }
    let lists = [
        studio.spawn("exec ls $MNT/runway/video"),
        studio.spawn("exec ls -l $MNT/ltx/videos"),
    ];
    until("both wait", || {
        lists.iter().all(|list| list.waits_for_the_mount())
    });
    assert_eq!(service(&status(&studio), "runway")["reachable"], "unknown");
    studio.sh("cat $MNT/.reelfs/metrics > metrics; grep -q '^reelfs_up 1$' metrics");
    for list in lists {
        assert!(list.is_running());
        list.signal(rustix::process::Signal::KILL);
    }
}

#[test]
fn the_last_errors_are_kept_in_words_and_without_secrets() {
    let accounts = vec!["me@studio.example".into()];
    let studio = Studio::unmounted(EmulatorConfig {
        accounts,
        ..EmulatorConfig::default()
    });
    let studio = studio.environment("RUNWAY_EMAIL", "me@studio.example");
    studio
        .services
        .add_runway(RunwayAsset::named("clip.mp4", Content::synthetic(MIB, 1)));
    studio.mount_with(&["--deadline", "1s"]);
    studio.sh("ls $MNT/runway/video");
    studio
        .services
        .add_fault(Fault::at(HostKind::Asset).does(Effect::status(500)));
    studio.sh_fails("cat $MNT/runway/video/clip.mp4");
    studio
        .services
        .add_fault(Fault::at(HostKind::Useapi).does(Effect::status(401)));
    studio.sh_fails("ls $MNT/runway/image");
    let told = status(&studio);
    let errors = told["errors"].as_array().unwrap();
    assert!(
        errors[0]["place"]
            .as_str()
            .unwrap()
            .contains("runway/image"),
        "{told:#}"
    );
    assert!(
        errors.iter().any(|e| e["place"] == "runway/video/clip.mp4"),
        "{told:#}"
    );
    let runway = service(&told, "runway");
    assert_eq!(runway["reachable"], "no");
    assert_eq!(runway["account"], "me@studio.example");
    assert!(
        runway["failure"].as_str().unwrap().contains("USEAPI_TOKEN"),
        "{told:#}"
    );
    let counts = told["error_counts"].as_array().unwrap();
    assert!(
        counts
            .iter()
            .any(|c| c["service"] == "runway" && c["kind"] == "denied")
    );
    let all = studio.sh("cat $MNT/.reelfs/*");
    for secret in [
        studio.services.useapi_token(),
        studio.services.runflow_token(),
    ] {
        assert!(!all.contains(&secret));
    }
    for part in ["_jwt", "X-Amz", "Signature", "Bearer"] {
        assert!(!all.contains(part), "{part}");
    }
}

#[test]
fn a_stale_listing_says_so_and_why() {
    let studio = Studio::with(&["--deadline", "1s", "--listing-ttl", "0s"]);
    studio.sh("ls $MNT/runway/video");
    studio
        .services
        .add_fault(Fault::at(HostKind::Useapi).does(Effect::status(500)));
    studio.sh("ls $MNT/runway/video");
    let told = status(&studio);
    let video = library(&told, "runway/video");
    assert_eq!(video["stale"], true);
    assert!(
        video["problem"].as_str().unwrap().contains("500"),
        "{told:#}"
    );
}

#[test]
fn an_upload_shows_its_bytes_attempts_and_next_try() {
    let studio = Studio::with(&["--write-back"]);
    studio.sh("ls $MNT/runway/image");
    let refusal = Fault::at(HostKind::Useapi).method("POST");
    studio.services.add_fault(refusal.does(Effect::status(503)));
    studio.make("a.png", &noise(MIB, 1));
    studio.sh("cp a.png $MNT/runway/image/");
    let upload = |told: &Value| told["uploads"][0].clone();
    until("an attempt failed", || {
        upload(&status(&studio))["failures"].as_u64() > Some(0)
    });
    let told = status(&studio);
    let line = upload(&told);
    assert_eq!(line["path"], "runway/image/a.png");
    assert_eq!(line["size_bytes"], MIB);
    assert!(line["error"].as_str().unwrap().contains("503"), "{told:#}");
    studio.services.clear_faults();
    until("it is sent", || {
        status(&studio)["uploads"] == Value::Array(Vec::new())
    });
    studio.uploaded("a.png");
}

#[test]
fn the_metrics_are_what_prometheus_reads() {
    let studio = Studio::unmounted(EmulatorConfig::default());
    studio
        .services
        .add_runway(RunwayAsset::named("clip.mp4", Content::synthetic(MIB, 1)));
    studio.mount_with(&["--deadline", "1s"]);
    studio.sh("cat $MNT/runway/video/clip.mp4 > /dev/null");
    studio
        .services
        .add_fault(Fault::at(HostKind::Useapi).does(Effect::status(500)));
    studio.sh_fails("ls $MNT/runway/image");
    studio.make("read.py", br#"
import sys
from prometheus_client.parser import text_string_to_metric_families as read
families = {f.name: f for f in read(open(sys.argv[1]).read())}
for family in families.values():
    assert family.documentation and family.type in ("gauge", "counter"), family
samples = {(s.name, *sorted(s.labels.items())): s.value for f in families.values() for s in f.samples}
assert samples["reelfs_up",] == 1
assert samples["reelfs_fetched_bytes_total",] == 1 << 20
assert samples["reelfs_listing_entries", ("library", "runway/video")] == 1
assert samples["reelfs_service_up", ("service", "runway")] == 0
assert samples["reelfs_errors_total", ("kind", "unavailable"), ("service", "runway")] == 1
assert samples["reelfs_reads_total", ("result", "miss")] >= 1
assert samples["reelfs_uploads", ("state", "queued")] == 0
assert ("reelfs_listing_age_seconds", ("library", "runway/video")) in samples
print(len(families))
"#);
    let count: usize = studio
        .sh("/usr/bin/python3 read.py $MNT/.reelfs/metrics")
        .parse()
        .unwrap();
    assert!(count > 15, "{count} metrics");
}

#[test]
fn a_handle_reads_one_snapshot_however_long_it_takes() {
    use std::io::Read;
    let studio = Studio::new();
    let mut open = fs::File::open(studio.at(".reelfs/status.json")).unwrap();
    let mut first = [0; 16];
    open.read_exact(&mut first).unwrap();
    studio.sh("ls $MNT/runway/video $MNT/ltx/images");
    let mut rest = String::new();
    open.read_to_string(&mut rest).unwrap();
    let whole = String::from_utf8(first.to_vec()).unwrap() + &rest;
    let told: Value = serde_json::from_str(&whole).expect("one document");
    assert_eq!(service(&told, "runway")["reachable"], "unknown");
}

// ---- reelfs status ----

#[test]
fn reelfs_status_shows_a_mount_and_its_document() {
    let studio = Studio::unmounted(EmulatorConfig::default());
    studio
        .services
        .add_runway(RunwayAsset::named("clip.mp4", Content::synthetic(MIB, 1)));
    studio.mount();
    let text = studio.sh("cat $MNT/runway/video/clip.mp4 > x; $REELFS status $MNT");
    for words in [
        "runway/video",
        "1 file  listed",
        "1.00 MiB fetched",
        "not asked yet",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let point = studio.at("");
    let point = point.to_str().unwrap().trim_end_matches('/');
    let inside = studio.sh("$REELFS status --json $MNT/runway/video/clip.mp4");
    let document: Value = serde_json::from_str(&inside).unwrap();
    assert_eq!(document["mount_point"], point);
    assert_eq!(document["streams"]["fetched_bytes"], MIB);
    // Mounts of other tests come and go, and may be dead.
    let all = studio.sh("$REELFS status --json || true");
    let all: Value = serde_json::from_str(&all).unwrap();
    let mut all = all.as_array().unwrap().iter();
    assert!(all.any(|mount| mount["mount_point"] == point));
}

#[test]
fn reelfs_status_of_what_is_no_living_mount_is_one_sentence() {
    let studio = Studio::new();
    let here = studio.here("");
    let said = studio.reelfs_fails(&["status", here.to_str().unwrap()]);
    assert!(said.contains("nothing is mounted on"), "{said}");
    let said = studio.reelfs_fails(&["status", "/proc"]);
    assert!(said.contains("type proc"), "{said}");
    let said = studio.reelfs_fails(&["status", "/absent"]);
    assert!(said.contains("does not exist"), "{said}");
    let point = studio.at("");
    let point = point.to_str().unwrap();
    studio.signal(rustix::process::Signal::STOP);
    until("it is stopped", || {
        !studio.reelfs(&["status", point]).status.success()
    });
    let said = studio.reelfs_fails(&["status", point]);
    assert!(said.contains("does not answer"), "{said}");
    studio.signal(rustix::process::Signal::CONT);
    studio.kill();
    let said = studio.reelfs_fails(&["status", point]);
    assert!(
        said.contains("is dead") && said.contains("reelfs unmount"),
        "{said}"
    );
}

#[test]
fn a_watched_status_follows_and_ends_with_the_mount() {
    let studio = Studio::new();
    let watching = studio.spawn("exec $REELFS status --watch $MNT > seen");
    let seen = || fs::read_to_string(studio.here("seen")).unwrap_or_default();
    until("two blocks", || seen().matches("Services").count() >= 2);
    assert!(
        !seen().contains('\u{1b}'),
        "no terminal, no control sequences"
    );
    studio.unmount();
    let output = watching.output();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("nothing is mounted on"), "{said}");
}

#[test]
fn a_watched_status_has_bars_for_uploads_on_a_terminal() {
    let studio = Studio::with(&["--write-back", "--unmount-timeout", "1s"]);
    studio.sh("ls $MNT/runway/image");
    let slow = Fault::at(HostKind::Useapi).method("POST");
    studio.services.add_fault(slow.does(Effect::Silent));
    studio.make("a.png", &noise(3 * MIB, 1));
    studio.sh("cp a.png $MNT/runway/image/");
    let script = "TERM=xterm exec script -qfec \"stty cols 120; $REELFS status --watch $MNT\" seen";
    let watching = studio.spawn(script);
    let seen = || fs::read_to_string(studio.here("seen")).unwrap_or_default();
    until("the bar shows", || {
        seen().contains("runway/image/a.png  [") && seen().contains("of 3.00 MiB")
    });
    watching.signal(rustix::process::Signal::TERM);
    watching.output();
}
