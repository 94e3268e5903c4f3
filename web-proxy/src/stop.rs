//! The stages of a shutdown, the signals that start it, and the tasks that it waits for.

use std::{future::Future, io};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What is told to end, in this order; each stage gives the ones before it some time.
#[derive(Clone, Debug, Default)]
pub struct Stages {
    /// Take no new connection, no new request on an open one.
    pub accepting: CancellationToken,
    /// End answers that are still being sent: they are streams, and would never end by themselves.
    pub streams: CancellationToken,
    /// Stop waiting for answers that have not begun.
    pub calls: CancellationToken,
    /// Drop what is left, mid-byte.
    pub everything: CancellationToken,
}

/// Runs the tasks of hyper where the shutdown can wait for them.
#[derive(Clone, Debug)]
pub struct Tracked(pub TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// Listens for SIGTERM and SIGINT: the first begins the shutdown, the second ends it at once.
///
/// The future never completes; it is polled beside what the signals stop.
pub fn signals(
    stop: CancellationToken,
    hurry: CancellationToken,
) -> io::Result<impl Future<Output = ()>> {
    let mut signals = Signals::new()?;
    Ok(async move {
        let first = signals.next().await;
        tracing::info!(signal = first, "stopping");
        stop.cancel();
        let second = signals.next().await;
        tracing::warn!(signal = second, "stopping at once");
        hurry.cancel();
        std::future::pending::<()>().await;
    })
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    #[allow(clippy::unnecessary_wraps, reason = "as on Unix")]
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}
