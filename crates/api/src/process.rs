//! What the supervisor and its child processes say to each other, over a socket pair.
//!
//! Frames of JSON, each with the descriptors it carries (`app/src/channel.rs`). Old and new binaries meet here during an
//! upgrade, so fields are only ever added, with a default.

use std::net::SocketAddr;
use std::path::PathBuf;

use base::happening::Happening;
use base::time::Timestamp;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::admin::GenerationSource;
use crate::certificates::{AcmeSettings, Challenge};
use crate::diagnostic::{Diagnostic, Location};
use crate::roles::{FeedSettings, RoleSettings};

/// Largest frame, in bytes: the status of ten thousand sites fits.
pub const MAX_FRAME_BYTES: usize = 64 << 20;
/// Descriptors with one frame, at most: 64 listeners on 64 threads.
pub const MAX_FRAME_DESCRIPTORS: usize = 4096;

/// From the supervisor to a child.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Repeated in the answer.
    pub id: u64,
    /// What to do.
    pub task: Task,
}

/// What a child is told to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Task {
    /// Read, compile and load a generation; it comes into force with `Activate`. Answer: `Loaded` or `Refused`.
    ///
    /// Descriptors: the package, for `Package` and `Reread`.
    Load(Load),
    /// Run deferred work to its end and send golden requests through what was loaded. Answer: `Done` or `Refused`.
    Rehearse,
    /// Put what was loaded in force (if it is not) and accept on these listeners and no others. Answer: `Done`.
    ///
    /// Descriptors: for each listener not held yet, its sockets, in order; then the metrics socket, when one is given.
    Activate(Activate),
    /// Stop accepting, keep every connection. Answer: `Done`.
    Pause,
    /// Finish what runs within these limits, then exit. Answer: `Done`, at once.
    Drain(DrainLimits),
    /// Send requests to these listeners from outside, as a visitor would. Answer: `Probed`.
    Probe {
        /// Which.
        listeners: Vec<ListenerOrder>,
        /// The instance (see `Word::Hello`) that must have answered.
        instance: String,
    },
    /// Answer: `Status`.
    Status,
    /// Answer: `Outline`.
    Outline,
    /// Look a rule or ruleset up in the generation in force. Answer: `Rule`.
    Rule {
        /// Its id.
        id: String,
        /// The site; `None` is every one.
        site: Option<String>,
    },
    /// Keys of session tickets, newest first. Answer: `Done`.
    Tickets {
        /// All that are still good.
        keys: Vec<TicketKey>,
    },
    /// What certificate authorities ask for; replaces what was given before. Answer: `Done`.
    Challenges {
        /// All that are pending.
        challenges: Vec<Challenge>,
    },
    /// Keep the admin socket (the descriptor) for the next supervisor: this one becomes another binary, and whoever asks
    /// meanwhile waits instead of being refused. Answer: `Done`.
    Hold,
    /// What the metrics listener tells about the processes. Answer: `Done`.
    Supervision(Supervision),
    /// Only to the keeper of certificates: which names are wanted, and what to do now. Answer: `Done`.
    Keep {
        /// Everything wanted.
        settings: AcmeSettings,
    },
    /// Only to the keeper: the edge has the challenges it sent with this number.
    Published {
        /// Of `Word::Challenges`.
        serial: u64,
    },
    /// Only to the keeper: names that visitors asked for. Nothing is answered.
    Wanted {
        /// Lower case.
        names: Vec<String>,
    },
    /// To a role beside the edge: what it shall do from now on. Answer: `Done` or `Refused`.
    Settings {
        /// All of it.
        settings: RoleSettings,
    },
    /// To analytics and watch: this happened. Nothing is answered.
    Happened {
        /// In order.
        happenings: Vec<Happening>,
    },
    /// Load an artefact other than the configuration, and put it in force if a generation is; the one before stays when it is
    /// refused. Answer: `Done` or `Refused`.
    ///
    /// Descriptor: its package.
    Artefact {
        /// Its feed: whose keys count, and what it may hold.
        feed: FeedSettings,
        /// It was in force before: nothing is asked about what is in force now.
        #[serde(default)]
        again: bool,
        /// It may differ from what is in force as much as it likes.
        #[serde(default)]
        forced: bool,
    },
    /// Forget an artefact: nothing of this feed is in force from now on. Answer: `Done`.
    Withdraw {
        /// The name of its feed.
        name: String,
    },
    /// To a role beside the edge: write down what you hold; you are ended afterwards. Answer: `Done`.
    End,
    /// What is switched off, all of it; replaces what was said before. Answer: `Done`.
    Switches {
        /// All that is off.
        switches: Vec<Switch>,
    },
    /// Who is banned, all of it; replaces what was said before. Answer: `Done`.
    Bans {
        /// All of them.
        bans: Vec<Ban>,
    },
    /// Only to the feeder: what became of what it offered with this number. Nothing is answered.
    Offered {
        /// Of `Word::Offer`.
        serial: u64,
        /// Why it was refused; empty when it is in force.
        findings: Vec<Diagnostic>,
    },
    /// Only to the feeder: look at this feed now, or let a frozen one go on. Answer: `Done` or `Refused`.
    Feed {
        /// The feed.
        name: String,
        /// Let it go on.
        thaw: bool,
        /// Take what comes even if it differs more than it may; it must be confirmed afterwards.
        force: bool,
    },
    /// Only to the keeper: renew or revoke these names now. Answer: `Done` or `Refused`.
    Certificate {
        /// Revoke instead of renew.
        revoke: bool,
        /// The names.
        names: Vec<String>,
    },
}

