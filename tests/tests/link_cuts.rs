//! P2 and P3 with the link between agent and server cut after byte N of a command's exchange, for
//! every N and in either direction: the PLC's own log shows at most one execution, the outcome is
//! true, and nobody has to help.
//!
//! The exchange is measured first: from the ask until the outcome is acknowledged and the link is at
//! rest; and so is the agent's return, hello and all, which is cut too. `BYTE_STRIDE=1` makes it every
//! byte (without it, some fifty a direction); `BYTE_LANES=n` shares them among n farms.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use pasamanos_proto::pb::{self, CommandState};
use pasamanos_tests::client::{FARM, reason, request_id};
use pasamanos_tests::fault_proxy::{Cut, Way};
use pasamanos_tests::{Stack, wait_for};
use serde_json::json;
use tonic::Status;

/// Cuts a direction if nothing else is said.
const CUTS: u64 = 45;
/// The same of returns: each takes two reconnections.
const CUTS_OF_RETURNS: u64 = 15;
/// The link is at rest when nothing passed for this long; the agent gathers changes for 200 ms.
const CALM: Duration = Duration::from_millis(250);
const DOSE_MG: i32 = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Dose,
    Config,
}

/// Where the link is cut.
#[derive(Clone, Copy, Debug)]
struct At {
    way: Way,
    bytes: u64,
    cut: Cut,
}

/// One farm that is asked again and again.
struct Farm {
    kind: Kind,
    stack: Stack,
    feeder: String,
    portion_mg: i32,
    revision: u64,
    /// Commands that the PLC must have run, by name.
    ran: BTreeMap<String, bool>,
}

/// What a sweep came to.
#[derive(Debug, Default)]
struct Tally {
    cuts: usize,
    /// The exchange was shorter this time: the cut did not come.
    whole: usize,
    ends: BTreeMap<&'static str, usize>,
    violations: Vec<String>,
}

impl Farm {
    async fn start(kind: Kind) -> anyhow::Result<Self> {
        // Beats that are rare beside an exchange.
        let args = ["--lease-ttl", "25s", "--heartbeat-interval", "8s"];
        let stack = Stack::builder().server_args(&args).proxied().start().await?;
        let feeder = stack.first_feeder().await?;
        // So many doses would take the oxygen from the water.
        let kind_of = "dissolved_oxygen_ug_per_l";
        let full = json!({"op": "reading", "feeder": feeder, "kind": kind_of, "value": 8_000});
        stack.sim().control(&full).await?;
        let mut farm =
            Self { kind, stack, feeder, portion_mg: 0, revision: 0, ran: BTreeMap::new() };
        (farm.portion_mg, farm.revision) = farm.plc().await?;
        Ok(farm)
    }

    /// The portion and the revision that the PLC runs.
    async fn plc(&self) -> anyhow::Result<(i32, u64)> {
        let feeders = self.stack.sim().feeders().await?;
        let mine = feeders.iter().find(|f| f["feeder"] == self.feeder.as_str());
        let mine = mine.context("no such feeder")?;
        let portion = mine["config"]["portion_mg"].as_i64().context("no portion")?;
        Ok((i32::try_from(portion)?, mine["revision"].as_u64().context("no revision")?))
    }

    /// Asks the gate, and nothing more.
    async fn gate(&self) -> Result<(), Status> {
        let request = pb::HoldFeederRequest {
            name: format!("{FARM}/feeders/{}", self.feeder),
            request_id: request_id(),
            validate_only: true,
            ..Default::default()
        };
        self.stack.client.feeders.clone().hold_feeder(request).await.map(drop)
    }

    /// Waits until a session lives and the link is at rest.
    async fn at_rest(&self) -> anyhow::Result<()> {
        loop {
            wait_for("a session", Duration::from_secs(30), || self.gate()).await?;
            self.stack.link()?.quiet(CALM).await?;
            // A link that rests because it was cut is known to be cut by now.
            if self.gate().await.is_ok() {
                return Ok(());
            }
        }
    }

    fn next_portion(&self) -> i32 {
        if self.portion_mg >= 2_500 { 1_500 } else { self.portion_mg + 50 }
    }

    /// Asks once and answers with the command's name and true end.
    async fn ask(&self) -> anyhow::Result<(String, CommandState)> {
        let id = request_id();
        let name = format!("{FARM}/commands/{id}");
        let mut client = self.stack.client.feeders.clone();
        let answer = match self.kind {
            Kind::Dose => {
                let request = pb::FeedNowRequest {
                    name: format!("{FARM}/feeders/{}", self.feeder),
                    portion_mg: Some(DOSE_MG),
                    request_id: id,
                    ..Default::default()
                };
                client.feed_now(request).await.map(|_| ())
            }
            Kind::Config => {
                let portion = self.next_portion();
                let mut request = self.stack.client.portion_request(&self.feeder, portion).await?;
                request.request_id = id;
                client.update_feeder_config(request).await.map(|_| ())
            }
        };
        if let Err(refused) = answer {
            // A cut may come before the gate is asked; then nothing is left behind.
            anyhow::ensure!(reason(&refused) == "AGENT_MOVING", "{refused:?}");
            return Ok((name, CommandState::Unspecified));
        }
        let state = wait_for("a true end", Duration::from_secs(40), || async {
            let command = self.stack.client.command(&name).await?;
            match command.state() {
                CommandState::Applied
                | CommandState::Partial
                | CommandState::Rejected
                | CommandState::Expired => Ok(command.state()),
                state => Err(Status::unavailable(format!("{state:?} {}", command.reason))),
            }
        })
        .await?;
        Ok((name, state))
    }

