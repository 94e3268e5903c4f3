//! From the file as written to a configuration that is valid.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pasamanos_proto::model::{self, AgentName, Invalid, Limits, ranges};
use pasamanos_proto::pb;

use super::error::At;
use super::expand::{self, Expanded};
use super::file::{DriverName, File, InitialTable, PlcTable, RobotTable, Sp, TagTable};
use super::tags::{Address, Identifier, Scope, TagType};
use super::{
    Access, Config, ConfigError, ConfigOwner, Feeder, Initial, OpcUa, Overrides, Plc, PlcDriver,
    Robot, Security, Sim, Tag, TagName, Tags, quantity, sim_farm,
};
use crate::driver::Profile;

const DEFAULT_SERVER: &str = "http://127.0.0.1:50051";
const DEFAULT_DATA_DIR: &str = "pasamanos-agent-data";
const DEFAULT_NAMESPACE: &str = "urn:farm:plc";
const DEFAULT_POLL: Duration = Duration::from_millis(250);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
const DEFAULT_DWELL: Duration = Duration::from_millis(300);

pub(super) fn config(
    path: &Path,
    text: &str,
    file: File,
    overrides: &Overrides,
) -> Result<Config, ConfigError> {
    let locate = |at: At| at.locate(path, text);
    let server = match (&overrides.server, &file.server) {
        (Some(given), _) => server_url(given)
            .map_err(|e| ConfigError::overridden("--server or PASAMANOS_SERVER", e))?,
        (None, Some(written)) => server_url(written.get_ref())
            .map_err(|e| locate(At::new(&written.span(), "server", e)))?,
        (None, None) => DEFAULT_SERVER.into(),
    };
    let agent = match (&overrides.agent, &file.agent) {
        (Some(given), _) => agent_name(given)
            .map_err(|e| ConfigError::overridden("--agent or PASAMANOS_AGENT", e))?,
        (None, Some(written)) => {
            agent_name(written.get_ref()).map_err(|e| locate(At::new(&written.span(), "agent", e)))?
        }
        (None, None) => {
            let what = "agent is required: the name farms/{farm}/agents/{agent} that the platform gave";
            return Err(ConfigError::file(path, what));
        }
    };
    let data_dir = overrides.data_dir.clone().or(file.data_dir.clone());
    let plcs = plcs(path, file).map_err(locate)?;
    if plcs.iter().all(|plc| plc.robots.is_empty()) {
        return Err(ConfigError::file(path, "there is no feeder: [[plc]], [[robot]] and [[feeder]] make one"));
    }
    Ok(Config { server, agent, data_dir: data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into()), plcs })
}

fn server_url(text: &str) -> Result<String, String> {
    let bad = || format!("must be http://host:port or https://host:port, is {text:?}");
    let uri: tonic::transport::Uri = text.parse().map_err(|_| bad())?;
    let scheme = uri.scheme_str().is_some_and(|s| s == "http" || s == "https");
    if scheme && uri.host().is_some() { Ok(text.into()) } else { Err(bad()) }
}

fn agent_name(text: &str) -> Result<AgentName, String> {
    text.parse().map_err(|_| {
        let each = "each of 3 to 63 of a-z, 0-9 and -";
        format!("must be farms/{{farm}}/agents/{{agent}}, {each}, is {text:?}")
    })
}

