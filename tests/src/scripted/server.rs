//! A server: its welcome, its epochs and each of its frames are the test's.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use pasamanos_proto::PROTOCOL_VERSION;
use pasamanos_proto::model::{Action, CommandName, CommandOrder, duration_from_ms};
use pasamanos_proto::pb::agent_link_service_server::{AgentLinkService, AgentLinkServiceServer};
use pasamanos_proto::pb::connect_request::Frame as Up;
use pasamanos_proto::pb::connect_response::Frame as Down;
use pasamanos_proto::pb::{self, CommandState, ConnectRequest, ConnectResponse};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::PATIENCE;
use crate::client::{FARM, request_id};

/// Hands each stream to the test.
struct Link(mpsc::Sender<ServerSession>);

#[tonic::async_trait]
impl AgentLinkService for Link {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<ConnectResponse, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (outbound, frames) = mpsc::channel(256);
        let session = ServerSession {
            epoch: 0,
            hello: pb::Hello::default(),
            boot_id: String::new(),
            agent_ms: 0,
            ack: true,
            updates: Vec::new(),
            records: Vec::new(),
            inbound: request.into_inner(),
            outbound: Some(outbound),
        };
        let taken = self.0.send(session).await;
        taken.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(frames).map(Ok))))
    }
}

/// A server on a free port.
#[derive(Debug)]
pub struct ScriptedServer {
    /// Where it listens.
    pub addr: SocketAddr,
    sessions: mpsc::Receiver<ServerSession>,
    /// Ended when it is dropped.
    _serving: JoinSet<()>,
}

impl ScriptedServer {
    /// Listens.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let (opened, sessions) = mpsc::channel(16);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let service = AgentLinkServiceServer::new(Link(opened));
            let server = tonic::transport::Server::builder().add_service(service);
            // A broken listener shows as an agent that never comes.
            let _ = server.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        Ok(Self { addr, sessions, _serving: serving })
    }

    /// The next stream that an agent opens, its hello heard.
    ///
    /// # Errors
    /// If none comes.
    pub async fn hello(&mut self) -> anyhow::Result<ServerSession> {
        let next = timeout(PATIENCE, self.sessions.recv()).await.context("no agent comes")?;
        let mut session = next.context("not serving")?;
        match session.hear().await? {
            Up::Hello(hello) => session.hello = hello,
            other => anyhow::bail!("no hello: {other:?}"),
        }
        Ok(session)
    }

    /// The next session, opened under this epoch with the shipped times.
    ///
    /// # Errors
    /// If no agent comes.
    pub async fn open(&mut self, epoch: i64) -> anyhow::Result<ServerSession> {
        let mut session = self.hello().await?;
        session.welcome(epoch, 25_000, 8_000).await;
        Ok(session)
    }
}

/// One stream of an agent.
#[derive(Debug)]
pub struct ServerSession {
    /// What the server's frames bear.
    pub epoch: i64,
    /// What the agent said first.
    pub hello: pb::Hello,
    /// The boot id of the agent's last frame.
    pub boot_id: String,
    /// The clock of the agent's last frame, ms.
    pub agent_ms: i64,
    /// Whether outcomes and records are acknowledged when they are heard.
    pub ack: bool,
    /// Every report of a command.
    pub updates: Vec<pb::CommandUpdate>,
    /// Every record, as often as it was sent.
    pub records: Vec<pb::Record>,
    inbound: Streaming<ConnectRequest>,
    outbound: Option<mpsc::Sender<ConnectResponse>>,
}

impl ServerSession {
    /// Says something under the session's epoch.
    pub async fn say(&self, frame: Down) {
        self.say_under(self.epoch, frame).await;
    }

    /// Says something under any epoch.
    pub async fn say_under(&self, epoch: i64, frame: Down) {
        if let Some(outbound) = &self.outbound {
            // The stream is over: then nobody hears it.
            let _ = outbound.send(ConnectResponse { epoch, frame: Some(frame) }).await;
        }
    }

    /// Opens the session.
    pub async fn welcome(&mut self, epoch: i64, lease_ms: i64, beat_ms: i64) {
        self.epoch = epoch;
        let welcome = pb::Welcome {
            protocol_version: PROTOCOL_VERSION,
            min_protocol_version: PROTOCOL_VERSION,
            epoch,
            lease_ttl: Some(duration_from_ms(lease_ms)),
            heartbeat_interval: Some(duration_from_ms(beat_ms)),
            time_zone: "UTC".into(),
            ..Default::default()
        };
        self.say(Down::Welcome(welcome)).await;
    }

