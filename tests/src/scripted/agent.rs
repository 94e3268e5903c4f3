//! An agent: its hello, its clock and each of its frames are the test's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use pasamanos_proto::PROTOCOL_VERSION;
use pasamanos_proto::model::{ConfigField, StoredRecord};
use pasamanos_proto::pb::agent_link_service_client::AgentLinkServiceClient;
use pasamanos_proto::pb::connect_request::Frame as Up;
use pasamanos_proto::pb::connect_response::Frame as Down;
use pasamanos_proto::pb::{self, CommandState};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Status, Streaming};

use super::PATIENCE;

/// Where the clock of a scripted agent begins, ms.
const BOOT_MS: i64 = 1_000_000;

/// One identity with one feeder, on a robot of its own.
#[derive(Clone, Debug)]
pub struct ScriptedAgent {
    server: String,
    started: Instant,
    /// Which start of its machine its clock counts from.
    pub boot_id: String,
    /// What it says first.
    pub hello: pb::Hello,
    /// How far the server was when it was last heard of: told in the next hello.
    anchor: Arc<Mutex<pb::AuditAnchor>>,
}

impl ScriptedAgent {
    /// `farms/norte/agents/{agent}`, with `feeder-{suffix}` on `robot-{suffix}` into `tank-{suffix}`,
    /// and a journal that is whole.
    pub fn new(server: &str, agent: &str, suffix: &str) -> Self {
        let (robot, tank) = (format!("robot-{suffix}"), format!("tank-{suffix}"));
        let fields = ConfigField::ALL.into_iter().map(|field| pb::FieldCapability {
            path: field.path().into(),
            access: pb::FieldAccess::Writable.into(),
            enforced_by: pb::Enforcer::Plc.into(),
        });
        let feeder = pb::InventoryFeeder {
            id: format!("feeder-{suffix}"),
            robot: robot.clone(),
            tank: tank.clone(),
            display_name: format!("Feeder {suffix}"),
            limits: Some(pb::Limits { dispense_rate_mg_per_s: Some(500), ..Default::default() }),
            capabilities: Some(pb::Capabilities {
                feed_now: pb::FeedNowCapability::Exact.into(),
                hold: true,
                fields: fields.collect(),
                ..Default::default()
            }),
            config: Some(config(1_500)),
            config_memory_lost: false,
        };
        let slot = pb::RobotSlot {
            robot: robot.clone(),
            readable: true,
            sequenced: true,
            plc_epoch: 7,
            journal_epoch: 7,
            ..Default::default()
        };
        let hello = pb::Hello {
            protocol_version: PROTOCOL_VERSION,
            agent: format!("farms/norte/agents/{agent}"),
            agent_version: "scripted".into(),
            journal: Some(pb::JournalState {
                incarnation: uuid::Uuid::new_v4().to_string(),
                slots: vec![slot],
                ..Default::default()
            }),
            inventory: Some(pb::Inventory {
                tanks: vec![pb::InventoryTank { id: tank, ..Default::default() }],
                robots: vec![pb::InventoryRobot { id: robot }],
                feeders: vec![feeder],
            }),
            ..Default::default()
        };
        let boot_id = uuid::Uuid::new_v4().to_string();
        let (server, started) = (server.to_owned(), Instant::now());
        Self { server, started, boot_id, hello, anchor: Arc::default() }
    }

    /// Its journal, as the hello tells it.
    pub fn journal(&mut self) -> &mut pb::JournalState {
        self.hello.journal.get_or_insert_default()
    }

    /// Its monotonic clock, ms.
    pub fn now_ms(&self) -> i64 {
        BOOT_MS + i64::try_from(self.started.elapsed().as_millis()).unwrap_or(0)
    }

