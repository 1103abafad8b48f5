//! Requests and answers of the admin socket. One JSON object per line each way; one request per connection.

use std::path::PathBuf;

use base::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::certificates::CertificateStatus;
use crate::diagnostic::Diagnostic;
use crate::process::{Ban, Supervision, Switch};

/// Longest request line the socket reads, in bytes.
pub const MAX_REQUEST_BYTES: u64 = 64 * 1024;

/// What an operator asks of a running Rempart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// What runs, since when, and what is wrong with it.
    Status,
    /// Read the configuration again and put it in force if it is good.
    Reload {
        /// Even when it takes more away than a change may. It must be confirmed then, or is taken back.
        #[serde(default)]
        force: bool,
    },
    /// Carry out a signal (`api::signal`), as it was sealed.
    Signal {
        /// Its text.
        sealed: String,
    },
    /// Switch a module on again. (Off goes as a signal: what adds nothing may travel sealed.)
    Enable {
        /// The module.
        module: String,
        /// The site it was switched off at; `None` is the switch for every one.
        site: Option<String>,
    },
    /// What is known of every feed.
    Feeds,
    /// Look at the source of a feed now, or let a frozen one go on.
    Feed {
        /// The feed.
        name: String,
        /// Let it go on.
        #[serde(default)]
        thaw: bool,
        /// Take what comes even if it differs more than it may. It must be confirmed then, or is taken back.
        #[serde(default)]
        force: bool,
    },
    /// A forced change is as wanted and shall stay.
    Confirm {
        /// The feed; `None` is the configuration.
        #[serde(default)]
        feed: Option<String>,
    },
    /// What would change if these `key = value` lines (see `Answer::Outline`) came into force.
    Outline,
    /// Finish requests in flight, then end the process.
    Stop,
    /// Replace the edge, and then the supervisor, by another binary; back to this one when it does not serve well.
    Upgrade {
        /// The binary; `None` is the file this one was started from.
        binary: Option<PathBuf>,
        /// Seconds the new one is watched before the old one ends.
        bake_seconds: Option<u64>,
    },
    /// The certificates, their expiry and next renewal.
    Certificates,
    /// Renew (or revoke) certificates of these names now.
    Certificate {
        /// Revoke instead of renew.
        revoke: bool,
        /// The names.
        names: Vec<String>,
    },
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
    /// To `Upgrade`.
    Upgrade(UpgradeOutcome),
    /// To `Certificates`.
    Certificates {
        /// All of them.
        certificates: Vec<CertificateStatus>,
    },
    /// To `Feeds`.
    Feeds {
        /// All that the generation in force wants.
        feeds: Vec<FeedStatus>,
    },
    /// To `Signal` and `Enable`: it was carried out.
    Signalled {
        /// What was done.
        message: String,
    },
    /// Done.
    Done,
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
    /// Seconds in which it must be confirmed, when it was forced.
    #[serde(default)]
    pub confirm_seconds: Option<u64>,
}

/// Outcome of an upgrade.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpgradeOutcome {
    /// Whether the new binary serves now.
    pub upgraded: bool,
    /// Version before.
    pub from: String,
    /// Version of the new binary, when it got far enough to tell.
    pub to: Option<String>,
    /// Why it was taken back.
    pub diagnostics: Vec<Diagnostic>,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// What it does.
    pub role: ProcessRole,
    /// Process id.
    pub pid: u32,
    /// Version of its binary.
    pub version: String,
    /// Seconds since it was started.
    pub uptime_seconds: u64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessRole {
    /// Starts, watches and replaces the others.
    Supervisor,
    /// Serves.
    Edge,
    /// Has the generation in force loaded, and waits to take over.
    Standby,
    /// Tries a generation before it comes into force.
    Taster,
    /// Served before, and finishes what it has.
    Draining,
    /// Gets and renews certificates.
    Keeper,
    /// Fetches and checks data files.
    Feeder,
    /// Collects events.
    Analytics,
    /// Probes, announces, notifies.
    Watch,
}

