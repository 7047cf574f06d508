//! Runflow: one asset by its UUID. There is no documented listing.
//!
//! Promise: what is found carries the id that was asked for, whatever the answer repeats; an asset
//! marked deleted is not there.

use std::time::SystemTime;

use serde::Deserialize;
use serde_json::Value;

use super::failure::{self, Asked};
use super::wire::{self, Oddities, Told};
use super::{Asset, AssetId, Details, Library, MAX_RECORD_BYTES, Provider, ProviderError, Service};
use crate::http::{ApiClient, ApiRequest, SignedUrl};

/// "Get asset", api.runflow.io.
pub(super) const ASSETS: &str = "v1/assets/";

/// See the module's head.
pub struct RunflowProvider {
    api: ApiClient,
    organization: Option<String>,
    told: Told,
}

/// "Get asset": every field may be null.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Item {
    #[serde(deserialize_with = "wire::text")]
    name: Option<String>,
    #[serde(deserialize_with = "wire::text")]
    url: Option<String>,
    #[serde(deserialize_with = "wire::text")]
    thumbnail_url: Option<String>,
    #[serde(deserialize_with = "wire::text")]
    mime_type: Option<String>,
    #[serde(deserialize_with = "wire::size")]
    size_bytes: Option<u64>,
    #[serde(deserialize_with = "wire::time")]
    created_at: Option<SystemTime>,
    #[serde(deserialize_with = "wire::time")]
    updated_at: Option<SystemTime>,
    /// Any text here means that it is gone, also one that is no time.
    #[serde(deserialize_with = "wire::text")]
    deleted_at: Option<String>,
}

impl RunflowProvider {
    /// `organization` goes with every call as `X-Organization-Id`.
    pub fn new(api: ApiClient, organization: Option<String>) -> Self {
        Self {
            api,
            organization,
            told: Told::default(),
        }
    }
}

impl RunflowProvider {
    /// The asset that an answer describes.
    pub(crate) fn read(&self, id: &AssetId, answer: Value) -> Result<Asset, ProviderError> {
        let record = self.api.record(&answer, MAX_RECORD_BYTES);
        let item: Item = wire::object(answer)?;
        if item.deleted_at.is_some() {
            return Err(ProviderError::NotFound);
        }
        let mut odd = Oddities::default();
        let url = odd.url(item.url.as_deref(), None, &self.api.url_policy());
        odd.warn(Library::Runflow, &self.told);
        let policy = self.api.url_policy();
        let preview = item.thumbnail_url.as_deref();
        let details = Details {
            preview: preview.and_then(|url| SignedUrl::parse(url, None, &policy).ok()),
            record,
            ..Details::default()
        };
        Ok(Asset {
            id: id.clone(),
            library: Library::Runflow,
            locator: id.to_string(),
            name: item.name,
            mime_type: item.mime_type,
            extension: None,
            size_bytes: item.size_bytes.filter(wire::is_told),
            created_at: item.created_at,
            updated_at: item.updated_at,
            url,
            details: details.shared(),
        })
    }
}

impl Provider for RunflowProvider {
    fn service(&self) -> Service {
        Service::Runflow
    }

    /// Unsupported: the file system shows the ids it has seen.
    fn list(&self, _library: Library) -> Result<Vec<Asset>, ProviderError> {
        Err(ProviderError::Unsupported)
    }

    fn refresh(&self, asset: &Asset) -> Result<Asset, ProviderError> {
        self.find(&asset.id)
    }

    fn find(&self, id: &AssetId) -> Result<Asset, ProviderError> {
        let organization = self.organization.as_deref();
        let request = ApiRequest {
            path: ASSETS,
            id: Some(id.as_str()),
            headers: organization
                .map(|organization| ("x-organization-id", organization))
                .into_iter()
                .collect(),
            ..ApiRequest::default()
        };
        let answer = self.api.get(&request);
        let answer = answer.map_err(|e| failure::of_call(Service::Runflow, Asked::Asset, e))?;
        self.read(id, answer)
    }
}

#[cfg(test)]
#[path = "runflow_tests.rs"]
mod tests;
