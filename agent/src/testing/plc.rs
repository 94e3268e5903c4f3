//! A PLC in memory that keeps the rules of the block profile, and breaks the wire on demand.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use pasamanos_proto::model::{
    Basis, Capabilities, ConfigField, Enforcer, FeedNowCapability, FeederConfig, FeederId,
    FieldAccess, FieldCapability, FieldSet, Limits, ObservedConfig, RobotId,
};
use pasamanos_proto::pb::LinkState;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::driver::{
    ConfigReading, Driver, DriverError, FeederDescription, FeederSnapshot, Link, News, PlcFault,
    Profile, RobotSnapshot, RobotTraits, Slot, SlotBlock, SlotOp, SlotResult, SlotState,
    TankReading, slot_reason,
};

/// What becomes of one write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    /// Done and answered.
    Answered,
    /// Done; the answer is lost.
    AnswerLost,
    /// Answered at once; it is done after this.
    Slow(Duration),
    /// The client gives up; it is done after this.
    Late(Duration),
    /// The client gives up; it is never done.
    Lost,
    /// There is no connection: nothing was sent.
    NotSent,
}

#[derive(Clone, Debug)]
enum Write {
    Slot(SlotBlock),
    Config(FeederId, Option<u32>, FeederConfig, FieldSet),
    Hold(FeederId, bool),
}

/// A dose whose motor started.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ran {
    pub token: u32,
    pub mg: u32,
    /// When.
    pub at: Instant,
}

/// One feeder of it.
#[derive(Clone, Debug)]
pub(crate) struct PlcFeeder {
    pub config: ObservedConfig,
    pub revision: u32,
    pub held: bool,
    pub total_mg: u64,
    /// When it took its config, by its own clock.
    pub stamp: i64,
    /// A meal of the schedule runs until then.
    pub meal_until: Option<Instant>,
}

/// The PLC's memory; tests change it at will.
#[derive(Debug)]
pub(crate) struct Plc {
    pub traits: RobotTraits,
    pub profile: Profile,
    pub slot: Slot,
    pub history: VecDeque<SlotResult>,
    /// How many results it keeps.
    pub keeps: usize,
    pub feeders: BTreeMap<FeederId, PlcFeeder>,
    pub faults: Vec<u32>,
    pub local: bool,
    pub readings: Vec<TankReading>,
    /// mg/s.
    pub rate: u32,
    pub readable: bool,
    /// How long a read is on its way there, and its answer back.
    pub read_takes: (Duration, Duration),
    pub alive: bool,
    /// The source timestamps of its config tags are its own.
    pub stamps: bool,
    /// Its program stands still: what is written shows, and nobody takes it.
    pub stopped: bool,
    /// The next writes' fates; the last one stays.
    pub fates: VecDeque<Fate>,
    /// The next config is put back after so many reads.
    pub revert_after: Option<u32>,
    /// Only so many fields of the next config are taken.
    pub take_fields: Option<usize>,
    /// It rolls back right after the first read that tells of a dose.
    pub forgets_what_it_told: bool,
    /// The last sequence that a read told.
    pub told: Option<u32>,
    /// The doses that physically ran.
    pub ran: Vec<Ran>,
    /// The portions that writes set.
    pub portions_set: Vec<i32>,
    /// Blocks that arrived.
    pub arrived: Vec<SlotBlock>,
    /// Plain tags echo the dose that ran, complete or not.
    pub echoes: bool,
    /// There is a tag for what the last dose came to.
    pub measures: bool,
    /// There is a totaliser.
    pub totals: bool,
    /// How often a status was read.
    pub reads: usize,
    reverting: Option<(u32, FeederId, ObservedConfig)>,
    late: Vec<(Instant, Write)>,
    running: Option<(Instant, FeederId, u32)>,
    began: Instant,
}

impl Plc {
    pub(crate) fn feeder(&mut self, id: &str) -> &mut PlcFeeder {
        self.feeders.get_mut(&id.parse().unwrap()).unwrap()
    }

