//! Signed URLs that expire or are refused, and redirects.

use super::*;

#[test]
fn a_refused_url_is_renewed_and_no_reader_sees_it() {
    for status in [400, 401, 403, 404, 410] {
        let rig = Rig::new();
        let (file, data) = rig.file("a", 32 * MIB);
        rig.read(&file, 0, MIB).unwrap();
        rig.host.refuse_below(2, status);
        rig.urls.renewed.store(0, Ordering::SeqCst);
        for i in 1..32 {
            assert_eq!(
                rig.read(&file, i * MIB, MIB).unwrap(),
                part(&data, i * MIB, MIB)
            );
        }
        // At most by each stream that was under way with the old one.
        let renewed = rig.urls.renewed.load(Ordering::SeqCst);
        assert!((1..=10).contains(&renewed), "{status}: {renewed}");
    }
}

#[test]
fn a_fresh_url_that_is_refused_too_is_the_end() {
    for status in [400, 401, 403, 404, 410] {
        let rig = Rig::new();
        let (file, _) = rig.file("a", MIB);
        rig.host.refuse_below(u64::MAX, status);
        let result = rig.read(&file, 0, 10);
        match (status, result) {
            (404 | 410, Err(ReadError::NotFound)) => {}
            (400 | 401 | 403, Err(ReadError::Denied(why))) => {
                assert!(why.contains(&status.to_string()), "{why}");
            }
            (_, other) => panic!("{status}: {other:?}"),
        }
        assert_eq!(rig.host.hits().len(), 2);
        assert_eq!(rig.urls.renewed.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn a_url_about_to_expire_is_renewed_before_it_is_used() {
    let clock = Arc::new(ManualClock::at(SystemTime::UNIX_EPOCH));
    let rig = Rig::at(16 * MIB, patient(), Arc::clone(&clock) as _);
    let (file, _) = rig.file("a", 4 * MIB);
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
    *rig.urls.expires_at.lock().unwrap() = Some(at);
    rig.read(&file, 0, 10).unwrap();
    clock.advance(Duration::from_secs(54));
    rig.read(&file, MIB, 10).unwrap();
    assert_eq!(rig.urls.renewed.load(Ordering::SeqCst), 0);
    clock.advance(Duration::from_secs(1));
    rig.read(&file, 2 * MIB, 10).unwrap();
    assert_eq!(rig.urls.renewed.load(Ordering::SeqCst), 1);
    assert_eq!(rig.host.hits().len(), 3);
}

#[test]
fn what_the_service_says_to_a_renewal_reaches_the_reader() {
    let rig = Rig::new();
    rig.host.refuse_below(u64::MAX, 403);
    let answer = |error: ProviderError| {
        *rig.urls.refusal.lock().unwrap() = Some(error);
        let (file, _) = rig.file("a", MIB);
        rig.read(&file, 0, 10).unwrap_err()
    };
    let gone = answer(ProviderError::NotFound);
    assert!(matches!(gone, ReadError::NotFound), "{gone:?}");
    let denied = answer(ProviderError::Denied("set USEAPI_TOKEN".into()));
    assert!(matches!(denied, ReadError::Denied(why) if why.contains("USEAPI_TOKEN")));
    let limited = answer(ProviderError::RateLimited { retry_after: None });
    assert!(matches!(limited, ReadError::RateLimited), "{limited:?}");
    let quota = answer(ProviderError::Quota("expired".into()));
    assert!(matches!(quota, ReadError::Quota(_)), "{quota:?}");
}

#[test]
fn redirects_on_the_same_host_are_followed_three_times() {
    let rig = Rig::new();
    let (file, data) = rig.file("a", MIB);
    for _ in 0..3 {
        rig.host.fault(Fault::Redirect("/a?sig=1"));
    }
    assert_eq!(rig.read(&file, 0, 10).unwrap(), data[..10]);
    assert_eq!(rig.host.hits().len(), 4);
}

#[test]
fn a_redirect_elsewhere_is_refused_at_once() {
    let rig = Rig::new();
    let (file, _) = rig.file("a", MIB);
    rig.host
        .fault(Fault::Redirect("http://127.0.0.1:1/steal?sig=1"));
    match rig.read(&file, 0, 10) {
        Err(ReadError::Unavailable(why)) => {
            assert!(
                why.contains("refused to follow") && !why.contains("sig"),
                "{why}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.host.hits().len(), 1);
}
