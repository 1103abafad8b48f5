//! Necessary conditions of an expression: where a value is looked up, what it must be, and what reaching False can cost.

use std::net::IpAddr;

use crate::ast::{Joint, Step};
use crate::fields::FieldId;
use crate::functions::Function;
use crate::literals;
use crate::plan::{Base, Constant, Kind, Node, Operand, Order, Test, Truths};
use crate::types::Type;

/// Where a value is: a field, with its indexes.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub field: FieldId,
    pub steps: Vec<Step>,
    /// Type of one value there.
    pub kind: Type,
}

/// What a value must be for an expression to be anything but False. The case of ASCII letters does not count.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    Text(Vec<u8>),
    Part(Vec<u8>),
    /// From, to; a Bool is 0 or 1.
    Number(i64, i64),
    Address(IpAddr, IpAddr),
    Listed(String),
}

/// One value of which a group wants one.
#[derive(Clone, Debug)]
pub struct Wish {
    pub place: Place,
    pub wanted: Wanted,
    /// A function stands between: it gives up on values that are too large, and what it says is then Unknown.
    pub made: bool,
}

/// Most steps it takes to see that an expression is False: so many, and so many for each unit of a place's weight.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    pub fixed: usize,
    pub weighed: Vec<(Place, usize)>,
}

impl Cost {
    fn of(fixed: usize) -> Self {
        Self { fixed, weighed: Vec::new() }
    }

    fn add(&mut self, other: &Cost) {
        self.fixed = self.fixed.saturating_add(other.fixed);
        for (place, weight) in &other.weighed {
            self.weigh(place, *weight);
        }
    }

    fn weigh(&mut self, place: &Place, weight: usize) {
        match self.weighed.iter_mut().find(|(known, _)| known == place) {
            Some((_, sum)) => *sum = sum.saturating_add(weight),
            None => self.weighed.push((place.clone(), weight)),
        }
    }
}

/// When none of its wishes is met and every place is known, the expression is False, for at most this cost.
#[derive(Clone, Debug)]
pub struct Group {
    pub wishes: Vec<Wish>,
    pub cost: Cost,
}

impl Group {
    /// How often the group is met, in a thousand requests, by rule of thumb.
    pub fn rank(&self) -> usize {
        self.wishes.iter().map(|wish| common(&wish.place, &wish.wanted)).sum()
    }
}

/// Every group found; each of them alone is a necessary condition.
pub fn groups(node: &Node) -> Vec<Group> {
    match &node.kind {
        Kind::Constant(false) => vec![Group { wishes: Vec::new(), cost: Cost::of(1) }],
        Kind::Constant(true) | Kind::Not(_) | Kind::All(_) | Kind::Join(Joint::Xor, _) => Vec::new(),
        Kind::Compare(operand, test) => compared(operand, test),
        Kind::Any(truths) => match &**truths {
            Truths::Mapped(operand, test) => compared(operand, test),
            _ => Vec::new(),
        },
        Kind::Join(Joint::And, parts) => of_all(parts),
        Kind::Join(Joint::Or, parts) => of_any(parts).into_iter().collect(),
    }
}

/// Parts stand in the order in which they are evaluated: what stands before a group is paid first.
fn of_all(parts: &[Node]) -> Vec<Group> {
    let (mut found, mut before) = (Vec::new(), Cost::of(1));
    for part in parts {
        for mut group in groups(part) {
            group.cost.add(&before);
            found.push(group);
        }
        let Some(whole) = whole(part) else { break };
        before.add(&whole);
    }
    found
}

fn of_any(parts: &[Node]) -> Option<Group> {
    let mut all = Group { wishes: Vec::new(), cost: Cost::of(1) };
    for part in parts {
        let best = groups(part).into_iter().min_by_key(Group::rank)?;
        all.wishes.extend(best.wishes);
        all.cost.add(&best.cost);
    }
    Some(all)
}

