//! What a failed answer says, made fit to print. Pure.
//!
//! Promise: no token and no URL's query leaves here, no control character, at most
//! [`MAX_MESSAGE_CHARS`] characters. An answer that says nothing readable makes an empty text.

use serde_json::Value;

use super::json;
use super::secret::ApiToken;

/// Longest message taken over from a service, in characters.
pub const MAX_MESSAGE_CHARS: usize = 200;

/// What an error envelope says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    pub message: String,
    /// The status that the body itself names, if it is one (400 to 599).
    pub code: Option<u16>,
    /// `retryAfter`, as written.
    pub retry_after: Option<String>,
}

/// Reads the envelopes of the pages: `{"error": string, "code"?: int}` (useapi.net), the same with
/// an object `{message, code, ...}` as `error`, and `{code: string, message, errors}` (Runflow).
/// HTML gives its title; other text itself; bytes that are neither give nothing.
pub fn read_envelope(body: &[u8], token: &ApiToken) -> Envelope {
    match json::parse(body) {
        Some(json) => json_envelope(&json, token),
        None => Envelope {
            message: printable(&text_of(body), token),
            ..Envelope::default()
        },
    }
}

/// The envelope in an answer whose status claims success: an object that has an `error` and
/// nothing of an answer's own. `None` for everything else.
pub fn hidden_error(json: &Value, token: &ApiToken) -> Option<Envelope> {
    let object = json.as_object()?;
    let is_error = object
        .get("error")
        .is_some_and(|e| e.is_string() || e.is_object());
    let only_error = object.keys().all(|key| {
        matches!(
            key.as_str(),
            "error" | "code" | "message" | "errors" | "retryAfter"
        )
    });
    (is_error && only_error).then(|| json_envelope(json, token))
}

fn json_envelope(json: &Value, token: &ApiToken) -> Envelope {
    let error = &json["error"];
    let texts = [
        error,
        &error["message"],
        &json["message"],
        &json["detail"],
        json,
    ];
    let text = texts.iter().find_map(|v| v.as_str()).unwrap_or_default();
    let mut message = text.to_string();
    if let Some(first) = json["errors"].as_array().and_then(|e| e.first()) {
        let detail = first["message"].as_str().or(first.as_str());
        if let Some(detail) = detail.filter(|d| *d != text) {
            message = format!("{message}: {detail}");
        }
    }
    let codes = [&json["code"], &error["code"], &error["status"]];
    let retry_after = [&json["retryAfter"], &error["retryAfter"]]
        .into_iter()
        .find_map(|v| match v {
            Value::String(text) => Some(text.clone()),
            Value::Number(seconds) => Some(seconds.to_string()),
            _ => None,
        });
    Envelope {
        message: printable(&message, token),
        code: codes.iter().find_map(|v| status_of(v)),
        retry_after,
    }
}

fn status_of(value: &Value) -> Option<u16> {
    let code = u16::try_from(value.as_u64()?).ok()?;
    (400..600).contains(&code).then_some(code)
}

/// The title of an HTML page, or the text itself.
fn text_of(body: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(body) else {
        return String::new();
    };
    let lower = text.to_ascii_lowercase();
    if let Some(title) = lower.find("<title>").map(|at| at + "<title>".len()) {
        let end = lower[title..].find('<').map_or(text.len(), |n| title + n);
        return text[title..end].to_string();
    }
    if text.trim_start().starts_with('<') {
        return "an HTML or XML page".to_string();
    }
    text.to_string()
}

/// `text` without secrets and control characters, shortened.
pub fn printable(text: &str, token: &ApiToken) -> String {
    let spaced: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut words = Vec::new();
    let mut after_bearer = false;
    for word in spaced.split_whitespace() {
        words.push(if after_bearer || holds_token(word, token) {
            "[token]".to_string()
        } else {
            without_query(word)
        });
        after_bearer = word.eq_ignore_ascii_case("bearer") || word.ends_with("Bearer");
    }
    shorten(&words.join(" "))
}

/// Whether the token, in whichever spelling, stands in `word`.
pub(super) fn holds_token(word: &str, token: &ApiToken) -> bool {
    let exposed = token.expose();
    word.contains(exposed)
        // A token with a colon is written otherwise only with an escape.
        || ((word.contains('%') || !exposed.contains(':')) && {
            let escaped = exposed.replace(':', "%3A").to_ascii_lowercase();
            word.to_ascii_lowercase().contains(&escaped)
        })
        || looks_like_token(word)
}

