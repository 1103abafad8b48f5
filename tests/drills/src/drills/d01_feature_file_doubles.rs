//! Drill 1: a feature file doubles because grants change behind its query; every layer refuses it, and what is in force stays.

use std::time::Duration;

use base::happening::What;

use super::{HOPELESS, QUIET, counted};
use crate::clickhouse::{Node, TABLE};
use crate::cluster::wait_for;
use crate::comms::{Comms, Known};
use crate::feeds::{COLUMNS, Fate, Feed, Judged, features};
use crate::stage::shown;
use crate::{Control, Drill, DrillError, Need, Stage};

/// Servers that hold the features.
const NODES: usize = 3;
/// Features there are, as on that day, and the most there may be.
const FEATURES: usize = 60;
const LIMIT: usize = 200;
/// How soon the maker refuses, and whoever is handed the file anyway.
const MAKER: Duration = Duration::from_secs(5);
const TAKER: Duration = Duration::from_secs(1);
/// Bad files in a row that are one incident.
const CYCLES: u64 = 6;
/// Files of a feed that goes back and forth, until it must have been frozen.
const FLAPS: usize = 4;
/// Who makes the files may read what it has been granted.
const READER: &str = "reader";
/// Rows of the large file, and characters in each: 30 MB. Twice as many are over the cap of 32 MiB.
const ROWS: usize = 10_000;
const WIDTH: usize = 2_980;

/// What the status page must show as working all the while.
const GREEN: [&str; 3] = ["delivery", "site-shop", "site-news"];

/// Drill 1.
pub const DRILL: Drill = Drill {
    number: 1,
    name: "feature-file-doubles",
    title: "The feature file doubles",
    outage: "Cloudflare, 18 November 2025",
    story: "Three ClickHouse servers hold the features of a data file in two databases. One after the other grants its reader \
            the second one too, so the query, which names no database, returns every row twice there, and runs of the maker \
            alternate between good and bad. Then a maker without any check takes its place: doubled rows six times in a row, \
            files by hand with no feature, 201, cut off, with weights that are no numbers, one of 30 MB that doubles, and good \
            and bad ones in turn. At last a file of 201 features is put on disk as if it had been in force, and all starts anew.",
    needs: &[Need::ClickHouse],
    controls: &[
        Control { without: "artefact-caps", fails: "kept" },
        Control { without: "flap-detector", fails: "frozen" },
    ],
    play,
};

/// The feed of features, where they come from, and what is noted of every bad file.
struct Play {
    nodes: Vec<Node>,
    features: Feed,
    comms: Comms,
    next: u64,
    slowest: Duration,
    /// Bad files that did not meet the fate they had to.
    wrong: Vec<String>,
    /// Bad files after which the edge held something else.
    moved: Vec<String>,
    offered: usize,
}

fn play(stage: &mut Stage) -> Result<(), DrillError> {
    let mut nodes = Vec::with_capacity(NODES);
    for number in 1..=NODES {
        nodes.push(Node::start(stage.cluster.path(&format!("clickhouse-{number}")), FEATURES)?);
    }
    let features = Feed::new(&stage.cluster, "features", "max_entries = 200")?;
    let texts = Feed::new(&stage.cluster, "texts", "")?;
    let comms = Comms::start()?;
    let config = stage.cluster.config()
        + &features.config(&stage.cluster)
        + &texts.config(&stage.cluster)
        + &comms.config();
    stage.cluster.write("rempart.toml", &config)?;
    let mut play = Play {
        nodes,
        features,
        comms,
        next: 0,
        slowest: Duration::ZERO,
        wrong: Vec::new(),
        moved: Vec::new(),
        offered: 0,
    };
    // The first one lies there before Rempart starts.
    let first = play.run(stage, 0)?;
    stage.cluster.start_and_wait()?;
    let took = wait_for(HOPELESS, || play.features.held(&stage.cluster).is_some());
    let taken = first.made && took.is_some();
    stage.expect("first", "The first file is made and taken: premise", "taken", fate(taken), taken);
    stage.begin_traffic()?;
    stage.pass(QUIET);
    play.grants(stage)?;
    play.six_cycles(stage)?;
    play.by_hand(stage)?;
    play.doubled_bytes(stage, &texts)?;
    play.back_and_forth(stage)?;
    play.bad_files(stage);
    play.the_most(stage)?;
    stage.pass(QUIET);
    stage.end_traffic();
    play.on_disk(stage)
}

