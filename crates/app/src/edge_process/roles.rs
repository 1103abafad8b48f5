//! What a generation wants of the roles beside the edge.

use std::time::Duration;

use api::roles::{AnalyticsSettings, RoleSettings};
use snapshot::generation::Snapshot;

/// One entry for each role that is wanted.
pub(super) fn wanted(compiled: &Snapshot) -> Vec<RoleSettings> {
    analytics(compiled).map(RoleSettings::Analytics).into_iter().collect()
}

fn analytics(compiled: &Snapshot) -> Option<AnalyticsSettings> {
    let kept = compiled.analytics?;
    // At least a day: 0 would keep nothing.
    let days = |period: Duration| u32::try_from(period.as_secs().div_ceil(86_400)).unwrap_or(u32::MAX).max(1);
    Some(AnalyticsSettings {
        minutes_days: days(kept.keep_minutes),
        samples_days: days(kept.keep_samples),
        max_bytes: kept.max_bytes,
        sites: compiled.sites.iter().map(|site| site.name.to_string()).collect(),
    })
}
