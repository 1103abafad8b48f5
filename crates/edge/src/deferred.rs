//! Deferred work: what a generation would otherwise do for the first time while a visitor waits for it.
//!
//! An edge does it in the background once the generation is in force; a taster does it to its end before.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use base::time::Timestamp;
use snapshot::generation::{HostPattern, OriginHost};

use crate::generation::Generation;
use crate::telemetry::metrics::Metrics;
use crate::tls::{self, LoadError};
use crate::{pages, upstream};

/// One piece of deferred work.
#[derive(Clone, Copy)]
pub struct Deferred {
    /// For the log and for findings: `pages`.
    pub name: &'static str,
    work: fn(&Generation, &Metrics) -> Result<(), String>,
}

impl Deferred {
    /// Does it; the error says in words what is wrong with the generation. A panic is the caller's to catch.
    pub fn run(&self, generation: &Generation, metrics: &Metrics) -> Result<(), String> {
        (self.work)(generation, metrics)
    }

    /// For the taster: a panic may end it, and is a refusal like an error.
    fn finding(&self, message: String) -> LoadError {
        LoadError {
            place: "site".to_owned(),
            code: "deferred-work",
            message: format!("the generation's {} cannot be made ready: {message}", self.name),
            hint: "look at what changed in the configuration and its files, or at the version of Rempart"
                .to_owned(),
        }
    }
}

/// Every piece.
const PIECES: &[Deferred] = &[
    Deferred { name: "error pages", work: error_pages },
    Deferred { name: "host table", work: host_table },
    Deferred { name: "certificates", work: certificates },
    Deferred { name: "origin names", work: origin_names },
    Deferred { name: "metrics", work: metrics },
    Deferred { name: "outline", work: outline },
    #[cfg(feature = "faults")]
    Deferred { name: "faults", work: crate::fault::deferred },
];

impl Generation {
    /// What is left to be done once this generation is loaded, cheapest to find wrong first.
    pub fn deferred(&self) -> &'static [Deferred] {
        PIECES
    }
}

/// Does all of it, for a taster: the findings of all pieces. A panic is not caught.
pub fn run(generation: &Generation, metrics: &Metrics) -> Result<(), Vec<LoadError>> {
    let findings: Vec<_> = generation
        .deferred()
        .iter()
        .filter_map(|piece| piece.run(generation, metrics).err().map(|message| piece.finding(message)))
        .collect();
    if findings.is_empty() { Ok(()) } else { Err(findings) }
}

/// Does all of it on a thread of its own, for an edge that serves: findings and panics are logged, and nothing else.
pub fn run_in_background(generation: Arc<Generation>, metrics: Arc<Metrics>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("deferred".to_owned()).spawn(move || {
        for piece in generation.deferred() {
            // The pieces only read, so a panic leaves nothing half done.
            let outcome = catch_unwind(AssertUnwindSafe(|| piece.run(&generation, &metrics)));
            let number = generation.number;
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(problem)) => {
                    tracing::error!(piece = piece.name, generation = number, problem, "deferred work failed");
                }
                Err(_) => tracing::error!(piece = piece.name, generation = number, "deferred work panicked"),
            }
        }
    })
}

/// Every failure's page in every language and format.
fn error_pages(_: &Generation, _: &Metrics) -> Result<(), String> {
    pages::rehearse()
}

/// Every exact host leads to its own site.
fn host_table(generation: &Generation, _: &Metrics) -> Result<(), String> {
    let hosts = &generation.snapshot.hosts;
    for site in &generation.snapshot.sites {
        for pattern in &site.hosts {
            if let HostPattern::Exact(host) = pattern
                && hosts.find(host) != Some(site.index)
            {
                return Err(format!("host \"{host}\" does not lead to site \"{}\"", site.name));
            }
        }
    }
    Ok(())
}

/// A certificate for every exact host, signed now where the development authority signs.
fn certificates(generation: &Generation, _: &Metrics) -> Result<(), String> {
    if generation.tls.is_none() || generation.snapshot.is_defaults {
        return Ok(());
    }
    if tls::provider().cipher_suites.is_empty() {
        return Err("there is no cipher suite".to_owned());
    }
    let now = Timestamp::from_unix(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default());
    for site in &generation.snapshot.sites {
        for pattern in &site.hosts {
            if let HostPattern::Exact(host) = pattern
                && generation.certificates.choose(Some(host), || now).is_none()
            {
                return Err(format!("there is no certificate for \"{host}\""));
            }
        }
    }
    Ok(())
}

/// The resolver that will look origins up, where one is needed.
fn origin_names(generation: &Generation, _: &Metrics) -> Result<(), String> {
    let mut origins = generation.snapshot.sites.iter().flat_map(|site| &site.origins);
    if origins.any(|origin| matches!(origin.host, OriginHost::Name(_))) {
        return upstream::resolve::rehearse();
    }
    Ok(())
}

/// The metrics page, with this generation's sites.
fn metrics(_: &Generation, metrics: &Metrics) -> Result<(), String> {
    if metrics.render().is_empty() { Err("the page is empty".to_owned()) } else { Ok(()) }
}

/// The outline, as `rempart status` and a comparison would ask for it.
fn outline(generation: &Generation, _: &Metrics) -> Result<(), String> {
    let lines = snapshot::outline::outline(&generation.snapshot);
    if lines.is_empty() { Err("it is empty".to_owned()) } else { Ok(()) }
}
