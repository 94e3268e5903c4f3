//! Builds the reports of all that there is.

use std::collections::{BTreeMap, BTreeSet};

use pasamanos_proto::model::{FeederId, ObservedConfig, duration_from_ms, timestamp_from_ms};
use pasamanos_proto::pb::{self, FeederState, LinkState, Quality};

use crate::calendar::Moment;
use crate::driver::{FeederDescription, RobotSnapshot};
use crate::executor::{self, refusals};
use crate::farm::{Farm, RobotCell, RobotView};
use crate::ledger::{Book, State};

/// All reports, by slug.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// Of robots.
    pub robots: BTreeMap<String, pb::RobotReport>,
    /// Of tanks.
    pub tanks: BTreeMap<String, pb::TankReport>,
    /// Of feeders, without their configs.
    pub feeders: BTreeMap<String, pb::FeederReport>,
    /// The configs that the PLCs run, of feeders whose config no command will report.
    pub configs: BTreeMap<FeederId, ObservedConfig>,
    /// Those of them that a PLC came up with after it lost its memory.
    pub memory_lost: BTreeSet<FeederId>,
}

/// Builds them from what was last read.
pub(crate) async fn reports(farm: &Farm) -> Reports {
    let mut all = Reports::default();
    for cell in farm.robots.values() {
        add(cell, &mut all).await;
    }
    all
}

/// Of one robot alone.
pub(crate) async fn reports_of(cell: &RobotCell) -> Reports {
    let mut of = Reports::default();
    add(cell, &mut of).await;
    of
}

async fn add(cell: &RobotCell, all: &mut Reports) {
    let now = cell.ledger.now();
    let view = cell.view().clone();
    let state = cell.ledger.look().await;
    let fresh = is_fresh(cell, &view, &now);
    all.robots.insert(cell.id.to_string(), robot(cell, &view, &state, &now));
    for feeder in &cell.feeders {
        let Some(book) = state.feeders.get(&feeder.feeder) else { continue };
        if let Some(snapshot) = &view.snapshot {
            tank(feeder, snapshot, &view, fresh, &now, all);
        }
        let status = Status { cell, view: &view, state: &state, book, now: &now, fresh };
        let report = pb::FeederReport {
            feeder: feeder.feeder.to_string(),
            status: Some(status.build(feeder)),
            config: None,
            config_memory_lost: false,
        };
        all.feeders.insert(feeder.feeder.to_string(), report);
        let busy = cell.control(&feeder.feeder).is_none_or(crate::farm::Control::config_busy);
        if let Some(seen) = view.configs.get(&feeder.feeder).filter(|_| fresh && !busy)
            && !book.is_loose(&seen.reading.config)
        {
            if book.is_memory_lost(&seen.reading.config) {
                all.memory_lost.insert(feeder.feeder.clone());
            }
            all.configs.insert(feeder.feeder.clone(), seen.reading.config.clone());
        }
    }
}

/// Whether what was read is new enough to be shown as live.
fn is_fresh(cell: &RobotCell, view: &RobotView, now: &Moment) -> bool {
    let poll = i64::try_from(cell.poll.as_millis()).unwrap_or(i64::MAX);
    let limit = poll.saturating_mul(5).max(5_000);
    view.link == LinkState::Up && view.age_ms(now.mono_ms).is_some_and(|age| age < limit)
}

fn robot(cell: &RobotCell, view: &RobotView, state: &State, now: &Moment) -> pb::RobotReport {
    let hoppers = view
        .snapshot
        .iter()
        .flat_map(|s| &s.hoppers)
        .map(|h| pb::Hopper { level_mg: h.level_mg, feed_name: h.feed_name.clone() });
    pb::RobotReport {
        robot: cell.id.to_string(),
        link: view.link.into(),
        link_age: Some(duration_from_ms((now.mono_ms - view.link_since_ms).max(0))),
        link_detail: view.detail.clone(),
        life_proven: cell.traits.life_provable,
        hoppers: hoppers.collect(),
        faults: faults(view, state, now),
        plc_clock_offset: None,
        unsettled_command: state
            .open_dose
            .as_ref()
            .map(|d| d.order.command.to_string())
            .unwrap_or_default(),
    }
}

fn faults(view: &RobotView, state: &State, now: &Moment) -> Vec<pb::Fault> {
    let since = |code: u32| {
        let known = state.faults.as_ref().and_then(|f| f.get(&code).copied());
        timestamp_from_ms(known.unwrap_or(now.wall_ms))
    };
    let active = view.snapshot.iter().flat_map(|s| &s.faults);
    active
        .map(|f| pb::Fault { code: f.code, text: f.text.clone(), since: Some(since(f.code)) })
        .collect()
}

