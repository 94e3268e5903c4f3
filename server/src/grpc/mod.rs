//! gRPC: thin handlers and the limits around them.

mod agent_link;
mod caller;
mod feeder_service;
mod incoming;
mod layers;
mod status;
mod status_service;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use pasamanos_proto::FILE_DESCRIPTOR_SET;
use pasamanos_proto::pb::agent_link_service_server::AgentLinkServiceServer;
use pasamanos_proto::pb::feeder_service_server::FeederServiceServer;
use pasamanos_proto::pb::status_service_server::StatusServiceServer;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic_health::pb::health_server::{Health, HealthServer};
use tower_http::catch_panic::CatchPanicLayer;

use crate::control::Control;

pub use incoming::Connections;

/// Largest request of a user or a browser.
const MAX_REQUEST: usize = 64 * 1024;
/// Largest frame of an agent: a hello of 2,000 feeders fits.
const MAX_FRAME: usize = 4 * 1024 * 1024;
/// Streams of one connection: the web proxy multiplexes its browsers over a few.
const MAX_STREAMS: u32 = 1_024;

/// Serves until `stop` resolves and every stream ended.
///
/// # Errors
/// If the transport fails.
pub async fn serve(
    control: Arc<Control>,
    listener: TcpListener,
    health: HealthServer<impl Health>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // With these a command line client can print the details of an error.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    // tonic leaves several of hyper's protections off unless they are named here.
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_local_error_reset_streams(Some(64))
        .http2_max_header_list_size(8 * 1024)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .trace_fn(|r| tracing::info_span!("rpc", path = r.uri().path()))
        .layer(CatchPanicLayer::custom(layers::Panicked))
        .layer(layers::GrpcOnlyLayer)
        .add_service(
            FeederServiceServer::new(feeder_service::Feeders(control.clone()))
                .max_decoding_message_size(MAX_REQUEST),
        )
        .add_service(
            StatusServiceServer::new(status_service::Statuses(control.clone()))
                .max_decoding_message_size(MAX_REQUEST),
        )
        .add_service(
            AgentLinkServiceServer::new(agent_link::AgentLinks(control))
                .max_decoding_message_size(MAX_FRAME),
        )
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(Connections::new(listener), stop)
        .await?;
    Ok(())
}
