//! P2, P5, P6: what a command does, and what a bad one does not.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use pasamanos_proto::pb::{self, CommandState, ConfigAuthor, FeederState};
use pasamanos_tests::client::{FARM, expect, fields, metadata, reason, request_id};
use pasamanos_tests::{Client, Stack, wait_for};
use tonic::{Code, Status};

async fn stack() -> (Stack, Client, String) {
    let stack = Stack::builder().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let client = stack.client.clone();
    (stack, client, feeder)
}

#[tokio::test]
async fn p2_a_portion_is_applied_and_becomes_a_version_of_the_command() {
    let (stack, client, id) = stack().await;
    let before = client.feeder(&id).await.unwrap();
    let portion = before.config.unwrap().portion_mg.unwrap() + 100;
    let command = client.set_portion(&id, portion).await.unwrap();
    assert_eq!(command.state(), CommandState::Applied, "{command:?}\n{}", stack.logs());
    let after = client.feeder(&id).await.unwrap();
    assert_eq!(after.config.unwrap().portion_mg, Some(portion));
    assert_eq!(after.config_version, before.config_version + 1);
    assert_ne!(after.etag, before.etag);
    assert_eq!(after.pending_command, "");
    let request = pb::ListConfigVersionsRequest { parent: after.name, ..Default::default() };
    let versions =
        client.feeders.clone().list_config_versions(request).await.unwrap().into_inner().versions;
    assert_eq!(versions.len(), 2);
    assert_eq!(
        (versions[0].author(), &versions[0].command),
        (ConfigAuthor::Command, &command.name)
    );
    assert_eq!(versions[1].author(), ConfigAuthor::Farm);
}

#[tokio::test]
async fn p3_feed_now_doses_once_and_shows_in_history_and_totaliser() {
    let (stack, client, id) = stack().await;
    let total = |f: &pb::Feeder| f.status.as_ref().and_then(|s| s.total_dispensed_mg);
    let before = total(&client.feeder(&id).await.unwrap()).unwrap();
    let command = client.feed_now(&id, 100).await.unwrap();
    let command = client.wait_settled(&command.name, Duration::from_secs(10)).await.unwrap();
    assert_eq!(command.state(), CommandState::Applied, "{command:?}\n{}", stack.logs());
    assert_eq!(command.dispensed_mg, Some(100));

    let dose = wait_for("the dose is in the history", Duration::from_secs(10), || async {
        let doses = client.doses().await?;
        let dose = doses.into_iter().find(|d| d.command == command.name);
        dose.ok_or_else(|| Status::not_found("not yet"))
    })
    .await
    .unwrap();
    assert_eq!((dose.planned_mg, dose.dispensed_mg), (Some(100), Some(100)));
    assert_eq!(dose.feeder, format!("{FARM}/feeders/{id}"));
    client
        .wait_feeder(&id, "totaliser grew by the dose", Duration::from_secs(5), |f| {
            total(f) == Some(before + 100)
        })
        .await
        .unwrap();
    assert_eq!(stack.doses_started().unwrap(), 1);
}

#[tokio::test]
async fn p5_the_same_request_is_the_same_command_and_another_body_is_refused() {
    let (stack, client, id) = stack().await;
    let request = pb::FeedNowRequest {
        name: format!("{FARM}/feeders/{id}"),
        portion_mg: Some(100),
        request_id: request_id(),
        ..Default::default()
    };
    let first = client.feeders.clone().feed_now(request.clone()).await.unwrap().into_inner();
    let name = first.command.unwrap().name;
    assert_eq!(name, format!("{FARM}/commands/{}", request.request_id));
    client.wait_settled(&name, Duration::from_secs(10)).await.unwrap();
    let repeats = (0..20).map(|_| {
        let (mut client, request) = (client.feeders.clone(), request.clone());
        async move { client.feed_now(request).await }
    });
    let mut set = tokio::task::JoinSet::new();
    repeats.for_each(|r| {
        set.spawn(r);
    });
    while let Some(answer) = set.join_next().await {
        let command = answer.unwrap().unwrap().into_inner().command.unwrap();
        assert_eq!(
            (command.name.as_str(), command.state()),
            (name.as_str(), CommandState::Applied)
        );
    }
    let other = pb::FeedNowRequest { portion_mg: Some(150), ..request.clone() };
    let refused = client.feeders.clone().feed_now(other).await;
    let refused = expect(refused, Code::AlreadyExists, "REQUEST_ID_REUSED").unwrap();
    assert_eq!(metadata(&refused, "command"), Some(name));
    // A known id answers whatever the agent's state.
    let mut stack = stack;
    stack.agent().unwrap().kill().await.unwrap();
    let again = client.feeders.clone().feed_now(request).await.unwrap().into_inner();
    assert_eq!(again.command.unwrap().state(), CommandState::Applied);
    assert_eq!(stack.doses_started().unwrap(), 1);
}

