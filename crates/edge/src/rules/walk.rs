//! One phase: which of its rules match a request, in their order, with what `skip` and `execute` make of that.

use base::module::OverBudget;
use expr::{Context, Evaluated, Phase, Truth};
use smallvec::SmallVec;
use snapshot::rules::{Action, PhaseRules, Product, Rule, Ruleset, STEPS_PER_RULE, Skip};

use crate::modules::Meter;

/// Rules found for one request in one phase; those beyond are not carried out, and that is an over-used budget.
const FOUND_MOST: usize = 256;
/// What one rule costs of the budget of its module, beside what its expression does.
const STEP: usize = 1;
/// Steps of an expression that are one of its module, so that the clock is looked at while expensive ones are evaluated.
const EXPRESSION_STEPS: usize = 64;

/// A rule that is to be carried out, or noted.
#[derive(Clone, Copy, Debug)]
pub struct Found<'s> {
    /// The rule.
    pub rule: &'s Rule,
    /// What is to become of it.
    pub fate: Fate,
}

/// What is to become of a rule that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is carried out.
    Enforced,
    /// It is noted as what would have been done.
    LogOnly,
    /// Its expression used up its steps; that is noted, and nothing is done.
    OverBudget,
}

/// Rules in the order in which they were found.
pub type Founds<'s> = SmallVec<[Found<'s>; 2]>;

/// What rules of earlier phases, and of this one, leave out.
#[derive(Clone, Debug, Default)]
pub struct Skipped<'s>(SmallVec<[&'s Skip; 2]>);

impl<'s> Skipped<'s> {
    /// Whether a phase is left out.
    pub fn phase(&self, phase: Phase) -> bool {
        let product = match phase {
            Phase::FirewallManaged => Some(Product::Waf),
            Phase::RateLimit => Some(Product::RateLimit),
            _ => None,
        };
        self.0.iter().any(|skip| {
            skip.phases.contains(&phase) || product.is_some_and(|product| skip.products.contains(&product))
        })
    }

    /// Whether a product is left out.
    pub fn product(&self, product: Product) -> bool {
        self.0.iter().any(|skip| skip.products.contains(&product))
    }

    fn ruleset(&self, id: &str) -> bool {
        self.0.iter().any(|skip| skip.rulesets.iter().any(|skipped| **skipped == *id))
    }

    fn rule(&self, id: &str) -> bool {
        self.0.iter().any(|skip| skip.rules.iter().any(|skipped| **skipped == *id))
    }
}

/// Says whether a rule or ruleset is switched off, by its id.
pub trait Switches {
    /// Whether it is.
    fn is_off(&self, id: &str) -> bool;
}

/// Walks the rules of a phase. What is found is in the order in which it is to be carried out; nothing follows a rule that
/// ends the request. Values are as they were when the phase began: no rule sees what another one of its phase changes.
pub fn walk<'s>(
    rules: &'s PhaseRules,
    context: &dyn Context,
    skipped: &mut Skipped<'s>,
    switches: &dyn Switches,
    meter: &mut Meter,
) -> Result<Founds<'s>, OverBudget> {
    let mut walk = Walk { context, skipped, switches, meter, found: Founds::new(), over: false, end: false };
    for ruleset in &rules.rulesets {
        walk.ruleset(ruleset);
        if walk.end {
            break;
        }
    }
    if walk.over { Err(OverBudget) } else { Ok(walk.found) }
}

/// Steps that one expression may take.
fn steps_per_rule() -> usize {
    #[cfg(feature = "faults")]
    if crate::fault::without("rule-budget") {
        return usize::MAX;
    }
    STEPS_PER_RULE
}

struct Walk<'w, 's> {
    context: &'w dyn Context,
    skipped: &'w mut Skipped<'s>,
    switches: &'w dyn Switches,
    meter: &'w mut Meter,
    found: Founds<'s>,
    over: bool,
    /// Nothing more of this phase.
    end: bool,
}

impl<'s> Walk<'_, 's> {
    fn ruleset(&mut self, ruleset: &'s Ruleset) {
        if self.skipped.ruleset(&ruleset.id) || self.switches.is_off(&ruleset.id) {
            return;
        }
        self.over |= self.meter.spend(STEP * ruleset.rules().len()).is_err();
        if self.over {
            self.end = true;
            return;
        }
        ruleset.visit(self.context, steps_per_rule(), &mut |rule, evaluated| self.see(rule, evaluated));
    }

    /// Deals with a rule that matches, or may; false ends its ruleset.
    fn see(&mut self, rule: &'s Rule, evaluated: Evaluated) -> bool {
        let Evaluated { truth, exhausted, steps } = evaluated;
        if self.meter.spend(steps / EXPRESSION_STEPS).is_err() {
            (self.over, self.end) = (true, true);
            return false;
        }
        let fate = match truth {
            Truth::Unknown if exhausted => Fate::OverBudget,
            Truth::Unknown if !rule.fires_on_unknown => return true,
            Truth::True | Truth::Unknown if rule.log_only => Fate::LogOnly,
            Truth::True | Truth::Unknown => Fate::Enforced,
            Truth::False => return true,
        };
        if self.skipped.rule(&rule.id) {
            return true;
        }
        if self.switches.is_off(&rule.id) {
            #[cfg(feature = "faults")]
            crate::fault::in_killed_rule(&rule.action);
            return true;
        }
        if self.found.len() == FOUND_MOST || self.meter.spend(STEP).is_err() {
            (self.over, self.end) = (true, true);
            return false;
        }
        self.found.push(Found { rule, fate });
        if fate != Fate::Enforced {
            return true;
        }
        match &rule.action {
            Action::Skip(skip) => {
                self.skipped.0.push(skip);
                self.end |= skip.this_phase;
                !skip.this_phase && !skip.this_ruleset
            }
            Action::Execute(inner) => {
                self.ruleset(inner);
                !self.end
            }
            action => {
                self.end |= action.ends();
                !self.end
            }
        }
    }
}
