//! Rules evaluated together have the truths they have one by one, whatever is missing, unknown or too dear.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;

use base::random::Random;
use expr::{Filter, Options, RuleSet, Steps, Truth};
use support::{Fact, LISTS, Request, random as random_input};

const ROUNDS: u64 = 1_500;
const BUDGETS: [usize; 12] = [0, 1, 2, 3, 5, 8, 13, 30, 60, 120, 1_000, Steps::USUAL];

fn parse(source: &str) -> Arc<Filter> {
    let options = Options { lists: LISTS, source_most: 1 << 16, ..Options::default() };
    Arc::new(Filter::parse(source, &options).unwrap_or_else(|error| panic!("{error}")))
}

type Shown = Vec<(usize, Truth, bool)>;

fn one_by_one(filters: &[Arc<Filter>], request: &Request, most: usize) -> Shown {
    let mut shown = Vec::new();
    for (rule, filter) in filters.iter().enumerate() {
        let mut steps = Steps::new(most);
        let truth = filter.evaluate(request, &mut steps);
        if truth != Truth::False {
            shown.push((rule, truth, steps.exhausted()));
        }
    }
    shown
}

/// What is shown until there were `stop` of them, and how many rules were evaluated.
fn together(rules: &RuleSet, request: &Request, most: usize, stop: usize) -> (Shown, usize) {
    let mut shown = Vec::new();
    let evaluated = rules.matches(request, most, &mut |rule, truth, exhausted| {
        shown.push((rule, truth, exhausted));
        shown.len() < stop
    });
    (shown, evaluated)
}

/// A request with things hidden, and now and then a text so long that looking through it is dear.
fn request(random: &mut Random) -> Request {
    let mut request = random_input::request(random, true);
    request.lists_unknown = random.below(5) == 0;
    for name in random_input::FIELDS {
        let id = expr::fields::find(name).unwrap();
        match (random.below(20), request.facts.get_mut(&id)) {
            (0, _) => drop(request.facts.insert(id, Fact::Unknown)),
            // Of another type than the table says.
            (1, _) if random.below(4) == 0 => drop(request.facts.insert(id, Fact::Bool(true))),
            (2, Some(Fact::Bytes(bytes))) => bytes.extend(std::iter::repeat_n(b'b', 40 << random.below(12))),
            (3, Some(Fact::Strings(texts))) => texts.extend((0..200).map(|at| vec![b'c'; at])),
            (4, Some(Fact::Pairs(pairs))) => {
                pairs.extend((0..100).map(|at| (vec![b'a'; at % 3], vec![b'c'; at])))
            }
            _ => (),
        }
    }
    request
}

#[test]
fn truths_together_are_the_truths_one_by_one() {
    let mut random = Random::seeded(10);
    let (mut looked_at, mut all, mut fired) = (0, 0, 0);
    for round in 0..ROUNDS {
        let count = 1 + random.below(if round % 10 == 0 { 200 } else { 20 });
        let sources: Vec<String> = (0..count)
            .map(|_| {
                let depth = random.below(4);
                random_input::expression(&mut random, depth, false)
            })
            .collect();
        let rules = RuleSet::new(sources.iter().map(|source| parse(source)).collect());
        for _ in 0..6 {
            let request = request(&mut random);
            for most in [BUDGETS[random.below(12) as usize], Steps::USUAL] {
                let expected = one_by_one(rules.filters(), &request, most);
                let (shown, evaluated) = together(&rules, &request, most, usize::MAX);
                assert_eq!(shown, expected, "{most} steps, {request:?}\n{}", sources.join("\n"));
                let stop = 1 + random.below(4) as usize;
                let (first, _) = together(&rules, &request, most, stop);
                assert_eq!(first, expected[..stop.min(expected.len())], "the first {stop}");
                if most == Steps::USUAL {
                    looked_at += evaluated;
                    all += sources.len();
                    fired += expected.len();
                }
            }
        }
    }
    // Half of all rules hold in so small a world; of the others a good part is not looked at.
    assert!(fired < looked_at && looked_at < all * 9 / 10, "{looked_at} of {all} evaluated, {fired} shown");
}

