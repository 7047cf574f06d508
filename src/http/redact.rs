//! A service's record made fit to show: as it came, without what opens anything. Pure.
//!
//! Promise: no token, no URL's query, fragment, user name or password leaves here, nor the text of
//! a field whose name says that it is a secret. What stands for it is `...` or `[redacted]`. When in
//! doubt a text is cut: a record that lacks a harmless `?a=b` is still a record.

use std::borrow::Cow;

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

/// What ends a URL within a text: none of these stands in one unencoded.
const SEPARATORS: [char; 8] = [' ', '\n', '\t', '\r', '"', '<', '>', '`'];

/// The record as JSON of `most_bytes` at most; `None` for one that is longer.
pub fn record(record: &Value, token: &ApiToken, most_bytes: usize) -> Option<Box<str>> {
    let text = serde_json::to_string(&Redacted(record, token)).ok()?;
    (text.len() <= most_bytes).then(|| text.into_boxed_str())
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
    let mut name = name.replace(['-', '_'], "");
    name.make_ascii_lowercase();
    SECRET_NAMES.iter().any(|word| name.contains(word))
}

/// `said` without secrets; white space and everything else as it was.
pub fn text<'a>(said: &'a str, token: &ApiToken) -> Cow<'a, str> {
    // Most texts hold nothing that could be one.
    let words = ["eyJ", "user:", token.expose()];
    let is_odd = said
        .bytes()
        .any(|byte| matches!(byte, b'?' | b'#' | b'@' | b'=' | b'%'));
    if !is_odd && !words.iter().any(|word| said.contains(word)) {
        return Cow::Borrowed(said);
    }
    // Most of the others are one URL.
    if !SEPARATORS.iter().any(|separator| said.contains(*separator)) {
        return one_word(said, token);
    }
    let mut shown = String::with_capacity(said.len());
    for part in said.split_inclusive(SEPARATORS) {
        let word = part.trim_end_matches(SEPARATORS);
        shown.push_str(&one_word(word, token));
        shown.push_str(&part[word.len()..]);
    }
    Cow::Owned(shown)
}

fn one_word<'a>(word: &'a str, token: &ApiToken) -> Cow<'a, str> {
    let (place, query) = word.split_at(end_of_place(word));
    let is_url = is_url(place);
    // Else a question, and no path with its query.
    let is_cut = !query.is_empty() && (is_url || query.contains('='));
    let place = if is_cut { place } else { word };
    if holds_token(place, token) {
        return Cow::Borrowed("[token]");
    }
    let signs = place.contains('=') && {
        let lower = place.to_ascii_lowercase();
        SIGNING_PARAMETERS.iter().any(|sign| lower.contains(sign))
    };
    if signs || place.starts_with("eyJ") && place.contains('.') {
        return Cow::Borrowed(REDACTED);
    }
    let place = match is_url {
        true => without_credentials(place),
        false => Cow::Borrowed(place),
    };
    match is_cut {
        true => Cow::Owned(format!("{place}?...")),
        false => place,
    }
}

/// Where a query or a fragment begins, also an encoded one.
fn end_of_place(word: &str) -> usize {
    let plain = word.find('?').into_iter().chain(word.find('#'));
    let mut encoded = word.match_indices('%').map(|(at, _)| at);
    let begins = |at: &usize| {
        let digits = word.as_bytes().get(at + 1..at + 3);
        matches!(digits, Some(b"3f" | b"3F" | b"23"))
    };
    let first = encoded.find(begins);
    plain.chain(first).min().unwrap_or(word.len())
}

/// `https://h`, `//h`, or one within another.
fn is_url(place: &str) -> bool {
    place.contains("://")
        || place.starts_with("//")
        || place.to_ascii_lowercase().contains("%3a%2f%2f")
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
