//! The use cases. They import the domain and its ports, never a concrete store, and never tonic.

mod commands;
mod farms;
mod gate;
mod holds;
mod outcomes;
mod presence;
mod registry;
mod resolve;
mod session;
mod session_io;
mod statuses;
mod view;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bus::Bus;
use crate::domain::ports::{Clock, Leases, Store};

pub use commands::{Answer, Caller};
pub use farms::{Farm, Farms};
pub use registry::{Registry, ToSession};
pub use session::{SessionEnd, SessionError};

/// How the promises are timed.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Silence of this length means offline.
    pub lease_ttl: Duration,
    /// Told to agents in `Welcome`.
    pub heartbeat_interval: Duration,
    /// How long after its acceptance a command may start.
    pub start_limit: Duration,
}

/// What all use cases share.
pub struct Control {
    /// What must last.
    pub store: Arc<dyn Store>,
    /// Who is alive.
    pub leases: Arc<dyn Leases>,
    /// Doorbells: hints only.
    pub bus: Arc<Bus>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// How the promises are timed.
    pub timing: Timing,
    /// What is live, per farm.
    pub farms: Farms,
    /// Which agent's session is held here.
    pub registry: Registry,
    /// Who waits for which command.
    pub(crate) outcomes: outcomes::Outcomes,
    /// This process, in lease values.
    pub replica: String,
    /// Everything that outlives a request; awaited at the end.
    pub tasks: TaskTracker,
    /// The server stops: no new commands, sessions drain, streams end.
    pub stopping: CancellationToken,
    leases_reachable: AtomicBool,
}

impl Control {
    /// The use cases over these stores.
    pub fn new(
        store: Arc<dyn Store>,
        leases: Arc<dyn Leases>,
        bus: Arc<Bus>,
        clock: Arc<dyn Clock>,
        timing: Timing,
    ) -> Arc<Self> {
        Arc::new(Self {
            farms: Farms::new(store.clone(), clock.clone()),
            store,
            leases,
            bus,
            clock,
            timing,
            registry: Registry::default(),
            outcomes: outcomes::Outcomes::default(),
            replica: short_id(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            leases_reachable: AtomicBool::new(true),
        })
    }

    /// Whether the lease store answered when it was last asked.
    pub fn leases_reachable(&self) -> bool {
        self.leases_reachable.load(Ordering::Relaxed)
    }
}

/// A random id for sessions and replicas.
fn short_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..12].to_owned()
}
