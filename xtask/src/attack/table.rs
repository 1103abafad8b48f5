//! What a run came to: its figures, its verdict, and both as Markdown.

use std::collections::BTreeMap;

use super::attackers::Met;
use super::golden::Tally;
use super::process::Usage;
use super::servers::Target;

/// Resident memory that an attack may add, in bytes: `limits.memory` of `attacks/peers/rempart.toml`.
pub const MEMORY_BOUND: u64 = 256 << 20;
/// Descriptors that may be open more than before once an attack is over: golden connections come and go.
pub const DESCRIPTOR_SLACK: u64 = 64;
/// Counters that golden traffic moves, and that say nothing about an attack.
const ORDINARY: &[&str] = &[
    "rempart_access_log_lines_total",
    "rempart_bytes_",
    "rempart_connections_total",
    "rempart_origin_connections_total{",
    "rempart_tls_handshakes_total{result=\"full\"}",
    "rempart_tls_handshakes_total{result=\"resumed\"}",
    "process_",
];

/// Everything measured in one run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub attack: &'static str,
    pub target: Target,
    pub golden: Tally,
    /// The server with its whole tree: before the attack (descriptors: before golden traffic), at its peaks, after both.
    pub before: Usage,
    pub peak: Usage,
    pub after: Usage,
    /// Descriptors the origin had before and at most.
    pub origin: (u64, u64),
    /// Descriptors of the origin when the run was over.
    pub origin_after: u64,
    /// Processor time of the server during the attack, in seconds.
    pub processor: f64,
    /// The same of the origin.
    pub origin_processor: f64,
    /// Seconds the attack lasted.
    pub lasted: f64,
    /// What the attackers did and met.
    pub met: Met,
    /// Counters of the server that the run moved, and by how much.
    pub counters: BTreeMap<String, f64>,
    /// How the server's processes were before and after, where that changed.
    pub replaced: Option<(String, String)>,
}

impl Outcome {
    /// Why the run fails; empty when it does not.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.golden.served < self.golden.sent {
            let reasons: Vec<String> =
                self.golden.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            faults.push(format!("golden: {}", reasons.join(", ")));
        }
        if self.peak.resident > self.before.resident + MEMORY_BOUND {
            faults.push(format!("memory: +{} MiB", (self.peak.resident - self.before.resident) >> 20));
        }
        // Connections kept to the origin are the server's to keep.
        let kept = self.origin_after.saturating_sub(self.origin.0);
        let allowed = self.before.descriptors + kept + DESCRIPTOR_SLACK;
        if self.after.descriptors > allowed {
            faults
                .push(format!("descriptors: {} stay open", self.after.descriptors - self.before.descriptors));
        }
        if let Some((before, after)) = &self.replaced {
            faults.push(format!("replaced: {} became {}", before.trim(), after.trim()));
        }
        faults
    }

    /// Golden requests that were served, in per cent; rounded down, so that 100 means all.
    fn share(&self) -> String {
        if self.golden.served == self.golden.sent {
            return "100".to_owned();
        }
        let share = self.golden.served as f64 / (self.golden.sent as f64).max(1.0);
        format!("{:.2}", (share * 10_000.0).floor() / 100.0)
    }

    fn row(&self) -> String {
        let faults = self.faults();
        let verdict = if faults.is_empty() { "held".to_owned() } else { faults.join("; ") };
        let mib = |bytes: u64| bytes >> 20;
        let golden = &self.golden;
        format!(
            "| {} | {} of {} ({} %) | {:.1} / {:.1} / {:.0} | {} → {} → {} | {} → {} → {} | {:.0} + {:.0} % | {} | {verdict} |\n",
            self.attack,
            golden.served,
            golden.sent,
            self.share(),
            golden.median,
            golden.p99,
            golden.most,
            mib(self.before.resident),
            mib(self.peak.resident),
            mib(self.after.resident),
            self.before.descriptors,
            self.peak.descriptors,
            self.after.descriptors,
            100.0 * self.processor / self.lasted.max(0.001),
            100.0 * self.origin_processor / self.lasted.max(0.001),
            self.origin.1.saturating_sub(self.origin.0),
        )
    }

    /// What the attackers met and the server counted, on one line.
    pub fn details(&self) -> String {
        let mut text = format!("{}: {}", self.attack, listed(&self.met));
        let unusual: BTreeMap<String, f64> = self
            .counters
            .iter()
            .filter(|(name, _)| !is_ordinary(name))
            .map(|(name, count)| (short(name), *count))
            .collect();
        if !unusual.is_empty() {
            text.push_str(&format!("; counted: {}", listed(&unusual)));
        }
        if self.golden.retried > 0 {
            text.push_str(&format!(
                "; golden requests served on a second connection: {}",
                self.golden.retried
            ));
        }
        text
    }
}

