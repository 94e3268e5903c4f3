//! Orders of events that such designs usually miss, each judged from outside: what was told against
//! what the PLC's own log shows.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use pasamanos_proto::pb::{self, CommandState, PresenceState};
use pasamanos_tests::client::{FARM, expect, reason, request_id};
use pasamanos_tests::fault_proxy::{Cut, Flow, Way};
use pasamanos_tests::{Redis, Stack, wait_for};
use rustix::process::Signal;
use serde_json::json;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

const KEY: &str = "pasamanos:lease:norte/agent-1";
/// The lease time of a stack that says nothing else.
const TTL: Duration = Duration::from_millis(2_500);

fn feed(feeder: &str, portion_mg: i32) -> pb::FeedNowRequest {
    pb::FeedNowRequest {
        name: format!("{FARM}/feeders/{feeder}"),
        portion_mg: Some(portion_mg),
        request_id: request_id(),
        ..Default::default()
    }
}

fn name(request: &pb::FeedNowRequest) -> String {
    format!("{FARM}/commands/{}", request.request_id)
}

async fn ask(stack: &Stack, request: &pb::FeedNowRequest, wait: Duration) -> Result<(), Status> {
    let mut asked = tonic::Request::new(request.clone());
    asked.set_timeout(wait);
    stack.client.feeders.clone().feed_now(asked).await.map(drop)
}

