//! Doses through plain tags: at most once, and in doubt rather than wrong.

use std::time::Duration;

use pasamanos_proto::model::{CommandState, Reason};
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
