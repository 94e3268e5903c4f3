//! One PLC over OPC UA as a driver.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use opcua::types::Variant;
use pasamanos_proto::model::{Basis, FeederConfig, FeederId, FieldSet, RobotId};
use pasamanos_proto::pb::LinkState;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::dose_group::DoseGroup;
use super::live::Live;
use super::probes::Probes;
use super::supervisor::Supervisor;
use super::{block, scalar, subscription, value, words};
use crate::config::tags::Address;
use crate::config::{
    Access, ConfigOwner, Feeder, OpcUa, Plc, Robot, SourceTime, Tag, TagName, Tags,
};
use crate::driver::{
    ConfigReading, Driver, DriverError, FeederDescription, Link, News, Profile, RobotSnapshot,
    RobotTraits, SlotBlock, SlotOp, SlotResult, describe,
};

/// One PLC.
pub struct OpcUaDriver {
    plc: Plc,
    feeders: Vec<FeederDescription>,
    live: watch::Receiver<Option<Arc<Live>>>,
    link: watch::Receiver<Link>,
    news: Arc<News>,
    probes: Probes,
    groups: HashMap<RobotId, Mutex<DoseGroup>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl OpcUaDriver {
    /// Begins to connect; the link says how that goes.
    #[must_use]
    pub fn start(data_dir: &Path, plc: &Plc, of: &OpcUa) -> Self {
        let down = Link { state: LinkState::Down, detail: "not yet connected".into() };
        let (live, is_live) = watch::channel(None);
        let (link, shown) = watch::channel(down);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let news = Arc::new(News::default());
        let supervisor = Supervisor {
            plc: plc.name.clone(),
            of: of.clone(),
            pki: data_dir.join("pki").join(&plc.name),
            addresses: addresses(plc),
            lives: plc.robots.iter().filter_map(life).collect(),
            watched: subscription::watched(plc).into(),
            news: news.clone(),
            live,
            link,
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        tasks.spawn(supervisor.run());
        let groups = plc.robots.iter().map(|r| (r.id.clone(), Mutex::default())).collect();
        let feeders = describe::feeders(plc);
        let (plc, live, link) = (plc.clone(), is_live, shown);
        Self { plc, feeders, live, link, news, probes: Probes::default(), groups, tasks, stop }
    }

    fn live(&self) -> Result<Arc<Live>, DriverError> {
        if let Some(live) = &*self.live.borrow() {
            return Ok(live.clone());
        }
        let link = self.link.borrow();
        match link.state {
            LinkState::ConfigError => Err(DriverError::Config(link.detail.clone())),
            _ => Err(DriverError::NotConnected),
        }
    }

    fn robot(&self, id: &RobotId) -> Result<&Robot, DriverError> {
        let found = self.plc.robots.iter().find(|r| r.id == *id);
        found.ok_or_else(|| DriverError::Config(format!("no robot {id}")))
    }

    fn feeder(&self, id: &FeederId) -> Result<(&Robot, &Feeder), DriverError> {
        let all = self.plc.robots.iter().flat_map(|r| r.feeders.iter().map(move |f| (r, f)));
        let mut found = all.filter(|(_, f)| f.id == *id);
        found.next().ok_or_else(|| DriverError::Config(format!("no feeder {id}")))
    }

    fn may_write(&self) -> Result<(), DriverError> {
        match self.plc.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => {
                Err(DriverError::Refused("access = \"read_only\" in agent.toml".into()))
            }
        }
    }

    async fn set_hold(&self, feeder: &FeederId, held: bool) -> Result<(), DriverError> {
        self.may_write()?;
        let (_, f) = self.feeder(feeder)?;
        let tag = writable(&f.tags, TagName::Hold)?;
        let value = value::variant(tag, f64::from(u8::from(held)))?;
        self.live()?.write(vec![(&tag.address, value)]).await
    }
}

#[async_trait]
impl Driver for OpcUaDriver {
    fn feeders(&self) -> &[FeederDescription] {
        &self.feeders
    }

    fn traits(&self, robot: &RobotId) -> RobotTraits {
        let of = self.plc.robots.iter().find(|r| r.id == *robot);
        RobotTraits {
            sequenced: of.is_some_and(is_block),
            dwell: of.map_or(Duration::from_secs(1), |r| r.dwell),
            life_provable: of.is_some_and(|r| {
                life(r).is_some()
                    || r.tags.contains_key(&TagName::PlcTime)
                    || r.source_time == SourceTime::Plc
            }),
            read_only: self.plc.access == Access::ReadOnly,
            basis: Basis::Counted,
        }
    }

    async fn read_status(&self, robot: &RobotId) -> Result<RobotSnapshot, DriverError> {
        let (robot, live) = (self.robot(robot)?, self.live()?);
        if is_block(robot) {
            block::snapshot(robot, &block::plan(robot).read(&live, &self.probes).await?)
        } else {
            scalar::snapshot(robot, &scalar::plan(robot).read(&live, &self.probes).await?)
        }
    }

