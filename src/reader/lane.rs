//! One lane a service, so that a service that hangs never holds up another: admission of the
//! reads that must wait for bytes (first come, first served), connections, and the pause that a
//! `Retry-After` asks for.
//!
//! Each lane has a share of the memory for admitted reads that no other can take, and takes more
//! while the reads of all lanes together leave it: most mounts are busy with one service at a time.
//! What it took beyond its share never keeps another lane from its own, so a service that hangs
//! with all of it costs memory and not progress.
//!
//! Lock order: the lane's lock is the innermost; nothing is called while it is held.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::RemoteFile;
use super::lock::Lock;
use super::waiter::Reply;
use crate::range::ByteRange;

/// Probes at a time: 1,000 sizes take 4 round trips and the connect. With TLS a connection costs
/// about a millisecond of processor time, so more would not be faster.
const PROBES: usize = 256;

/// What the admitted reads of all lanes hold.
pub(super) struct Common {
    limit_bytes: u64,
    admitted_bytes: AtomicU64,
}

impl Common {
    /// Memory for the lanes' reads together, before each counts on its share alone.
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            admitted_bytes: AtomicU64::new(0),
        })
    }

    /// Counts a read within its lane's share.
    fn take(&self, bytes: u64) {
        self.admitted_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a read beyond its lane's share, where there is room.
    fn lend(&self, bytes: u64) -> bool {
        let fits = |admitted: u64| Some(admitted + bytes).filter(|sum| *sum <= self.limit_bytes);
        self.admitted_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.admitted_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

pub(super) struct Lane {
    pub streams: Arc<Semaphore>,
    pub probes: Arc<Semaphore>,
    share_bytes: u64,
    common: Arc<Common>,
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
    /// A lane whose admitted reads are `share_bytes` together, or a single one of any length, or as
    /// many as the `common` memory has room for, and that has so many `connections` for demanded
    /// bytes.
    pub fn new(share_bytes: u64, common: &Arc<Common>, connections: usize, now: Instant) -> Self {
        Self {
            streams: Arc::new(Semaphore::new(connections)),
            probes: Arc::new(Semaphore::new(PROBES)),
            share_bytes,
            common: Arc::clone(common),
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
        if state.queue.is_empty() && self.take(&mut state, read.range.len()) {
            return Admission::Admitted(read);
        }
        state.queue.push_back(read);
        let watch = !state.watched;
        state.watched = true;
        Admission::Queued { watch }
    }

    fn take(&self, state: &mut State, bytes: u64) -> bool {
        let is_ours = state.admitted_bytes == 0 || state.admitted_bytes + bytes <= self.share_bytes;
        if is_ours {
            self.common.take(bytes);
        } else if !self.common.lend(bytes) {
            return false;
        }
        state.admitted_bytes += bytes;
        true
    }

    /// Takes `bytes` back and hands out the reads that are admitted now.
    pub fn release(&self, bytes: u64) -> Vec<Queued> {
        let mut state = self.state.lock();
        let bytes = bytes.min(state.admitted_bytes);
        state.admitted_bytes -= bytes;
        self.common.give_back(bytes);
        let mut admitted = Vec::new();
        while let Some(next) = state.queue.front().map(|read| read.range.len()) {
            if !self.take(&mut state, next) {
                break;
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE_BYTES: u64 = 100;
    const COMMON_BYTES: u64 = 300;

    fn lanes() -> [Lane; 2] {
        let common = Common::new(COMMON_BYTES);
        std::array::from_fn(|_| Lane::new(SHARE_BYTES, &common, 1, Instant::now()))
    }

    fn admits(lane: &Lane, bytes: u64) -> bool {
        lane.take(&mut lane.state.lock(), bytes)
    }

    #[test]
    fn a_lane_alone_takes_the_memory_of_all() {
        let [busy, _] = lanes();
        let admitted = (0..10).filter(|_| admits(&busy, 40)).count();
        assert_eq!(admitted as u64, COMMON_BYTES / 40);
    }

    #[test]
    fn a_lane_that_took_everything_leaves_the_other_its_share() {
        let [hanging, other] = lanes();
        while admits(&hanging, 50) {}
        assert!(admits(&other, 50) && admits(&other, 50));
        assert!(!admits(&other, 50), "beyond its share there is nothing");
    }

    #[test]
    fn what_is_released_can_be_taken_by_any_lane() {
        let [first, second] = lanes();
        while admits(&first, 50) {}
        assert!(first.release(COMMON_BYTES).is_empty());
        let admitted = (0..10).filter(|_| admits(&second, 50)).count();
        assert_eq!(admitted as u64, COMMON_BYTES / 50);
    }

    #[test]
    fn one_read_of_any_length_is_admitted_by_an_idle_lane() {
        let [lane, _] = lanes();
        assert!(admits(&lane, 10 * COMMON_BYTES));
        assert!(!admits(&lane, 1));
    }
}