#[tokio::test]
async fn p6_a_stale_etag_is_aborted_with_the_current_config_attached() {
    let (_stack, client, id) = stack().await;
    let stale = client.portion_request(&id, 1_700).await.unwrap();
    client.set_portion(&id, 1_600).await.unwrap();
    let refused = client.feeders.clone().update_feeder_config(stale).await;
    let refused = expect(refused, Code::Aborted, "ETAG_MISMATCH").unwrap();
    let now = client.feeder(&id).await.unwrap();
    assert_eq!(metadata(&refused, "etag"), Some(now.etag.clone()));
    let details = tonic_types::pb::Status::decode_from(&refused);
    let attached =
        details.into_iter().find(|d| d.type_url.ends_with("pasamanos.v1.Feeder")).unwrap();
    let attached: pb::Feeder = prost::Message::decode(&attached.value[..]).unwrap();
    assert_eq!((attached.etag, attached.config), (now.etag, now.config));
}

trait Details {
    fn decode_from(status: &Status) -> Vec<prost_types::Any>;
}

impl Details for tonic_types::pb::Status {
    fn decode_from(status: &Status) -> Vec<prost_types::Any> {
        let decoded: Self = prost::Message::decode(status.details()).unwrap();
        decoded.details
    }
}

#[tokio::test]
async fn p6_two_writers_of_one_version_one_wins() {
    let (_stack, client, id) = stack().await;
    let (a, b) = (
        client.portion_request(&id, 1_600).await.unwrap(),
        client.portion_request(&id, 1_700).await.unwrap(),
    );
    let (mut first, mut second) = (client.feeders.clone(), client.feeders.clone());
    let (a, b) = tokio::join!(first.update_feeder_config(a), second.update_feeder_config(b));
    let (won, lost): (Vec<_>, Vec<_>) = [a, b].into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1, "{lost:?}");
    let lost = lost.into_iter().next().unwrap().unwrap_err();
    assert_eq!(lost.code(), Code::Aborted);
    assert!(["ETAG_MISMATCH", "CONFIG_IN_FLIGHT"].contains(&reason(&lost).as_str()), "{lost:?}");
}

