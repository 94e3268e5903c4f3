//! The robots behind this agent, each with its driver, its ledger and what was last read of it.

mod control;
mod robot;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use pasamanos_proto::model::{FeederId, RobotId};
use tokio::sync::Notify;

pub(crate) use self::control::{Control, Place};
pub(crate) use self::robot::RobotCell;
pub(crate) use self::view::RobotView;

/// All robots.
#[derive(Debug)]
pub(crate) struct Farm {
    /// By id.
    pub robots: BTreeMap<RobotId, Arc<RobotCell>>,
    by_feeder: BTreeMap<FeederId, RobotId>,
    /// Rung whenever something may have to be told.
    pub changed: Arc<Notify>,
}

impl Farm {
    /// Of these robots; all of them ring `changed`.
    pub(crate) fn new(robots: Vec<Arc<RobotCell>>, changed: Arc<Notify>) -> Self {
        let by_feeder = robots
            .iter()
            .flat_map(|r| r.feeders.iter().map(|f| (f.feeder.clone(), r.id.clone())))
            .collect();
        let robots = robots.into_iter().map(|r| (r.id.clone(), r)).collect();
        Self { robots, by_feeder, changed }
    }

    /// The robot of a feeder.
    pub(crate) fn robot_of(&self, feeder: &FeederId) -> Option<&Arc<RobotCell>> {
        self.robots.get(self.by_feeder.get(feeder)?)
    }
}
