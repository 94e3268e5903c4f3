//! `[robot.tags]` and `[feeder.tags]`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::error::At;
use super::super::file::{Sp, TagTable};
use super::super::quantity::Dimension;
use super::super::tags::{Address, Identifier, Scope, TagType};
use super::super::{Tag, TagName, Tags, quantity};
use super::take;

/// Where the tags stand and what they begin with.
pub(super) struct Place<'a> {
    pub scope: Scope,
    pub namespace: &'a str,
    pub node: &'a str,
    pub is_sim: bool,
}

pub(super) fn tags(place: &Place<'_>, tables: BTreeMap<String, Sp<TagTable>>) -> Result<Tags, At> {
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
            return Err(At::new(
                &kind.span(),
                key,
                "a block takes no type: it is an array of UInt32",
            ));
        }
        (Dimension::Flag, None) => TagType::Bool,
        (_, Some(kind)) => *kind.get_ref(),
        (_, None) => {
            return Err(At::new(&span, key, "needs a type, such as \"uint32\" or \"double\""));
        }
    };
    let scale = t.scale.as_ref().map_or(1.0, |s| *s.get_ref());
    if let Some(given) =
        t.scale.as_ref().filter(|s| !s.get_ref().is_finite() || *s.get_ref() <= 0.0)
    {
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
    let still = |of: &Option<Sp<String>>| still_after(key, name, of.as_ref());
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
        frozen_after: still(&t.frozen_after)?,
        stale_after: still(&t.stale_after)?,
    })
}

/// How long a reading may stand still.
fn still_after(key: &str, name: TagName, of: Option<&Sp<String>>) -> Result<Option<Duration>, At> {
    let Some(text) = of else { return Ok(None) };
    if !name.is_reading() {
        return Err(At::new(&text.span(), key, "only a reading of a tank may stand still"));
    }
    let after = take(key, of, quantity::duration)?;
    if after.is_some_and(|d| (Duration::from_secs(1)..=Duration::from_hours(168)).contains(&d)) {
        return Ok(after);
    }
    Err(At::new(&text.span(), key, "must be 1 s to 7 days"))
}
