//! Domain types. A value of one of these types is valid: it was checked when it was received, and
//! nothing behind that point checks again.

mod action;
mod config;
mod error;
mod frame;
mod inventory;
mod name;
mod outcome;
mod record;
mod request;
mod text;
mod time;

pub use action::{Action, ActionKind, BodyHash};
pub use config::{
    ConfigField, FeedWindow, FeederConfig, FieldSet, Interlocks, Mode, ObservedConfig, ranges,
};
pub use error::{Invalid, Violation, Violations};
pub use frame::{
    AgentFrame, AgentFrameBody, AuditAnchor, CommandOrder, Hello, JournalState, RobotSlot,
};
pub use inventory::{
    Capabilities, Enforcer, FeedNowCapability, FieldAccess, FieldCapability, Inventory,
    InventoryFeeder, InventoryRobot, InventoryTank, Limits,
};
pub use name::{
    AgentId, AgentName, CommandName, FarmId, FeederId, FeederName, RequestId, RobotId, RobotName,
    Slug, TankId, TankName,
};
pub use outcome::{Basis, CommandReport, CommandState, Reason, Verdict};
pub use record::{MAX_RECORDS, RecordBatch, StoredRecord};
pub use request::{Mutation, PageRequest, Resolve, UpdateConfig, page_token};
pub use text::{Note, note};
pub use time::{duration_from_ms, duration_ms, ms_from_duration, timestamp_from_ms};
