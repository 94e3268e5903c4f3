//! Accepted connections: capped, and cut if they say nothing. Nothing in hyper times out a
//! connection that never sends its HTTP/2 preface.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Connections at once.
const MAX_CONNECTIONS: usize = 15_000;
/// The first byte must come within this.
const FIRST_BYTE: Duration = Duration::from_secs(5);
/// After a failed accept (no descriptors left) the loop rests.
const REST: Duration = Duration::from_millis(100);

/// The accept loop as a stream.
pub struct Connections;

impl Connections {
    /// Of this listener. Never ends.
    #[allow(clippy::new_ret_no_self, reason = "the stream's type has no name")]
    pub fn new(listener: TcpListener) -> impl Stream<Item = io::Result<Connection>> {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        stream::unfold((listener, slots), |(listener, slots)| async move {
            loop {
                let Ok(slot) = slots.clone().acquire_owned().await else { return None };
                match listener.accept().await {
                    Ok((tcp, peer)) => {
                        // Small frames must not wait for each other.
                        let _ = tcp.set_nodelay(true);
                        let connection = Connection {
                            tcp,
                            peer,
                            silence: Some(Box::pin(sleep(FIRST_BYTE))),
                            _slot: slot,
                        };
                        return Some((Ok(connection), (listener, slots)));
                    }
                    Err(e) => {
                        tracing::warn!(error = %e, "accept failed");
                        sleep(REST).await;
                    }
                }
            }
        })
    }
}

/// One connection.
pub struct Connection {
    tcp: TcpStream,
    peer: SocketAddr,
    silence: Option<Pin<Box<Sleep>>>,
    _slot: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        if read.is_ready() {
            self.silence = None;
        } else if let Some(silence) = &mut self.silence
            && silence.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: self.tcp.local_addr().ok(), remote_addr: Some(self.peer) }
    }
}
