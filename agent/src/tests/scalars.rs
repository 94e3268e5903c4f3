//! Doses through plain tags: at most once, and in doubt rather than wrong.

use std::time::Duration;

use pasamanos_proto::model::{Basis, CommandState, Reason};
use pasamanos_proto::pb::{self, connect_response::Frame};

use crate::driver::Profile;
use crate::testing::{FEEDER, Fate, Rig, ScriptedPlc, config};

async fn scalar() -> Rig {
    let plc = ScriptedPlc::new(&[(FEEDER, config())]);
    Rig::on(plc.with(Profile::Scalar, Duration::from_secs(1), false)).await
}

#[tokio::test(start_paused = true)]
async fn the_totaliser_proves_a_dose() {
    let mut rig = scalar().await;
    let mut peer = rig.open().await;
    rig.plc.plc().fates = [Fate::AnswerLost].into();
    let order = rig.feed(1_000);
    peer.order(&order).await;
    let end = peer.outcome(&order.command).await;
    assert_eq!((end.state, end.dispensed.unwrap().0), (CommandState::Applied, 1_000));
    peer.play(Duration::from_secs(10)).await;
    assert_eq!(rig.plc.plc().ran.len(), 1);
    let fed: Vec<_> = peer.doses().iter().map(|d| (d.cause(), d.dispensed_mg)).collect();
    assert_eq!(fed, vec![(pb::DoseCause::Command, Some(1_000))]);
}

#[tokio::test(start_paused = true)]
async fn p3_a_lost_dose_is_never_repeated_and_only_a_person_settles_it() {
    let mut rig = scalar().await;
    let mut peer = rig.open().await;
    rig.plc.plc().fates = [Fate::Lost, Fate::Answered].into();
    let order = rig.feed(1_000);
    peer.order(&order).await;
    let end = peer.outcome(&order.command).await;
    assert_eq!(end.state, CommandState::Uncertain);
    rig.restart().await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_mins(3)).await;
    assert!(rig.plc.plc().arrived.is_empty());
    let next = rig.feed(1_000);
    peer.order(&next).await;
    assert_eq!(peer.outcome(&next.command).await.reason, Reason::DoseUnsettled);
    let ack = pb::CommandAck {
        command: order.command.to_string(),
        state: pb::CommandState::Uncertain.into(),
        resolution: Some(pb::Resolution {
            verdict: pb::ResolutionVerdict::NotFed.into(),
            who: "ana".into(),
            ..Default::default()
        }),
        anchor: None,
    };
    peer.send(Frame::CommandAck(ack)).await;
    peer.play(Duration::from_secs(2)).await;
    let next = rig.feed(1_000);
    peer.order(&next).await;
    assert_eq!(peer.outcome(&next.command).await.state, CommandState::Applied);
    peer.play(Duration::from_secs(5)).await;
    let fed: i64 = peer.doses().iter().filter_map(|d| d.dispensed_mg).sum();
    assert_eq!(fed, 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_dose_that_runs_late_settles_its_doubt() {
    let mut rig = scalar().await;
    let mut peer = rig.open().await;
    rig.plc.plc().fates = [Fate::Late(Duration::from_secs(25)), Fate::Answered].into();
    let order = rig.feed(1_000);
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await.state, CommandState::Uncertain);
    let settled = peer.outcome(&order.command).await;
    assert_eq!((settled.state, settled.dispensed.unwrap().0), (CommandState::Applied, 1_000));
    assert_eq!(rig.plc.plc().ran.len(), 1);
}

/// A PLC that echoes the dose that it ran, and measures nothing.
async fn unmeasured() -> Rig {
    let rig = scalar().await;
    {
        let mut plc = rig.plc.plc();
        (plc.echoes, plc.measures, plc.totals) = (true, false, false);
    }
    rig
}

/// RULES 5.3: what nobody measured counts as asked, and is called that.
#[tokio::test(start_paused = true)]
async fn p2_a_dose_that_ran_whole_and_nobody_measured_counts_as_asked() {
    let mut rig = unmeasured().await;
    let mut peer = rig.open().await;
    let order = rig.feed(1_000);
    peer.order(&order).await;
    let end = peer.outcome(&order.command).await;
    assert_eq!(end.state, CommandState::Applied, "{end:?}");
    assert_eq!(end.dispensed, Some((1_000, Basis::Assumed)));
    peer.play(Duration::from_secs(5)).await;
    let doses: Vec<_> = peer.doses().iter().map(|d| (d.dispensed_mg, d.basis())).collect();
    assert_eq!(doses, [(Some(1_000), pb::AmountBasis::Assumed)]);
}