/// A generation to load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Its number.
    pub number: u64,
    /// Where it comes from.
    pub from: LoadFrom,
    /// With a configuration that is read anew and a descriptor: how it differs from that package may be beyond what a change
    /// may take away.
    #[serde(default)]
    pub force: bool,
    /// What that is called towards people; kept for whoever adopts the process.
    #[serde(default)]
    pub source: GenerationSource,
}

/// Where a generation comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum LoadFrom {
    /// A configuration file and what it refers to.
    File {
        /// The file.
        path: PathBuf,
    },
    /// A configuration made from options.
    Text {
        /// Its text.
        text: String,
    },
    /// A package made before (the sources of a generation in one file), exactly as it was.
    Package {
        /// Whether it was in force before, so that a certificate past its end is served with a warning.
        served: bool,
    },
    /// The text of a package, with every file it refers to read again.
    Reread,
    /// What is compiled in: every request gets 503 and a page that says so.
    Defaults {
        /// Addresses that were listened on.
        listeners: Vec<WantedListener>,
    },
}

/// What came of `Load`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// Number of the generation.
    pub number: u64,
    /// Its content hash.
    pub id: String,
    /// Name of the configuration it was made from.
    pub file: String,
    /// Hash of the configuration's text, to notice that the file has changed since.
    pub text_hash: String,
    /// What it wants to listen on.
    pub listeners: Vec<WantedListener>,
    /// Where it wants metrics served.
    pub metrics: Option<SocketAddr>,
    /// Files whose change means that it must be read again.
    pub watched: Vec<Watched>,
    /// Whether a standby is wanted.
    pub standby: bool,
    /// How long ending connections may take.
    pub drain: DrainLimits,
    /// Certificates to be had from an authority; `None` when no site asks for it.
    pub acme: Option<AcmeSettings>,
    /// Milliseconds that a change is watched before it is the one to go back to.
    #[serde(default)]
    pub bake_ms: u64,
    /// What the roles beside the edge shall do; one that is not here is not wanted.
    #[serde(default)]
    pub roles: Vec<RoleSettings>,
    /// Threads that accept connections.
    pub threads: usize,
    /// Warnings.
    pub diagnostics: Vec<Diagnostic>,
}

/// A file that a generation was made from, or would have been.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// Where it lies.
    pub path: PathBuf,
    /// What it looked like when it was read; `None` when it was not there.
    pub seen: Option<Fingerprint>,
}

/// What a file looks like from outside; changes whenever its content may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Its inode.
    pub inode: u64,
    /// Its length in bytes.
    pub length: u64,
    /// When it was changed, in nanoseconds since 1970.
    pub modified: u64,
}

/// A listener a generation wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedListener {
    /// Address as configured; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Whether connections begin with a TLS handshake.
    pub tls: bool,
    /// Whether connections of trusted proxies begin with a PROXY header.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Where it is written.
    pub location: Option<Location>,
}

/// Listeners a child shall have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activate {
    /// All of them; those it holds already come without sockets.
    pub listeners: Vec<ListenerOrder>,
    /// The metrics listener.
    pub metrics: MetricsOrder,
    /// Origins that are set aside, from the process before.
    #[serde(default)]
    pub set_aside: Vec<SetAside>,
    /// What certificate authorities ask for.
    #[serde(default)]
    pub challenges: Vec<Challenge>,
    /// Modules that processes before hung in; not to be asked there for a while.
    #[serde(default)]
    pub suspects: Vec<Suspect>,
}

/// What becomes of the metrics listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricsOrder {
    /// Nothing changes.
    #[default]
    Keep,
    /// The last descriptor is its socket.
    Serve,
    /// It ends.
    End,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerOrder {
    /// Names it.
    pub id: u64,
    /// Address as configured.
    pub configured: SocketAddr,
    /// Address as bound.
    pub address: SocketAddr,
    /// Whether connections begin with a TLS handshake.
    pub tls: bool,
    /// Whether connections of trusted proxies begin with a PROXY header.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Sockets among the descriptors of this frame; 0 when the child has them.
    pub sockets: usize,
}

/// How long ending connections may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainLimits {
    /// Milliseconds after which idle connections are closed.
    pub idle_ms: u64,
    /// Milliseconds after which requests are cut off.
    pub requests_ms: u64,
    /// Milliseconds after which WebSockets and event streams are cut off.
    pub tunnels_ms: u64,
}

/// A key of session tickets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKey {
    /// Names the key in tickets; 16 bytes in hexadecimal digits.
    pub name: String,
    /// 32 bytes in hexadecimal digits.
    pub secret: String,
    /// When it was made, in seconds since 1970.
    pub made: u64,
}

