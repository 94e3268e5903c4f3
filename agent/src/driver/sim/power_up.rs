//! How a simulated PLC comes up: from its memory, with doses ended that a power cut interrupted.

use std::io;
use std::path::Path;

use jiff::tz::TimeZone;

use super::machine::{Effect, Machine, Outlet};
use super::shell::Shell;
use super::store::{Clock, Found, Store};
use super::water::Water;
use crate::clock;
use crate::config::{Plc, Robot};
use crate::driver::SlotState;

impl Shell {
    /// Powers the PLC up from its files; what is not in them is new.
    pub fn power_up(dir: &Path, plc: &Plc, seed: u64, zone: TimeZone) -> io::Result<Self> {
        let (store, mut found) = Store::open(dir, &plc.name)?;
        let (boot_id, mono) = (clock::boot_id(), clock::monotonic_ms());
        let clock = match found.clock.take() {
            Some(clock) if clock.boot_id == boot_id => clock,
            Some(clock) => Clock { boot_id, offset_ms: clock.latest_ms - mono, ..clock },
            // A PLC that has run for a day: its clock is not ours.
            None => Clock { boot_id, offset_ms: 86_400_000 - mono, latest_ms: 0 },
        };
        let mut shell = Self {
            machines: Vec::new(),
            store,
            zone,
            clock,
            replies: None,
            late: Vec::new(),
            link_up: true,
            alive_frozen: None,
            reverts: Vec::new(),
        };
        let mut number = 0;
        for (i, setup) in plc.robots.iter().enumerate() {
            let outlet = |f: &crate::config::Feeder| {
                let portion = f.initial.as_ref().and_then(|i| i.config.portion_mg);
                number += 1;
                let water = Water::new(f.tank.clone(), seed, number, portion.unwrap_or(1_000));
                Outlet { setup: f.clone(), water }
            };
            let outlets = setup.feeders.iter().map(outlet).collect();
            shell.add(i, setup, outlets, &mut found)?;
        }
        let robots = shell.machines.iter().map(|m| (m.setup.id.as_str(), &m.memory));
        shell.store.keep(robots, &shell.clock)?;
        Ok(shell)
    }

    fn add(
        &mut self,
        i: usize,
        setup: &Robot,
        outlets: Vec<Outlet>,
        found: &mut Found,
    ) -> io::Result<()> {
        let now = self.now();
        let kept = found.memories.remove(setup.id.as_str());
        let kept = kept.filter(|m| m.outlets.len() == outlets.len());
        let memory = kept.unwrap_or_else(|| Machine::factory(setup, fastrand::u32(1..), now));
        let mut machine = Machine { setup: setup.clone(), outlets, memory, pending: None };
        if let Some(number) = machine.memory.running.as_ref().map(|dose| dose.number) {
            let mut effects = Vec::new();
            if let Some(end) = found.ended.remove(&(setup.id.to_string(), number)) {
                // The cut came after the dose had ended and before the memory said so: it is logged.
                let state = end.state.unwrap_or(SlotState::Aborted);
                let (mg, reason) = (end.dispensed_mg.unwrap_or(0), end.reason.unwrap_or(0));
                machine.finish(mg, state, reason, now, &mut effects);
            } else {
                let measured = self.store.measured(i, number);
                for effect in machine.power_up(measured, now) {
                    if let Effect::Ledger(line) = effect {
                        self.store.log(&line)?;
                    }
                }
            }
        }
        self.machines.push(machine);
        Ok(())
    }
}
