//! The simulated farm from outside: what happens there, and what its own files say happened.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::books::Execution;
use crate::plc::read_ledger;

/// The files of the simulated PLC named `sim`, beside the agent's journal.
#[derive(Clone, Debug)]
pub struct Sim {
    dir: PathBuf,
}

impl Sim {
    /// Of the agent with this data directory.
    pub fn of(agent_dir: &Path) -> Self {
        Self { dir: agent_dir.join("sim") }
    }

    /// Does something at the farm; answers with what every feeder runs and has dispensed.
    ///
    /// # Errors
    /// If the agent is down, or the PLC refuses.
    pub async fn control(&self, op: &Value) -> anyhow::Result<Vec<Value>> {
        let address = std::fs::read_to_string(self.dir.join("control.addr"))?;
        let exchange = async {
            let mut tcp = BufReader::new(TcpStream::connect(address.trim()).await?);
            tcp.write_all(format!("{op}\n").as_bytes()).await?;
            let mut line = String::new();
            tcp.read_line(&mut line).await?;
            anyhow::Ok(serde_json::from_str::<Value>(&line)?)
        };
        let mut answer = timeout(Duration::from_secs(5), exchange).await.context("no answer")??;
        match answer["ok"]["feeders"].take() {
            Value::Array(feeders) => Ok(feeders),
            _ => anyhow::bail!("{op}: {answer}"),
        }
    }

    /// What every feeder runs and has dispensed.
    ///
    /// # Errors
    /// If the agent is down.
    pub async fn feeders(&self) -> anyhow::Result<Vec<Value>> {
        self.control(&json!({"op": "status"})).await
    }

    /// What the motors did and have ended, by the PLC's execution log.
    ///
    /// # Errors
    /// If the log cannot be read or holds what no PLC writes.
    pub fn executions(&self) -> anyhow::Result<Vec<Execution>> {
        let ledger = read_ledger(self.dir.join("ledger.jsonl"))?;
        let ends = ledger.iter().filter(|line| line["event"] == "end");
        ends.map(|line| {
            let whole = |key: &str| line[key].as_i64().with_context(|| format!("{key}: {line}"));
            let command = line["cause"] == "command";
            Ok(Execution {
                feeder: line["feeder"].as_str().unwrap_or_default().to_owned(),
                token: if command { Some(u32::try_from(whole("token")?)?) } else { None },
                planned_mg: whole("planned_mg")?,
                mg: whole("dispensed_mg")?,
            })
        })
        .collect()
    }

    /// How many doses by command were begun.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn commanded_starts(&self) -> anyhow::Result<usize> {
        let ledger = read_ledger(self.dir.join("ledger.jsonl"))?;
        Ok(ledger.iter().filter(|l| l["event"] == "start" && l["cause"] == "command").count())
    }

    /// Every interval, s, that a feeder was ever given, by the states that the retained memory went
    /// through. The file keeps them all until it is 4 MiB long.
    ///
    /// # Errors
    /// If the memory cannot be read.
    pub fn intervals(&self) -> anyhow::Result<BTreeSet<i64>> {
        let memory = read_ledger(self.dir.join("sim.memory.jsonl"))?;
        let outlets =
            memory.iter().filter_map(|line| line["Robot"]["memory"]["outlets"].as_array());
        Ok(outlets.flatten().filter_map(|o| o["config"]["interval_s"].as_i64()).collect())
    }
}
