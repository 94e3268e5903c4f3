//! Accepting a command and following it to its outcome. The order of checks is fixed: request id,
//! etag and locks, gate; a refused request reserves nothing.

use std::sync::Arc;
use std::time::Duration;

use pasamanos_faults::{crash_point, planted};
use pasamanos_proto::model::{
    Action, ActionKind, BodyHash, CommandName, CommandState, FeederName, Mutation, Reason,
    UpdateConfig, Violations,
};
use pasamanos_proto::pb;
use tokio::time::{Instant, timeout_at};

use super::Control;
use super::farms::{Farm, FeederView, store_error};
use super::gate::Pass;
use super::outcomes::{Follower, Progress};
use super::resolve::with_progress;
use super::watch::stopping_error;
use crate::domain::ports::{AcceptError, NewCommand, StoredCommand};
use crate::domain::{Error, ErrorKind, config, feed};

/// The writer must take a command within this, or it is refused with nothing left behind.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Who asks, and for how long they wait.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Shown as the command's author.
    pub author: String,
    /// Until the answer is due.
    pub wait: Duration,
    /// The hash of the request as it was sent, for idempotence.
    pub request_hash: BodyHash,
}

/// What a mutating rpc answers.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The command; `None` with `validate_only`.
    pub command: Option<pb::Command>,
    /// The feeder as it is now.
    pub feeder: Option<pb::Feeder>,
    /// What it means for the day.
    pub preview: pb::Preview,
}

/// What a request asks for, before it is merged with what there is.
pub(super) enum Ask {
    Update(UpdateConfig),
    Do(Action),
}

impl Control {
    /// Changes a feeder's config.
    pub async fn update_config(
        self: &Arc<Self>,
        m: Mutation<FeederName, UpdateConfig>,
        caller: Caller,
    ) -> Result<Answer, Error> {
        let Mutation { target, request, validate_only, note, action } = m;
        let action = Ask::Update(action);
        self.change(Mutation { target, request, validate_only, note, action }, caller).await
    }

    /// Feeds now, holds, resumes or resets a fault.
    pub async fn act(
        self: &Arc<Self>,
        m: Mutation<FeederName, Action>,
        caller: Caller,
    ) -> Result<Answer, Error> {
        let Mutation { target, request, validate_only, note, action } = m;
        let action = Ask::Do(action);
        self.change(Mutation { target, request, validate_only, note, action }, caller).await
    }

    async fn change(
        self: &Arc<Self>,
        m: Mutation<FeederName, Ask>,
        caller: Caller,
    ) -> Result<Answer, Error> {
        let due = Instant::now() + caller.wait;
        let name = CommandName::new(m.target.farm.clone(), m.request);
        let farm = self.farms.get(&m.target.farm).await?;

        let mut follower = self.outcomes.follow(&name);
        if let Some(known) = self.store.command(&name).await.map_err(store_error)? {
            if known.request_hash == BodyHash::UNKNOWN {
                same_intention(&known, &m.target, &m.action)?;
            } else {
                same_request(&known, &caller.request_hash)?;
            }
            self.farms.catch_up(&farm, std::slice::from_ref(&known)).await?;
            // A dose that runs is told as one to whoever asks again, too.
            let progress = with_progress(&farm, known);
            return self.follow(&farm, progress, &mut follower, due).await;
        }

        let view = farm.feeder(&m.target.feeder).ok_or_else(|| Error::not_found(&m.target))?;
        let (action, etag) = decide(&farm, &m.target, &view, m.action)?;
        let agent = pasamanos_proto::model::AgentName::new(
            m.target.farm.clone(),
            view.stored.agent.clone(),
        );
        let pass = self.gate(&agent, action.kind()).await?;
        if m.validate_only {
            return Ok(farm.read(|s, now| Answer {
                command: None,
                feeder: Some(s.feeder(&view, now)),
                preview: s.preview(&view, Some(&action), now),
            }));
        }

        let new = NewCommand {
            name,
            feeder: m.target.feeder,
            robot: view.stored.robot.clone(),
            agent: agent.agent.clone(),
            epoch: pass.epoch,
            action,
            etag,
            request_hash: caller.request_hash,
            start_before: pass.start_before,
            author: caller.author,
            note: m.note.into_string(),
            now_ms: self.clock.wall_ms(),
        };
        let accepted = self.accept(&farm, vec![new], &caller.request_hash).await?;
        let Some(accepted) = accepted.into_iter().next() else {
            return Err(Error::internal(anyhow::anyhow!("an acceptance without a command")));
        };
        self.follow(&farm, Progress::stored(accepted), &mut follower, due).await
    }

