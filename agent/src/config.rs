//! `agent.toml`: which server, which agent, which PLCs, and where each value is. Flags and
//! environment override the file; what is wrong is said with key, file and line.

mod build;
mod error;
mod expand;
mod file;
pub mod quantity;
mod sim_farm;
pub mod tags;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pasamanos_proto::model::{self, AgentName, FeederId, Limits, RobotId, TankId};
use serde::Deserialize;

pub use self::error::ConfigError;
pub use self::tags::{Tag, TagName, Tags};
use crate::driver::Profile;

/// Everything that the agent is told at the farm. Valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it dials, `http://host:port` or `https://host:port`.
    pub server: String,
    /// Who it is.
    pub agent: AgentName,
    /// Where its journal is, and the simulated farm's memory.
    pub data_dir: PathBuf,
    /// Its PLCs, by name in the order of the file; robot and feeder ids are unique over all.
    pub plcs: Vec<Plc>,
}

/// What flags or environment say; each wins over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--server` or `PASAMANOS_SERVER`.
    pub server: Option<String>,
    /// `--agent` or `PASAMANOS_AGENT`.
    pub agent: Option<String>,
    /// `--data-dir` or `PASAMANOS_DATA_DIR`.
    pub data_dir: Option<PathBuf>,
}

/// One `[[plc]]`: one connection.
#[derive(Clone, Debug)]
pub struct Plc {
    /// Its name, for logs and files.
    pub name: String,
    /// How often its robots are read.
    pub poll: Duration,
    /// Whether anything is ever written to it.
    pub access: Access,
    /// How it is spoken to.
    pub driver: PlcDriver,
    /// Its robots.
    pub robots: Vec<Robot>,
}

/// Whether a PLC may be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Status and farm edits flow, commands are refused.
    ReadOnly,
    /// Commands too.
    ReadWrite,
}

/// How a PLC is spoken to.
#[derive(Clone, Debug)]
pub enum PlcDriver {
    /// A farm in software.
    Sim(Sim),
    /// OPC UA.
    OpcUa(OpcUa),
}

/// A farm in software.
#[derive(Clone, Debug)]
pub struct Sim {
    /// Its water and its portions follow from it.
    pub seed: u64,
    /// Its clock's zone, IANA.
    pub zone: String,
    /// Where tests may cause faults; loopback only.
    pub control: Option<SocketAddr>,
}

/// An OPC UA server.
#[derive(Clone, Debug)]
pub struct OpcUa {
    /// `opc.tcp://host:port/path`.
    pub url: String,
    /// How the channel is secured.
    pub security: Security,
    /// Who logs on; anonymous if absent.
    pub user: Option<String>,
    /// The file that holds the password, and nothing else.
    pub password_file: Option<PathBuf>,
    /// How long a request may take.
    pub timeout: Duration,
    /// How often the server is asked to publish changes; `None` to poll only.
    pub subscribe: Option<Duration>,
}

/// How an OPC UA channel is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// Not at all: only on a cable of its own.
    None,
    /// `Basic256Sha256`, signed and encrypted; the server's certificate is pinned.
    Basic256Sha256,
}

/// Who changes configs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConfigOwner {
    /// The PLC keeps what it is given.
    Plc,
    /// The desktop program writes its own values back: configs are read-only here.
    Desktop,
}

/// Whose the source timestamps of the config tags are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceTime {
    /// Of a server or gateway that stamps what it reads or is given: they prove nothing of the PLC.
    #[default]
    Server,
    /// Of the PLC: set when its program takes or refreshes a value.
    Plc,
}

/// One `[[robot]]`: one command slot.
#[derive(Clone, Debug)]
pub struct Robot {
    /// Its id.
    pub id: RobotId,
    /// What its tags begin with.
    pub node: String,
    /// Who changes its feeders' configs.
    pub config_owner: ConfigOwner,
    /// The feed in its hopper.
    pub feed_name: String,
    /// How long to wait between two read-backs of a config.
    pub dwell: Duration,
    /// Whose the source timestamps of its config tags are.
    pub source_time: SourceTime,
    /// Whether it restarts its interval when a hold ends.
    pub hold_restarts_interval: bool,
    /// What its fault codes mean.
    pub faults: BTreeMap<u32, String>,
    /// Its own tags.
    pub tags: Tags,
    /// Its feeders, by outlet.
    pub feeders: Vec<Feeder>,
}

/// One `[[feeder]]`: one outlet into one tank.
#[derive(Clone, Debug)]
pub struct Feeder {
    /// Its id.
    pub id: FeederId,
    /// Its tank.
    pub tank: TankId,
    /// The tank, as the farm calls it.
    pub tank_name: String,
    /// The tank's group; empty for none.
    pub group: String,
    /// The feeder, as the farm calls it.
    pub display_name: String,
    /// Which of its robot's outlets it is.
    pub outlet: u8,
    /// What its tags begin with.
    pub node: String,
    /// How a config reaches the PLC.
    pub profile: Profile,
    /// What it can be set to.
    pub limits: Limits,
    /// The most that may be dispensed in a rolling 24 h, mg.
    pub envelope_mg: Option<i64>,
    /// Its tags, and its tank's.
    pub tags: Tags,
    /// What a simulated feeder starts with; `None` for a real one.
    pub initial: Option<Initial>,
}

/// What a simulated feeder runs when it is first made.
#[derive(Clone, Debug, PartialEq)]
pub struct Initial {
    /// Its config.
    pub config: model::FeederConfig,
    /// What it adds to its robot's hopper, mg.
    pub hopper_mg: i64,
    /// When its first meal is due, s.
    pub first_meal_in_s: u32,
}

/// Reads the file; flag and environment win over it, and it over the defaults.
///
/// # Errors
/// If it cannot be read or is wrong anywhere.
pub fn load(path: &Path, overrides: &Overrides) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| ConfigError::file(path, format!("cannot be read: {e}")))?;
    parse(path, &text, overrides)
}

/// Reads a text as if it stood in that file.
///
/// # Errors
/// If it is wrong anywhere.
pub fn parse(path: &Path, text: &str, overrides: &Overrides) -> Result<Config, ConfigError> {
    let file = toml::from_str(text).map_err(|e| error::from_toml(&e, text).locate(path, text))?;
    build::config(path, text, file, overrides)
}
