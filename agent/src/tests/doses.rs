//! At most once, and the truth about it.

use std::time::Duration;

use pasamanos_proto::model::{Basis, CommandState, Reason};
use pasamanos_proto::pb::{self, connect_response::Frame};
use tokio::time::Instant;

use crate::driver::SlotOp;
use crate::testing::{FEEDER, Fate, Rig};

#[tokio::test(start_paused = true)]
async fn p3_a_dose_is_given_once_and_recorded_once() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let order = rig.feed(1_000);
    peer.order(&order).await;
    let end = peer.outcome(&order.command).await;
    assert_eq!((end.state, end.dispensed), (CommandState::Applied, Some((1_000, Basis::Counted))));
    peer.play(Duration::from_secs(10)).await;
    assert_eq!(rig.plc.plc().ran.len(), 1);
    let doses = peer.doses();
    assert_eq!(doses.len(), 1, "{doses:?}");
    assert_eq!(doses[0].command, order.command.to_string());
    assert_eq!(doses[0].dispensed_mg, Some(1_000));
    let status = peer.feeders[FEEDER].status.clone().unwrap();
    assert_eq!(status.dispensed_today_mg, Some(1_000));
    assert_eq!(status.last_dose.unwrap().dispensed_mg, Some(1_000));
}

#[tokio::test(start_paused = true)]
async fn p3_a_lost_answer_is_read_back() {
    let mut rig = Rig::new().await;
    rig.plc.plc().fates = [Fate::AnswerLost, Fate::Answered].into();
    let mut peer = rig.open().await;
    let order = rig.feed(1_000);
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await.state, CommandState::Applied);
    assert_eq!(rig.plc.plc().ran.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn p3_a_late_write_beside_its_repeat_feeds_once() {
    let mut rig = Rig::new().await;
    rig.plc.plc().fates = [Fate::Late(Duration::from_secs(20)), Fate::Answered].into();
    let mut peer = rig.open().await;
    let order = rig.feed(1_000);
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await.state, CommandState::Applied);
    peer.play(Duration::from_mins(1)).await;
    assert_eq!(rig.plc.plc().ran.len(), 1);
    assert!(rig.plc.plc().arrived.len() >= 2, "the late one arrived");
}

#[tokio::test(start_paused = true)]
async fn p3_a_dose_that_was_given_up_is_fenced_and_never_runs() {
    let mut rig = Rig::new().await;
    // Every write is lost for the client; the first arrives after the fence.
    rig.plc.plc().fates = [Fate::Late(Duration::from_secs(25)), Fate::Lost].into();
    let mut peer = rig.open().await;
    let order = rig.feed(1_000);
    peer.order(&order).await;
    peer.play(Duration::from_secs(11)).await;
    rig.plc.plc().fates = [Fate::Answered].into();
    let end = peer.outcome(&order.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Expired, Reason::StartLimit));
    peer.play(Duration::from_mins(1)).await;
    let plc = rig.plc.plc();
    assert_eq!(plc.ran.len(), 0);
    assert!(plc.arrived.iter().any(|b| b.op == SlotOp::Dose), "the late one arrived");
    assert!(peer.doses().is_empty());
}

#[tokio::test(start_paused = true)]
async fn p7_an_expired_dose_never_starts() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let mut late = rig.feed(1_000);
    late.start_before_ms = rig.clock.monotonic_ms();
    let mut other_boot = rig.feed(1_000);
    other_boot.boot_id = "boot-0".into();
    for order in [late, other_boot] {
        peer.order(&order).await;
        let end = peer.outcome(&order.command).await;
        assert_eq!((end.state, end.reason), (CommandState::Expired, Reason::StartLimit));
    }
    assert!(rig.plc.plc().arrived.is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_nothing_was_sent_and_the_slot_is_free() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    rig.plc.plc().fates = [Fate::NotSent].into();
    let order = rig.feed(1_000);
    peer.order(&order).await;
    let end = peer.outcome(&order.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::PlcUnreachable));
    drop(peer);
    let hello = rig.session().await.hello().await;
    assert!(hello.journal.slots.iter().all(|s| s.readable && s.agrees()), "{:?}", hello.journal);
}

