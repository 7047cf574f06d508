//! What the store remembers, in the terms of the tree. What can't be read is warned of and done
//! without: a mount that forgot a size asks again, a mount that doesn't start helps nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::kept_from;
use crate::provider::{self, Asset, AssetId, Library, Service};
use crate::reader::ObjectInfo;
use crate::store::{SeenAsset, Store, StoredObject};
use crate::tree::Kept;

/// What the user gave the assets that were uploaded from here.
pub(super) fn uploads(store: &Store) -> HashMap<AssetId, Kept> {
    let all = store
        .all_asset_meta(Service::Runway)
        .unwrap_or_else(|error| {
            log::warn!("names and times given to uploads can't be read: {error}");
            Vec::new()
        });
    all.iter()
        .map(|meta| (meta.id.clone(), kept_from(meta)))
        .collect()
}

/// What was learnt earlier of those of `assets` that the API does not tell enough of.
pub(super) fn objects(store: &Store, assets: &[Asset]) -> HashMap<AssetId, ObjectInfo> {
    let untold = |asset: &&Asset| asset.size_bytes.is_none() || asset.created_at.is_none();
    let ids: Vec<AssetId> = assets.iter().filter(untold).map(|a| a.id.clone()).collect();
    let Some(service) = assets.first().map(|asset| asset.library.service()) else {
        return HashMap::new();
    };
    if ids.is_empty() {
        return HashMap::new();
    }
    let known = store.object_infos(service, &ids).unwrap_or_else(|error| {
        log::warn!("{service}: sizes learnt earlier can't be read: {error}");
        HashMap::new()
    });
    let info = |object: StoredObject| ObjectInfo {
        size_bytes: object.size_bytes,
        etag: object.etag,
        last_modified: object.last_modified,
        content_type: object.content_type,
    };
    known
        .into_iter()
        .map(|(id, object)| (id, info(object)))
        .collect()
}

pub(super) fn stored(info: &ObjectInfo) -> StoredObject {
    StoredObject {
        size_bytes: info.size_bytes,
        etag: info.etag.clone(),
        last_modified: info.last_modified,
        content_type: info.content_type.clone(),
    }
}

/// A Runflow asset as it is remembered: enough to show it before the service is asked again.
#[derive(Serialize, Deserialize)]
struct Details {
    name: Option<String>,
    mime_type: Option<String>,
    size_bytes: Option<u64>,
    created_ms: Option<u64>,
    updated_ms: Option<u64>,
    /// The record, which holds no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    record: Option<Box<str>>,
}

pub(super) fn seen(asset: &Asset, now: SystemTime) -> SeenAsset {
    let ms = |time: Option<SystemTime>| {
        let since = time?.duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(since.as_millis()).ok()
    };
    let details = Details {
        name: asset.name.clone(),
        mime_type: asset.mime_type.clone(),
        size_bytes: asset.size_bytes,
        created_ms: ms(asset.created_at),
        updated_ms: ms(asset.updated_at),
        record: asset.details.as_ref().and_then(|d| d.record.clone()),
    };
    SeenAsset {
        id: asset.id.clone(),
        first_seen: now,
        details: serde_json::to_string(&details).ok(),
    }
}

/// The Runflow assets seen in earlier mounts.
pub(super) fn runflow(store: &Store) -> Vec<Asset> {
    let seen = store.runflow_seen().unwrap_or_else(|error| {
        log::warn!("the Runflow assets seen before can't be read: {error}");
        Vec::new()
    });
    seen.into_iter().map(recalled).collect()
}

fn recalled(seen: SeenAsset) -> Asset {
    let details = seen
        .details
        .and_then(|details| serde_json::from_str::<Details>(&details).ok());
    let record = details.as_ref().and_then(|d| d.record.clone());
    let time = |ms: Option<u64>| UNIX_EPOCH.checked_add(Duration::from_millis(ms?));
    Asset {
        library: Library::Runflow,
        locator: seen.id.to_string(),
        name: details.as_ref().and_then(|d| d.name.clone()),
        mime_type: details.as_ref().and_then(|d| d.mime_type.clone()),
        extension: None,
        size_bytes: details.as_ref().and_then(|d| d.size_bytes),
        created_at: time(details.as_ref().and_then(|d| d.created_ms)),
        updated_at: time(details.as_ref().and_then(|d| d.updated_ms)),
        url: None,
        details: record.map(|record| {
            let record = Some(record);
            Arc::new(provider::Details {
                record,
                ..provider::Details::default()
            })
        }),
        id: seen.id,
    }
}
