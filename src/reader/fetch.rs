//! The life of one stream: ask for its range, check the answer, deliver the body, and where that
//! fails renew the URL, wait and go on where it broke.
//!
//! Beside it runs a watch that fails waiting reads at their deadline, whatever the stream is doing,
//! so that each of them ends in time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout;

use super::backoff;
use super::engine::Engine;
use super::state::{FileState, Flow};
use super::stream::{Phase, Receiving};
use super::waiter::Outbox;
use super::{AssetKey, ObjectInfo, ReadError, RemoteFile, window};
use crate::http::asset::{Answer, Head, Part};
use crate::http::{SignedUrl, TransportError};
use crate::provider::{ProviderError, Service};
use crate::range::ByteRange;

/// A URL that expires sooner than this is renewed before it is used.
const EXPIRY_MARGIN: Duration = Duration::from_secs(5);

/// An attempt that brought as much is gone on with at once: some hosts send shorter parts than were
/// asked for. Less is a host in trouble, which is given time.
const WORTHWHILE_BYTES: u64 = 64 * 1024;

/// Why an attempt brought no more bytes.
pub(super) enum Failure {
    /// The host refuses the URL: it may need a new one.
    Rejected { status: u16, url: SignedUrl },
    /// May pass: try again later.
    Passing(TransportError),
    /// Won't pass.
    Final(ReadError),
}

impl Failure {
    /// Sorts an error from the host that `url` led to.
    pub fn of(error: TransportError, url: &SignedUrl) -> Self {
        match &error {
            TransportError::Status { status, .. } => match status {
                400 | 401 | 403 | 404 | 410 => Failure::Rejected {
                    status: *status,
                    url: url.clone(),
                },
                _ => Failure::Passing(error),
            },
            TransportError::ForbiddenTarget { .. } => Failure::Final(in_words(&error)),
            TransportError::Connect { .. }
            | TransportError::Timeout { .. }
            | TransportError::Broken { .. }
            | TransportError::Malformed { .. }
            | TransportError::TooLarge { .. } => Failure::Passing(error),
        }
    }

    /// What a URL that was just renewed and is refused again means.
    pub fn refused(status: u16, url: &SignedUrl) -> ReadError {
        match status {
            404 | 410 => ReadError::NotFound,
            _ => ReadError::Denied(format!(
                "{} refused a fresh URL with status {status}",
                url.host()
            )),
        }
    }
}

/// What readers are told if `error` is the last one before their deadline.
pub(super) fn in_words(error: &TransportError) -> ReadError {
    match error {
        TransportError::Status { status: 429, .. } => ReadError::RateLimited,
        _ => ReadError::Unavailable(Arc::from(error.to_string())),
    }
}

pub(super) fn retry_after(error: &TransportError) -> Option<Duration> {
    match error {
        TransportError::Status { retry_after, .. } => *retry_after,
        _ => None,
    }
}

fn from_provider(error: ProviderError) -> ReadError {
    match error {
        ProviderError::NotFound => ReadError::NotFound,
        ProviderError::Denied(why) => ReadError::Denied(why),
        ProviderError::Quota(_) => ReadError::Quota(error.to_string()),
        ProviderError::RateLimited { .. } => ReadError::RateLimited,
        ProviderError::Refused { .. }
        | ProviderError::Unavailable { .. }
        | ProviderError::AnswerLost(_)
        | ProviderError::Malformed(_)
        | ProviderError::LocalFile(_)
        | ProviderError::Unsupported => ReadError::Unavailable(Arc::from(error.to_string())),
    }
}

/// Runs the stream to its end and settles its waiters. `permit` is the connection that a stream
/// ahead of the readers brings along; others wait for one.
pub(super) async fn run(
    engine: Arc<Engine>,
    file: Arc<RemoteFile>,
    id: u64,
    permit: Option<OwnedSemaphorePermit>,
) {
    let result = tokio::select! {
        result = fetch(&engine, &file, id, permit) => result,
        // Its waiters were failed; one that came in between gets a stream of its own.
        () = watch(&engine, &file, id) => Ok(()),
    };
    engine.finish(&file, id, result);
}

