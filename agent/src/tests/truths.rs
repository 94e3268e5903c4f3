//! What a restart, a restore or a mistaken peer must not make untrue.

use std::path::Path;
use std::time::Duration;

use pasamanos_proto::model::{CommandOrder, CommandState};

use crate::driver::Profile;
use crate::testing::{FEEDER, Fate, Rig, ScriptedPlc, config};

/// A value that was read before the PLC took the new one, and no reading since, is no proof that it
/// put the old one back.
#[tokio::test(start_paused = true)]
async fn p2_a_config_that_shows_late_and_could_not_be_read_is_not_told_as_reverted() {
    let plc = ScriptedPlc::new(&[(FEEDER, config())]);
    let mut rig = Rig::on(plc.with(Profile::Scalar, Duration::from_secs(1), true)).await;
    let mut peer = rig.open().await;
    rig.plc.plc().fates = [Fate::Slow(Duration::from_secs(1)), Fate::Answered].into();
    let order = rig.portion(1_200);
    peer.order(&order).await;
    peer.executing(&order.command).await;
    // It was read as old meanwhile, and cannot be read when it turns.
    peer.play(Duration::from_millis(300)).await;
    rig.plc.plc().readable = false;
    let doubt = peer.outcome(&order.command).await;
    assert_eq!(doubt.state, CommandState::Uncertain, "{doubt:?}");
    rig.plc.plc().readable = true;
    assert_eq!(peer.outcome(&order.command).await.state, CommandState::Applied);
}

/// Plain tags echo a number: given twice, the echo of one dose would prove another.
#[tokio::test(start_paused = true)]
async fn p3_plain_tags_are_never_given_a_sequence_twice() {
    let plc = ScriptedPlc::new(&[(FEEDER, config())]);
    let mut rig = Rig::on(plc.with(Profile::Scalar, Duration::from_secs(1), false)).await;
    let mut peer = rig.open().await;
    for _ in 0..2 {
        for _ in 0..2 {
            let dose = rig.feed(1_000);
            peer.order(&dose).await;
            assert_eq!(peer.outcome(&dose.command).await.state, CommandState::Applied);
        }
        rig.restart().await;
        peer = rig.open().await;
    }
    let given: Vec<_> = rig.plc.plc().arrived.iter().map(|b| b.sequence).collect();
    assert_eq!(given, [1, 2, 3, 4]);
}

/// RULES 7.1: a server's mistake must not use up the numbers of the records.
#[tokio::test(start_paused = true)]
async fn p9_an_absurd_count_of_records_is_no_session_and_burns_no_number() {
    let mut rig = Rig::new().await;
    let mut peer = rig.session().await;
    peer.hello().await;
    peer.through = i64::MAX;
    peer.welcome(1).await;
    assert!(peer.frame().await.is_none(), "a session was opened on it");
    let mut peer = rig.open().await;
    let dose = rig.feed(1_000);
    peer.order(&dose).await;
    assert_eq!(peer.outcome(&dose.command).await.state, CommandState::Applied);
    peer.play(Duration::from_secs(5)).await;
    assert!(!peer.records.is_empty());
    assert!(peer.records.iter().all(|r| r.sequence < 100), "{:?}", peer.records);
}

fn copy(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap().path();
        std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

/// Database and journal are put back, a newer dose is journaled, and then somebody asks again for one
/// that ran: the PLC remembers it, although journal and PLC agree.
#[tokio::test(start_paused = true)]
async fn p3_a_dose_that_only_the_plc_remembers_is_not_given_again() {
    let mut rig = Rig::new().await;
    rig.kill().await;
    let old = tempfile::TempDir::new().unwrap();
    copy(rig.dir.path(), old.path());
    rig.start().await;
    let mut peer = rig.open().await;
    let lost = rig.feed(1_000);
    peer.order(&lost).await;
    assert_eq!(peer.outcome(&lost.command).await.state, CommandState::Applied);
    drop(peer);
    rig.kill().await;
    for file in std::fs::read_dir(rig.dir.path()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    copy(old.path(), rig.dir.path());
    rig.start().await;
    let mut peer = rig.open().await;
    let newer = rig.feed(1_500);
    peer.order(&newer).await;
    assert_eq!(peer.outcome(&newer.command).await.state, CommandState::Applied);
    let again = CommandOrder { number: newer.number + 1, ..lost.clone() };
    let start_before_ms = rig.clock.monotonic_ms() + 15_000;
    peer.order(&CommandOrder { start_before_ms, ..again }).await;
    let end = peer.outcome(&lost.command).await;
    assert_eq!(end.state, CommandState::Applied, "{end:?}");
    assert_eq!(rig.plc.plc().ran.len(), 2, "it was given again");
}
