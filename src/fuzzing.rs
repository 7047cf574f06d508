//! Reads bytes as they come from outside, one function a format, and holds what the readers promise
//! of whatever they are given. `fuzz/` calls these with made-up bytes; the test below calls them
//! with every input that was kept. Not part of the product.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::ErrorCode;
use url::{Host, Url};

use crate::clock::SystemClock;
use crate::config;
use crate::http::{ApiClient, ApiToken, Deadlines, SignedUrl, UrlPolicy, json, message, retry};
use crate::logging;
use crate::provider::ltx::LtxProvider;
use crate::provider::runflow::RunflowProvider;
use crate::provider::runway::RunwayProvider;
use crate::provider::{Asset, AssetId, Library, Service};
use crate::range::{ByteRange, ContentRange};
use crate::store::{JournalEntry, Store};
use crate::timestamp;
use crate::tree::name;

const TOKEN: &str = "user:12-AbCdEfGh";
const API: &str = "https://api.example/";

/// A target's name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target; `fuzz/fuzz_targets/` has one file for each.
pub const TARGETS: [Target; 10] = [
    ("runway_page", runway_page),
    ("ltx_page", ltx_page),
    ("runflow_asset", runflow_asset),
    ("upload_answer", upload_answer),
    ("error_envelope", error_envelope),
    ("asset_name", asset_name),
    ("content_range", content_range),
    ("signed_url", signed_url),
    ("config_file", config_file),
    ("journal", journal),
];

fn token() -> Option<ApiToken> {
    ApiToken::new(TOKEN)
}

/// A client that is never asked to connect.
fn api() -> Option<ApiClient> {
    let wait = Duration::from_secs(1);
    let deadlines = Deadlines {
        connect: wait,
        stall: wait,
        total: wait,
    };
    ApiClient::new(
        Url::parse(API).ok()?,
        token()?,
        deadlines,
        Arc::new(SystemClock),
    )
    .ok()
}

struct Providers {
    runway: RunwayProvider,
    ltx: LtxProvider,
    runflow: RunflowProvider,
}

fn providers() -> Option<&'static Providers> {
    static PROVIDERS: OnceLock<Option<Providers>> = OnceLock::new();
    let make = || {
        Some(Providers {
            runway: RunwayProvider::new(api()?, None),
            ltx: LtxProvider::new(api()?, None),
            runflow: RunflowProvider::new(api()?, None),
        })
    };
    PROVIDERS.get_or_init(make).as_ref()
}

/// What stands in a directory can stand in one, each name once.
fn names_are_good(assets: &[Asset]) {
    let wanted: Vec<String> = assets.iter().map(name::wanted_name).collect();
    let with_ids = wanted.iter().map(String::as_str);
    let with_ids = with_ids.zip(assets.iter().map(|asset| asset.id.as_str()));
    let unique = name::unique_names(with_ids);
    assert_eq!(unique.len(), assets.len());
    for name in wanted.iter().chain(&unique) {
        assert!(
            !name.is_empty() && name.len() <= name::MAX_NAME_BYTES,
            "{name:?}"
        );
        assert!(name != "." && name != "..");
        assert!(
            !name.contains('/') && !name.chars().any(char::is_control),
            "{name:?}"
        );
    }
    let mut sorted = unique;
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), assets.len(), "a name stands twice");
}

fn assets_are_good(assets: &[Asset], library: Library) {
    names_are_good(assets);
    for asset in assets {
        assert_eq!(asset.library, library);
        assert!(!asset.id.as_str().is_empty());
        assert!(
            asset
                .size_bytes
                .is_none_or(|size| size > 0 && i64::try_from(size).is_ok())
        );
        if let Some(url) = &asset.url {
            url_is_good(url);
        }
    }
}

fn url_is_good(url: &SignedUrl) {
    let exposed = url.expose();
    assert_eq!(exposed.scheme(), "https");
    assert!(exposed.username().is_empty() && exposed.password().is_none());
    let leads_here = match exposed.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Some(Host::Ipv6(ip)) => ip.is_loopback() || ip.is_unspecified(),
        None => true,
    };
    assert!(!leads_here && !url.policy().allows_local_hosts(), "{url}");
    // Not that the query is absent: it can be a part of the host's name.
    let shown = format!("https://{}/[signed]", url.host());
    assert_eq!(format!("{url} {url:?}"), format!("{shown} {shown}"));
}

/// A page of Runway's list.
pub fn runway_page(data: &[u8]) {
    let (Some(providers), Some(page)) = (providers(), json::parse(data)) else {
        return;
    };
    let library = Library::RunwayVideo;
    if let Ok(assets) = providers.runway.read_page(page, library) {
        assets_are_good(&assets, library);
    }
}

