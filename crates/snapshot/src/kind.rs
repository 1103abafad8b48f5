//! The kinds of artefacts: what each may hold, how far one may differ from the one before, and what is done when it fails.
//!
//! A kind is one file below this one and a line in `KINDS`. Everybody who takes or makes an artefact (maker, feeder, taster, edge)
//! calls `check` with the same kind, so there is one answer to what is good.

mod certificates;
mod geoip;
mod kill_switches;
mod list;
pub mod site_config;
mod table;

use std::collections::BTreeSet;
use std::sync::Arc;

use api::diagnostic::{Diagnostic, Severity};
use api::process::Switch;
use base::time::Timestamp;

pub use table::{Column, ColumnType, Table};

use crate::geo::Geography;
use crate::lists::NamedList;
use crate::package::{Caps, Described, Package};

/// All kinds.
pub const KINDS: &[&dyn Kind] = &[
    &table::TableKind,
    &kill_switches::KillSwitches,
    &certificates::Certificates,
    &list::IP,
    &list::HOSTNAME,
    &list::ASN,
    &list::REDIRECT,
    &geoip::GeoIp,
    &site_config::SiteConfig,
];

/// The kind of this name.
pub fn find(name: &str) -> Option<&'static dyn Kind> {
    KINDS.iter().find(|kind| kind.name() == name).copied()
}

/// What a kind of artefact is.
pub trait Kind: Sync {
    /// As written in manifests and configurations.
    fn name(&self) -> &'static str;
    /// Version of its schema that is written.
    fn schema(&self) -> u32;
    /// Versions of the reader that can read what is written.
    fn consumers(&self) -> (u32, u32);
    /// The most it may hold, unless a configuration allows less or more.
    fn caps(&self) -> Caps;
    /// What becomes of requests while there is none, or it was taken back.
    fn on_failure(&self) -> OnFailure;
    /// Reads a content whole, or says everything that is wrong with it.
    fn read(&self, payload: &[u8], now: Timestamp) -> Result<Content, Vec<Diagnostic>>;
    /// Uses everything in it once, as requests will: what would fail later fails in the taster.
    fn exercise(&self, content: &Content) -> Result<(), Vec<Diagnostic>>;
}

/// What becomes of requests while an artefact is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The last good one stays in force.
    LastGood,
    /// What would be told from it is unknown, which is neither zero nor false.
    Unknown,
}

/// A content as its kind has read it.
#[derive(Clone, Debug)]
pub struct Content {
    /// What can be counted and compared; the first is what the manifest counts.
    pub classes: Vec<Class>,
    /// How its numbers are distributed, for kinds that have any.
    pub spreads: Vec<Spread>,
    /// Memory it takes in an edge, in bytes.
    pub memory: u64,
    /// What it is for.
    pub value: Value,
}

impl Content {
    /// Before the first one.
    fn nothing() -> Self {
        Self { classes: Vec::new(), spreads: Vec::new(), memory: 0, value: Value::Switches(Vec::new()) }
    }
}

/// A set of things of one sort in an artefact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// What they are, in the plural: `hosts`, `rows`.
    pub name: &'static str,
    /// Their keys.
    pub keys: BTreeSet<String>,
    /// Whether there must be one at least, and only so many may go at once.
    pub needed: bool,
}

/// How the numbers of a column are distributed.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// The column.
    pub name: String,
    /// How many numbers there are.
    pub count: usize,
    /// Whether any two of them differ.
    pub varies: bool,
    /// The largest one, without its sign.
    pub largest: f64,
}

/// What an artefact is for.
#[derive(Clone, Debug)]
pub enum Value {
    /// Rows that modules look things up in.
    Table(Table),
    /// Modules that are off.
    Switches(Vec<Switch>),
    /// Certificates and keys, by name.
    Certificates(Vec<(String, String)>),
    /// Where addresses are.
    Geography(Arc<Geography>),
    /// A list that rules look things up in.
    List(Arc<NamedList>),
    /// A configuration; it is compiled and loaded by itself.
    SiteConfig,
}

/// Share of a class, in per cent, that one change may take away. Of a class with fewer than twenty, one may go.
pub const MAX_REMOVED_PER_CENT: usize = 5;
/// How many times as many as before there may be.
pub const MAX_GROWTH: usize = 10;
/// Below so many, growth is no concern.
const SMALL: usize = 100;
/// Among so many equal numbers it is no accident that they are equal.
const FEW: usize = 20;
/// How many times as large as before a column's largest number may be.
const MAX_STRETCH: f64 = 10.0;
/// Keys named in a finding.
const NAMED: usize = 5;

