//! P2 and P3 when yesterday's files come back, or a disk was cloned: the PLC's own log shows each dose
//! once, nothing is resent, and what nobody can know is in doubt, never a guess.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

use std::path::PathBuf;
use std::time::Duration;

use pasamanos_proto::pb::{self, CommandState, ResolutionVerdict};
use pasamanos_tests::caller::{Caller, Run};
use pasamanos_tests::check::token;
use pasamanos_tests::client::{FARM, reason, request_id};
use pasamanos_tests::files::{Copy, copy_disk};
use pasamanos_tests::plc::example;
use pasamanos_tests::sim::Sim;
use pasamanos_tests::{Plc, Process, Stack, paths, wait_for};
use tonic::Status;

const WITHIN: Duration = Duration::from_secs(60);
/// Five seconds of feeding.
const LONG_MG: i32 = 2_500;

fn database(stack: &Stack) -> PathBuf {
    stack.server_dir().join("pasamanos.db")
}

fn journal(stack: &Stack) -> PathBuf {
    stack.agent_dir().join("journal.db")
}

fn name_of(id: &str) -> String {
    format!("{FARM}/commands/{id}")
}

/// Asks for a dose under this id and does not wait for its end.
async fn ask(stack: &Stack, feeder: &str, id: &str, mg: i32) -> Result<pb::Command, Status> {
    let mut request = tonic::Request::new(pb::FeedNowRequest {
        name: format!("{FARM}/feeders/{feeder}"),
        portion_mg: Some(mg),
        request_id: id.to_owned(),
        ..Default::default()
    });
    request.set_timeout(Duration::from_secs(2));
    let answer = stack.client.feeders.clone().feed_now(request).await?;
    answer.into_inner().command.ok_or_else(|| Status::internal("no command"))
}

/// Waits until the command is in one of these states.
async fn wait_state(stack: &Stack, name: &str, any: &[CommandState]) -> pb::Command {
    let what = format!("{name}: {any:?}");
    let found = wait_for(&what, WITHIN, || async {
        let command = stack.client.command(name).await?;
        if any.contains(&command.state()) {
            return Ok(command);
        }
        Err(Status::unavailable(format!("{:?} {}", command.state(), command.reason)))
    });
    found.await.unwrap_or_else(|e| panic!("{e:#}\n{}", stack.logs()))
}

/// Asks, under the same id, until it is taken.
async fn asked(stack: &Stack, feeder: &str, id: &str, mg: i32) {
    let taken = wait_for("the dose is taken", WITHIN, || async {
        match ask(stack, feeder, id, mg).await {
            Err(status) if reason(&status) == "DOSE_UNSETTLED" => panic!("settled: {status:?}"),
            Err(status) if reason(&status) != "OUTCOME_PENDING" => Err(status),
            _ => Ok(()),
        }
    });
    taken.await.unwrap_or_else(|e| panic!("{e:#}\n{}", stack.logs()));
}

/// Begins a long dose and answers with its name once the motor turns.
async fn long_dose(stack: &Stack, feeder: &str, id: &str) -> String {
    asked(stack, feeder, id, LONG_MG).await;
    let name = name_of(id);
    wait_state(stack, &name, &[CommandState::Executing]).await;
    name
}

async fn dose(stack: &Stack, feeder: &str, id: &str) -> pb::Command {
    asked(stack, feeder, id, 100).await;
    wait_state(stack, &name_of(id), &[CommandState::Applied]).await
}

/// A person looks and says that it fell.
async fn resolve(stack: &Stack, name: &str) {
    let request = pb::ResolveCommandRequest {
        name: name.to_owned(),
        verdict: ResolutionVerdict::Fed.into(),
        request_id: request_id(),
        note: "the feed lies in the tank".into(),
        ..Default::default()
    };
    stack.client.feeders.clone().resolve_command(request).await.unwrap();
}

