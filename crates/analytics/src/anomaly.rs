//! Whether a site is unlike it was: each signal against its own last hour, by median and MAD, and never with too little to go by.

use std::collections::VecDeque;

use api::analytics::{Anomaly, Evidence, Judgement};
use base::happening::Happening;
use base::time::Timestamp;

/// Seconds of a window; signals are looked at once for each.
pub const WINDOW_SECONDS: u64 = 10;
/// Windows that are remembered: an hour.
const REMEMBERED: usize = 360;
/// Fewer than these (ten minutes) say nothing about what is usual.
const ENOUGH_WINDOWS: usize = 60;
/// Fewer requests in a window say nothing about shares and latencies, and are no rate to be worried about.
const ENOUGH_REQUESTS: f64 = 30.0;
/// Windows in a row that begin an anomaly, and that end it.
const BEGIN: u32 = 2;
const END: u32 = 6;
/// Windows after which what is unlike it was is how it is: an hour.
const NEW_NORMAL: u32 = 360;
/// Deviations from the median, in units of the standard deviation that the MAD stands for.
const DEVIATIONS: f64 = 6.0;
/// MAD to standard deviation, for a normal distribution.
const SIGMA: f64 = 1.4826;
/// How much more comes in than usual when it looks like an attack.
const FLOOD: f64 = 3.0;
/// How much more comes in at most when it looks like business as usual.
const AS_USUAL: f64 = 1.5;
/// Share of requests of new networks, or of one network, that is remarkable.
const REMARKABLE: f64 = 0.5;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Requests per second.
    RequestRate,
    /// Share of requests answered with 5xx.
    ErrorShare,
    /// 95th percentile of the duration, in microseconds.
    Latency,
    /// Share of requests that modules did not simply let pass.
    VerdictShare,
}

/// All of them.
const SIGNALS: [Signal; 4] = [Signal::RequestRate, Signal::ErrorShare, Signal::Latency, Signal::VerdictShare];

impl Signal {
    /// The name in events and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestRate => "request-rate",
            Self::ErrorShare => "error-share",
            Self::Latency => "latency",
            Self::VerdictShare => "verdict-share",
        }
    }

    /// Smallest departure from the usual that matters to anybody.
    fn matters(self, value: f64, usual: f64) -> bool {
        match self {
            // A site that falls silent is as remarkable as one that is flooded.
            Self::RequestRate => value > usual * 2.0 || value < usual / 4.0,
            Self::ErrorShare => value > usual + 0.05,
            Self::Latency => value > usual * 2.0 && value > usual + 50_000.0,
            Self::VerdictShare => (value - usual).abs() > 0.2,
        }
    }

    /// The value and the usual one, for people.
    fn shown(self, value: f64, usual: f64) -> String {
        let (share, usually) = (value * 100.0, usual * 100.0);
        match self {
            Self::RequestRate => format!("{value:.1} requests/s, usually {usual:.1}"),
            Self::ErrorShare => format!("{share:.1} % of requests fail, usually {usually:.1} %"),
            Self::Latency => format!("p95 {:.0} ms, usually {:.0} ms", value / 1000.0, usual / 1000.0),
            Self::VerdictShare => {
                format!("{share:.1} % of requests are held up by modules, usually {usually:.1} %")
            }
        }
    }
}

/// One window of a site. Signals of which nothing can be said are `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    /// Requests.
    pub requests: u64,
    /// Answered with 5xx.
    pub errors: u64,
    /// 95th percentile of the duration.
    pub p95_us: Option<u64>,
    /// Not simply let pass by modules.
    pub held_up: u64,
}

impl Window {
    fn value(&self, signal: Signal) -> Option<f64> {
        let requests = self.requests as f64;
        let enough = requests >= ENOUGH_REQUESTS;
        match signal {
            Signal::RequestRate => Some(requests / WINDOW_SECONDS as f64),
            Signal::ErrorShare => enough.then(|| self.errors as f64 / requests),
            Signal::Latency => self.p95_us.filter(|_| enough).map(|p95| p95 as f64),
            Signal::VerdictShare => enough.then(|| self.held_up as f64 / requests),
        }
    }
}

