//! Sessions, the gate and what callers are answered, with agents that a test plays frame by frame.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that cannot go on says so by ending"
)]

#[path = "../store_contract/kit.rs"]
#[allow(dead_code, reason = "shared with the store's suite")]
mod kit;

mod callers;
mod farm;
mod links;