/// If it is in doubt a person settles it; then the robot doses again.
async fn goes_on(stack: &Stack, feeder: &str, gap: &str) {
    let state = stack.client.command(gap).await.unwrap().state();
    if state == CommandState::Uncertain {
        resolve(stack, gap).await;
    }
    let next = wait_for("the next dose", WITHIN, || async {
        let dose = stack.client.feed_now(feeder, 100).await?;
        let dose = stack.client.wait_settled(&dose.name, WITHIN).await;
        match dose.map_err(|e| Status::internal(format!("{e:#}")))? {
            dose if dose.state() == CommandState::Applied => Ok(()),
            dose => Err(Status::unavailable(format!("{:?} {}", dose.state(), dose.reason))),
        }
    });
    next.await.unwrap_or_else(|e| panic!("{e:#}\n{}", stack.logs()));
}

/// How often the motor turned for this command.
fn given(stack: &Stack, id: &str) -> usize {
    let token = Some(token(&name_of(id)));
    let ran = Sim::of(&stack.agent_dir()).executions().unwrap();
    ran.iter().filter(|e| e.token == token).count()
}

async fn stop_both(stack: &mut Stack) {
    stack.agent().unwrap().terminate(WITHIN).await.unwrap();
    stack.server().unwrap().terminate(WITHIN).await.unwrap();
}

async fn start_both(stack: &mut Stack) {
    stack.start_server().await.unwrap();
    stack.start_agent().unwrap();
    stack.ready().await.unwrap();
}

#[tokio::test]
async fn p3_yesterdays_database_resends_nothing_and_says_nothing_untrue() {
    let mut stack = Stack::builder().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let (first, gap, later) = (request_id(), request_id(), request_id());
    dose(&stack, &feeder, &first).await;
    let gap_name = long_dose(&stack, &feeder, &gap).await;
    stack.server().unwrap().kill().await.unwrap();
    let yesterday = Copy::of(database(&stack), "yesterday").unwrap();
    stack.start_server().await.unwrap();
    stack.ready().await.unwrap();
    wait_state(&stack, &gap_name, &[CommandState::Applied]).await;
    dose(&stack, &feeder, &later).await;
    let set = stack.client.set_portion(&feeder, 1_600).await.unwrap();
    assert_eq!(set.state(), CommandState::Applied, "{set:?}");

    stack.server().unwrap().kill().await.unwrap();
    yesterday.put_back().unwrap();
    stack.start_server().await.unwrap();
    stack.ready().await.unwrap();
    // Open in the copy, and given since: in doubt, or as its own journal tells.
    let gap_now = wait_state(
        &stack,
        &gap_name,
        &[CommandState::Applied, CommandState::Uncertain, CommandState::Expired],
    )
    .await;
    assert_ne!(gap_now.state(), CommandState::Expired, "it was given: {gap_now:?}");
    let log = stack.server().unwrap().log();
    assert!(log.contains("put back"), "no alarm\n{log}");
    goes_on(&stack, &feeder, &gap_name).await;
    // What was accepted after the copy, asked again by its caller: known to the journal, not run again.
    assert_eq!(dose(&stack, &feeder, &later).await.dispensed_mg, Some(100));
    let now = stack.client.feeder(&feeder).await.unwrap();
    assert_eq!(now.config.unwrap().portion_mg, Some(1_600), "what the PLC runs");
    assert_eq!([&first, &gap, &later].map(|id| given(&stack, id)), [1; 3]);
    assert_eq!(stack.doses_started().unwrap(), 4);
    stack.admin(&["audit", "verify", "norte"]).await.unwrap();
}

