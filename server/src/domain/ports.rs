//! What the use cases need from outside, as traits, and the records that pass through them.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use pasamanos_proto::model::{
    Action, AgentId, AgentName, AuditAnchor, Basis, BodyHash, Capabilities, CommandName,
    CommandReport, CommandState, FarmId, FeederId, FeederName, Hello, Limits, ObservedConfig,
    PageRequest, Reason, RecordBatch, RequestId, Resolve, RobotId, TankId,
};
use pasamanos_proto::pb;

/// What must last. Every write is one durable transaction with its audit rows inside; a method
/// returns after the commit. Writes are done in the order in which they were called.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Adds a farm. `false` if it is there already (and then changes nothing).
    async fn add_farm(&self, farm: NewFarm) -> Result<bool, StoreError>;
    /// Adds an agent. `false` if it is there already.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without its farm.
    async fn add_agent(&self, agent: AgentName, now_ms: i64) -> Result<bool, StoreError>;
    /// Every farm.
    async fn farms(&self) -> Result<Vec<Farm>, StoreError>;
    /// One whole farm as it is stored, unsettled commands included; `None` if there is none.
    async fn farm(&self, farm: &FarmId) -> Result<Option<StoredFarm>, StoreError>;

    /// Opens a session: next epoch, inventory, config edits made meanwhile, and the end of every
    /// command of older epochs ([`super::settle`]), in one transaction.
    async fn open_session(&self, hello: OpenSession) -> Result<SessionOpened, OpenError>;
    /// The agent's current epoch; 0 if it never connected.
    async fn current_epoch(&self, agent: &AgentName) -> Result<i64, StoreError>;
    /// Ends a session: its commands that have no end become UNCERTAIN / `AGENT_LOST`. Does nothing
    /// to commands of another epoch.
    async fn close_session(
        &self,
        agent: &AgentName,
        epoch: i64,
        now_ms: i64,
    ) -> Result<Vec<StoredCommand>, StoreError>;
    /// Ends every command that has no end as UNCERTAIN / `AGENT_LOST`: what a dead process left.
    async fn close_all_sessions(&self, now_ms: i64) -> Result<u64, StoreError>;

    /// Accepts commands, all of one agent, in one transaction: all or none. Waits at most `patience`
    /// for the writer to take it; after that nothing is left behind ([`AcceptError::NotTaken`]).
    async fn accept(
        &self,
        commands: Vec<NewCommand>,
        patience: Duration,
    ) -> Result<Vec<StoredCommand>, AcceptError>;
    /// The commands of this epoch that have no end, above this insertion order, in that order: the
    /// outbox of a session.
    async fn outbox(
        &self,
        agent: &AgentName,
        epoch: i64,
        above: i64,
    ) -> Result<Vec<StoredCommand>, StoreError>;
    /// Stores what an agent reports, in order, in one transaction.
    async fn ingest(
        &self,
        agent: &AgentName,
        epoch: i64,
        items: &[Ingest],
        now_ms: i64,
    ) -> Result<Vec<Ingested>, IngestError>;
    /// Ends these commands as UNCERTAIN with this reason if they have no end yet.
    async fn doubt(
        &self,
        commands: &[CommandName],
        reason: Reason,
        now_ms: i64,
    ) -> Result<Vec<StoredCommand>, StoreError>;
    /// Records a person's settlement.
    async fn resolve(&self, resolution: NewResolution) -> Result<Resolved, StoreError>;

    /// One command. `None` only if its acceptance is known not to have happened: a pending
    /// acceptance of that name is waited for.
    async fn command(&self, name: &CommandName) -> Result<Option<StoredCommand>, StoreError>;
    /// Commands of a farm, newest first.
    async fn commands(
        &self,
        farm: &FarmId,
        feeder: Option<&FeederId>,
        page: &PageRequest,
    ) -> Result<Page<StoredCommand>, StoreError>;
    /// Config versions of a feeder, newest first.
    async fn versions(
        &self,
        feeder: &FeederName,
        page: &PageRequest,
    ) -> Result<Page<StoredVersion>, StoreError>;
    /// Doses of a farm, newest first, with their resource names.
    async fn doses(
        &self,
        farm: &FarmId,
        feeder: Option<&FeederId>,
        page: &PageRequest,
    ) -> Result<Page<pb::Dose>, StoreError>;
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be asked now.
    #[error("the database cannot be asked")]
    Unavailable(#[source] anyhow::Error),
    /// There is no such row.
    #[error("not found")]
    NotFound,
    /// A fault of ours.
    #[error("the database refused a statement")]
    Broken(#[source] anyhow::Error),
}

/// Why a command was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The writer never took it: nothing is left behind.
    #[error("the writer did not take it")]
    NotTaken,
    /// The writer took it and did not answer in time: it may be stored.
    #[error("it is not known whether it was stored")]
    Unknown,
    /// The transaction failed as a whole: nothing is left behind.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The id is known; here is its command (same body or not: the caller compares).
    #[error("the request id is known")]
    Known(Box<StoredCommand>),
    /// The id stands for a person's settlement of this command.
    #[error("the request id is a settlement's")]
    Reused(CommandName),
    /// The agent's epoch is not the one that the gate saw.
    #[error("the session changed")]
    EpochChanged,
    /// The config is not the one that it was based on.
    #[error("the config changed")]
    EtagMismatch,
    /// Another config command of this feeder has no end.
    #[error("a config command is in flight")]
    ConfigInFlight(CommandName),
    /// A dose of this robot is not settled.
    #[error("a dose is not settled")]
    DoseUnsettled(CommandName),
}

/// Why a session was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The agent was never added.
    #[error("no such agent")]
    UnknownAgent,
    /// The journal's epoch is more than a million above the database's.
    #[error("the journal's epoch is implausible")]
    EpochJump,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a report was not stored.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The session is not the current one any more.
    #[error("the session is superseded")]
    Fenced,
    /// The database failed: nothing of the batch was stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

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

/// A page, and the key to begin the next after; `None` on the last.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the next begins.
    pub next: Option<String>,
}

/// The expiring keys that say "this agent is alive".
#[async_trait]
pub trait Leases: Send + Sync + 'static {
    /// Takes the lease for a session whose epoch the database holds as current. Succeeds if there is
    /// none, or one of a lower epoch, or this very one; the key then expires after `ttl`.
    async fn acquire(
        &self,
        agent: &AgentName,
        holder: &Holder,
        ttl: Duration,
    ) -> Result<Renewal, LeaseError>;
    /// Extends its own lease, and only its own, to `ttl` from now.
    async fn renew(
        &self,
        agent: &AgentName,
        holder: &Holder,
        ttl: Duration,
    ) -> Result<Renewal, LeaseError>;
    /// Deletes its own lease, and only its own.
    async fn release(&self, agent: &AgentName, holder: &Holder) -> Result<(), LeaseError>;
    /// The lease as it is now; `None` if there is none.
    async fn read(&self, agent: &AgentName) -> Result<Option<Holder>, LeaseError>;
    /// Agents whose lease ended since the last call, by the deadline index. Also tells whether the
    /// lease store can be asked.
    async fn sweep(&self) -> Result<Vec<AgentName>, LeaseError>;
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

/// The lease store cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("the lease store cannot be asked")]
pub struct LeaseError(#[source] pub anyhow::Error);

/// The clocks, as an argument.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch: for people and rows, decides nothing.
    fn wall_ms(&self) -> i64;
    /// Milliseconds of a monotonic clock since some start.
    fn monotonic_ms(&self) -> i64;
}
