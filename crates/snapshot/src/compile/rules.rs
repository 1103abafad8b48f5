//! Compiles rules: from the configuration and from files of their own, for all sites and for one, and rulesets others execute.

mod action;
mod check;
mod overrides;
mod words;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use expr::{ExpressionError, Filter, Options, Phase, SOURCE_MOST, Type, ValueExpression};

use super::Judge;
use super::lists::Known;
use crate::desired::rules::{ActionName, OnUnknown, Rule as Written, RuleMode, RulePhase};
use crate::desired::{self, Desired};
use crate::diagnostic::quote;
use crate::rules::{PhaseRules, Rule, Ruleset, SiteRules};

/// Characters of an id.
const ID_CHARACTERS: usize = 64;
/// Rules in force at one site, those for all sites included. Each costs memory, and time whenever a generation is made.
const RULES_MOST: usize = 50_000;
/// Names a ruleset cannot have: the rules for all sites are called so.
const ACCOUNT: &str = "account";

/// What rules are checked against, and what all sites share.
pub(super) struct RuleBook {
    /// Lists that expressions may name, with the type of what is in them.
    lists: Vec<(String, Type)>,
    /// Lists of redirects.
    redirects: Vec<String>,
    /// Rulesets that others execute, disabled rules included.
    rulesets: BTreeMap<String, Draft>,
    /// Rules for all sites.
    account: Vec<(Phase, Compiled)>,
    /// Where each id is used.
    ids: HashMap<String, String>,
}

/// A ruleset that others execute.
struct Draft {
    phase: Option<Phase>,
    rules: Vec<Compiled>,
    executed: bool,
}

/// A rule with what is only needed while compiling.
#[derive(Clone)]
struct Compiled {
    rule: Rule,
    enabled: bool,
    /// What tells it from others: a hash of all that is written.
    digest: [u8; 32],
}

