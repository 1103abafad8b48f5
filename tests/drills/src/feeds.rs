//! Data files of a drill: their makers with checks and without, the feeds that take them, and what becomes of them.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::admin::{Answer, FeedRefusal, FeedStatus, Request};
use api::seal::SigningKey;
use base::happening::{Happening, What};
use base::time::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use snapshot::kind::{self, Kind};
use snapshot::package::{self, Described, Draft};

use crate::DrillError;
use crate::cluster::{Cluster, wait_for};

/// Name of the first column's line in every table of a drill.
pub const COLUMNS: &str = "name:text weight:number";
/// How long one data file may take to be judged.
const JUDGED: Duration = Duration::from_secs(30);
/// Operational events that are asked for.
const EVENTS: &str = "10000";

/// A feed of a drill: its source is a file in the drill's folder.
#[derive(Debug)]
pub struct Feed {
    name: &'static str,
    key: SigningKey,
    public: String,
    caps: &'static str,
}

/// What becomes of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It came into force.
    InForce,
    /// It was refused, for this cause.
    Refused(String),
    /// Its feed takes nothing any more.
    Frozen,
    /// Nobody has said anything about it in time.
    Nothing,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InForce => f.write_str("taken"),
            Self::Refused(cause) => write!(f, "refused as {cause}"),
            Self::Frozen => f.write_str("not looked at: frozen"),
            Self::Nothing => f.write_str("not judged"),
        }
    }
}

/// That, and how long it took from the moment it was to be looked at.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What became of it.
    pub fate: Fate,
    /// How long it took.
    pub took: Duration,
}

/// What a run of the maker came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The codes of what was found wrong; none when a package was made.
    pub codes: Vec<String>,
    /// Whether a package was made.
    pub made: bool,
    /// How long it took.
    pub took: Duration,
}

impl Feed {
    /// One whose packages are signed with a key made for it. `caps` are further lines of its configuration.
    pub fn new(cluster: &Cluster, name: &'static str, caps: &'static str) -> Result<Self, DrillError> {
        let file = cluster.path(&format!("{name}.key"));
        let failed = || DrillError::system("a key could not be made");
        let mut command = cluster.command(&["feed", "keygen"]);
        let output = command.arg(&file).output().map_err(failed())?;
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let public = said.get("public").and_then(Value::as_str).map(str::to_owned);
        let public = public.ok_or_else(|| DrillError::Unexpected("keygen has printed no key".to_owned()))?;
        let key = SigningKey::parse(&fs::read_to_string(&file).map_err(failed())?);
        let key = key.map_err(|error| DrillError::Unexpected(error.to_string()))?;
        Ok(Self { name, key, public, caps })
    }

    /// What stands of it in a configuration. Every five minutes, as then; a drill asks for looks in between.
    pub fn config(&self, cluster: &Cluster) -> String {
        let Self { name, public, caps, .. } = self;
        let source = self.source(cluster);
        let source = source.display();
        format!(
            "\n[[feeds]]\nname = \"{name}\"\nsource = \"{source}\"\nevery = \"5m\"\nkeys = [\"{public}\"]\n{caps}\n"
        )
    }

    /// The file its packages are put into.
    pub fn source(&self, cluster: &Cluster) -> PathBuf {
        cluster.path(&format!("{}.package", self.name))
    }

    /// What Rempart knows of it.
    pub fn status(&self, cluster: &Cluster) -> Option<FeedStatus> {
        match cluster.ask(&Request::Feeds) {
            Ok(Answer::Feeds { feeds }) => feeds.into_iter().find(|feed| feed.name == self.name),
            _ => None,
        }
    }

    /// The generation in force and the hash of its content, as the edge that serves tells it.
    pub fn held(&self, cluster: &Cluster) -> Option<(u64, String)> {
        let artefacts = cluster.status()?.artefacts;
        let artefact = artefacts.into_iter().find(|artefact| artefact.feed == self.name)?;
        Some((artefact.generation, artefact.content?))
    }

    /// Has its source looked at now; the reason when that is refused.
    pub fn take(&self, cluster: &Cluster) -> Result<(), String> {
        self.order(cluster, false)
    }

