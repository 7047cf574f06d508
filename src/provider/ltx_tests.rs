use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::*;
use crate::http::test_server::{Reply, Seen, TestServer, json as answer};
use crate::provider::test_api::api;

const IMAGES: Library = Library::LtxImages;

/// "Retrieve LTX Studio assets": the page's example, its URLs made whole.
const EXAMPLE: &str = r#"{ "items": [ { "id": "7a34b821-9fd0-205e-d21b-4abc6f7839e7", "signedAsset": { "assetUrl": "http://127.0.0.1:1/lt-infinity-prd/artifacts/x?Expires=1748919999", "expirationDateString": "1748919477350", "asset": { "type": "artifact", "fileId": "asset:3b18-type:video/mp4", "mimeType": "video/mp4", "artifactSubtype": "model-serving" } }, "relatedAssets": { "thumbnails": { "large": { "assetUrl": "http://127.0.0.1:1/lt-infinity-prd/images/y", "expirationDateString": "1748919477389", "asset": { "type": "image", "fileId": "3b18-thumbnail-large", "mimeType": "image/webp" } } } }, "jobId": "email:x:7a34b821-9fd0-205e-d21b-4abc6f7839e7-type:video" } ], "meta": { "totalItems": 1, "itemCount": 1, "itemsPerPage": 50, "totalPages": 1, "currentPage": 1 } }"#;

fn provider(server: &TestServer) -> LtxProvider {
    LtxProvider::new(api(server), None)
}

fn list(server: &TestServer) -> Result<Vec<Asset>, ProviderError> {
    provider(server).list(IMAGES)
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("a{n:04}")).collect()
}

fn ids_of(assets: &[Asset]) -> Vec<String> {
    assets.iter().map(|asset| asset.id.to_string()).collect()
}

/// Page `page` of `ids` with `size` a page, and the meta of the page.
fn page_of(ids: &[String], page: usize, size: usize) -> Value {
    let items: Vec<_> = ids
        .chunks(size)
        .nth(page - 1)
        .unwrap_or_default()
        .iter()
        .map(|id| json!({ "id": id }))
        .collect();
    json!({
        "meta": {
            "totalItems": ids.len(), "itemCount": items.len(), "itemsPerPage": size,
            "totalPages": ids.len().div_ceil(size), "currentPage": page
        },
        "items": items,
    })
}

fn serving(page: impl Fn(&Seen) -> Value + Send + Sync + 'static) -> TestServer {
    TestServer::start(move |seen| answer(200, page(seen)))
}

fn pages_asked(server: &TestServer) -> Vec<usize> {
    server.seen().iter().map(|s| s.number("page")).collect()
}

fn asset_on(page: &str, id: &str) -> Asset {
    Asset {
        locator: page.into(),
        ..Asset::bare(IMAGES, id)
    }
}

#[test]
fn the_pages_example_is_read() {
    let server = TestServer::start(|_| answer(200, EXAMPLE));
    let asset = list(&server).unwrap().remove(0);
    assert_eq!(asset.id.as_str(), "7a34b821-9fd0-205e-d21b-4abc6f7839e7");
    assert_eq!(asset.mime_type.as_deref(), Some("video/mp4"));
    assert_eq!(
        (asset.name, asset.size_bytes, asset.created_at),
        (None, None, None)
    );
    assert_eq!(asset.locator, "1");
    let expiry = crate::timestamp::from_epoch_ms(1_748_919_477_350);
    assert_eq!(
        asset.url.unwrap().expires_at(),
        expiry,
        "the API's word before the URL's"
    );
}

#[test]
fn a_listing_asks_as_the_page_says() {
    let server = TestServer::start(|_| answer(200, EXAMPLE));
    let provider = LtxProvider::new(api(&server), Some("a@b.example".into()));
    provider.list(Library::LtxOther).unwrap();
    assert_eq!(
        server.seen()[0].target,
        "/v1/ltxstudio/assets/?page=1&limit=50&filter=other&email=a%40b.example"
    );
}

#[test]
fn every_asset_is_listed_once_in_order_whatever_their_number_and_the_servers_page_size() {
    for (count, size) in [
        (0, 50),
        (1, 50),
        (50, 50),
        (51, 50),
        (329, 50),
        (329, 20),
        (7, 3),
    ] {
        let all = numbered(count);
        let shown = all.clone();
        let server = serving(move |seen| page_of(&shown, seen.number("page"), size));
        assert_eq!(ids_of(&list(&server).unwrap()), all, "{count} by {size}");
        assert_eq!(
            server.count(),
            count.div_ceil(size).max(1),
            "{count} by {size}"
        );
    }
}

#[test]
fn a_service_that_counts_pages_by_a_limit_it_does_not_keep_is_read_to_its_end() {
    // 20 a page, but the count of pages is that of 50 a page.
    let server = serving(|seen| {
        let mut page = page_of(&numbered(100), seen.number("page"), 20);
        page["meta"]["totalPages"] = json!(2);
        page
    });
    assert_eq!(ids_of(&list(&server).unwrap()), numbered(100));
}

