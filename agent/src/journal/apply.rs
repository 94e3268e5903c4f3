//! Changes as statements of the owner's transaction.

use pasamanos_proto::model::{AuditAnchor, CommandState, RobotId, StoredRecord};
use pasamanos_proto::pb;
use prost::Message as _;

use super::change::{Change, Entry, HoldRow};
use super::script::Script;
use super::{Lazy, Steady};
use crate::driver::SlotResult;

/// Kept this long after the server acknowledged it.
const KEEP_MS: i64 = 30 * 86_400_000;
/// Acknowledged commands that are told again to a server whose database was put back: a hello has a
/// bound, and a backup is hardly older than so many commands.
const MAX_TOLD_AGAIN: i64 = 1_000;
/// The envelope rolls over this.
const ENVELOPE_MS: i64 = 86_400_000;

/// Adds the statements of a change. `high_water` is the highest record sequence ever given.
pub(super) fn change(script: &mut Script, change: Change, now: i64, high_water: &mut i64) {
    match change {
        Change::Epoch { epoch, zone, records_through, anchor, tell_again: forgotten } => {
            // The server has more than was ever given here: this journal was put back. New records
            // must not take numbers that stand for others there.
            if records_through > *high_water {
                *high_water = records_through;
                meta(script, "record_high_water", &records_through.to_string());
            }
            meta(script, "last_epoch", &epoch.to_string());
            if forgotten {
                tell_again(script);
            }
            anchored(script, anchor);
            meta(script, "time_zone", &zone);
        }
        Change::Command(entry) => command(script, &entry),
        Change::Outcome { report, settled, loose } => {
            let name = report.command.to_string();
            let doubt = report.state == CommandState::Uncertain;
            let outcome = pb::CommandUpdate::from(*report).encode_to_vec();
            // A new outcome is one that the server does not have.
            script
                .add(
                    "UPDATE commands SET state = 'OUTCOME', outcome = ?, doubt = ?, settled = ?, \
                 loose = ?, acked_ms = NULL WHERE name = ?",
                )
                .bind(outcome)
                .bind(doubt)
                .bind(settled)
                .bind(loose)
                .bind(name);
        }
        Change::Loose(name, marks) => {
            script
                .add(
                    "UPDATE commands SET loose_newer = ?, loose_rewritten = ?, loose_showed = ? \
                     WHERE name = ?",
                )
                .bind(marks.newer.map(|c| pb::FeederConfig::from(c).encode_to_vec()))
                .bind(marks.rewritten)
                .bind(marks.showed)
                .bind(name.to_string());
        }
        Change::Resolved(name, resolution) => {
            script
                .add("UPDATE commands SET settled = 1, resolution = ? WHERE name = ?")
                .bind(resolution.encode_to_vec())
                .bind(name.to_string());
        }
        Change::Forgotten(name) => {
            script.add("UPDATE commands SET loose = 0 WHERE name = ?").bind(name.to_string());
        }
        Change::Slot(robot, epoch, sequence) => {
            script
                .add(
                    "INSERT INTO robots (robot, slot_epoch, slot_sequence) VALUES (?, ?, ?) \
                 ON CONFLICT (robot) DO UPDATE SET slot_epoch = excluded.slot_epoch, \
                 slot_sequence = excluded.slot_sequence",
                )
                .bind(robot.to_string())
                .bind(i64::from(epoch))
                .bind(i64::from(sequence));
        }
        Change::PlcEpoch(robot, epoch) => {
            script
                .add(
                    "INSERT INTO robots (robot, slot_epoch, slot_sequence, plc_epoch) \
                 VALUES (?, 0, 0, ?) \
                 ON CONFLICT (robot) DO UPDATE SET plc_epoch = excluded.plc_epoch",
                )
                .bind(robot.to_string())
                .bind(i64::from(epoch));
        }
        Change::Consumed(robot, slot) => {
            script
                .add(
                    "INSERT INTO robots (robot, slot_epoch, slot_sequence, consumed_epoch, \
                     consumed_sequence) VALUES (?, 0, 0, ?, ?) \
                     ON CONFLICT (robot) DO UPDATE SET consumed_epoch = excluded.consumed_epoch, \
                     consumed_sequence = excluded.consumed_sequence",
                )
                .bind(robot.to_string())
                .bind(slot.map(|s| i64::from(s.0)))
                .bind(slot.map(|s| i64::from(s.1)));
        }
        Change::Recalled { robot, epoch, sequence, doses, gap } => {
            script
                .add(
                    "INSERT INTO robots (robot, slot_epoch, slot_sequence, recalled_epoch, \
                     recalled_sequence, gap) VALUES (?, 0, 0, ?, ?, ?) \
                     ON CONFLICT (robot) DO UPDATE SET recalled_epoch = excluded.recalled_epoch, \
                     recalled_sequence = excluded.recalled_sequence, gap = excluded.gap",
                )
                .bind(robot.to_string())
                .bind(i64::from(epoch))
                .bind(i64::from(sequence))
                .bind(gap);
            for dose in doses {
                recalled(script, &robot, epoch, &dose, now);
            }
        }
        Change::GapClosed(robot) => {
            script
                .add("UPDATE robots SET gap = 0 WHERE robot = COALESCE(?, robot)")
                .bind(robot.map(|r| r.to_string()));
        }
        Change::Hold(row) => hold(script, row),
        Change::Lift(feeder, source) => {
            script
                .add("DELETE FROM holds WHERE feeder = ? AND source = ?")
                .bind(feeder.to_string())
                .bind(i64::from(i32::from(source)));
        }
        Change::Record(content) => {
            *high_water += 1;
            let record = StoredRecord::new(*high_water, *content);
            let record = pb::Record {
                sequence: record.sequence,
                hash: record.hash.as_bytes().to_vec().into(),
                content: Some(record.content),
            };
            script
                .add("INSERT INTO records (sequence, content) VALUES (?, ?)")
                .bind(*high_water)
                .bind(record.encode_to_vec());
            meta(script, "record_high_water", &high_water.to_string());
        }
        Change::Day(feeder, date, mg) => {
            script
                .add(
                    "INSERT INTO days (feeder, date, mg) VALUES (?, ?, ?) \
                 ON CONFLICT (feeder, date) DO UPDATE SET mg = excluded.mg",
                )
                .bind(feeder.to_string())
                .bind(&date)
                .bind(mg);
            script
                .add(
                    "DELETE FROM days WHERE feeder = ? AND date NOT IN \
                 (SELECT date FROM days WHERE feeder = ? ORDER BY date DESC LIMIT 3)",
                )
                .bind(feeder.to_string())
                .bind(feeder.to_string());
        }
        change => of_feeder(script, change, now),
    }
}

