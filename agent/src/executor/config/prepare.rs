//! Whether a config may be written now, and which fields of it.

use std::time::Duration;

use pasamanos_proto::model::{FeederConfig, FieldAccess, FieldSet, ObservedConfig, Reason};
use tokio::time::sleep;

use super::super::job::{Job, NotBegun};
use super::super::ready::{broken_limit, limits_of};
use super::super::verdict::Verdict;
use crate::driver::{ConfigReading, DriverError, Profile};

/// How often a feeder that is busy, or a PLC that does not answer, is looked at again.
const LOOK: Duration = Duration::from_millis(200);

/// What will be written.
pub(super) struct Plan {
    /// What the PLC runs, read just before.
    pub reading: ConfigReading,
    /// The fields that differ.
    pub changed: FieldSet,
    /// Several tags are written one by one: the feeder is held meanwhile.
    pub hold: bool,
    /// How it reaches the PLC.
    pub profile: Profile,
}

impl Plan {
    /// (PLC epoch, revision) that a block is based on.
    pub(super) fn base_revision(&self) -> Option<(u32, u32)> {
        let revision = self.reading.revision?;
        Some((self.reading.plc_epoch.unwrap_or(0), revision))
    }
}

fn refuse<T>(verdict: Verdict) -> Result<T, NotBegun> {
    Err(NotBegun::Refused(Box::new(verdict)))
}

/// Reads the PLC and decides.
pub(super) async fn plan(
    job: &Job,
    base: &ObservedConfig,
    new: &FeederConfig,
    fields: &FieldSet,
) -> Result<Plan, NotBegun> {
    let feeder = job.feeder();
    let Some(description) = job.cell.feeder(feeder) else { return Err(NotBegun::Dropped) };
    if job.cell.traits.read_only {
        return refuse(Verdict::rejected(Reason::ReadOnly).with("feeder", feeder));
    }
    local_rules(job, new, fields).await?;
    let reading = read(job).await?;
    if reading.config != *base {
        return refuse(
            Verdict::rejected(Reason::ChangedAtFarm)
                .with("feeder", feeder)
                .with("command", &job.order.command)
                .config(reading.config),
        );
    }
    // A raw config has no fields to compare: all of the new one is written.
    let changed = reading.config.valid().map_or_else(FieldSet::all, |now| now.diff(new));
    let read_only = |f: &_| description.capabilities.field(*f).access != FieldAccess::Writable;
    let changed: FieldSet = if reading.config.valid().is_some() {
        changed
    } else {
        changed.iter().filter(|f| !read_only(f)).collect()
    };
    if let Some(field) = changed.iter().find(read_only) {
        return refuse(
            Verdict::rejected(Reason::ReadOnly).with("feeder", feeder).with("field", field.path()),
        );
    }
    let hold = description.profile == Profile::Scalar && changed.len() > 1;
    if hold && !description.capabilities.hold {
        return refuse(
            Verdict::rejected(Reason::NotOffered)
                .with("feeder", feeder)
                .with("capability", "hold")
                .detail("a PLC without a hold takes one changed value at a time"),
        );
    }
    if hold {
        wait_while_dosing(job).await?;
    }
    Ok(Plan { reading, changed, hold, profile: description.profile })
}

/// What the farm forbids whatever the server says, and what is not settled.
async fn local_rules(job: &Job, new: &FeederConfig, fields: &FieldSet) -> Result<(), NotBegun> {
    use pasamanos_proto::model::ConfigField;
    let state = job.cell.ledger.look().await;
    let Some(book) = state.feeders.get(job.feeder()) else { return Err(NotBegun::Dropped) };
    if let Some(loose) = book.loose.iter().find(|l| !l.resolved) {
        return refuse(
            Verdict::rejected(Reason::ConfigInFlight)
                .with("feeder", job.feeder())
                .with("command", &loose.order.command),
        );
    }
    let limits = limits_of(book);
    let portion = new.portion_mg.filter(|_| fields.contains(ConfigField::Portion));
    if let Some(broken) = portion.and_then(|mg| broken_limit(&limits, mg)) {
        return refuse(Verdict::rejected(Reason::InvalidField).detail(broken));
    }
    Ok(())
}

/// Reads the config, to the start limit.
async fn read(job: &Job) -> Result<ConfigReading, NotBegun> {
    let mut unread = None;
    loop {
        if let Some(verdict) = job.too_late() {
            return refuse(unread.unwrap_or(verdict));
        }
        let unreachable = Verdict::rejected(Reason::PlcUnreachable).with("robot", &job.cell.id);
        match job.cell.read_config(job.feeder()).await {
            Ok(reading) => return Ok(reading),
            Err(DriverError::NotConnected) => return refuse(unreachable),
            Err(e) => unread = Some(unreachable.detail(e.to_string())),
        }
        sleep(LOOK).await;
    }
}

/// The tags of a dosing feeder are not changed one by one under its motor.
async fn wait_while_dosing(job: &Job) -> Result<(), NotBegun> {
    loop {
        if job.overtaken() || job.expired() {
            let busy = Verdict::rejected(Reason::BusyDosing).with("feeder", job.feeder());
            return refuse(if job.overtaken() { job.too_late().unwrap_or(busy) } else { busy });
        }
        if let Ok(snapshot) = job.cell.read_status().await
            && !snapshot.feeders.iter().any(|f| f.feeder == *job.feeder() && f.dosing)
        {
            return Ok(());
        }
        sleep(LOOK).await;
    }
}
