//! A feeder's config: what the PLC runs by itself.

mod fields;

use prost_types::Duration;

pub use self::fields::{ConfigField, FieldSet};
use super::{Invalid, Violations};
use crate::pb;

/// Ranges of the contract (they bound every farm; a farm's own limits are narrower).
pub mod ranges {
    use std::ops::RangeInclusive;

    /// A portion or a dose, mg: 10 mg to 5 kg.
    pub const PORTION_MG: RangeInclusive<i32> = 10..=5_000_000;
    /// Start to start of two meals, s: 10 s to 24 h.
    pub const INTERVAL_S: RangeInclusive<i64> = 10..=86_400;
    /// A day's cap, mg: up to 500 kg.
    pub const DAILY_CAP_MG: RangeInclusive<i32> = 10..=500_000_000;
    /// Windows in a day.
    pub const WINDOWS: usize = 6;
    /// Dissolved oxygen, µg/L.
    pub const DISSOLVED_OXYGEN_UG_PER_L: RangeInclusive<i32> = 0..=50_000;
    /// Oxygen saturation, ‰.
    pub const OXYGEN_SATURATION_PERMILLE: RangeInclusive<i32> = 0..=3_000;
    /// Water temperature, m°C.
    pub const WATER_TEMPERATURE_MILLICELSIUS: RangeInclusive<i32> = -5_000..=60_000;
}

/// What a feeder does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Feeds by its interval and windows.
    Automatic,
    /// Feeds on command only.
    Manual,
    /// Does not feed.
    Off,
}

/// A daily window [start, end) in the farm's zone, minutes of the day, start ≠ end; an end before
/// the start is on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedWindow {
    /// 0-1439.
    pub start_minute: u16,
    /// 0-1439.
    pub end_minute: u16,
}

impl FeedWindow {
    /// Its length in minutes, 1-1439.
    #[must_use]
    pub fn minutes(self) -> u16 {
        (self.end_minute + 1440 - self.start_minute) % 1440
    }

    /// Whether the minute of the day is in it.
    #[must_use]
    pub fn contains(self, minute: u16) -> bool {
        (minute + 1440 - self.start_minute) % 1440 < self.minutes()
    }

    fn overlaps(self, other: Self) -> bool {
        self.contains(other.start_minute) || other.contains(self.start_minute)
    }
}

/// Readings that forbid feeding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interlocks {
    /// Least dissolved oxygen, µg/L.
    pub min_dissolved_oxygen_ug_per_l: Option<i32>,
    /// Least oxygen saturation, ‰.
    pub min_oxygen_saturation_permille: Option<i32>,
    /// Most water temperature, m°C.
    pub max_water_temperature_millicelsius: Option<i32>,
}

/// A config within the contract's ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeederConfig {
    /// What it does by itself.
    pub mode: Mode,
    /// One meal, mg; absent where the farm does not map it.
    pub portion_mg: Option<i32>,
    /// Start to start, s; absent where the farm does not map it.
    pub interval_s: Option<u32>,
    /// At most 6, not overlapping; none means all day.
    pub windows: Vec<FeedWindow>,
    /// Most feed in a day, mg; absent means none.
    pub daily_cap_mg: Option<i32>,
    /// Readings that forbid feeding.
    pub interlocks: Interlocks,
}

impl FeederConfig {
    /// This config with the fields in the set taken from `from`.
    #[must_use]
    pub fn merged(&self, from: &Self, fields: &FieldSet) -> Self {
        let mut out = self.clone();
        for field in fields.iter() {
            out.copy_field(from, field);
        }
        out
    }

    /// Takes one field from another config.
    pub fn copy_field(&mut self, from: &Self, field: ConfigField) {
        let (to, from_locks) = (&mut self.interlocks, &from.interlocks);
        match field {
            ConfigField::Mode => self.mode = from.mode,
            ConfigField::Portion => self.portion_mg = from.portion_mg,
            ConfigField::Interval => self.interval_s = from.interval_s,
            ConfigField::Windows => self.windows.clone_from(&from.windows),
            ConfigField::DailyCap => self.daily_cap_mg = from.daily_cap_mg,
            ConfigField::MinDissolvedOxygen => {
                to.min_dissolved_oxygen_ug_per_l = from_locks.min_dissolved_oxygen_ug_per_l;
            }
            ConfigField::MinOxygenSaturation => {
                to.min_oxygen_saturation_permille = from_locks.min_oxygen_saturation_permille;
            }
            ConfigField::MaxWaterTemperature => {
                to.max_water_temperature_millicelsius =
                    from_locks.max_water_temperature_millicelsius;
            }
        }
    }

