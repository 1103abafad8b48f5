//! Ids of rules and rulesets as kill switches name them, looked up in a generation.

use std::collections::BTreeSet;

use crate::generation::Snapshot;
use crate::rules::{Action, SiteRules};

/// Ids offered to whoever has named one that is not there.
const SIMILAR_MOST: usize = 5;
/// Likeness (Jaro-Winkler, 0 to 1) from which an id is offered.
const LIKENESS: f64 = 0.75;

/// What a generation has under an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A rule or a ruleset.
    Known,
    /// Nothing; ids that are like it, the most similar first.
    Unknown(Vec<String>),
}

/// Looks a rule or ruleset up by its id, at one site or (`None`) at all of them. Disabled rules are not there.
pub fn find(snapshot: &Snapshot, id: &str, site: Option<&str>) -> Named {
    let here = |name: &str| site.is_none_or(|site| site == name);
    let sites = snapshot.sites.iter().filter(|found| here(&found.name));
    let ids: BTreeSet<&str> = sites.flat_map(|site| ids(&site.rules)).collect();
    if ids.contains(id) {
        return Named::Known;
    }
    let likeness = |known: &str| strsim::jaro_winkler(known, id);
    let mut similar: Vec<(f64, &str)> = ids.into_iter().map(|known| (likeness(known), known)).collect();
    similar.retain(|(likeness, _)| *likeness >= LIKENESS);
    similar.sort_by(|(left, _), (right, _)| right.total_cmp(left));
    Named::Unknown(similar.into_iter().take(SIMILAR_MOST).map(|(_, known)| known.to_owned()).collect())
}

/// Ids of rules, of their rulesets, and of the rulesets they execute.
fn ids(rules: &SiteRules) -> impl Iterator<Item = &str> {
    rules.phases().flat_map(|(_, rules)| &rules.rulesets).flat_map(|ruleset| {
        let executed = ruleset.rules().iter().filter_map(|rule| match &rule.action {
            Action::Execute(inner) => Some(&*inner.id),
            _ => None,
        });
        std::iter::once(&*ruleset.id).chain(executed).chain(ruleset.all_rules().map(|rule| &*rule.id))
    })
}