/// RULES 5.3: PARTIAL needs an amount that the PLC measured and kept. Whatever may have cut a dose that
/// nobody measures leaves it in doubt, counted in full, and locks the robot.
#[tokio::test(start_paused = true)]
async fn p2_a_dose_that_may_have_ended_short_and_nobody_measured_is_in_doubt() {
    let power: fn(&Rig) = |rig| {
        rig.plc.plc().readable = false;
        rig.plc.plc().cut_power();
    };
    let stop: fn(&Rig) = |rig| rig.plc.plc().cut_power();
    let held: fn(&Rig) = |rig| rig.plc.plc().feeder(FEEDER).held = true;
    for (what, cut) in [("the power went", power), ("it stopped by itself", stop), ("held", held)] {
        let mut rig = unmeasured().await;
        let mut peer = rig.open().await;
        let order = rig.feed(5_000);
        peer.order(&order).await;
        peer.executing(&order.command).await;
        peer.play(Duration::from_secs(3)).await;
        cut(&rig);
        peer.play(Duration::from_secs(1)).await;
        rig.plc.plc().readable = true;
        let end = peer.outcome(&order.command).await;
        assert_eq!(end.state, CommandState::Uncertain, "{what}: {end:?}");
        assert_eq!(end.dispensed, Some((5_000, Basis::Assumed)), "{what}");
        peer.play(Duration::from_secs(3)).await;
        let next = rig.feed(1_000);
        peer.order(&next).await;
        let refused = peer.outcome(&next.command).await;
        let locked = [Reason::DoseUnsettled, Reason::FeederHeld].contains(&refused.reason);
        assert!(locked, "{what}: {refused:?}");
        assert_eq!(rig.plc.plc().ran.len(), 1, "{what}");
    }
}

/// The wait for a start that was passed on late is no part of the dose.
#[tokio::test(start_paused = true)]
async fn p2_a_dose_that_began_late_and_ended_short_is_in_doubt() {
    let mut rig = unmeasured().await;
    let mut peer = rig.open().await;
    rig.plc.plc().fates = [Fate::Slow(Duration::from_secs(3)), Fate::Answered].into();
    let order = rig.feed(2_000);
    peer.order(&order).await;
    peer.executing(&order.command).await;
    peer.play(Duration::from_millis(4_500)).await;
    assert_eq!(rig.plc.plc().ran.len(), 1);
    rig.plc.plc().cut_power();
    let end = peer.outcome(&order.command).await;
    assert_eq!(end.state, CommandState::Uncertain, "{end:?}");
}

/// The same with a totaliser: it measured what fell.
#[tokio::test(start_paused = true)]
async fn p2_a_dose_that_a_power_cut_ended_is_partial_by_the_totaliser() {
    let mut rig = unmeasured().await;
    rig.plc.plc().totals = true;
    let mut peer = rig.open().await;
    peer.play(Duration::from_secs(2)).await;
    let order = rig.feed(5_000);
    peer.order(&order).await;
    peer.executing(&order.command).await;
    peer.play(Duration::from_secs(3)).await;
    rig.plc.plc().cut_power();
    let fell = i32::try_from(rig.plc.plc().feeder(FEEDER).total_mg).unwrap();
    let end = peer.outcome(&order.command).await;
    assert_eq!((end.state, end.dispensed), (CommandState::Partial, Some((fell, Basis::Counted))));
    let order = rig.feed(1_000);
    peer.order(&order).await;
    let end = peer.outcome(&order.command).await;
    assert_eq!(
        (end.state, end.dispensed),
        (CommandState::Applied, Some((1_000, Basis::Counted))),
        "a whole dose is told as the totaliser has it"
    );
    peer.play(Duration::from_secs(5)).await;
    let told: i64 = peer.doses().iter().filter_map(|d| d.dispensed_mg).sum();
    assert_eq!(told, i64::from(fell) + 1_000, "each milligram once");
}

/// RULES 5.3: also a block that ends short and only times its motor.
#[tokio::test(start_paused = true)]
async fn p2_a_plc_that_ends_short_and_does_not_measure_is_in_doubt() {
    for basis in [Basis::Timed, Basis::Counted] {
        let plc = ScriptedPlc::new(&[(FEEDER, config())]).with_envelope(5_500);
        plc.plc().traits.basis = basis;
        let mut rig = Rig::on(plc).await;
        let mut peer = rig.open().await;
        let order = rig.feed(5_000);
        peer.order(&order).await;
        peer.executing(&order.command).await;
        peer.play(Duration::from_secs(3)).await;
        rig.plc.plc().cut_power();
        let fell = i32::try_from(rig.plc.plc().feeder(FEEDER).total_mg).unwrap();
        let end = peer.outcome(&order.command).await;
        peer.play(Duration::from_secs(2)).await;
        // Less than a meal of 1 g is left if it counts in full: the schedule is held.
        let full = rig.plc.plc().feeder(FEEDER).held;
        if basis.is_measured() {
            assert_eq!((end.state, end.dispensed), (CommandState::Partial, Some((fell, basis))));
            assert!(!full);
        } else {
            assert_eq!(end.state, CommandState::Uncertain, "{end:?}");
            assert_eq!(end.dispensed, Some((5_000, Basis::Assumed)));
            assert!(full, "it counts in full");
        }
    }
}
