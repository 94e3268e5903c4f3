//! A body that plays a script, for the tests of what wraps one.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

pub type Step = Result<Frame<Bytes>, Status>;

/// Gives its frames, then ends, or repeats the last one for ever, or says nothing more.
pub struct Script {
    frames: VecDeque<Step>,
    then: Then,
}

pub enum Then {
    End,
    Flood(&'static str),
    Silence,
}

impl Body for Script {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match (self.frames.pop_front(), &self.then) {
            (Some(frame), _) => Poll::Ready(Some(frame)),
            (None, Then::End) => Poll::Ready(None),
            (None, Then::Flood(text)) => Poll::Ready(Some(data(text))),
            (None, Then::Silence) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && matches!(self.then, Then::End)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(12)
    }
}

pub fn script(frames: impl IntoIterator<Item = Step>, then: Then) -> Script {
    Script { frames: frames.into_iter().collect(), then }
}

#[allow(clippy::unnecessary_wraps, reason = "a step of a script")]
pub fn data(text: &'static str) -> Step {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

pub fn trailers(status: &str) -> Step {
    let mut map = HeaderMap::new();
    map.insert(Status::GRPC_STATUS, status.parse().map_err(|_| Status::internal("text"))?);
    Ok(Frame::trailers(map))
}
