//! Crash points: places at which a test kills the process.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every point with what must hold after a restart: the server's in the order of a command, then the
/// agent's in the order of a dose.
pub const POINTS: &[(&str, &str)] = &[
    ("server.session.opened", "the epoch is stored, no lease: the next hello gets a higher one"),
    ("server.lease.held", "harmless: the lease ends by itself or is taken over"),
    ("server.accept.before-commit", "nothing is left: the same request_id may be asked again"),
    ("server.accept.committed", "in doubt, and settled by the next hello: it was not sent"),
    ("server.outbox.read", "nothing was sent: in no journal, EXPIRED"),
    ("server.command.sent", "in doubt, and settled by the next hello: once or never"),
    ("server.outcome.before-commit", "reported again in the next hello"),
    ("server.outcome.committed", "reported again, absorbed, acknowledged"),
    ("server.records.before-commit", "sent again in the next session"),
    ("server.records.committed", "sent again, absorbed, acknowledged"),
    ("server.frame.sent", "reported again, absorbed, acknowledged"),
    ("agent.command.received", "not journaled: the next hello does not list it, it is EXPIRED"),
    ("agent.epoch.journaled", "no frame was sent under the epoch: no lease"),
    ("agent.dose.intent-journaled", "nothing was written: fenced, EXPIRED"),
    ("agent.dose.submitted", "read-back decides: executed once or never"),
    ("agent.dose.consumed", "the slot tells: reported once"),
    ("agent.config.intent-journaled", "nothing was written: read-back decides"),
    ("agent.config.written", "read-back decides"),
    ("agent.hold.journaled", "the hold is written at the next start"),
    ("agent.outcome.before-journal", "the slot, or the read-back, tells once more"),
    ("agent.outcome.journaled", "reported in the next hello"),
    ("agent.outcome.reported", "reported again, absorbed by the server"),
    ("agent.ack.received", "reported again, absorbed by the server"),
    ("agent.records.acked", "sent again, absorbed by the server"),
];

/// Dies here if `CRASH_AT` says so: no destructor runs, nothing is flushed. Called by
/// [`crash_point!`](crate::crash_point).
pub fn reached(name: &str) {
    static AT: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let at = std::env::var("CRASH_AT").ok()?;
        let (name, nth) = at.rsplit_once(':').unwrap_or((&at, "1"));
        Some((name.to_owned(), nth.parse().unwrap_or(1)))
    });
    static PASSED: AtomicU64 = AtomicU64::new(0);

    if let Some((at, nth)) = &*AT
        && at == name
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *nth
    {
        tracing::error!(point = name, "crash point reached");
        std::process::abort();
    }
}
