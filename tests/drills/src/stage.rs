//! The stage of one drill: Rempart, its origins and visitors, and everything that is noted about them.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::cluster::{self, Cluster};
use crate::error::DrillError;
use crate::golden::Corpus;
use crate::origin::Origins;
use crate::timeline::{Timeline, milliseconds, share_of};
use crate::traffic::{Addresses, Class, Clock, Log, Traffic};
use crate::verdict::{Assertion, Figure, Kill, Mark, Run, in_flight, zero};
use crate::{Control, Drill, Options, pids};

/// The variable that tells the binary with planted faults which safeguard to leave out.
pub const WITHOUT: &str = "REMPART_WITHOUT";

/// How long a killed process may take to be gone.
const DYING: Duration = Duration::from_secs(1);

/// What a drill is played on.
#[derive(Debug)]
pub struct Stage {
    /// How it is played.
    pub options: Options,
    /// The Rempart that is put to the test.
    pub cluster: Cluster,
    /// What stands behind it.
    pub origins: Origins,
    /// Time since the drill began.
    pub clock: Clock,
    drill: &'static Drill,
    without: Option<&'static Control>,
    corpus: Arc<Corpus>,
    traffic: Option<(Traffic, Duration)>,
    log: Log,
    kills: Vec<Kill>,
    marks: Vec<Mark>,
    assertions: Vec<Assertion>,
    figures: Vec<Figure>,
}

impl Stage {
    /// Origins, and a Rempart that has not been started yet.
    pub fn new(
        drill: &'static Drill,
        options: Options,
        without: Option<&'static Control>,
    ) -> Result<Self, DrillError> {
        let origins = Origins::start()?;
        let corpus = Arc::new(Corpus::own()?);
        let cluster = Cluster::new(&options, origins.addresses, &environment(without))?;
        Ok(Self {
            options,
            cluster,
            origins,
            clock: Clock::start(),
            drill,
            without,
            corpus,
            traffic: None,
            log: Log::default(),
            kills: Vec::new(),
            marks: Vec::new(),
            assertions: Vec::new(),
            figures: Vec::new(),
        })
    }

    /// Another Rempart with the same origins, not started yet.
    pub fn another_cluster(&self) -> Result<Cluster, DrillError> {
        Cluster::new(&self.options, self.origins.addresses, &environment(self.without))
    }

    /// Visitors begin to come.
    pub fn begin_traffic(&mut self) -> Result<(), DrillError> {
        let (plain, tls) = (self.cluster.plain, self.cluster.tls);
        let addresses = Addresses { plain, tls, origins: self.origins.addresses };
        let began = self.clock.now();
        let traffic = Traffic::start(addresses, self.options.rate, self.clock, self.corpus.clone())?;
        self.traffic = Some((traffic, began));
        self.observed("visitors begin to come");
        Ok(())
    }

    /// No more visitors come; what they saw becomes claims.
    pub fn end_traffic(&mut self) {
        let Some((traffic, began)) = self.traffic.take() else { return };
        let ended = self.clock.now();
        self.observed("no more visitors come");
        self.log = traffic.stop();
        let due = ended.saturating_sub(began).as_secs_f64() * f64::from(self.options.rate);
        let due = Duration::from_secs_f64(due.max(0.0)).as_secs();
        let due = usize::try_from(due).unwrap_or(usize::MAX);
        let claims = zero(&self.log, &self.corpus, &self.kills, due);
        self.assertions.extend(claims);
        let hidden = self.origins.seen.hidden();
        self.expect("hidden", "Hidden requests that an origin saw", "0", hidden, hidden == 0);
        self.describe_traffic();
    }

    fn describe_traffic(&mut self) {
        let mut waits: Vec<Duration> = self
            .log
            .records
            .iter()
            .filter(|record| record.class == Class::Good)
            .map(|record| record.ended.saturating_sub(record.scheduled))
            .collect();
        waits.sort_unstable();
        let wait = |share| share_of(&waits, share).map_or_else(|| "-".to_owned(), shown);
        let (p50, p99) = (wait(50), wait(99));
        self.figure("wait of visitors, half", p50);
        self.figure("wait of visitors, 99 %", p99);
        let lost = self.log.records.iter().filter(|record| in_flight(record, &self.kills)).count();
        if !self.kills.is_empty() {
            self.figure("in flight on a process that the drill ended: counted, not judged", lost);
        }
    }

