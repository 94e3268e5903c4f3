//! The real server against an agent that the test plays: frames repeated, replayed, forged, late, of
//! other sessions and of other agents. Each promise is judged by what a user is told.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use pasamanos_proto::pb::connect_request::Frame as Up;
use pasamanos_proto::pb::connect_response::Frame as Down;
use pasamanos_proto::pb::{self, CommandState, PresenceState};
use pasamanos_tests::client::{FARM, expect, metadata, reason, request_id};
use pasamanos_tests::scripted::agent::{config, dose_record, outcome};
use pasamanos_tests::scripted::{AgentSession, ScriptedAgent};
use pasamanos_tests::{Stack, wait_for};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const FEEDER: &str = "feeder-a1";
/// Long enough for a frame that must not come.
const A_WHILE: Duration = Duration::from_millis(700);

/// A server with the shipped times and an agent of the test's.
async fn farm() -> (Stack, ScriptedAgent) {
    farm_with(&["--lease-ttl", "25s", "--heartbeat-interval", "8s"]).await
}

async fn farm_with(args: &[&str]) -> (Stack, ScriptedAgent) {
    let stack = Stack::builder().agentless().server_args(args).start().await.unwrap();
    let agent = ScriptedAgent::new(&stack.grpc, "agent-1", "a1");
    (stack, agent)
}

async fn online(stack: &Stack, agent: &mut ScriptedAgent) -> AgentSession {
    let session = agent.open().await.unwrap();
    stack.client.wait_presence(PresenceState::Online, Duration::from_secs(5)).await.unwrap();
    session
}

fn feed_now(feeder: &str) -> pb::FeedNowRequest {
    pb::FeedNowRequest {
        name: format!("{FARM}/feeders/{feeder}"),
        portion_mg: Some(100),
        request_id: request_id(),
        ..Default::default()
    }
}

fn within<T>(message: T, time: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(time);
    request
}

/// Asks for a dose until the agent has its frame; nobody waits for its outcome.
async fn dose(stack: &Stack, session: &mut AgentSession, feeder: &str) -> pb::CommandFrame {
    let mut client = stack.client.feeders.clone();
    let asked = client.feed_now(within(feed_now(feeder), Duration::from_millis(800)));
    let (answer, frame) = tokio::join!(asked, session.command());
    expect(answer, Code::DeadlineExceeded, "OUTCOME_PENDING").unwrap();
    frame.unwrap()
}

async fn state(stack: &Stack, command: &str) -> CommandState {
    stack.client.command(command).await.unwrap().state()
}

async fn wait_state(stack: &Stack, command: &str, wanted: CommandState) -> pb::Command {
    wait_for(&format!("{command} {wanted:?}"), Duration::from_secs(15), || async {
        let command = stack.client.command(command).await?;
        if command.state() == wanted {
            return Ok(command);
        }
        Err(Status::internal(format!("{command:?}")))
    })
    .await
    .unwrap_or_else(|e| panic!("{e}\n{}", stack.logs()))
}

/// RULES 3.3, 3.5: what was sent and is in no journal is EXPIRED, and no later session gets it.
#[tokio::test]
async fn p3_a_command_is_sent_in_its_own_session_and_in_no_other() {
    let (stack, mut agent) = farm().await;
    let mut session = online(&stack, &mut agent).await;
    let frame = dose(&stack, &mut session, FEEDER).await;
    session.hang_up();
    wait_state(&stack, &frame.command, CommandState::Uncertain).await;
    let mut session = agent.open().await.unwrap();
    wait_state(&stack, &frame.command, CommandState::Expired).await;
    // Longer than the scan that finds what a doorbell missed.
    let heard = session.hear_for(Duration::from_millis(2_500)).await.unwrap();
    assert!(heard.is_empty(), "{heard:?}");
}

