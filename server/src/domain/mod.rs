//! The rules, pure: no tonic, no redis, no sqlx, no clock. Time is an argument everywhere.

pub mod command;
pub mod config;
pub mod error;
pub mod feed;
pub mod liveness;
pub mod ports;
pub mod settle;

pub use error::{Error, ErrorKind};
