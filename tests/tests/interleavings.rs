//! Orders of events that such designs usually miss, each judged from outside.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

use pasamanos_proto::pb::CommandState;
use pasamanos_tests::Stack;

/// A report that was told while a dose ran does not lock the robot once that dose is settled.
#[tokio::test]
async fn p2_a_dose_that_is_settled_locks_nothing_from_that_instant() {
    let stack = Stack::builder().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    for n in 1..=8 {
        let dose = stack.client.feed_now(&feeder, 150).await.unwrap_or_else(|e| {
            panic!("dose {n} is refused: {e:?}");
        });
        assert_eq!(dose.state(), CommandState::Applied, "{dose:?}");
    }
    assert_eq!(stack.doses_started().unwrap(), 8);
}
