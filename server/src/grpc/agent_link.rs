//! `AgentLinkService`: one task per session, its words as the response stream, its end as the
//! stream's status.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use pasamanos_proto::pb;
use pasamanos_proto::pb::agent_link_service_server::AgentLinkService;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

use super::status::{panicked, session_status};
use crate::control::{Control, SessionEnd, SessionError};

/// Frames that may wait for an agent's reading; more, and the session is cut.
const TO_AGENT: usize = 128;

/// The service over the use cases.
#[derive(Clone)]
pub struct AgentLinks(pub Arc<Control>);

struct Words {
    frames: mpsc::Receiver<pb::ConnectResponse>,
    session: Option<JoinHandle<Result<SessionEnd, SessionError>>>,
}

#[tonic::async_trait]
impl AgentLinkService for AgentLinks {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<pb::ConnectResponse, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<pb::ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (to_agent, frames) = mpsc::channel(TO_AGENT);
        let peer = request.remote_addr().map(|a| a.to_string()).unwrap_or_default();
        let session = self.0.clone().run_session(request.into_inner(), to_agent);
        let span = tracing::info_span!("session", peer);
        let session = self.0.tasks.spawn(session.instrument(span));
        let words = Words { frames, session: Some(session) };
        Ok(Response::new(Box::pin(stream::unfold(words, next))))
    }
}

async fn next(mut words: Words) -> Option<(Result<pb::ConnectResponse, Status>, Words)> {
    if let Some(frame) = words.frames.recv().await {
        return Some((Ok(frame), words));
    }
    match words.session.take()?.await {
        Ok(Ok(_)) => None,
        Ok(Err(e)) => Some((Err(session_status(e)), words)),
        Err(_) => Some((Err(panicked()), words)),
    }
}
