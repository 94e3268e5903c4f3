//! The crash sweep: the program is killed at each crash point, in the middle of a config, a dose and
//! a hold; after the next start everything that is said is true, and no dose ran twice.

use std::collections::BTreeMap;
use std::time::Duration;

use pasamanos_proto::model::{Action, CommandName, CommandOrder, CommandReport, CommandState};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::farm::Farm;
use super::peer::Peer;
use super::process::start_with;
use super::server::Server;

const POINTS: &[&str] = &[
    "agent.command.received",
    "agent.epoch.journaled",
    "agent.dose.intent-journaled",
    "agent.dose.submitted",
    "agent.dose.consumed",
    "agent.config.intent-journaled",
    "agent.config.written",
    "agent.hold.journaled",
    "agent.outcome.before-journal",
    "agent.outcome.journaled",
    "agent.outcome.reported",
    "agent.ack.received",
    "agent.records.acked",
];

fn token(name: &CommandName) -> u32 {
    let hash = Sha256::digest(name.to_string());
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

fn note(ends: &mut BTreeMap<CommandName, CommandReport>, r: CommandReport) {
    if !r.state.is_terminal() {
        return;
    }
    if let Some(old) = ends.get(&r.command) {
        assert!(
            old.state == r.state || old.state == CommandState::Uncertain,
            "{old:?} became {r:?}"
        );
    }
    ends.insert(r.command.clone(), r);
}

/// Plays until the stream ends or nothing is expected any more.
async fn play(
    peer: &mut Peer,
    ends: &mut BTreeMap<CommandName, CommandReport>,
    awaited: &[&CommandOrder],
) {
    let _late = timeout(Duration::from_secs(12), async {
        while awaited.iter().any(|o| !ends.contains_key(&o.command)) {
            if !peer.step().await {
                return;
            }
            for r in std::mem::take(&mut peer.reports) {
                note(ends, r);
            }
        }
        peer.play(Duration::from_millis(700)).await;
    })
    .await;
    for r in std::mem::take(&mut peer.reports) {
        note(ends, r);
    }
}

async fn sweep(point: &str, nth: u32) {
    let (mut farm, mut server) = (Farm::new(), Server::start().await);
    let at = format!("{point}:{nth}");
    let mut child = start_with(&farm, &server, &[("CRASH_AT", &at)]);
    let mut ends = BTreeMap::new();
    let mut peer = server.session().await;
    let hello = peer.hello().await;
    peer.welcome(1).await;
    let config = farm.portion(&hello, 1_600);
    let dose = farm.order(Action::FeedNow { portion_mg: 100 });
    let hold = farm.order(Action::Hold);
    for order in [&config, &dose, &hold] {
        peer.order(order).await;
        play(&mut peer, &mut ends, &[order]).await;
    }
    let died = timeout(Duration::from_millis(500), child.wait()).await.is_ok();
    drop(peer);
    child.kill().await.unwrap();

    let _again = start_with(&farm, &server, &[]);
    let mut peer = server.session().await;
    let hello = peer.hello().await;
    let listed: Vec<_> = hello.commands.iter().map(|r| r.command.clone()).collect();
    for r in hello.commands {
        note(&mut ends, r);
    }
    assert!(hello.journal.slots.iter().all(|s| s.agrees()), "{at}: {:?}", hello.journal.slots);
    peer.welcome(2).await;
    let open: Vec<_> = [&config, &dose, &hold]
        .into_iter()
        .filter(|o| listed.contains(&o.command) && !ends.contains_key(&o.command))
        .collect();
    play(&mut peer, &mut ends, &open).await;
    peer.play(Duration::from_secs(1)).await;

    let ran = farm.ran();
    let times = ran.iter().filter(|(t, _)| *t == token(&dose.command)).count();
    assert!(times <= 1, "{at}: ran {times} times");
    let end = ends.get(&dose.command).map(|r| r.state);
    let expected = match end {
        Some(CommandState::Applied | CommandState::Partial) => 1,
        Some(CommandState::Expired | CommandState::Rejected) | None => 0,
        other => panic!("{at}: the dose ended as {other:?}"),
    };
    assert_eq!(times, expected, "{at}: the dose ended as {end:?}");
    for o in [&config, &hold] {
        let end = ends.get(&o.command).map(|r| r.state);
        assert!(
            end != Some(CommandState::Uncertain),
            "{at}: {:?} ended as {end:?}",
            o.action.kind()
        );
    }
    println!("{at}: died {died}, dose {end:?}, ran {times}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_crash_feeds_twice_or_lies() {
    for points in POINTS.chunks(4) {
        futures_util::future::join_all(points.iter().map(|point| sweep(point, 1))).await;
    }
}
