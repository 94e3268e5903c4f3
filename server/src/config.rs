//! Settings: flag, then environment, then default. Each error names the flag and its variable.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pasamanos_proto::model::AuditAnchor;

use crate::store::parse_head;

/// The gRPC control plane of Pasamanos.
#[derive(Debug, Parser)]
#[command(name = "pasamanos-server", version, about)]
pub struct Cli {
    /// What to do; without a command the server runs.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run.
    #[command(flatten)]
    pub settings: Settings,
}

/// Commands for the operator. They work on the same data directory while the server runs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the server (the default).
    Run,
    /// Adds and lists farms.
    Farm {
        /// What to do.
        #[command(subcommand)]
        command: FarmCommand,
    },
    /// Adds agents.
    Agent {
        /// What to do.
        #[command(subcommand)]
        command: AgentCommand,
    },
    /// Checks audit chains and writes them out.
    Audit {
        /// What to do.
        #[command(subcommand)]
        command: AuditCommand,
    },
}

/// Farms.
#[derive(Debug, Subcommand)]
pub enum FarmCommand {
    /// Adds a farm; one that is there already stays as it is.
    Add {
        /// Its slug: 3 to 63 of a-z, 0-9 and -.
        name: String,
        /// Its IANA time zone, such as `America/Santiago`: windows and days are of it.
        #[arg(long)]
        zone: String,
        /// As people call it; the slug if not given.
        #[arg(long)]
        display_name: Option<String>,
    },
    /// Lists the farms.
    List,
}

/// Agents.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Adds an agent, so that it may connect.
    Add {
        /// Its name, `farms/{farm}/agents/{agent}`.
        name: String,
    },
}

/// The audit chain.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Recomputes a chain and names the first record that does not fit.
    Verify {
        /// Whose chain.
        #[command(flatten)]
        whose: WhoseChain,
        /// What `audit export` wrote, instead of the database.
        #[arg(long, conflicts_with_all = ["farm", "platform"])]
        file: Option<PathBuf>,
        /// A head that was kept outside, as `audit verify` prints it: the chain must still hold it.
        #[arg(long, value_name = "SEQ:HASH", value_parser = parse_head)]
        head: Option<AuditAnchor>,
    },
    /// Writes a chain out: a record a line (JSON), in order, the head last. Keep it, or its last line,
    /// where the owner of the database cannot write.
    Export {
        /// Whose chain.
        #[command(flatten)]
        whose: WhoseChain,
    },
}

/// Whose audit chain.
#[derive(Args, Clone, Debug)]
pub struct WhoseChain {
    /// The farm's slug.
    pub farm: Option<String>,
    /// The platform's, of what is no farm's own.
    #[arg(long, conflicts_with = "farm")]
    pub platform: bool,
}

/// How the server runs.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Where gRPC listens; port 0 takes a free one.
    #[arg(long, global = true, env = "PASAMANOS_LISTEN", default_value = "127.0.0.1:50051")]
    pub listen: SocketAddr,
    /// Where health and metrics listen over HTTP (`/healthz /readyz /metrics`).
    #[arg(long, global = true, env = "PASAMANOS_OPS_LISTEN", default_value = "127.0.0.1:9464")]
    pub ops_listen: SocketAddr,
    /// Where the `SQLite` database lives.
    #[arg(long, global = true, env = "PASAMANOS_DATA_DIR", default_value = "./pasamanos-data")]
    pub data_dir: PathBuf,
    /// Redis for leases, such as `redis://127.0.0.1:6379`; without it they are held in this process.
    #[arg(long, global = true, env = "PASAMANOS_REDIS_URL", hide_env_values = true)]
    pub redis_url: Option<String>,
    /// Silence of this length means offline.
    #[arg(long, global = true, env = "PASAMANOS_LEASE_TTL", default_value = "25s", value_parser = duration)]
    pub lease_ttl: Duration,
    /// How often agents beat; 20s is the original protocol.
    #[arg(long, global = true, env = "PASAMANOS_HEARTBEAT_INTERVAL", default_value = "8s", value_parser = duration)]
    pub heartbeat_interval: Duration,
    /// How long after its acceptance a command may start, at most 30s.
    #[arg(long, global = true, env = "PASAMANOS_START_LIMIT", default_value = "10s", value_parser = duration)]
    pub start_limit: Duration,
    /// How long a stop may take.
    #[arg(long, global = true, env = "PASAMANOS_DRAIN_TIMEOUT", default_value = "20s", value_parser = duration)]
    pub drain_timeout: Duration,
    /// Where to write `grpc=ADDR` and `ops=ADDR` once both listen.
    #[arg(long, global = true, env = "PASAMANOS_PORT_FILE")]
    pub port_file: Option<PathBuf>,
    /// What to log, such as `info,pasamanos_server=debug`.
    #[arg(long, global = true, env = "PASAMANOS_LOG", default_value = "info")]
    pub log: String,
    /// How to log, to stderr.
    #[arg(long, global = true, env = "PASAMANOS_LOG_FORMAT", default_value = "auto")]
    pub log_format: LogFormat,
}

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Pretty,
    /// For machines.
    Json,
}

