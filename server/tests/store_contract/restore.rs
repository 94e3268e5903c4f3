//! A database that was put back: what it says of commands stays true, and what only an agent's journal
//! knows is taken in.

use pasamanos_proto::model::{
    AuditAnchor, CommandReport, CommandState, Hello, Reason, Resolve, Verdict,
};
use pasamanos_proto::pb::ConfigAuthor;
use pasamanos_server::domain::ports::{
    Ingest, Ingested, NewResolution, Resolved, Store, StoredCommand,
};
use pasamanos_server::store::{Chain, SqliteStore};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

use crate::kit::*;

/// Stores an outcome; answers the place in the audit chain that its acknowledgement tells.
async fn acknowledged(store: &dyn Store, epoch: i64, report: CommandReport) -> AuditAnchor {
    match ingest(store, epoch, Ingest::Outcome(Box::new(report))).await {
        Ingested::Outcome { anchor, .. } => anchor,
        other => panic!("{other:?}"),
    }
}

/// A hello that lists these, as the journal has them.
fn listing(hello: Hello, commands: &[(&StoredCommand, CommandReport)]) -> Hello {
    Hello {
        orders: commands.iter().map(|(c, _)| order(c)).collect(),
        commands: commands.iter().map(|(_, r)| r.clone()).collect(),
        ..hello
    }
}

/// A copy made beside the running server, and put back before the agent opened another session: epochs
/// say nothing. A dose that was open in the copy, and was given and acknowledged since, must not be
/// called expired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_copy_made_in_an_open_session_expires_nothing() {
    let dir = tempfile::TempDir::new().unwrap();
    let (file, copy) = (dir.path().join("pasamanos.db"), dir.path().join("copy.db"));
    let store = SqliteStore::open(&file).await.unwrap();
    let epoch = first_session(&store).await.epoch;
    let dose = accept(&store, feed(1, epoch)).await;
    let held = accept(&store, hold(3, epoch)).await;
    let early = acknowledged(&store, epoch, report(&held, CommandState::Applied)).await;
    let mut beside = SqliteConnectOptions::new().filename(&file).connect().await.unwrap();
    let into = format!("VACUUM INTO '{}'", copy.display());
    sqlx::query(sqlx::AssertSqlSafe(into)).execute(&mut beside).await.unwrap();
    let late = acknowledged(&store, epoch, report(&dose, CommandState::Applied)).await;
    let after = accept(&store, hold(3, epoch)).await;
    acknowledged(&store, epoch, report(&after, CommandState::Applied)).await;
    store.close().await;

    // Had nothing been acknowledged since the copy, absence would prove what it always does.
    let put_back = |to: &str| {
        let to = dir.path().join(to);
        std::fs::copy(&copy, &to).unwrap();
        to
    };
    let store = SqliteStore::open(&put_back("unheard.db")).await.unwrap();
    assert_eq!(store.close_all_sessions(NOW).await.unwrap(), 1);
    let mut unheard = hello(epoch);
    unheard.journal.anchor = Some(early);
    let opened = open(&store, unheard).await;
    assert_eq!(stored(&store, &dose.name).await.state, CommandState::Expired);
    assert!(!opened.tell_again && opened.alarms.is_empty(), "{:?}", opened.alarms);
    store.close().await;

    let store = SqliteStore::open(&put_back("put-back.db")).await.unwrap();
    // The chain goes on from the copy, past the place that the agent was told.
    assert_eq!(store.close_all_sessions(NOW).await.unwrap(), 1);
    store.add_agent(agent_named("agent-2"), NOW).await.unwrap();
    store.add_agent(agent_named("agent-3"), NOW).await.unwrap();
    let mut heard = hello(epoch);
    heard.journal.anchor = Some(late);
    let opened = open(&store, heard).await;
    let doubted = stored(&store, &dose.name).await;
    assert_eq!((doubted.state, doubted.reason), (CommandState::Uncertain, Reason::JournalNotWhole));
    assert!(opened.alarms.iter().any(|a| a.contains("put back")), "{:?}", opened.alarms);
    assert!(opened.tell_again);

    // The agent tells again what was acknowledged: the truth, and what the copy never had.
    let mut again = listing(
        hello(opened.epoch),
        &[
            (&dose, report(&dose, CommandState::Applied)),
            (&held, report(&held, CommandState::Applied)),
            (&after, report(&after, CommandState::Applied)),
        ],
    );
    again.journal.anchor = Some(opened.anchor);
    let opened = open(&store, again).await;
    assert!(!opened.tell_again, "once");
    assert_eq!(stored(&store, &dose.name).await.state, CommandState::Applied);
    let adopted = stored(&store, &after.name).await;
    assert_eq!((adopted.state, adopted.number), (CommandState::Applied, after.number));
    assert!(store.verify_audit(&Chain::Farm(farm()), None).await.unwrap().intact());
    store.close().await;
}

