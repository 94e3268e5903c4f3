//! A caller who never gives up: the request id is made and noted before anything is sent, whoever loses
//! the answer asks again by it, and every command is followed to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use pasamanos_proto::model::{CommandState, Reason};
use pasamanos_proto::pb;
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Status};

use crate::books::{Asked, What};
use crate::check::Said;
use crate::client::{Client, FARM, reason, request_id};

/// Refusals that say "not now": the same request is sent again.
const NOT_NOW: &[&str] =
    &["AGENT_MOVING", "DATABASE_UNREACHABLE", "LEASE_STORE_UNREACHABLE", "SERVER_STOPPING"];
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);
/// Longer than this no caller follows a command before it goes on to its next one; the end is looked
/// up when the run has healed.
const PATIENCE: Duration = Duration::from_secs(12);

/// What callers of one run share.
#[derive(Clone, Debug, Default)]
pub struct Run {
    stopped: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
    configs: Arc<AtomicU64>,
}

impl Run {
    /// Lets callers end after what they are at.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Whether callers are to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// How many commands were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }

    /// An interval, s, that no other config of this run has.
    pub fn interval(&self) -> i64 {
        let n = self.configs.fetch_add(1, Ordering::SeqCst);
        3_601 + i64::try_from(n).unwrap_or(0)
    }
}

/// One caller of one feeder.
#[derive(Debug)]
pub struct Caller {
    /// The server's view.
    pub client: Client,
    /// The feeder's id.
    pub feeder: String,
    /// What it shares.
    pub run: Run,
    /// What it chooses by.
    pub rng: Rng,
    /// Whether it also sets configs and holds; at most one caller of a feeder does.
    pub all: bool,
}

/// What one attempt told.
enum Told {
    /// The command as it is.
    Is(Box<pb::Command>),
    /// It is refused and nothing is left behind.
    Refused(String),
    /// Nobody knows.
    Unknown,
}

impl Caller {
    /// Asks one thing after the other until the run stops; answers with all that it asked.
    pub async fn run(mut self) -> Vec<Asked> {
        let mut history = Vec::new();
        while !self.run.is_stopped() {
            let what = match self.rng.u8(..10) {
                0..3 if self.all => What::Config(self.run.interval()),
                3 if self.all => What::Hold(true),
                _ => What::Dose(50 * self.rng.i64(1..=16)),
            };
            let hold = what == What::Hold(true);
            history.extend(self.ask(what).await);
            if hold {
                history.extend(self.ask(What::Hold(false)).await);
            }
            sleep(Duration::from_millis(self.rng.u64(..150))).await;
        }
        history
    }

    /// Asks one thing until it is accepted or refused, and follows it.
    async fn ask(&mut self, what: What) -> Option<Asked> {
        let etag = if matches!(what, What::Config(_)) { self.etag().await? } else { String::new() };
        let id = request_id();
        let mut asked = Asked {
            name: format!("{FARM}/commands/{id}"),
            feeder: self.feeder.clone(),
            what,
            number: 0,
            told: Vec::new(),
            mg: None,
            refused: None,
        };
        // An answer that was lost may still be an acceptance: then only GetCommand can say "never".
        let (mut lost, mut refused) = (false, None);
        loop {
            if refused.is_none() {
                match self.send(&asked, &id, &etag).await {
                    Told::Is(command) => {
                        note(&mut asked, &command);
                        break;
                    }
                    Told::Refused(why) => refused = Some(why),
                    Told::Unknown => lost = true,
                }
            }
            if refused.is_some() && !lost {
                asked.refused = refused;
                return Some(asked);
            }
            sleep(PAUSE).await;
            // Half of those who lost the answer look first, the others ask again at once.
            if refused.is_some() || self.run.is_stopped() || self.rng.bool() {
                match self.client.command(&asked.name).await {
                    Ok(command) => {
                        note(&mut asked, &command);
                        break;
                    }
                    Err(s) if s.code() == Code::NotFound && self.run.is_stopped() => {
                        asked.refused = Some(refused.unwrap_or("given up".into()));
                        return Some(asked);
                    }
                    Err(s) if s.code() == Code::NotFound && refused.is_some() => {
                        asked.refused = refused;
                        return Some(asked);
                    }
                    Err(_) => {}
                }
            }
        }
        self.run.accepted.fetch_add(1, Ordering::SeqCst);
        self.follow(&mut asked).await;
        if self.rng.u8(..5) == 0 {
            // A replay of what is long known.
            if let Told::Is(command) = self.send(&asked, &id, &etag).await {
                note(&mut asked, &command);
            }
        }
        Some(asked)
    }

