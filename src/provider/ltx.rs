//! LTX Studio by useapi.net: list, and renew by listing again (there is no call for one asset).
//!
//! Promises: a listing is whole or an error. The pages' own count is held against what they gave;
//! where the two differ, or the count changed between pages, the listing is made again. The list
//! has no names, sizes or times: those fields are `None`. The service is reported as being retired
//! in 2026: a page that is gone says so.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::Value;

use super::failure::{self, Asked};
use super::paging::{Length, Pass, dedupe, fetch_wave, list_whole};
use super::wire::{self, Oddities, Told};
use super::{
    Arrived, Asset, AssetId, Details, Library, MAX_RECORD_BYTES, Provider, ProviderError, Service,
};
use crate::http::{ApiClient, ApiRequest, SignedUrl};

/// "Retrieve LTX Studio assets", useapi.net.
pub(super) const ASSETS: &str = "v1/ltxstudio/assets/";

/// Assets asked for a page. The page names no largest `limit`; a service that gives fewer says so
/// in its own count of pages, which is what counts here.
const PAGE: usize = 50;

/// Pages read at most: 2,000 x 50 = 100,000 assets.
const MOST_PAGES: usize = 2_000;
/// Pages read before their assets are counted: a service that puts more on a page than it was asked
/// for must not fill the memory.
const PAGES_BETWEEN_CHECKS: usize = 32;
/// Assets listed at most; more is an error, never a part.
const MOST_ASSETS: usize = MOST_PAGES * PAGE;

