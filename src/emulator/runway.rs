//! Runway by useapi.net, as the pages "Retrieve assets" (list and single) and "Upload asset" say.
//!
//! Stricter than the service: every documented range is checked, an unknown query parameter is
//! refused, an upload needs a Content-Length and a type of the table. Beyond the pages: `DELETE
//! assets/<assetId>` and the optional `duration`, `width` and `height` of an upload.

use hyper::Method;
use hyper::header;
use serde_json::{Value, json};

use super::answer::Answer;
use super::asset::RunwayAsset;
use super::content::Content;
use super::library::{self, Held, RUNWAY_PREVIEW, patched, rfc3339_ms};
use super::query::Query;
use super::request::{ApiRequest, wrong_method};
use super::shared::Shared;
use super::upload_type;

const USER_ID: u64 = 123_456_789;
const USERNAME: &str = "emulated-studio";

/// `rest` is what follows `/v1/runwayml/assets` in the path, decoded.
pub(super) fn answer(shared: &Shared, request: &ApiRequest, rest: &str) -> Answer {
    let asset_id = rest.strip_prefix('/').unwrap_or(rest);
    let answer = match (asset_id, &request.method) {
        ("", &Method::GET) => shared
            .authorized(request)
            .and_then(|()| list(shared, request)),
        ("", &Method::POST) => shared
            .authorized(request)
            .and_then(|()| upload(shared, request)),
        ("", _) => return wrong_method("GET, POST"),
        (id, &Method::GET) => shared
            .authorized(request)
            .and_then(|()| one(shared, request, id)),
        (id, &Method::DELETE) => shared
            .authorized(request)
            .and_then(|()| delete(shared, request, id)),
        _ => return wrong_method("GET, DELETE"),
    };
    answer.unwrap_or_else(|refusal| refusal)
}

fn refused(message: String) -> Answer {
    Answer::useapi_error(400, &message)
}

fn not_found() -> Answer {
    Answer::useapi_error(404, "Not found.")
}

fn list(shared: &Shared, request: &ApiRequest) -> Result<Answer, Answer> {
    let known = ["email", "offset", "limit", "mediaType"];
    let query = Query::parse(&request.query, &known).map_err(refused)?;
    let account = shared.account(&query).map_err(refused)?;
    query.required("offset").map_err(refused)?;
    query.required("limit").map_err(refused)?;
    let offset = query.number("offset", 0..=1000).map_err(refused)?;
    let limit = query.number("limit", 1..=50).map_err(refused)?;
    let media_type = query
        .one_of("mediaType", &["video", "image", "audio"])
        .map_err(refused)?;
    let library = shared.library();
    let page: Vec<Value> = library
        .runway
        .iter()
        .rev()
        .filter(|held| shared.account_of(&held.asset.account) == account)
        .filter(|held| media_type.is_none_or(|wanted| held.asset.media_type == wanted))
        .skip(offset.unwrap_or(0) as usize)
        .take(limit.unwrap_or(0) as usize)
        .map(|held| {
            let mut item = described(shared, &library, held);
            if held.asset.without_url {
                item["url"] = Value::Null;
            }
            patched(item, &held.asset.patch)
        })
        .collect();
    Ok(Answer::json(200, &Value::Array(page)))
}

fn one(shared: &Shared, request: &ApiRequest, asset_id: &str) -> Result<Answer, Answer> {
    Query::parse(&request.query, &[]).map_err(refused)?;
    let library = shared.library();
    let held = library
        .runway
        .iter()
        .find(|held| shared.runway_asset_id(held) == asset_id)
        .ok_or_else(not_found)?;
    let page = patched(described(shared, &library, held), &held.asset.patch);
    Ok(Answer::json(200, &page))
}

