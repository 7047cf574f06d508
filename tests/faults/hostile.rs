//! A service that means harm: what it says is odd, endless, or leads elsewhere. One odd asset costs no
//! other, nothing outside of the mount is touched, and memory stays bounded.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use reelfs::emulator::{
    ABSENT, Content, Effect, Emulator, EmulatorConfig, Fault, HostKind, LtxAsset, RunwayAsset,
};
use reelfs::fs::FsError;
use reelfs::provider::Library;
use serde_json::{Value, json};

use crate::bench::{Bench, Settings};
use crate::support::{Studio, names};

const VIDEO: Library = Library::RunwayVideo;

fn content(seed: u64) -> Content {
    Content::synthetic(5_000, seed)
}

/// What services have called their assets, or would to do harm.
fn odd_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "../../../../etc/passwd",
        "/etc/passwd",
        "..",
        ".",
        "",
        "   ",
        "a/b\\c",
        "nul\0nul",
        "line\nbreak\r\u{1b}[2J\u{7}",
        "\u{9b}31mC1",
        "invoice\u{202e}gpj.exe",
        "isolated\u{2067}name\u{2069}",
        "separated\u{2028}lines\u{2029}",
        "\u{feff}bom",
        "-rf",
        "$(touch harm)",
        "`touch harm`",
        "%2e%2e%2fescaped",
        "con:nul.mp4",
        "\u{fffd}\u{ffff}\u{10ffff}",
        "e\u{301}\u{301}\u{301}",
    ]
    .map(str::to_string)
    .to_vec();
    names.push("x".repeat(10_000));
    names.push("🎬".repeat(10_000));
    names.push("../".repeat(1_000));
    names.push(format!("{}.mp4", "y".repeat(255)));
    names
}

#[test]
fn odd_names_are_listed_read_and_copied_and_touch_nothing_outside() {
    let studio = Studio::unmounted(EmulatorConfig::default());
    let odd = odd_names();
    for (n, name) in odd.iter().enumerate() {
        let asset = RunwayAsset::named("a.mp4", content(n as u64));
        let asset = asset.with_json_patch(json!({ "name": name }));
        studio.services.add_runway(asset);
    }
    studio.mount();
    let before = studio.sh("find $HOME -path $MNT -prune -o -path $HOME/state -prune -o -print");
    let shown = names(&studio.at("runway/video"));
    assert_eq!(shown.len(), odd.len(), "{shown:?}");
    for name in &shown {
        assert!(name.len() <= 255 && !name.contains('/'), "{name:?}");
        let harmless = |c: char| !c.is_control() && !('\u{202a}'..='\u{202e}').contains(&c);
        assert!(name.chars().all(harmless), "{name:?}");
        let bytes = fs::read(studio.at("runway/video").join(name)).unwrap();
        assert_eq!(bytes.len(), 5_000, "{name:?}");
    }
    studio.sh("ls -la $MNT/runway/video > /dev/null; find $MNT -type f -print0 | xargs -0 stat > /dev/null");
    let after = studio.sh("find $HOME -path $MNT -prune -o -path $HOME/state -prune -o -print");
    assert_eq!(before, after);
    studio.sh("cp -r $MNT/runway/video copied; diff -r copied $MNT/runway/video");
    assert_eq!(names(&studio.here("")), ["copied"]);
}

/// A bench over an emulator.
struct Scene {
    emulator: Emulator,
    bench: Bench,
    _state: tempfile::TempDir,
}

fn over(emulator: Emulator) -> Scene {
    let state = tempfile::tempdir().unwrap();
    let settings = Settings::of(&emulator, Duration::from_secs(20));
    let bench = Bench::mount(&emulator, &state, &settings);
    Scene {
        emulator,
        bench,
        _state: state,
    }
}

/// One asset whose JSON has these fields replaced, and a usual one beside it.
fn patched(patch: Value) -> Scene {
    let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
    emulator.add_runway(RunwayAsset::named("usual.mp4", content(1)));
    let odd = RunwayAsset::named("odd.mp4", content(2)).with_json_patch(patch);
    emulator.add_runway(odd);
    over(emulator)
}

impl Scene {
    fn read(&self, name: &str) -> Result<Vec<u8>, FsError> {
        let ino = self.bench.lookup(VIDEO, name)?.ino;
        Ok(self.bench.read_part(ino, 0, 100_000)?.to_vec())
    }

    fn is_read(&self, name: &str, seed: u64) {
        let bytes = self.read(name).unwrap();
        assert!(
            bytes.len() == 5_000 && content(seed).verify(0, &bytes),
            "{name}"
        );
    }
}

