//! Pebble, the certificate authority that Let's Encrypt tests clients with, and a name server that answers every name
//! with the loopback address.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use x509_parser::parse_x509_certificate;

use crate::certificates::{Authority, Validity};
use crate::client::{Client, tls_config};
use crate::process::Process;
use crate::{PATIENCE, ports, tools};

/// How its own servers are called.
const NAME: &str = "127.0.0.1";

/// A certificate authority and its name server; both are killed when dropped.
#[derive(Debug)]
pub struct Pebble {
    acme: SocketAddr,
    management: SocketAddr,
    authority: String,
    _process: Process,
    _names: Process,
    _folder: TempDir,
}

impl Pebble {
    /// Starts both. Challenges are looked for on these ports; so many per cent of good nonces are refused, which a client
    /// must take in its stride (RFC 8555 section 6.5).
    pub fn start(http_port: u16, tls_port: u16, refused_nonces: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let own = Authority::new("Authority of the authority's server");
        let leaf = own.leaf(&[NAME], Validity::Good);
        fs::write(path("cert.pem"), leaf.certificate).unwrap();
        fs::write(path("key.pem"), leaf.key).unwrap();
        let [acme, management, dns, dns_management] =
            std::array::from_fn(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free())));
        let config = serde_json::json!({ "pebble": {
            "listenAddress": acme, "managementListenAddress": management,
            "certificate": path("cert.pem"), "privateKey": path("key.pem"),
            "httpPort": http_port, "tlsPort": tls_port,
            "ocspResponderURL": "", "externalAccountBindingRequired": false,
        }});
        fs::write(path("pebble.json"), config.to_string()).unwrap();
        let mut names = Command::new(tools::program("pebble-challtestsrv"));
        names.args(["-management", &dns_management.to_string(), "-dns01", &dns.to_string()]);
        names.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]);
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
        let names = Process::start("pebble-challtestsrv", &mut names);
        listens(dns, &names);
        let mut command = Command::new(tools::program("pebble"));
        command.arg("-config").arg(path("pebble.json")).args(["-dnsserver", &dns.to_string()]);
        // Without these it waits up to 15 s before each look at a challenge, and trusts what it has seen before.
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        command.env("PEBBLE_WFE_NONCEREJECT", refused_nonces.to_string());
        let process = Process::start("pebble", &mut command);
        listens(acme, &process);
        listens(management, &process);
        Self { acme, management, authority: own.pem(), _process: process, _names: names, _folder: folder }
    }

    /// URL of the directory.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.acme)
    }

    /// Who signed the certificate of its own server, PEM.
    pub fn server_authority(&self) -> &str {
        &self.authority
    }

    /// Who signs what it issues, PEM; new with every start.
    pub fn root(&self) -> String {
        self.ask("/roots/0")
    }

    /// Whether it has revoked this certificate (DER), which it must know.
    pub fn has_revoked(&self, certificate: &[u8]) -> bool {
        let (_, certificate) = parse_x509_certificate(certificate).unwrap();
        let serial: String = certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
        let answer = self.ask(&format!("/cert-status-by-serial/{}", serial.trim_start_matches('0')));
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        match answer["Status"].as_str() {
            Some("Revoked") => true,
            Some("Valid") => false,
            _ => panic!("not a status: {answer}"),
        }
    }

    fn ask(&self, path: &str) -> String {
        let config = tls_config(&self.authority, &["http/1.1"]);
        let response = Client::tls(self.management, NAME, config).unwrap().get(NAME, path).unwrap();
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        response.text()
    }
}

/// Waits until something accepts connections there; neither program says when.
fn listens(address: SocketAddr, process: &Process) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on {address}:\n{}", process.stdout.text());
        thread::sleep(Duration::from_millis(20));
    }
}
