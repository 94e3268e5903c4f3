//! A robot's sequenced slot: one dose, submitted until it is consumed or fenced. Only what is read
//! back decides; only a consumed slot proves that a dose can never run.

use std::time::Duration;

use pasamanos_faults::{crash_point, planted};
use pasamanos_proto::model::{FeederId, Reason};
use tokio::time::sleep;

use super::job::Job;
use super::verdict::Verdict;
use crate::driver::{
    DriverError, RobotSnapshot, Slot, SlotBlock, SlotOp, SlotResult, SlotState, slot_reason,
};
use crate::journal::SlotUse;
use crate::ledger::DoseEnd;
use crate::records::plc_reason;

/// The identical block is written again after this long without being consumed.
const REPEAT_MS: i64 = 500;
/// Sent and unreadable this long after the start limit is reported as UNCERTAIN.
const DOUBT_MS: i64 = 5_000;
/// A running dose that was read this recently is not in doubt.
const FRESH_MS: i64 = 3_000;

/// How a dose ended.
#[derive(Debug)]
pub(super) struct Settled {
    /// What to report.
    pub verdict: Verdict,
    /// What counts as fed; `None` if nothing fell and nothing will.
    pub end: Option<DoseEnd>,
    /// Nothing was sent, and the slot is as free as it was, or another's dose took it.
    pub unused: bool,
}

impl Settled {
    fn nothing(verdict: Verdict) -> Self {
        Self { verdict, end: None, unused: false }
    }
}

/// What a slot says about a dose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// Not consumed yet.
    Waiting,
    /// The motor may run.
    Running,
    /// Consumed by the dose, and over.
    Ended { state: SlotState, reason: u32, mg: Option<u32> },
    /// Consumed by something else: the dose never ran and never will.
    NotRun,
    /// A later sequence was consumed: the history may tell.
    Passed,
    /// The PLC lost its memory.
    Lost,
}

/// Judges a slot for a dose. Pure.
pub(super) fn judge(slot: &Slot, mine: &SlotUse) -> Judged {
    if slot.epoch != mine.epoch {
        return Judged::Lost;
    }
    match slot.last_sequence.wrapping_sub(mine.sequence) {
        0 if slot.last_op == SlotOp::Dose
            && (slot.last_token == mine.token || planted!("agent-token-ignored")) =>
        {
            match slot.state {
                SlotState::Started | SlotState::Idle => Judged::Running,
                state => Judged::Ended { state, reason: slot.reason, mg: slot.dispensed_mg },
            }
        }
        0 => Judged::NotRun,
        u32::MAX => Judged::Waiting,
        passed if passed <= u32::MAX / 2 => Judged::Passed,
        // Below what it was when the intent was journaled: within one epoch that is lost memory.
        _ => Judged::Lost,
    }
}

/// A dose on its way through the slot.
#[derive(Debug)]
pub(super) struct Drive {
    mine: SlotUse,
    amount_mg: u32,
    dispensing_ms: i64,
    start_before_ms: i64,
    block: SlotBlock,
    sent: bool,
    op: SlotOp,
    doubted: bool,
    /// What fell is in the books already, as growth that nobody watched.
    recorded: bool,
    /// How it ended, if the ledger took that in before the PLC forgot it.
    end: Option<SlotResult>,
    running: bool,
    /// It was read as consumed by this dose: a PLC that shows it unconsumed lost memory.
    consumed: bool,
    written_ms: Option<i64>,
    read_ms: i64,
}

impl Drive {
    /// A dose that was just journaled.
    pub(super) fn new(job: &Job, mine: SlotUse, block: SlotBlock, dispensing_ms: i64) -> Self {
        Self {
            mine,
            amount_mg: block.amount_mg,
            dispensing_ms,
            start_before_ms: job.order.start_before_ms,
            block,
            sent: false,
            op: SlotOp::Dose,
            doubted: false,
            recorded: false,
            end: None,
            running: false,
            consumed: false,
            written_ms: None,
            read_ms: job.now_ms(),
        }
    }