fn tank(
    feeder: &FeederDescription,
    snapshot: &RobotSnapshot,
    view: &RobotView,
    fresh: bool,
    now: &Moment,
    all: &mut Reports,
) {
    let age = view.age_ms(now.mono_ms).unwrap_or(0);
    let readings = snapshot.readings.iter().filter(|r| r.tank == feeder.tank).map(|r| {
        let quality = match (r.good, fresh && r.still_ms.is_none()) {
            (false, _) => Quality::Bad,
            (true, true) => Quality::Good,
            (true, false) => Quality::Stale,
        };
        // What stands still is as old as its last move.
        let age = age + r.still_ms.unwrap_or(0);
        pb::Reading {
            kind: r.kind.into(),
            value: r.value,
            observed_time: Some(timestamp_from_ms(now.wall_ms - age)),
            age: Some(duration_from_ms(age)),
            quality: quality.into(),
        }
    });
    let report = all
        .tanks
        .entry(feeder.tank.to_string())
        .or_insert_with(|| pb::TankReport { tank: feeder.tank.to_string(), readings: Vec::new() });
    for reading in readings {
        // Two feeders of one tank show the same sensor.
        if !report.readings.iter().any(|r| r.kind == reading.kind) {
            report.readings.push(reading);
        }
    }
}

/// What is known of one feeder.
struct Status<'a> {
    cell: &'a RobotCell,
    view: &'a RobotView,
    state: &'a State,
    book: &'a Book,
    now: &'a Moment,
    fresh: bool,
}

impl Status<'_> {
    fn build(&self, feeder: &FeederDescription) -> pb::FeederStatus {
        let seen =
            self.view.snapshot.iter().flat_map(|s| &s.feeders).find(|f| f.feeder == feeder.feeder);
        let age = self.view.age_ms(self.now.mono_ms);
        let next = seen.and_then(|f| f.next_dose_in_s).filter(|_| self.fresh);
        let next_ms = next.map(|s| self.now.wall_ms - age.unwrap_or(0) + i64::from(s) * 1_000);
        pb::FeederStatus {
            state: self.state(feeder).into(),
            holds: self.book.held_by().map(executor::hold_to_pb).collect(),
            blocks: self.blocks(feeder),
            dispensed_today_mg: self
                .view
                .snapshot
                .as_ref()
                .map(|_| self.book.fed_mg(&self.now.date)),
            last_dose: self.book.last_dose.clone(),
            next_dose_time: next_ms.map(timestamp_from_ms),
            faults: faults(self.view, self.state, self.now),
            age: age.map(duration_from_ms),
            total_dispensed_mg: seen.and_then(|f| f.total_mg).and_then(|t| i64::try_from(t).ok()),
        }
    }

    /// The summary: UNKNOWN > FAULT > DOSING > HELD > OFF > READY.
    fn state(&self, feeder: &FeederDescription) -> FeederState {
        use pasamanos_proto::model::Mode;
        let Some(snapshot) = self.view.snapshot.as_ref().filter(|_| self.fresh) else {
            return FeederState::Unknown;
        };
        let seen = snapshot.feeders.iter().find(|f| f.feeder == feeder.feeder);
        let config = self.view.configs.get(&feeder.feeder).map(|c| &c.reading.config);
        let off = config.and_then(ObservedConfig::valid).is_some_and(|c| c.mode == Mode::Off);
        if !snapshot.faults.is_empty() {
            FeederState::Fault
        } else if seen.is_some_and(|f| f.dosing) {
            FeederState::Dosing
        } else if self.book.held_by().next().is_some()
            || seen.is_some_and(|f| f.held == Some(true))
            || snapshot.local
        {
            FeederState::Held
        } else if off {
            FeederState::Off
        } else {
            FeederState::Ready
        }
    }

    fn blocks(&self, feeder: &FeederDescription) -> Vec<pb::Block> {
        let Some(snapshot) = self.view.snapshot.as_ref().filter(|_| self.fresh) else {
            let metadata = BTreeMap::from([("robot".into(), self.cell.id.to_string())]);
            return vec![pb::Block { reason: "PLC_UNREACHABLE".into(), metadata }];
        };
        let config = self.view.configs.get(&feeder.feeder).map(|c| &c.reading.config);
        let scene = executor::Scene {
            state: self.state,
            book: self.book,
            snapshot,
            link: self.view.link,
            config,
            traits: &self.cell.traits,
            now: self.now,
        };
        // What stands in the way of the smallest dose.
        let least = feeder.limits.portion_min_mg.unwrap_or(1);
        let found = refusals(&scene, least.into());
        found
            .into_iter()
            .map(|r| pb::Block { reason: r.reason.name().into(), metadata: r.metadata })
            .collect()
    }
}
