//! The same path against a real OPC UA server that is not ours, in both profiles. Its ledger, and an
//! independent OPC UA client, are the ground truth.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use pasamanos_proto::pb::{self, CommandState, ConfigAuthor, FeederState, watch_farm_response};
use pasamanos_tests::client::{FARM, expect, reason, request_id};
use pasamanos_tests::plc::example;
use pasamanos_tests::{Plc, Stack, wait_for};
use rustix::process::Signal;
use serde_json::json;
use tonic::{Code, Status};

const WITHIN: Duration = Duration::from_secs(15);

async fn stack(plc: &Plc) -> Stack {
    Stack::builder().farm(example(plc, "").unwrap()).start().await.unwrap()
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

/// RULES 5.3: plain tags of a PLC that neither weighs nor counts. What ran whole counts as asked; what a
/// power cut ended nobody knows.
#[tokio::test]
async fn p2_a_dose_that_a_power_cut_ended_and_nobody_measured_is_in_doubt() {
    let mut plc = Plc::start(&[]).await.unwrap();
    let measure =
        |line: &&str| !line.starts_with("dose_dispensed =") && !line.starts_with("total =");
    let farm: Vec<_> =
        example(&plc, "").unwrap().lines().filter(measure).map(str::to_owned).collect();
    let stack = Stack::builder().farm(farm.join("\n")).start().await.unwrap();
    let whole = stack.client.feed_now("pond-1", 200).await.unwrap();
    let whole = stack.client.wait_settled(&whole.name, WITHIN).await.unwrap();
    assert_eq!(whole.state(), CommandState::Applied, "{whole:?}\n{}", stack.logs());
    assert_eq!((whole.dispensed_mg, whole.basis()), (Some(200), pb::AmountBasis::Assumed));

    let request = pb::FeedNowRequest {
        name: "farms/norte/feeders/pond-1".into(),
        portion_mg: Some(5_000),
        request_id: pasamanos_tests::client::request_id(),
        ..Default::default()
    };
    let name = format!("farms/norte/commands/{}", request.request_id);
    let mut asked = tonic::Request::new(request);
    asked.set_timeout(Duration::from_secs(5));
    let mut feeders = stack.client.feeders.clone();
    let cut = async {
        let turns = wait_for("the motor turns", WITHIN, || async {
            if commanded(&plc) == 2 { Ok(()) } else { Err(Status::unavailable("waiting")) }
        });
        turns.await.unwrap();
        plc.kill().await.unwrap();
        plc.restart().await.unwrap();
    };
    let (_, ()) = tokio::join!(feeders.feed_now(asked), cut);
    let doubt = wait_for("in doubt", Duration::from_mins(1), || async {
        let command = stack.client.command(&name).await?;
        match command.state() {
            CommandState::Uncertain if command.dispensed_mg.is_some() => Ok(command),
            CommandState::Accepted
            | CommandState::Sent
            | CommandState::Executing
            | CommandState::Uncertain => Err(Status::unavailable(format!("{command:?}"))),
            state => panic!("{state:?}: {command:?}\n{}", stack.logs()),
        }
    });
    let doubt = doubt.await.unwrap_or_else(|e| panic!("{e}\n{}", stack.logs()));
    assert_eq!((doubt.dispensed_mg, doubt.basis()), (Some(5_000), pb::AmountBasis::Assumed));
    let again = stack.client.feed_now("pond-1", 200).await.unwrap_err();
    assert_eq!(reason(&again), "DOSE_UNSETTLED", "{again:?}");
    assert_eq!(commanded(&plc), 2);
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

/// A program at the farm writes its own values back hours after "applied": both versions are shown.
#[tokio::test]
async fn p6_a_change_that_the_farm_undoes_is_told_with_both_versions() {
    let plc = Plc::start(&[]).await.unwrap();
    let stack = stack(&plc).await;
    for feeder in ["feeder-r1", "pond-1"] {
        let command = stack.client.set_portion(feeder, 1_600).await.unwrap();
        assert_eq!(command.state(), CommandState::Applied, "{command:?}");
        assert_eq!(stack.client.feeder(feeder).await.unwrap().config_reversion, None);
        let versions = stack.client.versions(feeder).await.unwrap();
        let before = versions[1].config.clone().unwrap().portion_mg.unwrap();
        if feeder == "pond-1" {
            plc.opc(&["write", "F01.Portion", "Double", &format!("{}", f64::from(before) / 1e3)])
                .await
                .unwrap();
        } else {
            let edit = json!({"op": "edit_config", "feeder": "R01", "portion_mg": before});
            plc.control(edit).await.unwrap();
        }
        let now = stack
            .client
            .wait_feeder(feeder, "put back at the farm", WITHIN, |f| f.config_version == 3)
            .await
            .unwrap();
        let undone = pb::ConfigReversion {
            restored_version: 1,
            displaced_version: 2,
            displaced_command: command.name,
        };
        assert_eq!(now.config_reversion.as_ref(), Some(&undone), "{feeder}");
        let versions = stack.client.versions(feeder).await.unwrap();
        assert_eq!((versions[0].author(), versions[0].number), (ConfigAuthor::Farm, 3));
        assert_eq!(versions[0].reversion.as_ref(), Some(&undone));
        assert!(versions[1..].iter().all(|v| v.reversion.is_none()));
        // The next change starts from what is in force, and is no reversal.
        let command = stack.client.set_portion(feeder, 1_600).await.unwrap();
        assert_eq!(command.state(), CommandState::Applied, "{command:?}");
        assert_eq!(stack.client.feeder(feeder).await.unwrap().config_reversion, None);
    }
}

/// RULES 6.4: where the tag map says that a hold restarts the interval, the preview says where the next meal
/// moves, before anything is done.
#[tokio::test]
async fn p10_the_preview_says_where_a_hold_moves_the_next_meal() {
    let plc = Plc::start(&[]).await.unwrap();
    let dwell = "dwell = \"300ms\"";
    let farm = example(&plc, "").unwrap();
    let farm = farm.replacen(dwell, &format!("hold_restarts_interval = true\n{dwell}"), 1);
    let stack = Stack::builder().farm(farm).start().await.unwrap();
    let client = &stack.client;
    let restarts = i32::from(pb::PreviewWarning::IntervalRestarts);
    let in_s = async |preview: &pb::Preview| {
        let now = client.farm().await.unwrap().server_time.unwrap().seconds;
        preview.next_dose_time.map(|t| t.seconds - now)
    };
    for (feeder, held) in [("pond-1", true), ("feeder-r1", false)] {
        let mut request = client.portion_request(feeder, 1_600).await.unwrap();
        request.validate_only = true;
        let ask = |r: &pb::UpdateFeederConfigRequest| {
            let (mut feeders, r) = (client.feeders.clone(), r.clone());
            async move { feeders.update_feeder_config(r).await.unwrap().into_inner().preview.unwrap() }
        };
        let one = ask(&request).await;
        assert!(!one.warnings.contains(&restarts), "one tag needs no hold: {one:?}");
        let config = request.config.as_mut().unwrap();
        config.interval = Some(prost_types::Duration { seconds: 7_200, nanos: 0 });
        request.update_mask.as_mut().unwrap().paths.push("interval".into());
        let two = ask(&request).await;
        assert_eq!(two.warnings.contains(&restarts), held, "{feeder}: {two:?}");
        if held {
            let next = in_s(&two).await.unwrap();
            assert!((7_100..=7_200).contains(&next), "{next}: {two:?}");
        }
    }
    let interval = client.feeder("pond-1").await.unwrap().config.unwrap().interval.unwrap().seconds;
    client.hold("pond-1").await.unwrap();
    let name = format!("{FARM}/feeders/pond-1");
    client
        .wait_feeder("pond-1", "held", WITHIN, |f| {
            f.status.as_ref().is_some_and(|s| !s.holds.is_empty())
        })
        .await
        .unwrap();
    let request = pb::ResumeFeederRequest {
        name,
        request_id: request_id(),
        validate_only: true,
        ..Default::default()
    };
    let resume = client.feeders.clone().resume_feeder(request).await.unwrap();
    let preview = resume.into_inner().preview.unwrap();
    assert_eq!(preview.warnings, [restarts], "{preview:?}");
    let next = in_s(&preview).await.unwrap();
    assert!((interval - 100..=interval).contains(&next), "{next}: {preview:?}");
}

/// What a PLC comes up with after it lost its memory is what ran before "applied": the history says that
/// nobody set it, and calls nobody to account for undoing it.
#[tokio::test]
async fn p6_what_a_plc_came_up_with_after_it_lost_its_memory_is_nobodys() {
    let plc = Plc::start(&[]).await.unwrap();
    let stack = stack(&plc).await;
    let before = stack.client.feeder("feeder-r1").await.unwrap().config.unwrap().portion_mg;
    let command = stack.client.set_portion("feeder-r1", 1_600).await.unwrap();
    assert_eq!(command.state(), CommandState::Applied, "{command:?}");
    plc.control(json!({"op": "lose_memory"})).await.unwrap();
    let held = |f: &pb::Feeder| {
        let holds = f.status.iter().flat_map(|s| &s.holds);
        holds.into_iter().any(|h| h.source() == pb::HoldSource::PlcMemoryLost)
    };
    let now = stack
        .client
        .wait_feeder("feeder-r1", "held", WITHIN, |f| f.config_version == 3 && held(f))
        .await
        .unwrap();
    assert_eq!((now.config.unwrap().portion_mg, now.config_reversion), (before, None));
    let versions = stack.client.versions("feeder-r1").await.unwrap();
    assert_eq!(versions[0].author(), ConfigAuthor::PlcMemoryLost);
    // A person confirms a config: it is that person's, and the hold goes.
    let command = stack.client.set_portion("feeder-r1", 1_600).await.unwrap();
    assert_eq!(command.state(), CommandState::Applied, "{command:?}");
    stack.client.wait_feeder("feeder-r1", "free", WITHIN, |f| !held(f)).await.unwrap();
    let versions = stack.client.versions("feeder-r1").await.unwrap();
    assert_eq!((versions[0].number, versions[0].author()), (4, ConfigAuthor::Command));
}

/// RULES 6.6: a PLC without an alive tag proves a read-back by its own source timestamps, where the tag map
/// says that they are its own; without either its life is shown as not proven.
#[tokio::test]
async fn p2_a_plc_without_an_alive_tag_proves_a_read_back_by_its_own_timestamps() {
    let plc = Plc::start(&[]).await.unwrap();
    let alive = |line: &&str| !line.starts_with("alive =");
    let farm: Vec<_> =
        example(&plc, "").unwrap().lines().filter(alive).map(str::to_owned).collect();
    let blind = farm.join("\n");
    let stamped = blind.replace("node = \"F{n:02}\"", "node = \"F{n:02}\"\nsource_time = \"plc\"");
    assert_ne!(stamped, blind);
    let life_proven = async |stack: &Stack| {
        let status = stack.client.farm().await.unwrap();
        status
            .robots
            .iter()
            .find(|r| r.name.ends_with("/pond-robot-1"))
            .unwrap()
            .link
            .as_ref()
            .unwrap()
            .life_proven
    };
    let stack = Stack::builder().farm(stamped).start().await.unwrap();
    assert!(life_proven(&stack).await);
    let taken = stack.client.set_portion("pond-1", 1_600).await.unwrap();
    assert_eq!(taken.state(), CommandState::Applied, "{taken:?}\n{}", stack.logs());
    // Its program stands still: what is written shows in its server, and nobody took it.
    plc.control(json!({"op": "freeze", "on": true})).await.unwrap();
    let doubt = stack.client.set_portion("pond-1", 1_700).await.unwrap();
    let told = (doubt.state(), doubt.reason.as_str());
    assert_eq!(
        told,
        (CommandState::Uncertain, "READBACK_NOT_PROVEN"),
        "{doubt:?}\n{}",
        stack.logs()
    );
    plc.control(json!({"op": "freeze", "on": false})).await.unwrap();
    wait_for("applied, late", WITHIN, || async {
        let command = stack.client.command(&doubt.name).await?;
        match command.state() {
            CommandState::Applied => Ok(()),
            state => Err(Status::unavailable(format!("{state:?}"))),
        }
    })
    .await
    .unwrap_or_else(|e| panic!("{e}\n{}", stack.logs()));
    drop(stack);
    let stack = Stack::builder().farm(blind).start().await.unwrap();
    assert!(!life_proven(&stack).await, "neither an alive tag nor a clock");
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

/// RULES 5.8: a probe that died goes on showing its last value, and everything about it is good.
#[tokio::test]
async fn p8_an_oxygen_probe_that_stands_still_inhibits_doses_until_it_moves() {
    let plc = Plc::start(&[]).await.unwrap();
    let edit = json!({"op": "edit_config", "feeder": "R01", "min_do_ug_per_l": 4_000});
    plc.control(edit).await.unwrap();
    let farm = example(&plc, "").unwrap();
    let probed = farm.replace("frozen_after = \"1h\"", "frozen_after = \"5s\"");
    assert_ne!(probed, farm);
    let stack = Stack::builder().farm(probed).start().await.unwrap();
    let oxygen = async |quality: pb::Quality| {
        wait_for(&format!("{quality:?}"), WITHIN, || async {
            let status = stack.client.farm().await?;
            let tank = status.tanks.iter().find(|t| t.name.ends_with("/tank-r1"));
            let kind = pb::ReadingKind::DissolvedOxygenUgPerL;
            let reading = tank.and_then(|t| t.readings.iter().find(|r| r.kind() == kind));
            match reading {
                Some(r) if r.quality() == quality => Ok(()),
                other => Err(Status::unavailable(format!("{other:?}"))),
            }
        })
        .await
        .unwrap_or_else(|e| panic!("{e}\n{}", stack.logs()));
    };
    oxygen(pb::Quality::Stale).await;
    let refused = stack.client.feed_now("feeder-r1", 100).await;
    let why = refused.map_or_else(|e| reason(&e), |command| command.reason);
    assert_eq!(why, "INTERLOCK", "{}", stack.logs());
    assert_eq!(commanded(&plc), 0);
    let mut moves = 0;
    wait_for("a dose once it moves", WITHIN, || {
        moves += 1;
        let value = 8.2 + f64::from(moves) / 1e6;
        let moved = json!({"op": "set", "tag": "R01.Oxygen", "value": value});
        let (plc, stack) = (&plc, &stack);
        async move {
            plc.control(moved).await.unwrap();
            stack.client.feed_now("feeder-r1", 100).await
        }
    })
    .await
    .unwrap_or_else(|e| panic!("{e}\n{}", stack.logs()));
}

/// The fact that rules the drivers: a write that timed out is executed later.
#[tokio::test]
async fn p3_a_dose_in_a_frozen_plc_is_never_given_twice_nor_called_wrong() {
    let plc = Plc::start(&[]).await.unwrap();
    let stack = Stack::builder()
        .farm(example(&plc, "").unwrap())
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
    let mut stack = Stack::builder().farm(example(&plc, &logon).unwrap()).start().await.unwrap();
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

/// So slow that what shows sooner was told by the PLC.
const SLOW_POLL: Duration = Duration::from_secs(10);

/// Edits made at the farm one after the other, in both profiles, each as soon as `WatchFarm` showed the
/// one before: by the poll alone n of them take at least n - 1 polls. Answers how long they took.
async fn edits_at_the_farm(plc: &Plc, stack: &Stack, portions: &[i32]) -> Duration {
    let began = tokio::time::Instant::now();
    let request = pb::WatchFarmRequest { name: "farms/norte".into() };
    let mut watch = stack.client.status.clone().watch_farm(request).await.unwrap().into_inner();
    for portion_mg in portions {
        for feeder in ["R01", "F01"] {
            let edit = json!({"op": "edit_config", "feeder": feeder, "portion_mg": portion_mg});
            plc.control(edit).await.unwrap();
        }
        let mut open = vec!["farms/norte/feeders/feeder-r1", "farms/norte/feeders/pond-1"];
        while !open.is_empty() {
            let next = tokio::time::timeout(SLOW_POLL * 3, watch.message()).await;
            let event = next.unwrap_or_else(|_| panic!("{open:?}\n{}", stack.logs()));
            let feeders = match event.unwrap().unwrap().event.unwrap() {
                watch_farm_response::Event::Snapshot(farm) => farm.feeders,
                watch_farm_response::Event::Change(change) => change.feeders,
                watch_farm_response::Event::Keepalive(_) => continue,
            };
            for f in feeders {
                if f.config.as_ref().and_then(|c| c.portion_mg) == Some(*portion_mg) {
                    open.retain(|name| *name != f.name);
                }
            }
        }
    }
    began.elapsed()
}

async fn polled_every(plc: &Plc, poll: Duration) -> Stack {
    let poll = format!("poll = \"{}ms\"", poll.as_millis());
    let farm = example(plc, "").unwrap().replace("poll = \"250ms\"", &poll);
    assert!(farm.contains(&poll));
    Stack::builder().farm(farm).start().await.unwrap()
}

#[tokio::test]
async fn p10_a_change_at_the_farm_is_told_by_the_plc_before_its_poll_and_after_a_restart() {
    let mut plc = Plc::start(&[]).await.unwrap();
    let stack = polled_every(&plc, SLOW_POLL).await;
    let took = edits_at_the_farm(&plc, &stack, &[2_010, 2_020, 2_030, 2_040]).await;
    assert!(took < SLOW_POLL * 2, "{took:?}\n{}", stack.logs());

    plc.kill().await.unwrap();
    let is = |state| move |f: &pb::Feeder| f.status.as_ref().is_some_and(|s| s.state() == state);
    let within = Duration::from_secs(90);
    stack
        .client
        .wait_feeder("feeder-r1", "unknown", within, is(FeederState::Unknown))
        .await
        .unwrap();
    plc.restart().await.unwrap();
    stack.client.wait_feeder("feeder-r1", "ready", within, is(FeederState::Ready)).await.unwrap();
    let took = edits_at_the_farm(&plc, &stack, &[2_110, 2_120, 2_130, 2_140]).await;
    assert!(took < SLOW_POLL * 2, "{took:?}\n{}", stack.logs());
}

#[tokio::test]
async fn p10_a_plc_that_refuses_limits_or_forgets_a_subscription_is_polled() {
    let plc = Plc::start(&[]).await.unwrap();
    plc.control(json!({"op": "subscriptions", "refuse": true})).await.unwrap();
    let mut stack = polled_every(&plc, Duration::from_millis(500)).await;
    edits_at_the_farm(&plc, &stack, &[2_010, 2_020]).await;
    assert_eq!(stack.agent().unwrap().log().matches("plc.not_subscribed").count(), 1);

    // Of the next agent it watches two tags, publishes seldom, and then says nothing more.
    let few = json!({"op": "subscriptions", "max_items": 2, "slowest_ms": 700});
    plc.control(few).await.unwrap();
    stack.agent().unwrap().terminate(Duration::from_secs(25)).await.unwrap();
    stack.start_agent().unwrap();
    edits_at_the_farm(&plc, &stack, &[2_110, 2_120]).await;
    let log = stack.agent().unwrap().log();
    assert_eq!(log.matches("plc.subscribed_in_part").count(), 1, "{log}");
    let open = plc.control(json!({"op": "subscriptions", "mute": true})).await.unwrap();
    assert_eq!(open["open"], json!(1), "one subscription per session");
    edits_at_the_farm(&plc, &stack, &[2_210, 2_220]).await;
    let applied = stack.client.set_portion("feeder-r1", 1_600).await.unwrap();
    assert_eq!(applied.state(), CommandState::Applied, "{applied:?}");
}

/// A server that says nothing more is subscribed anew, without losing the connection.
#[tokio::test]
async fn a_silent_subscription_is_made_again() {
    let plc = Plc::start(&[]).await.unwrap();
    let mut stack = polled_every(&plc, SLOW_POLL).await;
    plc.control(json!({"op": "subscriptions", "mute": true})).await.unwrap();
    let agent = stack.agent().unwrap();
    let says = |agent: &pasamanos_tests::Process, what: &str, times: usize| {
        let found = agent.log().matches(what).count();
        if found >= times { Ok(()) } else { Err(format!("{found} of {what}\n{}", agent.log())) }
    };
    let within = Duration::from_mins(1);
    wait_for("silence is noticed", within, || async { says(agent, "subscription_silent", 1) })
        .await
        .unwrap();
    plc.control(json!({"op": "subscriptions"})).await.unwrap();
    wait_for("subscribed again", within, || async { says(agent, "plc.subscribed", 2) })
        .await
        .unwrap();
    assert_eq!(agent.log().matches("plc.connected").count(), 1, "{}", agent.log());
    let took = edits_at_the_farm(&plc, &stack, &[2_010, 2_020, 2_030, 2_040]).await;
    assert!(took < SLOW_POLL * 2, "{took:?}\n{}", stack.logs());
}
