//! The audit chain: one a farm and one of the platform, its records committed with what they tell of,
//! each bearing the hash of the one before.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use pasamanos_proto::model::{AuditAnchor, FarmId};
use sha2::{Digest as _, Sha256};
use sqlx::{Either, Executor as _, QueryBuilder, Row as _};

use super::driver::{Conn, Db, Row, for_update};
use super::tx::{Tx, broken};
use crate::domain::ports::StoreError;

/// SHA-256.
pub type Hash = [u8; 32];

/// What a record tells.
#[derive(Clone)]
pub struct Entry {
    /// What happened: `accepted`, `settled`, `resolved`, `adopted`, `farm_added`, `agent_added`.
    pub kind: &'static str,
    /// To what, a resource name.
    pub subject: String,
    /// By whom.
    pub actor: String,
    /// The rest.
    pub body: serde_json::Value,
    /// Wall clock.
    pub time_ms: i64,
}

/// The heads of farms and what one transaction adds to them: read and locked at first use, written once
/// by [`Ledger::commit`].
#[derive(Default)]
pub struct Ledger {
    farms: BTreeMap<FarmId, Head>,
}

struct Head {
    command_order: i64,
    seq: i64,
    hash: Hash,
    /// Records that are not written yet.
    records: Vec<Record>,
}

/// A record as it is stored.
pub struct Record {
    pub seq: i64,
    pub prev_hash: Hash,
    pub hash: Hash,
    pub kind: String,
    pub subject: String,
    pub actor: String,
    pub body: String,
    pub time_ms: i64,
}

impl Record {
    /// What follows record `seq` with hash `last`.
    fn next(seq: i64, last: Hash, e: Entry) -> Self {
        let mut record = Self {
            seq: seq + 1,
            prev_hash: last,
            hash: [0; 32],
            kind: e.kind.into(),
            subject: e.subject,
            actor: e.actor,
            body: e.body.to_string(),
            time_ms: e.time_ms,
        };
        record.hash = record.digest();
        record
    }

    /// Every field in a fixed order, texts with their length before them.
    fn digest(&self) -> Hash {
        let mut sha = Sha256::new();
        sha.update(self.prev_hash);
        sha.update(self.seq.to_be_bytes());
        sha.update(self.time_ms.to_be_bytes());
        for text in [&self.kind, &self.subject, &self.actor, &self.body] {
            sha.update((text.len() as u64).to_be_bytes());
            sha.update(text.as_bytes());
        }
        sha.finalize().into()
    }

    /// What is wrong with it as the successor of record `seq` with hash `last`.
    pub fn fault(&self, seq: i64, last: Hash) -> Option<&'static str> {
        if self.seq != seq + 1 {
            return Some("it is missing");
        }
        if self.prev_hash != last {
            return Some("it does not follow the one before");
        }
        (self.digest() != self.hash).then_some("it was changed")
    }
}

impl TryFrom<&Row> for Record {
    type Error = StoreError;

    fn try_from(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            seq: row.try_get("seq")?,
            prev_hash: hash(row, "prev_hash")?,
            hash: hash(row, "hash")?,
            kind: row.try_get("kind")?,
            subject: row.try_get("subject")?,
            actor: row.try_get("actor")?,
            body: row.try_get("body")?,
            time_ms: row.try_get("time_ms")?,
        })
    }
}

impl Ledger {
    async fn head(&mut self, conn: &mut Conn, farm: &FarmId) -> Result<&mut Head, StoreError> {
        if !self.farms.contains_key(farm) {
            let head = load_head(conn, farm).await?.ok_or(StoreError::NotFound)?;
            self.farms.insert(farm.clone(), head);
        }
        self.farms.get_mut(farm).ok_or(StoreError::NotFound)
    }

    /// The next insertion order of the farm's commands.
    pub async fn next_order(&mut self, conn: &mut Conn, farm: &FarmId) -> Result<i64, StoreError> {
        let head = self.head(conn, farm).await?;
        head.command_order += 1;
        Ok(head.command_order)
    }

    /// Chains a record to the farm's last.
    pub async fn append(
        &mut self,
        conn: &mut Conn,
        farm: &FarmId,
        e: Entry,
    ) -> Result<(), StoreError> {
        let head = self.head(conn, farm).await?;
        let record = Record::next(head.seq, head.hash, e);
        head.seq = record.seq;
        head.hash = record.hash;
        head.records.push(record);
        Ok(())
    }

    /// Where the farm's chain is, what this transaction added included.
    pub async fn anchor(
        &mut self,
        conn: &mut Conn,
        farm: &FarmId,
    ) -> Result<AuditAnchor, StoreError> {
        let head = self.head(conn, farm).await?;
        Ok(AuditAnchor { sequence: head.seq, hash: head.hash })
    }

