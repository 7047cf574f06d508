//! Signed URLs in the manner of the three asset hosts: made anew for every answer of an API,
//! checked whole at the asset host.
//!
//! A URL is `<origin>/<path>?<parameters>&<signature parameter>=…`; the signature covers the path
//! and every parameter before it, among them the expiry in milliseconds, so that lifetimes under
//! a second are exact. The hosts' own parameters tell the expiry in seconds, rounded up.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::content::hex;

/// Whose manner of signing a URL follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// CloudFront as Runway uses it: a `_jwt` whose payload holds `exp`.
    Runway,
    /// Google Cloud Storage, version 4, as LTX Studio uses it.
    Ltx,
    /// Cloudflare R2 (S3's version 4), as Runflow uses it.
    Runflow,
}

/// Why a URL is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Expired,
    Tampered,
}

impl Manner {
    const ALL: [Manner; 3] = [Manner::Runway, Manner::Ltx, Manner::Runflow];

    /// The first path segment of this manner's URLs.
    fn bucket(self) -> &'static str {
        match self {
            Manner::Runway => "runway-datasets",
            Manner::Ltx => "lt-infinity-emulated",
            Manner::Runflow => "runflow-assets",
        }
    }

    /// The path of an object, which never changes. `name` may be anything.
    pub fn path(self, object_id: &str, name: &str) -> String {
        let safe: String = name
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '.' {
                    c
                } else {
                    '-'
                }
            })
            .take(80)
            .collect();
        // `.` and `..` would be taken for steps in the path.
        let safe = match safe.trim_matches('.') {
            "" => "unnamed",
            _ => &safe,
        };
        format!("/{}/{object_id}/{safe}", self.bucket())
    }

    /// The manner of the bucket that a path is in.
    pub fn of_path(path: &str) -> Option<Manner> {
        let bucket = path.strip_prefix('/')?.split('/').next()?;
        Self::ALL.into_iter().find(|m| m.bucket() == bucket)
    }

    fn signature_parameter(self) -> &'static str {
        match self {
            Manner::Runway => "_jwt",
            Manner::Ltx => "X-Goog-Signature",
            Manner::Runflow => "X-Amz-Signature",
        }
    }
}

/// Signs and checks with a key of its own.
#[derive(Clone)]
pub(super) struct Signer {
    key: [u8; 32],
}

impl Signer {
    pub fn new(secret: &[u8]) -> Self {
        Self {
            key: Sha256::digest(secret).into(),
        }
    }

    /// The query that makes `path` readable for `lifetime` from `now` on; `nonce` tells one
    /// signing from another.
    pub fn query(&self, path: &str, now: SystemTime, lifetime: Duration, nonce: u64) -> String {
        let manner = Manner::of_path(path).unwrap_or(Manner::Runway);
        let expires_ms = epoch_ms(now) + lifetime.as_millis() as u64;
        let lifetime_s = lifetime.as_millis().div_ceil(1000);
        let signed = match manner {
            Manner::Runway => format!("nonce={nonce:x}&expires_ms={expires_ms}"),
            Manner::Ltx => format!(
                "X-Goog-Algorithm=GOOG4-HMAC-SHA256&X-Goog-Date={}&X-Goog-Expires={lifetime_s}\
                 &X-Goog-SignedHeaders=host&nonce={nonce:x}&expires_ms={expires_ms}",
                compact_date(now)
            ),
            Manner::Runflow => format!(
                "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date={}&X-Amz-Expires={lifetime_s}\
                 &X-Amz-SignedHeaders=host&nonce={nonce:x}&expires_ms={expires_ms}",
                compact_date(now)
            ),
        };
        let signature = self.signature(path, &signed);
        let value = match manner {
            Manner::Runway => jwt(expires_ms, &signature),
            Manner::Ltx | Manner::Runflow => signature,
        };
        format!("{signed}&{}={value}", manner.signature_parameter())
    }

