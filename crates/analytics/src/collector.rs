//! What comes in, counted and kept for a while: windows of ten seconds, minutes made of them, samples, recent events, followers.
//!
//! Nothing here waits or reads a clock: whoever brings events or asks says what time it is. Requests count when they are told
//! of, which is when they have ended.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use api::analytics::{Anomaly, Evidence, Minute, RequestView, SiteFigures, StoreStatus, Top};
use base::event::wire::{Head, Record, records};
use base::happening::Happening;
use base::random::Random;
use base::time::Timestamp;

use crate::anomaly::{Turn, WINDOW_SECONDS, Watcher, Window, is_recent_change};
use crate::reservoir::Reservoir;
use crate::tally::{Tally, network_hash};
use crate::view;

/// Sites counted each for themselves; the requests of others are counted together.
pub const MAX_SITES: usize = 1024;
/// The site that stands for those beyond `MAX_SITES`.
pub const OTHER_SITES: &str = "(other sites)";
/// Requests of a site that are kept of each minute.
const SAMPLES: usize = 60;
/// Bytes of recent frames: the last 20,000 requests or so.
const RECENT_BYTES: usize = 8 << 20;
/// Recent operational events kept here; older ones are in the database.
const RECENT_HAPPENINGS: usize = 1024;
/// Seconds of which requests are told one by one.
const SECONDS: usize = 60;
/// Networks remembered in each half of the hour.
const KNOWN_NETWORKS: usize = 200_000;
/// Windows in half an hour.
const HALF_HOUR: u64 = 180;
/// Who follows at a time, and what each may be behind with.
pub const MAX_FOLLOWERS: usize = 16;
const FOLLOWER_QUEUE: usize = 64;
/// Sites told of as the busiest.
const SITES_TOLD: usize = 50;

/// What somebody who follows is told.
#[derive(Clone, Debug)]
pub enum Told {
    /// Records of requests.
    Frame(Arc<[u8]>),
    /// Something happened.
    Happening(Arc<Happening>),
    /// So many requests are left out here.
    Missed(u64),
}

/// Somebody who follows.
struct Follower {
    queue: SyncSender<Told>,
    missed: u64,
}