/// How one content differs from the one before, for one class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which class.
    pub class: &'static str,
    /// How many there were.
    pub before: usize,
    /// How many there are.
    pub after: usize,
    /// Keys that are gone, in order.
    pub removed: Vec<String>,
    /// How many are new.
    pub added: usize,
    /// Whether only so many may go at once.
    pub needed: bool,
}

/// How a content differs from the one before, class by class.
pub fn difference(before: &[Class], after: &[Class]) -> Vec<Difference> {
    let of = |class: &Class| {
        let none = BTreeSet::new();
        let now = after.iter().find(|other| other.name == class.name).map_or(&none, |other| &other.keys);
        Difference {
            class: class.name,
            before: class.keys.len(),
            after: now.len(),
            removed: class.keys.difference(now).cloned().collect(),
            added: now.difference(&class.keys).count(),
            needed: class.needed,
        }
    };
    before.iter().map(of).collect()
}

/// What of a difference is more than one change may do; nothing when all of it is within its budget.
pub fn over_budget(differences: &[Difference]) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    for found in differences {
        let Difference { class, before, after, removed, needed, .. } = found;
        let allowed = (before * MAX_REMOVED_PER_CENT / 100).max(1);
        if *needed && *before > 0 && *after == 0 {
            let message = format!("it takes away all {class}: {}", named(removed));
            findings.push(error("last-withdrawn", message, FORCE));
        } else if *needed && removed.len() > allowed {
            let message = format!(
                "it takes away {} of {before} {class}, and one change may take away {allowed}: {}",
                removed.len(),
                named(removed)
            );
            findings.push(error("shrinks-too-much", message, FORCE));
        }
        if *after > SMALL && *after > before.max(&1) * MAX_GROWTH {
            let message =
                format!("it has {after} {class} after {before}: more than {MAX_GROWTH} times as many");
            findings.push(error("grows-too-much", message, FORCE));
        }
    }
    findings
}

/// What of the numbers has lost its meaning since the one before: a score that is the same for everything, or of another order
/// of magnitude. A column that is new, or gone, is judged elsewhere.
pub fn distorted(before: &[Spread], after: &[Spread]) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    for now in after {
        let Some(then) = before.iter().find(|spread| spread.name == now.name) else { continue };
        if now.count >= FEW && then.varies && !now.varies {
            let message =
                format!("all {} numbers of {} are the same, and they were not before", now.count, now.name);
            findings.push(error("one-value", message, FORCE));
        }
        if then.largest > 0.0 && now.largest > then.largest * MAX_STRETCH {
            let message = format!(
                "the largest number of {} is {} after {}: more than {MAX_STRETCH} times as much",
                now.name, now.largest, then.largest
            );
            findings.push(error("out-of-range", message, FORCE));
        }
    }
    findings
}

const FORCE: &str = "if that is meant, force it and confirm it within ten minutes (`rempart reload --force`, `rempart feed take --force`)";

fn named(keys: &[String]) -> String {
    let shown = keys.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if keys.len() > NAMED { format!("{shown} and {} more", keys.len() - NAMED) } else { shown }
}

/// A package that passed every check.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What it holds.
    pub content: Content,
    /// How it differs from the one before; empty when there is none.
    pub differences: Vec<Difference>,
}

/// Checks a package, whose seal and hashes have been verified, as everybody has to before it comes into force. `caps` are
/// what a configuration allows, `previous` is what is in force. With `force` a difference may be as large as it likes;
/// everything else holds all the same.
pub fn check(
    package: &Package,
    previous: Option<&Package>,
    caps: Caps,
    force: bool,
    now: Timestamp,
) -> Result<Checked, Vec<Diagnostic>> {
    let Some(previous) = previous else { return check_after(package, None, caps, force, now) };
    // As of when it was made: that something in it has expired since must not keep out what replaces it.
    let kind = find(&previous.manifest.kind).filter(|kind| kind.name() == package.manifest.kind);
    let read = kind.map(|kind| kind.read(&previous.payload, previous.manifest.created));
    let before = match read {
        Some(Ok(content)) => content,
        _ if force || find(&package.manifest.kind).is_none() => Content::nothing(),
        _ => {
            let message =
                "what is in force is of another kind or cannot be read, so nobody can say what this changes";
            return Err(vec![error("incomparable", message.to_owned(), FORCE)]);
        }
    };
    check_after(package, Some((previous.manifest.generation, &before)), caps, force, now)
}

