//! What the services say: reached, token accepted, clocks together.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use url::Url;

use super::{Finding, Look};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::http::{ApiClient, ApiToken, Deadlines, TransportError};
use crate::provider::checkup::{Checkup, check_up};
use crate::provider::{ProviderError, Service};

/// One look fits into the doctor's limit, its connect, head and body each at their slowest but one.
const DEADLINES: Deadlines = Deadlines {
    connect: Duration::from_secs(3),
    stall: Duration::from_secs(4),
    total: Duration::from_secs(8),
};
/// Beyond this the expiry of signed URLs is misjudged: they live for minutes and are renewed 5 s
/// before their end.
const MOST_SKEW: Duration = Duration::from_secs(60);

/// One look for each service that has a token.
pub fn looks(config: &Config) -> Vec<(&'static str, Look)> {
    let (useapi, runflow) = (&config.useapi_token, &config.runflow_token);
    let all = [
        (
            Service::Runway,
            useapi,
            &config.useapi_url,
            &config.runway_email,
        ),
        (Service::Ltx, useapi, &config.useapi_url, &config.ltx_email),
        (
            Service::Runflow,
            runflow,
            &config.runflow_url,
            &config.runflow_organization,
        ),
    ];
    let mut looks: Vec<(&'static str, Look)> = Vec::new();
    for (service, token, url, account) in all {
        if let Some(token) = token.clone() {
            let (url, account) = (url.clone(), account.clone());
            let look = move || look_at(service, &url, token, account.as_deref());
            looks.push((service.name(), Box::new(look)));
        }
    }
    looks
}

fn look_at(service: Service, url: &Url, token: ApiToken, account: Option<&str>) -> Vec<Finding> {
    let what = service.name();
    let odd = odd_form(service, &token);
    let api = match ApiClient::new(url.clone(), token, DEADLINES, Arc::new(SystemClock)) {
        Ok(api) => api,
        Err(error) => {
            let remedy = "is the system's list of certificates installed (ca-certificates)?";
            return vec![Finding::problem(what, error.to_string(), remedy)];
        }
    };
    let began = SystemTime::now();
    let Checkup { date, answer } = check_up(&api, service, account);
    let host = api.host();
    let mut findings = vec![match answer {
        Ok(()) => Finding::ok(what, format!("{host} answers and takes the token")),
        Err(error) => explain(what, &error),
    }];
    if findings[0].verdict != super::Verdict::Ok {
        findings.extend(odd);
    }
    if let Some(date) = date {
        findings.push(clock(host, began, SystemTime::now(), date));
    }
    findings
}

/// useapi.net's tokens all look alike; what looks otherwise was often cut in copying.
fn odd_form(service: Service, token: &ApiToken) -> Option<Finding> {
    let is_whole = |token: &str| {
        let number = token
            .strip_prefix("user:")
            .and_then(|rest| rest.split_once('-'));
        number.is_some_and(|(number, secret)| {
            !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) && !secret.is_empty()
        })
    };
    (service != Service::Runflow && !is_whole(token.expose())).then(|| {
        Finding::warning(
            service.name(),
            "USEAPI_TOKEN does not have the form user:NUMBER-SECRET",
            "copy the whole token from useapi.net",
        )
    })
}

fn explain(what: &str, error: &ProviderError) -> Finding {
    let text = error.to_string();
    let remedy = match error {
        ProviderError::Denied(_) => {
            // These sentences end with what to mend.
            let (found, remedy) = text.split_once("; ").unwrap_or((&text, "check the token"));
            return Finding::problem(what, found, remedy);
        }
        ProviderError::Quota(_) => "renew the subscription or wait for new credits",
        ProviderError::RateLimited { .. } => {
            let remedy = "wait a minute; other programs may use the same account";
            return Finding::warning(what, text, remedy);
        }
        ProviderError::Unavailable { source, .. } => road(source),
        _ => "try again; if it stays so, the service has changed: look for a newer reelfs",
    };
    Finding::problem(what, text, remedy)
}

/// What to do about a service that can't be reached.
fn road(error: &TransportError) -> &'static str {
    match error {
        TransportError::Connect { reason, .. } => {
            let reason = reason.to_ascii_lowercase();
            let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
            if says(&["dns", "lookup", "resolve", "name or service"]) {
                "its name is not found: check the network, DNS and the configured URL"
            } else if says(&["certificate", "tls", "handshake"]) {
                "check this machine's clock and certificates, and proxies that open connections"
            } else {
                "check the network, the firewall and the configured URL"
            }
        }
        TransportError::Timeout { .. } | TransportError::Broken { .. } => {
            "check the network; if other sites answer, wait until the service does"
        }
        TransportError::Status { .. } => "wait until the service has mended it, and try again",
        _ => "check that the configured URL is the API's",
    }
}

/// The service wrote its date between the two moments, and gives it in whole seconds.
fn clock(host: &str, began: SystemTime, ended: SystemTime, date: SystemTime) -> Finding {
    let ahead = began.duration_since(date + Duration::from_secs(1));
    let behind = date.duration_since(ended);
    let way = match ahead.is_ok() {
        true => "ahead of",
        false => "behind",
    };
    let skew = ahead.or(behind).unwrap_or_default();
    if skew > MOST_SKEW {
        let skew = humantime::format_duration(Duration::from_secs(skew.as_secs()));
        return Finding::warning(
            "clock",
            format!("this machine is {skew} {way} {host}, so that signed URLs fail"),
            "set the clock: timedatectl set-ntp true",
        );
    }
    Finding::ok("clock", format!("within a minute of {host}'s"))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_clock_that_is_off_by_more_than_a_minute_is_a_warning_either_way() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let told = |date: SystemTime| clock("api", now, now + Duration::from_secs(2), date);
        assert_eq!(told(now).verdict, Verdict::Ok);
        assert_eq!(told(now + Duration::from_secs(61)).verdict, Verdict::Ok);
        let behind = told(now + Duration::from_secs(122));
        assert!(behind.found.contains("2m behind api"), "{behind:?}");
        let ahead = told(now - Duration::from_secs(3601));
        assert!(ahead.found.contains("1h ahead of api"), "{ahead:?}");
    }

    #[test]
    fn a_token_of_another_form_is_named_without_being_shown() {
        let odd = |text| odd_form(Service::Ltx, &ApiToken::new(text).unwrap());
        assert_eq!(odd("user:12-abc"), None);
        for text in ["user:12", "12-abc", "user:x-abc", "user:12-"] {
            let finding = odd(text).unwrap();
            assert!(!format!("{finding:?}").contains(text), "{finding:?}");
        }
    }
}
