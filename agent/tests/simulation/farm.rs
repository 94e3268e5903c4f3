//! The farm: one scripted PLC, and the machines on which the agent runs, is killed, and comes back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pasamanos_proto::model::AgentName;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::book::Book;
use super::net::{Net, Wire};
use crate::agent::{Agent, Parts};
use crate::clock::Clock;
use crate::testing::ScriptedPlc;

/// How often a robot is read.
const POLL: Duration = Duration::from_millis(500);
/// Files of a journal.
const FILES: [&str; 3] = ["journal.db", "journal.db-wal", "journal.db-shm"];

/// One farm PC.
pub(super) struct Machine {
    pub number: usize,
    name: AgentName,
    dir: TempDir,
    plc: ScriptedPlc,
    net: Net,
    book: Book,
    clock: Clock,
    boots: usize,
    running: Option<(JoinHandle<()>, CancellationToken)>,
}

/// A copy of a journal.
pub(super) struct Copy {
    dir: TempDir,
    /// How many sessions there had been.
    sessions: usize,
}

impl Machine {
    /// A machine that no other has the number of.
    pub(super) fn new(
        number: usize,
        name: AgentName,
        plc: ScriptedPlc,
        net: Net,
        book: Book,
    ) -> Self {
        let clock = boot(number, 0, &book);
        Self { number, name, dir: super::dir(), plc, net, book, clock, boots: 0, running: None }
    }

    /// With that journal.
    pub(super) fn with(self, copy: &Copy) -> Self {
        copy_files(copy.dir.path(), self.dir.path());
        self
    }

    pub(super) fn runs(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) async fn start(&mut self) {
        assert!(self.running.is_none(), "it runs");
        let (net, clock) = (self.net.clone(), self.clock.clone());
        let parts = Parts {
            agent: self.name.clone(),
            data_dir: self.dir.path().into(),
            drivers: vec![(Arc::new(self.plc.clone()), POLL)],
            transport: Arc::new(Wire { net, machine: self.number, clock: clock.clone() }),
            clock,
            drain_timeout: Duration::from_secs(20),
        };
        let agent = Agent::assemble(parts).await.unwrap();
        let stop = CancellationToken::new();
        self.running = Some((tokio::spawn(agent.run(stop.clone())), stop));
    }

    /// As SIGKILL: nothing more is written.
    pub(super) async fn kill(&mut self) {
        let Some((task, _)) = self.running.take() else { return };
        task.abort();
        let _aborted = task.await;
        self.net.cut(Some(self.number));
        self.wait_for_files().await;
    }

    /// As SIGTERM.
    pub(super) async fn stop(&mut self) {
        let Some((task, stop)) = self.running.take() else { return };
        stop.cancel();
        task.await.unwrap();
    }

    /// The machine itself starts anew: another boot, whose clock begins again.
    pub(super) fn reboot(&mut self) {
        assert!(self.running.is_none(), "it runs");
        self.boots += 1;
        let wall = self.clock.wall_ms();
        self.clock = boot(self.number, self.boots, &self.book);
        self.clock.step_wall(wall - self.clock.wall_ms());
    }

    /// Copies the journal of an agent that does not run.
    pub(super) fn copy(&self) -> Copy {
        assert!(self.running.is_none(), "it runs");
        let dir = super::dir();
        copy_files(self.dir.path(), dir.path());
        Copy { dir, sessions: self.net.sessions() }
    }

    /// Puts a copy back.
    pub(super) fn put_back(&self, copy: &Copy) {
        assert!(self.running.is_none(), "it runs");
        for file in FILES {
            drop(std::fs::remove_file(self.dir.path().join(file)));
        }
        copy_files(copy.dir.path(), self.dir.path());
    }

    /// The journal's owner ends when nobody can ask it any more, and lets lock and files go.
    async fn wait_for_files(&self) {
        let _still = self.clock.still();
        for _ in 0..100_000 {
            let lock =
                std::fs::File::options().write(true).open(self.dir.path().join("journal.lock"));
            let free = lock.unwrap().try_lock().is_ok();
            if free && !self.dir.path().join("journal.db-wal").exists() {
                return;
            }
            tokio::task::yield_now().await;
            std::thread::sleep(Duration::from_micros(20));
        }
        panic!("the journal was not let go");
    }
}

impl Copy {
    /// Whether a session was opened since: without one nothing shows that it is old.
    pub(super) fn is_old(&self, net: &Net) -> bool {
        net.sessions() > self.sessions
    }
}

fn boot(machine: usize, boots: usize, book: &Book) -> Clock {
    let up_ms = 1_000_000 / (i64::try_from(boots).unwrap() + 1);
    let id = format!("boot-{machine}-{boots}");
    book.booted(&id, up_ms);
    Clock::simulated(&id, up_ms, super::WALL)
}

fn copy_files(from: &Path, to: &Path) {
    for file in FILES {
        if from.join(file).exists() {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }
}
