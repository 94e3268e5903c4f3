//! Hold and resume. A hold is a level: it stands in the journal, and is written again at every poll
//! until a resume takes it away.

use std::time::Duration;

use pasamanos_faults::crash_point;
use pasamanos_proto::model::{CommandReport, CommandState, Reason};
use pasamanos_proto::pb::{self, HoldSource};
use tokio::time::sleep;

use super::job::{Job, NotBegun};
use super::verdict::Verdict;
use super::worker::Overtaken;
use crate::driver::RobotSnapshot;
use crate::farm::RobotCell;
use crate::journal::Change;

/// How often the hold bit is written and read back.
const LOOK: Duration = Duration::from_millis(150);
/// A hold that does not show within this of its start limit is in doubt; it goes on being written.
const DOUBT_MS: i64 = 5_000;
/// A resume has at least this long to show.
const RESUME_MS: i64 = 3_000;

fn bit(job: &Job, snapshot: &RobotSnapshot) -> Option<bool> {
    snapshot.feeders.iter().find(|f| f.feeder == *job.feeder()).and_then(|f| f.held)
}

/// Holds a feeder. It waits for no dose and no lock; `overtaken` are the commands before it that
/// were not begun.
pub(super) async fn hold(mut job: Job, overtaken: Vec<Overtaken>) {
    let read_only = job.cell.traits.read_only;
    let offered = job.cell.feeder(job.feeder()).is_some_and(|f| f.capabilities.hold);
    if read_only || !offered {
        let verdict = if read_only {
            Verdict::rejected(Reason::ReadOnly)
        } else {
            Verdict::rejected(Reason::NotOffered).with("capability", "hold")
        };
        supersede(overtaken).await;
        return job.refuse(verdict.with("feeder", job.feeder())).await;
    }
    let entry = job.entry(None);
    let ended: Vec<CommandReport> = overtaken
        .iter()
        .map(|o| Verdict::rejected(Reason::SupersededByHold).report(&o.job.order, o.job.epoch))
        .collect();
    let others: Vec<_> =
        overtaken.iter().zip(&ended).map(|(o, r)| o.job.entry(Some(r.clone()))).collect();
    let order = job.order.clone();
    let begun = job
        .begin(|state, now, changes| {
            changes.push(Change::Command(Box::new(entry)));
            changes.extend(others.into_iter().map(|e| Change::Command(Box::new(e))));
            if let Some(book) = state.feeders.get_mut(&order.feeder) {
                let by = (order.author.as_str(), order.note.as_str());
                book.hold(HoldSource::Operator, by, now, changes);
            }
        })
        .await;
    match begun {
        Ok(()) => {}
        Err(NotBegun::Dropped) => return job.not_begun(NotBegun::Dropped).await,
        Err(NotBegun::Refused(v)) if v.reason == Reason::Internal => {
            supersede(overtaken).await;
            // The journal refuses: the feeder is held all the same, for as long as this agent runs.
            tracing::error!(feeder = %job.feeder(), "held without a journal");
            let _what_can_be_done = job.cell.set_hold(job.feeder(), true).await;
            return;
        }
        Err(NotBegun::Refused(v)) => {
            supersede(overtaken).await;
            return job.refuse(*v).await;
        }
    }
    crash_point!("agent.hold.journaled");
    for report in ended {
        job.context.outbox.push(report);
    }
    drop(overtaken);
    until_held(job, false).await;
}

/// Ends what a hold overtook that does not hold: it was taken from the queue all the same.
async fn supersede(overtaken: Vec<Overtaken>) {
    for other in overtaken {
        other.job.refuse(Verdict::rejected(Reason::SupersededByHold)).await;
    }
}

