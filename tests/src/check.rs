//! The one judge of a run, whatever was broken in it: [`check`] compares what the server said with
//! what the farm did. It is a pure function of plain records, so that a simulation in one process
//! and a run of the real programs are judged alike.
//!
//! How to use it: collect a [`Run`] while things break; heal everything, wait until nothing moves,
//! look at every command once more, fill in the farm's own log, and call [`check`]. An empty answer
//! is a run that kept every promise. What is not known is left out: no sightings of a command mean
//! nothing is claimed of it but that its dose ran at most once.

use std::collections::{BTreeMap, BTreeSet};

use pasamanos_proto::model::{BodyHash, CommandState, Reason};

/// One run: what was asked and said, and what the farm did.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Every command that may have been accepted: answered, accepted, or of unknown fate.
    pub commands: Vec<Command>,
    /// Every request that was refused with nothing left behind, and never accepted by another try.
    pub refusals: Vec<Refusal>,
    /// Every acceptance, with how alive the agent was.
    pub acceptances: Vec<Acceptance>,
    /// The doses that physically ran, from the PLC's own log, commanded ones only.
    pub doses: Vec<Dose>,
    /// The values that configs had in the PLC at any time through a write of the agent.
    pub values: Vec<i64>,
    /// What left each feeder, as the PLC and as the history count it.
    pub feeds: Vec<Feed>,
    /// Values that somebody at the farm set, those before the run included; no command sets one.
    pub farm_values: Vec<i64>,
    /// Values that a PLC came up with after it lost its memory; nobody set them.
    pub lost_values: Vec<i64>,
    /// What each feeder runs at the end, and how it came to that.
    pub configs: Vec<Config>,
    /// The name of every dose record in the history.
    pub records: Vec<String>,
    /// When each [`Said::life`] began, by the run's own clock, ms, where a database was put back: what
    /// one life refused or let expire and the next forgot may be asked for again and be done then. Empty if
    /// there was only one.
    pub lives: Vec<i64>,
    /// How much later than its start limit a PLC may start a dose, because its own expiry clock is
    /// coarse, ms.
    pub expiry_ms: i64,
}

impl Run {
    /// Whether the command's dose started in that life; in any, where the farm remembered.
    fn ran_within(&self, command: &Command, life: u32) -> bool {
        let since = |life: usize| self.lives.get(life).copied();
        let life = usize::try_from(life).unwrap_or(usize::MAX);
        let within = |at: i64| {
            since(life).is_none_or(|since| at >= since)
                && since(life.saturating_add(1)).is_none_or(|end| at < end)
        };
        let token = token(&command.name);
        self.doses.iter().any(|d| d.token == token && d.started_ms.is_none_or(within))
    }
}

/// A command.
#[derive(Clone, Debug)]
pub struct Command {
    /// `farms/{farm}/commands/{request id}`.
    pub name: String,
    /// What it does.
    pub what: What,
    /// What the server said of it, oldest first; the last is after everything healed.
    pub said: Vec<Said>,
    /// What callers were answered, in no order: held to be true, like everything that was said.
    pub answers: Vec<Said>,
    /// Why it may have stayed UNCERTAIN or got lost with a database, if a rule allows it in this
    /// run: a journal or database that was put back or copied, or a PLC that lied.
    pub excuse: Option<&'static str>,
}

/// What a command does, as far as the farm can show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Dispenses this much, mg.
    Dose(i64),
    /// Sets a value that no other command of the run sets.
    Config(i64),
    /// Hold, resume, reset.
    Other,
}

/// A command as the server showed it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// The state.
    pub state: CommandState,
    /// Its reason.
    pub reason: Reason,
    /// Which database said it: grows when an older copy is put back. Two lives may disagree about
    /// what was never lost in doubt; each must be true.
    pub life: u32,
}

/// A request that was refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The name that its command would have had.
    pub name: String,
    /// Whether the server knew a command of that name afterwards.
    pub known: bool,
}

