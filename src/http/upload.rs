//! Sending a file to an API, once.
//!
//! Promises: the file is streamed from disk, never held as a whole, with its exact
//! Content-Length; a body of which one byte may have left is never sent again: without a readable
//! answer that is [`UploadError::AnswerLost`], and the caller looks at the service before it tries
//! again. What can't connect is tried again until [`Deadlines::total`](super::Deadlines); once the
//! body moves, only standing still ends it. A file that can't be read to its announced size breaks
//! the connection before the body is complete.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Method, Response};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::TransportError;
use super::api::{ApiClient, Budget, Shared};
use super::request::ApiRequest;

/// Read and handed on at once: small, so that a slow link still shows progress.
const CHUNK_BYTES: usize = 32 << 10;

/// Chunks read ahead of the network.
const CHUNKS_AHEAD: usize = 2;

/// How many stall deadlines a body may stand still. The kernel reports progress only when a good
/// part of its send buffer (4 MiB at most by default) has drained: 4 x 10 s is 100 KB/s.
const STALLS_WHILE_SENDING: u32 = 4;

/// The answer comes after the gateway has passed the whole file on to the studio, so it gets at
/// least this long: 100 s is where common gateways give up themselves (524), and their answer is
/// better than none.
const SHORTEST_ANSWER_WAIT: Duration = Duration::from_secs(120);

/// A file to send.
pub struct ApiUpload<'a> {
    pub content_type: &'a str,
    /// Sent from byte 0, whatever its position.
    pub body: File,
    pub size_bytes: u64,
    /// Counts the bytes handed to the network; set to 0 at the start.
    pub sent_bytes: Arc<AtomicU64>,
}

/// Why a file did not arrive, or may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// The service did nothing: it was not reached, or said no.
    #[error(transparent)]
    NotDone(TransportError),
    /// The service may have the file.
    #[error("the answer was lost: {0}")]
    AnswerLost(TransportError),
    /// The local file can't be read or became shorter; the service did nothing.
    #[error("the local file can't be read: {0}")]
    LocalFile(String),
}

impl ApiClient {
    /// Posts a file and gives the JSON that was answered.
    pub fn upload(
        &self,
        request: &ApiRequest<'_>,
        mut upload: ApiUpload<'_>,
    ) -> Result<Value, UploadError> {
        let shared = &self.shared;
        let mut budget = Budget::new(shared);
        loop {
            shared
                .wait_out_pause(&mut budget)
                .map_err(UploadError::NotDone)?;
            match shared.block_on(shared.upload_once(request, &mut upload)) {
                // Statuses are verdicts or the queue's to retry; here only the road is.
                Err(UploadError::NotDone(error))
                    if !matches!(error, TransportError::Status { .. }) =>
                {
                    budget
                        .wait_after(shared, error)
                        .map_err(UploadError::NotDone)?;
                }
                done => return done,
            }
        }
    }
}

