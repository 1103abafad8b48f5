//! What a generation wants of the roles beside the edge.

use std::time::Duration;

use api::roles::{AnalyticsSettings, FeederSettings, RoleSettings, WatchSettings};
use snapshot::generation::Snapshot;

use crate::sources;

/// One entry for each role that is wanted.
pub(super) fn wanted(compiled: &Snapshot, file: &str) -> Vec<RoleSettings> {
    let feeder = feeder(compiled, file).map(RoleSettings::Feeder);
    let watch = compiled.watch.as_ref().map(|watch| {
        let proxies = compiled.trusted_proxies.iter().copied().collect();
        RoleSettings::Watch(WatchSettings { proxies, ..sources::watch_settings(watch, file) })
    });
    analytics(compiled).map(RoleSettings::Analytics).into_iter().chain(feeder).chain(watch).collect()
}

fn feeder(compiled: &Snapshot, file: &str) -> Option<FeederSettings> {
    let feeds: Vec<_> = compiled.feeds.iter().map(|feed| sources::feed_settings(feed, file)).collect();
    (!feeds.is_empty()).then_some(FeederSettings { feeds })
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