/// What an edge process tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EdgeStatus {
    /// What an operator should know: log lines dropped.
    pub warnings: Vec<String>,
    /// Where metrics are served.
    pub metrics: Option<String>,
    /// Sites and their origins.
    pub sites: Vec<SiteStatus>,
    /// Certificates of the sites.
    pub certificates: Vec<CertificateStatus>,
    /// Requests finished since start.
    pub requests: u64,
    /// Client connections open now.
    pub connections: u64,
    /// Data files it holds: feed and hash of the content.
    #[serde(default)]
    pub artefacts: Vec<(String, String)>,
    /// What modules do not do as they should.
    #[serde(default)]
    pub modules: ModuleStatus,
}

/// Where modules are not asked, or failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleStatus {
    /// What is switched off, by whoever may.
    pub switches: Vec<Switch>,
    /// What is passed over because it failed; at most `MAX_BREAKERS`.
    pub breakers: Vec<BreakerStatus>,
    /// Sites that are served as in the generation before.
    pub reverted: Vec<RevertedSite>,
}

/// Breakers that are listed.
pub const MAX_BREAKERS: usize = 100;

/// A module that is passed over at a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerStatus {
    /// The module.
    pub module: String,
    /// The site.
    pub site: String,
    /// Seconds since it is passed over.
    pub open_seconds: u64,
    /// Seconds until it is tried again.
    pub probe_in_seconds: u64,
    /// A process hung in it.
    pub hung: bool,
    /// What becomes of requests meanwhile.
    pub meanwhile: String,
}

/// A site that went back to its settings of before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevertedSite {
    /// The site.
    pub site: String,
    /// The generation it is served by.
    pub generation: u64,
    /// The settings that were not good.
    pub settings: String,
}

/// State of a running Rempart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the binary.
    pub version: String,
    /// Process id of the supervisor.
    pub pid: u32,
    /// Every process of this Rempart.
    pub processes: Vec<ProcessStatus>,
    /// What has happened to them.
    pub supervision: Supervision,
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
    /// Whether the configuration in force is still watched: should it fail, the one before comes back.
    #[serde(default)]
    pub baking: bool,
    /// Data files in force.
    #[serde(default)]
    pub artefacts: Vec<ArtefactStatus>,
    /// Networks that are turned away.
    #[serde(default)]
    pub bans: Vec<Ban>,
    /// What modules do not do as they should.
    #[serde(default)]
    pub modules: ModuleStatus,
}

/// A data file in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtefactStatus {
    /// Its feed.
    pub feed: String,
    /// Its kind.
    pub kind: String,
    /// Its generation.
    pub generation: u64,
    /// Hash of its content, as the edge that serves tells it; `None` when that tells nothing.
    #[serde(default)]
    pub content: Option<String>,
    /// When it came into force, RFC 3339.
    pub since: String,
    /// Whether it is still watched: should the edge fail, the one before comes back.
    pub baking: bool,
    /// Whether it was forced and waits to be confirmed.
    pub unconfirmed: bool,
    /// Where its content is from, as its package says; who is to be named for it stands there.
    #[serde(default)]
    pub source: Option<String>,
}

/// Where the generation in force came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GenerationSource {
    /// The configuration file.
    #[default]
    Config,
    /// The command line (`--origin`).
    CommandLine,
    /// The built-in demo.
    Demo,
    /// A last good generation on disk, because the configuration could not be used or its generation crashed.
    LastGood,
    /// What is compiled in: no generation could be used, and every request gets 503.
    Defaults,
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

/// What is known of a feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedStatus {
    /// Its name.
    pub name: String,
    /// The kind of artefact it is.
    pub kind: String,
    /// The generation in force; `None` is none.
    pub generation: Option<u64>,
    /// Since when, as far as this process knows.
    pub since: Option<Timestamp>,
    /// It is still watched, and not yet the one to go back to.
    pub baking: bool,
    /// It was forced and waits for `rempart confirm`.
    pub unconfirmed: bool,
    /// The generation to go back to.
    pub good: Option<u64>,
    /// Since when nothing new is taken, because it went back and forth.
    pub frozen: Option<Timestamp>,
    /// What is wrong with its source, one for each cause.
    pub refusals: Vec<FeedRefusal>,
}

/// Why what the source of a feed holds is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedRefusal {
    /// A stable code.
    pub cause: String,
    /// For people.
    pub message: String,
    /// The latest generation refused for it, where one could be told.
    pub generation: Option<u64>,
    /// Since when.
    pub since: Timestamp,
    /// How often.
    pub count: u64,
}
