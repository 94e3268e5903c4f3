//! Reports that wait for the session to send them. Only the newest of a command counts; all outcomes
//! are in the journal too, so that one that is lost here is told again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pasamanos_proto::model::CommandReport;
use tokio::sync::Notify;

/// More than a session can have open; beyond it the oldest is left to the journal.
const MAX: usize = 1_024;

/// What the session has to tell of commands.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    reports: Mutex<VecDeque<CommandReport>>,
    came: Notify,
}

impl Outbox {
    /// Puts a report in place of an older one of the command. Progress does not follow an outcome.
    pub(crate) fn push(&self, report: CommandReport) {
        let mut reports = self.lock();
        if let Some(i) = reports.iter().position(|r| r.command == report.command) {
            if reports[i].state.is_terminal() && !report.state.is_terminal() {
                return;
            }
            reports.remove(i);
        }
        if reports.len() >= MAX {
            reports.pop_front();
        }
        reports.push_back(report);
        drop(reports);
        self.came.notify_one();
    }

    /// Puts a report that was told before, unless there is a newer one.
    pub(crate) fn push_again(&self, report: CommandReport) {
        if !self.lock().iter().any(|r| r.command == report.command) {
            self.push(report);
        }
    }

    /// The next one.
    pub(crate) fn pop(&self) -> Option<CommandReport> {
        self.lock().pop_front()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Forgets all: the next hello says it.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// Waits until there is one.
    pub(crate) async fn wait(&self) {
        while self.is_empty() {
            self.came.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<CommandReport>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
