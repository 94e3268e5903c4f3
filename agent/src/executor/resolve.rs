//! A person says what became of a dose in doubt, or of config values that may show: these are
//! watched on, and keep no other config out.

use pasamanos_proto::model::Action;
use pasamanos_proto::pb;

use super::progress;
use crate::farm::RobotCell;
use crate::journal::{Change, Entry};

/// Journals a person's settlement: it counts, and unlocks the robot or the feeder's config.
pub(super) async fn settle(cell: &RobotCell, entry: &Entry, resolution: &pb::Resolution) {
    let name = &entry.order.command;
    let report = entry.report.clone().unwrap_or_else(|| {
        progress(&entry.order, pasamanos_proto::model::CommandState::Uncertain, entry.epoch)
    });
    let settled = cell
        .ledger
        .update(|state, now, changes| {
            if let Action::FeedNow { .. } = entry.order.action {
                state.resolve_dose(name, resolution, &report, now, changes);
                return;
            }
            changes.push(Change::Resolved(name.clone(), resolution.clone()));
            let book = state.feeders.get_mut(&entry.order.feeder);
            if let Some(loose) = book.and_then(|b| b.loose_of(name)) {
                // Their word ends the doubt, not the write: what shows of it is not the farm's.
                loose.resolved = true;
                loose.reported = true;
            }
        })
        .await;
    match settled {
        Ok(()) => tracing::info!(command = %name, who = resolution.who, "settled by a person"),
        Err(e) => tracing::error!(command = %name, error = %e, "a settlement was not journaled"),
    }
    cell.touch();
}
