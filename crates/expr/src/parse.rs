//! From source to syntax tree: precedence, operators, indexes and calls; types come later.

use crate::ast::{Joint, Kind, Literal, Node, Operator, Right, Step};
use crate::error::{Fault, Span};
use crate::lex::Cursor;

/// How deep parentheses, calls and `not` may nest.
pub const NESTING_MOST: usize = 128;

/// Operators of more than one letter before those they begin with.
const OPERATORS: &[(&str, Operator)] = &[
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
    ("~", Operator::Matches),
];

const WORDS: &[(&str, Operator)] = &[
    ("eq", Operator::Equal),
    ("ne", Operator::NotEqual),
    ("lt", Operator::Less),
    ("le", Operator::LessOrEqual),
    ("gt", Operator::Greater),
    ("ge", Operator::GreaterOrEqual),
    ("contains", Operator::Contains),
    ("matches", Operator::Matches),
    ("wildcard", Operator::Wildcard),
    ("in", Operator::In),
    ("bitwise_and", Operator::BitAnd),
];

/// The tree of an expression; the whole source must be one.
pub(crate) fn parse(source: &str) -> Result<Node, Fault> {
    let mut parser = Parser { cursor: Cursor { source, at: 0 }, depth: 0 };
    parser.cursor.skip_space();
    let node = parser.joined(Joint::Or)?;
    parser.cursor.skip_space();
    if parser.cursor.rest().is_empty() {
        return Ok(node);
    }
    let here = parser.cursor.here();
    let fault = Fault::new(Span { start: here.start, end: source.trim_end().len() }, "unrecognised input");
    Err(match parser.cursor.rest().as_bytes().first() {
        Some(b'\t') => Fault::new(here, "a tab is not a space here").hint("use spaces or new lines"),
        Some(b'=') => fault.hint("did you mean ==?"),
        _ => match parser.cursor.peek_name().to_ascii_lowercase().as_str() {
            word @ ("and" | "or" | "xor" | "not" | "eq" | "ne" | "in" | "contains" | "matches") => {
                fault.hint(format!("operators are written in lower case: did you mean {word}?"))
            }
            _ => fault,
        },
    })
}

struct Parser<'s> {
    cursor: Cursor<'s>,
    depth: usize,
}

