//! The same truth as Cloudflare's published engine, for the part of the language that version has.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod support;

use base::random::Random;
use expr::{Filter, Options, Steps, Truth};
use support::{Fact, Request, random};
use wirefilter::{ExecutionContext, Scheme, Type};

const ROUNDS: u64 = 5_000;

fn values<'s>(scheme: &'s Scheme, request: &'s Request) -> ExecutionContext<'s> {
    let mut context = ExecutionContext::new(scheme);
    for (field, fact) in &request.facts {
        let name = field.field().name;
        let set = match fact {
            Fact::Bytes(bytes) => context.set_field_value(name, &bytes[..]),
            Fact::Ip(address) => context.set_field_value(name, *address),
            Fact::Int(value) => context.set_field_value(name, i32::try_from(*value).unwrap()),
            _ => continue,
        };
        set.unwrap();
    }
    context
}

#[test]
fn truths_agree_with_the_published_engine() {
    let mut scheme = Scheme::default();
    for (name, kind) in [
        ("http.host", Type::Bytes),
        ("http.request.uri.path", Type::Bytes),
        ("ip.src", Type::Ip),
        ("tcp.dstport", Type::Int),
    ] {
        scheme.add_field(name.to_owned(), kind).unwrap();
    }
    let mut seeded = Random::seeded(9);
    let mut held = 0;
    for round in 0..ROUNDS {
        let source = random::expression(&mut seeded, (round % 4) as u32, true);
        let request = random::request(&mut seeded, false);
        let context = values(&scheme, &request);
        let theirs = scheme.parse(&source).unwrap_or_else(|error| panic!("{error}")).compile();
        let theirs = theirs.execute(&context).unwrap();
        let ours = Filter::parse(&source, &Options::default()).unwrap_or_else(|error| panic!("{error}"));
        let ours = ours.evaluate(&request, &mut Steps::default());
        assert_eq!(ours, Truth::from(theirs), "{source}\n{request:?}");
        held += u64::from(theirs);
    }
    assert!(held > ROUNDS / 4 && held < ROUNDS * 3 / 4, "{held} of {ROUNDS} held");
}
