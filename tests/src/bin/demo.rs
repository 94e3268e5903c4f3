//! `make demo`: a whole Pasamanos on one machine with a simulated farm that feeds itself.
//!
//! Starts server, agent and web proxy, waits until the page answers, the agent is online and feeders
//! are listed, writes `target/demo/demo.env`, and stops all three on Ctrl-C or SIGTERM.

#![allow(clippy::print_stdout, reason = "the demo speaks to a person")]

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use pasamanos_proto::pb::PresenceState;
use pasamanos_tests::{Client, Process, client::FARM, paths, wait_for};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// Runs the demo until it is stopped.
#[derive(Debug, Parser)]
struct Args {
    /// The farm behind the agent.
    #[arg(long, default_value = "config/agent.demo.toml")]
    agent_config: PathBuf,
    /// Where data, logs and demo.env go.
    #[arg(long, default_value = "target/demo")]
    dir: PathBuf,
    /// Keeps the data of the demo before.
    #[arg(long, env = "DEMO_KEEP", value_parser = clap::builder::FalseyValueParser::new(), num_args = 0..=1, default_missing_value = "true", default_value = "false")]
    keep: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let dir = std::path::absolute(paths::root().join(&args.dir))?;
    let env_file = dir.join("demo.env");
    let _ = std::fs::remove_file(&env_file);
    if !args.keep {
        let _ = std::fs::remove_dir_all(&dir);
    }
    std::fs::create_dir_all(&dir)?;

    let mut demo = tokio::select! {
        started = Demo::start(&dir, &args.agent_config) => started?,
        _ = int.recv() => return Ok(()),
        _ = term.recv() => return Ok(()),
    };
    demo.write_env(&env_file)?;
    demo.greet(&dir);

    let ended = tokio::select! {
        _ = int.recv() => Ok(()),
        _ = term.recv() => Ok(()),
        status = demo.server.ended() => Err(anyhow::anyhow!("the server ended: {}", status?)),
        status = demo.web.ended() => Err(anyhow::anyhow!("the web proxy ended: {}", status?)),
    };
    let _ = std::fs::remove_file(&env_file);
    println!("\nStopping.");
    demo.stop().await?;
    ended
}

struct Demo {
    server: Process,
    agent: Process,
    web: Process,
    grpc: String,
    web_url: String,
}

/// The usual port if it is free, else any.
fn port(usual: u16) -> SocketAddr {
    let usual = SocketAddr::from(([127, 0, 0, 1], usual));
    let free = TcpListener::bind(usual).is_ok();
    if free { usual } else { SocketAddr::from(([127, 0, 0, 1], 0)) }
}

impl Demo {
    async fn start(dir: &Path, agent_config: &Path) -> anyhow::Result<Self> {
        let data = dir.join("server");
        let server_bin = paths::binary("pasamanos-server")?;
        for args in [
            ["farm", "add", "demo", "--zone", "America/Guayaquil"].as_slice(),
            &["agent", "add", "farms/demo/agents/farm-pc"],
        ] {
            let out =
                Command::new(&server_bin).args(args).arg("--data-dir").arg(&data).output().await?;
            anyhow::ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        }

        let ports = dir.join("server.ports");
        let _ = std::fs::remove_file(&ports);
        let mut command = Command::new(&server_bin);
        command
            .args(["--listen", &port(50_051).to_string(), "--ops-listen", &port(9_464).to_string()])
            .args(["--drain-timeout", "5s"])
            .arg("--data-dir")
            .arg(&data)
            .arg("--port-file")
            .arg(&ports);
        let mut server = Process::start("server", &mut command, dir)?;
        let text = port_file(&mut server, &ports).await?;
        let grpc =
            text.lines().find_map(|l| l.strip_prefix("grpc=")).context("no grpc=")?.to_owned();

        let ports = dir.join("web.ports");
        let _ = std::fs::remove_file(&ports);
        let mut command = Command::new(paths::binary("pasamanos-web-proxy")?);
        command
            .args(["--listen", &port(8_080).to_string(), "--upstream", &format!("http://{grpc}")])
            .args(["--drain-timeout", "5s"])
            .arg("--port-file")
            .arg(&ports);
        let mut web = Process::start("web", &mut command, dir)?;
        let web_url = format!("http://{}", port_file(&mut web, &ports).await?.trim());

        let mut command = Command::new(paths::binary("pasamanos-agent")?);
        command
            .args(["--server", &format!("http://{grpc}"), "--agent", "farms/demo/agents/farm-pc"])
            .args(["--drain-timeout", "5s"])
            .arg("--data-dir")
            .arg(dir.join("agent"))
            .arg("--config")
            .arg(paths::root().join(agent_config));
        let agent = Process::start("agent", &mut command, dir)?;

        let mut demo = Self { server, agent, web, grpc, web_url };
        demo.ready(dir).await?;
        Ok(demo)
    }

