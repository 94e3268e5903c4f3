//! The agent over real gRPC: in process with a simulated farm, and as the program that farms run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::redundant_closure_for_method_calls,
    clippy::unnecessary_debug_formatting,
    dead_code,
    reason = "tests"
)]

#[path = "../../src/testing/peer.rs"]
mod peer;

#[cfg(all(debug_assertions, target_os = "linux"))]
mod crash;
mod farm;
#[cfg(target_os = "linux")]
mod process;
mod server;
mod whole;
