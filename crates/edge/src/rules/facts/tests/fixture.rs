//! Requests for the tests of fields: plain, encrypted with a certificate, with bodies; on a thread that serves nothing.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use base::event::Protocol;
use base::id::RequestId;
use base::random::Random;
use base::time::Timestamp;
use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    SerialNumber,
};
use rustls::pki_types::CertificateDer;
use snapshot::generation::ClientAuth;
use snapshot::source::SourceTree;
use snapshot::{Input, Mode};

use super::super::{Facts, Inspected, Link, Surroundings};
use super::place;
use crate::connection::{Connection, Fingerprints, ListenerState};
use crate::forwarded::{Client, Scheme, Source};
use crate::generation::{Generation, Loader};
use crate::message::{HeaderList, RequestHead};
use crate::modules::Running;
use crate::seats::Seat;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::events::Events;
use crate::telemetry::metrics::Metrics;
use crate::tls::certificates::Expired;
use crate::tls::client_auth::Authorities;
use crate::tls::{Alpn, ClientCertificate, ClientHello, TlsFacts, Version};
use crate::worker::{Reports, Shared, Worker};

const CONFIGURATION: &str = r#"
[[listen]]
address = "127.0.0.1:0"
tls = false

[[site]]
name = "shop"
hosts = ["shop.example"]

[[site.origin]]
url = "http://127.0.0.1:9"

[[site.rules]]
phase = "http_request_firewall_custom"
expression = 'http.request.method eq "TRACE"'
action = "block"
"#;

/// A hello with GREASE among suites, extensions and groups; what is expected of it was computed by another program.
const HELLO: &str = "0100006f0303000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f0000080a0a1301c02b00\
                     9c0100003e1a1a000000000011000f00000c73686f702e6578616d706c65000a000800062a2a001d0017000b00020100\
                     000d0006000404030804001000050003026832";

/// What a request is served by.
pub struct House {
    pub generation: Arc<Generation>,
    pub worker: Worker,
    pub plain: Connection,
    pub encrypted: Connection,
    /// The certificate shown on `encrypted`.
    pub certificate: Arc<ClientCertificate>,
    client: Client,
    _reports: (AccessLog, Events),
    /// What looks up names wants one.
    _runtime: tokio::runtime::Runtime,
}

