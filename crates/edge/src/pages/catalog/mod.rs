//! The one table of reasons: what a failure is called, why it happened and what to do, in every language.

mod edge;
mod origin;
mod visitor;

use base::event::Fault;

use super::language::Language;

/// What is said about one reason in one language.
#[derive(Debug, PartialEq, Eq)]
pub struct Words {
    /// Heading; no full stop.
    pub title: &'static str,
    /// Why it happened, for a visitor.
    pub cause: &'static str,
    /// What the visitor can do.
    pub advice: &'static str,
    /// What the owner of the website can do; empty when that is the same, or nothing.
    pub owner: &'static str,
}

/// One reason.
#[derive(Debug)]
pub struct Entry {
    /// Stable name, as in logs and metrics.
    pub reason: &'static str,
    /// Statuses this entry also speaks for when the reason is not in the table.
    pub statuses: &'static [u16],
    /// Whose fault it is. An unknown reason only borrows words that blame the same party.
    pub fault: Fault,
    /// English.
    pub en: Words,
    /// French.
    pub fr: Words,
    /// German.
    pub de: Words,
}

impl Entry {
    /// The words in a language.
    pub fn words(&self, language: Language) -> &Words {
        match language {
            Language::English => &self.en,
            Language::French => &self.fr,
            Language::German => &self.de,
        }
    }
}

/// The entry for a failure: by reason, else by status among those that blame the same party, else that party's own.
pub fn find(reason: &str, status: u16, fault: Fault) -> &'static Entry {
    let general = match fault {
        Fault::Visitor => &visitor::GENERAL,
        Fault::Edge => &edge::GENERAL,
        Fault::Origin => &origin::GENERAL,
    };
    all()
        .find(|entry| entry.reason == reason)
        .or_else(|| all().find(|entry| entry.fault == fault && entry.statuses.contains(&status)))
        .unwrap_or(general)
}

/// Every entry that has a reason.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    visitor::ENTRIES.iter().chain(edge::ENTRIES).chain(origin::ENTRIES)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn everything() -> impl Iterator<Item = &'static Entry> {
        all().chain([&visitor::GENERAL, &edge::GENERAL, &origin::GENERAL])
    }

    #[test]
    fn every_entry_speaks_every_language_in_its_own_words() {
        let (mut titles, mut causes) = (HashSet::new(), HashSet::new());
        for entry in everything() {
            for language in Language::ALL {
                let words = entry.words(language);
                let name = format!("{} in {language:?}", entry.reason);
                assert!(titles.insert(words.title), "{name}: title used twice");
                assert!(causes.insert(words.cause), "{name}: cause used twice");
                assert!(words.title.len() > 10 && !words.title.ends_with('.'), "{name}: title");
                assert!(words.cause.ends_with('.') && words.advice.ends_with('.'), "{name}: whole sentences");
                assert_eq!(words.owner.is_empty(), entry.en.owner.is_empty(), "{name}: owner's advice");
                assert!(words.owner.is_empty() || words.owner.ends_with('.'), "{name}: whole sentences");
                assert!(!words.title.contains('\''), "{name}: typographic apostrophes");
            }
        }
    }

    #[test]
    fn reasons_and_statuses_are_unique() {
        let mut reasons = HashSet::new();
        let mut statuses = HashSet::new();
        for entry in all() {
            assert!(reasons.insert(entry.reason), "{}", entry.reason);
            assert!(!entry.reason.is_empty());
            for status in entry.statuses {
                assert!(statuses.insert((*status, entry.fault.name())), "{status} in {}", entry.reason);
            }
        }
    }

    #[test]
    fn unknown_reasons_fall_back_by_status_then_by_fault() {
        for (reason, status, fault, expected) in [
            ("origin_dns", 502, Fault::Origin, "origin_dns"),
            ("origin_dns", 530, Fault::Origin, "origin_dns"),
            ("new_thing", 504, Fault::Origin, "origin_timeout"),
            ("new_thing", 522, Fault::Origin, "origin_connect_timeout"),
            ("new_thing", 503, Fault::Edge, "edge_overloaded"),
            ("new_thing", 413, Fault::Visitor, "body_too_large"),
            // Words that blame the wrong party are never borrowed.
            ("new_thing", 503, Fault::Origin, ""),
            ("new_thing", 413, Fault::Origin, ""),
            ("new_thing", 429, Fault::Visitor, ""),
        ] {
            let entry = find(reason, status, fault);
            assert_eq!(entry.reason, expected, "{reason} {status}");
            assert_eq!(entry.fault, fault, "{reason} {status}");
        }
    }
}