fn plcs(path: &Path, file: File) -> Result<Vec<Plc>, At> {
    let mut plcs: Vec<Plc> = Vec::new();
    let mut namespaces = BTreeMap::new();
    let mut controls = 0;
    for entry in file.plc {
        let span = entry.span();
        let table = entry.into_inner();
        let name = table.name.get_ref().clone();
        if plcs.iter().any(|plc| plc.name == name) {
            return Err(At::new(&table.name.span(), "plc.name", format!("{name:?} stands twice")));
        }
        if name.parse::<model::Slug>().is_err() {
            let message = "must be 3 to 63 of a-z, 0-9 and -, begin with a letter and not end with -";
            return Err(At::new(&table.name.span(), "plc.name", message));
        }
        let namespace = table.namespace.as_ref().map_or(DEFAULT_NAMESPACE, |n| n.get_ref());
        namespaces.insert(name, namespace.to_owned());
        let control = table.control.as_ref().map(Sp::span);
        controls += usize::from(control.is_some());
        if let (Some(span), true) = (control, controls > 1) {
            return Err(At::new(&span, "plc.control", "only one simulated PLC may have one"));
        }
        plcs.push(plc(path, &span, table)?);
    }
    let sims: BTreeSet<String> =
        plcs.iter().filter(|p| matches!(p.driver, PlcDriver::Sim(_))).map(|p| p.name.clone()).collect();
    let mut robots = BTreeSet::new();
    for plc in &plcs {
        robots.extend(plc.robots.iter().map(|r| r.id.to_string()));
    }
    let mut written: BTreeMap<String, (String, String)> = BTreeMap::new();
    for (table, span) in expand::robots(file.robot)? {
        let of = table.plc.get_ref().clone();
        let Some(plc) = plcs.iter_mut().find(|plc| plc.name == of) else {
            return Err(At::new(&table.plc.span(), "robot.plc", format!("no [[plc]] is named {of:?}")));
        };
        if !robots.insert(table.id.get_ref().clone()) {
            let message = format!("{:?} stands twice", table.id.get_ref());
            return Err(At::new(&table.id.span(), "robot.id", message));
        }
        let namespace = namespaces.get(&of).cloned().unwrap_or_default();
        let is_sim = sims.contains(&of);
        written.insert(table.id.get_ref().clone(), (of, namespace.clone()));
        plc.robots.push(robot(&span, table, &namespace, is_sim)?);
    }
    let mut ids: BTreeSet<String> = BTreeSet::new();
    for plc in &plcs {
        ids.extend(plc.robots.iter().flat_map(|r| &r.feeders).map(|f| f.id.to_string()));
    }
    for entry in expand::feeders(file.template, file.feeder)? {
        let place = entry.table.robot.clone();
        let Some(name) = place else {
            return Err(At::new(&entry.span, "feeder.robot", "is required"));
        };
        let Some((of, namespace)) = written.get(name.get_ref()) else {
            let message = format!("no [[robot]] has the id {:?}", name.get_ref());
            return Err(At::new(&name.span(), "feeder.robot", message));
        };
        let robot = plcs
            .iter_mut()
            .filter(|plc| plc.name == *of)
            .flat_map(|plc| &mut plc.robots)
            .find(|robot| robot.id.as_str() == name.get_ref());
        let Some(robot) = robot else { continue };
        let feeder = feeder(&entry, robot, namespace, sims.contains(of))?;
        if !ids.insert(feeder.id.to_string()) {
            return Err(At::new(&entry.span, "feeder.id", format!("{} stands twice", feeder.id)));
        }
        if robot.feeders.iter().any(|f| f.outlet == feeder.outlet) {
            let message = format!("{} has two feeders on outlet {}", robot.id, feeder.outlet);
            return Err(At::new(&entry.span, "feeder.outlet", message));
        }
        if !sims.contains(of) {
            slot(&entry.span, robot, &feeder, namespace)?;
        }
        robot.feeders.push(feeder);
    }
    Ok(plcs)
}