    /// New epoch, as after lost memory.
    pub(crate) fn lose_memory(&mut self) {
        self.slot = Slot { epoch: self.slot.epoch + 1, last_sequence: 0, ..idle(0) };
        self.history.clear();
        self.running = None;
    }

    /// Comes back with retained memory one step old: the same epoch, the last slot unconsumed.
    pub(crate) fn roll_back(&mut self) {
        self.advance();
        // It was away: nothing that was on its way still arrives.
        self.late.clear();
        let before = self.slot.last_sequence.wrapping_sub(1);
        self.slot = Slot { epoch: self.slot.epoch, last_sequence: before, ..idle(0) };
        self.running = None;
    }

    /// The power went in the middle of a dose, and is back: it is over, and never resumed.
    pub(crate) fn cut_power(&mut self) {
        self.advance();
        self.late.clear();
        if self.running.is_some() {
            self.finish(SlotState::Aborted, slot_reason::POWER_LOST);
        }
    }

    /// The agent's process ends: what was on an in-process wire ends with it.
    pub(crate) fn unplug(&mut self) {
        self.advance();
        if self.traits.dwell.is_zero() {
            self.late.clear();
        }
    }

    fn time_s(&self, at: Instant) -> u32 {
        1_000 + u32::try_from((at - self.began).as_secs()).unwrap()
    }

    /// What happened since the last look.
    fn advance(&mut self) {
        let now = Instant::now();
        self.late.sort_by_key(|(at, _)| *at);
        while self.late.first().is_some_and(|(at, _)| *at <= now) {
            let (at, write) = self.late.remove(0);
            self.dispense(at);
            self.execute(write, at);
        }
        self.dispense(now);
    }

    /// What the motor did until then.
    fn dispense(&mut self, until: Instant) {
        if let Some((since, feeder, amount)) = self.running.clone() {
            let ran = until.saturating_duration_since(since).as_millis();
            let fed = u64::try_from(ran).unwrap() * u64::from(self.rate) / 1_000;
            let fed = u32::try_from(fed).unwrap().min(amount);
            let more = u64::from(fed - self.slot.dispensed_mg.unwrap_or(0));
            self.slot.dispensed_mg = Some(fed);
            let f = self.feeders.get_mut(&feeder).unwrap();
            f.total_mg += more;
            if fed == amount {
                self.finish(SlotState::Done, 0);
            } else if self.feeders[&feeder].held {
                self.finish(SlotState::Aborted, slot_reason::HELD);
            }
        }
    }

    fn finish(&mut self, state: SlotState, reason: u32) {
        self.running = None;
        self.slot.state = state;
        self.slot.reason = reason;
        self.remember();
    }

    fn remember(&mut self) {
        self.history.push_back(SlotResult {
            sequence: self.slot.last_sequence,
            op: self.slot.last_op,
            token: self.slot.last_token,
            state: self.slot.state,
            dispensed_mg: self.slot.dispensed_mg.unwrap_or(0),
        });
        while self.history.len() > self.keeps {
            self.history.pop_front();
        }
    }

    fn execute(&mut self, write: Write, at: Instant) {
        match write {
            Write::Slot(block) => self.take(block, at),
            Write::Hold(feeder, held) => self.feeders.get_mut(&feeder).unwrap().held = held,
            Write::Config(feeder, base, new, fields) => {
                let take = self.take_fields.take().unwrap_or(usize::MAX);
                let revert = self.revert_after.take();
                let f = self.feeders.get_mut(&feeder).unwrap();
                if self.profile == Profile::Block && base != Some(f.revision) {
                    return;
                }
                let old = f.config.clone();
                let mut config = old.valid().cloned().unwrap_or_else(|| new.clone());
                for field in fields.iter().take(take) {
                    config.copy_field(&new, field);
                }
                self.portions_set.extend(config.portion_mg);
                f.config = ObservedConfig::Valid(config);
                f.revision += 1;
                f.stamp += i64::from(!self.stopped);
                self.reverting = revert.map(|reads| (reads, feeder, old));
            }
        }
    }

