//! Rempart beside its peers, round by round, held against the bars.

use super::cases::{Against, Case, LATENCY_BAR_MICROS, RULES_BAR};
use super::latency::Delay;
use super::statistics::{Median, median};
use super::{Figures, Sample, idle};
use crate::peers::{Name, RULES};

/// One comparison with a bar.
pub struct Judged {
    /// What is compared.
    pub what: String,
    /// With whom; empty where the bar is a figure of its own.
    pub with: &'static str,
    /// The value and its unit, bounds included.
    pub value: String,
    pub bar: String,
    pub met: bool,
}

/// All bars that these figures say something about, in the order of the cases.
pub fn judge(cases: &[&Case], figures: &Figures) -> Vec<Judged> {
    let mut judged = Vec::new();
    for case in cases {
        for bar in case.bars {
            let peer = match bar.against {
                Against::Best => best_peer(&figures.samples, case),
                Against::Peer(name) => Some(name),
            };
            let Some(peer) = peer else { continue };
            let Some(ratio) = ratio(&figures.samples, case, peer) else { continue };
            let best = if bar.against == Against::Best { "CPU, best peer" } else { "CPU" };
            judged.push(Judged {
                what: format!("{}: {best}", case.name),
                with: peer.shown(),
                value: shown(&ratio),
                bar: format!("<= {:.2} x", bar.at_most),
                met: ratio.high <= bar.at_most,
            });
        }
    }
    let ruled = cases
        .first()
        .and_then(|case| Some((case, share(&figures.samples, case, Name::Ruled, Name::Rempart)?)));
    if let Some((case, ratio)) = ruled {
        judged.push(Judged {
            what: format!("{} with {RULES} rules: CPU", case.name),
            with: "Rempart without",
            value: shown(&ratio),
            bar: format!("<= {RULES_BAR:.2} x"),
            met: ratio.high <= RULES_BAR,
        });
    }
    if let Some(added) = added(&figures.delays, Name::Rempart, |delay| delay.p50) {
        judged.push(Judged {
            what: "p50 latency added over direct, µs".to_owned(),
            with: "",
            value: format!("{:.0} ({:.0}-{:.0})", added.median, added.low, added.high),
            bar: format!("<= {LATENCY_BAR_MICROS:.0}"),
            met: added.high <= LATENCY_BAR_MICROS,
        });
    }
    for variant in idle::VARIANTS {
        let ours = |idle: &&idle::Idle| idle.server == Name::Rempart && idle.variant == variant.name;
        let Some(idle) = figures.idle.iter().find(ours) else { continue };
        judged.push(Judged {
            what: format!("{} idle connections, {}: bytes each", variant.connections, variant.name),
            with: "",
            value: format!("{:.0}", idle.per_connection()),
            bar: format!("<= {:.0}", variant.bar),
            met: idle.per_connection() <= variant.bar,
        });
    }
    judged
}

fn shown(ratio: &Median) -> String {
    format!("{:.2} ({:.2}-{:.2})", ratio.median, ratio.low, ratio.high)
}

/// Samples of one case and server.
pub fn of<'a>(samples: &'a [Sample], case: &'a Case, name: Name) -> impl Iterator<Item = &'a Sample> {
    samples.iter().filter(move |sample| sample.case == case.name && sample.server == name)
}

/// CPU microseconds per request.
pub fn cpu(samples: &[Sample], case: &Case, name: Name) -> Option<Median> {
    median(&of(samples, case, name).map(Sample::cpu_micros).collect::<Vec<_>>())
}

/// Rempart's CPU per request as a share of the peer's, each round for itself: what a slow minute of the machine does to
/// both alike cancels out.
pub fn ratio(samples: &[Sample], case: &Case, peer: Name) -> Option<Median> {
    share(samples, case, Name::Rempart, peer)
}

fn share(samples: &[Sample], case: &Case, one: Name, peer: Name) -> Option<Median> {
    let ratios = of(samples, case, one).filter_map(|ours| {
        let theirs = of(samples, case, peer).find(|theirs| theirs.round == ours.round)?;
        Some(ours.cpu_micros() / theirs.cpu_micros())
    });
    median(&ratios.collect::<Vec<_>>())
}

