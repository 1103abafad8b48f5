//! The gate alone, look by look.

use api::roles::FeedSource;
use api::seal::SigningKey;
use snapshot::package::{Draft, pack};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const NOW: Timestamp = Timestamp(1_000_000_000_000);

pub(crate) fn settings(key: &SigningKey) -> FeedSettings {
    FeedSettings {
        name: "features".to_owned(),
        kind: "table".to_owned(),
        source: FeedSource::File { path: "unused".into() },
        every_seconds: 60,
        keys: vec![key.public().to_string()],
        max_entries: Some(200),
        max_bytes: None,
    }
}

pub(crate) fn key() -> SigningKey {
    SigningKey::from_seed(&[5; 32]).unwrap()
}

/// A package of so many rows, whose numbers depend on the salt too.
pub(crate) fn made(generation: u64, rows: usize, salt: u64) -> Vec<u8> {
    let rows: String = (0..rows).map(|row| format!("feature-{row:03}\t{row}.{salt:03}\n")).collect();
    packed(generation, &format!("#columns name:text weight:number\n{rows}"), None)
}

fn packed(generation: u64, text: &str, expires: Option<Timestamp>) -> Vec<u8> {
    let kind = kind::find("table").unwrap();
    let content = kind.read(text.as_bytes(), NOW).unwrap();
    let draft = Draft {
        name: "features".to_owned(),
        generation,
        created: NOW,
        expires,
        source: String::new(),
        query_hash: None,
    };
    pack(draft, kind::describe(kind, &content), text.as_bytes(), &key()).unwrap()
}

fn gate() -> Gate {
    Gate::new(Feed::new(&settings(&key())).unwrap(), None, Memory::default(), 0)
}

/// Offers and takes; answers what was refused.
fn take(gate: &mut Gate, bytes: &[u8]) -> Vec<String> {
    let before: Vec<_> = gate.memory().refusals.iter().map(|r| (r.cause.clone(), r.count)).collect();
    if gate.look(bytes, NOW).is_some() {
        gate.offered(&[], NOW);
        return Vec::new();
    }
    let after = gate.memory().refusals.iter().map(|r| (r.cause.clone(), r.count));
    after.filter(|refusal| !before.contains(refusal)).map(|(cause, _)| cause).collect()
}

fn whats(gate: &mut Gate) -> Vec<(What, String)> {
    gate.take_happenings().into_iter().map(|happening| (happening.what, happening.cause)).collect()
}

fn in_force(gate: &Gate) -> Option<u64> {
    gate.in_force.as_ref().map(|it| it.generation)
}

#[test]
fn what_is_refused_leaves_what_is_in_force_and_says_why() {
    let good = made(5, 60, 1);
    let mut stranger = settings(&SigningKey::from_seed(&[6; 32]).unwrap());
    stranger.max_entries = None;
    let mut untrusting = Gate::new(Feed::new(&stranger).unwrap(), None, Memory::default(), 0);
    assert_eq!(take(&mut untrusting, &good), ["unknown-key"]);
    for (bad, cause) in [
        (made(5, 60, 2), "not-newer"),
        (made(4, 60, 2), "not-newer"),
        (made(6, 201, 1), "too-many-entries"),
        (made(6, 56, 1), "shrinks-too-much"),
        (good[..good.len() - 1].to_vec(), "damaged"),
        (b"<html>".to_vec(), "not-a-package"),
        (packed(6, "#columns name:text\nx\n", Some(NOW)), "expired"),
    ] {
        let mut gate = gate();
        assert_eq!(take(&mut gate, &good), [""; 0]);
        assert_eq!(take(&mut gate, &bad), [cause]);
        assert_eq!(in_force(&gate), Some(5), "{cause}");
    }
}

#[test]
fn one_cause_is_one_incident_however_often_and_ends_when_the_source_is_good_again() {
    let mut gate = gate();
    assert_eq!(take(&mut gate, &made(5, 60, 1)), [""; 0]);
    for cycle in 0..6 {
        take(&mut gate, &made(6 + cycle, 201, 1));
    }
    assert_eq!(whats(&mut gate), [(What::ArtefactRefused, "too-many-entries".to_owned())]);
    assert_eq!((gate.memory().refusals.len(), gate.memory().refusals[0].count), (1, 6));
    assert!(gate.wants_all());
    take(&mut gate, &made(5, 60, 1));
    assert_eq!(whats(&mut gate), [(What::ArtefactActivated, "good-again".to_owned())]);
    assert!(!gate.wants_all());
}

#[test]
fn who_goes_back_and_forth_is_frozen_and_thawed_by_hand() {
    // Good and bad in turn; one bad one that is put right is no reason.
    let mut gate = gate();
    assert_eq!(take(&mut gate, &made(1, 60, 1)), [""; 0]);
    take(&mut gate, &made(2, 201, 1));
    assert_eq!(take(&mut gate, &made(3, 60, 3)), [""; 0]);
    assert_eq!((in_force(&gate), &gate.memory().frozen), (Some(3), &None));
    whats(&mut gate);
    take(&mut gate, &made(4, 201, 1));
    assert!(whats(&mut gate).contains(&(What::ArtefactFrozen, "flapping".to_owned())));
    assert_eq!(gate.look(&made(5, 60, 5), NOW), None);
    assert!(gate.take(true).is_err());
    // It is frozen after a restart as well.
    let memory = serde_json::from_str(&serde_json::to_string(gate.memory()).unwrap()).unwrap();
    let mut gate = Gate::new(Feed::new(&settings(&key())).unwrap(), gate.in_force.clone(), memory, 0);
    assert_eq!((gate.look(&made(5, 60, 5), NOW), in_force(&gate)), (None, Some(3)));
    gate.thaw(NOW).unwrap();
    assert!(gate.thaw(NOW).is_err());
    assert_eq!(take(&mut gate, &made(6, 60, 6)), [""; 0]);

    // Two contents in turn, each good.
    for (generation, salt) in [(7, 1), (8, 2), (9, 1)] {
        assert_eq!(take(&mut gate, &made(generation, 60, salt)), [""; 0]);
    }
    assert_eq!(gate.look(&made(10, 60, 2), NOW), None);
    assert_eq!(gate.memory().frozen.as_ref().and_then(|frozen| frozen.generation), Some(9));
}

