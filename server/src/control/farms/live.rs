//! What an agent says of its robots, tanks and feeders, and how fresh it is.

use pasamanos_proto::model::{AgentId, FeederId, RobotId, TankId, duration_ms};
use pasamanos_proto::pb;

use super::state::{RobotView, State};

/// A robot that was not read well for this long is not shown as live, ms.
pub(in crate::control) const STALE_MS: i64 = 10_000;

impl State {
    /// Forgets what an agent said before a new session: its full report follows.
    pub fn forget_live(&mut self, agent: &AgentId) {
        let changed = self.stamp();
        for robot in self.robots.values_mut().filter(|r| r.value.stored.agent == *agent) {
            robot.value.fresh = false;
            robot.value.read_ms = None;
        }
        self.touch_agent(agent, changed);
    }

    /// Takes over a status report that counts as heard at `heard_ms`.
    pub fn put_report(&mut self, agent: &AgentId, report: pb::StatusReport, heard_ms: i64) {
        let changed = self.stamp();
        // A farm's agents speak each of their own: a copied tag map must not speak for another.
        for r in report.robots {
            let view = r.robot.parse().ok().and_then(|id: RobotId| self.robots.get_mut(&id));
            let Some(view) = view.filter(|v| v.value.stored.agent == *agent) else { continue };
            let up = r.link() == pb::LinkState::Up;
            view.value.link_since_ms = heard_ms - duration_ms(r.link_age.as_ref()).unwrap_or(0);
            if up {
                view.value.read_ms = Some(heard_ms);
            }
            view.value.fresh = up;
            view.value.report = Some(r);
            view.changed = changed;
        }
        for t in report.tanks {
            let Ok(id) = t.tank.parse::<TankId>() else { continue };
            let mut feeders = self.feeders.values().map(|f| &f.value.stored);
            let own = feeders.any(|f| f.tank == id && f.agent == *agent);
            let Some(view) = self.tanks.get_mut(&id).filter(|_| own) else { continue };
            // One reading a kind; a farm cannot make us hold more.
            let readings = t.readings.into_iter().take(16);
            let observed = |r: &pb::Reading| heard_ms - duration_ms(r.age.as_ref()).unwrap_or(0);
            view.value.readings = readings.map(|r| (r, observed(&r))).collect();
            view.changed = changed;
        }
        for f in report.feeders {
            let view = f.feeder.parse().ok().and_then(|id: FeederId| self.feeders.get_mut(&id));
            let Some(view) = view.filter(|v| v.value.stored.agent == *agent) else { continue };
            if let Some(status) = f.status {
                view.value.status = Some(status);
                view.changed = changed;
            }
        }
    }

    /// Takes over how fresh an agent's robots are; stamps those whose freshness or link changed.
    pub fn put_freshness(&mut self, agent: &AgentId, robots: &[pb::RobotFreshness], heard_ms: i64) {
        let changed = self.stamp();
        for r in robots {
            let Ok(id) = r.robot.parse::<RobotId>() else { continue };
            let view = self.robots.get_mut(&id);
            let Some(view) = view.filter(|v| v.value.stored.agent == *agent) else { continue };
            let read = duration_ms(r.last_good_read_age.as_ref()).map(|age| heard_ms - age);
            view.value.read_ms = read.or(view.value.read_ms);
            if let Some(report) = &mut view.value.report
                && report.link != r.link
            {
                report.link = r.link;
                view.value.link_since_ms = heard_ms;
                view.changed = changed;
            }
        }
        self.refresh(heard_ms);
    }

    /// Looks at every robot's freshness anew; stamps those that crossed the line.
    pub fn refresh(&mut self, now_ms: i64) {
        let crossed: Vec<_> = self
            .robots
            .iter()
            .filter_map(|(id, r)| {
                let fresh = r.value.is_fresh(now_ms);
                (fresh != r.value.fresh).then(|| (id.clone(), fresh))
            })
            .collect();
        for (id, fresh) in crossed {
            let changed = self.stamp();
            if let Some(r) = self.robots.get_mut(&id) {
                r.value.fresh = fresh;
                r.changed = changed;
            }
            for f in self.feeders.values_mut().filter(|f| f.value.stored.robot == id) {
                f.changed = changed;
                if let Some(t) = self.tanks.get_mut(&f.value.stored.tank) {
                    t.changed = changed;
                }
            }
        }
    }
}

impl RobotView {
    /// Whether its values are live.
    pub fn is_fresh(&self, now_ms: i64) -> bool {
        let up = self.report.as_ref().is_some_and(|r| r.link() == pb::LinkState::Up);
        up && self.read_ms.is_some_and(|at| now_ms - at < STALE_MS)
    }
}
