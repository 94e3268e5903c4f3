//! Either end of an agent's stream, played by a test over real gRPC: it says what the test says, true
//! or not.

pub mod agent;
pub mod server;

pub use agent::{AgentSession, ScriptedAgent};
pub use server::{ScriptedServer, ServerSession};

use std::time::Duration;

/// Longer than anything that is waited for takes.
const PATIENCE: Duration = Duration::from_secs(20);
