//! P2 and P3 on a PLC that lies: each lie of the menu, for a dose and for a config, in both profiles. What
//! is said at the end is what the PLC's own log and memory hold, and nothing ran twice.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests"
)]

use std::time::Duration;

use pasamanos_proto::pb::{self, CommandState, FeederState, ResolutionVerdict};
use pasamanos_tests::client::{FARM, request_id};
use pasamanos_tests::plc::example;
use pasamanos_tests::{Plc, Stack, wait_for};
use serde_json::{Value, json};
use tonic::{Code, Status};

/// A PLC that was away is looked for at most this long after it is back.
const WITHIN: Duration = Duration::from_secs(90);
/// Three seconds of feeding: long enough to be cut.
const DOSE_MG: i64 = 1_500;

/// What begins only once the motor turns: a PLC that cannot be read is sent no dose.
const MIDWAY: &str = "midway";

/// The menu: what it is called, how it begins, how it ends.
fn menu() -> Vec<(&'static str, Value, Value)> {
    let slow = |ms: u32| json!({"op": "slow", "ms": ms});
    let quality = |code: &str| json!({"op": "quality", "code": code});
    let lose = |n: u32| json!({"op": "lose_writes", "n": n});
    let forget = |n: u32| json!({"op": "drop_replies", "n": n});
    vec![
        ("executes and forgets to answer", forget(2), forget(0)),
        ("loses what it is sent", lose(2), lose(0)),
        ("is slow", slow(300), slow(0)),
        ("is slower than anybody waits", slow(1_500), slow(0)),
        ("answers uncertain values", quality("UncertainLastUsableValue"), quality("Good")),
        ("answers bad values", quality("BadNoCommunication"), quality("Good")),
        (
            "takes it and puts it back",
            json!({"op": "lie", "kind": "revert_after_scans", "n": 2}),
            json!({"op": "lie", "kind": "none"}),
        ),
        ("answers bad values midway", quality("BadNoCommunication"), quality("Good")),
        ("is slower than anybody waits, midway", slow(1_500), slow(0)),
        ("restarts in the middle", Value::Null, Value::Null),
    ]
}

/// A feeder, as the product and as its PLC call it.
#[derive(Clone, Copy)]
struct Target {
    feeder: &'static str,
    tag: &'static str,
    /// Whether its PLC can always tell what became of a dose.
    sequenced: bool,
}

const BLOCK: Target = Target { feeder: "feeder-r1", tag: "R01", sequenced: true };
const SCALAR: Target = Target { feeder: "pond-1", tag: "F01", sequenced: false };

impl Target {
    /// What the PLC did by command: its starts, and what fell in those that ended.
    fn ran(self, plc: &Plc) -> (usize, i64) {
        let ledger = plc.ledger().unwrap();
        let mine = ledger.iter().filter(|l| l["cause"] == "COMMAND" && l["feeder"] == self.tag);
        let ends = mine.clone().filter(|l| l["kind"] == "end");
        let starts = mine.filter(|l| l["kind"] == "start").count();
        (starts, ends.map(|l| l["dispensed_mg"].as_i64().unwrap()).sum())
    }

    /// The portion that the PLC runs.
    async fn portion(self, plc: &Plc) -> i64 {
        let state = plc.control(json!({"op": "state"})).await.unwrap();
        state["feeders"][self.tag]["config"]["portion_mg"].as_i64().unwrap()
    }

    async fn ready(self, stack: &Stack) {
        let is = |f: &pb::Feeder| {
            f.status.as_ref().is_some_and(|s| s.state() == FeederState::Ready)
                && f.pending_command.is_empty()
        };
        let ready = stack.client.wait_feeder(self.feeder, "ready", WITHIN, is).await;
        ready.unwrap_or_else(|e| panic!("{e:#}\n{}", stack.logs()));
    }
}

async fn ask_dose(stack: &Stack, target: Target, id: &str) -> Result<(), Status> {
    let mut request = tonic::Request::new(pb::FeedNowRequest {
        name: format!("{FARM}/feeders/{}", target.feeder),
        portion_mg: i32::try_from(DOSE_MG).ok(),
        request_id: id.to_owned(),
        ..Default::default()
    });
    request.set_timeout(Duration::from_secs(5));
    stack.client.feeders.clone().feed_now(request).await.map(|_| ())
}

