//! One place and everything that is wanted there, looked up at once.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};

use super::condition::{Place, Wanted};
use super::postings::{Posting, Ranges, address, number};
use crate::ast::Step;
use crate::error::Span;
use crate::eval::{ELEMENTS_MOST, Machine, TEXT_MOST};
use crate::plan::{Base, Operand};
use crate::types::Type;
use crate::value::{Fetched, Value};
use crate::{Context, Steps, Truth};

/// What every element of a place weighs at least, and a place with none: more than evaluation takes for its steps.
const WEIGHT_LEAST: usize = 4;
/// Bytes that weigh one more, as many as evaluation looks through for one step.
const BYTES_A_WEIGHT: usize = 64;

/// What is wanted of a place, before it is put in order.
#[derive(Debug)]
pub struct Wishes {
    pub place: Place,
    /// Most steps a rule takes for each unit of weight.
    pub weight: usize,
    pub wanted: Vec<(Wanted, u32)>,
    /// Those of it that functions give up on when a value is too large.
    pub made: Vec<u32>,
}

/// A place, and which conditions each value there meets.
#[derive(Debug)]
pub struct Index {
    operand: Operand,
    pub weight: usize,
    /// Every condition here, for values nobody knows.
    everything: Posting,
    /// Those of values a function has to make first.
    made: Posting,
    /// By hash only: another text of the same hash costs a rule looked at in vain.
    texts: HashMap<u64, Posting, BuildHasherDefault<Same>>,
    longest: usize,
    parts: Option<(AhoCorasick, Vec<Posting>)>,
    numbers: Ranges,
    addresses: Ranges,
    lists: Vec<(String, Posting)>,
}

/// Bits under what they are wanted for.
struct Sorted {
    texts: HashMap<u64, Vec<u32>, BuildHasherDefault<Same>>,
    longest: usize,
    parts: HashMap<Vec<u8>, Vec<u32>, BuildHasherDefault<Fold>>,
    numbers: Vec<(super::postings::Key, super::postings::Key, u32)>,
    addresses: Vec<(super::postings::Key, super::postings::Key, u32)>,
    lists: Vec<(String, Vec<u32>)>,
}

impl Index {
    /// Also returns bits that could not be put in order: they are always met.
    pub fn new(wishes: Wishes, words: usize) -> (Self, Vec<u32>) {
        let everything = wishes.wanted.iter().map(|(_, bit)| *bit).collect();
        let sorted = sort(wishes.wanted);
        let (parts, mut always) = automaton(sorted.parts, words);
        let (numbers, wide) = Ranges::new(sorted.numbers, words);
        always.extend(wide);
        let (addresses, wide) = Ranges::new(sorted.addresses, words);
        always.extend(wide);
        let posted = |bits| Posting::new(bits, words);
        let Place { field, steps, kind } = wishes.place;
        let index = Self {
            operand: Operand { span: Span::default(), base: Base::Field(field), steps, kind },
            weight: wishes.weight,
            everything: posted(everything),
            made: posted(wishes.made),
            texts: sorted.texts.into_iter().map(|(hash, bits)| (hash, posted(bits))).collect(),
            longest: sorted.longest,
            parts,
            numbers,
            addresses,
            lists: sorted.lists.into_iter().map(|(name, bits)| (name, posted(bits))).collect(),
        };
        (index, always)
    }

