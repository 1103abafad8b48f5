//! The types of `rempart.toml`. Their doc comments are the reference page and the descriptions in the JSON schema;
//! their `Default`s are the only place where a default value is written down.

mod feed;
mod limits;
pub mod lists;
pub mod rules;
mod tls;
mod watch;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, OptionalSize, Period};

pub use self::feed::Feed;
pub use self::limits::{Normalize, NormalizeScope, NormalizeType, SiteLimits};
pub use self::lists::List;
pub use self::rules::{Rule, Ruleset};
pub use self::tls::{Acme, AcmeAuthority, AcmeChallenge, Hsts, SiteClient, SiteTls, TlsPolicy};
pub use self::watch::{Notify, Probe, Secret, Smtp, SmtpSecurity, Watch};

/// Rempart reads one file, `rempart.toml`, written in [TOML](https://toml.io). It says which sites exist, where their
/// origins are, and on which addresses to listen. Everything else has a default. Paths in it are relative to the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Desired {
    /// Name of this installation in the `Via` and `CDN-Loop` header fields, where it serves to notice a request that
    /// comes back in a loop. Letters, digits and ``!#$%&'*+-.^_`|~``. Two installations in a row need different names.
    pub via: String,
    /// Whether a second process waits, with everything loaded, to take over at once should the serving one fail. It takes
    /// memory: `false` is for very small machines, where a failure then costs the time of a start.
    pub standby: bool,
    /// How long a change (of this file, of a data file) is watched after it came into force, before it is the one to go back to
    /// when a later one fails.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1d"))]
    pub bake: Period,
    /// Addresses to listen on; at least one.
    #[schemars(length(max = 64))]
    pub listen: Vec<Listen>,
    /// Whom to believe about a visitor's address.
    pub trust: Trust,
    /// Metrics and health.
    pub metrics: Metrics,
    /// Logs.
    pub log: Log,
    /// Limits that hold for every connection, before its site is known.
    pub limits: Limits,
    /// How long connections may take to end when the process that serves them ends: at a stop, and at an upgrade, where
    /// the new one serves beside it.
    pub drain: Drain,
    /// Certificates from an authority such as Let's Encrypt (ACME, RFC 8555), for sites with `tls.acme = true`: issued
    /// and renewed without further ado, one for each host.
    pub acme: Acme,
    /// Events: what is kept of requests and of what happens to Rempart itself.
    pub analytics: Analytics,
    /// Whether visitors are served, and who is told when they are not.
    pub watch: Watch,
    /// Data files that are kept up to date while Rempart runs.
    #[schemars(length(max = 100))]
    pub feeds: Vec<Feed>,
    /// Lists that rules use.
    #[schemars(length(max = 1_000))]
    pub lists: Vec<List>,
    /// Rules for all sites; they come before those of a site.
    #[schemars(length(max = 20_000))]
    pub rules: Vec<Rule>,
    /// Files with further rules for all sites, each a list of `[[rules]]`.
    #[schemars(length(max = 100))]
    pub rules_files: Vec<String>,
    /// Rulesets that rules execute.
    #[schemars(length(max = 1_000))]
    pub rulesets: Vec<Ruleset>,
    /// The sites; at least one.
    #[schemars(length(max = 10_000))]
    pub site: Vec<Site>,
}

impl Default for Desired {
    fn default() -> Self {
        Self {
            via: "rempart".to_owned(),
            standby: true,
            bake: Period::seconds(60),
            listen: Vec::new(),
            trust: Trust::default(),
            metrics: Metrics::default(),
            log: Log::default(),
            limits: Limits::default(),
            drain: Drain::default(),
            acme: Acme::default(),
            analytics: Analytics::default(),
            watch: Watch::default(),
            feeds: Vec::new(),
            lists: Vec::new(),
            rules: Vec::new(),
            rules_files: Vec::new(),
            rulesets: Vec::new(),
            site: Vec::new(),
        }
    }
}

/// One address to listen on. Write one `[[listen]]` for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// IP address and port: `"192.0.2.1:80"`, `"[2001:db8::1]:443"` or, for every address of the machine, `":443"`, which is
    /// short for `"[::]:443"` and takes IPv4 as well. Only if `"0.0.0.0:443"` is listed too, that one takes IPv4.
    #[schemars(example = "[::]:443")]
    pub address: String,
    /// Whether connections are encrypted. Left out, they are on ports 443 and 8443 and are not on any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// Whether the addresses in `trust.proxies` begin their connections with a PROXY header (version 1 or 2), which tells
    /// who connected to them; one of them that does not is hung up on. From everybody else no header is read.
    #[serde(default)]
    pub proxy_protocol: bool,
}

