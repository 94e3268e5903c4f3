//! Server, agent and, if wanted, web proxy: the real programs with their own data on free ports.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use pasamanos_proto::pb::PresenceState;
use tempfile::TempDir;
use tokio::process::Command;

use crate::sim::Sim;
use crate::{Client, FaultProxy, Process, client, paths, wait_for};

/// A simulated farm of some tanks.
pub fn sim(tanks: usize) -> String {
    format!(
        "[[plc]]\nname = \"sim\"\ndriver = \"sim\"\nseed = 7\ntanks = {tanks}\npoll = \"100ms\"\ncontrol = \"127.0.0.1:0\"\n"
    )
}

/// What to start.
#[derive(Clone, Debug)]
pub struct StackBuilder {
    server_args: Vec<String>,
    agent_toml: String,
    web: bool,
    proxied: bool,
    agentless: bool,
    crash_at: Option<(Part, String)>,
    env: Vec<(Part, String, PathBuf)>,
}

/// A program that a crash point is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The server.
    Server,
    /// The agent.
    Agent,
}

impl Default for StackBuilder {
    fn default() -> Self {
        Self {
            // A tenth of the shipped times: the same proportions, shorter tests.
            server_args: ["--lease-ttl", "2500ms", "--heartbeat-interval", "800ms"]
                .map(Into::into)
                .into(),
            agent_toml: sim(3),
            web: false,
            proxied: false,
            agentless: false,
            crash_at: None,
            env: Vec::new(),
        }
    }
}

impl StackBuilder {
    /// Other arguments for the server.
    #[must_use]
    pub fn server_args(mut self, args: &[&str]) -> Self {
        self.server_args = args.iter().map(|a| (*a).to_owned()).collect();
        self
    }

    /// Further arguments for the server.
    #[must_use]
    pub fn server_arg(mut self, args: &[&str]) -> Self {
        self.server_args.extend(args.iter().map(|a| (*a).to_owned()));
        self
    }

    /// The farm behind the agent: the tables of `agent.toml`.
    #[must_use]
    pub fn farm(mut self, toml: impl Into<String>) -> Self {
        self.agent_toml = toml.into();
        self
    }

    /// A program sees this in its environment.
    #[must_use]
    pub fn env(mut self, part: Part, key: &str, value: &Path) -> Self {
        self.env.push((part, key.to_owned(), value.to_owned()));
        self
    }

    /// Starts the web proxy too.
    #[must_use]
    pub fn web(mut self) -> Self {
        self.web = true;
        self
    }

    /// Starts no agent: the test plays it.
    #[must_use]
    pub fn agentless(mut self) -> Self {
        self.agentless = true;
        self
    }

    /// Puts a fault proxy between agent and server: [`Stack::link`].
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Starts only the agent, which dials a server that the test plays.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn agent_of(self, server: SocketAddr) -> anyhow::Result<Stack> {
        let mut stack = self.stopped()?;
        stack.grpc = server.to_string();
        stack.start_agent()?;
        let addr = stack.control_addr();
        wait_for("the simulated farm", Duration::from_secs(20), || async {
            if addr.exists() { Ok(()) } else { Err(stack.logs()) }
        })
        .await?;
        Ok(stack)
    }

    /// Starts all of it and waits until the agent is online and every feeder's config is known.
    ///
    /// # Errors
    /// If a part does not come up.
    pub async fn start(self) -> anyhow::Result<Stack> {
        let mut stack = self.stopped()?;
        stack.admin(&["farm", "add", "norte", "--zone", "America/Santiago"]).await?;
        stack.admin(&["agent", "add", "farms/norte/agents/agent-1"]).await?;
        stack.start_server().await?;
        if stack.builder.proxied {
            stack.proxy = Some(FaultProxy::start(&stack.grpc).await?);
        }
        if stack.builder.web {
            stack.start_web().await?;
        }
        if !stack.builder.agentless {
            stack.start_agent()?;
            stack.ready().await?;
        }
        Ok(stack)
    }

    fn stopped(self) -> anyhow::Result<Stack> {
        Ok(Stack {
            builder: self,
            client: Client::new("127.0.0.1:1")?,
            grpc: "127.0.0.1:0".into(),
            ops: "127.0.0.1:0".into(),
            web_url: String::new(),
            server: None,
            agent: None,
            web: None,
            proxy: None,
            dir: TempDir::new()?,
        })
    }
}

