//! P1 and P7 when someone sets the clock of the server or of the farm PC: only timestamps differ. The
//! gate, the lease, start limits and their expiry go by clocks that nobody can set.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use pasamanos_proto::pb::{self, CommandState, PresenceState};
use pasamanos_tests::check::token;
use pasamanos_tests::client::{FARM, reason, request_id};
use pasamanos_tests::plc::example;
use pasamanos_tests::stack::Part;
use pasamanos_tests::wall_clock::WallClock;
use pasamanos_tests::{Plc, Redis, Stack, wait_for};
use rustix::process::Signal;
use tokio::time::Instant;
use tonic::Status;

const KEY: &str = "pasamanos:lease:norte/agent-1";
const DAY: i64 = 86_400;
const TTL: Duration = Duration::from_millis(4_000);
const WITHIN: Duration = Duration::from_secs(20);

/// How far the server's clock is from ours, s.
async fn server_is_off(stack: &Stack) -> i64 {
    let shown = stack.client.farm().await.unwrap().server_time.unwrap().seconds;
    let ours = std::process::Command::new("date").arg("+%s").output().unwrap();
    shown - String::from_utf8_lossy(&ours.stdout).trim().parse::<i64>().unwrap()
}

/// What a farmer does in a quiet moment: all of it passes.
async fn all_is_well(stack: &Stack, feeder: &str, portion_mg: i32) -> pb::Command {
    let began = Instant::now();
    let dose = stack.client.feed_now(feeder, 100).await.unwrap();
    let dose = stack.client.wait_settled(&dose.name, WITHIN).await.unwrap();
    assert_eq!(dose.state(), CommandState::Applied, "{dose:?}\n{}", stack.logs());
    let config = stack.client.set_portion(feeder, portion_mg).await.unwrap();
    assert_eq!(config.state(), CommandState::Applied, "{config:?}\n{}", stack.logs());
    // Nobody falls off the line for longer than a lease: renewals go on.
    while began.elapsed() < TTL + Duration::from_secs(1) {
        let farm = stack.client.farm().await.unwrap();
        assert_eq!(farm.agents[0].presence(), PresenceState::Online, "{}", stack.logs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    dose
}

#[tokio::test]
async fn p1_p7_a_wall_clock_that_is_set_by_a_day_changes_nothing_but_timestamps() {
    let dir = tempfile::tempdir().unwrap();
    let server = WallClock::new(dir.path(), "server").await.unwrap();
    let agent = WallClock::new(dir.path(), "agent").await.unwrap();
    let args = ["--lease-ttl", "4s", "--heartbeat-interval", "1s", "--start-limit", "1s"];
    let stack = Stack::builder().server_args(&args);
    let stack = agent.of(Part::Agent, server.of(Part::Server, stack));
    let mut stack = stack.start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let mut portion = 1_550;
    let mut doses = 0;
    for (server_s, agent_s) in [(DAY, -DAY), (-DAY, DAY), (0, 0)] {
        let before = server_is_off(&stack).await;
        server.set(server_s).unwrap();
        agent.set(agent_s).unwrap();
        let moved = server_is_off(&stack).await;
        assert!(
            (moved - server_s).abs() < 60,
            "the server's clock did not move: {before} to {moved}"
        );
        let dose = all_is_well(&stack, &feeder, portion).await;
        portion += 50;
        doses += 1;
        let row = wait_for("its record", WITHIN, || async {
            let rows = stack.client.doses().await?;
            let row = rows.into_iter().find(|r| r.command == dose.name);
            row.ok_or_else(|| Status::not_found("not yet"))
        })
        .await
        .unwrap();
        // By the farm PC's clock, whatever that shows; and so by ours it is a day off.
        let apart = row.end_time.unwrap().seconds - dose.create_time.unwrap().seconds;
        assert!((apart - (agent_s - server_s)).abs() < 60, "{apart} s apart");

        late_is_late(&mut stack, &feeder, &agent, -agent_s).await;
        agent.set(agent_s).unwrap();
        silent_is_offline(&mut stack, &feeder, (&server, -server_s), (&agent, agent_s)).await;
        server.set(server_s).unwrap();
    }
    assert_eq!(stack.doses_started().unwrap(), doses, "no more than those that were applied");
}

/// Accepted while the agent is frozen, and its clock is set while it sleeps: it never starts.
async fn late_is_late(stack: &mut Stack, feeder: &str, agent: &WallClock, to: i64) {
    let request = pb::FeedNowRequest {
        name: format!("{FARM}/feeders/{feeder}"),
        portion_mg: Some(100),
        request_id: request_id(),
        ..Default::default()
    };
    let name = format!("{FARM}/commands/{}", request.request_id);
    stack.agent().unwrap().signal(Signal::STOP).unwrap();
    let mut asked = tonic::Request::new(request);
    // Longer than the start limit, shorter than the lease.
    asked.set_timeout(Duration::from_secs(2));
    let answer = stack.client.feeders.clone().feed_now(asked).await.unwrap_err();
    assert_eq!(reason(&answer), "OUTCOME_PENDING", "{answer:?}");
    agent.set(to).unwrap();
    stack.agent().unwrap().signal(Signal::CONT).unwrap();
    let settled = wait_for("it expires", WITHIN, || async {
        let command = stack.client.command(&name).await?;
        match command.state() {
            CommandState::Expired => Ok(()),
            other => Err(Status::unavailable(format!("{other:?} {}", command.reason))),
        }
    });
    settled.await.unwrap_or_else(|e| panic!("{e:#}\n{}", stack.logs()));
    stack.client.wait_presence(PresenceState::Online, WITHIN).await.unwrap();
}

/// Silence is offline after the lease time, not before and not later, whatever the clocks do meanwhile.
async fn silent_is_offline(
    stack: &mut Stack,
    feeder: &str,
    server: (&WallClock, i64),
    agent: (&WallClock, i64),
) {
    let request = stack.client.portion_request(feeder, 2_000).await.unwrap();
    let ask = || async {
        let mut request = request.clone();
        request.validate_only = true;
        request.request_id = request_id();
        stack.client.feeders.clone().update_feeder_config(request).await
    };
    stack.agent.as_ref().unwrap().signal(Signal::STOP).unwrap();
    let stopped = Instant::now();
    server.0.set(server.1).unwrap();
    assert!(ask().await.is_ok(), "refused before the lease's end");
    let refused = wait_for("refused as offline", TTL + Duration::from_secs(3), || async {
        match ask().await {
            Err(status) if reason(&status) == "AGENT_OFFLINE" => Ok(()),
            Err(status) if reason(&status) == "AGENT_MOVING" => Err("moving"),
            Err(status) => panic!("{status:?}"),
            Ok(_) => {
                assert!(stopped.elapsed() < TTL, "accepted after the last possible frame");
                Err("accepted")
            }
        }
    });
    refused.await.unwrap();
    stack.client.wait_presence(PresenceState::Offline, Duration::from_secs(1)).await.unwrap();
    server.0.set(server.1 + DAY).unwrap();
    agent.0.set(agent.1 - DAY).unwrap();
    assert!(ask().await.is_err(), "a clock that was set brought the lease back");
    stack.agent.as_ref().unwrap().signal(Signal::CONT).unwrap();
    agent.0.set(agent.1).unwrap();
    stack.client.wait_presence(PresenceState::Online, WITHIN).await.unwrap();
    stack.ready().await.unwrap();
}

/// Accepted at this instant? Stores nothing.
async fn accepted(stack: &Stack, feeder: &str) -> Result<(), Status> {
    let mut request = stack.client.portion_request(feeder, 2_000).await?;
    request.validate_only = true;
    stack.client.feeders.clone().update_feeder_config(request).await.map(drop)
}

async fn key_exists(redis: &Redis) -> bool {
    redis.cli(&["exists", KEY]).await.unwrap() == "1"
}

/// The same over Redis, whose keys expire by the wall clock: one that is set forward loses them, and
/// one that is set back keeps them for a day. The key is necessary and not enough.
#[tokio::test]
async fn p1_a_redis_whose_clock_is_set_opens_no_gate() {
    let dir = tempfile::tempdir().unwrap();
    let clock = WallClock::new(dir.path(), "redis").await.unwrap();
    let redis = Redis::start_with(&clock.env()).await.unwrap();
    let url = redis.url();
    let args = ["--lease-ttl", "4s", "--heartbeat-interval", "1s", "--redis-url", &url];
    let mut stack = Stack::builder().server_args(&args).start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let epoch = stack.client.farm().await.unwrap().server_time.unwrap().seconds;

    clock.set(DAY).unwrap();
    let now = redis.cli(&["time"]).await.unwrap();
    let now: i64 = now.lines().next().unwrap().parse().unwrap();
    assert!((now - epoch - DAY).abs() < 60, "Redis's clock did not move");
    // The next beat sets the key anew: nobody is offline for longer.
    stack.client.wait_presence(PresenceState::Online, WITHIN).await.unwrap();
    wait_for("changes pass", WITHIN, || accepted(&stack, &feeder)).await.unwrap();
    all_is_well(&stack, &feeder, 1_600).await;

    // The server stands still and the agent ends its beats meanwhile; Redis's clock goes back.
    stack.server().unwrap().signal(Signal::STOP).unwrap();
    stack.agent().unwrap().signal(Signal::STOP).unwrap();
    clock.set(-DAY).unwrap();
    tokio::time::sleep(TTL + Duration::from_secs(1)).await;
    assert!(key_exists(&redis).await, "a key that expires by a clock that went back");
    stack.server().unwrap().signal(Signal::CONT).unwrap();
    let refused = wait_for("refused as offline", Duration::from_secs(3), || async {
        match accepted(&stack, &feeder).await {
            Err(status) if reason(&status) == "AGENT_OFFLINE" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    refused.await.unwrap_or_else(|e| panic!("{e:#}\n{}", stack.logs()));
    stack.client.wait_presence(PresenceState::Offline, Duration::from_secs(1)).await.unwrap();
    stack.agent().unwrap().signal(Signal::CONT).unwrap();
    stack.client.wait_presence(PresenceState::Online, WITHIN).await.unwrap();
    stack.ready().await.unwrap();
    all_is_well(&stack, &feeder, 1_650).await;

    // The agent stands still alone.
    stack.agent().unwrap().signal(Signal::STOP).unwrap();
    let refused = wait_for("refused as offline", TTL + Duration::from_secs(3), || async {
        match accepted(&stack, &feeder).await {
            Err(status) if reason(&status) == "AGENT_OFFLINE" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    refused.await.unwrap_or_else(|e| panic!("{e:#}\n{}", stack.logs()));
    stack.agent().unwrap().signal(Signal::CONT).unwrap();
    stack.client.wait_presence(PresenceState::Online, WITHIN).await.unwrap();
    assert_eq!(stack.doses_started().unwrap(), 2);
}

/// The PLC's expiry counts in its uptime: its wall clock changes nothing either.
#[tokio::test]
async fn p7_a_plc_whose_clock_is_set_gives_each_dose_once() {
    let dir = tempfile::tempdir().unwrap();
    let clock = WallClock::new(dir.path(), "plc").await.unwrap();
    let plc = Plc::start_with(&[], &clock.env()).await.unwrap();
    let stack = Stack::builder().farm(example(&plc, "").unwrap()).start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let mut asked = Vec::new();
    for (portion, offset) in [(1_600, DAY), (1_650, -DAY), (1_700, 0)] {
        clock.set(offset).unwrap();
        let dose = stack.client.feed_now(&feeder, 100).await.unwrap();
        let dose = stack.client.wait_settled(&dose.name, WITHIN).await.unwrap();
        assert_eq!(dose.state(), CommandState::Applied, "{dose:?}\n{}", stack.logs());
        let config = stack.client.set_portion(&feeder, portion).await.unwrap();
        assert_eq!(config.state(), CommandState::Applied, "{config:?}\n{}", stack.logs());
        asked.push(token(&dose.name));
    }
    let ledger = plc.ledger().unwrap();
    for token in asked {
        let token = serde_json::json!(token);
        let starts = ledger.iter().filter(|l| l["kind"] == "start" && l["token"] == token);
        assert_eq!(starts.count(), 1, "{ledger:?}");
    }
}
