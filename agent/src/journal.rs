//! The agent's durable memory: `SQLite`, write-ahead log, `synchronous=FULL`. One task owns the one
//! connection. What is committed lasts before it is answered; what waits together shares a transaction
//! and its fsync.

mod apply;
mod change;
mod known;
mod load;
mod owner;
mod script;
mod steady;

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;

use pasamanos_faults::planted;
use pasamanos_proto::model::{AuditAnchor, CommandName, CommandState};
use pasamanos_proto::pb;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

pub(crate) use self::change::{Change, Entry, EnvelopeEntry, HoldRow, LooseMarks, Mark, SlotUse};
pub(crate) use self::load::{Loaded, LoadedFeeder};
use self::owner::Owner;
pub(crate) use self::steady::Steady;
use crate::clock::Clock;

/// Why the journal could not do what it was asked. Nothing of the transaction was kept.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another agent holds it.
    #[error("{}: another agent runs on this data directory; stop it first", .0.display())]
    Locked(PathBuf),
    /// A file could not be made or opened.
    #[error("{}: {}", .0.display(), .1)]
    File(PathBuf, std::io::Error),
    /// The database refused.
    #[error("journal: {0}")]
    Database(#[from] sqlx::Error),
    /// Its tables could not be made.
    #[error("journal: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// It holds what this agent cannot read.
    #[error("journal: {0}")]
    Content(String),
    /// Its task has ended.
    #[error("the journal is closed")]
    Closed,
}

/// A handle to the journal's owner task.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    jobs: mpsc::Sender<Job>,
    high_water: watch::Receiver<i64>,
    clock: Clock,
    incarnation: Arc<str>,
    #[cfg(test)]
    broken: Arc<std::sync::atomic::AtomicBool>,
}

/// What the server has not acknowledged.
#[derive(Debug)]
pub(crate) struct Unacked {
    /// In the order in which they were journaled.
    pub entries: Vec<Entry>,
    /// The place of the server's audit chain that holds all that it acknowledged; `None` if it told
    /// none.
    pub anchor: Option<AuditAnchor>,
}

type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

#[derive(Debug)]
enum Job {
    Commit(Vec<Change>, Reply<()>),
    Lazily(Lazy),
    Lookup(CommandName, Reply<Option<Entry>>),
    Unacked(Reply<Unacked>),
    Records { after: i64, max: usize, reply: Reply<Vec<pb::Record>> },
    Oldest(Reply<i64>),
    Close(oneshot::Sender<()>),
}

/// What may be lost and is done with the next transaction: the server repeats it.
#[derive(Debug)]
enum Lazy {
    Acked(CommandName, CommandState, Option<AuditAnchor>),
    RecordsThrough(i64),
}

/// How many jobs may wait; whoever asks then waits for room.
const JOBS: usize = 64;

impl Journal {
    /// Opens or makes the journal in the directory and starts its owner on the tracker.
    ///
    /// # Errors
    /// If another agent holds it, or it cannot be read.
    pub(crate) async fn open(
        dir: &Path,
        clock: &Clock,
        tasks: &TaskTracker,
    ) -> Result<(Self, Loaded), JournalError> {
        let _still = clock.still();
        std::fs::create_dir_all(dir).map_err(|e| JournalError::File(dir.into(), e))?;
        let lock = lock(&dir.join("journal.lock"))?;
        let options = SqliteConnectOptions::from_str("sqlite://")?
            .filename(dir.join("journal.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("cache_size", "-512")
            .disable_statement_logging();
        let mut conn = SqliteConnection::connect_with(&options).await?;
        sqlx::migrate!("./migrations").run(&mut conn).await?;
        let loaded = load::all(&mut conn, clock).await?;
        let (jobs, waiting) = mpsc::channel(JOBS);
        let (mark, high_water) = watch::channel(loaded.record_high_water);
        let incarnation: Arc<str> = loaded.incarnation.as_str().into();
        let known = load::names(&mut conn).await?;
        let owner = Owner::new(conn, known, mark, loaded.steady.clone(), lock);
        tasks.spawn(owner.run(waiting));
        let clock = clock.clone();
        let journal = Self {
            jobs,
            high_water,
            clock,
            incarnation,
            #[cfg(test)]
            broken: Arc::default(),
        };
        Ok((journal, loaded))
    }

    /// From now on it refuses every write, as on a full disk; or no longer.
    #[cfg(test)]
    pub(crate) fn set_broken(&self, broken: bool) {
        self.broken.store(broken, std::sync::atomic::Ordering::SeqCst);
    }

    /// Makes all of it durable in one transaction, or none of it.
    ///
    /// # Errors
    /// If it could not.
    pub(crate) async fn commit(&self, changes: Vec<Change>) -> Result<(), JournalError> {
        if changes.is_empty() {
            return Ok(());
        }
        #[cfg(test)]
        if self.broken.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(JournalError::Content("the disk is full".into()));
        }
        self.ask(|reply| Job::Commit(changes, reply)).await
    }

    /// The server has the command's outcome for good, at this place of its audit chain or before it.
    /// Lost with a crash: then it says so again.
    pub(crate) async fn acked(
        &self,
        name: CommandName,
        state: CommandState,
        anchor: Option<AuditAnchor>,
    ) {
        let _closed = self.jobs.send(Job::Lazily(Lazy::Acked(name, state, anchor))).await;
    }

    /// The server has the records up to this one for good.
    pub(crate) async fn records_acked(&self, through: i64) {
        let _closed = self.jobs.send(Job::Lazily(Lazy::RecordsThrough(through))).await;
    }

    /// The command of that name, if it was journaled.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) async fn lookup(&self, name: &CommandName) -> Result<Option<Entry>, JournalError> {
        self.ask(|reply| Job::Lookup(name.clone(), reply)).await
    }

    /// Every journaled command that the server has not acknowledged, and how far it acknowledged.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(crate) async fn unacked(&self) -> Result<Unacked, JournalError> {
        self.ask(Job::Unacked).await
    }

    /// The next records after that sequence.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(crate) async fn records(
        &self,
        after: i64,
        max: usize,
    ) -> Result<Vec<pb::Record>, JournalError> {
        self.ask(|reply| Job::Records { after, max, reply }).await
    }

    /// The lowest record held; 0 if none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) async fn oldest_record(&self) -> Result<i64, JournalError> {
        self.ask(Job::Oldest).await
    }

    /// The highest record sequence ever given; changes with each new record.
    pub(crate) fn high_water(&self) -> watch::Receiver<i64> {
        self.high_water.clone()
    }

    /// Which journal this is.
    pub(crate) fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// Writes what was left to be done and ends the owner.
    pub(crate) async fn close(&self) {
        let _still = self.clock.still();
        let (reply, done) = oneshot::channel();
        if self.jobs.send(Job::Close(reply)).await.is_ok() {
            let _ended = done.await;
        }
    }

    async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, JournalError> {
        let _still = self.clock.still();
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).await.map_err(|_| JournalError::Closed)?;
        answer.await.map_err(|_| JournalError::Closed)?
    }
}

fn lock(path: &Path) -> Result<File, JournalError> {
    let failed = |e| JournalError::File(path.into(), e);
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) if planted!("agent-journal-unlocked") => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(JournalError::Locked(path.into())),
        Err(std::fs::TryLockError::Error(e)) => Err(failed(e)),
    }
}
