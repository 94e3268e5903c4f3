//! Health and metrics over HTTP, for machines that watch machines.

use std::future::Future;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What `/readyz` tells: whether reads are answered.
pub type Ready = watch::Receiver<bool>;

/// Serves `/healthz` (the process lives), `/readyz` (reads are answered) and `/metrics`.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    ready: Ready,
    metrics: PrometheusHandle,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let readyz = move || {
        let ready = *ready.borrow();
        async move {
            if ready {
                (StatusCode::OK, "ready\n")
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
            }
        }
    };
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(move || async move { metrics.render() }));
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    Ok(())
}
