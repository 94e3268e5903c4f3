//! The wire between agents and server: late, stalled, cut, half open, and with frames twice or from
//! before. What a connection delivers is in order, as HTTP/2 gives it; what is beyond that is said
//! at its place.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use pasamanos_proto::pb::{ConnectRequest, ConnectResponse, connect_request, connect_response};
use pasamanos_server::control::{Control, SessionEnd, SessionError};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::book::Book;
use crate::clock::Clock;
use crate::transport::{Inbound, Transport};

/// Frames that are on one wire in one direction.
const ON_THE_WIRE: usize = 64;
/// Old frames that may come again.
const ARCHIVE: usize = 64;
/// As the server's own.
const TO_AGENT: usize = 128;

/// What a call of an agent meets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Line {
    /// It reaches the server, if that runs.
    #[default]
    Up,
    /// It is refused at once.
    Refused,
    /// It is never answered.
    BlackHole,
}

/// How mischievous the wire is, in thousandths per frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mischief {
    /// A frame arrives twice.
    pub twice: u32,
    /// A frame of an earlier session arrives again.
    pub again: u32,
    /// Two commands change places.
    pub swap: u32,
}

/// All wires of one run.
#[derive(Clone)]
pub(super) struct Net(Arc<Mutex<Wires>>, Book);

struct Wires {
    random: fastrand::Rng,
    server: Option<(Arc<Control>, CancellationToken)>,
    lines: BTreeMap<usize, Line>,
    mischief: Mischief,
    cuts: Vec<(usize, CancellationToken)>,
    /// Until when nothing is delivered: to the server, to the agents.
    stalled: [Instant; 2],
    old_up: VecDeque<ConnectRequest>,
    old_down: VecDeque<ConnectResponse>,
    /// Of each session of the running server: when its newest delivered frame was sent, and the
    /// least time that one took.
    heard: BTreeMap<i64, (Instant, Duration)>,
    newest: i64,
    sessions: usize,
    /// Each direction of each connection.
    ways: JoinSet<()>,
}

const UP: usize = 0;
const DOWN: usize = 1;

impl Net {
    pub(super) fn new(random: fastrand::Rng, book: Book) -> Self {
        let now = Instant::now();
        Self(
            Arc::new(Mutex::new(Wires {
                random,
                server: None,
                lines: BTreeMap::new(),
                mischief: Mischief::default(),
                cuts: Vec::new(),
                stalled: [now; 2],
                old_up: VecDeque::new(),
                old_down: VecDeque::new(),
                heard: BTreeMap::new(),
                newest: 0,
                sessions: 0,
                ways: JoinSet::new(),
            })),
            book,
        )
    }

    fn wires(&self) -> std::sync::MutexGuard<'_, Wires> {
        self.0.lock().unwrap()
    }

    /// The server that answers from now on; all connections to the one before are gone.
    pub(super) fn serve(&self, server: Option<(Arc<Control>, CancellationToken)>) {
        let mut wires = self.wires();
        wires.server = server;
        wires.heard.clear();
        for (_, cut) in wires.cuts.drain(..) {
            cut.cancel();
        }
    }

    /// The server that answers now, and what ends with its process.
    pub(super) fn server(&self) -> Option<(Arc<Control>, CancellationToken)> {
        self.wires().server.clone()
    }

    /// What calls of this machine meet.
    pub(super) fn line(&self, machine: usize, line: Line) {
        self.wires().lines.insert(machine, line);
    }

    pub(super) fn mischief(&self, mischief: Mischief) {
        self.wires().mischief = mischief;
    }

    /// Cuts the connections of a machine, or of all.
    pub(super) fn cut(&self, machine: Option<usize>) {
        let mut wires = self.wires();
        for (_, cut) in wires.cuts.extract_if(.., |(of, _)| machine.is_none_or(|m| m == *of)) {
            cut.cancel();
        }
    }

    /// For so long nothing is delivered in one direction.
    pub(super) fn stall(&self, up: bool, time: Duration) {
        self.wires().stalled[usize::from(!up)] = Instant::now() + time;
    }

    /// Ends all connections. A wire that broke by itself is told here.
    pub(super) async fn end(&self) {
        self.cut(None);
        let mut ways = std::mem::take(&mut self.wires().ways);
        while let Some(ended) = ways.try_join_next() {
            ended.unwrap();
        }
        // One to a server that was killed waits for a session that nobody runs any more.
        ways.shutdown().await;
    }

    /// No more faults.
    pub(super) fn heal(&self) {
        let mut wires = self.wires();
        wires.lines.clear();
        wires.mischief = Mischief::default();
        wires.stalled = [Instant::now(); 2];
    }

    /// Age of the newest frame that was delivered in the newest session, counted from when it was
    /// sent, and the least delay of that session: what no clock can tell apart from none.
    pub(super) fn heard_ago(&self) -> Option<(Duration, Duration)> {
        let wires = self.wires();
        let (_, (sent, least)) = wires.heard.last_key_value()?;
        Some((sent.elapsed(), *least))
    }

    /// How many sessions were opened so far, as server and agent remember.
    pub(super) fn sessions(&self) -> usize {
        self.wires().sessions
    }
}