fn fate(taken: bool) -> &'static str {
    if taken { "taken" } else { "not taken" }
}

/// Asks for the features without naming a database.
fn query() -> String {
    format!(
        "SELECT name, (cityHash64(name) % 1000) / 1000 AS weight FROM system.columns WHERE table = '{TABLE}' ORDER BY name"
    )
}

impl Play {
    /// One run of the maker, against the server of this number.
    fn run(&self, stage: &Stage, node: usize) -> Result<crate::feeds::Generated, DrillError> {
        let url = format!("http://{}", self.node(node)?.address);
        self.features.generate(&stage.cluster, &url, READER, &query())
    }

    fn node(&self, number: usize) -> Result<&Node, DrillError> {
        self.nodes.get(number).ok_or_else(|| DrillError::Unexpected(format!("there is no server {number}")))
    }

    /// Grants change on one, two and all servers; after each change the maker runs against every one of them.
    fn grants(&mut self, stage: &mut Stage) -> Result<(), DrillError> {
        let (mut runs, mut refused, mut slowest) = (String::new(), 0, Duration::ZERO);
        let (mut untouched, mut good) = (true, 0);
        for changed in 1..=NODES {
            self.node(changed - 1)?.grant(2)?;
            stage.inject(format!("the reader may use the second database on {changed} of {NODES} servers"));
            for node in 0..NODES {
                let before = self.features.lies(&stage.cluster)?;
                let run = self.run(stage, node)?;
                slowest = slowest.max(run.took);
                runs.push(if run.made { '+' } else { '-' });
                if run.made {
                    good += usize::from(self.features.taken(&stage.cluster)?.is_some());
                } else {
                    untouched &= self.features.lies(&stage.cluster)? == before;
                    refused += usize::from(run.codes.iter().any(|code| code == "duplicate-keys"));
                }
            }
            runs.push(' ');
        }
        stage
            .figure("runs of the maker, by servers with changed grants (+ made, - refused)", runs.trim_end());
        let expected = NODES * (NODES + 1) / 2;
        let rest = NODES * NODES - expected;
        let limit = format!("{expected} refused for duplicate-keys, {rest} taken");
        let measured = format!("{refused} refused for duplicate-keys, {good} taken");
        let right = (refused, good) == (expected, rest);
        stage.expect("maker", "The maker refuses every doubled answer and no other", &limit, measured, right);
        stage.within("maker-soon", "The slowest of its runs", MAKER, Some(slowest));
        let measured = if untouched { "as they were" } else { "replaced" };
        stage.expect("maker-keeps", "Files after a refused run", "as they were", measured, untouched);
        Ok(())
    }

    /// What a maker without checks makes of the answer of a server.
    fn unchecked(&mut self, node: usize) -> Result<Vec<u8>, DrillError> {
        let rows = self.node(node)?.ask(READER, &query())?;
        self.sign(&format!("#columns {COLUMNS}\n{rows}"))
    }

    fn sign(&mut self, text: &str) -> Result<Vec<u8>, DrillError> {
        self.next += 1;
        self.features.sign(self.next, text)
    }

    /// Hands over a bad file; it must be refused for this cause, and what the edge holds must stay.
    fn bad(&mut self, stage: &Stage, what: &str, file: &[u8], cause: &str) -> Result<Judged, DrillError> {
        let judged = bad(stage, &self.features, file)?;
        self.note(what, &judged, cause);
        Ok(judged.0)
    }

    fn note(&mut self, what: &str, (judged, stays): &(Judged, bool), cause: &str) {
        self.offered += 1;
        self.slowest = self.slowest.max(judged.took);
        if judged.fate != Fate::Refused(cause.to_owned()) {
            self.wrong.push(format!("{what}: {}", judged.fate));
        }
        if !stays {
            self.moved.push(what.to_owned());
        }
    }

