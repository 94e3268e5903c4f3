//! What the agent asks of a PLC. One driver speaks over one connection to one PLC and serves all its
//! robots; nothing here names a protocol, so that a helper in any language can serve robots later.
//!
//! One fact rules this trait: a write that timed out is executed later, on every server tried. So no
//! method's `Ok` concludes anything about the farm; only what is read afterwards does.

mod build;
pub(crate) mod describe;
mod news;
pub mod opcua;
pub mod sim;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pasamanos_proto::model::{
    Basis, Capabilities, ConfigField, FeederConfig, FeederId, FieldSet, Limits, ObservedConfig,
    RobotId, TankId,
};
use pasamanos_proto::pb::{LinkState, ReadingKind};
use tokio::sync::watch;

pub use build::{BuildError, build};
pub use news::News;

/// One PLC behind one connection.
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// The feeders that it serves, as the tag map describes them. Does not ask the PLC.
    fn feeders(&self) -> &[FeederDescription];

    /// What this robot's PLC and tag map can prove.
    fn traits(&self, robot: &RobotId) -> RobotTraits;

    /// One snapshot of a robot, read now from the device, never from a cache.
    ///
    /// # Errors
    /// If the link is down, or the checksum or quality is bad.
    async fn read_status(&self, robot: &RobotId) -> Result<RobotSnapshot, DriverError>;

    /// What the PLC runs for this feeder, read now from the device.
    ///
    /// # Errors
    /// As for `read_status`.
    async fn read_config(&self, feeder: &FeederId) -> Result<ConfigReading, DriverError>;

    /// Writes the changed fields. `base` is what was read just before. In the block profile the PLC
    /// itself compares the base revision; in the scalar profile the caller holds the feeder first if
    /// more than one tag changes.
    ///
    /// # Errors
    /// [`DriverError::Ambiguous`] if it may show later.
    async fn write_config(
        &self,
        feeder: &FeederId,
        base: &ConfigReading,
        new: &FeederConfig,
        fields: &FieldSet,
    ) -> Result<(), DriverError>;

    /// Puts a dose or a fence on the wire. `Ok` means sent and not refused, not executed. In the
    /// scalar profile this writes amount and sequence, reads them back until equal, and only then
    /// writes start, alone; a mismatch before start is `Refused`.
    ///
    /// # Errors
    /// [`DriverError::NotConnected`] only if nothing at all was sent.
    async fn submit(&self, robot: &RobotId, block: &SlotBlock) -> Result<(), DriverError>;

    /// The last results that the PLC keeps, oldest first; empty if it keeps none.
    ///
    /// # Errors
    /// As for `read_status`.
    async fn history(&self, robot: &RobotId) -> Result<Vec<SlotResult>, DriverError>;

    /// Sets the hold level; idempotent.
    ///
    /// # Errors
    /// As for `submit`.
    async fn hold(&self, feeder: &FeederId) -> Result<(), DriverError>;

    /// Clears the hold level; idempotent.
    ///
    /// # Errors
    /// As for `submit`.
    async fn resume(&self, feeder: &FeederId) -> Result<(), DriverError>;

    /// Resets this fault of this feeder's robot if it is the active one.
    ///
    /// # Errors
    /// As for `submit`.
    async fn reset_fault(&self, feeder: &FeederId, code: u32) -> Result<(), DriverError>;

    /// The state of the connection; the newest value counts.
    fn link(&self) -> watch::Receiver<Link>;

    /// Where the PLC tells by itself that a robot changed, if it can: its robots are then read before
    /// their turn. `None` if it only answers. It shortens the wait for a poll and replaces none.
    fn news(&self) -> Option<Arc<News>> {
        None
    }

    /// Closes the connection and ends every task of the driver.
    async fn shutdown(&self);
}

/// A feeder as the tag map describes it.
#[derive(Clone, Debug)]
pub struct FeederDescription {
    /// Its id.
    pub feeder: FeederId,
    /// Its robot.
    pub robot: RobotId,
    /// Its tank.
    pub tank: TankId,
    /// Which of its robot's outlets it is, from 0: what [`SlotBlock::outlet`] must name.
    pub outlet: u8,
    /// The feeder, as the farm calls it.
    pub display_name: String,
    /// The tank, as the farm calls it.
    pub tank_name: String,
    /// The tank's group; empty for none.
    pub group: String,
    /// What it can be set to; `portion_max_mg` is `None` unless `agent.toml` raises it.
    pub limits: Limits,
    /// What it can do.
    pub capabilities: Capabilities,
    /// How a config reaches the PLC.
    pub profile: Profile,
    /// The most that may be dispensed in a rolling 24 h, mg; `None` if `agent.toml` sets none.
    pub envelope_mg: Option<i64>,
    /// The calibration in force; empty if the unit needs none.
    pub calibration: String,
}

