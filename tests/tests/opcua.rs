//! The same path against a real OPC UA server that is not ours, in both profiles. Its ledger, and an
//! independent OPC UA client, are the ground truth.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use pasamanos_proto::pb::{self, CommandState, ConfigAuthor, FeederState};
use pasamanos_tests::client::{expect, reason};
use pasamanos_tests::{Plc, Stack, paths, wait_for};
use rustix::process::Signal;
use serde_json::json;
use tonic::{Code, Status};

const WITHIN: Duration = Duration::from_secs(15);

/// The example configuration that we ship, with this PLC's address and leave to write.
fn example(plc: &Plc, extra: &str) -> String {
    let text = std::fs::read_to_string(paths::root().join("config/agent.example.toml")).unwrap();
    let own = |line: &&str| {
        !["server =", "agent =", "data_dir ="].iter().any(|key| line.starts_with(key))
    };
    let text: Vec<_> = text.lines().filter(own).collect();
    text.join("\n")
        .replace("opc.tcp://127.0.0.1:4840/feedlab", &plc.endpoint())
        .replace("access = \"read_only\"", &format!("access = \"read_write\"\n{extra}"))
}

async fn stack(plc: &Plc) -> Stack {
    Stack::builder().farm(example(plc, "")).start().await.unwrap()
}

fn commanded(plc: &Plc) -> usize {
    let ledger = plc.ledger().unwrap();
    ledger.iter().filter(|l| l["cause"] == "COMMAND" && l["kind"] == "start").count()
}

#[tokio::test]
async fn p2_a_portion_reaches_the_plc_in_both_profiles() {
    let plc = Plc::start(&[]).await.unwrap();
    let stack = stack(&plc).await;
    let block = stack.client.set_portion("feeder-r1", 1_600).await.unwrap();
    assert_eq!(block.state(), CommandState::Applied, "{block:?}\n{}", stack.logs());
    assert_eq!(plc.opc(&["cfg", "R01"]).await.unwrap()["portion_mg"], json!(1_600));
    let scalar = stack.client.set_portion("pond-1", 1_600).await.unwrap();
    assert_eq!(scalar.state(), CommandState::Applied, "{scalar:?}\n{}", stack.logs());
    let read = plc.opc(&["read", "F01.Portion"]).await.unwrap();
    assert!(read.to_string().contains("1.6"), "{read}");
}

