//! P1 and P10: a farm that is not provably alive is refused at once, and shown so.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use pasamanos_proto::pb::{self, CommandState, FeederState, PresenceState};
use pasamanos_tests::client::{expect, reason};
use pasamanos_tests::{Redis, Stack, wait_for};
use rustix::process::Signal;
use tokio::time::Instant;
use tonic::{Code, Status};

/// Everything that a refusal must leave as it was.
async fn digest(stack: &Stack, feeder: &str) -> (Vec<pb::Command>, String, usize) {
    let commands = stack.client.commands().await.unwrap();
    let etag = stack.client.feeder(feeder).await.unwrap().etag;
    (commands, etag, stack.doses_started().unwrap())
}

/// Freezes the agent and asks every 100 ms: how long after the signal was the first refusal?
async fn frozen_is_refused(stack: &mut Stack, ttl: Duration) -> anyhow::Result<()> {
    let feeder = stack.first_feeder().await?;
    let request = stack.client.portion_request(&feeder, 1_600).await?;
    // Only checked, never accepted: an accepted one would wait for the frozen agent.
    let ask = || {
        let mut client = stack.client.feeders.clone();
        let mut request = request.clone();
        request.validate_only = true;
        request.request_id = pasamanos_tests::client::request_id();
        async move { client.update_feeder_config(request).await }
    };
    stack.agent.as_ref().unwrap().signal(Signal::STOP)?;
    let stopped = Instant::now();
    // Once its stream is known to be dead and its lease still runs it is "moving" (RULES 2.3): also a
    // refusal. From the lease's end on it is offline.
    wait_for("refused as offline", ttl + Duration::from_secs(3), || async {
        let asked = stopped.elapsed();
        match ask().await {
            Err(status) if reason(&status) == "AGENT_OFFLINE" => {
                assert_eq!(status.code(), Code::FailedPrecondition);
                Ok(())
            }
            Err(status) if reason(&status) == "AGENT_MOVING" => Err("moving"),
            Err(status) => panic!("{status:?}"),
            Ok(_) => {
                assert!(asked < ttl, "accepted {asked:?} after the last possible frame");
                Err("accepted")
            }
        }
    })
    .await?;
    let after = stopped.elapsed();
    assert!(after <= ttl + Duration::from_secs(1), "offline only after {after:?}");

    let farm = stack.client.wait_presence(PresenceState::Offline, Duration::from_secs(1)).await?;
    assert_eq!(farm.feeders[0].status.as_ref().unwrap().state(), FeederState::Unknown);
    let before = digest(stack, &feeder).await;
    let mut real = request.clone();
    real.request_id = pasamanos_tests::client::request_id();
    let answer = stack.client.feeders.clone().update_feeder_config(real).await;
    expect(answer, Code::FailedPrecondition, "AGENT_OFFLINE")?;
    expect(stack.client.feed_now(&feeder, 100).await, Code::FailedPrecondition, "AGENT_OFFLINE")?;
    expect(stack.client.hold(&feeder).await, Code::FailedPrecondition, "AGENT_OFFLINE")?;
    assert_eq!(digest(stack, &feeder).await, before, "a refusal left something behind");
    Ok(())
}

async fn comes_back(stack: &mut Stack) -> anyhow::Result<()> {
    let feeder = stack.first_feeder().await?;
    stack.agent()?.signal(Signal::CONT)?;
    let continued = Instant::now();
    stack.client.wait_presence(PresenceState::Online, Duration::from_secs(10)).await?;
    let dose = wait_for("able to dose", Duration::from_secs(10), || async {
        stack.client.feed_now(&feeder, 100).await
    })
    .await?;
    assert!(continued.elapsed() < Duration::from_secs(10), "{:?}", continued.elapsed());
    let settled = stack.client.wait_settled(&dose.name, Duration::from_secs(10)).await?;
    assert_eq!(settled.state(), CommandState::Applied, "{settled:?}");
    Ok(())
}

#[tokio::test]
async fn p1_a_frozen_agent_is_refused_within_the_lease_time_and_comes_back_by_itself() {
    let mut stack = Stack::builder().start().await.unwrap();
    frozen_is_refused(&mut stack, Duration::from_millis(2_500)).await.unwrap();
    comes_back(&mut stack).await.unwrap();
}

/// The times as shipped, with Redis: the key is seen to go.
#[tokio::test]
async fn p1_the_shipped_times_over_redis() {
    let redis = Redis::start().await.unwrap();
    let url = redis.url();
    let mut stack = Stack::builder().server_args(&["--redis-url", &url]).start().await.unwrap();
    let key = "pasamanos:lease:norte/agent-1";
    let ttl: i64 = redis.cli(&["pttl", key]).await.unwrap().parse().unwrap();
    assert!((15_000..=25_000).contains(&ttl), "{ttl}");
    let value = redis.cli(&["get", key]).await.unwrap();
    assert!(value.starts_with("1/") && value.split('/').count() == 4, "{value}");
    frozen_is_refused(&mut stack, Duration::from_secs(25)).await.unwrap();
    assert_eq!(redis.cli(&["exists", key]).await.unwrap(), "0");
    comes_back(&mut stack).await.unwrap();
}