/// Waits for a command's true end, none if it was never accepted, and holds it against the PLC.
async fn judge(stack: &Stack, command: &str) -> Option<CommandState> {
    let end = wait_for("a true end", Duration::from_secs(40), || async {
        match stack.client.command(command).await {
            Ok(c) => match c.state() {
                CommandState::Applied
                | CommandState::Partial
                | CommandState::Rejected
                | CommandState::Expired => Ok(Some(c.state())),
                state => Err(Status::unavailable(format!("{state:?} {}", c.reason))),
            },
            Err(e) if e.code() == Code::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    })
    .await
    .unwrap_or_else(|e| panic!("{e}\n{}", stack.logs()));
    let ran = stack.doses_of(command).unwrap();
    let told = matches!(end, Some(CommandState::Applied | CommandState::Partial));
    assert_eq!(ran, usize::from(told), "told {end:?}, given {ran} times\n{}", stack.logs());
    end
}

/// Nobody had to help: the next dose is given.
async fn goes_on(stack: &Stack, feeder: &str) {
    let next =
        wait_for("the next dose", Duration::from_secs(20), || stack.client.feed_now(feeder, 100));
    let next = next.await.unwrap_or_else(|e| panic!("{e}\n{}", stack.logs()));
    assert_eq!(judge(stack, &next.name).await, Some(CommandState::Applied));
}

async fn wait_state(stack: &Stack, command: &str, state: CommandState) -> pb::Command {
    wait_for(&format!("{state:?}"), Duration::from_secs(30), || async {
        let command = stack.client.command(command).await?;
        if command.state() == state {
            return Ok(command);
        }
        Err(Status::unavailable(format!("{:?} {}", command.state(), command.reason)))
    })
    .await
    .unwrap_or_else(|e| panic!("{e}\n{}", stack.logs()))
}

async fn wait_key_gone(redis: &Redis) {
    wait_for("the key is gone", TTL * 2, || async {
        match redis.cli(&["exists", KEY]).await.as_deref() {
            Ok("0") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
}

/// The epoch in the lease's key; `None` if there is none.
async fn epoch_of_key(redis: &Redis) -> Option<i64> {
    let value = redis.cli(&["get", KEY]).await.unwrap();
    value.split('/').next()?.parse().ok()
}

/// A report that was told while a dose ran does not lock the robot once that dose is settled.
#[tokio::test]
async fn p2_a_dose_that_is_settled_locks_nothing_from_that_instant() {
    let stack = Stack::builder().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    for n in 1..=8 {
        let dose = stack.client.feed_now(&feeder, 150).await.unwrap_or_else(|e| {
            panic!("dose {n} is refused: {e:?}");
        });
        assert_eq!(dose.state(), CommandState::Applied, "{dose:?}");
    }
    assert_eq!(stack.doses_started().unwrap(), 8);
}

/// Whoever is told that a feeder is free again may use it: what was reported before holds nothing.
#[tokio::test]
async fn p2_a_feeder_that_is_free_again_is_free_from_that_instant() {
    let stack = Stack::builder().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let mode = async |mode: pb::FeederMode| {
        let mut request = stack.client.portion_request(&feeder, 0).await.unwrap();
        request.config = Some(pb::FeederConfig { mode: mode.into(), ..Default::default() });
        request.update_mask = Some(prost_types::FieldMask { paths: vec!["mode".into()] });
        let answer = stack.client.feeders.clone().update_feeder_config(request).await.unwrap();
        answer.into_inner().command.unwrap()
    };
    for n in 1..=6 {
        let (bound, freed) = if n % 2 == 0 {
            (mode(pb::FeederMode::Off).await, mode(pb::FeederMode::Manual).await)
        } else {
            let held = stack.client.hold(&feeder).await.unwrap();
            (held, stack.client.resume(&feeder).await.unwrap())
        };
        for command in [bound, freed] {
            assert_eq!(command.state(), CommandState::Applied, "{n}: {command:?}");
        }
        let dose = stack.client.feed_now(&feeder, 150).await.unwrap_or_else(|e| {
            panic!("dose {n} is refused: {e:?}");
        });
        assert_eq!(dose.state(), CommandState::Applied, "{n}: {dose:?}");
    }
}

/// RULES 1.3: the database takes the write at about the instant at which its caller gives up. What
/// was refused is nowhere, and what may be somewhere is never called refused.
#[tokio::test]
async fn p1_a_refusal_that_races_with_its_commit_tells_the_truth() {
    let stack = Stack::builder().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let file = SqliteConnectOptions::new().filename(stack.dir.path().join("server/pasamanos.db"));
    let (mut refused, mut accepted) = (0, 0);
    for busy_ms in (1_000..=1_800).step_by(50) {
        let mut other = SqliteConnection::connect_with(&file).await.unwrap();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
        let request = feed(&feeder, 50);
        let released = async {
            sleep(Duration::from_millis(busy_ms)).await;
            sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
        };
        let (answer, ()) = tokio::join!(ask(&stack, &request, Duration::from_secs(12)), released);
        other.close().await.unwrap();
        let unknown = match answer {
            Ok(()) => false,
            Err(e) if reason(&e) == "DATABASE_UNREACHABLE" => {
                refused += 1;
                // At once, and for ever: it was never taken.
                let asked = stack.client.command(&name(&request)).await;
                expect(asked, Code::NotFound, "NOT_FOUND").unwrap();
                continue;
            }
            Err(e) if reason(&e) == "ACCEPTANCE_UNKNOWN" => true,
            Err(e) => panic!("{busy_ms} ms: {e:?}"),
        };
        let end = judge(&stack, &name(&request)).await;
        accepted += usize::from(end.is_some());
        assert!(end.is_some() || unknown, "{busy_ms} ms: accepted, and not there");
    }
    assert!(refused > 0 && accepted > 0, "{refused} refused, {accepted} accepted: no race");
    goes_on(&stack, &feeder).await;
    // Of what was refused nothing was found later either.
    let commands = stack.client.commands().await.unwrap().len();
    assert_eq!(stack.doses_started().unwrap(), commands);
}

/// Watches for a while that nothing takes the lease and nothing passes the gate.
async fn nothing_revives(stack: &Stack, redis: &Redis, feeder: &str) {
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(1_500) {
        assert_eq!(epoch_of_key(redis).await, None, "old frames extended the lease");
        let answer = stack.client.feed_now(feeder, 100).await;
        expect(answer, Code::FailedPrecondition, "AGENT_OFFLINE").unwrap();
    }
    assert_eq!(stack.client.commands().await.unwrap(), []);
}

/// RULES 2.4: the server stands still past the lease, its key expires, and it goes on with its
/// buffers full of what the agent said before. The agent stands still too, so that its stream stays.
#[tokio::test]
async fn p4_a_server_that_stood_still_while_its_lease_expired_revives_no_session() {
    let redis = Redis::start().await.unwrap();
    let url = redis.url();
    let stack =
        Stack::builder().proxied().server_arg(&["--redis-url", &url]).start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let (server, link) = (stack.server.as_ref().unwrap(), stack.link().unwrap());
    let agent = stack.agent.as_ref().unwrap();
    server.signal(Signal::STOP).unwrap();
    let said = link.passed(Way::Up);
    wait_for("it is said to the frozen server", TTL, || async {
        // A beat of the agent is some fifty bytes.
        if link.passed(Way::Up) > said + 40 { Ok(()) } else { Err(link.passed(Way::Up)) }
    })
    .await
    .unwrap();
    agent.signal(Signal::STOP).unwrap();
    wait_key_gone(&redis).await;
    // All that was said is older than the lease when it is read.
    sleep(TTL).await;
    server.signal(Signal::CONT).unwrap();
    nothing_revives(&stack, &redis, &feeder).await;
    agent.signal(Signal::CONT).unwrap();
    stack.client.wait_presence(PresenceState::Online, Duration::from_secs(20)).await.unwrap();
    goes_on(&stack, &feeder).await;
}

/// RULES 2.4: heartbeats are held back on the way past the lease, and come all at once. The agent
/// stands still behind them, so that its stream stays.
#[tokio::test]
async fn p1_heartbeats_that_come_all_at_once_after_a_stall_extend_nothing() {
    let redis = Redis::start().await.unwrap();
    let url = redis.url();
    let stack =
        Stack::builder().proxied().server_arg(&["--redis-url", &url]).start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let (agent, link) = (stack.agent.as_ref().unwrap(), stack.link().unwrap());
    link.flow(Way::Up, Flow::Hold);
    wait_for("two beats are held back", TTL, || async {
        if link.held(Way::Up) > 80 { Ok(()) } else { Err(link.held(Way::Up)) }
    })
    .await
    .unwrap();
    agent.signal(Signal::STOP).unwrap();
    wait_key_gone(&redis).await;
    stack.client.wait_presence(PresenceState::Offline, Duration::from_secs(2)).await.unwrap();
    sleep(TTL).await;
    link.flow(Way::Up, Flow::Pass);
    wait_for("they arrived", Duration::from_secs(5), || async {
        if link.held(Way::Up) == 0 { Ok(()) } else { Err(link.held(Way::Up)) }
    })
    .await
    .unwrap();
    nothing_revives(&stack, &redis, &feeder).await;
    agent.signal(Signal::CONT).unwrap();
    stack.client.wait_presence(PresenceState::Online, Duration::from_secs(20)).await.unwrap();
    goes_on(&stack, &feeder).await;
}

/// RULES 4.1: the frame lies in a full socket until the dose's start limit has passed.
#[tokio::test]
async fn p7_a_dose_whose_limit_passed_in_a_socket_never_starts() {
    let args = ["--lease-ttl", "25s", "--heartbeat-interval", "8s", "--start-limit", "1s"];
    let stack = Stack::builder().proxied().server_args(&args).start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let link = stack.link().unwrap();
    link.flow(Way::Down, Flow::Stall);
    let request = feed(&feeder, 100);
    // It is sent, and by the answer its limit has passed.
    let answer = ask(&stack, &request, Duration::from_secs(2)).await;
    expect(answer, Code::DeadlineExceeded, "OUTCOME_PENDING").unwrap();
    assert_eq!(stack.client.command(&name(&request)).await.unwrap().state(), CommandState::Sent);
    link.flow(Way::Down, Flow::Pass);
    assert_eq!(judge(&stack, &name(&request)).await, Some(CommandState::Expired));
    goes_on(&stack, &feeder).await;
}

/// One direction is lost and the connection stays: the server hears nothing, or the agent does.
#[tokio::test]
async fn p1_a_link_that_is_dead_one_way_is_told_and_heals_by_itself() {
    let stack = Stack::builder().proxied().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let link = stack.link().unwrap();
    for way in [Way::Up, Way::Down] {
        link.flow(way, Flow::Swallow);
        let lost = Instant::now();
        // Accepted while the lease lives, or refused: the truth is told of it either way.
        let request = feed(&feeder, 100);
        let _ = ask(&stack, &request, Duration::from_secs(2)).await;
        stack.client.wait_presence(PresenceState::Offline, TTL * 3).await.unwrap();
        // Deaf, the agent goes on talking until the server was silent for the lease time.
        let silences = if way == Way::Up { 1 } else { 2 };
        assert!(lost.elapsed() <= TTL * silences + Duration::from_secs(1), "{way:?}");
        let refused = stack.client.feed_now(&feeder, 100).await;
        expect(refused, Code::FailedPrecondition, "AGENT_OFFLINE").unwrap();
        link.flow(way, Flow::Pass);
        stack.client.wait_presence(PresenceState::Online, Duration::from_secs(20)).await.unwrap();
        judge(&stack, &name(&request)).await;
        goes_on(&stack, &feeder).await;
    }
}

/// A server behind a dead balancer accepts and never answers: the agent does not wait for ever.
#[tokio::test]
async fn p10_a_link_that_accepts_and_never_answers_is_left_again() {
    let stack = Stack::builder().proxied().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let link = stack.link().unwrap();
    link.mute(true);
    link.cut(Cut::Reset);
    stack.client.wait_presence(PresenceState::Offline, TTL * 2).await.unwrap();
    wait_for("it gives up", Duration::from_secs(20), || async {
        let log = stack.agent.as_ref().unwrap().log();
        if log.contains("no answer to the hello") || log.contains("no session") {
            return Ok(());
        }
        Err(log)
    })
    .await
    .unwrap();
    link.mute(false);
    stack.client.wait_presence(PresenceState::Online, Duration::from_secs(20)).await.unwrap();
    goes_on(&stack, &feeder).await;
}

/// RULES 6.5: the write's reply is lost, and the value shows long after.
#[tokio::test]
async fn p2_a_config_write_that_lands_after_its_time_out_is_in_doubt_and_then_applied() {
    let args = ["--lease-ttl", "25s", "--heartbeat-interval", "8s", "--start-limit", "1s"];
    let stack = Stack::builder().server_args(&args).start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let late = json!({"op": "replies", "fate": "late", "count": 1, "ms": 9_000});
    stack.sim().control(&late).await.unwrap();
    let doubted = stack.client.set_portion(&feeder, 1_600).await.unwrap();
    assert_eq!(doubted.state(), CommandState::Uncertain, "{doubted:?}");
    // The PLC runs the old one, and nobody says otherwise; another change has to wait.
    let shown = stack.client.feeder(&feeder).await.unwrap().config.unwrap();
    assert_eq!(shown.portion_mg, Some(1_500));
    let second = stack.client.set_portion(&feeder, 1_700).await;
    expect(second, Code::Aborted, "CONFIG_IN_FLIGHT").unwrap();

    wait_state(&stack, &doubted.name, CommandState::Applied).await;
    let runs = stack.sim().feeders().await.unwrap();
    assert_eq!(runs[0]["config"]["portion_mg"], 1_600);
    stack
        .client
        .wait_feeder(&feeder, "shows what the PLC runs", Duration::from_secs(5), |f| {
            f.config.as_ref().is_some_and(|c| c.portion_mg == Some(1_600))
        })
        .await
        .unwrap();
    let applied = stack.client.set_portion(&feeder, 1_700).await.unwrap();
    assert_eq!(applied.state(), CommandState::Applied);
}

/// RULES 5.5: the PLC does not take the dose, and a person holds the feeder.
#[tokio::test]
async fn p8_a_hold_during_a_dose_that_is_stuck_holds_and_the_dose_never_runs() {
    let stack = Stack::builder().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let lost = json!({"op": "replies", "fate": "dropped", "count": 12});
    stack.sim().control(&lost).await.unwrap();
    let request = feed(&feeder, 100);
    let command = name(&request);
    let stuck = ask(&stack, &request, Duration::from_secs(15));
    let held = async {
        wait_state(&stack, &command, CommandState::Executing).await;
        stack.client.hold(&feeder).await.unwrap()
    };
    let (_, held) = tokio::join!(stuck, held);
    let held = stack.client.wait_settled(&held.name, Duration::from_secs(15)).await.unwrap();
    assert_eq!(held.state(), CommandState::Applied, "{held:?}");
    assert_eq!(stack.sim().feeders().await.unwrap()[0]["held"], true);
    let end = judge(&stack, &command).await;
    assert!(matches!(end, Some(CommandState::Rejected | CommandState::Expired)), "{end:?}");
    let resumed = stack.client.resume(&feeder).await.unwrap();
    assert_eq!(resumed.state(), CommandState::Applied);
    goes_on(&stack, &feeder).await;
    assert_eq!(stack.doses_of(&command).unwrap(), 0, "it ran after the resume");
}

/// RULES 5.1: the PLC is lost while it doses; a second dose under a new id is not given beside it.
#[tokio::test]
async fn p3_a_second_dose_under_a_new_id_waits_for_the_truth_of_the_first() {
    let args = ["--lease-ttl", "25s", "--heartbeat-interval", "8s", "--start-limit", "1s"];
    let stack = Stack::builder().server_args(&args).start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let first = feed(&feeder, 1_000);
    let command = name(&first);
    let asked = ask(&stack, &first, Duration::from_secs(20));
    let lost = async {
        wait_state(&stack, &command, CommandState::Executing).await;
        stack.sim().control(&json!({"op": "link", "up": false})).await.unwrap();
        wait_state(&stack, &command, CommandState::Uncertain).await
    };
    let (_, doubted) = tokio::join!(asked, lost);
    assert!(!doubted.reason.is_empty(), "it does not say why");
    let before = stack.client.commands().await.unwrap().len();
    for _ in 0..3 {
        let refused = stack.client.feed_now(&feeder, 1_000).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        let known = ["DOSE_UNSETTLED", "PLC_UNREACHABLE"];
        assert!(known.contains(&reason(&refused).as_str()), "{refused:?}");
    }
    assert_eq!(stack.client.commands().await.unwrap().len(), before);
    stack.sim().control(&json!({"op": "link", "up": true})).await.unwrap();
    assert_eq!(judge(&stack, &command).await, Some(CommandState::Applied));
    assert_eq!(stack.doses_started().unwrap(), 1);
    goes_on(&stack, &feeder).await;
}

/// What was asked of a server that is frozen and thawed ends truly, whoever waited.
#[tokio::test]
async fn p2_what_was_asked_of_a_frozen_server_ends_truly() {
    let stack = Stack::builder().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let server = stack.server.as_ref().unwrap();
    server.signal(Signal::STOP).unwrap();
    let requests: Vec<_> = (0..4).map(|_| feed(&feeder, 50)).collect();
    let mut asked = tokio::task::JoinSet::new();
    for request in requests.clone() {
        let mut client = stack.client.feeders.clone();
        asked.spawn(async move { timeout(TTL, client.feed_now(request)).await.is_ok() });
    }
    while asked.join_next().await.is_some() {}
    server.signal(Signal::CONT).unwrap();
    stack.client.wait_presence(PresenceState::Online, Duration::from_secs(20)).await.unwrap();
    for request in &requests {
        judge(&stack, &name(request)).await;
    }
    goes_on(&stack, &feeder).await;
}