/// What can be said of a signal.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Said {
    /// Too little is known.
    Unknown,
    /// As it was.
    Usual,
    /// Unlike it was: the value and the usual one.
    Unlike(f64, f64),
}

/// A signal of one site.
#[derive(Debug)]
struct Watch {
    signal: Signal,
    remembered: VecDeque<f64>,
    unlike: u32,
    usual: u32,
    anomaly: Option<Anomaly>,
}

impl Watch {
    fn new(signal: Signal) -> Self {
        Self { signal, remembered: VecDeque::new(), unlike: 0, usual: 0, anomaly: None }
    }

    fn judge(&self, value: f64) -> Said {
        if self.remembered.len() < ENOUGH_WINDOWS {
            return Said::Unknown;
        }
        let usual = median(self.remembered.iter().copied());
        let spread = SIGMA * median(self.remembered.iter().map(|one| (one - usual).abs()));
        // Counts scatter by their root even when the last hour, by chance, did not.
        let floor = match self.signal {
            Signal::RequestRate => (usual / WINDOW_SECONDS as f64).sqrt(),
            Signal::ErrorShare | Signal::VerdictShare => 0.005,
            Signal::Latency => usual * 0.02,
        };
        if self.signal == Signal::RequestRate && value.max(usual) * (WINDOW_SECONDS as f64) < ENOUGH_REQUESTS
        {
            return Said::Usual;
        }
        let far = (value - usual).abs() > DEVIATIONS * spread.max(floor);
        if far && self.signal.matters(value, usual) { Said::Unlike(value, usual) } else { Said::Usual }
    }

    fn remember(&mut self, value: f64) {
        if self.remembered.len() == REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back(value);
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// What changed about a site's anomalies.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn {
    /// One has begun.
    Began(Anomaly),
    /// One has ended.
    Ended(Anomaly),
}

/// All signals of one site.
#[derive(Debug)]
pub struct Watcher {
    site: Option<String>,
    watches: [Watch; SIGNALS.len()],
    first: bool,
}

impl Watcher {
    /// Of a site; `None` is hosts that no site has.
    pub fn new(site: Option<String>) -> Self {
        Self { site, watches: SIGNALS.map(Watch::new), first: true }
    }

    /// Requests per second, usually; `None` while that is not known.
    pub fn usual_rate(&self) -> Option<f64> {
        let [rate, ..] = &self.watches;
        let known = rate.remembered.len() >= ENOUGH_WINDOWS;
        known.then(|| median(rate.remembered.iter().copied()))
    }

    /// The anomalies there are.
    pub fn anomalies(&self) -> impl Iterator<Item = &Anomaly> {
        self.watches.iter().filter_map(|watch| watch.anomaly.as_ref())
    }

