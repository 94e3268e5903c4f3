//! What dies comes back by itself, and what it left open is settled truthfully.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use pasamanos_proto::pb::{self, CommandState, PresenceState};
use pasamanos_tests::client::{FARM, request_id};
use pasamanos_tests::{Stack, wait_for};
use rustix::process::Signal;
use tonic::Status;

#[tokio::test]
async fn p2_a_server_killed_in_the_middle_of_a_dose_settles_it_by_the_hello() {
    let mut stack = Stack::builder().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    // 5 g at 500 mg/s: ten seconds to be killed in.
    let request = pb::FeedNowRequest {
        name: format!("{FARM}/feeders/{feeder}"),
        portion_mg: Some(2_500),
        request_id: request_id(),
        ..Default::default()
    };
    let name = format!("{FARM}/commands/{}", request.request_id);
    let mut client = stack.client.feeders.clone();
    let call = async { client.feed_now(request).await };
    let kill = async {
        wait_for("the dose runs", Duration::from_secs(10), || async {
            let command = stack.client.command(&name).await?;
            match command.state() {
                CommandState::Executing => Ok(()),
                other => Err(Status::unavailable(format!("{other:?}"))),
            }
        })
        .await
        .unwrap();
        stack.server.as_mut().unwrap().kill().await.unwrap();
    };
    let (answer, ()) = tokio::join!(call, kill);
    assert!(answer.is_err(), "the server died: {answer:?}");

    stack.start_server().await.unwrap();
    let settled = stack.client.wait_settled(&name, Duration::from_secs(30)).await.unwrap();
    // Until the agent tells, it is in doubt; then it is what the PLC did.
    let settled = if settled.state() == CommandState::Uncertain {
        wait_for("the hello settles it", Duration::from_secs(30), || async {
            let command = stack.client.command(&name).await?;
            match command.state() {
                CommandState::Uncertain => Err(Status::unavailable("in doubt")),
                _ => Ok(command),
            }
        })
        .await
        .unwrap()
    } else {
        settled
    };
    assert_eq!(settled.state(), CommandState::Applied, "{settled:?}\n{}", stack.logs());
    assert_eq!(settled.dispensed_mg, Some(2_500));
    assert_eq!(stack.doses_started().unwrap(), 1);
    stack.client.wait_presence(PresenceState::Online, Duration::from_secs(30)).await.unwrap();
}

#[tokio::test]
async fn p7_a_command_whose_start_limit_passed_in_a_frozen_agent_never_starts() {
    let mut stack = Stack::builder()
        .server_args(&["--lease-ttl", "8s", "--heartbeat-interval", "2s", "--start-limit", "1s"])
        .start()
        .await
        .unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let request = pb::FeedNowRequest {
        name: format!("{FARM}/feeders/{feeder}"),
        portion_mg: Some(100),
        request_id: request_id(),
        ..Default::default()
    };
    let name = format!("{FARM}/commands/{}", request.request_id);
    stack.agent().unwrap().signal(Signal::STOP).unwrap();
    let mut client = stack.client.feeders.clone();
    let mut asked = tonic::Request::new(request);
    asked.set_timeout(Duration::from_secs(3));
    let answer = client.feed_now(asked).await;
    assert!(answer.is_err(), "nobody could have dosed: {answer:?}");
    stack.agent().unwrap().signal(Signal::CONT).unwrap();
    let settled = wait_for("settled as not given", Duration::from_secs(30), || async {
        let command = stack.client.command(&name).await?;
        match command.state() {
            CommandState::Expired | CommandState::Rejected => Ok(command),
            other => Err(Status::unavailable(format!("{other:?}"))),
        }
    })
    .await
    .unwrap();
    assert_eq!(settled.state(), CommandState::Expired, "{settled:?}");
    assert_eq!(stack.doses_started().unwrap(), 0, "a dose started after its limit");
}

#[tokio::test]
async fn p3_an_agent_killed_in_the_middle_of_a_dose_never_doses_again() {
    let mut stack = Stack::builder().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let request = pb::FeedNowRequest {
        name: format!("{FARM}/feeders/{feeder}"),
        portion_mg: Some(2_500),
        request_id: request_id(),
        ..Default::default()
    };
    let name = format!("{FARM}/commands/{}", request.request_id);
    let mut client = stack.client.feeders.clone();
    let call = async { client.feed_now(request).await };
    let kill = async {
        wait_for("the dose runs", Duration::from_secs(10), || async {
            let command = stack.client.command(&name).await?;
            match command.state() {
                CommandState::Executing => Ok(()),
                other => Err(Status::unavailable(format!("{other:?}"))),
            }
        })
        .await
        .unwrap();
        // The sim lives in the agent: this is a power cut of the whole farm.
        stack.agent.as_mut().unwrap().kill().await.unwrap();
    };
    let (_, ()) = tokio::join!(call, kill);
    stack.start_agent().unwrap();
    let settled = wait_for("settled by the PLC's memory", Duration::from_secs(30), || async {
        let command = stack.client.command(&name).await?;
        match command.state() {
            CommandState::Partial | CommandState::Applied => Ok(command),
            other => Err(Status::unavailable(format!("{other:?} {}", command.reason))),
        }
    })
    .await
    .unwrap_or_else(|e| panic!("{e}\n{}", stack.logs()));
    assert_eq!(settled.state(), CommandState::Partial, "{settled:?}");
    let fell = settled.dispensed_mg.unwrap();
    assert!((0..2_500).contains(&fell), "{fell}");
    assert_eq!(stack.doses_started().unwrap(), 1);
}

#[tokio::test]
async fn p11_sigterm_ends_the_server_in_time_with_streams_open() {
    let mut stack = Stack::builder().start().await.unwrap();
    let request = pb::WatchFarmRequest { name: FARM.into() };
    let mut watch = stack.client.status.clone().watch_farm(request).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    // A connection that never says a word must not hold it up.
    let _silent = tokio::net::TcpStream::connect(&stack.grpc).await.unwrap();
    let status = stack.server().unwrap().terminate(Duration::from_secs(25)).await.unwrap();
    assert!(status.success(), "{status}");
    let end = loop {
        match watch.message().await {
            Ok(Some(_)) => {}
            Ok(None) => break None,
            Err(status) => break Some(status),
        }
    };
    let end = end.expect("the watch says why it ended");
    assert_eq!(pasamanos_tests::client::reason(&end), "SERVER_STOPPING", "{end:?}");
    // Nobody saw "offline": the agent is back before its lease ends.
    stack.start_server().await.unwrap();
    stack.ready().await.unwrap();
}

#[tokio::test]
async fn p4_the_newer_of_two_sessions_wins_and_the_older_is_told() {
    let mut stack = Stack::builder().start().await.unwrap();
    // A copy of the farm PC: same identity, a disk of its own.
    let copy = stack.dir.path().join("copy");
    let mut command =
        tokio::process::Command::new(pasamanos_tests::paths::binary("pasamanos-agent").unwrap());
    command.arg("--config").arg(stack.agent_toml()).arg("--data-dir").arg(&copy);
    std::fs::create_dir_all(&copy).unwrap();
    let mut clone = pasamanos_tests::Process::start("clone", &mut command, &copy).unwrap();
    wait_for("the older session is told", Duration::from_secs(15), || async {
        let said = "another machine connected as this agent";
        let log = stack.agent.as_ref().unwrap().log();
        if log.contains(said) { Ok(()) } else { Err(log) }
    })
    .await
    .unwrap();
    clone.kill().await.unwrap();
    stack.client.wait_presence(PresenceState::Online, Duration::from_secs(30)).await.unwrap();
    let _ = stack.agent();
}
