//! Tables for the planner: what happens next, when, and with whom.

use super::*;
use crate::pace::{FIRST_RETRY, LONGEST_RETRY, ORDERS_PER_PERIOD};

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
const A: &str = "https://a.example/dir";
const B: &str = "https://b.example/dir";

fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1_000_000)
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn facts(from: u64, to: u64) -> Facts {
    Facts {
        not_before: at(from),
        not_after: at(to),
        issuer: "Example CA".into(),
        certificate_id: Some(format!("key.{to}")),
        leaf: Vec::new().into(),
    }
}

/// A planner with these authorities and one name without a certificate.
fn planner(authorities: &[&str]) -> (Planner, Name) {
    let mut planner = Planner::new(Pace::default(), 7);
    planner.set_authorities(authorities.iter().map(ToString::to_string).collect());
    let one = name("one.example");
    planner.track(one.clone(), History::default(), None, false);
    (planner, one)
}

/// Directory of the next order and its time in seconds.
fn next(planner: &Planner, name: &Name, now: u64) -> (String, u64) {
    match planner.next(name, at(now)).unwrap() {
        Planned { at, task: Task::Obtain { authority, .. } } => (authority, at.seconds()),
        other => panic!("{other:?}"),
    }
}

/// Time of the next order, whatever is asked before it.
fn renews(planner: &Planner, name: &Name, now: u64) -> u64 {
    planner.history(name, at(now)).unwrap().next.unwrap().seconds()
}

fn fail(planner: &mut Planner, name: &Name, authority: &str, fault: Fault, now: u64) {
    planner.failed(name, authority, &fault, "no".into(), at(now));
}

const DOWN: Fault = Fault::Authority { wait: None };

fn suggested(start: u64, end: u64, ask_again: u64) -> WindowAnswer {
    let window = Window { start: at(start), end: at(end) };
    WindowAnswer::Suggested { window, ask_again: Duration::from_secs(ask_again) }
}

#[test]
fn a_name_without_a_certificate_is_ordered_at_once_and_without_authorities_nothing_is() {
    let (planner, one) = planner(&[A, B]);
    assert_eq!(next(&planner, &one, 1_000), (A.to_owned(), 1_000));
    let (planner, one) = super::tests::planner(&[]);
    assert_eq!(planner.next(&one, at(1_000)), None);
    assert_eq!(planner.next_time(at(1_000)), None);
}

#[test]
fn without_a_window_renewal_is_after_two_thirds_of_the_life_and_a_little_more() {
    for (from, life) in [(0, 90 * DAY), (1_000, 6 * DAY), (5, 3 * 365 * DAY), (5, 60)] {
        let mut seen = BTreeMap::new();
        for seed in 0..50 {
            let mut planner = Planner::new(Pace::default(), seed);
            planner.set_authorities(vec![A.into()]);
            planner.track(name("a.example"), History::default(), Some(&facts(from, from + life)), false);
            let renews = renews(&planner, &name("a.example"), from);
            let earliest = from + life * 2 / 3;
            assert!((earliest - 1..=earliest + life / 20 + 1).contains(&renews), "{from} {life} {renews}");
            seen.insert(renews, ());
        }
        assert!(seen.len() > 1, "jitter spreads renewals of {life} s");
    }
}

#[test]
fn what_was_drawn_once_is_kept_over_a_restart_and_not_for_another_certificate() {
    let (mut first, one) = planner(&[A]);
    first.issued(&one, A, &facts(0, 90 * DAY), at(0));
    let remembered = first.history(&one, at(0)).unwrap();
    let again = |facts: &Facts| {
        let mut planner = Planner::new(Pace::default(), 99);
        planner.set_authorities(vec![A.into()]);
        planner.track(one.clone(), remembered.clone(), Some(facts), false);
        planner.history(&one, at(0)).unwrap().issued.unwrap()
    };
    assert_eq!(again(&facts(0, 90 * DAY)), *remembered.issued.as_ref().unwrap());
    let other = again(&facts(0, 30 * DAY));
    assert_eq!(
        (other.authority, other.expires),
        (None, at(30 * DAY)),
        "put there by hand: its authority is unknown"
    );
}

