//! Config values that were written and may show later: looked for at every poll, also after a
//! restart, until they are settled, and for a while after a person settled them. They are never credited to the farm.

use pasamanos_proto::model::{Action, CommandState, FeederId, FieldSet, ObservedConfig, Reason};
use pasamanos_proto::pb;

use super::Context;
use super::job::told;
use super::verdict::Verdict;
use crate::driver::{ConfigReading, Profile};
use crate::farm::RobotCell;
use crate::journal::Change;
use crate::ledger::{LATE_MS, Loose};
use crate::records::Alarm;

/// What a look came to.
enum Step {
    /// Nothing yet; remember this.
    Wait(Loose),
    /// A person settled it, and it does not show any more.
    Forget,
    /// The command ends so; with `mixed` the feeder stays held.
    Settle { verdict: Verdict, mixed: bool },
    /// It was found open, or shows in part, and is in doubt from now on.
    Doubt(Verdict),
    /// It displaced a newer version, which is written again.
    Rewrite(Loose),
}

/// Looks at a config that was read just now.
pub(crate) async fn look(
    context: &Context,
    cell: &RobotCell,
    feeder: &FeederId,
    reading: &ConfigReading,
) {
    let all = cell.ledger.look().await.feeders.get(feeder).map(|b| b.loose.clone());
    let busy = cell.control(feeder).is_some_and(crate::farm::Control::config_busy);
    // What a person settled waits for the end of a newer command: its config is on its way.
    for loose in all.unwrap_or_default().into_iter().filter(|l| !(l.resolved && busy)) {
        look_at(context, cell, feeder, reading, loose).await;
    }
}

async fn look_at(
    context: &Context,
    cell: &RobotCell,
    feeder: &FeederId,
    reading: &ConfigReading,
    loose: Loose,
) {
    let alive = cell.view().alive.map(|(value, _)| value);
    let now_ms = context.clock.monotonic_ms();
    match step(cell, loose.clone(), reading, alive, now_ms) {
        Step::Wait(next) => {
            remember(cell, feeder, next, None).await;
        }
        Step::Forget => forget(cell, feeder, &loose).await,
        Step::Settle { verdict, mixed } => end(context, cell, &loose, verdict, true, mixed).await,
        Step::Doubt(verdict) => end(context, cell, &loose, verdict, false, true).await,
        Step::Rewrite(next) => {
            let newer = next.marks.newer.clone();
            let alarm = Alarm::feeder(Reason::ChangedAtFarm, pb::AlarmSeverity::Warning, feeder)
                .with("command", &next.order.command)
                .with("detail", "a late write displaced a newer config, which is written again");
            // First it is known for good that it was: a restart must not do it again.
            if remember(cell, feeder, next, Some(alarm)).await {
                rewrite(cell, feeder, reading, newer.as_ref()).await;
            }
        }
    }
}

