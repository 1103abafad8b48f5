//! What the supervisor holds: the processes, the sockets, and what is in force. Locked for moments only.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::admin::{GenerationSource, ProcessRole, Refusal};
use api::certificates::Challenge;
use api::diagnostic::Diagnostic;
use api::process::{
    Activate, Ban, Load, LoadFrom, Loaded, MetricsOrder, SetAside, Supervision, Suspect, Switch, Task,
    TicketKey,
};
use base::time::Timestamp;
use rustix::process::Pid;

use super::artefacts::Artefacts;
use super::child::{AskError, Child};
use super::sockets::Sockets;
use crate::builder::now;

/// Time for an edge to take sockets over; it has everything loaded.
const TAKE_OVER: Duration = Duration::from_secs(2);
/// Time for a small order.
pub const SMALL: Duration = Duration::from_secs(2);
/// Crashes of a generation within `CRASH_WINDOW` after which it is given up.
const MAX_CRASHES: usize = 3;
const CRASH_WINDOW: Duration = Duration::from_secs(60);
/// Modules at sites that edges hung in, which are remembered.
const MAX_SUSPECTS: usize = 64;
/// Given-up generations that are remembered.
const MAX_GIVEN_UP: usize = 64;

/// The generation in force.
pub struct Force {
    /// What it is.
    pub loaded: Loaded,
    /// Where it came from.
    pub source: GenerationSource,
    /// Since when.
    pub since: Timestamp,
    /// Everything it was made from.
    pub package: File,
    /// What should have followed it and did not.
    pub warnings: Vec<Diagnostic>,
    /// Until when it is watched; `None` once it is the one to go back to, and for what never is.
    pub bake: Option<Instant>,
}

impl Force {
    /// Comes into force now, and is watched from now on, unless it is what is gone back to anyway.
    pub fn now(loaded: Loaded, source: GenerationSource, package: File) -> Self {
        let is_new = !matches!(source, GenerationSource::LastGood | GenerationSource::Defaults);
        let bake = is_new.then(|| Instant::now() + Duration::from_millis(loaded.bake_ms));
        let (since, warnings) = (now(), loaded.diagnostics.clone());
        Self { loaded, source, since, package, warnings, bake }
    }
}

/// A forced configuration that waits to be confirmed, and what is gone back to if it is not.
pub struct Unconfirmed {
    /// Until when.
    pub until: Instant,
    /// The one before.
    pub package: File,
    /// Where that came from.
    pub source: GenerationSource,
}

/// The standby, and what it has loaded.
pub struct Standby {
    /// The process.
    pub child: Arc<Child>,
    /// What it holds.
    pub held: Held,
}

/// What a process has loaded: which generation of the configuration, and of each feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The number of the configuration.
    pub number: u64,
    /// Feeds and their generations, sorted.
    pub artefacts: Vec<(String, u64)>,
}

/// Everything the supervisor knows.
pub struct Fleet {
    /// The edge that serves.
    pub active: Option<Arc<Child>>,
    /// The one that waits.
    pub standby: Option<Standby>,
    /// A binary on trial: accepts beside or instead of the active one.
    pub trial: Option<Arc<Child>>,
    /// Tries a generation at the moment.
    pub taster: Option<Arc<Child>>,
    /// Those that finish what they have.
    pub draining: Vec<Arc<Child>>,
    /// Children of the program this process was before an upgrade, other than the edge.
    pub left_over: Vec<Pid>,
    /// The keeper of certificates.
    pub keeper: Option<Arc<Child>>,
    /// Feeder, analytics, watch.
    pub roles: Vec<(ProcessRole, Arc<Child>)>,
    /// Artefacts other than the configuration.
    pub artefacts: Artefacts,
    /// Who is banned.
    pub bans: Vec<Ban>,
    /// Modules that are switched off.
    pub switches: Vec<Switch>,
    /// Modules that edges hung in, and how often.
    pub suspects: Vec<Suspect>,
    /// Their sockets.
    pub sockets: Sockets,
    /// The generation in force.
    pub force: Force,
    /// What is in force was forced, and waits to be confirmed.
    pub unconfirmed: Option<Unconfirmed>,
    /// Highest number given to a generation.
    pub highest: u64,
    /// The last configuration that was not taken.
    pub refused: Option<Refusal>,
    /// What has happened.
    pub supervision: Supervision,
    /// Keys of session tickets, newest first.
    pub tickets: Vec<TicketKey>,
    /// What certificate authorities ask for.
    pub challenges: Vec<Challenge>,
    /// Origins set aside, as the active edge last told.
    pub set_aside: Vec<SetAside>,
    /// When the generation in force has crashed.
    pub crashes: VecDeque<Instant>,
    /// An edge that was told to change over: if it dies, that is not the fault of what was in force before.
    pub suspect: Option<Arc<Child>>,
    /// Generations that were given up, by content hash, and why.
    pub given_up: HashMap<String, String>,
    /// The end has begun: nothing is replaced any more.
    pub ending: bool,
}

