//! The server's store as its process sees it: real `SQLite` behind a disk that takes its time, and
//! that stops in the middle when the process dies. Simulated time stands still while the real disk
//! is waited for. What was committed is written into the book.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use pasamanos_proto::model::{
    AgentName, CommandName, FarmId, FeederId, FeederName, PageRequest, Reason,
};
use pasamanos_proto::pb;
use pasamanos_server::domain::ports::{
    AcceptError, Farm, Ingest, IngestError, Ingested, NewCommand, NewFarm, NewResolution,
    OpenError, OpenSession, Page, Resolved, SessionOpened, Store, StoreError, StoredCommand,
    StoredFarm, StoredVersion,
};
use pasamanos_server::store::SqliteStore;
use pasamanos_tests::check::Acceptance;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::book::Book;
use super::net::Net;
use super::server::{LEASE, START_LIMIT};
use crate::clock::Clock;

/// How well the disk is.
#[derive(Debug)]
pub(super) struct Health {
    pub random: fastrand::Rng,
    /// Until then writes fail, some of them after they were done.
    pub sick: Instant,
}

/// See the module.
pub(super) struct Disk {
    pub inner: Arc<SqliteStore>,
    /// For its stillness only.
    pub clock: Clock,
    /// Cancelled when the process dies: no call returns any more.
    pub power: CancellationToken,
    pub net: Net,
    pub book: Book,
    pub health: Arc<Mutex<Health>>,
}

/// How a call goes.
#[derive(Clone, Copy, PartialEq)]
enum Luck {
    Good,
    FailsBefore,
    FailsAfter,
}

fn sick() -> StoreError {
    StoreError::Unavailable(std::io::Error::other("the disk is sick").into())
}

impl Disk {
    fn pause(&self) -> Duration {
        let mut health = self.health.lock().unwrap();
        let most = match health.random.u8(0..20) {
            0..12 => return Duration::ZERO,
            12..19 => 30,
            _ => 800,
        };
        Duration::from_millis(health.random.u64(0..most))
    }

    fn luck(&self) -> Luck {
        let mut health = self.health.lock().unwrap();
        if Instant::now() >= health.sick {
            return Luck::Good;
        }
        let luck = match health.random.u8(0..4) {
            0 => Luck::Good,
            1 | 2 => Luck::FailsBefore,
            _ => Luck::FailsAfter,
        };
        if luck != Luck::Good {
            self.book.met(if luck == Luck::FailsAfter {
                "the disk failed after a write"
            } else {
                "the disk failed"
            });
        }
        luck
    }

    /// One call, in a process that may die before or after it. The call is a task of its own: whoever
    /// asked may be busy with something else, and must not hold time still meanwhile.
    async fn call<T, F>(
        &self,
        call: impl FnOnce(Arc<SqliteStore>) -> F,
        note: impl FnOnce(&T, &Book) + Send + 'static,
    ) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.alive(self.pause()).await;
        let (clock, book, call) = (self.clock.clone(), self.book.clone(), call(self.inner.clone()));
        let call = tokio::spawn(async move {
            let _still = clock.still();
            let done = call.await;
            note(&done, &book);
            done
        });
        let done = call.await.unwrap();
        self.alive(self.pause()).await;
        done
    }

    async fn alive(&self, pause: Duration) {
        if !pause.is_zero() {
            sleep(pause).await;
        }
        if self.power.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }

    /// One write, on a disk that may be sick.
    async fn write<T, E, F>(
        &self,
        call: impl FnOnce(Arc<SqliteStore>) -> F,
        note: impl FnOnce(&T, &Book) + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let luck = self.luck();
        if luck == Luck::FailsBefore {
            self.alive(self.pause()).await;
            return Err(sick().into());
        }
        let done = self.call(call, noted(note)).await;
        if luck == Luck::FailsAfter && done.is_ok() {
            return Err(sick().into());
        }
        done
    }
}

fn noted<T, E>(note: impl FnOnce(&T, &Book)) -> impl FnOnce(&Result<T, E>, &Book) {
    |done, book| {
        if let Ok(done) = done {
            note(done, book);
        }
    }
}

fn stored<'a>(book: &Book, commands: impl IntoIterator<Item = &'a StoredCommand>) {
    for command in commands {
        book.stored(command);
    }
}

#[async_trait]
impl Store for Disk {
    async fn add_farm(&self, farm: NewFarm) -> Result<bool, StoreError> {
        self.write(|s| async move { s.add_farm(farm).await }, |_, _| {}).await
    }

    async fn add_agent(&self, agent: AgentName, now_ms: i64) -> Result<bool, StoreError> {
        self.write(|s| async move { s.add_agent(agent, now_ms).await }, |_, _| {}).await
    }

    async fn farms(&self) -> Result<Vec<Farm>, StoreError> {
        self.call(|s| async move { s.farms().await }, |_, _| {}).await
    }

    async fn farm(&self, farm: &FarmId) -> Result<Option<StoredFarm>, StoreError> {
        let farm = farm.clone();
        self.call(|s| async move { s.farm(&farm).await }, |_, _| {}).await
    }

    async fn open_session(&self, hello: OpenSession) -> Result<SessionOpened, OpenError> {
        let note = |opened: &SessionOpened, book: &Book| {
            stored(book, &opened.settled);
            for c in &opened.settled {
                book.met(format!("settled at a hello: {:?} {}", c.state, c.reason.name()));
            }
            if !opened.alarms.is_empty() {
                book.met("alarms at a hello");
            }
        };
        self.write(|s| async move { s.open_session(hello).await }, note).await
    }

