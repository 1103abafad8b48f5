//! Median and its bounds, without assuming any distribution.

/// A median between bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Median {
    pub median: f64,
    pub low: f64,
    pub high: f64,
    /// How many values it is of.
    pub count: usize,
    /// Whether the bounds hold the true median with at least 95 % probability; else they are just the range.
    pub bounds_95: bool,
}

/// Median, and the narrowest pair of order statistics that holds the true median with 95 % probability.
///
/// With n independent runs the k-th smallest and k-th largest miss it with probability 2 P(Binomial(n, 1/2) < k).
pub fn median(values: &[f64]) -> Option<Median> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let (first, last) = (*sorted.first()?, *sorted.last()?);
    let middle = (sorted.get((count - 1) / 2)? + sorted.get(count / 2)?) / 2.0;
    let rank = (1..=count / 2).take_while(|&rank| miss_probability(count, rank) <= 0.05).last();
    Some(match rank {
        Some(rank) => Median {
            median: middle,
            low: *sorted.get(rank - 1)?,
            high: *sorted.get(count - rank)?,
            count,
            bounds_95: true,
        },
        None => Median { median: middle, low: first, high: last, count, bounds_95: false },
    })
}

fn miss_probability(count: usize, rank: usize) -> f64 {
    let mut term = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut below = 0.0;
    for successes in 0..rank {
        below += term;
        term *= (count - successes) as f64 / (successes + 1) as f64;
    }
    2.0 * below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_follow_the_binomial_table() {
        let nine: Vec<f64> = (1..=9).rev().map(f64::from).collect();
        assert_eq!(
            median(&nine),
            Some(Median { median: 5.0, low: 2.0, high: 8.0, count: 9, bounds_95: true })
        );
        let six: Vec<f64> = (1..=6).map(f64::from).collect();
        assert_eq!(
            median(&six),
            Some(Median { median: 3.5, low: 1.0, high: 6.0, count: 6, bounds_95: true })
        );
        let three = [3.0, 1.0, 2.0];
        assert_eq!(
            median(&three),
            Some(Median { median: 2.0, low: 1.0, high: 3.0, count: 3, bounds_95: false })
        );
        assert_eq!(median(&[]), None);
    }
}
