//! A dose through plain tags, without a slot that proves anything: written once, never repeated.
//! What the PLC shows afterwards may prove that it fed; nothing proves that it did not.

use std::time::Duration;

use pasamanos_proto::model::{Basis, Reason};
use tokio::time::sleep;

use super::job::Job;
use super::slot::Settled;
use super::verdict::Verdict;
use crate::driver::{
    DriverError, FeederSnapshot, RobotSnapshot, Slot, SlotBlock, SlotOp, SlotState, slot_reason,
};
use crate::ledger::{DoseEnd, OpenDose};
use crate::records::plc_reason;

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
    /// It was not watched all the time, or something was seen that ends a dose short.
    broken: bool,
    /// When it was about to be written, or was last seen not to have begun.
    began_ms: Option<i64>,
    /// When it was first seen to have ended.
    ended_ms: Option<i64>,
    /// One that was over sooner ended short, ms; 0 if its rate is not known.
    least_ms: i64,
    /// What was last seen, and since when.
    seen: Option<(Seen, i64)>,
    readable_ms: Option<i64>,
}

/// Three quarters of the time that this amount takes: a rate is an installer's number.
fn least_ms(job: &Job, amount_mg: u32) -> i64 {
    let rate = job.cell.feeder(job.feeder()).and_then(|f| f.limits.dispense_rate_mg_per_s);
    rate.filter(|rate| *rate > 0).map_or(0, |rate| i64::from(amount_mg) * 750 / i64::from(rate))
}

