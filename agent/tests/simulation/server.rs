//! The server's machine: its disk, its clock, and the process that runs, dies and comes back.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pasamanos_proto::model::{AgentName, FarmId};
use pasamanos_server::control::{Control, Timing};
use pasamanos_server::domain::ports::{Clock as ServerClock, NewFarm, Store};
use pasamanos_server::lease::MemoryLeases;
use pasamanos_server::startup::take_over;
use pasamanos_server::store::{Options, SqliteStore};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::book::Book;
use super::net::Net;
use super::store::{Disk, Health};
use crate::clock::Clock;

/// The shipped times.
pub(super) const LEASE: Duration = Duration::from_secs(25);
const BEAT: Duration = Duration::from_secs(8);
pub(super) const START_LIMIT: Duration = Duration::from_secs(10);
const DRAIN: Duration = Duration::from_secs(20);

/// A process' clock under simulated time: its monotonic clock counts from its start.
struct Ticks {
    start: Instant,
    wall: Arc<AtomicI64>,
    wall_start: Instant,
}

fn ms(since: Instant) -> i64 {
    i64::try_from(since.elapsed().as_millis()).unwrap()
}

impl ServerClock for Ticks {
    fn wall_ms(&self) -> i64 {
        self.wall.load(Ordering::Relaxed) + ms(self.wall_start)
    }

    fn monotonic_ms(&self) -> i64 {
        ms(self.start)
    }
}

/// The machine.
pub(super) struct Server {
    dir: TempDir,
    net: Net,
    book: Book,
    still: Clock,
    wall: Arc<AtomicI64>,
    began: Instant,
    health: Arc<Mutex<Health>>,
    running: Option<Process>,
    /// An older database, and how many sessions there had been when it was copied.
    copy: Option<(TempDir, usize)>,
}

struct Process {
    control: Arc<Control>,
    store: Arc<SqliteStore>,
    presence: JoinHandle<()>,
    power: CancellationToken,
}

impl Server {
    pub(super) fn new(
        dir: TempDir,
        net: Net,
        book: Book,
        still: Clock,
        random: fastrand::Rng,
    ) -> Self {
        let now = Instant::now();
        Self {
            dir,
            net,
            book,
            still,
            wall: Arc::new(super::WALL.into()),
            began: now,
            health: Arc::new(Mutex::new(Health { random, sick: now })),
            running: None,
            copy: None,
        }
    }

    pub(super) fn runs(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn step_wall(&self, by_ms: i64) {
        self.wall.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// For so long the disk fails writes.
    pub(super) fn sicken(&self, time: Duration) {
        self.health.lock().unwrap().sick = Instant::now() + time;
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("pasamanos.db")
    }

    async fn open(&self) -> SqliteStore {
        let _still = self.still.still();
        let options = Options { readers: 2, ..Options::default() };
        SqliteStore::open_with(&self.file(), options).await.unwrap()
    }

    /// Adds the farm and its agent, as the operator's commands do.
    pub(super) async fn found(&self, farm: &FarmId, agent: &AgentName) {
        let store = self.open().await;
        let _still = self.still.still();
        let farm = NewFarm {
            id: farm.clone(),
            display_name: "Norte".into(),
            time_zone: "UTC".into(),
            now_ms: super::WALL,
        };
        store.add_farm(farm).await.unwrap();
        store.add_agent(agent.clone(), super::WALL).await.unwrap();
        store.close().await;
    }

    pub(super) async fn start(&mut self) {
        assert!(self.running.is_none(), "it runs");
        let store = Arc::new(self.open().await);
        let power = CancellationToken::new();
        let disk = Disk {
            inner: store.clone(),
            clock: self.still.clone(),
            power: power.clone(),
            net: self.net.clone(),
            book: self.book.clone(),
            health: self.health.clone(),
        };
        let clock =
            Ticks { start: Instant::now(), wall: self.wall.clone(), wall_start: self.began };
        let timing =
            Timing { lease_ttl: LEASE, heartbeat_interval: BEAT, start_limit: START_LIMIT };
        self.health.lock().unwrap().sick = Instant::now();
        let leases = Arc::new(MemoryLeases::default());
        let control = take_over(Arc::new(disk), leases, Arc::new(clock), timing).await.unwrap();
        let watched = control.clone();
        let presence = tokio::spawn(async move { watched.keep_presence().await });
        self.net.serve(Some((control.clone(), power.clone())));
        self.running = Some(Process { control, store, presence, power });
    }

    /// As SIGKILL: what was not committed never is, and nobody is told anything.
    pub(super) async fn kill(&mut self) {
        let Some(process) = self.running.take() else { return };
        process.power.cancel();
        self.net.serve(None);
        process.presence.abort();
        let _still = self.still.still();
        process.store.close().await;
    }

    /// As SIGTERM: it drains, then it is gone.
    pub(super) async fn stop(&mut self) {
        let Some(process) = self.running.take() else { return };
        process.control.stopping.cancel();
        process.control.tasks.close();
        if timeout(DRAIN, process.control.tasks.wait()).await.is_err() {
            self.book.met("a drain took its whole time");
        }
        process.power.cancel();
        self.net.serve(None);
        process.presence.abort();
        let _still = self.still.still();
        process.store.close().await;
    }

    /// Copies the database of a server that does not run.
    pub(super) fn back_up(&mut self) {
        assert!(self.running.is_none(), "back up with the server stopped");
        let copy = super::dir();
        std::fs::copy(self.file(), copy.path().join("copy.db")).unwrap();
        self.copy = Some((copy, self.net.sessions()));
    }

    /// Puts the copy back, if a session was opened since: without one nothing shows that it is old.
    pub(super) fn put_back(&mut self) -> bool {
        assert!(self.running.is_none(), "put back with the server stopped");
        let since = self.net.sessions();
        let Some((copy, _)) = self.copy.take_if(|(_, sessions)| *sessions < since) else {
            return false;
        };
        let file = self.file();
        for beside in ["db-wal", "db-shm"] {
            drop(std::fs::remove_file(file.with_extension(beside)));
        }
        std::fs::copy(copy.path().join("copy.db"), file).unwrap();
        self.book.next_life();
        true
    }

    /// Reads what it needs at the end through the running process.
    pub(super) fn store(&self) -> Arc<dyn Store> {
        self.running.as_ref().unwrap().store.clone()
    }
}
