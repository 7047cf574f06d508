//! Listing page by page while the service changes: pages asked for in parallel, and a listing
//! that shows a gap made again.

use std::collections::BTreeSet;
use std::panic;
use std::thread;

use super::{Asset, AssetId, Library, ProviderError};

/// Listings made when each shows a gap.
const ATTEMPTS: usize = 3;

/// Pages asked for at once, at most: enough to hide round trips, few enough for rate limits.
pub const WIDEST_WAVE: usize = 8;

/// Everything one pass over the pages gave, each asset once.
pub struct Pass {
    pub assets: Vec<Asset>,
    /// Why something may be missing.
    pub gap: Option<String>,
}

/// Lists until a pass has no gap. Two passes that agree on what is there are taken as whole (a
/// service that sorts or counts oddly does so every time). If each of three passes differs, the
/// last is taken, with a warning: that library changes faster than it can be listed.
pub fn list_whole(
    library: Library,
    mut pass: impl FnMut() -> Result<Pass, ProviderError>,
) -> Result<Vec<Asset>, ProviderError> {
    let mut before: Option<BTreeSet<AssetId>> = None;
    for attempt in 1.. {
        let Pass { assets, gap } = pass()?;
        let Some(gap) = gap else {
            return Ok(assets);
        };
        let ids: BTreeSet<_> = assets.iter().map(|asset| asset.id.clone()).collect();
        if before.as_ref() == Some(&ids) {
            log::debug!("{library}: {gap}, but listed twice with the same assets");
            return Ok(assets);
        }
        if attempt == ATTEMPTS {
            log::warn!(
                "{library} kept changing while it was listed ({gap}); an asset may be missing until the next listing"
            );
            return Ok(assets);
        }
        log::debug!("{library}: {gap}; listing again");
        before = Some(ids);
    }
    unreachable!("the loop ends by its attempts")
}

/// Fetches `pages` at once and gives them in order, or the first error in that order.
pub fn fetch_wave<T: Send>(
    pages: &[usize],
    fetch: impl Fn(usize) -> Result<T, ProviderError> + Sync,
) -> Result<Vec<T>, ProviderError> {
    let fetch = &fetch;
    let Some((&own, others)) = pages.split_first() else {
        return Ok(Vec::new());
    };
    thread::scope(|scope| {
        let others: Vec<_> = others
            .iter()
            .map(|&page| {
                let named = thread::Builder::new().name("reelfs-page".into());
                (page, named.spawn_scoped(scope, move || fetch(page)))
            })
            .collect();
        let mut fetched = vec![fetch(own)];
        for (page, thread) in others {
            fetched.push(match thread {
                Ok(thread) => thread.join().unwrap_or_else(|e| panic::resume_unwind(e)),
                // No more threads to be had: slower, but the same.
                Err(_) => fetch(page),
            });
        }
        fetched.into_iter().collect()
    })
}

/// Keeps the first asset of each id.
pub fn dedupe(assets: impl IntoIterator<Item = Asset>) -> Vec<Asset> {
    let mut seen = BTreeSet::new();
    let mut kept: Vec<Asset> = assets.into_iter().collect();
    kept.retain(|asset| seen.insert(asset.id.clone()));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asset(id: &str) -> Asset {
        Asset {
            id: AssetId::new(id),
            library: Library::RunwayVideo,
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

    /// Lists passes given as (ids, whether there is a gap); the ids taken and passes made.
    fn list(passes: &[(&str, bool)]) -> (String, usize) {
        let mut made = 0;
        let assets = list_whole(Library::RunwayVideo, || {
            let (ids, gap) = passes[made];
            made += 1;
            Ok(Pass {
                assets: ids.split_terminator("").skip(1).map(asset).collect(),
                gap: gap.then(|| "a gap".to_string()),
            })
        });
        let ids = assets.unwrap().iter().map(|a| a.id.to_string()).collect();
        (ids, made)
    }

    #[test]
    fn a_pass_without_a_gap_is_enough() {
        assert_eq!(list(&[("abc", false)]), ("abc".into(), 1));
        assert_eq!(list(&[("ac", true), ("abc", false)]), ("abc".into(), 2));
    }

    #[test]
    fn two_passes_that_agree_are_whole() {
        assert_eq!(list(&[("ab", true), ("ba", true)]), ("ba".into(), 2));
    }

    #[test]
    fn three_passes_that_differ_end_with_the_last() {
        let passes = [("a", true), ("b", true), ("c", true)];
        assert_eq!(list(&passes), ("c".into(), 3));
    }

    #[test]
    fn a_wave_keeps_its_order_and_fails_as_a_whole() {
        let twice = fetch_wave(&[3, 1, 2], |page| Ok(page * 2)).unwrap();
        assert_eq!(twice, [6, 2, 4]);
        let failed = fetch_wave(&[1, 2, 3], |page| match page {
            2 => Err(ProviderError::NotFound),
            page => Ok(page),
        });
        assert!(failed.is_err());
    }

    #[test]
    fn the_first_of_each_id_is_kept() {
        let kept = dedupe([asset("b"), asset("a"), asset("b")]);
        let ids: Vec<_> = kept.iter().map(|a| a.id.as_str()).collect();
        assert_eq!(ids, ["b", "a"]);
    }
}
