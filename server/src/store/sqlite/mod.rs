//! `SQLite`: one file, one writer that groups commits, a few readers beside it.
//!
//! WAL with `synchronous=FULL`: what was answered survives a power cut. All writes go through one
//! task ([`writer`]), so a caller that goes away interrupts no transaction, and what waited while a
//! commit was syncing shares the next one. A lock on the data directory keeps a second server away.

#[path = "../sql/accept.rs"]
mod accept;
#[path = "../sql/admin.rs"]
mod admin;
#[path = "../sql/adopt.rs"]
mod adopt;
#[path = "../sql/audit.rs"]
mod audit;
#[path = "../sql/chain.rs"]
mod chain;
mod driver;
#[path = "../sql/error.rs"]
mod error;
#[path = "../sql/feeders.rs"]
mod feeders;
#[path = "../sql/ingest.rs"]
mod ingest;
mod open;
#[path = "../sql/pages.rs"]
mod pages;
mod queue;
#[path = "../sql/read.rs"]
mod read;
#[path = "../sql/records.rs"]
mod records;
#[path = "../sql/reversion.rs"]
mod reversion;
#[path = "../sql/rows.rs"]
mod rows;
#[path = "../sql/session.rs"]
mod session;
#[path = "../sql/settle.rs"]
mod settle;
mod ticket;
#[path = "../sql/tx.rs"]
mod tx;
#[path = "../sql/words.rs"]
mod words;
mod writer;

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pasamanos_proto::model::{
    AgentName, AuditAnchor, CommandName, FarmId, FeederId, FeederName, PageRequest, Reason,
};
use pasamanos_proto::pb;
use sqlx::pool::PoolConnection;
use sqlx::{Acquire as _, SqlitePool};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use chain::{AuditFault, AuditReport, Chain, parse_head, verify_export};
pub use open::Options;

use crate::domain::ports::{
    AcceptError, Farm, Ingest, IngestError, Ingested, NewCommand, NewFarm, NewResolution,
    OpenError, OpenSession, Page, Resolved, SessionOpened, Store, StoreError, StoredCommand,
    StoredFarm, StoredVersion,
};
use driver::Db;
use queue::{Lost, Patience, Queue};
use ticket::Pending;
use tx::Write;

/// A person waits.
const PERSON: Patience =
    Patience { taken: Duration::from_secs(2), answered: Duration::from_secs(2) };
/// An agent waits; in a reconnect storm, behind a thousand others.
const AGENT: Patience =
    Patience { taken: Duration::from_secs(5), answered: Duration::from_secs(10) };

/// The store over one `SQLite` file.
pub struct SqliteStore {
    read: SqlitePool,
    queue: Queue,
    pending: Arc<Pending>,
    commits: Arc<AtomicU64>,
    tasks: TaskTracker,
    stopping: CancellationToken,
    /// Held for as long as this process may write.
    _lock: Option<File>,
}

impl SqliteStore {
    /// How many durable commits were made.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Takes no more writes, does those that are queued, and closes the file.
    pub async fn close(&self) {
        self.stopping.cancel();
        self.tasks.wait().await;
        self.read.close().await;
    }

    /// Walks an audit chain; with `kept`, a head that was kept outside, which it must still hold.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a farm.
    pub async fn verify_audit(
        &self,
        chain: &Chain,
        kept: Option<AuditAnchor>,
    ) -> anyhow::Result<AuditReport> {
        let mut conn = self.reader().await?;
        let mut snapshot = conn.begin().await?;
        chain::walk(&mut snapshot, chain, kept, |_| Ok(())).await
    }

    /// Writes an audit chain out, a record a line, the head last; the same chain gives the same bytes.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a farm; if it cannot be written.
    pub async fn export_audit(
        &self,
        chain: &Chain,
        out: &mut (impl io::Write + Send),
    ) -> anyhow::Result<AuditReport> {
        let mut conn = self.reader().await?;
        let mut snapshot = conn.begin().await?;
        chain::export(&mut snapshot, chain, out).await
    }

    async fn reader(&self) -> Result<PoolConnection<Db>, StoreError> {
        Ok(self.read.acquire().await?)
    }

