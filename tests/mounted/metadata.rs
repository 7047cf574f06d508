//! Extended attributes, as real programs read, copy and set them.

use std::time::{Duration, UNIX_EPOCH};

use reelfs::emulator::{ABSENT, Content, RunflowAsset, RunwayAsset};
use serde_json::{Value, json};

use crate::support::{Studio, noise};

const UUID: &str = "3c90c3cc-0d44-4b50-8888-8dd25736052a";
const TASK: &str = "user:12-runwayml:a@b.example-task:77";

fn small(seed: u64) -> Content {
    Content::synthetic(1_000 + seed, seed)
}

fn clip() -> RunwayAsset {
    let created = UNIX_EPOCH + Duration::from_millis(1_722_474_123_456);
    RunwayAsset::named("clip.mp4", small(1))
        .created_at(created)
        .with_json_patch(json!({"taskId": TASK, "favorite": true}))
}

fn with_clip() -> (Studio, String) {
    let studio = Studio::new();
    let id = studio.services.add_runway(clip());
    (studio, id)
}

#[test]
fn getfattr_shows_what_the_listing_holds_at_no_extra_request() {
    let (studio, id) = with_clip();
    studio.sh("ls $MNT/runway/video");
    studio.services.clear_requests();
    let shown = studio.sh("getfattr -d -m - $MNT/runway/video/clip.mp4");
    for line in [
        format!("user.reelfs.id=\"{id}\""),
        "user.reelfs.provider=\"runway\"".to_string(),
        "user.reelfs.created=\"2024-08-01T01:02:03.456Z\"".to_string(),
        "user.reelfs.favorite=\"true\"".to_string(),
        "user.reelfs.duration=\"10.542\"".to_string(),
        "user.reelfs.width=\"1280\"".to_string(),
        "user.reelfs.height=\"768\"".to_string(),
        "user.reelfs.frame_rate=\"24\"".to_string(),
        "user.reelfs.has_audio=\"false\"".to_string(),
        format!("user.reelfs.task_id=\"{TASK}\""),
        "user.mime_type=\"video/mp4\"".to_string(),
    ] {
        assert!(
            shown.lines().any(|shown| shown == line),
            "{line} in {shown}"
        );
    }
    assert!(!shown.contains("user.xdg.origin.url"), "signed: {shown}");
    assert!(studio.services.requests().is_empty());
}

