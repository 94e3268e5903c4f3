//! What was last read of a robot, and how old it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use pasamanos_proto::model::FeederId;
use pasamanos_proto::pb::LinkState;

use crate::driver::{ConfigReading, DriverError, Link, RobotSnapshot};

/// An alive tag that stands still for this long makes the link FROZEN, ms.
const ALIVE_MS: i64 = 10_000;

/// A config as read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeenConfig {
    /// What was read.
    pub reading: ConfigReading,
    /// When the read began, monotonic.
    pub read_ms: i64,
}

/// What was last read of a robot.
#[derive(Clone, Debug)]
pub(crate) struct RobotView {
    /// The last good snapshot.
    pub snapshot: Option<Arc<RobotSnapshot>>,
    /// When its read began, monotonic.
    pub read_ms: Option<i64>,
    /// The link.
    pub link: LinkState,
    /// Since when, monotonic.
    pub link_since_ms: i64,
    /// For an installer.
    pub detail: String,
    /// The alive value, and since when it is that.
    pub alive: Option<(u64, i64)>,
    /// Whether a first read was tried, well or not.
    pub tried: bool,
    /// The configs.
    pub configs: BTreeMap<FeederId, SeenConfig>,
}

impl RobotView {
    /// Of a robot that was not read yet.
    pub(crate) fn unread(now_ms: i64) -> Self {
        Self {
            snapshot: None,
            read_ms: None,
            link: LinkState::Down,
            link_since_ms: now_ms,
            detail: "not read yet".into(),
            alive: None,
            tried: false,
            configs: BTreeMap::new(),
        }
    }

    /// A read that began at `read_ms` went well.
    pub(crate) fn read(&mut self, snapshot: Arc<RobotSnapshot>, read_ms: i64, now_ms: i64) {
        let alive = snapshot.alive.or(snapshot.plc_time_s.map(u64::from));
        self.alive = match (alive, self.alive) {
            (Some(new), Some((old, since))) if new == old => Some((old, since)),
            (Some(new), _) => Some((new, now_ms)),
            (None, _) => None,
        };
        self.snapshot = Some(snapshot);
        self.read_ms = Some(read_ms);
        self.tried = true;
        if self.alive.is_some_and(|(_, since)| now_ms - since >= ALIVE_MS) {
            self.set_link(LinkState::Frozen, "its alive tag stands still", now_ms);
        } else {
            self.set_link(LinkState::Up, "", now_ms);
        }
    }

    /// A read failed.
    pub(crate) fn failed(&mut self, error: &DriverError, link: &Link, now_ms: i64) {
        self.tried = true;
        let state = match (error, link.state) {
            (DriverError::Config(_), _) | (_, LinkState::ConfigError) => LinkState::ConfigError,
            _ => LinkState::Down,
        };
        let detail = if link.detail.is_empty() { error.to_string() } else { link.detail.clone() };
        self.set_link(state, &detail, now_ms);
    }

    fn set_link(&mut self, link: LinkState, detail: &str, now_ms: i64) {
        if self.link != link {
            self.link = link;
            self.link_since_ms = now_ms;
        }
        if self.detail != detail {
            detail.clone_into(&mut self.detail);
        }
    }

    /// Keeps a config unless a newer read is there already.
    pub(crate) fn config(&mut self, feeder: &FeederId, seen: SeenConfig) {
        if self.configs.get(feeder).is_none_or(|old| old.read_ms <= seen.read_ms) {
            self.configs.insert(feeder.clone(), seen);
        }
    }

    /// How old the last good snapshot is; `None` if there is none.
    pub(crate) fn age_ms(&self, now_ms: i64) -> Option<i64> {
        self.read_ms.map(|at| (now_ms - at).max(0))
    }
}