impl Shared {
    async fn upload_once(
        &self,
        request: &ApiRequest<'_>,
        upload: &mut ApiUpload<'_>,
    ) -> Result<Value, UploadError> {
        let local = |e: io::Error| UploadError::LocalFile(e.to_string());
        upload.body.rewind().map_err(local)?;
        upload.sent_bytes.store(0, Ordering::Relaxed);
        let (chunks, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let body = FileBody {
            chunks: receiver,
            left_bytes: upload.size_bytes,
            sent_bytes: Arc::clone(&upload.sent_bytes),
        };
        let answer = self.post(request, upload, body)?;
        let mut answer = pin!(answer);
        let stall = self.deadlines.stall * STALLS_WHILE_SENDING;
        let early = tokio::select! {
            biased;
            answered = &mut answer => Some(answered),
            fed = feed(&mut upload.body, upload.size_bytes, chunks, stall) => match fed {
                Feed::Done => None,
                Feed::Local(error) => return Err(local(error)),
                Feed::Stalled => return Err(self.unanswered(upload, self.timed_out())),
            },
        };
        let rest = async {
            let answered = match early {
                Some(answered) => answered,
                None => answer.await,
            };
            match answered {
                Ok(response) => self.upload_answer(response, upload).await,
                Err(error) => Err(self.unanswered(upload, self.transport_error(&error))),
            }
        };
        let wait = self.deadlines.total.max(SHORTEST_ANSWER_WAIT);
        timeout(wait, rest)
            .await
            .unwrap_or_else(|_| Err(self.unanswered(upload, self.timed_out())))
    }

    fn post(
        &self,
        request: &ApiRequest<'_>,
        upload: &ApiUpload<'_>,
        body: FileBody,
    ) -> Result<impl Future<Output = reqwest::Result<Response>> + use<>, UploadError> {
        let url = self.url(request).map_err(UploadError::NotDone)?;
        let headers = self.headers(request).map_err(UploadError::NotDone)?;
        Ok(self
            .uploads
            .post(url)
            .headers(headers)
            .header(CONTENT_TYPE, upload.content_type)
            .header(CONTENT_LENGTH, upload.size_bytes)
            .body(reqwest::Body::wrap(body))
            .send())
    }

    /// No readable answer came. Where not one byte of the body left, nothing was done.
    fn unanswered(&self, upload: &ApiUpload<'_>, error: TransportError) -> UploadError {
        let nothing_left = upload.size_bytes > 0 && upload.sent_bytes.load(Ordering::Relaxed) == 0;
        if nothing_left || matches!(error, TransportError::Connect { .. }) {
            return UploadError::NotDone(error);
        }
        UploadError::AnswerLost(error)
    }

    async fn upload_answer(
        &self,
        response: Response,
        upload: &ApiUpload<'_>,
    ) -> Result<Value, UploadError> {
        let whole = upload.sent_bytes.load(Ordering::Relaxed) == upload.size_bytes;
        let from = response.url().clone();
        // A 303 says "done, look there"; the others say "not here".
        let see_other = response.status() == reqwest::StatusCode::SEE_OTHER;
        if response.status().is_redirection() && !see_other {
            let target = self.redirect_target(&response, &from);
            let error = match target {
                Ok(Some(target)) => self.forbidden(&target),
                Ok(None) => self.malformed("a redirect to nowhere"),
                Err(error) => error,
            };
            return Err(UploadError::NotDone(error));
        }
        let answer = self.read(response).await.map_err(UploadError::AnswerLost)?;
        match self.judge(answer, &Method::POST) {
            Ok(json) if whole => Ok(json),
            Ok(_) => Err(UploadError::AnswerLost(
                self.malformed("a success before it had the whole file"),
            )),
            Err(error) if is_verdict(&error) => Err(UploadError::NotDone(error)),
            Err(error) => Err(UploadError::AnswerLost(error)),
        }
    }
}

/// Whether an answer proves that the service did not take the file: any 4xx but 408, and the two
/// 5xx that say so (501, 596 of useapi.net). Other 5xx come from gateways too, after the work.
fn is_verdict(error: &TransportError) -> bool {
    match error {
        TransportError::Status { status, .. } => {
            matches!(status, 400..=407 | 409..=499 | 501 | 596)
        }
        _ => false,
    }
}

enum Feed {
    /// Everything was handed on, or the network wants no more (its answer says why).
    Done,
    Local(io::Error),
    Stalled,
}

/// Reads the file on the caller's own thread (it may block on the disk; the runtime's must not)
/// and hands it to the connection.
async fn feed(
    file: &mut File,
    size_bytes: u64,
    chunks: mpsc::Sender<Bytes>,
    stall: Duration,
) -> Feed {
    let mut left = size_bytes;
    while left > 0 {
        let want = left.min(CHUNK_BYTES as u64) as usize;
        let mut chunk = vec![0; want];
        if let Err(error) = file.read_exact(&mut chunk) {
            return Feed::Local(match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    io::Error::other("it became shorter while it was sent")
                }
                _ => error,
            });
        }
        left -= want as u64;
        match timeout(stall, chunks.send(Bytes::from(chunk))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Feed::Done,
            Err(_) => return Feed::Stalled,
        }
    }
    // Until the last chunk left, this still is the body's stall, not the answer's wait.
    match timeout(stall, chunks.reserve_many(CHUNKS_AHEAD)).await {
        Ok(_) => Feed::Done,
        Err(_) => Feed::Stalled,
    }
}

/// The body as the connection pulls it. Ends in an error if the feeder stops before its end, so
/// that the connection is broken and no server takes a part for the whole.
struct FileBody {
    chunks: mpsc::Receiver<Bytes>,
    left_bytes: u64,
    sent_bytes: Arc<AtomicU64>,
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left_bytes == 0 {
            return Poll::Ready(None);
        }
        self.chunks.poll_recv(cx).map(|chunk| {
            let Some(chunk) = chunk else {
                return Some(Err(io::Error::other("the upload was given up")));
            };
            let len = chunk.len() as u64;
            self.left_bytes = self.left_bytes.saturating_sub(len);
            self.sent_bytes.fetch_add(len, Ordering::Relaxed);
            Some(Ok(Frame::data(chunk)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left_bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left_bytes)
    }
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
