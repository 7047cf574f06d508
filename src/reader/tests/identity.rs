//! An object that is replaced while it is read: its bytes are never mixed.

use super::*;

fn changed(result: Result<Bytes, ReadError>) -> ObjectInfo {
    match result {
        Err(ReadError::Changed(info)) => *info,
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_etag_fails_every_read_but_what_is_cached() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", 4 * MIB);
    rig.read(&file, 0, 64 * KIB).unwrap();
    assert_eq!(file.etag().as_deref(), Some("\"v1\""));
    rig.settle();
    rig.host.change("a", |object| {
        object.etag = Some("\"v2\"");
        object.data = sample(9, 4 * MIB as usize);
    });
    let info = changed(rig.read(&file, 2 * MIB, 10));
    assert_eq!(info.etag.as_deref(), Some("\"v2\""));
    assert_eq!(
        rig.read(&file, 0, 64 * KIB).unwrap(),
        part(&data, 0, 64 * KIB)
    );
    let before = rig.host.hits().len();
    changed(rig.read(&file, 3 * MIB, 10));
    assert_eq!(rig.host.hits().len(), before);
    let reopened = rig.open("a", 4 * MIB);
    assert_eq!(rig.read(&reopened, 0, 10).unwrap(), sample(9, 10));
}

#[test]
fn a_change_in_the_middle_of_a_resumed_body_mixes_nothing() {
    let rig = Rig::new();
    let (file, _) = rig.file("a", 4 * MIB);
    rig.host.fault(Fault::SilentAfter(100_000));
    rig.host.hold();
    let read = rig.start(&file, 0, MIB);
    rig.until_hits(1);
    rig.host.change("a", |object| object.etag = Some("\"v2\""));
    rig.host.release();
    // The first answer pins v2 and goes silent; another request then meets v3.
    let small = rig.start(&file, 0, 50_000);
    wait(&small).unwrap();
    rig.host.change("a", |object| object.etag = Some("\"v3\""));
    changed(rig.read(&file, 2 * MIB, 10));
    changed(wait(&read));
}

#[test]
fn an_expected_etag_is_compared_with_the_first_answer() {
    let rig = Rig::new();
    rig.file("a", MIB);
    let expecting = |etag: &str| {
        let file = rig
            .reader
            .remote_file(key("a"), MIB, Some(etag.to_string()));
        rig.read(&file, 0, 10)
    };
    expecting("\"v1\"").unwrap();
    changed(expecting("\"v0\""));
}

#[test]
fn another_size_is_another_object() {
    let rig = Rig::new();
    let (_, _) = rig.file("a", MIB);
    for (wrong, offset) in [(2 * MIB, 0), (MIB / 2, 0), (2 * MIB, MIB + 5)] {
        let file = rig.open("a", wrong);
        assert_eq!(changed(rig.read(&file, offset, 10)).size_bytes, MIB);
    }
}

#[test]
fn without_etags_another_last_modified_is_another_object() {
    let rig = Rig::new();
    let (file, _) = rig.file("a", 4 * MIB);
    rig.host.change("a", |object| object.etag = None);
    rig.read(&file, 0, 10).unwrap();
    rig.read(&file, 2 * MIB, 10).unwrap();
    rig.host.change("a", |object| {
        object.last_modified = "Mon, 07 Nov 1994 08:49:37 GMT";
    });
    changed(rig.read(&file, 3 * MIB, 10));
}

#[test]
fn the_first_answer_is_remembered() {
    let rig = Rig::new();
    let (file, _) = rig.file("a", MIB);
    assert_eq!(file.info(), None);
    rig.read(&file, 0, 10).unwrap();
    let info = file.info().unwrap();
    assert_eq!(info.size_bytes, MIB);
    assert_eq!(info.content_type.as_deref(), Some("video/mp4"));
    assert!(info.last_modified.is_some());
}
