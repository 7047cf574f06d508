//! Connections to asset hosts: straight or through the proxy that the environment names, and a few
//! that stand ready before they are needed.
//!
//! A new connection costs two round trips and more (TCP, TLS) before the first request; one that is
//! ready costs none. [`Connector::prepare`] opens them without asking the host for anything.
//!
//! Promises: nothing is sent over a connection that stands ready but its TLS handshake. There are
//! never more of them than asked for less those that are open already, and one that nobody took
//! within [`READY_FOR`] is closed. One that the host closed meanwhile is not used. One that could not
//! be opened ahead is opened again by whoever needs it, and only that one sees the error.
//!
//! Lock order: `hosts` is a leaf; nothing is awaited and no connection is dropped under it.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::HeaderValue;
use hyper::http::uri::{Authority, Scheme};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper::{Request, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls_platform_verifier::ConfigVerifierExt;
use tokio::task::JoinHandle;
use tower_service::Service;

use super::origin::PublicResolver;
use super::{DEAD_AFTER, KEEPALIVE, install_tls};

/// Connections kept for the next request: as many as probes use at once. Fewer would be closed and
/// opened again all the time while a directory of unknown sizes is listed.
const MAX_IDLE_PER_HOST: usize = 256;
/// Shorter than nginx (75 s) and the like keep an idle connection; one that was closed under us is
/// noticed before it is used, or costs one retry.
const IDLE_CONNECTION: Duration = Duration::from_secs(55);
/// The most that one connection holds of what came and was not taken yet. Beyond 128 KiB a larger
/// buffer saved no time on loopback, and 100 connections with hyper's own limit of 408 KiB would
/// hold 40 MiB.
pub const RECEIVE_BYTES: usize = 128 * 1024;
/// Hosts close a connection that asks for nothing after 20 s (S3) to 60 s (nginx).
const READY_FOR: Duration = Duration::from_secs(15);

/// The body of a GET.
pub(super) type NoBody = Empty<Bytes>;
type Failure = Box<dyn Error + Send + Sync>;
type Connecting = Pin<Box<dyn Future<Output = Result<Wire, Failure>> + Send>>;

/// Which addresses names may stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Those of the public internet.
    Public,
    Anywhere,
}

/// A client for all hosts within one reach, with the connections to them.
#[derive(Clone)]
pub(super) struct Hosts {
    client: Client<Connector, NoBody>,
    connector: Connector,
}

impl Hosts {
    /// Fails where the machine's root certificates can't be read. `timeout` bounds one connecting,
    /// TLS included.
    pub fn new(reach: Reach, timeout: Duration) -> Result<Self, rustls::Error> {
        let connector = Connector::new(reach, timeout)?;
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .http1_max_buf_size(RECEIVE_BYTES)
            .build(connector.clone());
        Ok(Self { client, connector })
    }

    /// Sends a request over a connection that is idle, ready or new.
    pub fn request(&self, request: Request<NoBody>) -> ResponseFuture {
        self.client.request(request)
    }

    /// See [`Connector::prepare`].
    pub fn prepare(&self, uri: &Uri, wanted: usize) {
        self.connector.prepare(uri, wanted);
    }

    /// Connections that are open or being opened.
    pub fn open(&self) -> u64 {
        self.connector.open()
    }

    /// What a request to `uri` must tell its proxy: only one that goes through it in plain HTTP.
    pub fn proxy_authorization(&self, uri: &Uri) -> Option<HeaderValue> {
        if uri.scheme() != Some(&Scheme::HTTP) {
            return None;
        }
        let proxies = &self.connector.shared.proxies;
        proxies.intercept(uri)?.basic_auth().cloned()
    }
}

/// Looks names up within a reach.
#[derive(Clone)]
enum Names {
    Public(Arc<PublicResolver>),
    Anywhere,
}

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let names = self.clone();
        Box::pin(async move {
            let found = match names {
                Names::Public(resolver) => resolver.resolve(name.as_str()).await?,
                Names::Anywhere => tokio::net::lookup_host((name.as_str(), 0)).await?.collect(),
            };
            Ok(found.into_iter())
        })
    }
}

