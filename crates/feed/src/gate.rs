//! What becomes of what a feed's source holds: offered, refused or left alone. Decides only; others fetch, load and keep time.
//!
//! Whatever is refused, what is in force stays. The same cause again is the same incident, counted and not told again. A feed
//! that goes back and forth is frozen at what is in force until somebody looks.

mod memory;

use std::sync::Arc;
use std::time::Duration;

use api::diagnostic::{Diagnostic, Severity as Level};
use api::roles::FeedSettings;
use api::seal::Keyring;
use base::happening::{Component, Happening, Severity, What};
use base::time::Timestamp;
use snapshot::kind::{self, Content, Kind};
use snapshot::package::{self, Caps, Package};

use memory::TurnedDown;
pub use memory::{Frozen, Memory, Refusal};

/// Looks in a row that find nothing before somebody is told.
const MISSES: u32 = 3;
/// An offer that nobody has answered for so long is not waited for any more; no taster may take longer.
const ANSWER: Duration = Duration::from_secs(3700);
/// Parts of a package's life that are left when somebody is told of its end.
const LEFT: [u64; 3] = [2, 4, 10];
/// Times left when somebody is told as well, of packages that live longer.
const TIMES_LEFT: [Duration; 2] = [Duration::from_secs(7 * 86_400), Duration::from_secs(86_400)];

/// A feed with its settings understood.
pub struct Feed {
    name: String,
    kind: &'static dyn Kind,
    keys: Keyring,
    caps: Caps,
}

impl Feed {
    /// Of settings that a configuration has been compiled to; says what is wrong with any others.
    pub fn new(settings: &FeedSettings) -> Result<Self, String> {
        let kind = kind::find(&settings.kind)
            .ok_or_else(|| format!("{} is no kind of artefact that this version knows", settings.kind))?;
        let keys = settings.keys.iter().map(String::as_str);
        let keys = Keyring::parse(keys).map_err(|error| error.to_string())?;
        let of_kind = kind.caps();
        let caps = Caps {
            bytes: settings.max_bytes.unwrap_or(of_kind.bytes),
            entries: settings.max_entries.unwrap_or(of_kind.entries),
            memory: of_kind.memory,
        };
        Ok(Self { name: settings.name.clone(), kind, keys, caps })
    }

    /// Largest package that can be of this feed, in bytes: content that cannot be compressed, and what is around it.
    pub fn limit(&self) -> u64 {
        const AROUND: u64 = 64 << 10;
        (self.caps.bytes + self.caps.bytes / 64 + AROUND).min(package::MAX_BYTES)
    }

    /// Verifies a package that was in force before, whose end may have come since.
    pub fn stored(&self, bytes: &[u8], now: Timestamp) -> Result<InForce, String> {
        let package = package::open(bytes, &self.keys, now, self.caps.bytes, false);
        let package = package.map_err(|error| error.to_string())?;
        // As of when it was made, as `kind::check` reads what it compares with.
        let content = self.kind.read(&package.payload, package.manifest.created);
        content.map(|content| InForce::new(&package, content)).map_err(|findings| first(&findings).1)
    }
}

/// What must be known of the package in force.
#[derive(Clone, Debug)]
pub struct InForce {
    /// Its generation.
    pub generation: u64,
    /// Hash of its content.
    hash: String,
    created: Timestamp,
    expires: Option<Timestamp>,
    content: Arc<Content>,
}

impl InForce {
    fn new(package: &Package, content: Content) -> Self {
        let manifest = &package.manifest;
        Self {
            generation: manifest.generation,
            hash: manifest.content.clone(),
            created: manifest.created,
            expires: manifest.expires,
            content: Arc::new(content),
        }
    }
}

/// A package that passed every check of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its generation.
    pub generation: u64,
    /// It differs more than it may, and somebody forced it: without a confirmation it is taken back.
    pub forced: bool,
}

struct Pending {
    bytes: String,
    since: Timestamp,
    offered: InForce,
}

enum Judged {
    /// What is in force already.
    Current(String),
    Refused(Vec<Diagnostic>, Option<u64>),
    Good(InForce, bool),
}

