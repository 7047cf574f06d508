//! Hosts that answer every request with the whole object.

use super::*;

fn rig(len: u64, tells_length: bool) -> (Rig, Arc<RemoteFile>, Bytes) {
    let rig = Rig::with(16 * MIB, patient());
    let (file, data) = rig.file("a", len);
    rig.host.change("a", |object| {
        object.ignores_ranges = true;
        object.tells_length = tells_length;
    });
    (rig, file, data)
}

#[test]
fn reading_in_order_is_one_request() {
    for tells_length in [true, false] {
        let (rig, file, data) = rig(24 * MIB + 7, tells_length);
        rig.expect_in_order(&file, &data, 512 * KIB);
        assert_eq!(rig.host.hits().len(), 1);
    }
}

#[test]
fn a_body_that_nobody_reads_on_is_paused() {
    let (rig, file, data) = rig(200 * MIB, true);
    assert_eq!(rig.read(&file, 0, MIB).unwrap(), part(&data, 0, MIB));
    let fetched = rig.reader.stats().fetched_bytes;
    assert!(fetched < 8 * MIB, "{fetched}");
    assert_eq!(
        rig.read(&file, 9 * MIB, MIB).unwrap(),
        part(&data, 9 * MIB, MIB)
    );
    assert_eq!(rig.host.hits().len(), 1);
    rig.reader.close(&file);
    rig.settle();
    assert!(rig.host.sent_bytes() < 100 * MIB);
}

#[test]
fn a_body_is_not_kept_for_a_file_that_was_closed_before_its_answer() {
    let (rig, file, data) = rig(200 * MIB, true);
    rig.host.hold();
    let read = rig.start(&file, 0, 100 * KIB);
    rig.until_hits(1);
    rig.reader.close(&file);
    rig.host.release();
    assert_eq!(wait(&read).unwrap(), part(&data, 0, 100 * KIB));
    rig.settle();
    // So short that it is read out although nobody wants it: if it is as short as it was asked for.
    let (file, _) = rig.file("b", 200 * MIB);
    rig.host.change("b", |object| object.ignores_ranges = true);
    rig.host.hold();
    rig.reader.prefetch(&file, ByteRange::new(0, 16 * KIB));
    rig.until_hits(2);
    rig.reader.close(&file);
    rig.host.release();
    rig.settle();
    assert!(rig.host.sent_bytes() < 100 * MIB);
}

#[test]
fn reads_all_over_the_file_are_right_with_one_stream_at_a_time() {
    let (rig, file, data) = rig(30 * MIB, true);
    let mut random = Random::new();
    for _ in 0..6 {
        let places: Vec<u64> = (0..4).map(|_| random.below(30 * MIB)).collect();
        let reads: Vec<_> = places
            .iter()
            .map(|at| rig.start(&file, *at, 100_000))
            .collect();
        for (at, read) in places.iter().zip(&reads) {
            assert_eq!(wait(read).unwrap(), part(&data, *at, 100_000), "at {at}");
        }
        assert!(rig.reader.stats().active_streams <= 1);
    }
}

#[test]
fn a_broken_whole_body_is_gone_through_again() {
    let (rig, file, data) = rig(4 * MIB, false);
    rig.host.fault(Fault::CutAfter(MIB as usize));
    rig.host.fault(Fault::Drop);
    assert_eq!(
        rig.read(&file, 2 * MIB, MIB).unwrap(),
        part(&data, 2 * MIB, MIB)
    );
}

#[test]
fn a_whole_body_that_always_breaks_before_the_bytes_ends_at_the_deadline() {
    let rig = Rig::hasty();
    let (file, _) = rig.file("a", 4 * MIB);
    rig.host.change("a", |object| object.ignores_ranges = true);
    rig.host.always(Some(Fault::CutAfter(MIB as usize)));
    let result = rig.read(&file, 2 * MIB, MIB);
    assert!(
        matches!(result, Err(ReadError::Unavailable(_))),
        "{result:?}"
    );
}

#[test]
fn a_whole_body_of_another_length_is_another_object() {
    for len in [MIB - 1, MIB + 1] {
        let (rig, _, _) = rig(MIB, true);
        let file = rig.open("a", len);
        let result = rig.read(&file, 0, len);
        assert!(matches!(result, Err(ReadError::Changed(_))), "{result:?}");
    }
}
