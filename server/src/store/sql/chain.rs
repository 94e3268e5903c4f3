//! Walking an audit chain: checking it where it is stored, writing it out, and checking what was written.

use std::fmt;
use std::io::{BufRead, Write};

use anyhow::Context as _;
use pasamanos_proto::model::{AuditAnchor, FarmId};
use serde_json::{Value, json};
use sqlx::Row as _;

use super::audit::{self, Hash, Record};
use super::driver::{Conn, Row};
use super::words::{hex, unhex};
use crate::domain::ports::StoreError;

/// Whose chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chain {
    /// What is no farm's own.
    Platform,
    /// A farm's.
    Farm(FarmId),
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform => f.write_str("platform"),
            Self::Farm(farm) => f.write_str(&farm.name()),
        }
    }
}

/// Where a chain breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditFault {
    /// The first record that is not as it was written, or that is missing.
    pub seq: i64,
    /// What is wrong with it.
    pub what: &'static str,
}

/// What walking a chain found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// Records read.
    pub records: i64,
    /// The head's sequence.
    pub head_seq: i64,
    /// The head's hash, hex: an outside copy of it anchors the chain.
    pub head_hash: String,
    /// The first fault; `None` if the chain holds.
    pub fault: Option<AuditFault>,
}

impl AuditReport {
    /// Whether the chain holds.
    pub fn intact(&self) -> bool {
        self.fault.is_none()
    }
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records, head {}:{}", self.records, self.head_seq, self.head_hash)?;
        match &self.fault {
            None => write!(f, ": the chain holds"),
            Some(fault) => write!(f, ": record {}: {}", fault.seq, fault.what),
        }
    }
}

/// The records so far, and the first fault among them.
struct Walk {
    seq: i64,
    last: Hash,
    records: i64,
    kept: Option<AuditAnchor>,
    fault: Option<AuditFault>,
}

impl Walk {
    fn new(kept: Option<AuditAnchor>) -> Self {
        Self { seq: 0, last: [0; 32], records: 0, kept, fault: None }
    }

    fn record(&mut self, record: &Record) {
        self.records += 1;
        let what = record.fault(self.seq, self.last).or_else(|| {
            let other = |k: AuditAnchor| k.sequence == record.seq && k.hash != record.hash;
            self.kept.is_some_and(other).then_some("it is not the one that was kept")
        });
        if let Some(what) = what {
            self.fault.get_or_insert(AuditFault { seq: self.seq + 1, what });
        }
        (self.seq, self.last) = (record.seq, record.hash);
    }

    fn end(mut self, head: AuditAnchor) -> AuditReport {
        let kept = self.kept.map_or(0, |k| k.sequence);
        if (head.sequence, head.hash) != (self.seq, self.last) {
            let what =
                if head.sequence > self.seq { "it is missing" } else { "it is not the head's" };
            let seq = self.seq.min(head.sequence) + 1;
            self.fault.get_or_insert(AuditFault { seq, what });
        } else if kept > self.seq {
            self.fault.get_or_insert(AuditFault { seq: self.seq + 1, what: "it is missing" });
        }
        AuditReport {
            records: self.records,
            head_seq: head.sequence,
            head_hash: hex(&head.hash),
            fault: self.fault,
        }
    }
}

async fn head(conn: &mut Conn, chain: &Chain) -> Result<AuditAnchor, StoreError> {
    let row: Option<Row> = match chain {
        Chain::Farm(farm) => {
            sqlx::query("SELECT audit_seq, audit_hash FROM farm_heads WHERE farm = $1")
                .bind(farm.to_string())
                .fetch_optional(conn)
                .await?
        }
        Chain::Platform => {
            sqlx::query("SELECT audit_seq, audit_hash FROM platform_head WHERE id = 1")
                .fetch_optional(conn)
                .await?
        }
    };
    match (row, chain) {
        (Some(row), _) => Ok(AuditAnchor {
            sequence: row.try_get("audit_seq")?,
            hash: audit::hash(&row, "audit_hash")?,
        }),
        // Nothing was recorded yet.
        (None, Chain::Platform) => Ok(AuditAnchor::default()),
        (None, Chain::Farm(_)) => Err(StoreError::NotFound),
    }
}

