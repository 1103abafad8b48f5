//! Evaluation: three-valued, bounded by a budget of steps, without allocation where only fields are compared.

use std::cmp::Ordering;
use std::net::IpAddr;

use crate::ast::{Joint, Step};
use crate::functions;
use crate::plan::{Base, Kind, Node, Operand, Test, Truths};
use crate::value::{Array, Fetched, Value};
use crate::{Context, Steps, Truth};

/// Bytes looked through for one step.
const BYTES_A_STEP: usize = 64;
/// The longest string a function may make, in bytes; a longer one is Unknown.
pub(crate) const TEXT_MOST: usize = 64 << 10;
/// The most elements a function may make, or `any` of joined arrays may hold; more are Unknown.
pub(crate) const ELEMENTS_MOST: usize = 4096;

/// One evaluation.
pub(crate) struct Machine<'e, 's> {
    pub context: &'e dyn Context,
    pub steps: &'s mut Steps,
}

impl<'e> Machine<'e, '_> {
    /// Pays for looking through so many bytes.
    pub fn pay(&mut self, bytes: usize) -> bool {
        self.steps.spend(1 + bytes / BYTES_A_STEP)
    }

    /// Pays for looking through them so many times.
    pub fn pay_times(&mut self, bytes: usize, times: usize) -> bool {
        self.steps.spend((1 + bytes / BYTES_A_STEP).saturating_mul(times))
    }

    pub fn truth(&mut self, node: &'e Node) -> Truth {
        if !self.steps.spend(1) {
            return Truth::Unknown;
        }
        match &node.kind {
            Kind::Constant(value) => Truth::from(*value),
            Kind::Compare(operand, test) => {
                let value = self.value(operand);
                self.test(value, test)
            }
            Kind::Not(inner) => self.truth(inner).not(),
            Kind::Join(joint, parts) => self.join(*joint, parts),
            Kind::Any(truths) => self.quantified(truths, Truth::True),
            Kind::All(truths) => self.quantified(truths, Truth::False),
        }
    }

    fn join(&mut self, joint: Joint, parts: &'e [Node]) -> Truth {
        let decisive = match joint {
            Joint::And => Some(Truth::False),
            Joint::Or => Some(Truth::True),
            Joint::Xor => None,
        };
        let mut whole: Option<Truth> = None;
        for part in parts {
            let truth = self.truth(part);
            if Some(truth) == decisive {
                return truth;
            }
            whole = Some(whole.map_or(truth, |before| joined(joint, before, truth)));
        }
        whole.unwrap_or(Truth::Unknown)
    }

    /// `any` is decided by one True, `all` by one False; a value that is missing as a whole has no elements.
    fn quantified(&mut self, truths: &'e Truths, decisive: Truth) -> Truth {
        let mut whole = decisive.not();
        let found = self.each_truth(truths, &mut |truth| {
            match truth {
                Truth::Unknown => whole = Truth::Unknown,
                truth if truth == decisive => {
                    whole = decisive;
                    return false;
                }
                _ => (),
            }
            true
        });
        match found {
            Whole::Seen => whole,
            // A decisive element stands whatever could not be seen after it.
            Whole::Unknown if whole == decisive => whole,
            Whole::Unknown => Truth::Unknown,
            Whole::Missing => Truth::False,
        }
    }

    fn each_truth(&mut self, truths: &'e Truths, see: &mut dyn FnMut(Truth) -> bool) -> Whole {
        match truths {
            Truths::Mapped(operand, test) => {
                let found = self.each(operand, &mut |machine, value| {
                    let truth = machine.test(value, test);
                    see(truth)
                });
                // A mapped comparison over nothing is an empty array, even when the whole value is absent.
                if found == Whole::Missing { Whole::Seen } else { found }
            }
            Truths::Plain(operand) => match self.value(operand) {
                Fetched::Value(Value::Array(array)) => self.each_of(array, &mut |_, value| {
                    see(match value {
                        Value::Bool(truth) => Truth::from(truth),
                        _ => Truth::Unknown,
                    })
                }),
                Fetched::Missing => Whole::Missing,
                Fetched::Value(_) | Fetched::Unknown => Whole::Unknown,
            },
            Truths::Not(inner) => self.each_truth(inner, &mut |truth| see(truth.not())),
            Truths::Join(joint, parts) => self.each_joined(*joint, parts, see),
        }
    }

    /// Element by element, as long as the shortest part.
    fn each_joined(
        &mut self,
        joint: Joint,
        parts: &'e [Truths],
        see: &mut dyn FnMut(Truth) -> bool,
    ) -> Whole {
        let mut whole: Option<Vec<Truth>> = None;
        for part in parts {
            let mut row = Vec::new();
            let found = self.each_truth(part, &mut |truth| {
                row.push(truth);
                row.len() <= ELEMENTS_MOST
            });
            if found != Whole::Seen || row.len() > ELEMENTS_MOST {
                return if found == Whole::Missing { found } else { Whole::Unknown };
            }
            whole = Some(match whole {
                None => row,
                Some(before) => {
                    before.into_iter().zip(row).map(|(left, right)| joined(joint, left, right)).collect()
                }
            });
        }
        for truth in whole.unwrap_or_default() {
            if !see(truth) {
                break;
            }
        }
        Whole::Seen
    }

    /// The value of an operand without `[*]`.
    pub fn value(&mut self, operand: &'e Operand) -> Fetched<'e> {
        let mut found = self.base(operand);
        for step in &operand.steps {
            if !self.steps.spend(1) {
                return Fetched::Unknown;
            }
            let Fetched::Value(value) = found else { return found };
            found = taken(value, step).map_or(Fetched::Missing, Fetched::Value);
        }
        found
    }

    fn base(&mut self, operand: &'e Operand) -> Fetched<'e> {
        match &operand.base {
            Base::Field(field) => self.context.field(*field),
            Base::Literal(constant) => Fetched::Value(constant.value()),
            Base::Call(function, arguments) => {
                if !self.steps.spend(1) {
                    return Fetched::Unknown;
                }
                functions::call(self, *function, arguments, None)
            }
            Base::Mapped(function, arguments) => self.mapped_call(*function, arguments),
            Base::Remembered(_) => Fetched::Unknown,
            Base::Truth(node) => match self.truth(node) {
                Truth::True => Fetched::Value(Value::Bool(true)),
                Truth::False => Fetched::Value(Value::Bool(false)),
                Truth::Unknown => Fetched::Unknown,
            },
        }
    }

    /// A function of every element; elements it has no value for are left out.
    fn mapped_call(&mut self, function: functions::Function, arguments: &'e [Operand]) -> Fetched<'e> {
        let Some(first) = arguments.first() else { return Fetched::Missing };
        let (mut made, mut known) = (Vec::new(), true);
        let found = self.each(first, &mut |machine, value| {
            match functions::call(machine, function, arguments, Some(value)) {
                Fetched::Value(value) => made.push(value),
                Fetched::Missing => (),
                Fetched::Unknown => known = false,
            }
            known &= made.len() <= ELEMENTS_MOST;
            known
        });
        match found {
            Whole::Seen if known => Fetched::Value(Value::Array(Array::Made(made))),
            Whole::Missing => Fetched::Missing,
            Whole::Seen | Whole::Unknown => Fetched::Unknown,
        }
    }

    /// For explanations: the value, or each element where there is a `[*]`.
    pub fn value_or_elements(
        &mut self,
        operand: &'e Operand,
        see: &mut dyn FnMut(Fetched<'e>),
    ) -> Option<Fetched<'e>> {
        if !operand.mapped() {
            return Some(self.value(operand));
        }
        let found = self.each(operand, &mut |_, value| {
            see(value);
            true
        });
        match found {
            Whole::Seen => None,
            Whole::Missing => Some(Fetched::Missing),
            Whole::Unknown => Some(Fetched::Unknown),
        }
    }

    /// Shows each element of an operand with `[*]`; what is missing inside an element is shown as Missing.
    fn each(&mut self, operand: &'e Operand, see: &mut dyn FnMut(&mut Self, Fetched<'e>) -> bool) -> Whole {
        match self.base(operand) {
            Fetched::Value(value) => self.unpack(value, &operand.steps, see).0,
            Fetched::Missing => Whole::Missing,
            Fetched::Unknown => Whole::Unknown,
        }
    }

    /// Walks the steps; also says whether to go on.
    fn unpack(
        &mut self,
        value: Value<'e>,
        steps: &'e [Step],
        see: &mut dyn FnMut(&mut Self, Fetched<'e>) -> bool,
    ) -> (Whole, bool) {
        let [step, rest @ ..] = steps else {
            let on = see(self, Fetched::Value(value));
            return (Whole::Seen, on);
        };
        if *step != Step::Each {
            return match taken(value, step) {
                Some(value) => self.unpack(value, rest, see),
                None if rest.contains(&Step::Each) => (Whole::Missing, true),
                None => {
                    let on = see(self, Fetched::Missing);
                    (Whole::Seen, on)
                }
            };
        }
        let (mut whole, mut on) = (Whole::Seen, true);
        let mut one = |value: Value<'e>| {
            if !self.steps.spend(1) {
                whole = Whole::Unknown;
                return false;
            }
            let (found, go_on) = self.unpack(value, rest, see);
            if found == Whole::Unknown {
                whole = found;
            }
            on = go_on && found != Whole::Unknown;
            on
        };
        match value {
            Value::Array(array) => array.visit(&mut one),
            Value::Map(map) => map.visit(&mut one),
            _ => return (Whole::Unknown, false),
        }
        (whole, on)
    }

    fn each_of(&mut self, array: Array<'e>, see: &mut dyn FnMut(&mut Self, Value<'e>) -> bool) -> Whole {
        let mut whole = Whole::Seen;
        array.visit(&mut |value| {
            if !self.steps.spend(1) {
                whole = Whole::Unknown;
                return false;
            }
            see(self, value)
        });
        whole
    }

    /// A missing value fails every test.
    fn test(&mut self, found: Fetched<'e>, test: &'e Test) -> Truth {
        let value = match found {
            Fetched::Value(value) => value,
            Fetched::Missing => return Truth::False,
            Fetched::Unknown => return Truth::Unknown,
        };
        match (value, test) {
            (Value::Bool(truth), Test::Holds) => Truth::from(truth),
            (Value::Int(value), test) => self.test_int(value, test),
            (Value::Bytes(value), test) => self.test_bytes(&value, test),
            (Value::Ip(value), test) => self.test_ip(value, test),
            // A context that answers with another type than the table says has not answered.
            _ => Truth::Unknown,
        }
    }

    fn test_int(&mut self, value: i64, test: &Test) -> Truth {
        match test {
            Test::Int(order, right) => Truth::from(order.holds(Some(value.cmp(right)))),
            Test::InInts(ranges) => Truth::from(within(ranges, &value)),
            Test::BitAnd(mask) => Truth::from(value & mask != 0),
            Test::InList(name) => {
                self.context.list(name).map_or(Truth::Unknown, |list| list.contains_int(value))
            }
            _ => Truth::Unknown,
        }
    }

    fn test_bytes(&mut self, value: &[u8], test: &Test) -> Truth {
        let paid = match test {
            Test::Wildcard(pattern) => self.steps.spend(pattern.cost(value.len())),
            _ => self.pay(value.len()),
        };
        if !paid {
            return Truth::Unknown;
        }
        match test {
            Test::Bytes(order, right) => Truth::from(order.holds(Some(value.cmp(right)))),
            Test::Contains(finder) => Truth::from(finder.find(value).is_some()),
            Test::Matches(regex) => regex.is_match(value, self).map_or(Truth::Unknown, Truth::from),
            Test::Wildcard(pattern) => Truth::from(pattern.matches(value)),
            Test::InBytes(items) => {
                Truth::from(items.binary_search_by(|item| item.as_slice().cmp(value)).is_ok())
            }
            Test::InList(name) => {
                self.context.list(name).map_or(Truth::Unknown, |list| list.contains_bytes(value))
            }
            _ => Truth::Unknown,
        }
    }

    fn test_ip(&mut self, value: IpAddr, test: &Test) -> Truth {
        match test {
            Test::Ip(order, right) => {
                let found: Option<Ordering> = (value.is_ipv4() == right.is_ipv4()).then(|| value.cmp(right));
                Truth::from(order.holds(found))
            }
            Test::InIps(ranges) => Truth::from(within(ranges, &value)),
            Test::InList(name) => {
                self.context.list(name).map_or(Truth::Unknown, |list| list.contains_ip(value))
            }
            _ => Truth::Unknown,
        }
    }
}

/// Whether a value lies in one of the ranges, which are sorted and do not overlap.
fn within<T: Ord>(ranges: &[(T, T)], value: &T) -> bool {
    let after = ranges.partition_point(|(first, _)| first <= value);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, last)| value <= last)
}

fn taken<'e>(value: Value<'e>, step: &'e Step) -> Option<Value<'e>> {
    match (value, step) {
        (Value::Array(array), Step::At(position)) => array.get(*position as usize),
        (Value::Map(map), Step::Key(key)) => map.get(key),
        _ => None,
    }
}

fn joined(joint: Joint, left: Truth, right: Truth) -> Truth {
    match joint {
        Joint::And => left.and(right),
        Joint::Or => left.or(right),
        Joint::Xor => left.xor(right),
    }
}

/// How far the elements of a value could be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whole {
    Seen,
    Missing,
    Unknown,
}