    async fn current_epoch(&self, agent: &AgentName) -> Result<i64, StoreError> {
        let agent = agent.clone();
        self.call(|s| async move { s.current_epoch(&agent).await }, |_, _| {}).await
    }

    async fn close_session(
        &self,
        agent: &AgentName,
        epoch: i64,
        now_ms: i64,
    ) -> Result<Vec<StoredCommand>, StoreError> {
        let agent = agent.clone();
        let close =
            |s: Arc<SqliteStore>| async move { s.close_session(&agent, epoch, now_ms).await };
        self.write(close, |ended, book| stored(book, ended)).await
    }

    async fn close_all_sessions(&self, now_ms: i64) -> Result<u64, StoreError> {
        self.write(|s| async move { s.close_all_sessions(now_ms).await }, |_, _| {}).await
    }

    async fn accept(
        &self,
        commands: Vec<NewCommand>,
        patience: Duration,
    ) -> Result<Vec<StoredCommand>, AcceptError> {
        // The gate was asked a moment ago.
        let (heard, at_ms) = (self.net.heard_ago(), self.book.ms(Instant::now()));
        let note = move |accepted: &Vec<StoredCommand>, book: &Book| {
            let ms = |d: Duration| i64::try_from(d.as_millis()).unwrap();
            for c in accepted {
                let (boot, start_before_ms) = &c.start_before;
                let alive = Acceptance {
                    name: c.name.to_string(),
                    heard_ago_ms: heard.map(|(ago, _)| ms(ago)),
                    lease_ms: ms(LEASE) + heard.map_or(0, |(_, least)| ms(least)),
                    at_ms,
                    limit_ms: ms(START_LIMIT),
                    start_before_ms: book.of_clock(boot, *start_before_ms),
                };
                book.accepted(c.name.clone(), c.action.clone(), alive);
            }
            stored(book, accepted);
        };
        let luck = self.luck();
        if luck == Luck::FailsBefore {
            return Err(AcceptError::NotTaken);
        }
        let accept = |s: Arc<SqliteStore>| async move { s.accept(commands, patience).await };
        let done = self.call(accept, noted(note)).await;
        if luck == Luck::FailsAfter && done.is_ok() {
            return Err(AcceptError::Unknown);
        }
        done
    }

    async fn outbox(
        &self,
        agent: &AgentName,
        epoch: i64,
        above: i64,
    ) -> Result<Vec<StoredCommand>, StoreError> {
        let agent = agent.clone();
        self.call(|s| async move { s.outbox(&agent, epoch, above).await }, |_, _| {}).await
    }

    async fn ingest(
        &self,
        agent: &AgentName,
        epoch: i64,
        items: &[Ingest],
        now_ms: i64,
    ) -> Result<Vec<Ingested>, IngestError> {
        let note = |done: &Vec<Ingested>, book: &Book| {
            for one in done {
                match one {
                    Ingested::Outcome { command, changed, .. } => {
                        book.stored(command);
                        if !changed {
                            book.met("an outcome came again");
                        }
                    }
                    Ingested::Refused { why, .. } => {
                        book.met(format!("a report was refused: {why}"));
                    }
                    Ingested::Config(Some(_)) => book.met("a config of the farm"),
                    Ingested::Config(None) | Ingested::Records { .. } => {}
                }
            }
        };
        let (agent, items) = (agent.clone(), items.to_vec());
        let ingest =
            |s: Arc<SqliteStore>| async move { s.ingest(&agent, epoch, &items, now_ms).await };
        self.write(ingest, note).await
    }

    async fn doubt(
        &self,
        commands: &[CommandName],
        reason: Reason,
        now_ms: i64,
    ) -> Result<Vec<StoredCommand>, StoreError> {
        let commands = commands.to_vec();
        let doubt = |s: Arc<SqliteStore>| async move { s.doubt(&commands, reason, now_ms).await };
        self.write(doubt, |ended, book| stored(book, ended)).await
    }

    async fn resolve(&self, resolution: NewResolution) -> Result<Resolved, StoreError> {
        let note = |done: &Resolved, book: &Book| {
            if let Resolved::Done(command) = done {
                book.by_person(command);
            }
        };
        self.write(|s| async move { s.resolve(resolution).await }, note).await
    }

    async fn command(&self, name: &CommandName) -> Result<Option<StoredCommand>, StoreError> {
        let name = name.clone();
        self.call(|s| async move { s.command(&name).await }, |_, _| {}).await
    }

    async fn commands(
        &self,
        farm: &FarmId,
        feeder: Option<&FeederId>,
        page: &PageRequest,
    ) -> Result<Page<StoredCommand>, StoreError> {
        let (farm, feeder, page) = (farm.clone(), feeder.cloned(), page.clone());
        let list =
            |s: Arc<SqliteStore>| async move { s.commands(&farm, feeder.as_ref(), &page).await };
        self.call(list, |_, _| {}).await
    }

    async fn versions(
        &self,
        feeder: &FeederName,
        page: &PageRequest,
    ) -> Result<Page<StoredVersion>, StoreError> {
        let (feeder, page) = (feeder.clone(), page.clone());
        self.call(|s| async move { s.versions(&feeder, &page).await }, |_, _| {}).await
    }

    async fn doses(
        &self,
        farm: &FarmId,
        feeder: Option<&FeederId>,
        page: &PageRequest,
    ) -> Result<Page<pb::Dose>, StoreError> {
        let (farm, feeder, page) = (farm.clone(), feeder.cloned(), page.clone());
        let list =
            |s: Arc<SqliteStore>| async move { s.doses(&farm, feeder.as_ref(), &page).await };
        self.call(list, |_, _| {}).await
    }
}