#[tokio::test]
async fn bad_values_get_the_right_code_and_the_field_and_change_nothing() {
    let (_stack, client, id) = stack().await;
    let good = client.portion_request(&id, 1_600).await.unwrap();
    let with = |f: &dyn Fn(&mut pb::UpdateFeederConfigRequest)| {
        let mut request = good.clone();
        f(&mut request);
        request
    };
    let config = |f: &dyn Fn(&mut pb::FeederConfig), path: &str| {
        with(&|r| {
            f(r.config.as_mut().unwrap());
            r.update_mask = Some(prost_types::FieldMask { paths: vec![path.into()] });
        })
    };
    let seconds = |s| Some(prost_types::Duration { seconds: s, nanos: 0 });
    let cases = [
        (config(&|c| c.portion_mg = Some(0), "portion_mg"), "INVALID_FIELD", "config.portion_mg"),
        (config(&|c| c.portion_mg = Some(-5), "portion_mg"), "INVALID_FIELD", "config.portion_mg"),
        (
            config(&|c| c.portion_mg = Some(i32::MAX), "portion_mg"),
            "INVALID_FIELD",
            "config.portion_mg",
        ),
        (
            config(&|c| c.portion_mg = Some(1_633), "portion_mg"),
            "INVALID_FIELD",
            "config.portion_mg",
        ),
        // 150 typed for 1.5.
        (
            config(&|c| c.portion_mg = Some(150_000), "portion_mg"),
            "INVALID_FIELD",
            "config.portion_mg",
        ),
        (config(&|c| c.portion_mg = None, "portion_mg"), "INVALID_FIELD", "config.portion_mg"),
        (config(&|c| c.interval = seconds(1), "interval"), "INVALID_FIELD", "config.interval"),
        (
            config(&|c| c.interval = seconds(i64::MAX), "interval"),
            "INVALID_FIELD",
            "config.interval",
        ),
        (
            config(&|c| c.set_mode(pb::FeederMode::Unspecified), "mode"),
            "INVALID_FIELD",
            "config.mode",
        ),
        (config(&|c| c.mode = 99, "mode"), "INVALID_FIELD", "config.mode"),
        (
            config(
                &|c| c.windows = vec![pb::FeedWindow { start_minute: 60, end_minute: 60 }],
                "windows",
            ),
            "INVALID_FIELD",
            "config.windows[0]",
        ),
        // What the schedule gives in a day must fit the cap.
        (
            config(&|c| c.daily_cap_mg = Some(100), "daily_cap_mg"),
            "INVALID_FIELD",
            "config.daily_cap_mg",
        ),
        (with(&|r| r.request_id.clear()), "REQUEST_ID_REQUIRED", "request_id"),
        (with(&|r| r.request_id = "7".into()), "INVALID_FIELD", "request_id"),
        (with(&|r| r.etag.clear()), "ETAG_REQUIRED", "etag"),
        (with(&|r| r.etag = "\"quoted\"".into()), "INVALID_FIELD", "etag"),
        (with(&|r| r.update_mask = None), "INVALID_FIELD", "update_mask"),
        (
            with(&|r| r.update_mask = Some(prost_types::FieldMask { paths: vec!["state".into()] })),
            "INVALID_FIELD",
            "update_mask",
        ),
        (with(&|r| r.config = None), "INVALID_FIELD", "config"),
        (with(&|r| r.name = "farms/norte".into()), "INVALID_FIELD", "name"),
        (with(&|r| r.note = "x".repeat(201)), "INVALID_FIELD", "note"),
    ];
    let before = client.feeder(&id).await.unwrap().etag;
    for (request, expected, field) in cases {
        let refused = client.feeders.clone().update_feeder_config(request.clone()).await;
        let refused = expect(refused, Code::InvalidArgument, expected)
            .unwrap_or_else(|e| panic!("{request:?}: {e}"));
        assert!(fields(&refused).contains(&field.to_owned()), "{field}: {refused:?}");
    }
    assert_eq!(client.feeder(&id).await.unwrap().etag, before);
    assert_eq!(client.commands().await.unwrap(), []);
    let elsewhere = with(&|r| r.name = "farms/sur/feeders/feeder-a1".into());
    let refused = client.feeders.clone().update_feeder_config(elsewhere).await;
    expect(refused, Code::NotFound, "NOT_FOUND").unwrap();
}

#[tokio::test]
async fn validate_only_answers_a_preview_and_stores_nothing() {
    let (_stack, client, id) = stack().await;
    let mut request = client.portion_request(&id, 1_600).await.unwrap();
    request.validate_only = true;
    let answer = client.feeders.clone().update_feeder_config(request).await.unwrap().into_inner();
    assert!(answer.command.is_none());
    let preview = answer.preview.unwrap();
    assert!(preview.meals_left_today.is_some() && preview.cap_left_mg.is_some(), "{preview:?}");
    assert_eq!(client.commands().await.unwrap(), []);
}

#[tokio::test]
async fn a_hold_stops_doses_until_it_is_resumed() {
    let (_stack, client, id) = stack().await;
    let held = client.hold(&id).await.unwrap();
    assert_eq!(held.state(), CommandState::Applied);
    let is = |state| move |f: &pb::Feeder| f.status.as_ref().is_some_and(|s| s.state() == state);
    let feeder = client
        .wait_feeder(&id, "held", Duration::from_secs(5), is(FeederState::Held))
        .await
        .unwrap();
    assert_eq!(feeder.status.unwrap().holds[0].source(), pb::HoldSource::Operator);
    expect(client.feed_now(&id, 100).await, Code::FailedPrecondition, "FEEDER_HELD").unwrap();
    assert_eq!(client.resume(&id).await.unwrap().state(), CommandState::Applied);
    client.wait_feeder(&id, "ready", Duration::from_secs(5), is(FeederState::Ready)).await.unwrap();
    let fed = client.feed_now(&id, 100).await.unwrap();
    let fed = client.wait_settled(&fed.name, Duration::from_secs(10)).await.unwrap();
    assert_eq!(fed.state(), CommandState::Applied);
}

