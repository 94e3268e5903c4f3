//! The operator's clients, which are not ours: grpcurl 1.8.6 over reflection, and buf curl through the
//! web proxy.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

use std::process::Stdio;
use std::time::Duration;

use pasamanos_tests::client::{FARM, request_id};
use pasamanos_tests::{Stack, paths};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{ChildStdout, Command};
use tokio::time::timeout;

async fn grpcurl(stack: &Stack, args: &[&str]) -> Result<String, String> {
    let out = Command::new(paths::grpcurl().unwrap())
        .arg("-plaintext")
        .args(&args[..args.len() - 1])
        .arg(&stack.grpc)
        .args(args[args.len() - 1].split_whitespace())
        .output()
        .await
        .unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
}

async fn call(stack: &Stack, rpc: &str, body: Value) -> Result<Value, String> {
    let body = body.to_string();
    let answer = grpcurl(stack, &["-d", &body, &format!("pasamanos.v1.{rpc}")]).await?;
    Ok(serde_json::from_str(&answer).unwrap())
}

#[tokio::test]
async fn grpcurl_lists_and_describes() {
    let stack = Stack::builder().start().await.unwrap();
    let services = grpcurl(&stack, &["list"]).await.unwrap();
    for service in
        ["pasamanos.v1.FeederService", "pasamanos.v1.StatusService", "grpc.health.v1.Health"]
    {
        assert!(services.contains(service), "{services}");
    }
    let described = grpcurl(&stack, &["describe pasamanos.v1.FeederService"]).await.unwrap();
    assert!(described.contains("rpc UpdateFeederConfig"), "{described}");
    let health = grpcurl(
        &stack,
        &["-d", r#"{"service":"pasamanos.v1.FeederService"}"#, "grpc.health.v1.Health/Check"],
    )
    .await;
    assert!(health.unwrap().contains("\"SERVING\""));
}

#[tokio::test]
async fn grpcurl_calls_every_unary_rpc() {
    let stack = Stack::builder().start().await.unwrap();
    let id = stack.first_feeder().await.unwrap();
    let name = format!("{FARM}/feeders/{id}");
    let listed = call(&stack, "FeederService/ListFeeders", json!({"parent": FARM})).await.unwrap();
    assert_eq!(listed["feeders"].as_array().unwrap().len(), 3);
    let feeder = call(&stack, "FeederService/GetFeeder", json!({"name": name})).await.unwrap();
    let etag = &feeder["feeder"]["etag"];

    let update = json!({
        "name": name, "config": {"portion_mg": 1600}, "update_mask": {"paths": ["portion_mg"]},
        "etag": etag, "request_id": request_id(), "note": "by hand",
    });
    let updated = call(&stack, "FeederService/UpdateFeederConfig", update.clone()).await.unwrap();
    assert_eq!(updated["command"]["state"], "COMMAND_STATE_APPLIED", "{updated}");
    assert_eq!(updated["feeder"]["config"]["portionMg"], 1600);
    let command = &updated["command"]["name"];

    let fed = json!({"name": name, "portion_mg": 100, "request_id": request_id()});
    let fed = call(&stack, "FeederService/FeedNow", fed).await.unwrap();
    assert_eq!(fed["command"]["state"], "COMMAND_STATE_APPLIED", "{fed}");
    for (rpc, state) in
        [("HoldFeeder", "COMMAND_STATE_APPLIED"), ("ResumeFeeder", "COMMAND_STATE_APPLIED")]
    {
        let body = json!({"name": name, "request_id": request_id()});
        let answer = call(&stack, &format!("FeederService/{rpc}"), body).await.unwrap();
        assert_eq!(answer["command"]["state"], state, "{answer}");
    }
    let held = json!({"name": FARM, "request_id": request_id()});
    let held = call(&stack, "FeederService/HoldFarm", held).await.unwrap();
    assert_eq!(held["held"].as_array().unwrap().len(), 3, "{held}");

    let got = call(&stack, "FeederService/GetCommand", json!({"name": command})).await.unwrap();
    assert_eq!(got["command"]["note"], "by hand");
    let commands =
        call(&stack, "FeederService/ListCommands", json!({"parent": FARM})).await.unwrap();
    assert_eq!(commands["commands"].as_array().unwrap().len(), 7);
    let versions =
        call(&stack, "FeederService/ListConfigVersions", json!({"parent": name})).await.unwrap();
    assert_eq!(versions["versions"].as_array().unwrap().len(), 2);
    let status = call(&stack, "StatusService/GetFarmStatus", json!({"name": FARM})).await.unwrap();
    assert_eq!(status["status"]["agents"][0]["presence"], "PRESENCE_STATE_ONLINE");
    let doses = call(&stack, "StatusService/ListDoses", json!({"parent": FARM})).await;
    assert!(doses.is_ok(), "{doses:?}");

    // Refusals say which field, why, and what to do.
    let stale = call(
        &stack,
        "FeederService/UpdateFeederConfig",
        update_with(&update, "request_id", json!(request_id())),
    )
    .await
    .unwrap_err();
    assert!(stale.contains("Aborted") && stale.contains("ETAG_MISMATCH"), "{stale}");
    let fault = json!({"name": name, "fault_code": 2, "request_id": request_id()});
    let fault = call(&stack, "FeederService/ResetFault", fault).await.unwrap_err();
    assert!(fault.contains("FAULT_CHANGED"), "{fault}");
    let resolve = json!({"name": command, "verdict": "RESOLUTION_VERDICT_FED", "request_id": request_id(), "note": "seen"});
    let resolve = call(&stack, "FeederService/ResolveCommand", resolve).await.unwrap_err();
    assert!(resolve.contains("NOT_IN_DOUBT"), "{resolve}");
    let missing = call(&stack, "FeederService/FeedNow", json!({"name": name, "portion_mg": 100}))
        .await
        .unwrap_err();
    assert!(
        missing.contains("InvalidArgument") && missing.contains("REQUEST_ID_REQUIRED"),
        "{missing}"
    );
}

fn update_with(body: &Value, key: &str, value: Value) -> Value {
    let mut body = body.clone();
    body[key] = value;
    body
}

/// Reads on until a line holds the word.
async fn seen(lines: &mut Lines<BufReader<ChildStdout>>, word: &str) {
    let find = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(word) {
                return;
            }
        }
        panic!("the watch ended before {word}");
    };
    timeout(Duration::from_secs(15), find).await.unwrap_or_else(|_| panic!("no {word}"));
}