async fn fetch(
    engine: &Arc<Engine>,
    file: &Arc<RemoteFile>,
    id: u64,
    permit: Option<OwnedSemaphorePermit>,
) -> Result<(), ReadError> {
    let lane = engine.lane(file.key.service);
    let mut permit = match permit {
        Some(permit) => Some(permit),
        None => Arc::clone(&lane.streams).acquire_owned().await.ok(),
    };
    set_phase(engine, file, id, Phase::Running);
    let (mut tries, mut renew) = (0, None);
    let mut refused: Option<u16> = None;
    loop {
        let Some((rest, high)) = rest_of(file, id) else {
            return Ok(());
        };
        lane.wait_out_hold(engine.now()).await;
        let url = file_url(engine, file, renew.take()).await?;
        engine.prepare(&url, window::connections_for(file.size_bytes));
        let failure = match attempt(engine, file, id, &url, rest, &mut permit).await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let gained = rest_of(file, id).map_or(0, |(_, now)| now.saturating_sub(high));
        if gained > 0 {
            (tries, refused) = (0, None);
        }
        match failure {
            Failure::Final(error) => return Err(error),
            Failure::Rejected { status, url } => {
                if refused.is_some() {
                    return Err(Failure::refused(status, &url));
                }
                (refused, renew) = (Some(status), Some(url));
            }
            Failure::Passing(error) => {
                note_failure(engine, file, id, &error);
                if gained < WORTHWHILE_BYTES {
                    let wait = backoff::delay(tries, backoff::jitter(), retry_after(&error));
                    tokio::time::sleep(wait).await;
                    tries += 1;
                }
            }
        }
    }
}

/// What is left of the stream, and how far it ever was; `None` once it is complete or dropped.
fn rest_of(file: &RemoteFile, id: u64) -> Option<(ByteRange, u64)> {
    let mut state = file.lock();
    let stream = state.stream(id)?;
    (!stream.remaining().is_empty()).then(|| (stream.remaining(), stream.high))
}

fn set_phase(engine: &Engine, file: &RemoteFile, id: u64, phase: Phase) {
    let now = engine.now();
    if let Some(stream) = file.lock().stream(id) {
        if stream.phase != phase {
            stream.last_progress = now;
        }
        stream.phase = phase;
    }
}

fn note_failure(engine: &Engine, file: &RemoteFile, id: u64, error: &TransportError) {
    log::debug!(
        "{} {}: {error}; trying again",
        file.key.service,
        file.key.id
    );
    if let Some(wait) = retry_after(error) {
        engine.lane(file.key.service).hold(engine.now() + wait);
    }
    if let Some(stream) = file.lock().stream(id) {
        stream.last_error = Some(in_words(error));
    }
}

/// The URL to use for the file: the known one unless it is `rejected` or about to expire.
async fn file_url(
    engine: &Engine,
    file: &RemoteFile,
    rejected: Option<SignedUrl>,
) -> Result<SignedUrl, ReadError> {
    let known = file.lock().url.clone();
    if let Some(known) = known
        .clone()
        .filter(|known| Some(known) != rejected.as_ref())
        && !known.expired(engine.clock.now(), EXPIRY_MARGIN)
    {
        return Ok(known);
    }
    let url = usable_url(engine, &file.key, rejected.or(known)).await?;
    file.lock().url = Some(url.clone());
    Ok(url)
}

/// A URL from the source, renewed once if it comes expired.
pub(super) async fn usable_url(
    engine: &Engine,
    key: &AssetKey,
    rejected: Option<SignedUrl>,
) -> Result<SignedUrl, ReadError> {
    let fresh = rejected.is_some();
    let url = ask_for_url(engine, key, rejected).await?;
    if fresh || !url.expired(engine.clock.now(), EXPIRY_MARGIN) {
        return Ok(url);
    }
    ask_for_url(engine, key, Some(url)).await
}

async fn ask_for_url(
    engine: &Engine,
    key: &AssetKey,
    rejected: Option<SignedUrl>,
) -> Result<SignedUrl, ReadError> {
    let (send, receive) = oneshot::channel();
    let done = Box::new(move |result| {
        // Nobody listens any more when the stream was dropped meanwhile.
        let _ = send.send(result);
    });
    engine.urls.url(key, rejected, done);
    match receive.await {
        Ok(result) => result.map_err(from_provider),
        Err(_) => Err(ReadError::Unavailable(Arc::from(
            "the service was asked for the asset's address and never answered",
        ))),
    }
}