/// Makes connections for a hyper client. Clones share those that stand ready.
#[derive(Clone)]
pub(super) struct Connector {
    shared: Arc<Shared>,
}

struct Shared {
    tcp: HttpConnector<Names>,
    tls: Arc<ClientConfig>,
    proxies: Matcher,
    timeout: Duration,
    hosts: Mutex<HashMap<Origin, Host>>,
}

/// Scheme, host and port.
type Origin = (Scheme, Authority);

#[derive(Default)]
struct Host {
    /// Open or being opened, in use or not.
    open: Arc<AtomicUsize>,
    ready: VecDeque<Ready>,
    made: u64,
}

/// A connection that was opened ahead, or is about to be.
struct Ready {
    number: u64,
    connecting: JoinHandle<Result<Wire, Failure>>,
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.connecting.abort();
    }
}

impl Connector {
    fn new(reach: Reach, timeout: Duration) -> Result<Self, rustls::Error> {
        install_tls();
        let mut tls = ClientConfig::with_platform_verifier()?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let names = match reach {
            Reach::Public => Names::Public(Arc::new(PublicResolver::new())),
            Reach::Anywhere => Names::Anywhere,
        };
        let mut tcp = HttpConnector::new_with_resolver(names);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        let (idle, interval) = KEEPALIVE;
        tcp.set_keepalive(Some(idle));
        tcp.set_keepalive_interval(Some(interval));
        tcp.set_tcp_user_timeout(Some(DEAD_AFTER));
        Ok(Self {
            shared: Arc::new(Shared {
                tcp,
                tls: Arc::new(tls),
                proxies: Matcher::from_env(),
                timeout,
                hosts: Mutex::default(),
            }),
        })
    }

    /// Connections that are open or being opened, to all hosts.
    pub fn open(&self) -> u64 {
        let hosts = self.shared.lock();
        let open = hosts.values().map(|host| host.open.load(Ordering::Relaxed));
        open.sum::<usize>() as u64
    }

    /// Sees to it that `wanted` connections to the host of `uri` are open, whatever they do. Must
    /// be called inside a runtime; waits for nothing.
    pub fn prepare(&self, uri: &Uri, wanted: usize) {
        let Some(origin) = origin_of(uri) else {
            return;
        };
        let newest = {
            let mut hosts = self.shared.lock();
            let host = hosts.entry(origin.clone()).or_default();
            let missing = wanted.saturating_sub(host.open.load(Ordering::Relaxed));
            if missing == 0 {
                return;
            }
            for _ in 0..missing {
                host.made += 1;
                let open = Open::new(&host.open);
                host.ready.push_back(Ready {
                    number: host.made,
                    connecting: tokio::spawn(Arc::clone(&self.shared).connect(uri.clone(), open)),
                });
            }
            host.made
        };
        let shared = Arc::downgrade(&self.shared);
        tokio::spawn(async move {
            tokio::time::sleep(READY_FOR).await;
            if let Some(shared) = shared.upgrade() {
                drop(shared.take_up_to(&origin, newest));
            }
        });
    }
}