#[test]
fn ordinary_changes_freeze_nothing() {
    let mut gate = gate();
    for generation in 1..30 {
        assert_eq!(take(&mut gate, &made(generation, 60, generation)), [""; 0]);
        // The same again, many times.
        assert_eq!(take(&mut gate, &made(generation, 60, generation)), [""; 0]);
    }
    for generation in 30..40 {
        take(&mut gate, &made(generation, 201, generation));
    }
    assert_eq!(gate.memory().frozen, None);
}

#[test]
fn what_was_refused_further_on_is_not_offered_again_until_somebody_says_so() {
    let mut gate = gate();
    let bytes = made(1, 60, 1);
    assert!(gate.look(&bytes, NOW).is_some());
    assert!(gate.look(&bytes, NOW).is_none(), "it waits for an answer");
    gate.offered(&[finding("taster-died", "it died".to_owned())], NOW);
    assert_eq!((in_force(&gate), gate.look(&bytes, NOW)), (None, None));
    assert_eq!(
        (gate.memory().refusals[0].cause.as_str(), gate.memory().refusals[0].count),
        ("taster-died", 2)
    );
    gate.take(false).unwrap();
    assert_eq!(gate.look(&bytes, NOW), Some(Offer { generation: 1, forced: false }));
    // An answer that never comes is given up.
    let later = NOW.plus(ANSWER).plus(HOUR);
    assert!(gate.look(&bytes, later).is_some());
}

#[test]
fn force_lifts_the_budget_of_differences_once_and_nothing_else() {
    let mut gate = gate();
    take(&mut gate, &made(1, 60, 1));
    gate.take(true).unwrap();
    assert_eq!(take(&mut gate, &made(2, 201, 1)), ["too-many-entries"]);
    gate.take(true).unwrap();
    assert_eq!(gate.look(&made(3, 20, 1), NOW), Some(Offer { generation: 3, forced: true }));
    gate.offered(&[], NOW);
    assert_eq!(gate.look(&made(4, 20, 2), NOW), Some(Offer { generation: 4, forced: false }));
    gate.offered(&[], NOW);
    gate.take(true).unwrap();
    assert_eq!(gate.look(&made(5, 20, 3), NOW), Some(Offer { generation: 5, forced: false }), "no need to");
    gate.offered(&[], NOW);
    assert_eq!(take(&mut gate, &made(6, 3, 1)), ["shrinks-too-much"]);
}

#[test]
fn numbers_never_go_back_even_when_one_was_taken_back() {
    let mut gate = gate();
    take(&mut gate, &made(1, 60, 1));
    let first = gate.in_force.clone();
    take(&mut gate, &made(2, 60, 2));
    gate.changed(first, NOW);
    assert_eq!((take(&mut gate, &made(2, 60, 2)), in_force(&gate)), (vec!["not-newer".to_owned()], Some(1)));
    assert_eq!(take(&mut gate, &made(3, 60, 3)), [""; 0]);
    let mut lost = Gate::new(Feed::new(&settings(&key())).unwrap(), None, Memory::default(), 3);
    assert_eq!(take(&mut lost, &made(3, 60, 3)), ["not-newer"]);
}

#[test]
fn a_missing_source_is_not_an_empty_one() {
    let mut gate = gate();
    take(&mut gate, &made(1, 60, 1));
    for _ in 0..5 {
        gate.missing("no such file", NOW);
    }
    assert_eq!(whats(&mut gate), [(What::ArtefactRefused, "source-missing".to_owned())]);
    assert_eq!(in_force(&gate), Some(1));
    gate.unchanged(NOW);
    assert_eq!(whats(&mut gate), [(What::ArtefactActivated, "good-again".to_owned())]);
    gate.missing("once", NOW);
    assert_eq!((gate.memory().frozen.clone(), whats(&mut gate)), (None, vec![]));
}

#[test]
fn the_end_of_what_is_in_force_is_told_long_before() {
    let day = 86_400 * 1_000_000;
    let expires = Timestamp(NOW.0 + 100 * day);
    let mut gate = gate();
    take(&mut gate, &packed(1, "#columns name:text\nx\n", Some(expires)));
    let mut told = Vec::new();
    for hour in 0..=101 * 24 {
        gate.tick(Timestamp(NOW.0 + hour * day / 24));
        told.extend(gate.take_happenings().into_iter().map(|it| (hour / 24, it.severity)));
    }
    let (info, warning) = (Severity::Info, Severity::Warning);
    assert_eq!(
        told,
        [(50, info), (75, warning), (90, warning), (93, warning), (99, warning), (100, warning)]
    );
}
