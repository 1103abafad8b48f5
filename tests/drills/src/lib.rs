//! Drills: famous outages re-enacted against a running Rempart, with a verdict in figures.
//!
//! A drill is one file in `drills/`. It starts Rempart as real processes, lets visitors come at a fixed rate, does what once
//! brought a large provider down, and states what has to hold. See docs/guides/drills.md.

pub mod clickhouse;
pub mod cluster;
pub mod comms;
pub mod drills;
mod error;
mod exchange;
pub mod feeds;
pub mod golden;
pub mod guard;
mod origin;
mod pids;
mod plan;
mod probe;
pub mod report;
mod stage;
pub mod timeline;
pub mod traffic;
mod uploads;
pub mod verdict;
mod websocket;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

pub use error::DrillError;
pub use stage::Stage;
use verdict::{Assertion, Run};

/// Requests per second unless told otherwise.
pub const RATE: u32 = 200;
/// Seconds of an outage that are one second of a drill, unless told otherwise: an hour takes ten seconds.
pub const FACTOR: f64 = 360.0;

/// One outage as a test.
#[derive(Debug)]
pub struct Drill {
    /// Its number in the catalogue; also its place in lists.
    pub number: u8,
    /// Short name for the command line: lower case, words joined by hyphens.
    pub name: &'static str,
    /// What it is called towards people.
    pub title: &'static str,
    /// Who it happened to, and when.
    pub outage: &'static str,
    /// What is done to the running Rempart, in a few sentences.
    pub story: &'static str,
    /// What it cannot be played without.
    pub needs: &'static [Need],
    /// Its safeguards, and which assertion fails without each of them.
    pub controls: &'static [Control],
    /// Plays it; assertions and marks go to the stage. An error means that it could not be played to its end.
    pub play: fn(&mut Stage) -> Result<(), DrillError>,
}

/// What a drill cannot be played without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The binary that knows planted faults (cargo feature `faults`).
    Faults,
    /// The library that steps the wall clock of processes (Debian package `libfaketime`).
    FakeTime,
    /// Real ClickHouse servers (Debian package `clickhouse-server`).
    ClickHouse,
}

/// A safeguard, and what its absence must break: the proof that the drill can fail.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// Name of the safeguard in `REMPART_WITHOUT`.
    pub without: &'static str,
    /// Key of the assertion that must fail then.
    pub fails: &'static str,
}

/// How drills are played.
#[derive(Clone, Debug)]
pub struct Options {
    /// The Rempart that is put to the test.
    pub program: PathBuf,
    /// Whether that binary knows planted faults.
    pub faulty: bool,
    /// Requests per second.
    pub rate: u32,
    /// The clock of the drill: how many seconds of an outage pass in one.
    pub factor: f64,
}

impl Options {
    /// A time as it passes in a drill; never so short that nothing can be seen in it.
    pub fn compressed(&self, span: Duration) -> Duration {
        const LEAST: Duration = Duration::from_secs(2);
        if self.factor.is_finite() && self.factor > 0.0 { span.div_f64(self.factor).max(LEAST) } else { span }
    }
}

/// Every drill, by number.
pub fn all() -> &'static [&'static Drill] {
    drills::ALL
}

/// The drill of this number or name.
pub fn find(which: &str) -> Option<&'static Drill> {
    let number = which.parse::<u8>().ok();
    all().iter().copied().find(|drill| drill.name == which || Some(drill.number) == number)
}

impl Drill {
    /// Why it cannot be played here, and the way out; `None` when it can.
    pub fn obstacle(&self, options: &Options) -> Option<String> {
        self.needs.iter().find_map(|need| match need {
            Need::Faults => (!options.faulty).then(|| {
                "it plants faults, which this binary does not know; use the one built with \
                 `cargo build --package app --features faults --bin rempart-faulty`"
                    .to_owned()
            }),
            Need::FakeTime => cluster::fake_time_library().is_none().then(|| {
                "it steps the clock of processes with libfaketime, which is not installed; \
                 `apt-get install libfaketime`"
                    .to_owned()
            }),
            Need::ClickHouse => (!clickhouse::is_installed()).then(|| {
                "it asks three real ClickHouse servers, and clickhouse-server is not installed; \
                 `cargo xtask setup` or `apt-get install clickhouse-server`"
                    .to_owned()
            }),
        })
    }

    /// Its safeguard of this name.
    pub fn control(&self, without: &str) -> Option<&'static Control> {
        self.controls.iter().find(|control| control.without == without)
    }

    /// Plays it once, `without` a safeguard or with all of them. Everything that was started is ended.
    pub fn play(&'static self, options: &Options, without: Option<&'static Control>) -> Run {
        let mut stage = match Stage::new(self, options.clone(), without) {
            Ok(stage) => stage,
            Err(error) => return Run::that_never_began(self, options, without, &error),
        };
        let played = (self.play)(&mut stage);
        // A drill that stopped half-way has shown nothing.
        let measured = played.as_ref().map_or_else(ToString::to_string, |()| "it did".to_owned());
        stage.claim(Assertion {
            key: "completed",
            claim: "The drill ran to its end".to_owned(),
            limit: "all of it".to_owned(),
            measured,
            passed: played.is_ok(),
        });
        stage.close()
    }
}
