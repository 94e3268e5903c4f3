//! The answer's body on its way to the client: always ends with a status.
//!
//! hyper reads it one frame at a time, as the client takes them: nothing is queued here.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use crate::frames::Frames;

/// How long an ended answer may take to complete the message that it is in.
const MESSAGE_GRACE: Duration = Duration::from_secs(1);

/// The answer, on its way to the client.
pub struct Answer<B, G> {
    /// The server's body and what is held while it lasts; dropping them resets the server's stream.
    open: Option<(B, G)>,
    /// Where the messages begin and end, if the status will stand among them.
    frames: Option<Frames>,
    status_in_headers: bool,
    limit: Option<Pin<Box<Sleep>>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Set once a limit was met: the status to end with at the end of the message.
    ending: Option<Status>,
}

/// What an answer is, and what bounds it.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// grpc-web: the status is written into the body, so it must not split a message.
    pub status_in_body: bool,
    /// The status stands in the headers, and no trailers will come.
    pub status_in_headers: bool,
    /// When the call's time is over.
    pub deadline: Option<Instant>,
    /// The shutdown's word to streams.
    pub stop: CancellationToken,
}

impl<B, G> Answer<B, G> {
    /// `held` is dropped when the answer ends.
    pub fn new(inner: B, held: G, bounds: Bounds) -> Self {
        Self {
            open: Some((inner, held)),
            frames: bounds.status_in_body.then(Frames::default),
            status_in_headers: bounds.status_in_headers,
            limit: bounds.deadline.map(|at| Box::pin(sleep_until(at))),
            stop: Box::pin(bounds.stop.cancelled_owned()),
            ending: None,
        }
    }

    fn between_messages(&self) -> bool {
        self.frames.as_ref().is_none_or(Frames::between_messages)
    }

