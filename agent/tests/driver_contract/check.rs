//! `pasamanos-agent check` proves the example file against a PLC, and finds what is wrong in another.

use std::path::Path;

use pasamanos_agent::check;
use serde_json::json;
use tempfile::TempDir;

use crate::plc::TestPlc;
use crate::rig::config;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_is_proven_and_faults_are_found() {
    let dir = TempDir::new().unwrap();
    let plc = TestPlc::start(dir.path(), &[]).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let example = std::fs::read_to_string(root.join("config/agent.example.toml")).unwrap();
    let here = example.replace("opc.tcp://127.0.0.1:4840/feedlab", &plc.endpoint);
    assert_ne!(here, example);
    for access in ["read_only", "read_write"] {
        let text = here.replace("access = \"read_only\"", &format!("access = \"{access}\""));
        let mut out = Vec::new();
        let well = check::run(&config(dir.path(), &text), &mut out).await.unwrap();
        let shown = String::from_utf8(out).unwrap();
        assert!(well, "{shown}");
        assert!(!shown.contains("PROBLEM") && !shown.contains("note:"), "{shown}");
        // 3 x (command, status, history, reset_fault, alive; config, config_status, hold, 2 readings)
        // and 3 x (8 of the robot, 9 of the feeder).
        assert!(shown.contains("81 tags, 0 with a problem"), "{shown}");
        // 3 x (status; config_status, hold) and 3 x (echo, done; 7 of the feeder).
        let changes = "polled every 250 ms, 36 of 36 tags subscribed, published every 100 ms";
        assert!(shown.contains(changes), "{shown}");
    }
    for (fault, part) in [
        (json!({"op": "subscriptions", "refuse": true}), "refuses a subscription: BadTooMany"),
        (
            json!({"op": "subscriptions", "max_items": 4}),
            "4 of 36 tags subscribed (note: BadTooMany",
        ),
        (json!({"op": "subscriptions", "mute": true}), "note: nothing was published"),
        (json!({"op": "subscriptions", "slowest_ms": 400}), "published every 400 ms"),
    ] {
        plc.control(&fault);
        let mut out = Vec::new();
        let well = check::run(&config(dir.path(), &here), &mut out).await.unwrap();
        let shown = String::from_utf8(out).unwrap();
        assert!(well && shown.contains(part), "{part:?} is not in:\n{shown}");
    }
    plc.control(&json!({"op": "subscriptions"}));
    let off = here.replace("subscribe = \"100ms\"", "subscribe = \"off\"");
    let mut out = Vec::new();
    assert!(check::run(&config(dir.path(), &off), &mut out).await.unwrap());
    let shown = String::from_utf8(out).unwrap();
    assert!(shown.contains("polled every 250 ms, no subscription"), "{shown}");
    assert_eq!(plc.ledger(), Vec::<serde_json::Value>::new());

    let wrong = here
        .replace("access = \"read_only\"", "access = \"read_write\"")
        .replace("\"{node}.Hopper\", type = \"double\"", "\"{node}.Hopper\", type = \"uint32\"")
        .replace("{node}.Interval", "{node}.Intervall")
        .replace(
            "\"{node}.Oxygen\", type = \"double\", unit = \"mg/L\"",
            "\"{node}.Oxygen\", type = \"double\", scale = 10000, unit = \"mg/L\"",
        )
        .replace("\"{node}.DailyCap\"", "\"{node}.TotalGrams\"")
        .replace("{ automatic = 1, manual = 2, off = 0 }", "{ automatic = 1, off = 0 }");
    let text =
        wrong.replace("alive = { node = \"{node}.Alive\"", "alive = { node = \"{node}.DoseEcho\"");
    // Manual has no word any more, and the blocks have no DoseEcho.
    let mut out = Vec::new();
    let manual = |dir: &Path| config(dir, &text);
    let well = check::run(&manual(dir.path()), &mut out).await.unwrap();
    let shown = String::from_utf8(out).unwrap();
    assert!(!well, "{shown}");
    for part in [
        "is Scalar(Double), not Uint32",
        "no such node",
        "is not plausible: check unit and scale",
        "may not write it",
        "has no word",
        "stands still",
    ] {
        assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plc_that_is_not_there_is_a_problem_with_advice() {
    let dir = TempDir::new().unwrap();
    let text =
        crate::rig::opcua_toml("opc.tcp://127.0.0.1:1/x", crate::rig::Kind::Block, "read_only", "");
    let mut out = Vec::new();
    assert!(!check::run(&config(dir.path(), &text), &mut out).await.unwrap());
    let shown = String::from_utf8(out).unwrap();
    assert!(shown.contains("PROBLEM"), "{shown}");
}
