//! Reads every robot of a PLC at its interval: status, configs, and what follows from them at once.
//! The truth is polled; nothing is concluded from a write's answer. A PLC that tells of changes by
//! itself is read sooner, within bounds, and never less often.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pasamanos_faults::planted;
use pasamanos_proto::model::{ObservedConfig, RobotId};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::driver::{Driver, News, Slot, SlotState};
use crate::executor::{Context, keep_level, look_for_loose};
use crate::farm::RobotCell;

/// Between a reading and one before its turn at least this passes, and at least as long as that reading
/// took: a PLC that tells of changes without end is read at most ten times a second, and at most half
/// of the time.
const FLOOR: Duration = Duration::from_millis(100);

/// Polls the robots of one driver until the agent stops.
pub(crate) async fn run(
    context: Context,
    driver: Arc<dyn Driver>,
    robots: Vec<Arc<RobotCell>>,
    poll: Duration,
    stop: CancellationToken,
) {
    let (mut link, news) = (driver.link(), driver.news());
    let mut tick = interval(poll);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut not_before = Instant::now();
    loop {
        let told = tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => None,
            // A connection that comes back is read at once.
            Ok(()) = link.changed() => None,
            told = told(news.as_deref(), not_before) => Some(told),
        };
        if let (None, Some(news)) = (&told, &news) {
            // What was told until now is read with all the others.
            news.take();
        }
        let began = Instant::now();
        for cell in &robots {
            if told.as_ref().is_some_and(|told| !told.contains(&cell.id)) {
                continue;
            }
            look(&context, cell).await;
            if stop.is_cancelled() {
                return;
            }
        }
        let ended = Instant::now();
        not_before = ended + FLOOR.max(ended - began);
    }
}

/// Waits until the PLC tells of changes, but not below the floor. What is told meanwhile is one.
async fn told(news: Option<&News>, not_before: Instant) -> BTreeSet<RobotId> {
    let Some(news) = news else { return std::future::pending().await };
    sleep_until(not_before).await;
    news.next().await
}

/// Reads one robot.
async fn look(context: &Context, cell: &RobotCell) {
    let before = cell.view().link;
    let snapshot = match cell.read_status().await {
        Ok(snapshot) => snapshot,
        Err(e) => {
            if cell.view().link != before {
                tracing::warn!(robot = %cell.id, error = %e, "the robot cannot be read");
            }
            return;
        }
    };
    if cell.view().link != before {
        tracing::info!(robot = %cell.id, link = cell.view().link.as_str_name(), "link changed");
    }
    let slot = snapshot.slot.filter(|_| !cell.traits.read_only);
    if let Some(slot) = slot.filter(|_| !planted!("agent-gap-ignored")) {
        recall(cell, &slot).await;
    }
    let mut configs = Vec::with_capacity(cell.feeders.len());
    for feeder in &cell.feeders {
        match cell.read_config(&feeder.feeder).await {
            Ok(reading) => {
                look_for_loose(context, cell, &feeder.feeder, &reading).await;
                configs.push((&feeder.feeder, reading.config));
            }
            Err(e) => tracing::debug!(feeder = %feeder.feeder, error = %e, "no config read"),
        }
    }
    if cell.traits.read_only {
        return;
    }
    let enforced = cell
        .ledger
        .update(|state, now, changes| {
            for (feeder, config) in &configs {
                let config = ObservedConfig::valid(config);
                state.enforce(feeder, config, &snapshot, now, changes);
            }
        })
        .await;
    if let Err(e) = enforced {
        tracing::error!(robot = %cell.id, error = %e, "limits were not enforced");
    }
    keep_level(cell).await;
}

/// Takes in what the PLC took unknown to the journal, once it is at rest; no dose begins before.
async fn recall(cell: &RobotCell, slot: &Slot) {
    if slot.state == SlotState::Started || cell.ledger.look().await.behind(slot) == 0 {
        return;
    }
    let history = match cell.history().await {
        Ok(history) => history,
        Err(e) => return tracing::warn!(robot = %cell.id, error = %e, "no history read"),
    };
    // The history bears no epoch: it is of this slot only if that stood still.
    let still = cell.read_status_and(|_, snapshot| snapshot.slot == Some(*slot)).await;
    if !still.is_ok_and(|still| still) {
        return;
    }
    let taken =
        cell.ledger.update(|state, now, changes| state.recall(slot, &history, now, changes)).await;
    if let Err(e) = taken {
        tracing::error!(robot = %cell.id, error = %e, "what the PLC remembers was not journaled");
    }
}
