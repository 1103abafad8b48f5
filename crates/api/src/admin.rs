//! Requests and answers of the admin socket. One JSON object per line each way; one request per connection.

use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;

/// Longest request line the socket reads, in bytes.
pub const MAX_REQUEST_BYTES: u64 = 64 * 1024;

/// What an operator asks of a running Rempart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// What runs, since when, and what is wrong with it.
    Status,
    /// Read the configuration again and put it in force if it is good.
    Reload,
    /// What would change if these `key = value` lines (see `Answer::Outline`) came into force.
    Outline,
    /// Finish requests in flight, then end the process.
    Stop,
}

/// The answer to a `Request`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To `Status`.
    Status(Box<Status>),
    /// To `Reload`.
    Reload(ReloadOutcome),
    /// To `Outline`: the running generation as sorted `path = value` lines, from which `rempart check` makes its difference.
    Outline {
        /// Content hash of the running generation.
        generation: String,
        /// One line per setting, secrets left out.
        lines: Vec<String>,
    },
    /// To `Stop`: draining has begun.
    Stopping,
    /// The request was not understood or not allowed.
    Refused {
        /// Why, for a person.
        message: String,
    },
}

/// Outcome of a reload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReloadOutcome {
    /// Whether the configuration on disk is now in force.
    pub active: bool,
    /// Whether it differs from what was in force before.
    pub changed: bool,
    /// Number of the generation now in force.
    pub number: u64,
    /// Content hash of the generation now in force.
    pub generation: String,
    /// Errors (when refused) and warnings.
    pub diagnostics: Vec<Diagnostic>,
}

/// State of a running Rempart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the binary.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since start.
    pub uptime_seconds: u64,
    /// Number of the generation in force; grows by one with every change.
    pub number: u64,
    /// Its content hash.
    pub generation: String,
    /// When it came into force, RFC 3339.
    pub active_since: String,
    /// Where it came from.
    pub source: GenerationSource,
    /// Configuration file, or `None` when everything came from the command line.
    pub config: Option<String>,
    /// Set while the configuration on disk is not what runs: what happened at the last attempt.
    pub refused: Option<Refusal>,
    /// What else an operator should know: certificates close to expiry, log lines dropped.
    pub warnings: Vec<String>,
    /// Addresses listened on, with the port really bound.
    pub listeners: Vec<ListenerStatus>,
    /// Where metrics are served.
    pub metrics: Option<String>,
    /// Sites and their origins.
    pub sites: Vec<SiteStatus>,
    /// Requests finished since start.
    pub requests: u64,
    /// Client connections open now.
    pub connections: u64,
}

/// Where the generation in force came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GenerationSource {
    /// The configuration file.
    Config,
    /// The command line (`--origin`).
    CommandLine,
    /// The built-in demo.
    Demo,
    /// The last good generation on disk, because the configuration could not be used at start.
    LastGood,
}

/// A configuration that was not taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// When, RFC 3339.
    pub at: String,
    /// What was wrong.
    pub diagnostics: Vec<Diagnostic>,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// As configured.
    pub configured: String,
    /// As bound.
    pub address: String,
    /// Whether it speaks TLS.
    pub tls: bool,
}

/// One site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteStatus {
    /// Name.
    pub name: String,
    /// Host patterns.
    pub hosts: Vec<String>,
    /// Origins.
    pub origins: Vec<OriginStatus>,
    /// When the certificate ends, RFC 3339; `None` without TLS.
    pub certificate_expires: Option<String>,
}

/// One origin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OriginStatus {
    /// `http://host:port`.
    pub origin: String,
    /// Whether it currently gets requests.
    pub healthy: bool,
    /// Requests sent to it since start.
    pub requests: u64,
    /// Of those, failures.
    pub failures: u64,
}
