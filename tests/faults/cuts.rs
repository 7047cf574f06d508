//! A body that breaks off, wherever it does, is gone on with or asked for again, unseen.

use std::time::Duration;

use reelfs::emulator::{
    Content, Effect, Emulator, EmulatorConfig, Fault, HostKind, LtxAsset, RunwayAsset,
};
use reelfs::provider::Library;

use crate::bench::{Bench, Settings};

const VIDEO: Library = Library::RunwayVideo;
const ASSETS: u64 = 40;
const SIZE_BYTES: u64 = 150_000;

fn cut(host: HostKind, path: &str, bytes: u64) -> Fault {
    let fault = Fault::at(host).path(path).times(1);
    fault.does(Effect::CutBodyAfter(bytes))
}

#[test]
fn a_range_that_breaks_off_anywhere_is_whole_for_the_reader() {
    let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
    let content = |n| Content::synthetic(SIZE_BYTES, n);
    for n in 0..ASSETS {
        emulator.add_runway(RunwayAsset::named(&format!("{n}.mp4"), content(n)));
    }
    let state = tempfile::tempdir().unwrap();
    let settings = Settings::of(&emulator, Duration::from_secs(40));
    let bench = Bench::mount(&emulator, &state, &settings);
    // Not in the directory's order, in which the next files would be fetched ahead.
    for n in (0..ASSETS).map(|n| n * 17 % ASSETS) {
        // Near both ends, at the edges of pages and blocks, and in between.
        let at = match n {
            0..8 => n,
            8..16 => SIZE_BYTES - (n - 7),
            16..24 => (n - 15) * 16_384 - 1 + n % 3,
            _ => n * 3_701,
        };
        emulator.clear_faults();
        let ino = bench.lookup(VIDEO, &format!("{n}.mp4")).unwrap().ino;
        emulator.add_fault(cut(HostKind::Asset, "", at));
        let bytes = bench.read_part(ino, 0, SIZE_BYTES as u32).unwrap();
        assert_eq!(bytes.len() as u64, SIZE_BYTES, "cut after {at}");
        assert!(content(n).verify(0, &bytes), "cut after {at}");
        assert_eq!(emulator.fault_hits(), 1, "cut after {at}");
    }
}

#[test]
fn a_page_that_breaks_off_anywhere_is_listed_whole() {
    let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
    for n in 0..3 {
        let content = Content::synthetic(1_000, n);
        emulator.add_runway(RunwayAsset::named(&format!("{n}.mp4"), content.clone()));
        emulator.add_ltx(LtxAsset::new("video/mp4", content));
    }
    let state = tempfile::tempdir().unwrap();
    let mut settings = Settings::of(&emulator, Duration::from_secs(40));
    settings.listing_ttl = Duration::ZERO;
    let bench = Bench::mount(&emulator, &state, &settings);
    for (library, page) in [
        (VIDEO, "/v1/runwayml/assets/?offset=0"),
        (Library::LtxVideos, "/v1/ltxstudio/assets/?page=1"),
    ] {
        emulator.clear_requests();
        assert_eq!(bench.ls(library).unwrap().len(), 3);
        let requests = emulator.requests();
        let first = requests.iter().find(|r| r.path_and_query.contains(page));
        let length = first.expect("the page was asked for").bytes_sent;
        for at in (0..length).step_by(length as usize / 30) {
            emulator.clear_faults();
            emulator.add_fault(cut(HostKind::Useapi, page, at));
            assert_eq!(bench.ls(library).unwrap().len(), 3, "cut after {at}");
            assert_eq!(emulator.fault_hits(), 1, "cut after {at}");
        }
    }
}