    /// Sets the bits that the value here may meet; returns what the value weighs.
    pub fn mark(&self, context: &dyn Context, bits: &mut [u64]) -> usize {
        let mut steps = Steps::new(usize::MAX);
        let (mut weight, mut elements) = (WEIGHT_LEAST, 0);
        let mut see = |fetched: Fetched<'_>| {
            elements += 1;
            weight += WEIGHT_LEAST;
            match fetched {
                Fetched::Value(value) => weight += self.mark_value(&value, context, bits),
                Fetched::Missing => (),
                Fetched::Unknown => self.everything.mark(bits),
            }
        };
        let mut machine = Machine { context, steps: &mut steps };
        if let Some(whole) = machine.value_or_elements(&self.operand, &mut see) {
            see(whole);
        }
        // Functions give up on so many elements: what they say is then Unknown.
        if elements > ELEMENTS_MOST {
            self.made.mark(bits);
        }
        weight
    }

    /// Returns what the value weighs beyond the least.
    fn mark_value(&self, value: &Value<'_>, context: &dyn Context, bits: &mut [u64]) -> usize {
        match (value, self.operand.kind) {
            (Value::Bytes(text), Type::Bytes) => {
                self.mark_text(text, bits);
                self.mark_lists(context, bits, &|list| list.contains_bytes(text));
                return text.len() / BYTES_A_WEIGHT;
            }
            (Value::Int(value), Type::Int) => {
                self.numbers.mark(number(*value), bits);
                self.mark_lists(context, bits, &|list| list.contains_int(*value));
            }
            (Value::Bool(value), Type::Bool) => self.numbers.mark(number(i64::from(*value)), bits),
            (Value::Ip(value), Type::Ip) => {
                self.addresses.mark(address(*value), bits);
                self.mark_lists(context, bits, &|list| list.contains_ip(*value));
            }
            // Another type than the table says is no answer.
            _ => self.everything.mark(bits),
        }
        0
    }

    fn mark_text(&self, text: &[u8], bits: &mut [u64]) {
        if text.len() > TEXT_MOST {
            self.made.mark(bits);
        }
        if !self.texts.is_empty()
            && text.len() <= self.longest
            && let Some(posting) = self.texts.get(&folded(text))
        {
            posting.mark(bits);
        }
        let Some((automaton, postings)) = &self.parts else { return };
        for found in automaton.find_overlapping_iter(text) {
            if let Some(posting) = postings.get(found.pattern().as_usize()) {
                posting.mark(bits);
            }
        }
    }

    fn mark_lists(&self, context: &dyn Context, bits: &mut [u64], has: &dyn Fn(&dyn crate::List) -> Truth) {
        for (name, posting) in &self.lists {
            if context.list(name).map_or(Truth::Unknown, has) != Truth::False {
                posting.mark(bits);
            }
        }
    }

    /// Bytes it takes.
    pub fn memory(&self) -> usize {
        let steps: usize = self.operand.steps.iter().map(|step| size_of::<Step>() + key_length(step)).sum();
        let texts: usize = self.texts.values().map(|posting| 2 * size_of::<u64>() + posting.memory()).sum();
        let parts = self.parts.as_ref().map_or(0, |(automaton, postings)| {
            automaton.memory_usage() + postings.iter().map(Posting::memory).sum::<usize>()
        });
        let lists: usize = self.lists.iter().map(|(name, posting)| name.len() + posting.memory()).sum();
        let ranges = self.numbers.memory() + self.addresses.memory();
        size_of::<Self>()
            + steps
            + self.everything.memory()
            + self.made.memory()
            + texts
            + parts
            + ranges
            + lists
    }
}

fn key_length(step: &Step) -> usize {
    if let Step::Key(key) = step { key.len() } else { 0 }
}

fn sort(wanted: Vec<(Wanted, u32)>) -> Sorted {
    let mut sorted = Sorted {
        texts: HashMap::default(),
        longest: 0,
        parts: HashMap::default(),
        numbers: Vec::new(),
        addresses: Vec::new(),
        lists: Vec::new(),
    };
    for (wanted, bit) in wanted {
        match wanted {
            Wanted::Text(text) => {
                sorted.longest = sorted.longest.max(text.len());
                sorted.texts.entry(folded(&text)).or_default().push(bit);
            }
            Wanted::Part(text) => sorted.parts.entry(text).or_default().push(bit),
            Wanted::Number(first, last) => sorted.numbers.push((number(first), number(last), bit)),
            Wanted::Address(first, last) => sorted.addresses.push((address(first), address(last), bit)),
            Wanted::Listed(name) => match sorted.lists.iter_mut().find(|(known, _)| *known == name) {
                Some((_, bits)) => bits.push(bit),
                None => sorted.lists.push((name, vec![bit])),
            },
        }
    }
    sorted
}

type Parts = Option<(AhoCorasick, Vec<Posting>)>;

/// One automaton for all strings; where it cannot be built, their bits are always met.
fn automaton(parts: HashMap<Vec<u8>, Vec<u32>, BuildHasherDefault<Fold>>, words: usize) -> (Parts, Vec<u32>) {
    if parts.is_empty() {
        return (None, Vec::new());
    }
    let mut parts: Vec<_> = parts.into_iter().collect();
    parts.sort_unstable();
    let built = AhoCorasickBuilder::new()
        .match_kind(MatchKind::Standard)
        .ascii_case_insensitive(true)
        .build(parts.iter().map(|(text, _)| text));
    match built {
        Ok(automaton) => {
            let postings = parts.into_iter().map(|(_, bits)| Posting::new(bits, words)).collect();
            (Some((automaton, postings)), Vec::new())
        }
        Err(_) => (None, parts.into_iter().flat_map(|(_, bits)| bits).collect()),
    }
}

/// Hash of a text that does not see the case of ASCII letters. The texts are the operator's: no visitor can crowd it.
fn folded(text: &[u8]) -> u64 {
    let mut hash = Fold::default();
    hash.write(text);
    hash.finish()
}

#[derive(Default)]
struct Fold(u64);

impl Fold {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        const LOWER: u64 = 0x2020_2020_2020_2020;
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word) | LOWER);
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last) | LOWER);
        self.mix(bytes.len() as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

/// A key that is a hash already.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
