//! An agent between a scripted PLC and a scripted server.

use std::sync::Arc;
use std::time::Duration;

use pasamanos_proto::model::{
    Action, CommandName, CommandOrder, FeederConfig, Interlocks, Mode, RequestId,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::peer::Peer;
use super::plc::ScriptedPlc;
use super::server::ScriptedServer;
use crate::agent::{Agent, Parts};
use crate::clock::Clock;
use crate::journal::Journal;

pub(crate) const FEEDER: &str = "feeder-a1";
pub(crate) const OTHER: &str = "feeder-a2";
const BOOT: &str = "boot-1";
/// 2026-11-24T12:00Z.
const WALL: i64 = 1_795_521_600_000;

/// A config that feeds by itself, with no cap and no interlock.
pub(crate) fn config() -> FeederConfig {
    FeederConfig {
        mode: Mode::Automatic,
        portion_mg: Some(1_000),
        interval_s: Some(3_600),
        windows: Vec::new(),
        daily_cap_mg: None,
        interlocks: Interlocks::default(),
    }
}

/// The parts of a test.
pub(crate) struct Rig {
    pub plc: ScriptedPlc,
    pub clock: Clock,
    pub dir: TempDir,
    server: Arc<ScriptedServer>,
    sessions: mpsc::Receiver<Peer>,
    running: Option<(JoinHandle<()>, CancellationToken)>,
    journal: Option<Journal>,
    number: i64,
    epoch: i64,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::on(ScriptedPlc::new(&[(FEEDER, config()), (OTHER, config())])).await
    }

    pub(crate) async fn on(plc: ScriptedPlc) -> Self {
        let server = Arc::new(ScriptedServer::new());
        let sessions = server.sessions();
        let mut rig = Self {
            plc,
            clock: Clock::simulated(BOOT, 1_000_000, WALL),
            dir: TempDir::new().unwrap(),
            server,
            sessions,
            running: None,
            journal: None,
            number: 0,
            epoch: 0,
        };
        rig.start().await;
        rig
    }

    fn parts(&self) -> Parts {
        Parts {
            agent: "farms/farm-1/agents/agent-1".parse().unwrap(),
            data_dir: self.dir.path().into(),
            drivers: vec![(Arc::new(self.plc.clone()), Duration::from_millis(500))],
            transport: Arc::clone(&self.server) as Arc<_>,
            clock: self.clock.clone(),
            drain_timeout: Duration::from_secs(20),
        }
    }

    pub(crate) async fn start(&mut self) {
        let agent = Agent::assemble(self.parts()).await.unwrap();
        self.journal = Some(agent.journal());
        let stop = CancellationToken::new();
        self.running = Some((tokio::spawn(agent.run(stop.clone())), stop));
    }

    /// A second agent on the same directory.
    pub(crate) async fn second(&self) -> Result<Agent, crate::BuildError> {
        Agent::assemble(self.parts()).await
    }

    /// As SIGKILL: nothing more is written.
    pub(crate) async fn kill(&mut self) {
        let (task, _) = self.running.take().unwrap();
        self.journal = None;
        self.plc.plc().unplug();
        task.abort();
        let _aborted = task.await;
        // The owner of the journal ends when nobody can ask it any more, and lets its lock go.
        loop {
            let lock =
                std::fs::File::options().write(true).open(self.dir.path().join("journal.lock"));
            if lock.unwrap().try_lock().is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) async fn restart(&mut self) {
        self.kill().await;
        self.start().await;
    }

    /// From now on the journal refuses every write, or no longer.
    pub(crate) fn break_journal(&self, broken: bool) {
        self.journal.as_ref().unwrap().set_broken(broken);
    }

    /// Writes what the journal was left to write.
    pub(crate) async fn tidy(&self) {
        self.journal.as_ref().unwrap().unacked().await.unwrap();
    }

    /// Whether the journal knows the command.
    pub(crate) async fn knows(&self, name: &CommandName) -> bool {
        self.journal.as_ref().unwrap().lookup(name).await.unwrap().is_some()
    }

    /// As SIGTERM.
    pub(crate) fn stop(&self) {
        self.running.as_ref().unwrap().1.cancel();
    }

    pub(crate) async fn stopped(&mut self) {
        self.running.take().unwrap().0.await.unwrap();
    }

    /// The next session, not welcomed yet.
    pub(crate) async fn session(&mut self) -> Peer {
        tokio::time::timeout(Duration::from_mins(10), self.sessions.recv())
            .await
            .expect("a session in time")
            .unwrap()
    }

    /// The next session, open.
    pub(crate) async fn open(&mut self) -> Peer {
        let mut peer = self.session().await;
        let _hello = peer.hello().await;
        self.epoch += 1;
        peer.welcome(self.epoch).await;
        peer
    }

    pub(crate) fn next_epoch(&mut self) -> i64 {
        self.epoch += 1;
        self.epoch
    }

    /// A command that may start for 10 s from now.
    pub(crate) fn order(&mut self, feeder: &str, action: Action) -> CommandOrder {
        self.number += 1;
        let feeder = feeder.parse().unwrap();
        CommandOrder {
            command: CommandName::new(
                "farm-1".parse().unwrap(),
                RequestId::from(Uuid::from_u128(self.number.unsigned_abs().into())),
            ),
            body_hash: action.body_hash(&feeder),
            feeder,
            number: self.number,
            boot_id: BOOT.into(),
            start_before_ms: self.clock.monotonic_ms() + 10_000,
            author: "ana".into(),
            note: pasamanos_proto::model::Note::default(),
            action,
        }
    }

    pub(crate) fn feed(&mut self, portion_mg: i32) -> CommandOrder {
        self.order(FEEDER, Action::FeedNow { portion_mg })
    }

    /// Sets the portion, based on what the PLC runs.
    pub(crate) fn portion(&mut self, portion_mg: i32) -> CommandOrder {
        let new = FeederConfig { portion_mg: Some(portion_mg), ..config() };
        self.update(&config(), new)
    }

    pub(crate) fn update(&mut self, base: &FeederConfig, new: FeederConfig) -> CommandOrder {
        let mut fields = base.diff(&new);
        if fields.is_empty() {
            fields = [pasamanos_proto::model::ConfigField::Portion].into_iter().collect();
        }
        self.order(FEEDER, Action::UpdateConfig { base: base.into(), new, fields })
    }
}
