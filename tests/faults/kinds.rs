//! The two axes of the matrix: what is asked, and what goes wrong.

use std::time::Duration;

use reelfs::emulator::{Effect, HostKind};
use serde_json::json;

use crate::doors::Way;

/// What is asked of a service or an asset host: the matrix's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    ListRunway,
    ListLtx,
    AssetRunway,
    AssetRunflow,
    SizeLtx,
    Upload,
    FirstRange,
    LaterRange,
}

impl Request {
    pub const ALL: [Request; 8] = [
        Request::ListRunway,
        Request::ListLtx,
        Request::AssetRunway,
        Request::AssetRunflow,
        Request::SizeLtx,
        Request::Upload,
        Request::FirstRange,
        Request::LaterRange,
    ];

    /// The column's head.
    pub fn title(self) -> &'static str {
        match self {
            Request::ListRunway => "list Runway",
            Request::ListLtx => "list LTX",
            Request::AssetRunway => "asset, Runway",
            Request::AssetRunflow => "asset, Runflow",
            Request::SizeLtx => "size, LTX",
            Request::Upload => "upload",
            Request::FirstRange => "first range",
            Request::LaterRange => "later range",
        }
    }

    /// Host, method and a part of the path that tell its requests from others.
    pub fn place(self) -> (HostKind, &'static str, &'static str) {
        match self {
            Request::ListRunway => (HostKind::Useapi, "GET", "/v1/runwayml/assets/?"),
            Request::ListLtx => (HostKind::Useapi, "GET", "/v1/ltxstudio/assets/?"),
            // Of one asset: its id follows the slash.
            Request::AssetRunway => (HostKind::Useapi, "GET", "/v1/runwayml/assets/u"),
            Request::AssetRunflow => (HostKind::Runflow, "GET", "/v1/assets/"),
            Request::Upload => (HostKind::Useapi, "POST", ""),
            Request::SizeLtx | Request::FirstRange | Request::LaterRange => {
                (HostKind::Asset, "GET", "")
            }
        }
    }
}

/// How something goes wrong.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// The emulator does this to the request.
    Effect(Effect),
    /// The door before the service is like this. `once`: for a moment.
    Door(Way),
    /// The service's host has a name that nobody knows.
    UnknownHost,
}

/// A row of the matrix.
pub struct Fault {
    pub name: &'static str,
    pub trouble: Trouble,
    /// No retry can succeed in time, so that a long deadline shows nothing more than a short one.
    pub outlasts: bool,
}

/// The longest answer of an API that is read, and a little more.
const HUGE_BYTES: i64 = 17 << 20;

/// Every row, in the table's order. `elsewhere` is where no request may go.
pub fn faults(elsewhere: &str) -> Vec<Fault> {
    let door = |name, way| fault(name, Trouble::Door(way));
    let effect = |name, effect| fault(name, Trouble::Effect(effect));
    let status = |code| Effect::status(code);
    let redirect = |to: &str| Effect::Redirect(to.to_string());
    let long = Effect::retry_after(429, 3600);
    vec![
        door("connection refused", Way::Shut),
        fault("no such host (DNS)", Trouble::UnknownHost),
        door("TLS: answered in plain text", Way::PlainText),
        door("TLS: unknown certificate", Way::Stranger),
        effect("dropped before the answer", Effect::DropBeforeAnswer),
        effect("dropped after 0 bytes of it", Effect::CutBodyAfter(0)),
        effect("dropped after 1 byte", Effect::CutBodyAfter(1)),
        effect("dropped after 100,000", Effect::CutBodyAfter(100_000)),
        effect("slow: 50,000 bytes/s", Effect::SlowBody(50_000)),
        Fault {
            outlasts: true,
            ..effect("a trickle: 100 bytes/s", Effect::SlowBody(100))
        },
        effect("silent for ever", Effect::Silent),
        effect("400", status(400)),
        effect("401", status(401)),
        effect("402", status(402)),
        effect("403", status(403)),
        effect("404", status(404)),
        effect("408", status(408)),
        effect("410", status(410)),
        effect("412", status(412)),
        effect("416", status(416)),
        effect("422", status(422)),
        effect("429", status(429)),
        effect("429, Retry-After: 1", Effect::retry_after(429, 1)),
        Fault {
            outlasts: true,
            ..effect("429, Retry-After: 3600", long)
        },
        effect("500", status(500)),
        effect("502 as HTML", Effect::html(502)),
        effect("503", status(503)),
        effect("504", status(504)),
        effect("522 as HTML", Effect::html(522)),
        effect("596", status(596)),
        effect("200 with HTML", Effect::html(200)),
        effect("malformed JSON", Effect::MalformedJson),
        effect("wrong types", Effect::WrongTypes),
        effect("JSON of another kind", Effect::Json(json!(["no", "page"]))),
        effect("huge body (17 MiB more)", Effect::WrongLength(HUGE_BYTES)),
        effect("endless body", Effect::Endless),
        effect("no Content-Length", Effect::Chunked),
        effect("200 to a range", Effect::IgnoreRange),
        effect("wrong Content-Range", Effect::WrongContentRange),
        effect("changed ETag", Effect::ChangedEtag),
        effect("wrong length (5 less)", Effect::WrongLength(-5)),
        effect("redirect to itself", redirect("")),
        effect("redirect to another host", redirect(elsewhere)),
    ]
}

fn fault(name: &'static str, trouble: Trouble) -> Fault {
    Fault {
        name,
        trouble,
        outlasts: false,
    }
}

/// How long the door stands in the way where a trouble happens once.
pub const MOMENT: Duration = Duration::from_millis(400);
