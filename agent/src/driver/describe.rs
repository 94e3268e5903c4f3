//! What the tag map says of a feeder: its limits and what it can do.

use pasamanos_proto::model::{
    Capabilities, ConfigField, Enforcer, FeedNowCapability, FieldAccess, FieldCapability,
};

use super::{FeederDescription, Profile};
use crate::config::{Access, ConfigOwner, Feeder, Plc, PlcDriver, Robot, TagName};

/// Every feeder of a PLC.
#[must_use]
pub(crate) fn feeders(plc: &Plc) -> Vec<FeederDescription> {
    let all = plc.robots.iter().flat_map(|robot| robot.feeders.iter().map(move |f| (robot, f)));
    all.map(|(robot, feeder)| describe(plc, robot, feeder)).collect()
}

fn describe(plc: &Plc, robot: &Robot, f: &Feeder) -> FeederDescription {
    let mut limits = f.limits.clone();
    if f.profile == Profile::Block {
        limits.windows_max = Some(limits.windows_max.unwrap_or(6));
    }
    FeederDescription {
        feeder: f.id.clone(),
        robot: robot.id.clone(),
        tank: f.tank.clone(),
        outlet: f.outlet,
        display_name: f.display_name.clone(),
        tank_name: f.tank_name.clone(),
        group: f.group.clone(),
        limits,
        capabilities: capabilities(plc, robot, f),
        profile: f.profile,
        envelope_mg: f.envelope_mg,
        calibration: String::new(),
    }
}

/// The config fields that a scalar feeder may map, and the tag of each.
pub(crate) const SCALAR_FIELDS: [(ConfigField, TagName); 7] = [
    (ConfigField::Mode, TagName::Mode),
    (ConfigField::Portion, TagName::Portion),
    (ConfigField::Interval, TagName::Interval),
    (ConfigField::DailyCap, TagName::DailyCap),
    (ConfigField::MinDissolvedOxygen, TagName::MinDissolvedOxygen),
    (ConfigField::MinOxygenSaturation, TagName::MinOxygenSaturation),
    (ConfigField::MaxWaterTemperature, TagName::MaxWaterTemperature),
];

fn capabilities(plc: &Plc, robot: &Robot, f: &Feeder) -> Capabilities {
    let writes = plc.access == Access::ReadWrite;
    let owned = robot.config_owner == ConfigOwner::Desktop;
    let field = |writable: bool| {
        let access = if writes && writable && !owned {
            FieldAccess::Writable
        } else {
            FieldAccess::ReadOnly
        };
        FieldCapability { access, enforced_by: Enforcer::Plc }
    };
    let mut all = match f.profile {
        Profile::Block => {
            // The checked config block of the PLC program has no place for a saturation.
            let has = |c: &ConfigField| {
                matches!(plc.driver, PlcDriver::Sim(_)) || *c != ConfigField::MinOxygenSaturation
            };
            let fields = ConfigField::ALL.into_iter().filter(has).map(|c| (c, field(true)));
            let feed_now = if writes { FeedNowCapability::Exact } else { FeedNowCapability::None };
            Capabilities::new(feed_now, writes, fields)
        }
        Profile::Scalar => {
            let group = [
                TagName::DoseAmount,
                TagName::DoseSequence,
                TagName::DoseStart,
                TagName::DoseEcho,
                TagName::DoseDone,
            ];
            let doses = writes && group.iter().all(|tag| robot.tags.contains_key(tag));
            let feed_now =
                if doses { FeedNowCapability::AtMostOnce } else { FeedNowCapability::None };
            let hold = writes && f.tags.get(&TagName::Hold).is_some_and(|tag| tag.writable);
            let mapped = SCALAR_FIELDS
                .into_iter()
                .filter_map(|(c, name)| Some((c, field(f.tags.get(&name)?.writable))));
            Capabilities::new(feed_now, hold, mapped)
        }
    };
    all.hold_restarts_interval = robot.hold_restarts_interval;
    // Tags are written one by one, a block whole.
    all.several_fields_hold = f.profile == Profile::Scalar;
    all
}
