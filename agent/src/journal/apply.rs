//! Writes changes inside the owner's transaction.

use pasamanos_proto::model::{AuditAnchor, CommandState, StoredRecord};
use pasamanos_proto::pb;
use prost::Message as _;
use sqlx::SqliteConnection;

use super::change::{Change, Entry, HoldRow};
use super::{JournalError, Lazy, Steady};

/// Kept this long after the server acknowledged it.
const KEEP_MS: i64 = 30 * 86_400_000;
/// Acknowledged commands that are told again to a server whose database was put back: a hello has a
/// bound, and a backup is hardly older than so many commands.
const MAX_TOLD_AGAIN: i64 = 1_000;
/// The envelope rolls over this.
const ENVELOPE_MS: i64 = 86_400_000;

type Done = Result<(), JournalError>;

pub(super) async fn change(
    tx: &mut SqliteConnection,
    change: Change,
    now: i64,
    high_water: &mut i64,
) -> Done {
    match change {
        Change::Epoch { epoch, zone, records_through, anchor, tell_again: forgotten } => {
            // The server has more than was ever given here: this journal was put back. New records
            // must not take numbers that stand for others there.
            if records_through > *high_water {
                *high_water = records_through;
                meta(tx, "record_high_water", &records_through.to_string()).await?;
            }
            meta(tx, "last_epoch", &epoch.to_string()).await?;
            if forgotten {
                tell_again(tx).await?;
            }
            anchored(tx, anchor).await?;
            meta(tx, "time_zone", &zone).await
        }
        Change::Command(entry) => command(tx, &entry).await,
        Change::Outcome { report, settled, loose } => {
            let name = report.command.to_string();
            let doubt = report.state == CommandState::Uncertain;
            let outcome = pb::CommandUpdate::from(*report).encode_to_vec();
            // A new outcome is one that the server does not have.
            sqlx::query(
                "UPDATE commands SET state = 'OUTCOME', outcome = ?, doubt = ?, settled = ?, \
                 loose = ?, acked_ms = NULL WHERE name = ?",
            )
            .bind(outcome)
            .bind(doubt)
            .bind(settled)
            .bind(loose)
            .bind(name)
            .execute(tx)
            .await?;
            Ok(())
        }
        Change::Loose(name, marks) => {
            sqlx::query(
                "UPDATE commands SET loose_newer = ?, loose_rewritten = ?, loose_showed = ? \
                 WHERE name = ?",
            )
            .bind(marks.newer.map(|c| pb::FeederConfig::from(c).encode_to_vec()))
            .bind(marks.rewritten)
            .bind(marks.showed)
            .bind(name.to_string())
            .execute(tx)
            .await?;
            Ok(())
        }
        Change::Resolved(name, resolution) => {
            sqlx::query(
                "UPDATE commands SET settled = 1, loose = 0, resolution = ? WHERE name = ?",
            )
            .bind(resolution.encode_to_vec())
            .bind(name.to_string())
            .execute(tx)
            .await?;
            Ok(())
        }
        Change::Slot(robot, epoch, sequence) => {
            sqlx::query(
                "INSERT INTO robots (robot, slot_epoch, slot_sequence) VALUES (?, ?, ?) \
                 ON CONFLICT (robot) DO UPDATE SET slot_epoch = excluded.slot_epoch, \
                 slot_sequence = excluded.slot_sequence",
            )
            .bind(robot.to_string())
            .bind(i64::from(epoch))
            .bind(i64::from(sequence))
            .execute(tx)
            .await?;
            Ok(())
        }
        Change::PlcEpoch(robot, epoch) => {
            sqlx::query(
                "INSERT INTO robots (robot, slot_epoch, slot_sequence, plc_epoch) \
                 VALUES (?, 0, 0, ?) \
                 ON CONFLICT (robot) DO UPDATE SET plc_epoch = excluded.plc_epoch",
            )
            .bind(robot.to_string())
            .bind(i64::from(epoch))
            .execute(tx)
            .await?;
            Ok(())
        }
        Change::Hold(row) => hold(tx, row).await,
        Change::Lift(feeder, source) => {
            sqlx::query("DELETE FROM holds WHERE feeder = ? AND source = ?")
                .bind(feeder.to_string())
                .bind(i64::from(i32::from(source)))
                .execute(tx)
                .await?;
            Ok(())
        }
        Change::Record(content) => {
            *high_water += 1;
            let record = StoredRecord::new(*high_water, *content);
            let record = pb::Record {
                sequence: record.sequence,
                hash: record.hash.as_bytes().to_vec().into(),
                content: Some(record.content),
            };
            sqlx::query("INSERT INTO records (sequence, content) VALUES (?, ?)")
                .bind(*high_water)
                .bind(record.encode_to_vec())
                .execute(&mut *tx)
                .await?;
            meta(tx, "record_high_water", &high_water.to_string()).await
        }
        Change::Day(feeder, date, mg) => {
            sqlx::query(
                "INSERT INTO days (feeder, date, mg) VALUES (?, ?, ?) \
                 ON CONFLICT (feeder, date) DO UPDATE SET mg = excluded.mg",
            )
            .bind(feeder.to_string())
            .bind(&date)
            .bind(mg)
            .execute(&mut *tx)
            .await?;
            sqlx::query(
                "DELETE FROM days WHERE feeder = ? AND date NOT IN \
                 (SELECT date FROM days WHERE feeder = ? ORDER BY date DESC LIMIT 3)",
            )
            .bind(feeder.to_string())
            .bind(feeder.to_string())
            .execute(tx)
            .await?;
            Ok(())
        }
        change => of_feeder(tx, change, now).await,
    }
}