/// The epoch is the agent's own: only what was acknowledged since shows that the database is old.
#[tokio::test]
async fn p2_a_copy_made_beside_a_running_server_says_nothing_untrue_of_what_was_open_in_it() {
    let mut stack = Stack::builder().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let id = request_id();
    let gap = long_dose(&stack, &feeder, &id).await;
    let copy = Copy::beside(database(&stack), "copy").await.unwrap();
    wait_state(&stack, &gap, &[CommandState::Applied]).await;
    stack.server().unwrap().kill().await.unwrap();
    copy.put_back().unwrap();
    stack.start_server().await.unwrap();
    stack.ready().await.unwrap();
    let settled = wait_state(
        &stack,
        &gap,
        &[CommandState::Applied, CommandState::Uncertain, CommandState::Expired],
    )
    .await;
    assert_ne!(settled.state(), CommandState::Expired, "it was given: {settled:?}");
    goes_on(&stack, &feeder, &gap).await;
    assert_eq!(given(&stack, &id), 1);
}

#[tokio::test]
async fn p3_yesterdays_journal_repeats_nothing_and_its_gap_is_in_doubt() {
    let mut stack = Stack::builder().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let (later, gap) = (request_id(), request_id());
    dose(&stack, &feeder, &request_id()).await;
    stack.agent().unwrap().terminate(WITHIN).await.unwrap();
    let yesterday = Copy::of(journal(&stack), "yesterday").unwrap();
    stack.start_agent().unwrap();
    stack.ready().await.unwrap();
    dose(&stack, &feeder, &later).await;
    let gap_name = long_dose(&stack, &feeder, &gap).await;
    stack.agent().unwrap().kill().await.unwrap();

    yesterday.put_back().unwrap();
    stack.start_agent().unwrap();
    let all = [CommandState::Partial, CommandState::Uncertain, CommandState::Expired];
    wait_for("the agent is back", WITHIN, || async {
        let log = stack.server.as_ref().unwrap().log();
        if log.contains("not whole") { Ok(()) } else { Err("no alarm") }
    })
    .await
    .unwrap();
    stack.ready().await.unwrap();
    let settled = wait_state(&stack, &gap_name, &all).await;
    assert_ne!(settled.state(), CommandState::Expired, "some of it was given: {settled:?}");
    let before = stack.client.command(&name_of(&later)).await.unwrap();
    assert_eq!(before.state(), CommandState::Applied);
    // Asked again, both are answered and neither runs.
    for id in [&later, &gap] {
        asked(&stack, &feeder, id, if id == &gap { LONG_MG } else { 100 }).await;
    }
    goes_on(&stack, &feeder, &gap_name).await;
    assert_eq!([&later, &gap].map(|id| given(&stack, id)), [1; 2]);
    assert_eq!(stack.doses_started().unwrap(), 4);
}

/// Nobody but the PLC remembers the dose, and its caller asks again.
#[tokio::test]
async fn p3_with_both_put_back_a_repeated_request_is_known_by_the_plc() {
    let mut stack = Stack::builder().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let (lost, cut) = (request_id(), request_id());
    dose(&stack, &feeder, &request_id()).await;
    stop_both(&mut stack).await;
    let copies = [
        Copy::of(database(&stack), "yesterday").unwrap(),
        Copy::of(journal(&stack), "yesterday").unwrap(),
    ];
    start_both(&mut stack).await;
    dose(&stack, &feeder, &lost).await;
    long_dose(&stack, &feeder, &cut).await;
    stack.agent().unwrap().kill().await.unwrap();
    stack.server().unwrap().kill().await.unwrap();
    for copy in &copies {
        copy.put_back().unwrap();
    }
    start_both(&mut stack).await;
    for (id, mg, end) in
        [(&lost, 100, CommandState::Applied), (&cut, LONG_MG, CommandState::Partial)]
    {
        asked(&stack, &feeder, id, mg).await;
        let known = wait_state(&stack, &name_of(id), &[end]).await;
        assert!(known.dispensed_mg.is_some(), "{known:?}");
    }
    assert_eq!([&lost, &cut].map(|id| given(&stack, id)), [1; 2], "{}", stack.logs());
    goes_on(&stack, &feeder, &name_of(&lost)).await;
}

