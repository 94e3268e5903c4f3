//! `make demo` as its user meets it: comes up on taken ports, says where, takes a change, stops on a
//! signal, and leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use pasamanos_proto::pb::feeder_service_client::FeederServiceClient;
use pasamanos_proto::pb::{self, CommandState};
use pasamanos_tests::client::request_id;
use pasamanos_tests::{Process, paths, wait_for};
use rustix::process::Signal;
use tokio::process::Command;
use tokio::time::Instant;

fn start(dir: &Path) -> Process {
    let mut command = Command::new(paths::binary("pasamanos-demo").unwrap());
    command.arg("--dir").arg(dir);
    Process::start("demo", &mut command, dir.parent().unwrap()).unwrap()
}

async fn env(demo: &Process, dir: &Path) -> BTreeMap<String, String> {
    let path = dir.join("demo.env");
    let text =
        wait_for("demo.env", Duration::from_secs(60), || async { std::fs::read_to_string(&path) })
            .await
            .unwrap_or_else(|e| panic!("{e}\n{}", demo.log()));
    let pair = |line: &str| line.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    text.lines().filter_map(pair).collect()
}

#[tokio::test]
async fn the_demo_comes_up_takes_a_change_and_a_dose_and_stops() {
    // Whoever has the usual ports keeps them.
    let _taken = ["127.0.0.1:50051", "127.0.0.1:9464", "127.0.0.1:8080"].map(TcpListener::bind);
    let tmp = tempfile::TempDir::new().unwrap();
    let dir = tmp.path().join("demo");
    let mut demo = start(&dir);
    let env_now = env(&demo, &dir).await;
    for key in ["PASAMANOS_AGENT_PID", "PASAMANOS_SERVER_PID", "PASAMANOS_PROXY_PID"] {
        assert!(Path::new("/proc").join(&env_now[key]).exists(), "{key}");
    }
    assert!(env_now["PASAMANOS_WEB_URL"].starts_with("http://127.0.0.1:"));
    let farm = format!("farms/{}", env_now["PASAMANOS_FARM"]);
    let url = format!("http://{}", env_now["PASAMANOS_GRPC_ADDR"]);
    let channel = tonic::transport::Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let mut client = FeederServiceClient::new(channel);
    let request = pb::ListFeedersRequest { parent: farm, ..Default::default() };
    let feeder = client.list_feeders(request).await.unwrap().into_inner().feeders.remove(0);

    // The first listed feeder has room for +100 mg and a dose of 100 mg at any instant.
    let portion = feeder.config.unwrap().portion_mg.unwrap() + 100;
    let update = pb::UpdateFeederConfigRequest {
        name: feeder.name.clone(),
        config: Some(pb::FeederConfig { portion_mg: Some(portion), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["portion_mg".into()] }),
        etag: feeder.etag,
        request_id: request_id(),
        ..Default::default()
    };
    let applied = client.update_feeder_config(update).await.unwrap().into_inner();
    assert_eq!(applied.command.unwrap().state(), CommandState::Applied);
    let dose = pb::FeedNowRequest {
        name: feeder.name,
        portion_mg: Some(100),
        request_id: request_id(),
        ..Default::default()
    };
    let fed = client.feed_now(dose).await.unwrap().into_inner();
    let state = fed.command.unwrap().state();
    assert!([CommandState::Applied, CommandState::Executing].contains(&state), "{state:?}");

    // A stopped agent does not end the demo; a signal does, in time, whatever the agent does.
    let agent = env_now["PASAMANOS_AGENT_PID"].parse().unwrap();
    let agent = rustix::process::Pid::from_raw(agent).unwrap();
    rustix::process::kill_process(agent, Signal::STOP).unwrap();
    assert!(demo.is_running());
    let asked = Instant::now();
    demo.signal(Signal::INT).unwrap();
    let status = demo.wait(Duration::from_secs(8)).await.unwrap();
    assert!(status.success(), "{status} after {:?}\n{}", asked.elapsed(), demo.log());
    assert!(!dir.join("demo.env").exists(), "demo.env outlives the demo");
    for key in ["PASAMANOS_AGENT_PID", "PASAMANOS_SERVER_PID", "PASAMANOS_PROXY_PID"] {
        assert!(!Path::new("/proc").join(&env_now[key]).exists(), "{key} is left behind");
    }
}