    fn poll_limit(&mut self, cx: &mut Context<'_>) -> bool {
        self.limit.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready())
    }

    /// The end, as trailers; within a message there is no place for them, and the stream breaks.
    fn end(&mut self, status: Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.open = None;
        if !self.between_messages() {
            return Poll::Ready(Some(Err(status)));
        }
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
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        // The limits come before the body, or a stream that always has a frame would outlive them.
        if this.ending.is_none() {
            if this.poll_limit(cx) {
                this.ending = Some(too_late());
            } else if this.stop.as_mut().poll(cx).is_ready() {
                this.ending = Some(stopping());
            }
            if this.ending.is_some() {
                this.limit = Some(Box::pin(sleep_until(Instant::now() + MESSAGE_GRACE)));
            }
        }
        let over = this.ending.is_some() && (this.between_messages() || this.poll_limit(cx));
        if over && let Some(status) = this.ending.take() {
            return this.end(status);
        }

        let Some((inner, _)) = &mut this.open else { return Poll::Ready(None) };
        match ready!(Pin::new(inner).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(mut data) => {
                    if let Some(frames) = &mut this.frames {
                        let rest_of_message = this.ending.is_some();
                        data.truncate(frames.pass(&data, rest_of_message));
                    }
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                Err(frame) => match frame.trailers_ref() {
                    Some(trailers) if trailers.contains_key(Status::GRPC_STATUS) => {
                        this.open = None;
                        Poll::Ready(Some(Ok(frame)))
                    }
                    _ => this.end(lost()),
                },
            },
            None if this.status_in_headers => {
                this.open = None;
                Poll::Ready(None)
            }
            Some(Err(_)) | None => this.end(lost()),
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

/// What a call gets whose time is over.
pub fn too_late() -> Status {
    Status::deadline_exceeded("the call's time is over; it may have been carried out")
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
#[allow(clippy::expect_used, clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;
    use tonic::Code;

    use super::*;
    use crate::script::{Script, Then, data, script, trailers};

    /// One message in its frame.
    const MESSAGE: &str = "\0\0\0\0\x0bhello world";

    fn bounds() -> Bounds {
        Bounds {
            status_in_body: true,
            status_in_headers: false,
            deadline: None,
            stop: CancellationToken::new(),
        }
    }

    fn answer(inner: Script) -> Answer<Script, ()> {
        Answer::new(inner, (), bounds())
    }

    /// The next frame; a body that gives none fails the test instead of hanging it.
    async fn next<G: Unpin>(body: &mut Answer<Script, G>) -> Option<Result<Frame<Bytes>, Status>> {
        tokio::time::timeout(Duration::from_mins(1), body.frame()).await.expect("a frame")
    }

    async fn code<G: Unpin>(body: Answer<Script, G>) -> Option<Code> {
        let collected = body.collect().await.unwrap();
        collected.trailers().and_then(Status::from_header_map).map(|status| status.code())
    }

    #[tokio::test]
    async fn trailers_of_the_server_pass() {
        let body = answer(script([data(MESSAGE), trailers("7")], Then::End));

        assert_eq!(code(body).await, Some(Code::PermissionDenied));
    }

    #[tokio::test]
    async fn an_answer_without_status_becomes_unavailable() {
        let cut = script([data(MESSAGE)], Then::End);
        let broken = script([data(MESSAGE), Err(Status::internal("h2: a secret"))], Then::End);
        let empty = script([], Then::End);
        let strange = script([data(MESSAGE), Ok(Frame::trailers(HeaderMap::new()))], Then::End);

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
    async fn a_status_is_never_written_into_a_message() {
        let part = &MESSAGE[..7];
        let mut in_body = answer(script([data(part)], Then::End));
        assert_eq!(next(&mut in_body).await.unwrap().unwrap().into_data().unwrap(), part);
        assert!(next(&mut in_body).await.unwrap().is_err(), "the stream breaks instead");
        assert!(next(&mut in_body).await.is_none());

        // Trailers of HTTP/2 stand beside the body.
        let apart = Bounds { status_in_body: false, ..bounds() };
        let body = Answer::new(script([data(part)], Then::End), (), apart);
        assert_eq!(code(body).await, Some(Code::Unavailable));
    }

    #[tokio::test]
    async fn a_status_in_the_headers_needs_no_trailers() {
        let in_headers = Bounds { status_in_headers: true, ..bounds() };
        let body = Answer::new(script([], Then::End), (), in_headers);

        assert!(body.is_end_stream());
        assert_eq!(code(body).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_ends_a_silent_stream_and_a_flooding_one() {
        for then in [Then::Silence, Then::Flood(MESSAGE)] {
            let deadline = Instant::now() + Duration::from_millis(300);
            let limited = Bounds { deadline: Some(deadline), ..bounds() };
            let mut body = Answer::new(script([data(MESSAGE)], then), (), limited);

            let mut status = None;
            for _ in 0..400 {
                // The flood never waits; the clock of the test moves only when something does.
                tokio::time::advance(Duration::from_millis(1)).await;
                let frame = next(&mut body).await.unwrap().unwrap();
                if let Some(trailers) = frame.trailers_ref() {
                    status = Status::from_header_map(trailers);
                    break;
                }
            }

            let status = status.expect("the stream ends");
            assert_eq!(status.code(), Code::DeadlineExceeded);
            assert!(Instant::now() - deadline < Duration::from_millis(5));
            assert!(next(&mut body).await.is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_stopped_within_a_message_completes_it_and_no_more() {
        let (first, second) = MESSAGE.split_at(7);
        let rest_and_next: &'static str = [second, MESSAGE].concat().leak();
        let bounds = bounds();
        let stop = bounds.stop.clone();
        let frames = [data(first), data(rest_and_next)];
        let mut body = Answer::new(script(frames, Then::Flood(MESSAGE)), (), bounds);

        next(&mut body).await.unwrap().unwrap();
        stop.cancel();

        assert_eq!(next(&mut body).await.unwrap().unwrap().into_data().unwrap(), second);
        let last = next(&mut body).await.unwrap().unwrap();
        assert_eq!(last.trailers_ref().unwrap()[Status::GRPC_STATUS], "14");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_stopped_within_a_message_does_not_wait_for_ever() {
        let bounds = bounds();
        let stop = bounds.stop.clone();
        let mut body = Answer::new(script([data(&MESSAGE[..7])], Then::Silence), (), bounds);

        next(&mut body).await.unwrap().unwrap();
        stop.cancel();
        let started = Instant::now();

        assert!(next(&mut body).await.unwrap().is_err());
        assert_eq!(started.elapsed().as_secs(), MESSAGE_GRACE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_answer_holds_is_released_at_its_end() {
        let bounds = bounds();
        let (stop, held) = (bounds.stop.clone(), CancellationToken::new());
        let inner = script([data(MESSAGE)], Then::Silence);
        let mut body = Answer::new(inner, held.clone().drop_guard(), bounds);

        next(&mut body).await.unwrap().unwrap();
        assert!(!held.is_cancelled());
        stop.cancel();
        let last = next(&mut body).await.unwrap().unwrap();

        assert_eq!(last.trailers_ref().unwrap()[Status::GRPC_STATUS], "14");
        assert!(held.is_cancelled());
        assert!(body.is_end_stream());
    }
}