#[test]
fn a_clock_past_the_end_or_stepping_back_means_what_it_should() {
    let (mut planner, one) = planner(&[A]);
    planner.issued(&one, A, &facts(100 * DAY, 190 * DAY), at(100 * DAY));
    let due = renews(&planner, &one, 100 * DAY);
    // (now, next order)
    for (now, expected) in [
        (100 * DAY, due),
        (due - 1, due),
        (due + 5, due + 5),
        (190 * DAY, 190 * DAY),
        (1_000 * DAY, 1_000 * DAY),
        (0, due),
        (99 * DAY, due),
    ] {
        assert_eq!(renews(&planner, &one, now), expected, "{now}");
    }
    // A back-off that began in what is now the future is over; one that holds is not made longer by it.
    fail(&mut planner, &one, A, Fault::Name, 191 * DAY);
    assert!(renews(&planner, &one, 191 * DAY) > 191 * DAY);
    assert_eq!(renews(&planner, &one, 10), due);
    let (mut planner, one) = super::tests::planner(&[A]);
    fail(
        &mut planner,
        &one,
        A,
        Fault::RateLimited { wait: Some(Duration::from_secs(DAY)), everywhere: true },
        DAY,
    );
    assert_eq!(next(&planner, &one, DAY).1, 2 * DAY);
    assert_eq!(next(&planner, &one, 10).1, 10);
    // A certificate that ends before it begins is over at once, and nothing is negative.
    planner.issued(&one, A, &facts(200, 100), at(150));
    assert_eq!(renews(&planner, &one, 150), 150);
}

#[test]
fn retries_wait_twice_as_long_each_time_with_jitter_up_to_a_bound() {
    let (mut planner, one) = planner(&[A]);
    let mut now = DAY;
    for failures in 0..14 {
        fail(&mut planner, &one, A, Fault::Local, now);
        let wait = next(&planner, &one, now).1 - now;
        let nominal = (FIRST_RETRY.as_secs() << failures).min(LONGEST_RETRY.as_secs());
        assert!(
            (nominal * 4 / 5 - 1..=nominal * 6 / 5).contains(&wait),
            "failure {failures}: {wait} of {nominal}"
        );
        now += wait;
    }
    planner.issued(&one, A, &facts(now, now + 90 * DAY), at(now));
    fail(&mut planner, &one, A, Fault::Local, now + 61 * DAY);
    planner.renew(&one);
    assert_eq!(next(&planner, &one, now + 62 * DAY).1, now + 62 * DAY, "a success forgets failures");
}

#[test]
fn a_name_fails_validation_five_times_an_hour_at_most() {
    let (mut planner, one) = planner(&[A]);
    let begin = DAY;
    let mut now = begin;
    for _ in 0..5 {
        fail(&mut planner, &one, A, Fault::Name, now);
        planner.renew(&one);
        assert!(next(&planner, &one, now).1 <= begin + HOUR);
        now += 10;
    }
    assert_eq!(next(&planner, &one, now).1, begin + HOUR, "not even an operator gets a sixth");
    assert_eq!(next(&planner, &one, begin + HOUR).1, begin + HOUR);
    // What is not the name's fault does not count.
    let (mut planner, one) = super::tests::planner(&[A]);
    for count in 0..6 {
        fail(&mut planner, &one, A, Fault::Local, begin + count);
        planner.renew(&one);
        assert_eq!(next(&planner, &one, begin + count).1, begin + count);
    }
}