    /// One scan: latched before the motor starts; anything else is ignored.
    fn take(&mut self, block: SlotBlock, at: Instant) {
        self.arrived.push(block);
        if !self.traits.sequenced {
            // Plain tags: whatever arrives starts the motor.
            let feeder = self.feeders.keys().nth(block.outlet.into()).unwrap().clone();
            self.ran.push(Ran { token: block.token, mg: block.amount_mg, at });
            self.slot = Slot {
                last_sequence: block.sequence,
                last_op: SlotOp::Dose,
                state: SlotState::Started,
                ..idle(0)
            };
            self.running = Some((at, feeder, block.amount_mg));
            return;
        }
        if block.epoch != self.slot.epoch
            || block.sequence != self.slot.last_sequence.wrapping_add(1)
        {
            return;
        }
        let (state, reason) = (SlotState::Started, 0);
        self.slot = Slot {
            epoch: block.epoch,
            last_sequence: block.sequence,
            last_op: block.op,
            last_token: block.token,
            state,
            reason,
            dispensed_mg: Some(0),
        };
        let feeder = self.feeders.keys().nth(block.outlet.into()).unwrap().clone();
        if block.op == SlotOp::Nop {
            self.finish(SlotState::Done, 0);
        } else if self.time_s(at) > block.expires_at_s {
            self.finish(SlotState::Expired, 0);
        } else if self.feeders[&feeder].held {
            self.finish(SlotState::Rejected, slot_reason::HELD);
        } else if self.running.is_some() {
            self.finish(SlotState::Rejected, slot_reason::BUSY);
        } else {
            self.ran.push(Ran { token: block.token, mg: block.amount_mg, at });
            self.running = Some((at, feeder, block.amount_mg));
        }
    }

    fn write(&mut self, write: Write) -> Result<(), DriverError> {
        self.advance();
        let fate = if self.fates.len() > 1 {
            self.fates.pop_front().unwrap()
        } else {
            self.fates.front().copied().unwrap_or(Fate::Answered)
        };
        let ambiguous = || Err(DriverError::Ambiguous("timed out".into()));
        match fate {
            Fate::Answered => {
                self.execute(write, Instant::now());
                Ok(())
            }
            Fate::AnswerLost => {
                self.execute(write, Instant::now());
                ambiguous()
            }
            Fate::Slow(after) => {
                self.late.push((Instant::now() + after, write));
                Ok(())
            }
            Fate::Late(after) => {
                self.late.push((Instant::now() + after, write));
                ambiguous()
            }
            Fate::Lost => ambiguous(),
            Fate::NotSent => Err(DriverError::NotConnected),
        }
    }

    /// The dose group of plain tags: complete or not, it is done.
    fn echo(&self) -> Option<Slot> {
        let over = matches!(self.slot.state, SlotState::Aborted | SlotState::Done);
        let state = if over { SlotState::Done } else { self.slot.state };
        let dispensed_mg = self.slot.dispensed_mg.filter(|_| self.measures && over);
        self.echoes.then_some(Slot { state, reason: 0, dispensed_mg, ..self.slot })
    }

    fn snapshot(&mut self) -> Result<RobotSnapshot, DriverError> {
        self.advance();
        if !self.readable {
            return Err(DriverError::BadData("unreadable".into()));
        }
        let running = self.running.as_ref().map(|(_, f, _)| f.clone());
        let now = Instant::now();
        let feeders = self.feeders.iter().map(|(id, f)| FeederSnapshot {
            feeder: id.clone(),
            held: Some(f.held),
            dosing: running.as_ref() == Some(id) || f.meal_until.is_some_and(|at| now < at),
            total_mg: Some(f.total_mg).filter(|_| self.totals),
            next_dose_in_s: None,
            meal: None,
        });
        let time_s = self.time_s(now);
        let alive = if self.alive { u64::from(time_s) } else { 7 };
        Ok(RobotSnapshot {
            slot: if self.traits.sequenced { Some(self.slot) } else { self.echo() },
            alive: Some(alive),
            plc_time_s: Some(time_s),
            local: self.local,
            hoppers: Vec::new(),
            faults: self.faults.iter().map(|c| PlcFault { code: *c, text: "jam".into() }).collect(),
            feeders: feeders.collect(),
            readings: self.readings.clone(),
        })
    }

