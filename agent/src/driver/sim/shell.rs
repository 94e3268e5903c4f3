//! The thread that runs a simulated PLC: gives the pure core its time, does what it orders in order,
//! and answers. It owns the files; an fsync here delays nobody else.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use jiff::tz::TimeZone;
use pasamanos_proto::model::{FeederConfig, FeederId, FieldSet, RobotId};
use pasamanos_proto::pb::LinkState;
use tokio::sync::{oneshot, watch};

use super::Now;
use super::control::{Op, Replies};
use super::machine::{Effect, Machine};
use super::store::{Clock, Store};
use crate::clock;
use crate::driver::{ConfigReading, DriverError, Link, RobotSnapshot, SlotBlock, SlotResult};

/// While a dose runs, time is looked at this often.
const BUSY: Duration = Duration::from_millis(20);
/// Else this often.
const QUIET: Duration = Duration::from_millis(200);

pub(super) type Reply<T> = oneshot::Sender<Result<T, DriverError>>;

/// What the driver asks of the thread.
pub(super) enum Ask {
    Status(RobotId, Reply<RobotSnapshot>),
    Config(FeederId, Reply<ConfigReading>),
    History(RobotId, Reply<Vec<SlotResult>>),
    Write(Write, Reply<()>),
    Control(Op, oneshot::Sender<Result<serde_json::Value, String>>),
    Stop,
}

/// What changes the farm.
#[derive(Clone, Debug)]
pub(super) enum Write {
    Config { feeder: FeederId, base: Box<ConfigReading>, new: Box<FeederConfig>, fields: FieldSet },
    Submit(RobotId, SlotBlock),
    Hold(FeederId, bool),
    ResetFault(FeederId, u32),
}

/// A simulated PLC with its files.
pub(super) struct Shell {
    pub(super) machines: Vec<Machine>,
    pub(super) store: Store,
    pub(super) zone: TimeZone,
    pub(super) clock: Clock,
    /// What becomes of writes, until used up.
    pub(super) replies: Option<Replies>,
    /// Writes that arrive later than they were sent.
    pub(super) late: Vec<(i64, Write)>,
    pub(super) link_up: bool,
    pub(super) alive_frozen: Option<u64>,
    /// Configs that go back to what they were after so many reads: outlet, reads.
    pub(super) reverts: Vec<Revert>,
}

/// A config that will be taken back.
pub(super) struct Revert {
    pub at: (usize, usize),
    pub reads: u32,
    /// Set when a config was written.
    pub back_to: Option<super::memory::Program>,
}

