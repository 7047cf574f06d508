use std::io::Read;

use serde_json::json;

use super::*;

const LIST: &str = "/v1/runwayml/assets/?offset=0&limit=50";

/// An emulator with one asset of 1,000 bytes, a URL of it, and a fault at the asset host.
fn spoiled(effect: Effect) -> (Bench, String, Content) {
    let bench = Bench::new();
    let content = Content::synthetic(1000, 5);
    let id = bench
        .emulator
        .add_runway(RunwayAsset::named("a.mp4", content.clone()));
    let url = bench.emulator.signed_url(&id).unwrap();
    bench
        .emulator
        .add_fault(Fault::at(HostKind::Asset).does(effect));
    (bench, url, content)
}

/// An emulator with one asset in Runway and a fault at its API.
fn spoiled_api(effect: Effect) -> Bench {
    let bench = Bench::new();
    bench.emulator.add_runway(png("a.png"));
    bench
        .emulator
        .add_fault(Fault::at(HostKind::Useapi).does(effect));
    bench
}

fn upload(bench: &Bench) -> reqwest::Result<Response> {
    bench
        .useapi(Method::POST, "/v1/runwayml/assets/?name=up.png")
        .header("Content-Type", "image/png")
        .body(vec![1; 100_000])
        .send()
}

#[test]
fn a_fault_hits_the_requests_it_matches_and_only_so_many() {
    let bench = Bench::new();
    bench.emulator.add_fault(
        Fault::at(HostKind::Useapi)
            .method("GET")
            .path("runwayml")
            .skip(1)
            .times(2)
            .does(Effect::status(503)),
    );
    let statuses: Vec<u16> = (0..5).map(|_| bench.get(LIST).status().as_u16()).collect();
    assert_eq!(statuses, [200, 503, 503, 200, 200]);
    assert_eq!(bench.emulator.fault_hits(), 2);
    assert_eq!(bench.get("/v1/ltxstudio/assets/").status(), 200);
    assert_eq!(upload(&bench).unwrap().status(), 200);
}

#[test]
fn cleared_faults_hit_nothing() {
    let bench = spoiled_api(Effect::status(500));
    assert_eq!(bench.get(LIST).status(), 500);
    bench.emulator.clear_faults();
    assert_eq!(bench.get(LIST).status(), 200);
}

#[test]
fn a_chance_hits_its_share_and_the_same_requests_each_time() {
    let hits = || {
        let bench = Bench::new();
        let fault = Fault::at(HostKind::Useapi).chance(200, 7);
        bench.emulator.add_fault(fault.does(Effect::status(503)));
        (0..200)
            .map(|_| bench.get(LIST).status() == 503)
            .collect::<Vec<bool>>()
    };
    let first = hits();
    let count = first.iter().filter(|hit| **hit).count();
    assert!((20..=60).contains(&count), "{count} of 200");
    assert_eq!(first, hits());
}

#[test]
fn a_status_comes_in_the_hosts_own_error_shape_with_its_retry_after() {
    let bench = spoiled_api(Effect::retry_after(429, 7));
    let answer = bench.get(LIST);
    assert_eq!(header(&answer, "retry-after"), "7");
    refused(answer, 429);

    let (bench, url, _) = spoiled(Effect::status(503));
    assert!(bench.asset(&url, None).text().unwrap().contains("<Error>"));

    let bench = spoiled_api(Effect::html(502));
    let answer = bench.get(LIST);
    assert_eq!(answer.status(), 502);
    assert!(header(&answer, "content-type").starts_with("text/html"));
}

#[test]
fn a_dropped_connection_gives_no_answer() {
    let bench = spoiled_api(Effect::DropBeforeAnswer);
    assert!(bench.useapi(Method::GET, LIST).send().is_err());
    assert_eq!(bench.emulator.requests()[0].status, None);
}

#[test]
fn a_silent_host_never_answers() {
    let bench = spoiled_api(Effect::Silent);
    let request = bench
        .useapi(Method::GET, LIST)
        .timeout(Duration::from_millis(100));
    assert!(request.send().unwrap_err().is_timeout());
}

#[test]
fn an_upload_dropped_on_the_way_does_no_work() {
    let bench = spoiled_api(Effect::DropWhileReceiving(1000));
    assert!(upload(&bench).is_err());
    assert_eq!(bench.emulator.runway_assets().len(), 1);
}

