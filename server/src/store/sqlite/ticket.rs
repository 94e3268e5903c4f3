//! A write's place in the queue: who may still withdraw it, and which names are in flight.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pasamanos_proto::model::CommandName;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

const QUEUED: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// Decides, once, between the writer that takes an item and the caller that gives up.
pub struct Ticket {
    state: AtomicU8,
    /// After this the writer leaves it.
    not_after: Instant,
    /// The names whose acceptance is pending; dropped when that has ended.
    names: Mutex<Option<InFlight>>,
}

impl Ticket {
    /// A queued item's.
    pub fn new(not_after: Instant, names: Option<InFlight>) -> Arc<Self> {
        Arc::new(Self { state: AtomicU8::new(QUEUED), not_after, names: Mutex::new(names) })
    }

    fn leave_queue(&self, to: u8) -> bool {
        self.state.compare_exchange(QUEUED, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether its caller gave up, or is about to.
    pub fn is_over(&self) -> bool {
        self.state.load(Ordering::Acquire) == WITHDRAWN || Instant::now() >= self.not_after
    }

    /// The writer's word: from here on it runs. `false` if nobody waits for it any more.
    pub fn take(&self) -> bool {
        if self.is_over() {
            self.withdraw();
        }
        self.leave_queue(TAKEN)
    }

    /// The caller's word: it will never run. `false` if the writer was first.
    pub fn withdraw(&self) -> bool {
        let withdrawn = self.leave_queue(WITHDRAWN);
        if withdrawn {
            self.ended();
        }
        withdrawn
    }

    /// It is known whether it happened.
    pub fn ended(&self) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Withdraws an item when its caller goes away.
pub struct WithdrawOnDrop(pub Arc<Ticket>);

impl Drop for WithdrawOnDrop {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

/// The commands whose acceptance has begun and not ended.
#[derive(Default)]
pub struct Pending {
    /// How many acceptances of each name.
    names: Mutex<HashMap<CommandName, usize>>,
    changed: Notify,
}

impl Pending {
    /// Notes that these acceptances have begun, until the answer is dropped.
    pub fn begin(self: &Arc<Self>, names: Vec<CommandName>) -> InFlight {
        let mut map = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &names {
            *map.entry(name.clone()).or_default() += 1;
        }
        drop(map);
        InFlight { pending: Arc::clone(self), names }
    }

    /// Whether an acceptance of the name is pending.
    pub fn has(&self, name: &CommandName) -> bool {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    /// Waits until no acceptance of the name is pending. `false` if that took too long.
    pub async fn settled(&self, name: &CommandName, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that no change between the two is missed.
            changed.as_mut().enable();
            if !self.has(name) {
                return true;
            }
            if timeout_at(deadline, changed).await.is_err() {
                return false;
            }
        }
    }
}

/// Names that are pending while this lives.
pub struct InFlight {
    pending: Arc<Pending>,
    names: Vec<CommandName>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut map = self.pending.names.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &self.names {
            if let Some(n) = map.get_mut(name) {
                *n -= 1;
                if *n == 0 {
                    map.remove(name);
                }
            }
        }
        drop(map);
        self.pending.changed.notify_waiters();
    }
}
