//! Watching: an edge that has ended, was stopped, or hangs is replaced at once; a standby is kept; what crashes again and
//! again is given up for the generation before it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::admin::{GenerationSource, Refusal};
use api::process::{Load, LoadFrom, Loaded, Reply, Task, TicketKey, WantedListener};
use base::happening::{Component, Happening, Severity, What};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::child::{AskError, Child, Condition, Ending, out_of_memory_kills};
use super::fleet::{Fleet, Force, Standby};
use super::journal::Journal;
use super::{Supervisor, finding};
use crate::builder::{now, rfc3339};

/// Time between two looks, unless a process ends in between.
const LOOK: Duration = Duration::from_millis(20);
/// Wait before a process that could not be started is tried again: doubles from the first to the second.
const PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Waiting ever longer, and never in step with others.
struct Backoff {
    failures: u32,
    next: Instant,
}

impl Backoff {
    fn new() -> Self {
        Self { failures: 0, next: Instant::now() }
    }

    fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    fn succeeded(&mut self) {
        *self = Self::new();
    }

    fn failed(&mut self) {
        let pause = PAUSE.saturating_mul(1 << self.failures.min(16)).min(MAX_PAUSE);
        // Between half and all of it. Without randomness the middle will do.
        let share =
            getrandom::u32().map_or(0.75, |random| 0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0);
        self.next = Instant::now() + pause.mul_f64(share);
        self.failures = self.failures.saturating_add(1);
    }
}

/// What a look has shown to be necessary. Done without the lock, because it takes its time, and whoever asks for the
/// status meanwhile shall get it.
enum Step {
    Rest,
    /// There is no edge.
    Start,
    /// Data that has just come into force does not run: its name, and why not.
    TakeBack(String, String),
    /// The generation in force does not run.
    FallBack(String),
}

/// Looks after the edge until the process ends. Runs on a thread of its own that waits for nothing else.
pub fn guard(supervisor: &Supervisor) {
    let mut backoff = Backoff::new();
    let mut memory_kills = out_of_memory_kills();
    loop {
        wait(supervisor);
        supervisor.notify.watchdog();
        let step = {
            let mut fleet = supervisor.fleet();
            if fleet.ending {
                return;
            }
            sweep(&mut fleet);
            look_after(&mut fleet, &supervisor.journal, &mut memory_kills, backoff.is_due())
        };
        match step {
            Step::Rest => {}
            Step::TakeBack(name, reason) => {
                supervisor.take_back_artefact(&name, &reason);
            }
            Step::FallBack(reason) => fall_back(supervisor, &reason),
            Step::Start => match start_in_force(supervisor) {
                Ok(()) => backoff.succeeded(),
                Err(error) => {
                    tracing::error!(%error, "no edge could be started; it is tried again");
                    backoff.failed();
                    let too_often = supervisor.fleet().crashed_too_often(Instant::now());
                    if too_often {
                        fall_back(supervisor, "its process could not be started");
                    }
                }
            },
        }
    }
}

fn look_after(fleet: &mut Fleet, journal: &Journal, memory_kills: &mut u64, due: bool) -> Step {
    let Some(active) = fleet.active.clone() else { return if due { Step::Start } else { Step::Rest } };
    let condition = active.look();
    if condition == Condition::Fine {
        fleet.set_aside = active.beat().set_aside;
        return Step::Rest;
    }
    let kills = out_of_memory_kills();
    let suspect = fleet.suspect.as_ref().is_some_and(|suspect| Arc::ptr_eq(suspect, &active));
    let blame = !suspect && is_to_blame(&condition, kills > *memory_kills);
    *memory_kills = kills;
    replace(fleet, journal, &active, &condition, blame)
}

/// Waits for the next look, or for the end of the edge or the standby.
fn wait(supervisor: &Supervisor) {
    let watched: Vec<Arc<Child>> = {
        let fleet = supervisor.fleet();
        fleet
            .active
            .iter()
            .cloned()
            .chain(fleet.standby.iter().map(|standby| standby.child.clone()))
            .collect()
    };
    let mut fds: Vec<PollFd<'_>> = watched.iter().map(|child| PollFd::new(child, PollFlags::IN)).collect();
    let span = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK.subsec_nanos()) };
    if rustix::event::poll(&mut fds, Some(&span)).is_err() {
        std::thread::sleep(LOOK);
    }
}

