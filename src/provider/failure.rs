//! What a failed call means for the user. Pure but for a log line.
//!
//! Promise: every status of the pages and of useapi.net's other services has one meaning, the
//! texts say what to mend, and they carry no secret (`http` took those out).

use super::{ProviderError, Service};
use crate::http::{TransportError, UploadError};

/// What was asked: a 404 means something else for one asset than for a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A listing, or an upload: the page itself must be there.
    Page,
    /// One asset by its id.
    Asset,
}

/// The meaning of a call that failed with its retries.
pub fn of_call(service: Service, asked: Asked, error: TransportError) -> ProviderError {
    let TransportError::Status {
        host,
        status,
        message,
        retry_after,
    } = error
    else {
        return ProviderError::Unavailable {
            service,
            source: error,
        };
    };
    match status {
        400 if asks_for_account(&message) => denied_for_account(service, &message),
        401 => ProviderError::Denied(format!(
            "{service}: the token was refused{}; check {}",
            said(&message),
            token_variable(service)
        )),
        403 => ProviderError::Denied(format!(
            "{service}: access was refused{}; check that {} belongs to the account that owns it",
            said(&message),
            token_variable(service)
        )),
        596 => ProviderError::Denied(format!(
            "{service}: the linked account's session is broken{}; set the account up again at useapi.net",
            said(&message)
        )),
        402 => ProviderError::Quota(or_else(&message, "payment required")),
        404 | 410 if asked == Asked::Asset => ProviderError::NotFound,
        404 | 410 => ProviderError::Unavailable {
            service,
            source: TransportError::Status {
                host,
                status,
                message: format!(
                    "there is no such page{}; the service was retired or {} is wrong",
                    said(&message),
                    url_variable(service)
                ),
                retry_after: None,
            },
        },
        429 => ProviderError::RateLimited { retry_after },
        501 => refused(status, &message),
        408 | 425 | 500.. | ..400 => ProviderError::Unavailable {
            service,
            source: TransportError::Status {
                host,
                status,
                message,
                retry_after,
            },
        },
        _ => refused(status, &message),
    }
}

/// The meaning of an upload that failed.
pub fn of_upload(service: Service, error: UploadError) -> ProviderError {
    match error {
        UploadError::NotDone(error) => of_call(service, Asked::Page, error),
        UploadError::AnswerLost(error) => ProviderError::AnswerLost(error),
        UploadError::LocalFile(why) => ProviderError::LocalFile(why),
    }
}

fn refused(status: u16, message: &str) -> ProviderError {
    ProviderError::Refused {
        status,
        message: or_else(message, "no reason given"),
    }
}

/// useapi.net answers 400 where several accounts are configured and none was named, or an unknown
/// one was.
fn asks_for_account(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let speaks_of = |words: &[&str]| words.iter().any(|word| message.contains(word));
    speaks_of(&["email"])
        || (speaks_of(&["account"])
            && speaks_of(&["multiple", "specify", "configured", "required"]))
}

fn denied_for_account(service: Service, message: &str) -> ProviderError {
    let advice = match service {
        Service::Runway => "set RUNWAY_EMAIL (--runway-email) to one of the configured accounts",
        Service::Ltx => "set LTX_EMAIL (--ltx-email) to one of the configured accounts",
        Service::Runflow => "check RUNFLOW_TOKEN and RUNFLOW_ORGANIZATION_ID",
    };
    let text = format!(
        "{service} asks which account to use{}; {advice}",
        said(message)
    );
    log::warn!("{text}");
    ProviderError::Denied(text)
}

fn token_variable(service: Service) -> &'static str {
    match service {
        Service::Runway | Service::Ltx => "USEAPI_TOKEN",
        Service::Runflow => "RUNFLOW_TOKEN (and RUNFLOW_ORGANIZATION_ID if it is set)",
    }
}

