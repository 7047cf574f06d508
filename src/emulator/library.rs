//! What the three services hold: assets as the API pages describe them, and the objects at the
//! asset host behind them.
//!
//! Plain data under the emulator's one library lock; nothing here does I/O. The order of assets
//! is that of their creation times, then that of adding.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::asset::{LtxAsset, Picture, RunflowAsset, RunwayAsset};
use super::content::{Content, hex, mix};
use super::sign::Manner;

/// One revision of an object at the asset host.
#[derive(Debug)]
pub(super) struct Object {
    pub content: Content,
    pub content_type: String,
    pub etag: String,
    pub last_modified: SystemTime,
}

/// An asset of a service and where its bytes stand.
#[derive(Debug)]
pub(super) struct Held<A> {
    pub id: String,
    pub path: String,
    /// Where its own preview stands, if it has one.
    pub picture: Option<String>,
    pub created_at: SystemTime,
    pub updated_at: SystemTime,
    /// Numbers the assets in the order of adding, from 1.
    pub number: u64,
    pub asset: A,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Library {
    /// Oldest first, as everything is most often added; the pages show the newest first.
    pub runway: Vec<Held<RunwayAsset>>,
    /// Oldest first, like `runway`.
    pub ltx: Vec<Held<LtxAsset>>,
    pub runflow: HashMap<String, Held<RunflowAsset>>,
    objects: HashMap<String, Arc<Object>>,
    added: u64,
    revisions: u64,
}

/// Small pictures that stand for every preview and thumbnail.
pub(super) struct Preview {
    pub path: &'static str,
    pub content_type: &'static str,
    bytes: &'static [u8],
}

pub(super) const RUNWAY_PREVIEW: Preview = Preview {
    path: "/runway-datasets/previews/preview.png",
    content_type: "image/png",
    bytes: include_bytes!("media/preview.png"),
};
pub(super) const LTX_THUMBNAIL: Preview = Preview {
    path: "/lt-infinity-emulated/thumbnails/large.webp",
    content_type: "image/webp",
    bytes: include_bytes!("media/preview.webp"),
};
pub(super) const RUNFLOW_THUMBNAIL: Preview = Preview {
    path: "/runflow-assets/thumbnails/thumbnail.png",
    content_type: "image/png",
    bytes: include_bytes!("media/preview.png"),
};

impl<A> Held<A> {
    /// Where its preview stands: its own, or the one that all share.
    pub fn preview<'a>(&'a self, shared: &'a Preview) -> &'a str {
        self.picture.as_deref().unwrap_or(shared.path)
    }
}

impl Library {
    /// Empty but for the pictures that previews show.
    pub fn new(now: SystemTime) -> Self {
        let mut library = Self::default();
        for preview in [RUNWAY_PREVIEW, LTX_THUMBNAIL, RUNFLOW_THUMBNAIL] {
            let content = Content::stored(Bytes::from_static(preview.bytes));
            library.put_object(preview.path, content, preview.content_type, now);
        }
        library
    }

    /// The present revision of the object at a path.
    pub fn object(&self, path: &str) -> Option<Arc<Object>> {
        self.objects.get(path).map(Arc::clone)
    }

    /// The size of the object at `path` in bytes; 0 if it is gone.
    pub fn size_bytes(&self, path: &str) -> u64 {
        self.objects.get(path).map_or(0, |o| o.content.len())
    }

    /// Adds an asset; its id.
    pub fn add_runway(&mut self, asset: RunwayAsset, now: SystemTime) -> String {
        let name = asset.name.clone().unwrap_or_default();
        let (created_at, id) = (asset.created_at.unwrap_or(now), asset.id.clone());
        let content = (asset.content.clone(), asset.content_type.clone());
        let picture = asset.picture.clone();
        let mut held = self.hold(Manner::Runway, id, &name, content, created_at, asset);
        self.hang(Manner::Runway, &mut held, picture, created_at);
        insert_in_order(&mut self.runway, held)
    }

    /// Adds an asset; its id.
    pub fn add_ltx(&mut self, asset: LtxAsset, now: SystemTime) -> String {
        let (created_at, id) = (asset.created_at.unwrap_or(now), asset.id.clone());
        let content = (asset.content.clone(), asset.mime_type.clone());
        let picture = asset.picture.clone();
        let mut held = self.hold(Manner::Ltx, id, "artifact", content, created_at, asset);
        self.hang(Manner::Ltx, &mut held, picture, created_at);
        insert_in_order(&mut self.ltx, held)
    }