    /// The outcome against the PLC's own word.
    async fn judge(&mut self, name: &str, state: CommandState) -> anyhow::Result<()> {
        match self.kind {
            Kind::Dose => {
                let ran = self.stack.doses_of(name)?;
                let applied = state == CommandState::Applied;
                self.ran.insert(name.to_owned(), applied);
                anyhow::ensure!(ran <= 1, "given {ran} times");
                anyhow::ensure!((ran == 1) == applied, "told {state:?}, given {ran} times");
            }
            Kind::Config => {
                let (portion, revision) = self.plc().await?;
                let wanted = self.next_portion();
                let before = (self.portion_mg, self.revision);
                let after = match state {
                    CommandState::Applied => (wanted, self.revision + 1),
                    _ => before,
                };
                (self.portion_mg, self.revision) = (portion, revision);
                anyhow::ensure!(
                    (portion, revision) == after,
                    "told {state:?} of {wanted} mg; the PLC was at {before:?} and is at {:?}",
                    (portion, revision)
                );
                let shown = self.stack.client.feeder(&self.feeder).await?.config;
                let shown = shown.and_then(|c| c.portion_mg);
                anyhow::ensure!(shown == Some(portion), "the server shows {shown:?}");
            }
        }
        Ok(())
    }

    /// How many bytes each way one whole exchange takes.
    async fn measure(&mut self) -> anyhow::Result<(u64, u64)> {
        self.at_rest().await?;
        let link = self.stack.link()?;
        let before = (link.passed(Way::Up), link.passed(Way::Down));
        let (name, state) = self.ask().await?;
        link.quiet(CALM).await?;
        let bytes = (link.passed(Way::Up) - before.0, link.passed(Way::Down) - before.1);
        anyhow::ensure!(state == CommandState::Applied, "{state:?}");
        self.judge(&name, state).await?;
        Ok(bytes)
    }

    /// How many bytes each way an agent takes to come back.
    async fn measure_return(&self) -> anyhow::Result<(u64, u64)> {
        self.at_rest().await?;
        let link = self.stack.link()?;
        let before = (link.passed(Way::Up), link.passed(Way::Down));
        link.cut(Cut::Reset);
        link.cuts_reach(link.cuts() + 1).await?;
        self.at_rest().await?;
        Ok((link.passed(Way::Up) - before.0, link.passed(Way::Down) - before.1))
    }

    /// Asks once while the link is cut, and is cut once more while the agent comes back; judges what
    /// came of it. The link is at rest before and after.
    async fn cut(
        &mut self,
        first: At,
        second: Option<At>,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        let (name, state) = loop {
            let link = self.stack.link()?;
            let before = link.cuts();
            link.cut_after(first.way, first.bytes, first.cut);
            let again = async {
                if let Some(second) = second {
                    link.cuts_reach(before + 1).await?;
                    link.cut_after(second.way, second.bytes, second.cut);
                }
                anyhow::Ok(())
            };
            let (asked, again) = tokio::join!(self.ask(), again);
            // The last bytes of an exchange come after its end is known: until the link is at rest.
            self.at_rest().await?;
            again?;
            let (name, state) = asked?;
            if state != CommandState::Unspecified {
                break (name, state);
            }
            // Something else passed first, and the gate was shut by the cut: nothing was left behind.
            for at in [Some(first), second].into_iter().flatten() {
                self.stack.link()?.disarm(at.way);
            }
        };
        *tally.ends.entry(state.as_str_name()).or_default() += 1;
        let link = self.stack.link()?;
        let unfulfilled = [Some(first), second].into_iter().flatten();
        if unfulfilled.filter(|at| link.disarm(at.way)).count() > 0 {
            tally.whole += 1;
        } else {
            tally.cuts += 1;
        }
        self.judge(&name, state).await
    }

