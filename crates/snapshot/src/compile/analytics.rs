//! Compiles `[analytics]`.

use super::Judge;
use crate::desired;
use crate::generation::Analytics;

impl Judge<'_> {
    pub(super) fn analytics(&mut self, analytics: &desired::Analytics) -> Option<Analytics> {
        if analytics.keep_samples > analytics.keep_minutes {
            let written = ["analytics.keep_samples", "analytics.keep_minutes"].into_iter();
            let place =
                written.clone().find(|place| self.review.places.contains(place)).unwrap_or("analytics");
            self.review.warning(
                place,
                "conflicting-limits",
                format!(
                    "samples of requests are kept for {}, longer than the figures they belong to, {}",
                    analytics.keep_samples, analytics.keep_minutes
                ),
                "make keep_samples at most as long as keep_minutes",
            );
        }
        kept(analytics)
    }
}

/// What is kept of events; `None` when they are off.
pub(super) fn kept(analytics: &desired::Analytics) -> Option<Analytics> {
    analytics.enabled.then(|| Analytics {
        keep_minutes: analytics.keep_minutes.into(),
        keep_samples: analytics.keep_samples.into(),
        max_bytes: analytics.max_size.get(),
    })
}
