//! What a session may report, and what it changes.

use pasamanos_proto::model::{Action, CommandState, ObservedConfig, Reason, Resolve, Verdict};
use pasamanos_proto::pb;
use pasamanos_proto::pb::ConfigAuthor;
use pasamanos_server::domain::ports::{
    AcceptError, Ingest, IngestError, Ingested, NewResolution, Resolved, Store,
};

use crate::kit::*;

pub async fn an_outcome_changes_command_and_config_together(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let new = accept(store, update(store, 1, epoch, 2_000).await).await;
    let mut applied = report(&new, CommandState::Applied);
    applied.config = Some(observed(2_000));
    let (command, feeder, changed) = settle(store, epoch, applied).await;
    assert!(changed);
    assert_eq!((command.state, command.settled_ms), (CommandState::Applied, Some(NOW + 1_000)));
    let version = feeder.version.clone().expect("a version");
    assert_eq!((version.number, version.author), (2, ConfigAuthor::Command));
    assert_eq!(version.command, Some(new.name.request));
    assert_eq!(feeder.pending, None);
    assert_eq!(stored_feeder(store, 1).await, feeder);
    assert_eq!(stored(store, &new.name).await, command);
}

pub async fn a_mixture_is_the_commands_and_not_the_farms(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let new = accept(store, update(store, 1, epoch, 2_000).await).await;
    let mut mixed = report(&new, CommandState::Uncertain);
    mixed.reason = Reason::ConfigMixed;
    mixed.config = Some(observed(1_700));
    let (_, feeder, _) = settle(store, epoch, mixed).await;
    let version = feeder.version.expect("a version");
    assert_eq!((version.number, version.author), (2, ConfigAuthor::Command));
    assert_eq!(version.command, Some(new.name.request));
}

pub async fn an_outcome_that_comes_again_changes_nothing(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let new = accept(store, hold(1, epoch)).await;
    let (first, ..) = settle(store, epoch, report(&new, CommandState::Applied)).await;
    let (again, _, changed) = settle(store, epoch, report(&new, CommandState::Applied)).await;
    assert!(!changed);
    assert_eq!(again, first);
}

pub async fn only_uncertain_changes_and_only_once(store: &dyn Store) {
    use CommandState::{Applied, Executing, Expired, Rejected, Uncertain};
    let epoch = first_session(store).await.epoch;
    let new = accept(store, hold(1, epoch)).await;
    for (reported, expected, changes) in [
        (Executing, CommandState::Accepted, false),
        (Uncertain, Uncertain, true),
        (Uncertain, Uncertain, false),
        (Applied, Applied, true),
        (Rejected, Applied, false),
        (Expired, Applied, false),
        (Uncertain, Applied, false),
    ] {
        let (command, _, changed) = settle(store, epoch, report(&new, reported)).await;
        assert_eq!((command.state, changed), (expected, changes), "{reported:?}");
    }
}

pub async fn a_superseded_session_cannot_report(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let new = accept(store, hold(1, epoch)).await;
    let next = open(store, hello(epoch)).await.epoch;
    for wrong in [epoch, next + 1] {
        let late = Ingest::Outcome(Box::new(report(&new, CommandState::Applied)));
        assert!(matches!(try_ingest(store, wrong, late).await, Err(IngestError::Fenced)));
    }
    assert_eq!(stored(store, &new.name).await.state, CommandState::Expired);
}

fn refused(done: &Ingested) -> bool {
    matches!(done, Ingested::Refused { .. })
}

pub async fn another_body_is_refused(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let new = accept(store, feed(1, epoch)).await;
    let mut forged = report(&new, CommandState::Applied);
    forged.body_hash = Action::Hold.body_hash(&new.feeder);
    assert!(refused(&ingest(store, epoch, Ingest::Outcome(Box::new(forged))).await));
    let unknown = report_of(command_name(request()), new.request_hash, CommandState::Applied);
    assert!(refused(&ingest(store, epoch, Ingest::Outcome(Box::new(unknown))).await));
    assert_eq!(stored(store, &new.name).await.state, CommandState::Accepted);
}

