//! The one task that writes. It commits together what queued up while the last commit was syncing:
//! one fsync for all, nothing lost when there is only one.
//!
//! A write that fails after it wrote takes its group apart: everything is rolled back and each
//! write runs again in a transaction of its own, so that a fault undoes only its own work and the
//! common case pays for no savepoint. When the database itself fails, nothing of the group stays,
//! nothing more is taken, and the writer reopens its connection until a commit succeeds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::audit::{CommitError, Ledger};
use super::driver::Conn;
use super::queue::{Item, Lost, Ran};
use super::ticket::Ticket;
use super::tx::Tx;
use crate::domain::ports::StoreError;

/// Between two attempts to reach a database that failed.
const RETRY: Duration = Duration::from_millis(200);

/// The writer's own state.
pub struct Writer {
    /// How to reach the database.
    pub options: SqliteConnectOptions,
    /// The one connection that writes; `None` while the database is not known to take commits.
    pub conn: Option<Conn>,
    /// The queue.
    pub queue: mpsc::Receiver<Item>,
    /// How many commits succeeded.
    pub commits: Arc<AtomicU64>,
    /// The most writes in one commit.
    pub group: usize,
    /// For tests: how much longer each commit takes.
    pub commit_delay: Duration,
    /// No more is queued; what is, is done.
    pub stopping: CancellationToken,
    /// What a failed commit may have left; settled by the next one that succeeds.
    pub in_doubt: Vec<Arc<Ticket>>,
    /// Heads of farms as the last commit left them.
    pub heads: Ledger,
    /// The file's version at the last transaction's begin: another one means that somebody else wrote,
    /// and the heads are read anew.
    pub version: Option<i64>,
}

impl Writer {
    /// Runs until the store is closed and the queue is empty.
    pub async fn run(mut self) {
        loop {
            let stopping = self.stopping.clone();
            tokio::select! {
                biased;
                () = stopping.cancelled(), if !self.queue.is_closed() => self.queue.close(),
                item = self.queue.recv() => match item {
                    Some(item) => self.serve(item).await,
                    None => break,
                }
            }
        }
        if let Some(conn) = self.conn.take()
            && let Err(error) = conn.close().await
        {
            tracing::warn!(%error, "the write connection did not close cleanly");
        }
    }

    /// Waits for the database, then serves this item and what queued up behind it.
    async fn serve(&mut self, first: Item) {
        while let Err(error) = self.begin().await {
            if first.ticket.is_over() || self.stopping.is_cancelled() {
                first.ticket.withdraw();
                tracing::warn!(%error, "the database takes no writes");
                return;
            }
            sleep(RETRY).await;
        }
        self.group(first).await;
    }

    /// Runs what queued up in the open transaction and commits it.
    async fn group(&mut self, first: Item) {
        let Some(conn) = self.conn.as_mut() else { return };
        let (mut ledger, mut group, mut wrote) =
            (std::mem::take(&mut self.heads), Vec::new(), false);
        let mut next = Some(first);
        while let Some(mut item) = next {
            if item.ticket.take() {
                let mut tx = Tx::new(conn, &mut ledger);
                let ran = item.job.run(&mut tx).await;
                wrote |= tx.wrote();
                group.push(item);
                match ran {
                    Ran::Clean => {}
                    Ran::Dirty => return self.take_apart(group).await,
                    Ran::DatabaseGone(cause) => return self.give_up(group, &cause).await,
                }
            }
            next = if group.len() < self.group { self.queue.try_recv().ok() } else { None };
        }
        self.commit(group, ledger, wrote).await;
    }

    /// Makes a group durable, then answers it.
    async fn commit(&mut self, group: Vec<Item>, mut ledger: Ledger, wrote: bool) {
        let Some(conn) = self.conn.as_mut() else { return };
        if !self.commit_delay.is_zero() {
            sleep(self.commit_delay).await;
        }
        match ledger.commit(conn).await {
            Ok(()) => self.heads = ledger,
            Err(CommitError::Work(error, _)) => {
                return self.give_up(group, &error.into()).await;
            }
            Err(CommitError::Commit(error)) => return self.commit_failed(group, error).await,
        }
        if wrote {
            self.commits.fetch_add(1, Ordering::Relaxed);
        }
        for item in group {
            item.ticket.ended();
            item.job.answer();
        }
    }

