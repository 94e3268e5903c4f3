//! What there is at a farm, what it can be set to, and who enforces it.

use std::collections::{BTreeMap, BTreeSet};

use prost_types::Duration;

use super::{ConfigField, FeederId, Invalid, ObservedConfig, RobotId, TankId};
use crate::pb;

/// What a feeder can be set to. Absent limits are those of the contract.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Least portion, mg.
    pub portion_min_mg: Option<i32>,
    /// Most portion, mg.
    pub portion_max_mg: Option<i32>,
    /// Portions are multiples of this, mg.
    pub portion_step_mg: Option<i32>,
    /// Least interval, s.
    pub interval_min_s: Option<u32>,
    /// Most interval, s.
    pub interval_max_s: Option<u32>,
    /// Most daily cap, mg.
    pub daily_cap_max_mg: Option<i32>,
    /// Most windows.
    pub windows_max: Option<i32>,
    /// How fast feed leaves the outlet, mg/s.
    pub dispense_rate_mg_per_s: Option<i32>,
}

impl Limits {
    /// How long this much takes to dispense, whole seconds rounded up; 0 if the rate is not known.
    #[must_use]
    pub fn dispensing_s(&self, mg: i32) -> u32 {
        let rate = self.dispense_rate_mg_per_s.unwrap_or(0);
        if rate <= 0 { 0 } else { u32::try_from(mg).unwrap_or(0).div_ceil(rate.unsigned_abs()) }
    }
}

fn seconds(d: Option<&Duration>) -> Option<u32> {
    d.and_then(|d| u32::try_from(d.seconds).ok())
}

impl TryFrom<pb::Limits> for Limits {
    type Error = Invalid;

    fn try_from(m: pb::Limits) -> Result<Self, Invalid> {
        let positive = |name: &str, x: Option<i32>| match x {
            Some(x) if x <= 0 => Err(Invalid::field(name, "must be above 0")),
            x => Ok(x),
        };
        Ok(Self {
            portion_min_mg: positive("portion_min_mg", m.portion_min_mg)?,
            portion_max_mg: positive("portion_max_mg", m.portion_max_mg)?,
            portion_step_mg: positive("portion_step_mg", m.portion_step_mg)?,
            interval_min_s: seconds(m.interval_min.as_ref()),
            interval_max_s: seconds(m.interval_max.as_ref()),
            daily_cap_max_mg: positive("daily_cap_max_mg", m.daily_cap_max_mg)?,
            windows_max: m.windows_max.filter(|n| (0..=6).contains(n)),
            dispense_rate_mg_per_s: positive("dispense_rate_mg_per_s", m.dispense_rate_mg_per_s)?,
        })
    }
}

impl From<&Limits> for pb::Limits {
    fn from(l: &Limits) -> Self {
        let duration = |s: u32| Duration { seconds: s.into(), nanos: 0 };
        Self {
            portion_min_mg: l.portion_min_mg,
            portion_max_mg: l.portion_max_mg,
            portion_step_mg: l.portion_step_mg,
            interval_min: l.interval_min_s.map(duration),
            interval_max: l.interval_max_s.map(duration),
            daily_cap_max_mg: l.daily_cap_max_mg,
            windows_max: l.windows_max,
            dispense_rate_mg_per_s: l.dispense_rate_mg_per_s,
        }
    }
}

/// What is promised about a dose by command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedNowCapability {
    /// The PLC's slot proves what happened.
    Exact,
    /// At most once.
    AtMostOnce,
    /// Not offered.
    None,
}

/// Whether a config field can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldAccess {
    /// Can be written.
    Writable,
    /// Can only be read.
    ReadOnly,
    /// Is not there.
    Absent,
}

/// Who makes a limit hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcer {
    /// The PLC, always.
    Plc,
    /// The agent, while it runs.
    Agent,
    /// Nobody: it cannot be set.
    Nobody,
}

/// One config field of one feeder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldCapability {
    /// Whether it can be written.
    pub access: FieldAccess,
    /// Who makes it hold.
    pub enforced_by: Enforcer,
}

/// What a feeder can do. A field that is not named is absent and enforced by nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Doses by command.
    pub feed_now: FeedNowCapability,
    /// Whether it can be held.
    pub hold: bool,
    /// Whether the PLC starts its interval anew when a hold ends.
    pub hold_restarts_interval: bool,
    /// Whether a config change of more than one field holds the feeder while it is written.
    pub several_fields_hold: bool,
    fields: BTreeMap<ConfigField, FieldCapability>,
}

