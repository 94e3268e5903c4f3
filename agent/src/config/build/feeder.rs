//! `[[robot]]` and `[[feeder]]`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use pasamanos_proto::model::{Limits, ranges};

use super::super::error::At;
use super::super::expand::Expanded;
use super::super::file::{RobotTable, Sp};
use super::super::tags::{Scope, TagType};
use super::super::{ConfigOwner, Feeder, Robot, Tag, TagName, Tags, quantity};
use super::initial::{default_initial, initial};
use super::tag::{Place, tags};
use super::{id, take};
use crate::driver::Profile;

const DEFAULT_DWELL: Duration = Duration::from_millis(300);

pub(super) fn robot(
    span: &Range<usize>,
    t: RobotTable,
    namespace: &str,
    is_sim: bool,
) -> Result<Robot, At> {
    let robot_id = id("robot.id", &t.id)?;
    let node = t.node.map_or_else(String::new, Sp::into_inner);
    // At least two scans of the PLC must lie between two read-backs.
    let dwell = match (take("robot.dwell", t.dwell.as_ref(), quantity::duration)?, &t.scan_ms) {
        _ if is_sim => Duration::ZERO,
        (Some(dwell), _) => dwell,
        (None, Some(scan)) => {
            DEFAULT_DWELL.max(Duration::from_millis(2 * u64::from(*scan.get_ref())))
        }
        (None, None) => DEFAULT_DWELL,
    };
    if !is_sim && dwell.is_zero() {
        let at = t.dwell.as_ref().map_or(span.clone(), Sp::span);
        return Err(At::new(&at, "robot.dwell", "must be at least two scans of the PLC"));
    }
    let mut faults = BTreeMap::new();
    for (code, text) in t.faults {
        let Some(code) = code.parse::<u32>().ok().filter(|c| *c != 0) else {
            let message = format!("must be a fault's code above 0, is {code:?}");
            return Err(At::new(&text.span(), "robot.faults", message));
        };
        faults.insert(code, text.into_inner());
    }
    let place = Place { scope: Scope::Robot, namespace, node: &node, is_sim };
    let tags = tags(&place, t.tags)?;
    Ok(Robot {
        id: robot_id,
        node,
        config_owner: t.config_owner.unwrap_or(ConfigOwner::Plc),
        feed_name: t.feed_name.unwrap_or_default(),
        dwell,
        source_time: t.source_time,
        hold_restarts_interval: t.hold_restarts_interval,
        faults,
        tags,
        feeders: Vec::new(),
    })
}

pub(super) fn feeder(
    e: &Expanded,
    robot: &Robot,
    namespace: &str,
    is_sim: bool,
) -> Result<Feeder, At> {
    let t = &e.table;
    let need = |key: &str, value: &Option<Sp<String>>| {
        value.clone().ok_or_else(|| At::new(&e.span, format!("feeder.{key}"), "is required"))
    };
    let (feeder_id, tank) = (need("id", &t.id)?, need("tank", &t.tank)?);
    let name = |value: &Option<Sp<String>>, other: &str| {
        value.as_ref().map_or_else(|| other.to_owned(), |v| v.get_ref().clone())
    };
    let node = name(&t.node, &robot.node).replace("{node}", &robot.node);
    let profile = match (is_sim, t.profile) {
        (true, _) => Profile::Block,
        (false, Some(profile)) => profile,
        (false, None) => {
            return Err(At::new(&e.span, "feeder.profile", "is required: \"block\" or \"scalar\""));
        }
    };
    let place = Place { scope: Scope::Feeder, namespace, node: &node, is_sim };
    let mut tags = tags(&place, t.tags.clone())?;
    if let Some(wrong) = tags.keys().find(|name| name.profile().is_some_and(|p| p != profile)) {
        let at = t.tags.get(wrong.as_str()).map_or(e.span.clone(), Sp::span);
        return Err(At::new(
            &at,
            format!("feeder.tags.{}", wrong.as_str()),
            "does not belong to this profile",
        ));
    }
    if profile == Profile::Block && !is_sim {
        let blocks = [
            (TagName::Config, "Cfg", TagType::Words),
            (TagName::ConfigStatus, "CfgSts", TagType::Words),
            (TagName::Hold, "Hold", TagType::Bool),
        ];
        for (name, of, kind) in blocks {
            tags.entry(name).or_insert_with(|| Tag::of_block(namespace, &node, of, kind));
        }
    }
    let limits = limits(e, &tags, is_sim)?;
    let initial = match (&t.initial, is_sim) {
        (Some(given), true) => Some(initial(given)?),
        (None, true) => Some(default_initial()),
        (Some(given), false) => {
            return Err(At::new(&given.span(), "feeder.initial", "belongs to a simulated feeder"));
        }
        (None, false) => None,
    };
    if let Some(envelope) = t.envelope_mg.as_ref().filter(|mg| *mg.get_ref() <= 0) {
        return Err(At::new(&envelope.span(), "feeder.envelope_mg", "must be above 0"));
    }
    let next = robot.feeders.iter().map(|f| f.outlet + 1).max().unwrap_or(0);
    Ok(Feeder {
        id: id("feeder.id", &feeder_id)?,
        tank: id("feeder.tank", &tank)?,
        tank_name: name(&t.tank_name, tank.get_ref()),
        group: name(&t.group, ""),
        display_name: name(&t.display_name, feeder_id.get_ref()),
        outlet: t.outlet.as_ref().map_or(next, |n| *n.get_ref()),
        node,
        profile,
        limits,
        envelope_mg: t.envelope_mg.as_ref().map(|mg| *mg.get_ref()),
        tags,
        initial,
    })
}

