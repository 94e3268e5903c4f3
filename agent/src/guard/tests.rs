//! What is missing or bad forbids; what is within its limit does not.

#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::driver::{Profile, TankReading};
use pasamanos_proto::model::{Capabilities, FeedNowCapability, Limits};

fn feeder() -> FeederDescription {
    FeederDescription {
        feeder: "feeder-a1".parse().unwrap(),
        robot: "robot-1".parse().unwrap(),
        tank: "tank-a1".parse().unwrap(),
        outlet: 0,
        display_name: String::new(),
        tank_name: String::new(),
        group: String::new(),
        limits: Limits::default(),
        capabilities: Capabilities::new(FeedNowCapability::Exact, true, []),
        profile: Profile::Block,
        envelope_mg: None,
        calibration: String::new(),
    }
}

fn with(readings: &[(&str, ReadingKind, i64, bool)]) -> RobotSnapshot {
    let readings = readings.iter().map(|(tank, kind, value, good)| TankReading {
        tank: tank.parse().unwrap(),
        kind: *kind,
        value: *value,
        good: *good,
        still_ms: None,
    });
    RobotSnapshot { readings: readings.collect(), ..RobotSnapshot::default() }
}

const OXYGEN: ReadingKind = ReadingKind::DissolvedOxygenUgPerL;

#[test]
fn a_reading_that_is_needed_and_missing_bad_or_of_another_tank_forbids() {
    let locks = Interlocks { min_dissolved_oxygen_ug_per_l: Some(4_000), ..Interlocks::default() };
    for readings in
        [vec![], vec![("tank-a1", OXYGEN, 8_000, false)], vec![("tank-b2", OXYGEN, 8_000, true)]]
    {
        let found = forbidden(&feeder(), &locks, &with(&readings));
        assert_eq!(found.len(), 1, "{readings:?}");
        assert_eq!(found[0].value, None);
    }
    assert!(forbidden(&feeder(), &Interlocks::default(), &with(&[])).is_empty());
}

proptest! {
    #[test]
    fn limits_hold_on_their_side(oxygen in 0i64..20_000, warmth in -5_000i64..60_000) {
        let locks = Interlocks {
            min_dissolved_oxygen_ug_per_l: Some(4_000),
            min_oxygen_saturation_permille: None,
            max_water_temperature_millicelsius: Some(30_000),
        };
        let readings = [
            ("tank-a1", OXYGEN, oxygen, true),
            ("tank-a1", ReadingKind::WaterTemperatureMillicelsius, warmth, true),
        ];
        let found = forbidden(&feeder(), &locks, &with(&readings));
        let by = |field| found.iter().any(|f| f.field == field);
        prop_assert_eq!(by(ConfigField::MinDissolvedOxygen), oxygen < 4_000);
        prop_assert_eq!(by(ConfigField::MaxWaterTemperature), warmth > 30_000);
    }
}
