//! Opening the file: one server at a time, migrated, durable.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context as _;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Row as _};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::SqliteStore;
use super::audit::Ledger;
use super::driver::Conn;
use super::queue::Queue;
use super::ticket::Pending;
use super::tx::broken;
use super::writer::Writer;
use crate::domain::ports::StoreError;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// How the store is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Refuse if another server has the file. A server asks for it, a tool beside it does not.
    pub exclusive: bool,
    /// Connections that read.
    pub readers: u32,
    /// Places in the writer's queue.
    pub queue: usize,
    /// The most writes in one commit.
    pub group: usize,
    /// For tests: how much longer each commit takes.
    pub commit_delay: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            exclusive: false,
            readers: 4,
            queue: 1_024,
            group: 128,
            commit_delay: Duration::ZERO,
        }
    }
}

impl SqliteStore {
    /// Opens a database file beside whoever else has it: for tools, and for tests.
    ///
    /// # Errors
    /// As [`SqliteStore::open_with`].
    pub async fn open(file: &Path) -> Result<Self, StoreError> {
        Self::open_with(file, Options::default()).await
    }

    /// Opens a database file, making and migrating what is missing.
    ///
    /// # Errors
    /// If it cannot be made, another server has it, or it is not ours.
    pub async fn open_with(file: &Path, options: Options) -> Result<Self, StoreError> {
        let lock = prepare(file, options.exclusive).map_err(StoreError::Unavailable)?;
        let file = SqliteConnectOptions::new()
            .filename(file)
            .busy_timeout(Duration::from_secs(1))
            .foreign_keys(true)
            .disable_statement_logging();
        let writing = file
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("cache_size", "-16000");
        let mut conn = writing.connect().await?;
        MIGRATIONS.run(&mut conn).await.map_err(not_migrated)?;
        check_durable(&mut conn).await?;
        let read = SqlitePoolOptions::new()
            .max_connections(options.readers)
            // A file does not go away: no question to it before each read.
            .test_before_acquire(false)
            .acquire_timeout(Duration::from_millis(1_500))
            .connect_with(file.read_only(true))
            .await?;

        let (queue, items) = Queue::new(options.queue);
        let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
        let commits = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            options: writing,
            conn: Some(conn),
            queue: items,
            commits: Arc::clone(&commits),
            group: options.group,
            commit_delay: options.commit_delay,
            stopping: stopping.clone(),
            in_doubt: Vec::new(),
            heads: Ledger::default(),
            version: None,
        };
        // A thread of its own: it hands each statement to SQLite's thread and waits, and two threads
        // that wait for each other cost less than a runtime that looks for other work in between.
        let (handle, running) = (Handle::current(), tasks.token());
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                handle.block_on(writer.run());
                drop(running);
            })
            .map_err(|e| StoreError::Unavailable(e.into()))?;
        tasks.close();
        let pending = Arc::new(Pending::default());
        Ok(Self { read, queue, pending, commits, tasks, stopping, _lock: lock })
    }
}

/// Makes the directory and takes the server's lock beside the file.
fn prepare(file: &Path, exclusive: bool) -> anyhow::Result<Option<File>> {
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    if !exclusive {
        return Ok(None);
    }
    let path = file.with_extension("lock");
    let lock = File::create(&path).with_context(|| format!("{}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => anyhow::bail!("another server uses {}", file.display()),
        Err(TryLockError::Error(e)) => Err(e).with_context(|| format!("{}", path.display())),
    }
}

fn not_migrated(e: MigrateError) -> StoreError {
    match e {
        MigrateError::Execute(e) => e.into(),
        e => {
            StoreError::Broken(anyhow::Error::new(e).context("the database is of another release"))
        }
    }
}

/// What was answered must survive a power cut: asked of the file, not assumed.
async fn check_durable(conn: &mut Conn) -> Result<(), StoreError> {
    let row = sqlx::query("PRAGMA journal_mode").fetch_one(&mut *conn).await?;
    let mode: String = row.try_get(0)?;
    let row = sqlx::query("PRAGMA synchronous").fetch_one(conn).await?;
    let level: i64 = row.try_get(0)?;
    match (mode.as_str(), level) {
        ("wal", 2) => Ok(()),
        _ => Err(broken(format_args!("journal_mode is {mode}, synchronous is {level}"))),
    }
}
