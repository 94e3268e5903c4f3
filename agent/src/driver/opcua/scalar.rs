//! A robot of plain tags: what is mapped is shown, a config is written tag by tag, and a dose is a
//! group of scalars that is started alone, at most once.

use opcua::types::Variant;
use pasamanos_proto::model::{ConfigField, FeederConfig, FieldSet, Mode, ObservedConfig};
use pasamanos_proto::pb;
use prost_types::Duration;

use super::read::{Plan, Values};
use super::value;
use crate::config::tags::TagType;
use crate::config::{Feeder, Robot, SourceTime, Tag, TagName, Tags};
use crate::driver::describe::SCALAR_FIELDS;
use crate::driver::{
    ConfigReading, DriverError, FeederSnapshot, HopperLevel, PlcFault, RobotSnapshot, Slot, SlotOp,
    SlotState, Stamps, slot_reason,
};

/// What a snapshot reads of the robot.
const OF_ROBOT: [TagName; 11] = [
    TagName::Alive,
    TagName::PlcTime,
    TagName::Local,
    TagName::Hopper,
    TagName::Fault,
    TagName::DoseAmount,
    TagName::DoseSequence,
    TagName::DoseEcho,
    TagName::DoseDone,
    TagName::DoseState,
    TagName::DoseDispensed,
];

/// What a snapshot reads of a feeder.
const OF_FEEDER: [TagName; 4] =
    [TagName::Hold, TagName::Dosing, TagName::Total, TagName::NextDoseIn];

/// What a snapshot reads.
pub(super) fn plan(robot: &Robot) -> Plan<'_> {
    let mut plan = Plan::default();
    plan.add(&robot.tags, &OF_ROBOT);
    for feeder in &robot.feeders {
        plan.add(&feeder.tags, &OF_FEEDER);
        plan.add_readings(feeder);
    }
    plan
}

/// One snapshot. What decides doses must be good; a reading may be bad alone.
pub(super) fn snapshot(robot: &Robot, values: &Values<'_>) -> Result<RobotSnapshot, DriverError> {
    let tags = &robot.tags;
    let mut feeders = Vec::new();
    for f in &robot.feeders {
        let total = values.scaled(&f.tags, TagName::Total)?;
        feeders.push(FeederSnapshot {
            feeder: f.id.clone(),
            held: values.flag(&f.tags, TagName::Hold)?,
            dosing: values.flag(&f.tags, TagName::Dosing)?.unwrap_or(false),
            total_mg: total.and_then(|mg| u64::try_from(mg).ok()),
            next_dose_in_s: values.seconds(&f.tags, TagName::NextDoseIn),
            meal: None,
        });
    }
    let held = feeders.iter().any(|f| f.held == Some(true));
    let slot = slot(tags, values, held)?;
    if slot.is_some_and(|slot| slot.state == SlotState::Started) {
        for feeder in &mut feeders {
            feeder.dosing = true;
        }
    }
    let hopper = values.of(tags, TagName::Hopper).map(|(tag, value)| HopperLevel {
        level_mg: value::scaled(tag, value).ok(),
        feed_name: robot.feed_name.clone(),
    });
    let fault = values.count(tags, TagName::Fault)?.filter(|code| *code != 0);
    let fault = fault.map(|code| PlcFault {
        code,
        text: robot.faults.get(&code).cloned().unwrap_or_else(|| format!("Fault {code}")),
    });
    Ok(RobotSnapshot {
        slot,
        alive: values.count(tags, TagName::Alive)?.map(u64::from),
        plc_time_s: values.seconds(tags, TagName::PlcTime),
        local: values.flag(tags, TagName::Local)?.unwrap_or(false),
        hoppers: hopper.into_iter().collect(),
        faults: fault.into_iter().collect(),
        feeders,
        readings: robot.feeders.iter().flat_map(|f| values.readings(f)).collect(),
    })
}

/// The dose group as a slot without epoch and token; `None` if it is not mapped.
fn slot(tags: &Tags, values: &Values<'_>, held: bool) -> Result<Option<Slot>, DriverError> {
    let Some(echo) = values.count(tags, TagName::DoseEcho)? else { return Ok(None) };
    let Some((done_tag, done)) = values.of(tags, TagName::DoseDone) else { return Ok(None) };
    let ended = match done_tag.kind {
        TagType::Bool => value::flag(done_tag, done)?,
        _ => value::count(done_tag, done)? == echo,
    };
    let milligrams = |name| {
        let mg = values.scaled(tags, name)?;
        Ok::<_, DriverError>(mg.map(|mg| u32::try_from(mg).unwrap_or(0)))
    };
    let dispensed = milligrams(TagName::DoseDispensed)?;
    // The amount in the group is that of the last dose only while its sequence is.
    let asked = match values.count(tags, TagName::DoseSequence)? {
        Some(sequence) if sequence == echo => milligrams(TagName::DoseAmount)?,
        _ => None,
    };
    let short = matches!((asked, dispensed), (Some(asked), Some(got)) if got + 1 < asked);
    let word = values.of(tags, TagName::DoseState).map(|(tag, value)| value::word(tag, value));
    let state = match word.transpose()?.flatten() {
        _ if echo == 0 => SlotState::Idle,
        Some("aborted") => SlotState::Aborted,
        Some("rejected") => SlotState::Rejected,
        Some("started") => SlotState::Started,
        _ if !ended => SlotState::Started,
        _ if short => SlotState::Aborted,
        _ => SlotState::Done,
    };
    let reason = if state == SlotState::Aborted && held { slot_reason::HELD } else { 0 };
    Ok(Some(Slot {
        epoch: 0,
        last_sequence: echo,
        last_op: if echo == 0 { SlotOp::None } else { SlotOp::Dose },
        last_token: 0,
        state,
        reason,
        // While it runs the tag still shows the dose before.
        dispensed_mg: dispensed.filter(|_| state != SlotState::Started),
    }))
}

