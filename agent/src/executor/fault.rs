//! Resets the one fault that a person saw; never another, and never a hold.

use std::time::Duration;

use pasamanos_proto::model::Reason;
use tokio::time::sleep;

use super::job::Job;
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

/// Runs a fault reset.
pub(super) async fn reset(job: &mut Job, code: u32) {
    let feeder = job.feeder().clone();
    if job.cell.traits.read_only {
        return job.refuse(Verdict::rejected(Reason::ReadOnly).with("feeder", &feeder)).await;
    }
    let unreachable = Verdict::rejected(Reason::PlcUnreachable).with("robot", &job.cell.id);
    let snapshot = match job.cell.read_status().await {
        Ok(snapshot) => snapshot,
        Err(e) => return job.refuse(unreachable.detail(e.to_string())).await,
    };
    if snapshot.local {
        return job.refuse(Verdict::rejected(Reason::LocalHold).with("feeder", &feeder)).await;
    }
    if !active(&snapshot, code) {
        let verdict = Verdict::rejected(Reason::FaultChanged).with("feeder", &feeder);
        let verdict = match snapshot.faults.first() {
            Some(other) => verdict.with("fault_code", other.code),
            None => verdict,
        };
        return job.refuse(verdict).await;
    }
    let entry = job.entry(None);
    let begun = job.begin(|_, _, changes| changes.push(Change::Command(Box::new(entry)))).await;
    if let Err(why) = begun {
        return job.not_begun(why).await;
    }
    let verdict = match job.cell.reset_fault(&feeder, code).await {
        Err(DriverError::NotConnected) => unreachable,
        Err(DriverError::Refused(e) | DriverError::Config(e)) => {
            Verdict::rejected(Reason::PlcRefused).with("plc_reason", "refused").detail(e)
        }
        Ok(()) | Err(_) => watch(job, code).await,
    };
    job.end_with_book(verdict, true, |_, _, _| {}).await;
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
        Some(()) => Verdict::rejected(Reason::PlcRefused)
            .with("plc_reason", "fault")
            .detail("the fault stands after the reset"),
        None => Verdict::uncertain(Reason::PlcUnreachable).with("robot", &job.cell.id),
    }
}

/// A reset found open: whether it was written is not known, and it is not written again.
pub(super) async fn recover(job: Job, code: u32) {
    let stands = loop {
        if let Ok(snapshot) = job.cell.read_status().await {
            break active(&snapshot, code);
        }
        tokio::select! {
            () = sleep(LOOK * 5) => {}
            () = job.context.stop.cancelled() => return,
        }
    };
    let verdict = if stands {
        Verdict { reason: Reason::AgentLost, ..Verdict::expired() }
    } else {
        Verdict::uncertain(Reason::AgentLost)
            .detail("the fault is gone; by this reset or by itself")
    };
    job.end_with_book(verdict, true, |_, _, _| {}).await;
}
