//! Rows to the domain's records. What cannot be read back is a fault of ours.

use std::collections::BTreeMap;
use std::str::FromStr;

use pasamanos_proto::model::{
    Action, BodyHash, Capabilities, CommandName, FarmId, Limits, ObservedConfig, Reason, Resolve,
};
use pasamanos_proto::pb;
use prost::Message;
use sqlx::Row as _;

use super::driver::Row;
use super::tx::broken;
use super::words::Word;
use crate::domain::ports::{
    Reversion, StoreError, StoredCommand, StoredFeeder, StoredResolution, StoredVersion,
};

/// The columns that [`command`] reads, of `commands c`.
macro_rules! command_columns {
    () => {
        "c.farm, c.request_id, c.feeder, c.robot, c.agent, c.epoch, c.ord, c.number, c.action,
         c.request_hash, c.boot_id, c.start_before_ms, c.state, c.reason, c.metadata, c.detail,
         c.author, c.note, c.created_ms, c.doubt_by_server, c.settled_ms, c.dispensed_mg, c.basis,
         c.resolve_request, c.resolve_verdict, c.resolve_fed_mg, c.resolve_who, c.resolve_note,
         c.resolved_ms"
    };
}
pub(super) use command_columns;

/// The columns that [`feeder`] reads, of `feeders f` and its [`version_in_force`].
macro_rules! feeder_columns {
    () => {
        "f.feeder, f.agent AS feeder_agent, f.robot AS feeder_robot, f.tank, f.display_name,
         f.limits, f.capabilities, v.number AS version, v.etag, v.author AS version_author,
         v.command AS version_command, v.config, v.created_ms AS version_ms,
         v.restored, v.displaced, v.displaced_command,
         (SELECT u.request_id FROM commands u
          WHERE u.farm = f.farm AND u.kind = 'update_config' AND u.feeder = f.feeder
            AND u.state IN ('ACCEPTED', 'UNCERTAIN') AND u.resolved_ms IS NULL
          LIMIT 1) AS pending"
    };
}
pub(super) use feeder_columns;

/// Joins `feeders f` with the version that its PLC was last read to run, if it ever was.
macro_rules! version_in_force {
    () => {
        " LEFT JOIN config_versions v
            ON v.farm = f.farm AND v.feeder = f.feeder AND v.number = (
                SELECT MAX(n.number) FROM config_versions n
                WHERE n.farm = f.farm AND n.feeder = f.feeder)"
    };
}
pub(super) use version_in_force;

/// Reads a text column as an id or a number.
pub fn parsed<T: FromStr>(row: &Row, column: &str) -> Result<T, StoreError> {
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|_| broken(format_args!("{column} holds {text:?}")))
}

fn word<T: Word>(row: &Row, column: &str) -> Result<T, StoreError> {
    let text: &str = row.try_get(column)?;
    T::of(text).ok_or_else(|| broken(format_args!("{column} holds {text:?}")))
}

fn message<M: Message + Default>(row: &Row, column: &str) -> Result<M, StoreError> {
    let bytes: &[u8] = row.try_get(column)?;
    M::decode(bytes).map_err(|e| broken(format_args!("{column}: {e}")))
}

fn amount(row: &Row, column: &str) -> Result<Option<i32>, StoreError> {
    let mg: Option<i64> = row.try_get(column)?;
    mg.map(i32::try_from).transpose().map_err(|_| broken(format_args!("{column} is out of range")))
}

/// A command with all of [`command_columns`].
pub fn command(row: &Row) -> Result<StoredCommand, StoreError> {
    let farm: FarmId = parsed(row, "farm")?;
    let action = message::<pb::CommandFrame>(row, "action")?.action;
    let action = action.ok_or_else(|| broken("action is empty"))?;
    let request_hash: &[u8] = row.try_get("request_hash")?;
    let reason: &str = row.try_get("reason")?;
    let metadata: &str = row.try_get("metadata")?;
    let dispensed = match amount(row, "dispensed_mg")? {
        Some(mg) => Some((mg, word(row, "basis")?)),
        None => None,
    };
    Ok(StoredCommand {
        name: CommandName::new(farm, parsed(row, "request_id")?),
        feeder: parsed(row, "feeder")?,
        robot: parsed(row, "robot")?,
        agent: parsed(row, "agent")?,
        epoch: row.try_get("epoch")?,
        order: row.try_get("ord")?,
        number: row.try_get("number")?,
        action: Action::try_from(action).map_err(broken)?,
        request_hash: BodyHash::try_from(request_hash).map_err(broken)?,
        start_before: (row.try_get("boot_id")?, row.try_get("start_before_ms")?),
        state: word(row, "state")?,
        reason: Reason::from_name(reason).ok_or_else(|| broken("reason is unknown"))?,
        metadata: match metadata {
            "" => BTreeMap::new(),
            json => serde_json::from_str(json).map_err(broken)?,
        },
        detail: row.try_get("detail")?,
        author: row.try_get("author")?,
        note: row.try_get("note")?,
        created_ms: row.try_get("created_ms")?,
        doubt_by_server: row.try_get("doubt_by_server")?,
        settled_ms: row.try_get("settled_ms")?,
        dispensed,
        resolution: resolution(row)?,
    })
}

fn resolution(row: &Row) -> Result<Option<StoredResolution>, StoreError> {
    let Some(time_ms) = row.try_get("resolved_ms")? else { return Ok(None) };
    Ok(Some(StoredResolution {
        what: Resolve {
            verdict: word(row, "resolve_verdict")?,
            fed_mg: amount(row, "resolve_fed_mg")?,
        },
        who: row.try_get("resolve_who")?,
        note: row.try_get("resolve_note")?,
        time_ms,
    }))
}

/// A feeder with all of [`feeder_columns`].
pub fn feeder(row: &Row) -> Result<StoredFeeder, StoreError> {
    let number: Option<i64> = row.try_get("version")?;
    let pending: Option<&str> = row.try_get("pending")?;
    Ok(StoredFeeder {
        id: parsed(row, "feeder")?,
        agent: parsed(row, "feeder_agent")?,
        robot: parsed(row, "feeder_robot")?,
        tank: parsed(row, "tank")?,
        display_name: row.try_get("display_name")?,
        limits: Limits::try_from(message::<pb::Limits>(row, "limits")?).map_err(broken)?,
        capabilities: Capabilities::try_from(message::<pb::Capabilities>(row, "capabilities")?)
            .map_err(broken)?,
        version: number.map(|_| version(row)).transpose()?,
        pending: pending.map(str::parse).transpose().map_err(broken)?,
    })
}

/// A version under the names of [`feeder_columns`].
pub fn version(row: &Row) -> Result<StoredVersion, StoreError> {
    let command: Option<&str> = row.try_get("version_command")?;
    Ok(StoredVersion {
        number: row.try_get("version")?,
        etag: row.try_get("etag")?,
        author: word(row, "version_author")?,
        command: command.map(str::parse).transpose().map_err(broken)?,
        config: ObservedConfig::from(message::<pb::FeederConfig>(row, "config")?),
        created_ms: row.try_get("version_ms")?,
        reversion: reversion(row)?,
    })
}

fn reversion(row: &Row) -> Result<Option<Reversion>, StoreError> {
    let Some(restored) = row.try_get("restored")? else { return Ok(None) };
    Ok(Some(Reversion {
        restored,
        displaced: row.try_get("displaced")?,
        command: parsed(row, "displaced_command")?,
    }))
}

/// The body of a dose.
pub fn dose(row: &Row) -> Result<pb::Dose, StoreError> {
    message(row, "body")
}