fn take<T>(
    key: &str,
    value: Option<&Sp<String>>,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, At> {
    value.map(|v| read(v.get_ref()).map_err(|e| At::new(&v.span(), key, e))).transpose()
}

fn plc(path: &Path, span: &Range<usize>, t: PlcTable) -> Result<Plc, At> {
    let poll = take("plc.poll", t.poll.as_ref(), quantity::duration)?.unwrap_or(DEFAULT_POLL);
    if !(Duration::from_millis(50)..=Duration::from_secs(10)).contains(&poll) {
        let at = t.poll.as_ref().map_or(span.clone(), Sp::span);
        return Err(At::new(&at, "plc.poll", "must be 50 ms to 10 s"));
    }
    let belongs = |key: &str, at: Option<Range<usize>>, to: &str| match at {
        Some(at) => Err(At::new(&at, key, format!("belongs to driver = {to:?}"))),
        None => Ok(()),
    };
    match t.driver.get_ref() {
        DriverName::Sim => {
            let to = "opcua";
            belongs("plc.url", t.url.as_ref().map(Sp::span), to)?;
            belongs("plc.security", t.security.as_ref().map(Sp::span), to)?;
            belongs("plc.user", t.user.as_ref().map(Sp::span), to)?;
            belongs("plc.password_file", t.password_file.as_ref().map(Sp::span), to)?;
            belongs("plc.timeout", t.timeout.as_ref().map(Sp::span), to)?;
            sim(t, poll)
        }
        DriverName::Opcua => {
            let to = "sim";
            belongs("plc.seed", t.seed.as_ref().map(Sp::span), to)?;
            belongs("plc.tanks", t.tanks.as_ref().map(Sp::span), to)?;
            belongs("plc.tanks_per_robot", t.tanks_per_robot.as_ref().map(Sp::span), to)?;
            belongs("plc.zone", t.zone.as_ref().map(Sp::span), to)?;
            belongs("plc.control", t.control.as_ref().map(Sp::span), to)?;
            opcua(path, span, t, poll)
        }
    }
}

fn sim(t: PlcTable, poll: Duration) -> Result<Plc, At> {
    let seed = t.seed.as_ref().map_or(1, |s| *s.get_ref());
    let zone = take("plc.zone", t.zone.as_ref(), |zone| {
        jiff::tz::TimeZone::get(zone)
            .map(|_| zone.to_owned())
            .map_err(|_| format!("must be an IANA zone such as \"America/Guayaquil\", is {zone:?}"))
    })?;
    let control = take("plc.control", t.control.as_ref(), |text| {
        let bad = || format!("must be a loopback address such as \"127.0.0.1:0\", is {text:?}");
        let address: std::net::SocketAddr = text.parse().map_err(|_| bad())?;
        if address.ip().is_loopback() { Ok(address) } else { Err(bad()) }
    })?;
    let per_robot = t.tanks_per_robot.as_ref().map_or(1, |n| *n.get_ref());
    let tanks = t.tanks.as_ref().map_or(0, |n| *n.get_ref());
    if let Some(given) = t.tanks.as_ref().filter(|n| !(1..=500).contains(n.get_ref())) {
        return Err(At::new(&given.span(), "plc.tanks", "must be 1 to 500"));
    }
    if let Some(given) = t.tanks_per_robot.as_ref().filter(|n| !(1..=16).contains(n.get_ref())) {
        return Err(At::new(&given.span(), "plc.tanks_per_robot", "must be 1 to 16"));
    }
    let driver = PlcDriver::Sim(Sim { seed, zone: zone.unwrap_or_else(|| "UTC".into()), control });
    let robots = if tanks == 0 { Vec::new() } else { sim_farm::farm(seed, tanks, per_robot) };
    let access = t.access.unwrap_or(Access::ReadWrite);
    Ok(Plc { name: t.name.into_inner(), poll, access, driver, robots })
}

fn opcua(path: &Path, span: &Range<usize>, t: PlcTable, poll: Duration) -> Result<Plc, At> {
    let Some(url) = t.url else {
        return Err(At::new(span, "plc.url", "is required: opc.tcp://host:port/path"));
    };
    if !url.get_ref().starts_with("opc.tcp://") {
        let message = format!("must be opc.tcp://host:port/path, is {:?}", url.get_ref());
        return Err(At::new(&url.span(), "plc.url", message));
    }
    let timeout =
        take("plc.timeout", t.timeout.as_ref(), quantity::duration)?.unwrap_or(DEFAULT_TIMEOUT);
    match (&t.user, &t.password_file) {
        (Some(user), None) => {
            return Err(At::new(&user.span(), "plc.user", "needs password_file"));
        }
        (None, Some(file)) => {
            return Err(At::new(&file.span(), "plc.password_file", "needs user"));
        }
        _ => {}
    }
    let driver = PlcDriver::OpcUa(OpcUa {
        url: url.into_inner(),
        security: t.security.map_or(Security::None, Sp::into_inner),
        user: t.user.map(Sp::into_inner),
        password_file: t.password_file.map(|f| beside(path, f.into_inner())),
        timeout,
    });
    let access = t.access.unwrap_or(Access::ReadOnly);
    Ok(Plc { name: t.name.into_inner(), poll, access, driver, robots: Vec::new() })
}

/// A relative path is meant from the file that names it.
fn beside(path: &Path, file: PathBuf) -> PathBuf {
    path.parent().map_or(file.clone(), |dir| dir.join(&file))
}

fn id<T: std::str::FromStr<Err = Invalid>>(key: &str, text: &Sp<String>) -> Result<T, At> {
    text.get_ref().parse().map_err(|e: Invalid| {
        let rule = e.violations.first().map_or_else(String::new, |v| v.description.clone());
        At::new(&text.span(), key, format!("{rule}, is {:?}", text.get_ref()))
    })
}

fn robot(
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
        (None, Some(scan)) => DEFAULT_DWELL.max(Duration::from_millis(2 * u64::from(*scan.get_ref()))),
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
        hold_restarts_interval: t.hold_restarts_interval,
        faults,
        tags,
        feeders: Vec::new(),
    })
}

