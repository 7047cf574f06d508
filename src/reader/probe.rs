//! What is an object? A ranged GET of one byte, since hosts that signed a URL for GET refuse HEAD.
//!
//! One request for a key however many ask. Probes have connections of their own, so that a
//! directory of a thousand unknown sizes does not hold up a player.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::time::{sleep, timeout};

use super::engine::Engine;
use super::fetch::{Failure, in_words, info_of, retry_after, usable_url};
use super::lock::Lock;
use super::waiter::unmounted;
use super::{AssetKey, ObjectInfo, ProbeDone, ReadError, backoff};
use crate::http::asset::{Answer, Part};
use crate::http::{SignedUrl, TransportError};
use crate::range::ByteRange;

impl Engine {
    /// See `AssetReader::probe`.
    pub fn probe(self: &Arc<Self>, key: AssetKey, done: ProbeDone) {
        {
            let mut probes = self.probes.lock();
            // Under the lock that `fail_probes` takes: what is added after it would hang.
            if !self.is_closed() {
                match probes.entry(key.clone()) {
                    Entry::Occupied(mut waiting) => waiting.get_mut().push(done),
                    Entry::Vacant(first) => {
                        first.insert(vec![done]);
                        self.runtime.spawn(run(Arc::clone(self), key));
                    }
                }
                return;
            }
        }
        done(Err(unmounted()));
    }

    fn answer_probe(&self, key: &AssetKey, result: Result<ObjectInfo, ReadError>) {
        let mut probes = self.probes.lock();
        let waiting = probes.remove(key).unwrap_or_default();
        drop(probes);
        for done in waiting {
            done(result.clone());
        }
    }

    /// Fails the probes that are under way; the engine is closed.
    pub fn fail_probes(&self) {
        let mut probes = self.probes.lock();
        let waiting = std::mem::take(&mut *probes);
        drop(probes);
        for done in waiting.into_values().flatten() {
            done(Err(unmounted()));
        }
    }
}

/// How far a probe is, for its deadline.
struct Progress {
    /// Set once it has a connection; before that it is in time while its lane moves.
    running: AtomicBool,
    last: Lock<Instant>,
}

impl Progress {
    fn note(&self, now: Instant) {
        *self.last.lock() = now;
    }

    fn last(&self) -> Instant {
        *self.last.lock()
    }
}

async fn run(engine: Arc<Engine>, key: AssetKey) {
    let progress = Progress {
        running: AtomicBool::new(false),
        last: Lock::new(engine.now()),
    };
    let mut last_error = ReadError::Unavailable(Arc::from("the host did not answer in time"));
    let result = tokio::select! {
        result = ask(&engine, &key, &progress, &mut last_error) => Some(result),
        () = deadline(&engine, &key, &progress) => None,
    };
    engine.answer_probe(&key, result.unwrap_or(Err(last_error)));
}

async fn deadline(engine: &Engine, key: &AssetKey, progress: &Progress) {
    let lane = engine.lane(key.service);
    loop {
        let last = match progress.running.load(Ordering::Relaxed) {
            true => progress.last(),
            false => progress.last().max(lane.last_progress()),
        };
        let due = last + engine.deadlines.total;
        let left = due.saturating_duration_since(engine.now());
        if left.is_zero() {
            return;
        }
        sleep(left).await;
    }
}

async fn ask(
    engine: &Engine,
    key: &AssetKey,
    progress: &Progress,
    last_error: &mut ReadError,
) -> Result<ObjectInfo, ReadError> {
    let lane = engine.lane(key.service);
    let _permit = Arc::clone(&lane.probes).acquire_owned().await.ok();
    progress.note(engine.now());
    progress.running.store(true, Ordering::Relaxed);
    let mut url = usable_url(engine, key, None).await?;
    let (mut tries, mut renewed) = (0, false);
    loop {
        lane.wait_out_hold(engine.now()).await;
        match attempt(engine, &url, progress).await {
            Ok(info) => {
                lane.note_progress(engine.now());
                return Ok(info);
            }
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Rejected { status, url }) if renewed => {
                return Err(Failure::refused(status, &url));
            }
            Err(Failure::Rejected { url: refused, .. }) => {
                renewed = true;
                url = usable_url(engine, key, Some(refused)).await?;
            }
            Err(Failure::Passing(error)) => {
                *last_error = in_words(&error);
                if let Some(asked) = retry_after(&error) {
                    lane.hold(engine.now() + asked);
                }
                sleep(backoff::delay(tries, backoff::jitter(), None)).await;
                tries += 1;
            }
        }
    }
}

async fn attempt(
    engine: &Engine,
    url: &SignedUrl,
    progress: &Progress,
) -> Result<ObjectInfo, Failure> {
    engine.counters.requests.fetch_add(1, Ordering::Relaxed);
    let answer = engine.client.get(url, ByteRange::at(0, 1)).await;
    let mut answer = answer.map_err(|error| Failure::of(error, url))?;
    let html = answer
        .head
        .content_type
        .as_deref()
        .is_some_and(|kind| kind.to_ascii_lowercase().contains("html"));
    let mut info = info_of(&answer.head, 0);
    match answer.head.part {
        Part::Whole { .. } if html => {
            let what = "a page of text where an asset was expected";
            return Err(Failure::Passing(answer.malformed(what)));
        }
        Part::Whole { total_bytes: None } => {
            info.size_bytes = count(engine, &mut answer, u64::MAX).await?
        }
        // Not read: it may be the whole object.
        Part::Whole { .. } | Part::Beyond { .. } => {}
        Part::Range { sent, .. } => {
            count(engine, &mut answer, sent.len()).await?;
            progress.note(engine.now());
        }
    }
    Ok(info)
}

/// Reads the body out and tells its length. A body that never ends ends with the probe's deadline.
async fn count(engine: &Engine, answer: &mut Answer, most_bytes: u64) -> Result<u64, Failure> {
    let mut bytes: u64 = 0;
    loop {
        match timeout(engine.deadlines.stall, answer.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                let len = chunk.len() as u64;
                bytes += len;
                engine
                    .counters
                    .fetched_bytes
                    .fetch_add(len, Ordering::Relaxed);
                if bytes > most_bytes {
                    let what = "more bytes than were asked for";
                    return Err(Failure::Passing(answer.malformed(what)));
                }
            }
            Ok(Ok(None)) => return Ok(bytes),
            Ok(Err(error)) => return Err(Failure::Passing(error)),
            Err(_) => {
                let host = answer.host().to_string();
                return Err(Failure::Passing(TransportError::Timeout { host }));
            }
        }
    }
}
