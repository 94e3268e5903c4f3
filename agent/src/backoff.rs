//! How long to wait before the next try: full jitter, so that agents that lost one server do not
//! come back in step.

use std::time::Duration;

/// Delays that grow from `base` to `cap`; each is drawn from zero to the present bound.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    tries: u32,
}

impl Backoff {
    /// The first delay is at most `base`, none is above `cap`.
    pub(crate) fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, tries: 0 }
    }

    /// The next delay.
    pub(crate) fn next(&mut self, random: &mut fastrand::Rng) -> Duration {
        let bound = self.base.saturating_mul(1 << self.tries.min(16)).min(self.cap);
        self.tries += 1;
        bound.mul_f64(random.f64())
    }

    /// All is well again.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_cap_and_starts_over() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        assert!(backoff.next(&mut random) <= Duration::from_secs(1));
        let later: Vec<_> = (0..200).map(|_| backoff.next(&mut random)).collect();
        assert!(later.iter().all(|d| *d <= Duration::from_secs(5)));
        assert!(later.iter().any(|d| *d > Duration::from_secs(4)));
        assert!(later.iter().any(|d| *d < Duration::from_secs(1)));
        backoff.reset();
        assert!(backoff.next(&mut random) <= Duration::from_secs(1));
    }
}
