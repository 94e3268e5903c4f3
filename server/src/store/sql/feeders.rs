//! Feeders and their config versions: what each PLC was last read to run.

use std::collections::BTreeMap;

use pasamanos_proto::model::{
    Action, AgentName, FarmId, FeederId, Inventory, ObservedConfig, RequestId, RobotId,
};
use pasamanos_proto::pb;
use pasamanos_proto::pb::ConfigAuthor;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use super::rows::parsed;
use super::tx::Tx;
use super::words::{Word, hex};
use super::{read, reversion, rows};
use crate::domain::ports::{StoreError, StoredFeeder, StoredTank, StoredVersion};

fn encoded(config: &ObservedConfig) -> Vec<u8> {
    pb::FeederConfig::from(config.clone()).encode_to_vec()
}

fn etag(number: i64, config: &[u8]) -> String {
    let hash = Sha256::digest(config);
    format!("v{number}-{}", hex(&hash[..4]))
}

/// Whose values a PLC was found to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// This command's.
    Command(RequestId),
    /// Someone's or something's at the farm.
    Farm,
    /// Nobody's: its PLC lost its memory and came up with them.
    MemoryLost,
    /// Found after the database was put back: a command's that it does not know, or the farm's. They
    /// count as the farm's, and as nothing that it undid.
    Unknown,
}

impl Whose {
    fn author(self) -> (ConfigAuthor, Option<RequestId>) {
        match self {
            Self::Command(request) => (ConfigAuthor::Command, Some(request)),
            Self::MemoryLost => (ConfigAuthor::PlcMemoryLost, None),
            Self::Farm | Self::Unknown => (ConfigAuthor::Farm, None),
        }
    }
}

/// Makes what the PLC was read to run the feeder's next version, if it is not the one in force.
/// Answers whether it did.
pub async fn observe(
    tx: &mut Tx<'_>,
    farm: &FarmId,
    feeder: &mut StoredFeeder,
    config: &ObservedConfig,
    whose: Whose,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let bytes = encoded(config);
    if feeder.version.as_ref().is_some_and(|v| encoded(&v.config) == bytes) {
        return Ok(false);
    }
    let number = feeder.version.as_ref().map_or(0, |v| v.number) + 1;
    let whose = match whose {
        Whose::Farm | Whose::Unknown => {
            let doubted = doubted(tx, farm, &feeder.id, config).await?;
            doubted.map_or(whose, Whose::Command)
        }
        _ => whose,
    };
    let (author, command) = whose.author();
    let reversion = match whose {
        Whose::Farm if number > 2 => reversion::find(tx, farm, feeder, &bytes, now_ms).await?,
        _ => None,
    };
    let version = StoredVersion {
        number,
        etag: etag(number, &bytes),
        author,
        command,
        config: config.clone(),
        created_ms: now_ms,
        reversion: reversion.clone(),
    };
    let insert = sqlx::query(
        "INSERT INTO config_versions
             (farm, feeder, number, etag, author, command, config, invalid, created_ms, restored,
              displaced, displaced_command)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(farm.to_string())
    .bind(feeder.id.to_string())
    .bind(number)
    .bind(version.etag.clone())
    .bind(author.word())
    .bind(command.map(|c| c.to_string()))
    .bind(bytes)
    .bind(config.valid().is_none())
    .bind(now_ms)
    .bind(reversion.as_ref().map(|r| r.restored))
    .bind(reversion.as_ref().map(|r| r.displaced))
    .bind(reversion.as_ref().map(|r| r.command.to_string()));
    tx.execute(insert).await?;
    if let Some(reversion) = &reversion {
        reversion::alarm(tx, farm, feeder, number, reversion, now_ms).await?;
    }
    feeder.version = Some(version);
    Ok(true)
}

/// The newest command without a known end that sets exactly this, settled by a person or not: its write
/// may be told by what the PLC runs, or by another's outcome in the same hello, sooner than by its own.
async fn doubted(
    tx: &mut Tx<'_>,
    farm: &FarmId,
    feeder: &FeederId,
    config: &ObservedConfig,
) -> Result<Option<RequestId>, StoreError> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        rows::command_columns!(),
        " FROM commands c
          WHERE farm = $1 AND feeder = $2 AND kind = 'update_config'
            AND state IN ('ACCEPTED', 'UNCERTAIN')
          ORDER BY ord DESC LIMIT 16"
    ))
    .bind(farm.to_string())
    .bind(feeder.to_string())
    .fetch_all(tx.conn())
    .await?;
    for row in &rows {
        let command = rows::command(row)?;
        if let Action::UpdateConfig { new, .. } = command.action
            && ObservedConfig::Valid(new) == *config
        {
            return Ok(Some(command.name.request));
        }
    }
    Ok(None)
}

