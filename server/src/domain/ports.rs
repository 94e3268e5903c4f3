//! What the use cases need from outside, as traits; what passes through them is beside.

mod error;
mod stored;
mod told;

use std::time::Duration;

use async_trait::async_trait;
use pasamanos_proto::model::{
    AgentName, CommandName, FarmId, FeederId, FeederName, PageRequest, Reason,
};
use pasamanos_proto::pb;

pub use error::{AcceptError, IngestError, LeaseError, OpenError, StoreError};
pub use stored::{
    Farm, Page, Reversion, StoredAgent, StoredCommand, StoredFarm, StoredFeeder, StoredResolution,
    StoredRobot, StoredTank, StoredVersion,
};
pub use told::{
    Holder, Ingest, Ingested, NewCommand, NewFarm, NewResolution, OpenSession, Renewal, Resolved,
    SessionOpened,
};

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

/// The clocks, as an argument.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch: for people and rows, decides nothing.
    fn wall_ms(&self) -> i64;
    /// Milliseconds of a monotonic clock since some start.
    fn monotonic_ms(&self) -> i64;
}
