//! What a caller is answered, and when.

use std::time::Duration;

use futures_util::StreamExt as _;
use pasamanos_proto::model::{
    Action, CommandState, ConfigField, FeederConfig, FieldSet, Mutation, PageRequest, Reason,
    Resolve, UpdateConfig, Verdict,
};
use pasamanos_proto::pb::{self, connect_request};
use pasamanos_server::control::Caller;
use pasamanos_server::domain::ports::{Clock as _, Ingest};
use pasamanos_server::domain::{Error, ErrorKind};

use crate::farm::*;
use crate::kit::*;

const SOON: Duration = Duration::from_millis(200);

fn state_of(command: Option<&pb::Command>) -> Option<pb::CommandState> {
    command.map(pb::Command::state)
}

async fn nothing_is_stored(server: &Server) {
    let page = PageRequest { size: 10, after: String::new() };
    let stored = server.control.commands(&farm(), None, &page).await.unwrap();
    assert_eq!(stored.items, []);
}

/// RULES 2.3: the key is there and the session is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_an_agent_between_two_sessions_is_moving_and_nothing_is_left_behind() {
    let server = Server::start().await;
    let agent = server.connect(hello(0)).await;
    let _gone = agent.vanish().await;
    for action in [Action::Hold, Action::FeedNow { portion_mg: 100 }] {
        let e = server.ask(request(), 1, action, SOON).await.unwrap_err();
        assert_eq!((e.kind, e.reason), (ErrorKind::Unavailable, Reason::AgentMoving));
        assert_eq!(e.retry_after, Some(Duration::from_secs(1)));
        assert_eq!(e.metadata["agent"], agent_name());
    }
    nothing_is_stored(&server).await;
    // It is back: the same question passes.
    let mut agent = server.connect(hello(1)).await;
    let asked = server.asking(request(), 1, Action::Hold);
    let command = agent.command().await;
    agent.says(&command, pb::CommandState::Applied).await;
    let answer = asked.await.unwrap().unwrap();
    assert_eq!(state_of(answer.command.as_ref()), Some(pb::CommandState::Applied));
}

fn agent_name() -> String {
    agent().to_string()
}

/// RULES 4.3.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_without_an_outcome_in_time_the_caller_learns_the_name_or_that_the_dose_runs() {
    let server = Server::start().await;
    let mut agent = server.connect(hello(0)).await;
    let id = request();
    let e = server.ask(id, 3, Action::Hold, SOON).await.unwrap_err();
    assert_eq!((e.kind, e.reason), (ErrorKind::DeadlineExceeded, Reason::OutcomePending));
    assert_eq!(e.metadata["command"], named(id).to_string());
    // It goes on: the same request is the same command, and its outcome is the answer.
    let command = agent.command().await;
    assert_eq!(command.command, named(id).to_string());
    agent.says(&command, pb::CommandState::Applied).await;
    let answer = server.ask(id, 3, Action::Hold, TTL).await.unwrap();
    assert_eq!(state_of(answer.command.as_ref()), Some(pb::CommandState::Applied));

    // A dose that was begun is no error, whoever asks.
    let (id, feed) = (request(), Action::FeedNow { portion_mg: 100 });
    let asked = server.asking(id, 1, feed.clone());
    let command = agent.command().await;
    agent.says(&command, pb::CommandState::Executing).await;
    eventually("it is begun", || async {
        server.control.command(&named(id)).await.unwrap().state() == pb::CommandState::Executing
    })
    .await;
    let answer = server.ask(id, 1, feed, SOON).await.unwrap();
    assert_eq!(state_of(answer.command.as_ref()), Some(pb::CommandState::Executing));
    // Who still waits is answered by the outcome.
    agent.says(&command, pb::CommandState::Rejected).await;
    let answer = asked.await.unwrap().unwrap();
    assert_eq!(state_of(answer.command.as_ref()), Some(pb::CommandState::Rejected));
}

fn portion(mg: i32, etag: &str) -> UpdateConfig {
    UpdateConfig {
        patch: FeederConfig { portion_mg: Some(mg), ..config(mg) },
        fields: FieldSet::from_iter([ConfigField::Portion]),
        etag: etag.into(),
    }
}