#[test]
fn after_three_failures_the_next_authority_is_asked_and_then_the_first_again() {
    let (mut planner, one) = planner(&[A, B]);
    let mut now = DAY;
    let mut asked = Vec::new();
    for _ in 0..8 {
        let (authority, when) = next(&planner, &one, now);
        now = when;
        asked.push(authority.clone());
        fail(&mut planner, &one, &authority, Fault::Name, now);
    }
    assert_eq!(asked, [A, A, A, B, B, B, A, A]);
    planner.issued(&one, B, &facts(now, now + 90 * DAY), at(now));
    planner.renew(&one);
    assert_eq!(next(&planner, &one, now).0, A, "after a success the first is preferred again");
    let (mut planner, one) = super::tests::planner(&[A, B]);
    for count in 0..5 {
        fail(&mut planner, &one, A, Fault::Local, DAY + count);
    }
    assert_eq!(next(&planner, &one, 3 * DAY).0, A, "a fault of our own is nobody else's");
}

#[test]
fn an_authority_that_is_down_is_left_for_the_next_by_every_name() {
    let (mut planner, one) = planner(&[A, B]);
    let [two, three, four, five] = ["two.example", "three.example", "four.example", "five.example"].map(name);
    for name in [&two, &three, &four, &five] {
        planner.track(name.clone(), History::default(), None, false);
    }
    let now = DAY;
    fail(&mut planner, &one, A, DOWN, now);
    assert_eq!(next(&planner, &one, now), (B.to_owned(), now), "the other is asked at once");
    assert_eq!(next(&planner, &two, now), (A.to_owned(), now), "one failure proves little to others");
    fail(&mut planner, &two, A, DOWN, now);
    fail(&mut planner, &three, A, DOWN, now);
    for name in [&three, &four] {
        assert_eq!(next(&planner, name, now), (B.to_owned(), now), "{name}");
    }
    // Orders that were under way then do not make the hold longer.
    for _ in 0..5 {
        fail(&mut planner, &four, A, DOWN, now + 1);
    }
    assert_eq!(next(&planner, &name("four.example"), now + 61 + 3_000).0, B, "four went on to the next");
    assert_eq!(next(&planner, &five, now + 61).0, A, "after its hold it is tried again");
    fail(&mut planner, &five, A, DOWN, now + 61);
    assert_eq!(next(&planner, &five, now + 62), (B.to_owned(), now + 62));
    // With all of them down, the one that is free first is waited for.
    for _ in 0..3 {
        fail(&mut planner, &three, B, DOWN, now + 62);
    }
    let (authority, when) = next(&planner, &two, now + 62);
    assert_eq!((authority.as_str(), when), (B, now + 62 + 60));
}

#[test]
fn an_authority_is_left_alone_as_long_as_it_asks_and_a_limit_of_one_name_does_not_stop_others() {
    let wait = |seconds| Some(Duration::from_secs(seconds));
    // (fault, next order of the same name, next order of another), from now on, with one authority
    for (fault, same, other) in [
        (Fault::RateLimited { wait: wait(2 * HOUR), everywhere: true }, 2 * HOUR, 2 * HOUR),
        (Fault::RateLimited { wait: wait(34 * HOUR), everywhere: false }, 34 * HOUR, 60),
        (Fault::RateLimited { wait: wait(90 * DAY), everywhere: true }, 7 * DAY, 7 * DAY),
        (Fault::RateLimited { wait: None, everywhere: true }, 60, 60),
        (Fault::Authority { wait: wait(600) }, 600, 600),
    ] {
        let (mut planner, one) = planner(&[A]);
        planner.track(name("two.example"), History::default(), None, false);
        fail(&mut planner, &one, A, fault.clone(), DAY);
        let same_seen = next(&planner, &one, DAY).1 - DAY;
        assert!((same..=same + 12).contains(&same_seen), "{fault:?} {same_seen}");
        assert_eq!(next(&planner, &name("two.example"), DAY).1 - DAY, other, "{fault:?}");
        // Neither an operator nor new settings change what the authority asked for.
        planner.renew(&one);
        planner.try_again();
        assert_eq!(next(&planner, &one, DAY).1 - DAY, same, "{fault:?}");
    }
    let (mut planner, one) = super::tests::planner(&[A, B]);
    fail(&mut planner, &one, A, Fault::RateLimited { wait: wait(34 * HOUR), everywhere: false }, DAY);
    assert_eq!(next(&planner, &one, DAY), (B.to_owned(), DAY), "the next authority has no such limit");
}

