//! The composition root: bind, run, drain.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    net::TcpListener,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::App, assets::Site, config::Settings, forward::Forward, policy::Policy, serve,
    stop::Stages, upstream::Upstream,
};

/// Streams end this long after the stop: long enough for an answer that is nearly sent.
const STREAMS_GRACE: Duration = Duration::from_secs(1);

/// What remains for goodbyes after the last calls were told to end.
const LAST_GRACE: Duration = Duration::from_secs(1);

/// A proxy that has its address and does not run yet.
#[derive(Debug)]
pub struct Proxy {
    listener: TcpListener,
    addr: SocketAddr,
    app: App,
    upstream: Arc<Upstream>,
    stages: Stages,
    drain_timeout: Duration,
}

impl Proxy {
    /// Binds the address and says which it is. The server need not be up.
    pub async fn bind(settings: &Settings, site: Site) -> anyhow::Result<Self> {
        let listen = settings.listen;
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("listen on {listen} (--listen or PASAMANOS_WEB_LISTEN)"))?;
        let addr = listener.local_addr().context("read the bound address")?;

        if !site.built {
            tracing::warn!("the browser client was not built into this proxy: run `make ui`");
        }
        if !addr.ip().is_loopback() {
            tracing::warn!(%addr, "listening beyond this machine without TLS: put a proxy in front");
        }
        let policy = Arc::new(Policy::new(settings.reflection(), settings.origins.clone()));
        let upstream = Arc::new(Upstream::new(settings.upstream.clone()));
        let stages = Stages::default();
        let forward = Forward::new(Arc::clone(&policy), Arc::clone(&upstream), stages.clone());
        let app = App::new(forward, policy, site);

        if let Some(path) = &settings.port_file {
            write_whole(path, &format!("{addr}\n")).with_context(|| {
                format!("write {} (--port-file or PASAMANOS_PORT_FILE)", path.display())
            })?;
        }
        tracing::info!(%addr, upstream = %settings.upstream, "listening");
        Ok(Self { listener, addr, app, upstream, stages, drain_timeout: settings.drain_timeout })
    }

    /// The bound address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `stop`, then drains; `hurry` ends the draining. Returns within the drain time
    /// after `stop`, whatever the peers do.
    pub async fn run(
        self,
        stop: CancellationToken,
        hurry: CancellationToken,
    ) -> anyhow::Result<()> {
        let Self { listener, app, upstream, stages, drain_timeout, .. } = self;
        let tasks = TaskTracker::new();
        tokio::select! {
            never = serve::accept(listener, app, stages.clone(), tasks.clone()) => never,
            () = stop.cancelled() => {}
        }

        let end = Instant::now() + drain_timeout;
        tasks.close();
        tokio::select! {
            () = drain(&tasks, &stages, drain_timeout) => {}
            () = hurry.cancelled() => {}
        }
        let cut = tasks.len();
        stages.everything.cancel();

        // Nothing below waits for a peer; the bound is for what is not foreseen.
        let bound = end.max(Instant::now()) + LAST_GRACE;
        let ended = timeout_at(bound, async {
            tasks.wait().await;
            upstream.close().await;
        });
        if ended.await.is_err() {
            tracing::error!(tasks = tasks.len(), "stopped with tasks that did not end");
        } else if cut > 0 {
            tracing::warn!(cut, "stopped; the time was over for some connections");
        } else {
            tracing::info!("stopped");
        }
        Ok(())
    }
}

/// Goes through the stages, each as long as something is left to wait for.
async fn drain(tasks: &TaskTracker, stages: &Stages, drain_timeout: Duration) {
    let start = Instant::now();
    stages.accepting.cancel();
    if ended_by(tasks, start + STREAMS_GRACE.min(drain_timeout / 4)).await {
        return;
    }
    stages.streams.cancel();
    let last = LAST_GRACE.min(drain_timeout / 4);
    if ended_by(tasks, start + drain_timeout.saturating_sub(last)).await {
        return;
    }
    stages.calls.cancel();
    ended_by(tasks, start + drain_timeout).await;
}

async fn ended_by(tasks: &TaskTracker, end: Instant) -> bool {
    timeout_at(end, tasks.wait()).await.is_ok()
}

/// Writes a file that a reader sees wholly or not at all.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    std::fs::write(&part, text)?;
    std::fs::rename(&part, path)
}
