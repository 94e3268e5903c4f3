//! The composition root: makes the parts, starts them, and ends them in order.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pasamanos_proto::model::AgentName;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::calendar::Calendar;
use crate::clock::Clock;
use crate::config::Config;
use crate::driver::{self, Driver};
use crate::executor::{Context, Executor};
use crate::farm::{Farm, RobotCell};
use crate::gate::Gate;
use crate::journal::{Journal, JournalError, Loaded};
use crate::ledger::{Book, Ledger, State};
use crate::outbox::Outbox;
use crate::session::Shared;
use crate::transport::{Grpc, Transport};
use crate::{poller, supervisor};

/// What an agent is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What `agent.toml`, flags and environment say.
    pub config: Config,
    /// How long a stop may take.
    pub drain_timeout: Duration,
}

/// Why an agent could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A driver.
    #[error(transparent)]
    Driver(#[from] driver::BuildError),
    /// The server's address.
    #[error("server {0:?} is no address such as http://host:50051: {1}")]
    Server(String, tonic::transport::Error),
}

/// The parts that tests choose themselves.
pub(crate) struct Parts {
    /// Who it is.
    pub agent: AgentName,
    /// Where its journal is.
    pub data_dir: PathBuf,
    /// The drivers, each with its poll interval.
    pub drivers: Vec<(Arc<dyn Driver>, Duration)>,
    /// How the server is reached.
    pub transport: Arc<dyn Transport>,
    /// The clocks.
    pub clock: Clock,
    /// How long a stop may take.
    pub drain_timeout: Duration,
}

/// A whole agent.
pub struct Agent {
    shared: Shared,
    drivers: Vec<Arc<dyn Driver>>,
    pollers: CancellationToken,
    // Dropped with the agent, they are aborted: what they did is in the journal.
    workers: JoinSet<()>,
    poll_tasks: JoinSet<()>,
    journal_task: TaskTracker,
    last_epoch: i64,
    drain_timeout: Duration,
}

/// Kept back from the drain time for the goodbye and for closing.
const CLOSING: Duration = Duration::from_secs(5);

impl Agent {
    /// Makes an agent: opens its journal, starts its drivers, and begins to read its robots.
    ///
    /// # Errors
    /// If the journal is held by another agent or cannot be opened, or a driver cannot be made.
    pub async fn build(settings: Settings) -> Result<Self, BuildError> {
        let Settings { config, drain_timeout } = settings;
        let clock = Clock::system();
        let transport = Grpc::new(&config.server, clock.clone())
            .map_err(|e| BuildError::Server(config.server.clone(), e))?;
        // The journal first: its lock keeps a second agent from the PLCs too.
        let (journal, loaded, journal_task) = open(&config.data_dir, &clock).await?;
        let polls: Vec<_> = config.plcs.iter().map(|p| p.poll).collect();
        let drivers = driver::build(&config).await?.into_iter().zip(polls).collect();
        let parts = Parts {
            agent: config.agent,
            data_dir: config.data_dir,
            drivers,
            transport: Arc::new(transport),
            clock,
            drain_timeout,
        };
        Ok(Self::with(parts, journal, loaded, journal_task))
    }

    /// Makes an agent of the given parts.
    ///
    /// # Errors
    /// If the journal is held by another agent or cannot be opened.
    #[cfg_attr(not(test), allow(dead_code, reason = "tests bring their own parts"))]
    pub(crate) async fn assemble(parts: Parts) -> Result<Self, BuildError> {
        let (journal, loaded, journal_task) = open(&parts.data_dir, &parts.clock).await?;
        Ok(Self::with(parts, journal, loaded, journal_task))
    }

    fn with(parts: Parts, journal: Journal, mut loaded: Loaded, journal_task: TaskTracker) -> Self {
        let clock = parts.clock;
        let zone = loaded.time_zone.as_deref();
        let calendar = Calendar::new(clock.clone(), loaded.steady.clone(), zone);
        let changed = Arc::new(Notify::new());
        let mut robots = Vec::new();
        let mut polled = Vec::new();
        for (driver, poll) in &parts.drivers {
            let ids: BTreeSet<_> = driver.feeders().iter().map(|f| f.robot.clone()).collect();
            let mut of_driver = Vec::new();
            for id in ids {
                let state = state(id, driver, *poll, &mut loaded, &calendar);
                let cell = Arc::new(RobotCell::new(
                    state.robot.clone(),
                    Arc::clone(driver),
                    *poll,
                    Ledger::new(state, journal.clone(), calendar.clone()),
                    clock.clone(),
                    Arc::clone(&changed),
                ));
                of_driver.push(Arc::clone(&cell));
                robots.push(cell);
            }
            polled.push((Arc::clone(driver), of_driver, *poll));
        }
        let farm = Arc::new(Farm::new(robots, changed));
        let context = Context {
            clock: clock.clone(),
            journal,
            outbox: Arc::new(Outbox::default()),
            gate: Arc::new(Gate::new(clock)),
            stop: CancellationToken::new(),
        };
        let (mut workers, mut poll_tasks) = (JoinSet::new(), JoinSet::new());
        let executor = Executor::start(&context, &farm, loaded.unsettled, &mut workers);
        let pollers = CancellationToken::new();
        for (driver, cells, poll) in polled {
            poll_tasks.spawn(poller::run(context.clone(), driver, cells, poll, pollers.clone()));
        }
        let shared = Shared {
            context,
            farm,
            executor,
            agent: parts.agent,
            calendar,
            transport: parts.transport,
            leave: CancellationToken::new(),
        };
        Self {
            shared,
            drivers: parts.drivers.into_iter().map(|(d, _)| d).collect(),
            pollers,
            workers,
            journal_task,
            poll_tasks,
            last_epoch: loaded.last_epoch,
            drain_timeout: parts.drain_timeout,
        }
    }

