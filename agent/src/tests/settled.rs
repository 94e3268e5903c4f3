//! A person's word ends the doubt of a config, not the write: RULES 6.5 holds for it all the same.

use std::time::Duration;

use pasamanos_proto::model::{CommandName, CommandState, FeederConfig, ObservedConfig, Reason};
use pasamanos_proto::pb::{self, connect_response::Frame};

use crate::driver::Profile;
use crate::testing::{FEEDER, Fate, OTHER, Peer, Rig, ScriptedPlc, config};

fn with_portion(mg: i32) -> FeederConfig {
    FeederConfig { portion_mg: Some(mg), ..config() }
}

/// A config whose write is like this, in doubt and settled by a person.
async fn settled(fate: Fate) -> (Rig, Peer, CommandName) {
    let plc = ScriptedPlc::new(&[(FEEDER, config()), (OTHER, config())]);
    let mut rig = Rig::on(plc.with(Profile::Scalar, Duration::from_secs(1), true)).await;
    let mut peer = rig.open().await;
    rig.plc.plc().fates = [fate, Fate::Answered].into();
    let order = rig.portion(1_200);
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await.state, CommandState::Uncertain);
    let resolution = pb::Resolution {
        verdict: pb::ResolutionVerdict::NotFed.into(),
        who: "ana".into(),
        ..Default::default()
    };
    let ack = pb::CommandAck {
        command: order.command.to_string(),
        state: pb::CommandState::Uncertain.into(),
        resolution: Some(resolution),
        anchor: None,
    };
    peer.send(Frame::CommandAck(ack)).await;
    peer.play(Duration::from_secs(2)).await;
    (rig, peer, order.command)
}

const LATE: Fate = Fate::Late(Duration::from_secs(40));

fn portion(rig: &Rig) -> ObservedConfig {
    rig.plc.plc().feeder(FEEDER).config.clone()
}

#[tokio::test(start_paused = true)]
async fn p6_a_late_write_is_not_the_farms_after_a_person_settled_it() {
    let (rig, mut peer, command) = settled(LATE).await;
    peer.play(Duration::from_mins(1)).await;
    assert_eq!(portion(&rig), ObservedConfig::Valid(with_portion(1_200)), "it landed");
    assert_eq!(peer.feeders[FEEDER].config, None, "credited to the farm");
    let end = peer.outcome(&command).await;
    assert_eq!(end.state, CommandState::Applied);
    assert_eq!(end.config, Some(ObservedConfig::Valid(with_portion(1_200))));
    assert!(peer.alarms().contains(&"READBACK_NOT_PROVEN".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn p6_a_late_write_is_not_the_farms_after_a_settlement_and_a_restart() {
    let (mut rig, _peer, command) = settled(LATE).await;
    rig.restart().await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_mins(1)).await;
    assert_eq!(peer.feeders[FEEDER].config, None, "credited to the farm");
    assert_eq!(peer.outcome(&command).await.state, CommandState::Applied);
}

#[tokio::test(start_paused = true)]
async fn p6_a_late_write_that_was_settled_does_not_displace_a_newer_command() {
    let (mut rig, mut peer, command) = settled(LATE).await;
    let newer = rig.portion(900);
    peer.order(&newer).await;
    assert_eq!(peer.outcome(&newer.command).await.state, CommandState::Applied, "kept out");
    let end = peer.outcome(&command).await;
    assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::ChangedAtFarm));
    assert!(rig.plc.plc().portions_set.contains(&1_200), "it landed");
    assert_eq!(portion(&rig), ObservedConfig::Valid(with_portion(900)));
    peer.play(Duration::from_secs(5)).await;
    assert_eq!(peer.feeders[FEEDER].config, None, "nothing of it is the farm's");
}

#[tokio::test(start_paused = true)]
async fn a_newer_command_of_the_same_value_says_nothing_of_the_one_that_was_settled() {
    let (mut rig, mut peer, command) = settled(Fate::Lost).await;
    let again = rig.portion(1_200);
    peer.order(&again).await;
    assert_eq!(peer.outcome(&again.command).await.state, CommandState::Applied);
    peer.play(Duration::from_mins(6)).await;
    let told = peer.reports.iter().any(|r| r.command == command && r.state.is_terminal());
    assert!(!told, "{:?}", peer.reports);
}

#[tokio::test(start_paused = true)]
async fn what_a_person_settled_is_not_watched_for_ever() {
    let (rig, mut peer, _) = settled(Fate::Lost).await;
    peer.play(Duration::from_mins(5)).await;
    // The same value, by hand.
    rig.plc.plc().feeder(FEEDER).config = ObservedConfig::Valid(with_portion(1_200));
    peer.play(Duration::from_secs(5)).await;
    assert_eq!(peer.feeders[FEEDER].config, Some(with_portion(1_200).into()));
}
