//! The farm side: dials out, journals, speaks to the PLCs, and reads back before it reports.
//!
//! A supervisor runs sessions; a session speaks with the server; an executor runs commands on the
//! robots, one worker each; a poller reads them. What must last is in the journal, in one
//! transaction per promise. A robot's ledger is the journal's memory of it.

pub mod agent;
pub mod check;
pub mod clock;
pub mod config;
pub mod driver;
pub mod telemetry;

mod backoff;
mod calendar;
mod executor;
mod farm;
mod gate;
mod guard;
mod hello;
mod journal;
mod ledger;
mod outbox;
mod poller;
mod records;
mod session;
mod status;
mod supervisor;
mod transport;

// Outside `src`: it joins the agent to the server, which nothing in `src` may know.
#[cfg(test)]
#[path = "../tests/simulation/mod.rs"]
mod simulation;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use agent::{Agent, BuildError, Settings};
pub use journal::JournalError;
use pasamanos_proto::model::{FeederId, RobotId};

/// Forgets what a lost journal may have known of the last 24 h, and of doses that nobody remembers:
/// someone at the farm has looked. Of one feeder and its robot, or of all.
///
/// # Errors
/// If an agent runs on that directory, the journal cannot be opened, or there is no such feeder.
pub async fn reset_envelope(
    config: &config::Config,
    feeder: Option<&str>,
) -> Result<(), JournalError> {
    let mut robots = config.plcs.iter().flat_map(|plc| &plc.robots);
    let of = match feeder {
        Some(id) => {
            let robot = robots.find(|r| r.feeders.iter().any(|f| f.id.as_str() == id));
            let none = || JournalError::Content(format!("--feeder {id:?}: no such feeder"));
            let robot = robot.ok_or_else(none)?;
            robot
                .feeders
                .iter()
                .find(|f| f.id.as_str() == id)
                .map(|f| (f.id.clone(), robot.id.clone()))
        }
        None => None,
    };
    accept_gaps(&config.data_dir, of).await
}

async fn accept_gaps(data_dir: &Path, of: Option<(FeederId, RobotId)>) -> Result<(), JournalError> {
    let (feeder, robot) = of.unzip();
    let changes = vec![journal::Change::EnvelopeReset(feeder), journal::Change::GapClosed(robot)];
    let task = tokio_util::task::TaskTracker::new();
    let (journal, _) = journal::Journal::open(data_dir, &clock::Clock::system(), &task).await?;
    journal.commit(changes).await?;
    journal.close().await;
    task.close();
    task.wait().await;
    Ok(())
}