impl Capabilities {
    /// Of these fields; no hold restarts an interval, and no change of fields holds.
    #[must_use]
    pub fn new(
        feed_now: FeedNowCapability,
        hold: bool,
        fields: impl IntoIterator<Item = (ConfigField, FieldCapability)>,
    ) -> Self {
        Self {
            feed_now,
            hold,
            hold_restarts_interval: false,
            several_fields_hold: false,
            fields: fields.into_iter().collect(),
        }
    }

    /// What is true of one field.
    #[must_use]
    pub fn field(&self, field: ConfigField) -> FieldCapability {
        let absent = FieldCapability { access: FieldAccess::Absent, enforced_by: Enforcer::Nobody };
        self.fields.get(&field).copied().unwrap_or(absent)
    }
}

impl TryFrom<pb::Capabilities> for Capabilities {
    type Error = Invalid;

    fn try_from(m: pb::Capabilities) -> Result<Self, Invalid> {
        let feed_now = match m.feed_now() {
            pb::FeedNowCapability::Exact => FeedNowCapability::Exact,
            pb::FeedNowCapability::AtMostOnce => FeedNowCapability::AtMostOnce,
            pb::FeedNowCapability::None | pb::FeedNowCapability::Unspecified => {
                FeedNowCapability::None
            }
        };
        // A field of a newer agent is not ours to offer.
        let known = m.fields.iter().filter_map(|f| {
            let access = match f.access() {
                pb::FieldAccess::Writable => FieldAccess::Writable,
                pb::FieldAccess::ReadOnly => FieldAccess::ReadOnly,
                pb::FieldAccess::Absent | pb::FieldAccess::Unspecified => FieldAccess::Absent,
            };
            let enforced_by = match f.enforced_by() {
                pb::Enforcer::Plc => Enforcer::Plc,
                pb::Enforcer::Agent => Enforcer::Agent,
                pb::Enforcer::Nobody | pb::Enforcer::Unspecified => Enforcer::Nobody,
            };
            Some((ConfigField::from_path(&f.path)?, FieldCapability { access, enforced_by }))
        });
        Ok(Self {
            hold_restarts_interval: m.hold_restarts_interval,
            several_fields_hold: m.several_fields_hold,
            ..Self::new(feed_now, m.hold, known.collect::<Vec<_>>())
        })
    }
}

impl From<&Capabilities> for pb::Capabilities {
    fn from(c: &Capabilities) -> Self {
        let feed_now = match c.feed_now {
            FeedNowCapability::Exact => pb::FeedNowCapability::Exact,
            FeedNowCapability::AtMostOnce => pb::FeedNowCapability::AtMostOnce,
            FeedNowCapability::None => pb::FeedNowCapability::None,
        };
        let fields = ConfigField::ALL.into_iter().map(|field| {
            let cap = c.field(field);
            let access = match cap.access {
                FieldAccess::Writable => pb::FieldAccess::Writable,
                FieldAccess::ReadOnly => pb::FieldAccess::ReadOnly,
                FieldAccess::Absent => pb::FieldAccess::Absent,
            };
            let enforced_by = match cap.enforced_by {
                Enforcer::Plc => pb::Enforcer::Plc,
                Enforcer::Agent => pb::Enforcer::Agent,
                Enforcer::Nobody => pb::Enforcer::Nobody,
            };
            pb::FieldCapability {
                path: field.path().into(),
                access: access.into(),
                enforced_by: enforced_by.into(),
            }
        });
        Self {
            feed_now: feed_now.into(),
            hold: c.hold,
            fields: fields.collect(),
            hold_restarts_interval: c.hold_restarts_interval,
            several_fields_hold: c.several_fields_hold,
        }
    }
}

/// One tank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventoryTank {
    /// Its id.
    pub id: TankId,
    /// As the farm calls it.
    pub display_name: String,
    /// Its group; empty for none.
    pub group: String,
}

/// One robot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventoryRobot {
    /// Its id.
    pub id: RobotId,
}

/// One feeder.
#[derive(Clone, Debug, PartialEq)]
pub struct InventoryFeeder {
    /// Its id.
    pub id: FeederId,
    /// Its robot.
    pub robot: RobotId,
    /// Its tank.
    pub tank: TankId,
    /// As the farm calls it.
    pub display_name: String,
    /// What it can be set to.
    pub limits: Limits,
    /// What it can do.
    pub capabilities: Capabilities,
    /// What its PLC runs; `None` if it could not be read.
    pub config: Option<ObservedConfig>,
    /// Whether that is what the PLC came up with after it lost its memory: nobody set it.
    pub memory_lost: bool,
}

