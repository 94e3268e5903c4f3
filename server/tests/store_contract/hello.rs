//! What a hello does: epochs, inventory, and the end of every command of older epochs.

use pasamanos_proto::model::{
    CommandState, ConfigField, FeederConfig, Hello, ObservedConfig, Reason, Resolve, RobotSlot,
    Verdict,
};
use pasamanos_proto::pb::ConfigAuthor;
use pasamanos_server::domain::ports::{
    NewResolution, OpenError, Resolved, SessionOpened, Store, StoredCommand,
};

use crate::kit::*;

pub async fn an_unknown_agent_is_refused(store: &dyn Store) {
    add_farm(store).await;
    let stranger = Hello { agent: agent_named("agent-9"), ..hello(0) };
    assert!(matches!(try_open(store, stranger).await, Err(OpenError::UnknownAgent)));
}

pub async fn epochs_grow_and_never_repeat(store: &dyn Store) {
    assert_eq!(first_session(store).await.epoch, 1);
    let opened = together((0..20).map(|_| open(store, hello(1))).collect()).await;
    let mut epochs: Vec<_> = opened.iter().map(|o| o.epoch).collect();
    epochs.sort_unstable();
    assert_eq!(epochs, (2..=21).collect::<Vec<_>>());
    assert_eq!(open(store, hello(500)).await.epoch, 501, "above what the journal has seen");
    assert_eq!(store.current_epoch(&agent()).await.unwrap(), 501);
    assert_eq!(store.current_epoch(&agent_named("agent-9")).await.unwrap(), 0);
}

pub async fn an_implausible_epoch_is_refused(store: &dyn Store) {
    first_session(store).await;
    let answer = try_open(store, hello(2_000_000)).await;
    assert!(matches!(answer, Err(OpenError::EpochJump)));
    assert_eq!(store.current_epoch(&agent()).await.unwrap(), 1, "nothing changed");
}

pub async fn the_inventory_makes_version_one(store: &dyn Store) {
    let opened = first_session(store).await;
    assert_eq!(opened.time_zone, "America/Santiago");
    assert_eq!(opened.alarms, [""; 0]);
    let feeder = stored_feeder(store, 1).await;
    let version = feeder.version.expect("version 1");
    assert_eq!((version.number, version.author), (1, ConfigAuthor::Farm));
    assert_eq!(version.config, observed(1_000));
    let (number, hash) = version.etag.split_once('-').expect("v1-hash");
    assert_eq!((number, hash.len()), ("v1", 8));
    assert_eq!(feeder.limits, inventory(3).feeders[0].limits);
    for field in ConfigField::ALL {
        let told = &inventory(3).feeders[0].capabilities;
        assert_eq!(feeder.capabilities.field(field), told.field(field), "{field:?}");
    }
    // A hello that says the same makes nothing new; what is missing stays.
    let mut fewer = hello(1);
    fewer.inventory.feeders.truncate(1);
    fewer.inventory.feeders[0].display_name = "Nuevo".into();
    open(store, fewer).await;
    let farm = store.farm(&farm()).await.unwrap().expect("the farm");
    assert_eq!(farm.feeders.len(), 3);
    assert_eq!(farm.feeders[0].display_name, "Nuevo");
    assert!(farm.feeders.iter().all(|f| f.version.as_ref().is_some_and(|v| v.number == 1)));
    assert_eq!(farm.agents[0].seen_ms, Some(NOW));
}

pub async fn a_feeder_of_another_agent_is_refused(store: &dyn Store) {
    first_session(store).await;
    store.add_agent(agent_named("agent-2"), NOW).await.unwrap();
    let mut claim = Hello { agent: agent_named("agent-2"), ..hello(0) };
    claim.inventory.feeders[0].config = Some(observed(9_000));
    let opened = open(store, claim).await;
    assert!(opened.alarms.iter().any(|a| a.contains("feeder-1")), "{:?}", opened.alarms);
    let feeder = stored_feeder(store, 1).await;
    assert_eq!((feeder.agent, feeder.version.unwrap().config), (agent().agent, observed(1_000)));
}

/// Accepts a dose and a hold and loses the session, then opens the next with this hello.
async fn after_loss(
    store: &dyn Store,
    change: impl FnOnce(&mut Hello, &StoredCommand, &StoredCommand),
) -> (SessionOpened, StoredCommand, StoredCommand) {
    let epoch = first_session(store).await.epoch;
    let (dose, hold) = (accept(store, feed(1, epoch)).await, accept(store, hold(3, epoch)).await);
    let mut next = hello(epoch);
    change(&mut next, &dose, &hold);
    let opened = open(store, next).await;
    let (dose, hold) = (stored(store, &dose.name).await, stored(store, &hold.name).await);
    for settled in &opened.settled {
        assert_eq!(*settled, stored(store, &settled.name).await, "as it is stored");
    }
    (opened, dose, hold)
}

