//! An open session.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pasamanos_faults::crash_point;
use pasamanos_proto::model::{
    ActionKind, BodyHash, CommandName, CommandOrder, CommandReport, CommandState, FeederId,
    Invalid, Reason, RobotId, duration_from_ms, duration_ms,
};
use pasamanos_proto::pb::{self, LinkState, connect_request, connect_response};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep, timeout};
use tokio_stream::StreamExt as _;

use super::records::Shipping;
use super::{End, Shared, Terms, stamp};
use crate::status::{Reported, Reports, reports, reports_of};
use crate::transport::Inbound;

/// Changes are gathered for this long before they are told.
const GATHER: Duration = Duration::from_millis(200);
/// An outcome that was not acknowledged is told again after this.
const AGAIN: Duration = Duration::from_secs(5);
/// A session that leaves waits this long for acknowledgements, and then for the server's end.
const FAREWELL: Duration = Duration::from_secs(2);

/// An open session.
pub(super) struct Running<'a> {
    shared: &'a Shared,
    outbound: mpsc::Sender<pb::ConnectRequest>,
    terms: Terms,
    beat_due: bool,
    beats: i64,
    lived: bool,
    reported: Reported,
    status_due: Option<Instant>,
    shipping: Shipping,
    /// An outcome that follows the status that it changed.
    ending: Option<CommandReport>,
    /// Outcomes that were sent and not acknowledged.
    awaited: BTreeMap<CommandName, (CommandReport, Instant)>,
    /// The feeders of commands that came in this session and were not acknowledged.
    received: BTreeMap<CommandName, (FeederId, ActionKind)>,
    /// Robots that could not be read for the hello: nothing about them is settled.
    unreadable: BTreeSet<RobotId>,
    /// The server may lack what it acknowledged: the next hello tells it.
    tell_again: bool,
    opened: Instant,
    /// The server moves this agent at that time.
    drained: Option<Instant>,
    /// The agent leaves, at the latest at that time.
    leaving: Option<Instant>,
}

