//! `execute`: a ruleset as one rule wants it, with what it overrides.

use std::collections::BTreeSet;
use std::sync::Arc;

use expr::Phase;

use super::action::word;
use super::{Compiled, Draft, RuleBook};
use crate::compile::Judge;
use crate::desired::rules::{ActionName, ActionParameters, Overrides};
use crate::diagnostic::quote;
use crate::rules::{Action, Challenge, Rule, Ruleset};

impl Judge<'_> {
    /// The ruleset of this id; says that there is none.
    pub(super) fn known_ruleset<'b>(
        &mut self,
        id: &str,
        place: &str,
        book: &'b RuleBook,
    ) -> Option<&'b Draft> {
        let found = book.rulesets.get(id);
        if found.is_none() {
            let message = format!("there is no ruleset {}", quote(id));
            let hint = match book.rulesets.keys().next() {
                Some(_) => {
                    format!("known are: {}", book.rulesets.keys().cloned().collect::<Vec<_>>().join(", "))
                }
                None => "add [[rulesets]] with this id; managed rulesets are not there yet".to_owned(),
            };
            self.review.error(place, "unknown-ruleset", message, hint);
        }
        found
    }

    pub(super) fn execute(
        &mut self,
        parameters: &ActionParameters,
        place: &str,
        phase: Phase,
        book: &mut RuleBook,
    ) -> Option<Action> {
        let at = format!("{place}.action_parameters");
        let Some(id) = &parameters.id else {
            let message = "this action needs `id`";
            self.review.error(
                &at,
                "missing-parameter",
                message,
                "add the id of a ruleset: id = \"admin-area\"",
            );
            return None;
        };
        let draft = self.known_ruleset(id, &format!("{at}.id"), book)?;
        if draft.phase.is_some_and(|of| of != phase) {
            let of = draft.phase.map(Phase::name).unwrap_or_default();
            let message = format!("the rules of {} are for the phase {}", quote(id), quote(of));
            self.review.error(&format!("{at}.id"), "wrong-phase", message, "execute it in that phase");
        }
        let overrides = parameters.overrides.clone().unwrap_or_default();
        self.known_targets(&overrides, draft, &format!("{at}.overrides"), id);
        let rules: Option<Vec<Vec<Rule>>> = draft
            .rules
            .iter()
            .map(|rule| self.overridden(rule, &overrides, &format!("{at}.overrides")))
            .collect();
        let rules = rules?.into_iter().flatten().collect();
        if let Some(draft) = book.rulesets.get_mut(id) {
            draft.executed = true;
        }
        Some(Action::Execute(Arc::new(Ruleset::new(id.as_str().into(), rules))))
    }

    fn known_targets(&mut self, overrides: &Overrides, draft: &Draft, place: &str, ruleset: &str) {
        let ids: BTreeSet<&str> = draft.rules.iter().map(|rule| &*rule.rule.id).collect();
        let categories: BTreeSet<&str> = draft
            .rules
            .iter()
            .flat_map(|rule| rule.rule.categories.iter().map(|category| &**category))
            .collect();
        for (index, entry) in overrides.rules.iter().enumerate() {
            if !ids.contains(entry.id.as_str()) {
                let message = format!("{} has no rule {}", quote(ruleset), quote(&entry.id));
                self.review.error(
                    &format!("{place}.rules[{index}].id"),
                    "unknown-rule",
                    message,
                    "check its id",
                );
            }
        }
        for (index, entry) in overrides.categories.iter().enumerate() {
            if !categories.contains(entry.category.as_str()) {
                let message =
                    format!("no rule of {} has the category {}", quote(ruleset), quote(&entry.category));
                let hint =
                    format!("known are: {}", categories.iter().copied().collect::<Vec<_>>().join(", "));
                let at = format!("{place}.categories[{index}].category");
                self.review.error(&at, "unknown-category", message, hint);
            }
        }
    }

    /// The rule as it is used here: none when it is not; `None` when an action cannot be put in place of its own. What is said of
    /// a rule counts before what is said of its categories, and that before what is said of all (Cloudflare, "Override
    /// expressions").
    fn overridden(&mut self, compiled: &Compiled, overrides: &Overrides, place: &str) -> Option<Vec<Rule>> {
        let rule = &compiled.rule;
        let own = overrides.rules.iter().find(|entry| *entry.id == *rule.id);
        let category = || {
            let of = |entry: &&crate::desired::rules::CategoryOverride| {
                rule.categories.iter().any(|category| **category == *entry.category)
            };
            overrides.categories.iter().filter(of)
        };
        let enabled = own
            .and_then(|own| own.enabled)
            .or_else(|| category().find_map(|entry| entry.enabled))
            .or(overrides.enabled)
            .unwrap_or(compiled.enabled);
        let action = own
            .and_then(|own| own.action)
            .or_else(|| category().find_map(|entry| entry.action))
            .or(overrides.action);
        if !enabled {
            return Some(Vec::new());
        }
        let mut rule = rule.clone();
        if let Some(name) = action {
            rule.action = self.plain_action(name, place)?;
        }
        Some(vec![rule])
    }

    fn plain_action(&mut self, name: ActionName, place: &str) -> Option<Action> {
        Some(match name {
            ActionName::Block => Action::Block(None),
            ActionName::Challenge => Action::Challenge(Challenge::Interactive),
            ActionName::JsChallenge => Action::Challenge(Challenge::Script),
            ActionName::ManagedChallenge => Action::Challenge(Challenge::Managed),
            ActionName::Log => Action::Log,
            other => {
                let message = format!("{} cannot stand in for the action of a rule", quote(&word(other)));
                let hint = "use block, challenge, js_challenge, managed_challenge or log";
                self.review.error(place, "bad-override", message, hint);
                return None;
            }
        })
    }
}