    /// Its journal, to break it.
    #[cfg(test)]
    pub(crate) fn journal(&self) -> Journal {
        self.shared.context.journal.clone()
    }

    /// Runs until told to stop, then: nothing new is begun; what runs ends or stays journaled; the
    /// server is told goodbye, which releases the lease; then PLCs and journal are closed. A task
    /// that fails stops the agent too: whoever runs it starts it again.
    pub async fn run(self, stop: CancellationToken) {
        let Self { shared, mut workers, mut poll_tasks, pollers, .. } = self;
        let stopping = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = failed(&mut workers) => {}
                () = failed(&mut poll_tasks) => {}
            }
            tracing::info!("stopping");
            shared.context.stop.cancel();
            let patience = self.drain_timeout.saturating_sub(CLOSING);
            if timeout(patience, all(&mut workers)).await.is_err() {
                tracing::warn!(
                    "a command still runs; it is journaled and settled at the next start"
                );
            }
            shared.leave.cancel();
        };
        tokio::join!(supervisor::run(&shared, self.last_epoch), stopping);
        workers.abort_all();
        pollers.cancel();
        let closing = async {
            all(&mut poll_tasks).await;
            for driver in &self.drivers {
                driver.shutdown().await;
            }
        };
        if timeout(CLOSING / 2, closing).await.is_err() {
            tracing::warn!("a PLC connection did not close in time");
        }
        shared.context.journal.close().await;
        self.journal_task.wait().await;
        tracing::info!("stopped");
    }
}

/// Waits until all have ended.
async fn all(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// Waits until one ends that should not.
async fn failed(tasks: &mut JoinSet<()>) {
    match tasks.join_next().await {
        Some(Err(e)) => tracing::error!(error = %e, "a task failed"),
        Some(Ok(())) => tracing::error!("a task ended"),
        None => std::future::pending().await,
    }
}

async fn open(
    dir: &std::path::Path,
    clock: &Clock,
) -> Result<(Journal, Loaded, TaskTracker), JournalError> {
    let task = TaskTracker::new();
    let (journal, loaded) = Journal::open(dir, clock, &task).await?;
    task.close();
    Ok((journal, loaded, task))
}

/// One robot's state, as the journal left it.
fn state(
    robot: pasamanos_proto::model::RobotId,
    driver: &Arc<dyn Driver>,
    poll: Duration,
    loaded: &mut Loaded,
    calendar: &Calendar,
) -> State {
    let known = loaded.robots.remove(&robot).unwrap_or_default();
    // Never read under this journal, however often the agent was started since.
    let mut own = driver.feeders().iter().filter(|f| f.robot == robot);
    let never_read =
        known.plc_epoch.is_none() && !own.any(|f| loaded.feeders.contains_key(&f.feeder));
    let of_robot = driver.feeders().iter().filter(|f| f.robot == robot);
    let feeders = of_robot
        .map(|f| {
            let journaled = loaded.feeders.remove(&f.feeder).unwrap_or_default();
            (f.feeder.clone(), Book::new(f.clone(), journaled))
        })
        .collect();
    let poll_ms = i64::try_from(poll.as_millis()).unwrap_or(1_000);
    let mut state = State {
        traits: driver.traits(&robot),
        robot,
        fresh: loaded.fresh || never_read,
        slot: known.slot,
        consumed: known.consumed,
        unkept_since_ms: None,
        recall: known.recall,
        plc_epoch: known.plc_epoch,
        open_dose: None,
        faults: None,
        gap_ms: poll_ms.saturating_mul(5).max(5_000),
        feeders,
        calendar: calendar.clone(),
    };
    let now = calendar.now();
    for entry in &loaded.unsettled {
        if entry.robot == state.robot {
            state.adopt(entry, now.wall_ms);
        }
    }
    state
}
