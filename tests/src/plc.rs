//! The asyncua PLC of `tests/plc`, its ledger, and an OPC UA client that is not ours.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::paths;

/// A running PLC.
#[derive(Debug)]
pub struct Plc {
    dir: TempDir,
    child: Option<Child>,
    port: u16,
    control: u16,
    args: Vec<String>,
    env: Vec<(String, PathBuf)>,
}

impl Plc {
    /// Starts it with these further arguments and waits until it serves.
    ///
    /// # Errors
    /// If Python or its packages are missing (`make deps`), or it does not start.
    pub async fn start(args: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(args, &[]).await
    }

    /// Starts it in this environment beside the test's own.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub async fn start_with(args: &[&str], env: &[(&str, &Path)]) -> anyhow::Result<Self> {
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), v.to_path_buf())).collect();
        let mut plc = Self { dir: TempDir::new()?, child: None, port: 0, control: 0, args, env };
        plc.restart().await?;
        Ok(plc)
    }

    /// Starts it again on the same port with the same retained memory.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("plc.log"))?;
        let mut child = Command::new(paths::python()?)
            .arg(paths::root().join("tests/plc/farm_plc.py"))
            .args(["--port", &self.port.to_string(), "--control", &self.control.to_string()])
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.args)
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line).await?;
        anyhow::ensure!(read > 0, "the PLC did not start: {}", self.log());
        let ready: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        let port = |key: &str| {
            ready[key].as_u64().and_then(|p| u16::try_from(p).ok()).with_context(|| line.clone())
        };
        (self.port, self.control) = (port("port")?, port("control")?);
        self.child = Some(child);
        Ok(())
    }

    /// kill -9: a power cut.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Freezes or continues it.
    ///
    /// # Errors
    /// If it ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.child.as_ref().and_then(Child::id).and_then(|id| i32::try_from(id).ok());
        let id = id.and_then(rustix::process::Pid::from_raw).context("the PLC has ended")?;
        Ok(rustix::process::kill_process(id, signal)?)
    }

    /// Its OPC UA endpoint.
    pub fn endpoint(&self) -> String {
        format!("opc.tcp://127.0.0.1:{}/feedlab", self.port)
    }

    /// What it said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("plc.log")).unwrap_or_default()
    }

    /// Does something at the farm, by the PLC's control channel.
    ///
    /// # Errors
    /// If the PLC refuses it.
    pub async fn control(&self, op: Value) -> anyhow::Result<Value> {
        let exchange = async {
            let mut tcp = BufReader::new(TcpStream::connect(("127.0.0.1", self.control)).await?);
            tcp.write_all(format!("{op}\n").as_bytes()).await?;
            let mut line = String::new();
            tcp.read_line(&mut line).await?;
            anyhow::Ok(serde_json::from_str::<Value>(&line)?)
        };
        let answer = timeout(Duration::from_secs(5), exchange).await.context("no answer")??;
        anyhow::ensure!(answer["ok"] == json!(true), "{op}: {answer}");
        Ok(answer)
    }

    /// The physical executions so far: the ground truth.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn ledger(&self) -> anyhow::Result<Vec<Value>> {
        read_ledger(self.dir.path().join("ledger.jsonl"))
    }

    /// Runs the independent OPC UA client and answers what it printed.
    ///
    /// # Errors
    /// If it fails.
    pub async fn opc(&self, args: &[&str]) -> anyhow::Result<Value> {
        let out = Command::new(paths::python()?)
            .arg(paths::root().join("tests/plc/opc.py"))
            .arg(self.endpoint())
            .args(args)
            .output()
            .await?;
        let text = String::from_utf8_lossy(&out.stdout);
        anyhow::ensure!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
        Ok(serde_json::from_str(text.trim())?)
    }
}

/// Reads a ledger; a line that a power cut tore is the last and is left out.
///
/// # Errors
/// If it cannot be read.
pub fn read_ledger(path: PathBuf) -> anyhow::Result<Vec<Value>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path)?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// The example configuration that we ship, with this PLC's address, leave to write, and further keys of
/// its `[[plc]]`.
///
/// # Errors
/// If it cannot be read.
pub fn example(plc: &Plc, extra: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(paths::root().join("config/agent.example.toml"))?;
    let own = |line: &&str| {
        !["server =", "agent =", "data_dir ="].iter().any(|key| line.starts_with(key))
    };
    let text: Vec<_> = text.lines().filter(own).collect();
    Ok(text
        .join("\n")
        .replace("opc.tcp://127.0.0.1:4840/feedlab", &plc.endpoint())
        .replace("access = \"read_only\"", &format!("access = \"read_write\"\n{extra}")))
}
