//! A network link, simulated on each accepted connection.
//!
//! What it charges: `setup_round_trips` once, before the first byte of a connection arrives; half
//! a round trip to every byte in each direction; the rate of one connection, per direction. What
//! is in flight is never limited below rate x delay. There is no loss and no slow start.
//!
//! A link without delay and rate is the bare socket. Any other gets two tasks that carry bytes
//! between the socket and a queue of `(due, bytes)`; the arithmetic is [`Lane`], which is pure.
//! Each queue has one lock, held for no await; no code takes two of them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep_until};

/// A piece this big takes 0.65 ms at 25 MB/s, less than the timer can tell apart.
const PIECE_BYTES: usize = 16 * 1024;
/// In flight at most where no rate is set: 40 ms of 1.6 GB/s.
const IN_FLIGHT_BYTES: usize = 64 * 1024 * 1024;
/// In flight at most beyond rate x round trip, so that a slow writer leaves no gap.
const SLACK_BYTES: usize = 1024 * 1024;

/// tokio's timer counts whole milliseconds and wakes about this late (1.3 ms measured on an idle
/// machine): what is due is waited for so much shorter, or 40 ms of round trip would be 42.7.
const TIMER_LATE: Duration = Duration::from_millis(1);

/// What lies between a client and the emulator. Applies to connections accepted from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub rtt: Duration,
    /// Round trips before a new connection's first byte: 1 for TCP, 2 with TLS.
    pub setup_round_trips: u32,
    /// Of one connection in one direction; `None` is as fast as the machine.
    pub bytes_per_s: Option<u64>,
}

impl Link {
    /// The bare socket.
    pub const LOOPBACK: Link = Link {
        rtt: Duration::ZERO,
        setup_round_trips: 1,
        bytes_per_s: None,
    };

    fn is_bare(&self) -> bool {
        self.rtt.is_zero() && self.bytes_per_s.is_none()
    }

    fn in_flight_bytes(&self) -> usize {
        let Some(rate) = self.bytes_per_s else {
            return IN_FLIGHT_BYTES;
        };
        let product = (rate as f64 * self.rtt.as_secs_f64()) as usize;
        product.saturating_add(SLACK_BYTES)
    }
}

/// When bytes that enter one direction of a link come out of it.
#[derive(Debug)]
struct Lane {
    link: Link,
    free_at: Instant,
}

impl Lane {
    fn new(link: Link, accepted: Instant) -> Self {
        Self {
            link,
            free_at: accepted + link.rtt * link.setup_round_trips,
        }
    }

    fn due(&mut self, entered: Instant, bytes: usize) -> Instant {
        let on_the_wire = match self.link.bytes_per_s {
            Some(rate) => Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64),
            None => Duration::ZERO,
        };
        self.free_at = self.free_at.max(entered) + on_the_wire;
        self.free_at + self.link.rtt / 2
    }
}

/// One direction: bytes, and when they are due.
struct Pipe {
    state: Mutex<PipeState>,
}

