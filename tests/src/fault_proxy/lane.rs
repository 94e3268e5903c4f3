//! One direction of the fault proxy: its rules, its count of bytes, and the pump that obeys them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Read at once.
const CHUNK: usize = 4 * 1024;
/// Chunks that may be on their way: more, and the sender is not read.
const ON_THE_WAY: usize = 4 * 1024;

/// What becomes of a direction's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// They arrive.
    #[default]
    Pass,
    /// They are read and lost; the connection stays.
    Swallow,
    /// They are read and kept, and all arrive in order when the flow passes again.
    Hold,
    /// They are not read: they fill the sender's buffers.
    Stall,
}

/// How a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// RST, to both ends.
    Reset,
    /// FIN, to both ends.
    Close,
}

/// Why a connection ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By order.
    Cut(Cut),
    /// One of its ends broke it: the other is told so.
    Broken,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rules {
    flow: Flow,
    latency: Duration,
}

#[derive(Debug, Default)]
struct Meter {
    passed: u64,
    held: u64,
    /// The count at which the connection is cut.
    cut_at: Option<(u64, Cut)>,
}

/// One direction of every connection.
#[derive(Debug, Default)]
pub(super) struct Lane {
    rules: watch::Sender<Rules>,
    meter: Mutex<Meter>,
}

impl Lane {
    pub(super) fn set_flow(&self, flow: Flow) {
        self.rules.send_modify(|r| r.flow = flow);
    }

    pub(super) fn set_latency(&self, latency: Duration) {
        self.rules.send_modify(|r| r.latency = latency);
    }

    pub(super) fn cut_after(&self, bytes: u64, cut: Cut) {
        self.meter(|m| m.cut_at = Some((m.passed + bytes, cut)));
    }

    pub(super) fn disarm(&self) -> bool {
        self.meter(|m| m.cut_at.take().is_some())
    }

    pub(super) fn passed(&self) -> u64 {
        self.meter(|m| m.passed)
    }

    pub(super) fn held(&self) -> u64 {
        self.meter(|m| m.held)
    }

    fn meter<T>(&self, with: impl FnOnce(&mut Meter) -> T) -> T {
        with(&mut self.meter.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts bytes that are about to pass: how many may, and whether the connection is cut then.
    fn take(&self, length: usize) -> (usize, Option<Cut>) {
        self.meter(|m| {
            let left = m.cut_at.map_or(u64::MAX, |(at, _)| at.saturating_sub(m.passed));
            let may = usize::try_from(left).map_or(length, |left| left.min(length));
            m.passed += u64::try_from(may).unwrap_or(0);
            let cut = m.cut_at.take_if(|(at, _)| m.passed >= *at);
            (may, cut.map(|(_, cut)| cut))
        })
    }
}

/// A chunk, and when it was read.
type Chunk = (Instant, Vec<u8>);

/// Carries one direction of one connection until its end; an error if it is cut or breaks.
pub(super) async fn pump(
    lane: &Lane,
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
) -> Result<(), End> {
    let (queue, queued) = mpsc::channel::<Chunk>(ON_THE_WAY);
    tokio::try_join!(read(lane, from, queue), write(lane, queued, to))?;
    Ok(())
}

async fn read(lane: &Lane, from: &mut ReadHalf<'_>, queue: mpsc::Sender<Chunk>) -> Result<(), End> {
    let mut rules = lane.rules.subscribe();
    let mut buffer = vec![0; CHUNK];
    loop {
        if rules.wait_for(|r| r.flow != Flow::Stall).await.is_err() {
            return Ok(());
        }
        let n = tokio::select! {
            biased;
            // Stalled from now on: not even what lies there is read.
            _ = rules.changed() => continue,
            n = from.read(&mut buffer) => n.map_err(|_| End::Broken)?,
        };
        if n == 0 {
            return Ok(());
        }
        lane.meter(|m| m.held += u64::try_from(n).unwrap_or(0));
        let chunk = (Instant::now(), buffer[..n].to_vec());
        if queue.send(chunk).await.is_err() {
            return Ok(());
        }
    }
}

async fn write(
    lane: &Lane,
    mut queued: mpsc::Receiver<Chunk>,
    to: &mut WriteHalf<'_>,
) -> Result<(), End> {
    let mut rules = lane.rules.subscribe();
    while let Some((read, bytes)) = queued.recv().await {
        let latency = rules.borrow().latency;
        sleep_until(read + latency).await;
        let flow = rules.wait_for(|r| r.flow != Flow::Hold).await.map(|r| r.flow);
        lane.meter(|m| m.held -= u64::try_from(bytes.len()).unwrap_or(0));
        if flow.is_ok_and(|flow| flow == Flow::Swallow) {
            continue;
        }
        let (may, cut) = lane.take(bytes.len());
        to.write_all(&bytes[..may]).await.map_err(|_| End::Broken)?;
        if let Some(cut) = cut {
            return Err(End::Cut(cut));
        }
    }
    to.shutdown().await.map_err(|_| End::Broken)
}
