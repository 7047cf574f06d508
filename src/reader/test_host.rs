//! A strict asset host for the reader's tests: real HTTP on loopback, faults on order, and a log
//! of every request. Stricter than the real ones: HEAD, a second credential, a cookie, a Referer
//! or an encoding is refused and remembered.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::range::ByteRange;

/// How one answer goes wrong. Each is used once, in the order given.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status, and `Retry-After` seconds.
    Status(u16, Option<u32>),
    /// The right head, then the connection breaks after so many body bytes.
    CutAfter(usize),
    /// The right head, then silence after so many body bytes.
    SilentAfter(usize),
    /// No answer at all.
    Silent,
    /// The connection is closed without an answer.
    Drop,
    /// Fewer bytes than asked for, rightly declared.
    Short(u64),
    /// A login page with 200.
    Html,
    /// The same, without a length.
    HtmlChunked,
    /// 200 and not one byte.
    Empty,
    /// A header of a right answer set to this, or removed if empty.
    Header(&'static str, &'static str),
    /// 302 to this.
    Redirect(&'static str),
}

/// What is served under one name.
#[derive(Debug, Clone)]
pub struct Object {
    pub data: Bytes,
    pub etag: Option<&'static str>,
    pub last_modified: &'static str,
    pub content_type: &'static str,
    pub ignores_ranges: bool,
    pub tells_length: bool,
}

/// One request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    pub name: String,
    pub range: ByteRange,
}

struct Shared {
    objects: Mutex<HashMap<String, Object>>,
    faults: Mutex<VecDeque<Fault>>,
    always: Mutex<Option<Fault>>,
    hits: Mutex<Vec<Hit>>,
    crimes: Mutex<Vec<String>>,
    open: watch::Sender<bool>,
    connections: AtomicU64,
    sent_bytes: AtomicU64,
    /// URLs with a lower signature are refused with the status.
    lowest_signature: AtomicU64,
    refusal: AtomicU64,
}

pub struct TestHost {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

/// Bytes that differ at every place and from `seed` to `seed`.
pub fn sample(seed: u64, len: usize) -> Bytes {
    let mut data = Vec::with_capacity(len + 8);
    let mut word = 0_u64;
    while data.len() < len {
        let mixed = (word ^ (seed << 48)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        data.extend_from_slice(&(mixed ^ (mixed >> 29)).to_le_bytes());
        word += 1;
    }
    data.truncate(len);
    Bytes::from(data)
}

impl TestHost {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            objects: Mutex::default(),
            faults: Mutex::default(),
            always: Mutex::default(),
            hits: Mutex::default(),
            crimes: Mutex::default(),
            open: watch::Sender::new(true),
            connections: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            lowest_signature: AtomicU64::new(0),
            refusal: AtomicU64::new(403),
        });
        runtime.spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            _runtime: runtime,
        }
    }

    pub fn put(&self, name: &str, data: Bytes) {
        let object = Object {
            data,
            etag: Some("\"v1\""),
            last_modified: "Sun, 06 Nov 1994 08:49:37 GMT",
            content_type: "video/mp4",
            ignores_ranges: false,
            tells_length: true,
        };
        lock(&self.shared.objects).insert(name.to_string(), object);
    }

    pub fn change(&self, name: &str, change: impl FnOnce(&mut Object)) {
        change(lock(&self.shared.objects).get_mut(name).unwrap());
    }

    pub fn remove(&self, name: &str) {
        lock(&self.shared.objects).remove(name);
    }

    pub fn fault(&self, fault: Fault) {
        lock(&self.shared.faults).push_back(fault);
    }

    pub fn always(&self, fault: Option<Fault>) {
        *lock(&self.shared.always) = fault;
    }

    /// Answers no request until [`TestHost::release`].
    pub fn hold(&self) {
        self.shared.open.send_replace(false);
    }

    pub fn release(&self) {
        self.shared.open.send_replace(true);
    }

    /// Refuses URLs signed below `signature` with `status`.
    pub fn refuse_below(&self, signature: u64, status: u16) {
        self.shared
            .refusal
            .store(u64::from(status), Ordering::SeqCst);
        self.shared
            .lowest_signature
            .store(signature, Ordering::SeqCst);
    }

    pub fn hits(&self) -> Vec<Hit> {
        lock(&self.shared.hits).clone()
    }

    pub fn crimes(&self) -> Vec<String> {
        lock(&self.shared.crimes).clone()
    }

    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Body bytes handed to the network.
    pub fn sent_bytes(&self) -> u64 {
        self.shared.sent_bytes.load(Ordering::SeqCst)
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        stream.set_nodelay(true).unwrap();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&shared), request));
            let serve = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // Broken connections are what many tests are about.
            let _ = serve.await;
        });
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Chunks>, std::io::Error> {
    let mut open = shared.open.subscribe();
    let Some(range) = check(&shared, &request) else {
        return Ok(empty(StatusCode::BAD_REQUEST));
    };
    let name = request.uri().path().trim_start_matches('/').to_string();
    let hit = Hit {
        name: name.clone(),
        range,
    };
    // Looked at before the hit is told: whoever counts hits may let the host speak again at once.
    let came_to_silence = matches!(*lock(&shared.always), Some(Fault::Silent));
    lock(&shared.hits).push(hit);
    let _ = open.wait_for(|open| *open).await;
    if signature(&request) < shared.lowest_signature.load(Ordering::SeqCst) {
        let status = shared.refusal.load(Ordering::SeqCst) as u16;
        return Ok(empty(StatusCode::from_u16(status).unwrap()));
    }
    let queued = lock(&shared.faults).pop_front();
    let fault = queued.or_else(|| lock(&shared.always).clone());
    let Some(object) = lock(&shared.objects).get(&name).cloned() else {
        return Ok(empty(StatusCode::NOT_FOUND));
    };
    match fault {
        None if came_to_silence => std::future::pending().await,
        None => Ok(right(&shared, &object, range)),
        Some(Fault::Drop) => Err(std::io::Error::other("dropped on purpose")),
        Some(Fault::Silent) => std::future::pending().await,
        Some(fault) => Ok(wrong(&shared, &object, range, fault)),
    }
}

