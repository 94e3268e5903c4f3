//! One robot. Every read of it passes here and is looked at by its ledger; every call is bounded in
//! time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pasamanos_proto::model::{FeederConfig, FeederId, FieldSet, RobotId};
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::timeout;

use super::control::Control;
use super::view::{RobotView, SeenConfig};
use crate::clock::Clock;
use crate::driver::{
    ConfigReading, Driver, DriverError, FeederDescription, RobotSnapshot, RobotTraits, SlotBlock,
    SlotResult,
};
use crate::ledger::{Ledger, State};

/// A read that takes longer has failed.
const READ: Duration = Duration::from_secs(3);
/// A write that takes longer may still be executed.
const WRITE: Duration = Duration::from_secs(5);

/// One robot.
pub(crate) struct RobotCell {
    /// Its id.
    pub id: RobotId,
    /// What it can prove.
    pub traits: RobotTraits,
    /// Its feeders.
    pub feeders: Vec<FeederDescription>,
    /// How often it is read.
    pub poll: Duration,
    /// What is known of it beyond the last snapshot.
    pub ledger: Ledger,
    driver: Arc<dyn Driver>,
    clock: Clock,
    view: watch::Sender<RobotView>,
    changed: Arc<Notify>,
    controls: BTreeMap<FeederId, Control>,
    // One read at a time: an older snapshot must not be looked at after a newer one.
    reading: Mutex<()>,
}

impl fmt::Debug for RobotCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RobotCell").field("id", &self.id).finish_non_exhaustive()
    }
}

impl RobotCell {
    /// One of the driver's robots.
    pub(crate) fn new(
        id: RobotId,
        driver: Arc<dyn Driver>,
        poll: Duration,
        ledger: Ledger,
        clock: Clock,
        changed: Arc<Notify>,
    ) -> Self {
        let feeders: Vec<_> = driver.feeders().iter().filter(|f| f.robot == id).cloned().collect();
        let controls = feeders.iter().map(|f| (f.feeder.clone(), Control::default())).collect();
        let view = watch::Sender::new(RobotView::unread(clock.monotonic_ms()));
        let traits = driver.traits(&id);
        let reading = Mutex::new(());
        Self { id, traits, feeders, poll, ledger, driver, clock, view, changed, controls, reading }
    }

