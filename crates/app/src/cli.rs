//! The command line, declared once: parser, help, completions and man page all come from here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

/// Put Rempart in front of a website: delivery, TLS and protection on your own machine.
#[derive(Debug, Parser)]
#[command(name = "rempart", version, max_term_width = 100, after_help = AFTER)]
pub struct Cli {
    /// What to do; without a command the demo starts.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Print machine-readable JSON instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// When to colour the output.
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    pub colour: Colour,
}

const AFTER: &str = "Examples:
  rempart                                            try it: Rempart in front of a built-in demo site
  rempart run --origin http://127.0.0.1:3000         in front of your site, on ports 8080 and 8443
  rempart run --config /etc/rempart/rempart.toml     as the configuration says
  rempart check && rempart reload                    change the configuration while it runs

Exit codes: 0 done, 1 configuration refused or failed, 2 wrong usage, 3 no running Rempart reached.
Log detail: environment variable REMPART_LOG (error, warn, info, debug, trace).";

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the sites of a configuration, or one site given by its origin.
    Run(RunArguments),
    /// Serve a built-in demo site, to see what Rempart does.
    Demo(DemoArguments),
    /// Check a configuration without putting it in force, and show what would change.
    Check(CheckArguments),
    /// Have the running Rempart read its configuration again.
    Reload(ReloadArguments),
    /// Say that a forced change is as wanted; without that it is taken back after ten minutes.
    Confirm(ConfirmArguments),
    /// Turn a network away for a while, at once.
    Ban(BanArguments),
    /// Go back to the last good generation of the configuration or of a feed, at once.
    Revert(RevertArguments),
    /// Switch a module off, at one site or everywhere, at once.
    Disable(DisableArguments),
    /// Switch a module on again.
    Enable(EnableArguments),
    /// Show what runs, and what is wrong with it.
    Status(Place),
    /// Replace the running Rempart by another binary, without losing a connection; back to the old one if it does not do
    /// well.
    Upgrade(UpgradeArguments),
    /// List the certificates, their expiry and next renewal; renew or revoke some.
    Certs(CertsArguments),
    /// List the data files; make packages and keys for them; let one go on that was frozen.
    Feed(crate::feeds::FeedArguments),
    /// Install databases of where addresses are.
    Geo(crate::geo::GeoArguments),
    /// Try expressions, see which way a request would go, and what rules did or would have done.
    Rules(crate::rules::RulesArguments),
    /// Show requests and what happened to Rempart itself, as it happens or from the last days.
    Events(crate::events::EventsArguments),
    /// Watch requests, failures, anomalies and changes live.
    Top(crate::top::TopArguments),
    /// List what does not work, or did not for a while, with its cause and the changes before it.
    Incidents(crate::watch::IncidentsArguments),
    /// Try the ways in which incidents are told.
    Watch(crate::watch::WatchArguments),
    /// Re-enact famous outages against a Rempart of its own, and say what held.
    Drill(DrillArguments),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page (roff).
    Man,
    /// One of the processes that `run` starts.
    #[command(hide = true)]
    Child(ChildArguments),
    /// Print generated reference documentation.
    Reference {
        /// Which.
        #[arg(value_enum)]
        what: Reference,
    },
}

/// Generated documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Reference {
    /// Every key of rempart.toml, as Markdown.
    Config,
    /// The JSON schema of rempart.toml.
    Schema,
    /// Every command and option, as Markdown.
    Cli,
    /// Every field and function of the rules language, as Markdown.
    Rules,
    /// The same as JSON, for editors that complete.
    Language,
}

/// Where the running Rempart is found.
#[derive(Args, Clone, Debug, Default)]
pub struct Place {
    /// Folder for last good generations, the development authority and the admin socket
    /// [default: /var/lib/rempart for root, else ~/.local/state/rempart].
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath, env = "REMPART_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// The admin socket [default: admin.sock in the state folder].
    #[arg(long, global = true, value_name = "SOCKET", value_hint = ValueHint::FilePath, env = "REMPART_ADMIN")]
    pub admin: Option<PathBuf>,
}

/// Arguments of `reload`.
#[derive(Args, Debug)]
pub struct ReloadArguments {
    /// Take it even when hosts or origins go that a change may not take away by itself. `rempart confirm` has to follow.
    #[arg(long)]
    pub force: bool,
    /// The running Rempart.
    #[command(flatten)]
    pub place: Place,
}

/// Arguments of `ban`.
#[derive(Args, Debug)]
pub struct BanArguments {
    /// An address or a network, such as 192.0.2.0/24; a /16 of IPv4 or a /32 of IPv6 at most.
    pub network: String,
    /// Minutes, up to a day.
    #[arg(long = "for", value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1440))]
    pub minutes: u64,
    /// Why, for the record.
    #[arg(long)]
    pub reason: String,
    /// The running Rempart.
    #[command(flatten)]
    pub place: Place,
}

/// Arguments of `revert`.
#[derive(Args, Debug)]
pub struct RevertArguments {
    /// The feed; the configuration, if none is named.
    pub feed: Option<String>,
    /// Why, for the record.
    #[arg(long)]
    pub reason: String,
    /// The running Rempart.
    #[command(flatten)]
    pub place: Place,
}

/// Arguments of `disable`.
#[derive(Args, Debug)]
pub struct DisableArguments {
    /// The module, such as firewall-rules; or a rule or ruleset by its id, as in rule/no-admin.
    pub module: String,
    /// Only at this site.
    #[arg(long)]
    pub site: Option<String>,
    /// Why, for the record.
    #[arg(long)]
    pub reason: String,
    /// The running Rempart.
    #[command(flatten)]
    pub place: Place,
}