    /// The fields in which two configs differ.
    #[must_use]
    pub fn diff(&self, other: &Self) -> FieldSet {
        let differs = |f: &ConfigField| {
            let mut copy = self.clone();
            copy.copy_field(other, *f);
            copy != *self
        };
        ConfigField::ALL.into_iter().filter(differs).collect()
    }

    /// Whether the minute of the day is one that the schedule may feed in.
    #[must_use]
    pub fn feeds_at(&self, minute: u16) -> bool {
        self.windows.is_empty() || self.windows.iter().any(|w| w.contains(minute))
    }

    /// Meals that the schedule starts in a day: per window, its length divided by the interval,
    /// rounded up. `None` if the interval is not known.
    #[must_use]
    pub fn meals_per_day(&self) -> Option<u32> {
        let interval = self.interval_s?;
        let meals = |minutes: u32| (minutes * 60).div_ceil(interval.max(1));
        Some(if self.windows.is_empty() {
            meals(1440)
        } else {
            self.windows.iter().map(|w| meals(w.minutes().into())).sum()
        })
    }
}

fn in_range<T: PartialOrd + std::fmt::Display>(
    v: &mut Violations,
    field: &str,
    range: &std::ops::RangeInclusive<T>,
    value: T,
) -> Option<T> {
    if range.contains(&value) {
        return Some(value);
    }
    let (lo, hi) = (range.start(), range.end());
    v.push(field, format!("must be {lo} to {hi}, is {value}"));
    None
}

fn window(v: &mut Violations, i: usize, w: pb::FeedWindow) -> Option<FeedWindow> {
    let mut minute = |name: &str, value: i32| {
        let ok = in_range(v, &format!("windows[{i}].{name}"), &(0..=1439), value)?;
        u16::try_from(ok).ok()
    };
    let start = minute("start_minute", w.start_minute);
    let end = minute("end_minute", w.end_minute);
    let (start_minute, end_minute) = (start?, end?);
    if start_minute == end_minute {
        v.push(
            format!("windows[{i}]"),
            "must not end where it starts; send no windows to feed all day",
        );
        return None;
    }
    Some(FeedWindow { start_minute, end_minute })
}

impl TryFrom<pb::FeederConfig> for FeederConfig {
    type Error = Invalid;

    fn try_from(m: pb::FeederConfig) -> Result<Self, Invalid> {
        let mut v = Violations::default();
        let mode = match m.mode() {
            pb::FeederMode::Automatic => Some(Mode::Automatic),
            pb::FeederMode::Manual => Some(Mode::Manual),
            pb::FeederMode::Off => Some(Mode::Off),
            pb::FeederMode::Unspecified => {
                v.push("mode", "must be AUTOMATIC, MANUAL or OFF");
                None
            }
        };
        let portion_mg =
            m.portion_mg.and_then(|mg| in_range(&mut v, "portion_mg", &ranges::PORTION_MG, mg));
        let interval_s = m.interval.and_then(|d| interval(&mut v, &d));
        let daily_cap_mg = m
            .daily_cap_mg
            .and_then(|mg| in_range(&mut v, "daily_cap_mg", &ranges::DAILY_CAP_MG, mg));
        let windows = windows(&mut v, m.windows);
        let locks = m.interlocks.unwrap_or_default();
        let mut lock = |name: &str, range, value: Option<i32>| {
            value.and_then(|x| in_range(&mut v, &format!("interlocks.{name}"), range, x))
        };
        let interlocks = Interlocks {
            min_dissolved_oxygen_ug_per_l: lock(
                "min_dissolved_oxygen_ug_per_l",
                &ranges::DISSOLVED_OXYGEN_UG_PER_L,
                locks.min_dissolved_oxygen_ug_per_l,
            ),
            min_oxygen_saturation_permille: lock(
                "min_oxygen_saturation_permille",
                &ranges::OXYGEN_SATURATION_PERMILLE,
                locks.min_oxygen_saturation_permille,
            ),
            max_water_temperature_millicelsius: lock(
                "max_water_temperature_millicelsius",
                &ranges::WATER_TEMPERATURE_MILLICELSIUS,
                locks.max_water_temperature_millicelsius,
            ),
        };
        let config = mode.map(|mode| Self {
            mode,
            portion_mg,
            interval_s,
            windows,
            daily_cap_mg,
            interlocks,
        });
        v.finish(config)
    }
}