/// Forgets processes that have ended, and a standby that is no longer one.
fn sweep(fleet: &mut Fleet) {
    fleet.draining.retain(|child| child.ended().is_none());
    fleet.left_over.retain(|pid| !super::child::collect(*pid));
    super::child::collect_unwatched();
    if let Some(standby) = &fleet.standby {
        let condition = standby.child.look();
        if condition != Condition::Fine {
            tracing::warn!(pid = standby.child.pid, ?condition, "the standby is gone; there will be another");
            standby.child.kill();
            fleet.standby = None;
            fleet.tell_supervision();
        }
    }
}

/// Whether the generation may be the cause. Somebody else's SIGKILL or SIGSTOP is not its fault; the kernel's, for want
/// of memory, may be.
fn is_to_blame(condition: &Condition, memory: bool) -> bool {
    match condition {
        Condition::Ended(Ending::Signal(signal)) => {
            let outside =
                [signal_hook::consts::SIGKILL, signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT];
            memory || !outside.contains(signal)
        }
        Condition::Ended(Ending::Code(code)) => *code != 0,
        Condition::Ended(Ending::Unknown) | Condition::Stopped | Condition::Fine => false,
        Condition::Silent | Condition::Stuck => true,
    }
}

fn replace(
    fleet: &mut Fleet,
    journal: &Journal,
    old: &Arc<Child>,
    condition: &Condition,
    blame: bool,
) -> Step {
    let reason = match condition {
        Condition::Ended(ending) => {
            fleet.supervision.crashes += 1;
            ending.to_string()
        }
        other => {
            fleet.supervision.hangs += 1;
            let suspects = old.beat().suspects;
            let what = match other {
                Condition::Stopped => "it was stopped",
                Condition::Stuck => "one of its threads does not move on",
                _ => "it gives no sign of life",
            };
            let modules = suspects.iter().map(|found| format!(" in {} at {}", found.module, found.site));
            let modules = modules.collect::<Vec<_>>().join(",");
            fleet.remember_suspects(suspects);
            format!("{what}{modules}")
        }
    };
    tracing::error!(pid = old.pid, "the edge is replaced: {reason}");
    journal.tell(
        Happening::new(
            now(),
            What::EdgeReplaced,
            Severity::Warning,
            Component::Delivery,
            "edge-ended",
            format!("the edge process was replaced: {reason}"),
        )
        .with_generation(fleet.force.loaded.number),
    );
    fleet.active = None;
    let suspect = fleet.artefacts.suspect().filter(|_| blame);
    let step = if let Some(name) = suspect {
        // Data that has just come is blamed before the configuration. The standby has it too.
        Step::TakeBack(name, reason)
    } else if blame && fleet.crashed_too_often(Instant::now()) {
        Step::FallBack(reason)
    } else if promote(fleet) {
        Step::Rest
    } else {
        Step::Start
    };
    // Only now: what it has accepted is lost either way, and who connects meanwhile is served by the other one.
    old.kill();
    fleet.tell_supervision();
    step
}

/// The standby takes over, if there is one that has the generation in force.
fn promote(fleet: &mut Fleet) -> bool {
    let held = fleet.held();
    let standby = fleet.standby.take_if(|standby| standby.held == held);
    let Some(Standby { child, .. }) = standby else { return false };
    match fleet.hand_over(&child) {
        Ok(()) => {
            fleet.active = Some(child);
            true
        }
        Err(error) => {
            tracing::error!(%error, "the standby could not take over");
            child.kill();
            false
        }
    }
}

/// A new process takes over, with the generation in force.
fn start_in_force(supervisor: &Supervisor) -> anyhow::Result<()> {
    let (child, held) = supervisor.load_in_force_anew()?;
    let mut fleet = supervisor.fleet();
    if fleet.held() != held {
        child.kill();
        anyhow::bail!("something else has come into force meanwhile");
    }
    let done = fleet.hand_over(&child);
    match done {
        Ok(()) => {
            fleet.active = Some(child);
            fleet.tell_supervision();
            Ok(())
        }
        Err(error) => {
            child.kill();
            Err(error.into())
        }
    }
}

/// Gives the generation in force up for the newest stored one before it that runs, or for what is compiled in.
fn fall_back(supervisor: &Supervisor, reason: &str) {
    let (bad, tickets) = {
        let mut fleet = supervisor.fleet();
        let bad = fleet.force.loaded.clone();
        let message = format!("generation {} is given up: {reason}, again and again", bad.number);
        tracing::error!("{message}");
        fleet.give_up(&bad.id, &message);
        supervisor.journal.tell(
            Happening::new(
                now(),
                What::GenerationReverted,
                Severity::Critical,
                Component::Configuration,
                "given-up",
                message.clone(),
            )
            .with_generation(bad.number),
        );
        let mut found = finding("generation-given-up", message);
        found.hint = Some("change the configuration and run `rempart reload`".to_owned());
        fleet.refused = Some(Refusal { at: rfc3339(now()), diagnostics: vec![found] });
        if let Some(standby) = fleet.standby.take() {
            standby.child.kill();
        }
        (bad, fleet.tickets.clone())
    };
    for (number, package) in supervisor.state.stored() {
        if number >= bad.number {
            continue;
        }
        // Each try may take as long as a taste may.
        supervisor.notify.watchdog();
        match try_stored(supervisor, &tickets, number, package) {
            Ok(()) => return,
            Err(error) => tracing::error!(number, %error, "a stored generation cannot be used"),
        }
    }
    if let Err(error) = use_defaults(supervisor, &tickets, bad.listeners) {
        tracing::error!(%error, "even the built-in defaults could not be started; they are tried again");
    }
}

