//! What feeding now, or a changed config, means for the rest of the farm's day.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use pasamanos_proto::model::{Action, FeedNowCapability, FeederConfig, FieldSet, Mode, Reason};
use pasamanos_proto::pb;
use pasamanos_proto::pb::{FeederState, HoldSource, PreviewWarning};

use super::Error;
use super::ports::StoredFeeder;

/// What is known of a feeder besides its config when a preview is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Today {
    /// Fed since the farm's midnight, mg.
    pub dispensed_mg: Option<i64>,
    /// When the schedule feeds next, ms since the Unix epoch.
    pub next_dose_ms: Option<i64>,
    /// Whether anything holds it after what is previewed.
    pub held: bool,
    /// Whether the PLC starts its interval anew with what is previewed.
    pub restarts: bool,
}

/// What an action leaves of a feeder's holds: whether any is left, and whether the PLC starts its interval
/// anew because the last one ends (RULES 6.4). `None`: nothing is done.
#[must_use]
pub fn holds_after(
    feeder: &StoredFeeder,
    status: Option<&pb::FeederStatus>,
    action: Option<&Action>,
) -> (bool, bool) {
    let before: Vec<_> = status.iter().flat_map(|s| &s.holds).map(pb::Hold::source).collect();
    let lifts = |source: &HoldSource| match action {
        Some(Action::Resume) => *source == HoldSource::Operator,
        // A config that a person confirms.
        Some(Action::UpdateConfig { .. }) => {
            matches!(source, HoldSource::ConfigMixed | HoldSource::PlcMemoryLost)
        }
        _ => false,
    };
    let held = !before.iter().all(lifts);
    // Several plain tags are written under a hold of the agent's own.
    let for_it = match (action, &feeder.version) {
        (Some(Action::UpdateConfig { new, .. }), Some(version)) => {
            let now = version.config.valid();
            let changed = now.map_or_else(FieldSet::all, |now| now.diff(new));
            feeder.capabilities.several_fields_hold && changed.len() > 1
        }
        _ => false,
    };
    let ends = !held && (for_it || !before.is_empty());
    (held, ends && feeder.capabilities.hold_restarts_interval)
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
    let restart = after.interval_s.filter(|_| today.restarts && after.mode == Mode::Automatic);
    let next_ms = match restart {
        Some(interval_s) => Some(now_ms + i64::from(interval_s) * 1_000),
        None => today.next_dose_ms,
    };
    let meals = meals_left(after, next_ms, zone, now_ms);
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
    if restart.is_some() {
        let next = next_ms.and_then(|ms| within_windows(after, ms, zone));
        out.next_dose_time = next.map(pasamanos_proto::model::timestamp_from_ms);
        out.warnings.push(PreviewWarning::IntervalRestarts.into());
    } else if meals.is_some_and(|m| m > 0) {
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

/// The first meal from `first_ms` on, an interval apart, that its windows let through; within two days.
fn within_windows(config: &FeederConfig, first_ms: i64, zone: &TimeZone) -> Option<i64> {
    const DAYS_MS: i64 = 2 * 86_400_000;
    let step = i64::from(config.interval_s?).max(10) * 1_000;
    let steps = (0..=DAYS_MS / step).map(|n| first_ms + n * step);
    steps.into_iter().find(|at| minute_of(*at, zone).is_some_and(|m| config.feeds_at(m)))
}

/// The minute of the farm's day.
fn minute_of(at_ms: i64, zone: &TimeZone) -> Option<u16> {
    let t = Timestamp::from_millisecond(at_ms).ok()?.to_zoned_datetime(zone.clone());
    Some(u16::from(t.hour().unsigned_abs()) * 60 + u16::from(t.minute().unsigned_abs()))
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
        meals += i32::from(config.feeds_at(minute_of(at, zone)?));
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
    use crate::domain::ports::StoredVersion;
    use pasamanos_proto::model::{Capabilities, Limits, ObservedConfig};

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

    fn feeder(caps: Capabilities, now: FeederConfig) -> StoredFeeder {
        StoredFeeder {
            id: "feeder-1".parse().expect("feeder"),
            agent: "agent-1".parse().expect("agent"),
            robot: "robot-1".parse().expect("robot"),
            tank: "tank-1".parse().expect("tank"),
            display_name: "Norte 1".into(),
            limits: Limits::default(),
            capabilities: caps,
            version: Some(StoredVersion {
                number: 1,
                etag: "v1".into(),
                author: pb::ConfigAuthor::Farm,
                command: None,
                config: ObservedConfig::Valid(now),
                created_ms: 0,
                reversion: None,
            }),
            pending: None,
        }
    }

    fn held_by(sources: &[HoldSource]) -> pb::FeederStatus {
        let hold = |s: &HoldSource| pb::Hold { source: (*s).into(), ..Default::default() };
        pb::FeederStatus { holds: sources.iter().map(hold).collect(), ..Default::default() }
    }

    /// RULES 6.4: only where the last hold ends, on a PLC of which the tag map says so.
    #[test]
    fn an_interval_restarts_where_the_last_hold_ends() {
        use HoldSource::{ConfigMixed, Farm, Operator, PlcMemoryLost};
        let plc = |restarts, several| {
            let mut caps = Capabilities::new(FeedNowCapability::None, true, []);
            (caps.hold_restarts_interval, caps.several_fields_hold) = (restarts, several);
            caps
        };
        let to = |new: FeederConfig| Action::UpdateConfig {
            base: pb::FeederConfig::default(),
            new,
            fields: FieldSet::all(),
        };
        let (one, two) = (to(config(1_600, 1_800)), to(config(1_600, 900)));
        for (action, holds, left, restarts) in [
            (Some(&two), &[][..], false, true),
            (Some(&one), &[], false, false),
            (Some(&two), &[Operator], true, false),
            (Some(&one), &[PlcMemoryLost, ConfigMixed], false, true),
            (Some(&two), &[PlcMemoryLost, Farm], true, false),
            (Some(&Action::Resume), &[Operator], false, true),
            (Some(&Action::Resume), &[Operator, Farm], true, false),
            (Some(&Action::Resume), &[], false, false),
            (Some(&Action::FeedNow { portion_mg: 100 }), &[], false, false),
            (Some(&Action::Hold), &[Operator], true, false),
            (None, &[Operator], true, false),
        ] {
            let feeder = feeder(plc(true, true), config(1_500, 1_800));
            let found = holds_after(&feeder, Some(&held_by(holds)), action);
            assert_eq!(found, (left, restarts), "{action:?} {holds:?}");
        }
        for (restarts, several) in [(true, false), (false, true)] {
            let feeder = feeder(plc(restarts, several), config(1_500, 1_800));
            assert_eq!(holds_after(&feeder, None, Some(&two)), (false, false));
        }
    }

    #[test]
    fn the_next_meal_moves_to_an_interval_from_now_and_into_the_windows() {
        let (zone, now) = evening();
        let today = Today { next_dose_ms: Some(now + 60_000), restarts: true, ..Today::default() };
        let at = |p: &pb::Preview| p.next_dose_time.map(|t| (t.seconds * 1_000 - now) / 60_000);
        let mut c = config(1_500, 3_000);
        let p = preview(None, &c, today, &zone, now);
        // 22:50 and 23:40; without the restart 22:01, 22:51, 23:41.
        assert_eq!((at(&p), p.meals_left_today), (Some(50), Some(2)));
        assert_eq!(p.warnings, [i32::from(PreviewWarning::IntervalRestarts)]);
        let p = preview(None, &c, Today { restarts: false, ..today }, &zone, now);
        assert_eq!((at(&p), p.meals_left_today), (Some(1), Some(3)));
        // From 06:00 on: the first that falls into it is the tenth, at 06:20.
        c.windows =
            vec![pasamanos_proto::model::FeedWindow { start_minute: 360, end_minute: 1_200 }];
        let p = preview(None, &c, today, &zone, now);
        assert_eq!((at(&p), p.meals_left_today), (Some(500), Some(0)));
        c.mode = Mode::Manual;
        let p = preview(None, &c, today, &zone, now);
        assert_eq!((at(&p), p.warnings.len()), (None, 0), "nothing feeds by itself");
    }
}
