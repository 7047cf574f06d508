//! The sample media are what they say, judged by ffprobe.

use std::collections::HashSet;
use std::process::Command;

use super::*;

/// Format names, codec names and duration of a file, by ffprobe.
fn probed(file: &SampleFile) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(file.name);
    std::fs::write(&path, file.bytes).unwrap();
    let output = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-show_format",
            "-show_streams",
            "-of",
            "json",
        ])
        .arg(&path)
        .output()
        .expect("ffprobe is missing: apt-get install ffmpeg");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && complaints.is_empty(),
        "{}: {complaints}",
        file.name
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_sample_is_accepted_by_ffprobe_as_its_type() {
    for file in &SAMPLE_FILES {
        let probe = probed(file);
        let format = probe["format"]["format_name"].as_str().unwrap();
        let expected = match file.mime_type {
            "video/mp4" => "mp4",
            "video/quicktime" => "mov",
            "video/webm" => "webm",
            "image/png" => "png_pipe",
            "image/jpeg" => "image2",
            "image/gif" => "gif",
            "audio/wav" => "wav",
            "audio/mpeg" => "mp3",
            other => panic!("no expectation for {other}"),
        };
        assert!(
            format.split(',').any(|name| name == expected),
            "{}: {format}",
            file.name
        );
        let kinds: HashSet<&str> = probe["streams"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|stream| stream["codec_type"].as_str())
            .collect();
        let wanted: &[&str] = match file.mime_type.split('/').next() {
            Some("video") => &["video", "audio"],
            Some("image") => &["video"],
            _ => &["audio"],
        };
        assert_eq!(kinds, wanted.iter().copied().collect(), "{}", file.name);
    }
}

fn position(file: &SampleFile, word: &[u8]) -> usize {
    let found = file.bytes.windows(word.len()).position(|w| w == word);
    found.unwrap()
}

#[test]
fn one_mp4_has_its_index_in_front_and_one_at_the_end() {
    let file = |name| SAMPLE_FILES.iter().find(|file| file.name == name).unwrap();
    let (front, end) = (file("fractal.mp4"), file("sunset.mp4"));
    assert!(position(front, b"moov") < position(front, b"mdat"));
    assert!(position(end, b"mdat") < position(end, b"moov"));
}

#[test]
fn the_samples_are_small() {
    let bytes: usize = SAMPLE_FILES.iter().map(|file| file.bytes.len()).sum();
    assert!(bytes < 600_000, "{bytes}");
}

#[test]
fn the_demo_library_has_every_kind_and_the_odd_names() {
    let bench = Bench::new();
    let emulator = Emulator::with_sample_library(EmulatorConfig::default()).unwrap();
    let assets = emulator.runway_assets();
    let of_type = |media_type| assets.iter().filter(|a| a.media_type == media_type).count();
    assert_eq!(["video", "image", "audio"].map(of_type), [6, 3, 3]);
    let named = |name| {
        assets
            .iter()
            .filter(|a| a.name.as_deref() == Some(name))
            .count()
    };
    assert_eq!(named("Aurora.webm"), 2);
    assert_eq!(named("Colour bars"), 1);
    assert_eq!(assets.iter().filter(|a| a.name.is_none()).count(), 1);
    assert!(
        assets
            .iter()
            .any(|a| a.name.as_deref().is_some_and(|name| name.contains('/')))
    );
    assert!(assets.is_sorted_by(|newer, older| newer.created_at > older.created_at));

    for id in SAMPLE_RUNFLOW_IDS {
        let url = format!("{}/v1/assets/{id}", emulator.runflow_url());
        let request = bench
            .bare(Method::GET, &url)
            .bearer_auth(emulator.runflow_token());
        assert_eq!(page(request.send().unwrap())["id"], id);
    }
    for filter in ["images", "videos", "audio", "other"] {
        let url = format!(
            "{}/v1/ltxstudio/assets/?filter={filter}",
            emulator.useapi_url()
        );
        let request = bench
            .bare(Method::GET, &url)
            .bearer_auth(emulator.useapi_token());
        assert_ne!(
            page(request.send().unwrap())["meta"]["totalItems"],
            0,
            "{filter}"
        );
    }
}
