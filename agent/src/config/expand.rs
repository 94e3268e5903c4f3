//! Templates and ranges: `[[feeder]] template = "nursery" n = "1..40"` becomes forty feeders, and a
//! later entry for one of them overrides what it gives.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;

use super::error::At;
use super::file::{FeederTable, RobotTable, Sp, TagTable};

/// More than any farm has.
const MAX: usize = 2_000;

/// A feeder as written or expanded, without placeholders for `n`.
#[derive(Debug)]
pub(super) struct Expanded {
    pub table: FeederTable,
    pub span: Range<usize>,
    /// From a range, so that a later entry may override it.
    ranged: bool,
}

/// Expands every feeder, in the order of the file.
pub(super) fn feeders(
    templates: Vec<Sp<FeederTable>>,
    feeders: Vec<Sp<FeederTable>>,
) -> Result<Vec<Expanded>, At> {
    let templates = named(templates)?;
    let mut out: Vec<Expanded> = Vec::new();
    let mut index: BTreeMap<String, usize> = BTreeMap::new();
    for entry in feeders {
        let span = entry.span();
        let own = entry.into_inner();
        if let Some(name) = &own.name {
            return Err(At::new(&name.span(), "feeder.name", "belongs to a [[template]]; use id"));
        }
        let base = match &own.template {
            None => FeederTable::default(),
            Some(name) => templates.get(name.get_ref()).cloned().ok_or_else(|| {
                At::new(
                    &name.span(),
                    "feeder.template",
                    format!("no [[template]] is named {:?}", name.get_ref()),
                )
            })?,
        };
        let numbers = own.n.as_ref().map(|n| numbers("feeder.n", n)).transpose()?;
        let ranged = numbers.as_ref().is_some_and(|n| n.len() > 1);
        for n in each(numbers) {
            let mut given = own.clone();
            fill(&mut given, n);
            let mut whole = overlay(base.clone(), given.clone());
            fill(&mut whole, n);
            let Some(id) = whole.id.clone() else {
                return Err(At::new(&span, "feeder.id", "is required, here or in the template"));
            };
            match index.get(id.get_ref()).and_then(|i| out.get_mut(*i)) {
                None => {
                    if out.len() == MAX {
                        return Err(At::new(&span, "feeder", format!("more than {MAX} feeders")));
                    }
                    index.insert(id.get_ref().clone(), out.len());
                    out.push(Expanded { table: whole, span: span.clone(), ranged });
                }
                Some(earlier) if earlier.ranged && !ranged => {
                    earlier.table = overlay(std::mem::take(&mut earlier.table), given);
                    earlier.ranged = false;
                }
                Some(_) => {
                    let message = format!("{:?} stands twice", id.get_ref());
                    return Err(At::new(&id.span(), "feeder.id", message));
                }
            }
        }
    }
    Ok(out)
}

/// Expands every robot.
pub(super) fn robots(robots: Vec<Sp<RobotTable>>) -> Result<Vec<(RobotTable, Range<usize>)>, At> {
    let mut out = Vec::new();
    for entry in robots {
        let span = entry.span();
        let table = entry.into_inner();
        let numbers = table.n.as_ref().map(|n| numbers("robot.n", n)).transpose()?;
        for n in each(numbers) {
            let mut one = table.clone();
            let texts = [Some(&mut one.id), Some(&mut one.plc), one.node.as_mut()];
            texts.into_iter().flatten().for_each(|text| put(text, n));
            one.tags.values_mut().for_each(|tag| fill_tag(tag, n));
            out.push((one, span.clone()));
        }
        if out.len() > MAX {
            return Err(At::new(&span, "robot", format!("more than {MAX} robots")));
        }
    }
    Ok(out)
}