#[tokio::test]
async fn p3_feed_now_doses_once_in_both_profiles_and_the_totaliser_agrees() {
    let plc = Plc::start(&[]).await.unwrap();
    let stack = stack(&plc).await;
    for (n, feeder) in ["feeder-r2", "pond-2"].into_iter().enumerate() {
        let total =
            |f: &pb::Feeder| f.status.as_ref().and_then(|s| s.total_dispensed_mg).unwrap_or(0);
        let before = total(&stack.client.feeder(feeder).await.unwrap());
        let command = stack.client.feed_now(feeder, 200).await.unwrap();
        let command = stack.client.wait_settled(&command.name, WITHIN).await.unwrap();
        assert_eq!(command.state(), CommandState::Applied, "{command:?}\n{}", stack.logs());
        assert_eq!(command.dispensed_mg, Some(200));
        assert_eq!(commanded(&plc), n + 1);
        stack
            .client
            .wait_feeder(feeder, "totaliser", WITHIN, |f| total(f) == before + 200)
            .await
            .unwrap();
        wait_for("in the history", WITHIN, || async {
            let doses = stack.client.doses().await?;
            let dose =
                doses.iter().find(|d| d.command == command.name && d.dispensed_mg == Some(200));
            dose.map(|_| ()).ok_or_else(|| Status::not_found(format!("{doses:?}")))
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn p6_a_change_at_the_farm_becomes_a_version_of_the_farm() {
    let plc = Plc::start(&[]).await.unwrap();
    let stack = stack(&plc).await;
    let stale = stack.client.portion_request("feeder-r1", 1_700).await.unwrap();
    // At the machine's own screen, and by another OPC UA client.
    plc.control(json!({"op": "edit_config", "feeder": "R01", "portion_mg": 2_000})).await.unwrap();
    plc.opc(&["write", "F01.Portion", "Double", "2.0"]).await.unwrap();
    for feeder in ["feeder-r1", "pond-1"] {
        let now = stack
            .client
            .wait_feeder(feeder, "changed at the farm", WITHIN, |f| {
                f.config.as_ref().and_then(|c| c.portion_mg) == Some(2_000)
            })
            .await
            .unwrap();
        let request = pb::ListConfigVersionsRequest { parent: now.name, ..Default::default() };
        let versions = stack.client.feeders.clone().list_config_versions(request).await.unwrap();
        let newest = versions.into_inner().versions.into_iter().next().unwrap();
        assert_eq!((newest.author(), newest.number), (ConfigAuthor::Farm, 2));
    }
    let refused = stack.client.feeders.clone().update_feeder_config(stale).await;
    expect(refused, Code::Aborted, "ETAG_MISMATCH").unwrap();
}

#[tokio::test]
async fn p2_a_value_that_the_plc_puts_back_is_rejected_not_applied() {
    let plc = Plc::start(&[]).await.unwrap();
    let stack = stack(&plc).await;
    plc.control(json!({"op": "lie", "kind": "revert_after_scans", "n": 2, "feeder": "F01"}))
        .await
        .unwrap();
    let command = stack.client.set_portion("pond-1", 1_600).await.unwrap();
    assert_eq!(
        (command.state(), command.reason.as_str()),
        (CommandState::Rejected, "REVERTED_BY_PLC"),
        "{command:?}"
    );
    let now = stack.client.feeder("pond-1").await.unwrap();
    assert_eq!(now.config.unwrap().portion_mg, Some(1_500));
}

#[tokio::test]
async fn p2_a_plc_that_stops_is_told_truthfully_and_comes_back_by_itself() {
    let mut plc = Plc::start(&[]).await.unwrap();
    let stack = stack(&plc).await;
    plc.kill().await.unwrap();
    let config = stack.client.set_portion("feeder-r1", 1_600).await;
    let dose = stack.client.feed_now("feeder-r2", 200).await;
    for answer in [config, dose] {
        match answer {
            Ok(c) => assert!(
                [CommandState::Rejected, CommandState::Uncertain].contains(&c.state()),
                "{c:?}"
            ),
            // What the server knows already it refuses by itself.
            Err(status) => assert_eq!(reason(&status), "PLC_UNREACHABLE", "{status:?}"),
        }
    }
    let is = |state| move |f: &pb::Feeder| f.status.as_ref().is_some_and(|s| s.state() == state);
    stack
        .client
        .wait_feeder("feeder-r1", "unknown", WITHIN, is(FeederState::Unknown))
        .await
        .unwrap();
    plc.restart().await.unwrap();
    let back = Duration::from_secs(90);
    stack.client.wait_feeder("feeder-r1", "ready", back, is(FeederState::Ready)).await.unwrap();
    let applied = wait_for("changes pass again", WITHIN, || async {
        let command = stack.client.set_portion("feeder-r1", 1_600).await?;
        match command.state() {
            CommandState::Applied => Ok(()),
            _ => Err(Status::unavailable(format!("{command:?}"))),
        }
    });
    applied.await.unwrap();
    assert_eq!(commanded(&plc), 0);
}

/// The fact that rules the drivers: a write that timed out is executed later.
#[tokio::test]
async fn p3_a_dose_in_a_frozen_plc_is_never_given_twice_nor_called_wrong() {
    let plc = Plc::start(&[]).await.unwrap();
    let stack = Stack::builder()
        .farm(example(&plc, ""))
        .server_arg(&["--start-limit", "2s"])
        .start()
        .await
        .unwrap();
    plc.signal(Signal::STOP).unwrap();
    let request = pb::FeedNowRequest {
        name: "farms/norte/feeders/feeder-r1".into(),
        portion_mg: Some(200),
        request_id: pasamanos_tests::client::request_id(),
        ..Default::default()
    };
    let name = format!("farms/norte/commands/{}", request.request_id);
    let mut asked = tonic::Request::new(request);
    asked.set_timeout(Duration::from_secs(5));
    let _ = stack.client.feeders.clone().feed_now(asked).await;
    plc.signal(Signal::CONT).unwrap();
    let settled = wait_for("settled from the PLC", Duration::from_mins(1), || async {
        let command = stack.client.command(&name).await?;
        match command.state() {
            CommandState::Uncertain
            | CommandState::Accepted
            | CommandState::Sent
            | CommandState::Executing => {
                Err(Status::unavailable(format!("{:?} {}", command.state(), command.reason)))
            }
            _ => Ok(command),
        }
    })
    .await
    .unwrap_or_else(|e| panic!("{e}\n{}", stack.logs()));
    let given = commanded(&plc);
    match settled.state() {
        CommandState::Applied => assert_eq!(given, 1),
        CommandState::Expired | CommandState::Rejected => assert_eq!(given, 0),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_plc_with_user_and_password_is_reached_and_a_wrong_one_is_a_config_error() {
    let plc = Plc::start(&["--user", "agent", "--password", "s3cret"]).await.unwrap();
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "s3cret\n").unwrap();
    let logon = format!("user = \"agent\"\npassword_file = \"{}\"", secret.path().display());
    let mut stack = Stack::builder().farm(example(&plc, &logon)).start().await.unwrap();
    let applied = stack.client.set_portion("feeder-r1", 1_600).await.unwrap();
    assert_eq!(applied.state(), CommandState::Applied);

    stack.agent().unwrap().terminate(Duration::from_secs(25)).await.unwrap();
    std::fs::write(secret.path(), "wrong\n").unwrap();
    stack.start_agent().unwrap();
    wait_for("a config error", WITHIN, || async {
        let farm = stack.client.farm().await?;
        let wrong = |r: &pb::Robot| {
            r.link.as_ref().is_some_and(|l| l.state() == pb::LinkState::ConfigError)
        };
        if farm.robots.iter().any(wrong) {
            Ok(())
        } else {
            Err(Status::unavailable(format!("{:?}", farm.robots)))
        }
    })
    .await
    .unwrap();
    let log = stack.agent().unwrap().log();
    assert!(!log.contains("s3cret") && !log.contains("wrong\""), "a password in the log");
}
