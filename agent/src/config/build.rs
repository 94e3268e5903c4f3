//! From the file as written to a configuration that is valid.

mod feeder;
mod initial;
mod plc;
mod tag;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pasamanos_proto::model::{self, AgentName, Invalid};

use super::error::At;
use super::expand;
use super::file::{File, Sp};
use super::{Config, ConfigError, Overrides, Plc, PlcDriver};

const DEFAULT_SERVER: &str = "http://127.0.0.1:50051";
const DEFAULT_DATA_DIR: &str = "pasamanos-agent-data";
const DEFAULT_NAMESPACE: &str = "urn:farm:plc";

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
        (None, Some(written)) => agent_name(written.get_ref())
            .map_err(|e| locate(At::new(&written.span(), "agent", e)))?,
        (None, None) => {
            let what =
                "agent is required: the name farms/{farm}/agents/{agent} that the platform gave";
            return Err(ConfigError::file(path, what));
        }
    };
    let data_dir = overrides.data_dir.clone().or(file.data_dir.clone());
    let plcs = plcs(path, file).map_err(locate)?;
    if plcs.iter().all(|plc| plc.robots.is_empty()) {
        return Err(ConfigError::file(
            path,
            "there is no feeder: [[plc]], [[robot]] and [[feeder]] make one",
        ));
    }
    Ok(Config {
        server,
        agent,
        data_dir: data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into()),
        plcs,
    })
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
            let message =
                "must be 3 to 63 of a-z, 0-9 and -, begin with a letter and not end with -";
            return Err(At::new(&table.name.span(), "plc.name", message));
        }
        let namespace = table.namespace.as_ref().map_or(DEFAULT_NAMESPACE, |n| n.get_ref());
        namespaces.insert(name, namespace.to_owned());
        let control = table.control.as_ref().map(Sp::span);
        controls += usize::from(control.is_some());
        if let (Some(span), true) = (control, controls > 1) {
            return Err(At::new(&span, "plc.control", "only one simulated PLC may have one"));
        }
        plcs.push(plc::plc(path, &span, table)?);
    }
    let sims: BTreeSet<String> = plcs
        .iter()
        .filter(|p| matches!(p.driver, PlcDriver::Sim(_)))
        .map(|p| p.name.clone())
        .collect();
    let mut robots = BTreeSet::new();
    for plc in &plcs {
        robots.extend(plc.robots.iter().map(|r| r.id.to_string()));
    }
    let mut written: BTreeMap<String, (String, String)> = BTreeMap::new();
    for (table, span) in expand::robots(file.robot)? {
        let of = table.plc.get_ref().clone();
        let Some(plc) = plcs.iter_mut().find(|plc| plc.name == of) else {
            return Err(At::new(
                &table.plc.span(),
                "robot.plc",
                format!("no [[plc]] is named {of:?}"),
            ));
        };
        if !robots.insert(table.id.get_ref().clone()) {
            let message = format!("{:?} stands twice", table.id.get_ref());
            return Err(At::new(&table.id.span(), "robot.id", message));
        }
        let namespace = namespaces.get(&of).cloned().unwrap_or_default();
        let is_sim = sims.contains(&of);
        written.insert(table.id.get_ref().clone(), (of, namespace.clone()));
        plc.robots.push(feeder::robot(&span, table, &namespace, is_sim)?);
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
        let feeder = feeder::feeder(&entry, robot, namespace, sims.contains(of))?;
        if !ids.insert(feeder.id.to_string()) {
            return Err(At::new(&entry.span, "feeder.id", format!("{} stands twice", feeder.id)));
        }
        if robot.feeders.iter().any(|f| f.outlet == feeder.outlet) {
            let message = format!("{} has two feeders on outlet {}", robot.id, feeder.outlet);
            return Err(At::new(&entry.span, "feeder.outlet", message));
        }
        if !sims.contains(of) {
            feeder::slot(&entry.span, robot, &feeder, namespace)?;
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

fn id<T: std::str::FromStr<Err = Invalid>>(key: &str, text: &Sp<String>) -> Result<T, At> {
    text.get_ref().parse().map_err(|e: Invalid| {
        let rule = e.violations.first().map_or_else(String::new, |v| v.description.clone());
        At::new(&text.span(), key, format!("{rule}, is {:?}", text.get_ref()))
    })
}
