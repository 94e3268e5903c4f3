//! The operator's commands: rows that must be there before an agent can connect.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, Write};

use anyhow::Context as _;
use pasamanos_proto::model::{AgentName, FarmId};

use crate::clock::SystemClock;
use crate::config::{AgentCommand, AuditCommand, Command, FarmCommand, Settings, WhoseChain};
use crate::domain::ports::{Clock as _, NewFarm, Store as _, StoreError};
use crate::startup::open_store;
use crate::store::{AuditReport, Chain, verify_export};

/// Runs one command and prints what it did.
///
/// # Errors
/// If the arguments or the database are not usable, or the audit chain does not hold.
pub async fn run(
    command: Command,
    settings: &Settings,
    out: &mut (impl Write + Send),
) -> anyhow::Result<()> {
    if let Command::Audit { command: AuditCommand::Verify { file: Some(file), head, .. } } =
        &command
    {
        let opened = File::open(file).with_context(|| file.display().to_string())?;
        let report = verify_export(BufReader::new(opened), *head)
            .with_context(|| file.display().to_string())?;
        writeln!(out, "{report}")?;
        return holds(&report, file.display());
    }
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
        Command::Audit { command: AuditCommand::Verify { whose, head, file: _ } } => {
            let chain = chain(&whose)?;
            let report = store.verify_audit(&chain, head).await.map_err(|e| missing(e, &chain))?;
            writeln!(out, "{report}")?;
            holds(&report, &chain)?;
        }
        Command::Audit { command: AuditCommand::Export { whose } } => {
            let chain = chain(&whose)?;
            let report = store.export_audit(&chain, out).await.map_err(|e| missing(e, &chain))?;
            tracing::info!("{chain}: {report}");
            holds(&report, &chain)?;
        }
    }
    store.close().await;
    Ok(())
}

fn chain(whose: &WhoseChain) -> anyhow::Result<Chain> {
    match (&whose.farm, whose.platform) {
        (Some(farm), _) => {
            Ok(Chain::Farm(farm.parse().with_context(|| format!("the farm's name {farm:?}"))?))
        }
        (None, true) => Ok(Chain::Platform),
        (None, false) => anyhow::bail!("whose chain? Name the farm, or say --platform"),
    }
}

fn missing(e: anyhow::Error, chain: &Chain) -> anyhow::Error {
    match e.downcast_ref() {
        Some(StoreError::NotFound) => anyhow::anyhow!("there is no {chain}"),
        _ => e,
    }
}

fn holds(report: &AuditReport, whose: impl Display) -> anyhow::Result<()> {
    anyhow::ensure!(report.intact(), "the audit chain of {whose} does not hold: {report}");
    Ok(())
}
