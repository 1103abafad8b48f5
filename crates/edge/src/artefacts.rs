//! Artefacts beside the configuration, as an edge holds them: checked once more, loaded whole, swapped in one step.
//!
//! What is refused leaves the one before in force. What is not there is not there: whoever looks something up gets `None`, never
//! an empty table.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::diagnostic::{Diagnostic, Severity};
use api::process::Switch;
use api::roles::FeedSettings;
use api::seal::Keyring;
use arc_swap::{ArcSwap, Guard};
use base::time::Timestamp;
use snapshot::kind::{self, Content, Table, Value};
use snapshot::package::{self, Caps, Manifest};

/// How a package comes to an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It follows the one in force.
    Next,
    /// The same, and somebody has allowed it to differ more than it may.
    Forced,
    /// It was in force before and is gone back to, or is loaded into a process that is new.
    Again,
}

/// One artefact in force.
#[derive(Debug)]
pub struct InForce {
    /// What its package says of it.
    pub manifest: Manifest,
    /// What it holds.
    pub content: Content,
}

/// Artefacts in force, by the names of their feeds.
pub type InForceByFeed = BTreeMap<String, Arc<InForce>>;

/// All of this process, by the names of their feeds.
#[derive(Default)]
pub struct Artefacts {
    in_force: ArcSwap<InForceByFeed>,
    /// One change at a time.
    changing: Mutex<()>,
}

impl Artefacts {
    /// The table of this feed, if there is one.
    pub fn table(&self, feed: &str) -> Option<TableInForce> {
        let found = self.in_force.load().get(feed).cloned()?;
        matches!(found.content.value, Value::Table(_)).then_some(TableInForce(found))
    }

    /// All of them, as they are now.
    pub fn in_force(&self) -> Guard<Arc<InForceByFeed>> {
        self.in_force.load()
    }

    /// What artefacts switch off.
    pub fn switches(&self) -> Vec<Switch> {
        let in_force = self.in_force.load();
        let each = in_force.values().filter_map(|artefact| match &artefact.content.value {
            Value::Switches(switches) => Some(switches),
            _ => None,
        });
        each.flatten().cloned().collect()
    }

    /// What is said of each.
    pub fn manifests(&self) -> Vec<Manifest> {
        self.in_force.load().values().map(|artefact| artefact.manifest.clone()).collect()
    }

    /// Reads, verifies and checks a package as if nobody had before, uses everything in it once, and puts it in force.
    pub fn load(
        &self,
        feed: &FeedSettings,
        bytes: &[u8],
        manner: Manner,
        now: Timestamp,
    ) -> Result<(), Vec<Diagnostic>> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = feed.keys.iter().map(String::as_str);
        let keys = Keyring::parse(keys).map_err(|found| vec![error("bad-key", found.to_string())])?;
        let kind = kind::find(&feed.kind).ok_or_else(|| {
            vec![error(
                "unknown-kind",
                format!("{} is no kind of artefact that this version knows", feed.kind),
            )]
        })?;
        let caps = caps(feed, kind.caps());
        let package = package::open(bytes, &keys, now, caps.bytes, manner != Manner::Again)
            .map_err(|found| vec![error(found.code(), found.to_string())])?;
        if package.manifest.name != feed.name || package.manifest.kind != feed.kind {
            let (name, kind) = (&package.manifest.name, &package.manifest.kind);
            let message =
                format!("it is {name} of kind {kind}, and was to be {} of kind {}", feed.name, feed.kind);
            return Err(vec![error("another-feed", message)]);
        }
        let before = self.in_force.load_full();
        let previous = before.get(&feed.name).filter(|_| manner != Manner::Again);
        let previous = previous.map(|old| (old.manifest.generation, &old.content));
        let checked = kind::check_after(&package, previous, caps, manner != Manner::Next, now)?;
        kind.exercise(&checked.content)?;
        let loaded = InForce { manifest: package.manifest, content: checked.content };
        let mut after = BTreeMap::clone(&before);
        after.insert(feed.name.clone(), Arc::new(loaded));
        self.in_force.store(Arc::new(after));
        Ok(())
    }

    /// Puts content in force that came in no package.
    #[cfg(test)]
    pub fn put(&self, manifest: Manifest, content: Content) {
        let mut after = BTreeMap::clone(&self.in_force.load_full());
        after.insert(manifest.name.clone(), Arc::new(InForce { manifest, content }));
        self.in_force.store(Arc::new(after));
    }

    /// Nothing of this feed is in force any more.
    pub fn withdraw(&self, feed: &str) {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut after = BTreeMap::clone(&self.in_force.load_full());
        after.remove(feed);
        self.in_force.store(Arc::new(after));
    }
}

