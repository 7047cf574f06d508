//! In which order staged files are sent, and when none is. Pure: it knows no files, threads or
//! clocks, only ids and the time it is given.
//!
//! Promise: first come, first served; files of one name in one library strictly one after the
//! other, in the order of submission; at most `limit` at once. A rate limit ([`Queue::pause`])
//! stops everything until its time; a refused account ([`Queue::block`]) stops everything but one
//! probe every [`PROBE`]. An entry that somebody waits for leaves the queue when it had no success
//! for the deadline; one that nobody waits for stays until it is done.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::error::UploadError;
use crate::provider::Library;

/// How often a refused account is tried again.
pub(super) const PROBE: Duration = Duration::from_secs(60);
/// The wait after a first failure; it doubles with each further one up to [`BACKOFF_MAX`].
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A `Retry-After` beyond this is taken for a mistake.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// Whether a close waits for an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    Somebody,
    Nobody,
}

#[derive(Debug)]
struct Entry {
    id: Uuid,
    key: (Library, String),
    waiting: Waiting,
    /// Journaled, so that it may be sent.
    ready: bool,
    running: bool,
    /// Not before this.
    due: Instant,
    queued_at: Instant,
    /// The first of the failures since the last submission.
    failing_since: Option<Instant>,
    failures: u32,
    /// How often the listing was looked through since the last attempt.
    looks: u32,
    last_error: Option<UploadError>,
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Pick {
    /// Send this one, whose listing was looked through so often.
    Run { id: Uuid, looks: u32 },
    /// Tell those who wait for this one that it failed; it has left the queue.
    GiveUp { id: Uuid, error: UploadError },
    /// Nothing before this time, or before something changes.
    Wait(Option<Instant>),
}

/// What is known of an entry.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    pub failures: u32,
    pub last_error: Option<UploadError>,
    /// Until it may be sent; `None` while it is sent, or where nothing is planned.
    pub next_try: Option<Duration>,
}

#[derive(Debug, Clone)]
struct Block {
    error: UploadError,
    next_probe: Instant,
}

#[derive(Debug)]
pub(super) struct Queue {
    entries: Vec<Entry>,
    limit: usize,
    deadline: Duration,
    held: bool,
    paused_until: Option<Instant>,
    blocked: Option<Block>,
    last_progress: Option<Instant>,
}

impl Queue {
    /// `deadline` is how long an entry that somebody waits for may go without success.
    pub(super) fn new(limit: usize, deadline: Duration) -> Self {
        Self {
            entries: Vec::new(),
            limit: limit.max(1),
            deadline,
            held: false,
            paused_until: None,
            blocked: None,
            last_progress: None,
        }
    }

    /// Adds an entry that isn't ready, or moves one that isn't running to the end.
    pub(super) fn submit(
        &mut self,
        id: Uuid,
        key: (Library, String),
        waiting: Waiting,
        now: Instant,
    ) {
        if let Some(entry) = self.entry(id).filter(|entry| entry.running) {
            entry.wait(waiting, now);
            return;
        }
        let before = self.remove(id);
        let waited = before.is_some_and(|entry| entry.waiting == Waiting::Somebody);
        self.entries.push(Entry {
            id,
            key,
            waiting: if waited { Waiting::Somebody } else { waiting },
            ready: false,
            running: false,
            due: now,
            queued_at: now,
            failing_since: None,
            failures: 0,
            looks: 0,
            last_error: None,
        });
    }

    /// The entry is journaled and may be sent. Says whether there is such an entry.
    pub(super) fn ready(&mut self, id: Uuid) -> bool {
        let entry = self.entry(id);
        entry.map(|entry| entry.ready = true).is_some()
    }

    pub(super) fn rename(&mut self, id: Uuid, key: (Library, String)) {
        if let Some(entry) = self.entry(id) {
            entry.key = key;
        }
    }

    /// Takes an entry out, whatever its state.
    pub(super) fn leave(&mut self, id: Uuid) {
        self.remove(id);
    }

    /// Bytes went out or an upload ended well.
    pub(super) fn progressed(&mut self, now: Instant) {
        self.last_progress = Some(now);
    }

    /// The entry is done; the service takes uploads again if it did not. Says whether it did not.
    pub(super) fn succeeded(&mut self, id: Uuid, now: Instant) -> bool {
        self.remove(id);
        self.progressed(now);
        self.unblock()
    }

