//! What an agent reports in its session: outcomes, configs, records. Fenced by the epoch.

use async_trait::async_trait;
use pasamanos_proto::model::{
    AgentName, CommandName, CommandReport, CommandState, FeederId, ObservedConfig,
};
use pasamanos_proto::pb::ConfigAuthor;
use sqlx::Row as _;

use super::driver::for_update;
use super::session::of_agent;
use super::settle::{feeder_of, settle_reported};
use super::tx::{Tx, Write};
use super::{feeders, read, records};
use crate::domain::command::{Transition, transition};
use crate::domain::ports::{Ingest, IngestError, Ingested, StoreError, StoredCommand};

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
        if current_epoch(tx, &self.agent).await? != Some(self.epoch) {
            return Err(IngestError::Fenced);
        }
        let mut done = Vec::with_capacity(self.items.len());
        for item in &self.items {
            done.push(match item {
                Ingest::Outcome(report) => self.outcome(tx, report).await?,
                Ingest::Config(feeder, config) => self.config(tx, feeder, config).await?,
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

/// The agent's epoch, locked until the transaction ends.
async fn current_epoch(tx: &mut Tx<'_>, agent: &AgentName) -> Result<Option<i64>, StoreError> {
    let row = sqlx::query(concat!(
        "SELECT epoch FROM agents WHERE farm = $1 AND agent = $2",
        for_update!()
    ))
    .bind(agent.farm.to_string())
    .bind(agent.agent.to_string())
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| row.try_get("epoch")).transpose()?)
}

impl Reports {
    async fn outcome(
        &self,
        tx: &mut Tx<'_>,
        report: &CommandReport,
    ) -> Result<Ingested, StoreError> {
        let refused = |why: &'static str| {
            tracing::error!(agent = %self.agent, command = %report.command, why, "alarm: a report is refused");
            Ok(Ingested::Refused { command: report.command.clone(), why })
        };
        let Some(mut command) = of_agent(tx, &self.agent, &report.command).await? else {
            return refused("no such command of this agent");
        };
        if report.body_hash != command.action.body_hash(&command.feeder) {
            return refused("another body");
        }
        if command.epoch != self.epoch && !command.state.is_terminal() {
            return refused("a command of another epoch that no hello settled");
        }
        let (feeder, changed) = match transition(command.state, report.state) {
            Transition::Apply => {
                (settle_reported(tx, &mut command, report, self.now_ms).await?, true)
            }
            // Nothing is known better by hearing the same again.
            Transition::Refine if command.doubt_by_server || command.reason != report.reason => {
                (settle_reported(tx, &mut command, report, self.now_ms).await?, true)
            }
            step => {
                if step == Transition::Contradiction {
                    contradiction(&command, report.state);
                }
                (feeder_of(tx, &self.agent.farm, &command).await?, false)
            }
        };
        Ok(Ingested::Outcome { command: Box::new(command), feeder: Box::new(feeder), changed })
    }

    async fn config(
        &self,
        tx: &mut Tx<'_>,
        feeder: &FeederId,
        config: &ObservedConfig,
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
        let author = ConfigAuthor::Farm;
        let made =
            feeders::observe(tx, farm, &mut feeder, config, author, None, self.now_ms).await?;
        Ok(Ingested::Config(made.then(|| Box::new(feeder))))
    }
}

fn contradiction(command: &StoredCommand, reported: CommandState) {
    tracing::error!(
        command = %command.name, stored = ?command.state, ?reported,
        "alarm: a report contradicts the end that is stored; nothing changes"
    );
}