    fn config(&mut self, feeder: &FeederId) -> Result<ConfigReading, DriverError> {
        self.advance();
        if !self.readable {
            return Err(DriverError::BadData("unreadable".into()));
        }
        if let Some((reads, f, old)) = self.reverting.take() {
            if reads == 0 {
                self.feeders.get_mut(&f).unwrap().config = old;
            } else {
                self.reverting = Some((reads - 1, f, old));
            }
        }
        let f = &self.feeders[feeder];
        let block = self.profile == Profile::Block;
        Ok(ConfigReading {
            config: f.config.clone(),
            revision: block.then_some(f.revision),
            plc_epoch: block.then_some(self.slot.epoch),
            stamps: if self.stamps {
                ConfigField::ALL.map(|field| (field, f.stamp)).into()
            } else {
                Vec::new()
            },
        })
    }
}

/// So much time passes on the wire.
async fn pass(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

fn idle(epoch: u32) -> Slot {
    Slot {
        epoch,
        last_sequence: 0,
        last_op: SlotOp::None,
        last_token: 0,
        state: SlotState::Idle,
        reason: 0,
        dispensed_mg: Some(0),
    }
}

/// A driver of it; a restarted agent gets a new one of the same memory.
#[derive(Clone)]
pub(crate) struct ScriptedPlc {
    pub memory: Arc<Mutex<Plc>>,
    feeders: Arc<Vec<FeederDescription>>,
    robot: RobotId,
    link: watch::Sender<Link>,
    news: Arc<News>,
}

impl ScriptedPlc {
    /// With these feeders on one robot.
    pub(crate) fn new(feeders: &[(&str, FeederConfig)]) -> Self {
        let robot: RobotId = "robot-1".parse().unwrap();
        let writable =
            FieldCapability { access: FieldAccess::Writable, enforced_by: Enforcer::Plc };
        let described = feeders.iter().enumerate().map(|(i, (id, _))| FeederDescription {
            feeder: id.parse().unwrap(),
            robot: robot.clone(),
            tank: "tank-a1".parse().unwrap(),
            outlet: u8::try_from(i).unwrap(),
            display_name: (*id).into(),
            tank_name: "Tank A1".into(),
            group: String::new(),
            limits: Limits { dispense_rate_mg_per_s: Some(500), ..Limits::default() },
            capabilities: Capabilities::new(
                FeedNowCapability::Exact,
                true,
                ConfigField::ALL.map(|f| (f, writable)),
            ),
            profile: Profile::Block,
            envelope_mg: Some(1_000_000),
            calibration: String::new(),
        });
        let of = |c: &FeederConfig| PlcFeeder {
            config: ObservedConfig::Valid(c.clone()),
            revision: 1,
            held: false,
            total_mg: 0,
            stamp: 1,
            meal_until: None,
        };
        let memory = Plc {
            traits: RobotTraits {
                sequenced: true,
                dwell: Duration::ZERO,
                life_provable: true,
                read_only: false,
                basis: Basis::Counted,
            },
            profile: Profile::Block,
            slot: idle(77),
            history: VecDeque::new(),
            keeps: 8,
            feeders: feeders.iter().map(|(id, c)| (id.parse().unwrap(), of(c))).collect(),
            faults: Vec::new(),
            local: false,
            readings: Vec::new(),
            rate: 500,
            readable: true,
            read_takes: (Duration::ZERO, Duration::ZERO),
            alive: true,
            stamps: false,
            stopped: false,
            fates: VecDeque::new(),
            revert_after: None,
            take_fields: None,
            ran: Vec::new(),
            portions_set: Vec::new(),
            arrived: Vec::new(),
            echoes: false,
            measures: true,
            totals: true,
            reads: 0,
            told: None,
            forgets_what_it_told: false,
            reverting: None,
            late: Vec::new(),
            running: None,
            began: Instant::now(),
        };
        let link = watch::Sender::new(Link { state: LinkState::Up, detail: String::new() });
        let feeders = Arc::new(described.collect());
        let (memory, news) = (Arc::new(Mutex::new(memory)), Arc::default());
        Self { memory, feeders, robot, link, news }
    }

    /// With another profile and other proofs; before an agent is built on it.
    pub(crate) fn with(self, profile: Profile, dwell: Duration, sequenced: bool) -> Self {
        {
            let mut plc = self.plc();
            plc.profile = profile;
            plc.traits.dwell = dwell;
            plc.traits.sequenced = sequenced;
        }
        let feeders = self.feeders.iter().cloned().map(|f| FeederDescription { profile, ..f });
        Self { feeders: Arc::new(feeders.collect()), ..self }
    }

    /// Without a hold that can be reached.
    pub(crate) fn without_hold(self) -> Self {
        let feeders = self.feeders.iter().cloned().map(|f| {
            let fields = ConfigField::ALL.map(|c| (c, f.capabilities.field(c)));
            let capabilities = Capabilities::new(f.capabilities.feed_now, false, fields);
            FeederDescription { capabilities, ..f }
        });
        Self { feeders: Arc::new(feeders.collect()), ..self }
    }

    /// With another rolling 24 h limit.
    pub(crate) fn with_envelope(self, mg: i64) -> Self {
        let feeders = self.feeders.iter().cloned();
        let feeders = feeders.map(|f| FeederDescription { envelope_mg: Some(mg), ..f });
        Self { feeders: Arc::new(feeders.collect()), ..self }
    }

    /// The PLC tells that something changed.
    pub(crate) fn tell(&self) {
        self.news.tell(&self.robot);
    }

    pub(crate) fn plc(&self) -> std::sync::MutexGuard<'_, Plc> {
        self.memory.lock().unwrap()
    }
}

