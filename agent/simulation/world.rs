//! One run: a farm, a server, people who ask, and everything that breaks, drawn from one seed.

use std::time::Duration;

use pasamanos_proto::model::{
    AgentName, CommandName, FarmId, FeederConfig, FeederName, ObservedConfig, PageRequest, Reason,
    RequestId,
};
use pasamanos_tests::check::{self, Dose, Feed};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::book::{Book, Met};
use super::callers::{Ask, Came, Patience, Wish};
use super::farm::{Copy, Machine};
use super::net::{Line, Mischief, Net};
use super::server::Server;
use crate::clock::Clock;
use crate::driver::Profile;
use crate::testing::{FEEDER, Fate, OTHER, ScriptedPlc, config};

/// A day.
const DAY_MS: i64 = 86_400_000;
/// Longer than any write is late and any limit runs, so that what is to come has come.
const SETTLE: Duration = Duration::from_secs(100);
/// The longest that an agent stays away after it was told that another has its name, and more.
const PATIENCE: Duration = Duration::from_mins(16);

/// What only some runs meet, because a rule then allows a doubt to stay.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Special {
    None,
    OldDatabase,
    OldJournal,
    Clone,
    Lies,
}

/// See the module.
pub(super) struct World {
    random: fastrand::Rng,
    book: Book,
    net: Net,
    server: Server,
    machines: Vec<Machine>,
    plc: ScriptedPlc,
    special: Special,
    /// Why doubts may stay, once that happened.
    excuse: Option<&'static str>,
    copy: Option<Copy>,
    calls: JoinSet<()>,
    wishes: Vec<Wish>,
    etags: Vec<String>,
    portion: i32,
    numbers: u128,
}

/// What a run came to.
pub(super) struct Judged {
    /// What was wrong, a line each.
    pub wrong: Vec<String>,
    /// What was met.
    pub met: Met,
}

fn farm() -> FarmId {
    "farm-1".parse().unwrap()
}

fn feeder(id: &str) -> FeederName {
    FeederName::new(farm(), id.parse().unwrap())
}

/// Runs one seed.
pub(super) async fn run(seed: u64) -> Judged {
    let mut world = World::new(seed).await;
    let rounds = world.random.usize(6..14);
    for _ in 0..rounds {
        world.disturb_plc().await;
        world.disturb_net();
        world.ask().await;
        world.live(1..9_000).await;
        world.interrupt().await;
    }
    world.heal().await;
    let judged = world.judge().await;
    world.end().await;
    judged
}

impl World {
    async fn new(seed: u64) -> Self {
        // The product's own jitter follows the seed too, as far as one thread draws it.
        fastrand::seed(seed);
        let mut random = fastrand::Rng::with_seed(seed);
        let plc = ScriptedPlc::new(&[(FEEDER, config()), (OTHER, config())]);
        let (profile, dwell) = match random.u8(0..3) {
            0 => (Profile::Block, Duration::ZERO),
            1 => (Profile::Block, Duration::from_secs(1)),
            _ => (Profile::Scalar, Duration::from_secs(1)),
        };
        let plc = plc.with(profile, dwell, true);
        let special = match random.u8(0..100) {
            0..56 => Special::None,
            56..67 => Special::OldDatabase,
            67..78 => Special::OldJournal,
            78..88 => Special::Clone,
            _ => Special::Lies,
        };
        let book = Book::default();
        book.met(format!("special: {special:?}"));
        let net = Net::new(random.fork(), book.clone());
        let still = Clock::simulated("server", 0, super::WALL);
        let mut server = Server::new(super::dir(), net.clone(), book.clone(), still, random.fork());
        let agent = AgentName::new(farm(), "agent-1".parse().unwrap());
        server.found(&farm(), &agent).await;
        server.start().await;
        let mut machine = Machine::new(0, agent, plc.clone(), net.clone());
        machine.start().await;
        let mut world = Self {
            random,
            book,
            net,
            server,
            machines: vec![machine],
            plc,
            special,
            excuse: None,
            copy: None,
            calls: JoinSet::new(),
            wishes: Vec::new(),
            etags: Vec::new(),
            portion: 1_000,
            numbers: u128::from(seed) << 32,
        };
        world.online().await;
        world
    }