    /// Whether `query` opens `path` at `now`.
    pub fn check(&self, path: &str, query: &str, now: SystemTime) -> Result<(), Refusal> {
        let manner = Manner::of_path(path).ok_or(Refusal::Tampered)?;
        let (signed, last) = query.rsplit_once('&').ok_or(Refusal::Tampered)?;
        let expires_ms = signed
            .rsplit_once("expires_ms=")
            .and_then(|(_, digits)| digits.parse().ok())
            .ok_or(Refusal::Tampered)?;
        let signature = self.signature(path, signed);
        let expected = match manner {
            Manner::Runway => jwt(expires_ms, &signature),
            Manner::Ltx | Manner::Runflow => signature,
        };
        if last != format!("{}={expected}", manner.signature_parameter()) {
            return Err(Refusal::Tampered);
        }
        if epoch_ms(now) >= expires_ms {
            return Err(Refusal::Expired);
        }
        Ok(())
    }

    fn signature(&self, path: &str, signed: &str) -> String {
        let mut hash = Sha256::new();
        for part in [&self.key[..], path.as_bytes(), b"?", signed.as_bytes()] {
            hash.update(part);
        }
        hex(&hash.finalize())
    }
}

/// Milliseconds since 1970; 0 before it.
pub(super) fn epoch_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

fn compact_date(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .unwrap_or_default()
        .strftime("%Y%m%dT%H%M%SZ")
        .to_string()
}

fn jwt(expires_ms: u64, signature: &str) -> String {
    let header = json!({"alg": "HS256", "typ": "JWT"});
    let payload = json!({"exp": expires_ms.div_ceil(1000)});
    [
        header.to_string(),
        payload.to_string(),
        signature.to_string(),
    ]
    .map(|part| base64url(part.as_bytes()))
    .join(".")
}

/// RFC 4648 section 5, without padding, as in a JWT.
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, i| {
            bits << 8 | usize::from(group.get(i).copied().unwrap_or(0))
        });
        for digit in 0..=group.len() {
            text.push(char::from(DIGITS[bits >> (18 - 6 * digit) & 63]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_700_000_000_250)
    }

    #[test]
    fn base64url_agrees_with_the_rfc() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
        ] {
            assert_eq!(base64url(plain.as_bytes()), coded);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn a_url_opens_its_own_path_until_it_expires() {
        let signer = Signer::new(b"key");
        for manner in Manner::ALL {
            let path = manner.path("1234", "a b.mp4");
            let query = signer.query(&path, now(), Duration::from_millis(300), 1);
            let check = |path: &str, query: &str, after_ms| {
                signer.check(path, query, now() + Duration::from_millis(after_ms))
            };
            assert_eq!(check(&path, &query, 299), Ok(()));
            assert_eq!(check(&path, &query, 300), Err(Refusal::Expired));
            let other = manner.path("1235", "a b.mp4");
            assert_eq!(check(&other, &query, 0), Err(Refusal::Tampered));
            let longer = query.replace("expires_ms=1", "expires_ms=2");
            assert_eq!(check(&path, &longer, 0), Err(Refusal::Tampered));
            assert_eq!(check(&path, "", 0), Err(Refusal::Tampered));
            assert_eq!(
                check(&path, &format!("{query}&x=1"), 0),
                Err(Refusal::Tampered)
            );
        }
    }

    #[test]
    fn two_signings_of_one_object_differ() {
        let signer = Signer::new(b"key");
        let path = Manner::Ltx.path("1", "x");
        let sign = |nonce| signer.query(&path, now(), Duration::from_secs(1), nonce);
        assert_ne!(sign(1), sign(2));
    }

    #[test]
    fn the_expiry_is_told_in_the_hosts_own_words() {
        let signer = Signer::new(b"key");
        let query = |manner: Manner| {
            signer.query(&manner.path("1", "x"), now(), Duration::from_secs(60), 1)
        };
        assert!(query(Manner::Ltx).contains("X-Goog-Date=20231114T221320Z&X-Goog-Expires=60"));
        assert!(query(Manner::Runflow).contains("X-Amz-Date=20231114T221320Z&X-Amz-Expires=60"));
        let payload = base64url(br#"{"exp":1700000061}"#);
        assert!(query(Manner::Runway).contains(&format!(".{payload}.")));
    }
}
