//! A clock that never steps and goes on over restarts: it counts the machine's time while the agent
//! or at least the machine runs. What it does not know it does not count, which is the strict side.

use std::sync::Arc;

use crate::clock::Clock;

/// The clock of the rolling envelope and of retention.
#[derive(Clone, Debug)]
pub(crate) struct Steady(Arc<(Clock, i64)>);

impl Steady {
    /// Goes on from what was journaled: (boot id, monotonic ms, steady ms).
    pub(crate) fn resume(clock: &Clock, last: Option<(&str, i64, i64)>) -> Self {
        let now = clock.monotonic_ms();
        let steady = match last {
            // The machine ran on: so did this clock.
            Some((boot, at, steady)) if boot == clock.boot_id() => {
                steady.saturating_add(now.saturating_sub(at).max(0))
            }
            Some((_, _, steady)) => steady,
            None => 0,
        };
        Self(Arc::new((clock.clone(), steady.saturating_sub(now))))
    }

    /// Its time, ms.
    pub(crate) fn now_ms(&self) -> i64 {
        self.at(self.0.0.monotonic_ms())
    }

    /// Its time at an instant of the machine's clock.
    fn at(&self, monotonic_ms: i64) -> i64 {
        monotonic_ms.saturating_add(self.0.1)
    }

    /// What to journal: (boot id, monotonic ms).
    pub(crate) fn stamp(&self, steady_ms: i64) -> (&str, i64) {
        (self.0.0.boot_id(), steady_ms.saturating_sub(self.0.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn counts_the_machines_time_and_no_downtime() {
        let first = Clock::simulated("boot-1", 1_000, 0);
        let steady = Steady::resume(&first, None);
        tokio::time::advance(std::time::Duration::from_secs(5)).await;
        assert_eq!(steady.now_ms(), 5_000);
        let (boot, at) = steady.stamp(5_000);
        assert_eq!((boot, at), ("boot-1", 6_000));
        // The agent restarts 60 s later on the same boot.
        let again = Clock::simulated("boot-1", 66_000, 0);
        assert_eq!(Steady::resume(&again, Some(("boot-1", 6_000, 5_000))).now_ms(), 65_000);
        // The machine was off, nobody knows how long.
        let reboot = Clock::simulated("boot-2", 10_000, 0);
        assert_eq!(Steady::resume(&reboot, Some(("boot-1", 6_000, 5_000))).now_ms(), 5_000);
    }
}
