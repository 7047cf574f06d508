//! Runway by useapi.net: list, renew, upload, delete.
//!
//! Promises: a listing is whole or an error. Neighbouring pages are asked for with one asset of
//! overlap; where that asset is not in both, something vanished between them and the listing is
//! made again. The page doesn't say that a short page is the last one: a service that gives fewer a
//! page than it was asked for, or leaves some out, must not hide the rest. So what follows a short
//! page is asked for, unless the listing reaches as far as one whose end was seen to be empty. The
//! service shows [`MOST_LISTED`] assets of a kind at most; a library that reaches that is told once in
//! the log. Nothing but the identity of an asset is required of an answer.

mod cut;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::Value;

use cut::{Cut, LAST_OFFSET, PAGE};

use super::failure::{self, Asked};
use super::paging::{Length, Pass, WIDEST_WAVE, dedupe, fetch_wave, list_whole};
use super::wire::{self, Oddities, Told};
use super::{
    Asset, AssetId, Details, Library, MAX_RECORD_BYTES, Provider, ProviderError, Service, Upload,
};
use crate::http::origin::UrlError;
use crate::http::{ApiClient, ApiRequest, ApiUpload, SignedUrl, TransportError};

/// "Runway: Retrieve assets" and "Upload asset", useapi.net, with the slash that the pages have.
pub(super) const ASSETS: &str = "v1/runwayml/assets/";

/// 1,050: what can be reached at all.
pub const MOST_LISTED: usize = LAST_OFFSET + PAGE;

/// Pages asked for at once behind a first page that is full.
const SECOND_WAVE: usize = 3;

/// See the module's head.
pub struct RunwayProvider {
    api: ApiClient,
    email: Option<String>,
    told: Told,
    /// Up to which offset each library was last seen to reach, with nothing behind it.
    ends: Mutex<HashMap<Library, usize>>,
    length: Length,
}

/// An asset in either shape: "Retrieve assets" (list and single), "Upload asset" (`size`, `type`).
/// All fields are optional there; what isn't needed here is not read.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Item {
    #[serde(deserialize_with = "wire::text")]
    asset_id: Option<String>,
    #[serde(deserialize_with = "wire::text")]
    id: Option<String>,
    #[serde(deserialize_with = "wire::time")]
    created_at: Option<SystemTime>,
    #[serde(deserialize_with = "wire::time")]
    updated_at: Option<SystemTime>,
    #[serde(deserialize_with = "wire::text")]
    name: Option<String>,
    #[serde(deserialize_with = "wire::text")]
    url: Option<String>,
    #[serde(deserialize_with = "wire::text")]
    media_type: Option<String>,
    #[serde(deserialize_with = "wire::size")]
    file_size: Option<u64>,
    #[serde(deserialize_with = "wire::size")]
    size: Option<u64>,
    #[serde(deserialize_with = "wire::text")]
    file_ext_standardized: Option<String>,
    #[serde(deserialize_with = "wire::lenient")]
    favorite: Option<bool>,
    #[serde(deserialize_with = "wire::text")]
    task_id: Option<String>,
    #[serde(deserialize_with = "wire::lenient")]
    preview_urls: Option<Vec<Value>>,
    #[serde(deserialize_with = "wire::lenient")]
    metadata: Option<Metadata>,
    /// What `url` is worth.
    #[serde(skip)]
    signed: Option<Result<SignedUrl, UrlError>>,
    /// What the fields above say for people, and the record itself.
    #[serde(skip)]
    details: Option<Arc<Details>>,
}

/// In its newer shape, and with `dimensions` and `size` in its older.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    #[serde(deserialize_with = "wire::measure")]
    frame_rate: Option<f64>,
    #[serde(deserialize_with = "wire::measure")]
    duration: Option<f64>,
    #[serde(deserialize_with = "wire::pixels")]
    width: Option<u64>,
    #[serde(deserialize_with = "wire::pixels")]
    height: Option<u64>,
    #[serde(deserialize_with = "wire::lenient")]
    has_audio: Option<bool>,
    dimensions: Value,
    size: Value,
}

impl Metadata {
    fn width(&self) -> Option<u64> {
        let older = || wire::pixels_of(&self.size["width"]);
        let first = || wire::pixels_of(self.dimensions.get(0)?);
        self.width.or_else(older).or_else(first)
    }

    fn height(&self) -> Option<u64> {
        let older = || wire::pixels_of(&self.size["height"]);
        let second = || wire::pixels_of(self.dimensions.get(1)?);
        self.height.or_else(older).or_else(second)
    }
}

