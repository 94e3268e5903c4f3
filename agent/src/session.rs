//! One session: one stream from hello to its end. It owns what is said; what is done is the
//! executor's. Frames are built when the stream has room for them, so that a slow server gets the
//! newest and nothing queues up.

mod records;
mod run;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pasamanos_faults::crash_point;
use pasamanos_proto::model::{AgentName, AuditAnchor, Reason, RobotId, duration_ms};
use pasamanos_proto::pb::{self, connect_request, connect_response};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use self::run::Running;
use crate::calendar::Calendar;
use crate::executor::{Context, Executor};
use crate::farm::Farm;
use crate::hello;
use crate::journal::{Change, JournalError};
use crate::status::Reported;
use crate::transport::{Inbound, Transport};

/// What all sessions share.
pub(crate) struct Shared {
    /// What every command needs.
    pub context: Context,
    /// The robots.
    pub farm: Arc<Farm>,
    /// Runs commands.
    pub executor: Executor,
    /// Who the agent is.
    pub agent: AgentName,
    /// Knows the farm's zone.
    pub calendar: Calendar,
    /// How the server is reached.
    pub transport: Arc<dyn Transport>,
    /// Set when the session shall say goodbye: all commands have ended.
    pub leave: CancellationToken,
}

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The agent ends; it said goodbye.
    Left,
    /// The server moves this agent, or it has to introduce itself anew; come back after this.
    Drained(Duration),
    /// The server ended it.
    Goodbye {
        /// Why.
        reason: Reason,
        /// Its name, also if this build does not know it.
        name: String,
        /// Do not come back before.
        retry_after: Option<Duration>,
    },
    /// The stream broke, or the server was silent for the lease time.
    Lost(String),
    /// The server refused the stream.
    Refused(tonic::Status),
    /// The journal refused: no session without it.
    Journal(JournalError),
}

/// What a session came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Why it ended.
    pub end: End,
    /// The epoch it had, if it was opened.
    pub epoch: Option<i64>,
    /// A heartbeat was acknowledged: the server is well.
    pub lived: bool,
}

/// Few: what does not fit is built later, and newer.
const OUTBOUND: usize = 2;
/// The server must answer a hello within this.
const WELCOME: Duration = Duration::from_secs(10);
/// Believable lease and heartbeat times.
const TIMES_MS: std::ops::RangeInclusive<i64> = 20..=3_600_000;

/// Records that a server may have beyond this journal, if the journal was put back: more is no count
/// but a mistake, and to believe it would use up the numbers.
const RECORDS_AHEAD: i64 = 100_000_000;

/// Runs one session.
pub(crate) async fn run(shared: &Shared, last_epoch: i64) -> Outcome {
    let before = |end| Outcome { end, epoch: None, lived: false };
    let (outbound, frames) = mpsc::channel(OUTBOUND);
    let (told, unreadable) = match introduce(shared, &outbound, last_epoch).await {
        Ok(introduced) => introduced,
        Err(e) => return before(End::Journal(e)),
    };
    let opening = async {
        let mut inbound = shared.transport.open(frames).await.map_err(End::Refused)?;
        let welcome = welcome(&mut inbound).await?;
        Ok((inbound, welcome))
    };
    let opened = tokio::select! {
        opened = timeout(WELCOME, opening) => opened,
        () = shared.leave.cancelled() => return before(End::Left),
    };
    let (inbound, welcome) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(end)) => return before(end),
        Err(_) => return before(End::Lost("no answer to the hello".into())),
    };
    let terms = match Terms::of(&welcome, last_epoch) {
        Ok(terms) => terms,
        Err(why) => return before(End::Lost(why)),
    };
    // Durable before the first frame under it: only that frame opens the lease.
    let (zone, records_through) = (welcome.time_zone.clone(), welcome.records_through);
    let high_water = *shared.context.journal.high_water().borrow();
    if records_through.saturating_sub(high_water) > RECORDS_AHEAD {
        let why = format!("the server says that it has {records_through} records of this agent");
        return before(End::Lost(why));
    }
    if records_through > high_water {
        tracing::error!(
            records_through,
            high_water,
            "the server has records that this journal does not know: was it put back?"
        );
    }
    let durable = Change::Epoch {
        epoch: terms.epoch,
        zone,
        records_through,
        anchor: anchor(welcome.anchor.clone()),
        tell_again: welcome.tell_again,
    };
    if let Err(e) = shared.context.journal.commit(vec![durable]).await {
        return before(End::Journal(e));
    }
    crash_point!("agent.epoch.journaled");
    shared.calendar.set_zone(&welcome.time_zone);
    shared.context.gate.open(terms.epoch, terms.ttl).await;
    tracing::info!(epoch = terms.epoch, ttl_ms = terms.ttl.as_millis(), "session open");
    let epoch = Some(terms.epoch);
    let mut running = Running::new(shared, outbound, terms, &welcome, told, unreadable);
    let end = running.run(inbound).await;
    Outcome { end, epoch, lived: running.lived() }
}

