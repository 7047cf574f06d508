//! A client of a scripted server, for the providers' tests.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::SystemClock;
use crate::http::test_server::TestServer;
use crate::http::{ApiClient, ApiToken, Deadlines};

pub(crate) fn api(server: &TestServer) -> ApiClient {
    let deadlines = Deadlines {
        connect: Duration::from_secs(1),
        stall: Duration::from_secs(2),
        total: Duration::from_secs(3),
    };
    let token = ApiToken::new("user:1-sEcReT").unwrap();
    ApiClient::new(server.url(), token, deadlines, Arc::new(SystemClock)).unwrap()
}
