//! An edge with a generation compiled from text, and an origin that must never be asked.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::SystemTime;

use base::time::Timestamp;
use edge::generation::{Generation, Loader};
use edge::telemetry::access_log::AccessLog;
use edge::telemetry::metrics::Metrics;
use edge::tls::{Certificates, DevelopmentAuthority, Expired};
use edge::{BoundListener, Edge, EdgeOptions, ListenerSet};
use snapshot::source::SourceTree;
use snapshot::{Input, Mode};

pub struct Stage {
    pub edge: Edge,
    pub metrics: Arc<Metrics>,
    pub log: Arc<AccessLog>,
    pub loader: Loader,
}

pub fn now() -> Timestamp {
    Timestamp::from_unix(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap())
}

/// A realistic configuration: names, suffixes, everything else; weights, fixed hosts, HTTP/2 and TLS origins, limits.
pub fn shop(origin: SocketAddr) -> String {
    format!(
        r#"
        via = "golden-test"
        [[listen]]
        address = "127.0.0.1:0"
        [[listen]]
        address = "[::1]:0"
        tls = true
        [metrics]
        listen = "off"
        [[site]]
        name = "shop"
        hosts = ["shop.example", "www.shop.example"]
        [[site.origin]]
        url = "http://{origin}"
        weight = 3
        [[site.origin]]
        url = "http://nowhere.invalid:81"
        host = "backend.example"
        [[site]]
        name = "pages"
        hosts = ["*.pages.example"]
        compatibility = "cloudflare"
        [[site.origin]]
        url = "https://nowhere.invalid"
        http = "2"
        tls = {{ verify = false }}
        [[site]]
        name = "small"
        hosts = ["192.0.2.80", "2001:db8::80"]
        limits = {{ body_bytes = "5B" }}
        [[site.origin]]
        url = "http://{origin}"
        [[site]]
        name = "rest"
        hosts = ["*"]
        [[site.origin]]
        url = "http://{origin}"
        "#
    )
}

pub fn load(
    loader: &Loader,
    text: &str,
    change: impl FnOnce(&mut snapshot::generation::Snapshot),
) -> Generation {
    let input = Input { file: "rempart.toml", text: text.as_bytes(), tree: &SourceTree::default() };
    let compiled = snapshot::compile(input, now(), Mode::Fresh);
    let mut snapshot = compiled.snapshot.unwrap_or_else(|| panic!("{:#?}", compiled.diagnostics));
    change(&mut snapshot);
    let snapshot = Arc::new(snapshot);
    let authority = Certificates::needs_development(&snapshot).then(|| {
        let made = DevelopmentAuthority::generate(now()).unwrap();
        Arc::new(DevelopmentAuthority::from_pem(made.certificate.as_bytes(), made.key.as_bytes()).unwrap())
    });
    loader.load(snapshot, 1, authority.as_ref(), now(), Expired::Refuse).unwrap_or_else(|e| panic!("{e:?}"))
}

impl Stage {
    /// An edge with two threads and this generation, accepting nowhere.
    pub fn with(text: &str) -> Self {
        let off = snapshot::generation::AccessLog {
            to: snapshot::generation::AccessLogTarget::Off,
            client_ip: snapshot::generation::ClientIpDetail::None,
            retention: std::time::Duration::from_secs(1),
            rotate_bytes: 1 << 20,
        };
        Self::logging(text, &off)
    }

    pub fn logging(text: &str, log: &snapshot::generation::AccessLog) -> Self {
        let log = AccessLog::start(log, Arc::default()).unwrap();
        let metrics = Arc::new(Metrics::new(2, log.counts().clone()));
        let loader = Loader::new(metrics.clone()).unwrap();
        let generation = load(&loader, text, |_| ());
        let events =
            Arc::new(edge::telemetry::events::Events::start("unused".into(), Arc::default()).unwrap());
        let access_log = Arc::new(log);
        let options = EdgeOptions { threads: 2, seed: 7, metrics: metrics.clone(), access_log, events };
        let log = options.access_log.clone();
        let edge = Edge::start(options, generation).unwrap();
        Self { edge, metrics, log, loader }
    }

    pub fn rehearse(&self) -> Result<edge::rehearsal::Report, Vec<edge::tls::LoadError>> {
        edge::rehearsal::rehearse(&self.edge, &self.edge.current())
    }

    /// Opens public listeners, one for each that the generation wants, on the addresses it names.
    pub fn open(&self) -> Vec<BoundListener> {
        let sets: Vec<_> = (0..)
            .zip(&self.edge.current().snapshot.listeners)
            .map(|(id, wanted)| {
                let socket = TcpListener::bind(wanted.address).unwrap();
                socket.set_nonblocking(true).unwrap();
                let (configured, address) = (wanted.address, socket.local_addr().unwrap());
                let listener =
                    BoundListener { id, configured, address, tls: wanted.tls, proxy_protocol: false };
                ListenerSet { listener, sockets: vec![socket] }
            })
            .collect();
        self.edge.activate(None, sets);
        self.edge.listeners()
    }
}

/// A socket that listens and must never hear anything.
pub struct Silence(TcpListener);

impl Silence {
    pub fn new() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Fails when anybody has connected.
    pub fn check(&self) {
        let heard = self.0.accept().map(|(_, peer)| peer).map_err(|error| error.kind());
        assert_eq!(heard, Err(std::io::ErrorKind::WouldBlock), "a real origin was asked");
    }
}
