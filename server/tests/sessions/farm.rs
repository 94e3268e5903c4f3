//! The use cases over a real database and real leases, with agents that a test plays frame by frame.
//! The monotonic clock is the test's: it stands until it is moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pasamanos_proto::model::{
    Action, AgentName, BodyHash, CommandName, FeederName, Hello, Mutation, Note, RequestId,
    duration_from_ms,
};
use pasamanos_proto::pb::{self, connect_request, connect_response::Frame};
use pasamanos_server::bus::Bus;
use pasamanos_server::control::{Answer, Caller, Control, SessionEnd, SessionError, Timing};
use pasamanos_server::domain::Error;
use pasamanos_server::domain::ports::{
    Clock, Holder, LeaseError, Leases, OpenSession, Renewal, Store,
};
use pasamanos_server::lease::MemoryLeases;
use pasamanos_server::store::SqliteStore;
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::kit::*;

/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);
pub const TTL: Duration = Duration::from_secs(25);
/// The agents' clock is ahead of the server's by this, ms.
const AHEAD_MS: i64 = 5_000;
const BOOT: &str = "boot-1";

/// Its monotonic clock stands until it is moved.
pub struct HandClock(AtomicI64);

impl Clock for HandClock {
    fn wall_ms(&self) -> i64 {
        NOW + self.monotonic_ms()
    }

    fn monotonic_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Leases in process; on demand a read waits until it is let go.
#[derive(Default)]
pub struct SlowLeases {
    leases: MemoryLeases,
    pub slow: AtomicBool,
    pub reading: Notify,
    pub go: Notify,
}

#[async_trait]
impl Leases for SlowLeases {
    async fn acquire(
        &self,
        agent: &AgentName,
        holder: &Holder,
        ttl: Duration,
    ) -> Result<Renewal, LeaseError> {
        self.leases.acquire(agent, holder, ttl).await
    }

    async fn renew(
        &self,
        agent: &AgentName,
        holder: &Holder,
        ttl: Duration,
    ) -> Result<Renewal, LeaseError> {
        self.leases.renew(agent, holder, ttl).await
    }

    async fn release(&self, agent: &AgentName, holder: &Holder) -> Result<(), LeaseError> {
        self.leases.release(agent, holder).await
    }

    async fn read(&self, agent: &AgentName) -> Result<Option<Holder>, LeaseError> {
        if self.slow.load(Ordering::SeqCst) {
            self.reading.notify_one();
            self.go.notified().await;
        }
        self.leases.read(agent).await
    }

    async fn sweep(&self) -> Result<Vec<AgentName>, LeaseError> {
        self.leases.sweep().await
    }
}

/// A server without its ports.
pub struct Server {
    pub control: Arc<Control>,
    pub clock: Arc<HandClock>,
    pub leases: Arc<SlowLeases>,
    _dir: TempDir,
}

impl Server {
    pub async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let store: Arc<dyn Store> =
            Arc::new(SqliteStore::open(&dir.path().join("pasamanos.db")).await.unwrap());
        add_farm(&*store).await;
        let clock = Arc::new(HandClock(AtomicI64::new(1_000_000)));
        let leases = Arc::new(SlowLeases::default());
        let timing = Timing {
            lease_ttl: TTL,
            heartbeat_interval: Duration::from_secs(8),
            start_limit: Duration::from_secs(10),
        };
        let bus = Arc::new(Bus::default());
        let control = Control::new(store, leases.clone(), bus, clock.clone(), timing);
        Self { control, clock, leases, _dir: dir }
    }