    /// Commits commands of one agent and wakes its session, in a task that a dropped request cannot
    /// cancel.
    pub(super) async fn accept(
        self: &Arc<Self>,
        farm: &Arc<Farm>,
        commands: Vec<NewCommand>,
        request_hash: &BodyHash,
    ) -> Result<Vec<StoredCommand>, Error> {
        if self.stopping.is_cancelled() {
            return Err(stopping_error());
        }
        let (this, farm_, names) = (
            self.clone(),
            farm.clone(),
            commands.iter().map(|c| (c.name.clone(), c.feeder.clone())).collect::<Vec<_>>(),
        );
        let committed = self.tasks.spawn(async move {
            let agent = commands.first().map(|c| c.agent.clone());
            crash_point!("server.accept.before-commit");
            let accepted = this.store.accept(commands, PATIENCE).await?;
            for command in &accepted {
                let action = command.action.kind().as_str();
                metrics::counter!("pasamanos_commands_accepted_total", "action" => action)
                    .increment(1);
            }
            crash_point!("server.accept.committed");
            for command in &accepted {
                farm_.update(|s, _| s.put_command(Progress::stored(command.clone())));
            }
            if let Some(agent) = agent {
                let agent = pasamanos_proto::model::AgentName::new(farm_.id.clone(), agent);
                let epoch = accepted.first().map_or(0, |c| c.epoch);
                // Its stream ended between gate and commit: its end did not see these.
                if this.registry.is_live(&agent, epoch) {
                    this.bus.ring(&agent);
                } else {
                    this.doubt_orphans(&farm_, &accepted).await;
                }
            }
            Ok(accepted)
        });
        let Some((name, feeder)) = names.into_iter().next() else { return Ok(Vec::new()) };
        let result = committed.await.map_err(Error::internal)?;
        result.or_else(|e| match e {
            AcceptError::Known(known) => {
                same_request(&known, request_hash)?;
                Ok(vec![*known])
            }
            e => Err(refused(farm, &name, &FeederName::new(farm.id.clone(), feeder), e)),
        })
    }

    /// Waits for the outcome; answers what there is when it is due.
    pub(super) async fn follow(
        &self,
        farm: &Arc<Farm>,
        mut progress: Progress,
        follower: &mut Follower<'_>,
        due: Instant,
    ) -> Result<Answer, Error> {
        while !progress.state.is_terminal() {
            tokio::select! {
                () = self.stopping.cancelled() => {
                    return Err(stopping_error().with("command", &progress.command.name));
                }
                word = timeout_at(due, follower.next()) => match word {
                    Ok(Some(newer)) => progress = newer,
                    Ok(None) => return Err(Error::internal(anyhow::anyhow!("lost a follower"))),
                    Err(_) => {
                        let progress = follower.latest().unwrap_or(progress);
                        return pending(farm, &progress);
                    }
                }
            }
        }
        settled(farm, &progress)
    }
}

/// The same id with another body is another intention under a used name.
pub(super) fn same_request(known: &StoredCommand, request_hash: &BodyHash) -> Result<(), Error> {
    if known.request_hash == *request_hash || planted!("server-request-id-body-ignored") {
        return Ok(());
    }
    Err(reused(&known.name))
}

fn reused(command: &CommandName) -> Error {
    let text = "this request_id stands for another request: make a new UUID for a new intention";
    Error::new(ErrorKind::AlreadyExists, Reason::RequestIdReused, text).with("command", command)
}

/// A command that was taken in from a journal: what the request was is not known, what it came to is.
fn same_intention(known: &StoredCommand, target: &FeederName, ask: &Ask) -> Result<(), Error> {
    let same = match (ask, &known.action) {
        (Ask::Do(action), known) => action == known,
        (Ask::Update(update), Action::UpdateConfig { new, .. }) => {
            new.merged(&update.patch, &update.fields) == *new
        }
        (Ask::Update(_), _) => false,
    };
    if same && known.feeder == target.feeder { Ok(()) } else { Err(reused(&known.name)) }
}

/// Checks a request against the feeder as it is; what it will run, and the etag it needs.
fn decide(
    farm: &Farm,
    target: &FeederName,
    view: &FeederView,
    ask: Ask,
) -> Result<(Action, Option<String>), Error> {
    let feeder = &view.stored;
    match ask {
        Ask::Update(update) => {
            if let Some(version) = feeder.version.as_ref().filter(|v| v.etag != update.etag) {
                let now = farm.read(|s, now| s.feeder(view, now));
                return Err(config::etag_mismatch(target, &version.etag).with_feeder(now));
            }
            let (new, fields) = config::merge(feeder, &update)?;
            if let Some(pending) = feeder.pending {
                return Err(in_flight(target, &CommandName::new(target.farm.clone(), pending)));
            }
            let base = feeder.version.as_ref().map(|v| v.config.clone().into()).unwrap_or_default();
            // Nothing to change is still asked of the PLC: APPLIED means that it was read.
            let fields = if fields.is_empty() { update.fields } else { fields };
            Ok((Action::UpdateConfig { base, new, fields }, Some(update.etag)))
        }
        Ask::Do(action) => {
            match &action {
                Action::FeedNow { portion_mg } => {
                    let mut v = Violations::default();
                    config::portion(feeder, "portion_mg", *portion_mg, &mut v);
                    v.check()?;
                    let status = farm.read(|s, now| s.feeder(view, now)).status;
                    feed::may_feed_now(feeder, status.as_ref(), *portion_mg)?;
                }
                Action::Hold | Action::Resume if !feeder.capabilities.hold => {
                    let text = "this feeder cannot be held from here: stop it at the machine";
                    return Err(Error::precondition(Reason::NotOffered, text)
                        .with("feeder", &feeder.id)
                        .with("capability", "hold"));
                }
                Action::ResetFault { fault_code } => fault_matches(view, *fault_code)?,
                _ => {}
            }
            Ok((action, None))
        }
    }
}