fn interval(v: &mut Violations, d: &Duration) -> Option<u32> {
    if d.nanos != 0 {
        v.push("interval", "must be whole seconds");
        return None;
    }
    let s = in_range(v, "interval", &ranges::INTERVAL_S, d.seconds)?;
    u32::try_from(s).ok()
}

fn windows(v: &mut Violations, raw: Vec<pb::FeedWindow>) -> Vec<FeedWindow> {
    if raw.len() > ranges::WINDOWS {
        v.push("windows", format!("must be at most {}, are {}", ranges::WINDOWS, raw.len()));
        return Vec::new();
    }
    let parsed: Vec<_> = raw.into_iter().enumerate().filter_map(|(i, w)| window(v, i, w)).collect();
    for (i, a) in parsed.iter().enumerate() {
        if let Some(j) = parsed.iter().skip(i + 1).position(|b| a.overlaps(*b)) {
            v.push(format!("windows[{}]", i + 1 + j), format!("overlaps windows[{i}]"));
        }
    }
    parsed
}

impl From<&FeederConfig> for pb::FeederConfig {
    fn from(c: &FeederConfig) -> Self {
        let mode = match c.mode {
            Mode::Automatic => pb::FeederMode::Automatic,
            Mode::Manual => pb::FeederMode::Manual,
            Mode::Off => pb::FeederMode::Off,
        };
        let windows = c.windows.iter().map(|w| pb::FeedWindow {
            start_minute: w.start_minute.into(),
            end_minute: w.end_minute.into(),
        });
        let locks = pb::Interlocks {
            min_dissolved_oxygen_ug_per_l: c.interlocks.min_dissolved_oxygen_ug_per_l,
            min_oxygen_saturation_permille: c.interlocks.min_oxygen_saturation_permille,
            max_water_temperature_millicelsius: c.interlocks.max_water_temperature_millicelsius,
        };
        Self {
            mode: mode.into(),
            portion_mg: c.portion_mg,
            interval: c.interval_s.map(|s| Duration { seconds: s.into(), nanos: 0 }),
            windows: windows.collect(),
            daily_cap_mg: c.daily_cap_mg,
            // One encoding per config: an empty group is left out.
            interlocks: (c.interlocks != Interlocks::default()).then_some(locks),
        }
    }
}

impl From<FeederConfig> for pb::FeederConfig {
    fn from(c: FeederConfig) -> Self {
        (&c).into()
    }
}

/// What a PLC was read to run: within the rules, or raw. A raw one is shown and alarmed; it can be
/// replaced, never written back.
#[derive(Clone, Debug, PartialEq)]
pub enum ObservedConfig {
    /// Within the contract's ranges.
    Valid(FeederConfig),
    /// Set at the farm to what the rules would refuse.
    Raw(pb::FeederConfig),
}

impl ObservedConfig {
    /// The config if it is within the rules.
    #[must_use]
    pub fn valid(&self) -> Option<&FeederConfig> {
        match self {
            Self::Valid(c) => Some(c),
            Self::Raw(_) => None,
        }
    }
}

impl From<pb::FeederConfig> for ObservedConfig {
    fn from(mut m: pb::FeederConfig) -> Self {
        // A farm cannot make us store an endless list.
        m.windows.truncate(ranges::WINDOWS + 1);
        match FeederConfig::try_from(m.clone()) {
            Ok(c) => Self::Valid(c),
            Err(_) => Self::Raw(m),
        }
    }
}

impl From<ObservedConfig> for pb::FeederConfig {
    fn from(c: ObservedConfig) -> Self {
        match c {
            ObservedConfig::Valid(c) => c.into(),
            ObservedConfig::Raw(m) => m,
        }
    }
}