    /// A write that must not be lost with its caller. One that nobody can tell of is safe to
    /// repeat: each finds out what is there.
    async fn write<W: Write>(&self, write: W, patience: Patience) -> Result<W::Out, W::Err> {
        let lost = match self.queue.submit::<W>(write, None, patience).await {
            Ok(result) => return result,
            Err(lost) => lost,
        };
        let cause = match lost {
            Lost::NotTaken => anyhow::anyhow!("the writer did not come to it"),
            Lost::Unknown => anyhow::anyhow!("the writer did not answer"),
            Lost::Failed(cause) => cause,
        };
        Err(StoreError::Unavailable(cause).into())
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn add_farm(&self, farm: NewFarm) -> Result<bool, StoreError> {
        self.write(admin::AddFarm(farm), PERSON).await
    }

    async fn add_agent(&self, agent: AgentName, now_ms: i64) -> Result<bool, StoreError> {
        self.write(admin::AddAgent { agent, now_ms }, PERSON).await
    }

    async fn farms(&self) -> Result<Vec<Farm>, StoreError> {
        read::farms(&mut *self.reader().await?).await
    }

    async fn farm(&self, farm: &FarmId) -> Result<Option<StoredFarm>, StoreError> {
        let mut conn = self.reader().await?;
        let mut snapshot = conn.begin().await?;
        read::whole_farm(&mut snapshot, farm).await
    }

    async fn open_session(&self, hello: OpenSession) -> Result<SessionOpened, OpenError> {
        self.write(session::Open(hello), AGENT).await
    }

    async fn current_epoch(&self, agent: &AgentName) -> Result<i64, StoreError> {
        Ok(read::epoch(&mut *self.reader().await?, agent).await?.unwrap_or(0))
    }

    async fn close_session(
        &self,
        agent: &AgentName,
        epoch: i64,
        now_ms: i64,
    ) -> Result<Vec<StoredCommand>, StoreError> {
        self.write(session::Close { agent: agent.clone(), epoch, now_ms }, AGENT).await
    }

    async fn close_all_sessions(&self, now_ms: i64) -> Result<u64, StoreError> {
        self.write(session::CloseAll { now_ms }, AGENT).await
    }

    async fn accept(
        &self,
        commands: Vec<NewCommand>,
        patience: Duration,
    ) -> Result<Vec<StoredCommand>, AcceptError> {
        let names = commands.iter().map(|c| c.name.clone()).collect();
        let pending = self.pending.begin(names);
        let patience = Patience { taken: patience, answered: patience.max(PERSON.answered) };
        match self.queue.submit(accept::Accept(commands), Some(pending), patience).await {
            Ok(result) => result,
            Err(Lost::NotTaken) => Err(AcceptError::NotTaken),
            Err(Lost::Unknown) => Err(AcceptError::Unknown),
            Err(Lost::Failed(cause)) => Err(StoreError::Unavailable(cause).into()),
        }
    }

    async fn outbox(
        &self,
        agent: &AgentName,
        epoch: i64,
        above: i64,
    ) -> Result<Vec<StoredCommand>, StoreError> {
        read::outbox(&mut *self.reader().await?, agent, epoch, above).await
    }

    async fn ingest(
        &self,
        agent: &AgentName,
        epoch: i64,
        items: &[Ingest],
        now_ms: i64,
    ) -> Result<Vec<Ingested>, IngestError> {
        let reports =
            ingest::Reports { agent: agent.clone(), epoch, items: items.to_vec(), now_ms };
        self.write(reports, AGENT).await
    }

    async fn doubt(
        &self,
        commands: &[CommandName],
        reason: Reason,
        now_ms: i64,
    ) -> Result<Vec<StoredCommand>, StoreError> {
        self.write(session::Doubt { commands: commands.to_vec(), reason, now_ms }, AGENT).await
    }

    async fn resolve(&self, resolution: NewResolution) -> Result<Resolved, StoreError> {
        self.write(admin::Resolve(resolution), PERSON).await
    }

    async fn command(&self, name: &CommandName) -> Result<Option<StoredCommand>, StoreError> {
        // Asked before the read: what was not pending then and is not there had not been accepted.
        let pending = self.pending.has(name);
        if let Some(found) = read::command(&mut *self.reader().await?, name).await? {
            return Ok(Some(found));
        }
        if !pending {
            return Ok(None);
        }
        if !self.pending.settled(name, PERSON.answered).await {
            let cause = anyhow::anyhow!("the acceptance of {name} has not ended");
            return Err(StoreError::Unavailable(cause));
        }
        read::command(&mut *self.reader().await?, name).await
    }

    async fn commands(
        &self,
        farm: &FarmId,
        feeder: Option<&FeederId>,
        page: &PageRequest,
    ) -> Result<Page<StoredCommand>, StoreError> {
        pages::commands(&mut *self.reader().await?, farm, feeder, page).await
    }

    async fn versions(
        &self,
        feeder: &FeederName,
        page: &PageRequest,
    ) -> Result<Page<StoredVersion>, StoreError> {
        pages::versions(&mut *self.reader().await?, feeder, page).await
    }

    async fn doses(
        &self,
        farm: &FarmId,
        feeder: Option<&FeederId>,
        page: &PageRequest,
    ) -> Result<Page<pb::Dose>, StoreError> {
        pages::doses(&mut *self.reader().await?, farm, feeder, page).await
    }
}
