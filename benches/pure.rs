//! How long the pure parts take: `cargo bench`. No network, no mount, no file.

// A bench that can't be set up is to stop.
#![allow(clippy::expect_used)]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use reelfs::cache::{BlockCache, SLOT_BYTES, Touch};
use reelfs::clock::SystemClock;
use reelfs::http::{ApiClient, ApiToken, Deadlines};
use reelfs::provider::Library;
use reelfs::provider::runway::RunwayProvider;
use reelfs::range::{ByteRange, ContentRange};
use reelfs::reader::window::{Order, Windows};
use reelfs::tree::name::unique_names;
use serde_json::{Value, json};
use url::Url;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// One read and what it makes the engine ask for.
fn read(windows: &mut Windows, range: ByteRange, size: u64) -> u64 {
    if windows.on_read(&range) == Order::Continues {
        windows.set_window(windows.wish());
    }
    let mut asked = 0;
    while let Some(stripe) = windows.next_stripe(size, asked) {
        windows.planned(&stripe);
        asked += stripe.len();
    }
    asked
}

fn windows(c: &mut Criterion) {
    let size = 1024 * MIB;
    let mut group = c.benchmark_group("windows");
    group.throughput(Throughput::Elements(1024));
    group.bench_function("1,024 reads in order", |b| {
        b.iter(|| {
            let mut windows = Windows::default();
            for at in 0..1024 {
                black_box(read(&mut windows, ByteRange::at(at * MIB, MIB), size));
            }
        });
    });
    group.bench_function("1,024 reads at eight places in turn", |b| {
        b.iter(|| {
            let mut windows = Windows::default();
            for step in 0..128 {
                for place in 0..8 {
                    let range = ByteRange::at(place * 128 * MIB + step * MIB, MIB);
                    black_box(read(&mut windows, range, size));
                }
            }
        });
    });
    group.finish();
}

fn filled(block: &Bytes, blocks: u64) -> BlockCache {
    let mut cache = BlockCache::new(128 * MIB);
    for n in 0..blocks {
        cache.insert(1, n * SLOT_BYTES, block.clone());
    }
    cache
}

fn cache(c: &mut Criterion) {
    let block = Bytes::from(vec![7; SLOT_BYTES as usize]);
    let piece = block.slice(..64 * KIB as usize);
    let mut group = c.benchmark_group("cache");
    let mut full = filled(&block, 127);
    group.bench_function("a hit in one block", |b| {
        let range = ByteRange::at(50 * MIB + 100 * KIB, 128 * KIB);
        b.iter(|| full.pieces(1, black_box(&range), Touch::Use));
    });
    let mut next = 127;
    group.bench_function("a block that pushes another out", |b| {
        b.iter(|| {
            next += 1;
            full.insert(1, next * SLOT_BYTES, block.clone());
        });
    });
    group.bench_function("sixteen pieces of one block, out of order", |b| {
        b.iter_batched_ref(
            || BlockCache::new(128 * MIB),
            |cache| {
                for n in 0..16 {
                    cache.insert(1, (n * 7 % 16) * 64 * KIB, piece.clone());
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn ranges(c: &mut Criterion) {
    let mut group = c.benchmark_group("ranges");
    group.bench_function("sixty-four holes in a range", |b| {
        let holes: Vec<ByteRange> = (0..64).map(|n| ByteRange::at(n * 1000, 500)).collect();
        b.iter(|| {
            let mut gaps = vec![ByteRange::new(0, 64_000)];
            for hole in &holes {
                gaps = gaps.iter().flat_map(|gap| gap.minus(hole)).collect();
            }
            black_box(gaps.len())
        });
    });
    group.bench_function("a Content-Range", |b| {
        b.iter(|| ContentRange::parse(black_box("bytes 1048576-2097151/134217728")));
    });
    group.finish();
}

fn page_of(assets: usize) -> Vec<u8> {
    let asset = |n: usize| {
        json!({
            "assetId": format!("user:1-runwayml:me-asset:{n:08x}"),
            "id": format!("{n:08x}-0d44-4b50-8888-8dd25736052a"),
            "createdAt": "2024-08-01T01:02:03.456Z",
            "updatedAt": "2024-08-01T01:02:03.456Z",
            "name": format!("Race car, take {n}.mp4"),
            "url": format!("https://cdn.example/assets/{n:08x}.mp4?_jwt=abc.def.ghi"),
            "previewUrls": [format!("https://cdn.example/previews/{n:08x}.jpg?_jwt=abc.def.ghi")],
            "mediaType": "video",
            "fileSize": 123_456 + n,
            "fileExtStandardized": "mp4",
            "metadata": { "duration": 10.5, "frameRate": 24, "dimensions": [1280, 720] },
        })
    };
    let page: Vec<Value> = (0..assets).map(asset).collect();
    serde_json::to_vec(&page).expect("a page of plain values")
}

fn listings(c: &mut Criterion) {
    let base = Url::parse("https://api.useapi.net").expect("a URL");
    let token = ApiToken::new("token").expect("a token");
    let api = ApiClient::new(base, token, Deadlines::default(), Arc::new(SystemClock));
    let provider = RunwayProvider::new(api.expect("a client"), None);
    let page = page_of(100);
    let mut group = c.benchmark_group("listings");
    group.throughput(Throughput::Bytes(page.len() as u64));
    group.bench_function("a page of 100 assets", |b| {
        b.iter(|| {
            let page: Value = serde_json::from_slice(black_box(&page)).expect("JSON");
            let assets = provider.assets_of(page, Library::RunwayVideo);
            assert_eq!(assets.expect("a page").len(), 100);
        });
    });
    let names: Vec<(String, String)> = (0..10_000)
        .map(|n| (format!("clip {}.mp4", n / 3), format!("{n:08x}")))
        .collect();
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("names for 10,000 assets, three of each", |b| {
        b.iter(|| unique_names(names.iter().map(|(name, id)| (name.as_str(), id.as_str()))));
    });
    group.finish();
}

criterion_group!(pure, windows, cache, ranges, listings);
criterion_main!(pure);
