//! A farm change that undoes what a command applied is told as one, and no other is.

use pasamanos_proto::model::{CommandState, Reason, RequestId};
use pasamanos_proto::pb::ConfigAuthor;
use pasamanos_server::domain::ports::{Ingest, Reversion, Store};

use crate::kit::*;

const HOUR: i64 = 3_600_000;

/// A config command that ends so at `at_ms`; what the PLC runs then goes with its outcome.
async fn command(
    store: &dyn Store,
    epoch: i64,
    feeder: u32,
    portion_mg: i32,
    end: CommandState,
    at_ms: i64,
) -> RequestId {
    let new = accept(store, update(store, feeder, epoch, portion_mg).await).await;
    let mut report = report(&new, end);
    report.config = (end == CommandState::Applied).then(|| observed(portion_mg));
    let item = Ingest::Outcome(Box::new(report));
    store.ingest(&agent(), epoch, &[item], at_ms).await.unwrap();
    new.name.request
}

async fn edit(store: &dyn Store, epoch: i64, feeder: u32, portion_mg: i32, at_ms: i64) {
    let item = Ingest::Config(feeder_id(feeder), observed(portion_mg));
    store.ingest(&agent(), epoch, &[item], at_ms).await.unwrap();
}

async fn reversion(store: &dyn Store, feeder: u32) -> Option<Reversion> {
    let version = stored_feeder(store, feeder).await.version.expect("a version");
    let newest = store.versions(&feeder_name(feeder), &page(1, "")).await.unwrap().items;
    assert_eq!(newest, std::slice::from_ref(&version), "the history says the same");
    version.reversion
}

pub async fn a_farm_change_that_undoes_an_applied_one_says_so(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let applied = command(store, epoch, 1, 2_000, CommandState::Applied, NOW).await;
    assert_eq!(reversion(store, 1).await, None);
    edit(store, epoch, 1, 1_000, NOW + 48 * HOUR).await;
    let undone = Reversion { restored: 1, displaced: 2, command: applied };
    assert_eq!(reversion(store, 1).await, Some(undone));
    let version = stored_feeder(store, 1).await.version.unwrap();
    assert_eq!((version.number, version.author), (3, ConfigAuthor::Farm));

    command(store, epoch, 3, 2_000, CommandState::Applied, NOW).await;
    edit(store, epoch, 3, 1_000, NOW + 48 * HOUR + 1).await;
    assert_eq!(reversion(store, 3).await, None, "later it is a change like any other");
}

/// Every feeder begins with 1,000 mg. Commands set, the farm edits.
pub async fn only_what_undoes_the_newest_applied_change_is_one(store: &dyn Store) {
    use CommandState::{Applied, Rejected};
    add_farm(store).await;
    let mut first = hello(0);
    first.inventory = inventory(9);
    let epoch = open(store, first).await.epoch;
    let at = |hours: i64| NOW + hours * HOUR;

    // Several in a row, and the first one's base comes back.
    command(store, epoch, 1, 2_000, Applied, at(0)).await;
    let newest = command(store, epoch, 1, 3_000, Applied, at(1)).await;
    edit(store, epoch, 1, 1_000, at(2)).await;
    let undone = |restored| Some(Reversion { restored, displaced: 3, command: newest });
    assert_eq!(reversion(store, 1).await, undone(1));
    // Then that of the second: an earlier command's values come back by themselves, too.
    edit(store, epoch, 1, 2_000, at(3)).await;
    assert_eq!(reversion(store, 1).await, undone(2));
    // What the newest set undoes nothing of it.
    edit(store, epoch, 1, 3_000, at(4)).await;
    assert_eq!(reversion(store, 1).await, None);

    // Values that were never there before.
    command(store, epoch, 3, 2_000, Applied, at(0)).await;
    edit(store, epoch, 3, 1_500, at(1)).await;
    assert_eq!(reversion(store, 3).await, None);
    // Those that the farm set since come back: older than the command they are not.
    edit(store, epoch, 3, 1_600, at(2)).await;
    edit(store, epoch, 3, 1_500, at(3)).await;
    assert_eq!(reversion(store, 3).await, None);

    // Nothing was applied.
    command(store, epoch, 4, 2_000, Rejected, at(0)).await;
    edit(store, epoch, 4, 1_500, at(1)).await;
    edit(store, epoch, 4, 1_000, at(2)).await;
    assert_eq!(reversion(store, 4).await, None);

    // The last that was applied changed nothing, and was applied all the same.
    command(store, epoch, 5, 2_000, Applied, at(0)).await;
    let again = command(store, epoch, 5, 2_000, Applied, at(60)).await;
    edit(store, epoch, 5, 1_000, at(61)).await;
    let undone = Reversion { restored: 1, displaced: 2, command: again };
    assert_eq!(reversion(store, 5).await, Some(undone));

    // Back to what the newest set, though it ran before the one ahead of it too.
    command(store, epoch, 7, 2_000, Applied, at(0)).await;
    command(store, epoch, 7, 1_000, Applied, at(1)).await;
    edit(store, epoch, 7, 1_500, at(2)).await;
    edit(store, epoch, 7, 1_000, at(3)).await;
    assert_eq!(reversion(store, 7).await, None);

    // The same as before the command is no change at all.
    command(store, epoch, 6, 1_000, Applied, at(0)).await;
    edit(store, epoch, 6, 1_000, at(1)).await;
    assert_eq!(stored_feeder(store, 6).await.version.unwrap().number, 1);
}

pub async fn an_open_command_tells_what_the_farm_undid_of_the_one_before(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let applied = command(store, epoch, 1, 2_000, CommandState::Applied, NOW).await;
    let open = accept(store, update(store, 1, epoch, 3_000).await).await;
    edit(store, epoch, 1, 1_000, NOW + HOUR).await;
    assert_eq!(stored_feeder(store, 1).await.version.unwrap().number, 2, "its outcome will tell");
    let mut rejected = report(&open, CommandState::Rejected);
    (rejected.reason, rejected.config) = (Reason::ChangedAtFarm, Some(observed(1_000)));
    settle(store, epoch, rejected).await;
    let undone = Reversion { restored: 1, displaced: 2, command: applied };
    assert_eq!(reversion(store, 1).await, Some(undone));
}

pub async fn what_a_hello_finds_undone_is_told_unless_the_database_was_put_back(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let applied = command(store, epoch, 1, 2_000, CommandState::Applied, NOW).await;
    command(store, epoch, 3, 2_000, CommandState::Applied, NOW).await;
    // Written back while the agent was away.
    let mut next = hello(epoch);
    next.inventory.feeders[0].config = Some(observed(1_000));
    next.inventory.feeders[2].config = Some(observed(2_000));
    let epoch = open(store, next.clone()).await.epoch;
    let undone = Reversion { restored: 1, displaced: 2, command: applied };
    assert_eq!(reversion(store, 1).await, Some(undone));
    // The journal saw later epochs: a command that is lost here may have set what the PLC runs.
    next.journal.last_epoch = epoch + 3;
    next.inventory.feeders[2].config = Some(observed(1_000));
    open(store, next).await;
    let version = stored_feeder(store, 3).await.version.unwrap();
    assert_eq!((version.number, version.author), (3, ConfigAuthor::Farm));
    assert_eq!(reversion(store, 3).await, None);
}
