//! Sessions: hello first, epochs durable first, ends of every kind.

use std::time::Duration;

use pasamanos_proto::model::{AgentFrameBody, CommandState, duration_from_ms};
use pasamanos_proto::pb::{self, connect_response::Frame};
use tokio::time::Instant;

use crate::BuildError;
use crate::journal::JournalError;
use crate::testing::{FEEDER, Rig};

#[tokio::test(start_paused = true)]
async fn hello_comes_first_and_tells_what_there_is() {
    let mut rig = Rig::new().await;
    let mut peer = rig.session().await;
    let hello = peer.hello().await;
    assert_eq!(hello.inventory.feeders.len(), 2);
    assert!(hello.inventory.feeders.iter().all(|f| f.config.is_some()));
    assert_eq!(hello.inventory.feeders[0].limits.portion_max_mg, Some(10_000));
    assert_eq!(hello.journal.slots[0].plc, (77, 0));
    assert!(hello.journal.slots[0].readable && hello.journal.slots[0].agrees());
}

#[tokio::test(start_paused = true)]
async fn p4_the_epoch_is_durable_before_the_first_frame_under_it() {
    let mut rig = Rig::new().await;
    let mut peer = rig.session().await;
    peer.hello().await;
    peer.welcome(41).await;
    let first = peer.frame().await.unwrap();
    assert_eq!(first.epoch, 41);
    assert!(matches!(first.body, AgentFrameBody::Heartbeat(_)), "at once: {first:?}");
    // Killed as soon as the frame is out.
    rig.restart().await;
    assert_eq!(rig.session().await.hello().await.journal.last_epoch, 41);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_come_at_the_interval_that_the_server_tells() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_secs(1)).await;
    assert_eq!(peer.beats, 1);
    let began = Instant::now();
    while peer.beats < 11 {
        assert!(peer.step().await);
    }
    let took = began.elapsed().as_secs();
    assert!((78..=81).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_ends_the_session() {
    let mut rig = Rig::new().await;
    let peer = rig.open().await;
    let began = Instant::now();
    let _next = rig.session().await;
    let took = began.elapsed().as_secs();
    assert!((25..=28).contains(&took), "{took}");
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_is_tried_again_within_a_second() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_secs(1)).await;
    let began = Instant::now();
    drop(peer);
    let _next = rig.session().await;
    assert!(began.elapsed() <= Duration::from_millis(1_100));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_agent_comes_back_slowly() {
    let mut rig = Rig::new().await;
    let mut peer = rig.session().await;
    peer.hello().await;
    let goodbye = pb::Goodbye { reason: "UNKNOWN_AGENT".into(), ..Default::default() };
    peer.send(Frame::Goodbye(goodbye)).await;
    let began = Instant::now();
    let _next = rig.session().await;
    assert!((30..=61).contains(&began.elapsed().as_secs()));
}

#[tokio::test(start_paused = true)]
async fn a_superseded_session_stops_and_waits_for_the_servers_time() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_secs(1)).await;
    let goodbye = pb::Goodbye {
        reason: "SESSION_SUPERSEDED".into(),
        retry_after: Some(duration_from_ms(20_000)),
        ..Default::default()
    };
    peer.send(Frame::Goodbye(goodbye)).await;
    while peer.step().await {}
    let began = Instant::now();
    let _next = rig.session().await;
    assert!(began.elapsed() >= Duration::from_secs(19));
}

#[tokio::test(start_paused = true)]
async fn a_drained_session_goes_on_until_its_time_and_keeps_its_lease() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_secs(1)).await;
    peer.send(Frame::Drain(pb::Drain { reconnect_after: Some(duration_from_ms(9_000)) })).await;
    let began = Instant::now();
    while peer.step().await {}
    let (took, ended) = (began.elapsed(), Instant::now());
    assert!((8..=10).contains(&took.as_secs()), "{took:?}");
    assert!(!peer.said_goodbye, "a goodbye would release the lease");
    assert!(peer.beats >= 2);
    let _next = rig.session().await;
    assert!(ended.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_what_runs_and_says_goodbye() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let order = rig.feed(2_000);
    peer.order(&order).await;
    peer.executing(&order.command).await;
    let began = Instant::now();
    rig.stop();
    assert_eq!(peer.outcome(&order.command).await.state, CommandState::Applied);
    while peer.step().await {}
    assert!(peer.said_goodbye);
    drop(peer);
    rig.stopped().await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn p11_a_stop_does_not_wait_for_a_server_that_does_not_read() {
    let mut rig = Rig::new().await;
    let _peer = rig.open().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let began = Instant::now();
    rig.stop();
    rig.stopped().await;
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn p9_an_outcome_is_told_until_it_is_acknowledged_and_in_the_next_hello() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    peer.ack = false;
    let order = rig.feed(1_000);
    peer.order(&order).await;
    let first = peer.outcome(&order.command).await;
    assert_eq!(peer.outcome(&order.command).await, first, "told again");
    // Its record was sent and not acknowledged; the journal is written again after that.
    let second = rig.feed(1_000);
    peer.order(&second).await;
    let second = peer.outcome(&second.command).await;
    rig.restart().await;
    let mut peer = rig.session().await;
    let hello = peer.hello().await;
    assert_eq!(hello.commands, vec![first.clone(), second.clone()]);
    assert!(hello.journal.record_high_water >= 1);
    peer.welcome(2).await;
    peer.play(Duration::from_secs(2)).await;
    assert_eq!(peer.doses().len(), 2, "records are sent again");
    for command in [&first.command, &second.command] {
        let ack = pb::CommandAck {
            command: command.to_string(),
            state: pb::CommandState::Applied.into(),
            resolution: None,
            anchor: None,
        };
        peer.send(Frame::CommandAck(ack)).await;
    }
    peer.play(Duration::from_secs(2)).await;
    drop(peer);
    let hello = rig.session().await.hello().await;
    assert!(hello.commands.is_empty());
    assert_eq!(hello.journal.oldest_record, 0, "forgotten once acknowledged");
}

#[tokio::test(start_paused = true)]
async fn p3_a_second_agent_on_one_journal_is_refused() {
    let rig = Rig::new().await;
    let second = rig.second().await;
    assert!(matches!(second, Err(BuildError::Journal(JournalError::Locked(_)))));
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_does_not_grow_is_no_session() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_secs(1)).await;
    drop(peer);
    let mut peer = rig.session().await;
    peer.hello().await;
    peer.welcome(1).await;
    assert!(peer.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_robot_that_can_be_read_again_is_introduced_anew() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_secs(1)).await;
    rig.plc.plc().readable = false;
    drop(peer);
    let mut peer = rig.session().await;
    let hello = peer.hello().await;
    assert!(!hello.journal.slots[0].readable);
    peer.welcome(2).await;
    peer.play(Duration::from_secs(20)).await;
    rig.plc.plc().readable = true;
    while peer.step().await {}
    assert!(!peer.said_goodbye);
    let hello = rig.session().await.hello().await;
    assert!(hello.journal.slots[0].readable && hello.journal.slots[0].agrees());
    assert!(hello.inventory.feeders.iter().all(|f| f.config.is_some()));
}

