use serde_json::json;

use super::*;

const LIST: &str = "/v1/runwayml/assets/";

fn names(page: &Value) -> Vec<&str> {
    let items = page.as_array().unwrap().iter();
    items.map(|item| item["name"].as_str().unwrap()).collect()
}

fn upload(bench: &Bench, query: &str, content_type: &str, body: &'static [u8]) -> RequestBuilder {
    bench
        .useapi(Method::POST, &format!("{LIST}?{query}"))
        .header("Content-Type", content_type)
        .body(body)
}

#[test]
fn a_listing_shows_the_newest_first_in_the_shape_of_the_page() {
    let bench = Bench::new();
    let content = Content::stored("clip");
    let id = bench
        .emulator
        .add_runway(RunwayAsset::named("Clip.mp4", content));
    bench.clock.advance(Duration::from_millis(5));
    bench.emulator.add_runway(png("Race car.jpg"));

    let listing = page(bench.get("/v1/runwayml/assets/?offset=0&limit=50"));
    assert_eq!(names(&listing), ["Race car.jpg", "Clip.mp4"]);
    assert_eq!(listing[0]["fileExtStandardized"], "jpeg");
    assert_eq!(listing[0]["metadata"], Value::Null);
    let clip = &listing[1];
    assert_eq!(clip["id"], id.as_str());
    assert_eq!(
        clip["assetId"],
        format!("user:1234-runwayml:{STUDIO}-asset:{id}")
    );
    assert_eq!(clip["createdAt"], "2023-11-14T22:13:20.456Z");
    assert_eq!(clip["mediaType"], "video");
    assert_eq!(clip["fileSize"], 4);
    assert_eq!(clip["metadata"]["width"], 1280);
    assert_eq!(bench.download(&clip["url"]), b"clip");
    assert!(!bench.download(&clip["previewUrls"][0]).is_empty());
}

#[test]
fn the_list_answers_with_and_without_a_trailing_slash() {
    let bench = Bench::new();
    assert_eq!(
        page(bench.get("/v1/runwayml/assets?offset=0&limit=1")),
        json!([])
    );
    assert_eq!(
        page(bench.get("/v1/runwayml/assets/?offset=0&limit=1")),
        json!([])
    );
}

#[test]
fn offset_and_limit_are_required_and_within_their_ranges() {
    let bench = Bench::new();
    for bad in [
        "",
        "offset=0",
        "limit=1",
        "offset=&limit=1",
        "offset=1001&limit=1",
        "offset=0&limit=0",
        "offset=0&limit=51",
        "offset=-1&limit=1",
        "offset=a&limit=1",
        "offset=0&offset=0&limit=1",
    ] {
        refused(bench.get(&format!("{LIST}?{bad}")), 400);
    }
    assert_eq!(
        page(bench.get(&format!("{LIST}?offset=1000&limit=50"))),
        json!([])
    );
}

#[test]
fn media_types_are_the_three_of_the_page() {
    let bench = Bench::new();
    for name in ["a.mp4", "b.png", "c.mp3"] {
        bench.emulator.add_runway(png(name));
    }
    let of_type =
        |media_type: &str| bench.get(&format!("{LIST}?offset=0&limit=50&mediaType={media_type}"));
    assert_eq!(names(&page(of_type("video"))), ["a.mp4"]);
    assert_eq!(names(&page(of_type("image"))), ["b.png"]);
    assert_eq!(names(&page(of_type("audio"))), ["c.mp3"]);
    refused(of_type("videos"), 400);
}

#[test]
fn unknown_parameters_paths_and_methods_are_refused() {
    let bench = Bench::new();
    refused(
        bench.get(&format!("{LIST}?offset=0&limit=1&sort=name")),
        400,
    );
    refused(bench.get("/v1/runwayml/asset/?offset=0&limit=1"), 404);
    refused(bench.get("/v1/runwayml/assetsx/?offset=0&limit=1"), 404);
    let put = bench.useapi(Method::PUT, LIST).send().unwrap();
    assert_eq!(header(&put, "allow"), "GET, POST");
    refused(put, 405);
}

#[test]
fn a_missing_or_wrong_token_is_401() {
    let bench = Bench::new();
    let url = bench.emulator.useapi_url() + LIST + "?offset=0&limit=1";
    let none = bench.bare(Method::GET, &url).send().unwrap();
    assert_eq!(refused(none, 401), "Unauthorized");
    let other = bench.bare(Method::GET, &url).bearer_auth("rf-emulated");
    refused(other.send().unwrap(), 401);
    let basic = bench.bare(Method::GET, &url);
    let basic = basic.header("Authorization", bench.emulator.useapi_token());
    refused(basic.send().unwrap(), 401);
}

