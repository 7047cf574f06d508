//! Hosts that break off, are silent, refuse or are gone: what the reader sees of it, and when.

use super::*;

#[test]
fn a_body_that_breaks_is_resumed_at_the_byte_reached() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", 4 * MIB);
    rig.host.fault(Fault::CutAfter(100_000));
    rig.host.fault(Fault::Drop);
    rig.host.fault(Fault::Short(50_000));
    assert_eq!(rig.read(&file, 0, MIB).unwrap(), part(&data, 0, MIB));
    let starts: Vec<u64> = rig.host.hits().iter().map(|h| h.range.start).collect();
    assert_eq!(starts[0], 0);
    assert!(starts[1] <= 100_000 && starts[2] == starts[1]);
    assert_eq!(starts[3], starts[2] + 50_000);
}

#[test]
fn passing_troubles_are_not_seen_by_the_reader() {
    for fault in [
        Fault::Status(408, None),
        Fault::Status(429, Some(0)),
        Fault::Status(500, None),
        Fault::Status(503, Some(1)),
        Fault::Drop,
        Fault::Html,
        Fault::HtmlChunked,
        Fault::Empty,
        Fault::Header("content-range", ""),
        Fault::Header("content-range", "bytes 0-9/2097152"),
        Fault::Header("content-encoding", "gzip"),
        Fault::Header("etag", ""),
        Fault::Redirect(""),
    ] {
        let rig = Rig::new();
        let (file, data) = rig.file("a", 2 * MIB);
        rig.read(&file, 0, 10).unwrap();
        rig.host.fault(fault.clone());
        let got = rig.read(&file, MIB, 64 * KIB);
        assert_eq!(got.unwrap(), part(&data, MIB, 64 * KIB), "{fault:?}");
        assert_eq!(rig.host.hits().len(), 3, "{fault:?}");
    }
}

#[test]
fn a_part_of_a_whole_whose_size_the_host_leaves_open_is_taken() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", 2 * MIB);
    rig.read(&file, 0, 10).unwrap();
    let part_of_unknown = Fault::Header("content-range", "bytes 1048576-1114111/*");
    rig.host.fault(part_of_unknown);
    let got = rig.read(&file, MIB, 64 * KIB);
    assert_eq!(got.unwrap(), part(&data, MIB, 64 * KIB));
    assert_eq!(rig.host.hits().len(), 2);
}

#[test]
fn a_host_that_sends_short_parts_is_asked_for_the_rest() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", 2 * MIB);
    rig.host.always(Some(Fault::Short(100_000)));
    assert_eq!(rig.read(&file, 0, MIB).unwrap(), part(&data, 0, MIB));
    assert_eq!(rig.host.hits().len(), MIB.div_ceil(100_000) as usize);
}

#[test]
fn a_silent_host_is_given_up_and_asked_again() {
    for fault in [Fault::Silent, Fault::SilentAfter(70_000)] {
        let mut deadlines = patient();
        (deadlines.connect, deadlines.stall) =
            (Duration::from_millis(200), Duration::from_millis(200));
        let rig = Rig::with(64 * MIB, deadlines);
        let (file, data) = rig.file("a", 2 * MIB);
        rig.host.fault(fault);
        assert_eq!(rig.read(&file, 0, MIB).unwrap(), part(&data, 0, MIB));
    }
}

#[test]
fn troubles_that_stay_end_at_the_deadline_with_their_reason() {
    for (fault, words) in [
        (Fault::Status(500, None), "answered 500"),
        (Fault::Drop, "broke"),
        (Fault::Silent, "did not answer in time"),
        (Fault::SilentAfter(0), "did not answer in time"),
        (Fault::HtmlChunked, "a page of text"),
        (Fault::Empty, "nothing where an asset was expected"),
        (
            Fault::Header("content-range", "bytes 9-9/2097152"),
            "another part",
        ),
    ] {
        let rig = Rig::hasty();
        let (file, _) = rig.file("a", 2 * MIB);
        rig.host.always(Some(fault.clone()));
        match rig.read(&file, 0, MIB) {
            Err(ReadError::Unavailable(why)) => assert!(why.contains(words), "{why}"),
            other => panic!("{fault:?}: {other:?}"),
        }
    }
}

