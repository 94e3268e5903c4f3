//! Config: applied only if the whole shows, twice, from a PLC that lives.

use std::time::Duration;

use pasamanos_proto::model::{
    Action, CommandReport, CommandState, FeederConfig, ObservedConfig, Reason,
};
use pasamanos_proto::pb;

use crate::driver::Profile;
use crate::testing::{FEEDER, Fate, OTHER, Rig, ScriptedPlc, config};

fn with_portion(mg: i32) -> FeederConfig {
    FeederConfig { portion_mg: Some(mg), ..config() }
}

async fn scalar() -> Rig {
    let plc = ScriptedPlc::new(&[(FEEDER, config()), (OTHER, config())]);
    Rig::on(plc.with(Profile::Scalar, Duration::from_secs(1), true)).await
}

#[tokio::test(start_paused = true)]
async fn p2_applied_carries_the_config_as_read_back_and_is_no_farm_edit() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let order = rig.portion(1_200);
    peer.order(&order).await;
    let end = peer.outcome(&order.command).await;
    assert_eq!(end.state, CommandState::Applied);
    assert_eq!(end.config, Some(ObservedConfig::Valid(with_portion(1_200))));
    peer.play(Duration::from_secs(5)).await;
    assert_eq!(peer.feeders[FEEDER].config, None, "not told as an edit of the farm");
    assert_eq!(rig.plc.plc().feeder(FEEDER).revision, 2);
}

#[tokio::test(start_paused = true)]
async fn p6_an_edit_at_the_farm_is_told_and_never_overwritten() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_secs(2)).await;
    rig.plc.plc().feeder(FEEDER).config = ObservedConfig::Valid(with_portion(900));
    let order = rig.portion(1_200);
    peer.order(&order).await;
    let end = peer.outcome(&order.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::ChangedAtFarm));
    assert_eq!(end.config, Some(ObservedConfig::Valid(with_portion(900))));
    rig.plc.plc().feeder(FEEDER).config = ObservedConfig::Valid(with_portion(800));
    peer.play(Duration::from_secs(2)).await;
    assert_eq!(peer.feeders[FEEDER].config, Some(with_portion(800).into()));
    // What the PLC runs already is still no base.
    let order = rig.portion(800);
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await.reason, Reason::ChangedAtFarm);
}

#[tokio::test(start_paused = true)]
async fn p2_a_value_that_is_put_back_is_rejected() {
    let mut rig = scalar().await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_secs(2)).await;
    rig.plc.plc().revert_after = Some(1);
    let order = rig.portion(1_200);
    peer.order(&order).await;
    let end = peer.outcome(&order.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::RevertedByPlc));
    assert_eq!(end.metadata["field"], "portion_mg");
}

#[tokio::test(start_paused = true)]
async fn p2_a_plc_that_does_not_live_proves_nothing() {
    let mut rig = scalar().await;
    rig.plc.plc().alive = false;
    let mut peer = rig.open().await;
    let order = rig.portion(1_200);
    peer.order(&order).await;
    let end = peer.outcome(&order.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Uncertain, Reason::ReadbackNotProven));
    // No other config until it is settled; then it is applied, late.
    let next = rig.portion(1_300);
    peer.order(&next).await;
    assert_eq!(peer.outcome(&next.command).await.reason, Reason::ConfigInFlight);
    rig.plc.plc().alive = true;
    assert_eq!(peer.outcome(&order.command).await.state, CommandState::Applied);
    peer.play(Duration::from_secs(3)).await;
    assert_eq!(peer.feeders[FEEDER].config, None, "never credited to the farm");
}