/// As before, and the PLC has forgotten most of it: doses wait until someone at the farm has looked.
#[tokio::test]
async fn p3_with_both_put_back_doses_that_nobody_remembers_wait_for_the_farm() {
    let mut stack = Stack::builder().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    dose(&stack, &feeder, &request_id()).await;
    stop_both(&mut stack).await;
    let copies = [
        Copy::of(database(&stack), "yesterday").unwrap(),
        Copy::of(journal(&stack), "yesterday").unwrap(),
    ];
    start_both(&mut stack).await;
    let lost: Vec<_> = (0..9).map(|_| request_id()).collect();
    for id in &lost {
        dose(&stack, &feeder, id).await;
    }
    stop_both(&mut stack).await;
    for copy in &copies {
        copy.put_back().unwrap();
    }
    start_both(&mut stack).await;
    let refused = wait_for("the page says why", WITHIN, || async {
        match ask(&stack, &feeder, &lost[0], 100).await {
            Err(status) if reason(&status) == "JOURNAL_NOT_WHOLE" => Ok(()),
            Ok(command) if command.reason == "JOURNAL_NOT_WHOLE" => Ok(()),
            Err(status) if status.code() == tonic::Code::Unavailable => Err(status),
            other => panic!("{other:?}\n{}", stack.logs()),
        }
    });
    refused.await.unwrap_or_else(|e| panic!("{e:#}\n{}", stack.logs()));
    stack.agent().unwrap().terminate(WITHIN).await.unwrap();
    let mut looked = tokio::process::Command::new(paths::binary("pasamanos-agent").unwrap());
    looked.arg("--config").arg(stack.agent_toml()).arg("--data-dir").arg(stack.agent_dir());
    let looked = looked.args(["reset-envelope", "--feeder", &feeder]).output().await.unwrap();
    assert!(looked.status.success(), "{looked:?}");
    stack.start_agent().unwrap();
    stack.ready().await.unwrap();
    // What the PLC still told is known for all that; the rest is the word of who looked.
    for id in &lost[1..] {
        asked(&stack, &feeder, id, 100).await;
        wait_state(&stack, &name_of(id), &[CommandState::Applied]).await;
    }
    dose(&stack, &feeder, &request_id()).await;
    for id in &lost {
        assert_eq!(given(&stack, id), 1, "{}", stack.logs());
    }
}

