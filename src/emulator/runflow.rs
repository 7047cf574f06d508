//! Runflow, as the page "Get asset" says. Errors are `{code, message, errors}`.
//!
//! Stricter than the service: an id that is no UUID and an unknown `embed` are 422, an unknown
//! query parameter 400. `created_by_user` is null unless embedded. A deleted asset has
//! `deleted_at` and no URL.

use hyper::Method;
use hyper::header;
use serde_json::{Value, json};
use uuid::Uuid;

use super::answer::Answer;
use super::asset::{Presence, RunflowAsset};
use super::library::{Held, RUNFLOW_THUMBNAIL, patched, rfc3339_s};
use super::query::Query;
use super::request::ApiRequest;
use super::shared::Shared;

const ORGANIZATION: &str = "3c90c3cc-0d44-4b50-8888-8dd25736052a";
const USER: &str = "7f3b8a52-64c1-4f0e-9d7b-2a9c5e1d0b48";

/// A refusal in Runflow's own words.
struct Refused {
    status: u16,
    code: &'static str,
    message: String,
    errors: Value,
}

impl Refused {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            errors: Value::Null,
        }
    }

    fn invalid(errors: Value) -> Self {
        Self {
            errors,
            ..Self::new(422, "validation_error", "The request is invalid.")
        }
    }
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Self {
        let Refused {
            status,
            code,
            message,
            errors,
        } = refused;
        Answer::runflow_invalid(status, code, &message, errors)
    }
}

/// `id` is the last segment of `/v1/assets/{id}`, decoded.
pub(super) fn answer(shared: &Shared, request: &ApiRequest, id: &str) -> Answer {
    if request.method != Method::GET {
        return Answer::runflow_error(405, "method_not_allowed", "Method not allowed.")
            .with(header::ALLOW, "GET");
    }
    authorized(shared, request)
        .and_then(|()| get(shared, request, id))
        .map_or_else(Answer::from, |page| Answer::json(200, &page))
}

fn authorized(shared: &Shared, request: &ApiRequest) -> Result<(), Refused> {
    if request.bearer() != Some(&shared.runflow_token) {
        return Err(Refused::new(401, "unauthorized", "Unauthorized."));
    }
    let organization = request.header("x-organization-id");
    match (&shared.runflow_organization, organization) {
        (Some(ours), Some(theirs)) if ours != theirs => {
            let message = "You are not a member of this organization.";
            Err(Refused::new(403, "forbidden", message))
        }
        _ => Ok(()),
    }
}

fn get(shared: &Shared, request: &ApiRequest, id: &str) -> Result<Value, Refused> {
    let query = Query::parse(&request.query, &["embed"])
        .map_err(|message| Refused::new(400, "bad_request", message))?;
    let embeds = query.get("embed").unwrap_or_default();
    let known = |embed: &&str| ["", "created_by_user"].contains(embed);
    if let Some(unknown) = embeds.split(',').find(|embed| !known(embed)) {
        let message = format!("{unknown} cannot be embedded.");
        return Err(Refused::invalid(json!({"embed": [message]})));
    }
    let id = Uuid::try_parse(id)
        .ok()
        .filter(|_| id.len() == 36)
        .ok_or_else(|| Refused::invalid(json!({"id": ["The id must be a valid UUID."]})))?;
    let library = shared.library();
    let held = library
        .runflow
        .get(&id.to_string())
        .ok_or_else(|| Refused::new(404, "not_found", "Asset not found."))?;
    let mut page = described(shared, held, library.size_bytes(&held.path));
    if !embeds.is_empty() {
        page["created_by_user"] = json!({
            "id": USER, "email": "emu@example.com", "first_name": "Emu", "last_name": "Lator",
            "avatar_url": null,
        });
    }
    Ok(patched(page, &held.asset.patch))
}

fn described(shared: &Shared, held: &Held<RunflowAsset>, size_bytes: u64) -> Value {
    let deleted = held.asset.presence == Presence::Deleted;
    let unless_deleted = |url: String| if deleted { Value::Null } else { json!(url) };
    json!({
        "id": held.id,
        "org_id": shared.runflow_organization.as_deref().unwrap_or(ORGANIZATION),
        "folder_id": null,
        "name": held.asset.name,
        "r2_key": held.path.trim_start_matches('/'),
        "url": unless_deleted(shared.signed_url(&held.path)),
        "thumbnail_url": unless_deleted(shared.signed_url(held.preview(&RUNFLOW_THUMBNAIL))),
        "mime_type": held.asset.mime_type,
        "size_bytes": size_bytes,
        "asset_type": held.asset.mime_type.split('/').next(),
        "source_type": "upload",
        "source_id": null,
        "created_by": USER,
        "created_at": rfc3339_s(held.created_at),
        "updated_at": rfc3339_s(held.updated_at),
        "deleted_at": deleted.then(|| rfc3339_s(held.updated_at)),
        "deleted_by": deleted.then_some(USER),
        "created_by_user": null,
    })
}