#[test]
fn new_settings_end_back_off_and_holds_of_our_own() {
    let (mut planner, one) = planner(&[A]);
    for count in 0..4 {
        fail(&mut planner, &one, A, DOWN, DAY + count);
    }
    assert!(next(&planner, &one, DAY + 10).1 > DAY + 10);
    planner.try_again();
    assert_eq!(next(&planner, &one, DAY + 10).1, DAY + 10);
}

#[test]
fn orders_are_bounded_at_a_time_and_per_period_and_failing_names_come_last() {
    let (mut planner, one) = planner(&[A]);
    fail(&mut planner, &one, A, Fault::Local, 0);
    planner.renew(&one);
    for number in 0..ORDERS_PER_PERIOD + 5 {
        planner.track(name(&format!("n{number:03}.example")), History::default(), None, false);
    }
    planner.track(name("late.example"), History::default(), Some(&facts(0, 100)), false);
    let now = at(DAY);
    let first = planner.start_due(now, 8);
    assert_eq!(first.len(), 8);
    assert!(planner.next(&first[0].0, now).is_none(), "what is under way is not begun twice");
    let rest = planner.start_due(now, usize::MAX);
    assert_eq!(rest.len(), ORDERS_PER_PERIOD - 8);
    assert!(rest.iter().all(|(name, _)| *name != one), "names that never failed come first");
    assert!(planner.start_due(now, usize::MAX).is_empty());
    let later = planner.next_time(now).unwrap();
    assert_eq!(later, now.plus(ORDERS_PERIOD));
    let last = planner.start_due(later, usize::MAX);
    assert_eq!(last.len(), 7);
    assert_eq!(last[6].0, one);
}

#[test]
fn the_certificate_that_ends_first_is_renewed_first() {
    let mut planner = Planner::new(Pace::default(), 1);
    planner.set_authorities(vec![A.into()]);
    for (text, end) in [("a.example", 300), ("b.example", 100), ("c.example", 200)] {
        planner.track(name(text), History::default(), Some(&facts(0, end)), false);
    }
    planner.track(name("d.example"), History::default(), None, false);
    let started = planner.start_due(at(400), 3);
    let order: Vec<&str> = started.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(order, ["d.example", "b.example", "c.example"]);
}

#[test]
fn renewal_information_decides_when_it_makes_sense() {
    let life = (100 * DAY, 190 * DAY);
    let own = 160 * DAY;
    // (answer at day 100, renewal lies within, the question is repeated after)
    for (answer, within, again) in [
        (suggested(130 * DAY, 132 * DAY, 6 * HOUR), (130 * DAY, 132 * DAY), 6 * HOUR),
        (suggested(90 * DAY, 91 * DAY, HOUR), (100 * DAY, 100 * DAY), HOUR),
        (suggested(130 * DAY, 132 * DAY, 1), (130 * DAY, 132 * DAY), 60),
        (suggested(130 * DAY, 132 * DAY, 9 * DAY), (130 * DAY, 132 * DAY), DAY),
        (suggested(185 * DAY, 400 * DAY, HOUR), (185 * DAY, 190 * DAY), HOUR),
        (suggested(132 * DAY, 130 * DAY, HOUR), (own, own + 5 * DAY), 6 * HOUR),
        (suggested(130 * DAY, 130 * DAY, HOUR), (own, own + 5 * DAY), 6 * HOUR),
        (suggested(200 * DAY, 210 * DAY, HOUR), (own, own + 5 * DAY), 6 * HOUR),
        (WindowAnswer::Failed, (own, own + 5 * DAY), 6 * HOUR),
        (WindowAnswer::Unsupported, (own, own + 5 * DAY), DAY),
    ] {
        let (mut planner, one) = planner(&[A]);
        planner.issued(&one, A, &facts(life.0, life.1), at(life.0));
        let id = format!("key.{}", life.1);
        let ask = Task::AskWindow { authority: A.into(), certificate_id: id.clone() };
        assert_eq!(planner.start_due(at(life.0), 8), [(one.clone(), ask)], "asked right after issue");
        planner.window(&one, &id, &answer, at(life.0));
        let renews = renews(&planner, &one, life.0);
        assert!((within.0..=within.1).contains(&renews), "{answer:?}: {}", renews / DAY);
        if within.0 > life.0 {
            let planned = planner.next(&one, at(life.0)).unwrap();
            assert!(matches!(planned.task, Task::AskWindow { .. }));
            assert_eq!(planned.at, at(life.0 + again), "{answer:?}");
            // Asking again with the same answer does not draw anew; another certificate's answer changes nothing.
            planner.window(&one, &id, &answer, at(life.0 + again));
            planner.window(&one, "key.other", &suggested(101 * DAY, 102 * DAY, HOUR), at(life.0 + again));
            assert_eq!(super::tests::renews(&planner, &one, life.0 + again), renews);
        }
    }
}

