//! What is known of one farm: what is stored of it, and what its agents said last. Each resource bears
//! the sequence of its last change.

use std::collections::{BTreeMap, VecDeque};

use pasamanos_proto::model::{
    ActionKind, AgentId, AgentName, CommandState, FeederId, RequestId, RobotId, TankId,
};
use pasamanos_proto::pb;
use pasamanos_proto::pb::PresenceState;

use super::super::outcomes::Progress;
use super::super::view;
use super::Now;
use crate::domain::ports::{
    Farm as FarmInfo, StoredAgent, StoredFarm, StoredFeeder, StoredRobot, StoredTank,
};

/// Doses kept for watchers; a reader that is further behind reads the history.
const RECENT_DOSES: usize = 64;
/// Settled commands kept for watchers.
const RECENT_COMMANDS: usize = 64;

/// Something with the sequence of its last change.
#[derive(Clone, Debug)]
pub(in crate::control) struct Stamped<T> {
    pub changed: u64,
    pub value: T,
}

/// An agent and its presence.
#[derive(Clone, Debug)]
pub(in crate::control) struct AgentView {
    pub stored: StoredAgent,
    pub presence: PresenceState,
    pub since_wall_ms: i64,
    pub since_ms: i64,
    pub heard_ms: Option<i64>,
    pub problem: String,
}

/// A robot and what its agent says of it.
#[derive(Clone, Debug)]
pub(in crate::control) struct RobotView {
    pub stored: StoredRobot,
    pub report: Option<pb::RobotReport>,
    /// When its link state began, our monotonic clock.
    pub link_since_ms: i64,
    /// When its last good read was made, our monotonic clock.
    pub read_ms: Option<i64>,
    /// Whether it was fresh when last looked at: a change of it is a change to show.
    pub fresh: bool,
}

/// A tank and its readings.
#[derive(Clone, Debug)]
pub(in crate::control) struct TankView {
    pub stored: StoredTank,
    /// Readings with the instant at which each was observed, our monotonic clock.
    pub readings: Vec<(pb::Reading, i64)>,
}

/// A feeder and what its agent says of it.
#[derive(Clone, Debug)]
pub(in crate::control) struct FeederView {
    pub stored: StoredFeeder,
    pub status: Option<pb::FeederStatus>,
    pub last_dose: Option<pb::Dose>,
}

/// All of a farm.
#[derive(Debug)]
pub(in crate::control) struct State {
    pub info: FarmInfo,
    pub sequence: u64,
    pub agents: BTreeMap<AgentId, Stamped<AgentView>>,
    pub robots: BTreeMap<RobotId, Stamped<RobotView>>,
    pub tanks: BTreeMap<TankId, Stamped<TankView>>,
    pub feeders: BTreeMap<FeederId, Stamped<FeederView>>,
    pub commands: BTreeMap<RequestId, Stamped<Progress>>,
    pub doses: VecDeque<Stamped<pb::Dose>>,
    /// What was forgotten: a watcher that saw less needs a snapshot.
    pub floor: u64,
}

