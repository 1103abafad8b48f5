//! The keeper's main loop: takes commands, starts what is due, and remembers what came of it.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::certificates::{AcmeAuthority, AcmeSettings};
use base::time::Timestamp;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};

use crate::account::Accounts;
use crate::board::{Board, Publisher};
use crate::certificate::{Facts, inspect};
use crate::failure::OrderError;
use crate::history::{History, rfc3339};
use crate::name::{Name, pattern_allows};
use crate::order::{Desk, Job, Reason};
use crate::pace::Pace;
use crate::plan::{Planner, Task, WindowAnswer, limit_allows};
use crate::status::KeptStatus;
use crate::store::{Store, StoreError};

#[cfg(test)]
mod tests;

/// Names visitors can have ordered, in all.
const ON_DEMAND_NAMES: usize = 1_000;
/// Names visitors can have ordered within `ON_DEMAND_PERIOD`.
const ON_DEMAND_PER_PERIOD: usize = 60;
/// See `ON_DEMAND_PER_PERIOD`.
const ON_DEMAND_PERIOD: Duration = Duration::from_secs(3_600);
/// Failures after which a name a visitor asked for, and that never had a certificate, is given up until the next visitor.
const ON_DEMAND_FAILURES: u32 = 5;
/// Names looked at of one `Wanted`.
const WANTED_AT_ONCE: usize = 1_000;
/// Revocations under way, in commands.
const REVOCATIONS_AT_A_TIME: usize = 16;
/// Between two looks at what is due, at least.
const SHORTEST_SLEEP: Duration = Duration::from_millis(10);

/// The wall clock. It may step; the keeper looks at it at least every `Pace::slice`.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What a keeper is told.
#[derive(Debug)]
pub enum Command {
    /// Everything wanted from now on. Names that are not wanted any more stay in the store and are not renewed.
    Settings(AcmeSettings),
    /// Names visitors asked for. Those on the list of `on_demand` are ordered, as far as bounds allow; others are ignored.
    Wanted(Vec<String>),
    /// Renew these now, as far as limits of authorities allow. Answered when all of them are known; nothing is done otherwise.
    Renew {
        /// Names of the settings, or names visitors asked for.
        names: Vec<String>,
        /// What came of it; the error is for people.
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// Revoke what is in force and have it replaced, with a new key. Answered when the authority has revoked.
    Revoke {
        /// Names with a certificate.
        names: Vec<String>,
        /// Told to the authority.
        reason: Reason,
        /// What came of it; the error is for people.
        answer: oneshot::Sender<Result<(), String>>,
    },
}

/// Something under way has ended.
enum Done {
    Obtained { name: Name, authority: String, result: Result<Facts, OrderError> },
    Window { name: Name, certificate_id: String, answer: WindowAnswer },
    Revoked { ended: Vec<(Name, Result<Timestamp, OrderError>)>, answer: oneshot::Sender<Result<(), String>> },
    Begun,
}

type Running = FuturesUnordered<Pin<Box<dyn Future<Output = Done>>>>;

/// Gets, renews and revokes certificates until its commands end.
pub struct Keeper<S, P> {
    desk: Rc<Desk<S, P>>,
    planner: Planner,
    settings: Option<AcmeSettings>,
    clock: Clock,
    pace: Pace,
    /// Orders so far.
    orders: u64,
    /// Revocations under way.
    revocations: usize,
    /// When names were taken up because a visitor asked; at most `ON_DEMAND_PER_PERIOD`.
    admitted: VecDeque<Timestamp>,
    /// Names visitors asked for in vain.
    ignored: u64,
}

impl<S: Store + 'static, P: Publisher + 'static> Keeper<S, P> {
    /// A keeper that has not been told anything. The seed decides about jitter, never about keys.
    pub fn new(store: S, publisher: P, clock: Clock, seed: u64) -> Self {
        Self::with_pace(store, publisher, clock, seed, Pace::default())
    }

    /// The same with other delays and bounds.
    pub fn with_pace(store: S, publisher: P, clock: Clock, seed: u64, pace: Pace) -> Self {
        let desk = Desk { store, board: Board::new(publisher), accounts: Accounts::default() };
        Self {
            desk: Rc::new(desk),
            planner: Planner::new(pace, seed),
            settings: None,
            clock,
            pace,
            orders: 0,
            revocations: 0,
            admitted: VecDeque::new(),
            ignored: 0,
        }
    }

