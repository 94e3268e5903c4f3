//! One robot's state.

use std::collections::BTreeMap;

use pasamanos_proto::model::{
    Action, Basis, CommandName, CommandOrder, CommandReport, CommandState, FeederId, Reason,
    RobotId,
};
use pasamanos_proto::pb;

use super::book::{Book, Loose};
use super::recall::Recall;
use crate::calendar::{Calendar, Moment};
use crate::driver::{RobotTraits, Slot};
use crate::journal::{Change, Entry, LooseMarks, SlotUse};
use crate::records::{Alarm, Portion};

/// A commanded dose that is not settled; it locks its robot's doses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OpenDose {
    /// The command.
    pub order: CommandOrder,
    /// The session epoch in which it was journaled.
    pub epoch: i64,
    /// What was asked, mg.
    pub amount_mg: u32,
    /// The slot that it was given.
    pub slot: Option<SlotUse>,
    /// When it was journaled, wall clock.
    pub since_ms: i64,
    /// It was reported as UNCERTAIN, and what comes now is its settlement.
    pub uncertain: bool,
}

/// One robot's state.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// The robot.
    pub robot: RobotId,
    /// What it can prove.
    pub traits: RobotTraits,
    /// The journal is new: what this PLC did before is in no envelope.
    pub fresh: bool,
    /// (epoch, sequence) of the last slot used.
    pub slot: Option<(u32, u32)>,
    /// The slot that was last read as consumed: a PLC that shows it free again lost memory.
    pub consumed: Option<(u32, u32)>,
    /// Since when, monotonic, the journal does not have that yet.
    pub unkept_since_ms: Option<i64>,
    /// What the PLC took unknown to the journal.
    pub recall: Recall,
    /// The PLC's epoch as last read.
    pub plc_epoch: Option<u32>,
    /// The dose that is not settled.
    pub open_dose: Option<OpenDose>,
    /// Since when each fault is active, wall clock; `None` before the first look.
    pub faults: Option<BTreeMap<u32, i64>>,
    /// Silence longer than this means that nobody watched, ms.
    pub gap_ms: i64,
    /// Its feeders.
    pub feeders: BTreeMap<FeederId, Book>,
    /// Tells the farm's day.
    pub calendar: Calendar,
}

/// How a commanded dose ended, for the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DoseEnd {
    /// What counts as fed, mg.
    pub mg: u64,
    /// How that is known.
    pub basis: Basis,
}

impl State {
    /// What an unsettled entry of the journal means for this robot.
    pub(crate) fn adopt(&mut self, entry: &Entry, wall_ms: i64) {
        match &entry.order.action {
            Action::FeedNow { portion_mg } if !entry.settled => {
                if let Some(book) = self.feeders.get_mut(&entry.order.feeder) {
                    book.reserved_mg = u64::try_from(*portion_mg).unwrap_or(0);
                }
                self.open_dose = Some(OpenDose {
                    order: entry.order.clone(),
                    epoch: entry.epoch,
                    amount_mg: u32::try_from(*portion_mg).unwrap_or(0),
                    slot: entry.slot,
                    since_ms: wall_ms,
                    uncertain: entry.report.is_some(),
                });
            }
            Action::UpdateConfig { .. } if entry.loose || entry.report.is_none() => {
                if let Some(book) = self.feeders.get_mut(&entry.order.feeder) {
                    let base = entry.slot.map(|s| (s.epoch, s.sequence));
                    let loose = Loose::new(entry.order.clone(), entry.epoch, base);
                    let mixed =
                        entry.report.as_ref().is_some_and(|r| r.reason == Reason::ConfigMixed);
                    book.loose.push(Loose {
                        reported: entry.report.is_some() || entry.settled,
                        resolved: entry.settled,
                        recovered: true,
                        mixed,
                        marks: entry.marks.clone(),
                        ..loose
                    });
                }
            }
            _ => {}
        }
    }

    /// The slot as journal and PLC have it, for a hello. A sequence that the journal gave away and the
    /// PLC has not consumed is no difference: the journal knows all that the PLC did.
    pub(crate) fn journal_slot(&self, plc: Option<&Slot>) -> (u32, u32) {
        let (epoch, sequence) = self.slot.unwrap_or((0, 0));
        match plc {
            Some(plc)
                if plc.epoch == epoch
                    && plc.last_sequence == sequence.wrapping_sub(1)
                    && self.consumed != Some((epoch, sequence)) =>
            {
                (epoch, plc.last_sequence)
            }
            _ => (epoch, sequence),
        }
    }