async fn ask_config(stack: &Stack, target: Target, id: &str, mg: i32) -> Result<(), Status> {
    let mut request = stack.client.portion_request(target.feeder, mg).await?;
    id.clone_into(&mut request.request_id);
    let mut request = tonic::Request::new(request);
    request.set_timeout(Duration::from_secs(5));
    stack.client.feeders.clone().update_feeder_config(request).await.map(|_| ())
}

/// Waits until the motor turns (for a dose: more than `before` times), or the command was sent.
async fn at_work(stack: &Stack, plc: &Plc, target: Target, name: &str, before: Option<usize>) {
    let at_work = wait_for("at work", Duration::from_secs(10), || async {
        let command = stack.client.command(name).await?;
        let sent = command.state() != CommandState::Accepted;
        let moved = before.map_or(sent, |before| target.ran(plc).0 > before);
        if moved { Ok(()) } else { Err(Status::unavailable("waiting")) }
    });
    at_work.await.unwrap();
}

/// The power goes while the command is at work, and comes back.
async fn restart(stack: &Stack, plc: &mut Plc, target: Target, name: &str, before: Option<usize>) {
    at_work(stack, plc, target, name, before).await;
    plc.kill().await.unwrap();
    plc.restart().await.unwrap();
}

/// The end, or nothing if it was refused. What this PLC cannot tell of stays in doubt (`may_doubt`).
async fn end(stack: &Stack, may_doubt: bool, name: &str) -> Option<pb::Command> {
    let within = if may_doubt { Duration::from_secs(25) } else { WITHIN };
    let found = wait_for("a true end", within, || async {
        match stack.client.command(name).await {
            Ok(c) => match c.state() {
                CommandState::Applied
                | CommandState::Partial
                | CommandState::Rejected
                | CommandState::Expired => Ok(Some(c)),
                state => Err(Status::unavailable(format!("{state:?} {}", c.reason))),
            },
            Err(e) if e.code() == Code::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    });
    match found.await {
        Ok(found) => found,
        Err(e) => {
            let command = stack.client.command(name).await.unwrap();
            let doubt = may_doubt && command.state() == CommandState::Uncertain;
            assert!(doubt, "{e:#}\n{}", stack.logs());
            Some(command)
        }
    }
}

/// Someone looked at the tank.
async fn settle(stack: &Stack, command: &pb::Command, fed: bool) {
    let verdict = if fed { ResolutionVerdict::Fed } else { ResolutionVerdict::NotFed };
    let request = pb::ResolveCommandRequest {
        name: command.name.clone(),
        verdict: verdict.into(),
        request_id: request_id(),
        note: "looked".into(),
        ..Default::default()
    };
    stack.client.feeders.clone().resolve_command(request).await.unwrap();
}

async fn start() -> (Plc, Stack) {
    let plc = Plc::start(&[]).await.unwrap();
    let farm = example(&plc, "").unwrap();
    let args = ["--start-limit", "3s"];
    let stack = Stack::builder().farm(farm).server_arg(&args).start().await.unwrap();
    (plc, stack)
}

async fn doses(target: Target) {
    let (mut plc, stack) = start().await;
    for (lie, begin, over) in menu() {
        target.ready(&stack).await;
        let (before, fell_before) = target.ran(&plc);
        let id = request_id();
        let name = format!("{FARM}/commands/{id}");
        if begin.is_null() {
            let asked = ask_dose(&stack, target, &id);
            let cut = restart(&stack, &mut plc, target, &name, Some(before));
            let _ = tokio::join!(asked, cut);
        } else if lie.contains(MIDWAY) {
            let asked = ask_dose(&stack, target, &id);
            let lies = async {
                at_work(&stack, &plc, target, &name, Some(before)).await;
                plc.control(begin).await.unwrap();
            };
            let _ = tokio::join!(asked, lies);
            plc.control(over).await.unwrap();
        } else {
            plc.control(begin).await.unwrap();
            let _ = ask_dose(&stack, target, &id).await;
            plc.control(over).await.unwrap();
        }
        let end = end(&stack, !target.sequenced, &name).await;
        // What began has ended too before it is counted.
        target.ready(&stack).await;
        let (starts, fell) = target.ran(&plc);
        let (ran, fell) = (starts - before, fell - fell_before);
        let told = end.as_ref().map(|c| (c.state(), c.reason.clone(), c.dispensed_mg));
        println!("{}: {lie}: {told:?}, ran {ran}, {fell} mg", target.tag);
        assert!(ran <= 1, "{lie}: {told:?}, ran {ran} times\n{}", stack.logs());
        let state = end.as_ref().map(pb::Command::state);
        let mg = end.as_ref().and_then(|c| c.dispensed_mg).map(i64::from);
        let honest = match state {
            Some(CommandState::Applied) => ran == 1 && fell == DOSE_MG && mg == Some(fell),
            Some(CommandState::Partial) => fell < DOSE_MG && mg == Some(fell),
            Some(CommandState::Uncertain) => true,
            _ => ran == 0,
        };
        assert!(honest, "{lie}: {told:?}, ran {ran}, {fell} mg\n{}", stack.logs());
        if state == Some(CommandState::Uncertain) {
            settle(&stack, &end.unwrap(), ran > 0).await;
        }
    }
}

async fn configs(target: Target) {
    let (mut plc, stack) = start().await;
    let mut portion = 1_500;
    for (lie, begin, over) in menu() {
        target.ready(&stack).await;
        let old = target.portion(&plc).await;
        portion += 100;
        let id = request_id();
        let name = format!("{FARM}/commands/{id}");
        if begin.is_null() {
            let asked = ask_config(&stack, target, &id, portion);
            let cut = restart(&stack, &mut plc, target, &name, None);
            let _ = tokio::join!(asked, cut);
        } else if lie.contains(MIDWAY) {
            let asked = ask_config(&stack, target, &id, portion);
            let lies = async {
                at_work(&stack, &plc, target, &name, None).await;
                plc.control(begin).await.unwrap();
            };
            let _ = tokio::join!(asked, lies);
            plc.control(over).await.unwrap();
        } else {
            plc.control(begin).await.unwrap();
            let _ = ask_config(&stack, target, &id, portion).await;
            plc.control(over).await.unwrap();
        }
        // A config that was sent and does not show may show later (RULES 6.5).
        let end = end(&stack, true, &name).await;
        let runs = target.portion(&plc).await;
        let told = end.as_ref().map(|c| (c.state(), c.reason.clone()));
        println!("{}: {lie}: {told:?}, {old} to {portion}: runs {runs}", target.tag);
        let honest = match end.as_ref().map(pb::Command::state) {
            Some(CommandState::Applied) => runs == i64::from(portion),
            Some(CommandState::Uncertain) => runs == old || runs == i64::from(portion),
            _ => runs == old,
        };
        assert!(honest, "{lie}: {told:?}, {old} to {portion}: runs {runs}\n{}", stack.logs());
        if let Some(command) = end.filter(|c| c.state() == CommandState::Uncertain) {
            settle(&stack, &command, runs == i64::from(portion)).await;
        }
        // The farm's page shows what the PLC runs.
        let shown = |f: &pb::Feeder| {
            f.config.as_ref().and_then(|c| c.portion_mg).map(i64::from) == Some(runs)
        };
        let shown = stack.client.wait_feeder(target.feeder, "shown", WITHIN, shown).await;
        shown.unwrap_or_else(|e| panic!("{lie}: {e:#}\n{}", stack.logs()));
    }
}

#[tokio::test]
async fn p3_a_dose_to_a_block_plc_that_lies_is_given_once_and_told_truly() {
    doses(BLOCK).await;
}

#[tokio::test]
async fn p3_a_dose_to_a_plc_of_plain_tags_that_lies_is_given_once_or_in_doubt() {
    doses(SCALAR).await;
}

#[tokio::test]
async fn p2_a_config_to_a_block_plc_that_lies_is_told_truly() {
    configs(BLOCK).await;
}

#[tokio::test]
async fn p2_a_config_to_a_plc_of_plain_tags_that_lies_is_told_truly() {
    configs(SCALAR).await;
}