fn compared(operand: &Operand, test: &Test) -> Vec<Group> {
    let group = || {
        let (place, wanted, most_calls) = match affix(operand) {
            Some((place, text)) => (place, vec![Wanted::Part(text)], 1),
            None => (place(operand)?, wanted(test)?, 0),
        };
        let (cost, made) = (comparison(operand, test)?, calls_within(operand) > most_calls);
        let wish = |wanted| Wish { place: place.clone(), wanted, made };
        let wishes: Vec<_> = wanted.into_iter().map(wish).collect();
        // Nothing is in an empty set, but nobody knows whether an unknown value is.
        (!wishes.is_empty()).then_some(Group { wishes, cost })
    };
    group().into_iter().collect()
}

/// The place whose value, but for the case of letters, an operand has.
fn place(operand: &Operand) -> Option<Place> {
    match (&operand.base, &*operand.steps) {
        (Base::Field(field), steps) if nested(steps) => {
            Some(Place { field: *field, steps: steps.to_vec(), kind: operand.kind })
        }
        (Base::Call(Function::Lower | Function::Upper, arguments), []) => {
            place(arguments.first()?).filter(|place| place.kind == Type::Bytes)
        }
        (Base::Mapped(Function::Lower | Function::Upper, arguments), [Step::Each]) => {
            let argument = arguments.first().filter(|argument| matches!(argument.base, Base::Field(_)))?;
            place(argument).filter(|place| place.kind == Type::Bytes)
        }
        _ => None,
    }
}

/// A step after `[*]` other than one index or another `[*]` is not counted on.
fn nested(steps: &[Step]) -> bool {
    match steps.iter().position(|step| *step == Step::Each) {
        Some(first) => matches!(steps[first..], [_] | [_, Step::Each | Step::At(_)]),
        None => true,
    }
}

/// `starts_with` and `ends_with` of a place, and the text that must be there.
fn affix(operand: &Operand) -> Option<(Place, Vec<u8>)> {
    let Base::Call(Function::StartsWith | Function::EndsWith, arguments) = &operand.base else { return None };
    let [text, affix] = &**arguments else { return None };
    let Some(Constant::Bytes(affix)) = affix.literal() else { return None };
    if affix.is_empty() {
        return None;
    }
    Some((place(text)?, affix.to_ascii_lowercase()))
}

fn wanted(test: &Test) -> Option<Vec<Wanted>> {
    let text = |text: &[u8]| Wanted::Text(text.to_ascii_lowercase());
    Some(match test {
        Test::Holds => vec![Wanted::Number(1, 1)],
        Test::Int(order, right) => vec![number(*order, *right)?],
        Test::InInts(ranges) => ranges.iter().map(|(first, last)| Wanted::Number(*first, *last)).collect(),
        Test::Bytes(Order::Equal, right) => vec![text(right)],
        Test::InBytes(items) => items.iter().map(|item| text(item)).collect(),
        Test::Contains(finder) if !finder.needle().is_empty() => {
            vec![Wanted::Part(finder.needle().to_ascii_lowercase())]
        }
        Test::Matches(regex) => literals::needed(regex.as_str())?.into_iter().map(Wanted::Part).collect(),
        Test::Wildcard(pattern) if pattern.stars() == 0 => vec![text(pattern.longest())],
        Test::Wildcard(pattern) if !pattern.longest().is_empty() => {
            vec![Wanted::Part(pattern.longest().to_ascii_lowercase())]
        }
        Test::Ip(Order::Equal, right) => vec![Wanted::Address(*right, *right)],
        Test::InIps(ranges) => ranges.iter().map(|(first, last)| Wanted::Address(*first, *last)).collect(),
        Test::InList(name) => vec![Wanted::Listed(name.clone())],
        Test::Bytes(..) | Test::Ip(..) | Test::Contains(_) | Test::Wildcard(_) | Test::BitAnd(_) => {
            return None;
        }
    })
}

fn number(order: Order, right: i64) -> Option<Wanted> {
    Some(match order {
        Order::Equal => Wanted::Number(right, right),
        Order::Less => Wanted::Number(i64::MIN, right.checked_sub(1)?),
        Order::LessOrEqual => Wanted::Number(i64::MIN, right),
        Order::Greater => Wanted::Number(right.checked_add(1)?, i64::MAX),
        Order::GreaterOrEqual => Wanted::Number(right, i64::MAX),
        Order::NotEqual => return None,
    })
}

