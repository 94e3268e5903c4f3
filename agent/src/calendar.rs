//! One instant by all of the agent's clocks, and the farm's day that it belongs to.

use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::clock::Clock;
use crate::journal::Steady;

/// An instant.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    /// The machine's monotonic clock, ms.
    pub mono_ms: i64,
    /// The wall clock, for people, ms.
    pub wall_ms: i64,
    /// The clock that does not step, ms.
    pub steady_ms: i64,
    /// The farm's day.
    pub date: String,
}

/// Tells instants.
#[derive(Clone, Debug)]
pub(crate) struct Calendar {
    clock: Clock,
    steady: Steady,
    zone: Arc<RwLock<(String, TimeZone)>>,
}

impl Calendar {
    /// In UTC until a zone is known.
    pub(crate) fn new(clock: Clock, steady: Steady, zone: Option<&str>) -> Self {
        let calendar =
            Self { clock, steady, zone: Arc::new(RwLock::new((String::new(), TimeZone::UTC))) };
        if let Some(zone) = zone {
            calendar.set_zone(zone);
        }
        calendar
    }

    /// Days are of this IANA zone from now on.
    pub(crate) fn set_zone(&self, name: &str) {
        if self.zone.read().unwrap_or_else(PoisonError::into_inner).0 == name {
            return;
        }
        match TimeZone::get(name) {
            Ok(zone) => {
                let mut current = self.zone.write().unwrap_or_else(PoisonError::into_inner);
                *current = (name.to_owned(), zone);
            }
            Err(e) => tracing::warn!(zone = name, error = %e, "time zone is not known here"),
        }
    }

    /// The farm's day of an instant of the wall clock.
    pub(crate) fn date(&self, wall_ms: i64) -> String {
        let at = Timestamp::from_millisecond(wall_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        let zone = self.zone.read().unwrap_or_else(PoisonError::into_inner).1.clone();
        at.to_zoned_datetime(zone).date().to_string()
    }

    /// Now.
    pub(crate) fn now(&self) -> Moment {
        let wall_ms = self.clock.wall_ms();
        Moment {
            mono_ms: self.clock.monotonic_ms(),
            wall_ms,
            steady_ms: self.steady.now_ms(),
            date: self.date(wall_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_day_is_the_farms() {
        let clock = Clock::simulated("b", 0, 1_795_550_400_000); // 2026-11-24T20:00Z
        let calendar = Calendar::new(clock.clone(), Steady::resume(&clock, None), None);
        assert_eq!(calendar.now().date, "2026-11-24");
        calendar.set_zone("Asia/Tokyo");
        assert_eq!(calendar.now().date, "2026-11-25");
        calendar.set_zone("No/Such");
        assert_eq!(calendar.now().date, "2026-11-25");
    }
}
