//! What a simulated robot shows, and what may be changed in it from outside.

use pasamanos_proto::model::{FeederConfig, FieldSet};

use super::Now;
use super::machine::{Effect, Machine};
use super::memory::{OutletMemory, Program};
use crate::driver::{
    ConfigReading, DriverError, FeederSnapshot, HopperLevel, Meal, PlcFault, RobotSnapshot, Slot,
    SlotState, slot_reason,
};

impl Machine {
    /// Everything that the robot shows.
    pub fn snapshot(&self, now: Now) -> RobotSnapshot {
        let m = &self.memory;
        let live = self.dispensed(now);
        let slot = Slot {
            epoch: m.epoch,
            last_sequence: m.last_sequence,
            last_op: m.last_op,
            last_token: m.last_token,
            state: m.state,
            reason: m.reason,
            dispensed_mg: Some(if m.state == SlotState::Started { live } else { m.dispensed_mg }),
        };
        let feeders = self.outlets.iter().zip(&m.outlets).enumerate();
        let feeders = feeders.map(|(i, (outlet, memory))| {
            let dose = m.running.as_ref().filter(|dose| dose.outlet == i);
            let meal_runs = dose.is_some_and(|dose| dose.sequence.is_none());
            FeederSnapshot {
                feeder: outlet.setup.id.clone(),
                held: Some(memory.held),
                dosing: dose.is_some(),
                total_mg: Some(memory.total_mg + dose.map_or(0, |_| u64::from(live))),
                next_dose_in_s: next_in_s(memory, now),
                meal: memory.meal.map(|meal| {
                    let shown = if meal_runs { live } else { meal.dispensed_mg };
                    Meal { dispensed_mg: shown, ..meal.into() }
                }),
            }
        });
        let left = m.hopper_mg - i64::from(live);
        RobotSnapshot {
            slot: Some(slot),
            alive: u64::try_from(now.plc_ms / 100).ok(),
            plc_time_s: Some(now.plc_s()),
            local: m.local,
            hoppers: vec![HopperLevel {
                level_mg: Some(left),
                feed_name: self.setup.feed_name.clone(),
            }],
            faults: self.faults(),
            feeders: feeders.collect(),
            readings: self.outlets.iter().flat_map(|o| o.water.readings(now)).collect(),
        }
    }

    fn faults(&self) -> Vec<PlcFault> {
        let mut out = Vec::new();
        let mut push = |code: u32| {
            let text = match (self.setup.faults.get(&code), code) {
                (Some(text), _) => text.clone(),
                (None, slot_reason::JAM) => "Feed jam".into(),
                (None, slot_reason::HOPPER_EMPTY) => "Hopper empty".into(),
                (None, code) => format!("Fault {code}"),
            };
            out.push(PlcFault { code, text });
        };
        if self.memory.fault != 0 {
            push(self.memory.fault);
        }
        if self.memory.hopper_mg <= 0 && self.memory.fault != slot_reason::HOPPER_EMPTY {
            push(slot_reason::HOPPER_EMPTY);
        }
        out
    }

    /// What an outlet runs.
    pub fn read_config(&self, outlet: usize) -> Option<ConfigReading> {
        let memory = self.memory.outlets.get(outlet)?;
        Some(ConfigReading {
            config: memory.config.observed(),
            revision: Some(memory.revision),
            plc_epoch: Some(self.memory.epoch),
            stamps: Vec::new(),
        })
    }

    /// Takes a config if it is based on the one in force.
    pub fn write_config(
        &mut self,
        outlet: usize,
        base: &ConfigReading,
        new: &FeederConfig,
        fields: &FieldSet,
    ) -> Result<Vec<Effect>, DriverError> {
        let epoch = self.memory.epoch;
        let Some(memory) = self.memory.outlets.get_mut(outlet) else {
            return Err(DriverError::Config("no such outlet".into()));
        };
        if base.revision != Some(memory.revision) || base.plc_epoch != Some(epoch) {
            let message = format!("the PLC runs revision {} now", memory.revision);
            return Err(DriverError::Refused(message));
        }
        let whole = match base.config.valid() {
            Some(base) => base.merged(new, fields),
            None => new.clone(),
        };
        Ok(self.edit(outlet, Program::from(&whole)))
    }

    /// Sets what an outlet runs, whoever asks.
    pub fn edit(&mut self, outlet: usize, program: Program) -> Vec<Effect> {
        let Some(memory) = self.memory.outlets.get_mut(outlet) else { return Vec::new() };
        memory.config = program;
        memory.revision = memory.revision.wrapping_add(1);
        vec![Effect::Keep]
    }

    /// Sets the hold level; a dose that runs ends.
    pub fn set_hold(&mut self, outlet: usize, held: bool) -> Vec<Effect> {
        match self.memory.outlets.get_mut(outlet) {
            Some(memory) if memory.held != held => {
                memory.held = held;
                vec![Effect::Keep]
            }
            _ => Vec::new(),
        }
    }

    /// Resets this fault if it is the active one.
    pub fn reset_fault(&mut self, code: u32) -> Vec<Effect> {
        if self.memory.fault != code {
            return Vec::new();
        }
        self.memory.fault = 0;
        vec![Effect::Keep]
    }
}

/// How long until the schedule feeds; `None` if it does not.
fn next_in_s(memory: &OutletMemory, now: Now) -> Option<u32> {
    let c = &memory.config;
    if !c.is_automatic() || memory.held || c.portion_mg <= 0 {
        return None;
    }
    let due_ms = (memory.last_meal_ms + c.interval_s.max(1) * 1_000 - now.plc_ms).max(0);
    let due_s = due_ms.div_euclid(1_000);
    // The first minute from then on that the windows allow.
    let second = i64::from(now.second) + due_s;
    let opens = |minutes: i64| {
        let minute = i32::try_from((second / 60 + minutes).rem_euclid(1_440)).ok()?;
        c.feeds_at(minute).then_some(minutes)
    };
    let wait_s = match (0..1_440).find_map(opens)? {
        0 => 0,
        minutes => minutes * 60 - second % 60,
    };
    u32::try_from(due_s + wait_s).ok()
}
