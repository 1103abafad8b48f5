//! Latencies, counted in buckets that are an eighth of a power of two wide: quantiles right to 7 %, merging is adding.

/// Parts of each power of two.
const PARTS: u64 = 8;
const PART_BITS: u32 = PARTS.trailing_zeros();
/// Durations beyond this (19 hours) count as this.
const LARGEST: u64 = (1 << 36) - 1;
const BUCKETS: usize = bucket(LARGEST) + 1;

/// Counts by duration in microseconds.
#[derive(Clone, Debug)]
pub struct Histogram(Box<[u64; BUCKETS]>);

impl Default for Histogram {
    fn default() -> Self {
        Self(Box::new([0; BUCKETS]))
    }
}

const fn bucket(value: u64) -> usize {
    if value < PARTS {
        return value as usize;
    }
    let shift = value.ilog2() - PART_BITS;
    ((shift as u64 + 1) * PARTS + (value >> shift) - PARTS) as usize
}

/// The largest duration of a bucket.
fn largest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PARTS {
        return bucket;
    }
    let shift = bucket / PARTS - 1;
    ((bucket % PARTS + PARTS + 1) << shift) - 1
}

impl Histogram {
    /// So many more of this duration.
    pub fn add(&mut self, micros: u64, count: u64) {
        if let Some(counter) = self.0.get_mut(bucket(micros.min(LARGEST))) {
            *counter = counter.saturating_add(count);
        }
    }

    /// All of the other one's too.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0.iter()) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    /// At least this share (0 to 1) took no longer than this; `None` when nothing was counted.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let total: u64 = self.0.iter().sum();
        let wanted = ((total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.0.iter().enumerate() {
            seen += count;
            if total > 0 && seen >= wanted {
                return Some(largest(index));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use base::random::Random;

    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_list_within_an_eighth() {
        let mut random = Random::seeded(8);
        assert_eq!(Histogram::default().quantile(0.5), None);
        for _ in 0..200 {
            let (mut one, mut other) = (Histogram::default(), Histogram::default());
            let magnitude = random.below(36);
            let mut values: Vec<u64> =
                (0..1 + random.below(300)).map(|_| random.next_u64() >> 28 >> magnitude).collect();
            for (index, value) in values.iter().enumerate() {
                if index % 2 == 0 { one.add(*value, 1) } else { other.add(*value, 1) }
            }
            one.merge(&other);
            values.sort_unstable();
            for share in [0.5, 0.95, 0.99] {
                let exact = values[((values.len() as f64 * share).ceil() as usize).max(1) - 1];
                let found = one.quantile(share).unwrap();
                assert!(exact <= found && found as f64 <= exact as f64 * 1.125 + 1.0, "{exact} {found}");
            }
        }
    }

    #[test]
    fn every_duration_has_a_bucket() {
        for value in [0, 1, 7, 8, 9, 15, 16, 17, 1_000, 1_000_000, LARGEST, u64::MAX] {
            let mut histogram = Histogram::default();
            histogram.add(value, 3);
            assert!(histogram.quantile(1.0).unwrap() >= value.min(LARGEST));
        }
    }
}
