//! The local ceiling: what the server cannot widen. Readings that an interlock needs, the day's cap
//! and the rolling 24 h envelope. Pure.

use std::collections::BTreeMap;

use pasamanos_proto::model::{ConfigField, Enforcer, FeederConfig, Interlocks, Reason};
use pasamanos_proto::pb::{self, ReadingKind};

use crate::calendar::Moment;
use crate::driver::{FeederDescription, RobotSnapshot};
use crate::ledger::Book;
use crate::records::Alarm;

/// An interlock that forbids feeding, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forbidden {
    /// The field that sets it.
    pub field: ConfigField,
    /// What is measured.
    pub kind: ReadingKind,
    /// The reading; `None` if it is missing or bad, or its probe stands still.
    pub value: Option<i64>,
    /// What it must not pass.
    pub limit: i64,
}

/// The interlocks that forbid feeding now. A reading that one needs and that is missing or bad, or
/// whose probe stands still, forbids too.
pub(crate) fn forbidden(
    feeder: &FeederDescription,
    locks: &Interlocks,
    snapshot: &RobotSnapshot,
) -> Vec<Forbidden> {
    let read = |kind: ReadingKind| {
        let mut of_tank = snapshot.readings.iter().filter(|r| r.tank == feeder.tank && r.is_fit());
        of_tank.find(|r| r.kind == kind).map(|r| r.value)
    };
    let rules = [
        (
            ConfigField::MinDissolvedOxygen,
            ReadingKind::DissolvedOxygenUgPerL,
            locks.min_dissolved_oxygen_ug_per_l,
        ),
        (
            ConfigField::MinOxygenSaturation,
            ReadingKind::OxygenSaturationPermille,
            locks.min_oxygen_saturation_permille,
        ),
        (
            ConfigField::MaxWaterTemperature,
            ReadingKind::WaterTemperatureMillicelsius,
            locks.max_water_temperature_millicelsius,
        ),
    ];
    let mut found = Vec::new();
    for (field, kind, limit) in rules {
        let Some(limit) = limit.map(i64::from) else { continue };
        let value = read(kind);
        let holds = value.is_some_and(|v| match field {
            ConfigField::MaxWaterTemperature => v <= limit,
            _ => v >= limit,
        });
        if !holds {
            found.push(Forbidden { field, kind, value, limit });
        }
    }
    found
}

/// The readings that cannot be relied on, and why: those that an interlock needs and that are missing
/// or bad, and all whose probe stands still.
pub(crate) fn unfit(
    feeder: &FeederDescription,
    locks: Option<&Interlocks>,
    snapshot: &RobotSnapshot,
) -> BTreeMap<&'static str, &'static str> {
    let mine = || snapshot.readings.iter().filter(|r| r.tank == feeder.tank);
    let still = mine().filter(|r| r.good && r.still_ms.is_some()).map(|r| (r.kind, "still"));
    let needed = locks.map(|l| forbidden(feeder, l, snapshot)).unwrap_or_default();
    let needed = needed.iter().filter(|f| f.value.is_none()).map(|f| {
        let bad = mine().any(|r| r.kind == f.kind);
        (f.kind, if bad { "bad" } else { "missing" })
    });
    needed.chain(still).map(|(kind, why)| (kind_name(kind), why)).collect()
}

/// A kind of reading as metadata name it.
pub(crate) fn kind_name(kind: ReadingKind) -> &'static str {
    kind.as_str_name().trim_start_matches("READING_KIND_")
}

/// What the day's cap leaves, mg; `None` if there is none.
pub(crate) fn cap_left_mg(book: &Book, config: &FeederConfig, date: &str) -> Option<i64> {
    Some((i64::from(config.daily_cap_mg?) - book.counted_mg(date)).max(0))
}

/// For each limit that the agent enforces by a hold: the alarm to raise if it must hold now, or
/// `None` if that hold, should there be one, may go.
pub(crate) fn enforced(
    book: &Book,
    config: Option<&FeederConfig>,
    snapshot: &RobotSnapshot,
    now: &Moment,
) -> Vec<(pb::HoldSource, Option<Alarm>)> {
    let Some(config) = config.filter(|_| book.feeder.capabilities.hold) else { return Vec::new() };
    let by_agent =
        |f: ConfigField| book.feeder.capabilities.field(f).enforced_by == Enforcer::Agent;
    let id = &book.feeder.feeder;
    let alarm = |reason| Alarm::feeder(reason, pb::AlarmSeverity::Warning, id);

    let lock = forbidden(&book.feeder, &config.interlocks, snapshot)
        .into_iter()
        .find(|f| by_agent(f.field))
        .map(|f| {
            let value = f.value.map_or_else(|| "missing".into(), |v| v.to_string());
            alarm(Reason::Interlock)
                .with("kind", kind_name(f.kind))
                .with("value", value)
                .with("limit", f.limit)
        });
    // The schedule's next portion must fit: a meal is skipped, never shortened.
    let portion = i64::from(config.portion_mg.unwrap_or(0));
    let cap = cap_left_mg(book, config, &now.date)
        .filter(|left| by_agent(ConfigField::DailyCap) && *left < portion)
        .map(|left| alarm(Reason::DailyCap).with("left_mg", left));
    let envelope = book
        .envelope_left_mg(now.steady_ms, false)
        .filter(|left| *left < portion)
        .map(|left| alarm(Reason::Envelope).with("left_mg", left));
    vec![
        (pb::HoldSource::Interlock, lock),
        (pb::HoldSource::DailyCap, cap),
        (pb::HoldSource::Envelope, envelope),
    ]
}

#[cfg(test)]
mod tests;
