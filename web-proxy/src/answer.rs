//! The answer's body on its way to the client: always ends with a status.
//!
//! hyper reads it one frame at a time, as the client takes them: nothing is queued here.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

/// The answer, on its way to the client: always ends with a status.
pub struct Answer<B, G> {
    /// The server's body and what is held while it lasts; dropping them resets the server's stream.
    open: Option<(B, G)>,
    deadline: Option<Pin<Box<Sleep>>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    status_in_headers: bool,
}

impl<B, G> Answer<B, G> {
    /// `held` is dropped when the answer ends; `status_in_headers` says that no trailers will come.
    pub fn new(
        inner: B,
        held: G,
        deadline: Option<Instant>,
        stop: CancellationToken,
        status_in_headers: bool,
    ) -> Self {
        Self {
            open: Some((inner, held)),
            deadline: deadline.map(|at| Box::pin(sleep_until(at))),
            stop: Box::pin(stop.cancelled_owned()),
            status_in_headers,
        }
    }

    fn end(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.open = None;
        let mut trailers = HeaderMap::new();
        if status.add_header(&mut trailers).is_err() {
            // Texts of ours are plain ASCII, so this does not happen; the code alone always fits.
            trailers.insert(Status::GRPC_STATUS, (status.code() as i32).into());
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

impl<B, G> Body for Answer<B, G>
where
    B: Body<Data = Bytes> + Unpin,
    G: Unpin,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let Some((inner, _)) = &mut this.open else { return Poll::Ready(None) };

        // Both limits come before the body, or a stream that always has a frame would outlive them.
        if this.deadline.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready()) {
            return this.end(&Status::deadline_exceeded("the call's time is over"));
        }
        if this.stop.as_mut().poll(cx).is_ready() {
            return this.end(&stopping());
        }

        match ready!(Pin::new(inner).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.trailers_ref() {
                Some(trailers) if !trailers.contains_key(Status::GRPC_STATUS) => this.end(&lost()),
                Some(_) => {
                    this.open = None;
                    Poll::Ready(Some(Ok(frame)))
                }
                None => Poll::Ready(Some(Ok(frame))),
            },
            None if this.status_in_headers => {
                this.open = None;
                Poll::Ready(None)
            }
            Some(Err(_)) | None => this.end(&lost()),
        }
    }

    fn is_end_stream(&self) -> bool {
        // An inner body that ended without a status is not the end: the status is still to come.
        match &self.open {
            Some((inner, _)) => self.status_in_headers && inner.is_end_stream(),
            None => true,
        }
    }
}

/// What a call gets that the shutdown ends.
pub fn stopping() -> Status {
    Status::unavailable("the web proxy is stopping: call again")
}

/// What a call gets whose server went away: it cannot be known how far it got.
pub fn lost() -> Status {
    Status::unavailable(
        "the connection to the server was lost before the answer was complete; the call may have been \
         carried out",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;
    use tonic::Code;

    use super::*;
    use crate::script::{Script, Then, data, script, trailers};

    fn answer(inner: Script) -> Answer<Script, ()> {
        Answer::new(inner, (), None, CancellationToken::new(), false)
    }

    async fn code(body: Answer<Script, ()>) -> Option<Code> {
        let collected = body.collect().await.unwrap();
        collected.trailers().and_then(Status::from_header_map).map(|status| status.code())
    }

    #[tokio::test]
    async fn trailers_of_the_server_pass() {
        assert_eq!(
            code(answer(script([data("a"), trailers("7")], Then::End))).await.unwrap(),
            Code::PermissionDenied
        );
    }

    #[tokio::test]
    async fn an_answer_without_status_becomes_unavailable() {
        let cut = script([data("a")], Then::End);
        let broken = script([data("a"), Err(Status::internal("h2: secret detail"))], Then::End);
        let empty = script([], Then::End);
        let strange = script([data("a"), Ok(Frame::trailers(HeaderMap::new()))], Then::End);

        for inner in [cut, broken, empty, strange] {
            let body = answer(inner);
            assert!(!body.is_end_stream());
            let collected = body.collect().await.unwrap();
            let status = Status::from_header_map(collected.trailers().unwrap()).unwrap();
            assert_eq!(status.code(), Code::Unavailable);
            assert!(!status.message().contains("secret"), "{}", status.message());
        }
    }

    #[tokio::test]
    async fn a_status_in_the_headers_needs_no_trailers() {
        let body = Answer::new(script([], Then::End), (), None, CancellationToken::new(), true);

        assert!(body.is_end_stream());
        assert_eq!(code(body).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_ends_a_silent_stream_and_a_flooding_one() {
        for then in [Then::Silence, Then::Flood] {
            let deadline = Instant::now() + Duration::from_millis(300);
            let inner = script([data("a")], then);
            let mut body = Answer::new(inner, (), Some(deadline), CancellationToken::new(), false);

            let status = loop {
                // The flood never waits; the clock of the test moves only when something does.
                tokio::time::advance(Duration::from_millis(1)).await;
                let frame = body.frame().await.unwrap().unwrap();
                if let Some(trailers) = frame.trailers_ref() {
                    break Status::from_header_map(trailers).unwrap();
                }
            };

            assert_eq!(status.code(), Code::DeadlineExceeded);
            assert!(Instant::now() - deadline < Duration::from_millis(5));
            assert!(body.frame().await.is_none());
        }
    }

    #[tokio::test]
    async fn what_an_answer_holds_is_released_at_its_end() {
        let stop = CancellationToken::new();
        let held = CancellationToken::new();
        let inner = script([data("a")], Then::Silence);
        let mut body = Answer::new(inner, held.clone().drop_guard(), None, stop.clone(), false);

        body.frame().await.unwrap().unwrap();
        assert!(!held.is_cancelled());
        stop.cancel();
        let last = body.frame().await.unwrap().unwrap();

        assert_eq!(last.trailers_ref().unwrap()[Status::GRPC_STATUS], "14");
        assert!(held.is_cancelled());
        assert!(body.is_end_stream());
    }
}
