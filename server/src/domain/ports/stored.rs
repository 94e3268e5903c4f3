//! What a database holds of a farm, as it was read.

use std::collections::BTreeMap;

use pasamanos_proto::model::{
    Action, AgentId, Basis, BodyHash, Capabilities, CommandName, CommandState, FarmId, FeederId,
    Limits, ObservedConfig, Reason, RequestId, Resolve, RobotId, TankId,
};
use pasamanos_proto::pb;

/// A farm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farm {
    /// Its id.
    pub id: FarmId,
    /// As people call it.
    pub display_name: String,
    /// IANA zone.
    pub time_zone: String,
}

/// A farm as it is stored.
#[derive(Clone, Debug)]
pub struct StoredFarm {
    /// Itself.
    pub farm: Farm,
    /// Its agents.
    pub agents: Vec<StoredAgent>,
    /// Its tanks.
    pub tanks: Vec<StoredTank>,
    /// Its robots.
    pub robots: Vec<StoredRobot>,
    /// Its feeders, by id.
    pub feeders: Vec<StoredFeeder>,
    /// Commands without an end, and doses in doubt without a person's settlement.
    pub unsettled: Vec<StoredCommand>,
    /// The last dose of each feeder.
    pub last_doses: Vec<pb::Dose>,
}

/// An agent as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAgent {
    /// Its id.
    pub id: AgentId,
    /// 0 if it never connected.
    pub epoch: i64,
    /// When its last session opened or closed, wall clock; `None` if it never connected.
    pub seen_ms: Option<i64>,
    /// Its version; empty if never seen.
    pub version: String,
}

/// A tank as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTank {
    /// Its id.
    pub id: TankId,
    /// As the farm calls it.
    pub display_name: String,
    /// Its group; empty for none.
    pub group: String,
}

/// A robot as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRobot {
    /// Its id.
    pub id: RobotId,
    /// The agent that reaches it.
    pub agent: AgentId,
}

/// A feeder as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredFeeder {
    /// Its id.
    pub id: FeederId,
    /// The agent that it is bound to.
    pub agent: AgentId,
    /// Its robot.
    pub robot: RobotId,
    /// Its tank.
    pub tank: TankId,
    /// As the farm calls it.
    pub display_name: String,
    /// What it can be set to.
    pub limits: Limits,
    /// What it can do.
    pub capabilities: Capabilities,
    /// What its PLC was last read to run; `None` if it never was.
    pub version: Option<StoredVersion>,
    /// Its config command without an end.
    pub pending: Option<RequestId>,
}

/// One config version.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredVersion {
    /// From 1.
    pub number: i64,
    /// Of this version.
    pub etag: String,
    /// Who made it.
    pub author: pb::ConfigAuthor,
    /// The command that made it.
    pub command: Option<RequestId>,
    /// The config.
    pub config: ObservedConfig,
    /// When the server learned of it.
    pub created_ms: i64,
    /// Set if it brought an earlier version back at the farm.
    pub reversion: Option<Reversion>,
}

/// What a change at the farm undid: `REVERTED_AT_FARM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reversion {
    /// The version that was brought back.
    pub restored: i64,
    /// The version that the APPLIED command left in force.
    pub displaced: i64,
    /// That command.
    pub command: RequestId,
}

/// A command as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredCommand {
    /// Its name.
    pub name: CommandName,
    /// The feeder.
    pub feeder: FeederId,
    /// Its robot.
    pub robot: RobotId,
    /// Its agent.
    pub agent: AgentId,
    /// The epoch that accepted it.
    pub epoch: i64,
    /// Its insertion order in the database: the outbox's cursor.
    pub order: i64,
    /// Its number within the feeder.
    pub number: i64,
    /// What to do.
    pub action: Action,
    /// The hash of the request as the caller sent it; [`BodyHash::UNKNOWN`] of a command that was taken
    /// in from an agent's journal after the database was put back.
    pub request_hash: BodyHash,
    /// The agent's boot and the last instant of its clock at which this may start.
    pub start_before: (String, i64),
    /// `Accepted` or terminal; SENT and EXECUTING are never stored.
    pub state: CommandState,
    /// Why it ended so.
    pub reason: Reason,
    /// Its metadata.
    pub metadata: BTreeMap<String, String>,
    /// For an operator.
    pub detail: String,
    /// Who asked.
    pub author: String,
    /// What they said.
    pub note: String,
    /// Wall clock.
    pub created_ms: i64,
    /// Whether it was the server that called it UNCERTAIN, from silence: then a whole journal that
    /// does not hold it proves that it never ran. An agent's own doubt is no silence.
    pub doubt_by_server: bool,
    /// Wall clock; `None` without an end.
    pub settled_ms: Option<i64>,
    /// What fell, mg, and how that is known.
    pub dispensed: Option<(i32, Basis)>,
    /// A person's settlement.
    pub resolution: Option<StoredResolution>,
}

/// A person's settlement as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredResolution {
    /// What they saw, and how much.
    pub what: Resolve,
    /// Who.
    pub who: String,
    /// Why.
    pub note: String,
    /// Wall clock.
    pub time_ms: i64,
}

/// A page, and the key to begin the next after; `None` on the last.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the next begins.
    pub next: Option<String>,
}
