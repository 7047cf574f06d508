//! One look at an API: one GET, never repeated, and what its answer says of the road, the token and
//! the time. For diagnosis; everything else asks with retries (`api`).
//!
//! Promise: it ends by [`Deadlines::stall`](super::Deadlines) for the head of the answer and as much
//! for its body; errors carry no token and no URL's query.

use std::time::SystemTime;

use reqwest::Method;
use reqwest::header::DATE;
use tokio::time::timeout;

use super::api::{ApiClient, Shared};
use super::{ApiRequest, TransportError};

/// What came back.
pub struct Glance {
    /// The service's own clock.
    pub date: Option<SystemTime>,
    pub answer: Result<(), TransportError>,
}

impl ApiClient {
    /// Asks once.
    pub fn glance(&self, request: &ApiRequest<'_>) -> Glance {
        let shared = &self.shared;
        let mut date = None;
        let answer = shared.block_on(shared.look(request, &mut date));
        Glance { date, answer }
    }
}

impl Shared {
    async fn look(
        &self,
        request: &ApiRequest<'_>,
        date: &mut Option<SystemTime>,
    ) -> Result<(), TransportError> {
        let sent = self
            .calls
            .get(self.url(request)?)
            .headers(self.headers(request)?)
            .send();
        let response = timeout(self.deadlines.stall, sent)
            .await
            .map_err(|_| self.timed_out())?
            .map_err(|error| self.transport_error(&error))?;
        let told = response.headers().get(DATE);
        let told = told.and_then(|date| date.to_str().ok());
        *date = told.and_then(|date| httpdate::parse_http_date(date).ok());
        let answer = self.read(response).await?;
        self.judge(answer, &Method::GET).map(drop)
    }
}
