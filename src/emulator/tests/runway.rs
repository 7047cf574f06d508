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