    /// Runs each write of a group alone: one of them failed after it wrote.
    async fn take_apart(&mut self, group: Vec<Item>) {
        if let Err(error) = self.rollback().await {
            return self.give_up(group, &error.into()).await;
        }
        let mut rest = group.into_iter();
        while let Some(mut item) = rest.next() {
            let begun = self.begin().await;
            let (Ok(()), Some(conn)) = (begun, self.conn.as_mut()) else {
                let all = std::iter::once(item).chain(rest).collect();
                return self.give_up(all, &anyhow::anyhow!("the transaction did not begin")).await;
            };
            let mut ledger = Ledger::default();
            let mut tx = Tx::new(conn, &mut ledger);
            let ran = item.job.run(&mut tx).await;
            let wrote = tx.wrote();
            match ran {
                Ran::Clean => self.commit(vec![item], ledger, wrote).await,
                Ran::Dirty if self.rollback().await.is_ok() => {
                    item.ticket.ended();
                    item.job.answer();
                }
                Ran::Dirty => {
                    self.give_up(vec![item], &anyhow::anyhow!("the rollback failed")).await;
                }
                Ran::DatabaseGone(cause) => self.give_up(vec![item], &cause).await,
            }
        }
    }

    async fn rollback(&mut self) -> Result<(), StoreError> {
        if let Some(conn) = self.conn.as_mut() {
            sqlx::query("ROLLBACK").execute(conn).await?;
        }
        Ok(())
    }

    /// The database failed before the commit: nothing of the group stays. Closing the connection
    /// ends its transaction.
    async fn give_up(&mut self, group: Vec<Item>, cause: &anyhow::Error) {
        tracing::error!(error = format!("{cause:#}"), writes = group.len(), "the database failed");
        if let Some(conn) = self.conn.take() {
            // Awaited, so that nothing of it is there when the callers are answered.
            let _ = conn.close().await;
        }
        for item in group {
            item.ticket.ended();
            item.job.lost(Lost::Failed(anyhow::anyhow!("{cause:#}")));
        }
    }

    /// The commit failed. If there was no room for its last frame, nothing was committed. Otherwise
    /// that frame may have reached the disk although its sync did not succeed: only the next commit
    /// that succeeds, over the same frames, ends that doubt.
    async fn commit_failed(&mut self, group: Vec<Item>, error: sqlx::Error) {
        if primary_code(&error) == Some(SQLITE_FULL) {
            return self.give_up(group, &error.into()).await;
        }
        tracing::error!(%error, writes = group.len(), "a commit failed");
        self.conn = None;
        for item in group {
            self.in_doubt.push(item.ticket);
            item.job.lost(Lost::Unknown);
        }
    }

    /// Opens a transaction, on a new connection if the old one failed.
    async fn begin(&mut self) -> Result<(), sqlx::Error> {
        if self.conn.is_none() {
            let mut conn = self.options.connect().await?;
            sqlx::query("UPDATE writer SET recoveries = recoveries + 1 WHERE id = 1")
                .execute(&mut conn)
                .await?;
            tracing::info!("the database takes writes again");
            self.conn = Some(conn);
            self.version = None;
            for ticket in self.in_doubt.drain(..) {
                ticket.ended();
            }
        }
        let Some(conn) = self.conn.as_mut() else { return Err(sqlx::Error::WorkerCrashed) };
        // One trip; the version is of the transaction's own snapshot.
        let begun = sqlx::query("BEGIN IMMEDIATE; PRAGMA data_version").fetch_one(conn).await;
        match begun {
            Ok(row) => {
                let version = row.try_get(0)?;
                if self.version.replace(version) != Some(version) {
                    self.heads = Ledger::default();
                }
                Ok(())
            }
            Err(error) => {
                // Another process writes: then the connection is sound.
                if primary_code(&error) != Some(SQLITE_BUSY) {
                    self.conn = None;
                }
                Err(error)
            }
        }
    }
}

const SQLITE_BUSY: i32 = 5;
const SQLITE_FULL: i32 = 13;

/// `SQLite`'s code without its extension.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<i32>().ok().map(|code| code & 0xff)
}
