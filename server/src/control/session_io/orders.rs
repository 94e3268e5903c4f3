//! Commands to the agent: sent in the order of acceptance, and in doubt when no outcome comes in time.

use pasamanos_faults::crash_point;
use pasamanos_proto::model::{BodyHash, CommandOrder, CommandState, Invalid, Reason, note};
use pasamanos_proto::pb::connect_response::Frame;

use super::super::outcomes::Progress;
use super::super::session::SessionError;
use super::Session;
use crate::domain::command::outcome_grace_ms;
use crate::domain::ports::StoredCommand;

/// A command that was sent and has no outcome yet.
pub(super) struct Open {
    pub(super) body_hash: BodyHash,
    /// Later than this, in the agent's clock, it is in doubt.
    pub(super) doubt_ms: i64,
}

impl Session {
    /// Sends what is accepted and was not sent, in the order of acceptance.
    pub(super) async fn send_outbox(&mut self) -> Result<(), SessionError> {
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
            crash_point!("server.outbox.read");
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

    /// Doubts what should have its outcome by now.
    pub(super) async fn doubt_late(&mut self) {
        let now = self.control.clock.monotonic_ms();
        let Some(seen) = self.control.registry.seen(&self.agent, now) else { return };
        let agent_ms = now.saturating_add(seen.offset_ms);
        let late: Vec<_> = self
            .open
            .iter()
            .filter(|(_, o)| agent_ms > o.doubt_ms)
            .map(|(n, _)| n.clone())
            .collect();
        if late.is_empty() {
            return;
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
