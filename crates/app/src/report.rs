//! What a person sees in the terminal; scripts get JSON from the same data.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use api::admin::{
    BreakerStatus, FeedStatus, GenerationSource, ModuleStatus, ProcessRole, ReloadOutcome, Status,
    UpgradeOutcome,
};
use api::certificates::{CertificateSource, CertificateStatus};
use api::diagnostic::Diagnostic;
use api::seal::KeyId;
use base::time::Timestamp;
use snapshot::outline::Change;
use snapshot::package::Manifest;
use snapshot::units::ByteSize;

use crate::cli::Colour;

/// A time for people, in UTC.
fn moment(at: Timestamp) -> String {
    let second = i64::try_from(at.seconds()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(second).map_or_else(|_| format!("second {second}"), |at| at.to_string())
}

/// Where and how to write.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    /// Machine-readable output.
    pub json: bool,
    /// Colour on standard output.
    pub colour: bool,
    /// Colour on standard error.
    pub error_colour: bool,
}

impl Terminal {
    /// Decides about colour: asked for, or on a terminal without NO_COLOR (no-color.org).
    pub fn new(json: bool, colour: Colour) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let decide = |terminal: bool| match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => terminal && wanted,
        };
        Self {
            json,
            colour: decide(std::io::stdout().is_terminal()),
            error_colour: decide(std::io::stderr().is_terminal()),
        }
    }

    /// Text on standard output. A reader that has gone away is no error.
    pub fn print(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        drop(writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()));
    }

    /// Text on standard error.
    pub fn complain(&self, text: &str) {
        drop(writeln!(std::io::stderr().lock(), "{}", text.trim_end()));
    }

    /// A value as JSON on standard output.
    pub fn print_json(&self, value: &impl serde::Serialize) {
        match serde_json::to_string_pretty(value) {
            Ok(text) => self.print(&text),
            Err(error) => self.complain(&format!("rempart: {error}")),
        }
    }

    fn paint(&self, colour: bool, code: &str, text: &str) -> String {
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Every finding, rendered with its place.
    pub fn diagnostics(&self, diagnostics: &[Diagnostic]) {
        for diagnostic in diagnostics {
            self.complain(&snapshot::diagnostic::render(diagnostic, self.error_colour));
            self.complain("");
        }
    }

    /// A configuration that was not taken.
    pub fn refused(&self, consequence: &str, diagnostics: &[Diagnostic]) {
        self.diagnostics(diagnostics);
        self.complain(&self.paint(self.error_colour, "1;31", &format!("rempart: {consequence}")));
    }

    /// Said once when serving begins.
    pub fn serving(&self, status: &Status, state: &Path) {
        let mut text = format!("Rempart {} serves generation {}\n", status.version, status.number);
        for listener in &status.listeners {
            let scheme = if listener.tls { "https" } else { "http " };
            text += &format!("  {scheme}    {}\n", self.paint(self.colour, "1", &listener.address));
        }
        text += &sites(status);
        if let Some(metrics) = &status.metrics {
            text += &format!("  metrics  http://{metrics}/metrics\n");
        }
        let authority = state.join("ca").join(edge::tls::authority::CERTIFICATE_FILE);
        if authority.exists() && status.listeners.iter().any(|listener| listener.tls) {
            text += &format!("  development authority  {}\n", authority.display());
        }
        self.print(&text);
    }

    /// `rempart reload`.
    pub fn reloaded(&self, outcome: &ReloadOutcome) {
        let short: String = outcome.generation.chars().take(12).collect();
        match (outcome.active, outcome.changed) {
            (true, true) => {
                self.diagnostics(&outcome.diagnostics);
                let done = self.paint(self.colour, "32", "in force");
                self.print(&format!("generation {} ({short}) is {done}", outcome.number));
                if let Some(seconds) = outcome.confirm_seconds {
                    let minutes = seconds / 60;
                    self.print(&format!(
                        "run `rempart confirm` within {minutes} minutes, or it is taken back"
                    ));
                }
            }
            (true, false) => {
                self.diagnostics(&outcome.diagnostics);
                self.print(&format!(
                    "nothing has changed: generation {} ({short}) stays in force",
                    outcome.number
                ));
            }
            (false, _) => {
                let stays = format!("refused: generation {} ({short}) stays in force", outcome.number);
                self.refused(&stays, &outcome.diagnostics);
            }
        }
    }

    /// `rempart status`.
    pub fn status(&self, status: &Status) {
        let short: String = status.generation.chars().take(12).collect();
        let from = match status.source {
            GenerationSource::Config => status.config.clone().unwrap_or_default(),
            GenerationSource::CommandLine => "the command line".to_owned(),
            GenerationSource::Demo => "the demo".to_owned(),
            GenerationSource::LastGood => self.paint(self.colour, "1;31", "the LAST GOOD generation on disk"),
            GenerationSource::Defaults => {
                self.paint(self.colour, "1;31", "what is COMPILED IN: nothing else can be used")
            }
        };
        let mut text = format!(
            "Rempart {} (pid {}), up {}\n  generation {} ({short}) from {from}, in force since {}\n  {} requests, {} connections open\n",
            status.version,
            status.pid,
            duration(status.uptime_seconds),
            status.number,
            status.active_since,
            status.requests,
            status.connections,
        );
        for listener in &status.listeners {
            let scheme = if listener.tls { "https" } else { "http " };
            text += &format!("  {scheme}    {}\n", listener.address);
        }
        if let Some(metrics) = &status.metrics {
            text += &format!("  metrics  http://{metrics}/metrics\n");
        }
        text += &sites(status);
        for artefact in &status.artefacts {
            let state = match (artefact.unconfirmed, artefact.baking) {
                (true, _) => ", forced, waits for `rempart confirm`",
                (false, true) => ", watched",
                (false, false) => "",
            };
            text += &format!(
                "  data     {} ({}): generation {} since {}{state}\n",
                artefact.feed, artefact.kind, artefact.generation, artefact.since
            );
            // A line of its own: it may be what a licence wants to be read.
            if let Some(source) = &artefact.source {
                text += &format!("           {source}\n");
            }
        }
        for ban in &status.bans {
            text += &format!(
                "  banned   {} until {}: {}\n",
                ban.network,
                crate::builder::rfc3339(ban.until),
                ban.reason
            );
        }
        text += &self.modules(&status.modules);
        text += &processes(status);
        for warning in &status.warnings {
            text += &format!("  {} {warning}\n", self.paint(self.colour, "33", "warning:"));
        }
        self.print(&text);
        if let Some(refusal) = &status.refused {
            self.refused(&format!("the configuration was refused at {}", refusal.at), &refusal.diagnostics);
        }
    }

    fn modules(&self, modules: &ModuleStatus) -> String {
        let mut text = String::new();
        for switch in &modules.switches {
            let place = switch.site.as_deref().unwrap_or("every site");
            let off = self.paint(self.colour, "33", "off");
            text += &format!(
                "  module   {} is {off} at {place} since {} by {}: {}\n",
                switch.module,
                moment(switch.since),
                switch.by,
                switch.reason
            );
        }
        for breaker in &modules.breakers {
            let BreakerStatus { module, site, open_seconds, probe_in_seconds, meanwhile, .. } = breaker;
            let why = if breaker.hung { "a process hung in it" } else { "it fails" };
            let over = self.paint(self.colour, "33", "passed over");
            text += &format!(
                "  module   {module} is {over} at {site} for {open_seconds} s because {why}, tried again in {probe_in_seconds} s; {meanwhile}\n"
            );
        }
        for site in &modules.reverted {
            let back = self.paint(self.colour, "33", "as in generation");
            text += &format!(
                "  site     {} is served {back} {}, because a module failed with: {}\n",
                site.site, site.generation, site.settings
            );
        }
        text
    }

    /// `rempart upgrade`.
    pub fn upgraded(&self, outcome: &UpgradeOutcome) {
        let to = outcome.to.as_deref().unwrap_or("a binary that did not get far enough to tell its version");
        if outcome.upgraded {
            let done = self.paint(self.colour, "32", "serves");
            self.print(&format!("{to} {done} in place of {}", outcome.from));
        } else {
            self.refused(&format!("{to} was taken back: {} serves on", outcome.from), &outcome.diagnostics);
        }
    }

    /// `rempart feed`.
    pub fn feeds(&self, feeds: &[FeedStatus]) {
        if feeds.is_empty() {
            return self.print("the configuration in force has no [[feeds]]");
        }
        let mut text = String::new();
        for feed in feeds {
            text += &format!("{} ({})\n", self.paint(self.colour, "1", &feed.name), feed.kind);
            text += &match feed.generation {
                None => "  nothing is in force\n".to_owned(),
                Some(number) => {
                    let state = match (feed.unconfirmed, feed.baking) {
                        (true, _) => ", forced: `rempart confirm` keeps it",
                        (false, true) => ", still watched",
                        (false, false) => "",
                    };
                    format!("  generation {number} is in force{state}\n")
                }
            };
            if let Some(since) = feed.frozen {
                let frozen = self.paint(self.colour, "1;31", "frozen");
                text += &format!("  {frozen} since {}, because it went back and forth\n", moment(since));
            }
            for refusal in &feed.refusals {
                let which =
                    refusal.generation.map(|number| format!(" generation {number}")).unwrap_or_default();
                text += &format!(
                    "  {}{which} ({}, {} times since {}): {}\n",
                    self.paint(self.colour, "33", "refused"),
                    refusal.cause,
                    refusal.count,
                    moment(refusal.since),
                    refusal.message
                );
            }
        }
        self.print(&text);
    }

    /// What a package says of itself, and whether it is true.
    pub fn package(&self, manifest: &Manifest, verified: Result<KeyId, &str>) {
        let Manifest { name, kind, generation, entries, .. } = manifest;
        let mut text = format!("{name} ({kind}), generation {generation}\n  {entries} entries, ");
        text += &format!(
            "{} unpacked, {} packed\n",
            ByteSize::bytes(manifest.bytes),
            ByteSize::bytes(manifest.packed_bytes)
        );
        text += &format!("  made {}", moment(manifest.created));
        text += &manifest.expires.map(|expires| format!(", expires {}", moment(expires))).unwrap_or_default();
        text += &format!("\n  content blake3 {}\n", manifest.content);
        if !manifest.source.is_empty() {
            text += &format!("  source {:?}\n", manifest.source);
        }
        if let Some(query) = &manifest.query_hash {
            text += &format!("  query blake3 {query:?}\n");
        }
        text += &match verified {
            Ok(key) => {
                format!("  {} signed with the key {key}\n", self.paint(self.colour, "32", "verified:"))
            }
            Err(reason) => format!("  {} {reason}\n", self.paint(self.colour, "1;31", "NOT VERIFIED:")),
        };
        self.print(&text);
    }

    /// `rempart certs`.
    pub fn certificates(&self, certificates: &[CertificateStatus]) {
        if certificates.is_empty() {
            return self.print("no listener speaks TLS, so there are no certificates");
        }
        let mut text = String::new();
        for certificate in certificates {
            let source = match certificate.source {
                CertificateSource::File => "files",
                CertificateSource::Acme => "acme",
                CertificateSource::Development => "development",
            };
            let expires = match (&certificate.expires, certificate.days_left) {
                (Some(expires), Some(days)) if days < 0 => {
                    self.paint(self.colour, "1;31", &format!("EXPIRED {expires}"))
                }
                (Some(expires), Some(days)) => format!("expires {expires} ({days} days)"),
                (expires, _) => expires.clone().unwrap_or_else(|| "none yet".to_owned()),
            };
            let renews = certificate.renews.as_ref().map(|at| format!(", renewed {at}")).unwrap_or_default();
            let issuer = certificate.issuer.as_ref().map(|name| format!(", by {name}")).unwrap_or_default();
            text += &format!(
                "{}\n  site {}, {source}{issuer}\n  {expires}{renews}\n",
                self.paint(self.colour, "1", &certificate.names.join(", ")),
                certificate.site
            );
            if let Some(problem) = &certificate.problem {
                text += &format!("  {} {problem}\n", self.paint(self.colour, "33", "problem:"));
            }
        }
        self.print(&text);
    }

    /// What `rempart check` found.
    pub fn checked(&self, ok: bool, diagnostics: &[Diagnostic], changes: Option<&[Change]>) {
        self.diagnostics(diagnostics);
        if !ok {
            self.complain(&self.paint(
                self.error_colour,
                "1;31",
                "rempart: this configuration would be refused",
            ));
            return;
        }
        self.print(&self.paint(self.colour, "32", "this configuration can be used"));
        match changes {
            None => self.print("no Rempart is running here, so there is nothing to compare with"),
            Some([]) => self.print("it changes nothing of what runs"),
            Some(changes) => {
                self.print("it would change what runs:");
                changes.iter().for_each(|change| self.print(&format!("  {change}")));
            }
        }
    }
}

