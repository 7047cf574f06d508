//! A request as the API pages see it: whole, and away from the connection it came by.

use std::borrow::Cow;

use bytes::Bytes;
use hyper::Method;
use hyper::header::{self, AsHeaderName, HeaderMap};

use super::answer::Answer;

#[derive(Debug)]
pub(super) struct ApiRequest {
    pub method: Method,
    /// As it stood in the request line.
    pub path: String,
    /// Without the `?`; empty where there is none.
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl ApiRequest {
    /// `None` where the header is missing or isn't text.
    pub fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The token after `Bearer `.
    pub fn bearer(&self) -> Option<&str> {
        self.header(header::AUTHORIZATION)?.strip_prefix("Bearer ")
    }
}

/// 405 with what is allowed, in useapi.net's error envelope.
pub(super) fn wrong_method(allowed: &[Method]) -> Answer {
    let allowed: Vec<&str> = allowed.iter().map(Method::as_str).collect();
    Answer::useapi_error(405, "Method not allowed.").with(header::ALLOW, &allowed.join(", "))
}

/// `%40` is `@`; an escape that isn't one stays.
pub(super) fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    // A form's `+` is a space; a path's isn't.
    let form = format!("={}", text.replace('+', "%2B").replace('&', "%26"));
    let decoded = url::form_urlencoded::parse(form.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned());
    Cow::Owned(decoded.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_segment_is_decoded_to_the_letter() {
        assert_eq!(
            percent_decoded("user%3A1-a%40b+c=d&e%2Ff"),
            "user:1-a@b+c=d&e/f"
        );
        assert_eq!(percent_decoded("100%"), "100%");
    }
}