    /// Opens a stream whose first frame is this, and does nothing more.
    ///
    /// # Errors
    /// If the server refuses it before it answers anything.
    pub async fn stream(&self, first: Option<Up>) -> Result<AgentSession, Status> {
        let (outbound, frames) = mpsc::channel(64);
        let mut session = AgentSession {
            epoch: 0,
            agent: self.clone(),
            beats: 0,
            outbound: Some(outbound),
            inbound: None,
        };
        if let Some(first) = first {
            session.say(first).await;
        }
        let endpoint = Endpoint::from_shared(format!("http://{}", self.server));
        let channel = endpoint.map_err(|e| Status::internal(e.to_string()))?.connect_lazy();
        let mut client = AgentLinkServiceClient::new(channel);
        session.inbound = Some(client.connect(ReceiverStream::new(frames)).await?.into_inner());
        Ok(session)
    }

    /// Opens a session and sends its first heartbeat, which opens the lease. The next hello will
    /// know its epoch.
    ///
    /// # Errors
    /// If the server does not welcome it.
    pub async fn open(&mut self) -> anyhow::Result<AgentSession> {
        let anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.journal().anchor = Some(anchor);
        let mut session = self.stream(Some(Up::Hello(self.hello.clone()))).await?;
        match session.hear().await? {
            Down::Welcome(welcome) => session.epoch = welcome.epoch,
            other => anyhow::bail!("no welcome: {other:?}"),
        }
        self.journal().last_epoch = session.epoch;
        session.beat().await;
        Ok(session)
    }
}

/// A config with this portion, every 10 minutes.
pub fn config(portion_mg: i32) -> pb::FeederConfig {
    pb::FeederConfig {
        mode: pb::FeederMode::Automatic.into(),
        portion_mg: Some(portion_mg),
        interval: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
        interlocks: Some(pb::Interlocks::default()),
        ..Default::default()
    }
}

/// What became of a command that was received.
pub fn outcome(frame: &pb::CommandFrame, state: CommandState, epoch: i64) -> pb::CommandUpdate {
    pb::CommandUpdate {
        command: frame.command.clone(),
        state: state.into(),
        body_hash: frame.body_hash.clone(),
        journaled_epoch: epoch,
        ..Default::default()
    }
}

/// A record of a dose, hashed as an honest journal does.
pub fn dose_record(sequence: i64, feeder: &str, command: &str, mg: i64) -> pb::Record {
    let dose = pb::Dose {
        feeder: feeder.into(),
        command: command.into(),
        cause: pb::DoseCause::Command.into(),
        outcome: pb::DoseOutcome::Given.into(),
        dispensed_mg: Some(mg),
        basis: pb::AmountBasis::Counted.into(),
        ..Default::default()
    };
    let record = StoredRecord::new(sequence, pb::record::Content::Dose(dose));
    pb::Record {
        sequence,
        hash: record.hash.as_bytes().to_vec().into(),
        content: Some(record.content),
    }
}

/// How the server ended a stream.
#[derive(Debug, Default)]
pub struct Ended {
    /// The reason of its goodbye.
    pub goodbye: Option<String>,
    /// The stream's status; `None` is a clean end.
    pub status: Option<Status>,
}

/// An open stream.
#[derive(Debug)]
pub struct AgentSession {
    /// What its frames bear.
    pub epoch: i64,
    agent: ScriptedAgent,
    beats: i64,
    outbound: Option<mpsc::Sender<pb::ConnectRequest>>,
    inbound: Option<Streaming<pb::ConnectResponse>>,
}

impl AgentSession {
    /// Says something, now.
    pub async fn say(&mut self, frame: Up) {
        self.say_at(self.agent.now_ms(), frame).await;
    }

    /// Says something that was sent at this instant of the agent's clock.
    pub async fn say_at(&mut self, monotonic_ms: i64, frame: Up) {
        let (epoch, boot_id) = (self.epoch, self.agent.boot_id.clone());
        let frame = pb::ConnectRequest { epoch, boot_id, monotonic_ms, frame: Some(frame) };
        if let Some(outbound) = &self.outbound {
            // The stream is over: then nobody hears it.
            let _ = outbound.send(frame).await;
        }
    }

