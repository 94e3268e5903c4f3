//! Everything breaks at once, many times: whatever happens to wire, sessions and process, a dose
//! runs at most once, what is said of it is true, and every milligram is in one record.

use std::collections::BTreeMap;
use std::time::Duration;

use pasamanos_proto::model::{
    Action, CommandName, CommandOrder, CommandReport, CommandState, FeederConfig, ObservedConfig,
    Reason,
};
use pasamanos_proto::pb;
use tokio::time::Instant;

use crate::driver::{Profile, SlotOp};
use crate::executor::token_of;
use crate::testing::{FEEDER, Fate, OTHER, Peer, Ran, Rig, ScriptedPlc, config};

fn fate(random: &mut fastrand::Rng) -> Fate {
    match random.u8(0..10) {
        0..4 => Fate::Answered,
        4 | 5 => Fate::AnswerLost,
        6 | 7 => Fate::Late(Duration::from_millis(random.u64(10..40_000))),
        8 => Fate::Lost,
        _ => Fate::NotSent,
    }
}

#[derive(Default)]
struct Ledger {
    reports: BTreeMap<CommandName, CommandReport>,
    settled: usize,
    records: BTreeMap<i64, pb::Record>,
}

impl Ledger {
    fn take(&mut self, peer: &mut Peer) {
        for r in peer.reports.drain(..).filter(|r| r.state.is_terminal()) {
            self.report(r);
        }
        for r in peer.records.drain(..) {
            let old = self.records.insert(r.sequence, r.clone());
            assert!(old.is_none_or(|o| o.hash == r.hash), "a record changed");
        }
    }

    fn report(&mut self, r: CommandReport) {
        if let Some(old) = self.reports.get(&r.command) {
            let may = old.state == r.state || old.state == CommandState::Uncertain;
            assert!(may, "{old:?} became {r:?}");
            self.settled += usize::from(old.state != r.state);
        }
        self.reports.insert(r.command.clone(), r);
    }
}

async fn open(rig: &mut Rig, ledger: &mut Ledger) -> Peer {
    let mut peer = rig.session().await;
    let hello = peer.hello().await;
    for r in hello.commands.into_iter().filter(|r| r.state.is_terminal()) {
        ledger.report(r);
    }
    let epoch = rig.next_epoch().max(hello.journal.last_epoch + 1);
    peer.welcome(epoch).await;
    peer
}

/// What a run came across; a test that meets nothing proves nothing.
#[derive(Debug, Default)]
struct Met {
    states: BTreeMap<(&'static str, CommandState), usize>,
    settled: usize,
    fenced: usize,
    repeated: usize,
}

/// Plays the server for a while, over as many sessions as it takes.
async fn live(rig: &mut Rig, ledger: &mut Ledger, peer: &mut Peer, time: Duration) {
    let until = Instant::now() + time;
    while !peer.play(until.saturating_duration_since(Instant::now())).await {
        ledger.take(peer);
        *peer = open(rig, ledger).await;
    }
    ledger.take(peer);
}

/// One farm, one server, and what was asked.
struct World {
    seed: u64,
    random: fastrand::Rng,
    rig: Rig,
    ledger: Ledger,
    peer: Peer,
    sent: Vec<CommandOrder>,
    portion: i32,
}

impl World {
    async fn new(seed: u64) -> Self {
        let plc = ScriptedPlc::new(&[(FEEDER, config()), (OTHER, config())]);
        let (profile, dwell) = match seed % 3 {
            0 => (Profile::Block, Duration::ZERO),
            1 => (Profile::Block, Duration::from_secs(1)),
            _ => (Profile::Scalar, Duration::from_secs(1)),
        };
        let mut rig = Rig::on(plc.with(profile, dwell, true)).await;
        let mut ledger = Ledger::default();
        let peer = open(&mut rig, &mut ledger).await;
        let random = fastrand::Rng::with_seed(seed);
        Self { seed, random, rig, ledger, peer, sent: Vec::new(), portion: 1_000 }
    }