pub async fn a_whole_journal_expires_what_it_does_not_hold(store: &dyn Store) {
    let (opened, dose, hold) = after_loss(store, |_, _, _| {}).await;
    assert_eq!(opened.settled, [dose.clone(), hold.clone()]);
    assert_eq!((dose.state, hold.state), (CommandState::Expired, CommandState::Expired));
}

pub async fn listed_outcomes_are_taken_as_listed(store: &dyn Store) {
    let (opened, dose, hold) = after_loss(store, |hello, dose, _| {
        let mut r = report(dose, CommandState::Partial);
        r.dispensed = Some((700, pasamanos_proto::model::Basis::Counted));
        r.reason = Reason::Held;
        r.metadata.insert("robot".into(), "robot-1".into());
        hello.commands.push(r);
    })
    .await;
    assert_eq!(opened.settled.len(), 2);
    assert_eq!((dose.state, dose.reason), (CommandState::Partial, Reason::Held));
    assert_eq!(dose.dispensed, Some((700, pasamanos_proto::model::Basis::Counted)));
    assert_eq!(dose.metadata.get("robot").map(String::as_str), Some("robot-1"));
    assert_eq!(hold.state, CommandState::Expired);
}

pub async fn an_open_intent_stays_in_doubt(store: &dyn Store) {
    let (_, dose, hold) = after_loss(store, |hello, dose, _| {
        hello.commands.push(report(dose, CommandState::Executing));
    })
    .await;
    assert_eq!((dose.state, dose.reason), (CommandState::Uncertain, Reason::AgentLost));
    assert_eq!(hold.state, CommandState::Expired);
}

fn assert_not_whole(commands: [&StoredCommand; 2]) {
    for c in commands {
        assert_eq!((c.state, c.reason), (CommandState::Uncertain, Reason::JournalNotWhole));
    }
}

pub async fn a_journal_that_is_behind_proves_nothing(store: &dyn Store) {
    let (opened, dose, hold) = after_loss(store, |hello, _, _| hello.journal.last_epoch = 0).await;
    assert_not_whole([&dose, &hold]);
    assert!(opened.alarms.iter().any(|a| a.contains("not whole")), "{:?}", opened.alarms);
}

fn slot(hello: &mut Hello, feeder: u32) -> &mut RobotSlot {
    hello.journal.slots.iter_mut().find(|s| s.robot == robot_of(feeder)).expect("its slot")
}

pub async fn a_slot_that_differs_proves_nothing(store: &dyn Store) {
    let (opened, dose, hold) = after_loss(store, |hello, _, _| slot(hello, 1).plc = (9, 5)).await;
    assert_eq!((dose.state, dose.reason), (CommandState::Uncertain, Reason::JournalNotWhole));
    assert_eq!(hold.state, CommandState::Expired, "the other robot's slot agrees");
    assert!(opened.alarms.iter().any(|a| a.contains("robot-1")), "{:?}", opened.alarms);
}

pub async fn an_unreadable_plc_settles_nothing(store: &dyn Store) {
    let (_, dose, hold) = after_loss(store, |hello, _, _| slot(hello, 1).readable = false).await;
    assert_eq!((dose.state, dose.reason), (CommandState::Uncertain, Reason::AgentLost));
    assert_eq!(hold.state, CommandState::Expired);
}

pub async fn a_restored_database_proves_nothing(store: &dyn Store) {
    let (opened, dose, hold) = after_loss(store, |hello, _, _| hello.journal.last_epoch = 40).await;
    assert_eq!(opened.epoch, 41);
    assert_not_whole([&dose, &hold]);
    assert!(opened.alarms.iter().any(|a| a.contains("put back")), "{:?}", opened.alarms);
}

pub async fn a_journal_settles_an_older_doubt(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let dose = accept(store, feed(1, epoch)).await;
    store.close_session(&agent(), epoch, NOW).await.unwrap();
    let mut next = hello(epoch);
    next.commands.push(report(&dose, CommandState::Applied));
    let opened = open(store, next).await;
    assert_eq!(opened.settled.len(), 1);
    assert_eq!(stored(store, &dose.name).await.state, CommandState::Applied);
}

pub async fn what_was_settled_before_is_named(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let done = accept(store, hold(1, epoch)).await;
    settle(store, epoch, report(&done, CommandState::Applied)).await;
    let mut next = hello(epoch);
    next.commands.push(report(&done, CommandState::Applied));
    let opened = open(store, next.clone()).await;
    assert_eq!(opened.settled, []);
    assert_eq!(opened.known.iter().map(|c| &c.name).collect::<Vec<_>>(), [&done.name]);
    assert_eq!(opened.alarms, [""; 0]);
    // It contradicts itself: alarmed, nothing changes.
    next.commands[0].state = CommandState::Rejected;
    next.journal.last_epoch = 2;
    let opened = open(store, next).await;
    assert!(opened.alarms.iter().any(|a| a.contains("contradicts")), "{:?}", opened.alarms);
    assert_eq!(stored(store, &done.name).await.state, CommandState::Applied);
}