pub async fn another_agents_command_is_refused(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let new = accept(store, hold(1, epoch)).await;
    let other = agent_named("agent-2");
    store.add_agent(other.clone(), NOW).await.unwrap();
    let mut theirs = hello(0);
    theirs.agent = other.clone();
    theirs.inventory = pasamanos_proto::model::Inventory::default();
    let their_epoch = open(store, theirs).await.epoch;
    let claim = [
        Ingest::Outcome(Box::new(report(&new, CommandState::Applied))),
        Ingest::Config(feeder_id(1), observed(9_000)),
    ];
    let done = store.ingest(&other, their_epoch, &claim, NOW).await.unwrap();
    assert!(refused(&done[0]) && matches!(done[1], Ingested::Config(None)), "{done:?}");
    assert_eq!(stored(store, &new.name).await.state, CommandState::Accepted);
    assert_eq!(stored_feeder(store, 1).await.version.unwrap().number, 1);
}

pub async fn a_late_outcome_of_an_older_epoch_settles_a_doubt(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let dose = accept(store, feed(1, epoch)).await;
    let mut next = hello(epoch);
    next.commands.push(report(&dose, CommandState::Executing));
    let next = open(store, next).await.epoch;
    assert_eq!(stored(store, &dose.name).await.state, CommandState::Uncertain);
    let (command, _, changed) = settle(store, next, report(&dose, CommandState::Expired)).await;
    assert!(changed && command.state == CommandState::Expired, "the fence's result");
}

pub async fn a_farm_edit_becomes_a_version(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let edit = || Ingest::Config(feeder_id(1), observed(1_300));
    let Ingested::Config(Some(feeder)) = ingest(store, epoch, edit()).await else {
        panic!("a new version")
    };
    let version = feeder.version.expect("a version");
    assert_eq!((version.number, version.author, version.command), (2, ConfigAuthor::Farm, None));
    assert!(matches!(ingest(store, epoch, edit()).await, Ingested::Config(None)), "the same again");
    // A command based on the version before is stale.
    let mut stale = update(store, 1, epoch, 2_000).await;
    stale.etag = Some("v1-deadbeef".into());
    assert!(matches!(try_accept(store, stale).await, Err(AcceptError::EtagMismatch)));
}

pub async fn a_config_report_waits_for_the_open_command(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let new = accept(store, update(store, 1, epoch, 2_000).await).await;
    let seen = || Ingest::Config(feeder_id(1), observed(2_000));
    assert!(matches!(ingest(store, epoch, seen()).await, Ingested::Config(None)));
    let mut rejected = report(&new, CommandState::Rejected);
    (rejected.reason, rejected.config) = (Reason::ChangedAtFarm, Some(observed(1_700)));
    let (_, feeder, _) = settle(store, epoch, rejected).await;
    let version = feeder.version.expect("a version");
    assert_eq!((version.author, version.config), (ConfigAuthor::Farm, observed(1_700)));
}

/// RULES 6.5: what a late write set is told by the PLC before its own outcome is.
pub async fn a_late_write_that_shows_before_its_outcome_is_the_commands(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let new = accept(store, update(store, 1, epoch, 2_000).await).await;
    let mut doubt = report(&new, CommandState::Uncertain);
    doubt.reason = Reason::ReadbackNotProven;
    settle(store, epoch, doubt).await;
    ingest(store, epoch, Ingest::Config(feeder_id(1), observed(1_300))).await;
    let version = stored_feeder(store, 1).await.version.expect("a version");
    assert_eq!((version.author, version.command), (ConfigAuthor::Farm, None), "another value");
    ingest(store, epoch, Ingest::Config(feeder_id(1), observed(2_000))).await;
    let mut applied = report(&new, CommandState::Applied);
    applied.config = Some(observed(2_000));
    let (_, feeder, _) = settle(store, epoch, applied).await;
    let version = feeder.version.expect("a version");
    assert_eq!((version.number, version.author), (3, ConfigAuthor::Command));
    assert_eq!(version.command, Some(new.name.request));
}

