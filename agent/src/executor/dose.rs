//! Feeds now: waits until the robot is free, journals the intent, lets the slot decide, and journals
//! the end together with its record.

use std::sync::Arc;
use std::time::Duration;

use pasamanos_faults::{crash_point, planted};
use pasamanos_proto::model::{CommandState, Reason};
use tokio::time::sleep;

use super::job::{Job, NotBegun};
use super::ready::{self, Scene};
use super::scalar;
use super::slot::{Drive, Settled, token};
use super::verdict::Verdict;
use crate::driver::{DriverError, RobotSnapshot, Slot, SlotBlock, SlotOp, SlotResult};
use crate::farm::RobotCell;
use crate::journal::SlotUse;
use crate::ledger::OpenDose;

/// How often a robot that is busy is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// A PLC must start a dose within this of the status that was read, s.
const EXPIRY_S: i64 = 10;

/// A dose that is in doubt, and goes on being settled beside other commands.
#[derive(Debug)]
pub(super) enum Doubt {
    /// By its slot.
    Slot(Drive),
    /// By the totaliser.
    Scalar(scalar::Watch),
}

/// Runs a dose. Answers with what is left to be settled, if it is in doubt.
pub(super) async fn feed(job: &mut Job, portion_mg: i32, settling: bool) -> Option<Doubt> {
    match begin(job, portion_mg, settling).await {
        Ok(doubt) => settle(job, doubt).await,
        Err(why) => {
            job.not_begun(why).await;
            None
        }
    }
}

/// Goes on until the dose is settled, or in doubt for the first time.
pub(super) async fn settle(job: &Job, mut doubt: Doubt) -> Option<Doubt> {
    let settled = match &mut doubt {
        Doubt::Slot(drive) => drive.run(job).await,
        Doubt::Scalar(watch) => watch.run(job).await,
    };
    if let Some(settled) = settled {
        finish(job, settled).await;
        return None;
    }
    let verdict = Verdict::uncertain(Reason::PlcUnreachable)
        .with("robot", &job.cell.id)
        .detail("the PLC was sent the dose and does not tell what became of it");
    finish(job, Settled { verdict, end: None, unused: false }).await;
    Some(doubt)
}

/// Journals an end. A doubt is journaled once, and not after a person settled it.
async fn finish(job: &Job, settled: Settled) {
    if settled.verdict.state == CommandState::Uncertain {
        let state = job.cell.ledger.look().await;
        let open = state.open_dose.as_ref().filter(|d| d.order.command == job.order.command);
        if open.is_none_or(|d| d.uncertain) {
            return;
        }
    }
    let Settled { verdict, end, unused } = settled;
    job.end(verdict, |state, report, now, changes| {
        let slot = state.open_dose.as_ref().and_then(|d| d.slot).filter(|_| unused);
        if let Some(slot) = slot {
            state.return_slot(slot, changes);
        }
        state.end_dose(report, end, now, changes);
    })
    .await;
}

/// A robot that may dose, as it was read.
struct Ready {
    slot: Option<Slot>,
    plc_time_s: Option<u32>,
    total_mg: Option<u64>,
    read_ms: i64,
}

async fn begin(job: &mut Job, portion_mg: i32, settling: bool) -> Result<Doubt, NotBegun> {
    let amount_mg = u32::try_from(portion_mg).unwrap_or(0);
    if settling {
        // An older dose of the robot is still being fenced.
        let verdict = Verdict::rejected(Reason::DoseUnsettled).with("robot", &job.cell.id);
        return Err(NotBegun::Refused(Box::new(verdict)));
    }
    let ready = wait_until_ready(job, portion_mg).await?;
    let Some(feeder) = job.cell.feeder(job.feeder()).cloned() else {
        return Err(NotBegun::Dropped);
    };
    let journaled = job.cell.ledger.look().await.slot.map(|(_, sequence)| sequence);
    let block = block(job, &ready, journaled, feeder.outlet, amount_mg)?;
    let known = known_to_plc(job, &ready, block.token).await?;
    let mine = match &known {
        Some(Known { epoch, sequence, .. }) => {
            SlotUse { epoch: *epoch, sequence: *sequence, token: block.token }
        }
        None => SlotUse { epoch: block.epoch, sequence: block.sequence, token: block.token },
    };
    let (order, epoch) = (job.order.clone(), job.epoch);
    if planted!("agent-intent-after-write") {
        let _too_early = job.cell.submit(&block).await;
    }
    job.begin(|state, now, changes| {
        state.begin_dose(&order, epoch, amount_mg, Some(mine), now, changes);
    })
    .await?;
    crash_point!("agent.dose.intent-journaled");
    if let Some(known) = known {
        return Ok(Doubt::Slot(Drive::recalled(job, mine, feeder.outlet, amount_mg, known.end)));
    }
    let dispensing_ms = i64::from(feeder.limits.dispensing_s(portion_mg)) * 1_000;
    Ok(if job.cell.traits.sequenced {
        Doubt::Slot(Drive::new(job, mine, block, dispensing_ms))
    } else {
        Doubt::Scalar(scalar::Watch::new(job, block, ready.total_mg, dispensing_ms))
    })
}

