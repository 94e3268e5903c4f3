//! A connection's bytes, with two limits that HTTP libraries do not set: a peer that is silent at
//! first is cut, and so is one that stops reading.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Time for the first byte. Browsers open connections ahead of need; closing those costs nothing.
pub const FIRST_BYTE: Duration = Duration::from_secs(5);

/// Time for a write to make progress. A phone in a tunnel comes back or opens a new connection.
pub const STALLED_WRITE: Duration = Duration::from_secs(30);

/// A stream under the two limits.
#[derive(Debug)]
pub struct Watched<T> {
    inner: T,
    first_byte: Option<Pin<Box<Sleep>>>,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<T> Watched<T> {
    /// The time for the first byte starts now.
    pub fn new(inner: T) -> Self {
        Self { inner, first_byte: Some(Box::pin(sleep(FIRST_BYTE))), stalled: None }
    }

    /// Passes a write's result, unless it has been pending for too long.
    fn progress<R>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALLED_WRITE)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(timed_out("the peer stopped reading")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let read = Pin::new(&mut this.inner).poll_read(cx, buffer);
        if read.is_ready() {
            this.first_byte = None;
        } else if let Some(limit) = &mut this.first_byte
            && limit.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(timed_out("the peer sent nothing")));
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.progress(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.progress(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.progress(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.progress(cx, closed)
    }
}

fn timed_out(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::Instant,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_sends_nothing_is_cut() {
        let (ours, _theirs) = duplex(16);
        let started = Instant::now();

        let error = Watched::new(ours).read_u8().await.unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), FIRST_BYTE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_spoke_once_may_be_silent() {
        let (ours, mut theirs) = duplex(16);
        let mut ours = Watched::new(ours);
        theirs.write_u8(1).await.unwrap();
        ours.read_u8().await.unwrap();

        let silence = tokio::time::timeout(FIRST_BYTE * 10, ours.read_u8()).await;

        assert!(silence.is_err(), "the read must still wait");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_stops_reading_is_cut() {
        let (ours, _theirs) = duplex(16);
        let started = Instant::now();

        let error = Watched::new(ours).write_all(&[0; 17]).await.unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), STALLED_WRITE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_not_cut() {
        let (ours, mut theirs) = duplex(16);
        let mut ours = Watched::new(ours);
        let write = async { ours.write_all(&[0; 160]).await };
        let read = async {
            for _ in 0..10 {
                tokio::time::sleep(STALLED_WRITE / 2).await;
                theirs.read_exact(&mut [0; 16]).await.unwrap();
            }
        };

        let (written, ()) = tokio::join!(write, read);

        written.unwrap();
    }
}
