//! P1: a command passes only while the agent's lease exists and its session was heard from within
//! the lease time by this replica's monotonic clock. Otherwise it is refused at once.

use std::time::Duration;

use pasamanos_faults::planted;
use pasamanos_proto::model::{ActionKind, AgentName, Reason};

use super::Control;
use super::registry::Seen;
use crate::domain::{Error, ErrorKind};

/// The lease store must answer within this, or the command is refused.
const PATIENCE: Duration = Duration::from_millis(1_800);

/// What a command that passed is bound to.
#[derive(Clone, Debug)]
pub struct Pass {
    /// The epoch under which it is accepted, sent, and ends.
    pub epoch: i64,
    /// The agent's boot id and the last instant of its clock at which the command may start.
    pub start_before: (String, i64),
}

impl Control {
    /// Asks the gate.
    pub(super) async fn gate(&self, agent: &AgentName, kind: ActionKind) -> Result<Pass, Error> {
        let lease = match tokio::time::timeout(PATIENCE, self.leases.read(agent)).await {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(e)) => Err(anyhow::Error::new(e)),
            Err(_) => Err(anyhow::anyhow!("no answer in {PATIENCE:?}")),
        };
        // Asked last: the wait for the lease store counts against the age.
        let now = self.clock.monotonic_ms();
        let seen = self.registry.seen(agent, now);
        let heard = seen.as_ref().is_some_and(|s| s.age < self.timing.lease_ttl)
            || planted!("server-key-is-enough");

        match (lease, seen) {
            (Ok(Some(lease)), Some(seen)) if seen.live && lease.epoch == seen.holder.epoch => {
                if lease.session != seen.holder.session || !heard {
                    return Err(offline(agent, Some(&seen)));
                }
                Ok(self.pass(&seen, now))
            }
            // Another replica holds it, or the agent is between two sessions.
            (Ok(Some(_)), seen) if seen.as_ref().is_none_or(|s| !s.live || heard) => {
                Err(moving(agent))
            }
            (Ok(_), seen) => Err(offline(agent, seen.as_ref())),
            (Err(_), Some(seen)) if planted!("server-silence-is-online") => {
                Ok(self.pass(&seen, now))
            }
            (Err(_), Some(seen)) if kind == ActionKind::Hold && seen.live && heard => {
                // The one relief: a farm that was heard must be stoppable without the lease store.
                Ok(self.pass(&seen, now))
            }
            (Err(cause), seen) => Err(unreachable(kind, seen.as_ref()).caused_by(cause)),
        }
    }

    fn pass(&self, seen: &Seen, now_ms: i64) -> Pass {
        let limit = i64::try_from(self.timing.start_limit.as_millis()).unwrap_or(i64::MAX);
        let start_before = now_ms.saturating_add(limit).saturating_add(seen.offset_ms);
        Pass { epoch: seen.holder.epoch, start_before: (seen.boot_id.clone(), start_before) }
    }
}

fn offline(agent: &AgentName, seen: Option<&Seen>) -> Error {
    let text = "the farm PC is not connected: nothing was changed; \
                stop or change the feeder at the machine, or wait until it is back";
    let e = Error::precondition(Reason::AgentOffline, text).with("agent", agent);
    match seen {
        Some(seen) => e.with("since_ms", seen.age.as_millis()),
        None => e,
    }
}

fn moving(agent: &AgentName) -> Error {
    let text = "the farm PC is reconnecting: try again in a second with the same request_id";
    Error::unavailable(Reason::AgentMoving, text)
        .with("agent", agent)
        .retry_after(Duration::from_secs(1))
}

fn unreachable(kind: ActionKind, seen: Option<&Seen>) -> Error {
    let text = match (kind, seen) {
        (ActionKind::Hold, _) => {
            "whether the farm PC is connected cannot be known now: stop the feeder at the machine"
        }
        _ => "whether the farm PC is connected cannot be known now: nothing was changed; try again",
    };
    Error::new(ErrorKind::Unavailable, Reason::LeaseStoreUnreachable, text)
        .retry_after(Duration::from_secs(2))
}
