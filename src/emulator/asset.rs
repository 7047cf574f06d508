//! The assets that a test or the demo puts into the emulated services: builders for the usual,
//! and levers for the odd (fields null, absent or overridden as raw JSON).

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::content::Content;
use super::upload_type;

/// As the value of a field in a JSON patch: leave the field out of the answer.
pub const ABSENT: &str = "\u{0}absent";

/// What a preview or thumbnail shows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Picture {
    pub content_type: String,
    pub content: Content,
}

impl Picture {
    fn new(content_type: &str, content: Content) -> Option<Self> {
        let content_type = content_type.to_string();
        Some(Self {
            content_type,
            content,
        })
    }
}

/// An asset of Runway; see seed pages "Retrieve assets".
#[derive(Debug, Clone, PartialEq)]
pub struct RunwayAsset {
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) media_type: String,
    pub(super) content_type: String,
    pub(super) extension: String,
    pub(super) content: Content,
    pub(super) picture: Option<Picture>,
    pub(super) created_at: Option<SystemTime>,
    pub(super) account: Option<String>,
    pub(super) is_user_upload: bool,
    pub(super) metadata: Value,
    pub(super) without_url: bool,
    pub(super) patch: Value,
}

impl RunwayAsset {
    /// A generated asset. Its media type, content type and standardized extension follow from the
    /// name's extension, as in the upload page's table; a name without a known one is an MP4.
    pub fn named(name: &str, content: Content) -> Self {
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        let row = upload_type::by_extension(extension).unwrap_or(upload_type::MP4);
        Self::of_type(row, Some(name), content)
    }

    /// A generated asset of the type that the upload page's table has for this content type, for
    /// names that don't tell (`ogg` and `webm` are video and audio); an MP4 where it has none.
    pub fn typed(name: &str, content_type: &str, content: Content) -> Self {
        let row = upload_type::by_content_type(content_type).unwrap_or(upload_type::MP4);
        Self::of_type(row, Some(name), content)
    }

    pub(super) fn of_type(row: upload_type::Row, name: Option<&str>, content: Content) -> Self {
        let metadata = match row.media_type() {
            "image" => Value::Null,
            media_type => json!({
                "frameRate": 24, "duration": 10.542, "width": 1280, "height": 768,
                "hasAlphaChannel": false, "hasAudio": media_type == "audio",
            }),
        };
        Self {
            id: None,
            name: name.map(String::from),
            media_type: row.media_type().to_string(),
            content_type: row.content_type.to_string(),
            extension: row.extension.to_string(),
            content,
            picture: None,
            created_at: None,
            account: None,
            is_user_upload: false,
            metadata,
            without_url: false,
            patch: Value::Object(Map::new()),
        }
    }

    /// A preview of its own, instead of the one that all share.
    pub fn with_preview(mut self, content_type: &str, content: Content) -> Self {
        self.picture = Picture::new(content_type, content);
        self
    }

    /// A UUID of the caller's choice.
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = Some(id.to_string());
        self
    }

    /// Instead of the moment of adding.
    pub fn created_at(mut self, time: SystemTime) -> Self {
        self.created_at = Some(time);
        self
    }

    /// Of one configured account, by email, instead of the first.
    pub fn in_account(mut self, email: &str) -> Self {
        self.account = Some(email.to_string());
        self
    }

    pub(super) fn uploaded(mut self) -> Self {
        self.is_user_upload = true;
        self.metadata = Value::Null;
        self
    }

    /// `metadata` in the older shape, of `dimensions` and `size`.
    pub fn with_older_metadata(mut self) -> Self {
        self.metadata = json!({
            "frameRate": 24, "duration": 10.542,
            "dimensions": [1280, 768], "size": {"width": 1280, "height": 768},
        });
        self
    }

    /// `url` null in listings; the call for the single asset has one.
    pub fn without_url(mut self) -> Self {
        self.without_url = true;
        self
    }

    /// `name` null.
    pub fn without_name(mut self) -> Self {
        self.name = None;
        self
    }

    /// Top-level fields that replace those of every answer: any value, [`ABSENT`] to leave one
    /// out, names that no page knows.
    pub fn with_json_patch(mut self, patch: Value) -> Self {
        self.patch = patch;
        self
    }
}

/// An asset of LTX Studio; see the seed page "Retrieve LTX Studio assets".
#[derive(Debug, Clone)]
pub struct LtxAsset {
    pub(super) id: Option<String>,
    pub(super) mime_type: String,
    pub(super) content: Content,
    pub(super) picture: Option<Picture>,
    pub(super) created_at: Option<SystemTime>,
    pub(super) account: Option<String>,
    pub(super) patch: Value,
}

impl LtxAsset {
    /// `mime_type` decides which filter shows it.
    pub fn new(mime_type: &str, content: Content) -> Self {
        Self {
            id: None,
            mime_type: mime_type.to_string(),
            content,
            picture: None,
            created_at: None,
            account: None,
            patch: Value::Object(Map::new()),
        }
    }

    /// A preview of its own, instead of the one that all share.
    pub fn with_preview(mut self, content_type: &str, content: Content) -> Self {
        self.picture = Picture::new(content_type, content);
        self
    }

    /// A UUID of the caller's choice.
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = Some(id.to_string());
        self
    }

    /// Instead of the moment of adding; LTX shows it nowhere but in the order.
    pub fn created_at(mut self, time: SystemTime) -> Self {
        self.created_at = Some(time);
        self
    }

    /// Of one configured account, by email, instead of the first.
    pub fn in_account(mut self, email: &str) -> Self {
        self.account = Some(email.to_string());
        self
    }

    /// Like [`RunwayAsset::with_json_patch`].
    pub fn with_json_patch(mut self, patch: Value) -> Self {
        self.patch = patch;
        self
    }

    pub(super) fn filter(&self) -> &'static str {
        match self.mime_type.split('/').next() {
            Some("image") => "images",
            Some("video") => "videos",
            Some("audio") => "audio",
            _ => "other",
        }
    }
}

/// Whether Runflow still has an asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Present,
    /// `deleted_at` set and no URL.
    Deleted,
}

/// An asset of Runflow; see the seed page "Get asset".
#[derive(Debug, Clone)]
pub struct RunflowAsset {
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) mime_type: String,
    pub(super) content: Content,
    pub(super) picture: Option<Picture>,
    pub(super) created_at: Option<SystemTime>,
    pub(super) presence: Presence,
    pub(super) patch: Value,
}

impl RunflowAsset {
    pub fn new(name: &str, mime_type: &str, content: Content) -> Self {
        Self {
            id: None,
            name: Some(name.to_string()),
            mime_type: mime_type.to_string(),
            content,
            picture: None,
            created_at: None,
            presence: Presence::Present,
            patch: Value::Object(Map::new()),
        }
    }

    /// A preview of its own, instead of the one that all share.
    pub fn with_preview(mut self, content_type: &str, content: Content) -> Self {
        self.picture = Picture::new(content_type, content);
        self
    }

    /// A UUID of the caller's choice, in lower case.
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = Some(id.to_ascii_lowercase());
        self
    }

    /// Instead of the moment of adding.
    pub fn created_at(mut self, time: SystemTime) -> Self {
        self.created_at = Some(time);
        self
    }

    /// Gone: `deleted_at` is set, `url` null.
    pub fn deleted(mut self) -> Self {
        self.presence = Presence::Deleted;
        self
    }

    /// Like [`RunwayAsset::with_json_patch`].
    pub fn with_json_patch(mut self, patch: Value) -> Self {
        self.patch = patch;
        self
    }
}
