//! The three APIs and the asset host in one process, for `reelfs demo`, `reelfs emulate`, tests
//! and benchmarks. An independent reading of the API pages: nothing of `provider` or `http` is
//! used here, so that a misreading there is found out.
//!
//! Promise: everything documented is checked, more strictly than the real services do (see each
//! service's module). Three listeners, so that APIs and asset host are different origins, on
//! tokio threads of the emulator's own; dropping [`Emulator`] closes them and every connection
//! and waits for that. Everything lives in memory, uploads as well.
//!
//! It fails only at the start, where an address can't be bound; what goes wrong later on one
//! connection ends that connection and is logged at debug level.

mod admin;
mod answer;
mod asset;
mod asset_host;
pub mod cli;
mod content;
mod fault;
mod grammar;
mod library;
mod link;
mod ltx;
mod query;
mod reply;
mod request;
mod request_log;
mod runflow;
mod runway;
mod sample;
mod server;
mod shared;
mod sign;
mod synthetic;
mod upload_type;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::sync::oneshot;
use uuid::Uuid;

pub use asset::{ABSENT, LtxAsset, RunflowAsset, RunwayAsset};
pub use content::Content;
pub use fault::{Effect, ErrorBody, Fault};
pub use grammar::FaultSyntaxError;
pub use link::Link;
pub use request_log::{LoggedRequest, RequestWatch};
pub use sample::{SAMPLE_FILES, SAMPLE_RUNFLOW_IDS, SampleFile};
pub use synthetic::synthetic_runflow_id;

use crate::clock::{Clock, SystemClock};
use fault::Faults;
use library::Library;
use shared::{Counters, Settings, Shared};
use sign::Signer;

/// One of the emulator's three origins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HostKind {
    /// Runway's and LTX Studio's API.
    Useapi,
    /// Runflow's API.
    Runflow,
    /// What signed URLs lead to.
    Asset,
}

/// How an emulator starts. `EmulatorConfig::default()` suits tests.
#[derive(Clone)]
pub struct EmulatorConfig {
    /// useapi.net's address. Port 0 takes any free ports; with another port, Runflow takes the
    /// next one and the asset host the one after.
    pub listen: SocketAddr,
    pub useapi_token: String,
    pub runflow_token: String,
    /// If set, an `X-Organization-Id` that differs from it is refused.
    pub runflow_organization: Option<String>,
    /// The emails of the linked accounts; `email` becomes a required parameter with two. With
    /// none, one is made up.
    pub accounts: Vec<String>,
    /// Of signed URLs, from the moment of the answer they stand in.
    pub url_lifetime: Duration,
    pub link: Link,
    /// Larger uploads are refused; they are kept in memory.
    pub max_upload_bytes: u64,
    /// What times and expiries go by.
    pub clock: Arc<dyn Clock>,
    /// Whether the asset host also lists Runway's videos at `/open/` and serves them by name
    /// without a signature, for programs that know plain HTTP only.
    pub open_listing: bool,
    /// What signed URLs begin with, where a proxy stands before the asset host; `None` is the asset
    /// host's own address.
    pub asset_origin: Option<String>,
    pub on_request: Option<RequestWatch>,
}

impl Default for EmulatorConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            useapi_token: "user:1234-emulated".to_string(),
            runflow_token: "rf-emulated".to_string(),
            runflow_organization: None,
            accounts: vec!["studio@example.com".to_string()],
            url_lifetime: Duration::from_secs(24 * 60 * 60),
            link: Link::LOOPBACK,
            max_upload_bytes: 1024 * 1024 * 1024,
            clock: Arc::new(SystemClock),
            open_listing: false,
            asset_origin: None,
            on_request: None,
        }
    }
}

