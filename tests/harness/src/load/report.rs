//! What became of the requests of a load, and which losses a killed or stopped process explains.

use std::time::{Duration, Instant};

use super::{Attempt, Halt, Kind, Record, Trouble};

/// Failures kept with their words; the rest is only counted.
const MAX_FAILURES: usize = 20;
/// A gap longer than this after a halt is an error even on a busy machine.
const MAX_GAP: Duration = Duration::from_secs(2);

/// What one halt did.
#[derive(Clone, Copy, Debug)]
pub struct HaltReport {
    /// Attempts under way on connections of the halted process at that moment.
    pub in_flight: u64,
    /// Requests lost with it, after a second attempt where a browser makes one.
    pub lost: u64,
    /// From the signal to the first answer to a request that began after it; `None` when none did.
    pub gap: Option<Duration>,
}

/// What became of all requests. Every request is in exactly one of the first seven.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Answered as expected.
    pub served: u64,
    /// Lost with a process that was killed or stopped while they were on a connection of it.
    pub lost: u64,
    /// Turned away by the system: nobody listened.
    pub refused: u64,
    /// Closed or cut without such an excuse.
    pub dropped: u64,
    /// Answered, but not as expected: 5xx, 4xx, another body.
    pub wrong: u64,
    /// Not answered in time.
    pub timeouts: u64,
    /// Not asked, because the generator could not.
    pub unasked: u64,
    /// Asked twice, because the connection had ended while it was idle or was about to end.
    pub retried: u64,
    /// One entry per halt, in order.
    pub halts: Vec<HaltReport>,
    /// The first failures, in words.
    pub failures: Vec<String>,
    /// From the moment a request was due to its answer: median, 99th percentile, largest.
    pub latency: [Duration; 3],
    /// How long the load ran.
    pub took: Duration,
}

impl Report {
    pub(super) fn of(records: &[Record], halts: &[Halt], took: Duration) -> Self {
        let mut report = Self { took, ..Self::default() };
        let mut latencies = Vec::with_capacity(records.len());
        report.halts = halts.iter().map(|halt| halt_report(records, halts, halt)).collect();
        for record in records {
            let last = record.last();
            report.retried += u64::from(record.second.is_some());
            match &last.trouble {
                None => {
                    report.served += 1;
                    latencies.push(last.ended.saturating_duration_since(record.scheduled));
                    continue;
                }
                Some(_) if was_lost(last, halts) => {
                    report.lost += 1;
                    continue;
                }
                Some(Trouble::Closed(_) | Trouble::Cut(_) | Trouble::Unprocessed(_)) => report.dropped += 1,
                Some(Trouble::Refused) => report.refused += 1,
                Some(Trouble::Wrong(_)) => report.wrong += 1,
                Some(Trouble::Timeout) => report.timeouts += 1,
                Some(Trouble::Generator(_)) => report.unasked += 1,
            }
            if report.failures.len() < MAX_FAILURES {
                report.failures.push(words(record, halts));
            }
        }
        latencies.sort_unstable();
        let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied();
        let most = latencies.last().copied().unwrap_or_default();
        report.latency = [at(0.5).unwrap_or_default(), at(0.99).unwrap_or_default(), most];
        report
    }

    /// All requests.
    pub fn total(&self) -> u64 {
        let failed = self.lost + self.refused + self.dropped + self.wrong + self.timeouts + self.unasked;
        self.served + failed
    }

    /// The longest time from a halt to the next answer.
    pub fn longest_gap(&self) -> Option<Duration> {
        self.halts.iter().filter_map(|halt| halt.gap).max()
    }