    /// Adds an asset; its id.
    pub fn add_runflow(&mut self, asset: RunflowAsset, now: SystemTime) -> String {
        let name = asset.name.clone().unwrap_or_default();
        let (created_at, id) = (asset.created_at.unwrap_or(now), asset.id.clone());
        let content = (asset.content.clone(), asset.mime_type.clone());
        let picture = asset.picture.clone();
        let mut held = self.hold(Manner::Runflow, id, &name, content, created_at, asset);
        self.hang(Manner::Runflow, &mut held, picture, created_at);
        let id = held.id.clone();
        self.runflow.insert(id.clone(), held);
        id
    }

    fn hold<A>(
        &mut self,
        manner: Manner,
        id: Option<String>,
        name: &str,
        (content, content_type): (Content, String),
        created_at: SystemTime,
        asset: A,
    ) -> Held<A> {
        self.added += 1;
        let id = id.unwrap_or_else(|| Uuid::new_v4().to_string());
        let path = manner.path(&id, name);
        self.put_object(&path, content, &content_type, created_at);
        Held {
            id,
            path,
            picture: None,
            created_at,
            updated_at: created_at,
            number: self.added,
            asset,
        }
    }

    /// Puts an asset's own preview at the asset host.
    fn hang<A>(
        &mut self,
        manner: Manner,
        held: &mut Held<A>,
        picture: Option<Picture>,
        now: SystemTime,
    ) {
        if let Some(picture) = picture {
            let path = manner.path("previews", &held.id);
            self.put_object(&path, picture.content, &picture.content_type, now);
            held.picture = Some(path);
        }
    }

    fn put_object(&mut self, path: &str, content: Content, content_type: &str, now: SystemTime) {
        self.revisions += 1;
        let tag = [mix(self.revisions), mix(!self.revisions)].map(u64::to_be_bytes);
        let object = Object {
            content,
            content_type: content_type.to_string(),
            etag: format!("\"{}\"", hex(&tag.concat())),
            last_modified: now,
        };
        self.objects.insert(path.to_string(), Arc::new(object));
    }

    /// Whether there was one. Takes its object from the asset host as well.
    pub fn remove(&mut self, id: &str) -> bool {
        let Some(path) = self.path_of(id) else {
            return false;
        };
        self.runway.retain(|held| held.id != id);
        self.ltx.retain(|held| held.id != id);
        self.runflow.remove(id);
        self.objects.remove(&path);
        true
    }

    /// New bytes, ETag and update time under the same identity. Whether there was such an asset.
    pub fn replace_content(&mut self, id: &str, content: Content, now: SystemTime) -> bool {
        let Some(path) = self.path_of(id) else {
            return false;
        };
        let content_type = self.object(&path).map(|object| object.content_type.clone());
        self.put_object(&path, content, &content_type.unwrap_or_default(), now);
        let runway = self.runway.iter_mut().filter(|held| held.id == id);
        runway.for_each(|held| held.updated_at = now);
        let ltx = self.ltx.iter_mut().filter(|held| held.id == id);
        ltx.for_each(|held| held.updated_at = now);
        if let Some(held) = self.runflow.get_mut(id) {
            held.updated_at = now;
        }
        true
    }

    /// Where the object of an asset stands.
    pub fn path_of(&self, id: &str) -> Option<String> {
        let runway = self.runway.iter().find(|held| held.id == id);
        let ltx = || self.ltx.iter().find(|held| held.id == id);
        let runflow = || self.runflow.get(id).map(|held| &held.path);
        runway
            .map(|held| &held.path)
            .or_else(|| ltx().map(|held| &held.path))
            .or_else(runflow)
            .cloned()
    }
}

fn insert_in_order<A>(held: &mut Vec<Held<A>>, new: Held<A>) -> String {
    let id = new.id.clone();
    let rank = |held: &Held<A>| (held.created_at, held.number);
    let place = held.partition_point(|other| rank(other) < rank(&new));
    held.insert(place, new);
    id
}

/// `page` with the top-level fields of `patch` in place of its own; a null stays a null.
pub(super) fn patched(mut page: Value, patch: &Value) -> Value {
    if let (Some(page), Some(patch)) = (page.as_object_mut(), patch.as_object()) {
        for (name, value) in patch {
            if *value == json!(super::asset::ABSENT) {
                page.remove(name);
            } else {
                page.insert(name.clone(), value.clone());
            }
        }
    }
    page
}

/// RFC 3339 in UTC with milliseconds, as Runway's `createdAt`.
pub(super) fn rfc3339_ms(time: SystemTime) -> String {
    timestamp(time)
        .strftime("%Y-%m-%dT%H:%M:%S.%3fZ")
        .to_string()
}

/// RFC 3339 in UTC with seconds, as Runflow's `created_at`.
pub(super) fn rfc3339_s(time: SystemTime) -> String {
    timestamp(time).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn timestamp(time: SystemTime) -> jiff::Timestamp {
    jiff::Timestamp::try_from(time).unwrap_or_default()
}
