//! Watching a farm: a snapshot, then what changed, a keepalive every 5 s. A slow reader holds one
//! number and nothing else: what it missed is conflated into the next change.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use pasamanos_proto::model::{Reason, timestamp_from_ms};
use pasamanos_proto::pb;
use pasamanos_proto::pb::watch_farm_response::Event;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::farms::Farm;
use crate::domain::Error;

const KEEPALIVE: Duration = Duration::from_secs(5);
/// Changes closer together than this go in one message: a browser paints no faster.
const CONFLATE: Duration = Duration::from_millis(50);

struct Watcher {
    farm: Arc<Farm>,
    changed: watch::Receiver<u64>,
    stopping: CancellationToken,
    seen: u64,
    sequence: u64,
    next_keepalive: Instant,
    ended: bool,
}

/// The messages of one watch.
pub fn watch(
    farm: Arc<Farm>,
    stopping: CancellationToken,
) -> impl Stream<Item = Result<pb::WatchFarmResponse, Error>> {
    let watcher = Watcher {
        changed: farm.subscribe(),
        farm,
        stopping,
        seen: 0,
        sequence: 0,
        next_keepalive: Instant::now() + KEEPALIVE,
        ended: false,
    };
    stream::unfold(watcher, |mut w| async move {
        if w.ended {
            return None;
        }
        let message = w.next().await;
        w.ended = message.is_err();
        Some((message, w))
    })
}

impl Watcher {
    async fn next(&mut self) -> Result<pb::WatchFarmResponse, Error> {
        loop {
            if let Some(event) = self.event() {
                self.sequence += 1;
                self.next_keepalive = Instant::now() + KEEPALIVE;
                return Ok(pb::WatchFarmResponse { sequence: self.sequence, event: Some(event) });
            }
            let stopping = self.stopping.clone();
            tokio::select! {
                () = stopping.cancelled() => return Err(stopping_error()),
                    woken = timeout_at(self.next_keepalive, self.changed.changed()) => {
                    if woken.is_err() {
                        self.next_keepalive = Instant::now() + KEEPALIVE;
                        let now = self.farm.now();
                        let server_time = Some(timestamp_from_ms(now.wall_ms));
                        let event = Event::Keepalive(pb::Keepalive { server_time });
                        return Ok(pb::WatchFarmResponse {
                            sequence: self.sequence,
                            event: Some(event),
                        });
                    }
                    tokio::time::sleep(CONFLATE).await;
                }
            }
        }
    }

    fn event(&mut self) -> Option<Event> {
        self.changed.borrow_and_update();
        let seen = self.seen;
        let (event, upto) = self.farm.read(|state, now| {
            if seen == 0 || seen < state.floor {
                let (snapshot, upto) = state.since(0, now);
                return (Some(Event::Snapshot(snapshot)), upto);
            }
            let (s, upto) = state.since(seen, now);
            let doses = state.doses.iter().filter(|d| d.changed > seen).map(|d| d.value.clone());
            let change = pb::FarmChange {
                agents: s.agents,
                robots: s.robots,
                tanks: s.tanks,
                feeders: s.feeders,
                commands: s.commands,
                doses: doses.collect(),
            };
            let nothing = change == pb::FarmChange::default();
            ((!nothing).then_some(Event::Change(change)), upto)
        });
        self.seen = upto;
        event
    }
}

/// What a stream, or a waiting rpc, is told when the server stops.
pub(super) fn stopping_error() -> Error {
    let text = "the server is stopping: connect again";
    Error::unavailable(Reason::ServerStopping, text).retry_after(Duration::from_millis(500))
}
