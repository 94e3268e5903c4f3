//! A working farm whose agent and server are killed with SIGKILL at random, over and over, while callers
//! keep asking. Afterwards every command has a true end and every milligram is accounted for.
//!
//! The simulated PLC lives in the agent and keeps its retained memory and its log in files of its own: a
//! kill of the agent is a power cut of the whole farm, often in the middle of a dose.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use fastrand::Rng;
use pasamanos_proto::model::CommandState;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::books::{self, Asked, Row, Truth, What};
use crate::caller::{Caller, Run, note, word};
use crate::check::Said;
use crate::sim::Sim;
use crate::stack::sim;
use crate::{Stack, journal, wait_for};

/// How long what is open may take to heal after the last kill.
const HEAL: Duration = Duration::from_secs(90);

/// One farm's run.
#[derive(Clone, Copy, Debug)]
pub struct Season {
    /// What is killed when, and what is asked.
    pub seed: u64,
    /// How many kills.
    pub kills: usize,
}

/// What was met: a run that meets nothing proves nothing.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Kills of the agent, of the server; a kill of both counts in both.
    pub killed: (usize, usize),
    /// Commands by kind and how they ended.
    pub ends: BTreeMap<(&'static str, &'static str), usize>,
    /// Commands that were UNCERTAIN on their way.
    pub doubts: usize,
    /// Doses by command that the PLC ran, those that it ended short, and its meals by schedule.
    pub doses: (usize, usize, usize),
    /// Rows of the history, and the milligrams in it.
    pub history: (usize, i64),
}

impl Tally {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.killed.0 += other.killed.0;
        self.killed.1 += other.killed.1;
        for (key, n) in &other.ends {
            *self.ends.entry(*key).or_default() += n;
        }
        self.doubts += other.doubts;
        self.doses.0 += other.doses.0;
        self.doses.1 += other.doses.1;
        self.doses.2 += other.doses.2;
        self.history.0 += other.history.0;
        self.history.1 += other.history.1;
    }

    /// How many commands were accepted.
    pub fn accepted(&self) -> usize {
        self.ends.iter().filter(|((_, end), _)| *end != "refused").map(|(_, n)| n).sum()
    }

    /// How many commands ended so, of any kind.
    pub fn ended(&self, end: &str) -> usize {
        self.ends.iter().filter(|((_, e), _)| *e == end).map(|(_, n)| n).sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kills: agent {}, server {}", self.killed.0, self.killed.1)?;
        for ((kind, end), n) in &self.ends {
            writeln!(f, "  {kind:<7} {end:<10} {n}")?;
        }
        writeln!(f, "  were UNCERTAIN on their way: {}", self.doubts)?;
        let (doses, short, meals) = self.doses;
        writeln!(f, "PLC's log: {doses} doses by command, {short} ended short, {meals} meals")?;
        write!(f, "history: {} rows, {} mg", self.history.0, self.history.1)
    }
}

impl Season {
    /// Plays it; answers with what was met, and with every promise that was broken.
    ///
    /// # Errors
    /// If a program does not come up again, or the farm does not heal in time.
    pub async fn play(self) -> anyhow::Result<(Tally, Vec<String>)> {
        let mut rng = Rng::with_seed(self.seed);
        let farm = sim(3).replace("seed = 7", &format!("seed = {}", self.seed));
        let mut stack = Stack::builder().farm(farm).start().await?;
        let (run, mut callers) = (Run::default(), JoinSet::new());
        let feeders = stack.client.farm().await?.feeders;
        let feeders: Vec<_> = feeders.iter().filter_map(|f| f.name.rsplit('/').next()).collect();
        for (feeder, all) in feeders.iter().map(|f| (f, true)).chain([(&feeders[0], false)]) {
            let caller = Caller {
                client: stack.client.clone(),
                feeder: (*feeder).to_owned(),
                run: run.clone(),
                rng: rng.fork(),
                all,
            };
            callers.spawn(caller.run());
        }
        let mut tally = Tally::default();
        let killing = self.kill(&mut stack, &run, &feeders, &mut rng, &mut tally).await;
        run.stop();
        let history: Vec<Asked> = callers.join_all().await.into_iter().flatten().collect();
        killing?;
        let judged = judge(&stack, history, &mut tally).await;
        let broken = judged.with_context(|| format!("seed {}\n{}", self.seed, stack.logs()))?;
        Ok((tally, broken))
    }

    async fn kill(
        self,
        stack: &mut Stack,
        run: &Run,
        feeders: &[&str],
        rng: &mut Rng,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        for _ in 0..self.kills {
            // Mostly a farm that works is struck; now and then one that is just coming back.
            if rng.u8(..4) > 0 {
                let (before, until) = (run.accepted(), Instant::now() + Duration::from_secs(8));
                while run.accepted() < before + 2 && Instant::now() < until {
                    sleep(Duration::from_millis(20)).await;
                }
            }
            if rng.u8(..3) == 0 {
                let feeder = rng.choice(feeders).context("no feeders")?;
                // Refused if the agent is just down: then nobody eats.
                let op = json!({"op": "meal_now", "feeder": feeder});
                let _ = Sim::of(&stack.agent_dir()).control(&op).await;
            }
            // When it strikes is what the seed chooses, not what is waited for.
            sleep(Duration::from_millis(rng.u64(..600))).await;
            let (agent, server) = match rng.u8(..10) {
                0..5 => (true, false),
                5..9 => (false, true),
                _ => (true, true),
            };
            if agent {
                stack.agent()?.kill().await?;
                tally.killed.0 += 1;
            }
            if server {
                stack.server()?.kill().await?;
                tally.killed.1 += 1;
            }
            if rng.u8(..4) == 0 {
                sleep(Duration::from_millis(rng.u64(..500))).await;
            }
            if server {
                up(stack).await?;
            }
            if agent {
                stack.start_agent()?;
            }
        }
        Ok(())
    }
}

