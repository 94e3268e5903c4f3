//! One call: passed on without knowing its messages, bounded in time, always answered by a status.

use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use http::{Request, Response, StatusCode, Uri, Version, header, uri::Scheme};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};
use tower::Service;

use crate::{
    answer::{self, Answer, Bounds},
    headers,
    policy::{Policy, Protocol},
    question::{Fault, Question},
    stop::Stages,
    timeout,
    upstream::{NoConnection, Place, SendError, Upstream},
};

/// How long a call without a deadline may wait for the first byte of its answer. The server answers
/// within 60 s, and streams answer at once.
const PATIENCE: Duration = Duration::from_secs(75);

/// A connection may end between taking it and using it; a second one is fresh.
const ATTEMPTS: usize = 2;

/// Passes gRPC calls to the server. Speaks plain gRPC: grpc-web is translated around it.
#[derive(Clone, Debug)]
pub struct Forward {
    policy: Arc<Policy>,
    upstream: Arc<Upstream>,
    stages: Stages,
}

impl Forward {
    /// Calls that the policy does not allow are answered here.
    pub fn new(policy: Arc<Policy>, upstream: Arc<Upstream>, stages: Stages) -> Self {
        Self { policy, upstream, stages }
    }

    async fn call(self, call: Request<Body>) -> Result<Response<Body>, Status> {
        let path = call.uri().path();
        if !self.policy.allows(path) {
            tracing::debug!(path, "refused: not a service of the web");
            return Err(Status::unimplemented("this service is not offered to the web"));
        }
        let timeout = timeout::parse(call.headers())
            .map_err(|malformed| Status::invalid_argument(malformed.to_string()))?;
        let now = Instant::now();
        // A deadline beyond what the clock can hold is none.
        let deadline = timeout.and_then(|timeout| now.checked_add(timeout));

        let (stop, patience) = (self.stages.calls.clone(), deadline.unwrap_or(now + PATIENCE));
        tokio::select! {
            biased;
            () = sleep_until(patience) => Err(answer::too_late()),
            () = stop.cancelled() => Err(answer::stopping()),
            answer = self.pass(call, deadline) => answer,
        }
    }

    async fn pass(
        self,
        call: Request<Body>,
        deadline: Option<Instant>,
    ) -> Result<Response<Body>, Status> {
        let (over, fault) = (CancellationToken::new(), Fault::default());
        // Ends the request's body with the call, however the call ends: while a client keeps its
        // side open, dropping the answer alone would not reset the stream.
        let guard = over.clone().drop_guard();
        let web = call.extensions().get() != Some(&Protocol::Grpc);
        let mut call = self.outward(call, over, Arc::clone(&fault))?;

        for _ in 0..ATTEMPTS {
            let lease = self.upstream.acquire().await.map_err(no_connection)?;
            if let Some(deadline) = deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(answer::too_late());
                }
                call.headers_mut().insert(timeout::GRPC_TIMEOUT, timeout::format(left));
            }
            match lease.send(call).await {
                Ok((answer, place)) => {
                    let bounds = Bounds {
                        status_in_body: web,
                        status_in_headers: answer.headers().contains_key(Status::GRPC_STATUS),
                        deadline,
                        stop: self.stages.streams,
                    };
                    return inward(answer, (place, guard), bounds);
                }
                Err(SendError::Unsent(unsent)) => call = *unsent,
                Err(SendError::Failed(error)) => {
                    if let Some(fault) = fault.get() {
                        return Err(fault.clone());
                    }
                    tracing::info!(%error, "a call failed on its way");
                    return Err(answer::lost());
                }
            }
        }
        Err(no_connection(NoConnection::Unreachable))
    }

    /// The call as the server gets it.
    fn outward(
        &self,
        call: Request<Body>,
        over: CancellationToken,
        fault: Fault,
    ) -> Result<Request<Body>, Status> {
        let (mut parts, inner) = call.into_parts();
        // The path alone: a query has no meaning in gRPC.
        parts.uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.upstream.authority().clone())
            .path_and_query(parts.uri.path())
            .build()
            .map_err(|_| Status::unimplemented("this is not the path of a call"))?;
        parts.version = Version::HTTP_2;
        headers::strip(&mut parts.headers);
        Ok(Request::from_parts(parts, Body::new(Question::new(inner, over, fault))))
    }
}

/// The answer as the client gets it, if it is one.
fn inward(
    answer: Response<Incoming>,
    held: (Place, tokio_util::sync::DropGuard),
    bounds: Bounds,
) -> Result<Response<Body>, Status> {
    let grpc = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if answer.status() != StatusCode::OK || !grpc {
        tracing::warn!(status = answer.status().as_u16(), "the upstream does not speak gRPC");
        return Err(Status::unavailable("the server did not answer as a gRPC server"));
    }

    Ok(answer.map(|inner| Body::new(Answer::new(inner, held, bounds))))
}

fn no_connection(reason: NoConnection) -> Status {
    Status::unavailable(match reason {
        NoConnection::Unreachable => {
            "the server cannot be reached; nothing was sent: try again in a moment"
        }
        NoConnection::Full => "too many calls are open; nothing was sent: try again in a moment",
    })
}

/// Turns a panic into an answer: the client must not be left with a broken connection.
async fn without_panic(
    call: impl Future<Output = Result<Response<Body>, Status>>,
) -> Result<Response<Body>, Status> {
    AssertUnwindSafe(call)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Err(Status::internal("the web proxy failed; its log says where")))
}

impl Service<Request<Body>> for Forward {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Request<Body>) -> Self::Future {
        let answer = without_panic(self.clone().call(call));
        Box::pin(async move { Ok(answer.await.unwrap_or_else(Status::into_http)) })
    }
}

#[cfg(test)]
#[allow(clippy::panic, clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_answered() {
        let answer = without_panic(async { panic!("a bug") }).await;

        assert_eq!(answer.unwrap_err().code(), Code::Internal);
    }
}