#[test]
fn a_renewal_says_what_it_replaces_only_to_who_gave_it_and_only_while_it_is_not_revoked() {
    let replaces = |planner: &Planner, name: &Name, now| match planner.next(name, at(now)).unwrap().task {
        Task::Obtain { authority, replaces } => (authority, replaces),
        other => panic!("{other:?}"),
    };
    let (mut planner, one) = planner(&[A, B]);
    let end = 90 * DAY;
    planner.issued(&one, A, &facts(0, end), at(0));
    planner.renew(&one);
    assert_eq!(replaces(&planner, &one, DAY), (A.to_owned(), Some(format!("key.{end}"))));
    planner.revoked(&one, at(end + 1));
    assert!(replaces(&planner, &one, DAY).1.is_some(), "another certificate has been revoked");
    planner.revoked(&one, at(end));
    assert_eq!(replaces(&planner, &one, DAY), (A.to_owned(), None));
    planner.issued(&one, B, &facts(DAY, end), at(DAY));
    assert!(renews(&planner, &one, DAY) > DAY, "its successor is not renewed at once");
    planner.renew(&one);
    assert_eq!(replaces(&planner, &one, DAY), (A.to_owned(), None));
}

#[test]
fn names_that_are_let_go_stay_away_and_authorities_that_go_are_not_asked() {
    let (mut planner, one) = planner(&[A, B]);
    planner.start_due(at(DAY), 1);
    planner.forget(&one);
    planner.issued(&one, A, &facts(0, DAY), at(DAY));
    fail(&mut planner, &one, A, Fault::Name, DAY);
    assert_eq!(planner.names().count(), 0);
    let (mut planner, one) = super::tests::planner(&[A, B]);
    for count in 0..3 {
        fail(&mut planner, &one, A, Fault::Name, DAY + count);
    }
    assert_eq!(next(&planner, &one, 2 * DAY).0, B);
    planner.set_authorities(vec![A.into()]);
    assert_eq!(next(&planner, &one, 2 * DAY).0, A);
}

#[test]
fn an_authority_without_renewal_information_is_asked_once_a_day_and_not_for_every_name() {
    let (mut planner, one) = planner(&[A]);
    let two = name("two.example");
    planner.track(two.clone(), History::default(), None, false);
    planner.issued(&one, A, &facts(0, 90 * DAY), at(0));
    planner.issued(&two, A, &facts(0, 80 * DAY), at(0));
    planner.window(&one, &format!("key.{}", 90 * DAY), &WindowAnswer::Unsupported, at(0));
    for name in [&one, &two] {
        let planned = planner.next(name, at(10)).unwrap();
        assert!(matches!(planned.task, Task::AskWindow { .. }));
        assert_eq!(planned.at, at(DAY), "{name}");
    }
}
