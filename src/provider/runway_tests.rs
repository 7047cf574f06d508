use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Barrier, Mutex};

use serde_json::json;

use super::*;
use crate::http::test_server::{Reply, Seen, TestServer, json as answer};
use crate::provider::test_api::api;

const VIDEO: Library = Library::RunwayVideo;

/// "Runway: Retrieve assets": the page's own example, its URL made one.
const LIST_EXAMPLE: &str = r#"[ { "assetId": "user:user_id-runwayml:account_email-asset:asset_uuid", "id": "<asset uuid>", "createdAt": "2024-08-01T01:02:03.456Z", "updatedAt": "2024-08-01T01:02:03.456Z", "name": "Gen-3 Alpha 35801490234, funny cats jumping over.mp4", "url": "http://127.0.0.1:1/a.mp4?_jwt=h.eyJleHAiOjE3NDg5MTk0Nzd9.s", "previewUrls": ["<asset preview url>"], "mediaType": "video", "mediaSubtype": null, "fileCount": 1, "fileSize": 1234567, "fileExtStandardized": "mp4", "isUserUpload": false, "metadata": { "frameRate": 24, "duration": 10.542, "width": 1280, "height": 768, "hasAlphaChannel": false, "hasAudio": true }, "username": "<user name>", "userPicture": null, "userId": 123456789, "createdBy": 123456789, "private": true, "privateInTeam": true, "parentAssetGroupId": "<uuid>", "taskId": "user:user_id-runwayml:account_email-task:task_uuid", "favorite": false } ]"#;

/// "Runway: Retrieve assets" by `assetId`: the page's example.
const SINGLE_EXAMPLE: &str = r#"{ "assetId": "user:user_id-runwayml:account_email-asset:asset_uuid", "id": "<asset uuid>", "createdAt": "2024-08-01T01:02:03.456Z", "updatedAt": "2024-08-01T01:02:03.456Z", "name": "Race car.jpg", "url": "<asset url>", "previewUrls": ["<asset preview url>"], "mediaType": "image", "fileCount": 1, "fileSize": 123456, "fileExtStandardized": "jpeg", "isUserUpload": true, "metadata": null, "username": "<user name>", "userId": 123456789, "createdBy": 123456789, "userPicture": null, "private": true, "privateInTeam": true, "parentAssetGroupId": null, "favorite": false }"#;

/// "Upload asset": the page's example with the braces it lost put back.
const UPLOAD_EXAMPLE: &str = r#"{ "assetId": "user:user_id-runwayml:account_email-asset:asset_uuid", "id": "<asset uuid>", "user": { "id": 1234567, "username": "<user name>" }, "createdAt": "2024-08-01T01:02:03.456Z", "updatedAt": "2024-08-01T01:02:03.456Z", "name": "<asset name>", "description": "", "type": { "name": "image", "type": "image", "isDirectory": false }, "size": 123456789, "url": "http://127.0.0.1:1/b.png?_jwt=x", "previewUrls": ["<asset preview url>"], "fileCount": 1, "private": true, "permissions": { "read": true, "write": true, "admin": true }, "annotated": false, "isUserUpload": true, "sourceApplication": "web", "createdBy": { "id": 1234567 }, "favorite": false }"#;

fn provider(server: &TestServer) -> RunwayProvider {
    RunwayProvider::new(api(server), None)
}

fn list(server: &TestServer) -> Result<Vec<Asset>, ProviderError> {
    provider(server).list(VIDEO)
}

/// Serves `items(offset)` to every request for a page.
fn paged(items: impl Fn(&Seen) -> Vec<String> + Send + Sync + 'static) -> TestServer {
    TestServer::start(move |seen| {
        let page: Vec<Value> = items(seen).iter().map(|id| json!({ "id": id })).collect();
        answer(200, json!(page))
    })
}

fn page_of(ids: &[String], seen: &Seen) -> Vec<String> {
    let (offset, limit) = (seen.number("offset"), seen.number("limit"));
    ids.iter().skip(offset).take(limit).cloned().collect()
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("a{n:04}")).collect()
}

fn ids(assets: &[Asset]) -> Vec<String> {
    assets.iter().map(|asset| asset.id.to_string()).collect()
}

fn offsets(server: &TestServer) -> Vec<usize> {
    let mut offsets: Vec<_> = server.seen().iter().map(|s| s.number("offset")).collect();
    offsets.sort();
    offsets
}

