//! What a snapshot of the robot means: feed that fell, holds of the farm, faults, lost memory.

use std::collections::BTreeMap;

use pasamanos_proto::model::{FeederConfig, FeederId, Mode, Reason};
use pasamanos_proto::pb;

use super::book::Book;
use super::state::State;
use crate::calendar::Moment;
use crate::driver::{ConfigReading, FeederSnapshot, RobotSnapshot, Slot};
use crate::guard;
use crate::journal::Change;
use crate::records::account::Sight;
use crate::records::{Alarm, Portion};

/// One bad reading between good ones inhibits, and is no alarm.
const UNFIT_MS: i64 = 10_000;

/// A slot that was read as consumed is journaled with its dose's end, for no sync of its own; of a dose
/// that runs longer than this, meanwhile.
const KEEP_MS: i64 = 1_000;

impl State {
    /// Looks at a snapshot that was read just now.
    pub(crate) fn observe(
        &mut self,
        snapshot: &RobotSnapshot,
        now: &Moment,
        changes: &mut Vec<Change>,
    ) {
        if let Some(slot) = snapshot.slot.filter(|_| self.traits.sequenced) {
            self.see_epoch(&slot, snapshot, now, changes);
        }
        if self.fresh {
            self.fresh = false;
            self.distrust_the_past(snapshot, now, changes);
        }
        self.see_faults(snapshot, now, changes);
        for feeder in &snapshot.feeders {
            self.see_feed(feeder, now, changes);
            if let Some(book) = self.feeders.get_mut(&feeder.feeder) {
                see_hold(book, feeder, now, changes);
            }
        }
    }

    /// Looks at a config that was read just now.
    pub(crate) fn observe_config(
        &mut self,
        feeder: &FeederId,
        reading: &ConfigReading,
        now: &Moment,
        changes: &mut Vec<Change>,
    ) {
        let Some(book) = self.feeders.get_mut(feeder) else { return };
        book.see_config(reading);
        let valid = reading.config.valid();
        book.automatic = valid.is_some_and(|c| c.mode == Mode::Automatic);
        if let (None, Some(mg)) = (book.first_portion_mg, valid.and_then(|c| c.portion_mg)) {
            book.first_portion_mg = Some(mg);
            changes.push(Change::FirstPortion(feeder.clone(), mg));
        }
        if valid.is_none() {
            let alarm = Alarm::feeder(Reason::InvalidField, pb::AlarmSeverity::Warning, feeder);
            book.alarm(&alarm, now, changes);
        } else {
            book.alarmed.remove(&Reason::InvalidField);
        }
    }

    /// Sets and lifts the holds by which the agent enforces what the PLC does not.
    pub(crate) fn enforce(
        &mut self,
        feeder: &FeederId,
        config: Option<&FeederConfig>,
        snapshot: &RobotSnapshot,
        now: &Moment,
        changes: &mut Vec<Change>,
    ) {
        let Some(book) = self.feeders.get_mut(feeder) else { return };
        see_readings(book, config, snapshot, now, changes);
        for (source, alarm) in guard::enforced(book, config, snapshot, now) {
            match alarm {
                Some(alarm) if !book.holds.contains_key(&source) => {
                    book.hold(source, ("", ""), now, changes);
                    changes.push(Change::Record(Box::new(alarm.to_record(now.wall_ms))));
                }
                None => book.lift(source, now, changes),
                Some(_) => {}
            }
        }
    }

    /// A new epoch, or a sequence below our own: the PLC lost its memory. Its configs are not edits.
    fn see_epoch(
        &mut self,
        slot: &Slot,
        snapshot: &RobotSnapshot,
        now: &Moment,
        changes: &mut Vec<Change>,
    ) {
        if self.slot == Some((slot.epoch, slot.last_sequence)) && self.consumed != self.slot {
            self.consumed = self.slot;
            self.unkept_since_ms = Some(now.mono_ms);
        }
        if self.unkept_since_ms.is_some_and(|since| now.mono_ms - since >= KEEP_MS) {
            self.keep_consumed(changes);
        }
        let known = self.journal_slot(Some(slot));
        let behind =
            known.0 == slot.epoch && slot.last_sequence.wrapping_sub(known.1) > u32::MAX / 2;
        let another = self.plc_epoch.is_some_and(|e| e != slot.epoch);
        let lost = another || behind || self.forgot_recalled(slot);
        if self.plc_epoch != Some(slot.epoch) {
            self.plc_epoch = Some(slot.epoch);
            changes.push(Change::PlcEpoch(self.robot.clone(), slot.epoch));
        }
        if !lost {
            return;
        }
        tracing::error!(robot = %self.robot, epoch = slot.epoch, "the PLC lost its memory");
        let alarm = Alarm::robot(Reason::PlcMemoryLost, pb::AlarmSeverity::Critical, &self.robot);
        changes.push(Change::Record(Box::new(alarm.to_record(now.wall_ms))));
        // What it took in an epoch that we see for the first time, others gave.
        let sequence = if another { 0 } else { slot.last_sequence };
        self.slot = Some((slot.epoch, sequence));
        (self.consumed, self.unkept_since_ms) = (None, None);
        changes.push(Change::Consumed(self.robot.clone(), None));
        changes.push(Change::Slot(self.robot.clone(), slot.epoch, sequence));
        self.recall_again(slot, changes);
        for book in self.feeders.values_mut() {
            book.lose_memory();
            if !self.traits.read_only {
                book.hold(pb::HoldSource::PlcMemoryLost, ("", ""), now, changes);
            }
            if let Some(f) = snapshot.feeders.iter().find(|f| f.feeder == book.feeder.feeder) {
                let mark = &book.account.mark;
                // A totaliser that went on counting is believed; one that was set back begins anew.
                if f.total_mg < mark.total_mg || mark.meal != f.meal.map(|m| m.number) {
                    book.account.rebase(f);
                    let mark = book.account.mark.clone();
                    changes.push(Change::Mark(book.feeder.feeder.clone(), mark));
                }
            }
        }
    }

