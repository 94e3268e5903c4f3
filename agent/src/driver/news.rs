//! What a PLC tells by itself: which of its robots changed, so that they are read before their turn. A
//! hint and never a value: what is true is read, and a hint that is lost costs a poll interval.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use pasamanos_proto::model::RobotId;
use tokio::sync::Notify;

/// The robots of one PLC that changed since somebody asked. It holds each at most once, so a PLC that
/// tells more than it is asked fills nothing.
#[derive(Debug, Default)]
pub struct News {
    robots: Mutex<BTreeSet<RobotId>>,
    told: Notify,
}

impl News {
    /// Something of this robot changed.
    pub fn tell(&self, robot: &RobotId) {
        let mut robots = self.robots.lock().unwrap_or_else(PoisonError::into_inner);
        if !robots.contains(robot) {
            robots.insert(robot.clone());
        }
        drop(robots);
        self.told.notify_one();
    }

    /// Takes what was told so far.
    pub fn take(&self) -> BTreeSet<RobotId> {
        std::mem::take(&mut *self.robots.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until something is told, and takes it. Loses nothing when it is dropped.
    pub async fn next(&self) -> BTreeSet<RobotId> {
        loop {
            let robots = self.take();
            if !robots.is_empty() {
                return robots;
            }
            self.told.notified().await;
        }
    }
}