#[async_trait]
impl Driver for ScriptedPlc {
    fn feeders(&self) -> &[FeederDescription] {
        &self.feeders
    }

    fn traits(&self, robot: &RobotId) -> RobotTraits {
        assert_eq!(*robot, self.robot);
        self.plc().traits
    }

    async fn read_status(&self, _: &RobotId) -> Result<RobotSnapshot, DriverError> {
        let (there, back) = self.plc().read_takes;
        pass(there).await;
        let (snapshot, sequence) = {
            let mut plc = self.plc();
            plc.reads += 1;
            (plc.snapshot(), plc.slot.last_sequence)
        };
        pass(back).await;
        let mut plc = self.plc();
        plc.told = snapshot.as_ref().ok().map(|_| sequence).or(plc.told);
        if plc.forgets_what_it_told && plc.running.is_some() {
            plc.roll_back();
        }
        snapshot
    }

    async fn read_config(&self, feeder: &FeederId) -> Result<ConfigReading, DriverError> {
        let (there, back) = self.plc().read_takes;
        pass(there).await;
        let reading = self.plc().config(feeder);
        pass(back).await;
        reading
    }

    async fn write_config(
        &self,
        feeder: &FeederId,
        base: &ConfigReading,
        new: &FeederConfig,
        fields: &FieldSet,
    ) -> Result<(), DriverError> {
        let write = Write::Config(feeder.clone(), base.revision, new.clone(), fields.clone());
        self.plc().write(write)
    }

    async fn submit(&self, _: &RobotId, block: &SlotBlock) -> Result<(), DriverError> {
        self.plc().write(Write::Slot(*block))
    }

    async fn history(&self, _: &RobotId) -> Result<Vec<SlotResult>, DriverError> {
        Ok(self.plc().history.iter().copied().collect())
    }

    async fn hold(&self, feeder: &FeederId) -> Result<(), DriverError> {
        self.plc().write(Write::Hold(feeder.clone(), true))
    }

    async fn resume(&self, feeder: &FeederId) -> Result<(), DriverError> {
        self.plc().write(Write::Hold(feeder.clone(), false))
    }

    async fn reset_fault(&self, _: &FeederId, code: u32) -> Result<(), DriverError> {
        self.plc().faults.retain(|c| *c != code);
        Ok(())
    }

    fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    fn news(&self) -> Option<Arc<News>> {
        Some(self.news.clone())
    }

    async fn shutdown(&self) {}
}
