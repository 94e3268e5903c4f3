//! The requests of the two user services, validated: all violations of a request at once.

use std::fmt::Write as _;

use super::{
    Action, CommandName, FarmId, FeederConfig, FeederName, FieldSet, Invalid, Note, Reason,
    RequestId, Verdict, Violations, note, ranges,
};
use crate::pb;

/// What every mutating request carries.
#[derive(Clone, Debug, PartialEq)]
pub struct Mutation<T, A> {
    /// What it is for.
    pub target: T,
    /// The caller's id: the command's name.
    pub request: RequestId,
    /// Check only.
    pub validate_only: bool,
    /// Why.
    pub note: Note,
    /// What to do.
    pub action: A,
}

fn mutation<T, A>(
    mut v: Violations,
    target: Option<T>,
    action: Option<A>,
    request_id: &str,
    validate_only: bool,
    text: &str,
) -> Result<Mutation<T, A>, Invalid> {
    let request = v.take(RequestId::required(request_id));
    let note = v.take(note(text));
    let all = match (target, action, request, note) {
        (Some(target), Some(action), Some(request), Some(note)) => {
            Some(Mutation { target, request, validate_only, note, action })
        }
        _ => None,
    };
    v.finish(all)
}

fn feeder(v: &mut Violations, name: &str) -> Option<FeederName> {
    v.take(name.parse().map_err(|e: Invalid| e.under("name")))
}

/// A config update before it is merged with what there is.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateConfig {
    /// The new values of the fields in the mask; the rest of it is not looked at.
    pub patch: FeederConfig,
    /// The fields to change.
    pub fields: FieldSet,
    /// What it was based on.
    pub etag: String,
}

impl TryFrom<pb::UpdateFeederConfigRequest> for Mutation<FeederName, UpdateConfig> {
    type Error = Invalid;

    fn try_from(m: pb::UpdateFeederConfigRequest) -> Result<Self, Invalid> {
        let mut v = Violations::default();
        let target = feeder(&mut v, &m.name);
        let fields = v.take(FieldSet::from_mask(m.update_mask.as_ref()));
        let etag = v.take(etag(&m.etag));
        let config = m.config.ok_or_else(|| Invalid::field("config", "is required"));
        let patch = match (v.take(config), &fields) {
            (Some(config), Some(fields)) => {
                v.take(patch(config, fields).map_err(|e| e.under("config")))
            }
            _ => None,
        };
        let action = match (patch, fields, etag) {
            (Some(patch), Some(fields), Some(etag)) => Some(UpdateConfig { patch, fields, etag }),
            _ => None,
        };
        mutation(v, target, action, &m.request_id, m.validate_only, &m.note)
    }
}

/// Reads the masked fields of a config. What the mask does not name is not looked at, so a client
/// may send a whole config back or only the field it changes.
fn patch(mut config: pb::FeederConfig, fields: &FieldSet) -> Result<FeederConfig, Invalid> {
    use super::ConfigField as F;
    if !fields.contains(F::Mode) {
        config.mode = pb::FeederMode::Off.into();
    }
    if !fields.contains(F::Portion) {
        config.portion_mg = None;
    } else if config.portion_mg.is_none() {
        return Err(Invalid::field("portion_mg", "is required when the mask names it"));
    }
    if !fields.contains(F::Interval) {
        config.interval = None;
    } else if config.interval.is_none() {
        return Err(Invalid::field("interval", "is required when the mask names it"));
    }
    if !fields.contains(F::Windows) {
        config.windows.clear();
    }
    if !fields.contains(F::DailyCap) {
        config.daily_cap_mg = None;
    }
    let locks = config.interlocks.get_or_insert_default();
    if !fields.contains(F::MinDissolvedOxygen) {
        locks.min_dissolved_oxygen_ug_per_l = None;
    }
    if !fields.contains(F::MinOxygenSaturation) {
        locks.min_oxygen_saturation_permille = None;
    }
    if !fields.contains(F::MaxWaterTemperature) {
        locks.max_water_temperature_millicelsius = None;
    }
    config.try_into()
}

fn etag(text: &str) -> Result<String, Invalid> {
    if text.is_empty() {
        return Err(Invalid::because(
            Reason::EtagRequired,
            "etag",
            "is required: read the feeder and send the etag of the config you saw",
        ));
    }
    let ok = text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if ok { Ok(text.into()) } else { Err(Invalid::field("etag", "must be an etag as it was read")) }
}

impl TryFrom<pb::FeedNowRequest> for Mutation<FeederName, Action> {
    type Error = Invalid;

    fn try_from(m: pb::FeedNowRequest) -> Result<Self, Invalid> {
        let mut v = Violations::default();
        let target = feeder(&mut v, &m.name);
        let action = match m.portion_mg {
            Some(portion_mg) if ranges::PORTION_MG.contains(&portion_mg) => {
                Some(Action::FeedNow { portion_mg })
            }
            portion => {
                let (lo, hi) = (ranges::PORTION_MG.start(), ranges::PORTION_MG.end());
                let is = portion.map_or("is required".into(), |mg| format!("is {mg}"));
                v.push("portion_mg", format!("must be {lo} to {hi} mg; {is}"));
                None
            }
        };
        mutation(v, target, action, &m.request_id, m.validate_only, &m.note)
    }
}