#[tokio::test]
async fn grpcurl_watches_a_farm() {
    let stack = Stack::builder().start().await.unwrap();
    let mut child = Command::new(paths::grpcurl().unwrap())
        .args(["-plaintext", "-d", &json!({"name": FARM}).to_string(), &stack.grpc])
        .arg("pasamanos.v1.StatusService/WatchFarm")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    seen(&mut lines, "\"snapshot\"").await;
    let id = stack.first_feeder().await.unwrap();
    stack.client.set_portion(&id, 1_650).await.unwrap();
    seen(&mut lines, "1650").await;
    seen(&mut lines, "\"keepalive\"").await;
}

#[tokio::test]
async fn buf_curl_speaks_grpc_web_through_the_proxy() {
    let stack = Stack::builder().web().start().await.unwrap();
    let buf = paths::root().join("web-proxy/ui/node_modules/@bufbuild/buf-linux-x64/bin/buf");
    assert!(buf.exists(), "{} is missing: run `make ui`", buf.display());
    let run = |rpc: &str, body: Value| {
        let (buf, url) = (buf.clone(), format!("{}/pasamanos.v1.{rpc}", stack.web_url));
        async move {
            Command::new(buf)
                .args(["curl", "--protocol", "grpcweb", "--schema"])
                .arg(paths::root().join("proto"))
                .args(["-d", &body.to_string(), &url])
                .output()
                .await
                .unwrap()
        }
    };
    let out = run("StatusService/GetFarmStatus", json!({"name": FARM})).await;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        text.contains("PRESENCE_STATE_ONLINE"),
        "{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let id = stack.first_feeder().await.unwrap();
    let name = format!("{FARM}/feeders/{id}");
    let out = run(
        "FeederService/FeedNow",
        json!({"name": name, "portionMg": 100, "requestId": request_id()}),
    )
    .await;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        text.contains("COMMAND_STATE_APPLIED"),
        "{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let out = run(
        "FeederService/FeedNow",
        json!({"name": name, "portionMg": -1, "requestId": request_id()}),
    )
    .await;
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(text.contains("invalid_argument") && text.contains("portion_mg"), "{text}");
    // The farm's own stream is not for browsers.
    let out = run("AgentLinkService/Connect", json!({})).await;
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("unimplemented"));
}

/// The operator keeps an export outside: it is checked without the database, and its head anchors the chain.
#[tokio::test]
async fn p13_an_audit_export_is_kept_outside_and_anchors_the_chain() {
    let stack = Stack::builder().start().await.unwrap();
    let id = stack.first_feeder().await.unwrap();
    let command = stack.client.set_portion(&id, 1_600).await.unwrap();
    let export = stack.admin(&["audit", "export", "norte"]).await.unwrap();
    let lines: Vec<Value> = export.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let (head, records) = lines.split_last().unwrap();
    assert_eq!(head["head_seq"], json!(records.len()));
    assert_eq!(head["head_hash"], records[records.len() - 1]["hash"]);
    let kinds = records.iter().filter(|r| r["subject"] == json!(command.name)).map(|r| &r["kind"]);
    assert_eq!(kinds.collect::<Vec<_>>(), ["accepted", "settled"]);

    let file = stack.dir.path().join("norte.jsonl");
    std::fs::write(&file, &export).unwrap();
    let file = file.to_str().unwrap();
    let verified = stack.admin(&["audit", "verify", "--file", file]).await.unwrap();
    assert!(verified.contains("the chain holds"), "{verified}");
    // The chain goes on, and still holds what was kept.
    stack.client.set_portion(&id, 1_700).await.unwrap();
    let kept = format!("{}:{}", head["head_seq"], head["head_hash"].as_str().unwrap());
    let verified = stack.admin(&["audit", "verify", "norte", "--head", &kept]).await.unwrap();
    assert!(verified.contains("the chain holds"), "{verified}");
    let forged = format!("1:{}", head["head_hash"].as_str().unwrap());
    let refused = stack.admin(&["audit", "verify", "norte", "--head", &forged]).await.unwrap_err();
    assert!(format!("{refused:#}").contains("not the one that was kept"), "{refused:#}");
    std::fs::write(file, export.replace("\"settled\"", "\"expired\"")).unwrap();
    let refused = stack.admin(&["audit", "verify", "--file", file]).await.unwrap_err();
    assert!(format!("{refused:#}").contains("it was changed"), "{refused:#}");

    let platform = stack.admin(&["audit", "export", "--platform"]).await.unwrap();
    assert!(platform.contains("farm_added") && platform.contains("farms/norte"), "{platform}");
    for wrong in [&["audit", "export"][..], &["audit", "verify", "sur"]] {
        assert!(stack.admin(wrong).await.is_err(), "{wrong:?}");
    }
}