/// Whom to believe about a visitor's address. Needed only when another proxy stands in front.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Trust {
    /// Addresses and networks of proxies in front of this one: `["10.0.0.0/8", "192.0.2.1"]`. What they say in
    /// `Forwarded`, `X-Forwarded-*` and `CF-Connecting-IP` is believed; from anybody else it is discarded.
    #[schemars(length(max = 1_000))]
    pub proxies: Vec<String>,
}

/// Metrics and health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Where `/metrics` and `/health` are served: an address of the loopback interface, or `"off"`.
    pub listen: String,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9145".to_owned() }
    }
}

/// Events: what is kept of requests and of what happens to Rempart itself, in a database in the state folder, for
/// `rempart events` and `rempart top`. Visitors' addresses are kept as networks only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Analytics {
    /// Whether events are kept at all.
    pub enabled: bool,
    /// How long figures per minute, and what happened, are kept.
    #[schemars(extend("x-minimum" = "1d", "x-maximum" = "3650d"))]
    pub keep_minutes: Period,
    /// How long samples of single requests are kept.
    #[schemars(extend("x-minimum" = "1d", "x-maximum" = "3650d"))]
    pub keep_samples: Period,
    /// Largest size of the database; the oldest go first.
    #[schemars(extend("x-minimum" = "8MiB", "x-maximum" = "1TiB"))]
    pub max_size: ByteSize,
}

impl Default for Analytics {
    fn default() -> Self {
        Self {
            enabled: true,
            keep_minutes: Period::seconds(30 * 86_400),
            keep_samples: Period::seconds(3 * 86_400),
            max_size: ByteSize::mebibytes(256),
        }
    }
}

/// Logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The access log: one line of JSON per request.
    pub access: AccessLog,
}

/// The access log: one line of JSON per request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLog {
    /// Where lines go.
    pub to: AccessLogTo,
    /// How much of a visitor's address is kept.
    pub client_ip: ClientIp,
    /// How long rotated files are kept.
    #[schemars(extend("x-minimum" = "1h", "x-maximum" = "3650d"))]
    pub retention: Period,
    /// Size at which a file is rotated.
    #[schemars(extend("x-minimum" = "64KiB", "x-maximum" = "1TiB"))]
    pub rotate: ByteSize,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            to: AccessLogTo::Stdout,
            client_ip: ClientIp::Truncated,
            retention: Period::seconds(14 * 86_400),
            rotate: ByteSize::mebibytes(64),
        }
    }
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessLogTo {
    /// Standard output.
    Stdout,
    /// Nowhere.
    Off,
    /// A file.
    File(
        /// Path of the file; rotated files lie beside it.
        #[schemars(example = "access.log")]
        String,
    ),
}

/// How much of a visitor's address is kept in the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientIp {
    /// The network only: /24 of an IPv4 address, /48 of an IPv6 address.
    Truncated,
    /// All of it.
    Full,
    /// Nothing.
    None,
}