    /// Looks at a window that ended at `now`. `evidence` is asked for only when something is unlike it was.
    pub fn look(&mut self, window: &Window, now: Timestamp, evidence: impl Fn() -> Evidence) -> Vec<Turn> {
        let mut turns = Vec::new();
        // The first window was not watched from its beginning.
        if std::mem::take(&mut self.first) {
            return turns;
        }
        let usual_rate = self.usual_rate();
        for watch in &mut self.watches {
            let Some(value) = window.value(watch.signal) else { continue };
            let said = watch.judge(value);
            let adapts = !matches!(said, Said::Unlike(..)) || watch.unlike >= NEW_NORMAL;
            if adapts {
                // What is unlike it was does not shift what is usual, unless it stays.
                watch.remember(value);
            }
            match said {
                Said::Unknown => {}
                Said::Usual => {
                    watch.unlike = 0;
                    watch.usual += 1;
                    if watch.usual >= END
                        && let Some(ended) = watch.anomaly.take()
                    {
                        turns.push(Turn::Ended(ended));
                    }
                }
                Said::Unlike(value, usual) => {
                    watch.unlike += 1;
                    watch.usual = 0;
                    if watch.unlike >= BEGIN && watch.anomaly.is_none() {
                        let mut evidence = evidence();
                        let rate = window.requests as f64 / WINDOW_SECONDS as f64;
                        evidence.rate_factor =
                            usual_rate.filter(|usual| *usual > 0.0).map(|usual| rate / usual);
                        let site = self.site.clone();
                        let anomaly = describe(watch.signal, site, now, (value, usual), evidence);
                        watch.anomaly = Some(anomaly.clone());
                        turns.push(Turn::Began(anomaly));
                    }
                }
            }
        }
        turns
    }
}

fn describe(
    signal: Signal,
    site: Option<String>,
    since: Timestamp,
    (value, usual): (f64, f64),
    evidence: Evidence,
) -> Anomaly {
    let judgement = judge(signal, value, usual, &evidence);
    let verdict = match judgement {
        Judgement::LooksLikeAttack => "looks like an attack",
        Judgement::LooksLikeOwnFault => "looks like a fault of our own",
        Judgement::CannotTell => "attack or fault of our own, that cannot be told",
    };
    let mut parts = Vec::new();
    match evidence.rate_factor {
        Some(factor) => parts.push(format!("{factor:.1} times the usual requests")),
        None => parts.push("the usual rate is not known".to_owned()),
    }
    parts.push(format!("about {} client networks", evidence.distinct_networks));
    if let Some(share) = evidence.new_networks_share {
        parts.push(format!("{:.0} % of requests from new ones", share * 100.0));
    }
    if let Some(share) = evidence.busiest_network_share {
        parts.push(format!("{:.0} % from the busiest", share * 100.0));
    }
    let changes = match evidence.changes.first() {
        None => "nothing was changed in the last 30 minutes".to_owned(),
        Some(last) => {
            let minutes = since.seconds().saturating_sub(last.at.seconds()) / 60;
            let more = match evidence.changes.len() {
                1 => String::new(),
                count => format!(", and {} more within 30 minutes", count - 1),
            };
            format!("{minutes} min before: {}{more}", last.message)
        }
    };
    let sentence = format!("{verdict}: {} ({}; {changes})", signal.shown(value, usual), parts.join(", "));
    Anomaly { since, site, signal: signal.name().to_owned(), value, usual, evidence, judgement, sentence }
}

/// What comes in speaks for an attack, a change before speaks for a fault of one's own; both or neither speak for nothing.
fn judge(signal: Signal, value: f64, usual: f64, evidence: &Evidence) -> Judgement {
    let flooded = evidence.rate_factor.is_some_and(|factor| factor >= FLOOD);
    let odd_crowd = evidence.new_networks_share.is_some_and(|share| share >= REMARKABLE)
        || evidence.busiest_network_share.is_some_and(|share| share >= REMARKABLE);
    let calm = evidence.rate_factor.is_some_and(|factor| factor <= AS_USUAL)
        && evidence.new_networks_share.is_none_or(|share| share < REMARKABLE);
    let changed = !evidence.changes.is_empty();
    let harmed = signal != Signal::RequestRate || value < usual;
    match (flooded && odd_crowd, changed) {
        (true, false) => Judgement::LooksLikeAttack,
        (false, true) if calm && harmed => Judgement::LooksLikeOwnFault,
        _ => Judgement::CannotTell,
    }
}

/// Whether a happening is one of the changes to be named beside an anomaly now.
pub fn is_recent_change(happening: &Happening, now: Timestamp) -> bool {
    const RECENT_MICROS: u64 = 30 * 60 * 1_000_000;
    happening.what.is_change() && happening.at.0.saturating_add(RECENT_MICROS) >= now.0
}

#[cfg(test)]
mod tests;
