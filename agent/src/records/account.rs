//! A feeder's account: every milligram by which its totaliser grows lands in exactly one record,
//! whoever caused it. Pure: it is shown snapshots and answers with what fell.

use pasamanos_proto::model::{Basis, Reason};
use pasamanos_proto::pb;

use super::{Portion, plc_reason};
use crate::driver::{FeederSnapshot, Meal, SlotState};
use crate::journal::Mark;

/// What it is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight<'a> {
    /// The feeder.
    pub feeder: &'a FeederSnapshot,
    /// When, monotonic.
    pub mono_ms: i64,
    /// When, wall clock.
    pub wall_ms: i64,
    /// Silence longer than this means that nobody watched.
    pub gap_ms: i64,
    /// Whether its config feeds by itself.
    pub automatic: bool,
    /// Whether a commanded dose of it is not settled: growth is left for its outcome.
    pub commanded: bool,
    /// How amounts of this PLC are known.
    pub basis: Basis,
}

/// A feeder's account. [`Mark`] is durable, the rest is not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    /// Up to where all feed is recorded.
    pub mark: Mark,
    seen_ms: Option<i64>,
    total_mg: Option<u64>,
    unwatched: bool,
    began_ms: Option<i64>,
    /// Since when somebody has watched for what is ahead, monotonic; not durable, so a restart waits
    /// anew.
    ahead_since_ms: Option<i64>,
}

/// Recorded feed that the totaliser does not show for this long while it is read, it never counted.
const AHEAD_MS: i64 = 60_000;
/// Some totalisers are 32 bits wide and wrap.
const WRAP: u64 = 1 << 32;

/// How far a totaliser went from `from` to `to`; `None` if it was set back.
fn growth(from: u64, to: u64) -> Option<u64> {
    match to.checked_sub(from) {
        Some(grown) => Some(grown),
        None if (WRAP / 2..WRAP).contains(&from) && to < WRAP / 2 => Some(to + WRAP - from),
        None => None,
    }
}

fn forward(mark: u64, by: u64, total: u64) -> u64 {
    if total >= mark { mark + by } else { (mark + by) % WRAP }
}

impl Account {
    /// Goes on from the journal.
    pub(crate) fn new(mark: Mark) -> Self {
        Self { mark, ..Self::default() }
    }

    /// What the totaliser shows and no record holds, mg.
    pub(crate) fn unrecorded_mg(&self) -> u64 {
        let grown = match (self.mark.total_mg, self.total_mg) {
            (Some(mark), Some(total)) => growth(mark, total).unwrap_or(0),
            _ => 0,
        };
        grown.saturating_sub(self.mark.ahead_mg)
    }

    /// Takes what a command dispensed out of the growth: its record is the command's.
    pub(crate) fn command_dispensed(&mut self, mg: u64, mono_ms: i64) {
        if self.mark.total_mg.is_some() {
            self.take(mg);
            self.ahead_since_ms = Some(mono_ms);
        }
        self.began_ms = None;
    }

    /// Begins anew: the PLC lost its memory.
    pub(crate) fn rebase(&mut self, feeder: &FeederSnapshot) {
        self.mark.ahead_mg = 0;
        self.baseline(feeder);
    }

    fn baseline(&mut self, feeder: &FeederSnapshot) {
        let running = feeder.meal.filter(|m| m.state == SlotState::Started);
        let so_far = running.map_or(0, |m| u64::from(m.dispensed_mg));
        self.mark.total_mg = feeder.total_mg.map(|t| t.saturating_sub(so_far));
        self.mark.meal = feeder.meal.map(|m| m.number.wrapping_sub(u32::from(running.is_some())));
        self.total_mg = feeder.total_mg;
    }

    /// Moves the mark over feed that was recorded; what the totaliser does not show yet is ahead.
    fn take(&mut self, mg: u64) {
        let Some(mark) = self.mark.total_mg else { return };
        // Not read since the start: all of it will show later.
        let total = self.total_mg.unwrap_or(mark);
        let there = growth(mark, total).unwrap_or(0).min(mg);
        self.mark.total_mg = Some(forward(mark, there, total));
        self.mark.ahead_mg += mg - there;
    }

    /// Growth that belongs to what was recorded before.
    fn pay_ahead(&mut self, mono_ms: i64, dosing: bool) {
        let (Some(mark), Some(total)) = (self.mark.total_mg, self.total_mg) else {
            self.mark.ahead_mg = 0;
            return;
        };
        let paid = growth(mark, total).unwrap_or(0).min(self.mark.ahead_mg);
        self.mark.total_mg = Some(forward(mark, paid, total));
        self.mark.ahead_mg -= paid;
        let since = *self.ahead_since_ms.get_or_insert(mono_ms);
        if self.mark.ahead_mg > 0 && !dosing && mono_ms - since > AHEAD_MS {
            tracing::warn!(
                mg = self.mark.ahead_mg,
                "the totaliser did not count what the PLC says it fed"
            );
            self.mark.ahead_mg = 0;
        }
    }

