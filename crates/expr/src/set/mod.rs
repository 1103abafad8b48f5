//! Many expressions evaluated together: only those are looked at whose necessary conditions the request meets.
//!
//! Of each rule up to three conditions are kept that must hold for it to be anything but False: that the host is one of
//! these, that the path has this string in it, that the address lies in that network. All rules' conditions on one place of
//! the request are looked up at once, in a table or an automaton. A rule that fails one is False, and that is certain also
//! where steps are counted: its conditions are known to be reached within the budget, or all rules are evaluated.

mod condition;
mod index;
mod postings;

use std::sync::Arc;

use crate::regular::REGEX_CACHE_MOST;
use crate::{Context, Filter, Steps, Truth};
use condition::{Cost, Group, Place};
use index::{Index, Wishes};
use postings::set;

/// Conditions kept of one rule.
const GROUPS_MOST: usize = 3;
/// Places of a request that are looked at before rules are; conditions on further ones are not kept.
const PLACES_MOST: usize = 64;
/// A condition that may take more steps than this to be reached is not kept.
const FIXED_MOST: usize = 4096;
/// Likewise, for each 64 bytes and each element of what is looked through.
const WEIGHT_MOST: usize = 128;
/// Words of candidates kept on the stack: enough for 2,730 rules.
const STACK_WORDS: usize = 128;

/// Rules in their order.
#[derive(Debug)]
pub struct RuleSet {
    filters: Vec<Arc<Filter>>,
    places: Vec<Index>,
    /// The bits of conditions that are met whatever the request: `words` for the first of each rule, and so on.
    start: Box<[u64]>,
    words: usize,
    /// Steps that some rule may take beside what places weigh.
    fixed: usize,
    regexes: usize,
}

/// What became of one rule of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluated {
    /// Its truth.
    pub truth: Truth,
    /// Whether its steps did not suffice.
    pub exhausted: bool,
    /// Steps it took; up to all it had.
    pub steps: usize,
}

/// Bytes a set of rules takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What finds the candidates; not the rules themselves.
    pub index: usize,
    /// What their regular expressions take at most for each thread that evaluates rules, however visitors choose what
    /// they are matched against. Nothing at first.
    pub regexes_a_thread: usize,
}

impl RuleSet {
    /// Puts rules in order; for the time of a change, not of a request.
    pub fn new(filters: Vec<Arc<Filter>>) -> Self {
        let words = filters.len().div_ceil(64);
        let mut builder =
            Builder { words, wishes: Vec::new(), fixed: 0, met: vec![u64::MAX; words * GROUPS_MOST] };
        for (rule, filter) in filters.iter().enumerate() {
            builder.add(rule, condition::groups(&filter.plan));
        }
        let Builder { wishes, fixed, mut met, .. } = builder;
        let mut places = Vec::with_capacity(wishes.len());
        for wishes in wishes {
            let (index, always) = Index::new(wishes, words * GROUPS_MOST);
            always.into_iter().for_each(|bit| set(&mut met, bit));
            places.push(index);
        }
        let regexes = filters.iter().map(|filter| filter.reads().regexes).sum();
        Self { filters, places, start: met.into(), words, fixed, regexes }
    }

    /// The rules, in order.
    pub fn filters(&self) -> &[Arc<Filter>] {
        &self.filters
    }

    /// Shows, in order, the rules that are True or Unknown, each evaluated with `steps` of its own, and whether it used
    /// them up; until `see` returns false. Exactly the truths of evaluating all of them. Returns how many were evaluated.
    pub fn matches(
        &self,
        context: &dyn Context,
        steps: usize,
        see: &mut dyn FnMut(usize, Truth, bool) -> bool,
    ) -> usize {
        self.evaluate(context, steps, &mut |rule, seen| {
            seen.truth == Truth::False || see(rule, seen.truth, seen.exhausted)
        })
    }

