//! Holding a whole farm: what can be stopped is stopped, and what cannot is named.

use std::collections::BTreeMap;
use std::sync::Arc;

use pasamanos_proto::model::{
    ActionKind, AgentId, AgentName, BodyHash, CommandName, FarmId, FeederName, Mutation, Reason,
};
use pasamanos_proto::pb;
use tokio::time::Instant;

use super::Control;
use super::commands::{Caller, hold_of, same_request};
use super::farms::{FeederView, store_error};
use super::outcomes::Progress;
use crate::domain::Error;

impl Control {
    /// Holds every feeder that can be held, one transaction per agent; the commands' ids are made
    /// from the request's, so a repetition finds them.
    pub async fn hold_farm(
        self: &Arc<Self>,
        m: Mutation<FarmId, ()>,
        caller: Caller,
    ) -> Result<pb::HoldFarmResponse, Error> {
        let due = Instant::now() + caller.wait;
        let farm = self.farms.get(&m.target).await?;
        let feeders: Vec<FeederView> =
            farm.read(|s, _| s.feeders.values().map(|f| f.value.clone()).collect());
        let mut response = pb::HoldFarmResponse::default();
        let mut by_agent: BTreeMap<AgentId, Vec<FeederView>> = BTreeMap::new();
        let mut followed = Vec::new();
        for view in feeders {
            let feeder = FeederName::new(farm.id.clone(), view.stored.id.clone());
            let name = CommandName::new(farm.id.clone(), m.request.child(&feeder));
            if let Some(known) = self.store.command(&name).await.map_err(store_error)? {
                // Its name is made of this request's; one taken in from a journal has no hash.
                if known.request_hash != BodyHash::UNKNOWN {
                    same_request(&known, &caller.request_hash)?;
                }
                followed.push((self.outcomes.follow(&name), known));
            } else if view.stored.capabilities.hold {
                by_agent.entry(view.stored.agent.clone()).or_default().push(view);
            } else {
                response.not_held.push(not_held(&feeder, Reason::NotOffered));
            }
        }
        for (agent, views) in by_agent {
            let agent = AgentName::new(farm.id.clone(), agent);
            let names: Vec<_> = views
                .iter()
                .map(|v| FeederName::new(farm.id.clone(), v.stored.id.clone()))
                .collect();
            let pass = match self.gate(&agent, ActionKind::Hold).await {
                Ok(pass) => pass,
                Err(e) => {
                    response.not_held.extend(names.iter().map(|n| not_held(n, e.reason)));
                    continue;
                }
            };
            if m.validate_only {
                continue;
            }
            let mut open: Vec<_> = views.iter().zip(&names).collect();
            // A repetition of this very request may accept some of them at the same moment: those
            // are followed, and the rest is asked again.
            for _ in 0..3 {
                let now = self.clock.wall_ms();
                let command = |(view, feeder): &(&FeederView, &FeederName)| {
                    let name = CommandName::new(farm.id.clone(), m.request.child(feeder));
                    hold_of(name, view, pass.clone(), &caller, m.note.as_str(), now)
                };
                let commands: Vec<_> = open.iter().map(command).collect();
                let followers: Vec<_> =
                    commands.iter().map(|c| self.outcomes.follow(&c.name)).collect();
                match self.accept(&farm, commands, &caller.request_hash).await {
                    Ok(accepted) if accepted.len() == open.len() => {
                        followed.extend(followers.into_iter().zip(accepted));
                        open.clear();
                    }
                    Ok(_) => {
                        let mut rest = Vec::new();
                        for (one, follower) in open.drain(..).zip(followers) {
                            let name = CommandName::new(farm.id.clone(), m.request.child(one.1));
                            match self.store.command(&name).await.map_err(store_error)? {
                                Some(known) => followed.push((follower, known)),
                                None => rest.push(one),
                            }
                        }
                        open = rest;
                    }
                    Err(e) => {
                        response
                            .not_held
                            .extend(open.drain(..).map(|(_, n)| not_held(n, e.reason)));
                    }
                }
                if open.is_empty() {
                    break;
                }
            }
            response
                .not_held
                .extend(open.iter().map(|(_, n)| not_held(n, Reason::AcceptanceUnknown)));
        }
        for (mut follower, command) in followed {
            let name = command.name.clone();
            let progress = Progress::stored(command);
            // A hold without an outcome yet is listed as it is: its state says so.
            let held = match self.follow(&farm, progress.clone(), &mut follower, due).await {
                Ok(answer) => answer.command,
                Err(_) => farm
                    .read(|s, _| {
                        s.commands.get(&name.request).map(|c| super::view::command(&c.value))
                    })
                    .or_else(|| Some(super::view::command(&progress))),
            };
            response.held.extend(held);
        }
        Ok(response)
    }
}

fn not_held(feeder: &FeederName, reason: Reason) -> pb::NotHeld {
    pb::NotHeld { feeder: feeder.to_string(), reason: reason.name().into() }
}
