//! A simulated farm on disk, its truth, and orders for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use pasamanos_agent::clock;
use pasamanos_proto::model::{
    Action, CommandName, CommandOrder, FeederConfig, Hello, Note, ObservedConfig, RequestId,
};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const FEEDER: &str = "feeder-a1";

/// A data directory with its `agent.toml`.
pub(crate) struct Farm {
    dir: TempDir,
    number: i64,
}

impl Farm {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), number: 0 }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Writes `agent.toml` for that server.
    pub(crate) fn toml(&self, server: SocketAddr) -> PathBuf {
        let path = self.dir.path().join("agent.toml");
        let text = format!(
            "server = \"http://{server}\"\nagent = \"farms/farm-1/agents/agent-1\"\n\
             data_dir = {:?}\n\n[[plc]]\nname = \"sim\"\ndriver = \"sim\"\nseed = 7\ntanks = 3\n\
             zone = \"UTC\"\npoll = \"100ms\"\n",
            self.data()
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn order(&mut self, action: Action) -> CommandOrder {
        self.number += 1;
        let feeder = FEEDER.parse().unwrap();
        CommandOrder {
            command: CommandName::new(
                "farm-1".parse().unwrap(),
                RequestId::from(Uuid::from_u128(self.number.unsigned_abs().into())),
            ),
            body_hash: action.body_hash(&feeder),
            feeder,
            number: self.number,
            boot_id: clock::boot_id(),
            start_before_ms: clock::monotonic_ms() + 10_000,
            author: "ana".into(),
            note: Note::default(),
            action,
        }
    }

    /// Another portion than the one that the hello tells.
    pub(crate) fn portion(&mut self, hello: &Hello, mg: i32) -> CommandOrder {
        self.portion_from(hello, None, mg)
    }

    /// The same, based on a portion that was set since.
    pub(crate) fn portion_from(
        &mut self,
        hello: &Hello,
        base: Option<i32>,
        mg: i32,
    ) -> CommandOrder {
        let feeder = hello.inventory.feeders.iter().find(|f| f.id.as_str() == FEEDER).unwrap();
        let from = feeder.config.as_ref().and_then(ObservedConfig::valid).unwrap();
        let base = FeederConfig { portion_mg: base.or(from.portion_mg), ..from.clone() };
        let mut new = base.clone();
        new.portion_mg = Some(mg);
        let fields = base.diff(&new);
        self.order(Action::UpdateConfig { base: (&base).into(), new, fields })
    }

    /// What physically ran: (token, dispensed) of each commanded dose that was started.
    pub(crate) fn ran(&self) -> Vec<(u32, Option<u64>)> {
        ran(&self.data().join("sim/ledger.jsonl"))
    }
}

fn ran(ledger: &Path) -> Vec<(u32, Option<u64>)> {
    let text = std::fs::read_to_string(ledger).unwrap_or_default();
    let lines = text.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    let mut doses: Vec<(u32, Option<u64>)> = Vec::new();
    for line in lines.filter(|l| l["cause"] == "command") {
        let token = u32::try_from(line["token"].as_u64().unwrap()).unwrap();
        if line["event"] == "start" {
            doses.push((token, None));
        } else if let Some(d) = doses.iter_mut().rfind(|d| d.0 == token) {
            d.1 = line["dispensed_mg"].as_u64();
        }
    }
    doses
}