impl Settings {
    /// Checks what the flags mean together.
    ///
    /// # Errors
    /// Names the flags and variables that do not fit.
    pub fn validate(&self) -> anyhow::Result<()> {
        // One late beat must not be a false "offline".
        const SLACK: Duration = Duration::from_secs(2);
        if self.heartbeat_interval.is_zero() {
            anyhow::bail!("--heartbeat-interval (PASAMANOS_HEARTBEAT_INTERVAL) must be above 0");
        }
        // Scaled down for tests, the same proportion holds.
        let slack = SLACK.min(self.lease_ttl / 10);
        if self.lease_ttl < self.heartbeat_interval + slack {
            anyhow::bail!(
                "--lease-ttl (PASAMANOS_LEASE_TTL, {:?}) must exceed --heartbeat-interval \
                 (PASAMANOS_HEARTBEAT_INTERVAL, {:?}) by at least {slack:?}",
                self.lease_ttl,
                self.heartbeat_interval,
            );
        }
        if self.start_limit.is_zero() || self.start_limit > Duration::from_secs(30) {
            anyhow::bail!("--start-limit (PASAMANOS_START_LIMIT) must be above 0 and at most 30s");
        }
        if !self.listen.ip().is_loopback() {
            tracing::warn!(listen = %self.listen, "listening beyond this machine without TLS or logins");
        }
        Ok(())
    }
}

/// `25s`, `800ms`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let n: u64 = digits.parse().map_err(|_| format!("{text:?} is not a duration such as 25s"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(n)),
        "s" => Ok(Duration::from_secs(n)),
        "m" => Ok(Duration::from_secs(n.saturating_mul(60))),
        _ => Err(format!("{text:?} needs a unit: ms, s or m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Settings {
        let args = std::iter::once("pasamanos-server").chain(args.iter().copied());
        Cli::try_parse_from(args).expect("arguments").settings
    }

    #[test]
    fn the_original_protocol_is_allowed_and_a_closer_one_is_not() {
        assert!(parse(&["--heartbeat-interval", "20s"]).validate().is_ok());
        let e = parse(&["--heartbeat-interval", "24s"]).validate();
        assert!(e.is_err_and(|e| e.to_string().contains("PASAMANOS_LEASE_TTL")));
    }

    #[test]
    fn p7_a_start_limit_beyond_30_s_is_refused() {
        assert!(parse(&["--start-limit", "30s"]).validate().is_ok());
        let e = parse(&["--start-limit", "30001ms"]).validate();
        assert!(e.is_err_and(|e| e.to_string().contains("PASAMANOS_START_LIMIT")));
    }

    #[test]
    fn a_duration_needs_its_unit() {
        assert_eq!(duration("800ms"), Ok(Duration::from_millis(800)));
        assert!(duration("25").is_err_and(|e| e.contains("unit")));
        assert!(duration("soon").is_err());
    }
}
