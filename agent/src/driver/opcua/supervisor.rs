//! Keeps one connection: opens it, watches over it by polling, throws it away at the first doubt and
//! opens another, with back-off. Never two at once: controllers allow few sessions, and some drop
//! the oldest, which is the farm's own program.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pasamanos_proto::model::RobotId;
use pasamanos_proto::pb::LinkState;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::live::{Live, OpenError};
use super::subscription::Watched;
use super::{value, words};
use crate::clock;
use crate::config::tags::Address;
use crate::config::{OpcUa, Tag, TagName};
use crate::driver::{DriverError, Link, News};

const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_mins(1);
/// How often the connection is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// So many looks without an answer end it.
const FAILED_LOOKS: u32 = 2;
/// An `alive` tag that stands still for so long makes the link frozen.
const FROZEN_MS: i64 = 10_000;

/// A subscription that died is not made again sooner.
const RESUBSCRIBE: Duration = Duration::from_secs(30);

/// What the supervisor works with.
pub(super) struct Supervisor {
    pub plc: String,
    pub of: OpcUa,
    pub pki: PathBuf,
    pub addresses: Vec<Address>,
    /// The tag by which each robot's life is seen.
    pub lives: Vec<(RobotId, Tag, TagName)>,
    /// The tags whose changes are subscribed to, and where they are told.
    pub watched: Arc<[Watched]>,
    pub news: Arc<News>,
    pub live: watch::Sender<Option<Arc<Live>>>,
    pub link: watch::Sender<Link>,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

impl Supervisor {
    /// Runs until it is told to stop; then the connection is closed.
    pub async fn run(self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let opened = tokio::select! {
                () = self.stop.cancelled() => return,
                opened = Live::open(&self.of, &self.pki, &self.addresses, &self.tasks) => opened,
            };
            match opened {
                Ok(live) => {
                    let live = Arc::new(live);
                    let since = clock::monotonic_ms();
                    tracing::info!(plc = %self.plc, url = %self.of.url, "plc.connected");
                    // The connection first: who sees the link up may use it at once.
                    self.live.send_replace(Some(live.clone()));
                    self.say(LinkState::Up, "connected");
                    let why = tokio::select! {
                        () = self.stop.cancelled() => None,
                        why = self.watch_over(&live) => Some(why),
                        never = self.hasten(&live) => match never {},
                    };
                    self.live.send_replace(None);
                    self.say(LinkState::Down, why.as_deref().unwrap_or("stopped"));
                    live.close().await;
                    let Some(why) = why else { return };
                    tracing::warn!(plc = %self.plc, %why, "plc.lost");
                    if clock::monotonic_ms() - since > 10_000 {
                        backoff = BACKOFF_MIN;
                    }
                }
                Err(OpenError { detail, configuration }) => {
                    let state =
                        if configuration { LinkState::ConfigError } else { LinkState::Down };
                    if self.say(state, &detail) {
                        tracing::warn!(plc = %self.plc, %detail, "plc.unreachable");
                    }
                }
            }
            // A wrong password asked for too often locks the account.
            let floor = if self.link.borrow().state == LinkState::ConfigError { 5 } else { 0 };
            let jitter = 0.8 + 0.4 * fastrand::f64();
            let pause = backoff.mul_f64(jitter).max(Duration::from_secs(floor));
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sleep(pause) => {}
            }
            backoff = backoff.mul_f64(1.7).min(BACKOFF_MAX);
        }
    }

    /// Lets the server tell of changes, as long as this connection lives. Nothing depends on it.
    async fn hasten(&self, live: &Live) -> Infallible {
        let plc = &self.plc;
        let Some(every) = self.of.subscribe.filter(|_| !self.watched.is_empty()) else {
            return std::future::pending().await;
        };
        loop {
            let news = self.news.clone();
            let tell = move |robots: &[RobotId]| robots.iter().for_each(|robot| news.tell(robot));
            match live.subscribe(&self.watched, every, tell).await {
                Ok(subscribed) => {
                    let (every, taken) = (subscribed.every.as_millis(), subscribed.taken);
                    if let Some(code) = subscribed.refused {
                        let asked = self.watched.len();
                        tracing::warn!(%plc, taken, asked, %code, "plc.subscribed_in_part");
                    } else {
                        tracing::info!(%plc, every_ms = every, tags = taken, "plc.subscribed");
                    }
                    live.silence(&subscribed).await;
                    tracing::info!(%plc, "plc.subscription_silent: it is polled, and subscribed again");
                    live.end(subscribed).await;
                }
                Err(code) => {
                    tracing::warn!(%plc, %code, "plc.not_subscribed: it is polled only");
                    return std::future::pending().await;
                }
            }
            sleep(RESUBSCRIBE).await;
        }
    }

    /// Whether that is news.
    fn say(&self, state: LinkState, detail: &str) -> bool {
        let link = Link { state, detail: detail.into() };
        self.link.send_if_modified(|shown| {
            let changed = *shown != link;
            *shown = link;
            changed
        })
    }

    /// Returns why the connection must go.
    async fn watch_over(&self, live: &Live) -> String {
        let mut failed = 0;
        let mut seen: Vec<(u32, i64)> = vec![(0, clock::monotonic_ms()); self.lives.len()];
        loop {
            tokio::select! {
                code = live.lost() => return format!("connection lost: {code}"),
                () = sleep(LOOK) => {}
            }
            match self.look(live).await {
                Err(e) => {
                    failed += 1;
                    if failed >= FAILED_LOOKS {
                        return format!("no answer: {e}");
                    }
                }
                Ok(counts) => {
                    failed = 0;
                    let now = clock::monotonic_ms();
                    let mut frozen = Vec::new();
                    for ((robot, _, _), (shown, count)) in
                        self.lives.iter().zip(seen.iter_mut().zip(counts))
                    {
                        if count.is_some_and(|count| count != shown.0) {
                            *shown = (count.unwrap_or(0), now);
                        }
                        if now - shown.1 >= FROZEN_MS {
                            frozen.push(robot.to_string());
                        }
                    }
                    if frozen.is_empty() {
                        self.say(LinkState::Up, "connected");
                    } else {
                        let who = frozen.join(", ");
                        self.say(
                            LinkState::Frozen,
                            &format!("alive has not moved for 10 s: {who}"),
                        );
                    }
                }
            }
        }
    }

    /// The life of every robot; the server's own state if none shows any.
    async fn look(&self, live: &Live) -> Result<Vec<Option<u32>>, DriverError> {
        let asked: Vec<&Address> = self.lives.iter().map(|(_, tag, _)| &tag.address).collect();
        if asked.is_empty() {
            return live.ping().await.map(|()| Vec::new());
        }
        let values = live.read(&asked).await?;
        let count = |(_, tag, name): &(RobotId, Tag, TagName), value| match name {
            TagName::Status => {
                let words = value::words(tag, value).and_then(|w| words::status(&w));
                words.map(|status| status.heartbeat)
            }
            _ => value::count(tag, value),
        };
        Ok(self.lives.iter().zip(&values).map(|(of, value)| count(of, value).ok()).collect())
    }
}
