//! Which hosts the answer of an API may lead us to. A service that is broken into must not make a
//! user's machine ask its own router, its cloud's metadata address or a neighbour on its network.
//!
//! Promises: a URL is checked before it is used ([`UrlPolicy::check`], which every
//! [`super::SignedUrl`] has passed), and the addresses that a host's name stands for are checked
//! when it is connected to ([`PublicResolver`]), so that a name can't hide an address, nor change
//! its meaning between check and use. Redirects stay within the origin (`http::asset`). Where the
//! API itself is on such an address (the emulator, a gateway of one's own), local hosts are allowed.
//! A proxy is what its user configured, wherever it is.
//!
//! How it fails: with a [`UrlError`] that names the reason and nothing of the URL, or as a
//! connection that can't be made.

use std::env;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use url::{Host, Url};

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
    #[error("it points at this machine or a private network")]
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

    /// Whether names may stand for local addresses too.
    pub fn allows_local_hosts(&self) -> bool {
        self.local_hosts
    }
}

/// Endings of names that mean something within one network only.
const LOCAL_DOMAINS: [&str; 5] = ["localhost", "local", "internal", "lan", "home.arpa"];

/// Whether the host is an address that isn't public, or a name that can't be. `url` has read
/// decimal, hexadecimal and octal forms of an address already: they come as [`Host::Ipv4`].
fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => is_local_name(name),
        Some(Host::Ipv4(ip)) => is_local_ip(IpAddr::V4(ip)),
        Some(Host::Ipv6(ip)) => is_local_ip(IpAddr::V6(ip)),
        None => true,
    }
}

fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let below = |domain: &&str| name.strip_suffix(*domain).is_some_and(|n| n.ends_with('.'));
    !name.contains('.') || LOCAL_DOMAINS.iter().any(below)
}

/// Whether an address is not one of the public internet's hosts: loopback, link-local, private,
/// shared (RFC 6598), unspecified, multicast and broadcast ones, also where an IPv6 address holds
/// such an IPv4 one.
pub fn is_local_ip(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_local_v4(ip),
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
                || ip.is_unique_local()
                // fec0::/10, the site-local addresses of old.
                || ip.segments()[0] & 0xffc0 == 0xfec0
                || v4_within(ip).is_some_and(is_local_v4)
        }
    }
}

fn is_local_v4(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    first == 0
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_private()
        || ip.is_multicast()
        || ip.is_broadcast()
        // 100.64.0.0/10, what a provider puts between its customers and the internet.
        || (first == 100 && second & 0xc0 == 64)
}

