//! A whole simulated farm from a seed and a number of tanks.

use pasamanos_proto::model::{FeedWindow, FeederConfig, Interlocks, Limits, Mode};

use super::{ConfigOwner, Feeder, Initial, Robot};
use crate::driver::Profile;

/// Portions of a simulated feeder are multiples of this, mg.
const STEP_MG: i32 = 50;

/// Robots and feeders in the order of their names. The first feeder has a robot, a hopper and a long
/// interval of its own and no windows: it is ready for a small dose at any instant.
pub(super) fn farm(seed: u64, tanks: u16, tanks_per_robot: u8) -> Vec<Robot> {
    let per_robot = u16::from(tanks_per_robot.max(1));
    let groups = tanks.div_ceil(4).clamp(1, 26);
    let per_group = tanks.div_ceil(groups).max(1);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut robots: Vec<Robot> = Vec::new();
    for i in 0..tanks {
        // The first feeder's robot serves no other.
        let robot = if i == 0 { 0 } else { (i - 1) / per_robot + 1 };
        let (group, in_group) = (i / per_group, i % per_group + 1);
        let Some(feeder) = feeder(&mut random, group, in_group, i == 0) else { continue };
        match robots.get_mut(usize::from(robot)) {
            Some(robot) => {
                let outlet = u8::try_from(robot.feeders.len()).unwrap_or(u8::MAX);
                robot.feeders.push(Feeder { outlet, ..feeder });
            }
            None => robots.extend(new_robot(robot + 1, feeder)),
        }
    }
    robots
}

fn new_robot(number: u16, feeder: Feeder) -> Option<Robot> {
    Some(Robot {
        id: format!("robot-{number}").parse().ok()?,
        node: String::new(),
        config_owner: ConfigOwner::Plc,
        feed_name: "Starter 1.2 mm".into(),
        dwell: std::time::Duration::ZERO,
        source_time: super::SourceTime::default(),
        hold_restarts_interval: false,
        faults: std::collections::BTreeMap::new(),
        tags: super::Tags::new(),
        feeders: vec![feeder],
    })
}

fn feeder(random: &mut fastrand::Rng, group: u16, n: u16, first: bool) -> Option<Feeder> {
    let letter = char::from(b'a' + u8::try_from(group).ok()?);
    let upper = letter.to_ascii_uppercase();
    let portion_mg = if first { 1_500 } else { STEP_MG * random.i32(10..=80) };
    let interval_s = if first { 3_600 } else { 60 * random.u32(3..=15) };
    let rate = if first { 500 } else { 50 * random.i32(5..=20) };
    let windows = if first || random.bool() {
        Vec::new()
    } else {
        vec![FeedWindow { start_minute: 5 * 60, end_minute: 21 * 60 + 30 }]
    };
    let mut config = FeederConfig {
        mode: Mode::Automatic,
        portion_mg: Some(portion_mg),
        interval_s: Some(interval_s),
        windows,
        daily_cap_mg: None,
        interlocks: Interlocks {
            min_dissolved_oxygen_ug_per_l: Some(4_000),
            min_oxygen_saturation_permille: None,
            max_water_temperature_millicelsius: Some(32_000),
        },
    };
    // Room for twice what the schedule gives, and for the first feeder for many doses by hand.
    let scheduled = config.meals_per_day()? * u32::try_from(portion_mg).ok()?;
    let cap = (2 * scheduled).next_multiple_of(10_000).max(if first { 400_000 } else { 0 });
    config.daily_cap_mg = i32::try_from(cap).ok();
    let first_meal_in_s =
        if first { interval_s - 600 } else { random.u32(interval_s / 10..interval_s) };
    Some(Feeder {
        id: format!("feeder-{letter}{n}").parse().ok()?,
        tank: format!("tank-{letter}{n}").parse().ok()?,
        tank_name: format!("Tank {upper}{n}"),
        group: format!("Nursery {upper}"),
        display_name: format!("Feeder {upper}{n}"),
        outlet: 0,
        node: String::new(),
        profile: Profile::Block,
        limits: Limits {
            portion_min_mg: Some(STEP_MG),
            portion_max_mg: None,
            portion_step_mg: Some(STEP_MG),
            interval_min_s: Some(30),
            interval_max_s: Some(86_400),
            daily_cap_max_mg: config.daily_cap_mg.map(|cap| cap.saturating_mul(4)),
            windows_max: Some(6),
            dispense_rate_mg_per_s: Some(rate),
        },
        envelope_mg: config.daily_cap_mg.map(|cap| i64::from(cap) * 2),
        tags: super::Tags::new(),
        initial: Some(Initial {
            config,
            hopper_mg: 5_000_000 + 100_000 * random.i64(0..50),
            first_meal_in_s,
        }),
    })
}