/// One request and its body. `Ok` where the stream has all its bytes or is no longer wanted.
async fn attempt(
    engine: &Arc<Engine>,
    file: &Arc<RemoteFile>,
    id: u64,
    url: &SignedUrl,
    rest: ByteRange,
    permit: &mut Option<OwnedSemaphorePermit>,
) -> Result<(), Failure> {
    engine.counters.requests.fetch_add(1, Ordering::Relaxed);
    let _receiving = Receiving::begin(engine.shelf(file));
    let answer = engine.client.get(url, rest).await;
    let mut answer = answer.map_err(|error| Failure::of(error, url))?;
    verify(&mut file.lock(), file.size_bytes, &answer)?;
    if matches!(answer.head.part, Part::Whole { .. }) && !engine.became_whole(file, id) {
        return Ok(());
    }
    body(engine, file, id, &mut answer, permit).await
}

/// Whether the answer is about the object that was opened, and can be believed. Pins what the
/// first answer says.
fn verify(state: &mut FileState, size_bytes: u64, answer: &Answer) -> Result<(), Failure> {
    let head = &answer.head;
    let doubtful = |what| Err(Failure::Passing(answer.malformed(what)));
    if !credible(head, size_bytes, state.etag.as_deref()) {
        return doubtful("a page of text where an asset was expected");
    }
    let info = info_of(head, size_bytes);
    if info.size_bytes == 0 {
        // More likely a host in trouble than an asset that lost its bytes.
        return doubtful("nothing where an asset was expected");
    }
    let last_modified = state.info.as_ref().and_then(|info| info.last_modified);
    let same = match (&state.etag, &head.etag) {
        (Some(pinned), Some(now)) => pinned == now,
        (Some(_), None) if matches!(head.part, Part::Beyond { .. }) => true,
        (Some(_), None) => return doubtful("no ETag where it sent one before"),
        (None, _) => match (last_modified, head.last_modified) {
            (Some(before), Some(now)) => before == now,
            _ => true,
        },
    };
    if !same || info.size_bytes != size_bytes {
        return Err(Failure::Final(ReadError::Changed(Box::new(info))));
    }
    if matches!(head.part, Part::Beyond { .. }) {
        return doubtful("a refused range that lies within the object");
    }
    if state.etag.is_none() {
        state.etag.clone_from(&info.etag);
    }
    state.info.get_or_insert(info);
    Ok(())
}

/// An answer of 200 with a text may be an error page or a login form: it is the asset only if its
/// length or its ETag says so.
fn credible(head: &Head, size_bytes: u64, pinned: Option<&str>) -> bool {
    let Part::Whole { total_bytes } = head.part else {
        return true;
    };
    let textual = head.content_type.as_deref().is_some_and(|kind| {
        let kind = kind.trim().to_ascii_lowercase();
        kind.starts_with("text/")
            || kind.contains("html")
            || kind.contains("xml")
            || kind.contains("json")
    });
    let known = pinned.is_some() && pinned == head.etag.as_deref();
    !textual || known || (total_bytes == Some(size_bytes) && pinned.is_none())
}

/// What the answer says of the object; `size_bytes` stands in where it does not say the size.
pub(super) fn info_of(head: &Head, size_bytes: u64) -> ObjectInfo {
    let size_bytes = match head.part {
        Part::Beyond { total_bytes } => total_bytes,
        Part::Range { total_bytes, .. } | Part::Whole { total_bytes } => {
            total_bytes.unwrap_or(size_bytes)
        }
    };
    ObjectInfo {
        size_bytes,
        etag: head.etag.clone(),
        last_modified: head.last_modified,
        content_type: head.content_type.clone(),
    }
}

async fn body(
    engine: &Arc<Engine>,
    file: &Arc<RemoteFile>,
    id: u64,
    answer: &mut Answer,
    permit: &mut Option<OwnedSemaphorePermit>,
) -> Result<(), Failure> {
    loop {
        let Some(chunk) = next_chunk(engine, answer).await? else {
            return match rest_of(file, id) {
                None => Ok(()),
                Some(_) => Err(Failure::Passing(answer.broken("the body ended early"))),
            };
        };
        let mut flow = engine.deliver(file, id, &chunk);
        while flow == Flow::Pause {
            *permit = None;
            flow = pause(engine, file, id).await;
        }
        match flow {
            Flow::Continue | Flow::Pause => {}
            Flow::Gone => return Ok(()),
            Flow::Done => return end_of_body(engine, file, answer).await,
            Flow::Excess => return Err(excess(file, answer)),
            Flow::Restart => {
                restart(engine, file, id);
                return Err(Failure::Passing(answer.broken("it must begin again")));
            }
        }
    }
}