/// Writes the hold until it is read back, and says so; goes on beside other commands.
pub(super) async fn until_held(job: Job, mut doubted: bool) {
    let doubt_ms = job.order.start_before_ms.max(job.now_ms()) + DOUBT_MS;
    loop {
        let written = job.cell.set_hold(job.feeder(), true).await;
        let read = job.cell.read_status().await;
        if read.is_ok_and(|s| bit(&job, &s) == Some(true)) {
            return job.end_with_book(Verdict::applied(), true, |_, _, _| {}).await;
        }
        let wanted = {
            let state = job.cell.ledger.look().await;
            state
                .feeders
                .get(job.feeder())
                .is_some_and(|b| b.holds.contains_key(&HoldSource::Operator))
        };
        if !wanted {
            // A resume took it away before it ever showed.
            let verdict = Verdict::rejected(Reason::PlcUnreachable).with("robot", &job.cell.id);
            return job.end_with_book(verdict, true, |_, _, _| {}).await;
        }
        if !doubted && job.now_ms() >= doubt_ms {
            doubted = true;
            let detail = written.err().map_or_else(|| "it does not show".into(), |e| e.to_string());
            let verdict = Verdict::uncertain(Reason::PlcUnreachable)
                .with("robot", &job.cell.id)
                .detail(format!("the hold is written again until it shows: {detail}"));
            job.end_with_book(verdict, false, |_, _, _| {}).await;
        }
        tokio::select! {
            () = sleep(if doubted { LOOK * 10 } else { LOOK }) => {}
            // It stands in the journal: the next start goes on.
            () = job.context.stop.cancelled() => return,
        }
    }
}

/// Lifts the operator's hold; what else holds the feeder stays. Answers whether it is in doubt, and to
/// be settled by [`settle_resume`].
pub(super) async fn resume(job: &mut Job) -> bool {
    let verdict = match begin_resume(job).await {
        Ok(verdict) => verdict,
        Err(why) => {
            job.not_begun(why).await;
            return false;
        }
    };
    let lifted = verdict.state == CommandState::Applied;
    let doubted = verdict.state == CommandState::Uncertain;
    job.end_with_book(verdict, !doubted, |book, _, changes| {
        // A hold that came while this was ending is its own: it is not this one's to lift.
        if lifted && !job.overtaken() {
            book.forget(HoldSource::Operator, changes);
        }
    })
    .await;
    if let Some(control) = job.control() {
        control.set_resuming(false);
    }
    doubted
}

async fn begin_resume(job: &mut Job) -> Result<Verdict, NotBegun> {
    let refused = |verdict| Err(NotBegun::Refused(Box::new(verdict)));
    let feeder = job.feeder().clone();
    if job.cell.traits.read_only {
        return refused(Verdict::rejected(Reason::ReadOnly).with("feeder", &feeder));
    }
    let snapshot = loop {
        if let Some(verdict) = job.too_late() {
            return refused(verdict);
        }
        match job.cell.read_status().await {
            Ok(snapshot) => break snapshot,
            Err(e) if e == crate::driver::DriverError::NotConnected || job.expired() => {
                return refused(
                    Verdict::rejected(Reason::PlcUnreachable).with("robot", &job.cell.id),
                );
            }
            Err(_) => sleep(LOOK).await,
        }
    };
    let (farm, operator, others) = {
        let state = job.cell.ledger.look().await;
        let holds = state.feeders.get(&feeder).map(|b| &b.holds);
        let has = |source| holds.is_some_and(|h| h.contains_key(&source));
        let others = holds
            .into_iter()
            .flatten()
            .filter(|(s, _)| !matches!(**s, HoldSource::Operator | HoldSource::Unspecified));
        (has(HoldSource::Farm), has(HoldSource::Operator), others.count())
    };
    if snapshot.local || farm {
        return refused(Verdict::rejected(Reason::LocalHold).with("feeder", &feeder));
    }
    let entry = job.entry(None);
    job.begin(|_, _, changes| changes.push(Change::Command(Box::new(entry)))).await?;
    Ok(if others > 0 {
        Verdict::applied().detail("the operator's hold is lifted; something else holds the feeder")
    } else if operator || bit(job, &snapshot) == Some(true) {
        release(job).await
    } else {
        Verdict::applied()
    })
}

