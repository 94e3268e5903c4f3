//! The request's body on its way to the server: bounded in size and time, over when its call is.
//!
//! hyper reads it one frame at a time, as the server takes them: nothing is queued here.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

/// A request's messages must arrive within this time. Clients send one small message and close;
/// whoever needs longer is trickling bytes to hold a call open.
const REQUEST_TIME: Duration = Duration::from_secs(20);

/// Most bytes of a request. The server's own limit for one message is below it.
const REQUEST_BYTES: usize = 1024 * 1024;

/// Why a request's body was not sent to its end: the client's fault, and told to it.
pub type Fault = Arc<OnceLock<Status>>;

/// The request, on its way to the server.
///
/// It has no size hint: under grpc-web-text the inner one counts base64 characters, and hyper would
/// announce them as the content length.
pub struct Question<B> {
    inner: B,
    left: usize,
    slow: Pin<Box<Sleep>>,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
    fault: Fault,
}

impl<B> Question<B> {
    /// Ends with the call: a peer that never closes its side must not keep the stream open.
    pub fn new(inner: B, over: CancellationToken, fault: Fault) -> Self {
        Self {
            inner,
            left: REQUEST_BYTES,
            slow: Box::pin(sleep_until(Instant::now() + REQUEST_TIME)),
            over: Box::pin(over.cancelled_owned()),
            fault,
        }
    }

    fn fail(&self, status: Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // The first fault is the cause of any later one.
        let _ = self.fault.set(status.clone());
        Poll::Ready(Some(Err(status)))
    }
}

impl<B> Body for Question<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Status::cancelled("the call is over"))));
        }
        if self.slow.as_mut().poll(cx).is_ready() {
            let limit = REQUEST_TIME.as_secs();
            return self.fail(Status::deadline_exceeded(format!(
                "the request did not arrive within {limit} s"
            )));
        }

        match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => {
                let size = frame.data_ref().map_or(0, Bytes::len);
                match self.left.checked_sub(size) {
                    Some(left) => {
                        self.left = left;
                        Poll::Ready(Some(Ok(frame)))
                    }
                    None => self.fail(Status::resource_exhausted(format!(
                        "the request is larger than {REQUEST_BYTES} bytes"
                    ))),
                }
            }
            Some(Err(_)) => self.fail(Status::invalid_argument("the request's body is malformed")),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        // The inner body says so while a rest of base64 is still undecoded: only its end tells.
        false
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use http_body_util::BodyExt;
    use tonic::Code;

    use super::*;
    use crate::script::{Script, Then, data, script};

    fn question(inner: Script) -> (Question<Script>, CancellationToken, Fault) {
        let (over, fault) = (CancellationToken::new(), Fault::default());
        (Question::new(inner, over.clone(), fault.clone()), over, fault)
    }

    #[tokio::test]
    async fn a_question_announces_no_length() {
        let (body, _, _) = question(script([data("a")], Then::End));

        assert_eq!(body.size_hint().exact(), None);
    }

    #[tokio::test]
    async fn a_malformed_question_is_the_clients_fault() {
        let (body, _, fault) = question(script([Err(Status::internal("base64"))], Then::End));

        assert!(body.collect().await.is_err());
        assert_eq!(fault.get().unwrap().code(), Code::InvalidArgument);
    }

    #[tokio::test]
    async fn a_question_is_bounded() {
        let (body, _, fault) = question(script([], Then::Flood("more")));

        assert!(body.collect().await.is_err());
        assert_eq!(fault.get().unwrap().code(), Code::ResourceExhausted);
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_trickles_is_cut() {
        let (body, _, fault) = question(script([data("a")], Then::Silence));

        assert!(body.collect().await.is_err());
        assert_eq!(fault.get().unwrap().code(), Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn a_question_ends_with_its_call() {
        let (body, over, fault) = question(script([], Then::Silence));

        over.cancel();

        assert!(body.collect().await.is_err());
        assert!(fault.get().is_none());
    }
}