/// One machine's way to the server.
pub(super) struct Wire {
    pub net: Net,
    pub machine: usize,
    pub clock: Clock,
}

#[async_trait]
impl Transport for Wire {
    async fn open(&self, from_agent: mpsc::Receiver<ConnectRequest>) -> Result<Inbound, Status> {
        let (line, server, mut random) = {
            let mut wires = self.net.wires();
            let line = wires.lines.get(&self.machine).copied().unwrap_or_default();
            (line, wires.server.clone(), wires.random.fork())
        };
        let latency = Duration::from_millis(random.u64(0..120));
        sleep(latency).await;
        let server = match (line, server) {
            (Line::BlackHole, _) => std::future::pending().await,
            (Line::Up, Some((server, _))) => server,
            _ => return Err(Status::unavailable("refused")),
        };
        let cut = CancellationToken::new();
        self.net.wires().cuts.push((self.machine, cut.clone()));
        let (to_server, frames) = mpsc::channel(ON_THE_WIRE);
        let (words, from_server) = mpsc::channel(TO_AGENT);
        let (to_agent, inbound) = mpsc::channel(ON_THE_WIRE);
        let session = server.clone().run_session(ReceiverStream::new(frames), words);
        let session = server.tasks.spawn(session);
        let (net, back) = (self.net.clone(), random.fork());
        let way = Way { net: net.clone(), cut: cut.clone(), latency, random };
        self.net.wires().ways.spawn(way.up(self.clock.clone(), from_agent, to_server));
        let way = Way { net, cut, latency, random: back };
        self.net.wires().ways.spawn(way.down(from_server, to_agent, session));
        Ok(ReceiverStream::new(inbound).boxed())
    }
}

/// One direction of a connection.
struct Way {
    net: Net,
    cut: CancellationToken,
    latency: Duration,
    random: fastrand::Rng,
}

impl Way {
    /// When a frame that leaves now arrives.
    fn due(&mut self, after: Instant) -> Instant {
        let jitter = Duration::from_millis(self.random.u64(0..20));
        (Instant::now() + self.latency + jitter).max(after)
    }

    fn stalled(&self, direction: usize) -> Instant {
        self.net.wires().stalled[direction]
    }

    /// A side learns of a cut at once, or much later.
    async fn learn(&mut self) {
        let late = if self.random.bool() { 0 } else { self.random.u64(0..20_000) };
        sleep(Duration::from_millis(late)).await;
    }

    async fn up(
        mut self,
        clock: Clock,
        mut from_agent: mpsc::Receiver<ConnectRequest>,
        to_server: mpsc::Sender<Result<ConnectRequest, Status>>,
    ) {
        let mut wire: VecDeque<(Instant, Instant, ConnectRequest)> = VecDeque::new();
        let (mut open, mut last) = (true, Instant::now());
        while open || !wire.is_empty() {
            let next = wire.front().map(|(_, due, _)| (*due).max(self.stalled(UP)));
            tokio::select! {
                biased;
                () = self.cut.cancelled() => return self.learn().await,
                frame = from_agent.recv(), if open && wire.len() < ON_THE_WIRE => match frame {
                    Some(mut frame) => {
                        // As the real one: when the connection takes it.
                        frame.monotonic_ms = clock.monotonic_ms();
                        last = self.due(last);
                        for frame in self.meddle_up(frame) {
                            wire.push_back((Instant::now(), last, frame));
                        }
                    }
                    None => open = false,
                },
                () = sleep_until(next.unwrap_or(last)), if next.is_some() => {
                    if next.is_some_and(|at| Instant::now() < at.max(self.stalled(UP))) {
                        continue;
                    }
                    let Some((sent, _, frame)) = wire.pop_front() else { continue };
                    let epoch = frame.epoch;
                    tokio::select! {
                        () = self.cut.cancelled() => return self.learn().await,
                        taken = to_server.send(Ok(frame)) => if taken.is_err() { return },
                    }
                    self.delivered(epoch, sent);
                }
            }
        }
    }

