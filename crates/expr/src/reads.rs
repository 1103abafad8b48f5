//! What an expression reads: fields, lists and functions, so that the host knows what has to be there.

use crate::fields::FieldId;
use crate::functions;
use crate::plan::{Base, Kind, Node, Operand, Test, Truths};

/// What an expression reads; each list sorted, everything once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Fields.
    pub fields: Vec<FieldId>,
    /// Names of lists, without the `$`.
    pub lists: Vec<String>,
    /// Names of functions.
    pub functions: Vec<&'static str>,
    /// How many regular expressions it holds.
    pub regexes: usize,
}

pub(crate) fn of_truth(plan: &Node) -> Reads {
    let mut reads = Reads::default();
    reads.node(plan);
    reads.sorted()
}

pub(crate) fn of_value(plan: &Operand) -> Reads {
    let mut reads = Reads::default();
    reads.operand(plan);
    reads.sorted()
}

impl Reads {
    fn sorted(mut self) -> Self {
        self.fields.sort_unstable();
        self.fields.dedup();
        self.lists.sort_unstable();
        self.lists.dedup();
        self.functions.sort_unstable();
        self.functions.dedup();
        self
    }

    fn node(&mut self, node: &Node) {
        match &node.kind {
            Kind::Constant(_) => (),
            Kind::Compare(operand, test) => self.compare(operand, test),
            Kind::Not(inner) => self.node(inner),
            Kind::Join(_, parts) => parts.iter().for_each(|part| self.node(part)),
            Kind::Any(truths) => {
                self.functions.push("any");
                self.truths(truths);
            }
            Kind::All(truths) => {
                self.functions.push("all");
                self.truths(truths);
            }
        }
    }

    fn truths(&mut self, truths: &Truths) {
        match truths {
            Truths::Mapped(operand, test) => self.compare(operand, test),
            Truths::Plain(operand) => self.operand(operand),
            Truths::Not(inner) => self.truths(inner),
            Truths::Join(_, parts) => parts.iter().for_each(|part| self.truths(part)),
        }
    }

    fn compare(&mut self, operand: &Operand, test: &Test) {
        self.operand(operand);
        match test {
            Test::InList(name) => self.lists.push(name.clone()),
            Test::Matches(_) => self.regexes += 1,
            _ => (),
        }
    }

    fn operand(&mut self, operand: &Operand) {
        match &operand.base {
            Base::Field(field) => self.fields.push(*field),
            Base::Call(function, arguments) | Base::Mapped(function, arguments) => {
                self.functions.push(functions::name(*function));
                arguments.iter().for_each(|argument| self.operand(argument));
            }
            Base::Remembered(remembered) => self.regexes += usize::from(remembered.is_regex()),
            Base::Truth(node) => self.node(node),
            Base::Literal(_) => (),
        }
    }
}
