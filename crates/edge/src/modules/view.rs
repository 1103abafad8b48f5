//! What a module sees of a request, and what it may use.

use std::time::{Duration, Instant};

use base::module::{Budget, OverBudget};

use crate::forwarded::{Client, Scheme};
use crate::generation::{Generation, SiteRuntime};
use crate::message::RequestHead;

/// Time for all modules of a request together: from its complete head on, and anew once as much of its body has come as is looked
/// into, or its response: those may take long. Whoever needs this long hangs or is held up.
const TIME: Duration = Duration::from_millis(100);
/// Steps of one call; a step is about one comparison of a field.
const STEPS: u64 = 1_000_000;

/// A request before its body has come. Every module reads the same one.
pub struct RequestView<'a> {
    /// Method, host, target and fields as understood.
    pub head: &'a RequestHead,
    /// Who asks.
    pub client: &'a Client,
    /// How.
    pub scheme: Scheme,
    /// The site asked.
    pub site: &'a SiteRuntime,
    /// The generation it is served by, with its data.
    pub generation: &'a Generation,
    /// A golden request: everybody looks at it, and nobody turns it away.
    pub golden: bool,
    /// Since when nobody is waited for: its head was complete, its body had come as far as it is looked into, or its response
    /// had.
    pub started: Instant,
}

/// What is left for one call.
pub struct Meter {
    budget: Budget,
    started: Instant,
}

impl Meter {
    /// A new one, for a request that began then.
    pub(crate) fn new(started: Instant) -> Self {
        Self { budget: Budget::new(STEPS, TIME), started }
    }

    /// Uses steps: before each piece of work whose length a request decides. The clock is read every few hundred only.
    pub fn spend(&mut self, steps: usize) -> Result<(), OverBudget> {
        #[cfg(feature = "faults")]
        if crate::fault::without("rule-budget") {
            return Ok(());
        }
        let started = self.started;
        self.budget.spend(u32::try_from(steps).unwrap_or(u32::MAX), || started.elapsed())
    }

    /// Whether it was used up.
    pub(super) fn is_over(&self) -> bool {
        self.budget.is_over()
    }
}
