//! What the journal left open: nothing of it is begun again. Doses are fenced, holds are written,
//! configs are read back by the poller.

use futures_util::future::BoxFuture;
use pasamanos_proto::model::{Action, Reason};

use super::dose::{self, Doubt};
use super::job::Job;
use super::slot::token;
use super::{Context, fault, hold};
use crate::farm::RobotCell;
use crate::journal::Entry;
use std::sync::Arc;

/// What a worker has to finish first.
#[derive(Default)]
pub(super) struct Recovered {
    /// The dose that was open.
    pub dose: Option<(Job, Doubt)>,
    /// The rest, beside other commands.
    pub others: Vec<BoxFuture<'static, ()>>,
}

/// Sorts what was open.
pub(super) async fn sort(context: &Context, cell: &Arc<RobotCell>, open: Vec<Entry>) -> Recovered {
    let mut recovered = Recovered::default();
    for entry in open {
        // It was sent, and told as in doubt: what the PLC shows ends that, as if nobody had restarted.
        let doubted = entry.report.is_some();
        let job = Job::recovered(context.clone(), Arc::clone(cell), &entry);
        tracing::info!(command = %entry.order.command, kind = entry.order.action.kind().as_str(), "found open");
        match entry.order.action {
            Action::FeedNow { .. } => {
                let state = cell.ledger.look().await;
                let dose = state.open_dose.clone();
                let taken_in = state.recalled(token(&entry.order.command)).map(|(_, end)| end);
                drop(state);
                let mine = dose.filter(|d| d.order.command == entry.order.command);
                // Of a dose that the PLC forgot no slot can tell any more: a fence that it takes now
                // would say of one that ran that it never did. A person settles it.
                let forgotten = cell.traits.sequenced
                    && entry.report.as_ref().is_some_and(|r| r.reason == Reason::PlcMemoryLost);
                if let Some(open) = mine.filter(|_| !forgotten) {
                    let doubt = dose::recover(&job, &open, taken_in);
                    recovered.dose = Some((job, doubt));
                }
            }
            Action::Hold => {
                recovered.others.push(Box::pin(hold::until_held(job, doubted)));
            }
            Action::Resume if doubted => {
                recovered.others.push(Box::pin(hold::settle_resume(job)));
            }
            Action::ResetFault { fault_code } if doubted => {
                recovered.others.push(Box::pin(fault::settle(job, fault_code)));
            }
            Action::Resume => recovered.others.push(Box::pin(hold::resume_recovered(job))),
            Action::ResetFault { fault_code } => {
                recovered.others.push(Box::pin(fault::recover(job, fault_code)));
            }
            // Its values are loose until the poller has seen what the PLC runs.
            Action::UpdateConfig { .. } => {}
        }
    }
    recovered
}
