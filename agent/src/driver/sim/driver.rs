//! The simulated farm as a driver.

use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use async_trait::async_trait;
use pasamanos_proto::model::{Basis, FeederConfig, FeederId, FieldSet, RobotId};
use pasamanos_proto::pb::LinkState;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::control;
use super::shell::{Ask, Reply, Shell, Write};
use crate::config::{self, Access, Plc};
use crate::driver::{
    ConfigReading, Driver, DriverError, FeederDescription, Link, RobotSnapshot, RobotTraits,
    SlotBlock, SlotResult, describe,
};

/// More requests than this never wait at once; one more is refused.
const QUEUE: usize = 1_024;

/// A farm in software.
pub struct SimDriver {
    feeders: Vec<FeederDescription>,
    read_only: bool,
    asks: SyncSender<Ask>,
    link: watch::Sender<Link>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl SimDriver {
    /// Powers the farm up from its files below `data_dir/sim`, or makes them.
    ///
    /// # Errors
    /// If its files cannot be read or written, or the control address cannot be bound.
    pub async fn start(data_dir: &Path, plc: &Plc, sim: &config::Sim) -> std::io::Result<Self> {
        let (asks, asked) = sync_channel(QUEUE);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let dir = data_dir.join("sim");
        let zone = jiff::tz::TimeZone::get(&sim.zone).map_err(std::io::Error::other)?;
        let (seed, of, files) = (sim.seed, plc.clone(), dir.clone());
        let powered = tasks.spawn_blocking(move || Shell::power_up(&files, &of, seed, zone)).await;
        let shell = powered.map_err(std::io::Error::other)??;
        let up = Link { state: LinkState::Up, detail: "simulated".into() };
        let link = watch::Sender::new(up);
        if let Some(address) = sim.control {
            control::listen(address, &dir, asks.clone(), &tasks, stop.clone()).await?;
        }
        let (said, name) = (link.clone(), plc.name.clone());
        tasks.spawn_blocking(move || {
            let detail = match shell.run(&asked, &said) {
                Ok(()) => "stopped".into(),
                Err(e) => {
                    tracing::error!(plc = %name, error = %e, "sim.memory cannot be written");
                    format!("its memory cannot be written: {e}")
                }
            };
            said.send_replace(Link { state: LinkState::Down, detail });
        });
        let feeders = describe::feeders(plc);
        let read_only = plc.access == Access::ReadOnly;
        Ok(Self { feeders, read_only, asks, link, tasks, stop })
    }

    async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Ask) -> Result<T, DriverError> {
        let (reply, answer) = oneshot::channel();
        match self.asks.try_send(make(reply)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(DriverError::Refused("busy".into())),
            Err(TrySendError::Disconnected(_)) => return Err(DriverError::NotConnected),
        }
        // The thread ended in the middle: its memory failed.
        answer.await.map_err(|_| DriverError::Ambiguous("the simulated PLC stopped".into()))?
    }

    async fn write(&self, write: Write) -> Result<(), DriverError> {
        if self.read_only {
            return Err(DriverError::Refused("access = \"read_only\" in agent.toml".into()));
        }
        self.ask(|reply| Ask::Write(write, reply)).await
    }
}

#[async_trait]
impl Driver for SimDriver {
    fn feeders(&self) -> &[FeederDescription] {
        &self.feeders
    }

    fn traits(&self, _: &RobotId) -> RobotTraits {
        RobotTraits {
            sequenced: true,
            dwell: std::time::Duration::ZERO,
            life_provable: true,
            read_only: self.read_only,
            basis: Basis::Counted,
        }
    }

    async fn read_status(&self, robot: &RobotId) -> Result<RobotSnapshot, DriverError> {
        self.ask(|reply| Ask::Status(robot.clone(), reply)).await
    }

    async fn read_config(&self, feeder: &FeederId) -> Result<ConfigReading, DriverError> {
        self.ask(|reply| Ask::Config(feeder.clone(), reply)).await
    }

    async fn write_config(
        &self,
        feeder: &FeederId,
        base: &ConfigReading,
        new: &FeederConfig,
        fields: &FieldSet,
    ) -> Result<(), DriverError> {
        let (base, new) = (Box::new(base.clone()), Box::new(new.clone()));
        self.write(Write::Config { feeder: feeder.clone(), base, new, fields: fields.clone() })
            .await
    }

    async fn submit(&self, robot: &RobotId, block: &SlotBlock) -> Result<(), DriverError> {
        self.write(Write::Submit(robot.clone(), *block)).await
    }

    async fn history(&self, robot: &RobotId) -> Result<Vec<SlotResult>, DriverError> {
        self.ask(|reply| Ask::History(robot.clone(), reply)).await
    }

    async fn hold(&self, feeder: &FeederId) -> Result<(), DriverError> {
        self.write(Write::Hold(feeder.clone(), true)).await
    }

    async fn resume(&self, feeder: &FeederId) -> Result<(), DriverError> {
        self.write(Write::Hold(feeder.clone(), false)).await
    }

    async fn reset_fault(&self, feeder: &FeederId, code: u32) -> Result<(), DriverError> {
        self.write(Write::ResetFault(feeder.clone(), code)).await
    }

    fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        // If the queue is full the thread still ends: it answers what waits, then finds this.
        while let Err(TrySendError::Full(_)) = self.asks.try_send(Ask::Stop) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        self.tasks.wait().await;
    }
}
