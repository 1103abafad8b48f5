//! Every field: there with its type, from its first phase on and not before, missing and unknown as every field is.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod support;

use expr::{Filter, Options, Phase, Steps, Truth, Type};
use support::{Fact, Request};

/// A comparison of a field, and one that does not suit its type.
fn comparisons(name: &str, kind: Type) -> Option<(String, String)> {
    Some(match kind {
        Type::Bool => (name.to_owned(), format!("{name} eq 1")),
        Type::Int => (format!("{name} lt 5"), format!("{name} contains \"a\"")),
        Type::Bytes => (format!("{name} ne \"a\""), format!("{name} & 1")),
        Type::Ip => (format!("{name} in {{10.0.0.0/8}}"), format!("{name} matches \"a\"")),
        Type::Array(Type::Bytes) => (format!("any({name}[*] eq \"a\")"), format!("{name}[\"a\"] eq \"a\"")),
        Type::Array(Type::Int) => (format!("any({name}[*] gt 3)"), format!("{name}[0] eq \"a\"")),
        Type::Array(Type::Array(Type::Bytes)) => {
            (format!("any({name}[*][*] eq \"a\")"), format!("{name}[0] eq \"a\""))
        }
        Type::Map(Type::Int) => (format!("{name}[\"a\"] lt 5"), format!("{name}[0] lt 5")),
        Type::Map(Type::Array(Type::Bytes)) => {
            (format!("{name}[\"a\"][0] eq \"a\""), format!("{name}[\"a\"] eq \"a\""))
        }
        Type::Map(Type::Array(Type::Int)) => {
            (format!("any({name}[\"a\"][*] eq 1)"), format!("{name}[0][0] eq 1"))
        }
        _ => return None,
    })
}

#[test]
fn the_table_has_the_documented_fields() {
    let mut documented = Vec::new();
    for line in include_str!("fields.txt").lines().filter(|line| !line.starts_with('#')) {
        let (kind, names) = line.split_once(": ").unwrap();
        for name in names.split(' ') {
            let id = expr::fields::find(name).unwrap_or_else(|| panic!("no field {name}"));
            assert_eq!(id.field().kind.to_string(), kind, "{name}");
            documented.push(id);
        }
    }
    let forgotten: Vec<_> =
        expr::fields::all().filter(|(id, _)| !documented.contains(id)).map(|(_, field)| field.name).collect();
    // The names and values of claims are arrays beside their map; they have no line of their own.
    let others: Vec<_> =
        forgotten.iter().filter(|name| !name.starts_with("http.request.jwt.claims.")).collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(forgotten.len(), 12, "{forgotten:?}");
}

#[test]
fn fields_are_allowed_from_their_first_phase_on() {
    for (_, field) in expr::fields::all() {
        let (right, wrong) =
            comparisons(field.name, field.kind).unwrap_or_else(|| panic!("{}: {}", field.name, field.kind));
        for phase in Phase::ALL {
            let parsed = Filter::parse(&right, &Options { phase: Some(*phase), ..Options::default() });
            match parsed {
                Ok(_) => assert!(*phase >= field.since, "{right} in {phase:?}"),
                Err(error) => {
                    assert!(*phase < field.since, "{error}");
                    assert!(error.reason.contains("is not allowed in phase"), "{error}");
                }
            }
        }
        let refused = Filter::parse(&wrong, &Options::default());
        assert!(refused.is_err(), "{wrong} is allowed");
        assert!(field.doc.ends_with('.') && field.doc.len() > 5, "{}: {}", field.name, field.doc);
    }
}

#[test]
fn fields_are_missing_and_unknown_alike() {
    for (id, field) in expr::fields::all() {
        let (source, _) = comparisons(field.name, field.kind).unwrap_or_else(|| panic!("{}", field.name));
        let filter = Filter::parse(&source, &Options::default()).unwrap();
        assert_eq!(filter.reads().fields, [id], "{source}");
        let mut request = Request::default();
        assert_eq!(filter.evaluate(&request, &mut Steps::default()), Truth::False, "{source} of nothing");
        request.facts.insert(id, Fact::Unknown);
        assert_eq!(
            filter.evaluate(&request, &mut Steps::default()),
            Truth::Unknown,
            "{source} of an unknown value"
        );
    }
}

#[test]
fn old_names_are_names_of_the_same_fields() {
    for (old, new) in expr::fields::ALIASES {
        assert!(
            expr::fields::find(old).is_some() && expr::fields::find(old) == expr::fields::find(new),
            "{old}"
        );
    }
}
