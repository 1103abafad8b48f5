//! Visitors over time: how many were served and harmed in each slice, and how long they waited.

use std::time::Duration;

use serde::Serialize;

use crate::traffic::{Class, Record};

/// Slices of a timeline, at most; beyond that they become wider.
const SLICES: u32 = 240;
/// The narrowest slice.
const NARROWEST: Duration = Duration::from_millis(100);

/// Visitors over time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Timeline {
    /// Width of a slice, in seconds.
    pub slice: f64,
    /// In order, from the beginning of the drill.
    pub slices: Vec<Slice>,
}

/// Visitors that were due in one slice.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Slice {
    /// Got what they asked for.
    pub good: u32,
    /// Did not.
    pub harmed: u32,
    /// Median wait in milliseconds, from the moment they were due.
    pub p50: Option<f64>,
    /// What one in a hundred exceeded.
    pub p99: Option<f64>,
}

impl Timeline {
    /// Of these visitors.
    pub fn of(records: &[Record]) -> Self {
        let end = records.iter().map(|record| record.scheduled).max().unwrap_or_default();
        let width = (end / SLICES).max(NARROWEST);
        let mut waits: Vec<(Slice, Vec<Duration>)> = Vec::new();
        for record in records {
            let at = usize::try_from(record.scheduled.as_nanos() / width.as_nanos()).unwrap_or(usize::MAX);
            let at = at.min(SLICES as usize + 1);
            if waits.len() <= at {
                waits.resize_with(at + 1, Default::default);
            }
            let Some((slice, waited)) = waits.get_mut(at) else { continue };
            if record.class == Class::Good {
                slice.good += 1;
            } else {
                slice.harmed += 1;
            }
            waited.push(record.ended.saturating_sub(record.scheduled));
        }
        let slices = waits.into_iter().map(|(slice, mut waited)| {
            waited.sort_unstable();
            let at = |share| share_of(&waited, share).map(milliseconds);
            Slice { p50: at(50), p99: at(99), ..slice }
        });
        Self { slice: width.as_secs_f64(), slices: slices.collect() }
    }
}

/// The value that `share` per cent do not exceed; `None` of nothing.
pub fn share_of(sorted: &[Duration], share: usize) -> Option<Duration> {
    let at = (sorted.len() * share).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied()
}

/// With a fraction.
pub fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Kind;

    fn record(at: u64, waited: u64, class: Class) -> Record {
        let scheduled = Duration::from_millis(at);
        let ended = scheduled + Duration::from_millis(waited);
        Record { kind: Kind::Get, scheduled, sent: Some(scheduled), ended, class, detail: None }
    }

    #[test]
    fn a_visitor_counts_in_the_slice_in_which_it_was_due() {
        let records = [
            record(0, 5, Class::Good),
            record(99, 900, Class::Good),
            record(100, 1, Class::Reset),
            record(350, 2, Class::Good),
        ];
        let Timeline { slice, slices } = Timeline::of(&records);
        assert!((slice - 0.1).abs() < 1e-9);
        let counts: Vec<_> = slices.iter().map(|slice| (slice.good, slice.harmed)).collect();
        assert_eq!(counts, [(2, 0), (0, 1), (0, 0), (1, 0)]);
        assert_eq!((slices[0].p50, slices[0].p99, slices[2].p50), (Some(5.0), Some(900.0), None));
    }

    #[test]
    fn a_long_drill_has_no_more_slices_than_a_short_one() {
        let records: Vec<_> = (0..7200).map(|second| record(second * 1000, 1, Class::Good)).collect();
        let timeline = Timeline::of(&records);
        assert!(timeline.slices.len() <= SLICES as usize + 2, "{}", timeline.slices.len());
        assert_eq!(timeline.slices.iter().map(|slice| slice.good).sum::<u32>(), 7200);
        assert!(Timeline::of(&[]).slices.is_empty());
    }

    #[test]
    fn shares_are_values_that_were_measured() {
        let spans: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(share_of(&spans, 99), Some(Duration::from_millis(99)));
        assert_eq!(share_of(&spans[..1], 99), Some(Duration::from_millis(1)));
        assert_eq!(share_of(&[], 50), None);
    }
}