fn processes(status: &Status) -> String {
    let mut text = String::new();
    for process in &status.processes {
        let role = match process.role {
            ProcessRole::Supervisor => "supervisor",
            ProcessRole::Edge => "edge",
            ProcessRole::Standby => "standby",
            ProcessRole::Taster => "taster",
            ProcessRole::Draining => "draining",
            ProcessRole::Keeper => "keeper",
            ProcessRole::Feeder => "feeder",
            ProcessRole::Analytics => "analytics",
            ProcessRole::Watch => "watch",
        };
        text += &format!(
            "  process  {role:<10} pid {:<8} {:>5} MiB, up {}\n",
            process.pid,
            process.resident_bytes >> 20,
            duration(process.uptime_seconds)
        );
    }
    let seen = &status.supervision;
    if seen.crashes + seen.hangs > 0 {
        text += &format!("  replaced {} edges that had ended, {} that hung\n", seen.crashes, seen.hangs);
    }
    text
}

fn sites(status: &Status) -> String {
    let mut text = String::new();
    for site in &status.sites {
        text += &format!("  site     {} ({})\n", site.name, site.hosts.join(", "));
        if let Some(expires) = &site.certificate_expires {
            text += &format!("             certificate until {expires}\n");
        }
        for origin in &site.origins {
            let state = if origin.healthy { "" } else { "  SET ASIDE" };
            text += &format!("             origin {}{state}", origin.origin);
            if origin.requests > 0 {
                text += &format!("  {} requests, {} failed", origin.requests, origin.failures);
            }
            text.push('\n');
        }
    }
    text
}

/// `3 d 4 h`, `5 min`, `12 s`.
fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}
