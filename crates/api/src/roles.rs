//! What the supervisor tells the roles beside the edge: feeder, analytics, watch. Each is a process that may end at any time.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What a role shall do, as the generation in force says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum RoleSettings {
    /// Of the feeder.
    Feeder(FeederSettings),
    /// Of analytics.
    Analytics(AnalyticsSettings),
    /// Of watch.
    Watch(WatchSettings),
}

/// Data files to keep up to date.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeederSettings {
    /// All of them.
    pub feeds: Vec<FeedSettings>,
}

/// One data file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedSettings {
    /// Its name: letters, digits and `-`.
    pub name: String,
    /// The kind of artefact it must be (`snapshot::kind`).
    pub kind: String,
    /// Where packages come from.
    pub source: FeedSource,
    /// Seconds between two looks.
    pub every_seconds: u64,
    /// Public keys (64 hexadecimal digits) whose signatures count.
    pub keys: Vec<String>,
    /// Largest number of entries; `None` is what the kind allows.
    #[serde(default)]
    pub max_entries: Option<u64>,
    /// Largest size in bytes, unpacked; `None` is what the kind allows.
    #[serde(default)]
    pub max_bytes: Option<u64>,
}

/// Where packages come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum FeedSource {
    /// A file that is replaced.
    File {
        /// Which.
        path: PathBuf,
    },
    /// A folder of files `*.package`; the one with the highest generation counts.
    Folder {
        /// Which.
        path: PathBuf,
    },
    /// A URL, `https` or (on loopback only) `http`.
    Url {
        /// Which.
        url: String,
    },
}

/// What is kept of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnalyticsSettings {
    /// Days that per-minute figures are kept.
    pub minutes_days: u32,
    /// Days that samples of requests are kept.
    pub samples_days: u32,
    /// Largest size of the database in bytes; the oldest go first.
    pub max_bytes: u64,
    /// Names of the sites in force.
    #[serde(default)]
    pub sites: Vec<String>,
}

/// What is watched, and who is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchSettings {
    /// Where the status page is served; `None` is nowhere.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// Where visitors find the status page; `None` is `http://` and `listen`.
    #[serde(default)]
    pub url: Option<String>,
    /// Title of the status page.
    #[serde(default)]
    pub title: String,
    /// Seconds between two probes of a site; 0 is never.
    #[serde(default)]
    pub probe_seconds: u64,
    /// Trusted proxies; this machine may be one.
    #[serde(default)]
    pub proxies: Vec<IpNet>,
    /// Sites that are probed.
    #[serde(default)]
    pub sites: Vec<WatchedSite>,
    /// Who is told.
    #[serde(default)]
    pub channels: Vec<NotifyChannel>,
    /// Everything else in here is nothing: what was said before stays, because no configuration can be used.
    #[serde(default)]
    pub as_before: bool,
}

/// A site as visitors reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedSite {
    /// Its name.
    pub name: String,
    /// The host asked for.
    pub host: String,
    /// The path asked for.
    pub path: String,
    /// Listeners of this machine it is asked at.
    pub at: Vec<WatchedListener>,
    /// It asks visitors for certificates, which probes have none of: being turned away is an answer.
    #[serde(default)]
    pub asks_for_certificates: bool,
}

/// A listener as probes reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedListener {
    /// Its address, as bound.
    pub address: SocketAddr,
    /// Whether connections begin with a TLS handshake.
    pub tls: bool,
    /// Whether connections of trusted proxies begin with a PROXY header.
    #[serde(default)]
    pub proxy_protocol: bool,
}

/// Somebody who is told, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyChannel {
    /// What pages and logs call it; no two have the same. Holds no secret.
    pub name: String,
    /// How.
    pub way: NotifyWay,
}

/// A way to tell somebody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum NotifyWay {
    /// An HTTP POST of JSON.
    Webhook {
        /// Where to: `https`, or `http` on the loopback interface.
        url: String,
        /// Key of the HMAC-SHA256 that signs the body; `None` leaves it unsigned.
        #[serde(default)]
        secret: Option<SecretPlace>,
    },
    /// An e-mail.
    Smtp {
        /// The server.
        host: String,
        /// Its port.
        port: u16,
        /// How the connection is protected.
        security: SmtpSecurity,
        /// Who logs in, and where the password is.
        #[serde(default)]
        login: Option<(String, SecretPlace)>,
        /// Sender.
        from: String,
        /// Recipients.
        to: Vec<String>,
    },
}

/// How a connection to a mail server is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpSecurity {
    /// TLS from the first byte (RFC 8314 section 3.3).
    Tls,
    /// TLS after STARTTLS, which the server must offer (RFC 3207).
    #[default]
    StartTls,
    /// None; on the loopback interface only.
    None,
}

impl SmtpSecurity {
    /// As in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::StartTls => "starttls",
            Self::None => "none",
        }
    }
}

/// Where a secret lies. It is read when it is needed, so that it is in no configuration and in no message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretPlace {
    /// The content of a file, without white space around it.
    File(PathBuf),
    /// An environment variable of Rempart.
    Environment(String),
}

impl std::fmt::Debug for NotifyWay {
    /// Never prints a URL, which may hold a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Webhook { .. } => "Webhook",
            Self::Smtp { .. } => "Smtp",
        })
    }
}
