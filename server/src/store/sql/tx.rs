//! A transaction as a write sees it, and what a write is.

use async_trait::async_trait;
use pasamanos_proto::model::{AuditAnchor, FarmId};

use super::audit::{Entry, Ledger};
use super::driver::{Conn, Row, Statement};
use super::error::Cause;
use crate::domain::ports::StoreError;

/// One durable change. It may run more than once, and only its last run counts: a group that fails
/// is taken apart and each write is run again, alone.
#[async_trait]
pub trait Write: Send + 'static {
    /// What it answers.
    type Out: Send + 'static;
    /// Why it refuses or fails.
    type Err: Cause + From<StoreError> + Send + 'static;

    /// Does it. An error after the first statement that wrote undoes all of it.
    async fn run(&mut self, tx: &mut Tx<'_>) -> Result<Self::Out, Self::Err>;
}

/// An open transaction.
pub struct Tx<'c> {
    conn: &'c mut Conn,
    ledger: &'c mut Ledger,
    wrote: bool,
}

impl<'c> Tx<'c> {
    /// A write's view of the open transaction on `conn`.
    pub fn new(conn: &'c mut Conn, ledger: &'c mut Ledger) -> Self {
        Self { conn, ledger, wrote: false }
    }

    /// Whether anything was written through this view.
    pub fn wrote(&self) -> bool {
        self.wrote
    }

    /// The connection, for reading.
    pub fn conn(&mut self) -> &mut Conn {
        self.conn
    }

    /// Runs a statement that writes; answers how many rows it touched.
    pub async fn execute(&mut self, statement: Statement) -> Result<u64, StoreError> {
        self.wrote = true;
        Ok(statement.execute(&mut *self.conn).await?.rows_affected())
    }

    /// Runs a statement that may write one row and return it. Without a row it wrote nothing.
    pub async fn insert(&mut self, statement: Statement) -> Result<Option<Row>, StoreError> {
        let row = statement.fetch_optional(&mut *self.conn).await?;
        self.wrote |= row.is_some();
        Ok(row)
    }

    /// The next insertion order of the farm's commands. One that is not used is left out.
    pub async fn next_order(&mut self, farm: &FarmId) -> Result<i64, StoreError> {
        self.ledger.next_order(self.conn, farm).await
    }

    /// Adds a record to the farm's audit chain.
    pub async fn audit(&mut self, farm: &FarmId, entry: Entry) -> Result<(), StoreError> {
        self.wrote = true;
        self.ledger.append(self.conn, farm, entry).await
    }

    /// Where the farm's audit chain will be once this transaction is committed.
    pub async fn anchor(&mut self, farm: &FarmId) -> Result<AuditAnchor, StoreError> {
        self.ledger.anchor(self.conn, farm).await
    }
}

/// A fault of ours that no row should have caused.
pub fn broken(what: impl std::fmt::Display) -> StoreError {
    StoreError::Broken(anyhow::anyhow!("{what}"))
}