/// Starts the server again on its port. While it was down another program may have been given the port
/// for a moment.
async fn up(stack: &mut Stack) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(60);
    while let Err(e) = stack.start_server().await {
        anyhow::ensure!(Instant::now() < until, "{e:#}");
    }
    Ok(())
}

/// Waits until all has come to rest, and judges it.
async fn judge(
    stack: &Stack,
    mut history: Vec<Asked>,
    tally: &mut Tally,
) -> anyhow::Result<Vec<String>> {
    stack.ready().await?;
    for asked in history.iter_mut().filter(|a| a.refused.is_none()) {
        let until = Instant::now() + HEAL;
        while !asked.ended() && Instant::now() < until {
            let command = stack.client.command(&asked.name).await;
            note(asked, &command.with_context(|| format!("{asked:?}"))?);
            if !asked.ended() {
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    let truth = at_rest(stack).await?;
    let mut broken = books::judge(&history, &truth);
    // Asked again, by those who saw all of it: nothing has changed since.
    for asked in &mut history {
        match stack.client.command(&asked.name).await {
            Ok(command) => note(asked, &command),
            Err(s) if s.code() == tonic::Code::NotFound && asked.refused.is_some() => {}
            Err(s) => broken.push(format!("{s:?}: {asked:?}")),
        }
    }
    let again = books::judge(&history, &truth);
    broken.extend(again.into_iter().filter(|b| !broken.contains(b)).collect::<Vec<_>>());
    broken.extend(panics(stack));
    stack.admin(&["audit", "verify", "norte"]).await?;
    count(&history, &truth, tally);
    Ok(broken)
}

/// What everybody says who keeps count, once nothing moves any more.
///
/// # Errors
/// If they do not come to agree in time; the last difference is in the error.
pub async fn at_rest(stack: &Stack) -> anyhow::Result<Truth> {
    let sum = |truth: &Truth| -> (i64, i64, i64, i64) {
        (
            truth.totals.values().sum(),
            truth.executions.iter().map(|e| e.mg).sum(),
            truth.journal.values().sum(),
            truth.rows.iter().map(|r| r.mg).sum(),
        )
    };
    let rest = wait_for("totaliser, log, journal and history agree", HEAL, || async {
        let truth = read(stack).await.map_err(|e| format!("{e:#}"))?;
        let sums = sum(&truth);
        let again = read(stack).await.map_err(|e| format!("{e:#}"))?;
        let same = [sums.1, sums.2, sums.3].iter().all(|s| *s == sums.0);
        if same && sum(&again) == sums { Ok(truth) } else { Err(format!("{sums:?}")) }
    });
    match rest.await {
        Ok(truth) => Ok(truth),
        // The judge says it better.
        Err(_) => read(stack).await,
    }
}

async fn read(stack: &Stack) -> anyhow::Result<Truth> {
    let (dir, mut truth) = (stack.agent_dir(), Truth::default());
    let sim = Sim::of(&dir);
    for feeder in sim.feeders().await? {
        anyhow::ensure!(feeder["dosing"] == false, "a dose runs");
        let id = feeder["feeder"].as_str().context("no id")?.to_owned();
        truth.totals.insert(id.clone(), feeder["total_mg"].as_i64().context("no total")?);
        truth.held.insert(id, feeder["held"].as_bool().context("no hold")?);
    }
    truth.executions = sim.executions()?;
    truth.configs = sim.intervals()?;
    for (feeder, book) in journal::books(&dir).await? {
        // Two books of the same: what is in records, and what was added to the days.
        let recorded = book.recorded_mg + book.ahead_mg;
        truth.journal.insert(feeder, if recorded == book.days_mg { recorded } else { -1 });
    }
    for dose in stack.client.all_doses().await? {
        truth.rows.push(Row {
            feeder: dose.feeder.rsplit('/').next().unwrap_or_default().to_owned(),
            mg: dose.dispensed_mg.unwrap_or(0),
            name: dose.name,
            command: dose.command,
        });
    }
    Ok(truth)
}

fn panics(stack: &Stack) -> Vec<String> {
    let logs = [&stack.server, &stack.agent]
        .map(|p| p.as_ref().map_or(String::new(), crate::Process::log));
    let panicked = |l: &&str| l.contains("panicked at") || l.contains("internal error");
    logs.iter().flat_map(|log| log.lines()).filter(panicked).map(str::to_owned).collect()
}

fn count(history: &[Asked], truth: &Truth, tally: &mut Tally) {
    for asked in history {
        let kind = match asked.what {
            What::Dose(_) => "dose",
            What::Config(_) => "config",
            What::Hold(true) => "hold",
            What::Hold(false) => "resume",
        };
        *tally.ends.entry((kind, word(asked))).or_default() += 1;
        let in_doubt = |s: &Said| s.state == CommandState::Uncertain;
        tally.doubts += usize::from(asked.told.iter().any(in_doubt));
    }
    let commanded = truth.executions.iter().filter(|e| e.token.is_some());
    tally.doses.0 += commanded.clone().count();
    tally.doses.1 += commanded.filter(|e| e.mg < e.planned_mg).count();
    tally.doses.2 += truth.executions.iter().filter(|e| e.token.is_none()).count();
    tally.history.0 += truth.rows.len();
    tally.history.1 += truth.rows.iter().map(|r| r.mg).sum::<i64>();
}