#[test]
fn without_a_meta_pages_are_read_until_an_empty_one() {
    let server = serving(|seen| {
        let mut page = page_of(&numbered(120), seen.number("page"), 50);
        page["meta"] = json!("none");
        page
    });
    assert_eq!(ids_of(&list(&server).unwrap()), numbered(120));
    assert_eq!(pages_asked(&server), [1, 2, 3, 4]);
}

#[test]
fn a_service_that_always_gives_the_same_page_does_not_keep_us_for_ever() {
    let server = serving(|_| json!({ "items": [{ "id": "1" }, { "id": "2" }] }));
    assert_eq!(ids_of(&list(&server).unwrap()), ["1", "2"]);
    assert_eq!(server.count(), 2);
}

#[test]
fn a_count_that_changes_while_listing_makes_the_listing_again() {
    let gone = AtomicUsize::new(0);
    let server = serving(move |seen| {
        let gone = gone.fetch_add(1, Ordering::Relaxed).min(1) * 3;
        page_of(&numbered(120)[gone..], seen.number("page"), 50)
    });
    assert_eq!(ids_of(&list(&server).unwrap()), numbered(120)[3..]);
}

#[test]
fn an_asset_pushed_to_a_page_already_read_makes_the_listing_again() {
    // One comes at the front, one goes from the second page: the count stays the same.
    let requests = AtomicUsize::new(0);
    let server = serving(move |seen| {
        let mut ids = numbered(120);
        if requests.fetch_add(1, Ordering::Relaxed) > 0 {
            ids.remove(60);
            ids.insert(0, "new".into());
        }
        page_of(&ids, seen.number("page"), 50)
    });
    let listed = ids_of(&list(&server).unwrap());
    assert_eq!((listed.len(), listed[0].as_str()), (120, "new"));
}

#[test]
fn a_count_that_is_always_wrong_is_overruled_by_two_listings_that_agree() {
    let server = serving(|seen| {
        let mut page = page_of(&numbered(60), seen.number("page"), 50);
        page["meta"]["totalItems"] = json!(61);
        page
    });
    assert_eq!(ids_of(&list(&server).unwrap()), numbered(60));
}

#[test]
fn a_count_below_what_the_pages_hold_hides_nothing() {
    for (total_items, total_pages) in [(0, 0), (40, 1), (70, 3)] {
        let server = serving(move |seen| {
            let mut page = page_of(&numbered(120), seen.number("page"), 50);
            page["meta"]["totalItems"] = json!(total_items);
            page["meta"]["totalPages"] = json!(total_pages);
            page
        });
        let listed = ids_of(&list(&server).unwrap());
        assert_eq!(listed, numbered(120), "{total_items}");
    }
}

#[test]
fn duplicates_and_assets_without_an_id_do_not_upset_the_count() {
    let server = serving(|_| {
        json!({
            "items": [{ "id": "1" }, {}, { "id": null, "signedAsset": { "asset": { "fileId": "f-type:audio/mpeg" } } }],
            "meta": { "totalItems": 3, "totalPages": 1 }
        })
    });
    let listed = list(&server).unwrap();
    assert_eq!(ids_of(&listed), ["1", "f-type:audio/mpeg"]);
    assert_eq!(listed[1].mime_type.as_deref(), Some("audio/mpeg"));
    assert_eq!(server.count(), 1);
}

#[test]
fn fields_of_wrong_types_count_as_missing() {
    let server = serving(|_| {
        json!({
            "items": [
                { "id": "1", "signedAsset": "gone" },
                { "id": "2", "signedAsset": {
                    "assetUrl": "http://127.0.0.1:1/x", "expirationDateString": 1748919477350u64, "asset": [] } },
                { "id": "3", "signedAsset": { "assetUrl": "gopher://x", "expirationDateString": "soon" } }
            ],
            "meta": { "totalItems": "3", "totalPages": 1.5 }
        })
    });
    let listed = list(&server).unwrap();
    assert_eq!((listed.len(), &listed[0].url), (3, &None));
    let expiry = listed[1].url.as_ref().unwrap().expires_at();
    assert_eq!(expiry, crate::timestamp::from_epoch_ms(1_748_919_477_350));
    assert_eq!(listed[2].url, None);
}

#[test]
fn a_page_that_contradicts_its_description_is_an_error_for_all() {
    for page in [
        "[]",
        "null",
        "{}",
        r#"{"items":{}}"#,
        r#"{"items":[1]}"#,
        r#"{"items":null,"meta":{"totalItems":3}}"#,
    ] {
        let server = TestServer::start(move |_| answer(200, page));
        let error = list(&server).unwrap_err();
        assert!(
            matches!(error, ProviderError::Malformed(_)),
            "{page}: {error}"
        );
    }
}

