//! The control plane of Pasamanos: who may change a feeder, whether its farm is there, and what
//! became of it.
//!
//! Imports point one way: `domain ← control ← grpc`, `domain ← store`, `domain ← lease`,
//! `domain ← bus`; only [`startup`] names concrete stores. A test holds it.

pub mod admin;
pub mod bus;
pub mod clock;
pub mod config;
pub mod control;
pub mod domain;
pub mod grpc;
pub mod lease;
pub mod ops;
pub mod shutdown;
pub mod startup;
pub mod store;
pub mod telemetry;
