//! The first frame: who the agent is, what there is, how far its journal reaches, and every command
//! that the server has not acknowledged. Built only when no session can journal any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pasamanos_proto::PROTOCOL_VERSION;
use pasamanos_proto::model::{
    AgentName, CommandState, FeederId, Hello, Inventory, InventoryFeeder, InventoryRobot,
    InventoryTank, JournalState, ObservedConfig, RobotSlot,
};
use tokio::time::timeout;

use crate::executor::{Context, limits_of, progress};
use crate::farm::{Farm, RobotCell};
use crate::journal::JournalError;
use crate::status::reports;

/// At start the first reads are waited for at most this long.
const FIRST_READ: Duration = Duration::from_secs(3);

/// A hello, and the configs that it tells.
pub(crate) struct Introduction {
    /// The hello.
    pub hello: Hello,
    /// The configs in its inventory.
    pub configs: BTreeMap<FeederId, ObservedConfig>,
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
    let first = farm.robots.values().map(|cell| async {
        let mut view = cell.follow();
        let all = cell.feeders.len();
        let read = |v: &crate::farm::RobotView| {
            v.tried && (v.snapshot.is_none() || v.configs.len() >= all)
        };
        let _ended = view.wait_for(read).await;
    });
    let _late = timeout(FIRST_READ, join_all(first)).await;
    let slots = join_all(farm.robots.values().map(slot)).await;
    let reports = reports(farm).await;
    let journal = &context.journal;
    let high_water = *journal.high_water().borrow();
    let mut commands = Vec::new();
    for entry in journal.unacked().await? {
        commands.push(match entry.report {
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
        },
        inventory: inventory(farm, &reports.configs).await,
        commands,
    };
    Ok(Introduction { hello, configs: reports.configs })
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

async fn inventory(farm: &Farm, configs: &BTreeMap<FeederId, ObservedConfig>) -> Inventory {
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
                config: configs.get(&f.feeder).cloned(),
            });
        }
    }
    inventory
}