fn finds(hello: &mut Hello, feeder: usize, portion_mg: i32) {
    hello.inventory.feeders[feeder - 1].config = Some(observed(portion_mg));
}

pub async fn a_config_made_at_the_farm_becomes_a_version(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let mut next = hello(epoch);
    finds(&mut next, 1, 1_200);
    next.inventory.feeders[1].config = None;
    open(store, next).await;
    let version = stored_feeder(store, 1).await.version.unwrap();
    assert_eq!((version.number, version.author), (2, ConfigAuthor::Farm));
    assert_eq!(version.config, observed(1_200));
    let unread = stored_feeder(store, 2).await.version.unwrap();
    assert_eq!(unread.number, 1, "what could not be read is not forgotten");
}

pub async fn a_config_in_doubt_is_not_credited_to_the_farm(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let new = accept(store, update(store, 1, epoch, 2_000).await).await;
    // The PLC runs the new values, and the journal does not say whose they are.
    let mut next = hello(0);
    finds(&mut next, 1, 2_000);
    let opened = open(store, next).await;
    assert_eq!(opened.settled[0].state, CommandState::Uncertain);
    let version = stored_feeder(store, 1).await.version.unwrap();
    assert_eq!(version.command, Some(new.name.request), "in doubt, and nobody else set it");
    // The journal's outcome says the same.
    let mut next = hello(opened.epoch);
    finds(&mut next, 1, 2_000);
    let mut applied = report(&new, CommandState::Applied);
    applied.config = Some(observed(2_000));
    next.commands.push(applied);
    open(store, next).await;
    let version = stored_feeder(store, 1).await.version.unwrap();
    assert_eq!((version.number, version.author), (2, ConfigAuthor::Command));
    assert_eq!(version.command, Some(new.name.request));
    let ObservedConfig::Valid(FeederConfig { portion_mg, .. }) = version.config else {
        panic!("within the rules")
    };
    assert_eq!(portion_mg, Some(2_000));
}

/// RULES 6.1: what the farm set meanwhile is its own, whatever becomes of a command in doubt.
pub async fn a_farm_edit_beside_a_config_in_doubt_is_the_farms(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    accept(store, update(store, 1, epoch, 2_000).await).await;
    let mut next = hello(0);
    finds(&mut next, 1, 1_300);
    let opened = open(store, next).await;
    assert_eq!(opened.settled[0].state, CommandState::Uncertain);
    let version = stored_feeder(store, 1).await.version.unwrap();
    assert_eq!((version.number, version.author), (2, ConfigAuthor::Farm));
    assert_eq!((version.command, version.config), (None, observed(1_300)));
}

pub async fn a_persons_settlement_is_told_again(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let dose = accept(store, feed(1, epoch)).await;
    store.close_session(&agent(), epoch, NOW).await.unwrap();
    let resolution = NewResolution {
        command: dose.name.clone(),
        request: request(),
        what: Resolve { verdict: Verdict::NotFed, fed_mg: None },
        who: "ana".into(),
        note: "nothing fell".into(),
        now_ms: NOW,
    };
    assert!(matches!(store.resolve(resolution).await.unwrap(), Resolved::Done(_)));
    let mut next = hello(epoch);
    next.commands.push(report(&dose, CommandState::Executing));
    let opened = open(store, next).await;
    assert_eq!(opened.resolved.iter().map(|c| &c.name).collect::<Vec<_>>(), [&dose.name]);
    assert!(opened.resolved[0].resolution.is_some());
}

pub async fn lost_records_become_one_gap(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let items = [pasamanos_server::domain::ports::Ingest::Records(batch("incarnation-1", 1..=3))];
    store.ingest(&agent(), epoch, &items, NOW).await.unwrap();
    let mut next = hello(epoch);
    (next.journal.record_high_water, next.journal.oldest_record) = (12, 8);
    let opened = open(store, next.clone()).await;
    assert_eq!(opened.records_through, 7);
    assert!(opened.alarms.iter().any(|a| a.contains("4 to 7")), "{:?}", opened.alarms);
    next.journal.last_epoch = opened.epoch;
    let opened = open(store, next).await;
    assert_eq!((opened.records_through, opened.alarms.len()), (7, 0), "told once");
    let items = [pasamanos_server::domain::ports::Ingest::Records(batch("incarnation-1", 8..=12))];
    store.ingest(&agent(), opened.epoch, &items, NOW).await.unwrap();
    assert_eq!(store.doses(&farm(), None, &page(100, "")).await.unwrap().items.len(), 8);
}

pub async fn a_dead_process_leaves_doubt(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let a = accept(store, hold(1, epoch)).await;
    let b = accept(store, hold(3, epoch)).await;
    settle(store, epoch, report(&b, CommandState::Applied)).await;
    assert_eq!(store.close_all_sessions(NOW).await.unwrap(), 1);
    let a = stored(store, &a.name).await;
    assert_eq!((a.state, a.reason), (CommandState::Uncertain, Reason::AgentLost));
    assert_eq!(store.close_all_sessions(NOW).await.unwrap(), 0);
}
