//! The verdict: what was claimed, what was measured, and whether that is within the limit.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::golden::{Corpus, Sort, Told};
use crate::timeline::Timeline;
use crate::traffic::{Class, Log, Record};
use crate::{Control, Drill, DrillError, Options};

/// After the end of a process was seen, visitors may take so long to notice it and come back.
const NOTICED: Duration = Duration::from_millis(20);
/// Of the visitors that were due, those that must have been noted for the verdict to mean something, in per cent.
const PREMISE: usize = 95;

/// One claim and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Assertion {
    /// Short and stable, for controls and scripts.
    pub key: &'static str,
    /// In words.
    pub claim: String,
    /// What it may be at most, or has to be.
    pub limit: String,
    /// What it was.
    pub measured: String,
    /// Whether it is so.
    pub passed: bool,
}

/// Something the drill did, or something that happened then.
#[derive(Clone, Debug, Serialize)]
pub struct Mark {
    /// Seconds since the drill began.
    pub at: f64,
    /// In words.
    pub what: String,
    /// Done by the drill, as opposed to observed.
    pub injected: bool,
}

/// A measured figure without a limit.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What.
    pub name: String,
    /// With its unit.
    pub value: String,
}

/// The end of a process that the drill brought about.
#[derive(Clone, Copy, Debug)]
pub struct Kill {
    /// When it was brought about.
    pub from: Duration,
    /// When the process was gone.
    pub to: Duration,
}

/// One drill as it was played once.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Number of the drill.
    pub number: u8,
    /// Its name.
    pub name: &'static str,
    /// Its title.
    pub title: &'static str,
    /// What it re-enacts.
    pub outage: &'static str,
    /// What was done.
    pub story: &'static str,
    /// The safeguard that was switched off, and the assertion that must fail then.
    pub without: Option<(&'static str, &'static str)>,
    /// Every claim, in the order in which it was made.
    pub assertions: Vec<Assertion>,
    /// What happened when.
    pub marks: Vec<Mark>,
    /// Other figures.
    pub figures: Vec<Figure>,
    /// Visitors over time.
    pub timeline: Timeline,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Requests per second.
    pub rate: u32,
    /// The clock of the drill.
    pub factor: f64,
}

impl Run {
    /// A drill that could not even begin.
    pub fn that_never_began(
        drill: &'static Drill,
        options: &Options,
        without: Option<&'static Control>,
        error: &DrillError,
    ) -> Self {
        let began = Assertion {
            key: "began",
            claim: "Rempart and the origins could be started".to_owned(),
            limit: "both".to_owned(),
            measured: error.to_string(),
            passed: false,
        };
        Self {
            number: drill.number,
            name: drill.name,
            title: drill.title,
            outage: drill.outage,
            story: drill.story,
            without: without.map(|control| (control.without, control.fails)),
            assertions: vec![began],
            marks: Vec::new(),
            figures: Vec::new(),
            timeline: Timeline::default(),
            seconds: 0.0,
            rate: options.rate,
            factor: options.factor,
        }
    }

    /// Whether every claim held.
    pub fn passed(&self) -> bool {
        !self.assertions.is_empty() && self.assertions.iter().all(|assertion| assertion.passed)
    }

    /// Whether it came out as it has to: all claims held; or, without a safeguard, the one that names it failed.
    pub fn is_as_it_should_be(&self) -> bool {
        match self.without {
            None => self.passed(),
            Some((_, key)) => {
                self.assertions.iter().any(|assertion| assertion.key == key && !assertion.passed)
            }
        }
    }
}

/// What visitors saw, as claims: no failure of Rempart's own, nobody blocked, no attack let through.
pub fn zero(log: &Log, corpus: &Corpus, kills: &[Kill], due: usize) -> Vec<Assertion> {
    let judged: Vec<&Record> = log.records.iter().filter(|record| !in_flight(record, kills)).collect();
    let count = |wanted: fn(Class) -> bool| judged.iter().filter(|record| wanted(record.class)).count();
    let none = |key, claim: &str, wanted: fn(Class) -> bool| {
        let found = count(wanted);
        Assertion {
            key,
            claim: claim.to_owned(),
            limit: "0".to_owned(),
            measured: format!("{found} of {}{}", judged.len(), kinds(&judged, wanted)),
            passed: found == 0,
        }
    };
    let mut claims = vec![
        none("platform-5xx", "5xx made by Rempart itself", |class| matches!(class, Class::Platform(_))),
        none("resets", "Connections that broke or were refused", |class| {
            matches!(class, Class::Reset | Class::Refused)
        }),
        none("timeouts", "Visitors without an answer in ten seconds", |class| {
            matches!(class, Class::TimedOut | Class::NotSent)
        }),
        none("wrong-answers", "Other answers than the page asked for", |class| {
            matches!(class, Class::WrongBody | Class::Unexpected(_) | Class::Origin(_))
        }),
    ];
    claims.push(golden(log, corpus, kills, Sort::Human));
    claims.push(golden(log, corpus, kills, Sort::Attack));
    claims.push(premise(log, due));
    claims
}

/// `: 3 reset, 1 refused`, or nothing.
fn kinds(judged: &[&Record], wanted: fn(Class) -> bool) -> String {
    let mut by_name: BTreeMap<String, usize> = BTreeMap::new();
    for record in judged.iter().filter(|record| wanted(record.class)) {
        *by_name.entry(format!("{:?}", record.class)).or_default() += 1;
    }
    let listed: Vec<String> = by_name.iter().map(|(name, count)| format!("{count} {name}")).collect();
    if listed.is_empty() { String::new() } else { format!(": {}", listed.join(", ")) }
}

