//! The agent between a scripted PLC and a scripted server, under paused time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests"
)]

mod ceilings;
mod chaos;
mod configs;
mod doses;
mod holds;
mod interleavings;
mod news;
mod scalars;
mod sessions;
mod settled;
mod truths;
