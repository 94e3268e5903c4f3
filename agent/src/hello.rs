//! The first frame: who the agent is, what there is, how far its journal reaches, and every command
//! that the server has not acknowledged. Built only when no session can journal any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pasamanos_faults::planted;
use pasamanos_proto::PROTOCOL_VERSION;
use pasamanos_proto::model::{
    AgentName, CommandState, FeederId, Hello, Inventory, InventoryFeeder, InventoryRobot,
    InventoryTank, JournalState, ObservedConfig, RobotId, RobotSlot,
};
use tokio::time::timeout;

use crate::executor::{Context, limits_of, progress};
use crate::farm::{Farm, RobotCell, RobotView};
use crate::journal::JournalError;
use crate::status::{Reports, reports};

/// The first reads, and a connection that is being made, are waited for at most this long.
const FIRST_READ: Duration = Duration::from_secs(3);
/// A link that has been down for this long is down.
const DOWN_MS: i64 = 3_000;

/// A hello, and the configs that it tells.
pub(crate) struct Introduction {
    /// The hello.
    pub hello: Hello,
    /// The configs in its inventory.
    pub configs: BTreeMap<FeederId, ObservedConfig>,
    /// Robots that could not be read: nothing about them is settled by it.
    pub unreadable: BTreeSet<RobotId>,
}

/// Builds it.
///
/// # Errors
/// If the journal cannot be read.
pub(crate) async fn build(
    context: &Context,
    farm: &Farm,
    agent: &AgentName,
    last_epoch: i64,
) -> Result<Introduction, JournalError> {
    let now_ms = context.clock.monotonic_ms();
    let first = farm.robots.values().map(|cell| async {
        let mut view = cell.follow();
        let all = cell.feeders.len();
        // A link that has been down for longer is not waited for.
        let down = |v: &RobotView| v.tried && now_ms - v.link_since_ms >= DOWN_MS;
        let read = |v: &RobotView| v.configs.len() >= all || down(v);
        let _ended = view.wait_for(read).await;
    });
    let _late = timeout(FIRST_READ, join_all(first)).await;
    let slots = join_all(farm.robots.values().map(slot)).await;
    let mut reports = reports(farm).await;
    let journal = &context.journal;
    let high_water = *journal.high_water().borrow();
    let unacked = journal.unacked().await?;
    let (mut commands, mut orders) = (Vec::new(), Vec::new());
    for entry in unacked.entries {
        // What an outcome read may be newer than the last look, or older: the first status tells.
        let read = entry.report.as_ref().and_then(|r| r.config.as_ref());
        if read
            .is_some_and(|c| reports.configs.get(&entry.order.feeder).is_some_and(|seen| seen != c))
        {
            reports.configs.remove(&entry.order.feeder);
        }
        orders.push(entry.order.clone());
        commands.push(match entry.report {
            Some(_) if planted!("agent-outcome-told-once") => continue,
            Some(report) => report,
            None => progress(&entry.order, CommandState::Executing, entry.epoch),
        });
    }
    let hello = Hello {
        protocol_version: PROTOCOL_VERSION,
        agent: agent.clone(),
        agent_version: env!("CARGO_PKG_VERSION").into(),
        journal: JournalState {
            incarnation: journal.incarnation().into(),
            last_epoch,
            record_high_water: high_water,
            oldest_record: journal.oldest_record().await?,
            slots,
            anchor: unacked.anchor,
        },
        inventory: inventory(farm, &reports).await,
        commands,
        orders,
    };
    let slots = hello.journal.slots.iter();
    let unreadable = slots.filter(|s| !s.readable).map(|s| s.robot.clone()).collect();
    Ok(Introduction { hello, configs: reports.configs, unreadable })
}

/// A robot's slot as journal and PLC have it, at one instant.
async fn slot(cell: &Arc<RobotCell>) -> RobotSlot {
    let sequenced = cell.traits.sequenced;
    let read = cell
        .read_status_and(|state, snapshot| {
            let plc = snapshot.slot.as_ref();
            (plc.map(|s| (s.epoch, s.last_sequence)), state.journal_slot(plc))
        })
        .await;
    let robot = cell.id.clone();
    if let Ok((plc, journal)) = read {
        let readable = !sequenced || plc.is_some();
        return RobotSlot { robot, readable, sequenced, plc: plc.unwrap_or((0, 0)), journal };
    }
    let journal = cell.ledger.look().await.journal_slot(None);
    RobotSlot { robot, readable: false, sequenced, plc: (0, 0), journal }
}

async fn inventory(farm: &Farm, reports: &Reports) -> Inventory {
    let mut inventory = Inventory::default();
    for cell in farm.robots.values() {
        inventory.robots.push(InventoryRobot { id: cell.id.clone() });
        let state = cell.ledger.look().await;
        for f in &cell.feeders {
            if !inventory.tanks.iter().any(|t| t.id == f.tank) {
                inventory.tanks.push(InventoryTank {
                    id: f.tank.clone(),
                    display_name: f.tank_name.clone(),
                    group: f.group.clone(),
                });
            }
            let limits = state.feeders.get(&f.feeder).map_or_else(|| f.limits.clone(), limits_of);
            inventory.feeders.push(InventoryFeeder {
                id: f.feeder.clone(),
                robot: f.robot.clone(),
                tank: f.tank.clone(),
                display_name: f.display_name.clone(),
                limits,
                capabilities: f.capabilities.clone(),
                config: reports.configs.get(&f.feeder).cloned(),
                memory_lost: reports.memory_lost.contains(&f.feeder),
            });
        }
    }
    inventory
}