fn listed_item(item: Value) -> Vec<Asset> {
    let server = TestServer::start(move |_| answer(200, json!([item])));
    list(&server).unwrap()
}

fn known_asset() -> Asset {
    let server = TestServer::start(|_| answer(200, LIST_EXAMPLE));
    list(&server).unwrap().remove(0)
}

fn upload<'a>(name: &'a str, content: &[u8]) -> Upload<'a> {
    use std::io::Write;
    let mut body = tempfile::tempfile().unwrap();
    body.write_all(content).unwrap();
    Upload {
        library: Library::RunwayImage,
        name,
        content_type: "image/png",
        body,
        size_bytes: content.len() as u64,
        sent_bytes: Arc::new(AtomicU64::new(0)),
    }
}

#[test]
fn the_pages_example_is_read() {
    let asset = known_asset();
    assert_eq!(asset.id.as_str(), "<asset uuid>");
    assert_eq!(
        asset.locator,
        "user:user_id-runwayml:account_email-asset:asset_uuid"
    );
    assert_eq!(
        asset.name.as_deref(),
        Some("Gen-3 Alpha 35801490234, funny cats jumping over.mp4")
    );
    assert_eq!(
        (asset.extension.as_deref(), asset.size_bytes),
        (Some("mp4"), Some(1_234_567))
    );
    let created = crate::timestamp::from_epoch_ms(1_722_474_123_456);
    assert_eq!((asset.created_at, asset.updated_at), (created, created));
    let url = asset.url.unwrap();
    assert_eq!(
        url.expires_at(),
        crate::timestamp::from_epoch_seconds(1_748_919_477)
    );
}

#[test]
fn a_listing_asks_as_the_page_says() {
    let server = TestServer::start(|_| answer(200, "[]"));
    let provider = RunwayProvider::new(api(&server), Some("a+b@c.example".into()));
    assert!(provider.list(Library::RunwayAudio).unwrap().is_empty());
    let seen = &server.seen()[0];
    assert!(
        seen.target
            .starts_with("/v1/runwayml/assets/?offset=0&limit=50"),
        "{}",
        seen.target
    );
    assert_eq!(seen.query("mediaType").as_deref(), Some("audio"));
    assert_eq!(seen.query("email").as_deref(), Some("a+b@c.example"));
    assert_eq!(server.count(), 1);
}

#[test]
fn an_asset_of_nulls_wrong_types_and_unknown_fields_costs_nothing_but_its_fields() {
    let odd = json!({
        "id": "x", "assetId": null, "name": 7, "url": null, "createdAt": "yesterday",
        "updatedAt": 1_722_474_123_456u64, "fileSize": "12", "fileExtStandardized": "", "metadata": [],
        "mediaType": 3, "new": { "deep": [1] }
    });
    let asset = listed_item(odd).remove(0);
    assert_eq!(
        (asset.name, asset.url, asset.size_bytes),
        (None, None, None)
    );
    assert_eq!((asset.extension, asset.created_at), (None, None));
    assert_eq!(
        asset.updated_at,
        crate::timestamp::from_epoch_ms(1_722_474_123_456)
    );
    for metadata in [
        json!(null),
        json!({ "frameRate": 24, "dimensions": [1, 2], "size": { "width": 1, "height": 2 } }),
    ] {
        assert_eq!(
            listed_item(json!({ "id": "y", "metadata": metadata })).len(),
            1
        );
    }
}

#[test]
fn a_size_of_nothing_is_left_for_the_asset_host_to_tell() {
    let listed = listed_item(json!({ "id": "a", "fileSize": 0 }));
    assert_eq!(listed[0].size_bytes, None);
}

#[test]
fn an_identity_is_found_wherever_there_is_one() {
    let id = |item| listed_item(item).first().map(|asset| asset.id.to_string());
    assert_eq!(
        id(json!({ "assetId": "user:1-runwayml:e-asset:u7" })),
        Some("u7".into())
    );
    assert_eq!(id(json!({ "assetId": "odd" })), Some("odd".into()));
    assert_eq!(
        id(json!({ "url": "http://127.0.0.1:1/p/a.mp4?_jwt=new" })),
        Some("127.0.0.1/p/a.mp4".into())
    );
    assert_eq!(id(json!({ "name": "nobody.mp4" })), None);
}

