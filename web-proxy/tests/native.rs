//! Plain gRPC through the proxy, between a tonic client and a tonic server.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::Running;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
};

#[tokio::test]
async fn health_can_be_asked_and_watched_over_http2() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut server = JoinSet::new();
    server.spawn(
        Server::builder().add_service(health).serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let proxy = Running::before(addr).await;
    let channel = Endpoint::from_shared(format!("http://{}", proxy.addr)).unwrap().connect_lazy();
    let mut client = HealthClient::new(channel);
    let service = "pasamanos.v1.FeederService".to_owned();
    let request = || HealthCheckRequest { service: service.clone() };

    let unknown = client.check(request()).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);

    reporter.set_service_status(&service, ServingStatus::Serving).await;
    assert_eq!(client.check(request()).await.unwrap().into_inner().status, 1);
    let mut watch = client.watch(request()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    reporter.set_service_status(&service, ServingStatus::NotServing).await;
    assert_eq!(watch.message().await.unwrap().unwrap().status, 2);
}