impl Item {
    /// What names the asset for ever: `id`, else the uuid in `assetId`, else `assetId`, else where
    /// its bytes lie.
    fn identity(&self) -> Option<AssetId> {
        self.own_id().or_else(|| {
            self.url
                .as_deref()
                .and_then(wire::place_of)
                .map(AssetId::new)
        })
    }

    fn own_id(&self) -> Option<AssetId> {
        let of_asset_id = |asset_id: &str| match asset_id.rsplit_once("asset:") {
            Some((_, uuid)) if !uuid.is_empty() => uuid.to_string(),
            _ => asset_id.to_string(),
        };
        let id = self.id.clone();
        id.or_else(|| self.asset_id.as_deref().map(of_asset_id))
            .map(AssetId::new)
    }

    /// Whether the service says that this belongs to another library.
    fn belongs_elsewhere(&self, library: Library) -> bool {
        self.media_type.as_deref().is_some_and(|kind| {
            kind != library.name() && Service::Runway.libraries().iter().any(|l| l.name() == kind)
        })
    }
}

impl RunwayProvider {
    /// `email` names the account, needed where several are configured.
    pub fn new(api: ApiClient, email: Option<String>) -> Self {
        Self {
            api,
            email,
            told: Told::default(),
            ends: Mutex::default(),
            length: Length::default(),
        }
    }

    fn pass(&self, library: Library) -> Result<Pass, ProviderError> {
        let mut cut = Cut { limit: PAGE };
        let mut pages = self.pages(library, cut)?;
        let first = pages.first().map_or(0, Vec::len);
        if self.may_hide_more(library, first)? {
            log::debug!("{library}: the service gives {first} assets a page");
            cut = Cut { limit: first };
            pages = self.pages(library, cut)?;
        }
        self.read_on(library, &mut pages, cut)?;
        if pages.len() == cut.pages() && pages.last().is_some_and(|page| page.len() >= cut.limit) {
            let most = LAST_OFFSET + cut.limit;
            self.told.warn_once(format!(
                "{library}: the service shows {most} assets at most; any beyond these can't be listed"
            ));
        }
        let gap = find_gap(&pages, cut.limit);
        let mut odd = Oddities::default();
        let assets = dedupe(
            pages
                .into_iter()
                .flatten()
                .filter(|item| !item.belongs_elsewhere(library))
                .filter_map(|item| self.asset(item, library, &mut odd)),
        );
        odd.warn(library, &self.told);
        Ok(Pass { assets, gap })
    }

    /// Page after page until a short one: one, then three, then all others, [`WIDEST_WAVE`] of them
    /// at a time. Ten pages at most are asked for in vain, and of a library of one page two or three.
    fn pages(&self, library: Library, cut: Cut) -> Result<Vec<Vec<Item>>, ProviderError> {
        let is_short = |page: &Vec<Item>| page.len() < cut.limit;
        let mut pages: Vec<Vec<Item>> = Vec::new();
        self.api.connect_ahead(self.length.spare());
        for width in [1, SECOND_WAVE, cut.pages()] {
            let numbers: Vec<usize> = (pages.len()..cut.pages()).take(width).collect();
            if width > 1 {
                self.api.connect_ahead(WIDEST_WAVE - 1);
            }
            let fetch = |number| self.page(library, cut.offset(number), cut.limit);
            let is_last = |page: &Vec<Item>| width > SECOND_WAVE && is_short(page);
            pages.extend(fetch_wave(&numbers, fetch, is_last)?);
            if pages.iter().any(is_short) {
                break;
            }
        }
        let with_assets = pages.iter().filter(|page| !page.is_empty());
        self.length.note(with_assets.count().max(1));
        Ok(pages)
    }

    /// Whether a first page of `held` assets is short because the service gives no more a page:
    /// the asset after it is asked for.
    fn may_hide_more(&self, library: Library, held: usize) -> Result<bool, ProviderError> {
        if held == 0 || held >= PAGE || self.reaches_the_end(library, held) {
            return Ok(false);
        }
        let more = !self.page(library, held, 1)?.is_empty();
        if !more {
            self.ends().insert(library, held);
        }
        Ok(more)
    }

    /// Reads on behind the first short page, page after page, until one brings nothing new.
    fn read_on(
        &self,
        library: Library,
        pages: &mut Vec<Vec<Item>>,
        cut: Cut,
    ) -> Result<(), ProviderError> {
        let is_short = |page: &Vec<Item>| page.len() < cut.limit;
        let Some(short) = pages.iter().position(is_short) else {
            return Ok(());
        };
        let mut end = cut.offset(short) + pages[short].len();
        // A page that was asked for already shows the same where it began here or before.
        let mut over = pages[short].is_empty()
            || cut.offset(short + 1) <= end && pages.get(short + 1).is_some_and(Vec::is_empty);
        let items = pages.iter().flatten();
        let mut known: HashSet<AssetId> = items.filter_map(Item::identity).collect();
        while !over && end <= LAST_OFFSET && !self.reaches_the_end(library, end) {
            let more = self.page(library, end, PAGE)?;
            let before = known.len();
            known.extend(more.iter().filter_map(Item::identity));
            over = known.len() == before;
            if !over {
                end += more.len();
                pages.push(more);
            }
        }
        self.ends().insert(library, end);
        Ok(())
    }

