//! What happens when the PLC stops, dies, lies or loses its memory.

use std::time::Duration;

use pasamanos_agent::driver::{self, ConfigReading, DriverError, SlotState, slot_reason};
use pasamanos_proto::model::ConfigField;
use pasamanos_proto::pb::{LinkState, ReadingKind};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::plc::TestPlc;
use crate::rig::{Kind, Rig, config, is_end, opcua_toml};

/// The fact that rules the whole design: a time-out is not "not done".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_timed_out_lands_later_and_once() {
    for kind in [Kind::Block, Kind::Scalar] {
        let rig = Rig::new(kind).await;
        let plc = rig.plc.as_ref().unwrap();
        let block = rig.next_dose(800, 21).await;
        plc.signal("-STOP");
        let held = rig.driver.hold(&rig.feeder).await.unwrap_err();
        assert!(held.may_have_been_applied(), "{held}");
        let sent = rig.driver.submit(&rig.robot, &block).await.unwrap_err();
        assert!(!matches!(sent, DriverError::Config(_) | DriverError::BadData(_)), "{sent}");
        plc.signal("-CONT");
        rig.until("held by the write that timed out", |s| s.feeders[0].held == Some(true)).await;
        // Held when it landed, so it was refused; a fence or nothing has to follow, never a repeat.
        assert!(rig.executions().len() <= 1);
        rig.driver.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dose_sent_to_a_stopped_plc_runs_when_it_goes_on() {
    let rig = Rig::new(Kind::Block).await;
    let plc = rig.plc.as_ref().unwrap();
    let block = rig.next_dose(800, 22).await;
    plc.signal("-STOP");
    let sent = rig.driver.submit(&rig.robot, &block).await.unwrap_err();
    assert!(sent.may_have_been_applied(), "{sent}");
    plc.signal("-CONT");
    // The PLC's clock stood too: it is not late for it.
    let ended = rig.wait("ended", |s| s.last_sequence == block.sequence && is_end(s.state)).await;
    assert_eq!((ended.state, ended.last_token), (SlotState::Done, 22));
    assert_eq!(rig.executions().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_reply_is_ambiguous_and_the_read_back_tells() {
    let rig = Rig::new(Kind::Block).await;
    rig.plc.as_ref().unwrap().control(&json!({"op": "drop_replies", "n": 1}));
    let block = rig.next_dose(600, 23).await;
    let sent = rig.driver.submit(&rig.robot, &block).await.unwrap_err();
    assert!(sent.may_have_been_applied(), "{sent}");
    let ended = rig.wait("ended", |s| s.last_sequence == block.sequence && is_end(s.state)).await;
    assert_eq!((ended.last_token, ended.dispensed_mg), (23, Some(600)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_plc_is_down_and_a_restarted_one_comes_back_by_itself() {
    let mut rig = Rig::new(Kind::Block).await;
    let block = rig.next_dose(20_000, 31).await;
    rig.driver.submit(&rig.robot, &block).await.unwrap();
    rig.wait("started", |s| s.state == SlotState::Started && s.dispensed_mg > Some(300)).await;
    rig.plc.as_mut().unwrap().kill();
    rig.link(LinkState::Down).await;
    let read = rig.driver.read_status(&rig.robot).await.unwrap_err();
    assert_eq!(read, DriverError::NotConnected);
    let write = rig.driver.hold(&rig.feeder).await.unwrap_err();
    assert!(matches!(write, DriverError::NotConnected | DriverError::Ambiguous(_)), "{write}");
    rig.plc.as_mut().unwrap().restart().await;
    rig.link(LinkState::Up).await;
    let slot = rig.slot().await;
    assert_eq!(
        (slot.epoch, slot.last_sequence, slot.last_token),
        (block.epoch, block.sequence, 31)
    );
    assert_eq!((slot.state, slot.reason), (SlotState::Aborted, slot_reason::POWER_LOST));
    assert!((300..20_000).contains(&slot.dispensed_mg.unwrap()), "{slot:?}");
    sleep(Duration::from_millis(500)).await;
    assert_eq!(rig.total_mg().await, u64::from(slot.dispensed_mg.unwrap()), "never resumed");
    assert_eq!(rig.dose(500, 32).await.state, SlotState::Done);
    // A shutdown is bounded and frees the session.
    timeout(Duration::from_secs(5), rig.driver.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_plc_is_down_within_seconds_and_up_again() {
    let rig = Rig::new(Kind::Scalar).await;
    let plc = rig.plc.as_ref().unwrap();
    plc.signal("-STOP");
    timeout(Duration::from_secs(8), rig.link(LinkState::Down)).await.unwrap();
    plc.signal("-CONT");
    timeout(Duration::from_secs(15), rig.link(LinkState::Up)).await.unwrap();
    rig.status().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_stands_still_is_frozen_though_it_answers() {
    let rig = Rig::new(Kind::Block).await;
    let plc = rig.plc.as_ref().unwrap();
    plc.control(&json!({"op": "freeze", "on": true}));
    rig.link(LinkState::Frozen).await;
    assert_eq!(rig.status().await.alive, rig.status().await.alive);
    plc.control(&json!({"op": "freeze", "on": false}));
    rig.link(LinkState::Up).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_memory_shows_as_a_new_epoch() {
    let rig = Rig::new(Kind::Block).await;
    let before = rig.slot().await;
    rig.plc.as_ref().unwrap().control(&json!({"op": "lose_memory"}));
    let after = rig.wait("another epoch", |s| s.epoch != before.epoch).await;
    assert_eq!((after.last_sequence, after.state), (0, SlotState::Idle));
    let config = rig.driver.read_config(&rig.feeder).await.unwrap();
    assert_eq!(config.plc_epoch, Some(after.epoch));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_that_the_plc_takes_back_is_seen() {
    let rig = Rig::new(Kind::Scalar).await;
    rig.plc
        .as_ref()
        .unwrap()
        .control(&json!({"op": "lie", "kind": "revert_after_scans", "n": 10, "feeder": "F01"}));
    let base = rig.driver.read_config(&rig.feeder).await.unwrap();
    let mut new = base.config.valid().unwrap().clone();
    new.portion_mg = Some(4_000);
    rig.driver
        .write_config(&rig.feeder, &base, &new, &[ConfigField::Portion].into_iter().collect())
        .await
        .unwrap();
    let taken = |c: &ConfigReading| c.config != base.config;
    rig.config_until("taken", taken).await;
    rig.config_until("taken back", |c| c.config == base.config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raw_value_of_the_farm_and_a_fault_and_a_bad_probe_are_shown_as_such() {
    let rig = Rig::new(Kind::Block).await;
    let plc = rig.plc.as_ref().unwrap();
    rig.edit_at_farm(2).await;
    plc.control(&json!({"op": "fault", "robot": "R01", "code": 2}));
    plc.control(&json!({"op": "local", "robot": "R01", "on": true}));
    plc.control(&json!({"op": "set", "tag": "R01.Oxygen", "value": "NaN"}));
    rig.config_until("raw", |c| c.config.valid().is_none()).await;
    let status = rig.until("local and faulty", |s| s.local && !s.faults.is_empty()).await;
    assert_eq!((status.faults[0].code, status.faults[0].text.as_str()), (2, "Jam"));
    let oxygen = |k| status.readings.iter().find(move |r| r.kind == k).unwrap();
    assert!(!oxygen(ReadingKind::DissolvedOxygenUgPerL).good);
    assert!(oxygen(ReadingKind::WaterTemperatureMillicelsius).good);
    assert_eq!(oxygen(ReadingKind::WaterTemperatureMillicelsius).value, 18_500);
    plc.control(&json!({"op": "local", "robot": "R01", "on": false}));
    rig.until("remote", |s| !s.local).await;
    rig.driver.reset_fault(&rig.feeder, 1).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.status().await.faults.len(), 1, "another fault than the one seen is not reset");
    rig.driver.reset_fault(&rig.feeder, 2).await.unwrap();
    rig.until("healthy", |s| s.faults.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_and_a_wrong_namespace_are_configuration_errors() {
    let dir = TempDir::new().unwrap();
    let plc = TestPlc::start(dir.path(), &["--user", "agent", "--password", "s3cret"]).await;
    let logon = "user = \"agent\"\npassword_file = \"pw\"";
    let build = |text: String| {
        let config = config(dir.path(), &text);
        async move { driver::build(&config).await.unwrap().remove(0) }
    };
    let cases = [("wrong", "urn:feedlab:plc", "password"), ("s3cret\n", "urn:other", "namespace")];
    for (password, namespace, word) in cases {
        std::fs::write(dir.path().join("pw"), password).unwrap();
        let text = opcua_toml(&plc.endpoint, Kind::Block, "read_only", logon);
        let driver = build(text.replace("urn:feedlab:plc", namespace)).await;
        let mut link = driver.link();
        let there = link.wait_for(|link| link.state == LinkState::ConfigError);
        let shown = timeout(Duration::from_secs(20), there).await.unwrap().unwrap().detail.clone();
        assert!(shown.contains(word), "{shown}");
        assert!(!shown.contains("s3cret") && !shown.contains("wrong"), "{shown}");
        let robot = driver.feeders()[0].robot.clone();
        assert!(matches!(driver.read_status(&robot).await, Err(DriverError::Config(_))));
        driver.shutdown().await;
    }
    std::fs::write(dir.path().join("pw"), "s3cret\n").unwrap();
    let driver = build(opcua_toml(&plc.endpoint, Kind::Block, "read_only", logon)).await;
    let mut link = driver.link();
    timeout(Duration::from_secs(20), link.wait_for(|l| l.state == LinkState::Up))
        .await
        .unwrap()
        .unwrap();
    driver.shutdown().await;
}
