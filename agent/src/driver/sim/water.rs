//! The water of a simulated tank: warm in the afternoon, poorer in oxygen after a meal. A pure
//! function of seed, time and what was fed.

use std::collections::BTreeMap;

use pasamanos_proto::model::TankId;
use pasamanos_proto::pb::ReadingKind;

use super::Now;
use crate::driver::TankReading;

/// How fast the oxygen that a meal took comes back, ms to 1/e.
const RECOVERY_MS: f64 = 15.0 * 60_000.0;
/// A meal's worth of oxygen, µg/L, for the feeder's own first portion.
const DROP_PER_MEAL: f64 = 400.0;
/// Noise is drawn anew at this distance and smooth between, ms.
const LATTICE_MS: i64 = 120_000;

/// One tank's water.
#[derive(Clone, Debug)]
pub(super) struct Water {
    tank: TankId,
    seed: u64,
    /// Mean temperature, m°C.
    temperature: f64,
    /// Oxygen at rest as a share of saturation.
    share: f64,
    drop_per_mg: f64,
    /// Oxygen that meals took and that has not come back, µg/L, as of `at_ms`.
    debt: f64,
    at_ms: i64,
    /// What a test makes the probe show.
    shown: BTreeMap<i32, (i64, bool)>,
}

impl Water {
    /// Of the tank with this number; `meal_mg` is the portion that takes one meal's worth of oxygen.
    pub fn new(tank: TankId, seed: u64, number: u64, meal_mg: i32) -> Self {
        let seed = mix(seed ^ mix(number + 1));
        Self {
            tank,
            seed,
            temperature: 24_000.0 + 3_000.0 * unit(seed, 1),
            share: 0.94 + 0.03 * unit(seed, 2),
            drop_per_mg: DROP_PER_MEAL / f64::from(meal_mg.max(1)),
            debt: 0.0,
            at_ms: 0,
            shown: BTreeMap::new(),
        }
    }

    /// Counts feed that fell.
    pub fn fed(&mut self, mg: u32, now: Now) {
        self.debt = self.debt_at(now) + f64::from(mg) * self.drop_per_mg;
        self.at_ms = now.plc_ms;
    }

    /// Makes a probe show this, or the truth again.
    pub fn show(&mut self, kind: ReadingKind, shown: Option<(i64, bool)>) {
        match shown {
            Some(shown) => self.shown.insert(kind.into(), shown),
            None => self.shown.remove(&i32::from(kind)),
        };
    }

    /// All probes.
    pub fn readings(&self, now: Now) -> Vec<TankReading> {
        let kinds = [
            ReadingKind::DissolvedOxygenUgPerL,
            ReadingKind::OxygenSaturationPermille,
            ReadingKind::WaterTemperatureMillicelsius,
            ReadingKind::PhMilli,
        ];
        let read = |kind| {
            let (value, good) = self.probe(kind, now);
            TankReading { tank: self.tank.clone(), kind, value, good, still_ms: None }
        };
        kinds.into_iter().map(read).collect()
    }

    /// One probe: its value and whether it is good.
    pub fn probe(&self, kind: ReadingKind, now: Now) -> (i64, bool) {
        if let Some(shown) = self.shown.get(&i32::from(kind)) {
            return *shown;
        }
        let saturated = saturation_ug_per_l(self.temperature_at(now));
        let oxygen =
            (saturated * self.share - self.debt_at(now) + 60.0 * self.noise(3, now)).max(0.0);
        let value = match kind {
            ReadingKind::DissolvedOxygenUgPerL => oxygen,
            ReadingKind::OxygenSaturationPermille => 1_000.0 * oxygen / saturated,
            ReadingKind::WaterTemperatureMillicelsius => self.temperature_at(now),
            ReadingKind::PhMilli => 7_400.0 + 80.0 * self.day_wave(now) + 20.0 * self.noise(5, now),
            ReadingKind::Unspecified => 0.0,
        };
        (whole(value), true)
    }

