//! Farms, agents, and what people say of commands in doubt.

use async_trait::async_trait;
use pasamanos_proto::model::{AgentName, CommandName, CommandState};
use serde_json::json;

use super::audit::{Entry, append_to_platform};
use super::read;
use super::tx::{Tx, Write};
use super::words::Word;
use crate::domain::ports::{
    NewFarm, NewResolution, Resolved, StoreError, StoredCommand, StoredResolution,
};

/// Who acts on the command line.
const OPERATOR: &str = "operator";

/// Adds a farm.
pub struct AddFarm(pub NewFarm);

#[async_trait]
impl Write for AddFarm {
    type Out = bool;
    type Err = StoreError;

    async fn run(&mut self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        let farm = &self.0;
        let insert = sqlx::query(
            "INSERT INTO farms (farm, display_name, time_zone, created_ms)
             VALUES ($1, $2, $3, $4) ON CONFLICT (farm) DO NOTHING",
        )
        .bind(farm.id.to_string())
        .bind(farm.display_name.clone())
        .bind(farm.time_zone.clone())
        .bind(farm.now_ms);
        if tx.execute(insert).await? == 0 {
            return Ok(false);
        }
        let head = sqlx::query(
            "INSERT INTO farm_heads (farm, command_order, audit_seq, audit_hash)
             VALUES ($1, 0, 0, $2)",
        )
        .bind(farm.id.to_string())
        .bind(vec![0_u8; 32]);
        tx.execute(head).await?;
        let entry = Entry {
            kind: "farm_added",
            subject: farm.id.name(),
            actor: OPERATOR.into(),
            body: json!({ "display_name": farm.display_name, "time_zone": farm.time_zone }),
            time_ms: farm.now_ms,
        };
        // In the farm's chain as its first, and in the platform's, which outlives a lost farm.
        append_to_platform(tx, entry.clone()).await?;
        tx.audit(&farm.id, entry).await?;
        Ok(true)
    }
}

/// Adds an agent.
pub struct AddAgent {
    /// Its name.
    pub agent: AgentName,
    /// Wall clock.
    pub now_ms: i64,
}

#[async_trait]
impl Write for AddAgent {
    type Out = bool;
    type Err = StoreError;

    async fn run(&mut self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        let agent = &self.agent;
        // Nothing is inserted without the farm, and that is not "there already".
        if !read::has_farm(tx.conn(), &agent.farm).await? {
            return Err(StoreError::NotFound);
        }
        let insert = sqlx::query(
            "INSERT INTO agents (farm, agent, epoch, command_epoch, version, created_ms)
             VALUES ($1, $2, 0, 0, '', $3) ON CONFLICT (farm, agent) DO NOTHING",
        )
        .bind(agent.farm.to_string())
        .bind(agent.agent.to_string())
        .bind(self.now_ms);
        if tx.execute(insert).await? == 0 {
            return Ok(false);
        }
        let entry = Entry {
            kind: "agent_added",
            subject: agent.to_string(),
            actor: OPERATOR.into(),
            body: json!({}),
            time_ms: self.now_ms,
        };
        tx.audit(&agent.farm, entry).await?;
        Ok(true)
    }
}

/// Records a person's settlement: it counts and unlocks, and changes no state.
pub struct Resolve(pub NewResolution);

#[async_trait]
impl Write for Resolve {
    type Out = Resolved;
    type Err = StoreError;

    async fn run(&mut self, tx: &mut Tx<'_>) -> Result<Resolved, StoreError> {
        let new = &self.0;
        let farm = &new.command.farm;
        if let Some(done) = read::resolved_by(tx.conn(), farm, new.request).await? {
            let same = done.name == new.command
                && done
                    .resolution
                    .as_ref()
                    .is_some_and(|r| r.what == new.what && r.note == new.note);
            let done = Box::new(done);
            return Ok(if same { Resolved::Done(done) } else { Resolved::Reused(done) });
        }
        // One id, one intention: a command's id is none of a settlement.
        let named = CommandName::new(farm.clone(), new.request);
        if let Some(other) = read::command(tx.conn(), &named).await? {
            return Ok(Resolved::Reused(Box::new(other)));
        }
        let command = read::command(tx.conn(), &new.command).await?;
        let mut command = command.ok_or(StoreError::NotFound)?;
        if command.state != CommandState::Uncertain || command.resolution.is_some() {
            return Ok(Resolved::NotInDoubt(Box::new(command)));
        }
        record(tx, &mut command, new).await?;
        Ok(Resolved::Done(Box::new(command)))
    }
}

async fn record(
    tx: &mut Tx<'_>,
    command: &mut StoredCommand,
    new: &NewResolution,
) -> Result<(), StoreError> {
    let update = sqlx::query(
        "UPDATE commands SET resolve_request = $3, resolve_verdict = $4, resolve_fed_mg = $5,
                resolve_who = $6, resolve_note = $7, resolved_ms = $8
         WHERE farm = $1 AND request_id = $2 AND state = 'UNCERTAIN' AND resolved_ms IS NULL",
    )
    .bind(command.name.farm.to_string())
    .bind(command.name.request.to_string())
    .bind(new.request.to_string())
    .bind(new.what.verdict.word())
    .bind(new.what.fed_mg.map(i64::from))
    .bind(new.who.clone())
    .bind(new.note.clone())
    .bind(new.now_ms);
    tx.execute(update).await?;
    command.resolution = Some(StoredResolution {
        what: new.what.clone(),
        who: new.who.clone(),
        note: new.note.clone(),
        time_ms: new.now_ms,
    });
    let entry = Entry {
        kind: "resolved",
        subject: command.name.to_string(),
        actor: new.who.clone(),
        body: json!({
            "request": new.request.to_string(),
            "verdict": new.what.verdict.word(),
            "fed_mg": new.what.fed_mg,
            "note": new.note,
        }),
        time_ms: new.now_ms,
    };
    tx.audit(&command.name.farm, entry).await
}
