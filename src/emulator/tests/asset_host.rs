use std::io::{Read, Write};

use super::*;

/// An emulator with one asset of ten bytes, and a URL of it.
fn ten_bytes() -> (Bench, String) {
    let bench = Bench::new();
    let asset = RunwayAsset::named("ten.mp4", Content::stored("0123456789"));
    let id = bench.emulator.add_runway(asset);
    let url = bench.emulator.signed_url(&id).unwrap();
    (bench, url)
}

#[test]
fn a_whole_object_comes_with_its_type_tag_and_time() {
    let (bench, url) = ten_bytes();
    let response = bench.asset(&url, None);
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "content-length"), "10");
    assert_eq!(header(&response, "content-type"), "video/mp4");
    assert_eq!(header(&response, "accept-ranges"), "bytes");
    assert_eq!(
        header(&response, "last-modified"),
        "Tue, 14 Nov 2023 22:13:20 GMT"
    );
    assert!(header(&response, "etag").starts_with('"'));
    assert_eq!(response.text().unwrap(), "0123456789");
}

#[test]
fn the_asset_host_is_another_origin_than_the_apis() {
    let (bench, url) = ten_bytes();
    assert!(url.starts_with(&bench.emulator.asset_url()));
    assert_ne!(bench.emulator.asset_url(), bench.emulator.useapi_url());
    assert_ne!(bench.emulator.asset_url(), bench.emulator.runflow_url());
}

#[test]
fn a_range_is_answered_with_206_and_its_place() {
    let (bench, url) = ten_bytes();
    for (range, place, bytes) in [
        ("bytes=2-4", "bytes 2-4/10", "234"),
        ("bytes=7-", "bytes 7-9/10", "789"),
        ("bytes=7-99", "bytes 7-9/10", "789"),
        ("bytes=-3", "bytes 7-9/10", "789"),
        ("bytes=0-0", "bytes 0-0/10", "0"),
    ] {
        let response = bench.asset(&url, Some(range));
        assert_eq!(response.status(), 206, "{range}");
        assert_eq!(header(&response, "content-range"), place);
        assert_eq!(response.text().unwrap(), bytes);
    }
}

#[test]
fn a_range_beyond_the_end_is_416_with_the_size() {
    let (bench, url) = ten_bytes();
    let response = bench.asset(&url, Some("bytes=10-"));
    assert_eq!(response.status(), 416);
    assert_eq!(header(&response, "content-range"), "bytes */10");

    let empty = RunwayAsset::named("empty.mp4", Content::stored(""));
    let id = bench.emulator.add_runway(empty);
    let empty = bench.emulator.signed_url(&id).unwrap();
    let response = bench.asset(&empty, Some("bytes=0-0"));
    assert_eq!(response.status(), 416);
    assert_eq!(header(&response, "content-range"), "bytes */0");
    assert_eq!(bench.asset(&empty, None).status(), 200);
}

#[test]
fn a_range_that_is_not_one_plain_range_is_refused() {
    let (bench, url) = ten_bytes();
    for bad in ["bytes=0-1,4-5", "bytes=4-2", "lines=1-2", "bytes=-"] {
        assert_eq!(bench.asset(&url, Some(bad)).status(), 400, "{bad}");
    }
}

#[test]
fn head_is_refused_and_counted() {
    let (bench, url) = ten_bytes();
    let head = bench.bare(Method::HEAD, &url).send().unwrap();
    assert_eq!(head.status(), 403);
    assert_eq!(
        bench.emulator.refusals(),
        Refusals {
            heads: 1,
            tokens: 0
        }
    );
}

#[test]
fn a_token_is_refused_and_counted() {
    let (bench, url) = ten_bytes();
    let request = bench.bare(Method::GET, &url).bearer_auth("any");
    assert_eq!(request.send().unwrap().status(), 400);
    assert_eq!(
        bench.emulator.refusals(),
        Refusals {
            heads: 0,
            tokens: 1
        }
    );
}

#[test]
fn a_tampered_or_unsigned_url_is_403() {
    let (bench, url) = ten_bytes();
    let (path, _) = url.split_once('?').unwrap();
    for bad in [
        path.to_string(),
        format!("{url}0"),
        url.replace("ten.mp4", "ten.mp5"),
    ] {
        assert_eq!(bench.asset(&bad, None).status(), 403, "{bad}");
    }
}

#[test]
fn an_expired_url_answers_as_its_host_does() {
    let bench = Bench::new();
    bench.emulator.set_url_lifetime(Duration::from_secs(60));
    let content = || Content::stored("x");
    let runway = bench
        .emulator
        .add_runway(RunwayAsset::named("a.mp4", content()));
    let ltx = bench
        .emulator
        .add_ltx(LtxAsset::new("video/mp4", content()));
    let runflow = RunflowAsset::new("a.mp4", "video/mp4", content());
    let runflow = bench.emulator.add_runflow(runflow);
    let urls = [&runway, &ltx, &runflow].map(|id| bench.emulator.signed_url(id).unwrap());

    bench.clock.advance(Duration::from_millis(59_999));
    for url in &urls {
        assert_eq!(bench.asset(url, None).status(), 200);
    }
    bench.clock.advance(Duration::from_millis(1));
    let [runway, ltx, runflow] = urls.map(|url| bench.asset(&url, Some("bytes=0-0")));
    assert_eq!(runway.status(), 403);
    assert_eq!(ltx.status(), 400);
    assert!(ltx.text().unwrap().contains("<Code>ExpiredToken</Code>"));
    assert_eq!(runflow.status(), 403);
    assert!(
        runflow
            .text()
            .unwrap()
            .contains("<Code>AccessDenied</Code>")
    );
}

