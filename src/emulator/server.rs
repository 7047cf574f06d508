//! The listeners: one connection a task, one request after another, each through the faults to
//! its host and into the log.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::answer::{Answer, Framing};
use super::fault::{self, Effect};
use super::link::{Connection, Cutter};
use super::reply::Reply;
use super::request::{ApiRequest, percent_decoded};
use super::request_log::{Entry, LoggedRequest};
use super::shared::Shared;
use super::{HostKind, admin, asset_host, ltx, runflow, runway};

/// After a failed accept, so that one that fails again and again costs nothing.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is dropped on purpose, or its request did not arrive whole")]
struct Dropped;

/// Accepts until the runtime stops.
pub(super) async fn serve(listener: TcpListener, host: HostKind, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(stream, host, Arc::clone(&shared)));
            }
            // Out of descriptors or the like: others are being closed meanwhile.
            Err(error) => {
                log::warn!("emulator: cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, host: HostKind, shared: Arc<Shared>) {
    if let Err(error) = speak_http(stream, host, &shared).await {
        log::debug!("emulator: a connection to {host:?} ended early: {error}");
    }
}

async fn speak_http(stream: TcpStream, host: HostKind, shared: &Arc<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let link = shared.settings().link;
    let cutter = Cutter::default();
    let connection = Connection::new(stream, link, cutter.clone());
    let connection_id = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
    let service = service_fn(move |request| {
        let exchange = Exchange {
            shared: Arc::clone(shared),
            host,
            connection_id,
            cutter: cutter.clone(),
        };
        exchange.run(request)
    });
    http1::Builder::new()
        .serve_connection(TokioIo::new(connection), service)
        .await
        .map_err(io::Error::other)
}

/// One request and its answer.
struct Exchange {
    shared: Arc<Shared>,
    host: HostKind,
    connection_id: u64,
    cutter: Cutter,
}

impl Exchange {
    async fn run(self, request: Request<Incoming>) -> Result<Response<Reply>, Dropped> {
        let (parts, body) = request.into_parts();
        let target = path_and_query(&parts);
        if self.host == HostKind::Useapi && target.starts_with(admin::PREFIX) {
            return self.administer(parts, body).await;
        }
        let entry = self.begin(&parts, &target);
        let result = self.carry_out(parts, body, &target, &entry).await;
        if let Some(watch) = &self.shared.on_request {
            watch(&entry.snapshot());
        }
        result
    }

    /// Does what is asked, as far as the faults let it.
    async fn carry_out(
        &self,
        mut parts: Parts,
        body: Incoming,
        target: &str,
        entry: &Arc<Entry>,
    ) -> Result<Response<Reply>, Dropped> {
        let plan = self.shared.faults.plan(self.host, &parts.method, target);
        if !plan.delay.is_zero() {
            tokio::time::sleep(plan.delay).await;
        }
        let effect = plan.effect;
        match &effect {
            Some(Effect::Silent) => std::future::pending().await,
            Some(Effect::DropBeforeAnswer) => return Err(Dropped),
            Some(Effect::DropWhileReceiving(bytes)) => {
                receive(body, *bytes).await?;
                return Err(Dropped);
            }
            Some(Effect::IgnoreRange) => {
                parts.headers.remove(header::RANGE);
            }
            _ => {}
        }
        let instead = effect.as_ref().and_then(|e| fault::instead(e, self.host));
        let answer = match instead {
            Some(answer) => {
                receive_and_discard(body).await?;
                answer
            }
            None => self.work(parts, body).await?,
        };
        match &effect {
            Some(Effect::AnswerLostAfterWork) => return Err(Dropped),
            Some(Effect::ThenAdd(asset)) => {
                let now = self.shared.now();
                self.shared.library().add_runway((**asset).clone(), now);
            }
            Some(Effect::ThenRemove(id)) => {
                self.shared.library().remove(id);
            }
            _ => {}
        }
        Ok(self.reply(answer, effect, Arc::clone(entry)))
    }

    fn describe(&self, parts: &Parts, target: &str) -> LoggedRequest {
        let range = parts.headers.get(header::RANGE);
        LoggedRequest {
            at: self.shared.now(),
            host: self.host,
            method: parts.method.to_string(),
            path_and_query: target.to_string(),
            range: range.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
            status: None,
            bytes_sent: 0,
            connection_id: self.connection_id,
        }
    }

    fn begin(&self, parts: &Parts, target: &str) -> Arc<Entry> {
        self.shared.log.begin(self.describe(parts, target))
    }

    /// What the host does when nothing goes wrong.
    async fn work(&self, parts: Parts, body: Incoming) -> Result<Answer, Dropped> {
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        if self.host == HostKind::Asset {
            let (method, headers) = (&parts.method, &parts.headers);
            return Ok(asset_host::answer(
                &self.shared,
                method,
                path,
                query,
                headers,
            ));
        }
        let limit = self.shared.max_upload_bytes;
        let declared = content_length(&parts).unwrap_or(0);
        if declared > limit {
            receive_and_discard(body).await?;
            let message = format!("The body is larger than {limit} bytes.");
            return Ok(Answer::useapi_error(413, &message));
        }
        let body = receive(body, limit).await?;
        let request = ApiRequest {
            path: path.to_string(),
            query: query.to_string(),
            method: parts.method,
            headers: parts.headers,
            body,
        };
        Ok(route(&self.shared, self.host, &request))
    }

    async fn administer(&self, parts: Parts, body: Incoming) -> Result<Response<Reply>, Dropped> {
        let target = path_and_query(&parts);
        let body = receive(body, 1024 * 1024).await?;
        let answer = admin::answer(&self.shared, &parts.method, &target, &body);
        let unlogged = Arc::new(Entry::new(self.describe(&parts, &target)));
        Ok(self.reply(answer, None, unlogged))
    }

    fn reply(&self, answer: Answer, effect: Option<Effect>, entry: Arc<Entry>) -> Response<Reply> {
        let answer = match &effect {
            Some(effect) => fault::spoil(effect, answer),
            None => answer,
        };
        entry.answered(answer.status);
        let mut reply = Reply::new(&answer, entry);
        match effect {
            Some(Effect::CutBodyAfter(bytes)) => reply.cut_after(bytes, self.cutter.clone()),
            Some(Effect::SlowBody(bytes_per_s)) => reply.pace(bytes_per_s),
            _ => {}
        }
        let length = (answer.framing == Framing::ContentLength).then(|| answer.body_bytes());
        let mut response = Response::new(reply);
        *response.status_mut() =
            hyper::StatusCode::from_u16(answer.status).unwrap_or(hyper::StatusCode::BAD_GATEWAY);
        *response.headers_mut() = answer.headers;
        // By the emulator's clock, which need not be the machine's.
        let date = httpdate::fmt_http_date(self.shared.now());
        if let Ok(date) = HeaderValue::from_str(&date) {
            response.headers_mut().insert(header::DATE, date);
        }
        if let Some(length) = length {
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, length.into());
        }
        response
    }
}

