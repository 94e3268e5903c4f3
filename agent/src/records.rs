//! What goes into the history: doses of any origin, and alarms.

pub(crate) mod account;

use std::collections::BTreeMap;

use pasamanos_proto::model::{Basis, CommandName, FeederId, Reason, RobotId, timestamp_from_ms};
use pasamanos_proto::pb;

use crate::driver::{FeederDescription, slot_reason};

/// Feed that fell, or a meal that did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Portion {
    /// Why.
    pub cause: pb::DoseCause,
    /// What became of it.
    pub outcome: pb::DoseOutcome,
    /// Why it ended so.
    pub reason: Reason,
    /// Its command.
    pub command: Option<CommandName>,
    /// What was asked, mg.
    pub planned_mg: Option<u32>,
    /// What fell, mg, and how that is known.
    pub dispensed: Option<(u64, Basis)>,
    /// When it began, wall clock.
    pub start_ms: i64,
    /// When it ended, wall clock.
    pub end_ms: i64,
}

impl Portion {
    /// What counts as fed, mg.
    pub(crate) fn mg(&self) -> u64 {
        self.dispensed.map_or(0, |(mg, _)| mg)
    }

    /// As the history has it.
    pub(crate) fn to_dose(&self, feeder: &FeederDescription, local_date: &str) -> pb::Dose {
        pb::Dose {
            name: String::new(),
            feeder: feeder.feeder.to_string(),
            tank: feeder.tank.to_string(),
            robot: feeder.robot.to_string(),
            command: self.command.as_ref().map(ToString::to_string).unwrap_or_default(),
            cause: self.cause.into(),
            outcome: self.outcome.into(),
            reason: self.reason.name().into(),
            planned_mg: self.planned_mg.and_then(|mg| i32::try_from(mg).ok()),
            dispensed_mg: self.dispensed.map(|(mg, _)| i64::try_from(mg).unwrap_or(i64::MAX)),
            basis: self
                .dispensed
                .map_or(pb::AmountBasis::Unspecified, |(_, basis)| basis.into())
                .into(),
            calibration: feeder.calibration.clone(),
            start_time: Some(timestamp_from_ms(self.start_ms)),
            end_time: Some(timestamp_from_ms(self.end_ms)),
            local_date: local_date.into(),
        }
    }
}

/// What a PLC's reason code is called.
pub(crate) fn plc_reason(code: u32) -> (Reason, &'static str) {
    match code {
        slot_reason::HELD => (Reason::Held, "held"),
        slot_reason::JAM => (Reason::PlcRefused, "jam"),
        slot_reason::HOPPER_EMPTY => (Reason::PlcRefused, "hopper-empty"),
        slot_reason::POWER_LOST => (Reason::PlcRefused, "power-lost"),
        slot_reason::INTERLOCK => (Reason::Interlock, "interlock"),
        slot_reason::LOCAL => (Reason::LocalHold, "local"),
        slot_reason::RANGE => (Reason::PlcRefused, "range"),
        slot_reason::FAULT => (Reason::FeederFault, "fault"),
        slot_reason::OFF => (Reason::FeederOff, "off"),
        slot_reason::DAILY_CAP => (Reason::DailyCap, "daily-cap"),
        slot_reason::BUSY => (Reason::BusyDosing, "busy"),
        _ => (Reason::PlcRefused, "other"),
    }
}

/// Something that a person must know.
#[derive(Clone, Debug)]
pub(crate) struct Alarm {
    /// What.
    pub reason: Reason,
    /// How bad.
    pub severity: pb::AlarmSeverity,
    /// The feeder it is about.
    pub feeder: Option<FeederId>,
    /// The robot it is about.
    pub robot: Option<RobotId>,
    /// The reason's metadata.
    pub metadata: BTreeMap<String, String>,
}

impl Alarm {
    /// About a feeder.
    pub(crate) fn feeder(reason: Reason, severity: pb::AlarmSeverity, feeder: &FeederId) -> Self {
        let metadata = BTreeMap::from([("feeder".into(), feeder.to_string())]);
        Self { reason, severity, feeder: Some(feeder.clone()), robot: None, metadata }
    }

    /// About a robot.
    pub(crate) fn robot(reason: Reason, severity: pb::AlarmSeverity, robot: &RobotId) -> Self {
        let metadata = BTreeMap::from([("robot".into(), robot.to_string())]);
        Self { reason, severity, feeder: None, robot: Some(robot.clone()), metadata }
    }

    /// Adds to the metadata.
    #[allow(clippy::needless_pass_by_value, reason = "numbers and names, as they come")]
    pub(crate) fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.into(), value.to_string());
        self
    }

    /// As the history has it.
    pub(crate) fn to_record(&self, wall_ms: i64) -> pb::record::Content {
        pb::record::Content::Alarm(pb::AlarmRecord {
            reason: self.reason.name().into(),
            reason_metadata: self.metadata.clone(),
            severity: self.severity.into(),
            feeder: self.feeder.as_ref().map(ToString::to_string).unwrap_or_default(),
            robot: self.robot.as_ref().map(ToString::to_string).unwrap_or_default(),
            time: Some(timestamp_from_ms(wall_ms)),
        })
    }
}