/// Walks a chain from its first record to its head and hands each record on. Within one snapshot, or a
/// record that is written meanwhile looks like a fault. `kept`: a head that was kept outside, which the
/// chain must still hold.
///
/// # Errors
/// [`StoreError::NotFound`] without such a farm; what `each` fails with.
pub async fn walk(
    conn: &mut Conn,
    chain: &Chain,
    kept: Option<AuditAnchor>,
    mut each: impl FnMut(&Record) -> anyhow::Result<()> + Send,
) -> anyhow::Result<AuditReport> {
    const PAGE: i64 = 1_000;
    let head = head(conn, chain).await?;
    let mut walk = Walk::new(kept);
    let mut after = i64::MIN;
    loop {
        let page = match chain {
            Chain::Farm(farm) => sqlx::query(
                "SELECT seq, prev_hash, hash, kind, subject, actor, body, time_ms FROM audit
                 WHERE farm = $1 AND seq > $2 ORDER BY seq LIMIT $3",
            )
            .bind(farm.to_string()),
            Chain::Platform => sqlx::query(
                "SELECT seq, prev_hash, hash, kind, subject, actor, body, time_ms
                 FROM platform_audit WHERE $1 <> '' AND seq > $2 ORDER BY seq LIMIT $3",
            )
            .bind(chain.to_string()),
        };
        let rows =
            page.bind(after).bind(PAGE).fetch_all(&mut *conn).await.map_err(StoreError::from)?;
        let Some(newest) = rows.last() else { break };
        after = newest.try_get("seq")?;
        for row in &rows {
            let record = Record::try_from(row)?;
            walk.record(&record);
            each(&record)?;
        }
    }
    Ok(walk.end(head))
}

/// Writes a chain out: each record on a line of JSON, in order, then the head. The same chain gives the
/// same bytes.
///
/// # Errors
/// As [`walk`], and if it cannot be written.
pub async fn export(
    conn: &mut Conn,
    chain: &Chain,
    out: &mut (impl Write + Send),
) -> anyhow::Result<AuditReport> {
    let report = walk(conn, chain, None, |r| {
        let line = json!({
            "seq": r.seq,
            "time_ms": r.time_ms,
            "kind": r.kind,
            "subject": r.subject,
            "actor": r.actor,
            "body": r.body,
            "prev_hash": hex(&r.prev_hash),
            "hash": hex(&r.hash),
        });
        Ok(writeln!(out, "{line}")?)
    })
    .await?;
    let head = json!({
        "chain": chain.to_string(),
        "head_seq": report.head_seq,
        "head_hash": report.head_hash,
    });
    writeln!(out, "{head}")?;
    out.flush()?;
    Ok(report)
}

/// Checks what [`export`] wrote, without a database.
///
/// # Errors
/// Names the line that is none of an export, or says that its end is missing.
pub fn verify_export(file: impl BufRead, kept: Option<AuditAnchor>) -> anyhow::Result<AuditReport> {
    let mut walk = Walk::new(kept);
    let mut lines = file.lines().enumerate();
    while let Some((n, line)) = lines.next() {
        let at = || format!("line {}", n + 1);
        let line: Value = serde_json::from_str(&line.with_context(at)?).with_context(at)?;
        if line.get("head_seq").is_some() {
            anyhow::ensure!(lines.next().is_none(), "{}: there is more after the head", at());
            let head = AuditAnchor {
                sequence: number(&line, "head_seq").with_context(at)?,
                hash: digest(&line, "head_hash").with_context(at)?,
            };
            return Ok(walk.end(head));
        }
        walk.record(&read(&line).with_context(at)?);
    }
    anyhow::bail!("the head is missing: the file is not whole")
}

fn read(line: &Value) -> anyhow::Result<Record> {
    Ok(Record {
        seq: number(line, "seq")?,
        prev_hash: digest(line, "prev_hash")?,
        hash: digest(line, "hash")?,
        kind: text(line, "kind")?,
        subject: text(line, "subject")?,
        actor: text(line, "actor")?,
        body: text(line, "body")?,
        time_ms: number(line, "time_ms")?,
    })
}

fn number(line: &Value, key: &str) -> anyhow::Result<i64> {
    line[key].as_i64().with_context(|| format!("{key} is not a number"))
}

fn text(line: &Value, key: &str) -> anyhow::Result<String> {
    Ok(line[key].as_str().with_context(|| format!("{key} is not a text"))?.to_owned())
}

fn digest(line: &Value, key: &str) -> anyhow::Result<Hash> {
    unhex(&text(line, key)?).with_context(|| format!("{key} is not 32 bytes in hex"))
}

/// Reads a head as it is printed: `SEQ:HASH`.
///
/// # Errors
/// If it is none.
pub fn parse_head(text: &str) -> Result<AuditAnchor, String> {
    let anchor = text.split_once(':').and_then(|(sequence, hash)| {
        Some(AuditAnchor { sequence: sequence.parse().ok()?, hash: unhex(hash)? })
    });
    anchor.ok_or_else(|| format!("{text:?} is not SEQ:HASH, as audit verify prints it"))
}
