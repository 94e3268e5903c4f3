//! What is live: per farm one state behind one lock, each resource stamped with the sequence of its
//! last change. A watcher keeps one number and asks what came after it, so a slow one is conflated
//! and costs no queue.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pasamanos_proto::model::{
    ActionKind, AgentId, AgentName, CommandName, CommandState, FarmId, FeederId, RequestId,
    RobotId, TankId, duration_ms,
};
use pasamanos_proto::pb;
use pasamanos_proto::pb::PresenceState;
use tokio::sync::watch;

use super::outcomes::Progress;
use crate::domain::ports::{
    Clock, Farm as FarmInfo, Store, StoredAgent, StoredFarm, StoredFeeder, StoredRobot, StoredTank,
};
use crate::domain::{Error, ports::StoreError};

/// Doses kept for watchers; a reader that is further behind reads the history.
const RECENT_DOSES: usize = 64;
/// Settled commands kept for watchers.
const RECENT_COMMANDS: usize = 64;
/// A robot that was not read well for this long is not shown as live, ms.
pub(super) const STALE_MS: i64 = 10_000;

/// Something with the sequence of its last change.
#[derive(Clone, Debug)]
pub(super) struct Stamped<T> {
    pub changed: u64,
    pub value: T,
}

/// An agent and its presence.
#[derive(Clone, Debug)]
pub(super) struct AgentView {
    pub stored: StoredAgent,
    pub presence: PresenceState,
    pub since_wall_ms: i64,
    pub since_ms: i64,
    pub heard_ms: Option<i64>,
    pub problem: String,
}

/// A robot and what its agent says of it.
#[derive(Clone, Debug)]
pub(super) struct RobotView {
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
pub(super) struct TankView {
    pub stored: StoredTank,
    /// Readings with the instant at which each was observed, our monotonic clock.
    pub readings: Vec<(pb::Reading, i64)>,
}

/// A feeder and what its agent says of it.
#[derive(Clone, Debug)]
pub(super) struct FeederView {
    pub stored: StoredFeeder,
    pub status: Option<pb::FeederStatus>,
    pub last_dose: Option<pb::Dose>,
}

/// All of a farm.
#[derive(Debug)]
pub(super) struct State {
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

/// One farm.
pub struct Farm {
    /// Its id.
    pub id: FarmId,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

/// All farms that were asked for, loaded from the store on first use.
pub struct Farms {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    map: Mutex<HashMap<FarmId, Arc<Farm>>>,
}

impl Farms {
    pub(super) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, map: Mutex::default() }
    }

    /// The farm, from memory or the store.
    ///
    /// # Errors
    /// `NOT_FOUND`, or that the store cannot be asked.
    pub async fn get(&self, id: &FarmId) -> Result<Arc<Farm>, Error> {
        if let Some(farm) = self.loaded(id) {
            return Ok(farm);
        }
        let stored = self.store.farm(id).await.map_err(store_error)?;
        let stored = stored.ok_or_else(|| Error::not_found(id.name()))?;
        let farm = Arc::new(Farm::new(stored, self.clock.clone()));
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(map.entry(id.clone()).or_insert(farm).clone())
    }

    /// The farm if it is in memory.
    pub fn loaded(&self, id: &FarmId) -> Option<Arc<Farm>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Every farm in memory.
    pub fn all(&self) -> Vec<Arc<Farm>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Reads a farm's stored side anew, after a session brought its inventory.
    pub(super) async fn reload(&self, id: &FarmId) -> Result<Arc<Farm>, Error> {
        let farm = self.get(id).await?;
        let stored = self.store.farm(id).await.map_err(store_error)?;
        let stored = stored.ok_or_else(|| Error::not_found(id.name()))?;
        let here: Vec<_> = stored.unsettled.iter().map(|c| c.name.request).collect();
        farm.update(|s, now| s.load(stored, now));
        // What is live as unsettled and was settled in the store meanwhile is read anew.
        let live = farm.unsettled(|_| true);
        for name in live.into_iter().filter(|n| !here.contains(&n.request)) {
            if let Some(command) = self.store.command(&name).await.map_err(store_error)? {
                farm.update(|s, _| s.put_command(Progress::stored(command)));
            }
        }
        Ok(farm)
    }
}

/// What a failed read or write means for a caller.
pub(super) fn store_error(e: StoreError) -> Error {
    match e {
        StoreError::Unavailable(cause) => Error::unavailable(
            pasamanos_proto::model::Reason::DatabaseUnreachable,
            "the database cannot be asked now: try again with the same request_id",
        )
        .retry_after(std::time::Duration::from_secs(1))
        .caused_by(cause),
        StoreError::NotFound => Error::not_found("such resource"),
        StoreError::Broken(cause) => Error::internal(cause),
    }
}

/// The two clocks at one instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub wall_ms: i64,
    pub ms: i64,
}

impl Farm {
    fn new(stored: StoredFarm, clock: Arc<dyn Clock>) -> Self {
        let id = stored.farm.id.clone();
        let mut state = State {
            info: stored.farm.clone(),
            sequence: 1,
            agents: BTreeMap::new(),
            robots: BTreeMap::new(),
            tanks: BTreeMap::new(),
            feeders: BTreeMap::new(),
            commands: BTreeMap::new(),
            doses: VecDeque::new(),
            floor: 0,
        };
        state.load(stored, Now { wall_ms: clock.wall_ms(), ms: clock.monotonic_ms() });
        Self { id, clock, state: Mutex::new(state), changed: watch::channel(1).0 }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Both clocks.
    pub(super) fn now(&self) -> Now {
        Now { wall_ms: self.clock.wall_ms(), ms: self.clock.monotonic_ms() }
    }

    /// Reads the state.
    pub(super) fn read<T>(&self, f: impl FnOnce(&State, Now) -> T) -> T {
        f(&self.lock(), self.now())
    }

    /// Changes the state; watchers wake if anything was stamped.
    pub(super) fn update<T>(&self, f: impl FnOnce(&mut State, Now) -> T) -> T {
        let (out, sequence) = {
            let mut state = self.lock();
            let out = f(&mut state, self.now());
            (out, state.sequence)
        };
        self.changed.send_if_modified(|seen| {
            let newer = *seen != sequence;
            *seen = sequence;
            newer
        });
        out
    }

    /// Wakes at every change.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Live commands that count as unsettled, of the agents that are asked for.
    pub(super) fn unsettled(&self, of: impl Fn(&AgentId) -> bool) -> Vec<CommandName> {
        let state = self.lock();
        let commands = state.commands.values().map(|c| &c.value.command);
        let open = commands.filter(|c| super::view::is_unsettled(c) && of(&c.agent));
        open.map(|c| c.name.clone()).collect()
    }

    /// A feeder as it is stored.
    pub(super) fn feeder(&self, id: &FeederId) -> Option<FeederView> {
        self.lock().feeders.get(id).map(|f| f.value.clone())
    }
}

impl State {
    /// The stamp of a new change.
    pub fn stamp(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Takes over the stored side, keeping what is live.
    fn load(&mut self, stored: StoredFarm, now: Now) {
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
        let settled = !super::view::is_unsettled(&progress.command);
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
                && super::view::is_unsettled(c)
        });
        let pending = pending.map(|c| c.name.request);
        if let Some(view) = self.feeders.get_mut(feeder) {
            view.value.stored.pending = pending;
        }
    }

    fn forget_old_commands(&mut self) {
        let open = |p: &Progress| super::view::is_unsettled(&p.command);
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

    fn touch_agent(&mut self, agent: &AgentId, changed: u64) {
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