    /// Journals a dose before the first byte: intent, slot and reservation together.
    pub(crate) fn begin_dose(
        &mut self,
        order: &CommandOrder,
        epoch: i64,
        amount_mg: u32,
        slot: Option<SlotUse>,
        now: &Moment,
        changes: &mut Vec<Change>,
    ) {
        changes.push(Change::Command(Box::new(Entry {
            order: order.clone(),
            robot: self.robot.clone(),
            epoch,
            slot,
            report: None,
            settled: false,
            loose: false,
            marks: LooseMarks::default(),
        })));
        // Of a dose that was taken in the slot is long past.
        if let Some(slot) = slot.filter(|s| self.recalled(s.token).is_none()) {
            self.slot = Some((slot.epoch, slot.sequence));
            changes.push(Change::Slot(self.robot.clone(), slot.epoch, slot.sequence));
        }
        if let Some(book) = self.feeders.get_mut(&order.feeder) {
            book.reserved_mg = amount_mg.into();
            book.count(amount_mg.into(), Some(&order.command), false, now, changes);
        }
        let (order, since_ms) = (order.clone(), now.wall_ms);
        self.open_dose =
            Some(OpenDose { order, epoch, amount_mg, slot, since_ms, uncertain: false });
    }

    /// Journals the slot that was read as consumed: a restart forgets what the executor saw, and a PLC that
    /// rolled back meanwhile would take a fence for a dose that it gave, told then as never executed.
    pub(crate) fn keep_consumed(&mut self, changes: &mut Vec<Change>) {
        if self.unkept_since_ms.take().is_some() {
            changes.push(Change::Consumed(self.robot.clone(), self.consumed));
        }
    }

    /// Nothing was sent: the slot is as free as it was.
    pub(crate) fn return_slot(&mut self, slot: SlotUse, changes: &mut Vec<Change>) {
        let before = slot.sequence.wrapping_sub(1);
        self.slot = Some((slot.epoch, before));
        changes.push(Change::Slot(self.robot.clone(), slot.epoch, before));
    }

    /// Journals the end of the open dose: outcome, record, account and envelope together. `None` of
    /// `end`: nothing fell and nothing will.
    pub(crate) fn end_dose(
        &mut self,
        report: &CommandReport,
        end: Option<DoseEnd>,
        now: &Moment,
        changes: &mut Vec<Change>,
    ) {
        self.keep_consumed(changes);
        let name = &report.command;
        let uncertain = report.state == CommandState::Uncertain;
        changes.push(Change::Outcome {
            report: Box::new(report.clone()),
            settled: !uncertain,
            loose: false,
        });
        let Some(dose) = self.open_dose.clone().filter(|d| d.order.command == *name) else {
            return;
        };
        if uncertain {
            // Counted in full by its reservation; its record follows when it is settled.
            let alarm =
                Alarm::feeder(report.reason, pb::AlarmSeverity::Critical, &dose.order.feeder)
                    .with("command", name);
            changes.push(Change::Record(Box::new(alarm.to_record(now.wall_ms))));
            self.open_dose = Some(OpenDose { uncertain: true, ..dose });
            return;
        }
        self.open_dose = None;
        let outcome = match report.state {
            CommandState::Partial => pb::DoseOutcome::Partial,
            _ => pb::DoseOutcome::Given,
        };
        self.close_dose(&dose, outcome, report, end, now, changes);
    }

    /// A person settled the dose in doubt: it counts as they say, and unlocks the robot.
    pub(crate) fn resolve_dose(
        &mut self,
        name: &CommandName,
        resolution: &pb::Resolution,
        report: &CommandReport,
        now: &Moment,
        changes: &mut Vec<Change>,
    ) {
        changes.push(Change::Resolved(name.clone(), resolution.clone()));
        let Some(dose) = self.open_dose.take_if(|d| d.order.command == *name) else { return };
        let planned = u64::from(dose.amount_mg);
        let end = match resolution.verdict() {
            pb::ResolutionVerdict::NotFed => None,
            _ => Some(DoseEnd {
                mg: resolution.fed_mg.map_or(planned, |mg| u64::try_from(mg).unwrap_or(planned)),
                basis: Basis::Assumed,
            }),
        };
        self.close_dose(&dose, pb::DoseOutcome::Uncertain, report, end, now, changes);
    }

    #[allow(clippy::too_many_arguments, reason = "one transaction, all of it")]
    fn close_dose(
        &mut self,
        dose: &OpenDose,
        outcome: pb::DoseOutcome,
        report: &CommandReport,
        end: Option<DoseEnd>,
        now: &Moment,
        changes: &mut Vec<Change>,
    ) {
        let Some(book) = self.feeders.get_mut(&dose.order.feeder) else { return };
        book.reserved_mg = 0;
        let name = dose.order.command.clone();
        let mg = end.map_or(0, |e| i64::try_from(e.mg).unwrap_or(i64::MAX));
        book.envelope.settle(&name, mg);
        changes.push(Change::EnvelopeSettled(name.clone(), mg));
        let Some(end) = end else { return };
        book.account.command_dispensed(end.mg, now.mono_ms);
        let portion = Portion {
            cause: pb::DoseCause::Command,
            outcome,
            reason: report.reason,
            command: Some(name),
            planned_mg: Some(dose.amount_mg),
            dispensed: Some((end.mg, end.basis)),
            start_ms: dose.since_ms,
            end_ms: now.wall_ms,
        };
        let date = self.calendar.date(dose.since_ms);
        book.record(&portion, &date, now, changes);
        changes.push(Change::Mark(dose.order.feeder.clone(), book.account.mark.clone()));
    }
}
