//! Connections that are opened before a request needs them.
//!
//! reqwest opens a connection when a request finds none that is idle, and has no call to open one
//! ahead. So a client of its own opens them: what its connector brings is put aside, and the
//! connector of the client that sends the requests takes it from there. No byte is sent on a
//! connection that is put aside.
//!
//! How it fails: silently. A connection that could not be opened ahead, or that the server closed
//! meanwhile, costs what it would have cost without. One that nobody took within [`KEPT`] is
//! closed when the next one is asked for.
//!
//! Locks: what is put aside, and how many stand; neither is held while the other is taken.

use std::collections::VecDeque;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use reqwest::{Client, ClientBuilder};
use tokio::runtime::Handle;
use tower_layer::Layer;
use tower_service::Service;
use url::Url;

use crate::clock::Clock;

/// Servers close a connection that asks nothing: nginx after 60 s, others sooner. What is opened
/// ahead is for the next second.
const KEPT: Duration = Duration::from_secs(10);
/// For as long connections that were opened ahead are taken to stand: once used they are idle in
/// the client's pool, which keeps them for 90 s.
const STANDING: Duration = Duration::from_secs(60);

type BoxError = Box<dyn Error + Send + Sync>;
type Connecting<C> = Pin<Box<dyn Future<Output = Result<C, BoxError>> + Send>>;

/// Opens connections for the client that [`opener`] made with it.
pub(super) struct Opener {
    client: Client,
    clock: Arc<dyn Clock>,
    /// Connections opened ahead so far, and until when they are taken to stand.
    standing: Mutex<(usize, Option<Instant>)>,
    own_first: Arc<AtomicBool>,
}

/// A client that sends requests, and what opens connections for it. `builder` is asked twice.
pub(super) fn opener(
    clock: Arc<dyn Clock>,
    builder: impl Fn() -> ClientBuilder,
) -> reqwest::Result<(Client, Opener)> {
    let spare = Spare {
        clock: Arc::clone(&clock),
        own_first: Arc::default(),
        aside: Arc::default(),
    };
    let own_first = Arc::clone(&spare.own_first);
    let client = builder().connector_layer(Take(spare.clone())).build()?;
    let opener = Opener {
        client: builder().connector_layer(PutAside(spare)).build()?,
        clock,
        standing: Mutex::new((0, None)),
        own_first,
    };
    Ok((client, opener))
}

impl Opener {
    /// Sees that `count` connections to `to` stand beside the one that the next request opens, as
    /// far as is known. Returns at once. All calls must name one server.
    pub fn open(&self, count: usize, to: &Url, runtime: &Handle) {
        for _ in 0..self.missing(count) {
            let request = self.client.get(to.clone()).send();
            runtime.spawn(async move {
                // Always an error: see `WasPutAside`.
                let _ = request.await;
            });
        }
    }

    fn missing(&self, count: usize) -> usize {
        let now = self.clock.monotonic();
        let mut standing = lock(&self.standing);
        if standing.1.is_none_or(|until| now >= until) {
            standing.0 = 0;
            self.own_first.store(true, Ordering::Relaxed);
        }
        let missing = count.saturating_sub(standing.0);
        *standing = (standing.0.max(count), Some(now + STANDING));
        missing
    }
}

/// Connections of type `C`, to one server, put aside with the time. Clones share them.
struct Spare<C> {
    clock: Arc<dyn Clock>,
    /// The next connection is opened and not taken: it is the one that the others stand beside.
    own_first: Arc<AtomicBool>,
    aside: Arc<Mutex<VecDeque<(Instant, C)>>>,
}

impl<C> Spare<C> {
    fn put(&self, connection: C) {
        let now = self.clock.monotonic();
        let mut aside = lock(&self.aside);
        aside.retain(|(since, _)| now < *since + KEPT);
        aside.push_back((now, connection));
    }

