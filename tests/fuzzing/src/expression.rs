//! `expression`: the rules language, and rules evaluated together against the same rules one by one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use expr::{
    Array, Context, Fetched, FieldId, Filter, Items, List, Map, Options, Pairs, RuleSet, Steps, Truth, Type,
    Value, ValueExpression,
};

/// Rules and facts of one input; what follows is not read.
const LINES_MOST: usize = 32;
const LISTS: &[(&str, Type)] = &[("office", Type::Ip), ("names", Type::Bytes), ("gone", Type::Int)];

enum Fact {
    Unknown,
    Bool(bool),
    Int(i64),
    Ip(IpAddr),
    Bytes(Vec<u8>),
    Strings(Vec<Vec<u8>>),
    Numbers(Numbers),
    Pairs(Vec<(Vec<u8>, Vec<u8>)>),
    Scores(Scores),
}

struct Numbers(Vec<i64>);
struct Scores(Vec<(Vec<u8>, i64)>);

impl Items for Numbers {
    fn at(&self, position: usize) -> Option<Value<'_>> {
        self.0.get(position).copied().map(Value::Int)
    }
}

impl Pairs for Scores {
    fn pair(&self, position: usize) -> Option<(&[u8], Value<'_>)> {
        self.0.get(position).map(|(key, score)| (key.as_slice(), Value::Int(*score)))
    }
}

/// Facts by field; what there is no fact of is missing.
struct Request(BTreeMap<FieldId, Fact>);

impl Context for Request {
    fn field(&self, field: FieldId) -> Fetched<'_> {
        let Some(fact) = self.0.get(&field) else { return Fetched::Missing };
        Fetched::Value(match fact {
            Fact::Unknown => return Fetched::Unknown,
            Fact::Bool(value) => Value::Bool(*value),
            Fact::Int(value) => Value::Int(*value),
            Fact::Ip(value) => Value::Ip(*value),
            Fact::Bytes(value) => Value::text(value),
            Fact::Strings(values) => Value::Array(Array::Kept(values)),
            Fact::Numbers(values) => Value::Array(Array::Kept(values)),
            Fact::Pairs(values) => Value::Map(Map::Grouped(values)),
            Fact::Scores(values) => Value::Map(Map::Single(values)),
        })
    }

    fn list(&self, name: &str) -> Option<&dyn List> {
        if name == "gone" { None } else { Some(&Listed) }
    }
}

struct Listed;

impl List for Listed {
    fn contains_ip(&self, address: IpAddr) -> Truth {
        Truth::from(address.is_ipv4())
    }

    fn contains_bytes(&self, bytes: &[u8]) -> Truth {
        Truth::from(bytes.len() < 4)
    }
}

/// A byte for the steps of each rule; rules, a line each; an empty line; facts: `name=value`, `name[]=value`,
/// `name{key}=value`, `name?` for one that is not known.
pub fn run(data: &[u8]) {
    let Some((budget, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let (rules, facts) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut request = Request(BTreeMap::new());
    facts.lines().take(LINES_MOST).for_each(|line| add(&mut request, line));
    let filters: Vec<_> = rules.lines().take(LINES_MOST).filter_map(|line| one(line, &request)).collect();
    together(filters, &request, usize::from(*budget) * 4);
}

/// One expression: refused with a place in it, or the same when printed and parsed again.
fn one(source: &str, request: &Request) -> Option<Arc<Filter>> {
    let options = Options { lists: LISTS, ..Options::default() };
    if let Ok(value) = ValueExpression::parse(source, &options) {
        let made = value.evaluate(request, &mut Steps::default());
        assert!(!matches!(made, Fetched::Value(ref value) if !matches!(value, Value::Bytes(_))), "{source}");
    }
    let filter = match Filter::parse(source, &options) {
        Ok(filter) => filter,
        Err(error) => {
            assert!(error.line == 1 && error.column <= source.chars().count() + 1, "{error}");
            assert!(error.to_string().contains('^') && !error.reason.is_empty(), "{error}");
            return None;
        }
    };
    let printed = expr::canonical(source).unwrap_or_else(|error| panic!("{error}"));
    let again =
        expr::canonical(&printed).unwrap_or_else(|error| panic!("{source} was printed as this: {error}"));
    assert_eq!(printed, again, "{source}");
    let options = Options { source_most: usize::MAX, ..options };
    let twin = Filter::parse(&printed, &options)
        .unwrap_or_else(|error| panic!("{source} was printed as this: {error}"));
    let truth = filter.evaluate(request, &mut Steps::default());
    assert_eq!(twin.evaluate(request, &mut Steps::default()), truth, "{source}");
    assert_eq!(filter.explain(request).first().map(|line| line.truth), Some(truth), "{source}");
    assert_eq!(filter.reads(), twin.reads(), "{source}");
    Some(Arc::new(filter))
}

fn together(filters: Vec<Arc<Filter>>, request: &Request, budget: usize) {
    let rules = RuleSet::new(filters);
    for most in [budget, Steps::USUAL] {
        let mut expected = Vec::new();
        for (rule, filter) in rules.filters().iter().enumerate() {
            let mut steps = Steps::new(most);
            let truth = filter.evaluate(request, &mut steps);
            if truth != Truth::False {
                expected.push((rule, truth, steps.exhausted()));
            }
        }
        let mut shown = Vec::new();
        let evaluated = rules.matches(request, most, &mut |rule, truth, exhausted| {
            shown.push((rule, truth, exhausted));
            true
        });
        assert_eq!(shown, expected, "with {most} steps");
        assert!(evaluated <= rules.filters().len());
    }
}

fn add(request: &mut Request, line: &str) {
    if let Some(name) = line.strip_suffix('?') {
        if let Some(field) = expr::fields::find(name) {
            request.0.insert(field, Fact::Unknown);
        }
        return;
    }
    let Some((place, text)) = line.split_once('=') else { return };
    let (name, index) = place.split_at(place.find(['[', '{']).unwrap_or(place.len()));
    let Some(field) = expr::fields::find(name) else { return };
    let key = index.strip_prefix('{').and_then(|key| key.strip_suffix('}')).unwrap_or("").as_bytes().to_vec();
    let value = text.as_bytes().to_vec();
    let number = text.parse().unwrap_or(0);
    let empty = || match field.field().kind {
        Type::Bool => Some(Fact::Bool(text == "true")),
        Type::Int => Some(Fact::Int(number)),
        Type::Ip => text.parse().ok().map(Fact::Ip),
        Type::Bytes => Some(Fact::Bytes(value.clone())),
        Type::STRINGS => Some(Fact::Strings(Vec::new())),
        Type::Array(Type::Int) => Some(Fact::Numbers(Numbers(Vec::new()))),
        Type::Map(Type::Array(Type::Bytes)) => Some(Fact::Pairs(Vec::new())),
        Type::Map(Type::Int) => Some(Fact::Scores(Scores(Vec::new()))),
        _ => None,
    };
    let Some(new) = empty() else { return };
    match request.0.entry(field).or_insert(new) {
        Fact::Strings(values) => values.push(value),
        Fact::Numbers(Numbers(values)) => values.push(number),
        Fact::Pairs(pairs) => pairs.push((key, value)),
        Fact::Scores(Scores(pairs)) if pairs.iter().all(|(known, _)| *known != key) => {
            pairs.push((key, number))
        }
        _ => (),
    }
}