/// A page of LTX Studio's list.
pub fn ltx_page(data: &[u8]) {
    let (Some(providers), Some(page)) = (providers(), json::parse(data)) else {
        return;
    };
    let library = Service::Ltx.libraries()[0];
    if let Ok(assets) = providers.ltx.read(page, library) {
        assets_are_good(&assets, library);
    }
}

/// One asset of Runflow.
pub fn runflow_asset(data: &[u8]) {
    let (Some(providers), Some(answer)) = (providers(), json::parse(data)) else {
        return;
    };
    let id = AssetId::new("0b6e5b38-0c5f-4c1e-9a57-2f8b8f0f6f11");
    if let Ok(asset) = providers.runflow.read(&id, answer) {
        assert_eq!(asset.id, id);
        assets_are_good(&[asset], Library::Runflow);
    }
}

/// The answer to an upload.
pub fn upload_answer(data: &[u8]) {
    let (Some(providers), Some(answer)) = (providers(), json::parse(data)) else {
        return;
    };
    if let Some(asset) = providers.runway.read_uploaded(answer, "clip.mp4") {
        assert!(asset.name.is_some());
        assets_are_good(&[asset], Library::RunwayVideo);
    }
}

/// The body of a failed answer, and `Retry-After`.
pub fn error_envelope(data: &[u8]) {
    let Some(token) = token() else { return };
    let envelope = message::read_envelope(data, &token);
    let text = &envelope.message;
    assert!(text.chars().count() <= message::MAX_MESSAGE_CHARS);
    assert!(
        !text.chars().any(char::is_control) && !text.contains(TOKEN),
        "{text:?}"
    );
    assert!(envelope.code.is_none_or(|code| (400..600).contains(&code)));
    if let Some(value) = json::parse(data) {
        message::hidden_error(&value, &token);
    }
    let text = String::from_utf8_lossy(data);
    let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for told in [envelope.retry_after.as_deref(), Some(&*text)]
        .into_iter()
        .flatten()
    {
        let wait = retry::parse_retry_after(told, now);
        assert!(wait.is_none_or(|wait| wait <= Duration::from_secs(3600)));
    }
    logging::redact(&text);
}

/// Assets by name, id, extension and type, a line each with tabs between.
pub fn asset_name(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let assets: Vec<Asset> = text
        .split('\n')
        .take(64)
        .enumerate()
        .map(|(number, line)| {
            let mut fields = line.split('\t').map(str::to_string);
            let name = fields.next();
            let id = fields.next().filter(|id| !id.is_empty());
            // Ids differ, as those of one listing do.
            let id = format!("{}{number}", id.unwrap_or_default());
            Asset {
                name,
                extension: fields.next(),
                mime_type: fields.next(),
                ..Asset::bare(Library::RunwayVideo, id)
            }
        })
        .collect();
    names_are_good(&assets);
}

