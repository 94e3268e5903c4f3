//! Who waits for which command. A hint for the waiting rpc only: what counts is in the store.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use pasamanos_proto::model::{CommandName, CommandState};
use tokio::sync::watch;

use crate::domain::ports::StoredCommand;

/// A command with its progress: `state` is the stored one, or SENT or EXECUTING above ACCEPTED.
#[derive(Clone, Debug)]
pub struct Progress {
    /// As it is stored.
    pub command: StoredCommand,
    /// Where it is.
    pub state: CommandState,
}

impl Progress {
    /// Of a command as it is stored.
    pub fn stored(command: StoredCommand) -> Self {
        Self { state: command.state, command }
    }
}

/// One `watch` per awaited command; the entry goes with the last waiter.
#[derive(Debug, Default)]
pub struct Outcomes(Mutex<HashMap<CommandName, watch::Sender<Option<Progress>>>>);

impl Outcomes {
    /// Waits for word of a command from now on. Call before accepting it.
    pub fn follow(&self, name: &CommandName) -> Follower<'_> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = map.entry(name.clone()).or_insert_with(|| watch::channel(None).0);
        Follower { outcomes: self, name: name.clone(), receiver: Some(sender.subscribe()) }
    }

    /// Whether somebody is accepting or awaiting this command right now.
    pub fn is_followed(&self, name: &CommandName) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    /// Tells whoever waits. An end wakes them; what is short of it they find when their time is over.
    pub fn publish(&self, progress: &Progress) {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = map.get(&progress.command.name) else { return };
        let end = progress.state.is_terminal();
        sender.send_if_modified(|word| {
            if end || word.as_ref().is_none_or(|w| !w.state.is_terminal()) {
                *word = Some(progress.clone());
            }
            end
        });
    }
}

/// One waiter.
#[derive(Debug)]
pub struct Follower<'a> {
    outcomes: &'a Outcomes,
    name: CommandName,
    receiver: Option<watch::Receiver<Option<Progress>>>,
}

impl Follower<'_> {
    /// The end once there is one that was not yet seen.
    pub async fn next(&mut self) -> Option<Progress> {
        let receiver = self.receiver.as_mut()?;
        receiver.changed().await.ok()?;
        receiver.borrow_and_update().clone()
    }

    /// The newest word, an end or not, if there was one.
    pub fn latest(&self) -> Option<Progress> {
        self.receiver.as_ref()?.borrow().clone()
    }
}

impl Drop for Follower<'_> {
    fn drop(&mut self) {
        self.receiver = None;
        let mut map = self.outcomes.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.get(&self.name).is_some_and(|sender| sender.receiver_count() == 0) {
            map.remove(&self.name);
        }
    }
}