/// Limits that hold for every connection, before its site is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Threads that serve connections. Left out, one per processor core.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_024))]
    pub threads: Option<usize>,
    /// Open connections from visitors, per thread. When there are as many, one that is idle makes room for a new one.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: usize,
    /// Open connections from one address (of IPv6, one /64 network), all threads together. Many visitors can share an
    /// address. Those of `trust.proxies` are not counted.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_address: usize,
    /// New connections per second from one address, on average; five times as many at once. Those of `trust.proxies` are
    /// not counted.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connection_rate_per_address: u32,
    /// TLS handshakes under way, per thread. When there are as many, one that makes no headway makes room for a new one.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub handshakes: usize,
    /// TLS handshakes under way from one address, all threads together. Those of `trust.proxies` are not counted.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub handshakes_per_address: usize,
    /// Memory the serving process may use before it takes no further connections, or `"none"` for no limit. Left out, half
    /// of what the machine has, or of what its control group allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-minimum" = "16MiB", "x-maximum" = "1024TiB"))]
    pub memory: Option<OptionalSize>,
    /// Size of a request's head: request line and header fields together.
    #[schemars(extend("x-minimum" = "1KiB", "x-maximum" = "1MiB"))]
    pub header_bytes: ByteSize,
    /// Number of header fields in a request.
    #[schemars(range(min = 10, max = 1_000))]
    pub header_count: usize,
    /// Size of a request's target (path and query).
    #[schemars(extend("x-minimum" = "256B", "x-maximum" = "64KiB"))]
    pub target_bytes: ByteSize,
    /// Requests at a time on one HTTP/2 connection.
    #[schemars(range(min = 1, max = 10_000))]
    pub streams: u32,
    /// Time for the TLS handshake.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "1h"))]
    pub handshake: Period,
    /// Time for a complete request head, from its first byte.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "1h"))]
    pub header: Period,
    /// Time an idle connection is kept for the next request.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "1d"))]
    pub keep_alive: Period,
    /// Time a visitor may take to accept the next piece of a response, and be behind with `write_rate`.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "1d"))]
    pub write: Period,
    /// Bytes per second a visitor has to accept on average, while there are any for it; or `"none"`. Does not hold for
    /// WebSockets, event streams and gRPC calls. The streams of an HTTP/2 connection share it.
    #[schemars(extend("x-minimum" = "1B", "x-maximum" = "1GiB"))]
    pub write_rate: OptionalSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            threads: None,
            connections: 10_000,
            connections_per_address: 1_024,
            connection_rate_per_address: 200,
            handshakes: 2_000,
            handshakes_per_address: 512,
            memory: None,
            header_bytes: ByteSize::kibibytes(32),
            header_count: 100,
            target_bytes: ByteSize::kibibytes(8),
            streams: 128,
            handshake: Period::seconds(10),
            header: Period::seconds(15),
            keep_alive: Period::seconds(75),
            write: Period::seconds(60),
            write_rate: OptionalSize(Some(ByteSize::bytes(512))),
        }
    }
}

/// How long connections may take to end when the process that serves them ends: at a stop, and at an upgrade, where the
/// new one serves beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// Idle connections are closed after this; a request that comes before is still answered.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "1d"))]
    pub idle: Period,
    /// Requests and responses still under way are cut off after this.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "1d"))]
    pub requests: Period,
    /// WebSockets and event streams are cut off after this.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "1d"))]
    pub tunnels: Period,
}

impl Default for Drain {
    fn default() -> Self {
        Self { idle: Period::seconds(10), requests: Period::seconds(60), tunnels: Period::seconds(60) }
    }
}

/// One site: a set of hosts that are served the same way. Write one `[[site]]` for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Name of the site in logs and metrics. Left out, its first host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Host names of the site: `"example.org"`, `"*.example.org"` for everything below it, or `"*"` for every host that no
    /// other site has. Names in other scripts may be written as they are.
    #[schemars(extend("examples" = [["example.org", "*.example.org"]]))]
    #[schemars(length(max = 1_000))]
    pub hosts: Vec<String>,
    /// Whose header fields the origin is sent.
    #[serde(default)]
    pub compatibility: Compatibility,
    /// Encryption between visitors and this site. Left out, a certificate is signed on the spot by the development
    /// authority made on first run, which browsers warn about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<SiteTls>,
    /// The servers behind this site; at least one.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub origin: Vec<Origin>,
    /// When an origin is set aside for a while, judged by what real requests met with. At most half of them are, and if
    /// all are failing, all are used.
    #[serde(default)]
    pub health: Health,
    /// When a request is tried again: only if it is safe to repeat, or if nothing of it was sent yet.
    #[serde(default)]
    pub retry: Retry,
    /// Limits that hold for this site.
    #[serde(default)]
    pub limits: SiteLimits,
    /// Which methods and header fields requests may have. Left out, nothing is asked of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<crate::policy::Policy>,
    /// How paths are spelled before rules see them.
    #[serde(default)]
    pub normalize: Normalize,
    /// Rules of this site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20_000))]
    pub rules: Vec<Rule>,
    /// Files with further rules of this site, each a list of `[[rules]]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub rules_files: Vec<String>,
}

/// Whose header fields the origin is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compatibility {
    /// Standard ones: `Forwarded`, `X-Forwarded-*`, `Via`, `CDN-Loop`.
    #[default]
    Neutral,
    /// Cloudflare's as well: `CF-Connecting-IP`, `CF-Ray`, `CF-Visitor`; and `/cdn-cgi/trace`.
    Cloudflare,
}