#[test]
fn a_new_signing_opens_the_same_object() {
    let (bench, first) = ten_bytes();
    let id = bench.emulator.runway_assets()[0].id.clone();
    let second = bench.emulator.signed_url(&id).unwrap();
    assert_ne!(first, second);
    assert_eq!(first.split('?').next(), second.split('?').next());
    let (first, second) = (bench.asset(&first, None), bench.asset(&second, None));
    assert_eq!(header(&first, "etag"), header(&second, "etag"));
}

#[test]
fn replaced_content_has_another_tag_under_the_same_path() {
    let (bench, url) = ten_bytes();
    let before = bench.asset(&url, None);
    let id = bench.emulator.runway_assets()[0].id.clone();
    assert!(bench.emulator.replace_content(&id, Content::stored("new")));
    let after = bench.asset(&url, None);
    assert_ne!(header(&before, "etag"), header(&after, "etag"));
    assert_eq!(after.text().unwrap(), "new");
    assert!(bench.emulator.remove(&id));
    assert_eq!(bench.asset(&url, None).status(), 404);
    assert!(!bench.emulator.remove(&id));
}

#[test]
fn a_large_synthetic_object_is_served_to_the_byte() {
    let bench = Bench::new();
    let content = Content::synthetic(5_000_000, 42);
    let id = bench
        .emulator
        .add_runway(RunwayAsset::named("big.mp4", content.clone()));
    let url = bench.emulator.signed_url(&id).unwrap();
    let whole = bench.asset(&url, None).bytes().unwrap();
    assert_eq!(whole.len() as u64, content.len());
    assert!(content.verify(0, &whole));
    let part = bench
        .asset(&url, Some("bytes=1234567-2345678"))
        .bytes()
        .unwrap();
    assert_eq!(part.len(), 1_111_112);
    assert!(content.verify(1_234_567, &part));
}

#[test]
fn a_simulated_link_serves_the_same_bytes() {
    let bench = Bench::with(|config| {
        config.link = Link {
            rtt: Duration::from_millis(4),
            setup_round_trips: 2,
            bytes_per_s: Some(50_000_000),
        };
    });
    let content = Content::synthetic(3_000_000, 9);
    let id = bench
        .emulator
        .add_runway(RunwayAsset::named("big.mp4", content.clone()));
    let url = bench.emulator.signed_url(&id).unwrap();
    let whole = bench.asset(&url, None).bytes().unwrap();
    assert_eq!(whole.len() as u64, content.len());
    assert!(content.verify(0, &whole));
}

#[test]
fn the_log_tells_host_range_status_bytes_and_connection() {
    let (bench, url) = ten_bytes();
    bench.asset(&url, Some("bytes=2-4")).text().unwrap();
    bench.asset(&url, Some("bytes=5-")).text().unwrap();
    let requests = bench.emulator.requests();
    assert_eq!(requests.len(), 2);
    let first = &requests[0];
    assert_eq!(first.host, HostKind::Asset);
    assert_eq!(first.method, "GET");
    assert!(url.ends_with(&first.path_and_query));
    assert_eq!(first.range.as_deref(), Some("bytes=2-4"));
    assert_eq!((first.status, first.bytes_sent), (Some(206), 3));
    assert_eq!((requests[1].status, requests[1].bytes_sent), (Some(206), 5));
    bench.emulator.clear_requests();
    assert!(bench.emulator.requests().is_empty());
}

#[test]
fn requests_of_one_connection_carry_its_number() {
    let bench = Bench::new();
    let address = bench.emulator.asset_url().replace("http://", "");
    for _ in 0..2 {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        let request = "GET / HTTP/1.1\r\nHost: assets\r\n";
        write!(stream, "{request}\r\n{request}Connection: close\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    let numbers = bench
        .emulator
        .requests()
        .into_iter()
        .map(|r| r.connection_id);
    assert_eq!(numbers.collect::<Vec<_>>(), [1, 1, 2, 2]);
}

#[test]
fn a_dropped_emulator_is_gone() {
    let (bench, url) = ten_bytes();
    assert_eq!(bench.asset(&url, None).status(), 200);
    let client = Client::builder().build().unwrap();
    drop(bench);
    // Another emulator may have got the port; it does not know this URL.
    let answer = client.get(&url).send();
    assert!(!answer.is_ok_and(|answer| answer.status() == 200));
}

#[test]
fn files_stand_openly_where_that_was_asked_for_and_nowhere_else() {
    let content = Content::stored("0123456789");
    for open in [false, true] {
        let bench = Bench::with(|config| config.open_listing = open);
        let asset = RunwayAsset::named("clip.mp4", content.clone());
        bench.emulator.add_runway(asset);
        let at = |name: &str| format!("{}/open/{name}", bench.emulator.asset_url());
        let ask = |method, name: &str| bench.bare(method, &at(name)).send().unwrap();
        let index = ask(Method::GET, "");
        if !open {
            assert_eq!(index.status(), 403);
            continue;
        }
        assert!(index.text().unwrap().contains("href=\"clip.mp4\""));
        let head = ask(Method::HEAD, "clip.mp4");
        assert_eq!(head.headers()["content-length"], "10");
        let part = bench.bare(Method::GET, &at("clip.mp4"));
        let part = part.header("range", "bytes=2-4").send().unwrap();
        assert_eq!(
            (part.status().as_u16(), part.text().unwrap().as_str()),
            (206, "234")
        );
        assert_eq!(ask(Method::GET, "other.mp4").status(), 404);
    }
}
