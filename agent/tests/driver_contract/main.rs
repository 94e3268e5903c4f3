//! What every driver must keep, against the simulated farm and against an OPC UA server of another
//! make, in both profiles.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    missing_docs,
    reason = "tests"
)]

mod check;
mod faults;
mod plc;
mod rig;
mod sim;

use std::time::Duration;

use pasamanos_agent::driver::{
    ConfigReading, DriverError, SlotBlock, SlotOp, SlotState, slot_reason,
};
use pasamanos_proto::model::{ConfigField, FieldSet, Mode};
use tokio::time::sleep;

use crate::rig::{Execution, Kind, Rig};

/// Stamps a case for each kind of farm.
macro_rules! for_each_kind {
    ($($case:ident),+ $(,)?) => {$(
        mod $case {
            use crate::rig::Kind;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sim() {
                super::$case(Kind::Sim).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn block() {
                super::$case(Kind::Block).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn scalar() {
                super::$case(Kind::Scalar).await;
            }
        }
    )+};
}

for_each_kind!(
    a_dose_runs_once_though_submitted_five_times,
    a_fence_consumes_the_slot,
    a_hold_ends_a_dose_and_resume_allows_the_next,
    a_config_is_written_and_read_back,
    a_farm_edit_is_seen_and_a_stale_write_changes_nothing,
    read_only_writes_nothing,
);

async fn a_dose_runs_once_though_submitted_five_times(kind: Kind) {
    let rig = Rig::new(kind).await;
    let before = rig.total_mg().await;
    let block = rig.next_dose(1_000, 4_242).await;
    for _ in 0..5 {
        rig.driver.submit(&rig.robot, &block).await.unwrap();
        sleep(Duration::from_millis(120)).await;
    }
    let ended =
        rig.wait("done", |s| s.last_sequence == block.sequence && s.state == SlotState::Done).await;
    assert_eq!(ended.dispensed_mg, Some(1_000));
    for _ in 0..3 {
        rig.driver.submit(&rig.robot, &block).await.unwrap();
    }
    sleep(Duration::from_millis(400)).await;
    let token = if kind == Kind::Scalar { 0 } else { 4_242 };
    let once = Execution { sequence: block.sequence.into(), token, dispensed_mg: Some(1_000) };
    assert_eq!(rig.executions(), [once]);
    assert_eq!(rig.total_mg().await - before, 1_000, "the totaliser says the same");
    if kind != Kind::Scalar {
        let past = rig.driver.history(&rig.robot).await.unwrap();
        let last = past.last().unwrap();
        assert_eq!((last.sequence, last.token, last.dispensed_mg), (block.sequence, 4_242, 1_000));
    }
    // And the next one is another dose.
    assert_eq!(rig.dose(500, 4_243).await.dispensed_mg, Some(500));
    assert_eq!(rig.executions().len(), 2);
    rig.driver.shutdown().await;
}

async fn a_fence_consumes_the_slot(kind: Kind) {
    let rig = Rig::new(kind).await;
    let dose = rig.next_dose(1_000, 7).await;
    let fence = SlotBlock { op: SlotOp::Nop, amount_mg: 0, ..dose };
    if kind == Kind::Scalar {
        let refused = rig.driver.submit(&rig.robot, &fence).await;
        assert!(matches!(refused, Err(DriverError::Refused(_))), "{refused:?}");
        return;
    }
    for wrong in [
        SlotBlock { epoch: dose.epoch ^ 1, ..dose },
        SlotBlock { sequence: dose.sequence + 5, ..dose },
    ] {
        rig.driver.submit(&rig.robot, &wrong).await.unwrap();
    }
    sleep(Duration::from_millis(300)).await;
    assert_eq!(rig.slot().await.last_sequence, dose.sequence - 1, "not its own sequence or epoch");
    rig.driver.submit(&rig.robot, &fence).await.unwrap();
    let fenced = rig.wait("fenced", |s| s.last_sequence == dose.sequence).await;
    assert_eq!(
        (fenced.last_op, fenced.state, fenced.dispensed_mg),
        (SlotOp::Nop, SlotState::Done, Some(0))
    );
    rig.driver.submit(&rig.robot, &dose).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    assert_eq!(rig.executions(), [], "a fenced dose can never run");
    let past = rig.driver.history(&rig.robot).await.unwrap();
    assert_eq!((past[0].op, past[0].sequence), (SlotOp::Nop, dose.sequence));
}

async fn a_hold_ends_a_dose_and_resume_allows_the_next(kind: Kind) {
    let rig = Rig::new(kind).await;
    assert!(rig.driver.feeders()[0].capabilities.hold);
    let block = rig.next_dose(20_000, 9).await;
    rig.driver.submit(&rig.robot, &block).await.unwrap();
    rig.wait("started", |s| s.last_sequence == block.sequence).await;
    rig.until("dosing", |s| s.feeders[0].dosing).await;
    sleep(Duration::from_millis(600)).await;
    for _ in 0..2 {
        rig.driver.hold(&rig.feeder).await.unwrap();
    }
    let ended = rig.wait("aborted", |s| s.state == SlotState::Aborted).await;
    assert!((100..15_000).contains(&ended.dispensed_mg.unwrap()), "{ended:?}");
    assert_eq!(ended.reason, slot_reason::HELD);
    rig.until("held", |s| s.feeders[0].held == Some(true) && !s.feeders[0].dosing).await;
    assert_eq!(rig.executions()[0].dispensed_mg, ended.dispensed_mg.map(u64::from));
    if kind != Kind::Scalar {
        let refused = rig.dose(1_000, 10).await;
        assert_eq!((refused.state, refused.reason), (SlotState::Rejected, slot_reason::HELD));
    }
    rig.driver.resume(&rig.feeder).await.unwrap();
    rig.until("resumed", |s| s.feeders[0].held == Some(false)).await;
    assert_eq!(rig.dose(500, 11).await.state, SlotState::Done);
}

async fn a_config_is_written_and_read_back(kind: Kind) {
    let rig = Rig::new(kind).await;
    let base = rig.driver.read_config(&rig.feeder).await.unwrap();
    let old = base.config.valid().unwrap().clone();
    assert_eq!((old.portion_mg, old.interval_s, old.mode), (Some(1_500), Some(600), Mode::Manual));
    let mut new = old.clone();
    (new.portion_mg, new.interval_s, new.daily_cap_mg) = (Some(1_730), Some(900), Some(90_000));
    // Only the fields that are named are written.
    let fields: FieldSet = [ConfigField::Portion, ConfigField::Interval].into_iter().collect();
    rig.driver.write_config(&rig.feeder, &base, &new, &fields).await.unwrap();
    new.daily_cap_mg = old.daily_cap_mg;
    let read = rig.config_until("written", |c| c.config.valid() == Some(&new)).await;
    if kind != Kind::Scalar {
        assert_eq!(read.revision, base.revision.map(|r| r + 1));
        assert_eq!(read.plc_epoch, base.plc_epoch);
    }
    sleep(rig.driver.traits(&rig.robot).dwell).await;
    let again = rig.driver.read_config(&rig.feeder).await.unwrap();
    assert_eq!(again, read, "it stays");
}

async fn a_farm_edit_is_seen_and_a_stale_write_changes_nothing(kind: Kind) {
    let rig = Rig::new(kind).await;
    let base = rig.driver.read_config(&rig.feeder).await.unwrap();
    rig.edit_at_farm(2_100).await;
    let is_edited = |c: &ConfigReading| c.config.valid().unwrap().portion_mg == Some(2_100);
    let edited = rig.config_until("edited", is_edited).await;
    if kind == Kind::Scalar {
        return; // Plain tags cannot know what a write was based on: the caller compares.
    }
    let mut new = base.config.valid().unwrap().clone();
    new.portion_mg = Some(5_000);
    let stale = rig.driver.write_config(&rig.feeder, &base, &new, &FieldSet::all()).await;
    assert!(matches!(stale, Ok(()) | Err(DriverError::Refused(_))), "{stale:?}");
    sleep(Duration::from_millis(300)).await;
    assert_eq!(rig.driver.read_config(&rig.feeder).await.unwrap(), edited);
}

async fn read_only_writes_nothing(kind: Kind) {
    let rig = Rig::with_access(kind, "read_only").await;
    assert!(rig.driver.traits(&rig.robot).read_only);
    let base = rig.driver.read_config(&rig.feeder).await.unwrap();
    let mut new = base.config.valid().unwrap().clone();
    new.portion_mg = Some(5_000);
    let block = rig.next_dose(1_000, 3).await;
    let refused = [
        rig.driver.submit(&rig.robot, &block).await,
        rig.driver.write_config(&rig.feeder, &base, &new, &FieldSet::all()).await,
        rig.driver.hold(&rig.feeder).await,
        rig.driver.resume(&rig.feeder).await,
        rig.driver.reset_fault(&rig.feeder, 2).await,
    ];
    assert!(refused.iter().all(|r| matches!(r, Err(DriverError::Refused(_)))), "{refused:?}");
    sleep(Duration::from_millis(300)).await;
    assert_eq!(rig.driver.read_config(&rig.feeder).await.unwrap(), base);
    assert_eq!(rig.executions(), []);
}
