//! What a client sees: stored and live side in one message, every value with its age, nothing old
//! shown as live.

use jiff::tz::TimeZone;
use pasamanos_proto::model::{
    Action, ActionKind, CommandName, CommandState, FarmId, RobotId, TankId, Verdict,
    duration_from_ms, timestamp_from_ms,
};
use pasamanos_proto::pb;
use pasamanos_proto::pb::{FeederState, PresenceState};

use super::farms::{AgentView, FeederView, Now, RobotView, STALE_MS, State, TankView};
use super::outcomes::Progress;
use crate::domain::feed::{self, Today};
use crate::domain::ports::{Reversion, StoredCommand, StoredResolution, StoredVersion};

/// Whether a command has no end, or is a dose in doubt that nobody settled.
pub fn is_unsettled(c: &StoredCommand) -> bool {
    match c.state {
        CommandState::Uncertain => c.resolution.is_none(),
        state => !state.is_terminal(),
    }
}

/// The dose that locks a robot, if one does.
fn unsettled_dose(state: &State, robot: &RobotId) -> Option<CommandName> {
    let of_robot = |c: &&StoredCommand| c.robot == *robot && c.action.kind() == ActionKind::FeedNow;
    let mut commands = state.commands.values().map(|c| &c.value.command).filter(of_robot);
    commands.find(|c| is_unsettled(c)).map(|c| c.name.clone())
}

/// Ages are never negative on the wire.
fn age(now_ms: i64, at_ms: i64) -> prost_types::Duration {
    duration_from_ms((now_ms - at_ms).max(0))
}

/// An agent.
pub(super) fn agent(farm: &FarmId, v: &AgentView, now: Now) -> pb::Agent {
    pb::Agent {
        name: format!("{}/agents/{}", farm.name(), v.stored.id),
        presence: v.presence.into(),
        since: (v.presence != PresenceState::NeverSeen).then(|| timestamp_from_ms(v.since_wall_ms)),
        since_age: (v.presence != PresenceState::NeverSeen).then(|| age(now.ms, v.since_ms)),
        last_heard_age: v.heard_ms.map(|at| age(now.ms, at)),
        version: v.stored.version.clone(),
        problem: v.problem.clone(),
    }
}

impl State {
    fn online(&self, agent: &pasamanos_proto::model::AgentId) -> bool {
        self.agents.get(agent).is_some_and(|a| a.value.presence == PresenceState::Online)
    }

    /// A robot.
    pub fn robot(&self, v: &RobotView, now: Now) -> pb::Robot {
        let farm = self.info.id.name();
        let report = v.report.as_ref();
        let online = self.online(&v.stored.agent);
        let link = report.map(|r| pb::Link {
            state: if online { r.link } else { pb::LinkState::Unspecified.into() },
            since: Some(timestamp_from_ms(now.wall_ms - (now.ms - v.link_since_ms).max(0))),
            detail: r.link_detail.clone(),
            life_proven: r.life_proven,
        });
        pb::Robot {
            name: format!("{farm}/robots/{}", v.stored.id),
            agent: format!("{farm}/agents/{}", v.stored.agent),
            link,
            hoppers: report.map(|r| r.hoppers.clone()).unwrap_or_default(),
            faults: report.map(|r| r.faults.clone()).unwrap_or_default(),
            unsettled_command: unsettled_dose(self, &v.stored.id)
                .map(|n| n.to_string())
                .unwrap_or_default(),
            plc_clock_offset: report.and_then(|r| r.plc_clock_offset),
        }
    }

    /// A tank. The age of an unchanged reading is that of its robot's last good read.
    pub fn tank(&self, id: &TankId, v: &TankView, now: Now) -> pb::Tank {
        let mut feeders = self.feeders.values().filter(|f| f.value.stored.tank == *id);
        let robot = feeders.next().and_then(|f| self.robots.get(&f.value.stored.robot));
        let live =
            robot.is_some_and(|r| r.value.is_fresh(now.ms) && self.online(&r.value.stored.agent));
        let readings = v.readings.iter().map(|(r, observed_ms)| {
            let good = r.quality() == pb::Quality::Good;
            let read_ms = robot.and_then(|r| r.value.read_ms).filter(|_| good);
            let at = read_ms.map_or(*observed_ms, |read| read.max(*observed_ms));
            let stale = good && (!live || now.ms - at > 6 * STALE_MS);
            pb::Reading {
                observed_time: Some(timestamp_from_ms(now.wall_ms - (now.ms - at).max(0))),
                age: Some(age(now.ms, at)),
                quality: if stale { pb::Quality::Stale.into() } else { r.quality },
                ..*r
            }
        });
        pb::Tank {
            name: format!("{}/tanks/{id}", self.info.id.name()),
            display_name: v.stored.display_name.clone(),
            group: v.stored.group.clone(),
            readings: readings.collect(),
        }
    }