/// The IPv4 address that an IPv6 one leads to: mapped and compatible (RFC 4291), NAT64 (RFC 6052),
/// 6to4 (RFC 3056).
fn v4_within(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => Some(of(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(of(high, low)),
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

/// The system's resolver without the addresses that aren't public. A name that has no other is one
/// that can't be connected to.
pub struct PublicResolver {
    /// Names of the user's own proxies: what is connected to there is not the API's choice.
    proxies: Arc<[String]>,
}

/// Where reqwest looks for proxies, too.
const PROXY_VARIABLES: [&str; 6] = [
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
];

impl PublicResolver {
    /// Looks once at which proxies the environment names.
    pub fn new() -> Self {
        let proxies = PROXY_VARIABLES
            .iter()
            .filter_map(|variable| env::var(variable).ok())
            .filter_map(|text| proxy_host(&text))
            .collect();
        Self { proxies }
    }

    /// The addresses that `name` may be connected to at.
    pub async fn resolve(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        let found = tokio::net::lookup_host((name, 0)).await?;
        let addresses = match self.proxies.contains(&name.to_ascii_lowercase()) {
            true => found.collect(),
            false => public_only(found),
        };
        if addresses.is_empty() {
            let refused = "its name stands for an address of this machine or a private network";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, refused));
        }
        Ok(addresses)
    }
}

impl Default for PublicResolver {
    fn default() -> Self {
        Self::new()
    }
}

fn proxy_host(text: &str) -> Option<String> {
    let url = Url::parse(text).ok().filter(Url::has_host);
    let url = url.or_else(|| Url::parse(&format!("http://{text}")).ok())?;
    Some(url.host_str()?.to_ascii_lowercase())
}

fn public_only(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    found.filter(|at| !is_local_ip(at.ip())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::SignedUrl;

    fn policy(api: &str) -> UrlPolicy {
        UrlPolicy::for_api(&Url::parse(api).unwrap())
    }

    fn refusal(url: &str) -> Option<UrlError> {
        SignedUrl::parse(url, None, &policy("https://api.useapi.net")).err()
    }

    #[test]
    fn a_public_api_may_name_only_public_https_hosts() {
        for (url, why) in [
            ("http://cdn.example/a", UrlError::Scheme),
            ("file:///etc/passwd", UrlError::Scheme),
            ("ftp://cdn.example/a", UrlError::Scheme),
            ("javascript:alert(1)", UrlError::Scheme),
            ("data:text/plain,x", UrlError::Scheme),
            ("https://me:pw@cdn.example/a", UrlError::Credentials),
            ("https://me@cdn.example/a", UrlError::Credentials),
            ("nonsense", UrlError::NotAUrl),
            ("//cdn.example/a", UrlError::NotAUrl),
            ("https://", UrlError::NotAUrl),
            ("https://999.1.1.1/", UrlError::NotAUrl),
        ] {
            assert_eq!(refusal(url), Some(why), "{url}");
        }
        assert_eq!(refusal("https://cdn.example/a?sig=1"), None);
        assert_eq!(refusal("https://93.184.216.34/a"), None);
        assert_eq!(refusal("https://[2606:2800:220:1::1]/a"), None);
    }

    #[test]
    fn no_spelling_of_a_local_address_passes() {
        for host in [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "router",
            "printer.local",
            "metadata.google.internal",
            "nas.lan",
            "box.home.arpa",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "0.0.0.0",
            "0",
            "169.254.169.254",
            "2852039166",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "[::]",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "[::7f00:1]",
            "[64:ff9b::10.0.0.1]",
            "[2002:7f00:1::]",
            "[fe80::1]",
            "[fec0::1]",
            "[fd00::1]",
            "[ff02::1]",
            "１２７.0.0.1",
        ] {
            let url = format!("https://{host}/latest/meta-data");
            assert_eq!(refusal(&url), Some(UrlError::LocalHost), "{url}");
        }
    }

    #[test]
    fn a_local_http_api_may_name_local_http_hosts() {
        for api in ["http://127.0.0.1:8080", "http://studio.lan", "http://[::1]"] {
            let policy = policy(api);
            assert!(SignedUrl::parse("http://127.0.0.1:9/a?x=1", None, &policy).is_ok());
            assert!(SignedUrl::parse("file:///etc/passwd", None, &policy).is_err());
        }
    }

    #[test]
    fn addresses_behind_a_name_are_held_to_the_same_rule() {
        let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 0);
        let found = ["127.0.0.1", "93.184.216.34", "169.254.169.254", "::1"].map(at);
        assert_eq!(public_only(found.into_iter()), [at("93.184.216.34")]);
    }

    #[test]
    fn the_users_own_proxy_is_known_by_its_name() {
        for text in [
            "http://proxy.corp:3128",
            "proxy.corp:3128",
            "Proxy.corp",
            "socks5://u:p@proxy.corp",
        ] {
            assert_eq!(proxy_host(text).as_deref(), Some("proxy.corp"), "{text}");
        }
        assert_eq!(proxy_host(""), None);
    }

    #[test]
    fn a_name_that_stands_for_this_machine_is_not_connected_to() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let name = "localhost";
        let resolver = PublicResolver {
            proxies: Arc::from([]),
        };
        let found = runtime.block_on(resolver.resolve(name));
        assert!(found.err().unwrap().to_string().contains("this machine"));
        let resolver = PublicResolver {
            proxies: Arc::from(["localhost".to_string()]),
        };
        assert!(runtime.block_on(resolver.resolve(name)).is_ok());
    }
}
