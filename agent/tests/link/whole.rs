//! The whole agent in process: simulated farm, real gRPC, real time.

use std::time::{Duration, Instant};

use pasamanos_agent::config::{self, Overrides};
use pasamanos_agent::{Agent, Settings};
use pasamanos_proto::model::{Action, CommandState, Reason};
use tokio_util::sync::CancellationToken;

use super::farm::{FEEDER, Farm};
use super::server::Server;

async fn agent(farm: &Farm, server: &Server) -> (tokio::task::JoinHandle<()>, CancellationToken) {
    let config = config::load(&farm.toml(server.address), &Overrides::default()).unwrap();
    let settings = Settings { config, drain_timeout: Duration::from_secs(20) };
    let agent = Agent::build(settings).await.unwrap();
    let stop = CancellationToken::new();
    (tokio::spawn(agent.run(stop.clone())), stop)
}

#[tokio::test]
async fn config_dose_hold_resume_and_goodbye() {
    let (mut farm, mut server) = (Farm::new(), Server::start().await);
    let (task, stop) = agent(&farm, &server).await;
    let mut peer = server.session().await;
    let hello = peer.hello().await;
    assert_eq!(hello.inventory.feeders.len(), 3);
    assert!(hello.journal.slots.iter().all(|s| s.readable && s.agrees()));
    peer.welcome(1).await;

    let config = farm.portion(&hello, 1_600);
    peer.order(&config).await;
    let end = peer.outcome(&config.command).await;
    assert_eq!(end.state, CommandState::Applied, "{end:?}");
    assert_eq!(end.config.unwrap().valid().unwrap().portion_mg, Some(1_600));

    let dose = farm.order(Action::FeedNow { portion_mg: 100 });
    peer.order(&dose).await;
    let end = peer.outcome(&dose.command).await;
    assert_eq!((end.state, end.dispensed.map(|d| d.0)), (CommandState::Applied, Some(100)));
    assert_eq!(farm.ran().len(), 1);

    let hold = farm.order(Action::Hold);
    peer.order(&hold).await;
    assert_eq!(peer.outcome(&hold.command).await.state, CommandState::Applied);
    let refused = farm.order(Action::FeedNow { portion_mg: 100 });
    peer.order(&refused).await;
    assert_eq!(peer.outcome(&refused.command).await.reason, Reason::FeederHeld);
    let resume = farm.order(Action::Resume);
    peer.order(&resume).await;
    assert_eq!(peer.outcome(&resume.command).await.state, CommandState::Applied);
    peer.play(Duration::from_secs(1)).await;
    assert_eq!(peer.doses().iter().filter(|d| d.feeder == FEEDER).count(), 1);

    let began = Instant::now();
    stop.cancel();
    while peer.step().await {}
    assert!(peer.said_goodbye);
    drop(peer);
    task.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_killed_server_is_found_again() {
    let (mut farm, mut server) = (Farm::new(), Server::start().await);
    let (task, stop) = agent(&farm, &server).await;
    let mut peer = server.session().await;
    peer.hello().await;
    peer.welcome(1).await;
    peer.play(Duration::from_millis(500)).await;
    let address = server.address;
    drop(peer);
    server.kill().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let back = Instant::now();
    let mut server = Server::on(address).await;
    let mut peer = server.session().await;
    let hello = peer.hello().await;
    assert!(back.elapsed() < Duration::from_secs(6), "{:?}", back.elapsed());
    assert_eq!(hello.journal.last_epoch, 1);
    peer.welcome(2).await;
    let dose = farm.order(Action::FeedNow { portion_mg: 100 });
    peer.order(&dose).await;
    assert_eq!(peer.outcome(&dose.command).await.state, CommandState::Applied);
    stop.cancel();
    drop(peer);
    task.await.unwrap();
}
