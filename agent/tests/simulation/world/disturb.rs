//! What breaks while everything runs: the PLC and its wire, the net, disks and wall clocks.

use std::time::Duration;

use pasamanos_proto::model::{FeederConfig, ObservedConfig};
use tokio::time::{Instant, sleep};

use super::super::net::{Line, Mischief};
use super::{Special, World};
use crate::testing::{FEEDER, Fate, OTHER, config};

/// A day.
const DAY_MS: i64 = 86_400_000;

impl World {
    /// What becomes of the next writes, whether the PLC can be read, and what people do there.
    pub(super) async fn disturb_plc(&mut self) {
        let fate = |random: &mut fastrand::Rng| match random.u8(0..10) {
            0..5 => Fate::Answered,
            5 | 6 => Fate::AnswerLost,
            7 => Fate::Late(Duration::from_millis(random.u64(10..40_000))),
            8 => Fate::Lost,
            _ => Fate::NotSent,
        };
        let mut fates: Vec<_> =
            (0..self.random.usize(0..8)).map(|_| fate(&mut self.random)).collect();
        if self.one_in(6) {
            // A wire that loses everything for a while, and lets some of it through much later.
            let lost = |random: &mut fastrand::Rng| match random.u8(0..4) {
                0 => Fate::Late(Duration::from_millis(random.u64(5_000..60_000))),
                // As long as a start limit: that which comes last may be just too late.
                1 => Fate::Late(Duration::from_millis(random.u64(500..12_000))),
                _ => Fate::Lost,
            };
            fates.extend((0..self.random.usize(10..80)).map(|_| lost(&mut self.random)));
            self.book.met("fault: a PLC that loses writes");
        }
        let (unreadable, meal, edit, held) =
            (self.one_in(7), self.one_in(5), self.one_in(12), self.one_in(30));
        let fed = self.random.u64(1..900);
        let meal_ms = self.random.u64(500..9_000);
        let id = if self.random.bool() { FEEDER } else { OTHER };
        let portion = if edit { self.next_portion() } else { 0 };
        if edit {
            self.farm_portions.push(portion);
        }
        let slow = self.one_in(6);
        let mut takes = || if slow { self.random.u64(0..1_800) } else { 0 };
        let takes = (takes(), takes());
        let lie = (self.special == Special::Lies && self.one_in(4)).then(|| self.random.u8(0..4));
        let blank = (lie == Some(0) && self.random.bool()).then(|| self.next_portion());
        self.lost_portions.extend(blank);
        if lie == Some(1) {
            // It forgets what was seen: of a dose that nobody saw before it was forgotten nobody can
            // tell, and the rules ask of a PLC that it latches before its motor starts.
            self.plc.plc().readable = true;
            sleep(Duration::from_secs(2)).await;
        }
        let mut plc = self.plc.plc();
        plc.fates = fates.into_iter().chain([Fate::Answered]).collect();
        plc.readable = !unreadable;
        plc.read_takes = (Duration::from_millis(takes.0), Duration::from_millis(takes.1));
        plc.alive = true;
        if unreadable {
            self.book.met("fault: a PLC that cannot be read");
        }
        if slow {
            self.book.met("fault: a PLC that answers slowly");
        }
        if meal {
            let meal_until = Instant::now() + Duration::from_millis(meal_ms);
            let f = plc.feeder(id);
            f.total_mg += fed;
            f.meal_until = Some(meal_until);
        }
        if edit {
            let f = plc.feeder(id);
            f.config =
                ObservedConfig::Valid(FeederConfig { portion_mg: Some(portion), ..config() });
            f.revision += 1;
            self.book.met("fault: a config set at the farm");
        }
        if held {
            plc.feeder(id).held = true;
            self.book.met("fault: a hold set at the farm");
        }
        match lie {
            Some(0) => {
                plc.lose_memory();
                for id in [FEEDER, OTHER] {
                    if let Some(portion_mg) = blank {
                        let blank = FeederConfig { portion_mg: Some(portion_mg), ..config() };
                        let f = plc.feeder(id);
                        f.config = ObservedConfig::Valid(blank);
                        f.revision = 1;
                    }
                }
            }
            // One that was consumed and never told can be known by nobody.
            Some(1) if plc.told != Some(plc.slot.last_sequence) => return,
            Some(1) => plc.roll_back(),
            Some(2) => plc.alive = false,
            Some(_) => plc.revert_after = Some(1),
            None => return,
        }
        let lies = ["lost its memory", "rolled back", "stands still", "puts values back"];
        self.book.met(format!("fault: a PLC that {}", lies[usize::from(lie.unwrap_or(0))]));
        self.excuse = Some("the PLC lied");
    }

    pub(super) fn disturb_net(&mut self) {
        if self.one_in(4) {
            let mischief =
                Mischief { twice: 150, again: if self.one_in(4) { 8 } else { 0 }, swap: 500 };
            self.net.mischief(mischief);
        } else {
            self.net.mischief(Mischief::default());
        }
        match self.random.u8(0..16) {
            0 => {
                self.net.cut(None);
                self.book.met("fault: the link was cut");
            }
            1 | 2 => {
                let (up, ms) = (self.random.bool(), self.random.u64(500..40_000));
                self.net.stall(up, Duration::from_millis(ms));
                self.book.met(if up {
                    "fault: nothing goes up"
                } else {
                    "fault: nothing goes down"
                });
            }
            3 => {
                let line = if self.random.bool() { Line::Refused } else { Line::BlackHole };
                self.net.line(self.machines[0].number, line);
                self.net.cut(Some(self.machines[0].number));
                self.book.met(format!("fault: no way to the server: {line:?}"));
            }
            _ => self.net.line(self.machines[0].number, Line::Up),
        }
        if self.one_in(12) {
            let ms = self.random.u64(200..4_000);
            self.server.sicken(Duration::from_millis(ms));
        }
        if self.one_in(10) {
            let by = if self.random.bool() { DAY_MS } else { -DAY_MS };
            if self.random.bool() {
                self.server.step_wall(by);
                self.book.met("fault: the server's wall clock was set");
            } else {
                self.machines[0].clock().step_wall(by);
                self.book.met("fault: the agent's wall clock was set");
            }
        }
    }
}
