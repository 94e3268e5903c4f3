//! The loop of an open session: frames in, frames out, lease, outbox, and what must last.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use pasamanos_proto::model::{
    AgentFrame, AgentFrameBody, AgentName, BodyHash, CommandName, CommandOrder, CommandReport,
    CommandState, Hello, Invalid, ObservedConfig, Reason, duration_from_ms, note,
};
use pasamanos_proto::pb::{self, PresenceState, connect_response::Frame};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::outcomes::Progress;
use super::registry::ToSession;
use super::session::{SessionEnd, SessionError};
use super::{Control, view};
use crate::bus::Doorbell;
use crate::crash::crash_point;
use crate::domain::command::outcome_grace_ms;
use crate::domain::ports::{
    Holder, Ingest, IngestError, Ingested, LeaseError, Renewal, SessionOpened, StoredCommand,
};

/// A missed doorbell is found by a scan this often.
const SCAN: Duration = Duration::from_secs(2);
/// Reports kept while the database is away; an agent has far fewer open commands.
const MAX_QUEUED: usize = 2_048;
/// Reports stored in one transaction.
const MAX_BATCH: usize = 64;
/// Frames that may wait for an agent's reading.
const MAX_OUTBOUND: usize = 20_000;
/// How long open commands may take when the server stops.
const DRAIN: Duration = Duration::from_secs(5);

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// A batch, and what became of it.
type Stored = (Vec<Ingest>, Result<Vec<Ingested>, IngestError>);

/// A command that was sent and has no outcome yet.
struct Open {
    body_hash: BodyHash,
    /// Later than this, in the agent's clock, it is in doubt.
    doubt_ms: i64,
}

/// An open session.
pub(super) struct Session {
    control: Arc<Control>,
    agent: AgentName,
    holder: Holder,
    to_agent: mpsc::Sender<pb::ConnectResponse>,
    cursor: i64,
    scan_wanted: bool,
    open: HashMap<CommandName, Open>,
    queue: VecDeque<Ingest>,
    storing: Option<Work<Stored>>,
    retry_storing: bool,
    renewing: Option<Work<Result<Renewal, LeaseError>>>,
    renew_wanted: bool,
    lease_held: bool,
    draining: bool,
    /// What must arrive and waits for the agent to read.
    outbound: VecDeque<pb::ConnectResponse>,
    /// Scans in a row that found it waiting.
    stuck: u32,
    /// One batch of records at a time: the agent sends it again until it is acknowledged.
    records_queued: bool,
}

impl Session {
    pub fn new(
        control: Arc<Control>,
        agent: AgentName,
        holder: Holder,
        to_agent: mpsc::Sender<pb::ConnectResponse>,
    ) -> Self {
        Self {
            control,
            agent,
            holder,
            to_agent,
            cursor: 0,
            scan_wanted: false,
            open: HashMap::new(),
            queue: VecDeque::new(),
            storing: None,
            retry_storing: false,
            renewing: None,
            renew_wanted: false,
            lease_held: false,
            draining: false,
            outbound: VecDeque::new(),
            stuck: 0,
            records_queued: false,
        }
    }

