//! What is said to the agent beside commands: acknowledgements, drain, goodbye. What must arrive waits
//! for it to read, within bounds.

use std::collections::{BTreeMap, HashSet};

use pasamanos_proto::model::{CommandState, Hello, Reason, duration_from_ms};
use pasamanos_proto::pb::{self, connect_response::Frame};

use super::super::session::SessionError;
use super::super::view;
use super::Session;
use crate::domain::ports::{Ingest, SessionOpened, StoredCommand};

/// Frames that may wait for an agent's reading.
const MAX_OUTBOUND: usize = 20_000;

impl Session {
    /// Everything that the hello listed and the database knows, and persons' settlements.
    pub(super) fn acknowledge_hello(&mut self, opened: &SessionOpened, hello: &Hello) {
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

    /// A doubt of the server's own stands for no outcome of the agent's: told as terminal, it would let
    /// the agent forget one that never arrived.
    pub(super) fn acknowledge(&mut self, command: &StoredCommand) {
        let state = if command.doubt_by_server { CommandState::Accepted } else { command.state };
        self.send(Frame::CommandAck(pb::CommandAck {
            command: command.name.to_string(),
            state: pb::CommandState::from(state).into(),
            resolution: command.resolution.as_ref().map(view::resolution),
            anchor: Some(self.anchor.into()),
        }));
    }

    /// The server stops: no more commands; the agent comes back in its own jittered time.
    pub(super) fn drain(&mut self) {
        let wave_ms = i64::from(fastrand::u16(200..2_000));
        let reconnect_after = Some(duration_from_ms(wave_ms));
        self.send(Frame::Drain(pb::Drain { reconnect_after }));
    }

    pub(super) fn goodbye(&self, reason: Reason) {
        let goodbye = pb::Goodbye {
            reason: reason.name().into(),
            reason_metadata: BTreeMap::new(),
            retry_after: None,
        };
        // A full channel: the end of the stream says it too.
        let _ = self.to_agent.try_send(self.response(Frame::Goodbye(goodbye)));
    }

    pub(super) fn response(&self, frame: Frame) -> pb::ConnectResponse {
        pb::ConnectResponse { epoch: self.holder.epoch, frame: Some(frame) }
    }

    /// Sends what must arrive, in order, as the agent reads.
    pub(super) fn send(&mut self, frame: Frame) {
        let response = self.response(frame);
        self.outbound.push_back(response);
    }

    /// An agent that reads nothing for 10 s, or lets too much pile up, is cut.
    pub(super) fn check_reader(&mut self) -> Result<(), SessionError> {
        self.stuck = if self.outbound.is_empty() { 0 } else { self.stuck + 1 };
        if self.stuck > 5 || self.outbound.len() > MAX_OUTBOUND {
            return Err(SessionError::SlowReader);
        }
        Ok(())
    }
}
