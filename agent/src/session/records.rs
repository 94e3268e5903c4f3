//! Sends records: in order, one batch outstanding, forgotten only once the server has them for good.

use std::time::Duration;

use pasamanos_faults::planted;
use pasamanos_proto::model::MAX_RECORDS;
use pasamanos_proto::pb;
use tokio::time::Instant;

use crate::journal::{Journal, JournalError};

/// A batch that was not acknowledged is sent again after this.
const AGAIN: Duration = Duration::from_secs(15);

/// How far the server is.
pub(super) struct Shipping {
    through: i64,
    outstanding: Option<(i64, Instant)>,
}

impl Shipping {
    /// After a welcome.
    pub(super) fn new(through: i64) -> Self {
        Self { through: through.max(0), outstanding: None }
    }

    /// Whether a batch can be sent.
    pub(super) fn due(&self, high_water: i64) -> bool {
        self.outstanding.is_none() && high_water > self.through
    }

    /// The next batch.
    pub(super) async fn next(
        &mut self,
        journal: &Journal,
    ) -> Result<Option<pb::Records>, JournalError> {
        let records = journal.records(self.through, MAX_RECORDS).await?;
        let Some(last) = records.last() else {
            // The journal does not hold what it once counted: nothing to send up to there.
            self.through = *journal.high_water().borrow();
            return Ok(None);
        };
        self.outstanding = Some((last.sequence, Instant::now()));
        if planted!("agent-records-forgotten-when-sent") {
            journal.records_acked(last.sequence).await;
        }
        Ok(Some(pb::Records { incarnation: journal.incarnation().into(), records }))
    }

    /// The server has all up to this one.
    pub(super) fn ack(&mut self, through: i64) {
        // Only what was sent can be acknowledged, whatever the server says.
        let Some((last, _)) = self.outstanding else { return };
        self.through = self.through.max(through.min(last));
        if self.outstanding.is_some_and(|(last, _)| last <= self.through) {
            self.outstanding = None;
        }
    }

    /// Lets the journal forget them.
    pub(super) async fn acknowledged(&self, journal: &Journal) {
        if self.through > 0 {
            journal.records_acked(self.through).await;
        }
    }

    /// Gives up waiting for a batch that was sent long ago.
    pub(super) fn again(&mut self) {
        self.outstanding = self.outstanding.filter(|(_, sent)| sent.elapsed() < AGAIN);
    }
}
