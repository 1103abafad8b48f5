//! Nothing is said with too little to go by; what is unlike it was is noticed within two windows; whose fault it looks like
//! follows from what came in and from what was changed.

use base::happening::{Component, Severity, What};
use base::random::Random;

use super::*;

fn usual(random: &mut Random) -> Window {
    let requests = 900 + u64::from(random.below(200));
    Window {
        requests,
        errors: u64::from(random.below(3)),
        p95_us: Some(20_000 + u64::from(random.below(4_000))),
        held_up: 5,
    }
}

fn at(window: u64) -> Timestamp {
    Timestamp(1_700_000_000_000_000 + window * WINDOW_SECONDS * 1_000_000)
}

/// After two hours as usual.
fn settled() -> (Watcher, Random, u64) {
    let (mut watcher, mut random) = (Watcher::new(Some("shop".into())), Random::seeded(9));
    for window in 0..720 {
        let turns = watcher.look(&usual(&mut random), at(window), Evidence::default);
        assert_eq!(turns, [], "window {window} is as the others");
    }
    (watcher, random, 720)
}

fn change() -> Happening {
    let message = "generation 8 came into force".to_owned();
    Happening::new(
        at(715),
        What::GenerationActivated,
        Severity::Info,
        Component::Configuration,
        "reload",
        message,
    )
}

#[test]
fn ordinary_traffic_is_no_anomaly_and_little_traffic_is_unknown() {
    settled();
    let mut watcher = Watcher::new(None);
    for window in 0..1_000 {
        let odd =
            Window { requests: 20 * (window % 2), errors: 10, p95_us: Some(window * 1_000_000), held_up: 9 };
        assert_eq!(watcher.look(&odd, at(window), Evidence::default), [], "too few requests to say anything");
    }
    let mut young = Watcher::new(None);
    let mut random = Random::seeded(1);
    for window in 0..ENOUGH_WINDOWS as u64 {
        young.look(&usual(&mut random), at(window), Evidence::default);
    }
    assert_eq!(young.usual_rate(), None);
    let all_fail = Window { requests: 90_000, errors: 90_000, p95_us: Some(9_000_000), held_up: 0 };
    assert_eq!(young.look(&all_fail, at(61), Evidence::default), [], "less than ten minutes are known");
}

/// What begins in the second window like this one, and that it ends.
fn began(window: Window, evidence: Evidence) -> Vec<Anomaly> {
    let (mut watcher, mut random, mut now) = settled();
    assert_eq!(watcher.look(&window, at(now), || evidence.clone()), [], "one window may be chance");
    let mut begun = Vec::new();
    for turn in watcher.look(&window, at(now + 1), || evidence.clone()) {
        let Turn::Began(anomaly) = turn else { panic!("{turn:?}") };
        begun.push(anomaly);
    }
    assert_eq!(watcher.anomalies().count(), begun.len());
    for _ in 0..5 {
        now += 1;
        assert_eq!(watcher.look(&usual(&mut random), at(now), Evidence::default), []);
    }
    let ended = watcher.look(&usual(&mut random), at(now), Evidence::default);
    assert_eq!(ended, begun.iter().cloned().map(Turn::Ended).collect::<Vec<_>>());
    assert_eq!(watcher.anomalies().count(), 0);
    begun
}

#[test]
fn what_is_unlike_it_was_begins_and_ends() {
    let fine = Window { requests: 1_000, errors: 1, p95_us: Some(21_000), held_up: 5 };
    let crowd = Evidence { new_networks_share: Some(0.8), distinct_networks: 900, ..Evidence::default() };
    let regulars = Evidence { new_networks_share: Some(0.02), ..Evidence::default() };
    let changed = |evidence: &Evidence| Evidence { changes: vec![change()], ..evidence.clone() };
    use Judgement::{CannotTell, LooksLikeAttack, LooksLikeOwnFault};
    for (window, evidence, signal, judgement) in [
        (Window { requests: 9_000, ..fine }, crowd.clone(), "request-rate", LooksLikeAttack),
        (Window { requests: 9_000, ..fine }, changed(&crowd), "request-rate", CannotTell),
        (Window { requests: 9_000, ..fine }, regulars.clone(), "request-rate", CannotTell),
        (Window { errors: 400, ..fine }, changed(&regulars), "error-share", LooksLikeOwnFault),
        (Window { errors: 400, ..fine }, regulars.clone(), "error-share", CannotTell),
        (Window { p95_us: Some(900_000), ..fine }, changed(&regulars), "latency", LooksLikeOwnFault),
        (Window { held_up: 700, ..fine }, changed(&regulars), "verdict-share", LooksLikeOwnFault),
        (
            Window { requests: 0, errors: 0, p95_us: None, held_up: 0 },
            changed(&regulars),
            "request-rate",
            LooksLikeOwnFault,
        ),
    ] {
        let begun = began(window, evidence);
        let [anomaly] = begun.as_slice() else { panic!("{begun:?}") };
        assert_eq!((anomaly.signal.as_str(), anomaly.judgement), (signal, judgement), "{anomaly:?}");
        let named = anomaly.sentence.contains("generation 8 came into force");
        assert_eq!(named, !anomaly.evidence.changes.is_empty(), "{}", anomaly.sentence);
    }
}

#[test]
fn what_stays_for_an_hour_is_usual_then() {
    let (mut watcher, mut random, now) = settled();
    let mut turns = Vec::new();
    for window in now..now + 1_500 {
        let mut busier = usual(&mut random);
        busier.requests *= 5;
        turns.extend(watcher.look(&busier, at(window), Evidence::default));
    }
    assert!(matches!(turns.as_slice(), [Turn::Began(_), Turn::Ended(_)]), "{turns:?}");
    assert!(watcher.usual_rate().unwrap() > 400.0);
}

#[test]
fn only_changes_of_the_last_half_hour_are_named() {
    let change = change();
    assert!(is_recent_change(&change, at(715)) && is_recent_change(&change, at(715 + 180)));
    assert!(!is_recent_change(&change, at(715 + 181)));
    let refused = Happening { what: What::GenerationRefused, ..change };
    assert!(!is_recent_change(&refused, at(715)), "what was refused changed nothing");
}