impl State {
    /// The stamp of a new change.
    pub fn stamp(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Takes over the stored side, keeping what is live.
    pub(super) fn load(&mut self, stored: StoredFarm, now: Now) {
        let changed = self.stamp();
        self.info = stored.farm;
        for agent in stored.agents {
            let seen = agent.seen_ms;
            let presence =
                if agent.epoch == 0 { PresenceState::NeverSeen } else { PresenceState::Offline };
            let view = self.agents.entry(agent.id.clone()).or_insert_with(|| Stamped {
                changed,
                value: AgentView {
                    stored: agent.clone(),
                    presence,
                    since_wall_ms: seen.unwrap_or(now.wall_ms),
                    since_ms: now.ms - seen.map_or(0, |s| (now.wall_ms - s).max(0)),
                    heard_ms: None,
                    problem: String::new(),
                },
            });
            view.changed = changed;
            view.value.stored = agent;
        }
        for tank in stored.tanks {
            let view = self.tanks.entry(tank.id.clone()).or_insert_with(|| Stamped {
                changed,
                value: TankView { stored: tank.clone(), readings: Vec::new() },
            });
            view.changed = changed;
            view.value.stored = tank;
        }
        for robot in stored.robots {
            let view = self.robots.entry(robot.id.clone()).or_insert_with(|| Stamped {
                changed,
                value: RobotView {
                    stored: robot.clone(),
                    report: None,
                    link_since_ms: now.ms,
                    read_ms: None,
                    fresh: false,
                },
            });
            view.changed = changed;
            view.value.stored = robot;
        }
        for command in stored.unsettled {
            self.put_command(Progress::stored(command));
        }
        for feeder in stored.feeders {
            self.put_feeder(feeder);
        }
        for dose in stored.last_doses {
            let id = dose.feeder.rsplit('/').next().and_then(|id| id.parse().ok());
            if let Some(view) = id.and_then(|id: FeederId| self.feeders.get_mut(&id)) {
                view.value.last_dose = Some(dose);
            }
        }
    }

    /// Takes over a feeder as it is stored, unless a newer version of its config is known.
    pub fn put_feeder(&mut self, mut feeder: StoredFeeder) {
        let changed = self.stamp();
        let id = feeder.id.clone();
        if let Some(view) = self.feeders.get_mut(&id) {
            let number = |f: &StoredFeeder| f.version.as_ref().map_or(0, |v| v.number);
            if number(&view.value.stored) > number(&feeder) {
                feeder.version.clone_from(&view.value.stored.version);
            }
            view.changed = changed;
            view.value.stored = feeder;
        } else {
            let value = FeederView { stored: feeder, status: None, last_dose: None };
            self.feeders.insert(id.clone(), Stamped { changed, value });
        }
        self.mark_pending(&id);
    }

    /// Takes over a command. Older knowledge never replaces newer: progress no end, and doubt no
    /// known end; a person's settlement, once there, stays.
    pub fn put_command(&mut self, mut progress: Progress) {
        let id = progress.command.name.request;
        if let Some(known) = self.commands.get(&id).map(|c| &c.value) {
            let (old, new) = (known.state, progress.state);
            // The store knows no progress: what it says of an open command is no news.
            let takes_back = !new.is_terminal() && new < old
                || old.is_terminal() && old != new && new == CommandState::Uncertain;
            if progress.command.resolution.is_none() {
                progress.command.resolution.clone_from(&known.command.resolution);
            }
            if takes_back {
                let (state, resolution) = (known.state, progress.command.resolution.take());
                progress = Progress { command: known.command.clone(), state };
                progress.command.resolution = resolution.or(progress.command.resolution);
            }
            if known.state == progress.state && known.command == progress.command {
                return;
            }
        }
        let changed = self.stamp();
        let feeder = progress.command.feeder.clone();
        let settled = !view::is_unsettled(&progress.command);
        self.commands.insert(id, Stamped { changed, value: progress });
        self.mark_pending(&feeder);
        if let Some(view) = self.feeders.get_mut(&feeder) {
            view.changed = changed;
            if let Some(robot) = self.robots.get_mut(&view.value.stored.robot) {
                robot.changed = changed;
            }
        }
        if settled {
            self.forget_old_commands();
        }
    }

    /// A feeder's pending command is the one that the live commands say.
    fn mark_pending(&mut self, feeder: &FeederId) {
        let pending = self.commands.values().map(|c| &c.value.command).find(|c| {
            c.feeder == *feeder
                && c.action.kind() == ActionKind::UpdateConfig
                && view::is_unsettled(c)
        });
        let pending = pending.map(|c| c.name.request);
        if let Some(view) = self.feeders.get_mut(feeder) {
            view.value.stored.pending = pending;
        }
    }

    fn forget_old_commands(&mut self) {
        let open = |p: &Progress| view::is_unsettled(&p.command);
        let mut settled: Vec<_> = self
            .commands
            .iter()
            .filter(|(_, c)| !open(&c.value))
            .map(|(id, c)| (c.changed, *id))
            .collect();
        if settled.len() <= RECENT_COMMANDS {
            return;
        }
        settled.sort_unstable();
        for (changed, id) in &settled[..settled.len() - RECENT_COMMANDS] {
            self.commands.remove(id);
            self.floor = self.floor.max(*changed);
        }
    }

    /// Takes over doses that are new in the history, oldest first.
    pub fn put_doses(&mut self, doses: Vec<pb::Dose>) {
        for dose in doses {
            let changed = self.stamp();
            let id = dose.feeder.rsplit('/').next().and_then(|id| id.parse().ok());
            // A meal that did not happen is history, not the last meal.
            let fell = dose.outcome() != pb::DoseOutcome::Skipped;
            let view = id.and_then(|id: FeederId| self.feeders.get_mut(&id));
            if let Some(view) = view.filter(|_| fell) {
                view.value.last_dose = Some(dose.clone());
                view.changed = changed;
            }
            self.doses.push_back(Stamped { changed, value: dose });
            if self.doses.len() > RECENT_DOSES {
                self.doses.pop_front();
            }
        }
    }

    /// Sets an agent's presence; its feeders and robots show it too.
    pub fn put_presence(&mut self, agent: &AgentName, presence: PresenceState, now: Now) {
        let Some(view) = self.agents.get(&agent.agent) else { return };
        if view.value.presence == presence {
            return;
        }
        let changed = self.stamp();
        if let Some(view) = self.agents.get_mut(&agent.agent) {
            view.changed = changed;
            view.value.presence = presence;
            view.value.since_wall_ms = now.wall_ms;
            view.value.since_ms = now.ms;
        }
        self.touch_agent(&agent.agent, changed);
    }

    pub(super) fn touch_agent(&mut self, agent: &AgentId, changed: u64) {
        for robot in self.robots.values_mut().filter(|r| r.value.stored.agent == *agent) {
            robot.changed = changed;
        }
        for feeder in self.feeders.values_mut().filter(|f| f.value.stored.agent == *agent) {
            feeder.changed = changed;
        }
        for tank in self.tanks.values_mut() {
            tank.changed = changed;
        }
    }
}