fn feeder(e: &Expanded, robot: &Robot, namespace: &str, is_sim: bool) -> Result<Feeder, At> {
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
        return Err(At::new(&at, format!("feeder.tags.{}", wrong.as_str()), "does not belong to this profile"));
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
fn slot(span: &Range<usize>, robot: &mut Robot, feeder: &Feeder, namespace: &str) -> Result<(), At> {
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
        let message = format!("must be {} to {}, is {}", range.start(), range.end(), value.get_ref());
        Err(At::new(&value.span(), format!("feeder.{key}"), message))
    };
    let interval = |key: &str, value: Option<&Sp<String>>| {
        take(&format!("feeder.{key}"), value, |text| {
            let seconds = quantity::duration(text)?.as_secs();
            let inside = i64::try_from(seconds).is_ok_and(|s| ranges::INTERVAL_S.contains(&s));
            u32::try_from(seconds).ok().filter(|_| inside).ok_or_else(|| "must be 10 s to 24 h".into())
        })
    };
    let step = take("feeder.step", t.step.as_ref(), |text| quantity::milligrams(text, ""))?;
    let rate = take("feeder.rate", t.rate.as_ref(), |text| quantity::milligrams(text, "/s"))?;
    // A whole-numbered tag cannot hold less than one of its own steps.
    #[allow(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
    let of_tag = tags.get(&TagName::Portion).map(Tag::step).filter(|s| *s >= 1.0 && *s < 1e9);
    let of_tag = of_tag.map(|s| s.round() as i32);
    if let (Some(step), Some(of_tag)) = (step, of_tag) {
        if step % of_tag != 0 {
            let at = t.step.as_ref().map_or(e.span.clone(), Sp::span);
            let message = format!("must be a multiple of {of_tag} mg, the step of the portion tag");
            return Err(At::new(&at, "feeder.step", message));
        }
    }
    let (default_step, default_rate) = if is_sim { (Some(10), Some(500)) } else { (Some(1), None) };
    let limits = Limits {
        portion_min_mg: within("portion_min_mg", t.portion_min_mg.as_ref(), ranges::PORTION_MG)?,
        portion_max_mg: within("portion_max_mg", t.portion_max_mg.as_ref(), ranges::PORTION_MG)?,
        portion_step_mg: step.or(of_tag).or(default_step),
        interval_min_s: interval("interval_min", t.interval_min.as_ref())?,
        interval_max_s: interval("interval_max", t.interval_max.as_ref())?,
        daily_cap_max_mg: within("daily_cap_max_mg", t.daily_cap_max_mg.as_ref(), ranges::DAILY_CAP_MG)?,
        windows_max: None,
        dispense_rate_mg_per_s: rate.or(default_rate),
    };
    Ok(limits)
}

