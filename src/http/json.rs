//! Reading JSON as it comes from the services. Pure.
//!
//! Promise: what RFC 8259 allows is read; so are two things that services send all the same: a
//! byte order mark in front, and half of a surrogate pair (`"\ud83c"`), which JavaScript makes of a
//! name that it cuts within an emoji. One such name must not cost a whole listing.

use serde_json::Value;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What stands for half a pair: U+FFFD, as long as the escape it replaces.
const REPLACEMENT: &[u8; ESCAPE_BYTES] = b"\\ufffd";
/// `\ud83c`
const ESCAPE_BYTES: usize = 6;

/// The value, or nothing where this is no JSON.
pub fn parse(body: &[u8]) -> Option<Value> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    serde_json::from_slice(body)
        .or_else(|_| serde_json::from_slice(&with_whole_pairs(body)))
        .ok()
}

/// `text` with each half of a surrogate pair replaced.
fn with_whole_pairs(text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    let mut at = 0;
    while at < text.len() {
        let (here, next) = (
            escaped_unit(&text, at),
            escaped_unit(&text, at + ESCAPE_BYTES),
        );
        at += match (here, next) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 2 * ESCAPE_BYTES,
            (Some(0xd800..=0xdfff), _) => {
                text[at..at + ESCAPE_BYTES].copy_from_slice(REPLACEMENT);
                ESCAPE_BYTES
            }
            (Some(_), _) => ESCAPE_BYTES,
            // Any other escape: its second character begins none.
            (None, _) if text[at] == b'\\' => 2,
            (None, _) => 1,
        };
    }
    text
}

/// The UTF-16 unit that is escaped at `at`.
fn escaped_unit(text: &[u8], at: usize) -> Option<u16> {
    let escape = text.get(at..at + ESCAPE_BYTES)?;
    let digits = escape.strip_prefix(b"\\u")?;
    let digits = std::str::from_utf8(digits).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Option<Value> {
        parse(text.as_bytes())
    }

    #[test]
    fn a_byte_order_mark_in_front_is_passed_over() {
        assert_eq!(read("\u{feff}[1]"), Some(json!([1])));
        assert_eq!(read("[1]\u{feff}"), None);
    }

    #[test]
    fn half_a_surrogate_pair_costs_one_character() {
        for (text, value) in [
            (r#""a\ud83c""#, "a\u{fffd}"),
            (r#""\uDC00b""#, "\u{fffd}b"),
            (r#""\ud83c\ud83c\udfac""#, "\u{fffd}🎬"),
            (r#""\ud83c\u0041""#, "\u{fffd}A"),
            (r#""\ud83c\n\\ud83c""#, "\u{fffd}\n\\ud83c"),
        ] {
            assert_eq!(read(text), Some(json!(value)), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_stays_none() {
        for text in [
            "",
            "<html>",
            "[1",
            r#""\ud8""#,
            r#""\ud83c"#,
            r#""\ud83"#,
            "\\",
            "\\u",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(parse(b"\"\xff\""), None);
    }
}
