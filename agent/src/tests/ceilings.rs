//! P8: what the farm itself does not allow, whatever the server says.

use std::time::Duration;

use pasamanos_proto::model::{CommandState, FeederConfig, Interlocks, Reason};
use pasamanos_proto::pb::{self, ReadingKind};

use crate::driver::TankReading;
use crate::testing::{FEEDER, OTHER, Peer, Rig, ScriptedPlc, config};

/// An envelope of 5 g on both feeders.
fn plc(config: &FeederConfig) -> ScriptedPlc {
    ScriptedPlc::new(&[(FEEDER, config.clone()), (OTHER, config.clone())]).with_envelope(5_000)
}

#[tokio::test(start_paused = true)]
async fn p8_the_envelope_counts_every_origin_and_holds_the_schedule_too() {
    let mut rig = Rig::on(plc(&config())).await;
    let mut peer = rig.open().await;
    let first = rig.feed(2_000);
    peer.order(&first).await;
    assert_eq!(peer.outcome(&first.command).await.state, CommandState::Applied);
    // The schedule feeds as well.
    rig.plc.plc().feeder(FEEDER).total_mg += 1_500;
    peer.play(Duration::from_secs(3)).await;
    let second = rig.feed(2_000);
    peer.order(&second).await;
    let end = peer.outcome(&second.command).await;
    assert_eq!((end.reason, end.metadata["left_mg"].as_str()), (Reason::Envelope, "1500"));
    // What is left is less than one meal: the schedule is held.
    rig.plc.plc().feeder(FEEDER).total_mg += 1_000;
    peer.play(Duration::from_secs(3)).await;
    assert!(rig.plc.plc().feeder(FEEDER).held);
    let status = peer.feeders[FEEDER].status.clone().unwrap();
    assert_eq!(status.holds[0].source(), pb::HoldSource::Envelope);
    assert!(peer.alarms().contains(&"ENVELOPE".to_owned()));
    // It outlives a restart, and ends by itself once the day has rolled over.
    rig.restart().await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_secs(3)).await;
    assert!(rig.plc.plc().feeder(FEEDER).held);
    drop(peer);
    tokio::time::advance(Duration::from_hours(25)).await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_secs(3)).await;
    assert!(!rig.plc.plc().feeder(FEEDER).held);
}

#[tokio::test(start_paused = true)]
async fn p8_a_dose_in_doubt_counts_in_full() {
    let mut rig = Rig::on(plc(&config())).await;
    let mut peer = rig.open().await;
    rig.plc.plc().fates = [crate::testing::Fate::Lost].into();
    let lost = rig.feed(4_000);
    peer.order(&lost).await;
    peer.executing(&lost.command).await;
    rig.plc.plc().lose_memory();
    assert_eq!(peer.outcome(&lost.command).await.state, CommandState::Uncertain);
    peer.play(Duration::from_secs(2)).await;
    let status = peer.feeders[FEEDER].status.clone().unwrap();
    let blocked: Vec<_> = status.blocks.iter().map(|b| b.reason.as_str()).collect();
    assert!(blocked.contains(&"DOSE_UNSETTLED"), "{blocked:?}");
    let state = status.holds.iter().map(pb::Hold::source).collect::<Vec<_>>();
    // 1 g of 5 is left, a meal is 1 g: not held for the envelope, but for the memory.
    assert_eq!(state, vec![pb::HoldSource::PlcMemoryLost]);
}

#[tokio::test(start_paused = true)]
async fn p8_after_the_loss_of_its_journal_the_envelope_is_full_until_someone_resets_it() {
    let farm = plc(&config());
    farm.plc().feeder(FEEDER).total_mg = 700;
    let mut rig = Rig::on(farm).await;
    let mut peer = rig.open().await;
    let dose = rig.feed(1_000);
    peer.order(&dose).await;
    assert_eq!(peer.outcome(&dose.command).await.reason, Reason::Envelope);
    peer.play(Duration::from_secs(3)).await;
    assert!(!rig.plc.plc().feeder(FEEDER).held, "the schedule goes on");
    // The other feeder never fed: there is nothing to fear.
    let other = rig.order(OTHER, pasamanos_proto::model::Action::FeedNow { portion_mg: 1_000 });
    peer.order(&other).await;
    assert_eq!(peer.outcome(&other.command).await.state, CommandState::Applied);
    rig.kill().await;
    let of = (FEEDER.parse().unwrap(), "robot-1".parse().unwrap());
    crate::accept_gaps(rig.dir.path(), Some(of)).await.unwrap();
    rig.start().await;
    let mut peer = rig.open().await;
    let dose = rig.feed(1_000);
    peer.order(&dose).await;
    assert_eq!(peer.outcome(&dose.command).await.state, CommandState::Applied);
}