async fn next_chunk(engine: &Engine, answer: &mut Answer) -> Result<Option<Bytes>, Failure> {
    match timeout(engine.deadlines.stall, answer.chunk()).await {
        Ok(chunk) => chunk.map_err(Failure::Passing),
        Err(_) => Err(Failure::Passing(TransportError::Timeout {
            host: answer.host().to_string(),
        })),
    }
}

/// Waits until somebody may want more of a whole body.
async fn pause(engine: &Engine, file: &RemoteFile, id: u64) -> Flow {
    set_phase(engine, file, id, Phase::Paused);
    let wake = file
        .lock()
        .stream(id)
        .map(|stream| Arc::clone(&stream.wake));
    if let Some(wake) = wake {
        wake.notified().await;
    }
    let flow = file.lock().flow(id);
    if flow != Flow::Pause {
        set_phase(engine, file, id, Phase::Running);
    }
    flow
}

/// Reads the end of a body that has brought everything: the connection is free only then, and a
/// whole body of unknown length shows only there that it is longer than the object.
async fn end_of_body(
    engine: &Engine,
    file: &RemoteFile,
    answer: &mut Answer,
) -> Result<(), Failure> {
    match next_chunk(engine, answer).await {
        Ok(Some(more)) if !more.is_empty() => Err(excess(file, answer)),
        _ => Ok(()),
    }
}

/// More bytes than the object has: another object, where the answer is all there is of it.
fn excess(file: &RemoteFile, answer: &Answer) -> Failure {
    match answer.head.part {
        Part::Whole { .. } => {
            let mut info = info_of(&answer.head, file.size_bytes);
            info.size_bytes = file.size_bytes + 1;
            Failure::Final(ReadError::Changed(Box::new(info)))
        }
        Part::Range { .. } | Part::Beyond { .. } => {
            Failure::Passing(answer.malformed("more bytes than were asked for"))
        }
    }
}

pub(super) fn restart(engine: &Engine, file: &RemoteFile, id: u64) {
    let shelf = engine.shelf(file);
    let mut state = file.lock();
    let first = state.first_missing().unwrap_or(0);
    state.rewind(id, first, shelf);
    state.forget_progress(id);
}

/// Fails the stream's waiters at their deadlines. Returns when the stream itself is to end: nobody
/// waits for it and it gets nowhere.
async fn watch(engine: &Arc<Engine>, file: &Arc<RemoteFile>, id: u64) {
    while let Some(next) = expire(engine, file, id) {
        tokio::time::sleep(next.saturating_duration_since(engine.now())).await;
    }
}

/// Fails what is due and tells when to look again; `None` where the stream is to end.
fn expire(engine: &Arc<Engine>, file: &Arc<RemoteFile>, id: u64) -> Option<Instant> {
    let (now, limit) = (engine.now(), engine.deadlines.total);
    let lane_progress = engine.lane(file.key.service).last_progress();
    let mut out = Outbox::default();
    let result = {
        let mut state = file.lock();
        let Some(stream) = state.stream(id) else {
            // Dropped: its task is being aborted.
            return Some(now + limit);
        };
        let (rest, phase) = (stream.remaining(), stream.phase);
        let progress = match phase {
            Phase::Queued => stream.last_progress.max(lane_progress),
            Phase::Running => stream.last_progress,
            Phase::Paused => now,
        };
        let error = stream.last_error.clone().unwrap_or_else(no_answer);
        let due = |since: Instant| since.max(progress) + limit;
        let shelf = engine.shelf(file);
        state.fail(
            |w| w.waits_for(&rest) && due(w.since) <= now,
            &error,
            shelf,
            &mut out,
        );
        let waiting = state.waiters.iter().filter(|w| w.waits_for(&rest));
        let next = waiting.map(|w| due(w.since)).min();
        Some(next.unwrap_or(progress + limit)).filter(|next| *next > now)
    };
    engine.send(file, out);
    result
}

fn no_answer() -> ReadError {
    ReadError::Unavailable(Arc::from("the host did not answer in time"))
}

/// Fails the reads that wait for admission at their deadlines; ends with the queue.
pub(super) async fn watch_queue(engine: Arc<Engine>, service: Service) {
    loop {
        let (expired, next) = engine
            .lane(service)
            .expire(engine.now(), engine.deadlines.total);
        for read in expired {
            read.reply.send(Err(no_answer()));
        }
        let Some(next) = next else {
            return;
        };
        tokio::time::sleep(next.saturating_duration_since(engine.now())).await;
    }
}
