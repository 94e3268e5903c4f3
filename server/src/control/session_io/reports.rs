//! What must last of an agent's reports: queued in its order, stored in batches, acknowledged and
//! shown only after the commit.

use pasamanos_faults::crash_point;
use pasamanos_proto::model::Reason;
use pasamanos_proto::pb::{self, connect_response::Frame};

use super::super::outcomes::Progress;
use super::super::session::SessionError;
use super::Session;
use crate::domain::ports::{Ingest, IngestError, Ingested};

/// Reports kept while the database is away; an agent has far fewer open commands.
const MAX_QUEUED: usize = 2_048;
/// Reports stored in one transaction.
const MAX_BATCH: usize = 64;

/// Of records there is one batch at a time.
fn is_records(item: &Ingest) -> bool {
    matches!(item, Ingest::Records(_))
}

impl Session {
    /// Stores what is queued, one batch at a time.
    pub(super) fn start_storing(&mut self) {
        if self.storing.is_none() && !self.queue.is_empty() && !self.retry_storing {
            let batch: Vec<_> = self.queue.drain(..self.queue.len().min(MAX_BATCH)).collect();
            let (control, agent, epoch) =
                (self.control.clone(), self.agent.clone(), self.holder.epoch);
            self.storing = Some(Box::pin(async move {
                crash_point!("server.outcome.before-commit");
                if batch.iter().any(is_records) {
                    crash_point!("server.records.before-commit");
                }
                let now_ms = control.clock.wall_ms();
                let result = control.store.ingest(&agent, epoch, &batch, now_ms).await;
                (batch, result)
            }));
        }
    }

    pub(super) fn keep(&mut self, item: Ingest) -> Result<(), SessionError> {
        if self.queue.len() >= MAX_QUEUED {
            return Err(SessionError::Unavailable);
        }
        self.queue.push_back(item);
        Ok(())
    }

    pub(super) fn stored(
        &mut self,
        batch: Vec<Ingest>,
        result: Result<Vec<Ingested>, IngestError>,
    ) -> Result<(), SessionError> {
        let stored = match result {
            Ok(stored) => stored,
            Err(IngestError::Fenced) => {
                self.goodbye(Reason::SessionSuperseded);
                return Err(SessionError::Superseded);
            }
            Err(IngestError::Store(e)) => {
                tracing::warn!(agent = %self.agent, error = %e, "reports not stored: tried again");
                for item in batch.into_iter().rev() {
                    self.queue.push_front(item);
                }
                // The next tick tries again; nothing was acknowledged meanwhile.
                self.retry_storing = true;
                return Ok(());
            }
        };
        crash_point!("server.outcome.committed");
        if batch.iter().any(is_records) {
            crash_point!("server.records.committed");
        }
        for item in stored {
            self.tell(item);
        }
        Ok(())
    }

    /// Committed: acknowledge, show, and answer who waits.
    fn tell(&mut self, item: Ingested) {
        let farm = self.control.farms.loaded(&self.agent.farm);
        match item {
            Ingested::Outcome { command, feeder, changed: _, anchor } => {
                self.anchor = anchor;
                self.open.remove(&command.name);
                let state = pb::CommandState::from(command.state).as_str_name();
                metrics::counter!("pasamanos_outcomes_total", "state" => state).increment(1);
                if let Some(farm) = &farm {
                    farm.update(|s, _| {
                        s.put_command(Progress::stored((*command).clone()));
                        s.put_feeder(*feeder);
                    });
                }
                self.control.outcomes.publish(&Progress::stored((*command).clone()));
                self.acknowledge(&command);
            }
            Ingested::Refused { command, why } => {
                tracing::error!(agent = %self.agent, %command, why, "alarm: a report was refused");
            }
            Ingested::Config(Some(feeder)) => {
                let author = feeder.version.as_ref().map(|v| v.author.as_str_name());
                tracing::info!(agent = %self.agent, feeder = %feeder.id, author, "a config that no command set");
                if let Some(farm) = &farm {
                    farm.update(|s, _| s.put_feeder(*feeder));
                }
            }
            Ingested::Config(None) => {}
            Ingested::Records { incarnation, through, doses } => {
                if let Some(farm) = &farm {
                    farm.update(|s, _| s.put_doses(doses));
                }
                self.records_queued = false;
                self.send(Frame::RecordsAck(pb::RecordsAck {
                    incarnation,
                    through_sequence: through,
                }));
            }
        }
    }
}
