//! A compiled generation: what the edge runs. Immutable, complete, and only ever made by `compile`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use api::roles::{FeedSettings, WatchSettings};
use base::address::PrefixSet;
use base::id::ContentHash;

use crate::lists::Lists;
use crate::rules::{Normalize, SiteRules};

/// Everything a running edge needs to know, checked. Shared as `Arc<Snapshot>`; a request keeps the one it began with.
#[derive(Debug)]
pub struct Snapshot {
    /// Hash of the desired state and of every file it refers to.
    pub id: ContentHash,
    /// Sockets to listen on, in the order written.
    pub listeners: Vec<Listener>,
    /// Where metrics and health are served; always a loopback address. `None` switches it off.
    pub metrics: Option<SocketAddr>,
    /// The sites, in the order written; `Site::index` is the position here.
    pub sites: Vec<Arc<Site>>,
    /// Host name to site.
    pub hosts: HostTable,
    /// Peers whose `Forwarded`, `X-Forwarded-*` and `CF-Connecting-IP` are believed.
    pub trusted_proxies: PrefixSet,
    /// Name used as pseudonym in `Via` and `CDN-Loop`: a token, unique to this installation.
    pub via: Arc<str>,
    /// Limits that hold before a site is known.
    pub limits: ConnectionLimits,
    /// How requests are logged.
    pub access_log: AccessLog,
    /// What is kept of events; `None` is nothing.
    pub analytics: Option<Analytics>,
    /// What is watched and who is told; `None` is nothing. Without addresses of listeners; paths are as written.
    pub watch: Option<WatchSettings>,
    /// Lists that rules use, those of data files aside.
    pub lists: Lists,
    /// Data files to keep up to date, by names that differ. Paths are as written: relative to the configuration.
    pub feeds: Vec<FeedSettings>,
    /// How long ending connections may take.
    pub drain: Drain,
    /// Whether a second process waits, with this generation loaded, to take over.
    pub standby: bool,
    /// How long a change is watched before it is the one to go back to.
    pub bake: Duration,
    /// Certificates from an authority; `None` when no site asks for it.
    pub acme: Option<Acme>,
    /// Compiled-in defaults, because no generation could be used: no sites, every request gets 503.
    pub is_defaults: bool,
}

/// What is kept of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Analytics {
    /// How long figures per minute, and what happened, are kept.
    pub keep_minutes: Duration,
    /// How long samples of requests are kept.
    pub keep_samples: Duration,
    /// Largest size of the database in bytes.
    pub max_bytes: u64,
}

/// How long connections may take to end, when the process or its predecessor ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Idle connections are closed after this.
    pub idle: Duration,
    /// Requests and responses are cut off after this.
    pub requests: Duration,
    /// WebSockets and event streams are cut off after this.
    pub tunnels: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { idle: seconds(10), requests: seconds(60), tunnels: seconds(60) }
    }
}

/// Certificates from an authority (ACME, RFC 8555).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// Contact URLs of the account.
    pub contact: Vec<String>,
    /// In the order they are asked; at least one.
    pub authorities: Vec<AcmeAuthority>,
    /// How control over names is shown.
    pub challenge: AcmeChallenge,
    /// Exact names and `*.` names, one certificate each; of all sites, in the order written.
    pub names: Vec<Arc<str>>,
    /// Names that may be asked for by a visitor's handshake.
    pub on_demand: Vec<HostPattern>,
}

/// One certificate authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeAuthority {
    /// `https` URL of its directory.
    pub directory: String,
    /// PEM file with the roots its own server certificate is checked against, as a path the process can open.
    pub roots: Option<String>,
    /// Key id of the external account binding, and the file with its base64url key.
    pub eab: Option<(String, String)>,
}

/// How control over a name is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// RFC 8555 section 8.3.
    Http01,
    /// RFC 8737.
    TlsAlpn01,
    /// RFC 8555 section 8.4, by a program.
    Dns01(Vec<String>),
}

/// One listening address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Address as written; port 0 lets the system choose (and keeps that choice across reloads).
    pub address: SocketAddr,
    /// Whether connections begin with a TLS handshake.
    pub tls: bool,
    /// Whether connections of trusted proxies begin with a PROXY header, before anything else.
    pub proxy_protocol: bool,
    /// Pointer to the place in the configuration, for diagnostics found later (port in use): `listen[0].address`.
    pub place: String,
}

