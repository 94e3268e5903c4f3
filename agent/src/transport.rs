//! How a session's frames reach the server. A small trait, so that tests can script the other end.

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{Stream, StreamExt as _};
use pasamanos_proto::pb::agent_link_service_client::AgentLinkServiceClient;
use pasamanos_proto::pb::{ConnectRequest, ConnectResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Endpoint;

use crate::clock::Clock;

/// Frames from the server.
pub(crate) type Inbound = Pin<Box<dyn Stream<Item = Result<ConnectResponse, Status>> + Send>>;

/// Opens one stream.
#[async_trait]
pub(crate) trait Transport: Send + Sync + 'static {
    /// Connects and begins the stream; the first frame is in `outbound` already.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses.
    async fn open(&self, outbound: mpsc::Receiver<ConnectRequest>) -> Result<Inbound, Status>;
}

/// gRPC over HTTP/2.
#[derive(Debug)]
pub(crate) struct Grpc {
    endpoint: Endpoint,
    clock: Clock,
}

/// A connection that takes longer is tried again.
const CONNECT: Duration = Duration::from_secs(5);
/// A half-open link is found within twice this, which is less than the lease.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// No frame of a server is larger.
const MAX_FRAME: usize = 256 * 1024;
/// Small: there is one stream, and an agent stays small.
const WINDOW: u32 = 256 * 1024;

impl Grpc {
    /// To `http://host:port`.
    ///
    /// # Errors
    /// If that is no address.
    pub(crate) fn new(server: &str, clock: Clock) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(server.to_owned())?
            .user_agent(concat!("pasamanos-agent/", env!("CARGO_PKG_VERSION")))?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(KEEPALIVE))
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        Ok(Self { endpoint, clock })
    }
}

#[async_trait]
impl Transport for Grpc {
    async fn open(&self, outbound: mpsc::Receiver<ConnectRequest>) -> Result<Inbound, Status> {
        // A new connection each time: the old one may be half open.
        let channel = self.endpoint.connect().await.map_err(|e| Status::unavailable(chain(&e)))?;
        let clock = self.clock.clone();
        // Stamped when the connection takes it, not when it was queued: a frame counts as heard
        // when it was sent.
        let frames = ReceiverStream::new(outbound).map(move |mut frame| {
            frame.monotonic_ms = clock.monotonic_ms();
            frame
        });
        let mut client = AgentLinkServiceClient::new(channel).max_decoding_message_size(MAX_FRAME);
        let response = client.connect(frames).await?;
        Ok(Box::pin(response.into_inner()))
    }
}

fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