    /// Waits until the farm is there.
    async fn online(&mut self) {
        let until = Instant::now() + PATIENCE;
        while self.net.heard_ago().is_none_or(|(ago, _)| ago > Duration::from_secs(9)) {
            if Instant::now() > until {
                self.book.wrong("the agent did not come back".into());
                return;
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    async fn live(&mut self, millis: std::ops::Range<u64>) {
        sleep(Duration::from_millis(self.random.u64(millis))).await;
        while self.calls.try_join_next().is_some_and(|done| done.map(drop).is_ok()) {}
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.random.u32(0..n) == 0
    }

    fn next_portion(&mut self) -> i32 {
        self.portion += 50;
        self.portion
    }

    /// What becomes of the next writes, whether the PLC can be read, and what people do there.
    async fn disturb_plc(&mut self) {
        let fate = |random: &mut fastrand::Rng| match random.u8(0..10) {
            0..5 => Fate::Answered,
            5 | 6 => Fate::AnswerLost,
            7 => Fate::Late(Duration::from_millis(random.u64(10..40_000))),
            8 => Fate::Lost,
            _ => Fate::NotSent,
        };
        let mut fates: Vec<_> =
            (0..self.random.usize(0..8)).map(|_| fate(&mut self.random)).collect();
        if self.one_in(6) {
            // A wire that loses everything for a while, and lets some of it through much later.
            let lost = |random: &mut fastrand::Rng| match random.u8(0..4) {
                0 => Fate::Late(Duration::from_millis(random.u64(5_000..60_000))),
                _ => Fate::Lost,
            };
            fates.extend((0..self.random.usize(10..80)).map(|_| lost(&mut self.random)));
            self.book.met("fault: a PLC that loses writes");
        }
        let (unreadable, meal, edit, held) =
            (self.one_in(7), self.one_in(5), self.one_in(12), self.one_in(30));
        let fed = self.random.u64(1..900);
        let id = if self.random.bool() { FEEDER } else { OTHER };
        let portion = if edit { self.next_portion() } else { 0 };
        let lie = (self.special == Special::Lies && self.one_in(4)).then(|| self.random.u8(0..4));
        if lie == Some(1) {
            // It forgets what was seen: of a dose that nobody saw before it was forgotten nobody can
            // tell, and the rules ask of a PLC that it latches before its motor starts.
            self.plc.plc().readable = true;
            sleep(Duration::from_secs(2)).await;
        }
        let mut plc = self.plc.plc();
        plc.fates = fates.into_iter().chain([Fate::Answered]).collect();
        plc.readable = !unreadable;
        plc.alive = true;
        if unreadable {
            self.book.met("fault: a PLC that cannot be read");
        }
        if meal {
            let meal_until = Instant::now() + Duration::from_secs(3);
            let f = plc.feeder(id);
            f.total_mg += fed;
            f.meal_until = Some(meal_until);
        }
        if edit {
            let f = plc.feeder(id);
            f.config =
                ObservedConfig::Valid(FeederConfig { portion_mg: Some(portion), ..config() });
            f.revision += 1;
            self.book.met("fault: a config set at the farm");
        }
        if held {
            plc.feeder(id).held = true;
            self.book.met("fault: a hold set at the farm");
        }
        match lie {
            Some(0) => plc.lose_memory(),
            // One that was consumed and never told can be known by nobody.
            Some(1) if plc.told != Some(plc.slot.last_sequence) => return,
            Some(1) => plc.roll_back(),
            Some(2) => plc.alive = false,
            Some(_) => plc.revert_after = Some(1),
            None => return,
        }
        let lies = ["lost its memory", "rolled back", "stands still", "puts values back"];
        self.book.met(format!("fault: a PLC that {}", lies[usize::from(lie.unwrap_or(0))]));
        self.excuse = Some("the PLC lied");
    }

    fn disturb_net(&mut self) {
        if self.one_in(4) {
            let mischief =
                Mischief { twice: 150, again: if self.one_in(4) { 8 } else { 0 }, swap: 500 };
            self.net.mischief(mischief);
        } else {
            self.net.mischief(Mischief::default());
        }
        match self.random.u8(0..16) {
            0 => {
                self.net.cut(None);
                self.book.met("fault: the link was cut");
            }
            1 | 2 => {
                let (up, ms) = (self.random.bool(), self.random.u64(500..40_000));
                self.net.stall(up, Duration::from_millis(ms));
                self.book.met(if up {
                    "fault: nothing goes up"
                } else {
                    "fault: nothing goes down"
                });
            }
            3 => {
                let line = if self.random.bool() { Line::Refused } else { Line::BlackHole };
                self.net.line(0, line);
                self.net.cut(Some(0));
                self.book.met(format!("fault: no way to the server: {line:?}"));
            }
            _ => self.net.line(0, Line::Up),
        }
        if self.one_in(12) {
            let ms = self.random.u64(200..4_000);
            self.server.sicken(Duration::from_millis(ms));
        }
        if self.one_in(10) {
            let by = if self.random.bool() { DAY_MS } else { -DAY_MS };
            if self.random.bool() {
                self.server.step_wall(by);
                self.book.met("fault: the server's wall clock was set");
            } else {
                self.machines[0].clock().step_wall(by);
                self.book.met("fault: the agent's wall clock was set");
            }
        }
    }

    /// People ask, some at once.
    async fn ask(&mut self) {
        for _ in 0..self.random.usize(1..4) {
            let Some(wish) = self.wish().await else { continue };
            self.wishes.push(wish.clone());
            let (net, book, random) = (self.net.clone(), self.book.clone(), self.random.fork());
            self.calls.spawn(pursue(wish, net, book, random));
        }
    }

    async fn wish(&mut self) -> Option<Wish> {
        if !self.wishes.is_empty() && self.one_in(8) {
            // An old id: the same again, or by mistake for something else.
            let old = self.random.usize(0..self.wishes.len());
            let mut wish = self.wishes[old].clone();
            if self.random.bool() && matches!(wish.what, Ask::Feed(_)) {
                wish.what = Ask::Feed(self.random.i32(1..40) * 50);
            }
            return Some(wish);
        }
        let feeder = feeder(if self.one_in(3) { OTHER } else { FEEDER });
        self.numbers += 1;
        let request = RequestId::from(Uuid::from_u128(self.numbers));
        let what = match self.random.u8(0..20) {
            0..10 => Ask::Feed(self.random.i32(1..40) * 50),
            10..14 => {
                let (control, power) = self.net.server()?;
                let seen = tokio::select! {
                    seen = control.feeder(&feeder) => seen.ok()?.etag,
                    () = power.cancelled() => return None,
                };
                self.etags.push(seen.clone());
                let stale = self.one_in(6).then(|| self.random.usize(0..self.etags.len()));
                let etag = stale.map_or(seen, |i| self.etags[i].clone());
                if etag.is_empty() {
                    return None;
                }
                Ask::Portion(self.next_portion(), etag)
            }
            14 | 15 => Ask::Hold,
            16 | 17 => Ask::Resume,
            18 => {
                if self.random.bool() {
                    Ask::HoldFarm
                } else {
                    Ask::Reset(7)
                }
            }
            _ => {
                let doubts = self.book.in_doubt();
                let i = (!doubts.is_empty()).then(|| self.random.usize(0..doubts.len()))?;
                Ask::Resolve(doubts[i].clone(), self.random.bool())
            }
        };
        Some(Wish { feeder, request, what })
    }

    /// Processes, files and machines end at any time.
    async fn interrupt(&mut self) {
        match self.random.u8(0..20) {
            0 | 1 => self.interrupt_agent().await,
            2 | 3 => self.interrupt_server().await,
            4 => {
                self.interrupt_agent().await;
                self.interrupt_server().await;
            }
            5..11 if self.special != Special::None => self.interrupt_specially().await,
            _ => {}
        }
    }

    async fn interrupt_agent(&mut self) {
        let i = self.random.usize(0..self.machines.len());
        match self.random.u8(0..5) {
            0 => {
                self.book.met("fault: the agent was stopped");
                self.machines[i].stop().await;
            }
            1 => {
                self.book.met("fault: the agent's machine was reset");
                self.machines[i].kill().await;
                self.machines[i].reboot();
            }
            _ => {
                self.book.met("fault: the agent was killed");
                self.machines[i].kill().await;
            }
        }
        if self.machines.len() == 1 {
            self.plc.plc().unplug();
        }
        if self.special == Special::OldJournal || self.special == Special::Clone {
            self.copy.get_or_insert_with(|| self.machines[i].copy());
        }
        if self.one_in(3) {
            self.live(1..40_000).await;
        }
        self.machines[i].start().await;
    }

    async fn interrupt_server(&mut self) {
        if self.one_in(3) {
            self.book.met("fault: the server was stopped");
            self.server.stop().await;
        } else {
            self.book.met("fault: the server was killed");
            self.server.kill().await;
        }
        if self.special == Special::OldDatabase {
            if self.random.bool() && self.server.put_back() {
                self.book.met("fault: an old database");
                self.excuse = Some("an old database was put back");
            } else {
                self.server.back_up();
            }
        }
        if self.one_in(3) {
            self.live(1..40_000).await;
        }
        self.server.start().await;
    }

    async fn interrupt_specially(&mut self) {
        match self.special {
            Special::OldDatabase => return self.interrupt_server().await,
            Special::OldJournal => {}
            Special::Clone if self.machines.len() == 1 => {}
            Special::Clone => return self.unclone().await,
            _ => return,
        }
        let Some(copy) = self.copy.take_if(|c| c.is_old(&self.net)) else {
            return self.interrupt_agent().await;
        };
        if self.special == Special::OldJournal {
            self.book.met("fault: an old journal");
            self.excuse = Some("an old journal was put back");
            self.machines[0].kill().await;
            // A dose of its last session can start for so long: put back before, it may say of one
            // that runs that it never did.
            sleep(Duration::from_secs(30)).await;
            self.plc.plc().unplug();
            self.machines[0].put_back(&copy);
            self.machines[0].start().await;
        } else {
            self.book.met("fault: a cloned journal");
            self.excuse = Some("a cloned journal ran");
            let agent = AgentName::new(farm(), "agent-1".parse().unwrap());
            let clone = Machine::new(1, agent, self.plc.clone(), self.net.clone());
            self.machines.push(clone.with(&copy));
            self.machines[1].start().await;
        }
    }

    /// One of the two is found out, and switched off.
    async fn unclone(&mut self) {
        if self.machines.len() < 2 {
            return;
        }
        let i = self.random.usize(0..2);
        let mut gone = self.machines.swap_remove(i);
        gone.kill().await;
        self.copy = None;
    }

    /// Everything is well again, and what is to come has come.
    async fn heal(&mut self) {
        self.unclone().await;
        self.net.heal();
        {
            let mut plc = self.plc.plc();
            plc.readable = true;
            plc.alive = true;
            plc.revert_after = None;
            plc.fates = [Fate::Answered].into();
            for id in [FEEDER, OTHER] {
                plc.feeder(id).held = false;
            }
        }
        let settled = Instant::now() + SETTLE;
        let all = async { while self.calls.join_next().await.is_some() {} };
        if timeout(PATIENCE, all).await.is_err() {
            self.book.wrong("a caller got no answer".into());
        }
        self.online().await;
        for id in [FEEDER, OTHER] {
            self.numbers += 1;
            let request = RequestId::from(Uuid::from_u128(self.numbers));
            let wish = Wish { feeder: feeder(id), request, what: Ask::Resume };
            let patience = Patience {
                wait: Duration::from_secs(30),
                leaves: Duration::from_secs(60),
                validate_only: false,
            };
            let mut came = Came::Unknown;
            for _ in 0..20 {
                came = wish.ask(self.net.server(), &patience, &self.book).await;
                let why_not = match came {
                    Came::Refused { again, why } => again || why == Reason::AgentOffline,
                    came => came == Came::Unknown,
                };
                if !why_not {
                    break;
                }
                sleep(Duration::from_secs(3)).await;
            }
            if came != Came::Answered && self.excuse.is_none() {
                self.book.wrong(format!("after all healed, a resume of {id} came to {came:?}"));
            }
        }
        tokio::time::sleep_until(settled).await;
        let until = Instant::now() + 2 * SETTLE;
        while !self.quiet() && self.excuse.is_none() && Instant::now() < until {
            sleep(Duration::from_secs(5)).await;
        }
    }

    /// Nothing is in doubt any more.
    fn quiet(&self) -> bool {
        self.book.open_ends() == 0
    }

    async fn judge(&mut self) -> Judged {
        // The store is asked directly, and its disk is a real one.
        let _still = self.machines[0].clock().still();
        let store = self.server.store();
        let mut known = std::collections::BTreeSet::new();
        for name in self.book.names() {
            if let Some(command) = store.command(&name).await.unwrap() {
                self.book.stored(&command);
                if !command.state.is_terminal() {
                    self.book.wrong(format!("{name}: it has no end, whatever happened"));
                }
                known.insert(name);
            } else if self.book.accepted_ever(&name) && self.special != Special::OldDatabase {
                self.book.wrong(format!("{name}: it was accepted and is not known any more"));
            }
        }
        let (commands, refusals, acceptances, wrong, met) =
            self.book.close(&|name: &CommandName| known.contains(name), self.excuse);
        let (mut feeds, mut records) = (Vec::new(), Vec::new());
        for id in [FEEDER, OTHER] {
            let history_mg = self.history(id, &mut records).await;
            let plc_mg = i64::try_from(self.plc.plc().feeder(id).total_mg).unwrap();
            feeds.push(Feed { feeder: id.into(), plc_mg, history_mg, excuse: self.excuse });
        }
        let plc = self.plc.plc();
        let dose = |(token, mg): &(u32, u32)| Dose { token: *token, mg: (*mg).into() };
        let run = check::Run {
            commands,
            refusals,
            acceptances,
            doses: plc.ran.iter().map(dose).collect(),
            values: plc.portions_set.iter().map(|v| (*v).into()).collect(),
            feeds,
            records,
        };
        let wrong = wrong.into_iter().chain(check::check(&run)).collect();
        Judged { wrong, met }
    }

    /// What the server's history has of a feeder, mg.
    async fn history(&self, id: &str, records: &mut Vec<String>) -> i64 {
        let (store, id) = (self.server.store(), id.parse().unwrap());
        let (mut sum, mut after) = (0, String::new());
        loop {
            let page = PageRequest { size: 500, after };
            let page = store.doses(&farm(), Some(&id), &page).await.unwrap();
            for dose in page.items {
                sum += dose.dispensed_mg.unwrap_or(0);
                records.push(dose.name);
            }
            match page.next {
                Some(next) => after = next,
                None => return sum,
            }
        }
    }

    async fn end(mut self) {
        for machine in &mut self.machines {
            if machine.runs() {
                machine.kill().await;
            }
        }
        if self.server.runs() {
            self.server.kill().await;
        }
    }
}

/// One person's call, with as many tries as they have patience for.
async fn pursue(wish: Wish, net: Net, book: Book, mut random: fastrand::Rng) {
    for _ in 0..4 {
        let quick = random.u8(0..5) == 0;
        let wait = if quick { random.u64(100..3_000) } else { 14_700 };
        let leaves = if random.u8(0..7) == 0 { random.u64(1..2_000) } else { 65_000 };
        let patience = Patience {
            wait: Duration::from_millis(wait),
            leaves: Duration::from_millis(leaves),
            validate_only: random.u8(0..25) == 0,
        };
        let again = match wish.ask(net.server(), &patience, &book).await {
            Came::Answered => random.u8(0..6) == 0,
            Came::Refused { again: false, .. } => random.u8(0..8) == 0,
            Came::Refused { again: true, .. } | Came::Unknown => random.u8(0..4) != 0,
        };
        if !again {
            return;
        }
        book.met("a call was repeated");
        let pause = if random.u8(0..6) == 0 { 40_000 } else { 3_000 };
        sleep(Duration::from_millis(random.u64(20..pause))).await;
    }
}
