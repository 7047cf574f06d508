//! Exact bytes, and no more requests and bytes than they are worth.

use super::*;

#[test]
fn reading_in_order_gives_every_byte_once() {
    for step in [128 * KIB, MIB, 777_777] {
        let rig = Rig::new();
        let (file, data) = rig.file("a", 24 * MIB + 4321);
        rig.expect_in_order(&file, &data, step);
        rig.settle();
        assert_eq!(rig.host.sent_bytes(), data.len() as u64, "step {step}");
    }
}

#[test]
fn reads_beyond_the_end_are_empty_and_across_it_cut() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", 100_000);
    assert_eq!(rig.read(&file, 99_999, 10).unwrap(), data[99_999..]);
    for offset in [100_000, 100_001, u64::MAX] {
        assert!(rig.read(&file, offset, 10).unwrap().is_empty());
    }
    let (empty, _) = rig.file("empty", 0);
    assert!(rig.read(&empty, 0, 10).unwrap().is_empty());
    assert_eq!(rig.host.hits().len(), 1);
}

#[test]
fn random_reads_are_exact_and_cost_at_most_twice_the_bytes() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", 48 * MIB + 17);
    let (mut random, mut asked) = (Random::new(), 0);
    for _ in 0..150 {
        let offset = random.below(data.len() as u64);
        let len = 64 * KIB;
        assert_eq!(
            rig.read(&file, offset, len).unwrap(),
            part(&data, offset, len)
        );
        asked += len;
    }
    rig.settle();
    assert!(rig.host.sent_bytes() <= 2 * asked + MIB);
}

#[test]
fn many_readers_of_all_kinds_at_once_get_their_own_bytes() {
    let rig = Rig::with(16 * MIB, patient());
    let files: Vec<_> = ["a", "bb", "ccc"]
        .iter()
        .map(|name| rig.file(name, 20 * MIB + 99))
        .collect();
    let mut random = Random::new();
    let seeds: Vec<u64> = (0..12).map(|_| random.below(u64::MAX) | 1).collect();
    std::thread::scope(|scope| {
        for (number, seed) in seeds.into_iter().enumerate() {
            let (rig, (file, data)) = (&rig, &files[number % 3]);
            scope.spawn(move || {
                let mut random = Random(seed);
                let mut at = random.below(data.len() as u64);
                for _ in 0..60 {
                    let len = 1 + random.below(MIB);
                    let got = rig.read(file, at, len).unwrap();
                    assert_eq!(got, part(data, at, len), "at {at}, {len} bytes");
                    at += len;
                    if random.below(8) == 0 || at >= data.len() as u64 {
                        at = random.below(data.len() as u64);
                    }
                }
            });
        }
    });
    rig.settle();
    assert!(rig.reader.stats().cached_bytes <= 16 * MIB);
}

#[test]
fn two_interleaved_readers_fetch_nothing_twice() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", 40 * MIB);
    for step in 0..64 {
        for start in [0, 20 * MIB] {
            let at = start + step * 128 * KIB;
            assert_eq!(
                rig.read(&file, at, 128 * KIB).unwrap(),
                part(&data, at, 128 * KIB)
            );
        }
    }
    rig.settle();
    let sent = rig.host.sent_bytes();
    assert!(sent <= data.len() as u64, "{sent}: {:?}", rig.host.hits());
}

#[test]
fn readers_of_the_same_bytes_share_one_flight() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", 8 * MIB);
    rig.host.hold();
    let reads: Vec<_> = (0..50)
        .map(|i| rig.start(&file, 4096 * i, 4096 * (60 - i)))
        .collect();
    rig.until_hits(1);
    rig.host.release();
    for (i, read) in (0..).zip(&reads) {
        assert_eq!(wait(read).unwrap(), part(&data, 4096 * i, 4096 * (60 - i)));
    }
    rig.settle();
    assert_eq!(rig.host.sent_bytes(), 256 * KIB, "what a head brings");
}

#[test]
fn what_was_read_is_answered_again_without_a_request_or_another_thread() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", 3 * MIB);
    rig.expect_in_order(&file, &data, MIB);
    rig.settle();
    rig.reader.close(&file);
    let before = rig.host.hits().len();
    let (send, answered) = mpsc::channel();
    let caller = std::thread::current().id();
    let done = move |result: Result<Bytes, ReadError>| {
        send.send((result.unwrap(), std::thread::current().id() == caller))
            .unwrap();
    };
    rig.reader.read(&file, MIB / 2, MIB as u32, Box::new(done));
    assert_eq!(
        answered.try_recv().unwrap(),
        (part(&data, MIB / 2, MIB), true)
    );
    assert_eq!(rig.host.hits().len(), before);
}

