//! A request of facts written in a case file, and how cases are read.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "what goes wrong here fails a test"
)]
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod random;

use std::collections::BTreeMap;
use std::net::IpAddr;

use expr::{Array, Context, Fetched, FieldId, List, Map, Truth, Type, Value};

#[derive(Clone, Debug)]
pub enum Fact {
    Unknown,
    Bool(bool),
    Int(i64),
    Bytes(Vec<u8>),
    Ip(IpAddr),
    Strings(Vec<Vec<u8>>),
    Pairs(Vec<(Vec<u8>, Vec<u8>)>),
}

#[derive(Clone, Debug, Default)]
pub struct Request {
    pub facts: BTreeMap<FieldId, Fact>,
    pub lists_unknown: bool,
}

pub struct Office;
pub struct Names;

impl List for Office {
    fn contains_ip(&self, address: IpAddr) -> Truth {
        Truth::from(address.to_string().starts_with("10.9."))
    }
}

impl List for Names {
    fn contains_bytes(&self, bytes: &[u8]) -> Truth {
        Truth::from(bytes == b"shop.example")
    }
}

pub const LISTS: &[(&str, Type)] = &[("office", Type::Ip), ("names", Type::Bytes), ("gone", Type::Ip)];

impl Context for Request {
    fn field(&self, field: FieldId) -> Fetched<'_> {
        let Some(fact) = self.facts.get(&field) else { return Fetched::Missing };
        Fetched::Value(match fact {
            Fact::Unknown => return Fetched::Unknown,
            Fact::Bool(value) => Value::Bool(*value),
            Fact::Int(value) => Value::Int(*value),
            Fact::Bytes(value) => Value::text(value),
            Fact::Ip(value) => Value::Ip(*value),
            Fact::Strings(values) => Value::Array(Array::Kept(values)),
            Fact::Pairs(values) => Value::Map(Map::Grouped(values)),
        })
    }

    fn list(&self, name: &str) -> Option<&dyn List> {
        match name {
            _ if self.lists_unknown => None,
            "office" => Some(&Office),
            "names" => Some(&Names),
            _ => None,
        }
    }

    /// Not HMAC: a mark of key and message a case can write down.
    fn hmac_sha256(&self, key: &[u8], message: &[u8]) -> Option<[u8; 32]> {
        let mut mark = [b'.'; 32];
        for (at, byte) in key.iter().chain(message).take(32).enumerate() {
            mark[at] = *byte;
        }
        Some(mark)
    }
}

/// `name = value`, `name[] = text` or `name{key} = text`.
pub fn add_fact(request: &mut Request, line: &str) {
    let (name, text) = line.split_once(" = ").unwrap_or_else(|| panic!("not a fact: {line}"));
    let (plain, rest) = name.split_at(name.find(['[', '{']).unwrap_or(name.len()));
    let field = expr::fields::find(plain).unwrap_or_else(|| panic!("no field {plain}"));
    let bytes = text.as_bytes().to_vec();
    if text == "unknown" {
        request.facts.insert(field, Fact::Unknown);
    } else if rest == "[]" {
        match request.facts.entry(field).or_insert_with(|| Fact::Strings(Vec::new())) {
            Fact::Strings(values) => values.push(bytes),
            other => panic!("{plain} is {other:?}"),
        }
    } else if let Some(key) = rest.strip_prefix('{').and_then(|key| key.strip_suffix('}')) {
        match request.facts.entry(field).or_insert_with(|| Fact::Pairs(Vec::new())) {
            Fact::Pairs(values) => values.push((key.as_bytes().to_vec(), bytes)),
            other => panic!("{plain} is {other:?}"),
        }
    } else {
        let fact = match field.field().kind {
            Type::Bool => Fact::Bool(text.parse().unwrap()),
            Type::Int => Fact::Int(text.parse().unwrap()),
            Type::Ip => Fact::Ip(text.parse().unwrap()),
            _ => Fact::Bytes(bytes),
        };
        request.facts.insert(field, fact);
    }
}
