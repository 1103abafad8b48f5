//! The roles beside the edge: feeder, analytics, watch. Each is a process of its own, started when the generation in force
//! wants it, told what it shall do and what happens elsewhere, and started again when it ends. None is waited for.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use api::admin::ProcessRole;
use api::process::Task;
use api::roles::{RoleSettings, WatchedListener};
use base::happening::{Component, Happening, Severity, What};

use super::Supervisor;
use super::child::{AskError, Child, ChildWord};
use super::fleet::{Fleet, SMALL};
use super::sockets::Listening;
use crate::builder::now;

/// How often is looked whether roles run and know what is wanted.
const LOOK: Duration = Duration::from_millis(200);
/// Wait before a role that has ended is started again; doubles from the first to the second.
const PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Happenings told at a time.
const TOLD: usize = 64;
/// Time for a role that is not wanted any more to write down what it holds.
const END: Duration = Duration::from_secs(2);

/// One of the roles.
struct Role {
    /// What status pages and lists of processes call it.
    name: &'static str,
    shown: ProcessRole,
    component: Component,
    wants_happenings: bool,
    running: Option<Running>,
    /// The first happening it has not been told.
    cursor: u64,
    pause: Duration,
    next: Instant,
}

struct Running {
    child: Arc<Child>,
    told: RoleSettings,
}

impl Role {
    fn new(name: &'static str, shown: ProcessRole, component: Component, wants_happenings: bool) -> Self {
        let (running, cursor, pause, next) = (None, 0, PAUSE, Instant::now());
        Self { name, shown, component, wants_happenings, running, cursor, pause, next }
    }
}

/// The name of the role that settings are for, as `rempart child` knows it.
fn name_of(settings: &RoleSettings) -> &'static str {
    match settings {
        RoleSettings::Feeder(_) => "feeder",
        RoleSettings::Analytics(_) => "analytics",
        RoleSettings::Watch(_) => "watch",
    }
}

/// Looks after all of them until the process ends. `offers` gets what a feeder offers.
pub fn look_after(supervisor: &Supervisor, offers: &SyncSender<ChildWord>) {
    let mut roles = [
        Role::new("analytics", ProcessRole::Analytics, Component::Analytics, true),
        Role::new("watch", ProcessRole::Watch, Component::Watch, true),
        Role::new("feeder", ProcessRole::Feeder, Component::Feeds, false),
    ];
    loop {
        let wanted = {
            let fleet = supervisor.fleet();
            if fleet.ending {
                return;
            }
            wanted(&fleet)
        };
        for role in &mut roles {
            let settings = wanted.iter().find(|settings| name_of(settings) == role.name);
            role.look_after(supervisor, settings, offers);
        }
        std::thread::sleep(LOOK);
    }
}

/// What the generation in force wants, with the addresses that are only known here.
fn wanted(fleet: &Fleet) -> Vec<RoleSettings> {
    let mut wanted = fleet.force.loaded.roles.clone();
    for settings in &mut wanted {
        if let RoleSettings::Watch(watch) = settings {
            let listener = |listener: &Listening| WatchedListener {
                address: listener.address,
                tls: listener.tls,
                proxy_protocol: listener.proxy_protocol,
            };
            let at: Vec<_> = fleet.sockets.in_force().iter().map(listener).collect();
            watch.sites.iter_mut().for_each(|site| site.at.clone_from(&at));
        }
    }
    wanted
}

impl Role {
    fn look_after(
        &mut self,
        supervisor: &Supervisor,
        wanted: Option<&RoleSettings>,
        offers: &SyncSender<ChildWord>,
    ) {
        if self.running.as_ref().is_some_and(|running| running.child.ended().is_some()) {
            self.has_ended(supervisor);
        }
        let Some(wanted) = wanted else { return self.dismiss(supervisor) };
        match &mut self.running {
            Some(running) => {
                if running.told != *wanted && tell(&running.child, wanted).is_ok() {
                    running.told = wanted.clone();
                }
                if running.child.started.elapsed() > MAX_PAUSE {
                    self.pause = PAUSE;
                }
            }
            None if Instant::now() >= self.next => match begin(supervisor, self.name, wanted, offers) {
                Ok(child) => {
                    supervisor.fleet().roles.push((self.shown, child.clone()));
                    self.running = Some(Running { child, told: wanted.clone() });
                }
                Err(error) => {
                    tracing::error!(role = self.name, %error, "a role could not be started; it is tried again");
                    self.put_off();
                }
            },
            None => {}
        }
        self.pass_on(supervisor);
    }

    fn put_off(&mut self) {
        self.next = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
    }

    fn has_ended(&mut self, supervisor: &Supervisor) {
        let ending = self.running.take().and_then(|running| {
            supervisor.fleet().roles.retain(|(_, child)| !Arc::ptr_eq(child, &running.child));
            running.child.ended()
        });
        let how = ending.map(|ending| ending.to_string()).unwrap_or_default();
        tracing::error!(role = self.name, "a role is started again: {how}");
        let message = format!("the {} process is started again: {how}", self.name);
        let happening =
            Happening::new(now(), What::RoleRestarted, Severity::Warning, self.component, "ended", message);
        supervisor.journal.tell(happening.about(self.name));
        self.put_off();
    }

    fn dismiss(&mut self, supervisor: &Supervisor) {
        if let Some(running) = self.running.take() {
            supervisor.fleet().roles.retain(|(_, child)| !Arc::ptr_eq(child, &running.child));
            end(&running.child);
        }
    }

    /// Tells a role what has happened since it was last told.
    fn pass_on(&mut self, supervisor: &Supervisor) {
        let Some(running) = self.running.as_ref().filter(|_| self.wants_happenings) else { return };
        let (happenings, next) = supervisor.journal.since(self.cursor, TOLD);
        if !happenings.is_empty() {
            running.child.tell(Task::Happened { happenings });
        }
        self.cursor = next;
    }
}

fn begin(
    supervisor: &Supervisor,
    name: &str,
    wanted: &RoleSettings,
    offers: &SyncSender<ChildWord>,
) -> anyhow::Result<Arc<Child>> {
    let child = Child::start(&supervisor.launch(), name, Some(offers.clone()))?;
    if let Err(error) = tell(&child, wanted) {
        child.kill();
        return Err(error.into());
    }
    Ok(child)
}

fn tell(child: &Child, wanted: &RoleSettings) -> Result<(), AskError> {
    child.ask(Task::Settings { settings: wanted.clone() }, &[], SMALL).map(drop)
}

/// Lets a role write down what it holds, then ends it.
pub fn end(child: &Child) {
    // Whoever does not do it in time, or cannot, is ended below.
    drop(child.ask(Task::End, &[], END));
    child.kill();
}