/// `user:<number>-<string>` is how useapi.net's tokens look; so do the first parts of Runway's
/// asset ids, which are no secret.
fn looks_like_token(word: &str) -> bool {
    word.match_indices("user:").any(|(at, found)| {
        let rest = &word[at + found.len()..];
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        after.len() < rest.len() && after.starts_with('-') && !after.starts_with("-runwayml:")
    })
}

/// Cuts a URL's or a path's query: what stands after `?` signs it.
fn without_query(word: &str) -> String {
    match word.split_once('?') {
        Some((path, query)) if query.contains('=') || word.contains("://") => format!("{path}?..."),
        _ => word.to_string(),
    }
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= MAX_MESSAGE_CHARS {
        return text.to_string();
    }
    let kept: String = text.chars().take(MAX_MESSAGE_CHARS - 3).collect();
    format!("{kept}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> ApiToken {
        ApiToken::new("user:12-AbCdEf").unwrap()
    }

    fn envelope(body: &str) -> Envelope {
        read_envelope(body.as_bytes(), &token())
    }

    #[test]
    fn the_pages_envelopes_are_read() {
        let read = envelope(r#"{ "error": "<Error message>", "code": 400 }"#);
        assert_eq!(
            (read.message.as_str(), read.code),
            ("<Error message>", Some(400))
        );
        let read = envelope(r#"{"error":{"code":429,"message":"slow down","status":"X"}}"#);
        assert_eq!((read.message.as_str(), read.code), ("slow down", Some(429)));
        let read =
            envelope(r#"{"code":"not_found","message":"No asset","errors":[{"message":"id"}]}"#);
        assert_eq!((read.message.as_str(), read.code), ("No asset: id", None));
        assert_eq!(
            envelope(r#"{"error":"x","retryAfter":"2024-08-01T00:00:30Z"}"#)
                .retry_after
                .as_deref(),
            Some("2024-08-01T00:00:30Z")
        );
    }

    #[test]
    fn html_gives_its_title_and_nothing_gives_nothing() {
        let html = "<html><head><TITLE>502 Bad\nGateway</TITLE></head><body>x</body>";
        assert_eq!(envelope(html).message, "502 Bad Gateway");
        assert_eq!(
            envelope("<Error><Code>A</Code></Error>").message,
            "an HTML or XML page"
        );
        assert_eq!(envelope("").message, "");
        assert_eq!(read_envelope(&[0xff, 0xfe], &token()).message, "");
        assert_eq!(envelope("null"), Envelope::default());
        assert_eq!(envelope("[1]"), Envelope::default());
    }

    #[test]
    fn tokens_and_queries_are_taken_out() {
        let said = envelope(
            r#"{"error":"bad token user:12-AbCdEf (Bearer abc) user:7-x, user%3a12-AbCdEf https://h.example/a?sig=1 /b?_jwt=2 what?"}"#,
        );
        assert_eq!(
            said.message,
            "bad token [token] (Bearer [token] [token] [token] https://h.example/a?... /b?... what?"
        );
    }

    #[test]
    fn runways_asset_ids_stay_readable() {
        let id = "user:12-runwayml:a@b.example-asset:77";
        assert_eq!(printable(id, &token()), id);
    }

    #[test]
    fn messages_are_short_and_without_control_characters() {
        let long = printable(&format!("a\u{1b}[31m\r\nb{}", "é".repeat(500)), &token());
        assert_eq!(long.chars().count(), MAX_MESSAGE_CHARS);
        assert!(!long.chars().any(char::is_control));
        assert!(long.ends_with("..."));
    }

    #[test]
    fn an_error_within_a_success_is_found_and_an_asset_is_not_taken_for_one() {
        let hidden = |body: &str| hidden_error(&serde_json::from_str(body).unwrap(), &token());
        assert_eq!(
            hidden(r#"{"error":"Unauthorized","code":401}"#)
                .unwrap()
                .code,
            Some(401)
        );
        assert!(hidden(r#"{"error":null}"#).is_none());
        assert!(hidden(r#"{"id":"1","error":"old"}"#).is_none());
        assert!(hidden("[]").is_none());
    }
}