/// An acceptance.
#[derive(Clone, Debug)]
pub struct Acceptance {
    /// The command's name.
    pub name: String,
    /// Age of the newest frame of the agent's current session that had arrived, counted from when
    /// the agent sent it, ms; `None` if there was no session.
    pub heard_ago_ms: Option<i64>,
    /// The lease time, ms.
    pub lease_ms: i64,
    /// When it was accepted, by the run's own clock, ms.
    pub at_ms: i64,
    /// How long a command may wait to be started, ms.
    pub limit_ms: i64,
    /// The instant that was fixed in the agent's clock, put into the run's own, ms.
    pub start_before_ms: i64,
}

/// A dose that physically ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dose {
    /// The token in the PLC's slot: [`token`] of the command's name.
    pub token: u32,
    /// What was asked of the PLC, mg.
    pub mg: i64,
    /// When the motor started, by the run's own clock, ms; `None` if nobody saw when.
    pub started_ms: Option<i64>,
}

/// What left one feeder.
#[derive(Clone, Debug)]
pub struct Feed {
    /// The feeder.
    pub feeder: String,
    /// By the PLC's totaliser, mg.
    pub plc_mg: i64,
    /// By the records in the server's history, mg.
    pub history_mg: i64,
    /// Why the two may differ, if a rule allows it in this run.
    pub excuse: Option<&'static str>,
}

/// One feeder's config, and its versions in the server's history.
#[derive(Clone, Debug)]
pub struct Config {
    /// The feeder.
    pub feeder: String,
    /// The value that its PLC runs at the end; `None` if nobody looked.
    pub runs: Option<i64>,
    /// Every version, oldest first.
    pub versions: Vec<Version>,
    /// Why a value may be credited to the farm or to nobody though another set it, if a rule allows it
    /// in this run: who set it was forgotten with a database or a journal, or the PLC lost its memory
    /// or put a value back by itself.
    pub excuse: Option<&'static str>,
}

/// One config version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// From 1.
    pub number: i64,
    /// Its value.
    pub value: i64,
    /// Whose it is said to be.
    pub author: Author,
}

/// Whom the history credits a version to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Author {
    /// The command of this name.
    Command(String),
    /// Somebody at the farm.
    Farm,
    /// Nobody: the PLC lost its memory.
    Nobody,
}