    /// The same for whoever pays: also shows rules that are False, where they had to be evaluated, and what each has cost.
    pub fn evaluate(
        &self,
        context: &dyn Context,
        steps: usize,
        see: &mut dyn FnMut(usize, Evaluated) -> bool,
    ) -> usize {
        let (mut few, mut many) = ([0; STACK_WORDS], Vec::new());
        let bits = match few.get_mut(..self.start.len()) {
            Some(bits) => bits,
            None => {
                many.resize(self.start.len(), 0);
                &mut many[..]
            }
        };
        bits.copy_from_slice(&self.start);
        let mut worst = self.fixed;
        for place in &self.places {
            worst = worst.saturating_add(place.mark(context, bits).saturating_mul(place.weight));
        }
        if worst > steps {
            bits.fill(u64::MAX);
        }
        let mut evaluated = 0;
        for word in 0..self.words {
            let mut candidates = bits.chunks_exact(self.words).fold(u64::MAX, |all, group| all & group[word]);
            while candidates != 0 {
                let rule = word * 64 + candidates.trailing_zeros() as usize;
                candidates &= candidates - 1;
                let Some(filter) = self.filters.get(rule) else { break };
                evaluated += 1;
                let mut left = Steps::new(steps);
                let truth = filter.evaluate(context, &mut left);
                let (exhausted, taken) = (left.exhausted(), steps - left.left());
                if !see(rule, Evaluated { truth, exhausted, steps: taken }) {
                    return evaluated;
                }
            }
        }
        evaluated
    }

    /// What it takes of memory.
    pub fn memory(&self) -> Memory {
        let places: usize = self.places.iter().map(Index::memory).sum();
        let rules = size_of_val(&*self.filters) + size_of_val(&*self.start);
        // An automaton for either direction of search.
        let regexes_a_thread = self.regexes * 2 * REGEX_CACHE_MOST;
        Memory { index: size_of::<Self>() + rules + places, regexes_a_thread }
    }
}

struct Builder {
    words: usize,
    wishes: Vec<Wishes>,
    fixed: usize,
    met: Vec<u64>,
}

impl Builder {
    /// Keeps the rarest of a rule's conditions.
    fn add(&mut self, rule: usize, mut groups: Vec<Group>) {
        groups.retain(|group| affordable(&group.cost));
        groups.sort_by_cached_key(Group::rank);
        let mut kept = 0;
        for group in groups {
            if kept == GROUPS_MOST {
                return;
            }
            let bit = kept * self.words * 64 + rule;
            if let Ok(bit) = u32::try_from(bit)
                && self.keep(group, bit)
            {
                kept += 1;
            }
        }
    }

    /// False when there are too many places already.
    fn keep(&mut self, group: Group, bit: u32) -> bool {
        let wished = group.wishes.iter().map(|wish| &wish.place);
        let mut new: Vec<&Place> = Vec::new();
        for place in wished.chain(group.cost.weighed.iter().map(|(place, _)| place)) {
            if !new.contains(&place) && !self.wishes.iter().any(|known| known.place == *place) {
                new.push(place);
            }
        }
        if self.wishes.len() + new.len() > PLACES_MOST {
            return false;
        }
        self.fixed = self.fixed.max(group.cost.fixed);
        for (place, weight) in &group.cost.weighed {
            let wishes = self.at(place);
            wishes.weight = wishes.weight.max(*weight);
        }
        for wish in group.wishes {
            let wishes = self.at(&wish.place);
            wishes.wanted.push((wish.wanted, bit));
            if wish.made {
                wishes.made.push(bit);
            }
        }
        if let Some(word) = self.met.get_mut(bit as usize / 64) {
            *word &= !(1 << (bit % 64));
        }
        true
    }

    fn at(&mut self, place: &Place) -> &mut Wishes {
        let position = self.wishes.iter().position(|known| known.place == *place).unwrap_or_else(|| {
            self.wishes.push(Wishes {
                place: place.clone(),
                weight: 0,
                wanted: Vec::new(),
                made: Vec::new(),
            });
            self.wishes.len() - 1
        });
        &mut self.wishes[position]
    }
}

fn affordable(cost: &Cost) -> bool {
    cost.fixed <= FIXED_MOST && cost.weighed.iter().all(|(_, weight)| *weight <= WEIGHT_MOST)
}
