//! What a store is told, and what it answers.

use pasamanos_proto::model::{
    Action, AgentId, AuditAnchor, BodyHash, CommandName, CommandReport, FarmId, FeederId, Hello,
    ObservedConfig, RecordBatch, RequestId, Resolve, RobotId,
};
use pasamanos_proto::pb;

use super::{StoredCommand, StoredFeeder};

/// A farm to add.
#[derive(Clone, Debug)]
pub struct NewFarm {
    /// Its id.
    pub id: FarmId,
    /// As people call it.
    pub display_name: String,
    /// IANA zone; checked.
    pub time_zone: String,
    /// Wall clock.
    pub now_ms: i64,
}

/// A command to accept.
#[derive(Clone, Debug)]
pub struct NewCommand {
    /// Its name.
    pub name: CommandName,
    /// The feeder.
    pub feeder: FeederId,
    /// Its robot.
    pub robot: RobotId,
    /// Its agent.
    pub agent: AgentId,
    /// The epoch that the gate saw: checked in the transaction.
    pub epoch: i64,
    /// What to do.
    pub action: Action,
    /// The etag that a config update was based on: checked in the transaction.
    pub etag: Option<String>,
    /// The hash of the *request* as the caller sent it, for idempotence.
    pub request_hash: BodyHash,
    /// The agent's boot and the last instant of its clock at which this may start.
    pub start_before: (String, i64),
    /// Who asked.
    pub author: String,
    /// What they said.
    pub note: String,
    /// Wall clock.
    pub now_ms: i64,
}

/// A hello to open a session with.
#[derive(Clone, Debug)]
pub struct OpenSession {
    /// The whole hello.
    pub hello: Hello,
    /// Wall clock.
    pub now_ms: i64,
}

/// A session that was opened.
#[derive(Clone, Debug)]
pub struct SessionOpened {
    /// Higher than every epoch before.
    pub epoch: i64,
    /// The farm's IANA zone.
    pub time_zone: String,
    /// The highest record sequence of this incarnation that is stored; 0 if none.
    pub records_through: i64,
    /// What was settled, new states. Every one that the hello listed is to be acknowledged.
    pub settled: Vec<StoredCommand>,
    /// What the hello listed and was settled before: unchanged, to be acknowledged too.
    pub known: Vec<StoredCommand>,
    /// Persons' settlements that the agent may not know: to be sent after `Welcome`.
    pub resolved: Vec<StoredCommand>,
    /// Where the farm's audit chain is now.
    pub anchor: AuditAnchor,
    /// The database was put back: the agent is asked to tell again what was acknowledged.
    pub tell_again: bool,
    /// What went wrong, for the log: claims of foreign feeders, a restored database, a journal that
    /// is not whole.
    pub alarms: Vec<String>,
}

/// Something that an agent reports and that must last.
#[derive(Clone, Debug, PartialEq)]
pub enum Ingest {
    /// A command's outcome (terminal states only).
    Outcome(Box<CommandReport>),
    /// A config that nobody asked for: made at the farm.
    Config(FeederId, ObservedConfig),
    /// A config that nobody set: its PLC came up with it after it lost its memory.
    MemoryLost(FeederId, ObservedConfig),
    /// Dose and alarm records.
    Records(RecordBatch),
}

/// What became of one report.
#[derive(Clone, Debug)]
pub enum Ingested {
    /// The command as it is stored now, and its feeder; acknowledge it. `changed` is false for a
    /// duplicate, and for a contradiction (which is alarmed and changes nothing).
    Outcome {
        /// The command.
        command: Box<StoredCommand>,
        /// Its feeder.
        feeder: Box<StoredFeeder>,
        /// Whether this report changed it.
        changed: bool,
        /// A place in the farm's audit chain that holds its end, for the acknowledgement.
        anchor: AuditAnchor,
    },
    /// The report names no command of this agent, or another body: not stored, alarmed.
    Refused {
        /// Which.
        command: CommandName,
        /// Why, for the log.
        why: &'static str,
    },
    /// The feeder with its new version; `None` if the config was the current one, or if a config
    /// command is open (its outcome will tell).
    Config(Option<Box<StoredFeeder>>),
    /// Stored up to here; these doses are new.
    Records {
        /// The incarnation.
        incarnation: String,
        /// All up to this sequence.
        through: i64,
        /// New in the history, with their resource names.
        doses: Vec<pb::Dose>,
    },
}

/// A person's settlement to record.
#[derive(Clone, Debug)]
pub struct NewResolution {
    /// Of which command.
    pub command: CommandName,
    /// Its own request id, for idempotence.
    pub request: RequestId,
    /// What they saw.
    pub what: Resolve,
    /// Who.
    pub who: String,
    /// Why.
    pub note: String,
    /// Wall clock.
    pub now_ms: i64,
}

/// What became of a person's settlement.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// Recorded now, or earlier by the same request.
    Done(Box<StoredCommand>),
    /// It is not UNCERTAIN, or another person settled it.
    NotInDoubt(Box<StoredCommand>),
    /// The request id stands for another settlement, of this command, or for this command itself.
    Reused(Box<StoredCommand>),
}

/// Who holds a lease: the key's value is `epoch/session/replica/counter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The session's epoch.
    pub epoch: i64,
    /// The session, a random id.
    pub session: String,
    /// The replica that holds the session, a random id.
    pub replica: String,
    /// Grows with each renewal.
    pub counter: u64,
}

/// What became of an acquisition or a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Held.
    Held,
    /// There is no such key: expired, evicted, flushed.
    Lost,
    /// Another session of a higher epoch holds it.
    Fenced,
}
