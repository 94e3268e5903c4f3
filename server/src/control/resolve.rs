//! Reading commands, and a person's settlement of one in doubt.

use std::sync::Arc;

use pasamanos_proto::model::{
    CommandName, FarmId, FeederId, FeederName, Mutation, PageRequest, Reason, Resolve,
};
use pasamanos_proto::pb;

use super::commands::{Answer, Caller};
use super::farms::store_error;
use super::outcomes::Progress;
use super::{Control, ToSession, view};
use crate::domain::Error;
use crate::domain::ports::{NewResolution, Page, Resolved};

impl Control {
    /// One command, with its progress if it is live.
    pub async fn command(&self, name: &CommandName) -> Result<pb::Command, Error> {
        let farm = self.farms.get(&name.farm).await?;
        let live = farm.read(|s, _| s.commands.get(&name.request).map(|c| c.value.clone()));
        if let Some(live) = live {
            return Ok(view::command(&live));
        }
        let stored = self.store.command(name).await.map_err(store_error)?;
        let stored = stored.ok_or_else(|| Error::not_found(name))?;
        Ok(view::command(&Progress::stored(stored)))
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
        let items = stored.items.into_iter().map(|c| {
            let newer = live.read(|s, _| s.commands.get(&c.name.request).map(|l| l.value.clone()));
            view::command(&newer.unwrap_or_else(|| Progress::stored(c)))
        });
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
            }
        };
        if let Some(command) = &command {
            let progress = Progress::stored(command.clone());
            farm.update(|s, _| s.put_command(progress.clone()));
            self.outcomes.publish(&progress);
            let agent = pasamanos_proto::model::AgentName::new(farm.id.clone(), command.agent.clone());
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

fn not_in_doubt(name: &CommandName, state: pasamanos_proto::model::CommandState) -> Error {
    let text = "this command is not in doubt, or was settled already: read it again";
    Error::precondition(Reason::NotInDoubt, text)
        .with("command", name)
        .with("state", pb::CommandState::from(state).as_str_name().trim_start_matches("COMMAND_STATE_"))
}
