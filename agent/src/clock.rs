//! The farm PC's clocks. The monotonic one counts suspend: a laptop that slept through a start limit
//! must not start the dose. The only place of the agent that reads a clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pasamanos_faults::planted;

/// Milliseconds of the monotonic clock, counting suspend, since the machine's start.
#[must_use]
pub fn monotonic_ms() -> i64 {
    source::monotonic_ms()
}

/// Which start of the machine [`monotonic_ms`] counts from.
#[must_use]
pub fn boot_id() -> String {
    source::boot_id()
}

/// Milliseconds since the Unix epoch, for people and records; decides nothing.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "the clock module")]
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The clocks as a value: the farm PC's own, or in tests ones that follow tokio's paused time.
#[derive(Clone, Debug)]
pub struct Clock {
    boot_id: Arc<str>,
    simulated: Option<Simulated>,
}

#[derive(Clone, Debug)]
struct Simulated {
    start: tokio::time::Instant,
    monotonic_ms: i64,
    wall_ms: Arc<AtomicI64>,
}

impl Clock {
    /// The farm PC's.
    #[must_use]
    pub fn system() -> Self {
        Self { boot_id: boot_id().into(), simulated: None }
    }

    /// One that runs with tokio's time, from the given instants.
    #[doc(hidden)]
    #[must_use]
    pub fn simulated(boot_id: &str, monotonic_ms: i64, wall_ms: i64) -> Self {
        let start = tokio::time::Instant::now();
        Self {
            boot_id: boot_id.into(),
            simulated: Some(Simulated { start, monotonic_ms, wall_ms: Arc::new(wall_ms.into()) }),
        }
    }

    /// Somebody sets a simulated wall clock, forward or back.
    #[cfg(test)]
    pub(crate) fn step_wall(&self, by_ms: i64) {
        if let Some(s) = &self.simulated {
            s.wall_ms.fetch_add(by_ms, Ordering::Relaxed);
        }
    }

    /// As [`monotonic_ms`].
    #[must_use]
    pub fn monotonic_ms(&self) -> i64 {
        if planted!("agent-time-by-wall-clock") {
            return self.wall_ms();
        }
        self.simulated.as_ref().map_or_else(monotonic_ms, |s| s.monotonic_ms + s.elapsed_ms())
    }

    /// As [`wall_ms`].
    #[must_use]
    pub fn wall_ms(&self) -> i64 {
        let simulated = self.simulated.as_ref();
        simulated.map_or_else(wall_ms, |s| s.wall_ms.load(Ordering::Relaxed) + s.elapsed_ms())
    }

    /// As [`boot_id`].
    #[must_use]
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// How long until an instant of [`Self::monotonic_ms`]; zero if it has passed.
    #[must_use]
    pub fn until(&self, at_ms: i64) -> Duration {
        Duration::from_millis(at_ms.saturating_sub(self.monotonic_ms()).max(0).unsigned_abs())
    }

    /// While it lives, simulated time stands still: a disk is waited for, which takes no time there.
    #[must_use]
    pub(crate) fn still(&self) -> Option<Still> {
        self.simulated.as_ref().map(|_| {
            let (end, ended) = sync_channel(0);
            // Paused time does not advance by itself while a blocking task runs.
            drop(tokio::task::spawn_blocking(move || ended.recv()));
            Still(end)
        })
    }
}

impl Simulated {
    fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

/// See [`Clock::still`]; ends when dropped.
#[derive(Debug)]
pub(crate) struct Still(#[allow(dead_code, reason = "its drop is what counts")] SyncSender<()>);

#[cfg(target_os = "linux")]
mod source {
    use rustix::time::{ClockId, clock_gettime};

    pub fn monotonic_ms() -> i64 {
        let t = clock_gettime(ClockId::Boottime);
        t.tv_sec * 1_000 + t.tv_nsec / 1_000_000
    }

    pub fn boot_id() -> String {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        id.map_or_else(|_| "unknown".into(), |id| id.trim().into())
    }
}

/// Elsewhere the clock counts from the agent's own start, and a restart is a new boot: commands in
/// flight expire, which is the safe side.
#[cfg(not(target_os = "linux"))]
mod source {
    use std::sync::OnceLock;
    use std::time::Instant;

    static START: OnceLock<(Instant, String)> = OnceLock::new();

    #[allow(clippy::disallowed_methods, reason = "the clock module")]
    fn start() -> &'static (Instant, String) {
        START.get_or_init(|| (Instant::now(), uuid::Uuid::new_v4().to_string()))
    }

    pub fn monotonic_ms() -> i64 {
        i64::try_from(start().0.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    pub fn boot_id() -> String {
        start().1.clone()
    }
}
