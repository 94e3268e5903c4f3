//! A dose by plain tags: at most once. The order within one write is undefined and gateways coalesce
//! writes, so start goes alone, after amount and sequence were read back from the device.

use std::time::Duration;

use super::driver::{needed, writable};
use super::live::Live;
use super::value;
use crate::config::tags::Address;
use crate::config::{Robot, Tag, TagName};
use crate::driver::{DriverError, SlotBlock};

/// How often the group is read back before its start is given up.
const READ_BACKS: u32 = 10;

/// What was done with a dose group of scalars.
#[derive(Default)]
pub(super) struct DoseGroup {
    /// The sequence whose start was written, or tried to: never again.
    started: Option<u32>,
    /// A write to the group had no reply: it may still arrive, so equality must last for a dwell.
    doubtful: bool,
}

impl DoseGroup {
    /// Writes amount and sequence, reads them back until equal, and only then writes start, alone.
    pub async fn start(
        &mut self,
        live: &Live,
        robot: &Robot,
        block: &SlotBlock,
    ) -> Result<(), DriverError> {
        if self.started == Some(block.sequence) {
            return Ok(());
        }
        let tags = &robot.tags;
        let amount = writable(tags, TagName::DoseAmount)?;
        let sequence = writable(tags, TagName::DoseSequence)?;
        let start = writable(tags, TagName::DoseStart)?;
        let echo = needed(tags, TagName::DoseEcho)?;
        let seen = live.read(&[&echo.address]).await?;
        if seen.first().map(|v| value::count(echo, v)).transpose()? == Some(block.sequence) {
            return Ok(());
        }
        let wanted = [(amount, f64::from(block.amount_mg)), (sequence, f64::from(block.sequence))];
        let mut writes = Vec::new();
        for (tag, kept) in wanted {
            writes.push((&tag.address, value::variant(tag, kept)?));
        }
        match live.write(writes).await {
            Ok(()) => {}
            Err(DriverError::Ambiguous(_)) => self.doubtful = true,
            Err(e) => return Err(e),
        }
        let mut ready = equal(live, &wanted).await?;
        if ready && self.doubtful {
            tokio::time::sleep(robot.dwell.max(Duration::from_millis(100))).await;
            ready = equal(live, &wanted).await?;
        }
        if !ready {
            return Err(DriverError::Refused(
                "amount and sequence did not read back before start".into(),
            ));
        }
        // The reads above may have taken long, or this process was frozen in them.
        if crate::clock::monotonic_ms() > block.start_before_ms {
            return Err(DriverError::Refused("not started: its start limit passed".into()));
        }
        // From here on this sequence is used up, whatever comes back.
        self.started = Some(block.sequence);
        self.doubtful = false;
        let on = value::variant(start, 1.0)?;
        live.write(vec![(&start.address, on)]).await
    }
}

/// Whether the device shows these values, in at most a second or so.
async fn equal(live: &Live, wanted: &[(&Tag, f64)]) -> Result<bool, DriverError> {
    let addresses: Vec<&Address> = wanted.iter().map(|(tag, _)| &tag.address).collect();
    for _ in 0..READ_BACKS {
        let values = live.read(&addresses).await.map_err(|e| {
            DriverError::Refused(format!(
                "not started: amount and sequence cannot be read back: {e}"
            ))
        })?;
        let same = wanted.iter().zip(&values).all(|((tag, kept), value)| {
            let half = (tag.step() / 2.0).max(0.5);
            value::number(tag, value).is_ok_and(|raw| (tag.scaled(raw) - kept).abs() < half)
        });
        if same {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(false)
}
