//! Faults as text, for `--fault` and `/_emulator/faults`; see [`GRAMMAR`]. Pure.

use std::str::FromStr;
use std::time::Duration;

use super::HostKind;
use super::fault::{Effect, ErrorBody, Fault};

/// What can be written, for `--help`.
pub(super) const GRAMMAR: &str = "\
A fault, HOST:METHOD:PATH:COUNT:EFFECT[,retry-after=SECONDS]; may be given several times
  HOST    useapi | runflow | asset
  METHOD  GET, POST, ..., or * for any
  PATH    a part of path and query as in the request line, without ':'; empty or * for any
  COUNT   N: the first N requests; M+N: N requests after M; *: all; %N: about N of 1,000
  EFFECT  status=CODE | html=CODE | empty=CODE | drop | drop-receiving=BYTES | lose-answer |
          silent | delay-ms=N | cut=BYTES | slow=BYTES_PER_S | malformed | wrong-types |
          ignore-range | wrong-range | changed-etag | length=+N or -N | chunked |
          endless | redirect=URL
Example: asset:GET:/path:3:status=503,retry-after=1";

/// Why a text is no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a fault: {reason} (HOST:METHOD:PATH:COUNT:EFFECT)")]
pub struct FaultSyntaxError {
    text: String,
    reason: String,
}

impl FromStr for Fault {
    type Err = FaultSyntaxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|reason| FaultSyntaxError {
            text: text.to_string(),
            reason,
        })
    }
}

fn parse(text: &str) -> Result<Fault, String> {
    let parts: Vec<&str> = text.splitn(5, ':').collect();
    let [host, method, path, count, effect] = parts[..] else {
        return Err("it has fewer than five parts".to_string());
    };
    let host = match host {
        "useapi" => HostKind::Useapi,
        "runflow" => HostKind::Runflow,
        "asset" => HostKind::Asset,
        other => return Err(format!("no host is called {other}")),
    };
    let mut fault = Fault::at(host);
    if method != "*" {
        let letters = !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase());
        if !letters {
            return Err(format!("{method} is no method"));
        }
        fault = fault.method(method);
    }
    if path != "*" {
        fault = fault.path(path);
    }
    Ok(counted(fault, count)?.does(parse_effect(effect)?))
}

fn counted(fault: Fault, count: &str) -> Result<Fault, String> {
    if count == "*" {
        return Ok(fault);
    }
    if let Some(per_mille) = count.strip_prefix('%') {
        return Ok(fault.chance(number(per_mille)?, 1));
    }
    match count.split_once('+') {
        Some((skip, times)) => Ok(fault.skip(number(skip)?).times(number(times)?)),
        None => Ok(fault.times(number(count)?)),
    }
}

fn parse_effect(text: &str) -> Result<Effect, String> {
    let (text, retry_after) = match text.split_once(",retry-after=") {
        Some((text, seconds)) => (text, Some(number(seconds)?.to_string())),
        None => (text, None),
    };
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let status = |body| {
        let status = number(value)?;
        if !(200..=599).contains(&status) {
            return Err(format!("{status} is no status of an answer"));
        }
        Ok(Effect::Status {
            status: status as u16,
            body,
            retry_after: retry_after.clone(),
        })
    };
    Ok(match name {
        "status" => status(ErrorBody::Json)?,
        "html" => status(ErrorBody::Html)?,
        "empty" => status(ErrorBody::Empty)?,
        "drop" => Effect::DropBeforeAnswer,
        "drop-receiving" => Effect::DropWhileReceiving(number(value)?),
        "lose-answer" => Effect::AnswerLostAfterWork,
        "silent" => Effect::Silent,
        "delay-ms" => Effect::Delay(Duration::from_millis(number(value)?)),
        "cut" => Effect::CutBodyAfter(number(value)?),
        "slow" => Effect::SlowBody(number(value)?),
        "malformed" => Effect::MalformedJson,
        "wrong-types" => Effect::WrongTypes,
        "ignore-range" => Effect::IgnoreRange,
        "wrong-range" => Effect::WrongContentRange,
        "changed-etag" => Effect::ChangedEtag,
        "chunked" => Effect::Chunked,
        "endless" => Effect::Endless,
        "redirect" => Effect::Redirect(value.to_string()),
        "length" => {
            Effect::WrongLength(value.parse().map_err(|_| format!("{value} is no length"))?)
        }
        other => return Err(format!("no effect is called {other}")),
    })
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}
