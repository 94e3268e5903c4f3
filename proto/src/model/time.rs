//! Wire times to and from milliseconds. Nothing here reads a clock.

use prost_types::{Duration, Timestamp};

/// A duration of so many milliseconds.
#[must_use]
pub fn duration_from_ms(ms: i64) -> Duration {
    let nanos = i32::try_from(ms % 1_000 * 1_000_000).unwrap_or(0);
    Duration { seconds: ms / 1_000, nanos }
}

/// A duration in whole milliseconds; `None` if it does not fit or is malformed.
#[must_use]
pub fn ms_from_duration(d: &Duration) -> Option<i64> {
    if !(-999_999_999..=999_999_999).contains(&d.nanos) {
        return None;
    }
    d.seconds.checked_mul(1_000)?.checked_add(i64::from(d.nanos) / 1_000_000)
}

/// An age in whole milliseconds: malformed ones dropped, others taken to be 0 to one year.
#[must_use]
pub fn duration_ms(d: Option<&Duration>) -> Option<i64> {
    const YEAR_MS: i64 = 365 * 86_400_000;
    d.and_then(ms_from_duration).map(|ms| ms.clamp(0, YEAR_MS))
}

/// A timestamp so many milliseconds after the Unix epoch.
#[must_use]
pub fn timestamp_from_ms(ms: i64) -> Timestamp {
    let nanos = i32::try_from(ms.rem_euclid(1_000) * 1_000_000).unwrap_or(0);
    Timestamp { seconds: ms.div_euclid(1_000), nanos }
}