#[tokio::test(start_paused = true)]
async fn p9_a_journal_that_was_put_back_gives_no_number_twice() {
    let mut rig = Rig::new().await;
    let mut peer = rig.session().await;
    peer.hello().await;
    peer.through = 500;
    peer.welcome(1).await;
    let dose = rig.feed(1_000);
    peer.order(&dose).await;
    peer.outcome(&dose.command).await;
    peer.play(Duration::from_secs(3)).await;
    assert_eq!(peer.records.first().map(|r| r.sequence), Some(501));
}

/// A place in a server's audit chain.
fn place(sequence: i64) -> pb::AuditAnchor {
    pb::AuditAnchor { sequence, hash: vec![9; 32].into() }
}

#[tokio::test(start_paused = true)]
async fn p2_the_servers_anchor_comes_back_in_the_next_hello() {
    let mut rig = Rig::new().await;
    let mut peer = rig.session().await;
    let first = peer.hello().await;
    assert_eq!(first.journal.anchor.map(|a| a.sequence), Some(0), "nothing was acknowledged yet");
    peer.anchor = Some(place(5));
    peer.welcome(1).await;
    peer.play(Duration::from_secs(1)).await;
    rig.restart().await;
    let mut peer = rig.session().await;
    assert_eq!(peer.hello().await.journal.anchor.map(Into::into), Some(place(5)), "a welcome's");
    peer.anchor = Some(place(6));
    peer.welcome(2).await;
    let order = rig.feed(1_000);
    peer.order(&order).await;
    peer.anchor = Some(place(8));
    peer.outcome(&order.command).await;
    peer.play(Duration::from_secs(1)).await;
    drop(peer);
    let mut peer = rig.session().await;
    let hello = peer.hello().await;
    assert_eq!(hello.commands, vec![], "acknowledged");
    assert_eq!(hello.journal.anchor.map(Into::into), Some(place(8)), "an acknowledgement's");
    // A server of an older release tells none: then the agent claims none.
    peer.anchor = None;
    peer.welcome(3).await;
    peer.play(Duration::from_secs(1)).await;
    drop(peer);
    assert_eq!(rig.session().await.hello().await.journal.anchor, None);
}

#[tokio::test(start_paused = true)]
async fn p2_what_was_acknowledged_is_told_again_to_a_database_that_was_put_back() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let order = rig.feed(1_000);
    peer.order(&order).await;
    let outcome = peer.outcome(&order.command).await;
    peer.play(Duration::from_secs(1)).await;
    drop(peer);
    let mut peer = rig.session().await;
    let hello = peer.hello().await;
    assert_eq!((hello.commands, hello.orders), (vec![], vec![]));
    peer.tell_again = true;
    peer.welcome(2).await;
    while peer.step().await {}
    assert!(!peer.said_goodbye, "the lease goes on");
    let hello = rig.session().await.hello().await;
    assert_eq!(hello.commands, vec![outcome]);
    assert_eq!(hello.orders, vec![order], "and what it was");
}

/// RULES 3.7: for 30 days after its acknowledgement the journal answers for a command.
#[tokio::test(start_paused = true)]
async fn p3_a_command_is_known_for_30_days_after_its_acknowledgement() {
    const DAY: Duration = Duration::from_hours(24);
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let order = rig.feed(1_000);
    peer.order(&order).await;
    peer.outcome(&order.command).await;
    peer.play(Duration::from_secs(2)).await;
    rig.tidy().await;
    // The agent is off and the machine is on; then something else is acknowledged, which tidies up.
    for (days, known) in [(29, true), (2, false)] {
        rig.kill().await;
        drop(peer);
        tokio::time::advance(DAY * days).await;
        rig.start().await;
        peer = rig.open().await;
        let other = rig.order(FEEDER, pasamanos_proto::model::Action::Hold);
        peer.order(&other).await;
        peer.outcome(&other.command).await;
        peer.play(Duration::from_secs(2)).await;
        rig.tidy().await;
        assert_eq!(rig.knows(&order.command).await, known, "after {days} days more");
    }
}