fn named(templates: Vec<Sp<FeederTable>>) -> Result<BTreeMap<String, FeederTable>, At> {
    let mut out = BTreeMap::new();
    for entry in templates {
        let span = entry.span();
        let mut table = entry.into_inner();
        let Some(name) = table.name.take() else {
            return Err(At::new(&span, "template.name", "is required"));
        };
        let within = [("template.template", &table.template), ("template.n", &table.n)];
        if let Some((key, value)) = within.iter().find_map(|(k, v)| Some((k, v.as_ref()?))) {
            return Err(At::new(&value.span(), *key, "belongs to a [[feeder]]"));
        }
        let at = name.span();
        if out.insert(name.into_inner(), table).is_some() {
            return Err(At::new(&at, "template.name", "stands twice"));
        }
    }
    Ok(out)
}

/// Either the numbers of a range or, without one, a single entry without a number.
fn each(numbers: Option<Vec<u32>>) -> Vec<Option<u32>> {
    numbers.map_or_else(|| vec![None], |n| n.into_iter().map(Some).collect())
}

/// Reads `7`, `1..40` (both ends included) or `1,3,10..12`.
fn numbers(key: &str, text: &Sp<String>) -> Result<Vec<u32>, At> {
    let bad = || {
        let message = format!("must be such as \"1..40\" or \"1,3,5..9\", is {:?}", text.get_ref());
        At::new(&text.span(), key, message)
    };
    let mut out = Vec::new();
    for part in text.get_ref().split(',') {
        let (from, to) = part.split_once("..").unwrap_or((part, part));
        let parse = |s: &str| s.trim().parse::<u32>().map_err(|_| bad());
        let (from, to) = (parse(from)?, parse(to)?);
        if from > to || (to - from) as usize >= MAX || out.len() >= MAX {
            return Err(bad());
        }
        out.extend(from..=to);
    }
    Ok(out)
}

/// Fields of `over` before those of `base`; tags one by one.
fn overlay(base: FeederTable, over: FeederTable) -> FeederTable {
    let mut tags = base.tags;
    tags.extend(over.tags);
    FeederTable {
        name: None,
        template: over.template.or(base.template),
        n: over.n.or(base.n),
        id: over.id.or(base.id),
        robot: over.robot.or(base.robot),
        tank: over.tank.or(base.tank),
        tank_name: over.tank_name.or(base.tank_name),
        group: over.group.or(base.group),
        display_name: over.display_name.or(base.display_name),
        node: over.node.or(base.node),
        outlet: over.outlet.or(base.outlet),
        profile: over.profile.or(base.profile),
        rate: over.rate.or(base.rate),
        step: over.step.or(base.step),
        envelope_mg: over.envelope_mg.or(base.envelope_mg),
        portion_min_mg: over.portion_min_mg.or(base.portion_min_mg),
        portion_max_mg: over.portion_max_mg.or(base.portion_max_mg),
        interval_min: over.interval_min.or(base.interval_min),
        interval_max: over.interval_max.or(base.interval_max),
        daily_cap_max_mg: over.daily_cap_max_mg.or(base.daily_cap_max_mg),
        tags,
        initial: over.initial.or(base.initial),
    }
}

fn fill(table: &mut FeederTable, n: Option<u32>) {
    let texts = [
        table.id.as_mut(),
        table.robot.as_mut(),
        table.tank.as_mut(),
        table.tank_name.as_mut(),
        table.group.as_mut(),
        table.display_name.as_mut(),
        table.node.as_mut(),
    ];
    texts.into_iter().flatten().for_each(|text| put(text, n));
    table.tags.values_mut().for_each(|tag| fill_tag(tag, n));
}

fn fill_tag(tag: &mut Sp<TagTable>, n: Option<u32>) {
    let tag = tag.get_mut();
    [tag.node.as_mut(), tag.path.as_mut()].into_iter().flatten().for_each(|text| put(text, n));
}

/// Puts the number for `{n}`, or padded with zeros for `{n:02}`.
fn put(text: &mut Spanned<String>, n: Option<u32>) {
    let Some(n) = n else { return };
    let text = text.get_mut();
    for width in 2..=4 {
        let padded = format!("{n:0width$}");
        *text = text.replace(&format!("{{n:0{width}}}"), &padded);
    }
    *text = text.replace("{n}", &n.to_string());
}
