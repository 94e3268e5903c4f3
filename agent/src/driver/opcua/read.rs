//! Which tags a snapshot reads, and what came back for each: one read for all of a robot's tags.

use std::collections::HashMap;

use opcua::types::DataValue;
use pasamanos_proto::pb::ReadingKind;

use super::live::Live;
use super::probes::Probes;
use super::value;
use crate::clock;
use crate::config::tags::Address;
use crate::config::{Feeder, Tag, TagName, Tags};
use crate::driver::{DriverError, TankReading};

/// The readings of a tank, and what is plausible for each.
const READINGS: [(TagName, ReadingKind, std::ops::RangeInclusive<i64>); 4] = [
    (TagName::DissolvedOxygen, ReadingKind::DissolvedOxygenUgPerL, 0..=50_000),
    (TagName::OxygenSaturation, ReadingKind::OxygenSaturationPermille, 0..=3_000),
    (TagName::WaterTemperature, ReadingKind::WaterTemperatureMillicelsius, -5_000..=60_000),
    (TagName::Ph, ReadingKind::PhMilli, 0..=14_000),
];

/// The tags to read.
#[derive(Default)]
pub(super) struct Plan<'a> {
    addresses: Vec<&'a Address>,
}

impl<'a> Plan<'a> {
    /// Adds those of these that are mapped.
    pub fn add(&mut self, tags: &'a Tags, names: &[TagName]) {
        self.addresses.extend(names.iter().filter_map(|name| Some(&tags.get(name)?.address)));
    }

    /// Adds the readings of the feeder's tank.
    pub fn add_readings(&mut self, feeder: &'a Feeder) {
        self.add(&feeder.tags, &READINGS.each_ref().map(|r| r.0));
    }

    /// Reads them all now; `probes` knows since when each stands still.
    pub async fn read(self, live: &Live, probes: &'a Probes) -> Result<Values<'a>, DriverError> {
        let values = live.read(&self.addresses).await?;
        let shown = self.addresses.into_iter().zip(values).collect();
        Ok(Values { shown, probes, read_ms: clock::monotonic_ms() })
    }
}

/// What came back.
pub(super) struct Values<'a> {
    shown: HashMap<&'a Address, DataValue>,
    probes: &'a Probes,
    read_ms: i64,
}

impl Values<'_> {
    /// The tag and its value, if it is mapped and was read.
    pub fn of<'t>(&self, tags: &'t Tags, name: TagName) -> Option<(&'t Tag, &DataValue)> {
        let tag = tags.get(&name)?;
        Some((tag, self.shown.get(&tag.address)?))
    }

    /// The value of a tag that must be there.
    pub fn need(&self, tags: &Tags, name: TagName) -> Result<&DataValue, DriverError> {
        let missing = || DriverError::Config(format!("{} is not mapped", name.as_str()));
        self.of(tags, name).map(|(_, value)| value).ok_or_else(missing)
    }

    /// A flag; `None` if it is not mapped.
    pub fn flag(&self, tags: &Tags, name: TagName) -> Result<Option<bool>, DriverError> {
        self.of(tags, name).map(|(tag, value)| value::flag(tag, value)).transpose()
    }

    /// A counter; `None` if it is not mapped.
    pub fn count(&self, tags: &Tags, name: TagName) -> Result<Option<u32>, DriverError> {
        self.of(tags, name).map(|(tag, value)| value::count(tag, value)).transpose()
    }

    /// A value in the unit that we keep; `None` if it is not mapped.
    pub fn scaled(&self, tags: &Tags, name: TagName) -> Result<Option<i64>, DriverError> {
        self.of(tags, name).map(|(tag, value)| value::scaled(tag, value)).transpose()
    }

    /// A time in whole seconds, if it is mapped and good.
    pub fn seconds(&self, tags: &Tags, name: TagName) -> Option<u32> {
        let (tag, value) = self.of(tags, name)?;
        u32::try_from(value::scaled(tag, value).ok()?.div_euclid(1_000)).ok()
    }

    /// The readings of the feeder's tank: one that is bad or not plausible is shown as bad.
    pub fn readings(&self, feeder: &Feeder) -> Vec<TankReading> {
        let read =
            |(name, kind, plausible): &(TagName, ReadingKind, std::ops::RangeInclusive<i64>)| {
                let (tag, shown) = self.of(&feeder.tags, *name)?;
                let value = value::scaled(tag, shown).ok();
                let good = value.is_some_and(|v| plausible.contains(&v));
                let (tank, value) = (feeder.tank.clone(), value.unwrap_or(0));
                let still_ms = self.probes.still_ms(tag, shown, self.read_ms);
                Some(TankReading { tank, kind: *kind, value, good, still_ms })
            };
        READINGS.iter().filter_map(read).collect()
    }
}