fn origin_of(uri: &Uri) -> Option<Origin> {
    Some((uri.scheme()?.clone(), uri.authority()?.clone()))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<Origin, Host>> {
        self.hosts.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The connection that was prepared first.
    fn take(&self, origin: &Origin) -> Option<Ready> {
        self.lock().get_mut(origin)?.ready.pop_front()
    }

    fn take_up_to(&self, origin: &Origin, newest: u64) -> Vec<Ready> {
        let mut hosts = self.lock();
        let Some(host) = hosts.get_mut(origin) else {
            return Vec::new();
        };
        let old = host.ready.iter().take_while(|r| r.number <= newest).count();
        host.ready.drain(..old).collect()
    }

    fn open_to(&self, origin: &Origin) -> Open {
        let mut hosts = self.lock();
        Open::new(&hosts.entry(origin.clone()).or_default().open)
    }

    /// One that stands ready, else a new one.
    async fn ready_or_new(self: Arc<Self>, uri: Uri) -> Result<Wire, Failure> {
        let origin = origin_of(&uri).ok_or("an address without a host")?;
        while let Some(mut ready) = self.take(&origin) {
            if let Ok(Ok(mut wire)) = (&mut ready.connecting).await
                && wire.is_open().await
            {
                return Ok(wire);
            }
        }
        let open = self.open_to(&origin);
        self.connect(uri, open).await
    }

    async fn connect(self: Arc<Self>, uri: Uri, open: Open) -> Result<Wire, Failure> {
        let timeout = self.timeout;
        let connected = tokio::time::timeout(timeout, self.connect_in_time(&uri));
        let (io, through_proxy) = connected.await.map_err(|_| "no connection in time")??;
        Ok(Wire {
            io,
            through_proxy,
            _open: open,
        })
    }

    async fn connect_in_time(&self, uri: &Uri) -> Result<(Box<dyn Io>, bool), Failure> {
        let direct = HttpsConnector::from((self.tcp.clone(), Arc::clone(&self.tls)));
        let Some(proxy) = self.proxies.intercept(uri) else {
            return Ok((Box::new(once(direct, uri.clone()).await?), false));
        };
        if uri.scheme() == Some(&Scheme::HTTP) {
            return Ok((Box::new(once(direct, proxy.uri().clone()).await?), true));
        }
        let tunnel = tunnel_through(&proxy, direct);
        let tls = HttpsConnector::from((tunnel, Arc::clone(&self.tls)));
        Ok((Box::new(once(tls, uri.clone()).await?), false))
    }
}

fn tunnel_through<C>(proxy: &Intercept, connector: C) -> Tunnel<C> {
    let tunnel = Tunnel::new(proxy.uri().clone(), connector);
    match proxy.basic_auth() {
        Some(auth) => tunnel.with_auth(auth.clone()),
        None => tunnel,
    }
}

async fn once<C>(mut connector: C, uri: Uri) -> Result<C::Response, Failure>
where
    C: Service<Uri>,
    C::Error: Into<Failure>,
{
    let ready = poll_fn(|cx| connector.poll_ready(cx)).await;
    ready.map_err(Into::into)?;
    connector.call(uri).await.map_err(Into::into)
}

impl Service<Uri> for Connector {
    type Response = Wire;
    type Error = Failure;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        Box::pin(Arc::clone(&self.shared).ready_or_new(uri))
    }
}

/// Counts a connection from its first packet to its end.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

trait Io: Read + Write + Connection + Send + Unpin {}
impl<T: Read + Write + Connection + Send + Unpin> Io for T {}

/// One connection, whatever it is made of.
pub(super) struct Wire {
    io: Box<dyn Io>,
    through_proxy: bool,
    _open: Open,
}

impl Wire {
    /// Whether the host still waits for a request: it has neither closed nor spoken.
    async fn is_open(&mut self) -> bool {
        let mut byte = [0; 1];
        poll_fn(|cx| {
            let mut buffer = ReadBuf::new(&mut byte);
            let read = pin!(&mut self.io).poll_read(cx, buffer.unfilled());
            Poll::Ready(read.is_pending())
        })
        .await
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.through_proxy)
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::mpsc;

    const LONG: Duration = Duration::from_secs(20);