impl<'a> Running<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        outbound: mpsc::Sender<pb::ConnectRequest>,
        terms: Terms,
        welcome: &pb::Welcome,
        reported: Reported,
        unreadable: BTreeSet<RobotId>,
    ) -> Self {
        Self {
            shared,
            outbound,
            terms,
            beat_due: true,
            beats: 0,
            lived: false,
            reported,
            status_due: Some(Instant::now()),
            shipping: Shipping::new(welcome.records_through),
            ending: None,
            awaited: BTreeMap::new(),
            received: BTreeMap::new(),
            unreadable,
            tell_again: welcome.tell_again,
            opened: Instant::now(),
            drained: None,
            leaving: None,
        }
    }

    /// Whether a heartbeat was acknowledged.
    pub(super) fn lived(&self) -> bool {
        self.lived
    }

    /// Until it ends.
    pub(super) async fn run(&mut self, mut inbound: Inbound) -> End {
        let shared = self.shared;
        let (context, farm) = (&shared.context, &shared.farm);
        // The first heartbeat goes at once: it opens the lease.
        let mut beat = interval_at(Instant::now() + self.terms.interval, self.terms.interval);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut high_water = context.journal.high_water();
        self.shipping.acknowledged(&context.journal).await;
        loop {
            // First of all, and before anything that arrived is looked at: after a sleep of the farm
            // PC the buffers are full of the past.
            if context.gate.stale() {
                return End::Lost("the server was silent for the lease time".into());
            }
            let now = Instant::now();
            if self.drained.is_some_and(|at| now >= at) && self.settled_or_late(now) {
                return End::Drained(Duration::ZERO);
            }
            if self.leaving.is_some_and(|at| now >= at) || (self.leaving.is_some() && self.quiet())
            {
                return self.leave(inbound).await;
            }
            let high = *high_water.borrow_and_update();
            let full = self.outbound.clone();
            tokio::select! {
                frame = inbound.next() => match frame {
                    Some(Ok(frame)) => {
                        if context.gate.stale() {
                            return End::Lost("the server was silent for the lease time".into());
                        }
                        context.gate.heard();
                        if let Some(end) = self.receive(frame).await {
                            return end;
                        }
                    }
                    Some(Err(status)) => return self.broken(status.to_string()),
                    None => return self.broken("the server ended the stream".into()),
                },
                permit = full.reserve(), if self.has_something(high, now) => match permit {
                    Ok(permit) => match self.next_frame(high).await {
                        Ok(Some(frame)) => permit.send(stamp(context, self.terms.epoch, frame)),
                        Ok(None) => {}
                        Err(e) => return End::Journal(e),
                    },
                    Err(_) => return self.broken("the stream is closed".into()),
                },
                _ = beat.tick() => self.beat_due = true,
                () = context.outbox.wait(), if context.outbox.is_empty() => {}
                () = farm.changed.notified() => {
                    self.status_due.get_or_insert(now + GATHER);
                }
                Ok(()) = high_water.changed() => {}
                _ = second.tick() => self.every_second(),
                () = sleep_until(self.status_due), if self.status_due.is_some_and(|at| at > now) => {}
                () = shared.leave.cancelled(), if self.leaving.is_none() => {
                    self.leaving = Some(now + FAREWELL);
                }
            }
        }
    }

    /// What the stream's end means.
    fn broken(&self, why: String) -> End {
        match self.drained {
            Some(at) => End::Drained(at.saturating_duration_since(Instant::now())),
            None => End::Lost(why),
        }
    }

    fn quiet(&self) -> bool {
        self.ending.is_none() && self.shared.context.outbox.is_empty() && self.awaited.is_empty()
    }

    /// Whether a session that is moved has told all, or has had its time to.
    fn settled_or_late(&self, now: Instant) -> bool {
        self.quiet() || self.drained.is_some_and(|at| now >= at + AGAIN)
    }

    fn has_something(&self, high: i64, now: Instant) -> bool {
        self.beat_due
            || self.ending.is_some()
            || !self.shared.context.outbox.is_empty()
            || self.shipping.due(high)
            || self.status_due.is_some_and(|at| now >= at)
    }

    /// The most urgent frame: that the agent lives, then outcomes (a status must not run ahead of
    /// the config that an outcome tells), then records, then status.
    async fn next_frame(
        &mut self,
        high: i64,
    ) -> Result<Option<connect_request::Frame>, crate::journal::JournalError> {
        use connect_request::Frame;
        let context = &self.shared.context;
        if std::mem::take(&mut self.beat_due) {
            self.beats += 1;
            return Ok(Some(Frame::Heartbeat(self.heartbeat())));
        }
        let told_of = self.ending.take();
        let before_it = told_of.is_none();
        if let Some(report) = told_of.or_else(|| context.outbox.pop()) {
            if report.state.is_terminal() {
                if before_it && let Some(status) = self.status_before_outcome(&report.command).await
                {
                    self.ending = Some(report);
                    return Ok(Some(Frame::Status(status)));
                }
                // One in doubt tells what the feeder runs, of itself and of those that it kept out.
                let in_doubt = report.reason == Reason::ConfigInFlight;
                if let Some((feeder, kind)) = self.subject_of(&report.command).await
                    && (report.config.is_some() || kind == ActionKind::UpdateConfig)
                    && !in_doubt
                {
                    self.reported.outcome(&feeder, report.config.as_ref());
                }
                crash_point!("agent.outcome.reported");
                self.awaited.insert(report.command.clone(), (report.clone(), Instant::now()));
            }
            return Ok(Some(Frame::CommandUpdate(report.into())));
        }
        if self.shipping.due(high) {
            return Ok(self.shipping.next(&context.journal).await?.map(Frame::Records));
        }
        self.status_due = None;
        let now = reports(&self.shared.farm).await;
        Ok(self.reported.diff(now, context.clock.monotonic_ms()).map(Frame::Status))
    }

    /// What an end changed, told before it: whoever learns that a feeder is free again may use it. Without
    /// configs, which outcomes tell.
    async fn status_before_outcome(&mut self, name: &CommandName) -> Option<pb::StatusReport> {
        if !self.reported.began() {
            return None;
        }
        let (feeder, _) = self.subject_of(name).await?;
        // Of its robot alone: a farm has hundreds of feeders and an outcome waits for this.
        let cell = self.shared.farm.robot_of(&feeder)?;
        let now = Reports { configs: BTreeMap::new(), ..reports_of(cell).await };
        self.reported.diff(now, self.shared.context.clock.monotonic_ms())
    }

    /// The feeder of a command and what it does, which an outcome does not name.
    async fn subject_of(&self, command: &CommandName) -> Option<(FeederId, ActionKind)> {
        if let Some(subject) = self.received.get(command) {
            return Some(subject.clone());
        }
        let entry = self.shared.context.journal.lookup(command).await.ok()??;
        Some((entry.order.feeder, entry.order.action.kind()))
    }

    fn heartbeat(&self) -> pb::Heartbeat {
        let now = self.shared.context.clock.monotonic_ms();
        let robots = self.shared.farm.robots.values().map(|cell| {
            let view = cell.view();
            pb::RobotFreshness {
                robot: cell.id.to_string(),
                last_good_read_age: view.age_ms(now).map(duration_from_ms),
                link: view.link.into(),
            }
        });
        pb::Heartbeat { sequence: self.beats, robots: robots.collect() }
    }

    fn every_second(&mut self) {
        let now = Instant::now();
        for (report, sent) in self.awaited.values_mut() {
            if now.duration_since(*sent) >= AGAIN {
                *sent = now;
                self.shared.context.outbox.push_again(report.clone());
            }
        }
        self.shipping.again();
        self.introduce_again(now);
        // Readings are told once a minute even if they did not move.
        self.status_due.get_or_insert(now);
    }

    /// Only a hello settles what is in doubt of a robot. One that could not be read then and can be
    /// now is worth another, and so is what a database that was put back lost; the lease goes on
    /// meanwhile.
    fn introduce_again(&mut self, now: Instant) {
        let settled = now.duration_since(self.opened) >= AGAIN && self.drained.is_none();
        let robots = &self.shared.farm.robots;
        let up = |id: &RobotId| robots.get(id).is_some_and(|c| c.view().link == LinkState::Up);
        if settled && (self.tell_again || self.unreadable.iter().any(up)) {
            tracing::info!(self.tell_again, "introducing the farm anew");
            self.drained = Some(now);
        }
    }

    /// Acts on a frame; answers with the session's end if it is one.
    async fn receive(&mut self, response: pb::ConnectResponse) -> Option<End> {
        use connect_response::Frame;
        let context = &self.shared.context;
        if let Some(Frame::Goodbye(goodbye)) = &response.frame {
            return Some(End::goodbye(goodbye));
        }
        if response.epoch != self.terms.epoch {
            return Some(End::Lost(format!("a frame of epoch {}", response.epoch)));
        }
        match response.frame? {
            Frame::HeartbeatAck(_) => self.lived = true,
            Frame::Command(frame) => match CommandOrder::try_from(frame.clone()) {
                Ok(order) => {
                    let subject = (order.feeder.clone(), order.action.kind());
                    self.received.insert(order.command.clone(), subject);
                    self.shared.executor.receive(order, self.terms.epoch).await;
                }
                Err(e) => {
                    tracing::error!(command = frame.command, error = %e, "a command cannot be read");
                    self.unreadable(&frame, &e);
                }
            },
            Frame::CommandAck(ack) => {
                if let Err(e) = self.command_ack(ack).await {
                    tracing::error!(error = %e, "an acknowledgement cannot be read");
                }
            }
            Frame::RecordsAck(ack) => {
                if ack.incarnation == context.journal.incarnation() {
                    self.shipping.ack(ack.through_sequence);
                    self.shipping.acknowledged(&context.journal).await;
                    crash_point!("agent.records.acked");
                }
            }
            Frame::Drain(drain) => {
                let after = duration_ms(drain.reconnect_after.as_ref()).unwrap_or(0).max(0);
                let after = Duration::from_millis(after.unsigned_abs()).min(Duration::from_mins(1));
                tracing::info!(after_ms = after.as_millis(), "the server moves this agent");
                self.drained = Some(Instant::now() + after);
            }
            Frame::Welcome(_) => return Some(End::Lost("a second welcome".into())),
            Frame::Goodbye(_) => {}
        }
        None
    }

    /// Nothing was done and nothing will be, which needs no journal to be true.
    fn unreadable(&self, frame: &pb::CommandFrame, why: &Invalid) {
        let (name, hash) = (frame.command.parse(), BodyHash::try_from(&frame.body_hash[..]));
        if let (Ok(command), Ok(body_hash)) = (name, hash) {
            self.shared.context.outbox.push(CommandReport {
                command,
                state: CommandState::Rejected,
                body_hash,
                reason: Reason::InvalidField,
                metadata: BTreeMap::new(),
                detail: why.to_string().chars().take(200).collect(),
                dispensed: None,
                config: None,
                memory_lost: false,
                journaled_epoch: self.terms.epoch,
            });
        }
    }

    async fn command_ack(&mut self, ack: pb::CommandAck) -> Result<(), Invalid> {
        crash_point!("agent.ack.received");
        let state = CommandState::try_from(ack.state())?;
        let anchor = super::anchor(ack.anchor);
        let name: CommandName = ack.command.parse()?;
        if let Some(resolution) = ack.resolution {
            self.shared.executor.resolve(&name, resolution).await;
        }
        if state.is_terminal() {
            // Of the doubt, not of what settled it meanwhile.
            let stale = state == CommandState::Uncertain
                && self.awaited.get(&name).is_some_and(|(r, _)| r.state != state);
            if !stale {
                self.awaited.remove(&name);
                self.received.remove(&name);
            }
            self.shared.context.journal.acked(name, state, anchor).await;
        }
        Ok(())
    }

    /// Says goodbye, which releases the lease, and waits a little for the server to take it.
    async fn leave(&mut self, mut inbound: Inbound) -> End {
        let frame = connect_request::Frame::Goodbye(pb::AgentGoodbye { detail: "stopping".into() });
        let frame = stamp(&self.shared.context, self.terms.epoch, frame);
        let (gone, _) = mpsc::channel(1);
        let outbound = std::mem::replace(&mut self.outbound, gone);
        let farewell = async {
            if outbound.send(frame).await.is_ok() {
                drop(outbound);
                while let Some(Ok(_)) = inbound.next().await {}
            }
        };
        let _late = timeout(FAREWELL, farewell).await;
        End::Left
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => sleep(Duration::from_hours(1)).await,
    }
}
