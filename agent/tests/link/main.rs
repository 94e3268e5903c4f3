//! The agent over real gRPC: in process with a simulated farm, and as the program that farms run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    dead_code,
    reason = "tests"
)]

#[path = "../../src/testing/peer.rs"]
mod peer;

#[cfg(feature = "crash-points")]
mod crash;
mod farm;
#[cfg(target_os = "linux")]
mod process;
mod server;
mod whole;
