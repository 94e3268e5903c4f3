//! One simulated robot: the rules of opcua.md §5.2, the schedule, the cap and the interlocks. Pure:
//! time is an argument, and what must be written is returned in the order it must be written in.

use serde::Serialize;

use super::Now;
use super::memory::{MealMemory, Memory, OutletMemory, Program, Running};
use super::water::Water;
use crate::config;
use crate::driver::{SlotBlock, SlotOp, SlotState, slot_reason};

/// More than this no dose may be, mg.
pub(super) const MAX_DOSE_MG: u32 = 5_000_000;

/// What the shell must do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Effect {
    /// Make the memory durable before anything else happens.
    Keep,
    /// Make a line of the execution log durable.
    Ledger(Line),
    /// Note how far the running dose is; not durable against the machine's power, only against ours.
    Progress { number: u64, dispensed_mg: u32 },
}

/// A line of the execution log: what the motor really did.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
pub(super) struct Line {
    /// `start` or `end`.
    pub event: String,
    pub robot: String,
    pub feeder: String,
    /// The robot's number of the dose.
    pub number: u64,
    /// `command` or `schedule`.
    pub cause: String,
    pub token: u32,
    pub seq: u32,
    pub epoch: u32,
    pub planned_mg: u32,
    /// Of an end: what fell.
    pub dispensed_mg: Option<u32>,
    /// Of an end: `done` or `aborted`.
    pub state: Option<SlotState>,
    /// Of an end.
    pub reason: Option<u32>,
    /// The PLC's clock.
    pub plc_ms: i64,
}

/// One outlet.
#[derive(Clone, Debug)]
pub(super) struct Outlet {
    pub setup: config::Feeder,
    pub water: Water,
}

impl Outlet {
    fn rate(&self) -> u32 {
        self.setup.limits.dispense_rate_mg_per_s.unwrap_or(500).unsigned_abs().max(1)
    }
}

/// One robot.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub setup: config::Robot,
    pub outlets: Vec<Outlet>,
    pub memory: Memory,
    /// What stands in the command block and was not taken. Lost with the power.
    pub pending: Option<SlotBlock>,
}

impl Machine {
    /// The memory of a new one.
    pub fn factory(setup: &config::Robot, epoch: u32, now: Now) -> Memory {
        let initial = |f: &config::Feeder| {
            let initial = f.initial.clone();
            let config = initial.as_ref().map_or_else(Program::default, |i| (&i.config).into());
            let first = initial.as_ref().map_or(0, |i| i64::from(i.first_meal_in_s));
            OutletMemory {
                last_meal_ms: now.plc_ms + (first - config.interval_s) * 1_000,
                config,
                revision: 1,
                held: false,
                total_mg: 0,
                day: now.day,
                today_mg: 0,
                meal: None,
            }
        };
        let hopper = setup.feeders.iter().filter_map(|f| Some(f.initial.as_ref()?.hopper_mg)).sum();
        Memory::new(epoch, hopper, setup.feeders.iter().map(initial).collect())
    }

    /// After a power cut: a dose that ran is over, with what was measured; it is never resumed.
    pub fn power_up(&mut self, measured_mg: u32, now: Now) -> Vec<Effect> {
        let mut out = Vec::new();
        if self.memory.running.is_some() {
            self.finish(measured_mg, SlotState::Aborted, slot_reason::POWER_LOST, now, &mut out);
        }
        out
    }

    /// All that time does.
    pub fn tick(&mut self, now: Now) -> Vec<Effect> {
        let mut out = Vec::new();
        self.advance(now, &mut out);
        self.take(now, &mut out);
        self.schedule(now, &mut out);
        out
    }

    /// Puts a block into the command register.
    pub fn submit(&mut self, block: SlotBlock, now: Now) -> Vec<Effect> {
        let mut out = Vec::new();
        self.advance(now, &mut out);
        self.pending = Some(block);
        self.take(now, &mut out);
        out
    }

    /// What has left the outlet by now in the running dose.
    pub fn dispensed(&self, now: Now) -> u32 {
        let Some(dose) = &self.memory.running else { return 0 };
        let ms = u64::try_from(now.plc_ms - dose.started_ms).unwrap_or(0);
        let mg = u64::from(dose.rate_mg_per_s).saturating_mul(ms) / 1_000;
        let hopper = u64::try_from(self.memory.hopper_mg).unwrap_or(0);
        u32::try_from(mg.min(hopper)).unwrap_or(u32::MAX).min(dose.planned_mg)
    }

    fn advance(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(dose) = self.memory.running.clone() else { return };
        let dispensed = self.dispensed(now);
        let stopped = self.forbids(dose.outlet, now);
        if dispensed == dose.planned_mg {
            self.finish(dispensed, SlotState::Done, 0, now, out);
        } else if let Some(reason) = stopped {
            self.finish(dispensed, SlotState::Aborted, reason, now, out);
        } else if i64::from(dispensed) >= self.memory.hopper_mg {
            self.finish(dispensed, SlotState::Aborted, slot_reason::HOPPER_EMPTY, now, out);
        } else {
            out.push(Effect::Progress { number: dose.number, dispensed_mg: dispensed });
        }
    }

