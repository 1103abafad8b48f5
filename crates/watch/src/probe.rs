//! Probes: each site is asked from outside the edge, as a visitor would, and its answers are judged with patience.

mod ask;

pub use ask::{ASKING, ask};

use base::happening::{Component, Happening, Severity, What};
use base::time::Timestamp;

/// Cause of a failing probe: Rempart itself.
pub const EDGE: &str = "edge";
/// Cause of a failing probe: the origin.
pub const ORIGIN: &str = "origin";
/// Cause of a failing probe: the certificate is past its end.
pub const CERTIFICATE: &str = "certificate-expired";
/// Failures in a row after which a site counts as failing, and successes after which it no longer does.
const FAILURES: u32 = 3;
const SUCCESSES: u32 = 2;

/// What came of asking a site once, at all its listeners: the worst of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Who failed, one of the causes above; `None`: a visitor got an answer.
    pub cause: Option<&'static str>,
    /// The answer, or what came instead, in words.
    pub text: String,
}

/// What is known of a site from the outcomes so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// Counted as failing for this.
    failing: Option<String>,
    failures: u32,
    successes: u32,
    /// Cause of the failures counted.
    cause: Option<&'static str>,
}

impl Patience {
    /// Of a site that is known as failing since before, or is not.
    pub fn new(failing: Option<&str>) -> Self {
        Self { failing: failing.map(str::to_owned), ..Self::default() }
    }

    /// Takes in an outcome; what comes back has to be told.
    pub fn judge(&mut self, site: &str, outcome: &Outcome, now: Timestamp) -> Vec<Happening> {
        let recovered = |text: &str| {
            let message = format!("{site} answers again: {text}");
            Happening::new(now, What::ProbeRecovered, Severity::Info, Component::Delivery, EDGE, message)
                .of_site(site)
        };
        let Some(cause) = outcome.cause else {
            (self.failures, self.cause) = (0, None);
            self.successes = self.successes.saturating_add(1);
            let is_over = self.successes >= SUCCESSES && self.failing.take().is_some();
            return is_over.then(|| recovered(&outcome.text)).into_iter().collect();
        };
        self.successes = 0;
        // A failure of another kind begins to count anew.
        self.failures = if self.cause == Some(cause) { self.failures.saturating_add(1) } else { 1 };
        self.cause = Some(cause);
        if self.failures < FAILURES {
            return Vec::new();
        }
        let mut told = Vec::new();
        if self.failing.as_deref().is_some_and(|before| before != cause) {
            told.push(recovered("it fails otherwise now"));
        }
        self.failing = Some(cause.to_owned());
        let message = format!("{site}: {}", outcome.text);
        let severity = Severity::Critical;
        let failed = Happening::new(now, What::ProbeFailed, severity, Component::Delivery, cause, message);
        told.push(failed.of_site(site));
        told
    }
    /// Whether the next outcome may turn it: then it is asked again before long.
    pub fn is_unsettled(&self) -> bool {
        match &self.failing {
            None => self.failures > 0,
            Some(failing) => self.successes > 0 || self.cause.is_some_and(|cause| cause != failing),
        }
    }
}

#[cfg(test)]
mod tests;
