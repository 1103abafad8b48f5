//! What is counted of the requests of one site in one stretch of time; two tallies make one of both stretches.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::IpAddr;

use api::analytics::{Details, Figures, Named};
use base::event::wire::Record;
use base::event::{Fault, Protocol};

use crate::histogram::Histogram;
use crate::sketch::Sketch;

/// How modules are called whose settings are rules.
const RULES: &str = "-rules";
/// Names of origins and of verdicts counted at a time; the rest is counted together.
const MAX_NAMES: usize = 64;
/// Where the rest is counted.
const OTHERS: &str = "(others)";
/// Names told of each kind.
pub const NAMES_TOLD: usize = 10;
/// Bits of the set that client networks are counted in: right to a few percent up to twice as many networks.
const NETWORK_BITS: usize = 4096;

/// Counts of one site in one stretch of time.
#[derive(Clone, Debug)]
pub struct Tally {
    figures: Figures,
    latency: Histogram,
    protocols: [u64; 3],
    verdicts: BTreeMap<String, u64>,
    /// Requests about which a module said anything but to let them pass.
    pub held_up: u64,
    origins: BTreeMap<String, u64>,
    paths: Sketch,
    networks: Sketch,
    seen: Box<[u64; NETWORK_BITS / 64]>,
    /// Requests of networks not seen within the hour before.
    pub new_networks: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            figures: Figures::default(),
            latency: Histogram::default(),
            protocols: [0; 3],
            verdicts: BTreeMap::new(),
            held_up: 0,
            origins: BTreeMap::new(),
            paths: Sketch::default(),
            networks: Sketch::default(),
            seen: Box::new([0; NETWORK_BITS / 64]),
            new_networks: 0,
        }
    }
}

/// A number for a network, the same in one process only as long as it runs.
pub fn network_hash(network: IpAddr) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(network)
}

impl Tally {
    /// One more record. `is_new` is whether its network was not seen within the hour before.
    pub fn count(&mut self, record: &Record<'_>, is_new: bool) {
        let weight = u64::from(record.weight);
        let figures = &mut self.figures;
        figures.requests += weight;
        let class = usize::from(record.status / 100).min(5);
        if let Some(counter) = figures.by_class.get_mut(class) {
            *counter += weight;
        }
        let fault = match record.fault {
            None => None,
            Some(Fault::Visitor) => Some(0),
            Some(Fault::Edge) => Some(1),
            Some(Fault::Origin) => Some(2),
        };
        if let Some(counter) = fault.and_then(|fault| figures.faults.get_mut(fault)) {
            *counter += weight;
        }
        let answered_badly = record.fault.is_none() && record.status >= 500 && record.origin.is_some();
        if answered_badly || record.fault == Some(Fault::Origin) {
            figures.origin_errors += weight;
        }
        figures.bytes_in = figures.bytes_in.saturating_add(record.bytes_in.saturating_mul(weight));
        figures.bytes_out = figures.bytes_out.saturating_add(record.bytes_out.saturating_mul(weight));
        self.latency.add(record.duration_us, weight);
        let [http10, http11, http2] = &mut self.protocols;
        *match record.protocol {
            Protocol::Http10 => http10,
            Protocol::Http11 => http11,
            Protocol::Http2 => http2,
        } += weight;
        for noted in &record.verdicts {
            // Of rules the id is what matters: without it nobody could say what one would have done.
            let name = if noted.module.ends_with(RULES) {
                format!("{} {} {}", noted.module, noted.outcome, noted.reason)
            } else {
                format!("{} {}", noted.module, noted.outcome)
            };
            add(&mut self.verdicts, &name, weight);
        }
        if record.verdicts.iter().any(|noted| noted.outcome != "pass") {
            self.held_up += weight;
        }
        if let Some(origin) = record.origin {
            add(&mut self.origins, origin, weight);
        }
        self.paths.add(record.target.split(['?', '#']).next().unwrap_or_default(), weight);
        self.count_network(record.network, weight, is_new);
    }

    fn count_network(&mut self, network: IpAddr, weight: u64, is_new: bool) {
        let bit = network_hash(network) as usize % NETWORK_BITS;
        if let Some(word) = self.seen.get_mut(bit / 64) {
            *word |= 1 << (bit % 64);
        }
        if is_new {
            self.new_networks += weight;
        }
        // Text costs more than the rest of a count, and most clients come again and again: formatted into a small buffer.
        let mut text = NetworkText { bytes: [0; 48], length: 0 };
        self.networks.add(text.format(network), weight);
    }