impl Fleet {
    /// One edge, and what it serves.
    pub fn new(active: Arc<Child>, sockets: Sockets, force: Force) -> Self {
        let is_active = |pid: &Pid| pid.as_raw_nonzero().get().cast_unsigned() == active.pid;
        let left_over = super::child::all().into_iter().filter(|pid| !is_active(pid)).collect();
        Self {
            left_over,
            active: Some(active),
            standby: None,
            trial: None,
            taster: None,
            draining: Vec::new(),
            keeper: None,
            roles: Vec::new(),
            artefacts: Artefacts::default(),
            bans: Vec::new(),
            switches: Vec::new(),
            suspects: Vec::new(),
            sockets,
            force,
            unconfirmed: None,
            highest: 0,
            refused: None,
            supervision: Supervision::default(),
            tickets: Vec::new(),
            challenges: Vec::new(),
            set_aside: Vec::new(),
            crashes: VecDeque::new(),
            suspect: None,
            given_up: HashMap::new(),
            ending: false,
        }
    }

    /// Lends every socket in force to a process that has the generation in force loaded, and has it accept.
    pub fn hand_over(&self, child: &Child) -> Result<(), AskError> {
        let (listeners, mut descriptors) = self.sockets.all_orders();
        let metrics = self.sockets.metrics();
        descriptors.extend(metrics);
        let order = Activate {
            listeners,
            metrics: if metrics.is_some() { MetricsOrder::Serve } else { MetricsOrder::End },
            set_aside: self.set_aside.clone(),
            challenges: self.challenges.clone(),
            suspects: self.suspects.clone(),
        };
        // It was told before, but what has come or gone since then passed by whoever was being made ready.
        child.tell(Task::Bans { bans: self.bans.clone() });
        child.tell(Task::Switches { switches: self.switches.clone() });
        child.ask(Task::Activate(order), &descriptors, TAKE_OVER)?;
        child.tell(Task::Supervision(self.supervision.clone()));
        Ok(())
    }

    /// Has a process that serves change over to a plan.
    pub fn change_over(
        &self,
        child: &Child,
        plan: &super::sockets::Plan,
        metrics: MetricsOrder,
    ) -> Result<(), AskError> {
        // The first process after the start holds nothing yet.
        let holds = self.active.as_ref().is_some_and(|active| active.pid == child.pid);
        let (listeners, mut descriptors) = self.sockets.orders(plan, holds);
        let socket: Option<BorrowedFd<'_>> =
            if metrics == MetricsOrder::Serve { self.sockets.metrics() } else { None };
        descriptors.extend(socket);
        let (set_aside, challenges) = (self.set_aside.clone(), self.challenges.clone());
        // Whoever serves already has told of them, or was told.
        let suspects = if holds { Vec::new() } else { self.suspects.clone() };
        let order = Activate { listeners, metrics, set_aside, challenges, suspects };
        child.ask(Task::Activate(order), &descriptors, TAKE_OVER)?;
        Ok(())
    }