fn step(
    cell: &RobotCell,
    mut loose: Loose,
    reading: &ConfigReading,
    alive: Option<u64>,
    now_ms: i64,
) -> Step {
    let Action::UpdateConfig { base, new, .. } = &loose.order.action else {
        return Step::Settle { verdict: Verdict::expired(), mixed: false };
    };
    let (base, new) = (ObservedConfig::from(base.clone()), ObservedConfig::Valid(new.clone()));
    let config = &reading.config;
    let attached = |v: Verdict| v.with("feeder", &loose.order.feeder).config(config.clone());
    let seen = (reading.plc_epoch.unwrap_or(0), reading.revision.unwrap_or(0));
    let lost = loose.base.is_some_and(|(epoch, _)| epoch != seen.0);
    if lost {
        let verdict = attached(Verdict::uncertain(Reason::PlcMemoryLost)).with("robot", &cell.id);
        return Step::Settle { verdict, mixed: true };
    }
    let dwell = i64::try_from(cell.traits.dwell.as_millis()).unwrap_or(i64::MAX);
    let until = loose.until_ms.or(loose.resolved.then(|| now_ms.saturating_add(LATE_MS)));
    loose.until_ms = until;
    if loose.marks.newer.as_ref() == Some(&new) && *config == new {
        // A newer command set the same.
        return forget_or_wait(loose, now_ms);
    }
    if *config == new {
        if loose.marks.newer.is_some() && loose.marks.rewritten {
            let verdict = attached(Verdict::uncertain(Reason::ConfigMixed));
            return Step::Settle { verdict, mixed: true };
        }
        if loose.marks.newer.is_some() {
            loose.marks.rewritten = true;
            return Step::Rewrite(loose);
        }
        let (since, first) = *loose.shown.get_or_insert((now_ms, alive));
        loose.shown = Some((since, first.or(alive)));
        loose.marks.showed = true;
        let proof = cell.traits.life_provable && !cell.traits.dwell.is_zero();
        if loose.before.is_empty() {
            loose.before.clone_from(&reading.stamps);
        }
        let fields = base.valid().zip(new.valid()).map_or_else(FieldSet::all, |(b, n)| b.diff(n));
        let moved = (first.is_some() && alive.is_some() && alive != first)
            || reading.is_newer(&loose.before, &fields);
        if now_ms - since >= dwell && (!proof || moved) {
            return Step::Settle { verdict: attached(Verdict::applied()), mixed: false };
        }
        return Step::Wait(loose);
    }
    // A block is taken on its base only: once that has moved on it never will be.
    let dead = loose.base.is_some_and(|(_, revision)| revision != seen.1);
    if dead || (loose.marks.rewritten && Some(config) == loose.marks.newer.as_ref()) {
        let verdict = attached(Verdict::rejected(Reason::ChangedAtFarm));
        let verdict = verdict.with("command", &loose.order.command);
        return Step::Settle { verdict, mixed: false };
    }
    if *config == base {
        loose.before.clone_from(&reading.stamps);
        if loose.marks.showed {
            let verdict = attached(Verdict::rejected(Reason::RevertedByPlc)).with("field", "");
            return Step::Settle { verdict, mixed: false };
        }
        if cell.traits.dwell.is_zero() && loose.recovered {
            let verdict = Verdict { reason: Reason::AgentLost, ..Verdict::expired() };
            return Step::Settle { verdict: verdict.config(config.clone()), mixed: false };
        }
        if loose.reported {
            // Unless a newer command set the same as before.
            loose.marks.newer = loose.marks.newer.filter(|n| *n == base && loose.resolved);
            return forget_or_wait(loose, now_ms);
        }
        return Step::Doubt(attached(Verdict::uncertain(Reason::AgentLost)));
    }
    let scalar = cell.feeder(&loose.order.feeder).is_some_and(|f| f.profile == Profile::Scalar);
    if !loose.reported {
        // One tag is old or new, never half: neither of them is the farm's.
        let several = base.valid().is_none_or(|b| new.valid().is_some_and(|n| b.diff(n).len() > 1));
        let reason = if scalar && several { Reason::ConfigMixed } else { Reason::ChangedAtFarm };
        let verdict = attached(Verdict::uncertain(reason)).with("command", &loose.order.command);
        return Step::Doubt(verdict);
    }
    if scalar && loose.shows_in(config) {
        return in_part(loose, config, dwell, now_ms);
    }
    loose.mixed_ms = None;
    loose.marks.newer = Some(config.clone());
    loose.shown = None;
    forget_or_wait(loose, now_ms)
}

/// What a person settled is not watched for ever: later the same values are someone's edit.
fn forget_or_wait(loose: Loose, now_ms: i64) -> Step {
    match loose.until_ms {
        Some(until) if now_ms >= until => Step::Forget,
        _ => Step::Wait(loose),
    }
}

async fn forget(cell: &RobotCell, feeder: &FeederId, loose: &Loose) {
    let name = &loose.order.command;
    let forgotten = cell
        .ledger
        .update(|state, _, changes| {
            changes.push(Change::Forgotten(name.clone()));
            if let Some(book) = state.feeders.get_mut(feeder) {
                book.loose.retain(|l| l.order.command != *name);
            }
        })
        .await;
    if let Err(e) = forgotten {
        tracing::error!(command = %name, error = %e, "it is watched on");
    }
}

