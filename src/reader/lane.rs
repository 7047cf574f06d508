//! One lane a service, so that a service that hangs never holds up another: admission of the
//! reads that must wait for bytes (first come, first served), connections, and the pause that a
//! `Retry-After` asks for.
//!
//! Lock order: the lane's lock is the innermost; nothing is called while it is held.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::RemoteFile;
use super::lock::Lock;
use super::waiter::Reply;
use crate::range::ByteRange;

/// Probes at a time: 1,000 sizes take 4 round trips and the connect. With TLS a connection costs
/// about a millisecond of processor time, so more would not be faster.
const PROBES: usize = 256;

pub(super) struct Lane {
    pub streams: Arc<Semaphore>,
    pub probes: Arc<Semaphore>,
    limit_bytes: u64,
    state: Lock<State>,
}

struct State {
    queue: VecDeque<Queued>,
    admitted_bytes: u64,
    /// Whether a task looks after the queue's deadlines.
    watched: bool,
    closed: bool,
    last_progress: Instant,
    not_before: Option<Instant>,
}

/// A read that is not admitted yet.
pub(super) struct Queued {
    pub file: Arc<RemoteFile>,
    pub range: ByteRange,
    pub since: Instant,
    pub reply: Reply,
}

/// What became of a read that asked to be admitted.
pub(super) enum Admission {
    /// It may allocate; [`Lane::release`] gives its bytes back.
    Admitted(Queued),
    /// It waits; `watch` says that the caller must start a task for the queue's deadlines.
    Queued {
        watch: bool,
    },
    Closed(Queued),
}

impl Lane {
    /// A lane whose admitted reads are `limit_bytes` together, or a single one of any length, and
    /// that has so many `connections` for demanded bytes.
    pub fn new(limit_bytes: u64, connections: usize, now: Instant) -> Self {
        Self {
            streams: Arc::new(Semaphore::new(connections)),
            probes: Arc::new(Semaphore::new(PROBES)),
            limit_bytes,
            state: Lock::new(State {
                queue: VecDeque::new(),
                admitted_bytes: 0,
                watched: false,
                closed: false,
                last_progress: now,
                not_before: None,
            }),
        }
    }

    /// Lets a read go on, or puts it in the line.
    pub fn admit(&self, read: Queued) -> Admission {
        let mut state = self.state.lock();
        if state.closed {
            return Admission::Closed(read);
        }
        if state.queue.is_empty() && self.fits(&state, &read) {
            state.admitted_bytes += read.range.len();
            return Admission::Admitted(read);
        }
        state.queue.push_back(read);
        let watch = !state.watched;
        state.watched = true;
        Admission::Queued { watch }
    }

    fn fits(&self, state: &State, read: &Queued) -> bool {
        state.admitted_bytes == 0 || state.admitted_bytes + read.range.len() <= self.limit_bytes
    }

    /// Takes `bytes` back and hands out the reads that are admitted now.
    pub fn release(&self, bytes: u64) -> Vec<Queued> {
        let mut state = self.state.lock();
        state.admitted_bytes = state.admitted_bytes.saturating_sub(bytes);
        let mut admitted = Vec::new();
        while let Some(next) = state.queue.front() {
            if !self.fits(&state, next) {
                break;
            }
            state.admitted_bytes += next.range.len();
            admitted.extend(state.queue.pop_front());
        }
        admitted
    }

    /// Takes out the queued reads that waited longer than `limit` while nothing moved in the
    /// lane, and tells when to look again: `None` once the queue is empty.
    pub fn expire(&self, now: Instant, limit: Duration) -> (Vec<Queued>, Option<Instant>) {
        let mut state = self.state.lock();
        let last = state.last_progress;
        let deadline = |read: &Queued| read.since.max(last) + limit;
        let (expired, waiting) = std::mem::take(&mut state.queue)
            .into_iter()
            .partition(|read| deadline(read) <= now);
        state.queue = waiting;
        let next = state.queue.iter().map(deadline).min();
        state.watched = next.is_some();
        (Vec::from(expired), next)
    }

    /// Refuses reads from now on and hands out those that wait.
    pub fn close(&self) -> VecDeque<Queued> {
        let mut state = self.state.lock();
        state.closed = true;
        std::mem::take(&mut state.queue)
    }

    /// Bytes came, or a probe was answered.
    pub fn note_progress(&self, now: Instant) {
        self.state.lock().last_progress = now;
    }

    pub fn last_progress(&self) -> Instant {
        self.state.lock().last_progress
    }

    /// The service asked for no request before `until`.
    pub fn hold(&self, until: Instant) {
        let mut state = self.state.lock();
        state.not_before = state.not_before.max(Some(until));
    }

    /// Waits until the service may be asked again. Most often that is now: then no timer is set,
    /// since one of no length takes the runtime a millisecond or two.
    pub async fn wait_out_hold(&self, now: Instant) {
        let left = self.hold_left(now);
        if !left.is_zero() {
            tokio::time::sleep(left).await;
        }
    }

    fn hold_left(&self, now: Instant) -> Duration {
        let until = self.state.lock().not_before;
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}
