//! Plain gRPC through the proxy, between a tonic client and a tonic server.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::net::SocketAddr;

use support::Running;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

fn channel(addr: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{addr}")).unwrap().connect_lazy()
}

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
    let mut client = HealthClient::new(channel(proxy.addr));
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

#[tokio::test]
async fn reflection_answers_while_the_client_keeps_its_side_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .unwrap();
    let mut server = JoinSet::new();
    server.spawn(
        Server::builder()
            .add_service(reflection)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let proxy = Running::before(addr).await;
    let mut client = ServerReflectionClient::new(channel(proxy.addr));

    let (questions, asked) = tokio::sync::mpsc::channel(1);
    let asked = tokio_stream::wrappers::ReceiverStream::new(asked);
    let mut answers = client.server_reflection_info(asked).await.unwrap().into_inner();
    for _ in 0..2 {
        let list = MessageRequest::ListServices(String::new());
        let question = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
        questions.send(question).await.unwrap();
        let answer = answers.message().await.unwrap().unwrap();
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
            panic!("{answer:?}");
        };
        assert!(list.service.iter().any(|service| service.name == "grpc.health.v1.Health"));
    }
}
