//! Every documented rule of every page, asked by a plain HTTP client over real sockets.

mod asset_host;
mod faults;
mod ltx;
mod media;
mod runflow;
mod runway;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::Method;
use reqwest::blocking::{Client, RequestBuilder, Response};
use serde_json::Value;

use super::*;
use crate::clock::ManualClock;

pub(super) const STUDIO: &str = "studio@example.com";

/// An emulator, a client, and a clock that stands still.
pub(super) struct Bench {
    pub emulator: Emulator,
    pub clock: Arc<ManualClock>,
    client: Client,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut EmulatorConfig)) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let start = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_456);
        let clock = Arc::new(ManualClock::at(start));
        let mut config = EmulatorConfig {
            clock: Arc::<ManualClock>::clone(&clock),
            ..EmulatorConfig::default()
        };
        change(&mut config);
        Self {
            emulator: Emulator::start(config).unwrap(),
            clock,
            client: Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .timeout(Duration::from_secs(30))
                .build()
                .unwrap(),
        }
    }

    /// A request without a token.
    pub fn bare(&self, method: Method, url: &str) -> RequestBuilder {
        self.client.request(method, url)
    }

    /// A request to useapi.net with its token.
    pub fn useapi(&self, method: Method, target: &str) -> RequestBuilder {
        self.bare(method, &(self.emulator.useapi_url() + target))
            .bearer_auth(self.emulator.useapi_token())
    }

    /// A request to Runflow with its token.
    pub fn runflow(&self, target: &str) -> RequestBuilder {
        self.bare(Method::GET, &(self.emulator.runflow_url() + target))
            .bearer_auth(self.emulator.runflow_token())
    }

    pub fn get(&self, target: &str) -> Response {
        self.useapi(Method::GET, target).send().unwrap()
    }

    /// The bytes behind a signed URL.
    pub fn download(&self, url: &Value) -> Vec<u8> {
        let url = url.as_str().unwrap();
        let response = self.bare(Method::GET, url).send().unwrap();
        assert_eq!(response.status(), 200);
        response.bytes().unwrap().to_vec()
    }

    pub fn asset(&self, url: &str, range: Option<&str>) -> Response {
        let request = self.bare(Method::GET, url);
        let request = match range {
            Some(range) => request.header("Range", range),
            None => request,
        };
        request.send().unwrap()
    }
}

pub(super) fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

pub(super) fn page(response: Response) -> Value {
    assert_eq!(response.status(), 200);
    let content_type = header(&response, "content-type").to_string();
    assert!(
        content_type.starts_with("application/json"),
        "{content_type}"
    );
    response.json().unwrap()
}

/// The message of an error in useapi.net's envelope, its code being that of the status.
pub(super) fn refused(response: Response, status: u16) -> String {
    assert_eq!(response.status(), status);
    let envelope: Value = response.json().unwrap();
    assert_eq!(envelope["code"], status);
    envelope["error"].as_str().unwrap().to_string()
}

pub(super) fn png(name: &str) -> RunwayAsset {
    RunwayAsset::named(name, Content::stored(format!("bytes of {name}")))
}
