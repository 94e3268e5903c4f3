//! Connections to the server, and which of them carries a call.
//!
//! Connections are opened when a call needs one. Each carries a bounded number of calls, so that
//! the server's limit of streams is never met and so that the connection's flow-control window
//! holds every stream's: browsers that stop reading then stall themselves and nobody else.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, uri::Authority};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::body::Body;

use crate::{config, stop::Tracked};

/// Most calls on one connection; the next one opens another. The server allows 1,024.
pub const CALLS_PER_CONNECTION: usize = 480;

/// Most connections to the server.
pub const MAX_CONNECTIONS: usize = 16;

/// What the server may send on one stream before the browser took it.
const STREAM_WINDOW: u32 = 64 * 1024;

/// The same for all streams of a connection together.
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;

const _: () =
    assert!(CALLS_PER_CONNECTION as u64 * STREAM_WINDOW as u64 <= CONNECTION_WINDOW as u64);

/// A server that does not accept a connection within this time is unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);

/// A frozen server is noticed after at most the sum: below the 10 s in which the page must say so.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(4);

/// The server, as seen from here.
#[derive(Debug)]
pub struct Upstream {
    target: config::Upstream,
    connections: Mutex<Vec<Connection>>,
    /// Held while a connection is being opened: calls that need one share one attempt.
    dialing: tokio::sync::Mutex<()>,
    failures: AtomicU64,
    unreachable: AtomicBool,
    tasks: TaskTracker,
    cut: CancellationToken,
}

/// Why no connection can carry a call. Nothing was sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoConnection {
    /// The server does not accept connections.
    #[error("the server cannot be reached")]
    Unreachable,
    /// Every connection is full, and no more are opened.
    #[error("too many calls are open")]
    Full,
}

/// Why a call that was given to a connection has no answer.
#[derive(Debug)]
pub enum SendError {
    /// The connection had ended; nothing was sent, and another may carry it.
    Unsent(Box<Request<Body>>),
    /// The call was sent, wholly or in part.
    Failed(hyper::Error),
}

impl Upstream {
    /// Opens nothing yet.
    pub fn new(target: config::Upstream) -> Self {
        Self {
            target,
            connections: Mutex::default(),
            dialing: tokio::sync::Mutex::default(),
            failures: AtomicU64::new(0),
            unreachable: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            cut: CancellationToken::new(),
        }
    }

    /// The `host:port` that requests name.
    pub fn authority(&self) -> &Authority {
        self.target.authority()
    }

    /// Takes a place on a connection, opening one where all are full.
    pub async fn acquire(&self) -> Result<Lease, NoConnection> {
        if let Some(lease) = self.place() {
            return Ok(lease);
        }
        let failures = self.failures.load(Ordering::Acquire);
        let _dialing = self.dialing.lock().await;
        if let Some(lease) = self.place() {
            return Ok(lease);
        }
        // The attempt that this call waited for failed: its failure is this call's answer too.
        // Otherwise a queue of calls would try one by one, each for the full timeout.
        if self.failures.load(Ordering::Acquire) != failures {
            return Err(NoConnection::Unreachable);
        }
        if self.connections().len() >= MAX_CONNECTIONS {
            return Err(NoConnection::Full);
        }

        match tokio::time::timeout(CONNECT_TIMEOUT, self.dial()).await {
            Ok(Ok(connection)) => {
                if self.unreachable.swap(false, Ordering::Relaxed) {
                    tracing::info!(upstream = %self.target, "the server is reachable again");
                }
                let lease = connection.lease();
                self.connections().push(connection);
                Ok(lease)
            }
            failed => {
                self.failures.fetch_add(1, Ordering::Release);
                if !self.unreachable.swap(true, Ordering::Relaxed) {
                    let error = match failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => format!("no connection within {CONNECT_TIMEOUT:?}"),
                    };
                    tracing::warn!(upstream = %self.target, error, "the server cannot be reached");
                }
                Err(NoConnection::Unreachable)
            }
        }
    }

    /// Ends all connections and waits for their tasks.
    pub async fn close(&self) {
        self.connections().clear();
        self.cut.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The first connection with a free place: surplus ones fall idle when the load recedes.
    fn place(&self) -> Option<Lease> {
        let mut connections = self.connections();
        connections.retain(|connection| !connection.sender.is_closed());
        connections
            .iter()
            .find(|connection| connection.calls() < CALLS_PER_CONNECTION)
            .map(Connection::lease)
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn dial(&self) -> io::Result<Connection> {
        let stream = TcpStream::connect((self.target.host(), self.target.port())).await?;
        stream.set_nodelay(true)?;

        let (sender, connection) = http2::Builder::new(Tracked(self.tasks.clone()))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tracing::debug!(upstream = %self.target, "connection opened");

        let (cut, target) = (self.cut.clone(), self.target.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                result = connection => match result {
                    Ok(()) => tracing::debug!(upstream = %target, "connection closed"),
                    Err(error) => {
                        tracing::info!(upstream = %target, %error, "connection to the server lost");
                    }
                },
                () = cut.cancelled() => {}
            }
        });
        Ok(Connection { sender, calls: Arc::default() })
    }
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Body>,
    calls: Arc<AtomicUsize>,
}

impl Connection {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn lease(&self) -> Lease {
        // Counted under the lock of the list, so that two calls do not take the last place.
        self.calls.fetch_add(1, Ordering::Relaxed);
        Lease { sender: self.sender.clone(), place: Place(Arc::clone(&self.calls)) }
    }
}

/// A place on a connection, to send one call.
#[derive(Debug)]
pub struct Lease {
    sender: SendRequest<Body>,
    place: Place,
}

/// A call's place on its connection; dropped when the call has ended.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lease {
    /// Sends the call and waits for the answer's headers; dropping the future resets the stream.
    pub async fn send(
        mut self,
        call: Request<Body>,
    ) -> Result<(Response<Incoming>, Place), SendError> {
        match self.sender.try_send_request(call).await {
            Ok(answer) => Ok((answer, self.place)),
            Err(mut error) => match error.take_message() {
                Some(call) => Err(SendError::Unsent(Box::new(call))),
                None => Err(SendError::Failed(error.into_error())),
            },
        }
    }
}
