//! Which session may journal. A command is journaled only while its session is current, under one
//! lock; ending a session takes that lock alone, so that nothing received under it is journaled after.
//! Commands share it: those that are journaled at one time share a transaction.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use pasamanos_faults::planted;
use tokio::sync::{RwLock, RwLockReadGuard, watch};

use crate::clock::Clock;

/// The current session.
#[derive(Debug)]
pub(crate) struct Gate {
    clock: Clock,
    current: RwLock<()>,
    epoch: watch::Sender<Option<i64>>,
    heard_ms: AtomicI64,
    ttl_ms: AtomicI64,
}

/// While it lives the session cannot end.
pub(crate) struct Entered<'a>(
    #[allow(dead_code, reason = "its drop is what counts")] RwLockReadGuard<'a, ()>,
);

impl Gate {
    /// Without a session.
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            current: RwLock::new(()),
            epoch: watch::Sender::new(None),
            heard_ms: AtomicI64::new(0),
            ttl_ms: AtomicI64::new(0),
        }
    }

    /// A session begins: its epoch is durable.
    pub(crate) async fn open(&self, epoch: i64, ttl: Duration) {
        let _alone = self.current.write().await;
        self.ttl_ms.store(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        self.heard();
        self.epoch.send_replace(Some(epoch));
    }

    /// The session ends: waits for what is being journaled, drops the rest.
    pub(crate) async fn close(&self) {
        let _alone = self.current.write().await;
        self.epoch.send_replace(None);
    }

    /// A frame of the server arrived now.
    pub(crate) fn heard(&self) {
        self.heard_ms.store(self.clock.monotonic_ms(), Ordering::SeqCst);
    }

    /// Whether the server was silent for the lease time: the farm PC slept, or the link is dead.
    pub(crate) fn stale(&self) -> bool {
        let silence = self.clock.monotonic_ms() - self.heard_ms.load(Ordering::SeqCst);
        silence >= self.ttl_ms.load(Ordering::SeqCst)
    }

    /// Enters to journal a command of that session; `None` if it is over, or looks so after a sleep.
    pub(crate) async fn enter(&self, epoch: i64) -> Option<Entered<'_>> {
        let guard = self.current.read().await;
        let current = *self.epoch.borrow() == Some(epoch) || planted!("agent-old-session-runs");
        (current && !self.stale()).then(|| Entered(guard))
    }

    /// The current session's epoch, as it changes.
    pub(crate) fn epoch(&self) -> watch::Receiver<Option<i64>> {
        self.epoch.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(25);

    #[tokio::test(start_paused = true)]
    async fn admits_only_the_current_session() {
        let gate = Gate::new(Clock::simulated("b", 1_000_000, 0));
        assert!(gate.enter(1).await.is_none());
        gate.open(1, TTL).await;
        assert!(gate.enter(1).await.is_some());
        assert!(gate.enter(2).await.is_none());
        gate.close().await;
        assert!(gate.enter(1).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_admits_nothing() {
        let gate = Gate::new(Clock::simulated("b", 1_000_000, 0));
        gate.open(1, TTL).await;
        tokio::time::advance(Duration::from_millis(24_999)).await;
        assert!(gate.enter(1).await.is_some());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(gate.enter(1).await.is_none());
        gate.heard();
        assert!(gate.enter(1).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn ending_waits_for_what_is_being_journaled() {
        let gate = Gate::new(Clock::simulated("b", 1_000_000, 0));
        gate.open(1, TTL).await;
        let entered = gate.enter(1).await;
        let mut end = std::pin::pin!(gate.close());
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut end).await.is_err());
        drop(entered);
        end.await;
    }
}
