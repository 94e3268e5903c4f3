//! What is read by name and by farm. Every function is one statement unless it says more.

use pasamanos_proto::model::{AgentName, CommandName, FarmId, FeederId, RequestId, RobotId};
use pasamanos_proto::pb;
use sqlx::Row as _;

use super::driver::{Conn, Row};
use super::rows::{self, command_columns, feeder_columns, parsed, version_in_force};
use crate::domain::ports::{
    Farm, StoreError, StoredAgent, StoredCommand, StoredFarm, StoredFeeder, StoredRobot, StoredTank,
};

fn farm_of(row: &Row) -> Result<Farm, StoreError> {
    Ok(Farm {
        id: parsed(row, "farm")?,
        display_name: row.try_get("display_name")?,
        time_zone: row.try_get("time_zone")?,
    })
}

/// Every farm.
pub async fn farms(conn: &mut Conn) -> Result<Vec<Farm>, StoreError> {
    let rows = sqlx::query("SELECT farm, display_name, time_zone FROM farms ORDER BY farm")
        .fetch_all(conn)
        .await?;
    rows.iter().map(farm_of).collect()
}

/// Whether there is such a farm.
pub async fn has_farm(conn: &mut Conn, farm: &FarmId) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT farm FROM farms WHERE farm = $1")
        .bind(farm.to_string())
        .fetch_optional(conn)
        .await?;
    Ok(row.is_some())
}

/// One whole farm: several statements, to be run in one snapshot.
pub async fn whole_farm(conn: &mut Conn, farm: &FarmId) -> Result<Option<StoredFarm>, StoreError> {
    let row = sqlx::query("SELECT farm, display_name, time_zone FROM farms WHERE farm = $1")
        .bind(farm.to_string())
        .fetch_optional(&mut *conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(StoredFarm {
        farm: farm_of(&row)?,
        agents: agents(conn, farm).await?,
        tanks: tanks(conn, farm).await?,
        robots: robots(conn, farm).await?,
        feeders: feeders(conn, farm).await?,
        unsettled: unsettled(conn, farm).await?,
        last_doses: last_doses(conn, farm).await?,
    }))
}

async fn agents(conn: &mut Conn, farm: &FarmId) -> Result<Vec<StoredAgent>, StoreError> {
    let rows = sqlx::query(
        "SELECT agent, epoch, seen_ms, version FROM agents WHERE farm = $1 ORDER BY agent",
    )
    .bind(farm.to_string())
    .fetch_all(conn)
    .await?;
    let agent = |row: &Row| {
        Ok(StoredAgent {
            id: parsed(row, "agent")?,
            epoch: row.try_get("epoch")?,
            seen_ms: row.try_get("seen_ms")?,
            version: row.try_get("version")?,
        })
    };
    rows.iter().map(agent).collect()
}

/// A farm's tanks.
pub async fn tanks(conn: &mut Conn, farm: &FarmId) -> Result<Vec<StoredTank>, StoreError> {
    let rows = sqlx::query(
        "SELECT tank, display_name, group_name FROM tanks WHERE farm = $1 ORDER BY tank",
    )
    .bind(farm.to_string())
    .fetch_all(conn)
    .await?;
    let tank = |row: &Row| {
        Ok(StoredTank {
            id: parsed(row, "tank")?,
            display_name: row.try_get("display_name")?,
            group: row.try_get("group_name")?,
        })
    };
    rows.iter().map(tank).collect()
}

/// A farm's robots.
pub async fn robots(conn: &mut Conn, farm: &FarmId) -> Result<Vec<StoredRobot>, StoreError> {
    let rows = sqlx::query("SELECT robot, agent FROM robots WHERE farm = $1 ORDER BY robot")
        .bind(farm.to_string())
        .fetch_all(conn)
        .await?;
    let robot =
        |row: &Row| Ok(StoredRobot { id: parsed(row, "robot")?, agent: parsed(row, "agent")? });
    rows.iter().map(robot).collect()
}

/// A farm's feeders with their versions in force.
pub async fn feeders(conn: &mut Conn, farm: &FarmId) -> Result<Vec<StoredFeeder>, StoreError> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        feeder_columns!(),
        " FROM feeders f",
        version_in_force!(),
        " WHERE f.farm = $1 ORDER BY f.feeder"
    ))
    .bind(farm.to_string())
    .fetch_all(conn)
    .await?;
    rows.iter().map(rows::feeder).collect()
}

/// One feeder.
pub async fn feeder(
    conn: &mut Conn,
    farm: &FarmId,
    feeder: &FeederId,
) -> Result<Option<StoredFeeder>, StoreError> {
    let row = sqlx::query(concat!(
        "SELECT ",
        feeder_columns!(),
        " FROM feeders f",
        version_in_force!(),
        " WHERE f.farm = $1 AND f.feeder = $2"
    ))
    .bind(farm.to_string())
    .bind(feeder.to_string())
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(rows::feeder).transpose()
}

/// Commands without an end, and those in doubt without a person's settlement.
async fn unsettled(conn: &mut Conn, farm: &FarmId) -> Result<Vec<StoredCommand>, StoreError> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        command_columns!(),
        " FROM commands c
          WHERE farm = $1 AND state IN ('ACCEPTED', 'UNCERTAIN') AND resolved_ms IS NULL
          ORDER BY ord"
    ))
    .bind(farm.to_string())
    .fetch_all(conn)
    .await?;
    rows.iter().map(rows::command).collect()
}

