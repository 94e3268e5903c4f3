//! Acceptance: the locks, the number and the row of a command, all or none.

use std::collections::BTreeMap;

use async_trait::async_trait;
use pasamanos_proto::model::{Action, ActionKind, CommandName, CommandState, Reason};
use pasamanos_proto::pb;
use prost::Message as _;
use serde_json::json;
use sqlx::Row as _;

use super::audit::Entry;
use super::driver::Row;
use super::read;
use super::rows::parsed;
use super::tx::{Tx, Write, broken};
use super::words::Word;
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
    let standing = Standing::read(tx, new).await?;
    if standing.known {
        let known = read::command(tx.conn(), &new.name).await?;
        let known = known.ok_or_else(|| broken(format_args!("{} vanished", new.name)))?;
        return Err(AcceptError::Known(Box::new(known)));
    }
    let number = standing.admits(new)?;
    let command = StoredCommand {
        name: new.name.clone(),
        feeder: new.feeder.clone(),
        robot: new.robot.clone(),
        agent: new.agent.clone(),
        epoch: new.epoch,
        order: tx.next_order(&new.name.farm).await?,
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
    };
    insert(tx, &command).await?;
    if standing.command_epoch < new.epoch {
        let update =
            sqlx::query("UPDATE agents SET command_epoch = $3 WHERE farm = $1 AND agent = $2")
                .bind(new.name.farm.to_string())
                .bind(new.agent.to_string())
                .bind(new.epoch);
        tx.execute(update).await?;
    }
    Ok(command)
}

/// What stands for and against a command, read in one statement.
struct Standing {
    known: bool,
    feeder: Option<OfFeeder>,
    command_epoch: i64,
}

struct OfFeeder {
    epoch: i64,
    robot: String,
    number: i64,
    etag: Option<String>,
    open_config: Option<CommandName>,
    open_dose: Option<CommandName>,
}

impl Standing {
    async fn read(tx: &mut Tx<'_>, new: &NewCommand) -> Result<Self, StoreError> {
        let row = sqlx::query(
            "SELECT f.robot, a.epoch, a.command_epoch, v.etag,
                    (SELECT MAX(c.number) FROM commands c
                     WHERE c.farm = $1 AND c.feeder = $2) AS number,
                    (SELECT c.request_id FROM commands c
                     WHERE c.farm = $1 AND c.kind = 'update_config' AND c.feeder = $2
                       AND c.state IN ('ACCEPTED', 'UNCERTAIN') AND c.resolved_ms IS NULL
                     LIMIT 1) AS open_config,
                    (SELECT c.request_id FROM commands c
                     WHERE c.farm = $1 AND c.kind = 'feed_now' AND c.robot = f.robot
                       AND c.state IN ('ACCEPTED', 'UNCERTAIN') AND c.resolved_ms IS NULL
                     LIMIT 1) AS open_dose,
                    EXISTS (SELECT 1 FROM commands c
                            WHERE c.farm = $1 AND c.request_id = $4) AS known
             FROM agents a
             LEFT JOIN feeders f ON f.farm = a.farm AND f.feeder = $2 AND f.agent = a.agent
             LEFT JOIN config_versions v
               ON v.farm = f.farm AND v.feeder = f.feeder AND v.number = f.version
             WHERE a.farm = $1 AND a.agent = $3",
        )
        .bind(new.name.farm.to_string())
        .bind(new.feeder.to_string())
        .bind(new.agent.to_string())
        .bind(new.name.request.to_string())
        .fetch_optional(tx.conn())
        .await?
        .ok_or(StoreError::NotFound)?;
        let name = |row: &Row, column: &str| {
            let id: Option<&str> = row.try_get(column)?;
            let named =
                |_| parsed(row, column).map(|id| CommandName::new(new.name.farm.clone(), id));
            id.map(named).transpose()
        };
        let robot: Option<String> = row.try_get("robot")?;
        let feeder = match robot {
            None => None,
            Some(robot) => Some(OfFeeder {
                epoch: row.try_get("epoch")?,
                robot,
                number: row.try_get::<Option<i64>, _>("number")?.unwrap_or(0) + 1,
                etag: row.try_get("etag")?,
                open_config: name(&row, "open_config")?,
                open_dose: name(&row, "open_dose")?,
            }),
        };
        Ok(Self {
            known: row.try_get("known")?,
            feeder,
            command_epoch: row.try_get("command_epoch")?,
        })
    }

    /// Its number if nothing stands against it.
    fn admits(&self, new: &NewCommand) -> Result<i64, AcceptError> {
        let of = self.feeder.as_ref().ok_or(StoreError::NotFound)?;
        // A robot changes only by a hello, and that makes a new epoch.
        if of.epoch != new.epoch || of.robot != new.robot.as_str() {
            return Err(AcceptError::EpochChanged);
        }
        match new.action.kind() {
            ActionKind::UpdateConfig => {
                if let Some(open) = &of.open_config {
                    return Err(AcceptError::ConfigInFlight(open.clone()));
                }
                if new.etag.is_none() || new.etag != of.etag {
                    return Err(AcceptError::EtagMismatch);
                }
            }
            ActionKind::FeedNow => {
                if let Some(open) = &of.open_dose {
                    return Err(AcceptError::DoseUnsettled(open.clone()));
                }
            }
            ActionKind::Hold | ActionKind::Resume | ActionKind::ResetFault => {}
        }
        Ok(of.number)
    }
}

async fn insert(tx: &mut Tx<'_>, c: &StoredCommand) -> Result<(), StoreError> {
    let action = pb::CommandFrame { action: Some((&c.action).into()), ..Default::default() };
    let statement = sqlx::query(
        "INSERT INTO commands
             (farm, request_id, feeder, robot, agent, epoch, ord, number, kind, action,
              request_hash, boot_id, start_before_ms, state, reason, metadata, detail, author,
              note, created_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'ACCEPTED', '', '', '',
                 $14, $15, $16)",
    )
    .bind(c.name.farm.to_string())
    .bind(c.name.request.to_string())
    .bind(c.feeder.to_string())
    .bind(c.robot.to_string())
    .bind(c.agent.to_string())
    .bind(c.epoch)
    .bind(c.order)
    .bind(c.number)
    .bind(c.action.kind().as_str())
    .bind(action.encode_to_vec())
    .bind(c.request_hash.as_bytes().to_vec())
    .bind(c.start_before.0.clone())
    .bind(c.start_before.1)
    .bind(c.author.clone())
    .bind(c.note.clone())
    .bind(c.created_ms);
    tx.execute(statement).await?;
    let entry = Entry {
        kind: "accepted",
        subject: c.name.to_string(),
        actor: c.author.clone(),
        body: json!({
            "feeder": c.feeder.as_str(),
            "robot": c.robot.as_str(),
            "number": c.number,
            "epoch": c.epoch,
            "action": c.action.kind().as_str(),
            "portion_mg": match c.action { Action::FeedNow { portion_mg } => Some(portion_mg), _ => None },
            "body": format!("{:?}", c.action.body_hash(&c.feeder)),
            "note": c.note,
            "state": CommandState::Accepted.word(),
        }),
        time_ms: c.created_ms,
    };
    tx.audit(&c.name.farm, entry).await
}