    /// The service answered as it should, so a block is over. Says whether there was one.
    pub(super) fn unblock(&mut self) -> bool {
        self.blocked.take().is_some()
    }

    /// Tries again after a wait that grows. Says whether the error is news.
    pub(super) fn retry(&mut self, id: Uuid, error: UploadError, now: Instant) -> bool {
        let mut news = true;
        if let Some(entry) = self.entry(id) {
            news = entry.fail(error, now);
            entry.due = now + backoff(entry.failures);
        }
        self.postpone_probe(now);
        news
    }

    /// The attempt's answer was lost: look at once after a first loss, later after further ones.
    pub(super) fn lost(&mut self, id: Uuid, error: UploadError, now: Instant) {
        if let Some(entry) = self.entry(id) {
            entry.fail(error, now);
            entry.due = now + backoff(entry.failures.saturating_sub(1));
        }
        self.postpone_probe(now);
    }

    /// The listing did not show it yet: look again `after`.
    pub(super) fn look_again(&mut self, id: Uuid, after: Duration, now: Instant) {
        if let Some(entry) = self.entry(id) {
            entry.running = false;
            entry.looks += 1;
            entry.failing_since.get_or_insert(now);
            entry.due = now + after;
        }
    }

    /// The account's rate limit is reached: nothing goes out until it is over. Returns the wait, and
    /// whether the limit is news.
    pub(super) fn pause(
        &mut self,
        id: Uuid,
        error: UploadError,
        wait: Option<Duration>,
        now: Instant,
    ) -> (Duration, bool) {
        let (mut pause, mut news) = (BACKOFF_FIRST, true);
        if let Some(entry) = self.entry(id) {
            news = entry.fail(error, now);
            pause = wait.unwrap_or(backoff(entry.failures)).min(PAUSE_MAX);
        }
        self.postpone_probe(now);
        let until = now + pause;
        self.paused_until = Some(self.paused_until.map_or(until, |at| at.max(until)));
        (pause, news)
    }

    /// The account is refused: only probes go out from now on. Says whether this is news.
    pub(super) fn block(&mut self, id: Uuid, error: UploadError, now: Instant) -> bool {
        if let Some(entry) = self.entry(id) {
            entry.fail(error.clone(), now);
            entry.due = now;
        }
        let next_probe = now + PROBE;
        self.blocked.replace(Block { error, next_probe }).is_none()
    }

    /// Lets nothing start until [`Queue::resume`].
    pub(super) fn hold(&mut self) {
        self.held = true;
    }

    /// Lets everything start now: ends a hold, a pause, a block and every backoff.
    pub(super) fn resume(&mut self, now: Instant) {
        self.held = false;
        self.paused_until = None;
        self.blocked = None;
        for entry in &mut self.entries {
            entry.due = entry.due.min(now);
        }
    }

    /// What is known of an entry; nothing of one that isn't here.
    pub(super) fn outlook(&self, id: Uuid, now: Instant) -> Outlook {
        let Some(entry) = self.entries.iter().find(|entry| entry.id == id) else {
            return Outlook::default();
        };
        let planned = entry.ready && !entry.running && !self.held;
        let probe = self.blocked.as_ref().map(|block| block.next_probe);
        let at = [Some(entry.due), self.paused_until, probe];
        let at = at.into_iter().flatten().max();
        Outlook {
            failures: entry.failures,
            last_error: entry.last_error.clone(),
            next_try: at
                .filter(|_| planned)
                .map(|at| at.saturating_duration_since(now)),
        }
    }

    pub(super) fn ids(&self) -> Vec<Uuid> {
        self.entries.iter().map(|entry| entry.id).collect()
    }

    /// Whether nothing is being sent and nothing will be without the user's doing.
    pub(super) fn stuck(&self) -> bool {
        let running = self.entries.iter().any(|entry| entry.running);
        !running && (self.held || self.blocked.is_some())
    }

    /// Whether nothing is being sent.
    #[cfg(test)]
    pub(super) fn is_resting(&self) -> bool {
        self.running() == 0
    }

    /// Whether every entry may be sent.
    #[cfg(test)]
    pub(super) fn is_ready(&self) -> bool {
        self.entries.iter().all(|entry| entry.ready)
    }