#[tokio::test(start_paused = true)]
async fn p3_a_known_command_is_answered_from_the_journal() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let order = rig.feed(1_000);
    peer.order(&order).await;
    peer.order(&order).await;
    let first = peer.outcome(&order.command).await;
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await, first);
    rig.restart().await;
    let mut peer = rig.open().await;
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await, first);
    assert_eq!(rig.plc.plc().ran.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn p3_an_open_intent_is_only_fenced_after_a_restart() {
    let mut rig = Rig::new().await;
    rig.plc.plc().fates = [Fate::Lost].into();
    let mut peer = rig.open().await;
    let order = rig.feed(1_000);
    peer.order(&order).await;
    peer.executing(&order.command).await;
    rig.kill().await;
    {
        let mut plc = rig.plc.plc();
        plc.arrived.clear();
        plc.fates = [Fate::Answered].into();
    }
    rig.start().await;
    let mut peer = rig.session().await;
    let hello = peer.hello().await;
    let listed = hello.commands.iter().find(|r| r.command == order.command);
    // It may be fenced before the hello is built.
    let fenced =
        listed.is_some_and(|r| matches!(r.state, CommandState::Executing | CommandState::Expired));
    assert!(fenced, "{:?}", hello.commands);
    assert!(hello.journal.slots[0].agrees());
    let epoch = rig.next_epoch();
    peer.welcome(epoch + 1).await;
    if listed.unwrap().state == CommandState::Executing {
        assert_eq!(peer.outcome(&order.command).await.state, CommandState::Expired);
    }
    peer.play(Duration::from_secs(30)).await;
    let plc = rig.plc.plc();
    assert!(plc.ran.is_empty());
    assert!(plc.arrived.iter().all(|b| b.op == SlotOp::Nop), "{:?}", plc.arrived);
}

#[tokio::test(start_paused = true)]
async fn p2_a_dose_that_ran_while_the_agent_was_down_is_told_once() {
    let mut rig = Rig::new().await;
    rig.plc.plc().fates = [Fate::AnswerLost].into();
    let mut peer = rig.open().await;
    let order = rig.feed(5_000);
    peer.order(&order).await;
    peer.executing(&order.command).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    rig.kill().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    rig.start().await;
    let mut peer = rig.session().await;
    let hello = peer.hello().await;
    peer.welcome(9).await;
    let listed = hello.commands.iter().find(|r| r.command == order.command).unwrap().clone();
    let end = if listed.state.is_terminal() { listed } else { peer.outcome(&order.command).await };
    assert_eq!((end.state, end.dispensed.unwrap().0), (CommandState::Applied, 5_000));
    peer.play(Duration::from_secs(10)).await;
    assert_eq!(rig.plc.plc().ran.len(), 1);
    let fed: i64 = peer.doses().iter().filter_map(|d| d.dispensed_mg).sum();
    assert_eq!(fed, 5_000, "{:?}", peer.doses());
}

#[tokio::test(start_paused = true)]
async fn p2_sent_and_unreadable_is_uncertain_and_then_settled() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let order = rig.feed(1_000);
    rig.plc.plc().fates = [Fate::Late(Duration::from_secs(2)), Fate::Lost].into();
    peer.order(&order).await;
    peer.executing(&order.command).await;
    rig.plc.plc().readable = false;
    let end = peer.outcome(&order.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Uncertain, Reason::PlcUnreachable));
    rig.plc.plc().readable = true;
    let settled = peer.outcome(&order.command).await;
    assert_eq!((settled.state, settled.dispensed.unwrap().0), (CommandState::Applied, 1_000));
    peer.play(Duration::from_secs(5)).await;
    assert_eq!(peer.doses().len(), 1);
    assert_eq!(rig.plc.plc().ran.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn p2_a_dose_in_doubt_locks_the_robot_until_a_person_settles_it() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let order = rig.feed(1_000);
    rig.plc.plc().fates = [Fate::Lost].into();
    peer.order(&order).await;
    peer.executing(&order.command).await;
    rig.plc.plc().lose_memory();
    let end = peer.outcome(&order.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Uncertain, Reason::PlcMemoryLost));
    rig.plc.plc().fates = [Fate::Answered].into();
    peer.play(Duration::from_secs(5)).await;
    assert!(peer.alarms().contains(&"PLC_MEMORY_LOST".to_owned()));
    // The lock outlives a restart.
    rig.restart().await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_secs(2)).await;
    let second = rig.feed(1_000);
    peer.order(&second).await;
    let refused = peer.outcome(&second.command).await;
    assert_eq!((refused.state, refused.reason), (CommandState::Rejected, Reason::DoseUnsettled));
    let ack = pb::CommandAck {
        command: order.command.to_string(),
        state: pb::CommandState::Uncertain.into(),
        resolution: Some(pb::Resolution {
            verdict: pb::ResolutionVerdict::Fed.into(),
            who: "ana".into(),
            ..Default::default()
        }),
        anchor: None,
    };
    peer.send(Frame::CommandAck(ack)).await;
    // The feeder is held for the lost memory until a config is confirmed.
    let confirm = rig.portion(1_000);
    peer.order(&confirm).await;
    assert_eq!(peer.outcome(&confirm.command).await.state, CommandState::Applied);
    peer.play(Duration::from_secs(2)).await;
    let third = rig.feed(1_000);
    peer.order(&third).await;
    assert_eq!(peer.outcome(&third.command).await.state, CommandState::Applied);
    peer.play(Duration::from_secs(5)).await;
    let fed: i64 = peer.doses().iter().filter_map(|d| d.dispensed_mg).sum();
    assert_eq!(fed, 2_000, "one counted in full, one given: {:?}", peer.doses());
}