fn fault_matches(view: &FeederView, code: u32) -> Result<(), Error> {
    let Some(status) = &view.status else { return Ok(()) };
    if status.faults.iter().any(|f| f.code == code) {
        return Ok(());
    }
    let text = "that fault is not the active one: look at the feeder again";
    let e = Error::precondition(Reason::FaultChanged, text).with("feeder", &view.stored.id);
    Err(match status.faults.first() {
        Some(active) => e.with("fault_code", active.code),
        None => e,
    })
}

fn in_flight(feeder: &FeederName, command: &CommandName) -> Error {
    let text = "another config change of this feeder is not settled: wait for it, then read again";
    Error::new(ErrorKind::Aborted, Reason::ConfigInFlight, text)
        .with("feeder", feeder)
        .with("command", command)
}

fn refused(farm: &Farm, name: &CommandName, feeder: &FeederName, e: AcceptError) -> Error {
    match e {
        AcceptError::NotTaken => Error::unavailable(
            Reason::DatabaseUnreachable,
            "the database is busy or down: nothing was changed; try again with the same request_id",
        )
        .retry_after(Duration::from_secs(1)),
        AcceptError::Unknown => Error::unavailable(
            Reason::AcceptanceUnknown,
            "the command may have been accepted: ask GetCommand before anything else",
        )
        .with("command", name),
        AcceptError::Store(e) => store_error(e),
        AcceptError::Known(known) => Error::internal(anyhow::anyhow!("known {} again", known.name)),
        AcceptError::Reused(settled) => reused(&settled),
        AcceptError::EpochChanged => Error::unavailable(
            Reason::AgentMoving,
            "the farm PC just reconnected: try again with the same request_id",
        )
        .with("agent", &feeder.farm)
        .retry_after(Duration::from_secs(1)),
        AcceptError::EtagMismatch => {
            let now = farm.feeder(&feeder.feeder);
            let etag = now.as_ref().and_then(|v| v.stored.version.as_ref()).map(|v| v.etag.clone());
            let e = config::etag_mismatch(feeder, &etag.unwrap_or_default());
            match now {
                Some(view) => e.with_feeder(farm.read(|s, now| s.feeder(&view, now))),
                None => e,
            }
        }
        AcceptError::ConfigInFlight(command) => in_flight(feeder, &command),
        AcceptError::DoseUnsettled(command) => Error::precondition(
            Reason::DoseUnsettled,
            "an earlier dose of this robot is not settled: settle it with ResolveCommand",
        )
        .with("command", command),
    }
}

fn answer(farm: &Farm, progress: &Progress) -> Answer {
    farm.read(|s, now| {
        let view = s.feeders.get(&progress.command.feeder).map(|f| &f.value);
        Answer {
            command: Some(super::view::command(progress)),
            feeder: view.map(|v| s.feeder(v, now)),
            preview: view.map(|v| s.preview(v, None, now)).unwrap_or_default(),
        }
    })
}

fn settled(farm: &Farm, progress: &Progress) -> Result<Answer, Error> {
    let answer = answer(farm, progress);
    let c = &progress.command;
    let changed_at_farm = c.state == CommandState::Rejected
        && c.reason == Reason::ChangedAtFarm
        && c.action.kind() == ActionKind::UpdateConfig;
    if !changed_at_farm {
        return Ok(answer);
    }
    let text = "the config was changed at the farm: look at the current one and decide again";
    let e = Error::new(ErrorKind::Aborted, Reason::ChangedAtFarm, text)
        .with("feeder", &c.feeder)
        .with("command", &c.name);
    Err(match answer.feeder {
        Some(feeder) => e.with_feeder(feeder),
        None => e,
    })
}

/// The wait is over before the outcome: a dose that started is told as it is.
fn pending(farm: &Farm, progress: &Progress) -> Result<Answer, Error> {
    let started = progress.state == CommandState::Executing;
    if started && progress.command.action.kind() == ActionKind::FeedNow {
        return Ok(answer(farm, progress));
    }
    let text = "no outcome yet: the command goes on; ask GetCommand what became of it";
    Err(Error::new(ErrorKind::DeadlineExceeded, Reason::OutcomePending, text)
        .with("command", &progress.command.name))
}

/// Used by `holds`: one farm-wide command per feeder.
pub(super) fn hold_of(
    name: CommandName,
    view: &FeederView,
    pass: Pass,
    caller: &Caller,
    note: &str,
    now_ms: i64,
) -> NewCommand {
    NewCommand {
        name,
        feeder: view.stored.id.clone(),
        robot: view.stored.robot.clone(),
        agent: view.stored.agent.clone(),
        epoch: pass.epoch,
        action: Action::Hold,
        etag: None,
        request_hash: caller.request_hash,
        start_before: pass.start_before,
        author: caller.author.clone(),
        note: note.to_owned(),
        now_ms,
    }
}
