use std::time::{Duration, SystemTime};

use super::*;
use crate::clock::{ManualClock, SystemClock};
use crate::http::test_server::{Reply, TestServer, html, json};

const TOKEN: &str = "user:1-sEcReT";

fn short() -> Deadlines {
    Deadlines {
        connect: Duration::from_secs(1),
        stall: Duration::from_secs(1),
        total: Duration::from_secs(4),
    }
}

fn client_at(url: &str, deadlines: Deadlines) -> ApiClient {
    let token = ApiToken::new(TOKEN).unwrap();
    ApiClient::new(
        url.parse().unwrap(),
        token,
        deadlines,
        Arc::new(SystemClock),
    )
    .unwrap()
}

fn client(server: &TestServer) -> ApiClient {
    client_at(server.url().as_str(), short())
}

fn page() -> ApiRequest<'static> {
    ApiRequest {
        path: "v1/things/",
        ..ApiRequest::default()
    }
}

fn status_of(error: &TransportError) -> u16 {
    match error {
        TransportError::Status { status, .. } => *status,
        other => panic!("no status: {other}"),
    }
}

#[test]
fn a_get_carries_the_token_our_name_and_asks_for_plain_json() {
    let server = TestServer::replying(vec![json(200, "{}")]);
    client(&server).get(&page()).unwrap();
    let seen = &server.seen()[0];
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("GET", "/v1/things/")
    );
    assert_eq!(seen.header("authorization"), Some("Bearer user:1-sEcReT"));
    assert_eq!(seen.header("user-agent"), Some(USER_AGENT));
    assert_eq!(seen.header("accept"), Some("application/json"));
    assert_eq!(seen.header("accept-encoding"), Some("identity"));
}

#[test]
fn ids_and_query_values_are_encoded_and_the_bases_path_is_kept() {
    let server = TestServer::replying(vec![json(200, "{}")]);
    let client = client_at(&format!("{}base/", server.url()), short());
    client
        .get(&ApiRequest {
            path: "v1/things/",
            id: Some("user:1-x:a@b.c/ä?#%41 ..%2F"),
            query: vec![("name", "a b+c&d=é/".to_string())],
            headers: vec![("x-organization-id", "o1")],
        })
        .unwrap();
    let seen = &server.seen()[0];
    assert_eq!(
        seen.target,
        "/base/v1/things/user:1-x:a@b.c%2F%C3%A4%3F%23%2541%20..%252F?name=a%20b%2Bc%26d%3D%C3%A9%2F"
    );
    assert_eq!(seen.header("x-organization-id"), Some("o1"));
}

#[test]
fn an_id_that_would_turn_into_another_page_is_never_sent() {
    let server = TestServer::replying(vec![json(200, "{}")]);
    for id in ["", ".", ".."] {
        let request = ApiRequest {
            id: Some(id),
            ..page()
        };
        let error = client(&server).delete(&request).unwrap_err();
        assert!(matches!(error, TransportError::Malformed { .. }), "{error}");
    }
    assert_eq!(server.count(), 0);
}

