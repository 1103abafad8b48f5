//! What the TLS tests share: generations, certificates, and a client and a server joined in memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::address::PrefixSet;
use base::id::ContentHash;
use base::time::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use snapshot::generation::{
    AccessLog, AccessLogTarget, AddressLimits, Certificate, ClientIpDetail, Compatibility, ConnectionLimits,
    Drain, HostPattern, HostTable, Listener, MemoryLimit, PassiveHealth, Retry, Site, SiteLimits, SiteTls,
    Snapshot, TlsPolicy,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls::{
    Accepted, Certificates, DevelopmentAuthority, Expired, HandshakeError, LoadError, ServerSettings,
    ServerTls, accept, provider, wall_clock,
};

pub const DAY: Duration = Duration::from_secs(24 * 3600);

pub fn now() -> Timestamp {
    wall_clock()
}

pub fn ago(duration: Duration) -> Timestamp {
    Timestamp::from_unix(Duration::from_micros(now().0) - duration)
}

pub fn pattern(host: &str) -> HostPattern {
    match host.strip_prefix("*.") {
        _ if host == "*" => HostPattern::Any,
        Some(parent) => HostPattern::Suffix(parent.into()),
        None => HostPattern::Exact(host.into()),
    }
}

pub fn site(index: usize, hosts: &[&str], certificate: Certificate) -> Site {
    let second = Duration::from_secs(1);
    Site {
        index,
        name: format!("site-{index}").into(),
        hosts: hosts.iter().map(|host| pattern(host)).collect(),
        compatibility: Compatibility::Neutral,
        certificate,
        tls: SiteTls::default(),
        origins: Vec::new(),
        health: PassiveHealth { failures: 0, ejection: second, max_ejection: second },
        retry: Retry { attempts: 0, budget_percent: 0 },
        limits: SiteLimits {
            body_bytes: None,
            body: second,
            body_rate: None,
            tunnel: second,
            inspect_body: 0,
        },
        policy: None,
        rules: Default::default(),
        normalize: None,
    }
}

pub fn generation(sites: Vec<Site>) -> Arc<Snapshot> {
    let second = Duration::from_secs(1);
    let mut hosts = HostTable::default();
    for site in &sites {
        for host in &site.hosts {
            hosts.insert(host, site.index).unwrap();
        }
    }
    let address = "127.0.0.1:0".parse().unwrap();
    Arc::new(Snapshot {
        id: ContentHash([0; 32]),
        listeners: vec![Listener {
            address,
            tls: true,
            proxy_protocol: false,
            place: "listen[0]".to_owned(),
        }],
        metrics: None,
        sites: sites.into_iter().map(Arc::new).collect(),
        hosts,
        trusted_proxies: PrefixSet::default(),
        via: "rempart-test".into(),
        limits: ConnectionLimits {
            threads: Some(1),
            connections: 8,
            per_address: AddressLimits { connections: 8, rate: 8, handshakes: 8 },
            handshakes: 8,
            memory: MemoryLimit::None,
            header_bytes: 8192,
            header_count: 64,
            target_bytes: 4096,
            streams: 8,
            handshake: second,
            header: second,
            keep_alive: second,
            write: second,
            write_rate: None,
        },
        access_log: AccessLog {
            to: AccessLogTarget::Off,
            client_ip: ClientIpDetail::None,
            retention: second,
            rotate_bytes: 1,
        },
        analytics: None,
        watch: None,
        drain: Drain::default(),
        standby: true,
        bake: std::time::Duration::from_secs(60),
        lists: Default::default(),
        feeds: Vec::new(),
        acme: None,
        is_defaults: false,
    })
}

/// A self-signed certificate and its key, both PEM, valid between two times relative to now in days.
pub fn self_signed(names: &[&str], from_day: i64, to_day: i64) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    (signed_with(&key, names, from_day, to_day), key.serialize_pem())
}

