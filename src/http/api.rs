//! The client for the services' JSON pages: a few calls with the token. Uploads are in `upload`.
//!
//! Promises: a call blocks its thread and ends by [`Deadlines::total`], its retries included; the
//! token goes to the API's own origin and nowhere else (redirects elsewhere are errors, same-origin
//! ones are followed three times, for GET only); an answer is held to [`MAX_ANSWER_BYTES`]; a 429
//! silences all calls of one client for as long as the service asked (the limit is the account's).
//! Errors carry no token and no URL's query.
//!
//! Why an async client under a blocking face: reqwest's blocking one has no deadline for a body
//! that stops moving while it is sent. One runtime thread drives all connections; callers wait on
//! their own threads. Must not be called from within an async runtime.
//!
//! Locks: `pause` alone, never held while waiting.

use std::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION,
};
use reqwest::{Method, Response};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use url::Url;

use super::json;
use super::message::{hidden_error, read_envelope};
use super::origin::host_of;
use super::redact;
use super::request::ApiRequest;
use super::retry::{Attempts, parse_retry_after};
use super::spare::{Opener, opener};
use super::{ApiToken, ClientError, Deadlines, TransportError, USER_AGENT, UrlPolicy, install_tls};
use crate::clock::Clock;

/// Largest JSON answer read. A page of 50 assets is under 200 KB even with long prompts as names. Read
/// as JSON, the worst that fits (objects of one short field) takes some ninety times as much memory.
pub const MAX_ANSWER_BYTES: u64 = 4 << 20;

/// Same-origin redirects followed (a missing trailing slash costs one).
const MAX_REDIRECTS: usize = 3;

/// Idle connections kept: a listing asks for up to 8 pages at once, and two libraries are often
/// listed together.
const IDLE_CONNECTIONS: usize = 16;

/// See the module's head. Clones share connections and the rate limit's pause.
#[derive(Clone)]
pub struct ApiClient {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) deadlines: Deadlines,
    pub(super) token: ApiToken,
    /// For uploads: keeps no idle connection, so that a body never goes to one that the server is
    /// just closing, which would look like a lost answer. A handshake is small beside a file.
    pub(super) uploads: reqwest::Client,
    base: Url,
    host: String,
    clock: Arc<dyn Clock>,
    pub(super) calls: reqwest::Client,
    opener: Opener,
    /// Taken in drop only.
    runtime: Option<Runtime>,
    /// No request starts before this.
    pause: Mutex<Option<Instant>>,
}

/// An answer as it came, its body read.
pub(super) struct Answer {
    pub(super) status: u16,
    retry_after: Option<String>,
    body: Vec<u8>,
}

