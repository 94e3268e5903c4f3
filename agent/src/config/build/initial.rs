//! `[feeder.initial]`: what a simulated feeder starts with.

use pasamanos_proto::{model, pb};

use super::super::error::At;
use super::super::file::{InitialTable, Sp};
use super::super::{Initial, quantity};
use super::take;

pub(super) fn default_initial() -> Initial {
    let config = model::FeederConfig {
        mode: model::Mode::Automatic,
        portion_mg: Some(1_000),
        interval_s: Some(600),
        windows: Vec::new(),
        daily_cap_mg: Some(500_000),
        interlocks: model::Interlocks::default(),
    };
    Initial { config, hopper_mg: 5_000_000, first_meal_in_s: 300 }
}

pub(super) fn initial(given: &Sp<InitialTable>) -> Result<Initial, At> {
    let (t, base) = (given.get_ref(), default_initial());
    let fixed = |v: &Option<Sp<i32>>| v.as_ref().map(|v| *v.get_ref());
    let seconds = |key: &str, v: Option<&Sp<String>>| {
        let read = take(key, v, quantity::duration)?;
        Ok::<_, At>(read.map(|d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX)))
    };
    let mode = take("feeder.initial.mode", t.mode.as_ref(), |mode| match mode {
        "automatic" => Ok(pb::FeederMode::Automatic),
        "manual" => Ok(pb::FeederMode::Manual),
        "off" => Ok(pb::FeederMode::Off),
        _ => Err(format!("must be automatic, manual or off, is {mode:?}")),
    })?;
    let mut raw = pb::FeederConfig::from(&base.config);
    if let Some(mode) = mode {
        raw.set_mode(mode);
    }
    raw.portion_mg = fixed(&t.portion_mg).or(raw.portion_mg);
    raw.daily_cap_mg = fixed(&t.daily_cap_mg).or(raw.daily_cap_mg);
    if let Some(s) = seconds("feeder.initial.interval", t.interval.as_ref())? {
        raw.interval = Some(prost_types::Duration { seconds: s.into(), nanos: 0 });
    }
    for text in &t.windows {
        let read = take("feeder.initial.windows", Some(text), window)?;
        raw.windows.extend(read);
    }
    raw.interlocks = Some(pb::Interlocks {
        min_dissolved_oxygen_ug_per_l: fixed(&t.min_dissolved_oxygen_ug_per_l),
        min_oxygen_saturation_permille: None,
        max_water_temperature_millicelsius: fixed(&t.max_water_temperature_millicelsius),
    });
    let config = model::FeederConfig::try_from(raw)
        .map_err(|e| At::new(&given.span(), "feeder.initial", e.to_string()))?;
    let first = seconds("feeder.initial.first_meal_in", t.first_meal_in.as_ref())?;
    Ok(Initial {
        first_meal_in_s: first.unwrap_or_else(|| config.interval_s.unwrap_or(600) / 2),
        hopper_mg: t.hopper_mg.as_ref().map_or(base.hopper_mg, |mg| *mg.get_ref()),
        config,
    })
}

/// Reads `06:00-20:30`.
fn window(text: &str) -> Result<pb::FeedWindow, String> {
    let bad = || format!("must be such as \"06:00-20:30\", is {text:?}");
    let minute = |s: &str| {
        let (hour, minute) = s.trim().split_once(':')?;
        let (hour, minute): (i32, i32) = (hour.parse().ok()?, minute.parse().ok()?);
        ((0..24).contains(&hour) && (0..60).contains(&minute)).then_some(hour * 60 + minute)
    };
    let (start, end) = text.split_once('-').ok_or_else(bad)?;
    let (start_minute, end_minute) = (minute(start).ok_or_else(bad)?, minute(end).ok_or_else(bad)?);
    Ok(pb::FeedWindow { start_minute, end_minute })
}
