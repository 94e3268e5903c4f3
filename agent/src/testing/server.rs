//! The other end of a session, played by the test.

use std::sync::Mutex;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use pasamanos_proto::pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::peer::Peer;
use crate::transport::{Inbound, Transport};

/// Takes sessions.
pub(crate) struct ScriptedServer {
    opened: mpsc::Sender<Peer>,
    taken: Mutex<Option<mpsc::Receiver<Peer>>>,
}

impl ScriptedServer {
    pub(crate) fn new() -> Self {
        let (opened, taken) = mpsc::channel(16);
        Self { opened, taken: Mutex::new(Some(taken)) }
    }

    /// The sessions that agents open.
    pub(crate) fn sessions(&self) -> mpsc::Receiver<Peer> {
        self.taken.lock().unwrap().take().expect("taken once")
    }
}

#[async_trait]
impl Transport for ScriptedServer {
    async fn open(&self, from: mpsc::Receiver<pb::ConnectRequest>) -> Result<Inbound, Status> {
        let (to, stream) = mpsc::channel(64);
        let opened = self.opened.send(Peer::new(from, to)).await;
        opened.map_err(|_| Status::unavailable("no server"))?;
        Ok(ReceiverStream::new(stream).boxed())
    }
}
