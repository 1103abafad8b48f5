//! What the keeper takes up and what it ignores, without any authority.

use std::sync::atomic::{AtomicU64, Ordering};

use api::certificates::{AcmeChallenge, Challenge};

use super::*;
use crate::board::PublishError;
use crate::history::Issued;
use crate::store::FileStore;

struct Nobody;

impl Publisher for Nobody {
    async fn publish(&self, _: Vec<Challenge>) -> Result<(), PublishError> {
        Err(PublishError::Gone)
    }
}

struct Fixture {
    keeper: Keeper<FileStore, Nobody>,
    seconds: Arc<AtomicU64>,
    _folder: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let seconds = Arc::new(AtomicU64::new(1_000_000));
    let now = Arc::clone(&seconds);
    let clock: Clock = Arc::new(move || Timestamp(now.load(Ordering::Relaxed) * 1_000_000));
    let keeper = Keeper::new(FileStore::open(folder.path()).unwrap(), Nobody, clock, 1);
    Fixture { keeper, seconds, _folder: folder }
}

fn settings(names: &[&str], on_demand: &[&str]) -> AcmeSettings {
    let directory = "https://127.0.0.1:1/dir".to_owned();
    AcmeSettings {
        contact: Vec::new(),
        authorities: vec![AcmeAuthority { directory, roots: None, eab_kid: None, eab_key: None }],
        challenge: AcmeChallenge::Http01,
        names: names.iter().map(ToString::to_string).collect(),
        on_demand: on_demand.iter().map(ToString::to_string).collect(),
    }
}

fn kept(keeper: &Keeper<FileStore, Nobody>) -> Vec<String> {
    keeper.planner.names().map(ToString::to_string).collect()
}

#[test]
fn visitors_are_bounded_in_pace_and_number() {
    let Fixture { mut keeper, seconds, _folder } = fixture();
    keeper.settle(settings(&["www.shop.test"], &["*.shop.test"]));
    let names: Vec<String> =
        (0..ON_DEMAND_NAMES + 100).map(|number| format!("n{number:05}.shop.test")).collect();
    keeper.admit(&names[..100]);
    assert_eq!(keeper.planner.on_demand().count(), ON_DEMAND_PER_PERIOD);
    assert_eq!(keeper.ignored, 40);
    keeper.admit(&names[..60]);
    assert_eq!(keeper.ignored, 40, "those that are taken up already are not ignored");
    for _ in 0..ON_DEMAND_NAMES / ON_DEMAND_PER_PERIOD + 2 {
        seconds.fetch_add(ON_DEMAND_PERIOD.as_secs(), Ordering::Relaxed);
        keeper.admit(&names);
        keeper.admit(&names[ON_DEMAND_NAMES..]);
    }
    assert_eq!(keeper.planner.on_demand().count(), ON_DEMAND_NAMES);
    assert_eq!(kept(&keeper).len(), ON_DEMAND_NAMES + 1, "the operator's own name does not count");
    // Without the pattern they go, and the one that is written down stays.
    keeper.settle(settings(&["www.shop.test", "n00001.shop.test"], &[]));
    assert_eq!(kept(&keeper), ["n00001.shop.test", "www.shop.test"]);
    assert_eq!(keeper.planner.on_demand().count(), 0);
}

#[test]
fn names_that_are_none_are_left_out_and_a_damaged_store_is_no_obstacle() {
    let Fixture { mut keeper, _folder, .. } = fixture();
    let folder = _folder.path().join("certificates/a.test");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("current.pem"), "no certificate").unwrap();
    std::fs::write(folder.join("history.json"), "no history").unwrap();
    keeper.settle(settings(&["a.test", "../b", "10.0.0.1"], &[]));
    assert_eq!(kept(&keeper), ["a.test"]);
    let now = (keeper.clock)();
    let next = keeper.planner.next(&Name::parse("a.test").unwrap(), now).unwrap();
    assert_eq!(next.at, now);
    let statuses = keeper.statuses();
    assert_eq!(statuses.len(), 1);
    assert_eq!(statuses[0].1.renews.as_deref(), Some("1970-01-12T13:46:40Z"));
}

#[test]
fn only_who_gave_a_certificate_is_asked_to_revoke_it() {
    let Fixture { mut keeper, .. } = fixture();
    let settings = settings(&["a.test"], &[]);
    keeper.settle(settings.clone());
    let [known, stored] = ["a.test", "b.test"].map(|name| Name::parse(name).unwrap());
    let directory = |keeper: &Keeper<_, _>, name| {
        keeper.issuing_authority(&settings, name).map(|authority| authority.directory)
    };
    assert_eq!(directory(&keeper, &known), Ok(settings.authorities[0].directory.clone()));
    let issued = Issued {
        authority: Some("https://gone.example/dir".into()),
        issuer: String::new(),
        certificate_id: None,
        expires: Timestamp(0),
        renews: Timestamp(0),
        window: None,
        ask_again: Timestamp(0),
        revoked: false,
    };
    let history = History { issued: Some(issued), ..History::default() };
    keeper.desk.store.put_history(&stored, &history).unwrap();
    assert!(directory(&keeper, &stored).unwrap_err().contains("gone.example"));
}