    pub fn move_clock(&self, by: Duration) {
        self.clock.0.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Asks for an action on a feeder and waits for its outcome as long as this.
    pub async fn ask(
        &self,
        id: RequestId,
        feeder: u32,
        action: Action,
        wait: Duration,
    ) -> Result<Answer, Error> {
        let caller = Caller {
            author: "ana".into(),
            wait,
            request_hash: action.body_hash(&feeder_id(feeder)),
        };
        self.control.act(mutation(feeder_name(feeder), id, action), caller).await
    }

    /// As [`Self::ask`], beside whatever the test goes on with.
    pub fn asking(
        &self,
        id: RequestId,
        feeder: u32,
        action: Action,
    ) -> JoinHandle<Result<Answer, Error>> {
        let (control, target) = (self.control.clone(), feeder_name(feeder));
        let caller = Caller {
            author: "ana".into(),
            wait: PATIENCE,
            request_hash: action.body_hash(&target.feeder),
        };
        tokio::spawn(async move { control.act(mutation(target, id, action), caller).await })
    }

    /// A session that is open and heard: its lease is held.
    pub async fn connect(&self, hello: Hello) -> Agent {
        let mut agent = Agent::dial(self, hello).await;
        let Frame::Welcome(welcome) = agent.next().await.expect("a welcome") else {
            panic!("the first frame is Welcome")
        };
        agent.epoch = welcome.epoch;
        agent.beat().await;
        let leases = &self.leases.leases;
        eventually("the lease is held", || async {
            let holder = leases.read(&crate::kit::agent()).await.unwrap();
            holder.is_some_and(|h| h.epoch == welcome.epoch)
        })
        .await;
        agent
    }

    /// The epoch of a session that only the database saw.
    pub async fn epoch_of(&self, hello: Hello) -> i64 {
        self.control.store.open_session(OpenSession { hello, now_ms: NOW }).await.unwrap().epoch
    }
}

pub fn mutation<A>(target: FeederName, request: RequestId, action: A) -> Mutation<FeederName, A> {
    Mutation { target, request, validate_only: false, note: Note::default(), action }
}

/// Waits for a condition.
pub async fn eventually<F: Future<Output = bool>>(what: &str, is: impl Fn() -> F) {
    let waiting = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// One session as the agent sees it, played by a test.
pub struct Agent {
    frames: Option<mpsc::Sender<pb::ConnectRequest>>,
    from: mpsc::Receiver<pb::ConnectResponse>,
    session: JoinHandle<Result<SessionEnd, SessionError>>,
    clock: Arc<HandClock>,
    pub epoch: i64,
    beats: i64,
}

impl Agent {
    /// Sends the hello of a session.
    pub async fn dial(server: &Server, hello: Hello) -> Self {
        let (frames, inbound) = mpsc::channel::<pb::ConnectRequest>(64);
        let (to_agent, from) = mpsc::channel(64);
        let stream = futures_util::stream::unfold(inbound, |mut inbound| async {
            let frame = inbound.recv().await?;
            Some((Ok::<_, ()>(frame), inbound))
        });
        let control = server.control.clone();
        let session = tokio::spawn(control.run_session(Box::pin(stream), to_agent));
        let clock = server.clock.clone();
        let mut agent = Self { frames: Some(frames), from, session, clock, epoch: 0, beats: 0 };
        agent.send(connect_request::Frame::Hello(hello.into())).await;
        agent
    }

    /// Sends a frame, sent now by its own clock.
    pub async fn send(&mut self, frame: connect_request::Frame) {
        self.send_as(BOOT, 0, frame).await;
    }

    /// Sends a frame of this boot that was sent so long ago.
    pub async fn send_as(&mut self, boot_id: &str, ago_ms: i64, frame: connect_request::Frame) {
        let request = pb::ConnectRequest {
            epoch: self.epoch,
            boot_id: boot_id.into(),
            monotonic_ms: self.clock.monotonic_ms() + AHEAD_MS - ago_ms,
            frame: Some(frame),
        };
        let _ended = self.frames.as_ref().expect("the stream is open").send(request).await;
    }

    /// Sends a heartbeat and waits for its answer.
    pub async fn beat(&mut self) {
        self.beats += 1;
        let robots = vec![pb::RobotFreshness {
            robot: robot_of(1).to_string(),
            last_good_read_age: Some(duration_from_ms(0)),
            link: pb::LinkState::Up.into(),
        }];
        let beat = pb::Heartbeat { sequence: self.beats, robots };
        self.send(connect_request::Frame::Heartbeat(beat)).await;
        loop {
            match self.next().await.expect("an answer") {
                Frame::HeartbeatAck(ack) if ack.sequence == self.beats => return,
                _ => {}
            }
        }
    }

    /// The next frame; `None` at the stream's end.
    pub async fn next(&mut self) -> Option<Frame> {
        let response = timeout(PATIENCE, self.from.recv()).await.expect("a frame in time")?;
        response.frame
    }

    /// The next command.
    pub async fn command(&mut self) -> pb::CommandFrame {
        loop {
            if let Frame::Command(frame) = self.next().await.expect("a command") {
                return frame;
            }
        }
    }

    /// Reports on a command.
    pub async fn report(&mut self, command: &pb::CommandFrame, report: pb::CommandUpdate) {
        let report = pb::CommandUpdate {
            command: command.command.clone(),
            body_hash: command.body_hash.clone(),
            journaled_epoch: self.epoch,
            ..report
        };
        self.send(connect_request::Frame::CommandUpdate(report)).await;
    }

    /// Reports a state without more.
    pub async fn says(&mut self, command: &pb::CommandFrame, state: pb::CommandState) {
        let report = pb::CommandUpdate { state: state.into(), ..Default::default() };
        self.report(command, report).await;
    }

    /// The stream breaks.
    pub async fn vanish(mut self) -> Result<SessionEnd, SessionError> {
        self.frames = None;
        self.ended().await
    }

    /// How the server's side ended.
    pub async fn ended(self) -> Result<SessionEnd, SessionError> {
        timeout(PATIENCE, self.session).await.expect("it ends").expect("it does not panic")
    }
}

/// A command's name.
pub fn named(id: RequestId) -> CommandName {
    command_name(id)
}

/// Any hash.
pub fn hash(text: &str) -> BodyHash {
    BodyHash::of(text.as_bytes())
}
