//! One agent's session, from hello to end. One task owns it: it reads frames, renews the lease,
//! sends commands from the outbox, and stores what the agent reports, in the agent's order.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use pasamanos_faults::crash_point;
use pasamanos_proto::PROTOCOL_VERSION;
use pasamanos_proto::model::{
    AgentFrame, AgentFrameBody, AgentName, Hello, Invalid, Reason, duration_from_ms,
    timestamp_from_ms,
};
use pasamanos_proto::pb::{self, PresenceState, connect_response::Frame};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::outcomes::Progress;
use super::registry::{Opening, ToSession};
use super::session_io::Session;
use super::{Control, short_id};
use crate::domain::liveness::Heard;
use crate::domain::ports::{
    Holder, OpenError, OpenSession, SessionOpened, StoreError, StoredCommand,
};

/// The hello must come within this.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// An end that could not be stored is tried again this often.
const CLOSE_AGAIN: Duration = Duration::from_secs(2);

/// How a session ended, for the stream and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The agent said goodbye: its lease was released.
    Goodbye,
    /// The stream ended or broke: its lease runs out.
    Gone,
    /// A newer session was opened.
    Superseded,
    /// The server told the agent to go (the frame said why).
    Dismissed,
    /// The server stops.
    Stopping,
}

/// What the agent did wrong; ends the stream with a status.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No hello in time.
    #[error("the hello did not come within 5 s")]
    NoHello,
    /// A frame that is not one, or out of place.
    #[error("{0}")]
    Protocol(#[from] Invalid),
    /// A frame of another epoch.
    #[error("the frame is of another session")]
    Superseded,
    /// The agent does not read its stream.
    #[error("the agent does not read its stream")]
    SlowReader,
    /// A fault of ours; it is in the log.
    #[error("something went wrong on our side")]
    Panicked,
    /// More reports than can be kept while the database is away.
    #[error("the database cannot be asked")]
    Unavailable,
}