/// A dose that the PLC took before, as it or the ledger remembers it.
struct Known {
    epoch: u32,
    sequence: u32,
    /// What became of it, if that was taken in.
    end: Option<SlotResult>,
}

/// How the PLC took this command before: a journal that was put back forgot it, and whoever asks again
/// must not be fed again. Its history is asked too before every dose, because another agent on a copy
/// of the journal may have been given the very sequence that was ours.
async fn known_to_plc(job: &Job, ready: &Ready, token: u32) -> Result<Option<Known>, NotBegun> {
    let Some(slot) = ready.slot.filter(|_| job.cell.traits.sequenced) else { return Ok(None) };
    if let Some((epoch, end)) = job.cell.ledger.look().await.recalled(token) {
        return Ok(Some(Known { epoch, sequence: end.sequence, end: Some(end) }));
    }
    if slot.last_op == SlotOp::Dose && slot.last_token == token {
        return Ok(Some(Known { epoch: slot.epoch, sequence: slot.last_sequence, end: None }));
    }
    let history = job.cell.history().await.map_err(|e| {
        let verdict = Verdict::rejected(Reason::PlcUnreachable).with("robot", &job.cell.id);
        NotBegun::Refused(Box::new(verdict.detail(e.to_string())))
    })?;
    let mine = history.iter().find(|r| r.op == SlotOp::Dose && r.token == token);
    Ok(mine.map(|r| Known { epoch: slot.epoch, sequence: r.sequence, end: None }))
}

/// What will be written, the same each time: the PLC may start it until its own clock says that the
/// start limit has passed.
fn block(
    job: &Job,
    ready: &Ready,
    journaled: Option<u32>,
    outlet: u8,
    amount_mg: u32,
) -> Result<SlotBlock, NotBegun> {
    let shown = ready.slot.map_or(0, |s| s.last_sequence);
    let sequence = next_sequence(job.cell.traits.sequenced, shown, journaled.unwrap_or(0));
    let left_s = ((job.order.start_before_ms - ready.read_ms) / 1_000).clamp(0, EXPIRY_S);
    let left_s = if planted!("agent-expiry-always-whole") { EXPIRY_S } else { left_s };
    let expires_at_s = match ready.plc_time_s {
        Some(time) => time.wrapping_add(u32::try_from(left_s).unwrap_or(0)),
        None if job.cell.traits.sequenced => {
            let verdict = Verdict::rejected(Reason::PlcClockWrong).with("robot", &job.cell.id);
            return Err(NotBegun::Refused(Box::new(verdict)));
        }
        None => 0,
    };
    Ok(SlotBlock {
        epoch: ready.slot.map_or(0, |s| s.epoch),
        sequence,
        op: SlotOp::Dose,
        outlet,
        amount_mg,
        token: token(&job.order.command),
        rate_mg_per_s: 0,
        expires_at_s,
        start_before_ms: job.order.start_before_ms,
    })
}

/// A sequenced slot says itself which one is next. Plain tags only echo: a number that the journal
/// gave, or the PLC showed, is never given again, or the echo of one dose proves another.
fn next_sequence(sequenced: bool, shown: u32, journaled: u32) -> u32 {
    if sequenced {
        return shown.wrapping_add(1);
    }
    // 0 is "none yet".
    shown.max(journaled).wrapping_add(1).max(1)
}

/// Waits, one deep, until nothing of the robot is dosing; to the start limit.
async fn wait_until_ready(job: &Job, portion_mg: i32) -> Result<Ready, NotBegun> {
    let refused = |v: Verdict| Err(NotBegun::Refused(Box::new(v)));
    let unreachable = || Verdict::rejected(Reason::PlcUnreachable).with("robot", &job.cell.id);
    let mut unread = None;
    loop {
        if let Some(verdict) = job.too_late() {
            return refused(unread.unwrap_or(verdict));
        }
        if *job.context.gate.epoch().borrow() != Some(job.epoch) || job.context.stop.is_cancelled()
        {
            return Err(NotBegun::Dropped);
        }
        match look(job, portion_mg).await {
            Ok(Ok(Looked { snapshot, read_ms, leftover, behind })) => {
                let mine = snapshot.feeders.iter().find(|f| f.feeder == *job.feeder());
                if let Some(fence) = leftover {
                    // A sequence of ours that nobody consumed: spent before the next one is used.
                    let _read_back_decides = job.cell.submit(&fence).await;
                } else if !behind && !snapshot.feeders.iter().any(|f| f.dosing) {
                    return Ok(Ready {
                        slot: snapshot.slot,
                        plc_time_s: snapshot.plc_time_s,
                        total_mg: mine.and_then(|f| f.total_mg),
                        read_ms,
                    });
                }
                unread = None;
            }
            Ok(Err(refusal)) => return refused(refusal),
            Err(DriverError::NotConnected) => return refused(unreachable()),
            Err(e) => unread = Some(unreachable().detail(e.to_string())),
        }
        sleep(LOOK).await;
    }
}