/// How a config reaches the PLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One checked block with a base revision: whole or not at all.
    Block,
    /// Plain tags, written one by one: may be mixed.
    Scalar,
}

/// What a robot can prove.
#[derive(Clone, Copy, Debug)]
pub struct RobotTraits {
    /// The slot is sequenced, fenced and retained: a consumed slot is proof.
    pub sequenced: bool,
    /// How long to wait between the two read-backs of a config; zero only for the sim.
    pub dwell: Duration,
    /// Whether `alive` or a PLC clock is mapped, or the stamps of its config tags are its own.
    pub life_provable: bool,
    /// `agent.toml` says read-only: every write is refused before it is tried.
    pub read_only: bool,
    /// How dispensed amounts are known.
    pub basis: Basis,
}

/// The state of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its state.
    pub state: LinkState,
    /// For an installer; never a password.
    pub detail: String,
}

/// One snapshot of a robot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RobotSnapshot {
    /// Its command slot; `None` if it takes no doses.
    pub slot: Option<Slot>,
    /// A counter or clock that moves while the PLC lives.
    pub alive: Option<u64>,
    /// The PLC's clock, s; what [`SlotBlock::expires_at_s`] counts in.
    pub plc_time_s: Option<u32>,
    /// Local or manual at the machine: only the farm may lift it.
    pub local: bool,
    /// Containers.
    pub hoppers: Vec<HopperLevel>,
    /// Active faults, codes not 0.
    pub faults: Vec<PlcFault>,
    /// Its feeders.
    pub feeders: Vec<FeederSnapshot>,
    /// Readings of its tanks.
    pub readings: Vec<TankReading>,
}

/// A feeder in a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct FeederSnapshot {
    /// Which.
    pub feeder: FeederId,
    /// The PLC's hold bit; `None` if there is none.
    pub held: Option<bool>,
    /// Whether feed is leaving it.
    pub dosing: bool,
    /// Totaliser, mg, retained, of any origin; `None` if not mapped. May wrap at 2^32.
    pub total_mg: Option<u64>,
    /// How long until the schedule feeds next, s, if the PLC tells.
    pub next_dose_in_s: Option<u32>,
    /// The last meal of the PLC's own schedule, if it tells.
    pub meal: Option<Meal>,
}

/// A meal of the PLC's own schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meal {
    /// Counts every meal of this feeder, the skipped ones too; wraps. A step of more than one
    /// between two snapshots means that meals were missed by the reader.
    pub number: u32,
    /// `Started`, then `Done` or `Aborted`; `Rejected` if it was skipped.
    pub state: SlotState,
    /// Why it was aborted or skipped, one of [`slot_reason`]; 0 for none.
    pub reason: u32,
    /// The portion, mg.
    pub planned_mg: u32,
    /// What was dispensed so far, mg.
    pub dispensed_mg: u32,
}

/// A container in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HopperLevel {
    /// What is left, mg.
    pub level_mg: Option<i64>,
    /// The feed in it.
    pub feed_name: String,
}

/// An active fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlcFault {
    /// The PLC's code, not 0.
    pub code: u32,
    /// What it means.
    pub text: String,
}

/// A measured value.
#[derive(Clone, Debug, PartialEq)]
pub struct TankReading {
    /// Where.
    pub tank: TankId,
    /// What and in which unit.
    pub kind: ReadingKind,
    /// The value in that unit.
    pub value: i64,
    /// Whether the PLC calls it good and it is plausible.
    pub good: bool,
    /// For how long it has stood still, ms, if that is longer than the tag map allows its probe: it
    /// is that old.
    pub still_ms: Option<i64>,
}

impl TankReading {
    /// Whether an interlock may rely on it.
    #[must_use]
    pub fn is_fit(&self) -> bool {
        self.good && self.still_ms.is_none()
    }
}

/// A feeder's config as read.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigReading {
    /// The config.
    pub config: ObservedConfig,
    /// Its revision in the block profile.
    pub revision: Option<u32>,
    /// The PLC's epoch in the block profile: a change means that its memory was lost.
    pub plc_epoch: Option<u32>,
    /// When the PLC itself took or refreshed each field's value, where the tag map says that it tells.
    pub stamps: Stamps,
}

/// Instants of one PLC's clock, in its own unit: compared with earlier ones of the same field, and with
/// nothing else.
pub type Stamps = Vec<(ConfigField, i64)>;