    /// All of the other one's too.
    pub fn merge(&mut self, other: &Self) {
        let (mine, theirs) = (&mut self.figures, &other.figures);
        mine.requests += theirs.requests;
        mine.by_class.iter_mut().zip(theirs.by_class).for_each(|(mine, theirs)| *mine += theirs);
        mine.faults.iter_mut().zip(theirs.faults).for_each(|(mine, theirs)| *mine += theirs);
        mine.origin_errors += theirs.origin_errors;
        mine.bytes_in = mine.bytes_in.saturating_add(theirs.bytes_in);
        mine.bytes_out = mine.bytes_out.saturating_add(theirs.bytes_out);
        self.latency.merge(&other.latency);
        self.protocols.iter_mut().zip(other.protocols).for_each(|(mine, theirs)| *mine += theirs);
        other.verdicts.iter().for_each(|(name, count)| add(&mut self.verdicts, name, *count));
        self.held_up += other.held_up;
        other.origins.iter().for_each(|(name, count)| add(&mut self.origins, name, *count));
        self.paths.merge(&other.paths);
        self.networks.merge(&other.networks);
        self.seen.iter_mut().zip(other.seen.iter()).for_each(|(mine, theirs)| *mine |= theirs);
        self.new_networks += other.new_networks;
    }

    /// Requests.
    pub fn requests(&self) -> u64 {
        self.figures.requests
    }

    /// Requests answered with 5xx.
    pub fn errors(&self) -> u64 {
        self.figures.errors()
    }

    /// The counts, with quantiles.
    pub fn figures(&self) -> Figures {
        Figures {
            p50_us: self.latency.quantile(0.5),
            p95_us: self.latency.quantile(0.95),
            p99_us: self.latency.quantile(0.99),
            ..self.figures.clone()
        }
    }

    /// What was seen most.
    pub fn details(&self) -> Details {
        let protocols = [Protocol::Http10, Protocol::Http11, Protocol::Http2];
        let protocols = protocols.into_iter().zip(self.protocols).filter(|(_, count)| *count > 0);
        Details {
            protocols: protocols.map(|(name, count)| Named { name: name.name().to_owned(), count }).collect(),
            verdicts: most(&self.verdicts),
            origins: most(&self.origins),
            paths: self.paths.top(NAMES_TOLD),
            networks: self.networks.top(NAMES_TOLD),
            distinct_networks: self.distinct_networks(),
        }
    }

    /// Share of requests that came from the busiest network.
    pub fn busiest_network_share(&self) -> Option<f64> {
        self.networks.largest_share()
    }

    /// Client networks, by linear counting (Whang, Vander-Zanden, Taylor 1990).
    fn distinct_networks(&self) -> u64 {
        let set: u32 = self.seen.iter().map(|word| word.count_ones()).sum();
        let bits = NETWORK_BITS as f64;
        let empty = (bits - f64::from(set)).max(1.0);
        (bits * (bits / empty).ln()).round() as u64
    }
}

fn add(counts: &mut BTreeMap<String, u64>, name: &str, count: u64) {
    if let Some(counter) = counts.get_mut(name) {
        *counter += count;
        return;
    }
    let name = if counts.len() < MAX_NAMES { name } else { OTHERS };
    *counts.entry(name.to_owned()).or_default() += count;
}

fn most(counts: &BTreeMap<String, u64>) -> Vec<Named> {
    let mut all: Vec<_> =
        counts.iter().map(|(name, count)| Named { name: name.clone(), count: *count }).collect();
    all.sort_by_key(|named| std::cmp::Reverse(named.count));
    all.truncate(NAMES_TOLD);
    all
}

/// An address as text without memory of its own; an IPv6 address has at most 39 characters, a mapped one 45.
struct NetworkText {
    bytes: [u8; 48],
    length: usize,
}

impl std::fmt::Write for NetworkText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

impl NetworkText {
    fn format(&mut self, network: IpAddr) -> &str {
        use std::fmt::Write as _;
        // What does not fit is cut off; nothing is that long.
        crate::ignore(write!(self, "{network}"));
        std::str::from_utf8(self.bytes.get(..self.length).unwrap_or_default()).unwrap_or_default()
    }
}
