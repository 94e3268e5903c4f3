//! Acceptance: the locks, the number and the row of a command, all or none.

use std::collections::BTreeMap;

use async_trait::async_trait;
use pasamanos_proto::model::{Action, ActionKind, AgentName, CommandName, CommandState, Reason};
use pasamanos_proto::pb;
use prost::Message as _;
use serde_json::json;
use sqlx::Row as _;

use super::audit::Entry;
use super::read;
use super::tx::{Tx, Write, broken};
use super::words::hex;
use crate::domain::ports::{AcceptError, NewCommand, StoreError, StoredCommand};

/// Accepts commands of one agent in one transaction.
pub struct Accept(pub Vec<NewCommand>);

#[async_trait]
impl Write for Accept {
    type Out = Vec<StoredCommand>;
    type Err = AcceptError;

    async fn run(&mut self, tx: &mut Tx<'_>) -> Result<Vec<StoredCommand>, AcceptError> {
        let mut accepted = Vec::with_capacity(self.0.len());
        for new in &self.0 {
            accepted.push(accept(tx, new).await?);
        }
        Ok(accepted)
    }
}

async fn accept(tx: &mut Tx<'_>, new: &NewCommand) -> Result<StoredCommand, AcceptError> {
    let farm = &new.name.farm;
    let order = tx.next_order(farm).await?;
    let number = if let Some(number) = insert(tx, new, order).await? {
        number
    } else {
        why_not(tx, new).await?;
        // Nothing stands against it: it is the first of its epoch.
        let update =
            sqlx::query("UPDATE agents SET command_epoch = epoch WHERE farm = $1 AND agent = $2")
                .bind(farm.to_string())
                .bind(new.agent.to_string());
        tx.execute(update).await?;
        let number = insert(tx, new, order).await?;
        number.ok_or_else(|| broken(format_args!("{} was not inserted", new.name)))?
    };
    let command = stored(new, order, number);
    tx.audit(farm, entry(&command)).await?;
    Ok(command)
}

/// The row if everything that must hold does, decided by the statement that writes it. Answers its
/// number.
async fn insert(tx: &mut Tx<'_>, new: &NewCommand, order: i64) -> Result<Option<i64>, StoreError> {
    let action = pb::CommandFrame { action: Some((&new.action).into()), ..Default::default() };
    let statement = sqlx::query(
        "INSERT INTO commands
             (farm, request_id, feeder, robot, agent, epoch, ord, number, kind, action,
              request_hash, boot_id, start_before_ms, state, reason, metadata, detail, author,
              note, created_ms)
         SELECT $1, $2, $3, $4, $5, $6, $7,
                COALESCE((SELECT MAX(n.number) FROM commands n
                          WHERE n.farm = $1 AND n.feeder = $3), 0) + 1,
                $8, $9, $10, $11, $12, 'ACCEPTED', '', '', '', $13, $14, $15
         FROM agents a
         JOIN feeders f ON f.farm = a.farm AND f.agent = a.agent
         WHERE a.farm = $1 AND a.agent = $5 AND a.epoch = $6 AND a.command_epoch = $6
           AND f.feeder = $3 AND f.robot = $4
           AND NOT EXISTS (SELECT 1 FROM commands r WHERE r.farm = $1 AND r.resolve_request = $2)
           AND ($8 <> 'feed_now' OR NOT EXISTS (
               SELECT 1 FROM commands c
               WHERE c.farm = $1 AND c.kind = 'feed_now' AND c.robot = $4
                 AND c.state IN ('ACCEPTED', 'UNCERTAIN') AND c.resolved_ms IS NULL))
           AND ($8 <> 'update_config' OR (
               $16 = (SELECT v.etag FROM config_versions v
                      WHERE v.farm = $1 AND v.feeder = $3 ORDER BY v.number DESC LIMIT 1)
               AND NOT EXISTS (
                   SELECT 1 FROM commands c
                   WHERE c.farm = $1 AND c.kind = 'update_config' AND c.feeder = $3
                     AND c.state IN ('ACCEPTED', 'UNCERTAIN') AND c.resolved_ms IS NULL)))
         ON CONFLICT (farm, request_id) DO NOTHING
         RETURNING number",
    )
    .bind(new.name.farm.to_string())
    .bind(new.name.request.to_string())
    .bind(new.feeder.to_string())
    .bind(new.robot.to_string())
    .bind(new.agent.to_string())
    .bind(new.epoch)
    .bind(order)
    .bind(new.action.kind().as_str())
    .bind(action.encode_to_vec())
    .bind(new.request_hash.as_bytes().to_vec())
    .bind(new.start_before.0.clone())
    .bind(new.start_before.1)
    .bind(new.author.clone())
    .bind(new.note.clone())
    .bind(new.now_ms)
    .bind(new.etag.clone());
    let row = tx.insert(statement).await?;
    Ok(row.map(|row| row.try_get("number")).transpose()?)
}