/// `Content-Range`, and what is computed with ranges.
pub fn content_range(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(read) = ContentRange::parse(&text) {
        assert!(read.sent.is_some() || read.total_bytes.is_some());
        if let (Some(sent), Some(total)) = (read.sent, read.total_bytes) {
            assert!(!sent.is_empty() && sent.end <= total, "{text:?}");
        }
    }
    let number = |at: usize| {
        let bytes = data.get(at * 8..at * 8 + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let numbers = (number(0), number(1), number(2), number(3));
    let (Some(a), Some(b), Some(c), Some(d)) = numbers else {
        return;
    };
    let (one, other) = (ByteRange::new(a, b), ByteRange::at(c, d));
    let both = one.intersect(&other);
    let left: Vec<ByteRange> = one.minus(&other).collect();
    let left_bytes: u64 = left.iter().map(ByteRange::len).sum();
    assert_eq!(left_bytes + both.len(), one.len(), "{one} {other}");
    assert!(
        left.iter()
            .all(|part| one.contains(part) && part.intersect(&other).is_empty())
    );
    assert!(one.clamp_to(c).end <= c || one.clamp_to(c).is_empty());
}

/// A URL that an API gave, with its expiry; and times.
pub fn signed_url(data: &[u8]) {
    let (Ok(text), Ok(api)) = (std::str::from_utf8(data), Url::parse(API)) else {
        return;
    };
    if let Ok(url) = SignedUrl::parse(text, None, &UrlPolicy::for_api(&api)) {
        url_is_good(&url);
        url.expired(SystemTime::now(), Duration::from_secs(60));
    }
    timestamp::parse_rfc3339(text);
}

/// A configuration file.
pub fn config_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let parsed = config::file::parse(Path::new("config.toml"), text);
    // Any value may be the token. The name of a key that nobody knows is told.
    let is_key = |table: toml::Table| table.keys().any(|key| key.contains(TOKEN));
    if let Err(error) = parsed
        && !text.parse().is_ok_and(is_key)
    {
        assert!(!error.to_string().contains(TOKEN), "{error}");
    }
}

/// A row of the journal that another version, or nobody, wrote: fields with a NUL between, each with
/// its type before it.
pub fn journal(data: &[u8]) {
    put_and_read(data);
}

/// Puts the row and reads it back, if it can stand in the table and reads as an entry.
fn put_and_read(data: &[u8]) -> Vec<JournalEntry> {
    let database = database().as_ref();
    // Without one, nothing would be tested.
    assert!(database.is_ok(), "{:?}", database.err());
    let Ok(database) = database else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(data);
    let values: Vec<rusqlite::types::Value> = text.split('\0').map(field).collect();
    let raw = database.raw.lock().unwrap_or_else(|e| e.into_inner());
    let marks = vec!["?"; values.len()].join(",");
    let insert = format!("INSERT OR REPLACE INTO uploads VALUES ({marks})");
    if let Err(error) = raw.execute(&insert, rusqlite::params_from_iter(values)) {
        // Too few fields, or a NULL where none may be. After another error nothing would be tested.
        let meant = [ErrorCode::Unknown, ErrorCode::ConstraintViolation].map(Some);
        assert!(meant.contains(&error.sqlite_error_code()), "{error}");
        return Vec::new();
    }
    let entries = database.store.journal().unwrap_or_default();
    for entry in &entries {
        let again = database.store.journal_entry(entry.record.id);
        // Of an id that is spelled in another way there is no entry.
        if let Ok(Some(again)) = again {
            assert_eq!(&again, entry);
        }
    }
    let deleted = raw.execute("DELETE FROM uploads", []);
    assert_eq!(deleted, Ok(1));
    entries
}

fn field(text: &str) -> rusqlite::types::Value {
    use rusqlite::types::Value;
    match text.split_at_checked(1) {
        Some(("n", _)) | None => Value::Null,
        Some(("i", digits)) => Value::Integer(digits.parse().unwrap_or(-1)),
        Some(("b", bytes)) => Value::Blob(bytes.as_bytes().to_vec()),
        Some((_, rest)) => Value::Text(rest.to_string()),
    }
}

/// A journal of this process, by its own reader and by SQLite.
struct Database {
    store: Store,
    raw: Mutex<rusqlite::Connection>,
}

fn database() -> &'static anyhow::Result<Database> {
    static DATABASE: OnceLock<anyhow::Result<Database>> = OnceLock::new();
    DATABASE.get_or_init(|| {
        let home = std::env::temp_dir().join(format!("reelfs-fuzz-{}", std::process::id()));
        let store = Store::open(&home)?;
        let raw = open_raw(&home.join("state.db"))?;
        // Open files outlive their names, and nothing is left behind.
        std::fs::remove_dir_all(&home)?;
        let raw = Mutex::new(raw);
        Ok(Database { store, raw })
    })
}

/// SQLite opens the write-ahead log by its name, at the first use.
fn open_raw(path: &Path) -> rusqlite::Result<rusqlite::Connection> {
    let raw = rusqlite::Connection::open(path)?;
    raw.pragma_update(None, "synchronous", "OFF")?;
    raw.execute("DELETE FROM uploads", [])?;
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_that_was_kept_is_read_as_promised() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        for (name, target) in TARGETS {
            let program = fuzz.join("fuzz_targets").join(format!("{name}.rs"));
            assert!(program.is_file(), "{}", program.display());
            let kept = std::fs::read_dir(fuzz.join("corpus").join(name)).unwrap();
            let mut count = 0;
            for file in kept {
                let path = file.unwrap().path();
                println!("{}", path.display());
                target(&std::fs::read(path).unwrap());
                count += 1;
            }
            assert!(count > 3, "{name} has {count} inputs");
        }
    }

    /// Else the target would test nothing but errors.
    #[test]
    fn a_row_of_the_journal_is_put_and_read() {
        let row = include_bytes!("../fuzz/corpus/journal/seed-0");
        let entries = put_and_read(row);
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].record.name, "clip.mp4");
        assert!(put_and_read(b"t\0n").is_empty());
    }
}