    /// Writes records and heads, then commits. What goes last goes in one trip to the database's thread.
    /// The heads stay, for a writer that knows that nobody else wrote meanwhile.
    pub async fn commit(&mut self, conn: &mut Conn) -> Result<(), CommitError> {
        // Rows a statement.
        const ROWS: usize = 8;
        let mut last: Option<(QueryBuilder<Db>, usize)> = None;
        for (farm, head) in &mut self.farms {
            let records = std::mem::take(&mut head.records);
            for rows in records.chunks(ROWS) {
                run(conn, last.take()).await?;
                last = Some((insert(farm, rows), 1));
            }
            let Some((script, statements)) = &mut last else { continue };
            if !records.is_empty() {
                script.push("; UPDATE farm_heads SET command_order = ");
                script.push_bind(head.command_order).push(", audit_seq = ").push_bind(head.seq);
                script.push(", audit_hash = ").push_bind(head.hash.to_vec());
                script.push(" WHERE farm = ").push_bind(farm.to_string());
                *statements += 1;
            }
        }
        let (mut script, statements) = last.unwrap_or((QueryBuilder::new(""), 0));
        script.push(if statements == 0 { "COMMIT" } else { "; COMMIT" });
        match run(conn, Some((script, statements))).await {
            Err(CommitError::Work(error, done)) if done == statements => {
                Err(CommitError::Commit(error))
            }
            other => other,
        }
    }
}

/// Why a commit failed.
pub enum CommitError {
    /// Before the commit itself, after so many statements: nothing stays.
    Work(sqlx::Error, usize),
    /// The commit itself.
    Commit(sqlx::Error),
}

fn insert(farm: &FarmId, rows: &[Record]) -> QueryBuilder<Db> {
    let mut insert = QueryBuilder::<Db>::new(
        "INSERT INTO audit
             (farm, seq, prev_hash, hash, kind, subject, actor, body, time_ms) ",
    );
    insert.push_values(rows, |mut row, r| {
        row.push_bind(farm.to_string())
            .push_bind(r.seq)
            .push_bind(r.prev_hash.to_vec())
            .push_bind(r.hash.to_vec())
            .push_bind(r.kind.clone())
            .push_bind(r.subject.clone())
            .push_bind(r.actor.clone())
            .push_bind(r.body.clone())
            .push_bind(r.time_ms);
    });
    insert
}

/// Runs a script, counting the statements that were done.
async fn run(
    conn: &mut Conn,
    script: Option<(QueryBuilder<Db>, usize)>,
) -> Result<(), CommitError> {
    let Some((mut script, _)) = script else { return Ok(()) };
    let mut steps = conn.fetch_many(script.build());
    let mut done = 0;
    while let Some(step) = steps.next().await {
        match step {
            Ok(Either::Left(_)) => done += 1,
            Ok(Either::Right(_)) => {}
            Err(error) => return Err(CommitError::Work(error, done)),
        }
    }
    Ok(())
}

/// Chains a record to the platform's last. Seldom, so its head is read and written each time.
pub async fn append_to_platform(tx: &mut Tx<'_>, e: Entry) -> Result<(), StoreError> {
    let first = sqlx::query(
        "INSERT INTO platform_head (id, audit_seq, audit_hash) VALUES (1, 0, $1)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(vec![0_u8; 32]);
    tx.execute(first).await?;
    let head = sqlx::query(concat!(
        "SELECT audit_seq, audit_hash FROM platform_head WHERE id = 1",
        for_update!()
    ))
    .fetch_one(tx.conn())
    .await?;
    let r = Record::next(head.try_get("audit_seq")?, hash(&head, "audit_hash")?, e);
    let insert = sqlx::query(
        "INSERT INTO platform_audit
             (seq, prev_hash, hash, kind, subject, actor, body, time_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(r.seq)
    .bind(r.prev_hash.to_vec())
    .bind(r.hash.to_vec())
    .bind(r.kind)
    .bind(r.subject)
    .bind(r.actor)
    .bind(r.body)
    .bind(r.time_ms);
    tx.execute(insert).await?;
    let update =
        sqlx::query("UPDATE platform_head SET audit_seq = $1, audit_hash = $2 WHERE id = 1")
            .bind(r.seq)
            .bind(r.hash.to_vec());
    tx.execute(update).await.map(drop)
}

async fn load_head(conn: &mut Conn, farm: &FarmId) -> Result<Option<Head>, StoreError> {
    let row = sqlx::query(concat!(
        "SELECT command_order, audit_seq, audit_hash FROM farm_heads WHERE farm = $1",
        for_update!()
    ))
    .bind(farm.to_string())
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Head {
        command_order: row.try_get("command_order")?,
        seq: row.try_get("audit_seq")?,
        hash: hash(&row, "audit_hash")?,
        records: Vec::new(),
    }))
}

/// Reads a hash.
pub fn hash(row: &Row, column: &str) -> Result<Hash, StoreError> {
    let bytes: Vec<u8> = row.try_get(column)?;
    bytes.try_into().map_err(|_| broken(format_args!("{column} is not 32 bytes")))
}

/// Whether a farm's chain, as it is committed, holds this place. One that was put back, or that went
/// another way since, does not.
pub async fn holds(
    conn: &mut Conn,
    farm: &FarmId,
    anchor: &AuditAnchor,
) -> Result<bool, StoreError> {
    if anchor.sequence == 0 {
        return Ok(true);
    }
    let row = sqlx::query("SELECT hash FROM audit WHERE farm = $1 AND seq = $2")
        .bind(farm.to_string())
        .bind(anchor.sequence)
        .fetch_optional(conn)
        .await?;
    row.map_or(Ok(false), |row| Ok(hash(&row, "hash")? == anchor.hash))
}