/// A farm whose database knows nothing of what its agent did.
async fn forgotten(store: &dyn Store) -> StoredCommand {
    // As accepted by the database that was lost.
    let epoch = first_session(store).await.epoch;
    let dose = accept(store, feed(1, epoch)).await;
    settle(store, epoch, report(&dose, CommandState::Rejected)).await;
    StoredCommand { name: command_name(request()), number: 12, epoch: 7, ..dose }
}

pub async fn a_dose_that_only_the_journal_knows_is_taken_in_and_can_be_settled(store: &dyn Store) {
    let lost = forgotten(store).await;
    let mut open_intent = report(&lost, CommandState::Executing);
    open_intent.journaled_epoch = 7;
    let opened = open(store, listing(hello(8), &[(&lost, open_intent)])).await;
    let adopted = stored(store, &lost.name).await;
    assert_eq!(opened.settled, std::slice::from_ref(&adopted), "it is shown");
    assert_eq!((adopted.state, adopted.reason), (CommandState::Uncertain, Reason::AgentLost));
    assert_eq!((&adopted.action, adopted.number, adopted.epoch), (&lost.action, 12, 7));
    assert_eq!((adopted.author.as_str(), adopted.note.as_str()), ("ana", "before the storm"));
    // It locks its robot here as it does at the farm, and a person can unlock it.
    let refused = try_accept(store, feed(2, opened.epoch)).await;
    assert!(refused.is_err(), "{refused:?}");
    let said = NewResolution {
        command: lost.name.clone(),
        request: request(),
        what: Resolve { verdict: Verdict::Fed, fed_mg: None },
        who: "ana".into(),
        note: "it lies in the tank".into(),
        now_ms: NOW,
    };
    assert!(matches!(store.resolve(said).await.unwrap(), Resolved::Done(_)));
    let next = accept(store, feed(2, opened.epoch)).await;
    assert_eq!(next.number, 1, "of its own feeder");
    assert_eq!(accept(store, hold(1, opened.epoch)).await.number, 13, "above what was");
    // The fence's word comes later: it is stored, not refused.
    let (after, _, changed) =
        settle(store, opened.epoch, report(&lost, CommandState::Applied)).await;
    assert!(changed && after.state == CommandState::Applied && after.resolution.is_some());
}

pub async fn a_config_that_only_the_journal_knows_becomes_its_version(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let known = accept(store, update(store, 1, epoch, 2_000).await).await;
    settle(store, epoch, report(&known, CommandState::Rejected)).await;
    let older = StoredCommand { name: command_name(request()), ..known.clone() };
    let newer = StoredCommand { name: command_name(request()), ..known };
    let applied = |c: &StoredCommand, portion_mg| {
        let mut report = report(c, CommandState::Applied);
        report.config = Some(observed(portion_mg));
        report
    };
    let mut hello =
        listing(hello(9), &[(&older, applied(&older, 1_700)), (&newer, applied(&newer, 2_000))]);
    hello.inventory.feeders[0].config = Some(observed(2_000));
    open(store, hello).await;
    let version = stored_feeder(store, 1).await.version.unwrap();
    assert_eq!((version.number, version.author), (2, ConfigAuthor::Command), "not the farm's");
    assert_eq!((version.command, version.config), (Some(newer.name.request), observed(2_000)));
    assert_eq!(stored(store, &older.name).await.state, CommandState::Applied);
}

pub async fn what_cannot_be_taken_in_is_alarmed(store: &dyn Store) {
    let lost = forgotten(store).await;
    store.add_agent(agent_named("agent-2"), NOW).await.unwrap();
    let outcome = report(&lost, CommandState::Applied);
    // An agent of an older release does not say what it was.
    let bare = Hello { commands: vec![outcome.clone()], ..hello(8) };
    // Another agent's feeder; another body than the one that ran.
    let foreign =
        listing(Hello { agent: agent_named("agent-2"), ..hello(8) }, &[(&lost, outcome.clone())]);
    let mut other = lost.clone();
    other.action = pasamanos_proto::model::Action::Hold;
    let body = Hello { orders: vec![order(&other)], ..bare.clone() };
    for strange in [bare, foreign, body] {
        let opened = open(store, Hello { inventory: inventory(3), ..strange }).await;
        let named = |a: &String| a.contains(&lost.name.to_string());
        assert!(opened.alarms.iter().any(named), "{:?}", opened.alarms);
        assert_eq!(store.command(&lost.name).await.unwrap(), None);
    }
}

pub async fn an_agent_without_an_anchor_proves_nothing_by_absence(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let dose = accept(store, feed(1, epoch)).await;
    let mut old = hello(epoch);
    old.journal.anchor = None;
    let opened = open(store, old).await;
    let doubted = stored(store, &dose.name).await;
    assert_eq!((doubted.state, doubted.reason), (CommandState::Uncertain, Reason::JournalNotWhole));
    assert!(!opened.tell_again, "it is no sign that the database was put back");
}