/// A robot that nothing forbids to dose.
struct Looked {
    snapshot: Arc<RobotSnapshot>,
    /// When its answer had come.
    read_ms: i64,
    /// What must be fenced first.
    leftover: Option<SlotBlock>,
    /// The poller has to take in first what the PLC took unknown to the journal.
    behind: bool,
}

/// Reads robot and config, and says what stands in the way.
async fn look(job: &Job, portion_mg: i32) -> Result<Result<Looked, Verdict>, DriverError> {
    let snapshot = job.cell.read_status().await?;
    // What the PLC's clock shows is at most as old as this, never newer: counted from before the read
    // a slow answer would move the PLC's expiry behind the start limit.
    let read_ms = job.now_ms();
    let config = job.cell.read_config(job.feeder()).await?;
    let link = job.cell.view().link;
    let state = job.cell.ledger.look().await;
    let Some(book) = state.feeders.get(job.feeder()) else {
        return Ok(Err(Verdict::rejected(Reason::NotOffered)));
    };
    let now = job.cell.ledger.now();
    let scene = Scene {
        state: &state,
        book,
        snapshot: &snapshot,
        link,
        config: Some(&config.config),
        traits: &job.cell.traits,
        now: &now,
    };
    if let Some(first) = ready::refusals(&scene, portion_mg.into()).into_iter().next() {
        return Ok(Err(first.verdict()));
    }
    if let Some(broken) = ready::broken_limit(&ready::limits_of(book), portion_mg) {
        return Ok(Err(Verdict::rejected(Reason::InvalidField).detail(broken)));
    }
    let leftover = leftover(&job.cell, state.slot, &snapshot);
    let behind =
        snapshot.slot.is_some_and(|s| state.behind(&s) > 0) && !planted!("agent-gap-ignored");
    drop(state);
    Ok(Ok(Looked { snapshot, read_ms, leftover, behind }))
}

/// A fence for a sequence that the journal used and the PLC never consumed.
fn leftover(
    cell: &RobotCell,
    journal: Option<(u32, u32)>,
    snapshot: &RobotSnapshot,
) -> Option<SlotBlock> {
    let (slot, (epoch, sequence)) = (snapshot.slot?, journal?);
    let unspent = cell.traits.sequenced
        && slot.epoch == epoch
        && slot.last_sequence == sequence.wrapping_sub(1);
    unspent.then_some(SlotBlock {
        epoch,
        sequence,
        op: SlotOp::Nop,
        outlet: 0,
        amount_mg: 1,
        token: 0,
        rate_mg_per_s: 0,
        expires_at_s: 0,
        start_before_ms: i64::MAX,
    })
}

/// A dose that the journal left open: it is fenced, never repeated.
///
/// `taken_in`: how it ended, if the ledger knows that from the PLC's history; its feed is in the books.
pub(super) fn recover(job: &Job, open: &OpenDose, taken_in: Option<SlotResult>) -> Doubt {
    let outlet = job.cell.feeder(job.feeder()).map_or(0, |f| f.outlet);
    match open.slot {
        Some(mine) if taken_in.is_some() => {
            Doubt::Slot(Drive::recalled(job, mine, outlet, open.amount_mg, taken_in))
        }
        Some(mine) if job.cell.traits.sequenced => {
            Doubt::Slot(Drive::recovered(job, mine, outlet, open.amount_mg).doubted(open.uncertain))
        }
        _ => Doubt::Scalar(scalar::Watch::recovered(job, open)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_of_plain_tags_is_above_what_plc_and_journal_know() {
        assert_eq!(next_sequence(true, 4, 9), 5);
        assert_eq!(next_sequence(true, u32::MAX, 0), 0);
        assert_eq!(next_sequence(false, 4, 9), 10);
        assert_eq!(next_sequence(false, 9, 4), 10);
        assert_eq!(next_sequence(false, 0, u32::MAX), 1);
    }
}
