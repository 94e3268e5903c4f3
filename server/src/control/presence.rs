//! Presence: what the lease's end, and the silence of a session, mean for the screen. One task looks
//! at the deadline index four times a second, so offline shows well within 1 s of the lease's end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use pasamanos_proto::model::AgentName;
use pasamanos_proto::pb::PresenceState;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Control;
use super::farms::Farm;

const TICK: Duration = Duration::from_millis(250);
/// The lease store is unknown after this long without an answer.
const PATIENCE: Duration = Duration::from_millis(1_500);

impl Control {
    /// Runs until the server stops.
    pub async fn keep_presence(&self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut reachable = true;
        // Leases outlive a restart of ours: who has one is online before its agent calls again.
        let mut unread = self.agents();
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let swept = timeout(PATIENCE, self.leases.sweep()).await;
            let now_reachable = matches!(swept, Ok(Ok(_)));
            if let Ok(Ok(ended)) = swept {
                for agent in ended {
                    self.lease_ended(&agent).await;
                }
            }
            if now_reachable != reachable {
                reachable = now_reachable;
                self.leases_reachable.store(reachable, Ordering::Relaxed);
                if reachable {
                    tracing::info!("the lease store answers again");
                } else {
                    tracing::warn!(
                        "the lease store cannot be asked: changes are refused, reads go on"
                    );
                }
                unread = self.agents();
            }
            if !unread.is_empty() {
                unread = self.store_reachable(reachable, unread).await;
            }
            self.silence();
            let now = self.clock.monotonic_ms();
            for farm in self.farms.all() {
                farm.update(|s, _| s.refresh(now));
            }
        }
    }

    /// An index says that a lease ended; the lease itself has the last word.
    async fn lease_ended(&self, agent: &AgentName) {
        if matches!(self.leases.read(agent).await, Ok(None)) {
            tracing::info!(%agent, "offline: its lease ended");
            self.set_presence(agent, PresenceState::Offline).await;
        }
    }

    /// Every agent's presence after the lease store went away, came back, or was first asked.
    /// Answers those whose lease could not be read.
    async fn store_reachable(&self, reachable: bool, agents: Vec<AgentName>) -> Vec<AgentName> {
        let reads = agents.into_iter().map(|agent| async {
            if !reachable {
                return (agent, Some(PresenceState::Unknown));
            }
            let presence = match timeout(PATIENCE, self.leases.read(&agent)).await {
                Ok(Ok(Some(_))) => Some(PresenceState::Online),
                // A flushed store: online again at the next frame, if there is one.
                Ok(Ok(None)) => Some(PresenceState::Offline),
                _ => None,
            };
            (agent, presence)
        });
        let read = stream::iter(reads).buffer_unordered(64).collect::<Vec<_>>().await;
        let mut again = Vec::new();
        for (agent, presence) in read {
            let Some(presence) = presence else {
                again.push(agent);
                continue;
            };
            if let Some(farm) = self.farms.loaded(&agent.farm) {
                farm.update(|s, now| s.put_presence(&agent, presence, now));
            }
        }
        again
    }

    /// Every agent that was ever seen.
    fn agents(&self) -> Vec<AgentName> {
        let of = |farm: &Farm| {
            farm.read(|s, _| {
                let seen =
                    s.agents.iter().filter(|(_, a)| a.value.presence != PresenceState::NeverSeen);
                seen.map(|(id, _)| AgentName::new(farm.id.clone(), id.clone())).collect::<Vec<_>>()
            })
        };
        self.farms.all().iter().flat_map(|farm| of(farm)).collect()
    }

    /// The key is necessary, not sufficient: a session that was silent for the lease time by our own
    /// clock is offline, whatever the lease store's clock says.
    fn silence(&self) {
        for (agent, age) in self.registry.ages(self.clock.monotonic_ms()) {
            if age >= self.timing.lease_ttl
                && let Some(farm) = self.farms.loaded(&agent.farm)
            {
                farm.update(|s, now| {
                    let online = |p| matches!(p, PresenceState::Online);
                    let is = s.agents.get(&agent.agent).map(|a| a.value.presence);
                    if is.is_some_and(online) {
                        s.put_presence(&agent, PresenceState::Offline, now);
                    }
                });
            }
        }
    }

    /// Sets what the screen shows.
    pub(super) async fn set_presence(&self, agent: &AgentName, presence: PresenceState) {
        match self.farms.get(&agent.farm).await {
            Ok(farm) => farm.update(|s, now| s.put_presence(agent, presence, now)),
            Err(e) => tracing::warn!(%agent, error = %e, "presence not shown"),
        }
    }
}
