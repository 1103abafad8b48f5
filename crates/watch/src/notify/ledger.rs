//! What a channel has been told, what it is owed, and when it is tried next. Pure: time and seeds come from outside.

use std::collections::HashMap;
use std::time::Duration;

use base::happening::Severity;
use base::random::Random;
use base::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::incident::{Incident, Incidents};

/// Wait after the first failure, doubled by each that follows, up to the second.
const PAUSE: Duration = Duration::from_secs(5);
const MAX_PAUSE: Duration = Duration::from_secs(10 * 60);
/// Failures in a row after which a channel counts as failing.
pub const FAILING: u32 = 3;
/// Messages that may follow each other at once, and the time after which there is one more.
const BURST: u32 = 6;
const REFILL: Duration = Duration::from_secs(60);
/// With more owed than this, one message tells all.
const STORM: usize = 3;
/// Incidents named in one message.
pub const MAX_NAMED: usize = 50;

/// How far an incident has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It lasts, and is this bad.
    Open(Severity),
    /// It is over.
    Resolved,
}

/// That a channel has been told so far of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Name of the channel.
    pub channel: String,
    /// Id of the incident.
    pub told: String,
    /// How far it had come.
    pub stage: Stage,
}

/// One message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The incidents it tells of, each with the stage told before; at least one, at most `MAX_NAMED`.
    pub incidents: Vec<(Incident, Option<Stage>)>,
    /// Incidents that are owed too and are not named.
    pub more: usize,
}

impl Incident {
    /// How far it has come.
    pub fn stage(&self) -> Stage {
        if self.is_open() { Stage::Open(self.severity) } else { Stage::Resolved }
    }
}

/// Of one channel.
#[derive(Debug)]
pub struct Ledger {
    /// Name of the channel.
    pub channel: String,
    /// Incidents that were over before are not told.
    since: Timestamp,
    told: HashMap<String, Stage>,
    failures: u32,
    /// Why the last message could not be sent.
    pub last_error: Option<String>,
    not_before: Timestamp,
    tokens: u32,
    refilled: Timestamp,
    random: Random,
}

impl Ledger {
    /// Of a channel that is known from now on, with what it was told by those before.
    pub fn new(channel: &str, told: &[Told], now: Timestamp, seed: u64) -> Self {
        let told =
            told.iter().filter(|it| it.channel == channel).map(|it| (it.told.clone(), it.stage)).collect();
        Self {
            channel: channel.to_owned(),
            since: now,
            told,
            failures: 0,
            last_error: None,
            not_before: Timestamp::default(),
            tokens: BURST,
            refilled: now,
            random: Random::seeded(seed),
        }
    }

    /// Whether it has failed several times in a row.
    pub fn is_failing(&self) -> bool {
        self.failures >= FAILING
    }

    /// What is to be sent now; `None` when nothing is owed, or it is not time.
    pub fn due(&mut self, incidents: &Incidents, now: Timestamp) -> Option<Notice> {
        self.refill(now);
        if self.tokens == 0 || now < self.not_before {
            return None;
        }
        let mut owed: Vec<_> = incidents
            .all()
            .iter()
            .filter_map(|incident| Some((incident.clone(), self.owes(incident)?)))
            .collect();
        if owed.is_empty() {
            return None;
        }
        let taken = if owed.len() > STORM { owed.len().min(MAX_NAMED) } else { 1 };
        let more = if taken == 1 { 0 } else { owed.len() - taken };
        owed.truncate(taken);
        Some(Notice { incidents: owed, more })
    }