/// The token of a command's dose: the first 32 bits of SHA-256 of its name.
#[must_use]
pub fn token(name: &str) -> u32 {
    let hash = BodyHash::of(name.as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// Two clocks that count whole milliseconds differ by so much.
const ROUNDING_MS: i64 = 2;

/// What is wrong with a run, a line each; empty if it kept every promise.
#[must_use]
pub fn check(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut ran: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
    for dose in &run.doses {
        ran.entry(dose.token).or_default().push(dose.mg);
    }
    for command in &run.commands {
        let mut tell = |what: &str| {
            wrong.push(format!(
                "{}: {what}; {:?}, said {:?}",
                command.name,
                command.what,
                last(command)
            ));
        };
        life(command, &mut tell);
        // A config's write that never showed may show at any later time, and of one that the farm
        // wrote over nobody can tell whether it showed before, or whether what showed was the PLC's: these
        // stay in doubt. The first of the farm's values was there before the run.
        let edited = run.farm_values.len() > 1;
        let by_farm = last(command).is_some_and(|(_, reason)| {
            reason == Reason::ChangedAtFarm || (reason == Reason::ReadbackNotProven && edited)
        });
        let loose = matches!(command.what, What::Config(v) if by_farm || !run.values.contains(&v));
        end(command, loose, &mut tell);
        let ran = ran.get(&token(&command.name)).map_or(&[][..], Vec::as_slice);
        match command.what {
            What::Dose(mg) => dose(run, command, mg, ran, &mut tell),
            What::Config(value) => config(run, command, run.values.contains(&value), &mut tell),
            What::Other => {}
        }
    }
    refusals(run, &ran, &mut wrong);
    strangers(run, &ran, &mut wrong);
    acceptances(run, &mut wrong);
    starts(run, &mut wrong);
    for config in &run.configs {
        versions(run, config, &mut wrong);
    }
    records(run, &mut wrong);
    wrong
}

fn last(command: &Command) -> Option<(CommandState, Reason)> {
    command.said.last().map(|s| (s.state, s.reason))
}

fn known_end(state: CommandState) -> bool {
    state.is_terminal() && state != CommandState::Uncertain
}

/// P2: terminal states never change, except UNCERTAIN, by evidence. Within one database.
fn life(command: &Command, tell: &mut impl FnMut(&str)) {
    for pair in command.said.windows(2) {
        let [before, after] = pair else { continue };
        if before.life != after.life || before.state == after.state {
            continue;
        }
        if known_end(before.state) || (before.state.is_terminal() && !after.state.is_terminal()) {
            tell(&format!("{:?} became {:?}", before.state, after.state));
        }
    }
}

/// P2: every command has an end, and it is known, where no rule allows a doubt.
fn end(command: &Command, loose: bool, tell: &mut impl FnMut(&str)) {
    let Some((state, reason)) = last(command) else { return };
    // The agent stopped between two configs and holds the feeder: a person's to settle (RULES 6.4, 6.5).
    let persons = reason == Reason::ConfigMixed;
    if command.excuse.is_some() {
        return;
    }
    if !state.is_terminal() {
        tell("it has no end");
    } else if state == CommandState::Uncertain && !loose && !persons {
        tell("it stayed in doubt");
    }
}

/// P2 and P3: at most once, and every known end that was ever said is true.
fn dose(run: &Run, command: &Command, mg: i64, ran: &[i64], tell: &mut impl FnMut(&str)) {
    if ran.len() > 1 {
        tell(&format!("it ran {} times", ran.len()));
    }
    if ran.iter().any(|r| *r != mg) {
        tell(&format!("it ran with {ran:?} mg"));
    }
    for said in command.said.iter().chain(&command.answers) {
        match said.state {
            CommandState::Applied | CommandState::Partial if ran.is_empty() => {
                return tell("it was said to have run and did not");
            }
            CommandState::Rejected | CommandState::Expired
                if run.ran_within(command, said.life) =>
            {
                return tell("it was said not to have run and did");
            }
            _ => {}
        }
    }
}

/// P2: APPLIED is what the PLC had; what was refused never showed, unless its own reason says so.
fn config(run: &Run, command: &Command, shown: bool, tell: &mut impl FnMut(&str)) {
    for said in command.said.iter().chain(&command.answers) {
        // Whether it showed for a moment before the farm's edit, or before it was put back, is
        // what these reasons leave open.
        let moment = matches!(said.reason, Reason::ChangedAtFarm | Reason::RevertedByPlc);
        match said.state {
            CommandState::Applied if !shown => return tell("it was said to be set and never was"),
            CommandState::Rejected | CommandState::Expired
                if shown && !moment && run.lives.is_empty() =>
            {
                return tell("it was said not to be set and was");
            }
            _ => {}
        }
    }
}

/// P1: a refusal leaves nothing behind.
fn refusals(run: &Run, ran: &BTreeMap<u32, Vec<i64>>, wrong: &mut Vec<String>) {
    for refusal in &run.refusals {
        if refusal.known {
            wrong.push(format!("{}: it was refused, and the server knows it", refusal.name));
        }
        if ran.contains_key(&token(&refusal.name)) {
            wrong.push(format!("{}: it was refused, and its dose ran", refusal.name));
        }
    }
}

/// A dose that nobody asked for.
fn strangers(run: &Run, ran: &BTreeMap<u32, Vec<i64>>, wrong: &mut Vec<String>) {
    let asked: BTreeSet<_> = run
        .commands
        .iter()
        .map(|c| &c.name)
        .chain(run.refusals.iter().map(|r| &r.name))
        .map(|n| token(n))
        .collect();
    for stranger in ran.keys().filter(|t| !asked.contains(t)) {
        wrong.push(format!("a dose of token {stranger:08x} ran that nobody asked for"));
    }
}

/// P1: nothing is accepted unless the agent was heard within the lease time.
fn acceptances(run: &Run, wrong: &mut Vec<String>) {
    for a in &run.acceptances {
        if a.heard_ago_ms.is_none_or(|ago| ago >= a.lease_ms) {
            wrong.push(format!(
                "{}: accepted, the agent heard {:?} ms ago, the lease is {} ms",
                a.name, a.heard_ago_ms, a.lease_ms
            ));
        }
    }
}

/// P7: what is accepted may start for as long as the start limit says, and no dose starts later. One
/// that was accepted twice, by two databases, may start as long as the later one says.
fn starts(run: &Run, wrong: &mut Vec<String>) {
    let mut until: BTreeMap<u32, i64> = BTreeMap::new();
    for a in &run.acceptances {
        if a.start_before_ms > a.at_ms + a.limit_ms + ROUNDING_MS {
            wrong.push(format!(
                "{}: accepted at {} ms, and may start until {} ms",
                a.name, a.at_ms, a.start_before_ms
            ));
        }
        let until = until.entry(token(&a.name)).or_insert(i64::MIN);
        *until = a.start_before_ms.max(*until);
    }
    for dose in &run.doses {
        let (Some(until), Some(started)) = (until.get(&dose.token), dose.started_ms) else {
            continue;
        };
        if started > until + run.expiry_ms + ROUNDING_MS {
            let late = started - until;
            wrong.push(format!(
                "the dose of token {:08x} started {late} ms after its start limit",
                dose.token
            ));
        }
    }
}

/// P6: every version is credited to who set its value, the newest is what the PLC runs, and a config
/// that was told to be set is in the history.
fn versions(run: &Run, config: &Config, wrong: &mut Vec<String>) {
    let mut tell = |what: String| wrong.push(format!("{}: {what}", config.feeder));
    let values: BTreeMap<&str, i64> = run
        .commands
        .iter()
        .filter_map(|c| match c.what {
            What::Config(value) => Some((c.name.as_str(), value)),
            _ => None,
        })
        .collect();
    for (v, number) in config.versions.iter().zip(1..) {
        if v.number != number {
            tell(format!("version {number} is numbered {}", v.number));
        }
        let of_farm = run.farm_values.contains(&v.value);
        let right = match &v.author {
            Author::Command(name) => values.get(name.as_str()) == Some(&v.value),
            Author::Farm => of_farm || config.excuse.is_some(),
            Author::Nobody => run.lost_values.contains(&v.value) || config.excuse.is_some(),
        };
        if !right {
            tell(format!(
                "version {} has the value {}, credited to {:?}",
                number, v.value, v.author
            ));
        }
    }
    if let Some(runs) = config.runs
        && config.versions.last().is_none_or(|v| v.value != runs)
    {
        tell(format!("it runs {runs}, its newest version is {:?}", config.versions.last()));
    }
}

/// P9: every milligram is in the history, each record once.
fn records(run: &Run, wrong: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for record in &run.records {
        if !seen.insert(record) {
            wrong.push(format!("{record} is in the history twice"));
        }
    }
    for feed in run.feeds.iter().filter(|f| f.excuse.is_none() && f.plc_mg != f.history_mg) {
        wrong.push(format!(
            "{}: the PLC fed {} mg, the history has {} mg",
            feed.feeder, feed.plc_mg, feed.history_mg
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CommandState::{Accepted, Applied, Executing, Expired, Rejected, Uncertain};

    const NAME: &str = "farms/norte/commands/0191d7a2-7c4e-7b1a-9f3e-2b8f6d0c5a11";

    fn of(what: What, states: &[CommandState]) -> Run {
        let said = states.iter().map(|s| Said { state: *s, reason: Reason::Unspecified, life: 0 });
        let said = said.collect();
        Run {
            commands: vec![Command {
                name: NAME.into(),
                what,
                said,
                answers: Vec::new(),
                excuse: None,
            }],
            ..Run::default()
        }
    }

    fn ran(mut run: Run, times: usize) -> Run {
        let dose = Dose { token: token(NAME), mg: 100, started_ms: None };
        run.doses.extend(std::iter::repeat_n(dose, times));
        run
    }

    #[track_caller]
    fn wrong(run: &Run, word: &str) {
        let found = check(run);
        assert!(found.len() == 1 && found[0].contains(word), "{word:?} expected: {found:?}");
    }

    const DOSE: What = What::Dose(100);

    fn accepted(heard_ago_ms: Option<i64>, start_before_ms: i64) -> Run {
        let a = Acceptance {
            name: NAME.into(),
            heard_ago_ms,
            lease_ms: 25_000,
            at_ms: 5_000,
            limit_ms: 10_000,
            start_before_ms,
        };
        Run { acceptances: vec![a], expiry_ms: 1_000, ..of(DOSE, &[]) }
    }

    #[test]
    fn a_run_that_kept_its_promises_passes() {
        let good = ran(of(DOSE, &[Accepted, Executing, Uncertain, Applied]), 1);
        assert!(check(&good).is_empty());
        assert!(check(&of(DOSE, &[Accepted, Expired])).is_empty());
        assert!(check(&ran(of(DOSE, &[]), 1)).is_empty(), "nothing is claimed of it");
        let mut set = of(What::Config(7), &[Applied]);
        set.values.push(7);
        assert!(check(&set).is_empty());
    }

    #[test]
    fn a_dose_that_ran_twice_is_found() {
        wrong(&ran(of(DOSE, &[Applied]), 2), "ran 2 times");
        wrong(&ran(of(DOSE, &[]), 2), "ran 2 times");
    }

    #[test]
    fn an_end_that_is_not_true_is_found() {
        wrong(&of(DOSE, &[Applied]), "said to have run");
        wrong(&ran(of(DOSE, &[Expired]), 1), "said not to have run");
        wrong(&of(What::Config(7), &[Applied]), "never was");
        let mut set = of(What::Config(7), &[Rejected]);
        set.values.push(7);
        wrong(&set, "and was");
        set.commands[0].said[0].reason = Reason::ChangedAtFarm;
        assert!(check(&set).is_empty());
    }

    #[test]
    fn an_answer_that_is_not_true_is_found() {
        let mut run = of(DOSE, &[Expired]);
        let answer = Said { state: Applied, reason: Reason::Unspecified, life: 0 };
        run.commands[0].answers.push(answer);
        wrong(&run, "said to have run");
    }

    #[test]
    fn an_end_that_changed_is_found() {
        wrong(&of(What::Other, &[Applied, Rejected]), "became");
        wrong(&of(What::Other, &[Uncertain, Accepted, Applied]), "became");
        let mut lives = of(What::Other, &[Applied, Rejected]);
        lives.commands[0].said[1].life = 1;
        assert!(check(&lives).is_empty(), "another database");
    }

    #[test]
    fn no_end_and_a_doubt_that_stays_are_found() {
        wrong(&of(DOSE, &[Accepted]), "no end");
        wrong(&of(DOSE, &[Uncertain]), "in doubt");
        let mut set = of(What::Config(7), &[Uncertain]);
        assert!(check(&set).is_empty(), "a write that never showed may yet");
        set.values.push(7);
        wrong(&set, "in doubt");
        set.commands[0].said[0].reason = Reason::ChangedAtFarm;
        assert!(check(&set).is_empty(), "the farm wrote over it");
        let mut excused = of(DOSE, &[Uncertain]);
        excused.commands[0].excuse = Some("the journal was put back");
        assert!(check(&excused).is_empty());
    }

    #[test]
    fn what_a_refusal_left_is_found() {
        let refused =
            |known| Run { refusals: vec![Refusal { name: NAME.into(), known }], ..Run::default() };
        assert!(check(&refused(false)).is_empty());
        wrong(&refused(true), "knows it");
        wrong(&ran(refused(false), 1), "its dose ran");
    }

    #[test]
    fn a_dose_that_nobody_asked_for_is_found() {
        wrong(&ran(Run::default(), 1), "nobody asked");
    }

    #[test]
    fn an_acceptance_without_a_living_agent_is_found() {
        assert!(check(&accepted(Some(24_999), 0)).is_empty());
        wrong(&accepted(Some(25_000), 0), "accepted");
        wrong(&accepted(None, 0), "accepted");
    }

    #[test]
    fn p7_a_dose_that_starts_too_late_is_found() {
        let started = |ms| {
            let mut run = accepted(Some(0), 14_000);
            run.doses.push(Dose { token: token(NAME), mg: 100, started_ms: Some(ms) });
            run
        };
        assert!(check(&started(14_999)).is_empty());
        wrong(&started(15_100), "after its start limit");
        let mut again = started(15_100);
        again
            .acceptances
            .push(Acceptance { start_before_ms: 15_000, ..again.acceptances[0].clone() });
        assert!(check(&again).is_empty(), "accepted again, by an older database");
    }

    #[test]
    fn p7_a_start_limit_that_is_too_long_is_found() {
        assert!(check(&accepted(Some(0), 15_000)).is_empty());
        wrong(&accepted(Some(0), 15_100), "may start until");
    }

    #[test]
    fn p6_a_version_that_is_credited_wrongly_is_found() {
        let by = |author, value| Version { number: 1, value, author };
        let history = |version: Version| {
            let config = Config {
                feeder: "tolva-1".into(),
                runs: None,
                versions: vec![version],
                excuse: None,
            };
            Run {
                configs: vec![config],
                farm_values: vec![3],
                lost_values: vec![4],
                ..of(What::Config(7), &[Applied])
            }
        };
        let mut good = history(by(Author::Command(NAME.into()), 7));
        good.values.push(7);
        assert!(check(&good).is_empty());
        good.configs[0].versions.push(Version { number: 2, ..by(Author::Farm, 3) });
        assert!(check(&good).is_empty());
        good.configs[0].versions.push(Version { number: 3, ..by(Author::Nobody, 4) });
        good.configs[0].runs = Some(7);
        wrong(&good, "it runs 7");
        for (author, value) in [
            (Author::Farm, 7),
            (Author::Farm, 4),
            (Author::Nobody, 7),
            (Author::Command(NAME.into()), 3),
            (Author::Command("another".into()), 7),
        ] {
            let mut bad = history(by(author, value));
            bad.values.push(7);
            wrong(&bad, "credited to");
            bad.configs[0].excuse = Some("an old database was put back");
            let excused = !matches!(bad.configs[0].versions[0].author, Author::Command(_));
            assert_eq!(check(&bad).is_empty(), excused);
        }
    }

    #[test]
    fn a_milligram_too_many_and_a_record_twice_are_found() {
        let feed = |plc_mg, history_mg| Run {
            feeds: vec![Feed { feeder: "f".into(), plc_mg, history_mg, excuse: None }],
            ..Run::default()
        };
        assert!(check(&feed(5, 5)).is_empty());
        wrong(&feed(5, 4), "the PLC fed 5 mg");
        let twice = Run { records: vec!["a".into(), "a".into()], ..Run::default() };
        wrong(&twice, "history twice");
    }

    #[test]
    fn the_token_is_the_first_32_bits_of_the_hash() {
        // printf '' | sha256sum: e3b0c442...
        assert_eq!(token(""), 0xe3b0_c442);
    }
}
