//! `make kills KILLS=1000`: kills agent and server of working farms at random, that many times, and
//! judges each farm by its PLC's own log. Prints progress, the seed of what failed, and a table.

#![allow(clippy::print_stdout, reason = "a report")]

use std::collections::VecDeque;

use clap::Parser;
use pasamanos_tests::kills::{Season, Tally};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Kills agent and server of working farms at random, and judges what is left.
#[derive(Debug, Parser)]
struct Args {
    /// How many kills in all.
    #[arg(long, default_value_t = 1_000)]
    kills: usize,
    /// How many of them strike one farm before a new one begins.
    #[arg(long, default_value_t = 50)]
    per_farm: usize,
    /// How many farms run side by side.
    #[arg(long, default_value_t = 3)]
    farms: usize,
    /// The first farm's seed; those after it count on.
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let first = args.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
    let mut seasons: VecDeque<Season> = VecDeque::new();
    let mut left = args.kills;
    while left > 0 {
        let kills = left.min(args.per_farm.max(1));
        seasons.push_back(Season { seed: first + seasons.len() as u64, kills });
        left -= kills;
    }
    let (began, mut tally, mut failed) = (Instant::now(), Tally::default(), 0);
    let (all, mut done) = (seasons.len(), 0);
    let mut running = JoinSet::new();
    loop {
        while running.len() < args.farms.max(1)
            && let Some(season) = seasons.pop_front()
        {
            running.spawn(async move { (season, season.play().await) });
        }
        let Some(ended) = running.join_next().await else { break };
        let (season, outcome) = ended?;
        done += 1;
        let broken = match outcome {
            Ok((met, broken)) => {
                tally.add(&met);
                broken
            }
            Err(e) => vec![format!("{e:#}")],
        };
        failed += broken.len();
        for one in &broken {
            println!("seed {}: {one}", season.seed);
        }
        println!(
            "farm {done}/{all}, seed {}: {} kills, {} broken promises; {} kills in {} s",
            season.seed,
            season.kills,
            broken.len(),
            tally.killed.0 + tally.killed.1,
            began.elapsed().as_secs(),
        );
        if !broken.is_empty() {
            let (seed, kills) = (season.seed, season.kills);
            println!("again: make kills KILLS={kills} SEED={seed}");
        }
    }
    println!("\nfirst seed {first}\n{tally}\nbroken promises: {failed}");
    anyhow::ensure!(failed == 0, "{failed} broken promises");
    Ok(())
}