/// What tells of a dose; at rest while it stays the same.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    slot: Option<Slot>,
    total_mg: Option<u64>,
    dosing: bool,
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
            broken: false,
            began_ms: None,
            ended_ms: None,
            least_ms: least_ms(job, block.amount_mg),
            seen: None,
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
            broken: true,
            began_ms: None,
            ended_ms: None,
            least_ms: 0,
            seen: None,
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
        if let Some(block) = self.block.take() {
            self.began_ms = Some(job.now_ms());
            match submit(job, &block).await {
                Sent::Answered => {}
                // It began at some time of the wait: how long it took nobody can say.
                Sent::Unanswered => self.broken = true,
                Sent::Not(refused) => return Some(*refused),
            }
        }
        loop {
            match job.cell.read_status().await {
                Ok(snapshot) => {
                    if let Some(settled) = self.look(job, &snapshot) {
                        return Some(settled);
                    }
                }
                Err(_) => self.broken = true,
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
        let now = job.now_ms();
        self.readable_ms.get_or_insert(now);
        let feeder = snapshot.feeders.iter().find(|f| f.feeder == *job.feeder())?;
        self.fed |= feeder.dosing;
        self.broken |= feeder.held == Some(true) || snapshot.local || !snapshot.faults.is_empty();
        let seen = Seen { slot: snapshot.slot, total_mg: feeder.total_mg, dosing: feeder.dosing };
        let (_, since) = *self.seen.insert(match self.seen {
            Some((before, since)) if before == seen => (before, since),
            _ => (seen, now),
        });
        // A gateway may pass the start on late: the wait is no part of the dose.
        if snapshot.slot.is_some_and(|s| Some(s.last_sequence) != self.sequence) {
            self.began_ms = self.began_ms.map(|_| now);
        }
        // A gateway may show one tag of a scan before the others.
        let dwell = i64::try_from(job.cell.traits.dwell.as_millis()).unwrap_or(i64::MAX);
        let rested = now - since >= dwell.max(1) && !feeder.dosing;
        if let Some(settled) = self.echo(job, snapshot, feeder, rested) {
            return Some(settled);
        }
        // While the PLC echoes, the echo tells; a meal of the schedule grows the totaliser too.
        let echoes = snapshot.slot.is_some();
        self.totaliser(job, feeder, echoes, rested)
    }

    /// The PLC echoes the sequence that it ran, and shows that it ended.
    fn echo(
        &mut self,
        job: &Job,
        snapshot: &RobotSnapshot,
        feeder: &FeederSnapshot,
        rested: bool,
    ) -> Option<Settled> {
        let slot = snapshot.slot.filter(|s| Some(s.last_sequence) == self.sequence)?;
        let ended = matches!(slot.state, SlotState::Done | SlotState::Aborted);
        if slot.last_op != SlotOp::Dose || !ended {
            return None;
        }
        let ended_ms = *self.ended_ms.get_or_insert(job.now_ms());
        if !rested {
            return None;
        }
        let (asked, basis) = (u64::from(self.amount_mg), job.cell.traits.basis);
        let held = slot.reason == slot_reason::HELD || feeder.held == Some(true);
        let why = match slot.state {
            SlotState::Done => "short",
            _ => plc_reason(slot.reason).1,
        };
        let (verdict, end) = match self.measured(slot.dispensed_mg, feeder) {
            Some((mg, slack)) if slot.state == SlotState::Done && mg + slack >= asked => {
                (Verdict::applied().dispensed(mg, basis), DoseEnd { mg, basis })
            }
            Some((mg, _)) if basis.is_measured() => {
                let verdict = if held {
                    Verdict::partial(Reason::Held)
                } else {
                    Verdict::partial(Reason::PlcRefused).with("plc_reason", why)
                };
                (verdict.dispensed(mg, basis), DoseEnd { mg, basis })
            }
            // Nobody measured it, and nothing speaks against the PLC's word that it is done.
            None if slot.state == SlotState::Done && self.undisturbed(ended_ms) => {
                let end = DoseEnd { mg: asked, basis: Basis::Assumed };
                (Verdict::applied().dispensed(asked, end.basis), end)
            }
            _ => {
                let verdict = Verdict::uncertain(Reason::PlcRefused)
                    .with("plc_reason", why)
                    .detail("the PLC ended the dose, perhaps short, and nobody measured it")
                    .dispensed(asked, Basis::Assumed);
                return Some(Settled { verdict, end: None, unused: false });
            }
        };
        Some(Settled { verdict, end: Some(end), unused: false })
    }

    /// What was measured of a dose that ended, mg, and by how much that may be wrong: by the dose's
    /// own tag, else by the totaliser. A zero beside an end may be what was not there yet, or was
    /// forgotten: the totaliser tells. Growth beyond what was asked is someone else's too.
    fn measured(&self, dispensed: Option<u32>, feeder: &FeederSnapshot) -> Option<(u64, u64)> {
        if let Some(mg) = dispensed.filter(|mg| *mg > 0) {
            return Some((mg.into(), 1));
        }
        let slack = self.slack();
        let grown = feeder.total_mg?.checked_sub(self.before_mg?)?;
        (grown <= u64::from(self.amount_mg) + slack).then_some((grown, slack))
    }

    /// A totaliser may count in coarse steps.
    fn slack(&self) -> u64 {
        (u64::from(self.amount_mg) / 20).max(1)
    }

    /// Whether it was watched from its first byte to its end, nothing was seen that ends a dose short,
    /// and it took as long as its rate says.
    fn undisturbed(&self, ended_ms: i64) -> bool {
        let took = self.began_ms.map(|began| ended_ms - began);
        !self.broken && took.is_some_and(|took| took >= self.least_ms)
    }

    /// The totaliser grew by what was asked and came to rest.
    fn totaliser(
        &self,
        job: &Job,
        feeder: &FeederSnapshot,
        echoes: bool,
        rested: bool,
    ) -> Option<Settled> {
        let grown = feeder.total_mg?.checked_sub(self.before_mg?)?;
        let (asked, slack) = (u64::from(self.amount_mg), self.slack());
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

/// What became of the one write of a dose.
enum Sent {
    /// The PLC took it.
    Answered,
    /// It may have, or may yet.
    Unanswered,
    /// It is certain that nothing was sent.
    Not(Box<Settled>),
}

/// Writes the dose, once.
async fn submit(job: &Job, block: &SlotBlock) -> Sent {
    let verdict = match job.too_late() {
        Some(verdict) => verdict,
        None => match job.cell.submit(block).await {
            Ok(()) => return Sent::Answered,
            Err(DriverError::Ambiguous(_) | DriverError::BadData(_)) => return Sent::Unanswered,
            Err(DriverError::NotConnected) => {
                Verdict::rejected(Reason::PlcUnreachable).with("robot", &job.cell.id)
            }
            Err(e) => Verdict::rejected(Reason::PlcRefused)
                .with("plc_reason", "refused")
                .detail(e.to_string()),
        },
    };
    Sent::Not(Box::new(Settled { verdict, end: None, unused: true }))
}
