//! Doors before the services: relays whose listening end can be shut, speak plain text where TLS is
//! expected, or show a certificate that nobody vouches for.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::until;

/// What a door does with who comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Leads to the service.
    Open,
    /// Nobody listens.
    Shut,
    /// Answers in plain text.
    PlainText,
    /// TLS with another certificate.
    Stranger,
}

/// One door. Everything that passes is cut when its way changes.
pub struct Door {
    pub address: SocketAddr,
    way: watch::Sender<Way>,
    target: watch::Sender<Option<SocketAddr>>,
}

/// Opens a door.
pub struct Handle(watch::Sender<Way>);

impl Handle {
    pub fn open(&self) {
        self.0.send_replace(Way::Open);
    }
}

/// Certificates in files, made once for a run.
#[derive(Clone)]
pub struct Certificates {
    trusted: Arc<ServerConfig>,
    stranger: Arc<ServerConfig>,
}

/// Of the address that all TLS doors are at.
pub const TLS_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);

impl Certificates {
    /// Makes them with the openssl program. `SSL_CERT_FILE` set to `trusted.pem` makes the first
    /// one trusted.
    pub fn make(directory: &Path) {
        for name in ["trusted", "stranger"] {
            let output = Command::new("openssl")
                .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
                .args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
                .args(["-subj", &format!("/CN={name}"), "-addext"])
                .arg(format!("subjectAltName=IP:{TLS_ADDRESS}"))
                .args(["-addext", "basicConstraints=critical,CA:FALSE"])
                .arg("-keyout")
                .arg(directory.join(format!("{name}.key")))
                .arg("-out")
                .arg(directory.join(format!("{name}.pem")))
                .output()
                .expect("openssl is missing: apt-get install openssl");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "openssl: {said}");
        }
    }

    /// Reads what [`Self::make`] made.
    pub fn read(directory: &Path) -> Self {
        let config = |name: &str| {
            let file = |extension: &str| fs::read(directory.join(format!("{name}.{extension}")));
            let chain = CertificateDer::from_pem_slice(&file("pem").unwrap()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(&file("key").unwrap()).unwrap();
            let config = ServerConfig::builder()
                .with_no_client_auth()
                .with_single_cert(vec![chain], key);
            Arc::new(config.expect("a key that fits its certificate"))
        };
        reelfs::http::install_tls();
        Self {
            trusted: config("trusted"),
            stranger: config("stranger"),
        }
    }
}

impl Door {
    /// A door that leads nowhere yet. With certificates it speaks TLS.
    pub fn new(runtime: &Runtime, certificates: Option<Certificates>) -> Self {
        let host = match certificates {
            Some(_) => TLS_ADDRESS,
            None => own_address(),
        };
        let listener = runtime.block_on(TcpListener::bind((host, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (way, ways) = watch::channel(Way::Open);
        let (target, targets) = watch::channel(None);
        runtime.spawn(keep(address, Some(listener), ways, targets, certificates));
        Self {
            address,
            way,
            target,
        }
    }

    /// Where it leads when it is open.
    pub fn leads_to(&self, origin: &str) {
        let address = origin.trim_start_matches("http://").parse().unwrap();
        self.target.send_replace(Some(address));
    }

    /// For another thread, to open it.
    pub fn handle(&self) -> Handle {
        Handle(self.way.clone())
    }

    /// Returns once whoever comes finds it so.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
        until("the door is as it should be", || {
            let stream = std::net::TcpStream::connect(self.address);
            match (stream, way) {
                (Err(_), Way::Shut) => true,
                (Ok(mut stream), Way::PlainText) => {
                    let mut answer = [0; 4];
                    stream.write_all(b"?").is_ok()
                        && stream.read_exact(&mut answer).is_ok()
                        && answer == *b"HTTP"
                }
                (Ok(_), Way::Open | Way::Stranger) => true,
                _ => false,
            }
        });
    }
}

/// Of this process alone, so that a port that a shut door left is nobody else's meanwhile.
fn own_address() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 | high, middle, low)
}

async fn keep(
    address: SocketAddr,
    mut listener: Option<TcpListener>,
    mut ways: watch::Receiver<Way>,
    targets: watch::Receiver<Option<SocketAddr>>,
    certificates: Option<Certificates>,
) {
    loop {
        let way = *ways.borrow_and_update();
        if way == Way::Shut {
            listener = None;
            if ways.changed().await.is_err() {
                return;
            }
            continue;
        }
        if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
        }
        let Some(open) = &listener else {
            tokio::task::yield_now().await;
            continue;
        };
        tokio::select! {
            accepted = open.accept() => {
                let (Ok((stream, _)), Some(target)) = (accepted, *targets.borrow()) else {
                    continue;
                };
                let (mut ways, certificates) = (ways.clone(), certificates.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        _ = relay(stream, target, way, certificates) => {}
                        _ = ways.changed() => {}
                    }
                });
            }
            changed = ways.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

async fn relay(
    mut stream: TcpStream,
    target: SocketAddr,
    way: Way,
    certificates: Option<Certificates>,
) -> std::io::Result<()> {
    if way == Way::PlainText {
        let mut hello = [0; 512];
        let _ = stream.read(&mut hello).await?;
        return stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            .await;
    }
    let mut service = TcpStream::connect(target).await?;
    match certificates {
        None => copy_bidirectional(&mut stream, &mut service).await?,
        Some(certificates) => {
            let config = match way {
                Way::Stranger => certificates.stranger,
                _ => certificates.trusted,
            };
            let mut stream = TlsAcceptor::from(config).accept(stream).await?;
            copy_bidirectional(&mut stream, &mut service).await?
        }
    };
    Ok(())
}
