//! Answers before they are sent: status, headers and a part of some content; and the error
//! shapes of the three APIs and the asset hosts.

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::content::Content;

/// What will be sent, as data, so that faults can change it.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub content: Content,
    /// The part of `content` that is the body.
    pub start: u64,
    pub end: u64,
    /// Bytes of filler after the part, for an answer longer than it should be.
    pub filler_bytes: u64,
    pub framing: Framing,
}

/// How the body's length is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    ContentLength,
    Chunked,
}

/// A refusal in the words of useapi.net's envelope.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub status: u16,
    pub message: String,
}

impl Refused {
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }
}

/// Of a parameter that is not as the page says.
impl From<String> for Refused {
    fn from(message: String) -> Self {
        Self::new(400, message)
    }
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Self {
        Answer::useapi_error(refused.status, &refused.message)
    }
}

impl Answer {
    /// An answer with this body.
    pub fn of(status: u16, content_type: &str, content: Content) -> Self {
        let mut answer = Self {
            status,
            headers: HeaderMap::new(),
            start: 0,
            end: content.len(),
            content,
            filler_bytes: 0,
            framing: Framing::ContentLength,
        };
        answer.set(header::CONTENT_TYPE, content_type);
        answer
    }

    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        let mut answer = Self::of(status, "", Content::stored(Bytes::new()));
        answer.headers.clear();
        answer
    }

    /// An answer of JSON.
    pub fn json(status: u16, page: &Value) -> Self {
        let content = Content::stored(page.to_string());
        Self::of(status, "application/json; charset=utf-8", content)
    }

    /// A gateway's error page.
    pub fn html(status: u16) -> Self {
        let page = format!(
            "<!DOCTYPE html>\n<html><head><title>{status}</title></head>\
             <body><h1>Error {status}</h1><p>The origin did not answer.</p></body></html>\n"
        );
        Self::of(status, "text/html; charset=UTF-8", Content::stored(page))
    }

    /// The error document of Google Cloud Storage and of S3's kin.
    pub fn xml(status: u16, code: &str, message: &str) -> Self {
        let page = format!(
            "<?xml version='1.0' encoding='UTF-8'?>\
             <Error><Code>{code}</Code><Message>{message}</Message></Error>"
        );
        Self::of(
            status,
            "application/xml; charset=UTF-8",
            Content::stored(page),
        )
    }

    /// useapi.net's error envelope.
    pub fn useapi_error(status: u16, message: &str) -> Self {
        Self::json(status, &json!({"error": message, "code": status}))
    }

    /// Runflow's error shape, without an error of a single field.
    pub fn runflow_error(status: u16, code: &str, message: &str) -> Self {
        Self::runflow_invalid(status, code, message, Value::Null)
    }

    /// Runflow's error shape; `errors` says which field is wrong.
    pub fn runflow_invalid(status: u16, code: &str, message: &str, errors: Value) -> Self {
        let page = json!({"code": code, "message": message, "errors": errors});
        Self::json(status, &page)
    }

    /// Ignores a value that can't stand in a header.
    pub fn set(&mut self, name: HeaderName, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
    }

    /// The same answer with one more header.
    pub fn with(mut self, name: HeaderName, value: &str) -> Self {
        self.set(name, value);
        self
    }

    pub fn body_bytes(&self) -> u64 {
        self.end - self.start + self.filler_bytes
    }

    /// The whole body, for answers of an API.
    pub fn body(&self) -> Vec<u8> {
        self.content.read(self.start, self.end)
    }

    /// The same answer with another body.
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.content = Content::stored(body);
        (self.start, self.end) = (0, self.content.len());
        self
    }
}