    /// The oldest: a server may still be busy with the newest one's beginning.
    fn take(&self) -> Option<C> {
        if self.own_first.swap(false, Ordering::Relaxed) {
            return None;
        }
        let now = self.clock.monotonic();
        let mut aside = lock(&self.aside);
        aside.retain(|(since, _)| now < *since + KEPT);
        aside.pop_front().map(|(_, connection)| connection)
    }
}

impl<C> Clone for Spare<C> {
    fn clone(&self) -> Self {
        Self {
            clock: Arc::clone(&self.clock),
            own_first: Arc::clone(&self.own_first),
            aside: Arc::clone(&self.aside),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// Why a request of the client that opens connections ends.
#[derive(Debug, thiserror::Error)]
#[error("the connection was put aside")]
struct WasPutAside;

/// For the client that opens connections: each is put aside, and its request fails unsent.
struct PutAside<C>(Spare<C>);

/// For the client that sends requests: takes what was put aside, else opens one.
struct Take<C>(Spare<C>);

impl<C> Clone for PutAside<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C> Clone for Take<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S, C> Layer<S> for PutAside<C> {
    type Service = PuttingAside<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        PuttingAside {
            inner,
            spare: self.0.clone(),
        }
    }
}

impl<S, C> Layer<S> for Take<C> {
    type Service = Taking<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Taking {
            inner,
            spare: self.0.clone(),
        }
    }
}

/// A connector whose connections are put aside.
struct PuttingAside<S, C> {
    inner: S,
    spare: Spare<C>,
}

/// A connector that takes what was put aside.
struct Taking<S, C> {
    inner: S,
    spare: Spare<C>,
}

impl<S: Clone, C> Clone for PuttingAside<S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            spare: self.spare.clone(),
        }
    }
}

impl<S: Clone, C> Clone for Taking<S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            spare: self.spare.clone(),
        }
    }
}

impl<S, C, R> Service<R> for PuttingAside<S, C>
where
    S: Service<R, Response = C, Error = BoxError>,
    S::Future: Send + 'static,
    C: Send + 'static,
{
    type Response = C;
    type Error = BoxError;
    type Future = Connecting<C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, to: R) -> Connecting<C> {
        let spare = self.spare.clone();
        let connecting = self.inner.call(to);
        Box::pin(async move {
            spare.put(connecting.await?);
            Err(WasPutAside.into())
        })
    }
}