impl Control {
    /// Runs a session over a stream of frames. Returns when it ended and its end is stored.
    pub async fn run_session<S, E>(
        self: Arc<Self>,
        frames: S,
        to_agent: mpsc::Sender<pb::ConnectResponse>,
    ) -> Result<SessionEnd, SessionError>
    where
        S: Stream<Item = Result<pb::ConnectRequest, E>> + Unpin + Send,
    {
        let mut frames = frames;
        let first = match timeout(HELLO_PATIENCE, frames.next()).await {
            Err(_) => return Err(SessionError::NoHello),
            Ok(None | Some(Err(_))) => return Ok(SessionEnd::Gone),
            Ok(Some(Ok(frame))) => AgentFrame::try_from(frame)?,
        };
        let AgentFrameBody::Hello(hello) = first.body else {
            return Err(Invalid::field("frame", "the first frame must be Hello").into());
        };
        let received_ms = self.clock.monotonic_ms();
        let agent = hello.agent.clone();
        if hello.protocol_version < PROTOCOL_VERSION {
            dismiss(&to_agent, Reason::ProtocolTooOld, &agent).await;
            self.problem(&agent, Reason::ProtocolTooOld).await;
            return Ok(SessionEnd::Dismissed);
        }

        let Some(opened) = self.open(&hello, &to_agent).await? else {
            return Ok(SessionEnd::Dismissed);
        };
        for alarm in &opened.alarms {
            tracing::warn!(%agent, epoch = opened.epoch, alarm, "alarm");
        }
        let heard = Heard::new(first.boot_id, first.monotonic_ms, received_ms);
        let holder = Holder {
            epoch: opened.epoch,
            session: short_id(),
            replica: self.replica.clone(),
            counter: 0,
        };
        let (to_session, words) = mpsc::channel::<ToSession>(16);
        let doorbell = self.bus.subscribe(&agent);
        let opening = self.registry.open(&agent, holder.clone(), heard, to_session, received_ms);
        match opening {
            Opening::Current => {}
            Opening::Duplicate => {
                tracing::error!(%agent, "alarm: DUPLICATE_AGENT: two machines use one identity");
                self.problem(&agent, Reason::DuplicateAgent).await;
            }
            Opening::Superseded => {
                dismiss(&to_agent, Reason::SessionSuperseded, &agent).await;
                return Ok(SessionEnd::Superseded);
            }
        }
        tracing::info!(%agent, epoch = opened.epoch, version = hello.agent_version, "session opened");

        metrics::gauge!("pasamanos_sessions").increment(1.0);
        let welcome = self.welcome(&opened);
        let session = Session::new(self.clone(), agent.clone(), holder, to_agent);
        let run = session.run(welcome, &opened, &hello, frames, words, doorbell);
        // Whatever happens in it, the session's end is recorded.
        let end = AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(%agent, epoch = opened.epoch, "the session panicked");
            Err(SessionError::Panicked)
        });
        metrics::gauge!("pasamanos_sessions").decrement(1.0);
        self.end(&agent, opened.epoch).await;
        match &end {
            Ok(end) => tracing::info!(%agent, epoch = opened.epoch, ?end, "session ended"),
            Err(e) => tracing::warn!(%agent, epoch = opened.epoch, error = %e, "session ended"),
        }
        end
    }

    /// Opens the session in the database; `None` if the agent was sent away.
    async fn open(
        &self,
        hello: &Hello,
        to_agent: &mpsc::Sender<pb::ConnectResponse>,
    ) -> Result<Option<SessionOpened>, SessionError> {
        let now_ms = self.clock.wall_ms();
        let request = OpenSession { hello: hello.clone(), now_ms };
        let opened = match self.store.open_session(request).await {
            Ok(opened) => opened,
            Err(OpenError::UnknownAgent) => {
                tracing::warn!(agent = %hello.agent, "an unknown agent called: pasamanos-server agent add {}", hello.agent);
                dismiss(to_agent, Reason::UnknownAgent, &hello.agent).await;
                return Ok(None);
            }
            Err(OpenError::EpochJump) => {
                tracing::error!(agent = %hello.agent, epoch = hello.journal.last_epoch, "alarm: the journal's epoch is implausible");
                return Err(Invalid::field("hello.journal.last_epoch", "is implausible").into());
            }
            Err(OpenError::Store(StoreError::Broken(cause))) => {
                tracing::error!(agent = %hello.agent, cause = format!("{cause:#}"), "session not opened");
                return Err(SessionError::Unavailable);
            }
            Err(OpenError::Store(_)) => return Err(SessionError::Unavailable),
        };
        crash_point!("server.session.opened");
        match self.farms.reload(&hello.agent.farm).await {
            Ok(farm) => {
                farm.update(|s, now| {
                    s.forget_live(&hello.agent.agent);
                    for command in &opened.settled {
                        s.put_command(Progress::stored(command.clone()));
                    }
                    if let Some(a) = s.agents.get_mut(&hello.agent.agent) {
                        a.value.problem.clear();
                        a.value.heard_ms = Some(now.ms);
                    }
                });
            }
            Err(e) => {
                // What is live would be older than the session: better none.
                tracing::warn!(agent = %hello.agent, error = %e, "farm not reloaded");
                return Err(SessionError::Unavailable);
            }
        }
        for command in &opened.settled {
            self.outcomes.publish(&Progress::stored(command.clone()));
        }
        Ok(Some(opened))
    }

    fn welcome(&self, opened: &SessionOpened) -> pb::Welcome {
        let duration = |d: Duration| duration_from_ms(i64::try_from(d.as_millis()).unwrap_or(0));
        pb::Welcome {
            protocol_version: PROTOCOL_VERSION,
            min_protocol_version: PROTOCOL_VERSION,
            capabilities: Vec::new(),
            epoch: opened.epoch,
            lease_ttl: Some(duration(self.timing.lease_ttl)),
            heartbeat_interval: Some(duration(self.timing.heartbeat_interval)),
            server_time: Some(timestamp_from_ms(self.clock.wall_ms())),
            records_through: opened.records_through,
            time_zone: opened.time_zone.clone(),
            anchor: Some(opened.anchor.into()),
            tell_again: opened.tell_again,
        }
    }

    /// The stream is over: what it left open is in doubt now, and what it committed last is shown.
    async fn end(self: &Arc<Self>, agent: &AgentName, epoch: i64) {
        self.registry.close(agent, epoch);
        if !self.close_session(agent, epoch).await {
            // The database is away: tried again until it answers, or a newer session settles it.
            let (this, agent) = (self.clone(), agent.clone());
            self.tasks.spawn(async move {
                loop {
                    tokio::select! {
                        () = this.stopping.cancelled() => return,
                        () = tokio::time::sleep(CLOSE_AGAIN) => {}
                    }
                    if this.close_session(&agent, epoch).await {
                        return;
                    }
                }
            });
        }
    }

    /// Whether its end is stored, and what it stored last is shown: a commit that was under way when the
    /// stream broke was told by nobody.
    async fn close_session(&self, agent: &AgentName, epoch: i64) -> bool {
        let closed = self.store.close_session(agent, epoch, self.clock.wall_ms()).await;
        if let Err(e) = closed {
            tracing::warn!(%agent, epoch, error = %e, "its open commands are not settled yet");
            return false;
        }
        let Some(farm) = self.farms.loaded(&agent.farm) else { return true };
        let open = farm.unsettled(|of| *of == agent.agent);
        if let Err(e) = self.farms.reload(&agent.farm).await {
            tracing::warn!(%agent, epoch, error = %e, "what it stored last is not shown yet");
            return false;
        }
        for name in open {
            let ended = farm.read(|s, _| s.commands.get(&name.request).map(|c| c.value.clone()));
            if let Some(progress) = ended.filter(|p| p.state.is_terminal()) {
                self.outcomes.publish(&progress);
            }
        }
        true
    }

    /// A command was accepted for a session that ended meanwhile: nobody sends it any more.
    pub(super) async fn doubt_orphans(&self, farm: &super::Farm, commands: &[StoredCommand]) {
        let names: Vec<_> = commands.iter().map(|c| c.name.clone()).collect();
        match self.store.doubt(&names, Reason::AgentLost, self.clock.wall_ms()).await {
            Ok(doubted) => {
                for command in doubted {
                    let progress = Progress::stored(command);
                    farm.update(|s, _| s.put_command(progress.clone()));
                    self.outcomes.publish(&progress);
                }
            }
            Err(e) => tracing::warn!(error = %e, "orphans are settled at the next hello"),
        }
    }

    async fn problem(&self, agent: &AgentName, reason: Reason) {
        if let Ok(farm) = self.farms.get(&agent.farm).await {
            farm.update(|s, _| {
                let changed = s.stamp();
                if let Some(a) = s.agents.get_mut(&agent.agent) {
                    a.changed = changed;
                    a.value.problem = reason.name().into();
                }
            });
        }
    }

    /// Goodbye of the agent: offline at once.
    pub(super) async fn released(&self, agent: &AgentName, holder: &Holder) {
        if let Err(e) = self.leases.release(agent, holder).await {
            tracing::warn!(%agent, error = %e, "lease not released: it runs out");
            return;
        }
        self.set_presence(agent, PresenceState::Offline).await;
    }
}

/// Sends the agent away before it has a session.
async fn dismiss(to_agent: &mpsc::Sender<pb::ConnectResponse>, reason: Reason, agent: &AgentName) {
    let goodbye = pb::Goodbye {
        reason: reason.name().into(),
        reason_metadata: [("agent".to_owned(), agent.to_string())].into(),
        retry_after: None,
    };
    let frame = pb::ConnectResponse { epoch: 0, frame: Some(Frame::Goodbye(goodbye)) };
    // Nobody reads: then nobody needs to know.
    let _ = to_agent.send(frame).await;
}