impl Follower {
    /// False when nobody listens any more.
    fn tell(&mut self, told: Told, requests: u64) -> bool {
        if self.missed > 0 {
            match self.queue.try_send(Told::Missed(self.missed)) {
                Ok(()) => self.missed = 0,
                Err(TrySendError::Full(_)) => {
                    self.missed += requests;
                    return true;
                }
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
        match self.queue.try_send(told) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.missed += requests;
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}

/// What has become complete, for the database.
#[derive(Debug, Default)]
pub struct Complete {
    /// Figures of a minute, one for each site that had requests.
    pub minutes: Vec<Minute>,
    /// Requests of that minute that are kept.
    pub samples: Vec<RequestView>,
    /// The beginning of that minute, and the requests nobody was told of in it.
    pub lost: Option<(Timestamp, u64)>,
    /// Anomalies that have begun or ended.
    pub turns: Vec<Turn>,
}

/// Tallies by site; `""` is requests for hosts that no site has.
type Tallies = HashMap<Box<str>, Tally>;

/// Networks seen within the hour: two sets, of which the older one goes every half hour.
#[derive(Default)]
struct Networks {
    recent: HashSet<u64>,
    older: HashSet<u64>,
    windows: u64,
    /// Seen in this window for the first time.
    fresh: HashSet<u64>,
}

impl Networks {
    fn is_new(&mut self, network: u64) -> bool {
        let new = !self.recent.contains(&network) && !self.older.contains(&network);
        if new && self.fresh.len() < KNOWN_NETWORKS {
            self.fresh.insert(network);
        }
        new
    }

    fn close_window(&mut self) {
        let room = KNOWN_NETWORKS.saturating_sub(self.recent.len());
        self.recent.extend(self.fresh.drain().take(room));
        self.windows += 1;
        if self.windows.is_multiple_of(HALF_HOUR) {
            self.older = std::mem::take(&mut self.recent);
        }
    }

    /// Whether an hour, or what there was of it, says what is new.
    fn is_settled(&self) -> bool {
        self.windows >= HALF_HOUR / 3
    }
}

/// Everything that is held in memory.
pub struct Collector {
    random: Random,
    networks: Networks,
    /// The number of the window that is open: time divided by its length.
    open: u64,
    window: Tallies,
    before: Tallies,
    minute: Tallies,
    samples: HashMap<Box<str>, Reservoir<RequestView>>,
    watchers: HashMap<Box<str>, Watcher>,
    /// Requests and losses by second; the last one is not complete.
    seconds: VecDeque<(u64, u64, u64)>,
    lost_in_minute: u64,
    happenings: VecDeque<Arc<Happening>>,
    recent: VecDeque<Arc<[u8]>>,
    recent_bytes: usize,
    followers: Vec<Follower>,
    /// Records that could not be read.
    damaged: u64,
}

impl Collector {
    /// With nothing in it.
    pub fn new(seed: u64, now: Timestamp) -> Self {
        Self {
            random: Random::seeded(seed),
            networks: Networks::default(),
            open: now.seconds() / WINDOW_SECONDS,
            window: Tallies::default(),
            before: Tallies::default(),
            minute: Tallies::default(),
            samples: HashMap::new(),
            watchers: HashMap::new(),
            seconds: VecDeque::new(),
            lost_in_minute: 0,
            happenings: VecDeque::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            followers: Vec::new(),
            damaged: 0,
        }
    }

    /// Takes the records of a frame in.
    pub fn take(&mut self, head: &Head, frame: Arc<[u8]>, now: Timestamp) {
        let mut requests = 0;
        for record in records(&frame) {
            match record {
                Ok(record) => {
                    requests += u64::from(record.weight);
                    self.count(&record);
                }
                Err(_) => self.damaged += 1,
            }
        }
        self.count_second(now, requests, head.lost);
        self.lost_in_minute += head.lost;
        self.tell_followers(&Told::Frame(frame.clone()), requests);
        self.recent_bytes += frame.len();
        self.recent.push_back(frame);
        while self.recent_bytes > RECENT_BYTES {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes -= oldest.len();
        }
    }

    fn count(&mut self, record: &Record<'_>) {
        let is_new = self.networks.is_new(network_hash(record.network));
        let name = record.site.unwrap_or_default();
        let known = self.window.len() < MAX_SITES || self.window.contains_key(name);
        let name = if known { name } else { OTHER_SITES };
        match self.window.get_mut(name) {
            Some(tally) => tally.count(record, is_new),
            None => self.window.entry(name.into()).or_default().count(record, is_new),
        }
        if !self.samples.contains_key(name) && self.samples.len() <= MAX_SITES {
            self.samples.insert(name.into(), Reservoir::new(SAMPLES));
        }
        if let Some(samples) = self.samples.get_mut(name) {
            let weight = interest(record) * f64::from(record.weight);
            samples.offer(weight, &mut self.random, || view::of_record(record));
        }
    }

    fn count_second(&mut self, now: Timestamp, requests: u64, lost: u64) {
        match self.seconds.back_mut() {
            Some((second, counted, missing)) if *second == now.seconds() => {
                *counted += requests;
                *missing += lost;
            }
            _ => self.seconds.push_back((now.seconds(), requests, lost)),
        }
        while self.seconds.len() > SECONDS + 1 {
            self.seconds.pop_front();
        }
    }

    /// Takes an operational event in.
    pub fn happened(&mut self, happening: Happening) {
        let happening = Arc::new(happening);
        self.tell_followers(&Told::Happening(happening.clone()), 0);
        if self.happenings.len() == RECENT_HAPPENINGS {
            self.happenings.pop_front();
        }
        self.happenings.push_back(happening);
    }

    fn tell_followers(&mut self, told: &Told, requests: u64) {
        self.followers.retain_mut(|follower| follower.tell(told.clone(), requests));
    }

    /// Somebody follows from now on; `None` when too many do. What is recent at this moment comes along, oldest first.
    pub fn follow(&mut self) -> Option<(Recent, Receiver<Told>)> {
        if self.followers.len() >= MAX_FOLLOWERS {
            return None;
        }
        let (queue, told) = sync_channel(FOLLOWER_QUEUE);
        self.followers.push(Follower { queue, missed: 0 });
        Some((self.recent(), told))
    }

    /// What is recent, oldest first.
    pub fn recent(&self) -> Recent {
        Recent {
            frames: self.recent.iter().cloned().collect(),
            happenings: self.happenings.iter().cloned().collect(),
        }
    }

    /// The time goes on: closes windows and minutes that are over. To be called every second or so.
    pub fn tick(&mut self, now: Timestamp) -> Complete {
        let mut complete = Complete::default();
        let current = now.seconds() / WINDOW_SECONDS;
        self.count_second(now, 0, 0);
        if current == self.open {
            return complete;
        }
        complete.turns = self.close_window(now);
        let minute_of = |window: u64| window * WINDOW_SECONDS / 60;
        if minute_of(current) != minute_of(self.open) {
            self.close_minute(minute_of(self.open), &mut complete);
        }
        self.open = current;
        complete
    }

    /// What is not complete yet, because there is no time left for it.
    pub fn finish(&mut self, now: Timestamp) -> Complete {
        let mut complete = Complete { turns: self.close_window(now), ..Complete::default() };
        self.close_minute(self.open * WINDOW_SECONDS / 60, &mut complete);
        complete
    }

    fn close_window(&mut self, now: Timestamp) -> Vec<Turn> {
        let closed = std::mem::take(&mut self.window);
        for (name, tally) in &closed {
            self.minute.entry(name.clone()).or_default().merge(tally);
            if !self.watchers.contains_key(name) && self.watchers.len() <= MAX_SITES {
                self.watchers.insert(name.clone(), Watcher::new(site_of(name)));
            }
        }
        let changes = self.changes(now);
        let settled = self.networks.is_settled();
        let mut turns = Vec::new();
        self.watchers.retain(|name, watcher| {
            let tally = closed.get(name);
            let window = tally.map(window_of).unwrap_or_default();
            turns.extend(watcher.look(&window, now, || evidence(tally, &changes, settled)));
            // A site that has had no requests for most of an hour is watched again when it has some.
            tally.is_some() || watcher.usual_rate() != Some(0.0) || watcher.anomalies().next().is_some()
        });
        self.networks.close_window();
        self.before = closed;
        turns
    }

    fn close_minute(&mut self, minute: u64, complete: &mut Complete) {
        let at = Timestamp(minute * 60_000_000);
        let minutes = std::mem::take(&mut self.minute).into_iter().map(|(name, tally)| Minute {
            at,
            site: site_of(&name),
            figures: tally.figures(),
            details: tally.details(),
        });
        complete.minutes = minutes.collect();
        let samples = std::mem::take(&mut self.samples).into_values();
        complete.samples = samples.flat_map(Reservoir::into_values).collect();
        let lost = std::mem::take(&mut self.lost_in_minute);
        complete.lost = (lost > 0).then_some((at, lost));
    }

    /// Changes of the last 30 minutes, newest first.
    fn changes(&self, now: Timestamp) -> Vec<Happening> {
        let recent = self.happenings.iter().rev().filter(|happening| is_recent_change(happening, now));
        recent.map(|happening| Happening::clone(happening)).collect()
    }

    /// How it goes: the last complete window and the one that is open.
    pub fn top(&self, now: Timestamp, store: StoreStatus) -> Top {
        let began = self.open.saturating_sub(1) * WINDOW_SECONDS * 1_000_000;
        let (mut all, mut sites) = (Tally::default(), HashMap::<&str, Tally>::new());
        for (name, tally) in self.before.iter().chain(&self.window) {
            all.merge(tally);
            sites.entry(name).or_default().merge(tally);
        }
        let mut sites: Vec<_> = sites
            .into_iter()
            .map(|(name, tally)| SiteFigures { site: site_of(name), figures: tally.figures() })
            .collect();
        sites.sort_by(|a, b| b.figures.requests.cmp(&a.figures.requests).then_with(|| a.site.cmp(&b.site)));
        sites.truncate(SITES_TOLD);
        Top {
            at: now,
            seconds: now.0.saturating_sub(began) as f64 / 1e6,
            per_second: self.per_second(now),
            figures: all.figures(),
            details: all.details(),
            sites,
            anomalies: self.anomalies(now),
            changes: self.changes(now),
            lost: self.seconds.iter().map(|(_, _, lost)| lost).sum(),
            store,
        }
    }

    /// Seconds in which nothing came are there too.
    fn per_second(&self, now: Timestamp) -> Vec<u64> {
        let counts: HashMap<u64, u64> = self.seconds.iter().map(|(at, count, _)| (*at, *count)).collect();
        let first = now.seconds().saturating_sub(SECONDS as u64);
        (first..now.seconds()).map(|second| counts.get(&second).copied().unwrap_or_default()).collect()
    }

    /// What is unlike it was, with the changes as they are known now.
    fn anomalies(&self, now: Timestamp) -> Vec<Anomaly> {
        let changes = self.changes(now);
        let mut all: Vec<Anomaly> = self.watchers.values().flat_map(Watcher::anomalies).cloned().collect();
        all.sort_by(|a, b| b.since.cmp(&a.since).then_with(|| a.site.cmp(&b.site)));
        for anomaly in &mut all {
            let told = std::mem::take(&mut anomaly.evidence.changes);
            let later = changes.iter().filter(|change| !told.contains(change)).cloned();
            anomaly.evidence.changes = later.chain(told.iter().cloned()).collect();
            anomaly.evidence.changes.sort_by_key(|change| std::cmp::Reverse(change.at));
        }
        all
    }

    /// Records that could not be read so far.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }
}

/// What is recent: frames of records and operational events, each oldest first.
#[derive(Debug, Default)]
pub struct Recent {
    /// Frames.
    pub frames: Vec<Arc<[u8]>>,
    /// Operational events.
    pub happenings: Vec<Arc<Happening>>,
}

fn site_of(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_owned())
}

/// How much more than an ordinary request one is worth keeping.
fn interest(record: &Record<'_>) -> f64 {
    let held_up = record.verdicts.iter().any(|noted| noted.outcome != "pass");
    match record.status {
        500.. => 20.0,
        _ if record.fault.is_some() || held_up => 20.0,
        400.. | 0 => 5.0,
        _ => 1.0,
    }
}

fn window_of(tally: &Tally) -> Window {
    Window {
        requests: tally.requests(),
        errors: tally.errors(),
        p95_us: tally.figures().p95_us,
        held_up: tally.held_up,
    }
}

fn evidence(tally: Option<&Tally>, changes: &[Happening], settled: bool) -> Evidence {
    let changes = changes.to_vec();
    let Some(tally) = tally else { return Evidence { changes, ..Evidence::default() } };
    let details = tally.details();
    let requests = tally.requests();
    Evidence {
        rate_factor: None,
        distinct_networks: details.distinct_networks,
        new_networks_share: (settled && requests > 0).then(|| tally.new_networks as f64 / requests as f64),
        busiest_network_share: tally.busiest_network_share(),
        paths: details.paths,
        networks: details.networks,
        changes,
    }
}

#[cfg(test)]
mod tests;
