//! What was asked, what was said, and what was met: written down while a run goes on, for the judge.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use pasamanos_proto::model::{Action, CommandName, CommandState, Reason};
use pasamanos_proto::pb;
use pasamanos_server::domain::ports::StoredCommand;
use pasamanos_tests::check::{Acceptance, Command, Refusal, Said, What};
use tokio::time::Instant;

/// How often each thing happened.
pub(super) type Met = BTreeMap<String, usize>;

/// The book of one run.
#[derive(Clone)]
pub(super) struct Book(Arc<Mutex<Pages>>, Instant);

#[derive(Default)]
struct Pages {
    life: u32,
    /// When each but the first began, by the run's own clock, ms.
    lives: Vec<i64>,
    commands: BTreeMap<CommandName, Noted>,
    /// Every name that was asked for: whether each try was refused with nothing left behind.
    asked: BTreeMap<CommandName, bool>,
    acceptances: Vec<Acceptance>,
    /// What each boot's clock showed when the run began, ms.
    boots: BTreeMap<String, i64>,
    wrong: Vec<String>,
    met: Met,
}

#[derive(Default)]
struct Noted {
    action: Option<Action>,
    said: Vec<Said>,
    answers: Vec<Said>,
    /// A person said what became of it: it is not looked after any more, and its state stays.
    by_person: bool,
}

impl Book {
    /// Of a run that begins now.
    pub(super) fn new() -> Self {
        Self(Arc::default(), Instant::now())
    }

    /// An instant in the run's own clock, ms.
    pub(super) fn ms(&self, at: Instant) -> i64 {
        i64::try_from((at - self.1).as_millis()).unwrap()
    }

    /// A machine starts; its clock shows this now.
    pub(super) fn booted(&self, boot: &str, clock_ms: i64) {
        let began = clock_ms - self.ms(Instant::now());
        let before = self.open().boots.insert(boot.into(), began);
        assert!(before.is_none(), "{boot} began twice");
    }

    /// An instant of a machine's clock in the run's own, ms.
    pub(super) fn of_clock(&self, boot: &str, ms: i64) -> i64 {
        let began = self.open().boots.get(boot).copied();
        ms - began.unwrap_or_else(|| panic!("no machine had boot {boot:?}"))
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Pages> {
        self.0.lock().unwrap()
    }

    /// Something happened.
    pub(super) fn met(&self, what: impl Into<String>) {
        *self.open().met.entry(what.into()).or_default() += 1;
    }

    /// Something that must never happen.
    pub(super) fn wrong(&self, what: String) {
        self.open().wrong.push(what);
    }

    /// An older database was put back.
    pub(super) fn next_life(&self) {
        let now = self.ms(Instant::now());
        let mut pages = self.open();
        pages.life += 1;
        pages.lives.push(now);
    }

    /// When each life of the database began, by the run's own clock, ms.
    pub(super) fn lives(&self) -> Vec<i64> {
        std::iter::once(i64::MIN).chain(self.open().lives.iter().copied()).collect()
    }

    /// A command as the database has it now.
    pub(super) fn stored(&self, command: &StoredCommand) {
        let pages = &mut *self.open();
        let noted = pages.commands.entry(command.name.clone()).or_default();
        if let Some(known) = &noted.action
            && *known != command.action
        {
            pages.wrong.push(format!("{}: {known:?} became {:?}", command.name, command.action));
        }
        noted.action = Some(command.action.clone());
        let said = Said { state: command.state, reason: command.reason, life: pages.life };
        let before = noted.said.last().copied();
        if before == Some(said) {
            return;
        }
        if before.is_some_and(|b| b.state == CommandState::Uncertain && b.state != said.state) {
            *pages.met.entry("a doubt was settled".into()).or_default() += 1;
        }
        noted.said.push(said);
    }

    /// A person settled a doubt.
    pub(super) fn by_person(&self, command: &StoredCommand) {
        self.stored(command);
        self.met("a person settled a doubt");
        self.open().commands.entry(command.name.clone()).or_default().by_person = true;
    }

    /// Why the history may differ from the totaliser: it has what a person said of a doubt.
    pub(super) fn persons_word(&self) -> Option<&'static str> {
        let by_person = self.open().commands.values().any(|noted| noted.by_person);
        by_person.then_some("a person said what fell")
    }

