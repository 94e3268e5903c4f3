//! `make mutants`: plants one bug after the other and runs the suites until one notices. Prints which
//! bug was caught by which test; fails if one was not.

#![allow(clippy::print_stdout, reason = "a report")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use pasamanos_faults::{Bug, PLANTED};
use pasamanos_tests::paths::root;
use tokio::process::Command;
use tokio::time::{Instant, timeout};

/// Plants each bug and looks for the test that notices it.
#[derive(Debug, Parser)]
struct Args {
    /// Only bugs whose name contains this.
    #[arg(long, default_value = "")]
    bug: String,
    /// Only suites whose name contains this; all suites, in order, without it.
    #[arg(long, default_value = "")]
    suite: String,
    /// Go on after the first suite that notices.
    #[arg(long)]
    all: bool,
}

/// The order in which suites are asked: those that answer fastest first.
const SUITES: &[&str] = &[
    "pasamanos_server",
    "store_contract",
    "lease_conformance",
    "pasamanos_agent",
    "link",
    "driver_contract",
    "forged_agent",
    "forged_server",
    "interleavings",
    "commands",
    "gate",
    "recovery",
    "crashes",
    "kills",
    "link_cuts",
    "opcua",
    "restores",
    "clocks",
];

/// A suite that hangs has noticed too: nothing else makes it hang.
const PATIENCE: Duration = Duration::from_mins(5);
/// As many seeds of the simulation as find a bug, not as many as prove its absence.
const SEEDS: &str = "60";

/// One test program.
#[derive(Debug)]
struct Suite {
    name: String,
    program: PathBuf,
    dir: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let suites = suites(&args).await?;
    let bugs: Vec<_> = PLANTED.iter().filter(|bug| bug.name.contains(&args.bug)).collect();
    anyhow::ensure!(!bugs.is_empty(), "no bug is named like {:?}", args.bug);
    let (began, mut rows, mut escaped) = (Instant::now(), Vec::new(), Vec::new());
    let mut sound = BTreeSet::new();
    for (n, bug) in bugs.iter().enumerate() {
        let caught = caught(bug, &suites, &mut sound, args.all).await?;
        let s = began.elapsed().as_secs();
        println!("{}/{} {}: {} ({s} s)", n + 1, bugs.len(), bug.name, told(&caught));
        if caught.is_empty() {
            escaped.push(bug.name);
        }
        rows.push(format!(
            "| `{}` | {} | {} | {} |",
            bug.name,
            bug.promise,
            bug.what,
            told(&caught)
        ));
    }
    println!("\n| planted bug | breaks | what it does | caught by |\n|---|---|---|---|");
    for row in &rows {
        println!("{row}");
    }
    println!("\n{} of {} caught", bugs.len() - escaped.len(), bugs.len());
    anyhow::ensure!(escaped.is_empty(), "nothing noticed {}", escaped.join(", "));
    Ok(())
}

fn told(caught: &[String]) -> String {
    match caught {
        [] => "NOTHING".into(),
        few if few.len() <= 3 => few.join(", "),
        [first @ .., _] => format!("{} and {} more", first[..3].join(", "), caught.len() - 3),
    }
}

/// The tests that fail with this bug: of the first suite in which any does, or of all.
async fn caught(
    bug: &Bug,
    suites: &[Suite],
    sound: &mut BTreeSet<String>,
    all: bool,
) -> anyhow::Result<Vec<String>> {
    let side = bug.name.split('-').next().unwrap_or_default();
    let mut found = Vec::new();
    for suite in suites {
        // One program's own tests do not run the other; the simulation, among the agent's, runs both.
        let other: &[_] = match side {
            "agent" => &["pasamanos_server", "store_contract", "lease_conformance"],
            _ => &["link", "driver_contract"],
        };
        if other.contains(&suite.name.as_str()) {
            continue;
        }
        let failed = failing(bug.name, suite).await?;
        // A suite that fails by itself notices nothing.
        if !failed.is_empty() && sound.insert(suite.name.clone()) {
            let anyway = failing("", suite).await?;
            anyhow::ensure!(anyway.is_empty(), "{} fails by itself: {}", suite.name, told(&anyway));
        }
        found.extend(failed);
        if !found.is_empty() && !all {
            break;
        }
    }
    Ok(found)
}

/// Runs a suite with the bug planted, or with none, and answers with what failed.
async fn failing(bug: &str, suite: &Suite) -> anyhow::Result<Vec<String>> {
    let run = Command::new(&suite.program)
        .current_dir(&suite.dir)
        .env("PASAMANOS_PLANTED", bug)
        .env("SIMULATION_SEEDS", SEEDS)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let Ok(output) = timeout(PATIENCE, run).await else {
        return Ok(vec![format!("{} (it hangs)", suite.name)]);
    };
    let output = output.with_context(|| format!("{} does not run", suite.program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut failed = failures(&text);
    if failed.is_empty() && !output.status.success() {
        failed.push(format!("{} (it dies)", suite.name));
    }
    Ok(failed)
}

/// The names under the last `failures:` of a test program's output.
fn failures(output: &str) -> Vec<String> {
    let Some((_, list)) = output.rsplit_once("\nfailures:\n") else { return Vec::new() };
    let names = list.lines().take_while(|line| line.starts_with("    "));
    names.map(|line| format!("`{}`", line.trim())).collect()
}

/// The test programs of this workspace, built, in the order of [`SUITES`].
async fn suites(args: &Args) -> anyhow::Result<Vec<Suite>> {
    println!("building the suites");
    let built = Command::new(env!("CARGO"))
        .args(["test", "--workspace", "--locked", "--no-run", "--message-format=json"])
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .await?;
    anyhow::ensure!(built.status.success(), "the tests do not build");
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(&built.stdout).lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        let (Some(program), Some(name), Some(manifest), Some(true)) = (
            message["executable"].as_str(),
            message["target"]["name"].as_str(),
            message["manifest_path"].as_str(),
            message["profile"]["test"].as_bool(),
        ) else {
            continue;
        };
        let kind = message["target"]["kind"][0].as_str();
        if kind != Some("lib") && kind != Some("test") {
            continue;
        }
        let dir = PathBuf::from(manifest).parent().map(PathBuf::from).unwrap_or_default();
        found.push(Suite { name: name.to_owned(), program: program.into(), dir });
    }
    let place = |suite: &Suite| SUITES.iter().position(|name| *name == suite.name);
    found.retain(|suite| place(suite).is_some() && suite.name.contains(&args.suite));
    found.sort_by_key(place);
    anyhow::ensure!(!found.is_empty(), "no suite is named like {:?}", args.suite);
    Ok(found)
}
