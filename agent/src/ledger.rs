//! What the agent knows of one robot beyond the last snapshot: its slot, its open dose, what holds
//! its feeders, what they were fed. Memory follows the journal: a change counts once it is durable.

mod book;
mod envelope;
mod observe;
mod recall;
mod state;

use tokio::sync::{Mutex, MutexGuard};

pub(crate) use self::book::{Book, LATE_MS, Loose};
pub(crate) use self::recall::Recall;
pub(crate) use self::state::{DoseEnd, OpenDose, State};
use crate::calendar::{Calendar, Moment};
use crate::journal::{Change, Journal, JournalError};

/// One robot's ledger.
#[derive(Debug)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    journal: Journal,
    calendar: Calendar,
}

impl Ledger {
    /// Over what was journaled.
    pub(crate) fn new(state: State, journal: Journal, calendar: Calendar) -> Self {
        Self { state: Mutex::new(state), journal, calendar }
    }

    /// Changes the state and the journal together, or neither. Must not be dropped half way.
    ///
    /// # Errors
    /// If the journal refused: then nothing changed.
    pub(crate) async fn update<T>(
        &self,
        change: impl FnOnce(&mut State, &Moment, &mut Vec<Change>) -> T,
    ) -> Result<T, JournalError> {
        let mut state = self.state.lock().await;
        let mut next = state.clone();
        let mut changes = Vec::new();
        let answer = change(&mut next, &self.calendar.now(), &mut changes);
        self.journal.commit(changes).await?;
        *state = next;
        Ok(answer)
    }

    /// The state, to look at.
    pub(crate) async fn look(&self) -> MutexGuard<'_, State> {
        self.state.lock().await
    }

    /// Now.
    pub(crate) fn now(&self) -> Moment {
        self.calendar.now()
    }
}