    fn delivered(&self, epoch: i64, sent: Instant) {
        let mut wires = self.net.wires();
        if epoch == 0 {
            return;
        }
        if epoch > wires.newest {
            // Only a frame after the welcome: now the agent's journal knows of the session too.
            wires.newest = epoch;
            wires.sessions += 1;
        }
        let heard = wires.heard.entry(epoch).or_insert((sent, sent.elapsed()));
        *heard = (heard.0.max(sent), heard.1.min(sent.elapsed()));
    }

    fn meddle_up(&mut self, frame: ConnectRequest) -> Vec<ConnectRequest> {
        use connect_request::Frame;
        let Mischief { twice, again, .. } = self.net.wires().mischief;
        let mut frames = vec![frame.clone()];
        let net = self.net.clone();
        let wires = &mut *net.wires();
        let once = matches!(frame.frame, Some(Frame::Hello(_) | Frame::Goodbye(_)) | None);
        if !once && self.random.u32(0..1_000) < twice {
            frames.push(frame.clone());
            self.net.1.met("a frame came twice, up");
        }
        if !once && self.random.u32(0..1_000) < again && !wires.old_up.is_empty() {
            let old = self.random.usize(0..wires.old_up.len());
            let old = wires.old_up[old].clone();
            // Within one session a config from before would be a lie that HTTP/2 cannot tell.
            if old.epoch != frame.epoch || !matches!(old.frame, Some(Frame::Status(_))) {
                frames.push(old);
                self.net.1.met("a frame came again, up");
            }
        }
        if !once {
            wires.old_up.push_back(frame);
            if wires.old_up.len() > ARCHIVE {
                wires.old_up.pop_front();
            }
        }
        frames
    }

    async fn down(
        mut self,
        mut from_server: mpsc::Receiver<ConnectResponse>,
        to_agent: mpsc::Sender<Result<ConnectResponse, Status>>,
        session: JoinHandle<Result<SessionEnd, SessionError>>,
    ) {
        let mut wire: VecDeque<(Instant, ConnectResponse)> = VecDeque::new();
        let (mut open, mut last) = (true, Instant::now());
        while open || !wire.is_empty() {
            let next = wire.front().map(|(due, _)| (*due).max(self.stalled(DOWN)));
            tokio::select! {
                biased;
                () = self.cut.cancelled() => {
                    self.learn().await;
                    let _gone = to_agent.try_send(Err(Status::unavailable("cut")));
                    return;
                }
                frame = from_server.recv(), if open && wire.len() < ON_THE_WIRE => match frame {
                    Some(frame) => {
                        last = self.due(last);
                        self.meddle_down(frame, last, &mut wire);
                    }
                    None => open = false,
                },
                () = sleep_until(next.unwrap_or(last)), if next.is_some() => {
                    if next.is_some_and(|at| Instant::now() < at.max(self.stalled(DOWN))) {
                        continue;
                    }
                    let Some((_, frame)) = wire.pop_front() else { continue };
                    tokio::select! {
                        () = self.cut.cancelled() => return self.learn().await,
                        taken = to_agent.send(Ok(frame)) => if taken.is_err() { return },
                    }
                }
            }
        }
        // As the real one: the session's end is the stream's.
        if let Ok(Err(e)) = session.await {
            let _gone = to_agent.try_send(Err(Status::aborted(e.to_string())));
        }
    }

    fn meddle_down(
        &mut self,
        frame: ConnectResponse,
        due: Instant,
        wire: &mut VecDeque<(Instant, ConnectResponse)>,
    ) {
        use connect_response::Frame;
        let net = self.net.clone();
        let wires = &mut *net.wires();
        let Mischief { twice, again, swap } = wires.mischief;
        wire.push_back((due, frame.clone()));
        let once = matches!(frame.frame, Some(Frame::Welcome(_) | Frame::Goodbye(_)) | None);
        if once {
            return;
        }
        if self.random.u32(0..1_000) < twice {
            wire.push_back((due, frame.clone()));
            self.net.1.met("a frame came twice, down");
        }
        if self.random.u32(0..1_000) < again && !wires.old_down.is_empty() {
            let old = self.random.usize(0..wires.old_down.len());
            wire.push_back((due, wires.old_down[old].clone()));
            self.net.1.met("a frame came again, down");
        }
        let command = |f: &ConnectResponse| matches!(f.frame, Some(Frame::Command(_)));
        if let [.., a, b] = wire.make_contiguous()
            && command(&a.1)
            && command(&b.1)
            && self.random.u32(0..1_000) < swap
        {
            std::mem::swap(&mut a.1, &mut b.1);
            self.net.1.met("two commands changed places");
        }
        if command(&frame) {
            wires.old_down.push_back(frame);
            if wires.old_down.len() > ARCHIVE {
                wires.old_down.pop_front();
            }
        }
    }
}