/// Puts the hello into the stream before it is opened: a server may wait for it before it answers.
async fn introduce(
    shared: &Shared,
    outbound: &mpsc::Sender<pb::ConnectRequest>,
    last_epoch: i64,
) -> Result<(Reported, BTreeSet<RobotId>), JournalError> {
    shared.context.outbox.clear();
    let hello = hello::build(&shared.context, &shared.farm, &shared.agent, last_epoch).await?;
    let frame = connect_request::Frame::Hello(hello.hello.into());
    let sent = outbound.try_send(stamp(&shared.context, 0, frame));
    debug_assert!(sent.is_ok(), "the channel is new and has room");
    Ok((Reported::hello(hello.configs), hello.unreadable))
}

/// What a server tells of its audit chain; one that cannot be read counts as none.
fn anchor(told: Option<pb::AuditAnchor>) -> Option<AuditAnchor> {
    told.and_then(|anchor| anchor.try_into().ok())
}

/// The first frame from the server.
async fn welcome(inbound: &mut Inbound) -> Result<pb::Welcome, End> {
    match inbound.next().await {
        Some(Ok(response)) => match response.frame {
            Some(connect_response::Frame::Welcome(welcome)) => Ok(welcome),
            Some(connect_response::Frame::Goodbye(goodbye)) => Err(End::goodbye(&goodbye)),
            _ => Err(End::Lost("the first frame was no welcome".into())),
        },
        Some(Err(status)) => Err(End::Refused(status)),
        None => Err(End::Lost("the stream ended before the welcome".into())),
    }
}

impl End {
    fn goodbye(goodbye: &pb::Goodbye) -> Self {
        let retry_after = duration_ms(goodbye.retry_after.as_ref())
            .and_then(|ms| u64::try_from(ms).ok())
            .map(Duration::from_millis);
        let reason = Reason::from_name(&goodbye.reason).unwrap_or(Reason::Unspecified);
        Self::Goodbye { reason, name: goodbye.reason.clone(), retry_after }
    }
}

/// A frame with the agent's clock in it; the transport stamps it again when it leaves.
fn stamp(context: &Context, epoch: i64, frame: connect_request::Frame) -> pb::ConnectRequest {
    pb::ConnectRequest {
        epoch,
        boot_id: context.clock.boot_id().into(),
        monotonic_ms: context.clock.monotonic_ms(),
        frame: Some(frame),
    }
}

/// What a welcome settles.
#[derive(Clone, Copy, Debug)]
struct Terms {
    epoch: i64,
    ttl: Duration,
    interval: Duration,
}

impl Terms {
    fn of(welcome: &pb::Welcome, last_epoch: i64) -> Result<Self, String> {
        if welcome.epoch <= last_epoch {
            let epoch = welcome.epoch;
            return Err(format!("epoch {epoch} is not above {last_epoch}, the last one"));
        }
        let time = |name: &str, d: Option<&prost_types::Duration>| {
            let ms = duration_ms(d).filter(|ms| TIMES_MS.contains(ms));
            ms.map(|ms| Duration::from_millis(ms.unsigned_abs()))
                .ok_or_else(|| format!("{name} of the welcome is missing or not believable"))
        };
        let ttl = time("lease_ttl", welcome.lease_ttl.as_ref())?;
        let interval = time("heartbeat_interval", welcome.heartbeat_interval.as_ref())?;
        Ok(Self { epoch: welcome.epoch, ttl, interval: interval.min(ttl) })
    }
}