impl ApiClient {
    /// A client for the API at `base`, whose path is kept in front of every request's.
    pub fn new(
        base: Url,
        token: ApiToken,
        deadlines: Deadlines,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ClientError> {
        install_tls();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("reelfs-api")
            .enable_all()
            .build()
            .map_err(|e| ClientError(format!("no thread for the network: {e}")))?;
        let client = |idle| {
            reqwest::Client::builder()
                .user_agent(USER_AGENT)
                .http1_only()
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .connect_timeout(deadlines.connect)
                .pool_max_idle_per_host(idle)
        };
        let broken = |e: reqwest::Error| ClientError(root_cause(&e));
        let with_clock = Arc::clone(&clock);
        let calls = || super::noticing_dead_connections(client(IDLE_CONNECTIONS));
        let (calls, opener) = opener(with_clock, calls).map_err(broken)?;
        let shared = Shared {
            deadlines,
            token,
            uploads: client(0).build().map_err(broken)?,
            host: host_of(&base),
            base,
            clock,
            calls,
            opener,
            runtime: Some(runtime),
            pause: Mutex::new(None),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Which URLs this API's answers may name.
    pub fn url_policy(&self) -> UrlPolicy {
        UrlPolicy::for_api(&self.shared.base)
    }

    /// A record of this API as it may be shown, where it isn't longer than `most_bytes`.
    pub fn record(&self, record: &Value, most_bytes: usize) -> Option<Box<str>> {
        redact::record(record, &self.shared.token, most_bytes)
    }

    /// Host and port, safe to print.
    pub fn host(&self) -> &str {
        &self.shared.host
    }

    /// Opens connections, so that `count` stand beside the one that the next call uses. Returns at
    /// once; sends nothing.
    pub fn connect_ahead(&self, count: usize) {
        if let Some(runtime) = &self.shared.runtime {
            let shared = &self.shared;
            shared.opener.open(count, &shared.base, runtime.handle());
        }
    }

    /// The JSON that a GET answers. An `{"error"}` under a 200 is an error.
    pub fn get(&self, request: &ApiRequest<'_>) -> Result<Value, TransportError> {
        self.call(Method::GET, request)
    }

    /// The JSON that a DELETE answers; `null` for an empty answer. A retry after a lost answer may
    /// find the asset already gone (404).
    pub fn delete(&self, request: &ApiRequest<'_>) -> Result<Value, TransportError> {
        self.call(Method::DELETE, request)
    }

    fn call(&self, method: Method, request: &ApiRequest<'_>) -> Result<Value, TransportError> {
        let shared = &self.shared;
        let url = shared.url(request)?;
        let headers = shared.headers(request)?;
        let mut budget = Budget::new(shared);
        loop {
            shared.wait_out_pause(&mut budget)?;
            let attempt = shared.attempt(method.clone(), url.clone(), headers.clone());
            let limit = budget.remaining(shared);
            let answered = shared.block_on(async {
                timeout(limit, attempt)
                    .await
                    .unwrap_or(Err(shared.timed_out()))
            });
            match answered.and_then(|answer| shared.judge(answer, &method)) {
                Ok(json) => return Ok(json),
                Err(error) => budget.wait_after(shared, error)?,
            }
        }
    }
}

impl Shared {
    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        match &self.runtime {
            Some(runtime) => runtime.block_on(future),
            None => unreachable!("the runtime is there until the client is dropped"),
        }
    }

    pub(super) fn url(&self, request: &ApiRequest<'_>) -> Result<Url, TransportError> {
        request
            .url(&self.base)
            .ok_or_else(|| self.malformed("an asset id that can't stand in a URL"))
    }

    pub(super) fn headers(&self, request: &ApiRequest<'_>) -> Result<HeaderMap, TransportError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        // Without it, any encoding may come (RFC 9110, 12.5.3), and none is read here.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut bearer =
            self.header_value("Authorization", &format!("Bearer {}", self.token.expose()))?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
        for (name, value) in &request.headers {
            headers.insert(
                HeaderName::from_static(name),
                self.header_value(name, value)?,
            );
        }
        Ok(headers)
    }

    fn header_value(&self, name: &str, value: &str) -> Result<HeaderValue, TransportError> {
        HeaderValue::from_str(value).map_err(|_| TransportError::Connect {
            host: self.host.clone(),
            reason: format!("the value for {name} holds characters that a header can't carry"),
        })
    }

    /// One attempt, with the redirects that a GET may follow.
    async fn attempt(
        &self,
        method: Method,
        mut url: Url,
        headers: HeaderMap,
    ) -> Result<Answer, TransportError> {
        for _ in 0..=MAX_REDIRECTS {
            let sent = self
                .calls
                .request(method.clone(), url.clone())
                .headers(headers.clone())
                .send();
            let response = timeout(self.deadlines.stall, sent)
                .await
                .map_err(|_| self.timed_out())?
                .map_err(|e| self.transport_error(&e))?;
            match self.redirect_target(&response, &url)? {
                Some(target) if method == Method::GET => url = target,
                Some(target) => return Err(self.forbidden(&target)),
                None => return self.read(response).await,
            }
        }
        Err(self.malformed("more redirects than it should"))
    }

    /// Where a 3xx leads, if that is within the API's origin.
    pub(super) fn redirect_target(
        &self,
        response: &Response,
        from: &Url,
    ) -> Result<Option<Url>, TransportError> {
        if !response.status().is_redirection() {
            return Ok(None);
        }
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|v| v.to_str().ok());
        let Some(target) = location.and_then(|location| from.join(location).ok()) else {
            return Ok(None);
        };
        if target.origin() != self.base.origin() {
            return Err(self.forbidden(&target));
        }
        Ok(Some(target))
    }

    /// The body within its limits. The text of a failed answer may be cut short: it only explains.
    pub(super) async fn read(&self, mut response: Response) -> Result<Answer, TransportError> {
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after");
        let retry_after = retry_after
            .and_then(|v| v.to_str().ok())
            .map(str::to_string);
        let mut body = Vec::new();
        let read = self.read_body(&mut response, &mut body).await;
        if (200..300).contains(&status) {
            read?;
        }
        Ok(Answer {
            status,
            retry_after,
            body,
        })
    }

    async fn read_body(
        &self,
        response: &mut Response,
        body: &mut Vec<u8>,
    ) -> Result<(), TransportError> {
        loop {
            let chunk = timeout(self.deadlines.stall, response.chunk())
                .await
                .map_err(|_| self.timed_out())?
                .map_err(|e| self.transport_error(&e))?;
            let Some(chunk) = chunk else { return Ok(()) };
            if (body.len() + chunk.len()) as u64 > MAX_ANSWER_BYTES {
                return Err(TransportError::TooLarge {
                    host: self.host.clone(),
                    limit_bytes: MAX_ANSWER_BYTES,
                });
            }
            body.extend_from_slice(&chunk);
        }
    }

    /// An answer's JSON, or what is wrong with it. Notes a rate limit for all calls.
    pub(super) fn judge(&self, answer: Answer, method: &Method) -> Result<Value, TransportError> {
        let Answer { status, body, .. } = &answer;
        if !(200..300).contains(status) {
            let said = read_envelope(body, &self.token);
            return Err(self.status_error(
                *status,
                said.message,
                answer.retry_after.or(said.retry_after),
            ));
        }
        if body.is_empty() && *method == Method::DELETE {
            return Ok(Value::Null);
        }
        let json = json::parse(body).ok_or_else(|| self.malformed("something that isn't JSON"))?;
        match hidden_error(&json, &self.token) {
            None => Ok(json),
            Some(said) => {
                let Some(code) = said.code else {
                    return Err(self.malformed(&format!("an error as a success: {}", said.message)));
                };
                Err(self.status_error(code, said.message, answer.retry_after.or(said.retry_after)))
            }
        }
    }

    fn status_error(
        &self,
        status: u16,
        message: String,
        retry_after: Option<String>,
    ) -> TransportError {
        let retry_after = retry_after.and_then(|text| parse_retry_after(&text, self.clock.now()));
        if let (429, Some(wait)) = (status, retry_after) {
            self.pause_for(wait);
        }
        TransportError::Status {
            host: self.host.clone(),
            status,
            message,
            retry_after,
        }
    }

    fn pause_for(&self, wait: Duration) {
        let until = self.clock.monotonic() + wait;
        let mut pause = self.pause.lock().unwrap_or_else(|e| e.into_inner());
        *pause = Some(pause.map_or(until, |at| at.max(until)));
    }

    fn paused_for(&self) -> Duration {
        let pause = *self.pause.lock().unwrap_or_else(|e| e.into_inner());
        pause.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(self.clock.monotonic())
        })
    }

    /// Waits until the account may be asked again, or says at once that this would take too long.
    pub(super) fn wait_out_pause(&self, budget: &mut Budget) -> Result<(), TransportError> {
        let pause = self.paused_for();
        if pause.is_zero() {
            return Ok(());
        }
        if pause >= budget.remaining(self) {
            return Err(TransportError::Status {
                host: self.host.clone(),
                status: 429,
                message: "the account's rate limit was reached a moment ago".into(),
                retry_after: Some(pause),
            });
        }
        budget.sleep(pause);
        Ok(())
    }

    pub(super) fn transport_error(&self, error: &reqwest::Error) -> TransportError {
        let host = self.host.clone();
        if error.is_connect() {
            let reason = if error.is_timeout() {
                "no connection in time".to_string()
            } else {
                root_cause(error)
            };
            return TransportError::Connect { host, reason };
        }
        if error.is_timeout() {
            return TransportError::Timeout { host };
        }
        TransportError::Broken {
            host,
            reason: root_cause(error),
        }
    }

    pub(super) fn timed_out(&self) -> TransportError {
        TransportError::Timeout {
            host: self.host.clone(),
        }
    }

    pub(super) fn malformed(&self, what: &str) -> TransportError {
        TransportError::Malformed {
            host: self.host.clone(),
            what: what.to_string(),
        }
    }

    pub(super) fn forbidden(&self, target: &Url) -> TransportError {
        TransportError::ForbiddenTarget {
            host: self.host.clone(),
            target: host_of(target),
        }
    }
}

