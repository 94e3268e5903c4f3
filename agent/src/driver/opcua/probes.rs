//! Which probes stand still. A probe that died often goes on showing its last value, good in every
//! other way: a real one moves, if only in its last digit.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use opcua::types::DataValue;

use super::value;
use crate::config::Tag;
use crate::config::tags::Address;

/// What was not read for so long was not watched: it is watched anew.
const UNWATCHED_MS: i64 = 60_000;

/// What each probe showed, and since when.
#[derive(Debug, Default)]
pub(super) struct Probes(Mutex<HashMap<Address, Seen>>);

/// One probe. Times are of the machine's clock that does not step, ms.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    /// To its last bit.
    raw: u64,
    raw_ms: i64,
    /// The source timestamp, compared with nothing but itself.
    stamp: Option<i64>,
    stamp_ms: i64,
    read_ms: i64,
    still: bool,
}

impl Probes {
    /// For how long the tag has stood still, ms, if its mapped time is over.
    pub fn still_ms(&self, tag: &Tag, value: &DataValue, now_ms: i64) -> Option<i64> {
        if tag.frozen_after.is_none() && tag.stale_after.is_none() {
            return None;
        }
        // One that is bad says so itself.
        let raw = value::number(tag, value).ok()?.to_bits();
        let stamp = value.source_timestamp.as_ref().map(opcua::types::DateTime::ticks);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.get(&tag.address).copied();
        let mut seen = look(before, raw, stamp, now_ms);
        let still_ms = still(tag, &seen, now_ms);
        seen.still = still_ms.is_some();
        all.insert(tag.address.clone(), seen);
        still_ms
    }
}

fn look(before: Option<Seen>, raw: u64, stamp: Option<i64>, now_ms: i64) -> Seen {
    let new = Seen { raw, raw_ms: now_ms, stamp, stamp_ms: now_ms, read_ms: now_ms, still: false };
    // What stood still before nobody watched it goes on doing so until it moves.
    let Some(old) = before.filter(|b| b.still || now_ms - b.read_ms <= UNWATCHED_MS) else {
        return new;
    };
    let raw_ms = if old.raw == raw { old.raw_ms } else { now_ms };
    let stamp_ms = if old.stamp == stamp { old.stamp_ms } else { now_ms };
    Seen { raw_ms, stamp_ms, ..new }
}

fn still(tag: &Tag, seen: &Seen, now_ms: i64) -> Option<i64> {
    let over = |after: Option<Duration>, since: i64| {
        let after = i64::try_from(after?.as_millis()).unwrap_or(i64::MAX);
        let still = now_ms - since;
        (still >= after).then_some(still)
    };
    // A value without a timestamp does not tell its age: it counts as too old.
    let untold = (tag.stale_after.is_some() && seen.stamp.is_none()).then_some(0);
    over(tag.frozen_after, seen.raw_ms).max(over(tag.stale_after, seen.stamp_ms)).max(untold)
}

#[cfg(test)]
mod tests {
    use opcua::types::{DateTime, Variant};

    use super::*;
    use crate::config::tags::TagType;

    fn tag(frozen_s: Option<u64>, stale_s: Option<u64>) -> Tag {
        Tag {
            frozen_after: frozen_s.map(Duration::from_secs),
            stale_after: stale_s.map(Duration::from_secs),
            ..Tag::of_block("urn:x", "R1", "Oxygen", TagType::Double)
        }
    }

    fn shown(value: f64, stamp: Option<i64>) -> DataValue {
        let source_timestamp = stamp.map(DateTime::from);
        DataValue { source_timestamp, ..DataValue::value_only(Variant::Double(value)) }
    }

    #[test]
    fn a_probe_that_does_not_move_in_its_last_digit_stands_still() {
        let (probes, tag) = (Probes::default(), tag(Some(60), None));
        let at = |s: i64, value| probes.still_ms(&tag, &shown(value, None), s * 1_000);
        assert_eq!(at(0, 8.2), None);
        assert_eq!(at(59, 8.2), None);
        assert_eq!(at(60, 8.2), Some(60_000));
        assert_eq!(at(90, 8.2), Some(90_000));
        assert_eq!(at(91, 8.200_000_1), None, "the last digit is enough");
        assert_eq!(at(92, 8.2), None);
    }

    #[test]
    fn what_nobody_watched_is_watched_anew_and_what_stood_still_goes_on() {
        let (probes, tag) = (Probes::default(), tag(Some(60), None));
        let at = |s: i64| probes.still_ms(&tag, &shown(8.2, None), s * 1_000);
        assert_eq!(at(0), None);
        assert_eq!(at(300), None, "it may have moved, and come back");
        assert_eq!(at(360), Some(60_000));
        assert_eq!(at(900), Some(600_000));
    }

    #[test]
    fn a_value_that_its_source_does_not_refresh_is_stale() {
        let (probes, tag) = (Probes::default(), tag(None, Some(60)));
        let at = |s: i64, stamp| probes.still_ms(&tag, &shown(8.2, stamp), s * 1_000);
        assert_eq!(at(0, Some(5)), None);
        assert_eq!(at(60, Some(6)), None, "the same value, read anew");
        assert_eq!(at(119, Some(6)), None);
        assert_eq!(at(120, Some(6)), Some(60_000));
        assert_eq!(at(121, Some(7)), None);
        assert_eq!(at(122, None), Some(0), "it does not tell how old it is");
    }

    #[test]
    fn nothing_is_expected_of_a_probe_without_a_mapped_time() {
        let (probes, tag) = (Probes::default(), tag(None, None));
        for s in [0, 60, 86_400] {
            assert_eq!(probes.still_ms(&tag, &shown(8.2, None), s * 1_000), None);
        }
    }
}
