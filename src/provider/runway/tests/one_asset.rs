//! One asset: renewed, uploaded, deleted.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::http::test_server::Reply;

/// "Runway: Retrieve assets" by `assetId`: the page's example.
const SINGLE_EXAMPLE: &str = r#"{ "assetId": "user:user_id-runwayml:account_email-asset:asset_uuid", "id": "<asset uuid>", "createdAt": "2024-08-01T01:02:03.456Z", "updatedAt": "2024-08-01T01:02:03.456Z", "name": "Race car.jpg", "url": "<asset url>", "previewUrls": ["<asset preview url>"], "mediaType": "image", "fileCount": 1, "fileSize": 123456, "fileExtStandardized": "jpeg", "isUserUpload": true, "metadata": null, "username": "<user name>", "userId": 123456789, "createdBy": 123456789, "userPicture": null, "private": true, "privateInTeam": true, "parentAssetGroupId": null, "favorite": false }"#;

/// "Upload asset": the page's example with the braces it lost put back.
const UPLOAD_EXAMPLE: &str = r#"{ "assetId": "user:user_id-runwayml:account_email-asset:asset_uuid", "id": "<asset uuid>", "user": { "id": 1234567, "username": "<user name>" }, "createdAt": "2024-08-01T01:02:03.456Z", "updatedAt": "2024-08-01T01:02:03.456Z", "name": "<asset name>", "description": "", "type": { "name": "image", "type": "image", "isDirectory": false }, "size": 123456789, "url": "http://127.0.0.1:1/b.png?_jwt=x", "previewUrls": ["<asset preview url>"], "fileCount": 1, "private": true, "permissions": { "read": true, "write": true, "admin": true }, "annotated": false, "isUserUpload": true, "sourceApplication": "web", "createdBy": { "id": 1234567 }, "favorite": false }"#;

fn upload<'a>(name: &'a str, content: &[u8]) -> Upload<'a> {
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
