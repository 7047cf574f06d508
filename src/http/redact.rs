//! A service's record made fit to show: as it came, without what opens anything. Pure.
//!
//! Promise: no token, no URL's query, fragment, user name or password leaves here, nor the text of
//! a field whose name says that it is a secret. What stands for it is `...` or `[redacted]`. When in
//! doubt a text is cut: a record that lacks a harmless `?a=b` is still a record.

use std::borrow::Cow;
use std::io;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Value;

use super::message::holds_token;
use super::secret::ApiToken;

/// What stands for a text that is a secret as a whole.
const REDACTED: &str = "[redacted]";

/// In the names of fields that hold secrets, without dashes and underscores.
const SECRET_NAMES: [&str; 9] = [
    "token",
    "secret",
    "password",
    "signature",
    "authorization",
    "cookie",
    "credential",
    "apikey",
    "jwt",
];

/// Parameters that sign, in lower case: a query without its URL.
const SIGNING_PARAMETERS: [&str; 5] = ["signature=", "_jwt=", "token=", "credential=", "policy="];

/// The record as JSON of `most_bytes` at most; `None` for one that is longer.
pub fn record(record: &Value, token: &ApiToken, most_bytes: usize) -> Option<Box<str>> {
    let mut text = Bounded {
        bytes: Vec::with_capacity(most_bytes.min(1024)),
        most_bytes,
    };
    serde_json::to_writer(&mut text, &Redacted(record, token)).ok()?;
    Some(String::from_utf8(text.bytes).ok()?.into_boxed_str())
}

/// Takes so many bytes and no more.
struct Bounded {
    bytes: Vec<u8>,
    most_bytes: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + piece.len() > self.most_bytes {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Serializes a value without its secrets, and without a copy of it.
struct Redacted<'a>(&'a Value, &'a ApiToken);

impl Serialize for Redacted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Redacted(value, token) = self;
        match value {
            Value::String(said) => serializer.serialize_str(&text(said, token)),
            Value::Array(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(&Redacted(item, token))?;
                }
                list.end()
            }
            Value::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    let shown = text(name, token);
                    match value {
                        Value::String(said) if !said.is_empty() && names_a_secret(name) => {
                            map.serialize_entry(&*shown, REDACTED)?;
                        }
                        _ => map.serialize_entry(&*shown, &Redacted(value, token))?,
                    }
                }
                map.end()
            }
            plain => plain.serialize(serializer),
        }
    }
}

fn names_a_secret(name: &str) -> bool {
    let name: String = name
        .chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .map(|c| c.to_ascii_lowercase())
        .collect();
    SECRET_NAMES.iter().any(|word| name.contains(word))
}

/// `said` without secrets; white space and everything else as it was.
pub fn text<'a>(said: &'a str, token: &ApiToken) -> Cow<'a, str> {
    // Most texts hold nothing that could be one.
    let suspicious = ["?", "#", "@", "=", "%3", "eyJ", "user:", token.expose()];
    if !suspicious.iter().any(|sign| said.contains(sign)) {
        return Cow::Borrowed(said);
    }
    let mut shown = String::with_capacity(said.len());
    let mut rest = said;
    while !rest.is_empty() {
        // None of these stands in a URL unencoded.
        let end = rest.find(|c: char| c.is_whitespace() || "\"<>`".contains(c));
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        shown.push_str(&one_word(word, token));
        let separator = after.chars().next().map_or(0, char::len_utf8);
        shown.push_str(&after[..separator]);
        rest = &after[separator..];
    }
    Cow::Owned(shown)
}

