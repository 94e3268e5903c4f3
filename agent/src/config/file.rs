//! `agent.toml` as it is written. Nothing here is checked beyond its shape; unknown keys are refused.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::tags::TagType;
use super::{Access, ConfigOwner, Security, SourceTime};
use crate::driver::Profile;

/// A value with its place in the text.
pub(super) type Sp<T> = Spanned<T>;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub server: Option<Sp<String>>,
    pub agent: Option<Sp<String>>,
    pub data_dir: Option<PathBuf>,
    #[serde(default)]
    pub plc: Vec<Sp<PlcTable>>,
    #[serde(default)]
    pub robot: Vec<Sp<RobotTable>>,
    #[serde(default)]
    pub template: Vec<Sp<FeederTable>>,
    #[serde(default)]
    pub feeder: Vec<Sp<FeederTable>>,
}

/// `[[plc]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlcTable {
    pub name: Sp<String>,
    pub driver: Sp<DriverName>,
    pub poll: Option<Sp<String>>,
    pub access: Option<Access>,
    // opcua
    pub url: Option<Sp<String>>,
    pub namespace: Option<Sp<String>>,
    pub security: Option<Sp<Security>>,
    pub user: Option<Sp<String>>,
    pub password_file: Option<Sp<PathBuf>>,
    pub timeout: Option<Sp<String>>,
    pub subscribe: Option<Sp<String>>,
    // sim
    pub seed: Option<Sp<u64>>,
    pub tanks: Option<Sp<u16>>,
    pub tanks_per_robot: Option<Sp<u8>>,
    pub zone: Option<Sp<String>>,
    pub control: Option<Sp<String>>,
}

/// `driver = …`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum DriverName {
    Sim,
    Opcua,
}

/// `[[robot]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RobotTable {
    pub id: Sp<String>,
    pub plc: Sp<String>,
    pub n: Option<Sp<String>>,
    pub node: Option<Sp<String>>,
    pub config_owner: Option<ConfigOwner>,
    pub feed_name: Option<String>,
    pub scan_ms: Option<Sp<u32>>,
    pub dwell: Option<Sp<String>>,
    #[serde(default)]
    pub source_time: SourceTime,
    #[serde(default)]
    pub hold_restarts_interval: bool,
    #[serde(default)]
    pub faults: BTreeMap<String, Sp<String>>,
    #[serde(default)]
    pub tags: BTreeMap<String, Sp<TagTable>>,
}

/// `[[feeder]]` and `[[template]]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FeederTable {
    /// Of a template.
    pub name: Option<Sp<String>>,
    /// The template that this one fills.
    pub template: Option<Sp<String>>,
    pub n: Option<Sp<String>>,
    pub id: Option<Sp<String>>,
    pub robot: Option<Sp<String>>,
    pub tank: Option<Sp<String>>,
    pub tank_name: Option<Sp<String>>,
    pub group: Option<Sp<String>>,
    pub display_name: Option<Sp<String>>,
    pub node: Option<Sp<String>>,
    pub outlet: Option<Sp<u8>>,
    pub profile: Option<Profile>,
    pub rate: Option<Sp<String>>,
    pub step: Option<Sp<String>>,
    pub envelope_mg: Option<Sp<i64>>,
    pub portion_min_mg: Option<Sp<i32>>,
    pub portion_max_mg: Option<Sp<i32>>,
    pub interval_min: Option<Sp<String>>,
    pub interval_max: Option<Sp<String>>,
    pub daily_cap_max_mg: Option<Sp<i32>>,
    #[serde(default)]
    pub tags: BTreeMap<String, Sp<TagTable>>,
    /// What a simulated feeder runs when it is first made.
    pub initial: Option<Sp<InitialTable>>,
}

/// A tag.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TagTable {
    pub node: Option<Sp<String>>,
    pub path: Option<Sp<String>>,
    pub ns: Option<Sp<String>>,
    #[serde(rename = "type")]
    pub kind: Option<Sp<TagType>>,
    pub unit: Option<Sp<String>>,
    pub scale: Option<Sp<f64>>,
    pub values: Option<Sp<BTreeMap<String, i64>>>,
    pub equals: Option<Sp<i64>>,
    pub bit: Option<Sp<u8>>,
    pub deadband: Option<Sp<f64>>,
    pub frozen_after: Option<Sp<String>>,
    pub stale_after: Option<Sp<String>>,
    #[serde(default)]
    pub read_only: bool,
}

/// `[feeder.initial]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InitialTable {
    pub mode: Option<Sp<String>>,
    pub portion_mg: Option<Sp<i32>>,
    pub interval: Option<Sp<String>>,
    #[serde(default)]
    pub windows: Vec<Sp<String>>,
    pub daily_cap_mg: Option<Sp<i32>>,
    pub min_dissolved_oxygen_ug_per_l: Option<Sp<i32>>,
    pub max_water_temperature_millicelsius: Option<Sp<i32>>,
    pub hopper_mg: Option<Sp<i64>>,
    pub first_meal_in: Option<Sp<String>>,
}