impl House {
    /// With or without a database of places.
    pub fn new(places: bool) -> Self {
        let input = Input { file: "test.toml", text: CONFIGURATION.as_bytes(), tree: &SourceTree::default() };
        let mut compiled = snapshot::compile(input, Timestamp(0), Mode::Fresh).snapshot.unwrap();
        compiled.access_log.to = snapshot::generation::AccessLogTarget::Off;
        let asked = ClientAuth {
            authorities: b"those asked".as_slice().into(),
            required: false,
            place: String::new(),
        };
        let site = Arc::get_mut(&mut compiled.sites[0]).unwrap();
        site.tls.client = Some(asked.clone());
        let access_log = AccessLog::start(&compiled.access_log, Arc::default()).unwrap();
        let events = Events::start("unused".into(), Arc::default()).unwrap();
        let metrics = Arc::new(Metrics::new(1, access_log.counts().clone()));
        let loader = Loader::new(metrics.clone()).unwrap();
        if places {
            place::put(loader.artefacts());
        }
        let generation = loader.load(Arc::new(compiled), 1, None, Timestamp(0), Expired::Refuse).unwrap();
        let generation = Arc::new(generation);
        let shared = Arc::new(Shared {
            current: Arc::new(arc_swap::ArcSwap::new(generation.clone())),
            metrics,
            connections: 0.into(),
            sources: Arc::default(),
            active: 0.into(),
            lookups: Arc::default(),
            ticks: Box::default(),
            cut: 0.into(),
            running: Running::new(1),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let entered = runtime.enter();
        let reports = Reports { log: access_log.handle(), events: events.handle(1) };
        let worker = Worker::new(shared, reports, 1);
        drop(entered);
        let certificate = Arc::new(certificate());
        let tls = TlsFacts {
            alpn: Alpn::H2,
            version: Version::Tls13,
            cipher: "TLS_AES_128_GCM_SHA256",
            group: None,
            server_name: Some("shop.example".into()),
            resumed: false,
            client: Some(certificate.clone()),
            authorities: Some(Authorities::from(&asked)),
        };
        let address = "192.0.2.7".parse().unwrap();
        let client = Client { address, scheme: None, host: None, via_trusted: false, source: Source::Peer };
        let (plain, encrypted) = (connection(None), connection(Some(tls)));
        Self {
            generation,
            worker,
            plain,
            encrypted,
            certificate,
            client,
            _reports: (access_log, events),
            _runtime: runtime,
        }
    }

    /// A request on one of the connections, as rules see it.
    pub fn facts<'h>(
        &'h self,
        connection: &'h Connection,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Facts<'h> {
        let encrypted = connection.tls.is_some();
        let surroundings = Surroundings {
            link: Link::Live(connection, &self.worker),
            client: &self.client,
            scheme: if encrypted { Scheme::Https } else { Scheme::Http },
            site: &self.generation.sites[0],
            generation: &self.generation,
            at: Timestamp(1_700_000_000_123_456),
            id: Some(RequestId::new(&mut Random::seeded(1))),
            started: Instant::now(),
        };
        let mut headers = HeaderList::default();
        fields.iter().for_each(|(name, value)| headers.push(name, value));
        let head = RequestHead {
            method: http::Method::POST,
            authority: "shop.example:8443".to_owned(),
            target: target.to_owned(),
            protocol: if encrypted { Protocol::Http2 } else { Protocol::Http11 },
            headers,
            upgrade: None,
            expects_continue: false,
            accepts_trailers: false,
        };
        Facts::new(head, surroundings)
    }

    /// A request with a body of which the first `limit` bytes are seen.
    pub fn with_body(&self, kind: &str, body: &str, limit: usize) -> Facts<'_> {
        let mut facts = self.facts(&self.plain, "/", &[("Content-Type", kind)]);
        let prefix = Bytes::copy_from_slice(&body.as_bytes()[..body.len().min(limit)]);
        facts.inspected(Inspected::new(prefix, body.len() > limit, Some(body.len() as u64)));
        facts
    }
}

fn connection(tls: Option<TlsFacts>) -> Connection {
    let peer: std::net::SocketAddr = "192.0.2.7:40000".parse().unwrap();
    let local = "192.0.2.1:8443".parse().unwrap();
    let raw: Vec<u8> = (0..HELLO.len()).step_by(2).map(|at| hex(&HELLO[at..at + 2])).collect();
    let hello = tls.is_some().then(|| ClientHello { raw: raw.into(), truncated: false });
    let listener = ListenerState {
        configured: local,
        bound: Cell::new(None),
        tls: Cell::new(tls.is_some()),
        proxy_protocol: Cell::new(false),
        rehearsal: None,
        removed: Cell::new(None),
        process: Rc::default(),
        pressure: Arc::default(),
    };
    Connection {
        id: 1,
        peer,
        local,
        introduced: false,
        path: crate::path::Path {
            round_trip: Some(std::time::Duration::from_micros(7_900)),
            delivery_rate: Some(250_000),
        },
        tls,
        hello,
        preface: OnceCell::new(),
        fingerprints: Fingerprints::default(),
        requests: Cell::new(0),
        sharers: Cell::new(0),
        seat: Rc::new(Seat::new(1, peer.ip(), false, tokio::time::Instant::now())),
        listener: Rc::new(listener),
    }
}

fn hex(digits: &str) -> u8 {
    u8::from_str_radix(digits, 16).unwrap()
}

/// A visitor's, with the signer's behind it.
fn certificate() -> ClientCertificate {
    let named = |name: &str| {
        let mut distinguished = DistinguishedName::new();
        distinguished.push(DnType::OrganizationName, "Example");
        distinguished.push(DnType::CommonName, name);
        distinguished
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = named("signer");
    params.serial_number = Some(SerialNumber::from(vec![0x7a, 0x01]));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_identifier_method = KeyIdMethod::PreSpecified(vec![0xbb, 0x02]);
    let key = KeyPair::generate().unwrap();
    let signer = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::default();
    params.distinguished_name = named("visitor");
    params.serial_number = Some(SerialNumber::from(vec![0x52, 0x7e]));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_identifier_method = KeyIdMethod::PreSpecified(vec![0xaa, 0x01]);
    params.use_authority_key_identifier_extension = true;
    params.not_before = rcgen::date_time_ymd(2024, 2, 3);
    params.not_after = rcgen::date_time_ymd(2034, 12, 24);
    let leaf = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    let chain: [CertificateDer<'_>; 2] = [leaf.der().clone(), signer.der().clone()];
    ClientCertificate::read(&chain).unwrap()
}
