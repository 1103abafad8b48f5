//! Data files on their way from a source through feeder, taster and supervisor into the edge that serves.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use api::admin::{Answer, ArtefactStatus, FeedStatus, Request};
use api::seal::SigningKey;
use base::time::Timestamp;
use harness::PATIENCE;
use harness::config::Config;
use harness::rempart::{Place, Rempart};
use serde_json::Value;
use snapshot::kind;
use snapshot::package::{self, Draft};

/// Name of the feed.
pub const FEED: &str = "features";
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(20);

/// The key that the configuration of these tests trusts.
pub fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32]).unwrap()
}

/// A package of a table with this many rows, whose content tells its generation.
pub fn packed(generation: u64, rows: usize, key: &SigningKey, expires: Option<Timestamp>) -> Vec<u8> {
    let rows: String = (0..rows).map(|row| format!("row-{row}\t{}.5\n", 1000 + generation)).collect();
    let text = format!("#columns name:text weight:number\n{rows}");
    packed_as(FEED, "table", &text, generation, key, expires)
}

/// A package of any kind.
pub fn packed_as(
    name: &str,
    kind: &str,
    text: &str,
    generation: u64,
    key: &SigningKey,
    expires: Option<Timestamp>,
) -> Vec<u8> {
    let created = now();
    let kind = kind::find(kind).unwrap();
    let described = kind::describe(kind, &kind.read(text.as_bytes(), created).unwrap());
    let name = name.to_owned();
    let draft = Draft { name, generation, created, expires, source: String::new(), query_hash: None };
    package::pack(draft, described, text.as_bytes(), key).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_unix(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap())
}

/// The feed in a configuration: whatever lies in the folder `packages`, looked at when somebody asks for it.
pub fn feed(place: &Place) -> String {
    fs::create_dir_all(place.path("packages")).unwrap();
    let public = key().public().to_string();
    format!(
        "[[feeds]]\nname = \"{FEED}\"\nsource = \"{}/\"\nevery = \"5m\"\nkeys = [\"{public}\"]\n",
        place.path("packages").display()
    )
}

/// Where a generation's package lies in that folder.
pub fn source(place: &Place, generation: u64) -> PathBuf {
    place.path(&format!("packages/{generation:06}.package"))
}

/// Puts a package into the folder as a maker would, in one step.
pub fn put(place: &Place, generation: u64, bytes: &[u8]) {
    place.write("next.package", bytes);
    fs::rename(place.path("next.package"), source(place, generation)).unwrap();
}

fn begun(bake: &str) -> Rempart {
    let place = Place::new();
    let config = Config::new()
        .raw(&feed(&place))
        .listeners()
        .site("shop", &["shop.test"])
        .origin("http://127.0.0.1:9");
    place.write("rempart.toml", format!("standby = false\nbake = \"{bake}\"\n{}", config.text()));
    place.run()
}

/// Has the source looked at, as soon as there is a feeder.
fn order(rempart: &Rempart, force: bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ordered = rempart.ask(&Request::Feed { name: FEED.to_owned(), thaw: false, force });
        if ordered == Answer::Done {
            return;
        }
        assert!(Instant::now() < deadline, "{ordered:?}\n{}", rempart.log().text());
        thread::sleep(BETWEEN_QUESTIONS);
    }
}