    /// The journal is new and the PLC is not: what was fed in the last 24 h is not known, so the
    /// envelope starts full.
    fn distrust_the_past(
        &mut self,
        snapshot: &RobotSnapshot,
        now: &Moment,
        changes: &mut Vec<Change>,
    ) {
        let used = snapshot.slot.is_some_and(|s| s.last_sequence > 0);
        for book in self.feeders.values_mut() {
            let Some(limit) = book.feeder.envelope_mg else { continue };
            let id = &book.feeder.feeder;
            let fed = snapshot.feeders.iter().any(|f| f.feeder == *id && f.total_mg > Some(0));
            if used || fed {
                tracing::warn!(feeder = %id, "new journal: the rolling 24 h envelope starts full");
                book.count(limit, None, true, now, changes);
                let alarm = Alarm::feeder(
                    Reason::JournalNotWhole,
                    pb::AlarmSeverity::Warning,
                    &book.feeder.feeder,
                );
                changes.push(Change::Record(Box::new(alarm.to_record(now.wall_ms))));
            }
        }
    }

    fn see_faults(&mut self, snapshot: &RobotSnapshot, now: &Moment, changes: &mut Vec<Change>) {
        let before = self.faults.take();
        let mut active = BTreeMap::new();
        for fault in &snapshot.faults {
            let since = before.as_ref().and_then(|b| b.get(&fault.code).copied());
            // Those found at start were alarmed when they came.
            if since.is_none() && before.is_some() {
                let alarm =
                    Alarm::robot(Reason::FeederFault, pb::AlarmSeverity::Critical, &self.robot)
                        .with("fault_code", fault.code)
                        .with("text", &fault.text);
                changes.push(Change::Record(Box::new(alarm.to_record(now.wall_ms))));
            }
            active.insert(fault.code, since.unwrap_or(now.wall_ms));
        }
        self.faults = Some(active);
    }

    fn see_feed(&mut self, feeder: &FeederSnapshot, now: &Moment, changes: &mut Vec<Change>) {
        let commanded = self.open_dose.as_ref().is_some_and(|d| d.order.feeder == feeder.feeder);
        let Some(book) = self.feeders.get_mut(&feeder.feeder) else { return };
        let mark = book.account.mark.clone();
        let portions = book.account.observe(&Sight {
            feeder,
            mono_ms: now.mono_ms,
            wall_ms: now.wall_ms,
            gap_ms: self.gap_ms,
            automatic: book.automatic,
            commanded,
            basis: self.traits.basis,
        });
        for portion in portions {
            let date = self.calendar.date(portion.start_ms);
            book.record(&portion, &date, now, changes);
            alarm_skipped(&portion, &feeder.feeder, now, changes);
        }
        if book.account.mark != mark {
            changes.push(Change::Mark(feeder.feeder.clone(), book.account.mark.clone()));
        }
    }
}

/// A reading that cannot be relied on is alarmed once, until it can be again.
fn see_readings(
    book: &mut Book,
    config: Option<&FeederConfig>,
    snapshot: &RobotSnapshot,
    now: &Moment,
    changes: &mut Vec<Change>,
) {
    let unfit = guard::unfit(&book.feeder, config.map(|c| &c.interlocks), snapshot);
    book.unfit.retain(|kind, _| unfit.contains_key(kind));
    for (kind, why) in unfit {
        let (since, alarmed) = book.unfit.entry(kind).or_insert((now.mono_ms, false));
        if *alarmed || now.mono_ms - *since < UNFIT_MS {
            continue;
        }
        *alarmed = true;
        let id = &book.feeder.feeder;
        let alarm = Alarm::feeder(Reason::Interlock, pb::AlarmSeverity::Warning, id)
            .with("kind", kind)
            .with("value", why);
        changes.push(Change::Record(Box::new(alarm.to_record(now.wall_ms))));
    }
}

/// A meal that was skipped for the cap or for a reading is something to know.
fn alarm_skipped(portion: &Portion, feeder: &FeederId, now: &Moment, changes: &mut Vec<Change>) {
    let skipped = portion.outcome == pb::DoseOutcome::Skipped;
    if skipped && matches!(portion.reason, Reason::DailyCap | Reason::Interlock) {
        let alarm = Alarm::feeder(portion.reason, pb::AlarmSeverity::Warning, feeder);
        changes.push(Change::Record(Box::new(alarm.to_record(now.wall_ms))));
    }
}

/// A hold bit that nobody here set is the farm's; one that went while only the farm held is lifted.
/// One that shows after a resume and may be a late write of ours is the operator's again: it is not
/// lifted without a person, and can be lifted from afar.
fn see_hold(book: &mut Book, feeder: &FeederSnapshot, now: &Moment, changes: &mut Vec<Change>) {
    match feeder.held {
        Some(true) if book.holds.is_empty() && now.steady_ms < book.late_hold_ms => {
            book.hold(pb::HoldSource::Operator, ("", "a late write of the hold"), now, changes);
        }
        Some(true) if book.holds.is_empty() => {
            book.hold(pb::HoldSource::Farm, ("", ""), now, changes);
        }
        Some(false) => {
            book.forget(pb::HoldSource::Farm, changes);
            if book.releasing() {
                book.forget(pb::HoldSource::Unspecified, changes);
            }
        }
        _ => {}
    }
}
