//! P9: a week that the server missed arrives in the history exactly once, to the milligram, while the
//! farm can be commanded as ever.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use pasamanos_proto::pb::{CommandState, PresenceState};
use pasamanos_tests::kills::at_rest;
use pasamanos_tests::sim::Sim;
use pasamanos_tests::stack::{Part, sim};
use pasamanos_tests::{Stack, books, journal, wait_for};
use serde_json::json;

/// Tanks, and their meals in the week: seven a day.
const TANKS: usize = 40;
const MEALS: usize = 7 * 7;
const WITHIN: Duration = Duration::from_secs(120);

/// The farm feeds itself for a week's meals; each is in the journal before the next.
async fn a_week(stack: &Stack) -> anyhow::Result<()> {
    let dir = stack.agent_dir();
    let farm = Sim::of(&dir);
    let feeders: Vec<_> = farm.feeders().await?.iter().map(|f| f["feeder"].clone()).collect();
    for feeder in &feeders {
        // Small meals, and no water or clock that would skip one.
        let config = json!({
            "portion_mg": 50, "windows": [], "min_dissolved_oxygen_ug_per_l": null,
            "max_water_temperature_millicelsius": null, "daily_cap_mg": null,
        });
        farm.control(&json!({"op": "edit_config", "feeder": feeder, "config": config})).await?;
    }
    let (_, first) = journal::backlog(&dir).await?;
    for round in 1..=MEALS {
        for feeder in &feeders {
            farm.control(&json!({"op": "meal_now", "feeder": feeder})).await?;
        }
        let due = first + i64::try_from(round * feeders.len())?;
        wait_for("the round is journaled", WITHIN, || async {
            match journal::backlog(&dir).await {
                Ok((_, last)) if last >= due => Ok(()),
                other => Err(format!("{other:?}, due {due}")),
            }
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn p9_a_week_of_records_drains_once_through_kills_and_starves_nothing() {
    let farm = sim(TANKS).replace("100ms", "50ms") + "tanks_per_robot = 1\n";
    let mut stack = Stack::builder().farm(farm).start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let before = stack.client.all_doses().await.unwrap().len();
    stack.server().unwrap().kill().await.unwrap();
    a_week(&stack).await.unwrap();
    let (backlog, _) = journal::backlog(&stack.agent_dir()).await.unwrap();
    println!("{backlog} records wait");
    assert!(backlog >= i64::try_from(TANKS * MEALS).unwrap(), "{backlog}");

    // Twice the server dies in the middle of the drain: once with a batch committed and not
    // acknowledged, once with one received and not committed.
    for point in ["server.records.committed:1", "server.records.before-commit:2"] {
        stack.crash_at(Some((Part::Server, point.into())));
        stack.start_server().await.unwrap();
        let died = stack.server().unwrap().wait(WITHIN).await;
        assert!(died.is_ok(), "{point}: the server was not killed\n{}", stack.logs());
        stack.crash_at(None);
        let (left, _) = journal::backlog(&stack.agent_dir()).await.unwrap();
        println!("{point}: {left} records wait");
        assert!(left > 0 && left <= backlog, "{point}: killed after the drain");
    }

    stack.start_server().await.unwrap();
    stack.client.wait_presence(PresenceState::Online, WITHIN).await.unwrap();
    let draining = async {
        // From the first beat on the lease lives through the drain.
        wait_for("drained", WITHIN, || async {
            let farm = stack.client.farm().await.map_err(|e| e.to_string())?;
            let presence = farm.agents.first().map(pasamanos_proto::pb::Agent::presence);
            assert_eq!(presence, Some(PresenceState::Online), "the drain starved the heartbeats");
            // What the journal was told to forget it forgets with its next transaction.
            match stack.client.all_doses().await {
                Ok(rows) if rows.len() >= before + TANKS * MEALS => Ok(()),
                other => Err(format!("{:?} rows", other.map(|rows| rows.len()))),
            }
        })
        .await
        .unwrap();
    };
    let commanding = async {
        let dose = stack.client.feed_now(&feeder, 100).await.unwrap();
        stack.client.wait_settled(&dose.name, WITHIN).await.unwrap()
    };
    let ((), dose) = tokio::join!(draining, commanding);
    assert_eq!(dose.state(), CommandState::Applied, "{dose:?}");

    let truth = at_rest(&stack).await.unwrap();
    let rows = truth.rows.len() - before;
    println!("{rows} rows, {} mg", truth.totals.values().sum::<i64>());
    assert!(rows > TANKS * MEALS, "{rows}");
    let names: BTreeSet<_> = truth.rows.iter().map(|r| &r.name).collect();
    assert_eq!(names.len(), truth.rows.len(), "a record is there twice");
    // Every feeder's log, totaliser, journal and history, to the milligram.

    let wrong = books::totals(&truth);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
