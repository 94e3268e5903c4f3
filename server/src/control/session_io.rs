//! The loop of an open session: frames in, frames out, lease, outbox, and what must last. What each of
//! them does is below.

mod frames;
mod lease;
mod orders;
mod outbound;
mod reports;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use pasamanos_faults::crash_point;
use pasamanos_proto::model::{AgentName, AuditAnchor, CommandName, Hello, Reason};
use pasamanos_proto::pb::{self, connect_response::Frame};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use self::orders::Open;
use super::Control;
use super::registry::ToSession;
use super::session::{SessionEnd, SessionError};
use crate::bus::Doorbell;
use crate::domain::ports::{
    Holder, Ingest, IngestError, Ingested, LeaseError, Renewal, SessionOpened,
};

/// A missed doorbell is found by a scan this often.
const SCAN: Duration = Duration::from_secs(2);
/// How long open commands may take when the server stops.
const DRAIN: Duration = Duration::from_secs(5);

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// A batch, and what became of it.
type Stored = (Vec<Ingest>, Result<Vec<Ingested>, IngestError>);

/// An open session.
pub(super) struct Session {
    control: Arc<Control>,
    agent: AgentName,
    holder: Holder,
    to_agent: mpsc::Sender<pb::ConnectResponse>,
    /// A place in the farm's audit chain that holds all that was acknowledged so far.
    anchor: AuditAnchor,
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
            anchor: AuditAnchor::default(),
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
        self.anchor = opened.anchor;
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

    /// Starts what is due and not in flight.
    fn start_work(&mut self) {
        self.start_renewal();
        self.start_storing();
    }

    async fn tick(&mut self) -> Result<(), SessionError> {
        self.scan_wanted = true;
        self.retry_storing = false;
        self.check_reader()?;
        if !self.control.registry.is_current(&self.agent, self.holder.epoch) {
            self.goodbye(Reason::SessionSuperseded);
            return Err(SessionError::Superseded);
        }
        self.doubt_late().await;
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
