//! Both sides in one process, under simulated time: the server's control core on its real store, and
//! the whole agent on its real journal, joined by a wire that breaks; between them a PLC that loses
//! answers, and around them people who ask. Everything that happens is drawn from one seed, and the
//! judge of `pasamanos_tests::check` looks at the whole of it.
//!
//! `make soak SEEDS=5000 FIRST=0` runs more of them; a seed that fails is named, with how to run it
//! alone. Order within one simulated instant is the scheduler's, so a rare failure may need a few
//! tries of its seed.
//!
//! What it does not do:
//! - a PLC that rolls back before anybody read what it consumed: nobody can know (`disturb.rs`);
//! - plain tags without a sequenced slot, whose doses nothing proves not to have run;
//! - a database and a journal that are both put back, but not together
//!   (tests/tests/restores.rs puts old ones back together too);
//! - a journal put back within 30 s of its agent's last session: a dose of it may still start
//!   (`interrupt.rs`);
//! - a database or journal put back with no session opened since: nothing shows that it is old;
//! - a config of several tags of which some are taken, and edits of anything but the portion;
//! - several replicas, Redis and Postgres, and more than one farm, agent or robot;
//! - a machine that sleeps, and a monotonic clock that runs fast or slow.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests"
)]

mod book;
mod callers;
mod farm;
mod net;
mod server;
mod store;
mod world;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use self::book::Met;
use self::world::{Judged, run};

/// 2026-11-24T12:00Z.
const WALL: i64 = 1_795_521_600_000;
/// Seeds of a usual run.
const SEEDS: u64 = 500;

/// What the usual run must have met: one that meets nothing proves nothing.
const ALL: &[&str] = &[
    "a call was repeated",
    "a config of the farm",
    "a doubt was settled",
    "a frame came again, down",
    "a frame came again, up",
    "a frame came twice, down",
    "a frame came twice, up",
    "a person settled a doubt",
    "a version of CONFIG_AUTHOR_COMMAND",
    "a version of CONFIG_AUTHOR_FARM",
    "a version of CONFIG_AUTHOR_PLC_MEMORY_LOST",
    "alarms at a hello",
    "an outcome came again",
    "config Applied",
    "config Expired",
    "config Rejected",
    "config Uncertain",
    "dose Applied",
    "dose Expired",
    "dose Partial",
    "dose Rejected",
    "dose Uncertain",
    "fault: a PLC that cannot be read",
    "fault: a PLC that answers slowly",
    "fault: a PLC that loses writes",
    "fault: a PLC that lost its memory",
    "fault: a PLC that puts values back",
    "fault: a PLC that rolled back",
    "fault: a PLC that stands still",
    "fault: a cloned journal",
    "fault: a config set at the farm",
    "fault: a hold set at the farm",
    "fault: an old database",
    "fault: an old database and an old journal",
    "fault: an old journal",
    "fault: no way to the server: BlackHole",
    "fault: no way to the server: Refused",
    "fault: nothing goes down",
    "fault: nothing goes up",
    "fault: the agent was killed",
    "fault: the agent was stopped",
    "fault: the agent's machine was reset",
    "fault: the agent's wall clock was set",
    "fault: the link was cut",
    "fault: the server was killed",
    "fault: the server was stopped",
    "fault: the server's wall clock was set",
    "hold Applied",
    "hold Expired",
    "refused ACCEPTANCE_UNKNOWN",
    "refused AGENT_MOVING",
    "refused AGENT_OFFLINE",
    "refused CHANGED_AT_FARM",
    "refused CONFIG_IN_FLIGHT",
    "refused DATABASE_UNREACHABLE",
    "refused DOSE_UNSETTLED",
    "refused ETAG_MISMATCH",
    "refused FEEDER_HELD",
    "refused LOCAL_HOLD",
    "refused OUTCOME_PENDING",
    "refused REQUEST_ID_REUSED",
    "refused SERVER_STOPPING",
    "resume Applied",
    "resume Rejected",
    "settled at a hello: Applied ",
    "settled at a hello: Expired ",
    "settled at a hello: Uncertain AGENT_LOST",
    "settled at a hello: Uncertain JOURNAL_NOT_WHOLE",
    "the disk failed",
    "the disk failed after a write",
    "two commands changed places",
];

/// A directory in memory where there is one: what is synced is synced all the same, and quicker.
fn dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs one seed on a runtime of its own.
fn one(seed: u64) -> Result<Judged, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let running = std::panic::AssertUnwindSafe(|| runtime.block_on(run(seed)));
    let judged = std::panic::catch_unwind(running);
    runtime.shutdown_timeout(Duration::from_secs(5));
    judged.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        format!("it panicked: {}", text.unwrap_or_default())
    })
}

#[test]
fn p1_to_p9_hold_whatever_breaks() {
    if let Ok(filter) = std::env::var("SIMULATION_LOG") {
        let _again = crate::telemetry::init(&filter, crate::telemetry::LogFormat::Pretty);
    }
    let first = number("SIMULATION_FIRST").unwrap_or(0);
    let seeds = number("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(first);
    let (met, failed) = (Mutex::new(Met::new()), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let wrong = match one(seed) {
                        Ok(judged) => {
                            for (what, times) in judged.met {
                                *met.lock().unwrap().entry(what).or_default() += times;
                            }
                            judged.wrong
                        }
                        Err(panic) => vec![panic],
                    };
                    if !wrong.is_empty() {
                        println!("seed {seed}:\n  {}", wrong.join("\n  "));
                        println!("  alone: make soak SEEDS=1 FIRST={seed}");
                        failed.lock().unwrap().push(seed);
                    }
                    let done = seed - first + 1;
                    if done.is_multiple_of(100) {
                        println!(
                            "{done} of {seeds} seeds, {} failed",
                            failed.lock().unwrap().len()
                        );
                    }
                }
            });
        }
    });
    let met = met.into_inner().unwrap();
    for (what, times) in &met {
        println!("{times:8} {what}");
    }
    let failed = failed.into_inner().unwrap();
    let missed: Vec<_> = ALL.iter().filter(|what| !met.contains_key(**what)).collect();
    assert!(missed.is_empty() || seeds < SEEDS, "too quiet, never met: {missed:?}");
    assert!(failed.is_empty(), "seeds {failed:?} failed");
}
