//! Leases in process: a map and deadlines by the monotonic clock.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pasamanos_faults::planted;
use pasamanos_proto::model::AgentName;
use tokio::time::Instant;

use super::{may_acquire, may_renew};
use crate::domain::ports::{Holder, LeaseError, Leases, Renewal};

/// The leases of this process. Bounded by the agents that ever had a session here.
#[derive(Debug, Default)]
pub struct MemoryLeases(Mutex<HashMap<AgentName, Lease>>);

#[derive(Debug)]
struct Lease {
    holder: Holder,
    ends: Instant,
}

impl Lease {
    fn alive(&self, now: Instant) -> Option<&Holder> {
        (now < self.ends).then_some(&self.holder)
    }
}

impl MemoryLeases {
    fn lock(&self) -> MutexGuard<'_, HashMap<AgentName, Lease>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds the lease from now if the rule says so. What has ended counts as absent.
    fn take(
        &self,
        agent: &AgentName,
        holder: &Holder,
        ttl: Duration,
        rule: fn(Option<&Holder>, &Holder) -> Renewal,
    ) -> Renewal {
        let (mut leases, now) = (self.lock(), Instant::now());
        let there = leases.get(agent).and_then(|l| l.alive(now));
        let renewal = rule(there, holder);
        if renewal == Renewal::Held {
            leases.insert(agent.clone(), Lease { holder: holder.clone(), ends: now + ttl });
        }
        renewal
    }
}

#[async_trait]
impl Leases for MemoryLeases {
    async fn acquire(
        &self,
        agent: &AgentName,
        holder: &Holder,
        ttl: Duration,
    ) -> Result<Renewal, LeaseError> {
        Ok(self.take(agent, holder, ttl, may_acquire))
    }

    async fn renew(
        &self,
        agent: &AgentName,
        holder: &Holder,
        ttl: Duration,
    ) -> Result<Renewal, LeaseError> {
        Ok(self.take(agent, holder, ttl, may_renew))
    }

    async fn release(&self, agent: &AgentName, holder: &Holder) -> Result<(), LeaseError> {
        let (mut leases, now) = (self.lock(), Instant::now());
        let there = leases.get(agent).and_then(|l| l.alive(now));
        if may_renew(there, holder) == Renewal::Held || planted!("server-lease-deleted-unseen") {
            leases.remove(agent);
        }
        Ok(())
    }

    async fn read(&self, agent: &AgentName) -> Result<Option<Holder>, LeaseError> {
        let (leases, now) = (self.lock(), Instant::now());
        Ok(leases.get(agent).and_then(|l| l.alive(now)).cloned())
    }

    async fn sweep(&self) -> Result<Vec<AgentName>, LeaseError> {
        let (mut leases, now) = (self.lock(), Instant::now());
        Ok(leases.extract_if(|_, l| l.alive(now).is_none()).map(|(agent, _)| agent).collect())
    }
}
