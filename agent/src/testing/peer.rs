//! One session as the server sees it, played by a test. Used by the integration tests too.

use std::collections::BTreeMap;
use std::time::Duration;

use pasamanos_proto::model::{
    AgentFrame, AgentFrameBody, CommandName, CommandOrder, CommandReport, CommandState, Hello,
    duration_from_ms,
};
use pasamanos_proto::pb::{self, connect_response::Frame};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Status;

/// Longer than any test waits.
const PATIENCE: Duration = Duration::from_mins(15);

/// One session, as the server sees it. It acknowledges what it gets unless told not to.
pub(crate) struct Peer {
    from: mpsc::Receiver<pb::ConnectRequest>,
    to: mpsc::Sender<Result<pb::ConnectResponse, Status>>,
    pub epoch: i64,
    pub reports: Vec<CommandReport>,
    pub records: Vec<pb::Record>,
    pub feeders: BTreeMap<String, pb::FeederReport>,
    /// The newest readings, by tank.
    pub readings: BTreeMap<String, Vec<pb::Reading>>,
    pub beats: i64,
    pub ack: bool,
    /// The highest record that this server has.
    pub through: i64,
    /// Lease time and heartbeat interval, ms.
    pub lease: (i64, i64),
    pub said_goodbye: bool,
    /// Where this server's audit chain is.
    pub anchor: Option<pb::AuditAnchor>,
    /// Its database was put back.
    pub tell_again: bool,
}

impl Peer {
    pub(crate) fn new(
        from: mpsc::Receiver<pb::ConnectRequest>,
        to: mpsc::Sender<Result<pb::ConnectResponse, Status>>,
    ) -> Self {
        Self {
            from,
            to,
            epoch: 0,
            reports: Vec::new(),
            records: Vec::new(),
            feeders: BTreeMap::new(),
            readings: BTreeMap::new(),
            beats: 0,
            ack: true,
            through: 0,
            lease: (25_000, 8_000),
            said_goodbye: false,
            anchor: None,
            tell_again: false,
        }
    }

    pub(crate) async fn frame(&mut self) -> Option<AgentFrame> {
        let frame = timeout(PATIENCE, self.from.recv()).await.expect("a frame in time")?;
        Some(AgentFrame::try_from(frame).expect("a valid frame"))
    }

    pub(crate) async fn send(&self, frame: Frame) {
        let response = pb::ConnectResponse { epoch: self.epoch, frame: Some(frame) };
        let _ended = self.to.send(Ok(response)).await;
    }

    pub(crate) async fn hello(&mut self) -> Hello {
        match self.frame().await.expect("a hello").body {
            AgentFrameBody::Hello(hello) => *hello,
            other => panic!("not a hello: {other:?}"),
        }
    }

    /// Opens the session under the next epoch.
    pub(crate) async fn welcome(&mut self, epoch: i64) {
        self.epoch = epoch;
        let welcome = pb::Welcome {
            protocol_version: 1,
            min_protocol_version: 1,
            capabilities: Vec::new(),
            epoch,
            lease_ttl: Some(duration_from_ms(self.lease.0)),
            heartbeat_interval: Some(duration_from_ms(self.lease.1)),
            server_time: None,
            records_through: self.through,
            time_zone: "UTC".into(),
            anchor: self.anchor.clone(),
            tell_again: self.tell_again,
        };
        self.send(Frame::Welcome(welcome)).await;
    }

    pub(crate) async fn order(&self, order: &CommandOrder) {
        self.send(Frame::Command(order.clone().into())).await;
    }

    /// Takes one frame in and acts as a server would; false at the stream's end.
    pub(crate) async fn step(&mut self) -> bool {
        let Some(frame) = self.frame().await else { return false };
        assert!(self.epoch == 0 || frame.epoch == self.epoch, "a frame of another epoch");
        match frame.body {
            AgentFrameBody::Hello(_) => panic!("a second hello"),
            AgentFrameBody::Heartbeat(beat) => {
                self.beats += 1;
                assert_eq!(beat.sequence, self.beats);
                self.send(Frame::HeartbeatAck(pb::HeartbeatAck { sequence: beat.sequence })).await;
            }
            AgentFrameBody::Status(status) => {
                self.readings.extend(status.tanks.into_iter().map(|t| (t.tank, t.readings)));
                for f in status.feeders {
                    let mut new = f;
                    // A config that is not told stays as it was.
                    let old = self.feeders.get(&new.feeder).filter(|_| new.config.is_none());
                    if let Some(old) = old {
                        new.config.clone_from(&old.config);
                        new.config_memory_lost = old.config_memory_lost;
                    }
                    self.feeders.insert(new.feeder.clone(), new);
                }
            }
            AgentFrameBody::Command(report) => {
                if report.state.is_terminal() && self.ack {
                    let ack = pb::CommandAck {
                        command: report.command.to_string(),
                        state: pb::CommandState::from(report.state).into(),
                        resolution: None,
                        anchor: self.anchor.clone(),
                    };
                    self.send(Frame::CommandAck(ack)).await;
                }
                self.reports.push(*report);
            }
            AgentFrameBody::Records(batch) => {
                let through = batch.records.last().unwrap().sequence;
                for r in batch.records {
                    if self.records.last().is_none_or(|l| l.sequence < r.sequence) {
                        self.records.push(pb::Record {
                            sequence: r.sequence,
                            hash: r.hash.as_bytes().to_vec().into(),
                            content: Some(r.content),
                        });
                    }
                }
                if self.ack {
                    let incarnation = batch.incarnation;
                    self.send(Frame::RecordsAck(pb::RecordsAck {
                        incarnation,
                        through_sequence: through,
                    }))
                    .await;
                }
            }
            AgentFrameBody::Goodbye(_) => self.said_goodbye = true,
        }
        true
    }

    /// The end of a command, the next one after those that were waited for.
    pub(crate) async fn outcome(&mut self, name: &CommandName) -> CommandReport {
        let found = |r: &CommandReport| r.command == *name && r.state.is_terminal();
        let i = self.report(&format!("the outcome of {name}"), found).await;
        self.reports.remove(i)
    }

    /// Until the command is begun.
    pub(crate) async fn executing(&mut self, name: &CommandName) {
        let begun = |r: &CommandReport| r.command == *name && r.state == CommandState::Executing;
        self.report(&format!("that {name} is begun"), begun).await;
    }

    /// Until there is such a report: heartbeats alone are not waited out for ever.
    async fn report(&mut self, what: &str, is: impl Fn(&CommandReport) -> bool) -> usize {
        let wait = async {
            loop {
                if let Some(i) = self.reports.iter().position(&is) {
                    return i;
                }
                assert!(self.step().await, "the stream ended before {what}");
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("nobody told {what}"))
    }

    /// Plays the server for a while; false if the stream ended.
    pub(crate) async fn play(&mut self, time: Duration) -> bool {
        timeout(time, async { while self.step().await {} }).await.is_err()
    }

    pub(crate) fn doses(&self) -> Vec<&pb::Dose> {
        let dose = |r: &'_ pb::Record| matches!(r.content, Some(pb::record::Content::Dose(_)));
        self.records
            .iter()
            .filter(|r| dose(r))
            .filter_map(|r| match &r.content {
                Some(pb::record::Content::Dose(d)) => Some(d),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn alarms(&self) -> Vec<String> {
        self.records
            .iter()
            .filter_map(|r| match &r.content {
                Some(pb::record::Content::Alarm(a)) => Some(a.reason.clone()),
                _ => None,
            })
            .collect()
    }
}