/// A robot's dose that is not settled.
pub async fn unsettled_dose(
    conn: &mut Conn,
    farm: &FarmId,
    robot: &RobotId,
) -> Result<Option<CommandName>, StoreError> {
    let row = sqlx::query(
        "SELECT request_id FROM commands
         WHERE farm = $1 AND kind = 'feed_now' AND robot = $2
           AND state IN ('ACCEPTED', 'UNCERTAIN') AND resolved_ms IS NULL
         LIMIT 1",
    )
    .bind(farm.to_string())
    .bind(robot.to_string())
    .fetch_optional(conn)
    .await?;
    let id = row.map(|row| parsed(&row, "request_id")).transpose()?;
    Ok(id.map(|id| CommandName::new(farm.clone(), id)))
}

/// The last dose of each feeder; a meal that did not happen is none.
async fn last_doses(conn: &mut Conn, farm: &FarmId) -> Result<Vec<pb::Dose>, StoreError> {
    let rows = sqlx::query(
        "SELECT d.body FROM feeders f
         JOIN doses d ON d.farm = f.farm AND d.dose = (
             SELECT x.dose FROM doses x
             WHERE x.farm = f.farm AND x.feeder = f.feeder AND x.outcome <> $2
             ORDER BY x.at_ms DESC, x.dose DESC LIMIT 1)
         WHERE f.farm = $1 ORDER BY f.feeder",
    )
    .bind(farm.to_string())
    .bind(i64::from(i32::from(pb::DoseOutcome::Skipped)))
    .fetch_all(conn)
    .await?;
    rows.iter().map(rows::dose).collect()
}

/// An agent's current epoch.
pub async fn epoch(conn: &mut Conn, agent: &AgentName) -> Result<Option<i64>, StoreError> {
    let row = sqlx::query("SELECT epoch FROM agents WHERE farm = $1 AND agent = $2")
        .bind(agent.farm.to_string())
        .bind(agent.agent.to_string())
        .fetch_optional(conn)
        .await?;
    Ok(row.map(|row| row.try_get("epoch")).transpose()?)
}

/// One command.
pub async fn command(
    conn: &mut Conn,
    name: &CommandName,
) -> Result<Option<StoredCommand>, StoreError> {
    let row = sqlx::query(concat!(
        "SELECT ",
        command_columns!(),
        " FROM commands c WHERE farm = $1 AND request_id = $2"
    ))
    .bind(name.farm.to_string())
    .bind(name.request.to_string())
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(rows::command).transpose()
}

/// A command of an agent, its feeder, and the agent's current epoch, in one statement.
pub async fn command_of(
    conn: &mut Conn,
    agent: &AgentName,
    name: &CommandName,
) -> Result<Option<(StoredCommand, StoredFeeder, i64)>, StoreError> {
    let row = sqlx::query(concat!(
        "SELECT ",
        command_columns!(),
        ", ",
        feeder_columns!(),
        ", a.epoch AS current_epoch
         FROM commands c
         JOIN agents a ON a.farm = c.farm AND a.agent = c.agent
         JOIN feeders f ON f.farm = c.farm AND f.feeder = c.feeder",
        version_in_force!(),
        " WHERE c.farm = $1 AND c.request_id = $2 AND c.agent = $3 AND a.farm = $4"
    ))
    .bind(name.farm.to_string())
    .bind(name.request.to_string())
    .bind(agent.agent.to_string())
    .bind(agent.farm.to_string())
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some((rows::command(&row)?, rows::feeder(&row)?, row.try_get("current_epoch")?)))
}

/// An epoch's commands without an end, above an insertion order.
pub async fn outbox(
    conn: &mut Conn,
    agent: &AgentName,
    epoch: i64,
    above: i64,
) -> Result<Vec<StoredCommand>, StoreError> {
    // The first term of the state is the index's.
    let rows = sqlx::query(concat!(
        "SELECT ",
        command_columns!(),
        " FROM commands c
          WHERE farm = $1 AND agent = $2 AND epoch = $3 AND ord > $4
            AND state IN ('ACCEPTED', 'UNCERTAIN') AND state = 'ACCEPTED'
          ORDER BY ord"
    ))
    .bind(agent.farm.to_string())
    .bind(agent.agent.to_string())
    .bind(epoch)
    .bind(above)
    .fetch_all(conn)
    .await?;
    rows.iter().map(rows::command).collect()
}

/// An agent's commands without a true end, of any epoch, oldest first.
pub async fn open_commands(
    conn: &mut Conn,
    agent: &AgentName,
) -> Result<Vec<StoredCommand>, StoreError> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        command_columns!(),
        " FROM commands c
          WHERE farm = $1 AND agent = $2 AND state IN ('ACCEPTED', 'UNCERTAIN')
          ORDER BY ord"
    ))
    .bind(agent.farm.to_string())
    .bind(agent.agent.to_string())
    .fetch_all(conn)
    .await?;
    rows.iter().map(rows::command).collect()
}

/// Every command that has no end, of any farm.
pub async fn endless_commands(conn: &mut Conn) -> Result<Vec<StoredCommand>, StoreError> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        command_columns!(),
        " FROM commands c
          WHERE state IN ('ACCEPTED', 'UNCERTAIN') AND state = 'ACCEPTED'
          ORDER BY farm, ord"
    ))
    .fetch_all(conn)
    .await?;
    rows.iter().map(rows::command).collect()
}

/// The command that a person's settlement with this request id is recorded on.
pub async fn resolved_by(
    conn: &mut Conn,
    farm: &FarmId,
    request: RequestId,
) -> Result<Option<StoredCommand>, StoreError> {
    let row = sqlx::query(concat!(
        "SELECT ",
        command_columns!(),
        " FROM commands c WHERE farm = $1 AND resolve_request = $2"
    ))
    .bind(farm.to_string())
    .bind(request.to_string())
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(rows::command).transpose()
}
