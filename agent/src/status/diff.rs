//! What was told already, and what of the present must be told now.

use std::collections::BTreeMap;

use pasamanos_proto::model::{FeederId, ObservedConfig};
use pasamanos_proto::pb::{self, ReadingKind};

use super::build::Reports;

/// A reading that did not move is told again after this.
const AGAIN_MS: i64 = 60_000;
/// A next meal that moved less than this did not move.
const NEXT_S: i64 = 2;

/// What the server was told in this session.
#[derive(Debug, Default)]
pub(crate) struct Reported {
    robots: BTreeMap<String, pb::RobotReport>,
    tanks: BTreeMap<String, (pb::TankReport, i64)>,
    feeders: BTreeMap<String, pb::FeederReport>,
    configs: BTreeMap<FeederId, ObservedConfig>,
    full: bool,
}

impl Reported {
    /// After a hello with these configs.
    pub(crate) fn hello(configs: BTreeMap<FeederId, ObservedConfig>) -> Self {
        Self { configs, ..Self::default() }
    }

    /// An outcome told what the feeder runs. Without that it is told anew: before the end of a config
    /// command the server took nothing else.
    pub(crate) fn outcome(&mut self, feeder: &FeederId, config: Option<&ObservedConfig>) {
        match config {
            Some(config) => self.configs.insert(feeder.clone(), config.clone()),
            None => self.configs.remove(feeder),
        };
    }

    /// Whether the first report, which is full, was told.
    pub(crate) fn began(&self) -> bool {
        self.full
    }

    /// What must be told now; the first time everything. `None` if nothing must.
    pub(crate) fn diff(&mut self, now: Reports, now_ms: i64) -> Option<pb::StatusReport> {
        let full = !std::mem::replace(&mut self.full, true);
        let mut report = pb::StatusReport { full, ..Default::default() };
        for (id, robot) in now.robots {
            if self.robots.get(&id).is_none_or(|old| bare_robot(old) != bare_robot(&robot)) {
                report.robots.push(robot.clone());
                self.robots.insert(id, robot);
            }
        }
        for (id, tank) in now.tanks {
            let told = self.tanks.get(&id);
            if told.is_none_or(|(old, at)| moved(old, &tank) || now_ms - at >= AGAIN_MS) {
                report.tanks.push(tank.clone());
                self.tanks.insert(id, (tank, now_ms));
            }
        }
        let mut configs = now.configs;
        configs.retain(|id, config| self.configs.get(id) != Some(config));
        for (id, mut feeder) in now.feeders {
            let config = id.parse::<FeederId>().ok().and_then(|f| configs.remove_entry(&f));
            let same = self.feeders.get(&id).is_some_and(|old| same_feeder(old, &feeder));
            if same && config.is_none() {
                continue;
            }
            self.feeders.insert(id, feeder.clone());
            if let Some((id, config)) = config {
                feeder.config = Some(config.clone().into());
                feeder.config_memory_lost = now.memory_lost.contains(&id);
                self.configs.insert(id, config);
            }
            report.feeders.push(feeder);
        }
        let any = full
            || !(report.robots.is_empty() && report.tanks.is_empty() && report.feeders.is_empty());
        any.then_some(report)
    }
}

fn bare_robot(r: &pb::RobotReport) -> pb::RobotReport {
    pb::RobotReport { link_age: None, ..r.clone() }
}

fn deadband(kind: ReadingKind) -> i64 {
    match kind {
        ReadingKind::Unspecified => 0,
        ReadingKind::DissolvedOxygenUgPerL | ReadingKind::WaterTemperatureMillicelsius => 100,
        ReadingKind::OxygenSaturationPermille => 10,
        ReadingKind::PhMilli => 50,
    }
}

fn moved(old: &pb::TankReport, new: &pb::TankReport) -> bool {
    old.readings.len() != new.readings.len()
        || new.readings.iter().any(|n| {
            old.readings.iter().find(|o| o.kind == n.kind).is_none_or(|o| {
                o.quality != n.quality || (o.value - n.value).abs() >= deadband(n.kind()).max(1)
            })
        })
}

/// Ages grow by themselves, and a countdown that runs moves nothing.
fn same_feeder(old: &pb::FeederReport, new: &pb::FeederReport) -> bool {
    let bare = |r: &pb::FeederReport| {
        r.status.clone().map(|s| pb::FeederStatus { age: None, next_dose_time: None, ..s })
    };
    let next = |r: &pb::FeederReport| {
        r.status.as_ref().and_then(|s| s.next_dose_time.as_ref()).map(|t| t.seconds)
    };
    let near = match (next(old), next(new)) {
        (Some(a), Some(b)) => (a - b).abs() <= NEXT_S,
        (a, b) => a == b,
    };
    near && bare(old) == bare(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tank(value: i64) -> pb::TankReport {
        let reading = pb::Reading {
            kind: ReadingKind::DissolvedOxygenUgPerL.into(),
            value,
            quality: pb::Quality::Good.into(),
            ..Default::default()
        };
        pb::TankReport { tank: "tank-a1".into(), readings: vec![reading] }
    }

    fn tanks(value: i64) -> Reports {
        Reports { tanks: BTreeMap::from([("tank-a1".into(), tank(value))]), ..Reports::default() }
    }

    #[test]
    fn the_first_is_full_and_then_only_what_moved() {
        let mut reported = Reported::default();
        let first = reported.diff(tanks(8_000), 0);
        assert!(first.is_some_and(|r| r.full && r.tanks.len() == 1));
        assert_eq!(reported.diff(tanks(8_099), 1_000), None);
        assert!(reported.diff(tanks(8_100), 2_000).is_some_and(|r| !r.full));
        // The deadband counts from what was told, not from the value before.
        assert_eq!(reported.diff(tanks(8_199), 3_000), None);
        assert_eq!(reported.diff(tanks(8_199), 61_999), None);
        assert!(reported.diff(tanks(8_199), 62_000).is_some());
    }
}
