//! Faults on demand: which requests go wrong, how often, and how.
//!
//! Each fault counts the requests it matches; `skip` of them pass, then `times` are hit (all of
//! them by default). Of the faults that match a request, the first with hits left decides, after
//! every matching delay was added up. One lock, never held while a fault takes effect.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use hyper::Method;
use hyper::header::{self, HeaderName};
use serde_json::{Value, json};

use super::HostKind;
use super::answer::{Answer, Framing};
use super::asset::RunwayAsset;
use super::content::mix;

/// A fault: build it with [`Fault::at`], end with [`Fault::does`].
#[derive(Debug, Clone)]
pub struct Fault {
    host: HostKind,
    method: Option<Method>,
    path_part: String,
    skip: u64,
    times: u64,
    /// Of 1,000 requests, by a fixed pseudo-random choice from the seed.
    chance: Option<(u64, u64)>,
    effect: Effect,
    seen: u64,
    hits: u64,
}

/// What happens to a request that a fault hits.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// This answer instead, without the work done.
    Status {
        status: u16,
        body: ErrorBody,
        /// The `Retry-After` header as it stands: seconds or a date.
        retry_after: Option<String>,
    },
    /// 200 with this JSON instead, without the work done: page-level overrides.
    Json(Value),
    /// A 302 to this URL.
    Redirect(String),
    /// The connection is closed instead of an answer, without the work done.
    DropBeforeAnswer,
    /// The connection is closed once at least so many bytes of the request's body arrived (or all
    /// of them), without the work done.
    DropWhileReceiving(u64),
    /// The work is done, then the connection is closed instead of an answer.
    AnswerLostAfterWork,
    /// The request is taken and never answered.
    Silent,
    /// The answer comes this much later; other faults still apply.
    Delay(Duration),
    /// The connection is closed after so many bytes of the answer's body.
    CutBodyAfter(u64),
    /// The answer's body at so many bytes a second.
    SlowBody(u64),
    /// The first half of the JSON.
    MalformedJson,
    /// Every string a number, every number a string, every truth value a list.
    WrongTypes,
    /// The whole body with 200, whatever range was asked for.
    IgnoreRange,
    /// A `Content-Range` that starts a byte later than what is sent.
    WrongContentRange,
    /// Another ETag than the object's.
    ChangedEtag,
    /// A body so much longer or shorter than the headers of the range say. Its Content-Length is
    /// that of the body, so that the connection stays in step.
    WrongLength(i64),
    /// No Content-Length: chunks.
    Chunked,
    /// Chunks without an end after the answer's own bytes.
    Endless,
    /// The usual answer; then this asset appears in Runway, so that later pages shift.
    ThenAdd(Box<RunwayAsset>),
    /// The usual answer; then the asset with this id is gone, so that later pages shift.
    ThenRemove(String),
    /// This header, lower-case, in place of the answer's own.
    SetHeader(String, String),
}

/// The body that comes with [`Effect::Status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorBody {
    /// The API's own error shape.
    Json,
    /// A gateway's page.
    Html,
    Xml,
    Empty,
}

impl Effect {
    /// A status with the error body that the host would send.
    pub fn status(status: u16) -> Self {
        Self::Status {
            status,
            body: ErrorBody::Json,
            retry_after: None,
        }
    }

    /// A status with a `Retry-After` of seconds.
    pub fn retry_after(status: u16, seconds: u64) -> Self {
        Self::Status {
            status,
            body: ErrorBody::Json,
            retry_after: Some(seconds.to_string()),
        }
    }

    /// A gateway's HTML error page.
    pub fn html(status: u16) -> Self {
        Self::Status {
            status,
            body: ErrorBody::Html,
            retry_after: None,
        }
    }
}

impl Fault {
    /// Every request at `host`, for ever, until narrowed.
    pub fn at(host: HostKind) -> Self {
        Self {
            host,
            method: None,
            path_part: String::new(),
            skip: 0,
            times: u64::MAX,
            chance: None,
            effect: Effect::DropBeforeAnswer,
            seen: 0,
            hits: 0,
        }
    }

    /// Requests of one method: `GET`, `POST`, `DELETE`.
    pub fn method(mut self, method: &str) -> Self {
        self.method = Method::from_bytes(method.as_bytes()).ok();
        self
    }

    /// Requests whose path or query contains this, as it stands in the request line.
    pub fn path(mut self, part: &str) -> Self {
        self.path_part = part.to_string();
        self
    }

    /// Lets so many matching requests pass first.
    pub fn skip(mut self, requests: u64) -> Self {
        self.skip = requests;
        self
    }

    /// Hits so many requests, then no more.
    pub fn times(mut self, requests: u64) -> Self {
        self.times = requests;
        self
    }

    /// Hits about so many of 1,000 matching requests; the same seed, the same ones.
    pub fn chance(mut self, per_mille: u64, seed: u64) -> Self {
        self.chance = Some((per_mille, seed));
        self
    }