    /// A feeder.
    pub fn feeder(&self, v: &FeederView, now: Now) -> pb::Feeder {
        let (farm, s) = (self.info.id.name(), &v.stored);
        let version = s.version.as_ref();
        pb::Feeder {
            name: format!("{farm}/feeders/{}", s.id),
            robot: format!("{farm}/robots/{}", s.robot),
            tank: format!("{farm}/tanks/{}", s.tank),
            display_name: s.display_name.clone(),
            etag: version.map(|v| v.etag.clone()).unwrap_or_default(),
            config: version.map(|v| v.config.clone().into()),
            config_version: version.map_or(0, |v| v.number),
            limits: Some((&s.limits).into()),
            capabilities: Some((&s.capabilities).into()),
            status: Some(self.status(v, now)),
            pending_command: s
                .pending
                .map(|r| CommandName::new(self.info.id.clone(), r).to_string())
                .unwrap_or_default(),
            config_invalid: version.is_some_and(|v| v.config.valid().is_none()),
            config_reversion: version
                .and_then(|v| v.reversion.as_ref())
                .map(|r| reversion(&self.info.id, r)),
        }
    }

    /// Whether this is a command that is known here and has its end.
    fn is_settled(&self, name: Option<&String>) -> bool {
        let name: Option<CommandName> = name.and_then(|name| name.parse().ok());
        let known = name.and_then(|name| self.commands.get(&name.request));
        known.is_some_and(|c| !is_unsettled(&c.value.command))
    }

    fn status(&self, v: &FeederView, now: Now) -> pb::FeederStatus {
        let mut status = v.status.clone().unwrap_or_default();
        let robot = self.robots.get(&v.stored.robot).map(|r| &r.value);
        let live = self.online(&v.stored.agent) && robot.is_some_and(|r| r.is_fresh(now.ms));
        if !live || v.status.is_none() {
            status.set_state(FeederState::Unknown);
        }
        status.age = robot.and_then(|r| r.read_ms).map(|at| age(now.ms, at));
        if v.last_dose.is_some() {
            status.last_dose.clone_from(&v.last_dose);
        }
        let reason = pasamanos_proto::model::Reason::DoseUnsettled.name();
        // A dose that is settled here locks nothing, though the last report was told before its end.
        status.blocks.retain(|b| b.reason != reason || !self.is_settled(b.metadata.get("command")));
        if let Some(dose) = unsettled_dose(self, &v.stored.robot)
            && !status.blocks.iter().any(|b| b.reason == reason)
        {
            let metadata = [
                ("robot".to_owned(), v.stored.robot.to_string()),
                ("command".to_owned(), dose.to_string()),
            ];
            status.blocks.push(pb::Block { reason: reason.into(), metadata: metadata.into() });
        }
        status
    }

    /// What an action means for the feeder's day; with none, what the day is.
    pub fn preview(&self, v: &FeederView, action: Option<&Action>, now: Now) -> pb::Preview {
        let before = v.stored.version.as_ref().and_then(|v| v.config.valid());
        let after = match action {
            Some(Action::UpdateConfig { new, .. }) => Some(new),
            _ => before,
        };
        let Some(after) = after else { return pb::Preview::default() };
        let status = v.status.as_ref();
        let (held, restarts) = feed::holds_after(&v.stored, status, action);
        let today = Today {
            dispensed_mg: status.and_then(|s| s.dispensed_today_mg),
            next_dose_ms: status
                .and_then(|s| s.next_dose_time.as_ref())
                .map(|t| t.seconds.saturating_mul(1_000)),
            held,
            restarts,
        };
        let zone = TimeZone::get(&self.info.time_zone).unwrap_or(TimeZone::UTC);
        feed::preview(before, after, today, &zone, now.wall_ms)
    }

    /// The whole farm.
    pub fn farm(&self, now: Now) -> pb::FarmStatus {
        self.since(0, now).0
    }

