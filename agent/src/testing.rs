//! A scripted PLC, a scripted server, and a rig that puts an agent between them, for tests under
//! paused time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod peer;
mod plc;
mod rig;
mod server;

pub(crate) use self::peer::Peer;
pub(crate) use self::plc::{Fate, Ran, ScriptedPlc};
pub(crate) use self::rig::{FEEDER, OTHER, Rig, config};