#[tokio::test(start_paused = true)]
async fn p7_a_wall_clock_that_is_set_moves_no_start_limit() {
    const DAY_MS: i64 = 86_400_000;
    for by_ms in [DAY_MS, -DAY_MS] {
        for (meal_s, state) in [(5, CommandState::Applied), (60, CommandState::Expired)] {
            let mut rig = Rig::new().await;
            let mut peer = rig.open().await;
            rig.plc.plc().feeder(FEEDER).meal_until =
                Some(Instant::now() + Duration::from_secs(meal_s));
            let order = rig.feed(1_000);
            peer.order(&order).await;
            peer.play(Duration::from_secs(1)).await;
            rig.clock.step_wall(by_ms);
            let end = peer.outcome(&order.command).await;
            assert_eq!(end.state, state, "set by {by_ms} ms, behind a meal of {meal_s} s");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn p7_a_dose_waits_one_deep_for_a_meal_and_no_longer_than_its_limit() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let soon = Instant::now() + Duration::from_secs(5);
    rig.plc.plc().feeder(FEEDER).meal_until = Some(soon);
    let order = rig.feed(1_000);
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await.state, CommandState::Applied);
    let long = Instant::now() + Duration::from_mins(1);
    rig.plc.plc().feeder(FEEDER).meal_until = Some(long);
    let order = rig.feed(1_000);
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await.state, CommandState::Expired);
    assert_eq!(rig.plc.plc().ran.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn p4_what_was_received_and_not_begun_dies_with_its_session() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let until = Instant::now() + Duration::from_secs(4);
    rig.plc.plc().feeder(FEEDER).meal_until = Some(until);
    let order = rig.feed(1_000);
    peer.order(&order).await;
    peer.play(Duration::from_secs(1)).await;
    drop(peer);
    let mut peer = rig.session().await;
    let hello = peer.hello().await;
    assert!(hello.commands.is_empty(), "{:?}", hello.commands);
    let epoch = rig.next_epoch();
    peer.welcome(epoch + 1).await;
    peer.play(Duration::from_secs(30)).await;
    assert!(rig.plc.plc().arrived.is_empty());
}

#[tokio::test(start_paused = true)]
async fn refusals_name_what_stands_in_the_way() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    rig.plc.plc().local = true;
    let order = rig.feed(1_000);
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await.reason, Reason::LocalHold);
    rig.plc.plc().local = false;
    rig.plc.plc().faults = vec![12];
    let order = rig.feed(1_000);
    peer.order(&order).await;
    let end = peer.outcome(&order.command).await;
    assert_eq!((end.reason, end.metadata["fault_code"].as_str()), (Reason::FeederFault, "12"));
    rig.plc.plc().faults.clear();
    // 150 typed for 1.5: more than ten times what was found first.
    let order = rig.feed(150_000);
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await.reason, Reason::InvalidField);
    assert!(rig.plc.plc().arrived.is_empty());
}

