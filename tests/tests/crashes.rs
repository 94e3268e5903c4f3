//! P2 and P3 under crashes at every named point of either program, for a dose and for a config: the
//! PLC's own log shows at most one execution, the outcome is true, and nobody has to help.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests"
)]

use std::time::Duration;

use anyhow::Context as _;
use pasamanos_proto::pb::{self, CommandState};
use pasamanos_tests::client::{FARM, request_id};
use pasamanos_tests::stack::Part;
use pasamanos_tests::{Stack, wait_for};
use tonic::Status;

const SERVER: &[&str] = &[
    "server.accept.before-commit",
    "server.accept.committed",
    "server.outbox.read",
    "server.command.sent",
    "server.outcome.before-commit",
    "server.outcome.committed",
    "server.frame.sent",
    "server.session.opened",
    "server.lease.held",
];

const AGENT: &[&str] = &[
    "agent.command.received",
    "agent.epoch.journaled",
    "agent.dose.intent-journaled",
    "agent.dose.submitted",
    "agent.dose.consumed",
    "agent.config.intent-journaled",
    "agent.config.written",
    "agent.outcome.before-journal",
    "agent.outcome.journaled",
    "agent.outcome.reported",
    "agent.ack.received",
    "agent.records.acked",
];

/// What one crash did: what the sweep prints.
struct Run {
    state: Option<CommandState>,
    executions: usize,
    crashed: bool,
}

/// Starts with the point armed, asks once, brings back what died, and waits for the end.
async fn crash(part: Part, point: &str, dose: bool) -> anyhow::Result<Run> {
    let mut stack = Stack::builder().start().await?;
    let feeder = stack.first_feeder().await?;
    // Armed only now: the first start is to come up.
    stack.crash_at(Some((part, format!("{point}:1"))));
    match part {
        Part::Server => {
            stack.server()?.kill().await?;
            // It may die while it starts or when the agent comes: that is what is tested.
            let _ = stack.start_server().await;
        }
        Part::Agent => {
            stack.agent()?.kill().await?;
            // Or the command is accepted for a session that is dead already, and never gets here.
            wait_for("the server saw it die", Duration::from_secs(5), || async {
                let log = std::fs::read_to_string(stack.dir.path().join("server.log"))?;
                anyhow::ensure!(log.contains("session ended"), "no end of a session in its log");
                anyhow::Ok(())
            })
            .await?;
            stack.start_agent()?;
        }
    }
    let id = request_id();
    let name = format!("{FARM}/commands/{id}");
    let ask = ask(&stack, &feeder, &id, dose);
    let _ = tokio::time::timeout(Duration::from_secs(6), ask).await;
    let crashed = {
        let process = if part == Part::Server { stack.server()? } else { stack.agent()? };
        process.wait(Duration::from_millis(500)).await.is_ok()
    };

    stack.crash_at(None);
    match part {
        Part::Server => {
            stack.server()?.kill().await?;
            stack.start_server().await?;
        }
        Part::Agent => {
            stack.agent()?.kill().await?;
            stack.start_agent()?;
        }
    }
    stack.ready().await?;
    let state = settled(&stack, &name).await?;
    if !dose && state == Some(CommandState::Applied) {
        // The command is read from the database, the feeder from what is live, which follows it.
        let shown = wait_for("the feeder shows it", Duration::from_secs(5), || async {
            let config = stack.client.feeder(&feeder).await?.config;
            match config.and_then(|c| c.portion_mg) {
                Some(1_600) => Ok(()),
                other => Err(Status::unavailable(format!("{other:?}"))),
            }
        });
        shown.await.with_context(|| stack.logs())?;
    }
    let (executions, portion) = (
        stack.doses_started()?,
        stack.client.feeder(&feeder).await?.config.and_then(|c| c.portion_mg),
    );
    check(&stack, state, executions, portion, dose)?;

    // Nobody has to help: the next command passes.
    let next = wait_for("the next change is applied", Duration::from_secs(20), || async {
        let command = stack.client.set_portion(&feeder, 1_800).await?;
        match command.state() {
            CommandState::Applied => Ok(()),
            _ => Err(Status::unavailable(format!("{command:?}"))),
        }
    });
    next.await?;
    Ok(Run { state, executions, crashed })
}

async fn ask(stack: &Stack, feeder: &str, id: &str, dose: bool) -> anyhow::Result<()> {
    let name = format!("{FARM}/feeders/{feeder}");
    // The same request id throughout: whoever lost the answer asks again with it.
    wait_for("accepted", Duration::from_secs(5), || async {
        let mut client = stack.client.feeders.clone();
        if dose {
            let request = pb::FeedNowRequest {
                name: name.clone(),
                portion_mg: Some(100),
                request_id: id.to_owned(),
                ..Default::default()
            };
            client.feed_now(request).await.map(|_| ())
        } else {
            let mut request = stack.client.portion_request(feeder, 1_600).await?;
            request.request_id = id.to_owned();
            client.update_feeder_config(request).await.map(|_| ())
        }
    })
    .await
}

/// The command's true end; `None` if it was never accepted.
async fn settled(stack: &Stack, name: &str) -> anyhow::Result<Option<CommandState>> {
    wait_for("a true end", Duration::from_secs(30), || async {
        match stack.client.command(name).await {
            Ok(c) => match c.state() {
                CommandState::Applied
                | CommandState::Partial
                | CommandState::Rejected
                | CommandState::Expired => Ok(Some(c.state())),
                state => Err(Status::unavailable(format!("{state:?} {}", c.reason))),
            },
            Err(e) if e.code() == tonic::Code::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    })
    .await
}

/// The outcome against the ground truth.
fn check(
    stack: &Stack,
    state: Option<CommandState>,
    executions: usize,
    portion: Option<i32>,
    dose: bool,
) -> anyhow::Result<()> {
    let done = if dose { executions == 1 } else { portion == Some(1_600) };
    let told = match state {
        Some(CommandState::Applied | CommandState::Partial) => done,
        Some(_) | None => !done,
    };
    anyhow::ensure!(executions <= 1, "{executions} executions\n{}", stack.logs());
    anyhow::ensure!(
        told,
        "told {state:?}, executions {executions}, portion {portion:?}\n{}",
        stack.logs()
    );
    Ok(())
}

/// Whether this command passes the point at all.
fn reached(point: &str, dose: bool) -> bool {
    let of_the_other = if dose { "agent.config." } else { "agent.dose." };
    !(point.starts_with(of_the_other) || (!dose && point == "agent.records.acked"))
}

async fn sweep(part: Part, points: &[&str], dose: bool) {
    let mut failed = Vec::new();
    for point in points {
        match crash(part, point, dose).await {
            Ok(run) if run.crashed || !reached(point, dose) => println!(
                "{point}: crashed {}, {:?}, {} executions",
                run.crashed, run.state, run.executions
            ),
            Ok(_) => failed.push(format!("{point}: was not reached: the sweep proves nothing")),
            Err(e) => failed.push(format!("{point}: {e:#}")),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[tokio::test]
async fn p3_a_dose_survives_a_crash_of_the_server_at_every_point() {
    sweep(Part::Server, SERVER, true).await;
}

#[tokio::test]
async fn p3_a_dose_survives_a_crash_of_the_agent_at_every_point() {
    sweep(Part::Agent, AGENT, true).await;
}

#[tokio::test]
async fn p2_a_config_survives_a_crash_of_the_server_at_every_point() {
    sweep(Part::Server, SERVER, false).await;
}

#[tokio::test]
async fn p2_a_config_survives_a_crash_of_the_agent_at_every_point() {
    sweep(Part::Agent, AGENT, false).await;
}