    /// Keeps certificates until the sending side of `commands` is gone. Dropping it at any moment leaves a good store. It needs a
    /// tokio runtime with time and IO and is not `Send`.
    pub async fn run(&mut self, mut commands: mpsc::Receiver<Command>) {
        let mut running = Running::new();
        running.push(Box::pin(begin(Rc::clone(&self.desk))));
        loop {
            self.start_due(&running);
            let sleep = self.sleep(running.len());
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.take(command, &running),
                    None => return,
                },
                Some(done) = running.next(), if !running.is_empty() => {
                    self.finish(done);
                    // What ended together is planned for together.
                    while let Some(Some(done)) = running.next().now_or_never() {
                        self.finish(done);
                    }
                }
                () = tokio::time::sleep(sleep) => {}
            }
            // Tasks that end without waiting would keep connections and timers from their turn.
            tokio::task::yield_now().await;
        }
    }

    /// What is known of every name taken up.
    pub fn statuses(&self) -> Vec<(String, KeptStatus)> {
        let now = (self.clock)();
        let of = |name: &Name| {
            self.planner.history(name, now).map(|history| (name.to_string(), KeptStatus::of(&history)))
        };
        self.planner.names().filter_map(of).collect()
    }

    fn start_due(&mut self, running: &Running) {
        let Some(settings) = self.settings.clone() else {
            return;
        };
        let now = (self.clock)();
        let slots = self.slots(running.len());
        for (name, task) in self.planner.start_due(now, slots) {
            let (Task::Obtain { authority: directory, .. } | Task::AskWindow { authority: directory, .. }) =
                &task;
            let Some(authority) = authority_of(&settings, directory).cloned() else {
                continue;
            };
            let (desk, contact) = (Rc::clone(&self.desk), settings.contact.clone());
            match task {
                Task::AskWindow { certificate_id, .. } => running.push(Box::pin(async move {
                    let answer = desk.window(&authority, &contact, &certificate_id).await;
                    Done::Window { name, certificate_id, answer }
                })),
                Task::Obtain { authority: directory, replaces } => {
                    self.orders += 1;
                    let challenge = settings.challenge.clone();
                    let job = Job { number: self.orders, name, authority, contact, challenge, replaces };
                    let clock = Arc::clone(&self.clock);
                    running.push(Box::pin(async move {
                        let result = desk.obtain(&job, || clock()).await;
                        Done::Obtained { name: job.name, authority: directory, result }
                    }));
                }
            }
        }
    }

    /// Orders and questions that may be begun.
    fn slots(&self, running: usize) -> usize {
        self.pace.orders_at_a_time.saturating_sub(running.saturating_sub(self.revocations))
    }

    /// Until the next attempt is due, in slices, because the wall clock may step meanwhile.
    fn sleep(&self, running: usize) -> Duration {
        let now = (self.clock)();
        match self.planner.next_time(now) {
            Some(next) if self.slots(running) > 0 => {
                Duration::from_micros(next.0.saturating_sub(now.0)).clamp(SHORTEST_SLEEP, self.pace.slice)
            }
            _ => self.pace.slice,
        }
    }

    fn take(&mut self, command: Command, running: &Running) {
        match command {
            Command::Settings(settings) => self.settle(settings),
            Command::Wanted(names) => self.admit(&names),
            Command::Renew { names, answer } => tell(answer, self.renew(&names)),
            Command::Revoke { names, reason, answer } => self.revoke(&names, reason, answer, running),
        }
    }

    fn settle(&mut self, settings: AcmeSettings) {
        if self.settings.as_ref() == Some(&settings) {
            return;
        }
        let mut directories: Vec<String> = Vec::new();
        for authority in &settings.authorities {
            if !directories.contains(&authority.directory) {
                directories.push(authority.directory.clone());
            }
        }
        self.planner.set_authorities(directories);
        let mut wanted = BTreeSet::new();
        for text in &settings.names {
            match Name::parse(text) {
                Ok(name) => drop(wanted.insert(name)),
                Err(error) => tracing::warn!(%error, "no certificate is ordered for it"),
            }
        }
        let tracked: Vec<Name> = self.planner.names().cloned().collect();
        for name in tracked.iter().filter(|name| !wanted.contains(*name) && !on_list(&settings, name)) {
            self.planner.forget(name);
        }
        for name in wanted {
            self.take_up(name, false);
        }
        let before = self.settings.replace(settings.clone());
        if before.is_some_and(|before| {
            (&before.authorities, &before.challenge) != (&settings.authorities, &settings.challenge)
        }) {
            self.planner.try_again();
        }
        self.take_up_on_demand();
    }

    /// Names that visitors asked for in an earlier life and that got a certificate.
    fn take_up_on_demand(&mut self) {
        let Some(settings) = self.settings.as_ref().filter(|settings| !settings.on_demand.is_empty()) else {
            return;
        };
        let stored = self.desk.store.names().unwrap_or_else(|error| {
            tracing::warn!(%error, "names that visitors asked for earlier are not known");
            Vec::new()
        });
        let room = ON_DEMAND_NAMES.saturating_sub(self.planner.on_demand().count());
        let found: Vec<Name> = stored
            .into_iter()
            .filter(|name| !self.planner.has(name) && on_list(settings, name))
            .filter(|name| matches!(self.desk.store.current(name), Ok(Some(_))))
            .take(room)
            .collect();
        for name in found {
            self.take_up(name, true);
        }
    }

    fn take_up(&mut self, name: Name, on_demand: bool) {
        if self.planner.has(&name) {
            self.planner.track(name, History::default(), None, on_demand);
            return;
        }
        let facts = match self.desk.store.current(&name) {
            Ok(Some(pem)) => inspect(&pem, &name)
                .inspect_err(|error| tracing::warn!(%name, %error, "the stored certificate is unusable; ordering a new one"))
                .ok(),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%name, %error, "the stored certificate cannot be read; ordering a new one");
                None
            }
        };
        let history = self.desk.store.history(&name).unwrap_or_else(|error| {
            tracing::warn!(%name, %error, "what happened to it before is not known");
            None
        });
        self.planner.track(name.clone(), history.unwrap_or_default(), facts.as_ref(), on_demand);
        self.save(&name);
    }

    fn admit(&mut self, names: &[String]) {
        let now = (self.clock)();
        for text in names.iter().take(WANTED_AT_ONCE) {
            let name = Name::parse(text).ok();
            let listed =
                name.filter(|name| self.settings.as_ref().is_some_and(|settings| on_list(settings, name)));
            match listed {
                Some(name) if self.planner.has(&name) => {}
                Some(name) if self.has_room(now) => {
                    self.admitted.push_back(now);
                    if self.admitted.len() > ON_DEMAND_PER_PERIOD {
                        self.admitted.pop_front();
                    }
                    self.take_up(name, true);
                }
                _ => {
                    self.ignored += 1;
                    tracing::debug!(
                        name = text,
                        ignored = self.ignored,
                        "a visitor asked for it; no certificate is ordered"
                    );
                }
            }
        }
    }

    fn has_room(&self, now: Timestamp) -> bool {
        let admitted = self.admitted.iter().copied();
        self.planner.on_demand().count() < ON_DEMAND_NAMES
            && limit_allows(admitted, ON_DEMAND_PER_PERIOD, ON_DEMAND_PERIOD, now) <= now
    }

    fn renew(&mut self, names: &[String]) -> Result<(), String> {
        let known = |text: &String| Name::parse(text).ok().filter(|name| self.planner.has(name));
        let unknown: Vec<&str> =
            names.iter().filter(|text| known(text).is_none()).map(String::as_str).collect();
        if !unknown.is_empty() {
            return Err(format!("no certificate is kept for {}", unknown.join(", ")));
        }
        let names: Vec<Name> = names.iter().filter_map(known).collect();
        for name in names {
            self.planner.renew(&name);
            self.save(&name);
        }
        Ok(())
    }

    fn revoke(
        &mut self,
        names: &[String],
        reason: Reason,
        answer: oneshot::Sender<Result<(), String>>,
        running: &Running,
    ) {
        if self.revocations >= REVOCATIONS_AT_A_TIME {
            return tell(answer, Err("too many revocations are under way; try again later".to_owned()));
        }
        let Some(settings) = &self.settings else {
            return tell(answer, Err("no authority is configured".to_owned()));
        };
        let mut asked: Vec<(Name, AcmeAuthority)> = Vec::new();
        for text in names {
            match Name::parse(text).map_err(|error| error.to_string()).and_then(|name| {
                let authority = self.issuing_authority(settings, &name)?;
                Ok((name, authority))
            }) {
                Ok(one) => asked.push(one),
                Err(reason) => return tell(answer, Err(reason)),
            }
        }
        let (desk, contact) = (Rc::clone(&self.desk), settings.contact.clone());
        self.revocations += 1;
        running.push(Box::pin(async move {
            let mut ended = Vec::new();
            for (name, authority) in asked {
                let result = desk.revoke(&name, &authority, &contact, reason).await;
                ended.push((name, result));
            }
            Done::Revoked { ended, answer }
        }));
    }

    /// The authority that gave what is in force; the first of the list when nobody knows.
    fn issuing_authority(&self, settings: &AcmeSettings, name: &Name) -> Result<AcmeAuthority, String> {
        let history = match self.planner.history(name, (self.clock)()) {
            Some(history) => Some(history),
            None => self.desk.store.history(name).map_err(|error: StoreError| error.to_string())?,
        };
        let authority = match history.and_then(|history| history.issued).and_then(|issued| issued.authority) {
            Some(directory) => authority_of(settings, &directory)
                .ok_or_else(|| format!("{name} is from {directory}, which is not configured any more")),
            None => settings.authorities.first().ok_or_else(|| "no authority is configured".to_owned()),
        };
        authority.cloned()
    }

    fn finish(&mut self, done: Done) {
        let now = (self.clock)();
        match done {
            Done::Begun => {}
            Done::Window { name, certificate_id, answer } => {
                self.planner.window(&name, &certificate_id, &answer, now);
                self.save(&name);
            }
            Done::Obtained { name, authority, result: Ok(facts) } => {
                self.planner.issued(&name, &authority, &facts, now);
                self.save(&name);
                let expires = rfc3339(facts.not_after);
                tracing::info!(%name, authority, issuer = facts.issuer, expires, "got a certificate");
            }
            Done::Obtained { name, authority, result: Err(error) } => {
                self.planner.failed(&name, &authority, &error.fault(), error.to_string(), now);
                let next = self.planner.history(&name, now).and_then(|history| history.next).map(rfc3339);
                tracing::warn!(%name, authority, %error, next, "got no certificate; the one before stays");
                if self.planner.fruitless(&name).is_some_and(|failures| failures >= ON_DEMAND_FAILURES) {
                    self.give_up(&name);
                } else {
                    self.save(&name);
                }
            }
            Done::Revoked { ended, answer } => {
                self.revocations -= 1;
                let mut problems = Vec::new();
                for (name, result) in ended {
                    match result {
                        Ok(expires) => {
                            tracing::warn!(%name, "its certificate is revoked; it is served until the next one is there");
                            self.planner.revoked(&name, expires);
                            self.save(&name);
                        }
                        Err(error) => problems.push(format!("{name}: {error}")),
                    }
                }
                tell(answer, if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) });
            }
        }
    }

    fn give_up(&mut self, name: &Name) {
        self.planner.forget(name);
        if let Err(error) = self.desk.store.forget(name) {
            tracing::warn!(%name, %error, "its folder could not be removed");
        }
        tracing::warn!(%name, "a visitor asked for it, but no certificate can be had; given up until the next one asks");
    }

    /// Writes down what is remembered of a name; without it only back-off is lost.
    fn save(&self, name: &Name) {
        let Some(history) = self.planner.history(name, (self.clock)()) else {
            return;
        };
        if let Err(error) = self.desk.store.put_history(name, &history) {
            tracing::warn!(%name, %error, "what happened to it could not be written down");
        }
    }
}

async fn begin<S: Store, P: Publisher>(desk: Rc<Desk<S, P>>) -> Done {
    if let Err(error) = desk.board.begin().await {
        tracing::debug!(%error, "challenges of an earlier keeper could not be withdrawn; the next set replaces them");
    }
    Done::Begun
}

fn on_list(settings: &AcmeSettings, name: &Name) -> bool {
    settings.on_demand.iter().any(|pattern| pattern_allows(pattern, name))
}

fn authority_of<'a>(settings: &'a AcmeSettings, directory: &str) -> Option<&'a AcmeAuthority> {
    settings.authorities.iter().find(|authority| authority.directory == directory)
}

/// Answers a command; whoever gave it may be gone.
fn tell(answer: oneshot::Sender<Result<(), String>>, result: Result<(), String>) {
    if answer.send(result).is_err() {
        tracing::debug!("nobody waits for the answer any more");
    }
}
