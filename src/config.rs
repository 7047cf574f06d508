//! Flags, environment and file, put together into a checked [`Config`].
//!
//! Promise: a `Config` that exists can be used as it is: URLs are http(s) without credentials,
//! durations and sizes lie within their limits, paths are absolute, there is at least one token
//! (except for the demo). A flag beats its environment variable, which beats the file, which beats
//! the default. It fails with one sentence that names the setting and where its value came from;
//! no error and no Debug output holds a token.

pub(crate) mod file;
mod owner;
mod source;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use url::Url;

use crate::cli::Settings;
use crate::http::ApiToken;
pub use source::Environment;
use source::{Key, Origin, Sources};

/// Below this the reader can't hold one window a stream: 8 blocks of 1 MiB.
pub const MIN_CACHE_SIZE_BYTES: u64 = 8 << 20;
/// 1 TiB: more is a slip of the pen.
const MAX_CACHE_SIZE_BYTES: u64 = 1 << 40;
const DEFAULT_CACHE_SIZE_BYTES: u64 = 128 << 20;
const DEFAULT_USEAPI_URL: &str = "https://api.useapi.net";
const DEFAULT_RUNFLOW_URL: &str = "https://api.runflow.io";
const DEFAULT_LISTING_TTL: Duration = Duration::from_secs(30);
const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
/// 10 minutes: a 1 GB upload at 15 Mbit/s. Without a limit a dead link would stop a shutdown.
const DEFAULT_UNMOUNT_TIMEOUT: Duration = Duration::from_secs(600);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest e-mail address (RFC 5321: 254 octets) and more than any id.
const MAX_IDENTITY_BYTES: usize = 254;

/// What the mount is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The user's own accounts: needs a token.
    Accounts,
    /// The embedded emulator: the user's tokens, accounts and URLs are not even looked at.
    Demo,
}

/// Every setting of a mount, checked. Debug output holds no secret.
#[derive(Debug, Clone)]
pub struct Config {
    pub purpose: Purpose,
    /// Runway and LTX; `None` hides both.
    pub useapi_token: Option<ApiToken>,
    /// `None` hides Runflow.
    pub runflow_token: Option<ApiToken>,
    /// http or https, no credentials, query or fragment.
    pub useapi_url: Url,
    /// As `useapi_url`.
    pub runflow_url: Url,
    pub runway_email: Option<String>,
    pub ltx_email: Option<String>,
    pub runflow_organization: Option<String>,
    /// Memory for asset bytes; [`MIN_CACHE_SIZE_BYTES`] to 1 TiB.
    pub cache_size_bytes: u64,
    /// Zero (ask every time) to a day.
    pub listing_ttl: Duration,
    /// The longest wait for a service before an error; 1 s to 1 h.
    pub deadline: Duration,
    /// The longest wait for running uploads when unmounting; zero to a day.
    pub unmount_timeout: Duration,
    pub write_back: bool,
    pub allow_other: bool,
    pub read_only: bool,
    pub allow_delete: bool,
    /// The desktop's thumbnail cache, absolute, where it is to be filled.
    pub thumbnail_dir: Option<PathBuf>,
    /// Whom files belong to, as shown; `None` is who mounts.
    pub uid: Option<u32>,
    /// As `uid`, of the group.
    pub gid: Option<u32>,
    /// Permission bits that nobody has; `None` shows each file's own mode. At most 0o777.
    pub umask: Option<u16>,
    pub noexec: bool,
    /// Absolute; shared by all mounts of this user. See [`Config::state_dir_for_mount`].
    pub state_dir: PathBuf,
}

/// Why there is no [`Config`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "no token: set USEAPI_TOKEN (Runway and LTX) or RUNFLOW_TOKEN, or write useapi_token or \
         runflow_token into {}; `reelfs demo` needs none", config_file.display()
    )]
    NoToken { config_file: PathBuf },
    #[error("{origin}: {reason}")]
    BadValue { origin: Origin, reason: String },
    #[error("{}: unknown key `{key}`; known keys are {known}", path.display())]
    UnknownKey {
        path: PathBuf,
        key: String,
        known: String,
    },
    #[error("{}: line {line}: {reason}", path.display())]
    Syntax {
        path: PathBuf,
        line: usize,
        reason: String,
    },
    #[error(
        "{file} holds a token but others can read it (mode {mode:03o}); run: chmod 600 {file}", file = path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("no home directory: set HOME, or {variable}, or give {flag}")]
    NoHome {
        variable: &'static str,
        flag: &'static str,
    },
}

impl ConfigError {
    /// Whether a flag or variable is wrong as such, which is exit code 2 rather than 1.
    pub fn is_usage(&self) -> bool {
        matches!(self, ConfigError::BadValue { .. })
    }
}

