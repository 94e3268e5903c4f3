//! What only the simulated farm can be made to do.

use std::time::Duration;

use pasamanos_agent::driver::{DriverError, SlotState, slot_reason};
use pasamanos_proto::model::FieldSet;
use pasamanos_proto::pb::LinkState;
use serde_json::json;
use tokio::time::sleep;

use crate::rig::{Kind, Rig};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_the_middle_of_a_dose_is_a_power_cut() {
    let mut rig = Rig::new(Kind::Sim).await;
    let block = rig.next_dose(20_000, 5).await;
    rig.driver.submit(&rig.robot, &block).await.unwrap();
    rig.wait("fed some", |s| s.dispensed_mg > Some(200)).await;
    let time = rig.status().await.plc_time_s.unwrap();
    rig.restart_driver().await;
    let slot = rig.slot().await;
    assert_eq!((slot.epoch, slot.last_sequence, slot.last_token), (block.epoch, block.sequence, 5));
    assert_eq!((slot.state, slot.reason), (SlotState::Aborted, slot_reason::POWER_LOST));
    assert!((200..20_000).contains(&slot.dispensed_mg.unwrap()));
    assert!(rig.status().await.plc_time_s.unwrap() >= time, "its clock never goes back");
    sleep(Duration::from_millis(500)).await;
    assert_eq!(rig.total_mg().await, u64::from(slot.dispensed_mg.unwrap()), "never resumed");
    assert_eq!(rig.executions()[0].dispensed_mg, slot.dispensed_mg.map(u64::from));
    assert_eq!(rig.dose(500, 6).await.state, SlotState::Done);
    let fell: u64 = rig.executions().iter().filter_map(|e| e.dispensed_mg).sum();
    assert_eq!(rig.total_mg().await, fell);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_survives_and_lost_memory_is_a_new_epoch() {
    let mut rig = Rig::new(Kind::Sim).await;
    rig.edit_at_farm(3_300).await;
    rig.driver.hold(&rig.feeder).await.unwrap();
    let before = rig.driver.read_config(&rig.feeder).await.unwrap();
    rig.restart_driver().await;
    assert_eq!(rig.driver.read_config(&rig.feeder).await.unwrap(), before);
    assert_eq!(rig.status().await.feeders[0].held, Some(true));
    rig.sim(&json!({"op": "lose_memory", "robot": "robot-1"})).await;
    let after = rig.driver.read_config(&rig.feeder).await.unwrap();
    assert_ne!(after.plc_epoch, before.plc_epoch);
    assert_eq!(after.config.valid().unwrap().portion_mg, Some(1_500), "the factory's");
    assert_eq!(rig.status().await.feeders[0].held, Some(false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_replies_and_a_cut_link_are_what_they_are() {
    let rig = Rig::new(Kind::Sim).await;
    rig.sim(&json!({"op": "replies", "fate": "applied"})).await;
    let hold = rig.driver.hold(&rig.feeder).await;
    assert!(matches!(hold, Err(DriverError::Ambiguous(_))));
    assert_eq!(rig.status().await.feeders[0].held, Some(true));
    rig.sim(&json!({"op": "replies", "fate": "dropped"})).await;
    rig.driver.resume(&rig.feeder).await.unwrap_err();
    assert_eq!(rig.status().await.feeders[0].held, Some(true));
    rig.sim(&json!({"op": "replies", "fate": "late", "ms": 700})).await;
    rig.driver.resume(&rig.feeder).await.unwrap_err();
    assert_eq!(rig.status().await.feeders[0].held, Some(true));
    sleep(Duration::from_millis(1_200)).await;
    assert_eq!(rig.status().await.feeders[0].held, Some(false));
    rig.sim(&json!({"op": "link", "up": false})).await;
    rig.link(LinkState::Down).await;
    assert_eq!(rig.driver.hold(&rig.feeder).await, Err(DriverError::NotConnected));
    rig.sim(&json!({"op": "link", "up": true})).await;
    rig.link(LinkState::Up).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_may_be_taken_back_after_the_first_read() {
    let rig = Rig::new(Kind::Sim).await;
    rig.sim(&json!({"op": "revert", "feeder": "feeder-1"})).await;
    let base = rig.driver.read_config(&rig.feeder).await.unwrap();
    let mut new = base.config.valid().unwrap().clone();
    new.portion_mg = Some(4_000);
    rig.driver.write_config(&rig.feeder, &base, &new, &FieldSet::all()).await.unwrap();
    let first = rig.driver.read_config(&rig.feeder).await.unwrap();
    assert_eq!(first.config.valid().unwrap().portion_mg, Some(4_000));
    let second = rig.driver.read_config(&rig.feeder).await.unwrap();
    assert_eq!(second.config, base.config);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_feeds_by_itself_and_tells_of_each_meal() {
    let rig = Rig::new(Kind::Sim).await;
    let config = json!({"mode": 1, "interval_s": 600, "portion_mg": 500});
    rig.sim(&json!({"op": "edit_config", "feeder": "feeder-1", "config": config})).await;
    rig.sim(&json!({"op": "meal_now", "feeder": "feeder-1"})).await;
    let mut meal = None;
    for _ in 0..60 {
        meal = rig.status().await.feeders[0].meal;
        if meal.is_some_and(|m| m.state == SlotState::Done) {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    let meal = meal.unwrap();
    assert_eq!((meal.number, meal.state, meal.dispensed_mg), (1, SlotState::Done, 500));
    assert_eq!(rig.executions(), [], "nobody commanded it");
    rig.sim(&json!({"op": "empty_hopper", "robot": "robot-1"})).await;
    rig.sim(&json!({"op": "meal_now", "feeder": "feeder-1"})).await;
    let skipped = rig.status().await.feeders[0].meal.unwrap();
    assert_eq!((skipped.number, skipped.reason), (2, slot_reason::HOPPER_EMPTY));
    assert_eq!(skipped.state, SlotState::Rejected);
}
