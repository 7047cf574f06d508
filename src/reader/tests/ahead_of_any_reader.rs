//! Bytes fetched before anybody reads them.

use super::*;

fn whole(file: &RemoteFile) -> ByteRange {
    ByteRange::new(0, file.size_bytes())
}

#[test]
fn what_was_fetched_ahead_is_read_without_a_request() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", 3 * MIB + 5);
    assert_eq!(rig.reader.prefetch(&file, whole(&file)), Prefetch::Taken);
    rig.settle();
    rig.expect_in_order(&file, &data, 128 * KIB);
    assert_eq!(rig.host.hits().len(), 1);
    assert_eq!(rig.reader.stats().misses, 0);
}

#[test]
fn a_read_shares_what_is_on_its_way_and_does_not_end_it() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", 2 * MIB);
    rig.host.hold();
    rig.reader.prefetch(&file, whole(&file));
    let first = rig.start(&file, 0, 64 * KIB);
    let again = rig.reader.prefetch(&file, whole(&file));
    assert_eq!(again, Prefetch::Taken);
    rig.host.release();
    assert_eq!(wait(&first).unwrap(), part(&data, 0, 64 * KIB));
    rig.settle();
    assert_eq!(rig.read(&file, MIB, MIB).unwrap(), part(&data, MIB, MIB));
    assert_eq!(rig.host.hits().len(), 1);
}

#[test]
fn closing_the_file_ends_it() {
    let rig = Rig::new();
    let (file, _) = rig.file("a", 4 * MIB);
    rig.host.hold();
    rig.reader.prefetch(&file, whole(&file));
    rig.until_streams(1);
    rig.reader.close(&file);
    rig.settle();
    rig.host.release();
}

#[test]
fn an_eighth_of_the_memory_is_under_way_at_most() {
    let rig = Rig::with(16 * MIB, patient());
    let files: Vec<_> = (0..3)
        .map(|n| rig.file(&format!("{n}"), 4 * MIB).0)
        .collect();
    rig.host.hold();
    let taken: Vec<_> = files
        .iter()
        .map(|file| rig.reader.prefetch(file, whole(file)))
        .collect();
    assert_eq!(taken, [Prefetch::Taken, Prefetch::Taken, Prefetch::Refused]);
    rig.host.release();
    rig.settle();
    let now = rig.reader.prefetch(&files[2], whole(&files[2]));
    assert_eq!(now, Prefetch::Taken);
    rig.settle();
    assert_eq!(rig.host.hits().len(), 3);
}

#[test]
fn a_host_that_ignores_ranges_is_read_ahead_too() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", 2 * MIB);
    rig.host.change("a", |object| object.ignores_ranges = true);
    rig.reader.prefetch(&file, whole(&file));
    rig.settle();
    rig.expect_in_order(&file, &data, MIB);
    assert_eq!(rig.host.hits().len(), 1);
}

#[test]
fn a_failure_is_left_to_the_read() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", MIB);
    rig.host.fault(Fault::Status(404, None));
    rig.host.fault(Fault::Status(404, None));
    rig.reader.prefetch(&file, whole(&file));
    rig.settle();
    assert_eq!(rig.read(&file, 0, 4096).unwrap(), part(&data, 0, 4096));
}

#[test]
fn the_first_read_of_a_head_brings_256_kib_and_one_elsewhere_what_it_asks() {
    let rig = Rig::new();
    let (file, _) = rig.file("a", 32 * MIB);
    rig.read(&file, 0, 4096).unwrap();
    rig.settle();
    assert_eq!(rig.host.sent_bytes(), 256 * KIB);
    rig.read(&file, 9 * MIB, 4096).unwrap();
    rig.settle();
    assert_eq!(rig.host.sent_bytes(), 260 * KIB);
}

#[test]
fn whoever_looks_at_the_other_end_does_not_lose_the_head() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", 32 * MIB);
    rig.host.hold();
    let head = rig.start(&file, 0, 4096);
    let tail = rig.start(&file, 32 * MIB - 4096, 4096);
    let middle = rig.start(&file, 9 * MIB, 4096);
    rig.host.release();
    for (read, at) in [(&head, 0), (&tail, 32 * MIB - 4096), (&middle, 9 * MIB)] {
        assert_eq!(wait(read).unwrap(), part(&data, at, 4096));
    }
    rig.settle();
    let rest = rig.read(&file, 64 * KIB, 192 * KIB).unwrap();
    assert_eq!(rest, part(&data, 64 * KIB, 192 * KIB));
    assert_eq!(rig.host.hits().len(), 3);
}