#[tokio::test]
async fn p2_an_outcome_is_stored_once_and_never_unsaid() {
    let (stack, mut agent) = farm().await;
    let mut session = online(&stack, &mut agent).await;
    let frame = dose(&stack, &mut session, FEEDER).await;
    let epoch = session.epoch;
    for _ in 0..10 {
        session.report(outcome(&frame, CommandState::Applied, epoch)).await;
    }
    for _ in 0..10 {
        assert_eq!(session.ack().await.unwrap().state(), CommandState::Applied);
    }
    let stored = stack.client.command(&frame.command).await.unwrap();
    let others = [CommandState::Rejected, CommandState::Expired, CommandState::Uncertain];
    for other in others {
        session.report(outcome(&frame, other, epoch)).await;
        let ack = session.ack().await.unwrap();
        assert_eq!(ack.state(), CommandState::Applied, "the agent said {other:?} later");
    }
    // Progress that comes late takes nothing back.
    session.report(outcome(&frame, CommandState::Executing, epoch)).await;
    session.beat().await;
    assert!(session.hear_for(A_WHILE).await.unwrap().is_empty());
    assert_eq!(stack.client.command(&frame.command).await.unwrap(), stored);
    assert_eq!(stack.client.commands().await.unwrap().len(), 1);
    // One acceptance and one settlement are in the chain.
    stack.admin(&["audit", "verify", "norte"]).await.unwrap();
}

#[tokio::test]
async fn p2_an_outcome_of_another_body_is_refused() {
    let (stack, mut agent) = farm().await;
    let mut session = online(&stack, &mut agent).await;
    let frame = dose(&stack, &mut session, FEEDER).await;
    let mut forged = outcome(&frame, CommandState::Applied, session.epoch);
    forged.body_hash = vec![7; 32].into();
    session.report(forged).await;
    assert!(session.hear_for(A_WHILE).await.unwrap().is_empty(), "it was acknowledged");
    assert_eq!(state(&stack, &frame.command).await, CommandState::Sent);
    session.report(outcome(&frame, CommandState::Rejected, session.epoch)).await;
    assert_eq!(session.ack().await.unwrap().state(), CommandState::Rejected);
    assert_eq!(state(&stack, &frame.command).await, CommandState::Rejected);
}

#[tokio::test]
async fn p2_an_outcome_of_a_command_that_nobody_gave_is_refused() {
    let (stack, mut agent) = farm().await;
    let mut session = online(&stack, &mut agent).await;
    let frame = dose(&stack, &mut session, FEEDER).await;
    let mut forged = outcome(&frame, CommandState::Applied, session.epoch);
    forged.command = format!("{FARM}/commands/{}", request_id());
    session.report(forged.clone()).await;
    assert!(session.hear_for(A_WHILE).await.unwrap().is_empty(), "it was acknowledged");
    let asked = stack.client.command(&forged.command).await;
    expect(asked, Code::NotFound, "NOT_FOUND").unwrap();
    assert_eq!(state(&stack, &frame.command).await, CommandState::Sent);
}

/// RULES 3.8: by report, by hello and by inventory.
#[tokio::test]
async fn p12_an_agent_says_nothing_of_another_agents_command() {
    let (stack, mut agent) = farm().await;
    stack.admin(&["agent", "add", "farms/norte/agents/agent-2"]).await.unwrap();
    let mut session = online(&stack, &mut agent).await;
    let mut other = ScriptedAgent::new(&stack.grpc, "agent-2", "b1");
    let mut forger = other.open().await.unwrap();
    let frame = dose(&stack, &mut session, FEEDER).await;

    forger.report(outcome(&frame, CommandState::Applied, session.epoch)).await;
    assert!(forger.hear_for(A_WHILE).await.unwrap().is_empty(), "it was acknowledged");
    assert_eq!(state(&stack, &frame.command).await, CommandState::Sent);

    forger.hang_up();
    other.hello.commands = vec![outcome(&frame, CommandState::Applied, session.epoch)];
    let stolen = agent.hello.inventory.clone().unwrap();
    let inventory = other.hello.inventory.get_or_insert_default();
    inventory.tanks.extend(stolen.tanks);
    inventory.robots.extend(stolen.robots);
    inventory.feeders.extend(
        stolen
            .feeders
            .into_iter()
            .map(|f| pb::InventoryFeeder { config: Some(config(9_000)), ..f }),
    );
    let mut forger = other.open().await.unwrap();
    assert!(forger.hear_for(A_WHILE).await.unwrap().is_empty(), "it was acknowledged");
    assert_eq!(state(&stack, &frame.command).await, CommandState::Sent);
    let feeder = stack.client.feeder(FEEDER).await.unwrap();
    assert_eq!(feeder.config.unwrap().portion_mg, Some(1_500));

    session.report(outcome(&frame, CommandState::Applied, session.epoch)).await;
    assert_eq!(session.ack().await.unwrap().state(), CommandState::Applied);
    // The feeder is still the first agent's: it gets the next command, and the other does not.
    dose(&stack, &mut session, FEEDER).await;
    assert!(forger.hear_for(A_WHILE).await.unwrap().is_empty());
}