    /// What changed after `seen`, and up to where.
    pub fn since(&self, seen: u64, now: Now) -> (pb::FarmStatus, u64) {
        let new = |changed: u64| changed > seen;
        let farm = &self.info.id;
        let status = pb::FarmStatus {
            name: farm.name(),
            display_name: self.info.display_name.clone(),
            time_zone: self.info.time_zone.clone(),
            agents: self
                .agents
                .values()
                .filter(|x| new(x.changed))
                .map(|x| agent(farm, &x.value, now))
                .collect(),
            robots: self
                .robots
                .values()
                .filter(|x| new(x.changed))
                .map(|x| self.robot(&x.value, now))
                .collect(),
            tanks: self
                .tanks
                .iter()
                .filter(|(_, x)| new(x.changed))
                .map(|(id, x)| self.tank(id, &x.value, now))
                .collect(),
            feeders: self
                .feeders
                .values()
                .filter(|x| new(x.changed))
                .map(|x| self.feeder(&x.value, now))
                .collect(),
            commands: self
                .commands
                .values()
                .filter(|x| new(x.changed) && (seen > 0 || is_unsettled(&x.value.command)))
                .map(|x| command(&x.value))
                .collect(),
            server_time: Some(timestamp_from_ms(now.wall_ms)),
        };
        (status, self.sequence)
    }
}

/// A command with its progress.
pub fn command(p: &Progress) -> pb::Command {
    let c = &p.command;
    let farm = c.name.farm.name();
    let (dispensed_mg, basis) =
        c.dispensed.map_or((None, pb::AmountBasis::Unspecified), |(mg, b)| (Some(mg), b.into()));
    pb::Command {
        name: c.name.to_string(),
        feeder: format!("{farm}/feeders/{}", c.feeder),
        robot: format!("{farm}/robots/{}", c.robot),
        state: pb::CommandState::from(p.state).into(),
        reason: c.reason.name().into(),
        reason_metadata: c.metadata.clone(),
        detail: c.detail.clone(),
        author: c.author.clone(),
        note: c.note.clone(),
        number: c.number,
        create_time: Some(timestamp_from_ms(c.created_ms)),
        settle_time: c.settled_ms.map(timestamp_from_ms),
        dispensed_mg,
        basis: basis.into(),
        resolution: c.resolution.as_ref().map(resolution),
        epoch: c.epoch,
        action: Some(action(&c.action)),
    }
}

fn action(a: &Action) -> pb::command::Action {
    use pb::command::Action as A;
    match pb::command_frame::Action::from(a) {
        pb::command_frame::Action::UpdateConfig(c) => A::UpdateConfig(c),
        pb::command_frame::Action::FeedNow(f) => A::FeedNow(f),
        pb::command_frame::Action::Hold(h) => A::Hold(h),
        pb::command_frame::Action::Resume(r) => A::Resume(r),
        pb::command_frame::Action::ResetFault(r) => A::ResetFault(r),
    }
}

/// A person's settlement.
pub fn resolution(r: &StoredResolution) -> pb::Resolution {
    let verdict = match r.what.verdict {
        Verdict::Fed => pb::ResolutionVerdict::Fed,
        Verdict::NotFed => pb::ResolutionVerdict::NotFed,
    };
    pb::Resolution {
        verdict: verdict.into(),
        fed_mg: r.what.fed_mg,
        who: r.who.clone(),
        note: r.note.clone(),
        time: Some(timestamp_from_ms(r.time_ms)),
    }
}

/// A config version of a feeder of this farm.
pub fn version(farm: &FarmId, v: StoredVersion) -> pb::ConfigVersion {
    pb::ConfigVersion {
        number: v.number,
        etag: v.etag,
        author: v.author.into(),
        create_time: Some(timestamp_from_ms(v.created_ms)),
        command: v
            .command
            .map(|r| CommandName::new(farm.clone(), r).to_string())
            .unwrap_or_default(),
        invalid: v.config.valid().is_none(),
        reversion: v.reversion.as_ref().map(|r| reversion(farm, r)),
        config: Some(v.config.into()),
    }
}

fn reversion(farm: &FarmId, r: &Reversion) -> pb::ConfigReversion {
    pb::ConfigReversion {
        restored_version: r.restored,
        displaced_version: r.displaced,
        displaced_command: CommandName::new(farm.clone(), r.command).to_string(),
    }
}