    /// What was last read.
    pub(crate) fn view(&self) -> watch::Ref<'_, RobotView> {
        self.view.borrow()
    }

    /// Follows what is read.
    pub(crate) fn follow(&self) -> watch::Receiver<RobotView> {
        self.view.subscribe()
    }

    /// The feeder's description.
    pub(crate) fn feeder(&self, id: &FeederId) -> Option<&FeederDescription> {
        self.feeders.iter().find(|f| f.feeder == *id)
    }

    /// The feeder's control.
    pub(crate) fn control(&self, id: &FeederId) -> Option<&Control> {
        self.controls.get(id)
    }

    /// Reads the robot now and looks at what it shows.
    ///
    /// # Errors
    /// If it could not be read.
    pub(crate) async fn read_status(&self) -> Result<Arc<RobotSnapshot>, DriverError> {
        self.read_status_and(|_, s| Arc::clone(s)).await
    }

    /// As [`Self::read_status`], and looks at ledger and snapshot at one instant.
    ///
    /// # Errors
    /// If it could not be read.
    pub(crate) async fn read_status_and<T>(
        &self,
        look: impl FnOnce(&State, &Arc<RobotSnapshot>) -> T,
    ) -> Result<T, DriverError> {
        let _one = self.reading.lock().await;
        let began = self.clock.monotonic_ms();
        let read = timeout(READ, self.driver.read_status(&self.id)).await;
        let read = read.unwrap_or_else(|_| Err(DriverError::BadData("no answer in time".into())));
        let now = self.clock.monotonic_ms();
        let snapshot = match read {
            Ok(snapshot) => Arc::new(snapshot),
            Err(e) => {
                let link = self.driver.link().borrow().clone();
                self.view.send_modify(|v| v.failed(&e, &link, now));
                self.changed.notify_one();
                return Err(e);
            }
        };
        let seen = self
            .ledger
            .update(|state, now, changes| {
                state.observe(&snapshot, now, changes);
            })
            .await;
        if let Err(e) = seen {
            tracing::error!(robot = %self.id, error = %e, "what the robot shows was not journaled");
        }
        self.view.send_modify(|v| v.read(Arc::clone(&snapshot), began, now));
        self.changed.notify_one();
        let state = self.ledger.look().await;
        Ok(look(&state, &snapshot))
    }

    /// Reads a feeder's config now.
    ///
    /// # Errors
    /// If it could not be read.
    pub(crate) async fn read_config(
        &self,
        feeder: &FeederId,
    ) -> Result<ConfigReading, DriverError> {
        let began = self.clock.monotonic_ms();
        let read = timeout(READ, self.driver.read_config(feeder)).await;
        let reading =
            read.unwrap_or_else(|_| Err(DriverError::BadData("no answer in time".into())))?;
        let seen = self
            .ledger
            .update(|state, now, changes| {
                state.observe_config(feeder, &reading, now, changes);
            })
            .await;
        if let Err(e) = seen {
            tracing::error!(feeder = %feeder, error = %e, "a config was not journaled");
        }
        let config = SeenConfig { reading: reading.clone(), read_ms: began };
        self.view.send_modify(|v| v.config(feeder, config));
        self.changed.notify_one();
        Ok(reading)
    }

    /// Something of the robot changed that no read shows.
    pub(crate) fn touch(&self) {
        self.changed.notify_one();
    }

    /// See [`Driver::submit`].
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn submit(&self, block: &SlotBlock) -> Result<(), DriverError> {
        write(self.driver.submit(&self.id, block)).await
    }

    /// See [`Driver::history`].
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn history(&self) -> Result<Vec<SlotResult>, DriverError> {
        let read = timeout(READ, self.driver.history(&self.id)).await;
        read.unwrap_or_else(|_| Err(DriverError::BadData("no answer in time".into())))
    }

    /// See [`Driver::write_config`].
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn write_config(
        &self,
        feeder: &FeederId,
        base: &ConfigReading,
        new: &FeederConfig,
        fields: &FieldSet,
    ) -> Result<(), DriverError> {
        write(self.driver.write_config(feeder, base, new, fields)).await
    }

    /// Sets or clears the hold bit; a write that timed out is remembered as one that may show later.
    ///
    /// # Errors
    /// See [`Driver::hold`] and [`Driver::resume`].
    pub(crate) async fn set_hold(&self, feeder: &FeederId, held: bool) -> Result<(), DriverError> {
        let written = if held {
            write(self.driver.hold(feeder)).await
        } else {
            write(self.driver.resume(feeder)).await
        };
        if held && written.as_ref().is_err_and(DriverError::may_have_been_applied) {
            let remembered = self
                .ledger
                .update(|state, now, changes| {
                    if let Some(book) = state.feeders.get_mut(feeder) {
                        book.hold_may_be_late(now, changes);
                    }
                })
                .await;
            if let Err(e) = remembered {
                tracing::error!(%feeder, error = %e, "a late hold was not journaled");
            }
        }
        written
    }

    /// See [`Driver::reset_fault`].
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn reset_fault(
        &self,
        feeder: &FeederId,
        code: u32,
    ) -> Result<(), DriverError> {
        write(self.driver.reset_fault(feeder, code)).await
    }
}

async fn write(call: impl Future<Output = Result<(), DriverError>>) -> Result<(), DriverError> {
    let done = timeout(WRITE, call).await;
    done.unwrap_or_else(|_| Err(DriverError::Ambiguous("no answer in time".into())))
}