/// A sample's name without what is the same in all of them.
fn short(name: &str) -> String {
    name.trim_start_matches("rempart_").replace("_total", "").replace('"', "")
}

fn is_ordinary(name: &str) -> bool {
    let served = name.starts_with("rempart_requests_total") && name.contains("status=\"200\"");
    let answered = name.starts_with("rempart_origin_requests_total") && name.contains("result=\"answered\"");
    served || answered || ORDINARY.iter().any(|ordinary| name.starts_with(ordinary))
}

fn listed(counts: &BTreeMap<String, f64>) -> String {
    let words: Vec<String> = counts
        .iter()
        .filter(|(_, count)| **count != 0.0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    words.join(", ")
}

/// How much each counter has grown, where it has.
pub fn grown(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let growth = |name: &String, now: &f64| now - before.get(name).copied().unwrap_or(0.0);
    after
        .iter()
        .map(|(name, now)| (name.clone(), growth(name, now)))
        .filter(|(_, growth)| *growth != 0.0)
        .collect()
}

/// One table for each target, and for Rempart what was met.
pub fn markdown(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for target in [Target::Rempart, Target::Nginx, Target::Control] {
        let of_target: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.target == target).collect();
        if of_target.is_empty() {
            continue;
        }
        let held = of_target.iter().filter(|outcome| outcome.faults().is_empty()).count();
        text.push_str(&format!("\n## {}: {held} of {} held\n\n", target.shown(), of_target.len()));
        text.push_str("| attack | golden requests served | latency p50 / p99 / max, ms | memory before → peak → after, MiB ");
        text.push_str(
            "| descriptors before → peak → after | CPU + origin’s | origin connections more, peak | verdict |\n",
        );
        text.push_str("|---|---|---|---|---|---|---|---|\n");
        for outcome in &of_target {
            text.push_str(&outcome.row());
        }
        text.push_str("\nWhat the attackers did and met:\n\n");
        for outcome in &of_target {
            text.push_str(&format!("- {}\n", outcome.details()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let usage = Usage { resident: 40 << 20, descriptors: 100, ticks: 0 };
        Outcome {
            attack: "h2-ping",
            target: Target::Rempart,
            golden: Tally { sent: 5000, served: 5000, ..Tally::default() },
            before: usage,
            peak: usage,
            after: usage,
            origin: (10, 12),
            origin_after: 10,
            processor: 1.0,
            origin_processor: 0.5,
            lasted: 10.0,
            met: Met::new(),
            counters: BTreeMap::new(),
            replaced: None,
        }
    }

    #[test]
    fn every_fault_fails_a_run() {
        assert!(outcome().faults().is_empty());
        let check = |change: fn(&mut Outcome), word: &str| {
            let mut run = outcome();
            change(&mut run);
            let faults = run.faults();
            assert!(faults.len() == 1 && faults[0].starts_with(word), "{faults:?}");
            assert!(run.row().contains(word), "{}", run.row());
        };
        check(|run| run.golden.served = 4999, "golden");
        check(|run| run.peak.resident += MEMORY_BOUND + 1, "memory");
        check(|run| run.after.descriptors += DESCRIPTOR_SLACK + 1, "descriptors");
        check(|run| run.replaced = Some(("edge 7".into(), "edge 8".into())), "replaced");
    }

    #[test]
    fn connections_kept_to_the_origin_are_no_leak() {
        let mut run = outcome();
        run.after.descriptors += DESCRIPTOR_SLACK + 50;
        run.origin_after += 50;
        assert!(run.faults().is_empty());
    }

    #[test]
    fn one_lost_request_is_never_rounded_away() {
        let mut run = outcome();
        assert_eq!(run.share(), "100");
        run.golden = Tally { sent: 1_000_000, served: 999_999, ..Tally::default() };
        assert_eq!(run.share(), "99.99");
    }

    #[test]
    fn only_what_an_attack_moved_is_listed() {
        let before = BTreeMap::from([("a_total".to_owned(), 1.0), ("b_total".to_owned(), 2.0)]);
        let after = BTreeMap::from([("a_total".to_owned(), 1.0), ("b_total".to_owned(), 5.0)]);
        assert_eq!(grown(&before, &after), BTreeMap::from([("b_total".to_owned(), 3.0)]));
        let mut run = outcome();
        run.counters = BTreeMap::from([
            ("rempart_bytes_in_total{site=\"*\"}".to_owned(), 9.0),
            ("rempart_connections_refused_total".to_owned(), 7.0),
        ]);
        assert_eq!(run.details(), "h2-ping: ; counted: connections_refused 7");
    }
}