/// The peer with the smallest median.
fn best_peer(samples: &[Sample], case: &Case) -> Option<Name> {
    let mut medians: Vec<(f64, Name)> = Vec::new();
    for sample in samples.iter().filter(|sample| sample.case == case.name && sample.server.is_peer()) {
        if medians.iter().all(|(_, name)| *name != sample.server) {
            medians.push((cpu(samples, case, sample.server)?.median, sample.server));
        }
    }
    medians.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    medians.first().map(|(_, name)| *name)
}

/// Microseconds more than straight to the origin in the same round.
pub fn added(delays: &[Delay], through: Name, which: fn(&Delay) -> f64) -> Option<Median> {
    let differences = delays.iter().filter(|delay| delay.through == Some(through)).filter_map(|delay| {
        let direct = delays.iter().find(|other| other.through.is_none() && other.round == delay.round)?;
        Some(which(delay) - which(direct))
    });
    median(&differences.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases::CASES;
    use crate::bench::idle::{Idle, Memory};

    fn sample(server: Name, round: usize, cpu_seconds: f64) -> Sample {
        Sample { case: CASES[0].name, server, round, requests: 1_000_000, seconds: 30.0, cpu_seconds }
    }

    fn delay(through: Option<Name>, round: usize, p50: f64) -> Delay {
        Delay { round, through, p50, p99: 2.0 * p50 }
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        // The machine is twice as slow in the second round.
        let samples = [
            sample(Name::Rempart, 0, 9.0),
            sample(Name::Nginx, 0, 10.0),
            sample(Name::Nginx, 1, 20.0),
            sample(Name::Rempart, 1, 18.0),
            sample(Name::Rempart, 2, 90.0),
        ];
        let ratio = ratio(&samples, &CASES[0], Name::Nginx).unwrap();
        assert_eq!((ratio.median, ratio.low, ratio.high), (0.9, 0.9, 0.9));
    }

    #[test]
    fn the_best_peer_is_neither_rempart_nor_the_floor() {
        let samples = [
            sample(Name::Floor, 0, 1.0),
            sample(Name::Rempart, 0, 2.0),
            sample(Name::Nginx, 0, 4.0),
            sample(Name::Haproxy, 0, 3.0),
        ];
        assert_eq!(best_peer(&samples, &CASES[0]), Some(Name::Haproxy));
        assert_eq!(best_peer(&samples[..2], &CASES[0]), None);
    }

    #[test]
    fn the_upper_bound_decides() {
        let peers = |round| sample(Name::Nginx, round, 10.0);
        let judged = |ours: [f64; 3]| {
            let mut samples: Vec<Sample> = (0..3).map(peers).collect();
            samples.extend(ours.iter().enumerate().map(|(round, cpu)| sample(Name::Rempart, round, *cpu)));
            let figures = Figures { samples, delays: Vec::new(), idle: Vec::new() };
            judge(&[&CASES[0]], &figures).into_iter().map(|judged| judged.met).collect::<Vec<_>>()
        };
        assert_eq!(judged([9.0, 9.0, 9.4]), [true]);
        assert_eq!(judged([9.0, 9.0, 9.6]), [false]);
    }

    #[test]
    fn latency_is_told_from_the_direct_way_and_memory_from_before() {
        let delays = vec![
            delay(None, 0, 30.0),
            delay(Some(Name::Rempart), 0, 110.0),
            delay(Some(Name::Rempart), 1, 180.0),
            delay(None, 1, 60.0),
        ];
        let added = added(&delays, Name::Rempart, |delay| delay.p50).unwrap();
        assert_eq!((added.median, added.low, added.high), (100.0, 80.0, 120.0));
        let memory = |proportional| Memory { proportional, resident: proportional };
        let idle = vec![Idle {
            variant: idle::VARIANTS[0].name,
            server: Name::Rempart,
            connections: 10_000,
            before: memory(10_000_000),
            after: memory(60_000_000),
        }];
        let judged = judge(&[], &Figures { samples: Vec::new(), delays, idle });
        let met: Vec<(&str, bool)> = judged.iter().map(|one| (one.value.as_str(), one.met)).collect();
        assert_eq!(met, [("100 (80-120)", false), ("5000", true)]);
    }
}