    /// The next thing to do at `now`.
    pub(super) fn next(&mut self, now: Instant) -> Pick {
        let mut wake = Wake(None);
        if let Some(id) = self.expired(now, &mut wake) {
            let entry = self.remove(id);
            let error = entry
                .and_then(|entry| entry.last_error)
                .unwrap_or(UploadError::NotSent(self.deadline));
            return Pick::GiveUp { id, error };
        }
        if self.held || self.running() >= self.limit {
            return Pick::Wait(wake.0);
        }
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            wake.at(until);
            return Pick::Wait(wake.0);
        }
        self.paused_until = None;
        match self.blocked.clone() {
            Some(block) if block.next_probe > now || self.running() > 0 => {
                wake.at(block.next_probe.max(now));
                self.refuse_waiting(block.error, wake)
            }
            _ => self.start(now, wake),
        }
    }

    /// A probe that brought no verdict leaves the block, and the next one comes in its time.
    fn postpone_probe(&mut self, now: Instant) {
        if let Some(block) = &mut self.blocked {
            block.next_probe = now + PROBE;
        }
    }

    fn running(&self) -> usize {
        self.entries.iter().filter(|entry| entry.running).count()
    }

    /// The first entry that somebody has waited for in vain.
    fn expired(&self, now: Instant, wake: &mut Wake) -> Option<Uuid> {
        let waiting = self
            .entries
            .iter()
            .filter(|entry| entry.waiting == Waiting::Somebody && entry.ready && !entry.running);
        for entry in waiting {
            let idle_since = self
                .last_progress
                .map_or(entry.queued_at, |at| at.max(entry.queued_at));
            let since = entry.failing_since.unwrap_or(idle_since).min(idle_since);
            let ends = since + self.deadline;
            if ends <= now {
                return Some(entry.id);
            }
            wake.at(ends);
        }
        None
    }

    /// While the account is refused, nobody is kept waiting for it.
    fn refuse_waiting(&mut self, error: UploadError, wake: Wake) -> Pick {
        let found = self
            .entries
            .iter()
            .find(|e| e.waiting == Waiting::Somebody && e.ready && !e.running)
            .map(|entry| entry.id);
        match found {
            Some(id) => {
                self.remove(id);
                Pick::GiveUp { id, error }
            }
            // A probe under way wakes the queue when it ends.
            None if self.running() > 0 => Pick::Wait(None),
            None => Pick::Wait(wake.0),
        }
    }

    fn start(&mut self, now: Instant, mut wake: Wake) -> Pick {
        let mut taken: HashSet<&(Library, String)> = HashSet::new();
        let mut found = None;
        for (at, entry) in self.entries.iter().enumerate() {
            let first_of_its_name = taken.insert(&entry.key);
            if entry.running || !entry.ready || !first_of_its_name {
                continue;
            }
            if entry.due <= now {
                found = Some(at);
                break;
            }
            wake.at(entry.due);
        }
        let Some(entry) = found.map(|at| &mut self.entries[at]) else {
            return Pick::Wait(wake.0);
        };
        entry.running = true;
        Pick::Run {
            id: entry.id,
            looks: entry.looks,
        }
    }

    fn entry(&mut self, id: Uuid) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.id == id)
    }

    fn remove(&mut self, id: Uuid) -> Option<Entry> {
        let at = self.entries.iter().position(|entry| entry.id == id)?;
        Some(self.entries.remove(at))
    }
}

impl Entry {
    fn wait(&mut self, waiting: Waiting, now: Instant) {
        if waiting == Waiting::Somebody && self.waiting == Waiting::Nobody {
            self.waiting = waiting;
            self.queued_at = now;
            self.failing_since = None;
        }
    }

    /// Says whether it failed in another way than the time before.
    fn fail(&mut self, error: UploadError, now: Instant) -> bool {
        self.running = false;
        self.failures = self.failures.saturating_add(1);
        self.looks = 0;
        self.failing_since.get_or_insert(now);
        let said = error.to_string();
        let before = self.last_error.replace(error);
        before.is_none_or(|before| before.to_string() != said)
    }
}

/// The earliest of several times.
struct Wake(Option<Instant>);

impl Wake {
    fn at(&mut self, time: Instant) {
        self.0 = Some(self.0.map_or(time, |earlier| earlier.min(time)));
    }
}

/// 0, 1, 2, 4, … 60 s after 0, 1, 2, 3, … failures.
fn backoff(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => (BACKOFF_FIRST * (1 << (n - 1).min(6))).min(BACKOFF_MAX),
    }
}

#[cfg(test)]
mod tests;