/// A table that stays as it is for as long as somebody holds it.
#[derive(Clone)]
pub struct TableInForce(Arc<InForce>);

impl TableInForce {
    /// The table; `None` cannot be, because only tables are handed out.
    pub fn get(&self) -> Option<&Table> {
        match &self.0.content.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Generation of its package.
    pub fn generation(&self) -> u64 {
        self.0.manifest.generation
    }
}

/// What the configuration allows, else what the kind does.
pub fn caps(feed: &FeedSettings, kind: Caps) -> Caps {
    #[cfg(feature = "faults")]
    if crate::fault::without("artefact-caps") {
        return kind;
    }
    Caps {
        bytes: feed.max_bytes.unwrap_or(kind.bytes),
        entries: feed.max_entries.unwrap_or(kind.entries),
        memory: kind.memory,
    }
}

fn error(code: &str, message: String) -> Diagnostic {
    Diagnostic { severity: Severity::Error, code: code.to_owned(), message, location: None, hint: None }
}

#[cfg(test)]
mod tests {
    use api::roles::FeedSource;
    use api::seal::SigningKey;
    use snapshot::package::Draft;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn key() -> SigningKey {
        SigningKey::from_seed(&[3; 32]).unwrap()
    }

    fn feed(name: &str) -> FeedSettings {
        FeedSettings {
            name: name.to_owned(),
            kind: "table".to_owned(),
            source: FeedSource::File { path: "unused".into() },
            every_seconds: 60,
            keys: vec![key().public().to_string()],
            max_entries: Some(100),
            max_bytes: None,
        }
    }

    fn made(name: &str, generation: u64, rows: usize) -> Vec<u8> {
        let kind = kind::find("table").unwrap();
        let rows: String = (0..rows).map(|row| format!("row-{row}\t{generation}\n")).collect();
        let text = format!("#columns key:text generation:number\n{rows}");
        let content = kind.read(text.as_bytes(), NOW).unwrap();
        let draft = Draft {
            name: name.to_owned(),
            generation,
            created: NOW,
            expires: Some(Timestamp(2_000_000)),
            source: String::new(),
            query_hash: None,
        };
        package::pack(draft, kind::describe(kind, &content), text.as_bytes(), &key()).unwrap()
    }

    #[test]
    fn what_is_refused_leaves_the_one_before_in_force() {
        let artefacts = Artefacts::default();
        let feed = feed("features");
        let value = || Some(artefacts.table("features")?.get()?.number("row-1", "generation"));
        let load = |bytes: &[u8], manner| {
            let done = artefacts.load(&feed, bytes, manner, NOW);
            done.map_err(|found| found[0].code.clone()).err()
        };
        assert_eq!(value(), None);
        assert_eq!(load(&made("features", 5, 60), Manner::Next), None);
        assert_eq!(value(), Some(Some(5.0)));
        for (bytes, manner, expected) in [
            (made("features", 4, 60), Manner::Next, "not-newer"),
            (made("features", 6, 101), Manner::Next, "too-many-entries"),
            (made("features", 6, 101), Manner::Forced, "too-many-entries"),
            (made("features", 6, 40), Manner::Next, "shrinks-too-much"),
            (made("features", 6, 0), Manner::Forced, "empty"),
            (made("others", 6, 60), Manner::Next, "another-feed"),
            (made("features", 6, 60)[..500].to_vec(), Manner::Next, "damaged"),
        ] {
            assert_eq!(load(&bytes, manner).as_deref(), Some(expected));
            assert_eq!(value(), Some(Some(5.0)), "{expected}");
        }
        let held = artefacts.table("features").unwrap();
        assert_eq!(load(&made("features", 6, 40), Manner::Forced), None);
        assert_eq!((held.generation(), value()), (5, Some(Some(6.0))));
        assert_eq!(load(&made("features", 5, 60), Manner::Again), None);
        assert_eq!(value(), Some(Some(5.0)));
        artefacts.withdraw("features");
        assert_eq!(value(), None);
    }
}