impl std::fmt::Debug for TicketKey {
    /// Never prints the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TicketKey({})", self.name)
    }
}

/// An origin that gets no requests for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// Name of the site.
    pub site: String,
    /// Label of the origin.
    pub origin: String,
    /// Milliseconds it has still to wait.
    pub remaining_ms: u64,
    /// How often in a row it has been set aside.
    pub times: u32,
}

/// A network that is turned away for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Which.
    pub network: IpNet,
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub reason: String,
}

/// A module that an edge process hung in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// The module, as `base::module` names it.
    pub module: String,
    /// The site whose request it was.
    pub site: String,
    /// How many processes it was.
    pub times: u32,
}

/// A module that is switched off, everywhere or at one site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// The module, as `base::module` names it.
    pub module: String,
    /// The site; `None` is every one.
    pub site: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// Who did it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Counters of the supervisor, for the metrics listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervision {
    /// Edge processes replaced because they had ended.
    pub crashes: u64,
    /// Edge processes replaced because they did not answer.
    pub hangs: u64,
    /// Upgrades finished.
    pub upgrades: u64,
    /// Upgrades taken back.
    pub upgrades_reverted: u64,
    /// Generations refused by a taster.
    pub tastes_refused: u64,
    /// Whether a standby is ready.
    pub standby: bool,
    /// Whether the last configuration offered was refused.
    #[serde(default)]
    pub refused: bool,
}

/// From a child to the supervisor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Word {
    /// The first word: who this is.
    Hello {
        /// Process id.
        pid: u32,
        /// Version of the binary.
        version: String,
        /// Drawn at start; `/.rempart/trace` shows it, so that a probe knows who answered.
        instance: String,
    },
    /// An answer to an order.
    Answer {
        /// The order's.
        id: u64,
        /// What came of it.
        reply: Reply,
    },
    /// A sign of life, several times a second.
    Beat(Beat),
    /// The keeper of certificates: this is pending now. Confirmed by `Published` once the edge has it.
    Challenges {
        /// Repeated in the confirmation.
        serial: u64,
        /// All that are pending.
        challenges: Vec<Challenge>,
    },
    /// From any child: this happened to it.
    Happened {
        /// What.
        happening: Happening,
    },
    /// From the feeder: a package that passed all its checks. Confirmed by `Offered`. Descriptor: the package.
    Offer {
        /// Repeated in the answer.
        serial: u64,
        /// The feed.
        name: String,
        /// Generation of the package.
        generation: u64,
        /// It differs more than it may, and was forced: without a confirmation it is taken back.
        #[serde(default)]
        forced: bool,
    },
    /// To a supervisor that finds this edge running without one. Descriptors: the package in force, the sockets of all
    /// listeners, in order, and the metrics socket when there is one.
    Adopt(Box<Adopted>),
}

/// What an edge without a supervisor tells a new one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adopted {
    /// What it serves; `None` when it is draining.
    pub loaded: Option<Loaded>,
    /// Where that came from.
    pub source: GenerationSource,
    /// Its listeners.
    pub listeners: Vec<ListenerOrder>,
    /// Whether the last descriptor is its metrics socket.
    pub metrics: bool,
    /// Keys of session tickets.
    pub tickets: Vec<TicketKey>,
    /// Whether the last descriptor of all is the admin socket.
    #[serde(default)]
    pub admin: bool,
    /// What the supervisor before had counted.
    #[serde(default)]
    pub supervision: Supervision,
}

/// The answer to an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Done.
    Done,
    /// To `Load`.
    Loaded(Box<Loaded>),
    /// To `Load`, `Rehearse`, `Activate`: not done; the old state stays.
    Refused {
        /// All findings.
        diagnostics: Vec<Diagnostic>,
    },
    /// To `Probe`.
    Probed {
        /// What went wrong, in words; empty when all went well.
        failures: Vec<String>,
    },
    /// To `Status`.
    Status(Box<crate::admin::EdgeStatus>),
    /// To `Rule`.
    Rule {
        /// Whether it is there.
        known: bool,
        /// Ids that are like it, the most similar first; only when it is not there.
        similar: Vec<String>,
    },
    /// To `Outline`.
    Outline {
        /// Content hash of the generation in force.
        generation: String,
        /// One line per setting.
        lines: Vec<String>,
    },
}

/// A sign of life of an edge process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// How often each thread has come round; a thread that stands still hangs.
    pub threads: Vec<u64>,
    /// Client connections open now.
    pub connections: u64,
    /// Requests being served now.
    pub active: u64,
    /// Requests finished.
    pub requests: u64,
    /// Of those, answered with a failure of the edge's own making.
    pub failures: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Origins set aside, for a successor; at most a few hundred.
    #[serde(default)]
    pub set_aside: Vec<SetAside>,
    /// Names wanted on demand.
    #[serde(default)]
    pub wanted: Vec<String>,
    /// Modules that threads have been in for half a second or longer.
    #[serde(default)]
    pub suspects: Vec<Suspect>,
}