#[test]
fn a_page_in_another_format_is_an_error_and_no_empty_library() {
    let page = json!([{ "assetId": 7, "name": ["a"], "createdAt": 24 }]);
    let server = TestServer::start(move |_| answer(200, page.clone()));
    let error = list(&server).unwrap_err();
    assert!(matches!(error, ProviderError::Malformed(_)), "{error}");
}

#[test]
fn an_asset_of_another_library_is_not_shown_but_one_of_an_unknown_kind_is() {
    assert!(listed_item(json!({ "id": "1", "mediaType": "image" })).is_empty());
    assert_eq!(
        listed_item(json!({ "id": "1", "mediaType": "hologram" })).len(),
        1
    );
}

#[test]
fn a_url_that_the_policy_forbids_is_left_out() {
    let asset = listed_item(json!({ "id": "1", "url": "file:///etc/passwd" })).remove(0);
    assert_eq!(asset.url, None);
}

#[test]
fn a_page_that_is_not_a_list_of_objects_is_an_error_for_all() {
    for page in ["{}", "null", "[1]", "[{\"id\":\"1\"}, null]", "\"x\""] {
        let server = TestServer::start(move |_| answer(200, page));
        let error = list(&server).unwrap_err();
        assert!(
            matches!(error, ProviderError::Malformed(_)),
            "{page}: {error}"
        );
    }
}

