//! `reelfs status`: shows what mounts say of themselves, once or every second.
//!
//! Promise: what is shown is the mounts' own word of that moment. One mount that does not answer
//! hides no other; it is told in a sentence, and the exit code is 1.

mod show;
mod watch;

use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

use super::error::MountError;
use super::inquire::{self, Asked};
pub use watch::watch;

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Text,
    /// With a mount point its own document, else a list of them.
    Json,
}

/// Shows the mount that `path` is in, or every mount of this machine.
pub fn status(path: Option<&Path>, form: Form) -> Result<(), MountError> {
    let asked = ask(path)?;
    print(&text(&asked, path.is_some(), form, SystemTime::now()));
    let mut failures = asked.into_iter().filter_map(|asked| asked.told.err());
    let Some(mut failure) = failures.next() else {
        return Ok(());
    };
    for next in failures {
        eprintln!("reelfs: {failure}");
        failure = next;
    }
    Err(failure)
}

/// One mount's failure is an error at once, as there is nothing else to show.
fn ask(path: Option<&Path>) -> Result<Vec<Asked>, MountError> {
    let Some(path) = path else {
        return inquire::all();
    };
    let Asked { mount_point, told } = inquire::one(path)?;
    let told = Ok(told?);
    Ok(vec![Asked { mount_point, told }])
}

fn text(asked: &[Asked], one: bool, form: Form, now: SystemTime) -> String {
    match form {
        Form::Text => {
            let blocks = asked.iter().filter_map(|asked| asked.told.as_ref().ok());
            let blocks: Vec<String> = blocks.map(|told| show::text(&told.status, now)).collect();
            blocks.join("\n")
        }
        Form::Json if one => asked
            .iter()
            .filter_map(|asked| asked.told.as_ref().ok())
            .map(|told| told.json.clone())
            .collect(),
        Form::Json => {
            let all: Vec<serde_json::Value> = asked.iter().map(document).collect();
            format!("{:#}\n", serde_json::Value::Array(all))
        }
    }
}

/// A mount's own document, or its place and why there is none.
fn document(asked: &Asked) -> serde_json::Value {
    let problem = match &asked.told {
        Ok(told) => match serde_json::from_str(&told.json) {
            Ok(document) => return document,
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    serde_json::json!({"mount_point": asked.mount_point, "problem": problem})
}

/// A reader that went away is no failure of ours.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
