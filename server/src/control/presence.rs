//! Presence: what the lease's end, and the silence of a session, mean for the screen. One task looks
//! at the deadline index four times a second, so offline shows well within 1 s of the lease's end.

use std::sync::atomic::Ordering;
use std::time::Duration;

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
                self.store_reachable(reachable).await;
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

    async fn store_reachable(&self, reachable: bool) {
        if !reachable {
            tracing::warn!("the lease store cannot be asked: changes are refused, reads go on");
        } else {
            tracing::info!("the lease store answers again");
        }
        for farm in self.farms.all() {
            for agent in agents(&farm) {
                self.presence_after_outage(&farm, &agent, reachable).await;
            }
        }
    }

    async fn presence_after_outage(&self, farm: &Farm, agent: &AgentName, reachable: bool) {
        let never = farm.read(|s, _| {
            s.agents.get(&agent.agent).is_none_or(|a| a.value.presence == PresenceState::NeverSeen)
        });
        if never {
            return;
        }
        let presence = match reachable {
            false => PresenceState::Unknown,
            true => match self.leases.read(agent).await {
                Ok(Some(_)) => PresenceState::Online,
                // A flushed store: online again at the next frame, if there is one.
                Ok(None) => PresenceState::Offline,
                Err(_) => PresenceState::Unknown,
            },
        };
        farm.update(|s, now| s.put_presence(agent, presence, now));
    }

    /// The key is necessary, not sufficient: a session that was silent for the lease time by our own
    /// clock is offline, whatever the lease store's clock says.
    fn silence(&self) {
        for (agent, age) in self.registry.ages(self.clock.monotonic_ms()) {
            if age >= self.timing.lease_ttl {
                if let Some(farm) = self.farms.loaded(&agent.farm) {
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
    }

    /// Sets what the screen shows.
    pub(super) async fn set_presence(&self, agent: &AgentName, presence: PresenceState) {
        match self.farms.get(&agent.farm).await {
            Ok(farm) => farm.update(|s, now| s.put_presence(agent, presence, now)),
            Err(e) => tracing::warn!(%agent, error = %e, "presence not shown"),
        }
    }
}

fn agents(farm: &Farm) -> Vec<AgentName> {
    farm.read(|s, _| s.agents.keys().map(|a| AgentName::new(farm.id.clone(), a.clone())).collect())
}
