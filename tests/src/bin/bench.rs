//! `make bench`: how long a change takes, how many pass, and what processor time and memory it costs,
//! beside a bare fsync of the same disk in the same run. Ratios carry over to other machines, figures do
//! not; processor time a change says most where other work disturbs the clock.

#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a report of ratios")]

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use pasamanos_proto::pb::{self, CommandState};
use pasamanos_tests::{Client, Stack};
use tokio::task::JoinSet;
use tokio::time::Instant;

const CALLERS: usize = 64;
const RUN: Duration = Duration::from_secs(8);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let fsync = fsync_us()?;
    println!("bare append + fdatasync: p50 {} µs, p99 {} µs", fsync.0, fsync.1);

    // The shipped poll; a robot of its own for each caller, as commands of one robot run in order.
    let farm = |tanks: usize| {
        let farm = pasamanos_tests::stack::sim(tanks).replace("100ms", "250ms");
        Stack::builder().server_args(&["--log", "warn"]).farm(farm + "tanks_per_robot = 1\n")
    };
    for (callers, tanks) in [(1, 6), (8, 8), (CALLERS, CALLERS)] {
        let mut stack = farm(tanks).start().await?;
        let status = stack.client.farm().await?;
        let feeders: Vec<String> = status.feeders.into_iter().map(|f| f.name).collect();
        let mut latencies = Vec::new();
        let mut set = JoinSet::new();
        let cpu = (stack.server()?.cpu_ms()?, stack.agent()?.cpu_ms()?);
        let started = Instant::now();
        for feeder in feeders.iter().take(callers).cloned() {
            let addr = stack.grpc.clone();
            set.spawn(async move { caller(&addr, feeder, started).await });
        }
        while let Some(done) = set.join_next().await {
            latencies.extend(done??);
        }
        let seconds = started.elapsed().as_secs_f64();
        let changes = latencies.len() as f64;
        let server = (stack.server()?.cpu_ms()? - cpu.0) as f64 / changes;
        let agent = (stack.agent()?.cpu_ms()? - cpu.1) as f64 / changes;
        latencies.sort_unstable();
        let (p50, p99) = (at(&latencies, 50), at(&latencies, 99));
        println!(
            "{callers:>2} callers: {changes} changes, {:.0}/s, p50 {p50} µs ({:.1} × fsync), \
             p99 {p99} µs; CPU a change: server {server:.2} ms, agent {agent:.2} ms",
            changes / seconds,
            p50 as f64 / fsync.0 as f64,
        );
    }
    let mut stack = farm(50).start().await?;
    for _ in 0..3 {
        stack.client.farm().await?;
    }
    let (server, agent) = (stack.server()?.rss_kib()?, stack.agent()?.rss_kib()?);
    println!(
        "one farm of 50 feeders: server {:.1} MiB, agent {:.1} MiB resident",
        server as f64 / 1024.0,
        agent as f64 / 1024.0
    );
    Ok(())
}

/// One caller on its own connection and feeder: change after change, each on the config before.
async fn caller(addr: &str, feeder: String, started: Instant) -> anyhow::Result<Vec<u128>> {
    let client = Client::new(addr)?;
    let id = feeder.rsplit('/').next().unwrap_or_default().to_owned();
    let mut now = client.feeder(&id).await?;
    let mut latencies = Vec::new();
    while started.elapsed() < RUN {
        let portion = now.config.as_ref().and_then(|c| c.portion_mg).context("no portion")?;
        let step = now.limits.as_ref().and_then(|l| l.portion_step_mg).unwrap_or(50);
        let up = latencies.len() % 2 == 0;
        let request = pb::UpdateFeederConfigRequest {
            name: feeder.clone(),
            config: Some(pb::FeederConfig {
                portion_mg: Some(if up { portion + step } else { portion - step }),
                ..Default::default()
            }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["portion_mg".into()] }),
            etag: now.etag.clone(),
            request_id: pasamanos_tests::client::request_id(),
            ..Default::default()
        };
        let asked = Instant::now();
        let answer = client.feeders.clone().update_feeder_config(request).await?.into_inner();
        latencies.push(asked.elapsed().as_micros());
        let state = answer.command.map(|c| c.state());
        anyhow::ensure!(state == Some(CommandState::Applied), "{state:?}");
        now = answer.feeder.context("no feeder")?;
    }
    Ok(latencies)
}

fn at(sorted: &[u128], percent: usize) -> u128 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or(0)
}

/// What the disk allows: a 4 KiB append and its fdatasync.
fn fsync_us() -> anyhow::Result<(u128, u128)> {
    let mut file = tempfile::NamedTempFile::new()?;
    let mut times = Vec::new();
    for _ in 0..500 {
        file.write_all(&[7; 4096])?;
        let started = Instant::now();
        file.as_file().sync_data()?;
        times.push(started.elapsed().as_micros());
    }
    times.sort_unstable();
    Ok((at(&times, 50), at(&times, 99)))
}