async fn update(server: &Server, update: UpdateConfig) -> Result<pb::Command, Error> {
    let caller = Caller { author: "ana".into(), wait: TTL, request_hash: hash(&update.etag) };
    let m = mutation(feeder_name(1), request(), update);
    Ok(server.control.update_config(m, caller).await?.command.expect("a command"))
}

/// RULES 4.3 and 6.2: the one end that is an error, with what the farm runs now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_config_that_met_a_change_at_the_farm_is_aborted_with_the_current_one() {
    let server = Server::start().await;
    let mut agent = server.connect(hello(0)).await;
    let etag = stored_feeder(&*server.control.store, 1).await.version.unwrap().etag;
    let met = async {
        let command = agent.command().await;
        let report = pb::CommandUpdate {
            state: pb::CommandState::Rejected.into(),
            reason: "CHANGED_AT_FARM".into(),
            config: Some(config(900).into()),
            ..Default::default()
        };
        agent.report(&command, report).await;
        command.command
    };
    let (answer, name) = tokio::join!(update(&server, portion(1_200, &etag)), met);
    let e = answer.unwrap_err();
    assert_eq!((e.kind, e.reason), (ErrorKind::Aborted, Reason::ChangedAtFarm));
    assert_eq!(e.metadata["command"], name);
    let now = e.feeder.expect("the current feeder");
    assert_eq!(now.config.unwrap().portion_mg, Some(900));
    assert_ne!(now.etag, etag);
    let stored = server.control.command(&name.parse().unwrap()).await.unwrap();
    assert_eq!(stored.state(), pb::CommandState::Rejected, "the command has its end");
}

/// RULES 1.1: what is wrong with the request is said before whether the farm is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_etag_and_the_locks_are_asked_before_the_gate() {
    let server = Server::start().await;
    let mut agent = server.connect(hello(0)).await;
    let etag = stored_feeder(&*server.control.store, 1).await.version.unwrap().etag;
    let said = pb::AgentGoodbye { detail: "stopping".into() };
    agent.send(connect_request::Frame::Goodbye(said)).await;
    let _left = agent.ended().await;
    let e = update(&server, portion(1_200, "v9-00000000")).await.unwrap_err();
    assert_eq!((e.kind, e.reason), (ErrorKind::Aborted, Reason::EtagMismatch));
    assert!(e.feeder.is_some());
    let e = update(&server, portion(1_200, &etag)).await.unwrap_err();
    assert_eq!((e.kind, e.reason), (ErrorKind::FailedPrecondition, Reason::AgentOffline));
    nothing_is_stored(&server).await;
}

/// RULES 1.3: a request that is inside and not yet in the store may be accepted any moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_command_says_not_found_only_when_the_request_has_ended() {
    use std::sync::atomic::Ordering::SeqCst;
    let server = Server::start().await;
    let mut agent = server.connect(hello(0)).await;
    let id = request();
    server.leases.slow.store(true, SeqCst);
    let asked = server.asking(id, 3, Action::Hold);
    server.leases.reading.notified().await;
    let e = server.control.command(&named(id)).await.unwrap_err();
    assert_eq!((e.kind, e.reason), (ErrorKind::Unavailable, Reason::AcceptanceUnknown));
    let e = server.control.command(&named(request())).await.unwrap_err();
    assert_eq!(e.kind, ErrorKind::NotFound, "of another id nothing is under way");
    server.leases.slow.store(false, SeqCst);
    server.leases.go.notify_one();
    let command = agent.command().await;
    agent.says(&command, pb::CommandState::Applied).await;
    asked.await.unwrap().unwrap();
    assert_eq!(
        server.control.command(&named(id)).await.unwrap().state(),
        pb::CommandState::Applied
    );
}

