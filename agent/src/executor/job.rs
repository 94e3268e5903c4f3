//! One command on its way, and how its beginning and its end are journaled.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use pasamanos_faults::{crash_point, planted};
use pasamanos_proto::model::{CommandName, CommandOrder, CommandReport, CommandState, FeederId};
use tokio::time::sleep;

use super::verdict::Verdict;
use super::{Context, InFlight, progress};
use crate::calendar::Moment;
use crate::farm::{Control, Place, RobotCell};
use crate::journal::{Change, Entry, LooseMarks};
use crate::ledger::{Book, State};

/// While it lives the command is in the executor.
#[derive(Debug)]
pub(crate) struct Ticket {
    in_flight: InFlight,
    name: CommandName,
    config: Option<(Arc<RobotCell>, FeederId)>,
}

impl Ticket {
    /// Of a command that is in the set already; with a robot if it changes the feeder's config.
    pub(crate) fn new(
        in_flight: &InFlight,
        name: CommandName,
        config: Option<Arc<RobotCell>>,
        feeder: &FeederId,
    ) -> Self {
        let config = config.map(|cell| (cell, feeder.clone()));
        let ticket = Self { in_flight: Arc::clone(in_flight), name, config };
        if let Some(control) = ticket.control() {
            control.config_entered(true);
        }
        ticket
    }