    /// Looks at a snapshot; answers with what fell and is not in doubt.
    pub(crate) fn observe(&mut self, s: &Sight<'_>) -> Vec<Portion> {
        let gap = self.seen_ms.is_none_or(|seen| s.mono_ms - seen > s.gap_ms);
        self.seen_ms = Some(s.mono_ms);
        let before = self.total_mg;
        match (self.mark.total_mg, s.feeder.total_mg) {
            (None, Some(_)) => {
                self.baseline(s.feeder);
                return Vec::new();
            }
            // Not readable now: what it grew meanwhile shows when it is again.
            (Some(_), None) => return Vec::new(),
            _ => {}
        }
        self.total_mg = s.feeder.total_mg;
        if let (Some(mark), Some(total)) = (self.mark.total_mg, self.total_mg)
            && growth(mark, total).is_none()
        {
            // Set back: a new counter, or memory that was lost. Nothing is known of what it showed.
            self.rebase(s.feeder);
            return Vec::new();
        }
        if gap {
            // What a PLC does not show that cannot be read says nothing.
            self.ahead_since_ms = None;
        }
        self.pay_ahead(s.mono_ms, s.feeder.dosing);
        let open = self.unrecorded_mg() > 0;
        self.unwatched = open && (self.unwatched || gap);
        if self.began_ms.is_none() && (s.feeder.dosing || open) {
            self.began_ms = Some(s.wall_ms);
        }
        let mut portions = Vec::new();
        if let Some(meal) = s.feeder.meal {
            self.meals(s, meal, &mut portions);
        }
        self.rest(s, before, &mut portions);
        if !s.feeder.dosing && self.unrecorded_mg() == 0 {
            self.began_ms = None;
        }
        portions
    }

    /// Meals of the schedule that ended since the last look.
    fn meals(&mut self, s: &Sight<'_>, meal: Meal, portions: &mut Vec<Portion>) {
        let last = self.mark.meal.unwrap_or(meal.number);
        let ended = !matches!(meal.state, SlotState::Started | SlotState::Idle);
        let steps = meal.number.wrapping_sub(last);
        // Backwards: another PLC, or memory that was lost.
        if steps == 0 || steps > u32::MAX / 2 {
            self.mark.meal = Some(if steps == 0 { last } else { meal.number });
            return;
        }
        if steps > 1 {
            // Earlier ones passed unseen; theirs is what this one does not explain.
            let theirs = self.unrecorded_mg().saturating_sub(meal.dispensed_mg.into());
            if theirs > 0 && !s.commanded {
                portions.push(self.portion(s, pb::DoseCause::Unobserved, theirs));
                self.take(theirs);
            }
            self.mark.meal = Some(meal.number.wrapping_sub(1));
        }
        if !ended {
            return;
        }
        let mg = u64::from(meal.dispensed_mg);
        let (outcome, reason) = match meal.state {
            SlotState::Done => (pb::DoseOutcome::Given, Reason::Unspecified),
            SlotState::Aborted => (pb::DoseOutcome::Partial, plc_reason(meal.reason).0),
            _ => (pb::DoseOutcome::Skipped, plc_reason(meal.reason).0),
        };
        let dispensed = (outcome != pb::DoseOutcome::Skipped).then_some((mg, s.basis));
        portions.push(Portion {
            outcome,
            reason,
            planned_mg: Some(meal.planned_mg),
            dispensed,
            ..self.portion(s, pb::DoseCause::Schedule, mg)
        });
        if dispensed.is_some() {
            self.take(mg);
            self.ahead_since_ms = Some(s.mono_ms);
        }
        self.mark.meal = Some(meal.number);
        self.began_ms = None;
    }

    /// Growth that no meal and no command explains, once it has come to rest.
    fn rest(&mut self, s: &Sight<'_>, before: Option<u64>, portions: &mut Vec<Portion>) {
        let mg = self.unrecorded_mg();
        if mg == 0 || s.feeder.dosing || s.commanded || before != self.total_mg {
            return;
        }
        let cause = if self.unwatched {
            pb::DoseCause::Unobserved
        } else if s.feeder.meal.is_none() && s.automatic {
            pb::DoseCause::Schedule
        } else {
            pb::DoseCause::Farm
        };
        portions.push(self.portion(s, cause, mg));
        self.take(mg);
        self.unwatched = false;
    }

    fn portion(&self, s: &Sight<'_>, cause: pb::DoseCause, mg: u64) -> Portion {
        Portion {
            cause,
            outcome: pb::DoseOutcome::Given,
            reason: Reason::Unspecified,
            command: None,
            planned_mg: None,
            dispensed: Some((mg, s.basis)),
            start_ms: self.began_ms.unwrap_or(s.wall_ms),
            end_ms: s.wall_ms,
        }
    }
}

#[cfg(test)]
mod tests;