#[tokio::test]
async fn p3_a_cloned_disk_run_twice_feeds_nothing_twice_and_is_alarmed() {
    let plc = Plc::start(&[]).await.unwrap();
    let mut stack = Stack::builder().farm(example(&plc, "").unwrap()).start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    let first = stack.client.feed_now(&feeder, 100).await.unwrap();
    stack.client.wait_settled(&first.name, WITHIN).await.unwrap();
    stack.agent().unwrap().terminate(WITHIN).await.unwrap();
    let disk = stack.dir.path().join("clone");
    copy_disk(&stack.agent_dir(), &disk).unwrap();
    stack.start_agent().unwrap();
    stack.ready().await.unwrap();

    let run = Run::default();
    let caller = Caller {
        client: stack.client.clone(),
        feeder: feeder.clone(),
        run: run.clone(),
        rng: fastrand::Rng::with_seed(7),
        all: false,
    };
    let mut asking = tokio::task::JoinSet::new();
    asking.spawn(caller.run());
    let mut command = tokio::process::Command::new(paths::binary("pasamanos-agent").unwrap());
    command.arg("--config").arg(stack.agent_toml()).arg("--data-dir").arg(&disk);
    let mut clone = Process::start("clone", &mut command, &disk).unwrap();
    // Each takes the session from the other, again and again, until someone is told.
    wait_for("the alarm", WITHIN * 2, || async {
        let log = stack.server.as_ref().unwrap().log();
        if log.contains("DUPLICATE_AGENT") { Ok(()) } else { Err("no alarm") }
    })
    .await
    .unwrap_or_else(|e| panic!("{e:#}\n{}\n{}", stack.logs(), clone.log()));
    // And at least one dose fell while both were there.
    wait_for("a dose of either", WITHIN * 2, || async {
        let starts = plc.ledger().map_err(|e| e.to_string())?;
        let commanded = |l: &&serde_json::Value| {
            l["kind"] == "start" && l["token"].as_u64().is_some_and(|t| t != 0)
        };
        let count = starts.iter().filter(commanded).count();
        if count > 1 { Ok(()) } else { Err(format!("{count} doses")) }
    })
    .await
    .unwrap_or_else(|e| panic!("{e:#}\n{}\n{}", stack.logs(), clone.log()));
    let told = "another machine connected as this agent";
    assert!(stack.agent().unwrap().log().contains(told), "the older session was not told");
    clone.kill().await.unwrap();
    run.stop();
    let history = asking.join_all().await.concat();
    // The other comes back when its time is over, and works.
    let works = wait_for("changes pass again", WITHIN * 3, || async {
        let command = stack.client.set_portion(&feeder, 1_600).await?;
        match command.state() {
            CommandState::Applied => Ok(()),
            _ => Err(Status::unavailable(format!("{command:?}"))),
        }
    });
    works.await.unwrap_or_else(|e| panic!("{e:#}\n{}", stack.logs()));
    let ledger = plc.ledger().unwrap();
    let mut ran = 0;
    for asked in &history {
        let starts = |l: &&serde_json::Value| {
            l["kind"] == "start" && l["token"] == serde_json::json!(token(&asked.name))
        };
        let times = ledger.iter().filter(starts).count();
        ran += times;
        assert!(times <= 1, "given {times} times: {asked:?}");
        let settled = stack.client.command(&asked.name).await;
        let state = settled.map(|c| c.state());
        match state {
            Ok(CommandState::Applied) => assert_eq!(times, 1, "{asked:?}"),
            Ok(CommandState::Expired | CommandState::Rejected) | Err(_) => {
                assert_eq!(times, 0, "{state:?}: {asked:?}");
            }
            Ok(_) => {}
        }
    }
    assert!(ran > 0, "no dose ran while both were there: {history:?}");
}

/// The numbers of a database that was put back begin again below those that the agent has seen: an old hold
/// overtakes nothing that is new, from the first moment on.
#[tokio::test]
async fn p2_after_a_restored_database_an_old_hold_overtakes_nothing_new() {
    let mut stack = Stack::builder().start().await.unwrap();
    let feeder = stack.first_feeder().await.unwrap();
    dose(&stack, &feeder, &request_id()).await;
    let copy = Copy::beside(database(&stack), "copy").await.unwrap();
    for _ in 0..3 {
        let held = stack.client.hold(&feeder).await.unwrap();
        assert_eq!(held.state(), CommandState::Applied, "{held:?}");
        let resumed = stack.client.resume(&feeder).await.unwrap();
        assert_eq!(resumed.state(), CommandState::Applied, "{resumed:?}");
    }
    let held = stack.client.hold(&feeder).await.unwrap();
    assert_eq!(held.state(), CommandState::Applied, "{held:?}");
    stack.server().unwrap().kill().await.unwrap();
    copy.put_back().unwrap();
    stack.start_server().await.unwrap();
    stack.ready().await.unwrap();
    let resumed = stack.client.resume(&feeder).await.unwrap();
    assert_eq!(
        (resumed.state(), resumed.reason.as_str()),
        (CommandState::Applied, ""),
        "{resumed:?} {held:?}\n{}",
        stack.logs()
    );
    let set = stack.client.set_portion(&feeder, 1_600).await.unwrap();
    assert_eq!(set.state(), CommandState::Applied, "{set:?}\n{}", stack.logs());
}
