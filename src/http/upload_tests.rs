use std::io::Write;
use std::time::Duration;

use super::*;
use crate::clock::SystemClock;
use crate::http::test_server::{Bodies, Reply, TestServer, html, json};
use crate::http::{ApiToken, Deadlines};

fn client(server: &TestServer) -> ApiClient {
    client_at(server.url().as_str())
}

fn client_at(url: &str) -> ApiClient {
    let deadlines = Deadlines {
        connect: Duration::from_millis(500),
        stall: Duration::from_millis(200),
        total: Duration::from_secs(2),
    };
    let token = ApiToken::new("user:1-sEcReT").unwrap();
    ApiClient::new(
        url.parse().unwrap(),
        token,
        deadlines,
        Arc::new(SystemClock),
    )
    .unwrap()
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 % 251) as u8).collect()
}

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

fn upload_of(content: &[u8]) -> ApiUpload<'static> {
    ApiUpload {
        content_type: "image/png",
        body: file(content),
        size_bytes: content.len() as u64,
        sent_bytes: Arc::new(AtomicU64::new(0)),
    }
}

fn target() -> ApiRequest<'static> {
    ApiRequest {
        path: "v1/things/",
        query: vec![("name", "a b.png".to_string())],
        ..ApiRequest::default()
    }
}

fn send(server: &TestServer, content: &[u8]) -> Result<Value, UploadError> {
    client(server).upload(&target(), upload_of(content))
}

#[test]
fn the_whole_file_arrives_with_its_length_and_type() {
    let server = TestServer::replying(vec![json(200, r#"{"id":"1"}"#)]);
    let content = bytes(1_000_003);
    let upload = upload_of(&content);
    let sent = Arc::clone(&upload.sent_bytes);
    let answer = client(&server).upload(&target(), upload).unwrap();
    assert_eq!(answer["id"], "1");
    assert_eq!(sent.load(Ordering::Relaxed), 1_000_003);
    let seen = &server.seen()[0];
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("POST", "/v1/things/?name=a%20b.png")
    );
    assert_eq!(seen.header("content-length"), Some("1000003"));
    assert_eq!(seen.header("transfer-encoding"), None);
    assert_eq!(seen.header("content-type"), Some("image/png"));
    assert!(seen.body == content);
}

#[test]
fn an_empty_file_is_sent_as_one() {
    let server = TestServer::replying(vec![json(200, r#"{"id":"1"}"#)]);
    send(&server, b"").unwrap();
    assert_eq!(server.seen()[0].header("content-length"), Some("0"));
}

#[test]
fn an_answer_that_is_lost_is_said_so_and_nothing_is_sent_again() {
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec();
    for reply in [
        Reply::Drop,
        Reply::Raw(cut),
        html(200),
        html(502),
        json(500, r#"{"error":"x"}"#),
        json(408, "{}"),
        json(303, "{}").with("Location", "/done"),
    ] {
        let server = TestServer::replying(vec![reply, json(200, "{}")]);
        let lost = send(&server, &bytes(100_000)).unwrap_err();
        assert!(matches!(lost, UploadError::AnswerLost(_)), "{lost}");
        assert_eq!(server.count(), 1);
    }
}

#[test]
fn a_verdict_means_that_nothing_was_done() {
    for code in [400, 401, 402, 403, 404, 409, 413, 415, 422, 429, 501, 596] {
        let server = TestServer::replying(vec![json(code, r#"{"error":"no"}"#)]);
        let refused = send(&server, &bytes(1000)).unwrap_err();
        assert!(
            matches!(&refused, UploadError::NotDone(TransportError::Status { status, .. }) if *status == code),
            "{refused}"
        );
        assert_eq!(server.count(), 1);
    }
}

#[test]
fn a_refusal_in_the_middle_of_the_body_is_understood() {
    let server = TestServer::start_with(Bodies::LeftUnread, |_| {
        json(401, r#"{"error":"Unauthorized","code":401}"#)
    });
    // Either the verdict or, where the server's reset overtook it, a lost answer; never a success
    // and never a second request.
    let refused = send(&server, &bytes(20_000_000)).unwrap_err();
    assert!(
        matches!(
            refused,
            UploadError::NotDone(TransportError::Status { status: 401, .. })
                | UploadError::AnswerLost(_)
        ),
        "{refused}"
    );
    assert_eq!(server.count(), 1);
}

#[test]
fn a_success_before_the_body_is_whole_is_not_believed() {
    let server = TestServer::start_with(Bodies::LeftUnread, |_| json(200, r#"{"id":"1"}"#));
    let lost = send(&server, &bytes(20_000_000)).unwrap_err();
    assert!(matches!(lost, UploadError::AnswerLost(_)), "{lost}");
}

#[test]
fn a_server_that_stops_reading_is_given_up() {
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let server = TestServer::start_with(Bodies::LeftUnread, move |_| {
        let _ = held.lock().unwrap().recv();
        Reply::Drop
    });
    let lost = send(&server, &bytes(20_000_000)).unwrap_err();
    drop(hold);
    assert!(
        matches!(
            lost,
            UploadError::AnswerLost(TransportError::Timeout { .. })
        ),
        "{lost}"
    );
}

#[test]
fn a_file_that_became_shorter_leaves_no_whole_body_behind() {
    let server = TestServer::start(|seen| {
        assert!(
            seen.body.len() < 600_000,
            "the server must not get a whole body"
        );
        Reply::Drop
    });
    let mut upload = upload_of(&bytes(500_000));
    upload.size_bytes = 600_000;
    let error = client(&server).upload(&target(), upload).unwrap_err();
    assert!(
        matches!(&error, UploadError::LocalFile(why) if why.contains("shorter")),
        "{error}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_a_local_error() {
    let server = TestServer::start(|_| Reply::Drop);
    let mut upload = upload_of(b"");
    upload.size_bytes = 10;
    upload.body = File::open("/").unwrap();
    let error = client(&server).upload(&target(), upload).unwrap_err();
    assert!(matches!(error, UploadError::LocalFile(_)), "{error}");
}

#[test]
fn a_host_that_cannot_be_reached_means_nothing_was_done() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let error = client_at(&format!("http://127.0.0.1:{port}"))
        .upload(&target(), upload_of(&bytes(1000)))
        .unwrap_err();
    assert!(
        matches!(error, UploadError::NotDone(TransportError::Connect { .. })),
        "{error}"
    );
}

#[test]
fn an_upload_follows_no_redirect() {
    let server = TestServer::start(|_| json(308, "{}").with("Location", "/v1/things"));
    let error = send(&server, &bytes(1000)).unwrap_err();
    assert!(
        matches!(
            error,
            UploadError::NotDone(TransportError::ForbiddenTarget { .. })
        ),
        "{error}"
    );
    assert_eq!(server.count(), 1);
}

#[test]
fn a_rate_limit_names_its_wait_and_silences_the_account() {
    let server = TestServer::replying(vec![json(429, "{}").with("Retry-After", "60")]);
    let client = client(&server);
    for _ in 0..2 {
        let error = client.upload(&target(), upload_of(&bytes(10))).unwrap_err();
        let UploadError::NotDone(TransportError::Status {
            status: 429,
            retry_after: Some(wait),
            ..
        }) = error
        else {
            panic!("{error}");
        };
        assert!(wait > Duration::from_secs(50));
    }
    assert_eq!(server.count(), 1);
}
