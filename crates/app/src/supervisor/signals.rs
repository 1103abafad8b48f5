//! Signals: opened, counted, carried out at once, and given to every edge that comes later.

use std::sync::PoisonError;
use std::time::Duration;

use api::process::{Ban, LoadFrom, Task};
use api::signal::{self, Opened, Signal, SignalError};
use base::happening::{Component, Happening, Severity, What};

use super::Supervisor;
use super::fleet::SMALL;
use crate::builder::now;

/// Bans kept for edges that are yet to come.
const MAX_BANS: usize = 65_536;
/// Time for the edge to hear of a ban.
const TELL: Duration = SMALL;

impl Supervisor {
    /// Verifies a signal and carries it out; answers what was done, for a person.
    pub fn signal(&self, sealed: &str, by: &str) -> Result<String, String> {
        let at = now();
        let opened = signal::open(sealed, &self.keys, at);
        let admitted = opened.and_then(|opened| {
            self.meter.lock().unwrap_or_else(PoisonError::into_inner).admit(&opened, at)?;
            Ok(opened)
        });
        let done = match admitted {
            Ok(opened) => self.carry_out(&opened, by),
            Err(error) => Err((cause(&error), error.to_string())),
        };
        let (what, severity, cause, message) = match &done {
            Ok(message) => (What::SignalApplied, Severity::Info, "applied", message),
            Err((cause, message)) => (What::SignalRefused, Severity::Warning, *cause, message),
        };
        tracing::info!(by, "signal: {message}");
        let happening = Happening::new(at, what, severity, Component::Delivery, cause, message.clone());
        self.journal.tell(happening.done_by(by));
        done.map_err(|(_, message)| message)
    }

    fn carry_out(&self, opened: &Opened, by: &str) -> Result<String, (&'static str, String)> {
        match &opened.signal {
            Signal::Ban { network, until, reason } => {
                let ban = Ban { network: *network, until: *until, reason: reason.clone() };
                self.ban(ban).map_err(|message| ("too-many-bans", message))?;
                Ok(format!("{network} is banned: {reason}"))
            }
            Signal::Revert { feed: Some(feed), reason } => {
                if self.take_back_artefact(feed, reason) {
                    Ok(format!("{feed} went back to its last good generation: {reason}"))
                } else {
                    Err(("nothing-to-revert", format!("nothing of {feed} is in force")))
                }
            }
            Signal::Revert { feed: None, reason } => {
                self.revert_configuration(by, reason).map_err(|message| ("nothing-to-revert", message))
            }
            Signal::AcmeToken { challenges } => {
                if super::certificates::pass_on(self, challenges.clone()) {
                    Ok("challenges of a certificate authority are answered".to_owned())
                } else {
                    Err(("no-edge", "no edge could be told".to_owned()))
                }
            }
            Signal::Disable { module, site, reason } => self
                .switch_off(module, site.as_deref(), reason, by)
                .map_err(|message| ("not-switched", message)),
            other => Err((
                "no-consumer",
                format!("there is nothing here yet that a {} signal is for", other.kind()),
            )),
        }
    }

    fn ban(&self, ban: Ban) -> Result<(), String> {
        let (bans, active) = {
            let mut fleet = self.fleet();
            let at = now();
            fleet.bans.retain(|other| other.until > at && other.network != ban.network);
            if fleet.bans.len() >= MAX_BANS {
                return Err("there is no room for further bans; wait until some have ended".to_owned());
            }
            fleet.bans.push(ban);
            let edges = fleet.active.iter().chain(fleet.standby.iter().map(|standby| &standby.child));
            (fleet.bans.clone(), edges.cloned().collect::<Vec<_>>())
        };
        // Who does not answer is replaced, and its successor told before it serves.
        active.iter().for_each(|edge| drop(edge.ask(Task::Bans { bans: bans.clone() }, &[], TELL)));
        Ok(())
    }

    /// Puts the newest generation in force that has served for its whole bake and is not the present one.
    fn revert_configuration(&self, by: &str, reason: &str) -> Result<String, String> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (bad, source) = {
            let fleet = self.fleet();
            (fleet.force.loaded.number, fleet.force.source)
        };
        for (number, package) in self.state.stored() {
            if number >= bad {
                continue;
            }
            let outcome = self.change(LoadFrom::Package { served: true }, Some(&package), source, by, false);
            if outcome.active && outcome.changed {
                return Ok(format!(
                    "the configuration went back from generation {bad} to {number}: {reason}"
                ));
            }
        }
        Err("there is no generation before the present one that can be used".to_owned())
    }
}

fn cause(error: &SignalError) -> &'static str {
    match error {
        SignalError::Malformed => "malformed",
        SignalError::Seal(_) => "not-trusted",
        SignalError::OutOfTime => "out-of-time",
        SignalError::Reach(_) => "reach",
        SignalError::Replayed => "replayed",
        SignalError::TooMany => "too-many",
    }
}