/// RULES 6.6: without an alive tag a source timestamp later than before the write, by the same clock,
/// is the proof; one that is not later is none.
#[tokio::test(start_paused = true)]
async fn p2_a_source_timestamp_after_the_write_proves_a_read_back() {
    let mut rig = scalar().await;
    {
        let mut plc = rig.plc.plc();
        (plc.alive, plc.stamps) = (false, true);
    }
    let mut peer = rig.open().await;
    let order = rig.portion(1_200);
    peer.order(&order).await;
    let end = peer.outcome(&order.command).await;
    assert_eq!(end.state, CommandState::Applied, "{end:?}");

    rig.plc.plc().stopped = true;
    let stopped = rig.update(&with_portion(1_200), with_portion(1_300));
    peer.order(&stopped).await;
    let end = peer.outcome(&stopped.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Uncertain, Reason::ReadbackNotProven));
    peer.play(Duration::from_secs(30)).await;
    let applied =
        |r: &CommandReport| r.command == stopped.command && r.state == CommandState::Applied;
    assert!(!peer.reports.iter().any(applied), "it shows, and nothing proves that the PLC has it");
    // Its program goes on, and takes what stands there.
    rig.plc.plc().feeder(FEEDER).stamp += 1;
    assert_eq!(peer.outcome(&stopped.command).await.state, CommandState::Applied);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_shows_late_is_applied_late_with_an_alarm() {
    let mut rig = scalar().await;
    let mut peer = rig.open().await;
    rig.plc.plc().fates = [Fate::Late(Duration::from_secs(40)), Fate::Answered].into();
    let order = rig.portion(1_200);
    peer.order(&order).await;
    let end = peer.outcome(&order.command).await;
    assert_eq!(end.state, CommandState::Uncertain);
    rig.restart().await;
    let mut peer = rig.open().await;
    let settled = peer.outcome(&order.command).await;
    assert_eq!(settled.state, CommandState::Applied);
    assert_eq!(settled.config, Some(ObservedConfig::Valid(with_portion(1_200))));
    peer.play(Duration::from_secs(3)).await;
    assert!(!peer.alarms().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_half_written_config_leaves_the_feeder_held() {
    let mut rig = scalar().await;
    let mut peer = rig.open().await;
    rig.plc.plc().take_fields = Some(1);
    let both = FeederConfig { portion_mg: Some(1_200), interval_s: Some(1_800), ..config() };
    let order = rig.update(&config(), both.clone());
    peer.order(&order).await;
    let end = peer.outcome(&order.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Uncertain, Reason::ConfigMixed));
    assert_eq!(end.config, Some(ObservedConfig::Valid(with_portion(1_200))));
    peer.play(Duration::from_secs(3)).await;
    assert!(rig.plc.plc().feeder(FEEDER).held);
    assert!(peer.alarms().contains(&"CONFIG_MIXED".to_owned()));
    let status = peer.feeders[FEEDER].status.clone().unwrap();
    assert_eq!(status.holds[0].source(), pb::HoldSource::ConfigMixed);
    // A person sets it right: then it is whole, and our hold goes.
    let right = rig.update(&with_portion(1_200), both);
    peer.order(&right).await;
    assert_eq!(peer.outcome(&right.command).await.state, CommandState::Applied);
    peer.play(Duration::from_secs(3)).await;
    assert!(!rig.plc.plc().feeder(FEEDER).held);
}

#[tokio::test(start_paused = true)]
async fn several_tags_are_written_under_a_hold_that_goes_afterwards() {
    let mut rig = scalar().await;
    let mut peer = rig.open().await;
    let both = FeederConfig { portion_mg: Some(1_200), interval_s: Some(1_800), ..config() };
    let order = rig.update(&config(), both);
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await.state, CommandState::Applied);
    peer.play(Duration::from_secs(3)).await;
    let mut plc = rig.plc.plc();
    assert!(!plc.feeder(FEEDER).held);
}

#[tokio::test(start_paused = true)]
async fn a_restart_resumes_at_the_read_back() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    rig.plc.plc().fates = [Fate::AnswerLost].into();
    // The write is executed, and nothing can be read any more: the agent dies before it knows.
    let order = rig.portion(1_200);
    let plc = rig.plc.clone();
    peer.order(&order).await;
    plc.plc().readable = true;
    peer.executing(&order.command).await;
    rig.kill().await;
    let shows = rig.plc.plc().feeder(FEEDER).revision == 2;
    rig.start().await;
    let mut peer = rig.session().await;
    let hello = peer.hello().await;
    peer.welcome(9).await;
    let listed = hello.commands.iter().find(|r| r.command == order.command).unwrap().clone();
    let end = if listed.state.is_terminal() { listed } else { peer.outcome(&order.command).await };
    let expected = if shows { CommandState::Applied } else { CommandState::Expired };
    assert_eq!(end.state, expected);
}