fn path_and_query(parts: &Parts) -> String {
    parts
        .uri
        .path_and_query()
        .map_or("/", |p| p.as_str())
        .to_string()
}

fn content_length(parts: &Parts) -> Option<u64> {
    parts
        .headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// The body, whole or its first `limit` bytes or a little more; an error if it breaks off.
async fn receive(mut body: Incoming, limit: u64) -> Result<Bytes, Dropped> {
    let declared = body.size_hint().lower().min(limit);
    let mut received = BytesMut::with_capacity(usize::try_from(declared).unwrap_or(0));
    while (received.len() as u64) < limit {
        match body.frame().await {
            None => break,
            Some(Err(_)) => return Err(Dropped),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    received.extend_from_slice(data);
                }
            }
        }
    }
    Ok(received.freeze())
}

/// Reads the body to its end, so that the client sees the answer and not a reset connection.
async fn receive_and_discard(mut body: Incoming) -> Result<(), Dropped> {
    while let Some(frame) = body.frame().await {
        frame.map_err(|_| Dropped)?;
    }
    Ok(())
}

fn route(shared: &Shared, host: HostKind, request: &ApiRequest) -> Answer {
    let path = percent_decoded(&request.path);
    match host {
        HostKind::Useapi => {
            if let Some(rest) = below(&path, "/v1/runwayml/assets") {
                return runway::answer(shared, request, rest);
            }
            match below(&path, "/v1/ltxstudio/assets") {
                Some("" | "/") => ltx::answer(shared, request),
                _ => Answer::useapi_error(404, "Not found."),
            }
        }
        HostKind::Runflow => match below(&path, "/v1/assets/") {
            Some(id) if !id.is_empty() && !id.contains('/') => runflow::answer(shared, request, id),
            _ => Answer::runflow_error(404, "not_found", "Not found."),
        },
        HostKind::Asset => Answer::empty(404),
    }
}

/// What follows `base` in `path`, where a segment ends with it.
fn below<'a>(path: &'a str, base: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(base)?;
    (rest.is_empty() || rest.starts_with('/') || base.ends_with('/')).then_some(rest)
}