/// An asset of Runway as the service holds it, for tests to compare.
#[derive(Debug, Clone)]
pub struct StoredAsset {
    pub id: String,
    /// What the API page calls `assetId`.
    pub asset_id: String,
    pub name: Option<String>,
    /// `video`, `image` or `audio`.
    pub media_type: String,
    /// Of an upload: as it was sent, in the spelling of the page's table.
    pub content_type: String,
    pub content: Content,
    pub created_at: SystemTime,
    pub is_user_upload: bool,
}

impl StoredAsset {
    pub fn size_bytes(&self) -> u64 {
        self.content.len()
    }

    /// SHA-256 of the bytes in lower-case hexadecimal.
    pub fn sha256(&self) -> String {
        self.content.sha256()
    }
}

/// What no client may do at the asset host, and how often one did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusals {
    pub heads: u64,
    /// Requests that carried an Authorization header.
    pub tokens: u64,
}

/// A running emulator; see the module's head.
pub struct Emulator {
    shared: Arc<Shared>,
    useapi_url: String,
    runflow_url: String,
    asset_host: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Emulator {
    /// Binds three addresses and serves with empty libraries.
    pub fn start(config: EmulatorConfig) -> io::Result<Self> {
        let listeners = bind(config.listen)?;
        let [useapi, runflow, asset] = listeners
            .each_ref()
            .map(|listener| listener.local_addr().map(|addr| format!("http://{addr}")));
        let asset_host = asset?;
        let asset_url = config.asset_origin.clone();
        let asset_url = asset_url.unwrap_or_else(|| asset_host.clone());
        let shared = Arc::new(shared_state(config, asset_url));
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("emulator")
            .enable_all()
            .build()?;
        let state = Arc::clone(&shared);
        let listeners = {
            // Registering a socket needs the runtime it will live in.
            let _within = runtime.enter();
            let [useapi, runflow, asset] = listeners.map(tokio::net::TcpListener::from_std);
            [useapi?, runflow?, asset?]
        };
        let thread = thread::Builder::new()
            .name("emulator-main".to_string())
            .spawn(move || {
                let hosts = [HostKind::Useapi, HostKind::Runflow, HostKind::Asset];
                for (listener, host) in listeners.into_iter().zip(hosts) {
                    runtime.spawn(server::serve(listener, host, Arc::clone(&state)));
                }
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self {
            shared,
            useapi_url: useapi?,
            runflow_url: runflow?,
            asset_host,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// `http://127.0.0.1:<port>`, for Runway and LTX Studio.
    pub fn useapi_url(&self) -> String {
        self.useapi_url.clone()
    }

    pub fn runflow_url(&self) -> String {
        self.runflow_url.clone()
    }

    /// Where the asset host listens, which is the origin of signed URLs unless
    /// [`EmulatorConfig::asset_origin`] says otherwise.
    pub fn asset_host(&self) -> String {
        self.asset_host.clone()
    }

    /// The origin of signed URLs.
    pub fn asset_url(&self) -> String {
        self.shared.asset_url.clone()
    }

    pub fn useapi_token(&self) -> String {
        self.shared.useapi_token.clone()
    }

    pub fn runflow_token(&self) -> String {
        self.shared.runflow_token.clone()
    }

    /// Adds an asset; its id.
    pub fn add_runway(&self, asset: RunwayAsset) -> String {
        self.shared.library().add_runway(asset, self.shared.now())
    }

    /// Adds an asset; its id.
    pub fn add_ltx(&self, asset: LtxAsset) -> String {
        self.shared.library().add_ltx(asset, self.shared.now())
    }

    /// Adds an asset; its id.
    pub fn add_runflow(&self, asset: RunflowAsset) -> String {
        self.shared.library().add_runflow(asset, self.shared.now())
    }

    /// Removes an asset of any service and its object; whether there was one.
    pub fn remove(&self, id: &str) -> bool {
        self.shared.library().remove(id)
    }

    /// Gives an asset of any service new bytes, ETag and update time; whether there was one.
    pub fn replace_content(&self, id: &str, content: Content) -> bool {
        let now = self.shared.now();
        self.shared.library().replace_content(id, content, now)
    }

    /// Runway's assets, newest first.
    pub fn runway_assets(&self) -> Vec<StoredAsset> {
        let library = self.shared.library();
        let newest_first = library.runway.iter().rev();
        newest_first
            .filter_map(|held| {
                let object = library.object(&held.path)?;
                Some(StoredAsset {
                    id: held.id.clone(),
                    asset_id: self.shared.runway_asset_id(held),
                    name: held.asset.name.clone(),
                    media_type: held.asset.media_type.clone(),
                    content_type: held.asset.content_type.clone(),
                    content: object.content.clone(),
                    created_at: held.created_at,
                    is_user_upload: held.asset.is_user_upload,
                })
            })
            .collect()
    }

    /// A URL of the asset's object, valid from now for the present lifetime.
    pub fn signed_url(&self, id: &str) -> Option<String> {
        let path = self.shared.library().path_of(id)?;
        Some(self.shared.signed_url(&path))
    }

    /// Sets a fault for the requests to come, after those that are set.
    pub fn add_fault(&self, fault: Fault) {
        self.shared.faults.add(fault);
    }

    /// Lets everything go right again.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// Requests hit by the faults that are set.
    pub fn fault_hits(&self) -> u64 {
        self.shared.faults.hits()
    }

    /// For URLs signed from now on.
    pub fn set_url_lifetime(&self, lifetime: Duration) {
        self.shared.settings().url_lifetime = lifetime;
    }

    /// How old, by the emulator's clock, an asset has to be before Runway's list shows it; the
    /// call for the single asset has it at once.
    pub fn set_listing_lag(&self, lag: Duration) {
        self.shared.settings().listing_lag = lag;
    }

    /// For connections accepted from now on.
    pub fn set_link(&self, link: Link) {
        self.shared.settings().link = link;
    }

    /// Every request so far in the order of arrival (the last 200,000).
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.shared.log.snapshot()
    }

    /// Begins the log of requests anew.
    pub fn clear_requests(&self) {
        self.shared.log.clear();
    }

    pub fn refusals(&self) -> Refusals {
        let counters = &self.shared.counters;
        Refusals {
            heads: counters.heads_refused.load(Ordering::Relaxed),
            tokens: counters.tokens_refused.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn shared_state(config: EmulatorConfig, asset_url: String) -> Shared {
    let mut accounts = config.accounts;
    if accounts.is_empty() {
        accounts.push("studio@example.com".to_string());
    }
    let now = config.clock.now();
    Shared {
        useapi_token: config.useapi_token,
        runflow_token: config.runflow_token,
        runflow_organization: config.runflow_organization,
        accounts,
        max_upload_bytes: config.max_upload_bytes,
        asset_url,
        clock: config.clock,
        signer: Signer::new(Uuid::new_v4().as_bytes()),
        library: Mutex::new(Library::new(now)),
        settings: Mutex::new(Settings {
            url_lifetime: config.url_lifetime,
            link: config.link,
            listing_lag: Duration::ZERO,
        }),
        faults: Faults::default(),
        open_listing: config.open_listing,
        on_request: config.on_request,
        log: request_log::RequestLog::default(),
        counters: Counters::default(),
        nonces: AtomicU64::new(1),
        connections: AtomicU64::new(0),
    }
}

fn bind(listen: SocketAddr) -> io::Result<[TcpListener; 3]> {
    let at = |offset: u16| {
        let mut addr = listen;
        if listen.port() != 0 {
            let port = listen.port().checked_add(offset).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "three ports are needed from the given one on",
                )
            })?;
            addr.set_port(port);
        }
        let listener = TcpListener::bind(addr).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen at {addr}: {error}"))
        })?;
        listener.set_nonblocking(true)?;
        Ok::<_, io::Error>(listener)
    };
    Ok([at(0)?, at(1)?, at(2)?])
}

#[cfg(test)]
mod tests;