impl Shell {
    /// Runs until it is told to stop, or nobody asks any more.
    pub fn run(mut self, asks: &Receiver<Ask>, link: &watch::Sender<Link>) -> std::io::Result<()> {
        loop {
            let (state, detail) = if self.link_up {
                (LinkState::Up, "simulated")
            } else {
                (LinkState::Down, "cut (simulated)")
            };
            link.send_if_modified(|shown| {
                let changed = shown.state != state;
                *shown = Link { state, detail: detail.into() };
                changed
            });
            let busy =
                self.machines.iter().any(|m| m.memory.running.is_some() || m.pending.is_some());
            let ask = match asks.recv_timeout(if busy { BUSY } else { QUIET }) {
                Ok(ask) => Some(ask),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Ask::Stop),
            };
            self.tick()?;
            match ask {
                None => {}
                Some(Ask::Stop) => return Ok(()),
                Some(ask) => self.answer(ask)?,
            }
            if self.store.is_long() {
                let robots = self.machines.iter().map(|m| (m.setup.id.as_str(), &m.memory));
                self.store.compact(robots, &self.clock)?;
            }
        }
    }

    /// This instant.
    pub(super) fn now(&mut self) -> Now {
        let plc_ms = (clock::monotonic_ms() + self.clock.offset_ms).max(self.clock.latest_ms);
        self.clock.latest_ms = plc_ms;
        let wall = jiff::Timestamp::from_millisecond(clock::wall_ms()).unwrap_or_default();
        let local = wall.to_zoned_datetime(self.zone.clone());
        let epoch = jiff::civil::date(1970, 1, 1);
        let day = epoch.until(local.date()).map_or(0, |span| i64::from(span.get_days()));
        let time = local.time();
        let second = i64::from(time.hour()) * 3_600
            + i64::from(time.minute()) * 60
            + i64::from(time.second());
        Now { plc_ms, day, second: u32::try_from(second).unwrap_or(0) }
    }

    fn tick(&mut self) -> std::io::Result<()> {
        let now = self.now();
        for i in 0..self.machines.len() {
            let effects = self.machines.get_mut(i).map(|m| m.tick(now)).unwrap_or_default();
            self.perform(i, &effects)?;
        }
        let (due, later) =
            std::mem::take(&mut self.late).into_iter().partition(|w| w.0 <= now.plc_ms);
        self.late = later;
        for (_, write) in due {
            // Nobody waits for it any more.
            let _ = self.write(&write)?;
        }
        Ok(())
    }

    /// Does what a machine ordered, in order.
    pub(super) fn perform(&mut self, i: usize, effects: &[Effect]) -> std::io::Result<()> {
        for effect in effects {
            match effect {
                Effect::Keep => {
                    let robot = self.machines.get(i).map(|m| (m.setup.id.as_str(), &m.memory));
                    self.store.keep(robot.into_iter(), &self.clock)?;
                }
                Effect::Ledger(line) => self.store.log(line)?,
                Effect::Progress { number, dispensed_mg } => {
                    self.store.progress(i, *number, *dispensed_mg)?;
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, ask: Ask) -> std::io::Result<()> {
        if !self.link_up && !matches!(ask, Ask::Control(..)) {
            match ask {
                Ask::Status(_, reply) => drop(reply.send(Err(DriverError::NotConnected))),
                Ask::Config(_, reply) => drop(reply.send(Err(DriverError::NotConnected))),
                Ask::History(_, reply) => drop(reply.send(Err(DriverError::NotConnected))),
                Ask::Write(_, reply) => drop(reply.send(Err(DriverError::NotConnected))),
                Ask::Control(..) | Ask::Stop => {}
            }
            return Ok(());
        }
        match ask {
            Ask::Status(robot, reply) => {
                let now = self.now();
                let mut found = self.robot(&robot).map(|(_, m)| m.snapshot(now));
                if let (Ok(snapshot), Some(alive)) = (&mut found, self.alive_frozen) {
                    snapshot.alive = Some(alive);
                }
                let _ = reply.send(found);
            }
            Ask::History(robot, reply) => {
                let past = self
                    .robot(&robot)
                    .map(|(_, m)| m.memory.past.iter().map(|p| (*p).into()).collect());
                let _ = reply.send(past);
            }
            Ask::Config(feeder, reply) => {
                let at = self.outlet(&feeder);
                let reading = at.clone().and_then(|(i, o)| {
                    self.machines[i].read_config(o).ok_or(DriverError::NotConnected)
                });
                let _ = reply.send(reading);
                if let Ok(at) = at {
                    self.count_read(at)?;
                }
            }
            Ask::Write(write, reply) => {
                let outcome = match self.replies.as_mut().and_then(Replies::next) {
                    None => self.write(&write)?,
                    Some(fate) => self.mistreat(&write, fate)?,
                };
                let _ = reply.send(outcome);
            }
            Ask::Control(op, reply) => {
                let answer = self.control(op)?;
                let _ = reply.send(answer);
            }
            Ask::Stop => {}
        }
        Ok(())
    }

    fn mistreat(
        &mut self,
        write: &Write,
        fate: super::control::Fate,
    ) -> std::io::Result<Result<(), DriverError>> {
        use super::control::Fate;
        let lost = || Err(DriverError::Ambiguous("no reply (simulated)".into()));
        match fate {
            Fate::Applied => {
                let _ = self.write(write)?;
            }
            Fate::Dropped => {}
            Fate::Late { ms } => {
                let at = self.now().plc_ms + i64::from(ms);
                self.late.push((at, write.clone()));
            }
            Fate::Refused => return Ok(Err(DriverError::Refused("refused (simulated)".into()))),
        }
        Ok(lost())
    }

    fn write(&mut self, write: &Write) -> std::io::Result<Result<(), DriverError>> {
        let now = self.now();
        let at = match write {
            Write::Submit(robot, _) => self.robot(robot).map(|(i, _)| (i, 0)),
            Write::Config { feeder, .. }
            | Write::Hold(feeder, _)
            | Write::ResetFault(feeder, _) => self.outlet(feeder),
        };
        let (i, outlet) = match at {
            Ok(at) => at,
            Err(e) => return Ok(Err(e)),
        };
        let machine = &mut self.machines[i];
        let before = machine.memory.outlets.get(outlet).map(|o| o.config.clone());
        let effects = match write {
            Write::Submit(_, block) => machine.submit(*block, now),
            Write::Hold(_, held) => machine.set_hold(outlet, *held),
            Write::ResetFault(_, code) => machine.reset_fault(*code),
            Write::Config { base, new, fields, .. } => {
                match machine.write_config(outlet, base, new, fields) {
                    Ok(effects) => {
                        let armed = self.reverts.iter_mut().find(|r| r.at == (i, outlet));
                        if let Some(revert) = armed {
                            revert.back_to = before;
                        }
                        effects
                    }
                    Err(e) => return Ok(Err(e)),
                }
            }
        };
        self.perform(i, &effects)?;
        let now = self.now();
        let effects = self.machines[i].tick(now);
        self.perform(i, &effects)?;
        Ok(Ok(()))
    }

    fn count_read(&mut self, at: (usize, usize)) -> std::io::Result<()> {
        let Some(k) = self.reverts.iter().position(|r| r.at == at && r.back_to.is_some()) else {
            return Ok(());
        };
        let revert = &mut self.reverts[k];
        revert.reads = revert.reads.saturating_sub(1);
        if revert.reads == 0
            && let Some(program) = self.reverts.swap_remove(k).back_to
        {
            let effects = self.machines[at.0].edit(at.1, program);
            self.perform(at.0, &effects)?;
        }
        Ok(())
    }

    /// The place of a robot.
    pub(super) fn robot(&self, id: &RobotId) -> Result<(usize, &Machine), DriverError> {
        let found = self.machines.iter().enumerate().find(|(_, m)| m.setup.id == *id);
        found.ok_or_else(|| DriverError::Config(format!("no robot {id}")))
    }

    /// The place of a feeder: its robot's and its outlet's.
    pub(super) fn outlet(&self, id: &FeederId) -> Result<(usize, usize), DriverError> {
        let place = |(i, m): (usize, &Machine)| {
            Some((i, m.outlets.iter().position(|o| o.setup.id == *id)?))
        };
        let found = self.machines.iter().enumerate().find_map(place);
        found.ok_or_else(|| DriverError::Config(format!("no feeder {id}")))
    }
}
