//! A checked expression, compiled once: what evaluation walks.

use std::net::IpAddr;

use memchr::memmem::Finder;

use crate::ast::{Joint, Step};
use crate::error::Span;
use crate::fields::FieldId;
use crate::functions::{Function, Remembered};
use crate::pattern::Pattern;
use crate::regular::Regular;
use crate::types::Type;
use crate::value::Value;

/// Something with one truth.
#[derive(Debug)]
pub(crate) struct Node {
    pub span: Span,
    pub kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Constant(bool),
    Compare(Operand, Test),
    Not(Box<Node>),
    Join(Joint, Vec<Node>),
    Any(Box<Truths>),
    All(Box<Truths>),
}

/// Something with a truth for every element; only `any` and `all` take it.
#[derive(Debug)]
pub(crate) enum Truths {
    /// An operand unpacked by `[*]`, each element put to the test.
    Mapped(Operand, Test),
    /// An array of truths as it is.
    Plain(Operand),
    Not(Box<Truths>),
    Join(Joint, Vec<Truths>),
}

/// What an element or a value is put to.
#[derive(Debug)]
pub(crate) enum Test {
    /// A truth itself.
    Holds,
    Int(Order, i64),
    Bytes(Order, Vec<u8>),
    Ip(Order, IpAddr),
    Contains(Box<Finder<'static>>),
    Matches(Box<Regular>),
    Wildcard(Pattern),
    InInts(Vec<(i64, i64)>),
    InBytes(Vec<Vec<u8>>),
    InIps(Vec<(IpAddr, IpAddr)>),
    InList(String),
    BitAnd(i64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    /// Whether the order holds; things that have none are unequal and nothing else.
    pub fn holds(self, found: Option<std::cmp::Ordering>) -> bool {
        match self {
            Order::Equal => found.is_some_and(std::cmp::Ordering::is_eq),
            Order::NotEqual => !found.is_some_and(std::cmp::Ordering::is_eq),
            Order::Less => found.is_some_and(std::cmp::Ordering::is_lt),
            Order::LessOrEqual => found.is_some_and(std::cmp::Ordering::is_le),
            Order::Greater => found.is_some_and(std::cmp::Ordering::is_gt),
            Order::GreaterOrEqual => found.is_some_and(std::cmp::Ordering::is_ge),
        }
    }
}

/// Something with a value, or with many where a step is `[*]`.
#[derive(Debug)]
pub(crate) struct Operand {
    pub span: Span,
    pub base: Base,
    pub steps: Vec<Step>,
    /// Type of one value, after all steps.
    pub kind: Type,
}

#[derive(Debug)]
pub(crate) enum Base {
    Field(FieldId),
    Literal(Constant),
    Call(Function, Vec<Operand>),
    /// A function of every element of its first argument.
    Mapped(Function, Vec<Operand>),
    /// The regex or pattern of a replacement.
    Remembered(Remembered),
    /// A truth used as an argument.
    Truth(Box<Node>),
}

/// A value that is written out.
#[derive(Debug)]
pub(crate) enum Constant {
    Bool(bool),
    Int(i64),
    Bytes(Vec<u8>),
    Ip(IpAddr),
}

impl Constant {
    pub fn value(&self) -> Value<'_> {
        match self {
            Constant::Bool(value) => Value::Bool(*value),
            Constant::Int(value) => Value::Int(*value),
            Constant::Bytes(bytes) => Value::text(bytes),
            Constant::Ip(address) => Value::Ip(*address),
        }
    }
}

impl Operand {
    pub fn mapped(&self) -> bool {
        self.steps.contains(&Step::Each)
    }

    pub fn literal(&self) -> Option<&Constant> {
        match &self.base {
            Base::Literal(value) => Some(value),
            _ => None,
        }
    }
}