#[test]
fn a_reader_is_answered_before_its_block_is_full() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", 4 * MIB);
    rig.host.fault(Fault::SilentAfter(128 * KIB as usize));
    let whole = rig.start(&file, 0, MIB);
    let head = rig.start(&file, 4096, 64 * KIB);
    assert_eq!(wait(&head).unwrap(), part(&data, 4096, 64 * KIB));
    assert!(whole.try_recv().is_err());
}

#[test]
fn looking_at_the_head_does_not_pull_megabytes() {
    let rig = Rig::new();
    let (file, _) = rig.file("a", 40 * MIB);
    for i in 0..4 {
        rig.read(&file, i * 64 * KIB, 64 * KIB).unwrap();
    }
    rig.settle();
    assert!(rig.host.sent_bytes() <= MIB, "{}", rig.host.sent_bytes());
    assert!(rig.host.hits().len() <= 4, "{:?}", rig.host.hits());
}

#[test]
fn one_small_read_is_one_small_request() {
    let rig = Rig::new();
    let (file, _) = rig.file("a", 40 * MIB);
    rig.read(&file, 5_000_001, 100).unwrap();
    rig.settle();
    let hits = rig.host.hits();
    assert_eq!(hits.len(), 1);
    assert_eq!(hits[0].range, ByteRange::at(4_997_120, 4096));
}

#[test]
fn reading_in_order_uses_several_connections_and_few_requests() {
    let rig = Rig::with(256 * MIB, patient());
    let (file, data) = rig.file("a", 96 * MIB);
    rig.expect_in_order(&file, &data, MIB);
    rig.settle();
    let hits = rig.host.hits().len();
    assert!(hits <= 72, "{hits} requests for 96 MiB");
    // Sixteen, and where one is not free again when the next request begins, another.
    let connections = rig.host.connections();
    assert!((4..=20).contains(&connections), "{connections} connections");
}

#[test]
fn head_then_tail_is_two_requests() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", 40 * MIB);
    rig.read(&file, 0, 64 * KIB).unwrap();
    rig.settle();
    let tail = 40 * MIB - 300 * KIB;
    for i in 0..3 {
        let at = tail + i * 100 * KIB;
        assert_eq!(
            rig.read(&file, at, 100 * KIB).unwrap(),
            part(&data, at, 100 * KIB)
        );
    }
    assert_eq!(rig.host.hits().len(), 2);
}

#[test]
fn closing_ends_what_was_read_ahead_but_not_a_waiting_read() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", 100 * MIB);
    for i in 0..2 {
        rig.read(&file, i * MIB, MIB).unwrap();
    }
    rig.settle();
    rig.host.always(Some(Fault::Silent));
    rig.read(&file, 2 * MIB, 8 * MIB).unwrap();
    let waiting = rig.start(&file, 98 * MIB, 64 * KIB);
    until(|| {
        rig.host
            .hits()
            .iter()
            .any(|hit| hit.range.start == 98 * MIB)
    });
    assert!(rig.reader.stats().active_streams > 1);
    rig.reader.close(&file);
    rig.until_streams(1);
    rig.host.always(None);
    let far = rig.read(&file, 90 * MIB, 64 * KIB);
    assert_eq!(far.unwrap(), part(&data, 90 * MIB, 64 * KIB));
    assert!(waiting.try_recv().is_err());
}

#[test]
fn more_reads_than_memory_wait_their_turn() {
    let rig = Rig::with(4 * MIB, patient());
    let (file, data) = rig.file("a", 64 * MIB);
    rig.host.hold();
    let reads: Vec<_> = (0..48)
        .map(|i| (i * MIB + 4096, rig.start(&file, i * MIB + 4096, 512 * KIB)))
        .collect();
    rig.until_hits(8);
    assert!(rig.reader.stats().cached_bytes <= 12 * MIB);
    rig.host.release();
    for (at, read) in &reads {
        assert_eq!(wait(read).unwrap(), part(&data, *at, 512 * KIB));
    }
    rig.settle();
    assert!(rig.reader.stats().cached_bytes <= 4 * MIB);
}

#[test]
fn a_cache_of_nothing_still_reads() {
    let rig = Rig::with(0, patient());
    let (file, data) = rig.file("a", 5 * MIB + 1);
    rig.expect_in_order(&file, &data, 300 * KIB);
    rig.settle();
    assert_eq!(rig.reader.stats().cached_bytes, 0);
}