#[test]
fn a_host_that_cannot_be_reached_is_unavailable() {
    let rig = Rig::hasty();
    let (file, _) = rig.file("a", 2 * MIB);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("http://{}/a?sig=secret", nobody.local_addr().unwrap());
    drop(nobody);
    let policy = UrlPolicy::for_api(&Url::parse(&rig.urls.base).unwrap());
    file.lock().url = Some(SignedUrl::parse(&target, None, &policy).unwrap());
    match rig.read(&file, 0, 10) {
        Err(ReadError::Unavailable(why)) => {
            assert!(
                why.contains("cannot connect") && !why.contains("secret"),
                "{why}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rate_limit_that_stays_is_told_apart() {
    let rig = Rig::hasty();
    let (file, _) = rig.file("a", 2 * MIB);
    rig.host.always(Some(Fault::Status(429, Some(1))));
    let result = rig.read(&file, 0, 10);
    assert!(matches!(result, Err(ReadError::RateLimited)), "{result:?}");
    assert!(rig.host.hits().len() <= 2, "Retry-After was obeyed");
}

#[test]
fn after_a_failure_the_next_read_tries_again() {
    let rig = Rig::hasty();
    let (file, data) = rig.file("a", 2 * MIB);
    rig.host.always(Some(Fault::Status(500, None)));
    rig.read(&file, 0, 10).unwrap_err();
    rig.host.always(None);
    assert_eq!(rig.read(&file, 0, 10).unwrap(), part(&data, 0, 10));
}

#[test]
fn reads_that_are_not_admitted_end_at_the_deadline_too() {
    let rig = Rig::with(4 * MIB, hasty());
    let (file, _) = rig.file("a", 64 * MIB);
    rig.host.hold();
    let reads: Vec<_> = (0..30)
        .map(|i| rig.start(&file, i * 2 * MIB, MIB))
        .collect();
    for read in &reads {
        assert!(matches!(wait(read), Err(ReadError::Unavailable(_))));
    }
    rig.host.release();
}

#[test]
fn one_service_that_hangs_does_not_hold_up_another() {
    let rig = Rig::with(4 * MIB, patient());
    let (stuck, _) = rig.file("stuck", 64 * MIB);
    rig.host.always(Some(Fault::Silent));
    let reads: Vec<_> = (0..30)
        .map(|i| rig.start(&stuck, i * 2 * MIB, MIB))
        .collect();
    rig.until_hits(4);
    rig.host.always(None);
    let data = sample(1, MIB as usize);
    rig.host.put("other", data.clone());
    let other = AssetKey {
        service: Service::Ltx,
        id: AssetId::new("other"),
    };
    let other = rig.reader.remote_file(other, MIB, None);
    assert_eq!(rig.read(&other, 0, MIB).unwrap(), data);
    assert!(reads.iter().all(|read| read.try_recv().is_err()));
}

#[test]
fn dropping_the_reader_answers_everybody_once() {
    let rig = Rig::with(4 * MIB, patient());
    let (file, _) = rig.file("a", 64 * MIB);
    rig.host.hold();
    let reads: Vec<_> = (0..30)
        .map(|i| rig.start(&file, i * 2 * MIB, MIB))
        .collect();
    let probe = rig.start_probe("a");
    rig.until_hits(5);
    let Rig { reader, .. } = &rig;
    reader.owner.engine.shut_down();
    let unmounted = |error: ReadError| match error {
        ReadError::Unavailable(why) => assert_eq!(&*why, "unmounted"),
        other => panic!("{other:?}"),
    };
    reads
        .iter()
        .for_each(|read| unmounted(wait(read).unwrap_err()));
    unmounted(wait(&probe).unwrap_err());
    unmounted(rig.read(&file, 0, 10).unwrap_err());
    unmounted(rig.probe("a").unwrap_err());
    rig.settle();
    assert_eq!(rig.reader.stats().cached_bytes, 0);
}

#[test]
fn the_last_reader_may_be_dropped_by_a_callback() {
    let rig = Rig::new();
    rig.host.put("a", sample(1, MIB as usize));
    let config = ReaderConfig {
        cache_bytes: MIB,
        deadlines: patient(),
    };
    let reader =
        AssetReader::new(config, Arc::clone(&rig.urls) as _, Arc::new(SystemClock)).unwrap();
    // A file belongs to the reader that made it, and so does the memory it counts.
    let file = reader.remote_file(key("a"), MIB, None);
    let (send, receive) = mpsc::channel();
    let last = reader.clone();
    let done = move |result: Result<Bytes, ReadError>| {
        drop(last);
        send.send(result.map(|bytes| bytes.len())).unwrap();
    };
    rig.host.hold();
    reader.read(&file, 0, 10, Box::new(done));
    drop(reader);
    rig.host.release();
    assert_eq!(receive.recv_timeout(PATIENCE).unwrap().unwrap(), 10);
}