impl Judge<'_> {
    /// What is the same for all sites.
    pub(super) fn rule_book(&mut self, desired: &Desired, known: Known) -> RuleBook {
        let mut book = RuleBook {
            lists: known.lists,
            redirects: known.redirects,
            rulesets: BTreeMap::new(),
            account: Vec::new(),
            ids: HashMap::new(),
        };
        for (index, ruleset) in desired.rulesets.iter().enumerate() {
            self.ruleset(ruleset, &format!("rulesets[{index}]"), &mut book);
        }
        let mut ids = HashMap::new();
        let written = self.all_rules(&desired.rules, &desired.rules_files, "");
        book.account = self.rules_of(&written, &mut book, &mut ids);
        book.ids.extend(ids);
        book
    }

    /// The rules of a site, after those for all sites.
    pub(super) fn site_rules(
        &mut self,
        site: &desired::Site,
        place: &str,
        name: &Arc<str>,
        book: &mut RuleBook,
    ) -> SiteRules {
        let mut ids = HashMap::new();
        let written = self.all_rules(&site.rules, &site.rules_files, &format!("{place}."));
        let own = self.rules_of(&written, book, &mut ids);
        let count = own.len() + book.account.len();
        if count > RULES_MOST {
            let message = format!("{count} rules are too many for one site");
            let hint = format!("at most {RULES_MOST} are accepted; put addresses and hosts into lists");
            self.review.error(&format!("{place}.rules"), "too-many", message, hint);
        }
        let reads_body = book.account.iter().chain(&own).any(|(_, rule)| rule.rule.reads_body());
        let phases = Phase::ALL.iter().filter_map(|phase| {
            let ruleset = |id: Arc<str>, rules: &[(Phase, Compiled)]| {
                let rules: Vec<Rule> = rules
                    .iter()
                    .filter(|(of, rule)| of == phase && rule.enabled)
                    .map(|(_, rule)| rule.rule.clone())
                    .collect();
                (!rules.is_empty()).then(|| Arc::new(Ruleset::new(id, rules)))
            };
            let rulesets: Vec<_> = [ruleset(ACCOUNT.into(), &book.account), ruleset(name.clone(), &own)]
                .into_iter()
                .flatten()
                .collect();
            let mut digest = blake3::Hasher::new();
            for (of, rule) in book.account.iter().chain(&own) {
                if of == phase {
                    digest.update(&rule.digest);
                    rule.rule.write_executed(&mut |bytes| {
                        digest.update(bytes);
                    });
                }
            }
            let digest = *digest.finalize().as_bytes();
            (!rulesets.is_empty()).then_some((*phase, PhaseRules { rulesets, digest }))
        });
        let rules = SiteRules::new(phases.collect(), reads_body);
        if let Some(Err(error)) = rules.phase(Phase::Origin).map(PhaseRules::routes) {
            let message = error.to_string();
            let hint =
                "let rules that may match together set the same parameters, or give each part its own site";
            self.review.error(&format!("{place}.rules"), "too-many", message, hint);
        }
        rules
    }

    /// Says of each ruleset that nothing executes that it is not used.
    pub(super) fn unused_rulesets(&mut self, desired: &Desired, book: &RuleBook) {
        for (index, ruleset) in desired.rulesets.iter().enumerate() {
            if book.rulesets.get(&ruleset.id).is_some_and(|draft| !draft.executed) {
                let message = format!("nothing executes the ruleset {}", quote(&ruleset.id));
                let hint = "add a rule with action = \"execute\", or remove it";
                self.review.warning(&format!("rulesets[{index}].id"), "unused-ruleset", message, hint);
            }
        }
    }

    /// Rules written in place, then those of files, each with where it is written.
    fn all_rules(&mut self, rules: &[Written], files: &[String], front: &str) -> Vec<(String, Written)> {
        let own =
            rules.iter().enumerate().map(|(index, rule)| (format!("{front}rules[{index}]"), rule.clone()));
        let mut all: Vec<_> = own.collect();
        for (index, path) in files.iter().enumerate() {
            let place = format!("{front}rules_files[{index}]");
            let Some(bytes) = self.file(path, &place) else { continue };
            let Some(file) = crate::check::read_rules(self.review, path, &bytes, &place) else {
                continue;
            };
            let found = file.rules.into_iter().enumerate();
            all.extend(found.map(|(index, rule)| (format!("{place}.rules[{index}]"), rule)));
        }
        all
    }

    fn ruleset(&mut self, ruleset: &desired::rules::Ruleset, place: &str, book: &mut RuleBook) {
        let at = format!("{place}.id");
        if !is_id(&ruleset.id) || ruleset.id == ACCOUNT {
            self.bad_id(&ruleset.id, &at, "a ruleset");
            return;
        }
        if book.rulesets.contains_key(&ruleset.id) {
            let message = format!("there is another ruleset {}", quote(&ruleset.id));
            self.review.error(&at, "duplicate-ruleset", message, "give each ruleset an id of its own");
            return;
        }
        let written: Vec<_> = ruleset
            .rules
            .iter()
            .enumerate()
            .map(|(index, rule)| (format!("{place}.rules[{index}]"), rule.clone()))
            .collect();
        let mut ids = HashMap::new();
        for (place, _) in written.iter().filter(|(_, rule)| rule.action == ActionName::Execute) {
            let hint = "have the rule that executes this ruleset execute the other one too";
            let at = format!("{place}.action");
            let message =
                format!("{} is executed, and so cannot execute another ruleset", quote(&ruleset.id));
            self.review.error(&at, "nested-execute", message, hint);
            self.review.flag(&format!("{place}.action_parameters"));
        }
        let rules = self.rules_of(&written, book, &mut ids);
        let phase = rules.first().map(|(phase, _)| *phase);
        for ((found, _), (place, _)) in rules.iter().zip(&written) {
            if Some(*found) != phase {
                let message = format!("{} is not the phase of the rules before", quote(found.name()));
                let hint = "all rules of a ruleset have one phase: make one ruleset for each";
                self.review.error(&format!("{place}.phase"), "mixed-phases", message, hint);
            }
        }
        let rules = rules.into_iter().map(|(_, rule)| rule).collect();
        book.ids.extend(ids);
        book.rulesets.insert(ruleset.id.clone(), Draft { phase, rules, executed: false });
    }

    fn rules_of(
        &mut self,
        written: &[(String, Written)],
        book: &mut RuleBook,
        ids: &mut HashMap<String, String>,
    ) -> Vec<(Phase, Compiled)> {
        written.iter().filter_map(|(place, rule)| self.rule(rule, place, book, ids)).collect()
    }

    /// One rule; `None` when something is wrong with it, or when it can have no effect yet. Either was said.
    fn rule(
        &mut self,
        rule: &Written,
        place: &str,
        book: &mut RuleBook,
        ids: &mut HashMap<String, String>,
    ) -> Option<(Phase, Compiled)> {
        let phase = phase_of(rule.phase);
        let digest = digest(rule);
        let id = self.rule_id(rule, &digest, place, book, ids);
        let filter = self.filter(&rule.expression, &format!("{place}.expression"), phase, book);
        self.rate_limit(rule, place, phase, book);
        let action = self.action(rule, place, phase, book);
        if rule.on_unknown == OnUnknown::Fire && rule.action == ActionName::Block {
            let message = "this rule blocks everybody as soon as a value it needs is not known";
            let hint = "remove on_unknown, unless that is what you want";
            self.review.warning(&format!("{place}.on_unknown"), "blocks-on-unknown", message, hint);
        }
        let enabled = rule.enabled;
        let rule = Rule {
            id,
            filter: Arc::new(filter?),
            action: action?,
            log_only: rule.mode == RuleMode::Log,
            fires_on_unknown: rule.on_unknown == OnUnknown::Fire,
            noted: rule.logging.enabled,
            categories: rule.categories.iter().map(|category| category.as_str().into()).collect(),
            place: place.into(),
        };
        // What no module counts yet fires never; that was said.
        (phase != Phase::RateLimit).then_some(())?;
        Some((phase, Compiled { rule, enabled, digest }))
    }

    fn rule_id(
        &mut self,
        rule: &Written,
        digest: &[u8; 32],
        place: &str,
        book: &RuleBook,
        ids: &mut HashMap<String, String>,
    ) -> Arc<str> {
        let at = format!("{place}.id");
        let Some(id) = &rule.id else {
            let made = blake3::Hash::from_bytes(*digest).to_hex();
            let mut id = made.get(..12).unwrap_or_default().to_owned();
            let mut again = 1;
            while ids.contains_key(&id) || book.ids.contains_key(&id) {
                again += 1;
                id = format!("{}-{again}", made.get(..12).unwrap_or_default());
            }
            ids.insert(id.clone(), at);
            return id.into();
        };
        if !is_id(id) {
            self.bad_id(id, &at, "a rule");
        } else if let Some(other) = ids.get(id).or_else(|| book.ids.get(id)) {
            let message =
                format!("the rule in line {} has the id {} too", self.review.places.line(other), quote(id));
            self.review.error(&at, "duplicate-rule", message, "give each rule an id of its own");
        } else {
            ids.insert(id.clone(), at);
        }
        id.as_str().into()
    }

    fn bad_id(&mut self, id: &str, place: &str, what: &str) {
        let message = format!("{} cannot be the id of {what}", quote(id));
        let hint = format!("use 1 to {ID_CHARACTERS} letters, digits, `.`, `_` and `-`");
        self.review.error(place, "bad-rule-id", message, hint);
    }

    fn filter(&mut self, source: &str, place: &str, phase: Phase, book: &RuleBook) -> Option<Filter> {
        let lists: Vec<_> = book.lists.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
        let options = Options { phase: Some(phase), lists: &lists, source_most: SOURCE_MOST };
        let parsed = Filter::parse(source, &options);
        parsed.map_err(|error| self.bad_expression(place, &error)).ok()
    }

    fn value(
        &mut self,
        source: &str,
        place: &str,
        phase: Phase,
        book: &RuleBook,
    ) -> Option<Arc<ValueExpression>> {
        let lists: Vec<_> = book.lists.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
        let options = Options { phase: Some(phase), lists: &lists, source_most: SOURCE_MOST };
        let parsed = ValueExpression::parse(source, &options);
        parsed.map(Arc::new).map_err(|error| self.bad_expression(place, &error)).ok()
    }

    fn bad_expression(&mut self, place: &str, error: &ExpressionError) {
        self.review.error_within(place, "bad-expression", error);
    }
}

