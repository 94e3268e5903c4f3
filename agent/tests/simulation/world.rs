//! One run: a farm, a server, people who ask, and everything that breaks, drawn from one seed.

mod ask;
mod close;
mod disturb;
mod interrupt;

use std::time::Duration;

use pasamanos_proto::model::{AgentName, FarmId, FeederName};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::book::{Book, Met};
use super::callers::Wish;
use super::farm::{Copy, Machine};
use super::net::Net;
use super::server::Server;
use crate::clock::Clock;
use crate::driver::Profile;
use crate::testing::{FEEDER, OTHER, ScriptedPlc, config};

/// The longest that an agent stays away after it was told that another has its name, and more.
const PATIENCE: Duration = Duration::from_mins(16);

/// What only some runs meet, because a rule then allows a doubt to stay.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Special {
    None,
    OldDatabase,
    OldJournal,
    OldBoth,
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
    /// How many there have been.
    built: usize,
    plc: ScriptedPlc,
    special: Special,
    /// Why doubts may stay, once that happened.
    excuse: Option<&'static str>,
    copy: Option<Copy>,
    calls: JoinSet<()>,
    wishes: Vec<Wish>,
    etags: Vec<String>,
    portion: i32,
    /// The portions that the farm's own screen set, and the one before.
    farm_portions: Vec<i32>,
    /// The portions that a PLC without its memory came up with.
    lost_portions: Vec<i32>,
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
            0..48 => Special::None,
            48..56 => Special::OldBoth,
            56..67 => Special::OldDatabase,
            67..78 => Special::OldJournal,
            78..88 => Special::Clone,
            _ => Special::Lies,
        };
        if special == Special::OldBoth {
            // Then it has soon forgotten.
            plc.plc().keeps = random.usize(0..4);
        }
        let book = Book::new();
        book.met(format!("special: {special:?}"));
        let net = Net::new(random.fork(), book.clone());
        let still = Clock::simulated("server", 0, super::WALL);
        let mut server = Server::new(super::dir(), net.clone(), book.clone(), still, random.fork());
        let agent = AgentName::new(farm(), "agent-1".parse().unwrap());
        server.found(&farm(), &agent).await;
        server.start().await;
        let mut machine = Machine::new(0, agent, plc.clone(), net.clone(), book.clone());
        machine.start().await;
        let mut world = Self {
            random,
            book,
            net,
            server,
            machines: vec![machine],
            built: 1,
            plc,
            special,
            excuse: None,
            copy: None,
            calls: JoinSet::new(),
            wishes: Vec::new(),
            etags: Vec::new(),
            portion: 1_000,
            lost_portions: Vec::new(),
            farm_portions: config().portion_mg.into_iter().collect(),
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

    async fn end(mut self) {
        for machine in &mut self.machines {
            if machine.runs() {
                machine.kill().await;
            }
        }
        if self.server.runs() {
            self.server.kill().await;
        }
        self.net.end().await;
    }
}
