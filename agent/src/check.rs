//! `pasamanos-agent check`: proves the tag map against the PLCs. It never writes to one, so it may run
//! on a farm that feeds, beside the agent if the PLC allows another session.
//!
//! `--write-test` (writing each present value back on a held feeder) is not offered yet.

use std::io::{self, Write};

use crate::config::{Access, Config, Plc, PlcDriver};
use crate::driver::opcua::{Probed, probe};

const HEADER: [&str; 8] = ["of", "tag", "address", "raw", "value", "unit", "age", "verdict"];
/// A block's raw words are cut here.
const RAW_WIDTH: usize = 24;

/// Prints one row for each mapped tag and says whether all are well.
///
/// # Errors
/// If it cannot be printed.
pub async fn run(config: &Config, out: &mut (dyn Write + Send)) -> io::Result<bool> {
    let mut well = true;
    for plc in &config.plcs {
        let access = match plc.access {
            Access::ReadOnly => "read only",
            Access::ReadWrite => "read and write",
        };
        match &plc.driver {
            PlcDriver::Sim(_) => {
                let feeders: usize = plc.robots.iter().map(|r| r.feeders.len()).sum();
                writeln!(
                    out,
                    "{}: simulated, {feeders} feeders, {access}: no tags to prove",
                    plc.name
                )?;
            }
            PlcDriver::OpcUa(of) => {
                writeln!(out, "{}: {}, {access}", plc.name, of.url)?;
                match probe(&config.data_dir, plc, of).await {
                    Ok(proof) => {
                        well &= print(plc, &proof.rows, out)?;
                        writeln!(out, "  changes: {}", proof.changes)?;
                    }
                    Err(problem) => {
                        well = false;
                        writeln!(out, "  PROBLEM: {problem}")?;
                    }
                }
            }
        }
    }
    writeln!(out, "{}", if well { "all well" } else { "there are problems: see above" })?;
    Ok(well)
}

fn print(plc: &Plc, rows: &[Probed], out: &mut (dyn Write + Send)) -> io::Result<bool> {
    let texts: Vec<[String; 8]> = rows.iter().map(columns).collect();
    let mut widths = HEADER.map(str::len);
    for row in &texts {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    let mut line = |row: [&str; 8]| {
        let padded = row.iter().zip(widths).map(|(text, width)| format!("{text:width$}"));
        writeln!(out, "  {}", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    line(HEADER)?;
    for row in &texts {
        line(row.each_ref().map(String::as_str))?;
    }
    for robot in &plc.robots {
        let alive = rows.iter().any(|row| {
            row.owner == robot.id.as_str() && ["alive", "status", "plc_time"].contains(&row.tag)
        });
        if !alive {
            writeln!(out, "  note: {} has no alive tag: its life cannot be proven", robot.id)?;
        }
    }
    let bad = rows.iter().filter(|row| row.problem.is_some()).count();
    writeln!(out, "  {} tags, {bad} with a problem", rows.len())?;
    Ok(bad == 0)
}

fn columns(row: &Probed) -> [String; 8] {
    let mut raw: String = row.raw.chars().take(RAW_WIDTH).collect();
    if raw.len() < row.raw.len() {
        raw.push('…');
    }
    let age = match row.age_ms {
        None => "-".into(),
        Some(ms) if ms < 1_000 => format!("{ms} ms"),
        Some(ms) => format!("{} s", ms / 1_000),
    };
    [
        row.owner.clone(),
        row.tag.into(),
        row.address.clone(),
        raw,
        row.scaled.clone(),
        row.unit.into(),
        age,
        row.problem.as_ref().map_or_else(|| "OK".into(), |p| format!("PROBLEM: {p}")),
    ]
}
