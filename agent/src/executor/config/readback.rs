//! Reads a config back until it shows, and once more after the PLC had time to put it back.

use std::time::Duration;

use pasamanos_faults::planted;
use pasamanos_proto::model::{FeederConfig, FieldSet, ObservedConfig};
use tokio::time::sleep;

use super::super::job::Job;
use crate::driver::ConfigReading;

/// A value that does not show within this does not show.
const SHOW_MS: i64 = 5_000;
/// The PLC's life is looked for this long.
const LIFE_MS: i64 = 5_000;

/// What was read back.
#[derive(Debug)]
pub(super) enum Shown {
    /// The new config, and it stays.
    New(ObservedConfig),
    /// The new config, from a PLC that does not show that it lives.
    NewUnproven(ObservedConfig),
    /// The new config, and then the old one again.
    Reverted(ObservedConfig),
    /// The old config, all along.
    Old(ObservedConfig),
    /// Neither.
    Other(ObservedConfig),
    /// Nothing could be read.
    Unreadable,
}

/// Reads the whole config back. `before` was read just before these fields were written. `late`: the
/// write was not answered, and may show any time.
pub(super) async fn whole(
    job: &Job,
    before: &ConfigReading,
    new: &FeederConfig,
    fields: &FieldSet,
    late: bool,
) -> Shown {
    let old = &before.config;
    let new = ObservedConfig::Valid(new.clone());
    let dwell = job.cell.traits.dwell;
    // Without a wire an answered write shows at once.
    let slow = i64::try_from(dwell.as_millis()).unwrap_or(SHOW_MS).saturating_mul(2);
    let patience = if dwell.is_zero() && !late { 0 } else { SHOW_MS.max(slow) };
    let until = job.now_ms() + patience;
    let mut pause = 20;
    loop {
        // What showed before tells nothing of what the PLC took since: only the last look counts.
        let last = job.cell.read_config(job.feeder()).await.ok().map(|reading| reading.config);
        if last.as_ref() == Some(&new) {
            break;
        }
        // An unreadable PLC is asked a few times even where nothing shows late.
        let until = if last.is_none() { until.max(job.order.start_before_ms) } else { until };
        if job.now_ms() >= until {
            return match last {
                None => Shown::Unreadable,
                Some(config) if config == *old => Shown::Old(config),
                Some(config) => Shown::Other(config),
            };
        }
        sleep(Duration::from_millis(pause)).await;
        pause = (pause * 2).min(250);
    }
    if dwell.is_zero() || planted!("agent-no-second-look") {
        return Shown::New(new);
    }
    again(job, before, new, fields).await
}

/// The second read-back, after the dwell; it counts only from a PLC that lives: its alive tag moved, or
/// it stamped what was written later than what was there before.
async fn again(job: &Job, old: &ConfigReading, new: ObservedConfig, fields: &FieldSet) -> Shown {
    let mut before = alive(job).await;
    sleep(job.cell.traits.dwell).await;
    let until = job.now_ms() + LIFE_MS;
    loop {
        let after = alive(job).await;
        let read = job.cell.read_config(job.feeder()).await.ok();
        let moved = before.is_some() && after.is_some() && after != before;
        let stamped = read.as_ref().is_some_and(|r| r.is_newer(&old.stamps, fields));
        let lives = moved || stamped || !job.cell.traits.life_provable;
        before = before.or(after);
        match read.map(|r| r.config) {
            Some(config) if config == old.config => return Shown::Reverted(config),
            Some(config) if config != new => return Shown::Other(config),
            Some(config) if lives => return Shown::New(config),
            _ if job.now_ms() >= until => return Shown::NewUnproven(new),
            _ => sleep(Duration::from_millis(250)).await,
        }
    }
}

async fn alive(job: &Job) -> Option<u64> {
    let snapshot = job.cell.read_status().await.ok()?;
    snapshot.alive.or(snapshot.plc_time_s.map(u64::from))
}
