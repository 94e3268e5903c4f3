//! The lease of an open session: any frame renews it; one renewal at a time.

use pasamanos_faults::crash_point;
use pasamanos_proto::model::{AgentName, Reason};
use pasamanos_proto::pb::PresenceState;

use super::super::Control;
use super::super::session::SessionEnd;
use super::Session;
use crate::domain::ports::{Holder, LeaseError, Renewal};

impl Session {
    /// Renews if a frame came since the last renewal began.
    pub(super) fn start_renewal(&mut self) {
        if self.renew_wanted && self.renewing.is_none() {
            self.renew_wanted = false;
            self.holder.counter += 1;
            let (control, agent, holder) =
                (self.control.clone(), self.agent.clone(), self.holder.clone());
            let held = self.lease_held;
            self.renewing =
                Some(Box::pin(async move { control.renew(&agent, &holder, held).await }));
        }
    }

    /// Renews, or says why the session is over.
    pub(super) async fn renewed(
        &mut self,
        renewed: Result<Renewal, LeaseError>,
    ) -> Option<SessionEnd> {
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