    /// The next frame, with its clock noted.
    ///
    /// # Errors
    /// If the stream ends, or none comes.
    pub async fn hear(&mut self) -> anyhow::Result<Up> {
        let next = timeout(PATIENCE, self.inbound.message()).await.context("nothing is said")??;
        let frame = next.context("the stream ended")?;
        (self.boot_id, self.agent_ms) = (frame.boot_id, frame.monotonic_ms);
        frame.frame.context("an empty frame")
    }

    /// Hears one frame and answers it as an honest server does, if `ack` says so.
    ///
    /// # Errors
    /// If the stream ends.
    pub async fn step(&mut self) -> anyhow::Result<()> {
        match self.hear().await? {
            Up::Heartbeat(beat) => {
                self.say(Down::HeartbeatAck(pb::HeartbeatAck { sequence: beat.sequence })).await;
            }
            Up::CommandUpdate(update) => {
                if self.ack && is_end(update.state()) {
                    self.say(Down::CommandAck(pb::CommandAck {
                        command: update.command.clone(),
                        state: update.state,
                        ..Default::default()
                    }))
                    .await;
                }
                self.updates.push(update);
            }
            Up::Records(batch) => {
                let through = batch.records.last().map_or(0, |r| r.sequence);
                if self.ack {
                    self.say(Down::RecordsAck(pb::RecordsAck {
                        incarnation: batch.incarnation,
                        through_sequence: through,
                    }))
                    .await;
                }
                self.records.extend(batch.records);
            }
            Up::Hello(_) | Up::Status(_) | Up::Goodbye(_) => {}
        }
        Ok(())
    }

    /// Hears until this many ends of a command came; answers with the last.
    ///
    /// # Errors
    /// If they do not come.
    pub async fn ends(&mut self, command: &str, n: usize) -> anyhow::Result<pb::CommandUpdate> {
        let heard = async {
            loop {
                let ends =
                    self.updates.iter().filter(|u| u.command == command && is_end(u.state()));
                if let Some(end) = ends.take(n).collect::<Vec<_>>().get(n.saturating_sub(1)) {
                    return anyhow::Ok((*end).clone());
                }
                self.step().await?;
            }
        };
        timeout(PATIENCE, heard).await.with_context(|| format!("no end of {command}"))?
    }

    /// Hears until the command was begun.
    ///
    /// # Errors
    /// If it is not.
    pub async fn begun(&mut self, command: &str) -> anyhow::Result<()> {
        let begun =
            |u: &pb::CommandUpdate| u.command == command && u.state() == CommandState::Executing;
        while !self.updates.iter().any(begun) {
            self.step().await?;
        }
        Ok(())
    }

    /// Plays an honest server for a while; `false` if the agent ended the stream.
    pub async fn play(&mut self, time: Duration) -> bool {
        let all = async { while self.step().await.is_ok() {} };
        timeout(time, all).await.is_err()
    }

    /// Waits until the agent ends the stream, answering nothing.
    ///
    /// # Errors
    /// If it does not within this time.
    pub async fn ended(&mut self, within: Duration) -> anyhow::Result<()> {
        let all = async { while let Ok(Some(_)) = self.inbound.message().await {} };
        timeout(within, all).await.context("the agent stays")
    }

    /// A new command as an honest server sends it: it may start within 10 s.
    ///
    /// # Errors
    /// If the feeder is no slug.
    pub fn order(&self, feeder: &str, number: i64, action: Action) -> anyhow::Result<CommandOrder> {
        let feeder = feeder.parse()?;
        let command: CommandName = format!("{FARM}/commands/{}", request_id()).parse()?;
        Ok(CommandOrder {
            command,
            body_hash: action.body_hash(&feeder),
            feeder,
            number,
            boot_id: self.boot_id.clone(),
            start_before_ms: self.agent_ms + 10_000,
            author: "a test".into(),
            note: pasamanos_proto::model::note("")?,
            action,
        })
    }

    /// Sends a command.
    pub async fn send(&self, order: &CommandOrder) {
        self.say(Down::Command(order.clone().into())).await;
    }

    /// Ends the stream from the server's side.
    pub fn hang_up(&mut self) {
        self.outbound = None;
    }
}

/// Whether this is an end.
fn is_end(state: CommandState) -> bool {
    !matches!(
        state,
        CommandState::Unspecified
            | CommandState::Accepted
            | CommandState::Sent
            | CommandState::Executing
    )
}