/// RULES 3.8: the older session is told, and ends within 5 s.
#[tokio::test]
async fn p4_the_older_of_two_sessions_is_told_within_5_s() {
    let (stack, mut agent) = farm().await;
    let mut old = online(&stack, &mut agent).await;
    let mut new = agent.open().await.unwrap();
    let ended = old.ended(Duration::from_secs(5)).await.unwrap();
    assert_eq!(ended.goodbye.as_deref(), Some("SESSION_SUPERSEDED"), "{ended:?}");
    // What it says afterwards is heard by nobody.
    old.beat().await;
    let frame = dose(&stack, &mut new, FEEDER).await;
    old.report(outcome(&frame, CommandState::Applied, new.epoch)).await;
    assert!(new.hear_for(A_WHILE).await.unwrap().is_empty());
    assert_eq!(state(&stack, &frame.command).await, CommandState::Sent);
}

#[tokio::test]
async fn p4_a_frame_of_another_epoch_ends_the_session_and_does_nothing() {
    let (stack, mut agent) = farm().await;
    for (older, shift) in [(true, -1), (false, 1)] {
        let mut session = online(&stack, &mut agent).await;
        let frame = dose(&stack, &mut session, FEEDER).await;
        session.epoch += shift;
        session.report(outcome(&frame, CommandState::Applied, session.epoch)).await;
        let ended = session.ended(Duration::from_secs(5)).await.unwrap();
        let status = ended.status.expect("a status");
        assert_eq!(status.code(), Code::Aborted, "older: {older}");
        assert_eq!(reason(&status), "SESSION_SUPERSEDED", "older: {older}");
        // Not listed by the next hello of a whole journal: it never ran.
        let _next = agent.open().await.unwrap();
        wait_state(&stack, &frame.command, CommandState::Expired).await;
    }
}

#[tokio::test]
async fn p4_what_an_older_session_did_is_told_in_a_hello_or_not_at_all() {
    let (stack, mut agent) = farm().await;
    let mut session = online(&stack, &mut agent).await;
    let frame = dose(&stack, &mut session, FEEDER).await;
    let epoch = session.epoch;
    session.hang_up();
    let mut session = agent.open().await.unwrap();
    wait_state(&stack, &frame.command, CommandState::Expired).await;
    // Its journal said that it never ran. Another word is an alarm, and changes nothing.
    session.report(outcome(&frame, CommandState::Applied, epoch)).await;
    assert_eq!(session.ack().await.unwrap().state(), CommandState::Expired);
    assert_eq!(state(&stack, &frame.command).await, CommandState::Expired);
    let log = stack.server.as_ref().unwrap().log();
    assert!(log.contains("alarm"), "nobody was alarmed: {log}");
}

/// RULES 3.8: three takeovers of living sessions in a minute.
#[tokio::test]
async fn p4_three_takeovers_in_a_minute_are_two_machines() {
    let (stack, mut agent) = farm().await;
    let problem =
        || async { stack.client.farm().await.map(|f| f.agents.first().map(|a| a.problem.clone())) };
    let mut sessions = vec![online(&stack, &mut agent).await];
    for _ in 0..2 {
        sessions.push(agent.open().await.unwrap());
        assert_eq!(problem().await.unwrap().as_deref(), Some(""));
    }
    sessions.push(agent.open().await.unwrap());
    wait_for("DUPLICATE_AGENT", Duration::from_secs(5), || async {
        match problem().await? {
            Some(p) if p == "DUPLICATE_AGENT" => Ok(()),
            other => Err(Status::internal(format!("{other:?}"))),
        }
    })
    .await
    .unwrap();
}

