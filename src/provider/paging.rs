//! Listing page by page while the service changes: pages asked for in parallel, and a listing
//! that shows a gap made again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{Asset, AssetId, Library, ProviderError};

/// Listings made when each shows a gap.
const ATTEMPTS: usize = 3;

/// Pages asked for at once, at most: enough to hide round trips, few enough for rate limits.
pub const WIDEST_WAVE: usize = 10;

/// How many connections the listings of one service are worth, by the longest one so far.
#[derive(Default)]
pub struct Length(AtomicUsize);

impl Length {
    /// Connections to open beside the first page's: as many as the widest wave needs where nothing
    /// is known, since the second wave would else wait for them longer than for its answers.
    pub fn spare(&self) -> usize {
        match self.0.load(Ordering::Relaxed) {
            0 => WIDEST_WAVE - 1,
            pages => (pages - 1).min(WIDEST_WAVE - 1),
        }
    }

    /// Notes that a library has so many pages, or more.
    pub fn note(&self, pages: usize) {
        self.0.fetch_max(pages, Ordering::Relaxed);
    }
}

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

/// Fetches `pages`, [`WIDEST_WAVE`] at a time, and gives those that were asked for in order, or the
/// first error in that order. None is begun after an error, nor after a page that `is_last`.
pub fn fetch_wave<T: Send>(
    pages: &[usize],
    fetch: impl Fn(usize) -> Result<T, ProviderError> + Sync,
    is_last: impl Fn(&T) -> bool + Sync,
) -> Result<Vec<T>, ProviderError> {
    let next = AtomicUsize::new(0);
    let fetched = Mutex::new(BTreeMap::new());
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(page) = pages.get(at) else { return };
            let answer = fetch(*page);
            if answer.as_ref().map_or(true, &is_last) {
                next.store(pages.len(), Ordering::Relaxed);
            }
            let mut fetched = fetched.lock().unwrap_or_else(|e| e.into_inner());
            fetched.insert(at, answer);
        }
    };
    thread::scope(|scope| {
        for _ in 1..pages.len().min(WIDEST_WAVE) {
            let named = thread::Builder::new().name("reelfs-page".into());
            // Where there are no more threads to be had, fewer do the same.
            let _ = named.spawn_scoped(scope, work);
        }
        work();
    });
    let fetched = fetched.into_inner().unwrap_or_else(|e| e.into_inner());
    fetched.into_values().collect()
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
        Asset::bare(Library::RunwayVideo, id)
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
        let twice = fetch_wave(&[3, 1, 2], |page| Ok(page * 2), |_| false).unwrap();
        assert_eq!(twice, [6, 2, 4]);
        let failed = fetch_wave(
            &[1, 2, 3],
            |page| match page {
                2 => Err(ProviderError::NotFound),
                page => Ok(page),
            },
            |_| false,
        );
        assert!(failed.is_err());
    }

    #[test]
    fn no_page_is_begun_after_an_error_and_no_more_than_a_wave_at_once() {
        let pages: Vec<usize> = (0..100).collect();
        let under_way = AtomicUsize::new(0);
        let begun = AtomicUsize::new(0);
        let failed = fetch_wave(
            &pages,
            |page| {
                begun.fetch_add(1, Ordering::Relaxed);
                assert!(under_way.fetch_add(1, Ordering::SeqCst) < WIDEST_WAVE);
                thread::yield_now();
                under_way.fetch_sub(1, Ordering::SeqCst);
                match page {
                    20 => Err(ProviderError::NotFound),
                    page => Ok(page),
                }
            },
            |_| false,
        );
        assert!(failed.is_err());
        let begun = begun.into_inner();
        assert!(begun < 100, "{begun} begun although page 20 failed");
    }

    #[test]
    fn no_page_is_begun_after_the_last_and_those_that_were_are_all_there() {
        let pages: Vec<usize> = (0..100).collect();
        let fetched = fetch_wave(&pages, Ok, |page| *page == 20).unwrap();
        let count = fetched.len();
        assert!((21..100).contains(&count), "{count}");
        assert_eq!(fetched, pages[..count]);
    }

    #[test]
    fn a_known_library_is_given_no_more_connections_than_it_has_pages() {
        let length = Length::default();
        assert_eq!(length.spare(), WIDEST_WAVE - 1);
        let spare_after = [1, 3, 2, 100].map(|pages| {
            length.note(pages);
            length.spare()
        });
        assert_eq!(spare_after, [0, 2, 2, WIDEST_WAVE - 1]);
    }

    #[test]
    fn the_first_of_each_id_is_kept() {
        let kept = dedupe([asset("b"), asset("a"), asset("b")]);
        let ids: Vec<_> = kept.iter().map(|a| a.id.as_str()).collect();
        assert_eq!(ids, ["b", "a"]);
    }
}
