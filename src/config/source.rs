//! Where a setting's text comes from: flag, environment variable or file, in this order.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::file::Presence;
use super::{ConfigError, bad};
use crate::cli::Settings;

/// How the environment is asked; a test passes its own.
pub type Environment<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// A setting. Its flag is its name with dashes; `config` alone has no key in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    UseapiToken,
    RunflowToken,
    RunwayEmail,
    LtxEmail,
    RunflowOrganization,
    UseapiUrl,
    RunflowUrl,
    CacheSize,
    ListingTtl,
    Deadline,
    UnmountTimeout,
    WriteBack,
    AllowOther,
    ReadOnly,
    AllowDelete,
    Thumbnails,
    Uid,
    Gid,
    Umask,
    Noexec,
    StateDir,
}

impl Key {
    /// Every setting.
    pub const ALL: [Key; 21] = [
        Key::UseapiToken,
        Key::RunflowToken,
        Key::RunwayEmail,
        Key::LtxEmail,
        Key::RunflowOrganization,
        Key::UseapiUrl,
        Key::RunflowUrl,
        Key::CacheSize,
        Key::ListingTtl,
        Key::Deadline,
        Key::UnmountTimeout,
        Key::WriteBack,
        Key::AllowOther,
        Key::ReadOnly,
        Key::AllowDelete,
        Key::Thumbnails,
        Key::Uid,
        Key::Gid,
        Key::Umask,
        Key::Noexec,
        Key::StateDir,
    ];

    /// The key in the file.
    pub fn name(self) -> &'static str {
        self.names().0
    }

    /// The environment variable.
    pub fn variable(self) -> &'static str {
        self.names().1
    }

    /// The flag; the tokens have none, and this is never asked for them.
    pub fn flag(self) -> String {
        format!("--{}", self.name().replace('_', "-"))
    }

    /// Whether the value is a secret, which never comes from a flag.
    pub fn is_token(self) -> bool {
        matches!(self, Key::UseapiToken | Key::RunflowToken)
    }

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Key::UseapiToken => ("useapi_token", "USEAPI_TOKEN"),
            Key::RunflowToken => ("runflow_token", "RUNFLOW_TOKEN"),
            Key::RunwayEmail => ("runway_email", "RUNWAY_EMAIL"),
            Key::LtxEmail => ("ltx_email", "LTX_EMAIL"),
            Key::RunflowOrganization => ("runflow_organization", "RUNFLOW_ORGANIZATION_ID"),
            Key::UseapiUrl => ("useapi_url", "REELFS_USEAPI_URL"),
            Key::RunflowUrl => ("runflow_url", "REELFS_RUNFLOW_URL"),
            Key::CacheSize => ("cache_size", "REELFS_CACHE_SIZE"),
            Key::ListingTtl => ("listing_ttl", "REELFS_LISTING_TTL"),
            Key::Deadline => ("deadline", "REELFS_DEADLINE"),
            Key::UnmountTimeout => ("unmount_timeout", "REELFS_UNMOUNT_TIMEOUT"),
            Key::WriteBack => ("write_back", "REELFS_WRITE_BACK"),
            Key::AllowOther => ("allow_other", "REELFS_ALLOW_OTHER"),
            Key::ReadOnly => ("read_only", "REELFS_READ_ONLY"),
            Key::AllowDelete => ("allow_delete", "REELFS_ALLOW_DELETE"),
            Key::Thumbnails => ("thumbnails", "REELFS_THUMBNAILS"),
            Key::Uid => ("uid", "REELFS_UID"),
            Key::Gid => ("gid", "REELFS_GID"),
            Key::Umask => ("umask", "REELFS_UMASK"),
            Key::Noexec => ("noexec", "REELFS_NOEXEC"),
            Key::StateDir => ("state_dir", "REELFS_STATE_DIR"),
        }
    }

    /// What was typed; a path is asked for on its own.
    fn flag_text(self, flags: &Settings) -> Option<&str> {
        match self {
            Key::UseapiToken | Key::RunflowToken | Key::StateDir => None,
            Key::RunwayEmail => flags.runway_email.as_deref(),
            Key::LtxEmail => flags.ltx_email.as_deref(),
            Key::RunflowOrganization => flags.runflow_organization.as_deref(),
            Key::UseapiUrl => flags.useapi_url.as_deref(),
            Key::RunflowUrl => flags.runflow_url.as_deref(),
            Key::CacheSize => flags.cache_size.as_deref(),
            Key::ListingTtl => flags.listing_ttl.as_deref(),
            Key::Deadline => flags.deadline.as_deref(),
            Key::UnmountTimeout => flags.unmount_timeout.as_deref(),
            Key::WriteBack => flags.write_back.as_deref(),
            Key::AllowOther => flags.allow_other.as_deref(),
            Key::ReadOnly => flags.read_only.as_deref(),
            Key::AllowDelete => flags.allow_delete.as_deref(),
            Key::Thumbnails => flags.thumbnails.as_deref(),
            Key::Uid => flags.uid.as_deref(),
            Key::Gid => flags.gid.as_deref(),
            Key::Umask => flags.umask.as_deref(),
            Key::Noexec => flags.noexec.as_deref(),
        }
    }
}

