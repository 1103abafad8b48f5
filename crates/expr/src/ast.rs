//! What was written, before types are known; printed back, it parses to itself.

use std::fmt;

use crate::error::Span;

/// A part of an expression and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub span: Span,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// A literal: quoted, or a bare word whose meaning the other side of its operator decides.
    Literal(Literal),
    Field(String),
    Call(String, Vec<Node>),
    Index(Box<Node>, Step),
    Compare(Box<Node>, Operator, Right),
    Not(Box<Node>),
    /// Two or more parts joined by the same word.
    Join(Joint, Vec<Node>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Text(Vec<u8>),
    Word(String),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    At(u32),
    Key(Vec<u8>),
    Each,
}

/// What binds tighter stands first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Joint {
    And,
    Xor,
    Or,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Contains,
    Matches,
    Wildcard,
    StrictWildcard,
    In,
    BitAnd,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Right {
    Literal(Literal, Span),
    /// The text of a regular expression, its quotes gone.
    Regex(String, Span),
    Set(Vec<(Literal, Span)>),
    List(String, Span),
}

impl Operator {
    pub fn text(self) -> &'static str {
        match self {
            Operator::Equal => "eq",
            Operator::NotEqual => "ne",
            Operator::Less => "lt",
            Operator::LessOrEqual => "le",
            Operator::Greater => "gt",
            Operator::GreaterOrEqual => "ge",
            Operator::Contains => "contains",
            Operator::Matches => "matches",
            Operator::Wildcard => "wildcard",
            Operator::StrictWildcard => "strict wildcard",
            Operator::In => "in",
            Operator::BitAnd => "bitwise_and",
        }
    }
}

impl Joint {
    pub fn text(self) -> &'static str {
        match self {
            Joint::And => "and",
            Joint::Xor => "xor",
            Joint::Or => "or",
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Literal(literal) => literal.fmt(out),
            Kind::Field(name) => out.write_str(name),
            Kind::Call(name, arguments) => {
                write!(out, "{name}(")?;
                for (at, argument) in arguments.iter().enumerate() {
                    write!(out, "{}{argument}", if at == 0 { "" } else { ", " })?;
                }
                out.write_str(")")
            }
            Kind::Index(base, Step::At(position)) => write!(out, "{base}[{position}]"),
            Kind::Index(base, Step::Key(key)) => write!(out, "{base}[{}]", Quoted(key)),
            Kind::Index(base, Step::Each) => write!(out, "{base}[*]"),
            Kind::Compare(left, operator, right) => write!(out, "{left} {} {right}", operator.text()),
            Kind::Not(inner) if matches!(inner.kind, Kind::Join(..)) => write!(out, "not ({inner})"),
            Kind::Not(inner) => write!(out, "not {inner}"),
            Kind::Join(joint, parts) => {
                for (at, part) in parts.iter().enumerate() {
                    if at > 0 {
                        write!(out, " {} ", joint.text())?;
                    }
                    match part.kind {
                        Kind::Join(inner, _) if inner >= *joint => write!(out, "({part})")?,
                        _ => part.fmt(out)?,
                    }
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Right::Literal(literal, _) => literal.fmt(out),
            Right::Regex(text, _) => {
                let hashes = "#".repeat(hashes_needed(text));
                write!(out, "r{hashes}\"{text}\"{hashes}")
            }
            Right::Set(items) => {
                out.write_str("{")?;
                for (at, (item, _)) in items.iter().enumerate() {
                    write!(out, "{}{item}", if at == 0 { "" } else { " " })?;
                }
                out.write_str("}")
            }
            Right::List(name, _) => write!(out, "${name}"),
        }
    }
}

/// One more than the longest run of `#` after a quote, so that nothing inside ends the raw string.
fn hashes_needed(text: &str) -> usize {
    let mut most = 0;
    for (at, _) in text.match_indices('"') {
        let run = text[at + 1..].bytes().take_while(|byte| *byte == b'#').count();
        most = most.max(run + 1);
    }
    most
}

impl fmt::Display for Literal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Text(bytes) => Quoted(bytes).fmt(out),
            Literal::Word(word) => out.write_str(word),
        }
    }
}

/// Bytes as a string of the language: what is not printable ASCII as `\xHH`.
pub(crate) struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("\"")?;
        for byte in self.0 {
            match byte {
                b'"' | b'\\' => write!(out, "\\{}", char::from(*byte))?,
                b' '..=b'~' => write!(out, "{}", char::from(*byte))?,
                other => write!(out, "\\x{other:02x}")?,
            }
        }
        out.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn erase(node: &mut Node) {
        node.span = Span::default();
        match &mut node.kind {
            Kind::Literal(_) | Kind::Field(_) => (),
            Kind::Call(_, parts) | Kind::Join(_, parts) => parts.iter_mut().for_each(erase),
            Kind::Index(inner, _) | Kind::Not(inner) => erase(inner),
            Kind::Compare(left, _, right) => {
                erase(left);
                match right {
                    Right::Literal(_, span) | Right::Regex(_, span) | Right::List(_, span) => {
                        *span = Span::default()
                    }
                    Right::Set(items) => items.iter_mut().for_each(|(_, span)| *span = Span::default()),
                }
            }
        }
    }

    /// Every expression of the case files, and all of them joined two by two in every way.
    #[test]
    fn what_is_printed_parses_to_itself() {
        let files = [
            include_str!("../tests/cases/operators.txt"),
            include_str!("../tests/cases/functions.txt"),
            include_str!("../tests/cases/missing_and_unknown.txt"),
        ];
        let sources = files.iter().flat_map(|file| file.lines()).filter_map(|line| line.split_once(" => "));
        let sources: Vec<&str> = sources.map(|(source, _)| source).collect();
        assert!(sources.len() > 100);
        for (at, source) in sources.iter().enumerate() {
            let other = sources[(at * 7 + 3) % sources.len()];
            let joined =
                ["and", "or", "xor"].map(|word| format!("({source}) {word} not ({other} {word} {source})"));
            for text in joined.iter().map(String::as_str).chain([*source]) {
                let mut tree = parse(text).unwrap();
                let mut again = parse(&tree.to_string()).unwrap_or_else(|fault| panic!("{tree}: {fault:?}"));
                erase(&mut tree);
                erase(&mut again);
                assert_eq!(tree, again, "{text}\n{tree}");
            }
        }
    }
}