fn one_word<'a>(word: &'a str, token: &ApiToken) -> Cow<'a, str> {
    if holds_token(word, token) {
        return Cow::Borrowed("[token]");
    }
    let lower = word.to_ascii_lowercase();
    let is_url = lower.contains("://") || lower.starts_with("//") || lower.contains("%3a%2f%2f");
    let ends = ["?", "#", "%3f", "%23"];
    let query = ends.iter().filter_map(|end| lower.find(end)).min();
    let (place, query) = match query {
        // A question, or a path with its query.
        Some(at) if is_url || word[at..].contains('=') => (&word[..at], "?..."),
        _ => (word, ""),
    };
    let lower = &lower[..place.len()];
    let signs = SIGNING_PARAMETERS.iter().any(|sign| lower.contains(sign));
    if signs || place.starts_with("eyJ") && place.contains('.') {
        return Cow::Borrowed(REDACTED);
    }
    let place = match is_url {
        true => without_credentials(place),
        false => Cow::Borrowed(place),
    };
    match query {
        "" => place,
        _ => Cow::Owned(format!("{place}{query}")),
    }
}

/// `https://me:word@host/path` without `me:word`.
fn without_credentials(place: &str) -> Cow<'_, str> {
    let Some(start) = place.find("//").map(|at| at + 2) else {
        return Cow::Borrowed(place);
    };
    let end = place[start..].find('/').map_or(place.len(), |n| start + n);
    match place[start..end].rfind('@') {
        Some(at) => Cow::Owned(format!("{}...{}", &place[..start], &place[start + at..])),
        None => Cow::Borrowed(place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn token() -> ApiToken {
        ApiToken::new("user:12-AbCdEf").unwrap()
    }

    fn shown(said: &str) -> String {
        text(said, &token()).into_owned()
    }

    #[test]
    fn what_signs_a_url_is_cut_wherever_it_stands() {
        for (said, expected) in [
            ("https://h/a.mp4?_jwt=x.y.z", "https://h/a.mp4?..."),
            ("https://h/a#frag", "https://h/a?..."),
            ("HTTPS://me:pw@h:1/a@b", "HTTPS://...@h:1/a@b"),
            (
                "see https://h/a?s=1, or //h/b?s",
                "see https://h/a?... or //h/b?...",
            ),
            (
                "{\"u\":\"https://h/a?s=1\",\"n\":2}",
                "{\"u\":\"https://h/a?...\",\"n\":2}",
            ),
            ("/b?X-Amz-Signature=2", "/b?..."),
            (
                "https://p/https%3A%2F%2Fh%2Fa%3Fs%3D1",
                "https://p/https%3A%2F%2Fh%2Fa?...",
            ),
            ("X-Goog-Date=1&X-Goog-Signature=abc", "[redacted]"),
            ("eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.sig", "[redacted]"),
            ("by user:12-AbCdEf", "by [token]"),
        ] {
            assert_eq!(shown(said), expected, "{said}");
        }
    }

    #[test]
    fn what_is_no_secret_stays_to_the_letter() {
        for said in [
            "",
            "Why? Because,  twice  the space\n= fun #1 @ 5 %3",
            "https://cdn.example/a/b%20c.png",
            "user:12-runwayml:a@b.example-task:77",
            "email:a@b.example:7a34-type:video",
            "Ünï 映像 🎬?",
        ] {
            assert_eq!(shown(said), said);
        }
    }

    #[test]
    fn a_record_is_whole_json_without_its_secrets() {
        let said = json!({
            "id": 7, "name": "a \"b\"", "url": "https://h/a?sig=1", "metadata": null,
            "previewUrls": ["https://h/p?sig=2", 5], "session_token": "abc", "tokensUsed": 3,
            "deep": {"apiKey": "k", "again": [{"https://h/?sig=3": true}]},
        });
        let text = record(&said, &token(), 4096).unwrap();
        assert!(!text.contains("sig"), "{text}");
        let read: Value = serde_json::from_str(&text).unwrap();
        let expected = json!({
            "id": 7, "name": "a \"b\"", "url": "https://h/a?...", "metadata": null,
            "previewUrls": ["https://h/p?...", 5], "session_token": "[redacted]", "tokensUsed": 3,
            "deep": {"apiKey": "[redacted]", "again": [{"https://h/?...": true}]},
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn a_record_that_is_too_long_is_none_and_never_a_part() {
        let said = json!({"name": "x".repeat(100)});
        let whole = said.to_string();
        assert_eq!(
            record(&said, &token(), whole.len()).as_deref(),
            Some(&*whole)
        );
        assert_eq!(record(&said, &token(), whole.len() - 1), None);
    }
}
