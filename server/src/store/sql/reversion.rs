//! `REVERTED_AT_FARM`: a farm change that undoes what a command applied. A program at the farm may write
//! its own values back hours later, and nobody who trusts "applied" would look.

use std::collections::BTreeMap;

use pasamanos_proto::model::{CommandName, FarmId, Reason, timestamp_from_ms};
use pasamanos_proto::pb;
use sqlx::Row as _;

use super::records::insert_alarm;
use super::rows::parsed;
use super::tx::Tx;
use crate::domain::config::undoes;
use crate::domain::ports::{Reversion, StoreError, StoredFeeder};

/// What a change at the farm to this config undoes; `None` if it is one like any other. The config is
/// not the one in force.
pub async fn find(
    tx: &mut Tx<'_>,
    farm: &FarmId,
    feeder: &StoredFeeder,
    config: &[u8],
    now_ms: i64,
) -> Result<Option<Reversion>, StoreError> {
    let applied = sqlx::query(
        "SELECT request_id, settled_ms FROM commands
         WHERE farm = $1 AND feeder = $2 AND kind = 'update_config' AND state = 'APPLIED'
         ORDER BY number DESC LIMIT 1",
    )
    .bind(farm.to_string())
    .bind(feeder.id.to_string())
    .fetch_optional(tx.conn())
    .await?;
    let Some(applied) = applied else { return Ok(None) };
    let settled_ms: i64 = applied.try_get("settled_ms")?;
    if !undoes(settled_ms, now_ms) {
        return Ok(None);
    }
    // The version that it left: its own, or the one that was in force and had its values already.
    let left = sqlx::query(
        "SELECT number, config FROM config_versions
         WHERE farm = $1 AND feeder = $2 AND number = (
             SELECT COALESCE(MAX(CASE WHEN command = $3 THEN number END),
                             MAX(CASE WHEN created_ms <= $4 THEN number END))
             FROM config_versions WHERE farm = $1 AND feeder = $2)",
    )
    .bind(farm.to_string())
    .bind(feeder.id.to_string())
    .bind(applied.try_get::<String, _>("request_id")?)
    .bind(settled_ms)
    .fetch_optional(tx.conn())
    .await?;
    let Some(left) = left else { return Ok(None) };
    let displaced: i64 = left.try_get("number")?;
    // Back to what the command set, after another change: that undoes nothing of it.
    if left.try_get::<&[u8], _>("config")? == config {
        return Ok(None);
    }
    let before = sqlx::query(
        "SELECT MAX(number) AS restored FROM config_versions
         WHERE farm = $1 AND feeder = $2 AND number < $3 AND config = $4",
    )
    .bind(farm.to_string())
    .bind(feeder.id.to_string())
    .bind(displaced)
    .bind(config.to_vec())
    .fetch_one(tx.conn())
    .await?;
    let restored: Option<i64> = before.try_get("restored")?;
    let command = parsed(&applied, "request_id")?;
    Ok(restored.map(|restored| Reversion { restored, displaced, command }))
}

/// Raises it as an alarm of the farm, once for the version that it made.
pub async fn alarm(
    tx: &mut Tx<'_>,
    farm: &FarmId,
    feeder: &StoredFeeder,
    number: i64,
    reversion: &Reversion,
    now_ms: i64,
) -> Result<(), StoreError> {
    let command = CommandName::new(farm.clone(), reversion.command);
    tracing::error!(
        %farm, feeder = %feeder.id, version = reversion.restored, displaced = reversion.displaced,
        %command, "alarm: REVERTED_AT_FARM: an earlier config came back at the farm"
    );
    let metadata = BTreeMap::from([
        ("feeder".to_owned(), feeder.id.to_string()),
        ("version".to_owned(), reversion.restored.to_string()),
        ("displaced".to_owned(), reversion.displaced.to_string()),
        ("command".to_owned(), command.to_string()),
    ]);
    let alarm = pb::AlarmRecord {
        reason: Reason::RevertedAtFarm.name().into(),
        reason_metadata: metadata,
        severity: pb::AlarmSeverity::Warning.into(),
        feeder: feeder.id.to_string(),
        robot: feeder.robot.to_string(),
        time: Some(timestamp_from_ms(now_ms)),
    };
    insert_alarm(tx, farm, format!("{}/{number}/reverted", feeder.id), &alarm, now_ms).await
}