#[test]
fn passing_faults_are_not_seen_by_the_caller() {
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"cut\":".to_vec();
    for fault in [
        Reply::Drop,
        Reply::Raw(cut),
        Reply::Raw(b"nonsense\r\n\r\n".to_vec()),
        html(200),
        html(502),
        json(503, r#"{"error":"busy"}"#),
    ] {
        let server = TestServer::replying(vec![fault, json(200, r#"{"ok":true}"#)]);
        let answer = client(&server).get(&page()).unwrap();
        assert_eq!((answer["ok"].as_bool(), server.count()), (Some(true), 2));
    }
}

#[test]
fn a_silent_server_is_given_up_after_the_stall_and_asked_again() {
    let server = TestServer::replying(vec![Reply::Silence, json(200, "[]")]);
    assert!(client(&server).get(&page()).is_ok());
    assert_eq!(server.count(), 2);
}

#[test]
fn a_host_that_stays_silent_ends_in_a_timeout_by_the_deadline() {
    let server = TestServer::start(|_| Reply::Silence);
    let error = client(&server).get(&page()).unwrap_err();
    assert!(matches!(error, TransportError::Timeout { .. }), "{error}");
    assert!(server.count() > 1);
}

#[test]
fn a_refused_connection_says_so() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let deadlines = Deadlines {
        total: Duration::from_millis(200),
        ..short()
    };
    let error = client_at(&format!("http://127.0.0.1:{port}"), deadlines)
        .get(&page())
        .unwrap_err();
    assert!(
        matches!(&error, TransportError::Connect { reason, .. } if reason.contains("refused")),
        "{error}"
    );
}

#[test]
fn a_peer_that_does_not_speak_tls_cannot_be_connected_to() {
    let server = TestServer::start(|_| json(200, "{}"));
    let deadlines = Deadlines {
        total: Duration::from_millis(200),
        ..short()
    };
    let url = server.url().as_str().replace("http:", "https:");
    let error = client_at(&url, deadlines).get(&page()).unwrap_err();
    assert!(matches!(error, TransportError::Connect { .. }), "{error}");
    assert_eq!(server.count(), 0, "the token went nowhere");
}

#[test]
fn verdicts_are_not_asked_for_twice() {
    for code in [400, 401, 402, 403, 404, 409, 410, 422, 501, 596] {
        let server = TestServer::replying(vec![json(code, r#"{"error":"no"}"#)]);
        let error = client(&server).get(&page()).unwrap_err();
        assert_eq!((status_of(&error), server.count()), (code, 1));
    }
}

#[test]
fn an_error_under_a_success_is_an_error() {
    let server = TestServer::replying(vec![json(200, r#"{"error":"Unauthorized","code":401}"#)]);
    assert_eq!(status_of(&client(&server).get(&page()).unwrap_err()), 401);
}

#[test]
fn what_stays_unreadable_is_malformed_after_three_attempts() {
    let server = TestServer::start(|_| html(200));
    let error = client(&server).get(&page()).unwrap_err();
    assert!(matches!(error, TransportError::Malformed { .. }), "{error}");
    assert_eq!(server.count(), 3);
}

#[test]
fn an_answer_beyond_the_limit_is_not_read_on() {
    let server = TestServer::start(|_| {
        json(
            200,
            format!("\"{}\"", "x".repeat(MAX_ANSWER_BYTES as usize)),
        )
    });
    let error = client(&server).get(&page()).unwrap_err();
    assert!(matches!(error, TransportError::TooLarge { .. }), "{error}");
    assert_eq!(server.count(), 1);
}

#[test]
fn a_redirect_within_the_origin_is_followed_with_the_token() {
    let server = TestServer::start(|seen| match seen.target.as_str() {
        "/v1/things/" => json(308, "{}").with("Location", "/v1/things"),
        _ => json(200, r#"{"ok":true}"#),
    });
    assert_eq!(client(&server).get(&page()).unwrap()["ok"], true);
    assert!(server.seen()[1].header("authorization").is_some());
}

#[test]
fn a_redirect_to_another_origin_is_refused_and_that_origin_sees_nothing() {
    let other = TestServer::start(|_| json(200, "{}"));
    let target = format!("{}steal?x=1", other.url());
    let server = TestServer::start(move |_| json(302, "{}").with("Location", &target));
    let error = client(&server).get(&page()).unwrap_err();
    let other_host = host_of(&other.url());
    assert!(
        matches!(&error, TransportError::ForbiddenTarget { target, .. } if *target == other_host),
        "{error}"
    );
    assert_eq!((server.count(), other.count()), (1, 0));
}

#[test]
fn endless_redirects_end() {
    let server = TestServer::start(|_| json(307, "{}").with("Location", "?again=1"));
    assert!(client(&server).get(&page()).is_err());
    assert_eq!(server.count() % (MAX_REDIRECTS + 1), 0);
}

#[test]
fn a_delete_is_not_redirected() {
    let server = TestServer::start(|_| json(307, "{}").with("Location", "/v1/"));
    let error = client(&server).delete(&page()).unwrap_err();
    assert!(
        matches!(error, TransportError::ForbiddenTarget { .. }),
        "{error}"
    );
    assert_eq!(server.count(), 1);
}

#[test]
fn a_rate_limit_is_waited_out_where_the_deadline_allows() {
    let server = TestServer::replying(vec![
        json(429, r#"{"error":"slow"}"#).with("Retry-After", "1"),
        json(200, "[]"),
    ]);
    client(&server).get(&page()).unwrap();
    assert_eq!(server.count(), 2);
}

#[test]
fn a_longer_rate_limit_fails_at_once_and_silences_every_call_until_it_is_over() {
    let clock = Arc::new(ManualClock::at(
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
    ));
    let server = TestServer::replying(vec![
        json(
            429,
            r#"{"error":"slow","retryAfter":"2023-11-14T22:23:20Z"}"#,
        ),
        json(200, "[]"),
    ]);
    let token = ApiToken::new(TOKEN).unwrap();
    let client = ApiClient::new(server.url(), token, short(), clock.clone()).unwrap();
    let other_call = client.clone();
    for caller in [&client, &other_call] {
        let error = caller.get(&page()).unwrap_err();
        let TransportError::Status {
            status: 429,
            retry_after,
            ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!(retry_after, Some(Duration::from_secs(600)));
    }
    assert_eq!(server.count(), 1, "the second call was not sent");
    clock.advance(Duration::from_secs(600));
    other_call.get(&page()).unwrap();
}

#[test]
fn a_clock_that_stands_still_does_not_make_a_call_endless() {
    let server = TestServer::start(|_| json(503, "{}"));
    let token = ApiToken::new(TOKEN).unwrap();
    let clock = Arc::new(ManualClock::at(SystemTime::UNIX_EPOCH));
    let client = ApiClient::new(server.url(), token, short(), clock).unwrap();
    assert_eq!(status_of(&client.get(&page()).unwrap_err()), 503);
}

#[test]
fn no_error_repeats_the_token_or_a_urls_query() {
    let said = format!(r#"{{"error":"bad {TOKEN} at https://cdn.example/a?_jwt=abc"}}"#);
    let server = TestServer::replying(vec![json(400, said)]);
    let error = client(&server).get(&page()).unwrap_err();
    let printed = format!("{error} {error:?}");
    assert!(
        !printed.contains("sEcReT") && !printed.contains("abc"),
        "{printed}"
    );
}

#[test]
fn an_empty_answer_is_fine_for_a_delete_only() {
    let server = TestServer::start(|_| json(200, ""));
    assert_eq!(client(&server).delete(&page()).unwrap(), Value::Null);
    assert!(client(&server).get(&page()).is_err());
}

#[test]
fn a_header_value_that_cannot_be_sent_is_an_error_without_a_request() {
    let server = TestServer::start(|_| json(200, "{}"));
    let request = ApiRequest {
        headers: vec![("x-organization-id", "a\r\nb")],
        ..page()
    };
    assert!(client(&server).get(&request).is_err());
    assert_eq!(server.count(), 0);
}