/// What a config read reads.
pub(super) fn config_plan(feeder: &Feeder) -> Plan<'_> {
    let mut plan = Plan::default();
    plan.add(&feeder.tags, &SCALAR_FIELDS.map(|f| f.1));
    plan
}

/// The config that the tags show; what is not mapped is absent.
pub(super) fn config(
    robot: &Robot,
    feeder: &Feeder,
    values: &Values<'_>,
) -> Result<ConfigReading, DriverError> {
    let tags = &feeder.tags;
    let number = |name| {
        let value = values.scaled(tags, name)?;
        Ok::<_, DriverError>(value.map(|v| i32::try_from(v).unwrap_or(i32::MAX)))
    };
    let mode = match values.of(tags, TagName::Mode) {
        // Without a mode tag it always feeds.
        None => pb::FeederMode::Automatic,
        Some((tag, value)) => match value::word(tag, value)? {
            Some("automatic") => pb::FeederMode::Automatic,
            Some("manual") => pb::FeederMode::Manual,
            Some("off") => pb::FeederMode::Off,
            _ => pb::FeederMode::Unspecified,
        },
    };
    let interval = values.scaled(tags, TagName::Interval)?.map(|ms| Duration {
        seconds: ms.div_euclid(1_000),
        nanos: i32::try_from(ms.rem_euclid(1_000)).unwrap_or(0) * 1_000_000,
    });
    let locks = pb::Interlocks {
        min_dissolved_oxygen_ug_per_l: number(TagName::MinDissolvedOxygen)?,
        min_oxygen_saturation_permille: number(TagName::MinOxygenSaturation)?,
        max_water_temperature_millicelsius: number(TagName::MaxWaterTemperature)?,
    };
    let raw = pb::FeederConfig {
        mode: mode.into(),
        portion_mg: number(TagName::Portion)?,
        interval,
        windows: Vec::new(),
        daily_cap_mg: number(TagName::DailyCap)?,
        interlocks: (locks != pb::Interlocks::default()).then_some(locks),
    };
    let stamps = match robot.source_time {
        SourceTime::Plc => stamps(tags, values),
        SourceTime::Server => Stamps::new(),
    };
    Ok(ConfigReading { config: ObservedConfig::from(raw), revision: None, plc_epoch: None, stamps })
}

/// The source timestamps, in ticks of 100 ns; what bears none was not taken by the PLC yet.
fn stamps(tags: &Tags, values: &Values<'_>) -> Stamps {
    let stamp = |(field, name)| {
        let (_, value) = values.of(tags, name)?;
        Some((field, value.source_timestamp.as_ref()?.ticks()))
    };
    SCALAR_FIELDS.into_iter().filter_map(stamp).collect()
}

/// The tags to write for these fields, each by itself and in this order.
pub(super) fn config_writes<'a>(
    feeder: &'a Feeder,
    new: &FeederConfig,
    fields: &FieldSet,
) -> Result<Vec<(&'a Tag, Variant)>, DriverError> {
    let mut out = Vec::new();
    for field in fields.iter() {
        let tag = SCALAR_FIELDS
            .iter()
            .find(|(of, _)| *of == field)
            .and_then(|(_, name)| feeder.tags.get(name))
            .ok_or_else(|| DriverError::Refused(format!("{} is not mapped", field.path())))?;
        if !tag.writable {
            return Err(DriverError::Refused(format!(
                "{} is read-only in agent.toml",
                field.path()
            )));
        }
        out.push((tag, write_of(tag, new, field)?));
    }
    Ok(out)
}

fn write_of(tag: &Tag, new: &FeederConfig, field: ConfigField) -> Result<Variant, DriverError> {
    let kept = match field {
        ConfigField::Mode => {
            let word = match new.mode {
                Mode::Automatic => "automatic",
                Mode::Manual => "manual",
                Mode::Off => "off",
            };
            let raw = tag.values.get(word);
            let none =
                || DriverError::Refused(format!("mode has no value for {word} in agent.toml"));
            raw.and_then(|raw| i32::try_from(*raw).ok()).map(f64::from).ok_or_else(none)?
        }
        ConfigField::Interval => 1_000.0 * f64::from(need(new.interval_s, field)?),
        ConfigField::Portion => need(new.portion_mg, field)?.into(),
        ConfigField::DailyCap => need(new.daily_cap_mg, field)?.into(),
        ConfigField::MinDissolvedOxygen => {
            need(new.interlocks.min_dissolved_oxygen_ug_per_l, field)?.into()
        }
        ConfigField::MinOxygenSaturation => {
            need(new.interlocks.min_oxygen_saturation_permille, field)?.into()
        }
        ConfigField::MaxWaterTemperature => {
            need(new.interlocks.max_water_temperature_millicelsius, field)?.into()
        }
        ConfigField::Windows => return Err(DriverError::Refused("windows are not mapped".into())),
    };
    value::variant(tag, kept)
}

fn need<T>(value: Option<T>, field: ConfigField) -> Result<T, DriverError> {
    let message = || DriverError::Refused(format!("this PLC cannot be without {}", field.path()));
    value.ok_or_else(message)
}
