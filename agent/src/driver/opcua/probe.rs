//! What `pasamanos-agent check` asks a PLC: every mapped tag, once or twice, and whether it tells of
//! changes; never a write.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use opcua::types::{AttributeId, DataValue, StatusCode, Variant};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::live::Live;
use super::{subscription, value, words};
use crate::clock;
use crate::config::quantity::Dimension;
use crate::config::{Access, OpcUa, Plc, Tag, TagName};
use crate::driver::DriverError;

/// Between two looks at `alive`.
const DWELL: Duration = Duration::from_millis(1_200);

/// A subscription that published nothing for so long does not work.
const PUBLISHED: Duration = Duration::from_secs(5);

/// A PLC as it was found.
#[derive(Clone, Debug)]
pub struct Proof {
    /// Its tags.
    pub rows: Vec<Probed>,
    /// How the agent will learn of changes.
    pub changes: String,
}

/// One tag as it was found.
#[derive(Clone, Debug)]
pub struct Probed {
    /// The robot or feeder that it belongs to.
    pub owner: String,
    /// Its key in `agent.toml`.
    pub tag: &'static str,
    /// Where it is.
    pub address: String,
    /// What the PLC gave.
    pub raw: String,
    /// That in the unit that we keep.
    pub scaled: String,
    /// That unit.
    pub unit: &'static str,
    /// How old the PLC says it is, if it says.
    pub age_ms: Option<i64>,
    /// What is wrong and what to do; `None` if nothing is.
    pub problem: Option<String>,
}

/// Connects, reads every tag of this PLC, subscribes to changes as the agent would, and closes.
///
/// # Errors
/// For an installer: why there is no connection, or why it was lost.
pub async fn probe(data_dir: &Path, plc: &Plc, of: &OpcUa) -> Result<Proof, String> {
    let tasks = TaskTracker::new();
    let all = tags(plc);
    let addresses: Vec<_> = all.iter().map(|(_, _, tag)| tag.address.clone()).collect();
    let pki = data_dir.join("pki").join(&plc.name);
    let opened = Live::open(of, &pki, &addresses, &tasks).await;
    let live = opened.map_err(|e| e.detail)?;
    let rows = rows(plc, &all, &live).await.map_err(|e| e.to_string());
    let changes = changes(plc, of, &live).await;
    live.close().await;
    drop(live);
    tasks.close();
    tasks.wait().await;
    rows.map(|rows| Proof { rows, changes })
}

/// Whether the server tells of changes by itself. That it does not is no problem.
async fn changes(plc: &Plc, of: &OpcUa, live: &Live) -> String {
    let poll = format!("polled every {} ms", plc.poll.as_millis());
    let watched: Arc<[_]> = subscription::watched(plc).into();
    let Some(every) = of.subscribe.filter(|_| !watched.is_empty()) else {
        return format!("{poll}, no subscription");
    };
    let first = Arc::new(Notify::new());
    let told = first.clone();
    match live.subscribe(&watched, every, move |_| told.notify_one()).await {
        Err(code) => format!("{poll}; note: the server refuses a subscription: {code}"),
        Ok(subscribed) => {
            let told = timeout(PUBLISHED, first.notified()).await.is_ok();
            let (taken, asked) = (subscribed.taken, watched.len());
            let every = subscribed.every.as_millis();
            let note =
                subscribed.refused.map_or_else(String::new, |code| format!(" (note: {code})"));
            let mut shown = format!(
                "{poll}, {taken} of {asked} tags subscribed{note}, published every {every} ms"
            );
            if !told {
                shown += "; note: nothing was published";
            }
            live.end(subscribed).await;
            shown
        }
    }
}

fn tags(plc: &Plc) -> Vec<(String, TagName, &Tag)> {
    let mut out = Vec::new();
    for robot in &plc.robots {
        out.extend(robot.tags.iter().map(|(name, tag)| (robot.id.to_string(), *name, tag)));
        for feeder in &robot.feeders {
            out.extend(feeder.tags.iter().map(|(name, tag)| (feeder.id.to_string(), *name, tag)));
        }
    }
    out
}

async fn rows(
    plc: &Plc,
    all: &[(String, TagName, &Tag)],
    live: &Live,
) -> Result<Vec<Probed>, DriverError> {
    let addresses: Vec<_> = all.iter().map(|(_, _, tag)| &tag.address).collect();
    let values = live.read(&addresses).await?;
    let rights = match plc.access {
        Access::ReadOnly => Vec::new(),
        Access::ReadWrite => live.read_attribute(&addresses, AttributeId::UserAccessLevel).await?,
    };
    tokio::time::sleep(DWELL).await;
    let moved: HashMap<_, _> = addresses.iter().zip(live.read(&addresses).await?).collect();
    let mut out = Vec::new();
    for (i, ((owner, name, tag), value)) in all.iter().zip(&values).enumerate() {
        let (scaled, mut problem) = match judge(*name, tag, value) {
            Ok(scaled) => (scaled, None),
            Err(problem) => ("-".into(), Some(problem)),
        };
        let again = moved.get(&&tag.address);
        if problem.is_none() && again.is_some_and(|again| stands_still(*name, tag, value, again)) {
            let what = "stands still: it must be a counter or clock that the PLC's program moves";
            problem = Some(what.into());
        }
        if problem.is_none() && is_written(*name) && tag.writable {
            problem = rights.get(i).and_then(may_not_write);
        }
        out.push(Probed {
            owner: owner.clone(),
            tag: name.as_str(),
            address: tag.address.to_string(),
            raw: value::shown(value),
            scaled,
            unit: name.dimension().kept_in(),
            age_ms: age_ms(value),
            problem,
        });
    }
    Ok(out)
}