    /// Lets it go on when it is frozen.
    pub fn thaw(&self, cluster: &Cluster) -> Result<(), String> {
        self.order(cluster, true)
    }

    fn order(&self, cluster: &Cluster, thaw: bool) -> Result<(), String> {
        match cluster.ask(&Request::Feed { name: self.name.to_owned(), thaw, force: false }) {
            Ok(Answer::Done) => Ok(()),
            Ok(Answer::Refused { message }) => Err(message),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Puts a package where its source is, has it looked at, and waits for what becomes of it.
    pub fn offer(&self, cluster: &Cluster, package: &[u8]) -> Result<Judged, DrillError> {
        let before = self.refusals(cluster);
        self.put(cluster, package)?;
        let wanted = package::peek(package).ok().map(|manifest| manifest.generation);
        let began = Instant::now();
        // A frozen one is not looked at, and says so.
        let refused = self.take(cluster).err();
        let mut fate = Fate::Nothing;
        wait_for(JUDGED, || {
            fate = self.fate(cluster, wanted, &before);
            fate != Fate::Nothing || refused.is_some()
        });
        Ok(Judged { fate, took: began.elapsed() })
    }

    fn fate(&self, cluster: &Cluster, wanted: Option<u64>, before: &[FeedRefusal]) -> Fate {
        let Some(status) = self.status(cluster) else { return Fate::Nothing };
        if wanted.is_some() && status.generation == wanted {
            return Fate::InForce;
        }
        if status.frozen.is_some() {
            return Fate::Frozen;
        }
        let new = status.refusals.iter().find(|refusal| is_new(refusal, before));
        new.map_or(Fate::Nothing, |refusal| Fate::Refused(refusal.cause.clone()))
    }

    /// Has what lies at its source looked at; how long it took to come into force.
    pub fn taken(&self, cluster: &Cluster) -> Result<Option<Duration>, DrillError> {
        let wanted = self.lies(cluster)?;
        self.take(cluster).map_err(DrillError::Unexpected)?;
        Ok(wait_for(JUDGED, || self.held(cluster).is_some_and(|(generation, _)| generation == wanted)))
    }

    /// What is wrong with its source.
    pub fn refusals(&self, cluster: &Cluster) -> Vec<FeedRefusal> {
        self.status(cluster).map(|status| status.refusals).unwrap_or_default()
    }

    /// Puts a package where its source is.
    pub fn put(&self, cluster: &Cluster, package: &[u8]) -> Result<(), DrillError> {
        let source = self.source(cluster);
        let new = source.with_extension("new");
        fs::write(&new, package)
            .and_then(|()| fs::rename(&new, &source))
            .map_err(DrillError::system("a data file could not be put where its feed looks"))
    }

    /// Puts a package where those that were in force are kept, and marks it as what is in force.
    pub fn plant(&self, cluster: &Cluster, generation: u64, package: &[u8]) -> Result<(), DrillError> {
        let failed = || DrillError::system("a data file could not be planted");
        let folder = cluster.state().join("feeds").join(self.name);
        let marks = folder.join("marks.json");
        let mut known: Value =
            serde_json::from_slice(&fs::read(&marks).map_err(failed())?).unwrap_or_default();
        if let Some(known) = known.as_object_mut() {
            known.insert("active".to_owned(), generation.into());
            known.insert("highest".to_owned(), generation.into());
        }
        fs::write(folder.join(format!("{generation:020}.package")), package).map_err(failed())?;
        fs::write(marks, known.to_string()).map_err(failed())
    }

    /// The generation of what lies at its source.
    pub fn lies(&self, cluster: &Cluster) -> Result<u64, DrillError> {
        let bytes = fs::read(self.source(cluster)).map_err(DrillError::system("there is no data file"))?;
        let manifest = package::peek(&bytes).map_err(|error| DrillError::Unexpected(error.to_string()))?;
        Ok(manifest.generation)
    }

    /// The maker as it should be: `rempart feed generate`, against a ClickHouse.
    pub fn generate(
        &self,
        cluster: &Cluster,
        url: &str,
        user: &str,
        query: &str,
    ) -> Result<Generated, DrillError> {
        let failed = || DrillError::system("the maker could not be started");
        cluster.write("features.sql", query)?;
        let mut command = cluster.command(&["feed", "generate", "--clickhouse", url, "--user", user]);
        command.args(["--name", self.name, "--max-entries", "200", "--expect-columns", COLUMNS, "--query"]);
        command
            .arg(cluster.path("features.sql"))
            .arg("--key")
            .arg(cluster.path(&format!("{}.key", self.name)));
        let began = Instant::now();
        let output = command.arg("--output").arg(self.source(cluster)).output().map_err(failed())?;
        let took = began.elapsed();
        let said = serde_json::from_slice::<Made>(&output.stdout).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            DrillError::Unexpected(format!("the maker gave up: {said}"))
        })?;
        let codes = said.diagnostics.into_iter().map(|found| found.code).collect();
        Ok(Generated { codes, made: said.ok && output.status.success(), took })
    }