/// RULES 3.6: condition (ii) alone.
#[tokio::test]
async fn p2_a_journal_with_fewer_records_than_were_stored_proves_nothing() {
    let (stack, mut agent) = farm().await;
    let mut session = online(&stack, &mut agent).await;
    let incarnation = agent.journal().incarnation.clone();
    let records = (1..=3).map(|n| dose_record(n, FEEDER, "", 100)).collect();
    session.say(Up::Records(pb::Records { incarnation, records })).await;
    assert_eq!(session.records_ack().await.unwrap(), 3);
    let frame = dose(&stack, &mut session, FEEDER).await;
    session.hang_up();
    // Epoch and slots are as they should be.
    agent.journal().record_high_water = 2;
    agent.journal().oldest_record = 1;
    let _session = agent.open().await.unwrap();
    let command = wait_for("marked", Duration::from_secs(10), || async {
        let command = stack.client.command(&frame.command).await?;
        match command.reason.as_str() {
            "JOURNAL_NOT_WHOLE" => Ok(command),
            _ => Err(Status::internal(format!("{command:?}"))),
        }
    })
    .await
    .unwrap();
    assert_eq!(command.state(), CommandState::Uncertain);
}

/// RULES 7.1: duplicates, replays on a new stream, gaps, and another content under the same key.
#[tokio::test]
async fn p9_records_arrive_once_in_order_and_as_they_were() {
    let (stack, mut agent) = farm().await;
    let mut session = online(&stack, &mut agent).await;
    let incarnation = agent.journal().incarnation.clone();
    let batch = |incarnation: &str, numbers: std::ops::RangeInclusive<i64>, mg: i64| {
        let records = numbers.map(|n| dose_record(n, FEEDER, "", mg)).collect();
        Up::Records(pb::Records { incarnation: incarnation.to_owned(), records })
    };
    let rows = || async { stack.client.doses().await.unwrap().len() };
    for _ in 0..3 {
        session.say(batch(&incarnation, 1..=3, 100)).await;
        assert_eq!(session.records_ack().await.unwrap(), 3);
    }
    session.say(batch(&incarnation, 2..=4, 100)).await;
    assert_eq!(session.records_ack().await.unwrap(), 4);
    assert_eq!(rows().await, 4);
    // A gap is not stored.
    session.say(batch(&incarnation, 6..=7, 100)).await;
    assert_eq!(session.records_ack().await.unwrap(), 4);
    // What is stored under a key stays.
    session.say(batch(&incarnation, 3..=5, 999)).await;
    assert!(session.records_ack().await.unwrap() < 3);
    let stored = stack.client.doses().await.unwrap();
    assert!(stored.len() == 4 && stored.iter().all(|d| d.dispensed_mg == Some(100)), "{stored:?}");

    session.hang_up();
    agent.journal().record_high_water = 4;
    agent.journal().oldest_record = 1;
    let mut session = agent.open().await.unwrap();
    session.say(batch(&incarnation, 1..=4, 100)).await;
    assert_eq!(session.records_ack().await.unwrap(), 4);
    assert_eq!(rows().await, 4);
    // A journal made anew begins at 1 again.
    session.say(batch("another", 1..=1, 50)).await;
    assert_eq!(session.records_ack().await.unwrap(), 1);
    assert_eq!(rows().await, 5);

    let mut bad = dose_record(5, FEEDER, "", 100);
    bad.hash = dose_record(5, FEEDER, "", 101).hash;
    session.say(Up::Records(pb::Records { incarnation, records: vec![bad] })).await;
    let status = session.ended(Duration::from_secs(5)).await.unwrap().status.expect("a status");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(rows().await, 5);
}

