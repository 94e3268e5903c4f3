//! A dose through plain tags, without a slot that proves anything: written once, never repeated.
//! What the PLC shows afterwards may prove that it fed; nothing proves that it did not.

use std::time::Duration;

use pasamanos_proto::model::Reason;
use tokio::time::sleep;

use super::job::Job;
use super::slot::Settled;
use super::verdict::Verdict;
use crate::driver::{DriverError, FeederSnapshot, RobotSnapshot, SlotBlock, SlotOp, SlotState};
use crate::ledger::{DoseEnd, OpenDose};

/// How often the robot is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Nothing seen this long after the start limit and the dose's length is in doubt.
const DOUBT_MS: i64 = 5_000;
/// A dose in doubt is looked for this long after its PLC can be read again; then only a person knows.
const SEARCH_MS: i64 = 60_000;

/// A dose that was written, or is about to be, and is watched for.
#[derive(Debug)]
pub(super) struct Watch {
    block: Option<SlotBlock>,
    sequence: Option<u32>,
    amount_mg: u32,
    /// The totaliser before; `None` if there is none or it was not seen.
    before_mg: Option<u64>,
    doubt_ms: i64,
    doubted: bool,
    /// It was seen to feed.
    fed: bool,
    last_total: Option<u64>,
    readable_ms: Option<i64>,
}

impl Watch {
    /// A dose that was just journaled.
    pub(super) fn new(
        job: &Job,
        block: SlotBlock,
        before_mg: Option<u64>,
        dispensing_ms: i64,
    ) -> Self {
        Self {
            block: Some(block),
            sequence: Some(block.sequence),
            amount_mg: block.amount_mg,
            before_mg,
            doubt_ms: job.order.start_before_ms + dispensing_ms + DOUBT_MS,
            doubted: false,
            fed: false,
            last_total: None,
            readable_ms: None,
        }
    }

    /// A dose that was found open: it is only watched for.
    pub(super) fn recovered(job: &Job, open: &OpenDose) -> Self {
        Self {
            block: None,
            sequence: open.slot.map(|s| s.sequence),
            amount_mg: open.amount_mg,
            before_mg: None,
            doubt_ms: job.now_ms() + DOUBT_MS,
            doubted: open.uncertain,
            fed: false,
            last_total: None,
            readable_ms: None,
        }
    }

    /// Goes on until it is proven or given up. `None`, once: it is in doubt now.
    pub(super) async fn run(&mut self, job: &Job) -> Option<Settled> {
        if self.before_mg.is_none() {
            // All growth before the intent is recorded: the mark is the totaliser before.
            let state = job.cell.ledger.look().await;
            let book = state.feeders.get(job.feeder());
            self.before_mg = book.and_then(|b| b.account.mark.total_mg);
        }
        if let Some(block) = self.block.take()
            && let Some(refused) = submit(job, &block).await
        {
            return Some(refused);
        }
        loop {
            if let Ok(snapshot) = job.cell.read_status().await
                && let Some(settled) = self.look(job, &snapshot)
            {
                return Some(settled);
            }
            let now = job.now_ms();
            if !self.doubted && now >= self.doubt_ms {
                self.doubted = true;
                return None;
            }
            if self.doubted && self.readable_ms.is_some_and(|since| now - since > SEARCH_MS) {
                let verdict =
                    Verdict::uncertain(Reason::PlcUnreachable).with("robot", &job.cell.id);
                return Some(Settled { verdict, end: None, unused: false });
            }
            sleep(LOOK).await;
        }
    }

    /// What is seen now; only proof settles.
    fn look(&mut self, job: &Job, snapshot: &RobotSnapshot) -> Option<Settled> {
        self.readable_ms.get_or_insert(job.now_ms());
        let feeder = snapshot.feeders.iter().find(|f| f.feeder == *job.feeder())?;
        self.fed |= feeder.dosing;
        if let Some(settled) = self.echo(job, snapshot, feeder) {
            return Some(settled);
        }
        // While the PLC echoes, the echo tells; a meal of the schedule grows the totaliser too.
        let echoes = snapshot.slot.is_some();
        self.totaliser(job, feeder, echoes)
    }