#[test]
fn a_size_that_is_none_is_learnt_and_one_that_lies_is_found_out() {
    for size in [
        json!(-1),
        json!(0),
        json!(1u64 << 63),
        json!(u64::MAX),
        json!(5000.5),
        json!(1e300),
        json!("5000"),
        json!([5000]),
        json!({ "bytes": 5000 }),
        Value::Null,
        json!(ABSENT),
    ] {
        let scene = patched(json!({ "fileSize": size }));
        let found = scene.bench.lookup(VIDEO, "odd.mp4").unwrap();
        assert_eq!(found.size_bytes, 5_000, "{size}");
        scene.is_read("odd.mp4", 2);
        scene.is_read("usual.mp4", 1);
    }
    for size in [json!(1), json!(4_999), json!(5_001), json!(i64::MAX)] {
        let scene = patched(json!({ "fileSize": size }));
        let first = scene.read("odd.mp4");
        assert!(matches!(first, Err(FsError::Stale)), "{size}: {first:?}");
        scene.is_read("odd.mp4", 2);
    }
}

#[test]
fn a_time_out_of_range_is_a_time_or_none_and_never_a_panic() {
    let studio = Studio::unmounted(EmulatorConfig::default());
    let times = [
        json!("0001-01-01T00:00:00Z"),
        json!("-9999-01-01T00:00:00Z"),
        json!("9999-12-31T23:59:59Z"),
        json!("9999999-01-01T00:00:00Z"),
        json!("2024-02-30T25:61:61Z"),
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!("soon"),
        json!({}),
    ];
    for (n, time) in times.iter().enumerate() {
        let asset = RunwayAsset::named(&format!("{n}.mp4"), content(n as u64));
        let patch = json!({ "createdAt": time, "updatedAt": time });
        studio.services.add_runway(asset.with_json_patch(patch));
    }
    studio.mount();
    studio.sh("ls -l --full-time $MNT/runway/video; stat $MNT/runway/video/* > stats");
    let shown = names(&studio.at("runway/video"));
    assert_eq!(shown.len(), times.len());
    for name in shown {
        let found = fs::metadata(studio.at("runway/video").join(name)).unwrap();
        assert_ne!(found.modified().unwrap(), SystemTime::UNIX_EPOCH);
    }
    assert!(!studio.log().contains("panicked"), "{}", studio.log());
}

#[test]
fn ids_that_lead_elsewhere_stay_within_the_apis_pages() {
    for id in [
        "../../../v1/other",
        "..",
        "/",
        "//host/path",
        "a?b=c#d",
        "a%2f..%2fb",
        "http://169.254.169.254/",
        "\r\nX-Evil: 1",
        "\0",
    ] {
        let scene = patched(json!({ "id": id, "assetId": id }));
        scene.emulator.set_url_lifetime(Duration::ZERO);
        assert_eq!(scene.bench.ls(VIDEO).unwrap().len(), 2, "{id:?}");
        // Its URL has expired: the service is asked for the asset by its id.
        let _ = scene.read("odd.mp4");
        for request in scene.emulator.requests() {
            let path = request.path_and_query;
            let within = ["/v1/runwayml/assets/", "/runway/"];
            assert!(
                within.iter().any(|page| path.starts_with(page)) && !path.contains("/../"),
                "{id:?}: {path}"
            );
        }
    }
}

#[test]
fn assets_without_an_id_or_with_anothers_cost_no_other_asset() {
    for patch in [
        json!({ "id": "", "assetId": "" }),
        json!({ "id": null, "assetId": null, "url": null }),
        json!({ "id": 7, "assetId": [] }),
    ] {
        let scene = patched(patch.clone());
        assert!(!scene.bench.ls(VIDEO).unwrap().is_empty(), "{patch}");
        scene.is_read("usual.mp4", 1);
    }
    let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
    for n in 0..3 {
        let same = json!({ "id": "same", "assetId": "same" });
        let asset = RunwayAsset::named(&format!("{n}.mp4"), content(n));
        emulator.add_runway(asset.with_json_patch(same));
    }
    assert_eq!(over(emulator).bench.ls(VIDEO).unwrap().len(), 1);
}

#[test]
fn urls_that_must_not_be_asked_are_an_error_of_that_asset_alone() {
    let stray = TcpListener::bind("127.0.0.1:0").unwrap();
    stray.set_nonblocking(true).unwrap();
    let port = stray.local_addr().unwrap().port();
    for url in [
        "file:///etc/passwd".to_string(),
        "ftp://cdn.example/a".to_string(),
        "javascript:alert(1)".to_string(),
        "gopher://127.0.0.1/".to_string(),
        format!("http://user:password@127.0.0.1:{port}/a"),
        format!("//127.0.0.1:{port}/a"),
        "\0".to_string(),
    ] {
        let scene = patched(json!({ "url": url }));
        let read = scene.read("odd.mp4");
        assert!(matches!(read, Err(FsError::Io(_))), "{url}: {read:?}");
        scene.is_read("usual.mp4", 1);
    }
    assert!(stray.accept().is_err(), "somebody was asked");
}