/// The value in the unit that we keep, or what is wrong with it and what to do.
fn judge(name: TagName, tag: &Tag, value: &DataValue) -> Result<String, String> {
    match value.status() {
        StatusCode::BadNodeIdUnknown | StatusCode::BadNodeIdInvalid => {
            return Err("no such node: check node or path, and the namespace".into());
        }
        StatusCode::BadNotReadable | StatusCode::BadUserAccessDenied => {
            return Err("this user may not read it: give the right at the server".into());
        }
        _ => {}
    }
    let text = |e: DriverError| match e {
        DriverError::BadData(text) => text,
        other => other.to_string(),
    };
    match name.dimension() {
        Dimension::Block => block(name, tag, value).map_err(text),
        Dimension::Flag => value::flag(tag, value).map(|on| on.to_string()).map_err(text),
        Dimension::Word => match value::word(tag, value).map_err(text)? {
            Some(word) => Ok(word.into()),
            None => Err("its raw value has no word: add it to values".into()),
        },
        Dimension::Count => value::count(tag, value).map(|n| n.to_string()).map_err(text),
        _ => {
            let kept = value::scaled(tag, value).map_err(text)?;
            if plausible(name).contains(&kept) {
                Ok(kept.to_string())
            } else {
                let unit = name.dimension().kept_in();
                Err(format!("{kept} {unit} is not plausible: check unit and scale"))
            }
        }
    }
}

fn block(name: TagName, tag: &Tag, value: &DataValue) -> Result<String, DriverError> {
    let words = value::words(tag, value)?;
    Ok(match name {
        TagName::Status => {
            let status = words::status(&words)?;
            format!("epoch {} seq {}", status.slot.epoch, status.slot.last_sequence)
        }
        TagName::ConfigStatus => {
            let read = words::config(&words)?;
            let valid = if read.config.valid().is_some() { "" } else { " (out of range)" };
            format!("revision {}{valid}", read.revision.unwrap_or(0))
        }
        TagName::History => format!("{} results", words::history(&words)?.len()),
        // Zeros after a start: only its length can be proven.
        TagName::Command if words.len() == words::COMMAND_WORDS => "8 words".into(),
        TagName::Config if words.len() == words::CONFIG_WORDS => "24 words".into(),
        _ => return Err(DriverError::BadData(format!("has {} words", words.len()))),
    })
}

fn plausible(name: TagName) -> std::ops::RangeInclusive<i64> {
    match name {
        TagName::DissolvedOxygen | TagName::MinDissolvedOxygen => 0..=50_000,
        TagName::OxygenSaturation | TagName::MinOxygenSaturation => 0..=3_000,
        TagName::WaterTemperature | TagName::MaxWaterTemperature => -5_000..=60_000,
        TagName::Ph => 0..=14_000,
        TagName::Portion | TagName::DoseAmount | TagName::DoseDispensed => 0..=5_000_000,
        TagName::DailyCap => 0..=500_000_000,
        TagName::Interval => 0..=86_400_000,
        _ => 0..=i64::MAX,
    }
}

fn stands_still(name: TagName, tag: &Tag, first: &DataValue, second: &DataValue) -> bool {
    let count = |value| match name {
        TagName::Alive => value::count(tag, value).ok(),
        TagName::Status => {
            let words = value::words(tag, value).ok()?;
            words::status(&words).ok().map(|status| status.heartbeat)
        }
        _ => None,
    };
    count(first).is_some_and(|n| count(second) == Some(n))
}

/// Whether the agent ever writes it.
fn is_written(name: TagName) -> bool {
    use TagName as T;
    matches!(
        name,
        T::ResetFault
            | T::Command
            | T::Config
            | T::Hold
            | T::DoseAmount
            | T::DoseSequence
            | T::DoseStart
            | T::Mode
            | T::Portion
            | T::Interval
            | T::DailyCap
            | T::MinDissolvedOxygen
            | T::MinOxygenSaturation
            | T::MaxWaterTemperature
    )
}

fn may_not_write(rights: &DataValue) -> Option<String> {
    const CURRENT_WRITE: u8 = 2;
    match rights.value {
        Some(Variant::Byte(level)) if level & CURRENT_WRITE == 0 => {
            Some("this user may not write it: set read_only = true, or give the right".into())
        }
        _ => None,
    }
}

fn age_ms(value: &DataValue) -> Option<i64> {
    let at = value.source_timestamp.as_ref()?.as_chrono().timestamp_millis();
    Some(clock::wall_ms() - at)
}