fn stored(new: &NewCommand, order: i64, number: i64) -> StoredCommand {
    StoredCommand {
        name: new.name.clone(),
        feeder: new.feeder.clone(),
        robot: new.robot.clone(),
        agent: new.agent.clone(),
        epoch: new.epoch,
        order,
        number,
        action: new.action.clone(),
        request_hash: new.request_hash,
        start_before: new.start_before.clone(),
        state: CommandState::Accepted,
        reason: Reason::Unspecified,
        metadata: BTreeMap::new(),
        detail: String::new(),
        author: new.author.clone(),
        note: new.note.clone(),
        created_ms: new.now_ms,
        doubt_by_server: false,
        settled_ms: None,
        dispensed: None,
        resolution: None,
    }
}

fn entry(c: &StoredCommand) -> Entry {
    let portion_mg = match c.action {
        Action::FeedNow { portion_mg } => Some(portion_mg),
        _ => None,
    };
    Entry {
        kind: "accepted",
        subject: c.name.to_string(),
        actor: c.author.clone(),
        body: json!({
            "feeder": c.feeder.as_str(),
            "robot": c.robot.as_str(),
            "number": c.number,
            "epoch": c.epoch,
            "action": c.action.kind().as_str(),
            "portion_mg": portion_mg,
            "body_sha256": hex(c.action.body_hash(&c.feeder).as_bytes()),
            "note": c.note,
        }),
        time_ms: c.created_ms,
    }
}

/// Why a command was not inserted: read one by one, told by the same rules.
async fn why_not(tx: &mut Tx<'_>, new: &NewCommand) -> Result<(), AcceptError> {
    if let Some(known) = read::command(tx.conn(), &new.name).await? {
        return Err(AcceptError::Known(Box::new(known)));
    }
    if let Some(settled) = read::resolved_by(tx.conn(), &new.name.farm, new.name.request).await? {
        return Err(AcceptError::Reused(settled.name));
    }
    let agent = AgentName::new(new.name.farm.clone(), new.agent.clone());
    let epoch = read::epoch(tx.conn(), &agent).await?.ok_or(StoreError::NotFound)?;
    let feeder = read::feeder(tx.conn(), &agent.farm, &new.feeder).await?;
    let feeder = feeder.filter(|f| f.agent == new.agent).ok_or(StoreError::NotFound)?;
    // A robot changes only by a hello, and that makes a new epoch.
    if epoch != new.epoch || feeder.robot != new.robot {
        return Err(AcceptError::EpochChanged);
    }
    match new.action.kind() {
        ActionKind::UpdateConfig => {
            if let Some(open) = feeder.pending {
                let name = CommandName::new(agent.farm, open);
                return Err(AcceptError::ConfigInFlight(name));
            }
            let etag = feeder.version.map(|v| v.etag);
            if new.etag.is_none() || new.etag != etag {
                return Err(AcceptError::EtagMismatch);
            }
        }
        ActionKind::FeedNow => {
            if let Some(open) = read::unsettled_dose(tx.conn(), &agent.farm, &new.robot).await? {
                return Err(AcceptError::DoseUnsettled(open));
            }
        }
        ActionKind::Hold | ActionKind::Resume | ActionKind::ResetFault => {}
    }
    Ok(())
}