/// The same for whoever holds not the previous package, but its generation and what was read from it.
pub fn check_after(
    package: &Package,
    previous: Option<(u64, &Content)>,
    caps: Caps,
    force: bool,
    now: Timestamp,
) -> Result<Checked, Vec<Diagnostic>> {
    let manifest = &package.manifest;
    let Some(kind) = find(&manifest.kind) else {
        let message = format!("{} is no kind of artefact that this version knows", manifest.kind);
        return Err(vec![error("unknown-kind", message, "upgrade Rempart, or name another kind")]);
    };
    let (from, to) = manifest.consumers;
    if !(from..=to).contains(&kind.schema()) {
        let message =
            format!("it is for readers of version {from} to {to}, and this one has {}", kind.schema());
        return Err(vec![error(
            "unknown-schema",
            message,
            "upgrade Rempart, or have it made for this version",
        )]);
    }
    if let Some((before, _)) = previous
        && before >= manifest.generation
    {
        let message = format!("it is generation {}, and {before} is in force", manifest.generation);
        return Err(vec![error("not-newer", message, "give it a higher generation")]);
    }
    // What is too much by its own account is not even read.
    within(caps, manifest.bytes, manifest.entries, manifest.memory)?;
    let content = read(kind, &package.payload, caps, now)?;
    agree(package, kind, &content)?;
    let Some((_, before)) = previous else { return Ok(Checked { content, differences: Vec::new() }) };
    let differences = difference(&before.classes, &content.classes);
    let mut findings = over_budget(&differences);
    findings.extend(distorted(&before.spreads, &content.spreads));
    if force || findings.is_empty() { Ok(Checked { content, differences }) } else { Err(findings) }
}

/// What the manifest counts must be what the content holds.
fn agree(package: &Package, kind: &dyn Kind, content: &Content) -> Result<(), Vec<Diagnostic>> {
    let described = describe(kind, content);
    let manifest = &package.manifest;
    let wrong = if described.entries != manifest.entries {
        format!("the manifest counts {} entries, and there are {}", manifest.entries, described.entries)
    } else if described.keys_digest != manifest.keys_digest {
        "the manifest was made of other keys than there are".to_owned()
    } else {
        return Ok(());
    };
    Err(vec![error("manifest-disagrees", wrong, "have the package made again")])
}

/// Reads a content, and refuses one that is empty or too much.
pub fn read(kind: &dyn Kind, payload: &[u8], caps: Caps, now: Timestamp) -> Result<Content, Vec<Diagnostic>> {
    within(caps, payload.len() as u64, 0, 0)?;
    let content = kind.read(payload, now)?;
    within(caps, payload.len() as u64, entries(&content), content.memory)?;
    let empty = content.classes.iter().filter(|class| class.needed && class.keys.is_empty());
    let finding = |class: &Class| {
        let message = format!("it has no {}; an empty one is never taken to mean all or none", class.name);
        error("empty", message, "see why its maker found nothing")
    };
    let findings: Vec<_> = empty.map(finding).collect();
    if findings.is_empty() { Ok(content) } else { Err(findings) }
}

/// Over a cap is refused, never cut down.
fn within(caps: Caps, bytes: u64, entries: u64, memory: u64) -> Result<(), Vec<Diagnostic>> {
    let over = |code: &str, what: &str, found: u64, limit: u64| {
        let message = format!("it has {found} {what}, and {limit} are allowed");
        let hint = "nothing is cut off: have less made, or raise the limit of the feed";
        (found > limit).then(|| error(code, message, hint))
    };
    let findings: Vec<_> = [
        over("too-large", "bytes", bytes, caps.bytes),
        over("too-many-entries", "entries", entries, caps.entries),
        over("too-much-memory", "bytes in memory", memory, caps.memory),
    ]
    .into_iter()
    .flatten()
    .collect();
    if findings.is_empty() { Ok(()) } else { Err(findings) }
}

fn entries(content: &Content) -> u64 {
    content.classes.first().map_or(0, |class| class.keys.len() as u64)
}

/// What a manifest says of a content.
pub fn describe(kind: &dyn Kind, content: &Content) -> Described {
    let mut hasher = blake3::Hasher::new();
    for key in content.classes.first().iter().flat_map(|class| &class.keys) {
        hasher.update(&(key.len() as u64).to_le_bytes()).update(key.as_bytes());
    }
    Described {
        kind: kind.name(),
        schema: kind.schema(),
        consumers: kind.consumers(),
        entries: entries(content),
        keys_digest: hasher.finalize().to_string(),
        memory: content.memory,
    }
}

fn error(code: &str, message: String, hint: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: code.to_owned(),
        message,
        location: None,
        hint: Some(hint.to_owned()),
    }
}

#[cfg(test)]
mod tests;
