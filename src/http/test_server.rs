//! A scripted server for tests: it records every request and answers by a closure, or drops the
//! connection. One request a connection, so that what a test counts is what was sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use url::Url;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// What came of the body before its end or the connection's.
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A decoded query parameter.
    pub fn query(&self, name: &str) -> Option<String> {
        let url = Url::parse(&format!("http://h{}", self.target)).unwrap();
        url.query_pairs()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.into_owned())
    }

    pub fn number(&self, name: &str) -> usize {
        self.query(name).unwrap().parse().unwrap()
    }
}

pub(crate) enum Reply {
    Answer {
        status: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    },
    /// Closes the connection without a word.
    Drop,
    /// Sends this and closes.
    Raw(Vec<u8>),
    /// Keeps the connection open and says nothing.
    Silence,
}

pub(crate) fn json(status: u16, body: impl ToString) -> Reply {
    Reply::Answer {
        status,
        headers: vec![("Content-Type".into(), "application/json".into())],
        body: body.to_string().into_bytes(),
    }
}

pub(crate) fn html(status: u16) -> Reply {
    Reply::Answer {
        status,
        headers: vec![("Content-Type".into(), "text/html".into())],
        body: format!("<html><head><title>{status} gateway</title></head></html>").into_bytes(),
    }
}

impl Reply {
    pub fn with(mut self, name: &str, value: &str) -> Self {
        if let Reply::Answer { headers, .. } = &mut self {
            headers.push((name.into(), value.into()));
        }
        self
    }
}

/// Whether a request's body is read before it is answered.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Bodies {
    Read,
    LeftUnread,
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

pub(crate) struct TestServer {
    url: Url,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl TestServer {
    pub fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(Bodies::Read, script)
    }

    pub fn start_with(
        bodies: Bodies,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, script) = (Arc::clone(&seen), Arc::new(script));
        // The thread ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, script) = (Arc::clone(&log), Arc::clone(&script));
                thread::spawn(move || serve(stream, bodies, &log, &*script));
            }
        });
        Self { url, seen }
    }

    /// Answers the n-th request by the n-th reply, all further ones by the last.
    pub fn replying(replies: Vec<Reply>) -> Self {
        let replies = Mutex::new(replies);
        Self::start(move |_| {
            let mut replies = replies.lock().unwrap();
            if replies.len() > 1 {
                return replies.remove(0);
            }
            replies.pop().unwrap_or(Reply::Drop)
        })
    }

    pub fn url(&self) -> Url {
        self.url.clone()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn serve(stream: TcpStream, bodies: Bodies, log: &Mutex<Vec<Seen>>, script: &Script) {
    let mut reader = BufReader::new(stream);
    let Some((mut seen, length)) = read_head(&mut reader) else {
        return;
    };
    if bodies == Bodies::Read {
        let _ = reader.by_ref().take(length).read_to_end(&mut seen.body);
    }
    let reply = script(&seen);
    log.lock().unwrap().push(seen);
    let mut stream = reader.into_inner();
    match reply {
        Reply::Drop => {}
        Reply::Raw(bytes) => drop(stream.write_all(&bytes)),
        // Ends when the client goes.
        Reply::Silence => drop(stream.read_to_end(&mut Vec::new())),
        Reply::Answer {
            status,
            headers,
            body,
        } => {
            let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
            for (name, value) in headers {
                head += &format!("{name}: {value}\r\n");
            }
            head += &format!("Content-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&body);
        }
    }
}

fn read_head(reader: &mut BufReader<TcpStream>) -> Option<(Seen, u64)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let mut seen = Seen {
        method: words.next()?.to_string(),
        target: words.next()?.to_string(),
        headers: Vec::new(),
        body: Vec::new(),
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let header = (name.to_ascii_lowercase(), value.trim().to_string());
        seen.headers.push(header);
    }
    let length = seen
        .header("content-length")
        .map_or(0, |v| v.parse().unwrap());
    Some((seen, length))
}