#[tokio::test(start_paused = true)]
async fn read_only_and_out_of_limits_are_refused() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let order = rig.portion(50_000);
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await.reason, Reason::InvalidField);
    assert_eq!(rig.plc.plc().feeder(FEEDER).revision, 1);
    let plc = ScriptedPlc::new(&[(FEEDER, config())]);
    plc.plc().traits.read_only = true;
    let mut rig = Rig::on(plc).await;
    let mut peer = rig.open().await;
    for action in [Action::Hold, Action::Resume, Action::FeedNow { portion_mg: 1_000 }] {
        let order = rig.order(FEEDER, action);
        peer.order(&order).await;
        assert_eq!(peer.outcome(&order.command).await.reason, Reason::ReadOnly);
    }
    let order = rig.portion(1_200);
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await.reason, Reason::ReadOnly);
}

#[tokio::test(start_paused = true)]
async fn p6_a_late_write_that_displaces_a_newer_config_is_undone_once() {
    let mut rig = scalar().await;
    let mut peer = rig.open().await;
    rig.plc.plc().fates = [Fate::Late(Duration::from_secs(40)), Fate::Answered].into();
    let order = rig.portion(1_200);
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await.state, CommandState::Uncertain);
    // Someone at the farm sets another one, and then the late one shows.
    rig.plc.plc().feeder(FEEDER).config = ObservedConfig::Valid(with_portion(900));
    peer.play(Duration::from_secs(5)).await;
    assert_eq!(peer.feeders[FEEDER].config, Some(with_portion(900).into()));
    let end = peer.outcome(&order.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::ChangedAtFarm));
    assert_eq!(rig.plc.plc().feeder(FEEDER).config, ObservedConfig::Valid(with_portion(900)));
    peer.play(Duration::from_secs(5)).await;
    assert!(peer.alarms().contains(&"CHANGED_AT_FARM".to_owned()));
}

/// RULES 6.4: tags are not changed one by one under a running motor.
#[tokio::test(start_paused = true)]
async fn several_tags_wait_for_a_meal_and_no_longer_than_the_start_limit() {
    let mut rig = scalar().await;
    let mut peer = rig.open().await;
    let both = FeederConfig { portion_mg: Some(1_200), interval_s: Some(1_800), ..config() };
    let meal = |rig: &Rig, seconds| {
        let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
        rig.plc.plc().feeder(FEEDER).meal_until = Some(end);
    };
    meal(&rig, 60);
    let busy = rig.update(&config(), both.clone());
    peer.order(&busy).await;
    let end = peer.outcome(&busy.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::BusyDosing));
    peer.play(Duration::from_secs(60)).await;
    assert_eq!(rig.plc.plc().portions_set, [0; 0], "nothing was written, then or later");
    assert!(!rig.plc.plc().feeder(FEEDER).held);
    // A meal that ends in time is waited for.
    meal(&rig, 5);
    let waits = rig.update(&config(), both);
    peer.order(&waits).await;
    peer.play(Duration::from_secs(4)).await;
    assert_eq!(rig.plc.plc().portions_set, [0; 0], "the motor runs");
    assert_eq!(peer.outcome(&waits.command).await.state, CommandState::Applied);
}

/// RULES 6.4: without a hold the farm might feed by a mixture.
#[tokio::test(start_paused = true)]
async fn a_plc_without_a_hold_takes_one_changed_tag_and_no_two() {
    let plc = ScriptedPlc::new(&[(FEEDER, config()), (OTHER, config())]).without_hold();
    let mut rig = Rig::on(plc.with(Profile::Scalar, Duration::from_secs(1), true)).await;
    let mut peer = rig.open().await;
    let both = FeederConfig { portion_mg: Some(1_200), interval_s: Some(1_800), ..config() };
    let two = rig.update(&config(), both);
    peer.order(&two).await;
    let end = peer.outcome(&two.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::NotOffered));
    assert_eq!(end.metadata["capability"], "hold");
    assert_eq!(rig.plc.plc().portions_set, [0; 0]);
    let one = rig.portion(1_200);
    peer.order(&one).await;
    assert_eq!(peer.outcome(&one.command).await.state, CommandState::Applied);
}

fn both() -> FeederConfig {
    FeederConfig { portion_mg: Some(1_200), interval_s: Some(1_800), ..config() }
}

