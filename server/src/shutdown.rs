//! Signals as a token that everybody can wait for.

use tokio_util::sync::CancellationToken;

/// Cancelled by SIGINT or SIGTERM.
///
/// # Errors
/// If the signals cannot be caught.
#[allow(clippy::disallowed_methods, reason = "lives as long as the process")]
pub fn on_signal() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut int, mut term) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::spawn(async move {
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
            cancelled.cancel();
        });
    }
    #[cfg(not(unix))]
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            cancelled.cancel();
        }
    });
    Ok(token)
}