/// Loads a stored generation in a new process, rehearses it, and puts it in force.
fn try_stored(
    supervisor: &Supervisor,
    tickets: &[TicketKey],
    number: u64,
    package: std::fs::File,
) -> anyhow::Result<()> {
    let load = Load {
        number,
        from: LoadFrom::Package { served: true },
        source: GenerationSource::LastGood,
        force: false,
    };
    let (child, loaded) = supervisor.load_tasted(load, Some(&package), tickets)?;
    let mut fleet = supervisor.fleet();
    anyhow::ensure!(!fleet.given_up.contains_key(&loaded.id), "it was given up before");
    put_in_force(&mut fleet, &child, loaded, GenerationSource::LastGood, package)
}

/// Puts the compiled-in defaults in force: every request gets 503 and a page that says so.
fn use_defaults(
    supervisor: &Supervisor,
    tickets: &[TicketKey],
    listeners: Vec<WantedListener>,
) -> anyhow::Result<()> {
    let child = supervisor.start_child(tickets)?;
    let number = supervisor.fleet().highest + 1;
    let load = Load {
        number,
        from: LoadFrom::Defaults { listeners },
        source: GenerationSource::Defaults,
        force: false,
    };
    let (reply, descriptors) = child.ask(Task::Load(load), &[], super::LOAD)?;
    let (Reply::Loaded(loaded), Some(package)) = (reply, descriptors.into_iter().next()) else {
        anyhow::bail!("an unexpected answer");
    };
    put_in_force(&mut supervisor.fleet(), &child, *loaded, GenerationSource::Defaults, package.into())
}

/// What a refusal must never lead to: the minimal configuration instead of the one before.
#[cfg(feature = "faults")]
pub fn fall_back_to_defaults(supervisor: &Supervisor) {
    let (tickets, listeners) = {
        let fleet = supervisor.fleet();
        (fleet.tickets.clone(), fleet.force.loaded.listeners.clone())
    };
    if let Err(error) = use_defaults(supervisor, &tickets, listeners) {
        tracing::error!(%error, "the built-in defaults could not be started");
    }
}

/// The child becomes the edge with this generation, on the sockets it wants.
fn put_in_force(
    fleet: &mut Fleet,
    child: &Arc<Child>,
    loaded: Loaded,
    source: GenerationSource,
    package: std::fs::File,
) -> anyhow::Result<()> {
    let plan = match fleet.sockets.plan(&loaded.listeners, loaded.threads) {
        Ok(plan) => plan,
        Err(found) => {
            child.kill();
            return Err(AskError::Refused(found).into());
        }
    };
    fleet.sockets.put_in_force(plan);
    if let Err(error) = fleet.sockets.serve_metrics(loaded.metrics) {
        tracing::error!(%error, "metrics are not served");
    }
    fleet.hand_over(child)?;
    fleet.set_force(Force::now(loaded, source, package));
    fleet.active = Some(child.clone());
    fleet.tell_supervision();
    Ok(())
}

/// Keeps a standby ready. Runs on a thread of its own, because loading takes its time.
pub fn keep_standby(supervisor: &Supervisor) {
    let mut backoff = Backoff::new();
    loop {
        std::thread::sleep(LOOK);
        let fleet = supervisor.fleet();
        if fleet.ending {
            return;
        }
        if !fleet.lacks_standby() || fleet.trial.is_some() || !backoff.is_due() {
            continue;
        }
        drop(fleet);
        match supervisor.load_in_force_anew() {
            Ok((child, held)) => {
                backoff.succeeded();
                let mut fleet = supervisor.fleet();
                if fleet.held() == held && !fleet.ending {
                    if let Some(old) = fleet.standby.replace(Standby { child, held }) {
                        old.child.kill();
                    }
                    fleet.tell_supervision();
                } else {
                    child.kill();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a standby could not be started; it is tried again");
                backoff.failed();
            }
        }
    }
}
