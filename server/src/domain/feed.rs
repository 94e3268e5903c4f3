//! What feeding now, or a changed config, means for the rest of the farm's day.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use pasamanos_proto::model::{FeedNowCapability, FeederConfig, Mode, Reason};
use pasamanos_proto::pb;
use pasamanos_proto::pb::{FeederState, PreviewWarning};

use super::Error;
use super::ports::StoredFeeder;

/// What is known of a feeder besides its config when a preview is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Today {
    /// Fed since the farm's midnight, mg.
    pub dispensed_mg: Option<i64>,
    /// When the schedule feeds next, ms since the Unix epoch.
    pub next_dose_ms: Option<i64>,
    /// Whether anything holds it.
    pub held: bool,
}

/// The rest of the day under a config. `now_ms` is the wall clock, `zone` the farm's.
#[must_use]
pub fn preview(
    before: Option<&FeederConfig>,
    after: &FeederConfig,
    today: Today,
    zone: &TimeZone,
    now_ms: i64,
) -> pb::Preview {
    let mut out = pb::Preview::default();
    let meals = meals_left(after, today.next_dose_ms, zone, now_ms);
    let portion = after.portion_mg.map(i64::from);
    let planned = meals.zip(portion).map(|(m, p)| i64::from(m) * p);
    let cap_left =
        after.daily_cap_mg.zip(today.dispensed_mg).map(|(cap, fed)| (i64::from(cap) - fed).max(0));
    out.meals_left_today = meals;
    out.planned_left_mg = planned;
    out.cap_left_mg = cap_left;
    if let (Some(meals), Some(portion), Some(left)) = (meals, portion, cap_left) {
        let fit = i32::try_from(left / portion.max(1)).unwrap_or(i32::MAX);
        let skipped = (meals - fit).max(0);
        out.meals_that_will_be_skipped = Some(skipped);
        if skipped > 0 {
            out.warnings.push(PreviewWarning::CapWillSkipMeals.into());
        }
    }
    if meals.is_some_and(|m| m > 0) {
        let next = today.next_dose_ms.filter(|ms| *ms >= now_ms);
        out.next_dose_time = next.map(pasamanos_proto::model::timestamp_from_ms);
    }
    let day = |c: &FeederConfig| match (c.mode, c.portion_mg, c.meals_per_day()) {
        (Mode::Automatic, Some(mg), Some(meals)) => i64::from(mg) * i64::from(meals),
        _ => 0,
    };
    if before.is_some_and(|b| day(b) > 0 && day(after) > 2 * day(b)) {
        out.warnings.push(PreviewWarning::DailyFeedMoreThanDoubles.into());
    }
    if today.held {
        out.warnings.push(PreviewWarning::FeederHeld.into());
    }
    out
}

/// Scheduled meals before the farm's midnight; `None` where the schedule is not known.
fn meals_left(
    config: &FeederConfig,
    next_ms: Option<i64>,
    zone: &TimeZone,
    now_ms: i64,
) -> Option<i32> {
    if config.mode != Mode::Automatic {
        return Some(0);
    }
    let interval = i64::from(config.interval_s?);
    let now = Timestamp::from_millisecond(now_ms).ok()?.to_zoned_datetime(zone.clone());
    let midnight = now.start_of_day().ok()?.checked_add(1.day()).ok()?;
    let first = match next_ms {
        Some(ms) if ms >= now_ms => ms,
        _ => now_ms + interval * 1_000,
    };
    // At most 8,640 meals in a day: an interval is 10 s or more.
    let mut meals = 0;
    let mut at = first;
    while at < midnight.timestamp().as_millisecond() && meals < 8_640 {
        let t = Timestamp::from_millisecond(at).ok()?.to_zoned_datetime(zone.clone());
        let minute = u16::from(t.hour().unsigned_abs()) * 60 + u16::from(t.minute().unsigned_abs());
        meals += i32::from(config.feeds_at(minute));
        at += interval.max(1) * 1_000;
    }
    Some(meals)
}