/// Takes an agent's inventory in: what is new is added, what is missing stays, what another agent
/// has is refused and named in `alarms`. Answers the agent's feeders as they are then.
pub async fn take_inventory(
    tx: &mut Tx<'_>,
    agent: &AgentName,
    inventory: &Inventory,
    alarms: &mut Vec<String>,
) -> Result<BTreeMap<FeederId, StoredFeeder>, StoreError> {
    let farm = &agent.farm;
    take_tanks(tx, farm, inventory).await?;
    let foreign = take_robots(tx, agent, inventory, alarms).await?;
    let mut have: BTreeMap<_, _> =
        read::feeders(tx.conn(), farm).await?.into_iter().map(|f| (f.id.clone(), f)).collect();
    for new in &inventory.feeders {
        let old = have.remove(&new.id);
        if old.as_ref().is_some_and(|f| f.agent != agent.agent) || foreign.contains(&new.robot) {
            let owner = old.map_or("another agent".into(), |f| f.agent.to_string());
            alarms.push(format!("{agent} claims feeder {}, which belongs to {owner}", new.id));
            continue;
        }
        let feeder = StoredFeeder {
            id: new.id.clone(),
            agent: agent.agent.clone(),
            robot: new.robot.clone(),
            tank: new.tank.clone(),
            display_name: new.display_name.clone(),
            limits: new.limits.clone(),
            capabilities: new.capabilities.clone(),
            version: old.as_ref().and_then(|f| f.version.clone()),
            pending: old.as_ref().and_then(|f| f.pending),
        };
        if !old.is_some_and(|old| same(&old, &feeder)) {
            upsert(tx, farm, &feeder).await?;
        }
        have.insert(feeder.id.clone(), feeder);
    }
    have.retain(|_, f| f.agent == agent.agent);
    Ok(have)
}

/// Whether a row says all that an inventory does. Compared as they are stored: a capability that is
/// not named and one that is absent are one.
fn same(a: &StoredFeeder, b: &StoredFeeder) -> bool {
    (&a.robot, &a.tank, &a.display_name, &a.limits)
        == (&b.robot, &b.tank, &b.display_name, &b.limits)
        && pb::Capabilities::from(&a.capabilities) == pb::Capabilities::from(&b.capabilities)
}

async fn upsert(tx: &mut Tx<'_>, farm: &FarmId, f: &StoredFeeder) -> Result<(), StoreError> {
    let statement = sqlx::query(
        "INSERT INTO feeders
             (farm, feeder, agent, robot, tank, display_name, limits, capabilities)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (farm, feeder) DO UPDATE SET
             robot = excluded.robot, tank = excluded.tank, display_name = excluded.display_name,
             limits = excluded.limits, capabilities = excluded.capabilities",
    )
    .bind(farm.to_string())
    .bind(f.id.to_string())
    .bind(f.agent.to_string())
    .bind(f.robot.to_string())
    .bind(f.tank.to_string())
    .bind(f.display_name.clone())
    .bind(pb::Limits::from(&f.limits).encode_to_vec())
    .bind(pb::Capabilities::from(&f.capabilities).encode_to_vec());
    tx.execute(statement).await.map(drop)
}

async fn take_tanks(
    tx: &mut Tx<'_>,
    farm: &FarmId,
    inventory: &Inventory,
) -> Result<(), StoreError> {
    let have = read::tanks(tx.conn(), farm).await?;
    for t in &inventory.tanks {
        let tank = StoredTank {
            id: t.id.clone(),
            display_name: t.display_name.clone(),
            group: t.group.clone(),
        };
        if have.contains(&tank) {
            continue;
        }
        let upsert = sqlx::query(
            "INSERT INTO tanks (farm, tank, display_name, group_name) VALUES ($1, $2, $3, $4)
             ON CONFLICT (farm, tank) DO UPDATE SET
                 display_name = excluded.display_name, group_name = excluded.group_name",
        )
        .bind(farm.to_string())
        .bind(t.id.to_string())
        .bind(t.display_name.clone())
        .bind(t.group.clone());
        tx.execute(upsert).await?;
    }
    Ok(())
}

/// Answers the robots of the inventory that another agent has.
async fn take_robots(
    tx: &mut Tx<'_>,
    agent: &AgentName,
    inventory: &Inventory,
    alarms: &mut Vec<String>,
) -> Result<Vec<RobotId>, StoreError> {
    let rows = sqlx::query("SELECT robot, agent FROM robots WHERE farm = $1")
        .bind(agent.farm.to_string())
        .fetch_all(tx.conn())
        .await?;
    let mut have = BTreeMap::new();
    for row in &rows {
        let owner: String = row.try_get("agent")?;
        have.insert(parsed::<RobotId>(row, "robot")?, owner);
    }
    let mut foreign = Vec::new();
    for r in &inventory.robots {
        match have.get(&r.id) {
            Some(owner) if owner == agent.agent.as_str() => {}
            Some(owner) => {
                alarms.push(format!("{agent} claims robot {}, which belongs to {owner}", r.id));
                foreign.push(r.id.clone());
            }
            None => {
                let insert =
                    sqlx::query("INSERT INTO robots (farm, robot, agent) VALUES ($1, $2, $3)")
                        .bind(agent.farm.to_string())
                        .bind(r.id.to_string())
                        .bind(agent.agent.to_string());
                tx.execute(insert).await?;
            }
        }
    }
    Ok(foreign)
}