#[tokio::test]
async fn hold_farm_holds_every_feeder_and_repeats_itself() {
    let (_stack, client, _) = stack().await;
    let request =
        pb::HoldFarmRequest { name: FARM.into(), request_id: request_id(), ..Default::default() };
    let first = client.feeders.clone().hold_farm(request.clone()).await.unwrap().into_inner();
    assert_eq!((first.held.len(), first.not_held.len()), (3, 0), "{first:?}");
    assert!(first.held.iter().all(|c| c.state() == CommandState::Applied), "{first:?}");
    let again = client.feeders.clone().hold_farm(request).await.unwrap().into_inner();
    let names =
        |r: &pb::HoldFarmResponse| r.held.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&again), names(&first));
    assert_eq!(client.commands().await.unwrap().len(), 3);
}

#[tokio::test]
async fn lists_are_paged_and_a_foreign_token_is_refused() {
    let (_stack, client, id) = stack().await;
    for portion in [1_600, 1_700, 1_800] {
        client.set_portion(&id, portion).await.unwrap();
    }
    let mut token = String::new();
    let mut seen = Vec::new();
    loop {
        let request = pb::ListCommandsRequest {
            parent: FARM.into(),
            page_size: 2,
            page_token: token,
            ..Default::default()
        };
        let page = client.feeders.clone().list_commands(request).await.unwrap().into_inner();
        seen.extend(page.commands.iter().map(|c| c.number));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, [3, 2, 1]);
    let request =
        pb::ListFeedersRequest { parent: FARM.into(), page_size: 2, ..Default::default() };
    let page = client.feeders.clone().list_feeders(request).await.unwrap().into_inner();
    assert_eq!(page.feeders.len(), 2);
    let request = pb::ListFeedersRequest {
        parent: FARM.into(),
        page_token: page.next_page_token,
        ..Default::default()
    };
    let rest = client.feeders.clone().list_feeders(request).await.unwrap().into_inner();
    assert_eq!((rest.feeders.len(), rest.next_page_token.as_str()), (1, ""));
    for (size, token) in [(-1, ""), (0, "zz"), (0, "0")] {
        let request = pb::ListCommandsRequest {
            parent: FARM.into(),
            page_size: size,
            page_token: token.into(),
            ..Default::default()
        };
        let refused = client.feeders.clone().list_commands(request).await;
        expect(refused, Code::InvalidArgument, "INVALID_FIELD").unwrap();
    }
}

/// RULES 7.2: a refusal leaves no row; it is counted by its reason.
#[tokio::test]
async fn p13_a_refusal_is_counted_by_its_reason() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let stack = Stack::builder().start().await.unwrap();
    let counted = || async {
        let mut ops = tokio::net::TcpStream::connect(&stack.ops).await.unwrap();
        let ask = "GET /metrics HTTP/1.1\r\nHost: ops\r\nConnection: close\r\n\r\n";
        ops.write_all(ask.as_bytes()).await.unwrap();
        let mut answer = String::new();
        ops.read_to_string(&mut answer).await.unwrap();
        let line = "pasamanos_refusals_total{reason=\"INVALID_FIELD\"} ";
        let value = answer.lines().find_map(|l| l.strip_prefix(line));
        value.map_or(0, |n| n.parse::<u64>().unwrap())
    };
    assert_eq!(counted().await, 0);
    let feeder = stack.first_feeder().await.unwrap();
    for n in 1..=2 {
        let answer = stack.client.feed_now(&feeder, -1).await;
        expect(answer, Code::InvalidArgument, "INVALID_FIELD").unwrap();
        assert_eq!(counted().await, n);
    }
    assert_eq!(stack.client.commands().await.unwrap(), []);
}

/// A dose that was told as applied is not in the way of the next, however old the last status is.
#[tokio::test]
async fn one_dose_after_the_other_is_given_at_once() {
    let stack = Stack::builder().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    for n in 1..=5 {
        let dose = stack.client.feed_now(&feeder, 150).await.unwrap();
        assert_eq!(dose.state(), CommandState::Applied, "dose {n}: {dose:?}");
    }
    assert_eq!(stack.doses_started().unwrap(), 5);
}