    /// A dose that was found open: it is never submitted again, only fenced.
    pub(super) fn recovered(job: &Job, mine: SlotUse, outlet: u8, amount_mg: u32) -> Self {
        let block = SlotBlock {
            epoch: mine.epoch,
            sequence: mine.sequence,
            op: SlotOp::Nop,
            outlet,
            amount_mg,
            token: mine.token,
            rate_mg_per_s: 0,
            expires_at_s: if planted!("agent-open-dose-repeated") { u32::MAX } else { 0 },
            start_before_ms: i64::MAX,
        };
        Self {
            start_before_ms: job.now_ms(),
            sent: true,
            op: if planted!("agent-open-dose-repeated") { SlotOp::Dose } else { SlotOp::Nop },
            ..Self::new(job, mine, block, 0)
        }
    }

    /// A dose that the PLC took and the journal of that time is not here.
    pub(super) fn recalled(
        job: &Job,
        mine: SlotUse,
        outlet: u8,
        amount_mg: u32,
        end: Option<SlotResult>,
    ) -> Self {
        Self { recorded: true, end, ..Self::recovered(job, mine, outlet, amount_mg) }
    }

    /// Whether it was reported as UNCERTAIN already.
    pub(super) fn doubted(mut self, doubted: bool) -> Self {
        self.doubted = doubted;
        self
    }

    /// Goes on until the dose is settled. `None`, once: it is in doubt now; go on to settle it.
    pub(super) async fn run(&mut self, job: &Job) -> Option<Settled> {
        if let Some(end) = self.end {
            return Some(self.ended(job, end.state, 0, Some(end.dispensed_mg)));
        }
        let mut pause = 50;
        loop {
            let repeated =
                planted!("agent-open-dose-repeated") && self.block.expires_at_s == u32::MAX;
            let late = job.too_late().is_some() || job.context.gate.stale();
            if self.op == SlotOp::Dose && late && !repeated {
                self.op = SlotOp::Nop;
                self.written_ms = None;
            }
            if let Some(settled) = self.write(job).await {
                return Some(settled);
            }
            let read = job.cell.read_status().await;
            if let Ok(snapshot) = &read
                && let Some(settled) = self.look(job, snapshot).await
            {
                crash_point!("agent.dose.consumed");
                return Some(settled);
            }
            if self.in_doubt(job.now_ms()) {
                self.doubted = true;
                return None;
            }
            let most = if self.doubted { 1_000 } else { 250 };
            sleep(Duration::from_millis(pause)).await;
            pause = (pause * 2).min(most);
        }
    }

    fn in_doubt(&self, now: i64) -> bool {
        let since = self.start_before_ms + DOUBT_MS;
        if self.doubted || now < since {
            return false;
        }
        // A dose that is seen to run takes its time; one that was seen to start and cannot be read
        // any more has until it should be over.
        !self.running || (now - self.read_ms > FRESH_MS && now >= since + self.dispensing_ms)
    }

    /// Writes dose or fence if it is time. A repeat is harmless: the block is the same, and the PLC
    /// takes a sequence once.
    async fn write(&mut self, job: &Job) -> Option<Settled> {
        let now = job.now_ms();
        if self.running || self.written_ms.is_some_and(|at| now - at < REPEAT_MS) {
            return None;
        }
        // Whoever read it as consumed, or saw the PLC forget it: it is not written again.
        let mine = (self.mine.epoch, self.mine.sequence);
        let state = job.cell.ledger.look().await;
        if state.consumed == Some(mine) || state.slot.is_some_and(|s| s != mine) {
            return None;
        }
        drop(state);
        if self.op == SlotOp::Nop && !self.sent {
            let verdict = job.too_late().unwrap_or_else(Verdict::expired);
            return Some(Settled { unused: true, ..Settled::nothing(verdict) });
        }
        self.written_ms = Some(now);
        let submitted = job.cell.submit(&SlotBlock { op: self.op, ..self.block }).await;
        if planted!("agent-dose-retried-on-timeout") && submitted.is_err() {
            self.mine.sequence = self.mine.sequence.wrapping_add(1);
            self.block.sequence = self.mine.sequence;
        }
        match submitted {
            Err(DriverError::Ambiguous(_)) if planted!("agent-timeout-is-refusal") => {
                Some(Settled::nothing(Verdict::rejected(Reason::PlcRefused)))
            }
            Ok(()) | Err(DriverError::Ambiguous(_) | DriverError::BadData(_)) => {
                self.sent = true;
                crash_point!("agent.dose.submitted");
                None
            }
            // Certain that nothing was sent, now; whether something was before is what counts.
            Err(_) if self.sent => None,
            Err(e) => {
                let verdict = match e {
                    DriverError::NotConnected => {
                        Verdict::rejected(Reason::PlcUnreachable).with("robot", &job.cell.id)
                    }
                    e => Verdict::rejected(Reason::PlcRefused)
                        .with("plc_reason", "refused")
                        .detail(e.to_string()),
                };
                Some(Settled { unused: true, ..Settled::nothing(verdict) })
            }
        }
    }