/// The gate of one feed.
pub struct Gate {
    feed: Feed,
    in_force: Option<InForce>,
    memory: Memory,
    pending: Option<Pending>,
    force: bool,
    told: Vec<Happening>,
}

impl Gate {
    /// With what was remembered, and the highest generation that ever was in force.
    pub fn new(feed: Feed, in_force: Option<InForce>, memory: Memory, highest: u64) -> Self {
        let mut memory = memory.bounded();
        let known = in_force.as_ref().map_or(0, |in_force| in_force.generation);
        memory.highest = memory.highest.max(highest).max(known);
        Self { feed, in_force, memory, pending: None, force: false, told: Vec::new() }
    }

    /// The feed.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// What must survive this process.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What somebody should be told, once.
    pub fn take_happenings(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.told)
    }

    /// Whether the source's content is wanted even if it has not changed: refusals may end with time or other settings.
    pub fn wants_all(&self) -> bool {
        self.force || self.in_force.is_none() || !self.memory.refusals.is_empty()
    }

    /// Whether an offer has not been answered yet.
    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// The source could be read and holds this. Answers what shall be offered.
    pub fn look(&mut self, bytes: &[u8], now: Timestamp) -> Option<Offer> {
        self.is_there(now);
        if self.waits(now) {
            return None;
        }
        if let Some(frozen) = &mut self.memory.frozen {
            frozen.looks = frozen.looks.saturating_add(1);
            return None;
        }
        let force = std::mem::take(&mut self.force);
        let hash = blake3::hash(bytes).to_string();
        match self.judge(bytes, &hash, force, now) {
            Judged::Current(content) => {
                self.cycle(hash, Some(content), now);
                self.ends_well(now);
                None
            }
            Judged::Refused(findings, generation) => {
                self.cycle(hash, None, now);
                self.refuse(&findings, generation, now);
                None
            }
            Judged::Good(offered, forced) => {
                if self.memory.would_flap(&hash, Some(&offered.hash)) {
                    self.cycle(hash, Some(offered.hash), now);
                    return None;
                }
                let generation = offered.generation;
                self.pending = Some(Pending { bytes: hash, since: now, offered });
                Some(Offer { generation, forced })
            }
        }
    }

    fn judge(&self, bytes: &[u8], hash: &str, force: bool, now: Timestamp) -> Judged {
        let Feed { name, kind, keys, caps } = &self.feed;
        let refused = |code: &str, message: String, generation| {
            Judged::Refused(vec![finding(code, message)], generation)
        };
        let package = match package::open(bytes, keys, now, caps.bytes, true) {
            Ok(package) => package,
            // What it says of itself counts for nothing here but helps whoever looks for it.
            Err(error) => return refused(error.code(), error.to_string(), generation_of(bytes)),
        };
        let manifest = &package.manifest;
        let generation = Some(manifest.generation);
        if manifest.name != *name || manifest.kind != kind.name() {
            let message = format!(
                "it is {} of kind {}, and was to be {name} of kind {}",
                manifest.name,
                manifest.kind,
                kind.name()
            );
            return refused("another-feed", message, generation);
        }
        let same = |it: &InForce| (it.generation, &it.hash) == (manifest.generation, &manifest.content);
        if self.in_force.as_ref().is_some_and(same) {
            return Judged::Current(manifest.content.clone());
        }
        if let Some(before) = self.memory.turned_down.as_ref().filter(|before| before.bytes == hash && !force)
        {
            return refused(&before.cause, before.message.clone(), generation);
        }
        if manifest.generation <= self.memory.highest {
            let message = format!(
                "it is generation {}, and {} has been there",
                manifest.generation, self.memory.highest
            );
            return refused("not-newer", message, generation);
        }
        let previous = self.in_force.as_ref().map(|it| (it.generation, &*it.content));
        let check = |force| kind::check_after(&package, previous, *caps, force, now);
        let (checked, forced) = match check(false) {
            Err(_) if force => (check(true), true),
            checked => (checked, false),
        };
        match checked {
            Ok(checked) => Judged::Good(InForce::new(&package, checked.content), forced),
            Err(findings) => Judged::Refused(findings, generation),
        }
    }

    /// The source is there, and as it was.
    pub fn unchanged(&mut self, now: Timestamp) {
        self.is_there(now);
    }

    /// The source could not be read. Nothing is concluded from that but that it could not be read.
    pub fn missing(&mut self, reason: &str, now: Timestamp) {
        self.memory.misses = self.memory.misses.saturating_add(1);
        if self.memory.misses >= MISSES {
            let found =
                finding("source-missing", format!("its source could not be read {MISSES} times: {reason}"));
            self.refuse(&[found], None, now);
        }
    }

    fn is_there(&mut self, now: Timestamp) {
        if std::mem::take(&mut self.memory.misses) >= MISSES {
            self.memory.refusals.retain(|refusal| refusal.cause != "source-missing");
            if self.memory.refusals.is_empty() {
                self.tell_good_again(now);
            }
        }
    }

    /// What came of an offer: in force when nothing was found.
    pub fn offered(&mut self, findings: &[Diagnostic], now: Timestamp) {
        let Some(Pending { bytes, offered, .. }) = self.pending.take() else { return };
        let generation = offered.generation;
        if findings.is_empty() {
            self.memory.highest = self.memory.highest.max(generation);
            (self.memory.turned_down, self.memory.expiry_told) = (None, 0);
            // Who put it in force tells of it, which ends the incidents.
            self.memory.refusals.clear();
            self.cycle(bytes, Some(offered.hash.clone()), now);
            self.in_force = Some(offered);
        } else {
            let (cause, message) = first(findings);
            self.memory.turned_down = Some(TurnedDown { bytes: bytes.clone(), cause, message });
            self.cycle(bytes, None, now);
            self.refuse(findings, Some(generation), now);
        }
    }

    /// Something else is in force than was: one was taken back, which is a reversal of this feed.
    pub fn changed(&mut self, in_force: Option<InForce>, now: Timestamp) {
        let generation = |it: &Option<InForce>| it.as_ref().map(|it| it.generation);
        let (before, after) = (generation(&self.in_force), generation(&in_force));
        self.memory.highest = self.memory.highest.max(after.unwrap_or(0));
        (self.in_force, self.memory.expiry_told) = (in_force, 0);
        if after < before {
            if let Some(last) = self.memory.cycles.last_mut() {
                last.reversal = true;
            }
            self.freeze_if_flapping(now);
        }
    }

    /// Takes what comes next even if it differs more than it may, and even if it was turned down before. Says why not when it
    /// is frozen.
    pub fn take(&mut self, force: bool) -> Result<(), String> {
        if let Some(frozen) = &self.memory.frozen {
            let (name, cause) = (&self.feed.name, &frozen.cause);
            return Err(format!("{name} is frozen ({cause}); `rempart feed thaw {name}` lets it go on"));
        }
        self.force = force;
        self.memory.turned_down = None;
        Ok(())
    }

    /// Lets a frozen feed go on.
    pub fn thaw(&mut self, now: Timestamp) -> Result<(), String> {
        if self.memory.frozen.take().is_none() {
            return Err(format!("{} is not frozen", self.feed.name));
        }
        self.memory.cycles.clear();
        self.memory.turned_down = None;
        let message = format!("{} takes new data again", self.feed.name);
        self.tell(What::ArtefactThawed, Severity::Info, "thawed", message, None, now);
        Ok(())
    }

    /// Time has passed: does what is in force come to its end?
    pub fn tick(&mut self, now: Timestamp) {
        let Some((in_force, expires)) = self.in_force.as_ref().and_then(|it| Some((it, it.expires?))) else {
            return;
        };
        let life = expires.0.saturating_sub(in_force.created.0);
        let left = expires.0.saturating_sub(now.0);
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let times = TIMES_LEFT.into_iter().map(micros).filter(|time| *time < life);
        let points = LEFT.iter().map(|part| life / part).chain(times).chain([0]);
        let passed = u8::try_from(points.filter(|point| left <= *point).count()).unwrap_or(u8::MAX);
        if passed <= self.memory.expiry_told {
            return;
        }
        self.memory.expiry_told = passed;
        let (name, generation) = (&self.feed.name, in_force.generation);
        let message = if left == 0 {
            format!(
                "generation {generation} of {name} has expired and stays in force, for want of a newer one"
            )
        } else {
            format!("generation {generation} of {name} expires in {}, and no newer one has come", spelt(left))
        };
        let severity = if passed == 1 { Severity::Info } else { Severity::Warning };
        self.tell(What::ArtefactExpiring, severity, "expiring", message, Some(generation), now);
    }

    fn waits(&mut self, now: Timestamp) -> bool {
        if self.pending.as_ref().is_some_and(|pending| now > pending.since.plus(ANSWER)) {
            self.pending = None;
        }
        self.pending.is_some()
    }

    /// Notes what was found, unless it is what was found the last time.
    fn cycle(&mut self, bytes: String, content: Option<String>, now: Timestamp) {
        if let Some(cycle) = self.memory.next_cycle(bytes, content) {
            self.memory.push(cycle);
            self.freeze_if_flapping(now);
        }
    }

    fn freeze_if_flapping(&mut self, now: Timestamp) {
        if self.memory.frozen.is_some() || !self.memory.flaps() {
            return;
        }
        let generation = self.in_force.as_ref().map(|it| it.generation);
        self.memory.frozen =
            Some(Frozen { since: now, generation, cause: "it went back and forth".to_owned(), looks: 0 });
        let name = &self.feed.name;
        let at =
            generation.map_or("with nothing in force".to_owned(), |number| format!("at generation {number}"));
        let message = format!(
            "{name} went back and forth and is frozen {at}; see why, then let it go on: rempart feed thaw {name}"
        );
        self.tell(What::ArtefactFrozen, Severity::Warning, "flapping", message, generation, now);
    }

    fn refuse(&mut self, findings: &[Diagnostic], generation: Option<u64>, now: Timestamp) {
        let (cause, message) = first(findings);
        let Some(message) = self.memory.refuse(&cause, message, generation, now) else { return };
        let which =
            generation.map_or("what its source holds".to_owned(), |number| format!("generation {number}"));
        let stays = self.in_force.as_ref().map_or("nothing is in force".to_owned(), |it| {
            format!("generation {} stays in force", it.generation)
        });
        let message = format!("{}: {which} is refused: {message}; {stays}", self.feed.name);
        self.tell(What::ArtefactRefused, Severity::Warning, &cause, message, generation, now);
    }

    /// The source holds what is in force: whatever was wrong is over.
    fn ends_well(&mut self, now: Timestamp) {
        if !self.memory.refusals.is_empty() {
            self.memory.refusals.clear();
            self.tell_good_again(now);
        }
    }

    fn tell_good_again(&mut self, now: Timestamp) {
        let generation = self.in_force.as_ref().map(|it| it.generation);
        let message = format!("the source of {} is good again", self.feed.name);
        self.tell(What::ArtefactActivated, Severity::Info, "good-again", message, generation, now);
    }

    fn tell(
        &mut self,
        what: What,
        severity: Severity,
        cause: &str,
        message: String,
        generation: Option<u64>,
        now: Timestamp,
    ) {
        let happening = Happening::new(now, what, severity, Component::Feeds, cause, message);
        let happening = happening.about(&*self.feed.name);
        self.told.push(match generation {
            Some(number) => happening.with_generation(number),
            None => happening,
        });
    }
}

fn generation_of(bytes: &[u8]) -> Option<u64> {
    package::peek(bytes).ok().map(|manifest| manifest.generation)
}

/// Code and message of the first, which stands for the others.
fn first(findings: &[Diagnostic]) -> (String, String) {
    let more = findings.len().saturating_sub(1);
    match findings.first() {
        None => ("unknown".to_owned(), "no reason was given".to_owned()),
        Some(found) if more > 0 => (found.code.clone(), format!("{} (and {more} more)", found.message)),
        Some(found) => (found.code.clone(), found.message.clone()),
    }
}

fn finding(code: &str, message: String) -> Diagnostic {
    Diagnostic { severity: Level::Error, code: code.to_owned(), message, location: None, hint: None }
}

/// A time in microseconds for people.
fn spelt(micros: u64) -> String {
    let seconds = micros / 1_000_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} minutes", seconds / 60),
        7_200..172_800 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) mod tests;