/// The phase of the rules language.
pub(super) fn phase_of(phase: RulePhase) -> Phase {
    match phase {
        RulePhase::HttpRequestDynamicRedirect => Phase::DynamicRedirect,
        RulePhase::HttpRequestTransform => Phase::Transform,
        RulePhase::HttpConfigSettings => Phase::ConfigSettings,
        RulePhase::HttpRequestOrigin => Phase::Origin,
        RulePhase::HttpRequestFirewallCustom => Phase::FirewallCustom,
        RulePhase::HttpRatelimit => Phase::RateLimit,
        RulePhase::HttpRequestFirewallManaged => Phase::FirewallManaged,
        RulePhase::HttpRequestRedirect => Phase::Redirect,
        RulePhase::HttpRequestLateTransform => Phase::LateTransform,
        RulePhase::HttpRequestCacheSettings => Phase::CacheSettings,
        RulePhase::HttpCustomErrors => Phase::CustomErrors,
        RulePhase::HttpResponseHeadersTransform => Phase::ResponseHeaders,
        RulePhase::HttpResponseCompression => Phase::ResponseCompression,
        RulePhase::HttpLogCustomFields => Phase::LogFields,
    }
}

fn is_id(id: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !id.is_empty() && id.len() <= ID_CHARACTERS && id.bytes().all(known)
}

/// A hash of everything written in a rule.
fn digest(rule: &Written) -> [u8; 32] {
    // Its types have nothing that could not be written as JSON.
    *blake3::hash(&serde_json::to_vec(rule).unwrap_or_default()).as_bytes()
}
