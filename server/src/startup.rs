//! The composition root: the only place that names concrete stores. Binds first, so that whoever
//! asked for port 0 can know the port.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::bus::Bus;
use crate::clock::SystemClock;
use crate::config::Settings;
use crate::control::{Control, Timing};
use crate::domain::ports::{Clock, Leases, Store};
use crate::lease::{MemoryLeases, RedisLeases};
use crate::store::{Options, SqliteStore};
use crate::{grpc, ops};

/// How long the database may take to close: a frozen disk must not hold the process.
const CLOSE: Duration = Duration::from_secs(3);
/// The health name that means "changes are possible".
const CHANGES: &str = "pasamanos.v1.FeederService";

/// Opens the database of a data directory, made if it is not there. One server runs on it at a time
/// (`exclusive`); the operator's commands may beside it.
///
/// # Errors
/// If it cannot be made, opened or migrated.
pub async fn open_store(data_dir: &Path, exclusive: bool) -> anyhow::Result<Arc<SqliteStore>> {
    std::fs::create_dir_all(data_dir).with_context(|| {
        format!("--data-dir (PASAMANOS_DATA_DIR): cannot make {}", data_dir.display())
    })?;
    let options = Options { exclusive, ..Options::default() };
    let store = SqliteStore::open_with(&data_dir.join("pasamanos.db"), options).await;
    Ok(Arc::new(
        store.with_context(|| format!("cannot open the database in {}", data_dir.display()))?,
    ))
}

/// The use cases over these stores, after what a process before left open was put in doubt.
///
/// # Errors
/// If the store cannot be asked.
pub async fn take_over(
    store: Arc<dyn Store>,
    leases: Arc<dyn Leases>,
    clock: Arc<dyn Clock>,
    timing: Timing,
) -> anyhow::Result<Arc<Control>> {
    let left = store.close_all_sessions(clock.wall_ms()).await?;
    if left > 0 {
        tracing::warn!(commands = left, "left without an end: in doubt until their agents tell");
    }
    let control = Control::new(store.clone(), leases, Arc::new(Bus::default()), clock, timing);
    for farm in store.farms().await? {
        control.farms.get(&farm.id).await?;
    }
    Ok(control)
}

/// The server, bound and ready to run.
pub struct Application {
    control: Arc<Control>,
    store: Arc<SqliteStore>,
    grpc: TcpListener,
    ops: TcpListener,
    drain_timeout: Duration,
}

impl Application {
    /// Opens stores and ports.
    ///
    /// # Errors
    /// If a setting, a store or a port is not usable.
    pub async fn build(settings: &Settings) -> anyhow::Result<Self> {
        settings.validate()?;
        let bind = |name: &'static str, addr: SocketAddr| async move {
            TcpListener::bind(addr)
                .await
                .with_context(|| format!("{name}: cannot listen on {addr}"))
        };
        let grpc = bind("--listen (PASAMANOS_LISTEN)", settings.listen).await?;
        let ops = bind("--ops-listen (PASAMANOS_OPS_LISTEN)", settings.ops_listen).await?;
        let store = open_store(&settings.data_dir, true).await?;
        let leases: Arc<dyn Leases> = match &settings.redis_url {
            Some(url) => Arc::new(
                RedisLeases::connect(url).await.context("--redis-url (PASAMANOS_REDIS_URL)")?,
            ),
            None => Arc::new(MemoryLeases::default()),
        };
        let timing = Timing {
            lease_ttl: settings.lease_ttl,
            heartbeat_interval: settings.heartbeat_interval,
            start_limit: settings.start_limit,
        };
        let clock = Arc::new(SystemClock::new());
        let control = take_over(store.clone(), leases, clock, timing).await?;
        let app = Self { control, store, grpc, ops, drain_timeout: settings.drain_timeout };
        if let Some(path) = &settings.port_file {
            let text = format!("grpc={}\nops={}\n", app.grpc_addr()?, app.ops.local_addr()?);
            let new = path.with_extension("new");
            std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path)).with_context(
                || format!("--port-file (PASAMANOS_PORT_FILE): cannot write {}", path.display()),
            )?;
        }
        Ok(app)
    }

    /// Where gRPC listens.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn grpc_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.grpc.local_addr()?)
    }

    /// Runs until `stop` is cancelled, then drains: no new commands, agents told to come back, open
    /// streams ended, all of it within the drain timeout.
    ///
    /// # Errors
    /// If a part fails, or does not end in time.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { control, store, grpc: listener, ops: ops_listener, drain_timeout } = self;
        tracing::info!(grpc = %listener.local_addr()?, ops = %ops_listener.local_addr()?, "listening");
        let (reporter, health) = tonic_health::server::health_reporter();
        let (ready_tx, ready) = watch::channel(true);
        let metrics = PrometheusBuilder::new().install_recorder().context("metrics")?;

        let ending = CancellationToken::new();
        let rpc = grpc::serve(control.clone(), listener, health, ending.clone().cancelled_owned());
        let ops = ops::serve(ops_listener, ready, metrics, ending.clone().cancelled_owned());
        let presence = control.keep_presence();
        let health = keep_health(control.clone(), reporter, ready_tx);
        let all = async {
            tokio::try_join!(
                rpc,
                ops,
                async {
                    presence.await;
                    Ok(())
                },
                health
            )
        };
        tokio::pin!(all);

        tokio::select! {
            ended = &mut all => {
                ended?;
                anyhow::bail!("a part of the server ended by itself");
            }
            () = stop.cancelled() => {}
        }
        tracing::info!("stopping: agents and browsers are told to come back");
        control.stopping.cancel();
        control.tasks.close();
        let drained = timeout(drain_timeout, async {
            // Sessions and requests first; then the ports close, and their last streams end.
            control.tasks.wait().await;
            ending.cancel();
            all.await
        })
        .await;
        ending.cancel();
        if timeout(CLOSE, store.close()).await.is_err() {
            tracing::warn!("the disk does not answer: what was committed is safe");
        }
        if let Ok(ended) = drained {
            return ended.map(|_| ());
        }
        // Peers that do not let go are cut: the process ends in time whatever they do.
        tracing::warn!(timeout = ?drain_timeout, "not all peers let go in time");
        Ok(())
    }
}

/// Keeps health honest: `""` means reads are answered, [`CHANGES`] that changes are possible.
async fn keep_health(
    control: Arc<Control>,
    reporter: HealthReporter,
    ready: watch::Sender<bool>,
) -> anyhow::Result<()> {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stopping = tokio::select! {
            () = control.stopping.cancelled() => true,
            _ = ticks.tick() => false,
        };
        let patience = Duration::from_secs(2);
        let database = matches!(timeout(patience, control.store.farms()).await, Ok(Ok(_)));
        let changes = !stopping && database && control.leases_reachable();
        let serving = |yes| if yes { ServingStatus::Serving } else { ServingStatus::NotServing };
        reporter.set_service_status("", serving(!stopping)).await;
        reporter.set_service_status(CHANGES, serving(changes)).await;
        ready.send_replace(!stopping && database);
        if stopping {
            return Ok(());
        }
    }
}