#[test]
fn odd_types_headers_and_nesting_cost_no_other_asset() {
    let mut deep = json!("deep");
    for _ in 0..100 {
        deep = json!([{ "a": deep }]);
    }
    for patch in [
        json!({ "fileExtStandardized": "../../../x" }),
        json!({ "fileExtStandardized": "m\0p4" }),
        json!({ "fileExtStandardized": "x".repeat(100_000) }),
        json!({ "mediaType": { "a": 1 }, "metadata": deep }),
        json!({ "previewUrls": ["file:///etc/passwd", 7, null] }),
        json!({ "metadata": { "duration": "1e999", "width": -5 } }),
    ] {
        let scene = patched(patch);
        let shown = scene.bench.ls(VIDEO);
        if shown.is_ok() {
            scene.is_read("usual.mp4", 1);
        } else {
            // Nested more deeply than any JSON reader follows: the page is an error, in words.
            assert!(matches!(shown, Err(FsError::Io(_))), "{shown:?}");
        }
    }
    for (name, value) in [
        ("etag", "\"\u{7f}\""),
        ("last-modified", "Thu, 01 Jan 99999 00:00:00 GMT"),
        ("content-type", "text/html; charset=\"../..\""),
        ("content-disposition", "attachment; filename=../../x"),
        ("retry-after", "-5"),
    ] {
        let scene = patched(json!({}));
        let header = Effect::SetHeader(name.to_string(), value.to_string());
        let fault = Fault::at(HostKind::Asset).does(header);
        scene.emulator.add_fault(fault);
        scene.is_read("odd.mp4", 2);
    }
}

#[test]
fn ids_that_begin_alike_are_named_in_time() {
    let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
    let alike = "x".repeat(300);
    for n in 0..500 {
        let patch = json!({ "id": format!("{alike}{n}") });
        let asset = LtxAsset::new("video/mp4", content(1)).with_json_patch(patch);
        emulator.add_ltx(asset);
    }
    let scene = over(emulator);
    let mut shown = scene.bench.ls(Library::LtxVideos).unwrap();
    shown.sort();
    shown.dedup();
    assert_eq!(shown.len(), 500);
}

/// A service that answers every GET with what `page` makes of its number.
fn endless(page: impl Fn(usize) -> String + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let (page, count) = (Arc::new(page), Arc::clone(&asked));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (page, count) = (Arc::clone(&page), Arc::clone(&count));
            thread::spawn(move || {
                let mut answers = stream.try_clone().unwrap();
                let lines = BufReader::new(stream).lines().map_while(Result::ok);
                for line in lines {
                    if !line.is_empty() {
                        continue;
                    }
                    let body = page(count.fetch_add(1, Ordering::Relaxed));
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                    if answers.write_all((head + &body).as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, asked)
}

fn list_at(url: &str, library: Library) -> Result<usize, FsError> {
    let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
    let state = tempfile::tempdir().unwrap();
    let mut settings = Settings::of(&emulator, Duration::from_secs(20));
    settings.useapi = url.to_string();
    let bench = Bench::mount(&emulator, &state, &settings);
    Ok(bench.ls(library)?.len())
}

#[test]
fn pages_without_an_end_are_an_error_and_not_a_full_memory() {
    let item = |n: usize| json!({ "id": format!("{n}"), "assetId": format!("{n}") });
    // LTX, 50 new assets a page for ever, no count of pages.
    let (url, asked) = endless(move |page| {
        let items: Vec<Value> = (page * 50..(page + 1) * 50).map(item).collect();
        json!({ "items": items }).to_string()
    });
    let listed = list_at(&url, Library::LtxVideos);
    assert!(
        matches!(&listed, Err(FsError::Io(why)) if why.contains("100000")),
        "{listed:?}"
    );
    assert!(asked.load(Ordering::Relaxed) <= 2_010);
    // A promise of more pages than anybody has.
    let (url, asked) = endless(move |_| {
        let meta = json!({ "totalItems": 1u64 << 40, "totalPages": 1u64 << 40 });
        json!({ "items": [item(1)], "meta": meta }).to_string()
    });
    let listed = list_at(&url, Library::LtxVideos);
    assert!(matches!(listed, Err(FsError::Io(_))), "{listed:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    // Runway, every page full of new ones: what the page's largest offset reaches, and no more.
    let (url, asked) = endless(move |page| {
        let items: Vec<Value> = (page * 50..(page + 1) * 50).map(item).collect();
        json!(items).to_string()
    });
    let listed = list_at(&url, VIDEO);
    assert!(listed.is_ok_and(|count| count <= 1_100 * 3));
    assert!(asked.load(Ordering::Relaxed) <= 100);
    // A page of a hundred thousand, and one that doesn't fit into what is read of an answer.
    for (items, library) in [
        (100_000, VIDEO),
        (1_000_000, VIDEO),
        (100_000, Library::LtxVideos),
    ] {
        let (url, _) = endless(move |_| {
            let items = vec![r#"{"id":"1"}"#; items].join(",");
            match library {
                VIDEO => format!("[{items}]"),
                _ => format!("{{\"items\":[{items}]}}"),
            }
        });
        let listed = list_at(&url, library);
        assert!(matches!(listed, Err(FsError::Io(_))), "{items}: {listed:?}");
    }
}