/// One server behind a site. Write one `[[site.origin]]` for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Scheme, host and port: `"http://127.0.0.1:3000"`. Without a port, 80 for `http` and 443 for `https`.
    #[schemars(example = "http://127.0.0.1:3000")]
    pub url: String,
    /// Share of requests relative to the site's other origins.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1_000))]
    pub weight: u32,
    /// The `Host` the origin is sent: `"preserve"` for the one the visitor asked for, or a name such as
    /// `"app.internal"`.
    #[serde(default = "preserve")]
    pub host: String,
    /// HTTP version spoken with the origin.
    #[serde(default)]
    pub http: OriginHttp,
    /// Idle connections kept for later requests, per thread.
    #[serde(default = "idle_connections")]
    #[schemars(range(min = 0, max = 10_000))]
    pub max_idle: usize,
    /// Connections open at a time, idle ones included, over all threads; each thread has its share, at least one. Left out,
    /// 10000 per thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<usize>,
    /// Requests that wait, per thread, while all connections are in use; 0 lets none wait. They are served in the order in
    /// which they came, those beyond are answered with 503.
    #[serde(default = "queued_requests")]
    #[schemars(range(min = 0, max = 100_000))]
    pub queue: usize,
    /// PROXY header that tells the origin who the visitor is, at the beginning of each connection. Left out, there is none.
    /// Connections then carry the requests of one visitor's connection only, with HTTP/1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// TLS towards the origin; only with an `https` URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<OriginTls>,
    /// Time limits towards the origin.
    #[serde(default)]
    pub timeouts: OriginTimeouts,
}

fn one() -> u32 {
    1
}

fn preserve() -> String {
    "preserve".to_owned()
}

fn idle_connections() -> usize {
    128
}

fn queued_requests() -> usize {
    256
}

/// Version of a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// HTTP version spoken with the origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OriginHttp {
    /// The best both sides know with `https`; HTTP/1.1 with `http`, except for gRPC, which needs HTTP/2.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// HTTP/1.1 only.
    #[serde(rename = "1.1")]
    Http1,
    /// HTTP/2 only, except for WebSockets.
    #[serde(rename = "2")]
    Http2,
}

/// TLS towards the origin; only with an `https` URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OriginTls {
    /// Name asked for and expected in the origin's certificate. Left out, the host of the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Whether the origin's certificate is checked. Without the check, whoever stands between here and the origin can
    /// read and change everything.
    pub verify: bool,
    /// PEM file with the authorities that may have signed the origin's certificate. Left out, those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
}

impl Default for OriginTls {
    fn default() -> Self {
        Self { server_name: None, verify: true, authorities: None }
    }
}

/// Time limits towards the origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OriginTimeouts {
    /// Time for the connection, TLS handshake included.
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "1h"))]
    pub connect: Period,
    /// Time a request waits at most while all connections are in use.
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "1h"))]
    pub queue: Period,
    /// Time from the request sent to the head of the response.
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "1d"))]
    pub response: Period,
    /// Time between two pieces of a body, in either direction.
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "1d"))]
    pub idle: Period,
    /// Time an unused connection is kept.
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "1d"))]
    pub keep_alive: Period,
    /// Time after which the origin's name is resolved again, at the latest.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1d"))]
    pub resolve: Period,
}

impl Default for OriginTimeouts {
    fn default() -> Self {
        Self {
            connect: Period::seconds(5),
            queue: Period::seconds(5),
            response: Period::seconds(60),
            idle: Period::seconds(60),
            keep_alive: Period::seconds(30),
            resolve: Period::seconds(60),
        }
    }
}

/// When an origin is set aside for a while, judged by what real requests met with. At most half of them are, and if all
/// are failing, all are used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// Failures in a row after which an origin is set aside; 0 never does.
    #[schemars(range(min = 0, max = 1_000))]
    pub failures: u32,
    /// How long it is set aside the first time; twice as long with every further time.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "1d"))]
    pub ejection: Period,
    /// How long it is set aside at most.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "1d"))]
    pub max_ejection: Period,
}

impl Default for Health {
    fn default() -> Self {
        Self { failures: 3, ejection: Period::seconds(10), max_ejection: Period::seconds(300) }
    }
}

/// When a request is tried again: only if it is safe to repeat, or if nothing of it was sent yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Further attempts for one request.
    #[schemars(range(min = 0, max = 10))]
    pub attempts: u32,
    /// Retries as a share of all requests, in per cent, so that they never make an overload worse.
    #[schemars(range(min = 0, max = 100))]
    pub budget_percent: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 2, budget_percent: 10 }
    }
}
