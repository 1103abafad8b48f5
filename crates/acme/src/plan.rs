//! Decides for each name what happens next and when; no IO, and time and randomness come from outside.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base::random::Random;
use base::time::Timestamp;

use crate::certificate::Facts;
use crate::history::{History, Issued, Pause, Window};
use crate::name::Name;
use crate::pace::{
    ATTEMPTS_PER_AUTHORITY, FAILED_WINDOW_CHECK, FAILURES_PERIOD, FAILURES_UNTIL_DOWN,
    LONGEST_WAIT_ASKED_FOR, LONGEST_WINDOW_CHECK, ORDERS_PERIOD, Pace, SHORTEST_WINDOW_CHECK,
};

#[cfg(test)]
mod tests;

/// Everything wanted, and what happened to it so far.
pub struct Planner {
    pace: Pace,
    random: Random,
    /// Directory URLs in the order they are asked.
    authorities: Vec<String>,
    records: BTreeMap<String, Record>,
    names: BTreeMap<Name, Tracked>,
}

/// What is known of an authority, whatever the name.
#[derive(Default)]
struct Record {
    failures: u32,
    holds: u32,
    hold: Option<Pause>,
    /// Whether the authority itself asked for the hold.
    asked: bool,
    /// It has no renewal information; asked again after this.
    without_windows: Option<Pause>,
    /// When orders were begun, oldest first; at most `orders_per_period`.
    orders: VecDeque<Timestamp>,
}

struct Tracked {
    history: History,
    /// When the certificate at hand ends; `None` when there is none.
    held: Option<Timestamp>,
    running: bool,
    on_demand: bool,
}

/// Something to do for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Order a certificate.
    Obtain {
        /// Directory URL of the authority to ask.
        authority: String,
        /// Identifier of the certificate it replaces (RFC 9773 section 5), when the same authority gave it.
        replaces: Option<String>,
    },
    /// Ask when the certificate at hand should be renewed (RFC 9773 section 4).
    AskWindow {
        /// Directory URL of the authority that gave it.
        authority: String,
        /// Identifier of the certificate.
        certificate_id: String,
    },
}

/// A task and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When; never before the moment of asking.
    pub at: Timestamp,
    /// What.
    pub task: Task,
}

/// Whose fault a failure is, which decides who has to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The authority cannot be reached or does not work; `wait` is its Retry-After.
    Authority {
        /// How long it asked to be left alone.
        wait: Option<Duration>,
    },
    /// The authority has had too many requests (RFC 8555 section 6.6).
    RateLimited {
        /// How long to wait, when it said so.
        wait: Option<Duration>,
        /// Whether this must concern every name: it was said before any name was.
        everywhere: bool,
    },
    /// Control over the name was not shown, or the authority will not sign for it.
    Name,
    /// This machine: publishing, the DNS program, the disk, a setting.
    Local,
}

/// What came of asking for a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowAnswer {
    /// The authority's suggestion, and when to ask again.
    Suggested {
        /// The window.
        window: Window,
        /// From now.
        ask_again: Duration,
    },
    /// The authority has no renewal information.
    Unsupported,
    /// No usable answer.
    Failed,
}

/// The time between two moments; zero when the second is not later, whatever a clock did in between.
fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::from_micros(to.0.saturating_sub(from.0))
}