/// RULES 2.4: a frame counts as heard when it was sent.
#[tokio::test]
async fn p1_beats_that_sat_in_a_buffer_extend_nothing() {
    let ttl = Duration::from_millis(2_500);
    let (stack, mut agent) =
        farm_with(&["--lease-ttl", "2500ms", "--heartbeat-interval", "800ms"]).await;
    let mut session = online(&stack, &mut agent).await;
    let sent = agent.now_ms();
    let since = Instant::now();
    session.say_at(sent, Up::Heartbeat(pb::Heartbeat { sequence: 2, ..Default::default() })).await;
    let mut beats = 2;
    loop {
        // They come at every instant, and all are of that one.
        beats += 1;
        let beat = pb::Heartbeat { sequence: beats, ..Default::default() };
        session.say_at(sent + beats, Up::Heartbeat(beat)).await;
        let farm = stack.client.farm().await.unwrap();
        if farm.agents[0].presence() == PresenceState::Offline {
            break;
        }
        assert!(since.elapsed() < ttl + Duration::from_secs(1), "still online: {farm:?}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let beat = pb::Heartbeat { sequence: beats + 1, ..Default::default() };
    session.say_at(sent + beats, Up::Heartbeat(beat)).await;
    let answer = stack.client.feed_now(FEEDER, 100).await;
    expect(answer, Code::FailedPrecondition, "AGENT_OFFLINE").unwrap();
    assert_eq!(stack.client.commands().await.unwrap(), []);
    // A fresh one does.
    session.beat().await;
    stack.client.wait_presence(PresenceState::Online, Duration::from_secs(2)).await.unwrap();
}

/// RULES 2.3.
#[tokio::test]
async fn p1_between_two_sessions_the_agent_is_moving() {
    let (stack, mut agent) = farm().await;
    let mut session = online(&stack, &mut agent).await;
    session.hang_up();
    let moving = wait_for("moving", Duration::from_secs(5), || async {
        let answer = stack.client.hold(FEEDER).await;
        expect(answer, Code::Unavailable, "AGENT_MOVING").map_err(|e| e.to_string())
    })
    .await
    .unwrap();
    let retry = moving.get_details_retry_info().expect("when to try again");
    assert_eq!(retry.retry_delay, Some(Duration::from_secs(1)));
    let farm = stack.client.farm().await.unwrap();
    assert_eq!(farm.agents[0].presence(), PresenceState::Online, "its lease lives");
    let _session = agent.open().await.unwrap();
}

/// RULES 4.3.
#[tokio::test]
async fn p2_a_started_dose_answers_executing_and_anything_else_names_the_command() {
    let (stack, mut agent) = farm().await;
    let mut session = online(&stack, &mut agent).await;
    let mut client = stack.client.feeders.clone();
    let asked = client.feed_now(within(feed_now(FEEDER), Duration::from_secs(2)));
    let started = async {
        let frame = session.command().await.unwrap();
        session.report(outcome(&frame, CommandState::Executing, session.epoch)).await;
        frame
    };
    let (answer, frame) = tokio::join!(asked, started);
    let command = answer.unwrap().into_inner().command.unwrap();
    assert_eq!(command.state(), CommandState::Executing);
    session.report(outcome(&frame, CommandState::Applied, session.epoch)).await;
    session.ack().await.unwrap();

    let request = stack.client.portion_request(FEEDER, 1_600).await.unwrap();
    let asked = client.update_feeder_config(within(request, Duration::from_secs(1)));
    let started = async {
        let frame = session.command().await.unwrap();
        session.report(outcome(&frame, CommandState::Executing, session.epoch)).await;
        frame
    };
    let (answer, frame) = tokio::join!(asked, started);
    let pending = expect(answer, Code::DeadlineExceeded, "OUTCOME_PENDING").unwrap();
    assert_eq!(metadata(&pending, "command").as_deref(), Some(frame.command.as_str()));
}

/// RULES 4.3, 6.2: the one terminal state that is not answered with OK.
#[tokio::test]
async fn p6_a_config_that_met_a_change_at_the_farm_is_aborted_with_the_current_one() {
    let (stack, mut agent) = farm().await;
    let mut session = online(&stack, &mut agent).await;
    let request = stack.client.portion_request(FEEDER, 1_600).await.unwrap();
    let mut client = stack.client.feeders.clone();
    let asked = client.update_feeder_config(within(request, Duration::from_secs(10)));
    let met = async {
        let frame = session.command().await.unwrap();
        let mut end = outcome(&frame, CommandState::Rejected, session.epoch);
        end.reason = "CHANGED_AT_FARM".into();
        end.config = Some(config(2_000));
        session.report(end).await;
        frame
    };
    let (answer, frame) = tokio::join!(asked, met);
    let aborted = expect(answer, Code::Aborted, "CHANGED_AT_FARM").unwrap();
    assert_eq!(metadata(&aborted, "command").as_deref(), Some(frame.command.as_str()));
    let feeder = stack.client.feeder(FEEDER).await.unwrap();
    assert_eq!(feeder.config.unwrap().portion_mg, Some(2_000));
}

/// RULES 4.4: 5 s after the start limit, plus what the dose takes; then evidence changes it, once.
#[tokio::test]
async fn p2_a_session_that_lives_and_tells_nothing_leaves_doubt_and_evidence_ends_it() {
    let args = ["--lease-ttl", "25s", "--heartbeat-interval", "8s", "--start-limit", "1s"];
    let (stack, mut agent) = farm_with(&args).await;
    let mut session = online(&stack, &mut agent).await;
    let frame = dose(&stack, &mut session, FEEDER).await;
    let doubted = wait_state(&stack, &frame.command, CommandState::Uncertain).await;
    assert_eq!(doubted.reason, "AGENT_LOST");
    let locked = stack.client.feed_now(FEEDER, 100).await;
    expect(locked, Code::FailedPrecondition, "DOSE_UNSETTLED").unwrap();
    session.report(outcome(&frame, CommandState::Applied, session.epoch)).await;
    assert_eq!(session.ack().await.unwrap().state(), CommandState::Applied);
    session.report(outcome(&frame, CommandState::Rejected, session.epoch)).await;
    assert_eq!(session.ack().await.unwrap().state(), CommandState::Applied);
    assert_eq!(state(&stack, &frame.command).await, CommandState::Applied);
}

#[tokio::test]
async fn p4_a_stream_that_breaks_the_protocol_ends_with_its_status() {
    let (stack, mut agent) = farm().await;
    let end = |mut session: AgentSession| async move {
        session.ended(Duration::from_secs(8)).await.unwrap()
    };
    let code = |ended: pasamanos_tests::scripted::agent::Ended| ended.status.unwrap().code();

    let silent = agent.stream(None).await.unwrap();
    let beat = agent.stream(Some(Up::Heartbeat(pb::Heartbeat::default()))).await;
    assert_eq!(code(end(beat.unwrap()).await), Code::InvalidArgument);

    let mut session = agent.open().await.unwrap();
    session.say(Up::Hello(agent.hello.clone())).await;
    assert_eq!(code(end(session).await), Code::InvalidArgument);

    let mut stranger = ScriptedAgent::new(&stack.grpc, "agent-9", "z1");
    let refused = stranger.stream(Some(Up::Hello(stranger.hello.clone()))).await.unwrap();
    assert_eq!(end(refused).await.goodbye.as_deref(), Some("UNKNOWN_AGENT"));
    assert!(stranger.open().await.is_err());

    let mut far = agent.clone();
    far.journal().last_epoch += 1_000_002;
    let refused = far.stream(Some(Up::Hello(far.hello.clone()))).await.unwrap();
    assert_eq!(code(end(refused).await), Code::InvalidArgument);

    assert_eq!(code(end(silent).await), Code::DeadlineExceeded);
    // None of it hurt the agent.
    online(&stack, &mut agent).await;
}

/// RULES 2.3: and what comes after a goodbye is acted on by nobody.
#[tokio::test]
async fn p10_a_goodbye_is_the_last_word() {
    let (stack, mut agent) = farm().await;
    let mut session = online(&stack, &mut agent).await;
    session.say(Up::Goodbye(pb::AgentGoodbye { detail: "a test".into() })).await;
    session.beat().await;
    stack.client.wait_presence(PresenceState::Offline, Duration::from_secs(1)).await.unwrap();
    session.beat().await;
    session.ended(Duration::from_secs(5)).await.unwrap();
    let answer = stack.client.hold(FEEDER).await;
    expect(answer, Code::FailedPrecondition, "AGENT_OFFLINE").unwrap();
}

/// A person asks for nothing else meanwhile: the frames come in the order of acceptance.
#[tokio::test]
async fn p5_frames_are_numbered_and_come_in_the_order_of_acceptance() {
    let (stack, mut agent) = farm().await;
    let mut session = online(&stack, &mut agent).await;
    let mut numbers = Vec::new();
    let mut held = Vec::new();
    for _ in 0..3 {
        let request = pb::HoldFeederRequest {
            name: format!("{FARM}/feeders/{FEEDER}"),
            request_id: request_id(),
            ..Default::default()
        };
        let mut client = stack.client.feeders.clone();
        let asked = client.hold_feeder(within(request, Duration::from_millis(700)));
        let (_, frame) = tokio::join!(asked, session.hear());
        match frame.unwrap() {
            Down::Command(frame) => {
                numbers.push(frame.number);
                held.push(frame);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(numbers, [1, 2, 3]);
    for frame in held.iter().rev() {
        session.report(outcome(frame, CommandState::Applied, session.epoch)).await;
        session.ack().await.unwrap();
    }
}