    /// All servers are changed by now: the same cause again and again.
    fn six_cycles(&mut self, stage: &mut Stage) -> Result<(), DrillError> {
        self.next = self.features.lies(&stage.cluster)?;
        stage.inject("a maker without any check: doubled rows, six times");
        let since = stage.clock.now();
        for cycle in 0..CYCLES {
            let node = usize::try_from(cycle).unwrap_or(0) % NODES;
            let file = self.unchecked(node)?;
            self.bad(stage, "doubled rows", &file, "duplicate-keys")?;
        }
        let refusals = self.features.refusals(&stage.cluster);
        let times = refusals.iter().find(|it| it.cause == "duplicate-keys").map_or(0, |it| it.count);
        let told = || {
            let told = self.features.events(&stage.cluster, What::ArtefactRefused);
            told.into_iter().filter(|one| one.cause == "duplicate-keys").count()
        };
        wait_for(HOPELESS, || told() > 0);
        // A second one would have been told by now.
        stage.pass(QUIET);
        let incidents = told();
        let measured = format!("{times} refusals, told {incidents} times");
        let right = (times, incidents) == (CYCLES, 1);
        let limit = format!("{CYCLES} refusals, told once");
        stage.expect("one-incident", "Six bad cycles are one incident", &limit, measured, right);
        let known = Known { words: &["features: ", "refused, duplicate-keys"], works: &GREEN, since };
        self.comms.on_page(stage, "on-page", &known);
        self.comms.told(stage, "told", &known);
        Ok(())
    }

    fn by_hand(&mut self, stage: &mut Stage) -> Result<(), DrillError> {
        stage.inject("files by hand: no feature, 201, cut off, weights that are no numbers");
        let whole = features(FEATURES);
        let nan = whole.replacen("0.01", "NaN", 1);
        let cut = whole.get(..whole.len() * 2 / 3).unwrap_or_default();
        for (what, text, cause) in [
            ("no feature", features(0).as_str(), "empty"),
            ("201 features", &features(LIMIT + 1), "too-many-entries"),
            ("a table cut off before it was signed", cut, "truncated"),
            ("a weight NaN", &nan, "not-finite"),
        ] {
            let file = self.sign(text)?;
            self.bad(stage, what, &file, cause)?;
        }
        let mut file = self.sign(&whole)?;
        file.truncate(file.len() * 2 / 3);
        self.bad(stage, "a file cut off", &file, "damaged")?;
        Ok(())
    }

    /// Another feed, whose file is as large as it may be, until it has everything twice.
    fn doubled_bytes(&mut self, stage: &mut Stage, texts: &Feed) -> Result<(), DrillError> {
        stage.inject("a file of 30 MB, and the same with every row twice");
        let about = "what a feature is good for, ".repeat(WIDTH / 28);
        let row = |number: usize| format!("row-{number:05}\t{about}\t0.{:02}\n", number % 97);
        let head = "#columns name:text about:text weight:number\n";
        let once: String = (0..ROWS).map(row).collect();
        let twice: String = (0..ROWS).map(|number| row(number).repeat(2)).collect();
        let taken = texts.offer(&stage.cluster, &texts.sign(1, &format!("{head}{once}"))?)?;
        let right = taken.fate == Fate::InForce;
        let measured = format!("{} after {}", taken.fate, shown(taken.took));
        stage.expect("large", "A file of 30 MB is taken: premise", "taken", measured, right);
        let file = texts.sign(2, &format!("{head}{twice}"))?;
        let judged = bad(stage, texts, &file)?;
        self.note("60 MB", &judged, "too-large");
        Ok(())
    }

    /// One server is put right, another is not, and the maker has no checks.
    fn back_and_forth(&mut self, stage: &mut Stage) -> Result<(), DrillError> {
        self.node(0)?.grant(1)?;
        stage.inject("one server is put right: good and bad files in turn");
        let (mut last_good, since) = (None, stage.clock.now());
        let mut fates = Vec::new();
        for round in 0..FLAPS {
            let good = round % 2 == 0;
            let file = self.unchecked(if good { 0 } else { 1 })?;
            let judged = self.features.offer(&stage.cluster, &file)?;
            if judged.fate == Fate::InForce && fates.is_empty() {
                last_good = self.features.held(&stage.cluster);
            }
            fates.push(judged.fate);
        }
        let status = self.features.status(&stage.cluster);
        let held = self.features.held(&stage.cluster);
        let frozen = status.as_ref().is_some_and(|status| status.frozen.is_some());
        let pinned = frozen && held.is_some() && held == last_good;
        let listed: Vec<String> = fates.iter().map(ToString::to_string).collect();
        let measured = format!("{}{}", listed.join(", "), if pinned { "; pinned" } else { "; not pinned" });
        stage.expect(
            "frozen",
            "A feed that goes back and forth is frozen at its last good file",
            "frozen within three files, and pinned",
            measured,
            pinned,
        );
        let told = || !self.features.events(&stage.cluster, What::ArtefactFrozen).is_empty();
        let said = wait_for(HOPELESS, told).is_some();
        stage.expect(
            "says-frozen",
            "An operational event says so",
            "told",
            if said { "told" } else { "not told" },
            said,
        );
        // What is not frozen is nothing to wait for.
        if let Some((generation, _)) = held.filter(|_| frozen) {
            let words = ["features: ", &format!("frozen at generation {generation}")];
            self.comms.on_page(stage, "frozen-on-page", &Known { words: &words, works: &GREEN, since });
        }
        self.thaw(stage)
    }

