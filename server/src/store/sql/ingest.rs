//! What an agent reports in its session: outcomes, configs, records. Fenced by the epoch.

use async_trait::async_trait;
use pasamanos_faults::planted;
use pasamanos_proto::model::{AgentName, CommandName, CommandReport, FeederId, ObservedConfig};
use sqlx::Row as _;

use super::driver::for_update;
use super::feeders::{self, Whose};
use super::settle::settle_reported;
use super::tx::{Tx, Write};
use super::{read, records};
use crate::domain::command::{Transition, transition};
use crate::domain::ports::{Ingest, IngestError, Ingested, StoreError};

/// Stores reports in order.
pub struct Reports {
    /// Whose.
    pub agent: AgentName,
    /// Of which session.
    pub epoch: i64,
    /// What they say.
    pub items: Vec<Ingest>,
    /// Wall clock.
    pub now_ms: i64,
}

#[async_trait]
impl Write for Reports {
    type Out = Vec<Ingested>;
    type Err = IngestError;

    async fn run(&mut self, tx: &mut Tx<'_>) -> Result<Vec<Ingested>, IngestError> {
        // An outcome is read together with the epoch; one that stands first needs no other look.
        if !matches!(self.items.first(), Some(Ingest::Outcome(_))) {
            self.fence(tx).await?;
        }
        let mut done = Vec::with_capacity(self.items.len());
        for item in &self.items {
            done.push(match item {
                Ingest::Outcome(report) => self.outcome(tx, report).await?,
                Ingest::Config(feeder, config) => {
                    self.config(tx, feeder, config, Whose::Farm).await?
                }
                Ingest::MemoryLost(feeder, config) => {
                    self.config(tx, feeder, config, Whose::MemoryLost).await?
                }
                Ingest::Records(batch) => {
                    let (through, doses) =
                        records::store(tx, &self.agent, batch, self.now_ms).await?;
                    Ingested::Records { incarnation: batch.incarnation.clone(), through, doses }
                }
            });
        }
        Ok(done)
    }
}

impl Reports {
    /// Fails if the session is not the current one; locks the epoch until the transaction ends.
    async fn fence(&self, tx: &mut Tx<'_>) -> Result<(), IngestError> {
        let row = sqlx::query(concat!(
            "SELECT epoch FROM agents WHERE farm = $1 AND agent = $2",
            for_update!()
        ))
        .bind(self.agent.farm.to_string())
        .bind(self.agent.agent.to_string())
        .fetch_optional(tx.conn())
        .await?;
        let epoch: Option<i64> = row.map(|row| row.try_get("epoch")).transpose()?;
        if epoch == Some(self.epoch) || planted!("server-outcome-unfenced") {
            Ok(())
        } else {
            Err(IngestError::Fenced)
        }
    }

    async fn outcome(
        &self,
        tx: &mut Tx<'_>,
        report: &CommandReport,
    ) -> Result<Ingested, IngestError> {
        let refused = |why: &'static str| {
            tracing::error!(agent = %self.agent, command = %report.command, why, "alarm: a report is refused");
            Ok(Ingested::Refused { command: report.command.clone(), why })
        };
        let found = read::command_of(tx.conn(), &self.agent, &report.command).await?;
        let Some((mut command, mut feeder, epoch)) = found else {
            self.fence(tx).await?;
            return refused("no such command of this agent");
        };
        if epoch != self.epoch && !planted!("server-outcome-unfenced") {
            return Err(IngestError::Fenced);
        }
        if report.body_hash != command.action.body_hash(&command.feeder) {
            return refused("another body");
        }
        if command.epoch != self.epoch && !command.state.is_terminal() {
            return refused("a command of another epoch that no hello settled");
        }
        let step = transition(command.state, report.state);
        let changed = match step {
            Transition::Apply => true,
            // Nothing is known better by hearing the same again.
            Transition::Refine => command.doubt_by_server || command.reason != report.reason,
            Transition::Keep | Transition::Contradiction => false,
        };
        if changed {
            settle_reported(tx, &mut command, &mut feeder, report, self.now_ms).await?;
        } else if step == Transition::Contradiction {
            tracing::error!(
                command = %command.name, stored = ?command.state, reported = ?report.state,
                "alarm: a report contradicts the end that is stored; nothing changes"
            );
        }
        let anchor = tx.anchor(&self.agent.farm).await?;
        Ok(Ingested::Outcome {
            command: Box::new(command),
            feeder: Box::new(feeder),
            changed,
            anchor,
        })
    }

    async fn config(
        &self,
        tx: &mut Tx<'_>,
        feeder: &FeederId,
        config: &ObservedConfig,
        whose: Whose,
    ) -> Result<Ingested, StoreError> {
        let farm = &self.agent.farm;
        let of_agent =
            read::feeder(tx.conn(), farm, feeder).await?.filter(|f| f.agent == self.agent.agent);
        let Some(mut feeder) = of_agent else {
            tracing::error!(agent = %self.agent, %feeder, "alarm: a config of a feeder that is not its own");
            return Ok(Ingested::Config(None));
        };
        if let Some(request) = feeder.pending {
            let name = CommandName::new(farm.clone(), request);
            let open = read::command(tx.conn(), &name).await?;
            if open.is_some_and(|c| !c.state.is_terminal()) {
                return Ok(Ingested::Config(None));
            }
        }
        let made = feeders::observe(tx, farm, &mut feeder, config, whose, self.now_ms).await?;
        Ok(Ingested::Config(made.then(|| Box::new(feeder))))
    }
}
