//! How fields of the services' answers are read: a field of a wrong type counts as missing, so
//! that one odd asset does not cost a whole listing.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Library, ProviderError};
use crate::http::origin::UrlError;
use crate::http::{SignedUrl, UrlPolicy};
use crate::timestamp::{from_epoch_ms, parse_rfc3339};

/// Any type, or missing where it isn't of this type.
pub fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    Ok(T::deserialize(Value::deserialize(deserializer)?).ok())
}

/// A text that says something.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text: Option<String> = lenient(deserializer)?;
    Ok(text.filter(|text| !text.trim().is_empty()))
}

/// A size in bytes: an integer in `0..=i64::MAX`, which is what a file's size may be.
pub fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let size: Option<u64> = lenient(deserializer)?;
    Ok(size.filter(|size| i64::try_from(*size).is_ok()))
}

/// Whether a size says something: 0 stands for one that the service doesn't know yet, since it
/// takes no empty files. The asset host knows.
pub fn is_told(size_bytes: &u64) -> bool {
    *size_bytes > 0
}

/// A number of something that is measured: finite, not negative.
pub fn measure<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let number: Option<f64> = lenient(deserializer)?;
    Ok(number.filter(|number| number.is_finite() && *number >= 0.0))
}

/// Pixels: a whole number above 0, also where it is written as `1280.0`.
pub fn pixels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(pixels_of(&Value::deserialize(deserializer)?))
}

/// As [`pixels`], of a value.
pub fn pixels_of(value: &Value) -> Option<u64> {
    let whole =
        |number: f64| number.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(&number);
    let number = value.as_f64().filter(|number| whole(*number))?;
    Some(number as u64)
}

/// RFC 3339, or milliseconds since 1970 as a number.
pub fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => parse_rfc3339(&text),
        Value::Number(ms) => ms.as_u64().and_then(from_epoch_ms),
        _ => None,
    })
}

/// Milliseconds since 1970, as a string of digits or a number.
pub fn epoch_ms<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SystemTime>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text.trim().parse().ok().and_then(from_epoch_ms),
        Value::Number(ms) => ms.as_u64().and_then(from_epoch_ms),
        _ => None,
    })
}

/// Assets taken from one page, of which 50 are asked for: a service that ignores the limit may give a
/// whole library at once, but not fill the memory.
const MOST_ON_A_PAGE: usize = 10_000;

/// The objects of a page's array, each read by `read`; an array that holds anything else is no
/// page.
pub fn objects<T>(
    items: Value,
    read: impl Fn(Value) -> Result<T, ProviderError>,
) -> Result<Vec<T>, ProviderError> {
    let Value::Array(items) = items else {
        return Err(ProviderError::Malformed(
            "a page that isn't a list of assets".into(),
        ));
    };
    if items.len() > MOST_ON_A_PAGE {
        return Err(ProviderError::Malformed(format!(
            "a page of {} assets",
            items.len()
        )));
    }
    items.into_iter().map(read).collect()
}

/// An odd asset is left out; a page of nothing else is in a format that isn't the known one, and
/// must not be taken for an empty library.
pub fn check_readable(items: usize, readable: usize) -> Result<(), ProviderError> {
    match items > 0 && readable == 0 {
        true => Err(ProviderError::Malformed(
            "a page of assets of which none can be told from others".into(),
        )),
        false => Ok(()),
    }
}

/// One object.
pub fn object<T: serde::de::DeserializeOwned>(item: Value) -> Result<T, ProviderError> {
    let unreadable = || ProviderError::Malformed("an asset that isn't an object".into());
    if !item.is_object() {
        return Err(unreadable());
    }
    T::deserialize(item).map_err(|_| unreadable())
}

/// Host and path: what stays of a URL when it is signed anew.
pub fn place_of(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    Some(format!("{}{}", url.host_str()?, url.path()))
}

/// What was odd about the assets of one listing; said once a listing, not once an asset.
#[derive(Debug, Default)]
pub struct Oddities {
    without_identity: usize,
    bad_urls: usize,
    last_bad_url: Option<UrlError>,
}