impl TryFrom<pb::HoldFeederRequest> for Mutation<FeederName, Action> {
    type Error = Invalid;

    fn try_from(m: pb::HoldFeederRequest) -> Result<Self, Invalid> {
        let mut v = Violations::default();
        let target = feeder(&mut v, &m.name);
        mutation(v, target, Some(Action::Hold), &m.request_id, m.validate_only, &m.note)
    }
}

impl TryFrom<pb::ResumeFeederRequest> for Mutation<FeederName, Action> {
    type Error = Invalid;

    fn try_from(m: pb::ResumeFeederRequest) -> Result<Self, Invalid> {
        let mut v = Violations::default();
        let target = feeder(&mut v, &m.name);
        mutation(v, target, Some(Action::Resume), &m.request_id, m.validate_only, &m.note)
    }
}

impl TryFrom<pb::ResetFaultRequest> for Mutation<FeederName, Action> {
    type Error = Invalid;

    fn try_from(m: pb::ResetFaultRequest) -> Result<Self, Invalid> {
        let mut v = Violations::default();
        let target = feeder(&mut v, &m.name);
        let action = match m.fault_code {
            Some(fault_code) if fault_code != 0 => Some(Action::ResetFault { fault_code }),
            _ => {
                v.push("fault_code", "is required and not 0: name the fault that you saw");
                None
            }
        };
        mutation(v, target, action, &m.request_id, m.validate_only, &m.note)
    }
}

impl TryFrom<pb::HoldFarmRequest> for Mutation<FarmId, ()> {
    type Error = Invalid;

    fn try_from(m: pb::HoldFarmRequest) -> Result<Self, Invalid> {
        let mut v = Violations::default();
        let target = v.take(FarmId::from_name(&m.name).map_err(|e| e.under("name")));
        mutation(v, target, Some(()), &m.request_id, m.validate_only, &m.note)
    }
}

/// A person's settlement.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolve {
    /// What they saw.
    pub verdict: Verdict,
    /// How much fell, mg; `None` means the planned amount. Never with `NotFed`.
    pub fed_mg: Option<i32>,
}

impl TryFrom<pb::ResolveCommandRequest> for Mutation<CommandName, Resolve> {
    type Error = Invalid;

    fn try_from(m: pb::ResolveCommandRequest) -> Result<Self, Invalid> {
        let mut v = Violations::default();
        let target = v.take(m.name.parse().map_err(|e: Invalid| e.under("name")));
        let verdict = match m.verdict() {
            pb::ResolutionVerdict::Fed => Some(Verdict::Fed),
            pb::ResolutionVerdict::NotFed => Some(Verdict::NotFed),
            pb::ResolutionVerdict::Unspecified => {
                v.push("verdict", "must be FED or NOT_FED");
                None
            }
        };
        match (verdict, m.fed_mg) {
            (Some(Verdict::NotFed), Some(_)) => v.push("fed_mg", "must not be set with NOT_FED"),
            (_, Some(mg)) if !(0..=*ranges::PORTION_MG.end()).contains(&mg) => {
                v.push("fed_mg", format!("must be 0 to {} mg", ranges::PORTION_MG.end()));
            }
            _ => {}
        }
        if m.note.trim().is_empty() {
            v.push("note", "is required: say why you think so");
        }
        let action = verdict.map(|verdict| Resolve { verdict, fed_mg: m.fed_mg });
        mutation(v, target, action, &m.request_id, m.validate_only, &m.note)
    }
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// How many at most, at least 1.
    pub size: u32,
    /// The key to begin after; empty for the first page.
    pub after: String,
}

impl PageRequest {
    /// Reads page size and token.
    ///
    /// # Errors
    /// If the size is negative or the token is not one that [`page_token`] made.
    pub fn parse(size: i32, token: &str, default: u32, most: u32) -> Result<Self, Invalid> {
        let mut v = Violations::default();
        let size = match u32::try_from(size) {
            Ok(0) => default,
            Ok(n) => n.min(most),
            Err(_) => {
                v.push("page_size", "must not be negative");
                default
            }
        };
        let after = decode_token(token);
        if after.is_none() {
            v.push("page_token", "must be next_page_token of the page before");
        }
        v.finish(after.map(|after| Self { size, after }))
    }
}

/// The token of the page after this key: hex of it, so that callers treat it as opaque.
#[must_use]
pub fn page_token(after: &str) -> String {
    after.bytes().fold(String::new(), |mut hex, b| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{b:02x}");
        hex
    })
}

fn decode_token(token: &str) -> Option<String> {
    if token.len() > 512 || !token.len().is_multiple_of(2) || !token.is_ascii() {
        return None;
    }
    let bytes = (0..token.len()).step_by(2).map(|i| u8::from_str_radix(&token[i..i + 2], 16));
    String::from_utf8(bytes.collect::<Result<_, _>>().ok()?).ok()
}
