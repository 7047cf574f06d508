//! What is asked of an API, and its URL. Pure.

use url::Url;

/// One call: `path` below the API's base URL, with its slashes as the page spells them, then `id`
/// as one encoded segment.
#[derive(Debug, Default, Clone)]
pub struct ApiRequest<'a> {
    pub path: &'a str,
    pub id: Option<&'a str>,
    pub query: Vec<(&'a str, String)>,
    /// Names in lower case.
    pub headers: Vec<(&'static str, &'a str)>,
}

impl ApiRequest<'_> {
    /// The request's URL below `base`, whose own path is kept. `None` for an id that a path can't
    /// carry (empty, `.`, `..`), lest a call for one asset becomes a call for all.
    pub fn url(&self, base: &Url) -> Option<Url> {
        let mut path = format!("{}/{}", base.path().trim_end_matches('/'), self.path);
        if let Some(id) = self.id {
            if matches!(id, "" | "." | "..") {
                return None;
            }
            path = format!("{}/{}", path.trim_end_matches('/'), encode(id, b":@"));
        }
        let mut url = base.clone();
        url.set_path(&path);
        let pairs: Vec<String> = self
            .query
            .iter()
            .map(|(name, value)| format!("{name}={}", encode(value, b"")))
            .collect();
        url.set_query((!pairs.is_empty()).then(|| pairs.join("&")).as_deref());
        Some(url)
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters and `also`. Spaces become
/// `%20`, never `+`: every server reads that.
fn encode(text: &str, also: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
