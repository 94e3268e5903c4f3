//! The real agent against a server that the test plays: frames repeated, replayed, forged, of other
//! epochs, out of order and late. Each promise is judged by the PLC's own log.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use pasamanos_proto::model::{Action, CommandOrder, FeederConfig};
use pasamanos_proto::pb::connect_response::Frame as Down;
use pasamanos_proto::pb::{self, CommandState};
use pasamanos_tests::scripted::{ScriptedServer, ServerSession};
use pasamanos_tests::{Stack, stack, wait_for};

const FEEDER: &str = "feeder-a1";
/// Long enough for something that must not happen.
const A_WHILE: Duration = Duration::from_millis(1_500);

async fn farm() -> (Stack, ScriptedServer) {
    let server = ScriptedServer::start().await.unwrap();
    let stack = Stack::builder().farm(stack::sim(1)).agent_of(server.addr).await.unwrap();
    (stack, server)
}

fn feed(portion_mg: i32) -> Action {
    Action::FeedNow { portion_mg }
}

/// The portion that a config frame sets, based on the one that the hello told or on another.
fn portion(session: &ServerSession, base_mg: Option<i32>, mg: i32) -> Action {
    let inventory = session.hello.inventory.as_ref().unwrap();
    let feeder = inventory.feeders.iter().find(|f| f.id == FEEDER).unwrap();
    let mut base = FeederConfig::try_from(feeder.config.clone().unwrap()).unwrap();
    base.portion_mg = base_mg.or(base.portion_mg);
    let new = FeederConfig { portion_mg: Some(mg), ..base.clone() };
    let fields = base.diff(&new);
    Action::UpdateConfig { base: (&base).into(), new, fields }
}

fn name(order: &CommandOrder) -> String {
    order.command.to_string()
}

#[tokio::test]
async fn p3_a_frame_said_ten_times_and_again_in_the_next_session_runs_once() {
    let (stack, mut server) = farm().await;
    let mut session = server.open(1).await.unwrap();
    let order = session.order(FEEDER, 1, feed(100)).unwrap();
    for _ in 0..10 {
        session.send(&order).await;
    }
    let end = session.ends(&name(&order), 1).await.unwrap();
    assert_eq!((end.state(), end.dispensed_mg), (CommandState::Applied, Some(100)));
    session.send(&order).await;
    // Known: answered from the journal.
    assert_eq!(session.ends(&name(&order), 2).await.unwrap().state(), CommandState::Applied);
    session.hang_up();

    let mut session = server.open(2).await.unwrap();
    let again = CommandOrder { start_before_ms: i64::MAX / 16, ..order.clone() };
    for _ in 0..3 {
        session.send(&again).await;
    }
    assert_eq!(session.ends(&name(&order), 1).await.unwrap().state(), CommandState::Applied);
    assert!(session.play(A_WHILE).await);
    assert_eq!(stack.doses_of(&name(&order)).unwrap(), 1);
    assert_eq!(stack.doses_started().unwrap(), 1);
}

#[tokio::test]
async fn p3_a_dose_that_runs_is_not_begun_again_by_the_next_session() {
    let (stack, mut server) = farm().await;
    let mut session = server.open(1).await.unwrap();
    // 3 s of dispensing.
    let order = session.order(FEEDER, 1, feed(1_500)).unwrap();
    session.send(&order).await;
    session.begun(&name(&order)).await.unwrap();
    session.hang_up();
    let mut session = server.open(2).await.unwrap();
    let listed = session.hello.commands.iter().find(|u| u.command == name(&order));
    assert_eq!(listed.unwrap().state(), CommandState::Executing, "an open intent is listed");
    session.send(&order).await;
    let end = session.ends(&name(&order), 1).await.unwrap();
    assert_eq!((end.state(), end.dispensed_mg), (CommandState::Applied, Some(1_500)));
    assert_eq!(end.journaled_epoch, 1);
    assert_eq!(stack.doses_started().unwrap(), 1);
}

#[tokio::test]
async fn p3_a_known_name_with_another_body_is_not_run() {
    let (stack, mut server) = farm().await;
    let mut session = server.open(1).await.unwrap();
    let order = session.order(FEEDER, 1, feed(100)).unwrap();
    session.send(&order).await;
    session.ends(&name(&order), 1).await.unwrap();
    let other = session.order(FEEDER, 2, feed(200)).unwrap();
    let forged = CommandOrder { command: order.command.clone(), ..other };
    session.send(&forged).await;
    let end = session.ends(&name(&order), 2).await.unwrap();
    assert_eq!(end.body_hash.as_ref(), order.body_hash.as_bytes(), "it tells what it ran");
    assert!(session.play(A_WHILE).await);
    assert_eq!(stack.doses_started().unwrap(), 1);
}

