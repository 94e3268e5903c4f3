//! Planted bugs: mistakes that a reasonable program makes here. One at a time, chosen by
//! `PASAMANOS_PLANTED`, to see which test notices (`make mutants`).

use std::sync::LazyLock;

/// A mistake, and what it breaks.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// What `PASAMANOS_PLANTED` names.
    pub name: &'static str,
    /// What the product then does.
    pub what: &'static str,
    /// The promise that this breaks.
    pub promise: &'static str,
}

const fn bug(name: &'static str, promise: &'static str, what: &'static str) -> Bug {
    Bug { name, what, promise }
}

/// Every mistake that can be planted.
pub const PLANTED: &[Bug] = &[
    bug(
        "agent-unread-config-is-applied",
        "P2",
        "APPLIED as soon as the PLC answered the write, without read-back",
    ),
    bug("agent-no-second-look", "P6", "one read-back, none after the dwell"),
    bug("agent-intent-after-write", "P3", "the dose is submitted before its intent is journaled"),
    bug(
        "agent-dose-retried-on-timeout",
        "P3",
        "a submit that timed out is submitted again as a new sequence",
    ),
    bug(
        "agent-open-dose-repeated",
        "P3",
        "a dose found open after a restart is submitted, not fenced",
    ),
    bug("agent-dedupe-in-memory", "P3", "a known command is looked for in memory only"),
    bug(
        "agent-gap-ignored",
        "P3",
        "what the PLC took unknown to a journal that was put back is not taken in",
    ),
    bug(
        "agent-token-ignored",
        "P3",
        "a consumed sequence counts as this dose whatever token it bears",
    ),
    bug("agent-doubt-unlocks", "P3", "a dose in doubt does not keep the robot from the next"),
    bug(
        "agent-timeout-is-refusal",
        "P2",
        "a submit that timed out is reported as refused by the PLC",
    ),
    bug("agent-start-limit-ignored", "P7", "a dose starts whenever it is read"),
    bug(
        "agent-expiry-always-whole",
        "P7",
        "the PLC may start a dose 10 s after the last look at it",
    ),
    bug("agent-time-by-wall-clock", "P7", "start limits and ages are counted by the wall clock"),
    bug(
        "agent-old-session-runs",
        "P4",
        "what was received in a session that is over is journaled and run",
    ),
    bug("agent-outcome-before-journal", "P2", "the outcome is reported before it is journaled"),
    bug("agent-outcome-told-once", "P2", "hello lists no outcome that was reported once"),
    bug(
        "agent-records-forgotten-when-sent",
        "P9",
        "records are pruned when sent, not when acknowledged",
    ),
    bug("agent-hold-waits", "P3", "a hold does not overtake the doses before it"),
    bug("agent-journal-unlocked", "P3", "two agents may run on one journal"),
    bug("server-lease-renewed-unseen", "P4", "a renewal does not compare whose the lease is"),
    bug("server-lease-deleted-unseen", "P4", "a release does not compare whose the lease is"),
    bug("server-silence-is-online", "P1", "a lease store that does not answer counts as online"),
    bug("server-key-is-enough", "P1", "the gate asks the lease store and no clock of its own"),
    bug("server-heard-on-receipt", "P1", "a frame counts as heard when it arrives, however old"),
    bug("server-ack-before-commit", "P2", "an outcome is acknowledged when it arrives"),
    bug("server-records-ack-before-commit", "P9", "records are acknowledged when they arrive"),
    bug("server-outcome-unfenced", "P4", "a session that is over may still report"),
    bug(
        "server-epoch-from-database-only",
        "P4",
        "a restored database gives an epoch that was given before",
    ),
    bug(
        "server-absence-is-proof",
        "P2",
        "what a journal does not list is EXPIRED even if the journal is not whole",
    ),
    bug("server-end-changes", "P2", "a second, different end replaces the first"),
    bug(
        "server-silence-is-rejected",
        "P2",
        "a command without an outcome in time ends as REJECTED",
    ),
    bug(
        "server-request-id-body-ignored",
        "P5",
        "the same id with another body is answered with the first",
    ),
    bug(
        "server-incarnation-ignored",
        "P9",
        "records are known by sequence alone, whatever journal they are of",
    ),
];

/// Whether `PASAMANOS_PLANTED` names it. Called by [`planted!`](crate::planted).
#[must_use]
pub fn is_planted(name: &str) -> bool {
    static NAME: LazyLock<Option<String>> =
        LazyLock::new(|| std::env::var("PASAMANOS_PLANTED").ok());
    NAME.as_deref() == Some(name)
}