/// The original protocol: a beat every 20 s under an expiry of 25 s.
#[tokio::test]
async fn p1_the_original_protocol_20_25() {
    let redis = Redis::start().await.unwrap();
    let url = redis.url();
    let args = ["--redis-url", url.as_str(), "--heartbeat-interval", "20s"];
    let mut stack = Stack::builder().server_args(&args).start().await.unwrap();
    // Each beat sets the key to 25 s again: over one interval it is never seen to go.
    let key = "pasamanos:lease:norte/agent-1";
    let started = Instant::now();
    let mut renewed = false;
    let mut last = i64::MAX;
    while started.elapsed() < Duration::from_secs(22) && !renewed {
        let ttl: i64 = redis.cli(&["pttl", key]).await.unwrap().parse().unwrap();
        assert!(ttl > 0, "the key went away under a living agent");
        renewed = ttl > last;
        last = ttl;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(renewed, "no beat renewed the key");
    frozen_is_refused(&mut stack, Duration::from_secs(25)).await.unwrap();
}

#[tokio::test]
async fn p10_a_terminated_agent_is_offline_at_once() {
    let mut stack = Stack::builder().server_args(&[]).start().await.unwrap();
    let status = stack.agent().unwrap().terminate(Duration::from_secs(25)).await.unwrap();
    assert!(status.success(), "{status}");
    stack.client.wait_presence(PresenceState::Offline, Duration::from_secs(1)).await.unwrap();
    stack.start_agent().unwrap();
    stack.ready().await.unwrap();
}

#[tokio::test]
async fn p1_redis_killed_refuses_changes_within_2_s_and_reads_go_on() {
    let mut redis = Redis::start().await.unwrap();
    let url = redis.url();
    let stack = Stack::builder().server_arg(&["--redis-url", &url]).start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    redis.kill().await.unwrap();
    let asked = Instant::now();
    let answer = stack.client.set_portion(&feeder, 1_600).await;
    expect(answer, Code::Unavailable, "LEASE_STORE_UNREACHABLE").unwrap();
    assert!(asked.elapsed() < Duration::from_millis(2_500), "{:?}", asked.elapsed());
    // Reads answer; presence is unknown, not a guess.
    stack.client.wait_presence(PresenceState::Unknown, Duration::from_secs(3)).await.unwrap();
    assert_eq!(stack.client.commands().await.unwrap(), []);
    // A farm that is heard can be stopped without the lease store (RULES 5.5).
    let held = stack.client.hold(&feeder).await.unwrap();
    assert_eq!(held.state(), CommandState::Applied);

    redis.restart().await.unwrap();
    stack.client.wait_presence(PresenceState::Online, Duration::from_secs(5)).await.unwrap();
    let resumed = wait_for("changes pass again", Duration::from_secs(5), || async {
        stack.client.resume(&feeder).await
    })
    .await
    .unwrap();
    assert_eq!(resumed.state(), CommandState::Applied);
}

#[tokio::test]
async fn p1_a_lost_key_refuses_until_the_next_beat() {
    let redis = Redis::start().await.unwrap();
    let url = redis.url();
    let stack = Stack::builder().server_arg(&["--redis-url", &url]).start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    redis.cli(&["flushall"]).await.unwrap();
    // Either the key is gone and it is refused, or a beat came in between and it is applied.
    let applied = wait_for("applied after a flush", Duration::from_secs(5), || async {
        let answer = stack.client.set_portion(&feeder, 1_600).await;
        if let Err(status) = &answer {
            assert!(
                ["AGENT_OFFLINE", "AGENT_MOVING"].contains(&reason(status).as_str()),
                "{status:?}"
            );
        }
        answer
    })
    .await
    .unwrap();
    assert_eq!(applied.state(), CommandState::Applied);
}

#[tokio::test]
async fn p10_an_agent_that_never_came_is_never_seen() {
    let mut stack = Stack::builder().start().await.unwrap();
    stack.admin(&["agent", "add", "farms/norte/agents/agent-2"]).await.unwrap();
    stack.server().unwrap().kill().await.unwrap();
    stack.start_server().await.unwrap();
    let farm = stack.client.farm().await.unwrap();
    let presence = |name: &str| {
        let name = format!("farms/norte/agents/{name}");
        farm.agents.iter().find(|a| a.name == name).map(pb::Agent::presence)
    };
    assert_eq!(presence("agent-2"), Some(PresenceState::NeverSeen));
    assert_ne!(presence("agent-1"), Some(PresenceState::NeverSeen), "it was here before");
    let answer: Result<pb::Feeder, Status> = stack.client.feeder("nosuch").await;
    expect(answer, Code::NotFound, "NOT_FOUND").unwrap();
}