impl Planner {
    /// Nothing wanted yet. The sequence of jitter is a function of the seed.
    pub fn new(pace: Pace, seed: u64) -> Self {
        Self {
            pace,
            random: Random::seeded(seed),
            authorities: Vec::new(),
            records: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    /// The authorities to ask, in order. What is known of others is forgotten.
    pub fn set_authorities(&mut self, authorities: Vec<String>) {
        self.records.retain(|directory, _| authorities.contains(directory));
        for directory in &authorities {
            self.records.entry(directory.clone()).or_default();
        }
        for tracked in self.names.values_mut() {
            tracked.history.limited.retain(|directory, _| authorities.contains(directory));
        }
        self.authorities = authorities;
    }

    /// Takes a name up, with what a store holds of it. A name that is there already keeps its state.
    pub fn track(&mut self, name: Name, mut history: History, facts: Option<&Facts>, on_demand: bool) {
        if let Some(tracked) = self.names.get_mut(&name) {
            tracked.on_demand = on_demand;
            return;
        }
        match facts {
            None => history.issued = None,
            Some(facts) if history.issued.as_ref().is_none_or(|issued| issued.expires != facts.not_after) => {
                history.issued = Some(self.issued_now(facts, None, facts.not_before));
            }
            Some(_) => {}
        }
        let held = facts.map(|facts| facts.not_after);
        self.names.insert(name, Tracked { history, held, running: false, on_demand });
    }

    /// Lets a name go; what runs for it is ignored when it ends.
    pub fn forget(&mut self, name: &Name) {
        self.names.remove(name);
    }

    /// Names taken up.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.names.keys()
    }

    /// Whether a name is taken up.
    pub fn has(&self, name: &Name) -> bool {
        self.names.contains_key(name)
    }

    /// Names taken up because a visitor asked.
    pub fn on_demand(&self) -> impl Iterator<Item = &Name> {
        self.names.iter().filter(|(_, tracked)| tracked.on_demand).map(|(name, _)| name)
    }

    /// Failures in a row of an on-demand name that never had a certificate.
    pub fn fruitless(&self, name: &Name) -> Option<u32> {
        let tracked = self.names.get(name)?;
        (tracked.on_demand && tracked.held.is_none()).then_some(tracked.history.failures)
    }

    /// What is remembered about a name, with the time of its next attempt filled in.
    pub fn history(&self, name: &Name, now: Timestamp) -> Option<History> {
        let tracked = self.names.get(name)?;
        let next = self.obtain(tracked, now).map(|planned| planned.at);
        Some(History { next, ..tracked.history.clone() })
    }

    /// What happens next for a name; `None` when it is not taken up, or under way, or there is no authority.
    pub fn next(&self, name: &Name, now: Timestamp) -> Option<Planned> {
        self.next_of(self.names.get(name)?, now)
    }

    /// When something is to be done next; `None` when nothing is.
    pub fn next_time(&self, now: Timestamp) -> Option<Timestamp> {
        self.names.values().filter_map(|tracked| self.next_of(tracked, now)).map(|planned| planned.at).min()
    }

    /// Takes up to `slots` due tasks and counts them as under way. Names that never failed come first, then the more urgent.
    pub fn start_due(&mut self, now: Timestamp, slots: usize) -> Vec<(Name, Task)> {
        let mut due: Vec<(bool, Timestamp, Name)> = Vec::new();
        for (name, tracked) in &self.names {
            if self.next_of(tracked, now).is_some_and(|planned| planned.at <= now) {
                due.push((tracked.history.failures > 0, tracked.held.unwrap_or_default(), name.clone()));
            }
        }
        due.sort();
        let mut started = Vec::new();
        for (.., name) in due {
            if started.len() >= slots {
                break;
            }
            // Each order taken uses up some of the authority's quota: what was due a line ago may have to wait now.
            let Some(still) = self.next(&name, now).filter(|again| again.at <= now) else {
                continue;
            };
            if let Task::Obtain { authority, .. } = &still.task {
                self.count_order(authority, now);
            }
            if let Some(tracked) = self.names.get_mut(&name) {
                tracked.running = true;
            }
            started.push((name, still.task));
        }
        started
    }

    /// A certificate has been obtained and stored.
    pub fn issued(&mut self, name: &Name, authority: &str, facts: &Facts, now: Timestamp) {
        let issued = self.issued_now(facts, Some(authority.to_owned()), now);
        if let Some(record) = self.records.get_mut(authority) {
            (record.failures, record.holds, record.hold) = (0, 0, None);
        }
        let Some(tracked) = self.names.get_mut(name) else {
            return;
        };
        tracked.running = false;
        tracked.held = Some(facts.not_after);
        let mut limited = std::mem::take(&mut tracked.history.limited);
        limited.remove(authority);
        tracked.history = History { limited, issued: Some(issued), ..History::default() };
    }

    /// An attempt with an authority has failed.
    pub fn failed(&mut self, name: &Name, authority: &str, fault: &Fault, problem: String, now: Timestamp) {
        self.count_against_authority(authority, fault, now);
        let Some(mut tracked) = self.names.remove(name) else {
            return;
        };
        tracked.running = false;
        let history = &mut tracked.history;
        history.failures = history.failures.saturating_add(1);
        history.problem = Some(problem);
        match fault {
            Fault::Local => {}
            // The first time another one is asked at once: a name need not wait for an authority that is down.
            Fault::Authority { .. } if history.failures == 1 => {
                history.with_authority = 0;
                history.authority = self.after(authority);
            }
            Fault::Authority { .. } => history.with_authority += 1,
            Fault::Name => {
                history.with_authority += 1;
                history.recent_failures.push(now);
                let surplus = history.recent_failures.len().saturating_sub(self.pace.failures_per_period);
                history.recent_failures.drain(..surplus);
            }
            Fault::RateLimited { wait, .. } => {
                history.with_authority = ATTEMPTS_PER_AUTHORITY;
                let wait = wait.unwrap_or(self.pace.first_retry).min(LONGEST_WAIT_ASKED_FOR);
                history.limited.insert(authority.to_owned(), Pause { from: now, until: now.plus(wait) });
            }
        }
        if history.with_authority >= ATTEMPTS_PER_AUTHORITY {
            history.with_authority = 0;
            history.authority = self.after(authority);
        }
        let doubled = doubling(self.pace.first_retry, history.failures, self.pace.longest_retry);
        history.pause = Some(Pause { from: now, until: now.plus(self.jittered(doubled)) });
        // When the authority is the one that has to be left alone, the name need not wait for another.
        let blames_authority = matches!(fault, Fault::Authority { .. } | Fault::RateLimited { .. });
        let chosen = self.choose(&tracked.history, now, now);
        if blames_authority && chosen.is_some_and(|(other, at)| other != authority && at <= now) {
            tracked.history.pause = None;
        }
        self.names.insert(name.clone(), tracked);
    }

    /// An authority has been asked about the renewal of the certificate with this identifier.
    pub fn window(&mut self, name: &Name, certificate_id: &str, answer: &WindowAnswer, now: Timestamp) {
        let Some(tracked) = self.names.get_mut(name) else {
            return;
        };
        tracked.running = false;
        let Some(issued) = &mut tracked.history.issued else {
            return;
        };
        if issued.certificate_id.as_deref() != Some(certificate_id) {
            return;
        }
        let wait = match answer {
            WindowAnswer::Unsupported => {
                // One answer is good for all names.
                if let Some(record) = issued.authority.as_ref().and_then(|one| self.records.get_mut(one)) {
                    let until = now.plus(LONGEST_WINDOW_CHECK);
                    record.without_windows = Some(Pause { from: now, until });
                }
                LONGEST_WINDOW_CHECK
            }
            WindowAnswer::Failed => FAILED_WINDOW_CHECK,
            // An empty window, or one after the end, is as good as no answer (RFC 9773 section 4.2).
            WindowAnswer::Suggested { window, .. }
                if window.end <= window.start || window.start >= issued.expires =>
            {
                FAILED_WINDOW_CHECK
            }
            WindowAnswer::Suggested { window, ask_again } => {
                if issued.window != Some(*window) {
                    issued.window = Some(*window);
                    let end = window.end.min(issued.expires);
                    issued.renews = window.start.plus(part(&mut self.random, between(window.start, end)));
                }
                (*ask_again).clamp(SHORTEST_WINDOW_CHECK, LONGEST_WINDOW_CHECK)
            }
        };
        issued.ask_again = now.plus(wait);
    }

    /// Has a name renewed as soon as limits allow: its back-off is over, limits of authorities are not. False when it is not taken up.
    pub fn renew(&mut self, name: &Name) -> bool {
        let Some(tracked) = self.names.get_mut(name) else {
            return false;
        };
        tracked.history.renew_now = true;
        tracked.history.pause = None;
        true
    }

    /// The certificate that ends at this time has been revoked: it needs a successor, unless it has one by now.
    pub fn revoked(&mut self, name: &Name, expires: Timestamp) {
        if let Some(tracked) = self.names.get_mut(name)
            && let Some(issued) = &mut tracked.history.issued
            && issued.expires == expires
        {
            issued.revoked = true;
            tracked.history.renew_now = true;
            tracked.history.pause = None;
        }
    }

    /// Ends every back-off: settings have changed, so what failed may work now. What authorities asked for stays.
    pub fn try_again(&mut self) {
        for tracked in self.names.values_mut() {
            tracked.history.pause = None;
        }
        for record in self.records.values_mut() {
            if !record.asked {
                (record.failures, record.holds, record.hold) = (0, 0, None);
            }
        }
    }

    fn next_of(&self, tracked: &Tracked, now: Timestamp) -> Option<Planned> {
        if tracked.running {
            return None;
        }
        let obtain = self.obtain(tracked, now)?;
        let ask = self.ask_window(tracked, now).filter(|ask| obtain.at > now && ask.at < obtain.at);
        Some(ask.unwrap_or(obtain))
    }

    /// The next order for a name: when it is wanted, its back-off and its failures allow it, and some authority is free.
    fn obtain(&self, tracked: &Tracked, now: Timestamp) -> Option<Planned> {
        let history = &tracked.history;
        let wanted = match (tracked.held, &history.issued) {
            (Some(ends), Some(issued)) if !history.renew_now => issued.renews.min(ends).max(now),
            // None at hand, or wanted anew.
            _ => now,
        };
        let ready =
            wanted.max(Pause::end(history.pause.as_ref(), now)).max(self.failures_allow(history, now));
        let (authority, at) = self.choose(history, ready, now)?;
        let issued = history.issued.as_ref().filter(|issued| !issued.revoked);
        let replaces = issued
            .filter(|issued| issued.authority.as_deref() == Some(authority))
            .and_then(|issued| issued.certificate_id.clone());
        Some(Planned { at, task: Task::Obtain { authority: authority.to_owned(), replaces } })
    }

    fn ask_window(&self, tracked: &Tracked, now: Timestamp) -> Option<Planned> {
        let issued = tracked.history.issued.as_ref()?;
        let authority = issued.authority.as_ref().filter(|authority| self.authorities.contains(authority))?;
        let record = self.records.get(authority);
        let hold = record.and_then(|record| record.hold.as_ref());
        let without = record.and_then(|record| record.without_windows.as_ref());
        let at = issued.ask_again.max(Pause::end(hold, now)).max(Pause::end(without, now));
        let certificate_id = issued.certificate_id.clone()?;
        Some(Planned { at, task: Task::AskWindow { authority: authority.clone(), certificate_id } })
    }

    /// The first authority, beginning with the preferred one, that is free when the name is ready; else the one free first.
    fn choose(&self, history: &History, ready: Timestamp, now: Timestamp) -> Option<(&str, Timestamp)> {
        let preferred = history
            .authority
            .as_ref()
            .and_then(|wanted| self.authorities.iter().position(|directory| directory == wanted))
            .unwrap_or(0);
        let rotated = self.authorities.iter().cycle().skip(preferred).take(self.authorities.len());
        rotated
            .map(|directory| {
                let record = self.records.get(directory);
                let held = Pause::end(record.and_then(|record| record.hold.as_ref()), now);
                let limited = Pause::end(history.limited.get(directory), now);
                let quota = record.map_or(now, |record| self.quota_allows(record, now));
                (directory.as_str(), ready.max(held).max(limited).max(quota))
            })
            // The first of equals, so the list's order decides among authorities that are free.
            .min_by_key(|(_, at)| *at)
    }

    /// When the next order may begin.
    fn quota_allows(&self, record: &Record, now: Timestamp) -> Timestamp {
        limit_allows(record.orders.iter().copied(), self.pace.orders_per_period, ORDERS_PERIOD, now)
    }

    /// When a name may fail again.
    fn failures_allow(&self, history: &History, now: Timestamp) -> Timestamp {
        let failures = history.recent_failures.iter().copied();
        limit_allows(failures, self.pace.failures_per_period, FAILURES_PERIOD, now)
    }

    fn count_order(&mut self, authority: &str, now: Timestamp) {
        if let Some(record) = self.records.get_mut(authority) {
            record.orders.push_back(now);
            while record.orders.len() > self.pace.orders_per_period {
                record.orders.pop_front();
            }
        }
    }

    fn count_against_authority(&mut self, authority: &str, fault: &Fault, now: Timestamp) {
        let Some(record) = self.records.get_mut(authority) else {
            return;
        };
        let (asked_for, whole) = match fault {
            Fault::Name | Fault::Local => return,
            Fault::Authority { wait } => {
                record.failures = record.failures.saturating_add(1);
                if wait.is_none() && record.failures < FAILURES_UNTIL_DOWN {
                    return;
                }
                (*wait, true)
            }
            Fault::RateLimited { wait, everywhere } => (*wait, *everywhere),
        };
        // Orders that were under way when the hold began say nothing new.
        if record.hold.as_ref().is_some_and(|hold| hold.holds(now)) {
            return;
        }
        record.holds = record.holds.saturating_add(1);
        let own = doubling(self.pace.first_retry, record.holds, self.pace.longest_hold);
        // A limit met while ordering is often one of a single domain: others may go on after a short while.
        let length = match asked_for {
            Some(asked) if whole => asked.min(LONGEST_WAIT_ASKED_FOR),
            Some(asked) => asked.min(own),
            None => own,
        };
        record.asked = asked_for.is_some() || matches!(fault, Fault::RateLimited { .. });
        record.hold = Some(Pause { from: now, until: now.plus(length) });
    }

    /// The authority after this one; the first again after the last.
    fn after(&self, authority: &str) -> Option<String> {
        let position = self.authorities.iter().position(|directory| directory == authority)?;
        self.authorities.iter().cycle().nth(position + 1).cloned()
    }

    /// What is remembered of a new certificate: renewal after two thirds of its life and up to a twentieth more.
    fn issued_now(&mut self, facts: &Facts, authority: Option<String>, now: Timestamp) -> Issued {
        let life = between(facts.not_before, facts.not_after);
        Issued {
            authority,
            issuer: facts.issuer.clone(),
            certificate_id: facts.certificate_id.clone(),
            expires: facts.not_after,
            renews: facts.not_before.plus(life / 3 * 2).plus(part(&mut self.random, life / 20)),
            window: None,
            ask_again: now,
            revoked: false,
        }
    }

    /// Four to six fifths of a duration, so that names that failed together do not return together.
    fn jittered(&mut self, duration: Duration) -> Duration {
        duration / 5 * 4 + part(&mut self.random, duration / 5 * 2)
    }
}

/// `first` doubled with each further count, at most `longest`.
fn doubling(first: Duration, count: u32, longest: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(count.saturating_sub(1))).min(longest)
}

/// A uniformly drawn part of a duration.
fn part(random: &mut Random, whole: Duration) -> Duration {
    let steps = u32::try_from(whole.as_millis()).unwrap_or(u32::MAX);
    if steps == u32::MAX {
        // Beyond 49 days seconds are fine enough.
        let seconds = u32::try_from(whole.as_secs()).unwrap_or(u32::MAX);
        return Duration::from_secs(u64::from(random.below(seconds)));
    }
    Duration::from_millis(u64::from(random.below(steps)))
}

/// The first moment at which fewer than `limit` of these times, oldest first, lie within the last `period`. Looks at one of them:
/// this is asked for every name at every turn. A time in the future, left by a clock that has been set back, does not count.
pub(crate) fn limit_allows(
    mut times: impl ExactSizeIterator<Item = Timestamp>,
    limit: usize,
    period: Duration,
    now: Timestamp,
) -> Timestamp {
    let decisive = times.len().checked_sub(limit).and_then(|surplus| times.nth(surplus));
    match decisive {
        Some(time) if time <= now && between(time, now) < period => time.plus(period),
        _ => now,
    }
}
