//! What happened, kept for a while: every process tells the journal, and roles that collect or announce read from it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base::happening::{Component, Happening, Severity, What};
use base::time::Timestamp;

use crate::builder::{now, rfc3339};

/// Happenings kept; what is older than these is in the processes' log only.
const KEPT: usize = 1024;
/// Generations whose authors are known.
const AUTHORS: usize = 64;

/// The last happenings, each with its number.
#[derive(Default)]
pub struct Journal(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// Number of the next one.
    next: u64,
    happenings: VecDeque<Happening>,
    /// Generations of the configuration, with who brought each and when.
    brought: VecDeque<(u64, String, Timestamp)>,
}

impl Kept {
    /// An edge knows which generation has a setting that is not good, not who brought it and when.
    fn name_author(&self, happening: &mut Happening) {
        let wanted = happening.generation;
        let brought = self.brought.iter().rev().find(|(generation, ..)| Some(*generation) == wanted);
        if let Some((_, by, at)) = brought {
            happening.message += &format!("; brought by {by} at {}", rfc3339(*at));
            happening.by = Some(by.clone());
        }
    }
}

impl Journal {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one in; the oldest goes when there is no room.
    pub fn tell(&self, mut happening: Happening) {
        let mut kept = self.lock();
        if happening.what == What::SiteReverted && happening.by.is_none() {
            kept.name_author(&mut happening);
        }
        if kept.happenings.len() == KEPT {
            kept.happenings.pop_front();
        }
        kept.next += 1;
        kept.happenings.push_back(happening);
    }

    /// Somebody brings a generation. To be told before it serves: a site of it may go back before anybody says that it is in force.
    pub fn brings(&self, generation: u64, by: &str, at: Timestamp) {
        let mut kept = self.lock();
        if kept.brought.len() == AUTHORS {
            kept.brought.pop_front();
        }
        kept.brought.push_back((generation, by.to_owned(), at));
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
    use super::*;

    #[test]
    fn a_site_that_went_back_is_told_with_who_brought_what_it_went_back_from() {
        let journal = Journal::default();
        let told = |what, generation| {
            let happening = Happening::new(
                Timestamp::default(),
                what,
                Severity::Info,
                Component::Modules,
                "x",
                "text".into(),
            );
            happening.with_generation(generation)
        };
        let at = Timestamp::from_unix(std::time::Duration::from_secs(86_400));
        journal.brings(2, "user 7", at);
        journal.brings(3, "root", at);
        journal.tell(told(What::SiteReverted, 2));
        journal.tell(told(What::SiteReverted, 4));
        let (taken, _) = journal.since(0, 10);
        assert_eq!(taken[0].by.as_deref(), Some("user 7"));
        assert_eq!(taken[0].message, "text; brought by user 7 at 1970-01-02T00:00:00Z");
        assert_eq!((taken[1].by.as_deref(), taken[1].message.as_str()), (None, "text"));
    }

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
}