fn delete(shared: &Shared, request: &ApiRequest, asset_id: &str) -> Result<Answer, Answer> {
    Query::parse(&request.query, &[]).map_err(refused)?;
    let mut library = shared.library();
    let id = library
        .runway
        .iter()
        .find(|held| shared.runway_asset_id(held) == asset_id)
        .map(|held| held.id.clone())
        .ok_or_else(not_found)?;
    library.remove(&id);
    Ok(Answer::json(200, &json!({"success": true})))
}

fn upload(shared: &Shared, request: &ApiRequest) -> Result<Answer, Answer> {
    let known = ["email", "name", "duration", "width", "height"];
    let query = Query::parse(&request.query, &known).map_err(refused)?;
    let account = shared.account(&query).map_err(refused)?.to_string();
    let name = query.required("name").map_err(refused)?;
    for measure in ["duration", "width", "height"] {
        query.measure(measure).map_err(refused)?;
    }
    let row = request
        .header(header::CONTENT_TYPE)
        .and_then(upload_type::by_content_type)
        .ok_or_else(|| refused("Content-Type is missing or not supported.".to_string()))?;
    if request.header(header::CONTENT_LENGTH).is_none() {
        return Err(Answer::useapi_error(411, "Content-Length is required."));
    }
    if request.body.is_empty() {
        return Err(refused("The body is empty.".to_string()));
    }
    let asset = RunwayAsset::of_type(row, Some(name), Content::stored(request.body.clone()))
        .in_account(&account)
        .uploaded();
    let mut library = shared.library();
    let id = library.add_runway(asset, shared.now());
    let held = library.runway.iter().find(|held| held.id == id);
    let page = held.map(|held| upload_answer(shared, &library, held));
    Ok(Answer::json(200, &page.unwrap_or_default()))
}

/// An item of the list page; the single page has the same shape.
fn described(shared: &Shared, library: &library::Library, held: &Held<RunwayAsset>) -> Value {
    let asset = &held.asset;
    json!({
        "assetId": shared.runway_asset_id(held),
        "id": held.id,
        "createdAt": rfc3339_ms(held.created_at),
        "updatedAt": rfc3339_ms(held.updated_at),
        "name": asset.name,
        "url": shared.signed_url(&held.path),
        "previewUrls": [shared.signed_url(RUNWAY_PREVIEW.path)],
        "mediaType": asset.media_type,
        "mediaSubtype": null,
        "fileCount": 1,
        "fileSize": library.size_bytes(&held.path),
        "fileExtStandardized": asset.extension,
        "isUserUpload": asset.is_user_upload,
        "metadata": asset.metadata,
        "username": USERNAME,
        "userPicture": null,
        "userId": USER_ID,
        "createdBy": USER_ID,
        "private": true,
        "privateInTeam": true,
        "parentAssetGroupId": null,
        "favorite": false,
    })
}

/// The upload page's own shape: `size`, `type`, and objects for the user.
fn upload_answer(shared: &Shared, library: &library::Library, held: &Held<RunwayAsset>) -> Value {
    let user = json!({
        "id": USER_ID, "username": USERNAME, "firstName": "Emu", "lastName": "Lator",
        "picture": null, "teamName": "Emulated", "teamPicture": null,
    });
    json!({
        "assetId": shared.runway_asset_id(held),
        "id": held.id,
        "user": user,
        "createdAt": rfc3339_ms(held.created_at),
        "updatedAt": rfc3339_ms(held.updated_at),
        "name": held.asset.name,
        "description": "",
        "type": {
            "name": held.asset.media_type, "type": held.asset.media_type, "isDirectory": false,
        },
        "size": library.size_bytes(&held.path),
        "url": shared.signed_url(&held.path),
        "previewUrls": [shared.signed_url(RUNWAY_PREVIEW.path)],
        "fileCount": 1,
        "private": true,
        "permissions": {"read": true, "write": true, "admin": true},
        "annotated": false,
        "isUserUpload": true,
        "sourceApplication": "web",
        "createdBy": user,
        "favorite": false,
    })
}