/// Refuses a dose for what the server already knows; the agent decides again, from the PLC.
pub fn may_feed_now(
    feeder: &StoredFeeder,
    status: Option<&pb::FeederStatus>,
    portion_mg: i32,
) -> Result<(), Error> {
    let refuse = |reason: Reason, text: String| {
        Err(Error::precondition(reason, text).with("feeder", &feeder.id))
    };
    if feeder.capabilities.feed_now == FeedNowCapability::None {
        let text = "this feeder takes no doses by command: feed at the machine".into();
        return refuse(Reason::NotOffered, text).map_err(|e| e.with("capability", "feed_now"));
    }
    // What is not live decides nothing here: the gate, and then the PLC, have the word.
    let live = |s: &&pb::FeederStatus| s.state() != FeederState::Unknown;
    let Some(status) = status.filter(live) else { return Ok(()) };
    if let Some(block) = status.blocks.first() {
        let reason = Reason::from_name(&block.reason).unwrap_or(Reason::FeederHeld);
        let mut e = Error::precondition(reason, blocked_text(reason)).with("feeder", &feeder.id);
        for (key, value) in &block.metadata {
            if let Some(key) = METADATA_KEYS.iter().find(|k| *k == key) {
                e = e.with(key, value);
            }
        }
        return Err(e);
    }
    match status.state() {
        FeederState::Off => refuse(Reason::FeederOff, blocked_text(Reason::FeederOff).into())?,
        FeederState::Held => refuse(Reason::FeederHeld, blocked_text(Reason::FeederHeld).into())?,
        FeederState::Fault => {
            refuse(Reason::FeederFault, blocked_text(Reason::FeederFault).into())?;
        }
        _ => {}
    }
    let cap = feeder.version.as_ref().and_then(|v| v.config.valid()).and_then(|c| c.daily_cap_mg);
    if let (Some(cap), Some(fed)) = (cap, status.dispensed_today_mg) {
        let left = (i64::from(cap) - fed).max(0);
        if i64::from(portion_mg) > left {
            let text = format!("the day's cap leaves {left} mg: give less, or raise the cap");
            return refuse(Reason::DailyCap, text).map_err(|e| e.with("left_mg", left));
        }
    }
    Ok(())
}

/// The metadata keys that a block may carry on to the caller.
const METADATA_KEYS: [&str; 8] =
    ["fault_code", "kind", "value", "limit", "left_mg", "source", "robot", "command"];

fn blocked_text(reason: Reason) -> &'static str {
    match reason {
        Reason::FeederOff => "the feeder is off: set its mode first",
        Reason::FeederHeld => "the feeder is held: resume it first",
        Reason::FeederFault => "the feeder has a fault: look at it, then reset it",
        Reason::LocalHold => "the feeder is held or in local mode at the farm: lift that there",
        Reason::Interlock => "a reading forbids feeding, or is missing",
        Reason::DailyCap => "the day's cap would be exceeded",
        Reason::Envelope => "the farm's own limit for 24 hours would be exceeded",
        Reason::ReadOnly => "this PLC may only be read",
        Reason::PlcUnreachable => "the PLC does not answer: feed at the machine",
        Reason::JournalNotWhole => {
            "the PLC gave doses that nobody remembers: look at the tank, then run \
             `pasamanos-agent reset-envelope` at the farm"
        }
        Reason::DoseUnsettled => "an earlier dose is not settled: settle it first",
        _ => "the feeder would refuse a dose now",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(portion: i32, interval: u32) -> FeederConfig {
        FeederConfig {
            mode: Mode::Automatic,
            portion_mg: Some(portion),
            interval_s: Some(interval),
            windows: Vec::new(),
            daily_cap_mg: Some(10_000),
            interlocks: pasamanos_proto::model::Interlocks::default(),
        }
    }

    /// 2026-11-24 22:00 in Santiago, two hours before midnight.
    fn evening() -> (TimeZone, i64) {
        let zone = TimeZone::get("America/Santiago").expect("zone");
        let t = jiff::civil::date(2026, 11, 24).at(22, 0, 0, 0).to_zoned_datetime(zone.clone());
        (zone, t.expect("instant").timestamp().as_millisecond())
    }

    #[test]
    fn meals_left_end_at_the_farms_midnight_not_ours() {
        let (zone, now) = evening();
        let today = Today { dispensed_mg: Some(4_000), ..Today::default() };
        let p = preview(None, &config(1_500, 1_800), today, &zone, now);
        // 22:30, 23:00, 23:30.
        assert_eq!(p.meals_left_today, Some(3));
        assert_eq!(p.planned_left_mg, Some(4_500));
        assert_eq!(p.cap_left_mg, Some(6_000));
        assert_eq!(p.meals_that_will_be_skipped, Some(0));
    }

    #[test]
    fn the_cap_skips_whole_meals() {
        let (zone, now) = evening();
        let today = Today { dispensed_mg: Some(7_500), ..Today::default() };
        let p = preview(None, &config(1_500, 1_800), today, &zone, now);
        assert_eq!(p.meals_that_will_be_skipped, Some(2));
        assert_eq!(p.warnings, [i32::from(PreviewWarning::CapWillSkipMeals)]);
    }

    #[test]
    fn a_window_that_ended_leaves_no_meal() {
        let (zone, now) = evening();
        let mut c = config(1_500, 1_800);
        c.windows =
            vec![pasamanos_proto::model::FeedWindow { start_minute: 360, end_minute: 1_200 }];
        assert_eq!(preview(None, &c, Today::default(), &zone, now).meals_left_today, Some(0));
    }
}