    /// Ends the description with what happens.
    pub fn does(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    fn matches(&self, host: HostKind, method: &Method, path_and_query: &str) -> bool {
        self.host == host
            && self.method.as_ref().is_none_or(|wanted| wanted == method)
            && path_and_query.contains(&self.path_part)
    }

    /// Counts a matching request; whether it is hit.
    fn strikes(&mut self) -> bool {
        self.seen += 1;
        let lucky = self
            .chance
            .is_none_or(|(per_mille, seed)| mix(mix(seed) ^ self.seen) % 1000 < per_mille);
        let hit = self.seen > self.skip && self.hits < self.times && lucky;
        self.hits += u64::from(hit);
        hit
    }
}

/// What the faults decided for one request.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub delay: Duration,
    pub effect: Option<Effect>,
}

#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Sets a fault after those that are set.
    pub fn add(&self, fault: Fault) {
        self.lock().push(fault);
    }

    /// Forgets every fault.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Hits of all faults so far.
    pub fn hits(&self) -> u64 {
        self.lock().iter().map(|fault| fault.hits).sum()
    }

    /// What happens to a request: the effect that decides, and all delays.
    pub fn plan(&self, host: HostKind, method: &Method, path_and_query: &str) -> Plan {
        let mut plan = Plan::default();
        for fault in self.lock().iter_mut() {
            if !fault.matches(host, method, path_and_query) || !fault.strikes() {
                continue;
            }
            match &fault.effect {
                Effect::Delay(delay) => plan.delay += *delay,
                effect => {
                    plan.effect = Some(effect.clone());
                    break;
                }
            }
        }
        plan
    }
}

/// The answer that an effect puts in place of the work, if it is of that kind.
pub(super) fn instead(effect: &Effect, host: HostKind) -> Option<Answer> {
    match effect {
        Effect::Status {
            status,
            body,
            retry_after,
        } => {
            let mut answer = error_answer(*status, *body, host);
            if let Some(retry_after) = retry_after {
                answer.set(header::RETRY_AFTER, retry_after);
            }
            Some(answer)
        }
        Effect::Json(page) => Some(Answer::json(200, page)),
        Effect::Redirect(target) => Some(Answer::empty(302).with(header::LOCATION, target)),
        _ => None,
    }
}

fn error_answer(status: u16, body: ErrorBody, host: HostKind) -> Answer {
    let message = format!("Fault {status} on demand.");
    match (body, host) {
        (ErrorBody::Json, HostKind::Useapi) => Answer::useapi_error(status, &message),
        (ErrorBody::Json, HostKind::Runflow) => Answer::runflow_error(status, "fault", &message),
        (ErrorBody::Json, HostKind::Asset) | (ErrorBody::Xml, _) => {
            Answer::xml(status, "Fault", &message)
        }
        (ErrorBody::Html, _) => Answer::html(status),
        (ErrorBody::Empty, _) => Answer::empty(status),
    }
}

/// Changes an answer that was worked out as an effect says.
pub(super) fn spoil(effect: &Effect, mut answer: Answer) -> Answer {
    match effect {
        Effect::MalformedJson => {
            let mut body = answer.body();
            body.truncate(body.len() / 2);
            return answer.with_body(body);
        }
        Effect::WrongTypes => {
            let page = serde_json::from_slice(&answer.body()).unwrap_or_default();
            return answer.with_body(wrong_types(page).to_string());
        }
        Effect::WrongContentRange => shift_content_range(&mut answer),
        Effect::ChangedEtag => answer.set(header::ETAG, "\"another-revision\""),
        Effect::WrongLength(longer @ 0..) => answer.filler_bytes = longer.unsigned_abs(),
        Effect::WrongLength(shorter) => {
            let end = answer.end.saturating_sub(shorter.unsigned_abs());
            answer.end = end.max(answer.start);
        }
        Effect::Chunked => answer.framing = Framing::Chunked,
        Effect::Endless => {
            answer.framing = Framing::Chunked;
            answer.filler_bytes = u64::MAX / 2;
        }
        Effect::SetHeader(name, value) => {
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                answer.set(name, value);
            }
        }
        _ => {}
    }
    answer
}

fn shift_content_range(answer: &mut Answer) {
    if answer.headers.contains_key(header::CONTENT_RANGE) {
        let (first, last) = (answer.start + 1, answer.end);
        let total = answer.content.len() + 1;
        answer.set(
            header::CONTENT_RANGE,
            &format!("bytes {first}-{last}/{total}"),
        );
    }
}

fn wrong_types(value: Value) -> Value {
    match value {
        Value::Null => Value::Null,
        Value::Bool(_) => json!(["truth"]),
        Value::Number(number) => Value::String(format!("about {number}")),
        Value::String(text) => json!(text.len()),
        Value::Array(items) => items.into_iter().map(wrong_types).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, wrong_types(value)))
            .collect(),
    }
}