    pub async fn run<S, E>(
        mut self,
        welcome: pb::Welcome,
        opened: &SessionOpened,
        hello: &Hello,
        mut frames: S,
        mut words: mpsc::Receiver<ToSession>,
        mut doorbell: Doorbell,
    ) -> Result<SessionEnd, SessionError>
    where
        S: Stream<Item = Result<pb::ConnectRequest, E>> + Unpin + Send,
    {
        self.send(Frame::Welcome(welcome));
        self.acknowledge_hello(opened, hello);
        let mut ticks = interval(SCAN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stopping = self.control.stopping.clone();
        let to_agent = self.to_agent.clone();
        let drained = tokio::time::sleep(DRAIN);
        tokio::pin!(drained);
        loop {
            self.start_work();
            let idle = self.storing.is_none() && self.queue.is_empty() && self.outbound.is_empty();
            if self.draining && self.open.is_empty() && idle {
                return Ok(SessionEnd::Stopping);
            }
            tokio::select! {
                biased;
                word = words.recv() => match word {
                    Some(ToSession::Superseded) | None => {
                        self.goodbye(Reason::SessionSuperseded);
                        return Ok(SessionEnd::Superseded);
                    }
                    Some(ToSession::Resolved(command)) => self.acknowledge(&command),
                },
                renewed = work(&mut self.renewing) => {
                    if let Some(end) = self.renewed(renewed).await {
                        return Ok(end);
                    }
                }
                (batch, result) = work(&mut self.storing) => self.stored(batch, result)?,
                room = to_agent.reserve(), if !self.outbound.is_empty() => {
                    let Ok(room) = room else { return Ok(SessionEnd::Gone) };
                    if let Some(frame) = self.outbound.pop_front() {
                        room.send(frame);
                        crash_point!("server.frame.sent");
                    }
                    self.stuck = 0;
                }
                frame = frames.next() => {
                    let Some(Ok(frame)) = frame else { return Ok(SessionEnd::Gone) };
                    if let Some(end) = self.frame(frame).await? {
                        return Ok(end);
                    }
                }
                () = doorbell.rung(), if !self.draining => self.scan_wanted = true,
                _ = ticks.tick() => self.tick().await?,
                () = stopping.cancelled(), if !self.draining => {
                    self.draining = true;
                    drained.as_mut().reset(tokio::time::Instant::now() + DRAIN);
                    self.drain();
                }
                () = &mut drained, if self.draining => return Ok(SessionEnd::Stopping),
            }
            if self.scan_wanted && !self.draining {
                self.send_outbox().await?;
            }
        }
    }

    /// Starts what is due and not in flight: one renewal and one batch at a time.
    fn start_work(&mut self) {
        if self.renew_wanted && self.renewing.is_none() {
            self.renew_wanted = false;
            self.holder.counter += 1;
            let (control, agent, holder) =
                (self.control.clone(), self.agent.clone(), self.holder.clone());
            let held = self.lease_held;
            self.renewing =
                Some(Box::pin(async move { control.renew(&agent, &holder, held).await }));
        }
        if self.storing.is_none() && !self.queue.is_empty() && !self.retry_storing {
            let batch: Vec<_> = self.queue.drain(..self.queue.len().min(MAX_BATCH)).collect();
            let (control, agent, epoch) =
                (self.control.clone(), self.agent.clone(), self.holder.epoch);
            self.storing = Some(Box::pin(async move {
                crash_point!("server.outcome.before-commit");
                let now_ms = control.clock.wall_ms();
                let result = control.store.ingest(&agent, epoch, &batch, now_ms).await;
                (batch, result)
            }));
        }
    }

    async fn frame(
        &mut self,
        frame: pb::ConnectRequest,
    ) -> Result<Option<SessionEnd>, SessionError> {
        let frame = AgentFrame::try_from(frame)?;
        let now_ms = self.control.clock.monotonic_ms();
        let epoch = self.holder.epoch;
        if frame.epoch != epoch {
            self.goodbye(Reason::SessionSuperseded);
            return Err(SessionError::Superseded);
        }
        let heard = self.control.registry.frame(&self.agent, epoch, frame.monotonic_ms, now_ms);
        let Some(heard_ms) = heard else {
            self.goodbye(Reason::SessionSuperseded);
            return Ok(Some(SessionEnd::Superseded));
        };
        self.renew_wanted = true;
        match frame.body {
            AgentFrameBody::Hello(_) => {
                return Err(Invalid::field("frame", "Hello comes once, first").into());
            }
            AgentFrameBody::Heartbeat(beat) => {
                self.heartbeat(&beat, heard_ms);
                // A full channel drops this answer; the next beat brings another.
                let ack = pb::HeartbeatAck { sequence: beat.sequence };
                let _ = self.to_agent.try_send(self.response(Frame::HeartbeatAck(ack)));
            }
            AgentFrameBody::Status(report) => self.status(report, heard_ms)?,
            AgentFrameBody::Command(report) => self.command(*report)?,
            AgentFrameBody::Records(batch) => {
                if !self.records_queued {
                    self.records_queued = true;
                    self.keep(Ingest::Records(batch))?;
                }
            }
            AgentFrameBody::Goodbye(detail) => {
                tracing::info!(agent = %self.agent, detail, "the agent says goodbye");
                self.control.released(&self.agent, &self.holder).await;
                return Ok(Some(SessionEnd::Goodbye));
            }
        }
        Ok(None)
    }

    fn heartbeat(&self, beat: &pb::Heartbeat, heard_ms: i64) {
        if let Some(farm) = self.control.farms.loaded(&self.agent.farm) {
            farm.update(|s, _| {
                if let Some(a) = s.agents.get_mut(&self.agent.agent) {
                    a.value.heard_ms = Some(heard_ms);
                }
                s.put_freshness(&self.agent.agent, &beat.robots, heard_ms);
            });
        }
    }

    fn status(&mut self, mut report: pb::StatusReport, heard_ms: i64) -> Result<(), SessionError> {
        for feeder in &mut report.feeders {
            if let (Some(config), Ok(id)) = (feeder.config.take(), feeder.feeder.parse()) {
                self.keep(Ingest::Config(id, ObservedConfig::from(config)))?;
            }
        }
        if let Some(farm) = self.control.farms.loaded(&self.agent.farm) {
            farm.update(|s, _| s.put_report(&self.agent.agent, report, heard_ms));
        }
        Ok(())
    }

    fn command(&mut self, report: CommandReport) -> Result<(), SessionError> {
        if report.state.is_terminal() {
            return self.keep(Ingest::Outcome(Box::new(report)));
        }
        let known = self.open.get(&report.command).is_some_and(|o| o.body_hash == report.body_hash);
        if known && report.state == CommandState::Executing {
            self.progress(&report.command, CommandState::Executing);
        }
        Ok(())
    }

    /// SENT and EXECUTING: shown, never stored.
    fn progress(&self, name: &CommandName, state: CommandState) {
        let Some(farm) = self.control.farms.loaded(&self.agent.farm) else { return };
        let progress = farm.update(|s, _| {
            let known = s.commands.get(&name.request).map(|c| c.value.clone());
            let mut progress = known.filter(|p| !p.state.is_terminal() && p.state < state)?;
            progress.state = state;
            s.put_command(progress.clone());
            Some(progress)
        });
        if let Some(progress) = progress {
            self.control.outcomes.publish(&progress);
        }
    }

    fn keep(&mut self, item: Ingest) -> Result<(), SessionError> {
        if self.queue.len() >= MAX_QUEUED {
            return Err(SessionError::Unavailable);
        }
        self.queue.push_back(item);
        Ok(())
    }

    fn stored(
        &mut self,
        batch: Vec<Ingest>,
        result: Result<Vec<Ingested>, IngestError>,
    ) -> Result<(), SessionError> {
        let stored = match result {
            Ok(stored) => stored,
            Err(IngestError::Fenced) => {
                self.goodbye(Reason::SessionSuperseded);
                return Err(SessionError::Superseded);
            }
            Err(IngestError::Store(e)) => {
                tracing::warn!(agent = %self.agent, error = %e, "reports not stored: tried again");
                for item in batch.into_iter().rev() {
                    self.queue.push_front(item);
                }
                // The next tick tries again; nothing was acknowledged meanwhile.
                self.retry_storing = true;
                return Ok(());
            }
        };
        crash_point!("server.outcome.committed");
        for item in stored {
            self.tell(item);
        }
        Ok(())
    }

    /// Committed: acknowledge, show, and answer who waits.
    fn tell(&mut self, item: Ingested) {
        let farm = self.control.farms.loaded(&self.agent.farm);
        match item {
            Ingested::Outcome { command, feeder, changed: _ } => {
                self.open.remove(&command.name);
                let state = pb::CommandState::from(command.state).as_str_name();
                metrics::counter!("pasamanos_outcomes_total", "state" => state).increment(1);
                if let Some(farm) = &farm {
                    farm.update(|s, _| {
                        s.put_command(Progress::stored((*command).clone()));
                        s.put_feeder(*feeder);
                    });
                }
                self.control.outcomes.publish(&Progress::stored((*command).clone()));
                self.acknowledge(&command);
            }
            Ingested::Refused { command, why } => {
                tracing::error!(agent = %self.agent, %command, why, "alarm: a report was refused");
            }
            Ingested::Config(Some(feeder)) => {
                tracing::info!(agent = %self.agent, feeder = %feeder.id, "config changed at the farm");
                if let Some(farm) = &farm {
                    farm.update(|s, _| s.put_feeder(*feeder));
                }
            }
            Ingested::Config(None) => {}
            Ingested::Records { incarnation, through, doses } => {
                if let Some(farm) = &farm {
                    farm.update(|s, _| s.put_doses(doses));
                }
                self.records_queued = false;
                self.send(Frame::RecordsAck(pb::RecordsAck {
                    incarnation,
                    through_sequence: through,
                }));
            }
        }
    }

    /// Renews, or says why the session is over.
    async fn renewed(&mut self, renewed: Result<Renewal, LeaseError>) -> Option<SessionEnd> {
        match renewed {
            Ok(Renewal::Held) => {
                self.lease_held = true;
                crash_point!("server.lease.held");
                // An answer from before an outage must not hide it.
                if self.control.leases_reachable() {
                    self.control.set_presence(&self.agent, PresenceState::Online).await;
                }
                None
            }
            Ok(Renewal::Lost) => {
                // Flushed, evicted or expired: the next frame takes it again, if the database says
                // that this session is still the current one.
                self.lease_held = false;
                match self.control.store.current_epoch(&self.agent).await {
                    Ok(epoch) if epoch != self.holder.epoch => {
                        self.goodbye(Reason::SessionSuperseded);
                        Some(SessionEnd::Superseded)
                    }
                    _ => None,
                }
            }
            Ok(Renewal::Fenced) => {
                self.goodbye(Reason::SessionSuperseded);
                Some(SessionEnd::Superseded)
            }
            // The next frame tries again; presence is the sweep's to tell.
            Err(_) => None,
        }
    }

    async fn tick(&mut self) -> Result<(), SessionError> {
        self.scan_wanted = true;
        self.retry_storing = false;
        self.check_reader()?;
        if !self.control.registry.is_current(&self.agent, self.holder.epoch) {
            self.goodbye(Reason::SessionSuperseded);
            return Err(SessionError::Superseded);
        }
        let now = self.control.clock.monotonic_ms();
        let Some(seen) = self.control.registry.seen(&self.agent, now) else { return Ok(()) };
        let agent_ms = now.saturating_add(seen.offset_ms);
        let late: Vec<_> = self
            .open
            .iter()
            .filter(|(_, o)| agent_ms > o.doubt_ms)
            .map(|(n, _)| n.clone())
            .collect();
        if late.is_empty() {
            return Ok(());
        }
        let now_ms = self.control.clock.wall_ms();
        match self.control.store.doubt(&late, Reason::AgentLost, now_ms).await {
            Ok(doubted) => {
                for name in &late {
                    self.open.remove(name);
                }
                let farm = self.control.farms.loaded(&self.agent.farm);
                for command in doubted {
                    let progress = Progress::stored(command);
                    if let Some(farm) = &farm {
                        farm.update(|s, _| s.put_command(progress.clone()));
                    }
                    self.control.outcomes.publish(&progress);
                }
            }
            Err(e) => {
                tracing::warn!(agent = %self.agent, error = %e, "doubt not stored: tried again");
            }
        }
        Ok(())
    }

    /// Sends what is accepted and was not sent, in the order of acceptance.
    async fn send_outbox(&mut self) -> Result<(), SessionError> {
        if !self.outbound.is_empty() {
            // Welcome and acknowledgements go first; the next turn comes back.
            return Ok(());
        }
        self.scan_wanted = false;
        let (agent, epoch) = (&self.agent, self.holder.epoch);
        let outbox = match self.control.store.outbox(agent, epoch, self.cursor).await {
            Ok(outbox) => outbox,
            Err(e) => {
                tracing::warn!(%agent, error = %e, "outbox not read: tried again");
                return Ok(());
            }
        };
        for command in outbox {
            let order = order(&command)?;
            let body_hash = order.body_hash;
            let limits = self
                .control
                .farms
                .loaded(&self.agent.farm)
                .and_then(|f| f.feeder(&command.feeder))
                .map(|f| f.stored.limits)
                .unwrap_or_default();
            let doubt_ms = command.start_before.1 + outcome_grace_ms(&command.action, &limits);
            // Known before it is sent: an agent that does not read must not keep it open for ever.
            self.open.insert(command.name.clone(), Open { body_hash, doubt_ms });
            if self.to_agent.try_send(self.response(Frame::Command(order.into()))).is_err() {
                // Full: the agent does not read now. The scan comes back to it.
                return Ok(());
            }
            crash_point!("server.command.sent");
            self.cursor = command.order;
            self.progress(&command.name, CommandState::Sent);
        }
        Ok(())
    }

    /// Everything that the hello listed and the database knows, and persons' settlements.
    fn acknowledge_hello(&mut self, opened: &SessionOpened, hello: &Hello) {
        let listed: HashSet<_> =
            hello.commands.iter().filter(|r| r.state.is_terminal()).map(|r| &r.command).collect();
        for command in opened.settled.iter().filter(|c| listed.contains(&c.name)) {
            self.acknowledge(command);
        }
        for command in &opened.resolved {
            self.acknowledge(command);
        }
        // Listed and already settled as listed: re-reported, so that the acknowledgement is repeated.
        let settled: HashSet<_> = opened.settled.iter().map(|c| &c.name).collect();
        for report in &hello.commands {
            if report.state.is_terminal() && !settled.contains(&report.command) {
                self.queue.push_back(Ingest::Outcome(Box::new(report.clone())));
            }
        }
    }

    fn acknowledge(&mut self, command: &StoredCommand) {
        self.send(Frame::CommandAck(pb::CommandAck {
            command: command.name.to_string(),
            state: pb::CommandState::from(command.state).into(),
            resolution: command.resolution.as_ref().map(view::resolution),
        }));
    }

    /// The server stops: no more commands; the agent comes back in its own jittered time.
    fn drain(&mut self) {
        let wave_ms = i64::from(fastrand::u16(200..2_000));
        let reconnect_after = Some(duration_from_ms(wave_ms));
        self.send(Frame::Drain(pb::Drain { reconnect_after }));
    }

    fn goodbye(&self, reason: Reason) {
        let goodbye = pb::Goodbye {
            reason: reason.name().into(),
            reason_metadata: BTreeMap::new(),
            retry_after: None,
        };
        // A full channel: the end of the stream says it too.
        let _ = self.to_agent.try_send(self.response(Frame::Goodbye(goodbye)));
    }

    fn response(&self, frame: Frame) -> pb::ConnectResponse {
        pb::ConnectResponse { epoch: self.holder.epoch, frame: Some(frame) }
    }

    /// Sends what must arrive, in order, as the agent reads.
    fn send(&mut self, frame: Frame) {
        let response = self.response(frame);
        self.outbound.push_back(response);
    }

    /// An agent that reads nothing for 10 s, or lets too much pile up, is cut.
    fn check_reader(&mut self) -> Result<(), SessionError> {
        self.stuck = if self.outbound.is_empty() { 0 } else { self.stuck + 1 };
        if self.stuck > 5 || self.outbound.len() > MAX_OUTBOUND {
            return Err(SessionError::SlowReader);
        }
        Ok(())
    }
}

/// Waits for work in flight; for ever if there is none.
async fn work<T>(slot: &mut Option<Work<T>>) -> T {
    match slot {
        Some(running) => {
            let done = running.await;
            *slot = None;
            done
        }
        None => std::future::pending().await,
    }
}

fn order(c: &StoredCommand) -> Result<CommandOrder, Invalid> {
    Ok(CommandOrder {
        command: c.name.clone(),
        feeder: c.feeder.clone(),
        number: c.number,
        body_hash: c.action.body_hash(&c.feeder),
        boot_id: c.start_before.0.clone(),
        start_before_ms: c.start_before.1,
        author: c.author.clone(),
        note: note(&c.note)?,
        action: c.action.clone(),
    })
}

impl Control {
    /// Extends the lease to the lease time after the last frame that counts as heard.
    async fn renew(
        &self,
        agent: &AgentName,
        holder: &Holder,
        held: bool,
    ) -> Result<Renewal, LeaseError> {
        let now = self.clock.monotonic_ms();
        let age = self.registry.seen(agent, now).map_or(self.timing.lease_ttl, |s| s.age);
        let left = self.timing.lease_ttl.saturating_sub(age);
        if left.is_zero() {
            // Only old frames came: they extend nothing.
            return Ok(Renewal::Lost);
        }
        let renewed =
            if held { self.leases.renew(agent, holder, left).await? } else { Renewal::Lost };
        match renewed {
            Renewal::Lost if self.registry.is_current(agent, holder.epoch) => {
                if self.store.current_epoch(agent).await.is_ok_and(|epoch| epoch == holder.epoch) {
                    return self.leases.acquire(agent, holder, left).await;
                }
                Ok(Renewal::Lost)
            }
            renewed => Ok(renewed),
        }
    }
}
