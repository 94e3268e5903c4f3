//! Tags: what a PLC shows and takes, where it is, and in which unit.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::quantity::Dimension;
use crate::driver::Profile;

/// What a tag is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TagName {
    // Of a robot, both profiles.
    /// A counter or clock that moves while the PLC lives.
    Alive,
    /// The PLC's clock.
    PlcTime,
    /// Local or manual at the machine.
    Local,
    /// What is left in the hopper.
    Hopper,
    /// The active fault's code; 0 for none.
    Fault,
    /// Written with a fault's code to reset it.
    ResetFault,
    // Of a robot, block profile.
    /// The command block.
    Command,
    /// The status block.
    Status,
    /// The block of past results.
    History,
    // Of a robot, scalar profile: the dose group.
    /// The amount to dispense.
    DoseAmount,
    /// Which dose it is; the PLC copies it to the echo when it starts.
    DoseSequence,
    /// Set to start.
    DoseStart,
    /// The sequence of the last dose that started.
    DoseEcho,
    /// The sequence of the last dose that ended; or, as a bool, whether the one that started has.
    DoseDone,
    /// How it stands: `idle`, `started`, `done`, `aborted`, `rejected`.
    DoseState,
    /// What was dispensed under it.
    DoseDispensed,
    // Of a feeder, block profile.
    /// The config block to write.
    Config,
    /// The config block in force.
    ConfigStatus,
    // Of a feeder, both profiles.
    /// The hold level.
    Hold,
    /// Whether feed is leaving it.
    Dosing,
    /// Totaliser of any origin.
    Total,
    /// How long until the schedule feeds next.
    NextDoseIn,
    // Of a feeder, scalar profile.
    /// `automatic`, `manual` or `off`.
    Mode,
    /// One meal.
    Portion,
    /// Start to start of two meals.
    Interval,
    /// Most feed in a day.
    DailyCap,
    /// Least dissolved oxygen to feed at.
    MinDissolvedOxygen,
    /// Least oxygen saturation to feed at.
    MinOxygenSaturation,
    /// Most water temperature to feed at.
    MaxWaterTemperature,
    // Of a feeder's tank.
    /// Dissolved oxygen.
    DissolvedOxygen,
    /// Oxygen saturation.
    OxygenSaturation,
    /// Water temperature.
    WaterTemperature,
    /// pH.
    Ph,
}

/// Where a tag belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To `[robot.tags]`.
    Robot,
    /// To `[feeder.tags]`.
    Feeder,
}

impl TagName {
    /// All of them, with the key in `agent.toml`, where it belongs, and what it measures.
    const TABLE: [(Self, &'static str, Scope, Dimension); 33] = [
        (Self::Alive, "alive", Scope::Robot, Dimension::Count),
        (Self::PlcTime, "plc_time", Scope::Robot, Dimension::Time),
        (Self::Local, "local", Scope::Robot, Dimension::Flag),
        (Self::Hopper, "hopper", Scope::Robot, Dimension::Mass),
        (Self::Fault, "fault", Scope::Robot, Dimension::Count),
        (Self::ResetFault, "reset_fault", Scope::Robot, Dimension::Count),
        (Self::Command, "command", Scope::Robot, Dimension::Block),
        (Self::Status, "status", Scope::Robot, Dimension::Block),
        (Self::History, "history", Scope::Robot, Dimension::Block),
        (Self::DoseAmount, "dose_amount", Scope::Robot, Dimension::Mass),
        (Self::DoseSequence, "dose_sequence", Scope::Robot, Dimension::Count),
        (Self::DoseStart, "dose_start", Scope::Robot, Dimension::Flag),
        (Self::DoseEcho, "dose_echo", Scope::Robot, Dimension::Count),
        (Self::DoseDone, "dose_done", Scope::Robot, Dimension::Count),
        (Self::DoseState, "dose_state", Scope::Robot, Dimension::Word),
        (Self::DoseDispensed, "dose_dispensed", Scope::Robot, Dimension::Mass),
        (Self::Config, "config", Scope::Feeder, Dimension::Block),
        (Self::ConfigStatus, "config_status", Scope::Feeder, Dimension::Block),
        (Self::Hold, "hold", Scope::Feeder, Dimension::Flag),
        (Self::Dosing, "dosing", Scope::Feeder, Dimension::Flag),
        (Self::Total, "total", Scope::Feeder, Dimension::Mass),
        (Self::NextDoseIn, "next_dose_in", Scope::Feeder, Dimension::Time),
        (Self::Mode, "mode", Scope::Feeder, Dimension::Word),
        (Self::Portion, "portion", Scope::Feeder, Dimension::Mass),
        (Self::Interval, "interval", Scope::Feeder, Dimension::Time),
        (Self::DailyCap, "daily_cap", Scope::Feeder, Dimension::Mass),
        (Self::MinDissolvedOxygen, "min_dissolved_oxygen", Scope::Feeder, Dimension::Oxygen),
        (Self::MinOxygenSaturation, "min_oxygen_saturation", Scope::Feeder, Dimension::Saturation),
        (Self::MaxWaterTemperature, "max_water_temperature", Scope::Feeder, Dimension::Temperature),
        (Self::DissolvedOxygen, "dissolved_oxygen", Scope::Feeder, Dimension::Oxygen),
        (Self::OxygenSaturation, "oxygen_saturation", Scope::Feeder, Dimension::Saturation),
        (Self::WaterTemperature, "water_temperature", Scope::Feeder, Dimension::Temperature),
        (Self::Ph, "ph", Scope::Feeder, Dimension::Acidity),
    ];

    fn row(self) -> &'static (Self, &'static str, Scope, Dimension) {
        Self::TABLE.iter().find(|row| row.0 == self).unwrap_or(&Self::TABLE[0])
    }

