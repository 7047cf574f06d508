//! Secrets as types: what must not be printed can't be, because Debug and Display are redacted.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use url::{Host, Url};

use super::expiry;

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
        Ok(Self { url, expires_at })
    }

    /// The URL itself, for the request alone.
    pub fn expose(&self) -> &Url {
        &self.url
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

/// Host and port of a URL, safe to print.
pub fn host_of(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_string(),
        (None, _) => "(no host)".to_string(),
    }
}

/// Which URLs an API may send us to: https to a public host; http and local hosts only where the
/// API itself is reached by http or is local.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UrlPolicy {
    plain_http: bool,
    local_hosts: bool,
}

/// Why a URL is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("it is not a URL")]
    NotAUrl,
    #[error("its scheme is not https")]
    Scheme,
    #[error("it carries a user name or password")]
    Credentials,
    #[error("it points at this machine or its own network segment")]
    LocalHost,
}

impl UrlPolicy {
    /// The policy for what the API at `api_base` answers.
    pub fn for_api(api_base: &Url) -> Self {
        Self {
            plain_http: api_base.scheme() == "http",
            local_hosts: is_local(api_base),
        }
    }

    /// Refuses a URL that must not be asked.
    pub fn check(&self, url: &Url) -> Result<(), UrlError> {
        match url.scheme() {
            "https" => {}
            "http" if self.plain_http => {}
            _ => return Err(UrlError::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlError::Credentials);
        }
        if !self.local_hosts && is_local(url) {
            return Err(UrlError::LocalHost);
        }
        Ok(())
    }
}

fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name.eq_ignore_ascii_case("localhost")
                || name.to_ascii_lowercase().ends_with(".localhost")
        }
        Some(Host::Ipv4(ip)) => is_local_ip(IpAddr::V4(ip)),
        Some(Host::Ipv6(ip)) => is_local_ip(IpAddr::V6(ip)),
        None => true,
    }
}

/// Loopback, link-local and unspecified addresses, also as IPv4 within IPv6.
pub fn is_local_ip(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unicast_link_local()
                || ip
                    .to_ipv4_mapped()
                    .is_some_and(|ip| is_local_ip(IpAddr::V4(ip)))
        }
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

    #[test]
    fn a_public_api_may_name_only_public_https_hosts() {
        let policy = policy("https://api.useapi.net");
        for (url, why) in [
            ("http://cdn.example/a", UrlError::Scheme),
            ("file:///etc/passwd", UrlError::Scheme),
            ("https://me:pw@cdn.example/a", UrlError::Credentials),
            ("https://localhost/a", UrlError::LocalHost),
            ("https://127.0.0.1/a", UrlError::LocalHost),
            ("https://169.254.169.254/latest", UrlError::LocalHost),
            ("https://[::1]/a", UrlError::LocalHost),
            ("https://[::ffff:127.0.0.1]/a", UrlError::LocalHost),
            ("nonsense", UrlError::NotAUrl),
        ] {
            assert_eq!(
                SignedUrl::parse(url, None, &policy).unwrap_err(),
                why,
                "{url}"
            );
        }
    }

    #[test]
    fn a_local_http_api_may_name_local_http_hosts() {
        let policy = policy("http://127.0.0.1:8080");
        assert!(SignedUrl::parse("http://127.0.0.1:9/a?x=1", None, &policy).is_ok());
    }
}