    fn reaches_the_end(&self, library: Library, offset: usize) -> bool {
        self.ends().get(&library).is_some_and(|end| offset >= *end)
    }

    fn ends(&self) -> MutexGuard<'_, HashMap<Library, usize>> {
        self.ends.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn page(
        &self,
        library: Library,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<Item>, ProviderError> {
        let mut query = vec![
            ("offset", offset.to_string()),
            ("limit", limit.to_string()),
            ("mediaType", library.name().to_string()),
        ];
        query.extend(self.email.clone().map(|email| ("email", email)));
        let request = ApiRequest {
            path: ASSETS,
            query,
            headers: vec![("content-type", "application/json")],
            ..ApiRequest::default()
        };
        let answer = self.api.get(&request);
        let items = answer.map_err(|e| failure::of_call(Service::Runway, Asked::Page, e))?;
        self.items_of(items)
    }

    fn items_of(&self, page: Value) -> Result<Vec<Item>, ProviderError> {
        let items = wire::objects(page, |item| self.item(item))?;
        let readable = |item: &&Item| item.name.is_some() || item.identity().is_some();
        wire::check_readable(items.len(), items.iter().filter(readable).count())?;
        Ok(items)
    }

    /// The assets of a page of `library` that is here already, the odd ones left out.
    pub fn assets_of(&self, page: Value, library: Library) -> Result<Vec<Asset>, ProviderError> {
        let mut odd = Oddities::default();
        let items = self.items_of(page)?.into_iter();
        Ok(items
            .filter_map(|item| self.asset(item, library, &mut odd))
            .collect())
    }

    fn item(&self, item: Value) -> Result<Item, ProviderError> {
        let record = self.api.record(&item, MAX_RECORD_BYTES);
        let mut item: Item = wire::object(item)?;
        let metadata = item.metadata.take().unwrap_or_default();
        let policy = self.api.url_policy();
        let previews = item.preview_urls.take().unwrap_or_default();
        let mut previews = previews.iter().filter_map(Value::as_str);
        let details = Details {
            favorite: item.favorite,
            duration_s: metadata.duration,
            width_px: metadata.width(),
            height_px: metadata.height(),
            frame_rate: metadata.frame_rate,
            has_audio: metadata.has_audio,
            task_id: item.task_id.take().map(String::into_boxed_str),
            preview: previews.find_map(|url| SignedUrl::parse(url, None, &policy).ok()),
            record,
        };
        item.details = details.shared();
        let signed = |url: &str| SignedUrl::parse(url, None, &policy);
        item.signed = item.url.as_deref().map(signed);
        Ok(item)
    }

    fn asset(&self, item: Item, library: Library, odd: &mut Oddities) -> Option<Asset> {
        let Some(id) = item.identity() else {
            odd.without_identity();
            return None;
        };
        Some(Asset {
            id,
            library,
            url: odd.allowed(item.signed),
            locator: item.asset_id.unwrap_or_default(),
            name: item.name,
            mime_type: None,
            extension: item.file_ext_standardized,
            size_bytes: item.file_size.or(item.size).filter(wire::is_told),
            created_at: item.created_at,
            updated_at: item.updated_at,
            details: item.details,
        })
    }

    /// Lists the asset's library for it: for assets that came without an `assetId`.
    fn find_in_listing(&self, asset: &Asset) -> Result<Asset, ProviderError> {
        let listed = self.list(asset.library)?;
        let found = listed.into_iter().find(|listed| listed.id == asset.id);
        found.ok_or(ProviderError::NotFound)
    }

    fn asset_request<'a>(&self, locator: &'a str) -> ApiRequest<'a> {
        ApiRequest {
            path: ASSETS,
            id: Some(locator),
            headers: vec![("content-type", "application/json")],
            ..ApiRequest::default()
        }
    }

    fn uploaded(&self, answer: Value, library: Library, name: &str) -> Option<Asset> {
        let item = self.item(answer).ok()?;
        item.own_id()?;
        let mut odd = Oddities::default();
        let asset = self.asset(item, library, &mut odd)?;
        odd.warn(library, &self.told);
        Some(Asset {
            name: asset.name.or_else(|| Some(name.to_string())),
            ..asset
        })
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl RunwayProvider {
    /// What a page holds.
    pub(crate) fn read_page(
        &self,
        page: Value,
        library: Library,
    ) -> Result<Vec<Asset>, ProviderError> {
        let items: Vec<Item> = wire::objects(page, |item| self.item(item))?;
        let mut odd = Oddities::default();
        let assets = items.into_iter();
        Ok(assets
            .filter_map(|item| self.asset(item, library, &mut odd))
            .collect())
    }

    /// What the answer to an upload says.
    pub(crate) fn read_uploaded(&self, answer: Value, name: &str) -> Option<Asset> {
        self.uploaded(answer, Library::RunwayVideo, name)
    }
}

impl Provider for RunwayProvider {
    fn service(&self) -> Service {
        Service::Runway
    }

    fn list(&self, library: Library) -> Result<Vec<Asset>, ProviderError> {
        if library.service() != Service::Runway {
            return Err(ProviderError::Unsupported);
        }
        list_whole(library, || self.pass(library))
    }

    fn refresh(&self, asset: &Asset) -> Result<Asset, ProviderError> {
        if asset.locator.is_empty() {
            return self.find_in_listing(asset);
        }
        let answer = self.api.get(&self.asset_request(&asset.locator));
        let answer = answer.map_err(|e| failure::of_call(Service::Runway, Asked::Asset, e))?;
        let item = self.item(answer)?;
        let same_id = item.own_id().is_none_or(|id| id == asset.id);
        let same_locator = item.asset_id.as_deref() == Some(asset.locator.as_str());
        if !same_id && !same_locator {
            return Err(ProviderError::Malformed(
                "another asset than the one asked for".into(),
            ));
        }
        let item = Item {
            id: Some(asset.id.to_string()),
            asset_id: Some(asset.locator.clone()),
            ..item
        };
        let mut odd = Oddities::default();
        let fresh = self.asset(item, asset.library, &mut odd);
        odd.warn(asset.library, &self.told);
        fresh.ok_or(ProviderError::NotFound)
    }

    fn upload(&self, upload: Upload<'_>) -> Result<Asset, ProviderError> {
        if !upload.library.takes_uploads() {
            return Err(ProviderError::Unsupported);
        }
        let mut query = vec![("name", upload.name.to_string())];
        query.extend(self.email.clone().map(|email| ("email", email)));
        let request = ApiRequest {
            path: ASSETS,
            query,
            ..ApiRequest::default()
        };
        let body = ApiUpload {
            content_type: upload.content_type,
            body: upload.body,
            size_bytes: upload.size_bytes,
            sent_bytes: upload.sent_bytes,
        };
        let answer = self
            .api
            .upload(&request, body)
            .map_err(|e| failure::of_upload(Service::Runway, e))?;
        // The work is done, only its name is unknown: the caller finds it in the listing.
        self.uploaded(answer, upload.library, upload.name)
            .ok_or_else(|| {
                ProviderError::AnswerLost(TransportError::Malformed {
                    host: self.api.host().to_string(),
                    what: "an upload's answer without the asset's id".into(),
                })
            })
    }

    /// `DELETE assets/<assetId>`, answered by `{"success": boolean}`.
    fn delete(&self, asset: &Asset) -> Result<(), ProviderError> {
        let listed;
        let asset = if asset.locator.is_empty() {
            listed = self.find_in_listing(asset)?;
            &listed
        } else {
            asset
        };
        let request = ApiRequest {
            headers: Vec::new(),
            ..self.asset_request(&asset.locator)
        };
        let answer = self.api.delete(&request);
        let answer = answer.map_err(|e| failure::of_call(Service::Runway, Asked::Asset, e))?;
        match answer["success"].as_bool() {
            Some(true) => Ok(()),
            None if answer.is_null() => Ok(()),
            Some(false) => Err(ProviderError::Refused {
                status: 200,
                message: "the service did not delete it".into(),
            }),
            None => Err(ProviderError::Malformed(
                "a deletion that says nothing of its success".into(),
            )),
        }
    }
}

/// Where neighbouring pages don't meet: the last asset of each full page must stand in the next,
/// and nothing may follow a short page.
fn find_gap(pages: &[Vec<Item>], limit: usize) -> Option<String> {
    pages.windows(2).enumerate().find_map(|(number, pair)| {
        let (page, next) = (&pair[0], &pair[1]);
        if page.len() < limit {
            let more = !next.is_empty();
            return more.then(|| format!("page {} follows a short one", number + 2));
        }
        let last = page.last().and_then(Item::identity)?;
        let meets = next
            .iter()
            .any(|item| item.identity().as_ref() == Some(&last));
        (!meets).then(|| format!("pages {} and {} don't meet", number + 1, number + 2))
    })
}

#[cfg(test)]
mod tests;
