//! What a session counts as heard, how it ends, and what it doubts.

use std::time::Duration;

use pasamanos_proto::model::{Action, Reason, duration_from_ms, duration_ms};
use pasamanos_proto::pb::{self, connect_request, connect_response::Frame};
use pasamanos_server::control::SessionEnd;

use crate::farm::*;
use crate::kit::*;

/// RULES 4.4: 5 s after the start limit, and a dose as long again as it takes to dispense.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_living_session_doubts_what_has_no_outcome_5_s_after_its_limit() {
    let server = Server::start().await;
    let mut hello = hello(0);
    // 1,500 mg take 10 s.
    hello.inventory.feeders[0].limits.dispense_rate_mg_per_s = Some(150);
    let mut agent = server.connect(hello).await;
    let (hold, dose) = (request(), request());
    let held = server.asking(hold, 3, Action::Hold);
    let first = agent.command().await;
    let fed = server.asking(dose, 1, Action::FeedNow { portion_mg: 1_500 });
    agent.command().await;
    // Past the start limit of 10 s and the 5 s, not past the dose's length. Its frames go on.
    server.move_clock(Duration::from_millis(15_001));
    agent.beat().await;
    let ended = held.await.unwrap().unwrap().command.unwrap();
    assert_eq!(ended.state(), pb::CommandState::Uncertain);
    assert_eq!(ended.reason, Reason::AgentLost.name());
    let open = server.control.command(&named(dose)).await.unwrap();
    assert_ne!(open.state(), pb::CommandState::Uncertain, "the dose may still run");
    server.move_clock(Duration::from_secs(10));
    agent.beat().await;
    let ended = fed.await.unwrap().unwrap().command.unwrap();
    assert_eq!(ended.state(), pb::CommandState::Uncertain);
    // The late truth settles it, in the same session.
    agent.says(&first, pb::CommandState::Applied).await;
    eventually("it is settled", || async {
        server.control.command(&named(hold)).await.unwrap().state() == pb::CommandState::Applied
    })
    .await;
}

/// RULES 3.8.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_the_older_of_two_sessions_is_told_at_once_and_its_frames_count_no_more() {
    let server = Server::start().await;
    let mut older = server.connect(hello(0)).await;
    let mut newer = server.connect(hello(1)).await;
    let Some(Frame::Goodbye(goodbye)) = older.next().await else { panic!("a goodbye") };
    assert_eq!(goodbye.reason, "SESSION_SUPERSEDED");
    let ended = older.ended().await;
    assert!(matches!(ended, Ok(SessionEnd::Superseded)), "{ended:?}");
    // A frame that bears the older epoch ends the stream that it comes on.
    newer.epoch -= 1;
    let beat = pb::Heartbeat { sequence: 9, robots: Vec::new() };
    newer.send(connect_request::Frame::Heartbeat(beat)).await;
    assert!(newer.ended().await.is_err());
}

/// RULES 2.4: another start of the farm PC counts from another zero.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_frame_of_another_boot_extends_nothing_and_ends_the_session() {
    let server = Server::start().await;
    let mut agent = server.connect(hello(0)).await;
    server.move_clock(TTL);
    let beat = pb::Heartbeat { sequence: 9, robots: Vec::new() };
    agent.send_as("boot-2", 0, connect_request::Frame::Heartbeat(beat)).await;
    let ended = agent.ended().await;
    assert!(matches!(ended, Ok(SessionEnd::Superseded)), "{ended:?}");
    let e = server.ask(request(), 1, Action::Hold, TTL).await.unwrap_err();
    assert!([Reason::AgentOffline, Reason::AgentMoving].contains(&e.reason), "{e:?}");
}

/// RULES 2.4: a value is as old as it was when the agent sent it, and older since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_values_age_by_the_clock_that_sent_them() {
    let server = Server::start().await;
    let mut agent = server.connect(hello(0)).await;
    let reading = pb::Reading {
        kind: pb::ReadingKind::WaterTemperatureMillicelsius.into(),
        value: 14_000,
        age: Some(duration_from_ms(2_000)),
        ..Default::default()
    };
    let tanks = vec![pb::TankReport { tank: "tank-1".into(), readings: vec![reading] }];
    let report = pb::StatusReport { full: false, tanks, ..Default::default() };
    // It sat in a buffer for 3 s, and then it is looked at 4 s later.
    server.move_clock(Duration::from_secs(3));
    agent.send_as("boot-1", 3_000, connect_request::Frame::Status(report)).await;
    let reading = || async {
        let farm = server.control.farm_status(&farm()).await.unwrap();
        let tank = farm.tanks.into_iter().find(|t| t.name.ends_with("/tank-1"))?;
        tank.readings.into_iter().next()
    };
    eventually("the reading is there", || async { reading().await.is_some() }).await;
    server.move_clock(Duration::from_secs(4));
    let age = duration_ms(reading().await.unwrap().age.as_ref());
    assert_eq!(age, Some(2_000 + 3_000 + 4_000));
}