impl Oddities {
    /// Counts an asset that can't be told from others.
    pub fn without_identity(&mut self) {
        self.without_identity += 1;
    }

    /// The URL, where the policy allows it.
    pub fn url(
        &mut self,
        text: Option<&str>,
        expires_at: Option<SystemTime>,
        policy: &UrlPolicy,
    ) -> Option<SignedUrl> {
        self.allowed(Some(SignedUrl::parse(text?, expires_at, policy)))
    }

    /// The URL that was parsed already, where the policy allowed it.
    pub fn allowed(&mut self, parsed: Option<Result<SignedUrl, UrlError>>) -> Option<SignedUrl> {
        match parsed? {
            Ok(url) => Some(url),
            Err(why) => {
                self.bad_urls += 1;
                self.last_bad_url = Some(why);
                None
            }
        }
    }

    /// Tells the log what was odd, once.
    pub fn warn(&self, library: Library, told: &Told) {
        if self.without_identity > 0 {
            told.warn_once(format!(
                "{library}: {} asset(s) without any id are not shown",
                self.without_identity
            ));
        }
        if let Some(why) = self.last_bad_url {
            told.warn_once(format!(
                "{library}: {} asset(s) have a URL that is not used: {why}",
                self.bad_urls
            ));
        }
    }
}

/// What the log was told already: a listing is made every half minute, its oddities stay the same.
/// One lock, held for no I/O.
#[derive(Debug, Default)]
pub struct Told(Mutex<BTreeSet<String>>);

/// Texts remembered; then further ones are kept out of the log.
const MOST_TOLD: usize = 1_000;

impl Told {
    /// Logs a warning, the first time only. Returns whether it did.
    pub fn warn_once(&self, text: String) -> bool {
        let mut told = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if told.len() >= MOST_TOLD || told.contains(&text) {
            return false;
        }
        log::warn!("{text}");
        told.insert(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sized(value: Value) -> Option<u64> {
        size(value).unwrap()
    }

    #[test]
    fn only_a_whole_number_that_a_file_may_have_is_a_size() {
        assert_eq!(sized(json!(0)), Some(0));
        assert_eq!(sized(json!(i64::MAX)), Some(i64::MAX as u64));
        for odd in [
            json!(u64::MAX),
            json!(-1),
            json!(1.5),
            json!("12"),
            json!(null),
            json!({}),
        ] {
            assert_eq!(sized(odd.clone()), None, "{odd}");
        }
    }

    #[test]
    fn times_are_text_or_milliseconds() {
        let at = |value| time(value).unwrap();
        assert_eq!(
            at(json!("2024-08-01T01:02:03.456Z")),
            from_epoch_ms(1_722_474_123_456)
        );
        assert_eq!(
            at(json!(1_722_474_123_456u64)),
            from_epoch_ms(1_722_474_123_456)
        );
        assert_eq!(at(json!("soon")), None);
        assert_eq!(at(json!([])), None);
        assert_eq!(
            epoch_ms(json!("1748919477350")).unwrap(),
            from_epoch_ms(1_748_919_477_350)
        );
        assert_eq!(epoch_ms(json!("-1")).unwrap(), None);
    }

    #[test]
    fn a_url_that_is_not_allowed_is_left_out_and_counted() {
        let policy = UrlPolicy::for_api(&"https://api.example".parse().unwrap());
        let mut odd = Oddities::default();
        assert!(
            odd.url(Some("https://cdn.example/a?s=1"), None, &policy)
                .is_some()
        );
        assert!(
            odd.url(Some("http://127.0.0.1/a?s=1"), None, &policy)
                .is_none()
        );
        assert!(odd.url(None, None, &policy).is_none());
        assert_eq!(odd.bad_urls, 1);
    }

    #[test]
    fn the_log_is_told_once() {
        let told = Told::default();
        assert!(told.warn_once("a".into()));
        assert!(!told.warn_once("a".into()));
        assert!(told.warn_once("b".into()));
    }
}