impl Parser<'_> {
    /// `or` binds loosest, then `xor`, then `and`.
    fn joined(&mut self, joint: Joint) -> Result<Node, Fault> {
        let mut parts = vec![self.tighter(joint)?];
        loop {
            let before = self.cursor;
            self.cursor.skip_space();
            if !self.take_joint(joint) {
                self.cursor = before;
                break;
            }
            self.cursor.skip_space();
            parts.push(self.tighter(joint)?);
        }
        match parts.len() {
            1 => Ok(parts.remove(0)),
            count => {
                let span = parts[0].span.to(parts[count - 1].span);
                Ok(Node { span, kind: Kind::Join(joint, parts) })
            }
        }
    }

    fn tighter(&mut self, joint: Joint) -> Result<Node, Fault> {
        match joint {
            Joint::Or => self.joined(Joint::Xor),
            Joint::Xor => self.joined(Joint::And),
            Joint::And => self.unary(),
        }
    }

    fn take_joint(&mut self, joint: Joint) -> bool {
        let symbol = match joint {
            Joint::And => "&&",
            Joint::Xor => "^^",
            Joint::Or => "||",
        };
        self.cursor.take(symbol) || self.cursor.take_name(joint.text())
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.depth == NESTING_MOST {
            return Err(Fault::new(
                self.cursor.here(),
                format!("the expression is nested more than {NESTING_MOST} levels deep"),
            ));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn unary(&mut self) -> Result<Node, Fault> {
        let start = self.cursor.at;
        let rest = self.cursor.rest();
        let negated = if rest.starts_with('!') && !rest.starts_with("!=") {
            self.cursor.take("!")
        } else {
            self.cursor.take_name("not")
        };
        if negated {
            self.cursor.skip_space();
            let inner = self.deeper(Self::unary)?;
            return Ok(Node { span: self.cursor.from(start), kind: Kind::Not(Box::new(inner)) });
        }
        if self.cursor.take("(") {
            let inner = self.deeper(|parser| {
                parser.cursor.skip_space();
                parser.joined(Joint::Or)
            })?;
            self.cursor.skip_space();
            self.expect(")")?;
            return Ok(Node { span: self.cursor.from(start), ..inner });
        }
        self.comparison()
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Fault> {
        if self.cursor.take(symbol) {
            return Ok(());
        }
        Err(Fault::new(self.cursor.here(), format!("expected {symbol}")))
    }

    fn comparison(&mut self) -> Result<Node, Fault> {
        let left = self.operand()?;
        let before = self.cursor;
        self.cursor.skip_space();
        let Some(operator) = self.operator() else {
            self.cursor = before;
            return Ok(left);
        };
        self.cursor.skip_space();
        let right = self.right(operator)?;
        Ok(Node {
            span: self.cursor.from(left.span.start),
            kind: Kind::Compare(Box::new(left), operator, right),
        })
    }

    fn operator(&mut self) -> Option<Operator> {
        if let Some((_, operator)) = OPERATORS.iter().find(|(symbol, _)| self.cursor.take(symbol)) {
            return Some(*operator);
        }
        if !self.cursor.rest().starts_with("&&") && self.cursor.take("&") {
            return Some(Operator::BitAnd);
        }
        // Exactly one space, as Cloudflare has it.
        if self.cursor.take("strict wildcard") {
            return Some(Operator::StrictWildcard);
        }
        WORDS.iter().find(|(word, _)| self.cursor.take_name(word)).map(|(_, operator)| *operator)
    }

    fn right(&mut self, operator: Operator) -> Result<Right, Fault> {
        let start = self.cursor.at;
        match operator {
            Operator::Matches => {
                let text = self.cursor.regex()?;
                Ok(Right::Regex(text, self.cursor.from(start)))
            }
            Operator::In if self.cursor.take("$") => {
                let name = self.cursor.peek_name();
                self.cursor.at += name.len();
                let valid = !name.is_empty()
                    && !name.starts_with('.')
                    && !name.ends_with('.')
                    && !name.bytes().any(|byte| byte.is_ascii_uppercase());
                if !valid {
                    return Err(Fault::new(self.cursor.from(start), "invalid list name")
                        .hint("a name has lower-case letters, digits, _ and inner dots"));
                }
                Ok(Right::List(name.to_owned(), self.cursor.from(start)))
            }
            Operator::In => self.set(),
            _ => {
                let (literal, span) = self.cursor.literal()?;
                Ok(Right::Literal(literal, span))
            }
        }
    }

    fn set(&mut self) -> Result<Right, Fault> {
        if !self.cursor.take("{") {
            return Err(Fault::new(self.cursor.here(), "expected { or $").hint("write in {1 2} or in $list"));
        }
        let mut items = Vec::new();
        loop {
            let spaced = self.cursor.at;
            self.cursor.skip_space();
            if self.cursor.take("}") {
                break;
            }
            if self.cursor.rest().starts_with(',') {
                return Err(Fault::new(self.cursor.here(), "expected a literal or }")
                    .hint("items are separated by spaces, not commas"));
            }
            if !items.is_empty() && spaced == self.cursor.at {
                return Err(Fault::new(self.cursor.here(), "expected a space between items"));
            }
            items.push(self.cursor.literal()?);
        }
        Ok(Right::Set(items))
    }

    fn operand(&mut self) -> Result<Node, Fault> {
        let start = self.cursor.at;
        let word = self.cursor.peek_word();
        let name = self.cursor.peek_name();
        let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        if self.cursor.at_string() || !is_name || (word.len() > name.len() && word.contains(':')) {
            let (literal, span) = self
                .cursor
                .literal()
                .map_err(|fault| Fault { reason: "expected an expression".to_owned(), ..fault })?;
            return Ok(Node { span, kind: Kind::Literal(literal) });
        }
        self.cursor.at += name.len();
        if name == "true" || name == "false" {
            let kind = Kind::Literal(Literal::Word(name.to_owned()));
            return Ok(Node { span: self.cursor.from(start), kind });
        }
        let name_span = self.cursor.from(start);
        let before = self.cursor;
        self.cursor.skip_space();
        let mut node = if self.cursor.take("(") {
            let arguments = self.deeper(Self::arguments)?;
            Node { span: self.cursor.from(start), kind: Kind::Call(name.to_owned(), arguments) }
        } else {
            self.cursor = before;
            Node { span: name_span, kind: Kind::Field(name.to_owned()) }
        };
        while self.cursor.take("[") {
            let step = self.step()?;
            node = Node { span: self.cursor.from(start), kind: Kind::Index(Box::new(node), step) };
        }
        Ok(node)
    }

    fn step(&mut self) -> Result<Step, Fault> {
        self.cursor.skip_space();
        let start = self.cursor.at;
        let step = if self.cursor.take("*") {
            Step::Each
        } else if self.cursor.at_string() {
            Step::Key(self.cursor.string()?)
        } else {
            let word = self.cursor.peek_word();
            self.cursor.at += word.len();
            let position =
                word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse().ok()).flatten();
            Step::At(position.ok_or_else(|| {
                Fault::new(self.cursor.from(start), "expected a position, a quoted key or *")
            })?)
        };
        self.cursor.skip_space();
        self.expect("]")?;
        Ok(step)
    }

    fn arguments(&mut self) -> Result<Vec<Node>, Fault> {
        let mut arguments = Vec::new();
        self.cursor.skip_space();
        if self.cursor.take(")") {
            return Ok(arguments);
        }
        loop {
            self.cursor.skip_space();
            arguments.push(self.joined(Joint::Or)?);
            self.cursor.skip_space();
            if self.cursor.take(")") {
                return Ok(arguments);
            }
            if !self.cursor.take(",") {
                return Err(Fault::new(self.cursor.here(), "expected , or )"));
            }
        }
    }
}
