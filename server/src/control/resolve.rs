//! Reading commands, and a person's settlement of one in doubt.

use std::sync::Arc;

use pasamanos_proto::model::{
    CommandName, FarmId, FeederId, FeederName, Mutation, PageRequest, Reason, Resolve,
};
use pasamanos_proto::pb;

use super::commands::{Answer, Caller};
use super::farms::{Farm, store_error};
use super::outcomes::Progress;
use super::{Control, ToSession, view};
use crate::domain::ports::{NewResolution, Page, Resolved, StoredCommand};
use crate::domain::{Error, ErrorKind};

impl Control {
    /// One command, with its progress if it has no end yet.
    pub async fn command(&self, name: &CommandName) -> Result<pb::Command, Error> {
        let farm = self.farms.get(&name.farm).await?;
        // Asked before the store: a request that is inside now may be accepted any moment.
        let inside = self.outcomes.is_followed(name);
        let stored = match self.store.command(name).await.map_err(store_error)? {
            Some(stored) => stored,
            None if inside => {
                let text = "the command is being accepted just now: ask again";
                return Err(Error::unavailable(Reason::AcceptanceUnknown, text)
                    .with("command", name)
                    .retry_after(std::time::Duration::from_secs(1)));
            }
            None => return Err(Error::not_found(name)),
        };
        self.farms.catch_up(&farm, std::slice::from_ref(&stored)).await?;
        Ok(view::command(&with_progress(&farm, stored)))
    }

    /// A farm's commands, newest first.
    pub async fn commands(
        &self,
        farm: &FarmId,
        feeder: Option<&FeederId>,
        page: &PageRequest,
    ) -> Result<Page<pb::Command>, Error> {
        let live = self.farms.get(farm).await?;
        let stored = self.store.commands(farm, feeder, page).await.map_err(store_error)?;
        self.farms.catch_up(&live, &stored.items).await?;
        let items = stored.items.into_iter().map(|c| view::command(&with_progress(&live, c)));
        Ok(Page { items: items.collect(), next: stored.next })
    }

    /// A feeder's config versions, newest first.
    pub async fn versions(
        &self,
        feeder: &FeederName,
        page: &PageRequest,
    ) -> Result<Page<pb::ConfigVersion>, Error> {
        let farm = self.farms.get(&feeder.farm).await?;
        farm.feeder(&feeder.feeder).ok_or_else(|| Error::not_found(feeder))?;
        let stored = self.store.versions(feeder, page).await.map_err(store_error)?;
        let items = stored.items.into_iter().map(|v| view::version(&feeder.farm, v));
        Ok(Page { items: items.collect(), next: stored.next })
    }

    /// A farm's doses, newest first.
    pub async fn doses(
        &self,
        farm: &FarmId,
        feeder: Option<&FeederId>,
        page: &PageRequest,
    ) -> Result<Page<pb::Dose>, Error> {
        self.farms.get(farm).await?;
        self.store.doses(farm, feeder, page).await.map_err(store_error)
    }

    /// Records what a person saw. It counts and unlocks; the state stays for the PLC to tell.
    pub async fn resolve(
        self: &Arc<Self>,
        m: Mutation<CommandName, Resolve>,
        caller: Caller,
    ) -> Result<Answer, Error> {
        let farm = self.farms.get(&m.target.farm).await?;
        let current = self.store.command(&m.target).await.map_err(store_error)?;
        let current = current.ok_or_else(|| Error::not_found(&m.target))?;
        let command = if m.validate_only {
            if !view::is_unsettled(&current) || !current.state.is_terminal() {
                return Err(not_in_doubt(&current.name, current.state));
            }
            None
        } else {
            let resolution = NewResolution {
                command: m.target,
                request: m.request,
                what: m.action,
                who: caller.author,
                note: m.note.into_string(),
                now_ms: self.clock.wall_ms(),
            };
            let this = self.clone();
            let task = self.tasks.spawn(async move { this.store.resolve(resolution).await });
            match task.await.map_err(Error::internal)?.map_err(store_error)? {
                Resolved::Done(command) => Some(*command),
                Resolved::NotInDoubt(c) => return Err(not_in_doubt(&c.name, c.state)),
                Resolved::Reused(c) => {
                    let text = "this request_id stands for another settlement: make a new UUID";
                    return Err(Error::new(
                        ErrorKind::AlreadyExists,
                        Reason::RequestIdReused,
                        text,
                    )
                    .with("command", &c.name));
                }
            }
        };
        if let Some(command) = &command {
            let progress = Progress::stored(command.clone());
            farm.update(|s, _| s.put_command(progress.clone()));
            self.outcomes.publish(&progress);
            let agent =
                pasamanos_proto::model::AgentName::new(farm.id.clone(), command.agent.clone());
            // Not told now, it is told after the next Welcome.
            self.registry.tell(&agent, ToSession::Resolved(Box::new(command.clone())));
        }
        Ok(farm.read(|s, now| {
            let view = s.feeders.get(&current.feeder).map(|f| &f.value);
            Answer {
                command: command.map(|c| view::command(&Progress::stored(c))),
                feeder: view.map(|v| s.feeder(v, now)),
                preview: view.map(|v| s.preview(v, None, now)).unwrap_or_default(),
            }
        }))
    }
}

/// The store has the last word; what is live adds only SENT and EXECUTING.
pub(super) fn with_progress(farm: &Farm, stored: StoredCommand) -> Progress {
    let live = farm.read(|s, _| s.commands.get(&stored.name.request).map(|c| c.value.state));
    let mut progress = Progress::stored(stored);
    if let Some(state) = live.filter(|s| !s.is_terminal() && !progress.state.is_terminal()) {
        progress.state = state;
    }
    progress
}

fn not_in_doubt(name: &CommandName, state: pasamanos_proto::model::CommandState) -> Error {
    let text = "this command is not in doubt, or was settled already: read it again";
    Error::precondition(Reason::NotInDoubt, text).with("command", name).with(
        "state",
        pb::CommandState::from(state).as_str_name().trim_start_matches("COMMAND_STATE_"),
    )
}
