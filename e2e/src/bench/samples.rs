//! What was measured of one kind of thing.

use std::time::Duration;

/// Measured values in the order in which they were measured; times are in milliseconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    pub(super) fn push(&mut self, time: Duration) {
        self.note(time.as_secs_f64() * 1e3);
    }

    /// Something that is no time.
    pub(super) fn note(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(super) fn values(&self) -> &[f64] {
        &self.0
    }

    pub(super) fn p50(&self) -> f64 {
        self.percentile(50)
    }

    pub(super) fn p99(&self) -> f64 {
        self.percentile(99)
    }

    /// The nearest-rank percentile: always a value that was measured. 0 of nothing.
    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        let mut samples = Self::default();
        times.into_iter().for_each(|time| samples.push(time));
        samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let samples: Samples = (1..=10).rev().map(Duration::from_millis).collect();
        assert_eq!((samples.p50(), samples.p99()), (5.0, 10.0));
        let samples: Samples = (1..=200).map(Duration::from_millis).collect();
        assert_eq!((samples.p50(), samples.p99()), (100.0, 198.0));
        let one: Samples = [Duration::from_millis(7)].into_iter().collect();
        assert_eq!((one.p50(), one.p99()), (7.0, 7.0));
        assert_eq!(Samples::default().p50(), 0.0);
    }
}