/// Some of several tags show. The others may be on their way: it counts when it stayed for a dwell.
fn in_part(mut loose: Loose, config: &ObservedConfig, dwell: i64, now_ms: i64) -> Step {
    if now_ms - *loose.mixed_ms.get_or_insert(now_ms) < dwell {
        return Step::Wait(loose);
    }
    let verdict = Verdict::uncertain(Reason::ConfigMixed)
        .with("feeder", &loose.order.feeder)
        .config(config.clone());
    match (&loose.marks.newer, loose.marks.rewritten) {
        (Some(_), true) => Step::Settle { verdict, mixed: true },
        (Some(_), false) => {
            loose.mixed_ms = None;
            loose.marks.rewritten = true;
            Step::Rewrite(loose)
        }
        (None, _) if loose.mixed => Step::Wait(loose),
        (None, _) => Step::Doubt(verdict),
    }
}

/// Keeps what was seen; what must outlast a restart is journaled. Whether it is kept.
async fn remember(cell: &RobotCell, feeder: &FeederId, loose: Loose, alarm: Option<Alarm>) -> bool {
    let kept = cell
        .ledger
        .update(|state, now, changes| {
            let Some(book) = state.feeders.get_mut(feeder) else { return };
            let Some(old) = book.loose_of(&loose.order.command) else { return };
            // A person may have settled it meanwhile.
            let (resolved, reported) = (old.resolved, old.reported);
            if old.marks != loose.marks {
                changes.push(Change::Loose(loose.order.command.clone(), loose.marks.clone()));
            }
            changes.extend(alarm.map(|a| Change::Record(Box::new(a.to_record(now.wall_ms)))));
            *old = Loose { reported, resolved, ..loose };
        })
        .await;
    if let Err(e) = &kept {
        tracing::error!(%feeder, error = %e, "what shows of a late write was not journaled");
    }
    kept.is_ok()
}

async fn rewrite(
    cell: &RobotCell,
    feeder: &FeederId,
    reading: &ConfigReading,
    newer: Option<&ObservedConfig>,
) {
    // A raw value is never written back.
    let Some(newer) = newer.and_then(ObservedConfig::valid) else { return };
    let fields = reading.config.valid().map_or_else(FieldSet::all, |now| now.diff(newer));
    tracing::warn!(%feeder, "a late write displaced a newer config; writing that again");
    if let Err(e) = cell.write_config(feeder, reading, newer, &fields).await {
        tracing::warn!(%feeder, error = %e, "the newer config could not be written");
    }
}

async fn end(
    context: &Context,
    cell: &RobotCell,
    loose: &Loose,
    verdict: Verdict,
    settled: bool,
    mixed: bool,
) {
    let late = loose.reported && verdict.state == CommandState::Applied;
    let doubt = verdict.state == CommandState::Uncertain;
    let report = told(cell, verdict, &loose.order, loose.epoch).await;
    let feeder = &loose.order.feeder;
    tracing::info!(command = %report.command, state = ?report.state, reason = report.reason.name(), "loose config");
    let journaled = cell
        .ledger
        .update(|state, now, changes| {
            let outcome = Box::new(report.clone());
            changes.push(Change::Outcome {
                report: outcome,
                settled: settled || loose.resolved,
                loose: !settled,
            });
            if late || doubt {
                let reason = if late { Reason::ReadbackNotProven } else { report.reason };
                let alarm = Alarm::feeder(reason, pb::AlarmSeverity::Warning, feeder)
                    .with("command", &report.command);
                changes.push(Change::Record(Box::new(alarm.to_record(now.wall_ms))));
            }
            let Some(book) = state.feeders.get_mut(feeder) else { return };
            if settled {
                book.loose.retain(|l| l.order.command != report.command);
                if let Some(config) = report.config.as_ref().filter(|_| late) {
                    changes.extend(book.supersede(&report.command, config));
                }
            } else if let Some(loose) = book.loose_of(&report.command) {
                loose.reported = true;
                loose.mixed |= report.reason == Reason::ConfigMixed;
            }
            if mixed && report.reason == Reason::ConfigMixed {
                book.hold(pb::HoldSource::ConfigMixed, ("", ""), now, changes);
            } else if !mixed {
                book.lift(pb::HoldSource::ConfigMixed, now, changes);
            }
            if report.state == CommandState::Applied {
                book.confirm(now, changes);
            }
        })
        .await;
    match journaled {
        Ok(()) => context.outbox.push(report),
        // The next poll tries again.
        Err(e) => tracing::error!(command = %report.command, error = %e, "not settled"),
    }
    cell.touch();
}