    /// Says the figures.
    pub fn print(&self, name: &str) {
        let [median, high, most] = self.latency;
        let rate = self.total() as f64 / self.took.as_secs_f64();
        println!(
            "{name}: {} requests in {:.1?} ({rate:.0}/s): {} served, {} retried on a new connection, {} lost with \
             {} killed or stopped processes, {} refused, {} dropped, {} wrong, {} timeouts, {} unasked; latency {median:.1?} \
             median, {high:.1?} p99, {most:.1?} most",
            self.total(),
            self.took,
            self.served,
            self.retried,
            self.lost,
            self.halts.len(),
            self.refused,
            self.dropped,
            self.wrong,
            self.timeouts,
            self.unasked,
        );
        if let Some(longest) = self.longest_gap() {
            let mut gaps: Vec<_> = self.halts.iter().filter_map(|halt| halt.gap).collect();
            gaps.sort_unstable();
            let in_flight: u64 = self.halts.iter().map(|halt| halt.in_flight).sum();
            println!(
                "{name}: next answer after {:.0?} (median) and {longest:.0?} (longest); {in_flight} in flight at {} halts",
                gaps[gaps.len() / 2],
                self.halts.len()
            );
        }
    }

    /// Fails the test unless every request was answered.
    pub fn assert_unharmed(&self) {
        assert!(self.total() > 0, "no request was made at all");
        assert_eq!(self.served, self.total(), "{self:#?}");
    }

    /// Fails the test unless all that was lost was in flight on a process that was killed or stopped, and service
    /// went on soon after each.
    pub fn assert_only_in_flight_lost(&self) {
        assert!(self.total() > 0, "no request was made at all");
        assert_eq!(self.served + self.lost, self.total(), "{self:#?}");
        for (n, halt) in self.halts.iter().enumerate() {
            assert!(halt.lost <= halt.in_flight, "halt {n}: {halt:?}");
            assert!(halt.gap.is_some_and(|gap| gap <= MAX_GAP), "halt {n}: nothing served soon: {halt:?}");
        }
    }
}

/// The halt that explains why an attempt came to nothing: its connection was opened before the process stood still, and
/// ended after the signal.
fn excuse(attempt: &Attempt, halts: &[Halt]) -> Option<usize> {
    halts.iter().position(|halt| attempt.opened <= halt.until && attempt.ended >= halt.from)
}

/// Whether an attempt was lost with a halted process.
fn was_lost(attempt: &Attempt, halts: &[Halt]) -> bool {
    let gone = matches!(attempt.trouble, Some(Trouble::Closed(_) | Trouble::Cut(_)));
    gone && excuse(attempt, halts).is_some()
}

fn halt_report(records: &[Record], halts: &[Halt], halt: &Halt) -> HaltReport {
    let attempts = records.iter().flat_map(|record| [Some(&record.first), record.second.as_ref()]).flatten();
    let under_way = |attempt: &&Attempt| {
        attempt.opened <= halt.until && attempt.began <= halt.until && attempt.ended >= halt.from
    };
    let in_flight = attempts.filter(under_way).count() as u64;
    let lost = records.iter().map(Record::last).filter(|last| {
        was_lost(last, halts) && excuse(last, halts).is_some_and(|at| halts[at].from == halt.from)
    });
    let next =
        records.iter().filter(|record| record.first.began > halt.until && record.last().trouble.is_none());
    let next = next.map(|record| record.last().ended).min();
    let gap = next.map(|next: Instant| next.saturating_duration_since(halt.from));
    HaltReport { in_flight, lost: lost.count() as u64, gap }
}

fn words(record: &Record, halts: &[Halt]) -> String {
    let last = record.last();
    let kind: Kind = record.kind;
    let nearest = halts.iter().rev().find(|halt| halt.from <= last.ended);
    let since = nearest.map_or("before any halt".to_owned(), |halt| {
        let ms = |moment: Instant| moment.saturating_duration_since(halt.from).as_millis();
        format!("opened {} ms, ended {} ms after a halt", ms(last.opened), ms(last.ended))
    });
    format!("{kind:?}, attempt {}: {:?} ({since})", 1 + usize::from(record.second.is_some()), last.trouble)
}