impl Config {
    /// Reads the configuration file and checks every setting.
    pub fn resolve(
        flags: &Settings,
        environment: &Environment<'_>,
        purpose: Purpose,
    ) -> Result<Self, ConfigError> {
        let config_file = source::config_file(flags, environment)?;
        let sources = Sources {
            flags,
            environment,
            file: file::read(&config_file.path, config_file.presence)?,
            file_path: &config_file.path,
        };
        let state_dir = source::state_dir(flags.state_dir.as_deref(), &sources)?;
        let config = match purpose {
            Purpose::Accounts => Self {
                useapi_token: token(&sources, Key::UseapiToken)?,
                runflow_token: token(&sources, Key::RunflowToken)?,
                useapi_url: url(&sources, Key::UseapiUrl, DEFAULT_USEAPI_URL)?,
                runflow_url: url(&sources, Key::RunflowUrl, DEFAULT_RUNFLOW_URL)?,
                runway_email: email(&sources, Key::RunwayEmail)?,
                ltx_email: email(&sources, Key::LtxEmail)?,
                runflow_organization: identity(&sources, Key::RunflowOrganization)?,
                ..Self::local(&sources, state_dir)?
            },
            Purpose::Demo => Self::local(&sources, state_dir)?,
        };
        if purpose == Purpose::Accounts && config.tokens().next().is_none() {
            return Err(ConfigError::NoToken {
                config_file: config_file.path,
            });
        }
        Ok(Self { purpose, ..config })
    }

    /// The settings that concern this machine alone, around a demo's empty accounts.
    fn local(sources: &Sources<'_>, state_dir: PathBuf) -> Result<Self, ConfigError> {
        Ok(Self {
            purpose: Purpose::Demo,
            useapi_token: None,
            runflow_token: None,
            useapi_url: default_url(DEFAULT_USEAPI_URL),
            runflow_url: default_url(DEFAULT_RUNFLOW_URL),
            runway_email: None,
            ltx_email: None,
            runflow_organization: None,
            cache_size_bytes: cache_size(sources)?,
            listing_ttl: duration(
                sources,
                Key::ListingTtl,
                DEFAULT_LISTING_TTL,
                Duration::ZERO..=DAY,
            )?,
            deadline: duration(
                sources,
                Key::Deadline,
                DEFAULT_DEADLINE,
                Duration::from_secs(1)..=Duration::from_secs(3600),
            )?,
            unmount_timeout: duration(
                sources,
                Key::UnmountTimeout,
                DEFAULT_UNMOUNT_TIMEOUT,
                Duration::ZERO..=DAY,
            )?,
            write_back: switch(sources, Key::WriteBack)?,
            allow_other: switch(sources, Key::AllowOther)?,
            read_only: switch(sources, Key::ReadOnly)?,
            allow_delete: switch(sources, Key::AllowDelete)?,
            thumbnail_dir: match switch(sources, Key::Thumbnails)? {
                true => Some(source::thumbnail_dir(sources.environment)?),
                false => None,
            },
            uid: owner::uid(sources)?,
            gid: owner::gid(sources)?,
            umask: owner::umask(sources)?,
            noexec: switch(sources, Key::Noexec)?,
            state_dir,
        })
    }

    /// The tokens that are set, for the log's filter.
    pub fn tokens(&self) -> impl Iterator<Item = &ApiToken> {
        self.useapi_token.iter().chain(&self.runflow_token)
    }

    /// Where this mount's ids and staged uploads live: a directory below `state_dir` for the
    /// account that files are uploaded to, so that no file ever goes to another account, and a
    /// file staged before a token was renewed, or another setting changed, is still found.
    pub fn state_dir_for_mount(&self) -> PathBuf {
        match self.purpose {
            Purpose::Demo => self.state_dir.join("demo"),
            Purpose::Accounts => self.state_dir.join(self.namespace()),
        }
    }

    /// 16 hexadecimal digits (64 bits: no collision among one user's accounts). Each part goes in
    /// with its length, so that no two lists of parts are the same bytes.
    fn namespace(&self) -> String {
        let parts = match (&self.useapi_token, &self.runflow_token) {
            (Some(token), _) => [
                Some(self.useapi_url.as_str()),
                Some(useapi_account(token)),
                self.runway_email.as_deref(),
            ],
            (None, token) => [
                Some(self.runflow_url.as_str()),
                token.as_ref().map(ApiToken::expose),
                self.runflow_organization.as_deref(),
            ],
        };
        let mut hash = Sha256::new();
        for part in parts {
            let part = part.unwrap_or_default();
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        short_hex(&hash.finalize())
    }
}

/// What of a useapi.net token names the account: `user:1234` of `user:1234-secret`. The whole
/// token where it has another form.
fn useapi_account(token: &ApiToken) -> &str {
    let text = token.expose();
    let account = text.split_once('-').map(|(account, _)| account);
    account
        .filter(|account| {
            let number = account.strip_prefix("user:").unwrap_or_default();
            !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
        })
        .unwrap_or(text)
}

/// The first 8 bytes of a hash as 16 hexadecimal digits.
pub(crate) fn short_hex(hash: &[u8]) -> String {
    hash.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(key) => write!(f, "{}", key.flag()),
            Origin::Variable(key) => f.write_str(key.variable()),
            Origin::File(key, path) => write!(f, "{}: {}", path.display(), key.name()),
        }
    }
}

fn bad(origin: Origin, reason: impl Into<String>) -> ConfigError {
    ConfigError::BadValue {
        origin,
        reason: reason.into(),
    }
}

