//! A weighted sample of bounded size from a stream of unknown length (A-ES: Efraimidis and Spirakis 2006).

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use base::random::Random;

/// Kept with its key; the largest in the heap is the first to go.
struct Kept<T> {
    key: f64,
    value: T,
}

impl<T> PartialEq for Kept<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Kept<T> {}

impl<T> PartialOrd for Kept<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Kept<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.total_cmp(&other.key)
    }
}

/// The sample.
pub struct Reservoir<T> {
    size: usize,
    kept: BinaryHeap<Kept<T>>,
}

impl<T> Reservoir<T> {
    /// At most so many.
    pub fn new(size: usize) -> Self {
        Self { size, kept: BinaryHeap::new() }
    }

    /// Offers one; `make` is called only if it is taken. Twice the weight is twice the chance, while chances are small.
    pub fn offer(&mut self, weight: f64, random: &mut Random, make: impl FnOnce() -> T) {
        // Exponential with the weight as rate: the smallest keys win.
        let uniform = ((random.next_u64() >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        let key = -uniform.ln() / weight.max(f64::MIN_POSITIVE);
        if self.kept.len() < self.size {
            self.kept.push(Kept { key, value: make() });
        } else if let Some(mut worst) = self.kept.peek_mut()
            && key < worst.key
        {
            *worst = Kept { key, value: make() };
        }
    }

    /// The sample, in no order.
    pub fn into_values(self) -> impl Iterator<Item = T> {
        self.kept.into_iter().map(|kept| kept.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heavy_ones_are_kept_more_often_and_size_is_bounded() {
        let mut random = Random::seeded(2);
        let (mut heavy, mut light) = (0, 0);
        for _ in 0..200 {
            let mut reservoir = Reservoir::new(20);
            for number in 0..1_000 {
                let weight = if number % 10 == 0 { 20.0 } else { 1.0 };
                reservoir.offer(weight, &mut random, || number);
            }
            let values: Vec<_> = reservoir.into_values().collect();
            assert_eq!(values.len(), 20);
            heavy += values.iter().filter(|number| *number % 10 == 0).count();
            light += values.iter().filter(|number| *number % 10 != 0).count();
        }
        // 100 heavy ones weigh 2,000, 900 light ones 900.
        let share = heavy as f64 / (heavy + light) as f64;
        assert!((0.6..0.75).contains(&share), "{share}");
    }
}