    async fn etag(&self) -> Option<String> {
        while !self.run.is_stopped() {
            if let Ok(feeder) = self.client.feeder(&self.feeder).await {
                return Some(feeder.etag);
            }
            sleep(PAUSE).await;
        }
        None
    }

    async fn send(&mut self, asked: &Asked, id: &str, etag: &str) -> Told {
        let (name, request_id) = (format!("{FARM}/feeders/{}", asked.feeder), id.to_owned());
        let mut client = self.client.feeders.clone();
        // Some do not wait for the outcome, so that others come in between.
        let wait = Duration::from_millis(self.rng.u64(800..6_000));
        let answer = match asked.what {
            What::Dose(mg) => {
                let portion_mg = i32::try_from(mg).ok();
                let body =
                    pb::FeedNowRequest { name, portion_mg, request_id, ..Default::default() };
                client.feed_now(within(body, wait)).await.map(|a| a.into_inner().command)
            }
            What::Config(seconds) => {
                let interval = prost_types::Duration { seconds, nanos: 0 };
                let body = pb::UpdateFeederConfigRequest {
                    name,
                    config: Some(pb::FeederConfig {
                        interval: Some(interval),
                        ..Default::default()
                    }),
                    update_mask: Some(prost_types::FieldMask { paths: vec!["interval".into()] }),
                    etag: etag.to_owned(),
                    request_id,
                    ..Default::default()
                };
                client
                    .update_feeder_config(within(body, wait))
                    .await
                    .map(|a| a.into_inner().command)
            }
            What::Hold(true) => {
                let body = pb::HoldFeederRequest { name, request_id, ..Default::default() };
                client.hold_feeder(within(body, wait)).await.map(|a| a.into_inner().command)
            }
            What::Hold(false) => {
                let body = pb::ResumeFeederRequest { name, request_id, ..Default::default() };
                client.resume_feeder(within(body, wait)).await.map(|a| a.into_inner().command)
            }
        };
        told(answer)
    }

    async fn follow(&mut self, asked: &mut Asked) {
        let until = Instant::now() + PATIENCE;
        while !asked.ended() && Instant::now() < until && !self.run.is_stopped() {
            sleep(PAUSE).await;
            if let Ok(command) = self.client.command(&asked.name).await {
                note(asked, &command);
            }
        }
    }
}

fn within<T>(body: T, wait: Duration) -> Request<T> {
    let mut request = Request::new(body);
    request.set_timeout(wait);
    request
}

fn told(answer: Result<Option<pb::Command>, Status>) -> Told {
    let status = match answer {
        Ok(Some(command)) => return Told::Is(Box::new(command)),
        Ok(None) => return Told::Unknown,
        Err(status) => status,
    };
    let why = reason(&status);
    let refusal = [Code::FailedPrecondition, Code::Aborted, Code::InvalidArgument];
    // The end of a config, not a refusal.
    let is_end = why == "CHANGED_AT_FARM";
    if refusal.contains(&status.code()) && !is_end && !NOT_NOW.contains(&why.as_str()) {
        return Told::Refused(why);
    }
    Told::Unknown
}

/// Adds what was seen, if it is new.
pub fn note(asked: &mut Asked, command: &pb::Command) {
    let Ok(state) = CommandState::try_from(command.state()) else { return };
    let reason = Reason::from_name(&command.reason).unwrap_or(Reason::Unspecified);
    let said = Said { state, reason, life: 0 };
    (asked.number, asked.mg) = (command.number, command.dispensed_mg.map(i64::from));
    if asked.told.last() != Some(&said) {
        asked.told.push(said);
    }
}

/// How it ended, for tables.
pub fn word(asked: &Asked) -> &'static str {
    match asked.state() {
        Some(CommandState::Applied) => "APPLIED",
        Some(CommandState::Partial) => "PARTIAL",
        Some(CommandState::Rejected) => "REJECTED",
        Some(CommandState::Expired) => "EXPIRED",
        Some(CommandState::Uncertain) => "UNCERTAIN",
        Some(_) => "open",
        None => "refused",
    }
}