/// RULES 6.5: what was seen of a loose write outlasts a restart.
#[tokio::test(start_paused = true)]
async fn p6_a_late_write_that_displaces_a_newer_config_is_undone_after_a_restart_too() {
    let mut rig = scalar().await;
    let mut peer = rig.open().await;
    rig.plc.plc().fates = [Fate::Late(Duration::from_secs(60)), Fate::Answered].into();
    let order = rig.portion(1_200);
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await.state, CommandState::Uncertain);
    rig.plc.plc().feeder(FEEDER).config = ObservedConfig::Valid(with_portion(900));
    peer.play(Duration::from_secs(5)).await;
    rig.kill().await;
    // While nobody looks the late one shows.
    tokio::time::sleep(Duration::from_mins(2)).await;
    rig.start().await;
    let mut peer = rig.open().await;
    let end = peer.outcome(&order.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::ChangedAtFarm));
    assert_eq!(rig.plc.plc().feeder(FEEDER).config, ObservedConfig::Valid(with_portion(900)));
}

/// Displaced a second time it stops, holds and alarms, also if it was restarted in between.
#[tokio::test(start_paused = true)]
async fn p6_a_newer_config_is_written_again_once_across_restarts() {
    let mut rig = scalar().await;
    let mut peer = rig.open().await;
    // The late one, and its undoing, which never arrives.
    rig.plc.plc().fates = [Fate::Late(Duration::from_secs(40)), Fate::Lost, Fate::Answered].into();
    let order = rig.portion(1_200);
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await.state, CommandState::Uncertain);
    rig.plc.plc().feeder(FEEDER).config = ObservedConfig::Valid(with_portion(900));
    for _ in 0..1_000 {
        if rig.plc.plc().fates.len() == 1 {
            break;
        }
        peer.play(Duration::from_millis(100)).await;
    }
    let set = rig.plc.plc().portions_set.clone();
    rig.restart().await;
    let mut peer = rig.open().await;
    let end = peer.outcome(&order.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Uncertain, Reason::ConfigMixed));
    peer.play(Duration::from_secs(5)).await;
    assert_eq!(rig.plc.plc().portions_set, set, "it was written again");
    assert!(rig.plc.plc().feeder(FEEDER).held);
    assert!(peer.alarms().contains(&"CONFIG_MIXED".to_owned()));
}

/// RULES 6.5: some of several late tags are the command's too.
#[tokio::test(start_paused = true)]
async fn p6_a_late_write_that_shows_in_part_is_never_credited_to_the_farm() {
    let mut rig = scalar().await;
    let mut peer = rig.open().await;
    // The hold, then the config, of which one tag arrives.
    rig.plc.plc().fates =
        [Fate::Answered, Fate::Late(Duration::from_secs(40)), Fate::Answered].into();
    rig.plc.plc().take_fields = Some(1);
    let order = rig.update(&config(), both());
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await.state, CommandState::Uncertain);
    let mixed = peer.outcome(&order.command).await;
    assert_eq!((mixed.state, mixed.reason), (CommandState::Uncertain, Reason::ConfigMixed));
    assert_eq!(mixed.config, Some(ObservedConfig::Valid(with_portion(1_200))));
    rig.restart().await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_secs(5)).await;
    assert_eq!(peer.feeders[FEEDER].config, None, "credited to the farm");
    assert!(rig.plc.plc().feeder(FEEDER).held);
    // The other tag arrives: then it is the whole.
    rig.plc.plc().feeder(FEEDER).config = ObservedConfig::Valid(both());
    assert_eq!(peer.outcome(&order.command).await.state, CommandState::Applied);
    peer.play(Duration::from_secs(3)).await;
    assert!(!rig.plc.plc().feeder(FEEDER).held);
}

