//! The provider against answers like the pages' own. Here is the vocabulary; each file below holds the
//! behaviours of one subject.

mod listing;
mod one_asset;
mod records;

use serde_json::json;

use super::*;
use crate::http::test_server::{Seen, TestServer, json as answer};
use crate::provider::test_api::api;

const VIDEO: Library = Library::RunwayVideo;

/// "Runway: Retrieve assets": the page's own example, its URL made one.
const LIST_EXAMPLE: &str = r#"[ { "assetId": "user:user_id-runwayml:account_email-asset:asset_uuid", "id": "<asset uuid>", "createdAt": "2024-08-01T01:02:03.456Z", "updatedAt": "2024-08-01T01:02:03.456Z", "name": "Gen-3 Alpha 35801490234, funny cats jumping over.mp4", "url": "http://127.0.0.1:1/a.mp4?_jwt=h.eyJleHAiOjE3NDg5MTk0Nzd9.s", "previewUrls": ["<asset preview url>"], "mediaType": "video", "mediaSubtype": null, "fileCount": 1, "fileSize": 1234567, "fileExtStandardized": "mp4", "isUserUpload": false, "metadata": { "frameRate": 24, "duration": 10.542, "width": 1280, "height": 768, "hasAlphaChannel": false, "hasAudio": true }, "username": "<user name>", "userPicture": null, "userId": 123456789, "createdBy": 123456789, "private": true, "privateInTeam": true, "parentAssetGroupId": "<uuid>", "taskId": "user:user_id-runwayml:account_email-task:task_uuid", "favorite": false } ]"#;

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

fn ids(assets: &[Asset]) -> Vec<String> {
    assets.iter().map(|asset| asset.id.to_string()).collect()
}

fn listed_item(item: Value) -> Vec<Asset> {
    let server = TestServer::start(move |_| answer(200, json!([item])));
    list(&server).unwrap()
}

fn known_asset() -> Asset {
    let server = TestServer::start(|_| answer(200, LIST_EXAMPLE));
    list(&server).unwrap().remove(0)
}