/// Changes of one feeder's row and of its envelope.
async fn of_feeder(tx: &mut SqliteConnection, change: Change, now: i64) -> Done {
    match change {
        Change::Mark(feeder, mark) => {
            sqlx::query(
                "INSERT INTO feeders (feeder, total_mg, ahead_mg, meal) VALUES (?, ?, ?, ?) \
                 ON CONFLICT (feeder) DO UPDATE SET total_mg = excluded.total_mg, \
                 ahead_mg = excluded.ahead_mg, meal = excluded.meal",
            )
            .bind(feeder.to_string())
            .bind(mark.total_mg.map(u64::cast_signed))
            .bind(mark.ahead_mg.cast_signed())
            .bind(mark.meal.map(i64::from))
            .execute(tx)
            .await?;
        }
        Change::FirstPortion(feeder, mg) => {
            sqlx::query(
                "INSERT INTO feeders (feeder, first_portion_mg) VALUES (?, ?) \
                 ON CONFLICT (feeder) DO UPDATE SET first_portion_mg = excluded.first_portion_mg",
            )
            .bind(feeder.to_string())
            .bind(mg)
            .execute(tx)
            .await?;
        }
        Change::LateHold(feeder, until_ms) => {
            sqlx::query(
                "INSERT INTO feeders (feeder, late_hold_ms) VALUES (?, ?) \
                 ON CONFLICT (feeder) DO UPDATE SET late_hold_ms = excluded.late_hold_ms",
            )
            .bind(feeder.to_string())
            .bind(until_ms)
            .execute(tx)
            .await?;
        }
        Change::LastDose(feeder, dose) => {
            sqlx::query(
                "INSERT INTO feeders (feeder, last_dose) VALUES (?, ?) \
                 ON CONFLICT (feeder) DO UPDATE SET last_dose = excluded.last_dose",
            )
            .bind(feeder.to_string())
            .bind(dose.encode_to_vec())
            .execute(tx)
            .await?;
        }
        Change::Envelope(feeder, e) => {
            sqlx::query("DELETE FROM envelope WHERE at_ms < ?")
                .bind(now - ENVELOPE_MS)
                .execute(&mut *tx)
                .await?;
            sqlx::query(
                "INSERT INTO envelope (feeder, at_ms, mg, command, assumed) VALUES (?, ?, ?, ?, ?)",
            )
            .bind(feeder.to_string())
            .bind(e.at_ms)
            .bind(e.mg)
            .bind(e.command.map(|c| c.to_string()))
            .bind(e.assumed)
            .execute(tx)
            .await?;
        }
        Change::EnvelopeSettled(command, mg) => {
            sqlx::query("UPDATE envelope SET mg = ? WHERE command = ?")
                .bind(mg)
                .bind(command.to_string())
                .execute(tx)
                .await?;
        }
        Change::EnvelopeReset(feeder) => {
            sqlx::query("DELETE FROM envelope WHERE assumed = 1 AND (?1 IS NULL OR feeder = ?1)")
                .bind(feeder.map(|f| f.to_string()))
                .execute(tx)
                .await?;
        }
        other => return Err(JournalError::Content(format!("{other:?} is not of a feeder"))),
    }
    Ok(())
}

