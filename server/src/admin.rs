//! The operator's commands: rows that must be there before an agent can connect.

use std::io::Write;

use anyhow::Context as _;
use pasamanos_proto::model::{AgentName, FarmId};

use crate::clock::SystemClock;
use crate::config::{AgentCommand, AuditCommand, Command, FarmCommand, Settings};
use crate::domain::ports::{Clock as _, NewFarm, Store as _, StoreError};
use crate::startup::open_store;

/// Runs one command and prints what it did.
///
/// # Errors
/// If the arguments or the database are not usable, or the audit chain does not hold.
pub async fn run(
    command: Command,
    settings: &Settings,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let store = open_store(&settings.data_dir, false).await?;
    let now_ms = SystemClock::new().wall_ms();
    match command {
        Command::Run => {}
        Command::Farm { command: FarmCommand::Add { name, zone, display_name } } => {
            let id: FarmId = name.parse().with_context(|| format!("the farm's name {name:?}"))?;
            jiff::tz::TimeZone::get(&zone).with_context(|| {
                format!("--zone {zone:?} is not an IANA zone such as America/Santiago")
            })?;
            let display_name = display_name.unwrap_or_else(|| name.clone());
            let added =
                store.add_farm(NewFarm { id, display_name, time_zone: zone, now_ms }).await?;
            writeln!(out, "farms/{name} {}", if added { "added" } else { "is there already" })?;
        }
        Command::Farm { command: FarmCommand::List } => {
            for farm in store.farms().await? {
                writeln!(out, "{}\t{}\t{}", farm.id.name(), farm.time_zone, farm.display_name)?;
            }
        }
        Command::Agent { command: AgentCommand::Add { name } } => {
            let agent: AgentName =
                name.parse().with_context(|| format!("the agent's name {name:?}"))?;
            let farm = agent.farm.clone();
            let added = store.add_agent(agent, now_ms).await.map_err(|e| match e {
                StoreError::NotFound => {
                    anyhow::anyhow!(
                        "there is no {}: pasamanos-server farm add {farm} --zone ZONE",
                        farm.name()
                    )
                }
                e => e.into(),
            })?;
            writeln!(out, "{name} {}", if added { "added" } else { "is there already" })?;
        }
        Command::Audit { command: AuditCommand::Verify { farm } } => {
            let id: FarmId = farm.parse().with_context(|| format!("the farm's name {farm:?}"))?;
            let report = store.verify_audit(&id).await?;
            writeln!(out, "{report}")?;
            anyhow::ensure!(report.intact(), "the audit chain of {} does not hold", id.name());
        }
    }
    store.close().await;
    Ok(())
}
