//! Dose and alarm records: each exactly once, in order, by (agent, incarnation, sequence).

use pasamanos_faults::planted;
use pasamanos_proto::model::{
    AgentName, CommandName, FarmId, FeederId, Hello, RecordBatch, RobotId, StoredRecord, TankId,
};
use pasamanos_proto::pb;
use pasamanos_proto::pb::record::Content;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use super::driver::Conn;
use super::tx::Tx;
use super::words::hex;
use crate::domain::ports::StoreError;

/// The highest sequence of an incarnation that is stored; 0 if none.
pub async fn through(
    conn: &mut Conn,
    agent: &AgentName,
    incarnation: &str,
) -> Result<i64, StoreError> {
    let sql = if planted!("server-incarnation-ignored") {
        "SELECT MAX(sequence) AS through FROM records WHERE farm = $1 AND agent = $2 AND $3 <> ''"
    } else {
        "SELECT MAX(sequence) AS through FROM records
         WHERE farm = $1 AND agent = $2 AND incarnation = $3"
    };
    let row = sqlx::query(sql)
        .bind(agent.farm.to_string())
        .bind(agent.agent.to_string())
        .bind(incarnation.to_owned())
        .fetch_one(conn)
        .await?;
    Ok(row.try_get::<Option<i64>, _>("through")?.unwrap_or(0))
}

/// What the journal no longer holds and the server never had becomes one explicit gap. Answers the
/// sequence that the history then reaches.
pub async fn close_gap(
    tx: &mut Tx<'_>,
    hello: &Hello,
    through: i64,
    alarms: &mut Vec<String>,
    now_ms: i64,
) -> Result<i64, StoreError> {
    let journal = &hello.journal;
    let last_lost = journal.records_forgotten();
    if last_lost <= through {
        return Ok(through);
    }
    let agent = &hello.agent;
    alarms.push(format!("{agent} lost its records {} to {last_lost}", through + 1));
    let row =
        Row { sequence: last_lost, kind: "GAP", from_sequence: through + 1, hash: Vec::new() };
    insert_record(tx, agent, &journal.incarnation, row, now_ms).await?;
    Ok(last_lost)
}

/// Stores what is new of a batch. Answers up to where the history reaches, and the new doses.
pub async fn store(
    tx: &mut Tx<'_>,
    agent: &AgentName,
    batch: &RecordBatch,
    now_ms: i64,
) -> Result<(i64, Vec<pb::Dose>), StoreError> {
    let mut through = through(tx.conn(), agent, &batch.incarnation).await?;
    let (again, new): (Vec<_>, Vec<_>) = batch.records.iter().partition(|r| r.sequence <= through);
    if let Some(bad) = first_changed(tx, agent, &batch.incarnation, &again).await? {
        tracing::error!(
            %agent, sequence = bad,
            "alarm: a record came again with another content; the batch is refused from there"
        );
        return Ok((bad - 1, Vec::new()));
    }
    let mut doses = Vec::new();
    for record in new {
        if record.sequence != through + 1 {
            tracing::error!(%agent, sequence = record.sequence, through, "alarm: a gap in the records");
            break;
        }
        doses.extend(insert(tx, agent, &batch.incarnation, record, now_ms).await?);
        through = record.sequence;
    }
    Ok((through, doses))
}

/// The first of these stored records whose hash is not the stored one.
async fn first_changed(
    tx: &mut Tx<'_>,
    agent: &AgentName,
    incarnation: &str,
    again: &[&StoredRecord],
) -> Result<Option<i64>, StoreError> {
    let (Some(first), Some(last)) = (again.first(), again.last()) else { return Ok(None) };
    let rows = sqlx::query(
        "SELECT sequence, hash FROM records
         WHERE farm = $1 AND agent = $2 AND incarnation = $3
           AND sequence >= $4 AND sequence <= $5 AND kind <> 'GAP'
         ORDER BY sequence",
    )
    .bind(agent.farm.to_string())
    .bind(agent.agent.to_string())
    .bind(incarnation.to_owned())
    .bind(first.sequence)
    .bind(last.sequence)
    .fetch_all(tx.conn())
    .await?;
    for row in rows {
        let (sequence, hash): (i64, &[u8]) = (row.try_get("sequence")?, row.try_get("hash")?);
        let same = |r: &&&StoredRecord| r.sequence == sequence && r.hash.as_bytes() == hash;
        if again.iter().find(same).is_none() {
            return Ok(Some(sequence));
        }
    }
    Ok(None)
}

struct Row {
    sequence: i64,
    kind: &'static str,
    from_sequence: i64,
    hash: Vec<u8>,
}

