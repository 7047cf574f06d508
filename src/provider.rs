//! What the file system knows of a service: libraries of assets that can be listed, renewed and,
//! for Runway, added to. Implementations own their wire types; nothing here knows HTTP or FUSE.
//!
//! Promise: every call blocks until it has an answer or its deadline passed, so it runs on a
//! worker thread, never on a thread of the FUSE loop. A listing is whole or an error.

pub mod checkup;
mod details;
mod failure;
pub mod ltx;
pub mod media_type;
pub mod observed;
mod paging;
pub mod runflow;
pub mod runway;
#[cfg(test)]
mod test_api;
mod wire;

use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use crate::http::{SignedUrl, TransportError};
pub use details::{Details, MAX_RECORD_BYTES};

/// A service whose assets are mounted; the names of the top-level directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    Runway,
    Ltx,
    Runflow,
}

impl Service {
    /// Every service, in the order of the top directory.
    pub const ALL: [Service; 3] = [Service::Runway, Service::Ltx, Service::Runflow];

    /// The directory's name, also the word used in logs and state files.
    pub fn name(self) -> &'static str {
        match self {
            Service::Runway => "runway",
            Service::Ltx => "ltx",
            Service::Runflow => "runflow",
        }
    }

    /// The directories of assets of this service. Runflow has one: its own top directory.
    pub fn libraries(self) -> &'static [Library] {
        match self {
            Service::Runway => &[
                Library::RunwayVideo,
                Library::RunwayImage,
                Library::RunwayAudio,
            ],
            Service::Ltx => &[
                Library::LtxImages,
                Library::LtxVideos,
                Library::LtxAudio,
                Library::LtxOther,
            ],
            Service::Runflow => &[Library::Runflow],
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A directory that holds assets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Library {
    RunwayVideo,
    RunwayImage,
    RunwayAudio,
    LtxImages,
    LtxVideos,
    LtxAudio,
    LtxOther,
    Runflow,
}

impl Library {
    /// The service whose directory it is.
    pub fn service(self) -> Service {
        match self {
            Library::RunwayVideo | Library::RunwayImage | Library::RunwayAudio => Service::Runway,
            Library::LtxImages | Library::LtxVideos | Library::LtxAudio | Library::LtxOther => {
                Service::Ltx
            }
            Library::Runflow => Service::Runflow,
        }
    }

    /// The directory's own name: Runway's `mediaType`, LTX's `filter`.
    pub fn name(self) -> &'static str {
        match self {
            Library::RunwayVideo => "video",
            Library::RunwayImage => "image",
            Library::RunwayAudio | Library::LtxAudio => "audio",
            Library::LtxImages => "images",
            Library::LtxVideos => "videos",
            Library::LtxOther => "other",
            Library::Runflow => "runflow",
        }
    }

    /// Whether files can be copied in.
    pub fn takes_uploads(self) -> bool {
        self.service() == Service::Runway
    }
}

impl fmt::Display for Library {
    /// The path below the mount point: `runway/video`, `runflow`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Library::Runflow => f.write_str("runflow"),
            _ => write!(f, "{}/{}", self.service(), self.name()),
        }
    }
}

/// An asset's identity within its service: Runway's and LTX's `id`, Runflow's UUID. It names the
/// asset for ever, whatever its URL is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AssetId(Arc<str>);

impl AssetId {
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AssetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One asset as its service described it, every field but the identity optional, because the
/// pages say that every field is.
#[derive(Debug, Clone, PartialEq)]
pub struct Asset {
    pub id: AssetId,
    pub library: Library,
    /// What the service needs to be asked for this asset alone: Runway's `assetId`, the LTX page
    /// it was last seen on, Runflow's UUID. Empty where the service gave none.
    pub locator: String,
    /// The name as the service gave it, not yet made safe for a directory.
    pub name: Option<String>,
    /// `video/mp4`: LTX's and Runflow's MIME type; Runway gives none.
    pub mime_type: Option<String>,
    /// Without the dot, as the service gave it: Runway's `fileExtStandardized`.
    pub extension: Option<String>,
    /// `None` where the API does not say (LTX; null fields): learn it from the asset host.
    pub size_bytes: Option<u64>,
    pub created_at: Option<SystemTime>,
    pub updated_at: Option<SystemTime>,
    /// `None` where the service has none yet; ask for the asset again before reading.
    pub url: Option<SignedUrl>,
    /// Shared, because assets are copied and this need not be.
    pub details: Option<Arc<Details>>,
}

#[cfg(any(test, feature = "fuzzing"))]
impl Asset {
    /// One of which nothing is known but its identity.
    pub(crate) fn bare(library: Library, id: impl Into<Arc<str>>) -> Self {
        Self {
            id: AssetId::new(id),
            library,
            locator: String::new(),
            name: None,
            mime_type: None,
            extension: None,
            size_bytes: None,
            created_at: None,
            updated_at: None,
            url: None,
            details: None,
        }
    }
}

/// A file on its way to a service.
pub struct Upload<'a> {
    pub library: Library,
    /// The asset's name at the service, with its extension.
    pub name: &'a str,
    /// From [`media_type::for_upload`].
    pub content_type: &'a str,
    /// Open for reading at byte 0. Streamed, never read into memory as a whole.
    pub body: File,
    pub size_bytes: u64,
    /// Counts the bytes handed to the network.
    pub sent_bytes: Arc<AtomicU64>,
}