    async fn read_config(&self, feeder: &FeederId) -> Result<ConfigReading, DriverError> {
        let ((robot, f), live) = (self.feeder(feeder)?, self.live()?);
        match f.profile {
            Profile::Block => {
                let tag = needed(&f.tags, TagName::ConfigStatus)?;
                let values = live.read(&[&tag.address]).await?;
                let missing = || DriverError::BadData("no value".into());
                words::config(&value::words(tag, values.first().ok_or_else(missing)?)?)
            }
            Profile::Scalar => {
                scalar::config(robot, f, &scalar::config_plan(f).read(&live, &self.probes).await?)
            }
        }
    }

    async fn write_config(
        &self,
        feeder: &FeederId,
        base: &ConfigReading,
        new: &FeederConfig,
        fields: &FieldSet,
    ) -> Result<(), DriverError> {
        self.may_write()?;
        let ((robot, f), live) = (self.feeder(feeder)?, self.live()?);
        if robot.config_owner == ConfigOwner::Desktop {
            return Err(DriverError::Refused("config_owner = \"desktop\" in agent.toml".into()));
        }
        match f.profile {
            Profile::Block => {
                let (Some(epoch), Some(revision)) = (base.plc_epoch, base.revision) else {
                    return Err(DriverError::Refused("the base has no revision".into()));
                };
                let whole = base.config.valid().map_or(new.clone(), |b| b.merged(new, fields));
                let tag = writable(&f.tags, TagName::Config)?;
                let words = words::config_request(epoch, revision, &whole)?;
                live.write(vec![(&tag.address, Variant::from(words))]).await
            }
            Profile::Scalar => {
                let writes = scalar::config_writes(f, new, fields)?;
                for (written, (tag, value)) in writes.into_iter().enumerate() {
                    let outcome = live.write(vec![(&tag.address, value)]).await;
                    match outcome {
                        Err(e) if written > 0 => {
                            let message = format!("{written} tags are written, then: {e}");
                            return Err(DriverError::Ambiguous(message));
                        }
                        outcome => outcome?,
                    }
                }
                Ok(())
            }
        }
    }

    async fn submit(&self, robot: &RobotId, block: &SlotBlock) -> Result<(), DriverError> {
        self.may_write()?;
        let robot = self.robot(robot)?;
        if is_block(robot) {
            let tag = writable(&robot.tags, TagName::Command)?;
            let words = words::command(block);
            return self.live()?.write(vec![(&tag.address, Variant::from(words))]).await;
        }
        match block.op {
            SlotOp::Dose => {
                let Some(group) = self.groups.get(&robot.id) else {
                    return Err(DriverError::NotConnected);
                };
                // Held over the awaits on purpose: two of these must not mix.
                group.lock().await.start(&*self.live()?, robot, block).await
            }
            SlotOp::Nop | SlotOp::None => {
                Err(DriverError::Refused("plain tags have no fence".into()))
            }
        }
    }

    async fn history(&self, robot: &RobotId) -> Result<Vec<SlotResult>, DriverError> {
        let (robot, live) = (self.robot(robot)?, self.live()?);
        let Some(tag) = robot.tags.get(&TagName::History) else { return Ok(Vec::new()) };
        let values = live.read(&[&tag.address]).await?;
        let missing = || DriverError::BadData("no value".into());
        words::history(&value::words(tag, values.first().ok_or_else(missing)?)?)
    }

    async fn hold(&self, feeder: &FeederId) -> Result<(), DriverError> {
        self.set_hold(feeder, true).await
    }

    async fn resume(&self, feeder: &FeederId) -> Result<(), DriverError> {
        self.set_hold(feeder, false).await
    }

    async fn reset_fault(&self, feeder: &FeederId, code: u32) -> Result<(), DriverError> {
        self.may_write()?;
        let (robot, _) = self.feeder(feeder)?;
        let tag = writable(&robot.tags, TagName::ResetFault)?;
        let value = value::variant(tag, f64::from(code))?;
        self.live()?.write(vec![(&tag.address, value)]).await
    }

    fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    fn news(&self) -> Option<Arc<News>> {
        Some(self.news.clone())
    }

    async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn is_block(robot: &Robot) -> bool {
    robot.feeders.first().is_some_and(|f| f.profile == Profile::Block)
}

/// By what the robot's life is seen.
fn life(robot: &Robot) -> Option<(RobotId, Tag, TagName)> {
    let alive = robot.tags.get(&TagName::Alive).map(|tag| (tag, TagName::Alive));
    let status = robot.tags.get(&TagName::Status).map(|tag| (tag, TagName::Status));
    alive.or(status).map(|(tag, name)| (robot.id.clone(), tag.clone(), name))
}

fn addresses(plc: &Plc) -> Vec<Address> {
    let of_feeders = plc.robots.iter().flat_map(|r| &r.feeders).flat_map(|f| f.tags.values());
    let all = plc.robots.iter().flat_map(|r| r.tags.values()).chain(of_feeders);
    all.map(|tag| tag.address.clone()).collect()
}

pub(super) fn needed(tags: &Tags, name: TagName) -> Result<&Tag, DriverError> {
    tags.get(&name).ok_or_else(|| DriverError::Refused(format!("{} is not mapped", name.as_str())))
}

pub(super) fn writable(tags: &Tags, name: TagName) -> Result<&Tag, DriverError> {
    let tag = needed(tags, name)?;
    if tag.writable {
        Ok(tag)
    } else {
        Err(DriverError::Refused(format!("{} is read_only in agent.toml", name.as_str())))
    }
}
