//! Sets a config: compares the PLC with what the change is based on, writes what differs, reads the
//! whole back from the device, twice, and only then says APPLIED.

mod prepare;
mod readback;

use std::time::Duration;

use pasamanos_faults::{crash_point, planted};
use pasamanos_proto::model::{FeederConfig, FieldSet, ObservedConfig, Reason};
use pasamanos_proto::pb;
use tokio::time::sleep;

use self::prepare::Plan;
use self::readback::Shown;
use super::hold;
use super::job::{Job, NotBegun};
use super::verdict::Verdict;
use crate::driver::{DriverError, Profile};
use crate::journal::{Change, SlotUse};
use crate::ledger::Loose;

/// What a write's answer is worth: nothing of what it changed, but whether anything may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// Answered: it will not show later than now.
    Answered,
    /// It may show later.
    Maybe,
}

/// How a config command ends.
struct Ended {
    verdict: Verdict,
    /// Its values may still show.
    loose: bool,
    /// They show already, and only the PLC's life is not proven.
    unproven: bool,
    /// The feeder is exactly on the old or the new config: our hold for the write may go.
    whole: bool,
}

impl Ended {
    fn whole(verdict: Verdict) -> Self {
        Self { verdict, loose: false, unproven: false, whole: true }
    }

    fn loose(verdict: Verdict) -> Self {
        Self { verdict, loose: true, unproven: false, whole: true }
    }
}

/// Runs a config command.
pub(super) async fn update(
    job: &mut Job,
    base: pb::FeederConfig,
    new: &FeederConfig,
    fields: &FieldSet,
) {
    let base = ObservedConfig::from(base);
    let plan = match prepare::plan(job, &base, new, fields).await {
        Ok(plan) => plan,
        Err(NotBegun::Refused(verdict)) => {
            let verdict = not_the_farms(job, *verdict).await;
            return job.not_begun(NotBegun::Refused(Box::new(verdict))).await;
        }
        Err(why) => return job.not_begun(why).await,
    };
    if let Err(why) = begin(job, &plan).await {
        return job.not_begun(why).await;
    }
    crash_point!("agent.config.intent-journaled");
    let ended = execute(job, &plan, new).await;
    let ended = Ended { verdict: not_the_farms(job, ended.verdict).await, ..ended };
    finish(job, &plan, ended).await;
    if plan.hold {
        hold::keep_level(&job.cell).await;
    }
}

/// Values of an earlier command that a person settled are told by that command, not as an edit that
/// stood in the way of this one.
async fn not_the_farms(job: &Job, mut verdict: Verdict) -> Verdict {
    if verdict.reason != Reason::ChangedAtFarm {
        return verdict;
    }
    let state = job.cell.ledger.look().await;
    let book = state.feeders.get(job.feeder());
    verdict.config = verdict.config.filter(|c| book.is_none_or(|b| !b.is_loose(c)));
    verdict
}

/// Journals the intent, and the hold for the write if several tags change: a crash leaves the
/// feeder held, not half written and feeding.
async fn begin(job: &mut Job, plan: &Plan) -> Result<(), NotBegun> {
    let mut entry = job.entry(None);
    entry.slot =
        plan.base_revision().map(|(epoch, sequence)| SlotUse { epoch, sequence, token: 0 });
    let (feeder, hold) = (job.order.feeder.clone(), plan.hold);
    job.begin(|state, now, changes| {
        changes.push(Change::Command(Box::new(entry)));
        if let Some(book) = state.feeders.get_mut(&feeder).filter(|_| hold) {
            book.hold(pb::HoldSource::ConfigMixed, ("", ""), now, changes);
        }
    })
    .await
}

async fn execute(job: &Job, plan: &Plan, new: &FeederConfig) -> Ended {
    if plan.changed.is_empty() {
        // The PLC runs it already, and the base says so: a person confirmed it.
        return Ended::whole(Verdict::applied().config(plan.reading.config.clone()));
    }
    if plan.hold
        && let Err(verdict) = hold_for_write(job).await
    {
        return Ended::whole(verdict);
    }
    if let Some(verdict) = job.too_late() {
        return Ended::whole(verdict);
    }
    if plan.hold
        && let Some(changed) = changed_meanwhile(job, plan).await
    {
        return Ended::whole(changed);
    }
    let wrote = job.cell.write_config(job.feeder(), &plan.reading, new, &plan.changed).await;
    crash_point!("agent.config.written");
    let written = match wrote {
        Ok(()) => Written::Answered,
        Err(DriverError::Ambiguous(_) | DriverError::BadData(_)) => Written::Maybe,
        Err(DriverError::NotConnected) => {
            return Ended::whole(
                Verdict::rejected(Reason::PlcUnreachable).with("robot", &job.cell.id),
            );
        }
        Err(e @ (DriverError::Refused(_) | DriverError::Config(_))) => {
            return Ended::whole(
                Verdict::rejected(Reason::PlcRefused)
                    .with("plc_reason", "refused")
                    .detail(e.to_string()),
            );
        }
    };
    if planted!("agent-unread-config-is-applied") && written == Written::Answered {
        let config = pasamanos_proto::model::ObservedConfig::Valid(new.clone());
        return Ended::whole(Verdict::applied().config(config));
    }
    let shown =
        readback::whole(job, &plan.reading, new, &plan.changed, written == Written::Maybe).await;
    judge(job, plan, written, shown)
}