    /// Looks at what was read back.
    async fn look(&mut self, job: &Job, snapshot: &RobotSnapshot) -> Option<Settled> {
        let slot = snapshot.slot.as_ref()?;
        self.read_ms = job.now_ms();
        let mut judged = judge(slot, &self.mine);
        self.consumed |= matches!(judged, Judged::Running | Judged::Ended { .. });
        // Another read may have seen it consumed: the ledger, which sees all, has then moved back.
        let mine = (self.mine.epoch, self.mine.sequence);
        let forgotten = job.cell.ledger.look().await.slot.is_some_and(|s| s != mine);
        if (self.consumed || forgotten) && judged == Judged::Waiting {
            judged = Judged::Lost;
        }
        self.running = judged == Judged::Running;
        match judged {
            Judged::Waiting | Judged::Running => None,
            Judged::NotRun => {
                let overtaken =
                    job.overtaken().then(|| Verdict::rejected(Reason::SupersededByHold));
                // Another's dose took it: it was not ours to give, and that dose is to be taken in.
                let unused = slot.last_op == SlotOp::Dose;
                let verdict = overtaken.unwrap_or_else(Verdict::expired);
                Some(Settled { unused, ..Settled::nothing(verdict) })
            }
            Judged::Ended { state, reason, mg } => Some(self.ended(job, state, reason, mg)),
            Judged::Lost if !self.sent && !self.consumed && !forgotten => Some(Settled::nothing(
                Verdict::rejected(Reason::PlcMemoryLost).with("robot", &job.cell.id),
            )),
            Judged::Lost => Some(
                self.unknown(Verdict::uncertain(Reason::PlcMemoryLost).with("robot", &job.cell.id)),
            ),
            Judged::Passed => {
                let history = job.cell.history().await.ok()?;
                // The history bears no epoch: it counts only if the PLC is still in ours after it.
                let after = job.cell.read_status().await.ok()?;
                let epoch = after.slot.as_ref()?.epoch;
                (epoch == self.mine.epoch).then(|| self.passed(job, &history))
            }
        }
    }

    /// What the history says of a sequence that was passed.
    fn passed(&self, job: &Job, history: &[SlotResult]) -> Settled {
        match history.iter().find(|r| r.sequence == self.mine.sequence) {
            Some(r) if r.token != self.mine.token || r.op != SlotOp::Dose => {
                let unused = r.op == SlotOp::Dose;
                Settled { unused, ..Settled::nothing(Verdict::expired()) }
            }
            Some(r) if r.state != SlotState::Started => {
                self.ended(job, r.state, 0, Some(r.dispensed_mg))
            }
            _ => self.unknown(
                Verdict::uncertain(Reason::AgentLost)
                    .detail("the PLC keeps no result of this dose any more"),
            ),
        }
    }

