//! A TCP proxy between two programs that breaks their link as a test says, each direction by
//! itself: late, lost, held back, not read, or cut after a number of bytes.

mod lane;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

pub use self::lane::{Cut, Flow};
use self::lane::{End, Lane, pump};

/// Longer than anything that is waited for takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From who dialled: agent to server.
    Up,
    /// To who dialled: server to agent.
    Down,
}

/// What all connections share.
struct Shared {
    upstream: String,
    up: Lane,
    down: Lane,
    /// Connections are accepted and nothing follows.
    mute: watch::Sender<bool>,
    /// Counts orders to cut everything; the last order's kind.
    kill: watch::Sender<(u64, Cut)>,
    /// Connections that were passed on, ever.
    connections: watch::Sender<u64>,
    /// Connections that were cut, ever.
    cuts: watch::Sender<u64>,
}

impl Shared {
    fn lane(&self, way: Way) -> &Lane {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }
}

/// The proxy, on a port of its own. What is dropped is closed.
pub struct FaultProxy {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl std::fmt::Debug for FaultProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultProxy").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl FaultProxy {
    /// Listens on a free port of loopback and passes everything on to `upstream`, `host:port`.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn start(upstream: impl Into<String>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: upstream.into(),
            up: Lane::default(),
            down: Lane::default(),
            mute: watch::Sender::new(false),
            kill: watch::Sender::new((0, Cut::Reset)),
            connections: watch::Sender::new(0),
            cuts: watch::Sender::new(0),
        });
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared), stop.subscribe()));
        Ok(Self { addr, shared, stop, tasks })
    }

    /// Sets what becomes of a direction's bytes from now on.
    pub fn flow(&self, way: Way, flow: Flow) {
        self.shared.lane(way).set_flow(flow);
    }

    /// Each byte of a direction arrives this much later.
    pub fn latency(&self, way: Way, latency: Duration) {
        self.shared.lane(way).set_latency(latency);
    }

    /// After this many more bytes of a direction its connection is cut, both ways; with 0, when the
    /// next byte comes, which is lost. Replaces an order that was not fulfilled.
    pub fn cut_after(&self, way: Way, bytes: u64, cut: Cut) {
        self.shared.lane(way).cut_after(bytes, cut);
    }

    /// Takes back an order to cut; `false` if it was fulfilled.
    pub fn disarm(&self, way: Way) -> bool {
        self.shared.lane(way).disarm()
    }

    /// Cuts every connection now.
    pub fn cut(&self, cut: Cut) {
        self.shared.kill.send_modify(|(n, kind)| (*n, *kind) = (*n + 1, cut));
    }

    /// New connections are accepted and never answered, while this is set; then they are closed.
    pub fn mute(&self, mute: bool) {
        self.shared.mute.send_replace(mute);
    }

    /// Bytes of a direction that were passed on, ever.
    pub fn passed(&self, way: Way) -> u64 {
        self.shared.lane(way).passed()
    }

    /// Bytes of a direction that are held back now.
    pub fn held(&self, way: Way) -> u64 {
        self.shared.lane(way).held()
    }

    /// Connections that were passed on, ever.
    pub fn connections(&self) -> u64 {
        *self.shared.connections.borrow()
    }

    /// Connections that were cut by an order, ever.
    pub fn cuts(&self) -> u64 {
        *self.shared.cuts.borrow()
    }

    /// Waits until so many connections were cut.
    ///
    /// # Errors
    /// If they are not within 20 s.
    pub async fn cuts_reach(&self, n: u64) -> anyhow::Result<()> {
        let mut cuts = self.shared.cuts.subscribe();
        let reached = timeout(PATIENCE, cuts.wait_for(|cuts| *cuts >= n)).await;
        reached.context("no cut came")?.context("the proxy ended")?;
        Ok(())
    }

    /// Waits until nothing was passed on for this long, in either direction.
    ///
    /// # Errors
    /// If that does not come about within 20 s.
    pub async fn quiet(&self, calm: Duration) -> anyhow::Result<()> {
        let passed = || (self.passed(Way::Up), self.passed(Way::Down));
        let deadline = Instant::now() + PATIENCE;
        let (mut last, mut since) = (passed(), Instant::now());
        while since.elapsed() < calm {
            anyhow::ensure!(Instant::now() < deadline, "the link does not come to rest");
            sleep(Duration::from_millis(5)).await;
            if passed() != last {
                (last, since) = (passed(), Instant::now());
            }
        }
        Ok(())
    }

    /// Closes it and waits for its end.
    ///
    /// # Errors
    /// If a part of it panicked.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("the fault proxy panicked")?;
        }
        Ok(())
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    connections.spawn(connection(Arc::clone(&shared), client));
                }
            }
        }
    }
}

async fn connection(shared: Arc<Shared>, mut client: TcpStream) {
    let mut kill = shared.kill.subscribe();
    let mut mute = shared.mute.subscribe();
    if *mute.borrow() {
        tokio::select! {
            _ = mute.wait_for(|mute| !mute) => {}
            _ = kill.changed() => {}
        }
        return;
    }
    let Ok(mut server) = TcpStream::connect(&shared.upstream).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    shared.connections.send_modify(|n| *n += 1);
    let end = {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let both = async {
            let up = pump(&shared.up, &mut from_client, &mut to_server);
            let down = pump(&shared.down, &mut from_server, &mut to_client);
            tokio::try_join!(up, down)
        };
        tokio::select! {
            ended = both => match ended {
                Ok(_) => return,
                Err(end) => end,
            },
            _ = kill.changed() => End::Cut(kill.borrow().1),
        }
    };
    if end != End::Cut(Cut::Close) {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
    drop((client, server));
    if matches!(end, End::Cut(_)) {
        shared.cuts.send_modify(|n| *n += 1);
    }
}
