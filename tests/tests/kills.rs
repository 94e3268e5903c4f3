//! P2, P3, P9 and P13 while agent and server are killed at random: the short version of `make kills`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use pasamanos_tests::kills::Season;

#[tokio::test]
async fn p3_twenty_random_kills_feed_nothing_twice_and_lose_no_milligram() {
    let (tally, broken) = Season { seed: 20, kills: 20 }.play().await.unwrap();
    println!("{tally}");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    // A run that meets nothing proves nothing.
    assert!(tally.killed.0 >= 5 && tally.killed.1 >= 5, "{tally}");
    assert!(tally.accepted() >= 20 && tally.doses.0 >= 5 && tally.doubts > 0, "{tally}");
    assert!(tally.ended("APPLIED") > 0, "{tally}");
}
