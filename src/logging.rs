//! Logging to stderr by `env_logger`, with a last filter that no message passes unredacted.
//!
//! Promise: whatever any crate logs at any level, a token given to [`hide`] is replaced, and what
//! follows the `?` of a URL is cut, because signed URLs carry their permission there. Control
//! characters are escaped, so a name from the web can't forge a line. Secrets are types elsewhere
//! ([`crate::http::secret`]); this is the net below them, for crates that know nothing of ours.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::RwLock;

use crate::http::ApiToken;

/// What `RUST_LOG` defaults to: our own events, and only the troubles of others. fuser warns of what
/// is as it should be: of each operation that is left to the kernel (`isatty` and `poll` ask for one),
/// and of the mount that is gone already when it wants to unmount it, as every mount of ours ends.
const DEFAULT_FILTER: &str = "warn,reelfs=info,fuser=error";

/// Tokens that must not appear in any line.
static HIDDEN: RwLock<Vec<ApiToken>> = RwLock::new(Vec::new());

/// Starts logging to stderr as `RUST_LOG` says. A second call does nothing.
pub fn init() {
    let filter = std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| DEFAULT_FILTER.to_string());
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(&filter).format(|out, record| {
        let style = out.default_level_style(record.level());
        writeln!(
            out,
            "{} {style}{:5}{style:#} {}: {}",
            out.timestamp_millis(),
            record.level(),
            record.target(),
            redact(&record.args().to_string())
        )
    });
    let _ = builder.try_init();
}

/// Replaces `token` in every line from now on.
pub fn hide(token: &ApiToken) {
    HIDDEN
        .write()
        .unwrap_or_else(|e| e.into_inner())
        .push(token.clone());
}

/// `message` as it may be printed.
pub fn redact(message: &str) -> String {
    let mut text = message.to_string();
    for token in HIDDEN.read().unwrap_or_else(|e| e.into_inner()).iter() {
        text = text.replace(token.expose(), "[token]");
    }
    escape_controls(&cut_debug_queries(&cut_queries(&text)))
}

/// Cuts `?name=value...` of anything that looks like a URL or its path, up to white space, a quote
/// or an angle bracket: the characters that a URL's query never holds unescaped.
fn cut_queries(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('?') {
        let (before, after) = (&rest[..=at], &rest[at + 1..]);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '<' | '>' | '`'))
            .unwrap_or(after.len());
        out.push_str(before);
        if end > 0 && (after[..end].contains('=') || in_url(before)) {
            out.push_str("[cut]");
        } else {
            out.push_str(&after[..end]);
        }
        rest = &after[end..];
    }
    out + rest
}

/// Whether the last word of `text` is a URL.
fn in_url(text: &str) -> bool {
    text.rsplit(|c: char| c.is_whitespace() || matches!(c, '"' | '<' | '('))
        .next()
        .is_some_and(|word| word.contains("://"))
}

/// Cuts the query in what `Debug` of `url::Url` prints: `query: Some("...")`.
fn cut_debug_queries(text: &str) -> String {
    const OPEN: &str = "query: Some(\"";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(OPEN) {
        let (before, after) = rest.split_at(at + OPEN.len());
        let end = after.find('"').unwrap_or(after.len());
        out.push_str(before);
        out.push_str("[cut]");
        rest = &after[end..];
    }
    out + rest
}

fn escape_controls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_of_a_url_is_cut_in_every_form_that_crates_print() {
        for (line, printed) in [
            (
                "GET https://cdn.example/a.mp4?_jwt=s3cret, then more",
                "GET https://cdn.example/a.mp4?[cut] then more",
            ),
            (
                "url (https://cdn.example/a?s3cret) failed",
                "url (https://cdn.example/a?[cut] failed",
            ),
            (
                "Request { uri: /a/b?X-Amz-Signature=s3cret&b=1 }",
                "Request { uri: /a/b?[cut] }",
            ),
            (
                r#"Url { path: "/a", query: Some("sig=s3cret"), fragment: None }"#,
                r#"Url { path: "/a", query: Some("[cut]"), fragment: None }"#,
            ),
            (
                "two: http://a/?x=s3cret http://b/?y=s3cret",
                "two: http://a/?[cut] http://b/?[cut]",
            ),
        ] {
            assert_eq!(redact(line), printed);
        }
    }

    #[test]
    fn an_ordinary_question_stays() {
        assert_eq!(redact("what now? (again?) done"), "what now? (again?) done");
    }

    #[test]
    fn a_token_told_to_hide_is_replaced_wherever_it_stands() {
        hide(&ApiToken::new("user:7-hidden").unwrap());
        assert_eq!(
            redact("Bearer user:7-hidden, \"user:7-hidden\""),
            "Bearer [token], \"[token]\""
        );
    }

    #[test]
    fn a_line_break_in_a_message_cannot_forge_a_line() {
        assert_eq!(
            redact("name\n2026 ERROR\u{1b}[2J"),
            "name\\n2026 ERROR\\u{1b}[2J"
        );
    }
}