async fn insert_record(
    tx: &mut Tx<'_>,
    agent: &AgentName,
    incarnation: &str,
    row: Row,
    now_ms: i64,
) -> Result<(), StoreError> {
    let statement = sqlx::query(
        "INSERT INTO records
             (farm, agent, incarnation, sequence, kind, from_sequence, hash, received_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(agent.farm.to_string())
    .bind(agent.agent.to_string())
    .bind(incarnation.to_owned())
    .bind(row.sequence)
    .bind(row.kind)
    .bind(row.from_sequence)
    .bind(row.hash)
    .bind(now_ms);
    tx.execute(statement).await.map(drop)
}

async fn insert(
    tx: &mut Tx<'_>,
    agent: &AgentName,
    incarnation: &str,
    record: &StoredRecord,
    now_ms: i64,
) -> Result<Option<pb::Dose>, StoreError> {
    let kind = match record.content {
        Content::Dose(_) => "DOSE",
        Content::Alarm(_) => "ALARM",
    };
    let (sequence, hash) = (record.sequence, record.hash.as_bytes().to_vec());
    let row = Row { sequence, kind, from_sequence: sequence, hash };
    insert_record(tx, agent, incarnation, row, now_ms).await?;
    let id = format!("{}-{}-{sequence}", agent.agent, short(incarnation));
    match &record.content {
        Content::Dose(dose) => {
            let dose = named(&agent.farm, &id, dose);
            insert_dose(tx, &agent.farm, id, &dose, record, now_ms).await?;
            Ok(Some(dose))
        }
        Content::Alarm(alarm) => {
            insert_alarm(tx, &agent.farm, id, alarm, now_ms).await?;
            Ok(None)
        }
    }
}

/// An incarnation in a resource name.
fn short(incarnation: &str) -> String {
    hex(&Sha256::digest(incarnation.as_bytes())[..6])
}

/// The dose with resource names where the journal has slugs. What is no slug stays out: a record is
/// kept whatever its agent wrote in it.
fn named(farm: &FarmId, id: &str, dose: &pb::Dose) -> pb::Dose {
    let name = |collection: &str, slug: Option<String>| {
        slug.map_or(String::new(), |slug| format!("{}/{collection}/{slug}", farm.name()))
    };
    let feeder = dose.feeder.parse::<FeederId>().ok().map(|s| s.to_string());
    let tank = dose.tank.parse::<TankId>().ok().map(|s| s.to_string());
    let robot = dose.robot.parse::<RobotId>().ok().map(|s| s.to_string());
    let command = dose.command.parse::<CommandName>().ok().filter(|c| c.farm == *farm);
    pb::Dose {
        name: name("doses", Some(id.to_owned())),
        feeder: name("feeders", feeder),
        tank: name("tanks", tank),
        robot: name("robots", robot),
        command: command.map_or(String::new(), |c| c.to_string()),
        ..dose.clone()
    }
}

/// A time of the farm PC, ms; `None` if absent or absurd.
fn at_ms(time: Option<&prost_types::Timestamp>) -> Option<i64> {
    let t = time?;
    t.seconds.checked_mul(1_000)?.checked_add(i64::from(t.nanos) / 1_000_000)
}

async fn insert_dose(
    tx: &mut Tx<'_>,
    farm: &FarmId,
    id: String,
    dose: &pb::Dose,
    record: &StoredRecord,
    now_ms: i64,
) -> Result<(), StoreError> {
    let at = at_ms(dose.start_time.as_ref()).or_else(|| at_ms(dose.end_time.as_ref()));
    let feeder = match &record.content {
        Content::Dose(raw) => raw.feeder.clone(),
        Content::Alarm(_) => String::new(),
    };
    let statement = sqlx::query(
        "INSERT INTO doses
             (farm, dose, feeder, at_ms, local_date, cause, outcome, dispensed_mg, body)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(farm.to_string())
    .bind(id)
    .bind(feeder)
    .bind(at.unwrap_or(now_ms))
    .bind(dose.local_date.clone())
    .bind(i64::from(dose.cause))
    .bind(i64::from(dose.outcome))
    .bind(dose.dispensed_mg)
    .bind(dose.encode_to_vec());
    tx.execute(statement).await.map(drop)
}

/// Stores an alarm under an id of its own within the farm.
pub async fn insert_alarm(
    tx: &mut Tx<'_>,
    farm: &FarmId,
    id: String,
    alarm: &pb::AlarmRecord,
    now_ms: i64,
) -> Result<(), StoreError> {
    let statement = sqlx::query(
        "INSERT INTO alarms (farm, alarm, at_ms, severity, reason, feeder, robot, body)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(farm.to_string())
    .bind(id)
    .bind(at_ms(alarm.time.as_ref()).unwrap_or(now_ms))
    .bind(i64::from(alarm.severity))
    .bind(alarm.reason.clone())
    .bind(alarm.feeder.clone())
    .bind(alarm.robot.clone())
    .bind(alarm.encode_to_vec());
    tx.execute(statement).await.map(drop)
}