/// Running programs. What is dropped is killed.
#[derive(Debug)]
pub struct Stack {
    builder: StackBuilder,
    /// A user's view.
    pub client: Client,
    /// Where the server's gRPC listens.
    pub grpc: String,
    /// Where the server's health and metrics listen.
    pub ops: String,
    /// The page; empty without the web proxy.
    pub web_url: String,
    /// The server.
    pub server: Option<Process>,
    /// The agent.
    pub agent: Option<Process>,
    /// The web proxy.
    pub web: Option<Process>,
    proxy: Option<FaultProxy>,
    /// Everybody's data and logs.
    pub dir: TempDir,
}

async fn admin(dir: &Path, args: &[&str]) -> anyhow::Result<String> {
    let out = Command::new(paths::binary("pasamanos-server")?)
        .args(args)
        .arg("--data-dir")
        .arg(dir.join("server"))
        .output()
        .await?;
    anyhow::ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

impl Stack {
    /// What to start, with the shipped defaults scaled down.
    pub fn builder() -> StackBuilder {
        StackBuilder::default()
    }

    /// Starts, or starts again, the server on the same port and data.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn start_server(&mut self) -> anyhow::Result<()> {
        let port_file = self.dir.path().join("server.ports");
        let _ = std::fs::remove_file(&port_file);
        let mut command = Command::new(paths::binary("pasamanos-server")?);
        command
            .args(["--listen", &self.grpc, "--ops-listen", &self.ops])
            .arg("--data-dir")
            .arg(self.dir.path().join("server"))
            .arg("--port-file")
            .arg(&port_file)
            .args(&self.builder.server_args);
        self.environment(Part::Server, &mut command);
        self.server = Some(Process::start("server", &mut command, self.dir.path())?);
        let ports = self.port_file("server", &port_file).await?;
        let port = |key: &str| {
            let line = ports.lines().find_map(|l| l.strip_prefix(key));
            line.map(str::to_owned).with_context(|| ports.clone())
        };
        (self.grpc, self.ops) = (port("grpc=")?, port("ops=")?);
        self.client = Client::new(&self.grpc)?;
        Ok(())
    }

    async fn port_file(&mut self, name: &str, path: &Path) -> anyhow::Result<String> {
        let log = self.dir.path().join(format!("{name}.log"));
        let read = || async { std::fs::read_to_string(path) };
        let found = wait_for(&format!("{name} listens"), Duration::from_secs(20), read).await;
        found.with_context(|| std::fs::read_to_string(log).unwrap_or_default())
    }

    /// Starts, or starts again, the web proxy.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn start_web(&mut self) -> anyhow::Result<()> {
        let port_file = self.dir.path().join("web.ports");
        let _ = std::fs::remove_file(&port_file);
        let mut command = Command::new(paths::binary("pasamanos-web-proxy")?);
        command
            .args(["--listen", "127.0.0.1:0", "--upstream", &format!("http://{}", self.grpc)])
            .arg("--port-file")
            .arg(&port_file);
        self.web = Some(Process::start("web", &mut command, self.dir.path())?);
        let addr = self.port_file("web", &port_file).await?;
        self.web_url = format!("http://{}", addr.trim());
        Ok(())
    }

    /// From its next start on the program kills itself at the nth passage of this point, `name:nth`.
    pub fn crash_at(&mut self, at: Option<(Part, String)>) {
        self.builder.crash_at = at;
    }

    fn environment(&self, part: Part, command: &mut Command) {
        let own = self.builder.env.iter().filter(|(of, ..)| *of == part);
        command.envs(own.map(|(_, key, value)| (key, value)));
        match &self.builder.crash_at {
            Some((at, point)) if *at == part => command.env("CRASH_AT", point),
            _ => command.env_remove("CRASH_AT"),
        };
    }

    /// Where the agent's configuration is.
    pub fn agent_toml(&self) -> PathBuf {
        self.dir.path().join("agent.toml")
    }

    /// Where the agent's data is: its journal, and the simulated PLC's files.
    pub fn agent_dir(&self) -> PathBuf {
        self.dir.path().join("agent")
    }

    /// Where the server's data is.
    pub fn server_dir(&self) -> PathBuf {
        self.dir.path().join("server")
    }

    /// Starts, or starts again, the agent on the same data.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_agent(&mut self) -> anyhow::Result<()> {
        let server = self.proxy.as_ref().map_or_else(|| self.grpc.clone(), |p| p.addr.to_string());
        let head = format!(
            "server = \"http://{server}\"\nagent = \"farms/norte/agents/agent-1\"\ndata_dir = \"{}\"\n\n",
            self.dir.path().join("agent").display(),
        );
        std::fs::write(self.agent_toml(), head + &self.builder.agent_toml)?;
        let mut command = Command::new(paths::binary("pasamanos-agent")?);
        command.arg("--config").arg(self.agent_toml());
        self.environment(Part::Agent, &mut command);
        self.agent = Some(Process::start("agent", &mut command, self.dir.path())?);
        Ok(())
    }

    /// Waits until the agent is online and every feeder shows what its PLC runs.
    ///
    /// # Errors
    /// If it does not come about; the logs' ends are in the error.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let ready = async {
            self.client.wait_presence(PresenceState::Online, Duration::from_secs(30)).await?;
            wait_for("feeders are live", Duration::from_secs(15), || async {
                let farm = self.client.farm().await?;
                let known = |f: &pasamanos_proto::pb::Feeder| {
                    let state = f.status.as_ref().map(pasamanos_proto::pb::FeederStatus::state);
                    f.config.is_some()
                        && !matches!(state, None | Some(pasamanos_proto::pb::FeederState::Unknown))
                };
                if !farm.feeders.is_empty() && farm.feeders.iter().all(known) {
                    return Ok(());
                }
                Err(tonic::Status::unavailable(format!("{:?}", farm.feeders)))
            })
            .await
        };
        ready.await.with_context(|| self.logs())
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        let mut out = String::new();
        for name in ["server", "agent", "web"] {
            let log = std::fs::read_to_string(self.dir.path().join(format!("{name}.log")));
            let log = log.unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            let _ = writeln!(out, "--- {name}\n{}", tail.join("\n"));
        }
        out
    }

    /// The server's process.
    ///
    /// # Errors
    /// If it was not started.
    pub fn server(&mut self) -> anyhow::Result<&mut Process> {
        self.server.as_mut().context("no server")
    }

    /// The agent's process.
    ///
    /// # Errors
    /// If it was not started.
    pub fn agent(&mut self) -> anyhow::Result<&mut Process> {
        self.agent.as_mut().context("no agent")
    }

    /// The link between agent and server.
    ///
    /// # Errors
    /// If it was not started [`StackBuilder::proxied`].
    pub fn link(&self) -> anyhow::Result<&FaultProxy> {
        self.proxy.as_ref().context("no fault proxy")
    }

    /// Runs an operator's command on the server's data.
    ///
    /// # Errors
    /// If it fails.
    pub async fn admin(&self, args: &[&str]) -> anyhow::Result<String> {
        admin(self.dir.path(), args).await
    }

    /// The simulated PLC's physical executions so far: the ground truth.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn sim_ledger(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        let sim = self.dir.path().join("agent").join("sim");
        let mut lines = Vec::new();
        for entry in walk(&sim)? {
            if entry.file_name().is_some_and(|n| n == "ledger.jsonl") {
                lines.extend(crate::plc::read_ledger(entry)?);
            }
        }
        Ok(lines)
    }

    /// How many doses by command the simulated PLC physically started.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn doses_started(&self) -> anyhow::Result<usize> {
        let ledger = self.sim_ledger()?;
        Ok(ledger.iter().filter(|l| l["cause"] == "command" && l["event"] == "start").count())
    }

    /// How often the simulated PLC physically started the dose of this command.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn doses_of(&self, command: &str) -> anyhow::Result<usize> {
        let token = crate::check::token(command);
        let mine = |l: &&serde_json::Value| {
            l["cause"] == "command" && l["event"] == "start" && l["token"] == token
        };
        Ok(self.sim_ledger()?.iter().filter(mine).count())
    }

    fn control_addr(&self) -> PathBuf {
        self.dir.path().join("agent/sim/control.addr")
    }

    /// The simulated farm.
    pub fn sim(&self) -> Sim {
        Sim::of(&self.dir.path().join("agent"))
    }

    /// The first feeder by name.
    ///
    /// # Errors
    /// If the farm cannot be read.
    pub async fn first_feeder(&self) -> anyhow::Result<String> {
        client::first_feeder(&self.client.farm().await?)
    }
}

fn walk(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if !dir.exists() {
        return Ok(found);
    }
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(walk(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}
