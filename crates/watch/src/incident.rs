//! Incidents, made from happenings: one for each cause, from its beginning to its end, with the changes before it.
//!
//! Pure: time comes with every call, and what has to be written down is handed back.

mod ending;

use std::collections::VecDeque;
use std::time::Duration;

use base::happening::{Component, Happening, Severity, What};
use base::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Incidents kept, open and resolved; the oldest resolved one goes first, and with none resolved nothing new is taken in.
pub const MAX_INCIDENTS: usize = 512;
/// How long a resolved incident is kept.
pub const KEPT: Duration = Duration::from_secs(90 * 86_400);
/// Changes before an incident that are looked at.
pub const SUSPECT_WINDOW: Duration = Duration::from_secs(30 * 60);
/// Changes remembered, and those named beside one incident (the last ones).
const MAX_CHANGES: usize = 256;
const MAX_SUSPECTS: usize = 10;
/// What is told of one incident; the first stays, the oldest after it goes.
const MAX_UPDATES: usize = 20;
/// A repetition is written down at most this often.
const REPETITIONS: Duration = Duration::from_secs(300);

/// Something that does not work, or did not for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Names it; 16 hexadecimal digits.
    pub id: String,
    /// What began it.
    pub what: What,
    /// How much it matters; never becomes less while it lasts.
    pub severity: Severity,
    /// The part of Rempart concerned.
    pub component: Component,
    /// The site concerned, if it is one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The feed, module, process, origin or certificate concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The generation concerned, as last told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// A stable code.
    pub cause: String,
    /// The cause in a sentence, as last told.
    pub message: String,
    /// When it began.
    pub began: Timestamp,
    /// When it was last told of.
    pub last: Timestamp,
    /// When it ended; `None` while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Timestamp>,
    /// How often it was told.
    pub count: u64,
    /// What became of it, oldest first.
    pub updates: Vec<Update>,
    /// Changes of the 30 minutes before it began, oldest first: where to look first.
    pub suspects: Vec<Suspect>,
}

/// A turn that an incident took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// When.
    pub at: Timestamp,
    /// Which.
    pub turn: Turn,
    /// A sentence for a person.
    pub text: String,
}

/// Which turn an incident took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// It began.
    Began,
    /// It matters more than before.
    Worse,
    /// It ended.
    Resolved,
}

/// A change shortly before an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: What,
    /// The change in a sentence.
    pub text: String,
    /// Who did it, where somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What has to be written down so that all is known again after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// An incident as it is now; replaces what was written of it before.
    Incident(Incident),
    /// A change.
    Change(Suspect),
}

impl Incident {
    /// Whether it lasts.
    pub fn is_open(&self) -> bool {
        self.resolved.is_none()
    }

    fn concerns(&self, happening: &Happening) -> bool {
        self.component == happening.component
            && self.subject == happening.subject
            && self.site == happening.site
            && self.cause == happening.cause
    }

    fn turned(&mut self, at: Timestamp, turn: Turn, text: String) {
        if self.updates.len() == MAX_UPDATES {
            self.updates.remove(1);
        }
        self.updates.push(Update { at, turn, text });
    }

    fn resolve(&mut self, at: Timestamp, text: String) {
        self.resolved = Some(at);
        self.turned(at, Turn::Resolved, text);
    }
}

/// All incidents that are known, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incidents {
    known: Vec<Incident>,
    changes: VecDeque<Suspect>,
    /// Incidents that found no room.
    pub left_out: u64,
}

impl Incidents {
    /// What was written down, in the order it was.
    pub fn restored(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut all = Self::default();
        for entry in entries {
            match entry {
                Entry::Change(change) => all.remember(change),
                Entry::Incident(incident) => all.replace(incident),
            }
        }
        all
    }

    fn replace(&mut self, incident: Incident) {
        if let Some(known) = self.known.iter_mut().find(|known| known.id == incident.id) {
            *known = incident;
        } else if self.make_room() {
            self.known.push(incident);
        } else {
            self.left_out += 1;
        }
    }

