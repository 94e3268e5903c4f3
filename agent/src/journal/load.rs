//! Reads the journal: all of it at start, single rows later.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use pasamanos_proto::model::{
    AuditAnchor, CommandName, CommandOrder, CommandReport, FeederId, ObservedConfig, RobotId,
};
use pasamanos_proto::pb;
use prost::Message;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

use super::change::{Entry, EnvelopeEntry, HoldRow, LooseMarks, Mark, SlotUse};
use super::known::Known;
use super::script::Script;
use super::{JournalError, Steady, apply};
use crate::clock::Clock;
use crate::driver::{SlotOp, SlotResult};
use crate::ledger::Recall;

/// What the journal held when it was opened.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Which journal it is.
    pub incarnation: String,
    /// It was made just now: what the PLCs did before is not in it.
    pub fresh: bool,
    /// The epoch of the last session.
    pub last_epoch: i64,
    /// The highest record sequence ever given.
    pub record_high_water: i64,
    /// The farm's zone, if a server ever told.
    pub time_zone: Option<String>,
    /// The clock that does not step.
    pub steady: Steady,
    /// Robots that it knows.
    pub robots: BTreeMap<RobotId, LoadedRobot>,
    /// Feeders that it knows.
    pub feeders: BTreeMap<FeederId, LoadedFeeder>,
    /// Open intents, and outcomes in doubt, in the order in which they were journaled.
    pub unsettled: Vec<Entry>,
}

/// A robot as journaled.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoadedRobot {
    /// (epoch, sequence) of the last slot used.
    pub slot: Option<(u32, u32)>,
    /// The PLC's epoch as last read.
    pub plc_epoch: Option<u32>,
    /// The slot that was last read as consumed.
    pub consumed: Option<(u32, u32)>,
    /// What the PLC took unknown to the journal.
    pub recall: Recall,
}

/// A feeder as journaled.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoadedFeeder {
    /// Up to where its feed is in records.
    pub mark: Mark,
    /// Until then a hold bit may be a late write of ours, steady ms.
    pub late_hold_ms: i64,
    /// The portion found at the first inventory, mg.
    pub first_portion_mg: Option<i32>,
    /// Its last dose.
    pub last_dose: Option<pb::Dose>,
    /// Fed per day, mg.
    pub days: BTreeMap<String, i64>,
    /// Its envelope.
    pub envelope: Vec<EnvelopeEntry>,
    /// What holds it.
    pub holds: Vec<HoldRow>,
}