#[test]
fn more_pages_than_the_limit_are_an_error_before_they_are_read() {
    let server = serving(|_| json!({ "items": [{ "id": "1" }], "meta": { "totalPages": 2001 } }));
    assert!(matches!(list(&server), Err(ProviderError::Malformed(_))));
    assert_eq!(server.count(), 1);
}

#[test]
fn a_retired_service_says_so() {
    let server = TestServer::start(|_| answer(404, r#"{"error":"Not Found","code":404}"#));
    let error = list(&server).unwrap_err();
    assert!(matches!(error, ProviderError::Unavailable { .. }));
    assert!(error.to_string().contains("retired"), "{error}");
}

#[test]
fn renewing_asks_for_the_page_the_asset_was_on() {
    let server = serving(|seen| page_of(&numbered(200), seen.number("page"), 50));
    let fresh = provider(&server).refresh(&asset_on("3", "a0120")).unwrap();
    assert_eq!((fresh.id.as_str(), fresh.locator.as_str()), ("a0120", "3"));
    assert_eq!(pages_asked(&server), [3]);
}

#[test]
fn renewing_one_asset_renews_its_page() {
    let server = serving(|seen| page_of(&numbered(200), seen.number("page"), 50));
    let renewed = provider(&server).refresh_with_others(&asset_on("3", "a0120"));
    let (fresh, others) = renewed.unwrap();
    assert_eq!((fresh.id.as_str(), others.len()), ("a0120", 49));
    assert!(others.iter().all(|other| other.id != fresh.id));
}

#[test]
fn an_asset_that_moved_is_found_on_the_neighbouring_page_and_remembered_there() {
    let server = serving(|seen| page_of(&numbered(200), seen.number("page"), 50));
    let fresh = provider(&server).refresh(&asset_on("2", "a0120")).unwrap();
    assert_eq!(
        (fresh.locator.as_str(), pages_asked(&server)),
        ("3", vec![2, 3])
    );
    let fresh = provider(&server).refresh(&asset_on("2", "a0010")).unwrap();
    assert_eq!(fresh.locator, "1");
}

#[test]
fn an_asset_is_looked_for_everywhere_before_it_is_gone() {
    let server = TestServer::start(|seen| match seen.number("page") {
        page if page > 4 => answer(400, r#"{"error":"no such page"}"#),
        page => answer(200, page_of(&numbered(200), page, 50)),
    });
    let found = provider(&server).refresh(&asset_on("9", "a0000")).unwrap();
    assert_eq!(found.locator, "1");
    for locator in ["", "0", "x", "4"] {
        let gone = provider(&server).refresh(&asset_on(locator, "other"));
        assert!(matches!(gone, Err(ProviderError::NotFound)), "{locator}");
    }
}

#[test]
fn ltx_takes_no_uploads_and_deletes_nothing() {
    let server = TestServer::start(|_| Reply::Drop);
    let asset = asset_on("1", "a");
    assert!(matches!(
        provider(&server).delete(&asset),
        Err(ProviderError::Unsupported)
    ));
    assert_eq!(server.count(), 0);
}

#[test]
fn the_large_thumbnail_is_the_preview_and_the_job_is_told() {
    let server = TestServer::start(|_| answer(200, EXAMPLE));
    let details = list(&server).unwrap().remove(0).details.unwrap();
    let preview = details.preview.as_ref().unwrap();
    assert_eq!(preview.expose().path(), "/lt-infinity-prd/images/y");
    let expiry = crate::timestamp::from_epoch_ms(1_748_919_477_389);
    assert_eq!(preview.expires_at(), expiry);
    let job = "email:x:7a34b821-9fd0-205e-d21b-4abc6f7839e7-type:video";
    assert_eq!(details.task_id.as_deref(), Some(job));
    let record: Value = serde_json::from_str(details.record.as_deref().unwrap()).unwrap();
    assert_eq!(record["signedAsset"]["asset"]["mimeType"], "video/mp4");
    let shown = &record["signedAsset"]["assetUrl"];
    assert_eq!(shown, "http://127.0.0.1:1/lt-infinity-prd/artifacts/x?...");
}

#[test]
fn related_assets_of_odd_types_hide_no_asset() {
    for related in [
        json!(null),
        json!([1]),
        json!({"thumbnails": "x"}),
        json!({"thumbnails": {"large": {"assetUrl": 7}}}),
    ] {
        let item = json!({"id": "x", "relatedAssets": related, "jobId": 3});
        let server =
            serving(move |_| json!({"items": [item], "meta": {"totalItems": 1, "totalPages": 1}}));
        let asset = list(&server).unwrap().remove(0);
        let details = asset.details.unwrap();
        assert_eq!(
            (&details.preview, &details.task_id),
            (&None, &None),
            "{related}"
        );
    }
}