/// RULES 3.1: a client that lost the answer repeats its request after the database was put back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_command_that_was_taken_in_answers_its_own_request_and_no_other() {
    let server = Server::start().await;
    let epoch = server.epoch_of(hello(0)).await;
    let dose = accept(&*server.control.store, feed(1, epoch)).await;
    settle(&*server.control.store, epoch, report(&dose, CommandState::Rejected)).await;
    // The farm knows another, which this database never saw.
    let mut lost = dose.clone();
    lost.name = named(request());
    let mut again = hello(7);
    again.commands.push(report(&lost, CommandState::Applied));
    again.orders.push(order(&lost));
    let _agent = server.connect(again).await;
    let id = lost.name.request;
    let same = Action::FeedNow { portion_mg: 1_500 };
    let answer = server.ask(id, 1, same.clone(), SOON).await.unwrap();
    assert_eq!(state_of(answer.command.as_ref()), Some(pb::CommandState::Applied));
    let others = [(1, Action::FeedNow { portion_mg: 1_600 }), (1, Action::Hold), (2, same)];
    for (feeder, other) in others {
        let e = server.ask(id, feeder, other, SOON).await.unwrap_err();
        assert_eq!((e.kind, e.reason), (ErrorKind::AlreadyExists, Reason::RequestIdReused));
    }
}

/// RULES 7.3.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_a_stopping_server_answers_who_waits_and_still_takes_the_outcome() {
    let server = Server::start().await;
    let mut agent = server.connect(hello(0)).await;
    let id = request();
    let asked = server.asking(id, 3, Action::Hold);
    let command = agent.command().await;
    server.control.stopping.cancel();
    let e = asked.await.unwrap().unwrap_err();
    assert_eq!((e.kind, e.reason), (ErrorKind::Unavailable, Reason::ServerStopping));
    assert_eq!(e.metadata["command"], named(id).to_string());
    let e = server.ask(request(), 3, Action::Hold, SOON).await.unwrap_err();
    assert_eq!(e.reason, Reason::ServerStopping, "nothing new is accepted");
    // The agent is told to come back, and what is open may still end.
    while !matches!(agent.next().await.expect("a drain"), pb::connect_response::Frame::Drain(_)) {}
    agent.says(&command, pb::CommandState::Applied).await;
    while !matches!(
        agent.next().await.expect("an acknowledgement"),
        pb::connect_response::Frame::CommandAck(_)
    ) {}
    assert!(matches!(agent.ended().await, Ok(pasamanos_server::control::SessionEnd::Stopping)));
    let stored = server.control.store.command(&named(id)).await.unwrap().unwrap();
    assert_eq!(stored.state, CommandState::Applied);
}

/// RULES 7.3: an open command may end for 5 s; a farm that says nothing does not hold the stop up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_a_command_without_an_outcome_does_not_hold_a_stop_up() {
    let server = Server::start().await;
    let mut agent = server.connect(hello(0)).await;
    let id = request();
    let asked = server.asking(id, 3, Action::Hold);
    agent.command().await;
    server.control.stopping.cancel();
    assert_eq!(asked.await.unwrap().unwrap_err().reason, Reason::ServerStopping);
    assert!(matches!(agent.ended().await, Ok(pasamanos_server::control::SessionEnd::Stopping)));
    let stored = server.control.store.command(&named(id)).await.unwrap().unwrap();
    assert_eq!((stored.state, stored.reason), (CommandState::Uncertain, Reason::AgentLost));
}

/// A commit that no session has shown yet, as in the moment before it does.
async fn committed(server: &Server, epoch: i64, item: Ingest) {
    let now_ms = server.clock.wall_ms();
    server.control.store.ingest(&agent(), epoch, &[item], now_ms).await.unwrap();
}

async fn portion_now(server: &Server) -> Option<i32> {
    server.control.feeder(&feeder_name(1)).await.unwrap().config.unwrap().portion_mg
}

