//! A PLC that tells of changes by itself is read sooner, and never without end.

use std::time::Duration;

use pasamanos_proto::model::{FeederConfig, ObservedConfig};
use tokio::time::sleep;

use crate::testing::{FEEDER, Rig, config};

/// The rig polls every 500 ms.
#[tokio::test(start_paused = true)]
async fn p10_a_change_that_is_told_is_read_before_its_turn() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_millis(2_100)).await;
    for portion_mg in [900, 800, 700] {
        let farm = FeederConfig { portion_mg: Some(portion_mg), ..config() };
        rig.plc.plc().feeder(FEEDER).config = ObservedConfig::Valid(farm.clone());
        rig.plc.tell();
        // Before the next poll: 100 ms between two readings, 200 ms until a change is reported.
        peer.play(Duration::from_millis(310)).await;
        assert_eq!(peer.feeders[FEEDER].config, Some(farm.into()));
        peer.play(Duration::from_millis(190)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn p11_a_plc_that_tells_without_end_is_read_ten_times_a_second_at_most() {
    let rig = Rig::new().await;
    sleep(Duration::from_secs(2)).await;
    let before = rig.plc.plc().reads;
    for _ in 0..10_000 {
        rig.plc.tell();
        sleep(Duration::from_millis(1)).await;
    }
    let reads = rig.plc.plc().reads - before;
    // Ten a second, and two polls.
    assert!((80..=120).contains(&reads), "{reads} in 10 s");
}