    /// What was told before of an incident of which there is something to tell.
    #[expect(
        clippy::option_option,
        reason = "owed or not, and of what is owed whether anything was told before"
    )]
    fn owes(&self, incident: &Incident) -> Option<Option<Stage>> {
        // A channel is not told of its own failing.
        if incident.subject.as_deref() == Some(self.channel.as_str()) {
            return None;
        }
        match self.told.get(&incident.id) {
            Some(told) => (incident.stage() > *told).then_some(Some(*told)),
            None => (incident.is_open() || incident.began >= self.since).then_some(None),
        }
    }

    /// It was sent. What comes back has to be written down.
    pub fn sent(&mut self, notice: &Notice, now: Timestamp) -> Vec<Told> {
        self.failures = 0;
        self.last_error = None;
        self.not_before = now;
        self.tokens = self.tokens.saturating_sub(1);
        let told = |(incident, _): &(Incident, Option<Stage>)| Told {
            channel: self.channel.clone(),
            told: incident.id.clone(),
            stage: incident.stage(),
        };
        let told: Vec<_> = notice.incidents.iter().map(told).collect();
        self.told.extend(told.iter().map(|it| (it.told.clone(), it.stage)));
        told
    }

    /// It could not be sent; it is tried again later, by then with whatever has come of it.
    pub fn failed(&mut self, error: &str, now: Timestamp) {
        let doubled = PAUSE.saturating_mul(1 << self.failures.min(16)).min(MAX_PAUSE);
        let quarter = u32::try_from(doubled.as_millis() / 4).unwrap_or(u32::MAX);
        let jitter = Duration::from_millis(u64::from(self.random.below(quarter)));
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(error.to_owned());
        self.not_before = now.plus(doubled + jitter);
    }

    /// Everything told of incidents that are still known; the rest is forgotten.
    pub fn kept(&mut self, incidents: &Incidents) -> Vec<Told> {
        self.told.retain(|id, _| incidents.all().iter().any(|incident| incident.id == *id));
        let told = |(id, stage): (&String, &Stage)| Told {
            channel: self.channel.clone(),
            told: id.clone(),
            stage: *stage,
        };
        self.told.iter().map(told).collect()
    }

    fn refill(&mut self, now: Timestamp) {
        // A clock that was set back fills nothing until it has caught up, and must not be waited for.
        self.refilled = self.refilled.min(now);
        self.not_before = self.not_before.min(now.plus(MAX_PAUSE * 2));
        while self.tokens < BURST && self.refilled.plus(REFILL) <= now {
            self.tokens += 1;
            self.refilled = self.refilled.plus(REFILL);
        }
        if self.tokens == BURST {
            self.refilled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use base::happening::{Component, Happening, What};

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    fn tell(incidents: &mut Incidents, seconds: u64, subject: &str, what: What, severity: Severity) {
        let happening = Happening::new(at(seconds), what, severity, Component::Feeds, "c", "m".to_owned());
        incidents.happened(&happening.about(subject));
    }

    fn send(ledger: &mut Ledger, incidents: &Incidents, seconds: u64) -> Option<(Vec<String>, usize)> {
        let notice = ledger.due(incidents, at(seconds))?;
        ledger.sent(&notice, at(seconds));
        let name = |(it, before): &(Incident, Option<Stage>)| {
            format!("{} {:?} after {before:?}", it.subject.as_deref().unwrap_or("-"), it.stage())
        };
        Some((notice.incidents.iter().map(name).collect(), notice.more))
    }

    #[test]
    fn each_turn_is_told_once() {
        use Severity::{Critical, Info, Warning};
        let mut incidents = Incidents::default();
        tell(&mut incidents, 1, "old", What::ArtefactRefused, Warning);
        tell(&mut incidents, 2, "old", What::ArtefactActivated, Info);
        tell(&mut incidents, 3, "open", What::ArtefactRefused, Warning);
        let mut ledger = Ledger::new("hook", &[], at(10), 1);
        // What was over before the channel was there is not told; what lasts is.
        let one = |text: &str| Some((vec![text.to_owned()], 0));
        assert_eq!(send(&mut ledger, &incidents, 11), one("open Open(Warning) after None"));
        assert_eq!(send(&mut ledger, &incidents, 12), None);
        tell(&mut incidents, 13, "open", What::ArtefactRefused, Warning);
        assert_eq!(send(&mut ledger, &incidents, 13), None);
        tell(&mut incidents, 14, "open", What::ArtefactRefused, Critical);
        assert_eq!(send(&mut ledger, &incidents, 14), one("open Open(Critical) after Some(Open(Warning))"));
        tell(&mut incidents, 15, "open", What::ArtefactActivated, Info);
        let kept = ledger.kept(&incidents);
        let mut next = Ledger::new("hook", &kept, at(16), 2);
        assert_eq!(send(&mut next, &incidents, 17), one("open Resolved after Some(Open(Critical))"));
        assert_eq!(send(&mut next, &incidents, 18), None);
        // Its own failing is told by others.
        tell(&mut incidents, 19, "hook", What::ArtefactRefused, Warning);
        assert_eq!(send(&mut next, &incidents, 20), None);
    }

    #[test]
    fn a_storm_is_one_message() {
        let mut incidents = Incidents::default();
        let mut ledger = Ledger::new("hook", &[], at(0), 1);
        for number in 0..70 {
            tell(&mut incidents, 1, &number.to_string(), What::ArtefactRefused, Severity::Warning);
        }
        let (named, more) = send(&mut ledger, &incidents, 2).unwrap();
        assert_eq!((named.len(), more), (MAX_NAMED, 20));
        assert_eq!(send(&mut ledger, &incidents, 3).unwrap().0.len(), 20);
        assert_eq!(send(&mut ledger, &incidents, 4), None);
    }

    #[test]
    fn there_are_only_so_many_messages_in_a_minute_and_nothing_is_lost() {
        let mut incidents = Incidents::default();
        let mut ledger = Ledger::new("hook", &[], at(0), 1);
        let (mut messages, mut told) = (0, 0);
        for second in 1..=600 {
            if second <= 300 {
                tell(&mut incidents, second, &second.to_string(), What::ArtefactRefused, Severity::Warning);
            }
            if let Some((named, _)) = send(&mut ledger, &incidents, second) {
                messages += 1;
                told += named.len();
            }
        }
        assert_eq!(told, 300);
        assert!(messages <= 6 + 10, "{messages}");
    }

    #[test]
    fn failures_are_tried_again_later_and_later_but_never_given_up() {
        let mut incidents = Incidents::default();
        tell(&mut incidents, 1, "f", What::ArtefactRefused, Severity::Warning);
        let mut ledger = Ledger::new("hook", &[], at(0), 7);
        let mut tries = Vec::new();
        for second in 1..4_000 {
            if ledger.due(&incidents, at(second)).is_some() {
                tries.push(second);
                ledger.failed("no", at(second));
            }
        }
        let gaps: Vec<u64> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| (5..=751).contains(gap)), "{gaps:?}");
        assert!(tries.len() > 10 && gaps.is_sorted_by_key(|gap| *gap >= 600), "{gaps:?}");
        assert!(ledger.is_failing());
        assert!(send(&mut ledger, &incidents, 5_000).is_some());
        assert!(!ledger.is_failing());
    }
}
