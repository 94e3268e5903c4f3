//! What a PLC took and the journal does not know: the journal was put back, was lost, or another
//! agent ran on a copy of it. Whoever asks again for one of those doses must not be fed again, so
//! what the PLC's history still tells is taken in before the next dose. What it does not tell any
//! more closes the robot to commanded doses until someone at the farm has looked.

use std::collections::BTreeMap;

use pasamanos_proto::model::Reason;
use pasamanos_proto::pb;

use super::state::State;
use crate::calendar::Moment;
use crate::driver::{Slot, SlotOp, SlotResult, SlotState};
use crate::journal::Change;
use crate::records::Alarm;

/// What was taken in of one robot; durable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recall {
    /// (epoch, sequence) up to which it was done.
    pub through: Option<(u32, u32)>,
    /// The doses, by token, each with its epoch.
    pub doses: BTreeMap<u32, (u32, SlotResult)>,
    /// Some are known to nobody.
    pub gap: bool,
}

impl State {
    /// How many slots the PLC took in its epoch that nobody here gave, or took in.
    pub(crate) fn behind(&self, slot: &Slot) -> u32 {
        let known = [self.slot, self.recall.through].into_iter().flatten();
        let of_epoch = known.filter(|(epoch, _)| *epoch == slot.epoch);
        of_epoch.map(|(_, known)| beyond(slot, known)).min().unwrap_or(slot.last_sequence)
    }

    /// Whether the PLC forgot slots that were taken in.
    pub(crate) fn forgot_recalled(&self, slot: &Slot) -> bool {
        self.recall.through.is_some_and(|(epoch, sequence)| {
            epoch == slot.epoch && is_ahead(slot.last_sequence, sequence)
        })
    }

    /// The PLC forgot slots that were taken in: those that it takes in their place are others.
    pub(crate) fn recall_again(&mut self, slot: &Slot, changes: &mut Vec<Change>) {
        if !self.forgot_recalled(slot) {
            return;
        }
        self.recall.through = Some((slot.epoch, slot.last_sequence));
        changes.push(Change::Recalled {
            robot: self.robot.clone(),
            epoch: slot.epoch,
            sequence: slot.last_sequence,
            doses: Vec::new(),
            gap: self.recall.gap,
        });
    }

    /// Takes in what the PLC's history tells of the slots that it took unknown to us. `slot` must be
    /// at rest, and the same before and after the history was read.
    pub(crate) fn recall(
        &mut self,
        slot: &Slot,
        history: &[SlotResult],
        now: &Moment,
        changes: &mut Vec<Change>,
    ) {
        let behind = self.behind(slot);
        if behind == 0 {
            return;
        }
        let shown = SlotResult {
            sequence: slot.last_sequence,
            op: slot.last_op,
            token: slot.last_token,
            state: slot.state,
            dispensed_mg: slot.dispensed_mg.unwrap_or(0),
        };
        // Plain tags show a number and no token: they tell of nothing.
        let shown = Some(shown).filter(|_| self.traits.sequenced);
        let told: BTreeMap<u32, SlotResult> = history
            .iter()
            .copied()
            .chain(shown)
            .filter(|r| slot.last_sequence.wrapping_sub(r.sequence) < behind)
            .map(|r| (r.sequence, r))
            .collect();
        let unknown = behind - u32::try_from(told.len()).unwrap_or(behind).min(behind);
        let doses: Vec<_> = told
            .into_values()
            .filter(|r| r.op == SlotOp::Dose && r.state != SlotState::Started)
            .collect();
        tracing::warn!(
            robot = %self.robot, behind, unknown, doses = doses.len(),
            "the PLC took slots that this journal does not know"
        );
        let gap = self.recall.gap || unknown > 0;
        if gap && !self.recall.gap {
            let robot = &self.robot;
            let alarm = Alarm::robot(Reason::JournalNotWhole, pb::AlarmSeverity::Critical, robot)
                .with("robot", robot);
            changes.push(Change::Record(Box::new(alarm.to_record(now.wall_ms))));
        }
        self.recall.gap = gap;
        self.recall.through = Some((slot.epoch, slot.last_sequence));
        self.recall.doses.extend(doses.iter().map(|r| (r.token, (slot.epoch, *r))));
        changes.push(Change::Recalled {
            robot: self.robot.clone(),
            epoch: slot.epoch,
            sequence: slot.last_sequence,
            doses,
            gap,
        });
    }

    /// The dose that was taken in under this token.
    pub(crate) fn recalled(&self, token: u32) -> Option<(u32, SlotResult)> {
        self.recall.doses.get(&token).copied()
    }
}

/// How many slots it took after the one of its epoch that is known. A sequence that it has not taken
/// yet, or has forgotten, is none.
fn beyond(slot: &Slot, known: u32) -> u32 {
    if is_ahead(slot.last_sequence, known) { 0 } else { slot.last_sequence.wrapping_sub(known) }
}

/// Whether this sequence is ahead of what the PLC shows.
fn is_ahead(shown: u32, sequence: u32) -> bool {
    shown.wrapping_sub(sequence) > u32::MAX / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_waits_to_be_taken_is_not_one_that_is_unknown() {
        let at = |last_sequence| Slot {
            epoch: 7,
            last_sequence,
            last_op: SlotOp::Dose,
            last_token: 1,
            state: SlotState::Done,
            reason: 0,
            dispensed_mg: Some(0),
        };
        assert_eq!(beyond(&at(11), 12), 0);
        assert_eq!(beyond(&at(12), 12), 0);
        assert_eq!(beyond(&at(15), 12), 3);
        assert_eq!(beyond(&at(1), u32::MAX), 2);
    }
}