    /// The next heartbeat.
    pub async fn beat(&mut self) {
        self.beats += 1;
        let beat = pb::Heartbeat { sequence: self.beats, ..Default::default() };
        self.say(Up::Heartbeat(beat)).await;
    }

    /// Says what became of a command.
    pub async fn report(&mut self, update: pb::CommandUpdate) {
        self.say(Up::CommandUpdate(update)).await;
    }

    /// The next frame that is no answer to a heartbeat.
    ///
    /// # Errors
    /// If the stream ends, or none comes.
    pub async fn hear(&mut self) -> anyhow::Result<Down> {
        let inbound = self.inbound.as_mut().context("no stream")?;
        loop {
            let next = timeout(PATIENCE, inbound.message()).await.context("nothing is said")??;
            let frame = next.context("the stream ended")?.frame.context("an empty frame")?;
            let anchor = match &frame {
                Down::HeartbeatAck(_) => continue,
                Down::Welcome(welcome) => welcome.anchor.clone(),
                Down::CommandAck(ack) => ack.anchor.clone(),
                _ => None,
            };
            if let Some(anchor) = anchor {
                *self.agent.anchor.lock().unwrap_or_else(PoisonError::into_inner) = anchor;
            }
            return Ok(frame);
        }
    }

    /// The next command.
    ///
    /// # Errors
    /// If something else comes, or nothing.
    pub async fn command(&mut self) -> anyhow::Result<pb::CommandFrame> {
        match self.hear().await? {
            Down::Command(command) => Ok(command),
            other => anyhow::bail!("no command: {other:?}"),
        }
    }

    /// The next acknowledgement of a command.
    ///
    /// # Errors
    /// If something else comes, or nothing.
    pub async fn ack(&mut self) -> anyhow::Result<pb::CommandAck> {
        match self.hear().await? {
            Down::CommandAck(ack) => Ok(ack),
            other => anyhow::bail!("no acknowledgement: {other:?}"),
        }
    }

    /// The next acknowledgement of records: up to which.
    ///
    /// # Errors
    /// If something else comes, or nothing.
    pub async fn records_ack(&mut self) -> anyhow::Result<i64> {
        match self.hear().await? {
            Down::RecordsAck(ack) => Ok(ack.through_sequence),
            other => anyhow::bail!("no acknowledgement of records: {other:?}"),
        }
    }

    /// Everything but answers to heartbeats that comes within this time.
    ///
    /// # Errors
    /// If the stream ends meanwhile.
    pub async fn hear_for(&mut self, time: Duration) -> anyhow::Result<Vec<Down>> {
        let mut heard = Vec::new();
        let all = async {
            loop {
                heard.push(self.hear().await?);
            }
        };
        match timeout(time, all).await {
            Ok(ended) => ended,
            Err(_) => Ok(heard),
        }
    }

    /// Waits until the server ends the stream.
    ///
    /// # Errors
    /// If it does not within this time.
    pub async fn ended(&mut self, within: Duration) -> anyhow::Result<Ended> {
        let inbound = self.inbound.as_mut().context("no stream")?;
        let mut ended = Ended::default();
        let all = async {
            loop {
                match inbound.message().await {
                    Ok(Some(response)) => {
                        if let Some(Down::Goodbye(goodbye)) = response.frame {
                            ended.goodbye = Some(goodbye.reason);
                        }
                    }
                    Ok(None) => return,
                    Err(status) => {
                        ended.status = Some(status);
                        return;
                    }
                }
            }
        };
        timeout(within, all).await.with_context(|| format!("not ended within {within:?}"))?;
        Ok(ended)
    }

    /// Ends the stream from the agent's side, without a goodbye.
    pub fn hang_up(&mut self) {
        (self.outbound, self.inbound) = (None, None);
    }
}