/// Changes of one feeder's row and of its envelope.
fn of_feeder(script: &mut Script, change: Change, now: i64) {
    match change {
        Change::Mark(feeder, mark) => {
            script
                .add(
                    "INSERT INTO feeders (feeder, total_mg, ahead_mg, meal) VALUES (?, ?, ?, ?) \
                 ON CONFLICT (feeder) DO UPDATE SET total_mg = excluded.total_mg, \
                 ahead_mg = excluded.ahead_mg, meal = excluded.meal",
                )
                .bind(feeder.to_string())
                .bind(mark.total_mg.map(u64::cast_signed))
                .bind(mark.ahead_mg.cast_signed())
                .bind(mark.meal.map(i64::from));
        }
        Change::FirstPortion(feeder, mg) => {
            script
                .add(
                    "INSERT INTO feeders (feeder, first_portion_mg) VALUES (?, ?) \
                 ON CONFLICT (feeder) DO UPDATE SET first_portion_mg = excluded.first_portion_mg",
                )
                .bind(feeder.to_string())
                .bind(mg);
        }
        Change::LateHold(feeder, until_ms) => {
            script
                .add(
                    "INSERT INTO feeders (feeder, late_hold_ms) VALUES (?, ?) \
                 ON CONFLICT (feeder) DO UPDATE SET late_hold_ms = excluded.late_hold_ms",
                )
                .bind(feeder.to_string())
                .bind(until_ms);
        }
        Change::LastDose(feeder, dose) => {
            script
                .add(
                    "INSERT INTO feeders (feeder, last_dose) VALUES (?, ?) \
                 ON CONFLICT (feeder) DO UPDATE SET last_dose = excluded.last_dose",
                )
                .bind(feeder.to_string())
                .bind(dose.encode_to_vec());
        }
        Change::Envelope(feeder, e) => {
            script.add("DELETE FROM envelope WHERE at_ms < ?").bind(now - ENVELOPE_MS);
            script.add(
                "INSERT INTO envelope (feeder, at_ms, mg, command, assumed) VALUES (?, ?, ?, ?, ?)",
            )
            .bind(feeder.to_string())
            .bind(e.at_ms)
            .bind(e.mg)
            .bind(e.command.map(|c| c.to_string()))
            .bind(e.assumed);
        }
        Change::EnvelopeSettled(command, mg) => {
            script
                .add("UPDATE envelope SET mg = ? WHERE command = ?")
                .bind(mg)
                .bind(command.to_string());
        }
        Change::EnvelopeReset(feeder) => {
            let feeder = feeder.map(|f| f.to_string());
            script
                .add("DELETE FROM envelope WHERE assumed = 1 AND feeder = COALESCE(?, feeder)")
                .bind(feeder);
        }
        other => script.fail(format!("{other:?} is not of a feeder")),
    }
}