/// The slot of a real robot: neither profile has a word for the outlet, so it serves one feeder; in
/// the block profile its blocks have their names by convention.
pub(super) fn slot(
    span: &Range<usize>,
    robot: &mut Robot,
    feeder: &Feeder,
    namespace: &str,
) -> Result<(), At> {
    if let Some(other) = robot.feeders.first() {
        let message = format!(
            "{} already serves {}: its command slot cannot say which outlet is meant; \
             give each outlet a [[robot]] of its own",
            robot.id, other.id
        );
        return Err(At::new(span, "feeder.robot", message));
    }
    let wrong = robot.tags.keys().find(|name| name.profile().is_some_and(|p| p != feeder.profile));
    if let Some(wrong) = wrong {
        let message = format!("{} does not belong to the profile of {}", wrong.as_str(), feeder.id);
        return Err(At::new(span, "robot.tags", message));
    }
    if feeder.profile == Profile::Block {
        let blocks = [
            (TagName::Command, "Cmd", TagType::Words),
            (TagName::Status, "Sts", TagType::Words),
            (TagName::History, "Hist", TagType::Words),
            (TagName::ResetFault, "ResetFault", TagType::Uint32),
        ];
        for (name, node, kind) in blocks {
            let tag = Tag::of_block(namespace, &robot.node, node, kind);
            robot.tags.entry(name).or_insert(tag);
        }
    }
    Ok(())
}

fn limits(e: &Expanded, tags: &Tags, is_sim: bool) -> Result<Limits, At> {
    let t = &e.table;
    let within = |key: &str, value: Option<&Sp<i32>>, range: std::ops::RangeInclusive<i32>| {
        let Some(value) = value else { return Ok(None) };
        if range.contains(value.get_ref()) {
            return Ok(Some(*value.get_ref()));
        }
        let message =
            format!("must be {} to {}, is {}", range.start(), range.end(), value.get_ref());
        Err(At::new(&value.span(), format!("feeder.{key}"), message))
    };
    let interval = |key: &str, value: Option<&Sp<String>>| {
        take(&format!("feeder.{key}"), value, |text| {
            let seconds = quantity::duration(text)?.as_secs();
            let inside = i64::try_from(seconds).is_ok_and(|s| ranges::INTERVAL_S.contains(&s));
            u32::try_from(seconds)
                .ok()
                .filter(|_| inside)
                .ok_or_else(|| "must be 10 s to 24 h".into())
        })
    };
    let step = take("feeder.step", t.step.as_ref(), |text| quantity::milligrams(text, ""))?;
    let rate = take("feeder.rate", t.rate.as_ref(), |text| quantity::milligrams(text, "/s"))?;
    // A whole-numbered tag cannot hold less than one of its own steps.
    let of_tag = tags.get(&TagName::Portion).map(Tag::step).filter(|s| *s >= 1.0 && *s < 1e9);
    #[allow(clippy::cast_possible_truncation, reason = "just checked")]
    let of_tag = of_tag.map(|s| s.round() as i32);
    if let (Some(step), Some(of_tag)) = (step, of_tag)
        && step % of_tag != 0
    {
        let at = t.step.as_ref().map_or(e.span.clone(), Sp::span);
        let message = format!("must be a multiple of {of_tag} mg, the step of the portion tag");
        return Err(At::new(&at, "feeder.step", message));
    }
    let (default_step, default_rate) = if is_sim { (Some(10), Some(500)) } else { (Some(1), None) };
    let limits = Limits {
        portion_min_mg: within("portion_min_mg", t.portion_min_mg.as_ref(), ranges::PORTION_MG)?,
        portion_max_mg: within("portion_max_mg", t.portion_max_mg.as_ref(), ranges::PORTION_MG)?,
        portion_step_mg: step.or(of_tag).or(default_step),
        interval_min_s: interval("interval_min", t.interval_min.as_ref())?,
        interval_max_s: interval("interval_max", t.interval_max.as_ref())?,
        daily_cap_max_mg: within(
            "daily_cap_max_mg",
            t.daily_cap_max_mg.as_ref(),
            ranges::DAILY_CAP_MG,
        )?,
        windows_max: None,
        dispense_rate_mg_per_s: rate.or(default_rate),
    };
    Ok(limits)
}