    async fn live(&mut self, millis: std::ops::Range<u64>) {
        let time = Duration::from_millis(self.random.u64(millis));
        live(&mut self.rig, &mut self.ledger, &mut self.peer, time).await;
    }

    /// What becomes of the next writes, and whether the PLC can be read.
    fn disturb(&mut self) {
        let random = &mut self.random;
        let mut fates: Vec<_> = (0..random.usize(0..12)).map(|_| fate(random)).collect();
        if random.u8(0..3) == 0 {
            // A wire that loses everything for a while, and lets some of it through much later.
            let lost = |random: &mut fastrand::Rng| match random.u8(0..4) {
                0 => Fate::Late(Duration::from_millis(random.u64(5_000..60_000))),
                _ => Fate::Lost,
            };
            fates.extend((0..random.usize(10..120)).map(|_| lost(random)));
        }
        let mut plc = self.rig.plc.plc();
        plc.fates = fates.into_iter().chain([Fate::Answered]).collect();
        plc.readable = random.u8(0..5) != 0;
        if random.u8(0..4) == 0 {
            // A meal of the schedule.
            plc.feeder(FEEDER).total_mg += random.u64(1..900);
            plc.feeder(FEEDER).meal_until = Some(Instant::now() + Duration::from_secs(3));
        }
        if random.u8(0..16) == 0 {
            self.portion += 50;
            let edited = FeederConfig { portion_mg: Some(self.portion), ..config() };
            plc.feeder(FEEDER).config = ObservedConfig::Valid(edited);
            plc.feeder(FEEDER).revision += 1;
        }
    }

    /// Asks for something.
    async fn ask(&mut self) {
        let order = match self.random.u8(0..10) {
            0..6 => self.rig.feed(self.random.i32(1..40) * 50),
            6 | 7 => {
                self.portion += 50;
                let now = self.rig.plc.plc().feeder(FEEDER).config.valid().cloned();
                let base = now.unwrap_or_else(config);
                let new = FeederConfig { portion_mg: Some(self.portion), ..base.clone() };
                self.rig.update(&base, new)
            }
            8 => self.rig.order(FEEDER, Action::Hold),
            _ => self.rig.order(FEEDER, Action::Resume),
        };
        self.peer.order(&order).await;
        if self.random.bool() {
            self.peer.order(&order).await;
        }
        let dose = matches!(order.action, Action::FeedNow { .. });
        self.sent.push(order);
        if dose && self.random.u8(0..5) == 0 {
            // The dose is on its way, and then nothing can be read for longer than its limit.
            self.live(0..600).await;
            self.rig.plc.plc().readable = false;
            self.live(10_000..25_000).await;
        }
    }

    /// Process and stream end at any time.
    async fn interrupt(self) -> Self {
        let Self { seed, mut random, mut rig, mut ledger, peer, sent, portion } = self;
        let peer = match random.u8(0..8) {
            kind @ 0..2 => {
                drop(peer);
                if kind == 0 {
                    rig.restart().await;
                }
                open(&mut rig, &mut ledger).await
            }
            _ => peer,
        };
        Self { seed, random, rig, ledger, peer, sent, portion }
    }

    /// Everything is well again.
    async fn heal(&mut self) {
        {
            let mut plc = self.rig.plc.plc();
            plc.readable = true;
            plc.fates = [Fate::Answered].into();
        }
        self.live(180_000..180_001).await;
        let resume = self.rig.order(FEEDER, Action::Resume);
        self.peer.order(&resume).await;
        self.live(20_000..20_001).await;
        let end = self.ledger.reports.get(&resume.command);
        let seed = self.seed;
        assert_eq!(end.map(|r| r.state), Some(CommandState::Applied), "seed {seed}: {end:?}");
        assert!(!self.rig.plc.plc().feeder(FEEDER).held, "seed {seed}: still held");
    }