struct PipeState {
    lane: Lane,
    queue: VecDeque<(Instant, Bytes)>,
    queued_bytes: usize,
    limit_bytes: usize,
    ended: bool,
    broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn new(link: Link, accepted: Instant) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(PipeState {
                lane: Lane::new(link, accepted),
                queue: VecDeque::new(),
                queued_bytes: 0,
                limit_bytes: link.in_flight_bytes(),
                ended: false,
                broken: false,
                reader: None,
                writer: None,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn poll_push(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        if state.broken || state.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.queued_bytes >= state.limit_bytes {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let piece = &data[..data.len().min(PIECE_BYTES)];
        let due = state.lane.due(Instant::now(), piece.len());
        state.queued_bytes += piece.len();
        state.queue.push_back((due, Bytes::copy_from_slice(piece)));
        wake(&mut state.reader);
        Poll::Ready(Ok(piece.len()))
    }

    /// `None` after the last piece.
    fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Option<(Instant, Bytes)>> {
        let mut state = self.lock();
        if let Some((due, piece)) = state.queue.pop_front() {
            state.queued_bytes -= piece.len();
            wake(&mut state.writer);
            return Poll::Ready(Some((due, piece)));
        }
        if state.ended || state.broken {
            return Poll::Ready(None);
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// No more will be pushed; what is queued still arrives.
    fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        wake(&mut state.reader);
    }

    /// Nobody will take anything any more.
    fn break_off(&self) {
        let mut state = self.lock();
        state.broken = true;
        state.queue.clear();
        wake(&mut state.writer);
        wake(&mut state.reader);
    }
}

fn timer(due: Instant) -> Sleep {
    sleep_until(due.checked_sub(TIMER_LATE).unwrap_or(due))
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

async fn pump_in(mut socket: OwnedReadHalf, pipe: Arc<Pipe>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = socket.read(&mut buffer).await {
        let mut data = &buffer[..length];
        while !data.is_empty() {
            match poll_fn(|cx| pipe.poll_push(cx, data)).await {
                Ok(pushed) => data = &data[pushed..],
                Err(_) => return,
            }
        }
    }
    pipe.end();
}

async fn pump_out(pipe: Arc<Pipe>, mut socket: OwnedWriteHalf) {
    while let Some((due, piece)) = poll_fn(|cx| pipe.poll_pop(cx)).await {
        timer(due).await;
        if socket.write_all(&piece).await.is_err() {
            pipe.break_off();
            return;
        }
    }
    let _ = socket.shutdown().await;
}

struct Simulated {
    inbound: Arc<Pipe>,
    outbound: Arc<Pipe>,
    arriving: Option<(Pin<Box<Sleep>>, Bytes)>,
    pump_in: AbortHandle,
}

impl Simulated {
    fn new(stream: TcpStream, link: Link) -> Self {
        let accepted = Instant::now();
        let (read_half, write_half) = stream.into_split();
        let inbound = Pipe::new(link, accepted);
        let outbound = Pipe::new(link, accepted);
        let pump_in = tokio::spawn(pump_in(read_half, Arc::clone(&inbound))).abort_handle();
        tokio::spawn(pump_out(Arc::clone(&outbound), write_half));
        Self {
            inbound,
            outbound,
            arriving: None,
            pump_in,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.arriving.is_none() {
            let Some((due, piece)) = ready!(self.inbound.poll_pop(cx)) else {
                return Poll::Ready(Ok(()));
            };
            self.arriving = Some((Box::pin(timer(due)), piece));
        }
        if let Some((sleep, piece)) = &mut self.arriving {
            ready!(sleep.as_mut().poll(cx));
            let length = piece.len().min(out.remaining());
            out.put_slice(&piece[..length]);
            piece.advance(length);
            if piece.is_empty() {
                self.arriving = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.pump_in.abort();
        self.outbound.end();
    }
}

/// Cuts its connection once everything written so far is on its way.
#[derive(Debug, Clone, Default)]
pub(super) struct Cutter(Arc<AtomicBool>);

impl Cutter {
    /// Closes the connection once what is written has gone out.
    pub fn cut_when_flushed(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// An accepted connection behind its link.
pub(super) struct Connection {
    io: Io,
    cutter: Cutter,
}

enum Io {
    Bare(TcpStream),
    Simulated(Simulated),
}

impl Connection {
    /// Within a tokio runtime.
    pub fn new(stream: TcpStream, link: Link, cutter: Cutter) -> Self {
        let io = if link.is_bare() {
            Io::Bare(stream)
        } else {
            Io::Simulated(Simulated::new(stream, link))
        };
        Self { io, cutter }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Bare(stream) => Pin::new(stream).poll_read(cx, out),
            Io::Simulated(simulated) => simulated.poll_read(cx, out),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Bare(stream) => Pin::new(stream).poll_write(cx, data),
            Io::Simulated(simulated) => simulated.outbound.poll_push(cx, data),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Bare(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Io::Simulated(simulated) => {
                let first = parts.iter().find(|part| !part.is_empty());
                let first = first.map_or(&[][..], |part| part);
                simulated.outbound.poll_push(cx, first)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Io::Bare(stream) = &mut self.io {
            ready!(Pin::new(stream).poll_flush(cx))?;
        }
        if self.cutter.0.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Bare(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Simulated(simulated) => {
                simulated.outbound.end();
                Poll::Ready(Ok(()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn link(rtt_ms: u32, setup_round_trips: u32, bytes_per_s: Option<u64>) -> Link {
        Link {
            rtt: MS * rtt_ms,
            setup_round_trips,
            bytes_per_s,
        }
    }

    #[test]
    fn the_first_byte_pays_for_the_connection_and_the_next_ones_do_not() {
        let start = Instant::now();
        let mut lane = Lane::new(link(40, 2, None), start);
        assert_eq!(lane.due(start, 500) - start, MS * (2 * 40 + 20));
        let later = start + MS * 300;
        assert_eq!(lane.due(later, 500) - later, MS * 20);
    }

    #[test]
    fn a_connection_opened_ahead_of_its_use_costs_the_way_alone() {
        let start = Instant::now();
        let mut lane = Lane::new(link(40, 2, None), start);
        let later = start + MS * 80;
        assert_eq!(lane.due(later, 500) - later, MS * 20);
    }

    #[test]
    fn a_connection_carries_its_rate_and_no_more() {
        let start = Instant::now();
        let mut lane = Lane::new(link(40, 0, Some(1_000_000)), start);
        assert_eq!(lane.due(start, 10_000) - start, MS * (10 + 20));
        assert_eq!(lane.due(start, 10_000) - start, MS * (20 + 20));
        let idle = start + MS * 500;
        assert_eq!(lane.due(idle, 10_000) - idle, MS * (10 + 20));
    }

    #[test]
    fn more_may_be_in_flight_than_rate_times_delay() {
        assert!(link(40, 1, Some(25_000_000)).in_flight_bytes() > 1_000_000);
        assert!(link(40, 1, None).in_flight_bytes() >= IN_FLIGHT_BYTES);
    }

    /// A client, and the server's end of its connection.
    async fn connected(link: Link) -> (TcpStream, Connection) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        (client, Connection::new(accepted, link, Cutter::default()))
    }

    #[tokio::test]
    async fn every_link_carries_bytes_both_ways() {
        for link in [
            Link::LOOPBACK,
            link(2, 2, None),
            link(2, 1, Some(1_000_000)),
        ] {
            let (mut client, mut server) = connected(link).await;
            client.write_all(b"ping").await.unwrap();
            let mut word = [0; 4];
            server.read_exact(&mut word).await.unwrap();
            server.write_all(&word).await.unwrap();
            server.flush().await.unwrap();
            let mut echo = [0; 4];
            client.read_exact(&mut echo).await.unwrap();
            assert_eq!(&echo, b"ping");
        }
    }

    #[tokio::test]
    async fn the_end_of_what_a_client_sends_is_seen() {
        let (mut client, mut server) = connected(link(2, 1, None)).await;
        client.write_all(b"last words").await.unwrap();
        drop(client);
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"last words");
    }

    #[tokio::test]
    async fn what_was_written_before_a_drop_still_arrives() {
        let (mut client, mut server) = connected(link(2, 1, None)).await;
        server.write_all(&[7; 100_000]).await.unwrap();
        drop(server);
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received.len(), 100_000);
    }
}
