//! LTX Studio by useapi.net, as the page "Retrieve LTX Studio assets" says.
//!
//! The page gives no upper limit to `limit`; here it is 100, and more is refused. A page beyond
//! the last is empty, not an error.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::answer::{Answer, Refused};
use super::asset::LtxAsset;
use super::library::{Held, LTX_THUMBNAIL, patched};
use super::query::Query;
use super::request::{ApiRequest, wrong_method};
use super::shared::Shared;
use super::sign::epoch_ms;

const LIMIT: u64 = 100;

pub(super) fn answer(shared: &Shared, request: &ApiRequest) -> Answer {
    if request.method != Method::GET {
        return wrong_method(&[Method::GET]);
    }
    shared
        .authorized(request)
        .and_then(|()| list(shared, request))
        .map_or_else(Answer::from, |page| Answer::json(200, &page))
}

fn list(shared: &Shared, request: &ApiRequest) -> Result<Value, Refused> {
    let query = Query::parse(&request.query, &["email", "page", "limit", "filter"])?;
    let account = shared.account(&query)?;
    let page = query.number("page", 1..=u64::from(u32::MAX))?.unwrap_or(1);
    let limit = query.number("limit", 1..=LIMIT)?.unwrap_or(20);
    let filter = query.one_of("filter", &["images", "videos", "audio", "other"])?;
    let library = shared.library();
    let shown: Vec<&Held<LtxAsset>> = library
        .ltx
        .iter()
        .rev()
        .filter(|held| shared.account_of(&held.asset.account) == account)
        .filter(|held| filter.is_none_or(|wanted| held.asset.filter() == wanted))
        .collect();
    let items: Vec<Value> = shown
        .iter()
        .skip(((page - 1) * limit) as usize)
        .take(limit as usize)
        .map(|held| patched(described(shared, held, account), &held.asset.patch))
        .collect();
    let total = shown.len() as u64;
    let meta = json!({
        "totalItems": total,
        "itemCount": items.len(),
        "itemsPerPage": limit,
        "totalPages": total.div_ceil(limit),
        "currentPage": page,
    });
    Ok(json!({"items": items, "meta": meta}))
}

fn described(shared: &Shared, held: &Held<LtxAsset>, account: &str) -> Value {
    let mime_type = &held.asset.mime_type;
    let kind = mime_type.split('/').next().unwrap_or_default();
    let asset = json!({
        "type": "artifact",
        "fileId": format!("asset:{}-type:{mime_type}", held.id),
        "mimeType": mime_type,
        "artifactSubtype": "model-serving",
    });
    let thumbnail = json!({
        "type": "image",
        "fileId": format!("{}-thumbnail-large", held.id),
        "mimeType": LTX_THUMBNAIL.content_type,
    });
    let picture = held.preview(&LTX_THUMBNAIL);
    json!({
        "id": held.id,
        "signedAsset": signed(shared, &held.path, asset),
        "relatedAssets": {"thumbnails": {"large": signed(shared, picture, thumbnail)}},
        "jobId": format!("email:{account}:{}-type:{kind}", held.id),
    })
}

/// A URL, when it expires (milliseconds since 1970, as a string), and what it leads to.
fn signed(shared: &Shared, path: &str, asset: Value) -> Value {
    let lifetime: Duration = shared.url_lifetime();
    json!({
        "expirationDateString": epoch_ms(shared.now() + lifetime).to_string(),
        "assetUrl": shared.signed_url(path),
        "asset": asset,
    })
}