#[test]
fn with_two_accounts_the_email_is_required_and_decides() {
    let bench = Bench::with(|config| {
        config.accounts = vec!["a@example.com".into(), "b@example.com".into()];
    });
    bench.emulator.add_runway(png("of a.png"));
    bench
        .emulator
        .add_runway(png("of b.png").in_account("b@example.com"));
    let of = |email: &str| bench.get(&format!("{LIST}?offset=0&limit=9{email}"));
    assert!(refused(of(""), 400).contains("email"));
    refused(of("&email=c@example.com"), 400);
    assert_eq!(names(&page(of("&email=a@example.com"))), ["of a.png"]);
    assert_eq!(names(&page(of("&email=b%40example.com"))), ["of b.png"]);
    refused(
        upload(&bench, "name=x.png", "image/png", b"x")
            .send()
            .unwrap(),
        400,
    );
}

#[test]
fn pages_join_without_gap_or_overlap() {
    let bench = Bench::new();
    for number in 0..7 {
        bench.emulator.add_runway(png(&format!("{number}.png")));
    }
    let pages: Vec<Value> = [0, 3, 6, 9]
        .map(|offset| page(bench.get(&format!("{LIST}?offset={offset}&limit=3"))))
        .into();
    let joined: Vec<&str> = pages.iter().flat_map(names).collect();
    assert_eq!(
        joined,
        [
            "6.png", "5.png", "4.png", "3.png", "2.png", "1.png", "0.png"
        ]
    );
}

#[test]
fn a_single_asset_is_found_by_its_asset_id_in_either_spelling() {
    let bench = Bench::new();
    let id = bench.emulator.add_runway(png("one.png"));
    let listing = page(bench.get(&format!("{LIST}?offset=0&limit=1")));
    let asset_id = listing[0]["assetId"].as_str().unwrap();
    let escaped = asset_id.replace(':', "%3A").replace('@', "%40");
    for spelling in [asset_id, &escaped] {
        let single = page(bench.get(&format!("{LIST}{spelling}")));
        assert_eq!(single["id"], id.as_str());
        assert_ne!(single["url"], listing[0]["url"]);
        assert_eq!(bench.download(&single["url"]), b"bytes of one.png");
    }
    let gone = bench.get(&format!("{LIST}{asset_id}x"));
    assert_eq!(refused(gone, 404), "Not found.");
    refused(bench.get(&format!("{LIST}{asset_id}?email={STUDIO}")), 400);
}

#[test]
fn a_deleted_asset_is_gone_from_the_list_and_the_asset_host() {
    let bench = Bench::new();
    bench.emulator.add_runway(png("one.png"));
    let listing = page(bench.get(&format!("{LIST}?offset=0&limit=1")));
    let target = format!("{LIST}{}", listing[0]["assetId"].as_str().unwrap());
    let delete = || bench.useapi(Method::DELETE, &target).send().unwrap();
    assert_eq!(page(delete()), json!({"success": true}));
    refused(delete(), 404);
    assert_eq!(
        page(bench.get(&format!("{LIST}?offset=0&limit=1"))),
        json!([])
    );
    let url = listing[0]["url"].as_str().unwrap();
    assert_eq!(bench.asset(url, None).status(), 404);
}

#[test]
fn an_upload_answers_in_its_own_shape_and_is_listed_in_the_lists() {
    let bench = Bench::new();
    let answer = upload(&bench, "name=Race%20car.jpg", "image/jpeg", b"jpeg bytes");
    let answer = page(answer.send().unwrap());
    assert_eq!(answer["size"], 10);
    assert_eq!(
        answer["type"],
        json!({"name": "image", "type": "image", "isDirectory": false})
    );
    for objects in ["user", "createdBy"] {
        assert_eq!(answer[objects]["id"], 123_456_789);
    }
    for absent in ["fileSize", "mediaType", "metadata"] {
        assert!(answer.get(absent).is_none(), "{absent}");
    }

    let listing = page(bench.get(&format!("{LIST}?offset=0&limit=50&mediaType=image")));
    let item = &listing[0];
    for same in ["id", "assetId", "name", "createdAt"] {
        assert_eq!(item[same], answer[same], "{same}");
    }
    assert_eq!(item["fileSize"], 10);
    assert_eq!(item["isUserUpload"], true);
    assert_eq!(bench.download(&item["url"]), b"jpeg bytes");
    assert_eq!(bench.download(&answer["url"]), b"jpeg bytes");

    let stored = &bench.emulator.runway_assets()[0];
    assert_eq!(stored.name.as_deref(), Some("Race car.jpg"));
    assert_eq!(stored.content_type, "image/jpeg");
    assert_eq!(stored.size_bytes(), 10);
    assert_eq!(stored.sha256(), Content::stored("jpeg bytes").sha256());
}

