//! Runway by useapi.net, as the pages "Retrieve assets" (list and single) and "Upload asset" say.
//!
//! Stricter than the service: every documented range is checked, an unknown query parameter is
//! refused, an upload needs a Content-Length and a type of the table. Beyond the pages: `DELETE
//! assets/<assetId>` and the optional `duration`, `width` and `height` of an upload.

use hyper::Method;
use hyper::header;
use serde_json::{Value, json};

use super::answer::{Answer, Refused};
use super::asset::RunwayAsset;
use super::content::Content;
use super::library::{Held, Library, RUNWAY_PREVIEW, patched, rfc3339_ms};
use super::query::Query;
use super::request::{ApiRequest, wrong_method};
use super::shared::Shared;
use super::upload_type;

const USER_ID: u64 = 123_456_789;
const USERNAME: &str = "emulated-studio";

/// `rest` is what follows `/v1/runwayml/assets` in the path, decoded.
pub(super) fn answer(shared: &Shared, request: &ApiRequest, rest: &str) -> Answer {
    let asset_id = rest.strip_prefix('/').unwrap_or(rest);
    let allowed: &[Method] = match asset_id {
        "" => &[Method::GET, Method::POST],
        _ => &[Method::GET, Method::DELETE],
    };
    if !allowed.contains(&request.method) {
        return wrong_method(allowed);
    }
    shared
        .authorized(request)
        .and_then(|()| match (asset_id, request.method == Method::GET) {
            ("", true) => list(shared, request),
            ("", false) => upload(shared, request),
            (id, true) => one(shared, request, id),
            (id, false) => delete(shared, request, id),
        })
        .map_or_else(Answer::from, |page| Answer::json(200, &page))
}

fn not_found() -> Refused {
    Refused::new(404, "Not found.")
}

fn list(shared: &Shared, request: &ApiRequest) -> Result<Value, Refused> {
    let known = ["email", "offset", "limit", "mediaType"];
    let query = Query::parse(&request.query, &known)?;
    let account = shared.account(&query)?;
    query.required("offset")?;
    query.required("limit")?;
    let offset = query.number("offset", 0..=1000)?;
    let limit = query.number("limit", 1..=50)?;
    let media_type = query.one_of("mediaType", &["video", "image", "audio"])?;
    let (lag, now) = (shared.settings().listing_lag, shared.now());
    let library = shared.library();
    let page: Vec<Value> = library
        .runway
        .iter()
        .rev()
        .filter(|held| shared.account_of(&held.asset.account) == account)
        .filter(|held| held.created_at + lag <= now)
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
    Ok(Value::Array(page))
}

fn one(shared: &Shared, request: &ApiRequest, asset_id: &str) -> Result<Value, Refused> {
    Query::parse(&request.query, &[])?;
    let library = shared.library();
    let held = found(shared, &library, asset_id).ok_or_else(not_found)?;
    Ok(patched(
        described(shared, &library, held),
        &held.asset.patch,
    ))
}

fn found<'a>(
    shared: &Shared,
    library: &'a Library,
    asset_id: &str,
) -> Option<&'a Held<RunwayAsset>> {
    let (_, id) = asset_id.rsplit_once("-asset:")?;
    let mut assets = library.runway.iter();
    assets.find(|held| held.id == id && shared.runway_asset_id(held) == asset_id)
}

fn delete(shared: &Shared, request: &ApiRequest, asset_id: &str) -> Result<Value, Refused> {
    Query::parse(&request.query, &[])?;
    let mut library = shared.library();
    let held = found(shared, &library, asset_id).ok_or_else(not_found)?;
    let id = held.id.clone();
    library.remove(&id);
    Ok(json!({"success": true}))
}

fn upload(shared: &Shared, request: &ApiRequest) -> Result<Value, Refused> {
    let known = ["email", "name", "duration", "width", "height"];
    let query = Query::parse(&request.query, &known)?;
    let account = shared.account(&query)?.to_string();
    let name = query.required("name")?;
    for measure in ["duration", "width", "height"] {
        query.measure(measure)?;
    }
    let row = request
        .header(header::CONTENT_TYPE)
        .and_then(upload_type::by_content_type)
        .ok_or_else(|| Refused::new(400, "Content-Type is missing or not supported."))?;
    if request.header(header::CONTENT_LENGTH).is_none() {
        return Err(Refused::new(411, "Content-Length is required."));
    }
    if request.body.is_empty() {
        return Err(Refused::new(400, "The body is empty."));
    }
    let asset = RunwayAsset::of_type(row, Some(name), Content::stored(request.body.clone()))
        .in_account(&account)
        .uploaded();
    let mut library = shared.library();
    let id = library.add_runway(asset, shared.now());
    let held = library.runway.iter().find(|held| held.id == id);
    let page = held.map(|held| upload_answer(shared, &library, held));
    Ok(page.unwrap_or_default())
}

/// An item of the list page; the single page has the same shape.
fn described(shared: &Shared, library: &Library, held: &Held<RunwayAsset>) -> Value {
    let asset = &held.asset;
    json!({
        "assetId": shared.runway_asset_id(held),
        "id": held.id,
        "createdAt": rfc3339_ms(held.created_at),
        "updatedAt": rfc3339_ms(held.updated_at),
        "name": asset.name,
        "url": shared.signed_url(&held.path),
        "previewUrls": [shared.signed_url(held.preview(&RUNWAY_PREVIEW))],
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
fn upload_answer(shared: &Shared, library: &Library, held: &Held<RunwayAsset>) -> Value {
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
        "previewUrls": [shared.signed_url(held.preview(&RUNWAY_PREVIEW))],
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