impl Drop for Shared {
    /// Without waiting: the last clone may fall on a thread that must not block.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What is left of a call's deadline. The waits count beside the clock, so that a clock that
/// stands still (a test's) does not make a call endless.
pub(super) struct Budget {
    started: Instant,
    paused: Duration,
    attempts: Attempts,
}

impl Budget {
    pub(super) fn new(shared: &Shared) -> Self {
        Self {
            started: shared.clock.monotonic(),
            paused: Duration::ZERO,
            attempts: Attempts::default(),
        }
    }

    fn remaining(&self, shared: &Shared) -> Duration {
        let elapsed = shared
            .clock
            .monotonic()
            .saturating_duration_since(self.started);
        let waited = self.paused + self.attempts.waited();
        shared.deadlines.total.saturating_sub(elapsed.max(waited))
    }

    fn sleep(&mut self, pause: Duration) {
        self.paused += pause;
        thread::sleep(pause);
    }

    /// Waits before the next attempt, or gives `error` back where there should be none.
    pub(super) fn wait_after(
        &mut self,
        shared: &Shared,
        error: TransportError,
    ) -> Result<(), TransportError> {
        let remaining = self.remaining(shared);
        match self.attempts.next(&error, remaining, jitter()) {
            Some(wait) => {
                log::debug!("{error}; asking again in {} ms", wait.as_millis());
                thread::sleep(wait);
                Ok(())
            }
            None => Err(error),
        }
    }
}

/// Any number in `0.0..=1.0`; its quality does not matter.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    random as f64 / u64::MAX as f64
}

/// The innermost reason: reqwest's own texts repeat the URL.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if cause.is::<reqwest::Error>() {
        return "it ended early".to_string();
    }
    cause.to_string()
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