#[test]
fn a_lost_answer_comes_after_the_work() {
    let bench = spoiled_api(Effect::AnswerLostAfterWork);
    assert!(upload(&bench).is_err());
    let assets = bench.emulator.runway_assets();
    assert_eq!(assets.len(), 2);
    assert_eq!(assets[0].size_bytes(), 100_000);
}

#[test]
fn a_body_is_cut_after_exactly_so_many_bytes() {
    for cut in [0, 1, 100, 999] {
        let (bench, url, content) = spoiled(Effect::CutBodyAfter(cut));
        let mut response = bench.asset(&url, None);
        assert_eq!(header(&response, "content-length"), "1000");
        let mut received = Vec::new();
        let mut byte = [0];
        while let Ok(1) = response.read(&mut byte) {
            received.push(byte[0]);
        }
        assert_eq!(received.len() as u64, cut);
        assert!(content.verify(0, &received));
    }
}

#[test]
fn a_slow_body_arrives_whole() {
    let (bench, url, content) = spoiled(Effect::SlowBody(20_000));
    let body = bench.asset(&url, None).bytes().unwrap();
    assert!(body.len() == 1000 && content.verify(0, &body));
}

#[test]
fn a_delay_goes_before_the_usual_answer_and_other_faults() {
    let bench = spoiled_api(Effect::Delay(Duration::from_millis(1)));
    assert_eq!(bench.get(LIST).status(), 200);
    bench
        .emulator
        .add_fault(Fault::at(HostKind::Useapi).does(Effect::status(500)));
    assert_eq!(bench.get(LIST).status(), 500);
    assert_eq!(bench.emulator.fault_hits(), 3);
}

#[test]
fn malformed_json_does_not_parse_and_wrong_types_do() {
    let bench = spoiled_api(Effect::MalformedJson);
    assert!(bench.get(LIST).json::<Value>().is_err());

    let bench = spoiled_api(Effect::WrongTypes);
    let listing = page(bench.get(LIST));
    assert!(listing[0]["name"].is_number());
    assert!(listing[0]["fileSize"].is_string());
    assert!(listing[0]["favorite"].is_array());
}

#[test]
fn a_page_can_be_replaced_whole() {
    let bench = spoiled_api(Effect::Json(json!({"error": "not an array"})));
    assert_eq!(page(bench.get(LIST)), json!({"error": "not an array"}));
}

#[test]
fn a_redirect_leads_where_it_was_told() {
    let (bench, url, _) = spoiled(Effect::Redirect("http://elsewhere.example/x".into()));
    let answer = bench.asset(&url, None);
    assert_eq!(answer.status(), 302);
    assert_eq!(header(&answer, "location"), "http://elsewhere.example/x");
}

#[test]
fn an_ignored_range_is_the_whole_body_with_200() {
    let (bench, url, content) = spoiled(Effect::IgnoreRange);
    let answer = bench.asset(&url, Some("bytes=10-19"));
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("content-range"));
    let body = answer.bytes().unwrap();
    assert!(body.len() == 1000 && content.verify(0, &body));
    let logged = bench.emulator.requests();
    assert_eq!(logged[0].range.as_deref(), Some("bytes=10-19"));
}

#[test]
fn a_wrong_content_range_differs_from_what_is_sent() {
    let (bench, url, content) = spoiled(Effect::WrongContentRange);
    let answer = bench.asset(&url, Some("bytes=10-19"));
    assert_eq!(header(&answer, "content-range"), "bytes 11-20/1001");
    assert!(content.verify(10, &answer.bytes().unwrap()));
}

#[test]
fn a_changed_etag_is_not_the_objects() {
    let (bench, url, _) = spoiled(Effect::ChangedEtag);
    assert_eq!(
        header(&bench.asset(&url, None), "etag"),
        "\"another-revision\""
    );
}

#[test]
fn a_wrong_length_belies_the_content_range() {
    for (difference, length) in [(5, 15), (-4, 6)] {
        let (bench, url, _) = spoiled(Effect::WrongLength(difference));
        let answer = bench.asset(&url, Some("bytes=10-19"));
        assert_eq!(header(&answer, "content-range"), "bytes 10-19/1000");
        assert_eq!(answer.bytes().unwrap().len(), length);
        // The connection is still in step.
        bench.emulator.clear_faults();
        assert_eq!(bench.asset(&url, None).bytes().unwrap().len(), 1000);
    }
}

