//! What the engine holds, by its own count, while many read at once.

use super::*;
use std::collections::VecDeque;

const CACHE: u64 = 32 * MIB;

/// The most that `rig` ever held while `work` ran: what the cache has and promised, and blocks.
fn most_held(rig: &Rig, work: impl FnOnce()) -> (u64, u64) {
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut cached, mut held) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                let stats = rig.reader.stats();
                cached = stats.cached_bytes.max(cached);
                held = stats.held_bytes.max(held);
                std::thread::yield_now();
            }
            (cached, held)
        });
        work();
        over.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    })
}

#[test]
fn sixty_four_readers_of_as_many_files_stay_within_the_memory() {
    let rig = Rig::with(CACHE, patient());
    let size = 3 * MIB;
    let data = sample(1, (size + 64 * 4096) as usize);
    let files: Vec<_> = (0..64)
        .map(|n| {
            let own = data.slice((n * 4096) as usize..(n * 4096 + size) as usize);
            let name = format!("file-{n}");
            rig.host.put(&name, own.clone());
            (rig.open(&name, size), own)
        })
        .collect();
    let step = 256 * KIB;
    let (cached, held) = most_held(&rig, || {
        for at in (0..size).step_by(step as usize) {
            let mut reads: VecDeque<_> = files
                .iter()
                .map(|(file, own)| (rig.start(file, at, step), own))
                .collect();
            while let Some((read, own)) = reads.pop_front() {
                assert_eq!(wait(&read).unwrap(), part(own, at, step));
            }
        }
    });
    assert!(cached <= CACHE, "{cached}");
    // 64 answers wait in this test until it takes them; a sixteenth of the cache may lie spare.
    let answers = 64 * step;
    assert!(held <= CACHE + answers + CACHE / 16, "{held}");
}

#[test]
fn a_reader_in_order_stays_within_the_memory() {
    let rig = Rig::with(CACHE, patient());
    let (file, data) = rig.file("a", 64 * MIB);
    let (cached, held) = most_held(&rig, || rig.expect_in_order(&file, &data, MIB));
    assert!(cached <= CACHE, "{cached}");
    assert!(held <= CACHE + MIB + CACHE / 16, "{held}");
}

#[test]
fn what_was_read_is_counted_until_its_last_part_is_dropped() {
    let rig = Rig::with(4 * MIB, patient());
    let (file, data) = rig.file("a", 40 * MIB);
    let kept: Vec<Bytes> = (0..8)
        .map(|n| rig.read(&file, n * MIB, MIB).unwrap())
        .collect();
    for (n, bytes) in (0..8).zip(&kept) {
        assert_eq!(*bytes, part(&data, n * MIB, MIB));
    }
    assert!(rig.reader.stats().held_bytes >= 8 * MIB);
    drop(kept);
    rig.reader.close(&file);
    rig.settle();
    assert!(rig.reader.stats().held_bytes <= 4 * MIB + MIB / 4);
}