#[tokio::test]
async fn p3_a_frame_that_is_not_what_its_hash_says_is_refused() {
    let (stack, mut server) = farm().await;
    let mut session = server.open(1).await.unwrap();
    let order = session.order(FEEDER, 1, feed(100)).unwrap();
    let mut frame = pb::CommandFrame::from(order.clone());
    frame.action = Some((&feed(5_000)).into());
    session.say(Down::Command(frame)).await;
    let end = session.ends(&name(&order), 1).await.unwrap();
    assert_eq!((end.state(), end.reason.as_str()), (CommandState::Rejected, "INVALID_FIELD"));
    assert_eq!(stack.doses_started().unwrap(), 0);
}

#[tokio::test]
async fn p12_a_feeder_that_is_not_its_own_is_refused() {
    let (stack, mut server) = farm().await;
    let mut session = server.open(1).await.unwrap();
    let order = session.order("feeder-z9", 1, feed(100)).unwrap();
    session.send(&order).await;
    let end = session.ends(&name(&order), 1).await.unwrap();
    assert_eq!((end.state(), end.reason.as_str()), (CommandState::Rejected, "NOT_OFFERED"));
    assert_eq!(stack.doses_started().unwrap(), 0);
}

#[tokio::test]
async fn p4_a_command_of_another_epoch_ends_the_session_and_does_nothing() {
    let (stack, mut server) = farm().await;
    for (epoch, shift) in [(5, -1), (6, 1)] {
        let mut session = server.open(epoch).await.unwrap();
        assert_eq!(session.hello.commands, []);
        let order = session.order(FEEDER, 1, feed(100)).unwrap();
        session.say_under(epoch + shift, Down::Command(order.into())).await;
        session.ended(Duration::from_secs(5)).await.unwrap();
    }
    let session = server.open(9).await.unwrap();
    assert_eq!(session.hello.commands, []);
    assert_eq!(stack.doses_started().unwrap(), 0);
}

/// RULES 1.5: frames that arrive out of order are put in order, by number within the feeder.
#[tokio::test]
async fn p6_frames_out_of_order_run_in_their_number_order() {
    let (stack, mut server) = farm().await;
    let mut session = server.open(1).await.unwrap();
    // While it runs, what comes waits.
    let busy = session.order(FEEDER, 1, feed(1_000)).unwrap();
    session.send(&busy).await;
    session.begun(&name(&busy)).await.unwrap();
    let second = session.order(FEEDER, 2, portion(&session, None, 1_600)).unwrap();
    let third = session.order(FEEDER, 3, portion(&session, Some(1_600), 1_700)).unwrap();
    let fourth = session.order(FEEDER, 4, portion(&session, Some(1_700), 1_800)).unwrap();
    for order in [&fourth, &second, &third] {
        session.send(order).await;
    }
    for order in [&second, &third, &fourth] {
        let end = session.ends(&name(order), 1).await.unwrap();
        assert_eq!(end.state(), CommandState::Applied, "{}: {end:?}", order.number);
    }
    let plc = stack.sim().feeders().await.unwrap();
    assert_eq!(plc[0]["config"]["portion_mg"], 1_800);
}

/// RULES 5.5: a hold that overtakes a dose on the way stops it, though the dose is read after it.
#[tokio::test]
async fn p8_a_dose_that_arrives_behind_a_later_hold_never_runs() {
    let (stack, mut server) = farm().await;
    let mut session = server.open(1).await.unwrap();
    let dose = session.order(FEEDER, 1, feed(100)).unwrap();
    let hold = session.order(FEEDER, 2, Action::Hold).unwrap();
    session.send(&hold).await;
    session.send(&dose).await;
    assert_eq!(session.ends(&name(&hold), 1).await.unwrap().state(), CommandState::Applied);
    let end = session.ends(&name(&dose), 1).await.unwrap();
    assert_eq!(end.state(), CommandState::Rejected, "{end:?}");
    assert_eq!(end.reason, "SUPERSEDED_BY_HOLD");
    assert_eq!(stack.doses_started().unwrap(), 0);
}

/// RULES 4.1.
#[tokio::test]
async fn p7_a_frame_that_is_too_late_or_of_another_boot_expires() {
    let (stack, mut server) = farm().await;
    let mut session = server.open(1).await.unwrap();
    session.step().await.unwrap();
    let on_time = session.order(FEEDER, 1, feed(100)).unwrap();
    let late = CommandOrder { start_before_ms: session.agent_ms - 1, ..on_time.clone() };
    session.send(&late).await;
    assert_eq!(session.ends(&name(&late), 1).await.unwrap().state(), CommandState::Expired);
    let other = session.order(FEEDER, 2, feed(100)).unwrap();
    let other = CommandOrder { boot_id: "another".into(), ..other };
    session.send(&other).await;
    assert_eq!(session.ends(&name(&other), 1).await.unwrap().state(), CommandState::Expired);
    assert_eq!(stack.doses_started().unwrap(), 0);
}

