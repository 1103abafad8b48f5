//! What holds for every expression: Unknown never decides, and steps only ever take certainty away.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod support;

use base::random::Random;
use expr::{Filter, Options, Steps, Truth};
use support::random as random_input;
use support::{Fact, LISTS, Request};

const ROUNDS: u64 = 20_000;

fn options() -> Options<'static> {
    Options { lists: LISTS, source_most: 1 << 16, ..Options::default() }
}

fn truth(filter: &Filter, request: &Request) -> Truth {
    filter.evaluate(request, &mut Steps::default())
}

/// Replace fields by Unknown: the truth is then Unknown, or what it is for every value those fields could have.
#[test]
fn what_is_said_despite_an_unknown_field_holds_for_every_value_of_it() {
    let mut random = Random::seeded(6);
    let (mut decided, mut unknown) = (0, 0);
    for round in 0..ROUNDS {
        let source = random_input::expression(&mut random, (round % 4) as u32, false);
        let filter = Filter::parse(&source, &options()).unwrap_or_else(|error| panic!("{error}"));
        let mut request = random_input::request(&mut random, true);
        let hidden: Vec<&str> =
            random_input::FIELDS.iter().copied().filter(|_| random.below(3) == 0).collect();
        for name in &hidden {
            request.facts.insert(expr::fields::find(name).unwrap(), Fact::Unknown);
        }
        let claimed = truth(&filter, &request);
        if claimed == Truth::Unknown {
            unknown += 1;
            continue;
        }
        decided += 1;
        for _ in 0..8 {
            let mut concrete = request.clone();
            for name in &hidden {
                let id = expr::fields::find(name).unwrap();
                match random_input::fact(&mut random, name, true) {
                    Some(fact) => concrete.facts.insert(id, fact),
                    None => concrete.facts.remove(&id),
                };
            }
            assert_eq!(truth(&filter, &concrete), claimed, "{source}\nhidden {hidden:?}\n{concrete:?}");
        }
    }
    assert!(decided > ROUNDS / 5 && unknown > ROUNDS / 20, "{decided} decided, {unknown} unknown");
}

#[test]
fn a_short_budget_gives_the_same_truth_or_none() {
    let mut random = Random::seeded(7);
    for _ in 0..ROUNDS / 4 {
        let source = random_input::expression(&mut random, 2, false);
        let filter = Filter::parse(&source, &options()).unwrap();
        let request = random_input::request(&mut random, true);
        let whole = truth(&filter, &request);
        for most in [0, 1, 2, 3, 5, 8, 13] {
            let short = filter.evaluate(&request, &mut Steps::new(most));
            assert!(
                short == whole || short == Truth::Unknown,
                "{source} with {most} steps: {short:?}, {whole:?}"
            );
        }
    }
}

#[test]
fn no_text_makes_the_parser_panic() {
    let mut random = Random::seeded(8);
    for _ in 0..ROUNDS {
        let mut source = random_input::expression(&mut random, 1, false).into_bytes();
        for _ in 0..=random.below(3) {
            let at = random.below(source.len() as u32) as usize;
            source[at] = b"\"\\(){}[]*$.:/-r#0ax ,!&|^~\xc3\xa4\t"[random.below(29) as usize];
        }
        let source = String::from_utf8_lossy(&source).into_owned();
        if let Err(error) = Filter::parse(&source, &options()) {
            assert!(error.to_string().contains('^') && error.column >= 1);
        }
    }
}
