//! Whom the files belong to, as shown: users and groups by name or number, and the umask. Names are
//! looked up in the system's accounts.

use nix::unistd::{Group, User};

use super::source::{Key, Sources};
use super::{ConfigError, bad};

/// What no account has: the kernel's "no such id".
const NOBODY_AT_ALL: u32 = u32::MAX;

/// The user's number.
pub fn uid(sources: &Sources<'_>) -> Result<Option<u32>, ConfigError> {
    let by_name = |name: &str| match User::from_name(name) {
        Ok(user) => user.map(|user| user.uid.as_raw()),
        Err(_) => None,
    };
    account(sources, Key::Uid, "user", by_name)
}

/// The group's number.
pub fn gid(sources: &Sources<'_>) -> Result<Option<u32>, ConfigError> {
    let by_name = |name: &str| match Group::from_name(name) {
        Ok(group) => group.map(|group| group.gid.as_raw()),
        Err(_) => None,
    };
    account(sources, Key::Gid, "group", by_name)
}

fn account(
    sources: &Sources<'_>,
    key: Key,
    what: &str,
    by_name: impl Fn(&str) -> Option<u32>,
) -> Result<Option<u32>, ConfigError> {
    let Some((text, origin)) = sources.text(key)? else {
        return Ok(None);
    };
    // A name that consists of digits is a number here, as for chown.
    let number = match text.parse::<u32>() {
        Ok(number) => Some(number),
        Err(_) => by_name(&text),
    };
    match number {
        Some(number) if number != NOBODY_AT_ALL => Ok(Some(number)),
        _ => Err(bad(
            origin,
            format!("there is no {what} `{text}`; give a name or a number"),
        )),
    }
}

/// Permission bits in octal, as for umask(1).
pub fn umask(sources: &Sources<'_>) -> Result<Option<u16>, ConfigError> {
    let Some((text, origin)) = sources.text(Key::Umask)? else {
        return Ok(None);
    };
    match u16::from_str_radix(&text, 8) {
        Ok(bits) if bits <= 0o777 && !text.starts_with('+') => Ok(Some(bits)),
        _ => Err(bad(
            origin,
            format!("`{text}` is no umask; write octal digits, 022 or 077"),
        )),
    }
}