/// RULES 6.5: an older doubt that ends reads what a newer command set, and is told before that one's end.
pub async fn what_an_older_doubt_reads_is_the_newer_commands(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let older = accept(store, update(store, 1, epoch, 1_300).await).await;
    let mut doubt = report(&older, CommandState::Uncertain);
    doubt.reason = Reason::ReadbackNotProven;
    settle(store, epoch, doubt).await;
    let resolution = NewResolution {
        command: older.name.clone(),
        request: request(),
        what: Resolve { verdict: Verdict::NotFed, fed_mg: None },
        who: "ana".into(),
        note: "it does not show".into(),
        now_ms: NOW,
    };
    assert!(matches!(store.resolve(resolution).await.unwrap(), Resolved::Done(_)));
    let newer = accept(store, update(store, 1, epoch, 2_000).await).await;
    let mut ended = report(&older, CommandState::Rejected);
    (ended.reason, ended.config) = (Reason::ChangedAtFarm, Some(observed(2_000)));
    let (_, feeder, _) = settle(store, epoch, ended).await;
    let version = feeder.version.expect("a version");
    assert_eq!((version.number, version.author), (2, ConfigAuthor::Command));
    assert_eq!(version.command, Some(newer.name.request));
}

pub async fn a_raw_config_is_stored_as_it_is(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let raw = pb::FeederConfig {
        mode: pb::FeederMode::Automatic.into(),
        portion_mg: Some(9_000_000),
        ..Default::default()
    };
    let seen = ObservedConfig::from(raw);
    assert!(seen.valid().is_none());
    ingest(store, epoch, Ingest::Config(feeder_id(1), seen.clone())).await;
    assert_eq!(stored_feeder(store, 1).await.version.unwrap().config, seen);
}

pub async fn the_end_lifts_the_dose_lock(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    for end in [CommandState::Applied, CommandState::Rejected, CommandState::Expired] {
        let dose = accept(store, feed(1, epoch)).await;
        assert!(matches!(
            try_accept(store, feed(2, epoch)).await,
            Err(AcceptError::DoseUnsettled(_))
        ));
        settle(store, epoch, report(&dose, end)).await;
    }
    accept(store, feed(2, epoch)).await;
}

pub async fn what_a_plc_came_up_with_is_nobodys(store: &dyn Store) {
    let author = |version: pasamanos_server::domain::ports::StoredVersion| {
        assert_eq!(version.reversion, None, "nobody undid anything");
        (version.number, version.author, version.command)
    };
    let epoch = first_session(store).await.epoch;
    let new = accept(store, update(store, 1, epoch, 2_000).await).await;
    let mut applied = report(&new, CommandState::Applied);
    applied.config = Some(observed(2_000));
    settle(store, epoch, applied).await;
    // What ran before the command: as a farm's edit it would be called an undoing.
    ingest(store, epoch, Ingest::MemoryLost(feeder_id(1), observed(1_000))).await;
    let version = stored_feeder(store, 1).await.version.unwrap();
    assert_eq!(author(version), (3, ConfigAuthor::PlcMemoryLost, None));
    // With the outcome of a command that met it.
    let new = accept(store, update(store, 1, epoch, 3_000).await).await;
    let mut rejected = report(&new, CommandState::Rejected);
    (rejected.reason, rejected.config) = (Reason::ChangedAtFarm, Some(observed(1_100)));
    rejected.memory_lost = true;
    let (_, feeder, _) = settle(store, epoch, rejected).await;
    assert_eq!(author(feeder.version.unwrap()), (4, ConfigAuthor::PlcMemoryLost, None));
    // Found in a hello.
    let mut next = hello(epoch);
    next.inventory.feeders[0].config = Some(observed(1_200));
    next.inventory.feeders[0].memory_lost = true;
    open(store, next).await;
    let version = stored_feeder(store, 1).await.version.unwrap();
    assert_eq!(author(version), (5, ConfigAuthor::PlcMemoryLost, None));
}