/// One site: a set of hosts served the same way.
#[derive(Debug)]
pub struct Site {
    /// Position in `Snapshot::sites`.
    pub index: usize,
    /// Name as configured; a metric label and a log field.
    pub name: Arc<str>,
    /// Host patterns, lower case, A-labels (RFC 5890); the first is the canonical one.
    pub hosts: Vec<HostPattern>,
    /// Whose header names are used.
    pub compatibility: Compatibility,
    /// Where its certificate comes from; only asked for when a TLS listener exists.
    pub certificate: Certificate,
    /// How visitors' TLS connections are treated.
    pub tls: SiteTls,
    /// At least one.
    pub origins: Vec<Arc<Origin>>,
    /// When origins are set aside, from what real requests experienced.
    pub health: PassiveHealth,
    /// How often and when a request is tried again.
    pub retry: Retry,
    /// Limits that hold once the site is known.
    pub limits: SiteLimits,
    /// What requests may be like; `None` is anything.
    pub policy: Option<Policy>,
    /// Rules, those for all sites included.
    pub rules: SiteRules,
    /// How paths are spelled before rules see them; `None` leaves them as they came.
    pub normalize: Option<Normalize>,
}

/// What requests of a site may be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Methods allowed, at least one; `None` is every one.
    pub methods: Option<Vec<Box<str>>>,
    /// Fields that must be there.
    pub require: Vec<HeaderRule>,
    /// Fields that must not be there.
    pub forbid: Vec<HeaderRule>,
    /// Requests that are not like that go on, and are noted.
    pub log_only: bool,
}

/// A header field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderRule {
    /// Its name, in lower case.
    pub name: Box<str>,
    /// The whole value of one of its lines; `None` is any.
    pub value: Option<Box<str>>,
}

/// Header vocabulary of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compatibility {
    /// Standard names only: `Forwarded`, `X-Forwarded-*`, `Via`, `CDN-Loop`.
    Neutral,
    /// Those, and Cloudflare's: `CF-Connecting-IP`, `CF-Ray`, `CF-Visitor`, 52x codes, `/cdn-cgi/trace`.
    Cloudflare,
}

/// A name, and what has been issued for it so far: PEM text, chain and private key in one.
pub type WantedCertificate = (Arc<str>, Option<Arc<[u8]>>);

/// Where a site's certificate comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Certificate {
    /// Signed on the spot by the development authority made on first run; browsers warn.
    Development,
    /// Given as PEM files.
    Pem {
        /// The chain, leaf first, as in the file.
        chain: Arc<[u8]>,
        /// The private key, as in the file.
        key: Arc<[u8]>,
        /// A DER encoded OCSP response to staple, as in the file (RFC 6961, RFC 6066 section 8).
        ocsp: Option<Arc<[u8]>>,
        /// Pointer to the place in the configuration: `site[0].tls.certificate`.
        place: String,
    },
    /// From an authority, one certificate per name.
    Acme {
        /// Names wanted, with what has been issued so far: PEM text, chain and private key in one file.
        names: Vec<WantedCertificate>,
        /// Names issued on demand so far.
        demanded: Vec<(Arc<str>, Arc<[u8]>)>,
        /// Names that may be asked for by a handshake.
        on_demand: Vec<HostPattern>,
        /// Pointer to the place in the configuration: `site[0].tls.acme`.
        place: String,
    },
}

/// How visitors' TLS connections to a site are treated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteTls {
    /// Which versions and suites are offered.
    pub policy: TlsPolicy,
    /// Certificates asked of visitors.
    pub client: Option<ClientAuth>,
    /// Whether plain HTTP is answered with a redirect to `https`.
    pub redirect: bool,
    /// Value of the `Strict-Transport-Security` field on TLS responses (RFC 6797).
    pub hsts: Option<Arc<str>>,
}

/// TLS versions and suites, after Mozilla's server side recommendations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsPolicy {
    /// TLS 1.3 only.
    Modern,
    /// TLS 1.2 with forward secrecy and authenticated encryption, and TLS 1.3.
    #[default]
    Intermediate,
}

/// Certificates asked of visitors (mutual TLS).
#[derive(Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// PEM text of the authorities that may have signed them.
    pub authorities: Arc<[u8]>,
    /// Whether a visitor without one is turned away in the handshake.
    pub required: bool,
    /// Pointer to the place in the configuration: `site[0].tls.client.authorities`.
    pub place: String,
}

impl std::fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientAuth({}, required: {})", self.place, self.required)
    }
}

impl std::fmt::Debug for Certificate {
    /// Never prints the key: generations end up in logs when something goes wrong.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Development => f.write_str("Development"),
            Self::Pem { place, .. } => write!(f, "Pem({place})"),
            Self::Acme { place, names, .. } => write!(f, "Acme({place}, {} names)", names.len()),
        }
    }
}

