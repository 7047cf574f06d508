//! Secrets as types: what must not be printed can't be, because Debug and Display are redacted.

use std::fmt;
use std::time::{Duration, SystemTime};

use url::Url;

use super::expiry;
use super::origin::{UrlError, UrlPolicy, host_of};

/// An API token. Printed as `[token]`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken(String);

impl ApiToken {
    /// A token as the user gave it, without the white space around it; `None` if nothing is left
    /// or it holds characters that a header can't carry.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty() && text.bytes().all(|b| (0x21..0x7f).contains(&b)))
            .then(|| Self(text.to_string()))
    }

    /// The token itself, for the Authorization header alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[token]")
    }
}

impl fmt::Display for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[token]")
    }
}

/// A URL that is itself a permission. Printed as its scheme and host only.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedUrl {
    url: Url,
    expires_at: Option<SystemTime>,
    policy: UrlPolicy,
}

impl SignedUrl {
    /// Accepts what `policy` allows. `expires_at` is what the API said; where it said nothing, the
    /// time that the URL's own parameters give (`exp` in a `_jwt`, `X-Amz-*`, `X-Goog-*`,
    /// `Expires`) is used.
    pub fn parse(
        text: &str,
        expires_at: Option<SystemTime>,
        policy: &UrlPolicy,
    ) -> Result<Self, UrlError> {
        let url = Url::parse(text).map_err(|_| UrlError::NotAUrl)?;
        policy.check(&url)?;
        let expires_at = expires_at.or_else(|| expiry::of_url(&url));
        Ok(Self {
            url,
            expires_at,
            policy: *policy,
        })
    }

    /// The URL itself, for the request alone.
    pub fn expose(&self) -> &Url {
        &self.url
    }

    /// What allowed the URL, and says where it may lead.
    pub fn policy(&self) -> &UrlPolicy {
        &self.policy
    }

    /// The URL without what may sign it, to be shown; and whether anything was left out, its expiry
    /// told included.
    pub fn place(&self) -> (String, bool) {
        let mut place = self.url.clone();
        place.set_query(None);
        place.set_fragment(None);
        let is_whole = place == self.url && self.expires_at.is_none();
        (place.into(), !is_whole)
    }

    /// Host and port, safe to print.
    pub fn host(&self) -> String {
        host_of(&self.url)
    }

    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }

    /// Whether the URL is known to be useless at `now` or within `margin` after it.
    pub fn expired(&self, now: SystemTime, margin: Duration) -> bool {
        self.expires_at.is_some_and(|at| at <= now + margin)
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/[signed]", self.url.scheme(), self.host())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(api: &str) -> UrlPolicy {
        UrlPolicy::for_api(&Url::parse(api).unwrap())
    }

    #[test]
    fn secrets_print_redacted() {
        let token = ApiToken::new(" user:1-secret ").unwrap();
        assert_eq!(format!("{token} {token:?}"), "[token] [token]");
        let url = SignedUrl::parse(
            "https://cdn.example/a/b.mp4?_jwt=secret",
            None,
            &policy("https://api.useapi.net"),
        )
        .unwrap();
        assert_eq!(format!("{url:?}"), "https://cdn.example/[signed]");
    }
}
