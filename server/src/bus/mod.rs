//! Doorbells: "there is something for this agent". Hints only: what counts is in the store, and a
//! missed ring is found by a scan. In process now; many replicas ring over Redis, ids only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use pasamanos_proto::model::AgentName;
use tokio::sync::Notify;

/// The doorbells of this process.
#[derive(Debug, Default)]
pub struct Bus(Mutex<HashMap<AgentName, Arc<Notify>>>);

impl Bus {
    fn bell(&self, agent: &AgentName) -> Arc<Notify> {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bells.entry(agent.clone()).or_default().clone()
    }

    /// Rings for an agent's session. Rings of one moment are one ring.
    pub fn ring(&self, agent: &AgentName) {
        self.bell(agent).notify_one();
    }

    /// The doorbell of an agent's session. A ring before the first wait is not lost.
    pub fn subscribe(&self, agent: &AgentName) -> Doorbell {
        Doorbell(self.bell(agent))
    }
}

/// What a session listens to.
#[derive(Debug)]
pub struct Doorbell(Arc<Notify>);

impl Doorbell {
    /// Waits for the next ring. Dropped in the middle, it loses none.
    pub async fn rung(&mut self) {
        self.0.notified().await;
    }
}
