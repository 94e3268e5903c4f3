//! Interleavings that were found by reading: each broke a promise once.

use std::time::Duration;

use pasamanos_proto::model::{Action, CommandState, FeederConfig, ObservedConfig, Reason};
use pasamanos_proto::pb;
use tokio::time::Instant;

use crate::driver::Profile;
use crate::testing::{FEEDER, Fate, Rig, ScriptedPlc, config};

/// RULES 6.7: a slot that was seen consumed and then is not means lost memory, never "not run".
#[tokio::test(start_paused = true)]
async fn p3_a_plc_that_rolls_back_in_the_middle_of_a_dose_doses_no_second_time() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let dose = rig.feed(5_000);
    peer.order(&dose).await;
    peer.executing(&dose.command).await;
    peer.play(Duration::from_secs(1)).await;
    assert_eq!(rig.plc.plc().ran.len(), 1);
    rig.plc.plc().roll_back();
    let end = peer.outcome(&dose.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Uncertain, Reason::PlcMemoryLost));
    peer.play(Duration::from_mins(2)).await;
    assert_eq!(rig.plc.plc().ran.len(), 1, "it was given again");
}

/// The same whoever read it: the poller may see what the dose's own reads do not.
#[tokio::test(start_paused = true)]
async fn p3_what_any_read_saw_consumed_is_not_submitted_again() {
    for late_ms in (10..500).step_by(10) {
        let mut rig = Rig::new().await;
        let mut peer = rig.open().await;
        {
            let mut plc = rig.plc.plc();
            plc.fates = [Fate::Late(Duration::from_millis(late_ms)), Fate::Answered].into();
            plc.forgets_what_it_told = true;
        }
        let dose = rig.feed(5_000);
        peer.order(&dose).await;
        let end = peer.outcome(&dose.command).await;
        assert_eq!((end.state, end.reason), (CommandState::Uncertain, Reason::PlcMemoryLost));
        peer.play(Duration::from_secs(20)).await;
        assert_eq!(rig.plc.plc().ran.len(), 1, "late by {late_ms} ms: it was given again");
    }
}

/// The same, and then the agent starts anew: the slot is free again, and taking it proves nothing.
#[tokio::test(start_paused = true)]
async fn p2_a_dose_that_the_plc_forgot_is_not_expired_by_a_restart() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let dose = rig.feed(5_000);
    peer.order(&dose).await;
    peer.executing(&dose.command).await;
    peer.play(Duration::from_secs(1)).await;
    rig.plc.plc().roll_back();
    let end = peer.outcome(&dose.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Uncertain, Reason::PlcMemoryLost));
    drop(peer);
    rig.restart().await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_mins(1)).await;
    let said: Vec<_> = peer.reports.iter().filter(|r| r.command == dose.command).collect();
    assert!(said.iter().all(|r| r.state == CommandState::Uncertain), "{said:?}");
    assert_eq!(rig.plc.plc().ran.len(), 1);
}

/// RULES 6.7: the same while the agent is away. A fence that the PLC took afterwards would say of a dose
/// that it gave that it never did.
#[tokio::test(start_paused = true)]
async fn p2_a_plc_that_rolls_back_beside_a_restart_leaves_its_dose_in_doubt() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let dose = rig.feed(5_000);
    peer.order(&dose).await;
    peer.executing(&dose.command).await;
    peer.play(Duration::from_secs(2)).await;
    rig.kill().await;
    rig.plc.plc().roll_back();
    rig.start().await;
    let mut peer = rig.open().await;
    let end = peer.outcome(&dose.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Uncertain, Reason::PlcMemoryLost));
    // Nor is one that has its end forgotten: the loss is told, and the feeder is held.
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let dose = rig.feed(1_000);
    peer.order(&dose).await;
    assert_eq!(peer.outcome(&dose.command).await.state, CommandState::Applied);
    rig.kill().await;
    rig.plc.plc().roll_back();
    rig.start().await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_secs(3)).await;
    assert!(peer.alarms().contains(&"PLC_MEMORY_LOST".to_owned()), "{:?}", peer.alarms());
    assert!(rig.plc.plc().feeder(FEEDER).held);
}

/// RULES 6.2: what was compared before a dose ended is compared again before the first tag.
#[tokio::test(start_paused = true)]
async fn p6_a_change_at_the_farm_while_a_config_waits_is_not_overwritten() {
    let plc = ScriptedPlc::new(&[(FEEDER, config())]);
    let mut rig = Rig::on(plc.with(Profile::Scalar, Duration::from_millis(300), false)).await;
    let mut peer = rig.open().await;
    rig.plc.plc().feeder(FEEDER).meal_until = Some(Instant::now() + Duration::from_secs(4));
    let new = FeederConfig { portion_mg: Some(1_200), interval_s: Some(1_200), ..config() };
    let order = rig.update(&config(), new);
    peer.order(&order).await;
    peer.play(Duration::from_secs(2)).await;
    let farm = FeederConfig { portion_mg: Some(1_700), ..config() };
    rig.plc.plc().feeder(FEEDER).config = ObservedConfig::Valid(farm.clone());
    let end = peer.outcome(&order.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::ChangedAtFarm));
    assert_eq!(rig.plc.plc().feeder(FEEDER).config, ObservedConfig::Valid(farm));
    peer.play(Duration::from_secs(5)).await;
    assert!(!rig.plc.plc().feeder(FEEDER).held, "its own hold is lifted");
}

/// RULES 5.5: a hold that comes while a resume is ending stands.
#[tokio::test(start_paused = true)]
async fn a_hold_behind_a_resume_stands_and_is_written_again() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let first = rig.order(FEEDER, Action::Hold);
    peer.order(&first).await;
    assert_eq!(peer.outcome(&first.command).await.state, CommandState::Applied);
    for _ in 0..5 {
        let resume = rig.order(FEEDER, Action::Resume);
        let hold = rig.order(FEEDER, Action::Hold);
        peer.order(&resume).await;
        peer.order(&hold).await;
        assert_eq!(peer.outcome(&hold.command).await.state, CommandState::Applied);
        peer.outcome(&resume.command).await;
        peer.play(Duration::from_secs(2)).await;
        let status = peer.feeders[FEEDER].status.clone().unwrap();
        assert_eq!(status.holds[0].source(), pb::HoldSource::Operator, "{status:?}");
        // The PLC loses the bit: the level is written again.
        rig.plc.plc().feeder(FEEDER).held = false;
        peer.play(Duration::from_secs(3)).await;
        assert!(rig.plc.plc().feeder(FEEDER).held, "the hold was erased");
    }
}
