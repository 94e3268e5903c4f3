//! What the end-to-end tests and the demo share: the real binaries as processes, on free ports, with
//! their own data, and clients that speak to them from outside.

pub mod books;
pub mod caller;
pub mod check;
pub mod client;
pub mod fault_proxy;
pub mod files;
pub mod journal;
pub mod kills;
pub mod paths;
pub mod plc;
pub mod process;
pub mod redis;
pub mod scripted;
pub mod sim;
pub mod stack;
pub mod wait;
pub mod wall_clock;

pub use client::Client;
pub use fault_proxy::FaultProxy;
pub use plc::Plc;
pub use process::Process;
pub use redis::Redis;
pub use stack::{Stack, StackBuilder};
pub use wait::wait_for;
