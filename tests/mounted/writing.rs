//! Files copied in: each arrives once, whole, with its name and type, or the program is told. Here is
//! the vocabulary; each file below holds the behaviours of one subject.

mod changes;
mod crashes;
mod failures;
mod programs;
mod refused;
mod rsync;
mod whole;

use reelfs::emulator::{Effect, Fault, HostKind};

use crate::support::{Studio, noise};

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