    fn debt_at(&self, now: Now) -> f64 {
        self.debt * (-ms(now.plc_ms - self.at_ms).max(0.0) / RECOVERY_MS).exp()
    }

    fn temperature_at(&self, now: Now) -> f64 {
        self.temperature + 1_200.0 * self.day_wave(now) + 60.0 * self.noise(4, now)
    }

    /// From -1 early in the morning to 1 in the afternoon.
    #[allow(clippy::unused_self, reason = "reads like its siblings")]
    fn day_wave(&self, now: Now) -> f64 {
        let hour = f64::from(now.second) / 3_600.0;
        ((hour - 9.5) / 24.0 * std::f64::consts::TAU).sin()
    }

    /// From -1 to 1, smooth in time.
    fn noise(&self, channel: u64, now: Now) -> f64 {
        let (cell, rest) = (
            now.plc_ms.div_euclid(LATTICE_MS),
            ms(now.plc_ms.rem_euclid(LATTICE_MS)) / ms(LATTICE_MS),
        );
        let at = |cell: i64| 2.0 * unit(self.seed ^ mix(cell.cast_unsigned()), channel) - 1.0;
        let smooth = rest * rest * (3.0 - 2.0 * rest);
        at(cell) * (1.0 - smooth) + at(cell + 1) * smooth
    }
}

/// Oxygen that fresh water of this temperature holds, µg/L.
fn saturation_ug_per_l(millicelsius: f64) -> f64 {
    let t = millicelsius / 1_000.0;
    1_000.0 * (14.6 - 0.394 * t + 0.007_71 * t * t - 0.000_064_6 * t * t * t)
}

/// A good hash of 64 bits (splitmix64).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// From 0 to 1, by seed and channel.
fn unit(seed: u64, channel: u64) -> f64 {
    let bits = u32::try_from(mix(seed.wrapping_add(channel)) >> 32).unwrap_or(0);
    f64::from(bits) / f64::from(u32::MAX)
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds of some years")]
fn ms(ms: i64) -> f64 {
    ms as f64
}

#[allow(clippy::cast_possible_truncation, reason = "physical values, far within")]
fn whole(x: f64) -> i64 {
    x.round() as i64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn at(s: i64) -> Now {
        Now { plc_ms: s * 1_000, day: 0, second: u32::try_from(s.rem_euclid(86_400)).unwrap() }
    }

    fn water() -> Water {
        Water::new("tank-a1".parse().unwrap(), 42, 0, 1_500)
    }

    #[test]
    fn the_same_seed_shows_the_same_water() {
        assert_eq!(water().readings(at(50_000)), water().readings(at(50_000)));
        let other = Water::new("tank-a1".parse().unwrap(), 43, 0, 1_500);
        assert_ne!(water().readings(at(50_000)), other.readings(at(50_000)));
    }

    #[test]
    fn a_meal_takes_oxygen_and_it_comes_back() {
        let oxygen = |w: &Water, s| w.probe(ReadingKind::DissolvedOxygenUgPerL, at(s)).0;
        let (mut fed, hungry) = (water(), water());
        fed.fed(1_500, at(1_000));
        let gap = |s| oxygen(&hungry, s) - oxygen(&fed, s);
        assert!((390..=400).contains(&gap(1_001)), "{}", gap(1_001));
        assert!((100..200).contains(&gap(1_900)), "{}", gap(1_900));
        assert!(gap(9_000) <= 1);
    }

    #[test]
    fn the_water_is_always_fit_for_fish() {
        for s in (0..10 * 86_400).step_by(601) {
            let (oxygen, good) = water().probe(ReadingKind::DissolvedOxygenUgPerL, at(s));
            assert!(good && (6_000..9_500).contains(&oxygen), "{oxygen} at {s}");
            let (temperature, _) = water().probe(ReadingKind::WaterTemperatureMillicelsius, at(s));
            assert!((22_000..29_000).contains(&temperature), "{temperature} at {s}");
        }
    }
}