#[test]
fn a_chunked_answer_has_no_length_and_a_set_header_is_set() {
    let (bench, url, content) = spoiled(Effect::Chunked);
    let answer = bench.asset(&url, None);
    assert!(!answer.headers().contains_key("content-length"));
    assert!(content.verify(0, &answer.bytes().unwrap()));

    let (bench, url, _) = spoiled(Effect::SetHeader("content-encoding".into(), "br".into()));
    assert_eq!(header(&bench.asset(&url, None), "content-encoding"), "br");
}

#[test]
fn faults_are_written_as_the_grammar_says() {
    let bench = Bench::new();
    let add = |text: &str| bench.emulator.add_fault(text.parse().unwrap());
    add("useapi:GET:/assets/?offset:1+1:status=503,retry-after=4");
    assert_eq!(bench.get(LIST).status(), 200);
    assert_eq!(header(&bench.get(LIST), "retry-after"), "4");
    assert_eq!(bench.get(LIST).status(), 200);
    add("useapi:*:*:*:redirect=http://127.0.0.1:9/x");
    assert_eq!(header(&bench.get(LIST), "location"), "http://127.0.0.1:9/x");
    for bad in [
        "useapi:GET:/x:3",
        "cloud:GET:/x:3:drop",
        "asset:get:/x:3:drop",
        "asset:GET:/x:three:drop",
        "asset:GET:/x:3:explode",
        "asset:GET:/x:3:status=99",
        "asset:GET:/x:3:cut=some",
    ] {
        assert!(bad.parse::<Fault>().is_err(), "{bad}");
    }
}

#[test]
fn the_levers_of_a_running_emulator_work_over_http() {
    let bench = Bench::new();
    bench.emulator.add_runway(png("a.png"));
    let lever = |method: Method, name: &str, body: &'static str| {
        let url = format!("{}/_emulator/{name}", bench.emulator.useapi_url());
        bench.bare(method, &url).body(body).send().unwrap()
    };
    assert_eq!(
        lever(Method::POST, "faults", "useapi:GET:*:1:status=500\n\n").status(),
        204
    );
    assert_eq!(lever(Method::POST, "faults", "nonsense").status(), 400);
    assert_eq!(bench.get(LIST).status(), 500);
    assert_eq!(bench.get(LIST).status(), 200);
    assert_eq!(
        lever(Method::POST, "faults", "useapi:GET:*:*:drop").status(),
        204
    );
    assert_eq!(lever(Method::DELETE, "faults", "").status(), 204);

    let requests = page(lever(Method::GET, "requests", ""));
    assert_eq!(requests.as_array().unwrap().len(), 2);
    assert_eq!(requests[0]["host"], "useapi");
    assert_eq!(requests[0]["status"], 500);
    assert_eq!(lever(Method::DELETE, "requests", "").status(), 204);
    assert!(bench.emulator.requests().is_empty());

    let assets = page(lever(Method::GET, "assets", ""));
    assert_eq!(assets[0]["name"], "a.png");
    assert_eq!(
        assets[0]["sha256"],
        Content::stored("bytes of a.png").sha256()
    );
    assert_eq!(page(lever(Method::GET, "counters", ""))["heads_refused"], 0);
    assert_eq!(lever(Method::GET, "nothing", "").status(), 404);
}

#[test]
fn pages_shift_while_they_are_listed() {
    let bench = Bench::new();
    let ids: Vec<String> = ["a.png", "b.png"]
        .map(|name| bench.emulator.add_runway(png(name)))
        .into();
    let newest = |bench: &Bench| page(bench.get(LIST))[0]["name"].clone();
    let then = |effect| {
        bench
            .emulator
            .add_fault(Fault::at(HostKind::Useapi).times(1).does(effect))
    };
    then(Effect::ThenAdd(Box::new(png("c.png"))));
    assert_eq!(newest(&bench), "b.png");
    assert_eq!(newest(&bench), "c.png");
    then(Effect::ThenRemove(ids[0].clone()));
    assert_eq!(page(bench.get(LIST)).as_array().unwrap().len(), 3);
    assert_eq!(page(bench.get(LIST)).as_array().unwrap().len(), 2);
}