/// Where a value came from, for the error about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Flag(Key),
    Variable(Key),
    File(Key, PathBuf),
}

/// All there is to look at.
pub struct Sources<'a> {
    pub flags: &'a Settings,
    pub environment: &'a Environment<'a>,
    /// The file's keys, all known, with their values as text.
    pub file: BTreeMap<&'static str, String>,
    pub file_path: &'a Path,
}

impl Sources<'_> {
    /// The setting's text, trimmed, with where it came from; what is empty counts as unset.
    pub fn text(&self, key: Key) -> Result<Option<(String, Origin)>, ConfigError> {
        if let Some(text) = key.flag_text(self.flags).and_then(given) {
            return Ok(Some((text, Origin::Flag(key))));
        }
        if let Some(value) = (self.environment)(key.variable()) {
            let origin = Origin::Variable(key);
            let Some(text) = value.to_str() else {
                return Err(bad(origin, "its value is not UTF-8"));
            };
            if let Some(text) = given(text) {
                return Ok(Some((text, origin)));
            }
        }
        let from_file = self.file.get(key.name()).and_then(|text| given(text));
        Ok(from_file.map(|text| (text, Origin::File(key, self.file_path.to_path_buf()))))
    }
}

fn given(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_string())
}

/// The configuration file's place, and whether somebody named it.
pub struct ConfigFile {
    pub path: PathBuf,
    pub presence: Presence,
}

/// The config file that a flag or the environment names, else the usual one.
pub fn config_file(
    flags: &Settings,
    environment: &Environment<'_>,
) -> Result<ConfigFile, ConfigError> {
    let named = flags
        .config
        .clone()
        .or_else(|| path_variable(environment, "REELFS_CONFIG"));
    if let Some(path) = named.filter(|path| !path.as_os_str().is_empty()) {
        return Ok(ConfigFile {
            path: absolute(path)?,
            presence: Presence::Required,
        });
    }
    let base = xdg_base(environment, "XDG_CONFIG_HOME", ".config").ok_or(ConfigError::NoHome {
        variable: "XDG_CONFIG_HOME",
        flag: "--config",
    })?;
    Ok(ConfigFile {
        path: base.join("reelfs/config.toml"),
        presence: Presence::Optional,
    })
}

/// The state directory, absolute. It need not exist.
pub fn state_dir(flag: Option<&Path>, sources: &Sources<'_>) -> Result<PathBuf, ConfigError> {
    let variable = path_variable(sources.environment, Key::StateDir.variable());
    let from_file = || sources.file.get(Key::StateDir.name()).map(PathBuf::from);
    let named = flag
        .map(Path::to_path_buf)
        .filter(|path| !path.as_os_str().is_empty())
        .or(variable)
        .or_else(from_file)
        .filter(|path| !path.as_os_str().is_empty());
    if let Some(path) = named {
        return absolute(path);
    }
    let base = xdg_base(sources.environment, "XDG_STATE_HOME", ".local/state").ok_or(
        ConfigError::NoHome {
            variable: "XDG_STATE_HOME",
            flag: "--state-dir",
        },
    )?;
    Ok(base.join("reelfs"))
}

/// The cache of thumbnails that this user's programs share.
pub fn thumbnail_dir(environment: &Environment<'_>) -> Result<PathBuf, ConfigError> {
    let base = xdg_base(environment, "XDG_CACHE_HOME", ".cache").ok_or(ConfigError::NoHome {
        variable: "XDG_CACHE_HOME",
        flag: "--thumbnails=false",
    })?;
    Ok(base.join("thumbnails"))
}

fn path_variable(environment: &Environment<'_>, name: &str) -> Option<PathBuf> {
    environment(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// An XDG base directory; as its specification says, one that isn't absolute is ignored.
fn xdg_base(environment: &Environment<'_>, variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name| path_variable(environment, name).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(below_home)))
}

fn absolute(path: PathBuf) -> Result<PathBuf, ConfigError> {
    std::path::absolute(&path).map_err(|error| ConfigError::Unreadable {
        reason: error.to_string(),
        path,
    })
}
