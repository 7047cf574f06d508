//! The cheapest question that shows whether a service is there and takes the account.

use std::time::SystemTime;

use super::failure::{self, Asked};
use super::{Library, ProviderError, Service, ltx, runflow, runway};
use crate::http::{ApiClient, ApiRequest};

/// A UUID that no asset has: all its bits but the version's and the variant's are zero.
const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

/// What the service said.
pub struct Checkup {
    /// The service's own clock.
    pub date: Option<SystemTime>,
    pub answer: Result<(), ProviderError>,
}

/// Asks once: Runway and LTX for a page of one asset, Runflow for an asset that can't exist.
/// `account` is the email, or the organization, that the user configured.
pub fn check_up(api: &ApiClient, service: Service, account: Option<&str>) -> Checkup {
    let email = account.map(|email| ("email", email.to_string()));
    let (request, asked) = match service {
        Service::Runway => {
            let page = [
                ("offset", "0".to_string()),
                ("limit", "1".to_string()),
                ("mediaType", Library::RunwayVideo.name().to_string()),
            ];
            (page_of(runway::ASSETS, page, email), Asked::Page)
        }
        Service::Ltx => {
            let page = [
                ("page", "1".to_string()),
                ("limit", "1".to_string()),
                ("filter", Library::LtxVideos.name().to_string()),
            ];
            (page_of(ltx::ASSETS, page, email), Asked::Page)
        }
        Service::Runflow => {
            let request = ApiRequest {
                path: runflow::ASSETS,
                id: Some(NOBODY),
                headers: account
                    .map(|organization| ("x-organization-id", organization))
                    .into_iter()
                    .collect(),
                ..ApiRequest::default()
            };
            (request, Asked::Asset)
        }
    };
    let seen = api.glance(&request);
    let answer = seen.answer.map_err(|e| failure::of_call(service, asked, e));
    Checkup {
        date: seen.date,
        answer: match answer {
            Err(ProviderError::NotFound) => Ok(()),
            answer => answer,
        },
    }
}

fn page_of<'a>(
    path: &'a str,
    page: [(&'a str, String); 3],
    email: Option<(&'a str, String)>,
) -> ApiRequest<'a> {
    ApiRequest {
        path,
        query: page.into_iter().chain(email).collect(),
        ..ApiRequest::default()
    }
}