#[tokio::test(start_paused = true)]
async fn p8_a_reading_that_an_interlock_needs_and_that_is_missing_or_bad_inhibits() {
    let locked = FeederConfig {
        interlocks: Interlocks {
            min_dissolved_oxygen_ug_per_l: Some(4_000),
            ..Interlocks::default()
        },
        ..config()
    };
    let mut rig = Rig::on(plc(&locked)).await;
    let mut peer = rig.open().await;
    let reading = |value, good| TankReading {
        tank: "tank-a1".parse().unwrap(),
        kind: ReadingKind::DissolvedOxygenUgPerL,
        value,
        good,
        still_ms: None,
    };
    for readings in [vec![], vec![reading(8_000, false)], vec![reading(3_999, true)]] {
        rig.plc.plc().readings = readings;
        let dose = rig.feed(1_000);
        peer.order(&dose).await;
        let end = peer.outcome(&dose.command).await;
        assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::Interlock));
        assert_eq!(end.metadata["limit"], "4000");
    }
    rig.plc.plc().readings = vec![reading(4_000, true)];
    let dose = rig.feed(1_000);
    peer.order(&dose).await;
    assert_eq!(peer.outcome(&dose.command).await.state, CommandState::Applied);
}

/// RULES 5.8: a probe that stands still is no probe.
#[tokio::test(start_paused = true)]
async fn p8_a_probe_that_stands_still_inhibits_and_alarms_once() {
    let locked = FeederConfig {
        interlocks: Interlocks {
            min_dissolved_oxygen_ug_per_l: Some(4_000),
            ..Interlocks::default()
        },
        ..config()
    };
    let mut rig = Rig::on(plc(&locked)).await;
    let mut peer = rig.open().await;
    let reading = |still_ms| TankReading {
        tank: "tank-a1".parse().unwrap(),
        kind: ReadingKind::DissolvedOxygenUgPerL,
        value: 8_000,
        good: true,
        still_ms,
    };
    let raised = |peer: &Peer| peer.alarms().iter().filter(|a| *a == "INTERLOCK").count();
    for alarms in 1..=2 {
        rig.plc.plc().readings = vec![reading(Some(1_800_000))];
        peer.play(Duration::from_mins(2)).await;
        assert_eq!(peer.readings["tank-a1"][0].quality(), pb::Quality::Stale);
        let age = peer.readings["tank-a1"][0].age.unwrap();
        assert!(age.seconds >= 1_800, "as old as its last move: {age:?}");
        let dose = rig.feed(1_000);
        peer.order(&dose).await;
        let end = peer.outcome(&dose.command).await;
        assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::Interlock));
        // Both feeders of the tank.
        assert_eq!(raised(&peer), 2 * alarms, "once each time it stands still");
        rig.plc.plc().readings = vec![reading(None)];
        peer.play(Duration::from_secs(2)).await;
        assert_eq!(peer.readings["tank-a1"][0].quality(), pb::Quality::Good);
        let dose = rig.feed(1_000);
        peer.order(&dose).await;
        assert_eq!(peer.outcome(&dose.command).await.state, CommandState::Applied);
    }
}

#[tokio::test(start_paused = true)]
async fn the_days_cap_counts_every_dose_of_the_day() {
    let capped = FeederConfig { daily_cap_mg: Some(3_000), ..config() };
    let mut rig = Rig::on(plc(&capped)).await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_secs(1)).await;
    rig.plc.plc().feeder(FEEDER).total_mg += 1_500;
    peer.play(Duration::from_secs(3)).await;
    let dose = rig.feed(2_000);
    peer.order(&dose).await;
    let end = peer.outcome(&dose.command).await;
    assert_eq!((end.reason, end.metadata["left_mg"].as_str()), (Reason::DailyCap, "1500"));
    // A new day of the farm.
    drop(peer);
    tokio::time::advance(Duration::from_hours(13)).await;
    let mut peer = rig.open().await;
    let dose = rig.feed(2_000);
    peer.order(&dose).await;
    assert_eq!(peer.outcome(&dose.command).await.state, CommandState::Applied);
}

#[tokio::test(start_paused = true)]
async fn p8_a_frozen_plc_is_not_dosed() {
    let mut rig = Rig::on(plc(&config())).await;
    let mut peer = rig.open().await;
    rig.plc.plc().alive = false;
    peer.play(Duration::from_secs(15)).await;
    let dose = rig.feed(1_000);
    peer.order(&dose).await;
    assert_eq!(peer.outcome(&dose.command).await.reason, Reason::PlcUnreachable);
    let status = peer.feeders[FEEDER].status.clone().unwrap();
    assert_eq!(status.state(), pb::FeederState::Unknown);
}
