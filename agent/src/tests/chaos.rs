//! Everything breaks at once, many times: whatever happens to wire, sessions and process, a dose
//! runs at most once, what is said of it is true, and every milligram is in one record.

use std::collections::BTreeMap;
use std::time::Duration;

use pasamanos_proto::model::{CommandName, CommandReport, CommandState};
use tokio::time::Instant;

use crate::driver::SlotOp;
use crate::executor::token_of;
use crate::testing::{FEEDER, Fate, Peer, Rig};

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
    records: BTreeMap<i64, pasamanos_proto::pb::Record>,
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
    states: BTreeMap<CommandState, usize>,
    settled: usize,
    fenced: usize,
    repeated: usize,
}

async fn run(seed: u64, met: &mut Met) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rig = Rig::new().await;
    let mut ledger = Ledger::default();
    let mut peer = open(&mut rig, &mut ledger).await;
    let mut sent = Vec::new();
    let mut by_schedule = 0;
    for _ in 0..12 {
        let mut fates: Vec<_> = (0..random.usize(0..12)).map(|_| fate(&mut random)).collect();
        if random.u8(0..3) == 0 {
            // A wire that loses everything for a while, and lets some of it through much later.
            let lost = |random: &mut fastrand::Rng| match random.u8(0..4) {
                0 => Fate::Late(Duration::from_millis(random.u64(5_000..60_000))),
                _ => Fate::Lost,
            };
            fates.extend((0..random.usize(10..120)).map(|_| lost(&mut random)));
        }
        {
            let mut plc = rig.plc.plc();
            plc.fates = fates.into_iter().chain([Fate::Answered]).collect();
            plc.readable = random.u8(0..5) != 0;
            if random.u8(0..4) == 0 {
                // A meal of the schedule.
                let mg = random.u64(1..900);
                by_schedule += mg;
                plc.feeder(FEEDER).total_mg += mg;
                plc.feeder(FEEDER).meal_until = Some(Instant::now() + Duration::from_secs(3));
            }
        }
        if random.u8(0..4) != 0 {
            let order = rig.feed(random.i32(1..40) * 50);
            peer.order(&order).await;
            if random.bool() {
                peer.order(&order).await;
            }
            sent.push(order);
            if random.u8(0..5) == 0 {
                // The dose is on its way, and then nothing can be read for longer than its limit.
                peer.play(Duration::from_millis(random.u64(0..600))).await;
                rig.plc.plc().readable = false;
                peer.play(Duration::from_secs(random.u64(10..25))).await;
            }
        }
        peer.play(Duration::from_millis(random.u64(1..14_000))).await;
        ledger.take(&mut peer);
        match random.u8(0..8) {
            0 => {
                drop(peer);
                rig.restart().await;
                peer = open(&mut rig, &mut ledger).await;
            }
            1 => {
                drop(peer);
                peer = open(&mut rig, &mut ledger).await;
            }
            _ => {}
        }
    }
    rig.plc.plc().readable = true;
    rig.plc.plc().fates = [Fate::Answered].into();
    peer.play(Duration::from_mins(3)).await;
    ledger.take(&mut peer);

    let ran = rig.plc.plc().ran.clone();
    for order in &sent {
        let times = ran.iter().filter(|(t, _)| *t == token_of(&order.command)).count();
        assert!(times <= 1, "seed {seed}: {} ran {times} times", order.command);
        match ledger.reports.get(&order.command) {
            Some(r) if matches!(r.state, CommandState::Applied | CommandState::Partial) => {
                assert_eq!(times, 1, "seed {seed}: {r:?}");
            }
            Some(r) => {
                assert!(
                    matches!(r.state, CommandState::Expired | CommandState::Rejected),
                    "seed {seed}: never settled: {r:?}"
                );
                assert_eq!(times, 0, "seed {seed}: {r:?}");
            }
            // Never journaled: no hello lists it, and it never ran.
            None => assert_eq!(times, 0, "seed {seed}: {} ran in silence", order.command),
        }
    }
    let recorded: i64 = ledger
        .records
        .values()
        .filter_map(|r| match &r.content {
            Some(pasamanos_proto::pb::record::Content::Dose(d)) => d.dispensed_mg,
            _ => None,
        })
        .sum();
    let fed = rig.plc.plc().feeder(FEEDER).total_mg;
    assert_eq!(u64::try_from(recorded).unwrap(), fed, "seed {seed}: {by_schedule} by schedule");
    met.settled += ledger.settled;
    for r in ledger.reports.values() {
        *met.states.entry(r.state).or_default() += 1;
    }
    {
        let plc = rig.plc.plc();
        met.fenced += plc.arrived.iter().filter(|b| b.op == SlotOp::Nop).count();
        met.repeated += plc.arrived.len().saturating_sub(plc.ran.len());
    }
    rig.stop();
    drop(peer);
    rig.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn never_twice_and_always_the_truth() {
    let seeds = std::env::var("CHAOS_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(25);
    let first = std::env::var("CHAOS_FIRST").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let mut met = Met::default();
    for seed in first..first + seeds {
        run(seed, &mut met).await;
    }
    let seeds_run = usize::try_from(seeds).unwrap_or(0);
    let all = [CommandState::Applied, CommandState::Expired, CommandState::Rejected];
    let enough = all.iter().all(|s| met.states.contains_key(s))
        && met.settled > 0
        && met.fenced > 0
        && met.repeated > 0
        && met.settled > seeds_run / 10;
    assert!(enough || seeds < 25, "too quiet: {met:?}");
    println!("{met:?}");
}