    /// Rule 1: take the block only if it is whole and next, and latch it before the motor starts.
    fn take(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(block) = self.pending else { return };
        let next = self.memory.last_sequence.wrapping_add(1);
        if block.epoch != self.memory.epoch || block.sequence != next {
            self.pending = None;
            return;
        }
        let late = now.plc_s() > block.expires_at_s;
        let refused = |reason| (SlotState::Rejected, reason);
        let (state, reason) = match block.op {
            SlotOp::None => return,
            SlotOp::Nop => (SlotState::Done, 0),
            SlotOp::Dose if late => (SlotState::Expired, 0),
            // A meal runs: it waits one deep, until it expires.
            SlotOp::Dose if self.memory.running.is_some() => return,
            SlotOp::Dose => match self.refuses(&block, now) {
                Some(reason) => refused(reason),
                None => (SlotState::Started, 0),
            },
        };
        self.pending = None;
        self.memory.consume(block.sequence, block.op, block.token, state, reason);
        if state == SlotState::Started {
            let outlet = self.place(block.outlet);
            let own = self.outlets.get(outlet).map_or(1, Outlet::rate);
            let rate = if block.rate_mg_per_s == 0 { own } else { block.rate_mg_per_s.min(own) };
            let slot = Some((block.sequence, block.token));
            self.start(outlet, block.amount_mg, rate, slot, now, out);
        } else {
            out.push(Effect::Keep);
        }
    }

    /// Feeds by the config, one meal at a time; what cannot be given now is skipped, never caught up.
    fn schedule(&mut self, now: Now, out: &mut Vec<Effect>) {
        for outlet in 0..self.outlets.len() {
            if self.memory.running.is_some() || self.pending.is_some() {
                return;
            }
            if let Some(portion) = self.due(outlet, now) {
                let reason = self.blocked(outlet, portion, now);
                let Some(memory) = self.memory.outlets.get_mut(outlet) else { return };
                memory.last_meal_ms = now.plc_ms;
                memory.meal = Some(MealMemory {
                    number: memory.meal.map_or(0, |m| m.number).wrapping_add(1),
                    state: if reason.is_some() { SlotState::Rejected } else { SlotState::Started },
                    reason: reason.unwrap_or(0),
                    planned_mg: portion,
                    dispensed_mg: 0,
                });
                if reason.is_some() {
                    out.push(Effect::Keep);
                } else {
                    let rate = self.outlets.get(outlet).map_or(1, Outlet::rate);
                    self.start(outlet, portion, rate, None, now, out);
                }
            }
        }
    }

    fn due(&self, outlet: usize, now: Now) -> Option<u32> {
        let memory = self.memory.outlets.get(outlet)?;
        let c = &memory.config;
        let portion =
            u32::try_from(c.portion_mg).ok().filter(|mg| (1..=MAX_DOSE_MG).contains(mg))?;
        let at = memory.last_meal_ms + c.interval_s.max(1) * 1_000;
        (c.is_automatic() && now.plc_ms >= at && c.feeds_at(now.minute())).then_some(portion)
    }

    fn start(
        &mut self,
        outlet: usize,
        planned_mg: u32,
        rate_mg_per_s: u32,
        slot: Option<(u32, u32)>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        self.memory.doses += 1;
        let dose = Running {
            number: self.memory.doses,
            outlet,
            planned_mg,
            rate_mg_per_s,
            started_ms: now.plc_ms,
            sequence: slot.map(|s| s.0),
            token: slot.map_or(0, |s| s.1),
        };
        out.push(Effect::Keep);
        out.push(Effect::Ledger(self.line(&dose, now)));
        self.memory.running = Some(dose);
    }

    pub fn finish(
        &mut self,
        mg: u32,
        state: SlotState,
        reason: u32,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(dose) = self.memory.running.take() else { return };
        let end = Line {
            event: "end".into(),
            dispensed_mg: Some(mg),
            state: Some(state),
            reason: Some(reason),
            ..self.line(&dose, now)
        };
        self.memory.hopper_mg = (self.memory.hopper_mg - i64::from(mg)).max(0);
        if dose.sequence.is_some() {
            self.memory.settle(state, reason, mg);
        }
        if let Some(memory) = self.memory.outlets.get_mut(dose.outlet) {
            memory.total_mg += u64::from(mg);
            if memory.day != now.day {
                (memory.day, memory.today_mg) = (now.day, 0);
            }
            memory.today_mg += i64::from(mg);
            if let (None, Some(meal)) = (dose.sequence, &mut memory.meal) {
                (meal.state, meal.reason, meal.dispensed_mg) = (state, reason, mg);
            }
        }
        if let Some(outlet) = self.outlets.get_mut(dose.outlet) {
            outlet.water.fed(mg, now);
        }
        // The log first: a cut between the two finds the dose still running and its end in the log.
        out.push(Effect::Ledger(end));
        out.push(Effect::Keep);
    }

    fn line(&self, dose: &Running, now: Now) -> Line {
        let feeder = self.outlets.get(dose.outlet).map(|o| o.setup.id.to_string());
        Line {
            event: "start".into(),
            robot: self.setup.id.to_string(),
            feeder: feeder.unwrap_or_default(),
            number: dose.number,
            cause: if dose.sequence.is_some() { "command".into() } else { "schedule".into() },
            token: dose.token,
            seq: dose.sequence.unwrap_or(0),
            epoch: self.memory.epoch,
            planned_mg: dose.planned_mg,
            dispensed_mg: None,
            state: None,
            reason: None,
            plc_ms: now.plc_ms,
        }
    }
}
