//! May this feeder be given this config: the farm's limits, who enforces what, and what the fields
//! mean together. The contract's ranges were checked when the request was read.

use pasamanos_proto::model::{
    ConfigField, Enforcer, FeederConfig, FieldAccess, FieldSet, Invalid, Mode, ObservedConfig,
    Reason, UpdateConfig, Violations,
};

use super::ports::StoredFeeder;
use super::{Error, ErrorKind};

/// The config that an update asks for, and the fields in which it differs from the current one.
///
/// # Errors
/// What is wrong with it, all violations at once, as paths of the request.
pub fn merge(
    feeder: &StoredFeeder,
    update: &UpdateConfig,
) -> Result<(FeederConfig, FieldSet), Error> {
    let Some(version) = &feeder.version else {
        return Err(Error::precondition(
            Reason::ConfigUnknown,
            "the feeder's config is not known: its PLC was never read; wait until it is",
        )
        .with("feeder", &feeder.id));
    };
    let (new, fields) = match &version.config {
        ObservedConfig::Valid(current) => {
            let new = current.merged(&update.patch, &update.fields);
            let changed = current.diff(&new);
            (new, changed)
        }
        // A raw config of the farm can be replaced as a whole, not amended.
        ObservedConfig::Raw(_) if update.fields == FieldSet::all() => {
            (update.patch.clone(), FieldSet::all())
        }
        ObservedConfig::Raw(_) => {
            return Err(Invalid::field(
                "update_mask",
                "must be *: the farm set a config that the rules refuse, so it is replaced whole",
            )
            .into());
        }
    };
    writable(feeder, &fields)?;
    check(feeder, &new)?;
    Ok((new, fields))
}

fn writable(feeder: &StoredFeeder, fields: &FieldSet) -> Result<(), Error> {
    for field in fields.iter() {
        let cap = feeder.capabilities.field(field);
        let path = field.path();
        let (reason, text) = match (cap.access, cap.enforced_by) {
            (FieldAccess::Absent, _) | (_, Enforcer::Nobody) => (
                Reason::NotEnforced,
                format!("nobody at this farm enforces {path}: it cannot be set for this feeder"),
            ),
            (FieldAccess::ReadOnly, _) => (
                Reason::ReadOnly,
                format!("{path} can only be read for this feeder: change it at the farm"),
            ),
            (FieldAccess::Writable, _) => continue,
        };
        let mut e = Error::precondition(reason, text.clone())
            .with("feeder", &feeder.id)
            .with("field", path);
        e.violations = Invalid::because(reason, format!("config.{path}"), text).violations;
        return Err(e);
    }
    Ok(())
}

fn check(feeder: &StoredFeeder, new: &FeederConfig) -> Result<(), Error> {
    let (limits, mut v) = (&feeder.limits, Violations::default());
    if let Some(mg) = new.portion_mg {
        portion(feeder, "config.portion_mg", mg, &mut v);
    }
    if let Some(s) = new.interval_s {
        let dispensing = new.portion_mg.map_or(0, |mg| limits.dispensing_s(mg));
        if limits.interval_min_s.is_some_and(|min| s < min) {
            let min = limits.interval_min_s.unwrap_or_default();
            v.push("config.interval", format!("must be at least {min} s for this feeder"));
        } else if limits.interval_max_s.is_some_and(|max| s > max) {
            let max = limits.interval_max_s.unwrap_or_default();
            v.push("config.interval", format!("must be at most {max} s for this feeder"));
        } else if s < dispensing {
            v.push(
                "config.interval",
                format!("must fit the portion: it takes {dispensing} s to dispense"),
            );
        }
    }
    if limits.windows_max.is_some_and(|most| new.windows.len() > usize::try_from(most).unwrap_or(0))
    {
        let most = limits.windows_max.unwrap_or_default();
        v.push("config.windows", format!("must be at most {most} for this feeder"));
    }
    if let Some(cap) = new.daily_cap_mg {
        if limits.daily_cap_max_mg.is_some_and(|max| cap > max) {
            let max = limits.daily_cap_max_mg.unwrap_or_default();
            v.push("config.daily_cap_mg", format!("must be at most {max} mg for this feeder"));
        } else if new.mode == Mode::Automatic
            && let (Some(mg), Some(meals)) = (new.portion_mg, new.meals_per_day())
        {
            let day = i64::from(mg) * i64::from(meals);
            if day > i64::from(cap) {
                v.push(
                        "config.daily_cap_mg",
                        format!("must fit the day: {meals} meals of {mg} mg are {day} mg, the cap is {cap} mg"),
                    );
            }
        }
    }
    v.check().map_err(Error::from)
}

/// Checks an amount against this feeder's step and limits.
pub fn portion(feeder: &StoredFeeder, path: &str, mg: i32, v: &mut Violations) {
    let limits = &feeder.limits;
    let step = limits.portion_step_mg.unwrap_or(1).max(1);
    if limits.portion_min_mg.is_some_and(|min| mg < min) {
        let min = limits.portion_min_mg.unwrap_or_default();
        v.push(path, format!("must be at least {min} mg for this feeder, is {mg}"));
    } else if limits.portion_max_mg.is_some_and(|max| mg > max) {
        let max = limits.portion_max_mg.unwrap_or_default();
        v.push(path, format!("must be at most {max} mg for this feeder, is {mg}"));
    } else if mg % step != 0 {
        v.push(path, format!("must be a multiple of {step} mg for this feeder, is {mg}"));
    }
}

/// Whether a farm change at `now_ms` that brings an earlier version back undoes what was APPLIED at
/// `applied_ms`: within 48 h (RULES 6.8). Later it is a change like any other.
#[must_use]
pub fn undoes(applied_ms: i64, now_ms: i64) -> bool {
    const WINDOW_MS: i64 = 48 * 3_600_000;
    now_ms.saturating_sub(applied_ms) <= WINDOW_MS
}

/// Refuses a stale etag: the current one and its feeder go with the refusal.
pub fn etag_mismatch(name: impl std::fmt::Display, current: &str) -> Error {
    Error::new(
        ErrorKind::Aborted,
        Reason::EtagMismatch,
        "the config changed since it was read: look at the current one and decide again",
    )
    .with("feeder", name)
    .with("etag", current)
}

/// Whether a field of the change is enforced by the agent only.
#[must_use]
pub fn enforced_by_agent(feeder: &StoredFeeder, fields: &FieldSet) -> bool {
    fields.iter().any(|f: ConfigField| feeder.capabilities.field(f).enforced_by == Enforcer::Agent)
}
