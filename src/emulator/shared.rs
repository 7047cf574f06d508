//! What all connections of one emulator share.
//!
//! Locks: the library, the faults, the log and the settings each have one of their own. Lock
//! order: library before settings; the others alone. None is held across I/O or an await.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use super::answer::Refused;
use super::asset::RunwayAsset;
use super::fault::Faults;
use super::library::{Held, Library};
use super::link::Link;
use super::query::Query;
use super::request::ApiRequest;
use super::request_log::{RequestLog, RequestWatch};
use super::sign::Signer;
use crate::clock::Clock;

/// Levers that can be moved while the emulator runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub url_lifetime: Duration,
    pub link: Link,
    /// How old an asset has to be before Runway's list shows it.
    pub listing_lag: Duration,
}

pub(super) struct Shared {
    pub useapi_token: String,
    pub runflow_token: String,
    pub runflow_organization: Option<String>,
    /// At least one.
    pub accounts: Vec<String>,
    pub max_upload_bytes: u64,
    pub asset_url: String,
    pub clock: Arc<dyn Clock>,
    pub signer: Signer,
    pub library: Mutex<Library>,
    pub settings: Mutex<Settings>,
    pub faults: Faults,
    pub log: RequestLog,
    pub open_listing: bool,
    pub on_request: Option<RequestWatch>,
    pub counters: Counters,
    pub nonces: AtomicU64,
    pub connections: AtomicU64,
}

/// What a client of the asset host must never do, counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub heads_refused: AtomicU64,
    pub tokens_refused: AtomicU64,
}

impl Shared {
    pub fn now(&self) -> SystemTime {
        self.clock.now()
    }

    pub fn library(&self) -> MutexGuard<'_, Library> {
        self.library.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn url_lifetime(&self) -> Duration {
        self.settings().url_lifetime
    }

    /// A URL of the object at `path`, unlike any before it.
    pub fn signed_url(&self, path: &str) -> String {
        let nonce = self.nonces.fetch_add(1, Ordering::Relaxed);
        let lifetime = self.url_lifetime();
        let query = self.signer.query(path, self.now(), lifetime, nonce);
        format!("{}{path}?{query}", self.asset_url)
    }

    /// 401 unless the request carries useapi.net's token.
    pub fn authorized(&self, request: &ApiRequest) -> Result<(), Refused> {
        if request.bearer() == Some(&self.useapi_token) {
            return Ok(());
        }
        Err(Refused::new(401, "Unauthorized"))
    }

    /// The account a request of useapi.net is about: `email`, required where several are
    /// configured.
    pub fn account<'a>(&'a self, query: &Query) -> Result<&'a str, String> {
        match (query.get("email"), self.accounts.as_slice()) {
            (None, [only]) => Ok(only),
            (None, _) => Err("Query parameter email is required: multiple accounts \
                              are configured."
                .to_string()),
            (Some(email), accounts) => accounts
                .iter()
                .find(|account| *account == email)
                .map(String::as_str)
                .ok_or_else(|| format!("Account {email} is not configured.")),
        }
    }

    /// The account that holds an asset: its own, or the first.
    pub fn account_of<'a>(&'a self, own: &'a Option<String>) -> &'a str {
        own.as_deref().unwrap_or(&self.accounts[0])
    }

    /// `user:user_id-runwayml:account_email-asset:asset_uuid`.
    pub fn runway_asset_id(&self, held: &Held<RunwayAsset>) -> String {
        let account = self.account_of(&held.asset.account);
        format!("user:1234-runwayml:{account}-asset:{}", held.id)
    }
}
