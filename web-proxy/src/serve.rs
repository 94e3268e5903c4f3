//! The accept loop, and the limits of one connection.

use std::{
    convert::Infallible,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::task::TaskTracker;
use tonic::body::Body;

use crate::{
    app::App,
    io::Watched,
    stop::{Stages, Tracked},
};

/// Most connections of browsers. Those beyond it are closed at once: a queue would only grow stale.
pub const MAX_CONNECTIONS: usize = 4096;

/// Most calls on one HTTP/2 connection.
const STREAMS_PER_CONNECTION: u32 = 1024;

/// Time for the headers of a request, and for the first request of a connection.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);

/// A peer that vanished is noticed after at most the sum.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest headers of a request.
const MAX_HEADERS: u32 = 16 * 1024;

/// What a browser may send before it was read: calls are small.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// Resets that a peer may cause on one connection before it is closed (RUSTSEC-2024-0003 and
/// MadeYouReset): set, because the defaults depend on the layer through which hyper is used.
const MAX_LOCAL_RESETS: usize = 64;
const MAX_PENDING_RESETS: usize = 20;

/// Pause after a failed accept: out of descriptors, the next try would fail as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until dropped; each runs as a task of `tasks`.
pub async fn accept(listener: TcpListener, app: App, stages: Stages, tasks: TaskTracker) -> ! {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let builder = builder(&tasks);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };

        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::debug!(limit = MAX_CONNECTIONS, "connection closed: too many");
            continue;
        };
        let connection = connection(stream, builder.clone(), app.clone(), stages.clone());
        tasks.spawn(async move {
            connection.await;
            drop(place);
        });
    }
}

/// Errors that tell of the connection that was lost while it waited, not of us.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
    )
}

fn builder(tasks: &TaskTracker) -> auto::Builder<Tracked> {
    let mut builder = auto::Builder::new(Tracked(tasks.clone()));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_header_list_size(MAX_HEADERS)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(64 * 1024);
    builder
}

/// Serves one connection to its end, or to the end of the proxy.
async fn connection(stream: TcpStream, builder: auto::Builder<Tracked>, app: App, stages: Stages) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "connection lost at once");
        return;
    }
    let asked = Arc::new(AtomicBool::new(false));
    let service = service_fn({
        let asked = Arc::clone(&asked);
        move |request: http::Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            let app = app.clone();
            async move { Ok::<_, Infallible>(app.handle(request.map(Body::new)).await) }
        }
    });
    let mut connection =
        pin!(builder.serve_connection(TokioIo::new(Watched::new(stream)), service));
    let mut first_request = pin!(sleep(HEADERS_TIMEOUT));
    let (mut waiting, mut draining) = (true, false);

    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection failed");
                }
                return;
            }
            // A preface alone holds a connection open: pings are answered for ever.
            () = first_request.as_mut(), if waiting => {
                waiting = false;
                if !asked.load(Ordering::Relaxed) {
                    tracing::debug!("connection closed: it asked for nothing");
                    return;
                }
            }
            () = stages.accepting.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = stages.everything.cancelled() => return,
        }
    }
}