fn known(rempart: &Rempart) -> FeedStatus {
    match rempart.ask(&Request::Feeds) {
        Answer::Feeds { feeds } => feeds.into_iter().next().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn await_known(rempart: &Rempart, what: &str, passes: impl Fn(&FeedStatus) -> bool) -> FeedStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = known(rempart);
        if passes(&found) {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} does not come: {found:#?}\n{}", rempart.log().text());
        thread::sleep(BETWEEN_QUESTIONS);
    }
}

/// What the edge that serves holds.
fn held(rempart: &Rempart) -> Option<ArtefactStatus> {
    rempart.ask_status().artefacts.into_iter().next()
}

fn take(rempart: &Rempart, generation: u64, bytes: &[u8]) {
    put(rempart.place(), generation, bytes);
    order(rempart, false);
    await_known(rempart, "a good package in force", |feed| feed.generation == Some(generation));
    let held = held(rempart).unwrap();
    let content = package::peek(bytes).unwrap().content;
    assert_eq!((held.generation, held.content), (generation, Some(content)));
}

/// Happenings of this kind that were logged.
fn logged(rempart: &Rempart, text: &str) -> usize {
    rempart.log().lines().iter().filter(|line| line.contains(text)).count()
}

#[test]
fn a_good_package_reaches_the_edge_and_a_bad_one_is_one_incident() {
    let rempart = begun("1s");
    take(&rempart, 1, &packed(1, 100, &key(), None));
    await_known(&rempart, "the end of the bake", |feed| feed.good == Some(1));
    let other = SigningKey::from_seed(&[8; 32]).unwrap();
    put(rempart.place(), 2, &packed(2, 100, &other, None));
    order(&rempart, false);
    await_known(&rempart, "a refusal", |feed| feed.refusals.iter().any(|found| found.cause == "unknown-key"));
    for count in 2..=4 {
        order(&rempart, false);
        await_known(&rempart, "the same refusal again", |feed| feed.refusals[0].count >= count);
    }
    let found = known(&rempart);
    assert_eq!((found.refusals.len(), found.generation), (1, Some(1)));
    let told = &found.refusals[0].message;
    assert_eq!(logged(&rempart, told), 1, "once for its cause, however often it comes");
    // What is good ends it.
    take(&rempart, 3, &packed(3, 100, &key(), None));
    assert_eq!(known(&rempart).refusals, []);
}

#[test]
fn what_was_forced_has_to_be_confirmed_also_after_a_crash() {
    let rempart = begun("1s");
    take(&rempart, 1, &packed(1, 100, &key(), None));
    await_known(&rempart, "the end of the bake", |feed| feed.good == Some(1));
    put(rempart.place(), 2, &packed(2, 10, &key(), None));
    order(&rempart, false);
    await_known(&rempart, "a refusal", |feed| !feed.refusals.is_empty());
    order(&rempart, true);
    await_known(&rempart, "the forced one", |feed| feed.generation == Some(2) && feed.unconfirmed);
    let rempart = rempart.kill().run();
    let found = known(&rempart);
    assert_eq!((found.generation, found.unconfirmed, found.baking), (Some(2), true, true), "{found:#?}");
    assert_eq!(found.good, Some(1));
    assert_eq!(rempart.ask(&Request::Confirm { feed: Some(FEED.to_owned()) }), Answer::Done);
    let rempart = rempart.kill().run();
    assert_eq!((known(&rempart).generation, known(&rempart).unconfirmed), (Some(2), false));
    await_known(&rempart, "the end of the bake", |feed| feed.good == Some(2));
}

#[test]
fn what_was_taken_back_stays_so_after_a_crash() {
    let rempart = begun("10m");
    take(&rempart, 1, &packed(1, 100, &key(), None));
    let reverted = rempart.place().ask(&["revert", FEED, "--reason", "a test"]);
    assert_eq!(reverted.code, Some(0), "{}", reverted.stderr);
    assert_eq!((known(&rempart).generation, held(&rempart)), (None, None), "there was none before it");
    let rempart = rempart.kill().run();
    order(&rempart, false);
    let found = await_known(&rempart, "a refusal", |feed| !feed.refusals.is_empty());
    assert_eq!((found.generation, held(&rempart)), (None, None), "{found:#?}");
    take(&rempart, 2, &packed(2, 100, &key(), None));
    let rempart = rempart.kill().run();
    assert_eq!(known(&rempart).generation, Some(2));
    assert!(known(&rempart).baking, "the bake begins again: it has not proved itself");
}

#[test]
fn the_end_of_a_package_is_told_before_it_comes() {
    let rempart = begun("1s");
    let soon = now().plus(Duration::from_secs(5));
    take(&rempart, 1, &packed(1, 100, &key(), Some(soon)));
    let told = rempart.log().wait_for(|line| line.contains(FEED) && line.contains("expires in"));
    assert!(told.is_some(), "{}", rempart.log().text());
    assert_eq!(known(&rempart).generation, Some(1), "it stays in force");
    let listed: Value = rempart.place().ask(&["feed"]).json();
    assert!(listed.to_string().contains(FEED), "{listed}");
}