/// Arguments of `enable`.
#[derive(Args, Debug)]
pub struct EnableArguments {
    /// The module, or rule/ID.
    pub module: String,
    /// The site it was switched off at, if it was one.
    #[arg(long)]
    pub site: Option<String>,
    /// The running Rempart.
    #[command(flatten)]
    pub place: Place,
}

/// Arguments of `confirm`.
#[derive(Args, Debug)]
pub struct ConfirmArguments {
    /// The feed whose change it was; the configuration's, if none is named.
    pub feed: Option<String>,
    /// The running Rempart.
    #[command(flatten)]
    pub place: Place,
}

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct RunArguments {
    /// Origin to serve for every host, such as http://127.0.0.1:3000; repeat it to spread load.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub origin: Vec<String>,
    /// Address to listen on with --origin, as http://ADDRESS:PORT or https://ADDRESS:PORT
    /// [default: 8080 without and 8443 with TLS, on every address].
    #[arg(long, value_name = "URL", requires = "origin")]
    pub listen: Vec<String>,
    /// Where metrics and health are served with --origin: a loopback address, or "off" [default: 127.0.0.1:9145].
    #[arg(long, value_name = "ADDRESS", requires = "origin")]
    pub metrics: Option<String>,
    /// Where the access log goes with --origin: stdout, off or a file [default: stdout, with --json off].
    #[arg(long, value_name = "TARGET", requires = "origin")]
    pub access_log: Option<String>,
    /// Configuration file [default: rempart.toml here, else /etc/rempart/rempart.toml].
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Most memory a process may take that tries a new generation, such as 512MiB.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub taste_memory: u64,
    /// Most time, and processor time, in seconds that trying a new generation may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub taste_time: u64,
    /// Where state is kept.
    #[command(flatten)]
    pub place: Place,
}

fn size(text: &str) -> Result<u64, String> {
    snapshot::units::ByteSize::parse(text).map(|size| size.get()).map_err(|error| error.to_string())
}

/// Arguments of `upgrade`.
#[derive(Args, Debug)]
pub struct UpgradeArguments {
    /// The new binary [default: the file the running one was started from].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub binary: Option<PathBuf>,
    /// Seconds the new one is watched before the old one ends.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub bake: u64,
    /// Where the running Rempart is found.
    #[command(flatten)]
    pub place: Place,
}

/// Arguments of `certs`.
#[derive(Args, Debug)]
pub struct CertsArguments {
    /// What to do; without a command they are listed.
    #[command(subcommand)]
    pub command: Option<CertsCommand>,
    /// Where the running Rempart is found.
    #[command(flatten)]
    pub place: Place,
}

/// What can be done with certificates that come from an authority.
#[derive(Clone, Debug, Subcommand)]
pub enum CertsCommand {
    /// Renew certificates now.
    Renew {
        /// Names of the certificates.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Revoke certificates, and have new ones issued.
    Revoke {
        /// Names of the certificates.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// Arguments of `drill`.
#[derive(Args, Debug)]
pub struct DrillArguments {
    /// Numbers or names of drills; without any, they are listed.
    #[arg(value_name = "DRILL")]
    pub which: Vec<String>,
    /// Every drill.
    #[arg(long, conflicts_with = "which")]
    pub all: bool,
    /// List the drills and what each needs.
    #[arg(long, conflicts_with_all = ["which", "all"])]
    pub list: bool,
    /// Play without this safeguard, which must fail. Only with the binary built for it.
    #[arg(long, value_name = "SAFEGUARD", conflicts_with = "controls")]
    pub without: Option<String>,
    /// Play each drill with every safeguard, and then without each of them, which must fail. Only with the binary built
    /// for it.
    #[arg(long)]
    pub controls: bool,
    /// Write a page for each drill, and a summary, into this folder.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub report: Option<PathBuf>,
    /// Requests per second.
    #[arg(long, value_name = "NUMBER", default_value_t = drills::RATE, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: u32,
    /// The clock of the drill: seconds of an outage that pass in one.
    #[arg(long, value_name = "NUMBER", default_value_t = drills::FACTOR, env = "REMPART_DRILL_FACTOR", value_parser = factor)]
    pub factor: f64,
}

fn factor(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (1.0..=3600.0).contains(&factor) { Ok(factor) } else { Err("from 1 to 3600".to_owned()) }
}

/// Arguments of the processes that `run` starts.
#[derive(Args, Debug)]
pub struct ChildArguments {
    /// What the process does.
    #[arg(value_enum)]
    pub role: Role,
    /// The state folder.
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Serves, waits to serve, or tries a generation.
    Edge,
    /// Gets certificates.
    Keeper,
    /// Collects events.
    Analytics,
    /// Looks for new data files.
    Feeder,
    /// Asks the sites from outside, and tells of incidents.
    Watch,
    /// The demo site.
    DemoSite,
    /// Ends what a drill has started when the drill is over, however it ended.
    DrillGuard,
}

/// Arguments of `demo`.
#[derive(Args, Debug, Default)]
pub struct DemoArguments {
    /// Address to listen on, as http://ADDRESS:PORT or https://ADDRESS:PORT
    /// [default: http://127.0.0.1:8080 and https://127.0.0.1:8443, or free ports when those are taken].
    #[arg(long, value_name = "URL")]
    pub listen: Vec<String>,
    /// Where metrics and health are served: a loopback address, or "off" [default: a free port].
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<String>,
    /// Where state is kept [default: a folder of its own beside the ordinary one].
    #[command(flatten)]
    pub place: Place,
}

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct CheckArguments {
    /// Configuration file [default: rempart.toml here, else /etc/rempart/rempart.toml].
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Where the running Rempart is found, for the comparison.
    #[command(flatten)]
    pub place: Place,
}
