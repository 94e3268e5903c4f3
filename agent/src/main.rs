//! `pasamanos-agent`: the farm side.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use pasamanos_agent::check;
use pasamanos_agent::config::{self, Overrides};
use pasamanos_agent::telemetry::{self, LogFormat};
use pasamanos_agent::{Agent, Settings};
use tokio_util::sync::CancellationToken;

/// Connects a farm's feeders to its Pasamanos server. Dials out; listens to nobody.
#[derive(Debug, Parser)]
#[command(name = "pasamanos-agent", version)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args, Debug)]
struct Common {
    /// The agent's configuration.
    #[arg(long, env = "PASAMANOS_AGENT_CONFIG", default_value = "agent.toml", global = true)]
    config: PathBuf,
    /// The server, such as `http://127.0.0.1:50051`; wins over the file.
    #[arg(long, env = "PASAMANOS_SERVER", global = true)]
    server: Option<String>,
    /// Who this agent is, `farms/{farm}/agents/{agent}`; wins over the file.
    #[arg(long, env = "PASAMANOS_AGENT", global = true)]
    agent: Option<String>,
    /// Where its journal is; wins over the file.
    #[arg(long, env = "PASAMANOS_DATA_DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// What is logged, such as `info` or `info,pasamanos_agent=debug`.
    #[arg(long, env = "PASAMANOS_LOG", default_value = "info", global = true)]
    log: String,
    /// How a log line looks.
    #[arg(long, env = "PASAMANOS_LOG_FORMAT", value_enum, default_value = "auto", global = true)]
    log_format: LogFormat,
    /// How long a stop may take, such as 20s.
    #[arg(long, env = "PASAMANOS_DRAIN_TIMEOUT", value_parser = duration, default_value = "20s", global = true)]
    drain_timeout: Duration,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the agent (the default).
    Run,
    /// Reads every mapped tag once and prints what it finds. Writes nothing.
    Check,
    /// Says that someone at the farm has looked: after a journal was lost or put back, doses by command
    /// may go on. Stop the agent first.
    ResetEnvelope {
        /// Only of this feeder and its robot; of all if absent.
        #[arg(long)]
        feeder: Option<String>,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    config::quantity::duration(text)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(e) = telemetry::init(&cli.common.log, cli.common.log_format) {
        return fail(&e);
    }
    // One thread: all that it does is wait, and handing work between threads costs more than the work.
    // What blocks has its own: the journal's database, and the simulated PLC with its files.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(32)
        .thread_stack_size(1024 * 1024)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(start(cli)),
        Err(e) => fail(&e.to_string()),
    }
}

async fn start(cli: Cli) -> ExitCode {
    let Common { config, server, agent, data_dir, drain_timeout, .. } = cli.common;
    let config = match config::load(&config, &Overrides { server, agent, data_dir }) {
        Ok(config) => config,
        Err(e) => return fail(&e.to_string()),
    };
    match cli.command.unwrap_or(Command::Run) {
        Command::Check => match check::run(&config, &mut std::io::stdout()).await {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(e) => fail(&e.to_string()),
        },
        Command::ResetEnvelope { feeder } => {
            match pasamanos_agent::reset_envelope(&config, feeder.as_deref()).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => fail(&e.to_string()),
            }
        }
        Command::Run => {
            let stop = CancellationToken::new();
            let agent = match Agent::build(Settings { config, drain_timeout }).await {
                Ok(agent) => agent,
                Err(e) => return fail(&e.to_string()),
            };
            let told = async {
                signal().await;
                stop.cancel();
                // Once told, a second signal changes nothing: the stop is bounded.
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = agent.run(stop.clone()) => ExitCode::SUCCESS,
                () = told => ExitCode::SUCCESS,
            }
        }
    }
}

fn fail(why: &str) -> ExitCode {
    tracing::error!("{why}");
    ExitCode::FAILURE
}

/// Waits for the first signal to stop.
#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        },
        Err(_) => {
            let _no_other_way = tokio::signal::ctrl_c().await;
        }
    }
}

/// Waits for the first signal to stop.
#[cfg(not(unix))]
async fn signal() {
    let _no_other_way = tokio::signal::ctrl_c().await;
}
