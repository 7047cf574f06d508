//! One record of a listing: what is read of it, and what an odd one costs.

use super::*;

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
fn a_url_that_the_policy_forbids_is_left_out() {
    let asset = listed_item(json!({ "id": "1", "url": "file:///etc/passwd" })).remove(0);
    assert_eq!(asset.url, None);
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
