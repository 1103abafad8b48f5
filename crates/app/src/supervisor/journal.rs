//! What happened, kept for a while: every process tells the journal, and roles that collect or announce read from it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base::happening::{Component, Happening, Severity, What};

use crate::builder::{now, rfc3339};

/// Happenings kept; what is older than these is in the processes' log only.
const KEPT: usize = 1024;

/// The last happenings, each with its number.
#[derive(Default)]
pub struct Journal(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// Number of the next one.
    next: u64,
    happenings: VecDeque<Happening>,
}

impl Kept {
    /// Who brought about what a site went back from, and when: an edge knows the generation only.
    fn with_author(&self, mut happening: Happening) -> Happening {
        if happening.what != What::SiteReverted || happening.by.is_some() {
            return happening;
        }
        let activated = self.happenings.iter().rev().find(|earlier| {
            earlier.what == What::GenerationActivated && earlier.generation == happening.generation
        });
        if let Some((activated, by)) = activated.and_then(|it| Some((it, it.by.as_deref()?))) {
            let at = rfc3339(activated.at);
            happening.message += &format!("; in force since {at} by {by}");
            happening = happening.done_by(by);
        }
        happening
    }
}

impl Journal {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one in; the oldest goes when there is no room.
    pub fn tell(&self, happening: Happening) {
        let mut kept = self.lock();
        let happening = kept.with_author(happening);
        if kept.happenings.len() == KEPT {
            kept.happenings.pop_front();
        }
        kept.next += 1;
        kept.happenings.push_back(happening);
    }

    /// Makes one of what happened just now.
    pub fn note(&self, what: What, severity: Severity, component: Component, cause: &str, message: String) {
        self.tell(Happening::new(now(), what, severity, component, cause, message));
    }

    /// At most `limit` of those from this number on, and the number to go on from. What has been forgotten is left out.
    pub fn since(&self, number: u64, limit: usize) -> (Vec<Happening>, u64) {
        let kept = self.lock();
        let first = kept.next - kept.happenings.len() as u64;
        let skipped = usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX);
        let taken: Vec<_> = kept.happenings.iter().skip(skipped).take(limit).cloned().collect();
        let next = number.max(first) + taken.len() as u64;
        (taken, next)
    }
}

#[cfg(test)]
mod tests {
    use base::time::Timestamp;

    use super::*;

    #[test]
    fn everybody_reads_on_from_where_they_were() {
        let journal = Journal::default();
        let tell = |cause: &str| {
            journal.note(What::Upgraded, Severity::Info, Component::Delivery, cause, String::new());
        };
        let causes = |taken: &[Happening]| taken.iter().map(|one| one.cause.clone()).collect::<Vec<_>>();
        tell("a");
        tell("b");
        let (taken, next) = journal.since(0, 10);
        assert_eq!((causes(&taken), next), (vec!["a".to_owned(), "b".to_owned()], 2));
        assert_eq!(journal.since(next, 10), (vec![], 2));
        tell("c");
        assert_eq!(causes(&journal.since(1, 1).0), ["b"]);
        assert_eq!(causes(&journal.since(next, 10).0), ["c"]);
        (0..KEPT).for_each(|number| tell(&number.to_string()));
        let (taken, next) = journal.since(next, 2);
        assert_eq!((causes(&taken), next), (vec!["0".to_owned(), "1".to_owned()], 5));
    }

    #[test]
    fn a_site_that_went_back_is_told_with_who_changed_it() {
        let journal = Journal::default();
        let happening = |what, component| {
            Happening::new(Timestamp(0), what, Severity::Warning, component, "panicked", "told".to_owned())
        };
        let activated =
            |number| happening(What::GenerationActivated, Component::Configuration).with_generation(number);
        journal.tell(activated(4).done_by("ada"));
        journal.tell(activated(5).done_by("root"));
        for number in [4, 6] {
            journal.tell(happening(What::SiteReverted, Component::Modules).with_generation(number));
        }
        let (taken, _) = journal.since(2, 2);
        assert_eq!(taken[0].by.as_deref(), Some("ada"));
        assert_eq!(taken[0].message, "told; in force since 1970-01-01T00:00:00Z by ada");
        assert_eq!((&taken[1].by, &*taken[1].message), (&None, "told"));
    }
}