    /// A maker without any check: whatever the text is, it is signed and called a table.
    pub fn sign(&self, generation: u64, text: &str) -> Result<Vec<u8>, DrillError> {
        let table = table()?;
        let draft = Draft {
            name: self.name.to_owned(),
            generation,
            created: now(),
            expires: None,
            source: "a drill".to_owned(),
            query_hash: None,
        };
        let signed = package::pack(draft, described(table, text), text.as_bytes(), &self.key);
        signed.map_err(|error| DrillError::Unexpected(error.to_string()))
    }

    /// Operational events about it, oldest first, as `rempart events` tells them.
    pub fn events(&self, cluster: &Cluster, what: What) -> Vec<Happening> {
        let of_this = |one: &Happening| one.what == what && one.subject.as_deref() == Some(self.name);
        happenings(cluster).into_iter().filter(of_this).collect()
    }
}

/// What `rempart feed generate --json` prints.
#[derive(Deserialize)]
struct Made {
    ok: bool,
    #[serde(default)]
    diagnostics: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    code: String,
}

/// Everything that happened to this Rempart itself, oldest first.
pub fn happenings(cluster: &Cluster) -> Vec<Happening> {
    let words = ["events", "--kind", "operations", "--since", "1h", "--limit", EVENTS];
    let output = cluster.command(&words).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn is_new(refusal: &FeedRefusal, before: &[FeedRefusal]) -> bool {
    let known = before.iter().find(|known| known.cause == refusal.cause);
    known.is_none_or(|known| known.count < refusal.count)
}

fn table() -> Result<&'static dyn Kind, DrillError> {
    kind::find("table").ok_or_else(|| DrillError::Unexpected("this version knows no tables".to_owned()))
}

/// What a maker says that believes its lines to be right: a digest over the keys it finds, each counted once.
fn described(table: &dyn Kind, text: &str) -> Described {
    let keys: std::collections::BTreeSet<&str> =
        text.lines().skip(1).filter_map(|line| line.split('\t').next()).collect();
    let cleaned: String = keys.iter().map(|key| format!("{key}\t0\n")).collect();
    let cleaned = format!("#columns {COLUMNS}\n{cleaned}");
    let content = table.read(cleaned.as_bytes(), now());
    content.map_or_else(
        |_| Described {
            kind: table.name(),
            schema: table.schema(),
            consumers: table.consumers(),
            entries: 0,
            keys_digest: "0".repeat(64),
            memory: 0,
        },
        |content| Described { memory: text.len() as u64, ..kind::describe(table, &content) },
    )
}

/// A table of so many features.
pub fn features(count: usize) -> String {
    let rows: String = (1..=count).map(|row| format!("feature_{row:03}\t0.{:02}\n", row % 97)).collect();
    format!("#columns {COLUMNS}\n{rows}")
}

fn now() -> Timestamp {
    Timestamp::from_unix(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maker_without_checks_describes_what_it_believes_in() {
        let table = table().unwrap();
        let good = described(table, &features(60));
        let twice = features(60) + features(60).split_once('\n').unwrap().1;
        assert_eq!(good.entries, 60);
        assert_eq!(described(table, &twice).keys_digest, good.keys_digest);
        assert_eq!(described(table, &features(0)).entries, 0);
        assert!(table.read(twice.as_bytes(), now()).is_err());
    }
}
