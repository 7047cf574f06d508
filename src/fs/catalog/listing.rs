//! Listings: who asks for one, what becomes of its answer, and what stands in for a failed one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::super::error::FsError;
use super::super::memory;
use super::{Catalog, Ready, State};
use crate::provider::{Asset, AssetId, Library};
use crate::reader::ObjectInfo;
use crate::tree::Changes;

/// How long an older listing stands in for a service that is unwell. Long enough for a restart of
/// the service or a night train, short enough that nobody works on last week's directory.
pub const MAX_STALE: Duration = Duration::from_secs(3_600);
/// After a failed refresh the older listing stands this long before the service is asked again,
/// so that each `ls` does not wait out a deadline.
pub(in crate::fs) const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Who waits for a listing.
pub(super) struct Waiter {
    since: Instant,
    ready: Ready,
}

impl Catalog {
    /// How much longer the directory's listing may be believed.
    pub fn fresh_for(&self, state: &State, library: Library) -> Duration {
        let now = self.now();
        let listed = state.tree.listed_at(library);
        let trusted = listed.filter(|_| !state.distrusted.contains(&library));
        let by_age = trusted.map_or(Duration::ZERO, |at| {
            (at + self.listing_ttl).saturating_duration_since(now)
        });
        let by_pause = state.not_before.get(&library);
        let by_pause = by_pause.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        by_age.max(by_pause)
    }

    /// Calls `ready` once the listing of `library` is fresh, or can't be made so. A listing that is
    /// still in use near its end is renewed meanwhile, so that the next reader needn't wait.
    pub fn ensure_listed(&self, library: Library, ready: Ready) {
        if library == Library::Runflow {
            return ready(Ok(()));
        }
        let mut state = self.lock();
        let (begins, answered) = if self.fresh_for(&state, library).is_zero() {
            let since = self.now();
            let waiter = Waiter { since, ready };
            (state.begin_loading(library, Some(waiter)), None)
        } else {
            let due = self.is_nearly_due(&state, library);
            (due && state.begin_loading(library, None), Some(ready))
        };
        drop(state);
        if let Some(ready) = answered {
            ready(Ok(()));
        }
        if begins {
            self.on_worker(library.service(), move |catalog| catalog.load(library));
        }
    }

    /// In the last quarter of its life, and not while a service that is unwell is left alone.
    fn is_nearly_due(&self, state: &State, library: Library) -> bool {
        let now = self.now();
        let waits = state.not_before.get(&library).is_some_and(|at| now < *at);
        let listed = state.tree.listed_at(library);
        let due = listed.is_some_and(|at| now >= at + self.listing_ttl * 3 / 4);
        due && !waits
    }

    fn load(&self, library: Library) {
        let was_distrusted = self.lock().distrusted.remove(&library);
        let asked_at = self.now();
        let arrived = |assets: &[Asset]| self.note_arrival(library, assets);
        let listed = self.ask(library.service(), |provider| {
            provider.list_and_tell(library, &arrived)
        });
        let listed = listed.map(|assets| {
            let remembered = memory::objects(&self.store, &assets);
            (assets, remembered)
        });
        let mut state = self.lock();
        let is_new = listed.is_ok();
        let (answer, mut changes) = match listed {
            Ok((assets, remembered)) => {
                state.not_before.remove(&library);
                if state.complained.remove(&library).is_some() {
                    log::info!("{library}: listed again");
                }
                (
                    Ok(()),
                    state.take_listing(library, assets, remembered, asked_at),
                )
            }
            Err(error) => (
                self.fall_back(&mut state, library, error.into()),
                Changes::default(),
            ),
        };
        if was_distrusted && !is_new {
            // A refresh that failed made it no newer.
            state.distrusted.insert(library);
        }
        let mut waiting = state.loading.remove(&library).unwrap_or_default();
        let mut again = false;
        if is_new {
            // Distrusted while the service answered, this may be older than what is asked for; and
            // so it is for who came when it was under way for longer than it is believed.
            let is_distrusted = state.distrusted.contains(&library);
            let until = asked_at + self.listing_ttl;
            let late = waiting.extract_if(.., |waiter| is_distrusted || waiter.since > until);
            let late: Vec<Waiter> = late.collect();
            again = is_distrusted || !late.is_empty();
            if again {
                state.loading.insert(library, late);
            }
        }
        let begins = state.end_early(library, &mut changes);
        drop(state);
        self.begin_storing(begins);
        self.announce(library, changes);
        if again {
            self.on_worker(library.service(), move |catalog| catalog.load(library));
        }
        for waiter in waiting {
            (waiter.ready)(answer.clone());
        }
    }

    /// Lets the older listing stand where the service is unwell; logs each reason once.
    fn fall_back(
        &self,
        state: &mut State,
        library: Library,
        error: FsError,
    ) -> Result<(), FsError> {
        let now = self.now();
        let listed_at = state.tree.listed_at(library);
        let usable = listed_at.is_some_and(|at| now < at + MAX_STALE) && error.is_transient();
        let reason = error.to_string();
        if state.complained.get(&library) != Some(&reason) {
            if usable {
                log::warn!("{library}: showing an older listing, because {reason}");
            } else {
                log::error!("{library}: cannot be listed: {reason}");
            }
            state.complained.insert(library, reason);
        }
        if !usable {
            return Err(match error {
                // For a directory that exists, ENOENT would be a lie.
                FsError::NotFound => FsError::Io("the service has no such listing".to_string()),
                other => other,
            });
        }
        state.not_before.insert(library, now + RETRY_AFTER_FAILURE);
        Ok(())
    }
}

impl State {
    /// Lets no listing from before this call be taken for fresh, whatever its age.
    pub fn distrust(&mut self, library: Library) {
        self.distrusted.insert(library);
        self.not_before.remove(&library);
    }

    /// Notes that `waiter` waits for a listing; whether nobody has begun with it yet.
    fn begin_loading(&mut self, library: Library, waiter: Option<Waiter>) -> bool {
        let begins = !self.loading.contains_key(&library);
        self.loading.entry(library).or_default().extend(waiter);
        begins
    }

    fn take_listing(
        &mut self,
        library: Library,
        assets: Vec<Asset>,
        remembered: HashMap<AssetId, ObjectInfo>,
        asked_at: Instant,
    ) -> Changes {
        let kept = &self.kept;
        let keep = |id: &AssetId| kept.get(id).cloned();
        let changes = self.tree.apply_listing(library, assets, asked_at, &keep);
        if !remembered.is_empty() {
            for entry in self.tree.entries(library).iter() {
                self.recall(entry.ino, &remembered);
            }
        }
        changes
    }
}
