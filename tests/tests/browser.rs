//! The page in Chromium, as a farmer uses it, against the real programs. Pictures go to
//! `target/screens`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use pasamanos_tests::{Plc, Stack, paths};
use rustix::process::Signal;
use serde_json::json;
use tokio::process::Command;

/// Runs one scenario of `tests/browser/page.mjs`; its output is the failure's text.
async fn page(stack: &Stack, scenario: &str, feeder: &str) -> Result<(), String> {
    let screens = paths::root().join("target/screens");
    std::fs::create_dir_all(&screens).unwrap();
    let out = Command::new("node")
        .arg(paths::root().join("tests/browser/page.mjs"))
        .args([scenario, &format!("{}/farms/norte", stack.web_url), feeder])
        .env("SCREENS", screens)
        .kill_on_drop(true)
        .output();
    let out = tokio::time::timeout(Duration::from_secs(120), out).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if out.status.success() {
        return Ok(());
    }
    Err(format!("{}{}\n{}", text(&out.stdout), text(&out.stderr), stack.logs()))
}

#[tokio::test]
async fn the_page_changes_a_portion_feeds_and_holds_on_the_sim() {
    let stack = Stack::builder().web().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    page(&stack, "portion", &feeder).await.unwrap_or_else(|e| panic!("{e}"));
    let now = stack.client.feeder(&feeder).await.unwrap();
    assert_eq!(now.config.unwrap().portion_mg, Some(1_600));
    page(&stack, "feed", &feeder).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(stack.doses_started().unwrap(), 1);
    page(&stack, "hold", &feeder).await.unwrap_or_else(|e| panic!("{e}"));
    page(&stack, "refused", &feeder).await.unwrap_or_else(|e| panic!("{e}"));
}

/// The whole way: Chromium, web proxy, server, agent, OPC UA server; an independent client reads.
#[tokio::test]
async fn the_page_reaches_a_real_plc_and_shows_what_the_farm_changes() {
    let plc = Plc::start(&[]).await.unwrap();
    let text = std::fs::read_to_string(paths::root().join("config/agent.example.toml")).unwrap();
    let own =
        |line: &&str| !["server =", "agent =", "data_dir ="].iter().any(|k| line.starts_with(k));
    let farm = text.lines().filter(own).collect::<Vec<_>>().join("\n");
    let farm = farm
        .replace("opc.tcp://127.0.0.1:4840/feedlab", &plc.endpoint())
        .replace("access = \"read_only\"", "access = \"read_write\"");
    let stack = Stack::builder().web().farm(farm).start().await.unwrap();
    page(&stack, "portion", "feeder-r1").await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(plc.opc(&["cfg", "R01"]).await.unwrap()["portion_mg"], json!(1_600));

    let watching = page(&stack, "changed-at-farm", "feeder-r2");
    let edit = async {
        // The page says when it watches: it has opened the panel.
        pasamanos_tests::wait_for("the page watches", Duration::from_secs(60), || async {
            std::fs::metadata(paths::root().join("target/screens/changed-at-farm.watching"))
        })
        .await
        .unwrap();
        plc.control(json!({"op": "edit_config", "feeder": "R02", "portion_mg": 2_300}))
            .await
            .unwrap();
    };
    let _ = std::fs::remove_file(paths::root().join("target/screens/changed-at-farm.watching"));
    let (seen, ()) = tokio::join!(watching, edit);
    seen.unwrap_or_else(|e| panic!("{e}"));
}

#[tokio::test]
async fn p10_the_page_shows_offline_within_a_second_of_the_leases_end() {
    let mut stack = Stack::builder().web().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let marker = paths::root().join("target/screens/offline.watching");
    let _ = std::fs::remove_file(&marker);
    let agent = stack.agent.take().unwrap();
    let watching = page(&stack, "offline", &feeder);
    let freeze = async {
        pasamanos_tests::wait_for("the page watches", Duration::from_secs(60), || async {
            std::fs::metadata(&marker)
        })
        .await
        .unwrap();
        agent.signal(Signal::STOP).unwrap();
        // The page leaves a second marker when it has shown offline and refused.
        pasamanos_tests::wait_for("the page shows it", Duration::from_secs(60), || async {
            std::fs::metadata(marker.with_extension("seen"))
        })
        .await
        .unwrap();
        agent.signal(Signal::CONT).unwrap();
    };
    let _ = std::fs::remove_file(marker.with_extension("seen"));
    let (seen, ()) = tokio::join!(watching, freeze);
    seen.unwrap_or_else(|e| panic!("{e}"));
}
