//! Authorities for the tests: pebble on loopback, and a front that answers whatever a test wants.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::certificates::AcmeAuthority;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Percentage of good nonces pebble refuses, three times its default.
const NONCES_REFUSED: &str = "15";
/// Attempts to find ports nobody else takes meanwhile.
const STARTS: usize = 5;
/// Ports below those the system gives to outgoing connections, which would take them at any moment.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A certificate for 127.0.0.1 and the root that signed it, as files.
pub struct Tls {
    pub root: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Tls {
    pub fn new(folder: &Path) -> Self {
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_key = KeyPair::generate().unwrap();
        let root_certificate = root.self_signed(&root_key).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
        let files = ["root.pem", "leaf.pem", "key.pem"].map(|file| folder.join(file));
        for (file, text) in files.iter().zip([root_certificate.pem(), leaf.pem(), key.serialize_pem()]) {
            std::fs::write(file, text).unwrap();
        }
        let [root, certificate, key] = files;
        Self { root, certificate, key }
    }

    fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.root).unwrap()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    fn acceptor(&self) -> TlsAcceptor {
        let chain = vec![CertificateDer::from_pem_file(&self.certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// The body of a GET.
    pub async fn get(&self, address: SocketAddr, path: &str) -> Vec<u8> {
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::IpAddress(address.ip().into());
        let mut stream = self.connector().connect(name, tcp).await.unwrap();
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nUser-Agent: test\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        answer.split_off(head + 4)
    }
}

/// How a pebble differs from the usual one.
#[derive(Default)]
pub struct Wishes {
    /// How long its certificates live; its default is five years.
    pub lifetime_seconds: Option<u64>,
    /// Key id and key of the external account binding it asks for.
    pub binding: Option<(&'static str, &'static str)>,
    /// The port to listen on, when one before it had it.
    pub port: Option<u16>,
}

/// Where pebble looks for challenges.
#[derive(Clone, Copy)]
pub struct Validation {
    pub http: u16,
    pub tls: u16,
    pub dns: SocketAddr,
}

/// A running pebble; ends with the value.
pub struct Pebble {
    child: Child,
    pub address: SocketAddr,
    pub management: SocketAddr,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Pebble {
    pub fn start(folder: &Path, tls: &Tls, looks: Validation, wishes: &Wishes) -> Self {
        for _ in 0..STARTS {
            if let Some(pebble) = Self::try_start(folder, tls, looks, wishes) {
                return pebble;
            }
        }
        panic!("pebble did not start {STARTS} times");
    }

    fn try_start(folder: &Path, tls: &Tls, looks: Validation, wishes: &Wishes) -> Option<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, wishes.port.unwrap_or_else(free_port)));
        let management = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut pebble = json!({
            "listenAddress": address,
            "managementListenAddress": management,
            "certificate": tls.certificate,
            "privateKey": tls.key,
            "httpPort": looks.http,
            "tlsPort": looks.tls,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": wishes.binding.is_some(),
        });
        if let Some(seconds) = wishes.lifetime_seconds {
            pebble["certificateValidityPeriod"] = seconds.into();
        }
        if let Some((kid, key)) = wishes.binding {
            pebble["externalAccountMACKeys"] = json!({ kid: key });
        }
        let config = folder.join(format!("pebble-{}.json", address.port()));
        std::fs::write(&config, json!({ "pebble": pebble }).to_string()).unwrap();
        let mut child = Command::new("pebble")
            .arg("-config")
            .arg(&config)
            .args(["-dnsserver", &looks.dns.to_string()])
            .env("PEBBLE_WFE_NONCEREJECT", NONCES_REFUSED)
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_CHAIN_LENGTH", "2")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("pebble is missing: `cargo xtask setup` installs it, or the Debian package pebble does");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut pebble = Self { child, address, management };
        // Silence means that it ended: a port was taken meanwhile.
        lines.by_ref().map_while(Result::ok).find(|line| line.contains("ACME directory available"))?;
        // It goes on talking and would stop at a full pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        pebble.listens().then_some(pebble)
    }

    /// It announces itself before it listens, so that has to be tried; an end means that a port was taken.
    fn listens(&mut self) -> bool {
        for address in [self.address, self.management] {
            while std::net::TcpStream::connect(address).is_err() {
                if self.has_ended() {
                    return false;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        !self.has_ended()
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn authority(&self, tls: &Tls) -> AcmeAuthority {
        authority(self.address, tls)
    }

    /// What pebble has stored about a certificate: `Valid` or `Revoked`.
    pub async fn status_of(&self, tls: &Tls, serial: &str) -> String {
        let body = tls.get(self.management, &format!("/cert-status-by-serial/{serial}")).await;
        let answer: Value = serde_json::from_slice(&body).unwrap();
        answer["Status"].as_str().unwrap().to_owned()
    }
}

pub fn authority(address: SocketAddr, tls: &Tls) -> AcmeAuthority {
    AcmeAuthority {
        directory: format!("https://{address}/dir"),
        roots: Some(tls.root.clone()),
        eab_kid: None,
        eab_key: None,
    }
}

/// A loopback port that was free a moment ago.
pub fn free_port() -> u16 {
    let drawn = RandomState::new().build_hasher().finish();
    let first = u16::try_from(drawn % u64::from(PORTS.end - PORTS.start)).unwrap();
    let (before, after) = (PORTS.start..PORTS.start + first, PORTS.start + first..PORTS.end);
    after.chain(before).find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()).unwrap()
}

/// Status, Retry-After and body for the path of a request.
pub type Answers = Box<dyn Fn(&str) -> (u16, Option<u64>, String) + Send + Sync>;

/// An HTTPS server that answers as a test wants, and counts requests by path.
pub struct Front {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Front {
    pub async fn start(tls: &Tls, answers: Answers) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let (acceptor, answers, counter) = (tls.acceptor(), Arc::new(answers), Arc::clone(&seen));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, answers, seen) =
                    (acceptor.clone(), Arc::clone(&answers), Arc::clone(&counter));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let Some(path) = request_path(&mut stream).await else {
                        return;
                    };
                    *seen.lock().unwrap().entry(path.clone()).or_default() += 1;
                    let (status, retry, body) = answers(&path);
                    let retry =
                        retry.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
                    let answer = format!(
                        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{retry}\r\n{body}",
                        body.len()
                    );
                    drop(stream.write_all(answer.as_bytes()).await);
                    drop(stream.shutdown().await);
                });
            }
        });
        Self { address, seen }
    }

    pub fn requests(&self) -> usize {
        self.seen.lock().unwrap().values().sum()
    }
}

/// The path of a request without a body.
pub async fn request_path(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16_384 {
        head.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(head).ok()?;
    text.split(' ').nth(1).map(str::to_owned)
}