#[test]
fn a_failed_page_fails_the_listing() {
    let all = numbered(120);
    let server = TestServer::start(move |seen| match seen.number("offset") {
        98 => answer(400, r#"{"error":"no","code":400}"#),
        _ => answer(
            200,
            json!(
                page_of(&all, seen)
                    .iter()
                    .map(|id| json!({ "id": id }))
                    .collect::<Vec<_>>()
            ),
        ),
    });
    assert!(matches!(list(&server), Err(ProviderError::Refused { .. })));
}

#[test]
fn every_asset_is_listed_once_in_order_whatever_their_number() {
    for count in [0, 1, 49, 50, 51, 98, 99, 100, 149, 333, 1000, 1049, 1050] {
        let all = numbered(count);
        let shown = all.clone();
        let server = paged(move |seen| page_of(&shown, seen));
        assert_eq!(ids(&list(&server).unwrap()), all, "{count}");
    }
}

#[test]
fn no_offset_goes_beyond_what_the_page_allows_and_the_rest_is_told_once() {
    let all = numbered(2000);
    let server = paged(move |seen| page_of(&all, seen));
    let provider = provider(&server);
    let listed = provider.list(VIDEO).unwrap();
    assert_eq!(ids(&listed), numbered(MOST_LISTED));
    let asked = offsets(&server);
    assert_eq!(
        (asked.len(), asked.last()),
        (Cut { limit: PAGE }.pages(), Some(&1000))
    );
}

/// The wave that a page is asked for in: of 1, 3, 10 and 8.
fn wave_of(seen: &Seen) -> usize {
    match seen.number("offset").div_ceil(Cut { limit: PAGE }.step()) {
        0 => 0,
        1..4 => 1,
        4..14 => 2,
        _ => 3,
    }
}

/// What the issue of speed asks for: at most six round trips and the connect. Each wave is one,
/// and connections are opened meanwhile.
#[test]
fn a_thousand_assets_take_four_waves() {
    // Each page waits for all others of its wave: pages asked for one by one would never come.
    let waves: Vec<Barrier> = [1, 3, 10, 8].map(Barrier::new).into();
    let all = numbered(1_000);
    let server = paged(move |seen| {
        waves[wave_of(seen)].wait();
        page_of(&all, seen)
    });
    assert_eq!(list(&server).unwrap().len(), 1_000);
    assert_eq!(server.count(), 22);
}

#[test]
fn a_page_is_asked_for_as_soon_as_one_of_ten_has_come() {
    // The third wave's first page waits for the last page of all.
    let last_page = Cut { limit: PAGE }.pages() - 1;
    let both = Barrier::new(2);
    let all = numbered(MOST_LISTED);
    let server = paged(move |seen| {
        let page = seen.number("offset").div_ceil(Cut { limit: PAGE }.step());
        if page == 4 || page == last_page {
            both.wait();
        }
        page_of(&all, seen)
    });
    assert_eq!(list(&server).unwrap().len(), MOST_LISTED);
}

#[test]
fn few_pages_are_asked_for_in_vain() {
    for (count, most) in [(0, 1), (7, 2), (50, 4), (60, 4), (145, 4), (200, 14)] {
        let all = numbered(count);
        let server = paged(move |seen| page_of(&all, seen));
        assert_eq!(list(&server).unwrap().len(), count);
        assert!(server.count() <= most, "{count}: {}", server.count());
    }
}

#[test]
fn a_service_that_gives_fewer_a_page_than_asked_for_is_listed_whole() {
    for (clamp, count) in [
        (20, 120),
        (20, 21),
        (20, 20),
        (20, 40),
        (49, 300),
        (1, 3),
        (2, 9),
    ] {
        let all = numbered(count);
        let served = all.clone();
        let server = paged(move |seen| {
            let limit = seen.number("limit").min(clamp);
            served
                .iter()
                .skip(seen.number("offset"))
                .take(limit)
                .cloned()
                .collect()
        });
        assert_eq!(ids(&list(&server).unwrap()), all, "{count} by {clamp}");
    }
}

#[test]
fn a_short_page_is_the_end_once_a_longer_one_was_seen() {
    let counts = Mutex::new(vec![7, 30]);
    let server = paged(move |seen| {
        let counts = counts.lock().unwrap();
        let is_image = seen.query("mediaType").as_deref() == Some("image");
        page_of(&numbered(counts[usize::from(!is_image)]), seen)
    });
    let provider = provider(&server);
    provider.list(VIDEO).unwrap();
    assert_eq!(
        offsets(&server),
        [0, 30],
        "the asset after the page is asked for"
    );
    provider.list(Library::RunwayImage).unwrap();
    assert_eq!(offsets(&server), [0, 0, 30]);
}

#[test]
fn a_deletion_between_pages_makes_the_listing_again() {
    let server = shifting(|ids| {
        ids.drain(0..2);
    });
    let listed = ids(&list(&server).unwrap());
    assert_eq!(listed, numbered(120)[2..]);
}

#[test]
fn an_asset_added_between_pages_is_no_reason_to_list_again() {
    let server = shifting(|ids| ids.insert(0, "new".into()));
    assert_eq!(ids(&list(&server).unwrap()), numbered(120));
    assert_eq!(offsets(&server), [0, 49, 98, 147]);
}

#[test]
fn assets_that_vanish_so_that_the_next_page_is_empty_make_the_listing_again() {
    let server = shifting(|ids| ids.truncate(30));
    assert_eq!(ids(&list(&server).unwrap()), numbered(30));
}

/// 120 assets that `change` after the first page was given.
fn shifting(change: impl Fn(&mut Vec<String>) + Send + Sync + 'static) -> TestServer {
    let ids = Mutex::new((numbered(120), false));
    paged(move |seen| {
        let mut state = ids.lock().unwrap();
        let page = page_of(&state.0, seen);
        if !state.1 {
            change(&mut state.0);
            state.1 = true;
        }
        page
    })
}

#[test]
fn a_service_that_sorts_differently_each_time_is_listed_all_the_same() {
    // Pages never meet, but both passes bring the same assets.
    let server = paged(move |seen| {
        let all = numbered(60);
        match seen.number("offset") {
            0 => all[..50].to_vec(),
            _ => all[50..].to_vec(),
        }
    });
    assert_eq!(ids(&list(&server).unwrap()), numbered(60));
    assert_eq!(server.count(), 8, "two passes over four pages");
}

#[test]
fn renewing_asks_for_the_asset_by_its_asset_id_and_keeps_its_identity() {
    let server = TestServer::start(|_| answer(200, SINGLE_EXAMPLE));
    let asset = known_asset();
    let fresh = provider(&server).refresh(&asset).unwrap();
    assert_eq!(
        server.seen()[0].target,
        "/v1/runwayml/assets/user:user_id-runwayml:account_email-asset:asset_uuid"
    );
    assert_eq!((fresh.id, fresh.library), (asset.id, VIDEO));
    assert_eq!(fresh.name.as_deref(), Some("Race car.jpg"));
    assert_eq!((fresh.size_bytes, fresh.url), (Some(123_456), None));
}

#[test]
fn renewing_says_when_the_asset_is_gone_or_another_was_answered() {
    let asset = known_asset();
    let gone = TestServer::start(|_| answer(404, r#"{ "error": "Not found.", "code": 404 }"#));
    assert!(matches!(
        provider(&gone).refresh(&asset),
        Err(ProviderError::NotFound)
    ));
    let other = TestServer::start(|_| answer(200, r#"{"id":"other","assetId":"a-asset:other"}"#));
    assert!(matches!(
        provider(&other).refresh(&asset),
        Err(ProviderError::Malformed(_))
    ));
}

#[test]
fn an_asset_without_an_asset_id_is_renewed_by_listing() {
    let server = paged(|_| vec!["one".into(), "two".into()]);
    let asset = |id: &str| Asset {
        id: AssetId::new(id),
        locator: String::new(),
        ..known_asset()
    };
    assert_eq!(
        provider(&server)
            .refresh(&asset("two"))
            .unwrap()
            .id
            .as_str(),
        "two"
    );
    assert!(matches!(
        provider(&server).refresh(&asset("three")),
        Err(ProviderError::NotFound)
    ));
}

#[test]
fn an_upload_is_posted_as_the_page_says_and_its_answer_is_read() {
    let server = TestServer::start(|_| answer(200, UPLOAD_EXAMPLE));
    let provider = RunwayProvider::new(api(&server), Some("a@b.example".into()));
    let asset = provider.upload(upload("my cat.png", b"bytes")).unwrap();
    assert_eq!(
        (asset.id.as_str(), asset.library),
        ("<asset uuid>", Library::RunwayImage)
    );
    assert_eq!(
        (asset.name.as_deref(), asset.size_bytes),
        (Some("<asset name>"), Some(123_456_789))
    );
    assert!(asset.url.is_some());
    let seen = &server.seen()[0];
    assert_eq!(seen.method, "POST");
    assert_eq!(
        seen.target,
        "/v1/runwayml/assets/?name=my%20cat.png&email=a%40b.example"
    );
    assert_eq!(seen.header("content-type"), Some("image/png"));
    assert_eq!(seen.body, b"bytes");
}

#[test]
fn an_upload_whose_answer_names_no_asset_counts_as_a_lost_answer() {
    for said in ["{}", "[]", r#"{"url":"http://127.0.0.1:1/a"}"#] {
        let server = TestServer::start(move |_| answer(200, said));
        let lost = provider(&server).upload(upload("a.png", b"x")).unwrap_err();
        assert!(
            matches!(lost, ProviderError::AnswerLost(_)),
            "{said}: {lost}"
        );
    }
}

#[test]
fn an_upload_without_a_name_in_its_answer_has_the_name_it_was_given() {
    let server = TestServer::start(|_| answer(200, r#"{"id":"1"}"#));
    let asset = provider(&server).upload(upload("a.png", b"x")).unwrap();
    assert_eq!(asset.name.as_deref(), Some("a.png"));
}

#[test]
fn an_uploads_failures_have_their_meanings() {
    let by_status: BTreeMap<u16, fn(&ProviderError) -> bool> = BTreeMap::from([
        (
            401,
            (|e| matches!(e, ProviderError::Denied(_))) as fn(&ProviderError) -> bool,
        ),
        (402, |e| matches!(e, ProviderError::Quota(_))),
        (404, |e| matches!(e, ProviderError::Unavailable { .. })),
        (415, |e| {
            matches!(e, ProviderError::Refused { status: 415, .. })
        }),
        (429, |e| matches!(e, ProviderError::RateLimited { .. })),
        (500, |e| matches!(e, ProviderError::AnswerLost(_))),
    ]);
    for (status, fits) in by_status {
        let server = TestServer::start(move |_| answer(status, r#"{"error":"no"}"#));
        let error = provider(&server).upload(upload("a.png", b"x")).unwrap_err();
        assert!(fits(&error), "{status}: {error}");
    }
}

#[test]
fn a_deletion_is_believed_only_when_the_service_says_so() {
    let delete = |status: u16, said: &'static str| {
        let server = TestServer::start(move |_| answer(status, said));
        let outcome = provider(&server).delete(&known_asset());
        let seen = server.seen().remove(0);
        assert_eq!(seen.method, "DELETE");
        assert!(
            seen.target.ends_with("-asset:asset_uuid"),
            "{}",
            seen.target
        );
        outcome
    };
    assert!(delete(200, r#"{"success":true}"#).is_ok());
    assert!(delete(204, "").is_ok());
    assert!(matches!(
        delete(200, r#"{"success":false}"#),
        Err(ProviderError::Refused { .. })
    ));
    assert!(matches!(
        delete(200, "{}"),
        Err(ProviderError::Malformed(_))
    ));
    assert!(matches!(
        delete(404, r#"{"error":"x"}"#),
        Err(ProviderError::NotFound)
    ));
}

#[test]
fn deleting_what_has_no_asset_id_never_asks_for_the_whole_library() {
    let server = TestServer::start(|seen| match seen.method.as_str() {
        "GET" => answer(200, json!([{ "id": "1" }])),
        _ => Reply::Drop,
    });
    let asset = Asset {
        id: AssetId::new("1"),
        locator: String::new(),
        ..known_asset()
    };
    assert!(provider(&server).delete(&asset).is_err());
    assert!(server.seen().iter().all(|seen| seen.method == "GET"));
}

#[test]
fn other_services_libraries_are_not_listed() {
    let server = TestServer::start(|_| Reply::Drop);
    assert!(matches!(
        provider(&server).list(Library::LtxAudio),
        Err(ProviderError::Unsupported)
    ));
}

fn details_of(item: Value) -> Details {
    let assets = listed_item(item);
    assets[0].details.as_deref().cloned().unwrap_or_default()
}

#[test]
fn the_pages_example_tells_what_people_want_to_know() {
    let asset = known_asset();
    let details = asset.details.unwrap();
    let pixels = (details.width_px, details.height_px);
    assert_eq!(pixels, (Some(1280), Some(768)));
    assert_eq!(details.duration_s, Some(10.542));
    assert_eq!(details.frame_rate, Some(24.0));
    assert_eq!(
        (details.has_audio, details.favorite),
        (Some(true), Some(false))
    );
    let task = "user:user_id-runwayml:account_email-task:task_uuid";
    assert_eq!(details.task_id.as_deref(), Some(task));
    assert_eq!(details.preview, None, "the example's is no URL");
    let record: Value = serde_json::from_str(details.record.as_deref().unwrap()).unwrap();
    let mut page: Value = serde_json::from_str(LIST_EXAMPLE).unwrap();
    page[0]["url"] = json!("http://127.0.0.1:1/a.mp4?...");
    assert_eq!(record, page[0]);
}

#[test]
fn metadata_is_read_in_its_older_shape() {
    let details = details_of(json!({"id": "x", "metadata": {
        "frameRate": 24, "duration": 10.542, "dimensions": [1280, 768],
        "size": {"width": 1280, "height": 768},
    }}));
    assert_eq!(
        (details.width_px, details.height_px),
        (Some(1280), Some(768))
    );
    let details = details_of(json!({"id": "x", "metadata": {"dimensions": [640.0, 480]}}));
    assert_eq!(
        (details.width_px, details.height_px),
        (Some(640), Some(480))
    );
    assert_eq!((details.duration_s, details.has_audio), (None, None));
}

#[test]
fn metadata_of_odd_types_is_absent_and_costs_nothing_else() {
    for metadata in [
        json!(null),
        json!([]),
        json!("x"),
        json!({"frameRate": "24", "duration": -1, "width": 1.5, "height": null, "hasAudio": 1,
            "dimensions": "12", "size": [1]}),
        json!({"dimensions": [null], "size": {"width": {}}, "duration": []}),
    ] {
        let item = json!({"id": "x", "name": "a.mp4", "metadata": metadata, "favorite": "no",
            "taskId": 7, "previewUrls": {"a": 1}});
        let asset = listed_item(item).remove(0);
        assert_eq!(asset.name.as_deref(), Some("a.mp4"));
        let details = asset.details.as_deref().cloned().unwrap();
        let nothing = Details {
            record: details.record.clone(),
            ..Details::default()
        };
        assert_eq!(details, nothing, "{metadata}");
    }
}

#[test]
fn the_first_preview_that_may_be_asked_for_is_taken() {
    let previews = json!([null, "file:///etc/passwd", "http://127.0.0.1:1/p.png?sig=1"]);
    let details = details_of(json!({"id": "x", "previewUrls": previews}));
    let preview = details.preview.unwrap();
    assert_eq!(preview.expose().as_str(), "http://127.0.0.1:1/p.png?sig=1");
    assert!(!details.record.unwrap().contains("sig"));
}

#[test]
fn a_record_that_is_too_long_is_not_kept_and_the_rest_is() {
    let details = details_of(json!({
        "id": "x", "favorite": true, "prompt": "x".repeat(MAX_RECORD_BYTES),
    }));
    assert_eq!((details.record, details.favorite), (None, Some(true)));
}