/// Whoever read that it is APPLIED then reads the new config, also in the moment between the commit and
/// its session's word of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_who_is_told_applied_then_reads_the_new_config() {
    let server = Server::start().await;
    let mut agent = server.connect(hello(0)).await;
    for (portion_mg, ask) in [(1_200, 0), (1_300, 1), (1_400, 2)] {
        let etag = stored_feeder(&*server.control.store, 1).await.version.unwrap().etag;
        let id = request();
        let m = mutation(feeder_name(1), id, portion(portion_mg, &etag));
        let caller = || Caller { author: "ana".into(), wait: TTL, request_hash: hash("same") };
        let control = server.control.clone();
        let first = tokio::spawn({
            let (m, caller) = (m.clone(), caller());
            async move { control.update_config(m, caller).await }
        });
        let frame = agent.command().await;
        let name = named(id);
        let command = stored(&*server.control.store, &name).await;
        let mut applied = report(&command, CommandState::Applied);
        applied.config = Some(observed(portion_mg));
        committed(&server, agent.epoch, Ingest::Outcome(Box::new(applied))).await;
        // Each way to learn of it.
        let state = match ask {
            0 => server.control.command(&name).await.unwrap().state(),
            1 => {
                let newest = PageRequest { size: 1, after: String::new() };
                let page = server.control.commands(&farm(), None, &newest).await.unwrap();
                page.items[0].state()
            }
            _ => {
                let again = server.control.update_config(m, caller()).await.unwrap();
                let shown = again.feeder.unwrap().config.unwrap().portion_mg;
                assert_eq!(shown, Some(portion_mg), "in the answer itself");
                again.command.unwrap().state()
            }
        };
        assert_eq!(state, pb::CommandState::Applied);
        assert_eq!(portion_now(&server).await, Some(portion_mg), "asked by {ask}");
        // The session tells the same again, and the first caller has its answer.
        let told = pb::CommandUpdate {
            state: pb::CommandState::Applied.into(),
            config: Some(config(portion_mg).into()),
            ..Default::default()
        };
        agent.report(&frame, told).await;
        let answer = first.await.unwrap().unwrap();
        assert_eq!(answer.command.unwrap().state(), pb::CommandState::Applied);
    }
}

/// A dose in doubt that a person settled, and whose evidence no session has shown: told, it is known here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_evidence_that_was_told_by_name_is_then_on_every_watch() {
    let server = Server::start().await;
    let mut agent = server.connect(hello(0)).await;
    let id = request();
    let asked = server.asking(id, 1, Action::FeedNow { portion_mg: 100 });
    let frame = agent.command().await;
    agent.says(&frame, pb::CommandState::Uncertain).await;
    let doubted = asked.await.unwrap().unwrap();
    assert_eq!(state_of(doubted.command.as_ref()), Some(pb::CommandState::Uncertain));
    let said = Resolve { verdict: Verdict::NotFed, fed_mg: None };
    let caller = Caller { author: "ana".into(), wait: SOON, request_hash: hash("said") };
    let m = Mutation {
        target: named(id),
        request: request(),
        validate_only: false,
        note: pasamanos_proto::model::note("nothing fell").unwrap(),
        action: said,
    };
    server.control.resolve(m, caller).await.unwrap();
    let mut watch = Box::pin(server.control.watch_farm(&farm()).await.unwrap());
    let _snapshot = watch.next().await.unwrap().unwrap();
    let command = stored(&*server.control.store, &named(id)).await;
    let ended = Ingest::Outcome(Box::new(report(&command, CommandState::Expired)));
    committed(&server, agent.epoch, ended).await;
    let read = server.control.command(&named(id)).await.unwrap();
    assert_eq!(read.state(), pb::CommandState::Expired);
    loop {
        let message = watch.next().await.unwrap().unwrap();
        let Some(pb::watch_farm_response::Event::Change(change)) = message.event else { continue };
        let Some(shown) = change.commands.iter().find(|c| c.name == read.name) else { continue };
        assert_eq!(shown.state(), pb::CommandState::Expired);
        break;
    }
}

/// What a session committed last and could not show any more is shown at its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_when_the_stream_broke_is_shown_at_once() {
    let server = Server::start().await;
    let agent = server.connect(hello(0)).await;
    committed(&server, agent.epoch, Ingest::Config(feeder_id(1), observed(900))).await;
    let _gone = agent.vanish().await;
    assert_eq!(portion_now(&server).await, Some(900));
}