    /// Lets visitors come for a while.
    pub fn pass(&self, span: Duration) {
        std::thread::sleep(span);
    }

    /// Notes what the drill does now.
    pub fn inject(&mut self, what: impl Display) {
        self.mark(what, true);
    }

    /// Notes what happens now.
    pub fn observed(&mut self, what: impl Display) {
        self.mark(what, false);
    }

    fn mark(&mut self, what: impl Display, injected: bool) {
        self.marks.push(Mark { at: self.clock.now().as_secs_f64(), what: what.to_string(), injected });
    }

    /// Kills processes that may have visitors: what is in flight on them is counted, not judged.
    pub fn kill(&mut self, what: &str, victims: &[u32]) {
        self.inject(what);
        let from = self.clock.now();
        victims.iter().for_each(|pid| pids::signal(*pid, Signal::KILL));
        // Gone or not, what follows is judged.
        cluster::wait_for(DYING, || !victims.iter().any(|pid| pids::lives(*pid)));
        self.kills.push(Kill { from, to: self.clock.now() });
    }

    /// Sends a request that may end the process that has it; what else that has in flight is counted, not judged.
    pub fn provoke(&mut self, field: &str) {
        let from = self.clock.now();
        if self.cluster.provoke(field).is_err() {
            self.kills.push(Kill { from, to: self.clock.now() });
        }
    }

    /// Adds a claim.
    pub fn claim(&mut self, assertion: Assertion) {
        self.assertions.push(assertion);
    }

    /// Adds a claim in short.
    pub fn expect(
        &mut self,
        key: &'static str,
        claim: &str,
        limit: &str,
        measured: impl Display,
        passed: bool,
    ) {
        let (claim, limit, measured) = (claim.to_owned(), limit.to_owned(), measured.to_string());
        self.claim(Assertion { key, claim, limit, measured, passed });
    }

    /// Claims that something took no longer than `limit`; `None`: it did not come at all.
    pub fn within(&mut self, key: &'static str, claim: &str, limit: Duration, took: Option<Duration>) {
        let measured = took.map_or_else(|| "not in that time".to_owned(), shown);
        let passed = took.is_some_and(|took| took <= limit);
        self.expect(key, claim, &format!("<= {}", shown(limit)), measured, passed);
    }

    /// Adds a figure without a limit.
    pub fn figure(&mut self, name: &str, value: impl Display) {
        self.figures.push(Figure { name: name.to_owned(), value: value.to_string() });
    }

    /// The error for what did not come.
    pub fn late(&self, what: &str) -> DrillError {
        self.cluster.late(what, cluster::PATIENCE)
    }

    /// Ends everything and draws the verdict.
    pub fn close(mut self) -> Run {
        self.end_traffic();
        Run {
            number: self.drill.number,
            name: self.drill.name,
            title: self.drill.title,
            outage: self.drill.outage,
            story: self.drill.story,
            without: self.without.map(|control| (control.without, control.fails)),
            timeline: Timeline::of(&self.log.records),
            assertions: self.assertions,
            marks: self.marks,
            figures: self.figures,
            seconds: self.clock.now().as_secs_f64(),
            rate: self.options.rate,
            factor: self.options.factor,
        }
    }
}

fn environment(without: Option<&'static Control>) -> Vec<(&'static str, String)> {
    without.iter().map(|control| (WITHOUT, control.without.to_owned())).collect()
}

/// A time with a unit that suits it.
pub fn shown(span: Duration) -> String {
    if span < Duration::from_secs(1) {
        format!("{:.1} ms", milliseconds(span))
    } else {
        format!("{:.2} s", span.as_secs_f64())
    }
}