/// The asked range, if the request is one that an asset host should ever see.
fn check(shared: &Shared, request: &Request<Incoming>) -> Option<ByteRange> {
    let mut crimes = lock(&shared.crimes);
    if request.method() != Method::GET {
        crimes.push(format!("method {}", request.method()));
    }
    for name in [header::AUTHORIZATION, header::COOKIE, header::REFERER] {
        if request.headers().contains_key(&name) {
            crimes.push(format!("header {name}"));
        }
    }
    for (name, want) in [
        (header::ACCEPT_ENCODING, "identity"),
        (
            header::USER_AGENT,
            concat!("reelfs/", env!("CARGO_PKG_VERSION")),
        ),
    ] {
        if request.headers().get(&name).is_none_or(|v| v != want) {
            crimes.push(format!("{name} is not {want}"));
        }
    }
    let range = request.headers().get(header::RANGE)?.to_str().ok()?;
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let range = ByteRange::new(first.parse().ok()?, last.parse::<u64>().ok()? + 1);
    (crimes.is_empty() && !range.is_empty()).then_some(range)
}

fn signature(request: &Request<Incoming>) -> u64 {
    let query = request.uri().query().unwrap_or_default();
    query
        .strip_prefix("sig=")
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

fn right(shared: &Arc<Shared>, object: &Object, range: ByteRange) -> Response<Chunks> {
    let size = object.data.len() as u64;
    if object.ignores_ranges {
        let mut response = body(shared, object, ByteRange::new(0, size));
        *response.status_mut() = StatusCode::OK;
        return response;
    }
    let sent = range.clamp_to(size);
    if sent.is_empty() {
        let mut response = empty(StatusCode::RANGE_NOT_SATISFIABLE);
        set(&mut response, "content-range", &format!("bytes */{size}"));
        return response;
    }
    let mut response = body(shared, object, sent);
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let content_range = format!("bytes {}-{}/{size}", sent.start, sent.end - 1);
    set(&mut response, "content-range", &content_range);
    response
}

fn wrong(
    shared: &Arc<Shared>,
    object: &Object,
    range: ByteRange,
    fault: Fault,
) -> Response<Chunks> {
    let mut response = right(shared, object, range);
    match fault {
        Fault::CutAfter(bytes) => response.body_mut().end = End::Cut(bytes),
        Fault::SilentAfter(bytes) => response.body_mut().end = End::Silent(bytes),
        Fault::Short(len) => {
            let short = ByteRange::at(range.start, len.min(range.len()));
            return right(shared, object, short);
        }
        Fault::Header(name, value) => set(&mut response, name, value),
        Fault::Status(status, retry_after) => {
            response = empty(StatusCode::from_u16(status).unwrap());
            if let Some(seconds) = retry_after {
                set(&mut response, "retry-after", &seconds.to_string());
            }
        }
        Fault::Html | Fault::HtmlChunked => {
            let page = Object {
                data: Bytes::from_static(b"<html>Please log in to this very safe network</html>"),
                etag: None,
                content_type: "text/html; charset=utf-8",
                ignores_ranges: true,
                tells_length: matches!(fault, Fault::Html),
                ..object.clone()
            };
            return right(shared, &page, range);
        }
        Fault::Empty => {
            let nothing = Object {
                data: Bytes::new(),
                etag: None,
                ignores_ranges: true,
                ..object.clone()
            };
            return right(shared, &nothing, range);
        }
        Fault::Redirect(location) => {
            response = empty(StatusCode::FOUND);
            set(&mut response, "location", location);
        }
        Fault::Drop | Fault::Silent => unreachable!("answered before"),
    }
    response
}

fn empty(status: StatusCode) -> Response<Chunks> {
    let mut response = Response::new(Chunks::empty());
    *response.status_mut() = status;
    response
}

fn body(shared: &Arc<Shared>, object: &Object, range: ByteRange) -> Response<Chunks> {
    let data = object.data.slice(range.start as usize..range.end as usize);
    let mut response = Response::new(Chunks {
        data,
        sent: 0,
        tells_length: object.tells_length,
        end: End::Whole,
        shared: Some(Arc::clone(shared)),
    });
    if let Some(etag) = object.etag {
        set(&mut response, "etag", etag);
    }
    set(&mut response, "last-modified", object.last_modified);
    set(&mut response, "content-type", object.content_type);
    response
}

fn set(response: &mut Response<Chunks>, name: &str, value: &str) {
    let name: HeaderName = name.parse().unwrap();
    if value.is_empty() {
        response.headers_mut().remove(name);
    } else {
        let value: HeaderValue = value.parse().unwrap();
        response.headers_mut().insert(name, value);
    }
}

enum End {
    Whole,
    Cut(usize),
    Silent(usize),
}

/// A body that comes in pieces of 64 KiB and may break off.
pub struct Chunks {
    data: Bytes,
    sent: usize,
    tells_length: bool,
    end: End,
    shared: Option<Arc<Shared>>,
}

impl Chunks {
    fn empty() -> Self {
        Self {
            data: Bytes::new(),
            sent: 0,
            tells_length: true,
            end: End::Whole,
            shared: None,
        }
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let limit = match this.end {
            End::Whole => this.data.len(),
            End::Cut(limit) | End::Silent(limit) => limit.min(this.data.len()),
        };
        if this.sent < limit {
            let to = limit.min(this.sent + 64 * 1024);
            let piece = this.data.slice(this.sent..to);
            if let Some(shared) = &this.shared {
                shared
                    .sent_bytes
                    .fetch_add(piece.len() as u64, Ordering::SeqCst);
            }
            this.sent = to;
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match this.end {
            End::Whole => Poll::Ready(None),
            End::Cut(_) => Poll::Ready(Some(Err(std::io::Error::other("cut on purpose")))),
            End::Silent(_) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.tells_length && self.sent == self.data.len() && matches!(self.end, End::Whole)
    }

    fn size_hint(&self) -> SizeHint {
        match self.tells_length {
            true => SizeHint::with_exact((self.data.len() - self.sent) as u64),
            false => SizeHint::default(),
        }
    }
}
