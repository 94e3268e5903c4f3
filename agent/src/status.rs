//! What the server is told of robots, tanks and feeders: built whole from what was read, then only
//! what changed is sent.

mod build;
mod diff;

pub(crate) use self::build::{Reports, reports, reports_of};
pub(crate) use self::diff::Reported;