/// RULES 3.4: what was received and not begun dies with its session.
#[tokio::test]
async fn p4_what_waits_when_its_session_ends_never_runs() {
    let (stack, mut server) = farm().await;
    let mut session = server.open(1).await.unwrap();
    let busy = session.order(FEEDER, 1, feed(1_000)).unwrap();
    session.send(&busy).await;
    session.begun(&name(&busy)).await.unwrap();
    let waits = session.order(FEEDER, 2, portion(&session, None, 1_600)).unwrap();
    session.send(&waits).await;
    let received = |u: &pb::CommandUpdate| u.command == name(&waits);
    while !session.updates.iter().any(received) {
        session.step().await.unwrap();
    }
    session.hang_up();
    let mut session = server.open(2).await.unwrap();
    let listed: Vec<_> = session.hello.commands.iter().map(|u| u.command.clone()).collect();
    assert_eq!(listed, [name(&busy)]);
    assert_eq!(session.ends(&name(&busy), 1).await.unwrap().state(), CommandState::Applied);
    assert!(session.play(A_WHILE).await);
    let plc = stack.sim().feeders().await.unwrap();
    assert_eq!(plc[0]["config"]["portion_mg"], 1_500);
}

/// An acknowledgement of what was not said yet makes the agent forget nothing.
#[tokio::test]
async fn p9_a_forged_acknowledgement_makes_nothing_forgotten() {
    let (stack, mut server) = farm().await;
    let mut session = server.open(1).await.unwrap();
    session.ack = false;
    let incarnation = session.hello.journal.as_ref().unwrap().incarnation.clone();
    let order = session.order(FEEDER, 1, feed(500)).unwrap();
    session.send(&order).await;
    session.begun(&name(&order)).await.unwrap();
    let forged = pb::CommandAck {
        command: name(&order),
        state: CommandState::Applied.into(),
        ..Default::default()
    };
    session.say(Down::CommandAck(forged)).await;
    let through_sequence = 1_000_000;
    session.say(Down::RecordsAck(pb::RecordsAck { incarnation, through_sequence })).await;
    session.ends(&name(&order), 1).await.unwrap();
    session.hang_up();
    wait_for("the dose fell", Duration::from_secs(5), || async {
        match stack.doses_of(&name(&order)) {
            Ok(1) => Ok(()),
            other => Err(other),
        }
    })
    .await
    .unwrap();
    let mut session = server.open(2).await.unwrap();
    let listed = session.hello.commands.iter().find(|u| u.command == name(&order));
    assert_eq!(listed.unwrap().state(), CommandState::Applied, "its outcome is told again");
    let dose = |r: &pb::Record| match &r.content {
        Some(pb::record::Content::Dose(d)) => d.command == name(&order),
        _ => false,
    };
    while !session.records.iter().any(dose) {
        session.step().await.unwrap();
    }
}

/// A person's word about a dose that is not in doubt changes nothing.
#[tokio::test]
async fn p2_a_resolution_of_what_is_settled_changes_nothing() {
    let (stack, mut server) = farm().await;
    let mut session = server.open(1).await.unwrap();
    let order = session.order(FEEDER, 1, feed(100)).unwrap();
    session.send(&order).await;
    session.ends(&name(&order), 1).await.unwrap();
    let resolution = pb::Resolution {
        verdict: pb::ResolutionVerdict::NotFed.into(),
        who: "a forger".into(),
        ..Default::default()
    };
    session
        .say(Down::CommandAck(pb::CommandAck {
            command: name(&order),
            state: CommandState::Uncertain.into(),
            resolution: Some(resolution),
            ..Default::default()
        }))
        .await;
    session.send(&order).await;
    let end = session.ends(&name(&order), 2).await.unwrap();
    assert_eq!((end.state(), end.dispensed_mg), (CommandState::Applied, Some(100)));
    assert_eq!(stack.doses_started().unwrap(), 1);
}

/// RULES 5.5: what a hold overtook has its end though the hold itself came too late.
#[tokio::test]
async fn p2_a_hold_that_is_too_late_leaves_no_command_without_an_end() {
    let (stack, mut server) = farm().await;
    let mut session = server.open(1).await.unwrap();
    let busy = session.order(FEEDER, 1, feed(1_500)).unwrap();
    session.send(&busy).await;
    session.begun(&name(&busy)).await.unwrap();
    let waits = session.order(FEEDER, 2, portion(&session, None, 1_600)).unwrap();
    let hold = session.order(FEEDER, 3, Action::Hold).unwrap();
    let late = CommandOrder { start_before_ms: session.agent_ms - 1, ..hold };
    session.send(&waits).await;
    session.send(&late).await;
    assert_eq!(session.ends(&name(&late), 1).await.unwrap().state(), CommandState::Expired);
    let end = session.ends(&name(&waits), 1).await.unwrap();
    assert_eq!(end.state(), CommandState::Rejected, "{end:?}");
    session.ends(&name(&busy), 1).await.unwrap();
    assert_eq!(stack.doses_started().unwrap(), 1);
}