fn default_initial() -> Initial {
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

fn initial(given: &Sp<InitialTable>) -> Result<Initial, At> {
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

struct Place<'a> {
    scope: Scope,
    namespace: &'a str,
    node: &'a str,
    is_sim: bool,
}

fn tags(place: &Place<'_>, tables: BTreeMap<String, Sp<TagTable>>) -> Result<Tags, At> {
    let scope = if place.scope == Scope::Robot { "robot.tags" } else { "feeder.tags" };
    let mut out = Tags::new();
    for (key, table) in tables {
        let full = format!("{scope}.{key}");
        let Some(name) = TagName::from_key(place.scope, &key) else {
            let known = TagName::keys(place.scope).join(", ");
            return Err(At::new(&table.span(), full, format!("is not known; known are {known}")));
        };
        if place.is_sim {
            return Err(At::new(&table.span(), full, "a simulated PLC has no tags"));
        }
        out.insert(name, tag(place, &full, name, &table)?);
    }
    Ok(out)
}

fn tag(place: &Place<'_>, key: &str, name: TagName, table: &Sp<TagTable>) -> Result<Tag, At> {
    use super::quantity::Dimension;
    let (t, span) = (table.get_ref(), table.span());
    let namespace = t.ns.as_ref().map_or(place.namespace, |ns| ns.get_ref()).to_owned();
    let at = |text: &Sp<String>| text.get_ref().replace("{node}", place.node);
    let (text, at_span) = match (&t.node, &t.path) {
        (Some(node), None) => (at(node), node.span()),
        (None, Some(path)) => (at(path), path.span()),
        _ => return Err(At::new(&span, key, "needs either node or path")),
    };
    if text.contains('{') {
        let message = format!("{text:?} has a placeholder that nothing fills");
        return Err(At::new(&at_span, key, message));
    }
    let identifier = match (t.path.is_some(), text.strip_prefix("i=").map(str::parse)) {
        (true, _) => Identifier::Path(text.split('/').map(str::to_owned).collect()),
        (false, Some(Ok(number))) => Identifier::Number(number),
        (false, Some(Err(_))) => {
            return Err(At::new(&at_span, key, "i= must be followed by a number"));
        }
        (false, None) => Identifier::Text(text),
    };
    let dimension = name.dimension();
    let unit = t.unit.as_ref().map(|u| u.get_ref().as_str());
    let unit_span = t.unit.as_ref().map_or(span.clone(), Sp::span);
    let factor = dimension.factor(unit).map_err(|e| At::new(&unit_span, key, e))?;
    let kind = match (dimension, &t.kind) {
        (Dimension::Block, None) => TagType::Words,
        (Dimension::Block, Some(kind)) => {
            return Err(At::new(&kind.span(), key, "a block takes no type: it is an array of UInt32"));
        }
        (Dimension::Flag, None) => TagType::Bool,
        (_, Some(kind)) => *kind.get_ref(),
        (_, None) => return Err(At::new(&span, key, "needs a type, such as \"uint32\" or \"double\"")),
    };
    let scale = t.scale.as_ref().map_or(1.0, |s| *s.get_ref());
    if let Some(given) = t.scale.as_ref().filter(|s| !s.get_ref().is_finite() || *s.get_ref() <= 0.0) {
        return Err(At::new(&given.span(), key, "scale must be a number above 0"));
    }
    if dimension.units().is_empty() && t.scale.is_some() {
        return Err(At::new(&span, key, "takes no scale"));
    }
    if let Some(at) = t.equals.as_ref().map(Sp::span).or(t.bit.as_ref().map(Sp::span)) {
        let both = t.equals.is_some() && t.bit.is_some();
        if dimension != Dimension::Flag || both || kind == TagType::Bool {
            let message = "equals or bit makes a flag of a number, one of the two";
            return Err(At::new(&at, key, message));
        }
    }
    let values = t.values.as_ref().map_or_else(BTreeMap::new, |v| v.get_ref().clone());
    let words = name.words();
    if let Some(wrong) = values.keys().find(|word| !words.contains(&word.as_str())) {
        let message = format!("does not know {wrong:?}; its words are {}", words.join(", "));
        return Err(At::new(&span, key, message));
    }
    if values.values().collect::<BTreeSet<_>>().len() != values.len() {
        return Err(At::new(&span, key, "two words have the same raw value"));
    }
    if !words.is_empty() && values.is_empty() {
        let message = format!("needs values, such as {{ {} = 1 }}", words[0]);
        return Err(At::new(&span, key, message));
    }
    Ok(Tag {
        address: Address { namespace, identifier },
        kind,
        scale,
        unit: unit.unwrap_or_default().into(),
        factor,
        values,
        equals: t.equals.as_ref().map(|e| *e.get_ref()),
        bit: t.bit.as_ref().map(|b| *b.get_ref()),
        writable: !t.read_only,
        deadband: t.deadband.as_ref().map(|d| *d.get_ref() * factor),
    })
}
