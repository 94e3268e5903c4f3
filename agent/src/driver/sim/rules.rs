//! What forbids a simulated outlet to dispense, in the order in which it is told.

use pasamanos_proto::pb::ReadingKind;

use super::Now;
use super::machine::{MAX_DOSE_MG, Machine};
use crate::driver::{SlotBlock, slot_reason};

impl Machine {
    /// Where the outlet with this number is; nowhere if there is none.
    pub fn place(&self, outlet: u8) -> usize {
        let found = self.outlets.iter().position(|o| o.setup.outlet == outlet);
        found.unwrap_or(self.outlets.len())
    }

    pub fn refuses(&self, block: &SlotBlock, now: Now) -> Option<u32> {
        let outlet = self.place(block.outlet);
        let Some(memory) = self.memory.outlets.get(outlet) else { return Some(slot_reason::RANGE) };
        if !(1..=MAX_DOSE_MG).contains(&block.amount_mg) {
            return Some(slot_reason::RANGE);
        }
        if memory.config.is_off() {
            return Some(slot_reason::OFF);
        }
        self.blocked(outlet, block.amount_mg, now)
    }

    /// Why this outlet must not dispense at all now.
    pub fn forbids(&self, outlet: usize, now: Now) -> Option<u32> {
        let (of, memory) = (self.outlets.get(outlet)?, self.memory.outlets.get(outlet)?);
        if self.memory.fault != 0 {
            let jam = self.memory.fault == slot_reason::JAM;
            return Some(if jam { slot_reason::JAM } else { slot_reason::FAULT });
        }
        if self.memory.local {
            return Some(slot_reason::LOCAL);
        }
        if memory.held {
            return Some(slot_reason::HELD);
        }
        let c = &memory.config;
        let beyond = |limit: Option<i32>, kind, too: fn(i64, i64) -> bool| {
            limit.is_some_and(|limit| {
                let (value, good) = of.water.probe(kind, now);
                !good || too(value, limit.into())
            })
        };
        let locked =
            beyond(c.min_dissolved_oxygen_ug_per_l, ReadingKind::DissolvedOxygenUgPerL, |v, l| {
                v < l
            }) || beyond(
                c.min_oxygen_saturation_permille,
                ReadingKind::OxygenSaturationPermille,
                |v, l| v < l,
            ) || beyond(
                c.max_water_temperature_millicelsius,
                ReadingKind::WaterTemperatureMillicelsius,
                |v, l| v > l,
            );
        locked.then_some(slot_reason::INTERLOCK)
    }

    /// Why this outlet must not begin to dispense this much now.
    pub fn blocked(&self, outlet: usize, mg: u32, now: Now) -> Option<u32> {
        let memory = self.memory.outlets.get(outlet)?;
        let today = if memory.day == now.day { memory.today_mg } else { 0 };
        let over = memory.config.daily_cap_mg.is_some_and(|cap| today + i64::from(mg) > cap.into());
        let empty = self.memory.hopper_mg <= 0;
        self.forbids(outlet, now)
            .or(empty.then_some(slot_reason::HOPPER_EMPTY))
            .or(over.then_some(slot_reason::DAILY_CAP))
    }
}
