//! Which agent's session this replica holds, and how long ago it was heard. Sessions of one agent
//! are ordered by epoch: a lower one never replaces a higher one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pasamanos_proto::model::AgentName;
use tokio::sync::mpsc;

use crate::domain::liveness::Heard;
use crate::domain::ports::{Holder, StoredCommand};

/// What a session is told by the rest of the server.
#[derive(Debug)]
pub enum ToSession {
    /// A newer session of this agent was opened.
    Superseded,
    /// A person settled a command of this agent.
    Resolved(Box<StoredCommand>),
}

/// A session as the gate sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Whether its stream lives. If not, its lease may still run.
    pub live: bool,
    /// Its epoch, id and replica.
    pub holder: Holder,
    /// Age of the last frame, by this replica's monotonic clock.
    pub age: Duration,
    /// The agent's boot id.
    pub boot_id: String,
    /// The agent's clock minus ours, ms.
    pub offset_ms: i64,
}

struct Entry {
    holder: Holder,
    heard: Heard,
    to_session: Option<mpsc::Sender<ToSession>>,
    /// When living sessions were taken over, ms; the last few.
    takeovers: VecDeque<i64>,
}

/// What became of opening a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// It is the agent's current session.
    Current,
    /// It is, and three living sessions were taken over within a minute: two machines use one
    /// identity.
    Duplicate,
    /// A session of a higher epoch is here already.
    Superseded,
}

/// Takeovers of living sessions within a minute that mean two machines.
const DUPLICATE: usize = 3;

/// The sessions of this replica.
#[derive(Default)]
pub struct Registry(Mutex<HashMap<AgentName, Entry>>);

impl Registry {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<AgentName, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a session the agent's current one, telling the one before.
    #[must_use]
    pub fn open(
        &self,
        agent: &AgentName,
        holder: Holder,
        heard: Heard,
        to_session: mpsc::Sender<ToSession>,
        now_ms: i64,
    ) -> Opening {
        let mut map = self.lock();
        if map.get(agent).is_some_and(|e| e.holder.epoch >= holder.epoch) {
            return Opening::Superseded;
        }
        let mut takeovers = VecDeque::new();
        if let Some(old) = map.remove(agent) {
            takeovers = old.takeovers;
            if let Some(to_old) = old.to_session {
                takeovers.push_back(now_ms);
                // Full means that it has something to read already, and it checks at every turn.
                let _ = to_old.try_send(ToSession::Superseded);
            }
        }
        takeovers.retain(|at| now_ms - at < 60_000);
        while takeovers.len() > DUPLICATE {
            takeovers.pop_front();
        }
        let duplicate = takeovers.len() == DUPLICATE;
        let entry = Entry { holder, heard, to_session: Some(to_session), takeovers };
        map.insert(agent.clone(), entry);
        if duplicate { Opening::Duplicate } else { Opening::Current }
    }

    /// Whether this session's stream lives here.
    pub fn is_live(&self, agent: &AgentName, epoch: i64) -> bool {
        let map = self.lock();
        map.get(agent).is_some_and(|e| e.holder.epoch == epoch && e.to_session.is_some())
    }

    /// Counts a frame of a session; answers when it counts as heard, `None` if another session is
    /// current, or if the frame is of another start of the farm PC, whose clock counts from another
    /// zero.
    pub fn frame(
        &self,
        agent: &AgentName,
        epoch: i64,
        (boot_id, agent_ms): (&str, i64),
        now_ms: i64,
    ) -> Option<i64> {
        let mut map = self.lock();
        let entry = map.get_mut(agent).filter(|e| e.holder.epoch == epoch)?;
        (entry.heard.boot_id() == boot_id).then(|| entry.heard.frame(agent_ms, now_ms))
    }

    /// Whether this session is the agent's current one here.
    pub fn is_current(&self, agent: &AgentName, epoch: i64) -> bool {
        self.lock().get(agent).is_some_and(|e| e.holder.epoch == epoch)
    }

    /// The agent's last session here, as the gate sees it.
    pub fn seen(&self, agent: &AgentName, now_ms: i64) -> Option<Seen> {
        let map = self.lock();
        let entry = map.get(agent)?;
        Some(Seen {
            live: entry.to_session.is_some(),
            holder: entry.holder.clone(),
            age: entry.heard.age(now_ms),
            boot_id: entry.heard.boot_id().to_owned(),
            offset_ms: entry.heard.offset_ms(),
        })
    }

    /// Tells the agent's live session something; `false` if there is none or it is full.
    pub fn tell(&self, agent: &AgentName, word: ToSession) -> bool {
        let map = self.lock();
        let sender = map.get(agent).and_then(|e| e.to_session.as_ref());
        sender.is_some_and(|s| s.try_send(word).is_ok())
    }

    /// The stream of a session ended; what was heard stays until the lease ends.
    pub fn close(&self, agent: &AgentName, epoch: i64) {
        if let Some(entry) = self.lock().get_mut(agent).filter(|e| e.holder.epoch == epoch) {
            entry.to_session = None;
        }
    }

    /// Every agent that has a session here, and how long ago each was heard.
    pub fn ages(&self, now_ms: i64) -> Vec<(AgentName, Duration)> {
        self.lock().iter().map(|(name, e)| (name.clone(), e.heard.age(now_ms))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens a session; it takes the one before over if that lives.
    fn open(registry: &Registry, epoch: i64, now_ms: i64) -> Opening {
        let agent: AgentName = "farms/norte/agents/agent-1".parse().expect("a name");
        let holder =
            Holder { epoch, session: epoch.to_string(), replica: "one".into(), counter: 0 };
        let (to_session, _) = mpsc::channel(1);
        registry.open(&agent, holder, Heard::new("boot-1".into(), 0, now_ms), to_session, now_ms)
    }

    fn end(registry: &Registry, epoch: i64) {
        registry.close(&"farms/norte/agents/agent-1".parse().expect("a name"), epoch);
    }

    #[test]
    fn three_takeovers_in_a_minute_are_two_machines() {
        let registry = Registry::default();
        assert_eq!(open(&registry, 1, 0), Opening::Current);
        assert_eq!(open(&registry, 2, 20_000), Opening::Current);
        assert_eq!(open(&registry, 3, 40_000), Opening::Current);
        assert_eq!(open(&registry, 4, 79_999), Opening::Duplicate, "the third within a minute");
        assert_eq!(open(&registry, 5, 139_999), Opening::Current, "a minute later it is the first");
    }

    #[test]
    fn takeovers_further_apart_and_reconnects_are_one_machine() {
        let registry = Registry::default();
        for n in 0..10 {
            assert_eq!(open(&registry, n + 1, n * 30_000), Opening::Current, "{n}");
        }
        let registry = Registry::default();
        for n in 0..10 {
            assert_eq!(open(&registry, n + 1, n), Opening::Current, "{n}");
            end(&registry, n + 1);
        }
    }

    #[test]
    fn a_lower_epoch_never_replaces_a_higher_one() {
        let registry = Registry::default();
        assert_eq!(open(&registry, 5, 0), Opening::Current);
        assert_eq!(open(&registry, 4, 1), Opening::Superseded);
        assert_eq!(open(&registry, 5, 2), Opening::Superseded);
    }
}