    /// Everything that has to be written down to restore this.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let changes = self.changes.iter().cloned().map(Entry::Change);
        changes.chain(self.known.iter().cloned().map(Entry::Incident))
    }

    /// All of them, oldest first.
    pub fn all(&self) -> &[Incident] {
        &self.known
    }

    /// Those that last, oldest first.
    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.known.iter().filter(|incident| incident.is_open())
    }

    /// Changes of the last hour, oldest first.
    pub fn changes(&self) -> impl Iterator<Item = &Suspect> {
        self.changes.iter()
    }

    /// Takes in what happened. What comes back has to be written down.
    pub fn happened(&mut self, happening: &Happening) -> Vec<Entry> {
        let mut entries = Vec::new();
        for incident in &mut self.known {
            if incident.is_open() && ending::ends(incident, happening) {
                let text = if happening.message.is_empty() { "It works again." } else { &happening.message };
                incident.resolve(happening.at.max(incident.began), text.to_owned());
                entries.push(Entry::Incident(incident.clone()));
            }
        }
        if ending::begins(happening) {
            entries.extend(self.began(happening));
        }
        if happening.what.is_change() {
            let (at, what, by) = (happening.at, happening.what, happening.by.clone());
            let change = Suspect { at, what, text: happening.message.clone(), by };
            self.remember(change.clone());
            entries.push(Entry::Change(change));
        }
        entries
    }

    /// Ends what ends by being quiet, and forgets what is too old. What comes back has to be written down.
    pub fn passed(&mut self, now: Timestamp) -> Vec<Entry> {
        let mut entries = Vec::new();
        for incident in self.known.iter_mut().filter(|incident| incident.is_open()) {
            let Some(quiet) = ending::quiet(incident.what) else { continue };
            if incident.last.plus(quiet) <= now {
                incident
                    .resolve(now, format!("It has not happened again for {} minutes.", quiet.as_secs() / 60));
                entries.push(Entry::Incident(incident.clone()));
            }
        }
        self.known.retain(|incident| incident.resolved.is_none_or(|resolved| resolved.plus(KEPT) > now));
        while self.changes.front().is_some_and(|change| change.at.plus(SUSPECT_WINDOW * 2) < now) {
            self.changes.pop_front();
        }
        entries
    }

    /// The same again, or a new one.
    fn began(&mut self, happening: &Happening) -> Option<Entry> {
        let open = self.known.iter_mut().find(|incident| incident.is_open() && incident.concerns(happening));
        let Some(incident) = open else { return self.open_one(happening) };
        let worse = happening.severity > incident.severity;
        let long_ago = happening.at >= incident.last.plus(REPETITIONS);
        incident.count += 1;
        incident.last = happening.at.max(incident.last);
        incident.message.clone_from(&happening.message);
        incident.generation = happening.generation.or(incident.generation);
        if worse {
            incident.severity = happening.severity;
            incident.turned(happening.at, Turn::Worse, happening.message.clone());
        }
        (worse || long_ago).then(|| Entry::Incident(incident.clone()))
    }

    fn open_one(&mut self, happening: &Happening) -> Option<Entry> {
        if !self.make_room() {
            self.left_out += 1;
            return None;
        }
        let happening = happening.clone();
        let from = happening.at.0.saturating_sub(Timestamp::default().plus(SUSPECT_WINDOW).0);
        let before = self.changes.iter().filter(|it| it.at.0 >= from && it.at <= happening.at);
        let mut suspects: Vec<_> = before.cloned().collect();
        suspects.drain(..suspects.len().saturating_sub(MAX_SUSPECTS));
        let incident = Incident {
            id: self.name(&happening),
            what: happening.what,
            severity: happening.severity,
            component: happening.component,
            site: happening.site,
            subject: happening.subject,
            generation: happening.generation,
            cause: happening.cause,
            message: happening.message.clone(),
            began: happening.at,
            last: happening.at,
            resolved: None,
            count: 1,
            updates: vec![Update { at: happening.at, turn: Turn::Began, text: happening.message }],
            suspects,
        };
        self.known.push(incident.clone());
        Some(Entry::Incident(incident))
    }

    /// A fingerprint of what tells incidents apart and when it began; told apart from those that are known.
    fn name(&self, happening: &Happening) -> String {
        let text = format!("{:?} {:?} {}", happening.key(), happening.what, happening.at.0);
        let start = fingerprint(&text);
        // Names are never used up: there are far fewer incidents than numbers.
        let free = |number: &u64| {
            let name = format!("{number:016x}");
            !self.known.iter().any(|incident| incident.id == name)
        };
        let number = (0..=MAX_INCIDENTS as u64).map(|step| start.wrapping_add(step)).find(free);
        format!("{:016x}", number.unwrap_or(start))
    }

    fn make_room(&mut self) -> bool {
        if self.known.len() < MAX_INCIDENTS {
            return true;
        }
        let oldest = self.known.iter().position(|incident| !incident.is_open());
        oldest.map(|at| self.known.remove(at)).is_some()
    }

    fn remember(&mut self, change: Suspect) {
        if self.changes.len() == MAX_CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(change);
    }
}

/// FNV-1a: names things, protects nothing.
pub(crate) fn fingerprint(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
