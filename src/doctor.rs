//! `reelfs doctor`: looks at everything that a mount needs, and says what to do about what is
//! missing.
//!
//! Promises: it changes nothing, and ends within [`LIMIT`], whatever the network or a mount does; what
//! took longer is told. No token is shown. Each finding stands for itself: one that fails hides no
//! other.

mod machine;
mod services;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::Settings;
use crate::config::{Config, ConfigError, Environment, Purpose};
use crate::logging::redact;

/// Two looks at a silent service fit.
const LIMIT: Duration = Duration::from_secs(10);

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// A mount works, but not in all.
    Warning,
    /// A mount fails, or one of its services does.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub what: String,
    pub verdict: Verdict,
    pub found: String,
    /// What to do.
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(what: &str, found: impl Into<String>) -> Self {
        Self {
            what: what.to_string(),
            verdict: Verdict::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    fn warning(what: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warning,
            remedy: Some(remedy.into()),
            ..Self::ok(what, found)
        }
    }

    fn problem(what: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Problem,
            ..Self::warning(what, found, remedy)
        }
    }
}

type Look = Box<dyn FnOnce() -> Vec<Finding> + Send>;

/// Looks at everything that the settings are about.
pub fn examine(settings: &Settings, environment: &Environment<'_>) -> Vec<Finding> {
    let config = Config::resolve(settings, environment, Purpose::Accounts);
    let mut findings = vec![configuration(&config)];
    let mut looks: Vec<(&'static str, Look)> = vec![("mounts", Box::new(machine::mounts))];
    let allow_other = config.as_ref().is_ok_and(|config| config.allow_other);
    findings.extend(machine::fuse(allow_other));
    findings.push(machine::kernel());
    if let Ok(config) = config {
        config.tokens().for_each(crate::logging::hide);
        let state_dir = config.state_dir.clone();
        looks.push((
            "state directory",
            Box::new(move || machine::state_directory(&state_dir)),
        ));
        looks.extend(services::looks(&config));
    }
    findings.extend(all_within(LIMIT, looks));
    findings
}

fn configuration(config: &Result<Config, ConfigError>) -> Finding {
    match config {
        Ok(config) => {
            let tokens = [
                ("USEAPI_TOKEN", config.useapi_token.is_some()),
                ("RUNFLOW_TOKEN", config.runflow_token.is_some()),
            ];
            let set = tokens.iter().filter(|(_, set)| *set).map(|(name, _)| *name);
            let set = set.collect::<Vec<_>>().join(" and ");
            Finding::ok("configuration", format!("it can be read; {set} set"))
        }
        Err(error) => {
            // Its sentence has the remedy after the cause.
            let text = error.to_string();
            let (found, remedy) = text.split_once("; ").unwrap_or((&text, "mend it"));
            let (found, remedy) = match error {
                ConfigError::NoToken { .. } => text.split_once(": ").unwrap_or((found, remedy)),
                _ => (found, remedy),
            };
            Finding::problem("configuration", found, remedy)
        }
    }
}

/// Does all at once, and waits until the limit for the findings, in the order of the looks.
fn all_within(limit: Duration, looks: Vec<(&'static str, Look)>) -> Vec<Finding> {
    let until = Instant::now() + limit;
    let waiting = looks.into_iter().map(|(what, look)| {
        let (send, found) = mpsc::channel();
        // One that can't be started never answers.
        let _ = thread::Builder::new().spawn(move || send.send(look()));
        (what, found)
    });
    let waiting: Vec<_> = waiting.collect();
    let found = waiting.into_iter().flat_map(|(what, found)| {
        let left = until.saturating_duration_since(Instant::now());
        found.recv_timeout(left).unwrap_or_else(|_| {
            let seconds = limit.as_secs();
            vec![Finding::warning(
                what,
                format!("looking at it took longer than {seconds} s"),
                "look again; if it stays so, something on this machine hangs",
            )]
        })
    });
    found.collect()
}

/// The findings for people.
pub fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok      ",
            Verdict::Warning => "warning ",
            Verdict::Problem => "PROBLEM ",
        };
        let found = redact(&finding.found);
        text += &format!("{verdict} {}: {found}\n", finding.what);
        if let Some(remedy) = &finding.remedy {
            text += &format!("          -> {}\n", redact(remedy));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_long_is_told_and_hides_nothing() {
        let (_keep, never) = mpsc::channel::<()>();
        let looks: Vec<(&'static str, Look)> = vec![
            (
                "slow",
                Box::new(move || {
                    let _ = never.recv();
                    Vec::new()
                }),
            ),
            ("fast", Box::new(|| vec![Finding::ok("fast", "there")])),
        ];
        let found = all_within(Duration::from_millis(200), looks);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].verdict, Verdict::Warning);
        assert_eq!(found[1], Finding::ok("fast", "there"));
    }
}