    fn control(&self) -> Option<&Control> {
        self.config.as_ref().and_then(|(cell, feeder)| cell.control(feeder))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(control) = self.control() {
            control.config_entered(false);
        }
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// An end as it is told; whose the config is that goes with it, the ledger knows.
pub(crate) async fn told(
    cell: &RobotCell,
    verdict: Verdict,
    order: &CommandOrder,
    epoch: i64,
) -> CommandReport {
    let mut report = verdict.report(order, epoch);
    if let Some(config) = &report.config {
        let state = cell.ledger.look().await;
        let book = state.feeders.get(&order.feeder);
        report.memory_lost = book.is_some_and(|b| b.is_memory_lost(config));
    }
    report
}

/// A journal that refuses is tried again after this.
const AGAIN: Duration = Duration::from_secs(2);

/// Why a command was not begun.
#[derive(Debug)]
pub(crate) enum NotBegun {
    /// Its session is over: it is as if it had never come.
    Dropped,
    /// It must end so.
    Refused(Box<Verdict>),
}

/// One command on its way.
#[derive(Debug)]
pub(crate) struct Job {
    /// What every command needs.
    pub context: Context,
    /// Its robot.
    pub cell: Arc<RobotCell>,
    /// The command.
    pub order: CommandOrder,
    /// The session epoch in which it was received or journaled.
    pub epoch: i64,
    /// Whether the journal has it.
    pub journaled: bool,
    _ticket: Option<Ticket>,
}

impl Job {
    /// A command that was just received.
    pub(crate) fn new(
        context: Context,
        cell: Arc<RobotCell>,
        order: CommandOrder,
        epoch: i64,
        ticket: Ticket,
    ) -> Self {
        Self { context, cell, order, epoch, journaled: false, _ticket: Some(ticket) }
    }

    /// A command that the journal left open.
    pub(crate) fn recovered(context: Context, cell: Arc<RobotCell>, entry: &Entry) -> Self {
        let (order, epoch) = (entry.order.clone(), entry.epoch);
        Self { context, cell, order, epoch, journaled: true, _ticket: None }
    }

    /// The feeder.
    pub(crate) fn feeder(&self) -> &FeederId {
        &self.order.feeder
    }

    /// What running commands of this feeder tell each other.
    pub(crate) fn control(&self) -> Option<&Control> {
        self.cell.control(&self.order.feeder)
    }

    /// The machine's clock.
    pub(crate) fn now_ms(&self) -> i64 {
        self.context.clock.monotonic_ms()
    }

    /// Whether the last instant at which it may start has passed; on another boot it has.
    pub(crate) fn expired(&self) -> bool {
        if planted!("agent-start-limit-ignored") {
            return false;
        }
        self.order.boot_id != self.context.clock.boot_id()
            || self.now_ms() >= self.order.start_before_ms
    }

    /// When it was accepted, among those of its feeder.
    pub(crate) fn place(&self) -> Place {
        (self.epoch, self.order.number)
    }

    /// Whether a later hold overtook it.
    pub(crate) fn overtaken(&self) -> bool {
        self.control().is_some_and(|c| c.overtaken(self.place())) && !planted!("agent-hold-waits")
    }

    /// How it must end if it must not begin now.
    pub(crate) fn too_late(&self) -> Option<Verdict> {
        if self.overtaken() {
            return Some(Verdict::rejected(pasamanos_proto::model::Reason::SupersededByHold));
        }
        self.expired().then(Verdict::expired)
    }

    /// The journal's entry of it, open or with its end.
    pub(crate) fn entry(&self, report: Option<CommandReport>) -> Entry {
        let settled = report.is_some();
        Entry {
            order: self.order.clone(),
            robot: self.cell.id.clone(),
            epoch: self.epoch,
            slot: None,
            report,
            settled,
            loose: false,
            marks: LooseMarks::default(),
        }
    }

    /// Journals the intent, with whatever belongs to it, while its session is current and its time
    /// has not passed; then tells that it begins.
    pub(crate) async fn begin(
        &mut self,
        with: impl FnOnce(&mut State, &Moment, &mut Vec<Change>),
    ) -> Result<(), NotBegun> {
        {
            let Some(_entered) = self.context.gate.enter(self.epoch).await else {
                return Err(NotBegun::Dropped);
            };
            if let Some(verdict) = self.too_late() {
                return Err(NotBegun::Refused(Box::new(verdict)));
            }
            self.cell.ledger.update(with).await.map_err(|e| {
                tracing::error!(command = %self.order.command, error = %e, "not begun");
                let reason = pasamanos_proto::model::Reason::Internal;
                NotBegun::Refused(Box::new(Verdict::rejected(reason).detail(e.to_string())))
            })?;
        }
        self.journaled = true;
        self.context.outbox.push(progress(&self.order, CommandState::Executing, self.epoch));
        Ok(())
    }

    /// Ends a command that was not begun. If the journal refuses too, it is told all the same:
    /// nothing was done and nothing will be, which is what the server concludes of one that no
    /// journal lists.
    pub(crate) async fn refuse(&self, verdict: Verdict) {
        let Some(_entered) = self.context.gate.enter(self.epoch).await else { return };
        let report = told(&self.cell, verdict, &self.order, self.epoch).await;
        self.log(&report);
        let entry = self.entry(Some(report.clone()));
        let journaled = self
            .cell
            .ledger
            .update(|_, _, changes| changes.push(Change::Command(Box::new(entry))))
            .await;
        if let Err(e) = journaled {
            tracing::error!(command = %self.order.command, error = %e, "a refusal was not journaled");
        }
        crash_point!("agent.outcome.journaled");
        self.context.outbox.push(report);
    }

    /// Ends what could not be begun.
    pub(crate) async fn not_begun(&self, why: NotBegun) {
        match why {
            NotBegun::Dropped => {
                tracing::info!(command = %self.order.command, "dropped: its session is over");
            }
            NotBegun::Refused(verdict) => self.refuse(*verdict).await,
        }
    }

    /// Journals the end, with whatever belongs to it, and tells it. Does not give up: what was done
    /// at the farm must be told.
    pub(crate) async fn end(
        &self,
        verdict: Verdict,
        mut with: impl FnMut(&mut State, &CommandReport, &Moment, &mut Vec<Change>),
    ) {
        let report = told(&self.cell, verdict, &self.order, self.epoch).await;
        self.log(&report);
        crash_point!("agent.outcome.before-journal");
        if planted!("agent-outcome-before-journal") {
            self.context.outbox.push(report.clone());
        }
        loop {
            let journaled = self
                .cell
                .ledger
                .update(|state, now, changes| with(state, &report, now, changes))
                .await;
            let Err(e) = journaled else { break };
            tracing::error!(command = %self.order.command, error = %e, "an outcome was not journaled; trying again");
            tokio::select! {
                () = sleep(AGAIN) => {}
                () = self.context.stop.cancelled() => return,
            }
        }
        crash_point!("agent.outcome.journaled");
        self.context.outbox.push(report);
        self.cell.touch();
    }

    /// As [`Self::end`], with changes of the feeder's book.
    pub(crate) async fn end_with_book(
        &self,
        verdict: Verdict,
        settled: bool,
        mut with: impl FnMut(&mut Book, &Moment, &mut Vec<Change>),
    ) {
        self.end(verdict, |state, report, now, changes| {
            changes.push(Change::Outcome {
                report: Box::new(report.clone()),
                settled,
                loose: false,
            });
            if let Some(book) = state.feeders.get_mut(&self.order.feeder) {
                with(book, now, changes);
            }
        })
        .await;
    }

    fn log(&self, report: &CommandReport) {
        tracing::info!(
            command = %report.command,
            feeder = %self.order.feeder,
            state = ?report.state,
            reason = report.reason.name(),
            detail = report.detail,
            "command ended"
        );
    }
}