/// Most steps a whole evaluation takes; None where that is not easily bounded.
fn whole(node: &Node) -> Option<Cost> {
    let mut cost = Cost::of(1);
    match &node.kind {
        Kind::Constant(_) => (),
        Kind::Compare(operand, test) => cost = comparison(operand, test)?,
        Kind::Not(inner) => cost.add(&whole(inner)?),
        Kind::Any(truths) | Kind::All(truths) => match &**truths {
            Truths::Mapped(operand, test) => cost = comparison(operand, test)?,
            _ => return None,
        },
        Kind::Join(_, parts) => {
            for part in parts {
                cost.add(&whole(part)?);
            }
        }
    }
    Some(cost)
}

/// A comparison with its node: a step for it, for a call and for every index, then the looking through.
fn comparison(operand: &Operand, test: &Test) -> Option<Cost> {
    let mut cost = Cost::of(2 + operand.steps.len());
    let (place, calls) = match &operand.base {
        Base::Field(_) => (place(operand)?, 0),
        Base::Call(Function::Lower | Function::Upper, arguments)
        | Base::Mapped(Function::Lower | Function::Upper, arguments) => {
            let inner = place(operand)?;
            cost.fixed += arguments.first().map_or(0, depth);
            (inner, arguments.first().map_or(0, calls_within) + 1)
        }
        Base::Call(Function::Len, arguments) => {
            let text = arguments.first()?;
            cost.fixed += depth(text);
            (place(text).filter(|place| place.kind == Type::Bytes)?, calls_within(text) + 1)
        }
        Base::Call(Function::StartsWith | Function::EndsWith, _) => {
            let (inner, text) = affix(operand)?;
            let Base::Call(_, arguments) = &operand.base else { return None };
            cost.fixed += 1 + text.len() + arguments.first().map_or(0, depth);
            (inner, arguments.first().map_or(0, calls_within) + 1)
        }
        _ => return None,
    };
    let each = usize::from(place.steps.contains(&Step::Each));
    let looked = match test {
        Test::Wildcard(pattern) => pattern.longest().len().max(1),
        _ => usize::from(place.kind == Type::Bytes),
    };
    // An element costs a step wherever it is unpacked: once for the field, once more for what a function made of it.
    let weight = calls + looked + each * (1 + calls);
    if weight > 0 {
        cost.weigh(&place, weight);
    }
    Some(cost)
}

/// Steps of the indexes and calls within an operand.
fn depth(operand: &Operand) -> usize {
    let inner = match &operand.base {
        Base::Call(_, arguments) | Base::Mapped(_, arguments) => 1 + arguments.first().map_or(0, depth),
        _ => 0,
    };
    operand.steps.len() + inner
}

fn calls_within(operand: &Operand) -> usize {
    match &operand.base {
        Base::Call(_, arguments) | Base::Mapped(_, arguments) => {
            1 + arguments.first().map_or(0, calls_within)
        }
        _ => 0,
    }
}

/// In a thousand requests, by rule of thumb; only the order of these numbers matters.
fn common(place: &Place, wanted: &Wanted) -> usize {
    match wanted {
        Wanted::Text(text) => match place.field.field().name {
            "http.request.method" if matches!(&**text, b"get" | b"post" | b"head") => 400,
            "http.request.version" | "http.request.scheme" => 400,
            "http.request.method" | "http.host" | "ip.src.country" | "ip.src.continent" => 30,
            _ => 3,
        },
        Wanted::Part(text) => match text.len() {
            0 | 1 => 600,
            2 => 200,
            3 => 60,
            4 => 20,
            _ => 8,
        },
        Wanted::Number(first, last) if first == last && place.kind == Type::Int => 20,
        Wanted::Number(..) => 300,
        Wanted::Address(first, last) => match spread(*first, *last) {
            0..=16 => 1,
            17..=24 => 8,
            25..=64 => 20,
            _ => 300,
        },
        Wanted::Listed(_) => 40,
    }
}

/// Bits of a range of addresses; an IPv6 range counts by its networks of 64 bits.
fn spread(first: IpAddr, last: IpAddr) -> u32 {
    let bits = |size: u128| u128::BITS - size.leading_zeros();
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            bits(u128::from(last.to_bits().saturating_sub(first.to_bits())))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => bits(last.to_bits().saturating_sub(first.to_bits()) >> 64),
        _ => u128::BITS,
    }
}
