//! Session after session until the agent ends. Each end says how long to wait; between two sessions
//! nothing that was received may be journaled any more.

use std::time::Duration;

use pasamanos_proto::model::Reason;
use tokio::time::Instant;
use tonic::Code;

use crate::backoff::Backoff;
use crate::session::{self, End, Shared};

/// First try within 1 s; a killed server is found again within 5 s. A higher cap would spare a dead
/// server little (a refused connection costs it nothing) and a farm much; a storm of 10,000 agents
/// over 5 s is within what a server takes.
const NETWORK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// Another machine has this identity: stay away longer each time, so that the two do not alternate.
const SUPERSEDED: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(5));
/// A session that lasted this long shows that no other machine has this identity now.
const UNDISTURBED: Duration = Duration::from_mins(10);
/// The same complaint is not repeated within this.
const QUIET: Duration = Duration::from_mins(1);
/// Somebody must do something first.
const SLOW: (u64, u64) = (30_000, 60_000);

/// Runs sessions until the agent leaves.
pub(crate) async fn run(shared: &Shared, mut last_epoch: i64) {
    let mut random = fastrand::Rng::new();
    let mut network = Backoff::new(NETWORK.0, NETWORK.1);
    let mut superseded = Backoff::new(SUPERSEDED.0, SUPERSEDED.1);
    let mut complaint = Complaint::default();
    while !shared.leave.is_cancelled() {
        let began = Instant::now();
        let outcome = session::run(shared, last_epoch).await;
        // Waits for what is being journaled; drops what was received and is not.
        shared.context.gate.close().await;
        last_epoch = outcome.epoch.unwrap_or(last_epoch);
        if outcome.lived {
            network.reset();
        }
        if began.elapsed() >= UNDISTURBED {
            superseded.reset();
        }
        let slow = || Duration::from_millis(fastrand::u64(SLOW.0..SLOW.1));
        let wait = match outcome.end {
            End::Left => return,
            End::Drained(after) => after,
            End::Goodbye { reason, name, retry_after } => {
                let usual = match reason {
                    Reason::UnknownAgent => {
                        let command = format!("pasamanos-server agent add {}", shared.agent);
                        tracing::error!(
                            command,
                            "the server does not know this agent; on the server, type: {command}"
                        );
                        slow()
                    }
                    Reason::ProtocolTooOld => {
                        tracing::error!("the server speaks a newer protocol; update this agent");
                        slow()
                    }
                    Reason::SessionSuperseded => {
                        tracing::error!(
                            "another machine connected as this agent; is its data copied?"
                        );
                        superseded.next(&mut random)
                    }
                    _ => {
                        tracing::warn!(reason = name, "the server ended the session");
                        network.next(&mut random)
                    }
                };
                usual.max(retry_after.unwrap_or_default())
            }
            End::Refused(status) => {
                complaint.say(&format!("no session: {:?}: {}", status.code(), status.message()));
                match status.code() {
                    Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented => slow(),
                    _ => network.next(&mut random),
                }
            }
            End::Lost(why) => {
                complaint.say(&format!("session lost: {why}"));
                network.next(&mut random)
            }
            End::Journal(e) => {
                tracing::error!(error = %e, "no session: the journal refuses");
                slow()
            }
        };
        tracing::debug!(wait_ms = wait.as_millis(), "waiting before the next session");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.leave.cancelled() => return,
        }
    }
}

/// Says the same once a minute: a server that is away for a day must not fill the farm PC's disk.
#[derive(Default)]
struct Complaint(Option<(String, Instant)>);

impl Complaint {
    fn say(&mut self, what: &str) {
        let said = self.0.as_ref().is_some_and(|(last, at)| last == what && at.elapsed() < QUIET);
        if !said {
            tracing::warn!("{what}");
            self.0 = Some((what.to_owned(), Instant::now()));
        }
    }
}
