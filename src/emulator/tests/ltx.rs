use serde_json::json;

use super::*;

const LIST: &str = "/v1/ltxstudio/assets/";

fn list(bench: &Bench, query: &str) -> Response {
    bench.get(&format!("{LIST}?{query}"))
}

fn filled(count: usize, mime_type: &str) -> Bench {
    let bench = Bench::new();
    for number in 0..count {
        let content = Content::stored(format!("{mime_type} {number}"));
        bench.emulator.add_ltx(LtxAsset::new(mime_type, content));
    }
    bench
}

#[test]
fn an_item_has_the_shape_of_the_page() {
    let bench = filled(1, "video/mp4");
    let listing = page(list(&bench, ""));
    let item = &listing["items"][0];
    let id = item["id"].as_str().unwrap();
    let asset = &item["signedAsset"]["asset"];
    assert_eq!(asset["mimeType"], "video/mp4");
    assert_eq!(asset["fileId"], format!("asset:{id}-type:video/mp4"));
    assert_eq!(item["jobId"], format!("email:{STUDIO}:{id}-type:video"));
    assert_eq!(
        bench.download(&item["signedAsset"]["assetUrl"]),
        b"video/mp4 0"
    );
    let thumbnail = &item["relatedAssets"]["thumbnails"]["large"];
    assert_eq!(thumbnail["asset"]["mimeType"], "image/webp");
    assert!(bench.download(&thumbnail["assetUrl"]).starts_with(b"RIFF"));
    for absent in ["name", "size", "createdAt"] {
        assert!(item.get(absent).is_none(), "{absent}");
    }
}

#[test]
fn each_url_tells_its_expiry_in_milliseconds_as_a_string() {
    let bench = filled(1, "image/png");
    bench.emulator.set_url_lifetime(Duration::from_millis(1500));
    let listing = page(list(&bench, ""));
    let item = &listing["items"][0];
    let expiry = "1700000001956";
    assert_eq!(item["signedAsset"]["expirationDateString"], expiry);
    let thumbnail = &item["relatedAssets"]["thumbnails"]["large"];
    assert_eq!(thumbnail["expirationDateString"], expiry);
}

#[test]
fn meta_counts_what_the_filter_shows() {
    let bench = filled(45, "image/png");
    bench
        .emulator
        .add_ltx(LtxAsset::new("video/mp4", Content::stored("v")));
    let meta = |query: &str| page(list(&bench, query))["meta"].clone();
    assert_eq!(
        meta(""),
        json!({"totalItems": 46, "itemCount": 20, "itemsPerPage": 20, "totalPages": 3, "currentPage": 1})
    );
    assert_eq!(
        meta("filter=images&page=3&limit=20"),
        json!({"totalItems": 45, "itemCount": 5, "itemsPerPage": 20, "totalPages": 3, "currentPage": 3})
    );
    assert_eq!(
        meta("page=9&limit=100"),
        json!({"totalItems": 46, "itemCount": 0, "itemsPerPage": 100, "totalPages": 1, "currentPage": 9})
    );
}

#[test]
fn filters_go_by_mime_type() {
    let bench = Bench::new();
    for mime_type in ["image/png", "video/mp4", "audio/wav", "model/gltf-binary"] {
        bench
            .emulator
            .add_ltx(LtxAsset::new(mime_type, Content::stored("x")));
    }
    for (filter, mime_type) in [
        ("images", "image/png"),
        ("videos", "video/mp4"),
        ("audio", "audio/wav"),
        ("other", "model/gltf-binary"),
    ] {
        let listing = page(list(&bench, &format!("filter={filter}")));
        assert_eq!(listing["meta"]["totalItems"], 1);
        assert_eq!(
            listing["items"][0]["signedAsset"]["asset"]["mimeType"],
            mime_type
        );
    }
}

#[test]
fn parameters_out_of_range_or_unknown_are_refused() {
    let bench = filled(1, "image/png");
    for bad in [
        "page=0",
        "page=x",
        "limit=0",
        "limit=101",
        "filter=video",
        "filter=",
        "offset=0",
        "page=1&page=2",
    ] {
        refused(list(&bench, bad), 400);
    }
    refused(bench.get("/v1/ltxstudio/assets/1"), 404);
    let post = bench.useapi(Method::POST, LIST).body("x").send().unwrap();
    refused(post, 405);
    let untokened = bench.bare(Method::GET, &(bench.emulator.useapi_url() + LIST));
    refused(untokened.send().unwrap(), 401);
    page(bench.get("/v1/ltxstudio/assets?page=1"));
}

#[test]
fn with_two_accounts_the_email_is_required_and_decides() {
    let bench = Bench::with(|config| {
        config.accounts = vec!["a@example.com".into(), "b@example.com".into()];
    });
    let asset = LtxAsset::new("image/png", Content::stored("b's"));
    bench.emulator.add_ltx(asset.in_account("b@example.com"));
    refused(list(&bench, ""), 400);
    let total =
        |email: &str| page(list(&bench, &format!("email={email}")))["meta"]["totalItems"].clone();
    assert_eq!(total("a@example.com"), 0);
    assert_eq!(total("b@example.com"), 1);
}
