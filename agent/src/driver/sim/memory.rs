//! What a simulated PLC keeps through a power cut.

use std::collections::VecDeque;

use pasamanos_proto::model::{FeederConfig, ObservedConfig};
use pasamanos_proto::pb;
use prost_types::Duration;
use serde::{Deserialize, Serialize};

use crate::driver::{Meal, SlotOp, SlotResult, SlotState};

/// How many past results it keeps.
const PAST: usize = 8;

/// The retained memory of one robot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Memory {
    /// New whenever the memory was lost.
    pub epoch: u32,
    pub last_sequence: u32,
    pub last_op: SlotOp,
    pub last_token: u32,
    pub state: SlotState,
    pub reason: u32,
    pub dispensed_mg: u32,
    pub past: VecDeque<Past>,
    pub hopper_mg: i64,
    /// The active fault's code; 0 for none.
    pub fault: u32,
    pub local: bool,
    /// Counts doses of any origin; names each one in ledger and progress.
    pub doses: u64,
    pub running: Option<Running>,
    pub outlets: Vec<OutletMemory>,
}

/// A dose between its latch and its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Running {
    pub number: u64,
    pub outlet: usize,
    pub planned_mg: u32,
    pub rate_mg_per_s: u32,
    pub started_ms: i64,
    /// The slot's sequence; `None` for a meal of the schedule.
    pub sequence: Option<u32>,
    pub token: u32,
}

/// The retained memory of one outlet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct OutletMemory {
    pub config: Program,
    pub revision: u32,
    pub held: bool,
    pub total_mg: u64,
    /// The local day that `today_mg` is of.
    pub day: i64,
    pub today_mg: i64,
    /// When the last meal of the schedule started or was skipped, in the PLC's clock.
    pub last_meal_ms: i64,
    pub meal: Option<MealMemory>,
}

/// The last meal of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct MealMemory {
    pub number: u32,
    pub state: SlotState,
    pub reason: u32,
    pub planned_mg: u32,
    pub dispensed_mg: u32,
}

impl From<MealMemory> for Meal {
    fn from(m: MealMemory) -> Self {
        let MealMemory { number, state, reason, planned_mg, dispensed_mg } = m;
        Self { number, state, reason, planned_mg, dispensed_mg }
    }
}

/// One past result of the slot.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Past {
    pub sequence: u32,
    pub op: SlotOp,
    pub token: u32,
    pub state: SlotState,
    pub dispensed_mg: u32,
}

impl From<Past> for SlotResult {
    fn from(p: Past) -> Self {
        let Past { sequence, op, token, state, dispensed_mg } = p;
        Self { sequence, op, token, state, dispensed_mg }
    }
}

impl Memory {
    /// That of a PLC which was never used.
    pub fn new(epoch: u32, hopper_mg: i64, outlets: Vec<OutletMemory>) -> Self {
        Self {
            epoch,
            last_sequence: 0,
            last_op: SlotOp::None,
            last_token: 0,
            state: SlotState::Idle,
            reason: 0,
            dispensed_mg: 0,
            past: VecDeque::new(),
            hopper_mg,
            fault: 0,
            local: false,
            doses: 0,
            running: None,
            outlets,
        }
    }

    /// Uses the slot up.
    pub fn consume(
        &mut self,
        sequence: u32,
        op: SlotOp,
        token: u32,
        state: SlotState,
        reason: u32,
    ) {
        (self.last_sequence, self.last_op, self.last_token) = (sequence, op, token);
        (self.state, self.reason, self.dispensed_mg) = (state, reason, 0);
        if state != SlotState::Started {
            self.remember();
        }
    }

    /// Ends the dose of the slot.
    pub fn settle(&mut self, state: SlotState, reason: u32, dispensed_mg: u32) {
        (self.state, self.reason, self.dispensed_mg) = (state, reason, dispensed_mg);
        self.remember();
    }

    fn remember(&mut self) {
        self.past.push_back(Past {
            sequence: self.last_sequence,
            op: self.last_op,
            token: self.last_token,
            state: self.state,
            dispensed_mg: self.dispensed_mg,
        });
        while self.past.len() > PAST {
            self.past.pop_front();
        }
    }
}

/// A config as a PLC holds it: nothing keeps someone at the farm from setting nonsense.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Program {
    /// 1 automatic, 2 manual, 3 off.
    pub mode: i32,
    pub portion_mg: i32,
    pub interval_s: i64,
    /// Pairs of minutes of the day.
    pub windows: Vec<(i32, i32)>,
    pub daily_cap_mg: Option<i32>,
    pub min_dissolved_oxygen_ug_per_l: Option<i32>,
    pub min_oxygen_saturation_permille: Option<i32>,
    pub max_water_temperature_millicelsius: Option<i32>,
}

impl Program {
    pub fn observed(&self) -> ObservedConfig {
        ObservedConfig::from(pb::FeederConfig::from(self))
    }

    pub fn is_automatic(&self) -> bool {
        self.mode == i32::from(pb::FeederMode::Automatic)
    }

    pub fn is_off(&self) -> bool {
        self.mode == i32::from(pb::FeederMode::Off)
    }

    /// Whether the schedule may feed in this minute of the day.
    pub fn feeds_at(&self, minute: i32) -> bool {
        let inside = |(start, end): &(i32, i32)| {
            (minute - start).rem_euclid(1_440) < (end - start).rem_euclid(1_440)
        };
        self.windows.is_empty() || self.windows.iter().any(inside)
    }
}

impl From<&Program> for pb::FeederConfig {
    fn from(p: &Program) -> Self {
        let locks = pb::Interlocks {
            min_dissolved_oxygen_ug_per_l: p.min_dissolved_oxygen_ug_per_l,
            min_oxygen_saturation_permille: p.min_oxygen_saturation_permille,
            max_water_temperature_millicelsius: p.max_water_temperature_millicelsius,
        };
        let window = |w: &(i32, i32)| pb::FeedWindow { start_minute: w.0, end_minute: w.1 };
        Self {
            mode: p.mode,
            portion_mg: Some(p.portion_mg),
            interval: Some(Duration { seconds: p.interval_s, nanos: 0 }),
            windows: p.windows.iter().map(window).collect(),
            daily_cap_mg: p.daily_cap_mg,
            interlocks: (locks != pb::Interlocks::default()).then_some(locks),
        }
    }
}

impl From<&FeederConfig> for Program {
    fn from(c: &FeederConfig) -> Self {
        let locks = c.interlocks;
        Self {
            mode: pb::FeederConfig::from(c).mode,
            portion_mg: c.portion_mg.unwrap_or_default(),
            interval_s: c.interval_s.unwrap_or_default().into(),
            windows: c
                .windows
                .iter()
                .map(|w| (w.start_minute.into(), w.end_minute.into()))
                .collect(),
            daily_cap_mg: c.daily_cap_mg,
            min_dissolved_oxygen_ug_per_l: locks.min_dissolved_oxygen_ug_per_l,
            min_oxygen_saturation_permille: locks.min_oxygen_saturation_permille,
            max_water_temperature_millicelsius: locks.max_water_temperature_millicelsius,
        }
    }
}