#[test]
fn an_upload_takes_the_twenty_types_of_the_table_and_no_other() {
    let bench = Bench::new();
    for row in upload_type::TABLE {
        let query = format!("name=a.{}", row.extension);
        let answer = page(
            upload(&bench, &query, row.content_type, b"x")
                .send()
                .unwrap(),
        );
        assert_eq!(
            answer["type"]["name"],
            row.media_type(),
            "{}",
            row.content_type
        );
    }
    for bad in [
        "image/webp",
        "text/plain",
        "image/png; charset=utf-8",
        "video",
        "",
    ] {
        refused(upload(&bench, "name=a", bad, b"x").send().unwrap(), 400);
    }
    let untyped = bench
        .useapi(Method::POST, &format!("{LIST}?name=a.png"))
        .body("x");
    refused(untyped.send().unwrap(), 400);
    assert_eq!(bench.emulator.runway_assets().len(), 20);
}

#[test]
fn an_upload_needs_a_name_a_body_and_known_parameters() {
    let bench = Bench::new();
    for bad in [
        "",
        "name=",
        "name=a.png&folder=b",
        "name=a.png&width=wide",
        "name=a&name=b",
    ] {
        refused(upload(&bench, bad, "image/png", b"x").send().unwrap(), 400);
    }
    refused(
        upload(&bench, "name=a.png", "image/png", b"")
            .send()
            .unwrap(),
        400,
    );
    let measured = "name=a.png&duration=1.5&width=640&height=360";
    page(upload(&bench, measured, "image/png", b"x").send().unwrap());
    assert_eq!(bench.emulator.runway_assets().len(), 1);
}

#[test]
fn an_upload_needs_a_content_length() {
    let bench = Bench::new();
    let chunked = bench
        .useapi(Method::POST, &format!("{LIST}?name=a.png"))
        .header("Content-Type", "image/png")
        .body(reqwest::blocking::Body::new(&b"streamed"[..]));
    refused(chunked.send().unwrap(), 411);
    assert!(bench.emulator.runway_assets().is_empty());
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing() {
    let bench = Bench::new();
    // The reader ends before the 100 bytes that Content-Length promises.
    let short = bench
        .useapi(Method::POST, &format!("{LIST}?name=a.png"))
        .header("Content-Type", "image/png")
        .body(reqwest::blocking::Body::sized(&b"too short"[..], 100));
    assert!(short.send().is_err());
    assert!(bench.emulator.runway_assets().is_empty());
}

#[test]
fn an_upload_beyond_the_limit_is_413() {
    let bench = Bench::with(|config| config.max_upload_bytes = 4);
    refused(
        upload(&bench, "name=a.png", "image/png", b"12345")
            .send()
            .unwrap(),
        413,
    );
    page(
        upload(&bench, "name=a.png", "image/png", b"1234")
            .send()
            .unwrap(),
    );
}

#[test]
fn odd_assets_are_shown_as_they_were_made() {
    let bench = Bench::new();
    let patch = json!({"fileSize": "many", "rating": {"stars": 5}, "metadata": null, "id": ABSENT});
    let odd = png("odd.mp4")
        .without_url()
        .without_name()
        .with_json_patch(patch);
    bench.emulator.add_runway(odd);
    let listing = page(bench.get(&format!("{LIST}?offset=0&limit=1")));
    let item = &listing[0];
    for null in ["name", "url", "metadata"] {
        assert!(item.as_object().unwrap()[null].is_null(), "{null}");
    }
    assert_eq!(item["fileSize"], "many");
    assert_eq!(item["rating"]["stars"], 5);
    assert!(item.get("id").is_none());
    let single = page(bench.get(&format!("{LIST}{}", item["assetId"].as_str().unwrap())));
    assert!(single["url"].is_string());
}

#[test]
fn a_lagging_listing_shows_an_upload_later_and_the_single_call_at_once() {
    let bench = Bench::new();
    bench.emulator.set_listing_lag(Duration::from_secs(3));
    let answer = page(
        upload(&bench, "name=a.png", "image/png", b"x")
            .send()
            .unwrap(),
    );
    let list = || page(bench.get(&format!("{LIST}?offset=0&limit=1")));
    bench.clock.advance(Duration::from_millis(2999));
    assert_eq!(list(), json!([]));
    page(bench.get(&format!("{LIST}{}", answer["assetId"].as_str().unwrap())));
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(names(&list()), ["a.png"]);
}

#[test]
fn answers_are_dated_by_the_emulators_clock() {
    let bench = Bench::new();
    let answer = bench.get(&format!("{LIST}?offset=0&limit=1"));
    assert_eq!(header(&answer, "date"), "Tue, 14 Nov 2023 22:13:20 GMT");
}