fn token(sources: &Sources<'_>, key: Key) -> Result<Option<ApiToken>, ConfigError> {
    let Some((text, origin)) = sources.text(key)? else {
        return Ok(None);
    };
    match ApiToken::new(&text) {
        Some(token) => Ok(Some(token)),
        None => Err(bad(
            origin,
            "the token holds a character that a request can't carry; copy it again",
        )),
    }
}

fn identity(sources: &Sources<'_>, key: Key) -> Result<Option<String>, ConfigError> {
    let Some((text, origin)) = sources.text(key)? else {
        return Ok(None);
    };
    if text.len() > MAX_IDENTITY_BYTES || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(bad(
            origin,
            "expected visible ASCII characters, 254 at most",
        ));
    }
    Ok(Some(text))
}

fn email(sources: &Sources<'_>, key: Key) -> Result<Option<String>, ConfigError> {
    let Some((text, origin)) = sources.text(key)? else {
        return Ok(None);
    };
    let whole = text
        .split_once('@')
        .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    if !whole || text.len() > MAX_IDENTITY_BYTES || text.chars().any(|c| c.is_control() || c == ' ')
    {
        return Err(bad(origin, format!("`{text}` is not an e-mail address")));
    }
    Ok(Some(text))
}

fn default_url(text: &str) -> Url {
    match Url::parse(text) {
        Ok(url) => url,
        Err(error) => unreachable!("{text} is a constant: {error}"),
    }
}

fn url(sources: &Sources<'_>, key: Key, default: &str) -> Result<Url, ConfigError> {
    let Some((text, origin)) = sources.text(key)? else {
        return Ok(default_url(default));
    };
    // The text is not repeated in errors: it may hold a password.
    let reason = match Url::parse(&text) {
        Err(error) => format!("not a URL: {error}; expected https://host"),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            "the URL must begin with https:// (or http:// for a local server)".to_string()
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            "the URL must not hold a user name or password; tokens have their own variables"
                .to_string()
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            "the URL must end before any `?` or `#`".to_string()
        }
        Ok(url) => return Ok(url),
    };
    Err(bad(origin, reason))
}

fn cache_size(sources: &Sources<'_>) -> Result<u64, ConfigError> {
    let Some((text, origin)) = sources.text(Key::CacheSize)? else {
        return Ok(DEFAULT_CACHE_SIZE_BYTES);
    };
    let size_bytes = parse_size::Config::new()
        .with_binary()
        .parse_size(&text)
        .map_err(|_| {
            bad(
                origin.clone(),
                format!("`{text}` is not a size; write bytes, 64M or 1G"),
            )
        })?;
    if size_bytes > MAX_CACHE_SIZE_BYTES {
        return Err(bad(origin, format!("`{text}` is more than 1T")));
    }
    if size_bytes < MIN_CACHE_SIZE_BYTES {
        log::warn!("{origin}: `{text}` is too little to read ahead; using 8M");
    }
    Ok(size_bytes.max(MIN_CACHE_SIZE_BYTES))
}

/// A time with a unit, or whole seconds.
fn duration(
    sources: &Sources<'_>,
    key: Key,
    default: Duration,
    limits: std::ops::RangeInclusive<Duration>,
) -> Result<Duration, ConfigError> {
    let Some((text, origin)) = sources.text(key)? else {
        return Ok(default);
    };
    let value = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(&text).map_err(|_| {
            bad(
                origin.clone(),
                format!("`{text}` is not a time; write 500ms, 30s or 5m"),
            )
        })?,
    };
    if !limits.contains(&value) {
        let (least, most) = (*limits.start(), *limits.end());
        return Err(bad(
            origin,
            format!(
                "`{text}` is out of range; {} to {}",
                humantime::format_duration(least),
                humantime::format_duration(most)
            ),
        ));
    }
    Ok(value)
}

fn switch(sources: &Sources<'_>, key: Key) -> Result<bool, ConfigError> {
    let Some((text, origin)) = sources.text(key)? else {
        return Ok(false);
    };
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(bad(origin, format!("`{text}` is neither true nor false"))),
    }
}

/// Every environment variable that is read, with its flag; a token's has none.
pub fn variables() -> Vec<(&'static str, Option<String>)> {
    let with_flag = |key: Key| (key.variable(), (!key.is_token()).then(|| key.flag()));
    let mut all: Vec<_> = Key::ALL.into_iter().map(with_flag).collect();
    all.push(("REELFS_CONFIG", Some("--config".to_string())));
    all
}

/// The state directory for `reelfs unmount`, which needs no other setting.
pub fn state_dir_for_unmount(
    flag: Option<&Path>,
    environment: &Environment<'_>,
) -> Result<PathBuf, ConfigError> {
    let flags = Settings::default();
    let config_file = source::config_file(&flags, environment)?;
    // A file that `mount` would refuse must not keep anyone from unmounting.
    let file = file::read(&config_file.path, file::Presence::Optional).unwrap_or_default();
    let sources = Sources {
        flags: &flags,
        environment,
        file,
        file_path: &config_file.path,
    };
    source::state_dir(flag, &sources)
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
