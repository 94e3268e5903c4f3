//! A robot that speaks our checked blocks.

use opcua::types::DataValue;

use super::read::{Plan, Values};
use super::words;
use super::{value, words::Status};
use crate::config::{Robot, TagName};
use crate::driver::{DriverError, FeederSnapshot, HopperLevel, PlcFault, RobotSnapshot};

/// One snapshot: one read of the status block, and whatever else is mapped.
pub(super) fn snapshot(robot: &Robot, values: &Values<'_>) -> Result<RobotSnapshot, DriverError> {
    let status = status(robot, values.need(&robot.tags, TagName::Status)?)?;
    let faults = if status.fault == 0 { Vec::new() } else { vec![fault(robot, status.fault)] };
    let level_mg = match values.of(&robot.tags, TagName::Hopper) {
        Some((tag, value)) => value::scaled(tag, value).ok(),
        None => Some(i64::from(status.hopper_mg)),
    };
    let feeders = robot.feeders.iter().map(|f| FeederSnapshot {
        feeder: f.id.clone(),
        held: Some(status.held),
        dosing: status.running,
        total_mg: Some(status.total_mg.into()),
        next_dose_in_s: values.seconds(&f.tags, TagName::NextDoseIn),
        meal: None,
    });
    Ok(RobotSnapshot {
        slot: Some(status.slot),
        alive: Some(status.heartbeat.into()),
        plc_time_s: Some(status.plc_time_s),
        local: status.local,
        hoppers: vec![HopperLevel { level_mg, feed_name: robot.feed_name.clone() }],
        faults,
        feeders: feeders.collect(),
        readings: robot.feeders.iter().flat_map(|f| values.readings(f)).collect(),
    })
}

/// What a snapshot reads.
pub(super) fn plan(robot: &Robot) -> Plan<'_> {
    let mut plan = Plan::default();
    plan.add(&robot.tags, &[TagName::Status, TagName::Hopper]);
    for feeder in &robot.feeders {
        plan.add(&feeder.tags, &[TagName::NextDoseIn]);
        plan.add_readings(feeder);
    }
    plan
}

fn status(robot: &Robot, value: &DataValue) -> Result<Status, DriverError> {
    let Some(tag) = robot.tags.get(&TagName::Status) else {
        return Err(DriverError::Config("no status block".into()));
    };
    words::status(&value::words(tag, value)?)
}

fn fault(robot: &Robot, code: u32) -> PlcFault {
    let text = match (robot.faults.get(&code), code) {
        (Some(text), _) => text.clone(),
        (None, 1) => "Motor".into(),
        (None, 2) => "Jam".into(),
        (None, code) => format!("Fault {code}"),
    };
    PlcFault { code, text }
}