/// Waiting for a dose to end took a while: what was compared then is compared again just before the
/// first tag is written.
async fn changed_meanwhile(job: &Job, plan: &Plan) -> Option<Verdict> {
    match job.cell.read_config(job.feeder()).await {
        Ok(now) if now.config == plan.reading.config => None,
        Ok(now) => Some(
            Verdict::rejected(Reason::ChangedAtFarm)
                .with("feeder", job.feeder())
                .with("command", &job.order.command)
                .config(now.config),
        ),
        Err(e) => Some(
            Verdict::rejected(Reason::PlcUnreachable)
                .with("robot", &job.cell.id)
                .detail(e.to_string()),
        ),
    }
}

/// The hold must be read back before the first tag is written.
async fn hold_for_write(job: &Job) -> Result<(), Verdict> {
    loop {
        let written = job.cell.set_hold(job.feeder(), true).await;
        if let Ok(snapshot) = job.cell.read_status().await
            && snapshot.feeders.iter().any(|f| f.feeder == *job.feeder() && f.held == Some(true))
        {
            return Ok(());
        }
        if job.expired() {
            let detail =
                written.err().map_or_else(|| "the hold does not show".into(), |e| e.to_string());
            let verdict = Verdict::rejected(Reason::PlcUnreachable).with("robot", &job.cell.id);
            return Err(verdict.detail(detail));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// What the read-back means.
fn judge(job: &Job, plan: &Plan, written: Written, shown: Shown) -> Ended {
    let feeder = job.feeder();
    let field = plan.changed.iter().next().map_or("", pasamanos_proto::model::ConfigField::path);
    let maybe = written == Written::Maybe;
    match shown {
        Shown::New(config) => Ended::whole(Verdict::applied().config(config)),
        Shown::NewUnproven(config) => Ended {
            unproven: true,
            ..Ended::loose(
                Verdict::uncertain(Reason::ReadbackNotProven)
                    .with("robot", &job.cell.id)
                    .detail("the value shows, and the PLC does not show that it lives")
                    .config(config),
            )
        },
        Shown::Old(config) if maybe => Ended {
            // Some of several tags may show later: held until it is settled.
            whole: !plan.hold,
            ..Ended::loose(
                Verdict::uncertain(Reason::ReadbackNotProven)
                    .with("robot", &job.cell.id)
                    .detail("the write timed out and does not show; it may show later")
                    .config(config),
            )
        },
        Shown::Old(config) | Shown::Reverted(config) => Ended::whole(
            Verdict::rejected(Reason::RevertedByPlc).with("field", field).config(config),
        ),
        Shown::Other(config) if plan.profile == Profile::Scalar && plan.changed.len() > 1 => {
            Ended {
                verdict: Verdict::uncertain(Reason::ConfigMixed)
                    .with("feeder", feeder)
                    .config(config),
                loose: maybe,
                unproven: false,
                whole: false,
            }
        }
        Shown::Other(config) => {
            let verdict = if maybe {
                Verdict::uncertain(Reason::ChangedAtFarm)
            } else {
                Verdict::rejected(Reason::ChangedAtFarm)
            };
            let verdict =
                verdict.with("feeder", feeder).with("command", &job.order.command).config(config);
            Ended { verdict, loose: maybe, unproven: false, whole: true }
        }
        Shown::Unreadable => Ended {
            verdict: Verdict::uncertain(Reason::PlcUnreachable)
                .with("robot", &job.cell.id)
                .detail("it was written and cannot be read back"),
            loose: true,
            unproven: false,
            whole: false,
        },
    }
}

/// Journals the end; a config that is whole again lifts the hold for it.
async fn finish(job: &Job, plan: &Plan, ended: Ended) {
    let Ended { verdict, loose, unproven, whole } = ended;
    let applied = verdict.state == pasamanos_proto::model::CommandState::Applied;
    let mixed = verdict.reason == Reason::ConfigMixed;
    let base = plan.base_revision();
    job.end(verdict, |state, report, now, changes| {
        let outcome = Box::new(report.clone());
        changes.push(Change::Outcome { report: outcome, settled: !loose, loose });
        let Some(book) = state.feeders.get_mut(job.feeder()) else { return };
        if loose {
            let mut loose = Loose { mixed, ..Loose::new(job.order.clone(), job.epoch, base) };
            loose.before.clone_from(&plan.reading.stamps);
            if unproven {
                loose.marks.showed = true;
                changes.push(Change::Loose(job.order.command.clone(), loose.marks.clone()));
            }
            book.loose.push(loose);
        }
        if plan.hold && whole || applied {
            book.lift(pb::HoldSource::ConfigMixed, now, changes);
        }
        if let Some(config) = report.config.as_ref().filter(|_| applied) {
            changes.extend(book.supersede(&job.order.command, config));
        }
        if applied {
            book.confirm(now, changes);
        }
        if mixed {
            let severity = pb::AlarmSeverity::Critical;
            let alarm = crate::records::Alarm::feeder(Reason::ConfigMixed, severity, job.feeder());
            changes.push(Change::Record(Box::new(alarm.to_record(now.wall_ms))));
        }
    })
    .await;
}