#[tokio::test(start_paused = true)]
async fn p3_a_slot_that_was_never_consumed_is_spent_before_the_next_dose() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    rig.plc.plc().fates = [Fate::Lost].into();
    let lost = rig.feed(1_000);
    peer.order(&lost).await;
    peer.executing(&lost.command).await;
    rig.plc.plc().readable = false;
    assert_eq!(peer.outcome(&lost.command).await.state, CommandState::Uncertain);
    let ack = pb::CommandAck {
        command: lost.command.to_string(),
        state: pb::CommandState::Uncertain.into(),
        resolution: Some(pb::Resolution {
            verdict: pb::ResolutionVerdict::NotFed.into(),
            ..Default::default()
        }),
        anchor: None,
    };
    peer.send(Frame::CommandAck(ack)).await;
    peer.play(Duration::from_secs(1)).await;
    // Nobody fences it any more: the agent that did is gone.
    rig.kill().await;
    {
        let mut plc = rig.plc.plc();
        plc.fates = [Fate::Answered].into();
        plc.readable = true;
        plc.arrived.clear();
    }
    rig.start().await;
    let mut peer = rig.session().await;
    let hello = peer.hello().await;
    assert!(hello.journal.slots[0].agrees(), "{:?}", hello.journal.slots);
    peer.welcome(9).await;
    let next = rig.feed(1_000);
    peer.order(&next).await;
    assert_eq!(peer.outcome(&next.command).await.state, CommandState::Applied);
    peer.play(Duration::from_secs(2)).await;
    let plc = rig.plc.plc();
    let arrived: Vec<_> = plc.arrived.iter().map(|b| (b.sequence, b.op)).collect();
    assert_eq!(arrived.first(), Some(&(1, SlotOp::Nop)));
    assert_eq!(plc.ran.len(), 1);
    assert!(!peer.alarms().contains(&"PLC_MEMORY_LOST".to_owned()));
}

/// RULES 4.1: a start limit of another boot counts from another zero.
#[tokio::test(start_paused = true)]
async fn p7_a_start_limit_of_another_boot_has_passed() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let mut order = rig.feed(1_000);
    order.boot_id = "another".into();
    peer.order(&order).await;
    assert_eq!(peer.outcome(&order.command).await.state, CommandState::Expired);
    peer.play(Duration::from_secs(30)).await;
    assert!(rig.plc.plc().arrived.is_empty() && rig.plc.plc().ran.is_empty());
}

/// RULES 4.2: the PLC's expiry is its own clock plus what is left then, however slowly it answers.
#[tokio::test(start_paused = true)]
async fn p7_a_plc_that_answers_slowly_starts_nothing_after_the_start_limit() {
    let mut started = 0;
    for late_ms in (0..12_000).step_by(500) {
        let mut rig = Rig::new().await;
        let mut peer = rig.open().await;
        {
            let mut plc = rig.plc.plc();
            // Of all that is written one dose arrives, late.
            plc.fates = [Fate::Late(Duration::from_millis(late_ms)), Fate::Lost].into();
            plc.read_takes = (Duration::from_secs(2), Duration::ZERO);
        }
        let limit = Instant::now() + Duration::from_secs(10);
        let order = rig.feed(1_000);
        peer.order(&order).await;
        peer.play(Duration::from_secs(30)).await;
        let plc = rig.plc.plc();
        for ran in &plc.ran {
            // Its clock counts seconds.
            let late = ran.at.saturating_duration_since(limit);
            assert!(late <= Duration::from_secs(1), "it started {late:?} after its limit");
            started += 1;
        }
    }
    assert!((1..24).contains(&started), "{started}");
}
