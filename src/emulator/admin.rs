//! Levers of a running emulator, under `/_emulator/` at useapi.net's address, for the programs
//! that `reelfs emulate` is started beside. No token, no entry in the log, no faults.
//!
//! - `GET /_emulator/requests`: the log as JSON; `DELETE`: empties it.
//! - `POST /_emulator/faults`: one fault a line, in the grammar of `--fault`; `DELETE`: none.
//! - `GET /_emulator/assets`: what the services hold, with SHA-256 of every stored asset.
//! - `GET /_emulator/counters`: what the asset host refused.

use std::sync::atomic::Ordering;

use hyper::Method;
use serde_json::{Value, json};

use super::answer::Answer;
use super::fault::Fault;
use super::shared::Shared;

pub(super) const PREFIX: &str = "/_emulator/";

pub(super) fn answer(shared: &Shared, method: &Method, target: &str, body: &[u8]) -> Answer {
    let lever = target.strip_prefix(PREFIX).unwrap_or(target);
    match (method.as_str(), lever) {
        ("GET", "requests") => Answer::json(200, &json!(shared.log.snapshot())),
        ("DELETE", "requests") => {
            shared.log.clear();
            Answer::empty(204)
        }
        ("POST", "faults") => add_faults(shared, body),
        ("DELETE", "faults") => {
            shared.faults.clear();
            Answer::empty(204)
        }
        ("GET", "assets") => Answer::json(200, &assets(shared)),
        ("GET", "counters") => Answer::json(
            200,
            &json!({
                "heads_refused": shared.counters.heads_refused.load(Ordering::Relaxed),
                "tokens_refused": shared.counters.tokens_refused.load(Ordering::Relaxed),
            }),
        ),
        _ => Answer::useapi_error(404, "No such lever."),
    }
}

fn add_faults(shared: &Shared, body: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(body);
    let faults: Result<Vec<Fault>, _> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::parse)
        .collect();
    match faults {
        Ok(faults) => {
            faults
                .into_iter()
                .for_each(|fault| shared.faults.add(fault));
            Answer::empty(204)
        }
        Err(error) => Answer::useapi_error(400, &format!("{error}")),
    }
}

fn assets(shared: &Shared) -> Value {
    let library = shared.library();
    let described = |service: &str, id: &str, name: Option<&str>, path: &str| {
        let object = library.object(path);
        json!({
            "service": service,
            "id": id,
            "name": name,
            "content_type": object.as_ref().map(|object| object.content_type.as_str()),
            "size_bytes": object.as_ref().map(|object| object.content.len()),
            "sha256": object.and_then(|object| object.content.stored_sha256()),
        })
    };
    let runway = library.runway.iter().rev();
    let ltx = library.ltx.iter().rev();
    runway
        .map(|held| described("runway", &held.id, held.asset.name.as_deref(), &held.path))
        .chain(ltx.map(|held| described("ltx", &held.id, None, &held.path)))
        .chain(
            library
                .runflow
                .values()
                .map(|held| described("runflow", &held.id, held.asset.name.as_deref(), &held.path)),
        )
        .collect()
}