    /// What holds of all commands together: each dose that fell is in the history exactly once.
    async fn history(&self) -> anyhow::Result<()> {
        if self.kind == Kind::Config {
            return Ok(());
        }
        let given = self.ran.values().filter(|ran| **ran).count();
        let started = self.stack.doses_started()?;
        anyhow::ensure!(started == given, "{started} doses for {given} that are told");
        wait_for("each dose in the history exactly once", Duration::from_secs(20), || async {
            let mut rows = BTreeMap::new();
            for dose in self.stack.client.all_doses().await? {
                if !dose.command.is_empty() {
                    *rows.entry(dose.command).or_insert(0) += 1;
                }
            }
            let right = |(name, ran): (&String, &bool)| {
                rows.get(name).copied().unwrap_or(0) == i32::from(*ran)
            };
            match self.ran.iter().find(|pair| !right(*pair)) {
                None => Ok(()),
                Some((name, ran)) => {
                    Err(Status::internal(format!("{name}: given {ran}, {:?} rows", rows.get(name))))
                }
            }
        })
        .await
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok().filter(|n| *n > 0)
}

/// What is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// The exchange of a command.
    Exchange,
    /// The agent's return after the exchange was cut.
    Return,
}

/// The bytes of one lane: every `lanes * stride`th, from `lane * stride`.
async fn lane(kind: Kind, of: Of, way: Way, lane: u64, lanes: u64) -> anyhow::Result<Tally> {
    let mut farm = Farm::start(kind).await?;
    let mut tally = Tally::default();
    // The second on a connection is like those that follow: names are in the header tables.
    farm.measure().await?;
    let exchange = farm.measure().await?;
    let back = farm.measure_return().await?;
    let (measured, default) = match of {
        Of::Exchange => (exchange, CUTS),
        Of::Return => (back, CUTS_OF_RETURNS),
    };
    let bytes = if way == Way::Up { measured.0 } else { measured.1 };
    let stride = number("BYTE_STRIDE").unwrap_or((bytes / default).max(1));
    if lane == 0 {
        println!("{kind:?} {of:?} {way:?}: {bytes} bytes, each {stride}. is cut");
    }
    for n in (0..bytes.div_ceil(stride)).filter(|n| n % lanes == lane) {
        let cut = if n % 2 == 0 { Cut::Reset } else { Cut::Close };
        let at = At { way, bytes: n * stride, cut };
        let (first, second) = match of {
            Of::Exchange => (at, None),
            Of::Return => (before_the_return(n, exchange), Some(at)),
        };
        if let Err(e) = farm.cut(first, second, &mut tally).await {
            let logs = farm.stack.logs();
            let what = format!("{kind:?} {first:?} {second:?}: {e:#}\n{logs}");
            tally.violations.push(what);
            if tally.violations.len() > 2 {
                break;
            }
        }
    }
    if let Err(e) = farm.history().await {
        tally.violations.push(format!("{kind:?} {of:?} {way:?}: {e:#}"));
    }
    Ok(tally)
}

/// A first cut that leaves something for the return to settle: in turn the command is lost, begun,
/// done, and done and stored.
fn before_the_return(n: u64, exchange: (u64, u64)) -> At {
    let (way, bytes) = match n % 4 {
        0 => (Way::Down, 0),
        1 => (Way::Up, 0),
        2 => (Way::Up, exchange.0 / 3),
        _ => (Way::Down, exchange.1 * 3 / 4),
    };
    At { way, bytes, cut: Cut::Reset }
}

async fn sweep(kind: Kind, of: Of) {
    let lanes = number("BYTE_LANES").unwrap_or(1);
    let mut farms = tokio::task::JoinSet::new();
    for way in [Way::Up, Way::Down] {
        for i in 0..lanes {
            farms.spawn(async move { (way, lane(kind, of, way, i, lanes).await) });
        }
    }
    let mut violations = Vec::new();
    let (mut cuts, mut whole) = (0, 0);
    while let Some(done) = farms.join_next().await {
        let (way, tally) = done.unwrap();
        let tally = tally.unwrap_or_else(|e| panic!("{kind:?} {of:?} {way:?}: {e:#}"));
        println!(
            "{kind:?} {of:?} {way:?}: {} cuts, {} whole, {:?}, {} violations",
            tally.cuts,
            tally.whole,
            tally.ends,
            tally.violations.len()
        );
        violations.extend(tally.violations);
        (cuts, whole) = (cuts + tally.cuts, whole + tally.whole);
    }
    println!("{kind:?} {of:?}: {cuts} cuts, {} violations", violations.len());
    assert!(violations.is_empty(), "{}", violations.join("\n\n"));
    // One that was measured with a beat or a status in it is longer than most: its last places cut nothing.
    assert!(whole * 4 <= cuts, "{whole} of {} were not cut: it proves little", cuts + whole);
}

#[tokio::test]
async fn p3_a_dose_survives_a_cut_of_the_link_after_any_byte() {
    sweep(Kind::Dose, Of::Exchange).await;
}

#[tokio::test]
async fn p2_a_config_survives_a_cut_of_the_link_after_any_byte() {
    sweep(Kind::Config, Of::Exchange).await;
}

/// What the first cut left open is settled by a return that is cut too, and by the one after it.
#[tokio::test]
async fn p3_a_dose_survives_a_cut_of_the_link_in_the_agents_return() {
    sweep(Kind::Dose, Of::Return).await;
}

#[tokio::test]
async fn p2_a_config_survives_a_cut_of_the_link_in_the_agents_return() {
    sweep(Kind::Config, Of::Return).await;
}