/// RULES 6.5: and what they displace of a newer version is written again.
#[tokio::test(start_paused = true)]
async fn p6_a_late_write_that_displaces_a_newer_config_in_part_is_undone() {
    let mut rig = scalar().await;
    let mut peer = rig.open().await;
    rig.plc.plc().fates =
        [Fate::Answered, Fate::Late(Duration::from_secs(40)), Fate::Answered].into();
    rig.plc.plc().take_fields = Some(1);
    let order = rig.update(&config(), both());
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await.state, CommandState::Uncertain);
    let farm = FeederConfig { interval_s: Some(7_200), ..with_portion(900) };
    rig.plc.plc().feeder(FEEDER).config = ObservedConfig::Valid(farm.clone());
    let end = peer.outcome(&order.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::ChangedAtFarm));
    assert_eq!(rig.plc.plc().feeder(FEEDER).config, ObservedConfig::Valid(farm.clone()));
    peer.play(Duration::from_secs(5)).await;
    assert_eq!(peer.feeders[FEEDER].config, Some(farm.into()));
}

/// RULES 1.5: in the order in which the server accepted them, whatever order they arrive in.
#[tokio::test(start_paused = true)]
async fn commands_that_arrive_out_of_order_run_in_the_order_of_their_numbers() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let running = rig.feed(2_000);
    peer.order(&running).await;
    peer.executing(&running.command).await;
    let first = rig.portion(1_100);
    // Based on what the first one makes: before it, it would meet a change.
    let second = rig.update(&with_portion(1_100), with_portion(1_300));
    peer.order(&second).await;
    peer.order(&first).await;
    assert_eq!(peer.outcome(&first.command).await.state, CommandState::Applied);
    assert_eq!(peer.outcome(&second.command).await.state, CommandState::Applied);
    assert_eq!(rig.plc.plc().portions_set, [1_100, 1_300]);
}

/// RULES 6.7: what a PLC comes up with after it lost its memory is nobody's edit, until someone edits it or
/// a config is confirmed.
#[tokio::test(start_paused = true)]
async fn p6_what_a_plc_came_up_with_after_it_lost_its_memory_is_nobodys() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_secs(2)).await;
    let told = |peer: &crate::testing::Peer| {
        let report = &peer.feeders[FEEDER];
        (report.config.clone(), report.config_memory_lost)
    };
    let found = |mg| Some(pb::FeederConfig::from(with_portion(mg)));
    let comes_up = |rig: &Rig, mg| {
        let mut plc = rig.plc.plc();
        plc.lose_memory();
        plc.feeder(FEEDER).config = ObservedConfig::Valid(with_portion(mg));
    };
    comes_up(&rig, 700);
    // A command meets it first: its outcome says so too.
    let order = rig.portion(1_200);
    peer.order(&order).await;
    let end = peer.outcome(&order.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::ChangedAtFarm));
    assert_eq!(end.config, Some(ObservedConfig::Valid(with_portion(700))));
    assert!(end.memory_lost);
    comes_up(&rig, 710);
    peer.play(Duration::from_secs(2)).await;
    assert_eq!(told(&peer), (found(710), true));

    // In the next hello too, also after a restart, and if it happened while the agent was away.
    let mut hellos = Vec::new();
    for mg in [710, 720] {
        rig.kill().await;
        comes_up(&rig, mg);
        rig.start().await;
        peer = rig.session().await;
        let feeders = peer.hello().await.inventory.feeders;
        let feeder = feeders.into_iter().find(|f| f.id.as_str() == FEEDER).unwrap();
        hellos.push((feeder.config.map(Into::into), feeder.memory_lost));
        let epoch = rig.next_epoch();
        peer.welcome(epoch).await;
    }
    assert_eq!(hellos, [(found(710), true), (found(720), true)]);

    rig.plc.plc().feeder(FEEDER).config = ObservedConfig::Valid(with_portion(730));
    peer.play(Duration::from_secs(2)).await;
    assert_eq!(told(&peer), (found(730), false), "someone at the farm set that");
    comes_up(&rig, 740);
    peer.play(Duration::from_secs(2)).await;
    assert_eq!(told(&peer), (found(740), true));
    let confirm = rig.update(&with_portion(740), with_portion(1_300));
    peer.order(&confirm).await;
    let end = peer.outcome(&confirm.command).await;
    assert_eq!((end.state, end.memory_lost), (CommandState::Applied, false));
    rig.plc.plc().feeder(FEEDER).config = ObservedConfig::Valid(with_portion(740));
    peer.play(Duration::from_secs(2)).await;
    assert_eq!(told(&peer), (found(740), false), "nor does it come from the memory any more");
}