/// Goes on looking, beside other commands, at what became of a resume that could not be read back.
/// The operator's hold still stands in the journal and is written again, so that it shows sooner or
/// later; where it had none, the bit itself tells.
pub(super) async fn settle_resume(job: Job) {
    let held = |verdict: Verdict| verdict.with("plc_reason", "held").detail("the hold stands");
    loop {
        let seen = job.cell.read_status_and(|state, snapshot| {
            let book = state.feeders.get(job.feeder());
            let stands = book.is_some_and(|b| b.holds.contains_key(&HoldSource::Operator));
            (bit(&job, snapshot), stands)
        });
        let verdict = match seen.await {
            _ if job.overtaken() => Some(Verdict::rejected(Reason::SupersededByHold)),
            Ok((Some(true), _)) => Some(held(Verdict::rejected(Reason::PlcRefused))),
            Ok((Some(false), false)) => Some(Verdict::applied()),
            Ok(_) | Err(_) => None,
        };
        if let Some(verdict) = verdict {
            return job.end_with_book(verdict, true, |_, _, _| {}).await;
        }
        tokio::select! {
            () = sleep(LOOK * 10) => {}
            // It is in the journal: the next start goes on.
            () = job.context.stop.cancelled() => return,
        }
    }
}

/// Takes the hold bit away and reads that back. Until it is journaled nobody writes it again.
async fn release(job: &Job) -> Verdict {
    if let Some(control) = job.control() {
        control.set_resuming(true);
    }
    let until = job.order.start_before_ms.max(job.now_ms() + RESUME_MS);
    let mut shows = None;
    let mut detail = String::new();
    while job.now_ms() < until && !job.overtaken() {
        if let Err(e) = job.cell.set_hold(job.feeder(), false).await {
            detail = e.to_string();
        }
        shows = job.cell.read_status().await.ok().and_then(|s| bit(job, &s));
        if shows == Some(false) && !job.overtaken() {
            return Verdict::applied();
        }
        sleep(LOOK).await;
    }
    // The hold stays, and is written again.
    match shows {
        _ if job.overtaken() => Verdict::rejected(Reason::SupersededByHold),
        Some(_) => Verdict::rejected(Reason::PlcRefused).with("plc_reason", "held").detail(detail),
        None => Verdict::uncertain(Reason::PlcUnreachable)
            .with("robot", &job.cell.id)
            .detail(format!("the hold stands and is written again: {detail}")),
    }
}

/// Writes the hold bit of every feeder to what it should be, if it is not.
pub(crate) async fn keep_level(cell: &RobotCell) {
    if cell.traits.read_only {
        return;
    }
    let Some(snapshot) = cell.view().snapshot.clone() else { return };
    for seen in &snapshot.feeders {
        let (Some(held), Some(control)) = (seen.held, cell.control(&seen.feeder)) else { continue };
        let (wanted, releasing) = {
            let state = cell.ledger.look().await;
            let Some(book) = state.feeders.get(&seen.feeder) else { continue };
            (book.hold_wanted(), book.releasing())
        };
        let set = if wanted && !held && !control.resuming() {
            true
        } else if held && releasing {
            false
        } else {
            continue;
        };
        if let Err(e) = cell.set_hold(&seen.feeder, set).await {
            tracing::warn!(feeder = %seen.feeder, held = set, error = %e, "the hold was not written");
        }
    }
}

/// What a resume found open comes to: the hold stands, since it was not journaled away.
pub(super) async fn resume_recovered(job: Job) {
    let verdict = Verdict { reason: Reason::AgentLost, ..Verdict::expired() };
    let verdict = verdict.detail("the agent was restarted; the hold stands");
    job.end_with_book(verdict, true, |_, _, _| {}).await;
}

/// The author of a hold as the contract has it.
pub(crate) fn to_pb(row: &crate::journal::HoldRow) -> pb::Hold {
    pb::Hold {
        source: row.source.into(),
        since: Some(pasamanos_proto::model::timestamp_from_ms(row.since_ms)),
        author: row.author.clone(),
        note: row.note.clone(),
    }
}
