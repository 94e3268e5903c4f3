//! The program that farms run: signals, sleep, size.

use std::process::Stdio;
use std::time::{Duration, Instant};

use pasamanos_proto::model::{Action, CommandState};
use tokio::process::{Child, Command};

use super::farm::Farm;
use super::server::Server;

pub(crate) fn start(farm: &Farm, server: &Server) -> Child {
    start_with(farm, server, &[])
}

pub(crate) fn start_with(farm: &Farm, server: &Server, env: &[(&str, &str)]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_pasamanos-agent"))
        .arg("--config")
        .arg(farm.toml(server.address))
        .args(["--log", "warn", "--log-format", "json"])
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().unwrap().to_string();
    let sent = std::process::Command::new("kill").args([name, &pid]).status().unwrap();
    assert!(sent.success());
}

#[tokio::test]
async fn a_terminated_agent_says_goodbye_and_ends() {
    let (farm, mut server) = (Farm::new(), Server::start().await);
    let mut child = start(&farm, &server);
    let mut peer = server.session().await;
    peer.hello().await;
    peer.welcome(1).await;
    peer.play(Duration::from_secs(1)).await;
    let began = Instant::now();
    signal(&child, "-TERM");
    while peer.step().await {}
    assert!(peer.said_goodbye);
    drop(peer);
    assert!(child.wait().await.unwrap().success());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_second_agent_on_one_directory_ends_with_a_message() {
    let (farm, mut server) = (Farm::new(), Server::start().await);
    let _first = start(&farm, &server);
    let mut peer = server.session().await;
    peer.hello().await;
    let second = Command::new(env!("CARGO_BIN_EXE_pasamanos-agent"))
        .arg("--config")
        .arg(farm.toml(server.address))
        .output()
        .await
        .unwrap();
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(text.contains("another agent runs on this data directory"), "{text}");
}

/// Stopped past the lease, it begins nothing that waited in its buffers, and is back soon.
#[tokio::test]
async fn an_agent_that_slept_begins_nothing_old_and_comes_back() {
    let (mut farm, mut server) = (Farm::new(), Server::start().await);
    let child = start(&farm, &server);
    let mut peer = server.session().await;
    peer.hello().await;
    peer.lease = (1_500, 500);
    peer.welcome(1).await;
    peer.play(Duration::from_secs(1)).await;
    signal(&child, "-STOP");
    let mut old = farm.order(Action::FeedNow { portion_mg: 100 });
    // Even one that would not be too late: the session is.
    old.start_before_ms += 60_000;
    peer.order(&old).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    signal(&child, "-CONT");
    let back = Instant::now();
    drop(peer);
    let mut peer = server.session().await;
    let hello = peer.hello().await;
    peer.welcome(2).await;
    assert!(hello.commands.is_empty(), "{:?}", hello.commands);
    let dose = farm.order(Action::FeedNow { portion_mg: 100 });
    peer.order(&dose).await;
    assert_eq!(peer.outcome(&dose.command).await.state, CommandState::Applied);
    assert!(back.elapsed() < Duration::from_secs(10), "{:?}", back.elapsed());
    assert_eq!(farm.ran().len(), 1);
}

/// An intent and an outcome: two waits for the disk a config change, and no more for a dose.
#[tokio::test]
async fn a_change_costs_two_fsyncs() {
    let (mut farm, mut server) = (Farm::new(), Server::start().await);
    let child = start(&farm, &server);
    let mut peer = server.session().await;
    let hello = peer.hello().await;
    peer.welcome(1).await;
    peer.play(Duration::from_secs(2)).await;
    let trace = farm.data().join("trace");
    let pid = child.id().unwrap().to_string();
    let strace = Command::new("strace")
        .args(["-f", "-y", "-e", "trace=fsync,fdatasync", "-p", &pid, "-o"])
        .arg(&trace)
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut strace) = strace else {
        println!("skipped: no strace here");
        return;
    };
    peer.play(Duration::from_millis(1_500)).await;
    let syncs = || {
        let text = std::fs::read_to_string(&trace).unwrap_or_default();
        let of_journal = |l: &&str| l.contains("sync(") && l.contains("journal.db");
        text.lines().filter(of_journal).count()
    };
    let mut before = syncs();
    for mg in [1_600, 1_700, 1_800] {
        let hello = &hello;
        let config = farm.portion_from(hello, if mg == 1_600 { None } else { Some(mg - 100) }, mg);
        peer.order(&config).await;
        assert_eq!(peer.outcome(&config.command).await.state, CommandState::Applied);
        peer.play(Duration::from_millis(600)).await;
        println!("config: {} syncs", syncs() - before);
        assert_eq!(syncs() - before, 2);
        before = syncs();
    }
    let dose = farm.order(Action::FeedNow { portion_mg: 100 });
    peer.order(&dose).await;
    assert_eq!(peer.outcome(&dose.command).await.state, CommandState::Applied);
    peer.play(Duration::from_millis(600)).await;
    println!("dose: {} syncs", syncs() - before);
    assert_eq!(syncs() - before, 2);
    signal(&strace, "-INT");
    strace.wait().await.unwrap();
}

/// Under 30 MiB, after some work. Only the program as it is shipped is measured against that.
#[tokio::test]
async fn an_agent_is_small() {
    let (mut farm, mut server) = (Farm::new(), Server::start().await);
    let child = start(&farm, &server);
    let mut peer = server.session().await;
    let hello = peer.hello().await;
    peer.welcome(1).await;
    let config = farm.portion(&hello, 1_600);
    peer.order(&config).await;
    peer.outcome(&config.command).await;
    for _ in 0..20 {
        let dose = farm.order(Action::FeedNow { portion_mg: 100 });
        peer.order(&dose).await;
        peer.outcome(&dose.command).await;
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id().unwrap())).unwrap();
    let rss = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    let kib: u64 = rss.split_whitespace().nth(1).unwrap().parse().unwrap();
    println!("RSS {kib} KiB");
    assert!(kib < 30 * 1024 || cfg!(debug_assertions), "{kib} KiB");
}