    fn judge(&self) {
        let (ran, set) = {
            let plc = self.rig.plc.plc();
            (plc.ran.clone(), plc.portions_set.clone())
        };
        for order in &self.sent {
            let end = self.ledger.reports.get(&order.command);
            match &order.action {
                Action::FeedNow { .. } => self.judge_dose(order, end, &ran),
                Action::UpdateConfig { new, .. } => {
                    let shown = new.portion_mg.is_some_and(|mg| set.contains(&mg));
                    let state = end.map(|r| (r.state, r.reason));
                    let seed = self.seed;
                    match state {
                        Some((CommandState::Applied, _)) => assert!(shown, "seed {seed}: {end:?}"),
                        // Whether it showed for a moment before the farm's edit nobody can tell.
                        Some((CommandState::Uncertain, _) | (_, Reason::ChangedAtFarm)) => {}
                        _ => assert!(!shown, "seed {seed}: {end:?}"),
                    }
                }
                _ => {}
            }
        }
    }

    fn judge_dose(&self, order: &CommandOrder, end: Option<&CommandReport>, ran: &[Ran]) {
        let (seed, name) = (self.seed, &order.command);
        let times = ran.iter().filter(|r| r.token == token_of(name)).count();
        assert!(times <= 1, "seed {seed}: {name} ran {times} times");
        let expected = match end.map(|r| r.state) {
            Some(CommandState::Applied | CommandState::Partial) => 1,
            // Never journaled: no hello lists it, and it never ran.
            Some(CommandState::Expired | CommandState::Rejected) | None => 0,
            _ => panic!("seed {seed}: never settled: {end:?}"),
        };
        assert_eq!(times, expected, "seed {seed}: {name} {end:?}");
    }

    fn judge_records(&self) {
        let dispensed = |r: &pb::Record| match &r.content {
            Some(pb::record::Content::Dose(d)) => d.dispensed_mg,
            _ => None,
        };
        let recorded: i64 = self.ledger.records.values().filter_map(dispensed).sum();
        let fed = self.rig.plc.plc().feeder(FEEDER).total_mg;
        assert_eq!(u64::try_from(recorded).unwrap(), fed, "seed {}", self.seed);
    }

    fn tell(&self, met: &mut Met) {
        met.settled += self.ledger.settled;
        for order in &self.sent {
            if let Some(r) = self.ledger.reports.get(&order.command) {
                *met.states.entry((order.action.kind().as_str(), r.state)).or_default() += 1;
            }
        }
        let plc = self.rig.plc.plc();
        met.fenced += plc.arrived.iter().filter(|b| b.op == SlotOp::Nop).count();
        met.repeated += plc.arrived.len().saturating_sub(plc.ran.len());
    }
}

async fn run(seed: u64, met: &mut Met) {
    let mut world = World::new(seed).await;
    for _ in 0..14 {
        world.disturb();
        world.ask().await;
        world.live(1..14_000).await;
        world = world.interrupt().await;
    }
    world.heal().await;
    world.judge();
    world.judge_records();
    world.tell(met);
    world.rig.stop();
    let World { mut rig, peer, .. } = world;
    drop(peer);
    rig.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn p3_never_twice_and_always_the_truth() {
    if let Ok(filter) = std::env::var("CHAOS_LOG") {
        let _again = crate::telemetry::init(&filter, crate::telemetry::LogFormat::Pretty);
    }
    let seeds = std::env::var("CHAOS_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(25);
    let first = std::env::var("CHAOS_FIRST").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let mut met = Met::default();
    for seed in first..first + seeds {
        run(seed, &mut met).await;
    }
    let seeds_run = usize::try_from(seeds).unwrap_or(0);
    let all = [CommandState::Applied, CommandState::Expired, CommandState::Rejected]
        .map(|state| ("feed_now", state));
    let enough = all.iter().all(|s| met.states.contains_key(s))
        && met.settled > 0
        && met.fenced > 0
        && met.repeated > 0
        && met.settled > seeds_run / 10;
    assert!(enough || seeds < 25, "too quiet: {met:?}");
    println!("{met:?}");
}