    /// The page answers, the agent is online, feeders are listed.
    async fn ready(&mut self, dir: &Path) -> anyhow::Result<()> {
        let client = Client::new(&self.grpc)?;
        let farm = FARM.replace("norte", "demo");
        let ready = wait_for("the demo farm is online", Duration::from_mins(1), || async {
            let request = pasamanos_proto::pb::GetFarmStatusRequest { name: farm.clone() };
            let answer = client.status.clone().get_farm_status(request).await?;
            let farm = answer.into_inner().status.unwrap_or_default();
            let online = farm.agents.iter().any(|a| a.presence() == PresenceState::Online);
            let known = !farm.feeders.is_empty() && farm.feeders.iter().all(|f| f.config.is_some());
            if online && known { Ok(()) } else { Err(tonic::Status::unavailable("not yet")) }
        });
        ready.await.with_context(|| format!("the logs are in {}", dir.display()))?;
        let addr = self.web_url.trim_start_matches("http://").to_owned();
        wait_for("the page answers", Duration::from_secs(10), || async {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let mut tcp = tokio::net::TcpStream::connect(&addr).await?;
            let request = format!(
                "GET / HTTP/1.1\r\nhost: {addr}\r\naccept: text/html\r\nconnection: close\r\n\r\n"
            );
            tcp.write_all(request.as_bytes()).await?;
            let mut page = Vec::new();
            tcp.read_to_end(&mut page).await?;
            anyhow::ensure!(
                page.starts_with(b"HTTP/1.1 200"),
                "{}",
                String::from_utf8_lossy(&page)
            );
            Ok(())
        })
        .await
    }

    /// Renamed into place: who sees it sees all of it.
    fn write_env(&self, path: &Path) -> anyhow::Result<()> {
        let id = |p: &Process| p.id().map(|id| id.to_string()).unwrap_or_default();
        let text = format!(
            "PASAMANOS_WEB_URL={}\nPASAMANOS_GRPC_ADDR={}\nPASAMANOS_FARM=demo\n\
             PASAMANOS_AGENT_PID={}\nPASAMANOS_SERVER_PID={}\nPASAMANOS_PROXY_PID={}\n",
            self.web_url,
            self.grpc,
            id(&self.agent),
            id(&self.server),
            id(&self.web),
        );
        let new = path.with_extension("env.new");
        std::fs::write(&new, text)?;
        std::fs::rename(&new, path)?;
        Ok(())
    }

    fn greet(&self, dir: &Path) {
        println!("\nPasamanos runs a simulated farm that feeds itself.\n");
        println!("  page    {}/farms/demo", self.web_url);
        println!("  gRPC    grpcurl -plaintext {} list", self.grpc);
        println!("  logs    {}", dir.display());
        if let Some(id) = self.agent.id() {
            println!(
                "\nStop the farm PC with `kill -STOP {id}` (`-CONT` brings it back): within 25 s"
            );
            println!("the page says offline, and every change is refused.");
        }
        println!("\nCtrl-C stops all.");
    }

    /// The agent first, so that it can say goodbye.
    async fn stop(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(6);
        for process in [&mut self.agent, &mut self.web, &mut self.server] {
            if process.is_running() {
                process.signal(rustix::process::Signal::TERM)?;
                // A stopped process must be continued to hear it.
                process.signal(rustix::process::Signal::CONT)?;
            }
        }
        for process in [&mut self.agent, &mut self.web, &mut self.server] {
            let left = deadline.saturating_duration_since(Instant::now());
            if process.wait(left).await.is_err() {
                process.kill().await?;
            }
        }
        Ok(())
    }
}

async fn port_file(process: &mut Process, path: &Path) -> anyhow::Result<String> {
    let text = wait_for("a program listens", Duration::from_secs(30), || async {
        std::fs::read_to_string(path)
    })
    .await;
    text.with_context(|| process.log())
}