#[test]
fn what_functions_give_up_on_is_unknown_together_too() {
    let rules = RuleSet::new(vec![
        parse("lower(http.host) == \"a\""),
        parse("any(lower(http.request.headers.names[*])[*] == \"a\")"),
        parse("http.host == \"a\""),
    ]);
    let mut request = Request::default();
    request.facts.insert(expr::fields::find("http.host").unwrap(), Fact::Bytes(vec![b'x'; 100_000]));
    let names = Fact::Strings(vec![b"x".to_vec(); 5_000]);
    request.facts.insert(expr::fields::find("http.request.headers.names").unwrap(), names);
    let (shown, evaluated) = together(&rules, &request, Steps::USUAL, usize::MAX);
    assert_eq!(shown, [(0, Truth::Unknown, false), (1, Truth::Unknown, false)]);
    assert_eq!(shown, one_by_one(rules.filters(), &request, Steps::USUAL));
    assert_eq!(evaluated, 2);
}

#[test]
fn few_rules_are_looked_at() {
    let sources = (0..1_000).map(|number| match number % 8 {
        0 => format!("http.host eq \"shop{number}.example\""),
        1 => format!("http.request.uri.path contains \"/part-{number}/\" and ip.src in $office"),
        2 => format!("http.request.uri.path matches \"(?i)^/Old-{number}/[0-9]+$\""),
        3 => format!("ip.src in {{10.{}.{}.0/24 2001:db8:{number:x}::/48}}", number / 250, number % 250),
        4 => format!(
            "lower(http.request.uri.path) wildcard \"/w{number}/*\" or http.host in {{\"x{number}\"}}"
        ),
        5 => format!("any(http.request.headers[\"x\"][*] eq \"{number}\")"),
        6 => format!("not ssl and tcp.dstport eq {} and http.host ne \"\"", 2000 + number),
        _ => format!("starts_with(http.request.uri.path, \"/start-{number}\") and not ssl"),
    });
    let rules = RuleSet::new(sources.map(|source| parse(&source)).collect());
    let mut request = Request::default();
    for line in
        ["http.host = shop8.example", "http.request.uri.path = /part-9/", "ip.src = 10.0.11.9", "ssl = true"]
    {
        support::add_fact(&mut request, line);
    }
    let (shown, evaluated) = together(&rules, &request, Steps::USUAL, usize::MAX);
    assert_eq!(shown, one_by_one(rules.filters(), &request, Steps::USUAL));
    assert_eq!(shown.iter().map(|(rule, ..)| *rule).collect::<Vec<_>>(), [8, 11]);
    assert_eq!(evaluated, 2, "rules looked at");
    // Long values do not make more rules worth a look.
    let mut long = request.clone();
    long.facts.insert(expr::fields::find("http.request.uri.path").unwrap(), Fact::Bytes(vec![b'/'; 60_000]));
    let (shown, evaluated) = together(&rules, &long, Steps::USUAL, usize::MAX);
    assert_eq!(shown, one_by_one(rules.filters(), &long, Steps::USUAL));
    assert_eq!(evaluated, 2, "rules looked at for a long path");
    let memory = rules.memory();
    assert!(memory.index > 50_000 && memory.index < 5_000_000, "{memory:?}");
    assert_eq!(memory.regexes_a_thread, 125 * 2 * (256 << 10));
}

#[test]
fn conditions_on_more_places_than_are_looked_at_are_left_to_the_rules() {
    let sources = (0..200).map(|number| format!("any(http.request.headers[\"h{number}\"][*] eq \"v\")"));
    let rules = RuleSet::new(sources.map(|source| parse(&source)).collect());
    let mut request = Request::default();
    for line in ["http.request.headers{h3} = v", "http.request.headers{h199} = v"] {
        support::add_fact(&mut request, line);
    }
    let (shown, evaluated) = together(&rules, &request, Steps::USUAL, usize::MAX);
    assert_eq!(shown, [(3, Truth::True, false), (199, Truth::True, false)]);
    assert!(evaluated > 100 && evaluated < 200, "{evaluated}");
}

#[test]
fn an_empty_set_shows_nothing() {
    let shown = together(&RuleSet::new(Vec::new()), &Request::default(), 0, 1);
    assert_eq!(shown, (Vec::new(), 0));
}

#[test]
fn what_an_expression_reads_is_told() {
    let filter = parse(
        "any(lower(http.request.headers[\"a\"][*])[*] matches \"x\") and ip.src in $office and not http.host in $names \
         and (ssl or http.host matches \"y\")",
    );
    let reads = filter.reads();
    let mut names: Vec<_> = reads.fields.iter().map(|field| field.field().name).collect();
    names.sort_unstable();
    assert_eq!(names, ["http.host", "http.request.headers", "ip.src", "ssl"]);
    assert_eq!(reads.lists, ["names", "office"]);
    assert_eq!(reads.functions, ["any", "lower"]);
    assert_eq!(reads.regexes, 2);
}