    /// The order that has another process load what is in force.
    pub fn load_in_force(&self) -> Load {
        let Force { loaded, source, .. } = &self.force;
        let from = match source {
            GenerationSource::Defaults => LoadFrom::Defaults { listeners: loaded.listeners.clone() },
            _ => LoadFrom::Package { served: true },
        };
        Load { number: loaded.number, from, source: *source, force: false }
    }

    /// The process of a role, while it runs.
    pub fn role(&self, role: ProcessRole) -> Option<Arc<Child>> {
        self.roles.iter().find(|(shown, _)| *shown == role).map(|(_, child)| child.clone())
    }

    /// How long a change is watched before it is the one to go back to.
    pub fn bake(&self) -> Duration {
        Duration::from_millis(self.force.loaded.bake_ms)
    }

    /// What a process that serves has to hold.
    pub fn held(&self) -> Held {
        Held { number: self.force.loaded.number, artefacts: self.artefacts.generations() }
    }

    /// Whether a standby is wanted and there is none that could take over.
    pub fn lacks_standby(&self) -> bool {
        !self.ending
            && self.active.is_some()
            && self.force.loaded.standby
            && self.standby.as_ref().is_none_or(|standby| standby.held != self.held())
    }

    /// Tells the edge what the metrics listener says about processes.
    pub fn tell_supervision(&mut self) {
        self.supervision.standby = self.standby.is_some();
        self.supervision.refused = self.refused.is_some();
        if let Some(active) = &self.active {
            active.tell(Task::Supervision(self.supervision.clone()));
        }
    }

    /// Counts a crash of the generation in force; true when that was one too many.
    pub fn crashed_too_often(&mut self, now: Instant) -> bool {
        self.crashes.retain(|at| now.duration_since(*at) < CRASH_WINDOW);
        self.crashes.push_back(now);
        #[cfg(feature = "faults")]
        if edge::fault::without("boot-loop-guard") {
            return false;
        }
        self.crashes.len() >= MAX_CRASHES
    }

    /// Remembers which modules an edge hung in, so that those after it do not ask them at first.
    pub fn remember_suspects(&mut self, suspects: Vec<Suspect>) {
        for suspect in suspects {
            let same = |other: &&mut Suspect| other.module == suspect.module && other.site == suspect.site;
            if let Some(known) = self.suspects.iter_mut().find(same) {
                known.times = known.times.saturating_add(1);
            } else if self.suspects.len() < MAX_SUSPECTS {
                self.suspects.push(suspect);
            }
        }
    }

    /// Remembers that a generation is not to be tried again.
    pub fn give_up(&mut self, id: &str, reason: &str) {
        if self.given_up.len() >= MAX_GIVEN_UP {
            self.given_up.clear();
        }
        self.given_up.insert(id.to_owned(), reason.to_owned());
    }

    /// Puts another generation in force here; the processes have it already.
    pub fn set_force(&mut self, force: Force) {
        self.highest = self.highest.max(force.loaded.number);
        self.crashes.clear();
        self.force = force;
    }

    /// Every process there is, with its role.
    pub fn processes(&self) -> Vec<(ProcessRole, Arc<Child>)> {
        use ProcessRole::{Draining, Edge, Keeper, Standby, Taster};
        let one = |role, child: &Option<Arc<Child>>| {
            child.iter().map(|child| (role, child.clone())).collect::<Vec<_>>()
        };
        let mut all = one(Edge, &self.active);
        all.extend(self.standby.iter().map(|standby| (Standby, standby.child.clone())));
        all.extend(one(Taster, &self.taster));
        all.extend(one(Edge, &self.trial));
        all.extend(self.draining.iter().map(|child| (Draining, child.clone())));
        all.extend(one(Keeper, &self.keeper));
        all.extend(self.roles.iter().cloned());
        all
    }
}