    /// The PLC echoes the sequence that it ran.
    fn echo(
        &self,
        job: &Job,
        snapshot: &RobotSnapshot,
        feeder: &FeederSnapshot,
    ) -> Option<Settled> {
        let slot = snapshot.slot.filter(|s| Some(s.last_sequence) == self.sequence)?;
        if slot.last_op != SlotOp::Dose {
            return None;
        }
        let asked = u64::from(self.amount_mg);
        let (mut mg, basis) = (u64::from(slot.dispensed_mg), job.cell.traits.basis);
        let mut short = mg > 0 && mg + 1 < asked;
        // Not mapped, or cut at once by a power loss that the echo survived: the totaliser tells, at
        // rest. A PLC that forgot what was asked shows only that it ended.
        if slot.state == SlotState::Done
            && mg == 0
            && let (Some(total), Some(before)) = (feeder.total_mg, self.before_mg)
        {
            if feeder.dosing || self.last_total != Some(total) {
                return None;
            }
            let grown = total.checked_sub(before)?;
            short = grown + (asked / 20).max(1) < asked;
            mg = if short { grown } else { 0 };
        }
        short &= basis.is_measured();
        let end = Some(DoseEnd { mg, basis });
        match slot.state {
            SlotState::Done if !short => {
                let verdict = Verdict::applied().dispensed(mg, basis);
                Some(Settled { verdict, end, unused: false })
            }
            SlotState::Done | SlotState::Aborted if basis.is_measured() => {
                let why = match slot.state {
                    SlotState::Done => "short",
                    _ => crate::records::plc_reason(slot.reason).1,
                };
                let verdict = Verdict::partial(Reason::PlcRefused)
                    .with("plc_reason", why)
                    .dispensed(mg, basis);
                Some(Settled { verdict, end, unused: false })
            }
            _ => None,
        }
    }

    /// The totaliser grew by what was asked and came to rest.
    fn totaliser(&mut self, job: &Job, feeder: &FeederSnapshot, echoes: bool) -> Option<Settled> {
        let total = feeder.total_mg?;
        let rested = self.last_total.replace(total) == Some(total) && !feeder.dosing;
        let grown = total.checked_sub(self.before_mg?)?;
        let asked = u64::from(self.amount_mg);
        let slack = (asked / 20).max(1);
        if !rested || grown == 0 || (echoes && !self.doubted) {
            return None;
        }
        let basis = job.cell.traits.basis;
        let end = Some(DoseEnd { mg: grown, basis });
        if grown + slack >= asked && grown <= asked + slack {
            let verdict = Verdict::applied().dispensed(grown, basis);
            return Some(Settled { verdict, end, unused: false });
        }
        // Short, and the PLC was seen to end it.
        (self.fed && !echoes && grown < asked && basis.is_measured() && !self.doubted).then(|| {
            Settled {
                verdict: Verdict::partial(Reason::PlcRefused)
                    .with("plc_reason", "short")
                    .dispensed(grown, basis),
                end,
                unused: false,
            }
        })
    }
}

/// Writes the dose, once. An end only if it is certain that nothing was sent.
async fn submit(job: &Job, block: &SlotBlock) -> Option<Settled> {
    let verdict = match job.too_late() {
        Some(verdict) => verdict,
        None => match job.cell.submit(block).await {
            Ok(()) | Err(DriverError::Ambiguous(_) | DriverError::BadData(_)) => return None,
            Err(DriverError::NotConnected) => {
                Verdict::rejected(Reason::PlcUnreachable).with("robot", &job.cell.id)
            }
            Err(e) => Verdict::rejected(Reason::PlcRefused)
                .with("plc_reason", "refused")
                .detail(e.to_string()),
        },
    };
    Some(Settled { verdict, end: None, unused: true })
}
