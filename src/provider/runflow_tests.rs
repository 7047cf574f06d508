use super::*;
use crate::http::test_server::{TestServer, json as answer};
use crate::provider::test_api::api;

const UUID: &str = "3c90c3cc-0d44-4b50-8888-8dd25736052a";

/// "Get asset", api.runflow.io: the page's example, not deleted.
const EXAMPLE: &str = r#"{ "id": "3c90c3cc-0d44-4b50-8888-8dd25736052a", "org_id": "3c90c3cc-0d44-4b50-8888-8dd25736052a", "folder_id": null, "name": "<string>", "r2_key": "<string>", "url": "http://127.0.0.1:1/k?X-Amz-Date=20250603T025757Z&X-Amz-Expires=900", "thumbnail_url": "<string>", "mime_type": "<string>", "size_bytes": 123, "asset_type": "<string>", "source_type": "<string>", "source_id": "<string>", "created_by": null, "created_at": "2023-11-07T05:31:56Z", "updated_at": "2023-11-07T05:31:56Z", "deleted_at": null, "deleted_by": null, "created_by_user": { "id": "3c90c3cc-0d44-4b50-8888-8dd25736052a", "email": "<string>" } }"#;

fn find(server: &TestServer) -> Result<Asset, ProviderError> {
    RunflowProvider::new(api(server), None).find(&AssetId::new(UUID))
}

#[test]
fn the_pages_example_is_read() {
    let server = TestServer::start(|_| answer(200, EXAMPLE));
    let asset = find(&server).unwrap();
    assert_eq!((asset.id.as_str(), asset.locator.as_str()), (UUID, UUID));
    assert_eq!(
        (asset.name.as_deref(), asset.size_bytes),
        (Some("<string>"), Some(123))
    );
    assert_eq!(asset.mime_type.as_deref(), Some("<string>"));
    let at = crate::timestamp::from_epoch_seconds(1_699_335_116);
    assert_eq!((asset.created_at, asset.updated_at), (at, at));
    let expiry = crate::timestamp::from_epoch_seconds(1_748_919_477 + 900);
    assert_eq!(asset.url.unwrap().expires_at(), expiry);
}

#[test]
fn it_is_asked_for_by_its_uuid_with_the_organization_where_one_is_set() {
    let server = TestServer::start(|_| answer(200, EXAMPLE));
    find(&server).unwrap();
    let organized = RunflowProvider::new(api(&server), Some("org-1".into()));
    organized.find(&AssetId::new(UUID)).unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].target, format!("/v1/assets/{UUID}"));
    assert_eq!(seen[0].header("x-organization-id"), None);
    assert_eq!(seen[1].header("x-organization-id"), Some("org-1"));
}

#[test]
fn an_asset_of_nulls_is_an_asset_of_the_id_asked_for() {
    for said in [
        "{}",
        r#"{"id":null,"url":null,"size_bytes":null}"#,
        r#"{"id":"other","size_bytes":"1"}"#,
    ] {
        let server = TestServer::start(move |_| answer(200, said));
        let asset = find(&server).unwrap();
        assert_eq!(
            (asset.id.as_str(), asset.size_bytes, asset.url),
            (UUID, None, None)
        );
    }
}

#[test]
fn a_deleted_or_unknown_asset_is_not_there() {
    let deleted = TestServer::start(|_| answer(200, r#"{"deleted_at":"2023-11-07T05:31:56Z"}"#));
    assert!(matches!(find(&deleted), Err(ProviderError::NotFound)));
    let unknown = TestServer::start(|_| {
        answer(
            404,
            r#"{"code":"not_found","message":"Asset not found","errors":[]}"#,
        )
    });
    assert!(matches!(find(&unknown), Err(ProviderError::NotFound)));
}

#[test]
fn its_refusals_name_runflows_own_variable() {
    let server = TestServer::start(|_| {
        answer(
            401,
            r#"{"code":"unauthorized","message":"Bad token","errors":null}"#,
        )
    });
    let error = find(&server).unwrap_err();
    assert!(
        matches!(&error, ProviderError::Denied(text) if text.contains("RUNFLOW_TOKEN") && text.contains("Bad token")),
        "{error}"
    );
}

#[test]
fn an_answer_that_is_no_object_is_malformed() {
    let server = TestServer::start(|_| answer(200, "[]"));
    assert!(matches!(find(&server), Err(ProviderError::Malformed(_))));
}

#[test]
fn runflow_cannot_be_listed() {
    let server = TestServer::start(|_| answer(200, "[]"));
    let provider = RunflowProvider::new(api(&server), None);
    assert!(matches!(
        provider.list(Library::Runflow),
        Err(ProviderError::Unsupported)
    ));
    assert_eq!(server.count(), 0);
}

#[test]
fn its_thumbnail_is_the_preview_and_its_record_is_kept_without_what_signs() {
    let said = EXAMPLE.replace(
        r#""thumbnail_url": "<string>""#,
        r#""thumbnail_url": "http://127.0.0.1:1/t.png?X-Amz-Signature=abc""#,
    );
    let server = TestServer::start(move |_| answer(200, &said));
    let details = find(&server).unwrap().details.unwrap();
    assert_eq!(details.preview.as_ref().unwrap().expose().path(), "/t.png");
    let record = details.record.as_deref().unwrap();
    assert!(
        !record.contains("X-Amz") && record.contains("/t.png?..."),
        "{record}"
    );
}
