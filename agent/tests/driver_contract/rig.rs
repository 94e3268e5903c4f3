//! One driver with the farm behind it, whichever kind it is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pasamanos_agent::config::{Config, Overrides, parse};
use pasamanos_agent::driver::{
    self, ConfigReading, Driver, DriverError, RobotSnapshot, Slot, SlotBlock, SlotOp, SlotState,
};
use pasamanos_proto::model::{FeederId, RobotId};
use pasamanos_proto::pb::LinkState;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::plc::{TestPlc, ask, ledger};

/// A kind of driver and profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sim,
    Block,
    Scalar,
}

/// A driver and its farm.
pub struct Rig {
    pub kind: Kind,
    pub driver: Arc<dyn Driver>,
    pub robot: RobotId,
    pub feeder: FeederId,
    pub plc: Option<TestPlc>,
    config: Config,
    dir: TempDir,
}

/// One dose by command that the farm really ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    pub sequence: u64,
    pub token: u64,
    pub dispensed_mg: Option<u64>,
}

const SIM: &str = r#"
agent = "farms/blue-farm/agents/test-pc"
[[plc]]
name = "sim-plc"
driver = "sim"
control = "127.0.0.1:0"
access = "ACCESS"
[[robot]]
id = "robot-1"
plc = "sim-plc"
[[feeder]]
id = "feeder-1"
robot = "robot-1"
tank = "tank-1"
rate = "500 mg/s"
initial = { mode = "manual", portion_mg = 1500, interval = "10min", daily_cap_mg = 500000 }
"#;

/// The configuration of a PLC of plain tags and one of blocks at this endpoint.
pub fn opcua_toml(endpoint: &str, kind: Kind, access: &str, extra: &str) -> String {
    let head = format!(
        r#"
agent = "farms/blue-farm/agents/test-pc"
[[plc]]
name = "test-plc"
driver = "opcua"
url = "{endpoint}"
namespace = "urn:feedlab:plc"
access = "{access}"
{extra}
"#
    );
    let body = match kind {
        Kind::Scalar => {
            r#"
[[robot]]
id = "robot-1"
plc = "test-plc"
node = "F01"
scan_ms = 50
[robot.tags]
alive = { node = "{node}.Alive", type = "uint32" }
hopper = { node = "{node}.Hopper", type = "double", unit = "kg" }
dose_amount = { node = "{node}.DoseAmount", type = "double", unit = "g" }
dose_sequence = { node = "{node}.DoseSeq", type = "uint32" }
dose_start = { node = "{node}.DoseStart" }
dose_echo = { node = "{node}.DoseEcho", type = "uint32" }
dose_done = { node = "{node}.DoseDone", type = "uint32" }
dose_dispensed = { node = "{node}.DoseDispensed", type = "double", unit = "g" }
[[feeder]]
id = "feeder-1"
robot = "robot-1"
tank = "tank-1"
profile = "scalar"
rate = "500 mg/s"
[feeder.tags]
mode = { path = "{node}/Mode", type = "int32", values = { automatic = 1, manual = 2, off = 0 } }
portion = { node = "{node}.Portion", type = "double", unit = "g" }
interval = { node = "{node}.Interval", type = "uint32", unit = "s" }
daily_cap = { node = "{node}.DailyCap", type = "double", unit = "g" }
hold = { node = "{node}.Hold" }
dosing = { node = "{node}.Status", type = "int32", equals = 2 }
total = { node = "{node}.TotalGrams", type = "double", unit = "g" }
dissolved_oxygen = { node = "{node}.Oxygen", type = "double", unit = "mg/L" }
water_temperature = { node = "{node}.Temperature", type = "double", unit = "celsius" }
"#
        }
        _ => {
            r#"
[[robot]]
id = "robot-1"
plc = "test-plc"
node = "R01"
scan_ms = 50
[[feeder]]
id = "feeder-1"
robot = "robot-1"
tank = "tank-1"
profile = "block"
rate = "500 mg/s"
[feeder.tags]
dissolved_oxygen = { node = "{node}.Oxygen", type = "double", unit = "mg/L" }
water_temperature = { node = "{node}.Temperature", type = "double", unit = "celsius" }
"#
        }
    };
    format!("{head}{body}")
}

/// Reads a configuration as if from a file in `dir`, where its data goes too.
pub fn config(dir: &Path, text: &str) -> Config {
    let overrides = Overrides { data_dir: Some(dir.into()), ..Overrides::default() };
    parse(&dir.join("agent.toml"), text, &overrides).unwrap_or_else(|e| panic!("{e}"))
}

impl Rig {
    /// A farm of this kind, connected.
    pub async fn new(kind: Kind) -> Self {
        Self::with_access(kind, "read_write").await
    }

    pub async fn with_access(kind: Kind, access: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let (plc, text) = match kind {
            Kind::Sim => (None, SIM.replace("ACCESS", access)),
            Kind::Block | Kind::Scalar => {
                let plc = TestPlc::start(dir.path(), &[]).await;
                let text = opcua_toml(&plc.endpoint, kind, access, "");
                (Some(plc), text)
            }
        };
        let config = config(dir.path(), &text);
        let driver = driver::build(&config).await.unwrap().remove(0);
        let of = driver.feeders()[0].clone();
        let rig = Self { kind, driver, robot: of.robot, feeder: of.feeder, plc, config, dir };
        rig.link(LinkState::Up).await;
        rig
    }

