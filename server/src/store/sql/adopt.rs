//! Commands that only an agent's journal knows: the database was put back, and they were accepted after
//! the copy was made. They are taken in as the journal has them, so that they can be seen and, if in
//! doubt, settled by a person.

use std::collections::{BTreeMap, BTreeSet};

use pasamanos_proto::model::{
    AgentName, BodyHash, CommandName, CommandOrder, CommandReport, CommandState, FeederId, Hello,
    ObservedConfig, Reason,
};
use pasamanos_proto::pb;
use prost::Message as _;
use serde_json::json;
use sqlx::Row as _;

use super::audit::Entry;
use super::read;
use super::settle::{doubt, settle_reported};
use super::tx::Tx;
use super::words::hex;
use crate::domain::ports::{StoreError, StoredCommand, StoredFeeder};

/// Takes in what the hello lists and nobody here knows. What cannot be taken in is alarmed.
pub async fn adopt_unknown(
    tx: &mut Tx<'_>,
    hello: &Hello,
    settled: &[StoredCommand],
    have: &mut BTreeMap<FeederId, StoredFeeder>,
    alarms: &mut Vec<String>,
    now_ms: i64,
) -> Result<Vec<StoredCommand>, StoreError> {
    let agent = &hello.agent;
    let settled: BTreeSet<_> = settled.iter().map(|c| &c.name).collect();
    let mut adopted = Vec::new();
    for report in &hello.commands {
        let name = &report.command;
        if settled.contains(name) || read::command(tx.conn(), name).await?.is_some() {
            continue;
        }
        let same = |o: &&CommandOrder| o.command == *name && o.body_hash == report.body_hash;
        let order = hello.orders.iter().find(same).filter(|_| name.farm == agent.farm);
        let feeder = order.and_then(|o| have.get_mut(&o.feeder));
        let (Some(order), Some(feeder)) = (order, feeder) else {
            alarms.push(format!("{agent} has a command {name}, which is not here"));
            continue;
        };
        let command = adopt(tx, agent, order, report, feeder, now_ms).await?;
        alarms.push(format!(
            "{agent} has a command {name}, which was not here: taken in as its journal has it"
        ));
        let found = inventory_config(hello, &order.feeder);
        adopted.push(end(tx, command, feeder, report, found, now_ms).await?);
        if let Some(now) = read::feeder(tx.conn(), &agent.farm, &order.feeder).await? {
            have.insert(now.id.clone(), now);
        }
    }
    Ok(adopted)
}

/// Its row, as if it had just been accepted, numbered after what is here and after what it was.
async fn adopt(
    tx: &mut Tx<'_>,
    agent: &AgentName,
    order: &CommandOrder,
    report: &CommandReport,
    feeder: &StoredFeeder,
    now_ms: i64,
) -> Result<StoredCommand, StoreError> {
    let command = StoredCommand {
        name: order.command.clone(),
        feeder: order.feeder.clone(),
        robot: feeder.robot.clone(),
        agent: agent.agent.clone(),
        epoch: report.journaled_epoch,
        order: tx.next_order(&agent.farm).await?,
        number: next_number(tx, &order.command, &order.feeder).await?.max(order.number),
        action: order.action.clone(),
        request_hash: BodyHash::UNKNOWN,
        start_before: (order.boot_id.clone(), order.start_before_ms),
        state: CommandState::Accepted,
        reason: Reason::Unspecified,
        metadata: BTreeMap::new(),
        detail: String::new(),
        author: order.author.clone(),
        note: order.note.as_str().to_owned(),
        created_ms: now_ms,
        doubt_by_server: false,
        settled_ms: None,
        dispensed: None,
        resolution: None,
    };
    insert(tx, &command).await?;
    let entry = Entry {
        kind: "adopted",
        subject: command.name.to_string(),
        actor: agent.to_string(),
        body: json!({
            "feeder": command.feeder.as_str(),
            "robot": command.robot.as_str(),
            "number": command.number,
            "epoch": command.epoch,
            "action": command.action.kind().as_str(),
            "body_sha256": hex(order.body_hash.as_bytes()),
            "author": command.author,
            "note": command.note,
        }),
        time_ms: now_ms,
    };
    tx.audit(&agent.farm, entry).await?;
    Ok(command)
}

/// As the journal says; an open intent stays in doubt until the agent has fenced it.
async fn end(
    tx: &mut Tx<'_>,
    mut command: StoredCommand,
    feeder: &mut StoredFeeder,
    report: &CommandReport,
    found: Option<&ObservedConfig>,
    now_ms: i64,
) -> Result<StoredCommand, StoreError> {
    if !report.state.is_terminal() {
        let doubted = doubt(tx, command.clone(), Reason::AgentLost, now_ms).await?;
        return Ok(doubted.unwrap_or(command));
    }
    // What the PLC came to then is history; it is the command's version only if the PLC still runs it.
    let mut report = report.clone();
    report.config = report.config.filter(|config| found == Some(config));
    settle_reported(tx, &mut command, feeder, &report, now_ms).await?;
    Ok(command)
}

fn inventory_config<'h>(hello: &'h Hello, feeder: &FeederId) -> Option<&'h ObservedConfig> {
    let feeder = hello.inventory.feeders.iter().find(|f| f.id == *feeder)?;
    feeder.config.as_ref()
}

async fn next_number(
    tx: &mut Tx<'_>,
    name: &CommandName,
    feeder: &FeederId,
) -> Result<i64, StoreError> {
    let row = sqlx::query(
        "SELECT COALESCE(MAX(number), 0) + 1 AS number FROM commands
         WHERE farm = $1 AND feeder = $2",
    )
    .bind(name.farm.to_string())
    .bind(feeder.to_string())
    .fetch_one(tx.conn())
    .await?;
    Ok(row.try_get("number")?)
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
    tx.execute(statement).await.map(drop)
}