    /// A host that tells each connection as it comes.
    fn host() -> (Uri, mpsc::Receiver<std::net::TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("http://{}/", listener.local_addr().unwrap());
        let (send, connections) = mpsc::channel();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if send.send(stream).is_err() {
                    return;
                }
            }
        });
        (uri.parse().unwrap(), connections)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    }

    #[test]
    fn connections_stand_ready_and_are_taken_before_new_ones_are_opened() {
        let (runtime, (uri, connections)) = (runtime(), host());
        let mut connector = Connector::new(Reach::Anywhere, LONG).unwrap();
        let _inside = runtime.enter();
        connector.prepare(&uri, 3);
        let _held: Vec<_> = (0..3)
            .map(|_| connections.recv_timeout(LONG).unwrap())
            .collect();
        connector.prepare(&uri, 3);
        let wires: Vec<Wire> = (0..3)
            .map(|_| runtime.block_on(connector.call(uri.clone())).unwrap())
            .collect();
        assert!(connections.try_recv().is_err(), "no others were opened");
        assert_eq!(connector.open(), 3);
        let fourth = runtime.block_on(connector.call(uri.clone())).unwrap();
        connections.recv_timeout(LONG).unwrap();
        drop((wires, fourth));
        assert_eq!(connector.open(), 0);
    }

    #[test]
    fn nothing_is_sent_over_a_connection_that_stands_ready() {
        let (runtime, (uri, connections)) = (runtime(), host());
        let connector = Connector::new(Reach::Anywhere, LONG).unwrap();
        let _inside = runtime.enter();
        connector.prepare(&uri, 1);
        let mut theirs = connections.recv_timeout(LONG).unwrap();
        drop(connector.shared.take_up_to(&origin_of(&uri).unwrap(), 1));
        let mut sent = Vec::new();
        theirs.read_to_end(&mut sent).unwrap();
        assert_eq!(sent, [0; 0]);
    }

    #[test]
    fn a_connection_that_the_host_closed_or_spoke_on_is_not_used() {
        let (runtime, (uri, connections)) = (runtime(), host());
        let mut connector = Connector::new(Reach::Anywhere, LONG).unwrap();
        let _inside = runtime.enter();
        connector.prepare(&uri, 2);
        drop(connections.recv_timeout(LONG).unwrap());
        let mut spoken = connections.recv_timeout(LONG).unwrap();
        // Much, since each look at it takes a byte.
        spoken.write_all(&[b'x'; 64 * 1024]).unwrap();
        // Until the runtime has heard of both, taking one would find it open.
        runtime.block_on(async {
            loop {
                let mut dead = Vec::new();
                while let Some(ready) = connector.shared.take(&origin_of(&uri).unwrap()) {
                    dead.push(ready);
                }
                let mut open = 0;
                for ready in &mut dead {
                    let wire = (&mut ready.connecting).await.unwrap().unwrap();
                    let (number, mut wire) = (ready.number, wire);
                    open += usize::from(wire.is_open().await);
                    let again = Ready {
                        number,
                        connecting: tokio::spawn(async { Ok(wire) }),
                    };
                    let mut hosts = connector.shared.lock();
                    hosts
                        .get_mut(&origin_of(&uri).unwrap())
                        .unwrap()
                        .ready
                        .push_back(again);
                }
                if open == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let mut wire = runtime.block_on(connector.call(uri.clone())).unwrap();
        // Kept, or the host would have closed this one too.
        let _theirs = connections
            .recv_timeout(LONG)
            .expect("a new one was opened");
        assert!(runtime.block_on(wire.is_open()));
        assert_eq!(connector.open(), 1);
    }

    #[test]
    fn a_host_that_can_t_be_reached_is_told_to_whoever_asks() {
        let runtime = runtime();
        let gone = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            format!("http://{}/", listener.local_addr().unwrap())
        };
        let uri: Uri = gone.parse().unwrap();
        let mut connector = Connector::new(Reach::Anywhere, LONG).unwrap();
        let _inside = runtime.enter();
        connector.prepare(&uri, 2);
        assert!(runtime.block_on(connector.call(uri.clone())).is_err());
        assert_eq!(connector.open(), 0);
    }

    #[test]
    fn within_the_public_reach_a_name_of_this_machine_is_not_connected_to() {
        let (runtime, (uri, connections)) = (runtime(), host());
        let port = uri.port_u16().unwrap();
        let named: Uri = format!("http://localhost:{port}/").parse().unwrap();
        let mut connector = Connector::new(Reach::Public, LONG).unwrap();
        let _inside = runtime.enter();
        connector.prepare(&named, 2);
        assert!(runtime.block_on(connector.call(named.clone())).is_err());
        assert!(connections.try_recv().is_err());
        assert_eq!(connector.open(), 0);
    }
}