fn url_variable(service: Service) -> &'static str {
    match service {
        Service::Runway | Service::Ltx => "REELFS_USEAPI_URL",
        Service::Runflow => "REELFS_RUNFLOW_URL",
    }
}

fn said(message: &str) -> String {
    if message.is_empty() {
        return String::new();
    }
    format!(" ({message})")
}

fn or_else(message: &str, otherwise: &str) -> String {
    let text = if message.is_empty() {
        otherwise
    } else {
        message
    };
    text.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn status(status: u16, message: &str) -> TransportError {
        TransportError::Status {
            host: "api.example".into(),
            status,
            message: message.into(),
            retry_after: Some(Duration::from_secs(9)),
        }
    }

    fn page(service: Service, code: u16, message: &str) -> ProviderError {
        of_call(service, Asked::Page, status(code, message))
    }

    #[test]
    fn refused_access_names_what_to_mend() {
        for (service, code, word) in [
            (Service::Runway, 401, "USEAPI_TOKEN"),
            (Service::Ltx, 403, "USEAPI_TOKEN"),
            (Service::Runflow, 401, "RUNFLOW_TOKEN"),
            (Service::Runway, 596, "useapi.net"),
        ] {
            let error = page(service, code, "no");
            assert!(
                matches!(&error, ProviderError::Denied(text) if text.contains(word) && text.contains("(no)")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_question_for_the_account_names_the_variable_to_set() {
        for (service, said, variable) in [
            (
                Service::Runway,
                "Parameter email is required",
                "RUNWAY_EMAIL",
            ),
            (Service::Ltx, "Multiple accounts configured", "LTX_EMAIL"),
        ] {
            let error = page(service, 400, said);
            assert!(
                matches!(&error, ProviderError::Denied(text) if text.contains(variable)),
                "{error}"
            );
        }
        assert!(matches!(
            page(Service::Runway, 400, "Unsupported content"),
            ProviderError::Refused { status: 400, .. }
        ));
    }

    #[test]
    fn a_404_is_a_missing_asset_or_a_missing_service() {
        for code in [404, 410] {
            let asset = of_call(Service::Runway, Asked::Asset, status(code, "Not found."));
            assert!(matches!(asset, ProviderError::NotFound));
            let listing = page(Service::Ltx, code, "");
            assert!(matches!(listing, ProviderError::Unavailable { .. }));
            assert!(
                listing.to_string().contains("REELFS_USEAPI_URL"),
                "{listing}"
            );
        }
    }

    #[test]
    fn every_other_status_has_its_meaning() {
        assert!(matches!(
            page(Service::Runway, 402, ""),
            ProviderError::Quota(_)
        ));
        assert!(matches!(
            page(Service::Runway, 429, ""),
            ProviderError::RateLimited { retry_after: Some(wait) } if wait.as_secs() == 9
        ));
        for code in [400, 405, 409, 412, 413, 415, 422, 501] {
            let error = page(Service::Runway, code, "no");
            assert!(
                matches!(error, ProviderError::Refused { status, .. } if status == code),
                "{error}"
            );
        }
        for code in [302, 408, 425, 500, 502, 503, 504, 522, 524] {
            let error = page(Service::Runway, code, "no");
            assert!(
                matches!(error, ProviderError::Unavailable { .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn an_uploads_lost_answer_and_local_trouble_stay_apart() {
        let lost = UploadError::AnswerLost(TransportError::Timeout { host: "h".into() });
        assert!(matches!(
            of_upload(Service::Runway, lost),
            ProviderError::AnswerLost(_)
        ));
        let local = UploadError::LocalFile("gone".into());
        assert!(matches!(
            of_upload(Service::Runway, local),
            ProviderError::LocalFile(_)
        ));
        let refused = UploadError::NotDone(status(415, ""));
        assert!(matches!(
            of_upload(Service::Runway, refused),
            ProviderError::Refused { .. }
        ));
    }
}