/// A host pattern of a site.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `example.org`; an IP literal is also exact (IPv6 without brackets).
    Exact(Arc<str>),
    /// `*.example.org`: any number of labels in front, at least one. Holds `example.org`.
    Suffix(Arc<str>),
    /// `*`: every host nobody else has.
    Any,
}

impl std::fmt::Display for HostPattern {
    /// As an operator would write it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(host) => write!(f, "*.{host}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// Host name to position in `Snapshot::sites`.
#[derive(Debug, Default)]
pub struct HostTable {
    exact: HashMap<Arc<str>, usize>,
    suffix: HashMap<Arc<str>, usize>,
    any: Option<usize>,
}

impl HostTable {
    /// Enters one pattern; answers the site that already has it, in which case nothing changes.
    pub fn insert(&mut self, pattern: &HostPattern, site: usize) -> Result<(), usize> {
        let taken = match pattern {
            HostPattern::Exact(host) => self.exact.get(host).copied(),
            HostPattern::Suffix(host) => self.suffix.get(host).copied(),
            HostPattern::Any => self.any,
        };
        if let Some(other) = taken {
            return Err(other);
        }
        match pattern {
            HostPattern::Exact(host) => drop(self.exact.insert(host.clone(), site)),
            HostPattern::Suffix(host) => drop(self.suffix.insert(host.clone(), site)),
            HostPattern::Any => self.any = Some(site),
        }
        Ok(())
    }

    /// The site of a host: exact first, then the longest matching suffix, then `*`.
    ///
    /// `host` must be lower case, without port, brackets and trailing dot.
    pub fn find(&self, host: &str) -> Option<usize> {
        if let Some(&site) = self.exact.get(host) {
            return Some(site);
        }
        if !self.suffix.is_empty() {
            let mut rest = host;
            while let Some((_, parent)) = rest.split_once('.') {
                if let Some(&site) = self.suffix.get(parent) {
                    return Some(site);
                }
                rest = parent;
            }
        }
        self.any
    }
}

/// One origin of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `http://host:port` or `https://host:port`, normalised; the label in logs and metrics.
    pub label: Arc<str>,
    /// Host to connect to: a name (resolved again and again) or an address.
    pub host: OriginHost,
    /// Port to connect to.
    pub port: u16,
    /// Share of new requests relative to the other origins of the site, 1..=1000.
    pub weight: u32,
    /// `Host` (or `:authority`) sent.
    pub host_header: HostHeader,
    /// TLS towards the origin, or plain.
    pub tls: Option<OriginTls>,
    /// HTTP version spoken.
    pub http: OriginHttp,
    /// Connections kept idle per edge thread.
    pub max_idle: usize,
    /// Connections open at a time over all edge threads; `None` is `CONNECTIONS_PER_THREAD` for each.
    pub max_connections: Option<usize>,
    /// Requests waiting for a connection per edge thread.
    pub queue: usize,
    /// PROXY header its connections begin with; `http` is `Http1` then.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Time limits.
    pub timeouts: OriginTimeouts,
}

/// Connections to one origin per edge thread where the configuration names no number: as many as visitors may have, so that
/// a site full of WebSockets meets no limit of its own.
pub const CONNECTIONS_PER_THREAD: usize = 10_000;

/// Version of a PROXY header towards an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// Where an origin is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OriginHost {
    /// A DNS name.
    Name(Arc<str>),
    /// An address literal.
    Address(std::net::IpAddr),
}

/// `Host` towards an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The host the client asked for.
    Preserve,
    /// A fixed authority.
    Fixed(Arc<str>),
}

/// TLS towards an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginTls {
    /// Name sent as SNI and checked in the certificate.
    pub server_name: Arc<str>,
    /// Whether the certificate is checked.
    pub verify: OriginVerify,
}

/// How an origin's certificate is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginVerify {
    /// Against the system's certificate authorities.
    System,
    /// Against these authorities only (PEM).
    Authorities {
        /// PEM text with one or more certificates.
        pem: Arc<[u8]>,
        /// Pointer to the place in the configuration: `site[0].origin[0].tls.authorities`.
        place: String,
    },
    /// Not at all; the configuration had to spell that out.
    Off,
}

/// HTTP version towards an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OriginHttp {
    /// TLS: ALPN decides between `h2` and `http/1.1`. Plain: HTTP/1.1, except gRPC, which is HTTP/2 by definition.
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only (prior knowledge when plain, RFC 9113 section 3.3). WebSockets still use HTTP/1.1.
    Http2,
}