fn content(what: impl std::fmt::Display) -> JournalError {
    JournalError::Content(what.to_string())
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, JournalError> {
    text.parse().map_err(|_| content(format!("{text:?} cannot be read")))
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, JournalError> {
    M::decode(bytes).map_err(content)
}

fn u32_of(value: i64) -> Result<u32, JournalError> {
    u32::try_from(value).map_err(content)
}

pub(super) async fn all(
    conn: &mut SqliteConnection,
    clock: &Clock,
) -> Result<Loaded, JournalError> {
    let rows = sqlx::query("SELECT key, value FROM meta").fetch_all(&mut *conn).await?;
    let mut meta: BTreeMap<String, String> =
        rows.iter().map(|r| (r.get("key"), r.get("value"))).collect();
    let fresh = !meta.contains_key("incarnation");
    if fresh {
        let id = Uuid::new_v4().to_string();
        let mut script = Script::default();
        apply::meta(&mut script, "incarnation", &id);
        script.run(&mut *conn).await?;
        meta.insert("incarnation".into(), id);
    }
    let number = |key: &str| meta.get(key).map_or(Ok(0), |v| parse::<i64>(v));
    let last = match meta.get("steady").map(|s| s.splitn(3, ' ').collect::<Vec<_>>()).as_deref() {
        Some([steady, at, boot]) => Some((*boot, parse(at)?, parse(steady)?)),
        _ => None,
    };
    Ok(Loaded {
        fresh,
        last_epoch: number("last_epoch")?,
        record_high_water: number("record_high_water")?,
        steady: Steady::resume(clock, last),
        time_zone: meta.get("time_zone").filter(|z| !z.is_empty()).cloned(),
        incarnation: meta.remove("incarnation").unwrap_or_default(),
        robots: robots(conn).await?,
        feeders: feeders(conn).await?,
        unsettled: entries(conn, "state = 'INTENT' OR settled = 0 OR loose = 1").await?,
    })
}

async fn robots(
    conn: &mut SqliteConnection,
) -> Result<BTreeMap<RobotId, LoadedRobot>, JournalError> {
    let mut robots: BTreeMap<RobotId, LoadedRobot> = BTreeMap::new();
    for r in sqlx::query("SELECT * FROM robots").fetch_all(&mut *conn).await? {
        let epoch = u32_of(r.get("slot_epoch"))?;
        let sequence = u32_of(r.get("slot_sequence"))?;
        let plc_epoch = r.get::<Option<i64>, _>("plc_epoch").map(u32_of).transpose()?;
        let slot = (epoch != 0 || sequence != 0).then_some((epoch, sequence));
        let pair = |epoch, sequence| match (r.get(epoch), r.get(sequence)) {
            (Some(epoch), Some(sequence)) => {
                Ok::<_, JournalError>(Some((u32_of(epoch)?, u32_of(sequence)?)))
            }
            _ => Ok(None),
        };
        let through = pair("recalled_epoch", "recalled_sequence")?;
        let consumed = pair("consumed_epoch", "consumed_sequence")?;
        let gap = r.get::<i64, _>("gap") != 0;
        let recall = Recall { through, gap, ..Recall::default() };
        robots.insert(parse(r.get("robot"))?, LoadedRobot { slot, plc_epoch, consumed, recall });
    }
    for r in sqlx::query("SELECT * FROM recalled").fetch_all(conn).await? {
        let robot = robots.entry(parse(r.get("robot"))?).or_default();
        let token = u32_of(r.get("token"))?;
        let result = SlotResult {
            sequence: u32_of(r.get("sequence"))?,
            op: SlotOp::Dose,
            token,
            state: serde_json::from_str(r.get("state")).map_err(content)?,
            dispensed_mg: u32_of(r.get("dispensed_mg"))?,
        };
        robot.recall.doses.insert(token, (u32_of(r.get("epoch"))?, result));
    }
    Ok(robots)
}

async fn feeders(
    conn: &mut SqliteConnection,
) -> Result<BTreeMap<FeederId, LoadedFeeder>, JournalError> {
    let mut feeders: BTreeMap<FeederId, LoadedFeeder> = BTreeMap::new();
    for r in sqlx::query("SELECT * FROM feeders").fetch_all(&mut *conn).await? {
        let f = feeders.entry(parse(r.get("feeder"))?).or_default();
        f.mark = Mark {
            total_mg: r.get::<Option<i64>, _>("total_mg").map(i64::cast_unsigned),
            ahead_mg: r.get::<i64, _>("ahead_mg").cast_unsigned(),
            meal: r.get::<Option<i64>, _>("meal").map(u32_of).transpose()?,
        };
        f.late_hold_ms = r.get::<Option<i64>, _>("late_hold_ms").unwrap_or(0);
        f.first_portion_mg = r.get("first_portion_mg");
        f.last_dose = r.get::<Option<&[u8]>, _>("last_dose").map(decode).transpose()?;
    }
    for r in sqlx::query("SELECT * FROM days").fetch_all(&mut *conn).await? {
        let f = feeders.entry(parse(r.get("feeder"))?).or_default();
        f.days.insert(r.get("date"), r.get("mg"));
    }
    for r in sqlx::query("SELECT * FROM envelope ORDER BY id").fetch_all(&mut *conn).await? {
        let f = feeders.entry(parse(r.get("feeder"))?).or_default();
        let command = r.get::<Option<&str>, _>("command").map(parse).transpose()?;
        f.envelope.push(EnvelopeEntry {
            at_ms: r.get("at_ms"),
            mg: r.get("mg"),
            command,
            assumed: r.get::<i64, _>("assumed") != 0,
        });
    }
    for r in sqlx::query("SELECT * FROM holds").fetch_all(&mut *conn).await? {
        let feeder: FeederId = parse(r.get("feeder"))?;
        let source = i32::try_from(r.get::<i64, _>("source")).map_err(content)?;
        let source = pb::HoldSource::try_from(source).map_err(content)?;
        feeders.entry(feeder.clone()).or_default().holds.push(HoldRow {
            feeder,
            source,
            since_ms: r.get("since_ms"),
            author: r.get("author"),
            note: r.get("note"),
        });
    }
    Ok(feeders)
}

fn read_entry(r: &SqliteRow) -> Result<Entry, JournalError> {
    let frame: pb::CommandFrame = decode(r.get("frame"))?;
    let slot = match (r.get("slot_epoch"), r.get("slot_sequence"), r.get("slot_token")) {
        (Some(epoch), Some(sequence), Some(token)) => Some(SlotUse {
            epoch: u32_of(epoch)?,
            sequence: u32_of(sequence)?,
            token: u32_of(token)?,
        }),
        _ => None,
    };
    let report = match r.get::<Option<&[u8]>, _>("outcome") {
        Some(bytes) => {
            let update: pb::CommandUpdate = decode(bytes)?;
            Some(CommandReport::try_from(update).map_err(content)?)
        }
        None => None,
    };
    let newer = r.get::<Option<&[u8]>, _>("loose_newer").map(decode::<pb::FeederConfig>);
    let newer = newer.transpose()?;
    Ok(Entry {
        order: CommandOrder::try_from(frame).map_err(content)?,
        robot: parse(r.get("robot"))?,
        epoch: r.get("journaled_epoch"),
        slot,
        report,
        settled: r.get::<i64, _>("settled") != 0,
        loose: r.get::<i64, _>("loose") != 0,
        marks: LooseMarks {
            newer: newer.map(ObservedConfig::from),
            rewritten: r.get::<i64, _>("loose_rewritten") != 0,
            showed: r.get::<i64, _>("loose_showed") != 0,
        },
    })
}

async fn entries(
    conn: &mut SqliteConnection,
    condition: &'static str,
) -> Result<Vec<Entry>, JournalError> {
    let sql = format!("SELECT * FROM commands WHERE {condition} ORDER BY rowid");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(conn).await?;
    rows.iter().map(read_entry).collect()
}

pub(super) async fn unacked(conn: &mut SqliteConnection) -> Result<Vec<Entry>, JournalError> {
    entries(conn, "acked_ms IS NULL").await
}

/// The server's anchor. `None` if it acknowledged and told none: an older release does not.
pub(super) async fn anchor(
    conn: &mut SqliteConnection,
) -> Result<Option<AuditAnchor>, JournalError> {
    let told: Option<String> = sqlx::query_scalar("SELECT value FROM meta WHERE key = 'anchor'")
        .fetch_optional(&mut *conn)
        .await?;
    if let Some(told) = told {
        let Some((sequence, hash)) = told.split_once(' ') else { return Ok(None) };
        let hash: Vec<u8> = (0..hash.len() / 2)
            .map(|i| u8::from_str_radix(hash.get(2 * i..2 * i + 2).unwrap_or("-"), 16))
            .collect::<Result<_, _>>()
            .map_err(content)?;
        let anchor = pb::AuditAnchor { sequence: parse(sequence)?, hash: hash.into() };
        return Ok(Some(anchor.try_into().map_err(content)?));
    }
    let acked: Option<i64> =
        sqlx::query_scalar("SELECT 1 FROM commands WHERE acked_ms IS NOT NULL LIMIT 1")
            .fetch_optional(conn)
            .await?;
    Ok(acked.is_none().then(AuditAnchor::default))
}

pub(super) async fn entry(
    conn: &mut SqliteConnection,
    name: &CommandName,
) -> Result<Option<Entry>, JournalError> {
    let row = sqlx::query("SELECT * FROM commands WHERE name = ?")
        .bind(name.to_string())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(read_entry).transpose()
}

/// The names of all commands that it holds.
pub(super) async fn names(conn: &mut SqliteConnection) -> Result<Known, JournalError> {
    let mut known = Known::default();
    let mut rows = sqlx::query("SELECT name FROM commands").fetch(conn);
    while let Some(row) = rows.next().await {
        known.add(row?.get("name"));
    }
    Ok(known)
}

/// More than this in bytes is not put into one batch: the server's frames are bounded.
const MAX_BATCH_BYTES: usize = 128 * 1024;

pub(super) async fn records(
    conn: &mut SqliteConnection,
    after: i64,
    max: usize,
) -> Result<Vec<pb::Record>, JournalError> {
    let limit = i64::try_from(max).unwrap_or(i64::MAX);
    let rows =
        sqlx::query("SELECT content FROM records WHERE sequence > ? ORDER BY sequence LIMIT ?")
            .bind(after)
            .bind(limit)
            .fetch_all(conn)
            .await?;
    let mut bytes = 0;
    let mut records = Vec::with_capacity(rows.len());
    for row in &rows {
        let content: &[u8] = row.get("content");
        bytes += content.len();
        if bytes > MAX_BATCH_BYTES && !records.is_empty() {
            break;
        }
        records.push(decode(content)?);
    }
    Ok(records)
}

pub(super) async fn oldest_record(conn: &mut SqliteConnection) -> Result<i64, JournalError> {
    Ok(sqlx::query_scalar("SELECT COALESCE(MIN(sequence), 0) FROM records").fetch_one(conn).await?)
}
