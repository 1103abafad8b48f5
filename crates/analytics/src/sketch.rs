//! The most frequent names with a bounded number of counters: space-saving (Metwally, Agrawal, El Abbadi 2005).

use std::collections::HashMap;

use api::analytics::Named;

/// Names counted at a time. Whatever makes up more than one in so many is certainly among them.
const COUNTERS: usize = 64;
/// Bytes of a name kept.
const MAX_NAME: usize = 256;

/// Names and how often they occurred: never less than they did.
#[derive(Clone, Debug, Default)]
pub struct Sketch {
    counts: HashMap<Box<str>, u64>,
    total: u64,
}

impl Sketch {
    /// So many more of this name. Where there is no counter left, it takes that of the rarest, count and all.
    pub fn add(&mut self, name: &str, count: u64) {
        let name = name.get(..name.floor_char_boundary(MAX_NAME)).unwrap_or_default();
        self.total = self.total.saturating_add(count);
        if let Some(counter) = self.counts.get_mut(name) {
            *counter = counter.saturating_add(count);
            return;
        }
        let mut start = 0;
        if self.counts.len() >= COUNTERS {
            let rarest = self.counts.iter().min_by_key(|(_, count)| **count);
            if let Some((rarest, count)) = rarest.map(|(name, count)| (name.clone(), *count)) {
                self.counts.remove(&rarest);
                start = count;
            }
        }
        self.counts.insert(name.into(), start.saturating_add(count));
    }

    /// All of the other one's too.
    pub fn merge(&mut self, other: &Self) {
        for (name, count) in &other.counts {
            self.add(name, *count);
        }
    }

    /// The most frequent, most frequent first.
    pub fn top(&self, limit: usize) -> Vec<Named> {
        let mut all: Vec<_> =
            self.counts.iter().map(|(name, count)| Named { name: name.to_string(), count: *count }).collect();
        all.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
        all.truncate(limit);
        all
    }

    /// Share of the most frequent one, 0 to 1, at most; `None` when nothing was counted.
    pub fn largest_share(&self) -> Option<f64> {
        let largest = self.counts.values().max()?;
        (self.total > 0).then(|| (*largest as f64 / self.total as f64).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use base::random::Random;

    use super::*;

    #[test]
    fn frequent_names_are_found_among_many_and_never_undercounted() {
        let mut random = Random::seeded(6);
        let (mut sketch, mut exact) = (Sketch::default(), HashMap::<String, u64>::new());
        for _ in 0..50_000 {
            // A few names make up half, the rest is noise that would fill any table.
            let name = match random.below(2) {
                0 => format!("/frequent/{}", random.below(5)),
                _ => format!("/{}", random.next_u64()),
            };
            sketch.add(&name, 1);
            *exact.entry(name).or_default() += 1;
        }
        assert!(sketch.counts.len() <= COUNTERS);
        let top = sketch.top(5);
        for named in &top {
            let exact = exact[&named.name];
            assert!(named.name.starts_with("/frequent/"), "{named:?}");
            assert!(
                exact <= named.count && named.count <= exact + 50_000 / COUNTERS as u64,
                "{named:?} {exact}"
            );
        }
        assert!((0.1..0.13).contains(&sketch.largest_share().unwrap()));
    }
}
