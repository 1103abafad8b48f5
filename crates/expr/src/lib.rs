//! The rules language: expressions parsed, checked and compiled once, evaluated with three truth values. Pure.

mod ast;
mod check;
mod error;
mod eval;
mod explain;
pub mod fields;
mod functions;
mod lex;
pub mod lists;
mod literal;
mod literals;
mod parse;
mod pattern;
mod phase;
mod plan;
mod reads;
mod reference;
mod regular;
mod set;
mod truth;
mod types;
mod value;

use std::net::IpAddr;

pub use error::{ExpressionError, Span};
pub use explain::Explained;
pub use fields::FieldId;
pub use parse::NESTING_MOST;
pub use phase::Phase;
pub use reads::Reads;
pub use reference::{FunctionReference, functions_reference, reference_markdown};
pub use set::{Evaluated, Memory, RuleSet};
pub use truth::{Steps, Truth};
pub use types::Type;
pub use value::{Array, Fetched, Items, Map, Pairs, Value};

/// The longest expression the API takes, in bytes.
pub const SOURCE_MOST: usize = 4096;

/// What an expression is evaluated over: one request.
pub trait Context {
    /// The value of a field. A value no module could compute is Unknown, never a default.
    fn field(&self, field: FieldId) -> Fetched<'_>;

    /// The list of a name; None makes every look-up in it Unknown.
    fn list(&self, name: &str) -> Option<&dyn List>;

    /// HMAC-SHA256 (RFC 2104) by the host's library for cryptography; None is Unknown.
    fn hmac_sha256(&self, _key: &[u8], _message: &[u8]) -> Option<[u8; 32]> {
        None
    }
}

/// A named list. A kind of value it does not hold is Unknown, not absent.
pub trait List {
    /// Whether the list covers an address.
    fn contains_ip(&self, _address: IpAddr) -> Truth {
        Truth::Unknown
    }

    /// Whether the list has a string.
    fn contains_bytes(&self, _bytes: &[u8]) -> Truth {
        Truth::Unknown
    }

    /// Whether the list has a number, such as that of an autonomous system.
    fn contains_int(&self, _number: i64) -> Truth {
        Truth::Unknown
    }
}

/// What an expression is checked against.
#[derive(Clone, Copy, Debug)]
pub struct Options<'o> {
    /// Where it will be used; None allows everything.
    pub phase: Option<Phase>,
    /// Lists that exist, with the type of their elements: Ip, Bytes or Int.
    pub lists: &'o [(&'o str, Type)],
    /// Longest source, in bytes.
    pub source_most: usize,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { phase: None, lists: &[], source_most: SOURCE_MOST }
    }
}

/// An expression that says whether something holds.
#[derive(Debug)]
pub struct Filter {
    source: String,
    plan: plan::Node,
}

impl Filter {
    /// Parses, checks and compiles; fails with the place, the reason and perhaps a suggestion.
    pub fn parse(source: &str, options: &Options<'_>) -> Result<Self, ExpressionError> {
        let compile = || {
            within_length(source, options)?;
            check::Checker::new(options).truth(&parse::parse(source)?)
        };
        let plan = compile().map_err(|fault| fault.locate(source))?;
        Ok(Self { source: source.to_owned(), plan })
    }

    /// Whether it holds. What cannot be told, or not within the budget, is Unknown.
    pub fn evaluate(&self, context: &dyn Context, steps: &mut Steps) -> Truth {
        eval::Machine { context, steps }.truth(&self.plan)
    }

    /// Why it holds or not, node by node, the whole expression first.
    pub fn explain(&self, context: &dyn Context) -> Vec<Explained> {
        explain::explain(&self.source, &self.plan, context)
    }

    /// Which fields, lists and functions it has, so that the host knows what must be there before it is evaluated.
    pub fn reads(&self) -> Reads {
        reads::of_truth(&self.plan)
    }

    /// The text it was made from.
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// An expression that makes a string, for rewrites and redirects.
#[derive(Debug)]
pub struct ValueExpression {
    source: String,
    plan: plan::Operand,
}

impl ValueExpression {
    /// Parses, checks and compiles an expression whose value is a string.
    pub fn parse(source: &str, options: &Options<'_>) -> Result<Self, ExpressionError> {
        let compile = || {
            within_length(source, options)?;
            check::Checker::new(options).value(&parse::parse(source)?, Type::Bytes)
        };
        let plan = compile().map_err(|fault| fault.locate(source))?;
        Ok(Self { source: source.to_owned(), plan })
    }

    /// The string it makes; a `Value` in the result is always `Bytes`.
    pub fn evaluate<'e>(&'e self, context: &'e dyn Context, steps: &mut Steps) -> Fetched<'e> {
        eval::Machine { context, steps }.value(&self.plan)
    }

    /// Which fields, lists and functions it has.
    pub fn reads(&self) -> Reads {
        reads::of_value(&self.plan)
    }

    /// The text it was made from.
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// The same expression written in the one way everything has: operators by their words, parentheses only where they are
/// needed, bytes that are not printable as `\xHH`. Names and types are not checked.
pub fn canonical(source: &str) -> Result<String, ExpressionError> {
    parse::parse(source).map(|tree| tree.to_string()).map_err(|fault| fault.locate(source))
}

fn within_length(source: &str, options: &Options<'_>) -> Result<(), error::Fault> {
    if source.len() <= options.source_most {
        return Ok(());
    }
    let span = Span { start: options.source_most, end: options.source_most };
    Err(error::Fault::new(span, format!("the expression is longer than {} bytes", options.source_most)))
}
