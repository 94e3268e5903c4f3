//! Resets the one fault that a person saw; never another, and never a hold.

use std::time::Duration;

use pasamanos_proto::model::{CommandState, Reason};
use tokio::time::sleep;

use super::job::{Job, NotBegun};
use super::verdict::Verdict;
use crate::driver::{DriverError, RobotSnapshot};
use crate::journal::Change;

/// How often the fault is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// A fault has this long to go.
const SHOW_MS: i64 = 5_000;

fn active(snapshot: &RobotSnapshot, code: u32) -> bool {
    snapshot.faults.iter().any(|f| f.code == code)
}

/// Runs a fault reset. Answers whether it is in doubt, and to be settled by [`settle`].
pub(super) async fn reset(job: &mut Job, code: u32) -> bool {
    match begin(job, code).await {
        Ok(verdict) => {
            let doubted = verdict.state == CommandState::Uncertain;
            job.end_with_book(verdict, !doubted, |_, _, _| {}).await;
            doubted
        }
        Err(why) => {
            job.not_begun(why).await;
            false
        }
    }
}

async fn begin(job: &mut Job, code: u32) -> Result<Verdict, NotBegun> {
    let refused = |verdict| Err(NotBegun::Refused(Box::new(verdict)));
    let feeder = job.feeder().clone();
    if job.cell.traits.read_only {
        return refused(Verdict::rejected(Reason::ReadOnly).with("feeder", &feeder));
    }
    let unreachable = Verdict::rejected(Reason::PlcUnreachable).with("robot", &job.cell.id);
    let snapshot = match job.cell.read_status().await {
        Ok(snapshot) => snapshot,
        Err(e) => return refused(unreachable.detail(e.to_string())),
    };
    if snapshot.local {
        return refused(Verdict::rejected(Reason::LocalHold).with("feeder", &feeder));
    }
    if !active(&snapshot, code) {
        let verdict = Verdict::rejected(Reason::FaultChanged).with("feeder", &feeder);
        let verdict = match snapshot.faults.first() {
            Some(other) => verdict.with("fault_code", other.code),
            None => verdict,
        };
        return refused(verdict);
    }
    let entry = job.entry(None);
    job.begin(|_, _, changes| changes.push(Change::Command(Box::new(entry)))).await?;
    Ok(match job.cell.reset_fault(&feeder, code).await {
        Err(DriverError::NotConnected) => unreachable,
        Err(DriverError::Refused(e) | DriverError::Config(e)) => {
            Verdict::rejected(Reason::PlcRefused).with("plc_reason", "refused").detail(e)
        }
        Ok(()) | Err(_) => watch(job, code).await,
    })
}

/// Reads back whether the fault went.
async fn watch(job: &Job, code: u32) -> Verdict {
    let until = job.now_ms() + SHOW_MS;
    let mut stands = None;
    while job.now_ms() < until {
        if let Ok(snapshot) = job.cell.read_status().await {
            if !active(&snapshot, code) {
                return Verdict::applied();
            }
            stands = Some(());
        }
        sleep(LOOK).await;
    }
    match stands {
        Some(()) => refused(),
        None => Verdict::uncertain(Reason::PlcUnreachable).with("robot", &job.cell.id),
    }
}

fn refused() -> Verdict {
    Verdict::rejected(Reason::PlcRefused)
        .with("plc_reason", "fault")
        .detail("the fault stands after the reset")
}

/// Whether the fault stands, once the PLC can be read; `None` if the agent stops before.
async fn stands(job: &Job, code: u32) -> Option<bool> {
    loop {
        if let Ok(snapshot) = job.cell.read_status().await {
            return Some(active(&snapshot, code));
        }
        tokio::select! {
            () = sleep(LOOK * 5) => {}
            () = job.context.stop.cancelled() => return None,
        }
    }
}

/// Goes on looking, beside other commands and after a restart, at what became of a reset that could not
/// be read back. A PLC that is back may still have the write before it: the fault must stand for a while.
pub(super) async fn settle(job: Job, code: u32) {
    let mut since = None;
    let verdict = loop {
        match stands(&job, code).await {
            None => return,
            Some(false) => break Verdict::applied(),
            Some(true) if job.now_ms() - *since.get_or_insert(job.now_ms()) >= SHOW_MS => {
                break refused();
            }
            Some(true) => sleep(LOOK * 5).await,
        }
    };
    job.end_with_book(verdict, true, |_, _, _| {}).await;
}

/// A reset found open: whether it was written is not known, and it is not written again.
pub(super) async fn recover(job: Job, code: u32) {
    let Some(stands) = stands(&job, code).await else { return };
    let verdict = if stands {
        Verdict { reason: Reason::AgentLost, ..Verdict::expired() }
    } else {
        Verdict::uncertain(Reason::AgentLost)
            .detail("the fault is gone; by this reset or by itself")
    };
    job.end_with_book(verdict, true, |_, _, _| {}).await;
}