/// Time limits towards an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginTimeouts {
    /// TCP and TLS handshake together.
    pub connect: Duration,
    /// Waiting for a connection while as many as may be are in use.
    pub queue: Duration,
    /// From the request sent to the response head.
    pub response: Duration,
    /// Between two pieces of a body, either direction.
    pub idle: Duration,
    /// How long an unused pooled connection is kept.
    pub keep_alive: Duration,
    /// How long a resolved name is trusted at most, whatever its TTL says.
    pub resolve: Duration,
}

/// Passive health: origins are set aside by what real requests experienced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassiveHealth {
    /// Failures in a row that set an origin aside; 0 switches ejection off.
    pub failures: u32,
    /// First time set aside; doubles with every further one, up to `max_ejection`.
    pub ejection: Duration,
    /// Longest time set aside.
    pub max_ejection: Duration,
}

/// Retries: only for requests that are safe to repeat, or of which nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Further attempts for one request at most.
    pub attempts: u32,
    /// Retries as a share of requests, in per cent, measured over the last 10 seconds.
    pub budget_percent: u32,
}

/// Bytes of bodies that one edge thread holds for rules at a time, over all its requests.
pub const INSPECTED_PER_THREAD: usize = 64 << 20;

/// Limits that hold before a site is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Edge threads; `None` is one per core.
    pub threads: Option<usize>,
    /// Open client connections per edge thread.
    pub connections: usize,
    /// What one address may have, over all threads.
    pub per_address: AddressLimits,
    /// Unfinished TLS handshakes per edge thread.
    pub handshakes: usize,
    /// Resident memory of the process from which on it takes no further connections.
    pub memory: MemoryLimit,
    /// Bytes of a request head (request line and headers; the header list in HTTP/2).
    pub header_bytes: usize,
    /// Number of header fields.
    pub header_count: usize,
    /// Bytes of the request target.
    pub target_bytes: usize,
    /// Concurrent streams per HTTP/2 connection.
    pub streams: u32,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time for a complete request head once its first byte has come.
    pub header: Duration,
    /// Idle time of a kept-alive connection.
    pub keep_alive: Duration,
    /// Time a client may take to accept the next piece of a response, and be behind with `write_rate`.
    pub write: Duration,
    /// Bytes per second a client has to accept on average; `None` is no such limit.
    pub write_rate: Option<NonZeroU64>,
}

impl ConnectionLimits {
    /// Bytes of bodies that so many threads hold for rules at worst, when visitors fill every place there is for a request with
    /// a body of which `inspect_body` bytes are looked into.
    pub fn inspected_bytes(&self, threads: usize, inspect_body: usize) -> u64 {
        let requests = self.connections.saturating_mul(self.streams as usize);
        let each = requests.saturating_mul(inspect_body).min(INSPECTED_PER_THREAD);
        each.saturating_mul(threads) as u64
    }
}

/// What one address (of IPv6, one /64 network) may have, over all threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressLimits {
    /// Open connections.
    pub connections: usize,
    /// New connections per second, on average.
    pub rate: u32,
    /// Unfinished TLS handshakes.
    pub handshakes: usize,
}

/// Memory a process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// Half of what the machine has, or of what its control group allows.
    Half,
    /// So many bytes.
    Bytes(u64),
    /// Whatever there is.
    None,
}

/// Limits that hold once the site is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteLimits {
    /// Bytes of a request body; `None` is no limit.
    pub body_bytes: Option<u64>,
    /// Time between two pieces of a request body, and to be behind with `body_rate`.
    pub body: Duration,
    /// Bytes per second a request body has to bring on average; `None` is no such limit.
    pub body_rate: Option<NonZeroU64>,
    /// Idle time of a WebSocket or other upgraded connection.
    pub tunnel: Duration,
    /// Bytes of a request body that rules look into.
    pub inspect_body: usize,
}

/// How requests are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where lines go.
    pub to: AccessLogTarget,
    /// What is kept of the client's address.
    pub client_ip: ClientIpDetail,
    /// How long log files are kept.
    pub retention: Duration,
    /// Size at which a file is rotated, in bytes.
    pub rotate_bytes: u64,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// A file (JSON lines); rotated files lie beside it.
    File(String),
}

/// What the access log keeps of a client address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientIpDetail {
    /// The network: /24 or /48.
    Truncated,
    /// All of it.
    Full,
    /// Nothing.
    None,
}
