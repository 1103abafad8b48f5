//! Regular expressions: matched in linear time, and charged for how steep that line can get.
//!
//! A match never goes back in the text, but each byte of it may cost as much as the expression has positions: someone who knows
//! `(x{100}){100}z` sends bytes that make a lazy automaton useless. Steps are counted by that, so that the budget holds.

use aho_corasick::AhoCorasick;
use regex::bytes::{Captures, Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, Hir, HirKind};

use crate::eval::Machine;
use crate::literals;

/// Largest compiled regex, in bytes.
const REGEX_MOST: usize = 1 << 20;
/// Most memory the lazy automaton of one regex takes for each thread that uses it at a time, in bytes. Visitors choose
/// what it is filled with; a full one is emptied and built anew.
pub(crate) const REGEX_CACHE_MOST: usize = 256 << 10;
/// Positions of an expression that cost one step for each piece of text; an automaton of so few is built at once.
const POSITIONS_A_STEP: usize = 4;

/// A compiled regular expression with its price.
#[derive(Debug)]
pub(crate) struct Regular {
    regex: Regex,
    /// What looking through a piece of text costs at worst, in the measure of the budget.
    weight: usize,
    /// Of a heavy one: strings of which one occurs wherever it matches.
    needed: Option<AhoCorasick>,
}

impl Regular {
    /// Bytes, not characters, unless the pattern says `(?u)`. An error is for a person.
    pub fn new(text: &str) -> Result<Self, String> {
        let regex = RegexBuilder::new(text)
            .unicode(false)
            .size_limit(REGEX_MOST)
            .dfa_size_limit(REGEX_CACHE_MOST)
            .build()
            .map_err(|fault| reason(&fault))?;
        // What was compiled can be parsed; otherwise it costs the whole budget.
        let tree = ParserBuilder::new().unicode(false).utf8(false).build().parse(text);
        let weight = tree.map_or(usize::MAX, |tree| weight(&tree));
        let needed = (weight > 1).then(|| literals::needed(text)).flatten();
        let needed =
            needed.and_then(|needed| AhoCorasick::builder().ascii_case_insensitive(true).build(needed).ok());
        Ok(Self { regex, weight, needed })
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        self.regex.as_str()
    }

    /// Its groups, the whole match not among them.
    pub fn groups(&self) -> usize {
        self.regex.captures_len() - 1
    }

    /// Whether it matches somewhere in the text; `None` when the steps do not suffice to tell. The text is paid for once.
    pub fn is_match(&self, text: &[u8], machine: &mut Machine<'_, '_>) -> Option<bool> {
        if self.needed.as_ref().is_some_and(|needed| !needed.is_match(text)) {
            return Some(false);
        }
        self.pay(text, machine).then(|| self.regex.is_match(text))
    }

    /// The first match with its groups; the outer `None` when the steps do not suffice.
    pub fn captures<'t>(
        &self,
        text: &'t [u8],
        machine: &mut Machine<'_, '_>,
    ) -> Option<Option<Captures<'t>>> {
        self.pay(text, machine).then(|| self.regex.captures(text))
    }

    /// Pays for what it costs beyond one look.
    fn pay(&self, text: &[u8], machine: &mut Machine<'_, '_>) -> bool {
        let more = self.weight.saturating_sub(1);
        more == 0 || machine.pay_times(text.len(), more)
    }
}

fn weight(tree: &Hir) -> usize {
    // Words next to each other never make an automaton larger than they are.
    if tree.properties().is_alternation_literal() {
        return 1;
    }
    positions(tree).div_ceil(POSITIONS_A_STEP).max(1)
}

/// Places in the expression that a match can be at, about.
fn positions(tree: &Hir) -> usize {
    match tree.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len(),
        HirKind::Class(Class::Bytes(_)) => 1,
        HirKind::Class(Class::Unicode(class)) => class.iter().count().max(1),
        HirKind::Capture(group) => positions(&group.sub).saturating_add(2),
        HirKind::Concat(parts) => parts.iter().map(positions).fold(0, usize::saturating_add),
        HirKind::Alternation(parts) => parts.iter().map(positions).fold(parts.len(), usize::saturating_add),
        HirKind::Repetition(repeated) => {
            let times = repeated.max.unwrap_or(repeated.min.max(1)) as usize;
            let optional = times.saturating_sub(repeated.min as usize).max(1);
            positions(&repeated.sub).saturating_mul(times).saturating_add(optional)
        }
    }
}

fn reason(fault: &regex::Error) -> String {
    if let regex::Error::CompiledTooBig(most) = fault {
        return format!(
            "this regular expression is too large: compiled, it takes more than {} KiB",
            most >> 10
        );
    }
    let text = fault.to_string();
    let last = text.lines().last().unwrap_or("invalid regular expression");
    last.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_weighs_what_a_byte_can_cost() {
        for (text, least, most) in [
            ("abc", 1, 1),
            ("union|select|drop", 1, 1),
            (".*(?:.*=.*)", 2, 2),
            ("(a+)+$", 2, 3),
            ("x[xy]{12}z", 4, 8),
            ("(x{100}){100}z", 2500, 2700),
            ("(x?){3000}z", 1500, 3100),
        ] {
            let regular = Regular::new(text).unwrap();
            assert!((least..=most).contains(&regular.weight), "{text}: {}", regular.weight);
        }
        let too_large = Regular::new("(a{1000}){1000}").unwrap_err();
        assert!(too_large.contains("too large") && too_large.contains("1024 KiB"), "{too_large}");
        assert!(Regular::new(r"(a)\1").unwrap_err().contains("backreferences are not supported"));
    }
}