impl ConfigReading {
    /// Whether the PLC took or refreshed every one of these fields after those stamps: it lived then,
    /// and what it shows is what it has.
    #[must_use]
    pub fn is_newer(&self, before: &Stamps, fields: &FieldSet) -> bool {
        let at = |stamps: &Stamps, field| stamps.iter().find(|s| s.0 == field).map(|s| s.1);
        let newer = |field| match (at(before, field), at(&self.stamps, field)) {
            (Some(before), Some(after)) => after > before,
            _ => false,
        };
        !fields.is_empty() && fields.iter().all(newer)
    }
}

/// A command slot as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The PLC's epoch; 0 where there is none.
    pub epoch: u32,
    /// The last sequence consumed.
    pub last_sequence: u32,
    /// What it was.
    pub last_op: SlotOp,
    /// Whose it was; 0 where the PLC keeps none.
    pub last_token: u32,
    /// What became of it.
    pub state: SlotState,
    /// The PLC's own reason code.
    pub reason: u32,
    /// What was dispensed under it, mg; `None` if the PLC does not measure it, or not yet.
    pub dispensed_mg: Option<u32>,
}

/// What a slot was used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotOp {
    /// Not yet used.
    None,
    /// A dose.
    Dose,
    /// A fence: nothing was dispensed and nothing will be under this sequence.
    Nop,
}

/// What became of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// Not yet used.
    Idle,
    /// Latched; the motor may run.
    Started,
    /// Ended as asked.
    Done,
    /// Ended short.
    Aborted,
    /// Refused by the PLC; nothing was dispensed.
    Rejected,
    /// Too late by the PLC's clock; nothing was dispensed.
    Expired,
}

/// The PLC's reason codes of [`Slot::reason`] that the agent tells apart.
pub mod slot_reason {
    /// Held while dosing, or when asked.
    pub const HELD: u32 = 1;
    /// Jammed.
    pub const JAM: u32 = 2;
    /// The hopper is empty.
    pub const HOPPER_EMPTY: u32 = 3;
    /// Power was lost while dosing.
    pub const POWER_LOST: u32 = 4;
    /// An interlock.
    pub const INTERLOCK: u32 = 5;
    /// Local or manual at the machine.
    pub const LOCAL: u32 = 6;
    /// The amount is out of the PLC's range.
    pub const RANGE: u32 = 7;
    /// A fault is active.
    pub const FAULT: u32 = 8;
    /// The feeder is off.
    pub const OFF: u32 = 9;
    /// The day's cap.
    pub const DAILY_CAP: u32 = 10;
    /// Another dose is running.
    pub const BUSY: u32 = 11;
}

/// What is written to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotBlock {
    /// The epoch that the PLC showed.
    pub epoch: u32,
    /// The PLC's last sequence plus one, wrapping.
    pub sequence: u32,
    /// Dose or fence.
    pub op: SlotOp,
    /// Which outlet of the robot, as [`FeederDescription::outlet`] says.
    pub outlet: u8,
    /// How much, mg.
    pub amount_mg: u32,
    /// The first 32 bits of SHA-256 of the command's name.
    pub token: u32,
    /// 0 for the PLC's own rate.
    pub rate_mg_per_s: u32,
    /// In the PLC's clock: later than this it must not start.
    pub expires_at_s: u32,
    /// In the farm PC's monotonic clock, ms: a driver whose PLC knows no expiry looks at it directly
    /// before it writes start, and refuses. `i64::MAX` for a fence.
    pub start_before_ms: i64,
}

/// One past result that a PLC keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotResult {
    /// The sequence.
    pub sequence: u32,
    /// Dose or fence: a `Done` fence dispensed nothing.
    pub op: SlotOp,
    /// Whose it was.
    pub token: u32,
    /// What became of it.
    pub state: SlotState,
    /// What was dispensed, mg.
    pub dispensed_mg: u32,
}

/// Why a driver could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// Certain: nothing was sent.
    #[error("not connected")]
    NotConnected,
    /// Certain: the PLC or the tag map refused it, and nothing changed.
    #[error("refused: {0}")]
    Refused(String),
    /// It may have been executed, or may yet be.
    #[error("outcome unknown: {0}")]
    Ambiguous(String),
    /// Bad quality, checksum, type or length, or implausible.
    #[error("bad data: {0}")]
    BadData(String),
    /// The configuration at the farm is wrong; it will not heal by itself.
    #[error("configuration: {0}")]
    Config(String),
}

impl DriverError {
    /// Whether the farm may have changed, or may yet change, because of the call.
    #[must_use]
    pub fn may_have_been_applied(&self) -> bool {
        matches!(self, Self::Ambiguous(_))
    }
}