    /// Somebody has looked, and lets it go on with a good file.
    fn thaw(&mut self, stage: &mut Stage) -> Result<(), DrillError> {
        self.node(1)?.grant(1)?;
        self.node(2)?.grant(1)?;
        stage.inject("all servers are put right, and the feed is let go on");
        let thawed = self.features.thaw(&stage.cluster);
        let file = self.unchecked(2)?;
        let judged = self.features.offer(&stage.cluster, &file)?;
        let right = thawed.is_ok() && judged.fate == Fate::InForce;
        let measured = thawed.map_or_else(|reason| reason, |()| judged.fate.to_string());
        stage.expect("goes-on", "Let go on, it takes the next good file", "taken", measured, right);
        Ok(())
    }

    /// What is to be said of all bad files.
    fn bad_files(&self, stage: &mut Stage) {
        let offered = self.offered;
        let measured = counted(&self.wrong, &format!("of {offered} otherwise"));
        let right = self.wrong.is_empty();
        stage.expect(
            "refused",
            "Bad files are refused, each for its own cause",
            "0 otherwise",
            measured,
            right,
        );
        stage.within("refused-soon", "The slowest of these refusals", TAKER, Some(self.slowest));
        let measured = counted(&self.moved, &format!("of {offered} changed it"));
        let right = self.moved.is_empty();
        stage.expect(
            "kept",
            "What the edge holds, by hash, after each of them",
            "0 changed it",
            measured,
            right,
        );
    }

    fn the_most(&mut self, stage: &mut Stage) -> Result<(), DrillError> {
        let file = self.sign(&features(LIMIT))?;
        let judged = self.features.offer(&stage.cluster, &file)?;
        let right = judged.fate == Fate::InForce;
        stage.expect(
            "the-most",
            "A file of 200 features, the most there may be",
            "taken",
            judged.fate,
            right,
        );
        Ok(())
    }

    /// Nobody but the edge is left to refuse it: it lies where what was in force is kept, and is marked as that.
    fn on_disk(&mut self, stage: &mut Stage) -> Result<(), DrillError> {
        let before = self.features.held(&stage.cluster);
        let file = self.sign(&features(LIMIT + 1))?;
        stage.inject("201 features on disk, marked as what was in force, and all processes are started anew");
        stage.cluster.kill_all_but(&[]);
        self.features.plant(&stage.cluster, self.next, &file)?;
        stage.cluster.start_and_wait()?;
        let after = self.features.held(&stage.cluster);
        let told = |held: &Option<(u64, String)>| {
            held.as_ref().map_or("nothing".to_owned(), |(generation, _)| format!("generation {generation}"))
        };
        let right = after.is_some() && after == before;
        let (limit, measured) = (told(&before), told(&after));
        stage.expect(
            "cold",
            "An edge that finds it on disk goes back to the one before",
            &limit,
            measured,
            right,
        );
        Ok(())
    }
}

/// Hands over a bad file. What became of it, and whether the edge holds what it held.
fn bad(stage: &Stage, feed: &Feed, file: &[u8]) -> Result<(Judged, bool), DrillError> {
    let before = feed.held(&stage.cluster);
    let judged = feed.offer(&stage.cluster, file)?;
    let stays = before.is_some() && feed.held(&stage.cluster) == before;
    Ok((judged, stays))
}