/// Called with assets of a listing that is under way.
pub type Arrived<'a> = dyn Fn(&[Asset]) + Sync + 'a;

/// A service. `Arc<dyn Provider>` is the seam between the file system and the web.
pub trait Provider: Send + Sync {
    fn service(&self) -> Service;

    /// Everything in `library`, each asset once, or an error; never a part.
    fn list(&self, library: Library) -> Result<Vec<Asset>, ProviderError>;

    /// As [`Self::list`], and calls `arrived` with assets as they come where they come in pieces,
    /// from any thread: for what can begin before the listing is whole. None of them counts before
    /// that, nor if it fails; one may come twice.
    fn list_and_tell(
        &self,
        library: Library,
        arrived: &Arrived<'_>,
    ) -> Result<Vec<Asset>, ProviderError> {
        let _ = arrived;
        self.list(library)
    }

    /// The asset as the service has it now, with a fresh URL. `NotFound` if it is gone.
    fn refresh(&self, asset: &Asset) -> Result<Asset, ProviderError>;

    /// As [`Self::refresh`], with whatever other assets the same answer described: a service that
    /// has no call for a single asset renews a page of them at a time.
    fn refresh_with_others(&self, asset: &Asset) -> Result<(Asset, Vec<Asset>), ProviderError> {
        Ok((self.refresh(asset)?, Vec::new()))
    }

    /// The asset with this id, for services without a listing (Runflow).
    fn find(&self, id: &AssetId) -> Result<Asset, ProviderError> {
        let _ = id;
        Err(ProviderError::Unsupported)
    }

    /// Sends a file once. Never repeats a request whose body may have arrived: that is
    /// [`ProviderError::AnswerLost`], and the caller looks before it tries again.
    fn upload(&self, upload: Upload<'_>) -> Result<Asset, ProviderError> {
        let _ = upload;
        Err(ProviderError::Unsupported)
    }

    /// Deletes the asset for good. `NotFound` if it is already gone.
    fn delete(&self, asset: &Asset) -> Result<(), ProviderError> {
        let _ = asset;
        Err(ProviderError::Unsupported)
    }
}

/// Why a service did not do what it was asked. Messages carry no secret.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProviderError {
    /// 404 or 410 for one asset, or an asset marked deleted.
    #[error("the service has no such asset")]
    NotFound,
    /// 401, 403 and 596: says which variable or account to mend.
    #[error("{0}")]
    Denied(String),
    /// 402: subscription expired or credits spent.
    #[error("the account's subscription or quota does not allow it: {0}")]
    Quota(String),
    /// 400, 409, 413, 415, 422: the service understood and said no; the same request won't succeed.
    #[error("the service refused it: {message} (status {status})")]
    Refused { status: u16, message: String },
    /// 429 that outlasted the deadline.
    #[error("the service's rate limit outlasted the deadline")]
    RateLimited { retry_after: Option<Duration> },
    /// Network trouble, 5xx or an answer that can't be read, past the deadline. Nothing was done.
    #[error("{service} does not answer as it should: {source}")]
    Unavailable {
        service: Service,
        source: TransportError,
    },
    /// An upload whose body may have arrived but whose answer did not.
    #[error("the answer to an upload was lost: {0}")]
    AnswerLost(TransportError),
    /// The answer contradicts its page.
    #[error("the service's answer can't be used: {0}")]
    Malformed(String),
    /// The local file could not be read while it was sent.
    #[error("the staged file can't be read: {0}")]
    LocalFile(String),
    #[error("the service can't do this")]
    Unsupported,
}

impl ProviderError {
    /// The kind as one word, for counting.
    pub fn kind(&self) -> &'static str {
        match self {
            ProviderError::NotFound => "not_found",
            ProviderError::Denied(_) => "denied",
            ProviderError::Quota(_) => "quota",
            ProviderError::Refused { .. } => "refused",
            ProviderError::RateLimited { .. } => "rate_limited",
            ProviderError::Unavailable { .. } => "unavailable",
            ProviderError::AnswerLost(_) => "answer_lost",
            ProviderError::Malformed(_) => "malformed",
            ProviderError::LocalFile(_) => "local_file",
            ProviderError::Unsupported => "unsupported",
        }
    }
}