    /// An acceptance was committed, or may have been.
    pub(super) fn accepted(&self, command: CommandName, action: Action, alive: Acceptance) {
        let mut pages = self.open();
        pages.acceptances.push(alive);
        let noted = pages.commands.entry(command).or_default();
        noted.action.get_or_insert(action);
    }

    /// A caller was shown a command.
    pub(super) fn answered(&self, name: &CommandName, command: &pb::Command) {
        let Ok(state) = CommandState::try_from(command.state()) else {
            return self.wrong(format!("{name}: an answer without a state"));
        };
        let reason = Reason::from_name(&command.reason).unwrap_or_default();
        let pages = &mut *self.open();
        if command.name != name.to_string() {
            pages.wrong.push(format!("{name}: answered with {}", command.name));
        }
        let said = Said { state, reason, life: pages.life };
        let noted = pages.commands.entry(name.clone()).or_default();
        if !noted.answers.contains(&said) {
            noted.answers.push(said);
        }
    }

    /// A try of a name ended; whether it certainly left nothing behind.
    pub(super) fn tried(&self, name: &CommandName, nothing_left: bool) {
        let mut pages = self.open();
        *pages.asked.entry(name.clone()).or_insert(true) &= nothing_left;
    }

    /// Commands that the server last called UNCERTAIN.
    pub(super) fn in_doubt(&self) -> Vec<CommandName> {
        let pages = self.open();
        let doubt = |n: &&Noted| n.said.last().is_some_and(|s| s.state == CommandState::Uncertain);
        pages.commands.iter().filter(|(_, n)| doubt(n)).map(|(name, _)| name.clone()).collect()
    }

    /// Commands whose end is not known.
    pub(super) fn open_ends(&self) -> usize {
        let pages = self.open();
        let open = |n: &&Noted| {
            let last = n.said.last().map(|s| s.state);
            let doubt = |s| s == CommandState::Uncertain && !n.by_person;
            last.is_some_and(|s| !s.is_terminal() || doubt(s))
        };
        pages.commands.values().filter(open).count()
    }

    /// Whether it was stored at any time.
    pub(super) fn accepted_ever(&self, name: &CommandName) -> bool {
        self.open().commands.get(name).is_some_and(|n| n.action.is_some())
    }

    /// Every name that was ever asked for or accepted.
    pub(super) fn names(&self) -> Vec<CommandName> {
        let pages = self.open();
        let mut names: Vec<_> = pages.asked.keys().chain(pages.commands.keys()).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// For the judge: commands, refusals, acceptances, and what was wrong at once. `known` says which
    /// commands the server knows at the end.
    pub(super) fn close(
        &self,
        known: &dyn Fn(&CommandName) -> bool,
        excuse: Option<&'static str>,
    ) -> (Vec<Command>, Vec<Refusal>, Vec<Acceptance>, Vec<String>, Met) {
        let pages = &mut *self.open();
        let (mut commands, mut refusals) = (Vec::new(), Vec::new());
        for (name, noted) in &pages.commands {
            let (what, kind) = match &noted.action {
                Some(Action::FeedNow { portion_mg }) => (What::Dose((*portion_mg).into()), "dose"),
                Some(Action::UpdateConfig { new, .. }) => {
                    (What::Config(new.portion_mg.unwrap_or(0).into()), "config")
                }
                Some(Action::Hold) => (What::Other, "hold"),
                Some(Action::Resume) => (What::Other, "resume"),
                _ => (What::Other, "other"),
            };
            if let Some(last) = noted.said.last() {
                let end = format!("{kind} {:?}", last.state);
                *pages.met.entry(end).or_default() += 1;
            }
            // A config that shows is told by its command, whatever a person said of it before.
            let by_person = noted.by_person && !matches!(what, What::Config(_));
            commands.push(Command {
                name: name.to_string(),
                what,
                said: noted.said.clone(),
                answers: noted.answers.clone(),
                excuse: excuse.or(by_person.then_some("a person settled it")),
            });
        }
        for (name, nothing_left) in &pages.asked {
            if *nothing_left && !pages.commands.contains_key(name) {
                refusals.push(Refusal { name: name.to_string(), known: known(name) });
            } else if *nothing_left && pages.commands[name].action.is_some() {
                // Refused, it said, and yet it was accepted.
                refusals.push(Refusal { name: name.to_string(), known: true });
            }
        }
        let (acceptances, wrong) =
            (std::mem::take(&mut pages.acceptances), std::mem::take(&mut pages.wrong));
        (commands, refusals, acceptances, wrong, std::mem::take(&mut pages.met))
    }
}