/// All of it: every feeder's robot and tank are in it, and no id stands twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    /// Tanks.
    pub tanks: Vec<InventoryTank>,
    /// Robots.
    pub robots: Vec<InventoryRobot>,
    /// Feeders.
    pub feeders: Vec<InventoryFeeder>,
}

/// More than any farm has; bounds what a hello can make the server hold.
const MAX_FEEDERS: usize = 2_000;

fn display_name(text: String) -> Result<String, Invalid> {
    if text.chars().count() > 100 || text.chars().any(char::is_control) {
        return Err(Invalid::field("display_name", "must be at most 100 printable characters"));
    }
    Ok(text)
}

impl TryFrom<pb::Inventory> for Inventory {
    type Error = Invalid;

    fn try_from(m: pb::Inventory) -> Result<Self, Invalid> {
        if m.feeders.len().max(m.tanks.len()).max(m.robots.len()) > MAX_FEEDERS {
            return Err(Invalid::field(
                "inventory",
                format!("must be at most {MAX_FEEDERS} feeders"),
            ));
        }
        let (mut tanks, mut robots, mut feeders) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let twice = |what: &str, id: &str| Invalid::field(what, format!("names {id} twice"));
        let mut out = Self::default();
        for t in m.tanks {
            let id: TankId = t.id.parse().map_err(|e: Invalid| e.under("tanks.id"))?;
            if !tanks.insert(id.clone()) {
                return Err(twice("tanks", id.as_str()));
            }
            let (display_name, group) = (display_name(t.display_name)?, display_name(t.group)?);
            out.tanks.push(InventoryTank { id, display_name, group });
        }
        for r in m.robots {
            let id: RobotId = r.id.parse().map_err(|e: Invalid| e.under("robots.id"))?;
            if !robots.insert(id.clone()) {
                return Err(twice("robots", id.as_str()));
            }
            out.robots.push(InventoryRobot { id });
        }
        for f in m.feeders {
            let feeder = InventoryFeeder::try_from(f).map_err(|e| e.under("feeders"))?;
            if !feeders.insert(feeder.id.clone()) {
                return Err(twice("feeders", feeder.id.as_str()));
            }
            if !robots.contains(&feeder.robot) || !tanks.contains(&feeder.tank) {
                return Err(Invalid::field(
                    "feeders",
                    format!("{}: its robot or tank is missing", feeder.id),
                ));
            }
            out.feeders.push(feeder);
        }
        Ok(out)
    }
}

impl TryFrom<pb::InventoryFeeder> for InventoryFeeder {
    type Error = Invalid;

    fn try_from(f: pb::InventoryFeeder) -> Result<Self, Invalid> {
        let limits = Limits::try_from(f.limits.unwrap_or_default())?;
        Ok(Self {
            id: f.id.parse().map_err(|e: Invalid| e.under("id"))?,
            robot: f.robot.parse().map_err(|e: Invalid| e.under("robot"))?,
            tank: f.tank.parse().map_err(|e: Invalid| e.under("tank"))?,
            display_name: display_name(f.display_name)?,
            limits,
            capabilities: Capabilities::try_from(f.capabilities.unwrap_or_default())?,
            config: f.config.map(Into::into),
            memory_lost: f.config_memory_lost,
        })
    }
}

impl From<&Inventory> for pb::Inventory {
    fn from(i: &Inventory) -> Self {
        let tanks = i.tanks.iter().map(|t| pb::InventoryTank {
            id: t.id.to_string(),
            display_name: t.display_name.clone(),
            group: t.group.clone(),
        });
        let robots = i.robots.iter().map(|r| pb::InventoryRobot { id: r.id.to_string() });
        let feeders = i.feeders.iter().map(|f| pb::InventoryFeeder {
            id: f.id.to_string(),
            robot: f.robot.to_string(),
            tank: f.tank.to_string(),
            display_name: f.display_name.clone(),
            limits: Some((&f.limits).into()),
            capabilities: Some((&f.capabilities).into()),
            config: f.config.clone().map(Into::into),
            config_memory_lost: f.memory_lost,
        });
        Self { tanks: tanks.collect(), robots: robots.collect(), feeders: feeders.collect() }
    }
}