fn golden(log: &Log, corpus: &Corpus, kills: &[Kill], sort: Sort) -> Assertion {
    let (key, claim) = match sort {
        Sort::Human => ("golden-humans", "Golden requests of people that were not served"),
        Sort::Attack => ("golden-attacks", "Golden attacks that were not refused"),
    };
    let told: Vec<&Told> = log
        .golden
        .iter()
        .filter(|told| told.sort == sort)
        .filter(|told| !kills.iter().any(|kill| spans(told.sent, told.ended, *kill)))
        .collect();
    let wrong: Vec<&&Told> = told.iter().filter(|told| !told.is_right()).collect();
    let first = wrong.first().map(|told| {
        let name = corpus.request.get(told.index).map_or("?", |golden| &golden.name);
        format!("; first: {name}: {:?} at {:.1} s", told.fate, told.sent.as_secs_f64())
    });
    let measured = format!("{} of {}{}", wrong.len(), told.len(), first.unwrap_or_default());
    // With none asked, nothing is known.
    let passed = wrong.is_empty() && !told.is_empty();
    Assertion { key, claim: claim.to_owned(), limit: "0".to_owned(), measured, passed }
}

/// Enough visitors came, and the origins could be reached all the time by a way that is not Rempart.
fn premise(log: &Log, due: usize) -> Assertion {
    let (came, looks) = (log.records.len(), log.probes.len());
    let reached = log.probes.iter().filter(|probe| probe.reached).count();
    Assertion {
        key: "premise",
        claim: "Visitors came as planned, and probes past Rempart reached the origins".to_owned(),
        limit: format!(">= {PREMISE} % of {due}, all probes"),
        measured: format!("{came} visitors, {reached} of {looks} probes"),
        passed: came * 100 >= due * PREMISE && due > 0 && looks > 0 && reached == looks && log.dropped == 0,
    }
}

/// Whether the drill itself killed the process that had this visitor. Counted, and not held against anybody.
pub fn in_flight(record: &Record, kills: &[Kill]) -> bool {
    record.class == Class::Reset && kills.iter().any(|kill| spans(record.began(), record.ended, *kill))
}

fn spans(sent: Duration, ended: Duration, kill: Kill) -> bool {
    sent <= kill.to + NOTICED && ended >= kill.from
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Fate;
    use crate::plan::Kind;
    use crate::probe::Probed;

    fn seconds(at: u64) -> Duration {
        Duration::from_secs(at)
    }

    fn record(sent: u64, ended: u64, class: Class) -> Record {
        let (scheduled, ended) = (seconds(sent), seconds(ended));
        Record { kind: Kind::Get, scheduled, sent: Some(scheduled), ended, class, detail: None }
    }

    fn told(sort: Sort, fate: Fate) -> Told {
        Told { index: 0, sort, sent: seconds(1), ended: seconds(1), fate }
    }

    /// A hundred good visitors, both sorts of golden requests, one look at an origin.
    fn quiet() -> Log {
        Log {
            records: (0..100).map(|_| record(1, 1, Class::Good)).collect(),
            golden: vec![told(Sort::Human, Fate::Served), told(Sort::Attack, Fate::Refused)],
            probes: vec![Probed { at: seconds(1), origin: 0, reached: true }],
            dropped: 0,
        }
    }

    fn failed(log: &Log) -> Vec<&'static str> {
        let claims = zero(log, &Corpus::default(), &[], 100);
        claims.into_iter().filter(|claim| !claim.passed).map(|claim| claim.key).collect()
    }

    #[test]
    fn each_failure_fails_its_own_claim() {
        assert_eq!(failed(&quiet()), Vec::<&str>::new());
        for (class, key) in [
            (Class::Platform(503), "platform-5xx"),
            (Class::Reset, "resets"),
            (Class::Refused, "resets"),
            (Class::TimedOut, "timeouts"),
            (Class::NotSent, "timeouts"),
            (Class::WrongBody, "wrong-answers"),
            (Class::Unexpected(403), "wrong-answers"),
        ] {
            let mut log = quiet();
            log.records.push(record(2, 3, class));
            assert_eq!(failed(&log), [key]);
        }
        let mut log = quiet();
        log.golden.push(told(Sort::Human, Fate::Refused));
        assert_eq!(failed(&log), ["golden-humans"]);
        log.golden.push(told(Sort::Attack, Fate::Served));
        assert_eq!(failed(&log), ["golden-humans", "golden-attacks"]);
    }

    #[test]
    fn nothing_seen_is_no_success() {
        let claims = failed(&Log::default());
        assert_eq!(claims, ["golden-humans", "golden-attacks", "premise"]);
        let mut log = quiet();
        log.probes.push(Probed { at: seconds(1), origin: 1, reached: false });
        assert_eq!(failed(&log), ["premise"]);
        log = quiet();
        log.records.truncate(50);
        assert_eq!(failed(&log), ["premise"]);
    }

    #[test]
    fn only_what_was_in_flight_at_a_kill_is_let_off() {
        let kill = [Kill { from: seconds(5), to: seconds(5) }];
        assert!(in_flight(&record(4, 6, Class::Reset), &kill));
        // Sent after it, ended before it, or failed in another way.
        assert!(!in_flight(&record(6, 7, Class::Reset), &kill));
        assert!(!in_flight(&record(3, 4, Class::Reset), &kill));
        assert!(!in_flight(&record(4, 6, Class::Platform(502)), &kill));
        assert!(!in_flight(&record(4, 6, Class::TimedOut), &kill));
    }
}
