//! A real gRPC server whose sessions are played by the test.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use pasamanos_proto::pb::agent_link_service_server::{AgentLinkService, AgentLinkServiceServer};
use pasamanos_proto::pb::{ConnectRequest, ConnectResponse};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::peer::Peer;

struct Link(mpsc::Sender<Peer>);

#[tonic::async_trait]
impl AgentLinkService for Link {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<ConnectResponse, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut frames = request.into_inner();
        let (from, received) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Some(Ok(frame)) = frames.next().await {
                if from.send(frame).await.is_err() {
                    return;
                }
            }
        });
        let (to, stream) = mpsc::channel(64);
        let opened = self.0.send(Peer::new(received, to)).await;
        opened.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// The server, on a free port.
pub(crate) struct Server {
    pub address: SocketAddr,
    sessions: mpsc::Receiver<Peer>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::on("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn on(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (opened, sessions) = mpsc::channel(16);
        let task = tokio::spawn(async move {
            let service = AgentLinkServiceServer::new(Link(opened));
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { address, sessions, task }
    }

    /// As if it was killed.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _aborted = self.task.await;
    }

    pub(crate) async fn session(&mut self) -> Peer {
        tokio::time::timeout(Duration::from_secs(30), self.sessions.recv())
            .await
            .expect("a session in time")
            .unwrap()
    }
}
