//! What a gate remembers of its feed, over restarts too: refusals, the last cycles, and whether it is frozen.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use base::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::store::replace;

/// Causes of refusal that are told apart; the oldest gives way.
const MAX_REFUSALS: usize = 16;
/// Cycles looked back for reversals; one is seen from two before it.
const CYCLES: usize = 3;
/// Reversals among them that freeze the feed.
const REVERSALS: usize = 2;
/// Bytes kept of a message.
const MAX_MESSAGE: usize = 1024;

/// Largest file, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Nothing new is taken until somebody has looked.
    pub frozen: Option<Frozen>,
    /// What is wrong with the source, one for each cause.
    pub refusals: Vec<Refusal>,
    /// Looks in a row that found no source.
    pub misses: u32,
    /// The highest generation that ever was in force; never goes back.
    pub highest: u64,
    pub(super) cycles: Vec<Cycle>,
    pub(super) turned_down: Option<TurnedDown>,
    /// Warnings of its end already given for what is in force.
    pub(super) expiry_told: u8,
}

/// A feed that takes nothing new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// Since when.
    pub since: Timestamp,
    /// What it is pinned to; `None` is nothing.
    pub generation: Option<u64>,
    /// Why.
    pub cause: String,
    /// How often the source has been read since.
    pub looks: u64,
}

/// One cause why what the source holds is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A stable code.
    pub cause: String,
    /// The first of this cause, for people.
    pub message: String,
    /// The latest generation refused for it, as far as it can be told.
    pub generation: Option<u64>,
    /// Since when.
    pub since: Timestamp,
    /// When last.
    pub last: Timestamp,
    /// How often.
    pub count: u64,
}

/// What was found at one look, when it differs from the look before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cycle {
    /// Hash of the package.
    bytes: String,
    /// Hash of its content; `None` for one that was refused.
    content: Option<String>,
    /// It went back to what was before the last.
    pub reversal: bool,
}

/// A package that passed here and was refused later on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TurnedDown {
    /// Hash of the package.
    pub bytes: String,
    /// Why, as a code.
    pub cause: String,
    /// Why.
    pub message: String,
}

impl Memory {
    /// Name of its file, in the folder of its feed.
    pub const FILE: &str = "gate.json";

    /// From its file. One that is not there is a feed of which nothing is known; nor is anything of one that is damaged.
    pub fn read(path: &Path) -> Self {
        let mut text = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what was known of a feed cannot be read")
            }
            Ok(_) => match serde_json::from_slice::<Self>(&text) {
                Ok(memory) => return memory.bounded(),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "what was known of a feed is damaged")
                }
            },
        }
        Self::default()
    }

    /// Into its file, in one step.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        replace(path, &serde_json::to_vec(self)?)
    }

    /// As it may be after it was read from somewhere.
    pub(super) fn bounded(mut self) -> Self {
        self.refusals.truncate(MAX_REFUSALS);
        let needless = self.cycles.len().saturating_sub(CYCLES);
        self.cycles.drain(..needless);
        self
    }

    /// Counts a refusal. Answers the message when its cause is new.
    pub(super) fn refuse(
        &mut self,
        cause: &str,
        mut message: String,
        generation: Option<u64>,
        now: Timestamp,
    ) -> Option<String> {
        if let Some(known) = self.refusals.iter_mut().find(|refusal| refusal.cause == cause) {
            known.count = known.count.saturating_add(1);
            (known.last, known.generation) = (now, generation.or(known.generation));
            return None;
        }
        if self.refusals.len() >= MAX_REFUSALS {
            self.refusals.remove(0);
        }
        let end = (0..=MAX_MESSAGE.min(message.len())).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or(0));
        let (cause, since, last, count) = (cause.to_owned(), now, now, 1);
        self.refusals.push(Refusal { cause, message: message.clone(), generation, since, last, count });
        Some(message)
    }

    /// The cycle that this would be; `None` when nothing is new.
    pub(super) fn next_cycle(&self, bytes: String, content: Option<String>) -> Option<Cycle> {
        let mut latest = self.cycles.iter().rev();
        let Some(last) = latest.next() else { return Some(Cycle { bytes, content, reversal: false }) };
        if last.bytes == bytes && last.content == content {
            return None;
        }
        let reversal = latest.next().is_some_and(|before| {
            let verdict = |content: &Option<String>| content.is_some();
            let changed =
                verdict(&last.content) != verdict(&content) || (content.is_some() && last.content != content);
            let back = if verdict(&last.content) == verdict(&content) {
                before.content == content
            } else {
                verdict(&before.content) == verdict(&content)
            };
            changed && back
        });
        Some(Cycle { bytes, content, reversal })
    }

    pub(super) fn push(&mut self, cycle: Cycle) {
        self.cycles.push(cycle);
        let needless = self.cycles.len().saturating_sub(CYCLES);
        self.cycles.drain(..needless);
    }

    pub(super) fn flaps(&self) -> bool {
        self.cycles.iter().filter(|cycle| cycle.reversal).count() >= REVERSALS
    }

    /// Whether it would go back and forth with this one.
    pub(super) fn would_flap(&self, bytes: &str, content: Option<&str>) -> bool {
        let mut after = self.clone();
        if let Some(cycle) = self.next_cycle(bytes.to_owned(), content.map(str::to_owned)) {
            after.push(cycle);
        }
        after.flaps()
    }
}