pub fn signed_with(key: &KeyPair, names: &[&str], from_day: i64, to_day: i64) -> String {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "test");
    let day = |offset: i64| {
        let seconds = i64::try_from(now().seconds()).unwrap() + offset * 24 * 3600;
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(seconds).unwrap())
    };
    (params.not_before, params.not_after) = (day(from_day), day(to_day));
    params.self_signed(key).unwrap().pem()
}

pub fn given(chain: &str, key: &str) -> Certificate {
    Certificate::Pem {
        chain: Arc::from(chain.as_bytes()),
        key: Arc::from(key.as_bytes()),
        ocsp: None,
        place: "site[0].tls.certificate".to_owned(),
    }
}

pub fn authority() -> Arc<DevelopmentAuthority> {
    let made = DevelopmentAuthority::generate(now()).unwrap();
    Arc::new(DevelopmentAuthority::from_pem(made.certificate.as_bytes(), made.key.as_bytes()).unwrap())
}

pub fn load(
    snapshot: &Arc<Snapshot>,
    authority: Option<&Arc<DevelopmentAuthority>>,
) -> Result<Arc<Certificates>, Vec<LoadError>> {
    Certificates::load(snapshot, authority, now(), Expired::Refuse, &Arc::default()).map(Arc::new)
}

/// A server for one development site.
pub fn development_server(authority: &Arc<DevelopmentAuthority>, hosts: &[&str]) -> Arc<ServerSettings> {
    let snapshot = generation(vec![site(0, hosts, Certificate::Development)]);
    ServerTls::new().unwrap().settings(load(&snapshot, Some(authority)).unwrap()).unwrap()
}

/// A server for every name, once with the same settings for all of them, once with settings that differ by name.
pub fn both_ways(authority: &Arc<DevelopmentAuthority>) -> [Arc<ServerSettings>; 2] {
    let every = site(0, &["*"], Certificate::Development);
    let other = Site {
        tls: SiteTls { policy: TlsPolicy::Modern, ..SiteTls::default() },
        ..site(1, &["other.invalid"], Certificate::Development)
    };
    let by_name = load(&generation(vec![every, other]), Some(authority)).unwrap();
    let by_name = ServerTls::new().unwrap().settings(by_name).unwrap();
    let alike = development_server(authority, &["*"]);
    [alike, by_name]
}

/// A client that trusts exactly this PEM.
pub fn client(pem: &str, alpn: &[&str]) -> ClientConfig {
    client_with(pem, alpn, &[&rustls::version::TLS13, &rustls::version::TLS12], None)
}

/// A client of these versions, which shows this certificate and key (PEM) when asked for one.
pub fn client_with(
    pem: &str,
    alpn: &[&str],
    versions: &[&'static rustls::SupportedProtocolVersion],
    certificate: Option<(&str, &str)>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

pub type Joined =
    (io::Result<TlsStream<DuplexStream>>, Result<Accepted<DuplexStream>, HandshakeError<DuplexStream>>);

/// One handshake over a pipe in memory.
pub async fn join(client: &Arc<ClientConfig>, name: &str, server: &Arc<ServerSettings>) -> Joined {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(client.clone());
    tokio::join!(connector.connect(name, near), accept(far, server))
}

/// One handshake and one byte each way, so that the client has read the session tickets.
pub async fn visit(
    client: &Arc<ClientConfig>,
    name: &str,
    server: &Arc<ServerSettings>,
) -> (TlsStream<DuplexStream>, Accepted<DuplexStream>) {
    let (near, far) = join(client, name, server).await;
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    near.write_all(b"?").await.unwrap();
    near.flush().await.unwrap();
    assert_eq!(far.stream.read_u8().await.unwrap(), b'?');
    far.stream.write_all(b"!").await.unwrap();
    far.stream.flush().await.unwrap();
    assert_eq!(near.read_u8().await.unwrap(), b'!');
    (near, far)
}
