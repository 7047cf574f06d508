//! The configuration file: flat TOML, keys named as the flags. Its text appears in no error,
//! because any line may be the one with the token.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::ConfigError;
use super::source::Key;

/// 64 KiB: some hundred times what all settings need.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Whether it is an error that the file isn't there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Optional,
    Required,
}

/// Every key with its value as text. Unknown keys, tables and arrays are errors, and so is a token
/// in a file that anyone but its owner may read.
pub fn read(
    path: &Path,
    presence: Presence,
) -> Result<BTreeMap<&'static str, String>, ConfigError> {
    let unreadable = |reason: String| ConfigError::Unreadable {
        path: path.to_path_buf(),
        reason,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound && presence == Presence::Optional => {
            return Ok(BTreeMap::new());
        }
        Err(error) => return Err(unreadable(error.to_string())),
    };
    // Asked of the open file, so that the file judged is the file read.
    let mode = file
        .metadata()
        .map_err(|error| unreadable(error.to_string()))?
        .mode();
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(error.to_string()))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(unreadable("it is larger than 64 KiB".to_string()));
    }
    let values = parse(path, &text)?;
    let holds_token = Key::ALL.iter().any(|key| {
        key.is_token()
            && values
                .get(key.name())
                .is_some_and(|text| !text.trim().is_empty())
    });
    if holds_token && mode & 0o077 != 0 {
        return Err(ConfigError::Exposed {
            path: path.to_path_buf(),
            mode: mode & 0o777,
        });
    }
    Ok(values)
}

/// The settings in a file's text. Errors name the line and never quote it.
pub(crate) fn parse(
    path: &Path,
    text: &str,
) -> Result<BTreeMap<&'static str, String>, ConfigError> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        // `error`'s own Display quotes the line.
        let at = error.span().map_or(0, |span| span.start);
        ConfigError::Syntax {
            path: path.to_path_buf(),
            line: line_of(text, at),
            reason: "this is not TOML; write key = \"value\"".to_string(),
        }
    })?;
    let mut values = BTreeMap::new();
    for (name, value) in &table {
        let Some(key) = Key::ALL.into_iter().find(|key| key.name() == name) else {
            return Err(ConfigError::UnknownKey {
                path: path.to_path_buf(),
                key: name.chars().take(64).collect(),
                known: Key::ALL.map(Key::name).join(", "),
            });
        };
        let value = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(_) if key == Key::Umask => {
                return Err(super::bad(
                    super::Origin::File(key, path.to_path_buf()),
                    "write the octal digits as a string, umask = \"022\"",
                ));
            }
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(truth) => truth.to_string(),
            _ => {
                return Err(super::bad(
                    super::Origin::File(key, path.to_path_buf()),
                    "expected a string, a whole number, true or false",
                ));
            }
        };
        values.insert(key.name(), value);
    }
    Ok(values)
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&b| b == b'\n').count()
}
