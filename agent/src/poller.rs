//! Reads every robot of a PLC at its interval: status, configs, and what follows from them at once.
//! The truth is polled; nothing is concluded from a write's answer.

use std::sync::Arc;
use std::time::Duration;

use pasamanos_proto::model::ObservedConfig;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::driver::Driver;
use crate::executor::{Context, keep_level, look_for_loose};
use crate::farm::RobotCell;

/// Polls the robots of one driver until the agent stops.
pub(crate) async fn run(
    context: Context,
    driver: Arc<dyn Driver>,
    robots: Vec<Arc<RobotCell>>,
    poll: Duration,
    stop: CancellationToken,
) {
    let mut link = driver.link();
    let mut tick = interval(poll);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
            // A connection that comes back is read at once.
            Ok(()) = link.changed() => {}
        }
        for cell in &robots {
            look(&context, cell).await;
            if stop.is_cancelled() {
                return;
            }
        }
    }
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
