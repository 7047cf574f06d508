//! Asking for size, ETag and time alone.

use super::*;

#[test]
fn a_probe_tells_size_etag_and_time_for_one_byte() {
    let rig = Rig::new();
    rig.file("a", 3 * MIB + 1);
    let info = rig.probe("a").unwrap();
    assert_eq!(info.size_bytes, 3 * MIB + 1);
    assert_eq!(info.etag.as_deref(), Some("\"v1\""));
    assert!(info.last_modified.is_some());
    assert_eq!(rig.host.sent_bytes(), 1);
}

#[test]
fn probes_of_one_asset_are_one_request() {
    let rig = Rig::new();
    rig.file("a", MIB);
    rig.host.hold();
    let probes: Vec<_> = (0..20).map(|_| rig.start_probe("a")).collect();
    rig.until_hits(1);
    rig.host.release();
    for probe in &probes {
        assert_eq!(wait(probe).unwrap().size_bytes, MIB);
    }
    assert_eq!(rig.host.hits().len(), 1);
    rig.probe("a").unwrap();
    assert_eq!(rig.host.hits().len(), 2);
}

#[test]
fn a_thousand_probes_share_a_bounded_number_of_connections() {
    let rig = Rig::new();
    let names: Vec<String> = (0..1000).map(|i| format!("asset-{i}")).collect();
    for (size, name) in (1..).zip(&names) {
        rig.host.put(name, sample(1, size));
    }
    let probes: Vec<_> = names.iter().map(|name| rig.start_probe(name)).collect();
    for (size, probe) in (1..).zip(&probes) {
        assert_eq!(wait(probe).unwrap().size_bytes, size);
    }
    assert_eq!(rig.host.hits().len(), 1000);
    let connections = rig.host.connections();
    assert!(connections <= 512, "{connections}");
}

#[test]
fn an_empty_object_is_empty() {
    let rig = Rig::new();
    rig.file("a", 0);
    assert_eq!(rig.probe("a").unwrap().size_bytes, 0);
}

#[test]
fn a_host_that_ignores_ranges_is_asked_for_no_more_than_it_must_send() {
    for tells_length in [true, false] {
        let rig = Rig::new();
        rig.file("a", 3 * MIB);
        rig.host.change("a", |object| {
            object.ignores_ranges = true;
            object.tells_length = tells_length;
        });
        assert_eq!(rig.probe("a").unwrap().size_bytes, 3 * MIB);
        let counted = rig.reader.stats().fetched_bytes;
        assert_eq!(counted, if tells_length { 0 } else { 3 * MIB });
    }
}

#[test]
fn troubles_of_a_probe_are_retried_renewed_or_told() {
    let rig = Rig::new();
    rig.file("a", MIB);
    for fault in [
        Fault::Status(503, None),
        Fault::Drop,
        Fault::HtmlChunked,
        Fault::Header("content-range", "bytes 0-0/*"),
    ] {
        rig.host.fault(fault);
        assert_eq!(rig.probe("a").unwrap().size_bytes, MIB);
    }
    rig.host.refuse_below(2, 403);
    assert_eq!(rig.probe("a").unwrap().size_bytes, MIB);
    rig.host.remove("a");
    assert!(matches!(rig.probe("a"), Err(ReadError::NotFound)));
}

#[test]
fn a_probe_of_a_silent_host_ends_at_the_deadline() {
    let rig = Rig::hasty();
    rig.file("a", MIB);
    rig.host.always(Some(Fault::Silent));
    assert!(matches!(rig.probe("a"), Err(ReadError::Unavailable(_))));
}