    /// Its key in `agent.toml`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// What it measures.
    #[must_use]
    pub fn dimension(self) -> Dimension {
        self.row().3
    }

    /// The tag of a key in this scope.
    #[must_use]
    pub fn from_key(scope: Scope, key: &str) -> Option<Self> {
        Self::TABLE.iter().find(|row| row.1 == key && row.2 == scope).map(|row| row.0)
    }

    /// The keys that a scope knows.
    #[must_use]
    pub fn keys(scope: Scope) -> Vec<&'static str> {
        Self::TABLE.iter().filter(|row| row.2 == scope).map(|row| row.1).collect()
    }

    /// The one profile that it belongs to, if it does not belong to both.
    #[must_use]
    pub fn profile(self) -> Option<Profile> {
        match self {
            Self::Command | Self::Status | Self::History | Self::Config | Self::ConfigStatus => {
                Some(Profile::Block)
            }
            Self::DoseAmount
            | Self::DoseSequence
            | Self::DoseStart
            | Self::DoseEcho
            | Self::DoseDone
            | Self::DoseState
            | Self::DoseDispensed
            | Self::Mode
            | Self::Portion
            | Self::Interval
            | Self::DailyCap
            | Self::MinDissolvedOxygen
            | Self::MinOxygenSaturation
            | Self::MaxWaterTemperature => Some(Profile::Scalar),
            _ => None,
        }
    }

    /// Whether it is measured in a tank.
    #[must_use]
    pub fn is_reading(self) -> bool {
        matches!(
            self,
            Self::DissolvedOxygen | Self::OxygenSaturation | Self::WaterTemperature | Self::Ph
        )
    }

    /// The words that its enum map must give a raw value for, all or some; empty if it has none.
    #[must_use]
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Self::Mode => &["automatic", "manual", "off"],
            Self::DoseState => &["idle", "started", "done", "aborted", "rejected"],
            _ => &[],
        }
    }
}

/// The type of a tag in the PLC; a value of any other type is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TagType {
    /// Yes or no.
    Bool,
    /// 8 bits, unsigned.
    Byte,
    /// 8 bits, signed.
    Sbyte,
    /// 16 bits, signed.
    Int16,
    /// 16 bits, unsigned.
    Uint16,
    /// 32 bits, signed.
    Int32,
    /// 32 bits, unsigned.
    Uint32,
    /// 64 bits, signed.
    Int64,
    /// 64 bits, unsigned.
    Uint64,
    /// 32 bits, floating.
    Float,
    /// 64 bits, floating.
    Double,
    /// Checked words.
    #[serde(skip)]
    Words,
}

/// Where a tag is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The namespace's URI; its index differs from start to start.
    pub namespace: String,
    /// The identifier in it.
    pub identifier: Identifier,
}

/// How a node is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identifier {
    /// By a text: `R1.Portion`.
    Text(String),
    /// By a number: `i=1234`.
    Number(u32),
    /// By a path of browse names below Objects: `R1/Portion`.
    Path(Vec<String>),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.identifier {
            Identifier::Text(text) => write!(f, "{}|{text}", self.namespace),
            Identifier::Number(number) => write!(f, "{}|i={number}", self.namespace),
            Identifier::Path(path) => write!(f, "{}|/{}", self.namespace, path.join("/")),
        }
    }
}

/// One mapped tag.
#[derive(Clone, Debug, PartialEq)]
pub struct Tag {
    /// Where it is.
    pub address: Address,
    /// Its type in the PLC.
    pub kind: TagType,
    /// Raw × scale = value in `unit`.
    pub scale: f64,
    /// The unit, as `agent.toml` names it; empty for none.
    pub unit: String,
    /// Raw × scale × factor = value in the unit that we keep.
    pub factor: f64,
    /// The raw value of each word.
    pub values: BTreeMap<String, i64>,
    /// Of a flag in a number: set if the number is this.
    pub equals: Option<i64>,
    /// Of a flag in a number: set if this bit is.
    pub bit: Option<u8>,
    /// Whether we may write it.
    pub writable: bool,
    /// A change of less than this, in the kept unit, is not worth a report.
    pub deadband: Option<f64>,
    /// Of a reading: one that has not moved at all for this long is of a probe that died.
    pub frozen_after: Option<Duration>,
    /// Of a reading: one whose source timestamp has not moved for this long is not refreshed any more.
    pub stale_after: Option<Duration>,
}

impl Tag {
    /// Kept value of a raw one.
    #[must_use]
    pub fn scaled(&self, raw: f64) -> f64 {
        raw * self.scale * self.factor
    }

    /// Raw value of a kept one.
    #[must_use]
    pub fn raw(&self, kept: f64) -> f64 {
        kept / (self.scale * self.factor)
    }

    /// How much one raw step is in the kept unit; for floats nothing.
    #[must_use]
    pub fn step(&self) -> f64 {
        match self.kind {
            TagType::Float | TagType::Double => 0.0,
            _ => (self.scale * self.factor).abs(),
        }
    }
}

impl Tag {
    /// One that the block profile has by its name, below a node.
    #[must_use]
    pub(crate) fn of_block(namespace: &str, node: &str, name: &str, kind: TagType) -> Self {
        let identifier = Identifier::Text(format!("{node}.{name}"));
        Self {
            address: Address { namespace: namespace.into(), identifier },
            kind,
            scale: 1.0,
            unit: String::new(),
            factor: 1.0,
            values: BTreeMap::new(),
            equals: None,
            bit: None,
            writable: true,
            deadband: None,
            frozen_after: None,
            stale_after: None,
        }
    }
}

/// The tags of a robot or of a feeder.
pub type Tags = BTreeMap<TagName, Tag>;