async fn command(tx: &mut SqliteConnection, e: &Entry) -> Done {
    let state = if e.report.is_some() { "OUTCOME" } else { "INTENT" };
    let frame = pb::CommandFrame::from(e.order.clone()).encode_to_vec();
    let doubt = e.report.as_ref().is_some_and(|r| r.state == CommandState::Uncertain);
    let outcome = e.report.clone().map(|r| pb::CommandUpdate::from(r).encode_to_vec());
    // No upsert: a name that is there was journaled, and is never run again.
    sqlx::query(
        "INSERT INTO commands (name, feeder, robot, number, kind, body_hash, frame, \
         journaled_epoch, slot_epoch, slot_sequence, slot_token, state, outcome, doubt, settled, \
         loose) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(e.order.command.to_string())
    .bind(e.order.feeder.to_string())
    .bind(e.robot.to_string())
    .bind(e.order.number)
    .bind(e.order.action.kind().as_str())
    .bind(e.order.body_hash.as_bytes().to_vec())
    .bind(frame)
    .bind(e.epoch)
    .bind(e.slot.map(|s| i64::from(s.epoch)))
    .bind(e.slot.map(|s| i64::from(s.sequence)))
    .bind(e.slot.map(|s| i64::from(s.token)))
    .bind(state)
    .bind(outcome)
    .bind(doubt)
    .bind(e.settled)
    .bind(e.loose)
    .execute(tx)
    .await?;
    Ok(())
}

async fn hold(tx: &mut SqliteConnection, row: HoldRow) -> Done {
    sqlx::query(
        "INSERT INTO holds (feeder, source, since_ms, author, note) VALUES (?, ?, ?, ?, ?) \
         ON CONFLICT (feeder, source) DO UPDATE SET author = excluded.author, note = excluded.note",
    )
    .bind(row.feeder.to_string())
    .bind(i64::from(i32::from(row.source)))
    .bind(row.since_ms)
    .bind(row.author)
    .bind(row.note)
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn lazy(tx: &mut SqliteConnection, lazy: &Lazy, now: i64) -> Done {
    match lazy {
        Lazy::Acked(name, state, _) => {
            // A late acknowledgement of UNCERTAIN is none of the settlement that came after it.
            let in_doubt = *state == CommandState::Uncertain;
            sqlx::query(
                "UPDATE commands SET acked_ms = ? WHERE name = ? AND state = 'OUTCOME' \
                 AND acked_ms IS NULL AND (doubt = 1 OR NOT ?)",
            )
            .bind(now)
            .bind(name.to_string())
            .bind(in_doubt)
            .execute(&mut *tx)
            .await?;
            sqlx::query("DELETE FROM commands WHERE acked_ms < ? AND settled = 1")
                .bind(now - KEEP_MS)
                .execute(tx)
                .await?;
        }
        Lazy::RecordsThrough(through) => {
            sqlx::query("DELETE FROM records WHERE sequence <= ?")
                .bind(through)
                .execute(tx)
                .await?;
        }
    }
    Ok(())
}

/// A server of an older release tells none: then what it acknowledged cannot be shown to another.
pub(super) async fn anchored(tx: &mut SqliteConnection, anchor: Option<AuditAnchor>) -> Done {
    let told = anchor.map_or(String::new(), |a| {
        let hash = a.hash.iter().fold(String::new(), |hex, b| hex + &format!("{b:02x}"));
        format!("{} {hash}", a.sequence)
    });
    meta(tx, "anchor", &told).await
}

/// The server's database was put back: what was acknowledged last counts as not acknowledged.
async fn tell_again(tx: &mut SqliteConnection) -> Done {
    sqlx::query(
        "UPDATE commands SET acked_ms = NULL WHERE name IN \
         (SELECT name FROM commands WHERE acked_ms IS NOT NULL ORDER BY acked_ms DESC LIMIT ?)",
    )
    .bind(MAX_TOLD_AGAIN)
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn steady(tx: &mut SqliteConnection, steady: &Steady, now: i64) -> Done {
    let (boot, at) = steady.stamp(now);
    meta(tx, "steady", &format!("{now} {at} {boot}")).await
}

pub(super) async fn meta(tx: &mut SqliteConnection, key: &str, value: &str) -> Done {
    sqlx::query(
        "INSERT INTO meta (key, value) VALUES (?, ?) \
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )
    .bind(key)
    .bind(value)
    .execute(tx)
    .await?;
    Ok(())
}
