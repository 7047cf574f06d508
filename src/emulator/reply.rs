//! The body of an answer on its way to the connection: pieces of content, counted in the log,
//! held back to a rate or cut where a fault says so.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::answer::{Answer, Framing};
use super::content::Content;
use super::link::Cutter;
use super::request_log::Entry;

/// A slow body is handed out in steps of this length.
const STEP: Duration = Duration::from_millis(20);

/// See the module's head.
pub(super) struct Reply {
    content: Content,
    position: u64,
    end: u64,
    filler_bytes: u64,
    framing: Framing,
    /// Bytes until the connection is cut.
    cut_after: Option<(u64, Cutter)>,
    pace: Option<Pace>,
    entry: Arc<Entry>,
}

struct Pace {
    bytes_per_s: u64,
    started: Instant,
    sent_bytes: u64,
    wait: Pin<Box<Sleep>>,
}

impl Pace {
    fn step_bytes(&self) -> u64 {
        (self.bytes_per_s / (1000 / STEP.as_millis() as u64)).max(1)
    }

    /// The next piece is due when the ones before it have had their time.
    fn count(&mut self, bytes: u64) {
        self.sent_bytes += bytes;
        let took = self.sent_bytes as f64 / self.bytes_per_s.max(1) as f64;
        let due = self.started + Duration::from_secs_f64(took);
        self.wait.as_mut().reset(due);
    }
}

impl Reply {
    pub fn new(answer: &Answer, entry: Arc<Entry>) -> Self {
        Self {
            content: answer.content.clone(),
            position: answer.start,
            end: answer.end,
            filler_bytes: answer.filler_bytes,
            framing: answer.framing,
            cut_after: None,
            pace: None,
            entry,
        }
    }

    /// Cuts the connection after so many bytes of the body.
    pub fn cut_after(&mut self, bytes: u64, cutter: Cutter) {
        self.cut_after = Some((bytes, cutter));
    }

    /// Holds the body to so many bytes a second.
    pub fn pace(&mut self, bytes_per_s: u64) {
        let started = Instant::now();
        self.pace = Some(Pace {
            bytes_per_s,
            started,
            sent_bytes: 0,
            wait: Box::pin(sleep_until(started)),
        });
    }

    fn left_bytes(&self) -> u64 {
        self.end - self.position + self.filler_bytes
    }

    fn next_piece(&mut self) -> Bytes {
        let mut most = u64::MAX;
        if let Some((left, _)) = &self.cut_after {
            most = most.min(*left);
        }
        if let Some(pace) = &self.pace {
            most = most.min(pace.step_bytes());
        }
        if self.position < self.end {
            let end = self.end.min(self.position.saturating_add(most));
            let piece = self.content.piece(self.position, end);
            self.position += piece.len() as u64;
            return piece;
        }
        let length = self.filler_bytes.min(most).min(4096);
        self.filler_bytes -= length;
        Bytes::from(vec![b'!'; length as usize])
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some((0, cutter)) = &self.cut_after {
            // The connection ends itself when it has flushed what came before.
            cutter.cut_when_flushed();
            return Poll::Pending;
        }
        if self.left_bytes() == 0 {
            return Poll::Ready(None);
        }
        if let Some(pace) = &mut self.pace {
            ready!(pace.wait.as_mut().poll(cx));
        }
        let piece = self.next_piece();
        let length = piece.len() as u64;
        if let Some((left, _)) = &mut self.cut_after {
            *left -= length;
        }
        if let Some(pace) = &mut self.pace {
            pace.count(length);
        }
        self.entry.sent(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.cut_after.is_none() && self.left_bytes() == 0
    }

    fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::ContentLength => SizeHint::with_exact(self.left_bytes()),
            Framing::Chunked => SizeHint::default(),
        }
    }
}