/// See the module's head.
pub struct LtxProvider {
    api: ApiClient,
    email: Option<String>,
    told: Told,
    length: Length,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Item {
    #[serde(deserialize_with = "wire::text")]
    id: Option<String>,
    #[serde(deserialize_with = "wire::lenient")]
    signed_asset: Option<SignedAsset>,
    #[serde(deserialize_with = "wire::text")]
    job_id: Option<String>,
    #[serde(deserialize_with = "wire::lenient")]
    related_assets: Option<RelatedAssets>,
    /// The record itself, as it may be shown.
    #[serde(skip)]
    record: Option<Box<str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RelatedAssets {
    #[serde(deserialize_with = "wire::lenient")]
    thumbnails: Option<Thumbnails>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Thumbnails {
    #[serde(deserialize_with = "wire::lenient")]
    large: Option<SignedAsset>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SignedAsset {
    #[serde(deserialize_with = "wire::text")]
    asset_url: Option<String>,
    /// Milliseconds since 1970, as a string.
    #[serde(deserialize_with = "wire::epoch_ms")]
    expiration_date_string: Option<SystemTime>,
    #[serde(deserialize_with = "wire::lenient")]
    asset: Option<File>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    /// `asset:3b18…-type:video/mp4`
    #[serde(deserialize_with = "wire::text")]
    file_id: Option<String>,
    #[serde(deserialize_with = "wire::text")]
    mime_type: Option<String>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    #[serde(deserialize_with = "wire::size")]
    total_items: Option<u64>,
    #[serde(deserialize_with = "wire::size")]
    total_pages: Option<u64>,
}

/// One page, its assets already read.
struct Page {
    number: usize,
    assets: Vec<Asset>,
    /// Items on it, also those without an identity.
    items: usize,
    unidentified: usize,
    meta: Meta,
}

impl LtxProvider {
    /// `email` names the account, needed where several are configured.
    pub fn new(api: ApiClient, email: Option<String>) -> Self {
        Self {
            api,
            email,
            told: Told::default(),
            length: Length::default(),
        }
    }

    fn pass(&self, library: Library, arrived: &Arrived<'_>) -> Result<Pass, ProviderError> {
        let told = |number| {
            let page = self.page(library, number)?;
            arrived(&page.assets);
            Ok(page)
        };
        self.api.connect_ahead(self.length.spare());
        let mut pages = vec![told(1)?];
        let promised = promised_pages(&pages[0])?;
        while pages.len() < promised {
            // The first page told how many there are: none of these is asked for in vain.
            let numbers = pages.len() + 1..=promised;
            let numbers: Vec<usize> = numbers.take(PAGES_BETWEEN_CHECKS).collect();
            pages.extend(fetch_wave(&numbers, told, |_| false)?);
            check_size(&pages)?;
        }
        self.length.note(pages.len());
        self.read_on(library, &mut pages)?;
        let gap = find_gap(&pages);
        let assets = dedupe(pages.into_iter().flat_map(|page| page.assets));
        Ok(Pass { assets, gap })
    }

    /// Reads page after page where the service named no number of pages, or fewer than hold what
    /// it counts, until a page brings nothing new.
    fn read_on(&self, library: Library, pages: &mut Vec<Page>) -> Result<(), ProviderError> {
        let Meta {
            total_items,
            total_pages,
        } = pages[0].meta;
        if total_items.is_none() && total_pages.is_some_and(|pages| pages > 0) {
            return Ok(());
        }
        let mut known: BTreeSet<AssetId> = ids(pages).cloned().collect();
        loop {
            check_size(pages)?;
            let last_was_empty = pages.last().is_some_and(|page| page.items == 0);
            if last_was_empty || total_items.is_some_and(|total| held(pages) >= total) {
                return Ok(());
            }
            let next = match self.page(library, pages.len() + 1) {
                // Beyond its own count of pages; the gap in the count is found by the caller.
                Err(ProviderError::Refused { .. }) if total_pages.is_some() => return Ok(()),
                next => next?,
            };
            let before = known.len();
            known.extend(next.assets.iter().map(|asset| asset.id.clone()));
            let nothing_new = known.len() == before;
            pages.push(next);
            if nothing_new {
                return Ok(());
            }
        }
    }

    fn page(&self, library: Library, number: usize) -> Result<Page, ProviderError> {
        let mut query = vec![
            ("page", number.to_string()),
            ("limit", PAGE.to_string()),
            ("filter", library.name().to_string()),
        ];
        query.extend(self.email.clone().map(|email| ("email", email)));
        let request = ApiRequest {
            path: ASSETS,
            query,
            ..ApiRequest::default()
        };
        let answer = self.api.get(&request);
        let answer = answer.map_err(|e| failure::of_call(Service::Ltx, Asked::Page, e))?;
        self.read_page(answer, library, number)
    }

    fn read_page(
        &self,
        mut answer: Value,
        library: Library,
        number: usize,
    ) -> Result<Page, ProviderError> {
        if !answer.is_object() {
            return Err(ProviderError::Malformed(
                "a page that isn't an object".into(),
            ));
        }
        let meta = answer["meta"].take();
        let meta: Meta = if meta.is_object() {
            wire::object(meta)?
        } else {
            Meta::default()
        };
        let items = match answer["items"].take() {
            Value::Null if meta.total_items == Some(0) => Vec::new(),
            items => wire::objects(items, |item| self.item(item))?,
        };
        let mut odd = Oddities::default();
        let count = items.len();
        let assets: Vec<Asset> = items
            .into_iter()
            .filter_map(|item| self.asset(item, library, number, &mut odd))
            .collect();
        wire::check_readable(count, assets.len())?;
        odd.warn(library, &self.told);
        Ok(Page {
            number,
            items: count,
            unidentified: count - assets.len(),
            assets,
            meta,
        })
    }

    fn item(&self, item: Value) -> Result<Item, ProviderError> {
        let record = self.api.record(&item, MAX_RECORD_BYTES);
        let item: Item = wire::object(item)?;
        Ok(Item { record, ..item })
    }

    /// The large thumbnail, if it is one that may be asked for.
    fn preview(&self, related: Option<RelatedAssets>) -> Option<SignedUrl> {
        let large = related?.thumbnails?.large?;
        let (url, expires_at) = (large.asset_url?, large.expiration_date_string);
        SignedUrl::parse(&url, expires_at, &self.api.url_policy()).ok()
    }

    fn asset(
        &self,
        item: Item,
        library: Library,
        page: usize,
        odd: &mut Oddities,
    ) -> Option<Asset> {
        let signed = item.signed_asset.unwrap_or_default();
        let file = signed.asset.unwrap_or_default();
        let url_text = signed.asset_url.as_deref();
        let id = item
            .id
            .or_else(|| file.file_id.clone())
            .or_else(|| url_text.and_then(wire::place_of));
        let Some(id) = id else {
            odd.without_identity();
            return None;
        };
        let details = Details {
            task_id: item.job_id.map(String::into_boxed_str),
            preview: self.preview(item.related_assets),
            record: item.record,
            ..Details::default()
        };
        let mime_of_file_id = || {
            let (_, mime) = file.file_id.as_deref()?.rsplit_once("-type:")?;
            mime.contains('/').then(|| mime.to_string())
        };
        Some(Asset {
            id: AssetId::new(id),
            library,
            locator: page.to_string(),
            name: None,
            url: odd.url(
                url_text,
                signed.expiration_date_string,
                &self.api.url_policy(),
            ),
            mime_type: file.mime_type.or_else(mime_of_file_id),
            extension: None,
            size_bytes: None,
            created_at: None,
            updated_at: None,
            details: details.shared(),
        })
    }

    fn page_if_any(&self, library: Library, number: usize) -> Result<Vec<Asset>, ProviderError> {
        match self.page(library, number) {
            Ok(page) => Ok(page.assets),
            // The library became shorter and the service knows no such page any more.
            Err(ProviderError::Refused { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl LtxProvider {
    /// What a page holds.
    pub(crate) fn read(&self, page: Value, library: Library) -> Result<Vec<Asset>, ProviderError> {
        Ok(self.read_page(page, library, 1)?.assets)
    }
}

impl Provider for LtxProvider {
    fn service(&self) -> Service {
        Service::Ltx
    }

    fn list(&self, library: Library) -> Result<Vec<Asset>, ProviderError> {
        self.list_and_tell(library, &|_| ())
    }

    fn list_and_tell(
        &self,
        library: Library,
        arrived: &Arrived<'_>,
    ) -> Result<Vec<Asset>, ProviderError> {
        if library.service() != Service::Ltx {
            return Err(ProviderError::Unsupported);
        }
        list_whole(library, || self.pass(library, arrived))
    }

    /// Looks on the page where the asset was last seen, on its neighbours (new assets push it to
    /// the next one, deletions pull it to the one before), then everywhere.
    fn refresh(&self, asset: &Asset) -> Result<Asset, ProviderError> {
        Ok(self.refresh_with_others(asset)?.0)
    }

    fn refresh_with_others(&self, asset: &Asset) -> Result<(Asset, Vec<Asset>), ProviderError> {
        if let Some(page) = asset.locator.parse().ok().filter(|page| *page >= 1) {
            let neighbours = [page, page + 1, page - 1];
            for number in neighbours.into_iter().filter(|number| *number >= 1) {
                if let Some(found) = pick(asset, self.page_if_any(asset.library, number)?) {
                    return Ok(found);
                }
            }
        }
        pick(asset, self.list(asset.library)?).ok_or(ProviderError::NotFound)
    }
}

/// The number of pages that the first page names; 1 where it names none that can be.
fn promised_pages(first: &Page) -> Result<usize, ProviderError> {
    let promised = first.meta.total_pages.unwrap_or(1).max(1);
    match usize::try_from(promised) {
        Ok(pages) if pages <= MOST_PAGES => Ok(pages),
        _ => Err(too_many()),
    }
}

/// A service that counts on and on must not fill the memory.
fn check_size(pages: &[Page]) -> Result<(), ProviderError> {
    let items: usize = pages.iter().map(|page| page.items).sum();
    if pages.len() > MOST_PAGES || items > MOST_ASSETS {
        return Err(too_many());
    }
    Ok(())
}

fn too_many() -> ProviderError {
    ProviderError::Malformed(format!("more than {MOST_ASSETS} assets"))
}

fn ids(pages: &[Page]) -> impl Iterator<Item = &AssetId> {
    pages.iter().flat_map(|page| &page.assets).map(|a| &a.id)
}

/// Different assets, counting those without identity as different.
fn held(pages: &[Page]) -> u64 {
    let distinct = ids(pages).collect::<BTreeSet<_>>().len();
    let unidentified: usize = pages.iter().map(|page| page.unidentified).sum();
    (distinct + unidentified) as u64
}

/// Why something may be missing: the count changed between pages, or isn't what they gave.
fn find_gap(pages: &[Page]) -> Option<String> {
    let total = pages[0].meta.total_items?;
    let changed = |page: &&Page| page.meta.total_items.is_some_and(|other| other != total);
    if let Some(page) = pages.iter().find(changed) {
        return Some(format!(
            "the count of assets changed by page {}",
            page.number
        ));
    }
    let held = held(pages);
    (held != total).then(|| format!("{held} different assets where {total} were counted"))
}

#[cfg(test)]
#[path = "ltx_tests.rs"]
mod tests;

/// Takes `asset` out of what was listed, and gives the others with it.
fn pick(asset: &Asset, mut listed: Vec<Asset>) -> Option<(Asset, Vec<Asset>)> {
    let at = listed.iter().position(|listed| listed.id == asset.id)?;
    let found = listed.swap_remove(at);
    Some((found, listed))
}
