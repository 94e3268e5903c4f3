//! `[[plc]]`.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::error::At;
use super::super::file::{DriverName, PlcTable, Sp};
use super::super::{Access, OpcUa, Plc, PlcDriver, Security, Sim, quantity, sim_farm};
use super::take;

const DEFAULT_POLL: Duration = Duration::from_millis(250);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// Shorter than the poll, or it would hasten nothing.
const DEFAULT_SUBSCRIBE: Duration = Duration::from_millis(100);

pub(super) fn plc(path: &Path, span: &Range<usize>, t: PlcTable) -> Result<Plc, At> {
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
            belongs("plc.subscribe", t.subscribe.as_ref().map(Sp::span), to)?;
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
    let subscribe = take("plc.subscribe", t.subscribe.as_ref(), subscribe)?;
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
        password_file: t.password_file.map(|f| beside(path, f.get_ref())),
        timeout,
        subscribe: subscribe.unwrap_or(Some(DEFAULT_SUBSCRIBE)),
    });
    let access = t.access.unwrap_or(Access::ReadOnly);
    Ok(Plc { name: t.name.into_inner(), poll, access, driver, robots: Vec::new() })
}

/// How often changes are published; `off` for never.
fn subscribe(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    match quantity::duration(text) {
        Ok(every) if (Duration::from_millis(50)..=Duration::from_secs(2)).contains(&every) => {
            Ok(Some(every))
        }
        _ => Err(format!("must be \"off\" or 50 ms to 2 s, is {text:?}")),
    }
}

/// A relative path is meant from the file that names it.
fn beside(path: &Path, file: &Path) -> PathBuf {
    path.parent().map_or_else(|| file.into(), |dir| dir.join(file))
}