#[test]
fn the_whole_record_is_shown_without_what_signs_its_urls() {
    let (studio, id) = with_clip();
    let record = studio.sh("getfattr --only-values -n user.reelfs.json $MNT/runway/video/clip.mp4");
    let read: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(read["id"], id);
    assert_eq!(read["metadata"]["width"], 1280);
    assert_eq!(read["parentAssetGroupId"], Value::Null);
    let asset_host = studio.services.asset_url();
    let url = read["url"].as_str().unwrap();
    assert!(
        url.starts_with(&asset_host) && url.ends_with("clip.mp4?..."),
        "{url}"
    );
    let preview =
        studio.sh("getfattr --only-values -n user.reelfs.preview_url $MNT/runway/video/clip.mp4");
    assert!(
        preview.starts_with(&asset_host) && !preview.contains('?'),
        "{preview}"
    );
    let all = studio.sh("getfattr -d -m - $MNT/runway/video/clip.mp4");
    for secret in ["_jwt", "nonce", "expires_ms", "eyJ"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
}

#[test]
fn a_url_that_is_not_signed_is_the_origin() {
    let studio = Studio::new();
    let url = format!("{}/open/clip.mp4", studio.services.asset_url());
    let asset = clip().with_json_patch(json!({"url": url, "previewUrls": [url]}));
    studio.services.add_runway(asset);
    let value = |name: &str| {
        studio.sh(&format!(
            "getfattr --only-values -n {name} $MNT/runway/video/clip.mp4"
        ))
    };
    assert_eq!(value("user.xdg.origin.url"), url);
    assert_eq!(value("user.reelfs.preview_url"), url);
}

#[test]
fn attributes_that_are_not_known_are_not_listed() {
    let studio = Studio::new();
    let nothing =
        json!({"metadata": null, "favorite": null, "createdAt": ABSENT, "previewUrls": []});
    let asset = RunwayAsset::named("a.mp4", small(2)).with_json_patch(nothing);
    studio.services.add_runway(asset);
    let names = studio.sh("cd $MNT/runway/video; getfattr -m - a.mp4 | grep user | sort");
    let expected = "user.mime_type\nuser.reelfs.id\nuser.reelfs.json\nuser.reelfs.provider";
    assert_eq!(names, expected);
    let said = studio.sh_fails("getfattr -n user.reelfs.duration $MNT/runway/video/a.mp4");
    assert!(said.contains("No such attribute"), "{said}");
    assert_eq!(studio.sh("getfattr -d -m - $MNT $MNT/runway/video"), "");
}

#[test]
fn python_reads_sizes_first_and_gets_the_kernels_errors() {
    let (studio, id) = with_clip();
    let script = format!(
        r#"
import ctypes, errno, os
path = os.environ["MNT"] + "/runway/video/clip.mp4"
assert os.getxattr(path, "user.reelfs.id") == b"{id}"
assert "user.reelfs.json" in os.listxattr(path)
libc = ctypes.CDLL(None, use_errno=True)
name = b"user.reelfs.id"
assert libc.getxattr(path.encode(), name, None, 0) == 36
assert libc.listxattr(path.encode(), None, 0) == sum(len(n) + 1 for n in os.listxattr(path))
small = ctypes.create_string_buffer(35)
assert libc.getxattr(path.encode(), name, small, 35) == -1
assert ctypes.get_errno() == errno.ERANGE
assert libc.listxattr(path.encode(), small, 35) == -1
assert ctypes.get_errno() == errno.ERANGE
for absent, expected in [
    ("user.other", errno.ENODATA),
    ("security.capability", errno.EOPNOTSUPP),
    ("trusted.a", errno.EOPNOTSUPP),
]:
    try:
        os.getxattr(path, absent)
        raise SystemExit(absent)
    except OSError as e:
        assert e.errno == expected, (absent, e)
"#
    );
    studio.make("look.py", script.as_bytes());
    studio.sh("python3 look.py");
}

#[test]
fn copies_take_the_attributes_along() {
    let (studio, id) = with_clip();
    studio.sh("cp -a $MNT/runway/video copied; rsync -aX $MNT/runway/video/ synced");
    for copy in ["copied", "synced"] {
        let shown = studio.sh(&format!("getfattr -d -m - {copy}/clip.mp4"));
        assert!(
            shown.contains(&format!("user.reelfs.id=\"{id}\"")),
            "{shown}"
        );
        assert!(shown.contains("user.reelfs.json="), "{shown}");
    }
}

#[test]
fn copying_in_with_attributes_succeeds_and_they_are_not_kept() {
    let studio = Studio::new();
    studio.make("from/a.mp4", &noise(5_000, 1));
    studio.make("from/b.mp4", &noise(6_000, 2));
    studio.sh("setfattr -n user.comment -v mine from/a.mp4 from/b.mp4 from");
    studio.sh("cp -a from/a.mp4 $MNT/runway/video/");
    studio.sh("cp --preserve=xattr from/a.mp4 $MNT/runway/video/strict.mp4");
    // What was copied out carries the attributes of this mount.
    studio.sh("rsync -aX $MNT/runway/video/strict.mp4 from/c.mp4");
    let sync = "rsync -aX --out-format='%i %n' from/ $MNT/runway/video/ | grep '^[<>]f' || true";
    assert_eq!(studio.sh(sync).lines().count(), 2, "b and c are sent");
    assert_eq!(studio.sh(sync), "", "nothing is sent twice");
    assert_eq!(studio.sh("ls $MNT/runway/video | wc -l"), "4");
    let shown = studio.sh("getfattr -d -m - $MNT/runway/video/a.mp4");
    assert!(!shown.contains("user.comment"), "{shown}");
    let id = studio.uploaded("c.mp4").id;
    let own = "getfattr --only-values -n user.reelfs.id $MNT/runway/video/c.mp4";
    assert_eq!(studio.sh(own), id);
}

#[test]
fn a_runflow_record_is_remembered_across_mounts() {
    let studio = Studio::new();
    let asset = RunflowAsset::new("Sunset.mp4", "video/mp4", small(11)).with_id(UUID);
    studio.services.add_runflow(asset);
    let record = format!("getfattr --only-values -n user.reelfs.json $MNT/runflow/{UUID}");
    let before = studio.sh(&record);
    assert!(before.contains("\"source_type\":\"upload\"") && !before.contains("X-Amz"));
    studio.remount();
    // Listed without a question to the service.
    studio.sh("ls $MNT/runflow");
    assert_eq!(studio.sh(&record), before);
    let state = studio.state_dir();
    studio.sh(&format!("! grep -r X-Amz-Signature {}", state.display()));
}