    /// Waits until the link is in this state.
    pub async fn link(&self, state: LinkState) {
        let mut link = self.driver.link();
        let there = link.wait_for(|link| link.state == state);
        let seen =
            tokio::time::timeout(Duration::from_secs(40), there).await.map(|r| r.unwrap().clone());
        assert!(seen.is_ok(), "link is {:?}, not {state:?}", self.driver.link().borrow());
    }

    /// A snapshot, waiting for the link if it must.
    pub async fn status(&self) -> RobotSnapshot {
        for _ in 0..400 {
            match self.driver.read_status(&self.robot).await {
                Ok(snapshot) => return snapshot,
                Err(DriverError::NotConnected) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(e) => panic!("{e}"),
            }
        }
        panic!("never readable again");
    }

    /// Waits for a snapshot of which this is true.
    pub async fn until(&self, what: &str, is: impl Fn(&RobotSnapshot) -> bool) -> RobotSnapshot {
        let mut last = None;
        for _ in 0..200 {
            let status = self.status().await;
            if is(&status) {
                return status;
            }
            last = Some(status);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never {what}: {last:?}");
    }

    /// Waits for a config of which this is true.
    pub async fn config_until(
        &self,
        what: &str,
        is: impl Fn(&ConfigReading) -> bool,
    ) -> ConfigReading {
        let mut last = None;
        for _ in 0..200 {
            let reading = self.driver.read_config(&self.feeder).await.unwrap();
            if is(&reading) {
                return reading;
            }
            last = Some(reading);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never {what}: {last:?}");
    }

    pub async fn slot(&self) -> Slot {
        self.status().await.slot.unwrap()
    }

    /// A dose on the next sequence.
    pub async fn next_dose(&self, amount_mg: u32, token: u32) -> SlotBlock {
        let status = self.status().await;
        let slot = status.slot.unwrap();
        SlotBlock {
            epoch: slot.epoch,
            sequence: slot.last_sequence.wrapping_add(1),
            op: SlotOp::Dose,
            outlet: self.driver.feeders()[0].outlet,
            amount_mg,
            token,
            rate_mg_per_s: 0,
            expires_at_s: status.plc_time_s.unwrap_or(0) + 10,
            start_before_ms: i64::MAX,
        }
    }

    /// Waits for a slot of which this is true.
    pub async fn wait(&self, what: &str, is: impl Fn(&Slot) -> bool) -> Slot {
        let mut last = None;
        for _ in 0..200 {
            let slot = self.slot().await;
            if is(&slot) {
                return slot;
            }
            last = Some(slot);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never {what}: {last:?}");
    }

    /// Submits until it is latched, then waits for its end.
    pub async fn dose(&self, amount_mg: u32, token: u32) -> Slot {
        let block = self.next_dose(amount_mg, token).await;
        self.driver.submit(&self.robot, &block).await.unwrap();
        self.wait("ended", |s| s.last_sequence == block.sequence && is_end(s.state)).await
    }

    pub async fn total_mg(&self) -> u64 {
        self.status().await.feeders[0].total_mg.unwrap()
    }

    /// What the farm says that it really ran by command.
    pub fn executions(&self) -> Vec<Execution> {
        let lines = match &self.plc {
            Some(plc) => plc.ledger(),
            None => ledger(&self.dir.path().join("sim/ledger.jsonl")),
        };
        let ours = ["R01", "F01", "feeder-1"];
        let event = |l: &Value| l.get("event").or(l.get("kind")).cloned();
        let key = |l: &Value| (l["run"].clone(), l["number"].clone());
        let starts = lines.iter().filter(|l| event(l) == Some(json!("start")));
        let commanded = starts.filter(|l| {
            let by = l["cause"].as_str().unwrap().eq_ignore_ascii_case("command");
            by && ours.contains(&l["feeder"].as_str().unwrap())
        });
        let end =
            |of: &Value| lines.iter().find(|l| event(l) == Some(json!("end")) && key(l) == key(of));
        let execution = |l: &Value| Execution {
            sequence: l["seq"].as_u64().unwrap(),
            token: l["token"].as_u64().unwrap(),
            dispensed_mg: end(l).and_then(|l| l["dispensed_mg"].as_u64()),
        };
        commanded.map(execution).collect()
    }

    /// Someone at the farm sets another portion.
    pub async fn edit_at_farm(&self, portion_mg: i32) {
        match &self.plc {
            None => {
                let config = json!({ "portion_mg": portion_mg });
                self.sim(&json!({"op": "edit_config", "feeder": "feeder-1", "config": config}))
                    .await;
            }
            Some(plc) => {
                let name = if self.kind == Kind::Block { "R01" } else { "F01" };
                plc.control(
                    &json!({"op": "edit_config", "feeder": name, "portion_mg": portion_mg}),
                );
            }
        }
    }

    /// Asks the control channel of the simulated farm.
    pub async fn sim(&self, op: &Value) -> Value {
        let address = std::fs::read_to_string(self.dir.path().join("sim/control.addr")).unwrap();
        let op = op.clone();
        let answer = tokio::task::spawn_blocking(move || ask(&address, &op)).await.unwrap();
        assert!(answer.get("error").is_none(), "{answer}");
        answer["ok"].clone()
    }

    /// Ends the driver and starts another over the same files.
    pub async fn restart_driver(&mut self) {
        self.driver.shutdown().await;
        self.driver = driver::build(&self.config).await.unwrap().remove(0);
        self.link(LinkState::Up).await;
    }
}

pub fn is_end(state: SlotState) -> bool {
    !matches!(state, SlotState::Started | SlotState::Idle)
}