impl<S, C, R> Service<R> for Taking<S, C>
where
    S: Service<R, Response = C, Error = BoxError>,
    S::Future: Send + 'static,
    C: Send + 'static,
{
    type Response = C;
    type Error = BoxError;
    type Future = Connecting<C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, to: R) -> Connecting<C> {
        match self.spare.take() {
            Some(connection) => Box::pin(async move { Ok(connection) }),
            None => Box::pin(self.inner.call(to)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Condvar;
    use std::thread;

    use super::*;
    use crate::clock::{ManualClock, SystemClock};
    use crate::http::{ApiClient, ApiRequest, ApiToken, Deadlines};

    /// Keeps its connections, and answers nothing before `awaited` of them were accepted.
    struct Server {
        url: Url,
        accepted: Arc<(Mutex<usize>, Condvar)>,
    }

    impl Server {
        fn answering_after(awaited: usize) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            let accepted = Arc::new((Mutex::new(0), Condvar::new()));
            let counted = Arc::clone(&accepted);
            // Ends with the test's process.
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    *counted.0.lock().unwrap() += 1;
                    counted.1.notify_all();
                    let counted = Arc::clone(&counted);
                    thread::spawn(move || converse(stream, awaited, &counted));
                }
            });
            Self {
                url: Url::parse(&url).unwrap(),
                accepted,
            }
        }

        fn accepted(&self) -> usize {
            *self.accepted.0.lock().unwrap()
        }
    }

    fn converse(stream: TcpStream, awaited: usize, accepted: &(Mutex<usize>, Condvar)) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while let Some(Ok(line)) = lines.next() {
            if line.is_empty() {
                let count = accepted.0.lock().unwrap();
                drop(accepted.1.wait_while(count, |n| *n < awaited).unwrap());
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                let _ = (&stream).write_all(answer);
            }
        }
    }

    fn still() -> Arc<ManualClock> {
        Arc::new(ManualClock::at(std::time::SystemTime::UNIX_EPOCH))
    }

    fn spare<C>(clock: &Arc<ManualClock>) -> Spare<C> {
        Spare {
            clock: Arc::clone(clock) as _,
            own_first: Arc::default(),
            aside: Arc::default(),
        }
    }

    fn opener_by(clock: Arc<dyn Clock>) -> (Client, Opener) {
        super::super::install_tls();
        opener(clock, Client::builder).unwrap()
    }

    fn client(server: &Server) -> ApiClient {
        let token = ApiToken::new("user:1-sEcReT").unwrap();
        let clock = Arc::new(SystemClock);
        ApiClient::new(server.url.clone(), token, Deadlines::default(), clock).unwrap()
    }

    #[test]
    fn connections_are_opened_while_the_first_request_waits() {
        let server = Server::answering_after(4);
        let client = client(&server);
        client.connect_ahead(3);
        client.get(&ApiRequest::default()).unwrap();
        assert_eq!(server.accepted(), 4);
    }

    /// A connector that numbers its connections.
    #[derive(Clone, Default)]
    struct Numbering(Arc<Mutex<usize>>);

    impl Service<()> for Numbering {
        type Response = usize;
        type Error = BoxError;
        type Future = std::future::Ready<Result<usize, BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: ()) -> Self::Future {
            let mut count = self.0.lock().unwrap();
            *count += 1;
            std::future::ready(Ok(*count))
        }
    }

    #[tokio::test]
    async fn a_connection_that_was_put_aside_is_taken_once_beside_the_first() {
        let spare = spare(&still());
        let network = Numbering::default();
        let mut opening = PutAside(spare.clone()).layer(network.clone());
        let mut calling = Take(spare.clone()).layer(network);
        let refused = opening.call(()).await.unwrap_err();
        assert!(refused.is::<WasPutAside>(), "no request is sent on it");
        spare.own_first.store(true, Ordering::Relaxed);
        let taken = [(); 3].map(|()| calling.call(()));
        let mut numbers = Vec::new();
        for connecting in taken {
            numbers.push(connecting.await.unwrap());
        }
        assert_eq!(
            numbers,
            [2, 1, 3],
            "its own first, the spare one, and a new one"
        );
    }

    #[test]
    fn connections_that_cannot_be_opened_ahead_are_opened_when_they_are_needed() {
        let server = Server::answering_after(1);
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = format!("http://{}/", nobody.local_addr().unwrap());
        drop(nobody);
        let (client, opener) = opener_by(Arc::new(SystemClock));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        opener.open(3, &Url::parse(&closed).unwrap(), runtime.handle());
        let answer = runtime.block_on(client.get(server.url.clone()).send());
        assert_eq!(answer.unwrap().status().as_u16(), 200);
        assert_eq!(server.accepted(), 1);
    }

    #[test]
    fn what_stands_is_not_opened_again_for_a_minute() {
        let clock = still();
        let (_, opener) = opener_by(Arc::clone(&clock) as _);
        assert_eq!(
            [3, 3, 7, 5].map(|count| opener.missing(count)),
            [3, 0, 4, 0]
        );
        clock.advance(STANDING);
        assert_eq!(opener.missing(3), 3);
    }

    #[test]
    fn what_nobody_took_is_closed() {
        let clock = still();
        let spare = spare(&clock);
        let connection = Arc::new(());
        spare.put(Arc::clone(&connection));
        clock.advance(KEPT);
        assert!(spare.take().is_none());
        assert_eq!(Arc::strong_count(&connection), 1);
    }
}
