//! Frames from the agent: what each means, and when it counts as heard.

use pasamanos_faults::planted;
use pasamanos_proto::model::{
    AgentFrame, AgentFrameBody, CommandName, CommandReport, CommandState, Invalid, ObservedConfig,
    Reason,
};
use pasamanos_proto::pb::{self, connect_response::Frame};

use super::super::session::{SessionEnd, SessionError};
use super::Session;
use crate::domain::ports::Ingest;

impl Session {
    pub(super) async fn frame(
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
        let sent = (frame.boot_id.as_str(), frame.monotonic_ms);
        let heard = self.control.registry.frame(&self.agent, epoch, sent, now_ms);
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
                if planted!("server-records-ack-before-commit") {
                    self.send(Frame::RecordsAck(pb::RecordsAck {
                        incarnation: batch.incarnation.clone(),
                        through_sequence: batch.records.last().map_or(0, |r| r.sequence),
                    }));
                }
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
                let config = ObservedConfig::from(config);
                self.keep(if feeder.config_memory_lost {
                    Ingest::MemoryLost(id, config)
                } else {
                    Ingest::Config(id, config)
                })?;
            }
        }
        if let Some(farm) = self.control.farms.loaded(&self.agent.farm) {
            farm.update(|s, _| s.put_report(&self.agent.agent, report, heard_ms));
        }
        Ok(())
    }

    fn command(&mut self, report: CommandReport) -> Result<(), SessionError> {
        if report.state.is_terminal() {
            if planted!("server-ack-before-commit") {
                self.send(Frame::CommandAck(pb::CommandAck {
                    command: report.command.to_string(),
                    state: pb::CommandState::from(report.state).into(),
                    resolution: None,
                    anchor: None,
                }));
            }
            return self.keep(Ingest::Outcome(Box::new(report)));
        }
        let known = self.open.get(&report.command).is_some_and(|o| o.body_hash == report.body_hash);
        if known && report.state == CommandState::Executing {
            self.progress(&report.command, CommandState::Executing);
        }
        Ok(())
    }

    /// SENT and EXECUTING: shown, never stored.
    pub(super) fn progress(&self, name: &CommandName, state: CommandState) {
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
}