    fn ended(&self, job: &Job, state: SlotState, reason: u32, mg: Option<u32>) -> Settled {
        let basis = job.cell.traits.basis;
        let (why, name) = plc_reason(reason);
        // A block always tells an amount; how it knows it is the robot's.
        let mg = u64::from(mg.unwrap_or(self.amount_mg));
        let end = (!self.recorded).then_some(DoseEnd { mg, basis });
        match state {
            SlotState::Done => {
                let verdict = Verdict::applied().dispensed(mg, basis);
                Settled { verdict, end, unused: false }
            }
            SlotState::Aborted if basis.is_measured() => {
                let why = if why == Reason::Held { why } else { Reason::PlcRefused };
                let verdict = Verdict::partial(why).dispensed(mg, basis);
                let verdict =
                    if why == Reason::Held { verdict } else { verdict.with("plc_reason", name) };
                Settled { verdict, end, unused: false }
            }
            SlotState::Aborted => self.unknown(
                Verdict::uncertain(Reason::PlcRefused)
                    .with("plc_reason", name)
                    .detail("the PLC ended the dose short and does not measure it"),
            ),
            SlotState::Rejected => Settled::nothing(refused(job.feeder(), job, reason, name)),
            _ => Settled::nothing(Verdict::expired()),
        }
    }

    fn unknown(&self, verdict: Verdict) -> Settled {
        let verdict =
            verdict.dispensed(self.amount_mg.into(), pasamanos_proto::model::Basis::Assumed);
        Settled { verdict, end: None, unused: false }
    }
}

/// The PLC refused the dose: the slot is consumed and nothing was dispensed.
fn refused(feeder: &FeederId, job: &Job, reason: u32, name: &str) -> Verdict {
    match reason {
        slot_reason::HELD if job.overtaken() => Verdict::rejected(Reason::SupersededByHold),
        slot_reason::LOCAL => Verdict::rejected(Reason::LocalHold).with("feeder", feeder),
        slot_reason::OFF => Verdict::rejected(Reason::FeederOff).with("feeder", feeder),
        _ => Verdict::rejected(Reason::PlcRefused).with("plc_reason", name),
    }
}

/// A word that no restart and no other command has: the first 32 bits of SHA-256 of the name.
pub(crate) fn token(name: &pasamanos_proto::model::CommandName) -> u32 {
    use sha2::{Digest as _, Sha256};
    let hash = Sha256::digest(name.to_string());
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: SlotUse = SlotUse { epoch: 7, sequence: 5, token: 99 };

    fn slot(epoch: u32, sequence: u32, op: SlotOp, token: u32, state: SlotState) -> Slot {
        Slot {
            epoch,
            last_sequence: sequence,
            last_op: op,
            last_token: token,
            state,
            reason: 0,
            dispensed_mg: Some(42),
        }
    }

    #[test]
    fn a_slot_is_mine_only_if_sequence_token_and_op_match() {
        use SlotOp::{Dose, Nop};
        use SlotState::{Done, Started};
        let done = Judged::Ended { state: Done, reason: 0, mg: Some(42) };
        assert_eq!(judge(&slot(7, 4, Dose, 1, Done), &MINE), Judged::Waiting);
        assert_eq!(judge(&slot(7, 5, Dose, 99, Started), &MINE), Judged::Running);
        assert_eq!(judge(&slot(7, 5, Dose, 99, Done), &MINE), done);
        assert_eq!(judge(&slot(7, 5, Dose, 98, Done), &MINE), Judged::NotRun);
        assert_eq!(judge(&slot(7, 5, Nop, 99, Done), &MINE), Judged::NotRun);
        assert_eq!(judge(&slot(7, 6, Dose, 1, Done), &MINE), Judged::Passed);
        assert_eq!(judge(&slot(8, 5, Dose, 99, Done), &MINE), Judged::Lost);
        assert_eq!(judge(&slot(7, 3, Dose, 99, Done), &MINE), Judged::Lost);
    }

    #[test]
    fn sequences_wrap() {
        let mine = SlotUse { epoch: 7, sequence: 0, token: 99 };
        assert_eq!(
            judge(&slot(7, u32::MAX, SlotOp::Nop, 1, SlotState::Done), &mine),
            Judged::Waiting
        );
        assert_eq!(judge(&slot(7, 1, SlotOp::Nop, 1, SlotState::Done), &mine), Judged::Passed);
    }
}