fn command(script: &mut Script, e: &Entry) {
    let state = if e.report.is_some() { "OUTCOME" } else { "INTENT" };
    let frame = pb::CommandFrame::from(e.order.clone()).encode_to_vec();
    let doubt = e.report.as_ref().is_some_and(|r| r.state == CommandState::Uncertain);
    let outcome = e.report.clone().map(|r| pb::CommandUpdate::from(r).encode_to_vec());
    // No upsert: a name that is there was journaled, and is never run again.
    script
        .add(
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
        .bind(e.loose);
}

fn recalled(script: &mut Script, robot: &RobotId, epoch: u32, dose: &SlotResult, now: i64) {
    let state = serde_json::to_string(&dose.state).unwrap_or_default();
    script
        .add(
            "INSERT OR REPLACE INTO recalled (robot, token, epoch, sequence, state, dispensed_mg, \
             at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(robot.to_string())
        .bind(i64::from(dose.token))
        .bind(i64::from(epoch))
        .bind(i64::from(dose.sequence))
        .bind(state)
        .bind(i64::from(dose.dispensed_mg))
        .bind(now);
}

fn hold(script: &mut Script, row: HoldRow) {
    script
        .add(
            "INSERT INTO holds (feeder, source, since_ms, author, note) VALUES (?, ?, ?, ?, ?) \
         ON CONFLICT (feeder, source) DO UPDATE SET author = excluded.author, note = excluded.note",
        )
        .bind(row.feeder.to_string())
        .bind(i64::from(i32::from(row.source)))
        .bind(row.since_ms)
        .bind(row.author)
        .bind(row.note);
}

/// Acknowledgements, each kind in one statement however many they are.
pub(super) fn lazy(script: &mut Script, lazy: &[Lazy], now: i64) {
    let (mut ends, mut doubts, mut through, mut newest) = (Vec::new(), Vec::new(), None, None);
    for lazy in lazy {
        match lazy {
            Lazy::Acked(name, state, anchor) => {
                let names = if *state == CommandState::Uncertain { &mut doubts } else { &mut ends };
                names.push(name.to_string());
                newest = Some(*anchor);
            }
            Lazy::RecordsThrough(to) => through = through.max(Some(*to)),
        }
    }
    // A late acknowledgement of UNCERTAIN is none of the settlement that came after it.
    for (names, doubt) in [(ends, false), (doubts, true)] {
        if names.is_empty() {
            continue;
        }
        script
            .add(
                "UPDATE commands SET acked_ms = ? WHERE name IN (SELECT value FROM json_each(?)) \
                 AND state = 'OUTCOME' AND acked_ms IS NULL AND (doubt = 1 OR NOT ?)",
            )
            .bind(now)
            .bind(serde_json::Value::from(names).to_string())
            .bind(doubt);
    }
    // Only the newest place of the server's chain counts.
    if let Some(anchor) = newest {
        anchored(script, anchor);
    }
    if let Some(through) = through {
        script.add("DELETE FROM records WHERE sequence <= ?").bind(through);
    }
}

/// A server of an older release tells none: then what it acknowledged cannot be shown to another.
fn anchored(script: &mut Script, anchor: Option<AuditAnchor>) {
    let told = anchor.map_or(String::new(), |a| {
        let hash = a.hash.iter().fold(String::new(), |hex, b| hex + &format!("{b:02x}"));
        format!("{} {hash}", a.sequence)
    });
    meta(script, "anchor", &told);
}

/// The server's database was put back: what was acknowledged last counts as not acknowledged.
fn tell_again(script: &mut Script) {
    script
        .add(
            "UPDATE commands SET acked_ms = NULL WHERE name IN \
             (SELECT name FROM commands WHERE acked_ms IS NOT NULL ORDER BY acked_ms DESC LIMIT ?)",
        )
        .bind(MAX_TOLD_AGAIN);
}

/// Forgets commands that were acknowledged long ago. It looks at all of them: seldom.
pub(super) fn prune(script: &mut Script, now: i64) {
    script.add("DELETE FROM commands WHERE acked_ms < ? AND settled = 1").bind(now - KEEP_MS);
    script.add("DELETE FROM recalled WHERE at_ms < ?").bind(now - KEEP_MS);
}

/// The clock that does not step, as it is now.
pub(super) fn steady(script: &mut Script, steady: &Steady, now: i64) {
    let (boot, at) = steady.stamp(now);
    meta(script, "steady", &format!("{now} {at} {boot}"));
}

/// One value of the journal itself.
pub(super) fn meta(script: &mut Script, key: &str, value: &str) {
    script
        .add(
            "INSERT INTO meta (key, value) VALUES (?, ?) \
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        )
        .bind(key)
        .bind(value);
}
